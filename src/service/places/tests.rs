use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::*;
use crate::network::osm::{OsmData, OsmNode, OsmWay};
use crate::network::router::{Path, Router};
use crate::network::{BuildSettings, SegmentFlags, SegmentIndex};

/// Degrees of about 220 m north and 290 m east.
const NORTH: f64 = 0.002;
const EAST: f64 = 0.004;
const COLUMNS: i64 = 5;
const ROWS: i64 = 4;

/// `[lon, lat]` of a place in the grid, in blocks east and north of its south-west corner.
fn at(column: f64, row: f64) -> [f64; 2] {
    [8.0 + column * EAST, 49.0 + row * NORTH]
}

fn node(column: i64, row: i64) -> i64 {
    1 + column + 10 * row
}

/// Four streets east-west (ways 1 to 4 from the south: primary, residential, secondary one-way to the east,
/// tertiary for buses only) and five north-south (ways 11 to 15, tertiary); node `1 + column + 10·row`. Way 90
/// lies apart, two blocks east of the rest.
fn grid() -> Network {
    let mut osm = OsmData::default();
    let mut add = |id: i64, column: f64, row: f64| {
        let [lon, lat] = at(column, row);
        osm.nodes.insert(
            id,
            OsmNode {
                lat,
                lon,
                tags: BTreeMap::new(),
            },
        );
    };
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            add(node(column, row), column as f64, row as f64);
        }
    }
    add(91, 6.0, 0.0);
    add(92, 7.0, 0.0);
    let mut way = |id, nodes: Vec<i64>, tags: &[(&str, &str)]| {
        let tags = tags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        osm.ways.push(OsmWay { id, nodes, tags });
    };
    let row = |row| (0..COLUMNS).map(|column| node(column, row)).collect::<Vec<_>>();
    way(1, row(0), &[("highway", "primary"), ("name", "South Street")]);
    way(2, row(1), &[("highway", "residential")]);
    way(3, row(2), &[("highway", "secondary"), ("oneway", "yes")]);
    way(
        4,
        row(3),
        &[("highway", "tertiary"), ("access", "no"), ("bus", "yes")],
    );
    for column in 0..COLUMNS {
        let nodes = (0..ROWS).map(|row| node(column, row)).collect();
        way(11 + column, nodes, &[("highway", "tertiary")]);
    }
    way(90, vec![91, 92], &[("highway", "primary")]);
    Network::build(&osm, &BuildSettings::default()).0
}

fn feature(properties: Value, kind: &str, coordinates: Value) -> Value {
    json!({
        "type": "Feature", "properties": properties,
        "geometry": { "type": kind, "coordinates": coordinates },
    })
}

fn line(id: &str, points: &[[f64; 2]]) -> Value {
    feature(json!({ "id": id }), "LineString", json!(points))
}

/// A closed ring around a box in blocks.
fn ring(west: f64, south: f64, east: f64, north: f64) -> Value {
    json!([
        at(west, south),
        at(east, south),
        at(east, north),
        at(west, north),
        at(west, south)
    ])
}

