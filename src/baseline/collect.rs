//! Learning: from the sums of closed panes to what a baseline file holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::calendar::{Calendar, SLOTS, Slot};
use super::find_link;
use super::learned::{
    DAY_QUARTERS, FreeFlow, Learned, LinkHistory, Mapped, Week, from_half_kph, to_half_kph, worth,
};
use crate::network::{LinkIndex, Network, SegmentIndex};
use crate::units::{EventTime, MmPerS, speed_mm_s};

const QUARTER_MS: i64 = 900_000;
/// The windows whose spread is the variation: as long as a state's.
const BLOCK_MS: i64 = 300_000;
/// Weight from which a quarter hour or a block says something: one contribution, in permille.
const LEAST_WEIGHT: u64 = 1000;
/// Days after which a slot forgets (algorithms §5): up to here its speed is the mean of its days.
const EVEN_DAYS: u8 = 6;
/// Weight of a day from then on.
const FORGETTING: f64 = 0.15;
/// Free flow may change by so much a day when a file is updated.
const CHANGE_PER_DAY: f64 = 0.03;
/// The night of the 85th percentile: before 6:00 and from 22:00 on.
const NIGHT_ENDS: u8 = 24;
const NIGHT_BEGINS: u8 = 88;
/// Whole km/h counted at night.
const NIGHT_BINS: usize = 160;
/// Nights weigh no more than so many samples against new ones.
const NIGHT_SAMPLES_MAX: u32 = 1000;

/// Sums of one segment over one closed pane, as aggregate made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Travel {
    /// Beginning of the pane.
    pub begin: EventTime,
    /// Where.
    pub segment: SegmentIndex,
    /// Σ weight · distance, ‰·mm.
    pub weighted_mm: u64,
    /// Σ weight · time, ‰·ms.
    pub weighted_ms: u64,
    /// Σ weight over contributions, ‰.
    pub weight: u64,
}

/// Edie sums.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    mm: u64,
    ms: u64,
    weight: u64,
}

impl Sums {
    fn add(&mut self, travel: &Travel) {
        self.mm += travel.weighted_mm;
        self.ms += travel.weighted_ms;
        self.weight += travel.weight;
    }

    fn speed(&self) -> Option<MmPerS> {
        let enough = self.weight >= LEAST_WEIGHT;
        speed_mm_s(self.mm, self.ms).filter(|_| enough).map(|v| v.max(1))
    }
}

/// A slot while it is being learned.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// mm/s.
    speed: u16,
    /// Coefficient of variation in ten-thousandths; 0 if not known.
    variation: u16,
    days: u8,
}

impl Cell {
    /// Takes the speed of another day and, if known, its relative variance within that quarter hour.
    fn learn(&mut self, speed: MmPerS, within: Option<f64>) {
        let (x, n) = (f64::from(speed), self.days);
        let share = if n < EVEN_DAYS {
            1.0 / (f64::from(n) + 1.0)
        } else {
            FORGETTING
        };
        let before = f64::from(self.speed);
        let mean = if n == 0 { x } else { before + share * (x - before) };
        let cv = f64::from(self.variation) / 10_000.0;
        let step = if n == 0 { 0.0 } else { (x - before) / mean };
        // The variance of a mixture of the days before (1 − share) and this one (share).
        let variance =
            (1.0 - share) * cv * cv + share * within.unwrap_or(cv * cv) + share * (1.0 - share) * step * step;
        self.speed = (mean.round() as u32).clamp(1, u32::from(u16::MAX)) as u16;
        self.variation = (libm::sqrt(variance) * 10_000.0).round().min(25_500.0) as u16;
        self.days = n.saturating_add(1);
    }
}

/// A link while it is being learned.
#[derive(Debug)]
struct Work {
    cells: Vec<Cell>,
    free_flow: FreeFlow,
    /// Free flow of the file that is updated.
    before: Option<MmPerS>,
    /// The quarter hour and block in progress, by their numbers since the epoch.
    quarter: i64,
    block: i64,
    in_quarter: Sums,
    in_block: Sums,
    /// Finished blocks of the quarter hour: Σ weight, Σ weight · speed, Σ weight · speed².
    blocks: (u128, u128, u128),
    block_count: u32,
    /// ‰·mm driven between 6:00 and 24:00.
    day_mm: u128,
    night: Vec<u32>,
}

