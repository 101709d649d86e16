//! Seeded randomness: one independent ChaCha stream for each purpose, so that asking for more of one thing
//! (say, another sensor) does not change another (the traffic).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream is for. The number is the stream of ChaCha, so the order here must not change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    City,
    Traffic,
    Probes,
    Sensors,
    Incidents,
    Traces,
}

/// A stream of random numbers, fixed by seed and purpose on every platform.
#[derive(Clone, Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub(super) fn new(seed: u64, purpose: Purpose) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(purpose as u64);
        Self(rng)
    }

    /// Uniform in [0, 1), with 53 bits.
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// A whole number in 0..n (`n` ≥ 1).
    pub(super) fn below(&mut self, n: usize) -> usize {
        // The bias of multiply-and-shift is below 2^-32 for the small ranges used here.
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Standard normal (Box–Muller, the cosine half).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// Exponential with the given mean.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_and_independent() {
        let draw = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            (dice.below(1 << 30), dice.below(1 << 30))
        };
        assert_eq!(draw(1, Purpose::City), draw(1, Purpose::City));
        assert_ne!(draw(1, Purpose::City), draw(1, Purpose::Traffic));
        assert_ne!(draw(1, Purpose::City), draw(2, Purpose::City));
    }

    #[test]
    fn moments_are_right() {
        let mut dice = Dice::new(7, Purpose::Probes);
        let n = 20_000;
        let normal: Vec<f64> = (0..n).map(|_| dice.normal()).collect();
        let mean = normal.iter().sum::<f64>() / f64::from(n);
        let variance = normal.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        let exponential = (0..n).map(|_| dice.exponential(3.0)).sum::<f64>() / f64::from(n);
        assert!((exponential - 3.0).abs() < 0.1, "{exponential}");
        assert!((0..n).all(|_| dice.below(3) < 3));
    }
}
