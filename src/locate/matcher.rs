//! The matcher: fixes of one vehicle in, decided places and the ways between them out (algorithms §2.2).

use std::sync::Arc;

use super::drift::{Drift, Unit, dot, right, unit};
use super::smoothing::{Filter, Odometer};
use super::track::{At, Fix, Part, Pending, Spot, Track};
use super::viterbi::{STATES_MAX, State};
use super::{Settings, Unlocated, candidates, emission, transition};
use crate::network::router::{Path, Router};
use crate::network::{Candidate, Network, SegmentIndex};
use crate::units::{Bearing, EventTime, Position};

/// How long a fix waits for later ones where whole traces are matched, in ms, even if all ways agree on its place:
/// they tell the receiver's error.
const FULL_LOOK_AHEAD_MS: i64 = 120_000;
/// How much longer a way from the last decided place may be than that from its state, in mm, before the place is
/// taken to lie beside the way.
const ASIDE_MM: u64 = 60_000;
/// Score, relative to the best of its column, below which a state is not worth a search.
const STATE_FLOOR: f32 = -10.0;
/// Farthest that a way between two decided places is searched, in mm.
const WAY_MAX_MM: u64 = 5_000_000;
/// Fixes in a row without a road near that end a track's way.
const OFF_ROAD_FIXES: u8 = 3;
/// Distance in mm at which a road is near again for a vehicle that was off the road.
const BACK_ON_ROAD_MM: u32 = 30_000;
/// A vehicle that stands is placed this far before the end of the segment that it has not left, in mm.
const STOP_LINE_MM: u32 = 500;

/// How long decisions may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// `lag_s` and `settle_s` of the settings.
    Online,
    /// Until the track ends, as whole traces are matched.
    Full,
}

/// What was decided of a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The fix.
    pub fix: Fix,
    /// Its place, or why it has none.
    pub place: Result<Decided, Unlocated>,
}

/// A decided place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The segment.
    pub segment: SegmentIndex,
    /// Distance from its beginning in mm.
    pub offset_mm: u32,
    /// Probability in permille: the share of this answer in the likelihood of all ways still possible.
    pub posterior_permille: u16,
    /// Segments of the way here, both ends included, as a range of [`Decisions::ways`]; empty where it is not
    /// known. It begins where the fix before was placed, or, if that has turned out to be wrong, beside it.
    pub way: (u32, u32),
    /// Distance of the way's beginning from the beginning of its first segment, in mm.
    pub from_mm: u32,
}

/// What a matcher gives on; reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// Fixes in order of time.
    pub fixes: Vec<Decision>,
    /// See [`Decided::way`].
    pub ways: Vec<SegmentIndex>,
    /// Times that no way could be found and a track began anew.
    pub breaks: u64,
}

impl Decisions {
    /// Forgets everything but the room.
    pub fn clear(&mut self) {
        self.fixes.clear();
        self.ways.clear();
        self.breaks = 0;
    }

    /// The way to a decided place.
    pub fn way(&self, place: &Decided) -> &[SegmentIndex] {
        &self.ways[place.way.0 as usize..place.way.1 as usize]
    }
}

