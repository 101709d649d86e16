//! service

pub mod simulate;
