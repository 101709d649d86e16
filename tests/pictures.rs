//! Small scenes on maps drawn in characters: what happens on the road is a script, what viaflux tells of it is
//! compared as text.
#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod scene;

use std::collections::BTreeMap;

use scene::{Item, Rig, Told, Town, draw, measurement, report};
use serde_json::Value;
use viaflux::ingest::{Feed, Rejection};
use viaflux::publish::Topic;

/// Plays a script. A line is one of
///
/// ```text
/// 0:00-10:00 every 20 s: ABC at 36 km/h                 a vehicle sets out every 20 s, reports every 5 s
/// 0:00-10:00 every 20 s: ABC at 36 km/h, 90 s before B  and stands for 90 s, 10 m before B
/// 0:00-10:00 every 20 s: ABC at 36 km/h, 90 s before B by 50   or so many metres before it
/// 0:00-10:00 loop on A>B: 40 km/h 600 veh/h             a sensor's minutes
/// ```
fn play(town: &Town, script: &str) -> (Rig, Vec<Item>) {
    let mut rig = Rig::new(town, vec![Feed::Probe, Feed::Sensor]);
    rig.every_pane = true;
    rig.observe = true;
    let mut items = Vec::new();
    for (n, line) in script
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .enumerate()
    {
        let (head, tail) = line.split_once(": ").unwrap();
        let words: Vec<&str> = head.split_whitespace().collect();
        let (from, to) = words[0].split_once('-').unwrap();
        let (from, to) = (clock(from), clock(to));
        let tail: Vec<&str> = tail.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        match words[1] {
            "every" => {
                let every: i64 = words[2].parse::<i64>().unwrap() * 1000;
                let wait = tail.get(4).map(|s| Wait {
                    ms: s.parse::<i64>().unwrap() * 1000,
                    node: tail[7].chars().next().unwrap(),
                    metres: tail.get(9).map_or(10.0, |m| m.parse().unwrap()),
                });
                for (k, start) in (from..to).step_by(every as usize).enumerate() {
                    drive(
                        town,
                        &format!("v{n}-{k}"),
                        start,
                        tail[0],
                        tail[2].parse().unwrap(),
                        wait,
                        &mut items,
                    );
                }
            }
            "loop" => {
                let id = format!("loop-{n}");
                for end in (from + 60_000..=to).step_by(60_000) {
                    let (speed, flow) = (tail[0].parse().unwrap(), tail[2].parse().unwrap());
                    let payload = measurement(&id, end, 60_000, speed, flow);
                    items.push(Item {
                        log: 1,
                        arrival: end,
                        payload,
                    });
                }
                rig.sensors.push((id, town.segment(words[3])));
            }
            other => panic!("{other} in {line}"),
        }
    }
    if rig.sensors.is_empty() {
        rig.feeds.pop();
    }
    items.sort_by_key(|i| i.arrival);
    (rig, items)
}

fn clock(text: &str) -> i64 {
    let (minutes, seconds) = text.split_once(':').unwrap();
    (minutes.parse::<i64>().unwrap() * 60 + seconds.parse::<i64>().unwrap()) * 1000
}

#[derive(Clone, Copy)]
struct Wait {
    ms: i64,
    node: char,
    metres: f64,
}

fn drive(
    town: &Town,
    id: &str,
    start: i64,
    nodes: &str,
    kph: f64,
    wait: Option<Wait>,
    items: &mut Vec<Item>,
) {
    let road = town.road(nodes);
    let (mut m, mut t, mut waited) = (1.0, start, 0);
    while m < road.length() {
        let stands = wait.is_some_and(|w| m >= road.to(w.node) - w.metres && waited < w.ms);
        let speed = if stands { 0.0 } else { kph / 3.6 };
        if (t - start) % 5_000 == 0 {
            let payload = report(id, t, road.place(m), speed, "car");
            items.push(Item {
                log: 0,
                arrival: t,
                payload,
            });
        }
        waited += if stands { 1000 } else { 0 };
        m += speed;
        t += 1000;
    }
}

fn ms(text: &Value) -> i64 {
    viaflux::units::EventTime::parse_rfc3339(text.as_str().unwrap())
        .unwrap()
        .ms()
        - scene::EPOCH
}

fn mm_ss(ms: i64) -> String {
    format!("{}:{:02}", ms / 60_000, ms / 1000 % 60)
}

fn bodies(told: &Told, topic: Topic) -> impl Iterator<Item = Value> + '_ {
    let of = move |p: &&viaflux::publish::Publication| p.topic == topic;
    told.publications
        .iter()
        .filter(of)
        .map(|p| serde_json::from_slice(p.body.as_ref().unwrap()).unwrap())
}

/// What was told of one segment, by the end of the pane.
fn states(told: &Told, town: &Town, segment: &str) -> BTreeMap<i64, Value> {
    let key = town.key(segment).to_string();
    bodies(told, Topic::SegmentState)
        .filter(|s| s["segment_id"] == key.as_str())
        .map(|s| (ms(&s["window_end"]), s))
        .collect()
}

