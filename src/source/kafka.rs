//! Kafka as a source: topics looked up at the start, one consumer on its own thread, and a bounded reader
//! for the commands that copy topics.
//!
//! The rules that this file keeps, each paid for by somebody's outage: the offsets are ours (no automatic
//! commit, no automatic reset); they are put into the assignment before its single `assign`; a revoked
//! partition is given back inside the callback; the polling thread never waits for the engine but pauses the
//! partitions; a message is copied and dropped at once, for it holds on to its whole fetch buffer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

use crate::engine::{Batch, LogIndex, Record};
use crate::units::EventTime;

/// Message header that marks a control record.
pub const CONTROL_HEADER: &str = "viaflux.control";

/// How long [`KafkaSource::connect`] waits for a broker that answers.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a topic may be unknown before it counts as missing: brokers learn of new topics one by one.
const TOPIC_GRACE: Duration = Duration::from_secs(2);
/// Longest wait of one poll; also the age at which a batch is handed over.
const POLL: Duration = Duration::from_millis(50);
/// Records in one batch at most.
const BATCH_RECORDS_MAX: usize = 5_000;
/// Payload bytes after which a batch is handed over.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Events between the polling thread and the engine. With the two limits above, some 16 MiB.
const CHANNEL_EVENTS_MAX: usize = 16;
/// Partitions are paused when the channel holds this many events, and resumed when it holds
/// [`RESUME_AT`]: pausing throws away what was fetched ahead, so it must not flutter.
const PAUSE_AT: usize = CHANNEL_EVENTS_MAX * 8 / 10;
const RESUME_AT: usize = CHANNEL_EVENTS_MAX * 3 / 10;
/// After an assignment or a pause, librdkafka's statistics still tell of the time before for about a second.
const STATISTICS_SETTLE: Duration = Duration::from_secs(3);
/// A notice with the same words is repeated at most this often.
const NOTICE_EVERY: Duration = Duration::from_secs(10);

/// How to reach a Kafka cluster.
#[derive(Clone, Default)]
pub struct KafkaConnection {
    /// `host:port,…` of some brokers.
    pub brokers: String,
    /// Consumer group; its members share the partitions.
    pub group_id: String,
    /// Name shown in the brokers' logs and quotas.
    pub client_id: String,
    /// librdkafka properties, handed on verbatim.
    pub properties: BTreeMap<String, String>,
}

/// Properties on which the offsets' correctness rests; other values are refused.
const FIXED: [(&str, &str); 5] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "false"),
    ("enable.idempotence", "true"),
];

const CONSUMER_DEFAULTS: [(&str, &str); 16] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "3000"),
    // The loop polls every 50 ms, so a short value finds a stuck thread.
    ("max.poll.interval.ms", "60000"),
    ("check.crcs", "true"),
    ("queued.max.messages.kbytes", "16384"),
    ("queued.min.messages", "20000"),
    ("fetch.message.max.bytes", "262144"),
    ("fetch.max.bytes", "8388608"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "50"),
    ("receive.message.max.bytes", "16777216"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("allow.auto.create.topics", "false"),
    ("reconnect.backoff.max.ms", "5000"),
    ("statistics.interval.ms", "1000"),
];

const PRODUCER_DEFAULTS: [(&str, &str); 7] = [
    ("acks", "all"),
    ("compression.type", "zstd"),
    ("linger.ms", "5"),
    ("delivery.timeout.ms", "30000"),
    ("queue.buffering.max.kbytes", "65536"),
    ("max.in.flight", "5"),
    // As Java's clients do, so that a key has the same partition whoever writes it.
    ("partitioner", "murmur2_random"),
];

impl std::fmt::Debug for KafkaConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Names only: a property may hold a password.
        f.debug_struct("KafkaConnection")
            .field("brokers", &self.brokers)
            .field("group_id", &self.group_id)
            .field("client_id", &self.client_id)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl KafkaConnection {
    /// Properties of a consumer.
    ///
    /// # Errors
    /// A property that viaflux fixes is set to another value.
    pub fn consumer_config(&self) -> Result<ClientConfig, KafkaSourceError> {
        let mut config = self.config(&CONSUMER_DEFAULTS, "enable.idempotence")?;
        for (key, value) in FIXED.iter().filter(|(key, _)| *key != "enable.idempotence") {
            config.set(*key, *value);
        }
        Ok(config)
    }

    /// Properties of an idempotent producer.
    ///
    /// # Errors
    /// A property that viaflux fixes is set to another value.
    pub fn producer_config(&self) -> Result<ClientConfig, KafkaSourceError> {
        let mut config = self.config(&PRODUCER_DEFAULTS, "")?;
        config.set("enable.idempotence", "true");
        Ok(config)
    }

    /// Properties of an administrative client.
    pub fn admin_config(&self) -> Result<ClientConfig, KafkaSourceError> {
        self.config(&[], "enable.idempotence")
    }

    /// `skip` is a property that the kind of client does not know.
    fn config(&self, defaults: &[(&str, &str)], skip: &str) -> Result<ClientConfig, KafkaSourceError> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("bootstrap.servers", &self.brokers);
        if !self.client_id.is_empty() {
            config.set("client.id", &self.client_id);
        }
        config.set("socket.keepalive.enable", "true");
        config.set("enable.metrics.push", "false");
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            if let Some((_, fixed)) = FIXED.iter().find(|(name, _)| name == key)
                && value != fixed
            {
                return Err(KafkaSourceError::Property {
                    key: key.clone(),
                    reason: format!("must be `{fixed}`, viaflux keeps the offsets itself; remove the line"),
                });
            }
            if key == skip {
                continue;
            }
            config.set(key, value);
        }
        Ok(config)
    }
}

/// Where to begin a log that no checkpoint speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record not older than this many milliseconds.
    Ago(u64),
    /// At the oldest record kept.
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At the first record not older than this moment.
    At(EventTime),
    /// At this offset, of every partition.
    Offset(u64),
}

/// A topic to read.
#[derive(Clone, Debug)]
pub struct KafkaInput {
    /// Its name.
    pub topic: String,
    /// Where to begin.
    pub start: Start,
}

/// What is known of an input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Whether the broker stamps its records (`message.timestamp.type=LogAppendTime`); `None` if the broker
    /// did not tell.
    pub log_append_time: Option<bool>,
}

/// One partition of an input topic. Its [`LogIndex`] is its place in [`Topics::logs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset at which to begin without a checkpoint.
    pub start: u64,
    /// Oldest offset kept.
    pub low: u64,
    /// Offset behind the newest record.
    pub high: u64,
}

/// The input as the cluster describes it.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    /// The topics in the order asked for.
    pub topics: Vec<TopicInfo>,
    /// All partitions: topics in the order asked for, partitions ascending.
    pub logs: Vec<LogName>,
}

