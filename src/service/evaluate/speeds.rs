//! Are the speeds right?

use std::borrow::Cow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cover::Cover;
use super::files::{self, moment_ms};
use super::points::Points;
use super::truth::Truth;
use crate::network::{Network, SegmentKey};

/// Minutes of the long window.
pub(super) const LONG_MIN: usize = 5;
/// Probe passages in the long window from which an edge counts as well observed.
const WELL_OBSERVED: u32 = 5;
/// Share of an edge's covered length that must have a speed.
const LEAST_SHARE: f64 = 0.8;
/// True speeds below this, in m/s, leave the percentage errors: 5 km/h. Near standstill a percentage says nothing.
const LEAST_MPS: f64 = 5.0 / 3.6;

/// A standing segment's speed, in m/s, so that it has a travel time: half the last digit that a state tells.
const STANDING_MPS: f32 = 0.05 / 3.6;

/// What the run says of one segment at the end of one minute.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// m/s; `None` if unknown.
    speed: Option<f32>,
    free_flow: f32,
    live: bool,
}

/// What the run says, by segment and minute.
#[derive(Debug)]
pub(super) struct States {
    states: Vec<State>,
    minute_count: usize,
}

#[derive(Deserialize)]
struct StateRow<'a> {
    #[serde(borrow)]
    segment_id: Cow<'a, str>,
    #[serde(borrow)]
    window_end: Cow<'a, str>,
    current_speed_kph: Option<f32>,
    free_flow_speed_kph: Option<f32>,
    #[serde(borrow)]
    basis: Cow<'a, str>,
    #[serde(default)]
    provisional: bool,
}

impl States {
    /// Reads `segment-states.ndjson`. The last final state of each segment in each minute counts, so a run with
    /// heartbeats serves as well as one with every pane.
    pub(super) fn read(run: &Path, network: &Network, truth: &Truth) -> anyhow::Result<Option<Self>> {
        let minute_count = truth.minute_count;
        let mut states = vec![State::default(); network.segments().len() * minute_count];
        // Thousands of lines in a row share their time.
        let mut last = (String::new(), 0);
        let found = files::lines(run, "segment-states.ndjson", |line| {
            let row: StateRow<'_> = serde_json::from_slice(line)?;
            if row.provisional {
                return Ok(());
            }
            if last.0 != row.window_end {
                last = (row.window_end.to_string(), moment_ms(&row.window_end)?);
            }
            let Some(minute) = truth.minute_ending(last.1) else {
                return Ok(());
            };
            let key: SegmentKey = row.segment_id.parse().map_err(anyhow::Error::msg)?;
            let Some(segment) = network.find(key) else {
                anyhow::bail!("segment `{key}` is not in the map; name the map of the run with --map")
            };
            states[segment as usize * minute_count + minute] = State {
                speed: row.current_speed_kph.map(|kph| (kph / 3.6).max(STANDING_MPS)),
                free_flow: row.free_flow_speed_kph.unwrap_or(0.0) / 3.6,
                live: row.basis == "live",
            };
            Ok(())
        })?;
        Ok(found.then_some(States { states, minute_count }))
    }
}

/// What the run says of one edge at the end of one minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    /// m/s.
    pub(super) speed: f64,
    /// Against the run's own free-flow speeds.
    pub(super) own_ratio: Option<f64>,
    /// All of its segments are live.
    pub(super) live: bool,
}

/// What the run says, by edge and minute.
#[derive(Debug)]
pub(super) struct Estimates {
    of: Vec<Option<Estimate>>,
    minute_count: usize,
}

impl Estimates {
    pub(super) fn new(states: &States, cover: &Cover, truth: &Truth) -> Self {
        let minute_count = states.minute_count;
        let mut of = Vec::with_capacity(truth.edges.len() * minute_count);
        for parts in &cover.segments {
            let covered: f64 = parts.iter().map(|p| p.1).sum();
            for k in 0..minute_count {
                let known = parts.iter().filter_map(|&(segment, metres)| {
                    let state = states.states[segment as usize * minute_count + k];
                    Some((state, f64::from(state.speed?), metres))
                });
                let (mut metres, mut seconds, mut free_seconds, mut live) = (0.0, 0.0, 0.0, true);
                for (state, speed, part) in known {
                    metres += part;
                    seconds += part / speed;
                    free_seconds += part / f64::from(state.free_flow);
                    live &= state.live;
                }
                let enough = metres > 0.0 && metres >= LEAST_SHARE * covered;
                of.push(enough.then(|| Estimate {
                    speed: metres / seconds,
                    own_ratio: Some(free_seconds / seconds).filter(|r| r.is_finite()),
                    live,
                }));
            }
        }
        Self { of, minute_count }
    }

