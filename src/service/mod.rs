//! service: the command line, the configuration, and what gives the engine real time, threads and doors.

pub mod aside;
pub mod baseline;
pub mod bench;
#[cfg(feature = "kafka")]
pub mod brokers;
pub mod check;
pub mod checkpoints;
pub mod city;
pub mod cli;
pub mod completions;
pub mod config;
pub mod demo;
pub mod driver;
pub mod evaluate;
pub mod files;
pub mod idle;
pub mod journal;
#[cfg(feature = "kafka")]
pub mod live;
pub mod log;
pub mod map;
pub mod matching;
pub mod pace;
pub mod places;
#[cfg(feature = "kafka")]
pub mod produce;
mod progress;
#[cfg(feature = "kafka")]
pub mod record;
pub mod recorded;
#[cfg(feature = "kafka")]
pub mod rekey;
pub mod replay;
pub mod run;
pub mod schema;
mod shell;
pub mod simulate;
pub mod telemetry;
pub mod traces;

/// Most threads that may be asked for: beyond the cores of any machine, and few enough to be started.
const THREADS_MAX: usize = 1024;

/// Reads a number of threads; 0 is one for each core.
pub(crate) fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n <= THREADS_MAX => Ok(n),
        _ => Err(format!(
            "write a number from 0 (one for each core) to {THREADS_MAX}; more threads than cores do not help"
        )),
    }
}

/// Threads of the engine: as asked for, or one for each core.
pub(crate) fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}
