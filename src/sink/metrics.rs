//! Every metric of viaflux: one catalogue of names, types, labels and helps, and one typed way to set each.
//!
//! Names follow Prometheus practice (prefix, base units, `_total` on counters). No vehicle, segment or alert
//! id is ever a label. `docs/metrics.md` is generated from the catalogue ([`Metrics::document`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ::prometheus::{IntCounter, Registry};

use super::prometheus::{Cap, Family, Kind, text};
use crate::assess::{Basis, Cause, Health as SensorHealth};
use crate::engine::Stage;
use crate::units::EventTime;

/// Prefix of all names but those of the process.
pub const PREFIX: &str = "viaflux_";

/// Values of the label `reason`: why a record was not used. A closed set.
pub const REASONS: [&str; 18] = [
    "oversize",
    "decode",
    "schema",
    "not_finite",
    "out_of_range",
    "null_island",
    "swapped",
    "out_of_area",
    "clock_future",
    "clock_unit",
    "late",
    "duplicate",
    "jump",
    "frozen",
    "no_fix",
    "unknown_sensor",
    "sensor_fault",
    "limit",
];

const DISTANCE: &[f64] = &[1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0];
const BATCH: &[f64] = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];
const DELAY: &[f64] = &[
    0.1, 0.3, 1.0, 3.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0,
];
const END_TO_END: &[f64] = &[
    0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0,
];
const DETECTION: &[f64] = &[
    15.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
];
const REQUEST: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// What is known of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Name without [`PREFIX`].
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Labels in the order in which their values are given.
    pub labels: &'static [&'static str],
    /// One sentence, as shown in `# HELP`.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($variant:ident $name:literal $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        /// The names of all metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        impl Metric {
            /// All metrics in the order of the document.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant,)*];

            /// Name, type, labels and help.
            pub const fn definition(self) -> Definition {
                match self {
                    $(Metric::$variant => Definition {
                        name: $name, kind: $kind, labels: &[$($label),*], help: $help,
                    },)*
                }
            }
        }
    };
}

