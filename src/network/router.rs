//! Bounded shortest paths between places on segments.
#![allow(clippy::todo)]

use super::build::Network;
use super::*;

/// Reused buffers of bounded searches; one for each thread or partition.
#[derive(Debug, Default)]
pub struct Router {}

/// A path between two places.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Path {
    /// Segments in order of travel, first and last included.
    pub segments: Vec<SegmentIndex>,
    /// Length from place to place in mm.
    pub length_mm: u64,
}

impl Router {
    /// Shortest path (by length, ties by segment index) from a place to a place, not longer than `bound_mm`.
    /// U-turns at nodes cost `uturn_mm`, banned turns `banned_turn_mm`, in the search only, not in the length.
    pub fn path(
        &mut self,
        _network: &Network,
        _from: (SegmentIndex, u32),
        _to: (SegmentIndex, u32),
        _bound_mm: u64,
        _path: &mut Path,
    ) -> bool {
        todo!()
    }

    /// Lengths in mm of the shortest paths from a place to each of `targets`, `None` where none is within
    /// `bound_mm`. `lengths` is cleared first.
    pub fn paths(
        &mut self,
        _network: &Network,
        _from: (SegmentIndex, u32),
        _targets: &[(SegmentIndex, u32)],
        _bound_mm: u64,
        _lengths: &mut Vec<Option<u64>>,
    ) {
        todo!()
    }
}
