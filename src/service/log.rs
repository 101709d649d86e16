//! The log on stderr. stdout belongs to reports and data.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::cli::Global;
use super::config::{Log, LogFormat};

/// Starts the log as the configuration says, with the flags of the command line over it. Only the first call
/// counts: a process has one log.
pub fn start(settings: &Log, global: &Global) {
    let level = level(&settings.level, global.quiet, global.verbose);
    // Checked with the configuration; the defaults are right by test.
    let filter = level
        .parse::<EnvFilter>()
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(global.color.on(io::stderr().is_terminal()));
    // A second start (in tests) changes nothing.
    let _ = match global.log_format.unwrap_or(settings.format) {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// The filter: `-q` and `-v` over what the configuration says.
fn level(configured: &str, quiet: bool, verbose: u8) -> &str {
    match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => configured,
        // Of other crates debug lines are noise.
        (_, 1) => "info,viaflux=debug",
        _ => "debug,viaflux=trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_lie_over_the_configuration() {
        assert_eq!(level("warn", false, 0), "warn");
        assert_eq!(level("warn", true, 0), "error");
        for verbose in 1..3 {
            assert!(level("warn", false, verbose).parse::<EnvFilter>().is_ok());
        }
        assert!(Log::default().level.parse::<EnvFilter>().is_ok());
    }
}
