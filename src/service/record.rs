//! `viaflux record`: what lies in Kafka becomes an event log.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::message::Message;
use serde_json::Map;

use super::brokers::{self, BrokerArgs};
use super::journal::{self, Pending};
use crate::source::event_log::{EventLogWriter, LogHeader, LogRecord, LogSource};
use crate::source::kafka::{
    self, KafkaConnection, KafkaInput, KafkaSource, LogRange, Next, RangeReader, Start,
};

/// Write topics of Kafka into an event log.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    viaflux record --brokers k1:9092 --topic traffic.probe.position.v1 --from 2h -o morning.ndjson.zst\n  \
    viaflux record --brokers k1:9092 --topic a --topic b --from latest --follow -o live.ndjson.zst")]
pub struct RecordArgs {
    #[command(flatten)]
    brokers: BrokerArgs,
    /// Topics; all their partitions are recorded.
    #[arg(long = "topic", value_name = "TOPIC", required = true, value_delimiter = ',')]
    topics: Vec<String>,
    /// Where to begin: `earliest`, `latest`, an age (15m), an RFC 3339 moment, or an offset.
    #[arg(long, default_value = "earliest", value_parser = brokers::start)]
    from: Start,
    /// Where to end (not included): an RFC 3339 moment, an age or an offset; default: what is there now.
    #[arg(long, value_parser = brokers::start, conflicts_with = "follow")]
    to: Option<Start>,
    /// Go on with what comes, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// State folder of a `run` that may not write to these topics: the idle marks in its journal stand in the event
    /// log where they acted.
    #[arg(long, value_name = "DIR", conflicts_with = "follow")]
    state: Option<PathBuf>,
    /// File to write; `.zst` or `.gz` compress it, `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// What to record.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Topics.
    pub topics: Vec<String>,
    /// Beginning.
    pub from: Start,
    /// End of each partition; `None` with `follow` unset: what is there now.
    pub to: Option<Start>,
    /// Go on until told to stop.
    pub follow: bool,
    /// State folder whose journal is exported too.
    pub state: Option<PathBuf>,
    /// File.
    pub output: PathBuf,
}

impl RecordArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// Kafka cannot be read, or the file not written.
    pub fn run(self) -> anyhow::Result<()> {
        let connection = self.brokers.connection("record");
        let recording = Recording {
            topics: self.topics,
            from: self.from,
            to: self.to,
            follow: self.follow,
            state: self.state,
            output: self.output,
        };
        let stop = brokers::stop_on_interrupt().context("watching for Ctrl-C")?;
        let records = record(&connection, &recording, &stop)?;
        eprintln!("{records} records in {}", recording.output.display());
        Ok(())
    }
}

/// Records until the end asked for, or until `stop`; returns the number of records.
///
/// # Errors
/// Kafka cannot be read, or the file not written.
pub fn record(connection: &KafkaConnection, recording: &Recording, stop: &AtomicBool) -> anyhow::Result<u64> {
    let inputs = |start: Start| -> Vec<KafkaInput> {
        recording
            .topics
            .iter()
            .map(|topic| KafkaInput {
                topic: topic.clone(),
                start,
            })
            .collect()
    };
    let found = KafkaSource::connect(connection, &inputs(recording.from))?;
    // Offsets are asked for as numbers here: behind the end they mean "until it is there".
    let ends: Vec<Option<u64>> = match recording.to {
        _ if recording.follow => vec![None; found.logs.len()],
        None | Some(Start::Latest) => found.logs.iter().map(|log| Some(log.high)).collect(),
        Some(Start::Offset(offset)) => vec![Some(offset); found.logs.len()],
        Some(Start::Earliest) => bail!("--to earliest would record nothing"),
        Some(to @ (Start::Ago(_) | Start::At(_))) => {
            let until = KafkaSource::connect(connection, &inputs(to))?;
            until.logs.iter().map(|log| Some(log.start)).collect()
        }
    };
    let ranges: Vec<LogRange> = found
        .logs
        .iter()
        .zip(ends)
        .map(|(log, to)| LogRange {
            topic: log.topic.clone(),
            partition: log.partition,
            from: log.start,
            to,
        })
        .collect();
    let total: Option<u64> = ranges
        .iter()
        .map(|range| range.to.map(|to| to.saturating_sub(range.from)))
        .sum::<Option<u64>>();
    let sources = found
        .topics
        .iter()
        .map(|topic| LogSource {
            id: topic.name.clone(),
            topic: topic.name.clone(),
            partitions: u32::try_from(topic.partitions).unwrap_or(0),
            log_append_time: topic.log_append_time,
            more: Map::new(),
        })
        .collect();
    let mut writer = EventLogWriter::create(&recording.output, &LogHeader::new(sources))?;
    let bar = progress(total);
    let mut reader = RangeReader::open(connection, &ranges)?;
    let mut record = LogRecord::default();
    let entries = match &recording.state {
        Some(dir) => journal::read(dir)?,
        None => Vec::new(),
    };
    let mut pending = Pending::new(&entries, |entry| {
        let place = place_of(&ranges, &entry.topic, entry.partition)?;
        Some((place, ranges[place].from))
    });
    while !stop.load(Ordering::Relaxed) {
        match reader.next(Duration::from_millis(100))? {
            Next::Done => {
                for (place, range) in ranges.iter().enumerate() {
                    export(&mut pending, &mut writer, place, range, range.to.unwrap_or(0))?;
                }
                break;
            }
            Next::Nothing => {}
            Next::Message(message) => {
                record.topic.clear();
                record.topic.push_str(message.topic());
                record.partition = u32::try_from(message.partition()).unwrap_or(0);
                record.offset = u64::try_from(message.offset()).unwrap_or(0);
                record.append_time = kafka::append_time(&message);
                record.key = message.key().map(<[u8]>::to_vec);
                record.value = message.payload().map(<[u8]>::to_vec);
                record.headers = brokers::headers(&message);
                drop(message);
                if let Some(place) = place_of(&ranges, &record.topic, record.partition) {
                    export(&mut pending, &mut writer, place, &ranges[place], record.offset)?;
                }
                writer.write(&record)?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(writer.finish()?)
}

fn place_of(ranges: &[LogRange], topic: &str, partition: u32) -> Option<usize> {
    ranges
        .iter()
        .position(|r| r.topic == topic && r.partition.unsigned_abs() == partition)
}

/// Writes the entries of a journal that act in `range` before the record at `offset`.
fn export(
    pending: &mut Pending<usize>,
    writer: &mut EventLogWriter,
    place: usize,
    range: &LogRange,
    offset: u64,
) -> anyhow::Result<()> {
    while let Some((at, control)) = pending.due(place, offset) {
        let partition = range.partition.unsigned_abs();
        writer.write(&LogRecord::journalled(&range.topic, partition, at, control))?;
    }
    Ok(())
}

/// A bar if the number of records is known, else a counter; nothing where nobody watches.
pub(crate) fn progress(total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match total {
        Some(total) => {
            let style = "{bar:40} {human_pos}/{human_len} records  {per_sec}  {eta} left";
            ProgressBar::new(total)
                .with_style(ProgressStyle::with_template(style).expect("the template is well formed"))
        }
        None => {
            let style = "{spinner} {human_pos} records  {per_sec}  {elapsed}";
            ProgressBar::new_spinner()
                .with_style(ProgressStyle::with_template(style).expect("the template is well formed"))
        }
    }
}
