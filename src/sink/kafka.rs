//! Kafka as a sink: publications with CloudEvents headers (binary mode), and rejected records.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::publish::{Publication, Topic};
use crate::source::kafka::{KafkaConnection, KafkaSourceError, wait};

/// How long [`KafkaSink::publish`] waits for room; above `delivery.timeout.ms`, so that a broker which is
/// away shows as a failed delivery with its reason first.
const ROOM_DEADLINE: Duration = Duration::from_secs(95);

/// Why Kafka cannot be written. After any of these the task stops and starts again from its checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSinkError {
    /// The connection's settings are wrong, or no broker answers.
    #[error(transparent)]
    Connection(#[from] KafkaSourceError),
    /// The producer cannot be made.
    #[error("cannot make a Kafka producer for {brokers}: {reason}")]
    Client {
        /// Brokers named.
        brokers: String,
        /// librdkafka's words.
        reason: String,
    },
    /// A record was not delivered.
    #[error(
        "Kafka at {brokers} did not take a record for {topic}: {reason}; check that the brokers run and that we \
         may write the topic"
    )]
    Delivery {
        /// Brokers.
        brokers: String,
        /// Topic.
        topic: String,
        /// Why not.
        reason: String,
    },
    /// The producer's queue stayed full.
    #[error("the queue to Kafka at {brokers} stayed full for {waited_s} s ({waiting} records wait)")]
    Full {
        /// Brokers.
        brokers: String,
        /// Seconds waited.
        waited_s: u64,
        /// Records in the queue.
        waiting: i32,
    },
    /// Not everything was delivered in time.
    #[error("{waiting} records were not acknowledged by Kafka at {brokers} within {waited_s} s")]
    Flush {
        /// Brokers.
        brokers: String,
        /// Seconds waited.
        waited_s: u64,
        /// Records not acknowledged.
        waiting: i32,
    },
    /// The sink has no name for a topic.
    #[error("no Kafka topic is configured for {topic:?}")]
    NoTopic {
        /// The publication's topic.
        topic: Topic,
    },
    /// Output topics do not exist.
    #[error(
        "Kafka at {brokers} lacks output topics; create them with\n{commands}\nor allow viaflux to create topics"
    )]
    MissingTopics {
        /// Brokers.
        brokers: String,
        /// One command a line.
        commands: String,
    },
    /// Topics could not be made.
    #[error("Kafka at {brokers} did not create topic {topic}: {reason}; create it with\n{command}")]
    Create {
        /// Brokers.
        brokers: String,
        /// Topic.
        topic: String,
        /// Why not.
        reason: String,
        /// The command that makes it.
        command: String,
    },
}

#[derive(Debug, Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    /// The first failures; nothing is sent after one.
    failures: Mutex<VecDeque<(String, String)>>,
}

impl Deliveries {
    fn fail(&self, topic: &str, reason: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < 16 {
            failures.push_back((topic.to_owned(), reason));
        }
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        // An idempotent producer that lost its sequence can never write again.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fail("any topic", reason.to_owned());
        } else {
            tracing::warn!(%reason, "kafka sink");
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        match delivery {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, message)) => self.fail(message.topic(), error.to_string()),
        }
    }
}

/// An idempotent producer that stops at the first record it could not deliver.
///
/// Its thread polls delivery reports. Dropping it throws away what is queued: [`RecordProducer::flush`]
/// before.
pub struct RecordProducer {
    brokers: String,
    producer: ThreadedProducer<Deliveries>,
}

impl std::fmt::Debug for RecordProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordProducer")
            .field("brokers", &self.brokers)
            .finish_non_exhaustive()
    }
}

