//! The board: the latest of everything that was published, for readers over HTTP.
//!
//! One thread of the service writes; readers take an atomically swapped snapshot, so neither waits for the
//! other. A snapshot shares all that did not change with the one before it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use axum::body::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::watch;

use super::events::{Next, Ring, Subject};
use super::roads::{Area, Roads};
use crate::network::{SegmentIndex, SegmentKey};
use crate::publish::{Publication, Topic};
use crate::units::EventTime;

/// Congestion levels from best to worst; `unknown` is none of them.
pub(super) const LEVELS: [&str; 6] = ["free_flow", "heavy", "slow", "queuing", "stationary", "closed"];

/// Segments whose states share one piece of a snapshot: small enough that a pane copies little, large enough
/// that a snapshot of a million segments is a thousand pointers.
const CHUNK: usize = 1024;

/// States in one `states` event; a pane with more is told in several.
const STATES_PER_EVENT: usize = 1000;

/// Limits of what the board keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live events kept for streams that resume or lag.
    pub events_max: usize,
    /// Bytes of them.
    pub events_bytes_max: usize,
    /// Open alerts.
    pub alerts_open_max: usize,
    /// Resolved alerts; the oldest go first.
    pub alerts_resolved_max: usize,
    /// Event time in ms for which a resolved alert is kept.
    pub alerts_resolved_ms_max: i64,
    /// Corridors, and regions.
    pub places_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events_max: 4096,
            events_bytes_max: 64 << 20,
            alerts_open_max: 10_000,
            alerts_resolved_max: 1_000,
            alerts_resolved_ms_max: 24 * 3_600_000,
            places_max: 10_000,
        }
    }
}

/// What became of publications handed to the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Taken and shown.
    pub taken: u64,
    /// Older than what is shown already: a repeated delivery, or provisional after final.
    pub outdated: u64,
    /// About a segment that the map does not have.
    pub not_on_map: u64,
    /// Not the JSON that its topic promises.
    pub unreadable: u64,
    /// Left out because a limit is reached.
    pub over_limit: u64,
}

/// One input of the service, as `/api/v1/status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Its id in the configuration.
    pub id: String,
    /// `probe` or `sensor`.
    pub feed: String,
    /// Records read.
    pub records_read: u64,
    /// Event time before which it promises nothing more.
    #[serde(serialize_with = "rfc3339")]
    pub watermark: Option<EventTime>,
    /// Greatest accepted event time.
    #[serde(serialize_with = "rfc3339")]
    pub last_event_time: Option<EventTime>,
    /// Records to the end of the log, if that is known.
    pub lag_records: Option<u64>,
}

/// Counts of records since the start; `read = used + Σ rejected` once all read ones are processed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordCounts {
    /// Records read.
    pub read: u64,
    /// Records used.
    pub used: u64,
    /// Records not used, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// What the service tells of itself; parts of `/api/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// `run`, `replay` or `demo`.
    pub mode: String,
    /// Hash of the configuration keys that can change results.
    pub config_hash: Option<String>,
    /// Records.
    pub records: RecordCounts,
    /// Inputs, in the order of the configuration.
    pub sources: Vec<SourceStatus>,
    /// Segments by basis of their state.
    pub segments_by_basis: BTreeMap<String, u64>,
    /// Share of road length with live or blended data, 0 to 1.
    pub coverage_ratio: Option<f64>,
}

/// The last pane that closed and the digest chain there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PaneClose {
    /// End of the pane.
    #[serde(serialize_with = "rfc3339")]
    pub pane_end: Option<EventTime>,
    /// `blake3:…`.
    pub digest: Option<String>,
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn rfc3339<S: Serializer>(time: &Option<EventTime>, out: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => out.collect_str(time),
        None => out.serialize_none(),
    }
}

/// State of a segment as it was published.
#[derive(Debug)]
pub(super) struct SegmentState {
    /// JSON object.
    pub(super) body: Bytes,
    /// Index into [`LEVELS`]; `None` is unknown.
    pub(super) level: Option<u8>,
    // What a later one must not be below: time, then provisional < partial < final.
    rank: (EventTime, u8),
}

/// An alert in its greatest revision.
#[derive(Clone, Debug)]
pub(super) struct AlertState {
    /// JSON object.
    pub(super) body: Bytes,
    pub(super) revision: u64,
    pub(super) resolved: bool,
    pub(super) time: EventTime,
}

type StateChunk = Vec<Option<Arc<SegmentState>>>;