    /// What is said of an edge at the end of minute `k`.
    pub(super) fn at(&self, edge: u32, k: usize) -> Option<Estimate> {
        self.of[edge as usize * self.minute_count + k]
    }
}

/// Speeds of edges.
#[derive(Debug, Serialize)]
pub struct SpeedsReport {
    /// Edge-minutes with traffic on covered edges, and the share of them for which the run has a speed.
    pub edge_minutes: u64,
    /// See `edge_minutes`.
    pub estimated_ratio: Option<f64>,
    /// Errors by window and selection.
    pub errors: Vec<SpeedErrors>,
}

/// Errors of one selection of edge-minutes.
#[derive(Debug, Serialize)]
pub struct SpeedErrors {
    /// Minutes of truth compared with the state at their end.
    pub window_min: usize,
    /// `all`, `live` (every segment live) or `observed` (live, and 5 or more probe passages in 5 minutes).
    pub selection: &'static str,
    /// Edge-minutes.
    pub n: u64,
    /// Mean absolute error in percent of the true speed, where that is at least 5 km/h.
    pub mape_percent: Option<f64>,
    /// Median of the same.
    pub median_ape_percent: Option<f64>,
    /// Mean absolute error.
    pub mae_kph: Option<f64>,
    /// Mean of estimate less truth.
    pub bias_kph: Option<f64>,
}

/// Compares speeds.
pub(super) fn score(estimates: &Estimates, truth: &Truth, points: Option<&Points>) -> SpeedsReport {
    let mut groups: Vec<(usize, &'static str, Errors)> = Vec::new();
    for window in [1, LONG_MIN] {
        for selection in ["all", "live", "observed"] {
            if selection != "observed" || points.is_some() {
                groups.push((window, selection, Errors::default()));
            }
        }
    }
    let (mut edge_minutes, mut estimated) = (0, 0);
    for edge in 0..truth.edges.len() as u32 {
        for k in 0..truth.minute_count {
            let estimate = estimates.at(edge, k);
            if truth.minute(edge, k).speed().is_some() {
                edge_minutes += 1;
                estimated += u64::from(estimate.is_some());
            }
            let Some(estimate) = estimate else { continue };
            let observed =
                estimate.live && points.is_some_and(|p| p.passages(edge, k, LONG_MIN) >= WELL_OBSERVED);
            for (window, selection, errors) in &mut groups {
                let selected = match *selection {
                    "live" => estimate.live,
                    "observed" => observed,
                    _ => true,
                };
                let real = truth.window(edge, k, *window).and_then(|m| m.speed());
                if let Some(real) = real.filter(|_| selected) {
                    errors.add(estimate.speed, real);
                }
            }
        }
    }
    SpeedsReport {
        edge_minutes,
        estimated_ratio: super::ratio(estimated, edge_minutes),
        errors: groups
            .into_iter()
            .map(|(window, selection, errors)| errors.finish(window, selection))
            .collect(),
    }
}

#[derive(Debug, Default)]
struct Errors {
    n: u64,
    percent: Vec<f32>,
    absolute: f64,
    signed: f64,
}

impl Errors {
    /// Adds one pair of speeds in m/s.
    fn add(&mut self, estimate: f64, real: f64) {
        let error = estimate - real;
        self.n += 1;
        self.absolute += error.abs();
        self.signed += error;
        if real >= LEAST_MPS {
            self.percent.push((100.0 * error.abs() / real) as f32);
        }
    }

    fn finish(mut self, window_min: usize, selection: &'static str) -> SpeedErrors {
        self.percent.sort_by(f32::total_cmp);
        let count = self.percent.len();
        let sum: f64 = self.percent.iter().map(|p| f64::from(*p)).sum();
        let mean = |sum: f64| (self.n > 0).then(|| sum / self.n as f64 * 3.6);
        SpeedErrors {
            window_min,
            selection,
            n: self.n,
            mape_percent: (count > 0).then(|| sum / count as f64),
            median_ape_percent: self.percent.get(count / 2).map(|p| f64::from(*p)),
            mae_kph: mean(self.absolute),
            bias_kph: mean(self.signed),
        }
    }
}
