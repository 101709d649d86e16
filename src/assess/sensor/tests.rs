//! Hand-made series, one character a minute: a digit is the number of vehicles of a sane interval, `-` no record,
//! `=` the record before once more, `u` and `d` a speed × 3.6 and ÷ 3.6, `L` occupied all the time, `#` chatter,
//! `!` a speed that nothing explains.

use super::*;
use crate::aggregate::Sums;
use crate::network::osm::{OsmData, OsmNode, OsmWay};
use crate::network::{BuildSettings, SegmentKey};

/// Half an hour of ordinary traffic.
const USUAL: &str = "435243526342534624352435263425";
const PANE_MS: i64 = 60_000;

/// Ways of 400 m: 1 an avenue, 2 a motorway.
fn network() -> Network {
    let mut osm = OsmData::default();
    for (i, class) in ["secondary", "motorway"].into_iter().enumerate() {
        let lat = 34.0 + i as f64 * 0.1;
        let nodes: Vec<i64> = (0..2).map(|n| 100 + i as i64 * 10 + n).collect();
        for (n, id) in nodes.iter().enumerate() {
            let lon = 108.0 + n as f64 * 0.0044;
            osm.nodes.insert(
                *id,
                OsmNode {
                    lat,
                    lon,
                    ..OsmNode::default()
                },
            );
        }
        let tags = [
            ("highway", class),
            ("maxspeed", "50"),
            ("oneway", "no"),
            ("lanes", "4"),
        ];
        osm.ways.push(OsmWay {
            id: i as i64 + 1,
            nodes,
            tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        });
    }
    Network::build(&osm, &BuildSettings::default()).0
}

fn segment(network: &Network, way: i64) -> SegmentIndex {
    let (from_node, to_node) = (90 + way * 10, 91 + way * 10);
    network
        .find(SegmentKey {
            way,
            from_node,
            to_node,
        })
        .unwrap()
}

/// The interval that a character stands for.
fn interval(c: char, minute: usize, sensor: u64, before: Option<&Measurement>) -> Option<Measurement> {
    let wave = (minute * 7 + sensor as usize * 3) % 5;
    let count = c.to_digit(10).unwrap_or(3);
    let speed = 11_000 + 300 * wave as u32;
    let mut m = Measurement {
        time: EventTime::from_ms((minute as i64 + 1) * 60_000),
        sensor: SubjectKey(sensor),
        interval_ms: 60_000,
        count_milli: Some(count * 1000),
        // Vehicles of 5.5 to 7 m.
        occupancy_permille: Some((count * (5_500 + 300 * wave as u32)).div_ceil(60 * speed / 1000)),
        speed: (count > 0).then_some(speed),
        position: None,
        heading: None,
        offset: minute as u64,
    };
    match c {
        '-' => return None,
        '=' => {
            let time = m.time;
            m = Measurement {
                time,
                ..before?.clone()
            };
        }
        'u' => m.speed = Some(speed * 36 / 10),
        'd' => m.speed = Some(speed * 10 / 36),
        'L' => (m.count_milli, m.speed, m.occupancy_permille) = (Some(0), None, Some(1000)),
        '#' => m.count_milli = Some(80_000 + wave as u32),
        '!' => m.speed = Some(80_000 + wave as u32),
        _ => {}
    }
    Some(m)
}

/// What one pane shows of probes: (segment, mm/s).
type Probes = [(SegmentIndex, MmPerS)];

struct Road {
    network: Network,
    watch: Watch,
    settings: SensorSettings,
    last: BTreeMap<u64, Measurement>,
    minute: usize,
    told: Vec<(usize, Alert)>,
}

impl Road {
    fn new() -> Self {
        Self {
            network: network(),
            watch: Watch::default(),
            settings: SensorSettings::default(),
            last: BTreeMap::new(),
            minute: 0,
            told: Vec::new(),
        }
    }

