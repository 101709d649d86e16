use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::halt::Halt;
use super::matcher::{Decided, Decision, Decisions, Lag, Matcher};
use super::stop::{Signs, Stop};
use super::track::{Fix, Track};
use super::{
    Contribution, Doing, KEYING_WINDOW_MS, Kind, LocateCounts, Located, Match, Occurrence, PaneIndex,
    Passage, Place, Reading, Settings, Sighting, Unlocated, booking, emission, kinematics,
};
use crate::ingest::{Event, Feed, Measurement, Probe, Rejection, SubjectKey, VehicleClass};
use crate::network::{Candidate, Network, SegmentFlags, SegmentIndex};
use crate::units::EventTime;

/// One vehicle in this many is watched for appearing in two partitions.
const SIGHTING_SHARE: u64 = 16;
/// Longest time between two moving fixes in which a vehicle is taken not to have stopped, in ms.
const MOVING_MS: i64 = 10_000;

/// Segments of the sensors that have a site.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// Segment of each sensor.
    pub segments: BTreeMap<SubjectKey, SegmentIndex>,
    /// Id of each sensor.
    pub ids: BTreeMap<SubjectKey, Box<str>>,
    /// Place of each sensor on its segment, in mm from its beginning.
    pub offsets_mm: BTreeMap<SubjectKey, u32>,
}

/// The machine of one lane. What survives in checkpoints is [`Locate::state`].
#[derive(Debug)]
pub struct Locate {
    settings: Settings,
    network: Arc<Network>,
    sites: Arc<Sites>,
    feed: Feed,
    pane_ms: i64,
    observe: bool,
    state: State,
    matcher: Matcher,
    /// When to look at vehicles whose fixes wait: each at most once, never after its fixes are due.
    timers: BTreeSet<(EventTime, SubjectKey)>,
    decisions: Decisions,
    candidates: Vec<Candidate>,
    pieces: Vec<booking::Piece>,
    /// The first pane that may be booked to, by the fix or timer being worked on.
    open: PaneIndex,
}

/// What must survive of a lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    vehicles: HashMap<SubjectKey, Vehicle, FixedState>,
    /// Sensors bound by the position in their events.
    bound: BTreeMap<SubjectKey, Option<SegmentIndex>>,
    promised: Option<EventTime>,
    swept: Option<i64>,
    counts: LocateCounts,
}

/// One vehicle.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Vehicle {
    /// The last fix that was believed.
    last: Fix,
    class: VehicleClass,
    /// How many fixes in a row have the same coordinates although the vehicle reports to move.
    frozen: u32,
    /// Fixes that did not follow from `last`, until later ones decide.
    held: Vec<Probe>,
    track: Track,
    /// When the last decided fix was taken, if it was placed, and whether it told of movement.
    before: Option<(EventTime, bool)>,
    visit: Option<Visit>,
    /// Where its last place says that it stands.
    stop: Option<Stop>,
    signs: Signs,
    /// Where it may be standing.
    halt: Option<Halt>,
    /// A timer waits for it.
    #[serde(skip)]
    timed: bool,
}

/// A vehicle on a segment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Visit {
    segment: SegmentIndex,
    since: EventTime,
    /// It came in at the beginning, and all of its time is known and was spent in traffic.
    whole: bool,
    stops: u16,
    stop_ms: u32,
    posterior_permille: u16,
}

impl Visit {
    fn new(segment: SegmentIndex, since: EventTime, whole: bool) -> Self {
        Self {
            segment,
            since,
            whole,
            stops: 0,
            stop_ms: 0,
            posterior_permille: 1000,
        }
    }
}

impl Vehicle {
    fn new(fix: &Probe) -> Self {
        Self {
            last: Fix::from(fix),
            class: fix.class,
            frozen: 1,
            held: Vec::new(),
            track: Track::default(),
            before: None,
            visit: None,
            stop: None,
            signs: Signs::default(),
            halt: None,
            timed: false,
        }
    }

    /// The last sign of life, held fixes included.
    fn last_seen(&self) -> EventTime {
        self.held
            .last()
            .map_or(self.last.time, |h| h.time.max(self.last.time))
    }

    fn refuse_held(&mut self, out: &mut Located) {
        let held = self.held.drain(..);
        out.refused.extend(held.map(|h| (h.offset, Rejection::Jump)));
    }
}

