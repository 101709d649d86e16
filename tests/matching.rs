//! The matcher on maps drawn in characters: one vehicle's fixes in, its segments out.
#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod scene;

use std::fmt::Write as _;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use scene::{Town, below, draw};
use viaflux::locate::{Decisions, Fix, Lag, Matcher, Settings, Track};
use viaflux::units::{Bearing, EventTime, Position};

/// Metres of a degree of latitude and of longitude where towns are drawn.
const LAT_M: f64 = 110_922.4;
const LON_M: f64 = 92_385.0;

/// A fix of a vehicle at `metres` of a road, displaced by (east, north) metres.
fn fix(town: &Town, road: &str, s: f64, metres: f64, kph: f64, (east, north): (f64, f64)) -> Fix {
    let (lat, lon, heading) = town.road(road).place(metres);
    Fix {
        time: EventTime::from_ms((s * 1000.0) as i64),
        position: Position::from_degrees(lat + north / LAT_M, lon + east / LON_M).unwrap(),
        speed: Some((kph / 3.6 * 1000.0) as u32),
        heading: Bearing::from_degrees(heading),
        accuracy_mm: None,
        bus_roads: false,
        id: (s * 10.0) as u64,
    }
}

/// A steady drive along a road: a fix every `dt` seconds.
fn drive(town: &Town, road: &str, kph: f64, dt: f64) -> Vec<Fix> {
    let mut fixes = Vec::new();
    let (mut s, mut m) = (0.0, 1.0);
    while m < town.road(road).length() {
        fixes.push(fix(town, road, s, m, kph, (0.0, 0.0)));
        s += dt;
        m += kph / 3.6 * dt;
    }
    fixes
}

/// The decisions on some fixes, each once and in order.
fn decide(town: &Town, fixes: &[Fix], lag: Lag) -> Decisions {
    decide_by(town, fixes, lag, Settings::default())
}

fn decide_by(town: &Town, fixes: &[Fix], lag: Lag, settings: Settings) -> Decisions {
    let mut matcher = Matcher::new(Arc::clone(&town.network), settings, lag);
    let (mut track, mut out) = (Track::default(), Decisions::default());
    for f in fixes {
        matcher.push(&mut track, *f, &mut out);
    }
    matcher.finish(&mut track, &mut out);
    assert!(
        out.fixes.iter().map(|d| &d.fix).eq(fixes),
        "each fix once, in order"
    );
    out
}

/// Where the fixes were put, as `segment×fixes …`, by both lags, which must agree.
fn told(town: &Town, fixes: &[Fix]) -> String {
    let [online, full] = [Lag::Online, Lag::Full].map(|lag| {
        let mut runs: Vec<(String, u32)> = Vec::new();
        for d in decide(town, fixes, lag).fixes {
            let name = match d.place {
                Ok(p) => town.name(p.segment),
                Err(why) => format!("({})", why.label()),
            };
            match runs.last_mut() {
                Some(last) if last.0 == name => last.1 += 1,
                _ => runs.push((name, 1)),
            }
        }
        let mut text = String::new();
        for (name, n) in runs {
            let _ = write!(text, "{name}×{n} ");
        }
        text.trim_end().to_owned()
    });
    assert_eq!(online, full, "online, and whole");
    online
}

/// The driven way, segment by segment.
fn way(town: &Town, fixes: &[Fix]) -> String {
    let out = decide(town, fixes, Lag::Online);
    let mut names: Vec<String> = Vec::new();
    for d in &out.fixes {
        let way = d.place.as_ref().map_or(&[][..], |p| out.way(p));
        for name in way.iter().map(|s| town.name(*s)) {
            if names.last() != Some(&name) {
                names.push(name);
            }
        }
    }
    names.join(" ")
}