/// Everything at one moment.
#[derive(Clone)]
pub(super) struct Snapshot {
    chunks: Vec<Arc<StateChunk>>,
    pub(super) alerts: Arc<BTreeMap<String, AlertState>>,
    pub(super) corridors: Arc<BTreeMap<String, (EventTime, Bytes)>>,
    pub(super) regions: Arc<BTreeMap<String, (EventTime, Bytes)>>,
    pub(super) sensors: Arc<Vec<Bytes>>,
    pub(super) pane: PaneClose,
    /// When the last pane closed, by the monotonic clock.
    pub(super) pane_at: Option<Instant>,
    pub(super) status: Arc<Status>,
    /// Number of the newest event whose effect is in here.
    pub(super) event: u64,
}

impl Snapshot {
    /// State of a segment, `None` if nothing was published of it.
    pub(super) fn state(&self, i: SegmentIndex) -> Option<&Arc<SegmentState>> {
        self.chunks
            .get(i as usize / CHUNK)?
            .get(i as usize % CHUNK)?
            .as_ref()
    }

    /// All states from segment `from` on, by index.
    pub(super) fn states(&self, from: usize) -> impl Iterator<Item = (usize, &Arc<SegmentState>)> {
        self.chunks
            .iter()
            .enumerate()
            .skip(from / CHUNK)
            .flat_map(move |(c, chunk)| {
                let skip = if c == from / CHUNK { from % CHUNK } else { 0 };
                chunk
                    .iter()
                    .enumerate()
                    .skip(skip)
                    .filter_map(move |(i, state)| state.as_ref().map(|s| (c * CHUNK + i, s)))
            })
    }
}

#[derive(Deserialize)]
struct StateHead {
    level: String,
    #[serde(default)]
    partial: bool,
    #[serde(default)]
    provisional: bool,
}

#[derive(Deserialize)]
struct AlertHead {
    revision: u64,
    transition: String,
}

/// The latest of everything published, and the stream of what changes.
pub struct Board {
    roads: Arc<dyn Roads>,
    areas: Vec<Area>,
    limits: Limits,
    // The writer's copy; readers never lock it.
    draft: Mutex<Snapshot>,
    shown: ArcSwap<Snapshot>,
    // Held for the time of copying a pointer.
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
    clock: Box<dyn Fn() -> EventTime + Send + Sync>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("segments", &self.areas.len())
            .finish_non_exhaustive()
    }
}

impl Board {
    /// An empty board over a map, with the wall clock.
    pub fn new(roads: Arc<dyn Roads>, limits: Limits) -> Self {
        Self::with_clock(roads, limits, wall_clock)
    }

