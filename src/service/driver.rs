//! Drives the engine: hands it batches, spreads what follows to the doors, keeps checkpoints and tallies.
//!
//! `run`, `replay` and `demo` differ in their sources and sinks only; between these stands this one driver.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::aside::Aside;
use super::checkpoints::Checkpoints;
use crate::assess::Transition;
use crate::engine::{Batch, Engine, LogIndex, Output, Record, Refusal, Stage, Stopwatch};
use crate::ingest::{Explanation, Field, Rejection};
use crate::locate::PaneIndex;
use crate::publish::{Topic, turn_json};
use crate::sink::file::{Begin, FileSink, OutputFile};
use crate::units::EventTime;

/// Refused records written, by log and reason.
pub type Samples = BTreeMap<(LogIndex, Rejection), u64>;

/// Panes closed before what they gave is handed on.
const PANES_AT_ONCE: usize = 64;
/// Records after which a log of which none could be used is warned of.
const USELESS: u64 = 1000;
/// Longest payload that such a warning shows.
const EXAMPLE_BYTES_MAX: usize = 200;
/// Longest payload that a sample keeps.
const SAMPLE_BYTES_MAX: usize = 2048;

/// Where results go besides the files of the run.
pub trait Outlet {
    /// Takes what one batch gave. `engine` is at rest.
    ///
    /// # Errors
    /// What could not be delivered: the run stops, and the log makes a restart safe.
    fn take(&mut self, engine: &Engine, batch: &Batch, output: &Output) -> Result<()>;

    /// Told after each batch what it cost and what the driver itself wrote of it.
    fn account(&mut self, _account: &Account) {}

    /// Called now and then while nothing comes.
    fn tick(&mut self, _engine: &Engine) {}

    /// Waits until all that was taken is safe, so that a checkpoint may say so.
    ///
    /// # Errors
    /// What could not be delivered.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a batch cost, and what of it went to the files of the run.
#[derive(Debug, Default)]
pub struct Account {
    /// Wall time by stage, in the order of [`Stage::ALL`]; `None` where a stage had nothing to do.
    pub spent: [Option<Duration>; Stage::ALL.len()],
    /// Lines written; `None` without files.
    pub lines: Option<u64>,
    /// Refused records written as a sample, by log and reason.
    pub samples: Samples,
}

/// Wall time by stage.
#[derive(Clone, Debug, Default)]
pub struct StageClock {
    spent: [Duration; Stage::ALL.len()],
    /// The same since the last [`StageClock::lap`].
    lap: [Option<Duration>; Stage::ALL.len()],
    current: Option<(Stage, Instant)>,
}

impl Stopwatch for StageClock {
    fn enter(&mut self, stage: Option<Stage>) {
        let now = Instant::now();
        if let Some((stage, since)) = self.current.take() {
            self.spent[stage as usize] += now - since;
            *self.lap[stage as usize].get_or_insert_default() += now - since;
        }
        self.current = stage.map(|s| (s, now));
    }
}

impl StageClock {
    /// Time spent in each stage since the last call.
    fn lap(&mut self) -> [Option<Duration>; Stage::ALL.len()] {
        std::mem::take(&mut self.lap)
    }

    /// Seconds spent in each stage.
    pub fn seconds(&self) -> BTreeMap<&'static str, f64> {
        Stage::ALL
            .iter()
            .map(|s| (s.label(), self.spent[*s as usize].as_secs_f64()))
            .collect()
    }
}

/// Counts of what was told; part of a checkpoint, so that a summary speaks of the whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tallies {
    /// Publications by file or topic.
    pub published: BTreeMap<String, u64>,
    /// Alerts opened.
    pub alerts_opened: u64,
    /// Alerts resolved.
    pub alerts_resolved: u64,
    /// Panes closed.
    pub panes: u64,
}

/// The files of a run.
#[derive(Clone, Copy, Debug)]
pub struct Results<'a> {
    /// The folder.
    pub dir: &'a Path,
    /// Which files.
    pub files: &'a [OutputFile],
    /// What becomes of an earlier run's.
    pub earlier: Earlier,
}

