use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use rdkafka::types::RDKafkaRespErr;

use super::poller::{BATCH_RECORDS_MAX, PAUSE_AT};
use super::*;

fn connection(cluster: &MockCluster<'_, DefaultProducerContext>, group: &str) -> KafkaConnection {
    KafkaConnection {
        brokers: cluster.bootstrap_servers(),
        group_id: group.to_owned(),
        client_id: "test".to_owned(),
        properties: BTreeMap::new(),
    }
}

fn input(topic: &str) -> Vec<KafkaInput> {
    vec![KafkaInput {
        topic: topic.to_owned(),
        start: Start::Earliest,
    }]
}

/// Writes values `0..count` of `bytes` bytes round the partitions.
fn fill(connection: &KafkaConnection, topic: &str, partitions: i32, count: usize, bytes: usize) {
    let mut config = connection.producer_config().unwrap();
    config.set("compression.type", "none");
    let producer: ThreadedProducer<DefaultProducerContext> =
        config.create_with_context(DefaultProducerContext).unwrap();
    for i in 0..count {
        let key = i.to_string();
        let value = format!("{i:0bytes$}");
        let mut record = BaseRecord::to(topic)
            .partition(i32::try_from(i).unwrap() % partitions)
            .key(&key)
            .payload(&value);
        if i % 1000 == 7 {
            let control = Header {
                key: CONTROL_HEADER,
                value: Some("1"),
            };
            record = record.headers(OwnedHeaders::new().insert(control));
        }
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((_, back)) => record = back,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// What came of a source until every log was caught up at `ends`, or the time was over.
#[derive(Default)]
struct Heard {
    offsets: BTreeMap<LogIndex, Vec<u64>>,
    values: BTreeMap<LogIndex, Vec<usize>>,
    controls: usize,
    caught_up: BTreeMap<LogIndex, u64>,
    gaps: Vec<(LogIndex, u64, u64)>,
    assigned: Vec<(Vec<LogIndex>, usize)>,
    notices: Vec<String>,
    queued_max: usize,
}

impl Heard {
    fn listen(&mut self, events: &Receiver<SourceEvent>, ends: &[u64], slow: Duration) {
        let begun = Instant::now();
        loop {
            let ends_reached = ends
                .iter()
                .enumerate()
                .all(|(log, end)| self.caught_up.get(&(log as LogIndex)) == Some(end));
            if ends_reached {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "caught up {:?} of {ends:?}, notices {:?}",
                self.caught_up,
                self.notices
            );
            self.queued_max = self.queued_max.max(events.len());
            let Ok(event) = events.recv_timeout(Duration::from_millis(200)) else {
                continue;
            };
            match event {
                SourceEvent::Batch(batch) => {
                    assert!(batch.len() <= BATCH_RECORDS_MAX);
                    for record in batch.iter() {
                        self.offsets.entry(record.log).or_default().push(record.offset);
                        let text = std::str::from_utf8(record.value).unwrap();
                        self.values
                            .entry(record.log)
                            .or_default()
                            .push(text.parse().unwrap());
                        self.controls += usize::from(record.control);
                        assert_eq!(record.append_time, None, "the mock gives CreateTime only");
                    }
                    std::thread::sleep(slow);
                }
                SourceEvent::Assigned { owned, total } => self.assigned.push((owned, total)),
                SourceEvent::CaughtUp(ends) => {
                    for (log, end) in ends {
                        let read = self
                            .offsets
                            .get(&log)
                            .and_then(|o| o.last())
                            .map_or(0, |last| last + 1);
                        assert!(
                            read >= end || self.gaps.iter().any(|gap| gap.0 == log),
                            "caught up too early"
                        );
                        self.caught_up.insert(log, end);
                    }
                }
                SourceEvent::Gap { log, from, to } => self.gaps.push((log, from, to)),
                SourceEvent::Notice(text) => self.notices.push(text),
                SourceEvent::Error(error) => panic!("{error}"),
                SourceEvent::Lag(_) | SourceEvent::CommitsFailed(_) => {}
            }
        }
    }
}

#[test]
fn a_slow_engine_loses_nothing_and_queues_stay_bounded() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("in", 3, 1).unwrap();
    let connection = connection(&cluster, "slow");
    let total: usize = 150_000;
    fill(&connection, "in", 3, total, 10);
    let topics = KafkaSource::connect(&connection, &input("in")).unwrap();
    assert_eq!(topics.logs.len(), 3);
    assert!(
        topics
            .logs
            .iter()
            .all(|log| log.low == 0 && log.high == 50_000 && log.start == 0)
    );
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[None, Some(10), None]).unwrap();
    // Time for the queue to fill, so that the partitions are paused.
    std::thread::sleep(Duration::from_secs(6));
    let mut heard = Heard::default();
    heard.listen(&events, &[50_000; 3], Duration::from_millis(20));
    assert!(
        heard.queued_max >= PAUSE_AT,
        "the queue never filled: {}",
        heard.queued_max
    );
    assert_eq!(heard.assigned.last(), Some(&(vec![0, 1, 2], 3)));
    for (log, offsets) in &heard.offsets {
        let first = if *log == 1 { 10 } else { 0 };
        assert!(
            offsets.iter().copied().eq(first..50_000),
            "log {log} skipped or repeated an offset"
        );
        let values = &heard.values[log];
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(i, v)| *v == (i + first as usize) * 3 + usize::from(*log))
        );
    }
    let skipped = (0..10).filter(|offset| (offset * 3 + 1) % 1000 == 7).count();
    assert_eq!(heard.controls, total.div_ceil(1000) - skipped);
    source.commit(&[(0, 50_000)]);
    source.shutdown(Duration::from_secs(15)).unwrap();
}

