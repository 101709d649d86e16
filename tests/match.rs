//! The program as a person runs it: `viaflux match` over small traces on a map drawn in characters. Every form of
//! input, every form of output, and every way to go wrong.
#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod scene;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use scene::{Town, draw};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Seconds since 1970 at which drives begin: 2026-03-09T06:30:00Z.
const START: i64 = scene::EPOCH / 1000;

/// A long road with a side road, and a road that nothing leads to.
fn town() -> Town {
    draw(
        "A-------------------B-------------------C
         |
         |                   D         E---------F",
        &["ABC name=High", "BD name=Side", "EF name=Island"],
        "",
    )
}

struct Bench {
    dir: TempDir,
    town: Town,
}

/// What a run left behind.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn geojson(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{}", self.stderr);
        let all: Value = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!(all["type"], "FeatureCollection");
        all["features"].as_array().unwrap().clone()
    }

    fn lines(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

impl Bench {
    fn new() -> Self {
        let (dir, town) = (tempfile::tempdir().unwrap(), town());
        town.network.save(dir.path().join("town.map")).unwrap();
        Self { dir, town }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Matches to the town's map, with `input` on standard input.
    fn run_with(&self, args: &[&str], input: &[u8]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_viaflux"));
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("VIAFLUX_")) {
            command.env_remove(name);
        }
        command
            .args(["match", "--map", &self.path("town.map")])
            .args(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that ends before it has read everything closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input);
        let out = child.wait_with_output().unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Run {
            code: out.status.code().unwrap_or(-1),
            stdout: text(&out.stdout),
            stderr: text(&out.stderr),
        }
    }

    fn run(&self, args: &[&str]) -> Run {
        self.run_with(args, b"")
    }

    fn refused(&self, args: &[&str], code: i32, says: &str) {
        let run = self.run(args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(
            run.stderr.contains(says),
            "{args:?} does not say `{says}`: {}",
            run.stderr
        );
        assert_eq!(run.stdout, "", "{args:?}");
    }

    /// A drive at 10 m/s with a point every 3 s: seconds since the start, latitude, longitude.
    fn drive(&self, road: &str) -> Vec<(i64, f64, f64)> {
        let road = self.town.road(road);
        let points = (0..).map(|k| (3 * k, 30.0 * k as f64 + 5.0));
        points
            .take_while(|(_, m)| *m < road.length())
            .map(|(s, m)| {
                let (lat, lon, _) = road.place(m);
                (s, lat + 2e-5, lon)
            })
            .collect()
    }
}

fn rfc3339(s: i64) -> String {
    viaflux::units::EventTime::from_ms((START + s) * 1000).to_string()
}

fn gpx(points: &[(i64, f64, f64)], times: bool) -> String {
    let mut text = "<?xml version=\"1.0\"?>\n<gpx><trk><name>ride</name><trkseg>\n".to_owned();
    for (s, lat, lon) in points {
        let time = if times {
            format!("<time>{}</time>", rfc3339(*s))
        } else {
            String::new()
        };
        text += &format!("<trkpt lat=\"{lat}\" lon=\"{lon}\">{time}</trkpt>\n");
    }
    text + "</trkseg></trk></gpx>\n"
}

fn csv(points: &[(i64, f64, f64)]) -> String {
    let rows = points
        .iter()
        .map(|(s, lat, lon)| format!("ride;{lat};{lon};{}\n", START + s));
    "TrackID;Latitude;Longitude;Time\n".to_owned() + &rows.collect::<String>()
}

fn probes(points: &[(i64, f64, f64)]) -> String {
    points
        .iter()
        .map(|(s, lat, lon)| {
            json!({"vehicle_id": "ride", "event_time": rfc3339(*s), "lat": lat, "lon": lon}).to_string()
                + "\n"
        })
        .collect()
}

/// Where the points were put, in order.
fn segments(lines: &[Value]) -> Vec<(Value, Value, Value)> {
    lines
        .iter()
        .map(|l| {
            (
                l["vehicle_id"].clone(),
                l["segment_id"].clone(),
                l["offset_m"].clone(),
            )
        })
        .collect()
}

#[test]
fn a_ride_becomes_a_line_along_the_streets() {
    let bench = Bench::new();
    let drive = bench.drive("ABD");
    let file = bench.file("ride.gpx", gpx(&drive, true));
    let run = bench.run(&[&file]);
    let features = run.geojson();
    assert_eq!(features.len(), 1);
    let about = &features[0]["properties"];
    assert_eq!(
        (
            &about["vehicle_id"],
            &about["points"],
            &about["located"],
            &about["off_road"]
        ),
        (
            &json!("ride"),
            &json!(drive.len()),
            &json!(drive.len()),
            &json!(0)
        )
    );
    assert_eq!(about["breaks"], json!({"silence": 0, "off_road": 0, "no_way": 0}));
    assert_eq!(about["start_time"], json!(rfc3339(0)));
    let length = about["length_m"].as_f64().unwrap();
    let driven = 30.0 * (drive.len() - 1) as f64;
    assert!(
        (length - driven).abs() < 15.0,
        "{length} m along the streets, {driven} m driven"
    );
    assert!(about["mean_posterior"].as_f64().unwrap() > 0.9);
    let geometry = &features[0]["geometry"];
    assert_eq!(geometry["type"], "LineString");
    let (corner_lat, corner_lon, _) = bench.town.road("BD").place(0.0);
    let near = |c: &Value| {
        (c[0].as_f64().unwrap() - corner_lon).abs() < 2e-7
            && (c[1].as_f64().unwrap() - corner_lat).abs() < 2e-7
    };
    let line = geometry["coordinates"].as_array().unwrap();
    assert_eq!(
        line.iter().filter(|c| near(c)).count(),
        1,
        "the line turns where the streets meet: {line:?}"
    );
    assert!(line.windows(2).all(|w| w[0] != w[1]));
    assert!(
        run.stderr.contains("points in 1 tracks (0 refused)"),
        "{}",
        run.stderr
    );
}

#[test]
fn all_forms_of_input_give_the_same_places() {
    let bench = Bench::new();
    let drive = bench.drive("ABD");
    let pts: Vec<Value> = drive
        .iter()
        .map(|(s, lat, lon)| json!([lon, lat, START + s]))
        .collect();
    let csv = csv(&drive);
    let mut gz = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut gz, flate2::Compression::fast());
    encoder.write_all(csv.as_bytes()).unwrap();
    encoder.finish().unwrap();
    let columns = csv.replace("TrackID", "who").replace("Latitude", "y");
    let config = bench.file(
        "c.toml",
        "[[source]]\nid = \"mine\"\nkind = \"file\"\npath = \"x.csv\"\nformat = \"csv\"\nseparator = \";\"\n\
         [source.fields]\nvehicle_id = \"who\"\nlat = \"y\"\nlon = \"Longitude\"\n\
         event_time = { path = \"Time\", unit = \"s\" }\n",
    );
    let traccar: String = drive
        .iter()
        .map(|(s, lat, lon)| {
            let position = json!({"fixTime": rfc3339(*s), "latitude": lat, "longitude": lon, "valid": true});
            json!({"device": {"uniqueId": "ride"}, "position": position}).to_string() + "\n"
        })
        .collect();
    let simulated: String = drive
        .iter()
        .map(|(s, lat, lon)| {
            json!({"vehicle_id": "ride", "ts": (START + s) * 1000, "lat": lat, "lon": lon, "speed_mps": null})
                .to_string()
                + "\n"
        })
        .collect();
    let inputs: [(&str, Vec<u8>, Vec<&str>); 9] = [
        ("a.gpx", gpx(&drive, true).into_bytes(), vec![]),
        ("b.csv", csv.clone().into_bytes(), vec![]),
        ("b.gz", gz, vec![]),
        (
            "c.ndjson.zst",
            zstd::encode_all(probes(&drive).as_bytes(), 1).unwrap(),
            vec![],
        ),
        (
            "d.ndjson",
            json!({"id": "ride", "pts": pts}).to_string().into_bytes(),
            vec![],
        ),
        (
            "e.ndjson",
            probes(&drive).into_bytes(),
            vec!["--preset", "viaflux"],
        ),
        ("f.ndjson", simulated.into_bytes(), vec![]),
        ("g.ndjson", traccar.into_bytes(), vec!["--preset", "traccar"]),
        (
            "h.csv",
            columns.into_bytes(),
            vec!["-c", &config, "--source", "mine"],
        ),
    ];
    let mut first = None;
    for (name, content, more) in inputs {
        let file = bench.file(name, &content);
        let mut args = vec![file.as_str(), "--format", "ndjson"];
        args.extend(&more);
        let lines = bench.run(&args).lines();
        assert_eq!(lines.len(), drive.len(), "{name}");
        let found = segments(&lines);
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{name}");
        args[0] = "-";
        assert_eq!(
            segments(&bench.run_with(&args, &content).lines()),
            found,
            "{name} on standard input"
        );
    }
    let places = first.unwrap();
    let side = bench.town.key("B>D").to_string();
    assert_eq!(places.last().unwrap().1, json!(side));
}

#[test]
fn a_bend_is_drawn_as_it_lies_either_way() {
    // One way with a bend at B, where nothing joins it.
    let dir = tempfile::tempdir().unwrap();
    let town = draw(
        "A-------------------B
                              |
                              |
                              |                   D--C
                              E",
        &["ABE name=Bend", "DC"],
        "",
    );
    town.network.save(dir.path().join("town.map")).unwrap();
    let bench = Bench { dir, town };
    let line = |road: &str| -> Vec<Value> {
        let file = bench.file("ride.csv", csv(&bench.drive(road)));
        let features = bench.run(&[&file]).geojson();
        let geometry = &features[0]["geometry"];
        assert_eq!(geometry["type"], "LineString", "{road}");
        geometry["coordinates"].as_array().unwrap().clone()
    };
    let (lat, lon, _) = bench.town.road("AB").place(bench.town.road("AB").length());
    for road in ["ABE", "EBA"] {
        let line = line(road);
        let at_bend = |c: &Value| {
            (c[0].as_f64().unwrap() - lon).abs() < 2e-7 && (c[1].as_f64().unwrap() - lat).abs() < 2e-7
        };
        let k = line.iter().position(at_bend).unwrap();
        assert!(0 < k && k + 1 < line.len(), "{road}: {line:?}");
        // Each position is farther along the drive than the one before.
        let east = |c: &Value| c[0].as_f64().unwrap();
        let before: Vec<f64> = line[..=k].iter().map(east).collect();
        let rising = if road == "ABE" {
            before.is_sorted()
        } else {
            line[k..].iter().map(east).is_sorted_by(|a, b| a >= b)
        };
        assert!(rising, "{road}: {line:?}");
    }
}

#[test]
fn a_point_tells_where_it_was_put() {
    let bench = Bench::new();
    let file = bench.file("ride.csv", csv(&bench.drive("ABC")));
    let lines = bench.run(&[&file, "--format", "ndjson"]).lines();
    let line = &lines[3];
    assert_eq!((&line["line"], &line["point"]), (&json!(5), &json!(4)));
    assert_eq!(line["event_time"], json!(rfc3339(9)));
    assert_eq!(
        (&line["way_id"], &line["forward"], &line["name"]),
        (&json!(1), &json!(true), &json!("High"))
    );
    let number = |key: &str| line[key].as_f64().unwrap();
    assert!((number("offset_m") - 95.0).abs() < 3.0, "{line}");
    assert!((number("distance_m") - 2.2).abs() < 1.0, "{line}");
    assert!((number("driven_m") - 30.0).abs() < 3.0, "{line}");
    assert!((number("lat") - 34.0).abs() < 2e-6, "on the road: {line}");
    assert_eq!(
        (
            lines[0]["driven_m"].clone(),
            line.get("reason"),
            line.get("break")
        ),
        (Value::Null, None, None)
    );
}

#[test]
fn ways_break_where_the_road_is_left_and_in_silence() {
    let bench = Bench::new();
    let mut drive = bench.drive("ABC");
    // A visit to a field 300 m north, and later a pause of ten minutes.
    for point in &mut drive[20..30] {
        point.1 += 300.0 / 110_922.4;
    }
    for point in &mut drive[45..] {
        point.0 += 600;
    }
    let file = bench.file("ride.csv", csv(&drive));
    let features = bench.run(&[&file, "--points"]).geojson();
    let about = &features[0]["properties"];
    assert_eq!(features.len(), 1 + drive.len());
    assert_eq!(features[0]["geometry"]["type"], "MultiLineString");
    assert_eq!(
        features[0]["geometry"]["coordinates"].as_array().unwrap().len(),
        3
    );
    assert_eq!(about["breaks"], json!({"silence": 1, "off_road": 1, "no_way": 0}));
    let n = |key: &str| about[key].as_u64().unwrap();
    assert_eq!(
        n("located") + n("off_road") + n("no_way"),
        drive.len() as u64,
        "{about}"
    );
    assert!((7..=10).contains(&n("off_road")), "{about}");
    let field = &features[1 + 25];
    assert_eq!(
        (&field["properties"]["reason"], &field["properties"]["segment_id"]),
        (&json!("off_road"), &Value::Null)
    );
    assert!(
        (field["geometry"]["coordinates"][1].as_f64().unwrap() - drive[25].1).abs() < 1e-6,
        "where it was reported"
    );
    let breaks: Vec<&str> = features
        .iter()
        .filter_map(|f| f["properties"]["break"].as_str())
        .collect();
    assert_eq!(breaks, ["off_road", "silence"]);
}

#[test]
fn no_way_leads_to_the_island() {
    let bench = Bench::new();
    let mut drive = bench.drive("ABC");
    drive.truncate(30);
    let begin = drive.last().unwrap().0 + 30;
    drive.extend(
        bench
            .drive("EF")
            .into_iter()
            .map(|(s, lat, lon)| (begin + s, lat, lon)),
    );
    let file = bench.file("ride.csv", csv(&drive));
    let features = bench.run(&[&file]).geojson();
    let about = &features[0]["properties"];
    assert!(about["breaks"]["no_way"].as_u64().unwrap() >= 1, "{about}");
    assert_eq!(features[0]["geometry"]["type"], "MultiLineString");
}

#[test]
fn several_vehicles_in_any_order() {
    let bench = Bench::new();
    let (a, b) = (bench.drive("ABC"), bench.drive("DBA"));
    let mut rows = Vec::new();
    for (id, drive) in [("a", &a), ("b", &b)] {
        rows.extend(
            drive
                .iter()
                .map(|(s, lat, lon)| format!("{id},{lat},{lon},{}", rfc3339(*s))),
        );
    }
    let sorted = format!("vehicle_id,lat,lon,timestamp\n{}\n", rows.join("\n"));
    rows.sort_by_key(|r| blake3::hash(r.as_bytes()).to_hex().to_string());
    let mixed = format!("vehicle_id,lat,lon,timestamp\n{}\n", rows.join("\n"));
    let [sorted, mixed] = [("s.csv", sorted), ("m.csv", mixed)].map(|(n, t)| bench.file(n, t));
    let of = |run: &Run| {
        let mut lines = segments(&run.lines());
        lines.sort_by_key(|l| l.0.to_string());
        lines
    };
    let [plain, shaken] = [&sorted, &mixed].map(|f| bench.run(&[f, "--format", "ndjson"]));
    assert_eq!(of(&plain), of(&shaken));
    assert!(
        !plain.stderr.contains("order of time") && shaken.stderr.contains("order of time"),
        "{}",
        shaken.stderr
    );
    assert_eq!(plain.lines().len(), a.len() + b.len());
    let one = bench.run(&[&mixed, "--threads", "1", "--points"]);
    let four = bench.run(&[&mixed, "--threads", "4", "--points"]);
    assert_eq!(one.stdout, four.stdout, "the same bytes whatever the threads");
    assert_eq!(
        one.geojson()
            .iter()
            .filter(|f| f["properties"]["points"].is_number())
            .count(),
        2
    );
}

#[test]
fn times_that_are_missing_are_assumed_and_told() {
    let bench = Bench::new();
    let drive = bench.drive("ABD");
    let [timed, bare] = [("t.gpx", true), ("n.gpx", false)].map(|(n, t)| bench.file(n, gpx(&drive, t)));
    let [timed, bare] = [&timed, &bare].map(|f| bench.run(&[f, "--format", "ndjson"]));
    let ids = |run: &Run| -> Vec<Value> { run.lines().iter().map(|l| l["segment_id"].clone()).collect() };
    assert_eq!(ids(&timed), ids(&bare));
    assert!(
        bare.stderr
            .contains(&format!("{} points have no time", drive.len())),
        "{}",
        bare.stderr
    );
    assert!(!timed.stderr.contains("no time"), "{}", timed.stderr);
    assert!(
        bare.lines().iter().all(|l| l["event_time"].is_null()),
        "what is not known is null"
    );
}

#[test]
fn points_that_cannot_be_used_are_counted_and_told() {
    let bench = Bench::new();
    let text = csv(&bench.drive("ABC")) + "ride;north;108;5\nride;0;0;5\nride;34;108;noon\n";
    let file = bench.file("ride.csv", text);
    let run = bench.run(&[&file, "--json", "-o", &bench.path("out.ndjson")]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr.contains("3 points cannot be used") && run.stderr.contains("`north` is no number"),
        "{}",
        run.stderr
    );
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let n = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((n("tracks"), n("refused"), n("assumed_times")), (1, 3, 0));
    assert_eq!(n("points"), n("located") + n("off_road") + n("no_way"));
    let out = fs::read_to_string(bench.path("out.ndjson")).unwrap();
    assert_eq!(
        out.lines().count() as u64,
        n("points"),
        "the name of the output tells its form"
    );
    assert!(report["length_m"].as_f64().unwrap() > 1_000.0);
    // A file that was cut short while it was written.
    let text = gpx(&bench.drive("ABC"), true);
    let cut = bench.run(&[&bench.file("cut.gpx", &text[..text.len() / 2])]);
    assert_eq!(cut.code, 0, "{}", cut.stderr);
    assert!(cut.stderr.contains("cut short"), "{}", cut.stderr);
}

#[test]
fn output_is_packed_by_its_name_and_the_report_stays_apart() {
    let bench = Bench::new();
    let file = bench.file("ride.csv", csv(&bench.drive("ABC")));
    let plain = bench.run(&[&file, "--format", "ndjson", "--json"]);
    let report: Value = serde_json::from_str(&plain.stderr).unwrap();
    assert_eq!(report["points"], json!(plain.lines().len()));
    let out = bench.path("out.ndjson.zst");
    assert_eq!(bench.run(&[&file, "-o", &out, "-q"]).stderr, "");
    let unpacked = zstd::decode_all(&fs::read(&out).unwrap()[..]).unwrap();
    assert_eq!(String::from_utf8(unpacked).unwrap(), plain.stdout);
}

#[test]
fn the_configuration_tunes_the_matcher() {
    let bench = Bench::new();
    let drive: Vec<_> = bench
        .drive("ABC")
        .into_iter()
        .take(30)
        .map(|(s, lat, lon)| (s, lat - 45.0 / 110_922.4, lon))
        .collect();
    let file = bench.file("ride.csv", csv(&drive));
    let config = bench.file("c.toml", "[locate]\nradius_m = 20\noffroad_m = 20\n");
    let off = |more: &[&str]| {
        let features = bench.run(&[&[file.as_str()], more].concat()).geojson();
        features[0]["properties"]["off_road"].as_u64().unwrap()
    };
    assert_eq!(
        (off(&[]), off(&["-c", &config])),
        (0, drive.len() as u64),
        "43 m beside the road"
    );
}

#[test]
fn what_cannot_be_matched_is_told() {
    let bench = Bench::new();
    let ride = bench.file("ride.csv", csv(&bench.drive("ABC")));
    for (name, text, says) in [
        ("empty.gpx", "", "the file is empty"),
        ("blank.csv", " \n\n", "the file is empty"),
        ("none.gpx", "<gpx></gpx>", "holds no track"),
        (
            "bare.gpx",
            "<gpx><trk><trkseg/></trk></gpx>",
            "no points in its 1 track",
        ),
        (
            "wpt.gpx",
            "<gpx><wpt lat='34' lon='108'/></gpx>",
            "1 waypoints and no track",
        ),
        ("map.osm", "<osm></osm>", "the root element is <osm>, not <gpx>"),
        ("odd.gpx", "<gpx>\n<trk></gpx></gpx>\n<a/>", "odd.gpx: line 2"),
        (
            "bare.csv",
            "1,2008-02-02 15:36:08,108.0,34.0\n",
            "names no column of the latitude",
        ),
        ("head.csv", "lat,lon\n", "holds no points"),
        (
            "bad.csv",
            "lat,lon\nx,108\ny,108\n",
            "none of its 2 points can be used; the first stands on line 2: `x`",
        ),
        ("bad.ndjson", "{\"lat\":34}\n", "line 1: there is no longitude"),
        ("cut.ndjson", "{\"lat\":34", "line 1: not one JSON value"),
        (
            "far.csv",
            "lat,lon\n52.5,13.4\n",
            "the traces span lat 52.5 to 52.5",
        ),
    ] {
        bench.refused(&[&bench.file(name, text)], 1, says);
    }
    bench.refused(&[&bench.path("nowhere.gpx")], 1, "nowhere.gpx");
    bench.refused(&[&ride, "--preset", "nope"], 2, "--preset: ");
    bench.refused(&[&ride, "--preset", "viaflux"], 1, "no column `vehicle_id`");
    bench.refused(&[&ride, "--source", "nope"], 2, "no source of probes `nope`");
    bench.refused(
        &[&ride, "--preset", "viaflux", "--separator", "a"],
        2,
        "--separator: ",
    );
    bench.refused(&[&ride, "--format", "ndjson", "--points"], 2, "--points");
    bench.refused(&[&ride, "--format", "kml"], 2, "kml");
    bench.refused(&[], 2, "FILE");
    let gpx = bench.file("ride.gpx", gpx(&bench.drive("ABC"), true));
    bench.refused(&[&gpx, "--preset", "viaflux"], 1, "GPX needs no mapping");
    let config = bench.file("bad.toml", "[locate]\nradius = 20\n");
    bench.refused(&[&ride, "-c", &config], 78, "radius");
    bench.refused(&[&ride, "-o", &bench.path("no/such/folder")], 1, "no/such/folder");
    fs::remove_file(bench.path("town.map")).unwrap();
    bench.refused(&[&ride], 1, "town.map");
}
