//! What the HTTP side asks of the map, and the map as GeoJSON.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::network::{Candidate, Network, RoadClass, Segment, SegmentFlags, SegmentIndex, SegmentKey};
use crate::units::{Bearing, Position};

/// The questions that the HTTP side asks of the road network, so that it can be tried with roads drawn by hand.
pub trait Roads: Send + Sync {
    /// Version of the map.
    fn version(&self) -> &str;
    /// Whom the page credits for the map.
    fn attribution(&self) -> &str {
        "© OpenStreetMap contributors"
    }
    /// All segments, by index.
    fn segments(&self) -> &[Segment];
    /// Street name, if any.
    fn name(&self, i: SegmentIndex) -> Option<&str>;
    /// Shape in order of travel.
    fn geometry(&self, i: SegmentIndex) -> Vec<Position>;
    /// The segment of a stable key.
    fn find(&self, key: SegmentKey) -> Option<SegmentIndex>;
    /// All segments within `radius_mm`, by distance, then bearing, then index; `out` is cleared first.
    fn candidates(&self, at: Position, radius_mm: u32, out: &mut Vec<Candidate>);
}

impl Roads for Network {
    fn version(&self) -> &str {
        Network::version(self)
    }
    fn segments(&self) -> &[Segment] {
        Network::segments(self)
    }
    fn name(&self, i: SegmentIndex) -> Option<&str> {
        Network::name(self, i)
    }
    fn geometry(&self, i: SegmentIndex) -> Vec<Position> {
        Network::geometry(self, i)
    }
    fn find(&self, key: SegmentKey) -> Option<SegmentIndex> {
        Network::find(self, key)
    }
    fn candidates(&self, at: Position, radius_mm: u32, out: &mut Vec<Candidate>) {
        Network::candidates(self, at, radius_mm, out);
    }
}

/// A map that is not made from OpenStreetMap, with its own credit.
#[derive(Clone, Debug)]
pub struct Credited {
    /// The map.
    pub network: Arc<Network>,
    /// Whom the page credits for it.
    pub attribution: &'static str,
}

impl Roads for Credited {
    fn version(&self) -> &str {
        self.network.version()
    }
    fn attribution(&self) -> &str {
        self.attribution
    }
    fn segments(&self) -> &[Segment] {
        self.network.segments()
    }
    fn name(&self, i: SegmentIndex) -> Option<&str> {
        self.network.name(i)
    }
    fn geometry(&self, i: SegmentIndex) -> Vec<Position> {
        self.network.geometry(i)
    }
    fn find(&self, key: SegmentKey) -> Option<SegmentIndex> {
        self.network.find(key)
    }
    fn candidates(&self, at: Position, radius_mm: u32, out: &mut Vec<Candidate>) {
        self.network.candidates(at, radius_mm, out);
    }
}

/// A rectangle of longitudes and latitudes in 1e-7 degrees, borders included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) west: i32,
    pub(super) south: i32,
    pub(super) east: i32,
    pub(super) north: i32,
}

impl Area {
    /// The smallest rectangle around a shape; an empty shape gives one that meets nothing.
    pub(super) fn around(shape: &[Position]) -> Self {
        let mut area = Area {
            west: i32::MAX,
            south: i32::MAX,
            east: i32::MIN,
            north: i32::MIN,
        };
        for p in shape {
            area.west = area.west.min(p.lon_e7());
            area.east = area.east.max(p.lon_e7());
            area.south = area.south.min(p.lat_e7());
            area.north = area.north.max(p.lat_e7());
        }
        area
    }

    /// Whether the rectangles have a point in common.
    pub(super) fn meets(self, other: Area) -> bool {
        self.west <= other.east
            && other.west <= self.east
            && self.south <= other.north
            && other.south <= self.north
    }
}

