//! Bounded shortest paths between places on segments.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::graph::{Hot, NONE};
use super::*;

/// What is known of the way to the beginning of a segment. Valid only with the stamp of the current search.
#[derive(Clone, Copy, Debug, Default)]
struct Label {
    stamp: u32,
    /// Length with penalties, from the source place, in mm.
    cost: u32,
    /// Length in mm.
    length: u32,
    /// Segment driven before; `NONE` for the source segment.
    parent: SegmentIndex,
}

/// Reused buffers of bounded searches; one for each thread or partition.
///
/// A search visits segments in order of cost, ties by segment index, and keeps its labels in an array of 16 bytes
/// per segment of the map that is never cleared: a stamp tells labels of this search from older ones.
#[derive(Debug)]
pub struct Router {
    /// Penalty of a U-turn at a node in mm (default 80 m).
    pub uturn_mm: u32,
    /// Penalty of a turn that a restriction bans in mm (default 60 m).
    pub banned_turn_mm: u32,
    /// Greatest number of segments that one search may visit (default 20,000). Targets beyond count as unreachable.
    pub visited_max: u32,
    labels: Vec<Label>,
    stamp: u32,
    heap: BinaryHeap<Reverse<(u32, SegmentIndex)>>,
    source: (SegmentIndex, u32),
    wanted: Vec<SegmentIndex>,
    visited: u64,
    limited: u64,
    single: Vec<Option<u64>>,
    costs: Vec<Option<u64>>,
}

/// A path between two places.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Path {
    /// Segments in order of travel, first and last included.
    pub segments: Vec<SegmentIndex>,
    /// Length from place to place in mm.
    pub length_mm: u64,
}

impl Default for Router {
    fn default() -> Self {
        Self {
            uturn_mm: 80_000,
            banned_turn_mm: 60_000,
            visited_max: 20_000,
            labels: Vec::new(),
            stamp: 0,
            heap: BinaryHeap::new(),
            source: (NONE, 0),
            wanted: Vec::new(),
            visited: 0,
            limited: 0,
            single: Vec::new(),
            costs: Vec::new(),
        }
    }
}

impl Router {
    /// Segments visited by all searches so far.
    pub fn visited(&self) -> u64 {
        self.visited
    }

    /// Searches that ended at `visited_max`.
    pub fn limited(&self) -> u64 {
        self.limited
    }

    /// Shortest path (by length, ties by segment index) from a place to a place, not longer than `bound_mm`.
    /// U-turns at nodes cost `uturn_mm`, banned turns `banned_turn_mm`, in the search only, not in the length.
    ///
    /// A place ahead on the same segment costs the difference of the offsets; one behind needs a way round. Where
    /// the cheapest path is longer than the bound, a dearer one within the bound may be returned.
    /// Returns whether there is a path; `path` is empty if not.
    pub fn path(
        &mut self,
        network: &Network,
        from: (SegmentIndex, u32),
        to: (SegmentIndex, u32),
        bound_mm: u64,
        path: &mut Path,
    ) -> bool {
        let mut lengths = std::mem::take(&mut self.single);
        self.paths(network, from, &[to], bound_mm, &mut lengths);
        let found = lengths.first().is_some_and(Option::is_some);
        self.single = lengths;
        if !found {
            path.segments.clear();
            path.length_mm = 0;
            return false;
        }
        self.trace(network, to, path)
    }

    /// Lengths in mm from one place to many, as [`Router::path`] gives them; `None` where there is no path within
    /// the bound. `lengths` is cleared first and parallel to `targets`.
    pub fn paths(
        &mut self,
        network: &Network,
        from: (SegmentIndex, u32),
        targets: &[(SegmentIndex, u32)],
        bound_mm: u64,
        lengths: &mut Vec<Option<u64>>,
    ) {
        let hot = network.hot();
        let bound = u32::try_from(bound_mm).unwrap_or(u32::MAX / 2).min(u32::MAX / 2);
        self.begin(hot.len(), from);
        let remaining = hot[from.0 as usize].length_mm.saturating_sub(from.1);

        // Targets on this segment ahead, and on the next one by a turn that costs nothing, need no search: every
        // path leaves over the segment's end, so none can be shorter.
        self.wanted.clear();
        for &(segment, offset) in targets {
            let here = segment == from.0 && offset >= from.1;
            if here || self.reach_next(network, hot, from.0, segment, remaining, bound) {
                continue;
            }
            self.wanted.push(segment);
        }
        if !self.wanted.is_empty() && remaining <= bound {
            self.wanted.sort_unstable();
            self.wanted.dedup();
            self.search(network, hot, remaining, bound);
        }

        lengths.clear();
        let mut costs = std::mem::take(&mut self.costs);
        costs.clear();
        for &to in targets {
            let found = self.reached(to).filter(|&(length, _)| length <= bound_mm);
            lengths.push(found.map(|(length, _)| length));
            costs.push(found.map(|(_, cost)| cost));
        }
        self.costs = costs;
    }

    /// After [`Router::paths`]: lengths with penalties in mm, parallel to its targets.
    pub fn costs(&self) -> &[Option<u64>] {
        &self.costs
    }

