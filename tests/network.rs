//! Builds maps of real extracts. Needs `VIAFLUX_DATA` (a folder with `osm/*.osm.pbf` and `dev-city/`); says
//! SKIPPED aloud without it.
#![cfg(feature = "service")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use viaflux::network::osm::{OsmData, write_xml};
use viaflux::network::router::{Path, Router};
use viaflux::network::sites::{bind, read_sites};
use viaflux::network::{BuildReport, BuildSettings, Network, SegmentFlags};

fn data() -> Option<PathBuf> {
    let data = std::env::var_os("VIAFLUX_DATA").map(PathBuf::from);
    if data.is_none() {
        eprintln!("SKIPPED: VIAFLUX_DATA is not set");
    }
    data
}

fn build(osm: &OsmData) -> (Network, BuildReport) {
    Network::build(osm, &BuildSettings::default())
}

/// What holds of every network.
fn check(n: &Network, report: &BuildReport) {
    let segments = n.segments();
    assert!(segments.len() > 1_000, "{report}");
    let keys: BTreeSet<_> = segments.iter().map(|s| s.key).collect();
    assert_eq!(keys.len(), segments.len());
    let ids: BTreeSet<u64> = segments
        .iter()
        .map(|s| xxhash_rust::xxh3::xxh3_64(s.key.to_string().as_bytes()))
        .collect();
    assert_eq!(ids.len(), segments.len(), "two keys with the same 64-bit hash");
    let mut in_links = vec![0; segments.len()];
    for (i, link) in n.links().iter().enumerate() {
        let length: u64 = link
            .segments
            .iter()
            .map(|&s| u64::from(n.segment(s).length_mm))
            .sum();
        assert_eq!(length, link.length_mm);
        assert!(
            length <= 1_000_000 || link.segments.len() == 1,
            "{}",
            n.link_key(i as u32)
        );
        for pair in link.segments.windows(2) {
            assert!(n.successors(pair[0]).contains(&pair[1]));
        }
        for &s in &link.segments {
            in_links[s as usize] += 1;
            assert_eq!(n.segment(s).link, i as u32);
        }
    }
    assert!(in_links.iter().all(|&n| n == 1), "every segment lies in one link");
    for (i, s) in segments.iter().enumerate() {
        let i = i as u32;
        assert_eq!(n.find(s.key), Some(i));
        assert!(s.length_mm >= 1 && s.free_flow >= 1 && s.lanes >= 1 && s.limit_kph >= 10);
        assert!(n.successors(i).iter().all(|&t| n.segment(t).from == s.to));
        assert!(n.predecessors(i).contains(&i) == (s.from == s.to));
        let nodes = n.osm_nodes(i);
        assert_eq!(
            (nodes[0], nodes[nodes.len() - 1]),
            (s.key.from_node, s.key.to_node)
        );
        assert_eq!(n.geometry(i).len(), nodes.len());
        if let Some(t) = s.twin {
            assert_eq!(n.segment(t).twin, Some(i));
            assert_eq!((n.segment(t).from, n.segment(t).to), (s.to, s.from));
            assert!(s.flags.has(SegmentFlags::BACKWARD) != n.segment(t).flags.has(SegmentFlags::BACKWARD));
        }
    }
    // A name used twice is rare, and so is a road that cannot be cut.
    assert!(report.duplicate_keys_dropped * 200 < report.segments, "{report}");
    assert!(report.longer_than_max * 20 < report.segments, "{report}");
}

#[test]
fn all_extracts_build_and_survive_the_file() {
    let Some(data) = data() else { return };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(data.join("osm"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.push(data.join("dev-city/map.osm.pbf"));
    paths.sort();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "pbf")) {
        let begun = Instant::now();
        let osm = OsmData::read(path).unwrap();
        let read = begun.elapsed();
        let (n, report) = build(&osm);
        let built = begun.elapsed() - read;
        check(&n, &report);
        let mut bytes = Vec::new();
        n.write(&mut bytes).unwrap();
        let begun = Instant::now();
        let again = Network::read(&bytes).unwrap();
        let loaded = begun.elapsed();
        assert_eq!(n.version(), again.version());
        assert_eq!(n.segments(), again.segments());
        assert_eq!(n.links(), again.links());
        println!(
            "{}: read {read:?}, built {built:?}, loaded {loaded:?}, {} bytes\n{report}\n",
            path.display(),
            bytes.len()
        );
    }
}

#[test]
fn the_extract_as_xml_gives_the_same_map() {
    let Some(data) = data() else { return };
    let osm = OsmData::read(data.join("osm/sao-paulo-centre.osm.pbf")).unwrap();
    let mut text = Vec::new();
    write_xml(&osm, &mut text).unwrap();
    let again = OsmData::read_xml(&text[..]).unwrap();
    assert_eq!(osm, again);
    assert_eq!(build(&osm).0.version(), build(&again).0.version());
}

