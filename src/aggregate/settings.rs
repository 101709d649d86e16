use serde::{Deserialize, Serialize};

/// Settings of aggregate (section `[aggregate]`; algorithms §3.3, §4). All of them can change results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct Settings {
    /// Smallest bucket of event time, in seconds.
    pub pane_s: u32,
    /// Closed panes that a state looks over, in seconds.
    pub window_s: u32,
    /// Silence after which a segment is unknown, in seconds.
    pub unknown_s: u32,
    /// Segment shards.
    pub shards: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pane_s: 30,
            window_s: 300,
            unknown_s: 900,
            shards: 16,
        }
    }
}
