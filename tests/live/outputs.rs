//! What lies in the output topics: CloudEvents with deterministic identities, and dead letters with reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use viaflux::sink::kafka::{Outgoing, RecordProducer};
use viaflux::source::event_log::LogRecord;

use crate::broker::{broker, header};
use crate::city::{City, Feeds};
use crate::process::{Live, until};

#[test]
fn states_alerts_and_dead_letters_are_published_as_agreed() {
    let Some(broker) = broker() else { return };
    let _shared = broker.shared();
    let city = City::small();
    let feeds = Feeds::make(&broker, "outputs", false);
    city.produce(&broker, &feeds);
    let run = feeds.configure(&broker.address, &city, "group", "outputs", "");
    let mut live = Live::start(&run, &[]);
    live.has_read(city.records(), Duration::from_secs(60));
    until("a pane closed", Duration::from_secs(10), || {
        live.api("/api/v1/digest")["pane_end"].as_str().map(str::to_owned)
    });

    // A second later, so that the limit of the letters' rate has room for them all.
    std::thread::sleep(Duration::from_secs(1));
    let moment = 1_763_976_000_000_i64;
    let garbage = [
        (String::new(), "decode"),
        (r#"{"vehicle_id":"g1","ts":17639"#.to_owned(), "decode"),
        ("\u{fffd}\u{0}".to_owned(), "decode"),
        ("[1,2,3]".to_owned(), "schema"),
        (r#"{"vehicle_id":"g2"}"#.to_owned(), "schema"),
        (
            format!(r#"{{"vehicle_id":"g3","ts":{moment},"lon":0,"lat":0}}"#),
            "null_island",
        ),
        (
            format!(r#"{{"vehicle_id":"g4","ts":{moment},"lon":34.25,"lat":108.94}}"#),
            "swapped",
        ),
        (
            format!(r#"{{"vehicle_id":"g5","ts":{moment},"lon":190.5,"lat":34.2}}"#),
            "out_of_range",
        ),
        (
            format!(r#"{{"vehicle_id":"{}","ts":{moment}}}"#, "g".repeat(70_000)),
            "oversize",
        ),
    ];
    let producer = RecordProducer::new(&broker.connection()).unwrap();
    for (value, _) in &garbage {
        let outgoing = Outgoing {
            topic: &feeds.probes,
            partition: Some(2),
            key: Some(b"garbage"),
            value: Some(value.as_bytes()),
        };
        producer.send(outgoing, &[]).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    live.has_read(city.records() + garbage.len() as u64, Duration::from_secs(30));
    // What only a run on Kafka tells; the rest of the catalogue is looked for in service::telemetry.
    for series in [
        "viaflux_kafka_consumer_lag_records{",
        "viaflux_queue_depth{stage=\"ingest\"}",
        "viaflux_sink_records_total{sink=\"kafka\"}",
        "viaflux_dlq_records_total{",
        "viaflux_event_delay_seconds_count{",
        "viaflux_heartbeat_timestamp_seconds{stage=\"publish\"}",
    ] {
        until(series, Duration::from_secs(15), || {
            let (_, text) = live.probe("/metrics");
            text.lines().any(|line| line.starts_with(series)).then_some(())
        });
    }
    let summary = live.terminate();

    let read = |topic: &str| broker.read(&[topic], city.path());
    let states = read(&feeds.output("segment_state"));
    let regions = read(&feeds.output("region"));
    let events = read(&feeds.output("alert_event"));
    let current = read(&feeds.output("alert_state"));
    assert!(
        read(&feeds.output("corridor")).is_empty(),
        "no corridors are configured"
    );
    for (records, tally, file) in [
        (&states, "segment_state", Some("segment-states.ndjson")),
        (&regions, "region", Some("regions.ndjson")),
        (&events, "alert_event", Some("alerts.ndjson")),
        (&current, "alert_state", None),
    ] {
        assert!(!records.is_empty(), "no {tally}");
        assert_eq!(summary["published"][tally], records.len(), "{tally}");
        let mut ids = BTreeSet::new();
        for record in records {
            assert_eq!(header(record, "ce_specversion"), Some("1.0"));
            assert_eq!(header(record, "ce_source"), Some("/viaflux/outputs"));
            assert!(
                ids.insert(header(record, "ce_id").unwrap()),
                "{tally}: an id twice"
            );
            header(record, "ce_time")
                .unwrap()
                .parse::<jiff::Timestamp>()
                .unwrap();
        }
        if let Some(file) = file {
            // One partition: the topic and the file say the same, in the same order.
            let lines: Vec<&[u8]> = records
                .iter()
                .map(|record| record.value.as_deref().unwrap())
                .collect();
            let text = run.output(file);
            assert!(
                text.lines().map(str::as_bytes).eq(lines),
                "{file} and its topic differ"
            );
        }
    }
    for (record, body) in bodies(&states, "viaflux.segment_state.v1", "viaflux.segment_state/1") {
        assert_eq!(
            record.key.as_deref(),
            body["segment_id"].as_str().map(str::as_bytes)
        );
        assert_eq!(header(record, "ce_time"), body["window_end"].as_str());
        assert_eq!(
            (&body["provisional"], &body["partial"]),
            (&Value::Bool(false), &Value::Bool(false))
        );
    }
    for (record, _) in bodies(&regions, "viaflux.region_index.v1", "viaflux.region_index/1") {
        assert_eq!(record.key.as_deref(), Some(&b"city"[..]));
    }
    let mut revisions: BTreeMap<String, u64> = BTreeMap::new();
    for (record, body) in bodies(&events, "viaflux.alert.v1", "viaflux.alert/1") {
        let id = body["alert_id"].as_str().unwrap();
        assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
        let revision = revisions.entry(id.to_owned()).or_default();
        *revision += 1;
        assert_eq!(body["revision"], *revision, "revisions of {id} are dense");
    }
    // Nothing is resolved for a day in ten minutes: no tombstones, and the newest state is the last event.
    let mut newest = BTreeMap::new();
    for (record, body) in bodies(&current, "viaflux.alert.v1", "viaflux.alert/1") {
        let id = String::from_utf8(record.key.clone().unwrap()).unwrap();
        newest.insert(id, body["revision"].as_u64().unwrap());
    }
    assert_eq!(newest, revisions);

    let letters = read(&format!("{}.dlq", feeds.probes));
    let inputs: BTreeMap<(u32, u64), LogRecord> = read(&feeds.probes)
        .into_iter()
        .map(|record| ((record.partition, record.offset), record))
        .collect();
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    let mut told: Vec<(Vec<u8>, String)> = Vec::new();
    for letter in &letters {
        assert_eq!(header(letter, "viaflux.topic"), Some(feeds.probes.as_str()));
        let number = |name: &str| header(letter, name).unwrap().parse::<u64>().unwrap();
        let place = (number("viaflux.partition") as u32, number("viaflux.offset"));
        let record = &inputs[&place];
        assert_eq!(
            letter.value, record.value,
            "the letter of {place:?} is another record"
        );
        assert_eq!(letter.key, record.key, "the letter of {place:?} lost its key");
        let reason = header(letter, "viaflux.reason").unwrap();
        *reasons.entry(reason).or_default() += 1;
        told.push((letter.value.clone().unwrap_or_default(), reason.to_owned()));
    }
    for (reason, count) in reasons {
        let counted = summary["records"]["rejected"][reason].as_u64().unwrap_or(0);
        assert!(
            count <= counted,
            "{count} letters say {reason}, {counted} were counted"
        );
    }
    for (value, reason) in &garbage {
        let found = told.iter().find(|(told, _)| told == value.as_bytes());
        let found = found.unwrap_or_else(|| panic!("no letter for {:.60}", value));
        assert_eq!(found.1, *reason, "{value:.60}");
    }
}

/// Records with their bodies, which must be of this type and schema.
fn bodies<'r>(
    records: &'r [LogRecord],
    kind: &'r str,
    schema: &'r str,
) -> impl Iterator<Item = (&'r LogRecord, Value)> {
    records.iter().map(move |record| {
        let value = record.value.as_deref().expect("no tombstone is due");
        let body: Value = serde_json::from_slice(value).unwrap();
        assert_eq!(body["schema"], schema);
        assert_eq!(header(record, "ce_type"), Some(kind));
        assert_eq!(header(record, "content-type"), Some("application/json"));
        (record, body)
    })
}