/// The matcher: buffers and settings that many tracks share.
///
/// Decisions depend on the fixes of their own track alone, and never change.
///
/// ```
/// # use std::sync::Arc;
/// # use viaflux::network::{Network, BuildSettings, osm::{OsmData, OsmNode, OsmWay}};
/// use viaflux::locate::{Decisions, Fix, Lag, Matcher, Settings, Track};
/// use viaflux::units::{EventTime, Position};
///
/// # let mut osm = OsmData::default();
/// # for (id, lon) in [(1, 0.0), (2, 0.01)] {
/// #     osm.nodes.insert(id, OsmNode { lat: 50.0, lon, ..OsmNode::default() });
/// # }
/// # osm.ways.push(OsmWay { id: 7, nodes: vec![1, 2], tags: [("highway".into(), "primary".into())].into() });
/// # let network = Network::build(&osm, &BuildSettings::default()).0;
/// // let network = Network::load("city.map")?;
/// let mut matcher = Matcher::new(Arc::new(network), Settings::default(), Lag::Online);
/// let (mut track, mut out) = (Track::default(), Decisions::default());
/// for k in 0..5 {
///     let fix = Fix {
///         time: EventTime::from_ms(k * 5_000),
///         position: Position::from_degrees(50.00003, 0.001 + 0.001 * k as f64)?,
///         speed: None,
///         heading: None,
///         accuracy_mm: None,
///         bus_roads: false,
///         id: k as u64,
///     };
///     matcher.push(&mut track, fix, &mut out);
/// }
/// matcher.finish(&mut track, &mut out);
/// let place = out.fixes[4].place.expect("on the road");
/// assert_eq!(matcher.network().segment(place.segment).key.to_string(), "7:1:2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Matcher {
    network: Arc<Network>,
    settings: Settings,
    lag: Lag,
    router: Router,
    candidates: Vec<Candidate>,
    views: Vec<View>,
    targets: Vec<(SegmentIndex, u32)>,
    lengths: Vec<Option<u64>>,
    best: Vec<Best>,
    states: Vec<State>,
    drifts: Vec<(Drift, Bearing)>,
    path: Path,
    ahead: Path,
}

/// A candidate as the fix sees it.
#[derive(Clone, Copy, Debug)]
struct View {
    along: Unit,
    right: Unit,
    /// How far the fix lies to the right of it, in metres.
    aside_m: f64,
    /// Score of all but its distance to the right.
    rest: f64,
}

/// The best way to a candidate so far.
#[derive(Clone, Copy, Debug)]
struct Best {
    score: f64,
    back: u8,
    length_mm: u64,
}

/// A step from column to column.
#[derive(Clone, Copy, Debug)]
struct Step {
    moved_m: f64,
    dt_s: f64,
    /// Variance of the fix per axis in m².
    noise: f64,
    /// Share of the receiver's error that is left from the column before.
    share: f64,
}

impl Matcher {
    /// A matcher on a network.
    pub fn new(network: Arc<Network>, settings: Settings, lag: Lag) -> Self {
        Self {
            network,
            settings,
            lag,
            router: Router::default(),
            candidates: Vec::new(),
            views: Vec::new(),
            targets: Vec::new(),
            lengths: Vec::new(),
            best: Vec::new(),
            states: Vec::new(),
            drifts: Vec::new(),
            path: Path::default(),
            ahead: Path::default(),
        }
    }

    /// The network that it matches to.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Segments that searches have visited so far.
    pub fn visited(&self) -> u64 {
        self.router.visited()
    }

    /// Takes the next fix of a track, not older than the one before. A silence of more than `break_s` ends the
    /// track's way, which begins anew with `fix`.
    pub fn push(&mut self, track: &mut Track, fix: Fix, out: &mut Decisions) {
        if self.lag == Lag::Online {
            self.expire(track, fix.time, out);
        }
        let break_ms = i64::from(self.settings.break_s) * 1000;
        if track
            .last()
            .is_some_and(|last| fix.time.since(last.time) > break_ms)
        {
            self.finish(track, out);
        }
        let position = match &mut track.filter {
            Some(filter) => {
                let driven = Odometer::between(&filter.last, &fix);
                track.odometer = track.odometer.zip(driven).map(|(way, more)| way.plus(more));
                filter.push(fix, &self.settings)
            }
            None => track.filter.insert(Filter::new(fix, &self.settings)).position,
        };
        match track.lattice.last().map(|c| c.position.distance_m(position)) {
            None => self.start(track, fix, position),
            Some(moved) if moved < f64::from(self.settings.thin_m) => self.stay(track, fix, position),
            Some(moved) => self.step(track, fix, position, moved, out),
        }
        match self.lag {
            Lag::Online => {
                let due = fix.time.plus_ms(-i64::from(self.settings.lag_s) * 1000);
                let waits = |p: &Pending| p.fix.time > due;
                let ripe = track
                    .pending
                    .iter()
                    .position(waits)
                    .unwrap_or(track.pending.len());
                let over = track.pending.len().saturating_sub(self.settings.pending_max);
                self.decide_first(track, ripe.max(over), out);
            }
            Lag::Full => {
                // What all ways agree on is decided, when what comes can tell little more.
                while fix.time.since(track.pending[0].fix.time) > FULL_LOOK_AHEAD_MS && self.settled(track) {
                    self.decide_first(track, 1, out);
                }
            }
        }
    }

