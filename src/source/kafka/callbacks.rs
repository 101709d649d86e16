//! What librdkafka calls inside `poll`: rebalances, errors, statistics; and what of it the loop sees.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message, Timestamp};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

use super::CONTROL_HEADER;
use super::connection::KafkaSourceError;
use crate::engine::LogIndex;
use crate::units::EventTime;

/// What librdkafka tells of a partition in its statistics.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct PartitionStatistics {
    #[serde(default = "unknown_offset")]
    pub(super) next_offset: i64,
    #[serde(default = "unknown_offset")]
    pub(super) ls_offset: i64,
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
pub(super) struct Shared {
    /// Logs by topic, then by partition.
    pub(super) logs: BTreeMap<String, BTreeMap<i32, LogIndex>>,
    /// Next offset to hand over, by log.
    pub(super) next: Vec<u64>,
    pub(super) owned: BTreeSet<LogIndex>,
    /// Logs for which a pause was asked and no resume.
    pub(super) paused: BTreeSet<LogIndex>,
    /// Whether the engine is behind, so that new partitions begin paused.
    pub(super) behind: bool,
    pub(super) rebalanced: bool,
    pub(super) failure: Option<KafkaSourceError>,
    pub(super) notices: VecDeque<String>,
    /// Commits that failed since this was last told.
    pub(super) commits_failed: u64,
    /// Errors with librdkafka's explanation, newest last.
    pub(super) errors: VecDeque<(RDKafkaErrorCode, String)>,
    /// Newest statistics, until taken.
    pub(super) statistics: Option<Vec<(String, i32, PartitionStatistics)>>,
}

impl Shared {
    pub(super) fn log(&self, topic: &str, partition: i32) -> Option<LogIndex> {
        self.logs.get(topic)?.get(&partition).copied()
    }
}

const KEPT_ERRORS: usize = 64;

/// Context of every consumer here.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) shared: Mutex<Shared>,
}

impl Context {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
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
            let mut shared = self.lock();
            shared.commits_failed += 1;
            shared
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

pub(super) fn raw_offset(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

pub(super) fn as_u64(offset: i64) -> u64 {
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
