use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::{Batch, LogIndex};
use crate::aggregate::{self, Aggregate, PaneFlow, StandingTimes, TurnFlow};
use crate::assess::{self, Assess, Assessment, Basis, Due, Places, Profile};
use crate::baseline::{Baseline, Travel};
use crate::ingest::{
    self, Control, Counts, Decoded, Decoder, Event, Feed, Ingest, Rejection, Released, SubjectKey,
};
use crate::locate::{
    self, Contribution, Locate, LocateCounts, Located, Occurrence, PaneIndex, Passage, Reading, Sites,
};
use crate::network::Network;
use crate::publish::{self, Digest, Publication, Publish};
use crate::units::EventTime;

/// The five stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Decode, guard, order.
    Ingest,
    /// Match to the road.
    Locate,
    /// Panes and windows.
    Aggregate,
    /// States, indices, alerts.
    Assess,
    /// Digest and encoding.
    Publish,
}

impl Stage {
    /// All stages in the order of the data.
    pub const ALL: [Stage; 5] = [
        Stage::Ingest,
        Stage::Locate,
        Stage::Aggregate,
        Stage::Assess,
        Stage::Publish,
    ];

    /// The word in metrics, spans, configuration and docs.
    pub const fn label(self) -> &'static str {
        match self {
            Stage::Ingest => "ingest",
            Stage::Locate => "locate",
            Stage::Aggregate => "aggregate",
            Stage::Assess => "assess",
            Stage::Publish => "publish",
        }
    }
}

/// Told when a stage begins and when the last one ends: the core itself never asks the time.
pub trait Stopwatch {
    /// `stage` begins; `None` when a batch is done.
    fn enter(&mut self, stage: Option<Stage>);
}

impl Stopwatch for () {
    fn enter(&mut self, _: Option<Stage>) {}
}

/// An input log as the engine knows it.
#[derive(Clone, Debug)]
pub struct LogSpec {
    /// Name for people: `topic/partition` or a file.
    pub name: String,
    /// Whose log it is: the topic of a partition, the file itself. A vehicle must keep to one log of a source.
    pub source: String,
    /// How its records are decoded.
    pub decoder: Arc<Decoder>,
    /// What it reports.
    pub feed: Feed,
    /// Lanes that its records are dealt to by id: 1 for a Kafka partition.
    pub lanes: u16,
    /// How far behind the greatest event time a record is still taken, in ms.
    pub lateness_ms: i64,
    /// Guards.
    pub settings: ingest::Settings,
}

/// Everything that an engine is made of.
#[derive(Debug)]
pub struct Setup {
    /// The road network.
    pub network: Arc<Network>,
    /// Free-flow and usual speeds on it.
    pub baseline: Arc<Baseline>,
    /// Sensor sites.
    pub sites: Arc<Sites>,
    /// Regions and corridors.
    pub places: Arc<Places>,
    /// Graded scale.
    pub profile: Arc<Profile>,
    /// Settings of the stages.
    pub locate: locate::Settings,
    /// See `locate`.
    pub aggregate: aggregate::Settings,
    /// See `locate`.
    pub assess: assess::Settings,
    /// See `locate`.
    pub publish: publish::Settings,
    /// Input logs; their places are their [`LogIndex`].
    pub logs: Vec<LogSpec>,
    /// Threads that work on a batch, at least 1.
    pub threads: usize,
    /// Give on where each fix was placed.
    pub observe: bool,
    /// Hash of all configuration that can change results, checked when a checkpoint is restored.
    pub config_hash: [u8; 32],
}

/// A record that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Its log.
    pub log: LogIndex,
    /// Its place there.
    pub offset: u64,
    /// Why.
    pub reason: Rejection,
    /// Its place in time: the pane that was being worked on when it was refused, the same however records are
    /// dealt into batches. All of one pane have been told once [`Engine::told`] has passed it.
    pub pane: PaneIndex,
    /// Whether it was refused when it was read, so that it stands in the batch at hand.
    pub at_once: bool,
}

/// Where a position was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its place in time, as that of a [`Refusal`].
    pub pane: PaneIndex,
    /// Its log.
    pub log: LogIndex,
    /// Its place there.
    pub offset: u64,
    /// A line of `matches.ndjson`.
    pub line: Vec<u8>,
}