    /// Decides what was due before `now` ([`Track::due`]), as [`Matcher::push`] does with a fix of that time.
    pub fn expire(&mut self, track: &mut Track, now: EventTime, out: &mut Decisions) {
        while track.due(self.settings.settle_s).is_some_and(|due| due < now) {
            self.decide_first(track, 1, out);
        }
    }

    /// The track's way ends: decides all that is left.
    pub fn finish(&mut self, track: &mut Track, out: &mut Decisions) {
        self.decide_first(track, track.pending.len(), out);
        let room = std::mem::take(&mut track.pending);
        *track = Track {
            pending: room,
            ..Track::default()
        };
    }

    /// Whether the first fix that waits can only be decided in one way.
    fn settled(&self, track: &Track) -> bool {
        match track.pending[0].part {
            Part::OffRoad => true,
            Part::Column => track.lattice.certain(),
            Part::Between | Part::Skipped => track.lattice.certain_behind() && track.lattice.certain(),
        }
    }

    /// The first column of a way.
    fn start(&mut self, track: &mut Track, fix: Fix, position: Position) {
        self.find(&fix, position);
        let near = self.candidates.first().map(|c| c.distance_mm);
        if near.is_none_or(|d| track.off_road >= OFF_ROAD_FIXES && d > BACK_ON_ROAD_MM) {
            track.off_road = track.off_road.saturating_add(1);
            track.pending.push(Pending {
                fix,
                position,
                part: Part::OffRoad,
            });
            return;
        }
        self.states.clear();
        self.drifts.clear();
        let sigma_m = emission::sigma_m(&fix, &self.settings);
        for c in &self.candidates {
            let score = emission::distance(&fix, c, &self.settings)
                + emission::bearing_and_use(&self.network, &fix, c, &self.settings);
            let spot = Spot {
                segment: c.segment,
                offset_mm: c.offset_mm,
            };
            let along = unit(c.bearing);
            let mut drift = Drift::unknown(sigma_m * sigma_m);
            let aside = right(along);
            drift.observe(aside, dot(off_m(c), aside), self.drift_noise());
            self.states.push(State {
                spot,
                score: score as f32,
                ahead_cm: centi(drift.mean(along)),
                unsure_cm: centi(libm::sqrt(drift.variance(along))).unsigned_abs(),
                excess_cm: 0,
                back: 0,
            });
            self.drifts.push((drift, c.bearing));
        }
        track.odometer = None;
        self.keep(track, fix, position);
    }

    fn drift_noise(&self) -> f64 {
        self.settings.drift_noise_m * self.settings.drift_noise_m
    }

    fn find(&mut self, fix: &Fix, position: Position) {
        let fix = Fix { position, ..*fix };
        candidates::find(&self.network, &fix, &self.settings, &mut self.candidates);
    }

