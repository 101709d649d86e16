//! The command line: its frame, global flags, exit codes, and how errors are told.
//!
//! Each command is a `clap::Args` struct beside its implementation. To plug one in, add a variant to
//! [`Command`] and its arm to `Command::run`.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::config::{self, ConfigError, Loaded, LogFormat, Override};
use super::{
    baseline, bench, check, completions, demo, evaluate, log, map, matching, replay, run, schema, simulate,
};
#[cfg(feature = "kafka")]
use super::{produce, record, rekey};

/// Done.
const DONE: u8 = 0;
/// Failed, or a check that did not hold.
const FAILED: u8 = 1;
/// Wrong use of the command line.
const USAGE: u8 = 2;
/// Bad configuration (`EX_CONFIG` of sysexits).
const BAD_CONFIG: u8 = 78;

const AFTER_HELP: &str = "\
Exit codes:
  0   done
  1   failed, or what was checked does not hold
  2   wrong use of the command line
  78  bad configuration

Configuration: docs/config.md. Environment variables VIAFLUX__SECTION__KEY override the file, flags
override both.";

/// Live road traffic from vehicle positions and roadside sensors.
#[derive(Debug, Parser)]
#[command(name = "viaflux", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file; without it the defaults hold.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "VIAFLUX_CONFIG",
        help_heading = "Global"
    )]
    pub config: Option<PathBuf>,
    /// Say more on stderr: debug, twice for trace.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global")]
    #[arg(conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say errors only.
    #[arg(short, long, global = true, help_heading = "Global")]
    pub quiet: bool,
    /// Form of the log on stderr.
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Global")]
    pub log_format: Option<LogFormat>,
    /// When to use colour; NO_COLOR and TERM=dumb turn it off for `auto`.
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global"
    )]
    pub color: Color,
    /// Print the report as JSON.
    #[arg(long, global = true, help_heading = "Global")]
    pub json: bool,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether to colour what goes to a stream that is (or is not) a terminal.
    pub fn on(self, terminal: bool) -> bool {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|t| t != "dumb"),
        }
    }
}

impl Global {
    /// Reads the configuration (the file of `-c`, the environment, `overrides` of the command's own flags) and
    /// starts the log as it says.
    ///
    /// # Errors
    /// [`ConfigError`], which ends the program with exit code 78.
    pub fn configure(&self, overrides: &[Override]) -> Result<Loaded, ConfigError> {
        // Variables that are not UTF-8 cannot be ours.
        let text = |v: OsString| v.into_string().ok();
        let environment = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        let loaded = config::load(self.config.as_deref(), environment, overrides)?;
        log::start(&loaded.config.log, self);
        Ok(loaded)
    }
}

/// The commands, in the order of their help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a simulated city live: engine, API and map, with nothing else to set up.
    Demo(demo::DemoArgs),
    /// Run the engine live: Kafka or files in; topics, files, page, API and metrics out.
    Run(run::RunArgs),
    /// Replay recorded events: the same engine as live, the same bytes out.
    Replay(replay::ReplayArgs),
    /// Record Kafka topics into an event log.
    #[cfg(feature = "kafka")]
    Record(record::RecordArgs),
    /// Write an event log or files of events to Kafka.
    #[cfg(feature = "kafka")]
    Produce(produce::ProduceArgs),
    /// Write a topic anew, keyed by vehicle.
    #[cfg(feature = "kafka")]
    Rekey(rekey::RekeyArgs),
    /// Simulate the built-in city: events and their truth.
    Simulate(simulate::SimulateArgs),
    /// Build, describe, ask and export a road network.
    Map(map::MapArgs),
    /// Match whole traces (GPX, CSV, NDJSON) to the map.
    Match(matching::MatchArgs),
    /// Learn free-flow and usual speeds from recorded events, and describe them.
    Baseline(baseline::BaselineArgs),
    /// Validate the configuration and what it names.
    Check(check::CheckArgs),
    /// Score a run against a truth: matches, speeds, congestion, incidents, rejections.
    Evaluate(evaluate::EvaluateArgs),
    /// Measure how fast parts of viaflux are on given work.
    Bench(bench::BenchArgs),
    /// Print a schema or a document made from it.
    Schema(schema::SchemaArgs),
    /// Print shell completions.
    Completions(completions::CompletionsArgs),
}

