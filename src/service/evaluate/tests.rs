//! A truth and a run made by hand, small enough to count on the fingers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::network::osm::{OsmData, OsmNode, OsmWay};
use crate::network::{BuildSettings, Network, SegmentFlags};
use crate::units::EventTime;

use super::*;

/// 2026-03-09T06:30:00Z
const BEGIN: i64 = 1_773_037_800_000;

/// Two-way road: way 10 from node 1 to 2, way 11 from 2 to 3, each 333.6 m northward; way 12 leads off at 2.
fn network() -> Network {
    let node = |lat: f64, lon: f64| OsmNode {
        lat,
        lon,
        tags: BTreeMap::new(),
    };
    let way = |id: i64, nodes: &[i64]| OsmWay {
        id,
        nodes: nodes.to_vec(),
        tags: [("highway", "primary"), ("maxspeed", "50")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
    };
    let osm = OsmData {
        nodes: [
            (1, node(49.0, 8.0)),
            (2, node(49.003, 8.0)),
            (3, node(49.006, 8.0)),
            (4, node(49.003, 8.004)),
        ]
        .into(),
        ways: vec![way(10, &[1, 2]), way(11, &[2, 3]), way(12, &[2, 4])],
        restrictions: Vec::new(),
    };
    Network::build(&osm, &BuildSettings::default()).0
}

fn segment_id(network: &Network, way: i64, forward: bool) -> String {
    let found: Vec<String> = network
        .segments()
        .iter()
        .filter(|s| s.key.way == way && s.flags.has(SegmentFlags::BACKWARD) != forward)
        .map(|s| s.key.to_string())
        .collect();
    assert_eq!(found.len(), 1, "way {way}");
    found[0].clone()
}

struct Folders {
    _root: tempfile::TempDir,
    args: RunArgs,
    network: Network,
}

impl Folders {
    /// Truth: edge A (way 10) flows at 10 m/s, B (way 11) is congested at 2 m/s, R (A's other direction) is free,
    /// X is on a way that the map lacks.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let args = RunArgs {
            run: root.path().join("run"),
            truth: root.path().join("truth"),
            map: None,
        };
        for folder in [&args.run, &args.truth] {
            std::fs::create_dir(folder).unwrap();
        }
        let folders = Self {
            _root: root,
            args,
            network: network(),
        };
        folders.truth();
        folders
    }

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::write(folder.join(name), text).unwrap();
    }

    fn truth(&self) {
        let edge = |id: &str, way: i64, dir: &str, lats: [f64; 2], lon: f64| {
            format!(
                r#"{{"edge":"{id}","way":{way},"way_dir":"{dir}","length_m":333.6,"free_mps":12.0,"geometry":[[{lon},{}],[{lon},{}]]}}"#,
                lats[0], lats[1]
            ) + "\n"
        };
        let edges = edge("A", 10, "forward", [49.0, 49.003], 8.00002)
            + &edge("R", 10, "backward", [49.003, 49.0], 8.0)
            + &edge("B", 11, "forward", [49.003, 49.006], 8.0)
            + &edge("X", 99, "forward", [49.1, 49.103], 8.0);
        Self::write(&self.args.truth, "edges.ndjson", &edges);

        let mut minutes = String::new();
        for k in 0..6 {
            let ts = BEGIN + k * 60_000;
            for (edge, seconds, speed, congested) in [
                ("A", 60.0, 10.0, false),
                ("B", 120.0, 2.0, true),
                ("R", 30.0, 11.0, false),
                ("X", 60.0, 1.0, true),
            ] {
                writeln!(
                    minutes,
                    r#"{{"edge":"{edge}","way":1,"ts":{ts},"vehicle_seconds":{seconds},"mean_vehicles":1.0,"speed_mps":{speed},"congested":{congested}}}"#
                )
                .unwrap();
            }
        }
        // Compressed, as data sets are.
        let packed = zstd::encode_all(minutes.as_bytes(), 1).unwrap();
        std::fs::write(self.args.truth.join("truth-edges.ndjson.zst"), packed).unwrap();
    }

    fn score(&self) -> Report {
        score(&self.args, &self.network).unwrap_or_else(|e| panic!("{e:#}"))
    }

    fn states(&self, speed_kph: &[(i64, bool, f64)]) {
        let mut text = String::new();
        for k in 1..=6 {
            // Two panes a minute; the one at the minute's end counts.
            for (half, factor) in [(-30_000, 3.0), (0, 1.0)] {
                let end = EventTime::from_ms(BEGIN + k * 60_000 + half);
                for (way, forward, kph) in speed_kph {
                    let id = segment_id(&self.network, *way, *forward);
                    writeln!(
                        text,
                        r#"{{"segment_id":"{id}","window_end":"{end}","current_speed_kph":{},"free_flow_speed_kph":50.0,"basis":"live"}}"#,
                        kph * factor
                    )
                    .unwrap();
                }
                // What is provisional is no result.
                let id = segment_id(&self.network, 10, true);
                writeln!(
                    text,
                    r#"{{"segment_id":"{id}","window_end":"{end}","current_speed_kph":1.0,"free_flow_speed_kph":50.0,"basis":"live","provisional":true}}"#
                )
                .unwrap();
            }
        }
        Self::write(&self.args.run, "segment-states.ndjson", &text);
    }
}

