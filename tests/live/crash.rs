//! A run that is killed at random moments ends where an undisturbed one does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::broker;
use crate::city::{City, Feeds};
use crate::process::{Child, Live, until};

#[test]
fn a_run_killed_twice_writes_what_an_undisturbed_one_does() {
    let Some(broker) = broker() else { return };
    let _shared = broker.shared();
    let city = City::small();
    let feeds = Feeds::make(&broker, "crash", false);
    let run = feeds.configure(&broker.address, &city, "killed", "killed", "");
    // Ten minutes of traffic in 30 s.
    let producing = city.producing(&broker, &feeds, "20");
    let random = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .subsec_micros();
    let pauses = [random % 3_000, random / 7 % 3_000].map(|ms| Duration::from_millis(u64::from(ms)));
    println!("killed {pauses:?} after it had closed a pane");
    for pause in pauses {
        let live = Live::start_with_state(&run);
        let before = live.read();
        until("a pane closed and more read", Duration::from_secs(40), || {
            let closed = live.api("/api/v1/digest")["pane_end"].is_string();
            (closed && live.read() > before).then_some(())
        });
        std::thread::sleep(pause);
        live.kill();
    }
    let mut live = Live::start_with_state(&run);
    producing.into_iter().for_each(Child::succeed);
    live.has_read(city.records(), Duration::from_secs(60));
    assert!(
        live.log().contains("going on from a checkpoint"),
        "{}",
        live.log()
    );
    let killed = live.terminate();

    let calm = feeds.configure(&broker.address, &city, "calm", "calm", "");
    let mut live = Live::start(&calm, &[]);
    live.has_read(city.records(), Duration::from_secs(60));
    let undisturbed = live.terminate();

    for key in [
        "digest",
        "pane_end",
        "records",
        "located",
        "segments",
        "panes",
        "published",
        "alerts",
    ] {
        assert_eq!(killed[key], undisturbed[key], "{key}");
    }
    for file in [
        "digests.ndjson",
        "segment-states.ndjson",
        "regions.ndjson",
        "alerts.ndjson",
    ] {
        let (left, right) = (run.output(file), calm.output(file));
        assert!(!right.is_empty(), "{file} is empty");
        assert!(
            left == right,
            "{file}: {} bytes, undisturbed {} bytes",
            left.len(),
            right.len()
        );
    }
}

#[test]
fn what_comes_to_a_silent_topic_while_a_run_is_down_is_read() {
    let Some(broker) = broker() else { return };
    let _shared = broker.shared();
    let city = City::simulate(&["--duration", "1m", "--vehicles", "100"]);
    let feeds = Feeds::make(&broker, "silent", true);
    let run = feeds.configure(&broker.address, &city, "group", "silent", "");
    let text = std::fs::read_to_string(&run.config).unwrap();
    std::fs::write(&run.config, text.replace("\"earliest\"", "\"latest\"")).unwrap();
    let mut live = Live::start_with_state(&run);
    live.owns_all();
    assert_eq!(live.terminate()["records"]["read"], 0);
    city.produce(&broker, &feeds);
    // `latest` was said of the first start: the checkpoint knows where that was.
    let mut live = Live::start_with_state(&run);
    live.has_read(city.records(), Duration::from_secs(30));
    live.terminate();
}