    /// Goes on by one minute for each character: of sensor 1 first, then 2 …, all on way `way`.
    fn go(&mut self, way: i64, series: &[&str], probes: &Probes) {
        let at = segment(&self.network, way);
        for k in 0..series[0].len() {
            let mut readings = Vec::new();
            for (sensor, text) in (1..).zip(series) {
                let c = text.as_bytes()[k] as char;
                let Some(m) = interval(c, self.minute, sensor, self.last.get(&sensor)) else {
                    continue;
                };
                self.last.insert(sensor, m.clone());
                readings.push(Reading {
                    pane: self.minute as i64,
                    segment: at,
                    measurement: m,
                });
            }
            let now = EventTime::from_ms((self.minute as i64 + 1) * PANE_MS);
            let mut segments: Vec<SegmentFlow> = probes
                .iter()
                .map(|&(segment, speed)| SegmentFlow {
                    segment,
                    window: Sums {
                        weighted_mm: u64::from(speed) * 100_000,
                        weighted_ms: 100_000_000,
                        weighted_free_ms: 90_000_000,
                        effective_milli: 5_000,
                        ..Sums::default()
                    },
                    latest: now,
                    sensor: None,
                })
                .collect();
            segments.sort_unstable_by_key(|f| f.segment);
            let pane = PaneOf {
                now,
                pane_ms: PANE_MS,
                network: &self.network,
                segments: &segments,
                readings: &readings,
                names: &BTreeMap::new(),
                stale_ms: 900_000,
            };
            let mut out = Vec::new();
            self.watch.step(&pane, &self.settings, &mut out);
            self.told.extend(out.into_iter().map(|a| (self.minute, a)));
            self.minute += 1;
        }
    }

    /// Everything told: minute, transition, cause, sensor.
    fn story(&self) -> Vec<String> {
        let line = |(minute, a): &(usize, Alert)| {
            let About::Sensor(fault) = &a.about else {
                panic!("{a:?}")
            };
            let (cause, sensor) = (
                fault.cause.label(),
                u64::from_str_radix(&fault.sensor, 16).unwrap(),
            );
            let stale = if a.stale { " stale" } else { "" };
            format!("{minute} {} {cause} {sensor}{stale}", a.transition.label())
        };
        self.told.iter().map(line).collect()
    }

    fn health(&self, sensor: u64) -> Health {
        self.watch.sensors[&SubjectKey(sensor)].health
    }
}

/// The story of one sensor with ordinary neighbours.
fn story(series: &str) -> Vec<String> {
    let mut road = Road::new();
    let beside: String = USUAL.chars().cycle().take(series.len()).collect();
    road.go(1, &[series, &beside], &[]);
    road.story()
}

fn after_usual(series: &str) -> Vec<String> {
    story(&format!("{USUAL}{series}"))
}

#[test]
fn ordinary_traffic_is_no_fault() {
    assert_eq!(after_usual(USUAL), [""; 0]);
    assert_eq!(after_usual("00003420013000024"), [""; 0]);
    assert_eq!(after_usual("3==423-52--43"), [""; 0]);
}

#[test]
fn a_record_that_repeats_is_stuck_until_it_has_been_sane_for_a_while() {
    assert_eq!(after_usual("3==42"), [""; 0]);
    assert_eq!(after_usual("3==="), ["33 opened stuck 1"]);
    let again = format!("3====={USUAL}");
    assert_eq!(after_usual(&again), ["33 opened stuck 1", "51 resolved stuck 1"]);
    let mut road = Road::new();
    road.settings.release_min = 40;
    road.go(1, &[&format!("{USUAL}{again}")], &[]);
    assert_eq!(road.story(), ["33 opened stuck 1"]);
}

#[test]
fn a_bare_count_may_repeat() {
    let mut road = Road::new();
    let at = segment(&road.network, 1);
    for minute in 0..12_usize {
        let mut m = interval('3', minute, 1, None).unwrap();
        (m.speed, m.occupancy_permille) = (None, None);
        let lane = &mut road
            .watch
            .sensors
            .entry(m.sensor)
            .or_insert_with(|| Sensor::new(&m, at));
        lane.take(&m, &road.network, &road.settings);
        let around = Around {
            segment: road.network.segment(at),
            witnessed: (0, 0),
            lanes: 1,
            probes_permille: None,
        };
        let stuck = matches!(
            lane.lane.judge(&around, &road.settings),
            Judgement::Fault(Cause::Stuck, _)
        );
        assert_eq!(stuck, minute >= 10, "{minute}");
    }
}