#[test]
fn edges_find_their_segments_by_way_and_direction() {
    let folders = Folders::new();
    let truth = Truth::read(&folders.args.truth).unwrap();
    let cover = Cover::new(&folders.network, &truth.edges);
    let report = cover.report(&truth.edges);
    assert_eq!((report.edges, report.covered), (4, 3));
    assert_eq!(report.uncovered_ratio, Some(0.25));
    for (edge, way, forward) in [(0, 10, true), (1, 10, false), (2, 11, true)] {
        let parts = &cover.segments[edge];
        assert_eq!(parts.len(), 1);
        assert_eq!(cover.way(parts[0].0), (way, forward));
        assert!((parts[0].1 - 333.6).abs() < 2.0, "{parts:?}");
    }
}

#[test]
fn an_edge_mostly_beside_its_way_is_not_covered() {
    let folders = Folders::new();
    // From the middle of way 10 on the edge runs 100 m to the east.
    let bent = r#"{"edge":"C","way":10,"way_dir":"forward","length_m":333.6,"free_mps":12.0,"geometry":[[8.0,49.0],[8.0,49.0015],[8.0014,49.0015],[8.0014,49.003]]}"#;
    Folders::write(&folders.args.truth, "edges.ndjson", bent);
    let mut truth = Truth::default();
    std::fs::remove_file(folders.args.truth.join("truth-edges.ndjson.zst")).unwrap();
    truth
        .edges
        .extend(Truth::read(&folders.args.truth).unwrap().edges);
    let cover = Cover::new(&folders.network, &truth.edges);
    assert!(!cover.has(0));
}