    /// Gives a fix a column of `states`, which are not empty.
    fn keep(&mut self, track: &mut Track, fix: Fix, position: Position) {
        let top = self
            .states
            .iter()
            .map(|s| s.score)
            .fold(f32::NEG_INFINITY, f32::max);
        for s in &mut self.states {
            s.score -= top;
        }
        track.drifts.clear();
        let drifts = &self.drifts;
        let mut k = 0;
        self.states.retain(|s| {
            let keep = s.score > STATE_FLOOR && track.drifts.len() < STATES_MAX;
            if keep {
                track.drifts.push(drifts[k]);
            }
            k += 1;
            keep
        });
        let odometer = track.odometer.map_or(f32::INFINITY, |o| o.variance);
        track.lattice.push(fix.time, position, odometer, &self.states);
        track.odometer = Some(Odometer::default());
        track.pending.push(Pending {
            fix,
            position,
            part: Part::Column,
        });
        (track.skipped, track.off_road) = (0, 0);
    }

    /// A fix so near the last column's that a step would tell noise from noise. It says a little more about
    /// where the vehicle is beside the road.
    fn stay(&mut self, track: &mut Track, fix: Fix, position: Position) {
        let before = track.pending.last().map(|p| p.fix.time).or(track.decided);
        let dt_s = before.map_or(0.0, |t| fix.time.since(t) as f64 / 1000.0);
        // What is left of the error of the fix before tells nothing new.
        let new = 1.0 - track.filter.map_or(0.0, |f| f.persistence.share(dt_s));
        let temper = new * (dt_s / self.settings.temper_s).min(self.settings.temper_min);
        let (network, sigma) = (&self.network, emission::sigma_m(&fix, &self.settings));
        track.lattice.rescore(|spot| {
            let d = network.lateral_mm(spot.segment, position) / 1000.0 / sigma;
            (temper * (-0.5 * d * d).max(self.settings.heading_floor)) as f32
        });
        track.pending.push(Pending {
            fix,
            position,
            part: Part::Between,
        });
    }

    /// The next column.
    fn step(&mut self, track: &mut Track, fix: Fix, position: Position, moved_m: f64, out: &mut Decisions) {
        let Some(last) = track.lattice.last().map(|c| c.time) else {
            return;
        };
        self.find(&fix, position);
        if self.candidates.is_empty() {
            track.off_road = track.off_road.saturating_add(1);
            if track.off_road >= OFF_ROAD_FIXES {
                let off_road = track.off_road;
                self.leave(track, out);
                track.off_road = off_road;
            }
            track.pending.push(Pending {
                fix,
                position,
                part: Part::OffRoad,
            });
            return;
        }
        let dt_s = (fix.time.since(last) as f64 / 1000.0).max(0.001);
        let temper = (dt_s / self.settings.temper_s).clamp(self.settings.temper_min, 1.0);
        let sigma_m = emission::sigma_m(&fix, &self.settings);
        let noise = sigma_m * sigma_m;
        self.views.clear();
        for c in &self.candidates {
            let along = unit(c.bearing);
            let off = off_m(c);
            // Beyond the end of a segment.
            let beyond = dot(off, along);
            let by_itself = emission::bearing_and_use(&self.network, &fix, c, &self.settings);
            self.views.push(View {
                along,
                right: right(along),
                aside_m: dot(off, right(along)),
                rest: temper * (by_itself - 0.5 * beyond * beyond / noise),
            });
        }
        let step = Step {
            moved_m,
            dt_s,
            noise,
            share: track.filter.map_or(0.0, |f| f.persistence.share(dt_s)),
        };
        self.transitions(track, step, transition::bound_mm(moved_m, dt_s));
        if self.states.is_empty() {
            self.transitions(track, step, transition::wide_bound_mm(moved_m));
        }
        if !self.states.is_empty() {
            self.keep(track, fix, position);
            return;
        }
        track.skipped += 1;
        let patient = dt_s <= f64::from(self.settings.skip_s);
        if track.skipped <= self.settings.skip_points && patient {
            track.pending.push(Pending {
                fix,
                position,
                part: Part::Skipped,
            });
            return;
        }
        out.breaks += 1;
        self.leave(track, out);
        self.start(track, fix, position);
    }