impl Locate {
    /// A lane of a source that reports `feed`. With `observe`, matches are given on.
    pub fn new(
        settings: Settings,
        network: Arc<Network>,
        sites: Arc<Sites>,
        feed: Feed,
        pane_ms: i64,
        observe: bool,
    ) -> Self {
        Self {
            matcher: Matcher::new(network.clone(), settings.clone(), Lag::Online),
            settings,
            network,
            sites,
            feed,
            pane_ms,
            observe,
            state: State::default(),
            timers: BTreeSet::new(),
            decisions: Decisions::default(),
            candidates: Vec::new(),
            pieces: Vec::new(),
            open: PaneIndex::MIN,
        }
    }

    /// What must survive.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Goes on from a checkpoint.
    pub fn restore(&mut self, state: State) {
        self.state = state;
        self.timers.clear();
        for (&key, vehicle) in &mut self.state.vehicles {
            if let Some(due) = vehicle.track.due(self.settings.settle_s) {
                vehicle.timed = true;
                self.timers.insert((due, key));
            }
        }
    }

    /// Counts so far.
    pub fn counts(&self) -> &LocateCounts {
        &self.state.counts
    }

    /// Vehicles tracked.
    pub fn vehicles(&self) -> usize {
        self.state.vehicles.len()
    }

    /// What it has promised: no contribution to a pane that ends at or before this moment is to come.
    pub fn promised(&self) -> Option<EventTime> {
        self.state.promised
    }

    /// Takes events in order, all before `watermark`, and promises what follows from it.
    pub fn run(&mut self, events: Vec<Event>, watermark: Option<EventTime>, out: &mut Located) {
        for event in events {
            match event {
                Event::Probe(fix) => self.probe(fix, out),
                Event::Measurement(measurement) => self.measurement(measurement, out),
            }
        }
        let Some(watermark) = watermark else { return };
        // Decisions come up to settle_s after a step; a sensor interval needs none.
        let behind = match self.feed {
            Feed::Probe => i64::from(self.settings.settle_s) * 1000,
            Feed::Sensor => 0,
        };
        let end = watermark.ms() == i64::MAX;
        if end {
            self.finish(out);
        } else {
            self.fire(watermark, out);
        }
        let promise = if end {
            watermark
        } else {
            watermark.plus_ms(-behind)
        };
        self.state.promised = Some(self.state.promised.map_or(promise, |p| p.max(promise)));
    }

    /// The log has ended: what waits is decided, and fixes that wait for others to agree are refused.
    fn finish(&mut self, out: &mut Located) {
        let mut keys: Vec<SubjectKey> = self.state.vehicles.keys().copied().collect();
        keys.sort_unstable();
        self.timers.clear();
        for key in keys {
            let Some(mut vehicle) = self.state.vehicles.remove(&key) else {
                continue;
            };
            if let Some(due) = vehicle.track.due(self.settings.settle_s) {
                self.open = self.first_open(due);
            }
            self.matcher.finish(&mut vehicle.track, &mut self.decisions);
            self.carry_out(key, &mut vehicle, out);
            vehicle.timed = false;
            vehicle.refuse_held(out);
            self.state.vehicles.insert(key, vehicle);
        }
    }

    fn measurement(&mut self, measurement: Measurement, out: &mut Located) {
        let segment = match self.sites.segments.get(&measurement.sensor) {
            Some(segment) => Some(*segment),
            None => self.bind(&measurement),
        };
        let Some(segment) = segment else {
            out.refused.push((measurement.offset, Rejection::UnknownSensor));
            return;
        };
        let pane = (measurement.time.ms() - 1).div_euclid(self.pane_ms);
        out.readings.push(Reading {
            pane,
            segment,
            measurement,
        });
    }

    /// Binds a sensor without a site by the position in its first event; an ambiguous place is refused.
    fn bind(&mut self, measurement: &Measurement) -> Option<SegmentIndex> {
        if let Some(segment) = self.state.bound.get(&measurement.sensor) {
            return *segment;
        }
        let position = measurement.position?;
        let candidates = &mut self.candidates;
        self.network.candidates(position, 30_000, candidates);
        candidates.retain(|c| {
            measurement
                .heading
                .is_none_or(|h| h.difference(c.bearing) <= 4_500)
        });
        let segment = match candidates[..] {
            [one] => Some(one.segment),
            // The second must be clearly farther away, or the sensor could stand on either.
            [first, second, ..] if second.distance_mm >= first.distance_mm + 10_000 => Some(first.segment),
            _ => None,
        };
        self.state.bound.insert(measurement.sensor, segment);
        segment
    }

