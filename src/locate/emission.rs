//! How well a fix fits a candidate by itself (algorithms §2.2, step 4).

use super::{Fix, Settings};
use crate::network::{Candidate, Network, RoadClass, SegmentFlags};

/// Standard deviation of a fix in metres.
pub(super) fn sigma_m(fix: &Fix, settings: &Settings) -> f64 {
    fix.accuracy_mm.map_or(settings.sigma_m, |a| {
        (f64::from(a) / 1000.0).clamp(settings.sigma_min, settings.sigma_max)
    })
}

/// Natural logarithm of the likelihood of `fix` at `candidate` by its distance alone, up to a constant.
pub(super) fn distance(fix: &Fix, candidate: &Candidate, settings: &Settings) -> f64 {
    let d = f64::from(candidate.distance_mm) / 1000.0 / sigma_m(fix, settings);
    -0.5 * d * d
}

/// The same by all but the distance: its heading, and who may use the road.
pub(super) fn bearing_and_use(
    network: &Network,
    fix: &Fix,
    candidate: &Candidate,
    settings: &Settings,
) -> f64 {
    let mut score = 0.0;
    let speed = fix.speed.map(|v| f64::from(v) / 1000.0);
    // A heading without a speed is believed: feeds leave it out when the vehicle stands.
    if let Some(heading) = fix.heading
        && speed.is_none_or(|v| v > settings.heading_min_mps)
    {
        let slow = speed.is_some_and(|v| v < 5.0);
        let sigma = settings.heading_sigma_deg * if slow { 25.0 / 15.0 } else { 1.0 };
        let a = f64::from(heading.difference(candidate.bearing)) / 100.0 / sigma;
        score += (-0.5 * a * a).max(settings.heading_floor);
    }
    let segment = network.segment(candidate.segment);
    if segment.class == RoadClass::Service {
        score -= 0.5;
    }
    if segment.flags.has(SegmentFlags::BUS_ONLY) && !fix.bus_roads {
        score -= 1.0;
    }
    score
}
