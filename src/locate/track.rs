use serde::{Deserialize, Serialize};

use crate::ingest::Probe;
use crate::network::SegmentIndex;
use crate::units::EventTime;

/// Where a vehicle may be, with the score of the best way there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hypothesis {
    pub(super) segment: SegmentIndex,
    pub(super) offset_mm: u32,
    /// Natural logarithm, relative to the best one's 0.
    pub(super) score: f64,
}

/// What is kept of one vehicle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Track {
    /// The last fix that was believed.
    pub(super) last: Probe,
    /// The last fix that was scored; while the vehicle stands, `last` goes on without it.
    pub(super) kept: Probe,
    /// Posterior of the place decided at `kept`.
    pub(super) posterior_permille: u16,
    /// Its possible places, best first; empty when off the road.
    pub(super) hypotheses: Vec<Hypothesis>,
    /// The segment that the vehicle is on, and when this visit began.
    pub(super) visit: Option<(SegmentIndex, EventTime)>,
    /// Fixes that did not follow from `last`, until later ones decide.
    pub(super) held: Vec<Probe>,
    /// How many fixes in a row have the same coordinates although the vehicle reports to move.
    pub(super) frozen: u32,
}

impl Track {
    pub(super) fn begin(fix: Probe) -> Self {
        Self {
            kept: fix.clone(),
            posterior_permille: 0,
            last: fix,
            hypotheses: Vec::new(),
            visit: None,
            held: Vec::new(),
            frozen: 1,
        }
    }

    /// The last sign of life, held fixes included.
    pub(super) fn last_seen(&self) -> EventTime {
        self.held
            .last()
            .map_or(self.last.time, |h| h.time.max(self.last.time))
    }
}
