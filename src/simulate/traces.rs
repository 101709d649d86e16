//! Single drives over any map with the noise of a receiver: what map matching is measured with.
//!
//! A vehicle takes the way of least time from a random segment to random destinations, at a speed of its own on
//! each segment, and stops at some signals. Other traffic there is none. The error of its positions is Gaussian,
//! the same on both axes, and fades over [`TraceSettings::correlation_s`], as that of real receivers does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::dice::{Dice, Purpose};
use crate::network::{Network, RoadClass, SegmentFlags, SegmentIndex};
use crate::units::{Bearing, MmPerS, Position};

/// Destinations that drives have in common: each costs one search over the whole map.
const DESTINATIONS: usize = 100;
/// Destinations that may turn out to be out of reach, and drives that may end nowhere, before the map is given up.
const TRIES: usize = 10_000;
/// Another destination is looked for this often where one cannot be reached.
const TURNS: usize = 20;
/// Spread of the vehicles' speeds (standard deviation of the logarithm).
const SPEED_SPREAD: f64 = 0.15;
/// Share of signals that are red, and how long one waits, in seconds.
const RED: f64 = 0.4;
const RED_S: (f64, f64) = (5.0, 40.0);
/// Error of the reported direction in degrees; below `STANDING` m/s it is arbitrary.
const HEADING_SIGMA: f64 = 10.0;
const STANDING: f64 = 1.0;
/// Metres of a degree of latitude on the sphere.
const DEGREE_M: f64 = 6_371_008.8 * std::f64::consts::PI / 180.0;
const NONE: SegmentIndex = SegmentIndex::MAX;

/// What drives to simulate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceSettings {
    /// Seed of every random choice.
    pub seed: u64,
    /// Length of each drive in seconds, at least 1.
    pub duration_s: u32,
    /// Error of a position on each axis: one standard deviation in metres.
    pub sigma_m: f64,
    /// Seconds in which the error fades to 1/e; 0 for an error that is new with each position.
    pub correlation_s: f64,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            duration_s: 600,
            sigma_m: 8.0,
            correlation_s: 30.0,
        }
    }
}

/// One drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Segments in order of travel.
    pub path: Vec<SegmentIndex>,
    /// What the receiver says each second from 0 to the drive's length, and where the vehicle is.
    pub seconds: Vec<Second>,
}

/// One second of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    /// Truth: place in [`Trip::path`].
    pub leg: usize,
    /// Truth: distance from the beginning of that segment in mm.
    pub offset_mm: u32,
    /// Measured position.
    pub position: Position,
    /// Measured speed.
    pub speed: MmPerS,
    /// Measured direction of travel.
    pub heading: Bearing,
}

/// A segment of a drive.
struct Leg {
    segment: SegmentIndex,
    /// When it is entered, in seconds.
    enter: f64,
    /// Seconds in motion; what is left until the next leg is waiting at its end.
    moving: f64,
}

/// Simulates drives, one after the other. Equal maps and settings give equal drives on every platform.
#[derive(Debug)]
pub struct Traces<'a> {
    network: &'a Network,
    settings: TraceSettings,
    dice: Dice,
    /// Segments to drive on: roads that are open to every car, but no service roads.
    roads: Vec<SegmentIndex>,
    /// Destinations, with the next segment from everywhere.
    ways: Vec<(SegmentIndex, Vec<SegmentIndex>)>,
}

impl<'a> Traces<'a> {
    /// Looks for destinations that at least half of the roads lead to; `None` if the map has none.
    pub fn new(network: &'a Network, settings: TraceSettings) -> Option<Self> {
        let mut dice = Dice::new(settings.seed, Purpose::Traces);
        let roads: Vec<_> = (0..network.segments().len() as SegmentIndex)
            .filter(|&i| is_road(network, i))
            .collect();
        let mut ways = Vec::new();
        for _ in 0..TRIES.min(roads.len() * 2) {
            let to = roads[dice.below(roads.len())];
            let next = ways_to(network, to);
            let reaching = roads.iter().filter(|&&r| next[r as usize] != NONE).count();
            if 2 * reaching > roads.len() {
                ways.push((to, next));
            }
            if ways.len() == DESTINATIONS {
                break;
            }
        }
        (!ways.is_empty()).then_some(Self {
            network,
            settings,
            dice,
            roads,
            ways,
        })
    }

