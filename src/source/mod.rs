//! source: where records come from. All doors give [`Batch`](crate::engine::Batch)es; behind them the code is
//! the same.

pub mod event_log;
pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod traces;
