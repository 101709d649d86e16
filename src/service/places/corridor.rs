//! Corridors: segments named one by one, or followed along a line.
//!
//! A line is followed by the cheapest chain of places on the map: at each vertex the distance from the line
//! and the angle to it, between vertices the difference between path and line, U-turns and banned turns as
//! the router charges them. (Newson and Krumm 2009, with linear costs: a drawn line has no noise model.)

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::geojson::{self, Feature, list, position, short, shown};
use crate::assess::Corridor;
use crate::network::router::{Path, Router};
use crate::network::{Candidate, Network, SegmentFlags, SegmentIndex, SegmentKey};
use crate::units::{Bearing, Position};

/// Greatest distance from a vertex to its segment.
const SNAP_MM: u32 = 50_000;
/// How far a fault looks for the segment that might have been meant.
const LOOK_MM: u32 = 1_000_000;
/// Greatest angle between line and segment at a vertex, in hundredths of a degree: a coarse line cuts curves.
const ANGLE_MAX: u16 = 6_000;
/// Cost of the angle, in mm per hundredth of a degree: 10 degrees weigh as much as 3 m.
const ANGLE_MM: u64 = 3;
/// Most places tried at a vertex, the nearest.
const CANDIDATES_MAX: usize = 8;
/// Vertices nearer to the last one than this say nothing new, in metres.
const SPACING_M: f64 = 30.0;
/// The direction of the line at a vertex is that over at least this distance, in metres.
const DIRECTION_M: f64 = 10.0;
/// Movement against the direction of travel on one segment that is a slip of the drawing.
const BACK_MM: u32 = 30_000;
/// Most vertices of a line, and most segments named.
const PARTS_MAX: usize = 20_000;

/// The corridors of all features.
pub(super) fn all(network: &Network, features: &[Feature]) -> Result<Vec<Corridor>> {
    let mut router = Router::default();
    geojson::places(features, |feature| {
        let name = match feature.property("name") {
            Some(Value::String(name)) => name.clone(),
            Some(other) => bail!("its `name` is {}, no text", short(other)),
            None => feature.id.clone(),
        };
        let segments = match feature.property("segment_ids") {
            Some(ids) => named(network, ids)?,
            None => followed(network, &mut router, &line(feature)?)?,
        };
        Ok(Corridor {
            id: feature.id.clone(),
            name,
            segments,
        })
    })
}

/// The segments of a list of stable ids.
fn named(network: &Network, ids: &Value) -> Result<Vec<SegmentIndex>> {
    let ids = list(ids, "segment ids").context("`segment_ids`")?;
    ensure!(
        !ids.is_empty(),
        "`segment_ids` is empty; name the segments, or leave it out and draw a line"
    );
    ensure!(
        ids.len() <= PARTS_MAX,
        "`segment_ids` has {} items; at most {PARTS_MAX} are possible",
        ids.len()
    );
    let mut segments: Vec<SegmentIndex> = Vec::with_capacity(ids.len());
    let mut seen = BTreeSet::new();
    for (i, id) in ids.iter().enumerate() {
        let place = || format!("`segment_ids` {} of {}", i + 1, ids.len());
        let Some(text) = id.as_str() else {
            bail!("{}: {} is no text", place(), short(id));
        };
        let key: SegmentKey = text.parse().map_err(anyhow::Error::msg).with_context(place)?;
        let Some(segment) = network.find(key) else {
            bail!(
                "{}: the map has no segment {key}; it may be cut otherwise since the list was made: take the ids \
                 from `viaflux map export`, or leave out `segment_ids` and draw a line",
                place()
            );
        };
        if let Some(&before) = segments.last()
            && network.segment(before).to != network.segment(segment).from
        {
            bail!(
                "{}: {key} does not begin where {} ends; name every segment between them",
                place(),
                network.segment(before).key
            );
        }
        ensure!(
            seen.insert(segment),
            "{}: {key} is named twice; its time would count twice",
            place()
        );
        segments.push(segment);
    }
    Ok(segments)
}

/// A vertex that is followed.
#[derive(Debug)]
struct Vertex {
    /// Its place in the line, from 1.
    number: usize,
    at: Position,
    /// Direction of the line to it and from it.
    directions: [Option<Bearing>; 2],
    /// Length of the line from the vertex before, in mm.
    leg_mm: u64,
    /// Straight distance from the vertex before, in mm.
    straight_mm: u64,
}

impl Vertex {
    fn label(&self) -> String {
        format!("vertex {} {}", self.number, shown(self.at))
    }

    /// The smaller of the angles to the line before and after, in hundredths of a degree.
    fn angle(&self, bearing: Bearing) -> u16 {
        self.directions
            .iter()
            .flatten()
            .map(|d| d.difference(bearing))
            .min()
            .unwrap_or(0)
    }

    /// Longest path from the vertex before that still follows the line.
    fn bound_mm(&self) -> u64 {
        self.leg_mm * 3 / 2 + 200_000
    }
}

