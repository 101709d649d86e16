//! Are defects rejected, each under its reason?

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files;
use super::points::Points;

/// Counts of the run and of the truth may differ by this much.
const TOLERANCE: u64 = 2;
/// Share of outliers that must be rejected as `jump`.
const LEAST_JUMPS: f64 = 0.8;

/// Each reason with the kinds of defects that belong under it (interfaces §1).
const TABLE: [(&str, &[&str]); 7] = [
    (
        "decode",
        &[
            "corrupt:truncated_json",
            "corrupt:not_json",
            "corrupt:nan_literal",
            "corrupt:empty_line",
        ],
    ),
    ("schema", &["corrupt:missing_field", "corrupt:wrong_type"]),
    (
        "out_of_range",
        &[
            "corrupt:absurd_speed",
            "corrupt:negative_speed",
            "corrupt:out_of_range",
        ],
    ),
    ("clock_unit", &["corrupt:seconds_timestamp"]),
    ("clock_future", &["corrupt:future_timestamp"]),
    ("swapped", &["corrupt:swapped_lonlat"]),
    ("null_island", &["corrupt:null_island"]),
];

/// Defects of the sensor feed, which truth does not list: they are counted in the feed itself.
#[derive(Debug, Default)]
pub(super) struct SensorDefects {
    lines: u64,
    undecodable: u64,
    duplicates: u64,
}

#[derive(Deserialize)]
struct SensorRow {
    sensor_id: String,
    ts: i64,
}

impl SensorDefects {
    /// Reads `sensor.ndjson`; without it there are none.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut defects = Self::default();
        let mut seen = std::collections::HashSet::new();
        files::lines(folder, "sensor.ndjson", |line| {
            defects.lines += 1;
            match serde_json::from_slice::<SensorRow>(line) {
                Ok(row) => defects.duplicates += u64::from(!seen.insert((row.sensor_id, row.ts))),
                Err(_) => defects.undecodable += 1,
            }
            Ok(())
        })?;
        Ok(defects)
    }
}

/// Rejections by reason against the defects that truth knows of.
#[derive(Debug, Serialize)]
pub struct RejectionsReport {
    /// Records that the run read, and those of the truth's feeds that it was given.
    pub read: u64,
    /// See `read`.
    pub expected_read: u64,
    /// Whether `used` and all rejections add up to `read`.
    pub adds_up: bool,
    /// One line for each reason that truth can judge.
    pub reasons: Vec<ReasonScore>,
    /// Reasons that truth says nothing of, with their counts.
    pub others: Vec<(String, u64)>,
    /// All of `reasons` hold, and the records add up.
    pub holds: bool,
}

/// One reason, or two that share their defects.
#[derive(Debug, Serialize)]
pub struct ReasonScore {
    /// Reason.
    pub reason: &'static str,
    /// What belongs under it.
    pub defects: String,
    /// Defects in the truth.
    pub expected: u64,
    /// Records that the run rejected so.
    pub rejected: u64,
    /// The condition, in words.
    pub condition: &'static str,
    /// Whether it holds.
    pub holds: bool,
}

/// Compares rejections with defects.
pub(super) fn score(
    summary: &Value,
    points: &Points,
    sensors: &SensorDefects,
) -> anyhow::Result<RejectionsReport> {
    let records = &summary["records"];
    let read = records["read"]
        .as_u64()
        .context("summary.json has no `records.read`")?;
    let used = records["used"]
        .as_u64()
        .context("summary.json has no `records.used`")?;
    let rejected = records["rejected"]
        .as_object()
        .context("summary.json has no `records.rejected`")?;
    let count = |reason: &str| rejected.get(reason).and_then(Value::as_u64).unwrap_or(0);
    let kind = |name: &str| points.kinds.get(name).copied().unwrap_or(0);

    // A run of the probes alone has not met the sensors' defects.
    let with_sensors = read > points.lines;
    let sensor = |n: u64| if with_sensors { n } else { 0 };
    let mut reasons: Vec<ReasonScore> = TABLE
        .iter()
        .map(|(reason, kinds)| {
            let undecodable = if *reason == "decode" {
                sensor(sensors.undecodable)
            } else {
                0
            };
            let expected = kinds.iter().map(|k| kind(k)).sum::<u64>() + undecodable;
            let names: Vec<&str> = kinds.iter().map(|k| k.trim_start_matches("corrupt:")).collect();
            ReasonScore {
                reason,
                defects: names.join(", "),
                expected,
                rejected: count(reason),
                condition: "agree within 2",
                holds: expected.abs_diff(count(reason)) <= TOLERANCE,
            }
        })
        .collect();
    let duplicates = kind("duplicate") + sensor(sensors.duplicates);
    let (twice, late) = (count("duplicate"), count("late"));
    reasons.push(ReasonScore {
        reason: "duplicate",
        defects: "duplicate".to_owned(),
        expected: duplicates,
        rejected: twice,
        condition: "not more; with `late` not less (within 2)",
        holds: twice <= duplicates + TOLERANCE && twice + late + TOLERANCE >= duplicates,
    });
    let outliers = kind("outlier");
    reasons.push(ReasonScore {
        reason: "jump",
        defects: "outlier".to_owned(),
        expected: outliers,
        rejected: count("jump"),
        condition: "at least 80 %",
        holds: count("jump") as f64 >= LEAST_JUMPS * outliers as f64,
    });
    let judged = |reason: &String| reasons.iter().any(|r| r.reason == reason);
    let others = rejected
        .iter()
        .filter(|(reason, n)| !judged(reason) && n.as_u64() != Some(0))
        .map(|(reason, n)| (reason.clone(), n.as_u64().unwrap_or(0)))
        .collect();
    let sum: u64 = rejected.values().filter_map(Value::as_u64).sum();
    let adds_up = used + sum == read;
    Ok(RejectionsReport {
        read,
        expected_read: points.lines + sensor(sensors.lines),
        adds_up,
        holds: adds_up && reasons.iter().all(|r| r.holds),
        reasons,
        others,
    })
}