    /// After [`Router::paths`], which found a length for it: the path to that target. Returns `false` and leaves
    /// `path` empty for a target that the last search did not reach.
    pub fn trace(&mut self, _network: &Network, to: (SegmentIndex, u32), path: &mut Path) -> bool {
        path.segments.clear();
        path.length_mm = 0;
        let Some((length, _)) = self.reached(to) else {
            return false;
        };
        path.length_mm = length;
        path.segments.push(to.0);
        if !(to.0 == self.source.0 && to.1 >= self.source.1) {
            let mut at = self.labels[to.0 as usize].parent;
            while at != NONE {
                path.segments.push(at);
                at = self.labels[at as usize].parent;
            }
            path.segments.push(self.source.0);
        }
        path.segments.reverse();
        true
    }

    /// (length, cost) to a place, from the labels of the last search.
    fn reached(&self, (segment, offset): (SegmentIndex, u32)) -> Option<(u64, u64)> {
        if segment == self.source.0 && offset >= self.source.1 {
            let ahead = u64::from(offset - self.source.1);
            return Some((ahead, ahead));
        }
        let label = self
            .labels
            .get(segment as usize)
            .filter(|l| l.stamp == self.stamp)?;
        let offset = u64::from(offset);
        Some((u64::from(label.length) + offset, u64::from(label.cost) + offset))
    }

    fn begin(&mut self, segments: usize, source: (SegmentIndex, u32)) {
        if self.labels.len() != segments {
            // Another map (or the first): the only allocation.
            self.labels = vec![Label::default(); segments];
            self.stamp = 0;
        }
        self.next_stamp();
        self.source = source;
        self.heap.clear();
    }

    /// Labels `to` if it follows `from` by a turn without penalty.
    fn reach_next(
        &mut self,
        network: &Network,
        hot: &[Hot],
        from: SegmentIndex,
        to: SegmentIndex,
        remaining: u32,
        bound: u32,
    ) -> bool {
        let h = &hot[from as usize];
        let next = (h.first..h.end).contains(&to) && h.twin != to && remaining <= bound;
        if !next || (h.has_ban && network.turn_banned(from, to)) {
            return false;
        }
        self.labels[to as usize] = Label {
            stamp: self.stamp,
            cost: remaining,
            length: remaining,
            parent: NONE,
        };
        true
    }

    fn next_stamp(&mut self) {
        if self.stamp == u32::MAX {
            self.labels.fill(Label::default());
            self.stamp = 0;
        }
        self.stamp += 1;
    }

    fn search(&mut self, network: &Network, hot: &[Hot], remaining: u32, bound: u32) {
        // The labels of `reach_next` would keep the search from going on there; it makes them again, equal.
        self.next_stamp();
        let mut missing = self.wanted.len();
        let source = self.source.0;
        self.expand(network, hot, source, true, (remaining, remaining), bound);
        let mut visited = 0;
        while let Some(Reverse((cost, segment))) = self.heap.pop() {
            let label = self.labels[segment as usize];
            if label.cost != cost {
                continue; // superseded by a cheaper way
            }
            visited += 1;
            if self.wanted.binary_search(&segment).is_ok() {
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
            if visited >= self.visited_max {
                self.limited += 1;
                self.forget_unsettled(remaining);
                break;
            }
            let step = hot[segment as usize].length_mm;
            let reached = (cost.saturating_add(step), label.length.saturating_add(step));
            if reached.1 <= bound {
                self.expand(network, hot, segment, false, reached, bound);
            }
        }
        self.visited += u64::from(visited);
    }

    /// Labels the successors of a segment whose end is reached at `(cost, length)`.
    fn expand(
        &mut self,
        network: &Network,
        hot: &[Hot],
        segment: SegmentIndex,
        is_source: bool,
        (cost, length): (u32, u32),
        bound: u32,
    ) {
        if length > bound {
            return;
        }
        let h = &hot[segment as usize];
        for to in h.first..h.end {
            let mut penalty = if h.twin == to { self.uturn_mm } else { 0 };
            if h.has_ban
                && (network.turn_banned(segment, to)
                    || (!is_source && self.sequence_banned(network, segment, to)))
            {
                penalty = penalty.saturating_add(self.banned_turn_mm);
            }
            let cost = cost.saturating_add(penalty);
            let label = &mut self.labels[to as usize];
            if label.stamp != self.stamp || cost < label.cost {
                let parent = if is_source { NONE } else { segment };
                *label = Label {
                    stamp: self.stamp,
                    cost,
                    length,
                    parent,
                };
                self.heap.push(Reverse((cost, to)));
            }
        }
    }

    /// Whether the way found to `segment`, gone on to `to`, ends a banned sequence.
    fn sequence_banned(&self, network: &Network, segment: SegmentIndex, to: SegmentIndex) -> bool {
        network.via_bans(segment, to).any(|ban| {
            let mut at = Some(segment);
            ban[..ban.len() - 1].iter().rev().all(|&expected| {
                let here = at;
                at = match here {
                    // The source segment has no label of its own way in, unless the path came back to it.
                    Some(s) if s != NONE => match self.labels[s as usize] {
                        l if l.stamp == self.stamp && l.parent != NONE => Some(l.parent),
                        l if l.stamp == self.stamp => Some(NONE),
                        _ => None,
                    },
                    _ => None,
                };
                match here {
                    Some(NONE) => self.source.0 == expected,
                    Some(s) => s == expected,
                    None => false,
                }
            })
        })
    }

    /// At the visited limit: labels still in the queue are not final, so they are taken back, but for those of the
    /// first step without penalty, which nothing can better.
    fn forget_unsettled(&mut self, remaining: u32) {
        for &Reverse((cost, segment)) in self.heap.iter() {
            let label = &mut self.labels[segment as usize];
            if label.cost == cost && !(label.parent == NONE && cost == remaining) {
                label.stamp = 0;
            }
        }
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
