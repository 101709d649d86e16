//! service: the command line, the configuration, and what gives the engine real time, threads and doors.

pub mod check;
pub mod checkpoints;
pub mod city;
pub mod cli;
pub mod completions;
pub mod config;
pub mod driver;
pub mod evaluate;
pub mod log;
pub mod places;
pub mod replay;
pub mod schema;
