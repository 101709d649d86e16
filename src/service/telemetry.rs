//! What the outside is told of a running engine: the board behind the API and the page, metrics, health.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::city::City;
use super::config::Source;
use super::driver::{Account, Outlet};
use crate::assess::{self, AlertType, Basis, Level, Severity};
use crate::engine::{Batch, Engine, LogIndex, Output, Stage};
use crate::ingest::{Counts, Feed, Format, Rejection, SubjectKey};
use crate::publish::sensor_json;
use crate::sink::http::{Board, Health, RecordCounts, SourceStatus, Status};
use crate::sink::metrics::Metrics;
use crate::units::EventTime;

/// Shortest wall time between two looks at slow figures.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Event time within which a vehicle was seen to count as active, in ms.
const ACTIVE_MS: i64 = 300_000;
/// Append times are kept to this many ms: finer than any bucket of the histogram that they end in.
const APPENDED_MS: i64 = 100;
/// Seconds of event time of which arrivals are kept: far more than a pane ever waits where all goes well.
const ARRIVALS_MAX: usize = 7_200;

/// What is known of a log besides its records.
#[derive(Clone, Debug)]
pub struct LogLabel {
    /// Id of its source in the configuration.
    pub source: String,
    /// What it reports.
    pub feed: Feed,
    /// Encoding of its records.
    pub format: Format,
}

impl LogLabel {
    /// The label of a log of `source`.
    pub fn of(source: &Source) -> Self {
        Self {
            source: source.name().to_owned(),
            feed: source.feed,
            format: source.format.unwrap_or_default(),
        }
    }
}

/// "Now" on the clock that events are measured by: the wall's, or a scaled one; `None` where events do not come as
/// they happen (files), so that their age says nothing.
pub type EventClock = Option<Arc<dyn Fn() -> EventTime + Send + Sync>>;

/// Records that wait for the close of the pane that holds them: by second of event time, then log and append time.
#[derive(Debug, Default)]
struct Arrivals {
    waiting: BTreeMap<i64, BTreeMap<(LogIndex, Option<i64>), u32>>,
    /// End of the last pane closed.
    closed: Option<EventTime>,
}

impl Arrivals {
    fn take(&mut self, output: &Output) {
        for seen in &output.seen {
            // What comes behind a closed pane is refused, and in no state.
            if self.closed.is_some_and(|end| seen.time < end) {
                continue;
            }
            let appended = seen.append_time.map(|at| at.ms().div_euclid(APPENDED_MS));
            let second = self.waiting.entry(seen.time.ms().div_euclid(1000)).or_default();
            *second.entry((seen.log, appended)).or_default() += 1;
        }
        while self.waiting.len() > ARRIVALS_MAX {
            self.waiting.pop_first();
        }
    }

    /// What the panes up to `end` hold: log, middle of its second, middle of its append time, number.
    fn close(&mut self, end: EventTime) -> Vec<(LogIndex, EventTime, Option<EventTime>, u32)> {
        self.closed = Some(end);
        let later = self.waiting.split_off(&end.ms().div_euclid(1000));
        let held = std::mem::replace(&mut self.waiting, later);
        let one = |(second, arrived): (i64, BTreeMap<(LogIndex, Option<i64>), u32>)| {
            let time = EventTime::from_ms(second * 1000 + 500);
            arrived.into_iter().map(move |((log, appended), n)| {
                let appended = appended.map(|a| EventTime::from_ms(a * APPENDED_MS + APPENDED_MS / 2));
                (log, time, appended, n)
            })
        };
        held.into_iter().flat_map(one).collect()
    }
}

/// Keeps board and metrics up to date with the engine.
pub struct Telemetry {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    city: City,
    mode: &'static str,
    config_hash: String,
    logs: Vec<LogLabel>,
    now: EventClock,
    before: Vec<Counts>,
    arrivals: Arrivals,
    /// When each vehicle was seen last, by source.
    vehicles: BTreeMap<String, HashMap<SubjectKey, EventTime>>,
    /// Matched, ambiguous and off-network fixes told so far.
    matched: [u64; 3],
    looked: Option<Instant>,
    /// Something came since the last look.
    unseen: bool,
}