/// What the polling thread tells. Events keep the order in which they came about.
#[derive(Debug)]
pub enum SourceEvent {
    /// Records.
    Batch(Batch),
    /// The partitions that this process reads from now on.
    Assigned {
        /// Their logs, ascending.
        owned: Vec<LogIndex>,
        /// Number of all logs.
        total: usize,
    },
    /// Logs of which everything before the offset was handed over, and that is their end for now. Told anew
    /// when a later end is reached.
    CaughtUp(Vec<(LogIndex, u64)>),
    /// Records of each owned log that were not yet handed over; about once a second.
    Lag(Vec<(LogIndex, u64)>),
    /// The broker no longer has the records from `from` up to, not including, `to`.
    Gap {
        /// The log.
        log: LogIndex,
        /// First offset missing.
        from: u64,
        /// Offset at which reading goes on.
        to: u64,
    },
    /// The source has stopped for good.
    Error(KafkaSourceError),
    /// Something an operator should know; the source goes on.
    Notice(String),
}

/// Why Kafka cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSourceError {
    /// A property is wrong.
    #[error("Kafka property `{key}`: {reason}")]
    Property {
        /// Its name.
        key: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A client could not be made.
    #[error("cannot make a Kafka client for {brokers}: {reason}")]
    Client {
        /// Brokers named.
        brokers: String,
        /// librdkafka's words.
        reason: String,
    },
    /// Nobody answers.
    #[error(
        "no Kafka broker at {brokers} answered within {waited_s} s ({reason}); check that the brokers run, that \
         the address and port are theirs, and that `security.protocol` is what the listener speaks"
    )]
    NoBroker {
        /// Brokers tried.
        brokers: String,
        /// Seconds waited.
        waited_s: u64,
        /// The last thing heard.
        reason: String,
    },
    /// The broker does not let us in.
    #[error(
        "Kafka at {brokers} refused the credentials ({reason}); check `sasl.mechanisms`, `sasl.username`, \
         `sasl.password` and `security.protocol` in [kafka.properties]"
    )]
    Credentials {
        /// Brokers tried.
        brokers: String,
        /// The broker's words.
        reason: String,
    },
    /// Topics that do not exist.
    #[error(
        "Kafka at {brokers} has no topic {topics}; create it, e.g. `kafka-topics.sh --bootstrap-server {brokers} \
         --create --topic {first} --partitions 16 --config message.timestamp.type=LogAppendTime`"
    )]
    UnknownTopics {
        /// Brokers asked.
        brokers: String,
        /// The missing ones.
        topics: String,
        /// The first of them.
        first: String,
    },
    /// The broker forbids it.
    #[error("Kafka at {brokers} does not allow us to {what} ({reason}); have the ACL granted")]
    Forbidden {
        /// Brokers asked.
        brokers: String,
        /// What we tried.
        what: String,
        /// The broker's words.
        reason: String,
    },
    /// Another question to the broker failed.
    #[error("asking Kafka at {brokers} for {what} failed: {reason}")]
    Query {
        /// Brokers asked.
        brokers: String,
        /// What was asked.
        what: String,
        /// The answer.
        reason: String,
    },
    /// A checkpoint knows offsets that the topic does not have.
    #[error(
        "the checkpoint continues {topic}[{partition}] at offset {resume}, but the topic ends at {end}: it was \
         deleted and made anew, or it lost records; start with a new state directory, or bring the topic back"
    )]
    ResumeBeyondEnd {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset asked for.
        resume: u64,
        /// The topic's end.
        end: u64,
    },
    /// A topic has got more partitions.
    #[error(
        "topic {topic} has got partition {partition}, of which the running state knows nothing (it knows {known}); \
         keys have moved between partitions: stop, then start with a new state directory"
    )]
    PartitionsChanged {
        /// Topic.
        topic: String,
        /// The new partition.
        partition: i32,
        /// Partitions known.
        known: usize,
    },
    /// More partitions than a [`LogIndex`] counts.
    #[error(
        "the topics have {found} partitions together; at most {} can be read by one process",
        LogIndex::MAX
    )]
    TooManyPartitions {
        /// Partitions found.
        found: usize,
    },
    /// librdkafka cannot go on.
    #[error("reading Kafka at {brokers} failed: {reason}")]
    Fatal {
        /// Brokers.
        brokers: String,
        /// Its words.
        reason: String,
    },
    /// A control record was not written.
    #[error("cannot append a control record to {topic}[{partition}]: {reason}")]
    Control {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// The broker's words.
        reason: String,
    },
    /// The source did not stop.
    #[error("the Kafka consumer did not close within {waited_s} s; its thread was left behind")]
    Shutdown {
        /// Seconds waited.
        waited_s: u64,
    },
}

fn client_error(brokers: &str, error: KafkaError) -> KafkaSourceError {
    match error {
        // The value stays out of the message: it may be a password.
        KafkaError::ClientConfig(_, description, key, _) => KafkaSourceError::Property {
            key,
            reason: format!("{description}; see librdkafka's CONFIGURATION.md"),
        },
        KafkaError::ClientCreation(reason) => {
            let hint = if reason.contains("OpenSSL") || reason.contains("SSL") {
                "; this build has no TLS: build with `--features tls`"
            } else {
                ""
            };
            KafkaSourceError::Client {
                brokers: brokers.to_owned(),
                reason: format!("{reason}{hint}"),
            }
        }
        other => KafkaSourceError::Client {
            brokers: brokers.to_owned(),
            reason: other.to_string(),
        },
    }
}

fn is_credentials(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::IllegalSASLState
    )
}

fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// What librdkafka tells of a partition in its statistics.
#[derive(Clone, Copy, Debug, Deserialize)]
struct PartitionStatistics {
    #[serde(default = "unknown_offset")]
    next_offset: i64,
    #[serde(default = "unknown_offset")]
    ls_offset: i64,
}

fn unknown_offset() -> i64 {
    -1001
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: BTreeMap<i64, PartitionStatistics>,
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: BTreeMap<String, TopicStatistics>,
}

/// State shared by the polling loop and the callbacks that librdkafka runs inside `poll`; all on one thread.
#[derive(Debug, Default)]
struct Shared {
    /// Logs by topic, then by partition.
    logs: BTreeMap<String, BTreeMap<i32, LogIndex>>,
    /// Next offset to hand over, by log.
    next: Vec<u64>,
    owned: BTreeSet<LogIndex>,
    /// Logs for which a pause was asked and no resume.
    paused: BTreeSet<LogIndex>,
    /// Whether the engine is behind, so that new partitions begin paused.
    behind: bool,
    rebalanced: bool,
    failure: Option<KafkaSourceError>,
    notices: VecDeque<String>,
    /// Errors with librdkafka's explanation, newest last.
    errors: VecDeque<(RDKafkaErrorCode, String)>,
    /// Newest statistics, until taken.
    statistics: Option<Vec<(String, i32, PartitionStatistics)>>,
}

impl Shared {
    fn log(&self, topic: &str, partition: i32) -> Option<LogIndex> {
        self.logs.get(topic)?.get(&partition).copied()
    }
}

const KEPT_ERRORS: usize = 64;

/// Context of every consumer here.
#[derive(Debug, Default)]
struct Context {
    shared: Mutex<Shared>,
}

