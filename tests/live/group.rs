//! Members of one group come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::{broker, header};
use crate::city::{City, Feeds};
use crate::process::{Child, Live, until};
use crate::replay::{record, replay};

/// Time in which what was published before a change of members has arrived.
const SETTLE: Duration = Duration::from_secs(2);

#[test]
fn only_who_owns_all_partitions_publishes_and_every_record_is_counted() {
    let Some(broker) = broker() else { return };
    let _shared = broker.shared();
    let city = City::simulate(&[
        "--no-defects",
        "--duration",
        "6m",
        "--vehicles",
        "750",
        "--interval",
        "1",
        "--probe-share",
        "1",
    ]);
    assert!(city.records() > 200_000, "{} records only", city.records());
    let feeds = Feeds::make(&broker, "group", true);
    let [run_a, run_b, run_c] =
        ["a", "b", "c"].map(|client| feeds.configure(&broker.address, &city, "one", client, ""));
    let states = feeds.output("segment_state");

    // Half of the positions at once, the rest in 30 s; the measurements of all six minutes in 60 s. So these hold
    // the panes open: whoever lost only partitions that are ahead of them could close panes still, and must not.
    let [(first, _), (second, _)] = city.halves("gps.ndjson");
    city.sending(&broker, "--probes", &first, &feeds.probes, "max")
        .succeed();
    let producing = [
        city.sending(&broker, "--probes", &second, &feeds.probes, "6"),
        city.sending(
            &broker,
            "--sensors",
            &city.file("sensor.ndjson"),
            &feeds.sensors,
            "6",
        ),
    ];
    let mut a = Live::start(&run_a, &[]);
    a.owns_all();
    until(
        "states from the one that owns all",
        Duration::from_secs(30),
        || {
            a.running();
            (broker.written(&states) > 0).then_some(())
        },
    );

    let mut b = Live::start(&run_b, &[]);
    a.not_ready("partial assignment");
    b.not_ready("partial assignment");
    std::thread::sleep(SETTLE);
    let (told, counted) = (broker.written(&states), a.read() + b.read());
    // What would close panes comes once a minute of event time.
    let before = measurements(&a) + measurements(&b);
    until("measurements of another minute", Duration::from_secs(30), || {
        (measurements(&a) + measurements(&b) > before).then_some(())
    });
    let mut c = Live::start(&run_c, &[]);
    [&mut a, &mut b, &mut c]
        .into_iter()
        .for_each(|live| live.not_ready("partial assignment"));
    assert!(a.read() + b.read() > counted, "they count on");
    let from_a = a.terminate();
    c.not_ready("partial assignment");
    assert_eq!(
        broker.written(&states),
        told,
        "somebody published without all partitions"
    );
    let from_b = b.terminate();
    c.owns_all();
    producing.into_iter().for_each(Child::succeed);
    c.has_read(city.records(), Duration::from_secs(60));
    let from_c = c.terminate();

    let read = |summary: &serde_json::Value| summary["records"]["read"].as_u64().unwrap();
    assert!(read(&from_a) > 0 && read(&from_b) > 0);
    // Whoever remains has read every offset of every partition itself.
    assert_eq!(read(&from_c), city.records());

    let mut by_source: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for record in broker.read(&[&states], city.path()) {
        let source = header(&record, "ce_source").unwrap().to_owned();
        let id = header(&record, "ce_id").unwrap().to_owned();
        by_source
            .entry(source)
            .or_default()
            .insert(id, record.value.unwrap());
    }
    let sources: Vec<&str> = by_source.keys().map(String::as_str).collect();
    assert_eq!(
        sources,
        ["/viaflux/a", "/viaflux/c"],
        "b never owned all partitions"
    );
    assert!(run_b.output("segment-states.ndjson").is_empty());
    let all = &by_source["/viaflux/c"];
    for (id, body) in &by_source["/viaflux/a"] {
        assert_eq!(all.get(id), Some(body), "a and c say different things under {id}");
    }

    // And what the last one says is what a replay says.
    let log = record(&broker, &city, &feeds);
    let out = city.file("replay");
    let again = replay(&run_c, &log, &out, &["--no-drain"]);
    assert_eq!(again["digest"], from_c["digest"]);
    let text = std::fs::read_to_string(out.join("segment-states.ndjson")).unwrap();
    assert!(
        text == run_c.output("segment-states.ndjson"),
        "segment states of run and replay differ"
    );
}

/// Measurements that a run has read.
fn measurements(live: &Live) -> u64 {
    let status = live.api("/api/v1/status");
    let mut sources = status["sources"].as_array().into_iter().flatten();
    let sensors = sources.find(|source| source["id"] == "sensors");
    sensors.map_or(0, |source| source["records_read"].as_u64().unwrap())
}
