//! assess: from flow to states, indices and alerts.

mod settings;

pub use settings::{AlertSettings, RegionSettings, Settings, StateSettings};
