//! The program as a person runs it: `viaflux replay` over a small simulated city. The same bytes whatever the
//! number of threads, the packing of the input, or a SIGKILL on the way; broken input is counted, sampled and
//! never fatal; wrong use is told clearly. With `VIAFLUX_DATA` also over the data set `dev-city` there.
#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Files of a run that must be equal byte for byte.
const RESULTS: [&str; 5] = [
    "segment-states.ndjson",
    "alerts.ndjson",
    "regions.ndjson",
    "corridors.ndjson",
    "digests.ndjson",
];

fn viaflux(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viaflux"));
    // Nothing of the caller's configuration may reach the run.
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("VIAFLUX_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let out = viaflux(args).output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (
        out.status.code().unwrap_or(-1),
        text(&out.stdout),
        text(&out.stderr),
    )
}

fn done(args: &[&str]) {
    let (code, _, stderr) = run(args);
    assert_eq!(code, 0, "viaflux {args:?}: {stderr}");
}

/// A simulated city and room for runs.
struct City {
    dir: TempDir,
}

impl City {
    fn new() -> Self {
        let city = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let out = city.path("sim");
        done(&[
            "simulate",
            "--seed",
            "5",
            "--duration",
            "6m",
            "--vehicles",
            "900",
            "--size",
            "3000",
            "--probe-share",
            "0.3",
            "--stations",
            "12",
            "--incidents",
            "1",
            "-o",
            &out,
        ]);
        done(&[
            "map",
            "build",
            &city.path("sim/map.osm"),
            "-o",
            &city.path("city.map"),
        ]);
        city
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.dir.path().join(name), bytes).unwrap();
        self.path(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Arguments of a run over positions at `probes` and the sensors.
    fn args(&self, probes: &str, out: &str) -> Vec<String> {
        let words = [
            "replay",
            "--map",
            &self.path("city.map"),
            "--probes",
            probes,
            "--sensors",
            &self.path("sim/sensor.ndjson"),
            "--sites",
            &self.path("sim/sensors.json"),
            "--preset",
            "simulated-city",
            "-o",
            &self.path(out),
            "-q",
        ];
        words.map(str::to_owned).to_vec()
    }

    fn replay(&self, probes: &str, out: &str, more: &[&str]) -> Value {
        let args = self.args(probes, out);
        let all: Vec<&str> = args
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        done(&all);
        self.summary(out)
    }

    fn summary(&self, out: &str) -> Value {
        let summary: Value = serde_json::from_slice(&self.read(&format!("{out}/summary.json"))).unwrap();
        let records = &summary["records"];
        let refused: u64 = records["rejected"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum();
        assert_eq!(
            records["used"].as_u64().unwrap() + refused,
            records["read"].as_u64().unwrap(),
            "every record is counted once: {records}"
        );
        summary
    }

    /// Refused records in the sample: line and reason.
    fn sample(&self, out: &str) -> BTreeSet<(u64, String)> {
        let text = String::from_utf8(self.read(&format!("{out}/rejected.ndjson"))).unwrap();
        let one = |line: &str| {
            let v: Value = serde_json::from_str(line).unwrap();
            (
                v["offset"].as_u64().unwrap(),
                v["reason"].as_str().unwrap().to_owned(),
            )
        };
        text.lines().map(one).collect()
    }

    /// Asserts that two runs are equal to the byte.
    fn same(&self, a: &str, b: &str) {
        for name in RESULTS {
            let (x, y) = (
                self.read(&format!("{a}/{name}")),
                self.read(&format!("{b}/{name}")),
            );
            assert!(
                x == y,
                "{name} of {a} ({} bytes) and {b} ({} bytes) differ",
                x.len(),
                y.len()
            );
        }
        let (x, y) = (self.summary(a), self.summary(b));
        for key in [
            "digest",
            "pane_end",
            "map_version",
            "records",
            "located",
            "segments",
            "alerts",
            "panes",
            "published",
        ] {
            assert_eq!(x[key], y[key], "`{key}` of {a} and {b}");
        }
    }
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn threads_and_packing_change_nothing() {
    let city = City::new();
    let plain = city.path("sim/gps.ndjson");
    let summary = city.replay(&plain, "one", &["--threads", "1"]);
    assert!(summary["records"]["used"].as_u64().unwrap() > 10_000, "{summary}");
    assert!(summary["segments"]["live"].as_u64().unwrap() > 100, "{summary}");
    assert_eq!(
        city.sample("one")
            .iter()
            .map(|(_, r)| r)
            .collect::<BTreeSet<_>>()
            .len(),
        summary["records"]["rejected"].as_object().unwrap().len()
    );
    city.replay(&plain, "again", &["--threads", "1"]);
    city.replay(&plain, "two", &["--threads", "2"]);
    city.same("one", "again");
    city.same("one", "two");

    let bytes = city.read("sim/gps.ndjson");
    city.replay(&city.write("a.ndjson.gz", &gz(&bytes)), "gz", &[]);
    city.same("one", "gz");
    // Whatever the name says, and in two frames, as appending tools write it.
    let half = bytes.len() / 2;
    let frames = [
        zstd::encode_all(&bytes[..half], 1).unwrap(),
        zstd::encode_all(&bytes[half..], 1).unwrap(),
    ]
    .concat();
    city.replay(&city.write("a.json", &frames), "zst", &[]);
    city.same("one", "zst");
    let text = String::from_utf8_lossy(&bytes).replace('\n', "\r\n");
    assert_eq!(
        text.len(),
        bytes.len() + text.lines().count(),
        "the simulated lines are UTF-8"
    );
    city.replay(&city.write("crlf.ndjson", text.as_bytes()), "crlf", &[]);
    city.same("one", "crlf");

    let args = city.args("-", "stdin");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut child = viaflux(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&gz(&bytes)).unwrap();
    assert!(child.wait().unwrap().success());
    city.same("one", "stdin");
}

#[test]
fn sorted_undrained_and_observed() {
    let city = City::new();
    let plain = city.path("sim/gps.ndjson");
    let text = String::from_utf8(city.read("sim/gps.ndjson")).unwrap();
    city.replay(&plain, "sorted", &["--sort"]);
    assert_eq!(
        city.summary("sorted")["records"]["rejected"]["late"],
        Value::Null,
        "nothing is late in order"
    );
    // Any order of the lines is the same file to --sort.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|l| blake3::hash(l.as_bytes()).to_hex());
    let mixed = city.write("mixed.ndjson", (lines.join("\n") + "\n").as_bytes());
    city.replay(&mixed, "mixed", &["--sort"]);
    city.same("sorted", "mixed");

    city.replay(&plain, "drained", &["--matches"]);
    let summary = city.summary("drained");
    let located: u64 = ["matched", "ambiguous", "off_road"]
        .iter()
        .map(|what| summary["located"][what].as_u64().unwrap())
        .sum();
    let rejected = String::from_utf8(city.read("drained/rejected.ndjson")).unwrap();
    let refused: BTreeSet<u64> = rejected
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .filter(|v| v["log"] == plain.as_str())
        .map(|v| v["offset"].as_u64().unwrap())
        .collect();
    let lines: Vec<&str> = text.lines().collect();
    let mut seen = BTreeSet::new();
    for line in String::from_utf8(city.read("drained/matches.ndjson"))
        .unwrap()
        .lines()
    {
        let v: Value = serde_json::from_str(line).unwrap();
        let number = v["line"].as_u64().unwrap();
        assert!(seen.insert(number), "line {number} was placed twice");
        assert!(!refused.contains(&number), "line {number} was placed and refused");
        let source: Value = serde_json::from_str(lines[number as usize - 1]).unwrap();
        assert_eq!(v["vehicle_id"], source["vehicle_id"]);
    }
    assert_eq!(seen.len() as u64, located);
    assert!(
        located > 10_000 && refused.len() > 100,
        "{located} placed, {} refused",
        refused.len()
    );

    // What a live run leaves open, the end of a file closes.
    city.replay(&plain, "open", &["--no-drain"]);
    for name in ["digests.ndjson", "segment-states.ndjson"] {
        let (open, drained) = (
            city.read(&format!("open/{name}")),
            city.read(&format!("drained/{name}")),
        );
        assert!(open.len() < drained.len() && drained.starts_with(&open), "{name}");
    }
}

#[test]
fn csv_says_the_same_as_ndjson() {
    let city = City::new();
    let columns = [
        "lat",
        "lon",
        "vehicle_id",
        "ts",
        "heading_deg",
        "accuracy_m",
        "speed_mps",
    ];
    let (mut lines, mut rows) = (String::new(), format!("note,{}\n", columns.join(",")));
    for line in String::from_utf8_lossy(&city.read("sim/gps.ndjson")).lines() {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if !(value["ts"].is_i64() && value["lat"].is_f64() && value["lon"].is_f64()) {
            continue;
        }
        let cell = |c: &str| match &value[c] {
            Value::Null => String::new(),
            Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        lines += &format!("{line}\n");
        rows += &format!("\"a, \"\"quoted\"\" note\",{}\n", columns.map(cell).join(","));
    }
    let config = format!(
        "[map]\nfile = {:?}\nsensors = {:?}\n\
         [[source]]\nkind = \"file\"\nfeed = \"probe\"\npreset = \"simulated-city\"\nformat = \"csv\"\npath = {:?}\n\
         [[source]]\nkind = \"file\"\nfeed = \"sensor\"\npreset = \"simulated-city\"\npath = {:?}\n",
        city.path("city.map"),
        city.path("sim/sensors.json"),
        city.write("gps.csv", rows.as_bytes()),
        city.path("sim/sensor.ndjson"),
    );
    let config = city.write("csv.toml", config.as_bytes());
    done(&["replay", "-c", &config, "-o", &city.path("csv"), "-q"]);
    city.replay(&city.write("clean.ndjson", lines.as_bytes()), "json", &[]);
    assert!(city.summary("csv")["records"]["used"].as_u64().unwrap() > 10_000);
    city.same("json", "csv");
}

/// The newest checkpoint in a folder.
fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut all: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "ckpt"))
        .collect();
    all.sort();
    all
}

fn copy(from: &str, to: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, Path::new(to).join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn killed_and_resumed_it_writes_the_same_bytes() {
    let city = City::new();
    let plain = city.path("sim/gps.ndjson");
    city.replay(&plain, "whole", &["--threads", "1"]);
    let state = city.path("state");

    // At 20 times real time the six minutes take 18 s; a checkpoint is due every 10 s.
    let args = city.args(&plain, "killed");
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(["--state", &state, "--speed", "20", "--threads", "2"]);
    let mut child = viaflux(&args).spawn().unwrap();
    let begin = Instant::now();
    // The first one is made at the start.
    while checkpoints(Path::new(&state)).len() < 2 {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "no checkpoint within a minute"
        );
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before its first checkpoint"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    // Some more is written, which the next start has to cut off again.
    std::thread::sleep(Duration::from_millis(1500));
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(!Path::new(&city.path("killed/summary.json")).exists());
    let written = city.read("killed/digests.ndjson").len();
    assert!(
        written < city.read("whole/digests.ndjson").len(),
        "killed in the middle"
    );

    // A second one of its kind, whose newest checkpoint is damaged: it starts anew, and says so.
    copy(&state, &city.path("state-damaged"));
    copy(&city.path("killed"), &city.path("damaged"));
    let victim = checkpoints(Path::new(&city.path("state-damaged"))).pop().unwrap();
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&victim, bytes).unwrap();

    city.replay(&plain, "killed", &["--state", &state, "--threads", "1"]);
    city.same("whole", "killed");
    assert!(city.read("whole/rejected.ndjson") == city.read("killed/rejected.ndjson"));
    // Once more: everything is done, nothing is written twice.
    city.replay(&plain, "killed", &["--state", &state]);
    city.same("whole", "killed");

    let args = city.args(&plain, "damaged");
    let state = city.path("state-damaged");
    // Without -q, so that the warning is seen.
    let mut args: Vec<&str> = args.iter().map(String::as_str).filter(|a| *a != "-q").collect();
    args.extend(["--state", &state]);
    let (code, _, stderr) = run(&args);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("damaged") && stderr.contains(victim.file_name().unwrap().to_str().unwrap()),
        "{stderr}"
    );
    city.same("whole", "damaged");

