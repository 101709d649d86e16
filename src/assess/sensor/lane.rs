//! What the records of one lane sensor say of the sensor itself (algorithms §3.7).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Cause, SensorSettings};
use crate::ingest::Measurement;
use crate::network::{RoadClass, Segment, SegmentFlags};
use crate::units::{EventTime, MmPerS};

/// Intervals kept of a sensor while it is sane.
const HISTORY: usize = 75;
/// Time over which the usual flow is taken, in ms: an hour, and the last quarter of it.
const HOUR_MS: i64 = 3_600_000;
const QUARTER_MS: i64 = 900_000;
/// Time before a gap in which flow that ebbs away shows, in ms.
const EBB_MS: i64 = 300_000;
/// Intervals with a speed that the usual speed needs.
const USUAL_MIN: usize = 10;
/// Vehicles expected of the other lanes, in thousandths, from which their silence says that the road is empty.
const WITNESS_MILLI: u64 = 4_000;
/// An assumed speed limit below this does not bound what is plausible, in mm/s: 80 km/h.
const ASSUMED_LIMIT: MmPerS = 22_222;
/// Occupancy that is "always on", in permille.
const LOCKED_PERMILLE: u32 = 950;
/// Records in a row that show what one alone does not: a wrong speed, too many vehicles.
const IN_A_ROW: u32 = 3;
/// A change by 3.6, either way, with what traffic adds to it: tenths.
const UNIT_TENTHS: std::ops::RangeInclusive<u64> = 24..=54;

/// One interval of a sane sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Interval {
    end: EventTime,
    ms: u32,
    count_milli: u32,
    speed: Option<MmPerS>,
    occupancy_permille: Option<u32>,
}

impl Interval {
    fn of(m: &Measurement) -> Self {
        Self {
            end: m.time,
            ms: m.interval_ms,
            count_milli: m.count_milli.unwrap_or(0),
            speed: m.speed.filter(|v| *v > 0),
            occupancy_permille: m.occupancy_permille,
        }
    }

    /// Effective length of a vehicle over the loop, v · occupancy / flow, in mm: the same in a jam as in free
    /// flow, so that it tells a wrong unit from slow traffic.
    fn length_mm(&self) -> Option<u64> {
        let (speed, occupancy) = (self.speed?, self.occupancy_permille.filter(|o| *o > 0)?);
        (u64::from(speed) * u64::from(occupancy) * u64::from(self.ms))
            .checked_div(u64::from(self.count_milli) * 1000)
    }
}

/// What is known of the place of a sensor and of its neighbours as it is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    pub(super) segment: &'a Segment,
    /// Vehicles that the other lanes counted since this one's last hit, and those expected of them; thousandths.
    pub(super) witnessed: (u64, u64),
    /// Lanes that one record speaks of.
    pub(super) lanes: u32,
    /// Speed of the probes on the segment by its free-flow speed, in permille, where there are enough.
    pub(super) probes_permille: Option<u32>,
}

impl Around<'_> {
    /// Vehicles pass beside it.
    fn flows(&self) -> bool {
        let (seen, expected) = self.witnessed;
        expected >= WITNESS_MILLI && seen * 10 >= expected * 6
    }

    /// The lanes beside it are empty as well: it is the road, not the sensor.
    fn ebbs(&self) -> bool {
        let (seen, expected) = self.witnessed;
        expected >= WITNESS_MILLI && seen * 10 < expected * 6
    }
}

/// What the records so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Sane,
    Doubtful(Cause),
    /// A fault and when it began.
    Fault(Cause, EventTime),
}

/// What is remembered of the records of a sensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lane {
    last: Interval,
    /// Intervals while it was sane, oldest first; the empty ones since the last hit are at its end.
    history: VecDeque<Interval>,
    /// Records equal to the last, in a row, with it; with traffic only.
    equal: u32,
    /// When the first of them ended.
    equal_since: EventTime,
    /// Empty records since the last hit.
    empty: u32,
    /// End of the last interval with a vehicle, of the first one if there was none.
    hit: EventTime,
    /// Beginning of the run of intervals that were occupied all the time without a vehicle.
    locked_since: Option<EventTime>,
    /// Intervals in a row with more vehicles than a lane carries.
    crowded: u32,
    /// Intervals in a row, empty ones left out, that fit only after × 3.6 or ÷ 3.6, and the first.
    unit: (u32, EventTime),
    /// Intervals in a row, empty ones left out, above every plausible speed, and the first.
    fast: (u32, EventTime),
    /// The wrong unit shows against the sensor's own past too.
    shifted: bool,
}

