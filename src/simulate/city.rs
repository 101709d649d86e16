//! A made-up city of about six by six kilometres as OpenStreetMap data.
//!
//! Plan: a warped lattice of streets (every 4th line secondary, every 2nd tertiary, the rest residential, many
//! of those one-way or with gaps), two axes and four radial arterials, an elevated ring road with two
//! carriageways and diamond interchanges, a river that only three streets and the ring cross, roundabouts,
//! signals and a few turn bans. Everything follows from the seed and the size.

use std::collections::BTreeMap;
use std::f64::consts::{PI, TAU};

use super::dice::Dice;
use crate::network::osm::{OsmData, OsmNode, OsmRestriction, OsmWay};

/// Latitude and longitude of the city's centre in degrees.
pub const CENTRE: (f64, f64) = (34.26, 108.94);
/// Metres of one degree of latitude on the mean sphere, R = 6,371,008.8 m, as in `Position::distance_m`.
pub(super) const M_PER_DEGREE: f64 = 6_371_008.8 * PI / 180.0;
/// Distance of neighbouring streets before warping, in metres.
const BLOCK_M: f64 = 187.0;
/// Half distance of the ring's carriageways in metres.
const HALF_MEDIAN_M: f64 = 9.0;
/// Distance along the ring from an arterial to its ramps' noses, in metres.
const RAMP_M: f64 = 230.0;
/// The river runs between this row of the lattice and the one north of it.
const RIVER_ROW: i32 = -6;
/// The radials begin at the corners of this square: before it lies the old town.
const OLD_TOWN: i32 = 4;

const STEMS: [&str; 12] = [
    "梧桐", "槐荫", "翠柳", "丰收", "文昌", "书院", "金桥", "和平", "建设", "光华", "青松", "朝阳",
];
const TREES: [&str; 12] = [
    "Elm", "Maple", "Cedar", "Willow", "Poplar", "Ginkgo", "Juniper", "Linden", "Acacia", "Mulberry",
    "Cypress", "Magnolia",
];

/// Degrees (latitude, longitude) of a place in metres east and north of [`CENTRE`].
pub(super) fn to_degrees(x: f64, y: f64) -> (f64, f64) {
    (
        CENTRE.0 + y / M_PER_DEGREE,
        CENTRE.1 + x / (M_PER_DEGREE * libm::cos(CENTRE.0.to_radians())),
    )
}

/// Metres east and north of [`CENTRE`], inverse of [`to_degrees`].
pub(super) fn to_metres(lat: f64, lon: f64) -> (f64, f64) {
    (
        (lon - CENTRE.1) * M_PER_DEGREE * libm::cos(CENTRE.0.to_radians()),
        (lat - CENTRE.0) * M_PER_DEGREE,
    )
}

/// A place of the lattice: column (east) and row (north), 0 in the centre.
type Crossing = (i32, i32);
/// Metres east and north of the centre.
type Place = (f64, f64);

/// The street of one line of the lattice.
#[derive(Clone, Debug, PartialEq)]
struct Street {
    highway: &'static str,
    name: String,
    lanes_each_way: u8,
    maxspeed: Option<u16>,
    /// +1 or −1: one-way along or against the line; 0: both ways.
    oneway: i8,
    bridge: bool,
}

/// Draws a city of `size_m` by `size_m` metres (2,000 to 20,000; the streets just outside come on top).
pub(super) fn draw(dice: &mut Dice, size_m: f64) -> OsmData {
    let half = ((size_m.clamp(2_000.0, 20_000.0) / 2.0 / BLOCK_M).round() as i32).max(8);
    let ring = ((f64::from(half) * 0.58) as i32) | 1;
    let mut draft = Draft {
        osm: OsmData::default(),
        half,
        // Odd rows: there the arterials cross residential streets, so no signals crowd the interchange.
        ring,
        ring_on_radials: ((f64::from(ring) * 0.74) as i32) | 1,
        crossings: BTreeMap::new(),
        circles: BTreeMap::new(),
        ramps: BTreeMap::new(),
        dice,
    };
    draft.lay_streets();
    draft.lay_ring();
    draft.set_signals();
    draft.ban_turns();
    draft.osm
}

