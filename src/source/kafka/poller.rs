//! The polling thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::callbacks::{Context, append_time, as_u64, is_control, raw_offset};
use super::connection::{KafkaConnection, KafkaSourceError, is_credentials, is_forbidden};
use super::enquiry::Enquiry;
use super::{LogName, STATISTICS_SETTLE, SourceEvent};
use crate::engine::{Batch, LogIndex, Record};

/// Longest wait of one poll; also the age at which a batch is handed over.
const POLL: Duration = Duration::from_millis(50);
/// Records in one batch at most.
pub(super) const BATCH_RECORDS_MAX: usize = 5_000;
/// Payload bytes after which a batch is handed over.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Events between the polling thread and the engine. With the two limits above, some 16 MiB.
pub(super) const CHANNEL_EVENTS_MAX: usize = 16;
/// Partitions are paused when the channel holds this many events, and resumed when it holds
/// [`RESUME_AT`]: pausing throws away what was fetched ahead, so it must not flutter.
pub(super) const PAUSE_AT: usize = CHANNEL_EVENTS_MAX * 8 / 10;
const RESUME_AT: usize = CHANNEL_EVENTS_MAX * 3 / 10;
/// A notice with the same words is repeated at most this often.
const NOTICE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Command {
    Commit(Vec<(LogIndex, u64)>),
    Stop,
}

type Watermarks = Vec<(LogIndex, Result<(u64, u64), KafkaSourceError>)>;

/// The polling thread.
pub(super) struct Poller {
    pub(super) connection: KafkaConnection,
    pub(super) logs: Vec<LogName>,
    pub(super) consumer: BaseConsumer<Context>,
    pub(super) events: Sender<SourceEvent>,
    pub(super) mailbox: Receiver<Command>,
    /// Events that wait for room in the channel, oldest first.
    pub(super) outbox: VecDeque<SourceEvent>,
    pub(super) batch: Batch,
    pub(super) batch_since: Option<Instant>,
    pub(super) paused: bool,
    /// Until then, statistics may speak of an assignment or a position that is no more.
    pub(super) settle_until: Instant,
    /// End last told as reached, by log.
    pub(super) caught_up: Vec<Option<u64>>,
    /// Ends that fetching has reached although the last record handed over lies before them: what is
    /// between are transaction markers or records that compaction took. Certain once the queue was empty.
    pub(super) candidates: BTreeMap<LogIndex, u64>,
    pub(super) quiet_polls: u32,
    /// Running question for the offsets kept, asked after "offset out of range".
    pub(super) enquiry: Option<Receiver<Watermarks>>,
    pub(super) noticed: BTreeMap<String, Instant>,
    pub(super) ever_assigned: bool,
}

impl Poller {
    pub(super) fn run(mut self) {
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
        let (rebalanced, notices, owned, commits_failed) = {
            let mut shared = self.consumer.context().lock();
            let rebalanced = std::mem::take(&mut shared.rebalanced);
            let owned = if rebalanced {
                shared.owned.clone()
            } else {
                BTreeSet::new()
            };
            let failed = std::mem::take(&mut shared.commits_failed);
            (rebalanced, std::mem::take(&mut shared.notices), owned, failed)
        };
        if commits_failed > 0 {
            self.outbox.push_back(SourceEvent::CommitsFailed(commits_failed));
        }
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
            self.outbox.push_back(SourceEvent::CommitsFailed(1));
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
