//! What really happened: truth's network, its speeds by minute, its events.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;

use super::files;
use crate::units::Position;

/// One minute.
pub(super) const MINUTE_MS: i64 = 60_000;

/// A directed edge of truth's network.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) id: String,
    /// OSM way and whether it is driven in the order of its nodes; `None` where truth does not know.
    pub(super) way: Option<(i64, bool)>,
    pub(super) length_m: f64,
    /// Speed without hindrance in m/s.
    pub(super) free_mps: f64,
    pub(super) geometry: Vec<Position>,
}

/// What one edge did in one minute.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Minute {
    /// Time spent on the edge by all vehicles, in seconds; 0 if none was there.
    pub(super) seconds: f64,
    /// Distance that they drove on it, in metres.
    pub(super) metres: f64,
    /// Truth calls it congested: slower than half the free speed, one vehicle on average, 30 m at least.
    pub(super) congested: bool,
}

impl Minute {
    /// Space-mean speed in m/s, if anybody was there.
    pub(super) fn speed(self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.metres / self.seconds)
    }
}

/// An incident.
#[derive(Clone, Debug)]
pub(super) struct Incident {
    pub(super) id: String,
    pub(super) kind: String,
    /// `major` must be found; `minor` and `masked` are not held against a run.
    pub(super) severity: String,
    /// Index of the edge.
    pub(super) edge: Option<u32>,
    pub(super) way: Option<(i64, bool)>,
    pub(super) begin_ms: i64,
    pub(super) end_ms: i64,
}

/// A sensor that measures wrongly for a while.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) sensor_id: String,
    pub(super) kind: String,
    pub(super) begin_ms: i64,
    pub(super) end_ms: i64,
}

/// The truth but its points, which are many and are read for themselves.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) edges: Vec<Edge>,
    pub(super) edge_index: HashMap<String, u32>,
    /// Beginning of minute 0.
    pub(super) begin_ms: i64,
    /// Number of minutes.
    pub(super) minute_count: usize,
    /// By edge, then minute.
    pub(super) minutes: Vec<Minute>,
    pub(super) incidents: Vec<Incident>,
    pub(super) faults: Vec<Fault>,
    /// Ends of the intervals with a vehicle of every sensor, ascending.
    pub(super) counted: BTreeMap<String, Vec<i64>>,
    /// Seconds (begin and end in ms) in which a vehicle was moved by hand.
    pub(super) teleports: BTreeMap<String, Vec<(i64, i64)>>,
}

#[derive(Deserialize)]
struct EdgeRow {
    edge: String,
    way: Option<i64>,
    way_dir: Option<String>,
    length_m: f64,
    free_mps: f64,
    geometry: Vec<[f64; 2]>,
}

#[derive(Deserialize)]
struct MinuteRow {
    edge: String,
    ts: i64,
    vehicle_seconds: f64,
    speed_mps: f64,
    congested: bool,
}

#[derive(Deserialize)]
struct SensorRow {
    sensor_id: String,
    ts: i64,
    #[serde(default)]
    count: f64,
}

#[derive(Deserialize)]
struct EventRow {
    r#type: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    kind: String,
    edge: Option<String>,
    way: Option<i64>,
    way_dir: Option<String>,
    vehicle_id: Option<String>,
    sensor_id: Option<String>,
    begin: i64,
    end: i64,
    effect: Option<Effect>,
}

#[derive(Deserialize)]
struct Effect {
    severity: Option<String>,
}

/// Way and direction, where both are known.
fn directed(way: Option<i64>, direction: Option<&str>) -> Option<(i64, bool)> {
    match direction? {
        "forward" => Some((way?, true)),
        "backward" => Some((way?, false)),
        _ => None,
    }
}