struct Draft<'a> {
    osm: OsmData,
    half: i32,
    ring: i32,
    ring_on_radials: i32,
    /// Node of each crossing of the lattice that some street uses.
    crossings: BTreeMap<Crossing, i64>,
    /// The eight nodes of each roundabout, counterclockwise from east.
    circles: BTreeMap<Crossing, Vec<i64>>,
    /// For each arterial (direction of the lattice): the crossing place with the ring, and the nodes of the
    /// arterial inside and outside of it.
    ramps: BTreeMap<Crossing, (Place, i64, i64)>,
    dice: &'a mut Dice,
}

impl Draft<'_> {
    /// Where a (fractional) crossing of the lattice lies: the square pulled towards a disc, with soft waves.
    fn warp(&self, i: f64, j: f64) -> Place {
        let half = f64::from(self.half);
        let (u, v) = (i / half, j / half);
        let (x, y) = (
            u * libm::sqrt(1.0 - 0.36 * v * v),
            v * libm::sqrt(1.0 - 0.36 * u * u),
        );
        let size = half * BLOCK_M;
        (
            x * size + 70.0 * libm::sin(2.3 * v + 0.4),
            y * size + 55.0 * libm::sin(2.9 * u - 0.7),
        )
    }

    fn node(&mut self, (x, y): Place) -> i64 {
        let (lat, lon) = to_degrees(x, y);
        let id = self.osm.nodes.len() as i64 + 1;
        let round = |d: f64| (d * 1e7).round() / 1e7;
        self.osm.nodes.insert(
            id,
            OsmNode {
                lat: round(lat),
                lon: round(lon),
                tags: BTreeMap::new(),
            },
        );
        id
    }

    fn place(&self, node: i64) -> Place {
        let n = &self.osm.nodes[&node];
        to_metres(n.lat, n.lon)
    }

    fn way(&mut self, nodes: Vec<i64>, tags: &[(&str, &str)]) -> i64 {
        let id = 1000 + self.osm.ways.len() as i64;
        let tags = tags.iter().filter(|(_, v)| !v.is_empty());
        let tags = tags.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.osm.ways.push(OsmWay { id, nodes, tags });
        id
    }

    /// The node of a crossing as seen by a street that comes from `towards` (they differ on a roundabout).
    fn crossing(&mut self, at: Crossing, towards: Place) -> i64 {
        if let Some(circle) = self.circles.get(&at) {
            let centre = self.warp(f64::from(at.0), f64::from(at.1));
            let angle = libm::atan2(towards.1 - centre.1, towards.0 - centre.0);
            return circle[(angle.rem_euclid(TAU) / TAU * 8.0).round() as usize % 8];
        }
        if let Some(&node) = self.crossings.get(&at) {
            return node;
        }
        let (x, y) = self.warp(f64::from(at.0), f64::from(at.1));
        let wild = if at.0 % 2 != 0 && at.1 % 2 != 0 { 24.0 } else { 8.0 };
        let jitter = (self.dice.between(-wild, wild), self.dice.between(-wild, wild));
        let node = self.node((x + jitter.0, y + jitter.1));
        self.crossings.insert(at, node);
        node
    }

    fn lay_streets(&mut self) {
        for at in [(8i32, 4i32), (-8, 4), (-4, -12)] {
            if at.0.abs().max(at.1.abs()) < self.half {
                self.lay_roundabout(at);
            }
        }
        let half = self.half;
        for line in -half..=half {
            // An arterial runs one block beyond the city: there traffic comes in from outside.
            let reach = if line == 0 { half + 1 } else { half };
            let vertical = self.street_of(line, true);
            self.lay_line(&vertical, (-reach..=reach).map(|j| (line, j)).collect());
            let horizontal = self.street_of(line, false);
            self.lay_line(&horizontal, (-reach..=reach).map(|i| (i, line)).collect());
        }
        let radials = [
            ("Northeast Avenue", 1, 1),
            ("西北大道", -1, 1),
            ("Southwest Avenue", -1, -1),
            ("东南大道", 1, -1),
        ];
        for (name, dx, dy) in radials {
            let street = Street {
                highway: "primary",
                name: name.into(),
                lanes_each_way: 2,
                maxspeed: Some(60),
                oneway: 0,
                bridge: false,
            };
            self.lay_line(&street, (OLD_TOWN..=half + 1).map(|k| (k * dx, k * dy)).collect());
        }
    }

    fn street_of(&mut self, line: i32, vertical: bool) -> Street {
        let number = line.unsigned_abs() as usize;
        let (highway, lanes_each_way, maxspeed) = match line {
            0 => ("primary", 2, Some(60)),
            _ if line % 4 == 0 => ("secondary", 1, Some(50)),
            _ if line % 2 == 0 => ("tertiary", 1, Some(40)),
            // Half of the small streets have no sign, as in real maps.
            _ => ("residential", 1, Some(30).filter(|_| number % 4 == 1)),
        };
        let name = match (vertical, line) {
            (true, 0) => "长安路".to_owned(),
            (false, 0) => "大街".to_owned(),
            (true, _) => {
                let kind = if line % 4 == 0 { "路" } else { "街" };
                format!(
                    "{}{}{kind}",
                    if line < 0 { "西" } else { "东" },
                    STEMS[number % 12]
                )
            }
            (false, _) => {
                format!(
                    "{} {} Street",
                    if line < 0 { "South" } else { "North" },
                    TREES[number % 12]
                )
            }
        };
        let oneway = match highway {
            "residential" if self.dice.chance(0.45) => [1, -1][(line.rem_euclid(4) / 2) as usize],
            _ => 0,
        };
        Street {
            highway,
            name,
            lanes_each_way,
            maxspeed,
            oneway,
            bridge: false,
        }
    }

    /// Lays the ways of one line: a new way begins where tags change, after six blocks and at turn bans.
    fn lay_line(&mut self, street: &Street, line: Vec<Crossing>) {
        let mut open: Option<(Street, Vec<i64>, usize)> = None;
        for pair in line.windows(2) {
            let Some(here) = self.block(street, pair[0], pair[1]) else {
                self.close(&mut open);
                continue;
            };
            let [from, to] = [pair[0], pair[1]].map(|at| self.warp(f64::from(at.0), f64::from(at.1)));
            let (begin, end) = (self.crossing(pair[0], to), self.crossing(pair[1], from));
            let fits = open.as_ref().is_some_and(|(street, nodes, blocks)| {
                *street == here && nodes.last() == Some(&begin) && *blocks < 6 && !bans_turns(pair[0])
            });
            if !fits {
                self.close(&mut open);
                open = Some((here, vec![begin], 0));
            }
            let inner = self.inner_nodes(pair[0], pair[1], begin, end);
            let (_, nodes, blocks) = open.as_mut().expect("opened just above");
            nodes.extend(inner);
            nodes.push(end);
            *blocks += 1;
        }
        self.close(&mut open);
    }

    /// The street between two neighbouring crossings, or none: gaps in small streets and the river.
    fn block(&mut self, street: &Street, from: Crossing, to: Crossing) -> Option<Street> {
        let mut here = street.clone();
        if from.1.min(to.1) == RIVER_ROW && from.1.max(to.1) == RIVER_ROW + 1 {
            here.bridge = street.highway == "primary";
            if !here.bridge {
                return None;
            }
        }
        if street.highway == "residential" && self.dice.chance(0.15) {
            return None;
        }
        if street.name == "长安路" {
            here.name = if from.1 >= 0 {
                "长安北路"
            } else {
                "长安南路"
            }
            .into();
        } else if street.name == "大街" {
            here.name = if from.0 >= 0 { "东大街" } else { "西大街" }.into();
        }
        Some(here)
    }

    /// Nodes between two crossings: the two of an interchange, or a slight bend.
    fn inner_nodes(&mut self, from: Crossing, to: Crossing, begin: i64, end: i64) -> Vec<i64> {
        let ((ax, ay), (bx, by)) = (self.place(begin), self.place(end));
        let along = |t: f64| (ax + (bx - ax) * t, ay + (by - ay) * t);
        if let Some(direction) = self.interchange(from, to) {
            let (first, second) = (self.node(along(0.25)), self.node(along(0.75)));
            let outward = from.0.abs().max(from.1.abs()) < to.0.abs().max(to.1.abs());
            let (inside, outside) = if outward { (first, second) } else { (second, first) };
            self.ramps.insert(direction, (along(0.5), inside, outside));
            return vec![first, second];
        }
        let length = libm::hypot(bx - ax, by - ay);
        let bow = self.dice.between(-0.03, 0.03) * length;
        let (x, y) = along(0.5);
        vec![self.node((x - (by - ay) / length * bow, y + (bx - ax) / length * bow))]
    }

    /// The direction of the arterial that meets the ring between these crossings, if one does.
    fn interchange(&self, from: Crossing, to: Crossing) -> Option<Crossing> {
        let (near, far) = if from.0.abs().max(from.1.abs()) < to.0.abs().max(to.1.abs()) {
            (from, to)
        } else {
            (to, from)
        };
        let direction = (far.0.signum(), far.1.signum());
        let at = match direction {
            (_, 0) | (0, _) => self.ring,
            _ if far.0.abs() == far.1.abs() && near.0.abs() == near.1.abs() => self.ring_on_radials,
            _ => return None,
        };
        (near == (direction.0 * at, direction.1 * at)
            && far == (direction.0 * (at + 1), direction.1 * (at + 1)))
            .then_some(direction)
    }

    fn close(&mut self, open: &mut Option<(Street, Vec<i64>, usize)>) {
        let Some((street, mut nodes, _)) = open.take() else {
            return;
        };
        if street.oneway < 0 {
            nodes.reverse();
        }
        let lanes = match (street.highway, street.oneway) {
            ("residential", _) => String::new(),
            (_, 0) => (2 * street.lanes_each_way).to_string(),
            _ => street.lanes_each_way.to_string(),
        };
        let maxspeed = street.maxspeed.map_or(String::new(), |v| v.to_string());
        self.way(
            nodes,
            &[
                ("highway", street.highway),
                ("name", &street.name),
                ("lanes", &lanes),
                ("maxspeed", &maxspeed),
                ("oneway", if street.oneway == 0 { "" } else { "yes" }),
                ("bridge", if street.bridge { "yes" } else { "" }),
                ("layer", if street.bridge { "1" } else { "" }),
            ],
        );
    }

    fn lay_roundabout(&mut self, at: Crossing) {
        let (x, y) = self.warp(f64::from(at.0), f64::from(at.1));
        let angles = (0..8).map(|k| f64::from(k) * TAU / 8.0);
        let mut circle: Vec<i64> = angles
            .map(|a| self.node((x + 24.0 * libm::cos(a), y + 24.0 * libm::sin(a))))
            .collect();
        self.circles.insert(at, circle.clone());
        circle.push(circle[0]);
        // No `oneway` tag: a roundabout implies it.
        self.way(
            circle,
            &[
                ("highway", "secondary"),
                ("junction", "roundabout"),
                ("lanes", "1"),
                ("maxspeed", "30"),
            ],
        );
    }

    /// The ring runs through the middles of its interchanges, smooth in polar coordinates.
    fn lay_ring(&mut self) {
        let mut knots: Vec<(f64, f64, i64, i64)> = self
            .ramps
            .values()
            .map(|&((x, y), inside, outside)| {
                (
                    libm::atan2(y, x).rem_euclid(TAU),
                    libm::hypot(x, y),
                    inside,
                    outside,
                )
            })
            .collect();
        knots.sort_by(|a, b| a.0.total_cmp(&b.0));
        let radius = {
            let knots = knots.clone();
            move |angle: f64| {
                let angle = angle.rem_euclid(TAU);
                let next = knots.partition_point(|k| k.0 <= angle) % knots.len();
                let (a, b) = (&knots[(next + knots.len() - 1) % knots.len()], &knots[next]);
                let span = (b.0 - a.0).rem_euclid(TAU);
                let t = (angle - a.0).rem_euclid(TAU) / span;
                a.1 + (b.1 - a.1) * (1.0 - libm::cos(PI * t)) / 2.0
            }
        };
        // Traffic keeps to the right, so the outer carriageway runs counterclockwise.
        for turn in [1.0, -1.0] {
            let at = |angle: f64, shift: f64| {
                let r = radius(angle) + turn * (HALF_MEDIAN_M + shift);
                (r * libm::cos(angle), r * libm::sin(angle))
            };
            let mut order = knots.clone();
            if turn < 0.0 {
                order.reverse();
            }
            let noses: Vec<(f64, f64, i64, i64, i64)> = order
                .iter()
                .map(|&(angle, r, inside, outside)| {
                    let (leave, join) = (angle - turn * RAMP_M / r, angle + turn * RAMP_M / r);
                    let arterial = if turn > 0.0 { outside } else { inside };
                    (
                        leave,
                        join,
                        self.node(at(leave, 0.0)),
                        self.node(at(join, 0.0)),
                        arterial,
                    )
                })
                .collect();
            for (k, &(leave, join, off, on, arterial)) in noses.iter().enumerate() {
                let next = &noses[(k + 1) % noses.len()];
                for (from, to, first, last, lanes) in
                    [(leave, join, off, on, "2"), (join, next.0, on, next.2, "3")]
                {
                    let span = turn * (turn * (to - from)).rem_euclid(TAU);
                    let steps = ((span.abs() * radius(from)) / 60.0).ceil().max(1.0) as usize;
                    let mut nodes = vec![first];
                    for s in 1..steps {
                        nodes.push(self.node(at(from + span * s as f64 / steps as f64, 0.0)));
                    }
                    nodes.push(last);
                    let tags = [
                        ("highway", "trunk"),
                        ("name", "环城高架路 Ring Road"),
                        ("oneway", "yes"),
                        ("lanes", lanes),
                        ("maxspeed", "80"),
                        ("bridge", "viaduct"),
                        ("layer", "2"),
                    ];
                    self.way(nodes, &tags);
                }
                let tags = [
                    ("highway", "trunk_link"),
                    ("oneway", "yes"),
                    ("lanes", "1"),
                    ("maxspeed", "40"),
                ];
                let ramp = |t: f64| (leave + (join - leave) * t, 22.0);
                for (bends, first, last) in [([0.12, 0.3], off, arterial), ([0.7, 0.88], arterial, on)] {
                    let [a, b] = bends.map(|t| self.node(at(ramp(t).0, ramp(t).1)));
                    self.way(vec![first, a, b, last], &tags);
                }
            }
        }
    }

    /// The highway values at the arms of each node (a way that passes has two).
    fn arms(&self) -> BTreeMap<i64, Vec<&str>> {
        let mut arms: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
        for way in &self.osm.ways {
            let kind = if way.tags.contains_key("junction") {
                "roundabout"
            } else {
                way.tags["highway"].as_str()
            };
            for pair in way.nodes.windows(2) {
                for node in pair {
                    arms.entry(*node).or_default().push(kind);
                }
            }
        }
        arms
    }

    /// Signals stand where two big roads' arms meet a third road that is not residential.
    fn set_signals(&mut self) {
        let is_big = |kind: &&&str| matches!(**kind, "primary" | "secondary");
        let counts = |kind: &&&str| matches!(**kind, "primary" | "secondary" | "tertiary" | "trunk_link");
        let signals: Vec<i64> = self
            .arms()
            .iter()
            .filter(|(_, kinds)| !kinds.iter().any(|k| matches!(*k, "trunk" | "roundabout")))
            .filter(|(_, kinds)| {
                kinds.iter().filter(is_big).count() >= 2 && kinds.iter().filter(counts).count() >= 3
            })
            .map(|(&node, _)| node)
            .collect();
        for node in signals {
            let tags = &mut self.osm.nodes.get_mut(&node).expect("an arm's node exists").tags;
            tags.insert("highway".into(), "traffic_signals".into());
        }
    }

    /// No left turn off the axes where they meet the old town's square.
    fn ban_turns(&mut self) {
        let mut id = 1;
        for at in [(0, OLD_TOWN), (OLD_TOWN, 0), (0, -OLD_TOWN), (-OLD_TOWN, 0)] {
            let Some(&via) = self.crossings.get(&at) else {
                continue;
            };
            // Leaving the centre: the way from there, and the one that branches off to the left of it.
            let out = libm::atan2(f64::from(at.1), f64::from(at.0));
            let (from, to) = (
                self.way_towards(via, out + PI),
                self.way_towards(via, out + PI / 2.0),
            );
            if let (Some(from), Some(to)) = (from, to) {
                let tags = [("type", "restriction"), ("restriction", "no_left_turn")];
                let tags = tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
                let restriction = OsmRestriction {
                    id,
                    from,
                    via_node: Some(via),
                    via_ways: vec![],
                    to,
                    tags,
                };
                self.osm.restrictions.push(restriction);
                id += 1;
            }
        }
    }

    /// The way that ends or begins at a node and leads into a direction (±0.6 rad).
    fn way_towards(&self, node: i64, angle: f64) -> Option<i64> {
        let (x, y) = self.place(node);
        self.osm.ways.iter().find_map(|way| {
            let neighbour = match way.nodes.as_slice() {
                [first, second, ..] if *first == node => *second,
                [.., before, last] if *last == node => *before,
                _ => return None,
            };
            let (nx, ny) = self.place(neighbour);
            let off = (libm::atan2(ny - y, nx - x) - angle + PI).rem_euclid(TAU) - PI;
            (off.abs() < 0.6).then_some(way.id)
        })
    }
}