impl Work {
    fn new() -> Self {
        Self {
            cells: vec![Cell::default(); SLOTS],
            free_flow: FreeFlow::default(),
            before: None,
            quarter: i64::MIN,
            block: i64::MIN,
            in_quarter: Sums::default(),
            in_block: Sums::default(),
            blocks: (0, 0, 0),
            block_count: 0,
            day_mm: 0,
            night: vec![0; NIGHT_BINS],
        }
    }

    fn of(history: &LinkHistory) -> Self {
        let mut work = Self::new();
        let week = &history.week;
        for (i, cell) in work
            .cells
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| week.days[*i] > 0)
        {
            cell.speed = from_half_kph(week.speed[i]) as u16;
            cell.variation = u16::from(week.variation[i]) * 100;
            cell.days = week.days[i];
        }
        work.free_flow = history.free_flow;
        work.before = Some(history.free_flow.used);
        work
    }

    fn observe(&mut self, travel: &Travel, calendar: &Calendar) {
        let quarter = travel.begin.ms().div_euclid(QUARTER_MS);
        let block = travel.begin.ms().div_euclid(BLOCK_MS);
        assert!(
            quarter >= self.quarter && block >= self.block,
            "panes are learned in the order of time"
        );
        if block > self.block {
            self.end_block(calendar);
            self.block = block;
        }
        if quarter > self.quarter {
            self.end_quarter(calendar);
            self.quarter = quarter;
        }
        self.in_quarter.add(travel);
        self.in_block.add(travel);
    }

    fn end_block(&mut self, calendar: &Calendar) {
        let sums = std::mem::take(&mut self.in_block);
        let Some(speed) = sums.speed() else { return };
        let (w, v) = (u128::from(sums.weight), u128::from(speed));
        self.blocks.0 += w;
        self.blocks.1 += w * v;
        self.blocks.2 += w * v * v;
        self.block_count += 1;
        let slot = calendar.slot(EventTime::from_ms(self.block * BLOCK_MS));
        if slot.quarter < NIGHT_ENDS || slot.quarter >= NIGHT_BEGINS {
            // Whole km/h of mm/s.
            let bin = (u64::from(speed) * 36 / 10_000) as usize;
            self.night[bin.min(NIGHT_BINS - 1)] += 1;
        }
    }

    fn end_quarter(&mut self, calendar: &Calendar) {
        let sums = std::mem::take(&mut self.in_quarter);
        let (weight, first, second) = std::mem::take(&mut self.blocks);
        let blocks = std::mem::take(&mut self.block_count);
        let Some(speed) = sums.speed() else { return };
        let slot: Slot = calendar.slot(EventTime::from_ms(self.quarter * QUARTER_MS));
        if DAY_QUARTERS.contains(&usize::from(slot.quarter)) {
            self.day_mm += u128::from(sums.mm);
        }
        // One block has no spread.
        let within = (blocks > 1).then(|| {
            let mean = first as f64 / weight as f64;
            let variance = (second as f64 / weight as f64 - mean * mean).max(0.0);
            variance / (mean * mean)
        });
        self.cells[slot.index()].learn(speed, within);
    }

    fn finish(mut self, network: &Network, link: LinkIndex, days: u32, calendar: &Calendar) -> LinkHistory {
        self.end_block(calendar);
        self.end_quarter(calendar);
        let length_mm = network.links()[link as usize].length_mm;
        let mut week = Week::default();
        for (i, cell) in self.cells.iter().enumerate().filter(|(_, c)| c.days > 0) {
            week.speed[i] = to_half_kph(u32::from(cell.speed));
            week.variation[i] = cell.variation.div_ceil(100) as u8;
            week.days[i] = cell.days;
        }
        let flow = &mut self.free_flow;
        let passages = (self.day_mm / 1000)
            .checked_div(u128::from(length_mm))
            .unwrap_or(0);
        flow.day_passages = flow
            .day_passages
            .saturating_add(u32::try_from(passages).unwrap_or(u32::MAX));
        let samples: u32 = self.night.iter().sum();
        if let Some(night) = percentile_85(&self.night) {
            let (old, new) = (flow.night_samples.min(NIGHT_SAMPLES_MAX), samples);
            let sum = u64::from(flow.night) * u64::from(old) + u64::from(night) * u64::from(new);
            flow.night = (sum / u64::from(old + new)) as MmPerS;
            flow.night_samples = flow.night_samples.saturating_add(new);
        }
        flow.settle(&week, Mapped::of(network, link));
        if let Some(before) = self.before {
            let most = f64::from(before) * CHANGE_PER_DAY * f64::from(days);
            let (low, high) = (f64::from(before) - most, f64::from(before) + most);
            flow.used = f64::from(flow.used).clamp(low.max(1.0), high).round() as MmPerS;
        }
        let first = network.links()[link as usize].segments[0];
        LinkHistory {
            key: network.segment(first).key,
            length_m: (length_mm / 1000) as u32,
            free_flow: self.free_flow,
            week,
        }
    }
}

