//! publish: orders what assess found, decides what changed enough to be told, and encodes it.

mod settings;

pub use settings::Settings;

use crate::units::EventTime;

/// What a publication is about, one for each output topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Segment states: topic `traffic.segment.state.v1`, file `segment-states.ndjson`.
    SegmentState,
    /// Corridor travel times: topic `traffic.corridor.travel_time.v1`, file `corridors.ndjson`.
    Corridor,
    /// Region indices: topic `traffic.region.index.v1`, file `regions.ndjson`.
    Region,
    /// Every transition of an alert: topic `traffic.alert.event.v1`, file `alerts.ndjson`.
    AlertEvent,
    /// The current revision of an alert (compacted): topic `traffic.alert.state.v1`; no file.
    AlertState,
}

/// One message for the world, encoded, with its deterministic identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where it goes.
    pub topic: Topic,
    /// Message key: segment, corridor, region or alert id.
    pub key: String,
    /// CloudEvents id: equal for equal content, wherever and whenever it is made.
    pub id: String,
    /// Event time of the statement: end of the pane whose closing caused it.
    pub time: EventTime,
    /// One JSON object without a line feed; `None` is a tombstone (compacted topics only).
    pub body: Option<Vec<u8>>,
}
