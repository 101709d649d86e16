//! The directed street graph that the vehicles drive on, made from the city's OpenStreetMap data: pieces of
//! ways between junctions, turns, the rule at each piece's end, and shortest routes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::city::{to_degrees, to_metres};
use crate::network::osm::{OsmData, OsmWay};

/// Acceleration and comfortable braking of every driver, in m/s².
pub(super) const ACCELERATION: f64 = 2.6;
pub(super) const BRAKING: f64 = 4.5;
/// Half width of a junction's area in metres: stop lines lie outside of it.
const JUNCTION_M: f64 = 10.0;
/// Width of a lane in metres.
const LANE_M: f64 = 3.2;
/// Seconds of yellow and of all-red after each green.
const YELLOW_S: u32 = 3;
const CLEARANCE_S: u32 = 5;

/// A directed piece of one way between two junctions.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    /// `way#k`, with a leading `-` against the order of the way's nodes; k counts along the way.
    pub(super) id: String,
    pub(super) way: i64,
    pub(super) forward: bool,
    /// OSM ids of the junctions.
    pub(super) from_node: i64,
    pub(super) to_node: i64,
    pub(super) highway: String,
    pub(super) name: String,
    pub(super) length_m: f64,
    pub(super) lanes: u8,
    pub(super) limit_mps: f64,
    /// Mean speed in light traffic, rules at its end included (see [`light_traffic_speed`]).
    pub(super) free_mps: f64,
    /// Corners in metres from the centre, along the travel way, and their distances from the beginning.
    shape: Vec<(f64, f64)>,
    distance: Vec<f64>,
    /// The other direction of the same piece.
    twin: Option<u32>,
    /// Importance: greater goes first where no signal stands.
    rank: u8,
    pub(super) rule: Rule,
}

/// What stands at the end of an edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    /// Right of way.
    Free,
    /// Equal roads: who comes first, one approach at a time.
    FirstCome,
    /// Gives way to edges of higher rank into the same junction.
    Yield,
    /// Green from `start` for `green` seconds of each `cycle`.
    Signal { cycle: u32, start: u32, green: u32 },
}

/// Colour of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Light {
    Green,
    Yellow,
    Red,
}

impl Rule {
    /// The light at `second` since the simulation's beginning; green where there is no signal.
    pub(super) fn light(self, second: u32) -> Light {
        let Rule::Signal { cycle, start, green } = self else {
            return Light::Green;
        };
        match (second + cycle - start) % cycle {
            s if s < green => Light::Green,
            s if s < green + YELLOW_S => Light::Yellow,
            _ => Light::Red,
        }
    }
}

/// Direction of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Straight,
    Left,
    Right,
    Back,
}

impl Direction {
    /// Speed at which it is driven, in m/s (straight on: no bound).
    pub(super) fn speed(self) -> f64 {
        match self {
            Direction::Straight => f64::INFINITY,
            Direction::Left => 7.5,
            Direction::Right => 6.0,
            Direction::Back => 3.0,
        }
    }

    /// Whether it is made from this lane (0 is the rightmost).
    pub(super) fn allows(self, lane: u8, lanes: u8) -> bool {
        match self {
            Direction::Straight => true,
            Direction::Left | Direction::Back => lane + 1 == lanes,
            Direction::Right => lane == 0,
        }
    }
}

/// The graph. Edges are in order of way, piece and direction.
#[derive(Debug)]
pub(super) struct Streets {
    pub(super) edges: Vec<Edge>,
    /// Allowed turns at the end of each edge.
    turns: Vec<Vec<(u32, Direction)>>,
    /// Edges that yield-edges must watch: those of higher rank into the same junction.
    pub(super) priority_over: Vec<Vec<u32>>,
    /// Dense number of the junction at the end of each edge.
    pub(super) end_junction: Vec<u32>,
    pub(super) junctions: usize,
    /// Whether an edge can be reached from the main road and leads back to it.
    pub(super) connected: Vec<bool>,
}

impl Streets {
    pub(super) fn new(osm: &OsmData) -> Self {
        let cuts = junctions(osm);
        let mut edges = Vec::new();
        for way in &osm.ways {
            cut_way(osm, way, &cuts, &mut edges);
        }
        let numbers: BTreeMap<i64, u32> = cuts.iter().copied().zip(0..).collect();
        let mut streets = Streets {
            turns: vec![Vec::new(); edges.len()],
            priority_over: vec![Vec::new(); edges.len()],
            end_junction: edges.iter().map(|e| numbers[&e.to_node]).collect(),
            junctions: cuts.len(),
            connected: vec![true; edges.len()],
            edges,
        };
        streets.find_turns(osm);
        streets.set_rules(osm);
        streets.find_connected();
        for edge in &mut streets.edges {
            edge.free_mps = light_traffic_speed(edge);
        }
        streets
    }

