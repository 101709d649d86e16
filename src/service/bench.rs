//! `viaflux bench`: how fast parts of viaflux are on given work.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::cli::{self, Global};
use super::traces::{self, Trace};
use crate::locate::{Decisions, Lag, Matcher, Settings, Track};
use crate::network::Network;

/// Arguments of `viaflux bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Match traces to the map; prints points and CPU seconds of the matching alone as one JSON object.
    Match(MatchArgs),
}

/// How long a decision may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Wait {
    /// `locate.lag_s`, as live.
    Online,
    /// Until the trace ends.
    Full,
}

impl From<Wait> for Lag {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Online => Lag::Online,
            Wait::Full => Lag::Full,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
A trace is a line {\"id\": 0, \"pts\": [[lon, lat, seconds, km/h, degrees], …]}; speed and direction may be null.
A line of the output is {\"id\": 0, \"points\": [[way, dir, fed] or null, …], \"route\": [[way, dir, metres], …]}:
dir is 1 along the way's nodes and -1 against them, fed the number of points read when the decision was out.")]
struct MatchArgs {
    /// Map file.
    #[arg(long, value_name = "FILE")]
    map: PathBuf,
    /// Traces.
    #[arg(long, value_name = "FILE")]
    traces: PathBuf,
    /// Where to write what was decided.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Threads; each takes its share of the traces.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// How long a decision may wait.
    #[arg(long, value_name = "LAG", default_value = "online")]
    lag: Wait,
}

impl BenchArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn run(self, global: &Global) -> Result<()> {
        match self.what {
            What::Match(args) => args.run(global),
        }
    }
}

/// Decisions of one trace, and how many points had been read when each was out.
#[derive(Debug, Default)]
struct Matched {
    decisions: Decisions,
    fed: Vec<u32>,
}

#[derive(Serialize)]
struct Line {
    id: u64,
    points: Vec<Option<(i64, i8, u32)>>,
    route: Vec<(i64, i8, f64)>,
}

impl MatchArgs {
    fn run(self, global: &Global) -> Result<()> {
        let settings = global.configure(&[])?.config.locate;
        let network = Arc::new(Network::load(&self.map).with_context(|| self.map.display().to_string())?);
        let traces = traces::read(&self.traces)?;
        let lag = self.lag.into();
        let share = traces.len().div_ceil(usize::from(self.threads)).max(1);
        let parts: Vec<(Vec<Matched>, Duration)> = std::thread::scope(|scope| {
            let workers: Vec<_> = traces
                .chunks(share)
                .map(|part| {
                    let (network, settings) = (&network, &settings);
                    scope.spawn(move || match_all(part, network, settings, lag))
                })
                .collect();
            let done = workers.into_iter().map(|w| w.join());
            done.map(|r| r.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let cpu: Duration = parts.iter().map(|(_, cpu)| *cpu).sum();
        let points: usize = traces.iter().map(|t| t.fixes.len()).sum();
        let matched = parts.into_iter().flat_map(|(matched, _)| matched);
        write(&self.out, &network, traces.iter().map(|t| t.id).zip(matched))
            .with_context(|| format!("cannot write {}", self.out.display()))?;
        let report = format!("{{\"points\": {points}, \"cpu_s\": {:.6}}}", cpu.as_secs_f64());
        Ok(cli::print(&report)?)
    }
}

fn match_all(
    traces: &[Trace],
    network: &Arc<Network>,
    settings: &Settings,
    lag: Lag,
) -> (Vec<Matched>, Duration) {
    let mut matcher = Matcher::new(network.clone(), settings.clone(), lag);
    let mut all = Vec::with_capacity(traces.len());
    let begin = cpu_time();
    for Trace { fixes, .. } in traces {
        let (mut track, mut out) = (Track::default(), Matched::default());
        for (k, fix) in fixes.iter().enumerate() {
            matcher.push(&mut track, *fix, &mut out.decisions);
            out.fed.resize(out.decisions.fixes.len(), k as u32 + 1);
        }
        matcher.finish(&mut track, &mut out.decisions);
        out.fed.resize(out.decisions.fixes.len(), fixes.len() as u32);
        all.push(out);
    }
    (all, cpu_time() - begin)
}

/// CPU time of this thread, from any moment on.
fn cpu_time() -> Duration {
    #[cfg(unix)]
    {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
    }
    #[cfg(not(unix))]
    {
        // The wall clock, where no other is at hand.
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

fn write(
    path: &Path,
    network: &Network,
    matched: impl Iterator<Item = (u64, Matched)>,
) -> std::io::Result<()> {
    let mut out = BufWriter::new(fs::File::create(path)?);
    for (id, m) in matched {
        let mut route = Vec::new();
        let mut line = Line {
            id,
            points: Vec::new(),
            route: Vec::new(),
        };
        for (decision, fed) in m.decisions.fixes.iter().zip(&m.fed) {
            let place = decision.place.as_ref().ok();
            line.points.push(place.map(|p| {
                let (way, dir) = traces::named(network, p.segment);
                (way, dir, *fed)
            }));
            if let Some(place) = place {
                traces::drive_to(network, place, m.decisions.way(place), &mut route);
            }
        }
        line.route = route.into_iter().map(|((way, dir), m)| (way, dir, m)).collect();
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