#[test]
fn parallel_roads_are_told_apart_by_many_fixes() {
    // 50 m apart is the grid of a picture; the lower road is brought to 20 m by displaced fixes.
    let town = draw(
        "A         B\nC         D",
        &["AB oneway=yes", "CD oneway=yes"],
        "",
    );
    let mut dice = ChaCha8Rng::seed_from_u64(5);
    let mut noisy = |north: f64| -> Vec<Fix> {
        let mut fixes = drive(&town, "AB", 36.0, 5.0);
        for f in &mut fixes {
            let metres = (f64::from(below(&mut dice, 37)) - 18.0) + north;
            f.position = Position::from_degrees(f.position.lat() + metres / LAT_M, f.position.lon()).unwrap();
        }
        fixes
    };
    // Noise of ±18 m about 15 m off the one and 35 m off the other: some fixes are nearer to the wrong one.
    let middle = town.road("AB").place(0.0).0 - 25.0 / LAT_M;
    for (north, expected) in [(-15.0, "A>B×10"), (-35.0, "C>D×10")] {
        let fixes = noisy(north);
        let below = fixes.iter().filter(|f| f.position.lat() < middle).count();
        assert!((1..10).contains(&below), "{below} of 10 fixes below the middle");
        assert_eq!(told(&town, &fixes), expected);
    }
}

#[test]
fn a_turn_back() {
    let town = draw("A         B         C", &["ABC"], "");
    let mut fixes = drive(&town, "AB", 36.0, 5.0);
    let back = drive(&town, "BA", 36.0, 5.0);
    let after = fixes.last().unwrap().time.ms() + 5_000;
    fixes.extend(back.into_iter().map(|f| Fix {
        time: f.time.plus_ms(after),
        ..f
    }));
    assert_eq!(told(&town, &fixes), "A>B×10 B>A×10");
    assert_eq!(way(&town, &fixes), "A>B B>A");
}

/// Metres along all ways between decided places.
fn driven_m(town: &Town, out: &Decisions) -> f64 {
    let length = |s| f64::from(town.network.segment(s).length_mm);
    let driven = |p: &viaflux::locate::Decided| {
        let way = out.way(p);
        let whole: f64 = way.iter().map(|s| length(*s)).sum();
        let rest = |last: &u32| length(*last) - f64::from(p.offset_mm);
        way.last()
            .map_or(0.0, |last| whole - f64::from(p.from_mm) - rest(last))
    };
    let places = out.fixes.iter().filter_map(|d| d.place.as_ref().ok());
    places.map(driven).sum::<f64>() / 1000.0
}

#[test]
fn round_the_block_and_a_loop_road() {
    let town = draw("A     B\n\n\n\nD     C", &["ABCDA"], "");
    let fixes = drive(&town, "ABCDA", 36.0, 5.0);
    assert_eq!(way(&town, &fixes), way(&town, &drive(&town, "ABCDA", 36.0, 1.0)));
    let (out, length) = (decide(&town, &fixes, Lag::Online), town.road("ABCDA").length());
    let driven = driven_m(&town, &out);
    assert!((driven - length).abs() < 60.0, "{driven} m of {length} m");
}

#[test]
fn a_bridge_over_a_road() {
    // The roads cross without a node: who drives over does not turn.
    let town = draw(
        "\
     S



A         B



     T",
        &["AB", "ST bridge=yes layer=1"],
        "",
    );
    assert_eq!(told(&town, &drive(&town, "AB", 36.0, 5.0)), "A>B×10");
    assert_eq!(told(&town, &drive(&town, "ST", 36.0, 5.0)), "S>T×10");
}

#[test]
fn a_gap_in_a_tunnel() {
    let town = draw(
        "A         B         C         D",
        &["AB", "BC tunnel=yes", "CD"],
        "",
    );
    let mut fixes = drive(&town, "ABCD", 36.0, 5.0);
    fixes.retain(|f| !(45_000..105_000).contains(&f.time.ms()));
    assert_eq!(told(&town, &fixes), "A>B×9 C>D×9");
    assert_eq!(way(&town, &fixes), "A>B B>C C>D");
}

