use serde::{Deserialize, Serialize};

use crate::units::EventTime;

/// A control record: something that is no event and must change results, so it stands in the log itself
/// (design, law 2). JSON with the tag `kind`.
///
/// ```
/// use viaflux::{ingest::Control, units::EventTime};
/// let mark = Control::Idle { watermark_ms: EventTime::from_ms(1_773_037_800_000) };
/// assert_eq!(Control::parse(&mark.encode()), Some(mark));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Control {
    /// The log is silent: its watermark rises to this moment without a record.
    Idle {
        /// The watermark, in ms since the epoch.
        watermark_ms: EventTime,
    },
}

impl Control {
    /// Name of the Kafka header that marks a control record.
    pub const HEADER: &'static str = "viaflux.control";

    /// The control record of a payload, `None` if it is none that this version knows.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a plain enum of integers always encodes")
    }
}