    /// Ends the way, but not the vehicle.
    fn leave(&mut self, track: &mut Track, out: &mut Decisions) {
        let filter = track.filter;
        self.finish(track, out);
        track.filter = filter;
    }

    /// Fills `states` with the candidates that a way of at most `bound_mm` leads to.
    fn transitions(&mut self, track: &Track, step: Step, bound_mm: u64) {
        let front = track.lattice.front();
        let nothing = Best {
            score: f64::NEG_INFINITY,
            back: 0,
            length_mm: 0,
        };
        self.best.clear();
        self.best.resize(self.candidates.len(), nothing);
        let drift_noise = self.drift_noise();
        for (j, (from, (drift, _))) in front.iter().zip(&track.drifts).enumerate() {
            self.targets.clear();
            for c in &self.candidates {
                self.targets.push(target(
                    from.spot,
                    (c.segment, c.offset_mm),
                    self.settings.back_tol_m,
                ));
            }
            let start = (from.spot.segment, from.spot.offset_mm);
            self.router
                .paths(&self.network, start, &self.targets, bound_mm, &mut self.lengths);
            let drift = drift.later(step.share, step.noise);
            for (i, (length, cost)) in self.lengths.iter().zip(self.router.costs()).enumerate() {
                if let (Some(length_mm), Some(cost)) = (*length, *cost) {
                    let view = &self.views[i];
                    let miss = view.aside_m - drift.mean(view.right);
                    let variance = drift.variance(view.right) + drift_noise;
                    let way = transition::score(length_mm, cost, step.moved_m, step.dt_s, &self.settings);
                    let score = f64::from(from.score) + way - 0.5 * miss * miss / variance;
                    if score > self.best[i].score {
                        self.best[i] = Best {
                            score,
                            back: j as u8,
                            length_mm,
                        };
                    }
                }
            }
        }
        self.states.clear();
        self.drifts.clear();
        for i in 0..self.candidates.len() {
            if self.best[i].score > f64::NEG_INFINITY {
                let (state, drift) = self.arrive(track, step, i);
                self.states.push(state);
                self.drifts.push((drift, self.candidates[i].bearing));
            }
        }
    }

    /// The state of a candidate after the best way there.
    fn arrive(&self, track: &Track, step: Step, i: usize) -> (State, Drift) {
        let (best, view, candidate) = (&self.best[i], &self.views[i], &self.candidates[i]);
        let from = track.lattice.front()[usize::from(best.back)];
        let (drift, bearing) = &track.drifts[usize::from(best.back)];
        let (segment, offset_mm) = target(
            from.spot,
            (candidate.segment, candidate.offset_mm),
            self.settings.back_tol_m,
        );
        // A spot that was held where it was is ahead of the fix.
        let held_m = f64::from(offset_mm - candidate.offset_mm) / 1000.0;
        let was = unit(*bearing);
        let mut excess_m = 0.0;
        let mut drift = match track.odometer {
            Some(odometer) => {
                excess_m = best.length_mm as f64 / 1000.0 - f64::from(odometer.way_m);
                let held_before_m = f64::from(from.ahead_cm) / 100.0 - drift.mean(was);
                let grown = excess_m - held_m + held_before_m;
                let of = (step.share, step.noise);
                drift.later_grown(of, (was, view.along), (grown, f64::from(odometer.variance)))
            }
            None => drift.later(step.share, step.noise),
        };
        drift.observe(view.right, view.aside_m, self.drift_noise());
        let state = State {
            spot: Spot { segment, offset_mm },
            score: (best.score + view.rest) as f32,
            ahead_cm: centi(drift.mean(view.along) + held_m),
            unsure_cm: centi(libm::sqrt(drift.variance(view.along).max(0.0))).unsigned_abs(),
            excess_cm: centi(excess_m),
            back: best.back,
        };
        (state, drift)
    }

