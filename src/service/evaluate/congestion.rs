//! Is congestion seen where it is?

use serde::Serialize;

use super::cover::Cover;
use super::ratio;
use super::speeds::{Estimates, LONG_MIN};
use super::truth::Truth;

/// Share of the free speed below which truth calls an edge congested (`meta.json`, `congested`).
const CONGESTED: f64 = 0.5;
/// Length from which truth calls an edge congested, in metres.
const LEAST_LENGTH_M: f64 = 30.0;
/// Names of the levels, worst first, with the share of free flow at which the next one begins (DATEX II).
const LEVELS: [(&str, f64); 5] = [
    ("stationary", 0.10),
    ("queuing", 0.25),
    ("slow", 0.75),
    ("heavy", 0.90),
    ("free_flow", f64::INFINITY),
];

/// Congested edge-minutes and levels.
#[derive(Debug, Serialize)]
pub struct CongestionReport {
    /// Congested edge-minutes of the truth that leave the score because their edge has no cover.
    pub uncovered_congested: u64,
    /// Scores by selection of edge-minutes and by the free speed that a ratio is taken to.
    pub scores: Vec<CongestionScore>,
    /// Levels of well used edges over five minutes.
    pub levels: LevelReport,
}

/// How well congested edge-minutes were found.
#[derive(Debug, Serialize)]
pub struct CongestionScore {
    /// `busy`: at least one vehicle on average, where truth's word is defined; `all`: any traffic.
    pub selection: &'static str,
    /// Whose free speed the estimate is compared with: `truth` or `own`.
    pub free_speed: &'static str,
    /// Congested and said so.
    pub hits: u64,
    /// Not congested but said so.
    pub false_alarms: u64,
    /// Congested but not said so (or nothing said).
    pub misses: u64,
    /// Share of what was said that is true.
    pub precision: Option<f64>,
    /// Share of what is true that was said.
    pub recall: Option<f64>,
    /// Harmonic mean of the two.
    pub f1: Option<f64>,
}

/// Levels, true and estimated, both against truth's free speed.
#[derive(Debug, Serialize)]
pub struct LevelReport {
    /// Names of rows and columns.
    pub names: [&'static str; 5],
    /// Edge-minutes by true level (row) and estimated level (column).
    pub confusion: [[u64; 5]; 5],
    /// Share on the diagonal.
    pub agreement: Option<f64>,
    /// Cohen's kappa.
    pub kappa: Option<f64>,
    /// Cohen's kappa with quadratic weights: far misses count more.
    pub weighted_kappa: Option<f64>,
}

/// Compares congestion.
pub(super) fn score(estimates: &Estimates, cover: &Cover, truth: &Truth) -> CongestionReport {
    let mut scores = [("busy", "truth"), ("busy", "own"), ("all", "truth")].map(|(selection, free_speed)| {
        CongestionScore {
            selection,
            free_speed,
            hits: 0,
            false_alarms: 0,
            misses: 0,
            precision: None,
            recall: None,
            f1: None,
        }
    });
    let mut uncovered_congested = 0;
    let mut confusion = [[0; 5]; 5];
    for (e, edge) in (0_u32..).zip(&truth.edges) {
        for k in 0..truth.minute_count {
            let real = truth.minute(e, k);
            if !cover.has(e) {
                uncovered_congested += u64::from(real.congested);
                continue;
            }
            let estimate = estimates.at(e, k);
            if real.seconds > 0.0 && edge.length_m >= LEAST_LENGTH_M {
                for score in &mut scores {
                    if score.selection == "busy" && real.seconds < 60.0 {
                        continue;
                    }
                    let said = estimate.is_some_and(|s| match score.free_speed {
                        "own" => s.own_ratio.is_some_and(|r| r < CONGESTED),
                        _ => s.speed < CONGESTED * edge.free_mps,
                    });
                    match (said, real.congested) {
                        (true, true) => score.hits += 1,
                        (true, false) => score.false_alarms += 1,
                        (false, true) => score.misses += 1,
                        (false, false) => {}
                    }
                }
            }
            // A level needs somebody to have been there for a minute in all.
            let long = truth.window(e, k, LONG_MIN).filter(|m| m.seconds >= 60.0);
            if let (Some(estimate), Some(real)) = (estimate, long.and_then(|m| m.speed())) {
                confusion[level(real / edge.free_mps)][level(estimate.speed / edge.free_mps)] += 1;
            }
        }
    }
    for score in &mut scores {
        score.precision = ratio(score.hits, score.hits + score.false_alarms);
        score.recall = ratio(score.hits, score.hits + score.misses);
        score.f1 = ratio(2 * score.hits, 2 * score.hits + score.false_alarms + score.misses);
    }
    CongestionReport {
        uncovered_congested,
        scores: scores.into(),
        levels: LevelReport::of(confusion),
    }
}

/// Level of a share of free flow, worst first.
fn level(share: f64) -> usize {
    LEVELS
        .iter()
        .position(|(_, next)| share < *next)
        .unwrap_or(LEVELS.len() - 1)
}

impl LevelReport {
    fn of(confusion: [[u64; 5]; 5]) -> Self {
        let all: u64 = confusion.iter().flatten().sum();
        let row = |i: usize| confusion[i].iter().sum::<u64>() as f64;
        let column = |j: usize| confusion.iter().map(|r| r[j]).sum::<u64>() as f64;
        // One less the disagreement over the disagreement that chance alone would give.
        let kappa = |weight: fn(usize, usize) -> f64| {
            let (mut seen, mut chance) = (0.0, 0.0);
            for (i, cells) in confusion.iter().enumerate() {
                for (j, &n) in cells.iter().enumerate() {
                    seen += weight(i, j) * n as f64;
                    chance += weight(i, j) * row(i) * column(j) / all as f64;
                }
            }
            (chance > 0.0).then(|| 1.0 - seen / chance)
        };
        Self {
            names: LEVELS.map(|l| l.0),
            agreement: ratio((0..5).map(|i| confusion[i][i]).sum(), all),
            kappa: kappa(|i, j| f64::from(u8::from(i != j))),
            weighted_kappa: kappa(|i, j| (i.abs_diff(j) as f64).powi(2)),
            confusion,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_datex() {
        let names: Vec<&str> = [0.05, 0.10, 0.25, 0.75, 0.90, 1.3]
            .iter()
            .map(|s| LEVELS[level(*s)].0)
            .collect();
        assert_eq!(
            names,
            ["stationary", "queuing", "slow", "heavy", "free_flow", "free_flow"]
        );
    }

    #[test]
    fn kappa_of_a_known_table() {
        // Cohen's textbook case: agreement 0.7, chance 0.5, kappa 0.4.
        let mut confusion = [[0; 5]; 5];
        confusion[0][0] = 20;
        confusion[0][4] = 5;
        confusion[4][0] = 10;
        confusion[4][4] = 15;
        let report = LevelReport::of(confusion);
        assert!((report.agreement.unwrap() - 0.7).abs() < 1e-12);
        assert!((report.kappa.unwrap() - 0.4).abs() < 1e-12);
        assert!((report.weighted_kappa.unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(LevelReport::of([[0; 5]; 5]).kappa, None);
    }
}