    /// The first pane that may still be booked to while `now` is being worked on.
    ///
    /// Taken from the fix, not from the promise: how many records a batch holds must not matter. It is never
    /// behind the promise, since a fix that is released after a watermark is not older than its whole second.
    fn first_open(&self, now: EventTime) -> PaneIndex {
        let second = now.ms().div_euclid(1000) * 1000;
        (second - i64::from(self.settings.settle_s) * 1000).div_euclid(self.pane_ms)
    }

    fn probe(&mut self, fix: Probe, out: &mut Located) {
        self.fire(fix.time, out);
        self.sweep(fix.time, out);
        self.open = self.first_open(fix.time);
        let key = fix.vehicle;
        let known = self.state.vehicles.remove(&key);
        if key.0.is_multiple_of(SIGHTING_SHARE) {
            let window_of = |time: EventTime| time.ms().div_euclid(KEYING_WINDOW_MS);
            let window = window_of(fix.time);
            // The last fix told of its own window: once is enough.
            if known.as_ref().is_none_or(|v| window_of(v.last.time) != window) {
                out.sightings.push(Sighting { window, vehicle: key });
            }
        }
        let mut vehicle = match known {
            Some(vehicle) => vehicle,
            None => {
                self.make_room(out);
                self.open = self.first_open(fix.time);
                let mut vehicle = Vehicle::new(&fix);
                self.take(&mut vehicle, &fix, out);
                self.store(key, vehicle, fix.time);
                return;
            }
        };
        let now = fix.time;
        let gap = now.since(vehicle.last.time);
        let next = Fix::from(&fix);
        if gap > i64::from(self.settings.break_s) * 1000 {
            vehicle.refuse_held(out);
            self.take(&mut vehicle, &fix, out);
        } else if kinematics::frozen(&vehicle.last, &next, &self.settings) {
            vehicle.frozen += 1;
            if vehicle.frozen >= self.settings.frozen_fixes {
                out.refused.push((fix.offset, Rejection::Frozen));
            } else {
                self.take(&mut vehicle, &fix, out);
            }
        } else if kinematics::follows(&vehicle.last, &next, &self.settings) {
            vehicle.refuse_held(out);
            vehicle.frozen = 1;
            self.take(&mut vehicle, &fix, out);
        } else {
            self.hold(&mut vehicle, fix, out);
        }
        self.store(key, vehicle, now);
    }

    /// Puts a vehicle back and sees that its fixes will be decided in time.
    ///
    /// What is due already, after a fix that was held for long, is due now: panes before are promised.
    fn store(&mut self, key: SubjectKey, mut vehicle: Vehicle, now: EventTime) {
        if !vehicle.timed
            && let Some(due) = vehicle.track.due(self.settings.settle_s)
        {
            vehicle.timed = true;
            self.timers.insert((due.max(now), key));
        }
        self.state.vehicles.insert(key, vehicle);
    }

    /// Carries out what was due before `now`, in order of time, then vehicle. Events come in order too, so it
    /// happens at the same place among them however they are batched.
    fn fire(&mut self, now: EventTime, out: &mut Located) {
        while let Some(&(due, key)) = self.timers.first()
            && due < now
        {
            self.timers.pop_first();
            let Some(mut vehicle) = self.state.vehicles.remove(&key) else {
                continue;
            };
            vehicle.timed = false;
            self.open = self.first_open(due);
            // Times are whole milliseconds.
            self.matcher
                .expire(&mut vehicle.track, due.plus_ms(1), &mut self.decisions);
            self.carry_out(key, &mut vehicle, out);
            self.store(key, vehicle, due);
        }
    }

