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

    /// Name of the header that marks, besides [`Control::HEADER`], one that stands beside its log in a journal: it
    /// has no offset of its own but acts before the record at the offset named.
    pub const JOURNAL_HEADER: &'static str = "viaflux.journal";

    /// The control record of a payload, `None` if it is none that this version knows.
    ///
    /// A watermark that no event could have is none: it would end the log for good, or overflow.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let control = serde_json::from_slice(payload).ok()?;
        let Self::Idle { watermark_ms } = control;
        (EventTime::MIN_PLAUSIBLE..=EventTime::MAX_PLAUSIBLE)
            .contains(&watermark_ms)
            .then_some(control)
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a plain enum of integers always encodes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Ingest, Released, Settings};

    #[test]
    fn a_watermark_beyond_all_events_moves_nothing() {
        for ms in [i64::MIN, -1, 0, 253_402_300_800_000, i64::MAX] {
            let payload = format!(r#"{{"kind":"idle","watermark_ms":{ms}}}"#);
            let mut ingest = Ingest::new(Settings::default(), 15_000);
            ingest.control(0, Control::parse(payload.as_bytes()));
            ingest.release(&mut Released::default());
            assert_eq!(ingest.watermark(), None, "{ms}");
            assert_eq!(ingest.counts().control, 1);
        }
    }
}
