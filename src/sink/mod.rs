//! sink: where publications go.

pub mod file;