    /// Keeps a fix that does not follow from the track; two in a row that follow from one another are
    /// believed, and a new way begins there.
    fn hold(&mut self, vehicle: &mut Vehicle, fix: Probe, out: &mut Located) {
        let next = Fix::from(&fix);
        let agrees = vehicle
            .held
            .last()
            .is_some_and(|h| kinematics::follows(&Fix::from(h), &next, &self.settings));
        if agrees && let Some(first) = vehicle.held.pop() {
            vehicle.refuse_held(out);
            self.matcher.finish(&mut vehicle.track, &mut self.decisions);
            self.carry_out(fix.vehicle, vehicle, out);
            vehicle.before = None;
            self.take(vehicle, &first, out);
            self.take(vehicle, &fix, out);
            return;
        }
        vehicle.held.push(fix);
        if vehicle.held.len() > 3 {
            let oldest = vehicle.held.remove(0);
            out.refused.push((oldest.offset, Rejection::Jump));
        }
    }

    /// Gives a fix to the matcher.
    fn take(&mut self, vehicle: &mut Vehicle, fix: &Probe, out: &mut Located) {
        vehicle.last = Fix::from(fix);
        vehicle.class = fix.class;
        vehicle.signs.take(fix);
        self.matcher
            .push(&mut vehicle.track, vehicle.last, &mut self.decisions);
        self.carry_out(fix.vehicle, vehicle, out);
    }

    /// Books and tells what the matcher has decided.
    fn carry_out(&mut self, key: SubjectKey, vehicle: &mut Vehicle, out: &mut Located) {
        let decisions = std::mem::take(&mut self.decisions);
        self.state.counts.broken += decisions.breaks;
        for decision in &decisions.fixes {
            match &decision.place {
                Ok(place) => self.book(key, vehicle, &decision.fix, place, decisions.way(place), out),
                Err(reason) => {
                    self.state.counts.off_road += 1;
                    // A single fix that no way explains leaves out nothing of the way.
                    if *reason == Unlocated::OffRoad {
                        (vehicle.before, vehicle.visit, vehicle.stop) = (None, None, None);
                    }
                }
            }
            if self.observe {
                out.matches.push(self.tell(key, decision));
            }
        }
        self.decisions = decisions;
        self.decisions.clear();
    }

    fn tell(&self, vehicle: SubjectKey, decision: &Decision) -> Match {
        let fix = &decision.fix;
        let place = decision.place.map(|p| {
            let there = self.network.position_at(p.segment, p.offset_mm);
            Place {
                segment: p.segment,
                offset_mm: p.offset_mm,
                distance_mm: (there.distance_m(fix.position) * 1000.0).round() as u32,
                posterior_permille: p.posterior_permille,
            }
        });
        Match {
            offset: fix.id,
            vehicle,
            time: fix.time,
            place,
        }
    }

