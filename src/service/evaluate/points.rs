//! Are positions put on the true road?

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::files;
use super::ratio;
use super::truth::Truth;

/// Silence after which a vehicle that is on the same edge again has come back, in ms.
const VISIT_GAP_MS: i64 = 300_000;

/// Where the run put a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The record was not accepted: no line in matches.ndjson.
    Absent,
    /// Accepted, but put nowhere.
    Unlocated,
    /// On a way, in a direction.
    On(i64, bool),
}

#[derive(Deserialize)]
struct MatchRow {
    line: u64,
    way_id: Option<i64>,
    forward: Option<bool>,
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
            (Some(way), Some(forward)) => Place::On(way, forward),
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
    #[serde(borrow)]
    edge: Option<Cow<'a, str>>,
    way: Option<i64>,
    #[serde(borrow)]
    prev_edge: Option<Cow<'a, str>>,
    #[serde(borrow)]
    next_edge: Option<Cow<'a, str>>,
}

impl Points {
    /// Reads `truth-points.ndjson`.
    pub(super) fn read(folder: &Path, truth: &Truth) -> anyhow::Result<Option<Self>> {
        let mut points = Points {
            marks: Vec::new(),
            kinds: BTreeMap::new(),
            lines: 0,
            teleported: 0,
            visits: vec![(0, 0); truth.minutes.len()],
            minute_count: truth.minute_count,
        };
        let mut last: HashMap<String, (u32, i64)> = HashMap::new();
        let found = files::lines(folder, "truth-points.ndjson", |line| {
            let row: PointRow<'_> = serde_json::from_slice(line)?;
            points.add(&row, truth, &mut last)
        })?;
        Ok(found.then_some(points))
    }

    fn add(
        &mut self,
        row: &PointRow<'_>,
        truth: &Truth,
        last: &mut HashMap<String, (u32, i64)>,
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
        if let Some(edge) = edge.filter(|_| kind != Kind::Other) {
            self.visit(&row.vehicle_id, edge, row.ts, truth, last);
        }
        Ok(())
    }

    /// Books that a probe was on an edge.
    fn visit(
        &mut self,
        vehicle: &str,
        edge: u32,
        ts: i64,
        truth: &Truth,
        last: &mut HashMap<String, (u32, i64)>,
    ) {
        let before = last.get(vehicle).copied();
        // A line that came late tells of a visit that is booked already.
        if before.is_some_and(|(_, seen)| ts <= seen) {
            return;
        }
        match last.get_mut(vehicle) {
            Some(entry) => *entry = (edge, ts),
            None => drop(last.insert(vehicle.to_owned(), (edge, ts))),
        }
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
    fn add(&mut self, place: Place, truth: &[(i64, Option<bool>)]) {
        self.points += 1;
        self.accepted += u64::from(place != Place::Absent);
        if let Place::On(way, forward) = place {
            self.located += 1;
            let on = truth.iter().filter(|t| t.0 == way);
            self.on_way += u64::from(on.clone().next().is_some());
            self.correct += u64::from(on.clone().any(|t| t.1.is_none_or(|f| f == forward)));
        }
    }

    fn finish(&mut self) {
        self.correct_ratio = ratio(self.correct, self.points);
        self.on_way_ratio = ratio(self.on_way, self.points);
        self.correct_of_located_ratio = ratio(self.correct, self.located);
    }
}

/// Compares the places of a run with the true ones.
pub(super) fn score(matches: &[Place], points: &Points, truth: &Truth) -> PointsReport {
    let mut report = PointsReport {
        teleported: points.teleported,
        ..PointsReport::default()
    };
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
        if !ways.is_empty() {
            tally.add(place, &ways);
        }
    }
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
