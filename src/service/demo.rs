//! `viaflux demo`: the built-in city through the engine, with the page: no broker, no data, no account.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::city::{City, LogDoor};
use super::cli::Global;
use super::config::{Config, Override, Source, SourceKind};
use super::driver::{Driver, Outlet};
use super::pace::Speed;
use super::shell::{Shell, stop_signal};
use super::telemetry::{LogLabel, Telemetry};
use crate::engine::{Batch, Engine, Record};
use crate::ingest;
use crate::network::sites::parse_sites;
use crate::network::{BuildSettings, Network};
use crate::simulate::{Feed, Settings, Simulation};
use crate::sink::http::Credited;
use crate::units::EventTime;

/// Wall time between two turns: what the simulation sends meanwhile is one batch.
const TURN: Duration = Duration::from_millis(100);
/// Time the page needs to be up before a browser asks for it.
const BROWSER_AFTER: Duration = Duration::from_millis(300);

/// Show a simulated city live: engine, API and map, with nothing else to set up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viaflux demo
  viaflux demo --speed 30 --vehicles 4000 --listen 127.0.0.1:8081
  curl -s http://127.0.0.1:8080/api/v1/alerts")]
pub struct DemoArgs {
    /// How many times as fast as real time the city lives
    #[arg(long, default_value = "10", value_name = "N")]
    speed: Speed,
    /// Seed of the city and its traffic; equal seeds give equal cities
    #[arg(long, default_value_t = Settings::default().seed, value_name = "N")]
    seed: u64,
    /// Vehicles on the road at the peak of the rush hour
    #[arg(long, default_value_t = Settings::default().vehicles, value_name = "N")]
    vehicles: u32,
    /// Address of the page and the API
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Address of metrics and probes
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<String>,
    /// Do not open a browser
    #[arg(long)]
    no_open: bool,
    /// Learned free-flow and usual speeds, made by `viaflux baseline build`
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Threads of the engine; 0 takes one for each core
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = super::thread_count)]
    threads: usize,
}

/// One clock for everything: the city's time, which runs at a multiple of the wall's.
#[derive(Clone, Debug)]
struct ScaledClock {
    begin: EventTime,
    since: Instant,
    times: f64,
}

impl ScaledClock {
    fn now(&self) -> EventTime {
        self.begin
            .plus_ms((self.since.elapsed().as_secs_f64() * self.times * 1000.0) as i64)
    }
}

impl DemoArgs {
    /// Runs until a signal.
    ///
    /// # Errors
    /// An address that cannot be opened.
    pub fn run(self, global: &Global) -> Result<()> {
        // As if the file had said it, so that a bad address is a fault of the configuration here too.
        let flags = [
            ("--listen", "server.listen", &self.listen),
            ("--admin-listen", "admin.listen", &self.admin_listen),
        ];
        let flags: Vec<Override> = flags
            .into_iter()
            .filter_map(|(flag, key, value)| {
                let value = toml::Value::String(value.clone()?);
                Some(Override { flag, key, value })
            })
            .collect();
        let mut config = global.configure(&flags)?.config;
        configure(&mut config);
        if let Some(file) = &self.baseline {
            config.baseline.file = Some(file.clone());
        }
        let stop = stop_signal()?;
        let mut simulation = Simulation::new(Settings {
            seed: self.seed,
            vehicles: self.vehicles,
            // The demo is to show traffic; defects have their place in `viaflux simulate`.
            ..Settings::default()
        });
        let (network, _) = Network::build(simulation.osm(), &BuildSettings::default());
        let stations = serde_json::to_string(simulation.stations())?;
        let sites = parse_sites(&stations).context("the simulated city's own stations")?;
        let city = City::of(Arc::new(network), &sites, &config)?;
        let times = match self.speed {
            Speed::Times(times) => times,
            // As fast as the simulation goes makes no picture that anyone could follow.
            Speed::Max => 1000.0,
        };
        let clock = ScaledClock {
            begin: simulation.now(),
            since: Instant::now(),
            times,
        };
        let roads = Credited {
            network: Arc::clone(&city.network),
            attribution: "simulated city: no real place",
        };
        let shown = clock.clone();
        let shell = Shell::open(&config, Arc::new(roads), move || shown.now())?;
        let mut driver = self.driver(&config, &city, &shell, &clock)?;
        shell.health.started();
        let address = shell.handle().public_address();
        super::cli::print(&format!(
            "the city lives at {times}x · http://{address} · metrics http://{}/metrics · Ctrl-C ends it\n",
            shell.handle().admin_address()
        ))?;
        if !self.no_open {
            open_browser(format!("http://{address}"));
        }
        live(&mut simulation, &mut driver, &clock, &stop)?;
        shell.close();
        let (digest, _) = driver.engine().digest();
        tracing::info!(%digest, "stopped");
        Ok(())
    }

