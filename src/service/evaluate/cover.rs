//! Which segments of the map make up which edge of the truth.

use std::collections::HashMap;

use serde::Serialize;

use super::truth::Edge;
use crate::network::{Network, SegmentFlags, SegmentIndex, SegmentKey};

/// A place of an edge lies on a segment if it is this near, in metres.
const NEAR_M: f64 = 15.0;
/// Share of an edge's length that segments must cover for it to be scored.
const LEAST_SHARE: f64 = 0.8;
/// Distance between the places of an edge that are looked at, in metres.
const STEP_M: f64 = 2.0;

/// Segments of each edge and edges of each segment.
#[derive(Debug)]
pub(super) struct Cover {
    /// By edge: segments of the same way and direction with the length of their overlap in metres. Empty if
    /// they cover too little.
    pub(super) segments: Vec<Vec<(SegmentIndex, f64)>>,
    /// By segment: edges that it covers a part of.
    pub(super) edges: HashMap<SegmentIndex, Vec<u32>>,
    /// Stable names of the segments.
    by_key: HashMap<SegmentKey, SegmentIndex>,
    /// Way and direction of the segments.
    ways: Vec<(i64, bool)>,
}

/// How truth's edges found their segments.
#[derive(Debug, Serialize)]
pub struct CoverReport {
    /// Edges of the truth.
    pub edges: u64,
    /// Edges covered by segments of the same way and direction to at least 80 %, and so scored.
    pub covered: u64,
    /// Share of edges that are not, and leave the score.
    pub uncovered_ratio: Option<f64>,
    /// The same by length.
    pub uncovered_length_ratio: Option<f64>,
}

impl Cover {
    pub(super) fn new(network: &Network, edges: &[Edge]) -> Self {
        let mut on_way: HashMap<(i64, bool), Vec<SegmentIndex>> = HashMap::new();
        let mut by_key = HashMap::new();
        let mut ways = Vec::with_capacity(network.segments().len());
        for (i, segment) in (0..).zip(network.segments()) {
            let way = (segment.key.way, !segment.flags.has(SegmentFlags::BACKWARD));
            on_way.entry(way).or_default().push(i);
            by_key.insert(segment.key, i);
            ways.push(way);
        }
        let mut cover = Cover {
            segments: Vec::with_capacity(edges.len()),
            edges: HashMap::new(),
            by_key,
            ways,
        };
        for (e, edge) in (0..).zip(edges) {
            let near = edge
                .way
                .and_then(|way| on_way.get(&way))
                .map_or(&[][..], Vec::as_slice);
            let parts = overlap(network, edge, near);
            let share = parts.iter().map(|p| p.1).sum::<f64>();
            let length = length_m(&planar(network, edge));
            let kept = if length > 0.0 && share >= LEAST_SHARE * length {
                parts
            } else {
                Vec::new()
            };
            for (segment, _) in &kept {
                cover.edges.entry(*segment).or_default().push(e);
            }
            cover.segments.push(kept);
        }
        cover
    }

    pub(super) fn report(&self, edges: &[Edge]) -> CoverReport {
        let covered = self.segments.iter().filter(|s| !s.is_empty()).count() as u64;
        let all: f64 = edges.iter().map(|e| e.length_m).sum();
        let left: f64 = edges
            .iter()
            .zip(&self.segments)
            .filter(|(_, s)| s.is_empty())
            .map(|(e, _)| e.length_m)
            .sum();
        CoverReport {
            edges: edges.len() as u64,
            covered,
            uncovered_ratio: super::ratio(edges.len() as u64 - covered, edges.len() as u64),
            uncovered_length_ratio: (all > 0.0).then(|| left / all),
        }
    }

    /// Whether an edge is scored.
    pub(super) fn has(&self, edge: u32) -> bool {
        !self.segments[edge as usize].is_empty()
    }

    /// The segment of a stable name.
    pub(super) fn segment(&self, id: &str) -> Option<SegmentIndex> {
        id.parse().ok().and_then(|key| self.by_key.get(&key)).copied()
    }

    /// Way and direction of a segment.
    pub(super) fn way(&self, segment: SegmentIndex) -> (i64, bool) {
        self.ways[segment as usize]
    }
}

/// The segments that an edge runs along, with the length of each part in metres.
fn overlap(network: &Network, edge: &Edge, near: &[SegmentIndex]) -> Vec<(SegmentIndex, f64)> {
    let shapes: Vec<(SegmentIndex, Vec<(f64, f64)>)> = near
        .iter()
        .map(|&i| {
            (
                i,
                network
                    .geometry(i)
                    .into_iter()
                    .map(|p| metres(network.project(p)))
                    .collect(),
            )
        })
        .collect();
    let line = planar(network, edge);
    let mut parts: Vec<(SegmentIndex, f64)> = Vec::new();
    for pair in line.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let length = distance(a, b);
        let steps = (length / STEP_M).ceil().max(1.0);
        for step in 0..steps as u32 {
            let t = (f64::from(step) + 0.5) / steps;
            let at = (a.0 + (b.0 - a.0) * t, a.1 + (b.1 - a.1) * t);
            let nearest = shapes
                .iter()
                .map(|(i, shape)| (to_line(at, shape), *i))
                .min_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
            if let Some((away, segment)) = nearest
                && away <= NEAR_M
            {
                let share = length / steps;
                match parts.iter_mut().find(|p| p.0 == segment) {
                    Some(part) => part.1 += share,
                    None => parts.push((segment, share)),
                }
            }
        }
    }
    parts
}

fn planar(network: &Network, edge: &Edge) -> Vec<(f64, f64)> {
    edge.geometry
        .iter()
        .map(|&p| metres(network.project(p)))
        .collect()
}

fn metres((x, y): (f64, f64)) -> (f64, f64) {
    (x / 1000.0, y / 1000.0)
}

fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

fn length_m(line: &[(f64, f64)]) -> f64 {
    line.windows(2).map(|p| distance(p[0], p[1])).sum()
}

/// Distance from a place to a line of pieces.
fn to_line(at: (f64, f64), line: &[(f64, f64)]) -> f64 {
    let to_piece = |a: (f64, f64), b: (f64, f64)| {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let square = dx * dx + dy * dy;
        let t = if square > 0.0 {
            ((at.0 - a.0) * dx + (at.1 - a.1) * dy) / square
        } else {
            0.0
        };
        let t = t.clamp(0.0, 1.0);
        distance(at, (a.0 + dx * t, a.1 + dy * t))
    };
    line.windows(2)
        .map(|p| to_piece(p[0], p[1]))
        .fold(f64::INFINITY, f64::min)
}
