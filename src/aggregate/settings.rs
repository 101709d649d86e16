use serde::{Deserialize, Serialize};

/// Settings of aggregate (section `[aggregate]`; algorithms §3.2, §3.3, §4). All of them can change results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct Settings {
    /// Smallest bucket of event time, in seconds.
    pub pane_s: u32,
    /// Closed panes that a state looks over, in seconds.
    pub window_s: u32,
    /// Silence after which a segment is unknown, in seconds.
    pub unknown_s: u32,
    /// Blocks of time of which the turns are told, in seconds.
    pub block_s: u32,
    /// How long a stop that may be for passengers counts with `unsure_permille`, in seconds; then it counts as any
    /// other where others surely wait, and not at all where none does.
    pub pickup_unsure_s: u32,
    /// Weight of the time of such a stop, in permille.
    pub unsure_permille: u32,
    /// Vehicles that must pass a standing one for it to be no traffic.
    pub others_pass: u32,
    /// Share of the free-flow speed at which they must pass.
    pub others_ratio: f64,
    /// How long a vehicle stands until the others are asked, in seconds.
    pub passed_s: u32,
    /// How long a vehicle may stand without any to pass it, in seconds, before its time no longer counts.
    pub alone_s: u32,
    /// Vehicles standing on a segment that are a jam, however long it lasts.
    pub jam_vehicles: u32,
    /// Segment shards.
    pub shards: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pane_s: 30,
            window_s: 300,
            unknown_s: 900,
            block_s: 300,
            pickup_unsure_s: 180,
            unsure_permille: 300,
            others_pass: 2,
            others_ratio: 0.5,
            passed_s: 180,
            alone_s: 300,
            jam_vehicles: 2,
            shards: 16,
        }
    }
}
