//! A small simulated city, its topics, and configurations that read them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::broker::{Broker, fresh};
use crate::process::{Child, finish, viaflux};

/// In the past of every machine, and in the city's evening rush.
const BEGIN: &str = "2025-11-24T09:00:00Z";

/// Partitions of the positions.
pub(crate) const PROBE_PARTITIONS: i32 = 4;

/// A simulated city in a folder of its own.
pub(crate) struct City {
    dir: TempDir,
    /// Positions and measurements.
    pub(crate) positions: u64,
    pub(crate) measurements: u64,
}

impl City {
    /// Simulates: `arguments` say how long and how many.
    pub(crate) fn simulate(arguments: &[&str]) -> Self {
        Self::begin(BEGIN, arguments)
    }

    fn begin(begin: &str, arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let out = dir.path().to_str().unwrap();
        finish(
            viaflux()
                .args(["simulate", "--begin", begin, "-o", out])
                .args(arguments),
        );
        let (osm, map) = (dir.path().join("map.osm"), dir.path().join("city.map"));
        finish(viaflux().args(["map", "build"]).arg(osm).arg("-o").arg(map));
        let lines = |name: &str| {
            let text = std::fs::read(dir.path().join(name)).unwrap();
            text.iter().filter(|byte| **byte == b'\n').count() as u64
        };
        let (positions, measurements) = (lines("gps.ndjson"), lines("sensor.ndjson"));
        Self {
            dir,
            positions,
            measurements,
        }
    }

    /// Ten minutes, long enough for congestion to be called.
    pub(crate) fn small() -> Self {
        Self::simulate(&["--duration", "10m", "--vehicles", "2400"])
    }

    /// The ten minutes that have just passed; how busy they are depends on the hour.
    pub(crate) fn of_now() -> Self {
        let begin = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(11);
        Self::begin(
            &begin.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            &["--duration", "10m", "--vehicles", "600"],
        )
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn records(&self) -> u64 {
        self.positions + self.measurements
    }

    /// Cuts a file into two with the same number of lines, which are given.
    pub(crate) fn halves(&self, name: &str) -> [(PathBuf, u64); 2] {
        let text = std::fs::read(self.file(name)).unwrap();
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let (first, second) = lines.split_at(lines.len() / 2);
        [("first", first), ("second", second)].map(|(which, lines)| {
            let path = self.file(&format!("{which}-{name}"));
            std::fs::write(&path, lines.concat()).unwrap();
            (path, lines.len() as u64)
        })
    }

    /// Begins to send a file to a topic.
    pub(crate) fn sending(
        &self,
        broker: &Broker,
        kind: &str,
        file: &Path,
        topic: &str,
        speed: &str,
    ) -> Child {
        let mut command = viaflux();
        command
            .args([
                "produce",
                "--brokers",
                &broker.address,
                "--speed",
                speed,
                "--topic",
                topic,
                kind,
            ])
            .arg(file);
        Child::spawn(&mut command, &self.file(&format!("{topic}-produce.log")))
    }

    /// Begins to send everything at `speed`.
    pub(crate) fn producing(&self, broker: &Broker, feeds: &Feeds, speed: &str) -> [Child; 2] {
        [
            self.sending(broker, "--probes", &self.file("gps.ndjson"), &feeds.probes, speed),
            self.sending(
                broker,
                "--sensors",
                &self.file("sensor.ndjson"),
                &feeds.sensors,
                speed,
            ),
        ]
    }

    /// Sends everything, as fast as it goes.
    pub(crate) fn produce(&self, broker: &Broker, feeds: &Feeds) {
        self.producing(broker, feeds, "max")
            .into_iter()
            .for_each(Child::succeed);
    }
}

/// Topics that belong together.
pub(crate) struct Feeds {
    pub(crate) probes: String,
    pub(crate) sensors: String,
    /// What the names of the output topics begin with.
    pub(crate) prefix: String,
}

impl Feeds {
    /// Empty input topics.
    pub(crate) fn make(broker: &Broker, name: &str, stamped: bool) -> Self {
        let prefix = fresh(name);
        let feeds = Self {
            probes: format!("{prefix}-probes"),
            sensors: format!("{prefix}-sensors"),
            prefix,
        };
        broker.make_topic(&feeds.probes, PROBE_PARTITIONS, stamped);
        broker.make_topic(&feeds.sensors, 1, stamped);
        feeds
    }

    pub(crate) fn inputs(&self) -> [&str; 2] {
        [&self.probes, &self.sensors]
    }

    pub(crate) fn output(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// A configuration of the city over these topics; `client` names the process, its files lie in a folder
    /// of that name, and it is a member of `group`. `more` is added under `[kafka.properties]`.
    pub(crate) fn configure(&self, broker: &str, city: &City, group: &str, client: &str, more: &str) -> Run {
        let out = city.file(&format!("{}-{client}", self.prefix));
        let (map, sites) = (city.file("city.map"), city.file("sensors.json"));
        let topics: String = [
            "segment_state",
            "corridor",
            "region",
            "alert_event",
            "alert_state",
        ]
        .map(|what| format!("{what} = \"{}\"\n", self.output(what)))
        .concat();
        let text = format!(
            r#"[map]
file = "{map}"
sensors = "{sites}"

[[source]]
id = "probes"
kind = "kafka"
feed = "probe"
topic = "{probes}"
preset = "simulated-city"
start = "earliest"

[[source]]
id = "sensors"
kind = "kafka"
feed = "sensor"
topic = "{sensors}"
preset = "simulated-city"
start = "earliest"

[[sink]]
id = "kafka"
kind = "kafka"
create_topics = true

[sink.topics]
{topics}
[[sink]]
id = "files"
kind = "file"
path = "{out}"

[kafka]
brokers = ["{broker}"]
group_id = "{prefix}-{group}"
client_id = "{client}"

[kafka.properties]
# A member that was killed is missed soon.
"session.timeout.ms" = "3000"
"heartbeat.interval.ms" = "500"
{more}

[server]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"
"#,
            map = map.display(),
            sites = sites.display(),
            out = out.display(),
            probes = self.probes,
            sensors = self.sensors,
            prefix = self.prefix,
        );
        let config = city.file(&format!("{}-{client}.toml", self.prefix));
        std::fs::write(&config, text).unwrap();
        Run {
            config,
            out,
            state: city.file(&format!("{}-{client}-state", self.prefix)),
        }
    }
}

/// A configured run.
pub(crate) struct Run {
    pub(crate) config: PathBuf,
    /// Its files.
    pub(crate) out: PathBuf,
    /// Its checkpoints, if it is told to keep any.
    pub(crate) state: PathBuf,
}

impl Run {
    pub(crate) fn output(&self, name: &str) -> String {
        let path = self.out.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
