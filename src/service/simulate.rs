//! `viaflux simulate`: events of the built-in city and what really happened, as files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::traces;
use crate::network::osm::write_xml;
use crate::network::{BuildSettings, Network};
use crate::simulate::{CONGESTED, EventTruth, Feed, Settings, Simulation, TraceSettings, Traces, Trips};
use crate::units::EventTime;

/// Event time simulated between two writes.
const CHUNK_MS: i64 = 60_000;

const FREE_MPS: &str =
    "length / (length / (0.93 x limit) + mean wait at the signal or sign at the edge's end in light traffic)";

/// Simulates the built-in city and writes events and truth.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  viaflux simulate -o city
  viaflux simulate -o city --seed 7 --vehicles 8000 --duration 20m --no-defects
  viaflux replay --map city/city.map --probes city/gps.ndjson --sensors city/sensor.ndjson \\
      --sites city/sensors.json --preset simulated-city -o out
  viaflux simulate traces --map porto.map -o traces")]
pub struct SimulateArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Absent with a subcommand only.
    #[command(flatten)]
    city: Option<CityArgs>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Single drives over a given map, with receiver noise and truth, thinned to several intervals.
    Traces(TracesArgs),
}

/// What city to simulate.
#[derive(Args, Clone, Debug)]
pub struct CityArgs {
    /// Seed of every random choice; equal arguments give equal files.
    #[arg(long, default_value_t = Settings::default().seed)]
    pub seed: u64,
    /// First moment of the records, in whole seconds (local time of the city is UTC+8).
    #[arg(long, value_name = "TIME", default_value_t = Settings::default().begin.to_string(), value_parser = whole_second)]
    pub begin: String,
    /// Simulated time, such as 90s, 20m or 1h30m.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    pub duration: u32,
    /// Vehicles on the road at the peak of the rush hour.
    #[arg(long, value_name = "N", default_value_t = Settings::default().vehicles)]
    pub vehicles: u32,
    /// Width of the city in metres, 2000 to 20000.
    #[arg(long, value_name = "M", default_value_t = Settings::default().size_m)]
    pub size: f64,
    /// Share of the vehicles that report positions, 0 to 1.
    #[arg(long, value_name = "F", default_value_t = Settings::default().probe_share)]
    pub probe_share: f64,
    /// Seconds between two reports of a vehicle.
    #[arg(long, value_name = "S", default_value_t = Settings::default().interval_s, value_parser = clap::value_parser!(u32).range(1..))]
    pub interval: u32,
    /// Detector stations.
    #[arg(long, value_name = "N", default_value_t = Settings::default().sensor_stations)]
    pub stations: u32,
    /// Incidents, spread over the simulated time; the first begins after three minutes.
    #[arg(long, value_name = "N", default_value_t = Settings::default().incidents)]
    pub incidents: u32,
    /// No lost, late, doubled or broken records and no detector faults.
    #[arg(long)]
    pub no_defects: bool,
    /// Folder to write to; made if it is missing, its files are replaced.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

fn seconds(text: &str) -> Result<u32, String> {
    let duration: jiff::SignedDuration = text
        .parse()
        .map_err(|e| format!("{e}; a duration looks like 90s, 20m or 1h30m"))?;
    match u32::try_from(duration.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("must be at least a second and at most 136 years".into()),
    }
}

fn whole_second(text: &str) -> Result<String, String> {
    let moment: jiff::Timestamp = text
        .parse()
        .map_err(|e| format!("{e}; a time looks like 2026-11-23T09:00:00Z"))?;
    Ok(EventTime::from_ms(moment.as_second() * 1000).to_string())
}

impl SimulateArgs {
    /// Simulates and writes all files.
    ///
    /// # Errors
    /// An argument out of its range, or a file that cannot be read or written.
    pub fn run(self) -> anyhow::Result<()> {
        match (self.what, self.city) {
            (Some(What::Traces(args)), _) => args.run(),
            (None, Some(args)) => args.run(),
            (None, None) => bail!("name a folder to write to with --output"),
        }
    }
}

/// What drives to simulate, and on which map.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Writes a file for each interval, 5s.ndjson for 5 s, all of the same drives; docs/formats.md tells what stands in them.

Example:
  viaflux simulate traces --map porto.map --trips 1000 -o traces
  viaflux evaluate traces --map porto.map traces/*.ndjson")]
pub struct TracesArgs {
    /// Map to drive on.
    #[arg(long, value_name = "FILE")]
    pub map: PathBuf,
    /// Seed of every random choice; equal arguments give equal files.
    #[arg(long, default_value_t = TraceSettings::default().seed)]
    pub seed: u64,
    /// Number of drives.
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..))]
    pub trips: u32,
    /// Length of each drive, such as 10m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
    pub duration: u32,
    /// Seconds between two positions; one file for each.
    #[arg(
        long,
        value_name = "S,…",
        default_value = "1,5,15,30,60",
        value_delimiter = ','
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub intervals: Vec<u32>,
    /// Error of a position on each axis (one standard deviation), in metres.
    #[arg(long, value_name = "M", default_value_t = TraceSettings::default().sigma_m)]
    pub sigma: f64,
    /// Seconds in which the error fades to 1/e; 0 for an error that is new with each position.
    #[arg(long, value_name = "S", default_value_t = TraceSettings::default().correlation_s)]
    pub correlation: f64,
    /// Folder to write to; made if it is missing, its files are replaced.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

impl TracesArgs {
    fn run(self) -> anyhow::Result<()> {
        for (name, value) in [("sigma", self.sigma), ("correlation", self.correlation)] {
            ensure!(value.is_finite() && value >= 0.0, "--{name} must not be negative");
        }
        if let Some(long) = self.intervals.iter().find(|&&s| s > self.duration) {
            bail!(
                "--intervals {long} is longer than the drives of {} s; lengthen them with --duration",
                self.duration
            );
        }
        let network = Network::load(&self.map).with_context(|| self.map.display().to_string())?;
        let settings = TraceSettings {
            seed: self.seed,
            duration_s: self.duration,
            sigma_m: self.sigma,
            correlation_s: self.correlation,
        };
        let few = "the map has too few connected roads for drives of that length; shorten them with --duration \
                   or take a larger map";
        let mut drives = Traces::new(&network, settings).context(few)?;
        std::fs::create_dir_all(&self.output)
            .with_context(|| format!("cannot make the folder {}", self.output.display()))?;
        let mut files = Vec::new();
        for &interval in &self.intervals {
            files.push((
                interval,
                Output::create(&self.output, &format!("{interval}s.ndjson"))?,
            ));
        }
        for id in 0..u64::from(self.trips) {
            let trip = drives.next().context(few)?;
            for (interval, file) in &mut files {
                traces::write(file, id, &network, &trip, *interval as usize)
                    .with_context(|| format!("cannot write {}", file.path.display()))?;
            }
        }
        for (_, file) in files {
            file.close()?;
        }
        println!(
            "{} drives of {} s -> {}",
            self.trips,
            self.duration,
            self.output.display()
        );
        Ok(())
    }
}

impl CityArgs {
    /// The settings of the simulation.
    ///
    /// # Errors
    /// An argument out of its range.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        ensure!(
            (0.0..=1.0).contains(&self.probe_share),
            "--probe-share must be between 0 and 1"
        );
        ensure!(
            (2_000.0..=20_000.0).contains(&self.size),
            "--size must be between 2000 and 20000 metres"
        );
        let begin: jiff::Timestamp = self.begin.parse().context("--begin")?;
        Ok(Settings {
            seed: self.seed,
            begin: EventTime::from_ms(begin.as_millisecond()),
            duration_s: self.duration,
            size_m: self.size,
            vehicles: self.vehicles,
            probe_share: self.probe_share,
            interval_s: self.interval,
            sensor_stations: self.stations,
            incidents: self.incidents,
            defects: !self.no_defects,
            truth: true,
        })
    }

    fn run(self) -> anyhow::Result<()> {
        let settings = self.settings()?;
        std::fs::create_dir_all(&self.output)
            .with_context(|| format!("cannot make the folder {}", self.output.display()))?;
        let summary = write(settings, &self.output)?;
        println!("{summary} -> {}", self.output.display());
        Ok(())
    }
}

/// A file that counts and hashes what is written to it.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Output {
    fn create(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.write_all(&line)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Bytes and checksum, for `meta.json`.
    fn close(mut self) -> anyhow::Result<(String, Value)> {
        self.flush()
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        let name = self
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok((
            name,
            json!({ "bytes": self.bytes, "blake3": self.hasher.finalize().to_hex().as_str() }),
        ))
    }
}

impl Write for Output {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The open files and the counts of what went into them.
struct Writer {
    gps: Output,
    sensor: Output,
    points: Output,
    edges: Output,
    events: Vec<EventTruth>,
    kinds: BTreeMap<String, u64>,
    gps_lines: u64,
    sensor_lines: u64,
    edge_minutes: u64,
    /// Edges with vehicles and congested ones, by minute.
    minutes: BTreeMap<i64, (u32, u32)>,
}

impl Writer {
    fn create(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            gps: Output::create(folder, "gps.ndjson")?,
            sensor: Output::create(folder, "sensor.ndjson")?,
            points: Output::create(folder, "truth-points.ndjson")?,
            edges: Output::create(folder, "truth-edges.ndjson")?,
            events: Vec::new(),
            kinds: BTreeMap::new(),
            gps_lines: 0,
            sensor_lines: 0,
            edge_minutes: 0,
            minutes: BTreeMap::new(),
        })
    }

    /// Writes what the simulation made since the last time, up to `until` or, without it, to the end.
    fn take(&mut self, simulation: &mut Simulation, until: Option<EventTime>) -> anyhow::Result<()> {
        let mut records = Vec::new();
        match until {
            Some(until) => simulation.step_to(until, &mut records),
            None => simulation.finish(&mut records),
        }
        for record in records {
            let (file, lines) = match record.feed {
                Feed::Probe => (&mut self.gps, &mut self.gps_lines),
                Feed::Sensor => (&mut self.sensor, &mut self.sensor_lines),
            };
            *lines += 1;
            file.write_all(&record.line)
                .and_then(|()| file.write_all(b"\n"))
                .with_context(|| format!("cannot write {}", file.path.display()))?;
        }
        let begin = simulation.settings().begin;
        let truth = simulation.take_truth();
        for point in &truth.points {
            self.points.line(point)?;
            *self.kinds.entry(point.kind.clone()).or_default() += 1;
        }
        for edge in &truth.edges {
            self.edges.line(edge)?;
            self.edge_minutes += 1;
            let minute = self.minutes.entry((edge.ts - begin.ms()) / 60_000).or_default();
            minute.0 += 1;
            minute.1 += u32::from(edge.congested);
        }
        self.events.extend(truth.events);
        Ok(())
    }
}

fn write(settings: Settings, folder: &Path) -> anyhow::Result<String> {
    let mut simulation = Simulation::new(settings);
    let settings = simulation.settings().clone();
    let end = settings.begin.plus_ms(i64::from(settings.duration_s) * 1000);
    let mut files = BTreeMap::new();

    let mut map = Output::create(folder, "map.osm")?;
    write_xml(simulation.osm(), &mut map).with_context(|| format!("cannot write {}", map.path.display()))?;
    files.extend([map.close()?]);

    let (network, _) = Network::build(simulation.osm(), &BuildSettings::default());
    let mut city = Output::create(folder, "city.map")?;
    network
        .write(&mut city)
        .with_context(|| format!("cannot write {}", city.path.display()))?;
    files.extend([city.close()?]);

    let mut sensors = Output::create(folder, "sensors.json")?;
    serde_json::to_writer_pretty(&mut sensors, simulation.stations()).context("cannot write sensors.json")?;
    files.extend([sensors.close()?]);

    let mut edges = Output::create(folder, "edges.ndjson")?;
    let (mut edge_count, mut metres, mut ways) = (0u64, 0.0, std::collections::BTreeSet::new());
    for edge in simulation.edges() {
        edges.line(&edge)?;
        edge_count += 1;
        metres += edge.length_m;
        ways.insert(edge.way);
    }
    files.extend([edges.close()?]);

    let mut writer = Writer::create(folder)?;
    let mut until = settings.begin;
    while until < end {
        until = until.plus_ms(CHUNK_MS).min(end);
        writer.take(&mut simulation, Some(until))?;
    }
    writer.take(&mut simulation, None)?;
    let Writer {
        gps,
        sensor,
        points,
        edges,
        events,
        kinds,
        gps_lines,
        sensor_lines,
        edge_minutes,
        minutes,
    } = writer;

    let mut event_file = Output::create(folder, "truth-events.ndjson")?;
    // Incidents, then teleports, then faults; each kind in the order of its happening.
    let rank = |e: &EventTruth| match e {
        EventTruth::Incident { begin, .. } => (0, *begin),
        EventTruth::Teleport { begin, .. } => (1, *begin),
        EventTruth::SensorFault { .. } => (2, 0),
    };
    let mut events = events;
    events.sort_by_key(rank);
    for event in &events {
        event_file.line(event)?;
    }
    for file in [gps, sensor, points, edges, event_file] {
        files.extend([file.close()?]);
    }

    let trips: Trips = simulation.trips();
    let mut meta = Output::create(folder, "meta.json")?;
    let value = json!({
        "name": "simulated-city",
        "seed": settings.seed,
        "licence": "made by viaflux: map and events may be used without conditions",
        "settings": settings,
        "begin_ms": settings.begin.ms(),
        "end_ms": end.ms(),
        "edges": edge_count,
        "edge_km": (metres / 100.0).round() / 10.0,
        "ways": ways.len(),
        "trips": trips,
        "teleports": trips.teleports,
        "probe_vehicles": simulation.probe_vehicles(),
        "gps_lines": gps_lines,
        "gps_kinds": kinds,
        "stations": simulation.stations().len(),
        "sensor_lines": sensor_lines,
        "edge_minutes": edge_minutes,
        "minute_edges_congested": minutes.iter().map(|(m, (all, jammed))| (m, all, jammed)).collect::<Vec<_>>(),
        "congested": CONGESTED,
        "free_mps": FREE_MPS,
        "files": files,
    });
    serde_json::to_writer_pretty(&mut meta, &value).context("cannot write meta.json")?;
    meta.close()?;
    Ok(format!(
        "{gps_lines} positions, {sensor_lines} measurements, {edge_minutes} edge-minutes, {} events",
        events.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_all_files_alike_each_time() {
        let folders = [(); 2].map(|()| {
            let folder = tempfile::tempdir().unwrap();
            let args = CityArgs {
                seed: 4,
                begin: Settings::default().begin.to_string(),
                duration: 240,
                vehicles: 300,
                size: 4_000.0,
                probe_share: 0.5,
                interval: 5,
                stations: 20,
                incidents: 1,
                no_defects: false,
                output: folder.path().join("new"),
            };
            args.run().unwrap();
            folder
        });
        let read =
            |k: usize, name: &str| std::fs::read_to_string(folders[k].path().join("new").join(name)).unwrap();
        let meta: Value = serde_json::from_str(&read(0, "meta.json")).unwrap();
        assert_eq!(
            read(0, "meta.json"),
            read(1, "meta.json"),
            "it holds the checksums of all other files"
        );
        assert_eq!(meta["gps_lines"], read(0, "gps.ndjson").lines().count());
        assert_eq!(meta["gps_lines"], read(0, "truth-points.ndjson").lines().count());
        assert_eq!(meta["edges"], read(0, "edges.ndjson").lines().count());
        assert_eq!(meta["sensor_lines"], read(0, "sensor.ndjson").lines().count());
        assert!(
            read(0, "truth-events.ndjson")
                .lines()
                .next()
                .unwrap()
                .contains("\"type\":\"incident\"")
        );
        assert!(read(0, "map.osm").contains("长安南路"));
        let stations: Vec<Value> = serde_json::from_str(&read(0, "sensors.json")).unwrap();
        assert_eq!(stations.len(), 20);
    }

    #[test]
    fn reads_durations_and_moments() {
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert!(seconds("soon").is_err() && seconds("0s").is_err());
        assert_eq!(
            whole_second("2026-11-23T17:00:00.5+08:00").as_deref(),
            Ok("2026-11-23T09:00:00.000Z")
        );
    }
}