/// The word of a road class in JSON and metrics.
pub(super) fn class_word(class: RoadClass) -> String {
    match serde_json::to_value(class) {
        Ok(serde_json::Value::String(word)) => word,
        // A unit variant is always written as its name.
        other => format!("{other:?}"),
    }
}

/// Appends degrees of a number in 1e-7 degrees, without going through floating point.
fn push_degrees(out: &mut String, e7: i32) {
    let (sign, n) = (if e7 < 0 { "-" } else { "" }, e7.unsigned_abs());
    let _ = write!(out, "{sign}{}.{:07}", n / 10_000_000, n % 10_000_000);
    // JSON numbers need a digit behind the point.
    while out.ends_with('0') && !out.ends_with(".0") {
        out.pop();
    }
}

/// Appends the GeoJSON geometry of a shape.
pub(super) fn push_line(out: &mut String, shape: &[Position]) {
    out.push_str("{\"type\":\"LineString\",\"coordinates\":[");
    for (i, p) in shape.iter().enumerate() {
        out.push_str(if i == 0 { "[" } else { ",[" });
        push_degrees(out, p.lon_e7());
        out.push(',');
        push_degrees(out, p.lat_e7());
        out.push(']');
    }
    out.push_str("]}");
}

/// Appends a string as JSON.
pub(super) fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// What does not change about a segment, as a JSON object.
pub(super) fn push_road(out: &mut String, roads: &dyn Roads, i: SegmentIndex) {
    let s = &roads.segments()[i as usize];
    let _ = write!(
        out,
        "{{\"road_class\":\"{}\",\"name\":{},\"length_m\":{:.1},\"speed_limit_kph\":{},\
         \"speed_limit_tagged\":{},\"lanes\":{},\"oneway\":{}}}",
        class_word(s.class),
        serde_json::Value::from(roads.name(i)),
        f64::from(s.length_mm) / 1000.0,
        s.limit_kph,
        s.flags.has(SegmentFlags::LIMIT_TAGGED),
        s.lanes,
        s.flags.has(SegmentFlags::ONEWAY),
    );
}

/// Which streets a segment comes from and leads to, for people: seven ramps without a name are told apart by
/// the streets at their ends, and a long street by its crossings.
struct Ways<'a> {
    roads: &'a dyn Roads,
    // Segments by the node where they begin, and by the node where they end.
    leaving: Vec<(u32, SegmentIndex)>,
    arriving: Vec<(u32, SegmentIndex)>,
}

/// Which end of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    From,
    To,
}

impl<'a> Ways<'a> {
    /// Segments walked along before the search ends: the next crossing of a city street is nearer.
    const STEPS_MAX: usize = 12;
    /// Metres of the same: a name from farther away would mislead.
    const WALK_MAX_MM: u64 = 3_000_000;

    fn new(roads: &'a dyn Roads) -> Self {
        let by = |node: fn(&Segment) -> u32| {
            let mut list: Vec<(u32, SegmentIndex)> =
                (0..).zip(roads.segments()).map(|(i, s)| (node(s), i)).collect();
            list.sort_unstable();
            list
        };
        Self {
            roads,
            leaving: by(|s| s.from),
            arriving: by(|s| s.to),
        }
    }

    fn at(list: &[(u32, SegmentIndex)], node: u32) -> impl Iterator<Item = SegmentIndex> {
        let first = list.partition_point(|(n, _)| *n < node);
        list[first..]
            .iter()
            .take_while(move |(n, _)| *n == node)
            .map(|(_, i)| *i)
    }

