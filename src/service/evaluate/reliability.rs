//! Is a decision as often right as it says?

use serde::Serialize;

use super::ratio;

/// Lower ends of the bins of posteriors, in permille; the last one ends with 1000.
const BINS: [u16; 7] = [0, 600, 700, 800, 900, 950, 990];
/// From this posterior on, in permille, decisions are called sure.
const SURE: u16 = 900;

/// Decisions by their posterior.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally([Count; BINS.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    n: u64,
    right: u64,
    posteriors: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.n += other.n;
        self.right += other.right;
        self.posteriors += other.posteriors;
    }

    fn row(self, from: u16, to: u16) -> Row {
        Row {
            from: f64::from(from) / 1000.0,
            to: f64::from(to) / 1000.0,
            n: self.n,
            mean_posterior: ratio(self.posteriors, 1000 * self.n),
            right_ratio: ratio(self.right, self.n),
        }
    }
}

/// How often decisions were right, by what they said of themselves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reliability {
    /// Bins of posteriors, the lowest first.
    pub bins: Vec<Row>,
    /// All decisions with a posterior of at least 0.9.
    pub sure: Row,
    /// All decisions.
    pub all: Row,
}

/// Decisions whose posterior lies from `from` to below `to` (with it, if it is 1).
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Row {
    /// Least posterior.
    pub from: f64,
    /// Greatest posterior.
    pub to: f64,
    /// Decisions.
    pub n: u64,
    /// Mean of their posteriors.
    pub mean_posterior: Option<f64>,
    /// Share of them on the true way in the true direction.
    pub right_ratio: Option<f64>,
}

impl Tally {
    /// Takes a decision.
    pub(super) fn add(&mut self, posterior_permille: u16, right: bool) {
        let bin = BINS.partition_point(|&from| from <= posterior_permille) - 1;
        self.0[bin].add(Count {
            n: 1,
            right: u64::from(right),
            posteriors: u64::from(posterior_permille),
        });
    }

    /// Takes all decisions of another one.
    pub(super) fn merge(&mut self, other: &Tally) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| a.add(*b));
    }

    /// The table; `None` without decisions.
    pub(super) fn report(&self) -> Option<Reliability> {
        let from_on = |least: u16| {
            let mut sum = Count::default();
            for (_, count) in BINS.iter().zip(&self.0).filter(|(from, _)| **from >= least) {
                sum.add(*count);
            }
            sum.row(least, 1000)
        };
        let ends = BINS[1..].iter().copied().chain([1000]);
        let bins = BINS.iter().zip(ends).zip(&self.0);
        let all = from_on(0);
        (all.n > 0).then(|| Reliability {
            bins: bins.map(|((&from, to), count)| count.row(from, to)).collect(),
            sure: from_on(SURE),
            all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_counted_by_what_they_say() {
        let mut tally = Tally::default();
        assert!(tally.report().is_none());
        for (posterior, right) in [(0, false), (599, true), (600, true), (899, false)] {
            tally.add(posterior, right);
        }
        let mut other = Tally::default();
        for (posterior, right) in [(900, true), (949, false), (990, true), (1000, true)] {
            other.add(posterior, right);
        }
        tally.merge(&other);
        let report = tally.report().unwrap();
        let n: Vec<u64> = report.bins.iter().map(|b| b.n).collect();
        assert_eq!(n, [2, 1, 0, 1, 2, 0, 2]);
        assert_eq!((report.bins[0].from, report.bins[0].to), (0.0, 0.6));
        assert_eq!((report.bins[6].from, report.bins[6].to), (0.99, 1.0));
        assert_eq!(report.bins[0].right_ratio, Some(0.5));
        assert_eq!(report.bins[0].mean_posterior, Some(0.2995));
        assert_eq!(report.bins[2].mean_posterior, None);
        assert_eq!((report.sure.n, report.sure.right_ratio), (4, Some(0.75)));
        assert_eq!((report.all.n, report.all.right_ratio), (8, Some(0.625)));
    }
}