    fn driver(&self, config: &Config, city: &City, shell: &Shell, clock: &ScaledClock) -> Result<Driver> {
        let lanes = config.ingest.virtual_partitions;
        let mut logs = Vec::new();
        for source in &config.source {
            let door = LogDoor::Whole {
                name: source.name(),
                header: None,
                lanes,
            };
            logs.push(city.log(config, source, door, false)?);
        }
        let labels = config.source.iter().map(LogLabel::of).collect();
        let engine = Engine::new(city.setup(config, logs, super::threads(self.threads), true)).measured();
        let clock = clock.clone();
        let telemetry = Telemetry::new(
            Arc::clone(&shell.board),
            Arc::clone(&shell.metrics),
            Arc::clone(&shell.health),
            city.clone(),
            "demo",
            config.hash(),
            labels,
            Some(Arc::new(move || clock.now())),
        );
        let outlets: Vec<Box<dyn Outlet>> = vec![Box::new(telemetry)];
        Driver::new(engine, None, outlets, None, Duration::MAX)
    }
}

/// Puts the simulated city's feeds in place of the configured ones.
fn configure(config: &mut Config) {
    let source = |feed, id: &str| Source {
        id: id.to_owned(),
        kind: SourceKind::Simulated,
        feed,
        preset: Some("simulated-city".to_owned()),
        ..Source::default()
    };
    config.source = vec![
        source(ingest::Feed::Probe, "probes"),
        source(ingest::Feed::Sensor, "sensors"),
    ];
    config.sink.clear();
}

/// Moves the city on with the clock and hands what it sends to the engine.
fn live(
    simulation: &mut Simulation,
    driver: &mut Driver,
    clock: &ScaledClock,
    stop: &AtomicBool,
) -> Result<()> {
    let mut records = Vec::new();
    let mut offsets = [0_u64; 2];
    let mut batch = Batch::default();
    while !stop.load(Ordering::Acquire) {
        let turn = Instant::now();
        simulation.step_to(clock.now(), &mut records);
        for record in records.drain(..) {
            let log = match record.feed {
                Feed::Probe => 0,
                Feed::Sensor => 1,
            };
            offsets[usize::from(log)] += 1;
            batch.push(Record {
                log,
                offset: offsets[usize::from(log)],
                append_time: Some(record.arrival),
                control: false,
                key: record.key.as_bytes(),
                value: &record.line,
            });
        }
        driver.take(&batch)?;
        batch.clear();
        std::thread::sleep(TURN.saturating_sub(turn.elapsed()));
    }
    Ok(())
}

/// Asks the desktop to show the page; where there is none, the address was printed.
fn open_browser(url: String) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    std::thread::spawn(move || {
        std::thread::sleep(BROWSER_AFTER);
        let quiet = std::process::Stdio::null;
        let started = std::process::Command::new(program)
            .arg(url)
            .stdin(quiet())
            .stdout(quiet())
            .stderr(quiet())
            .status();
        if let Err(error) = started {
            tracing::debug!(%error, program, "no browser was opened");
        }
    });
}
