//! Hand-made contributions and what must be learned of them; the file; the file on another map.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::network::osm::{OsmData, OsmNode, OsmWay};
use crate::network::{BuildSettings, SegmentKey};

/// Two roads of 1 km each, limit 60 km/h, and on the first a crossroads in its middle if `cut`.
fn network(cut: bool) -> Arc<Network> {
    let mut osm = OsmData::default();
    for (id, lat, lon) in [
        (1, 34.0, 108.0),
        (2, 34.0, 108.005_412),
        (3, 34.0, 108.010_824),
        (4, 34.01, 108.0),
        (5, 34.01, 108.010_824),
        (6, 34.02, 108.005_412),
    ] {
        osm.nodes.insert(
            id,
            OsmNode {
                lat,
                lon,
                ..OsmNode::default()
            },
        );
    }
    let mut way = |id: i64, nodes: &[i64], highway: &str| {
        let tags = [("highway", highway), ("maxspeed", "60"), ("oneway", "yes")];
        let tags: BTreeMap<String, String> = tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        osm.ways.push(OsmWay {
            id,
            nodes: nodes.to_vec(),
            tags,
        });
    };
    way(1, &[1, 2, 3], "secondary");
    way(2, &[4, 5], "secondary");
    if cut {
        way(3, &[2, 6], "primary");
        way(4, &[6, 2], "primary");
    }
    Arc::new(Network::build(&osm, &BuildSettings::default()).0)
}

fn calendar() -> Calendar {
    Calendar::new("Asia/Shanghai", &Holidays::default()).unwrap()
}

fn link_of(network: &Network, way: i64) -> LinkIndex {
    network.segment(network.segments_of_way(way)[0]).link
}

/// `n` vehicles cross a whole link at `kph` in the pane that begins at `time`.
fn drive(network: &Network, way: i64, time: &str, n: u64, kph: u64) -> Vec<Travel> {
    let begin = EventTime::parse_rfc3339(time).unwrap();
    let segments = &network.links()[link_of(network, way) as usize].segments;
    let travel = |&segment: &SegmentIndex| {
        let mm = u64::from(network.segment(segment).length_mm);
        Travel {
            begin,
            segment,
            weighted_mm: 1000 * n * mm,
            // mm by km/h is 3.6 ms.
            weighted_ms: 1000 * n * mm * 18 / (5 * kph),
            weight: 1000 * n,
        }
    };
    segments.iter().map(travel).collect()
}

fn learn(network: &Arc<Network>, before: Option<&Learned>, drives: &[(&str, u64, u64)]) -> Learned {
    let (mut collector, lost) = Collector::new(Arc::clone(network), calendar(), before).unwrap();
    assert_eq!(lost, 0);
    for &(time, n, kph) in drives {
        for travel in drive(network, 1, time, n, kph) {
            collector.observe(&travel);
        }
    }
    collector.finish()
}

/// (day, quarter, half km/h, variation in hundredths, days) of what was seen.
fn slots(learned: &Learned) -> Vec<(usize, usize, u8, u8, u8)> {
    let week = &learned.links[0].week;
    (0..SLOTS)
        .filter(|s| week.days[*s] > 0)
        .map(|s| {
            (
                s / QUARTERS,
                s % QUARTERS,
                week.speed[s],
                week.variation[s],
                week.days[s],
            )
        })
        .collect()
}

#[test]
fn contributions_become_slots() {
    let network = network(false);
    // Monday 8:00 in China: five minutes at 20 km/h, five at 40, one vehicle each. Edie over the quarter hour:
    // 2 km in 3 + 1.5 min = 26.67 km/h; the blocks' mean is 30 and their spread 10, a third of it.
    let learned = learn(
        &network,
        None,
        &[("2026-11-23T00:00:00Z", 1, 20), ("2026-11-23T00:05:00Z", 1, 40)],
    );
    assert_eq!(slots(&learned), [(0, 32, 53, 34, 1)]);
    assert_eq!((learned.days, learned.last_day.as_str()), (1, "2026-11-23"));
    assert_eq!(learned.links.len(), 1, "the other road costs nothing");
    assert_eq!(learned.links[0].free_flow.day_passages, 2);
    assert_eq!(learned.links[0].free_flow.night_samples, 0);
}

