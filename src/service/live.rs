//! The loop around the engine while Kafka is its source: batches in, idle marks and offsets out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::city::{City, LogDoor};
use super::config::{Config, Sink, SinkKind, Source, Start as ConfiguredStart};
use super::driver::{Driver, Outlet, explain, refused};
use super::idle::{IDLE_TIMEOUT_MS, IdleWatch};
use super::journal::{Entry, Journal, Pending};
use super::run::{kafka_sources, telemetry};
use super::shell::Shell;
use super::telemetry::{LogLabel, wall_clock};
use crate::engine::{Batch, Engine, LogIndex, LogSpec, Output};
use crate::ingest::{Control, Field};
use crate::publish::Topic;
use crate::sink::kafka::{DeadLetter, KafkaSink, TopicSpec, ensure_topics};
use crate::sink::metrics::Metrics;
use crate::source::kafka::{
    Appended, KafkaConnection, KafkaInput, KafkaSource, KafkaSourceError, LogName, SourceEvent, Start, Topics,
};
use crate::units::EventTime;

/// How often timers are looked at while nothing comes.
const TICK: Duration = Duration::from_millis(200);
/// Wall time between two hints of the offsets to Kafka.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Time for the source to leave its group.
const LEAVE: Duration = Duration::from_secs(8);
/// Time for the broker to acknowledge what was published.
const FLUSH: Duration = Duration::from_secs(100);
/// Dead letters a second, over all sources.
const DEAD_LETTERS_PER_S: u32 = 50;

/// A connection with its topics, before the engine is made.
pub struct Live<'a> {
    config: &'a Config,
    city: &'a City,
    shell: &'a Shell,
    connection: KafkaConnection,
    topics: Topics,
    /// Place in the configuration's Kafka sources, by log.
    source_of: Vec<usize>,
}

/// The connection that a configuration names.
///
/// # Errors
/// A password file that cannot be read.
pub fn connection(config: &Config) -> Result<KafkaConnection> {
    let kafka = &config.kafka;
    let mut properties = kafka.properties.clone();
    let secrets = [
        ("sasl.password", &kafka.sasl_password_file),
        ("ssl.key.password", &kafka.ssl_key_password_file),
    ];
    for (property, file) in secrets {
        if let Some(path) = file {
            let secret = std::fs::read_to_string(path)
                .with_context(|| format!("reading the {property} from {}", path.display()))?;
            properties.insert(property.to_owned(), secret.trim_end().to_owned());
        }
    }
    Ok(KafkaConnection {
        brokers: kafka.brokers.join(","),
        group_id: kafka.group_id.clone(),
        client_id: kafka.client_id.clone(),
        properties,
    })
}

/// The inputs of a configuration, in the order of its sources.
pub fn inputs(sources: &[&Source]) -> Vec<KafkaInput> {
    sources
        .iter()
        .map(|s| KafkaInput {
            topic: s.topic().to_owned(),
            start: match s.start {
                ConfiguredStart::Ago(ms) => Start::Ago(ms),
                ConfiguredStart::Earliest => Start::Earliest,
                ConfiguredStart::Latest => Start::Latest,
            },
        })
        .collect()
}

fn topic_names(sink: &Sink) -> BTreeMap<Topic, String> {
    BTreeMap::from([
        (Topic::SegmentState, sink.topics.segment_state.clone()),
        (Topic::Corridor, sink.topics.corridor.clone()),
        (Topic::Region, sink.topics.region.clone()),
        (Topic::AlertEvent, sink.topics.alert_event.clone()),
        (Topic::AlertState, sink.topics.alert_state.clone()),
    ])
}

fn topic_specs<'t>(sink: &Sink, inputs: impl Iterator<Item = &'t str>) -> Vec<TopicSpec> {
    let names = topic_names(sink);
    let mut specs: Vec<TopicSpec> = names
        .iter()
        .map(|(topic, name)| TopicSpec::output(*topic, name, 1))
        .collect();
    if sink.dead_letters {
        specs.extend(inputs.map(TopicSpec::dead_letters));
    }
    specs
}

