//! Against a real Apache Kafka.
//!
//! `tests/broker/kafka.sh start` starts one and prints the variables that these tests want: `VIAFLUX_KAFKA`
//! (a plain listener) and `VIAFLUX_KAFKA_SASL` (SASL/PLAIN without TLS). Without them the tests are skipped,
//! aloud.

// Helpers outside of #[test] functions.
#![allow(clippy::unwrap_used)]

#[path = "broker/check.rs"]
mod check;
#[path = "broker/commands.rs"]
mod commands;
#[path = "broker/connect.rs"]
mod connect;
#[path = "broker/read.rs"]
mod read;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;
use viaflux::engine::LogIndex;
use viaflux::sink::kafka::{Cleanup, Outgoing, RecordProducer, TopicSpec, ensure_topics};
use viaflux::source::kafka::{KafkaConnection, KafkaInput, SourceEvent, Start};

/// Address of the broker, or the reason why the test does nothing.
pub(crate) fn broker() -> Option<String> {
    address("VIAFLUX_KAFKA")
}

pub(crate) fn address(variable: &str) -> Option<String> {
    let found = std::env::var(variable).ok().filter(|address| !address.is_empty());
    if found.is_none() {
        println!("SKIPPED broker lane: set {variable}");
    }
    found
}

pub(crate) fn connection(brokers: &str, group: &str) -> KafkaConnection {
    KafkaConnection {
        brokers: brokers.to_owned(),
        group_id: group.to_owned(),
        client_id: "viaflux-test".to_owned(),
        properties: BTreeMap::new(),
    }
}

/// A name that no test before used on this broker.
pub(crate) fn fresh(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("test-{name}-{now}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A new topic; `stamped` by the broker or with the producer's time.
pub(crate) fn topic(brokers: &str, name: &str, partitions: i32, stamped: bool) -> String {
    let name = fresh(name);
    let spec = TopicSpec {
        name: name.clone(),
        partitions,
        replication: 1,
        cleanup: Cleanup::Delete(86_400_000),
        log_append_time: stamped,
    };
    let made = ensure_topics(&connection(brokers, ""), &[spec], true).unwrap();
    assert_eq!(made.len(), 1, "{name} was there already");
    name
}

/// Writes the values `range` round the partitions of a topic; the key is the value.
pub(crate) fn fill(brokers: &str, topic: &str, partitions: i32, range: std::ops::Range<u32>) {
    let producer = RecordProducer::new(&connection(brokers, "")).unwrap();
    for i in range {
        let text = i.to_string();
        let outgoing = Outgoing {
            topic,
            partition: Some(i as i32 % partitions),
            key: Some(text.as_bytes()),
            value: Some(text.as_bytes()),
        };
        producer.send(outgoing, &[]).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

pub(crate) fn earliest(topic: &str) -> Vec<KafkaInput> {
    vec![KafkaInput {
        topic: topic.to_owned(),
        start: Start::Earliest,
    }]
}

/// What a source told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Offset, value and append time of every record, by log.
    pub(crate) records: BTreeMap<LogIndex, Vec<(u64, u32, Option<i64>)>>,
    pub(crate) caught_up: BTreeMap<LogIndex, u64>,
    pub(crate) gaps: Vec<(LogIndex, u64, u64)>,
    pub(crate) owned: Vec<LogIndex>,
    pub(crate) lags: BTreeMap<LogIndex, u64>,
    pub(crate) notices: Vec<String>,
    pub(crate) error: Option<String>,
}

impl Heard {
    pub(crate) fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Batch(batch) => {
                for record in batch.iter() {
                    let value = std::str::from_utf8(record.value).unwrap().parse().unwrap();
                    let entry = (record.offset, value, record.append_time.map(|time| time.ms()));
                    self.records.entry(record.log).or_default().push(entry);
                }
            }
            SourceEvent::Assigned { owned, .. } => self.owned = owned,
            SourceEvent::CaughtUp(ends) => self.caught_up.extend(ends),
            SourceEvent::Lag(lags) => self.lags.extend(lags),
            SourceEvent::Gap { log, from, to } => self.gaps.push((log, from, to)),
            SourceEvent::Notice(text) => self.notices.push(text),
            SourceEvent::CommitsFailed(_) => {}
            SourceEvent::Error(error) => self.error = Some(error.to_string()),
        }
    }

    /// Listens until `done`.
    pub(crate) fn until(
        &mut self,
        events: &Receiver<SourceEvent>,
        deadline: Duration,
        done: impl Fn(&Self) -> bool,
    ) {
        let begun = Instant::now();
        while !done(self) {
            assert!(
                begun.elapsed() < deadline,
                "not done in {deadline:?}: caught up {:?}, owned {:?}, gaps {:?}, notices {:?}, error {:?}",
                self.caught_up,
                self.owned,
                self.gaps,
                self.notices,
                self.error
            );
            if let Ok(event) = events.recv_timeout(Duration::from_millis(100)) {
                self.take(event);
            }
        }
    }

    /// Whether the offsets of a log are exactly these.
    pub(crate) fn has(&self, log: LogIndex, offsets: std::ops::Range<u64>) -> bool {
        let found = self.records.get(&log).map(Vec::as_slice).unwrap_or_default();
        found.iter().map(|(offset, _, _)| *offset).eq(offsets)
    }
}
