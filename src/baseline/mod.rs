//! baseline: learned speeds without hindrance and usual speeds by time of the week (algorithms §5).
//!
//! [`Collector`] makes a [`Learned`] of closed panes, the file holds it, and [`Baseline`] is what a run asks:
//! a file brought onto the run's map, or the map's prior where there is none. All are immutable once made.

mod calendar;
mod collect;
mod file;
mod learned;
mod typical;

use std::sync::Arc;

pub use calendar::{Calendar, DAYS, DayKind, Holiday, Holidays, QUARTERS, SLOTS, Slot};
pub use collect::{Collector, Travel};
pub use file::{BaselineFileError, FORMAT};
pub use learned::{FreeFlow, Learned, LinkHistory, Week};

use crate::network::{LinkIndex, Network, SegmentIndex};
use crate::units::{EventTime, MmPerS};
use learned::{FLOOR, Mapped, limit};
use typical::{ClassWeek, Whole, class_weeks};

/// Name of the baseline where there is no file: speeds from limit and class.
pub const PRIOR: &str = "prior";
/// Least coefficient of variation, in permille: under it lies the noise of the measuring (algorithms §7.1).
const VARIATION_MIN_PERMILLE: u32 = 120;

/// Free-flow and usual speeds of every segment of a map.
#[derive(Clone, Debug)]
pub struct Baseline {
    network: Arc<Network>,
    /// By segment, mm/s.
    free_flow: Vec<MmPerS>,
    week: Option<Weeks>,
}

/// The part that only a file gives.
#[derive(Clone, Debug)]
struct Weeks {
    version: String,
    calendar: Calendar,
    /// By link: its free flow in mm/s and its week, if the file has it.
    links: Vec<Option<(MmPerS, Whole)>>,
    /// By class.
    classes: Vec<ClassWeek>,
}

/// How a file fits a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Links of the file that the map has.
    pub found: usize,
    /// Links of the file.
    pub of: usize,
    /// Whether it was learned on this very map.
    pub same_map: bool,
}

/// The link of a file on another map of the same city: the same first segment, and nearly the same length
/// (algorithms §1.6).
fn find_link(network: &Network, history: &LinkHistory) -> Option<LinkIndex> {
    let first = network.find(history.key)?;
    let link = network.segment(first).link;
    let here = &network.links()[link as usize];
    let length_m = here.length_mm / 1000;
    let off = length_m.abs_diff(u64::from(history.length_m));
    (here.segments.first() == Some(&first) && off <= (length_m / 20).max(20)).then_some(link)
}

impl Baseline {
    /// The map's own: free flow from limit and class, and usual is what is free.
    pub fn prior(network: Arc<Network>) -> Self {
        let free_flow = network.segments().iter().map(|s| s.free_flow).collect();
        Self {
            network,
            free_flow,
            week: None,
        }
    }

    /// A file on a map. Links are known again by their stable key; those that the file does not have keep the
    /// prior for their free flow, and their class's week.
    pub fn new(network: Arc<Network>, learned: &Learned, calendar: Calendar) -> (Self, Fit) {
        let mut links: Vec<Option<(MmPerS, Whole)>> = vec![None; network.links().len()];
        let mut fit = Fit {
            found: 0,
            of: learned.links.len(),
            same_map: learned.map_version == network.version(),
        };
        let mut free_flow: Vec<MmPerS> = network.segments().iter().map(|s| s.free_flow).collect();
        for history in &learned.links {
            let Some(link) = find_link(&network, history) else {
                continue;
            };
            fit.found += 1;
            let used = history.free_flow.used;
            // A link's segments keep the differences that the map makes between them.
            let prior = u64::from(Mapped::of(&network, link).prior);
            for &i in &network.links()[link as usize].segments {
                let own = u64::from(network.segment(i).free_flow);
                let most = limit(&network, i).max(network.segment(i).free_flow);
                let scaled = (own * u64::from(used) + prior / 2) / prior;
                free_flow[i as usize] = (scaled as MmPerS).clamp(FLOOR.min(most), most);
            }
            links[link as usize] = Some((used, Whole::own(&history.week, &history.free_flow)));
        }
        let class = |link: usize| network.segment(network.links()[link].segments[0]).class;
        let known = links.iter().enumerate();
        let classes = class_weeks(known.filter_map(|(i, l)| {
            let (used, whole) = l.as_ref()?;
            Some((class(i), *used, whole))
        }));
        for (i, link) in links.iter_mut().enumerate() {
            if let Some((used, whole)) = link {
                whole.fill(*used, &classes[class(i) as usize]);
            }
        }
        let week = Weeks {
            version: learned.version(),
            calendar,
            links,
            classes,
        };
        let baseline = Self {
            network,
            free_flow,
            week: Some(week),
        };
        (baseline, fit)
    }

    /// Version of the file, 16 hex digits; [`PRIOR`] without one.
    pub fn version(&self) -> &str {
        self.week.as_ref().map_or(PRIOR, |w| &w.version)
    }

    /// Whether there is a file behind it.
    pub fn is_learned(&self) -> bool {
        self.week.is_some()
    }

    /// The calendar by which it is asked; `None` without a file.
    pub fn calendar(&self) -> Option<&Calendar> {
        self.week.as_ref().map(|w| &w.calendar)
    }

    /// Speed of a segment without hindrance, in mm/s, at least 1.
    pub fn free_flow(&self, segment: SegmentIndex) -> MmPerS {
        self.free_flow[segment as usize]
    }

    /// The slot of a moment, to be asked for many links; without a file all moments are alike.
    pub fn slot(&self, time: EventTime) -> Slot {
        self.calendar()
            .map_or(Slot { day: 0, quarter: 0 }, |calendar| calendar.slot(time))
    }

    /// Usual speed of a link as a share of its free flow, in permille, at least 1: 1000 without a file.
    pub fn typical_permille(&self, link: LinkIndex, slot: Slot) -> u32 {
        let Some(week) = &self.week else { return 1000 };
        match &week.links[link as usize] {
            Some((free_flow, whole)) => {
                let speed = u64::from(whole.speed(slot.index()));
                (speed * 1000 / u64::from((*free_flow).max(1))).clamp(1, 10_000) as u32
            }
            None => {
                let first = self.network.links()[link as usize].segments[0];
                let class = &week.classes[self.network.segment(first).class as usize];
                u32::from(class.ratio_permille[slot.index()]).max(1)
            }
        }
    }

    /// Usual speed of a segment in mm/s, at least 1.
    pub fn typical(&self, segment: SegmentIndex, slot: Slot) -> MmPerS {
        let ratio = self.typical_permille(self.network.segment(segment).link, slot);
        let speed = u64::from(self.free_flow(segment)) * u64::from(ratio) / 1000;
        (speed as MmPerS).max(1)
    }

    /// Coefficient of variation of a link's five-minute speed about its usual one, in permille, at least 120;
    /// `None` where it was not learned.
    pub fn variation_permille(&self, link: LinkIndex, slot: Slot) -> Option<u32> {
        let (_, whole) = self.week.as_ref()?.links[link as usize].as_ref()?;
        let hundredths = whole.variation(slot.index())?;
        Some((u32::from(hundredths) * 10).max(VARIATION_MIN_PERMILLE))
    }
}

#[cfg(test)]
mod tests;