/// The topics that a configuration writes to, if any, and whether missing ones are to be created. `inputs` are
/// the topics that it reads.
pub(crate) fn output_topics<'t>(
    config: &Config,
    inputs: impl Iterator<Item = &'t str>,
) -> Option<(bool, Vec<TopicSpec>)> {
    let sink = config.sink.iter().find(|s| s.kind == SinkKind::Kafka)?;
    Some((sink.create_topics, topic_specs(sink, inputs)))
}

impl<'a> Live<'a> {
    /// Connects and looks up the topics.
    ///
    /// # Errors
    /// No broker, wrong credentials, unknown topics: what was tried and what to do.
    pub fn open(config: &'a Config, city: &'a City, shell: &'a Shell) -> Result<Self> {
        let connection = connection(config)?;
        let sources = kafka_sources(config);
        let topics = KafkaSource::connect(&connection, &inputs(&sources))?;
        for topic in &topics.topics {
            if topic.log_append_time != Some(true) {
                tracing::warn!(
                    topic = %topic.name,
                    "the broker does not stamp its records; clocks that run ahead are held until others agree \
                     (set message.timestamp.type=LogAppendTime)"
                );
            }
        }
        let mut source_of = Vec::new();
        for (k, topic) in topics.topics.iter().enumerate() {
            source_of.extend(std::iter::repeat_n(k, topic.partitions as usize));
        }
        Ok(Self {
            config,
            city,
            shell,
            connection,
            topics,
            source_of,
        })
    }

    fn specs(&self) -> Result<Vec<LogSpec>> {
        let sources = kafka_sources(self.config);
        let mut specs = Vec::new();
        for (log, &k) in self.topics.logs.iter().zip(&self.source_of) {
            let door = LogDoor::Partition(&log.topic, log.partition.unsigned_abs());
            specs.push(self.city.log(self.config, sources[k], door, false)?);
        }
        Ok(specs)
    }

