//! Reading: order, offsets, append times, resuming, gaps, rebalances.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use viaflux::source::kafka::{KafkaInput, KafkaSource, LogRange, Next, RangeReader, Start};
use viaflux::units::EventTime;

use crate::{Heard, broker, connection, earliest, fill, fresh, topic};

const STOP: Duration = Duration::from_secs(15);
const WAIT: Duration = Duration::from_secs(60);

#[test]
fn records_come_in_order_with_their_offsets_and_append_times() {
    let Some(brokers) = broker() else { return };
    let name = topic(&brokers, "order", 4, true);
    fill(&brokers, &name, 4, 0..20_000);
    let connection = connection(&brokers, &fresh("order"));
    let topics = KafkaSource::connect(&connection, &earliest(&name)).unwrap();
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    let mut heard = Heard::default();
    heard.until(&events, WAIT, |h| {
        h.caught_up.len() == 4 && h.lags.values().all(|lag| *lag == 0)
    });
    for log in 0..4 {
        assert!(heard.has(log, 0..5_000), "log {log}");
        let records = &heard.records[&log];
        assert!(
            records
                .iter()
                .all(|(offset, value, _)| *value == *offset as u32 * 4 + u32::from(log))
        );
        assert!(
            records.windows(2).all(|w| w[0].2.unwrap() <= w[1].2.unwrap()),
            "append times go back"
        );
    }
    assert_eq!(heard.owned, [0, 1, 2, 3]);

    // What comes later is told as a new end.
    fill(&brokers, &name, 4, 20_000..20_004);
    heard.until(&events, WAIT, |h| h.caught_up.values().all(|end| *end == 5_001));
    source.commit(&[(0, 5_001), (1, 5_001), (2, 5_001), (3, 5_001)]);
    source.shutdown(STOP).unwrap();
}

#[test]
fn a_topic_with_the_producers_time_gives_no_append_time() {
    let Some(brokers) = broker() else { return };
    let name = topic(&brokers, "create", 1, false);
    fill(&brokers, &name, 1, 0..10);
    let connection = connection(&brokers, &fresh("create"));
    let topics = KafkaSource::connect(&connection, &earliest(&name)).unwrap();
    assert_eq!(topics.topics[0].log_append_time, Some(false));
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    let mut heard = Heard::default();
    heard.until(&events, WAIT, |h| h.caught_up.len() == 1);
    assert!(heard.has(0, 0..10) && heard.records[&0].iter().all(|r| r.2.is_none()));
    source.shutdown(STOP).unwrap();
}

#[test]
fn reading_resumes_where_the_checkpoint_says() {
    let Some(brokers) = broker() else { return };
    let name = topic(&brokers, "resume", 2, true);
    fill(&brokers, &name, 2, 0..2_000);
    let connection = connection(&brokers, &fresh("resume"));
    let latest = [KafkaInput {
        topic: name.clone(),
        start: Start::Latest,
    }];
    let topics = KafkaSource::connect(&connection, &latest).unwrap();
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[Some(400), None]).unwrap();
    let mut heard = Heard::default();
    heard.until(&events, WAIT, |h| h.caught_up.len() == 2);
    assert!(heard.has(0, 400..1_000) && heard.has(1, 0..0));
    source.shutdown(STOP).unwrap();
}

#[test]
fn a_moment_is_found_by_the_brokers_times() {
    let Some(brokers) = broker() else { return };
    let name = topic(&brokers, "moment", 1, true);
    fill(&brokers, &name, 1, 0..100);
    std::thread::sleep(Duration::from_millis(300));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    std::thread::sleep(Duration::from_millis(300));
    fill(&brokers, &name, 1, 100..150);
    let connection = connection(&brokers, "");
    let at = |start| {
        let input = KafkaInput {
            topic: name.clone(),
            start,
        };
        KafkaSource::connect(&connection, &[input]).unwrap().logs[0].start
    };
    assert_eq!(at(Start::At(EventTime::from_ms(now))), 100);
    assert_eq!(at(Start::At(EventTime::from_ms(now + 3_600_000))), 150);
    assert_eq!(at(Start::Ago(3_600_000)), 0);
    assert_eq!(
        (at(Start::Latest), at(Start::Offset(7)), at(Start::Offset(999))),
        (150, 7, 150)
    );
}