/// A record to produce.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition; by the hash of the key if `None`.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl RecordProducer {
    /// Makes the producer; nothing is sent yet.
    ///
    /// # Errors
    /// A wrong property.
    pub fn new(connection: &KafkaConnection) -> Result<Self, KafkaSinkError> {
        let producer = connection
            .producer_config()?
            .create_with_context(Deliveries::default())
            .map_err(|error| match error {
                // The value stays out of the message: it may be a password.
                KafkaError::ClientConfig(_, reason, key, _) => {
                    KafkaSinkError::Connection(KafkaSourceError::Property { key, reason })
                }
                error => KafkaSinkError::Client {
                    brokers: connection.brokers.clone(),
                    reason: error.to_string(),
                },
            })?;
        Ok(Self {
            brokers: connection.brokers.clone(),
            producer,
        })
    }

    /// The failure that stopped this producer, if any.
    ///
    /// # Errors
    /// A record was not delivered.
    pub fn check(&self) -> Result<(), KafkaSinkError> {
        let failures = self
            .producer
            .context()
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match failures.front() {
            None => Ok(()),
            Some((topic, reason)) => Err(KafkaSinkError::Delivery {
                brokers: self.brokers.clone(),
                topic: topic.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// Queues a record. A full queue holds the caller back.
    ///
    /// # Errors
    /// An earlier record was not delivered, or the queue stays full beyond the delivery timeout.
    pub fn send(
        &self,
        outgoing: Outgoing<'_>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Result<(), KafkaSinkError> {
        self.check()?;
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(outgoing.topic);
        record.partition = outgoing.partition;
        record.key = outgoing.key;
        record.payload = outgoing.value;
        if !headers.is_empty() {
            let mut all = OwnedHeaders::new_with_capacity(headers.len());
            for (key, value) in headers {
                all = all.insert(Header { key, value: *value });
            }
            record.headers = Some(all);
        }
        let begun = Instant::now();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.check()?;
                    if begun.elapsed() > ROOM_DEADLINE {
                        return Err(KafkaSinkError::Full {
                            brokers: self.brokers.clone(),
                            waited_s: begun.elapsed().as_secs(),
                            waiting: self.producer.in_flight_count(),
                        });
                    }
                    // The producer's own thread serves the reports that make room.
                    std::thread::sleep(Duration::from_millis(5));
                    record = back;
                }
                Err((error, _)) => {
                    return Err(KafkaSinkError::Delivery {
                        brokers: self.brokers.clone(),
                        topic: outgoing.topic.to_owned(),
                        reason: error.to_string(),
                    });
                }
            }
        }
    }

    /// Records acknowledged by all replicas in sync.
    pub fn acknowledged(&self) -> u64 {
        self.producer.context().acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until every record is acknowledged.
    ///
    /// # Errors
    /// A record was not delivered, or some were not acknowledged by the deadline.
    pub fn flush(&self, deadline: Duration) -> Result<(), KafkaSinkError> {
        let outcome = self.producer.flush(deadline);
        self.check()?;
        // The queue's length tells of other events than records too: the outcome alone says what is out.
        outcome.map_err(|_| KafkaSinkError::Flush {
            brokers: self.brokers.clone(),
            waited_s: deadline.as_secs(),
            waiting: self.producer.in_flight_count(),
        })
    }
}

/// CloudEvents type of a publication.
fn event_type(topic: Topic) -> &'static str {
    match topic {
        Topic::SegmentState => "viaflux.segment_state.v1",
        Topic::Corridor => "viaflux.corridor_travel_time.v1",
        Topic::Region => "viaflux.region_index.v1",
        Topic::AlertEvent | Topic::AlertState => "viaflux.alert.v1",
    }
}

/// Names of the output topics unless configured otherwise.
pub fn default_topics() -> BTreeMap<Topic, String> {
    [
        (Topic::SegmentState, "traffic.segment.state.v1"),
        (Topic::Corridor, "traffic.corridor.travel_time.v1"),
        (Topic::Region, "traffic.region.index.v1"),
        (Topic::AlertEvent, "traffic.alert.event.v1"),
        (Topic::AlertState, "traffic.alert.state.v1"),
    ]
    .map(|(topic, name)| (topic, name.to_owned()))
    .into()
}

