//! `viaflux produce`: event logs or files of events go to Kafka, as fast as it takes them or at the pace at
//! which they happened.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use super::brokers::{self, BrokerArgs};
use super::pace::{Pace, Speed};
use super::record::progress;
use crate::ingest::Control;
use crate::sink::kafka::{Outgoing, RecordProducer, TopicSpec, ensure_topics};
use crate::source::event_log::{EventLogReader, LogRecord};
use crate::source::file;
use crate::source::kafka::{KafkaConnection, partition_counts};
use crate::units::EventTime;

const PROBE_TOPIC: &str = "traffic.probe.position.v1";
const SENSOR_TOPIC: &str = "traffic.sensor.measurement.v1";

/// Fields in which an event's time is looked for, in this order.
const TIME_FIELDS: [&str; 4] = ["event_time", "ts", "collection_interval_end_date", "timestamp"];

/// A time this far from the ones before is believed only when [`AGREEING`] successive records say so:
/// one wrong clock must not stop the pace.
const JUMP_MS: i64 = 60_000;
const AGREEING: u32 = 3;

/// Send event logs or files of events to Kafka.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    viaflux produce --log morning.ndjson.zst --brokers k1:9092 --speed 1\n  \
    viaflux produce --probes gps.ndjson.zst --sensors sensor.ndjson.zst --brokers k1:9092 --create-topics 16")]
pub struct ProduceArgs {
    #[command(flatten)]
    brokers: BrokerArgs,
    /// Event logs; every record goes to its own topic and partition.
    #[arg(long = "log", value_name = "FILE", num_args = 1.., conflicts_with_all = ["probes", "sensors"])]
    logs: Vec<PathBuf>,
    /// Vehicle positions, NDJSON; the key is the vehicle's id.
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present_any = ["logs", "sensors"])]
    probes: Vec<PathBuf>,
    /// Sensor measurements, NDJSON; the key is the sensor's id.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    sensors: Vec<PathBuf>,
    /// Topic instead of the usual one; only if everything goes to one topic.
    #[arg(long)]
    topic: Option<String>,
    /// Field of the key (a name or a JSON pointer) instead of `vehicle_id` or `sensor_id`.
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// Field of the time that sets the pace, instead of `event_time`, `ts` or
    /// `collection_interval_end_date`.
    #[arg(long, value_name = "FIELD")]
    time_field: Option<String>,
    /// `max`, or a multiple of the pace at which it happened.
    #[arg(long, default_value = "max", value_name = "max|N")]
    speed: Speed,
    /// Create missing topics with this many partitions, stamped by the broker.
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..))]
    create_topics: Option<i32>,
    /// Place a log's records by their key instead of in the log's partitions; its control records are left
    /// out, for they belong to those.
    #[arg(long, requires = "logs")]
    repartition: bool,
}

/// What was produced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Produced {
    /// Records acknowledged.
    pub records: u64,
    /// Records in which no key was found; they are dealt out in turn.
    pub without_key: u64,
    /// Control records left out.
    pub controls_skipped: u64,
}

