//! Event logs: what lay in Kafka, as a file that can be replayed, compared and produced again.
//!
//! NDJSON, compressed with zstd (`.zst`) or gzip (`.gz`) or plain. The first line tells which partitions
//! there are, silent ones too; every other line is one record:
//!
//! ```json
//! {"schema":"viaflux.log/1","sources":[{"id":"probes","topic":"traffic.probe.position.v1","partitions":8}]}
//! {"topic":"traffic.probe.position.v1","partition":3,"offset":17,"append_time_ms":1795411858012,"key":"taxi-1042","value_b64":"eyJ2Z…","headers":{}}
//! ```
//!
//! `append_time_ms` is the broker's own time and `null` where the topic has none. `value_b64` is `null` for
//! a tombstone. A key that is not UTF-8 stands in `key_b64`. A header's value is a string, `null`, or
//! `{"b64":"…"}`; several values of one name form an array. Control records carry `viaflux.control`; one that
//! stood in a journal carries `viaflux.journal` too, and the offset of the record before which it acts.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::file::{self, FileError};
use crate::engine::{Batch, LogIndex, Record};
use crate::ingest::Control;
use crate::units::EventTime;

/// Schema name in the first line.
pub const SCHEMA: &str = "viaflux.log/1";
/// Longest line read: a record of Kafka's usual limit of 1 MiB, in base64, with room to spare.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Longest first line: 1 MiB.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Most headers of one record. Kafka has no limit; brokers and clients in use have a dozen.
const RECORD_HEADERS_MAX: usize = 1024;
/// Greatest window of a zstd frame, as a power of two: 32 MiB. Levels up to 20 need no more.
const WINDOW_LOG_MAX: u32 = 25;
/// Most partitions of all sources: as many as a [`LogIndex`] can number.
const LOGS_MAX: u64 = 1 << LogIndex::BITS;
/// Offsets in Kafka are signed.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// A topic recorded in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSource {
    /// Name of the source, such as the `id` of a `[[source]]`; the topic if it has none.
    pub id: String,
    /// Topic.
    pub topic: String,
    /// Number of its partitions, silent ones too.
    pub partitions: u32,
    /// Whether the broker stamped the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_append_time: Option<bool>,
    /// Anything else about the source, such as its `format`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The first line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHeader {
    /// [`SCHEMA`].
    pub schema: String,
    /// The topics.
    pub sources: Vec<LogSource>,
}

impl LogHeader {
    /// A header for these sources.
    pub fn new(sources: Vec<LogSource>) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            sources,
        }
    }

    /// Number of partitions of all sources.
    pub fn logs(&self) -> u64 {
        self.sources
            .iter()
            .map(|source| u64::from(source.partitions))
            .sum()
    }

    /// Place of a partition if the sources' partitions are counted in order.
    pub fn log(&self, topic: &str, partition: u32) -> Option<LogIndex> {
        let mut before: u64 = 0;
        for source in &self.sources {
            if source.topic == topic {
                return (partition < source.partitions)
                    .then(|| LogIndex::try_from(before + u64::from(partition)).ok())
                    .flatten();
            }
            before += u64::from(source.partitions);
        }
        None
    }
}

