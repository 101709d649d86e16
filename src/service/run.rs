//! `viaflux run`: the live engine. Kafka (or files) in, topics, files, HTTP and metrics out.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use super::city::City;
use super::cli::Global;
use super::config::{Config, Source, SourceKind};
use super::driver::{Driver, Earlier, Outlet, Results};
use super::files::{Drive, Files};
use super::pace::Speed;
use super::shell::{Shell, stop_signal};
use super::telemetry::{EventClock, LogLabel, Telemetry, wall_clock};
use crate::engine::Engine;
use crate::sink::file::OutputFile;

/// Run the engine live.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viaflux run -c config/viaflux.toml
  viaflux run -c config/viaflux.toml --state /var/lib/viaflux
  VIAFLUX__KAFKA__BROKERS='[\"kafka:9092\"]' viaflux run -c config/viaflux.toml")]
pub struct RunArgs {
    /// Keep checkpoints here, and go on from the newest one
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Replace what an earlier run left in the folder of the file sink
    #[arg(long)]
    overwrite: bool,
    /// Seconds between two checkpoints
    #[arg(long, default_value_t = 30, value_name = "S", requires = "state", value_parser = clap::value_parser!(u32).range(1..))]
    checkpoint_every: u32,
    /// Learned free-flow and usual speeds, made by `viaflux baseline build`
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Threads of the engine; 0 takes one for each core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::thread_count)]
    threads: usize,
}

impl RunArgs {
    /// Runs until a signal, or to the end of the files.
    ///
    /// # Errors
    /// What cannot be read, written or understood.
    pub fn run(self, global: &Global) -> Result<()> {
        let mut config = global.configure(&[])?.config;
        if let Some(file) = &self.baseline {
            config.baseline.file = Some(file.clone());
        }
        let stop = stop_signal()?;
        let city = City::load(&config)?;
        let shell = Shell::open(&config, Arc::clone(&city.network) as Arc<_>, wall_clock)?;
        let begin = Instant::now();
        let threads = super::threads(self.threads);
        let kinds: Vec<SourceKind> = config.source.iter().map(|s| s.kind).collect();
        let driver = if kinds.iter().all(|k| *k == SourceKind::File) {
            self.files(&config, &city, &shell, threads, &stop)
        } else if kinds.iter().all(|k| *k == SourceKind::Kafka) {
            self.kafka(&config, &city, &shell, threads, &stop)
        } else {
            bail!("[[source]]: kinds cannot be mixed in one run; use `kafka` for all, or `file` for all")
        }?;
        let summary = driver.summary(&config.hash(), begin.elapsed(), threads);
        shell.close();
        let (digest, end) = driver.engine().digest();
        tracing::info!(%digest, pane_end = %end.map_or_else(|| "-".to_owned(), |e| e.to_string()), "stopped");
        super::cli::print(&format!("{}\n", serde_json::to_string_pretty(&summary)?))?;
        if kinds.contains(&SourceKind::File) {
            driver.of_use()?;
        }
        Ok(())
    }

    fn files(
        &self,
        config: &Config,
        city: &City,
        shell: &Shell,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Driver> {
        let (input, logs) = Files::open(config, city, false)?;
        let labels = config
            .source
            .iter()
            .flat_map(|s| s.files().into_iter().map(|_| LogLabel::of(s)))
            .collect();
        let engine = Engine::new(city.setup(config, logs, threads, true)).measured();
        // Files tell of another day: how old their events are says nothing of this run.
        let telemetry = telemetry(config, city, shell, "run", labels, None);
        let outlets: Vec<Box<dyn Outlet>> = vec![Box::new(telemetry)];
        let mut driver = self.driver(config, engine, outlets)?;
        shell.health.started();
        let how = Drive {
            speed: Speed::Max,
            drain: true,
            sort: false,
        };
        input.drive(&mut driver, how, stop)?;
        Ok(driver)
    }

    /// The driver with the file sink of the configuration, if it has one.
    fn driver(&self, config: &Config, engine: Engine, outlets: Vec<Box<dyn Outlet>>) -> Result<Driver> {
        let sink = config
            .sink
            .iter()
            .find(|s| s.kind == super::config::SinkKind::File);
        let mut files = vec![
            OutputFile::SegmentStates,
            OutputFile::Corridors,
            OutputFile::Regions,
            OutputFile::Alerts,
            OutputFile::Digests,
        ];
        if sink.is_some_and(|s| s.dead_letters) {
            files.push(OutputFile::Rejected);
        }
        let dir = sink.and_then(|s| s.path.clone());
        let out = dir.as_deref().map(|dir| Results {
            dir,
            files: &files,
            earlier: if self.overwrite {
                Earlier::Replaced
            } else {
                Earlier::Kept
            },
        });
        let every = Duration::from_secs(u64::from(self.checkpoint_every));
        Driver::new(engine, out, outlets, self.state.as_deref(), every)
    }

    #[cfg(not(feature = "kafka"))]
    fn kafka(&self, _: &Config, _: &City, _: &Shell, _: usize, _: &AtomicBool) -> Result<Driver> {
        bail!("this viaflux was built without Kafka; build it with the feature `kafka`, or name files")
    }

    #[cfg(feature = "kafka")]
    fn kafka(
        &self,
        config: &Config,
        city: &City,
        shell: &Shell,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Driver> {
        super::live::Live::open(config, city, shell)?.run(
            |engine, outlets| Ok(self.driver(config, engine, outlets)?.timed(wall_clock)),
            self.state.as_deref(),
            threads,
            stop,
        )
    }
}

/// Telemetry of a run whose events are measured by `now`.
pub(super) fn telemetry(
    config: &Config,
    city: &City,
    shell: &Shell,
    mode: &'static str,
    labels: Vec<LogLabel>,
    now: EventClock,
) -> Telemetry {
    Telemetry::new(
        Arc::clone(&shell.board),
        Arc::clone(&shell.metrics),
        Arc::clone(&shell.health),
        city.clone(),
        mode,
        config.hash(),
        labels,
        now,
    )
}

/// Sources in the order of their logs, for callers that need the configuration of each.
pub(super) fn kafka_sources(config: &Config) -> Vec<&Source> {
    config
        .source
        .iter()
        .filter(|s| s.kind == SourceKind::Kafka)
        .collect()
}
