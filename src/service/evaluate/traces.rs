//! `viaflux evaluate traces`: the matcher alone against drives whose truth is known.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;

use super::intervals::{CLASSES_S, Gaps};
use super::ratio;
use super::reliability::{Reliability, Tally};
use crate::locate::{Decisions, Matcher, Settings, Track};
use crate::network::Network;
use crate::service::bench::Wait;
use crate::service::cli::{self, Global};
use crate::service::traces::{self, Trace, Way};
use crate::units::EventTime;

/// Which drives to match to which map.
#[derive(Debug, Args)]
#[command(after_help = "\
A trace is a line {\"id\": 0, \"pts\": [[lon, lat, seconds, km/h, degrees], …], \"truth\": …, \"route\": …}, as
`viaflux simulate traces` writes it; docs/formats.md tells more. How the matcher is set: section [locate] of -c.

Examples:
  viaflux simulate traces --map porto.map -o traces
  viaflux evaluate traces --map porto.map traces/*.ndjson
  viaflux evaluate traces --map porto.map traces/60s.ndjson --lag full --json | jq .all.rmf")]
pub(super) struct TracesArgs {
    /// Map to match to.
    #[arg(long, value_name = "FILE")]
    map: PathBuf,
    /// How long a decision may wait.
    #[arg(long, value_name = "LAG", default_value = "online")]
    lag: Wait,
    /// Files of traces with truth.
    #[arg(value_name = "FILE", required = true)]
    traces: Vec<PathBuf>,
}

/// Scores of the matcher.
#[derive(Debug, Serialize)]
pub(super) struct TracesReport {
    /// Version of the map.
    pub map_version: String,
    /// `online`: decisions wait as live; `full`: until the trace ends.
    pub lag: &'static str,
    /// `locate.lag_s` of the configuration.
    pub lag_s: u32,
    /// `locate.settle_s` of the configuration.
    pub settle_s: u32,
    /// All traces.
    pub all: Scores,
    /// The traces by their sampling interval.
    pub intervals: Vec<Scores>,
}

/// Scores of some traces. Ratios of points are of all points, so what has no place counts as wrong.
#[derive(Debug, Serialize)]
pub(super) struct Scores {
    /// Class of the sampling interval in seconds; `None` for all traces.
    pub interval_s: Option<u32>,
    /// Traces.
    pub traces: u64,
    /// Points.
    pub points: u64,
    /// Share of points on the true way in the true direction.
    pub strict_ratio: Option<f64>,
    /// The same, but within 10 m of a junction of the drive the way on its other side is as good.
    pub lenient_ratio: Option<f64>,
    /// Share of points on a way and direction that the drive took at any time: what errors along the road, which
    /// noise makes inevitable near junctions, do not lower.
    pub on_route_ratio: Option<f64>,
    /// Share of points on the true way, in either direction.
    pub on_way_ratio: Option<f64>,
    /// Share of points without a place.
    pub unlocated_ratio: Option<f64>,
    /// Metres that were driven (d0).
    pub true_m: f64,
    /// Route mismatch fraction (Newson & Krumm 2009): (d+ + d-) / d0, by length on each way and direction.
    pub rmf: Option<f64>,
    /// Metres that were decided, but not driven there, over d0.
    pub d_plus: Option<f64>,
    /// Metres that were driven, but not decided there, over d0.
    pub d_minus: Option<f64>,
    /// Share of the metres driven that were decided.
    pub recall: Option<f64>,
    /// Share of the metres decided that were driven.
    pub precision: Option<f64>,
    /// Times that no way could be found and the track began anew.
    pub breaks: u64,
    /// Event time from a fix to its decision.
    pub delay: Delay,
    /// Whether decisions are as often right as they say; absent without decisions.
    pub reliability: Option<Reliabilities>,
}

/// Whether decisions are as often right as they say, by what counts as right.
#[derive(Debug, Serialize)]
pub(super) struct Reliabilities {
    /// As `strict_ratio` counts.
    pub strict: Reliability,
    /// As `lenient_ratio` counts.
    pub lenient: Reliability,
    /// As `on_route_ratio` counts.
    pub on_route: Reliability,
}

/// Event time from a fix to its decision, in seconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Delay {
    /// Decisions before the end of their trace.
    pub n: u64,
    /// Decisions that the end of the trace brought about; they are not in the figures below.
    pub at_end: u64,
    /// Median.
    pub p50_s: Option<f64>,
    /// 90th percentile.
    pub p90_s: Option<f64>,
    /// 99th percentile.
    pub p99_s: Option<f64>,
    /// Longest.
    pub max_s: Option<f64>,
}

impl TracesArgs {
    /// Matches, scores and prints the report.
    ///
    /// # Errors
    /// A bad configuration, a map or traces that cannot be read, or traces without truth.
    pub(super) fn run(self, global: &Global) -> anyhow::Result<()> {
        let settings = global.configure(&[])?.config.locate;
        let report = self.evaluate(settings)?;
        let text = if global.json {
            serde_json::to_string_pretty(&report)?
        } else {
            report.to_string()
        };
        Ok(cli::print(&text)?)
    }

    fn evaluate(&self, settings: Settings) -> anyhow::Result<TracesReport> {
        let network = Arc::new(Network::load(&self.map).with_context(|| self.map.display().to_string())?);
        let (lag_s, settle_s) = (settings.lag_s, settings.settle_s);
        let map_version = network.version().to_owned();
        let mut driver = Driver {
            matcher: Matcher::new(network, settings, self.lag.into()),
            settle_s: (self.lag == Wait::Online).then_some(settle_s),
        };
        let mut sums: BTreeMap<usize, Sums> = BTreeMap::new();
        for path in &self.traces {
            for trace in traces::read(path)? {
                ensure!(
                    !trace.truth.is_empty() && !trace.route.is_empty(),
                    "{}: trace {} has no truth to be scored against; `viaflux simulate traces` makes such that have",
                    path.display(),
                    trace.id
                );
                let mut gaps = Gaps::default();
                for pair in trace.fixes.windows(2) {
                    gaps.add(pair[1].time.since(pair[0].time));
                }
                let class = gaps
                    .class()
                    .with_context(|| format!("{}: trace {} is a single point", path.display(), trace.id))?;
                let matched = driver.drive(&trace);
                sums.entry(class).or_default().add(&trace, &matched);
            }
        }
        let mut all = Sums::default();
        sums.values().for_each(|s| all.merge(s));
        Ok(TracesReport {
            map_version,
            lag: if self.lag == Wait::Online {
                "online"
            } else {
                "full"
            },
            lag_s,
            settle_s,
            all: all.scores(None),
            intervals: sums
                .iter()
                .map(|(&class, s)| s.scores(Some(CLASSES_S[class])))
                .collect(),
        })
    }
}

/// What the matcher made of a trace.
#[derive(Clone, Debug, Default)]
struct Matched {
    /// By point: way, direction and posterior in permille.
    places: Vec<Option<(Way, u16)>>,
    /// By point: ms from the fix to its decision; `None` if the end of the trace brought it about.
    delays_ms: Vec<Option<i64>>,
    route: Vec<(Way, f64)>,
    breaks: u64,
}

/// Drives traces through the matcher as the engine does: fix by fix, with a timer of event time between them.
struct Driver {
    matcher: Matcher,
    /// When the timer runs out, if there is one.
    settle_s: Option<u32>,
}

impl Driver {
    fn drive(&mut self, trace: &Trace) -> Matched {
        let (mut track, mut out) = (Track::default(), Decisions::default());
        let mut matched = Matched::default();
        for fix in &trace.fixes {
            if let Some(settle_s) = self.settle_s {
                while let Some(due) = track.due(settle_s).filter(|due| *due < fix.time) {
                    self.matcher.expire(&mut track, due.plus_ms(1), &mut out);
                    matched.note(&out, Some(due));
                }
            }
            self.matcher.push(&mut track, *fix, &mut out);
            matched.note(&out, Some(fix.time));
        }
        self.matcher.finish(&mut track, &mut out);
        matched.note(&out, None);
        for decision in &out.fixes {
            let place = decision.place.as_ref().ok();
            let network = self.matcher.network();
            matched
                .places
                .push(place.map(|p| (traces::named(network, p.segment), p.posterior_permille)));
            if let Some(place) = place {
                traces::drive_to(network, place, out.way(place), &mut matched.route);
            }
        }
        matched.breaks = out.breaks;
        matched
    }
}

impl Matched {
    /// Notes that everything decided since the last time was decided at a moment.
    fn note(&mut self, out: &Decisions, now: Option<EventTime>) {
        let new = &out.fixes[self.delays_ms.len()..];
        self.delays_ms
            .extend(new.iter().map(|d| now.map(|now| now.since(d.fix.time))));
    }
}

/// Counts over traces.
#[derive(Clone, Debug, Default)]
struct Sums {
    traces: u64,
    points: u64,
    strict: u64,
    lenient: u64,
    on_route: u64,
    on_way: u64,
    unlocated: u64,
    true_m: f64,
    decided_m: f64,
    /// Metres driven and decided on the same way and direction.
    common_m: f64,
    breaks: u64,
    delays_ms: Vec<i64>,
    at_end: u64,
    /// Strictly, leniently, on the route.
    reliability: [Tally; 3],
}

impl Sums {
    fn add(&mut self, trace: &Trace, matched: &Matched) {
        self.traces += 1;
        self.points += trace.truth.len() as u64;
        let (driven, decided) = (by_way(&trace.route), by_way(&matched.route));
        for ((way, near), place) in trace.truth.iter().zip(&matched.places) {
            let Some((place, posterior)) = place else {
                self.unlocated += 1;
                continue;
            };
            let strict = place == way;
            let lenient = strict || near.contains(place);
            self.strict += u64::from(strict);
            let on_route = lenient || driven.contains_key(place);
            self.lenient += u64::from(lenient);
            self.on_route += u64::from(on_route);
            self.on_way += u64::from(place.0 == way.0);
            for (tally, right) in self.reliability.iter_mut().zip([strict, lenient, on_route]) {
                tally.add(*posterior, right);
            }
        }
        self.true_m += driven.values().sum::<f64>();
        self.decided_m += decided.values().sum::<f64>();
        let common = |(way, m): (&Way, &f64)| decided.get(way).map_or(0.0, |d| d.min(*m));
        self.common_m += driven.iter().map(common).sum::<f64>();
        self.breaks += matched.breaks;
        self.delays_ms.extend(matched.delays_ms.iter().flatten());
        self.at_end += matched.delays_ms.iter().filter(|d| d.is_none()).count() as u64;
    }

    fn merge(&mut self, other: &Sums) {
        self.traces += other.traces;
        self.points += other.points;
        self.strict += other.strict;
        self.lenient += other.lenient;
        self.on_route += other.on_route;
        self.on_way += other.on_way;
        self.unlocated += other.unlocated;
        self.true_m += other.true_m;
        self.decided_m += other.decided_m;
        self.common_m += other.common_m;
        self.breaks += other.breaks;
        self.delays_ms.extend(&other.delays_ms);
        self.at_end += other.at_end;
        let tallies = self.reliability.iter_mut().zip(&other.reliability);
        tallies.for_each(|(mine, theirs)| mine.merge(theirs));
    }

    fn scores(&self, interval_s: Option<u32>) -> Scores {
        let of_points = |n| ratio(n, self.points);
        let over = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let plus = self.decided_m - self.common_m;
        let minus = self.true_m - self.common_m;
        let [strict, lenient, on_route] = self.reliability.each_ref().map(Tally::report);
        let reliability = strict.zip(lenient).zip(on_route);
        Scores {
            interval_s,
            traces: self.traces,
            points: self.points,
            strict_ratio: of_points(self.strict),
            lenient_ratio: of_points(self.lenient),
            on_route_ratio: of_points(self.on_route),
            on_way_ratio: of_points(self.on_way),
            unlocated_ratio: of_points(self.unlocated),
            true_m: self.true_m,
            rmf: over(plus + minus, self.true_m),
            d_plus: over(plus, self.true_m),
            d_minus: over(minus, self.true_m),
            recall: over(self.common_m, self.true_m),
            precision: over(self.common_m, self.decided_m),
            breaks: self.breaks,
            delay: delay(self.delays_ms.clone(), self.at_end),
            reliability: reliability.map(|((strict, lenient), on_route)| Reliabilities {
                strict,
                lenient,
                on_route,
            }),
        }
    }
}

/// Metres on each way and direction, in a defined order.
fn by_way(route: &[(Way, f64)]) -> BTreeMap<Way, f64> {
    let mut sums = BTreeMap::new();
    for (way, metres) in route {
        *sums.entry(*way).or_default() += metres;
    }
    sums
}

fn delay(mut ms: Vec<i64>, at_end: u64) -> Delay {
    ms.sort_unstable();
    // The least delay that at least so many percent of the decisions keep to.
    let percentile = |p: usize| {
        let rank = (ms.len() * p).div_ceil(100).max(1);
        ms.get(rank - 1).map(|&ms| ms as f64 / 1000.0)
    };
    Delay {
        n: ms.len() as u64,
        at_end,
        p50_s: percentile(50),
        p90_s: percentile(90),
        p99_s: percentile(99),
        max_s: percentile(100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locate::Fix;
    use crate::units::Position;

    fn trace(truth: &[(Way, &[Way])], route: &[(Way, f64)]) -> Trace {
        let fix = |k: usize| Fix {
            time: EventTime::from_ms(k as i64 * 5000),
            position: Position::from_degrees(50.0, 8.0).unwrap(),
            speed: None,
            heading: None,
            accuracy_mm: None,
            bus_roads: false,
            id: k as u64,
        };
        Trace {
            id: 0,
            fixes: (0..truth.len()).map(fix).collect(),
            truth: truth.iter().map(|(w, near)| (*w, near.to_vec())).collect(),
            route: route.to_vec(),
        }
    }

    #[test]
    fn points_are_right_by_way_and_direction_and_near_junctions_by_the_neighbour() {
        let truth: [(Way, &[Way]); 5] = [
            ((7, 1), &[]),
            ((7, 1), &[]),
            ((7, 1), &[(8, -1)]),
            ((8, -1), &[(7, 1)]),
            ((8, -1), &[]),
        ];
        let trace = trace(&truth, &[((8, 1), 5.0), ((7, 1), 100.0)]);
        let matched = Matched {
            places: vec![
                Some(((7, 1), 1000)), // right
                Some(((7, -1), 950)), // the way, but not the direction
                Some(((8, -1), 700)), // the neighbour
                Some(((8, 1), 500)),  // the neighbour's way, but the wrong direction of this one
                None,
            ],
            delays_ms: vec![Some(0), Some(30_000), Some(30_000), None, None],
            ..Matched::default()
        };
        let mut sums = Sums::default();
        sums.add(&trace, &matched);
        let scores = sums.scores(None);
        assert_eq!(scores.strict_ratio, Some(0.2));
        assert_eq!(scores.lenient_ratio, Some(0.4));
        assert_eq!(
            scores.on_route_ratio,
            Some(0.6),
            "the wrong direction is not on the route"
        );
        assert_eq!(scores.on_way_ratio, Some(0.6));
        assert_eq!(scores.unlocated_ratio, Some(0.2));
        let reliability = scores.reliability.unwrap();
        let strict = reliability.strict;
        assert_eq!((strict.all.n, strict.all.right_ratio), (4, Some(0.25)));
        assert_eq!((strict.sure.n, strict.sure.right_ratio), (2, Some(0.5)));
        assert_eq!(strict.bins[2].right_ratio, Some(0.0));
        assert_eq!(reliability.lenient.bins[2].right_ratio, Some(1.0));
        assert_eq!(reliability.on_route.all.right_ratio, Some(0.75));
        assert_eq!((scores.delay.n, scores.delay.at_end), (3, 2));
    }

    #[test]
    fn what_is_decided_too_much_is_told_from_what_is_missed() {
        // Driven 100 m, of which 80 m were decided, and 30 m (10 m in the wrong direction) were made up.
        let driven = [((7, 1), 50.0), ((8, 1), 30.0), ((7, 1), 20.0)];
        let decided = vec![((7, 1), 60.0), ((8, 1), 50.0), ((7, -1), 10.0)];
        let mut sums = Sums::default();
        let matched = Matched {
            route: decided,
            breaks: 2,
            ..Matched::default()
        };
        sums.add(&trace(&[((7, 1), &[])], &driven), &matched);
        let scores = sums.scores(Some(5));
        let near = |value: Option<f64>, expected: f64| {
            assert!((value.unwrap() - expected).abs() < 1e-9, "{value:?} {expected}");
        };
        // Way 7: 70 driven, 60 decided; way 8: 30 driven, 50 decided; way 7 against its nodes: 10 decided.
        near(scores.d_plus, 0.30);
        near(scores.d_minus, 0.10);
        near(scores.rmf, 0.40);
        near(scores.recall, 0.90);
        near(scores.precision, 90.0 / 120.0);
        assert_eq!(scores.breaks, 2);
        // Two traces: lengths add up, ways of different traces do not help each other.
        let other = Matched {
            route: vec![((8, 1), 100.0)],
            ..Matched::default()
        };
        sums.add(&trace(&[((7, 1), &[])], &[((7, 1), 100.0)]), &other);
        let scores = sums.scores(Some(5));
        near(scores.d_plus, 130.0 / 200.0);
        near(scores.d_minus, 110.0 / 200.0);
    }

    #[test]
    fn delays_are_told_by_nearest_rank() {
        let d = delay((1..=200).rev().map(|s| s * 1000).collect(), 3);
        assert_eq!((d.p50_s, d.p90_s), (Some(100.0), Some(180.0)));
        assert_eq!((d.p99_s, d.max_s), (Some(198.0), Some(200.0)));
        assert_eq!((d.n, d.at_end), (200, 3));
        assert_eq!(delay(Vec::new(), 0).max_s, None);
    }
}
