//! What a vehicle cannot have done: positions out of reach of the last one, and receivers that repeat an
//! old position (reference: data faults, *GPS jump* and *frozen position*).

use super::{Fix, Settings};
use crate::units::Position;

/// Share of the distance driven by which dead reckoning may miss (curves, turns, changing speed).
const RECKONING_SHARE: f64 = 0.25;
/// Growth of that miss with the square of time, in m/s²: unknown accelerations.
const RECKONING_ACCEL: f64 = 0.5;

/// Whether `b` can follow `a` in the same vehicle.
///
/// If both report how they move, `b` must lie near where `a` was going: a fix 60 m off the track is an
/// outlier at 5 s, long before its implied speed is impossible.
pub(super) fn follows(a: &Fix, b: &Fix, settings: &Settings) -> bool {
    let dt = b.time.since(a.time) as f64 / 1000.0;
    let straight = a.position.distance_m(b.position);
    let slack = f64::from(settings.outlier_m);
    if straight > f64::from(settings.max_speed_mps) * dt + slack {
        return false;
    }
    let (Some((ae, an)), Some((be, bn))) = (
        velocity(a, settings.heading_min_mps),
        velocity(b, settings.heading_min_mps),
    ) else {
        return true;
    };
    let (east, north) = offset_m(a.position, b.position);
    let (miss_e, miss_n) = (east - (ae + be) / 2.0 * dt, north - (an + bn) / 2.0 * dt);
    let miss = libm::sqrt(miss_e * miss_e + miss_n * miss_n);
    let speed = (libm::sqrt(ae * ae + an * an)).max(libm::sqrt(be * be + bn * bn));
    miss <= slack + RECKONING_SHARE * speed * dt + RECKONING_ACCEL * dt * dt
}

/// Whether `b` repeats the coordinates of `a` while it reports to be moving.
pub(super) fn frozen(a: &Fix, b: &Fix, settings: &Settings) -> bool {
    a.position == b.position
        && b.speed
            .is_some_and(|v| f64::from(v) / 1000.0 > settings.frozen_min_mps)
}

/// Velocity (east, north) in m/s, `None` if the fix does not tell it. Below `slow_mps` it counts as none: a heading
/// says nothing there, and a few metres do not matter.
pub(super) fn velocity(fix: &Fix, slow_mps: f64) -> Option<(f64, f64)> {
    let speed = f64::from(fix.speed?) / 1000.0;
    if speed < slow_mps {
        return Some((0.0, 0.0));
    }
    let heading = fix.heading?.degrees().to_radians();
    Some((speed * libm::sin(heading), speed * libm::cos(heading)))
}

/// Metres of a degree of latitude on the sphere of the mean radius.
pub(super) const M_PER_DEGREE: f64 = 111_195.08;

/// From `a` to `b` in metres (east, north); flat, for distances of a few kilometres.
pub(super) fn offset_m(a: Position, b: Position) -> (f64, f64) {
    (
        (b.lon() - a.lon()) * M_PER_DEGREE * libm::cos(a.lat().to_radians()),
        (b.lat() - a.lat()) * M_PER_DEGREE,
    )
}
