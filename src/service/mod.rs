//! service: gives the engine real time, threads and doors.

#[cfg(feature = "kafka")]
pub mod brokers;
#[cfg(feature = "kafka")]
pub mod produce;
#[cfg(feature = "kafka")]
pub mod record;
#[cfg(feature = "kafka")]
pub mod rekey;
