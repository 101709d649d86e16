use serde::{Deserialize, Serialize};

use super::sensor::SensorSettings;

/// Settings of assess (section `[assess]`; algorithms §6, §7, §11). All of them can change results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct Settings {
    /// What a published state needs.
    pub state: StateSettings,
    /// Congestion alerts.
    pub alert: AlertSettings,
    /// Health of roadside sensors.
    pub sensor: SensorSettings,
    /// Obstructions: `incident_suspected` and `closure_suspected`.
    pub obstruction: ObstructionSettings,
    /// Region indices.
    pub region: RegionSettings,
}

/// Section `[assess.state]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct StateSettings {
    /// Effective number of contributions from which a segment's own window is `live`.
    pub segment_own_n: f64,
    /// Closed panes in which the last observation must lie for `live`.
    pub live_panes: u32,
    /// Coefficient of variation of pace on urban roads, motorways, and segments shorter than 150 m that end
    /// at a signal.
    pub cv_urban: f64,
    /// See `cv_urban`.
    pub cv_motorway: f64,
    /// See `cv_urban`.
    pub cv_short: f64,
    /// Coefficient of variation of a sensor's speed for the stretch that it stands for.
    pub cv_sensor: f64,
}

/// Section `[assess.alert]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct AlertSettings {
    /// Speed ratio at or below which a link is congested.
    pub open_ratio: f64,
    /// Speed ratio at or above which it is free again.
    pub close_ratio: f64,
    /// Minutes of `open_of_min[1]` in which the condition must hold: `[3, 4]`.
    pub open_of_min: [u32; 2],
    /// Minutes without a break in which it must be free again.
    pub close_min: u32,
    /// Minutes without data after which an open alert is marked stale.
    pub stale_min: u32,
    /// Distinct vehicles (or a sensor) that the evidence needs.
    pub vehicles_min: u32,
    /// Least length of an alert, in metres.
    pub min_m: u32,
    /// Minutes after the resolution in which the same place reopens the same alert.
    pub reopen_min: u32,
    /// Least event time between two updates of an alert, in minutes.
    pub update_min: u32,
    /// Most open alerts.
    pub open_alerts_max: u32,
}

/// Section `[assess.obstruction]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct ObstructionSettings {
    /// Seconds that one vehicle at least must have stood on the segment that nobody leaves.
    pub standing_s: u32,
    /// Vehicles that must stand there and before it, each for half a minute or more.
    pub vehicles_min: u32,
    /// Seconds in which nobody may have passed.
    pub silence_s: u32,
    /// Passages in the quarter of an hour before that make them usual.
    pub passages_min: u32,
    /// Metres beyond the segment in which nobody may stand: else the queue begins farther on.
    pub beyond_m: u32,
    /// The first vehicle stands so many metres before the end of the segment, or more: `incident_suspected`, else
    /// `closure_suspected`.
    pub stop_line_m: u32,
    /// Points that open `incident_suspected`.
    pub incident_score: f64,
    /// Points that open `closure_suspected`.
    pub closure_score: f64,
}

/// Section `[assess.region]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct RegionSettings {
    /// Share of a region's length that must be live or blended before an index is given.
    pub coverage_min: f64,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            segment_own_n: 3.0,
            live_panes: 4,
            cv_urban: 0.35,
            cv_motorway: 0.20,
            cv_short: 0.50,
            cv_sensor: 0.20,
        }
    }
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            open_ratio: 0.40,
            close_ratio: 0.55,
            open_of_min: [3, 4],
            close_min: 5,
            stale_min: 15,
            vehicles_min: 2,
            min_m: 150,
            reopen_min: 10,
            update_min: 1,
            open_alerts_max: 10_000,
        }
    }
}

impl Default for ObstructionSettings {
    fn default() -> Self {
        Self {
            standing_s: 60,
            vehicles_min: 2,
            silence_s: 120,
            passages_min: 6,
            beyond_m: 300,
            stop_line_m: 25,
            incident_score: 3.5,
            closure_score: 4.5,
        }
    }
}

impl Default for RegionSettings {
    fn default() -> Self {
        Self { coverage_min: 0.6 }
    }
}
