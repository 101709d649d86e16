//! Maps drawn in characters, for tests: every letter or digit is a node at its place in the picture, and a way is a
//! word of such characters followed by tags.

use std::collections::BTreeMap;

use super::osm::{OsmData, OsmNode, OsmRestriction, OsmWay};
use super::*;

/// Metres between two columns, and between two rows.
pub(super) const GRID_M: f64 = 50.0;

/// OSM id of a drawn node: its character's code.
pub(super) fn id(node: char) -> i64 {
    i64::from(u32::from(node))
}

/// The map of a picture. Ways get the ids 1, 2 … in order.
pub(super) fn draw(picture: &str, ways: &[&str]) -> OsmData {
    let mut osm = OsmData::default();
    for (row, line) in picture.lines().enumerate() {
        for (column, c) in line.chars().enumerate().filter(|(_, c)| c.is_alphanumeric()) {
            let (x, y) = (column as f64 * GRID_M, -(row as f64) * GRID_M);
            osm.nodes.insert(
                id(c),
                OsmNode {
                    lat: y / 110_574.275_8,
                    lon: x / 111_319.490_8,
                    ..OsmNode::default()
                },
            );
        }
    }
    for (i, way) in ways.iter().enumerate() {
        let mut words = way.split(' ').filter(|w| !w.is_empty());
        let nodes = words.next().unwrap().chars().map(id).collect();
        let mut tags: BTreeMap<String, String> = words.map(pair).collect();
        tags.entry("highway".to_owned())
            .or_insert_with(|| "secondary".to_owned());
        osm.ways.push(OsmWay {
            id: i as i64 + 1,
            nodes,
            tags,
        });
    }
    osm
}

fn pair(word: &str) -> (String, String) {
    let (k, v) = word.split_once('=').unwrap();
    (k.to_owned(), v.to_owned())
}

/// Tags a node.
pub(super) fn tag(osm: &mut OsmData, node: char, tags: &str) {
    osm.nodes
        .get_mut(&id(node))
        .unwrap()
        .tags
        .extend(tags.split(' ').map(pair));
}

/// Adds a restriction.
pub(super) fn restrict(osm: &mut OsmData, from: i64, via: Result<char, &[i64]>, to: i64, tags: &str) {
    osm.restrictions.push(OsmRestriction {
        id: osm.restrictions.len() as i64 + 1,
        from,
        via_node: via.ok().map(id),
        via_ways: via.err().unwrap_or_default().to_vec(),
        to,
        tags: tags.split(' ').map(pair).collect(),
    });
}

/// Builds with the default settings.
pub(super) fn build(osm: &OsmData) -> (Network, BuildReport) {
    Network::build(osm, &BuildSettings::default())
}

/// A segment by way and ends.
pub(super) fn seg(network: &Network, way: i64, from: char, to: char) -> SegmentIndex {
    let key = SegmentKey {
        way,
        from_node: id(from),
        to_node: id(to),
    };
    network
        .find(key)
        .unwrap_or_else(|| panic!("no segment {way}:{from}:{to} in {}", names(network)))
}

/// All segments as `way:from>to`, sorted.
pub(super) fn names(network: &Network) -> String {
    let mut all: Vec<String> = network.segments().iter().map(|s| name(s.key)).collect();
    all.sort();
    all.join(" ")
}

fn name(key: SegmentKey) -> String {
    let c = |id: i64| char::from_u32(id as u32).unwrap();
    format!("{}:{}>{}", key.way, c(key.from_node), c(key.to_node))
}

/// Segments as nodes passed, for a chain of segments.
pub(super) fn chain(network: &Network, segments: &[SegmentIndex]) -> String {
    segments
        .iter()
        .map(|&s| name(network.segment(s).key))
        .collect::<Vec<_>>()
        .join(" ")
}
