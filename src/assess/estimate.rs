//! One number for the speed of a piece of road, from probes and sensors, and how sure it is.

use super::StateSettings;
use crate::network::{RoadClass, Segment, SegmentFlags};

/// Least ratio of an estimate: at a standstill Σ distance / Σ time is 0, and its logarithm and travel time are
/// infinite. 2 % of free flow are about 1 km/h in a city.
pub(super) const RATIO_MIN: f64 = 0.02;

/// Speed ratio with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    /// Speed by free-flow speed.
    pub(super) ratio: f64,
    /// Standard error of the ratio, relative to it.
    pub(super) error: f64,
    /// Share of the probes in the weight, 0 to 1.
    pub(super) probe_share: f64,
    /// Effective number of contributions, a sensor counting with the probes that it outweighs.
    pub(super) effective: f64,
    /// How wide the prior is: its variance over that between vehicles. 1 where nothing was learned.
    pub(super) prior: f64,
}

/// Coefficient of variation of pace between vehicles (algorithms §3.3).
pub(super) fn variation(segment: &Segment, settings: &StateSettings) -> f64 {
    match segment.class {
        RoadClass::Motorway | RoadClass::MotorwayLink | RoadClass::Trunk => settings.cv_motorway,
        _ if segment.length_mm < 150_000 && segment.flags.has(SegmentFlags::SIGNAL_END) => settings.cv_short,
        _ => settings.cv_urban,
    }
}

/// Brings probes and sensors together by the inverse of their relative variance (algorithms §3.7; relative,
/// because an absolute one would favour whichever is slower). `probes` is (ratio, effective number),
/// `sensors` (ratio, their number).
pub(super) fn fuse(
    probes: Option<(f64, f64)>,
    sensors: Option<(f64, f64)>,
    cv: f64,
    settings: &StateSettings,
) -> Option<Estimate> {
    let (rp, np) = probes.filter(|p| p.1 > 0.0).unwrap_or((0.0, 0.0));
    let (rs, ns) = sensors.filter(|s| s.1 > 0.0).unwrap_or((0.0, 0.0));
    let (wp, ws) = (np / (cv * cv), ns / (settings.cv_sensor * settings.cv_sensor));
    let weight = wp + ws;
    if weight <= 0.0 {
        return None;
    }
    Some(Estimate {
        ratio: ((rp * wp + rs * ws) / weight).max(RATIO_MIN),
        error: 1.0 / libm::sqrt(weight),
        probe_share: wp / weight,
        effective: weight * cv * cv,
        prior: 1.0,
    })
}

impl Estimate {
    /// The same with the prior of a baseline: `learned` is the variation of the speed in this slot in permille,
    /// `cv` that between vehicles.
    pub(super) fn knowing(self, learned: Option<u32>, cv: f64) -> Self {
        let Some(learned) = learned else { return self };
        let spread = f64::from(learned) / 1000.0;
        Self {
            prior: spread * spread / (cv * cv),
            ..self
        }
    }

    /// 1 − Var_post / Var_prior in permille, where 1 / Var_post = 1 / Var_prior + effective / Var_vehicles
    /// (algorithms §3.3).
    pub(super) fn confidence_permille(&self) -> u32 {
        let known = self.effective * self.prior;
        (1000.0 * known / (1.0 + known)).round() as u32
    }

    /// The ratio drawn towards the usual one (`typical_permille`; free flow where nothing was learned) by what
    /// is not known: on the logarithmic scale, by the share that the confidence leaves. For pieces of road with
    /// too few observations of their own, where one vehicle at a red light would otherwise be a standstill.
    pub(super) fn shrunk(self, typical_permille: u32) -> Self {
        let known = self.effective * self.prior;
        let confidence = known / (1.0 + known);
        let usual = libm::log((f64::from(typical_permille) / 1000.0).max(RATIO_MIN));
        let seen = libm::log(self.ratio.max(RATIO_MIN));
        let ratio = libm::exp(confidence * seen + (1.0 - confidence) * usual);
        Self { ratio, ..self }
    }

    /// Upper bound of the 90 % interval of the ratio, in permille.
    pub(super) fn upper_permille(&self) -> u32 {
        (1000.0 * self.ratio * (1.0 + 1.645 * self.error))
            .round()
            .min(1e6) as u32
    }

    /// The ratio in permille.
    pub(super) fn ratio_permille(&self) -> u32 {
        (1000.0 * self.ratio).round().min(1e6) as u32
    }
}
