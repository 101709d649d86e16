//! Dead reckoning between fixes: speed and heading say how far a vehicle came, and what the receiver's noise
//! adds to that averages out. A Kalman filter of the position alone, with one variance for both axes.
//!
//! Noise that lasts longer than a few fixes passes unchanged, as it must: nothing in one fix tells it from
//! movement. [`Persistence`] learns how long it lasts.

use serde::{Deserialize, Serialize};

use super::drift::Persistence;
use super::kinematics::{M_PER_DEGREE, offset_m, velocity};
use super::{Fix, Settings, emission};
use crate::units::Position;

/// Share of `Settings::reckon_mps` and `reckon_share`, which allow for bad days, by which reckoning misses usually.
const USUAL: f64 = 0.5;
/// Error of a reported speed, as a share of it: that of GNSS Doppler speeds in motion.
const SPEED_SHARE: f64 = 0.02;
/// Change of speed that two reports `dt` apart do not show, in m/s² (as a standard deviation: 0.1 m at 1 s, 2.5 m
/// at 5 s, 90 m at 30 s).
const UNSEEN_MPS2: f64 = 0.1;

/// Filtered position of a vehicle and its variance in m².
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Filter {
    /// The fix that it follows.
    pub(super) last: Fix,
    pub(super) position: Position,
    variance: f32,
    pub(super) persistence: Persistence,
}

impl Filter {
    pub(super) fn new(fix: Fix, settings: &Settings) -> Self {
        let sigma = emission::sigma_m(&fix, settings);
        Self {
            last: fix,
            position: fix.position,
            variance: (sigma * sigma) as f32,
            persistence: Persistence::default(),
        }
    }

    /// Takes the next fix and gives its filtered position.
    pub(super) fn push(&mut self, fix: Fix, settings: &Settings) -> Position {
        *self = match (
            velocity(&self.last, settings.dwell_speed_mps),
            velocity(&fix, settings.dwell_speed_mps),
        ) {
            (Some(a), Some(b)) => self.reckon(fix, a, b, settings),
            _ => self.anew(fix, settings),
        };
        self.position
    }

    /// Believes the fix, whatever was reckoned.
    fn anew(&self, fix: Fix, settings: &Settings) -> Self {
        Self {
            persistence: self.persistence,
            ..Self::new(fix, settings)
        }
    }

    fn reckon(&mut self, fix: Fix, a: (f64, f64), b: (f64, f64), settings: &Settings) -> Self {
        let dt = fix.time.since(self.last.time) as f64 / 1000.0;
        let sigma = emission::sigma_m(&fix, settings);
        let noise = sigma * sigma;
        let (ve, vn) = ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0);
        let (de, dn) = (a.0 - b.0, a.1 - b.1);
        // What dead reckoning may miss: a share of the way, a share of the change of velocity, a crawl.
        let miss = dt
            * (settings.reckon_mps
                + settings.reckon_share * libm::sqrt(ve * ve + vn * vn)
                + 0.5 * libm::sqrt(de * de + dn * dn));
        let (x, y) = offset_m(self.last.position, fix.position);
        let (miss_e, miss_n) = (x - ve * dt, y - vn * dt);
        let usual = USUAL * miss;
        self.persistence
            .learn(miss_e * miss_e + miss_n * miss_n, dt, noise, usual * usual);
        let before = f64::from(self.variance) + miss * miss;
        let k_lat = M_PER_DEGREE;
        let k_lon = M_PER_DEGREE * libm::cos(self.position.lat().to_radians());
        let (x, y) = offset_m(self.position, fix.position);
        let (miss_e, miss_n) = (x - ve * dt, y - vn * dt);
        // Farther off than both can explain: speed or heading are wrong, the position is believed.
        if miss_e * miss_e + miss_n * miss_n > 9.0 * (before + noise) {
            return self.anew(fix, settings);
        }
        let gain = before / (before + noise);
        // From the fix back towards where it was reckoned.
        let (lat, lon) = (
            fix.position.lat() - (1.0 - gain) * miss_n / k_lat,
            fix.position.lon() - (1.0 - gain) * miss_e / k_lon,
        );
        let Ok(position) = Position::from_degrees(lat, lon) else {
            return self.anew(fix, settings);
        };
        Self {
            last: fix,
            position,
            variance: (before * (1.0 - gain)) as f32,
            persistence: self.persistence,
        }
    }
}

/// The way that the reported speeds add up to, in metres, and its variance in m².
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Odometer {
    pub(super) way_m: f32,
    pub(super) variance: f32,
}

impl Odometer {
    /// The way from one fix to the next; `None` without their speeds.
    pub(super) fn between(a: &Fix, b: &Fix) -> Option<Self> {
        let dt = b.time.since(a.time) as f64 / 1000.0;
        let (v, w) = (f64::from(a.speed?) / 1000.0, f64::from(b.speed?) / 1000.0);
        let way = (v + w) / 2.0 * dt;
        let error = SPEED_SHARE * way + (v - w).abs() / 4.0 * dt + UNSEEN_MPS2 * dt * dt;
        Some(Self {
            way_m: way as f32,
            variance: (error * error) as f32,
        })
    }

    /// One way after the other.
    pub(super) fn plus(self, next: Self) -> Self {
        Self {
            way_m: self.way_m + next.way_m,
            variance: self.variance + next.variance,
        }
    }
}
