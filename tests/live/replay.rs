//! What a live run said, a replay of the recorded topics says again.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::broker::{Broker, broker};
use crate::city::{City, Feeds, Run};
use crate::process::{Live, balanced, finish, until, viaflux};

#[test]
fn a_live_run_and_its_replay_agree_with_append_time() {
    agree("stamped", true);
}

#[test]
fn a_live_run_and_its_replay_agree_without_append_time() {
    agree("unstamped", false);
}

fn agree(name: &str, stamped: bool) {
    let Some(broker) = broker() else { return };
    let _shared = broker.shared();
    // Where the broker stamps, clocks are judged by its stamps: the traffic must be of now.
    let city = if stamped { City::of_now() } else { City::small() };
    let feeds = Feeds::make(&broker, name, stamped);
    city.produce(&broker, &feeds);
    assert_eq!(
        feeds.inputs().map(|topic| broker.written(topic)),
        [city.positions, city.measurements]
    );

    let run = feeds.configure(&broker.address, &city, "group", "a", "");
    let mut live = Live::start(&run, &[]);
    live.has_read(city.records(), Duration::from_secs(60));
    let pane_end = |live: &Live| live.api("/api/v1/digest")["pane_end"].as_str().map(str::to_owned);
    let last = until("a pane closed", Duration::from_secs(10), || pane_end(&live));
    // The inputs are silent now: only idle marks can close another pane.
    until("idle marks close a pane", Duration::from_secs(120), || {
        live.running();
        pane_end(&live).filter(|now| *now > last)
    });
    let served = live.api("/api/v1/digest");
    let summary = live.terminate();
    assert_eq!(summary["records"]["read"], city.records());
    assert!(summary["records"]["control"].as_u64().unwrap() > 0);
    let chain = run.output("digests.ndjson");
    assert_eq!(at(&chain, served["pane_end"].as_str().unwrap()), served["digest"]);
    assert_eq!(
        at(&chain, summary["pane_end"].as_str().unwrap()),
        summary["digest"]
    );

    let log = record(&broker, &city, &feeds);
    let text = String::from_utf8(zstd::decode_all(std::fs::File::open(&log).unwrap()).unwrap()).unwrap();
    let (controls, records): (Vec<&str>, Vec<&str>) = text
        .lines()
        .skip(1)
        .partition(|line| line.contains("\"viaflux.control\""));
    assert_eq!(records.len() as u64, city.records());
    let marks = summary["records"]["control"].as_u64().unwrap();
    assert!(
        controls.len() as u64 >= marks,
        "{} marks recorded, {marks} read",
        controls.len()
    );

    for (threads, drain) in [("1", false), ("2", true)] {
        let out = city.file(&format!("replay-{threads}"));
        let mut arguments = vec!["--threads", threads];
        arguments.extend((!drain).then_some("--no-drain"));
        let again = replay(&run, &log, &out, &arguments);
        assert_eq!(
            again["records"]["read"], summary["records"]["read"],
            "{threads} threads"
        );
        // What waits for the records that follow it is decided by the end of the log, and by a mark that was
        // written as the run ended and not read by it.
        if !drain && controls.len() as u64 == marks {
            assert_eq!(again["records"], summary["records"]);
            assert_eq!(again["digest"], summary["digest"]);
        }
        let found = std::fs::read_to_string(out.join("digests.ndjson")).unwrap();
        assert_eq!(
            at(&found, summary["pane_end"].as_str().unwrap()),
            summary["digest"],
            "{threads} threads"
        );
        // Not the last link only, and not the chain only: a replay goes on where the run stopped.
        for file in [
            "digests.ndjson",
            "segment-states.ndjson",
            "regions.ndjson",
            "alerts.ndjson",
        ] {
            let (ran, replayed) = (run.output(file), std::fs::read_to_string(out.join(file)).unwrap());
            // At night there may be nothing to call.
            assert!(
                !ran.is_empty() || (stamped && file == "alerts.ndjson"),
                "{file} is empty"
            );
            assert!(
                replayed.starts_with(&ran),
                "{file} of run and replay with {threads} threads differ"
            );
        }
    }
}

/// Records the input topics into a file.
pub(crate) fn record(broker: &Broker, city: &City, feeds: &Feeds) -> std::path::PathBuf {
    let log = city.file(&format!("{}.ndjson.zst", feeds.prefix));
    let mut command = viaflux();
    command.args(["record", "--brokers", &broker.address, "--from", "earliest"]);
    for topic in feeds.inputs() {
        command.args(["--topic", topic]);
    }
    finish(command.arg("-o").arg(&log));
    log
}

/// Replays a log with the configuration of a run. Returns the summary.
pub(crate) fn replay(run: &Run, log: &Path, out: &Path, arguments: &[&str]) -> Value {
    let mut command = viaflux();
    command
        .arg("replay")
        .arg("-c")
        .arg(&run.config)
        .arg("--log")
        .arg(log)
        .arg("-o")
        .arg(out);
    let text = finish(command.arg("--json").args(arguments));
    let summary = serde_json::from_str(&text).unwrap();
    balanced(&summary);
    summary
}

/// The digest of a chain after the pane that ended at `end`; there must be one, and one only.
pub(crate) fn at(chain: &str, end: &str) -> Value {
    let lines = chain
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<Value> = lines.filter(|line| line["pane_end"] == end).collect();
    assert_eq!(found.len(), 1, "lines for {end}");
    found[0]["digest"].clone()
}