impl Context {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Plain data, valid after every statement: a panic elsewhere does not spoil it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let mut shared = self.lock();
        shared.errors.push_back((code, reason.to_owned()));
        if shared.errors.len() > KEPT_ERRORS {
            shared.errors.pop_front();
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        // Statistics that cannot be read cost lag figures, not records.
        if let Ok(parsed) = serde_json::from_slice::<Statistics>(statistics) {
            let mut flat = Vec::new();
            for (topic, of_topic) in parsed.topics {
                for (partition, figures) in of_topic.partitions {
                    if let Ok(partition) = i32::try_from(partition)
                        && partition >= 0
                    {
                        flat.push((topic.clone(), partition, figures));
                    }
                }
            }
            self.lock().statistics = Some(flat);
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, cooperative, list),
            _ => self.revoke(consumer, cooperative, list),
        };
        let mut shared = self.lock();
        shared.rebalanced = true;
        if let Err(error) = result {
            shared.failure.get_or_insert(KafkaSourceError::Fatal {
                brokers: String::new(),
                reason: format!("taking over partitions failed: {error}"),
            });
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        // Only a hint and the lag figure of Kafka's own tools rest on it.
        if let Err(error) = result {
            self.lock()
                .notices
                .push_back(format!("committing offsets failed: {error}"));
        }
    }
}

impl Context {
    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        cooperative: bool,
        list: &TopicPartitionList,
    ) -> KafkaResult<()> {
        let mut with_offsets = TopicPartitionList::with_capacity(list.count());
        let mut pause = TopicPartitionList::new();
        let mut resume = TopicPartitionList::new();
        {
            let mut shared = self.lock();
            if !cooperative {
                shared.owned.clear();
            }
            for element in list.elements() {
                let (topic, partition) = (element.topic(), element.partition());
                let Some(log) = shared.log(topic, partition) else {
                    let known = shared.logs.get(topic).map_or(0, BTreeMap::len);
                    let topic = topic.to_owned();
                    shared.failure.get_or_insert(KafkaSourceError::PartitionsChanged {
                        topic,
                        partition,
                        known,
                    });
                    continue;
                };
                let next = shared.next[usize::from(log)];
                with_offsets.add_partition_offset(topic, partition, raw_offset(next))?;
                shared.owned.insert(log);
                // A pause outlives an assignment inside librdkafka, so what we want is said anew.
                if shared.behind {
                    pause.add_partition(topic, partition);
                    shared.paused.insert(log);
                } else if shared.paused.remove(&log) {
                    resume.add_partition(topic, partition);
                }
            }
        }
        if cooperative {
            consumer.incremental_assign(&with_offsets)?;
        } else {
            consumer.assign(&with_offsets)?;
        }
        if pause.count() > 0 {
            consumer.pause(&pause)?;
        }
        if resume.count() > 0 {
            consumer.resume(&resume)?;
        }
        Ok(())
    }

    fn revoke(
        &self,
        consumer: &BaseConsumer<Self>,
        cooperative: bool,
        list: &TopicPartitionList,
    ) -> KafkaResult<()> {
        {
            let mut shared = self.lock();
            if consumer.assignment_lost() {
                shared.notices.push_back(
                    "the group took our partitions away: we did not reach the group coordinator in time"
                        .to_owned(),
                );
            }
            if cooperative {
                for element in list.elements() {
                    if let Some(log) = shared.log(element.topic(), element.partition()) {
                        shared.owned.remove(&log);
                    }
                }
            } else {
                shared.owned.clear();
            }
        }
        if cooperative {
            consumer.incremental_unassign(list)
        } else {
            consumer.unassign()
        }
    }
}

