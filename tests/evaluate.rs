//! `viaflux simulate traces` and `viaflux evaluate traces` as a person runs them.
#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Exit code, standard output, standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viaflux"));
    // Nothing of the caller's configuration may reach the run.
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("VIAFLUX_")) {
        command.env_remove(name);
    }
    let out = command.args(args).stdin(Stdio::null()).output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (
        out.status.code().unwrap_or(-1),
        text(&out.stdout),
        text(&out.stderr),
    )
}

fn done(args: &[&str]) -> String {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, 0, "viaflux {args:?}: {stderr}");
    stdout
}

fn scores(map: &str, more: &[&str]) -> Value {
    let args = [&["evaluate", "traces", "--json", "--map", map], more].concat();
    serde_json::from_str(&done(&args)).unwrap()
}

fn traces(map: &str, folder: &Path, more: &[&str]) {
    let out = folder.to_str().unwrap();
    let args = [&["simulate", "traces", "--map", map, "-o", out], more].concat();
    done(&args);
}

/// The lines of a file of traces, changed.
fn rewritten(from: &Path, to: &Path, change: impl Fn(&mut Value)) {
    let mut text = String::new();
    for line in fs::read_to_string(from).unwrap().lines() {
        let mut trace: Value = serde_json::from_str(line).unwrap();
        change(&mut trace);
        text += &format!("{trace}\n");
    }
    fs::write(to, text).unwrap();
}

#[test]
fn drives_are_simulated_and_scored_by_interval() {
    let dir = tempfile::tempdir().unwrap();
    let city = dir.path().join("city");
    done(&[
        "simulate",
        "-o",
        city.to_str().unwrap(),
        "--duration",
        "1m",
        "--vehicles",
        "20",
        "--size",
        "2000",
        "--stations",
        "0",
        "--incidents",
        "0",
    ]);
    let map = city.join("city.map");
    let map = map.to_str().unwrap();

    let folder = dir.path().join("traces");
    let few = ["--trips", "40", "--intervals", "1,5,60"];
    traces(map, &folder, &few);
    let names = ["1s.ndjson", "5s.ndjson", "60s.ndjson"].map(|n| folder.join(n));
    let files = names.each_ref().map(|n| n.to_str().unwrap());

    // Equal arguments give equal files, and another seed others.
    let again = dir.path().join("again");
    traces(map, &again, &few);
    for name in &names {
        let same = fs::read(name).unwrap() == fs::read(again.join(name.file_name().unwrap())).unwrap();
        assert!(same, "{}", name.display());
    }
    traces(map, &again, &[&few[..], &["--seed", "2"]].concat());
    assert_ne!(
        fs::read(&names[2]).unwrap(),
        fs::read(again.join("60s.ndjson")).unwrap()
    );

    let report = scores(map, &files);
    let intervals = report["intervals"].as_array().unwrap();
    let of = |k: usize, field: &str| intervals[k][field].as_f64().unwrap();
    let classes: Vec<_> = intervals
        .iter()
        .map(|i| i["interval_s"].as_u64().unwrap())
        .collect();
    assert_eq!(classes, [1, 5, 60]);
    assert_eq!(report["all"]["traces"], 120);
    for (k, points) in [(0, 40 * 601), (1, 40 * 121), (2, 40 * 11)] {
        assert_eq!(intervals[k]["points"], points);
        assert_eq!(
            of(k, "true_m").round(),
            of(0, "true_m").round(),
            "the same drives"
        );
    }
    assert!(
        of(0, "on_route_ratio") > 0.97 && of(1, "on_route_ratio") > 0.97,
        "{report:#}"
    );
    assert!(of(0, "rmf") < 0.05 && of(1, "rmf") < 0.05, "{report:#}");
    assert_eq!(intervals[0]["delay"]["max_s"], 30.0, "lag_s");
    assert_eq!(
        intervals[2]["delay"]["p50_s"], 0.0,
        "settle_s leaves no look-ahead"
    );
    assert_eq!(intervals[2]["delay"]["at_end"], 40);
    let sure = &intervals[1]["reliability"]["on_route"]["sure"];
    assert!(sure["right_ratio"].as_f64().unwrap() > 0.97, "{sure}");

    // Who may wait for the whole trace is told by the end alone or later, and does no worse on sparse data.
    let full = scores(map, &["--lag", "full", files[2]]);
    assert_eq!(full["lag"], "full");
    assert!(
        full["all"]["rmf"].as_f64().unwrap() <= of(2, "rmf") + 0.01,
        "{full:#}"
    );

    // If truth says the other direction of each way, no point is right, but the ways are.
    let swapped = dir.path().join("swapped.ndjson");
    rewritten(&names[1], &swapped, |trace| {
        for at in trace["truth"].as_array_mut().unwrap() {
            at[1] = Value::from(-at[1].as_i64().unwrap());
            at[2] = Value::Array(Vec::new());
        }
        for part in trace["route"].as_array_mut().unwrap() {
            part[1] = Value::from(-part[1].as_i64().unwrap());
        }
    });
    let report = scores(map, &[swapped.to_str().unwrap()]);
    let of = |field: &str| report["all"][field].as_f64().unwrap();
    assert!(
        of("strict_ratio") < 0.02 && of("lenient_ratio") < 0.02,
        "{report:#}"
    );
    assert!(of("on_way_ratio") > 0.85 && of("rmf") > 1.8, "{report:#}");

    // For people: a line for each interval.
    let text = done(&["evaluate", "traces", "--map", map, files[1], files[2]]);
    for part in [
        "Points on the true way",
        "Ways by length",
        "Posterior",
        "\n  60 s ",
        "\n  all ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // Traces without truth are good for `bench match`, but cannot be scored.
    let blind = dir.path().join("blind.ndjson");
    rewritten(&names[2], &blind, |trace| {
        let trace = trace.as_object_mut().unwrap();
        trace.remove("truth");
        trace.remove("route");
    });
    let blind = blind.to_str().unwrap();
    let (code, _, stderr) = run(&["evaluate", "traces", "--map", map, blind]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("trace 0 has no truth") && stderr.contains("simulate traces"),
        "{stderr}"
    );
    let out = dir.path().join("out.ndjson");
    done(&[
        "bench",
        "match",
        "--map",
        map,
        "--traces",
        blind,
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 40);
}

#[test]
fn wrong_use_is_told_with_the_remedy() {
    let usage = |args: &[&str], part: &str| {
        let (code, _, stderr) = run(args);
        assert!(code == 2 && stderr.contains(part), "{args:?}: {code} {stderr}");
    };
    usage(&["evaluate"], "--run");
    usage(&["evaluate", "--run", "x"], "--truth");
    usage(&["evaluate", "traces", "--map", "x"], "<FILE>");
    usage(&["simulate"], "--output");
    usage(&["simulate", "traces", "-o", "x"], "--map");
    let (code, _, stderr) = run(&["simulate", "traces", "--map", "x", "-o", "y", "--duration", "30s"]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("--intervals 60") && stderr.contains("--duration"),
        "{stderr}"
    );
}
