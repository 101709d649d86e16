//! locate: from positions to travel on segments.
//!
//! One [`Locate`] machine serves one lane of vehicles (a Kafka partition, or a virtual partition of a file).
//! It takes events in order of event time and gives on what each vehicle left in each segment and pane
//! ([`Contribution`]), sensor intervals bound to their segment ([`Reading`]), and, for observers, where each
//! fix was placed ([`Match`]).
//!
//! * `kinematics` refuses what cannot be (jumps, frozen receivers),
//! * `emission` and `transition` score candidates, `track` keeps a vehicle's hypotheses,
//! * `stop` tells what a standing vehicle is doing,
//! * `booking` spreads a step's distance and time over segments and panes.

mod booking;
mod candidates;
mod drift;
mod emission;
mod halt;
mod kinematics;
mod lane;
mod matcher;
mod settings;
mod smoothing;
mod stop;
mod track;
mod transition;
mod viterbi;

use serde::{Deserialize, Serialize};

pub use lane::{Locate, Sites, State as LaneState};
pub use matcher::{Decided, Decision, Decisions, Lag, Matcher};
pub use settings::Settings;
pub use track::{Fix, Track};

use crate::ingest::{Measurement, Rejection, SubjectKey};
use crate::network::SegmentIndex;
use crate::units::EventTime;

/// Number of a pane: event time divided by the pane's length, rounded down.
pub type PaneIndex = i64;

/// What a vehicle spent time with, as far as it alone can tell (algorithms §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Not known to have stood.
    #[default]
    Moving,
    /// Stood, as in a queue unless others show otherwise.
    Queue,
    /// Stood, perhaps to let passengers in or out.
    Unsure,
    /// Was no traffic: parked, or a taxi that let a passenger in or out.
    Excluded,
}

/// What one vehicle left in one segment and pane by one step. Parts of the same traversal and pane are
/// summed in aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contribution {
    /// Bucket of event time.
    pub pane: PaneIndex,
    /// Where.
    pub segment: SegmentIndex,
    /// Names the vehicle's visit of this segment; says nothing about the vehicle.
    pub traversal: u64,
    /// Distance driven in mm.
    pub distance_mm: u32,
    /// Time spent in ms.
    pub time_ms: u32,
    /// Class weight times posterior in permille.
    pub weight_permille: u16,
    /// Positions reported there and then.
    pub positions: u16,
    /// When the vehicle was last seen there, in ms since the pane's beginning (its length at the end).
    pub until_ms: u32,
    /// The visit began in this pane.
    pub entered: bool,
    /// What the time was spent with.
    pub kind: Kind,
    /// When the stop that its time was spent with began; of no meaning if it did not stand.
    pub stood_since: EventTime,
}

/// A segment that a vehicle passed from its beginning to its end, all of the time known and in traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Passage {
    /// The pane in which it left.
    pub pane: PaneIndex,
    /// Where.
    pub segment: SegmentIndex,
    /// The segment that it went on to.
    pub next: SegmentIndex,
    /// When it came in.
    pub entered: EventTime,
    /// Time from there to its leaving in ms.
    pub time_ms: u32,
    /// Of this, time that it stood, in ms.
    pub stop_ms: u32,
    /// Number of its stops.
    pub stops: u16,
    /// Least posterior of its steps in permille.
    pub posterior_permille: u16,
}

/// What a vehicle did at one place of a segment, for conditions that look at passages and standstills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Occurrence {
    /// Bucket of event time.
    pub pane: PaneIndex,
    /// Where.
    pub segment: SegmentIndex,
    /// When, in ms since the pane's beginning.
    pub at_ms: u32,
    /// What.
    pub what: Doing,
}

/// See [`Occurrence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Doing {
    /// It drove over the end of the segment.
    Passing,
    /// It has stood for half a minute and more.
    Standing {
        /// Names the standstill; says nothing about the vehicle.
        halt: u64,
        /// Distance from the segment's beginning in mm.
        offset_mm: u32,
        /// For how long, in ms.
        for_ms: u32,
    },
    /// The standstill is over.
    Leaving {
        /// See `Standing`.
        halt: u64,
    },
}

/// A sensor interval bound to its segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reading {
    /// The pane that holds the instant before the interval's end.
    pub pane: PaneIndex,
    /// Where the sensor stands.
    pub segment: SegmentIndex,
    /// The interval.
    pub measurement: Measurement,
}

/// Why a fix has no place on the road.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlocated {
    /// No segment within reach.
    OffRoad,
    /// No way leads there from where the vehicle was.
    NoWay,
}

impl Unlocated {
    /// The name in files and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Unlocated::OffRoad => "off_road",
            Unlocated::NoWay => "no_way",
        }
    }
}

/// A place on the network with how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The segment.
    pub segment: SegmentIndex,
    /// Distance from its beginning in mm.
    pub offset_mm: u32,
    /// Distance from the fix in mm.
    pub distance_mm: u32,
    /// Probability among the candidates, in permille.
    pub posterior_permille: u16,
}

/// Where one accepted fix was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Its place in its log.
    pub offset: u64,
    /// Whose.
    pub vehicle: SubjectKey,
    /// When.
    pub time: EventTime,
    /// Where on the road, or why not.
    pub place: Result<Place, Unlocated>,
}

/// Counts of locate that are no rejections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocateCounts {
    /// Fixes placed on a segment.
    pub matched: u64,
    /// Of these, fixes below `min_posterior_permille`: placed, but not in the statistics.
    pub ambiguous: u64,
    /// Fixes without a place.
    pub off_road: u64,
    /// Steps between two fixes that no path explains.
    pub broken: u64,
    /// Steps too fast for their roads: placed, but not in the statistics.
    pub implausible: u64,
    /// Time in ms that was cut off steps longer than `settle_s`.
    pub overtaken_ms: u64,
    /// Vehicles forgotten at `vehicles_max`.
    pub evicted_at_limit: u64,
}

impl LocateCounts {
    /// Adds the counts of another lane.
    pub fn add(&mut self, other: &LocateCounts) {
        self.matched += other.matched;
        self.ambiguous += other.ambiguous;
        self.off_road += other.off_road;
        self.broken += other.broken;
        self.implausible += other.implausible;
        self.overtaken_ms += other.overtaken_ms;
        self.evicted_at_limit += other.evicted_at_limit;
    }
}

/// Length of the windows of event time in which a vehicle must keep to one partition, in ms.
pub const KEYING_WINDOW_MS: i64 = 300_000;

/// A vehicle of the sample that is watched for wrong keying, and where in time it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sighting {
    /// Event time divided by [`KEYING_WINDOW_MS`], rounded down.
    pub window: i64,
    /// Whose fix it was.
    pub vehicle: SubjectKey,
}

/// What a lane gives on.
#[derive(Debug, Default)]
pub struct Located {
    /// Travel, in the order in which it was booked.
    pub contributions: Vec<Contribution>,
    /// Segments passed whole.
    pub passages: Vec<Passage>,
    /// Sensor intervals.
    pub readings: Vec<Reading>,
    /// Passages and standstills.
    pub occurrences: Vec<Occurrence>,
    /// Places of fixes, if observed.
    pub matches: Vec<Match>,
    /// Records refused here: place in the log and reason.
    pub refused: Vec<(u64, Rejection)>,
    /// Vehicles sampled for wrong keying, each at least once in every window in which it was seen.
    pub sightings: Vec<Sighting>,
}