/// The 85th percentile by nearest rank of counts by whole km/h, in mm/s.
fn percentile_85(counts: &[u32]) -> Option<MmPerS> {
    let n: u64 = counts.iter().map(|c| u64::from(*c)).sum();
    let rank = (n * 85).div_ceil(100);
    let mut sum = 0;
    let bin = counts.iter().position(|c| {
        sum += u64::from(*c);
        sum >= rank && n > 0
    })?;
    // The middle of the bin: (bin + 0.5) km/h.
    Some((2 * bin as u32 + 1) * 1250 / 9)
}

/// Takes closed panes in the order of time and makes the next baseline of them.
#[derive(Debug)]
pub struct Collector {
    network: Arc<Network>,
    calendar: Calendar,
    links: BTreeMap<LinkIndex, Work>,
    /// Links of which nothing is learned for now.
    disturbed: BTreeSet<LinkIndex>,
    days: BTreeSet<jiff::civil::Date>,
    before: (u32, String),
}

impl Collector {
    /// A collector that goes on from `before`, if there is such a file. Links of it that this map does not have
    /// are left out; their number is the second value.
    ///
    /// # Errors
    /// A text for people, if the file's slots are those of another time zone.
    pub fn new(
        network: Arc<Network>,
        calendar: Calendar,
        before: Option<&Learned>,
    ) -> Result<(Self, usize), String> {
        let mut links = BTreeMap::new();
        let mut lost = 0;
        for history in before.iter().flat_map(|b| &b.links) {
            match find_link(&network, history) {
                Some(link) => drop(links.insert(link, Work::of(history))),
                None => lost += 1,
            }
        }
        if let Some(before) = before
            && before.zone != calendar.zone()
        {
            return Err(format!(
                "its slots are in the time zone {}, not {}; build it anew, or keep its zone",
                before.zone,
                calendar.zone()
            ));
        }
        let before = before.map_or((0, String::new()), |b| (b.days, b.last_day.clone()));
        let collector = Self {
            network,
            calendar,
            links,
            disturbed: BTreeSet::new(),
            days: BTreeSet::new(),
            before,
        };
        Ok((collector, lost))
    }

    /// Leaves a link out while something that is not usual goes on there, or takes it in again.
    pub fn disturb(&mut self, link: LinkIndex, disturbed: bool) {
        if disturbed {
            self.disturbed.insert(link);
        } else {
            self.disturbed.remove(&link);
        }
    }

    /// Takes the sums of a segment over a pane.
    ///
    /// # Panics
    /// If panes do not come in the order of time.
    pub fn observe(&mut self, travel: &Travel) {
        let segment = self.network.segment(travel.segment);
        if self.disturbed.contains(&segment.link) || !worth(&self.network, travel.segment) {
            return;
        }
        self.days.insert(self.calendar.date(travel.begin));
        let work = self.links.entry(segment.link).or_insert_with(Work::new);
        work.observe(travel, &self.calendar);
    }

    /// What was learned.
    pub fn finish(self) -> Learned {
        let (network, calendar) = (&self.network, &self.calendar);
        let new_days = self.days.len() as u32;
        let last = self.days.last().map(ToString::to_string);
        let mut links: Vec<LinkHistory> = self
            .links
            .into_iter()
            .map(|(link, work)| work.finish(network, link, new_days, calendar))
            .filter(|history| history.week.days.iter().any(|n| *n > 0))
            .collect();
        links.sort_unstable_by_key(|l| l.key);
        Learned {
            map_version: network.version().to_owned(),
            zone: calendar.zone().to_owned(),
            days: self.before.0 + new_days,
            last_day: last.unwrap_or_default().max(self.before.1),
            links,
        }
    }
}
