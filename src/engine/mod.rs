//! engine: the five stages as deterministic machines, and how they are joined.

mod batch;

pub use batch::{Batch, LogIndex, Record};