/// Level, grade and basis of segments: a line whenever one of them changes.
fn changes(told: &Told, town: &Town, segments: &[&str]) -> String {
    let all: Vec<BTreeMap<i64, Value>> = segments.iter().map(|s| states(told, town, s)).collect();
    let mut lines = vec![
        segments
            .iter()
            .fold(format!("{:>5}", ""), |l, s| l + &format!("  {s:<36}")),
    ];
    let mut last = Vec::new();
    for (end, _) in &told.chain {
        let cell = |s: &BTreeMap<i64, Value>| match s.get(end) {
            Some(v) => {
                let word = |k: &str| v[k].as_str().unwrap_or("-").to_owned();
                format!("{} {} {}", word("level"), word("grade"), word("basis"))
            }
            None => "-".to_owned(),
        };
        let cells: Vec<String> = all.iter().map(cell).collect();
        if cells != last {
            lines.push(
                cells
                    .iter()
                    .fold(format!("{:>5}", mm_ss(*end)), |l, c| l + &format!("  {c:<36}")),
            );
            last = cells;
        }
    }
    lines.join("\n")
}

/// Every revision of every alert; ids by the order of their first revision.
fn alerts(told: &Told) -> String {
    let mut ids: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for a in bodies(told, Topic::AlertEvent) {
        let id = a["alert_id"].as_str().unwrap().to_owned();
        let n = ids.iter().position(|i| *i == id).unwrap_or_else(|| {
            ids.push(id);
            ids.len() - 1
        });
        let e = &a["evidence"];
        let window = e["windows"][0].as_str().unwrap().split_once('/').unwrap();
        let at = |text: &str| mm_ss(ms(&text.into()));
        let until = if a["ends_at"].is_null() {
            String::new()
        } else {
            format!(" until {}", mm_ss(ms(&a["ends_at"])))
        };
        lines.push(format!(
            "{:>5}  #{} {} {} {} since {}{until}: ratio {}, delay {} s; over {}-{} {} vehicles, {} positions, {} {}{}",
            mm_ss(ms(&a["updated_at"])),
            n + 1,
            a["revision"],
            a["transition"].as_str().unwrap(),
            a["severity"].as_str().unwrap(),
            mm_ss(ms(&a["starts_at"])),
            a["values"]["speed_ratio"],
            a["values"]["delay_s"],
            at(window.0),
            at(window.1),
            e["vehicle_count"],
            e["sample_count"],
            e["basis"].as_str().unwrap(),
            e["confidence"],
            if a["stale"] == true { ", stale" } else { "" },
        ));
    }
    lines.join("\n")
}

/// Compares text line by line, without what stands at the ends of lines.
fn expect(found: &str, expected: &str) {
    let clean = |text: &str| {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        lines.join("\n")
    };
    assert!(
        clean(found) == clean(expected),
        "found:\n{found}\n\nexpected:\n{expected}"
    );
}

/// A street with traffic lights at B, and another one elsewhere whose traffic moves time on.
fn street() -> Town {
    draw(
        "\
A         B         C
          S


X         Y         Z",
        &["ABC", "BS highway=residential", "XYZ highway=residential"],
        "B",
    )
}

#[test]
fn a_one_way_street() {
    let town = draw(
        "A         B         C\n          S",
        &["ABC oneway=yes", "BS highway=residential"],
        "",
    );
    let names: Vec<String> = (0..town.network.segments().len() as u32)
        .map(|s| town.name(s))
        .collect();
    assert!(
        names.contains(&"A>B".to_owned()) && !names.contains(&"B>A".to_owned()),
        "{names:?}"
    );
    let along = "0:00-6:00 every 15 s: ABC at 36 km/h";
    let (rig, items) = play(&town, along);
    let told = rig.run(&items, 8192);
    expect(
        &changes(&told, &town, &["A>B", "B>C", "B>S"]),
        "\
       A>B                                   B>C                                   B>S
 0:30  free_flow unobstructed blended        -                                     -
 1:00  free_flow unobstructed live           free_flow unobstructed blended        -
 1:30  free_flow unobstructed live           free_flow unobstructed live           -",
    );
    // Someone who drives the wrong way does not drive: his positions count, his speed does not.
    let (rig, items) = play(&town, &format!("{along}\n1:00-3:00 every 30 s: CBA at 18 km/h"));
    let wrong = rig.run(&items, 8192);
    assert_eq!(wrong.used() as usize, items.len(), "{:?}", wrong.counts);
    let speeds = |told: &Told| -> Vec<f64> {
        let all = states(told, &town, "A>B")
            .into_values()
            .chain(states(told, &town, "B>C").into_values());
        all.filter_map(|s| s["current_speed_kph"].as_f64()).collect()
    };
    let (right, wrong_speeds) = (speeds(&told), speeds(&wrong));
    assert_eq!(right.len(), wrong_speeds.len());
    for (a, b) in right.iter().zip(wrong_speeds) {
        // Five seconds before B, where a step back is within the tolerance, count as standing.
        assert!((a - b).abs() < 0.02 * a, "{a} km/h, with wrong-way drivers {b}");
    }
    expect(
        &changes(&wrong, &town, &["A>B", "B>C", "B>S"]),
        "\
       A>B                                   B>C                                   B>S
 0:30  free_flow unobstructed blended        -                                     -
 1:00  free_flow unobstructed live           free_flow unobstructed blended        -
 1:30  free_flow unobstructed live           free_flow unobstructed live           -",
    );
}