    /// Name of the first other street at an end of segment `i`: where several meet, the greatest class, then
    /// the first name by code points. Where none does, the search goes on along the same street, or along the
    /// only way on where it has no name. `None` if it ends without one.
    fn street(&self, mut i: SegmentIndex, end: End) -> Option<&'a str> {
        let roads = self.roads;
        let segments = roads.segments();
        let own = roads.name(i);
        let mut walked: u64 = 0;
        for _ in 0..Self::STEPS_MAX {
            let here = &segments[i as usize];
            let node = if end == End::To { here.to } else { here.from };
            let others = || {
                Self::at(&self.leaving, node)
                    .chain(Self::at(&self.arriving, node))
                    .filter(|j| *j != i && Some(*j) != here.twin)
            };
            let crossing = others()
                .filter_map(|j| Some((segments[j as usize].class, roads.name(j)?)))
                .filter(|(_, name)| Some(*name) != own)
                .min();
            if let Some((_, name)) = crossing {
                return Some(name);
            }
            let onward = if end == End::To {
                &self.leaving
            } else {
                &self.arriving
            };
            let mut ways = Self::at(onward, node).filter(|j| Some(*j) != here.twin && roads.name(*j) == own);
            let next = ways.next()?;
            walked += u64::from(segments[next as usize].length_mm);
            if walked > Self::WALK_MAX_MM || (own.is_none() && ways.next().is_some()) {
                return None;
            }
            i = next;
        }
        None
    }
}

/// The whole map as a GeoJSON FeatureCollection.
pub(super) fn network_geojson(roads: &dyn Roads) -> String {
    let segments = roads.segments();
    let ways = Ways::new(roads);
    let mut out = String::with_capacity(64 + segments.len() * 360);
    out.push_str("{\"type\":\"FeatureCollection\",\"map_version\":");
    push_string(&mut out, roads.version());
    out.push_str(",\"attribution\":");
    push_string(&mut out, roads.attribution());
    out.push_str(",\"features\":[");
    for (i, s) in (0..).zip(segments) {
        if i > 0 {
            out.push(',');
        }
        let _ = write!(out, "{{\"type\":\"Feature\",\"id\":\"{}\",\"geometry\":", s.key);
        push_line(&mut out, &roads.geometry(i));
        let _ = write!(
            out,
            ",\"properties\":{{\"segment_id\":\"{}\",\"segment\":{i},\"road_class\":\"{}\",\"name\":{},\
             \"length_m\":{:.1},\"from_street\":{},\"to_street\":{}}}}}",
            s.key,
            class_word(s.class),
            serde_json::Value::from(roads.name(i)),
            f64::from(s.length_mm) / 1000.0,
            serde_json::Value::from(ways.street(i, End::From)),
            serde_json::Value::from(ways.street(i, End::To)),
        );
    }
    out.push_str("]}");
    out
}