    /// Decides the first `n` fixes that wait.
    fn decide_first(&mut self, track: &mut Track, n: usize, out: &mut Decisions) {
        for i in 0..n {
            let pending = track.pending[i];
            let place = match pending.part {
                Part::Column => self.decide(track, &pending, out),
                Part::Between => {
                    let reach_m = self.settings.offroad_m;
                    self.between(track, &pending, reach_m, out)
                }
                Part::Skipped => {
                    let reach_m = self.settings.back_tol_m;
                    self.between(track, &pending, reach_m, out)
                }
                Part::OffRoad => None,
            };
            let place = place.ok_or(match pending.part {
                Part::OffRoad => Unlocated::OffRoad,
                _ => Unlocated::NoWay,
            });
            // A single fix that no way explains does not end the way of the others.
            if place.is_err() && pending.part != Part::Skipped {
                (track.at, track.tail) = (None, None);
            }
            track.decided = Some(pending.fix.time);
            out.fixes.push(Decision {
                fix: pending.fix,
                place,
            });
        }
        track.pending.drain(..n);
    }

    /// Decides the next column.
    fn decide(&mut self, track: &mut Track, pending: &Pending, out: &mut Decisions) -> Option<Decided> {
        let (behind, _) = track.lattice.ahead();
        track.ahead_m = track.lattice.ahead_m() as f32;
        let network = &self.network;
        // A place just across a junction on the way is the same answer to the statistics.
        let (spot, posterior) = track.lattice.decide(|a, b| {
            network.segment(a.segment).twin != Some(b.segment)
                && (network.successors(a.segment).contains(&b.segment)
                    || network.predecessors(a.segment).contains(&b.segment))
        })?;
        track.posterior_permille = (posterior * 1000.0).round() as u16;
        let begin = behind.and_then(|behind| self.way(track, behind, spot));
        if begin.is_none() {
            self.path.segments.clear();
            self.path.segments.push(spot.segment);
        }
        let k = self.path.segments.len() - 1;
        let place = match begin {
            // It stood: its spot lies on a segment that it has left, the way ends where it was.
            Some((_, offset_mm)) if self.path.segments[k] != spot.segment => Spot {
                segment: self.path.segments[k],
                offset_mm,
            },
            _ => {
                let ahead_mm = f64::from(track.ahead_m) * 1000.0;
                let high_mm = self.extend(track, spot, ahead_mm);
                self.shift(k, spot, ahead_mm, begin.unwrap_or((0, 0)), high_mm)
            }
        };
        let place = self.go(track, pending, begin, place, out);
        track.tail = Some(spot);
        Some(place)
    }

    /// Makes `path`, which ends in `spot`, longer where the vehicle is beyond its last segment and all ways agree on
    /// how it went on. Returns the offset on the last segment that the vehicle has not passed.
    fn extend(&mut self, track: &Track, spot: Spot, ahead_mm: f64) -> u32 {
        let length = self.network.segment(spot.segment).length_mm;
        let beyond = f64::from(spot.offset_mm) - ahead_mm > f64::from(length);
        let (_, next) = track.lattice.ahead();
        match next {
            Some(next) if beyond && next.segment != spot.segment && track.lattice.certain() => {
                let from = (spot.segment, spot.offset_mm);
                let to = (next.segment, next.offset_mm);
                if !self
                    .router
                    .path(&self.network, from, to, WAY_MAX_MM, &mut self.ahead)
                {
                    return length;
                }
                self.path.segments.extend_from_slice(&self.ahead.segments[1..]);
                next.offset_mm
            }
            _ => length,
        }
    }

