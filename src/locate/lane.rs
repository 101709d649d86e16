use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::track::{Hypothesis, Track};
use super::{
    Contribution, KEYING_WINDOW_MS, LocateCounts, Located, Match, PaneIndex, Place, Reading, Settings,
    Sighting, Unlocated, booking, emission, kinematics, transition,
};
use crate::ingest::{Event, Feed, Measurement, Probe, Rejection, SubjectKey};
use crate::network::router::{Path, Router};
use crate::network::{Candidate, Network, SegmentIndex};
use crate::units::EventTime;

/// Hypotheses kept of a vehicle between two fixes.
const HYPOTHESES_MAX: usize = 4;
/// Score, relative to the best, below which a hypothesis is not worth a search.
const HYPOTHESIS_FLOOR: f64 = -12.0;
/// One vehicle in this many is watched for appearing in two partitions.
const SIGHTING_SHARE: u64 = 16;

/// Segments of the sensors that have a site.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// Segment of each sensor.
    pub segments: BTreeMap<SubjectKey, SegmentIndex>,
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
    scratch: Scratch,
    /// The first pane that may be booked to, by the fix being worked on.
    open: PaneIndex,
}

/// What must survive of a lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    tracks: HashMap<SubjectKey, Track, FixedState>,
    /// Sensors bound by the position in their events.
    bound: BTreeMap<SubjectKey, Option<SegmentIndex>>,
    promised: Option<EventTime>,
    swept: Option<i64>,
    counts: LocateCounts,
}

