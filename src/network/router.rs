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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::drawn::{build, chain, draw, restrict, seg};
    use super::super::osm::{OsmData, OsmNode, OsmWay};
    use super::*;

    fn path(
        n: &Network,
        from: (SegmentIndex, u32),
        to: (SegmentIndex, u32),
        bound_mm: u64,
    ) -> Option<(String, u64)> {
        let (mut router, mut path) = (Router::default(), Path::default());
        let found = router.path(n, from, to, bound_mm, &mut path);
        assert_eq!(found, !path.segments.is_empty());
        found.then(|| (chain(n, &path.segments), path.length_mm))
    }

    /// Blocks of 200 m by 100 m, all roads two-way.
    fn block() -> OsmData {
        draw(
            "
            A...B...C
            .........
            D...E...F",
            &["ABC", "DEF", "AD", "BE", "CF"],
        )
    }

    #[test]
    fn along_one_segment_and_round_the_block() {
        let (n, _) = build(&block());
        let ab = seg(&n, 1, 'A', 'B');
        assert_eq!(
            path(&n, (ab, 10_000), (ab, 50_000), 40_000),
            Some(("1:A>B".to_owned(), 40_000))
        );
        assert_eq!(path(&n, (ab, 10_000), (ab, 50_000), 39_999), None);
        assert_eq!(
            path(&n, (ab, 10_000), (ab, 10_000), 0),
            Some(("1:A>B".to_owned(), 0))
        );
        // Back to a place behind: two U-turns (400 m and 160 m of penalty) or once round (600 m).
        let (names, length) = path(&n, (ab, 50_000), (ab, 10_000), 2_000_000).unwrap();
        assert_eq!(names, "1:A>B 1:B>A 1:A>B");
        assert!(length.abs_diff(360_000) < 30, "{length}");
        let mut router = Router {
            uturn_mm: 150_000,
            ..Router::default()
        };
        let mut p = Path::default();
        assert!(router.path(&n, (ab, 50_000), (ab, 10_000), 2_000_000, &mut p));
        assert_eq!(chain(&n, &p.segments), "1:A>B 4:B>E 2:E>D 3:D>A 1:A>B");
        assert!(p.length_mm.abs_diff(560_000) < 50);
        assert!(!router.path(&n, (ab, 50_000), (ab, 10_000), 200_000, &mut p));
        assert!(p.segments.is_empty());
    }

    #[test]
    fn the_next_segment_needs_no_search_but_counts_the_bound() {
        let (n, _) = build(&block());
        let (ab, bc) = (seg(&n, 1, 'A', 'B'), seg(&n, 1, 'B', 'C'));
        let rest = u64::from(n.segment(ab).length_mm) - 150_000;
        let mut router = Router::default();
        let mut p = Path::default();
        assert!(router.path(&n, (ab, 150_000), (bc, 7), rest + 7, &mut p));
        assert_eq!(
            (chain(&n, &p.segments).as_str(), p.length_mm),
            ("1:A>B 1:B>C", rest + 7)
        );
        assert_eq!(router.visited(), 0);
        assert!(!router.path(&n, (ab, 150_000), (bc, 7), rest + 6, &mut p));
    }

    #[test]
    fn banned_turns_and_sequences_cost_their_penalty() {
        let mut osm = block();
        restrict(&mut osm, 1, Ok('A'), 3, "restriction=no_left_turn");
        let (n, _) = build(&osm);
        let (ba, de) = (seg(&n, 1, 'B', 'A'), seg(&n, 2, 'D', 'E'));
        let mut router = Router::default();
        let mut lengths = Vec::new();
        router.paths(&n, (ba, 0), &[(de, 0)], 2_000_000, &mut lengths);
        let length = lengths[0].unwrap();
        assert_eq!(router.costs()[0].unwrap() - length, 60_000);
        // A greater penalty sends it round: 200 m back with a U-turn instead.
        router.banned_turn_mm = 1_000_000;
        router.paths(&n, (ba, 0), &[(de, 0)], 2_000_000, &mut lengths);
        let mut p = Path::default();
        assert!(router.trace(&n, (de, 0), &mut p));
        assert_eq!(chain(&n, &p.segments), "1:B>A 1:A>B 4:B>E 2:E>D 2:D>E");

        let mut osm = block();
        restrict(&mut osm, 1, Err(&[4]), 2, "restriction=no_u_turn");
        osm.ways[0].nodes.pop(); // way 1 ends at B, so that the restriction is clear
        osm.ways[1].nodes.pop();
        let (n, report) = build(&osm);
        assert_eq!(report.restrictions_kept, 1, "{report}");
        let (ab, ed) = (seg(&n, 1, 'A', 'B'), seg(&n, 2, 'E', 'D'));
        let mut router = Router::default();
        router.paths(&n, (ab, 0), &[(ed, 0)], 2_000_000, &mut lengths);
        assert_eq!(router.costs()[0].unwrap() - lengths[0].unwrap(), 60_000);
        // From the via way itself the turn is free.
        let be = seg(&n, 4, 'B', 'E');
        router.paths(&n, (be, 0), &[(ed, 0)], 2_000_000, &mut lengths);
        assert_eq!(router.costs()[0], lengths[0]);
    }

    #[test]
    fn many_targets_at_once_are_as_many_searches() {
        let (n, _) = build(&block());
        let targets: Vec<_> = (0..n.segments().len() as u32).map(|s| (s, 1_000)).collect();
        let (mut router, mut one) = (Router::default(), Router::default());
        let mut lengths = Vec::new();
        let (mut many_path, mut one_path) = (Path::default(), Path::default());
        for from in 0..n.segments().len() as u32 {
            router.paths(&n, (from, 20_000), &targets, 300_000, &mut lengths);
            for (i, &to) in targets.iter().enumerate() {
                let found = one.path(&n, (from, 20_000), to, 300_000, &mut one_path);
                assert_eq!(
                    lengths[i],
                    found.then_some(one_path.length_mm),
                    "{from} to {to:?}"
                );
                if found {
                    assert!(router.trace(&n, to, &mut many_path));
                    assert_eq!(many_path, one_path);
                }
            }
        }
    }

    #[test]
    fn the_visited_limit_ends_a_search() {
        let (n, _) = build(&block());
        let (ab, fe) = (seg(&n, 1, 'A', 'B'), seg(&n, 2, 'F', 'E'));
        let mut router = Router {
            visited_max: 2,
            ..Router::default()
        };
        let mut p = Path::default();
        assert!(!router.path(&n, (ab, 0), (fe, 0), 2_000_000, &mut p));
        assert_eq!(router.limited(), 1);
        // What needs no search is found all the same.
        let bc = seg(&n, 1, 'B', 'C');
        let mut lengths = Vec::new();
        router.paths(&n, (ab, 0), &[(bc, 0), (fe, 0)], 2_000_000, &mut lengths);
        assert_eq!(lengths, [Some(u64::from(n.segment(ab).length_mm)), None]);
    }

    #[test]
    fn a_router_serves_several_maps_and_wraps_its_stamp() {
        let (a, _) = build(&block());
        let (b, _) = build(&draw("A..B..C", &["ABC", "BA oneway=yes"]));
        let mut router = Router::default();
        let mut p = Path::default();
        let of_a = (seg(&a, 1, 'A', 'B'), seg(&a, 2, 'F', 'E'));
        assert!(router.path(&a, (of_a.0, 0), (of_a.1, 0), 2_000_000, &mut p));
        let first = p.clone();
        let of_b = seg(&b, 1, 'A', 'B');
        assert!(router.path(&b, (of_b, 0), (seg(&b, 1, 'B', 'C'), 0), 2_000_000, &mut p));
        assert!(router.path(&a, (of_a.0, 0), (of_a.1, 0), 2_000_000, &mut p));
        assert_eq!(p, first);
        router.stamp = u32::MAX - 1;
        for _ in 0..4 {
            assert!(router.path(&a, (of_a.0, 0), (of_a.1, 0), 2_000_000, &mut p));
            assert_eq!(p, first);
        }
    }

    /// Cheapest cost to the beginning of every segment by relaxing until nothing changes.
    fn bellman_ford(n: &Network, from: (SegmentIndex, u32), r: &Router) -> Vec<Option<u64>> {
        let count = n.segments().len();
        let mut cost = vec![None; count];
        let turn = |a: SegmentIndex, b: SegmentIndex| {
            let u = if n.segment(a).twin == Some(b) {
                u64::from(r.uturn_mm)
            } else {
                0
            };
            u + if n.turn_banned(a, b) {
                u64::from(r.banned_turn_mm)
            } else {
                0
            }
        };
        let relax = |cost: &mut Vec<Option<u64>>, a: SegmentIndex, end: u64| {
            let mut changed = false;
            for b in 0..count as u32 {
                if n.segment(a).to == n.segment(b).from {
                    let new = end + turn(a, b);
                    if cost[b as usize].is_none_or(|old| new < old) {
                        cost[b as usize] = Some(new);
                        changed = true;
                    }
                }
            }
            changed
        };
        relax(&mut cost, from.0, u64::from(n.segment(from.0).length_mm - from.1));
        loop {
            let mut changed = false;
            for a in 0..count as u32 {
                if let Some(c) = cost[a as usize] {
                    changed |= relax(&mut cost, a, c + u64::from(n.segment(a).length_mm));
                }
            }
            if !changed {
                return cost;
            }
        }
    }

    fn random_map() -> impl Strategy<Value = OsmData> {
        let node = (-5_000..5_000i32, -5_000..5_000i32);
        let way = (prop::collection::vec(0usize..14, 2..5), 0..3u8);
        let restriction = (0usize..16, 0usize..14, 0usize..16, any::<bool>());
        (
            prop::collection::vec(node, 14),
            prop::collection::vec(way, 3..16),
            prop::collection::vec(restriction, 0..8),
        )
            .prop_map(|(nodes, ways, restrictions)| {
                let mut osm = OsmData::default();
                for (i, (x, y)) in nodes.into_iter().enumerate() {
                    let (lat, lon) = (48.0 + f64::from(y) * 1e-6, 11.0 + f64::from(x) * 1e-6);
                    osm.nodes.insert(
                        i as i64,
                        OsmNode {
                            lat,
                            lon,
                            ..OsmNode::default()
                        },
                    );
                }
                for (i, (nodes, oneway)) in ways.into_iter().enumerate() {
                    let mut tags = std::collections::BTreeMap::new();
                    tags.insert("highway".to_owned(), "primary".to_owned());
                    tags.insert(
                        "oneway".to_owned(),
                        ["no", "yes", "-1"][usize::from(oneway)].to_owned(),
                    );
                    osm.ways.push(OsmWay {
                        id: i as i64,
                        nodes: nodes.into_iter().map(|n| n as i64).collect(),
                        tags,
                    });
                }
                for (from, via, to, only) in restrictions {
                    let kind = if only { "only_straight_on" } else { "no_left_turn" };
                    osm.restrictions.push(super::super::osm::OsmRestriction {
                        id: osm.restrictions.len() as i64,
                        from: from as i64,
                        via_node: Some(via as i64),
                        via_ways: Vec::new(),
                        to: to as i64,
                        tags: [("restriction".to_owned(), kind.to_owned())].into(),
                    });
                }
                osm
            })
    }

    proptest! {
        #[test]
        fn agrees_with_relaxation_to_the_end(osm in random_map(), start in any::<prop::sample::Index>(), bound in 0u64..2_000_000) {
            let (n, _) = build(&osm);
            prop_assume!(!n.segments().is_empty());
            let from = start.index(n.segments().len()) as u32;
            let from = (from, n.segment(from).length_mm / 3);
            let mut router = Router::default();
            let truth = bellman_ford(&n, from, &router);
            let targets: Vec<_> = (0..n.segments().len() as u32).map(|s| (s, n.segment(s).length_mm / 4)).collect();

            // Without a bound: the cheapest cost, and a connected path whose length and penalties add up to it.
            let mut lengths = Vec::new();
            router.paths(&n, from, &targets, u64::MAX, &mut lengths);
            let costs = router.costs().to_vec();
            let mut path = Path::default();
            for (i, &to) in targets.iter().enumerate() {
                prop_assert_eq!(costs[i], truth[i].map(|c| c + u64::from(to.1)));
                prop_assert_eq!(router.trace(&n, to, &mut path), costs[i].is_some());
                if costs[i].is_none() {
                    continue;
                }
                let (mut length, mut penalty) = (0, 0);
                for pair in path.segments.windows(2) {
                    prop_assert!(n.successors(pair[0]).contains(&pair[1]));
                    length += u64::from(n.segment(pair[0]).length_mm);
                    penalty += if n.segment(pair[0]).twin == Some(pair[1]) { 80_000 } else { 0 };
                    penalty += if n.turn_banned(pair[0], pair[1]) { 60_000 } else { 0 };
                }
                prop_assert_eq!(length + u64::from(to.1) - u64::from(from.1), path.length_mm);
                prop_assert_eq!(Some(path.length_mm), lengths[i]);
                prop_assert_eq!(path.length_mm + penalty, costs[i].unwrap());
            }
            // With a bound: the same where the cheapest path keeps it, and nothing longer otherwise.
            let unbounded = lengths.clone();
            router.paths(&n, from, &targets, bound, &mut lengths);
            for (i, length) in lengths.iter().enumerate() {
                if unbounded[i].is_some_and(|l| l <= bound) {
                    prop_assert_eq!(*length, unbounded[i]);
                } else {
                    prop_assert!(length.is_none_or(|l| l <= bound));
                }
            }
        }
    }
}
