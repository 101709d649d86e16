//! `viaflux replay`: files through the engine, as fast as they can be read or at a pace.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::city::{City, LogDoor};
use super::cli::{Global, UsageError};
use super::config::{Config, Source, SourceKind};
use super::driver::{Driver, Earlier, Results};
use super::files::{Drive, Files};
use super::pace::{Pace, Speed};
use crate::engine::{Batch, Engine, LogIndex};
use crate::ingest::{Feed, Format};
use crate::sink::file::OutputFile;
use crate::source::event_log::{EventLogReader, LogRecord};
use crate::source::file::BATCH_RECORDS;

/// Records of a batch when a pace is kept.
const PACED_RECORDS: usize = 64;
/// Wall time between two checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// Replay recorded events: the same engine as live, the same bytes out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viaflux replay --map city.map --probes gps.ndjson.zst --sensors sensor.ndjson.zst \\
      --sites sensors.json --preset simulated-city -o out
  viaflux replay --map city.map --probes taxis.csv --separator ';' -o out
  viaflux replay --map city.map --log monday.ndjson.zst -o out --threads 1
  zstdcat gps.ndjson.zst | viaflux replay --map city.map --probes - -o out")]
pub struct ReplayArgs {
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
    /// Keep checkpoints here, and go on from the newest one
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder of the results
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// As fast as possible, or this many times as fast as the events happened
    #[arg(long, default_value = "max", value_name = "max|N")]
    speed: Speed,
    /// Threads of the engine; 0 takes one for each core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::thread_count)]
    threads: usize,
    /// Write matches.ndjson: where each position was placed on the road
    #[arg(long)]
    matches: bool,
    /// Write turns.ndjson: how long vehicles took on a segment by the one that they went on to, every 5 minutes
    #[arg(long)]
    turns: bool,
    /// Write every segment that is not unknown in every pane
    #[arg(long)]
    every_pane: bool,
    /// Leave the last panes open at the end, as a live run does
    #[arg(long)]
    no_drain: bool,
    /// Bring files into the order of event time first (reads them whole)
    #[arg(long, conflicts_with = "matches")]
    sort: bool,
}

fn encoding(text: &str) -> Result<Format, String> {
    match text {
        "json" | "ndjson" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        _ => Err("it is json or csv".to_owned()),
    }
}

impl ReplayArgs {
    /// Replays.
    ///
    /// # Errors
    /// What cannot be read, written or understood.
    pub fn run(self, global: &Global) -> Result<()> {
        let mut config = global.configure(&[])?.config;
        self.configure(&mut config)?;
        let city = City::load(&config)?;
        let threads = super::threads(self.threads);
        let mut files = vec![
            OutputFile::SegmentStates,
            OutputFile::Corridors,
            OutputFile::Regions,
            OutputFile::Alerts,
            OutputFile::Rejected,
            OutputFile::Digests,
        ];
        if self.matches {
            files.push(OutputFile::Matches);
        }
        if self.turns {
            files.push(OutputFile::Turns);
        }
        let begin = Instant::now();
        let driver = self.drive(&config, &city, threads, &files)?;
        let summary = driver.summary(&config.hash(), begin.elapsed(), threads);
        let path = self.out.join("summary.json");
        let text = serde_json::to_string_pretty(&summary)?;
        std::fs::write(&path, format!("{text}\n")).with_context(|| format!("writing {}", path.display()))?;
        super::cli::print(&if global.json {
            format!("{text}\n")
        } else {
            report(&summary, &self.out)
        })?;
        driver.of_use()
    }

    /// Lets the flags override the configuration.
    fn configure(&self, config: &mut Config) -> Result<()> {
        if let Some(map) = &self.map {
            config.map.file = map.clone();
        }
        if let Some(sites) = &self.sites {
            config.map.sensors = Some(sites.clone());
        }
        config.publish.every_pane |= self.every_pane;
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

    fn drive(&self, config: &Config, city: &City, threads: usize, files: &[OutputFile]) -> Result<Driver> {
        if !self.log.is_empty() {
            return self.drive_log(config, city, threads, files);
        }
        let (input, logs) = Files::open(config, city, self.matches)?;
        let engine = Engine::new(city.setup(config, logs, threads, self.matches));
        let mut driver = self.driver(engine, files)?;
        let how = Drive {
            speed: self.speed,
            drain: !self.no_drain,
            sort: self.sort,
        };
        input.drive(&mut driver, how, &AtomicBool::new(false))?;
        Ok(driver)
    }

    fn driver(&self, engine: Engine, files: &[OutputFile]) -> Result<Driver> {
        let out = Results {
            dir: &self.out,
            files,
            earlier: Earlier::Repeated,
        };
        let state = self.state.as_deref();
        let driver = Driver::new(engine, Some(out), Vec::new(), state, CHECKPOINT_EVERY)?;
        // That of an earlier run would be taken for this one's, should it fail.
        let path = self.out.join("summary.json");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(driver),
        }
    }
}