    /// Moves a spot on segment `k` of `path` back by `ahead_mm` (forward if negative), not beyond a place on an
    /// earlier segment or an offset on the last, and cuts the path there.
    fn shift(&mut self, mut k: usize, spot: Spot, ahead_mm: f64, low: (usize, u32), high_mm: u32) -> Spot {
        let segments = &mut self.path.segments;
        let length = |segment| f64::from(self.network.segment(segment).length_mm);
        let last = segments.len() - 1;
        let mut offset = f64::from(spot.offset_mm) - ahead_mm;
        while offset < 0.0 && k > low.0 {
            k -= 1;
            offset += length(segments[k]);
        }
        while k < last && offset > length(segments[k]) {
            offset -= length(segments[k]);
            k += 1;
        }
        if k == last {
            offset = offset.min(f64::from(high_mm));
        }
        if k == low.0 {
            offset = offset.max(f64::from(low.1));
        }
        segments.truncate(k + 1);
        Spot {
            segment: segments[k],
            offset_mm: offset.clamp(0.0, length(segments[k])) as u32,
        }
    }

    /// Places a fix without a column on the way between its neighbours that have one, if it is within `reach_m`.
    fn between(
        &mut self,
        track: &mut Track,
        pending: &Pending,
        reach_m: u32,
        out: &mut Decisions,
    ) -> Option<Decided> {
        let (behind, ahead) = track.lattice.ahead();
        let behind = behind?;
        // With nothing ahead it is still on the segment.
        let to = ahead.unwrap_or(Spot {
            segment: behind.segment,
            offset_mm: self.network.segment(behind.segment).length_mm,
        });
        let begin = self.way(track, behind, to);
        let place = match begin {
            Some(begin) => {
                let high = if self.path.segments.last() == Some(&to.segment) {
                    to.offset_mm
                } else {
                    u32::MAX
                };
                let (k, spot, distance) = self.project(pending.position, begin, high);
                if distance > f64::from(reach_m) * 1000.0 {
                    return None;
                }
                // The error fades with time, in both directions.
                let share = match (track.lattice.decided_at(), &track.filter) {
                    (Some(then), Some(filter)) => {
                        let dt_s = pending.fix.time.since(then) as f64 / 1000.0;
                        filter.persistence.share(dt_s)
                    }
                    _ => 0.0,
                };
                let ahead_mm = share * f64::from(track.ahead_m) * 1000.0;
                self.shift(k, spot, ahead_mm, begin, high)
            }
            None => {
                let there = self.network.position_at(behind.segment, behind.offset_mm);
                if there.distance_m(pending.position) > f64::from(reach_m) {
                    return None;
                }
                behind
            }
        };
        let place = self.go(track, pending, begin, place, out);
        track.tail = Some(behind);
        Some(place)
    }

    /// Fills `path` with the way from the state `behind` to `to`, and tells where on it the last fix was placed:
    /// index of the segment and offset.
    fn way(&mut self, track: &Track, behind: Spot, to: Spot) -> Option<(usize, u32)> {
        let at = track.at.as_ref()?;
        let tolerance = self.settings.back_tol_m;
        let follows = track.tail == Some(behind);
        let (network, path) = (&self.network, &mut self.path);
        if follows {
            // On the way to a place behind the last one the vehicle stood.
            let end = target(at.spot, (to.segment, to.offset_mm), tolerance);
            let back = (at.spot.segment, at.spot.offset_mm);
            if end.0 != back.0
                && self
                    .router
                    .path(network, end, back, u64::from(tolerance) * 1000, path)
            {
                path.segments.clear();
                path.segments.push(back.0);
                return Some((0, back.1));
            }
            let mut bound = WAY_MAX_MM;
            if at.spot != behind && end.0 != back.0 {
                let (from, to) = (
                    (behind.segment, behind.offset_mm),
                    target(behind, (to.segment, to.offset_mm), tolerance),
                );
                if !self.router.path(network, from, to, WAY_MAX_MM, path) {
                    return None;
                }
                bound = path.length_mm + ASIDE_MM;
            }
            if self.router.path(network, back, end, bound, path) {
                return Some((0, back.1));
            }
        }
        // What was decided has turned out to be wrong: the way goes on from beside it.
        let end = target(behind, (to.segment, to.offset_mm), tolerance);
        if !self
            .router
            .path(network, (behind.segment, behind.offset_mm), end, WAY_MAX_MM, path)
        {
            return None;
        }
        let (k, spot, _) = self.project(at.position, (0, behind.offset_mm), end.1);
        Some((k, spot.offset_mm))
    }

