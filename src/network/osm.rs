//! What the builder needs of OpenStreetMap: nodes, ways and turn restrictions, from a file or made by the simulator.

use std::collections::BTreeMap;

/// A node that a way uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OsmNode {
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A way with a `highway` tag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OsmWay {
    /// OSM id.
    pub id: i64,
    /// Node ids in order.
    pub nodes: Vec<i64>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A relation `type=restriction`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OsmRestriction {
    /// OSM id.
    pub id: i64,
    /// Way driven in on (`from`).
    pub from: i64,
    /// Node (`via`), if it is one.
    pub via_node: Option<i64>,
    /// Ways (`via`), in order, if they are ways.
    pub via_ways: Vec<i64>,
    /// Way driven out on (`to`).
    pub to: i64,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// An OpenStreetMap extract, reduced to what roads need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OsmData {
    /// Nodes by id.
    pub nodes: BTreeMap<i64, OsmNode>,
    /// Ways in order of id.
    pub ways: Vec<OsmWay>,
    /// Turn restrictions in order of id.
    pub restrictions: Vec<OsmRestriction>,
}