#[derive(Debug, Default)]
struct Scratch {
    router: Router,
    candidates: Vec<Candidate>,
    targets: Vec<(SegmentIndex, u32)>,
    lengths: Vec<Option<u64>>,
    scores: Vec<f64>,
    path: Path,
    pieces: Vec<booking::Piece>,
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
            settings,
            network,
            sites,
            feed,
            pane_ms,
            observe,
            state: State::default(),
            scratch: Scratch::default(),
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
    }

    /// Counts so far.
    pub fn counts(&self) -> &LocateCounts {
        &self.state.counts
    }

    /// Vehicles tracked.
    pub fn vehicles(&self) -> usize {
        self.state.tracks.len()
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
        }
        let promise = if end {
            watermark
        } else {
            watermark.plus_ms(-behind)
        };
        self.state.promised = Some(self.state.promised.map_or(promise, |p| p.max(promise)));
    }

    /// The log has ended: fixes that still wait for others to agree are refused.
    fn finish(&mut self, out: &mut Located) {
        let mut held: Vec<Probe> = self
            .state
            .tracks
            .values_mut()
            .flat_map(|t| t.held.drain(..))
            .collect();
        held.sort_unstable();
        out.refused
            .extend(held.iter().map(|f| (f.offset, Rejection::Jump)));
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
        let candidates = &mut self.scratch.candidates;
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
        self.open = self.first_open(fix.time);
        self.sweep(fix.time, out);
        let vehicle = fix.vehicle;
        let track = self.state.tracks.remove(&vehicle);
        if vehicle.0.is_multiple_of(SIGHTING_SHARE) {
            let window_of = |time: EventTime| time.ms().div_euclid(KEYING_WINDOW_MS);
            let window = window_of(fix.time);
            // The track's last fix told of its own window: once is enough.
            if track.as_ref().is_none_or(|t| window_of(t.last.time) != window) {
                out.sightings.push(Sighting { window, vehicle });
            }
        }
        let Some(mut track) = track else {
            self.make_room(out);
            let track = self.begin(fix, out);
            self.state.tracks.insert(vehicle, track);
            return;
        };
        let gap = fix.time.since(track.last.time);
        if gap > i64::from(self.settings.break_s) * 1000 {
            out.refused
                .extend(track.held.iter().map(|h| (h.offset, Rejection::Jump)));
            track = self.begin(fix, out);
        } else if kinematics::frozen(&track.last, &fix, &self.settings) {
            track.frozen += 1;
            if track.frozen >= self.settings.frozen_fixes {
                out.refused.push((fix.offset, Rejection::Frozen));
            } else {
                self.step(&mut track, fix, out);
            }
        } else if kinematics::follows(&track.last, &fix, &self.settings) {
            out.refused
                .extend(track.held.drain(..).map(|h| (h.offset, Rejection::Jump)));
            track.frozen = 1;
            self.step(&mut track, fix, out);
        } else {
            self.hold(&mut track, fix, out);
        }
        self.state.tracks.insert(vehicle, track);
    }

    /// Keeps a fix that does not follow from the track; two in a row that follow from one another are
    /// believed, and the track goes on from there.
    fn hold(&mut self, track: &mut Track, fix: Probe, out: &mut Located) {
        let agrees = track
            .held
            .last()
            .is_some_and(|h| kinematics::follows(h, &fix, &self.settings));
        if agrees && let Some(first) = track.held.pop() {
            out.refused
                .extend(track.held.drain(..).map(|h| (h.offset, Rejection::Jump)));
            *track = self.begin(first, out);
            self.step(track, fix, out);
            return;
        }
        track.held.push(fix);
        if track.held.len() > 3 {
            let oldest = track.held.remove(0);
            out.refused.push((oldest.offset, Rejection::Jump));
        }
    }

    /// A track that begins with `fix`.
    fn begin(&mut self, fix: Probe, out: &mut Located) -> Track {
        let mut track = Track::begin(fix);
        self.candidates(&track.last);
        let scratch = &mut self.scratch;
        let (network, settings) = (&self.network, &self.settings);
        scratch.scores.clear();
        scratch.scores.extend(
            scratch
                .candidates
                .iter()
                .map(|c| emission::score(network, &track.last, c, settings)),
        );
        let place = self.decide(&mut track);
        track.posterior_permille = place.as_ref().map_or(0, |p| p.posterior_permille);
        self.place(&mut track, place, out);
        track
    }

    /// Moves a track on to `fix`: scores its candidates from every hypothesis, decides, books the step.
    fn step(&mut self, track: &mut Track, fix: Probe, out: &mut Located) {
        let from = std::mem::replace(&mut track.last, fix);
        if let Some(place) = self.dwell(track, &from) {
            self.stand(track, &from, &place, out);
            self.place(track, Ok(place), out);
            return;
        }
        let before = std::mem::take(&mut track.hypotheses);
        self.candidates(&track.last);
        self.score(&track.kept, &track.last, &before);
        let place = self.decide(track);
        if let (Some(start), Ok(to)) = (before.first(), &place) {
            self.book(track, &from, start, to, out);
        }
        track.kept = track.last.clone();
        track.posterior_permille = place.as_ref().map_or(0, |p| p.posterior_permille);
        self.place(track, place, out);
    }

    /// Where a vehicle stands: it is slow and has not left the place of the last fix that was scored. Noise of
    /// the receiver would turn it round otherwise, and a heading that says better is not given at a standstill.
    fn dwell(&self, track: &Track, from: &Probe) -> Option<Place> {
        let fix = &track.last;
        let here = track.hypotheses.first()?;
        let slow = match fix.speed {
            Some(speed) => f64::from(speed) / 1000.0,
            None => {
                let dt_s = fix.time.since(from.time) as f64 / 1000.0;
                from.position.distance_m(fix.position) / dt_s.max(0.001)
            }
        } < self.settings.dwell_speed_mps;
        let moved_m = track.kept.position.distance_m(fix.position);
        if !slow || moved_m >= f64::from(self.settings.thin_m) {
            return None;
        }
        let at = self.network.position_at(here.segment, here.offset_mm);
        Some(Place {
            segment: here.segment,
            offset_mm: here.offset_mm,
            distance_mm: (at.distance_m(fix.position) * 1000.0).round() as u32,
            posterior_permille: track.posterior_permille,
        })
    }

    /// Books the time of a vehicle that stands.
    fn stand(&mut self, track: &mut Track, from: &Probe, place: &Place, out: &mut Located) {
        let mut pieces = std::mem::take(&mut self.scratch.pieces);
        let (begin, end) = ((from.time, place.offset_mm), (track.last.time, place.offset_mm));
        booking::pieces(&self.network, &[place.segment], begin, end, &mut pieces);
        self.book_pieces(track, &pieces, place.posterior_permille, out);
        self.scratch.pieces = pieces;
    }

    /// Fills `candidates` for a fix: the nearest `k` within reach, more widely if there is none.
    fn candidates(&mut self, fix: &Probe) {
        let sigma = emission::sigma_m(fix, &self.settings);
        let radius = (4.0 * sigma).clamp(40.0, f64::from(self.settings.radius_m).max(40.0));
        let out = &mut self.scratch.candidates;
        self.network
            .candidates(fix.position, (radius * 1000.0) as u32, out);
        if out.is_empty() {
            self.network.candidates(fix.position, 100_000, out);
        }
        out.truncate(self.settings.k);
    }

    /// Fills `scores` of the candidates at `to`: the best way from any hypothesis, or a fresh start.
    fn score(&mut self, from: &Probe, to: &Probe, before: &[Hypothesis]) {
        let settings = &self.settings;
        let dt_s = to.time.since(from.time) as f64 / 1000.0;
        let straight_m = from.position.distance_m(to.position);
        let bound_mm = transition::bound_mm(straight_m, dt_s);
        let Scratch {
            router,
            candidates,
            targets,
            lengths,
            scores,
            ..
        } = &mut self.scratch;
        // What no way explains starts anew, at the price of the worst transition that a way could have.
        let fresh = HYPOTHESIS_FLOOR;
        scores.clear();
        scores.resize(candidates.len(), fresh);
        // The decided place comes last, so that its search can be traced when the step is booked.
        for hypothesis in before.iter().rev() {
            targets.clear();
            targets.extend(
                candidates
                    .iter()
                    .map(|c| self::target(hypothesis, (c.segment, c.offset_mm), settings)),
            );
            let start = (hypothesis.segment, hypothesis.offset_mm);
            router.paths(&self.network, start, targets, bound_mm, lengths);
            for ((best, length), cost) in scores.iter_mut().zip(lengths.iter()).zip(router.costs()) {
                if let (Some(length), Some(cost)) = (length, cost) {
                    let way = transition::score(*length, *cost, straight_m, dt_s, settings);
                    *best = best.max(hypothesis.score + way);
                }
            }
        }
        // Errors of successive fixes are correlated: dense data would count one error many times.
        let temper = (dt_s / 10.0).clamp(0.25, 1.0);
        for (score, candidate) in scores.iter_mut().zip(candidates.iter()) {
            *score += temper * emission::score(&self.network, to, candidate, settings);
        }
    }

    /// Keeps the best candidates as hypotheses and decides for the first.
    fn decide(&mut self, track: &mut Track) -> Result<Place, Unlocated> {
        let Scratch {
            candidates, scores, ..
        } = &mut self.scratch;
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        // Candidates are in the order of distance, bearing and id, which decides between equal scores.
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let first = *order.first().ok_or(Unlocated::OffRoad)?;
        let chosen = &candidates[first];
        // A place just across a junction on the way is the same answer to the statistics.
        let (next, before) = (
            self.network.successors(chosen.segment),
            self.network.predecessors(chosen.segment),
        );
        let twin = self.network.segment(chosen.segment).twin;
        let same_way = |s: SegmentIndex| {
            s == chosen.segment || (Some(s) != twin && (next.contains(&s) || before.contains(&s)))
        };
        let (mut sum, mut agreeing) = (0.0, 0.0);
        for (candidate, score) in candidates.iter().zip(scores.iter()) {
            let p = libm::exp(score - best);
            sum += p;
            if same_way(candidate.segment) {
                agreeing += p;
            }
        }
        track.hypotheses = order
            .iter()
            .take(HYPOTHESES_MAX)
            .filter(|&&i| scores[i] - best > HYPOTHESIS_FLOOR)
            .map(|&i| Hypothesis {
                segment: candidates[i].segment,
                offset_mm: candidates[i].offset_mm,
                score: scores[i] - best,
            })
            .collect();
        Ok(Place {
            segment: chosen.segment,
            offset_mm: chosen.offset_mm,
            distance_mm: chosen.distance_mm,
            posterior_permille: (1000.0 * agreeing / sum).round() as u16,
        })
    }

    /// Books the step between two places over segments and panes.
    fn book(&mut self, track: &mut Track, from: &Probe, start: &Hypothesis, to: &Place, out: &mut Located) {
        let target = target(start, (to.segment, to.offset_mm), &self.settings);
        let Scratch {
            router, path, pieces, ..
        } = &mut self.scratch;
        // The last search of the scoring began at `start`.
        if !router.trace(&self.network, target, path) {
            self.state.counts.broken += 1;
            track.visit = None;
            return;
        }
        // A place behind the last one on the same segment stands where the vehicle was.
        if let Some(h) = track.hypotheses.first_mut() {
            h.offset_mm = target.1;
        }
        booking::pieces(
            &self.network,
            &path.segments,
            (from.time, start.offset_mm),
            (track.last.time, target.1),
            pieces,
        );
        let pieces = std::mem::take(&mut self.scratch.pieces);
        self.book_pieces(track, &pieces, to.posterior_permille, out);
        self.scratch.pieces = pieces;
    }

    fn book_pieces(
        &mut self,
        track: &mut Track,
        pieces: &[booking::Piece],
        posterior_permille: u16,
        out: &mut Located,
    ) {
        let fix = &track.last;
        let sure = u32::from(posterior_permille) >= self.settings.min_posterior_permille;
        let weight = fix.class.weight_permille() * u32::from(posterior_permille) / 1000;
        for (k, piece) in pieces.iter().enumerate() {
            let visit = match track.visit {
                Some((segment, since)) if k == 0 && segment == piece.segment => (segment, since),
                _ => (piece.segment, piece.begin),
            };
            track.visit = Some(visit);
            if !sure {
                continue;
            }
            self.state.counts.overtaken_ms += booking::book(
                piece,
                self.pane_ms,
                self.open,
                (traversal(fix.vehicle, visit), visit.1),
                weight as u16,
                &mut out.contributions,
            );
        }
    }

    /// Counts the fix where it was placed and tells observers.
    fn place(&mut self, track: &mut Track, place: Result<Place, Unlocated>, out: &mut Located) {
        let fix = &track.last;
        match &place {
            Ok(place) => {
                self.state.counts.matched += 1;
                if track.visit.is_none_or(|(segment, _)| segment != place.segment) {
                    track.visit = Some((place.segment, fix.time));
                }
                if u32::from(place.posterior_permille) < self.settings.min_posterior_permille {
                    self.state.counts.ambiguous += 1;
                } else if let Some(visit) = track.visit
                    && let pane = fix.time.ms().div_euclid(self.pane_ms)
                    // A fix that was held for long may be too late for its pane.
                    && pane >= self.open
                {
                    out.contributions.push(Contribution {
                        pane,
                        segment: place.segment,
                        traversal: traversal(fix.vehicle, visit),
                        distance_mm: 0,
                        time_ms: 0,
                        weight_permille: 0,
                        positions: 1,
                        until_ms: fix.time.ms().rem_euclid(self.pane_ms) as u32,
                        entered: visit.1.ms().div_euclid(self.pane_ms) == pane,
                    });
                }
            }
            Err(_) => {
                self.state.counts.off_road += 1;
                track.visit = None;
            }
        }
        if self.observe {
            out.matches.push(Match {
                offset: fix.offset,
                vehicle: fix.vehicle,
                time: fix.time,
                place,
            });
        }
    }

    /// Once per minute of event time forgets vehicles that have been silent for `evict_s`.
    ///
    /// Driven by the events themselves, so that it happens at the same place of the log in every run.
    fn sweep(&mut self, now: EventTime, out: &mut Located) {
        let minute = now.ms().div_euclid(60_000);
        if self.state.swept.is_some_and(|s| s >= minute) {
            return;
        }
        self.state.swept = Some(minute);
        let bound = now.plus_ms(-i64::from(self.settings.evict_s) * 1000);
        let mut held = Vec::new();
        self.state.tracks.retain(|_, track| {
            let keep = track.last_seen() >= bound;
            if !keep {
                held.append(&mut track.held);
            }
            keep
        });
        held.sort_unstable();
        out.refused
            .extend(held.iter().map(|f| (f.offset, Rejection::Jump)));
    }

    /// At `vehicles_max` forgets the sixteenth that has been silent longest, ties by key.
    fn make_room(&mut self, out: &mut Located) {
        if self.state.tracks.len() < self.settings.vehicles_max {
            return;
        }
        let mut silent: Vec<(EventTime, SubjectKey)> = self
            .state
            .tracks
            .iter()
            .map(|(k, t)| (t.last_seen(), *k))
            .collect();
        silent.sort_unstable();
        silent.truncate(self.settings.vehicles_max.div_ceil(16));
        for (_, key) in silent {
            if let Some(track) = self.state.tracks.remove(&key) {
                out.refused
                    .extend(track.held.iter().map(|f| (f.offset, Rejection::Jump)));
                self.state.counts.evicted_at_limit += 1;
            }
        }
    }
}

/// Where a step to `to` ends: a place a little behind on the same segment is where the vehicle was.
fn target(from: &Hypothesis, to: (SegmentIndex, u32), settings: &Settings) -> (SegmentIndex, u32) {
    let behind =
        to.0 == from.segment && to.1 < from.offset_mm && from.offset_mm - to.1 <= settings.back_tol_m * 1000;
    (to.0, if behind { from.offset_mm } else { to.1 })
}

/// The name of a visit.
fn traversal(vehicle: SubjectKey, visit: (SegmentIndex, EventTime)) -> u64 {
    let mut bytes = [0_u8; 20];
    bytes[..8].copy_from_slice(&vehicle.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&visit.0.to_le_bytes());
    bytes[12..].copy_from_slice(&visit.1.ms().to_le_bytes());
    xxh3_64(&bytes)
}