#[test]
fn what_retention_took_is_told_as_a_gap() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("in", 1, 1).unwrap();
    let connection = connection(&cluster, "gap");
    // The mock keeps 5 MiB of a partition.
    fill(&connection, "in", 1, 9_000, 1_000);
    let topics = KafkaSource::connect(&connection, &input("in")).unwrap();
    let low = topics.logs[0].low;
    assert!(low > 0, "the mock kept everything");
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[Some(5)]).unwrap();
    let mut heard = Heard::default();
    heard.listen(&events, &[9_000], Duration::ZERO);
    assert_eq!(heard.gaps, [(0, 5, low)]);
    assert!(heard.offsets[&0].iter().copied().eq(low..9_000));
    source.shutdown(Duration::from_secs(15)).unwrap();

    let error = KafkaSource::start(&connection, &topics.logs, &[Some(9_001)])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("in[0] at offset 9001") && error.contains("ends at 9000"),
        "{error}"
    );
}

#[test]
fn an_offset_refused_while_running_does_not_end_the_reading() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("in", 2, 1).unwrap();
    let connection = connection(&cluster, "refused");
    fill(&connection, "in", 2, 1_000, 10);
    let topics = KafkaSource::connect(&connection, &input("in")).unwrap();
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    let mut heard = Heard::default();
    heard.listen(&events, &[500, 500], Duration::ZERO);
    let out_of_range = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    cluster.request_errors(rdkafka::types::RDKafkaApiKey::Fetch, &[out_of_range]);
    std::thread::sleep(Duration::from_millis(500));
    fill(&connection, "in", 2, 1_000, 10);
    heard.listen(&events, &[1_000, 1_000], Duration::ZERO);
    for offsets in heard.offsets.values() {
        assert!(offsets.iter().copied().eq(0..1_000));
    }
    source.shutdown(Duration::from_secs(15)).unwrap();
}

#[test]
fn a_broker_that_goes_away_is_a_notice_and_reading_goes_on_when_it_is_back() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("in", 1, 1).unwrap();
    let connection = connection(&cluster, "away");
    fill(&connection, "in", 1, 100, 10);
    let topics = KafkaSource::connect(&connection, &input("in")).unwrap();
    let (source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    let mut heard = Heard::default();
    heard.listen(&events, &[100], Duration::ZERO);
    cluster.broker_down(1).unwrap();
    let begun = Instant::now();
    while heard.notices.is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "no notice of a broker that is away"
        );
        if let Ok(SourceEvent::Notice(text)) = events.recv_timeout(Duration::from_millis(100)) {
            heard.notices.push(text);
        }
    }
    cluster.broker_up(1).unwrap();
    fill(&connection, "in", 1, 100, 10);
    heard.listen(&events, &[200], Duration::ZERO);
    assert!(heard.offsets[&0].iter().copied().eq(0..200));
    source.shutdown(Duration::from_secs(15)).unwrap();
}

