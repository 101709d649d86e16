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
    })
}

impl Estimate {
    /// 1 − Var_post / Var_prior with a prior as wide as the spread between vehicles, in permille.
    pub(super) fn confidence_permille(&self) -> u32 {
        (1000.0 * self.effective / (1.0 + self.effective)).round() as u32
    }

    /// The ratio drawn towards free flow by what is not known: on the logarithmic scale, by the share that the
    /// confidence leaves. For pieces of road with too few observations of their own, where one vehicle at a
    /// red light would otherwise be a standstill.
    pub(super) fn shrunk(self) -> Self {
        let confidence = self.effective / (1.0 + self.effective);
        let ratio = libm::exp(confidence * libm::log(self.ratio.max(RATIO_MIN)));
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
