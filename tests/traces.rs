//! All real traces of the data set through `viaflux match`: nothing panics, every point that goes in comes out, and
//! what is located, agreed upon and broken stays within bounds that a worse matcher would miss. Needs `VIAFLUX_DATA`
//! (a folder with `traces/` and `osm/`); says so aloud when that is not set. docs/accuracy.md has the figures.
#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The data set, or `None`, said aloud.
fn data() -> Option<PathBuf> {
    let data = std::env::var_os("VIAFLUX_DATA").map(PathBuf::from);
    if data.is_none() {
        eprintln!("SKIPPED: VIAFLUX_DATA is not set; it names the folder that holds traces/ and osm/");
    }
    data
}

fn viaflux(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viaflux"));
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

fn unpacked(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    if path.extension().is_some_and(|e| e == "zst") {
        return String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap();
    }
    let mut text = String::new();
    if path.extension().is_some_and(|e| e == "gz") {
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_string(&mut text)
            .unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    text
}

/// What came of a file of traces.
struct Matched {
    lines: Vec<Value>,
    report: Value,
}

impl Matched {
    fn n(&self, key: &str) -> u64 {
        self.report.pointer(key).and_then(Value::as_u64).unwrap()
    }

    fn share(&self, key: &str) -> f64 {
        self.n(key) as f64 / self.n("/points") as f64
    }

    fn breaks_per_100_km(&self) -> f64 {
        self.n("/breaks/no_way") as f64 / (self.report["length_m"].as_f64().unwrap() / 1e5)
    }

    /// Share of the points that were put on the road farther than 100 m away.
    fn far(&self) -> f64 {
        let far = |l: &&Value| l["distance_m"].as_f64().is_some_and(|d| d > 100.0);
        self.lines.iter().filter(far).count() as f64 / self.lines.len() as f64
    }

    fn posterior(&self) -> f64 {
        self.report["mean_posterior"].as_f64().unwrap()
    }
}

/// Matches `file` of `points` points to a map.
fn matched(dir: &TempDir, map: &Path, file: &Path, points: usize) -> Matched {
    let out = dir.path().join("out.ndjson").display().to_string();
    let (map, file) = (map.display().to_string(), file.display().to_string());
    let (code, report, stderr) = viaflux(&["match", &file, "--map", &map, "-o", &out, "--json"]);
    assert_eq!(code, 0, "{file}: {stderr}");
    let text = fs::read_to_string(&out).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let report = serde_json::from_str(&report).unwrap();
    let m = Matched { lines, report };
    eprintln!("{file}: {}", m.report);
    assert_eq!(m.n("/points") + m.n("/refused"), points as u64, "{file}");
    assert_eq!(
        m.lines.len() as u64,
        m.n("/points"),
        "{file}: each point comes out"
    );
    let each: BTreeSet<(String, u64)> = m
        .lines
        .iter()
        .map(|l| (l["vehicle_id"].to_string(), l["point"].as_u64().unwrap()))
        .collect();
    assert_eq!(each.len(), m.lines.len(), "{file}: once");
    assert_eq!(
        m.n("/points"),
        m.n("/located") + m.n("/off_road") + m.n("/no_way"),
        "{file}"
    );
    m
}

fn map(dir: &TempDir, osm: &Path) -> PathBuf {
    let out = dir.path().join("city.map");
    let (osm, map) = (osm.display().to_string(), out.display().to_string());
    let (code, _, stderr) = viaflux(&["map", "build", &osm, "-o", &map]);
    assert_eq!(code, 0, "{osm}: {stderr}");
    out
}

#[test]
fn taxis_of_porto() {
    let Some(data) = data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let map = map(&dir, &data.join("osm/porto.osm.pbf"));
    let file = data.join("traces/porto/gps.ndjson.zst");
    let m = matched(&dir, &map, &file, unpacked(&file).lines().count());
    assert_eq!(m.n("/tracks"), 200);
    assert!(m.share("/located") > 0.99, "located {}", m.share("/located"));
    assert!(
        m.breaks_per_100_km() < 4.0,
        "breaks per 100 km {}",
        m.breaks_per_100_km()
    );
    assert!(m.posterior() > 0.95, "posterior {}", m.posterior());
    assert!(m.far() < 0.002, "far from their roads: {}", m.far());
    // Where another matcher put the points: agreement, not truth.
    let others = unpacked(&data.join("traces/porto/truth-points.ndjson.zst"));
    let mut ours: Vec<Option<&Value>> = vec![None; m.lines.len() + 1];
    for line in &m.lines {
        ours[line["line"].as_u64().unwrap() as usize] = Some(line);
    }
    let (mut all, mut same_way, mut near) = (0.0, 0.0, 0.0);
    for other in others.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()) {
        let line = ours[other["line"].as_u64().unwrap() as usize].unwrap();
        all += 1.0;
        if line["way_id"] == other["way"] {
            same_way += 1.0;
        }
        let degrees = |key: &str| Some(line[key].as_f64()? - other[key].as_f64()?);
        if let (Some(lat), Some(lon)) = (degrees("lat"), degrees("lon"))
            && (lat * 111_195.0).hypot(lon * 83_730.0) <= 10.0
        {
            near += 1.0;
        }
    }
    eprintln!(
        "agreement: way {:.4}, within 10 m {:.4}",
        same_way / all,
        near / all
    );
    assert_eq!(all as usize, m.lines.len());
    assert!(same_way / all > 0.90, "the same way for {}", same_way / all);
    assert!(near / all > 0.92, "within 10 m for {}", near / all);
}

#[test]
fn people_of_beijing() {
    let Some(data) = data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let map = map(&dir, &data.join("traces/beijing/map.osm.pbf"));
    let file = data.join("traces/beijing/geolife-gps.ndjson.zst");
    let m = matched(&dir, &map, &file, unpacked(&file).lines().count());
    // Many walk, cycle, sit inside buildings or ride trains.
    assert!(
        (0.70..0.97).contains(&m.share("/located")),
        "located {}",
        m.share("/located")
    );
    assert!(
        (0.05..0.25).contains(&m.share("/off_road")),
        "off the road {}",
        m.share("/off_road")
    );
    assert!(
        m.breaks_per_100_km() < 350.0,
        "breaks per 100 km {}",
        m.breaks_per_100_km()
    );
    assert!(m.posterior() > 0.80, "posterior {}", m.posterior());
    assert!(m.far() < 0.01, "far from their roads: {}", m.far());
}

#[test]
fn gpx_files_odd_ones_included() {
    let Some(data) = data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let map = map(&dir, &data.join("osm/andorra.osm.pbf"));
    let mut files: Vec<PathBuf> = fs::read_dir(data.join("traces/gpx"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 17, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("andorra") {
            let points = unpacked(&file).matches("<trkpt").count();
            let m = matched(&dir, &map, &file, points);
            assert_eq!(
                (m.n("/located"), m.n("/assumed_times")),
                (points as u64, points as u64)
            );
            assert_eq!(m.breaks_per_100_km(), 0.0);
            continue;
        }
        let says = match name.as_str() {
            "no_trk.gpx" => "holds no track",
            "no_trkpt.gpx" | "no_trkseg.gpx" => "no points in its 1 track",
            _ => "lies on the map",
        };
        let (map, file) = (map.display().to_string(), file.display().to_string());
        let (code, stdout, stderr) = viaflux(&["match", &file, "--map", &map]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{name}: {stderr}");
        assert!(stderr.contains(says), "{name} does not say `{says}`: {stderr}");
    }
}

#[test]
fn tracks_of_berlin_and_poland_beside_the_map() {
    let Some(data) = data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let map = map(&dir, &data.join("osm/andorra.osm.pbf"));
    for name in ["berlin", "poland"] {
        let file = data.join(format!("traces/berlin/{name}_gps_traces.csv.gz"));
        let (shown, path) = (map.display().to_string(), file.display().to_string());
        let (code, _, stderr) = viaflux(&["match", &path, "--map", &shown]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("lies on the map"), "{stderr}");
        // With one point on the map they are matched, and found to be off the road.
        let mut text = unpacked(&file);
        let points = text.lines().count() - 1;
        text += "andorra,42.5075,1.5218,\n";
        let file = dir.path().join("more.csv");
        fs::File::create(&file)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let m = matched(&dir, &map, &file, points + 1);
        assert!(m.n("/off_road") >= points as u64, "{name}: {}", m.report);
        assert_eq!(m.n("/assumed_times"), points as u64 + 1);
        assert_eq!(m.report["length_m"].as_f64(), Some(0.0), "{name}");
    }
}
