//! `viaflux replay`: files through the engine, as fast as they can be read or at a pace.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::city::City;
use super::cli::Global;
use super::config::{Config, Source, SourceKind};
use super::driver::Driver;
use crate::engine::{Batch, Engine, LogIndex};
use crate::ingest::Feed;
use crate::sink::file::OutputFile;
use crate::source::file::{BATCH_RECORDS, FileInput, FileSource};
use crate::units::EventTime;

/// Records of a batch when replay keeps a pace: small, so that time passes evenly.
const PACED_RECORDS: usize = 64;
/// Wall time between two checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// Replay recorded events: the same engine as live, the same bytes out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viaflux replay --map city.map --probes gps.ndjson.zst --sensors sensor.ndjson.zst \\
      --sites sensors.json --preset simulated-city -o out
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
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Write matches.ndjson: where each position was placed on the road
    #[arg(long)]
    matches: bool,
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

/// How fast to replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as possible.
    Max,
    /// So many times as fast as the events happened.
    Times(f64),
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.trim_end_matches('x').parse::<f64>() {
            Ok(n) if n > 0.0 && n.is_finite() => Ok(Self::Times(n)),
            _ => Err(format!("`{text}` is no speed; write max, or a number above 0 such as 10")),
        }
    }
}

/// Sleeps so that event time passes at a given multiple of wall time.
#[derive(Debug)]
pub struct Pace {
    speed: Speed,
    begin: Option<(EventTime, Instant)>,
}

impl Pace {
    /// A pace that begins with the first moment it is told.
    pub fn new(speed: Speed) -> Self {
        Self { speed, begin: None }
    }

    /// Waits until `now` is due.
    pub fn wait(&mut self, now: Option<EventTime>) {
        let (Speed::Times(n), Some(now)) = (self.speed, now) else { return };
        let (first, since) = *self.begin.get_or_insert((now, Instant::now()));
        let due = Duration::from_secs_f64((now.since(first).max(0)) as f64 / 1000.0 / n);
        if let Some(rest) = due.checked_sub(since.elapsed()) {
            std::thread::sleep(rest);
        }
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
        let begin = Instant::now();
        let driver = self.drive(&config, &city, threads, &files)?;
        let mut summary = driver.summary(&config.hash(), begin.elapsed(), threads);
        // Nobody waited for these results: a delay between event and state is told by paced and live runs.
        summary["latency_ms"] = serde_json::json!({ "event_to_state": null });
        let path = self.out.join("summary.json");
        let text = serde_json::to_string_pretty(&summary)?;
        std::fs::write(&path, format!("{text}\n")).with_context(|| format!("writing {}", path.display()))?;
        super::cli::print(&if global.json { format!("{text}\n") } else { report(&summary, &self.out) })?;
        Ok(())
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
        if !self.log.is_empty() && !(self.probes.is_empty() && self.sensors.is_empty()) {
            bail!("--log brings its own sources; leave --probes and --sensors out");
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
            let mut source = known.unwrap_or(Source { feed, ..Source::default() });
            source.kind = SourceKind::File;
            source.path = None;
            source.paths = paths.clone();
            if self.preset.is_some() {
                source.preset.clone_from(&self.preset);
                source.fields.clear();
            }
            sources.push(source);
        }
        if sources.is_empty() {
            sources = config.source.iter().filter(|s| s.kind == SourceKind::File).cloned().collect();
        }
        if sources.is_empty() {
            bail!("nothing to replay: name files with --probes and --sensors, or an event log with --log");
        }
        config.source = sources;
        Ok(())
    }

    fn drive(&self, config: &Config, city: &City, threads: usize, files: &[OutputFile]) -> Result<Driver> {
        if !self.log.is_empty() {
            return self.drive_log(config, city, threads, files);
        }
        let paths: Vec<(&Source, &Path)> =
            config.source.iter().flat_map(|s| s.files().into_iter().map(move |p| (s, p))).collect();
        let lanes = config.ingest.virtual_partitions;
        let (mut logs, mut inputs) = (Vec::new(), Vec::new());
        for (source, path) in &paths {
            let mapping = source.mapping().map_err(|(_, problem)| anyhow::anyhow!(problem))?;
            let input = FileInput::open(path, mapping.format)?;
            let name = path.display().to_string();
            logs.push(city.log(config, source, name, input.header(), lanes, self.matches)?);
            inputs.push(input);
        }
        let engine = Engine::new(city.setup(config, logs, threads, self.matches));
        let out = Some((self.out.as_path(), files));
        let mut driver = Driver::new(engine, out, Vec::new(), self.state.as_deref(), CHECKPOINT_EVERY)?;

        let records = if self.speed == Speed::Max { BATCH_RECORDS } else { PACED_RECORDS };
        let mut open: Vec<(LogIndex, FileSource)> = Vec::new();
        for (i, input) in inputs.into_iter().enumerate() {
            let log = i as LogIndex;
            let from = driver.engine().next_offset(log);
            let file = if self.sort {
                let decoder = driver.engine().decoder(log);
                input.sorted(log, from, records, |line| Some(decoder.decode(line, 0).ok()?.event.time()))?
            } else {
                input.start(log, from, records)
            };
            open.push((log, file));
        }
        let progress = super::progress(paths.iter().map(|(_, p)| *p));
        let mut pace = Pace::new(self.speed);
        // Results do not depend on which log is read next; the one that is furthest behind holds the others
        // up, so reading it keeps memory small.
        while let Some(k) = (0..open.len()).min_by_key(|&k| (driver.engine().watermark(open[k].0), k)) {
            let (log, file) = &open[k];
            let log = *log;
            match file.next()? {
                Some(batch) => {
                    progress.inc(batch.len() as u64);
                    driver.take(&batch)?;
                    pace.wait(driver.engine().greatest(log));
                }
                None => {
                    open.remove(k);
                    if !self.no_drain {
                        let mut batch = Batch::default();
                        batch.end(log);
                        driver.take(&batch)?;
                    }
                }
            }
        }
        progress.finish_and_clear();
        driver.finish()?;
        Ok(driver)
    }
}

/// What a person wants to know of a run.
fn report(summary: &serde_json::Value, out: &Path) -> String {
    let n = |pointer: &str| summary.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let text = |key: &str| summary[key].as_str().unwrap_or("-").to_owned();
    let mut lines = vec![
        format!("{:>12}  records read in {:.1} s ({} a second)", n("/records/read"), n("/elapsed_s"), n("/records_per_s")),
        format!("{:>12}  used", n("/records/used")),
    ];
    for (reason, count) in summary["records"]["rejected"].as_object().into_iter().flatten() {
        lines.push(format!("{:>12}  rejected: {reason}", count.as_f64().unwrap_or(0.0)));
    }
    lines.push(format!("{:>12}  panes closed, up to {}", n("/panes"), text("pane_end")));
    lines.push(format!("{:>12}  segments live at the end", n("/segments/live")));
    lines.push(format!("{:>12}  alerts opened, {} resolved", n("/alerts/opened"), n("/alerts/resolved")));
    lines.push(format!("digest {}", text("digest")));
    lines.push(format!("results in {}", out.display()));
    lines.join("\n") + "\n"
}
