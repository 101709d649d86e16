use serde::{Deserialize, Serialize};

use super::{Basis, Level, Trend};
use crate::network::SegmentIndex;
use crate::units::{EventTime, MmPerS};

/// State of one segment at the close of a pane. Speeds in mm/s, shares in permille.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// Which segment.
    pub segment: SegmentIndex,
    /// Beginning of the window it looks over.
    pub window_start: EventTime,
    /// End of the window: the end of the pane.
    pub window_end: EventTime,
    /// Space-mean speed now.
    pub speed: Option<MmPerS>,
    /// Speed without hindrance.
    pub free_flow: MmPerS,
    /// Usual speed at this time of the week.
    pub typical: MmPerS,
    /// Speed by free-flow speed.
    pub ratio_permille: Option<u32>,
    /// Vehicles present at the window's beginning or entered since.
    pub vehicle_count: u32,
    /// Probe positions in the window.
    pub sample_count: u32,
    /// Weight of the probes in the speed.
    pub probe_share_permille: u32,
    /// Last observation.
    pub latest: Option<EventTime>,
    /// 0 (nothing known) to 1000.
    pub confidence_permille: u32,
    /// What it rests on.
    pub basis: Basis,
    /// Canonical level.
    pub level: Level,
    /// Grade of the configured profile, 1 is the best.
    pub grade: Option<u8>,
    /// Where travel time goes.
    pub trend: Option<Trend>,
}

impl SegmentState {
    /// Share of the sensors in the weight, in permille.
    pub fn sensor_share_permille(&self) -> u32 {
        if self.basis == Basis::None {
            0
        } else {
            1000 - self.probe_share_permille
        }
    }
}
