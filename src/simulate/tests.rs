//! The simulation as a whole.

use super::*;

fn small() -> Settings {
    Settings {
        vehicles: 500,
        duration_s: 600,
        incidents: 1,
        probe_share: 0.3,
        truth: true,
        ..Settings::default()
    }
}

fn run(settings: Settings, step_s: i64) -> (Simulation, Vec<SimulatedRecord>, Truth) {
    let mut simulation = Simulation::new(settings.clone());
    let end = settings.begin.plus_ms(i64::from(settings.duration_s) * 1000);
    let mut records = Vec::new();
    let mut until = settings.begin;
    while until < end {
        until = until.plus_ms(step_s * 1000).min(end);
        simulation.step_to(until, &mut records);
    }
    simulation.finish(&mut records);
    let truth = simulation.take_truth();
    (simulation, records, truth)
}

fn digest(records: &[SimulatedRecord]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for r in records {
        hasher.update(&r.arrival.ms().to_le_bytes());
        hasher.update(&[r.feed as u8]);
        hasher.update(&r.line);
        hasher.update(b"\n");
    }
    hasher.finalize()
}

#[test]
fn the_seed_decides_every_byte_and_the_steps_none() {
    let (_, first, _) = run(small(), 600);
    let (_, stepped, _) = run(small(), 7);
    let (_, blind, _) = run(
        Settings {
            truth: false,
            ..small()
        },
        60,
    );
    let (_, other, _) = run(Settings { seed: 2, ..small() }, 600);
    assert_eq!(digest(&first), digest(&stepped));
    assert_eq!(
        digest(&first),
        digest(&blind),
        "keeping truth must not change the records"
    );
    assert_ne!(digest(&first), digest(&other));
}

#[test]
fn records_arrive_in_order_with_their_truth() {
    let (simulation, records, truth) = run(small(), 60);
    assert!(records.windows(2).all(|w| w[0].arrival <= w[1].arrival));
    let lines: Vec<&SimulatedRecord> = records.iter().filter(|r| r.feed == Feed::Probe).collect();
    assert!(lines.len() > 3_000, "{}", lines.len());
    assert_eq!(lines.len(), truth.points.len());
    let mut errors = 0.0;
    let mut good = 0;
    for (n, (record, point)) in lines.iter().zip(&truth.points).enumerate() {
        assert_eq!(point.line, n as u64 + 1);
        assert_eq!(
            (record.arrival.ms(), &record.key),
            (point.arrival_ms, &point.vehicle_id)
        );
        let parsed = serde_json::from_slice::<serde_json::Value>(&record.line);
        if point.kind.starts_with("corrupt") {
            continue;
        }
        let value = parsed.expect("a line that is not corrupt parses");
        assert_eq!(value["vehicle_id"], point.vehicle_id.as_str());
        assert_eq!(value["ts"], point.ts);
        if point.kind == "ok" {
            let at = |lon: f64, lat: f64| crate::units::Position::from_degrees(lat, lon).unwrap();
            let seen = at(value["lon"].as_f64().unwrap(), value["lat"].as_f64().unwrap());
            errors += seen.distance_m(at(point.lon, point.lat));
            good += 1;
        }
    }
    // Two coordinates of 6.5 m each: the mean distance is 6.5·√(π/2) = 8.1 m.
    let mean = errors / f64::from(good);
    assert!((7.0..9.5).contains(&mean), "{mean}");
    let kinds = |kind: &str| truth.points.iter().filter(|p| p.kind.starts_with(kind)).count();
    assert!(kinds("late") > 20 && kinds("duplicate") > 10 && kinds("outlier") > 1 && kinds("corrupt") > 0);
    for record in records.iter().filter(|r| r.feed == Feed::Sensor) {
        assert!(
            simulation
                .stations()
                .iter()
                .any(|s| record.key.starts_with(&s.station))
        );
    }
}

#[test]
fn without_defects_all_is_well() {
    let (_, records, truth) = run(
        Settings {
            defects: false,
            ..small()
        },
        60,
    );
    assert!(truth.points.iter().all(|p| p.kind == "ok"));
    assert!(
        !truth
            .events
            .iter()
            .any(|e| matches!(e, EventTruth::SensorFault { .. }))
    );
    assert!(
        records
            .iter()
            .all(|r| serde_json::from_slice::<serde_json::Value>(&r.line).is_ok())
    );
}