fn raw_offset(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

fn as_u64(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

/// Whether a message is a control record.
pub(crate) fn is_control<M: Message>(message: &M) -> bool {
    message
        .headers()
        .is_some_and(|headers| headers.iter().any(|header| header.key == CONTROL_HEADER))
}

/// The time given by the log itself; a producer's CreateTime does not count.
pub(crate) fn append_time<M: Message>(message: &M) -> Option<EventTime> {
    match message.timestamp() {
        Timestamp::LogAppendTime(ms) if ms >= 0 => Some(EventTime::from_ms(ms)),
        _ => None,
    }
}

/// Waits for a future that another thread completes, without a runtime (a caller may itself stand in one).
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// A client for questions only: no group, no assignment.
struct Enquiry {
    brokers: String,
    consumer: BaseConsumer<Context>,
}

impl Enquiry {
    fn new(connection: &KafkaConnection) -> Result<Self, KafkaSourceError> {
        let mut config = connection.consumer_config()?;
        config.remove("group.id");
        config.remove("group.instance.id");
        config.set("statistics.interval.ms", "0");
        let consumer = config
            .create_with_context(Context::default())
            .map_err(|error| client_error(&connection.brokers, error))?;
        Ok(Self {
            brokers: connection.brokers.clone(),
            consumer,
        })
    }

    /// Serves callbacks; an error that no waiting mends is returned.
    fn check_errors(&self) -> Result<Option<String>, KafkaSourceError> {
        while self.consumer.poll(Duration::ZERO).is_some() {}
        let mut last = None;
        for (code, reason) in std::mem::take(&mut self.consumer.context().lock().errors) {
            if is_credentials(code) {
                return Err(KafkaSourceError::Credentials {
                    brokers: self.brokers.clone(),
                    reason,
                });
            }
            // "All brokers are down" only repeats what the error before it explains.
            if code != RDKafkaErrorCode::AllBrokersDown {
                last = Some(reason);
            }
        }
        Ok(last)
    }

    /// Partition counts of the topics, in their order; `None` for a topic that does not exist.
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<i32>>, KafkaSourceError> {
        let begun = Instant::now();
        let mut reason = String::from("no answer");
        let mut counts: Vec<Option<i32>> = vec![None; topics.len()];
        let mut answered_at = None;
        loop {
            let mut missing = false;
            for (topic, count) in topics.iter().zip(&mut counts) {
                if count.is_some() {
                    continue;
                }
                let answer = self.consumer.fetch_metadata(Some(topic), Duration::from_secs(1));
                if let Some(said) = self.check_errors()? {
                    reason = said;
                }
                match answer {
                    Ok(metadata) => {
                        answered_at.get_or_insert_with(Instant::now);
                        let of_topic = metadata.topics().iter().find(|found| found.name() == *topic);
                        let error = of_topic
                            .and_then(|found| found.error())
                            .map(RDKafkaErrorCode::from);
                        match (of_topic, error) {
                            (Some(found), None) if !found.partitions().is_empty() => {
                                *count = i32::try_from(found.partitions().len()).ok();
                            }
                            (_, Some(code)) if is_forbidden(code) => {
                                return Err(KafkaSourceError::Forbidden {
                                    brokers: self.brokers.clone(),
                                    what: format!("describe topic {topic}"),
                                    reason: code.to_string(),
                                });
                            }
                            _ => missing = true,
                        }
                    }
                    Err(error) => {
                        missing = true;
                        if reason == "no answer" {
                            reason = error.to_string();
                        }
                        if begun.elapsed() > CONNECT_DEADLINE {
                            break;
                        }
                    }
                }
            }
            if !missing || answered_at.is_some_and(|at| at.elapsed() > TOPIC_GRACE) {
                return Ok(counts);
            }
            if answered_at.is_none() && begun.elapsed() > CONNECT_DEADLINE {
                return Err(KafkaSourceError::NoBroker {
                    brokers: self.brokers.clone(),
                    waited_s: begun.elapsed().as_secs(),
                    reason,
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn query_error(&self, what: String, error: &KafkaError) -> KafkaSourceError {
        if let Some(code) = error.rdkafka_error_code()
            && is_forbidden(code)
        {
            return KafkaSourceError::Forbidden {
                brokers: self.brokers.clone(),
                what,
                reason: code.to_string(),
            };
        }
        KafkaSourceError::Query {
            brokers: self.brokers.clone(),
            what,
            reason: error.to_string(),
        }
    }

    /// Oldest offset kept and offset behind the newest record.
    fn watermarks(&self, topic: &str, partition: i32) -> Result<(u64, u64), KafkaSourceError> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, partition, Duration::from_secs(5))
            .map_err(|error| self.query_error(format!("the offsets of {topic}[{partition}]"), &error))?;
        Ok((as_u64(low), as_u64(high)))
    }

    /// First offsets not older than `ms` in every partition; `None` if all records are older.
    fn offsets_at(
        &self,
        topic: &str,
        partitions: i32,
        ms: i64,
    ) -> Result<Vec<Option<u64>>, KafkaSourceError> {
        let what = || format!("the offsets of {topic} at a moment");
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Offset(ms.max(0)))
                .map_err(|error| self.query_error(what(), &error))?;
        }
        let found = self
            .consumer
            .offsets_for_times(list, Duration::from_secs(10))
            .map_err(|error| self.query_error(what(), &error))?;
        let mut offsets = vec![None; usize::try_from(partitions).unwrap_or(0)];
        for element in found.elements() {
            element
                .error()
                .map_err(|error| self.query_error(what(), &error))?;
            if let (Ok(place), Offset::Offset(offset)) =
                (usize::try_from(element.partition()), element.offset())
                && let Some(slot) = offsets.get_mut(place)
            {
                *slot = Some(as_u64(offset));
            }
        }
        Ok(offsets)
    }
}

/// Partition counts of topics, in their order; `None` for a topic that does not exist.
///
/// # Errors
/// No broker, wrong credentials, a forbidden question; within about 15 s.
pub fn partition_counts(
    connection: &KafkaConnection,
    topics: &[&str],
) -> Result<Vec<Option<i32>>, KafkaSourceError> {
    Enquiry::new(connection)?.partitions(topics)
}

/// Wall time in milliseconds since the epoch.
fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Asks whether topics have `message.timestamp.type=LogAppendTime`; `None` where the broker does not tell.
fn timestamp_types(
    connection: &KafkaConnection,
    topics: &[&str],
) -> Result<Vec<Option<bool>>, KafkaSourceError> {
    let admin: AdminClient<DefaultClientContext> = connection
        .admin_config()?
        .create()
        .map_err(|error| client_error(&connection.brokers, error))?;
    let asked: Vec<ResourceSpecifier<'_>> = topics.iter().map(|t| ResourceSpecifier::Topic(t)).collect();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(3)));
    // A broker may keep this to itself (ACL DescribeConfigs); every message says its own type anyway.
    let Ok(answers) = wait(admin.describe_configs(&asked, &options)) else {
        return Ok(vec![None; topics.len()]);
    };
    let mut types = vec![None; topics.len()];
    for (slot, answer) in types.iter_mut().zip(answers) {
        if let Ok(resource) = answer
            && let Some(entry) = resource.get("message.timestamp.type")
        {
            *slot = entry.value.as_ref().map(|value| value == "LogAppendTime");
        }
    }
    Ok(types)
}

#[derive(Debug)]
enum Command {
    Commit(Vec<(LogIndex, u64)>),
    Stop,
}

/// Handle of the thread that reads Kafka. Dropping it asks the thread to stop without waiting;
/// [`KafkaSource::shutdown`] waits.
pub struct KafkaSource {
    connection: KafkaConnection,
    logs: Vec<LogName>,
    commands: Sender<Command>,
    stopped: Receiver<()>,
    thread: Option<JoinHandle<()>>,
    control: Option<ControlProducer>,
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the properties: they may hold a password.
        f.debug_struct("KafkaSource")
            .field("brokers", &self.connection.brokers)
            .finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Looks up the topics: they must exist. Answers or fails within about 15 s.
    ///
    /// # Errors
    /// No broker, wrong credentials, unknown topics, a forbidden question.
    pub fn connect(connection: &KafkaConnection, inputs: &[KafkaInput]) -> Result<Topics, KafkaSourceError> {
        let enquiry = Enquiry::new(connection)?;
        let names: Vec<&str> = inputs.iter().map(|input| input.topic.as_str()).collect();
        let counts = enquiry.partitions(&names)?;
        let missing: Vec<&str> = names
            .iter()
            .zip(&counts)
            .filter(|(_, count)| count.is_none())
            .map(|(name, _)| *name)
            .collect();
        if let Some(first) = missing.first() {
            return Err(KafkaSourceError::UnknownTopics {
                brokers: connection.brokers.clone(),
                topics: missing.join(", "),
                first: (*first).to_owned(),
            });
        }
        let types = timestamp_types(connection, &names)?;
        let mut topics = Topics::default();
        for ((input, count), log_append_time) in inputs.iter().zip(counts).zip(types) {
            let partitions = count.unwrap_or(0);
            topics.topics.push(TopicInfo {
                name: input.topic.clone(),
                partitions,
                log_append_time,
            });
            let moment = match input.start {
                Start::Ago(ms) => Some(wall_ms().saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX))),
                Start::At(time) => Some(time.ms()),
                _ => None,
            };
            let found = match moment {
                Some(ms) => enquiry.offsets_at(&input.topic, partitions, ms)?,
                None => Vec::new(),
            };
            for partition in 0..partitions {
                let (low, high) = enquiry.watermarks(&input.topic, partition)?;
                let start = match input.start {
                    Start::Earliest => low,
                    Start::Latest => high,
                    Start::Offset(offset) => offset.clamp(low, high),
                    Start::Ago(_) | Start::At(_) => usize::try_from(partition)
                        .ok()
                        .and_then(|place| found.get(place).copied().flatten())
                        .unwrap_or(high),
                };
                topics.logs.push(LogName {
                    topic: input.topic.clone(),
                    partition,
                    start,
                    low,
                    high,
                });
            }
        }
        if topics.logs.len() > usize::from(LogIndex::MAX) {
            return Err(KafkaSourceError::TooManyPartitions {
                found: topics.logs.len(),
            });
        }
        Ok(topics)
    }

    /// Joins the consumer group and begins to read. `resume` holds the next offset of each log from a
    /// checkpoint, by [`LogIndex`]; missing or `None` means [`LogName::start`].
    ///
    /// What the broker no longer has is told as [`SourceEvent::Gap`].
    ///
    /// # Errors
    /// A wrong property; an offset to resume from that lies behind the end of its log.
    pub fn start(
        connection: &KafkaConnection,
        logs: &[LogName],
        resume: &[Option<u64>],
    ) -> Result<(Self, Receiver<SourceEvent>), KafkaSourceError> {
        let mut config = connection.consumer_config()?;
        config.set("group.id", &connection.group_id);
        config.set("statistics.interval.ms", "1000");

        let mut shared = Shared::default();
        let mut first_events = VecDeque::new();
        for (place, log) in logs.iter().enumerate() {
            let index = LogIndex::try_from(place)
                .map_err(|_| KafkaSourceError::TooManyPartitions { found: logs.len() })?;
            let next = match resume.get(place).copied().flatten() {
                Some(resume) if resume > log.high => {
                    return Err(KafkaSourceError::ResumeBeyondEnd {
                        topic: log.topic.clone(),
                        partition: log.partition,
                        resume,
                        end: log.high,
                    });
                }
                Some(resume) if resume < log.low => {
                    first_events.push_back(SourceEvent::Gap {
                        log: index,
                        from: resume,
                        to: log.low,
                    });
                    log.low
                }
                Some(resume) => resume,
                None => log.start,
            };
            shared.next.push(next);
            shared
                .logs
                .entry(log.topic.clone())
                .or_default()
                .insert(log.partition, index);
        }

        let context = Context {
            shared: Mutex::new(shared),
        };
        let consumer: BaseConsumer<Context> = config
            .create_with_context(context)
            .map_err(|error| client_error(&connection.brokers, error))?;
        let topics: BTreeSet<&str> = logs.iter().map(|log| log.topic.as_str()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| KafkaSourceError::Fatal {
                brokers: connection.brokers.clone(),
                reason: format!("subscribing to {}: {error}", topics.join(", ")),
            })?;

        let (events, receiver) = bounded(CHANNEL_EVENTS_MAX);
        let (commands, mailbox) = unbounded();
        let (on_stop, stopped) = bounded::<()>(0);
        let poller = Poller {
            connection: connection.clone(),
            logs: logs.to_vec(),
            consumer,
            events,
            mailbox,
            outbox: first_events,
            batch: Batch::default(),
            batch_since: None,
            paused: false,
            settle_until: Instant::now() + STATISTICS_SETTLE,
            caught_up: vec![None; logs.len()],
            candidates: BTreeMap::new(),
            quiet_polls: 0,
            enquiry: None,
            noticed: BTreeMap::new(),
            ever_assigned: false,
        };
        let thread = std::thread::Builder::new()
            .name("viaflux-kafka".to_owned())
            .spawn(move || {
                // Dropped last: the receiver learns that the consumer is closed.
                let _on_stop = on_stop;
                poller.run();
            })
            .map_err(|error| KafkaSourceError::Client {
                brokers: connection.brokers.clone(),
                reason: format!("starting its thread: {error}"),
            })?;
        let source = Self {
            connection: connection.clone(),
            logs: logs.to_vec(),
            commands,
            stopped,
            thread: Some(thread),
            control: None,
        };
        Ok((source, receiver))
    }

    /// Tells Kafka the next offsets, for its lag figures. Nothing rests on them.
    pub fn commit(&self, next: &[(LogIndex, u64)]) {
        // A thread that has stopped has no lag to show.
        let _ = self.commands.send(Command::Commit(next.to_vec()));
    }

    /// Appends a control record to an input partition. The receiver yields its offset, or why it was not
    /// written (the caller then keeps it in the checkpoint's journal).
    ///
    /// # Errors
    /// The producer cannot be made, or its queue is full.
    pub fn append_control(
        &mut self,
        log: LogIndex,
        value: &[u8],
    ) -> Result<Receiver<Result<u64, KafkaSourceError>>, KafkaSourceError> {
        let name = self
            .logs
            .get(usize::from(log))
            .ok_or_else(|| KafkaSourceError::Control {
                topic: "?".to_owned(),
                partition: -1,
                reason: format!("there is no log {log}"),
            })?;
        let producer = match &self.control {
            Some(producer) => producer,
            None => self.control.insert(
                self.connection
                    .producer_config()?
                    .create_with_context(ControlContext)
                    .map_err(|error| client_error(&self.connection.brokers, error))?,
            ),
        };
        let (reply, answer) = bounded(1);
        let headers = OwnedHeaders::new().insert(Header {
            key: CONTROL_HEADER,
            value: Some("1"),
        });
        let record: BaseRecord<'_, [u8], [u8], Box<Sender<Result<u64, KafkaSourceError>>>> =
            BaseRecord::with_opaque_to(&name.topic, Box::new(reply))
                .partition(name.partition)
                .payload(value)
                .headers(headers);
        producer
            .send(record)
            .map_err(|(error, _)| KafkaSourceError::Control {
                topic: name.topic.clone(),
                partition: name.partition,
                reason: error.to_string(),
            })?;
        Ok(answer)
    }

    /// Leaves the group and waits for the thread's end.
    ///
    /// # Errors
    /// The thread is still busy at the deadline (librdkafka's close has no bound of its own). The process may
    /// then exit as it is: no state of ours depends on a clean close.
    pub fn shutdown(mut self, deadline: Duration) -> Result<(), KafkaSourceError> {
        let begun = Instant::now();
        let _ = self.commands.send(Command::Stop);
        if let Some(control) = self.control.take() {
            // Whoever waits for a control record learns the outcome through its receiver.
            let _ = control.flush(deadline / 2);
        }
        match self
            .stopped
            .recv_timeout(deadline.saturating_sub(begun.elapsed()))
        {
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(thread) = self.thread.take() {
                    let _ = thread.join();
                }
                Ok(())
            }
            _ => Err(KafkaSourceError::Shutdown {
                waited_s: deadline.as_secs(),
            }),
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
    }
}

type ControlProducer = ThreadedProducer<ControlContext>;

#[derive(Debug)]
struct ControlContext;

impl ClientContext for ControlContext {}

impl ProducerContext for ControlContext {
    type DeliveryOpaque = Box<Sender<Result<u64, KafkaSourceError>>>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, reply: Self::DeliveryOpaque) {
        let outcome = match delivery {
            Ok(message) => Ok(as_u64(message.offset())),
            Err((error, message)) => Err(KafkaSourceError::Control {
                topic: message.topic().to_owned(),
                partition: message.partition(),
                reason: error.to_string(),
            }),
        };
        // The caller may have stopped waiting.
        let _ = reply.try_send(outcome);
    }
}

