//! Records as they come from a log, many at a time in one buffer.

use std::ops::Range;

use crate::units::EventTime;

/// Dense index of an input log: one Kafka partition or one plain file. Given by the order in which logs
/// are named to the engine.
pub type LogIndex = u16;

/// One record of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The log it stands in.
    pub log: LogIndex,
    /// Its place in that log: Kafka's offset, or the 1-based line of a file.
    pub offset: u64,
    /// Time given to it by the log (Kafka's LogAppendTime); `None` where the log gives none.
    pub append_time: Option<EventTime>,
    /// A control record (header `viaflux.control`).
    pub control: bool,
    /// Message key, empty if none.
    pub key: &'a [u8],
    /// Payload.
    pub value: &'a [u8],
}

#[derive(Clone, Debug)]
struct Entry {
    log: LogIndex,
    control: bool,
    journalled: bool,
    offset: u64,
    append_time: Option<EventTime>,
    key: Range<usize>,
    value: Range<usize>,
}

/// Records of any logs in the order in which they were read. Within one log offsets grow.
///
/// Payloads lie in one buffer, so that a batch costs two allocations however many records it holds.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    ended: Vec<LogIndex>,
}

impl Batch {
    /// Appends a record; the payload is copied.
    pub fn push(&mut self, record: Record<'_>) {
        let key = self.bytes.len()..self.bytes.len() + record.key.len();
        self.bytes.extend_from_slice(record.key);
        let value = self.bytes.len()..self.bytes.len() + record.value.len();
        self.bytes.extend_from_slice(record.value);
        self.entries.push(Entry {
            log: record.log,
            control: record.control,
            journalled: false,
            offset: record.offset,
            append_time: record.append_time,
            key,
            value,
        });
    }

    /// Appends a control record that stands in a journal and not in `log`: it acts here, behind what was read and
    /// before the record at `offset`.
    pub fn journal(&mut self, log: LogIndex, offset: u64, payload: &[u8]) {
        self.push(Record {
            log,
            offset,
            append_time: None,
            control: true,
            key: &[],
            value: payload,
        });
        if let Some(entry) = self.entries.last_mut() {
            entry.journalled = true;
        }
    }

    /// Whether the record at `i` stands in a journal: its offset is that of the record behind it.
    ///
    /// # Panics
    /// If `i` is not below [`Batch::len`].
    pub fn is_journalled(&self, i: usize) -> bool {
        self.entries[i].journalled
    }

    /// Says that `log` ends behind the records of this batch: an input that closes its panes.
    pub fn end(&mut self, log: LogIndex) {
        self.ended.push(log);
    }

    /// The logs that end behind this batch.
    pub fn ended(&self) -> &[LogIndex] {
        &self.ended
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds neither a record nor the end of a log.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ended.is_empty()
    }

    /// Payload bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The record at `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Batch::len`].
    pub fn record(&self, i: usize) -> Record<'_> {
        let e = &self.entries[i];
        Record {
            log: e.log,
            offset: e.offset,
            append_time: e.append_time,
            control: e.control,
            key: &self.bytes[e.key.clone()],
            value: &self.bytes[e.value.clone()],
        }
    }

    /// The records in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|i| self.record(i))
    }

    /// Empties the batch, keeping its memory for the next one.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.ended.clear();
    }
}
