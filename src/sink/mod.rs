//! sink: where publications go.

pub mod file;
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lock;
pub mod metrics;
pub mod prometheus;