/// One record of a log. Meant to be used again for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRecord {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// Time given by the broker.
    pub append_time: Option<EventTime>,
    /// Message key.
    pub key: Option<Vec<u8>>,
    /// Payload; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Message headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl LogRecord {
    /// Whether it is a control record.
    pub fn is_control(&self) -> bool {
        self.headers.iter().any(|(name, _)| name == Control::HEADER)
    }

    /// Whether it stood in a journal: it is no record of its partition, and has no offset of its own.
    pub fn is_journalled(&self) -> bool {
        self.is_control()
            && self
                .headers
                .iter()
                .any(|(name, _)| name == Control::JOURNAL_HEADER)
    }

    /// A control record from a journal, which acts before the record at `offset`.
    pub fn journalled(topic: &str, partition: u32, offset: u64, control: Control) -> Self {
        let mark = |name: &str| (name.to_owned(), Some(b"1".to_vec()));
        Self {
            topic: topic.to_owned(),
            partition,
            offset,
            value: Some(control.encode()),
            headers: vec![mark(Control::HEADER), mark(Control::JOURNAL_HEADER)],
            ..Self::default()
        }
    }

    /// Appends it to a batch as a record of `log`.
    pub fn push_to(&self, batch: &mut Batch, log: LogIndex) {
        if self.is_journalled() {
            return batch.journal(log, self.offset, self.value.as_deref().unwrap_or_default());
        }
        batch.push(Record {
            log,
            offset: self.offset,
            append_time: self.append_time,
            control: self.is_control(),
            key: self.key.as_deref().unwrap_or_default(),
            value: self.value.as_deref().unwrap_or_default(),
        });
    }
}

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EventLogError {
    /// The file system, or the compression, refuses.
    #[error("{doing} {}: {error}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong and, where known, what to do.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Line<'a, H> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: u32,
    offset: u64,
    append_time_ms: Option<i64>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    key_b64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value_b64: Option<Cow<'a, str>>,
    #[serde(default)]
    headers: H,
}

/// Headers as they are read: at most [`RECORD_HEADERS_MAX`], so that a line cannot grow to many times its
/// length in memory.
#[derive(Default)]
struct Headers(Vec<(String, Option<Vec<u8>>)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of headers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = Headers::default();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(HeaderValues {
                name: &name,
                nested: false,
                into: &mut headers,
            })?;
        }
        Ok(headers)
    }
}

/// Reads the value of the header `name`, or the array of its values.
struct HeaderValues<'h> {
    name: &'h str,
    nested: bool,
    into: &'h mut Headers,
}