/// What becomes of the files of an earlier run that no checkpoint goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// They are not touched; the run is refused.
    Kept,
    /// They are replaced, as was asked for.
    Replaced,
    /// They are replaced, since the input can be read again; but not where damaged checkpoints show that they were
    /// to be gone on with.
    Repeated,
}

/// What a checkpoint knows besides the engine.
#[derive(Default, Serialize, Deserialize)]
struct Companion {
    lengths: BTreeMap<String, u64>,
    tallies: Tallies,
    /// Offset at which each log was begun, by log.
    #[serde(default)]
    starts: Vec<u64>,
    #[serde(default)]
    aside: Aside,
}

/// The driver of one engine.
pub struct Driver {
    engine: Engine,
    files: Option<FileSink>,
    outlets: Vec<Box<dyn Outlet>>,
    checkpoints: Option<Checkpoints>,
    every: Duration,
    last: Instant,
    clock: StageClock,
    tallies: Tallies,
    starts: Vec<u64>,
    aside: Aside,
    /// The first refused record of each log, in words, and whether it was warned of.
    useless: Vec<(Option<String>, bool)>,
    output: Output,
    delays: Option<Delays>,
}

/// How long after the end of a pane its states were told, in wall time.
struct Delays {
    now: fn() -> EventTime,
    ms: Histogram<u64>,
}

impl Delays {
    fn summary(&self) -> serde_json::Value {
        let at = |q: f64| self.ms.value_at_quantile(q);
        serde_json::json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": self.ms.max() })
    }
}