/// The vertices of a feature's line, thinned.
fn line(feature: &Feature) -> Result<Vec<Vertex>> {
    let points = match feature.geometry() {
        Some(("LineString", points)) => points,
        // Many editors write every line so.
        Some(("MultiLineString", parts)) => match list(parts, "lines")? {
            [points] => points,
            parts => bail!(
                "its geometry is a MultiLineString of {} parts; join them to one line",
                parts.len()
            ),
        },
        Some((other, _)) => {
            bail!("its geometry is a {other}; a corridor is a LineString or has `segment_ids`")
        }
        None => {
            bail!("has neither a geometry nor `segment_ids`; draw a LineString in the direction of travel")
        }
    };
    let points = list(points, "positions")?;
    ensure!(
        points.len() <= PARTS_MAX,
        "its line has {} vertices; at most {PARTS_MAX} are possible",
        points.len()
    );
    let points = points
        .iter()
        .enumerate()
        .map(|(i, p)| position(p).with_context(|| format!("vertex {}", i + 1)))
        .collect::<Result<Vec<_>>>()?;
    thinned(&points)
}

fn thinned(points: &[Position]) -> Result<Vec<Vertex>> {
    let mut along = vec![0.0];
    for pair in points.windows(2) {
        along.push(along[along.len() - 1] + pair[0].distance_m(pair[1]));
    }
    let length = along[along.len() - 1];
    ensure!(
        length >= 1.0,
        "its line has no length; it needs at least 2 different vertices"
    );
    let last = points.len() - 1;
    let mut kept = vec![0];
    for i in 1..last {
        if along[i] - along[kept[kept.len() - 1]] >= SPACING_M && length - along[i] >= SPACING_M {
            kept.push(i);
        }
    }
    kept.push(last);
    let mm = |metres: f64| (metres * 1000.0).round() as u64;
    let far = |i: usize, j: &usize| points[i].distance_m(points[*j]) >= DIRECTION_M;
    let vertices = kept.iter().enumerate().map(|(k, &i)| {
        let before = (0..i).rev().find(|j| far(i, j)).or((i > 0).then_some(0));
        let after = (i + 1..=last).find(|j| far(i, j)).or((i < last).then_some(last));
        Vertex {
            number: i + 1,
            at: points[i],
            directions: [
                before.and_then(|j| direction(points[j], points[i])),
                after.and_then(|j| direction(points[i], points[j])),
            ],
            leg_mm: mm(if k > 0 { along[i] - along[kept[k - 1]] } else { 0.0 }),
            straight_mm: mm(if k > 0 {
                points[kept[k - 1]].distance_m(points[i])
            } else {
                0.0
            }),
        }
    });
    Ok(vertices.collect())
}

/// Direction from one position to another not far away, `None` if they are the same.
fn direction(a: Position, b: Position) -> Option<Bearing> {
    if a == b {
        return None;
    }
    let shrink = libm::cos(((a.lat() + b.lat()) / 2.0).to_radians());
    let (east, north) = ((b.lon() - a.lon()) * shrink, b.lat() - a.lat());
    Bearing::from_degrees(libm::atan2(east, north).to_degrees())
}

/// A place tried at a vertex, with the cheapest way to it.
#[derive(Clone, Copy, Debug)]
struct Step {
    segment: SegmentIndex,
    offset_mm: u32,
    cost: u64,
    /// The step at the vertex before, by place.
    parent: usize,
}

impl Step {
    fn place(&self) -> (SegmentIndex, u32) {
        (self.segment, self.offset_mm)
    }

    /// How far `to` lies behind on the same segment, if so little that it is a slip of the drawing.
    fn slip_to(&self, to: (SegmentIndex, u32)) -> Option<u32> {
        (self.segment == to.0 && to.1 < self.offset_mm)
            .then(|| self.offset_mm - to.1)
            .filter(|&back| back <= BACK_MM)
    }
}

/// The segments that a line follows.
fn followed(network: &Network, router: &mut Router, line: &[Vertex]) -> Result<Vec<SegmentIndex>> {
    let steps = cheapest(network, router, line)?;
    let mut path = Path::default();
    let mut segments = vec![steps[0].segment];
    for (pair, vertex) in steps.windows(2).zip(&line[1..]) {
        let (from, to) = (pair[0].place(), pair[1].place());
        if pair[0].slip_to(to).is_some() {
            continue;
        }
        let found = router.path(network, from, to, vertex.bound_mm(), &mut path);
        ensure!(
            found,
            "{}: the path to it is lost; please report this map and line",
            vertex.label()
        );
        segments.extend(&path.segments[1..]);
    }
    for pair in segments.windows(2) {
        ensure!(
            network.segment(pair[0]).twin != Some(pair[1]),
            "it would turn round at the end of {}; add vertices on the road that is meant, or name the \
             segments in `segment_ids`",
            street(network, pair[0])
        );
    }
    let (first, last) = (&steps[0], &steps[steps.len() - 1]);
    // A segment counts whole, so one of which the line has less than half is left out.
    if segments.len() > 1
        && 2 * u64::from(first.offset_mm) > u64::from(network.segment(first.segment).length_mm)
    {
        segments.remove(0);
    }
    if segments.len() > 1
        && 2 * u64::from(last.offset_mm) < u64::from(network.segment(last.segment).length_mm)
    {
        segments.pop();
    }
    let mut seen = BTreeSet::new();
    for &i in &segments {
        ensure!(
            seen.insert(i),
            "it passes {} twice; its time would count twice: make the line two corridors",
            street(network, i)
        );
    }
    Ok(segments)
}