#[test]
fn vehicles_are_conserved_and_speeds_are_possible() {
    let (simulation, _, truth) = run(small(), 60);
    let trips = simulation.trips();
    assert_eq!(trips.entered, trips.left + trips.removed + trips.on_road);
    assert!(trips.left > 100, "{trips:?}");
    let edges: BTreeMap<String, EdgeDescription> = simulation.edges().map(|e| (e.edge.clone(), e)).collect();
    assert!(truth.edges.len() > 1_000);
    for minute in &truth.edges {
        let edge = &edges[&minute.edge];
        assert!(
            (0.0..=1.3 * edge.limit_mps).contains(&minute.speed_mps),
            "{minute:?} on {edge:?}"
        );
        let jam = 1000.0 / VEHICLE_M * f64::from(edge.lanes);
        assert!(
            minute.density_vpkm <= jam || edge.length_m < 30.0,
            "{minute:?} on {edge:?}"
        );
    }
}

#[test]
fn an_incident_jams_the_road_behind_it_and_goes_away() {
    let settings = Settings {
        vehicles: 1_800,
        duration_s: 2_700,
        incidents: 1,
        probe_share: 0.0,
        truth: true,
        ..Settings::default()
    };
    let (simulation, _, truth) = run(settings, 60);
    let (edge, begin, end, effect) = truth
        .events
        .iter()
        .find_map(|e| match e {
            EventTruth::Incident {
                edge,
                begin,
                end,
                effect,
                ..
            } => Some((edge, *begin, *end, effect)),
            _ => None,
        })
        .expect("one incident");
    assert!(begin - simulation.settings().begin.ms() <= 240_000);
    assert_eq!(effect.severity, "major", "{effect:?}");
    let edges: Vec<EdgeDescription> = simulation.edges().collect();
    let from = &edges
        .iter()
        .find(|e| e.edge == *edge)
        .expect("an edge of the city")
        .from_node;
    let upstream: Vec<&str> = edges
        .iter()
        .filter(|e| e.to_node == *from)
        .map(|e| e.edge.as_str())
        .collect();
    let speed = |of: &dyn Fn(&str) -> bool, from: i64, to: i64| {
        let rows = truth
            .edges
            .iter()
            .filter(|m| of(&m.edge) && (from..to).contains(&m.ts));
        let (d, t) = rows.fold((0.0, 0.0), |(d, t), m| {
            (d + m.speed_mps * m.vehicle_seconds, t + m.vehicle_seconds)
        });
        d / t
    };
    let on_edge = |e: &str| e == edge;
    let behind = |e: &str| upstream.contains(&e);
    let begun = simulation.settings().begin.ms();
    let during = speed(&on_edge, begin + 300_000, end);
    let after = speed(&on_edge, end + 300_000, i64::MAX);
    assert!(during < 1.0, "on the edge {during} m/s");
    assert!(after > 3.0 * during + 1.0, "{during} m/s, after it {after} m/s");
    let (before, during) = (speed(&behind, begun, begin), speed(&behind, begin + 600_000, end));
    assert!(during < 0.6 * before, "upstream {before} m/s, then {during} m/s");
}

#[test]
fn light_traffic_drives_at_the_free_speed() {
    let settings = Settings {
        vehicles: 250,
        duration_s: 3_600,
        incidents: 0,
        probe_share: 0.0,
        sensor_stations: 0,
        truth: true,
        ..Settings::default()
    };
    let (_, _, truth) = run(settings, 60);
    // Median over edges of measured speed by free speed, weighted by nothing: each edge speaks once.
    let mut sums: BTreeMap<&str, (f64, f64, u32)> = BTreeMap::new();
    for m in &truth.edges {
        let sum = sums.entry(&m.edge).or_default();
        sum.0 += m.speed_ratio * m.vehicle_seconds;
        sum.1 += m.vehicle_seconds;
        sum.2 += m.entered;
    }
    let mut ratios: Vec<f64> = sums.values().filter(|s| s.2 >= 20).map(|s| s.0 / s.1).collect();
    ratios.sort_by(f64::total_cmp);
    assert!(ratios.len() > 100, "{}", ratios.len());
    let at = |q: f64| ratios[(ratios.len() as f64 * q) as usize];
    println!(
        "measured/free: 5 % {:.2}, 25 % {:.2}, 50 % {:.2}, 75 % {:.2}, 95 % {:.2}",
        at(0.05),
        at(0.25),
        at(0.5),
        at(0.75),
        at(0.95)
    );
    assert!((0.85..1.15).contains(&at(0.5)), "{}", at(0.5));
}

#[test]
fn speed_of_the_simulation() {
    // The clock is asked in this test only, and nothing is asserted about it.
    let settings = Settings {
        vehicles: 800,
        incidents: 2,
        ..Settings::default()
    };
    let mut simulation = Simulation::new(settings.clone());
    let begun = std::time::Instant::now();
    let mut records = Vec::new();
    simulation.step_to(settings.begin.plus_ms(300_000), &mut records);
    let factor = 300.0 / begun.elapsed().as_secs_f64();
    println!(
        "{factor:.0} x real time with {} vehicles, {} records",
        simulation.trips().on_road,
        records.len()
    );
    assert!(!records.is_empty());
}