/// A record that was decoded, for figures (see [`Engine::measured`]). It may still be refused later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its log.
    pub log: LogIndex,
    /// Vehicle or sensor.
    pub subject: SubjectKey,
    /// Last moment that it speaks of: of the fix, or the millisecond before the interval's end.
    pub time: EventTime,
    /// Time given to it by the log.
    pub append_time: Option<EventTime>,
}

/// A pane that was closed.
#[derive(Clone, Debug)]
pub struct ClosedPane {
    /// Its end.
    pub end: EventTime,
    /// The chain up to it.
    pub digest: Digest,
    /// What was said of it.
    pub assessment: Assessment,
}

/// What a batch gives.
#[derive(Debug, Default)]
pub struct Output {
    /// For the world, in order.
    pub publications: Vec<Publication>,
    /// Records refused while this batch was taken (some came with earlier batches).
    pub refused: Vec<Refusal>,
    /// Where positions were placed, if observed (some came with earlier batches).
    pub matches: Vec<Placed>,
    /// Panes closed, in order.
    pub closed: Vec<ClosedPane>,
    /// Turns of the blocks of time that ended, in order of time, then segments.
    pub turns: Vec<TurnFlow>,
    /// Records taken behind the greatest event time of their log, by log; logs without any are left out.
    pub behind: Vec<(LogIndex, u64)>,
    /// Records decoded, if measured.
    pub seen: Vec<Seen>,
    /// Distance from each fix placed to its place on the road in mm, if measured.
    pub distances_mm: Vec<u32>,
    /// What was driven in each closed pane, in order of pane and shard, if learning.
    pub travel: Vec<Travel>,
}

impl Output {
    /// Empties it, keeping its memory for the next batch.
    pub fn clear(&mut self) {
        let Self {
            publications,
            refused,
            matches,
            closed,
            turns,
            behind,
            seen,
            distances_mm,
            travel,
        } = self;
        publications.clear();
        refused.clear();
        matches.clear();
        closed.clear();
        turns.clear();
        behind.clear();
        seen.clear();
        distances_mm.clear();
        travel.clear();
    }
}

#[derive(Debug)]
pub(super) struct Log {
    pub(super) spec: LogSpec,
    pub(super) ingest: Ingest,
    /// Source and partition for the watch over keying; `None` for the only log of a source.
    keyed: Option<(u16, u16)>,
}

#[derive(Debug)]
pub(super) struct Lane {
    log: LogIndex,
    pub(super) locate: Locate,
    inbox: Vec<Event>,
    located: Located,
    /// What was told up to the end of each pane worked on.
    marks: Vec<Mark>,
}

/// Up to here, matches and refusals of a lane belong to a pane, or one before it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    pane: PaneIndex,
    matches: usize,
    refused: usize,
}

impl Lane {
    /// Takes the events of its inbox, all before `to`, the new watermark of its log after `from`.
    ///
    /// Goes from pane to pane of event time, so that the pane in which something was told is the same however
    /// records are dealt into batches. `settle_ms` is how long after an event its last decision may come.
    fn run(&mut self, from: Option<EventTime>, to: Option<EventTime>, pane_ms: i64, settle_ms: i64) {
        let pane_of = |time: EventTime| time.ms().div_euclid(pane_ms);
        let mut events = std::mem::take(&mut self.inbox);
        let Some(to) = to else { return };
        let mut now = from.map(pane_of);
        while let Some(pane) = events.first().map(|e| pane_of(e.time())) {
            self.pass(&mut now, pane, pane_ms, settle_ms);
            let rest = events.split_off(events.partition_point(|e| pane_of(e.time()) <= pane));
            self.locate.run(events, None, &mut self.located);
            self.mark(pane);
            events = rest;
        }
        if to.ms() < i64::MAX {
            self.pass(&mut now, pane_of(to), pane_ms, settle_ms);
        }
        self.locate.run(events, Some(to), &mut self.located);
        self.mark(pane_of(to));
    }