impl ReplayArgs {
    /// Drives event logs. All partitions that a log's first line names are logs of the engine, silent ones
    /// too; several event logs of the same topics are read one after the other.
    fn drive_log(
        &self,
        config: &Config,
        city: &City,
        threads: usize,
        files: &[OutputFile],
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
                logs.push(city.log(config, &source, door, self.matches)?);
            }
        }
        let engine = Engine::new(city.setup(config, logs, threads, self.matches));
        let mut driver = self.driver(engine, files)?;
        let (mut batch, mut record) = (Batch::default(), LogRecord::default());
        // Also within a batch: event logs that overlap hold records twice, and the engine takes each once.
        let mut next: Vec<u64> = (0..driver.engine().logs())
            .map(|log| driver.engine().next_offset(log as LogIndex))
            .collect();
        let (mut pace, stop) = (Pace::new(self.speed), AtomicBool::new(false));
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
                if batch.len() >= BATCH_RECORDS || (self.speed != Speed::Max && batch.len() >= PACED_RECORDS)
                {
                    progress.inc(batch.len() as u64);
                    driver.take(&batch)?;
                    batch.clear();
                    pace.wait(driver.engine().greatest(log), &stop);
                }
            }
        }
        if !self.no_drain {
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

/// What a person wants to know of a run.
fn report(summary: &serde_json::Value, out: &Path) -> String {
    let n = |pointer: &str| {
        summary
            .pointer(pointer)
            .and_then(serde_json::Value::as_f64)
            .unwrap_or(0.0)
    };
    let text = |key: &str| summary[key].as_str().unwrap_or("-").to_owned();
    let mut lines = vec![
        format!(
            "{:>12}  records read in {:.1} s ({} a second)",
            n("/records/read"),
            n("/elapsed_s"),
            n("/records_per_s")
        ),
        format!("{:>12}  used", n("/records/used")),
    ];
    for (reason, count) in summary["records"]["rejected"].as_object().into_iter().flatten() {
        lines.push(format!(
            "{:>12}  rejected: {reason}",
            count.as_f64().unwrap_or(0.0)
        ));
    }
    lines.push(format!(
        "{:>12}  panes closed, up to {}",
        n("/panes"),
        text("pane_end")
    ));
    lines.push(format!("{:>12}  segments live at the end", n("/segments/live")));
    lines.push(format!(
        "{:>12}  alerts opened, {} resolved",
        n("/alerts/opened"),
        n("/alerts/resolved")
    ));
    lines.push(format!("digest {}", text("digest")));
    lines.push(format!("results in {}", out.display()));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::osm::{OsmData, OsmNode, OsmWay};
    use crate::network::{BuildSettings, Network};
    use crate::source::event_log::{EventLogWriter, LogHeader, LogSource};
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        global: Global,
        #[command(flatten)]
        replay: ReplayArgs,
    }

    #[test]
    fn event_logs_that_overlap_are_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut osm = OsmData::default();
        for id in 1..=2 {
            let lat = 34.26 + id as f64 * 0.001;
            osm.nodes.insert(
                id,
                OsmNode {
                    lat,
                    lon: 108.94,
                    ..OsmNode::default()
                },
            );
        }
        let tags = [("highway".to_owned(), "primary".to_owned())].into();
        osm.ways.push(OsmWay {
            id: 1,
            nodes: vec![1, 2],
            tags,
        });
        Network::build(&osm, &BuildSettings::default())
            .0
            .save(path("m.map"))
            .unwrap();
        let header = LogHeader::new(vec![LogSource {
            id: "probes".to_owned(),
            topic: "traffic.probe.position.v1".to_owned(),
            partitions: 1,
            log_append_time: None,
            more: serde_json::Map::new(),
        }]);
        for (name, offsets) in [("a.log", 0..30_u64), ("b.log", 20..50)] {
            let mut log = EventLogWriter::create(&dir.path().join(name), &header).unwrap();
            for offset in offsets {
                log.write(&LogRecord {
                    topic: "traffic.probe.position.v1".to_owned(),
                    offset,
                    value: Some(b"{}".to_vec()),
                    ..LogRecord::default()
                })
                .unwrap();
            }
            log.finish().unwrap();
        }
        let (a, b, map, out) = (path("a.log"), path("b.log"), path("m.map"), path("out"));
        let command = Command::parse_from(["replay", "--map", &map, "--log", &a, &b, "-o", &out]);
        let error = command.replay.run(&command.global).unwrap_err().to_string();
        assert!(
            error.contains("none of the 50 records") && error.contains("schema"),
            "{error}"
        );
        let summary: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("out/summary.json")).unwrap()).unwrap();
        assert_eq!(summary["records"]["read"], 50);
    }
}