    /// As [`Board::new`], with the clock that `data_age_s` is measured by: that of a source which plays
    /// history faster than it was.
    pub fn with_clock(
        roads: Arc<dyn Roads>,
        limits: Limits,
        clock: impl Fn() -> EventTime + Send + Sync + 'static,
    ) -> Self {
        let n = roads.segments().len();
        let areas: Vec<Area> = (0..)
            .zip(roads.segments())
            .map(|(i, _)| Area::around(&roads.geometry(i)))
            .collect();
        // Events are numbered from the microseconds of the start, so that numbers still grow after a restart
        // and a stream that resumes from before it is seen to have missed something.
        let before_first = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(0));
        let snapshot = Snapshot {
            chunks: (0..n)
                .step_by(CHUNK)
                .map(|first| Arc::new(vec![None; CHUNK.min(n - first)]))
                .collect(),
            alerts: Arc::default(),
            corridors: Arc::default(),
            regions: Arc::default(),
            sensors: Arc::default(),
            pane: PaneClose::default(),
            pane_at: None,
            status: Arc::default(),
            event: before_first,
        };
        Self {
            areas,
            ring: Mutex::new(Ring::new(
                before_first,
                limits.events_max,
                limits.events_bytes_max,
            )),
            draft: Mutex::new(snapshot.clone()),
            shown: ArcSwap::from_pointee(snapshot),
            newest: watch::Sender::new(before_first),
            clock: Box::new(clock),
            roads,
            limits,
        }
    }

    /// Takes publications, shows them, and tells streams of them: all segment states of one call in one event
    /// `states` (several if there are very many), every alert, region and corridor in one of its own.
    ///
    /// Call it once for each pane, and once for each round of provisional or partial states.
    pub fn publish<'a>(&self, publications: impl IntoIterator<Item = &'a Publication>) -> Taken {
        let mut taken = Taken::default();
        let mut draft = lock(&self.draft);
        let mut states: Vec<Bytes> = Vec::new();
        let mut others: Vec<(Subject, &str, Bytes)> = Vec::new();
        for p in publications {
            match p.topic {
                Topic::SegmentState => {
                    if let Some(body) = self.take_state(&mut draft, p, &mut taken) {
                        states.push(body);
                    }
                }
                Topic::AlertEvent => {
                    if let Some(body) = self.take_alert(&mut draft, p, &mut taken) {
                        others.push((Subject::Alert, "alert", body));
                    }
                }
                Topic::AlertState => {
                    // Its event said the same already. What is new here is the tombstone.
                    if p.body.is_some() {
                        self.take_alert(&mut draft, p, &mut taken);
                    } else if Arc::make_mut(&mut draft.alerts).remove(&p.key).is_some() {
                        taken.taken += 1;
                    } else {
                        taken.outdated += 1;
                    }
                }
                Topic::Corridor => {
                    let places = Arc::make_mut(&mut draft.corridors);
                    if let Some(body) = self.take_place(places, p, &mut taken) {
                        others.push((Subject::Corridor, "corridor", body));
                    }
                }
                Topic::Region => {
                    let places = Arc::make_mut(&mut draft.regions);
                    if let Some(body) = self.take_place(places, p, &mut taken) {
                        others.push((Subject::Index, "index", body));
                    }
                }
            }
        }
        self.drop_old_alerts(&mut draft);
        let mut ring = lock(&self.ring);
        for part in states.chunks(STATES_PER_EVENT) {
            let mut array = String::with_capacity(part.iter().map(|b| b.len() + 1).sum::<usize>() + 2);
            array.push('[');
            for (i, body) in part.iter().enumerate() {
                if i > 0 {
                    array.push(',');
                }
                array.push_str(&String::from_utf8_lossy(body));
            }
            array.push(']');
            ring.push(Subject::State, "states", &array);
        }
        for (subject, name, body) in &others {
            ring.push(*subject, name, &String::from_utf8_lossy(body));
        }
        self.show(&mut draft, ring);
        taken
    }

    /// A pane closed; `digest` is the digest chain there. Call it after the publications of the pane.
    pub fn pane_closed(&self, end: EventTime, digest: &str) {
        let mut draft = lock(&self.draft);
        draft.pane = PaneClose {
            pane_end: Some(end),
            digest: Some(digest.to_owned()),
        };
        draft.pane_at = Some(Instant::now());
        let mut ring = lock(&self.ring);
        let data = serde_json::json!({"pane_end": end.to_string(), "digest": digest}).to_string();
        ring.push(Subject::State, "pane", &data);
        self.show(&mut draft, ring);
    }

    /// Replaces what the service tells of itself.
    pub fn set_status(&self, status: Status) {
        let mut draft = lock(&self.draft);
        draft.status = Arc::new(status);
        let ring = lock(&self.ring);
        self.show(&mut draft, ring);
    }

    /// Replaces the list of sensors: JSON objects in the order in which they are shown.
    pub fn set_sensors(&self, sensors: Vec<Vec<u8>>) {
        let mut draft = lock(&self.draft);
        draft.sensors = Arc::new(sensors.iter().map(|s| clean(s)).collect());
        let ring = lock(&self.ring);
        self.show(&mut draft, ring);
    }

    /// Readers see the snapshot before streams tell of its events, so that who reloads on an event sees it.
    fn show(&self, draft: &mut MutexGuard<'_, Snapshot>, ring: MutexGuard<'_, Ring>) {
        draft.event = ring.last();
        self.shown.store(Arc::new((**draft).clone()));
        drop(ring);
        self.newest.send_replace(draft.event);
    }

    fn take_state(&self, draft: &mut Snapshot, p: &Publication, taken: &mut Taken) -> Option<Bytes> {
        let parsed = p
            .body
            .as_deref()
            .and_then(|body| Some((clean(body), serde_json::from_slice::<StateHead>(body).ok()?)));
        let (Some((body, head)), Ok(key)) = (parsed, p.key.parse::<SegmentKey>()) else {
            taken.unreadable += 1;
            return None;
        };
        let Some(i) = self.roads.find(key) else {
            taken.not_on_map += 1;
            return None;
        };
        let finality = match (head.provisional, head.partial) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        let rank = (p.time, finality);
        if draft.state(i).is_some_and(|old| old.rank > rank) {
            taken.outdated += 1;
            return None;
        }
        let level = LEVELS
            .iter()
            .position(|l| *l == head.level)
            .and_then(|l| u8::try_from(l).ok());
        let chunk = Arc::make_mut(&mut draft.chunks[i as usize / CHUNK]);
        chunk[i as usize % CHUNK] = Some(Arc::new(SegmentState {
            body: body.clone(),
            level,
            rank,
        }));
        taken.taken += 1;
        Some(body)
    }

    fn take_alert(&self, draft: &mut Snapshot, p: &Publication, taken: &mut Taken) -> Option<Bytes> {
        let parsed = p
            .body
            .as_deref()
            .and_then(|body| Some((clean(body), serde_json::from_slice::<AlertHead>(body).ok()?)));
        let Some((body, head)) = parsed else {
            taken.unreadable += 1;
            return None;
        };
        let resolved = head.transition == "resolved";
        match draft.alerts.get(&p.key) {
            Some(old) if old.revision >= head.revision => {
                taken.outdated += 1;
                return None;
            }
            None if !resolved
                && draft.alerts.len() >= self.limits.alerts_open_max
                && draft.alerts.values().filter(|a| !a.resolved).count() >= self.limits.alerts_open_max =>
            {
                taken.over_limit += 1;
                return None;
            }
            _ => {}
        }
        let state = AlertState {
            body: body.clone(),
            revision: head.revision,
            resolved,
            time: p.time,
        };
        Arc::make_mut(&mut draft.alerts).insert(p.key.clone(), state);
        taken.taken += 1;
        Some(body)
    }

    fn take_place(
        &self,
        places: &mut BTreeMap<String, (EventTime, Bytes)>,
        p: &Publication,
        taken: &mut Taken,
    ) -> Option<Bytes> {
        let body = p
            .body
            .as_deref()
            .filter(|b| serde_json::from_slice::<BTreeMap<String, serde::de::IgnoredAny>>(b).is_ok())
            .map(clean);
        let Some(body) = body else {
            taken.unreadable += 1;
            return None;
        };
        match places.get(&p.key) {
            Some((time, _)) if *time > p.time => {
                taken.outdated += 1;
                return None;
            }
            None if places.len() >= self.limits.places_max => {
                taken.over_limit += 1;
                return None;
            }
            _ => {}
        }
        places.insert(p.key.clone(), (p.time, body.clone()));
        taken.taken += 1;
        Some(body)
    }

    fn drop_old_alerts(&self, draft: &mut Snapshot) {
        let Some(newest) = draft.alerts.values().map(|a| a.time).max() else {
            return;
        };
        let newest = draft.pane.pane_end.map_or(newest, |end| end.max(newest));
        let mut resolved: Vec<(EventTime, String)> = draft
            .alerts
            .iter()
            .filter(|(_, a)| a.resolved)
            .map(|(id, a)| (a.time, id.clone()))
            .collect();
        resolved.sort();
        let surplus = resolved.len().saturating_sub(self.limits.alerts_resolved_max);
        let old = |time: EventTime| newest.since(time) > self.limits.alerts_resolved_ms_max;
        let gone: Vec<String> = resolved
            .into_iter()
            .enumerate()
            .filter(|(i, (time, _))| *i < surplus || old(*time))
            .map(|(_, (_, id))| id)
            .collect();
        if !gone.is_empty() {
            let alerts = Arc::make_mut(&mut draft.alerts);
            for id in gone {
                alerts.remove(&id);
            }
        }
    }

    pub(super) fn roads(&self) -> &dyn Roads {
        &*self.roads
    }

    pub(super) fn areas(&self) -> &[Area] {
        &self.areas
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.shown.load_full()
    }

    pub(super) fn after(&self, seen: u64, subjects: &[Subject]) -> Next {
        lock(&self.ring).after(seen, subjects)
    }

    /// Wakes when there are new events.
    pub(super) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    pub(super) fn now(&self) -> EventTime {
        (self.clock)()
    }

    #[cfg(test)]
    pub(super) fn ring_bytes(&self) -> usize {
        lock(&self.ring).bytes()
    }
}

/// A writer that panicked left whole values behind: every change is one assignment or insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line feed would end the data of an event; in valid JSON it is white space between tokens.
fn clean(body: &[u8]) -> Bytes {
    if body.iter().any(|b| matches!(b, b'\n' | b'\r')) {
        body.iter()
            .map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b })
            .collect()
    } else {
        Bytes::copy_from_slice(body)
    }
}

fn wall_clock() -> EventTime {
    let ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    EventTime::from_ms(ms)
}