type Watermarks = Vec<(LogIndex, Result<(u64, u64), KafkaSourceError>)>;

/// The polling thread.
struct Poller {
    connection: KafkaConnection,
    logs: Vec<LogName>,
    consumer: BaseConsumer<Context>,
    events: Sender<SourceEvent>,
    mailbox: Receiver<Command>,
    /// Events that wait for room in the channel, oldest first.
    outbox: VecDeque<SourceEvent>,
    batch: Batch,
    batch_since: Option<Instant>,
    paused: bool,
    /// Until then, statistics may speak of an assignment or a position that is no more.
    settle_until: Instant,
    /// End last told as reached, by log.
    caught_up: Vec<Option<u64>>,
    /// Ends that fetching has reached although the last record handed over lies before them: what is
    /// between are transaction markers or records that compaction took. Certain once the queue was empty.
    candidates: BTreeMap<LogIndex, u64>,
    quiet_polls: u32,
    /// Running question for the offsets kept, asked after "offset out of range".
    enquiry: Option<Receiver<Watermarks>>,
    noticed: BTreeMap<String, Instant>,
    ever_assigned: bool,
}

impl Poller {
    fn run(mut self) {
        loop {
            match self.mailbox.try_recv() {
                Ok(Command::Commit(next)) => self.commit(&next),
                Ok(Command::Stop) | Err(crossbeam_channel::TryRecvError::Disconnected) => break,
                Err(crossbeam_channel::TryRecvError::Empty) => {}
            }
            self.poll();
            self.after_callbacks();
            self.take_statistics();
            self.take_enquiry();
            if self.batch_since.is_some_and(|since| since.elapsed() >= POLL) {
                self.close_batch();
            }
            let failure = self.consumer.context().lock().failure.take();
            if let Some(failure) = failure {
                self.close_batch();
                self.outbox
                    .push_back(SourceEvent::Error(self.with_brokers(failure)));
                self.deliver_all();
                break;
            }
            if !self.deliver() {
                // Nobody reads any more.
                break;
            }
            self.pause_or_resume();
        }
        // Unsubscribe first, so that the group learns of our leave before the handle is torn down; the rest
        // of the close happens in the consumer's drop, on this thread.
        self.consumer.unsubscribe();
    }