impl ProduceArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// A file cannot be read, or Kafka not written.
    pub fn run(self) -> anyhow::Result<()> {
        let connection = self.brokers.connection("produce");
        let stop = brokers::stop_on_interrupt().context("watching for Ctrl-C")?;
        let produced = self.produce(&connection, &stop)?;
        eprintln!("{} records produced", produced.records);
        if produced.without_key > 0 {
            eprintln!(
                "{} of them have no key and were dealt out in turn",
                produced.without_key
            );
        }
        if produced.controls_skipped > 0 {
            eprintln!("{} control records were left out", produced.controls_skipped);
        }
        Ok(())
    }

    fn inputs(&self) -> anyhow::Result<Vec<Input>> {
        let time_field = self.time_field.as_deref();
        let mut inputs = Vec::new();
        for path in &self.logs {
            let reader = EventLogReader::open(path)?;
            inputs.push(Input::new(Kind::Log(reader), time_field));
        }
        for (paths, topic, key) in [
            (&self.probes, PROBE_TOPIC, "vehicle_id"),
            (&self.sensors, SENSOR_TOPIC, "sensor_id"),
        ] {
            for path in paths {
                let kind = Kind::Lines {
                    path: path.clone(),
                    lines: file::open(path)?,
                    line: 0,
                    topic: self.topic.clone().unwrap_or_else(|| topic.to_owned()),
                    key_field: self.key_field.clone().unwrap_or_else(|| key.to_owned()),
                };
                inputs.push(Input::new(kind, time_field));
            }
        }
        Ok(inputs)
    }

    /// Produces everything, or until `stop`.
    ///
    /// # Errors
    /// A file cannot be read, or Kafka not written.
    pub fn produce(&self, connection: &KafkaConnection, stop: &AtomicBool) -> anyhow::Result<Produced> {
        if self.topic.is_some() && !self.probes.is_empty() && !self.sensors.is_empty() {
            bail!(
                "--topic would mix positions and measurements in one topic: produce them one after another"
            );
        }
        let mut inputs = self.inputs()?;
        let targets = self.targets(&inputs)?;
        if let Some(partitions) = self.create_topics {
            let specs: Vec<TopicSpec> = targets
                .iter()
                .map(|(topic, wanted)| TopicSpec::input(topic, partitions.max(*wanted)))
                .collect();
            ensure_topics(connection, &specs, true)?;
        }
        let names: Vec<&str> = targets.keys().map(String::as_str).collect();
        let counts = partition_counts(connection, &names)?;
        let mut partitions = BTreeMap::new();
        let mut missing = Vec::new();
        for ((name, wanted), count) in targets.iter().zip(counts) {
            match count {
                None => missing.push(TopicSpec::input(name, (*wanted).max(1))),
                Some(count) if count < *wanted && !self.repartition => bail!(
                    "topic {name} has {count} partitions, the log {wanted}: give the topic as many, or place the \
                     records by their key with --repartition"
                ),
                Some(count) => {
                    partitions.insert(name.clone(), count);
                }
            }
        }
        if !missing.is_empty() {
            let commands: Vec<String> = missing
                .iter()
                .map(|spec| format!("  {}", spec.command(&connection.brokers)))
                .collect();
            bail!(
                "Kafka at {} lacks topics; create them with\n{}\nor pass --create-topics",
                connection.brokers,
                commands.join("\n")
            );
        }

        let producer = RecordProducer::new(connection)?;
        let mut pace = Pace::new(self.speed);
        let mut produced = Produced::default();
        let bar = progress(None);
        for input in &mut inputs {
            input.advance()?;
        }
        while !stop.load(Ordering::Relaxed) {
            // The earliest, and of equals the first named.
            let Some(input) = inputs
                .iter_mut()
                .filter(|input| input.record.is_some())
                .min_by_key(|input| input.clock.now)
            else {
                break;
            };
            pace.wait(input.clock.now.map(EventTime::from_ms), stop);
            let control = input.control;
            if let Some(record) = &input.record {
                if control && self.repartition {
                    produced.controls_skipped += 1;
                } else {
                    let topic = self.topic.as_deref().unwrap_or(&record.topic);
                    let count = partitions.get(topic).copied().unwrap_or(1).max(1);
                    let keyed = record.key.is_some();
                    let in_turn = || i32::try_from(record.offset % u64::from(count.unsigned_abs())).ok();
                    let partition = if input.is_log() && !self.repartition {
                        i32::try_from(record.partition).ok()
                    } else if keyed {
                        None
                    } else {
                        produced.without_key += 1;
                        // Not at random: two runs over one file shall place it alike.
                        in_turn()
                    };
                    let headers: Vec<(&str, Option<&[u8]>)> = record
                        .headers
                        .iter()
                        // Here it becomes a record of its partition.
                        .filter(|(k, _)| k != Control::JOURNAL_HEADER)
                        .map(|(k, v)| (k.as_str(), v.as_deref()))
                        .collect();
                    let outgoing = Outgoing {
                        topic,
                        partition,
                        key: record.key.as_deref(),
                        value: record.value.as_deref(),
                    };
                    producer.send(outgoing, &headers)?;
                    bar.inc(1);
                }
            }
            input.advance()?;
        }
        producer.flush(Duration::from_secs(60))?;
        bar.finish_and_clear();
        produced.records = producer.acknowledged();
        Ok(produced)
    }

    /// Topics to write and the partitions that each must have.
    fn targets(&self, inputs: &[Input]) -> anyhow::Result<BTreeMap<String, i32>> {
        let mut targets = BTreeMap::new();
        for input in inputs {
            match &input.kind {
                Kind::Log(reader) => {
                    if self.topic.is_some() && reader.header().sources.len() > 1 {
                        bail!("--topic fits a log of one topic; this one has several");
                    }
                    for source in &reader.header().sources {
                        let topic = self.topic.as_ref().unwrap_or(&source.topic);
                        let wanted = i32::try_from(source.partitions).unwrap_or(i32::MAX);
                        let most = targets.entry(topic.clone()).or_insert(0);
                        *most = wanted.max(*most);
                    }
                }
                Kind::Lines { topic, .. } => {
                    targets.entry(topic.clone()).or_insert(0);
                }
            }
        }
        Ok(targets)
    }
}

enum Kind {
    Log(EventLogReader),
    Lines {
        path: PathBuf,
        lines: Box<dyn BufRead + Send>,
        line: u64,
        topic: String,
        key_field: String,
    },
}

/// One file, one record ahead.
struct Input {
    kind: Kind,
    time_field: Option<String>,
    /// The next record; `None` at the end. A line's number stands in for its offset.
    record: Option<LogRecord>,
    control: bool,
    clock: Clock,
}