impl Command {
    fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Command::Demo(args) => args.run(global),
            Command::Simulate(args) => args.run(),
            Command::Map(args) => args.run(global.json),
            Command::Run(args) => args.run(global),
            Command::Replay(args) => args.run(global),
            #[cfg(feature = "kafka")]
            Command::Record(args) => args.run(),
            #[cfg(feature = "kafka")]
            Command::Produce(args) => args.run(),
            #[cfg(feature = "kafka")]
            Command::Rekey(args) => args.run(),
            Command::Match(args) => args.run(global),
            Command::Baseline(args) => args.run(global),
            Command::Check(args) => args.run(global),
            Command::Evaluate(args) => args.run(global),
            Command::Bench(args) => args.run(global),
            Command::Schema(args) => args.run(),
            Command::Completions(args) => args.run(),
        }
    }

    /// Whether the command reads the configuration, which then says how to log.
    fn configures(&self) -> bool {
        matches!(
            self,
            Command::Baseline(_)
                | Command::Bench(_)
                | Command::Check(_)
                | Command::Demo(_)
                | Command::Match(_)
                | Command::Run(_)
                | Command::Replay(_)
        )
    }
}

/// Wrong use that clap cannot see, such as flags that need one another; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// What was checked does not hold; the report is already printed; exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotHeld(pub String);

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors, and a closed pipe is none either.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { USAGE } else { DONE });
        }
    };
    if !cli.command.configures() {
        log::start(&config::Log::default(), &cli.global);
    }
    match cli.command.run(&cli.global) {
        Ok(()) => ExitCode::from(DONE),
        Err(e) => ExitCode::from(report(&e, cli.global.color)),
    }
}

/// Tells an error on stderr and says which exit code it means.
fn report(error: &anyhow::Error, color: Color) -> u8 {
    // Whoever read our output has read enough.
    if error.chain().any(|e| {
        e.downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }) {
        return DONE;
    }
    let mut stderr = io::stderr().lock();
    let label = if color.on(stderr.is_terminal()) {
        "\x1b[1;31merror\x1b[0m"
    } else {
        "error"
    };
    let _ = writeln!(stderr, "{label}: {}", chain(error));
    exit_code(error)
}

/// An error and its causes in one text; a cause that its error already quotes is left out.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|e| e.is::<ConfigError>()) {
        BAD_CONFIG
    } else if error.chain().any(|e| e.is::<UsageError>()) {
        USAGE
    } else {
        FAILED
    }
}

/// Writes a report to stdout at once. A closed pipe comes back as an error, which ends the program quietly;
/// `println!` would panic.
///
/// # Errors
/// What stdout says.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_is_explained() {
        fn walk(command: &clap::Command, path: &str, bare: &mut Vec<String>) {
            if command.get_about().is_none() {
                bare.push(path.to_owned());
            }
            for arg in command.get_arguments().filter(|a| a.get_help().is_none()) {
                bare.push(format!("{path} {}", arg.get_id()));
            }
            for sub in command.get_subcommands() {
                walk(sub, &format!("{path} {}", sub.get_name()), bare);
            }
        }
        let mut bare = Vec::new();
        walk(&Cli::command(), "viaflux", &mut bare);
        assert_eq!(bare, Vec::<String>::new());
    }

    #[test]
    fn exit_codes() {
        let io = anyhow::Error::new(io::Error::other("disk")).context("cannot write");
        assert_eq!(
            (exit_code(&io), chain(&io).as_str()),
            (FAILED, "cannot write: disk")
        );
        let bad: anyhow::Error = Err::<(), _>(ConfigError::plain("x"))
            .context("reading")
            .unwrap_err();
        assert_eq!(exit_code(&bad), BAD_CONFIG);
        assert_eq!(exit_code(&UsageError("x".into()).into()), USAGE);
        let pipe: anyhow::Error = io::Error::from(io::ErrorKind::BrokenPipe).into();
        assert_eq!(report(&pipe.context("cannot print"), Color::Never), DONE);
    }

    #[test]
    fn global_flags_stand_on_either_side() {
        for line in [["viaflux", "--json", "check"], ["viaflux", "check", "--json"]] {
            assert!(Cli::try_parse_from(line).unwrap().global.json);
        }
        assert!(Cli::try_parse_from(["viaflux", "check", "-q", "-v"]).is_err());
    }
}
