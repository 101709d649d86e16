//! aggregate: from travel of single vehicles and sensor intervals to the flow of segments and links.
//!
//! One [`Aggregate`] machine serves one shard of links. It sums what vehicles left in each segment and pane
//! (Edie's definitions: speed = Σ distance / Σ time), closes panes when it is told that nothing more can come,
//! and shows each closed pane with the sliding window behind it as [`PaneFlow`]. All sums are integers, so
//! the order of arrival does not matter.

mod pane;
mod passage;
mod sensor;
mod settings;
mod shard;
mod turns;
mod window;

use serde::{Deserialize, Serialize};

pub use passage::{Passage, Standing};
pub use sensor::SensorFlow;
pub use settings::Settings;
pub use shard::{Aggregate, LOOK_BACK, State};
pub use turns::{TurnFlow, TurnSums};
pub use window::Sums;

use crate::locate::{PaneIndex, Reading};
use crate::network::{LinkIndex, SegmentIndex};
use crate::units::EventTime;

/// What is known of one segment as a pane closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFlow {
    /// Which segment.
    pub segment: SegmentIndex,
    /// Recency-weighted sums over the window.
    pub window: Sums,
    /// Moment of the last observation of any kind.
    pub latest: EventTime,
    /// Sensors that stand on it.
    pub sensor: Option<SensorFlow>,
}

/// What is known of one link as a pane closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFlow {
    /// Which link.
    pub link: LinkIndex,
    /// Recency-weighted sums over the window, over its segments.
    pub window: Sums,
    /// The same over the last [`LOOK_BACK`] panes only, for conditions that must not wait for the window.
    pub recent: Sums,
    /// Moment of the last observation.
    pub latest: EventTime,
    /// Sensors that stand on it: speed as a share of the free-flow speed of their segment, in permille.
    pub sensor_ratio_permille: Option<u32>,
    /// Number of sensors with a speed.
    pub sensors: u32,
}

/// Time that vehicles stood, by what it was (algorithms §3.2), each counted once, when its pane closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingTimes {
    /// In queues, in ms: it counts.
    pub queue_ms: u64,
    /// Perhaps for passengers, in ms: it counts less.
    pub unsure_ms: u64,
    /// With nobody to tell what it was, in ms: it does not count.
    pub censored_ms: u64,
    /// No traffic, in ms: parked, for passengers, or broken down and passed by others.
    pub excluded_ms: u64,
}

impl StandingTimes {
    /// Adds the times of another shard.
    pub fn add(&mut self, other: &StandingTimes) {
        self.queue_ms += other.queue_ms;
        self.unsure_ms += other.unsure_ms;
        self.censored_ms += other.censored_ms;
        self.excluded_ms += other.excluded_ms;
    }
}

/// A closed pane of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaneFlow {
    /// Which pane.
    pub pane: PaneIndex,
    /// Segments with an observation not older than `unknown_s`, in order of index.
    pub segments: Vec<SegmentFlow>,
    /// Their links, in order of index.
    pub links: Vec<LinkFlow>,
    /// Turns of the blocks that end with it, in order of time, then segments.
    pub turns: Vec<TurnFlow>,
    /// Sensor intervals that were booked into it (or into a pane before it that was passed over).
    pub readings: Vec<Reading>,
    /// What passed and what stood in this pane alone, in order of segment.
    pub passages: Vec<Passage>,
}