impl Driver {
    /// Drives `engine`. With `state`, goes on from the newest checkpoint there and keeps one every `every`.
    /// With `out`, writes files there.
    ///
    /// # Errors
    /// Which folder, file or checkpoint cannot be used.
    pub fn new(
        mut engine: Engine,
        out: Option<Results<'_>>,
        outlets: Vec<Box<dyn Outlet>>,
        state: Option<&Path>,
        every: Duration,
    ) -> Result<Self> {
        let mut companion = Companion::default();
        let checkpoints = state.map(Checkpoints::open).transpose()?;
        let mut restored = false;
        if let Some(store) = &checkpoints
            && let Some(bytes) = store.restore(&mut engine)?
        {
            companion = serde_json::from_slice(&bytes).context("the checkpoint's companion")?;
            restored = true;
        }
        let damaged = !restored && checkpoints.as_ref().is_some_and(Checkpoints::holds_any);
        let open = |out: Results<'_>| {
            let begin = match out.earlier {
                _ if restored => Begin::At(&companion.lengths),
                Earlier::Replaced => Begin::Anew,
                Earlier::Repeated if !damaged => Begin::Anew,
                _ if damaged => Begin::InEmpty(
                    "none of the checkpoints that would go on with it can be used: to start anew, move it away, \
                     or name other folders",
                ),
                _ => Begin::InEmpty(
                    "go on with it by --state and the folder of its checkpoints, replace it by --overwrite, or \
                     name another folder",
                ),
            };
            FileSink::open(out.dir, out.files, begin)
        };
        let files = out.map(open).transpose()?;
        let logs = engine.logs();
        let mut driver = Self {
            engine,
            files,
            outlets,
            checkpoints,
            every,
            last: Instant::now(),
            clock: StageClock::default(),
            tallies: companion.tallies,
            starts: companion.starts,
            aside: companion.aside,
            useless: vec![(None, false); logs],
            output: Output::default(),
            delays: None,
        };
        if !restored {
            // A run that ends before its first checkpoint is due must find its files to be its own.
            driver.checkpoint()?;
        }
        Ok(driver)
    }

    /// Measures the delay between the end of a pane and its states on the clock `now`; only where events come
    /// as they happen does that mean anything.
    #[must_use]
    pub fn timed(mut self, now: fn() -> EventTime) -> Self {
        // 1 ms to an hour with three digits: 106 KB.
        self.delays = Histogram::new_with_bounds(1, 3_600_000, 3)
            .ok()
            .map(|ms| Delays { now, ms });
        self
    }

    /// The engine, at rest between batches.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Time by stage.
    pub fn clock(&self) -> &StageClock {
        &self.clock
    }

    /// Counts of what was told.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// The offset to go on from, by log: behind the last record taken, or where the log was begun. `starts`
    /// says where to begin if no checkpoint did; a log that has had no record yet must not begin elsewhere
    /// after a restart, or what came meanwhile would be left out.
    pub fn resume(&mut self, starts: Vec<u64>) -> Vec<u64> {
        if self.starts.len() != starts.len() {
            self.starts = starts;
        }
        let begun = self.starts.iter().enumerate();
        begun
            .map(|(log, start)| self.engine.next_offset(log as LogIndex).max(*start))
            .collect()
    }

    /// Holds panes open (see [`Engine::hold`]); their release tells what has become complete meanwhile.
    ///
    /// # Errors
    /// What could not be written or delivered.
    pub fn hold(&mut self, held: bool) -> Result<()> {
        self.engine.hold(held);
        if held {
            Ok(())
        } else {
            self.take(&Batch::default())
        }
    }

    /// What is due by the clock while nothing comes.
    ///
    /// # Errors
    /// What could not be delivered.
    pub fn tick(&mut self) -> Result<()> {
        for outlet in &mut self.outlets {
            outlet.tick(&self.engine);
        }
        self.checkpoint_if_due()
    }

    /// Works through a batch and hands on what follows from it.
    ///
    /// # Errors
    /// What could not be written or delivered.
    pub fn take(&mut self, batch: &Batch) -> Result<()> {
        let mut more = self.step(batch)?;
        while more {
            more = self.step(&Batch::default())?;
        }
        self.checkpoint_if_due()
    }

    /// Takes a batch and hands on what follows from it. Whether more panes are due, for an empty batch.
    fn step(&mut self, batch: &Batch) -> Result<bool> {
        let more = self
            .engine
            .step_some(batch, PANES_AT_ONCE, &mut self.output, &mut self.clock);
        self.clock.enter(Some(Stage::Publish));
        self.watch(batch);
        self.tally();
        let lines = self.files.as_ref().map_or(0, FileSink::lines);
        let samples = self.write(batch)?;
        for outlet in &mut self.outlets {
            outlet.take(&self.engine, batch, &self.output)?;
        }
        self.clock.enter(None);
        if let Some(delays) = &mut self.delays {
            for closed in &self.output.closed {
                let delay = (delays.now)().since(closed.end).max(1);
                delays.ms.saturating_record(delay.unsigned_abs());
            }
        }
        let account = Account {
            spent: self.clock.lap(),
            lines: self.files.as_ref().map(|files| files.lines() - lines),
            samples,
        };
        for outlet in &mut self.outlets {
            outlet.account(&account);
        }
        self.output.clear();
        Ok(more)
    }

    /// Keeps a checkpoint if the last one is old enough.
    ///
    /// # Errors
    /// What could not be delivered.
    pub fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.checkpoints.is_some() && self.last.elapsed() >= self.every {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Keeps a checkpoint now, if there is a place for it.
    ///
    /// # Errors
    /// What could not be delivered; a checkpoint that cannot be written is a warning, since the one before
    /// still serves.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.last = Instant::now();
        for outlet in &mut self.outlets {
            outlet.settle()?;
        }
        let lengths = match &mut self.files {
            Some(files) => files.flush(self.checkpoints.is_some())?,
            None => BTreeMap::new(),
        };
        let Some(store) = &mut self.checkpoints else {
            return Ok(());
        };
        let companion = Companion {
            lengths,
            tallies: self.tallies.clone(),
            starts: self.starts.clone(),
            aside: self.aside.clone(),
        };
        let bytes = self.engine.checkpoint(&serde_json::to_vec(&companion)?);
        if let Err(error) = store.keep(&bytes) {
            tracing::error!(%error, "no checkpoint was kept; the one before still serves");
        }
        Ok(())
    }

    fn tally(&mut self) {
        for closed in &self.output.closed {
            self.tallies.panes += 1;
            for alert in &closed.assessment.alerts {
                match alert.transition {
                    Transition::Opened => self.tallies.alerts_opened += 1,
                    Transition::Resolved => self.tallies.alerts_resolved += 1,
                    Transition::Updated => {}
                }
            }
        }
        for publication in &self.output.publications {
            *self
                .tallies
                .published
                .entry(name(publication.topic).to_owned())
                .or_default() += 1;
        }
    }

    /// Writes the files of the run; returns how many refused records are among it.
    fn write(&mut self, batch: &Batch) -> Result<Samples> {
        let Some(files) = &mut self.files else {
            return Ok(Samples::default());
        };
        for publication in &self.output.publications {
            files.publish(publication)?;
        }
        for closed in &self.output.closed {
            let line = serde_json::json!({ "pane_end": closed.end.to_string(), "digest": closed.digest.to_string() });
            files.line(OutputFile::Digests, line.to_string().as_bytes())?;
        }
        if files.holds(OutputFile::Turns) {
            for turn in &self.output.turns {
                files.line(OutputFile::Turns, &turn_json(self.engine.network(), turn))?;
            }
        }
        for placed in self.output.matches.drain(..) {
            self.aside.place(placed);
        }
        for refusal in &self.output.refused {
            self.aside.refuse(refusal, || {
                // Others may have come with this batch or an earlier one, which must not show.
                let record = refusal.at_once.then(|| refused(batch, refusal)).flatten();
                let payload = record.map(|r| r.value);
                let why = payload.and_then(|p| explain(&self.engine, refusal, p));
                let log = self.engine.log_name(refusal.log);
                sample(log, refusal, payload, why).to_string()
            });
        }
        self.write_aside(self.engine.told())
    }

    /// Writes what was told beside the panes before `told`. Counts the refused records written.
    fn write_aside(&mut self, told: PaneIndex) -> Result<Samples> {
        let mut samples = Samples::default();
        let Some(files) = &mut self.files else {
            return Ok(samples);
        };
        let leaving = self.aside.leave(told);
        for line in leaving.placed {
            files.line(OutputFile::Matches, line.as_bytes())?;
        }
        for (log, reason, line) in leaving.refused {
            let before = files.lines();
            files.line(OutputFile::Rejected, line.as_bytes())?;
            *samples.entry((log, reason)).or_default() += files.lines() - before;
        }
        Ok(samples)
    }

    /// Warns of logs of which no record could be used: most often their records have another shape than thought.
    fn watch(&mut self, batch: &Batch) {
        for refusal in &self.output.refused {
            let (example, _) = &mut self.useless[usize::from(refusal.log)];
            if example.is_none() {
                let record = refusal.at_once.then(|| refused(batch, refusal)).flatten();
                let why = record.and_then(|r| explain(&self.engine, refusal, r.value));
                let payload = record.map_or(&[][..], |r| &r.value[..r.value.len().min(EXAMPLE_BYTES_MAX)]);
                *example = Some(format!(
                    "record {} was refused as `{}`{}: {}",
                    refusal.offset,
                    refusal.reason.label(),
                    why.map_or_else(String::new, |w| format!(" ({})", w.detail)),
                    String::from_utf8_lossy(payload)
                ));
            }
        }
        self.warn(USELESS);
    }

    /// Warns of logs of which at least `read` records were read and none could be used.
    fn warn(&mut self, read: u64) {
        for (log, (example, warned)) in self.useless.iter_mut().enumerate() {
            let counts = self.engine.log_counts(log as LogIndex);
            if !*warned && counts.used == 0 && counts.read >= read {
                *warned = true;
                tracing::warn!(
                    log = self.engine.log_name(log as LogIndex),
                    read = counts.read,
                    "no record of this log could be used, {}; does its shape fit (--preset, or `preset` and \
                     [source.fields] of the source)?",
                    example.as_deref().unwrap_or("all were refused")
                );
            }
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// What could not be written or delivered.
    pub fn finish(&mut self) -> Result<()> {
        self.warn(1);
        if self.checkpoints.is_none() {
            // Nothing goes on from here.
            self.write_aside(PaneIndex::MAX)?;
        }
        self.checkpoint()
    }

    /// Asserts that a run over files was of use.
    ///
    /// # Errors
    /// Records were read and none could be used.
    pub fn of_use(&self) -> Result<()> {
        let counts = self.engine.counts();
        if counts.read > 0 && counts.used == 0 {
            let example = self.useless.iter().find_map(|(example, _)| example.as_deref());
            bail!(
                "none of the {} records could be used: {}; check --preset, or `preset` and [source.fields] of the \
                 source",
                counts.read,
                example.unwrap_or("all were refused")
            );
        }
        Ok(())
    }

    /// The summary of the run, as in interfaces §3.
    pub fn summary(&self, config_hash: &str, elapsed: Duration, threads: usize) -> serde_json::Value {
        let counts = self.engine.counts();
        let locate = self.engine.locate_counts();
        let (digest, end) = self.engine.digest();
        let rejected: serde_json::Map<_, _> = Rejection::ALL
            .iter()
            .filter(|r| counts.rejected[**r as usize] > 0)
            .map(|r| (r.label().to_owned(), counts.rejected[*r as usize].into()))
            .collect();
        let segments: serde_json::Map<_, _> = self
            .engine
            .segments_by_basis()
            .into_iter()
            .map(|(basis, n)| (basis.label().to_owned(), n.into()))
            .collect();
        let seconds = elapsed.as_secs_f64();
        serde_json::json!({
            "digest": digest.to_string(),
            "pane_end": end.map(|e| e.to_string()),
            "map_version": self.engine.map_version(),
            "config_hash": config_hash,
            "records": {
                "read": counts.read, "used": counts.used, "rejected": rejected, "control": counts.control,
                "waiting": self.engine.waiting(),
            },
            "located": {
                "matched": locate.matched - locate.ambiguous, "ambiguous": locate.ambiguous, "off_road": locate.off_road,
                "broken_steps": locate.broken, "implausible_steps": locate.implausible,
                "overtaken_ms": locate.overtaken_ms,
                "stood_ms": self.engine.standing_times(),
                "vehicles": self.engine.vehicles(),
            },
            "segments": segments,
            "panes": self.tallies.panes,
            "published": self.tallies.published,
            "alerts": {
                "opened": self.tallies.alerts_opened, "resolved": self.tallies.alerts_resolved,
                "open": self.engine.assess().open_alerts().count(),
            },
            "elapsed_s": seconds,
            "records_per_s": if seconds > 0.0 { (counts.read as f64 / seconds).round() } else { 0.0 },
            "threads": threads,
            "peak_rss_bytes": peak_rss_bytes(),
            "stage_s": self.clock.seconds(),
            "latency_ms": { "event_to_state": self.delays.as_ref().map(Delays::summary) },
        })
    }
}

/// What a topic is called in tallies.
fn name(topic: Topic) -> &'static str {
    match topic {
        Topic::SegmentState => "segment_state",
        Topic::Corridor => "corridor",
        Topic::Region => "region",
        Topic::AlertEvent => "alert_event",
        Topic::AlertState => "alert_state",
    }
}