    fn find_turns(&mut self, osm: &OsmData) {
        let banned: BTreeSet<(i64, i64, i64)> = osm
            .restrictions
            .iter()
            .filter_map(|r| Some((r.from, r.via_node?, r.to)))
            .collect();
        let mut leaving: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (e, edge) in (0..).zip(&self.edges) {
            leaving.entry(edge.from_node).or_default().push(e);
        }
        for (e, edge) in self.edges.iter().enumerate() {
            let all = leaving.get(&edge.to_node).map_or(&[][..], Vec::as_slice);
            let turns = &mut self.turns[e];
            for &next in all.iter().filter(|n| Some(**n) != edge.twin) {
                let to = &self.edges[next as usize];
                if !banned.contains(&(edge.way, edge.to_node, to.way)) {
                    turns.push((next, direction(edge, to)));
                }
            }
            // Turning round is for dead ends.
            if let (true, Some(twin)) = (turns.is_empty(), edge.twin) {
                turns.push((twin, Direction::Back));
            }
        }
    }

    fn set_rules(&mut self, osm: &OsmData) {
        let mut arriving: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (e, edge) in (0..).zip(&self.edges) {
            arriving.entry(edge.to_node).or_default().push(e);
        }
        for (node, incoming) in arriving {
            if osm.nodes[&node]
                .tags
                .get("highway")
                .is_some_and(|v| v == "traffic_signals")
            {
                self.set_signal(node, &incoming);
                continue;
            }
            let top = incoming
                .iter()
                .map(|&e| self.edges[e as usize].rank)
                .max()
                .unwrap_or(0);
            let tops = incoming
                .iter()
                .filter(|e| self.edges[**e as usize].rank == top)
                .count();
            for &e in &incoming {
                let rank = self.edges[e as usize].rank;
                let above = |other: &u32| self.edges[*other as usize].rank > rank;
                self.priority_over[e as usize] = incoming.iter().copied().filter(above).collect();
                // Two equal arms of one road go straight past each other; more or smaller ones take turns.
                let minor = self.edges[e as usize].highway == "residential";
                self.edges[e as usize].rule = match incoming.len() {
                    1 => Rule::Free,
                    _ if rank < top => Rule::Yield,
                    _ if tops > 2 || (minor && incoming.len() > 2) => Rule::FirstCome,
                    _ => Rule::Free,
                };
            }
        }
    }

    /// Fixed-time signals: one phase for each axis of approach, green in proportion to its widest approach.
    fn set_signal(&mut self, node: i64, incoming: &[u32]) {
        let axis = |e: u32| heading(&self.edges[e as usize], f64::INFINITY).rem_euclid(180.0);
        let apart = |a: f64, b: f64| (a - b).abs().min(180.0 - (a - b).abs());
        let mut phases: Vec<(f64, Vec<u32>)> = Vec::new();
        for &e in incoming {
            match phases.iter_mut().find(|(a, _)| apart(*a, axis(e)) < 32.0) {
                Some((_, members)) => members.push(e),
                None => phases.push((axis(e), vec![e])),
            }
        }
        let need = |members: &[u32]| {
            let edges = members.iter().map(|&e| &self.edges[e as usize]);
            edges
                .map(|e| u32::from(e.lanes) + u32::from(e.rank / 2))
                .max()
                .unwrap_or(1)
        };
        let needs: Vec<u32> = phases.iter().map(|(_, m)| need(m)).collect();
        let cycle = 40 + 22 * phases.len() as u32;
        let to_share = cycle - CLEARANCE_S * phases.len() as u32;
        // Without coordination; a spread that depends on nothing but the node.
        let mut start = (node.unsigned_abs() as u32).wrapping_mul(2_654_435_761) % cycle;
        for ((_, members), need) in phases.iter().zip(&needs) {
            let green = (to_share * need / needs.iter().sum::<u32>()).max(8);
            for &e in members {
                self.edges[e as usize].rule = Rule::Signal {
                    cycle,
                    start: start % cycle,
                    green,
                };
            }
            start += green + CLEARANCE_S;
        }
    }

