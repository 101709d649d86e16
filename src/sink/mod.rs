//! sink: where publications go.

pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