    fn with_brokers(&self, failure: KafkaSourceError) -> KafkaSourceError {
        match failure {
            KafkaSourceError::Fatal { brokers, reason } if brokers.is_empty() => KafkaSourceError::Fatal {
                brokers: self.connection.brokers.clone(),
                reason,
            },
            other => other,
        }
    }

    /// One wait of at most [`POLL`], then whatever lies ready, up to one batch.
    fn poll(&mut self) {
        let mut timeout = match self.batch_since {
            Some(since) => POLL.saturating_sub(since.elapsed()),
            None => POLL,
        };
        let begun = Instant::now();
        loop {
            // The borrow of the consumer by the message ends inside this block.
            let polled = match self.consumer.poll(timeout) {
                None => {
                    let waited = timeout == POLL && begun.elapsed() >= POLL;
                    self.quiet_polls = if waited {
                        self.quiet_polls + 1
                    } else {
                        self.quiet_polls
                    };
                    return;
                }
                Some(Err(error)) => Err(error),
                Some(Ok(message)) => {
                    take(&self.consumer, &mut self.batch, &message);
                    Ok(())
                }
            };
            timeout = Duration::ZERO;
            self.quiet_polls = 0;
            match polled {
                Ok(()) => {
                    if self.batch_since.is_none() && !self.batch.is_empty() {
                        self.batch_since = Some(Instant::now());
                    }
                    if self.batch.len() >= BATCH_RECORDS_MAX || self.batch.bytes() >= BATCH_BYTES_MAX {
                        self.close_batch();
                        return;
                    }
                }
                Err(error) => self.on_error(&error),
            }
            if begun.elapsed() >= POLL {
                return;
            }
        }
    }

    fn close_batch(&mut self) {
        self.batch_since = None;
        if !self.batch.is_empty() {
            self.outbox
                .push_back(SourceEvent::Batch(std::mem::take(&mut self.batch)));
        }
    }

