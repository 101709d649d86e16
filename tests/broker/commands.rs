//! `record`, `produce` and `rekey` against each other.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use viaflux::service::produce::ProduceArgs;
use viaflux::service::record::{Recording, record};
use viaflux::service::rekey::RekeyArgs;
use viaflux::source::event_log::{EventLogReader, LogRecord};
use viaflux::source::kafka::{CONTROL_HEADER, KafkaSource, Start};

use crate::{broker, connection, earliest, fill, fresh, topic};

/// The commands as the command line gives them.
#[derive(Parser)]
enum Command {
    Produce(ProduceArgs),
    Rekey(RekeyArgs),
}

fn produce(args: &[&str]) -> viaflux::service::produce::Produced {
    let brokers = broker().unwrap();
    let all = ["x", "produce", "--brokers", &brokers]
        .into_iter()
        .chain(args.iter().copied());
    let Command::Produce(command) = Command::try_parse_from(all).unwrap() else {
        unreachable!()
    };
    command
        .produce(&connection(&brokers, ""), &AtomicBool::new(false))
        .unwrap()
}

fn recorded(brokers: &str, topics: &[&str], output: &Path) -> Vec<LogRecord> {
    let recording = Recording {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        from: Start::Earliest,
        to: None,
        follow: false,
        state: None,
        output: output.to_owned(),
    };
    let written = record(&connection(brokers, ""), &recording, &AtomicBool::new(false)).unwrap();
    let mut reader = EventLogReader::open(output).unwrap();
    let mut found = Vec::new();
    let mut one = LogRecord::default();
    while reader.read(&mut one).unwrap() {
        found.push(one.clone());
    }
    assert_eq!(found.len() as u64, written);
    // Within a partition the log keeps Kafka's order; between partitions there is none.
    let mut next = BTreeMap::new();
    for record in &found {
        let expected = next.entry((record.topic.clone(), record.partition)).or_insert(0);
        assert_eq!(record.offset, *expected);
        *expected += 1;
    }
    found.sort_by(|a, b| (&a.topic, a.partition, a.offset).cmp(&(&b.topic, b.partition, b.offset)));
    found
}

#[test]
fn what_is_recorded_and_produced_again_is_the_same_log() {
    let Some(brokers) = broker() else { return };
    let dir = tempfile::tempdir().unwrap();
    let name = topic(&brokers, "round", 3, true);
    fill(&brokers, &name, 3, 0..3_000);
    let connection = connection(&brokers, &fresh("round"));
    let logs = KafkaSource::connect(&connection, &earliest(&name)).unwrap().logs;
    let (mut source, _events) = KafkaSource::start(&connection, &logs, &[]).unwrap();
    let written = source.append_control(1, b"\x01idle\xff").unwrap();
    assert_eq!(
        written
            .recv_timeout(std::time::Duration::from_secs(10))
            .unwrap()
            .unwrap(),
        1_000
    );
    source.shutdown(std::time::Duration::from_secs(15)).unwrap();

    let first = recorded(&brokers, &[&name], &dir.path().join("a.ndjson.zst"));
    assert_eq!(first.len(), 3_001);
    assert!(first.iter().all(|record| record.append_time.is_some()));
    let control: Vec<&LogRecord> = first.iter().filter(|record| record.is_control()).collect();
    assert_eq!(control.len(), 1);
    assert_eq!((control[0].partition, control[0].offset), (1, 1_000));
    assert_eq!(control[0].value.as_deref(), Some(&b"\x01idle\xff"[..]));
    assert_eq!(
        control[0].headers,
        [(CONTROL_HEADER.to_owned(), Some(b"1".to_vec()))]
    );

    let copy = topic(&brokers, "copy", 3, true);
    let log = dir.path().join("a.ndjson.zst");
    let produced = produce(&["--log", log.to_str().unwrap(), "--topic", &copy]);
    assert_eq!((produced.records, produced.controls_skipped), (3_001, 0));
    let second = recorded(&brokers, &[&copy], &dir.path().join("b.ndjson"));
    let without_time = |records: &[LogRecord]| -> Vec<LogRecord> {
        records
            .iter()
            .map(|r| LogRecord {
                topic: String::new(),
                append_time: None,
                ..r.clone()
            })
            .collect()
    };
    assert_eq!(without_time(&first), without_time(&second));
}

#[test]
fn files_are_produced_with_their_keys_and_rekeying_brings_a_vehicle_together() {
    let Some(brokers) = broker() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gps.ndjson");
    let mut file = std::fs::File::create(&path).unwrap();
    for i in 0..2_000 {
        writeln!(
            file,
            r#"{{"vehicle_id":"v{}","plate":"p{}","ts":{}}}"#,
            i % 50,
            i % 7,
            1_773_037_799_000_i64 + i
        )
        .unwrap();
    }
    writeln!(file, r#"{{"vehicle_id":"v1","ts"#).unwrap();
    drop(file);
    let raw = fresh("raw");
    let produced = produce(&[
        "--probes",
        path.to_str().unwrap(),
        "--topic",
        &raw,
        "--create-topics",
        "4",
        "--key-field",
        "plate",
    ]);
    assert_eq!((produced.records, produced.without_key), (2_001, 1));

    let keyed = fresh("keyed");
    let all = [
        "x",
        "rekey",
        "--brokers",
        &brokers,
        "--from",
        &raw,
        "--to",
        &keyed,
        "--key",
        "vehicle_id",
    ];
    let command = Command::try_parse_from(all.into_iter().chain(["--create-topic", "3"])).unwrap();
    let Command::Rekey(command) = command else {
        unreachable!()
    };
    let rekeyed = command
        .rekey(&connection(&brokers, "rekey"), &AtomicBool::new(false))
        .unwrap();
    assert_eq!((rekeyed.records, rekeyed.without_key), (2_001, 1));

    let of_vehicle = |topic: &str, file: &str| {
        let mut places: BTreeMap<String, std::collections::BTreeSet<u32>> = BTreeMap::new();
        for record in recorded(&brokers, &[topic], &dir.path().join(file)) {
            let value: Option<serde_json::Value> =
                serde_json::from_slice(record.value.as_deref().unwrap()).ok();
            if let Some(value) = value {
                let vehicle = value["vehicle_id"].as_str().unwrap().to_owned();
                if topic == keyed {
                    assert_eq!(record.key.as_deref(), Some(vehicle.as_bytes()));
                }
                places.entry(vehicle).or_default().insert(record.partition);
            }
        }
        places
    };
    let before = of_vehicle(&raw, "raw.ndjson");
    assert!(
        before.values().any(|partitions| partitions.len() > 1),
        "the raw topic was keyed well already"
    );
    let after = of_vehicle(&keyed, "keyed.ndjson");
    assert_eq!(after.len(), 50);
    assert!(after.values().all(|partitions| partitions.len() == 1));
    let used: std::collections::BTreeSet<u32> = after.values().flatten().copied().collect();
    assert_eq!(used.len(), 3, "all partitions are used");
}
