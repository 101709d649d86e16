//! Are positions put on the true road?

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::files;
use super::intervals::{CLASSES_S, Gaps};
use super::ratio;
use super::reliability::{self, Reliability};
use super::truth::Truth;
use crate::units::Position;

/// Silence after which a vehicle that is on the same edge again has come back, in ms.
const VISIT_GAP_MS: i64 = 300_000;
/// Speed in m/s above which a step of a vehicle is no drive: it was moved, or its clock was wrong.
const STEP_MPS: f64 = 60.0;

/// Where the run put a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The record was not accepted: no line in matches.ndjson.
    Absent,
    /// Accepted, but put nowhere.
    Unlocated,
    /// On a way, in a direction, with a posterior in permille if it was told.
    On(i64, bool, Option<u16>),
}

#[derive(Deserialize)]
struct MatchRow {
    line: u64,
    way_id: Option<i64>,
    forward: Option<bool>,
    posterior: Option<f64>,
}

/// Reads `matches.ndjson`: places by line, line 1 first.
pub(super) fn read_matches(run: &Path) -> anyhow::Result<Option<Vec<Place>>> {
    let mut places = Vec::new();
    let found = files::rows(run, "matches.ndjson", |row: MatchRow| {
        let i = usize::try_from(row.line)
            .ok()
            .and_then(|l| l.checked_sub(1))
            .context("lines count from 1")?;
        if i >= places.len() {
            places.resize(i + 1, Place::Absent);
        }
        places[i] = match (row.way_id, row.forward) {
            (Some(way), Some(forward)) => {
                let permille = |p: f64| (p.clamp(0.0, 1.0) * 1000.0).round() as u16;
                Place::On(way, forward, row.posterior.map(permille))
            }
            _ => Place::Unlocated,
        };
        Ok(())
    })?;
    Ok(found.then_some(places))
}

/// Where a vehicle really was when it sent a line.
#[derive(Clone, Copy, Debug)]
enum Mark {
    /// On an edge.
    Edge(u32),
    /// In a junction, between two edges.
    Junction(Option<u32>, Option<u32>),
    /// On a way; the direction is not known.
    Way(i64),
    /// Not known, or not to be scored.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ok,
    Late,
    Outlier,
    Other,
}

/// The true places of all lines, and what else they tell.
#[derive(Debug)]
pub(super) struct Points {
    /// By line, line 1 first.
    marks: Vec<(Kind, Mark)>,
    /// By line: the vehicle, and the metres that it drove since its line before, as far as that is known.
    steps: Vec<(u32, f32)>,
    /// By vehicle: times between its good lines.
    gaps: Vec<Gaps>,
    /// Lines of each kind.
    pub(super) kinds: BTreeMap<String, u64>,
    /// Lines.
    pub(super) lines: u64,
    /// Lines left out because the vehicle was moved by hand.
    teleported: u64,
    /// By edge and minute: visits of probes that begin in it, and visits that were there before it already.
    visits: Vec<(u32, u32)>,
    minute_count: usize,
}

#[derive(Deserialize)]
struct PointRow<'a> {
    line: u64,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    vehicle_id: Cow<'a, str>,
    ts: i64,
    lon: Option<f64>,
    lat: Option<f64>,
    #[serde(borrow)]
    edge: Option<Cow<'a, str>>,
    way: Option<i64>,
    #[serde(borrow)]
    prev_edge: Option<Cow<'a, str>>,
    #[serde(borrow)]
    next_edge: Option<Cow<'a, str>>,
}

/// What reading must remember of a vehicle.
struct Vehicle {
    /// Its place in [`Points::gaps`].
    index: u32,
    /// Its last good line: when, and where it really was.
    last: Option<(i64, Option<Position>)>,
    /// The edge that it was seen on last, and when.
    visit: Option<(u32, i64)>,
}

