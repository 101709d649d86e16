//! The receiver's error, which lasts: what a fix tells anew is only how it differs from the error before.
//!
//! Reflections and the atmosphere displace a receiver for half a minute or more. A road ten metres beside the true one
//! is told from it not by the nearest distance, fix after fix, but by how steady the distance stays where the two part.
//! So each state of the lattice carries what the error must be if it is the true one ([`Drift`]: first-order
//! autoregressive in both axes, a Kalman filter), and how long errors last is learned from each track itself
//! ([`Persistence`]): where it shows white noise, every fix counts by itself.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::units::Bearing;

/// How long an error may last: time constants of the autocorrelation in seconds.
const LASTS_S: [f64; 4] = [1.0, 5.0, 15.0, 40.0];
/// Natural logarithms of what is believed of them before anything was seen, up to a constant.
const BEFORE: [f32; 4] = [1.0, 0.0, 0.0, -1.0];
/// What an observation keeps of its weight with each one after it: receivers come under trees and leave them.
const KEEPS: f32 = 0.95;
/// Square of the farthest surprise that counts, in variances of the widest hypothesis.
const FARTHEST: f64 = 9.0;

/// Log-likelihood below which a hypothesis is worth no computing.
const LEAST: f32 = -12.0;

/// How long the errors of a track last: log-likelihoods of [`LASTS_S`], the best being 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Persistence([f32; 4]);

impl Default for Persistence {
    fn default() -> Self {
        Self(BEFORE)
    }
}

impl Persistence {
    /// Learns from two fixes `dt_s` apart: `miss2` is the square of the distance in metres between the second one
    /// and where dead reckoning puts it from the first, `noise` the variance of a fix per axis, `reckoning` that of
    /// the reckoning (m²).
    pub(super) fn learn(&mut self, miss2: f64, dt_s: f64, noise: f64, reckoning: f64) {
        let miss2 = miss2.min(FARTHEST * (2.0 * noise + reckoning));
        for (weight, lasts_s) in self.0.iter_mut().zip(LASTS_S) {
            // One square metre for what coordinates are rounded to.
            let variance = 2.0 * noise * (1.0 - libm::exp(-dt_s / lasts_s)) + reckoning + 1.0;
            *weight = KEEPS * *weight - (libm::log(variance) + miss2 / (2.0 * variance)) as f32;
        }
        let best = self.0.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.0.iter_mut().for_each(|w| *w -= best);
    }

    /// The share of an error that is still there `dt_s` later, from 0 to 1.
    pub(super) fn share(&self, dt_s: f64) -> f64 {
        let (mut sum, mut share) = (0.0, 0.0);
        for (weight, lasts_s) in self.0.iter().zip(LASTS_S) {
            if *weight > LEAST {
                let p = libm::exp(f64::from(*weight));
                sum += p;
                share += p * libm::exp(-dt_s / lasts_s);
            }
        }
        share / sum
    }
}

/// A direction: components to the east and to the north of a vector of length 1.
pub(super) type Unit = (f64, f64);

/// Sines from 0 to 90 degrees in steps of 1/100 degree, as bearings have them.
static SINES: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let sine = |i: u32| libm::sin((f64::from(i) / 100.0).to_radians()) as f32;
    (0..=9_000).map(sine).collect()
});

/// The direction of a bearing.
pub(super) fn unit(bearing: Bearing) -> Unit {
    let sines = &*SINES;
    let angle = usize::from(bearing.centidegrees());
    let sine = |of: usize| f64::from(sines[of]);
    let within = angle % 9_000;
    let (rising, falling) = (sine(within), sine(9_000 - within));
    match angle / 9_000 {
        0 => (rising, falling),
        1 => (falling, -rising),
        2 => (-rising, -falling),
        _ => (-falling, rising),
    }
}

/// To the right of a direction.
pub(super) fn right(of: Unit) -> Unit {
    (of.1, -of.0)
}

/// The product of two vectors.
pub(super) fn dot(a: (f64, f64), b: (f64, f64)) -> f64 {
    a.0 * b.0 + a.1 * b.1
}

/// Estimate of an error: mean in metres to the east and north, and covariance in m².
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Drift {
    mean: (f64, f64),
    east: f64,
    both: f64,
    north: f64,
}

impl Drift {
    /// Nothing known but the variance per axis.
    pub(super) fn unknown(variance: f64) -> Self {
        Self {
            mean: (0.0, 0.0),
            east: variance,
            both: 0.0,
            north: variance,
        }
    }

    /// The error when `share` of it is left, the rest being new; `variance` is that of errors per axis.
    pub(super) fn later(&self, share: f64, variance: f64) -> Self {
        let square = share * share;
        let new = (1.0 - square) * variance;
        Self {
            mean: (share * self.mean.0, share * self.mean.1),
            east: square * self.east + new,
            both: square * self.both,
            north: square * self.north + new,
        }
    }

    /// Its expected component.
    pub(super) fn mean(&self, along: Unit) -> f64 {
        dot(self.mean, along)
    }

    fn covariance(&self, with: (f64, f64)) -> (f64, f64) {
        (
            self.east * with.0 + self.both * with.1,
            self.both * with.0 + self.north * with.1,
        )
    }

    /// The variance of a component.
    pub(super) fn variance(&self, along: Unit) -> f64 {
        dot(self.covariance(along), along)
    }