    /// The strongly connected part around the widest road (there and back again).
    fn find_connected(&mut self) {
        let root = (0..self.edges.len())
            .max_by_key(|&e| (self.edges[e].lanes, Reverse(e)))
            .unwrap_or(0);
        let mut back = vec![Vec::new(); self.edges.len()];
        for (e, turns) in self.turns.iter().enumerate() {
            for (next, _) in turns {
                back[*next as usize].push(e);
            }
        }
        let reach = |neighbours: &dyn Fn(usize) -> Vec<usize>| {
            let mut seen = vec![false; self.edges.len()];
            let mut open = vec![root];
            while let Some(e) = open.pop() {
                if !std::mem::replace(&mut seen[e], true) {
                    open.extend(neighbours(e));
                }
            }
            seen
        };
        let there = reach(&|e| self.turns[e].iter().map(|t| t.0 as usize).collect());
        let home = reach(&|e| back[e].clone());
        self.connected = there.iter().zip(&home).map(|(a, b)| *a && *b).collect();
    }

    /// The turn from an edge into the next, `None` if not allowed.
    pub(super) fn turn(&self, from: u32, to: u32) -> Option<Direction> {
        self.turns[from as usize].iter().find(|t| t.0 == to).map(|t| t.1)
    }

    /// Degrees (latitude, longitude) on a lane, `along` metres from the edge's beginning, and the heading in
    /// degrees clockwise from north. Traffic keeps to the right of two-way streets.
    pub(super) fn locate(&self, edge: u32, lane: f64, along: f64) -> ((f64, f64), f64) {
        let edge = &self.edges[edge as usize];
        let ((x, y), heading) = edge.point(along);
        let right = match edge.twin {
            Some(_) => (f64::from(edge.lanes) - lane - 0.5) * LANE_M,
            None => (f64::from(edge.lanes) / 2.0 - lane - 0.5) * LANE_M,
        };
        let angle = heading.to_radians();
        (
            to_degrees(x + right * libm::cos(angle), y - right * libm::sin(angle)),
            heading,
        )
    }
}

impl Edge {
    /// Where vehicles stop: before the junction's area.
    pub(super) fn stop_line_m(&self) -> f64 {
        self.length_m - self.junction_m()
    }

    /// How far the junctions' areas reach into the edge at both ends.
    pub(super) fn junction_m(&self) -> f64 {
        if self.highway == "trunk" {
            0.0
        } else {
            (0.15 * self.length_m).min(JUNCTION_M)
        }
    }

    /// Corners as (latitude, longitude) in degrees, on the way's own line.
    pub(super) fn corners(&self) -> impl Iterator<Item = (f64, f64)> {
        self.shape.iter().map(|&(x, y)| to_degrees(x, y))
    }

    /// Place on the way's line in metres from the centre, and heading, `along` metres from the beginning.
    pub(super) fn point(&self, along: f64) -> ((f64, f64), f64) {
        let last = self.shape.len() - 1;
        let k = self.distance.partition_point(|d| *d <= along).clamp(1, last);
        let ((ax, ay), (bx, by)) = (self.shape[k - 1], self.shape[k]);
        let t = ((along - self.distance[k - 1]) / (self.distance[k] - self.distance[k - 1])).clamp(0.0, 1.0);
        let heading = libm::atan2(bx - ax, by - ay).to_degrees().rem_euclid(360.0);
        ((ax + (bx - ax) * t, ay + (by - ay) * t), heading)
    }
}

fn heading(edge: &Edge, along: f64) -> f64 {
    edge.point(along).1
}

/// Change of heading at the junction: within 40° is straight on.
fn direction(from: &Edge, to: &Edge) -> Direction {
    let change = (heading(to, 0.0) - heading(from, f64::INFINITY) + 180.0).rem_euclid(360.0) - 180.0;
    match change {
        _ if from.highway == "trunk" || to.highway == "trunk" => Direction::Straight,
        c if c.abs() <= 40.0 => Direction::Straight,
        c if c < 0.0 => Direction::Left,
        _ => Direction::Right,
    }
}

