//! `viaflux check` against topics as they should be and as they should not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use viaflux::network::osm::{OsmData, OsmNode, OsmWay};
use viaflux::network::{BuildSettings, Network};
use viaflux::publish::Topic;
use viaflux::sink::kafka::{Cleanup, Outgoing, RecordProducer, TopicSpec, ensure_topics};

use crate::{broker, connection, fresh, topic};

fn map(dir: &Path) -> PathBuf {
    let mut osm = OsmData::default();
    for id in 1..=2 {
        let node = OsmNode {
            lat: 34.26 + id as f64 * 0.001,
            lon: 108.94,
            ..OsmNode::default()
        };
        osm.nodes.insert(id, node);
    }
    osm.ways.push(OsmWay {
        id: 1,
        nodes: vec![1, 2],
        tags: [("highway".to_owned(), "primary".to_owned())].into(),
    });
    let path = dir.join("m.map");
    Network::build(&osm, &BuildSettings::default())
        .0
        .save(&path)
        .unwrap();
    path
}

/// Exit code and report of `viaflux check` over one source and the given topic of states.
fn check(dir: &Path, brokers: &str, input: &str, states: &str, more: &[&str]) -> (i32, Value) {
    let config = dir.join("viaflux.toml");
    let text = format!(
        "[map]\nfile = {:?}\n[kafka]\nbrokers = [\"{brokers}\"]\n[[source]]\nid = \"probes\"\ntopic = \"{input}\"\n\
         [[sink]]\nkind = \"kafka\"\ncreate_topics = true\ndead_letters = false\n[sink.topics]\nsegment_state = \"{states}\"\n",
        map(dir)
    );
    std::fs::write(&config, text).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_viaflux"))
        .args(["check", "--json", "-c"])
        .arg(&config)
        .args(more)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    let report = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {error}"));
    (out.status.code().unwrap(), report)
}

fn found<'r>(report: &'r Value, what: &str) -> (&'r str, &'r str) {
    let checks = report["checks"].as_array().unwrap();
    let check = checks
        .iter()
        .find(|c| c["what"] == what)
        .unwrap_or_else(|| panic!("no check of {what} in {report}"));
    (
        check["result"].as_str().unwrap(),
        check["detail"].as_str().unwrap(),
    )
}

/// Sends three reports of each of 200 vehicles; `partition` says where.
fn fill(brokers: &str, topic: &str, partition: impl Fn(i32, i32) -> i32) {
    let producer = RecordProducer::new(&connection(brokers, "")).unwrap();
    for (time, vehicle) in (0..3).flat_map(|t| (0..200).map(move |v| (t, v))) {
        let value = format!(
            r#"{{"vehicle_id":"v{vehicle}","event_time":"2026-11-23T05:30:{time:02}Z","lat":34.2,"lon":108.9}}"#
        );
        let outgoing = Outgoing {
            topic,
            partition: Some(partition(vehicle, time)),
            value: Some(value.as_bytes()),
            ..Outgoing::default()
        };
        producer.send(outgoing, &[]).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

#[test]
fn topics_as_they_should_be_pass_and_others_do_not() {
    let Some(brokers) = broker() else { return };
    let dir = tempfile::tempdir().unwrap();
    let good = topic(&brokers, "check-good", 4, true);
    fill(&brokers, &good, |vehicle, _| vehicle % 4);
    let states = TopicSpec::output(Topic::SegmentState, &fresh("check-states"), 1);
    ensure_topics(&connection(&brokers, ""), std::slice::from_ref(&states), true).unwrap();
    let (code, report) = check(dir.path(), &brokers, &good, &states.name, &[]);
    assert_eq!(code, 0, "{report:#}");
    let (result, detail) = found(&report, "source probes");
    assert!(result == "good" && detail.contains("stamped"), "{detail}");
    let (result, detail) = found(&report, "keys of source probes");
    assert!(
        result == "good" && detail.starts_with("0 of 200 vehicles"),
        "{detail}"
    );
    assert_eq!(found(&report, &format!("topic {}", states.name)).0, "good");

    // Records in turn, times of the producers, states that are deleted, not compacted.
    let bad = topic(&brokers, "check-bad", 4, false);
    fill(&brokers, &bad, |vehicle, time| (vehicle + time) % 4);
    let deleted = TopicSpec {
        name: fresh("check-deleted"),
        cleanup: Cleanup::Delete(1_000_000),
        ..states
    };
    ensure_topics(&connection(&brokers, ""), std::slice::from_ref(&deleted), true).unwrap();
    let (code, report) = check(dir.path(), &brokers, &bad, &deleted.name, &[]);
    assert_eq!(code, 78, "{report:#}");
    let (result, detail) = found(&report, "source probes");
    assert!(result == "warning" && detail.contains("CreateTime"), "{detail}");
    let (result, detail) = found(&report, "keys of source probes");
    assert!(
        result == "bad" && detail.starts_with("200 of 200 vehicles (100.0 %)"),
        "{detail}"
    );
    let (result, detail) = found(&report, &format!("topic {}", deleted.name));
    assert!(result == "bad" && detail.contains("[compact,delete]"), "{detail}");

    let (code, report) = check(dir.path(), &brokers, &bad, &deleted.name, &["--no-brokers"]);
    assert_eq!((code, found(&report, "brokers").0), (0, "skipped"), "{report:#}");
    let (code, report) = check(dir.path(), "127.0.0.1:1", &bad, &deleted.name, &[]);
    assert_eq!((code, found(&report, "brokers").0), (1, "failed"), "{report:#}");
}
