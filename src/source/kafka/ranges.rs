//! Stretches of partitions, read outside any group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::STATISTICS_SETTLE;
use super::callbacks::{Context, as_u64, raw_offset};
use super::connection::{KafkaConnection, KafkaSourceError, client_error, is_credentials, is_forbidden};

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
    /// Partitions held back.
    held: BTreeSet<(String, i32)>,
    /// Until then, statistics may speak of a position that is no more.
    settle_until: Instant,
    /// Stretches that fetching has passed although their last record has not come.
    candidates: BTreeSet<(String, i32)>,
    /// Time spent waiting in vain since the last message or candidate. The caller's own time does not
    /// count: messages may lie ready meanwhile.
    waited: Duration,
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
        Ok(Self {
            brokers: connection.brokers.clone(),
            consumer,
            open,
            held: BTreeSet::new(),
            settle_until: Instant::now() + STATISTICS_SETTLE,
            candidates: BTreeSet::new(),
            waited: Duration::ZERO,
        })
    }

    /// Holds partitions back, or lets them go on. What is not open any more is left out.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn hold(&mut self, places: &[(String, i32)], hold: bool) -> Result<(), KafkaSourceError> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in places.iter().filter(|place| self.open.contains_key(*place)) {
            list.add_partition(topic, *partition);
        }
        if list.count() == 0 {
            return Ok(());
        }
        // A pause throws away what was fetched ahead; statistics know it later.
        self.settle_until = Instant::now() + STATISTICS_SETTLE;
        self.candidates.clear();
        for place in places {
            if hold {
                self.held.insert(place.clone());
            } else {
                self.held.remove(place);
            }
        }
        let outcome = if hold {
            self.consumer.pause(&list)
        } else {
            self.consumer.resume(&list)
        };
        outcome.map_err(|error| KafkaSourceError::Fatal {
            brokers: self.brokers.clone(),
            reason: format!(
                "{} partitions: {error}",
                if hold { "pausing" } else { "resuming" }
            ),
        })
    }

    /// The partitions whose stretches are not done.
    pub fn open_places(&self) -> impl Iterator<Item = &(String, i32)> {
        self.open.keys()
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
        let begun = Instant::now();
        let polled = self.consumer.poll(timeout);
        let message = match polled {
            None => {
                // Less: a callback was served, and messages may wait behind it.
                if begun.elapsed() >= timeout {
                    self.waited += begun.elapsed();
                }
                return Ok(Next::Nothing);
            }
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
        self.waited = Duration::ZERO;
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
    /// fetching is past their end, and nothing came while we waited.
    fn close_at_end(&mut self) {
        let statistics = self.consumer.context().lock().statistics.take();
        if Instant::now() >= self.settle_until {
            for (topic, partition, figures) in statistics.unwrap_or_default() {
                let place = (topic, partition);
                if let Some((Some(to), _)) = self.open.get(&place)
                    && figures.next_offset >= 0
                    && as_u64(figures.next_offset) >= *to
                    && !self.held.contains(&place)
                    && self.candidates.insert(place)
                {
                    self.waited = Duration::ZERO;
                }
            }
        }
        if self.waited >= Duration::from_secs(1) {
            for place in std::mem::take(&mut self.candidates) {
                self.open.remove(&place);
            }
        }
    }
}
