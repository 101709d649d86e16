//! The road network: directed segments, their shapes, classes and limits, the spatial index, the router,
//! links and sensor sites. Built once ([`build`]), kept in one checksummed file ([`mod@file`]), immutable after.

pub mod build;
#[cfg(test)]
mod drawn;
pub mod file;
mod graph;
mod grid;
mod index;
pub mod links;
pub mod osm;
mod restrictions;
pub mod router;
pub mod sites;
mod tags;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::{Bearing, MmPerS, Position};

/// Dense index of a directed segment, valid for one map version only.
pub type SegmentIndex = u32;
/// Dense index of a node, valid for one map version only.
pub type NodeIndex = u32;
/// Dense index of a link (reporting unit of consecutive segments), valid for one map version only.
pub type LinkIndex = u32;

/// The stable, directed name of a segment: `way:from_node:to_node` in OpenStreetMap ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentKey {
    /// OSM way id.
    pub way: i64,
    /// OSM id of the node where the segment begins.
    pub from_node: i64,
    /// OSM id of the node where the segment ends.
    pub to_node: i64,
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.way, self.from_node, self.to_node)
    }
}

impl FromStr for SegmentKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<i64> = text.split(':').filter_map(|p| p.parse().ok()).collect();
        match parts[..] {
            [way, from_node, to_node] if text.split(':').count() == 3 => Ok(Self {
                way,
                from_node,
                to_node,
            }),
            _ => Err(format!(
                "`{text}` is no segment id; one looks like 27348213:2911:2912 (way:from_node:to_node)"
            )),
        }
    }
}

/// Road classes in the order of their importance (OSM `highway` values; every `_link` with its class).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are OpenStreetMap's")]
pub enum RoadClass {
    Motorway,
    MotorwayLink,
    Trunk,
    TrunkLink,
    Primary,
    PrimaryLink,
    Secondary,
    SecondaryLink,
    Tertiary,
    TertiaryLink,
    Unclassified,
    Residential,
    LivingStreet,
    Busway,
    Service,
}

impl RoadClass {
    /// All classes in their order.
    pub const ALL: [RoadClass; 15] = [
        Self::Motorway,
        Self::MotorwayLink,
        Self::Trunk,
        Self::TrunkLink,
        Self::Primary,
        Self::PrimaryLink,
        Self::Secondary,
        Self::SecondaryLink,
        Self::Tertiary,
        Self::TertiaryLink,
        Self::Unclassified,
        Self::Residential,
        Self::LivingStreet,
        Self::Busway,
        Self::Service,
    ];

    /// The `highway` value, as it stands in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Motorway => "motorway",
            Self::MotorwayLink => "motorway_link",
            Self::Trunk => "trunk",
            Self::TrunkLink => "trunk_link",
            Self::Primary => "primary",
            Self::PrimaryLink => "primary_link",
            Self::Secondary => "secondary",
            Self::SecondaryLink => "secondary_link",
            Self::Tertiary => "tertiary",
            Self::TertiaryLink => "tertiary_link",
            Self::Unclassified => "unclassified",
            Self::Residential => "residential",
            Self::LivingStreet => "living_street",
            Self::Busway => "busway",
            Self::Service => "service",
        }
    }

    /// The class that a link road (ramp, slip road) belongs to; a class that is none is its own.
    pub const fn without_link(self) -> Self {
        match self {
            Self::MotorwayLink => Self::Motorway,
            Self::TrunkLink => Self::Trunk,
            Self::PrimaryLink => Self::Primary,
            Self::SecondaryLink => Self::Secondary,
            Self::TertiaryLink => Self::Tertiary,
            other => other,
        }
    }

    /// The class of an OSM `highway` value, `None` if it is no road for motor vehicles.
    pub fn from_highway(highway: &str) -> Option<Self> {
        tags::class_of(highway)
    }
}

/// Properties of a segment that are yes or no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentFlags(pub u16);

impl SegmentFlags {
    /// The speed limit stands in the map (otherwise it is assumed from the class).
    pub const LIMIT_TAGGED: u16 = 1;
    /// The way may be driven in this direction only.
    pub const ONEWAY: u16 = 1 << 1;
    /// Travel against the order of the way's node list.
    pub const BACKWARD: u16 = 1 << 2;
    /// On a bridge.
    pub const BRIDGE: u16 = 1 << 3;
    /// In a tunnel.
    pub const TUNNEL: u16 = 1 << 4;
    /// A roundabout or circular junction.
    pub const ROUNDABOUT: u16 = 1 << 5;
    /// Open to buses (and taxis) but not to cars.
    pub const BUS_ONLY: u16 = 1 << 6;
    /// Private or destination traffic only: matched, but left out of statistics.
    pub const RESTRICTED: u16 = 1 << 7;
    /// Direction of travel changes by time of day.
    pub const TIDAL: u16 = 1 << 8;
    /// A traffic signal stands at the end of the segment (or on its approach).
    pub const SIGNAL_END: u16 = 1 << 9;
    /// A stop or give-way sign stands at the end of the segment.
    pub const YIELD_END: u16 = 1 << 10;
    /// A service road: matched, but left out of indices.
    pub const MINOR: u16 = 1 << 11;

    /// Whether all bits of `flag` are set.
    pub const fn has(self, flag: u16) -> bool {
        self.0 & flag == flag
    }
}

/// A directed piece of one OSM way between two junctions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Stable name.
    pub key: SegmentKey,
    /// Node where it begins.
    pub from: NodeIndex,
    /// Node where it ends.
    pub to: NodeIndex,
    /// Length along the shape in millimetres, at least 1.
    pub length_mm: u32,
    /// Road class.
    pub class: RoadClass,
    /// Yes-or-no properties.
    pub flags: SegmentFlags,
    /// Speed limit in km/h, tagged or assumed (see [`SegmentFlags::LIMIT_TAGGED`]).
    pub limit_kph: u8,
    /// Prior of the free-flow speed, from class and limit (algorithms §1.4), in mm/s, at least 1.
    pub free_flow: MmPerS,
    /// Number of lanes in this direction, tagged or assumed, at least 1.
    pub lanes: u8,
    /// The same piece of road in the other direction, if there is one.
    pub twin: Option<SegmentIndex>,
    /// The link that it belongs to.
    pub link: LinkIndex,
}

/// A directed chain of consecutive segments of 200 to 1,000 m: the unit of estimates, baselines and alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its segments in order of travel, at least one.
    pub segments: Vec<SegmentIndex>,
    /// Sum of their lengths in millimetres.
    pub length_mm: u64,
}

/// A place on a segment near a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The segment.
    pub segment: SegmentIndex,
    /// Distance along the segment from its beginning, in millimetres, 0..=length.
    pub offset_mm: u32,
    /// Distance from the position to the segment, in millimetres.
    pub distance_mm: u32,
    /// Direction of travel there.
    pub bearing: Bearing,
    /// Where the position lies from that place, in millimetres to the east and to the north.
    pub off_mm: (i32, i32),
}

pub use build::{BuildReport, BuildSettings};
pub use file::MapFileError;
pub use graph::Network;
pub use index::SpatialIndex;