#[test]
fn weeks_are_averaged_and_then_forgotten() {
    let network = network(false);
    let mondays: Vec<String> = (0..8_u8)
        .map(|week| {
            let day = EventTime::parse_rfc3339("2026-09-07T00:00:00Z").unwrap();
            day.plus_ms(i64::from(week) * 7 * 86_400_000).to_string()
        })
        .collect();
    let drives = |kph: &[u64]| -> Vec<(&str, u64, u64)> {
        mondays
            .iter()
            .zip(kph)
            .map(|(day, kph)| (day.as_str(), 9, *kph))
            .collect()
    };
    let learned = learn(&network, None, &drives(&[20, 40]));
    assert_eq!(
        slots(&learned),
        [(0, 32, 60, 34, 2)],
        "their mean, spread by a third"
    );
    let learned = learn(&network, None, &drives(&[20, 30, 40, 20, 30, 40]));
    assert_eq!(slots(&learned)[0].2, 60, "up to six weeks the mean");
    let learned = learn(&network, None, &drives(&[30, 30, 30, 30, 30, 30, 50]));
    assert_eq!(slots(&learned)[0].2, 66, "then 0.85 · 30 + 0.15 · 50 = 33");
    // The same in two goes.
    let all = drives(&[30, 30, 30, 30, 30, 30, 50]);
    let first = learn(&network, None, &all[..6]);
    let second = learn(&network, Some(&first), &all[6..]);
    assert_eq!(slots(&second), slots(&learned));
    assert_eq!((second.days, second.last_day.as_str()), (7, "2026-10-19"));
}

#[test]
fn thin_and_disturbed_quarter_hours_are_left_out() {
    let network = network(false);
    let (mut collector, _) = Collector::new(Arc::clone(&network), calendar(), None).unwrap();
    let link = link_of(&network, 1);
    let mut thin = drive(&network, 1, "2026-11-23T00:00:00Z", 1, 30);
    thin.iter_mut()
        .for_each(|t| t.weight = 999 / thin_parts(&network, link));
    thin.iter().for_each(|t| collector.observe(t));
    collector.disturb(link, true);
    for travel in drive(&network, 1, "2026-11-23T00:15:00Z", 5, 5) {
        collector.observe(&travel);
    }
    collector.disturb(link, false);
    for travel in drive(&network, 1, "2026-11-23T00:30:00Z", 5, 50) {
        collector.observe(&travel);
    }
    let learned = collector.finish();
    assert_eq!(
        slots(&learned),
        [(0, 34, 100, 0, 1)],
        "the closure at 8:15 is not usual"
    );
}

fn thin_parts(network: &Network, link: LinkIndex) -> u64 {
    network.links()[link as usize].segments.len() as u64
}

#[test]
fn the_night_has_its_percentile() {
    let network = network(false);
    // 23:00 in China, 20 windows of five minutes at 31 … 50 km/h: the 85th percentile is the 17th, 47 km/h.
    let begin = EventTime::parse_rfc3339("2026-11-23T15:00:00Z").unwrap();
    let times: Vec<String> = (0..20).map(|i| begin.plus_ms(i * 300_000).to_string()).collect();
    let drives: Vec<(&str, u64, u64)> = times
        .iter()
        .zip(31..)
        .map(|(t, kph)| (t.as_str(), 1, kph))
        .collect();
    let learned = learn(&network, None, &drives);
    let flow = learned.links[0].free_flow;
    assert_eq!(flow.night_samples, 20);
    assert!((46.0..=48.0).contains(&crate::units::kph(flow.night)), "{flow:?}");
}

#[test]
fn free_flow_changes_by_three_percent_a_day_at_most() {
    let network = network(false);
    let first = learn(&network, None, &[("2026-11-23T00:00:00Z", 2000, 30)]);
    let before = first.links[0].free_flow.used;
    assert!((crate::units::kph(before) - 30.0).abs() < 1.0, "{before}");
    let second = learn(&network, Some(&first), &[("2026-11-24T01:00:00Z", 9000, 60)]);
    assert_eq!(
        second.links[0].free_flow.used,
        (f64::from(before) * 1.03).round() as MmPerS
    );
}

#[test]
fn without_a_file_all_is_prior() {
    let network = network(false);
    let baseline = Baseline::prior(Arc::clone(&network));
    let slot = baseline.slot(EventTime::from_ms(1_773_037_800_000));
    for i in 0..network.segments().len() as SegmentIndex {
        assert_eq!(baseline.free_flow(i), network.segment(i).free_flow);
        assert_eq!(baseline.typical(i, slot), network.segment(i).free_flow);
        assert_eq!(baseline.variation_permille(network.segment(i).link, slot), None);
    }
    assert_eq!(baseline.version(), PRIOR);
    assert!(!baseline.is_learned());
}

