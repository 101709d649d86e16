use serde::{Deserialize, Serialize};

/// Settings of locate (section `[locate]`; algorithms §2, §11). All of them can change results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct Settings {
    /// Greatest speed between two fixes that is believed, in m/s.
    pub max_speed_mps: u32,
    /// Distance from where a vehicle was expected beyond which a fix is held as a possible outlier, in metres.
    pub outlier_m: u32,
    /// Standard deviation of a position, in metres, where the feed gives no accuracy.
    pub sigma_m: f64,
    /// Least and greatest standard deviation taken from a feed's accuracy, in metres.
    pub sigma_min: f64,
    /// See `sigma_min`.
    pub sigma_max: f64,
    /// Greatest distance from a fix to a candidate segment, in metres.
    pub radius_m: u32,
    /// Most candidates of a fix.
    pub k: usize,
    /// Standard deviation of a heading, in degrees.
    pub heading_sigma_deg: f64,
    /// Speed below which a heading says nothing, in m/s.
    pub heading_min_mps: f64,
    /// Least score (natural logarithm) of a heading that does not fit.
    pub heading_floor: f64,
    /// Scale of the difference between driven and straight distance, in metres, at no time between fixes.
    pub beta0: f64,
    /// Its growth per second between fixes.
    pub beta_per_s: f64,
    /// Its greatest value.
    pub beta_max: f64,
    /// Movement against the direction of travel that counts as standing, in metres.
    pub back_tol_m: u32,
    /// How long after a step begins it may still be decided, in seconds: how far locate's promise lies
    /// behind the watermark.
    pub settle_s: u32,
    /// Movement since the last fix that was scored below which a slow vehicle stands, in metres.
    pub thin_m: u32,
    /// Speed below which a vehicle may be standing, in m/s.
    pub dwell_speed_mps: f64,
    /// Distance that a standing vehicle may seem to move, in metres; beyond it a new stop begins.
    pub park_m: u32,
    /// Stop of a vacant taxi after which it is parked, in seconds.
    pub park_s: u32,
    /// Time after which a vehicle with its ignition off is parked, in seconds.
    pub ignition_off_s: u32,
    /// Longest stop of a bus that may be for its passengers, in seconds.
    pub bus_stop_s: u32,
    /// Distance before the stop line of a signal within which a vehicle waits for it, in metres: there no stop
    /// is taken to be for passengers.
    pub line_m: u32,
    /// Silence that ends a track, in seconds.
    pub break_s: u32,
    /// Silence after which a vehicle is forgotten, in seconds.
    pub evict_s: u32,
    /// Least posterior of a step that enters the statistics, in permille.
    pub min_posterior_permille: u32,
    /// Identical positions in a row, with a speed reported, that make a feed frozen.
    pub frozen_fixes: u32,
    /// Reported speed above which identical positions cannot be true, in m/s.
    pub frozen_min_mps: f64,
    /// Farthest that a road may be from a vehicle on it, in metres.
    pub offroad_m: u32,
    /// Seconds between fixes from which each counts fully: errors of fixes nearer in time are correlated.
    pub temper_s: f64,
    /// Least weight of a fix that is kept for the lattice, greatest of one that is not.
    pub temper_min: f64,
    /// What a receiver's error changes by from fix to fix beside its lasting part, as a standard deviation in metres.
    pub drift_noise_m: f64,
    /// Error of dead reckoning per second: a part that is always there, in m/s.
    pub reckon_mps: f64,
    /// Error of dead reckoning per second: a share of the speed.
    pub reckon_share: f64,
    /// How long a fix may wait for what later ones tell about it, in seconds.
    pub lag_s: u32,
    /// Most fixes of a vehicle that wait.
    pub pending_max: usize,
    /// Kept fixes that no way explains, before a track's way begins anew.
    pub skip_points: u8,
    /// Longest time for which they are skipped, in seconds.
    pub skip_s: u32,
    /// Distance beyond the beginning of a segment within which a standing vehicle is still at the stop line before
    /// it, in metres.
    pub dwell_snap_m: u32,
    /// Most vehicles tracked by one lane.
    pub vehicles_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_speed_mps: 60,
            outlier_m: 45,
            sigma_m: 8.0,
            sigma_min: 4.0,
            sigma_max: 25.0,
            radius_m: 60,
            k: 16,
            heading_sigma_deg: 12.0,
            heading_min_mps: 2.5,
            heading_floor: -8.0,
            beta0: 5.0,
            beta_per_s: 0.25,
            beta_max: 12.0,
            back_tol_m: 20,
            settle_s: 60,
            thin_m: 12,
            dwell_speed_mps: 1.5,
            park_m: 30,
            park_s: 300,
            ignition_off_s: 60,
            bus_stop_s: 90,
            line_m: 60,
            break_s: 120,
            evict_s: 3600,
            min_posterior_permille: 600,
            frozen_fixes: 3,
            frozen_min_mps: 2.8,
            offroad_m: 100,
            temper_s: 3.0,
            temper_min: 0.25,
            drift_noise_m: 0.5,
            reckon_mps: 0.5,
            reckon_share: 0.1,
            lag_s: 30,
            pending_max: 128,
            skip_points: 3,
            skip_s: 60,
            dwell_snap_m: 15,
            vehicles_max: 1_000_000,
        }
    }
}