#[test]
fn a_stop_at_a_signal_under_noise() {
    let town = draw(
        "A         B         C\n\n          S",
        &["ABC", "BS highway=residential"],
        "B",
    );
    let mut dice = ChaCha8Rng::seed_from_u64(11);
    let mut fixes = Vec::new();
    let (mut m, mut standing) = (300.0, 0);
    for s in 0..90 {
        let stands = m >= 498.0 && standing < 40;
        let noise = |dice: &mut ChaCha8Rng| f64::from(below(dice, 25)) - 12.0;
        let off = (noise(&mut dice), noise(&mut dice));
        fixes.push(fix(
            &town,
            "ABC",
            f64::from(s),
            m,
            if stands { 0.0 } else { 36.0 },
            off,
        ));
        if stands {
            standing += 1;
        } else {
            m += 10.0;
        }
    }
    let out = decide(&town, &fixes, Lag::Online);
    let on = |s: std::ops::Range<usize>, name: &str| {
        let right =
            |d: &&viaflux::locate::Decision| d.place.as_ref().is_ok_and(|p| town.name(p.segment) == name);
        out.fixes[s].iter().filter(right).count()
    };
    // All of the wait is before the line, and nobody turns into the side street.
    assert_eq!(on(20..60, "A>B"), 40, "{}", told(&town, &fixes));
    let plain = Settings {
        dwell_snap_m: 0,
        ..Settings::default()
    };
    let unsnapped = decide_by(&town, &fixes, Lag::Online, plain).fixes;
    let beyond =
        |d: &viaflux::locate::Decision| d.place.as_ref().is_ok_and(|p| town.name(p.segment) == "B>C");
    assert!(
        unsnapped[20..60].iter().any(beyond),
        "were it not for the stop line"
    );
    assert_eq!(on(0..90, "A>B") + on(0..90, "B>C"), 90, "{}", told(&town, &fixes));
    assert_eq!(way(&town, &fixes), "A>B B>C");
}

#[test]
fn off_the_road_and_back() {
    let town = draw("A                   B", &["AB"], "");
    let mut fixes = drive(&town, "AB", 36.0, 5.0);
    for f in &mut fixes[5..12] {
        f.position = Position::from_degrees(f.position.lat() + 300.0 / LAT_M, f.position.lon()).unwrap();
        f.speed = None;
    }
    assert_eq!(told(&town, &fixes), "A>B×5 (off_road)×7 A>B×8");
}

#[test]
fn against_a_one_way_street() {
    let town = draw("A                   B", &["AB oneway=yes"], "");
    let fixes = drive(&town, "BA", 36.0, 5.0);
    let out = decide(&town, &fixes, Lag::Online);
    // Positions have their place at most; there is no driving.
    let driven = |p: &viaflux::locate::Decided| match out.way(p) {
        [_] => p.offset_mm - p.from_mm,
        way => way.iter().map(|s| town.network.segment(*s).length_mm).sum(),
    };
    let all: u32 = out
        .fixes
        .iter()
        .filter_map(|d| d.place.as_ref().ok())
        .map(driven)
        .sum();
    assert_eq!(all, 0, "{}", told(&town, &fixes));
}

#[test]
fn a_jump_of_the_receiver() {
    let town = draw(
        "A                   B\n\n\n\n\n\nC                   D",
        &["AB", "CD"],
        "",
    );
    let mut fixes = drive(&town, "AB", 36.0, 5.0);
    let f = &mut fixes[8];
    f.position = Position::from_degrees(f.position.lat() - 290.0 / LAT_M, f.position.lon()).unwrap();
    assert_eq!(told(&town, &fixes), "A>B×8 (no_way)×1 A>B×11");
}

#[test]
fn a_clock_that_jitters() {
    let town = draw("A         B         C", &["ABC"], "");
    let mut fixes = drive(&town, "ABC", 36.0, 5.0);
    for (k, f) in fixes.iter_mut().enumerate() {
        f.time = f.time.plus_ms([0, 900, -900][k % 3]);
    }
    assert_eq!(way(&town, &fixes), "A>B B>C");
}

