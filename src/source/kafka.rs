//! Kafka as a source: topics looked up at the start, one consumer on its own thread, and a bounded reader
//! for the commands that copy topics.
//!
//! The rules that this file keeps, each paid for by somebody's outage: the offsets are ours (no automatic
//! commit, no automatic reset); they are put into the assignment before its single `assign`; a revoked
//! partition is given back inside the callback; the polling thread never waits for the engine but pauses the
//! partitions; a message is copied and dropped at once, for it holds on to its whole fetch buffer.

mod callbacks;
mod connection;
mod enquiry;
mod poller;
mod ranges;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rdkafka::client::ClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use self::callbacks::{Context, Shared, as_u64};
pub(crate) use self::callbacks::{append_time, is_control};
pub use self::connection::{KafkaConnection, KafkaSourceError};
use self::connection::{client_error, is_forbidden};
pub(crate) use self::enquiry::wait;
use self::enquiry::{Enquiry, timestamp_types, wall_ms};
pub use self::enquiry::{partition_counts, topic_settings};
use self::poller::{CHANNEL_EVENTS_MAX, Command, Poller};
pub use self::ranges::{LogRange, Next, RangeReader};
use crate::engine::{Batch, LogIndex};
use crate::units::EventTime;

/// Message header that marks a control record.
pub const CONTROL_HEADER: &str = "viaflux.control";

/// After an assignment or a pause, librdkafka's statistics still tell of the time before for about a second.
const STATISTICS_SETTLE: Duration = Duration::from_secs(3);

/// Offset of a control record, or why it was not written.
pub type Appended = Result<u64, KafkaSourceError>;

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
    /// So many commits of offsets failed since the last word of it; a notice says why.
    CommitsFailed(u64),
    /// The source has stopped for good.
    Error(KafkaSourceError),
    /// Something an operator should know; the source goes on.
    Notice(String),
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
    /// written (where it is forbidden, the caller keeps it in the journal).
    ///
    /// # Errors
    /// The producer cannot be made, or its queue is full.
    pub fn append_control(
        &mut self,
        log: LogIndex,
        value: &[u8],
    ) -> Result<Receiver<Appended>, KafkaSourceError> {
        let name = self
            .logs
            .get(usize::from(log))
            .ok_or_else(|| KafkaSourceError::Control {
                topic: "?".to_owned(),
                partition: -1,
                forbidden: false,
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
        let record: BaseRecord<'_, [u8], [u8], Box<Sender<Appended>>> =
            BaseRecord::with_opaque_to(&name.topic, Box::new(reply))
                .partition(name.partition)
                .payload(value)
                .headers(headers);
        producer
            .send(record)
            .map_err(|(error, _)| KafkaSourceError::Control {
                topic: name.topic.clone(),
                partition: name.partition,
                // After a first refusal librdkafka refuses at once, and without a right to write anything at all
                // the producer as a whole has failed.
                forbidden: error
                    .rdkafka_error_code()
                    .into_iter()
                    .chain(producer.client().fatal_error().map(|(code, _)| code))
                    .any(is_forbidden),
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
    type DeliveryOpaque = Box<Sender<Appended>>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, reply: Self::DeliveryOpaque) {
        let outcome = match delivery {
            Ok(message) => Ok(as_u64(message.offset())),
            Err((error, message)) => Err(KafkaSourceError::Control {
                topic: message.topic().to_owned(),
                partition: message.partition(),
                forbidden: error.rdkafka_error_code().is_some_and(is_forbidden),
                reason: error.to_string(),
            }),
        };
        // The caller may have stopped waiting.
        let _ = reply.try_send(outcome);
    }
}

#[cfg(test)]
mod tests;