    /// Books the way to a place over segments and panes, and the position itself.
    fn book(
        &mut self,
        key: SubjectKey,
        vehicle: &mut Vehicle,
        fix: &Fix,
        place: &Decided,
        way: &[SegmentIndex],
        out: &mut Located,
    ) {
        let posterior = u32::from(place.posterior_permille);
        let sure = posterior >= self.settings.min_posterior_permille;
        let weight = (vehicle.class.weight_permille() * posterior / 1000) as u16;
        let moves = fix
            .speed
            .is_some_and(|v| f64::from(v) / 1000.0 >= self.settings.dwell_speed_mps);
        let mut kind = Kind::Moving;
        if way.is_empty() {
            (vehicle.before, vehicle.visit, vehicle.stop) = (None, None, None);
        }
        if let (Some((before, moved)), Some(_)) = (vehicle.before, way.first()) {
            // A stop between two fixes that move shows only where they are far apart.
            let moving = moved && moves && fix.time.since(before) <= MOVING_MS;
            let mut pieces = std::mem::take(&mut self.pieces);
            booking::pieces(
                &self.network,
                way,
                (before, place.from_mm),
                (fix.time, place.offset_mm),
                moving,
                &mut pieces,
            );
            let slack_mm = (3.0 * emission::sigma_m(fix, &self.settings) * 1000.0) as u64;
            let plausible = booking::plausible(&self.network, &pieces, slack_mm);
            self.state.counts.implausible += u64::from(!plausible);
            let first_of_stop = vehicle.stop.is_some_and(|s| s.since == before);
            kind = self.stand(vehicle, fix, place, !moved && !moves, before, &pieces);
            let since = vehicle.stop.map_or(fix.time, |s| s.since);
            for (k, piece) in pieces.iter().enumerate() {
                let mut visit = match vehicle.visit {
                    Some(visit) if k == 0 && visit.segment == piece.segment => visit,
                    _ => Visit::new(piece.segment, piece.begin, k > 0),
                };
                visit.whole &= sure && plausible && matches!(kind, Kind::Moving | Kind::Queue);
                visit.posterior_permille = visit.posterior_permille.min(place.posterior_permille);
                if kind == Kind::Queue {
                    visit.stops = visit.stops.saturating_add(u16::from(first_of_stop && k == 0));
                    let stood = u32::try_from(piece.end.since(piece.begin)).unwrap_or(u32::MAX);
                    visit.stop_ms = visit.stop_ms.saturating_add(stood);
                }
                if sure && plausible {
                    self.state.counts.overtaken_ms += booking::book(
                        piece,
                        self.pane_ms,
                        self.open,
                        (traversal(key, (visit.segment, visit.since)), visit.since),
                        (kind, since),
                        weight,
                        &mut out.contributions,
                    );
                    if k + 1 < pieces.len() {
                        self.tell_of(piece.segment, piece.end, Doing::Passing, out);
                    }
                }
                let pane = piece.end.ms().div_euclid(self.pane_ms);
                if let Some(next) = pieces.get(k + 1)
                    && visit.whole
                    && pane >= self.open
                {
                    out.passages.push(Passage {
                        pane,
                        segment: piece.segment,
                        next: next.segment,
                        entered: visit.since,
                        time_ms: u32::try_from(piece.end.since(visit.since)).unwrap_or(u32::MAX),
                        stop_ms: visit.stop_ms,
                        stops: visit.stops,
                        posterior_permille: visit.posterior_permille,
                    });
                }
                vehicle.visit = Some(visit);
            }
            self.pieces = pieces;
        } else {
            vehicle.stop = (!moves).then(|| Stop::new(fix.time));
            // What happened since its last place is not known.
            if let Some(visit) = &mut vehicle.visit {
                visit.whole = false;
            }
        }
        if sure {
            self.watch_halt(key, vehicle, (place.segment, place.offset_mm, fix.time), out);
        }
        self.state.counts.matched += 1;
        let visit = match vehicle.visit {
            Some(visit) if visit.segment == place.segment => visit,
            _ => Visit::new(place.segment, fix.time, false),
        };
        (vehicle.before, vehicle.visit) = (Some((fix.time, moves)), Some(visit));
        let pane = fix.time.ms().div_euclid(self.pane_ms);
        if !sure {
            self.state.counts.ambiguous += 1;
        } else if pane >= self.open && kind != Kind::Excluded {
            // A fix that was held for long may be too late for its pane.
            out.contributions.push(Contribution {
                pane,
                segment: place.segment,
                traversal: traversal(key, (visit.segment, visit.since)),
                distance_mm: 0,
                time_ms: 0,
                weight_permille: 0,
                positions: 1,
                until_ms: fix.time.ms().rem_euclid(self.pane_ms) as u32,
                entered: visit.since.ms().div_euclid(self.pane_ms) == pane,
                kind: Kind::Moving,
                stood_since: fix.time,
            });
        }
    }

    /// What the time of a step up to `fix` was spent with, and keeps the vehicle's stop. `slow`: neither end of
    /// the step reports that it moves; where a feed gives no speeds, the distance tells.
    fn stand(
        &self,
        vehicle: &mut Vehicle,
        fix: &Fix,
        place: &Decided,
        slow: bool,
        before: EventTime,
        pieces: &[booking::Piece],
    ) -> Kind {
        let driven_mm: u64 = pieces.iter().map(|p| p.distance_mm).sum();
        let slow_mm = self.settings.dwell_speed_mps * fix.time.since(before) as f64;
        let stands = slow && (fix.speed.is_some() || driven_mm as f64 <= slow_mm);
        if stands
            && let Some(stop) = &mut vehicle.stop
            && stop.holds(driven_mm, &self.settings)
        {
            let segment = self.network.segment(place.segment);
            let ahead_mm = segment.length_mm.saturating_sub(place.offset_mm);
            let at_line =
                segment.flags.has(SegmentFlags::SIGNAL_END) && ahead_mm <= self.settings.line_m * 1000;
            return stop.judge(fix.time, vehicle.class, &vehicle.signs, at_line, &self.settings);
        }
        let parked = vehicle.stop.is_some_and(|s| s.parked());
        let may_stand = fix
            .speed
            .is_none_or(|v| f64::from(v) / 1000.0 < self.settings.dwell_speed_mps);
        vehicle.stop = may_stand.then(|| Stop::new(fix.time));
        // Within the step it set out: how much of it was driving is not known.
        if parked { Kind::Excluded } else { Kind::Moving }
    }

