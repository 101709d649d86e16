//! sink: where publications go.

#[cfg(feature = "kafka")]
pub mod kafka;