impl HeaderValues<'_> {
    fn push<E: de::Error>(self, value: Option<Vec<u8>>) -> Result<(), E> {
        if self.into.0.len() == RECORD_HEADERS_MAX {
            return Err(E::custom(format!(
                "a record has more than {RECORD_HEADERS_MAX} headers"
            )));
        }
        self.into.0.push((self.name.to_owned(), value));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for HeaderValues<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for HeaderValues<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text, null or {{\"b64\":…}} for header {}", self.name)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.push(None)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.push(Some(text.as_bytes().to_vec()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == "b64" {
                let coded: Cow<'_, str> = map.next_value()?;
                found = Some(
                    decode(&coded).map_err(|e| de::Error::custom(format!("header {}: {e}", self.name)))?,
                );
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        match found {
            Some(value) => self.push(Some(value)),
            None => Err(de::Error::custom(format!(
                "header {}: an object must have `b64`",
                self.name
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        if self.nested {
            return Err(de::Error::custom(format!(
                "header {}: an array within an array",
                self.name
            )));
        }
        let mut one = || {
            values.next_element_seed(HeaderValues {
                name: self.name,
                nested: true,
                into: self.into,
            })
        };
        while one()?.is_some() {}
        Ok(())
    }
}

/// Reads a log from its beginning to its end.
pub struct EventLogReader {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    header: LogHeader,
    line: u64,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for EventLogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLogReader")
            .field("path", &self.path)
            .field("line", &self.line)
            .finish()
    }
}

impl EventLogReader {
    /// Opens a file (`-`: standard input), compressed or not, and reads its first line.
    ///
    /// # Errors
    /// The file cannot be read, or is no event log.
    pub fn open(path: &Path) -> Result<Self, EventLogError> {
        let input = file::open_within(path, WINDOW_LOG_MAX)
            .map_err(|FileError { doing, path, error }| EventLogError::Io { doing, path, error })?;
        Self::of(path, input)
    }

    /// As [`EventLogReader::open`], from any bytes; `path` only names them in errors.
    ///
    /// # Errors
    /// The bytes are no event log.
    pub fn from_read(path: &Path, raw: Box<dyn Read + Send>) -> Result<Self, EventLogError> {
        let input = file::unpack(raw, WINDOW_LOG_MAX).map_err(|error| EventLogError::Io {
            doing: "reading",
            path: path.to_owned(),
            error,
        })?;
        Self::of(path, input)
    }

    fn of(path: &Path, input: Box<dyn BufRead + Send>) -> Result<Self, EventLogError> {
        let header = LogHeader::new(Vec::new());
        let mut reader = Self {
            path: path.to_owned(),
            input,
            header,
            line: 0,
            buffer: Vec::new(),
        };
        if !reader.next_line(HEADER_BYTES_MAX)? {
            return Err(reader.wrong("the file is empty; an event log begins with its header line"));
        }
        reader.header = serde_json::from_slice(&reader.buffer).map_err(|error| {
            reader.wrong(&format!(
                "not the header of an event log ({error}); files of plain events go to --probes or --sensors"
            ))
        })?;
        if reader.header.schema != SCHEMA {
            let found = reader.header.schema.clone();
            return Err(reader.wrong(&format!("schema is `{found}`, this version reads `{SCHEMA}`")));
        }
        let logs = reader.header.logs();
        if logs > LOGS_MAX {
            return Err(reader.wrong(&format!("it has {logs} partitions; at most {LOGS_MAX} are read")));
        }
        Ok(reader)
    }

    /// The first line.
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// The line read last, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    fn wrong(&self, reason: &str) -> EventLogError {
        EventLogError::Line {
            path: self.path.clone(),
            line: self.line.max(1),
            reason: reason.to_owned(),
        }
    }

    fn next_line(&mut self, bytes_max: u64) -> Result<bool, EventLogError> {
        self.buffer.clear();
        let read = Read::take(&mut *self.input, bytes_max)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|error| {
                // A recorder that was killed leaves a file that ends within a compressed block.
                if error.kind() == std::io::ErrorKind::UnexpectedEof {
                    let reason = format!("the file ends here in mid-stream ({error}); it was cut off");
                    EventLogError::Line {
                        path: self.path.clone(),
                        line: self.line + 1,
                        reason,
                    }
                } else {
                    EventLogError::Io {
                        doing: "reading",
                        path: self.path.clone(),
                        error,
                    }
                }
            })?;
        if read == 0 {
            return Ok(false);
        }
        self.line += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if self.buffer.len() as u64 == bytes_max {
            return Err(self.wrong(&format!("the line is longer than {bytes_max} bytes")));
        }
        Ok(true)
    }

    /// Reads the next record into `record`; false at the end.
    ///
    /// # Errors
    /// The file cannot be read, a line is malformed, or it names a partition that the header does not.
    pub fn read(&mut self, record: &mut LogRecord) -> Result<bool, EventLogError> {
        if !self.next_line(LINE_BYTES_MAX)? {
            return Ok(false);
        }
        let line: Line<'_, Headers> =
            serde_json::from_slice(&self.buffer).map_err(|error| self.wrong(&error.to_string()))?;
        if self.header.log(&line.topic, line.partition).is_none() {
            return Err(self.wrong(&format!(
                "{}[{}] is not among the sources in the file's first line",
                line.topic, line.partition
            )));
        }
        if line.offset > OFFSET_MAX {
            return Err(self.wrong(&format!("offset {} is beyond {OFFSET_MAX}", line.offset)));
        }
        record.topic.clear();
        record.topic.push_str(&line.topic);
        record.partition = line.partition;
        record.offset = line.offset;
        record.append_time = line.append_time_ms.map(EventTime::from_ms);
        record.key = match (&line.key, &line.key_b64) {
            (Some(text), _) => Some(text.as_bytes().to_vec()),
            (None, Some(coded)) => Some(decode(coded).map_err(|e| self.wrong(&format!("key_b64: {e}")))?),
            (None, None) => None,
        };
        match &line.value_b64 {
            None => record.value = None,
            Some(coded) => {
                let value = record.value.get_or_insert_default();
                value.clear();
                STANDARD
                    .decode_vec(coded.as_bytes(), value)
                    .map_err(|error| self.wrong(&format!("value_b64: {error}")))?;
            }
        }
        record.headers = line.headers.0;
        Ok(true)
    }
}

fn decode(coded: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(coded.as_bytes())
}

enum Output {
    Plain(BufWriter<Box<dyn Write + Send>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<Box<dyn Write + Send>>>),
    Gzip(flate2::write::GzEncoder<BufWriter<Box<dyn Write + Send>>>),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Zstd(out) => out.write(bytes),
            Self::Gzip(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Zstd(out) => out.flush(),
            Self::Gzip(out) => out.flush(),
        }
    }
}

/// Writes a log. It grows under the name `….partial` and gets its own when it is complete.
pub struct EventLogWriter {
    path: PathBuf,
    partial: Option<PathBuf>,
    output: Output,
    records: u64,
    coded: String,
}

impl std::fmt::Debug for EventLogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLogWriter")
            .field("path", &self.path)
            .field("records", &self.records)
            .finish()
    }
}

impl EventLogWriter {
    /// Begins a file (`-`: standard output) with its header. The name's end chooses the compression:
    /// `.zst`, `.gz` or none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, header: &LogHeader) -> Result<Self, EventLogError> {
        let io = |error| EventLogError::Io {
            doing: "creating",
            path: path.to_owned(),
            error,
        };
        let (raw, partial): (Box<dyn Write + Send>, _) = if path.as_os_str() == "-" {
            (Box::new(std::io::stdout()), None)
        } else {
            let mut partial = path.as_os_str().to_owned();
            partial.push(".partial");
            let partial = PathBuf::from(partial);
            (Box::new(File::create(&partial).map_err(io)?), Some(partial))
        };
        let raw = BufWriter::with_capacity(1 << 18, raw);
        let output = match path.extension().and_then(|end| end.to_str()) {
            Some("zst") => Output::Zstd(zstd::stream::write::Encoder::new(raw, 3).map_err(io)?),
            Some("gz") => Output::Gzip(flate2::write::GzEncoder::new(raw, flate2::Compression::default())),
            _ => Output::Plain(raw),
        };
        let mut writer = Self {
            path: path.to_owned(),
            partial,
            output,
            records: 0,
            coded: String::new(),
        };
        writer.line(header)?;
        Ok(writer)
    }

    fn line<T: Serialize>(&mut self, line: &T) -> Result<(), EventLogError> {
        serde_json::to_writer(&mut self.output, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.output.write_all(b"\n"))
            .map_err(|error| EventLogError::Io {
                doing: "writing",
                path: self.path.clone(),
                error,
            })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, record: &LogRecord) -> Result<(), EventLogError> {
        let mut coded = std::mem::take(&mut self.coded);
        coded.clear();
        if let Some(value) = &record.value {
            STANDARD.encode_string(value, &mut coded);
        }
        let text_key = record
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok());
        let mut headers = Map::new();
        for (name, value) in &record.headers {
            let value = match value {
                None => Value::Null,
                Some(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Value::String(text.to_owned()),
                    Err(_) => json!({ "b64": STANDARD.encode(bytes) }),
                },
            };
            match headers.get_mut(name) {
                None => {
                    headers.insert(name.clone(), value);
                }
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        let line = Line {
            topic: Cow::Borrowed(&record.topic),
            partition: record.partition,
            offset: record.offset,
            append_time_ms: record.append_time.map(EventTime::ms),
            key: text_key.map(Cow::Borrowed),
            key_b64: match (&record.key, text_key) {
                (Some(key), None) => Some(Cow::Owned(STANDARD.encode(key))),
                _ => None,
            },
            value_b64: record.value.as_ref().map(|_| Cow::Borrowed(coded.as_str())),
            headers,
        };
        let written = self.line(&line);
        self.coded = coded;
        self.records += 1;
        written
    }

    /// Records written.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Ends the file, makes it durable and gives it its name.
    ///
    /// # Errors
    /// The file cannot be written; the `.partial` file stays.
    pub fn finish(self) -> Result<u64, EventLogError> {
        let io = |error| EventLogError::Io {
            doing: "finishing",
            path: self.path.clone(),
            error,
        };
        let mut raw = match self.output {
            Output::Plain(out) => out,
            Output::Zstd(out) => out.finish().map_err(io)?,
            Output::Gzip(out) => out.finish().map_err(io)?,
        };
        raw.flush().map_err(io)?;
        drop(raw);
        if let Some(partial) = &self.partial {
            File::open(partial).and_then(|file| file.sync_all()).map_err(io)?;
            std::fs::rename(partial, &self.path).map_err(io)?;
        }
        Ok(self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> LogHeader {
        let source = |topic: &str, partitions| LogSource {
            id: format!("the {topic}"),
            topic: topic.to_owned(),
            partitions,
            log_append_time: Some(true),
            more: Map::from_iter([("format".to_owned(), json!("json"))]),
        };
        LogHeader::new(vec![source("probes", 3), source("sensors", 2)])
    }

    fn records() -> Vec<LogRecord> {
        let plain = LogRecord {
            topic: "probes".to_owned(),
            partition: 2,
            offset: 41,
            append_time: Some(EventTime::from_ms(1_795_411_858_012)),
            key: Some(b"taxi-1".to_vec()),
            value: Some(b"{\"vehicle_id\":\"taxi-1\"}".to_vec()),
            headers: Vec::new(),
        };
        vec![
            plain.clone(),
            LogRecord {
                offset: 42,
                key: None,
                value: Some(Vec::new()),
                append_time: None,
                ..plain.clone()
            },
            LogRecord {
                topic: "sensors".to_owned(),
                partition: 0,
                offset: 0,
                key: Some(vec![0xff, 0x00]),
                value: None,
                headers: vec![
                    (Control::HEADER.to_owned(), Some(b"1".to_vec())),
                    ("twice".to_owned(), Some(b"a".to_vec())),
                    ("twice".to_owned(), None),
                    ("bytes".to_owned(), Some(vec![0xfe])),
                ],
                ..plain
            },
        ]
    }

    #[test]
    fn what_is_written_is_read_whatever_the_compression() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.ndjson", "a.ndjson.zst", "a.ndjson.gz"] {
            let path = dir.path().join(name);
            let mut writer = EventLogWriter::create(&path, &header()).unwrap();
            for record in records() {
                writer.write(&record).unwrap();
            }
            assert!(!path.exists(), "{name} has its name before it is complete");
            assert_eq!(writer.finish().unwrap(), 3);
            let mut reader = EventLogReader::open(&path).unwrap();
            assert_eq!(*reader.header(), header());
            let mut record = LogRecord::default();
            let mut found = Vec::new();
            while reader.read(&mut record).unwrap() {
                found.push(record.clone());
            }
            assert_eq!(found, records(), "{name}");
        }
    }

    #[test]
    fn partitions_are_counted_over_the_sources() {
        let header = header();
        assert_eq!(header.logs(), 5);
        assert_eq!(header.log("probes", 2), Some(2));
        assert_eq!(header.log("sensors", 1), Some(4));
        assert_eq!(header.log("sensors", 2), None);
        assert_eq!(header.log("other", 0), None);
    }

    #[test]
    fn a_batch_knows_control_records() {
        let mut batch = Batch::default();
        for record in records() {
            record.push_to(&mut batch, header().log(&record.topic, record.partition).unwrap());
        }
        let control: Vec<(LogIndex, bool)> = batch.iter().map(|r| (r.log, r.control)).collect();
        assert_eq!(control, [(2, false), (2, false), (3, true)]);
    }

    fn error_of(text: &str) -> String {
        let bytes = std::io::Cursor::new(text.as_bytes().to_vec());
        match EventLogReader::from_read(Path::new("x.log"), Box::new(bytes)) {
            Err(error) => error.to_string(),
            Ok(mut reader) => {
                let mut record = LogRecord::default();
                loop {
                    match reader.read(&mut record) {
                        Ok(true) => {}
                        Ok(false) => return "no error".to_owned(),
                        Err(error) => return error.to_string(),
                    }
                }
            }
        }
    }

    #[test]
    fn errors_name_file_and_line() {
        assert!(error_of("").starts_with("x.log:1: the file is empty"));
        assert!(error_of("{\"vehicle_id\":1}\n").starts_with("x.log:1: not the header of an event log"));
        assert!(error_of("{\"schema\":\"viaflux.log/9\",\"sources\":[]}\n").contains("`viaflux.log/9`"));
        let head = serde_json::to_string(&header()).unwrap();
        let good = r#"{"topic":"probes","partition":0,"offset":1,"append_time_ms":null,"key":null,"value_b64":"e30=","headers":{}}"#;
        assert_eq!(error_of(&format!("{head}\n{good}\n{good}")), "no error");
        let bad = good.replace("e30=", "e3*=");
        assert!(error_of(&format!("{head}\n{good}\n{bad}\n")).starts_with("x.log:3: value_b64: "));
        let foreign = good.replace("\"partition\":0", "\"partition\":3");
        assert!(error_of(&format!("{head}\n{foreign}\n")).starts_with("x.log:2: probes[3] is not among"));
        assert!(error_of(&format!("{head}\n{good}\n{{\n")).starts_with("x.log:3: EOF"));
        let headers = |text: &str| error_of(&format!("{head}\n{}\n", good.replace("{}", text)));
        assert!(headers(r#"{"h":{"b64":"e3*="}}"#).starts_with("x.log:2: header h: "));
        assert!(headers(r#"{"h":{"b":""}}"#).contains("header h: an object must have `b64`"));
        assert!(headers(r#"{"h":[1]}"#).contains("for header h"));
        assert!(headers(r#"{"h":[[]]}"#).contains("header h: an array within an array"));
    }

    #[test]
    fn what_a_line_can_ask_of_memory_is_bounded() {
        let head = serde_json::to_string(&header()).unwrap();
        let line = |offset: u64, headers: &str| {
            format!(
                r#"{{"topic":"probes","partition":0,"offset":{offset},"append_time_ms":null,"value_b64":null,"headers":{{"h":[{headers}]}}}}"#
            )
        };
        let nulls = |n: usize| vec!["null"; n].join(",");
        assert_eq!(
            error_of(&format!("{head}\n{}\n", line(1, &nulls(1024)))),
            "no error"
        );
        assert!(error_of(&format!("{head}\n{}\n", line(1, &nulls(1025)))).contains("more than 1024 headers"));
        let offset = i64::MAX as u64;
        assert_eq!(error_of(&format!("{head}\n{}\n", line(offset, ""))), "no error");
        let error = error_of(&format!("{head}\n{}\n", line(offset + 1, "")));
        assert!(
            error.starts_with("x.log:2: offset 9223372036854775808 is beyond"),
            "{error}"
        );
        let many = |n: u64| {
            error_of(&format!(
                r#"{{"schema":"viaflux.log/1","sources":[{{"id":"p","topic":"p","partitions":{n}}}]}}"#
            ))
        };
        assert_eq!(many(65_536), "no error");
        assert!(many(65_537).contains("at most 65536"));
        let long = format!(
            r#"{{"schema":"viaflux.log/1","sources":[],"more":[{}]}}"#,
            nulls(300_000)
        );
        assert!(error_of(&long).contains("longer than 1048576 bytes"));
    }

    #[test]
    fn a_window_of_more_than_32_mib_is_refused() {
        // The head of a zstd frame without its size, with a window of 32 and of 64 MiB, and an empty last block.
        let error = |log: u8| {
            let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (log - 10) << 3, 0x01, 0x00, 0x00];
            let bytes = std::io::Cursor::new(frame);
            EventLogReader::from_read(Path::new("x.log"), Box::new(bytes))
                .unwrap_err()
                .to_string()
        };
        assert!(error(25).contains("the file is empty"), "{}", error(25));
        assert!(error(26).contains("memory"), "{}", error(26));
    }

    #[test]
    fn a_file_cut_off_is_an_error_behind_its_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.zst");
        let mut writer = EventLogWriter::create(&path, &header()).unwrap();
        for offset in 0..50_000 {
            let record = LogRecord {
                offset,
                key: Some(offset.to_string().into_bytes()),
                ..records().remove(0)
            };
            writer.write(&record).unwrap();
        }
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let mut reader = EventLogReader::open(&path).unwrap();
        let mut record = LogRecord::default();
        let mut read = 0;
        let error = loop {
            match reader.read(&mut record) {
                Ok(true) => read += 1,
                Ok(false) => panic!("a file cut off ended like a whole one"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(read > 1000, "only {read} records");
        assert!(error.contains("cut off"), "{error}");
    }
}
