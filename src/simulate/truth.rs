//! What really happened: the records of `truth-points`, `truth-edges`, `truth-events`, `edges` and
//! `sensors.json` (contract: interfaces §7). Times are milliseconds since the epoch, speeds m/s, positions
//! degrees of WGS-84.

use serde::Serialize;

/// The truth of one probe record, `line` counting the probe records from 1 in order of arrival.
#[derive(Clone, Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields carry their units and are described in the contract"
)]
pub struct PointTruth {
    pub line: u64,
    pub arrival_ms: i64,
    /// `ok`, `outlier`, `late`, `duplicate` or `corrupt:…`.
    pub kind: String,
    pub vehicle_id: String,
    pub ts: i64,
    /// `None` inside a junction, like the three after it; then the edges before and after it are named.
    pub edge: Option<String>,
    pub way: Option<i64>,
    pub lane_index: Option<u8>,
    pub pos_m: Option<f64>,
    pub lon: f64,
    pub lat: f64,
    pub speed_mps: f64,
    #[serde(flatten)]
    pub inside: Option<Between>,
}

/// The edges before and after a junction.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Between {
    pub prev_edge: Option<String>,
    pub next_edge: Option<String>,
}

/// All vehicles on one edge in one minute that begins at `ts`; edges without vehicles have no record.
#[derive(Clone, Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields carry their units and are described in the contract"
)]
pub struct EdgeTruth {
    pub edge: String,
    pub way: i64,
    pub ts: i64,
    pub vehicle_seconds: f64,
    pub mean_vehicles: f64,
    pub entered: u32,
    pub left: u32,
    /// Σ distance / Σ time.
    pub speed_mps: f64,
    pub density_vpkm: f64,
    /// Percent of the lanes' length covered by vehicles.
    pub occupancy: f64,
    pub waiting_s: f64,
    pub speed_ratio: f64,
    /// [`CONGESTED`].
    pub congested: bool,
}

/// When a minute of an edge counts as congested.
pub const CONGESTED: &str = "speed < 0.5 x free_mps, mean_vehicles >= 1, length_m >= 30";

/// Something that happened at a place.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the fields carry their units and are described in the contract"
)]
pub enum EventTruth {
    /// A blocked lane or road.
    Incident {
        id: String,
        /// `road_blocked` or `lane_blocked` (all lanes but one).
        kind: &'static str,
        edge: String,
        way: i64,
        way_dir: &'static str,
        highway: String,
        name: String,
        /// The first blocked lane, and how many are blocked.
        lane_index: u8,
        lanes_blocked: u8,
        lanes: u8,
        pos_m: f64,
        length_m: f64,
        lon: f64,
        lat: f64,
        begin: i64,
        end: i64,
        effect: Effect,
    },
    /// A probe vehicle lifted over a jam; its track jumps there.
    Teleport {
        vehicle_id: String,
        begin: i64,
        end: i64,
        to_edge: Option<String>,
    },
    /// A loop that reports wrongly.
    SensorFault {
        sensor_id: String,
        kind: &'static str,
        begin: i64,
        end: i64,
    },
}

/// What an incident did to its own edge: in the 10 minutes before, and from its second minute on.
#[derive(Clone, Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields carry their units and are described in the contract"
)]
pub struct Effect {
    /// `major` if speed or flow fell by half or more, `masked` if it was congested before, or `minor`.
    pub severity: &'static str,
    pub speed_before_mps: Option<f64>,
    pub speed_during_mps: Option<f64>,
    pub left_per_min_before: f64,
    pub left_per_min_during: f64,
}

/// One edge of truth's network: a directed piece of a way between junctions.
#[derive(Clone, Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields carry their units and are described in the contract"
)]
pub struct EdgeDescription {
    pub edge: String,
    pub way: i64,
    pub way_dir: &'static str,
    /// OSM node ids as text.
    pub from_node: String,
    pub to_node: String,
    pub highway: String,
    pub name: String,
    pub length_m: f64,
    pub lanes: u8,
    pub limit_mps: f64,
    /// Longitude and latitude along the travel way.
    pub geometry: Vec<[f64; 2]>,
    pub free_mps: f64,
}

/// A detector station and the loops in its lanes.
#[derive(Clone, Debug, Serialize)]
#[expect(
    missing_docs,
    reason = "the fields carry their units and are described in the contract"
)]
pub struct StationDescription {
    pub station: String,
    pub edge: String,
    pub way: i64,
    pub way_dir: &'static str,
    pub highway: String,
    pub name: String,
    pub pos_m: f64,
    pub lon: f64,
    pub lat: f64,
    pub heading_deg: f64,
    pub limit_mps: f64,
    pub lanes: Vec<LoopDescription>,
}

/// One loop of a station; lane 0 is the rightmost.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct LoopDescription {
    pub sensor_id: String,
    pub lane_index: u8,
}

/// Truth since the last time it was taken.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// One for each probe record that was handed out.
    pub points: Vec<PointTruth>,
    /// By minute, then edge.
    pub edges: Vec<EdgeTruth>,
    /// In the order in which they became known: an incident when it is over.
    pub events: Vec<EventTruth>,
}

/// `value` with so many decimals.
pub(super) fn round(value: f64, decimals: i32) -> f64 {
    let scale = libm::pow(10.0, f64::from(decimals));
    (value * scale).round() / scale
}

/// `forward` or `backward`.
pub(super) fn way_direction(forward: bool) -> &'static str {
    if forward { "forward" } else { "backward" }
}