catalogue! {
    BuildInfo "build_info" Kind::Gauge, ["version", "revision", "rustc"], "Constant 1 with what was built, from what, with what";
    IngestRecords "ingest_records_total" Kind::Counter, ["source", "format"], "Records read";
    IngestBytes "ingest_bytes_total" Kind::Counter, ["source"], "Payload bytes read";
    IngestRejectedRecords "ingest_rejected_records_total" Kind::Counter, ["source", "reason"], "Records that were not used, by reason";
    IngestLateRecords "ingest_late_records_total" Kind::Counter, ["source", "outcome"], "Records behind the greatest event time of their log, by what became of them";
    IngestLastEventTimestamp "ingest_last_event_timestamp_seconds" Kind::Gauge, ["source"], "Greatest accepted event time";
    WatermarkTimestamp "watermark_timestamp_seconds" Kind::Gauge, ["source"], "Event time before which the source promises nothing more";
    HeartbeatTimestamp "heartbeat_timestamp_seconds" Kind::Gauge, ["stage"], "Wall time at which the stage last finished work on a batch";
    KafkaConsumerLagRecords "kafka_consumer_lag_records" Kind::Gauge, ["topic", "partition"], "Records between the next one to read and the end of the log";
    KafkaConsumerLagSeconds "kafka_consumer_lag_seconds" Kind::Gauge, ["topic", "partition"], "Age of the next record to read, at most; 0 where all were read. Only of topics whose records the broker stamps";
    KafkaRebalances "kafka_rebalances_total" Kind::Counter, [], "Changes of the partitions assigned to this process";
    KafkaCommitFailures "kafka_commit_failures_total" Kind::Counter, [], "Offset commits that failed";
    MatchRecords "match_records_total" Kind::Counter, ["outcome"], "Probe positions by result of locating them on a road";
    MatchDistance "match_distance_meters" Kind::Histogram(DISTANCE), [], "Distance from position to matched road";
    StageDuration "stage_duration_seconds" Kind::Histogram(BATCH), ["stage"], "Time that a stage spent on a batch; of publish with the delivery to files, sinks and API";
    EventDelay "event_delay_seconds" Kind::Histogram(DELAY), ["source"], "Time from an event to the end of the work on the pane that holds it, on the clock of the run; not of files, whose events are of another day";
    EndToEndDuration "end_to_end_duration_seconds" Kind::Histogram(END_TO_END), [], "Time from the broker's timestamp of a record to the published result that holds it; only of topics whose records the broker stamps";
    QueueDepth "queue_depth" Kind::Gauge, ["stage"], "Batches and notices read from Kafka that wait for the engine; behind the first stage nothing waits";
    VehiclesActive "vehicles_active" Kind::Gauge, ["source"], "Vehicles seen in the last 5 min of event time, since the start of the process";
    Segments "segments" Kind::Gauge, ["basis"], "Segments by what their state rests on";
    Sensors "sensors" Kind::Gauge, ["health"], "Roadside sensors heard of, by health";
    SensorsFaulty "sensors_faulty" Kind::Gauge, ["cause"], "Roadside sensors that are not believed, by what is wrong with them";
    SegmentCoverageRatio "segment_coverage_ratio" Kind::Gauge, ["region", "road_class"], "Share of road length with live or blended data";
    RegionCongestionIndex "region_congestion_index" Kind::Gauge, ["region", "profile"], "Congestion index of the profile";
    RegionTravelTimeRatio "region_travel_time_ratio" Kind::Gauge, ["region"], "Travel time over free-flow travel time, at least 1";
    RegionSpeed "region_speed_meters_per_second" Kind::Gauge, ["region", "road_class"], "Space-mean speed";
    RegionLength "region_length_meters" Kind::Gauge, ["region", "level"], "Road length by congestion level";
    CorridorTravelTime "corridor_travel_time_seconds" Kind::Gauge, ["corridor"], "Travel time of a configured corridor";
    CorridorDelay "corridor_delay_seconds" Kind::Gauge, ["corridor"], "Travel time of a configured corridor beyond free flow";
    AlertsActive "alerts_active" Kind::Gauge, ["type", "severity"], "Open alerts";
    AlertTransitions "alert_transitions_total" Kind::Counter, ["type", "transition"], "Alerts opened, updated and resolved";
    AlertDetectionDelay "alert_detection_delay_seconds" Kind::Histogram(DETECTION), ["type"], "Event time from an alert's onset to its opening";
    SinkRecords "sink_records_total" Kind::Counter, ["sink"], "Messages written: lines of a file sink, messages that Kafka acknowledged";
    DlqRecords "dlq_records_total" Kind::Counter, ["source", "reason"], "Rejected records written out as samples: dead letters, lines of rejected.ndjson";
    HttpRequests "http_requests_total" Kind::Counter, ["route", "method", "code"], "HTTP requests answered";
    HttpRequestDuration "http_request_duration_seconds" Kind::Histogram(REQUEST), ["route", "method", "code"], "Time to the head of an HTTP answer";
    StreamClients "stream_clients" Kind::Gauge, [], "Open live streams";
    StreamClientsDropped "stream_clients_dropped_total" Kind::Counter, ["reason"], "Live streams ended by us (slow) or refused (limit)";
    MapInfo "map_info" Kind::Gauge, ["map_version", "datum"], "Constant 1 with the map in use";
    MapSegments "map_segments" Kind::Gauge, ["road_class"], "Segments of the map";
    MapLength "map_length_meters" Kind::Gauge, ["road_class"], "Length of the map's segments";
    MetricsDroppedSeries "metrics_dropped_series_total" Kind::Counter, [], "Series left out because metrics.max_series was reached";
}