    /// Runs until `stop`. `driver` makes the driver of an engine with these outlets. `state` is where the journal
    /// lies.
    ///
    /// # Errors
    /// What ended the run before its time.
    pub fn run(
        self,
        driver: impl FnOnce(Engine, Vec<Box<dyn Outlet>>) -> Result<Driver>,
        state: Option<&Path>,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Driver> {
        let sources = kafka_sources(self.config);
        let labels: Vec<LogLabel> = self.source_of.iter().map(|&k| LogLabel::of(sources[k])).collect();
        let engine = Engine::new(self.city.setup(self.config, self.specs()?, threads, true)).measured();
        // The sink first: what telemetry says was told has then been handed to it.
        let mut outlets: Vec<Box<dyn Outlet>> = Vec::new();
        if let Some(sink) = self.sink(&labels)? {
            outlets.push(Box::new(sink));
        }
        outlets.push(Box::new(telemetry(
            self.config,
            self.city,
            self.shell,
            "run",
            labels,
            Some(Arc::new(wall_clock)),
        )));
        let mut driver = driver(engine, outlets)?;
        let logs = self.topics.logs.len();
        let starts = self.topics.logs.iter().map(|log| log.start).collect();
        let begun = driver.resume(starts);
        let resume: Vec<Option<u64>> = begun.iter().copied().map(Some).collect();
        // Until all partitions are ours. A checkpoint knows watermarks of partitions that another may own now.
        driver.hold(true)?;
        let (journal, mut pending) = self.journal(state, &begun)?;
        driver.take(&pending.begin(logs, |log| begun[usize::from(log)]))?;
        let (source, events) = KafkaSource::start(&self.connection, &self.topics.logs, &resume)?;
        self.shell.health.fail("assignment", "no partitions assigned yet");
        self.shell.health.started();
        let mut turn = Turn {
            live: &self,
            source,
            idle: IdleWatch::new(logs, IDLE_TIMEOUT_MS, wall_clock().ms()),
            owned: vec![false; logs],
            marks: Vec::new(),
            journal,
            pending,
            beside: vec![false; logs],
            begun,
            ages: vec![Age::default(); logs],
            committed: Instant::now(),
        };
        let ended = turn.until(&mut driver, &events, stop);
        turn.commit(&driver);
        if let Err(error) = turn.source.shutdown(LEAVE) {
            tracing::warn!(%error, "leaving the group took too long");
        }
        ended?;
        driver.finish()?;
        Ok(driver)
    }

    /// The journal, and what it says of places that are still to come.
    fn journal(&self, state: Option<&Path>, begun: &[u64]) -> Result<(Option<Journal>, Pending<LogIndex>)> {
        let (journal, entries) = match state.map(Journal::open).transpose()? {
            Some((journal, entries)) => (Some(journal), entries),
            None => (None, Vec::new()),
        };
        let pending = Pending::new(&entries, |entry| {
            let is = |l: &LogName| l.topic == entry.topic && l.partition.unsigned_abs() == entry.partition;
            let log = self.topics.logs.iter().position(is)?;
            Some((log as LogIndex, begun[log]))
        });
        Ok((journal, pending))
    }

    fn sink(&self, labels: &[LogLabel]) -> Result<Option<KafkaOutlet>> {
        let Some(sink) = self.config.sink.iter().find(|s| s.kind == SinkKind::Kafka) else {
            return Ok(None);
        };
        let topics = topic_names(sink);
        let inputs = self.topics.topics.iter().map(|t| t.name.as_str());
        let specs = topic_specs(sink, inputs);
        let made = ensure_topics(&self.connection, &specs, sink.create_topics)?;
        if !made.is_empty() {
            tracing::info!(topics = %made.join(", "), "created");
        }
        Ok(Some(KafkaOutlet {
            sink: KafkaSink::new(&self.connection, topics, &self.config.kafka.client_id)?,
            inputs: self
                .topics
                .logs
                .iter()
                .map(|l| (l.topic.clone(), l.partition))
                .collect(),
            sources: labels.iter().map(|l| l.source.clone()).collect(),
            metrics: Arc::clone(&self.shell.metrics),
            acknowledged: 0,
            dead_letters: sink.dead_letters,
            second: Instant::now(),
            letters: 0,
        }))
    }
}

/// The state of the loop.
struct Turn<'a> {
    live: &'a Live<'a>,
    source: KafkaSource,
    idle: IdleWatch,
    owned: Vec<bool>,
    /// Idle marks on their way to the broker.
    marks: Vec<Receiver<Appended>>,
    journal: Option<Journal>,
    /// What the journal says of places that are not reached yet.
    pending: Pending<LogIndex>,
    /// Logs to which we may not write, so that their marks stand in the journal.
    beside: Vec<bool>,
    /// Offset at which each log was begun.
    begun: Vec<u64>,
    /// What is known of the age of the next record of each log.
    ages: Vec<Age>,
    committed: Instant,
}

/// Bounds of the age of the next record of a log, which nobody has seen yet: it was appended after the last one
/// read, and after the moment at which none was left.
#[derive(Clone, Copy, Debug, Default)]
struct Age {
    /// Append time of the last record read.
    read: Option<EventTime>,
    /// Wall time at which nothing was left to read.
    even: Option<EventTime>,
}

impl Age {
    /// The greatest age that the next record can have while `records` are left at `now`.
    fn next(&mut self, records: u64, now: EventTime) -> Option<Duration> {
        if records == 0 {
            self.even = Some(now);
            // Where the broker does not stamp, nothing is known of ages, not even that there is none.
            return self.read.map(|_| Duration::ZERO);
        }
        let since = self.read?.max(self.even.unwrap_or(EventTime::from_ms(i64::MIN)));
        Some(Duration::from_millis(now.since(since).max(0).unsigned_abs()))
    }
}