    /// Sees whether a vehicle stands, and tells so.
    fn watch_halt(
        &self,
        key: SubjectKey,
        vehicle: &mut Vehicle,
        (segment, offset_mm, time): (SegmentIndex, u32, EventTime),
        out: &mut Located,
    ) {
        let on = vehicle.halt.and_then(|h| h.seen(segment, offset_mm, time));
        match (vehicle.halt, on) {
            (_, Some(halt)) => {
                if let Some(for_ms) = halt.told_ms() {
                    let doing = Doing::Standing {
                        halt: traversal(key, (halt.segment, halt.since)),
                        offset_mm: halt.offset_mm,
                        for_ms,
                    };
                    self.tell_of(halt.segment, time, doing, out);
                }
            }
            (Some(old), None) if old.told_ms().is_some() => {
                let halt = traversal(key, (old.segment, old.since));
                self.tell_of(old.segment, time, Doing::Leaving { halt }, out);
            }
            _ => {}
        }
        vehicle.halt = Some(on.unwrap_or_else(|| Halt::new(segment, offset_mm, time)));
    }

    /// Gives on what a vehicle did, unless its pane was promised to be complete.
    fn tell_of(&self, segment: SegmentIndex, time: EventTime, what: Doing, out: &mut Located) {
        let pane = time.ms().div_euclid(self.pane_ms);
        if pane >= self.open {
            out.occurrences.push(Occurrence {
                pane,
                segment,
                at_ms: time.ms().rem_euclid(self.pane_ms) as u32,
                what,
            });
        }
    }

    /// Once per minute of event time forgets vehicles that have been silent for `evict_s`.
    ///
    /// Driven by the events themselves, so that it happens at the same place of the log in every run. Their fixes
    /// were decided long ago.
    fn sweep(&mut self, now: EventTime, out: &mut Located) {
        let minute = now.ms().div_euclid(60_000);
        if self.state.swept.is_some_and(|s| s >= minute) {
            return;
        }
        self.state.swept = Some(minute);
        let bound = now.plus_ms(-i64::from(self.settings.evict_s) * 1000);
        let mut held = Vec::new();
        self.state.vehicles.retain(|_, vehicle| {
            let keep = vehicle.last_seen() >= bound;
            if !keep {
                held.append(&mut vehicle.held);
            }
            keep
        });
        held.sort_unstable();
        out.refused
            .extend(held.iter().map(|f| (f.offset, Rejection::Jump)));
    }

    /// At `vehicles_max` forgets the sixteenth that has been silent longest, ties by key.
    fn make_room(&mut self, out: &mut Located) {
        if self.state.vehicles.len() < self.settings.vehicles_max {
            return;
        }
        let mut silent: Vec<(EventTime, SubjectKey)> = self
            .state
            .vehicles
            .iter()
            .map(|(k, t)| (t.last_seen(), *k))
            .collect();
        silent.sort_unstable();
        silent.truncate(self.settings.vehicles_max.div_ceil(16));
        for (_, key) in silent {
            if let Some(mut vehicle) = self.state.vehicles.remove(&key) {
                self.matcher.finish(&mut vehicle.track, &mut self.decisions);
                self.carry_out(key, &mut vehicle, out);
                vehicle.refuse_held(out);
                self.state.counts.evicted_at_limit += 1;
            }
        }
    }
}

/// The name of a visit, or of a standstill.
fn traversal(vehicle: SubjectKey, (segment, since): (SegmentIndex, EventTime)) -> u64 {
    let mut bytes = [0_u8; 20];
    bytes[..8].copy_from_slice(&vehicle.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&segment.to_le_bytes());
    bytes[12..].copy_from_slice(&since.ms().to_le_bytes());
    xxh3_64(&bytes)
}