#[test]
fn points_are_scored_by_way_and_direction() {
    let folders = Folders::new();
    let mut points = String::new();
    let mut add = |line: u32, kind: &str, vehicle: &str, second: i64, place: &str| {
        let ts = BEGIN + second * 1000;
        writeln!(
            points,
            r#"{{"line":{line},"kind":"{kind}","vehicle_id":"{vehicle}","ts":{ts},{place}}}"#
        )
        .unwrap();
    };
    add(1, "ok", "a", 0, r#""edge":"A","way":10"#);
    add(2, "ok", "a", 5, r#""edge":"A","way":10"#);
    add(3, "ok", "a", 10, r#""edge":"A","way":10"#);
    add(4, "ok", "a", 15, r#""edge":"A","way":10"#);
    add(
        5,
        "ok",
        "a",
        20,
        r#""edge":null,"way":null,"prev_edge":"A","next_edge":"B""#,
    );
    add(6, "late", "a", 25, r#""edge":"B","way":11"#);
    add(7, "late", "a", 30, r#""edge":"B","way":11"#);
    add(8, "outlier", "a", 35, r#""edge":"B","way":11"#);
    add(9, "corrupt:not_json", "a", 40, r#""edge":"B","way":11"#);
    add(10, "ok", "moved", 100, r#""edge":"B","way":11"#);
    add(11, "ok", "moved", 130, r#""edge":"B","way":11"#);
    Folders::write(&folders.args.truth, "truth-points.ndjson", &points);
    let teleport = format!(
        r#"{{"type":"teleport","vehicle_id":"moved","begin":{0},"end":{0},"to_edge":"B"}}"#,
        BEGIN + 100_000
    );
    Folders::write(&folders.args.truth, "truth-events.ndjson", &teleport);
    let matches = [
        r#"{"line":2,"way_id":10,"forward":false}"#, // right way, wrong direction
        r#"{"line":1,"way_id":10,"forward":true}"#,  // right; lines come in any order
        r#"{"line":3,"way_id":null,"forward":null,"reason":"off_road"}"#,
        // line 4 was not accepted
        r#"{"line":5,"way_id":11,"forward":true}"#, // the edge behind the junction
        r#"{"line":6,"way_id":11,"forward":true}"#,
        r#"{"line":8,"way_id":10,"forward":true}"#,
        r#"{"line":11,"way_id":11,"forward":true}"#,
    ];
    Folders::write(&folders.args.run, "matches.ndjson", &matches.join("\n"));

    let report = folders.score().points.unwrap();
    let t = &report.strict;
    assert_eq!(
        (t.points, t.accepted, t.located, t.on_way, t.correct),
        (5, 4, 3, 3, 2)
    );
    assert_eq!(t.correct_ratio, Some(0.4));
    assert_eq!((report.junction.points, report.junction.correct), (1, 1));
    assert_eq!((report.late.points, report.late.correct), (1, 1));
    assert_eq!((report.outlier.points, report.outlier.correct), (1, 0));
    assert_eq!(report.teleported, 1);
}

#[test]
fn points_are_told_by_interval_distance_and_posterior() {
    let folders = Folders::new();
    let (mut points, mut matches) = (String::new(), String::new());
    let mut add = |line: i64, vehicle: &str, second: i64, lat: f64, forward: bool, posterior: f64| {
        let ts = BEGIN + second * 1000;
        writeln!(
            points,
            r#"{{"line":{line},"kind":"ok","vehicle_id":"{vehicle}","ts":{ts},"edge":"A","way":10,"lon":8.0,"lat":{lat}}}"#
        )
        .unwrap();
        writeln!(
            matches,
            r#"{{"line":{line},"way_id":10,"forward":{forward},"posterior":{posterior}}}"#
        )
        .unwrap();
    };
    // Every 5 s: 0.001 degrees of latitude are 111.2 m; a step of three times that is wrong.
    add(1, "often", 0, 49.000, true, 0.95);
    add(2, "often", 5, 49.001, true, 0.95);
    add(3, "often", 20, 49.004, false, 0.65);
    add(4, "often", 25, 49.005, true, 1.0);
    // Every 30 s, and once 9 km in 30 s, which is no drive.
    add(5, "seldom", 0, 49.000, true, 0.92);
    add(6, "seldom", 30, 49.001, false, 0.98);
    add(7, "seldom", 60, 49.081, true, 0.98);
    // Who speaks once has no interval.
    add(8, "once", 0, 49.000, true, 1.0);
    Folders::write(&folders.args.truth, "truth-points.ndjson", &points);
    Folders::write(&folders.args.run, "matches.ndjson", &matches);
    Folders::write(
        &folders.args.run,
        "summary.json",
        r#"{"records":{"read":8,"used":8,"rejected":{}},"located":{"broken_steps":3}}"#,
    );

    let report = folders.score().points.unwrap();
    assert_eq!((report.strict.points, report.breaks), (8, Some(3)));
    let [often, seldom] = &report.intervals[..] else {
        panic!("{:?}", report.intervals)
    };
    assert_eq!(
        (often.interval_s, often.points.points, often.points.correct),
        (5, 4, 3)
    );
    assert!((often.driven_m - 5.0 * 111.2).abs() < 1.0, "{}", often.driven_m);
    assert!((often.recall.unwrap() - 0.4).abs() < 1e-3);
    assert_eq!(often.recall, often.precision);
    assert_eq!(
        (seldom.interval_s, seldom.points.points, seldom.points.correct),
        (30, 3, 2)
    );
    assert!((seldom.driven_m - 111.2).abs() < 1.0, "{}", seldom.driven_m);
    assert_eq!(seldom.recall, Some(0.0));
    let sure = |i: &points::IntervalReport| i.reliability.as_ref().unwrap().sure;
    assert_eq!((sure(often).n, sure(often).right_ratio), (3, Some(1.0)));
    assert_eq!((sure(seldom).n, sure(seldom).right_ratio), (3, Some(2.0 / 3.0)));
    assert_eq!(report.reliability.unwrap().bins[1].n, 1, "0.65");
}

#[test]
fn a_truth_that_knows_ways_only_is_scored_by_way() {
    let folders = Folders::new();
    for file in ["edges.ndjson", "truth-edges.ndjson.zst"] {
        std::fs::remove_file(folders.args.truth.join(file)).unwrap();
    }
    let points = "{\"line\":1,\"vehicle_id\":\"a\",\"ts\":0,\"way\":10}\n{\"line\":2,\"vehicle_id\":\"a\",\"ts\":1,\"way\":11}\n";
    Folders::write(&folders.args.truth, "truth-points.ndjson", points);
    let matches =
        "{\"line\":1,\"way_id\":10,\"forward\":false}\n{\"line\":2,\"way_id\":10,\"forward\":false}\n";
    Folders::write(&folders.args.run, "matches.ndjson", matches);
    let report = folders.score();
    let way = &report.points.unwrap().way_known;
    assert_eq!((way.points, way.correct), (2, 1));
    assert!(report.cover.is_none() && report.speeds.is_none());
}

#[test]
fn speeds_and_congestion() {
    let folders = Folders::new();
    // A is said 10 % too fast (11 m/s), B rightly slow (2 m/s), R wrongly slow (5 m/s).
    folders.states(&[(10, true, 39.6), (11, true, 7.2), (10, false, 18.0)]);
    // Five probes pass A within five minutes, one a minute.
    let mut points = String::new();
    for k in 0..6_i64 {
        writeln!(
            points,
            r#"{{"line":{},"kind":"ok","vehicle_id":"v{k}","ts":{},"edge":"A","way":10}}"#,
            k + 1,
            BEGIN + k * 60_000 + 1000
        )
        .unwrap();
    }
    Folders::write(&folders.args.truth, "truth-points.ndjson", &points);
    let report = folders.score();

    let speeds = report.speeds.unwrap();
    // Four edges, six minutes; X has no cover.
    assert_eq!((speeds.edge_minutes, speeds.estimated_ratio), (24, Some(0.75)));
    let of = |window, selection| {
        speeds
            .errors
            .iter()
            .find(|e| e.window_min == window && e.selection == selection)
            .unwrap()
    };
    let all = of(1, "all");
    assert_eq!(all.n, 18);
    // A is off by +1 m/s, B right, R by −6 m/s of 11.
    let near = |value: Option<f64>, expected: f64| {
        assert!((value.unwrap() - expected).abs() < 0.02, "{value:?} {expected}")
    };
    near(all.mape_percent, (10.0 + 0.0 + 100.0 * 6.0 / 11.0) / 3.0);
    near(all.mae_kph, 7.0 / 3.0 * 3.6);
    near(all.bias_kph, -5.0 / 3.0 * 3.6);
    // A five-minute truth exists at the ends of minutes 5 and 6 only.
    assert_eq!(of(5, "all").n, 6);
    let observed = of(5, "observed");
    assert_eq!(observed.n, 2);
    near(observed.mape_percent, 10.0);

    let congestion = report.congestion.unwrap();
    let of = |selection, free_speed| {
        let s = congestion
            .scores
            .iter()
            .find(|s| s.selection == selection && s.free_speed == free_speed)
            .unwrap();
        (s.hits, s.false_alarms, s.misses)
    };
    // R is not busy (30 s a minute), so its false alarm counts in `all` alone.
    assert_eq!(of("busy", "truth"), (6, 0, 0));
    assert_eq!(of("all", "truth"), (6, 6, 0));
    assert_eq!(congestion.uncovered_congested, 6);
    // True levels: A heavy (0.83), B queuing (0.17), R free (0.92); said: free (0.92), queuing, slow (0.42). Each
    // has 60 s of traffic in the two five-minute windows.
    let c = congestion.levels.confusion;
    assert_eq!((c[3][4], c[1][1], c[4][2]), (2, 2, 2));
    assert_eq!(c.iter().flatten().sum::<u64>(), 6);
}

#[test]
fn a_miss_is_a_miss_also_where_nothing_is_said() {
    let folders = Folders::new();
    folders.states(&[(10, true, 36.0)]);
    let report = folders.score();
    let busy = &report.congestion.unwrap().scores[0];
    assert_eq!((busy.hits, busy.false_alarms, busy.misses), (0, 0, 6));
    assert_eq!((busy.precision, busy.recall), (None, Some(0.0)));
}

#[test]
fn standing_is_known_and_no_data_is_not() {
    let folders = Folders::new();
    folders.states(&[(11, true, 0.0)]);
    let busy = &folders.score().congestion.unwrap().scores[0];
    assert_eq!((busy.hits, busy.misses), (6, 0));
}

#[test]
fn incidents_and_faults() {
    let folders = Folders::new();
    let incident = |id: &str, way: i64, edge: &str, severity: &str, from: i64| {
        format!(
            r#"{{"type":"incident","id":"{id}","kind":"road_blocked","edge":"{edge}","way":{way},"way_dir":"forward","begin":{},"end":{},"effect":{{"severity":"{severity}"}}}}"#,
            BEGIN + from * 1000,
            BEGIN + from * 1000 + 120_000
        ) + "\n"
    };
    let fault = |sensor: &str| {
        format!(
            r#"{{"type":"sensor_fault","sensor_id":"{sensor}","kind":"stuck","begin":{BEGIN},"end":{}}}"#,
            BEGIN + 120_000
        ) + "\n"
    };
    let events = incident("one", 11, "B", "major", 60)
        + &incident("two", 10, "A", "major", 60)
        + &incident("three", 10, "A", "minor", 60)
        + &fault("S1")
        + &fault("S2");
    Folders::write(&folders.args.truth, "truth-events.ndjson", &events);
    // S1 counts in 12 of the 15 minutes before, S2 in 11; S3 has no fault.
    let mut counted = "not JSON\n".to_owned();
    for (sensor, minutes) in [("S1", 12), ("S2", 11), ("S3", 15), ("S4", 1)] {
        for minute in 0..15 {
            let count = u32::from(minute < minutes);
            let ts = BEGIN - 60_000 * minute;
            writeln!(counted, r#"{{"sensor_id":"{sensor}","ts":{ts},"count":{count}}}"#).unwrap();
        }
    }
    Folders::write(&folders.args.truth, "sensor.ndjson", &counted);
    let alert = |kind: &str, transition: &str, second: i64, way: i64, forward: bool, more: &str| {
        let id = segment_id(&folders.network, way, forward);
        format!(
            r#"{{"type":"{kind}","transition":"{transition}","updated_at":"{}","place":{{"segment_ids":["{id}"],"way_ids":[{way}]{more}}},"cause":"stuck"}}"#,
            EventTime::from_ms(BEGIN + second * 1000)
        ) + "\n"
    };
    let alerts = alert("congestion", "opened", 30, 11, true, "") // before the incident
        + &alert("congestion", "updated", 90, 11, true, "")
        + &alert("incident_suspected", "opened", 150, 11, true, "")
        + &alert("congestion", "opened", 100, 10, false, "") // the other direction: free, and no incident
        + &alert("incident_suspected", "opened", 1000, 10, true, "") // long after
        + &alert("sensor_fault", "opened", 90, 10, true, r#","sensor_id":"S2""#)
        + &alert("sensor_fault", "opened", 95, 10, true, r#","sensor_id":"S4""#);
    Folders::write(&folders.args.run, "alerts.ndjson", &alerts);

    let report = folders.score().alerts.unwrap();
    assert_eq!((report.major_found, report.major), (1, 2));
    let one = &report.incidents[0];
    assert_eq!(
        (one.found, one.by.as_deref(), one.delay_s),
        (true, Some("incident_suspected"), Some(90.0))
    );
    assert_eq!(one.on_edge, Some(true));
    assert!(!report.incidents[1].found && !report.incidents[2].found);
    let of = |kind: &str| {
        let o = report.openings.iter().find(|o| o.kind == kind).unwrap();
        (o.opened, o.supported, o.unsupported)
    };
    assert_eq!(of("congestion"), (2, Some(1), Some(1)));
    assert_eq!(of("incident_suspected"), (2, Some(1), Some(1)));
    assert_eq!(of("sensor_fault"), (2, Some(1), Some(1)));
    let found: Vec<bool> = report.sensor_faults.iter().map(|f| f.found).collect();
    assert_eq!(found, [false, true]);
    let judged: Vec<_> = report.sensor_faults.iter().map(|f| (f.busy, f.in_time)).collect();
    assert_eq!(judged, [(Some(true), false), (Some(false), true)]);
    assert_eq!(report.sensor_faults[1].cause.as_deref(), Some("stuck"));
    let healthy = &report.healthy_sensors;
    assert_eq!((healthy.sensors, healthy.flagged), (2, 1));
}

#[test]
fn rejections_against_defects() {
    let folders = Folders::new();
    let kinds: [(&str, u32); 5] = [
        ("ok", 10),
        ("corrupt:not_json", 4),
        ("duplicate", 5),
        ("outlier", 5),
        ("corrupt:null_island", 1),
    ];
    let mut points = String::new();
    let mut line = 0;
    for (kind, n) in kinds {
        for _ in 0..n {
            line += 1;
            writeln!(
                points,
                r#"{{"line":{line},"kind":"{kind}","vehicle_id":"a","ts":{BEGIN},"edge":"A","way":10}}"#
            )
            .unwrap();
        }
    }
    Folders::write(&folders.args.truth, "truth-points.ndjson", &points);
    let sensors = "{\"sensor_id\":\"S\",\"ts\":1}\n{\"sensor_id\":\"S\",\"ts\":1}\n{\"sens\n";
    Folders::write(&folders.args.truth, "sensor.ndjson", sensors);
    let summary = |decode: u32, late: u32, used: u32| {
        let text = format!(
            r#"{{"records":{{"read":28,"used":{used},"rejected":{{"decode":{decode},"null_island":1,"duplicate":4,"late":{late},"jump":4}}}}}}"#
        );
        Folders::write(&folders.args.run, "summary.json", &text);
        folders.score().rejections.unwrap()
    };
    let good = summary(5, 2, 12);
    assert!(good.adds_up && good.holds, "{good:?}");
    assert_eq!((good.read, good.expected_read), (28, 28));
    assert_eq!(good.others, [("late".to_owned(), 2)]);
    let decode = &good.reasons[0];
    assert_eq!(
        (decode.reason, decode.expected, decode.rejected),
        ("decode", 5, 5)
    );
    assert!(!summary(8, 2, 9).holds, "three more than the truth knows");
    assert!(!summary(5, 2, 11).adds_up);
}

#[test]
fn a_run_of_another_map_is_refused() {
    let folders = Folders::new();
    Folders::write(
        &folders.args.run,
        "summary.json",
        r#"{"map_version":"0000000000000000"}"#,
    );
    let e = score(&folders.args, &folders.network).unwrap_err().to_string();
    assert!(e.contains("0000000000000000") && e.contains("--map"), "{e}");
}

#[test]
fn nothing_in_common_is_an_error_that_says_what_lacks() {
    let folders = Folders::new();
    let e = score(&folders.args, &folders.network).unwrap_err().to_string();
    assert!(
        e.contains("matches.ndjson") && e.contains("segment-states.ndjson"),
        "{e}"
    );
}

#[test]
fn a_damaged_line_is_named() {
    let folders = Folders::new();
    Folders::write(
        &folders.args.run,
        "matches.ndjson",
        "{\"line\":1,\"way_id\":1,\"forward\":true}\n{\"li",
    );
    let e = format!("{:#}", score(&folders.args, &folders.network).unwrap_err());
    assert!(e.contains("matches.ndjson`, line 2"), "{e}");
}

#[test]
fn the_text_shows_every_part() {
    let folders = Folders::new();
    folders.states(&[(10, true, 39.6), (11, true, 7.2)]);
    let text = folders.score().to_string();
    for expected in [
        "3 of 4 covered",
        "Speed of edges",
        "busy, truth free speed",
        "weighted kappa",
        "Left out",
    ] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
}
