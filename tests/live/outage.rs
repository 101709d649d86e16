//! The broker goes away and comes back.

use std::time::Duration;

use crate::broker::{broker, variable};
use crate::city::{City, Feeds};
use crate::process::{Child, Live, until};

const OUTAGE: Duration = Duration::from_secs(20);

#[test]
fn a_run_survives_a_broker_that_is_away_for_a_while() {
    let (Some(broker), Some(_)) = (broker(), variable("VIAFLUX_KAFKA_DIR")) else {
        return;
    };
    let _alone = broker.alone();
    let city = City::small();
    let feeds = Feeds::make(&broker, "outage", false);
    // The first half of each feed is sent before, the second after.
    let halves = ["gps.ndjson", "sensor.ndjson"].map(|name| city.halves(name));
    let send = |half: usize| {
        let sending = [
            city.sending(&broker, "--probes", &halves[0][half].0, &feeds.probes, "max"),
            city.sending(&broker, "--sensors", &halves[1][half].0, &feeds.sensors, "max"),
        ];
        sending.into_iter().for_each(Child::succeed);
        halves[0][half].1 + halves[1][half].1
    };

    let run = feeds.configure(&broker.address, &city, "group", "outage", "");
    let mut live = Live::start_with_state(&run);
    live.owns_all();
    let first = send(0);
    until("the first records", Duration::from_secs(20), || {
        (live.read() > 0).then_some(())
    });
    // Some of what it says is on its way now.
    broker.script("kill");
    std::thread::sleep(OUTAGE);
    live.running();
    assert_eq!(
        live.probe("/livez").0,
        200,
        "a broker that is away is no reason to restart"
    );
    broker.script("restart");
    live.has_read(first, Duration::from_secs(60));

    let second = send(1);
    live.has_read(first + second, Duration::from_secs(60));
    let summary = live.terminate();
    assert_eq!(summary["records"]["read"], city.records());
    let told = broker.read(&[&feeds.output("segment_state")], city.path());
    let text = run.output("segment-states.ndjson");
    // The producer is idempotent: nothing is lost, doubled or out of order.
    let bodies = told.iter().map(|record| record.value.as_deref().unwrap());
    assert!(
        text.lines().map(str::as_bytes).eq(bodies),
        "the topic and the file differ"
    );
    assert_eq!(summary["published"]["segment_state"], told.len());
}
