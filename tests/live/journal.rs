//! A run that may not write to its input topics: its idle marks go to the journal, outlive a crash, and stand in
//! what is recorded. The broker is librdkafka's mock, which can be told to forbid.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::broker::fresh;
use crate::city::{City, Feeds, PROBE_PARTITIONS};
use crate::process::{Live, finish, until, viaflux};
use crate::replay::{at, replay};

#[test]
fn marks_that_may_not_be_written_go_to_the_journal_and_are_replayed() {
    let cluster = MockCluster::new(1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let city = City::simulate(&["--duration", "4m", "--vehicles", "300"]);
    let prefix = fresh("journal");
    let feeds = Feeds {
        probes: format!("{prefix}-probes"),
        sensors: format!("{prefix}-sensors"),
        prefix,
    };
    for (topic, partitions, flag, file) in [
        (&feeds.probes, PROBE_PARTITIONS, "--probes", "gps.ndjson"),
        (&feeds.sensors, 1, "--sensors", "sensor.ndjson"),
    ] {
        cluster.create_topic(topic, partitions, 1).unwrap();
        let arguments = ["produce", "--brokers", &brokers, "--topic", topic, flag];
        finish(viaflux().args(arguments).arg(city.file(file)));
    }
    // Only the marks are written from here on, for the run has no Kafka sink.
    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[forbidden; 200]);
    let run = feeds.configure(&brokers, &city, "group", "a", "");
    let text = std::fs::read_to_string(&run.config).unwrap();
    let (head, tail) = text.split_once("[[sink]]\nid = \"kafka\"").unwrap();
    let (_, tail) = tail.split_once("[[sink]]").unwrap();
    std::fs::write(&run.config, format!("{head}[[sink]]{tail}")).unwrap();

    let pane_end = |live: &Live| live.api("/api/v1/digest")["pane_end"].as_str().map(str::to_owned);
    let mut live = Live::start_with_state(&run);
    live.has_read(city.records(), Duration::from_secs(60));
    let last = until("a pane closed", Duration::from_secs(10), || pane_end(&live));
    let later = until("marks close a pane", Duration::from_secs(120), || {
        live.running();
        pane_end(&live).filter(|now| *now > last)
    });
    live.kill();

    let mut live = Live::start_with_state(&run);
    until("marks close one more", Duration::from_secs(150), || {
        live.running();
        pane_end(&live).filter(|now| *now > later)
    });
    let summary = live.terminate();
    assert_eq!(summary["records"]["read"], city.records());
    assert_eq!(
        summary["records"]["control"], 0,
        "nothing was written to the topics"
    );
    let journal = std::fs::read_to_string(run.state.join("journal.ndjson")).unwrap();
    assert!(journal.contains(&feeds.probes), "{journal}");

    let log = city.file("recorded.ndjson.zst");
    let state = run.state.to_str().unwrap();
    let topics = feeds.inputs().join(",");
    let arguments = [
        "record",
        "--brokers",
        &brokers,
        "--topic",
        &topics,
        "--state",
        state,
    ];
    finish(viaflux().args(arguments).arg("-o").arg(&log));
    let out = city.file("again");
    let again = replay(&run, &log, &out, &["--no-drain"]);
    assert_eq!(again["records"], summary["records"]);
    let chain = std::fs::read_to_string(out.join("digests.ndjson")).unwrap();
    assert_eq!(
        at(&chain, summary["pane_end"].as_str().unwrap()),
        summary["digest"]
    );
    assert_eq!(again["digest"], summary["digest"]);
}