/// Values that a label may take, where they are a closed set.
fn label_values(metric: Metric, label: &str) -> Option<Vec<&'static str>> {
    Some(match (metric, label) {
        (_, "reason") if metric == Metric::StreamClientsDropped => vec!["slow", "limit"],
        (_, "reason") => REASONS.to_vec(),
        (Metric::QueueDepth, "stage") => vec![Stage::Ingest.label()],
        (_, "stage") => Stage::ALL.map(Stage::label).to_vec(),
        (Metric::SinkRecords, "sink") => vec!["file", "kafka"],
        (_, "basis") => vec!["live", "blended", "typical", "none"],
        (_, "health") => SensorHealth::LABELS.to_vec(),
        (_, "cause") => Cause::ALL.map(Cause::label).to_vec(),
        (_, "level") => {
            vec![
                "free_flow",
                "heavy",
                "slow",
                "queuing",
                "stationary",
                "closed",
                "unknown",
            ]
        }
        (_, "transition") => vec!["opened", "updated", "resolved"],
        (Metric::IngestLateRecords, "outcome") => vec!["applied", "dropped"],
        (Metric::MatchRecords, "outcome") => vec!["matched", "ambiguous", "off_network"],
        _ => return None,
    })
}

/// What this binary was built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Version of the package.
    pub version: &'static str,
    /// Commit, if the build was told one.
    pub revision: &'static str,
    /// Compiler, if the build was told one.
    pub rustc: &'static str,
}

impl Build {
    /// This binary. Revision and compiler are found by `build.rs`; `VIAFLUX_REVISION` and `VIAFLUX_RUSTC` of the
    /// build's environment go before. `unknown` is said of a build outside of a checkout.
    pub const THIS: Build = Build {
        version: env!("CARGO_PKG_VERSION"),
        revision: match option_env!("VIAFLUX_REVISION") {
            Some(revision) => revision,
            None => "unknown",
        },
        rustc: match option_env!("VIAFLUX_RUSTC") {
            Some(rustc) => rustc,
            None => "unknown",
        },
    };
}

/// All metrics, with one method for each thing that can be said. Cheap enough for a call per batch or pane,
/// not for a call per record.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Vec<Family>,
    cap: Arc<Cap>,
}