/// Writes publications and rejected records.
#[derive(Debug)]
pub struct KafkaSink {
    producer: RecordProducer,
    topics: BTreeMap<Topic, String>,
    source: String,
}

/// A rejected record, with where it stood and why.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Topic in which it stood; it goes to `<topic>.dlq`.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: u64,
    /// Its key.
    pub key: &'a [u8],
    /// Its payload; `None` if it came with an earlier batch, and is to be read at its offset.
    pub value: Option<&'a [u8]>,
    /// Label of the rejection.
    pub reason: &'a str,
    /// Our field that it was refused for, if it was for one.
    pub field: Option<&'a str>,
    /// What is wrong, in words, if the record alone says it.
    pub detail: Option<&'a str>,
}

impl KafkaSink {
    /// Makes the sink; `instance` names this process in `ce_source` (`/viaflux/<instance>`).
    ///
    /// # Errors
    /// A wrong property.
    pub fn new(
        connection: &KafkaConnection,
        topics: BTreeMap<Topic, String>,
        instance: &str,
    ) -> Result<Self, KafkaSinkError> {
        Ok(Self {
            producer: RecordProducer::new(connection)?,
            topics,
            source: format!("/viaflux/{instance}"),
        })
    }

    /// Queues a publication with CloudEvents headers and `extra` ones. A full queue holds the caller back.
    ///
    /// # Errors
    /// An earlier record was not delivered, the queue stays full, or the topic has no name.
    pub fn publish(&self, publication: &Publication, extra: &[(&str, &str)]) -> Result<(), KafkaSinkError> {
        let topic = self
            .topics
            .get(&publication.topic)
            .ok_or(KafkaSinkError::NoTopic {
                topic: publication.topic,
            })?;
        let time = publication.time.to_string();
        let mut headers: Vec<(&str, Option<&[u8]>)> = vec![
            ("ce_specversion", Some(b"1.0")),
            ("ce_type", Some(event_type(publication.topic).as_bytes())),
            ("ce_source", Some(self.source.as_bytes())),
            ("ce_id", Some(publication.id.as_bytes())),
            ("ce_time", Some(time.as_bytes())),
        ];
        if publication.body.is_some() {
            headers.push(("content-type", Some(b"application/json")));
        }
        headers.extend(extra.iter().map(|(key, value)| (*key, Some(value.as_bytes()))));
        let outgoing = Outgoing {
            topic,
            partition: None,
            key: Some(publication.key.as_bytes()),
            value: publication.body.as_deref(),
        };
        self.producer.send(outgoing, &headers)
    }

    /// Queues a rejected record for `<topic>.dlq`. The caller limits the rate.
    ///
    /// # Errors
    /// As [`KafkaSink::publish`].
    pub fn dead_letter(&self, letter: &DeadLetter<'_>) -> Result<(), KafkaSinkError> {
        let topic = dead_letter_topic(letter.topic);
        let partition = letter.partition.to_string();
        let offset = letter.offset.to_string();
        let mut headers: Vec<(&str, Option<&[u8]>)> = vec![
            ("viaflux.reason", Some(letter.reason.as_bytes())),
            ("viaflux.topic", Some(letter.topic.as_bytes())),
            ("viaflux.partition", Some(partition.as_bytes())),
            ("viaflux.offset", Some(offset.as_bytes())),
        ];
        for (name, text) in [("viaflux.field", letter.field), ("viaflux.detail", letter.detail)] {
            headers.extend(text.map(|t| (name, Some(t.as_bytes()))));
        }
        let key = (!letter.key.is_empty()).then_some(letter.key);
        self.producer.send(
            Outgoing {
                topic: &topic,
                partition: None,
                key,
                value: letter.value,
            },
            &headers,
        )
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.producer.acknowledged()
    }

    /// Waits until every record is acknowledged; a checkpoint is written only after that.
    ///
    /// # Errors
    /// A record was not delivered, or not by the deadline.
    pub fn flush(&self, deadline: Duration) -> Result<(), KafkaSinkError> {
        self.producer.flush(deadline)
    }
}