/// The wall clock.
pub fn wall_clock() -> EventTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EventTime::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Telemetry {
    /// Telemetry of an engine over `logs`, by [`LogIndex`].
    #[expect(clippy::too_many_arguments, reason = "each is a door or a label of its own")]
    pub fn new(
        board: Arc<Board>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        city: City,
        mode: &'static str,
        config_hash: String,
        logs: Vec<LogLabel>,
        now: EventClock,
    ) -> Self {
        let before = vec![Counts::default(); logs.len()];
        let mut by_class: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
        for s in city.network.segments() {
            let entry = by_class.entry(s.class.label()).or_default();
            entry.0 += 1;
            entry.1 += f64::from(s.length_mm) / 1000.0;
        }
        metrics.map(city.network.version(), "wgs84", &by_class);
        Self {
            board,
            metrics,
            health,
            city,
            mode,
            config_hash,
            logs,
            now,
            before,
            arrivals: Arrivals::default(),
            vehicles: BTreeMap::new(),
            matched: [0; 3],
            looked: None,
            unseen: true,
        }
    }

    /// Counts by source since the last call, and the watermarks of the sources.
    fn records(&mut self, engine: &Engine, batch: &Batch, output: &Output) {
        let mut bytes = vec![0_u64; self.logs.len()];
        for record in batch.iter() {
            bytes[usize::from(record.log)] += record.value.len() as u64;
        }
        for (i, label) in self.logs.iter().enumerate() {
            let counts = engine.log_counts(i as LogIndex);
            let before = &self.before[i];
            let format = match label.format {
                Format::Json => "json",
                Format::Csv => "csv",
            };
            self.metrics
                .records_read(&label.source, format, counts.read - before.read, bytes[i]);
            for reason in Rejection::ALL {
                let k = reason as usize;
                let new = counts.rejected[k].saturating_sub(before.rejected[k]);
                if new > 0 {
                    self.metrics.rejected(&label.source, reason.label(), new);
                    if reason == Rejection::Late {
                        self.metrics.late(&label.source, 0, new);
                    }
                }
            }
            self.before[i] = counts.clone();
        }
        for (log, applied) in &output.behind {
            self.metrics
                .late(&self.logs[usize::from(*log)].source, *applied, 0);
        }
        self.metrics.match_distances(&output.distances_mm);
        for seen in &output.seen {
            let label = &self.logs[usize::from(seen.log)];
            if label.feed == Feed::Probe {
                if !self.vehicles.contains_key(&label.source) {
                    self.vehicles.insert(label.source.clone(), HashMap::new());
                }
                if let Some(known) = self.vehicles.get_mut(&label.source) {
                    let last = known.entry(seen.subject).or_insert(seen.time);
                    *last = seen.time.max(*last);
                }
            }
        }
        if self.now.is_some() {
            self.arrivals.take(output);
        }
        let mut sources: BTreeMap<&str, (Option<EventTime>, Option<EventTime>)> = BTreeMap::new();
        for (i, label) in self.logs.iter().enumerate() {
            let log = i as LogIndex;
            let entry = sources
                .entry(&label.source)
                .or_insert((Some(EventTime::from_ms(i64::MAX)), None));
            entry.0 = entry.0.min(engine.watermark(log));
            entry.1 = entry.1.max(engine.greatest(log));
        }
        for (source, (watermark, greatest)) in sources {
            if let Some(w) = watermark.filter(|w| w.ms() < i64::MAX) {
                self.metrics.watermark(source, w);
            }
            if let Some(greatest) = greatest {
                self.metrics.last_event(source, greatest);
            }
        }
    }

    fn panes(&mut self, output: &Output) {
        for closed in &output.closed {
            if let Some(clock) = &self.now {
                let now = clock();
                let since = |then: EventTime| Duration::from_millis(now.since(then).max(0).unsigned_abs());
                for (log, time, appended, n) in self.arrivals.close(closed.end) {
                    let source = &self.logs[usize::from(log)].source;
                    self.metrics.event_delay(source, since(time), n);
                    if let Some(appended) = appended {
                        self.metrics.end_to_end(since(appended), n);
                    }
                }
            }
            for alert in &closed.assessment.alerts {
                self.metrics
                    .alert_transition(alert.kind.label(), alert.transition.label());
                if alert.transition == assess::Transition::Opened {
                    let after = alert.updated_at.since(alert.starts_at).max(0) as u64;
                    self.metrics
                        .alert_detected(alert.kind.label(), Duration::from_millis(after));
                }
            }
            for region in &closed.assessment.regions {
                let id = &self.city.places.regions[region.region as usize].id;
                let share = |p: u32| f64::from(p) / 1000.0;
                self.metrics.region_index(
                    id,
                    &self.city.profile.id,
                    region.index_centi.map(|c| f64::from(c) / 100.0),
                    region.tti_permille.map(share),
                );
                self.metrics
                    .region_speed(id, "all", region.mean_speed.map(|v| f64::from(v) / 1000.0));
                self.metrics
                    .coverage(id, "all", Some(share(region.coverage_permille)));
                for (level, length) in Level::ALL.iter().zip(region.length_m) {
                    self.metrics.region_length(id, level.label(), length as f64);
                }
            }
            for corridor in &closed.assessment.corridors {
                let id = &self.city.places.corridors[corridor.corridor as usize].id;
                let seconds = corridor.travel_time_ms.map(|t| t as f64 / 1000.0);
                let delay = seconds.map(|s| (s - corridor.free_flow_ms as f64 / 1000.0).max(0.0));
                self.metrics.corridor(id, seconds, delay);
            }
        }
    }

    /// Figures that need a walk over all states; not with every batch.
    fn look(&mut self, engine: &Engine) {
        if !self.unseen || self.looked.is_some_and(|l| l.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        self.unseen = false;
        self.health.beat();
        let (mut covered_mm, mut all_mm) = (0_u64, 0_u64);
        for (&i, state) in engine.assess().segments() {
            // As of regions and corridors: what rests on what was measured, here or on the link.
            if matches!(state.basis, Basis::Live | Basis::Blended) {
                covered_mm += u64::from(self.city.network.segment(i).length_mm);
            }
        }
        for s in self.city.network.segments() {
            all_mm += u64::from(s.length_mm);
        }
        let sums = engine.segments_by_basis();
        self.metrics.segments_by_basis(&sums);
        let by_basis = sums.into_iter().map(|(b, n)| (b.label().to_owned(), n)).collect();
        let mut alerts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for kind in AlertType::ALL {
            for severity in Severity::ALL {
                alerts.insert((kind.label(), severity.label()), 0);
            }
        }
        for alert in engine.assess().open_alerts() {
            *alerts
                .entry((alert.kind.label(), alert.severity.label()))
                .or_default() += 1;
        }
        self.metrics.alerts_active(&alerts);
        self.metrics.sensors(engine.assess().sensors().map(|s| s.health));
        self.board.set_sensors(self.sensors(engine));
        for (source, known) in &mut self.vehicles {
            let logs = (0_u16..).zip(&self.logs).filter(|(_, l)| l.source == *source);
            // The guarded clock of the logs decides: a single fix from the future must not empty the list.
            let Some(newest) = logs.filter_map(|(log, _)| engine.greatest(log)).max() else {
                continue;
            };
            known.retain(|_, last| newest.since(*last) <= ACTIVE_MS);
            let active = known.values().filter(|last| **last <= newest).count();
            self.metrics.vehicles_active(source, active);
        }
        let located = engine.locate_counts();
        let sure = located.matched - located.ambiguous;
        let totals = [
            ("matched", sure),
            ("ambiguous", located.ambiguous),
            ("off_network", located.off_road),
        ];
        for (k, (outcome, total)) in totals.into_iter().enumerate() {
            self.metrics
                .matched(outcome, total.saturating_sub(self.matched[k]));
            self.matched[k] = total;
        }
        self.board
            .set_status(self.status(engine, by_basis, covered_mm, all_mm));
    }

    /// The list of sensors by id.
    fn sensors(&self, engine: &Engine) -> Vec<Vec<u8>> {
        let offsets = &self.city.sites.offsets_mm;
        let mut listed: Vec<(String, Vec<u8>)> = engine
            .assess()
            .sensors()
            .map(|s| {
                let id = match engine.sensor_id(s.sensor) {
                    Some(id) => id.to_owned(),
                    None => format!("{:016x}", s.sensor.0),
                };
                let offset = offsets.get(&s.sensor).copied();
                let body = sensor_json(&self.city.network, &id, offset, &s);
                (id, body)
            })
            .collect();
        listed.sort_unstable();
        listed.into_iter().map(|(_, body)| body).collect()
    }

    fn status(
        &self,
        engine: &Engine,
        segments_by_basis: BTreeMap<String, u64>,
        covered_mm: u64,
        all_mm: u64,
    ) -> Status {
        let counts = engine.counts();
        let mut sources: Vec<SourceStatus> = Vec::new();
        for (i, label) in self.logs.iter().enumerate() {
            let log = i as LogIndex;
            let watermark = engine.watermark(log).filter(|w| w.ms() < i64::MAX);
            match sources.iter_mut().find(|s| s.id == label.source) {
                Some(s) => {
                    s.records_read += engine.log_counts(log).read;
                    s.watermark = s.watermark.min(watermark);
                    s.last_event_time = s.last_event_time.max(engine.greatest(log));
                }
                None => sources.push(SourceStatus {
                    id: label.source.clone(),
                    feed: match label.feed {
                        Feed::Probe => "probe".to_owned(),
                        Feed::Sensor => "sensor".to_owned(),
                    },
                    records_read: engine.log_counts(log).read,
                    watermark,
                    last_event_time: engine.greatest(log),
                    lag_records: None,
                }),
            }
        }
        Status {
            mode: self.mode.to_owned(),
            config_hash: Some(self.config_hash.clone()),
            records: RecordCounts {
                read: counts.read,
                used: counts.used,
                rejected: Rejection::ALL
                    .iter()
                    .filter(|r| counts.rejected[**r as usize] > 0)
                    .map(|r| (r.label().to_owned(), counts.rejected[*r as usize]))
                    .collect(),
            },
            sources,
            segments_by_basis,
            coverage_ratio: (all_mm > 0).then(|| covered_mm as f64 / all_mm as f64),
        }
    }
}

impl Outlet for Telemetry {
    fn take(&mut self, engine: &Engine, batch: &Batch, output: &Output) -> Result<()> {
        self.records(engine, batch, output);
        self.panes(output);
        if !output.publications.is_empty() {
            self.board.publish(&output.publications);
        }
        if let Some(closed) = output.closed.last() {
            self.board.pane_closed(closed.end, &closed.digest.to_string());
            self.health.pass("data");
        }
        self.unseen = true;
        self.look(engine);
        Ok(())
    }

    fn account(&mut self, account: &Account) {
        let now = wall_clock();
        for (stage, spent) in Stage::ALL.into_iter().zip(account.spent) {
            if let Some(spent) = spent {
                self.metrics.stage_ran(stage, now, spent);
            }
        }
        if let Some(lines) = account.lines {
            self.metrics.sink_wrote("file", lines);
        }
        for ((log, reason), n) in &account.samples {
            let source = &self.logs[usize::from(*log)].source;
            self.metrics.dead_letters(source, reason.label(), *n);
        }
    }

    /// The last batch before a pause is to be seen too.
    fn tick(&mut self, engine: &Engine) {
        self.look(engine);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::assess::Corridor;
    use crate::engine::Record;
    use crate::network::sites::parse_sites;
    use crate::network::{BuildSettings, Network};
    use crate::service::city::LogDoor;
    use crate::service::config::{Config, SourceKind};
    use crate::service::driver::{Driver, Earlier, Results};
    use crate::service::shell::Shell;
    use crate::simulate::{self, Simulation};
    use crate::sink::file::OutputFile;
    use crate::sink::metrics::{Metric, PREFIX};

    /// Series that only a run on Kafka has; `tests/live` looks for them.
    const OF_KAFKA: [Metric; 3] = [
        Metric::KafkaConsumerLagRecords,
        Metric::KafkaConsumerLagSeconds,
        Metric::QueueDepth,
    ];

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The value of a sample, by the beginning of its line up to the value.
    fn value(text: &str, series: &str) -> f64 {
        text.lines()
            .find_map(|l| l.strip_prefix(series)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {series} in\n{text}"))
    }

    /// A small city under way: every metric that is documented is emitted, and means what it says.
    #[test]
    fn a_run_emits_every_metric_of_the_catalogue() {
        let mut simulation = Simulation::new(simulate::Settings {
            vehicles: 900,
            size_m: 2_000.0,
            probe_share: 1.0,
            sensor_stations: 10,
            ..simulate::Settings::default()
        });
        let (network, _) = Network::build(simulation.osm(), &BuildSettings::default());
        let sites = parse_sites(&serde_json::to_string(simulation.stations()).unwrap()).unwrap();
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".to_owned();
        config.admin.listen = "127.0.0.1:0".to_owned();
        config.assess.region.coverage_min = 0.0;
        config.assess.alert.open_of_min = [1, 1];
        config.assess.alert.open_ratio = 0.54;
        for source in &mut config.source {
            source.kind = SourceKind::Simulated;
            source.preset = Some("simulated-city".to_owned());
        }
        let mut city = City::of(Arc::new(network), &sites, &config).unwrap();
        let mut places = (*city.places).clone();
        let segments = vec![places.regions[0].segments[0]];
        places.corridors.push(Corridor {
            id: "short".to_owned(),
            name: "short".to_owned(),
            segments,
        });
        city.places = Arc::new(places);
        let clock = Arc::new(AtomicI64::new(simulation.now().ms()));
        let shown = Arc::clone(&clock);
        let now = move || EventTime::from_ms(shown.load(Ordering::Relaxed));
        let shell = Shell::open(&config, Arc::clone(&city.network) as Arc<_>, now.clone()).unwrap();
        let telemetry = Telemetry::new(
            Arc::clone(&shell.board),
            Arc::clone(&shell.metrics),
            Arc::clone(&shell.health),
            city.clone(),
            "demo",
            config.hash(),
            config.source.iter().map(LogLabel::of).collect(),
            Some(Arc::new(now)),
        );
        let door = |name| LogDoor::Whole {
            name,
            header: None,
            lanes: 2,
        };
        let logs = config
            .source
            .iter()
            .map(|s| city.log(&config, s, door(s.name()), false).unwrap())
            .collect();
        let engine = Engine::new(city.setup(&config, logs, 1, true)).measured();
        let dir = tempfile::tempdir().unwrap();
        let files = [OutputFile::SegmentStates, OutputFile::Rejected];
        let mut driver = Driver::new(
            engine,
            Some(Results {
                dir: dir.path(),
                files: &files,
                earlier: Earlier::Replaced,
            }),
            vec![Box::new(telemetry)],
            None,
            Duration::MAX,
        )
        .unwrap();
        let (mut records, mut batch, mut offsets) = (Vec::new(), Batch::default(), [0_u64; 2]);
        for _ in 0..480 {
            let at = simulation.now().plus_ms(1000);
            clock.store(at.ms(), Ordering::Relaxed);
            simulation.step_to(at, &mut records);
            for record in records.drain(..) {
                let log = u16::from(record.feed == simulate::Feed::Sensor);
                offsets[usize::from(log)] += 1;
                batch.push(Record {
                    log,
                    offset: offsets[usize::from(log)],
                    append_time: Some(record.arrival),
                    control: false,
                    key: &[],
                    value: &record.line,
                });
            }
            driver.take(&batch).unwrap();
            batch.clear();
        }
        // Twice LOOK_EVERY: the last look is at the end.
        std::thread::sleep(2 * LOOK_EVERY);
        driver.tick().unwrap();
        get(shell.handle().public_address(), "/api/v1/status");
        let text = get(shell.handle().admin_address(), "/metrics");
        let mut silent: Vec<&str> = Vec::new();
        for &metric in Metric::ALL.iter().filter(|m| !OF_KAFKA.contains(m)) {
            let name = metric.definition().name;
            let mut samples = text
                .lines()
                .filter_map(|l| l.strip_prefix(PREFIX)?.strip_prefix(name));
            if !samples.any(|rest| rest.starts_with(['{', ' ']) || rest.starts_with("_count")) {
                silent.push(name);
            }
        }
        assert!(
            silent.is_empty(),
            "documented, but never emitted: {silent:?}\n{text}"
        );

        for stage in Stage::ALL {
            let label = stage.label();
            value(
                &text,
                &format!("viaflux_heartbeat_timestamp_seconds{{stage=\"{label}\"}}"),
            );
            value(
                &text,
                &format!("viaflux_stage_duration_seconds_count{{stage=\"{label}\"}}"),
            );
        }
        let counts = driver.engine().locate_counts();
        assert_eq!(
            value(&text, "viaflux_match_distance_meters_count"),
            counts.matched as f64
        );
        // Of vehicles that were seen 5 minutes ago, not of all that were ever tracked.
        let active = value(&text, "viaflux_vehicles_active{source=\"probes\"}");
        assert!(
            active > 100.0 && active < driver.engine().vehicles() as f64,
            "{active}"
        );
        // A sensor tells of a whole interval, a vehicle of this moment.
        let mean = |source: &str| {
            let of = |what| {
                value(
                    &text,
                    &format!("viaflux_event_delay_seconds_{what}{{source=\"{source}\"}}"),
                )
            };
            of("sum") / of("count")
        };
        assert!((1.0..300.0).contains(&mean("probes")), "{}", mean("probes"));
        assert!((mean("probes") - mean("sensors")).abs() > 0.5);
        assert!(
            value(
                &text,
                "viaflux_ingest_late_records_total{outcome=\"applied\",source=\"probes\"}"
            ) > 0.0
        );
        let lines = value(&text, "viaflux_sink_records_total{sink=\"file\"}");
        let summary = driver.summary("", Duration::from_secs(1), 1);
        let told = summary["published"]["segment_state"].as_u64().unwrap() as f64;
        let refused: f64 = text
            .lines()
            .filter(|l| l.starts_with("viaflux_dlq_records_total{"))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        assert!(
            refused > 0.0 && lines == told + refused,
            "{lines} {told} {refused}"
        );
        // The summary and the metrics speak of the same.
        for (outcome, key) in [
            ("matched", "matched"),
            ("ambiguous", "ambiguous"),
            ("off_network", "off_road"),
        ] {
            let series = format!("viaflux_match_records_total{{outcome=\"{outcome}\"}}");
            assert_eq!(
                Some(value(&text, &series) as u64),
                summary["located"][key].as_u64()
            );
        }
        for basis in Basis::ALL.map(Basis::label) {
            let series = format!("viaflux_segments{{basis=\"{basis}\"}}");
            assert_eq!(
                Some(value(&text, &series) as u64),
                summary["segments"][basis].as_u64()
            );
        }
        assert!(summary["segments"]["none"].as_u64().unwrap() > 0);
        shell.close();
    }

    #[test]
    fn arrivals_wait_for_their_pane() {
        let seen = |time, append: Option<i64>| crate::engine::Seen {
            log: 0,
            subject: SubjectKey(1),
            time: EventTime::from_ms(time),
            append_time: append.map(EventTime::from_ms),
        };
        let mut arrivals = Arrivals::default();
        let mut output = Output {
            seen: vec![
                seen(29_999, Some(31_040)),
                seen(29_100, Some(31_010)),
                seen(30_000, None),
            ],
            ..Output::default()
        };
        arrivals.take(&output);
        let end = EventTime::from_ms(30_000);
        let held = arrivals.close(end);
        let middle = (EventTime::from_ms(29_500), Some(EventTime::from_ms(31_050)));
        assert_eq!(held, [(0, middle.0, middle.1, 2)]);
        // Behind the pane: in no state.
        output.seen = vec![seen(29_000, None)];
        arrivals.take(&output);
        assert_eq!(arrivals.close(end), []);
        assert_eq!(arrivals.close(EventTime::from_ms(60_000)).len(), 1);
    }
}