impl Metrics {
    /// Registers every metric, with at most `max_series` series (buckets of histograms count one each; the
    /// metrics of the process do not count), and sets what is constant.
    pub fn new(max_series: usize) -> Self {
        let registry = Registry::new();
        let name = |m: Metric| format!("{PREFIX}{}", m.definition().name);
        let dropped = Metric::MetricsDroppedSeries;
        let dropped = IntCounter::new(name(dropped), dropped.definition().help)
            .expect("the name of the counter is valid");
        registry
            .register(Box::new(dropped.clone()))
            .expect("the registry is new");
        let cap = Arc::new(Cap::new(max_series, dropped));
        // The counter above stands outside the families: it must not be subject to the cap it reports on.
        let families = Metric::ALL
            .iter()
            .filter(|&&m| m != Metric::MetricsDroppedSeries)
            .map(|&m| {
                let d = m.definition();
                Family::register(&registry, &cap, &name(m), d.kind, d.labels, d.help)
                    .expect("names in the catalogue are valid and unique, as a test shows")
            })
            .collect();
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(
                ::prometheus::process_collector::ProcessCollector::for_self(),
            ))
            .expect("no metric of ours begins with process_");
        let metrics = Self {
            registry,
            families,
            cap,
        };
        metrics.start_at_zero();
        metrics
    }

    /// Counters without labels and closed sets begin at 0, so that the first event is seen as an increase.
    fn start_at_zero(&self) {
        let build = Build::THIS;
        self.of(Metric::BuildInfo)
            .set(&[build.version, build.revision, build.rustc], 1.0);
        self.of(Metric::KafkaRebalances).add(&[], 0);
        self.of(Metric::KafkaCommitFailures).add(&[], 0);
        self.of(Metric::StreamClients).set(&[], 0.0);
        for reason in ["slow", "limit"] {
            self.of(Metric::StreamClientsDropped).add(&[reason], 0);
        }
        for outcome in ["matched", "ambiguous", "off_network"] {
            self.of(Metric::MatchRecords).add(&[outcome], 0);
        }
    }

    fn of(&self, metric: Metric) -> &Family {
        // The one metric outside the families is the last of the catalogue, so positions agree.
        &self.families[metric as usize]
    }

    /// Everything as text 0.0.4 (content type [`super::prometheus::CONTENT_TYPE`]).
    ///
    /// # Errors
    /// If a family cannot be written.
    pub fn text(&self) -> Result<Vec<u8>, ::prometheus::Error> {
        text(&self.registry)
    }

    /// Series in use, of `max_series`.
    pub fn series(&self) -> usize {
        self.cap.used()
    }

    /// `n` records of `bytes` payload bytes together were read in `format` (`json`, `csv`, …).
    pub fn records_read(&self, source: &str, format: &str, n: u64, bytes: u64) {
        self.of(Metric::IngestRecords).add(&[source, format], n);
        self.of(Metric::IngestBytes).add(&[source], bytes);
    }

    /// `n` records were not used. `reason` is one of [`REASONS`].
    pub fn rejected(&self, source: &str, reason: &str, n: u64) {
        debug_assert!(
            REASONS.contains(&reason),
            "`{reason}` is no reason for a rejection"
        );
        self.of(Metric::IngestRejectedRecords).add(&[source, reason], n);
    }

    /// `applied` records came behind the greatest event time but within the lateness, `dropped` beyond it.
    pub fn late(&self, source: &str, applied: u64, dropped: u64) {
        self.of(Metric::IngestLateRecords)
            .add(&[source, "applied"], applied);
        self.of(Metric::IngestLateRecords)
            .add(&[source, "dropped"], dropped);
    }

    /// Greatest accepted event time of a source.
    pub fn last_event(&self, source: &str, at: EventTime) {
        self.of(Metric::IngestLastEventTimestamp)
            .set(&[source], seconds(at));
    }

    /// Watermark of a source.
    pub fn watermark(&self, source: &str, at: EventTime) {
        self.of(Metric::WatermarkTimestamp).set(&[source], seconds(at));
    }

    /// A stage finished a batch at wall time `now` after `took`.
    pub fn stage_ran(&self, stage: Stage, now: EventTime, took: Duration) {
        self.of(Metric::HeartbeatTimestamp)
            .set(&[stage.label()], seconds(now));
        self.of(Metric::StageDuration)
            .observe(&[stage.label()], took.as_secs_f64());
    }

    /// Batches and notices that wait for the engine.
    pub fn queue_depth(&self, depth: usize) {
        self.of(Metric::QueueDepth)
            .set(&[Stage::Ingest.label()], depth as f64);
    }

    /// Lag of a partition: records to the end of the log, and the age of the next one if it is known.
    pub fn lag(&self, topic: &str, partition: i32, records: u64, age: Option<Duration>) {
        let partition = partition.to_string();
        self.of(Metric::KafkaConsumerLagRecords)
            .set(&[topic, &partition], records as f64);
        match age {
            Some(age) => self
                .of(Metric::KafkaConsumerLagSeconds)
                .set(&[topic, &partition], age.as_secs_f64()),
            None => self
                .of(Metric::KafkaConsumerLagSeconds)
                .forget(&[topic, &partition]),
        }
    }

    /// A partition is no longer ours: its lag is not ours to tell.
    pub fn lag_forget(&self, topic: &str, partition: i32) {
        let partition = partition.to_string();
        self.of(Metric::KafkaConsumerLagRecords)
            .forget(&[topic, &partition]);
        self.of(Metric::KafkaConsumerLagSeconds)
            .forget(&[topic, &partition]);
    }

    /// The assigned partitions changed.
    pub fn rebalanced(&self) {
        self.of(Metric::KafkaRebalances).add(&[], 1);
    }

    /// `n` offset commits failed.
    pub fn commits_failed(&self, n: u64) {
        self.of(Metric::KafkaCommitFailures).add(&[], n);
    }

    /// Results of locating: `outcome` is `matched`, `ambiguous` or `off_network`.
    pub fn matched(&self, outcome: &str, n: u64) {
        debug_assert!(
            label_values(Metric::MatchRecords, "outcome").is_some_and(|v| v.contains(&outcome)),
            "`{outcome}` is no outcome of locating"
        );
        self.of(Metric::MatchRecords).add(&[outcome], n);
    }

    /// Distances from positions to their matched roads in mm.
    pub fn match_distances(&self, distances_mm: &[u32]) {
        let metres = distances_mm.iter().map(|mm| f64::from(*mm) / 1000.0);
        self.of(Metric::MatchDistance).observe_all(&[], metres);
    }

    /// `n` events of `source` took `delay` to the first state that holds them.
    pub fn event_delay(&self, source: &str, delay: Duration, n: u32) {
        let all = (0..n).map(|_| delay.as_secs_f64());
        self.of(Metric::EventDelay).observe_all(&[source], all);
    }

    /// `n` records took so long from the broker's timestamp to the published result.
    pub fn end_to_end(&self, took: Duration, n: u32) {
        let all = (0..n).map(|_| took.as_secs_f64());
        self.of(Metric::EndToEndDuration).observe_all(&[], all);
    }

    /// Vehicles seen in the last 5 min of event time.
    pub fn vehicles_active(&self, source: &str, n: usize) {
        self.of(Metric::VehiclesActive).set(&[source], n as f64);
    }

    /// Segments by what their state rests on.
    pub fn segments_by_basis(&self, sums: &[(Basis, u64)]) {
        for (basis, n) in sums {
            self.of(Metric::Segments).set(&[basis.label()], *n as f64);
        }
    }

    /// Health of all sensors.
    pub fn sensors(&self, healths: impl Iterator<Item = SensorHealth>) {
        let mut by_health = SensorHealth::LABELS.map(|label| (label, 0_u64));
        let mut by_cause = Cause::ALL.map(|cause| (cause, 0_u64));
        for health in healths {
            for (label, n) in &mut by_health {
                *n += u64::from(*label == health.label());
            }
            if let SensorHealth::Faulty(faulty) = health {
                for (cause, n) in &mut by_cause {
                    *n += u64::from(*cause == faulty);
                }
            }
        }
        for (label, n) in by_health {
            self.of(Metric::Sensors).set(&[label], n as f64);
        }
        for (cause, n) in by_cause {
            self.of(Metric::SensorsFaulty).set(&[cause.label()], n as f64);
        }
    }

    /// Share of road length of a class with live or blended data; a share that is not known is not told.
    pub fn coverage(&self, region: &str, road_class: &str, ratio: Option<f64>) {
        self.set_or_forget(Metric::SegmentCoverageRatio, &[region, road_class], ratio);
    }

    /// Congestion index and travel time ratio of a region; what is not known is not told.
    pub fn region_index(
        &self,
        region: &str,
        profile: &str,
        index: Option<f64>,
        travel_time_ratio: Option<f64>,
    ) {
        self.set_or_forget(Metric::RegionCongestionIndex, &[region, profile], index);
        self.set_or_forget(Metric::RegionTravelTimeRatio, &[region], travel_time_ratio);
    }

    /// Space-mean speed of a road class in a region, in m/s.
    pub fn region_speed(&self, region: &str, road_class: &str, meters_per_second: Option<f64>) {
        self.set_or_forget(Metric::RegionSpeed, &[region, road_class], meters_per_second);
    }

    /// Road length of a region at a congestion level, in metres.
    pub fn region_length(&self, region: &str, level: &str, meters: f64) {
        self.of(Metric::RegionLength).set(&[region, level], meters);
    }

    /// Travel time and delay of a corridor in seconds; what is not known is not told.
    pub fn corridor(&self, corridor: &str, travel_time_s: Option<f64>, delay_s: Option<f64>) {
        self.set_or_forget(Metric::CorridorTravelTime, &[corridor], travel_time_s);
        self.set_or_forget(Metric::CorridorDelay, &[corridor], delay_s);
    }

    /// Open alerts by (type, severity); what is not named has none.
    pub fn alerts_active(&self, counts: &BTreeMap<(&str, &str), u64>) {
        let kept: Vec<Vec<&str>> = counts.keys().map(|(t, s)| vec![*t, *s]).collect();
        self.of(Metric::AlertsActive).zero_all_but(&kept);
        for ((kind, severity), n) in counts {
            self.of(Metric::AlertsActive).set(&[kind, severity], *n as f64);
        }
    }

    /// An alert was `opened`, `updated` or `resolved`.
    pub fn alert_transition(&self, kind: &str, transition: &str) {
        self.of(Metric::AlertTransitions).add(&[kind, transition], 1);
    }

    /// Event time from an alert's onset to its opening.
    pub fn alert_detected(&self, kind: &str, delay: Duration) {
        self.of(Metric::AlertDetectionDelay)
            .observe(&[kind], delay.as_secs_f64());
    }

    /// Messages that a sink wrote.
    pub fn sink_wrote(&self, sink: &str, written: u64) {
        self.of(Metric::SinkRecords).add(&[sink], written);
    }

    /// Rejected records written out as samples. `reason` is one of [`REASONS`].
    pub fn dead_letters(&self, source: &str, reason: &str, n: u64) {
        debug_assert!(
            REASONS.contains(&reason),
            "`{reason}` is no reason for a rejection"
        );
        self.of(Metric::DlqRecords).add(&[source, reason], n);
    }

    /// An HTTP request was answered. `route` is the pattern of a route, never the path asked for.
    pub fn http_request(&self, route: &str, method: &str, code: u16, took: Duration) {
        let code = code.to_string();
        self.of(Metric::HttpRequests).add(&[route, method, &code], 1);
        self.of(Metric::HttpRequestDuration)
            .observe(&[route, method, &code], took.as_secs_f64());
    }

    /// A live stream began.
    pub fn stream_opened(&self) {
        self.of(Metric::StreamClients).shift(&[], 1.0);
    }

    /// A live stream ended, for whatever reason.
    pub fn stream_closed(&self) {
        self.of(Metric::StreamClients).shift(&[], -1.0);
    }

    /// A live stream was ended because its reader is too slow.
    pub fn stream_dropped_slow(&self) {
        self.of(Metric::StreamClientsDropped).add(&["slow"], 1);
    }

    /// A live stream was refused because there are as many as allowed.
    pub fn stream_refused(&self) {
        self.of(Metric::StreamClientsDropped).add(&["limit"], 1);
    }

    /// The map in use: version, datum of its coordinates, and segments and length in metres by road class.
    pub fn map(&self, version: &str, datum: &str, by_class: &BTreeMap<&str, (u64, f64)>) {
        self.of(Metric::MapInfo).set(&[version, datum], 1.0);
        for (class, (segments, meters)) in by_class {
            self.of(Metric::MapSegments).set(&[class], *segments as f64);
            self.of(Metric::MapLength).set(&[class], *meters);
        }
    }

    fn set_or_forget(&self, metric: Metric, labels: &[&str], value: Option<f64>) {
        match value {
            Some(value) => self.of(metric).set(labels, value),
            None => self.of(metric).forget(labels),
        }
    }

    /// The reference of all metrics, as Markdown: the contents of `docs/metrics.md`.
    pub fn document() -> String {
        let mut out = String::from(
            "# Metrics\n\n\
             Generated from the catalogue in `src/sink/metrics.rs`; do not edit.\n\n\
             Served at `/metrics` of the admin listener (`[admin] listen`) as Prometheus text 0.0.4. Units are \
             base units (seconds, metres, bytes, ratios of 0 to 1). No vehicle, segment or alert id is a label. \
             There are at most `metrics.max_series` series (each bucket of a histogram counts as one); what \
             does not fit is counted in `viaflux_metrics_dropped_series_total`. A value that is not known has \
             no series: it is never 0 or -1 instead.\n\n\
             | Name | Type | Labels | Meaning |\n|---|---|---|---|\n",
        );
        for &metric in Metric::ALL {
            let d = metric.definition();
            let labels = if d.labels.is_empty() {
                "–".to_owned()
            } else {
                d.labels
                    .iter()
                    .map(|l| format!("`{l}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let (name, kind, help) = (d.name, d.kind.word(), d.help);
            let _ = writeln!(out, "| `{PREFIX}{name}` | {kind} | {labels} | {help} |");
        }
        out.push_str(
            "\n## Labels with a closed set of values\n\n| Metric | Label | Values |\n|---|---|---|\n",
        );
        for &metric in Metric::ALL {
            let d = metric.definition();
            for label in d.labels {
                if let Some(values) = label_values(metric, label) {
                    let _ = writeln!(
                        out,
                        "| `{PREFIX}{}` | `{label}` | `{}` |",
                        d.name,
                        values.join("`, `")
                    );
                }
            }
        }
        out.push_str("\n## Buckets of histograms\n\n| Metric | Upper bounds |\n|---|---|\n");
        for &metric in Metric::ALL {
            let d = metric.definition();
            if let Kind::Histogram(buckets) = d.kind {
                let bounds: Vec<String> = buckets.iter().map(|b| format!("{b}")).collect();
                let _ = writeln!(out, "| `{PREFIX}{}` | {}, +Inf |", d.name, bounds.join(", "));
            }
        }
        out.push_str(
            "\n## The process\n\nOn Linux `process_cpu_seconds_total`, `process_open_fds`, `process_max_fds`, \
             `process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_start_time_seconds` and \
             `process_threads` come from the client library.\n",
        );
        out
    }
}

fn seconds(at: EventTime) -> f64 {
    at.ms() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn full() -> Metrics {
        let m = Metrics::new(10_000);
        let t = EventTime::from_ms(1_773_037_799_785);
        let d = Duration::from_millis(20);
        m.records_read("probes", "json", 10, 1380);
        m.rejected("probes", "late", 2);
        m.late("probes", 3, 2);
        m.last_event("probes", t);
        m.watermark("probes", t.plus_ms(-30_000));
        m.stage_ran(Stage::Ingest, t, d);
        m.queue_depth(4);
        m.lag("traffic.probe.position.v1", 3, 17, Some(d));
        m.rebalanced();
        m.commits_failed(1);
        m.matched("matched", 9);
        m.match_distances(&[4_200]);
        m.event_delay("probes", d, 2);
        m.end_to_end(d, 1);
        m.vehicles_active("probes", 12);
        m.segments_by_basis(&[(Basis::Live, 1), (Basis::None, 4)]);
        m.sensors([SensorHealth::Ok, SensorHealth::Faulty(Cause::Stuck)].into_iter());
        m.coverage("centre", "primary", Some(0.5));
        m.region_index("centre", "gbt33171-2016", Some(5.4), Some(1.6));
        m.region_speed("centre", "primary", Some(8.3));
        m.region_length("centre", "slow", 1200.0);
        m.corridor("ring", Some(600.0), Some(120.0));
        m.alerts_active(&BTreeMap::from([(("queue", "major"), 2)]));
        m.alert_transition("queue", "opened");
        m.alert_detected("queue", Duration::from_secs(90));
        m.sink_wrote("kafka", 5);
        m.dead_letters("probes", "decode", 1);
        m.http_request("/api/v1/segments", "GET", 200, d);
        m.stream_opened();
        m.stream_dropped_slow();
        m.map(
            "0123456789abcdef",
            "wgs84",
            &BTreeMap::from([("primary", (10, 1500.0))]),
        );
        m
    }

    fn full_text() -> String {
        String::from_utf8(full().text().unwrap()).unwrap()
    }

    #[test]
    fn every_metric_can_be_set_and_is_exposed() {
        let text = full_text();
        for &metric in Metric::ALL {
            let d = metric.definition();
            let line = format!("# TYPE {PREFIX}{} {}", d.name, d.kind.word());
            assert!(text.lines().any(|l| l == line), "missing: {line}");
        }
        assert!(text.contains("viaflux_watermark_timestamp_seconds{source=\"probes\"} 1773037769.785"));
        assert!(text.contains("viaflux_match_distance_meters_bucket{le=\"5\"} 1"));
        assert!(text.contains("viaflux_match_distance_meters_bucket{le=\"2\"} 0"));
        assert!(text.contains("viaflux_event_delay_seconds_count{source=\"probes\"} 2"));
        assert!(text.contains("viaflux_stream_clients 1"));
    }

    /// The rules of `promtool check metrics` that a catalogue can break, over the text itself.
    #[test]
    fn exposition_passes_the_lint() {
        let text = full_text();
        let mut helps = BTreeSet::new();
        let mut types: BTreeMap<&str, &str> = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("HELP has a text");
                assert!(!help.trim().is_empty(), "{name} has no help");
                assert!(helps.insert(name), "{name} has two HELP lines");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("TYPE has a kind");
                assert!(types.insert(name, kind).is_none(), "{name} has two TYPE lines");
            } else {
                let name = line.split(['{', ' ']).next().expect("a sample has a name");
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .filter_map(|s| name.strip_suffix(s))
                    .find(|f| types.get(f) == Some(&"histogram"))
                    .unwrap_or(name);
                assert!(types.contains_key(family), "{name} stands before its TYPE");
                assert!(helps.contains(family), "{name} has no HELP");
                let value: f64 = line
                    .rsplit(' ')
                    .next()
                    .and_then(|v| v.parse().ok())
                    .expect("a value");
                assert!(value.is_finite(), "{line}");
            }
        }
        for (name, kind) in &types {
            assert!(
                name.starts_with(PREFIX) || name.starts_with("process_"),
                "{name} lacks the prefix"
            );
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            for bad in [
                "_ms",
                "_milliseconds",
                "_kph",
                "_kmh",
                "_km",
                "_percent",
                "_minutes",
                "_hours",
                "_kb",
            ] {
                assert!(
                    !name.ends_with(bad) && !name.contains(&format!("{bad}_")),
                    "{name}: not a base unit"
                );
            }
            for reserved in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(reserved), "{name} ends in {reserved}");
            }
            if *kind == "histogram" {
                assert!(
                    name.ends_with("_seconds") || name.ends_with("_meters"),
                    "{name} has no unit"
                );
            }
        }
        for &metric in Metric::ALL {
            let d = metric.definition();
            for label in d.labels {
                assert!(
                    !["le", "quantile", "instance", "job"].contains(label),
                    "{}: label {label}",
                    d.name
                );
                assert!(
                    !d.name.contains(&format!("by_{label}")),
                    "{} repeats {label}",
                    d.name
                );
            }
            if let Kind::Histogram(buckets) = d.kind {
                assert!(
                    buckets.is_sorted_by(|a, b| a < b),
                    "{} has unordered buckets",
                    d.name
                );
            }
        }
    }

    #[test]
    fn names_are_unique_and_the_uncapped_one_is_last() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|m| m.definition().name).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        assert_eq!(Metric::ALL.last(), Some(&Metric::MetricsDroppedSeries));
    }

    #[test]
    fn the_cap_holds_and_says_so() {
        let m = Metrics::new(100);
        for i in 0..500 {
            m.vehicles_active(&format!("source-{i}"), i);
        }
        assert!(m.series() <= 100);
        let text = String::from_utf8(m.text().unwrap()).unwrap();
        let samples = text
            .lines()
            .filter(|l| l.starts_with("viaflux_vehicles_active{"))
            .count();
        let dropped = text
            .lines()
            .find_map(|l| l.strip_prefix("viaflux_metrics_dropped_series_total "))
            .and_then(|v| v.parse::<usize>().ok());
        // Refusals are remembered up to the cap, so that the memory of them is bounded too.
        assert_eq!(dropped, Some((500 - samples).min(100)));
    }

    #[test]
    fn what_is_unknown_has_no_series() {
        let m = full();
        m.region_index("centre", "gbt33171-2016", None, None);
        m.lag_forget("traffic.probe.position.v1", 3);
        m.alerts_active(&BTreeMap::new());
        let text = String::from_utf8(m.text().unwrap()).unwrap();
        assert!(!text.contains("viaflux_region_congestion_index{"));
        assert!(!text.contains("viaflux_kafka_consumer_lag_records{"));
        assert!(
            text.contains("viaflux_alerts_active{severity=\"major\",type=\"queue\"} 0"),
            "{text}"
        );
    }

    /// `VIAFLUX_WRITE_DOCS=1 cargo test` writes the file anew.
    #[test]
    fn the_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("VIAFLUX_WRITE_DOCS").is_some() {
            std::fs::write(path, Metrics::document()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == Metrics::document(),
            "{path} differs from the catalogue; write it anew with VIAFLUX_WRITE_DOCS=1 cargo test --lib sink::metrics"
        );
    }
}
