//! The report as text.

use std::fmt;

use super::Report;
use super::points::Tally;
use super::reliability::{Reliability, Row};
use super::traces::{Scores, TracesReport};

/// A number with `decimals`, or a dash.
fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.decimals$}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{:.2} %", v * 100.0))
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "NO" }
}

/// Writes rows of cells in columns: the first flush left, the others right.
fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|r| r.get(c))
            .map(|t| t.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::from(" ");
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            line.push(' ');
            if c == 0 {
                line.push_str(cell);
                line.push_str(&pad);
            } else {
                line.push(' ');
                line.push_str(&pad);
                line.push_str(cell);
            }
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

fn header(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|c| (*c).to_owned()).collect()
}

fn seconds(s: u32) -> String {
    format!("{s} s")
}

/// How many decisions say what of themselves, and, column by column, which share of some of them is right.
fn show_reliability(
    f: &mut fmt::Formatter<'_>,
    all: &Reliability,
    columns: &[(String, Option<&Reliability>)],
) -> fmt::Result {
    writeln!(f, "\nPosterior of decisions, and the share that is right")?;
    let mut rows = vec![header(&["posterior", "n", "mean"])];
    rows[0].extend(columns.iter().map(|(name, _)| name.clone()));
    let mut row = |name: String, pick: &dyn Fn(&Reliability) -> Row| {
        let of_all = pick(all);
        let mut cells = vec![name, of_all.n.to_string(), number(of_all.mean_posterior, 3)];
        let right = |r: Option<&Reliability>| percent(r.and_then(|r| pick(r).right_ratio));
        cells.extend(columns.iter().map(|(_, r)| right(*r)));
        rows.push(cells);
    };
    for (k, bin) in all.bins.iter().enumerate() {
        row(format!("{} to {}", bin.from, bin.to), &|r| r.bins[k]);
    }
    row(format!("{} and more", all.sure.from), &|r| r.sure);
    row("all".to_owned(), &|r| r.all);
    table(f, &rows)
}

