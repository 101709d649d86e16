//! From OSM data to a network.
#![allow(clippy::todo)]

use serde::{Deserialize, Serialize};

use super::osm::OsmData;
use super::*;

/// Settings of the build (section `[map]` of the configuration).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildSettings {
    /// Longest segment in metres; longer ones are cut at shape nodes.
    pub segment_max_m: f64,
}

/// What a build did with its input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildReport {}

/// The road network.
#[derive(Debug)]
pub struct Network {}

impl Network {
    /// Builds the network.
    pub fn build(_osm: &OsmData, _settings: &BuildSettings) -> (Network, BuildReport) {
        todo!()
    }
    /// 16 hex digits of BLAKE3 over the content.
    pub fn version(&self) -> &str {
        todo!()
    }
    /// All segments, by index.
    pub fn segments(&self) -> &[Segment] {
        todo!()
    }
    /// One segment.
    pub fn segment(&self, _i: SegmentIndex) -> &Segment {
        todo!()
    }
    /// The segment of a stable key.
    pub fn find(&self, _key: SegmentKey) -> Option<SegmentIndex> {
        todo!()
    }
    /// Segments that begin where this one ends, in order of index (its twin included).
    pub fn successors(&self, _i: SegmentIndex) -> &[SegmentIndex] {
        todo!()
    }
    /// Segments that end where this one begins, in order of index (its twin included).
    pub fn predecessors(&self, _i: SegmentIndex) -> &[SegmentIndex] {
        todo!()
    }
    /// Whether the turn is banned by a restriction at a node.
    pub fn turn_banned(&self, _from: SegmentIndex, _to: SegmentIndex) -> bool {
        todo!()
    }
    /// Street name, if any.
    pub fn name(&self, _i: SegmentIndex) -> Option<&str> {
        todo!()
    }
    /// Shape in order of travel, at least two positions.
    pub fn geometry(&self, _i: SegmentIndex) -> Vec<Position> {
        todo!()
    }
    /// Position at an offset in mm from the beginning.
    pub fn position_at(&self, _i: SegmentIndex, _offset_mm: u32) -> Position {
        todo!()
    }
    /// OSM node ids along the segment in order of travel.
    pub fn osm_nodes(&self, _i: SegmentIndex) -> Vec<i64> {
        todo!()
    }
    /// All links, by index.
    pub fn links(&self) -> &[Link] {
        todo!()
    }
    /// Position of a node.
    pub fn node_position(&self, _node: NodeIndex) -> Position {
        todo!()
    }
    /// (south-west, north-east) corners of all nodes.
    pub fn bounds(&self) -> (Position, Position) {
        todo!()
    }
    /// All segments within `radius_mm` of a position: one candidate each (its nearest place), ordered by
    /// distance, then bearing, then index. `out` is cleared first.
    pub fn candidates(&self, _at: Position, _radius_mm: u32, _out: &mut Vec<Candidate>) {
        todo!()
    }
    /// Planar position in mm from the map's origin (east, north): local equirectangular projection.
    pub fn project(&self, _p: Position) -> (f64, f64) {
        todo!()
    }
}
