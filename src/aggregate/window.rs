use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::pane::{PaneSums, Passed};
use crate::locate::PaneIndex;
use crate::network::RoadClass;
use crate::units::{EventTime, MmPerS, speed_mm_s};

/// Sums over a window of closed panes of a segment, or over the segments of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Σ weight · distance, ‰·mm.
    pub weighted_mm: u64,
    /// Σ weight · time, ‰·ms.
    pub weighted_ms: u64,
    /// Σ weight · free-flow time of the distance, ‰·ms.
    pub weighted_free_ms: u64,
    /// Effective number of contributions (Σw)² / Σw², in thousandths; over a link the greatest of its
    /// segments, since one vehicle contributes to many.
    pub effective_milli: u64,
    /// Vehicles that were there at its beginning or entered since; over a link as above.
    pub vehicles: u32,
    /// Positions reported.
    pub positions: u32,
}

impl Sums {
    /// Space-mean speed in mm/s, `None` without time spent.
    pub fn speed(&self) -> Option<MmPerS> {
        speed_mm_s(self.weighted_mm, self.weighted_ms)
    }

    /// Free-flow time over time spent, in permille: the speed ratio. `None` without time spent.
    pub fn ratio_permille(&self) -> Option<u32> {
        if self.weighted_ms == 0 {
            return None;
        }
        let ratio = (u128::from(self.weighted_free_ms) * 1000 + u128::from(self.weighted_ms) / 2)
            / u128::from(self.weighted_ms);
        Some(u32::try_from(ratio).unwrap_or(u32::MAX))
    }

    /// Adds another segment of the same link.
    pub(super) fn join(&mut self, other: &Sums) {
        self.weighted_mm += other.weighted_mm;
        self.weighted_ms += other.weighted_ms;
        self.weighted_free_ms += other.weighted_free_ms;
        self.effective_milli = self.effective_milli.max(other.effective_milli);
        self.vehicles = self.vehicles.max(other.vehicles);
        self.positions += other.positions;
    }
}

/// exp(−age/τ) in permille by age in panes of 30 s: τ = 5 min, motorway 3 min, minor roads 10 min
/// (algorithms §3.3).
const RECENCY: [[u64; 10]; 3] = [
    [1000, 905, 819, 741, 670, 607, 549, 497, 449, 407],
    [1000, 846, 717, 607, 513, 435, 368, 311, 264, 223],
    [1000, 951, 905, 861, 819, 779, 741, 705, 670, 638],
];

/// Weight of a pane that closed `age` panes ago.
fn recency(class: RoadClass, age: usize) -> u64 {
    let row = match class {
        RoadClass::Motorway | RoadClass::MotorwayLink | RoadClass::Trunk => 1,
        c if c >= RoadClass::Unclassified => 2,
        _ => 0,
    };
    // Windows longer than the table keep its last weight.
    RECENCY[row][age.min(9)]
}

/// The closed panes of one segment that the window still sees, and what it last saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Window {
    panes: VecDeque<(PaneIndex, PaneSums)>,
    pub(super) passed: Passed,
    pub(super) latest: EventTime,
}

impl Window {
    pub(super) fn new(latest: EventTime) -> Self {
        Self {
            panes: VecDeque::new(),
            passed: Passed::default(),
            latest,
        }
    }

    pub(super) fn push(&mut self, pane: PaneIndex, pane_ms: i64, sums: PaneSums) {
        let seen = EventTime::from_ms(pane * pane_ms + i64::from(sums.until_ms));
        self.latest = self.latest.max(seen);
        self.panes.push_back((pane, sums));
    }

    /// The newest pane with something in it.
    pub(super) fn last(&self) -> Option<&(PaneIndex, PaneSums)> {
        self.panes.back()
    }

    /// Forgets panes that the window of `length` panes ending with `pane` does not see.
    pub(super) fn slide(&mut self, pane: PaneIndex, length: i64) {
        while self.panes.front().is_some_and(|(p, _)| *p <= pane - length) {
            self.panes.pop_front();
        }
    }

    /// Sums over the last `length` panes up to `pane`.
    pub(super) fn sums(&self, pane: PaneIndex, length: i64, class: RoadClass, free_flow: MmPerS) -> Sums {
        let mut sums = Sums::default();
        let (mut weight, mut squares) = (0_u128, 0_u128);
        let mut first = true;
        for (p, s) in self.panes.iter().filter(|(p, _)| *p > pane - length) {
            let r = recency(class, (pane - p) as usize);
            sums.weighted_mm += s.weighted_mm * r / 1000;
            sums.weighted_ms += s.weighted_ms * r / 1000;
            weight += u128::from(s.weight * r);
            squares += u128::from(s.weight_squares) * u128::from(r * r);
            sums.positions += s.positions;
            sums.vehicles += s.entered + if first { s.present } else { 0 };
            first = false;
        }
        sums.weighted_free_ms = (u128::from(sums.weighted_mm) * 1000 / u128::from(free_flow.max(1)))
            .min(u128::from(u64::MAX)) as u64;
        sums.effective_milli = (weight * weight * 1000).checked_div(squares).unwrap_or(0) as u64;
        sums
    }
}
