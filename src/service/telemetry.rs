//! What the outside is told of a running engine: the board behind the API and the page, metrics, health.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::city::City;
use super::config::Source;
use super::driver::Outlet;
use crate::assess::{self, AlertType, Basis, Level, Severity};
use crate::engine::{Batch, Engine, LogIndex, Output};
use crate::ingest::{Counts, Feed, Format, Rejection};
use crate::sink::http::{Board, Health, RecordCounts, SourceStatus, Status};
use crate::sink::metrics::Metrics;
use crate::units::EventTime;

/// Shortest wall time between two looks at slow figures.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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

/// Keeps board and metrics up to date with the engine.
pub struct Telemetry {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    city: City,
    mode: &'static str,
    config_hash: String,
    logs: Vec<LogLabel>,
    /// "Now" on the clock that events are measured by: the wall's, or a scaled one.
    now: Arc<dyn Fn() -> EventTime + Send + Sync>,
    before: Vec<Counts>,
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
        now: Arc<dyn Fn() -> EventTime + Send + Sync>,
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
            matched: [0; 3],
            looked: None,
            unseen: true,
        }
    }

    /// Counts by source since the last call, and the watermarks of the sources.
    fn records(&mut self, engine: &Engine, batch: &Batch) {
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

    fn panes(&self, output: &Output) {
        let now = (self.now)();
        for closed in &output.closed {
            let delay = Duration::from_millis(now.since(closed.end).max(0) as u64);
            for label in &self.logs {
                self.metrics.event_delay(&label.source, delay);
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
        let mut by_basis: BTreeMap<String, u64> =
            Basis::ALL.iter().map(|b| (b.label().to_owned(), 0)).collect();
        let (mut live_mm, mut all_mm) = (0_u64, 0_u64);
        for (&i, state) in engine.assess().segments() {
            *by_basis.entry(state.basis.label().to_owned()).or_default() += 1;
            if state.basis == Basis::Live {
                live_mm += u64::from(self.city.network.segment(i).length_mm);
            }
        }
        for s in self.city.network.segments() {
            all_mm += u64::from(s.length_mm);
        }
        let [live, blended, typical] = [Basis::Live, Basis::Blended, Basis::Typical]
            .map(|b| by_basis.get(b.label()).copied().unwrap_or(0));
        let none = (self.city.network.segments().len() as u64).saturating_sub(live + blended + typical);
        by_basis.insert(Basis::None.label().to_owned(), none);
        self.metrics.segments_by_basis(live, blended, typical, none);
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
        if let Some(probes) = self.logs.iter().find(|l| l.feed == Feed::Probe) {
            self.metrics.vehicles_active(&probes.source, engine.vehicles());
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
            .set_status(self.status(engine, by_basis, live_mm, all_mm));
    }

    fn status(
        &self,
        engine: &Engine,
        segments_by_basis: BTreeMap<String, u64>,
        live_mm: u64,
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
            coverage_ratio: (all_mm > 0).then(|| live_mm as f64 / all_mm as f64),
        }
    }
}

impl Outlet for Telemetry {
    fn take(&mut self, engine: &Engine, batch: &Batch, output: &Output) -> Result<()> {
        self.records(engine, batch);
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

    /// The last batch before a pause is to be seen too.
    fn tick(&mut self, engine: &Engine) {
        self.look(engine);
    }
}