/// Topic of the records rejected from `topic`.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// What a topic keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records for this many milliseconds.
    Delete(u64),
    /// The newest record of each key.
    Compact,
    /// The newest record of each key, and nothing older than this many milliseconds.
    CompactDelete(u64),
}

/// A topic that must exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// Partitions if it has to be made.
    pub partitions: i32,
    /// Replicas of each; −1: as the brokers' default.
    pub replication: i32,
    /// What it keeps.
    pub cleanup: Cleanup,
    /// Whether the broker stamps its records.
    pub log_append_time: bool,
}

const DAY_MS: u64 = 86_400_000;

impl TopicSpec {
    /// An output topic with what its contract says it keeps: states and current alerts are compacted, alert
    /// events stay for 30 days.
    pub fn output(topic: Topic, name: &str, partitions: i32) -> Self {
        let cleanup = match topic {
            Topic::SegmentState => Cleanup::CompactDelete(7 * DAY_MS),
            Topic::Corridor | Topic::Region | Topic::AlertState => Cleanup::Compact,
            Topic::AlertEvent => Cleanup::Delete(30 * DAY_MS),
        };
        Self {
            name: name.to_owned(),
            partitions,
            replication: -1,
            cleanup,
            log_append_time: false,
        }
    }

    /// The topic for what is rejected from `topic`, kept for a week.
    pub fn dead_letters(topic: &str) -> Self {
        let cleanup = Cleanup::Delete(7 * DAY_MS);
        let name = dead_letter_topic(topic);
        Self {
            name,
            partitions: 1,
            replication: -1,
            cleanup,
            log_append_time: false,
        }
    }

    /// An input topic, stamped by the broker, kept for a week.
    pub fn input(name: &str, partitions: i32) -> Self {
        let cleanup = Cleanup::Delete(7 * DAY_MS);
        Self {
            name: name.to_owned(),
            partitions,
            replication: -1,
            cleanup,
            log_append_time: true,
        }
    }

    /// Its `cleanup.policy`.
    pub const fn cleanup_policy(&self) -> &'static str {
        match self.cleanup {
            Cleanup::Delete(_) => "delete",
            Cleanup::Compact => "compact",
            Cleanup::CompactDelete(_) => "compact,delete",
        }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("cleanup.policy", self.cleanup_policy().to_owned())];
        if let Cleanup::Delete(ms) | Cleanup::CompactDelete(ms) = self.cleanup {
            settings.push(("retention.ms", ms.to_string()));
        }
        if self.log_append_time {
            settings.push(("message.timestamp.type", "LogAppendTime".to_owned()));
        }
        settings
    }

    /// Whether it must keep the newest record of each key.
    pub fn is_compacted(&self) -> bool {
        !matches!(self.cleanup, Cleanup::Delete(_))
    }

    /// The command by which an operator makes it.
    pub fn command(&self, brokers: &str) -> String {
        let mut command = format!(
            "kafka-topics.sh --bootstrap-server {brokers} --create --topic {} --partitions {}",
            self.name, self.partitions
        );
        if self.replication > 0 {
            command.push_str(&format!(" --replication-factor {}", self.replication));
        }
        for (key, value) in self.settings() {
            command.push_str(&format!(" --config {key}={value}"));
        }
        command
    }
}