    /// Takes an observation that misses what was expected by `miss` and has the variance `variance` in all;
    /// `covariance` is its covariance with the error.
    fn update(&mut self, covariance: (f64, f64), variance: f64, miss: f64) {
        let gain = (covariance.0 / variance, covariance.1 / variance);
        self.mean.0 += gain.0 * miss;
        self.mean.1 += gain.1 * miss;
        self.east -= gain.0 * covariance.0;
        self.both -= gain.0 * covariance.1;
        self.north -= gain.1 * covariance.1;
    }

    /// Learns that a component is `value`, give or take a variance.
    pub(super) fn observe(&mut self, along: Unit, value: f64, noise: f64) {
        let covariance = self.covariance(along);
        let variance = dot(covariance, along) + noise;
        self.update(covariance, variance, value - self.mean(along));
    }

    /// What [`Drift::later`] gives, knowing also that the error along the road, in the direction `was` then and `is`
    /// now, has grown by `grown` metres, give or take a variance; a growth that is not [`believed`] is passed over.
    pub(super) fn later_grown(
        &self,
        (share, variance): (f64, f64),
        (was, is): (Unit, Unit),
        (grown, noise): (f64, f64),
    ) -> Self {
        let mut later = self.later(share, variance);
        // grown = is · later − was · self, later = share · self + new
        let of_self = (share * is.0 - was.0, share * is.1 - was.1);
        let new = (1.0 - share * share) * variance;
        let covariance = self.covariance(of_self);
        let all = dot(covariance, of_self) + new + noise;
        let miss = grown - dot(self.mean, of_self);
        if believed(miss, all) {
            let with_later = (
                share * covariance.0 + new * is.0,
                share * covariance.1 + new * is.1,
            );
            later.update(with_later, all, miss);
        }
        later
    }
}

/// Whether a surprise is within four standard deviations.
pub(super) fn believed(miss: f64, variance: f64) -> bool {
    miss * miss < 16.0 * variance
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: f64 = 49.0;

    /// Fixes a second apart whose reckoning misses by `miss_m` each time.
    fn after(miss_m: f64, n: u32) -> Persistence {
        let mut persistence = Persistence::default();
        for _ in 0..n {
            persistence.learn(miss_m * miss_m, 1.0, NOISE, 0.5);
        }
        persistence
    }

    #[test]
    fn steady_errors_last_and_jumping_ones_do_not() {
        let before = Persistence::default().share(10.0);
        assert!(before > 0.1 && before < 0.4, "{before}");
        assert!(after(2.0, 10).share(10.0) > 0.7);
        assert!(after(14.0, 10).share(10.0) < 0.01);
        // One jump does not make a steady receiver a jumping one for long.
        let mut persistence = after(2.0, 50);
        persistence.learn(400.0, 1.0, NOISE, 0.5);
        for _ in 0..20 {
            persistence.learn(4.0, 1.0, NOISE, 0.5);
        }
        assert!(persistence.share(10.0) > 0.4, "{}", persistence.share(10.0));
    }

    #[test]
    fn directions_are_those_of_the_bearings() {
        for degrees in [0.0, 0.01, 44.99, 90.0, 123.45, 180.0, 269.99, 270.0, 359.99] {
            let (east, north) = unit(Bearing::from_degrees(degrees).unwrap());
            assert!(
                (east - degrees.to_radians().sin()).abs() < 1e-6,
                "{degrees}: {east}"
            );
            assert!(
                (north - degrees.to_radians().cos()).abs() < 1e-6,
                "{degrees}: {north}"
            );
        }
    }

    #[test]
    fn sparse_fixes_say_nothing() {
        let mut persistence = Persistence::default();
        for _ in 0..20 {
            persistence.learn(10_000.0, 30.0, NOISE, 90_000.0);
        }
        assert!((persistence.share(10.0) - Persistence([0.0; 4]).share(10.0)).abs() < 0.15);
    }

    #[test]
    fn what_was_across_one_road_is_along_the_next() {
        let (east, north) = ((1.0, 0.0), (0.0, 1.0));
        let mut drift = Drift::unknown(NOISE);
        drift.observe(north, 6.0, 0.25);
        assert!((drift.mean(north) - 5.97).abs() < 0.01, "{drift:?}");
        assert_eq!(drift.mean(east), 0.0);
        let later = drift.later(0.9, NOISE);
        assert!((later.mean(north) - 0.9 * drift.mean(north)).abs() < 1e-9);
        assert!(later.variance(north) < later.variance(east));
    }

    #[test]
    fn what_grew_along_the_road_was_not_there_before() {
        let east = (1.0, 0.0);
        let (mut known, mut free) = (Drift::unknown(NOISE), Drift::unknown(NOISE));
        for _ in 0..20 {
            known = known.later_grown((0.95, NOISE), (east, east), (0.0, 0.01));
            free = free.later(0.95, NOISE);
        }
        // Errors that do not change over twenty steps are small: else they would have faded.
        assert!(known.variance(east) < 0.7 * free.variance(east), "{known:?}");
        // A jump that nobody believes changes nothing.
        let jump = known.later_grown((0.95, NOISE), (east, east), (500.0, 0.01));
        assert_eq!(jump, known.later(0.95, NOISE));
    }
}