#[test]
fn a_roundabout() {
    // It turns to the left, as all do where one drives on the right.
    let picture = "
          N



          Q
S        T P
          R



          E";
    let ways = ["ST", "RE", "QN", "PQTRP junction=roundabout"];
    let town = draw(picture, &ways, "");
    assert_eq!(way(&town, &drive(&town, "STRE", 36.0, 5.0)), "S>T T>R R>E");
    // Left by the third exit: with no fix on the ring the way still leads round it.
    let mut fixes = drive(&town, "STRPQN", 36.0, 5.0);
    let (on, off) = (town.road("STRPQN").to('T'), town.road("STRPQN").to('Q'));
    fixes.retain(|f| !(on..off).contains(&(f.time.ms() as f64 / 100.0 + 1.0)));
    assert_eq!(way(&town, &fixes), "S>T T>R R>P P>Q Q>N");
    let both = draw(picture, &["ST", "RE", "QN", "PQTRP"], "");
    assert_eq!(way(&both, &fixes), "S>T T>Q Q>N", "were it no roundabout");
}

#[test]
fn a_banned_turn_costs_and_may_be_taken() {
    let picture = "
                    C
A         B         E
                    D";
    let free = draw(picture, &["AB", "BC", "BD"], "");
    let banned = draw(picture, &["AB", "BC", "BD", "1@B@2 restriction=no_left_turn"], "");
    // Straight on between the arms, half a metre nearer to the left one.
    let mut between = drive(&free, "ABE", 36.0, 5.0);
    between.truncate(16);
    for f in &mut between {
        f.position = Position::from_degrees(f.position.lat() + 0.5 / LAT_M, f.position.lon()).unwrap();
    }
    assert_eq!(way(&free, &between), "A>B B>C");
    assert_eq!(way(&banned, &between), "A>B B>D");
    // Who really turns is believed.
    assert_eq!(way(&banned, &drive(&banned, "ABC", 36.0, 5.0)), "A>B B>C");
}

#[test]
fn decisions_do_not_change_and_come_in_time() {
    let town = draw(
        "A     B     C\n\n\n\nD     E     F",
        &["ABC", "DEF", "AD", "BE", "CF"],
        "E",
    );
    let mut dice = ChaCha8Rng::seed_from_u64(3);
    for road in ["ABEFC", "DABCFE", "CBEDAB"] {
        for dt in [1.0, 4.0, 15.0] {
            let mut fixes = drive(&town, road, 30.0, dt);
            for f in &mut fixes {
                let metres = |dice: &mut ChaCha8Rng| f64::from(below(dice, 31)) - 15.0;
                let (north, east) = (metres(&mut dice) / LAT_M, metres(&mut dice) / LON_M);
                f.position =
                    Position::from_degrees(f.position.lat() + north, f.position.lon() + east).unwrap();
            }
            let settings = Settings::default();
            let mut matcher = Matcher::new(Arc::clone(&town.network), settings.clone(), Lag::Online);
            let (mut track, mut out) = (Track::default(), Decisions::default());
            for (n, f) in fixes.iter().enumerate() {
                matcher.push(&mut track, *f, &mut out);
                let waiting = &fixes[out.fixes.len()..=n];
                let lag_ms = i64::from(settings.lag_s) * 1000;
                assert!(
                    waiting.iter().all(|w| f.time.since(w.time) < lag_ms),
                    "{road} {dt}"
                );
                // A machine that has seen no more has decided the same.
                let short = {
                    let mut matcher = Matcher::new(Arc::clone(&town.network), settings.clone(), Lag::Online);
                    let (mut track, mut out) = (Track::default(), Decisions::default());
                    fixes[..=n]
                        .iter()
                        .for_each(|f| matcher.push(&mut track, *f, &mut out));
                    out
                };
                assert_eq!(short.fixes, out.fixes);
            }
        }
    }
}