/// Sees to it that the topics exist; returns the names of those made. An existing topic is left as it is.
///
/// # Errors
/// Topics are missing and `create` is false, or the broker did not create one.
pub fn ensure_topics(
    connection: &KafkaConnection,
    specs: &[TopicSpec],
    create: bool,
) -> Result<Vec<String>, KafkaSinkError> {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let counts = crate::source::kafka::partition_counts(connection, &names)?;
    let missing: Vec<&TopicSpec> = specs
        .iter()
        .zip(&counts)
        .filter(|(_, count)| count.is_none())
        .map(|(spec, _)| spec)
        .collect();
    let brokers = &connection.brokers;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    if !create {
        let commands: Vec<String> = missing
            .iter()
            .map(|spec| format!("  {}", spec.command(brokers)))
            .collect();
        let commands = commands.join("\n");
        return Err(KafkaSinkError::MissingTopics {
            brokers: brokers.clone(),
            commands,
        });
    }
    let admin: AdminClient<DefaultClientContext> =
        connection
            .admin_config()?
            .create()
            .map_err(|error| KafkaSinkError::Client {
                brokers: brokers.clone(),
                reason: error.to_string(),
            })?;
    let settings: Vec<Vec<(&str, String)>> = missing.iter().map(|spec| spec.settings()).collect();
    let new: Vec<NewTopic<'_>> = missing
        .iter()
        .zip(&settings)
        .map(|(spec, settings)| {
            let replication = TopicReplication::Fixed(spec.replication);
            let new = NewTopic::new(&spec.name, spec.partitions, replication);
            settings.iter().fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(10)))
        .operation_timeout(Some(Duration::from_secs(10)));
    let failed = |spec: &TopicSpec, reason: String| KafkaSinkError::Create {
        brokers: brokers.clone(),
        topic: spec.name.clone(),
        reason,
        command: format!("  {}", spec.command(brokers)),
    };
    let answers =
        wait(admin.create_topics(&new, &options)).map_err(|error| failed(missing[0], error.to_string()))?;
    for (spec, answer) in missing.iter().zip(answers) {
        match answer {
            // Another process was quicker.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(spec, code.to_string())),
        }
    }
    Ok(missing.iter().map(|spec| spec.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::source::kafka::{LogRange, Next, RangeReader};
    use crate::units::EventTime;

    fn connection(brokers: String) -> KafkaConnection {
        KafkaConnection {
            brokers,
            ..KafkaConnection::default()
        }
    }

    type Found = (String, Option<Vec<u8>>, Option<Vec<u8>>, BTreeMap<String, String>);

    fn read_all(connection: &KafkaConnection, topic: &str, count: u64) -> Vec<Found> {
        use rdkafka::message::Headers;
        let range = LogRange {
            topic: topic.to_owned(),
            partition: 0,
            from: 0,
            to: Some(count),
        };
        let mut reader = RangeReader::open(connection, &[range]).unwrap();
        let mut found = Vec::new();
        let begun = Instant::now();
        loop {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "only {} records",
                found.len()
            );
            match reader.next(Duration::from_millis(100)).unwrap() {
                Next::Done => return found,
                Next::Nothing => {}
                Next::Message(message) => {
                    let headers = message.headers().map_or_else(BTreeMap::new, |headers| {
                        headers
                            .iter()
                            .map(|h| {
                                let value = String::from_utf8_lossy(h.value.unwrap_or_default()).into_owned();
                                (h.key.to_owned(), value)
                            })
                            .collect()
                    });
                    found.push((
                        message.topic().to_owned(),
                        message.key().map(<[u8]>::to_vec),
                        message.payload().map(<[u8]>::to_vec),
                        headers,
                    ));
                }
            }
        }
    }

    #[test]
    fn publications_arrive_with_their_headers_and_tombstones_without_a_body() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("traffic.alert.state.v1", 1, 1).unwrap();
        let connection = connection(cluster.bootstrap_servers());
        let sink = KafkaSink::new(&connection, default_topics(), "test").unwrap();
        let alert = Publication {
            topic: Topic::AlertState,
            key: "a1".to_owned(),
            id: "a1:3".to_owned(),
            time: EventTime::from_ms(1_795_411_858_012),
            body: Some(b"{}".to_vec()),
        };
        sink.publish(&alert, &[("viaflux.pane", "7")]).unwrap();
        sink.publish(
            &Publication {
                body: None,
                ..alert.clone()
            },
            &[],
        )
        .unwrap();
        sink.flush(Duration::from_secs(10)).unwrap();
        assert_eq!(sink.acknowledged(), 2);
        let found = read_all(&connection, "traffic.alert.state.v1", 2);
        let (_, key, value, headers) = &found[0];
        assert_eq!(
            (key.as_deref(), value.as_deref()),
            (Some(&b"a1"[..]), Some(&b"{}"[..]))
        );
        let expected = [
            ("ce_id", "a1:3"),
            ("ce_source", "/viaflux/test"),
            ("ce_specversion", "1.0"),
            ("ce_time", alert.time.to_string().as_str()),
            ("ce_type", "viaflux.alert.v1"),
            ("content-type", "application/json"),
            ("viaflux.pane", "7"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(*headers, BTreeMap::from(expected));
        assert_eq!(found[1].2, None, "a tombstone has no value");
    }

    #[test]
    fn dead_letters_say_where_they_come_from() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("in.dlq", 1, 1).unwrap();
        let connection = connection(cluster.bootstrap_servers());
        let sink = KafkaSink::new(&connection, BTreeMap::new(), "test").unwrap();
        let letter = DeadLetter {
            field: Some("lat"),
            detail: Some("not one JSON value"),
            topic: "in",
            partition: 3,
            offset: 17,
            key: b"",
            value: Some(b"{nonsense"),
            reason: "decode",
        };
        sink.dead_letter(&letter).unwrap();
        sink.flush(Duration::from_secs(10)).unwrap();
        let (topic, key, value, headers) = read_all(&connection, "in.dlq", 1).remove(0);
        assert_eq!(
            (topic.as_str(), key, value.as_deref()),
            ("in.dlq", None, Some(&b"{nonsense"[..]))
        );
        let said: Vec<&str> = headers.values().map(String::as_str).collect();
        assert_eq!(said, ["not one JSON value", "lat", "17", "3", "decode", "in"]);
        let publication = Publication {
            topic: Topic::Region,
            key: String::new(),
            id: String::new(),
            time: EventTime::from_ms(0),
            body: None,
        };
        assert!(matches!(
            sink.publish(&publication, &[]),
            Err(KafkaSinkError::NoTopic { .. })
        ));
    }

    #[test]
    fn a_failed_delivery_stops_the_sink() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("out", 1, 1).unwrap();
        let mut connection = connection(cluster.bootstrap_servers());
        connection
            .properties
            .insert("delivery.timeout.ms".to_owned(), "1500".to_owned());
        connection
            .properties
            .insert("request.timeout.ms".to_owned(), "500".to_owned());
        let producer = RecordProducer::new(&connection).unwrap();
        let outgoing = Outgoing {
            topic: "out",
            value: Some(b"x"),
            ..Outgoing::default()
        };
        producer.send(outgoing, &[]).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
        cluster.broker_down(1).unwrap();
        producer.send(outgoing, &[]).unwrap();
        let error = producer.flush(Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("did not take a record for out"), "{error}");
        assert!(
            producer.send(outgoing, &[]).is_err(),
            "a stopped producer took a record"
        );
        assert_eq!(producer.acknowledged(), 1);
    }

    #[test]
    fn missing_topics_are_listed_with_the_commands_that_make_them() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("there", 1, 1).unwrap();
        let connection = connection(cluster.bootstrap_servers());
        let there = TopicSpec {
            name: "there".to_owned(),
            ..TopicSpec::input("x", 1)
        };
        assert_eq!(
            ensure_topics(&connection, &[there], false).unwrap(),
            Vec::<String>::new()
        );
        let commands = [
            TopicSpec::output(Topic::SegmentState, "states", 6).command("b:1"),
            TopicSpec::output(Topic::AlertEvent, "events", 1).command("b:1"),
        ];
        assert_eq!(
            commands[0],
            "kafka-topics.sh --bootstrap-server b:1 --create --topic states --partitions 6 \
             --config cleanup.policy=compact,delete --config retention.ms=604800000"
        );
        assert!(commands[1].ends_with("--config cleanup.policy=delete --config retention.ms=2592000000"));
    }
}
