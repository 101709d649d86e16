use serde::{Deserialize, Serialize};

/// Settings of publish (section `[publish]`). None of them changes the digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "service", derive(schemars::JsonSchema))]
pub struct Settings {
    /// Event time after which an unchanged state is told again, in seconds.
    pub heartbeat_s: u32,
    /// Change of the speed ratio that is told, in permille.
    pub ratio_step_permille: u32,
    /// Write every segment that is not unknown in every pane.
    pub every_pane: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_s: 60,
            ratio_step_permille: 50,
            every_pane: false,
        }
    }
}