    /// Ends the panes from `now` up to `pane`: decisions that wait are due in them.
    fn pass(&mut self, now: &mut Option<PaneIndex>, pane: PaneIndex, pane_ms: i64, settle_ms: i64) {
        if let Some(now) = *now {
            // Behind the last decision that can be due there is nothing to be done pane by pane.
            let last = now.saturating_add(settle_ms / pane_ms + 2).min(pane);
            for passed in now..last {
                let end = EventTime::from_ms((passed + 1) * pane_ms);
                self.locate.run(Vec::new(), Some(end), &mut self.located);
                self.mark(passed);
            }
        }
        *now = Some(pane);
    }

    fn mark(&mut self, pane: PaneIndex) {
        self.marks.push(Mark {
            pane,
            matches: self.located.matches.len(),
            refused: self.located.refused.len(),
        });
    }
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) aggregate: Aggregate,
    contributions: Vec<Contribution>,
    passages: Vec<Passage>,
    readings: Vec<Reading>,
    occurrences: Vec<Occurrence>,
}

/// The engine: one per process.
#[derive(Debug)]
pub struct Engine {
    network: Arc<Network>,
    pub(super) baseline: Arc<Baseline>,
    pub(super) config_hash: [u8; 32],
    pub(super) logs: Vec<Log>,
    pub(super) lanes: Vec<Lane>,
    pub(super) shards: Vec<Shard>,
    pub(super) assess: Assess,
    pub(super) publish: Publish,
    /// The pane to close next, once one was closed.
    pub(super) next: Option<PaneIndex>,
    /// Ids of the sensors, and of the vehicles seen, if observed.
    pub(super) names: BTreeMap<SubjectKey, Box<str>>,
    /// Closes no pane while set; see [`Engine::hold`].
    held: bool,
    /// Gives figures in place of lines; see [`Engine::measured`].
    measured: bool,
    /// Gives what baselines are made of; see [`Engine::learning`].
    learning: bool,
    pane_ms: i64,
    settle_ms: i64,
    pool: Option<rayon::ThreadPool>,
}

