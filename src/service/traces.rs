//! Traces: single drives as NDJSON, with the truth about them where it is known, for the measurement of matching.
//!
//! A line is `{"id": 0, "pts": [[lon, lat, seconds, km/h, degrees], …], "truth": [[way, dir, [[way, dir], …]], …],
//! "route": [[way, dir, metres], …]}`. Speed and direction of a point may be null; `truth` has an entry for each
//! point: the true place, and the places before and behind it on the drive that begin or end within 10 m; `route` is
//! what was driven from the first point to the last. `dir` is 1 along the way's nodes and -1 against them.

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::locate::{Decided, Fix};
use crate::network::{Network, SegmentFlags, SegmentIndex};
use crate::simulate::Trip;
use crate::source::file;
use crate::units::{Bearing, EventTime, Position};

/// Distance in mm from the end of a segment within which the neighbour on the drive is as good an answer.
const NEAR_MM: u32 = 10_000;

/// An OSM way and the direction of travel: 1 along its nodes, -1 against them.
pub type Way = (i64, i8);

/// Longitude, latitude, seconds, km/h, degrees.
type Point = (f64, f64, f64, Option<f64>, Option<f64>);

/// The true place of a point, and what else is right.
type Truth = (i64, i8, Vec<Way>);

#[derive(Serialize, Deserialize)]
struct Line {
    id: u64,
    pts: Vec<Point>,
    #[serde(default)]
    truth: Vec<Truth>,
    #[serde(default)]
    route: Vec<(i64, i8, f64)>,
}

/// A drive, and what really was driven.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its name.
    pub id: u64,
    /// Positions as they were sent, each with its place in the trace as id.
    pub fixes: Vec<Fix>,
    /// By position: the true way, and others that are as good near a junction. Empty if it is not known.
    pub truth: Vec<(Way, Vec<Way>)>,
    /// What was driven from the first position to the last, with metres. Empty if it is not known.
    pub route: Vec<(Way, f64)>,
}

/// Reads a file of traces.
///
/// # Errors
/// A file that cannot be read, or a line that is no trace; both are named.
pub fn read(path: &Path) -> Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for (n, line) in file::open(path)?.lines().enumerate() {
        let at = || format!("{}, line {}", path.display(), n + 1);
        let line: Line = serde_json::from_str(&line.with_context(at)?).with_context(at)?;
        traces.push(trace(line).with_context(at)?);
    }
    Ok(traces)
}

fn trace(line: Line) -> Result<Trace> {
    ensure!(
        line.truth.is_empty() || line.truth.len() == line.pts.len(),
        "{} points, but the truth of {}",
        line.pts.len(),
        line.truth.len()
    );
    let fixes = line.pts.iter().enumerate().map(|(k, p)| fix(k as u64, *p));
    Ok(Trace {
        id: line.id,
        fixes: fixes.collect::<Result<_>>()?,
        truth: line
            .truth
            .into_iter()
            .map(|(w, d, near)| ((w, d), near))
            .collect(),
        route: line.route.into_iter().map(|(w, d, m)| ((w, d), m)).collect(),
    })
}

fn fix(id: u64, (lon, lat, s, kph, degrees): Point) -> Result<Fix> {
    Ok(Fix {
        time: EventTime::from_ms((s * 1000.0).round() as i64),
        position: Position::from_degrees(lat, lon)?,
        speed: kph.map(|v| (v / 3.6 * 1000.0).round() as u32),
        heading: degrees.and_then(Bearing::from_degrees),
        accuracy_mm: None,
        bus_roads: false,
        id,
    })
}

/// Writes a simulated drive, of which every `interval_s`-th second is kept.
///
/// # Errors
/// What the writer says.
pub fn write(
    out: &mut impl Write,
    id: u64,
    network: &Network,
    trip: &Trip,
    interval_s: usize,
) -> std::io::Result<()> {
    let way = |leg: usize| named(network, trip.path[leg]);
    let kept = || trip.seconds.iter().enumerate().step_by(interval_s);
    let mut line = Line {
        id,
        pts: Vec::new(),
        truth: Vec::new(),
        route: Vec::new(),
    };
    for (s, at) in kept() {
        line.pts.push((
            at.position.lon(),
            at.position.lat(),
            s as f64,
            // Tenths, as receivers report.
            Some((f64::from(at.speed) * 0.036).round() / 10.0),
            Some((at.heading.degrees() * 10.0).round() / 10.0),
        ));
        let mut near = Vec::new();
        if at.offset_mm < NEAR_MM && at.leg > 0 {
            near.push(way(at.leg - 1));
        }
        let left_mm = network.segment(trip.path[at.leg]).length_mm - at.offset_mm;
        if left_mm < NEAR_MM && at.leg + 1 < trip.path.len() {
            near.push(way(at.leg + 1));
        }
        let (id, dir) = way(at.leg);
        line.truth.push((id, dir, near));
    }
    let (first, last) = (kept().next(), kept().next_back());
    if let (Some((_, first)), Some((_, last))) = (first, last) {
        let mut route = Vec::new();
        let driven = &trip.path[first.leg..=last.leg];
        drive(network, driven, first.offset_mm, last.offset_mm, &mut route);
        // Lengths are whole millimetres; sums of their fractions are not.
        let metres = |m: f64| (m * 1000.0).round() / 1000.0;
        line.route = route.into_iter().map(|((w, d), m)| (w, d, metres(m))).collect();
    }
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// Adds the decided way to a place.
pub fn drive_to(network: &Network, place: &Decided, way: &[SegmentIndex], route: &mut Vec<(Way, f64)>) {
    drive(network, way, place.from_mm, place.offset_mm, route);
}

/// Adds segments, driven from an offset on the first to one on the last.
fn drive(
    network: &Network,
    segments: &[SegmentIndex],
    from_mm: u32,
    to_mm: u32,
    route: &mut Vec<(Way, f64)>,
) {
    for (k, &segment) in segments.iter().enumerate() {
        let from = if k == 0 { from_mm } else { 0 };
        let to = if k + 1 == segments.len() {
            to_mm
        } else {
            network.segment(segment).length_mm
        };
        let way = named(network, segment);
        let metres = f64::from(to.saturating_sub(from)) / 1000.0;
        match route.last_mut() {
            Some(last) if last.0 == way => last.1 += metres,
            _ => route.push((way, metres)),
        }
    }
}

/// Way and direction of a segment.
pub fn named(network: &Network, segment: SegmentIndex) -> Way {
    let s = network.segment(segment);
    let back = s.flags.has(SegmentFlags::BACKWARD);
    (s.key.way, if back { -1 } else { 1 })
}