/// Deletes the records before an offset, as retention would.
fn delete_before(brokers: &str, topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        connection(brokers, "").admin_config().unwrap().create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let deleted = runtime
        .block_on(admin.delete_records(&list, &AdminOptions::new()))
        .unwrap();
    assert!(deleted.elements().iter().all(|element| element.error().is_ok()));
}

#[test]
fn records_deleted_while_the_engine_is_behind_are_told_as_a_gap() {
    let Some(brokers) = broker() else { return };
    let name = topic(&brokers, "gap", 2, true);
    fill(&brokers, &name, 2, 0..400_000);
    let connection = connection(&brokers, &fresh("gap"));
    let topics = KafkaSource::connect(&connection, &earliest(&name)).unwrap();
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    // Nobody listens: the queue fills and the partitions are paused somewhere before their end.
    std::thread::sleep(Duration::from_secs(5));
    delete_before(&brokers, &name, 0, 199_990);
    let mut heard = Heard::default();
    heard.until(&events, WAIT, |h| {
        h.caught_up.values().filter(|end| **end == 200_000).count() == 2
    });
    assert_eq!(heard.error, None);
    let (log, from, to) = heard.gaps[0];
    assert_eq!((heard.gaps.len(), log, to), (1, 0, 199_990));
    assert!(from > 0, "nothing was read before the records were deleted");
    let read: Vec<u64> = heard.records[&0].iter().map(|r| r.0).collect();
    assert!(
        read.into_iter().eq((0..from).chain(to..200_000)),
        "before and behind the gap nothing is missing"
    );
    assert!(heard.has(1, 0..200_000), "the other partition has no gap");
    source.shutdown(STOP).unwrap();

    // And at the start.
    let (source, events) = KafkaSource::start(
        &connection,
        &KafkaSource::connect(&connection, &earliest(&name)).unwrap().logs,
        &[Some(5), Some(199_999)],
    )
    .unwrap();
    let mut heard = Heard::default();
    heard.until(&events, WAIT, |h| h.caught_up.len() == 2);
    assert_eq!(heard.gaps, [(0, 5, 199_990)]);
    assert!(heard.has(0, 199_990..200_000) && heard.has(1, 199_999..200_000));
    source.shutdown(STOP).unwrap();
}

#[test]
fn the_end_is_reached_behind_transaction_markers_that_are_no_records() {
    let Some(brokers) = broker() else { return };
    let name = topic(&brokers, "transaction", 1, true);
    let mut config = connection(&brokers, "").producer_config().unwrap();
    config.set("transactional.id", fresh("transaction"));
    // Not shorter than the time that the producer is given to deliver.
    config.set("transaction.timeout.ms", "120000");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(WAIT).unwrap();
    for commit in [true, false] {
        producer.begin_transaction().unwrap();
        for _ in 0..5 {
            producer
                .send(BaseRecord::<(), str>::to(&name).partition(0).payload("7"))
                .unwrap();
        }
        producer.flush(WAIT).unwrap();
        if commit {
            producer.commit_transaction(WAIT)
        } else {
            producer.abort_transaction(WAIT)
        }
        .unwrap();
    }

    // 5 records, their marker, 5 records that were taken back, their marker.
    let connection = connection(&brokers, &fresh("transaction"));
    let topics = KafkaSource::connect(&connection, &earliest(&name)).unwrap();
    assert_eq!(topics.logs[0].high, 12);
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    let mut heard = Heard::default();
    heard.until(&events, WAIT, |h| {
        h.caught_up.get(&0) == Some(&12) && h.lags.get(&0) == Some(&0)
    });
    assert!(heard.has(0, 0..5));
    source.shutdown(STOP).unwrap();

    let range = LogRange {
        topic: name,
        partition: 0,
        from: 0,
        to: Some(12),
    };
    let mut reader = RangeReader::open(&connection, &[range]).unwrap();
    let begun = Instant::now();
    let mut read = 0;
    loop {
        assert!(begun.elapsed() < WAIT, "the range does not end");
        match reader.next(Duration::from_millis(100)).unwrap() {
            Next::Message(_) => read += 1,
            Next::Nothing => {}
            Next::Done => break,
        }
    }
    assert_eq!(read, 5);
}