impl Truth {
    /// Reads `edges.ndjson`, `truth-edges.ndjson`, `truth-events.ndjson` and `sensor.ndjson`; a file that is not
    /// there leaves its part empty.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut truth = Truth::default();
        truth.read_edges(folder)?;
        truth.read_minutes(folder)?;
        truth.read_events(folder)?;
        truth.read_sensors(folder)?;
        Ok(truth)
    }

    /// When sensors counted anybody. Broken lines are defects of the feed, not of the truth.
    fn read_sensors(&mut self, folder: &Path) -> anyhow::Result<()> {
        files::lines(folder, "sensor.ndjson", |line| {
            if let Ok(row) = serde_json::from_slice::<SensorRow>(line) {
                let ends = self.counted.entry(row.sensor_id).or_default();
                ends.extend((row.count > 0.0).then_some(row.ts));
            }
            Ok(())
        })?;
        for ends in self.counted.values_mut() {
            ends.sort_unstable();
            ends.dedup();
        }
        Ok(())
    }

    fn read_edges(&mut self, folder: &Path) -> anyhow::Result<()> {
        files::rows(folder, "edges.ndjson", |row: EdgeRow| {
            let position = |[lon, lat]: &[f64; 2]| {
                Position::from_degrees(*lat, *lon).map_err(|_| anyhow::anyhow!("{lon}, {lat} is no position"))
            };
            let edge = Edge {
                way: directed(row.way, row.way_dir.as_deref()),
                length_m: row.length_m,
                free_mps: row.free_mps,
                geometry: row.geometry.iter().map(position).collect::<Result<_, _>>()?,
                id: row.edge,
            };
            self.edge_index.insert(edge.id.clone(), self.edges.len() as u32);
            self.edges.push(edge);
            Ok(())
        })?;
        Ok(())
    }

    fn read_minutes(&mut self, folder: &Path) -> anyhow::Result<()> {
        let mut rows: Vec<(u32, i64, Minute)> = Vec::new();
        files::rows(folder, "truth-edges.ndjson", |row: MinuteRow| {
            let Some(&edge) = self.edge_index.get(&row.edge) else {
                anyhow::bail!("edge `{}` is not in edges.ndjson", row.edge)
            };
            let minute = Minute {
                seconds: row.vehicle_seconds,
                metres: row.vehicle_seconds * row.speed_mps,
                congested: row.congested,
            };
            rows.push((edge, row.ts, minute));
            Ok(())
        })?;
        let times = rows.iter().map(|r| r.1);
        let (Some(first), Some(last)) = (times.clone().min(), times.max()) else {
            return Ok(());
        };
        self.begin_ms = first;
        self.minute_count = ((last - first) / MINUTE_MS + 1) as usize;
        self.minutes = vec![Minute::default(); self.edges.len() * self.minute_count];
        for (edge, ts, minute) in rows {
            let k = ((ts - first) / MINUTE_MS) as usize;
            self.minutes[edge as usize * self.minute_count + k] = minute;
        }
        Ok(())
    }

    fn read_events(&mut self, folder: &Path) -> anyhow::Result<()> {
        files::rows(folder, "truth-events.ndjson", |row: EventRow| {
            match row.r#type.as_str() {
                "incident" => self.incidents.push(Incident {
                    edge: row.edge.as_ref().and_then(|e| self.edge_index.get(e)).copied(),
                    way: directed(row.way, row.way_dir.as_deref()),
                    id: row.id,
                    kind: row.kind,
                    severity: row
                        .effect
                        .and_then(|e| e.severity)
                        .unwrap_or_else(|| "minor".to_owned()),
                    begin_ms: row.begin,
                    end_ms: row.end,
                }),
                "sensor_fault" => self.faults.push(Fault {
                    sensor_id: row.sensor_id.unwrap_or_default(),
                    kind: row.kind,
                    begin_ms: row.begin,
                    end_ms: row.end,
                }),
                "teleport" => {
                    let vehicle = row.vehicle_id.unwrap_or_default();
                    self.teleports
                        .entry(vehicle)
                        .or_default()
                        .push((row.begin, row.end));
                }
                // Kinds of events to come are not scored.
                _ => {}
            }
            Ok(())
        })?;
        Ok(())
    }

    /// What an edge did in minute `k`.
    pub(super) fn minute(&self, edge: u32, k: usize) -> Minute {
        self.minutes[edge as usize * self.minute_count + k]
    }

    /// What an edge did in the `n` minutes up to and with `k`; `None` if they begin before the truth.
    pub(super) fn window(&self, edge: u32, k: usize, n: usize) -> Option<Minute> {
        let first = (k + 1).checked_sub(n)?;
        let mut sum = Minute::default();
        for minute in (first..=k).map(|k| self.minute(edge, k)) {
            sum.seconds += minute.seconds;
            sum.metres += minute.metres;
            sum.congested |= minute.congested;
        }
        Some(sum)
    }

    /// The minute that holds a moment.
    pub(super) fn minute_of(&self, ms: i64) -> Option<usize> {
        let k = usize::try_from((ms - self.begin_ms).div_euclid(MINUTE_MS)).ok()?;
        (k < self.minute_count).then_some(k)
    }

    /// The minute at whose end (or within the minute before it) a window ends.
    pub(super) fn minute_ending(&self, ms: i64) -> Option<usize> {
        self.minute_of(ms - 1)
    }

    /// Whether a vehicle was moved by hand within a second of a moment.
    pub(super) fn teleported(&self, vehicle: &str, ms: i64) -> bool {
        let near = |&(begin, end): &(i64, i64)| (begin - 1000..=end + 1000).contains(&ms);
        self.teleports
            .get(vehicle)
            .is_some_and(|times| times.iter().any(near))
    }
}
