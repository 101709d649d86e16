//! source: where records come from.

pub mod event_log;
#[cfg(feature = "kafka")]
pub mod kafka;