/// The candidate nearest to a position whose direction differs from `heading` by at most `TURN`.
pub(super) fn nearest(
    roads: &dyn Roads,
    at: Position,
    heading: Option<Bearing>,
    radius_mm: u32,
) -> Option<Candidate> {
    /// 60 degrees: between a road and its twin (180) or a crossing (90) there is no doubt left, and a
    /// receiver's heading at low speed is rarely worse.
    const TURN: u16 = 6_000;
    let mut found = Vec::new();
    roads.candidates(at, radius_mm, &mut found);
    found
        .into_iter()
        .find(|c| heading.is_none_or(|h| c.bearing.difference(h) <= TURN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_exact_and_short() {
        let text = |e7| {
            let mut out = String::new();
            push_degrees(&mut out, e7);
            out
        };
        assert_eq!(text(1_089_422_620), "108.942262");
        assert_eq!(text(-5), "-0.0000005");
        assert_eq!(text(0), "0.0");
        assert_eq!(text(-1_800_000_000), "-180.0");
    }

    /// Segments between numbered nodes, each with its name, if any.
    struct Drawn(Vec<Segment>, Vec<Option<&'static str>>);

    fn drawn(pieces: &[(u32, u32, RoadClass, Option<&'static str>)]) -> Drawn {
        let twin = |from: u32, to: u32| {
            let found = pieces.iter().position(|p| (p.0, p.1) == (to, from));
            found.map(|i| i as SegmentIndex)
        };
        let segment = |(i, p): (SegmentIndex, &(u32, u32, RoadClass, _))| Segment {
            key: SegmentKey {
                way: i64::from(i),
                from_node: i64::from(p.0),
                to_node: i64::from(p.1),
            },
            from: p.0,
            to: p.1,
            length_mm: 400_000,
            class: p.2,
            flags: SegmentFlags(0),
            limit_kph: 60,
            free_flow: 15_000,
            lanes: 1,
            twin: twin(p.0, p.1),
            link: 0,
        };
        Drawn(
            (0..).zip(pieces).map(segment).collect(),
            pieces.iter().map(|p| p.3).collect(),
        )
    }

    impl Roads for Drawn {
        fn version(&self) -> &str {
            "drawn"
        }
        fn segments(&self) -> &[Segment] {
            &self.0
        }
        fn name(&self, i: SegmentIndex) -> Option<&str> {
            self.1[i as usize]
        }
        fn geometry(&self, _: SegmentIndex) -> Vec<Position> {
            Vec::new()
        }
        fn find(&self, _: SegmentKey) -> Option<SegmentIndex> {
            None
        }
        fn candidates(&self, _: Position, _: u32, out: &mut Vec<Candidate>) {
            out.clear();
        }
    }

    #[test]
    fn a_segment_lies_between_the_streets_at_its_ends() {
        use RoadClass::{Primary, Residential, TrunkLink};
        let roads = drawn(&[
            // Long Road 1-2-3, both ways; a crossing at 1 and two at 3, none at 2.
            (1, 2, Primary, Some("Long Road")),
            (2, 1, Primary, Some("Long Road")),
            (2, 3, Primary, Some("Long Road")),
            (3, 2, Primary, Some("Long Road")),
            (1, 9, Residential, Some("West Street")),
            (3, 8, Residential, Some("A Lane")),
            (7, 3, Primary, Some("East Street")),
            // A ramp without a name in two pieces from East Street to Long Road's beginning.
            (7, 20, TrunkLink, None),
            (20, 1, TrunkLink, None),
        ]);
        let ways = Ways::new(&roads);
        let ends = |i| (ways.street(i, End::From), ways.street(i, End::To));
        assert_eq!(ends(0), (Some("West Street"), Some("East Street")));
        assert_eq!(ends(1), (Some("East Street"), Some("West Street")));
        assert_eq!(ends(7), (Some("East Street"), Some("Long Road")));
        assert_eq!(ends(8), (Some("East Street"), Some("Long Road")));
        assert_eq!(ends(5).1, None, "a dead end leads nowhere");
    }

    #[test]
    fn the_search_for_a_street_ends() {
        // 20 pieces of 400 m in a row, a crossing at the far end only; and a ring without any.
        let mut row: Vec<_> = (0..20)
            .map(|n| (n, n + 1, RoadClass::Primary, Some("Row")))
            .collect();
        row.push((20, 30, RoadClass::Primary, Some("End")));
        row.push((40, 41, RoadClass::Service, None));
        row.push((41, 40, RoadClass::Service, None));
        let roads = drawn(&row);
        let ways = Ways::new(&roads);
        assert_eq!(ways.street(19, End::To), Some("End"));
        assert_eq!(ways.street(13, End::To), Some("End"), "2.4 km ahead");
        assert_eq!(ways.street(11, End::To), None, "more than 3 km ahead");
        assert_eq!(ways.street(21, End::To), None);
    }

    #[test]
    fn areas_meet_at_their_borders() {
        let a = Area {
            west: 0,
            south: 0,
            east: 10,
            north: 10,
        };
        assert!(a.meets(Area {
            west: 10,
            south: 10,
            east: 20,
            north: 20
        }));
        assert!(!a.meets(Area {
            west: 11,
            south: 0,
            east: 20,
            north: 10
        }));
        assert!(!a.meets(Area::around(&[])));
    }
}