fn region(id: &str, rings: &[Value]) -> Value {
    feature(json!({ "id": id }), "Polygon", json!(rings))
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn collection(features: &[Value]) -> NamedTempFile {
    file(&json!({ "type": "FeatureCollection", "features": features }).to_string())
}

fn regions(network: &Network, features: &[Value]) -> Result<Places> {
    let file = collection(features);
    load(
        network,
        &config::Map {
            regions: Some(file.path().into()),
            ..config::Map::default()
        },
    )
}

fn corridors(network: &Network, features: &[Value]) -> Result<Places> {
    let file = collection(features);
    load(
        network,
        &config::Map {
            corridors: Some(file.path().into()),
            ..config::Map::default()
        },
    )
}

/// Whole chain of a fault, which must hold all of `parts`.
fn fault(result: Result<Places>, parts: &[&str]) {
    let text = format!("{:#}", result.expect_err(parts[0]));
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

fn keys(network: &Network, segments: &[SegmentIndex]) -> Vec<String> {
    segments
        .iter()
        .map(|&i| network.segment(i).key.to_string())
        .collect()
}

fn sorted_keys(network: &Network, segments: &[SegmentIndex]) -> Vec<String> {
    let mut keys = keys(network, segments);
    keys.sort();
    keys
}

/// Keys of the only corridor.
fn route(network: &Network, feature: Value) -> Vec<String> {
    let places = corridors(network, &[feature]).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(places.corridors.len(), 1);
    keys(network, &places.corridors[0].segments)
}

#[test]
fn without_files_the_city_is_one_region() {
    let network = grid();
    let places = load(&network, &config::Map::default()).unwrap();
    assert_eq!(places, Places::whole_city(&network));
    assert_eq!(places.regions[0].id, "city");
}

#[test]
fn a_region_has_the_evaluated_segments_whose_midpoint_is_inside() {
    let network = grid();
    // From the middle of the first block to beyond the second, around the two southern streets.
    let found = regions(&network, &[region("r", &[ring(0.6, -0.1, 2.4, 1.1)])]).unwrap();
    assert_eq!(
        sorted_keys(&network, &found.regions[0].segments),
        ["12:12:2", "12:2:12", "13:13:3", "13:3:13", "1:2:3", "1:3:2"],
        "the residential street 2 is inside, but not evaluated"
    );
    assert!(found.regions[0].segments.is_sorted());
    // The street for buses is in no region.
    let north = regions(&network, &[region("r", &[ring(-0.5, 2.6, 4.5, 3.5)])]);
    fault(
        north,
        &["feature 1 `r`", "no segment from tertiary up", "[8, 49] to ["],
    );
}

#[test]
fn holes_and_parts_count() {
    let network = grid();
    let hole = ring(1.2, -0.2, 1.8, 0.2);
    let with_hole = region("hole", &[ring(-0.5, -0.3, 4.5, 0.3), hole]);
    let parts = json!([[ring(0.2, -0.2, 0.8, 0.2)], [ring(2.2, -0.2, 2.8, 0.2)]]);
    let parts = feature(
        json!({ "region_id": 7, "name": "Two parts" }),
        "MultiPolygon",
        parts,
    );
    let found = regions(&network, &[with_hole, parts]).unwrap();
    let ids: Vec<&str> = found.regions.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["7", "hole"]);
    assert_eq!(
        sorted_keys(&network, &found.regions[0].segments),
        ["1:1:2", "1:2:1", "1:3:4", "1:4:3"]
    );
    assert_eq!(
        sorted_keys(&network, &found.regions[1].segments),
        ["1:1:2", "1:2:1", "1:3:4", "1:4:3", "1:4:5", "1:5:4"]
    );
}

#[test]
fn regions_side_by_side_share_nothing_and_miss_nothing() {
    let network = grid();
    let found = regions(
        &network,
        &[
            region("east", &[ring(1.7, -1.0, 9.0, 4.0)]),
            region("west", &[ring(-1.0, -1.0, 1.7, 4.0)]),
        ],
    )
    .unwrap();
    let mut all: Vec<SegmentIndex> = found.regions.iter().flat_map(|r| r.segments.clone()).collect();
    all.sort_unstable();
    assert_eq!(all, Places::whole_city(&network).regions[0].segments);
}

#[test]
fn faults_of_region_shapes_are_told() {
    let network = grid();
    let open = json!([at(0.0, 0.0), at(1.0, 0.0), at(1.0, 1.0), at(0.0, 1.0)]);
    fault(
        regions(&network, &[region("r", &[open])]),
        &["map.regions: ", "feature 1 `r`: ring 1", "not closed"],
    );
    fault(
        regions(
            &network,
            &[region("r", &[json!([[1e6, 6e6], [1, 1], [1, 2], [1, 1]])])],
        ),
        &[
            "ring 1: vertex 1: [1000000.0,6000000.0] is out of range",
            "EPSG:4326",
        ],
    );
    fault(
        regions(
            &network,
            &[region("r", &[json!([["8", 49], [8, 49], [8, 49], [8, 49]])])],
        ),
        &["vertex 1: [\"8\",49] is no position", "longitude first"],
    );
    fault(
        regions(&network, &[line("r", &[at(0.0, 0.0), at(1.0, 0.0)])]),
        &["a LineString; a region is"],
    );
    fault(
        regions(
            &network,
            &[json!({ "type": "Feature", "properties": { "id": "r" }, "geometry": null })],
        ),
        &["no geometry"],
    );
    fault(
        regions(&network, &[region("r", &[])]),
        &["a polygon without a ring"],
    );
    // Latitude first: Somalia, not Karlsruhe.
    let swapped = json!([[49.0, 8.0], [49.01, 8.0], [49.01, 8.01], [49.0, 8.0]]);
    fault(
        regions(&network, &[region("r", &[swapped])]),
        &["longitude first"],
    );
}

#[test]
fn faults_of_files_are_told() {
    let network = grid();
    let with = |path: PathBuf| {
        load(
            &network,
            &config::Map {
                regions: Some(path),
                ..config::Map::default()
            },
        )
    };
    fault(
        with("/nowhere/r.geojson".into()),
        &["map.regions: /nowhere/r.geojson", "cannot be read"],
    );
    for (text, parts) in [
        ("", ["is no JSON", "line 1"]),
        ("[]", ["no GeoJSON FeatureCollection", "another JSON value"]),
        (r#"{"type":"Polygon"}"#, ["but `Polygon`", "\"features\""]),
        (r#"{"type":"FeatureCollection"}"#, ["no list `features`", ""]),
        (
            r#"{"type":"FeatureCollection","features":[]}"#,
            ["no features", "leave out the key"],
        ),
        (
            r#"{"type":"FeatureCollection","features":[{"id":"a"}]}"#,
            ["feature 1", "not `Feature`"],
        ),
        (
            r#"{"type":"FeatureCollection","features":[{"type":"Feature"}]}"#,
            ["feature 1: has no id", "`region_id`"],
        ),
    ] {
        fault(with(file(text).path().into()), &parts);
    }
    for id in [
        json!(""),
        json!(" a"),
        json!("a\nb"),
        json!(1.5),
        json!(["a"]),
        json!("x".repeat(129)),
    ] {
        let features = [feature(
            json!({ "id": id }),
            "Polygon",
            json!([ring(0.0, 0.0, 1.0, 1.0)]),
        )];
        fault(regions(&network, &features), &["feature 1: its id"]);
    }
}

#[test]
fn ids_are_unique_and_features_limited() {
    let network = grid();
    let some = || ring(-1.0, -1.0, 5.0, 4.0);
    let many = |n: usize| {
        (0..n)
            .map(|i| region(&format!("{i:03}"), &[some()]))
            .collect::<Vec<_>>()
    };
    let full = regions(&network, &many(REGIONS_MAX)).unwrap();
    assert_eq!(full.regions.len(), REGIONS_MAX);
    assert_eq!(full.regions.last().map(|r| r.id.as_str()), Some("499"));
    fault(
        regions(&network, &many(REGIONS_MAX + 1)),
        &["has 501 features; at most 500"],
    );
    let twice = [
        region("b", &[some()]),
        region("a", &[some()]),
        region("b", &[some()]),
    ];
    fault(
        regions(&network, &twice),
        &["features 1 and 3 have the same id `b`"],
    );
    let line = |i| line(&format!("{i}"), &[at(0.0, 0.0), at(1.0, 0.0)]);
    fault(
        corridors(&network, &(0..=CORRIDORS_MAX).map(line).collect::<Vec<_>>()),
        &["at most 200"],
    );
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let network = grid();
    let bad = |id: &str| line(id, &[at(0.0, 20.0), at(1.0, 20.0)]);
    let good = line("good", &[at(0.0, 0.0), at(1.0, 0.0)]);
    fault(
        corridors(&network, &[bad("x"), good, bad("w")]),
        &[
            "2 of 3 features cannot be used",
            "\n  feature 3 `w`: vertex 1",
            "\n  feature 1 `x`: vertex 1",
        ],
    );
}

#[test]
fn a_line_becomes_the_segments_in_its_direction() {
    let network = grid();
    // Drawn 10 m beside the road, with vertices where the hand set them.
    let there = [at(0.02, 0.05), at(1.3, -0.04), at(2.1, 0.05), at(2.98, 0.0)];
    assert_eq!(route(&network, line("a", &there)), ["1:1:2", "1:2:3", "1:3:4"]);
    let back: Vec<[f64; 2]> = there.into_iter().rev().collect();
    assert_eq!(route(&network, line("a", &back)), ["1:4:3", "1:3:2", "1:2:1"]);
    let around = [
        at(0.0, 0.0),
        at(1.0, 0.0),
        at(1.0, 1.0),
        at(1.0, 2.0),
        at(3.0, 2.0),
    ];
    assert_eq!(
        route(&network, line("a", &around)),
        ["1:1:2", "12:2:12", "12:12:22", "3:22:23", "3:23:24"]
    );
}

#[test]
fn a_ring_begins_and_ends_at_one_vertex() {
    let network = grid();
    let ring = [
        at(0.0, 0.0),
        at(1.0, 0.0),
        at(1.0, 1.0),
        at(0.0, 1.0),
        at(0.0, 0.0),
    ];
    assert_eq!(
        route(&network, line("ring", &ring)),
        ["1:1:2", "12:2:12", "2:12:11", "11:11:1"]
    );
}

#[test]
fn ends_beside_a_junction_add_no_segment() {
    let network = grid();
    for overlap in [0.0, 0.05, 0.2] {
        let points = [at(1.0 - overlap, 0.0), at(2.0, 0.0), at(3.0 + overlap, 0.0)];
        assert_eq!(
            route(&network, line("a", &points)),
            ["1:2:3", "1:3:4"],
            "{overlap}"
        );
    }
    let half = [at(0.4, 0.0), at(3.6, 0.0)];
    assert_eq!(
        route(&network, line("a", &half)),
        ["1:1:2", "1:2:3", "1:3:4", "1:4:5"]
    );
    let within = [at(1.7, 0.0), at(1.9, 0.0)];
    assert_eq!(route(&network, line("a", &within)), ["1:2:3"]);
}

#[test]
fn a_slip_of_the_drawing_is_no_u_turn() {
    let network = grid();
    let points = [
        at(0.0, 0.0),
        at(1.3, 0.02),
        at(1.22, -0.02),
        at(1.5, 0.0),
        at(2.0, 0.0),
    ];
    assert_eq!(route(&network, line("a", &points)), ["1:1:2", "1:2:3"]);
}

/// Every shortest path of the grid, drawn through the middles of its segments with vertices up to 8 m off,
/// becomes itself.
#[test]
fn drawn_paths_are_found_again() {
    let network = grid();
    let open: Vec<SegmentIndex> = (0..network.segments().len() as SegmentIndex)
        .filter(|&i| !network.segment(i).flags.has(SegmentFlags::BUS_ONLY))
        .collect();
    let (mut router, mut path, mut drawn) = (Router::default(), Path::default(), 0);
    for &from in &open {
        for &to in &open {
            let (start, end) = (
                network.segment(from).length_mm / 4,
                network.segment(to).length_mm * 3 / 4,
            );
            if !router.path(&network, (from, start), (to, end), 10_000_000, &mut path)
                || path
                    .segments
                    .windows(2)
                    .any(|p| network.segment(p[0]).twin == Some(p[1]))
                || path.segments.iter().any(|i| !open.contains(i))
            {
                continue;
            }
            let mut points = Vec::new();
            let mut draw = |segment: SegmentIndex, permille: u32| {
                let p = network.position_at(segment, network.segment(segment).length_mm / 1000 * permille);
                let off = [-0.000_07, 0.0, 0.000_07];
                let n = points.len() + from as usize;
                points.push([p.lon() + off[n % 3], p.lat() + off[n / 3 % 3]]);
            };
            draw(from, 250);
            for &i in path.segments.iter().filter(|&&i| i != from && i != to) {
                draw(i, 200);
                draw(i, 800);
            }
            draw(to, 750);
            drawn += 1;
            let mut found = corridors(&network, &[line("a", &points)]).unwrap_or_else(|e| panic!("{e:#}"));
            let found = found.corridors.remove(0).segments;
            assert_eq!(
                keys(&network, &found),
                keys(&network, &path.segments),
                "{points:?}"
            );
        }
    }
    assert!(drawn > 1_000, "{drawn}");
}

/// Shortest paths of 1 to 6 km through real cities, drawn with a vertex at each shape point, each up to 2 m off
/// and each line up to 5 m, are found again but for short pieces at junctions.
#[test]
fn paths_drawn_on_real_maps_are_found_again() {
    let Some(data) = std::env::var_os("VIAFLUX_DATA").map(PathBuf::from) else {
        eprintln!("SKIPPED: VIAFLUX_DATA does not name a folder with osm/*.osm.pbf");
        return;
    };
    for city in ["helsinki", "porto"] {
        let osm = OsmData::read_pbf(data.join(format!("osm/{city}.osm.pbf"))).unwrap();
        let network = Network::build(&osm, &BuildSettings::default()).0;
        let length = |i: &SegmentIndex| u64::from(network.segment(*i).length_mm);
        let evaluated = &Places::whole_city(&network).regions[0].segments;
        // Knuth's MMIX generator: the same paths on every machine.
        let mut state = 42_u64;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut router, mut path) = (Router::default(), Path::default());
        let (mut drawn, mut equal, mut told) = (0_u64, 0_u64, Vec::new());
        let (mut true_mm, mut missing_mm, mut excess_mm) = (0, 0, 0);
        while drawn < 200 {
            let mut end = || evaluated[random(evaluated.len() as u64) as usize];
            let (from, to) = (end(), end());
            let end_mm = network.segment(to).length_mm;
            if !router.path(&network, (from, 0), (to, end_mm), 6_000_000, &mut path)
                || path.length_mm < 1_000_000
                || path
                    .segments
                    .windows(2)
                    .any(|p| network.segment(p[0]).twin == Some(p[1]))
                || path
                    .segments
                    .iter()
                    .any(|&i| network.segment(i).flags.has(SegmentFlags::BUS_ONLY))
            {
                continue;
            }
            let mut off = |metres: f64| (random(201) as f64 / 100.0 - 1.0) * metres * 9e-6;
            let (east, north) = (off(5.0), off(5.0));
            let shape = path.segments.iter().flat_map(|&i| network.geometry(i));
            let points: Vec<[f64; 2]> = shape
                .map(|p| [p.lon() + east + off(2.0), p.lat() + north + off(2.0)])
                .collect();
            drawn += 1;
            match corridors(&network, &[line("a", &points)]) {
                Ok(places) => {
                    let (found, truth) = (&places.corridors[0].segments, &path.segments);
                    equal += u64::from(found == truth);
                    true_mm += truth.iter().map(length).sum::<u64>();
                    missing_mm += truth
                        .iter()
                        .filter(|i| !found.contains(i))
                        .map(length)
                        .sum::<u64>();
                    excess_mm += found
                        .iter()
                        .filter(|i| !truth.contains(i))
                        .map(length)
                        .sum::<u64>();
                }
                Err(fault) => told.push(format!("{fault:#}")),
            }
        }
        eprintln!(
            "{city}: {equal} of {drawn} lines equal; of {} km {} m missing, {} m too much; refused {told:#?}",
            true_mm / 1_000_000,
            missing_mm / 1000,
            excess_mm / 1000
        );
        assert!(told.len() <= 2, "{city}: {told:#?}");
        assert!(equal >= 170, "{city}: {equal}");
        assert!(
            (missing_mm + excess_mm) * 200 < true_mm,
            "{city}: {missing_mm} {excess_mm} of {true_mm}"
        );
    }
}

#[test]
fn a_line_that_cannot_be_followed_is_told() {
    let network = grid();
    let one = |points: &[[f64; 2]]| corridors(&network, &[line("a", points)]);
    // Against a one-way street.
    fault(
        one(&[at(3.5, 2.0), at(2.5, 2.0)]),
        &[
            "map.corridors: ",
            "feature 1 `a`: vertex 1 [8.014, 49.004]",
            "segment 3:24:25 is near, at 180 degrees",
        ],
    );
    // 67 m off the southern street.
    fault(
        one(&[at(0.1, 0.0), at(2.5, -0.3)]),
        &[
            "vertex 2",
            "no segment within 50 m",
            "segment 1:3:4 (South Street), is 66 m away",
        ],
    );
    // Latitude first.
    fault(
        one(&[[49.0, 8.0], [49.0, 8.1]]),
        &[
            "vertex 1 [49, 8]",
            "the map reaches from [8, 49]",
            "longitude first",
        ],
    );
    // A street that nothing leads to.
    fault(
        one(&[at(3.5, 0.0), at(4.0, 0.0), at(6.5, 0.0)]),
        &[
            "no path of at most",
            "from vertex 2 [8.016, 49] on segment 1:4:5",
            "to vertex 3",
            "segment 90:91:92",
        ],
    );
    // There and back.
    fault(
        one(&[at(1.0, 0.0), at(4.0, 0.0), at(2.0, 0.0)]),
        &["it would turn round at the end of segment 1:4:5"],
    );
    // Once around the block and on.
    let loops = [
        at(0.0, 0.0),
        at(2.0, 0.0),
        at(2.0, 1.0),
        at(1.0, 1.0),
        at(1.0, 0.0),
        at(2.0, 0.0),
        at(3.0, 0.0),
    ];
    fault(one(&loops), &["it passes segment 1:2:3 (South Street) twice"]);
    fault(one(&[at(1.0, 0.0), at(1.0, 0.0)]), &["has no length"]);
    fault(one(&[at(1.0, 0.0)]), &["has no length"]);
    fault(one(&[]), &["has no length"]);
    // The street for buses.
    fault(
        one(&[at(0.5, 3.0), at(2.5, 3.0)]),
        &["vertex 1", "no segment within 50 m"],
    );
}

#[test]
fn segments_may_be_named() {
    let network = grid();
    let named = |ids: Value| json!({ "type": "Feature", "geometry": null, "properties": { "corridor_id": "a", "name": "A", "segment_ids": ids } });
    let places = corridors(&network, &[named(json!(["4:31:32", "4:32:33", "13:33:23"]))]).unwrap();
    assert_eq!(places.corridors[0].name, "A");
    assert_eq!(
        keys(&network, &places.corridors[0].segments),
        ["4:31:32", "4:32:33", "13:33:23"]
    );
    for (ids, parts) in [
        (json!([]), ["`segment_ids` is empty", ""]),
        (json!("1:1:2"), ["`segment_ids`", "a list of segment ids"]),
        (json!(["1:1:2", 5]), ["`segment_ids` 2 of 2: 5 is no text", ""]),
        (
            json!(["1:1:2", "1:2"]),
            ["`segment_ids` 2 of 2", "`1:2` is no segment id"],
        ),
        (
            json!(["1:1:2", "1:2:99"]),
            ["2 of 2: the map has no segment 1:2:99", "viaflux map export"],
        ),
        (
            json!(["1:1:2", "1:3:4"]),
            ["1:3:4 does not begin where 1:1:2 ends", "between"],
        ),
        (
            json!(["1:1:2", "1:2:1", "1:1:2"]),
            ["3 of 3: 1:1:2 is named twice", ""],
        ),
    ] {
        fault(corridors(&network, &[named(ids)]), &parts);
    }
}

#[test]
fn corridors_are_sorted_and_named() {
    let network = grid();
    let mut second = line("b", &[at(0.0, 0.0), at(1.0, 0.0)]);
    second["geometry"] = json!({ "type": "MultiLineString", "coordinates": [[at(0.0, 0.0), at(1.0, 0.0)]] });
    let first = feature(
        json!({ "id": "a", "name": "环路" }),
        "LineString",
        json!([at(1.0, 0.0), at(2.0, 0.0)]),
    );
    let places = corridors(&network, &[second.clone(), first]).unwrap();
    let names: Vec<_> = places
        .corridors
        .iter()
        .map(|c| (c.id.as_str(), c.name.as_str()))
        .collect();
    assert_eq!(names, [("a", "环路"), ("b", "b")]);
    assert_eq!(places.regions, Places::whole_city(&network).regions);

    second["geometry"]["coordinates"] = json!([[at(0.0, 0.0), at(1.0, 0.0)], [at(1.0, 0.0), at(2.0, 0.0)]]);
    fault(corridors(&network, &[second]), &["a MultiLineString of 2 parts"]);
    fault(
        corridors(&network, &[region("r", &[ring(0.0, 0.0, 1.0, 1.0)])]),
        &["a Polygon; a corridor is"],
    );
    fault(
        corridors(&network, &[json!({ "type": "Feature", "id": "a" })]),
        &["feature 1 `a`", "neither a geometry nor `segment_ids`"],
    );
    let nameless = feature(
        json!({ "id": "a", "name": 5 }),
        "LineString",
        json!([at(1.0, 0.0), at(2.0, 0.0)]),
    );
    fault(corridors(&network, &[nameless]), &["its `name` is 5, no text"]);
}
