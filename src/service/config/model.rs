use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::source::Source;
use crate::sink::http::{AdminSettings, ServerSettings};
use crate::{aggregate, assess, ingest, locate, publish};

/// The whole configuration. Every key has a default that works on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The road map and what stands beside it.
    pub map: Map,
    /// From a log's bytes to events in order.
    pub ingest: ingest::Settings,
    /// From positions to travel on segments.
    pub locate: locate::Settings,
    /// Panes of event time.
    pub aggregate: aggregate::Settings,
    /// From flow to states, indices and alerts.
    pub assess: assess::Settings,
    /// What is told, and when.
    pub publish: publish::Settings,
    /// Level scale and congestion index.
    pub profile: Profile,
    /// Learned free-flow and usual speeds.
    pub baseline: Baseline,
    /// Where records come from, in order.
    pub source: Vec<Source>,
    /// Where results go.
    pub sink: Vec<Sink>,
    /// Connection to Kafka, shared by all sources and sinks of kind `kafka`.
    pub kafka: Kafka,
    /// Listener for people: page, API, live stream.
    pub server: ServerSettings,
    /// Listener for machines: metrics and probes.
    pub admin: AdminSettings,
    /// Log on stderr.
    pub log: Log,
    /// Metrics at `/metrics`.
    pub metrics: Metrics,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            map: Map::default(),
            ingest: ingest::Settings::default(),
            locate: locate::Settings::default(),
            aggregate: aggregate::Settings::default(),
            assess: assess::Settings::default(),
            publish: publish::Settings::default(),
            profile: Profile::default(),
            baseline: Baseline::default(),
            source: vec![Source::probes(), Source::sensors()],
            sink: vec![Sink::default()],
            kafka: Kafka::default(),
            server: ServerSettings::default(),
            admin: AdminSettings::default(),
            log: Log::default(),
            metrics: Metrics::default(),
        }
    }
}

/// The road map and what stands beside it. Relative paths begin at the working directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Map {
    /// Map file, made by `viaflux map build`.
    pub file: PathBuf,
    /// Sensor sites: GeoJSON points or a `sensors.json`. Without it a measurement must bring its position.
    pub sensors: Option<PathBuf>,
    /// Regions that get an index: GeoJSON polygons. Without it all roads from tertiary up are one region, `city`.
    pub regions: Option<PathBuf>,
    /// Corridors that get a travel time: GeoJSON lines.
    pub corridors: Option<PathBuf>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            file: PathBuf::from("viaflux.map"),
            sensors: None,
            regions: None,
            corridors: None,
        }
    }
}

/// Level scale and congestion index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Id of the profile that gives `grade` and the region index.
    pub id: String,
    /// More profile files, beside those built in.
    pub files: Vec<PathBuf>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            id: "gbt33171-2016".to_owned(),
            files: Vec::new(),
        }
    }
}

/// Learned free-flow and usual speeds. Without a file both come from limit and class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Baseline {
    /// Baseline file, made by `viaflux baseline build`.
    pub file: Option<PathBuf>,
    /// IANA time zone of the city, such as `Asia/Shanghai`, in whose local time `baseline build` learns. A file keeps
    /// its own.
    pub zone: Option<String>,
    /// Days that are not what their weekday says, such as `config/holidays/cn-2026.toml`.
    pub holidays: Option<PathBuf>,
    /// How late a record may come and still be learned from, in seconds: `baseline build` has more patience than a
    /// live run.
    pub late_full_s: u32,
}

impl Default for Baseline {
    fn default() -> Self {
        Self {
            file: None,
            zone: None,
            holidays: None,
            late_full_s: 300,
        }
    }
}

/// Kind of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    /// Topics of the cluster in `[kafka]`.
    #[default]
    Kafka,
    /// NDJSON files in a folder.
    File,
}

/// One place where results go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sink {
    /// Its name in metrics and messages.
    pub id: String,
    /// What it is.
    pub kind: SinkKind,
    /// Folder of the files (kind `file`).
    pub path: Option<PathBuf>,
    /// Names of the output topics (kind `kafka`).
    pub topics: SinkTopics,
    /// Create missing output topics (kind `kafka`).
    pub create_topics: bool,
    /// Send a sample of rejected records to `<topic>.dlq` (kind `kafka`) or `rejected.ndjson` (kind `file`).
    pub dead_letters: bool,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            id: "kafka".to_owned(),
            kind: SinkKind::Kafka,
            path: None,
            topics: SinkTopics::default(),
            create_topics: false,
            dead_letters: true,
        }
    }
}

/// Names of the output topics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SinkTopics {
    /// Segment states, by segment (compacted and deleted).
    pub segment_state: String,
    /// Corridor travel times.
    pub corridor: String,
    /// Region indices.
    pub region: String,
    /// Every transition of an alert.
    pub alert_event: String,
    /// Current revision of each alert (compacted).
    pub alert_state: String,
}

impl Default for SinkTopics {
    fn default() -> Self {
        Self {
            segment_state: "traffic.segment.state.v1".to_owned(),
            corridor: "traffic.corridor.travel_time.v1".to_owned(),
            region: "traffic.region.index.v1".to_owned(),
            alert_event: "traffic.alert.event.v1".to_owned(),
            alert_state: "traffic.alert.state.v1".to_owned(),
        }
    }
}

/// Connection to Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port` each.
    pub brokers: Vec<String>,
    /// Consumer group.
    pub group_id: String,
    /// Client id shown in the broker's logs and metrics.
    pub client_id: String,
    /// File that holds the SASL password (librdkafka's `sasl.password`).
    pub sasl_password_file: Option<PathBuf>,
    /// File that holds the password of the TLS key (librdkafka's `ssl.key.password`).
    pub ssl_key_password_file: Option<PathBuf>,
    /// Properties handed to librdkafka verbatim. Secrets do not belong here: use the `*_file` keys, or the
    /// environment (`VIAFLUX__KAFKA__PROPERTIES__SASL_PASSWORD`).
    #[serde(deserialize_with = "properties")]
    #[schemars(with = "BTreeMap<String, Property>")]
    pub properties: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["localhost:9092".to_owned()],
            group_id: "viaflux".to_owned(),
            client_id: "viaflux".to_owned(),
            sasl_password_file: None,
            ssl_key_password_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// A property of librdkafka: text, or a number or truth value that is handed on as text.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Property {
    Text(String),
    Truth(bool),
    Whole(i64),
    Real(f64),
}

fn properties<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let given = BTreeMap::<String, Property>::deserialize(from)?;
    Ok(given
        .into_iter()
        .map(|(key, value)| {
            let text = match value {
                Property::Text(t) => t,
                Property::Truth(b) => b.to_string(),
                Property::Whole(n) => n.to_string(),
                Property::Real(x) => x.to_string(),
            };
            (key, text)
        })
        .collect())
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for containers.
    Json,
}

/// Log on stderr.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Form of a line.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`; or directives such as `info,viaflux::engine=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// Metrics at `/metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Most series kept; what would be more is counted in `viaflux_metrics_dropped_series_total`.
    #[schemars(range(min = 100, max = 1_000_000))]
    pub max_series: u32,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { max_series: 10_000 }
    }
}
