//! How to reach Kafka, with which settings, and what can go wrong.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::engine::LogIndex;

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
    // Longer than a broker takes to restart.
    ("delivery.timeout.ms", "90000"),
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
        /// We may not write there, so it was surely not written and never will be.
        forbidden: bool,
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

pub(super) fn client_error(brokers: &str, error: KafkaError) -> KafkaSourceError {
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

pub(super) fn is_credentials(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::IllegalSASLState
    )
}

pub(super) fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}
