//! locate: from positions to travel on segments.

mod settings;

pub use settings::Settings;
