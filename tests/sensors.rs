//! Faulty sensors through the whole engine: told, not believed, counted, and the same however the log is read.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod scene;

use scene::{Item, Rig, Told, draw, measurement};
use serde_json::Value;
use viaflux::engine::Output;
use viaflux::ingest::Feed;
use viaflux::publish::Topic;

const MINUTES: i64 = 60;

/// Two lanes of a road and a sensor of another: from minute 20 to 30 the first repeats itself and the third is
/// silent.
fn rig() -> (Rig, Vec<Item>) {
    let town = draw("a    b", &["ab maxspeed=50"], "");
    let mut rig = Rig::new(&town, vec![Feed::Sensor]);
    rig.every_pane = true;
    rig.sensors = vec![
        ("stuck".into(), town.segment("a>b")),
        ("sane".into(), town.segment("a>b")),
        ("silent".into(), town.segment("b>a")),
    ];
    let mut items = Vec::new();
    for minute in 1..=MINUTES {
        let bad = (20..30).contains(&minute);
        for (k, name) in ["stuck", "sane", "silent"].into_iter().enumerate() {
            if bad && name == "silent" {
                continue;
            }
            let wave = (minute * 7 + k as i64) % 5;
            let (mut speed, mut volume) = (40.0 + wave as f64, 180 + 60 * wave as u32);
            let mut payload = measurement(name, minute * 60_000, 60_000, speed, volume);
            if bad && name == "stuck" {
                (speed, volume) = (10.0, 600);
                payload = measurement(name, minute * 60_000, 60_000, speed, volume);
                let at = payload.find("\"occupancy_percent\"").unwrap();
                payload = format!("{}\"occupancy_percent\":8.0}}", &payload[..at]);
            }
            items.push(Item {
                log: 0,
                arrival: minute * 60_000 + 500,
                payload,
            });
        }
    }
    (rig, items)
}

fn alerts(told: &Told) -> Vec<Value> {
    let bodies = told.publications.iter().filter(|p| p.topic == Topic::AlertEvent);
    bodies
        .map(|p| serde_json::from_slice(p.body.as_ref().unwrap()).unwrap())
        .collect()
}

#[test]
fn a_faulty_sensor_is_told_and_not_believed() {
    let (rig, items) = rig();
    let told = rig.run(&items, 10);
    let mut story: Vec<String> = alerts(&told)
        .iter()
        .map(|a| {
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            assert_eq!(a["type"], "sensor_fault");
            assert_eq!(a["place"]["segment_ids"].as_array().unwrap().len(), 1);
            format!(
                "{} {} {}",
                &text(&a["updated_at"])[11..19],
                text(&a["transition"]),
                text(&a["cause"])
            )
        })
        .collect();
    story.sort();
    assert_eq!(
        story,
        [
            "06:53:00 opened silent",
            "06:53:00 opened stuck",
            "07:04:00 resolved silent",
            "07:15:00 resolved stuck"
        ]
    );
    // Every record is counted, those of faulty sensors as used: they are what the sensor is judged by.
    assert_eq!((told.used(), told.refusals.len()), (items.len() as u64, 0));

    let slowest = |from: &str, to: &str| {
        told.publications
            .iter()
            .filter(|p| p.topic == Topic::SegmentState)
            .map(|p| serde_json::from_slice::<Value>(p.body.as_ref().unwrap()).unwrap())
            .filter(|s| (from..to).contains(&&s["window_end"].as_str().unwrap()[11..19]))
            .filter_map(|s| s["current_speed_kph"].as_f64())
            .fold(f64::INFINITY, f64::min)
    };
    assert!(slowest("06:51:30", "06:53:00") < 30.0, "still believed");
    assert!(slowest("06:54:00", "06:59:00") > 38.0, "no longer");
}

#[test]
fn threads_batches_and_restarts_change_nothing() {
    let (rig, items) = rig();
    let told = rig.run(&items, 1_000);
    for (threads, size) in [(1, 1), (3, 7), (2, 40)] {
        let mut other = rig.clone();
        other.threads = threads;
        assert_eq!(
            other.run(&items, size),
            told,
            "{threads} threads, batches of {size}"
        );
    }
    // A new process after every batch, so also in the middle of a suspicion and of a quarantine.
    let mut engine = rig.engine();
    let mut out = Output::default();
    for batch in rig.batches(&items, 3) {
        engine.step(&batch, &mut out, &mut ());
        let bytes = engine.checkpoint(&[]);
        engine = rig.engine();
        engine.restore(&bytes).unwrap();
    }
    assert_eq!(Told::of(&engine, out), told);
}