    /// A drive that lasts long enough; `None` where it comes to a dead end or a banned turn before.
    fn drive(&mut self) -> Option<(Vec<SegmentIndex>, Vec<Leg>)> {
        let mut at = self.roads[self.dice.below(self.roads.len())];
        let vehicle = libm::exp(SPEED_SPREAD * self.dice.normal());
        let (mut path, mut legs) = (Vec::new(), Vec::new());
        let (mut now, mut way): (f64, Option<usize>) = (0.0, None);
        // One second more than is asked for, for the drive begins within its first.
        while now <= f64::from(self.settings.duration_s) + 1.0 {
            let s = self.network.segment(at);
            let free = f64::from(s.length_mm) / f64::from(s.free_flow);
            let moving = free / (vehicle * self.dice.between(0.5, 1.0));
            let red = s.flags.has(SegmentFlags::SIGNAL_END) && self.dice.chance(RED);
            path.push(at);
            legs.push(Leg {
                segment: at,
                enter: now,
                moving,
            });
            now += moving;
            if red {
                now += self.dice.between(RED_S.0, RED_S.1);
            }
            let leads = |k: usize| self.ways[k].0 != at && self.ways[k].1[at as usize] != NONE;
            let go_on = way.filter(|&k| leads(k));
            way = match go_on {
                Some(k) => Some(k),
                None => (0..TURNS)
                    .map(|_| self.dice.below(self.ways.len()))
                    .find(|&k| leads(k)),
            };
            let next = self.ways[way?].1[at as usize];
            if self.network.sequence_banned(&path, next) {
                return None;
            }
            at = next;
        }
        Some((path, legs))
    }

    fn measure(&mut self, path: Vec<SegmentIndex>, legs: &[Leg]) -> Trip {
        let settings = self.settings;
        let keep = if settings.correlation_s > 0.0 {
            libm::exp(-1.0 / settings.correlation_s)
        } else {
            0.0
        };
        let renew = libm::sqrt(1.0 - keep * keep);
        let begin = self.dice.between(0.0, legs[0].moving.min(1.0));
        let mut error = [0; 2].map(|_| settings.sigma_m * self.dice.normal());
        let mut seconds = Vec::with_capacity(settings.duration_s as usize + 1);
        let mut leg = 0;
        for second in 0..=settings.duration_s {
            let now = begin + f64::from(second);
            while legs.get(leg + 1).is_some_and(|next| next.enter <= now) {
                leg += 1;
            }
            let Leg {
                segment,
                enter,
                moving,
            } = legs[leg];
            let length_mm = self.network.segment(segment).length_mm;
            let share = (now - enter) / moving;
            let offset_mm = ((share * f64::from(length_mm)).round() as u32).min(length_mm);
            let speed = if share < 1.0 {
                f64::from(length_mm) / 1000.0 / moving
            } else {
                0.0
            };
            if second > 0 {
                for axis in &mut error {
                    *axis = keep * *axis + renew * settings.sigma_m * self.dice.normal();
                }
            }
            let place = self.network.position_at(segment, offset_mm);
            let true_heading = self.network.bearing_at(segment, offset_mm);
            let degrees = if speed > STANDING {
                true_heading.degrees() + HEADING_SIGMA * self.dice.normal()
            } else {
                self.dice.between(0.0, 360.0)
            };
            seconds.push(Second {
                leg,
                offset_mm,
                position: displaced(place, error),
                speed: (speed * 1000.0).round() as MmPerS,
                heading: Bearing::from_degrees(degrees).unwrap_or(true_heading),
            });
        }
        Trip { path, seconds }
    }
}

impl Iterator for Traces<'_> {
    type Item = Trip;

    /// The next drive; ends only where the map has no drive of that length.
    fn next(&mut self) -> Option<Trip> {
        let (path, legs) = (0..TRIES).find_map(|_| self.drive())?;
        Some(self.measure(path, &legs))
    }
}

fn is_road(network: &Network, i: SegmentIndex) -> bool {
    let s = network.segment(i);
    let closed = [
        SegmentFlags::BUS_ONLY,
        SegmentFlags::RESTRICTED,
        SegmentFlags::MINOR,
    ];
    s.class < RoadClass::LivingStreet && !closed.into_iter().any(|flag| s.flags.has(flag))
}

/// The next segment on the way of least time to `to`, from each segment; `NONE` where there is no way, and at `to`.
/// Ties are broken by index. There are no U-turns.
fn ways_to(network: &Network, to: SegmentIndex) -> Vec<SegmentIndex> {
    let mut next = vec![NONE; network.segments().len()];
    let mut least = vec![u64::MAX; next.len()];
    let mut heap = BinaryHeap::from([Reverse((0_u64, to))]);
    least[to as usize] = 0;
    while let Some(Reverse((ms, at))) = heap.pop() {
        if ms > least[at as usize] {
            continue;
        }
        let s = network.segment(at);
        let ms = ms + u64::from(s.length_mm) * 1000 / u64::from(s.free_flow);
        for &from in network.predecessors(at) {
            let turns_back = s.twin == Some(from);
            if turns_back
                || ms >= least[from as usize]
                || !is_road(network, from)
                || network.turn_banned(from, at)
            {
                continue;
            }
            least[from as usize] = ms;
            next[from as usize] = at;
            heap.push(Reverse((ms, from)));
        }
    }
    next
}