impl Input {
    fn new(kind: Kind, time_field: Option<&str>) -> Self {
        Self {
            kind,
            time_field: time_field.map(str::to_owned),
            record: Some(LogRecord::default()),
            control: false,
            clock: Clock::default(),
        }
    }

    fn is_log(&self) -> bool {
        matches!(self.kind, Kind::Log(_))
    }

    fn advance(&mut self) -> anyhow::Result<()> {
        let Some(mut record) = self.record.take() else {
            return Ok(());
        };
        let time = match &mut self.kind {
            Kind::Log(reader) => {
                if !reader.read(&mut record)? {
                    return Ok(());
                }
                self.control = record.is_control();
                match record.append_time {
                    Some(time) => Some(time.ms()),
                    None => record
                        .value
                        .as_deref()
                        .and_then(|value| serde_json::from_slice(value).ok())
                        .and_then(|value| event_ms(&value, self.time_field.as_deref())),
                }
            }
            Kind::Lines {
                path,
                lines,
                line,
                topic,
                key_field,
            } => {
                let mut value = record.value.take().unwrap_or_default();
                value.clear();
                let read = lines
                    .read_until(b'\n', &mut value)
                    .with_context(|| format!("reading {}:{}", path.display(), *line + 1))?;
                if read == 0 {
                    return Ok(());
                }
                if value.last() == Some(&b'\n') {
                    value.pop();
                }
                record.offset = *line;
                *line += 1;
                record.topic.clone_from(topic);
                // Lines that are no JSON are sent as well: a feed has such too.
                let parsed: Option<Value> = serde_json::from_slice(&value).ok();
                record.key = parsed
                    .as_ref()
                    .and_then(|p| brokers::json_key(p, key_field))
                    .map(String::into_bytes);
                record.value = Some(value);
                parsed.and_then(|parsed| event_ms(&parsed, self.time_field.as_deref()))
            }
        };
        self.clock.tell(time);
        self.record = Some(record);
        Ok(())
    }
}

/// Time of an event in milliseconds: an integer as it is, text as RFC 3339.
fn event_ms(event: &Value, field: Option<&str>) -> Option<i64> {
    let read = |field: &str| {
        let value = if field.starts_with('/') {
            event.pointer(field)
        } else {
            event.get(field)
        };
        match value? {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text
                .parse::<jiff::Timestamp>()
                .ok()
                .map(jiff::Timestamp::as_millisecond),
            _ => None,
        }
    };
    match field {
        Some(field) => read(field),
        None => TIME_FIELDS.iter().find_map(|field| read(field)),
    }
}

/// Time of a file at its next record: never backwards by a little, and by much only when several agree.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    now: Option<i64>,
    doubted: Option<i64>,
    agreeing: u32,
}

impl Clock {
    fn tell(&mut self, time: Option<i64>) {
        let Some(time) = time else { return };
        let Some(now) = self.now else {
            self.now = Some(time);
            return;
        };
        if time.saturating_sub(now).abs() <= JUMP_MS {
            self.now = Some(now.max(time));
            self.agreeing = 0;
            return;
        }
        let agrees = self
            .doubted
            .is_some_and(|doubted| time.saturating_sub(doubted).abs() <= JUMP_MS);
        self.agreeing = if agrees { self.agreeing + 1 } else { 1 };
        self.doubted = Some(time);
        if self.agreeing >= AGREEING {
            self.now = Some(time);
            self.agreeing = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_in_any_of_the_usual_fields() {
        let ms = |text: &str, field| event_ms(&serde_json::from_str(text).unwrap(), field);
        assert_eq!(ms(r#"{"ts":5}"#, None), Some(5));
        assert_eq!(
            ms(r#"{"event_time":"1970-01-01T00:00:01.500Z","ts":5}"#, None),
            Some(1500)
        );
        assert_eq!(
            ms(r#"{"collection_interval_end_date":"1970-01-01T00:00:01Z"}"#, None),
            Some(1000)
        );
        assert_eq!(ms(r#"{"a":{"t":7}}"#, Some("/a/t")), Some(7));
        assert_eq!(ms(r#"{"ts":"yesterday"}"#, None), None);
    }

    #[test]
    fn one_wrong_clock_does_not_move_the_pace_but_several_do() {
        let mut clock = Clock::default();
        let mut seen = Vec::new();
        let hour = 3_600_000;
        for time in [1000, 2000, hour, 1500, 3000, hour, hour + 5, hour + 9, hour + 3] {
            clock.tell(Some(time));
            seen.push(clock.now.unwrap());
        }
        assert_eq!(
            seen,
            [1000, 2000, 2000, 2000, 3000, 3000, 3000, hour + 9, hour + 9]
        );
        // A first record with a wrong clock is put right by those behind it.
        let mut clock = Clock::default();
        for time in [hour, 10, 20, 30] {
            clock.tell(Some(time));
        }
        assert_eq!(clock.now, Some(30));
    }
}