    /// The place of `path` nearest to a position, from a place on it to an offset on its last segment: index,
    /// place, and distance in mm.
    fn project(&self, position: Position, low: (usize, u32), high_mm: u32) -> (usize, Spot, f64) {
        let first = Spot {
            segment: self.path.segments[low.0],
            offset_mm: low.1,
        };
        let mut best = (low.0, first, f64::INFINITY);
        for (k, &segment) in self.path.segments.iter().enumerate().skip(low.0) {
            let from = if k == low.0 { low.1 } else { 0 };
            let to = if k + 1 == self.path.segments.len() {
                high_mm
            } else {
                u32::MAX
            };
            let (offset_mm, distance) = self.network.project_on(segment, position, from, to.max(from));
            if distance < best.2 {
                best = (k, Spot { segment, offset_mm }, distance);
            }
        }
        best
    }

    /// Moves a track on to a place, along `path` from a place on it.
    fn go(
        &mut self,
        track: &mut Track,
        pending: &Pending,
        begin: Option<(usize, u32)>,
        mut spot: Spot,
        out: &mut Decisions,
    ) -> Decided {
        let first = out.ways.len();
        if let Some((k, offset_mm)) = begin {
            let stands = self.stands(&pending.fix);
            let way = &mut self.path.segments;
            way.drain(..k);
            if let [.., before, last] = way[..]
                && stands
                && spot.offset_mm < self.settings.dwell_snap_m * 1000
                && spot.offset_mm < self.network.segment(last).length_mm / 2
            {
                // It stands at the stop line, whatever the receiver says (algorithms §3.1, step 1).
                way.pop();
                let length = self.network.segment(before).length_mm;
                spot = Spot {
                    segment: before,
                    offset_mm: length.saturating_sub(STOP_LINE_MM),
                };
            }
            if let [only] = way[..] {
                // Noise does not drive backwards.
                spot = Spot {
                    segment: only,
                    offset_mm: spot.offset_mm.max(offset_mm),
                };
            } else if let Some(&last) = way.last() {
                spot.segment = last;
            }
            out.ways.extend_from_slice(way);
        }
        track.at = Some(At {
            spot,
            position: pending.position,
        });
        Decided {
            segment: spot.segment,
            offset_mm: spot.offset_mm,
            posterior_permille: track.posterior_permille,
            way: (first as u32, out.ways.len() as u32),
            from_mm: begin.map_or(0, |b| b.1),
        }
    }

    fn stands(&self, fix: &Fix) -> bool {
        fix.speed
            .is_some_and(|v| f64::from(v) / 1000.0 < self.settings.dwell_speed_mps)
    }
}

/// Where a way to `to` ends: a place a little behind on the same segment is where the vehicle was.
fn target(from: Spot, to: (SegmentIndex, u32), back_tol_m: u32) -> (SegmentIndex, u32) {
    let behind = to.0 == from.segment && to.1 < from.offset_mm && from.offset_mm - to.1 <= back_tol_m * 1000;
    (to.0, if behind { from.offset_mm } else { to.1 })
}

/// Where a fix lies from a candidate, in metres to the east and north.
fn off_m(candidate: &Candidate) -> (f64, f64) {
    let (east, north) = candidate.off_mm;
    (f64::from(east) / 1000.0, f64::from(north) / 1000.0)
}

/// Metres as whole centimetres; what does not fit is as far as can be told.
fn centi(metres: f64) -> i16 {
    (metres * 100.0)
        .round()
        .clamp(f64::from(i16::MIN + 1), f64::from(i16::MAX)) as i16
}