#[test]
fn a_control_record_is_appended_to_its_partition() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("in", 2, 1).unwrap();
    let connection = connection(&cluster, "control");
    let topics = KafkaSource::connect(&connection, &input("in")).unwrap();
    let (mut source, events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    let answer = source.append_control(1, b"42").unwrap();
    assert_eq!(answer.recv_timeout(Duration::from_secs(10)).unwrap().unwrap(), 0);
    let mut heard = Heard::default();
    heard.listen(&events, &[0, 1], Duration::ZERO);
    assert_eq!(
        (heard.controls, heard.values),
        (1, BTreeMap::from([(1, vec![42])]))
    );
    assert!(source.append_control(2, b"").is_err());
    source.shutdown(Duration::from_secs(15)).unwrap();
}

#[test]
fn a_control_record_that_may_not_be_written_says_so() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("in", 1, 1).unwrap();
    let connection = connection(&cluster, "forbidden");
    let topics = KafkaSource::connect(&connection, &input("in")).unwrap();
    let (mut source, _events) = KafkaSource::start(&connection, &topics.logs, &[]).unwrap();
    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(rdkafka::types::RDKafkaApiKey::Produce, &[forbidden]);
    let is_forbidden =
        |error: &KafkaSourceError| matches!(error, KafkaSourceError::Control { forbidden: true, .. });
    let answer = source.append_control(0, b"42").unwrap();
    let refused = answer.recv_timeout(Duration::from_secs(10)).unwrap().unwrap_err();
    assert!(is_forbidden(&refused), "{refused:?}");
    // The topic is known as closed from now on, or written.
    if let Err(refused) = source.append_control(0, b"42") {
        assert!(is_forbidden(&refused), "{refused:?}");
    }
    source.shutdown(Duration::from_secs(15)).unwrap();
}

#[test]
fn no_broker_is_an_error_in_time() {
    let begun = Instant::now();
    let connection = KafkaConnection {
        brokers: "127.0.0.1:1".to_owned(),
        ..KafkaConnection::default()
    };
    let error = KafkaSource::connect(&connection, &input("in"))
        .unwrap_err()
        .to_string();
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "took {:?}",
        begun.elapsed()
    );
    assert!(
        error.contains("127.0.0.1:1") && error.contains("refused"),
        "{error}"
    );
}

#[test]
fn properties_that_would_lose_records_are_refused_and_values_stay_secret() {
    let with = |key: &str, value: &str| KafkaConnection {
        brokers: "127.0.0.1:1".to_owned(),
        properties: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        ..KafkaConnection::default()
    };
    let error = |connection: &KafkaConnection| {
        KafkaSource::connect(connection, &input("in"))
            .unwrap_err()
            .to_string()
    };
    let auto = error(&with("enable.auto.commit", "true"));
    assert!(
        auto.contains("enable.auto.commit") && auto.contains("must be `false`"),
        "{auto}"
    );
    let unknown = error(&with("sasl.pasword", "hunter2"));
    assert!(
        unknown.contains("sasl.pasword") && !unknown.contains("hunter2"),
        "{unknown}"
    );
    let debug = format!("{:?}", with("sasl.password", "hunter2"));
    assert!(
        debug.contains("sasl.password") && !debug.contains("hunter2"),
        "{debug}"
    );
}

#[test]
fn a_range_ends_where_it_was_told_to() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("in", 2, 1).unwrap();
    let connection = connection(&cluster, "range");
    fill(&connection, "in", 2, 2_000, 10);
    let range = |partition, from, to| LogRange {
        topic: "in".to_owned(),
        partition,
        from,
        to,
    };
    let mut reader = RangeReader::open(&connection, &[range(0, 10, Some(20)), range(1, 5, Some(5))]).unwrap();
    let mut offsets = Vec::new();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20));
        match reader.next(Duration::from_millis(100)).unwrap() {
            Next::Message(message) => offsets.push((message.partition(), message.offset())),
            Next::Nothing => {}
            Next::Done => break,
        }
    }
    assert_eq!(offsets, (10..20).map(|offset| (0, offset)).collect::<Vec<_>>());
}