/// Mean speed that light traffic reaches on an edge: limit times the mean driver's wish, then the mean wait at
/// a signal without a queue, red²/(2·cycle), plus the loss of braking for it, or a moment at a sign.
fn light_traffic_speed(edge: &Edge) -> f64 {
    let wish = 0.93 * edge.limit_mps;
    let wait = match edge.rule {
        Rule::Free => 0.0,
        Rule::FirstCome => 1.0,
        Rule::Yield => 2.5,
        Rule::Signal { cycle, green, .. } => {
            let (cycle, red) = (f64::from(cycle), f64::from(cycle - green));
            red * red / (2.0 * cycle) + red / cycle * wish / (2.0 * BRAKING)
        }
    };
    edge.length_m / (edge.length_m / wish + wait)
}

/// Nodes where ways meet or end.
fn junctions(osm: &OsmData) -> BTreeSet<i64> {
    let mut uses: BTreeMap<i64, u32> = BTreeMap::new();
    for way in &osm.ways {
        let last = way.nodes.len() - 1;
        for (k, node) in way.nodes.iter().enumerate() {
            *uses.entry(*node).or_default() += if k == 0 || k == last { 2 } else { 1 };
        }
    }
    uses.into_iter()
        .filter(|(_, n)| *n >= 2)
        .map(|(node, _)| node)
        .collect()
}

fn cut_way(osm: &OsmData, way: &OsmWay, cuts: &BTreeSet<i64>, edges: &mut Vec<Edge>) {
    let tag = |key: &str| way.tags.get(key).map_or("", String::as_str);
    let highway = tag("highway");
    let roundabout = tag("junction") == "roundabout";
    let oneway = roundabout || tag("oneway") == "yes";
    let (rank, default_kph) = match highway {
        "trunk" => (9, 80.0),
        _ if roundabout => (8, 30.0),
        "primary" => (6, 60.0),
        "secondary" => (5, 50.0),
        "tertiary" => (4, 40.0),
        "trunk_link" => (3, 40.0),
        _ => (2, 30.0),
    };
    let lanes: u8 = tag("lanes").parse().unwrap_or(if oneway { 1 } else { 2 });
    let limit_kph: f64 = tag("maxspeed").parse().unwrap_or(default_kph);
    let mut begin = 0;
    let mut piece = 0;
    for end in 1..way.nodes.len() {
        if !cuts.contains(&way.nodes[end]) {
            continue;
        }
        let nodes = &way.nodes[begin..=end];
        let directions: &[bool] = if oneway { &[true] } else { &[true, false] };
        for &forward in directions {
            let mut nodes = nodes.to_vec();
            if !forward {
                nodes.reverse();
            }
            let shape: Vec<(f64, f64)> = nodes
                .iter()
                .map(|n| to_metres(osm.nodes[n].lat, osm.nodes[n].lon))
                .collect();
            let mut distance = vec![0.0];
            for (k, pair) in shape.windows(2).enumerate() {
                distance.push(distance[k] + libm::hypot(pair[1].0 - pair[0].0, pair[1].1 - pair[0].1));
            }
            let here = edges.len() as u32;
            edges.push(Edge {
                id: format!("{}{}#{piece}", if forward { "" } else { "-" }, way.id),
                way: way.id,
                forward,
                from_node: nodes[0],
                to_node: nodes[nodes.len() - 1],
                highway: highway.to_owned(),
                name: tag("name").to_owned(),
                length_m: distance[distance.len() - 1],
                lanes: if oneway { lanes } else { (lanes / 2).max(1) },
                limit_mps: limit_kph / 3.6,
                free_mps: limit_kph / 3.6,
                shape,
                distance,
                twin: (!oneway).then_some(if forward { here + 1 } else { here.wrapping_sub(1) }),
                rank,
                rule: Rule::Free,
            });
        }
        begin = end;
        piece += 1;
    }
}

