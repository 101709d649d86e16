//! The broker of the tests: its addresses, fresh topics, and what lies in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use viaflux::service::record::{Recording, record};
use viaflux::sink::kafka::{Cleanup, TopicSpec, ensure_topics};
use viaflux::source::event_log::{EventLogReader, LogRecord};
use viaflux::source::kafka::{KafkaConnection, KafkaInput, KafkaSource, Start};

/// Most tests share the broker; the one that kills it wants it alone.
static IN_USE: RwLock<()> = RwLock::new(());

pub(crate) struct Broker {
    pub(crate) address: String,
}

/// The broker, or `None` if the test is to be skipped.
pub(crate) fn broker() -> Option<Broker> {
    variable("VIAFLUX_KAFKA").map(|address| Broker { address })
}

pub(crate) fn variable(name: &str) -> Option<String> {
    let found = std::env::var(name).ok().filter(|value| !value.is_empty());
    if found.is_none() {
        println!("SKIPPED broker lane: set {name}");
    }
    found
}

/// A name that no test before used on this broker.
pub(crate) fn fresh(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("live-{name}-{now}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Broker {
    pub(crate) fn shared(&self) -> RwLockReadGuard<'static, ()> {
        IN_USE.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn alone(&self) -> RwLockWriteGuard<'static, ()> {
        IN_USE.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connection(&self) -> KafkaConnection {
        KafkaConnection {
            brokers: self.address.clone(),
            group_id: "live-test".to_owned(),
            client_id: "live-test".to_owned(),
            properties: BTreeMap::new(),
        }
    }

    /// Makes an empty topic, `stamped` by the broker or with the producer's time.
    pub(crate) fn make_topic(&self, name: &str, partitions: i32, stamped: bool) {
        let spec = TopicSpec {
            name: name.to_owned(),
            partitions,
            replication: 1,
            cleanup: Cleanup::Delete(86_400_000),
            log_append_time: stamped,
        };
        let made = ensure_topics(&self.connection(), &[spec], true).unwrap();
        assert_eq!(made.len(), 1, "{name} was there already");
    }

    /// Records ever written to a topic, over all partitions.
    pub(crate) fn written(&self, topic: &str) -> u64 {
        let input = KafkaInput {
            topic: topic.to_owned(),
            start: Start::Earliest,
        };
        let topics = KafkaSource::connect(&self.connection(), &[input]).unwrap();
        topics.logs.iter().map(|log| log.high).sum()
    }

    /// All records of the topics, each partition in its order.
    pub(crate) fn read(&self, topics: &[&str], dir: &Path) -> Vec<LogRecord> {
        let output = dir.join(format!("{}.ndjson", fresh("read")));
        let recording = Recording {
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            from: Start::Earliest,
            to: None,
            follow: false,
            state: None,
            output: output.clone(),
        };
        record(&self.connection(), &recording, &AtomicBool::new(false)).unwrap();
        let mut reader = EventLogReader::open(&output).unwrap();
        let (mut found, mut one) = (Vec::new(), LogRecord::default());
        while reader.read(&mut one).unwrap() {
            found.push(one.clone());
        }
        found
    }

    /// Tells the broker's script to do something with it.
    pub(crate) fn script(&self, command: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broker/kafka.sh");
        let output = Command::new(&script).arg(command).output().unwrap();
        assert!(
            output.status.success(),
            "{} {command}: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Text of a header.
pub(crate) fn header<'r>(record: &'r LogRecord, name: &str) -> Option<&'r str> {
    let (_, value) = record.headers.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}
