//! Are incidents, jams and faulty sensors told, and are those told real?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cover::Cover;
use super::files::{self, moment_ms};
use super::truth::{Incident, MINUTE_MS, Truth};

/// Time after the end of an incident or fault in which an alert of it still counts, in ms.
const GRACE_MS: i64 = 300_000;
/// Time before the opening of an alert in which its reason may lie, in ms.
const LOOK_BACK_MS: i64 = 300_000;
/// Time from the beginning of a sensor's fault in which it must be named, in ms.
const IN_TIME_MS: i64 = 300_000;
/// A fault must show soon if its sensor counted a vehicle in this share of so many minutes before.
const BUSY_PERCENT: i64 = 80;
const BUSY_OF_MIN: i64 = 15;
/// Alerts that tell of slow traffic on a road.
const TRAFFIC: [&str; 4] = ["congestion", "queue", "incident_suspected", "closure_suspected"];

/// The opening of an alert.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    kind: String,
    at_ms: i64,
    segments: Vec<String>,
    way_ids: Vec<i64>,
    cause: Option<String>,
    /// Every text in the alert: a sensor's alert names the sensor somewhere.
    words: BTreeSet<String>,
}

#[derive(Deserialize)]
struct AlertRow {
    r#type: String,
    transition: String,
    updated_at: String,
    cause: Option<String>,
    #[serde(default)]
    place: PlaceRow,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
struct PlaceRow {
    #[serde(default)]
    segment_ids: Vec<String>,
    #[serde(default)]
    way_ids: Vec<i64>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Reads the openings of `alerts.ndjson`.
pub(super) fn read_alerts(run: &Path) -> anyhow::Result<Option<Vec<Opening>>> {
    let mut openings = Vec::new();
    let found = files::rows(run, "alerts.ndjson", |row: AlertRow| {
        if row.transition == "opened" {
            let mut words = BTreeSet::new();
            row.rest
                .values()
                .chain(row.place.rest.values())
                .for_each(|v| collect(v, &mut words));
            openings.push(Opening {
                kind: row.r#type,
                at_ms: moment_ms(&row.updated_at)?,
                segments: row.place.segment_ids,
                way_ids: row.place.way_ids,
                cause: row.cause,
                words,
            });
        }
        Ok(())
    })?;
    Ok(found.then_some(openings))
}

/// All texts in a value.
fn collect(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(words.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|v| collect(v, words)),
        Value::Object(members) => members.values().for_each(|v| collect(v, words)),
        _ => {}
    }
}

/// Incidents and other alerts.
#[derive(Debug, Serialize)]
pub struct AlertsReport {
    /// Every incident and what was told of it.
    pub incidents: Vec<IncidentScore>,
    /// Incidents of severity `major` found, of how many.
    pub major_found: u64,
    /// See `major_found`.
    pub major: u64,
    /// Alerts opened by type, and how many of them have a reason in the truth.
    pub openings: Vec<OpeningScore>,
    /// Faulty sensors.
    pub sensor_faults: Vec<FaultScore>,
    /// Sensors without a fault.
    pub healthy_sensors: HealthyScore,
}

/// What was told of an incident.
#[derive(Debug, Serialize)]
pub struct IncidentScore {
    /// Id in the truth.
    pub id: String,
    /// Kind, such as `road_blocked`.
    pub kind: String,
    /// `major` must be found; `minor` and `masked` show how sensitive the run is.
    pub severity: String,
    /// An alert of slow traffic was opened on its way and direction, from its beginning to 5 minutes after its end.
    pub found: bool,
    /// Type of the first such alert.
    pub by: Option<String>,
    /// Event time from the beginning to that alert.
    pub delay_s: Option<f64>,
    /// The alert's place holds a segment of the incident's own edge.
    pub on_edge: Option<bool>,
}

/// Alerts of one type.
#[derive(Debug, Serialize)]
pub struct OpeningScore {
    /// Type.
    pub kind: String,
    /// Alerts opened.
    pub opened: u64,
    /// Alerts with a reason: an incident on their way (`incident_suspected`, `closure_suspected`), or an edge in
    /// their place that truth calls congested in the 5 minutes before. `None` for types that truth cannot judge.
    pub supported: Option<u64>,
    /// Alerts without one.
    pub unsupported: Option<u64>,
    /// Alerts without one, per hour of the truth.
    pub unsupported_per_h: Option<f64>,
}

/// What was told of a faulty sensor.
#[derive(Debug, Serialize)]
pub struct FaultScore {
    /// Sensor.
    pub sensor_id: String,
    /// Kind of fault in the truth.
    pub kind: String,
    /// A `sensor_fault` alert that names it was opened from its beginning to 5 minutes after its end.
    pub found: bool,
    /// Event time from the beginning to that alert.
    pub delay_s: Option<f64>,
    /// Cause that the first such alert names.
    pub cause: Option<String>,
    /// Its cause was named within 5 minutes of its beginning.
    pub in_time: bool,
    /// The sensor counted a vehicle in 12 of the 15 minutes before, so that its fault can and must show soon;
    /// `None` if the truth has no `sensor.ndjson`.
    pub busy: Option<bool>,
}

/// Alerts about sensors that truth knows no fault of.
#[derive(Debug, Serialize)]
pub struct HealthyScore {
    /// Sensors without a fault that reported.
    pub sensors: u64,
    /// Of these, sensors with a `sensor_fault` alert.
    pub flagged: u64,
    /// Their share in percent, per hour of the truth.
    pub flagged_percent_per_h: Option<f64>,
}

/// Compares alerts with events.
pub(super) fn score(openings: &[Opening], cover: &Cover, truth: &Truth) -> AlertsReport {
    let incidents: Vec<IncidentScore> = truth
        .incidents
        .iter()
        .map(|i| found(i, openings, cover))
        .collect();
    let major = incidents.iter().filter(|i| i.severity == "major");
    let mut kinds: BTreeMap<&str, Vec<&Opening>> = BTreeMap::new();
    for opening in openings {
        kinds.entry(&opening.kind).or_default().push(opening);
    }
    let hours = truth.minute_count as f64 / 60.0;
    let by_kind = |(kind, openings): (&str, Vec<&Opening>)| {
        let opened = openings.len() as u64;
        let reason: Option<&dyn Fn(&Opening) -> bool> = match kind {
            "incident_suspected" | "closure_suspected" => {
                Some(&|o| truth.incidents.iter().any(|i| speaks_of(o, i, cover)))
            }
            // What truth calls congested must be known to judge.
            "congestion" | "queue" if !truth.minutes.is_empty() => Some(&|o| was_congested(o, cover, truth)),
            "sensor_fault" => Some(&|o| {
                truth
                    .faults
                    .iter()
                    .any(|f| names(o, &f.sensor_id, f.begin_ms, f.end_ms))
            }),
            _ => None,
        };
        let supported = reason.map(|r| openings.iter().filter(|o| r(o)).count() as u64);
        let unsupported = supported.map(|s| opened - s);
        OpeningScore {
            kind: kind.to_owned(),
            opened,
            supported,
            unsupported,
            unsupported_per_h: unsupported.filter(|_| hours > 0.0).map(|u| u as f64 / hours),
        }
    };
    let fault = |f: &super::truth::Fault| {
        let told = openings
            .iter()
            .filter(|o| o.kind == "sensor_fault" && names(o, &f.sensor_id, f.begin_ms, f.end_ms));
        let right = cause_of(&f.kind);
        let in_time = told
            .clone()
            .any(|o| o.cause.as_deref() == Some(right) && o.at_ms - f.begin_ms <= IN_TIME_MS);
        let first = told.min_by_key(|o| o.at_ms);
        FaultScore {
            sensor_id: f.sensor_id.clone(),
            kind: f.kind.clone(),
            found: first.is_some(),
            delay_s: first.map(|o| (o.at_ms - f.begin_ms) as f64 / 1000.0),
            cause: first.and_then(|o| o.cause.clone()),
            in_time,
            busy: truth.counted.get(&f.sensor_id).map(|ends| {
                let before = f.begin_ms - BUSY_OF_MIN * MINUTE_MS + 1..=f.begin_ms;
                let minutes: BTreeSet<i64> = ends
                    .iter()
                    .filter(|t| before.contains(t))
                    .map(|t| (f.begin_ms - t) / MINUTE_MS)
                    .collect();
                minutes.len() as i64 * 100 >= BUSY_OF_MIN * BUSY_PERCENT
            }),
        }
    };
    let healthy: Vec<&String> = truth
        .counted
        .keys()
        .filter(|id| !truth.faults.iter().any(|f| f.sensor_id == **id))
        .collect();
    let sensor_faults: Vec<&Opening> = openings.iter().filter(|o| o.kind == "sensor_fault").collect();
    let flagged = healthy
        .iter()
        .filter(|id| sensor_faults.iter().any(|o| o.words.contains(**id)))
        .count();
    AlertsReport {
        healthy_sensors: HealthyScore {
            sensors: healthy.len() as u64,
            flagged: flagged as u64,
            flagged_percent_per_h: (hours > 0.0 && !healthy.is_empty())
                .then(|| 100.0 * flagged as f64 / healthy.len() as f64 / hours),
        },
        major: major.clone().count() as u64,
        major_found: major.filter(|i| i.found).count() as u64,
        openings: kinds.into_iter().map(by_kind).collect(),
        sensor_faults: truth.faults.iter().map(fault).collect(),
        incidents,
    }
}

/// The cause by which an alert must name a kind of fault of the truth.
fn cause_of(kind: &str) -> &str {
    match kind {
        "dead_zero" => "no_hits",
        "kmh_unit" => "unit",
        other => other,
    }
}

fn found(incident: &Incident, openings: &[Opening], cover: &Cover) -> IncidentScore {
    let first = openings
        .iter()
        .filter(|o| TRAFFIC.contains(&o.kind.as_str()) && speaks_of(o, incident, cover))
        .min_by_key(|o| o.at_ms);
    let on_edge = |o: &Opening| {
        let edge = incident.edge? as usize;
        let parts = &cover.segments[edge];
        (!parts.is_empty()).then(|| {
            o.segments
                .iter()
                .filter_map(|id| cover.segment(id))
                .any(|s| parts.iter().any(|p| p.0 == s))
        })
    };
    IncidentScore {
        id: incident.id.clone(),
        kind: incident.kind.clone(),
        severity: incident.severity.clone(),
        found: first.is_some(),
        by: first.map(|o| o.kind.clone()),
        delay_s: first.map(|o| (o.at_ms - incident.begin_ms) as f64 / 1000.0),
        on_edge: first.and_then(on_edge),
    }
}

/// Whether an alert was opened in an incident's time, on its way and in its direction.
fn speaks_of(opening: &Opening, incident: &Incident, cover: &Cover) -> bool {
    let Some(way) = incident.way else { return false };
    let in_time = (incident.begin_ms..=incident.end_ms + GRACE_MS).contains(&opening.at_ms);
    let mut known = opening
        .segments
        .iter()
        .filter_map(|id| cover.segment(id))
        .peekable();
    // An alert that names no segments has no direction.
    let on_way = if known.peek().is_some() {
        known.any(|s| cover.way(s) == way)
    } else {
        opening.way_ids.contains(&way.0)
    };
    in_time && on_way
}

/// Whether truth calls an edge in the alert's place congested shortly before its opening.
fn was_congested(opening: &Opening, cover: &Cover, truth: &Truth) -> bool {
    let edges = opening
        .segments
        .iter()
        .filter_map(|id| cover.segment(id))
        .filter_map(|s| cover.edges.get(&s));
    let minutes: Vec<usize> = (0..=LOOK_BACK_MS / MINUTE_MS)
        .filter_map(|back| truth.minute_of(opening.at_ms - back * MINUTE_MS - 1))
        .collect();
    edges
        .flatten()
        .any(|&e| minutes.iter().any(|&k| truth.minute(e, k).congested))
}

/// Whether an alert was opened in a time and names a sensor.
fn names(opening: &Opening, sensor: &str, begin_ms: i64, end_ms: i64) -> bool {
    (begin_ms..=end_ms + GRACE_MS).contains(&opening.at_ms) && opening.words.contains(sensor)
}
