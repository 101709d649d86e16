//! Questions to the cluster: topics, offsets, settings. Each has a deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::callbacks::{Context, as_u64};
use super::connection::{KafkaConnection, KafkaSourceError, client_error, is_credentials, is_forbidden};

/// How long to wait for a broker that answers.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a topic may be unknown before it counts as missing: brokers learn of new topics one by one.
const TOPIC_GRACE: Duration = Duration::from_secs(2);

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
pub(super) struct Enquiry {
    brokers: String,
    consumer: BaseConsumer<Context>,
}

impl Enquiry {
    pub(super) fn new(connection: &KafkaConnection) -> Result<Self, KafkaSourceError> {
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
    pub(super) fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<i32>>, KafkaSourceError> {
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
    pub(super) fn watermarks(&self, topic: &str, partition: i32) -> Result<(u64, u64), KafkaSourceError> {
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, partition, Duration::from_secs(5))
            .map_err(|error| self.query_error(format!("the offsets of {topic}[{partition}]"), &error))?;
        Ok((as_u64(low), as_u64(high)))
    }

    /// First offsets not older than `ms` in every partition; `None` if all records are older.
    pub(super) fn offsets_at(
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
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Asks whether topics have `message.timestamp.type=LogAppendTime`; `None` where the broker does not tell.
pub(super) fn timestamp_types(
    connection: &KafkaConnection,
    topics: &[&str],
) -> Result<Vec<Option<bool>>, KafkaSourceError> {
    let stamped = |of_topic: Option<BTreeMap<String, String>>| {
        let value = of_topic?.remove("message.timestamp.type")?;
        Some(value == "LogAppendTime")
    };
    Ok(topic_settings(connection, topics)?
        .into_iter()
        .map(stamped)
        .collect())
}

/// Settings of topics by name, in their order; `None` where the broker does not tell, as without the ACL
/// `DescribeConfigs`.
///
/// # Errors
/// The client cannot be made.
pub fn topic_settings(
    connection: &KafkaConnection,
    topics: &[&str],
) -> Result<Vec<Option<BTreeMap<String, String>>>, KafkaSourceError> {
    let admin: AdminClient<DefaultClientContext> = connection
        .admin_config()?
        .create()
        .map_err(|error| client_error(&connection.brokers, error))?;
    let asked: Vec<ResourceSpecifier<'_>> = topics.iter().map(|t| ResourceSpecifier::Topic(t)).collect();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(3)));
    let mut settings = vec![None; topics.len()];
    let Ok(answers) = wait(admin.describe_configs(&asked, &options)) else {
        return Ok(settings);
    };
    for (slot, answer) in settings.iter_mut().zip(answers) {
        *slot = answer.ok().map(|resource| {
            resource
                .entries
                .into_iter()
                .filter_map(|entry| Some((entry.name, entry.value?)))
                .collect()
        });
    }
    Ok(settings)
}