impl Points {
    /// Reads `truth-points.ndjson`.
    pub(super) fn read(folder: &Path, truth: &Truth) -> anyhow::Result<Option<Self>> {
        let mut points = Points {
            marks: Vec::new(),
            steps: Vec::new(),
            gaps: Vec::new(),
            kinds: BTreeMap::new(),
            lines: 0,
            teleported: 0,
            visits: vec![(0, 0); truth.minutes.len()],
            minute_count: truth.minute_count,
        };
        let mut vehicles: HashMap<String, Vehicle> = HashMap::new();
        let found = files::lines(folder, "truth-points.ndjson", |line| {
            let row: PointRow<'_> = serde_json::from_slice(line)?;
            points.add(&row, truth, &mut vehicles)
        })?;
        Ok(found.then_some(points))
    }

    fn add(
        &mut self,
        row: &PointRow<'_>,
        truth: &Truth,
        vehicles: &mut HashMap<String, Vehicle>,
    ) -> anyhow::Result<()> {
        let kind = match row.kind.as_deref() {
            None | Some("ok") => Kind::Ok,
            Some("late") => Kind::Late,
            Some("outlier") => Kind::Outlier,
            Some(_) => Kind::Other,
        };
        if let Some(word) = &row.kind {
            match self.kinds.get_mut(word.as_ref()) {
                Some(count) => *count += 1,
                None => drop(self.kinds.insert(word.to_string(), 1)),
            }
        }
        self.lines += 1;
        let index = |id: &Option<Cow<'_, str>>| {
            id.as_ref()
                .and_then(|id| truth.edge_index.get(id.as_ref()).copied())
        };
        let edge = index(&row.edge);
        let mark = if truth.teleported(&row.vehicle_id, row.ts) {
            self.teleported += 1;
            Mark::None
        } else if let Some(edge) = edge {
            Mark::Edge(edge)
        } else if row.prev_edge.is_some() || row.next_edge.is_some() {
            Mark::Junction(index(&row.prev_edge), index(&row.next_edge))
        } else {
            row.way.map_or(Mark::None, Mark::Way)
        };
        let i = usize::try_from(row.line)
            .ok()
            .and_then(|l| l.checked_sub(1))
            .context("lines count from 1")?;
        if i >= self.marks.len() {
            self.marks.resize(i + 1, (Kind::Other, Mark::None));
        }
        self.marks[i] = (kind, mark);
        if kind == Kind::Other {
            return Ok(());
        }
        let vehicle = match vehicles.get_mut(row.vehicle_id.as_ref()) {
            Some(vehicle) => vehicle,
            None => {
                let index = self.gaps.len() as u32;
                self.gaps.push(Gaps::default());
                vehicles.entry(row.vehicle_id.to_string()).or_insert(Vehicle {
                    index,
                    last: None,
                    visit: None,
                })
            }
        };
        if kind == Kind::Ok {
            let metres = self.step(row, vehicle);
            self.steps.resize(self.marks.len(), (0, 0.0));
            self.steps[i] = (vehicle.index, metres);
        }
        if let Some(edge) = edge {
            self.visit(edge, row.ts, truth, vehicle);
        }
        Ok(())
    }

    /// Books the time since the good line before and returns the metres driven in it, in a straight line.
    fn step(&mut self, row: &PointRow<'_>, vehicle: &mut Vehicle) -> f32 {
        let here = row.lat.zip(row.lon);
        let here = here.and_then(|(lat, lon)| Position::from_degrees(lat, lon).ok());
        let before = vehicle.last;
        if before.is_some_and(|(seen, _)| row.ts <= seen) {
            return 0.0;
        }
        vehicle.last = Some((row.ts, here));
        let Some((seen, there)) = before.filter(|(seen, _)| row.ts - seen < VISIT_GAP_MS) else {
            return 0.0;
        };
        let ms = row.ts - seen;
        self.gaps[vehicle.index as usize].add(ms);
        let metres = here.zip(there).map_or(0.0, |(a, b)| a.distance_m(b));
        if metres * 1000.0 <= STEP_MPS * ms as f64 {
            metres as f32
        } else {
            0.0
        }
    }

    /// Books that a probe was on an edge.
    fn visit(&mut self, edge: u32, ts: i64, truth: &Truth, vehicle: &mut Vehicle) {
        let before = vehicle.visit;
        // A line that came late tells of a visit that is booked already.
        if before.is_some_and(|(_, seen)| ts <= seen) {
            return;
        }
        vehicle.visit = Some((edge, ts));
        let Some(minute) = truth.minute_of(ts) else { return };
        let slot = |k: usize| edge as usize * truth.minute_count + k;
        match before.filter(|(e, seen)| *e == edge && ts - seen < VISIT_GAP_MS) {
            Some((_, seen)) => {
                let since = truth.minute_of(seen).unwrap_or(0);
                for k in since + 1..=minute {
                    self.visits[slot(k)].1 += 1;
                }
            }
            None => self.visits[slot(minute)].0 += 1,
        }
    }

    /// Probes that were on an edge in the `n` minutes up to and with `k`, as far as their records show.
    pub(super) fn passages(&self, edge: u32, k: usize, n: usize) -> u32 {
        let first = (k + 1).saturating_sub(n);
        let slot = |k: usize| self.visits[edge as usize * self.minute_count + k];
        slot(first).1 + (first..=k).map(|k| slot(k).0).sum::<u32>()
    }
}