/// The cheapest chain of places, one for each vertex.
fn cheapest(network: &Network, router: &mut Router, line: &[Vertex]) -> Result<Vec<Step>> {
    let mut layers: Vec<Vec<Step>> = Vec::with_capacity(line.len());
    let mut lengths = Vec::new();
    for vertex in line {
        let found = candidates(network, vertex)?;
        let targets: Vec<(SegmentIndex, u32)> = found.iter().map(|c| (c.segment, c.offset_mm)).collect();
        let mut best: Vec<Option<(u64, usize)>> = vec![None; found.len()];
        if let Some(before) = layers.last() {
            for (parent, from) in before.iter().enumerate() {
                router.paths(network, from.place(), &targets, vertex.bound_mm(), &mut lengths);
                for (t, &to) in targets.iter().enumerate() {
                    let step = match (from.slip_to(to), lengths[t], router.costs()[t]) {
                        (Some(back), ..) => vertex.straight_mm + u64::from(back),
                        (None, Some(length), Some(cost)) => {
                            length.abs_diff(vertex.straight_mm) + (cost - length)
                        }
                        _ => continue,
                    };
                    // On equal cost the nearer parent, which comes first, stays.
                    let cost = from.cost + step;
                    if best[t].is_none_or(|(least, _)| cost < least) {
                        best[t] = Some((cost, parent));
                    }
                }
            }
        } else {
            best.fill(Some((0, 0)));
        }
        let steps: Vec<Step> = found
            .iter()
            .zip(&best)
            .filter_map(|(c, way)| {
                let (cost, parent) = (*way)?;
                let here = u64::from(c.distance_mm) + ANGLE_MM * u64::from(vertex.angle(c.bearing));
                Some(Step {
                    segment: c.segment,
                    offset_mm: c.offset_mm,
                    cost: cost + here,
                    parent,
                })
            })
            .collect();
        if steps.is_empty() {
            let before = layers.last().map_or(0, |l| least(l));
            bail!(
                "no path of at most {} m leads from {} on {} to {} on {}, {} m on along the line; add vertices \
                 on the roads that are meant, or name the segments in `segment_ids`",
                vertex.bound_mm() / 1000,
                line[layers.len() - 1].label(),
                street(network, layers[layers.len() - 1][before].segment),
                vertex.label(),
                street(network, found[0].segment),
                vertex.leg_mm / 1000
            );
        }
        layers.push(steps);
    }
    let mut at = layers.last().map_or(0, |l| least(l));
    let mut steps: Vec<Step> = layers
        .iter()
        .rev()
        .map(|layer| {
            let step = layer[at];
            at = step.parent;
            step
        })
        .collect();
    steps.reverse();
    Ok(steps)
}

/// The cheapest step, the first of equal ones.
fn least(steps: &[Step]) -> usize {
    (0..steps.len()).min_by_key(|&i| steps[i].cost).unwrap_or(0)
}

/// Places near a vertex on segments that run with the line and are open to cars, the nearest first.
fn candidates(network: &Network, vertex: &Vertex) -> Result<Vec<Candidate>> {
    let mut near = Vec::new();
    network.candidates(vertex.at, SNAP_MM, &mut near);
    // Beside a bus lane runs a road; a corridor of buses alone is named by its segments.
    near.retain(|c| !network.segment(c.segment).flags.has(SegmentFlags::BUS_ONLY));
    let mut with_line = near.clone();
    with_line.retain(|c| vertex.angle(c.bearing) <= ANGLE_MAX);
    with_line.truncate(CANDIDATES_MAX);
    if !with_line.is_empty() {
        return Ok(with_line);
    }
    if let Some(c) = near.first() {
        bail!(
            "{}: no segment within {} m runs with the line; {} is near, at {} degrees to it: draw the line in \
             the direction of travel, or move the vertex",
            vertex.label(),
            SNAP_MM / 1000,
            street(network, c.segment),
            vertex.angle(c.bearing) / 100
        );
    }
    network.candidates(vertex.at, LOOK_MM, &mut near);
    if let Some(c) = near.first() {
        bail!(
            "{}: no segment within {} m; the nearest, {}, is {} m away: move the vertex onto the road",
            vertex.label(),
            SNAP_MM / 1000,
            street(network, c.segment),
            c.distance_mm / 1000
        );
    }
    let (south_west, north_east) = network.bounds();
    bail!(
        "{}: no segment within {} m; the map reaches from {} to {} (longitude first)",
        vertex.label(),
        LOOK_MM / 1000,
        shown(south_west),
        shown(north_east)
    )
}

/// A segment by id and street name.
fn street(network: &Network, i: SegmentIndex) -> String {
    let key = network.segment(i).key;
    match network.name(i) {
        Some(name) => format!("segment {key} ({name})"),
        None => format!("segment {key}"),
    }
}
