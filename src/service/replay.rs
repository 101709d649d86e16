//! `viaflux replay`: files through the engine, as fast as they can be read or at a pace.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::city::City;
use super::cli::Global;
use super::config::Config;
use super::driver::{Driver, Earlier, Results};
use super::files::Drive;
use super::pace::Speed;
use super::recorded::Recorded;
use crate::engine::Engine;
use crate::sink::file::OutputFile;

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
    #[command(flatten)]
    recorded: Recorded,
    /// Keep checkpoints here, and go on from the newest one
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Learned free-flow and usual speeds, made by `viaflux baseline build`
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
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

impl ReplayArgs {
    /// Replays.
    ///
    /// # Errors
    /// What cannot be read, written or understood.
    pub fn run(self, global: &Global) -> Result<()> {
        let mut config = global.configure(&[])?.config;
        self.recorded.configure(&mut config)?;
        config.publish.every_pane |= self.every_pane;
        if let Some(file) = &self.baseline {
            config.baseline.file = Some(file.clone());
        }
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

    fn drive(&self, config: &Config, city: &City, threads: usize, files: &[OutputFile]) -> Result<Driver> {
        let how = Drive {
            speed: self.speed,
            drain: !self.no_drain,
            sort: self.sort,
        };
        self.recorded.drive(
            config,
            city,
            how,
            |config, logs| {
                self.driver(
                    Engine::new(city.setup(config, logs, threads, self.matches)),
                    files,
                )
            },
            self.matches,
        )
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
    use crate::source::event_log::{EventLogWriter, LogHeader, LogRecord, LogSource};
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
