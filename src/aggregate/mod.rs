//! aggregate: from travel of single vehicles and sensor intervals to the flow of segments and links.

mod settings;

pub use settings::Settings;