/// A position moved by metres (east, north).
fn displaced(place: Position, [east, north]: [f64; 2]) -> Position {
    let lat = place.lat() + north / DEGREE_M;
    let lon = place.lon() + east / (DEGREE_M * libm::cos(place.lat().to_radians()));
    Position::from_degrees(lat, lon).unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::BuildSettings;
    use crate::network::osm::{OsmData, OsmNode, OsmWay};

    /// Blocks of 100 m, `n` by `n`, with a signal at every crossing.
    fn grid(n: i64) -> Network {
        let mut osm = OsmData::default();
        let tags = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        for (row, column) in (0..n).flat_map(|r| (0..n).map(move |c| (r, c))) {
            let node = OsmNode {
                lat: 50.0 + row as f64 * 0.0009,
                lon: 8.0 + column as f64 * 0.0014,
                tags: tags(&[("highway", "traffic_signals")]),
            };
            osm.nodes.insert(row * n + column, node);
        }
        for line in 0..n {
            for (id, nodes) in [
                (line + 1, (0..n).map(|c| line * n + c).collect()),
                (line + 101, (0..n).map(|r| r * n + line).collect()),
            ] {
                osm.ways.push(OsmWay {
                    id,
                    nodes,
                    tags: tags(&[("highway", "tertiary"), ("maxspeed", "50")]),
                });
            }
        }
        Network::build(&osm, &BuildSettings::default()).0
    }

    fn trips(network: &Network, settings: TraceSettings) -> Vec<Trip> {
        Traces::new(network, settings).unwrap().take(60).collect()
    }

    #[test]
    fn drives_follow_the_network_without_turning_back() {
        let network = grid(6);
        let mut stops = 0;
        for trip in trips(&network, TraceSettings::default()) {
            assert_eq!(trip.seconds.len(), 601);
            for pair in trip.path.windows(2) {
                assert!(network.successors(pair[0]).contains(&pair[1]));
                assert_ne!(network.segment(pair[0]).twin, Some(pair[1]));
            }
            for pair in trip.seconds.windows(2) {
                let (a, b) = (pair[0], pair[1]);
                assert!(
                    (a.leg, a.offset_mm) <= (b.leg, b.offset_mm),
                    "nobody drives backwards"
                );
                let lengths: u32 = trip.path[a.leg..b.leg]
                    .iter()
                    .map(|&s| network.segment(s).length_mm)
                    .sum();
                let driven = lengths + b.offset_mm - a.offset_mm;
                assert!(driven < 30_000, "{driven} mm in a second");
                stops += u32::from(driven == 0);
            }
        }
        assert!(stops > 1000, "signals are red now and then: {stops}");
    }

    #[test]
    fn the_error_is_as_large_and_as_lasting_as_asked_for() {
        let network = grid(4);
        for (correlation_s, expected) in [(0.0, 0.0), (30.0, libm::exp(-10.0 / 30.0))] {
            let settings = TraceSettings {
                correlation_s,
                ..TraceSettings::default()
            };
            let errors: Vec<Vec<f64>> = trips(&network, settings)
                .iter()
                .map(|trip| {
                    let north = |s: &Second| {
                        let place = network.position_at(trip.path[s.leg], s.offset_mm);
                        (s.position.lat() - place.lat()) * DEGREE_M
                    };
                    trip.seconds.iter().map(north).collect()
                })
                .collect();
            let mean = |values: &mut dyn Iterator<Item = f64>| {
                let (n, sum) = values.fold((0.0, 0.0), |(n, sum), v| (n + 1.0, sum + v));
                sum / n
            };
            let variance = mean(&mut errors.iter().flatten().map(|e| e * e));
            assert!((variance.sqrt() - 8.0).abs() < 0.6, "{}", variance.sqrt());
            let lagged = mean(
                &mut errors
                    .iter()
                    .flat_map(|e| e.iter().zip(&e[10..]).map(|(a, b)| a * b)),
            );
            let correlation = lagged / variance;
            assert!((correlation - expected).abs() < 0.08, "{correlation} {expected}");
        }
    }

    #[test]
    fn equal_settings_give_equal_drives_and_other_seeds_others() {
        let network = grid(4);
        let settings = TraceSettings::default();
        assert_eq!(trips(&network, settings), trips(&network, settings));
        let other = TraceSettings { seed: 2, ..settings };
        assert_ne!(trips(&network, settings), trips(&network, other));
    }

    #[test]
    fn a_map_without_a_round_trip_has_no_drives() {
        let mut osm = OsmData::default();
        for (id, lon) in [(1, 8.0), (2, 8.01)] {
            let node = OsmNode {
                lat: 50.0,
                lon,
                ..OsmNode::default()
            };
            osm.nodes.insert(id, node);
        }
        let tags = [("highway".to_owned(), "primary".to_owned())].into();
        osm.ways.push(OsmWay {
            id: 7,
            nodes: vec![1, 2],
            tags,
        });
        let network = Network::build(&osm, &BuildSettings::default()).0;
        let drives = Traces::new(&network, TraceSettings::default()).and_then(|mut t| t.next());
        assert_eq!(drives, None);
        let nothing = Network::build(&OsmData::default(), &BuildSettings::default()).0;
        assert!(Traces::new(&nothing, TraceSettings::default()).is_none());
    }
}
