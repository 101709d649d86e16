//! How well the way between two candidates fits the way between two fixes (algorithms §2.2, step 5).

use super::Settings;

/// Scale of the difference between driven and straight distance, in metres, for fixes `dt_s` apart.
pub(super) fn beta_m(dt_s: f64, settings: &Settings) -> f64 {
    (settings.beta0 + settings.beta_per_s * dt_s).clamp(settings.beta0, settings.beta_max)
}

/// How far to search for a way, in mm, for fixes `straight_m` and `dt_s` apart (algorithms §11,
/// `bound_dense`, `bound_sparse`).
pub(super) fn bound_mm(straight_m: f64, dt_s: f64) -> u64 {
    let bound_m = if dt_s <= 10.0 {
        (1.5 * straight_m + 120.0).min(50.0 * dt_s + 200.0)
    } else {
        2.0 * straight_m + 250.0
    };
    (bound_m * 1000.0) as u64
}

/// How far to search where nothing was found within [`bound_mm`] (algorithms §11, `bound_retry`).
pub(super) fn wide_bound_mm(straight_m: f64) -> u64 {
    ((3.0 * straight_m + 500.0).min(3_000.0) * 1000.0) as u64
}

/// Natural logarithm of the likelihood of driving `route_mm` between fixes `straight_m` apart in `dt_s`,
/// up to a constant. `cost_mm` is the route with the router's penalties for U-turns and banned turns.
pub(super) fn score(route_mm: u64, cost_mm: u64, straight_m: f64, dt_s: f64, settings: &Settings) -> f64 {
    let metres = |mm: u64| mm as f64 / 1000.0;
    let penalty = metres(cost_mm.saturating_sub(route_mm));
    -((metres(route_mm) - straight_m).abs() + penalty) / beta_m(dt_s, settings)
}
