//! engine: the five stages as deterministic machines, and how they are joined.
//!
//! [`Engine`] takes batches of records and works through them stage by stage: within a stage, partitions and
//! shards are independent machines and run in parallel; between stages everything waits. So the result does
//! not depend on the number of threads, a batch is the smallest unit of progress, and between two batches
//! all state is at rest: a checkpoint is one consistent cut without any further protocol.

mod batch;
mod checkpoint;
mod machine;

pub use batch::{Batch, LogIndex, Record};
pub use checkpoint::CheckpointError;
pub use machine::{ClosedPane, Engine, LogSpec, Output, Placed, Refusal, Seen, Setup, Stage, Stopwatch};

/// Version of the logic that turns records into results. A checkpoint of another version is refused.
pub const LOGIC_VERSION: u32 = 4;