/// Positions on the true road.
#[derive(Debug, Default, Serialize)]
pub struct PointsReport {
    /// Good points (kind `ok`) on an edge of known way and direction: on the true way in the true direction.
    /// A point that was not accepted or not located counts as wrong.
    pub strict: Tally,
    /// Good points in a junction: on the way and direction of the edge before or behind it.
    pub junction: Tally,
    /// Points that came late and were accepted.
    pub late: Tally,
    /// Outliers that were accepted.
    pub outlier: Tally,
    /// Good points whose truth knows the way only: on that way.
    pub way_known: Tally,
    /// Points left out because the vehicle was moved by hand.
    pub teleported: u64,
    /// The points of `strict` by the sampling interval of their vehicle.
    pub intervals: Vec<IntervalReport>,
    /// Whether the points of `strict` that were located are as often right as the run says.
    pub reliability: Option<Reliability>,
    /// Times that no way could be found between two positions and a track began anew.
    pub breaks: Option<u64>,
}

/// Points of vehicles with like sampling intervals.
#[derive(Debug, Serialize)]
pub struct IntervalReport {
    /// Class of the interval in seconds.
    pub interval_s: u32,
    /// Their points.
    pub points: Tally,
    /// Metres driven to the points, in straight lines from point to point.
    pub driven_m: f64,
    /// Share of these metres that lead to points that are right.
    pub recall: Option<f64>,
    /// The same of the metres that lead to points that are located.
    pub precision: Option<f64>,
    /// Whether they are as often right as the run says.
    pub reliability: Option<Reliability>,
}

/// Sums over the points of one class.
#[derive(Default)]
struct Class {
    tally: Tally,
    driven_m: f64,
    located_m: f64,
    right_m: f64,
    reliability: reliability::Tally,
}

impl Class {
    fn add(&mut self, place: Place, truth: &[(i64, Option<bool>)], metres: f64) {
        let right = self.tally.add(place, truth);
        self.driven_m += metres;
        if let Place::On(_, _, posterior) = place {
            self.located_m += metres;
            self.right_m += if right { metres } else { 0.0 };
            if let Some(permille) = posterior {
                self.reliability.add(permille, right);
            }
        }
    }

    fn report(mut self, interval_s: u32) -> IntervalReport {
        self.tally.finish();
        let share = |whole: f64| (whole > 0.0).then(|| self.right_m / whole);
        IntervalReport {
            interval_s,
            driven_m: self.driven_m,
            recall: share(self.driven_m),
            precision: share(self.located_m),
            reliability: self.reliability.report(),
            points: self.tally,
        }
    }
}