/// Dijkstra over edges, with buffers that are kept from search to search.
#[derive(Debug)]
pub(super) struct Router {
    /// Cost at which an edge is entered, the edge before it, and the search that wrote them.
    reached: Vec<(u64, u32, u32)>,
    search: u32,
    open: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Router {
    pub(super) fn new(streets: &Streets) -> Self {
        Self {
            reached: vec![(0, 0, 0); streets.edges.len()],
            search: 0,
            open: BinaryHeap::new(),
        }
    }

    /// The edges after `from` up to `to` on the cheapest way; `cost` in ms per edge. `avoid` is not taken as
    /// the first turn. Ties fall to the lower edge number.
    pub(super) fn route(
        &mut self,
        streets: &Streets,
        cost: &dyn Fn(u32) -> u64,
        (from, to): (u32, u32),
        avoid: Option<u32>,
    ) -> Option<Vec<u32>> {
        if from == to {
            return Some(Vec::new());
        }
        self.search += 1;
        self.open.clear();
        self.reached[from as usize] = (0, from, self.search);
        self.open.push(Reverse((0, from)));
        while let Some(Reverse((so_far, edge))) = self.open.pop() {
            if edge == to {
                let mut path = vec![to];
                while path[path.len() - 1] != from {
                    path.push(self.reached[path[path.len() - 1] as usize].1);
                }
                path.pop();
                path.reverse();
                return Some(path);
            }
            if so_far > self.reached[edge as usize].0 {
                continue;
            }
            let left = so_far + cost(edge);
            for &(next, direction) in &streets.turns[edge as usize] {
                let turn_ms = match direction {
                    Direction::Straight => 0,
                    Direction::Right => 2_000,
                    Direction::Left => 6_000,
                    Direction::Back => 15_000,
                };
                let (known, _, search) = self.reached[next as usize];
                let better = search != self.search || left + turn_ms < known;
                if better && !(edge == from && avoid == Some(next)) {
                    self.reached[next as usize] = (left + turn_ms, edge, self.search);
                    self.open.push(Reverse((left + turn_ms, next)));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::city;
    use super::super::dice::{Dice, Purpose};
    use super::*;

    fn streets() -> Streets {
        Streets::new(&city::draw(&mut Dice::new(1, Purpose::City), 6_000.0))
    }

    #[test]
    fn a_city_of_the_right_size_that_hangs_together() {
        let streets = streets();
        let n = streets.edges.len();
        assert!((2_500..6_000).contains(&n), "{n}");
        let connected = streets.connected.iter().filter(|c| **c).count();
        assert!(connected * 100 > n * 97, "{connected} of {n}");
        for (e, edge) in streets.edges.iter().enumerate() {
            if let Some(twin) = edge.twin {
                assert_eq!(streets.edges[twin as usize].twin, Some(e as u32));
                assert_eq!(streets.edges[twin as usize].from_node, edge.to_node);
            }
            assert!(
                edge.length_m > 5.0 && edge.free_mps > 0.5 && edge.free_mps < edge.limit_mps,
                "{edge:?}"
            );
        }
    }

    #[test]
    fn one_phase_is_green_at_a_time() {
        let streets = streets();
        let mut at: BTreeMap<i64, Vec<Rule>> = BTreeMap::new();
        for edge in &streets.edges {
            if matches!(edge.rule, Rule::Signal { .. }) {
                at.entry(edge.to_node).or_default().push(edge.rule);
            }
        }
        assert!(at.len() > 100);
        for rules in at.values() {
            for second in 0..130 {
                let lit: Vec<&Rule> = rules.iter().filter(|r| r.light(second) != Light::Red).collect();
                assert!(
                    lit.windows(2).all(|pair| pair[0] == pair[1]),
                    "{lit:?} at {second}"
                );
            }
        }
    }

    #[test]
    fn routes_join_and_respect_bans() {
        let streets = streets();
        let mut router = Router::new(&streets);
        let cost = |e: u32| (streets.edges[e as usize].length_m * 100.0) as u64;
        let open: Vec<u32> = (0..streets.edges.len() as u32)
            .filter(|e| streets.connected[*e as usize])
            .collect();
        for k in 0..60 {
            let (from, to) = (open[k * 37 % open.len()], open[(k * 911 + 400) % open.len()]);
            let path = router
                .route(&streets, &cost, (from, to), None)
                .expect("both are connected");
            let mut at = from;
            for next in path {
                assert!(streets.turn(at, next).is_some());
                at = next;
            }
            assert_eq!(at, to);
        }
    }

    #[test]
    fn lanes_lie_on_the_right() {
        let streets = streets();
        let e = streets
            .edges
            .iter()
            .position(|e| e.lanes == 2 && e.twin.is_some())
            .unwrap();
        let edge = &streets.edges[e];
        let ((x, y), heading) = edge.point(edge.length_m / 2.0);
        let ((lat, lon), _) = streets.locate(e as u32, 0.0, edge.length_m / 2.0);
        let (lx, ly) = to_metres(lat, lon);
        let angle = heading.to_radians();
        let right = (lx - x) * libm::cos(angle) - (ly - y) * libm::sin(angle);
        assert!((right - 1.5 * LANE_M).abs() < 0.01, "{right}");
    }
}