/// A member of a group on its own thread: listens until told to leave, then returns what it heard.
fn member(
    brokers: String,
    group: String,
    name: String,
    leave: mpsc::Receiver<()>,
) -> std::thread::JoinHandle<Heard> {
    std::thread::spawn(move || {
        let connection = connection(&brokers, &group);
        let topics = KafkaSource::connect(&connection, &earliest(&name)).unwrap();
        let (source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
        let mut heard = Heard::default();
        while leave.try_recv().is_err() {
            if let Ok(event) = events.recv_timeout(Duration::from_millis(20)) {
                heard.take(event);
            }
        }
        source.shutdown(STOP).unwrap();
        while let Ok(event) = events.try_recv() {
            heard.take(event);
        }
        heard
    })
}

#[test]
fn members_that_join_and_leave_skip_nothing() {
    let Some(brokers) = broker() else { return };
    let partitions: u32 = 6;
    let total: u32 = 200_000;
    let name = topic(&brokers, "rebalance", partitions as i32, true);
    let group = fresh("rebalance");
    let writer = {
        let (brokers, name) = (brokers.clone(), name.clone());
        std::thread::spawn(move || {
            for part in 0..20 {
                fill(
                    &brokers,
                    &name,
                    partitions as i32,
                    part * total / 20..(part + 1) * total / 20,
                );
                std::thread::sleep(Duration::from_millis(900));
            }
        })
    };
    let join = |leave| member(brokers.clone(), group.clone(), name.clone(), leave);
    let (leave_a, at_a) = mpsc::channel();
    let (leave_b, at_b) = mpsc::channel();
    let (leave_c, at_c) = mpsc::channel();
    let a = join(at_a);
    std::thread::sleep(Duration::from_secs(4));
    let b = join(at_b);
    std::thread::sleep(Duration::from_secs(5));
    let c = join(at_c);
    std::thread::sleep(Duration::from_secs(6));
    leave_b.send(()).unwrap();
    let heard_b = b.join().unwrap();
    std::thread::sleep(Duration::from_secs(4));
    leave_c.send(()).unwrap();
    let heard_c = c.join().unwrap();
    writer.join().unwrap();
    // A alone owns everything again and goes on where it stood in each partition.
    std::thread::sleep(Duration::from_secs(10));
    leave_a.send(()).unwrap();
    let heard_a = a.join().unwrap();
    let members = [heard_a, heard_b, heard_c];

    let mut union = BTreeSet::new();
    for (place, heard) in members.iter().enumerate() {
        assert_eq!((&heard.error, heard.gaps.len()), (&None, 0), "member {place}");
        for (log, records) in &heard.records {
            // Each member's own view of a partition is without hole or repetition, whoever owned it meanwhile.
            assert!(
                heard.has(*log, 0..records.len() as u64),
                "member {place} skipped in log {log}"
            );
            union.extend(records.iter().map(|r| r.1));
        }
    }
    assert_eq!(union.len(), total as usize);
    assert!(
        !members[1].records.is_empty() && !members[2].records.is_empty(),
        "a member owned nothing"
    );
    assert_eq!(
        members[0].owned.len(),
        partitions as usize,
        "A did not get everything back"
    );
}

#[test]
fn a_partition_added_while_running_stops_the_source_with_the_reason() {
    let Some(brokers) = broker() else { return };
    let name = topic(&brokers, "grown", 2, true);
    let mut connection = connection(&brokers, &fresh("grown"));
    connection
        .properties
        .insert("topic.metadata.refresh.interval.ms".to_owned(), "1000".to_owned());
    let topics = KafkaSource::connect(&connection, &earliest(&name)).unwrap();
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    let mut heard = Heard::default();
    heard.until(&events, WAIT, |h| h.caught_up.len() == 2);
    let admin: AdminClient<DefaultClientContext> = connection.admin_config().unwrap().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let more = [rdkafka::admin::NewPartitions::new(&name, 3)];
    runtime
        .block_on(admin.create_partitions(&more, &AdminOptions::new()))
        .unwrap();
    heard.until(&events, WAIT, |h| h.error.is_some());
    let error = heard.error.unwrap();
    assert!(
        error.contains("partition 2") && error.contains("new state directory"),
        "{error}"
    );
    let begun = Instant::now();
    source.shutdown(STOP).unwrap();
    assert!(begun.elapsed() < STOP);
}