#[test]
fn a_queue_before_a_signal() {
    let town = street();
    let (rig, items) = play(
        &town,
        "0:00-5:00   every 20 s: ABC at 36 km/h
         5:00-12:00  every 20 s: ABC at 36 km/h, 100 s before B
         12:00-24:00 every 20 s: ABC at 36 km/h",
    );
    let told = rig.run(&items, 8192);
    expect(
        &changes(&told, &town, &["A>B", "B>C", "C>B"]),
        "\
       A>B                                   B>C                                   C>B
 0:30  free_flow unobstructed blended        -                                     -
 1:00  free_flow unobstructed live           free_flow unobstructed blended        -
 1:30  free_flow unobstructed live           free_flow unobstructed live           -
 6:30  heavy unobstructed live               free_flow unobstructed live           -
 7:00  slow unobstructed live                free_flow unobstructed live           -
 7:30  slow basically_unobstructed live      free_flow unobstructed live           -
 8:30  slow light live                       free_flow unobstructed live           -
 9:30  slow moderate live                    free_flow unobstructed live           -
15:00  slow light live                       free_flow unobstructed live           -
16:00  slow basically_unobstructed live      free_flow unobstructed live           -
17:30  heavy unobstructed live               free_flow unobstructed live           -
18:30  free_flow unobstructed live           free_flow unobstructed live           -",
    );
    expect(&alerts(&told), "\
11:00  #1 1 opened minor since 8:00: ratio 0.315, delay 103.0 s; over 9:00-11:00 13 vehicles, 180 positions, live 0.971
14:30  #1 2 updated minor since 8:00: ratio 0.5, delay 47.4 s; over 12:30-14:30 13 vehicles, 120 positions, live 0.963
15:30  #1 3 updated minor since 8:00: ratio 0.812, delay 11.0 s; over 13:30-15:30 10 vehicles, 72 positions, live 0.944
16:30  #1 4 updated minor since 8:00: ratio 0.947, delay 2.7 s; over 14:30-16:30 8 vehicles, 60 positions, live 0.933
19:30  #1 5 resolved minor since 8:00 until 19:30: ratio 0.947, delay 2.7 s; over 17:30-19:30 8 vehicles, 60 positions, live 0.933");
}

#[test]
fn from_live_to_stale_to_unknown() {
    let town = street();
    let (rig, items) = play(
        &town,
        "0:00-4:00  every 20 s: ABC at 27 km/h
         0:00-24:00 every 20 s: XYZ at 20 km/h",
    );
    let told = rig.run(&items, 8192);
    expect(
        &changes(&told, &town, &["A>B", "X>Y"]),
        "\
       A>B                                   X>Y
 0:30  heavy unobstructed blended            heavy unobstructed blended
 1:00  slow unobstructed live                heavy unobstructed live
 7:00  slow unobstructed blended             heavy unobstructed live
20:00  unknown - none                        heavy unobstructed live
20:30  -                                     heavy unobstructed live",
    );
    let mut lines = String::new();
    for (end, s) in states(&told, &town, "A>B")
        .iter()
        .filter(|(end, _)| **end % 120_000 == 0)
    {
        lines += &format!(
            "{:>5}  {} km/h, {} {}, {} s old, confidence {}, {} vehicles\n",
            mm_ss(*end),
            s["current_speed_kph"],
            s["level"].as_str().unwrap(),
            s["basis"].as_str().unwrap(),
            s["age_s"],
            s["confidence"],
            s["vehicle_count"],
        );
    }
    expect(
        &lines,
        "\
 2:00  27.0 km/h, slow live, 0 s old, confidence 0.933, 6 vehicles
 4:00  27.0 km/h, slow live, 0 s old, confidence 0.968, 12 vehicles
 6:00  27.0 km/h, slow live, 73 s old, confidence 0.967, 12 vehicles
 8:00  27.0 km/h, slow blended, 193 s old, confidence 0.7, 6 vehicles
10:00  27.0 km/h, slow blended, 313 s old, confidence 0.459, 0 vehicles
12:00  27.0 km/h, slow blended, 433 s old, confidence 0.299, 0 vehicles
14:00  27.0 km/h, slow blended, 553 s old, confidence 0.195, 0 vehicles
16:00  27.0 km/h, slow blended, 673 s old, confidence 0.126, 0 vehicles
18:00  27.0 km/h, slow blended, 793 s old, confidence 0.081, 0 vehicles
20:00  null km/h, unknown none, null s old, confidence 0.0, 0 vehicles",
    );
}

#[test]
fn an_alert_is_held_by_silence() {
    let town = street();
    let (rig, items) = play(
        &town,
        "0:00-10:00 every 20 s: ABC at 36 km/h, 120 s before B
         0:00-50:00 every 20 s: XYZ at 20 km/h",
    );
    let told = rig.run(&items, 8192);
    expect(&alerts(&told), "\
 5:30  #1 1 opened minor since 2:30: ratio 0.279, delay 122.4 s; over 3:30-5:30 14 vehicles, 204 positions, live 0.974
11:00  #1 2 updated moderate since 2:30: ratio 0.19, delay 201.9 s; over 9:00-11:00 11 vehicles, 180 positions, live 0.97
12:00  #1 3 updated major since 2:30: ratio 0.062, delay 716.6 s; over 10:00-12:00 8 vehicles, 120 positions, live 0.956
12:30  #1 4 updated critical since 2:30: ratio 0.02, delay 2320.9 s; over 10:30-12:30 6 vehicles, 84 positions, live 0.941
14:00  #1 5 updated moderate since 2:30: ratio 0.142, delay 286.2 s; over 9:00-14:00 11 vehicles, 230 positions, live 0.977
27:30  #1 6 updated moderate since 2:30: ratio 0.142, delay 286.2 s; over 9:00-14:00 11 vehicles, 230 positions, live 0.977, stale");
}

/// What was told of roads on which nobody passes.
fn obstructions(told: &Told, town: &Town) -> String {
    let mut lines = Vec::new();
    for a in bodies(told, Topic::AlertEvent) {
        let kind = a["type"].as_str().unwrap();
        if !["incident_suspected", "closure_suspected"].contains(&kind) {
            continue;
        }
        let (v, place) = (&a["values"], &a["place"]);
        let names: Vec<String> = (0..town.network.segments().len() as u32)
            .filter(|s| {
                let key = town.network.segment(*s).key.to_string();
                place["segment_ids"].as_array().unwrap().contains(&key.into())
            })
            .map(|s| town.name(s))
            .collect();
        lines.push(format!(
            "{:>5}  {} {kind} {} {} since {} on {}, {} m: {} stand, {} s without passage, {} expected, score {}{}",
            mm_ss(ms(&a["updated_at"])),
            a["revision"],
            a["transition"].as_str().unwrap(),
            a["severity"].as_str().unwrap(),
            mm_ss(ms(&a["starts_at"])),
            names.join(" "),
            place["length_m"],
            v["vehicles_standing"],
            v["without_passage_s"],
            v["passages_expected"],
            v["score"],
            if a["stale"] == true { ", stale" } else { "" },
        ));
    }
    lines.join("\n")
}

#[test]
fn a_blocked_road_is_an_incident_and_its_end_is_seen() {
    let town = street();
    let (rig, items) = play(
        &town,
        "0:00-15:00  every 20 s: ABC at 36 km/h
         15:00-20:00 every 20 s: ABC at 36 km/h, 400 s before B by 100
         20:00-30:00 every 20 s: ABC at 36 km/h",
    );
    let told = obstructions(&rig.run(&items, 8192), &town);
    let [opened, resolved] = told.lines().collect::<Vec<_>>()[..] else {
        panic!("{told}")
    };
    assert!(
        opened.contains("1 incident_suspected opened major") && opened.contains("on A>B,"),
        "{told}"
    );
    assert!(resolved.contains("2 incident_suspected resolved"), "{told}");
    // The first stands from 15:35 on; those that set out at 20:00 find the road free and pass B from 20:45 on.
    let minute = |line: &str| clock(line.split_whitespace().next().unwrap()) / 60_000;
    assert!(
        (17..=19).contains(&minute(opened)) && (21..=22).contains(&minute(resolved)),
        "{told}"
    );
    assert_eq!(
        obstructions(&rig.run(&items, 7), &town),
        told,
        "whatever a batch holds"
    );
}

#[test]
fn a_blocked_road_whose_vehicles_fall_silent_stays_blocked() {
    let town = street();
    let (rig, mut items) = play(
        &town,
        "0:00-15:00  every 20 s: ABC at 36 km/h
         15:00-20:00 every 20 s: ABC at 36 km/h, 3000 s before B by 100
         0:00-50:00  every 20 s: XYZ at 20 km/h",
    );
    let of_xyz = |i: &Item| i.payload.contains("\"v2-");
    items.retain(|i| i.arrival < 1_200_000 || of_xyz(i));
    let told = obstructions(&rig.run(&items, 8192), &town);
    let last = told.lines().last().unwrap();
    assert!(last.ends_with(", stale") && !told.contains("resolved"), "{told}");
}

#[test]
fn a_red_light_and_a_queue_from_farther_on_are_no_incidents() {
    let town = street();
    let signal = "0:00-30:00 every 20 s: ABC at 36 km/h, 110 s before B by 60";
    let (rig, items) = play(&town, signal);
    expect(&obstructions(&rig.run(&items, 8192), &town), "");
    // The obstruction lies beyond B, and the queue reaches back over it.
    let (rig, items) = play(
        &town,
        "0:00-15:00  every 20 s: ABC at 36 km/h
         15:00-16:00 every 20 s: ABC at 36 km/h, 900 s before C by 350
         16:00-20:00 every 20 s: ABC at 36 km/h, 900 s before B by 60",
    );
    expect(&obstructions(&rig.run(&items, 8192), &town), "");
}

#[test]
fn an_alert_comes_back_under_its_id_within_ten_minutes() {
    let town = street();
    for (again, expected) in [("17:00-25:00", "\
 5:30  #1 1 opened minor since 2:30: ratio 0.279, delay 122.4 s; over 3:30-5:30 14 vehicles, 204 positions, live 0.974
 9:30  #1 2 updated minor since 2:30: ratio 0.416, delay 66.5 s; over 7:30-9:30 14 vehicles, 144 positions, live 0.967
10:30  #1 3 updated minor since 2:30: ratio 0.707, delay 19.6 s; over 8:30-10:30 11 vehicles, 84 positions, live 0.949
11:30  #1 4 updated minor since 2:30: ratio 0.947, delay 2.7 s; over 9:30-11:30 8 vehicles, 60 positions, live 0.933
15:00  #1 5 resolved minor since 2:30 until 15:00: ratio 0.947, delay 2.7 s; over 13:00-15:00 8 vehicles, 60 positions, live 0.933
22:30  #1 6 opened minor since 2:30: ratio 0.279, delay 122.4 s; over 20:30-22:30 14 vehicles, 204 positions, live 0.974
27:30  #1 7 updated minor since 2:30: ratio 0.416, delay 66.5 s; over 25:30-27:30 14 vehicles, 144 positions, live 0.967
28:30  #1 8 updated minor since 2:30: ratio 0.707, delay 19.6 s; over 26:30-28:30 11 vehicles, 84 positions, live 0.949
29:30  #1 9 updated minor since 2:30: ratio 0.947, delay 2.7 s; over 27:30-29:30 8 vehicles, 60 positions, live 0.933
33:00  #1 10 resolved minor since 2:30 until 33:00: ratio 0.947, delay 2.7 s; over 31:00-33:00 8 vehicles, 60 positions, live 0.933"), ("40:00-48:00", "\
 5:30  #1 1 opened minor since 2:30: ratio 0.279, delay 122.4 s; over 3:30-5:30 14 vehicles, 204 positions, live 0.974
 9:30  #1 2 updated minor since 2:30: ratio 0.416, delay 66.5 s; over 7:30-9:30 14 vehicles, 144 positions, live 0.967
10:30  #1 3 updated minor since 2:30: ratio 0.707, delay 19.6 s; over 8:30-10:30 11 vehicles, 84 positions, live 0.949
11:30  #1 4 updated minor since 2:30: ratio 0.947, delay 2.7 s; over 9:30-11:30 8 vehicles, 60 positions, live 0.933
15:00  #1 5 resolved minor since 2:30 until 15:00: ratio 0.947, delay 2.7 s; over 13:00-15:00 8 vehicles, 60 positions, live 0.933
45:30  #2 1 opened minor since 42:30: ratio 0.279, delay 122.4 s; over 43:30-45:30 14 vehicles, 204 positions, live 0.974
50:30  #2 2 updated minor since 42:30: ratio 0.416, delay 66.5 s; over 48:30-50:30 14 vehicles, 144 positions, live 0.967
51:30  #2 3 updated minor since 42:30: ratio 0.707, delay 19.6 s; over 49:30-51:30 11 vehicles, 84 positions, live 0.949
52:30  #2 4 updated minor since 42:30: ratio 0.947, delay 2.7 s; over 50:30-52:30 8 vehicles, 60 positions, live 0.933
56:00  #2 5 resolved minor since 42:30 until 56:00: ratio 0.947, delay 2.7 s; over 54:00-56:00 8 vehicles, 60 positions, live 0.933")] {
        let (from, to) = again.split_once('-').unwrap();
        let script = format!(
            "0:00-7:00    every 20 s: ABC at 36 km/h, 120 s before B
             7:00-{from}  every 20 s: ABC at 36 km/h
             {from}-{to}  every 20 s: ABC at 36 km/h, 120 s before B
             {to}-60:00   every 20 s: ABC at 36 km/h"
        );
        let (rig, items) = play(&town, &script);
        expect(&alerts(&rig.run(&items, 8192)), expected);
    }
}

#[test]
fn a_sensor_and_probes_speak_of_one_segment() {
    let town = street();
    let told = |script: &str| {
        let (rig, items) = play(&town, script);
        let told = rig.run(&items, 8192);
        let all = states(&told, &town, "X>Y");
        let s = &all[&360_000];
        format!(
            "{} km/h, probes {}, sensors {}, confidence {}, {}",
            s["current_speed_kph"],
            s["probe_share"],
            s["sensor_share"],
            s["confidence"],
            s["basis"].as_str().unwrap()
        )
    };
    let probes = "0:00-8:00 every 60 s: XYZ at 12 km/h";
    let sensor = "0:00-8:00 loop on X>Y: 24 km/h 600 veh/h";
    expect(
        &told(probes),
        "\
12.0 km/h, probes 1.0, sensors 0.0, confidence 0.959, live",
    );
    expect(
        &told(&format!("{sensor}\n0:00-8:00 every 60 s: ABC at 36 km/h")),
        "\
23.7 km/h, probes 0.0, sensors 1.0, confidence 0.754, live",
    );
    expect(
        &told(&format!("{probes}\n{sensor}")),
        "\
13.3 km/h, probes 0.885, sensors 0.115, confidence 0.964, live",
    );
}

/// Where each position of a vehicle was placed.
fn places(told: &Told, town: &Town, vehicle: &str) -> String {
    let mut lines = Vec::new();
    for line in &told.matches {
        let m: Value = serde_json::from_str(line).unwrap();
        if m["vehicle_id"] != vehicle {
            continue;
        }
        let segment = (0..town.network.segments().len() as u32)
            .find(|s| m["segment_id"] == town.network.segment(*s).key.to_string().as_str());
        let place = segment.map_or("-".to_owned(), |s| {
            format!("{} +{} m", town.name(s), m["offset_m"].as_f64().unwrap().round())
        });
        lines.push((
            ms(&m["event_time"]),
            format!("{}  {place}", mm_ss(ms(&m["event_time"]))),
        ));
    }
    lines.sort();
    lines.into_iter().map(|(_, l)| l).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_jump_and_a_frozen_receiver() {
    let town = street();
    let (rig, mut items) = play(&town, "0:00-2:00 every 20 s: XYZ at 20 km/h");
    let road = town.road("ABC");
    let mut tell = |id: &str, seconds: i64, metres: f64, north: f64| {
        let (lat, lon, heading) = road.place(metres);
        let payload = report(
            id,
            seconds * 1000,
            (lat + north / 110_922.4, lon, heading),
            10.0,
            "taxi",
        );
        items.push(Item {
            log: 0,
            arrival: seconds * 1000,
            payload,
        });
    };
    for s in (0..60).step_by(5) {
        // One position in ten is 300 m off; another receiver repeats itself from the 20th second on.
        tell(
            "jumps",
            s,
            50.0 + 10.0 * s as f64,
            if s == 25 { 300.0 } else { 0.0 },
        );
        tell("freezes", s, 50.0 + 10.0 * s.min(20) as f64, 0.0);
    }
    items.sort_by_key(|i| i.arrival);
    let told = rig.run(&items, 8192);
    assert_eq!(
        (told.refused(Rejection::Jump), told.refused(Rejection::Frozen)),
        (1, 6),
        "{:?}",
        told.counts
    );
    expect(
        &places(&told, &town, "jumps"),
        "\
0:00  A>B +50 m
0:05  A>B +100 m
0:10  A>B +150 m
0:15  A>B +200 m
0:20  A>B +250 m
0:30  A>B +350 m
0:35  A>B +400 m
0:40  A>B +450 m
0:45  B>C +0 m
0:50  B>C +50 m
0:55  B>C +100 m",
    );
    expect(
        &places(&told, &town, "freezes"),
        "\
0:00  A>B +50 m
0:05  A>B +100 m
0:10  A>B +150 m
0:15  A>B +200 m
0:20  A>B +250 m
0:25  A>B +250 m",
    );
}

#[test]
fn a_bus_on_a_road_for_buses() {
    let town = draw(
        "\
A         B
C         D",
        &[
            "AB highway=tertiary oneway=yes",
            "CD highway=tertiary oneway=yes access=no bus=yes",
        ],
        "",
    );
    let mut rig = Rig::new(&town, vec![Feed::Probe]);
    rig.observe = true;
    let road = town.road("AB");
    let mut items = Vec::new();
    for s in (0..20).step_by(5) {
        for class in ["bus", "car", "truck"] {
            // 26 m from the road, 24 m from the buses' one.
            let (lat, lon, heading) = road.place(20.0 + 10.0 * s as f64);
            let payload = report(
                class,
                s * 1000,
                (lat - 26.0 / 110_922.4, lon, heading),
                10.0,
                class,
            );
            items.push(Item {
                log: 0,
                arrival: s * 1000,
                payload,
            });
        }
    }
    let told = rig.run(&items, 8192);
    for (class, expected) in [
        (
            "bus",
            "\
0:00  C>D +20 m
0:05  C>D +70 m
0:10  C>D +120 m
0:15  C>D +170 m",
        ),
        (
            "car",
            "\
0:00  A>B +20 m
0:05  A>B +70 m
0:10  A>B +120 m
0:15  A>B +170 m",
        ),
        (
            "truck",
            "\
0:00  A>B +20 m
0:05  A>B +70 m
0:10  A>B +120 m
0:15  A>B +170 m",
        ),
    ] {
        expect(&places(&told, &town, class), expected);
    }
}

// --- what stands ---------------------------------------------------------------------------------------

/// A vehicle that drives at 36 km/h and stands once.
struct Trip<'a> {
    id: String,
    start: i64,
    nodes: &'a str,
    /// Metres from the beginning.
    at: f64,
    /// Seconds.
    stands: i64,
    class: &'a str,
}

impl Trip<'_> {
    /// Reports every 5 s; `says` is what it adds after standing for some seconds, none before its stop.
    fn tell(&self, town: &Town, items: &mut Vec<Item>, says: impl Fn(Option<i64>) -> String) {
        let road = town.road(self.nodes);
        let (mut m, mut t, mut stood) = (1.0, self.start, None);
        while m < road.length() {
            let stands = m >= self.at && stood.unwrap_or(0) < self.stands;
            if (t - self.start) % 5_000 == 0 {
                let speed = if stands { 0.0 } else { 10.0 };
                let mut payload = report(&self.id, t, road.place(m), speed, self.class);
                payload.truncate(payload.len() - 1);
                payload += &format!("{}}}", says(stood));
                items.push(Item {
                    log: 0,
                    arrival: t,
                    payload,
                });
            }
            t += 1000;
            if stands {
                stood = Some(stood.unwrap_or(0) + 1);
            } else {
                m += 10.0;
            }
        }
    }
}

/// What was told of a segment while `items` and a car every 20 s along `cars` pass for 30 min, and time moves on.
fn while_cars_pass(town: &Town, cars: &str, items: &[Item]) -> Told {
    let script = format!("0:00-30:00 every 20 s: XYZ at 36 km/h\n{cars}");
    let (rig, mut all) = play(town, &script);
    all.extend(items.iter().cloned());
    all.sort_by_key(|i| i.arrival);
    let told = rig.run(&all, 8192);
    assert_eq!(told.used() as usize, all.len(), "{:?}", told.counts);
    told
}

/// Speeds of A>B by the end of the pane.
fn speeds(told: &Told, town: &Town) -> BTreeMap<i64, f64> {
    let all = states(told, town, "A>B").into_iter();
    all.filter_map(|(end, s)| Some((end, s["current_speed_kph"].as_f64()?)))
        .collect()
}

/// The lowest speed of A>B told between two minutes.
fn lowest(told: &Told, town: &Town, minutes: std::ops::Range<i64>) -> f64 {
    let within = speeds(told, town)
        .into_iter()
        .filter(|(end, _)| minutes.contains(&(end / 60_000)));
    within.map(|(_, v)| v).fold(f64::INFINITY, f64::min)
}

const CARS: &str = "0:00-30:00 every 20 s: ABC at 36 km/h";

/// Fifty vehicles that come one by one and stand for 20 min in the middle of A>B.
fn fifty(town: &Town, class: &str, every_ms: i64, says: impl Fn(Option<i64>) -> String) -> Vec<Item> {
    let mut items = Vec::new();
    for n in 0..50 {
        let trip = Trip {
            id: format!("{class}-{n}"),
            start: n * every_ms,
            nodes: "ABC",
            at: 250.0,
            stands: 1_200,
            class,
        };
        trip.tell(town, &mut items, &says);
    }
    items
}

#[test]
fn fifty_taxis_at_a_rank_are_no_jam() {
    let town = street();
    let taxis = |every_ms: i64, occupied: bool| {
        let says = format!(r#","occupied":{occupied}"#);
        fifty(&town, "taxi", every_ms, |_| says.clone())
    };
    let told = while_cars_pass(&town, CARS, &taxis(25_000, false));
    assert_eq!(alerts(&told), "");
    assert!(lowest(&told, &town, 1..30) > 22.0, "{:?}", speeds(&told, &town));
    // Nor without anyone to pass them.
    let told = while_cars_pass(&town, "", &taxis(1_000, false));
    assert_eq!(alerts(&told), "");
    // The same with passengers aboard is one.
    let told = while_cars_pass(&town, "", &taxis(1_000, true));
    assert_ne!(alerts(&told), "");
}

#[test]
fn a_bus_at_its_stop_does_not_make_its_road_slow() {
    let town = street();
    let buses = |class: &str| {
        let mut items = Vec::new();
        for n in 0..28 {
            let trip = Trip {
                id: format!("{class}-{n}"),
                start: n * 60_000,
                nodes: "ABC",
                at: 250.0,
                stands: 60,
                class,
            };
            trip.tell(&town, &mut items, |_| String::new());
        }
        let told = while_cars_pass(&town, "0:00-30:00 every 60 s: ABC at 36 km/h", &items);
        lowest(&told, &town, 6..30)
    };
    let (bus, truck) = (buses("bus"), buses("truck"));
    assert!(bus > 32.0 && truck < 26.0, "bus {bus} km/h, truck {truck} km/h");
}

#[test]
fn vacant_taxis_at_a_red_light_are_a_queue() {
    let town = street();
    let queue = |class: &str, says: &str| {
        let mut items = Vec::new();
        for n in 0..60 {
            let trip = Trip {
                id: format!("{class}-{n}"),
                start: n * 20_000,
                nodes: "ABC",
                at: 490.0,
                stands: 100,
                class,
            };
            trip.tell(&town, &mut items, |_| says.to_owned());
        }
        while_cars_pass(&town, "", &items)
    };
    let (cars, taxis) = (queue("car", ""), queue("taxi", r#","occupied":false"#));
    assert_ne!(alerts(&cars), "");
    assert_eq!(speeds(&cars, &town), speeds(&taxis, &town));
}

/// Vehicles that stop in the middle of A>B two minutes after the beginning, for 20 min.
fn broken_down(town: &Town, vehicles: i64, says: impl Fn(Option<i64>) -> String) -> Vec<Item> {
    let mut items = Vec::new();
    for n in 0..vehicles {
        let trip = Trip {
            id: format!("stands-{n}"),
            start: 95_000 + n * 10_000,
            nodes: "ABC",
            at: 250.0 - 20.0 * n as f64,
            stands: 1_200,
            class: "car",
        };
        trip.tell(town, &mut items, &says);
    }
    items
}

#[test]
fn a_vehicle_that_others_pass_is_no_traffic() {
    let town = street();
    let one = broken_down(&town, 1, |_| String::new());
    let told = while_cars_pass(&town, CARS, &one);
    assert_eq!(alerts(&told), "");
    // Three minutes as any other; when those have left the window, nothing of it is left.
    assert!(lowest(&told, &town, 3..6) < 32.0, "{:?}", speeds(&told, &town));
    assert!(lowest(&told, &town, 12..22) > 35.9, "{:?}", speeds(&told, &town));
    let of = |told: &Told, minute: i64| states(told, &town, "A>B")[&(minute * 60_000)].clone();
    let alone = while_cars_pass(&town, CARS, &[]);
    assert_eq!(of(&told, 15)["vehicle_count"], of(&alone, 15)["vehicle_count"]);
}

#[test]
fn two_that_stand_are_a_jam_and_one_is_not() {
    let town = street();
    let two = while_cars_pass(&town, "", &broken_down(&town, 2, |_| String::new()));
    let level = |told: &Told, minute: i64| {
        let s = states(told, &town, "A>B")[&(minute * 60_000)].clone();
        format!(
            "{} {}",
            s["level"].as_str().unwrap(),
            s["basis"].as_str().unwrap()
        )
    };
    assert_eq!(
        (level(&two, 7), level(&two, 20)),
        ("stationary live".to_owned(), "stationary live".to_owned())
    );
    // Of one alone nobody can tell after five minutes; that it stood is held until it is too old.
    let one = while_cars_pass(&town, "", &broken_down(&town, 1, |_| String::new()));
    let age = |told: &Told, minute: i64| states(told, &town, "A>B")[&(minute * 60_000)]["age_s"].as_f64();
    assert!(
        age(&two, 20) < Some(60.0) && age(&one, 20) > Some(600.0),
        "{:?}",
        age(&one, 20)
    );
    // Not so with its ignition off: it is parked after a minute.
    let off = |stood: Option<i64>| {
        let off = stood.is_some_and(|s| s > 5);
        format!(r#","ignition":{}"#, !off)
    };
    let parked = while_cars_pass(&town, CARS, &broken_down(&town, 2, off));
    assert!(
        lowest(&parked, &town, 9..30) > 35.9,
        "{:?}",
        speeds(&parked, &town)
    );
}

#[test]
fn a_passenger_gets_in() {
    let town = street();
    let taxis = |flips: i64| {
        let mut items = Vec::new();
        for n in 0..28 {
            let trip = Trip {
                id: format!("taxi-{n}"),
                start: n * 60_000,
                nodes: "ABC",
                at: 250.0,
                stands: 60,
                class: "taxi",
            };
            // Who flags it down is aboard after some seconds, who leaves it is not.
            trip.tell(&town, &mut items, |stood| {
                format!(r#","occupied":{}"#, stood.unwrap_or(0) < flips)
            });
        }
        let told = while_cars_pass(&town, "", &items);
        assert!(told.used() > 0);
        lowest(&told, &town, 6..28)
    };
    let (at_once, never) = (taxis(5), taxis(600));
    // Without the stop, they drive at 36 km/h, but for the seconds between two reports of which one stands; with
    // it, 500 m take 110 s.
    assert!(at_once > 31.0 && never < 17.0, "{at_once} km/h, {never} km/h");
}

#[test]
fn who_turns_off_waits_apart() {
    let town = draw(
        "\
P    A         B         C





     S         T",
        &["PABC", "AS highway=residential", "BT highway=residential"],
        "B",
    );
    let (rig, items) = play(
        &town,
        "0:00-15:00 every 30 s: PABC at 36 km/h
         0:10-15:00 every 30 s: PABT at 36 km/h, 60 s before B",
    );
    let told = rig.run(&items, 8192);
    let turn = |to: &str| {
        let (from, to) = (town.segment("A>B"), town.segment(to));
        let of = |t: &&viaflux::aggregate::TurnFlow| {
            t.from == from && t.to == to && t.begin.ms() == scene::EPOCH + 300_000
        };
        told.turns.iter().find(of).unwrap().sums
    };
    let (through, off) = (turn("B>C"), turn("B>T"));
    let mean_s = |ms: u64, n: u32| (ms as f64 / 1000.0 / f64::from(n)).round();
    assert_eq!((through.traversals, off.traversals), (10, 10));
    assert_eq!((through.stops, off.stops), (0, 10));
    // 500 m at 10 m/s.
    assert_eq!(mean_s(through.time_ms, 10), 50.0);
    let (time, delay) = (mean_s(off.time_ms, 10), mean_s(off.delay_ms, 10));
    assert!((109.0..=111.0).contains(&time), "{time} s");
    assert!(
        (delay - (time - mean_s(through.time_ms, 10))).abs() <= 4.0,
        "{delay} s of {time} s"
    );
    // Where there is no choice no turn is told.
    assert!(
        told.turns
            .iter()
            .all(|t| town.network.successors(t.from).len() > 1)
    );
}