/// A refused record, if it came with this batch.
pub fn refused<'b>(batch: &'b Batch, refusal: &Refusal) -> Option<Record<'b>> {
    // Offsets of one log grow within a batch, logs may be mixed.
    batch
        .iter()
        .find(|r| r.log == refusal.log && r.offset == refusal.offset && !r.control)
}

/// What the decoder has to say of a refused record; `None` if it was refused for what other records say.
pub fn explain(engine: &Engine, refusal: &Refusal, payload: &[u8]) -> Option<Explanation> {
    let why = engine.decoder(refusal.log).explain(payload)?;
    (why.reason == refusal.reason).then_some(why)
}

fn sample(
    log: &str,
    refusal: &Refusal,
    payload: Option<&[u8]>,
    why: Option<Explanation>,
) -> serde_json::Value {
    let cut = payload.map(|p| &p[..p.len().min(SAMPLE_BYTES_MAX)]);
    serde_json::json!({
        "log": log,
        "offset": refusal.offset,
        "reason": refusal.reason.label(),
        "field": why.as_ref().and_then(|w| w.field).map(Field::label),
        "detail": why.map(|w| w.detail),
        "bytes": payload.map(<[u8]>::len),
        "payload": cut.map(|p| String::from_utf8_lossy(p)),
    })
}

/// Greatest resident memory so far (Linux: `VmHWM`), `None` where the system does not tell it.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
