//! Recorded events as the flags of a command name them: plain files or event logs, driven through an engine.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use clap::Args;

use super::city::{City, LogDoor};
use super::cli::UsageError;
use super::config::{Config, Source, SourceKind};
use super::driver::Driver;
use super::files::{Drive, Files};
use super::pace::{Pace, Speed};
use crate::engine::{Batch, LogIndex, LogSpec};
use crate::ingest::{Feed, Format};
use crate::source::event_log::{EventLogReader, LogRecord};
use crate::source::file::BATCH_RECORDS;

/// Records of a batch when a pace is kept.
const PACED_RECORDS: usize = 64;

/// The recorded events that a command reads, and their map.
#[derive(Debug, Args)]
pub struct Recorded {
    /// Map file, made by `viaflux map build`
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Files of vehicle positions (NDJSON or CSV; .gz, .zst; - is standard input)
    #[arg(long, num_args = 1.., value_name = "FILE")]
    probes: Vec<PathBuf>,
    /// Files of sensor measurements
    #[arg(long, num_args = 1.., value_name = "FILE")]
    sensors: Vec<PathBuf>,
    /// Sensor sites: GeoJSON points or a sensors.json
    #[arg(long, value_name = "FILE")]
    sites: Option<PathBuf>,
    /// Shape of the records: viaflux, traccar, hfp, simulated-city
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Encoding of the files: json or csv; without it that of their names, the source's or the preset's
    #[arg(long, value_name = "json|csv", value_parser = encoding)]
    format: Option<Format>,
    /// What stands between the columns of a CSV row [default: a comma]
    #[arg(long, value_name = "CHARACTER")]
    separator: Option<char>,
    /// Event logs, made by `viaflux record`
    #[arg(long, num_args = 1.., value_name = "FILE")]
    log: Vec<PathBuf>,
}

fn encoding(text: &str) -> Result<Format, String> {
    match text {
        "json" | "ndjson" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        _ => Err("it is json or csv".to_owned()),
    }
}

impl Recorded {
    /// Lets the flags override the configuration.
    ///
    /// # Errors
    /// [`UsageError`]: flags that do not fit one another, or name nothing.
    pub fn configure(&self, config: &mut Config) -> Result<()> {
        if let Some(map) = &self.map {
            config.map.file = map.clone();
        }
        if let Some(sites) = &self.sites {
            config.map.sensors = Some(sites.clone());
        }
        let plain_files = !self.probes.is_empty() || !self.sensors.is_empty();
        if !self.log.is_empty() && plain_files {
            let text = "--log brings its own sources; leave --probes and --sensors out";
            return Err(UsageError(text.to_owned()).into());
        }
        if !self.log.is_empty() {
            return Ok(());
        }
        let plain = [(Feed::Probe, &self.probes), (Feed::Sensor, &self.sensors)];
        let mut sources = Vec::new();
        for (feed, paths) in plain {
            if paths.is_empty() {
                continue;
            }
            // A source of the configuration with this feed lends its mapping, the flags its files.
            let known = config.source.iter().find(|s| s.feed == feed).cloned();
            let mut source = known.unwrap_or(Source {
                feed,
                ..Source::default()
            });
            source.kind = SourceKind::File;
            source.path = None;
            source.paths = paths.clone();
            if self.preset.is_some() {
                source.preset.clone_from(&self.preset);
                source.fields.clear();
                source.format = None;
            }
            source.format = self.format.or(source.format);
            source.separator = self.separator.or(source.separator);
            source.mapping().map_err(|(key, problem)| {
                let flag = match (key, feed) {
                    ("preset", _) => "--preset",
                    ("separator", _) => "--separator",
                    ("format", _) => "--format",
                    (_, Feed::Probe) => "--probes",
                    (_, Feed::Sensor) => "--sensors",
                };
                UsageError(format!("{flag}: {problem}"))
            })?;
            sources.push(source);
        }
        if sources.is_empty() {
            sources = config
                .source
                .iter()
                .filter(|s| s.kind == SourceKind::File)
                .cloned()
                .collect();
        }
        if sources.is_empty() {
            let text =
                "nothing to replay: name files with --probes and --sensors, or an event log with --log";
            return Err(UsageError(text.to_owned()).into());
        }
        config.source = sources;
        Ok(())
    }