    // A state of other inputs is refused, with a way out.
    let sensors = city.path("sim/sensor.ndjson");
    let args = city.args(&sensors, "other");
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(["--state", &state]);
    let (code, _, stderr) = run(&args);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("another set of input logs") && stderr.contains("without --state"),
        "{stderr}"
    );
}

#[test]
fn broken_records_are_counted_and_sampled() {
    let city = City::new();
    // A moment and a place that the city knows, and enough good records that the clock is believed.
    let at = 1_795_424_400_000_i64;
    let place = String::from_utf8_lossy(&city.read("sim/gps.ndjson"))
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
        .find(|v| {
            v["lat"].as_f64().is_some_and(|l| (33.0..36.0).contains(&l))
                && v["lon"].as_f64().is_some_and(|l| l > 100.0)
        })
        .map(|v| format!("\"lat\":{},\"lon\":{}", v["lat"], v["lon"]))
        .unwrap();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for i in 0..60 {
        lines.push(
            format!(
                r#"{{"vehicle_id":"v{}","ts":{},{place},"speed_mps":0.5}}"#,
                i % 5,
                at + i * 1000
            )
            .into_bytes(),
        );
    }
    let now = format!("\"ts\":{}", at + 60_000);
    let json = |text: String| text.into_bytes();
    let long = "x".repeat(10 << 20);
    let nines = "9".repeat(5000);
    let broken: Vec<(&str, &str, Vec<u8>)> = vec![
        ("an empty line", "decode", Vec::new()),
        ("blanks", "decode", b"   ".to_vec()),
        (
            "cut short",
            "decode",
            json(format!(r#"{{"vehicle_id":"a",{now},"la"#)),
        ),
        (
            "binary",
            "decode",
            (1..=255).filter(|b| *b != b'\n' && *b != b'\r').collect(),
        ),
        ("zeros", "decode", vec![0; 300]),
        ("text", "decode", b"Segmentation fault".to_vec()),
        (
            "two objects",
            "decode",
            json(format!(
                r#"{{"vehicle_id":"a",{now},{place}}}{{"vehicle_id":"b",{now},{place}}}"#
            )),
        ),
        (
            "a byte order mark",
            "decode",
            json(format!("\u{feff}{{\"vehicle_id\":\"a\",{now},{place}}}")),
        ),
        (
            "NaN",
            "decode",
            json(format!(r#"{{"vehicle_id":"a",{now},"lat":NaN,"lon":108.9}}"#)),
        ),
        (
            "infinity",
            "decode",
            json(format!(
                r#"{{"vehicle_id":"a",{now},"lat":-Infinity,"lon":108.9}}"#
            )),
        ),
        (
            "no double",
            "decode",
            json(format!(r#"{{"vehicle_id":"a",{now},"lat":1e400,"lon":108.9}}"#)),
        ),
        (
            "5000 digits",
            "decode",
            json(format!(r#"{{"vehicle_id":"a",{now},"lat":{nines},"lon":108.9}}"#)),
        ),
        (
            "an id that is not UTF-8",
            "decode",
            [
                &b"{\"vehicle_id\":\"\xff\xfe\","[..],
                format!("{now},{place}}}").as_bytes(),
            ]
            .concat(),
        ),
        (
            "half a surrogate pair",
            "decode",
            json(format!(r#"{{"vehicle_id":"\ud800",{now},{place}}}"#)),
        ),
        (
            "a huge latitude",
            "out_of_range",
            json(format!(r#"{{"vehicle_id":"a",{now},"lat":1e300,"lon":108.9}}"#)),
        ),
        (
            "a huge heading",
            "out_of_range",
            json(format!(r#"{{"vehicle_id":"a",{now},{place},"heading_deg":1e9}}"#)),
        ),
        (
            "a negative speed",
            "out_of_range",
            json(format!(r#"{{"vehicle_id":"a",{now},{place},"speed_mps":-1}}"#)),
        ),
        (
            "a time of 30 digits",
            "schema",
            json(format!(
                r#"{{"vehicle_id":"a","ts":123456789012345678901234567890,{place}}}"#
            )),
        ),
        (
            "the greatest time",
            "clock_unit",
            json(format!(r#"{{"vehicle_id":"a","ts":{},{place}}}"#, i64::MAX)),
        ),
        (
            "the least time",
            "clock_unit",
            json(format!(r#"{{"vehicle_id":"a","ts":{},{place}}}"#, i64::MIN)),
        ),
        (
            "seconds",
            "clock_unit",
            json(format!(r#"{{"vehicle_id":"a","ts":{},{place}}}"#, at / 1000)),
        ),
        (
            "the year 2099",
            "clock_future",
            json(format!(r#"{{"vehicle_id":"a","ts":4083955200000,{place}}}"#)),
        ),
        (
            "an hour ago",
            "late",
            json(format!(r#"{{"vehicle_id":"a","ts":{},{place}}}"#, at - 3_600_000)),
        ),
        (
            "a latitude in quotes",
            "schema",
            json(format!(r#"{{"vehicle_id":"a",{now},"lat":"34.2","lon":108.9}}"#)),
        ),
        (
            "a time in quotes",
            "schema",
            json(format!(r#"{{"vehicle_id":"a","ts":"{at}",{place}}}"#)),
        ),
        (
            "a time with a fraction",
            "schema",
            json(format!(r#"{{"vehicle_id":"a","ts":{at}.5,{place}}}"#)),
        ),
        (
            "a truth for an id",
            "schema",
            json(format!(r#"{{"vehicle_id":true,{now},{place}}}"#)),
        ),
        (
            "an object for an id",
            "schema",
            json(format!(r#"{{"vehicle_id":{{"a":[1]}},{now},{place}}}"#)),
        ),
        (
            "an empty id",
            "schema",
            json(format!(r#"{{"vehicle_id":"",{now},{place}}}"#)),
        ),
        (
            "an endless id",
            "schema",
            json(format!(r#"{{"vehicle_id":"{}",{now},{place}}}"#, "x".repeat(200))),
        ),
        ("no id", "schema", json(format!(r#"{{{now},{place}}}"#))),
        (
            "no time",
            "schema",
            json(format!(r#"{{"vehicle_id":"a",{place}}}"#)),
        ),
        (
            "no place",
            "schema",
            json(format!(r#"{{"vehicle_id":"a",{now}}}"#)),
        ),
        (
            "null for a place",
            "schema",
            json(format!(r#"{{"vehicle_id":"a",{now},"lat":null,"lon":null}}"#)),
        ),
        ("no fields", "schema", b"{}".to_vec()),
        ("an array", "schema", b"[1,2,3]".to_vec()),
        ("a number", "schema", b"42".to_vec()),
        ("null", "schema", b"null".to_vec()),
        (
            "deep arrays",
            "schema",
            json(format!(r#"{{"x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000))),
        ),
        (
            "deep objects",
            "schema",
            json(format!("{}1{}", r#"{"x":"#.repeat(10_000), "}".repeat(10_000))),
        ),
        ("deep and open", "decode", json("[".repeat(60_000))),
        (
            "10 MiB",
            "oversize",
            json(format!(r#"{{"vehicle_id":"a",{now},{place},"pad":"{long}"}}"#)),
        ),
        ("10 MiB of nothing", "oversize", vec![b' '; 10 << 20]),
        (
            "0, 0",
            "null_island",
            json(format!(r#"{{"vehicle_id":"a",{now},"lat":0,"lon":0.0}}"#)),
        ),
        (
            "another country",
            "out_of_area",
            json(format!(r#"{{"vehicle_id":"a",{now},"lat":49.4,"lon":8.7}}"#)),
        ),
        (
            "changed places",
            "swapped",
            json(format!(
                r#"{{"vehicle_id":"a",{now},{}}}"#,
                place
                    .replace("lat", "l_")
                    .replace("lon", "lat")
                    .replace("l_", "lon")
            )),
        ),
        (
            "500 m accuracy",
            "no_fix",
            json(format!(r#"{{"vehicle_id":"a",{now},{place},"accuracy_m":500}}"#)),
        ),
        ("the same again", "duplicate", lines[59].clone()),
    ];
    let mut expected = BTreeMap::new();
    for (what, reason, bytes) in broken {
        lines.push(bytes);
        expected.insert(lines.len() as u64, (what, reason));
    }
    // A good one behind all of them, so that nothing of the above stopped the reading.
    lines.push(
        format!(
            r#"{{"vehicle_id":"v0","ts":{},{place},"speed_mps":0.5}}"#,
            at + 61_000
        )
        .into_bytes(),
    );
    let file = city.write("broken.ndjson", &[lines.join(&b'\n'), b"\n".to_vec()].concat());
    let begin = Instant::now();
    let summary = city.replay(&file, "broken", &[]);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    // The sensors' file has records of its own; its lines carry its name.
    let mut found = BTreeMap::new();
    for line in String::from_utf8(city.read("broken/rejected.ndjson"))
        .unwrap()
        .lines()
    {
        assert!(line.len() < 16_000, "a sample is short");
        let v: Value = serde_json::from_str(line).unwrap();
        if v["log"] == file.as_str() {
            // A duplicate is found when its second is released, a clock ahead is held: the payload has passed then.
            let passed = v["reason"] == "duplicate" || v["reason"] == "clock_future";
            assert!(
                if passed {
                    v["payload"].is_null()
                } else {
                    v["payload"].is_string() && v["bytes"].is_u64()
                },
                "{v}"
            );
            found.insert(
                v["offset"].as_u64().unwrap(),
                v["reason"].as_str().unwrap().to_owned(),
            );
        }
    }
    for (line, (what, reason)) in &expected {
        assert_eq!(
            found.get(line).map(String::as_str),
            Some(*reason),
            "{what} (line {line})"
        );
    }
    assert_eq!(found.len(), expected.len(), "nothing else is refused");
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    expected
        .values()
        .for_each(|(_, reason)| *counts.entry(reason).or_default() += 1);
    for (reason, count) in counts {
        assert!(
            summary["records"]["rejected"][reason].as_u64().unwrap() >= count,
            "{reason}: {summary}"
        );
    }
}

#[test]
fn odd_files_are_no_errors_and_damaged_ones_are_told() {
    let city = City::new();
    for (name, bytes, read) in [
        ("empty.ndjson", Vec::new(), 0),
        ("one-line-end", b"\n".to_vec(), 1),
        ("no-line-end", b"{}".to_vec(), 1),
        (
            "binary",
            (0..200_000_u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
            1,
        ),
        ("empty.gz", gz(b""), 0),
        ("zeros", vec![0; 3 << 20], 1),
    ] {
        let file = city.write(name, &bytes);
        let (map, out) = (city.path("city.map"), city.path(&format!("out-{name}")));
        let (code, _, stderr) = run(&[
            "replay",
            "--map",
            &map,
            "--probes",
            &file,
            "--preset",
            "simulated-city",
            "-o",
            &out,
            "-q",
        ]);
        // Nothing in it is no fault; nothing of use in it is told, and written all the same.
        assert_eq!(code, i32::from(read > 0), "{name}: {stderr}");
        assert_eq!(stderr.contains("could be used"), read > 0, "{name}: {stderr}");
        let summary = city.summary(&format!("out-{name}"));
        assert!(
            summary["records"]["read"].as_u64().unwrap() >= read,
            "{name}: {summary}"
        );
        assert_eq!(summary["records"]["used"], 0, "{name}: {summary}");
        assert_eq!(summary["pane_end"], Value::Null, "{name}");
    }
    let packed = gz(&city.read("sim/gps.ndjson"));
    let half = city.write("half.gz", &packed[..packed.len() / 2]);
    let (code, _, stderr) = run(&[
        "replay",
        "--map",
        &city.path("city.map"),
        "--probes",
        &half,
        "-o",
        &city.path("o"),
    ]);
    assert_eq!(code, 1);
    assert!(stderr.contains("half.gz"), "{stderr}");
}

#[test]
fn the_size_of_batches_changes_nothing() {
    let city = City::new();
    let plain = city.path("sim/gps.ndjson");
    city.replay(&plain, "whole", &["--matches", "--threads", "1"]);
    city.replay(
        &plain,
        "paced",
        &["--matches", "--threads", "2", "--speed", "200"],
    );
    city.same("whole", "paced");
    let (whole, paced) = (
        city.read("whole/rejected.ndjson"),
        city.read("paced/rejected.ndjson"),
    );
    assert!(whole == paced && whole.len() > 10_000, "rejected.ndjson differs");
    let (whole, paced) = (
        city.read("whole/matches.ndjson"),
        city.read("paced/matches.ndjson"),
    );
    assert!(whole == paced && whole.len() > 100_000, "matches.ndjson differs");
}

#[test]
fn a_byte_order_mark_costs_no_record() {
    let city = City::new();
    let text = city.read("sim/gps.ndjson");
    let marked = city.write("marked.ndjson", &[b"\xef\xbb\xbf", &text[..]].concat());
    for more in [&[][..], &["--sort"]] {
        let plain = city.replay(&city.path("sim/gps.ndjson"), "plain", more);
        let other = city.replay(&marked, "marked", more);
        assert_eq!(plain["records"], other["records"], "{more:?}");
    }
}

#[test]
fn one_run_at_a_time_in_a_folder() {
    let city = City::new();
    let plain = city.path("sim/gps.ndjson");
    let state = city.path("state");
    let args = |out: &str, more: &[&str]| -> Vec<String> {
        let more = more.iter().map(|m| (*m).to_owned());
        city.args(&plain, out).into_iter().chain(more).collect()
    };
    let refused = |args: &[String], folder: &str| {
        let (code, _, stderr) = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(code, 1, "{stderr}");
        assert!(
            stderr.contains("another viaflux") && stderr.contains(folder),
            "{stderr}"
        );
    };
    city.replay(&plain, "whole", &[]);
    city.replay(&plain, "slow", &[]);
    let slow = args("slow", &["--state", &state, "--speed", "100"]);
    let mut child = viaflux(&slow.iter().map(String::as_str).collect::<Vec<_>>())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    // The summary of the run before must not be taken for this one's.
    while checkpoints(Path::new(&state)).is_empty() || Path::new(&city.path("slow/summary.json")).exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not begin");
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    refused(&args("slow", &[]), "slow");
    refused(&args("elsewhere", &["--state", &state]), "state");
    assert!(child.wait().unwrap().success());
    city.same("whole", "slow");
}

/// `run` over files: what it wrote before is kept unless told otherwise, and damaged checkpoints are no reason to
/// begin anew over it.
#[test]
fn run_keeps_what_an_earlier_run_wrote() {
    let city = City::new();
    let (map, gps) = (city.path("city.map"), city.path("sim/gps.ndjson"));
    let text = format!(
        "[map]\nfile = {map:?}\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[source]]\nid = \"p\"\nkind = \"file\"\npreset = \"simulated-city\"\npath = {gps:?}\n\
         [[sink]]\nid = \"f\"\nkind = \"file\"\npath = {:?}\n",
        city.path("sunk")
    );
    let config = city.write("run.toml", text.as_bytes());
    let state = city.path("state");
    let go = |more: &[&str]| run(&[&["run", "-c", &config], more].concat());
    let results = || city.read("sunk/segment-states.ndjson");
    let (code, _, stderr) = go(&["--state", &state]);
    assert_eq!(code, 0, "{stderr}");
    let first = results();
    assert!(first.len() > 10_000);
    let (code, _, stderr) = go(&[]);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("--overwrite") && stderr.contains("--state"),
        "{stderr}"
    );
    assert!(results() == first, "the refused run changed the files");
    // Going on is no new run.
    assert_eq!(go(&["--state", &state]).0, 0);
    assert!(results() == first);
    for path in checkpoints(Path::new(&state)) {
        fs::write(path, b"no checkpoint").unwrap();
    }
    let (code, _, stderr) = go(&["--state", &state]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("none of the checkpoints"), "{stderr}");
    assert!(results() == first, "the refused run changed the files");
    assert_eq!(go(&["--overwrite"]).0, 0);
    assert!(results() == first, "the same input gives the same bytes");
}

/// A pipe whose writer is silent holds up neither the other files nor the end.
#[cfg(unix)]
#[test]
fn a_silent_pipe_holds_nothing_up() {
    let city = City::new();
    let (map, gps, pipe) = (
        city.path("city.map"),
        city.path("sim/gps.ndjson"),
        city.path("pipe"),
    );
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = format!(
        "[map]\nfile = {map:?}\n[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[source]]\nid = \"p\"\nkind = \"file\"\npreset = \"simulated-city\"\npaths = [{pipe:?}, {gps:?}]\n"
    );
    let config = city.write("run.toml", text.as_bytes());
    let lines = String::from_utf8(city.read("sim/gps.ndjson"))
        .unwrap()
        .lines()
        .count() as u64;
    let state = city.path("state");
    let mut child = viaflux(&["run", "-c", &config, "--state", &state, "--checkpoint-every", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The first is made at the start; the next ones while the pipe is silent.
    let begin = Instant::now();
    while checkpoints(Path::new(&state)).len() < 3 {
        assert!(begin.elapsed() < Duration::from_secs(60), "no checkpoints");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(1500));
    let begin = Instant::now();
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let status = child.wait().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert!(status.success(), "{status}");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["records"]["read"], lines, "the other file was read whole");
}

#[test]
fn what_cannot_be_done_is_told() {
    let city = City::new();
    let (map, probes, out) = (city.path("city.map"), city.path("sim/gps.ndjson"), city.path("o"));
    let bytes = city.read("city.map");
    let cut = city.write("cut.map", &bytes[..bytes.len() / 2]);
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let flipped = city.write("flipped.map", &flipped);
    let typo = city.write("typo.toml", b"[locate]\nsettle = 3\n");
    let syntax = city.write("syntax.toml", b"[locate\n");
    let range = city.write("range.toml", b"[aggregate]\npane_s = 0\n");
    let base = ["--probes", &probes, "-o", &out];
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--map", &map, "--threads", "100000"], 2, &["--threads", "1024"]),
        (
            &["--map", "/nowhere/city.map"],
            1,
            &["/nowhere/city.map", "No such file"],
        ),
        (&["--map", &cut], 1, &["cut.map", "truncated", "build it again"]),
        (
            &["--map", &flipped],
            1,
            &["flipped.map", "checksum", "build it again"],
        ),
        (
            &["--map", &probes],
            1,
            &["gps.ndjson", "not a viaflux map", "viaflux map build"],
        ),
        (
            &["--map", &map, "--preset", "trackar"],
            2,
            &["--preset", "trackar", "traccar"],
        ),
        (&["--map", &map, "--speed", "fast"], 2, &["--speed", "fast"]),
        (&["--map", &map, "--log", &probes], 2, &["--log", "--probes"]),
        (
            &["--map", &map, "--sites", "/nowhere/sites"],
            1,
            &["/nowhere/sites"],
        ),
        (&["--map", &map, "--sites", &probes], 1, &["gps.ndjson"]),
        (&["--map", &map, "-c", &typo], 78, &["typo.toml:2", "settle_s"]),
        (&["--map", &map, "-c", &syntax], 78, &["syntax.toml:1"]),
        (&["--map", &map, "-c", &range], 78, &["range.toml:2", "pane_s"]),
        (
            &["--map", &map, "-c", "/nowhere/viaflux.toml"],
            78,
            &["/nowhere/viaflux.toml"],
        ),
        (&["--map", &map, "--frobnicate"], 2, &["--frobnicate"]),
    ];
    for (args, code, words) in cases {
        let all: Vec<&str> = ["replay"]
            .into_iter()
            .chain(base)
            .chain(args.iter().copied())
            .collect();
        let (found, _, stderr) = run(&all);
        assert_eq!(found, *code, "{args:?}: {stderr}");
        for word in *words {
            assert!(stderr.contains(word), "{args:?} does not say `{word}`: {stderr}");
        }
        assert!(
            !stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"),
            "{stderr}"
        );
        let path = args.get(1).copied().unwrap_or_default();
        assert!(
            *code == 78 || stderr.matches(path).count() <= 1,
            "said twice: {stderr}"
        );
    }
    let (code, _, stderr) = run(&["replay", "--map", &map, "-o", &out]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("--probes") && stderr.contains("--log"),
        "{stderr}"
    );
    let (code, _, stderr) = run(&["replay", "--map", &map, "--probes", "/nowhere/gps", "-o", &out]);
    assert_eq!(code, 1);
    assert!(stderr.contains("/nowhere/gps"), "{stderr}");
    let (code, _, stderr) = run(&["replay", "--map", &map, "--probes", &probes, "-o", &probes]);
    assert_eq!(code, 1);
    assert!(stderr.contains("gps.ndjson"), "{stderr}");
    let (code, ..) = run(&["replay", "--map", &map, "--probes", &probes]);
    assert_eq!(code, 2, "no folder for the results");
}

#[test]
fn dev_city() {
    let Some(data) = std::env::var_os("VIAFLUX_DATA") else {
        // Not by a macro: the test harness would keep that to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED dev_city: set VIAFLUX_DATA to the folder that holds dev-city"
        );
        return;
    };
    let data = Path::new(&data).join("dev-city");
    let of = |name: &str| data.join(name).to_string_lossy().into_owned();
    let city = City {
        dir: tempfile::tempdir().unwrap(),
    };
    let map = city.path("city.map");
    done(&["map", "build", &of("map.osm.pbf"), "-o", &map]);
    for threads in ["1", "2"] {
        done(&[
            "replay",
            "--map",
            &map,
            "--probes",
            &of("gps.ndjson.zst"),
            "--sensors",
            &of("sensor.ndjson.zst"),
            "--sites",
            &of("sensors.json"),
            "--preset",
            "simulated-city",
            "-q",
            "--threads",
            threads,
            "-o",
            &city.path(threads),
        ]);
    }
    city.same("1", "2");
    let summary = city.summary("1");
    let meta: Value = serde_json::from_slice(&fs::read(data.join("meta.json")).unwrap()).unwrap();
    let lines = meta["gps_lines"].as_u64().unwrap() + meta["sensor_lines"].as_u64().unwrap();
    assert_eq!(summary["records"]["read"].as_u64(), Some(lines));
    let kind = |name: &str| meta["gps_kinds"][name].as_u64().unwrap_or(0);
    let corrupt = |names: &[&str]| names.iter().map(|n| kind(&format!("corrupt:{n}"))).sum::<u64>();
    // The sensors' file has broken lines that are counted nowhere; of each reason the sample has up to 100 lines.
    let probes = of("gps.ndjson.zst");
    let mut sampled: BTreeMap<String, u64> = BTreeMap::new();
    for line in String::from_utf8(city.read("1/rejected.ndjson")).unwrap().lines() {
        let v: Value = serde_json::from_str(line).unwrap();
        if v["log"] == probes.as_str() {
            *sampled
                .entry(v["reason"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
    }
    let refused = |reason: &str| match sampled.get(reason) {
        Some(100..) => summary["records"]["rejected"][reason].as_u64().unwrap(),
        n => n.copied().unwrap_or(0),
    };
    for (reason, made) in [
        (
            "decode",
            corrupt(&["truncated_json", "not_json", "nan_literal", "empty_line"]),
        ),
        ("schema", corrupt(&["missing_field", "wrong_type"])),
        (
            "out_of_range",
            corrupt(&["absurd_speed", "negative_speed", "out_of_range"]),
        ),
        ("clock_unit", corrupt(&["seconds_timestamp"])),
        ("clock_future", corrupt(&["future_timestamp"])),
        ("swapped", corrupt(&["swapped_lonlat"])),
        ("null_island", corrupt(&["null_island"])),
    ] {
        assert!(
            refused(reason).abs_diff(made) <= 2,
            "{reason}: {made} made, {} refused",
            refused(reason)
        );
    }
    assert!(refused("duplicate") <= kind("duplicate") + 2);
    assert!(
        refused("duplicate") + refused("late") + 2 >= kind("duplicate"),
        "{summary}"
    );
    assert!(
        refused("jump") * 5 >= kind("outlier") * 4,
        "of {} outliers {} are jumps",
        kind("outlier"),
        refused("jump")
    );
    assert!(
        refused("jump") <= kind("outlier") * 2,
        "few good fixes are taken for jumps: {}",
        refused("jump")
    );
    assert!(summary["segments"]["live"].as_u64().unwrap() > 1000, "{summary}");
}