impl Lane {
    pub(super) fn new(m: &Measurement) -> Self {
        let begin = m.time.plus_ms(-i64::from(m.interval_ms));
        Self {
            last: Interval {
                end: begin,
                count_milli: 0,
                speed: None,
                ..Interval::of(m)
            },
            history: VecDeque::new(),
            equal: 0,
            equal_since: begin,
            empty: 0,
            hit: begin,
            locked_since: None,
            crowded: 0,
            unit: (0, begin),
            fast: (0, begin),
            shifted: false,
        }
    }

    /// End of the last interval.
    pub(super) fn last(&self) -> EventTime {
        self.last.end
    }

    /// Length of the last interval in ms.
    pub(super) fn interval_ms(&self) -> u32 {
        self.last.ms
    }

    /// End of the last interval with a vehicle.
    pub(super) fn hit(&self) -> EventTime {
        self.hit
    }

    /// The last interval: vehicles in thousandths, occupancy in permille, speed.
    pub(super) fn shows(&self) -> (u32, Option<u32>, Option<MmPerS>) {
        (
            self.last.count_milli,
            self.last.occupancy_permille,
            self.last.speed,
        )
    }

    /// Takes the next interval. `learn` unless the sensor is known to be faulty: its past must stay that of a
    /// sane one.
    pub(super) fn take(&mut self, m: &Measurement, segment: &Segment, s: &SensorSettings, learn: bool) {
        let now = Interval::of(m);
        let hit = now.count_milli > 0 || now.speed.is_some();
        let same = (now.count_milli, now.speed, now.occupancy_permille, now.ms)
            == (
                self.last.count_milli,
                self.last.speed,
                self.last.occupancy_permille,
                self.last.ms,
            );
        if hit && same && self.equal > 0 {
            self.equal += 1;
        } else {
            self.equal = u32::from(hit);
            self.equal_since = now.end;
        }
        let begin = now.end.plus_ms(-i64::from(now.ms));
        let locked = !hit && now.occupancy_permille.is_some_and(|o| o >= LOCKED_PERMILLE);
        self.locked_since = locked.then(|| self.locked_since.unwrap_or(begin));
        let crowd = u64::from(now.count_milli) * 30 >= u64::from(s.chatter_per_30s) * u64::from(now.ms);
        self.crowded = if crowd { self.crowded + 1 } else { 0 };
        if let Some(v) = now.speed {
            let (wrong, shifted) = self.wrong_unit(&now, v, segment, s);
            self.unit = run(self.unit, wrong, begin);
            self.shifted = shifted && wrong && (self.shifted || self.unit.0 == 1);
            self.fast = run(self.fast, v > plausible(segment, s), begin);
        }
        if hit {
            self.hit = now.end;
            self.empty = 0;
        } else {
            self.empty += 1;
        }
        if learn && self.unit.0 == 0 && self.fast.0 == 0 && !locked {
            self.history.push_back(now);
            while self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        self.last = now;
    }

    /// Forgets the empty intervals since the last hit: they were the fault's.
    pub(super) fn unlearn(&mut self) {
        while self.history.back().is_some_and(|i| i.end > self.hit) {
            self.history.pop_back();
        }
    }

    /// Whether a speed fits only after × 3.6 or ÷ 3.6, and whether the sensor's own past says so too.
    fn wrong_unit(&self, now: &Interval, v: MmPerS, segment: &Segment, s: &SensorSettings) -> (bool, bool) {
        let v = u64::from(v);
        let limit = u64::from(plausible_limit(segment));
        let usual = self.usual(|i| i.speed.map(u64::from));
        let tenths = |a: u64, b: u64| a * 10 / b.max(1);
        let risen = usual.is_some_and(|u| UNIT_TENTHS.contains(&tenths(v, u)));
        let fallen = usual.is_some_and(|u| UNIT_TENTHS.contains(&tenths(u, v)));
        // 3.6 × 1.3 = 4.68: what is below becomes plausible.
        let high = v > u64::from(plausible(segment, s)) && v * 100 <= limit * 468;
        // In a jam the speed falls and the occupancy rises, and the vehicles stay as long as they were.
        let shorter = self
            .usual(Interval::length_mm)
            .zip(now.length_mm())
            .is_some_and(|(usual, now)| UNIT_TENTHS.contains(&tenths(usual, now)));
        let wrong = high || (risen && v * 10 > limit * 13) || (fallen && shorter);
        (wrong, risen || fallen)
    }

    /// Median over the sane intervals, if there are enough.
    fn usual(&self, value: impl Fn(&Interval) -> Option<u64>) -> Option<u64> {
        let mut values: Vec<u64> = self.history.iter().filter_map(value).collect();
        if values.len() < USUAL_MIN {
            return None;
        }
        values.sort_unstable();
        Some(values[values.len() / 2])
    }

    /// Mean speed over the intervals that ended in the last five minutes, weighted by their vehicles.
    pub(super) fn recent_speed(&self, now: EventTime) -> Option<MmPerS> {
        let (mut vehicles, mut sum) = (0_u64, 0_u64);
        for i in self.history.iter().rev() {
            if now.since(i.end) > 300_000 {
                break;
            }
            if let Some(v) = i.speed {
                let weight = u64::from(i.count_milli.max(1));
                vehicles += weight;
                sum += weight * u64::from(v);
            }
        }
        sum.checked_div(vehicles).map(|v| v as MmPerS)
    }

    /// Vehicles per `ms` in thousandths before `until`, over at most `span_ms`.
    fn expected(&self, until: EventTime, span_ms: i64, ms: i64) -> u64 {
        let past = self
            .history
            .iter()
            .filter(|i| i.end <= until && until.since(i.end) < span_ms);
        let (count, time) = past.fold((0_u64, 0_u64), |(c, t), i| {
            (c + u64::from(i.count_milli), t + u64::from(i.ms))
        });
        let ms = u64::try_from(ms).unwrap_or(0);
        (count * ms).checked_div(time).unwrap_or(0)
    }

    /// Vehicles counted after `since` and those expected from what was before it, in thousandths.
    pub(super) fn witness(&self, since: EventTime) -> (u64, u64) {
        let after = self.history.iter().filter(|i| i.end > since);
        let (count, ms) = after.fold((0_u64, 0_i64), |(c, t), i| {
            (c + u64::from(i.count_milli), t + i64::from(i.ms))
        });
        (count, self.expected(since, HOUR_MS, ms))
    }

    /// Share of the minutes (or intervals, if longer) with a vehicle in the quarter of an hour before the last
    /// hit, in permille; 0 if less than ten minutes of it are known.
    fn busy_permille(&self) -> u32 {
        let bin = i64::from(self.last.ms).max(60_000);
        let past = self
            .history
            .iter()
            .filter(|i| i.end <= self.hit && self.hit.since(i.end) < QUARTER_MS);
        let mut bins = [None::<bool>; 16];
        for i in past {
            let at = (self.hit.since(i.end) / bin) as usize;
            if let Some(slot) = bins.get_mut(at) {
                *slot = Some(slot.unwrap_or(false) || i.count_milli > 0);
            }
        }
        let known = bins.iter().flatten().count() as u32;
        let busy = bins.iter().flatten().filter(|b| **b).count() as u32;
        if i64::from(known) * bin < 600_000 {
            return 0;
        }
        busy * 1000 / known
    }

    /// Judges the records so far.
    pub(super) fn judge(&self, around: &Around<'_>, s: &SensorSettings) -> Judgement {
        let last = &self.last;
        // Two measures that repeat to the last digit are no chance; a bare count may well be.
        let rich = last.speed.is_some() && last.occupancy_permille.is_some();
        let records = if rich {
            s.stuck_records
        } else {
            s.stuck_records_bare
        };
        if self.equal >= records {
            return Judgement::Fault(Cause::Stuck, self.equal_since);
        }
        if self.crowded >= 2 && crowded(last, around.lanes, s) {
            let begin = last.end.plus_ms(-2 * i64::from(last.ms));
            return Judgement::Fault(Cause::Chatter, begin);
        }
        if self.unit.0 >= IN_A_ROW || (self.shifted && self.unit.0 >= 2) {
            return Judgement::Fault(Cause::Unit, self.unit.1);
        }
        if self.fast.0 >= IN_A_ROW && self.unit.0 == 0 {
            return Judgement::Fault(Cause::Implausible, self.fast.1);
        }
        if let Some(since) = self.locked_since {
            // In a street vehicles wait on a loop while others pass beside them.
            let moving = around.segment.class <= RoadClass::TrunkLink
                && (around.flows() || around.probes_permille.is_some_and(|p| p >= 500));
            let after = if moving {
                s.locked_on_min
            } else {
                s.locked_on_alone_min
            };
            if last.end.since(since) >= i64::from(after) * 60_000 {
                return Judgement::Fault(Cause::LockedOn, since);
            }
        }
        if let Some(fault) = self.no_hits(around, s) {
            return fault;
        }
        if self.equal * 2 > records {
            return Judgement::Doubtful(Cause::Stuck);
        }
        if self.unit.0 > 0 {
            return Judgement::Doubtful(Cause::Unit);
        }
        if self.fast.0 > 0 {
            return Judgement::Doubtful(Cause::Implausible);
        }
        Judgement::Sane
    }

    /// Nothing counted although vehicles were to be expected.
    fn no_hits(&self, around: &Around<'_>, s: &SensorSettings) -> Option<Judgement> {
        let gap_ms = self.last.end.since(self.hit);
        // A loop on which a queue stands counts nobody and is occupied.
        if self.empty < 3 || self.last.occupancy_permille.is_some_and(|o| o >= 20) {
            return None;
        }
        let fault = Some(Judgement::Fault(Cause::NoHits, self.hit));
        let slow_h: i64 = match around.segment.class {
            RoadClass::Motorway | RoadClass::Trunk => 4,
            RoadClass::MotorwayLink | RoadClass::TrunkLink => 12,
            _ => 72,
        };
        if gap_ms >= slow_h * HOUR_MS {
            return fault;
        }
        if around.ebbs() {
            return None;
        }
        // The lower of two rates: traffic that ebbs away is no fault.
        let missing = self
            .expected(self.hit, HOUR_MS, gap_ms)
            .min(self.expected(self.hit, QUARTER_MS, gap_ms));
        let fast_ms = i64::from(s.no_hits_min) * 60_000;
        // Where a vehicle came nearly every minute, a shorter gap tells as much.
        let steady = f64::from(self.busy_permille()) >= s.no_hits_busy_share * 1000.0;
        let enough = u64::from(s.no_hits_vehicles) * 1000;
        // If the last minutes brought less than half of that, the gap is the end of an ebb.
        let ebb = self.expected(self.hit, EBB_MS, gap_ms) * 2 < missing;
        let soon = steady && !ebb && gap_ms >= fast_ms && missing * 10 >= enough * 8;
        if soon || gap_ms >= 3 * fast_ms && missing >= enough {
            return fault;
        }
        (steady && gap_ms * 2 >= fast_ms).then_some(Judgement::Doubtful(Cause::NoHits))
    }
}

/// Whether more vehicles were counted than `lanes` lanes carry.
fn crowded(i: &Interval, lanes: u32, s: &SensorSettings) -> bool {
    u64::from(i.count_milli) * 30 >= u64::from(s.chatter_per_30s) * u64::from(i.ms) * u64::from(lanes.max(1))
}

/// Speed limit that bounds what is plausible.
fn plausible_limit(segment: &Segment) -> MmPerS {
    let limit = MmPerS::from(segment.limit_kph) * 10_000 / 36;
    if segment.flags.has(SegmentFlags::LIMIT_TAGGED) {
        limit.max(1)
    } else {
        limit.max(ASSUMED_LIMIT)
    }
}

/// Greatest plausible mean speed of an interval.
fn plausible(segment: &Segment, s: &SensorSettings) -> MmPerS {
    (f64::from(plausible_limit(segment)) * s.speed_ratio_max) as MmPerS
}

/// A run that goes on, with its beginning, or ends.
fn run((n, since): (u32, EventTime), holds: bool, begin: EventTime) -> (u32, EventTime) {
    match (holds, n) {
        (false, _) => (0, begin),
        (true, 0) => (1, begin),
        (true, n) => (n + 1, since),
    }
}