impl Engine {
    /// An engine that has read nothing yet.
    ///
    /// # Panics
    /// If the threads cannot be started.
    pub fn new(setup: Setup) -> Self {
        let pane_ms = i64::from(setup.aggregate.pane_s) * 1000;
        let window_ms = i64::from(setup.aggregate.window_s) * 1000;
        let mut lanes = Vec::new();
        for (log, spec) in setup.logs.iter().enumerate() {
            for _ in 0..spec.lanes.max(1) {
                lanes.push(Lane {
                    log: log as LogIndex,
                    locate: Locate::new(
                        setup.locate.clone(),
                        Arc::clone(&setup.network),
                        Arc::clone(&setup.sites),
                        spec.feed,
                        pane_ms,
                        setup.observe,
                    ),
                    inbox: Vec::new(),
                    located: Located::default(),
                    marks: Vec::new(),
                });
            }
        }
        let shards = (0..setup.aggregate.shards.max(1))
            .map(|_| Shard {
                aggregate: Aggregate::new(
                    &setup.aggregate,
                    Arc::clone(&setup.network),
                    Arc::clone(&setup.baseline),
                ),
                contributions: Vec::new(),
                passages: Vec::new(),
                readings: Vec::new(),
                occurrences: Vec::new(),
            })
            .collect();
        let pool = (setup.threads > 1).then(|| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(setup.threads)
                .thread_name(|i| format!("core-{i}"))
                .build()
                .expect("the operating system starts a handful of threads")
        });
        let settle_ms = i64::from(setup.locate.settle_s) * 1000;
        let network = setup.network;
        let (sources, keyed) = partitioned(&setup.logs);
        Self {
            config_hash: setup.config_hash,
            logs: setup
                .logs
                .into_iter()
                .zip(keyed)
                .map(|(spec, keyed)| Log {
                    ingest: Ingest::new(spec.settings.clone(), spec.lateness_ms),
                    spec,
                    keyed,
                })
                .collect(),
            lanes,
            shards,
            assess: Assess::new(
                Arc::clone(&network),
                Arc::clone(&setup.baseline),
                setup.assess,
                Arc::clone(&setup.profile),
                Arc::clone(&setup.places),
                (pane_ms, window_ms),
                sources,
            ),
            publish: Publish::new(
                Arc::clone(&network),
                &setup.baseline,
                setup.places,
                setup.profile,
                setup.publish,
            ),
            baseline: setup.baseline,
            next: None,
            names: setup.sites.ids.clone(),
            held: false,
            measured: false,
            learning: false,
            pane_ms,
            settle_ms,
            pool,
            network,
        }
    }

    /// Gives [`Output::seen`] and, if it was made to observe, [`Output::distances_mm`] in place of the lines of
    /// `matches.ndjson`: what metrics are made of. Results are the same.
    #[must_use]
    pub fn measured(mut self) -> Self {
        self.measured = true;
        self
    }

    /// Gives [`Output::travel`], from which a baseline is made. Results are the same.
    #[must_use]
    pub fn learning(mut self) -> Self {
        self.learning = true;
        self
    }

    /// Works through a batch. All that follows from it stands in `out`, which is not cleared.
    ///
    /// # Panics
    /// If a law of the design is broken (an offset read twice, a pane closed twice): the log makes a restart
    /// safe, going on does not.
    pub fn step(&mut self, batch: &Batch, out: &mut Output, watch: &mut impl Stopwatch) {
        self.step_some(batch, usize::MAX, out, watch);
    }

    /// As [`Engine::step`], but closes at most `panes` panes, so that what a batch gives stays small however much
    /// time passes in it. `true` if more are due: they are closed by an empty batch, which must come next.
    pub fn step_some(
        &mut self,
        batch: &Batch,
        panes: usize,
        out: &mut Output,
        watch: &mut impl Stopwatch,
    ) -> bool {
        watch.enter(Some(Stage::Ingest));
        let before: Vec<_> = self.logs.iter().map(|l| l.ingest.watermark()).collect();
        let decoded = self.decode(batch);
        self.ingest(batch, decoded, out);
        watch.enter(Some(Stage::Locate));
        self.locate(&before, out);
        watch.enter(Some(Stage::Aggregate));
        self.gather();
        let more = self.close(panes, out, watch);
        watch.enter(None);
        more
    }

    /// While held, records are counted, located and booked, but no pane closes, so nothing is told: for a
    /// process that does not own every partition. The first batch after the hold closes what has become
    /// complete meanwhile; when a pane closes changes nothing of what is said of it.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    fn decode(&self, batch: &Batch) -> Vec<Option<Result<Decoded, Rejection>>> {
        let one = |i: usize| {
            let record = batch.record(i);
            (!record.control).then(|| {
                self.logs[usize::from(record.log)]
                    .spec
                    .decoder
                    .decode(record.value, record.offset)
            })
        };
        match &self.pool {
            Some(pool) => pool.install(|| {
                (0..batch.len())
                    .into_par_iter()
                    .with_min_len(256)
                    .map(one)
                    .collect()
            }),
            None => (0..batch.len()).map(one).collect(),
        }
    }

    fn ingest(&mut self, batch: &Batch, decoded: Vec<Option<Result<Decoded, Rejection>>>, out: &mut Output) {
        let mut released: Vec<Released> = self.logs.iter().map(|_| Released::default()).collect();
        for (n, (record, decoded)) in batch.iter().zip(decoded).enumerate() {
            let i = usize::from(record.log);
            let log = &mut self.logs[i];
            match decoded {
                None if batch.is_journalled(n) => log.ingest.journalled(Control::parse(record.value)),
                None => log.ingest.control(record.offset, Control::parse(record.value)),
                Some(Ok(Decoded { event, id })) => {
                    if let Some(id) = id {
                        self.names.insert(event.subject(), id);
                    }
                    if self.measured {
                        out.seen.push(Seen {
                            log: record.log,
                            subject: event.subject(),
                            time: match &event {
                                Event::Probe(fix) => fix.time,
                                Event::Measurement(interval) => interval.time.plus_ms(-1),
                            },
                            append_time: record.append_time,
                        });
                    }
                    log.ingest
                        .push(record.offset, record.append_time, Ok(event), &mut released[i]);
                }
                Some(Err(reason)) => {
                    log.ingest
                        .push(record.offset, record.append_time, Err(reason), &mut released[i]);
                }
            }
        }
        for &log in batch.ended() {
            let i = usize::from(log);
            self.logs[i].ingest.end(&mut released[i]);
        }
        let mut lane = 0;
        for (i, (log, mut released)) in self.logs.iter_mut().zip(released).enumerate() {
            log.ingest.release(&mut released);
            if released.behind > 0 {
                out.behind.push((i as LogIndex, released.behind));
            }
            out.refused.extend(released.refused.into_iter().map(|refused| {
                Refusal {
                    log: i as LogIndex,
                    offset: refused.offset,
                    reason: refused.reason,
                    pane: refused
                        .at
                        .map_or(PaneIndex::MIN, |t| t.ms().div_euclid(self.pane_ms)),
                    at_once: refused.at_once,
                }
            }));
            let lanes = usize::from(log.spec.lanes.max(1));
            for event in released.events {
                let k = (event.subject().0 % lanes as u64) as usize;
                self.lanes[lane + k].inbox.push(event);
            }
            lane += lanes;
        }
    }

    /// Locates what was released. `before` are the watermarks of the logs before this batch.
    fn locate(&mut self, before: &[Option<EventTime>], out: &mut Output) {
        let (logs, pane_ms, settle_ms) = (&self.logs, self.pane_ms, self.settle_ms);
        let run = |lane: &mut Lane| {
            let log = usize::from(lane.log);
            lane.run(before[log], logs[log].ingest.watermark(), pane_ms, settle_ms);
        };
        match &self.pool {
            Some(pool) => pool.install(|| self.lanes.par_iter_mut().for_each(run)),
            None => self.lanes.iter_mut().for_each(run),
        }
        for lane in &mut self.lanes {
            let (located, marks) = (&mut lane.located, &lane.marks);
            let pane_at = |passed: &dyn Fn(&Mark) -> bool| marks[marks.partition_point(passed)].pane;
            for (i, (offset, reason)) in located.refused.drain(..).enumerate() {
                self.logs[usize::from(lane.log)]
                    .ingest
                    .counts_mut()
                    .refuse(reason);
                out.refused.push(Refusal {
                    log: lane.log,
                    offset,
                    reason,
                    pane: pane_at(&|mark| mark.refused <= i),
                    at_once: false,
                });
            }
            for (i, m) in located.matches.drain(..).enumerate() {
                if self.measured {
                    out.distances_mm
                        .extend(m.place.ok().map(|place| place.distance_mm));
                    continue;
                }
                let id = self.names.get(&m.vehicle).map_or("", |id| id);
                out.matches.push(Placed {
                    pane: pane_at(&|mark| mark.matches <= i),
                    log: lane.log,
                    offset: m.offset,
                    line: publish::match_json(&self.network, id, &m),
                });
            }
            lane.marks.clear();
            match self.logs[usize::from(lane.log)].keyed {
                Some((source, partition)) if !located.sightings.is_empty() => {
                    self.assess
                        .sighted(source, partition, located.sightings.drain(..));
                }
                _ => located.sightings.clear(),
            }
        }
    }

    /// Hands what the lanes located to the shards, links of one shard together.
    fn gather(&mut self) {
        let n = self.shards.len() as u64;
        let shard_of = |segment| (u64::from(self.network.segment(segment).link) % n) as usize;
        for lane in &mut self.lanes {
            for c in lane.located.contributions.drain(..) {
                self.shards[shard_of(c.segment)].contributions.push(c);
            }
            for p in lane.located.passages.drain(..) {
                self.shards[shard_of(p.segment)].passages.push(p);
            }
            for r in lane.located.readings.drain(..) {
                self.shards[shard_of(r.segment)].readings.push(r);
            }
            for o in lane.located.occurrences.drain(..) {
                self.shards[shard_of(o.segment)].occurrences.push(o);
            }
        }
        let take = |shard: &mut Shard| {
            for c in shard.contributions.drain(..) {
                shard.aggregate.contribute(&c);
            }
            for p in shard.passages.drain(..) {
                shard.aggregate.pass(&p);
            }
            for r in shard.readings.drain(..) {
                shard.aggregate.read(r);
            }
            for o in shard.occurrences.drain(..) {
                shard.aggregate.observe(&o);
            }
        };
        match &self.pool {
            Some(pool) => pool.install(|| self.shards.par_iter_mut().for_each(take)),
            None => self.shards.iter_mut().for_each(take),
        }
    }

    /// Closes the panes that all lanes have promised to be complete, at most `panes`. Whether there are more.
    fn close(&mut self, panes: usize, out: &mut Output, watch: &mut impl Stopwatch) -> bool {
        if self.held {
            return false;
        }
        let Some(bound) = self.closable() else {
            return false;
        };
        let mut closed = 0;
        loop {
            let Some(pane) = self.due().filter(|p| *p < bound) else {
                return false;
            };
            if closed == panes {
                return true;
            }
            closed += 1;
            let disbelieved = self.assess.faulty_sensors();
            let close = |shard: &mut Shard| shard.aggregate.close(pane, disbelieved);
            let mut flows: Vec<PaneFlow> = match &self.pool {
                Some(pool) => pool.install(|| self.shards.par_iter_mut().map(close).collect()),
                None => self.shards.iter_mut().map(close).collect(),
            };
            let mut turns: Vec<_> = flows.iter_mut().flat_map(|f| f.turns.drain(..)).collect();
            turns.sort_unstable_by_key(|t| (t.begin, t.from, t.to));
            out.turns.append(&mut turns);
            if self.learning {
                out.travel
                    .extend(self.shards.iter().flat_map(|s| s.aggregate.travel()));
            }
            watch.enter(Some(Stage::Assess));
            let assessment = self.assess.step(pane, flows, &self.names);
            watch.enter(Some(Stage::Publish));
            self.publish.step(&assessment, &mut out.publications);
            let (digest, _) = self.publish.digest();
            out.closed.push(ClosedPane {
                end: EventTime::from_ms((pane + 1) * self.pane_ms),
                digest,
                assessment,
            });
            self.next = Some(pane + 1);
            watch.enter(Some(Stage::Aggregate));
        }
    }

    /// The next pane to close, as far as is known. Panes that can change nothing are passed over: a stretch
    /// without data costs what is still to be said in it, however long it is. What is passed over follows from
    /// the state and the data alone, so that it is the same however records are dealt into batches.
    fn due(&self) -> Option<PaneIndex> {
        let data = self.shards.iter().filter_map(|s| s.aggregate.first_open()).min();
        let Some(next) = self.next else { return data };
        if !self.shards.iter().all(|s| s.aggregate.quiet()) {
            return Some(next);
        }
        match self.assess.due() {
            Due::Next => Some(next),
            Due::At(time) => {
                // The first pane that ends then or later.
                let pane = (time.ms() - 1).div_euclid(self.pane_ms).max(next);
                Some(data.map_or(pane, |d| d.min(pane)))
            }
            Due::Never => data,
        }
    }

    /// The first pane that may not be closed yet.
    fn closable(&self) -> Option<PaneIndex> {
        let promised = |lane: &Lane| {
            let promised = lane.locate.promised()?;
            let feed = self.logs[usize::from(lane.log)].spec.feed;
            // An interval that ends at the watermark is still to come, and belongs to the pane before.
            let behind = i64::from(feed == Feed::Sensor && promised.ms() < i64::MAX);
            Some(promised.plus_ms(-behind))
        };
        let promised = self.lanes.iter().map(promised).min().flatten()?;
        if promised.ms() < i64::MAX {
            return Some(promised.ms().div_euclid(self.pane_ms));
        }
        // All logs have ended: everything up to the greatest accepted event time is complete.
        let last = |log: &Log| {
            let greatest = log.ingest.greatest()?.ms();
            let instant = if log.spec.feed == Feed::Sensor {
                greatest - 1
            } else {
                greatest
            };
            Some(instant.div_euclid(self.pane_ms) + 1)
        };
        self.logs.iter().filter_map(last).max()
    }

    /// Of all panes before this one, every refusal and every placed position has been told.
    pub fn told(&self) -> PaneIndex {
        if self.logs.iter().all(|l| l.ingest.ended()) {
            return PaneIndex::MAX;
        }
        let watermarks = self.logs.iter().map(|l| l.ingest.watermark());
        watermarks
            .min()
            .flatten()
            .map_or(PaneIndex::MIN, |w| w.ms().div_euclid(self.pane_ms))
    }

    /// Counts over all logs.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.logs.iter().for_each(|l| sum.add(l.ingest.counts()));
        sum
    }

    /// Counts of one log.
    pub fn log_counts(&self, log: LogIndex) -> &Counts {
        self.logs[usize::from(log)].ingest.counts()
    }

    /// Watermark of one log.
    pub fn watermark(&self, log: LogIndex) -> Option<EventTime> {
        self.logs[usize::from(log)].ingest.watermark()
    }

    /// Whether one log has ended.
    pub fn ended(&self, log: LogIndex) -> bool {
        self.logs[usize::from(log)].ingest.ended()
    }

    /// Greatest accepted event time of one log.
    pub fn greatest(&self, log: LogIndex) -> Option<EventTime> {
        self.logs[usize::from(log)].ingest.greatest()
    }

    /// The offset behind the last record taken from one log.
    pub fn next_offset(&self, log: LogIndex) -> u64 {
        self.logs[usize::from(log)].ingest.next_offset()
    }

    /// Records held or waiting for their order, over all logs.
    pub fn waiting(&self) -> usize {
        self.logs.iter().map(|l| l.ingest.waiting()).sum()
    }

    /// The decoder of one log.
    pub fn decoder(&self, log: LogIndex) -> Arc<Decoder> {
        Arc::clone(&self.logs[usize::from(log)].spec.decoder)
    }

    /// Name of one log.
    pub fn log_name(&self, log: LogIndex) -> &str {
        &self.logs[usize::from(log)].spec.name
    }

    /// Number of input logs.
    pub fn logs(&self) -> usize {
        self.logs.len()
    }

    /// Counts of locate over all lanes.
    pub fn locate_counts(&self) -> LocateCounts {
        let mut sum = LocateCounts::default();
        self.lanes.iter().for_each(|l| sum.add(l.locate.counts()));
        sum
    }

    /// Time that vehicles stood in panes closed so far, by what it was.
    pub fn standing_times(&self) -> StandingTimes {
        let mut sum = StandingTimes::default();
        let shards = self.shards.iter();
        shards.for_each(|s| sum.add(s.aggregate.standing_times()));
        sum
    }

    /// Segments by what their state rests on, in the order of [`Basis::ALL`]; those that nothing was ever said of
    /// rest on nothing.
    pub fn segments_by_basis(&self) -> [(Basis, u64); Basis::ALL.len()] {
        let mut sums = Basis::ALL.map(|basis| (basis, 0));
        let mut told = 0;
        for state in self.assess.segments().values() {
            for (basis, n) in &mut sums {
                *n += u64::from(*basis == state.basis);
            }
            told += 1;
        }
        let silent = (self.network.segments().len() as u64).saturating_sub(told);
        for (basis, n) in &mut sums {
            if *basis == Basis::None {
                *n += silent;
            }
        }
        sums
    }

    /// Id of a sensor, if it has a site or told its place.
    pub fn sensor_id(&self, sensor: SubjectKey) -> Option<&str> {
        self.names.get(&sensor).map(|id| &**id)
    }

    /// Vehicles tracked.
    pub fn vehicles(&self) -> usize {
        self.lanes.iter().map(|l| l.locate.vehicles()).sum()
    }

    /// The digest chain and the end of the last pane closed.
    pub fn digest(&self) -> (Digest, Option<EventTime>) {
        let (digest, pane) = self.publish.digest();
        (digest, pane.map(|p| EventTime::from_ms((p + 1) * self.pane_ms)))
    }

    /// Version of the map in use.
    pub fn map_version(&self) -> &str {
        self.network.version()
    }

    /// The map in use.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Version of the baseline in use.
    pub fn baseline_version(&self) -> &str {
        self.baseline.version()
    }

    /// The machine of assess, for readers of states and alerts.
    pub fn assess(&self) -> &Assess {
        &self.assess
    }
}

/// The sources of vehicles with several logs, and for each log its source and its place there.
fn partitioned(logs: &[LogSpec]) -> (Vec<String>, Vec<Option<(u16, u16)>>) {
    let mut of_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, log) in logs.iter().enumerate().filter(|(_, l)| l.feed == Feed::Probe) {
        of_source.entry(&log.source).or_default().push(i);
    }
    let (mut sources, mut keyed) = (Vec::new(), vec![None; logs.len()]);
    for (name, members) in of_source.into_iter().filter(|(_, m)| m.len() > 1) {
        for (partition, log) in members.into_iter().enumerate() {
            // A log's index is a u16, so its source's and its partition's are too.
            keyed[log] = Some((sources.len() as u16, partition as u16));
        }
        sources.push(name.to_owned());
    }
    (sources, keyed)
}
