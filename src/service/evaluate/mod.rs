//! `viaflux evaluate`: how near a run came to the truth.
//!
//! A run is the folder that `replay` writes; a truth is a folder of the simulated city's format. Each part is
//! scored if both sides have its files, and says why if not.

mod congestion;
mod cover;
mod events;
mod files;
mod intervals;
mod points;
mod rejections;
mod reliability;
mod report;
mod speeds;
mod traces;
mod truth;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use self::cover::{Cover, CoverReport};
use self::truth::Truth;
use super::cli::{self, Global};
use crate::network::Network;

/// Score a run against a truth.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  viaflux replay --map city.map --probes gps.ndjson --preset simulated-city --matches --every-pane -o run
  viaflux evaluate --run run --truth city --map city.map
  viaflux evaluate --run run --truth city --map city.map --json | jq .congestion
  viaflux evaluate traces --map porto.map traces/*.ndjson")]
pub struct EvaluateArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Absent with a subcommand only.
    #[command(flatten)]
    run: Option<RunArgs>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Score the matcher alone on drives with known truth, by sampling interval.
    Traces(traces::TracesArgs),
}

/// Which run to score against which truth.
#[derive(Debug, Args)]
struct RunArgs {
    /// Folder of the run: matches.ndjson, segment-states.ndjson, alerts.ndjson, summary.json.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Folder of the truth: edges.ndjson, truth-*.ndjson, … (plain, .zst or .gz).
    #[arg(long, value_name = "DIR")]
    truth: PathBuf,
    /// Map of the run; without it `city.map` in the folder of the truth.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
}

/// The scores. A part is absent if the run or the truth lacks its files; `skipped` says which.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Version of the map.
    pub map_version: String,
    /// How truth's edges found their segments.
    pub cover: Option<CoverReport>,
    /// Positions on the true road.
    pub points: Option<points::PointsReport>,
    /// Speeds of edges.
    pub speeds: Option<speeds::SpeedsReport>,
    /// Congested edge-minutes and levels.
    pub congestion: Option<congestion::CongestionReport>,
    /// Incidents and other alerts.
    pub alerts: Option<events::AlertsReport>,
    /// Rejections by reason against the defects that truth knows of.
    pub rejections: Option<rejections::RejectionsReport>,
    /// Parts left out, and why.
    pub skipped: Vec<String>,
}

impl EvaluateArgs {
    /// Scores and prints the report.
    ///
    /// # Errors
    /// If the map cannot be read or is not that of the run, a file is damaged, or there is nothing to score.
    pub fn run(self, global: &Global) -> anyhow::Result<()> {
        match (self.what, self.run) {
            (Some(What::Traces(args)), _) => args.run(global),
            (None, Some(args)) => args.run(global),
            (None, None) => bail!("name the folders with --run and --truth"),
        }
    }
}

impl RunArgs {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        let report = self.evaluate()?;
        let text = if global.json {
            serde_json::to_string_pretty(&report)?
        } else {
            report.to_string()
        };
        cli::print(&text)?;
        Ok(())
    }

    fn evaluate(&self) -> anyhow::Result<Report> {
        for folder in [&self.run, &self.truth] {
            if !folder.is_dir() {
                bail!("`{}` is no folder", folder.display());
            }
        }
        let map = self.map.clone().unwrap_or_else(|| self.truth.join("city.map"));
        let network = Network::load(&map).with_context(|| {
            format!(
                "cannot read the map `{}`; name the map of the run with --map",
                map.display()
            )
        })?;
        score(self, &network)
    }
}

fn score(args: &RunArgs, network: &Network) -> anyhow::Result<Report> {
    let mut report = Report {
        map_version: network.version().to_owned(),
        ..Report::default()
    };
    let summary = files::summary(&args.run)?;
    if let Some(version) = summary.as_ref().and_then(|s| s["map_version"].as_str())
        && version != network.version()
    {
        bail!(
            "the run was made with map version {version}, but --map has version {}; name the map of the run",
            network.version()
        );
    }
    let truth = Truth::read(&args.truth)?;
    let cover = Cover::new(network, &truth.edges);
    if truth.edges.is_empty() {
        report
            .skipped
            .push("cover, directions: the truth has no edges.ndjson".to_owned());
    } else {
        report.cover = Some(cover.report(&truth.edges));
    }

    let marks = points::Points::read(&args.truth, &truth)?;
    match (points::read_matches(&args.run)?, &marks) {
        (Some(matches), Some(marks)) => {
            let breaks = summary
                .as_ref()
                .and_then(|s| s["located"]["broken_steps"].as_u64());
            report.points = Some(points::score(&matches, marks, &truth, breaks));
        }
        (None, _) => report
            .skipped
            .push("points: the run has no matches.ndjson (replay --matches)".to_owned()),
        (_, None) => report
            .skipped
            .push("points: the truth has no truth-points.ndjson".to_owned()),
    }

    match speeds::States::read(&args.run, network, &truth)? {
        _ if truth.minutes.is_empty() => {
            report
                .skipped
                .push("speeds, congestion: the truth has no truth-edges.ndjson".to_owned());
        }
        None => {
            let text = "speeds, congestion: the run has no segment-states.ndjson (replay --every-pane)";
            report.skipped.push(text.to_owned());
        }
        Some(states) => {
            let estimates = speeds::Estimates::new(&states, &cover, &truth);
            report.speeds = Some(speeds::score(&estimates, &truth, marks.as_ref()));
            report.congestion = Some(congestion::score(&estimates, &cover, &truth));
        }
    }

    match events::read_alerts(&args.run)? {
        None => report
            .skipped
            .push("alerts: the run has no alerts.ndjson".to_owned()),
        Some(_) if truth.incidents.is_empty() && truth.faults.is_empty() => {
            report
                .skipped
                .push("alerts: the truth has no truth-events.ndjson".to_owned());
        }
        Some(alerts) => report.alerts = Some(events::score(&alerts, &cover, &truth)),
    }

    match (&summary, &marks) {
        (Some(summary), Some(marks)) if !marks.kinds.is_empty() => {
            let sensors = rejections::SensorDefects::read(&args.truth)?;
            report.rejections = Some(rejections::score(summary, marks, &sensors)?);
        }
        (None, _) => report
            .skipped
            .push("rejections: the run has no summary.json".to_owned()),
        _ => report
            .skipped
            .push("rejections: the truth knows no kinds of points".to_owned()),
    }
    if report.points.is_none()
        && report.speeds.is_none()
        && report.alerts.is_none()
        && report.rejections.is_none()
    {
        bail!(
            "nothing to score in `{}` against `{}`: {}",
            args.run.display(),
            args.truth.display(),
            report.skipped.join("; ")
        );
    }
    Ok(report)
}

/// `part / whole`, `None` if there is no whole.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests;