#[test]
fn a_run_asks_for_what_was_learned() {
    let network = network(false);
    // Half of the passages at 8:00 at 20 km/h, the best at 10:00 at 50 km/h.
    let learned = learn(
        &network,
        None,
        &[
            ("2026-11-23T00:00:00Z", 4000, 20),
            ("2026-11-23T02:00:00Z", 4000, 50),
        ],
    );
    let (baseline, fit) = Baseline::new(Arc::clone(&network), &learned, calendar());
    assert_eq!((fit.found, fit.of, fit.same_map), (1, 1, true));
    let (driven, other) = (network.segments_of_way(1)[0], network.segments_of_way(2)[0]);
    let free = crate::units::kph(baseline.free_flow(driven));
    assert!((49.0..=50.0).contains(&free), "{free}");
    let at = |time: &str| baseline.slot(EventTime::parse_rfc3339(time).unwrap());
    let typical = |segment, slot| crate::units::kph(baseline.typical(segment, slot));
    let eight = at("2026-11-24T00:07:00Z");
    assert!(
        (typical(driven, eight) - 20.0).abs() < 0.3,
        "Tuesday is like Monday"
    );
    assert!(
        (typical(driven, at("2026-11-24T06:00:00Z")) - free).abs() < 0.3,
        "14:00: free flow"
    );
    assert_eq!(baseline.free_flow(other), network.segment(other).free_flow);
    let share = typical(other, eight) / crate::units::kph(baseline.free_flow(other));
    assert!(
        (share - 0.4).abs() < 0.02,
        "its class is at 20 of 50 km/h: {share}"
    );
    assert_eq!(baseline.version(), learned.version());
}

#[test]
fn the_file_comes_back_and_says_what_is_wrong_with_it() {
    let network = network(false);
    let drives = [("2026-11-23T00:00:00Z", 1, 20), ("2026-11-23T02:00:00Z", 3, 40)];
    let learned = learn(&network, None, &drives);
    let mut bytes = Vec::new();
    learned.write(&mut bytes).unwrap();
    assert_eq!(Learned::read(&bytes[..]).unwrap(), learned);
    let mut again = Vec::new();
    learn(&network, None, &drives).write(&mut again).unwrap();
    assert_eq!(bytes, again, "equal input, equal bytes");

    let error = |bytes: &[u8]| Learned::read(bytes).unwrap_err();
    assert!(matches!(error(b""), BaselineFileError::NotABaseline));
    assert!(matches!(error(b"VIAFLUXM...."), BaselineFileError::NotABaseline));
    for length in 8..bytes.len() {
        let cut = error(&bytes[..length]);
        assert!(matches!(cut, BaselineFileError::Damaged), "{length}: {cut}");
    }
    for i in 12..bytes.len() {
        let mut bad = bytes.clone();
        bad[i] ^= 1;
        assert!(matches!(error(&bad), BaselineFileError::Damaged), "{i}");
    }
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert!(matches!(error(&newer), BaselineFileError::Format { found: 9 }));
    let mut twice = learned.clone();
    twice.links.push(twice.links[0].clone());
    let mut bytes = Vec::new();
    twice.write(&mut bytes).unwrap();
    assert!(matches!(error(&bytes), BaselineFileError::Invalid(_)));
}

#[test]
fn links_are_known_again_on_another_map() {
    let (old, new) = (network(false), network(true));
    let mut learned = learn(&old, None, &[("2026-11-23T00:00:00Z", 4, 20)]);
    let (_, fit) = Baseline::new(Arc::clone(&new), &learned, calendar());
    assert!(!fit.same_map);
    let here = link_of(&new, 1);
    let same = new.links()[here as usize].length_mm == old.links()[link_of(&old, 1) as usize].length_mm;
    assert_eq!(fit.found, usize::from(same), "a link that was cut is another one");
    learned.links[0].key = SegmentKey {
        way: 99,
        from_node: 1,
        to_node: 2,
    };
    assert_eq!(Baseline::new(new, &learned, calendar()).1.found, 0);
}

#[test]
fn an_update_keeps_its_time_zone() {
    let network = network(false);
    let learned = learn(&network, None, &[("2026-11-23T00:00:00Z", 4, 20)]);
    let rome = Calendar::new("Europe/Rome", &Holidays::default()).unwrap();
    let error = Collector::new(network, rome, Some(&learned)).unwrap_err();
    assert!(error.contains("Asia/Shanghai, not Europe/Rome"), "{error}");
}
