//! Dead reckoning between fixes: speed and heading say how far a vehicle came, and what the receiver's noise
//! adds to that averages out. A Kalman filter of the position alone, with one variance for both axes.
//!
//! Noise that lasts longer than a few fixes passes unchanged, as it must: nothing in the data tells it from
//! movement.

use serde::{Deserialize, Serialize};

use super::kinematics::{M_PER_DEGREE, offset_m, velocity};
use super::{Fix, Settings, emission};
use crate::units::Position;

/// Filtered position of a vehicle and its variance in m².
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Filter {
    /// The fix that it follows.
    pub(super) last: Fix,
    pub(super) position: Position,
    variance: f32,
}

impl Filter {
    pub(super) fn new(fix: Fix, settings: &Settings) -> Self {
        let sigma = emission::sigma_m(&fix, settings);
        Self {
            last: fix,
            position: fix.position,
            variance: (sigma * sigma) as f32,
        }
    }

    /// Takes the next fix and gives its filtered position.
    pub(super) fn push(&mut self, fix: Fix, settings: &Settings) -> Position {
        *self = match (
            velocity(&self.last, settings.dwell_speed_mps),
            velocity(&fix, settings.dwell_speed_mps),
        ) {
            (Some(a), Some(b)) => self.reckon(fix, a, b, settings),
            _ => Self::new(fix, settings),
        };
        self.position
    }

    fn reckon(&self, fix: Fix, a: (f64, f64), b: (f64, f64), settings: &Settings) -> Self {
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
        let before = f64::from(self.variance) + miss * miss;
        let k_lat = M_PER_DEGREE;
        let k_lon = M_PER_DEGREE * libm::cos(self.position.lat().to_radians());
        let (x, y) = offset_m(self.position, fix.position);
        let (miss_e, miss_n) = (x - ve * dt, y - vn * dt);
        // Farther off than both can explain: speed or heading are wrong, the position is believed.
        if miss_e * miss_e + miss_n * miss_n > 9.0 * (before + noise) {
            return Self::new(fix, settings);
        }
        let gain = before / (before + noise);
        // From the fix back towards where it was reckoned.
        let (lat, lon) = (
            fix.position.lat() - (1.0 - gain) * miss_n / k_lat,
            fix.position.lon() - (1.0 - gain) * miss_e / k_lon,
        );
        let Ok(position) = Position::from_degrees(lat, lon) else {
            return Self::new(fix, settings);
        };
        Self {
            last: fix,
            position,
            variance: (before * (1.0 - gain)) as f32,
        }
    }
}