/// Crossings of [`Draft::ban_turns`], where ways must end.
fn bans_turns((i, j): Crossing) -> bool {
    (i == 0 && j.abs() == OLD_TOWN) || (j == 0 && i.abs() == OLD_TOWN)
}

#[cfg(test)]
mod tests {
    use super::super::dice::Purpose;
    use super::*;

    fn city(seed: u64) -> OsmData {
        draw(&mut Dice::new(seed, Purpose::City), 6_000.0)
    }

    #[test]
    fn has_all_that_was_planned() {
        let osm = city(1);
        let ways = |key: &str, value: &str| {
            osm.ways
                .iter()
                .filter(|w| w.tags.get(key).is_some_and(|v| v == value))
                .count()
        };
        assert_eq!(
            ways("highway", "trunk"),
            32,
            "two pieces for each of 8 interchanges and 2 carriageways"
        );
        assert_eq!(ways("highway", "trunk_link"), 32);
        assert_eq!(ways("bridge", "yes"), 3);
        assert_eq!(ways("junction", "roundabout"), 3);
        assert_eq!(osm.restrictions.len(), 4);
        assert!(
            osm.ways
                .iter()
                .any(|w| w.tags.get("name").is_some_and(|n| n == "长安南路"))
        );
        let signals = osm
            .nodes
            .values()
            .filter(|n| n.tags.contains_key("highway"))
            .count();
        assert!((150..400).contains(&signals), "{signals}");
    }

    #[test]
    fn is_well_formed() {
        let osm = city(3);
        for way in &osm.ways {
            assert!(
                way.nodes.len() >= 2 && way.nodes.iter().all(|n| osm.nodes.contains_key(n)),
                "{way:?}"
            );
            for pair in way.nodes.windows(2) {
                let [a, b] = [pair[0], pair[1]].map(|n| &osm.nodes[&n]);
                let ((ax, ay), (bx, by)) = (to_metres(a.lat, a.lon), to_metres(b.lat, b.lon));
                let length = libm::hypot(ax - bx, ay - by);
                assert!((2.0..260.0).contains(&length), "{length} m in {way:?}");
            }
        }
        for r in &osm.restrictions {
            let via = r.via_node.unwrap();
            for id in [r.from, r.to] {
                let way = osm.ways.iter().find(|w| w.id == id).unwrap();
                assert!(way.nodes.first() == Some(&via) || way.nodes.last() == Some(&via));
            }
        }
    }

    #[test]
    fn follows_the_seed() {
        assert_eq!(city(5), city(5));
        assert_ne!(city(5), city(6));
    }
}