/// Counts of points of one kind.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// Points scored.
    pub points: u64,
    /// Accepted by the run.
    pub accepted: u64,
    /// Put on a segment.
    pub located: u64,
    /// On the true way, in either direction.
    pub on_way: u64,
    /// On the true way in the true direction.
    pub correct: u64,
    /// `correct` / `points`.
    pub correct_ratio: Option<f64>,
    /// `on_way` / `points`.
    pub on_way_ratio: Option<f64>,
    /// `correct` / `located`.
    pub correct_of_located_ratio: Option<f64>,
}

impl Tally {
    /// Counts a point and tells whether it is right.
    fn add(&mut self, place: Place, truth: &[(i64, Option<bool>)]) -> bool {
        self.points += 1;
        self.accepted += u64::from(place != Place::Absent);
        let Place::On(way, forward, _) = place else {
            return false;
        };
        self.located += 1;
        let on = truth.iter().filter(|t| t.0 == way);
        let right = on.clone().any(|t| t.1.is_none_or(|f| f == forward));
        self.on_way += u64::from(on.clone().next().is_some());
        self.correct += u64::from(right);
        right
    }

    fn finish(&mut self) {
        self.correct_ratio = ratio(self.correct, self.points);
        self.on_way_ratio = ratio(self.on_way, self.points);
        self.correct_of_located_ratio = ratio(self.correct, self.located);
    }
}

/// Compares the places of a run with the true ones.
pub(super) fn score(matches: &[Place], points: &Points, truth: &Truth, breaks: Option<u64>) -> PointsReport {
    let mut report = PointsReport {
        teleported: points.teleported,
        breaks,
        ..PointsReport::default()
    };
    let mut classes: [Class; CLASSES_S.len()] = Default::default();
    let way = |edge: u32| truth.edges[edge as usize].way.map(|(w, f)| (w, Some(f)));
    for (i, &(kind, mark)) in points.marks.iter().enumerate() {
        let place = matches.get(i).copied().unwrap_or(Place::Absent);
        let (ways, tally) = match (kind, mark) {
            (_, Mark::None) | (Kind::Other, _) => continue,
            (Kind::Ok, Mark::Edge(e)) => (vec![way(e)], &mut report.strict),
            (Kind::Ok, Mark::Junction(a, b)) => {
                (vec![a.and_then(way), b.and_then(way)], &mut report.junction)
            }
            (Kind::Ok, Mark::Way(w)) => (vec![Some((w, None))], &mut report.way_known),
            (Kind::Late, Mark::Edge(e)) if place != Place::Absent => (vec![way(e)], &mut report.late),
            (Kind::Outlier, Mark::Edge(e)) if place != Place::Absent => (vec![way(e)], &mut report.outlier),
            (Kind::Late | Kind::Outlier, _) => continue,
        };
        let ways: Vec<_> = ways.into_iter().flatten().collect();
        if ways.is_empty() {
            continue;
        }
        tally.add(place, &ways);
        if let (Kind::Ok, Mark::Edge(_)) = (kind, mark) {
            let (vehicle, metres) = points.steps[i];
            if let Some(class) = points.gaps[vehicle as usize].class() {
                classes[class].add(place, &ways, f64::from(metres));
            }
        }
    }
    let mut reliability = reliability::Tally::default();
    for (class, interval_s) in classes.into_iter().zip(CLASSES_S) {
        if class.tally.points > 0 {
            reliability.merge(&class.reliability);
            report.intervals.push(class.report(interval_s));
        }
    }
    report.reliability = reliability.report();
    for tally in [
        &mut report.strict,
        &mut report.junction,
        &mut report.late,
        &mut report.outlier,
        &mut report.way_known,
    ] {
        tally.finish();
    }
    report
}