    /// Drives the recorded events through the driver that `driver` makes for their logs, to their end.
    ///
    /// # Errors
    /// What cannot be read, written or understood.
    pub fn drive(
        &self,
        config: &Config,
        city: &City,
        how: Drive,
        driver: impl FnOnce(&Config, Vec<LogSpec>) -> Result<Driver>,
        keep_ids: bool,
    ) -> Result<Driver> {
        if !self.log.is_empty() {
            return self.drive_log(config, city, how, driver, keep_ids);
        }
        let (input, logs) = Files::open(config, city, keep_ids)?;
        let mut driver = driver(config, logs)?;
        input.drive(&mut driver, how, &AtomicBool::new(false))?;
        Ok(driver)
    }

    /// Drives event logs. All partitions that a log's first line names are logs of the engine, silent ones
    /// too; several event logs of the same topics are read one after the other.
    fn drive_log(
        &self,
        config: &Config,
        city: &City,
        how: Drive,
        driver: impl FnOnce(&Config, Vec<LogSpec>) -> Result<Driver>,
        keep_ids: bool,
    ) -> Result<Driver> {
        let mut readers = Vec::new();
        for path in &self.log {
            readers.push(EventLogReader::open(path)?);
        }
        let header = readers[0].header().clone();
        let mut logs = Vec::new();
        for recorded in &header.sources {
            let source = self.source_of(config, &recorded.topic)?;
            for partition in 0..recorded.partitions {
                let door = LogDoor::Partition(&recorded.topic, partition);
                logs.push(city.log(config, &source, door, keep_ids)?);
            }
        }
        let mut driver = driver(config, logs)?;
        let (mut batch, mut record) = (Batch::default(), LogRecord::default());
        // Also within a batch: event logs that overlap hold records twice, and the engine takes each once.
        let mut next: Vec<u64> = (0..driver.engine().logs())
            .map(|log| driver.engine().next_offset(log as LogIndex))
            .collect();
        let (mut pace, stop) = (Pace::new(how.speed), AtomicBool::new(false));
        let progress = super::progress::records("replaying");
        for (mut reader, path) in readers.into_iter().zip(&self.log) {
            if reader.header().sources != header.sources {
                bail!(
                    "{}: records other topics than {}",
                    path.display(),
                    self.log[0].display()
                );
            }
            while reader.read(&mut record)? {
                let Some(log) = header.log(&record.topic, record.partition) else {
                    bail!(
                        "{}, line {}: topic `{}` partition {} is not in the log's first line",
                        path.display(),
                        reader.line(),
                        record.topic,
                        record.partition
                    );
                };
                let next = &mut next[usize::from(log)];
                if record.offset < *next {
                    continue;
                }
                // One from a journal stands before the record of its offset, which is still to come.
                if !record.is_journalled() {
                    *next = record.offset + 1;
                }
                record.push_to(&mut batch, log);
                if batch.len() >= BATCH_RECORDS || (how.speed != Speed::Max && batch.len() >= PACED_RECORDS) {
                    progress.inc(batch.len() as u64);
                    driver.take(&batch)?;
                    batch.clear();
                    pace.wait(driver.engine().greatest(log), &stop);
                }
            }
        }
        if how.drain {
            (0..driver.engine().logs()).for_each(|log| batch.end(log as LogIndex));
        }
        driver.take(&batch)?;
        progress.finish_and_clear();
        driver.finish()?;
        Ok(driver)
    }

    /// The source of the configuration that reads `topic`, with the flags over it.
    fn source_of(&self, config: &Config, topic: &str) -> Result<Source> {
        let known = config
            .source
            .iter()
            .find(|s| s.kind == SourceKind::Kafka && s.topic() == topic)
            .cloned();
        let Some(mut source) = known else {
            bail!(
                "no [[source]] of the configuration reads topic `{topic}`; add one, it says how its records are decoded"
            );
        };
        if self.preset.is_some() {
            source.preset.clone_from(&self.preset);
            source.fields.clear();
        }
        Ok(source)
    }
}