impl fmt::Display for TracesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = if self.lag == "full" {
            "decisions wait for the end of the trace".to_owned()
        } else {
            format!(
                "decisions wait {} s, {} s since the fix before at most",
                self.lag_s, self.settle_s
            )
        };
        writeln!(f, "Map {}; {waits}", self.map_version)?;
        // A single class is all.
        let all = (self.intervals.len() > 1).then_some(&self.all);
        let cells = || self.intervals.iter().chain(all);
        let name = |s: &Scores| s.interval_s.map_or_else(|| "all".to_owned(), seconds);

        writeln!(f, "\nPoints on the true way and direction, by interval")?;
        let mut rows = vec![header(&[
            "", "traces", "points", "strict", "lenient", "on route", "way only", "no place",
        ])];
        rows.extend(cells().map(|s| {
            vec![
                name(s),
                s.traces.to_string(),
                s.points.to_string(),
                percent(s.strict_ratio),
                percent(s.lenient_ratio),
                percent(s.on_route_ratio),
                percent(s.on_way_ratio),
                percent(s.unlocated_ratio),
            ]
        }));
        table(f, &rows)?;
        writeln!(
            f,
            "  lenient: within 10 m of a junction of the drive, the way on its other side is as good; on route: on any \
             way and direction of the drive"
        )?;

        writeln!(f, "\nWays by length")?;
        let mut rows = vec![header(&[
            "",
            "km",
            "RMF",
            "d+",
            "d-",
            "recall",
            "precision",
            "breaks",
        ])];
        rows.extend(cells().map(|s| {
            vec![
                name(s),
                number(Some(s.true_m / 1000.0), 0),
                percent(s.rmf),
                percent(s.d_plus),
                percent(s.d_minus),
                percent(s.recall),
                percent(s.precision),
                s.breaks.to_string(),
            ]
        }));
        table(f, &rows)?;
        writeln!(
            f,
            "  RMF: (d+ + d-) / driven; d+: decided, but not driven; d-: driven, but not decided"
        )?;

        writeln!(f, "\nEvent time from a position to its decision in seconds")?;
        let mut rows = vec![header(&["", "n", "p50", "p90", "p99", "max", "at the end"])];
        rows.extend(cells().map(|s| {
            vec![
                name(s),
                s.delay.n.to_string(),
                number(s.delay.p50_s, 0),
                number(s.delay.p90_s, 0),
                number(s.delay.p99_s, 0),
                number(s.delay.max_s, 0),
                s.delay.at_end.to_string(),
            ]
        }));
        table(f, &rows)?;

        let Some(of_all) = &self.all.reliability else {
            return Ok(());
        };
        let mut columns = vec![
            ("strictly".to_owned(), Some(&of_all.strict)),
            ("leniently".to_owned(), Some(&of_all.lenient)),
            ("on route".to_owned(), Some(&of_all.on_route)),
        ];
        columns.extend(self.intervals.iter().map(|s| {
            let reliability = s.reliability.as_ref().map(|r| &r.lenient);
            (name(s), reliability)
        }));
        show_reliability(f, &of_all.lenient, &columns)?;
        writeln!(f, "  by interval: leniently")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Map {}", self.map_version)?;
        if let Some(cover) = &self.cover {
            writeln!(
                f,
                "Truth's edges: {} of {} covered by segments; left out: {} of edges, {} of length",
                cover.covered,
                cover.edges,
                percent(cover.uncovered_ratio),
                percent(cover.uncovered_length_ratio)
            )?;
        }
        self.show_points(f)?;
        self.show_speeds(f)?;
        self.show_congestion(f)?;
        self.show_alerts(f)?;
        self.show_rejections(f)?;
        if !self.skipped.is_empty() {
            writeln!(f, "\nLeft out")?;
            for text in &self.skipped {
                writeln!(f, "  {text}")?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn show_points(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(points) = &self.points else { return Ok(()) };
        writeln!(f, "\nPoints on the true way and direction")?;
        let mut rows = vec![header(&[
            "",
            "points",
            "accepted",
            "located",
            "right",
            "way only",
            "right of located",
        ])];
        let mut row = |name: &str, t: &Tally| {
            if t.points > 0 {
                rows.push(vec![
                    name.to_owned(),
                    t.points.to_string(),
                    t.accepted.to_string(),
                    t.located.to_string(),
                    percent(t.correct_ratio),
                    percent(t.on_way_ratio),
                    percent(t.correct_of_located_ratio),
                ]);
            }
        };
        row("ok, on an edge", &points.strict);
        row("ok, in a junction", &points.junction);
        row("ok, way known only", &points.way_known);
        row("late, accepted", &points.late);
        row("outlier, accepted", &points.outlier);
        table(f, &rows)?;
        writeln!(
            f,
            "  {} points of vehicles moved by hand left out; {} tracks broken off",
            points.teleported,
            points.breaks.map_or_else(|| "–".to_owned(), |n| n.to_string())
        )?;
        if points.intervals.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nPoints on an edge, by the interval of their vehicle")?;
        let mut rows = vec![header(&["", "points", "right", "km", "recall", "precision"])];
        for i in &points.intervals {
            rows.push(vec![
                seconds(i.interval_s),
                i.points.points.to_string(),
                percent(i.points.correct_ratio),
                number(Some(i.driven_m / 1000.0), 0),
                percent(i.recall),
                percent(i.precision),
            ]);
        }
        table(f, &rows)?;
        writeln!(
            f,
            "  recall and precision: by the distance driven to each point, of all and of located points"
        )?;
        let Some(all) = &points.reliability else {
            return Ok(());
        };
        let mut columns = vec![("right".to_owned(), Some(all))];
        let intervals = points.intervals.iter();
        columns.extend(intervals.map(|i| (seconds(i.interval_s), i.reliability.as_ref())));
        show_reliability(f, all, &columns)
    }

    fn show_speeds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(speeds) = &self.speeds else { return Ok(()) };
        writeln!(
            f,
            "\nSpeed of edges (a speed for {} of edge-minutes with traffic)",
            percent(speeds.estimated_ratio)
        )?;
        let mut rows = vec![header(&["", "n", "MAPE", "median", "MAE km/h", "bias km/h"])];
        for e in &speeds.errors {
            let share = |v: Option<f64>| percent(v.map(|p| p / 100.0));
            rows.push(vec![
                format!("{} min, {}", e.window_min, e.selection),
                e.n.to_string(),
                share(e.mape_percent),
                share(e.median_ape_percent),
                number(e.mae_kph, 2),
                number(e.bias_kph, 2),
            ]);
        }
        table(f, &rows)?;
        writeln!(
            f,
            "  observed: live, and 5 or more probe passages in 5 minutes; percentages: true speed ≥ 5 km/h"
        )
    }

    fn show_congestion(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(congestion) = &self.congestion else {
            return Ok(());
        };
        writeln!(f, "\nCongested edge-minutes")?;
        let mut rows = vec![header(&[
            "",
            "hits",
            "false",
            "missed",
            "precision",
            "recall",
            "F1",
        ])];
        for s in &congestion.scores {
            rows.push(vec![
                format!("{}, {} free speed", s.selection, s.free_speed),
                s.hits.to_string(),
                s.false_alarms.to_string(),
                s.misses.to_string(),
                number(s.precision, 3),
                number(s.recall, 3),
                number(s.f1, 3),
            ]);
        }
        table(f, &rows)?;
        writeln!(
            f,
            "  busy: one vehicle or more on average; {} congested edge-minutes without cover left out",
            congestion.uncovered_congested
        )?;
        let levels = &congestion.levels;
        writeln!(
            f,
            "\nLevels over 5 minutes: agreement {}, kappa {}, weighted kappa {}",
            percent(levels.agreement),
            number(levels.kappa, 3),
            number(levels.weighted_kappa, 3)
        )?;
        let mut rows = vec![header(&["true \\ said"])];
        rows[0].extend(levels.names.iter().map(|n| (*n).to_owned()));
        for (name, row) in levels.names.iter().zip(&levels.confusion) {
            rows.push(
                std::iter::once((*name).to_owned())
                    .chain(row.iter().map(u64::to_string))
                    .collect(),
            );
        }
        table(f, &rows)
    }

    fn show_alerts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(alerts) = &self.alerts else { return Ok(()) };
        writeln!(
            f,
            "\nIncidents: {} of {} major ones found",
            alerts.major_found, alerts.major
        )?;
        let mut rows = vec![header(&[
            "",
            "kind",
            "severity",
            "found",
            "by",
            "delay s",
            "on its edge",
        ])];
        for i in &alerts.incidents {
            rows.push(vec![
                i.id.clone(),
                i.kind.clone(),
                i.severity.clone(),
                if i.found { "yes" } else { "no" }.to_owned(),
                i.by.clone().unwrap_or_else(|| "–".to_owned()),
                number(i.delay_s, 0),
                i.on_edge
                    .map_or("–", |on| if on { "yes" } else { "no" })
                    .to_owned(),
            ]);
        }
        table(f, &rows)?;
        writeln!(f, "\nAlerts opened")?;
        let count = |n: Option<u64>| n.map_or_else(|| "–".to_owned(), |n| n.to_string());
        let mut rows = vec![header(&[
            "",
            "opened",
            "with a reason",
            "without",
            "without, per h",
        ])];
        for o in &alerts.openings {
            rows.push(vec![
                o.kind.clone(),
                o.opened.to_string(),
                count(o.supported),
                count(o.unsupported),
                number(o.unsupported_per_h, 2),
            ]);
        }
        table(f, &rows)?;
        if !alerts.sensor_faults.is_empty() {
            let found = alerts.sensor_faults.iter().filter(|s| s.found).count();
            let busy = alerts.sensor_faults.iter().filter(|s| s.busy == Some(true));
            writeln!(
                f,
                "\nSensor faults: {found} of {} found; of {} busy before, {} named within 5 minutes",
                alerts.sensor_faults.len(),
                busy.clone().count(),
                busy.filter(|s| s.in_time).count()
            )?;
            let mut rows = vec![header(&["", "kind", "busy before", "found", "as", "delay s"])];
            for s in &alerts.sensor_faults {
                let found = if s.found { "yes" } else { "no" };
                rows.push(vec![
                    s.sensor_id.clone(),
                    s.kind.clone(),
                    match s.busy {
                        Some(true) => "yes".to_owned(),
                        Some(false) => "no".to_owned(),
                        None => "–".to_owned(),
                    },
                    found.to_owned(),
                    s.cause.clone().unwrap_or_else(|| "–".to_owned()),
                    number(s.delay_s, 0),
                ]);
            }
            table(f, &rows)?;
        }
        let healthy = &alerts.healthy_sensors;
        if healthy.sensors > 0 {
            writeln!(
                f,
                "  sensors without a fault: {} of {} flagged, {} % an hour",
                healthy.flagged,
                healthy.sensors,
                number(healthy.flagged_percent_per_h, 2)
            )?;
        }
        Ok(())
    }

    fn show_rejections(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rejections) = &self.rejections else {
            return Ok(());
        };
        writeln!(
            f,
            "\nRejections: {} records read of {}; used and rejected add up: {}",
            rejections.read,
            rejections.expected_read,
            yes(rejections.adds_up)
        )?;
        let mut rows = vec![header(&["", "defects", "rejected", "holds", "condition"])];
        for r in &rejections.reasons {
            rows.push(vec![
                r.reason.to_owned(),
                r.expected.to_string(),
                r.rejected.to_string(),
                yes(r.holds).to_owned(),
                r.condition.to_owned(),
            ]);
        }
        table(f, &rows)?;
        if !rejections.others.is_empty() {
            let list: Vec<String> = rejections
                .others
                .iter()
                .map(|(reason, n)| format!("{reason} {n}"))
                .collect();
            writeln!(f, "  others: {}", list.join(", "))?;
        }
        Ok(())
    }
}