    fn on_error(&mut self, error: &KafkaError) {
        let reason = {
            let mut shared = self.consumer.context().lock();
            let newest = shared.errors.pop_back();
            shared.errors.clear();
            newest.map_or_else(|| error.to_string(), |(_, reason)| reason)
        };
        let brokers = self.connection.brokers.clone();
        let fail = |failure: KafkaSourceError, context: &Context| {
            context.lock().failure.get_or_insert(failure);
        };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) || code == RDKafkaErrorCode::Fatal {
            fail(
                KafkaSourceError::Fatal { brokers, reason },
                self.consumer.context(),
            );
        } else if code == RDKafkaErrorCode::AutoOffsetReset || code == RDKafkaErrorCode::OffsetOutOfRange {
            self.ask_watermarks();
        } else if is_credentials(code) && !self.ever_assigned {
            fail(
                KafkaSourceError::Credentials { brokers, reason },
                self.consumer.context(),
            );
        } else if is_forbidden(code) {
            let what = format!("read as group {}", self.connection.group_id);
            fail(
                KafkaSourceError::Forbidden {
                    brokers,
                    what,
                    reason,
                },
                self.consumer.context(),
            );
        } else {
            self.notice(format!("Kafka at {brokers}: {reason}"));
        }
    }

    fn notice(&mut self, text: String) {
        let now = Instant::now();
        self.noticed
            .retain(|_, at| now.duration_since(*at) < NOTICE_EVERY);
        // Messages carry changing times and counts; their beginning says what they are.
        let kind: String = text.chars().filter(|c| !c.is_ascii_digit()).take(80).collect();
        if self.noticed.insert(kind, now).is_none() {
            self.outbox.push_back(SourceEvent::Notice(text));
        }
    }

    /// Passes on what the callbacks left behind.
    fn after_callbacks(&mut self) {
        let (rebalanced, notices, owned) = {
            let mut shared = self.consumer.context().lock();
            let rebalanced = std::mem::take(&mut shared.rebalanced);
            let owned = if rebalanced {
                shared.owned.clone()
            } else {
                BTreeSet::new()
            };
            (rebalanced, std::mem::take(&mut shared.notices), owned)
        };
        for text in notices {
            self.notice(text);
        }
        if rebalanced {
            // Records read before belong before.
            self.close_batch();
            self.settle_until = Instant::now() + STATISTICS_SETTLE;
            self.candidates.clear();
            for (place, told) in self.caught_up.iter_mut().enumerate() {
                if LogIndex::try_from(place).is_ok_and(|log| !owned.contains(&log)) {
                    *told = None;
                }
            }
            self.ever_assigned |= !owned.is_empty();
            self.outbox.push_back(SourceEvent::Assigned {
                owned: owned.into_iter().collect(),
                total: self.logs.len(),
            });
        }
    }

    fn take_statistics(&mut self) {
        let mut reached = Vec::new();
        let mut lags = Vec::new();
        {
            let mut shared = self.consumer.context().lock();
            if let Some(statistics) = shared.statistics.take() {
                for (topic, partition, figures) in statistics {
                    let Some(log) = shared.log(&topic, partition) else {
                        continue;
                    };
                    if !shared.owned.contains(&log) || figures.ls_offset < 0 {
                        continue;
                    }
                    let end = as_u64(figures.ls_offset);
                    let next = shared.next[usize::from(log)];
                    let told = self.caught_up[usize::from(log)];
                    let past = next.max(told.unwrap_or(0));
                    lags.push((log, end.saturating_sub(past)));
                    if next >= end {
                        reached.push((log, end));
                    } else if figures.next_offset >= figures.ls_offset
                        && !self.paused
                        && Instant::now() >= self.settle_until
                        && told.is_none_or(|told| told < end)
                    {
                        self.candidates.entry(log).or_insert_with(|| {
                            self.quiet_polls = 0;
                            end
                        });
                    }
                }
            }
        }
        if self.quiet_polls >= 2 {
            reached.extend(std::mem::take(&mut self.candidates));
        }
        if !lags.is_empty() {
            self.outbox.push_back(SourceEvent::Lag(lags));
        }
        reached.retain(|(log, end)| self.caught_up[usize::from(*log)].is_none_or(|told| told < *end));
        if !reached.is_empty() {
            for (log, end) in &reached {
                self.caught_up[usize::from(*log)] = Some(*end);
            }
            self.close_batch();
            self.outbox.push_back(SourceEvent::CaughtUp(reached));
        }
    }

    /// Asks for the offsets kept, on another thread: the question blocks.
    fn ask_watermarks(&mut self) {
        if self.enquiry.is_some() {
            return;
        }
        let (reply, answer) = bounded(1);
        let connection = self.connection.clone();
        let owned: Vec<(LogIndex, LogName)> = {
            let shared = self.consumer.context().lock();
            shared
                .owned
                .iter()
                .map(|&log| (log, self.logs[usize::from(log)].clone()))
                .collect()
        };
        let asked = std::thread::Builder::new()
            .name("viaflux-kafka-ask".to_owned())
            .spawn(move || {
                let answers = match Enquiry::new(&connection) {
                    Ok(enquiry) => owned
                        .into_iter()
                        .map(|(log, name)| (log, enquiry.watermarks(&name.topic, name.partition)))
                        .collect(),
                    Err(_) => Vec::new(),
                };
                let _ = reply.send(answers);
            });
        match asked {
            Ok(_) => self.enquiry = Some(answer),
            Err(error) => self.notice(format!("cannot start a thread to ask for offsets: {error}")),
        }
    }

    fn take_enquiry(&mut self) {
        let Some(answer) = &self.enquiry else { return };
        let answers = match answer.try_recv() {
            Ok(answers) => answers,
            Err(crossbeam_channel::TryRecvError::Empty) => return,
            Err(crossbeam_channel::TryRecvError::Disconnected) => Vec::new(),
        };
        self.enquiry = None;
        let mut unanswered = answers.is_empty();
        for (log, watermarks) in answers {
            let (low, high) = match watermarks {
                Ok(found) => found,
                Err(error) => {
                    unanswered = true;
                    self.notice(error.to_string());
                    continue;
                }
            };
            let next = {
                let shared = self.consumer.context().lock();
                if !shared.owned.contains(&log) {
                    continue;
                }
                shared.next[usize::from(log)]
            };
            let name = self.logs[usize::from(log)].clone();
            if next > high {
                self.consumer
                    .context()
                    .lock()
                    .failure
                    .get_or_insert(KafkaSourceError::ResumeBeyondEnd {
                        topic: name.topic,
                        partition: name.partition,
                        resume: next,
                        end: high,
                    });
            } else {
                if next < low {
                    self.close_batch();
                    self.outbox.push_back(SourceEvent::Gap {
                        log,
                        from: next,
                        to: low,
                    });
                    self.consumer.context().lock().next[usize::from(log)] = low;
                }
                // Which partition the error spoke of is not told, and fetching it has ended: all begin anew,
                // the others where they stood.
                self.restart(&name, next.max(low));
            }
        }
        if unanswered {
            self.ask_watermarks();
        }
    }

    /// Begins a partition anew at an offset. A seek is refused after a reset error, for fetching has ended.
    fn restart(&mut self, name: &LogName, offset: u64) {
        self.settle_until = Instant::now() + STATISTICS_SETTLE;
        self.candidates.clear();
        let mut list = TopicPartitionList::new();
        let outcome = list
            .add_partition_offset(&name.topic, name.partition, raw_offset(offset))
            .and_then(|()| match self.consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => self
                    .consumer
                    .incremental_unassign(&list)
                    .and_then(|()| self.consumer.incremental_assign(&list)),
                _ => {
                    let mut all = TopicPartitionList::new();
                    let shared = self.consumer.context().lock();
                    for &log in &shared.owned {
                        let owned = &self.logs[usize::from(log)];
                        let next = shared.next[usize::from(log)];
                        all.add_partition_offset(&owned.topic, owned.partition, raw_offset(next))?;
                    }
                    drop(shared);
                    self.consumer.assign(&all)
                }
            });
        if let Err(error) = outcome {
            let reason = format!(
                "going on at offset {offset} of {}[{}]: {error}",
                name.topic, name.partition
            );
            let brokers = self.connection.brokers.clone();
            self.consumer
                .context()
                .lock()
                .failure
                .get_or_insert(KafkaSourceError::Fatal { brokers, reason });
        }
    }

    fn commit(&mut self, next: &[(LogIndex, u64)]) {
        let mut list = TopicPartitionList::new();
        {
            let shared = self.consumer.context().lock();
            for (log, offset) in next {
                // Committing what another member owns now is refused as a whole.
                if !shared.owned.contains(log) {
                    continue;
                }
                let name = &self.logs[usize::from(*log)];
                if let Err(error) =
                    list.add_partition_offset(&name.topic, name.partition, raw_offset(*offset))
                {
                    drop(shared);
                    self.notice(format!("cannot commit offset {offset}: {error}"));
                    return;
                }
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            self.notice(format!("cannot commit offsets: {error}"));
        }
    }

    /// Moves events into the channel as far as it has room; false if nobody reads it any more.
    fn deliver(&mut self) -> bool {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    self.thin_out();
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        true
    }

    /// While the engine is behind, only the newest lag figures are worth keeping.
    fn thin_out(&mut self) {
        if let Some(newest) = self
            .outbox
            .iter()
            .rposition(|event| matches!(event, SourceEvent::Lag(_)))
        {
            let mut place = 0;
            self.outbox.retain(|event| {
                place += 1;
                place - 1 == newest || !matches!(event, SourceEvent::Lag(_))
            });
        }
    }

    /// Last words: waits for room, but not for ever.
    fn deliver_all(&mut self) {
        let begun = Instant::now();
        while let Some(event) = self.outbox.pop_front() {
            let left = Duration::from_secs(10).saturating_sub(begun.elapsed());
            if self.events.send_timeout(event, left).is_err() {
                return;
            }
        }
    }

    fn pause_or_resume(&mut self) {
        let queued = self.events.len();
        if !self.paused && (!self.outbox.is_empty() || queued >= PAUSE_AT) {
            self.set_paused(true);
        } else if self.paused && self.outbox.is_empty() && queued <= RESUME_AT {
            self.set_paused(false);
        }
    }

    fn set_paused(&mut self, pause: bool) {
        self.paused = pause;
        self.settle_until = Instant::now() + STATISTICS_SETTLE;
        self.candidates.clear();
        let mut list = TopicPartitionList::new();
        {
            let mut shared = self.consumer.context().lock();
            shared.behind = pause;
            let shared = &mut *shared;
            for &log in &shared.owned {
                // Only what we paused is resumed, and only what runs is paused.
                let changes = if pause {
                    shared.paused.insert(log)
                } else {
                    shared.paused.remove(&log)
                };
                if changes {
                    let name = &self.logs[usize::from(log)];
                    list.add_partition(&name.topic, name.partition);
                }
            }
        }
        if list.count() == 0 {
            return;
        }
        let outcome = if pause {
            self.consumer.pause(&list)
        } else {
            self.consumer.resume(&list)
        };
        if let Err(error) = outcome {
            let brokers = self.connection.brokers.clone();
            let reason = format!(
                "{} partitions: {error}",
                if pause { "pausing" } else { "resuming" }
            );
            self.consumer
                .context()
                .lock()
                .failure
                .get_or_insert(KafkaSourceError::Fatal { brokers, reason });
        }
    }
}