#[test]
fn sensor_sites_bind_to_their_way() {
    let Some(data) = data() else { return };
    let (n, _) = build(&OsmData::read(data.join("dev-city/map.osm.pbf")).unwrap());
    let sites = read_sites(data.join("dev-city/sensors.json")).unwrap();
    let stations: BTreeSet<_> = sites.iter().map(|s| s.station.as_str()).collect();
    assert_eq!(stations.len(), 150);
    let truth: BTreeMap<_, _> = sites
        .iter()
        .map(|s| (s.sensor_id.as_str(), (s.way.unwrap(), s.forward.unwrap())))
        .collect();
    let right = |bound: &viaflux::network::sites::Bound| {
        bound
            .sites
            .iter()
            .filter(|b| {
                let s = n.segment(b.segment);
                (s.key.way, !s.flags.has(SegmentFlags::BACKWARD)) == truth[b.sensor_id.as_str()]
            })
            .count()
    };
    let bound = bind(&n, &sites);
    assert_eq!(bound.unbound, []);
    assert_eq!(right(&bound), sites.len());

    // Without the way: position, heading and class find the road of most; what is bound is not wrong.
    let mut bare = sites.clone();
    for s in &mut bare {
        (s.way, s.forward) = (None, None);
    }
    let bound = bind(&n, &bare);
    println!(
        "without way ids: {} of {} bound, {} right, {:?}",
        bound.sites.len(),
        bare.len(),
        right(&bound),
        bound.unbound
    );
    assert!(bound.sites.len() * 100 >= bare.len() * 98);
    assert_eq!(right(&bound), bound.sites.len());
}

#[test]
fn searches_on_a_city_stay_small() {
    let Some(data) = data() else { return };
    let (n, _) = build(&OsmData::read(data.join("dev-city/map.osm.pbf")).unwrap());
    let mut router = Router::default();
    let (mut lengths, mut candidates, mut path) = (Vec::new(), Vec::new(), Path::default());
    let (mut searches, mut found) = (0u64, 0u64);
    let begun = Instant::now();
    for from in (0..n.segments().len() as u32).step_by(7) {
        let at = n.position_at(from, n.segment(from).length_mm);
        n.candidates(at, 60_000, &mut candidates);
        let targets: Vec<_> = candidates.iter().map(|c| (c.segment, c.offset_mm)).collect();
        router.paths(&n, (from, 0), &targets, 300_000, &mut lengths);
        searches += 1;
        for (length, &to) in lengths.iter().zip(&targets) {
            if let Some(length) = length {
                found += 1;
                assert!(*length <= 300_000);
                assert!(router.trace(&n, to, &mut path));
                assert_eq!(path.length_mm, *length);
                assert_eq!(
                    (path.segments[0], path.segments[path.segments.len() - 1]),
                    (from, to.0)
                );
            }
        }
    }
    println!(
        "{searches} searches, {found} paths, {} visited, {:?}",
        router.visited(),
        begun.elapsed()
    );
    assert!(found > searches * 2);
    assert_eq!(router.limited(), 0);
}

#[test]
fn links_of_main_roads_are_long_enough_to_measure() {
    let Some(data) = data() else { return };
    let (n, _) = build(&OsmData::read(data.join("dev-city/map.osm.pbf")).unwrap());
    let (mut total, mut long) = (0, 0);
    let mut by_class: BTreeMap<_, (u64, u64, u64)> = BTreeMap::new();
    for link in n.links() {
        let class = n.segment(link.segments[0]).class;
        let e = by_class.entry(class).or_default();
        e.0 += 1;
        e.1 += link.length_mm;
        if link.length_mm >= 200_000 {
            e.2 += link.length_mm;
        }
        if class <= viaflux::network::RoadClass::Tertiary {
            total += link.length_mm;
            long += if link.length_mm >= 200_000 {
                link.length_mm
            } else {
                0
            };
        }
    }
    for (class, (count, length, long)) in &by_class {
        println!(
            "{:<16} {count:>6} links, mean {:>5.0} m, {:>3} % of the length in links of 200 m or more",
            class.label(),
            *length as f64 / 1000.0 / *count as f64,
            long * 100 / length
        );
    }
    assert!(long * 10 >= total * 9, "{long} of {total} mm");
}

#[test]
fn a_truncated_extract_is_an_error_that_names_it() {
    let Some(data) = data() else { return };
    let whole = std::fs::read(data.join("osm/helsinki.osm.pbf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.osm.pbf");
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let message = OsmData::read(&path).unwrap_err().to_string();
    assert!(
        message.contains("cut.osm.pbf") && message.contains("truncated"),
        "{message}"
    );
}
