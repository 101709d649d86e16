//! Brings a log's accepted records into the order of event time (algorithms §4, *Order*).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Event;
use crate::units::EventTime;

/// Records are released by whole seconds of event time: the watermark moves with nearly every record, and
/// sorting a second at once is far cheaper than a heap.
pub(super) const BUCKET_MS: i64 = 1000;

/// Records that wait for the watermark, by second of event time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct OrderBuffer {
    buckets: BTreeMap<i64, Vec<Event>>,
    len: usize,
}

impl OrderBuffer {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, event: Event) {
        self.buckets
            .entry(event.time().ms().div_euclid(BUCKET_MS))
            .or_default()
            .push(event);
        self.len += 1;
    }

    /// The end of the oldest second held.
    pub(super) fn oldest_end(&self) -> Option<EventTime> {
        self.buckets
            .first_key_value()
            .map(|(second, _)| EventTime::from_ms((second + 1) * BUCKET_MS))
    }

    /// Moves all seconds that end at or before `watermark` to `out`, in the order of [`Event`].
    pub(super) fn release(&mut self, watermark: EventTime, out: &mut Vec<Event>) {
        let bound = watermark.ms().div_euclid(BUCKET_MS);
        while let Some(entry) = self.buckets.first_entry() {
            if *entry.key() >= bound {
                break;
            }
            let mut events = entry.remove();
            self.len -= events.len();
            events.sort_unstable();
            out.append(&mut events);
        }
    }
}