#[test]
fn nobody_counted_where_many_were_to_come() {
    assert_eq!(after_usual("0000"), [""; 0]);
    assert_eq!(after_usual("00000"), ["34 opened no_hits 1"]);
    // Where few come it takes longer: until ten vehicles are missing.
    let sparse = "010010200101001020010010200100";
    let gap = |minutes: usize| story(&format!("{sparse}{}", "0".repeat(minutes)));
    assert_eq!(gap(17), [""; 0]);
    assert_eq!(gap(18), ["47 opened no_hits 1"]);
    // Traffic that ebbs away is no fault.
    assert_eq!(after_usual("011001000000"), [""; 0]);
    // A queue that stands on the loop is no fault of it.
    let mut road = Road::new();
    road.go(1, &[USUAL], &[]);
    road.go(1, &["LLLLLLLLLL"], &[]);
    assert_eq!(road.story(), [""; 0]);
}

#[test]
fn an_empty_road_is_no_fault_of_its_sensors() {
    let mut road = Road::new();
    road.go(1, &[USUAL, USUAL], &[]);
    // The first to be silent is judged by the other.
    road.go(1, &["00000000", "00000000"], &[]);
    assert_eq!(road.story(), [""; 0]);
    assert_eq!(road.health(1), Health::Ok);
}

#[test]
fn speeds_in_a_wrong_unit() {
    assert_eq!(after_usual("u4"), [""; 0]);
    assert_eq!(after_usual("uu"), ["31 opened unit 1"]);
    assert_eq!(after_usual("u00u"), ["33 opened unit 1"]);
    assert_eq!(after_usual("dd"), ["31 opened unit 1"]);
    // Without a past, the limit alone must say it, and a third time.
    assert_eq!(story("uuu"), ["2 opened unit 1"]);
    assert_eq!(story("ddddd"), [""; 0]);
}

#[test]
fn slow_traffic_is_no_wrong_unit() {
    let mut road = Road::new();
    road.go(1, &[USUAL], &[]);
    let at = segment(&road.network, 1);
    for minute in 30..36_usize {
        let mut m = interval('4', minute, 1, None).unwrap();
        // A jam: a quarter of the speed, four times the occupancy.
        m.speed = m.speed.map(|v| v / 4);
        m.occupancy_permille = m.occupancy_permille.map(|o| o * 4);
        let sensor = road.watch.sensors.get_mut(&SubjectKey(1)).unwrap();
        sensor.take(&m, &road.network, &road.settings);
        let around = Around {
            segment: road.network.segment(at),
            witnessed: (0, 0),
            lanes: 1,
            probes_permille: None,
        };
        assert_eq!(sensor.lane.judge(&around, &road.settings), Judgement::Sane);
    }
}

#[test]
fn silence_counts_while_others_are_heard() {
    assert_eq!(after_usual("---"), [""; 0]);
    assert_eq!(after_usual("----"), ["33 opened silent 1"]);
    assert_eq!(
        after_usual("------4352435"),
        ["33 opened silent 1", "40 resolved silent 1"]
    );
    let mut road = Road::new();
    road.go(1, &[USUAL, USUAL], &[]);
    road.go(1, &["--------", "--------"], &[]);
    assert_eq!(road.story(), [""; 0], "the whole feed is silent");
}

#[test]
fn a_loop_that_is_locked_on() {
    let mut road = Road::new();
    road.go(2, &[&format!("{USUAL}LL"), &format!("{USUAL}43")], &[]);
    assert_eq!(road.story(), ["31 opened locked_on 1"]);
    // In a street vehicles wait on a loop while others pass.
    assert_eq!(after_usual("LLLLLLLLLL"), [""; 0]);
    let half_an_hour = "L".repeat(30);
    assert_eq!(after_usual(&half_an_hour), ["59 opened locked_on 1"]);
}