/// Copies a message into the batch and notes its offset.
fn take(consumer: &BaseConsumer<Context>, batch: &mut Batch, message: &BorrowedMessage<'_>) {
    let offset = as_u64(message.offset());
    let log = {
        let mut shared = consumer.context().lock();
        let Some(log) = shared.log(message.topic(), message.partition()) else {
            return;
        };
        let next = &mut shared.next[usize::from(log)];
        // Fetched twice, around a pause or a rebalance: it was handed over already.
        if offset < *next {
            return;
        }
        *next = offset + 1;
        log
    };
    batch.push(Record {
        log,
        offset,
        append_time: append_time(message),
        control: is_control(message),
        key: message.key().unwrap_or_default(),
        value: message.payload().unwrap_or_default(),
    });
}

/// A stretch of a partition: offsets from `from` up to, not including, `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub from: u64,
    /// End; `None` follows the partition for ever.
    pub to: Option<u64>,
}

/// Reads given stretches of partitions outside any group: for the commands that copy topics.
pub struct RangeReader {
    brokers: String,
    consumer: BaseConsumer<Context>,
    /// End and next offset of the stretches that are not done.
    open: BTreeMap<(String, i32), (Option<u64>, u64)>,
    begun: Instant,
    quiet_since: Instant,
}

impl std::fmt::Debug for RangeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RangeReader")
            .field("brokers", &self.brokers)
            .field("open", &self.open)
            .finish()
    }
}

/// What [`RangeReader::next`] found.
#[derive(Debug)]
pub enum Next<'a> {
    /// A message of one of the stretches.
    Message(BorrowedMessage<'a>),
    /// Nothing yet.
    Nothing,
    /// All stretches are done.
    Done,
}

impl RangeReader {
    /// Begins to read.
    ///
    /// # Errors
    /// A wrong property or assignment.
    pub fn open(connection: &KafkaConnection, ranges: &[LogRange]) -> Result<Self, KafkaSourceError> {
        let mut config = connection.consumer_config()?;
        // librdkafka wants a group's name even for a manual assignment; nothing is committed to it.
        let group = if connection.group_id.is_empty() {
            "viaflux-reader"
        } else {
            connection.group_id.as_str()
        };
        config.set("group.id", group);
        config.remove("group.instance.id");
        config.set("statistics.interval.ms", "1000");
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context::default())
            .map_err(|error| client_error(&connection.brokers, error))?;
        let mut list = TopicPartitionList::new();
        let mut open = BTreeMap::new();
        let fatal = |error: KafkaError| KafkaSourceError::Fatal {
            brokers: connection.brokers.clone(),
            reason: format!("assigning partitions: {error}"),
        };
        for range in ranges {
            if range.to.is_some_and(|to| to <= range.from) {
                continue;
            }
            list.add_partition_offset(&range.topic, range.partition, raw_offset(range.from))
                .map_err(fatal)?;
            open.insert((range.topic.clone(), range.partition), (range.to, range.from));
        }
        if list.count() > 0 {
            consumer.assign(&list).map_err(fatal)?;
        }
        let now = Instant::now();
        Ok(Self {
            brokers: connection.brokers.clone(),
            consumer,
            open,
            begun: now,
            quiet_since: now,
        })
    }

    /// The next message of the stretches, waiting at most `timeout`.
    ///
    /// # Errors
    /// Wrong credentials, a forbidden topic, an offset that the broker has no more, or a fatal error.
    pub fn next(&mut self, timeout: Duration) -> Result<Next<'_>, KafkaSourceError> {
        self.close_at_end();
        if self.open.is_empty() {
            return Ok(Next::Done);
        }
        let polled = self.consumer.poll(timeout);
        let message = match polled {
            None => return Ok(Next::Nothing),
            Some(Err(error)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                let newest = self.consumer.context().lock().errors.pop_back();
                let reason = newest.map_or_else(|| error.to_string(), |(_, reason)| reason);
                let brokers = self.brokers.clone();
                return if is_credentials(code) {
                    Err(KafkaSourceError::Credentials { brokers, reason })
                } else if code == RDKafkaErrorCode::AutoOffsetReset {
                    let reason = format!("{reason}; the broker has deleted records while we read them");
                    Err(KafkaSourceError::Fatal { brokers, reason })
                } else if is_forbidden(code) {
                    Err(KafkaSourceError::Forbidden {
                        brokers,
                        what: "read".to_owned(),
                        reason,
                    })
                } else if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
                    Err(KafkaSourceError::Fatal { brokers, reason })
                } else {
                    // A broker that is away: librdkafka keeps trying.
                    tracing::warn!(%reason, "kafka");
                    Ok(Next::Nothing)
                };
            }
            Some(Ok(message)) => message,
        };
        self.quiet_since = Instant::now();
        let place = (message.topic().to_owned(), message.partition());
        let offset = as_u64(message.offset());
        let Some((to, next)) = self.open.get_mut(&place) else {
            return Ok(Next::Nothing);
        };
        *next = offset + 1;
        let (beyond, last) = match *to {
            Some(to) => (offset >= to, offset + 1 >= to),
            None => (false, false),
        };
        if last {
            self.open.remove(&place);
            let mut list = TopicPartitionList::new();
            list.add_partition(&place.0, place.1);
            self.consumer
                .pause(&list)
                .map_err(|error| KafkaSourceError::Fatal {
                    brokers: self.brokers.clone(),
                    reason: format!("pausing a partition that is done: {error}"),
                })?;
        }
        Ok(if beyond {
            Next::Nothing
        } else {
            Next::Message(message)
        })
    }

    /// Closes stretches whose end is made of transaction markers or compacted records, which never arrive:
    /// fetching is past their end, and nothing has come for a while.
    fn close_at_end(&mut self) {
        let Some(statistics) = self.consumer.context().lock().statistics.take() else {
            return;
        };
        if self.begun.elapsed() < STATISTICS_SETTLE || self.quiet_since.elapsed() < Duration::from_secs(1) {
            return;
        }
        for (topic, partition, figures) in statistics {
            let place = (topic, partition);
            if let Some((Some(to), _)) = self.open.get(&place)
                && figures.next_offset >= 0
                && as_u64(figures.next_offset) >= *to
            {
                self.open.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests;
