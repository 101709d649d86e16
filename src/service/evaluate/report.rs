//! The report as text.

use std::fmt;

use super::Report;
use super::points::Tally;

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
            "  {} points of vehicles moved by hand left out",
            points.teleported
        )
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