#[test]
fn chatter_and_speeds_beyond_reason() {
    assert_eq!(after_usual("#4#4"), [""; 0]);
    assert_eq!(after_usual("##"), ["31 opened chatter 1"]);
    assert_eq!(after_usual("!!4!"), [""; 0]);
    assert_eq!(after_usual("!!!"), ["32 opened implausible 1"]);
    // One record for all four lanes of a road may count so many.
    let mut road = Road::new();
    road.go(1, &[&format!("{USUAL}####")], &[]);
    assert_eq!(road.story(), [""; 0]);
}

#[test]
fn probes_contradict_a_sensor() {
    let run = |own: MmPerS, other: MmPerS| {
        let mut road = Road::new();
        let at = segment(&road.network, 1);
        let twin = road.network.segment(at).twin.unwrap();
        road.go(1, &[USUAL], &[(at, own), (twin, other)]);
        road.story()
    };
    assert_eq!(run(12_000, 12_000), [""; 0]);
    assert_eq!(run(6_000, 5_000), ["14 opened biased 1"]);
    assert_eq!(run(22_000, 28_000), ["14 opened biased 1"]);
    assert_eq!(run(6_000, 11_500), ["14 opened swapped 1"]);
    assert_eq!(run(3_300, 3_300), ["14 opened unit 1"]);
}

#[test]
fn alerts_keep_their_identity_and_have_a_limit() {
    let mut road = Road::new();
    road.settings.alerts_max = 1;
    road.go(1, &[USUAL, USUAL, USUAL], &[]);
    road.go(1, &["3=====", "3=====", "435246"], &[]);
    assert_eq!(road.story(), ["33 opened stuck 1"]);
    assert_eq!(road.watch.faulty().len(), 2, "not believed, although not told");
    // Another fault of the same sensor is the same alert.
    road.go(1, &["uuu", "435", "435"], &[]);
    road.go(1, &[USUAL, USUAL, USUAL], &[]);
    let revisions: Vec<u32> = road.told.iter().map(|(_, a)| a.revision).collect();
    let transitions: Vec<_> = road.told.iter().map(|(_, a)| a.transition).collect();
    assert_eq!(revisions, (1..=revisions.len() as u32).collect::<Vec<_>>());
    assert_eq!(transitions.last(), Some(&Transition::Resolved));
    assert!(road.told.iter().all(|(_, a)| a.id == road.told[0].1.id));
    assert!(road.watch.faulty().is_empty());
}

#[test]
fn what_is_no_longer_heard_of_is_held_and_stale() {
    let mut road = Road::new();
    road.go(1, &[&format!("{USUAL}3===")], &[]);
    let due = road.watch.due(900_000);
    road.go(1, &["--------------------"], &[]);
    assert_eq!(road.story(), ["33 opened stuck 1", "48 updated stuck 1 stale"]);
    assert_eq!(due, Some(road.told[1].1.updated_at));
    assert_eq!(road.watch.due(900_000), None);
}

#[test]
fn a_watch_restored_in_the_middle_of_a_suspicion_goes_on_as_if_nothing_had_been() {
    let series = format!("{USUAL}3=====u0uu{USUAL}0000000--------43");
    let beside: String = USUAL.chars().cycle().take(series.len()).collect();
    let mut whole = Road::new();
    whole.go(1, &[&series, &beside], &[]);
    assert!(whole.story().len() > 4, "{:?}", whole.story());
    for cut in [29, 31, 32, 37, 39, 72, 80] {
        let mut parts = Road::new();
        parts.go(1, &[&series[..cut], &beside[..cut]], &[]);
        let bytes = postcard::to_stdvec(&parts.watch).unwrap();
        parts.watch = postcard::from_bytes(&bytes).unwrap();
        parts.go(1, &[&series[cut..], &beside[cut..]], &[]);
        assert_eq!(parts.told, whole.told, "cut at {cut}");
    }
}
