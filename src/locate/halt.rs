//! Standstills: a vehicle that stays within a few metres of where it came to rest.

use serde::{Deserialize, Serialize};

use crate::network::SegmentIndex;
use crate::units::EventTime;

/// A vehicle that stays this near to where it stopped has not moved, in mm: receivers wander that much.
const REACH_MM: u32 = 12_000;
/// Standing for less is traffic's ordinary stop and go, in ms.
const LEAST_MS: i64 = 30_000;
/// Longest time between two fixes that can belong to one standstill, in ms.
const GAP_MS: i64 = 60_000;

/// Where a vehicle may be standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Halt {
    pub(super) segment: SegmentIndex,
    pub(super) offset_mm: u32,
    pub(super) since: EventTime,
    until: EventTime,
}

impl Halt {
    pub(super) fn new(segment: SegmentIndex, offset_mm: u32, at: EventTime) -> Self {
        Self {
            segment,
            offset_mm,
            since: at,
            until: at,
        }
    }

    /// The same standstill with one more place of the vehicle, `None` if it has moved on.
    pub(super) fn seen(self, segment: SegmentIndex, offset_mm: u32, at: EventTime) -> Option<Self> {
        let stays = self.segment == segment
            && self.offset_mm.abs_diff(offset_mm) <= REACH_MM
            && at.since(self.until) <= GAP_MS;
        stays.then_some(Self { until: at, ..self })
    }

    /// For how long it has stood, if that is worth telling.
    pub(super) fn told_ms(&self) -> Option<u32> {
        let stood = self.until.since(self.since);
        (stood >= LEAST_MS).then(|| u32::try_from(stood).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_told_from_half_a_minute_on_and_ends_by_moving_or_by_a_gap() {
        let at = |s: i64| EventTime::from_ms(s * 1000);
        let halt = Halt::new(7, 50_000, at(0));
        let on = halt.seen(7, 61_000, at(25)).unwrap();
        assert_eq!(on.told_ms(), None);
        let on = on.seen(7, 39_000, at(30)).unwrap();
        assert_eq!((on.told_ms(), on.offset_mm), (Some(30_000), 50_000));
        assert_eq!(on.seen(7, 62_001, at(35)), None, "12 m from where it stopped");
        assert_eq!(on.seen(8, 50_000, at(35)), None, "another segment");
        assert_eq!(on.seen(7, 50_000, at(91)), None, "nobody knows what it did");
    }
}