impl Turn<'_> {
    fn until(
        &mut self,
        driver: &mut Driver,
        events: &Receiver<SourceEvent>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut ticked = Instant::now();
        while !stop.load(Ordering::Acquire) {
            match events.recv_timeout(TICK) {
                Ok(event) => self.event(driver, event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the Kafka source has stopped"),
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.live.shell.metrics.queue_depth(events.len());
                self.tick(driver)?;
            }
        }
        Ok(())
    }

    fn event(&mut self, driver: &mut Driver, event: SourceEvent) -> Result<()> {
        match event {
            SourceEvent::Batch(batch) => {
                let mut spoke = vec![false; self.owned.len()];
                for record in batch.iter().filter(|r| !r.control) {
                    spoke[usize::from(record.log)] = true;
                }
                for record in batch.iter().filter(|r| r.append_time.is_some()) {
                    self.ages[usize::from(record.log)].read = record.append_time;
                }
                driver.take(&self.pending.weave(batch))?;
                let now = wall_clock().ms();
                for log in (0..spoke.len()).filter(|&l| spoke[l]) {
                    let log = log as LogIndex;
                    self.idle.records(log, driver.engine().watermark(log), now);
                }
            }
            SourceEvent::CaughtUp(logs) => logs.iter().for_each(|(log, _)| self.idle.caught_up(*log)),
            SourceEvent::Assigned { owned, total } => {
                self.live.shell.metrics.rebalanced();
                let before = std::mem::replace(&mut self.owned, vec![false; total]);
                let now = wall_clock().ms();
                for &log in &owned {
                    self.owned[usize::from(log)] = true;
                    if !before[usize::from(log)] {
                        self.idle.taken_over(log, driver.engine().watermark(log), now);
                    }
                }
                for (log, _) in before
                    .iter()
                    .enumerate()
                    .filter(|(l, had)| **had && !self.owned[*l])
                {
                    let name = &self.live.topics.logs[log];
                    self.live.shell.metrics.lag_forget(&name.topic, name.partition);
                    self.ages[log] = Age::default();
                }
                tracing::info!(owned = owned.len(), total, "partitions assigned");
                if owned.len() == total {
                    self.live.shell.health.pass("assignment");
                    driver.hold(false)?;
                } else {
                    // Nothing is published, records are counted; the panes wait for the missing partitions.
                    self.live.shell.health.fail("assignment", "partial assignment");
                    driver.hold(true)?;
                }
            }
            SourceEvent::Lag(lags) => {
                let now = wall_clock();
                for (log, records) in lags {
                    let name = &self.live.topics.logs[usize::from(log)];
                    let age = self.ages[usize::from(log)].next(records, now);
                    self.live
                        .shell
                        .metrics
                        .lag(&name.topic, name.partition, records, age);
                }
            }
            SourceEvent::Gap { log, from, to } => {
                let name = &self.live.topics.logs[usize::from(log)];
                tracing::error!(
                    topic = %name.topic, partition = name.partition, from, to, lost = to - from,
                    "the broker no longer has these records; what they said is missing from the results"
                );
            }
            SourceEvent::CommitsFailed(n) => self.live.shell.metrics.commits_failed(n),
            SourceEvent::Notice(text) => tracing::warn!("{text}"),
            SourceEvent::Error(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn tick(&mut self, driver: &mut Driver) -> Result<()> {
        self.live.shell.health.beat();
        for answer in std::mem::take(&mut self.marks) {
            match answer.try_recv() {
                Ok(Err(error)) => self.unwritten(&error),
                Ok(Ok(_)) | Err(TryRecvError::Disconnected) => {}
                Err(TryRecvError::Empty) => self.marks.push(answer),
            }
        }
        let engine = driver.engine();
        let watermarks: Vec<_> = (0..self.owned.len())
            .map(|l| engine.watermark(l as LogIndex))
            .collect();
        for (log, control) in self.idle.due(&watermarks, wall_clock().ms()) {
            if !self.owned[usize::from(log)] {
                continue;
            }
            if self.beside[usize::from(log)] {
                self.put_beside(driver, log, control)?;
                continue;
            }
            match self.source.append_control(log, &control.encode()) {
                Ok(answer) => self.marks.push(answer),
                Err(error) => self.unwritten(&error),
            }
        }
        if self.committed.elapsed() >= COMMIT_EVERY {
            self.commit(driver);
        }
        driver.tick()
    }

    /// An idle mark was not written. Where that is forbidden, the next ones of the topic go to the journal; this one
    /// does not, for the log may have spoken since.
    fn unwritten(&mut self, error: &KafkaSourceError) {
        match error {
            KafkaSourceError::Control {
                topic,
                forbidden: true,
                ..
            } if self.journal.is_some() => {
                let logs = &self.live.topics.logs;
                for (beside, _) in self
                    .beside
                    .iter_mut()
                    .zip(logs)
                    .filter(|(_, l)| l.topic == *topic)
                {
                    *beside = true;
                }
                tracing::warn!(
                    %error,
                    "idle marks of this topic go to the journal in the state folder; `viaflux record --state` \
                     exports them"
                );
            }
            _ => tracing::error!(
                %error,
                "an idle mark was not written; a silent partition holds the panes open until this process may \
                 write to its input topics, or has a journal (--state)"
            ),
        }
    }

    /// Puts an idle mark into the journal, and lets it act.
    fn put_beside(&mut self, driver: &mut Driver, log: LogIndex, control: Control) -> Result<()> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let name = &self.live.topics.logs[usize::from(log)];
        let entry = Entry {
            topic: name.topic.clone(),
            partition: name.partition.unsigned_abs(),
            offset: driver.engine().next_offset(log).max(self.begun[usize::from(log)]),
            control,
        };
        if let Err(error) = journal.append(&entry) {
            tracing::error!(%error, "an idle mark was not written; the panes wait");
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.journal(log, entry.offset, &control.encode());
        driver.take(&batch)
    }

    /// Hints at the offsets; nothing rests on them, but lag is shown by them.
    fn commit(&mut self, driver: &Driver) {
        self.committed = Instant::now();
        let next: Vec<(LogIndex, u64)> = (0..self.owned.len())
            .filter(|&l| self.owned[l])
            .map(|l| (l as LogIndex, driver.engine().next_offset(l as LogIndex)))
            .filter(|(_, offset)| *offset > 0)
            .collect();
        self.source.commit(&next);
    }
}

/// Publishes to Kafka.
struct KafkaOutlet {
    sink: KafkaSink,
    /// Topic and partition of each input log.
    inputs: Vec<(String, i32)>,
    /// Source of each input log.
    sources: Vec<String>,
    metrics: Arc<Metrics>,
    /// Messages that metrics know to be acknowledged.
    acknowledged: u64,
    dead_letters: bool,
    second: Instant,
    letters: u32,
}

impl KafkaOutlet {
    /// Counts what the broker has acknowledged meanwhile.
    fn told(&mut self) {
        let acknowledged = self.sink.acknowledged();
        self.metrics.sink_wrote("kafka", acknowledged - self.acknowledged);
        self.acknowledged = acknowledged;
    }
}

impl Outlet for KafkaOutlet {
    fn take(&mut self, engine: &Engine, batch: &Batch, output: &Output) -> Result<()> {
        for publication in &output.publications {
            self.sink.publish(publication, &[])?;
        }
        if self.dead_letters {
            for refusal in &output.refused {
                if self.second.elapsed() >= Duration::from_secs(1) {
                    self.second = Instant::now();
                    self.letters = 0;
                }
                if self.letters >= DEAD_LETTERS_PER_S {
                    break;
                }
                let record = refused(batch, refusal);
                self.letters += 1;
                let (topic, partition) = &self.inputs[usize::from(refusal.log)];
                let why = record.and_then(|r| explain(engine, refusal, r.value));
                self.sink.dead_letter(&DeadLetter {
                    topic,
                    partition: *partition,
                    offset: refusal.offset,
                    key: record.map_or(&[], |r| r.key),
                    value: record.map(|r| r.value),
                    reason: refusal.reason.label(),
                    field: why.as_ref().and_then(|w| w.field).map(Field::label),
                    detail: why.as_ref().map(|w| w.detail.as_str()),
                })?;
                self.metrics
                    .dead_letters(&self.sources[usize::from(refusal.log)], refusal.reason.label(), 1);
            }
        }
        Ok(())
    }

    fn tick(&mut self, _: &Engine) {
        self.told();
    }

    fn settle(&mut self) -> Result<()> {
        self.sink.flush(FLUSH)?;
        self.told();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_record_is_younger_than_the_last_and_than_the_silence_before_it() {
        let at = |s: i64| EventTime::from_ms(s * 1000);
        let mut age = Age::default();
        assert_eq!(age.next(5, at(100)), None, "nothing was read yet");
        age.read = Some(at(40));
        assert_eq!(age.next(5, at(100)), Some(Duration::from_secs(60)));
        assert_eq!(age.next(0, at(110)), Some(Duration::ZERO));
        // The last record is a minute old, but nothing was left ten seconds ago.
        assert_eq!(age.next(1, at(120)), Some(Duration::from_secs(10)));
    }
}
