//! Loop detectors: one in each lane of a station, reporting once a minute; a few of them fail.

use std::collections::BTreeMap;

use serde::Serialize;

use super::dice::Dice;
use super::traffic::{STEP_S, Sums, Traffic, VEHICLE_M};
use super::truth::{EventTruth, LoopDescription, StationDescription, round, way_direction};
use super::{Outbox, Settings};
use crate::units::EventTime;

/// Length of the detectors' interval in seconds.
pub(super) const PERIOD_S: u32 = 60;
const FAULTS: [&str; 4] = ["stuck", "dead_zero", "kmh_unit", "silent"];
const P_LOST: f64 = 0.01;
const P_DELAYED: f64 = 0.01;
const P_TRUNCATED: f64 = 0.0005;
const P_DUPLICATE: f64 = 0.003;

/// The measurement as the preset `simulated-city` reads it; occupancy in percent.
#[derive(Clone, Debug, Serialize)]
struct Measurement<'a> {
    sensor_id: &'a str,
    ts: i64,
    period_s: u32,
    count: u32,
    occupancy: f64,
    speed_mps: Option<f64>,
}

#[derive(Debug)]
struct Loop {
    id: String,
    pos_m: f64,
    count: u32,
    covered_s: f64,
    speeds: f64,
    fault: Option<Fault>,
    /// What a stuck loop repeats.
    held: Option<(u32, f64, Option<f64>)>,
}

#[derive(Clone, Debug)]
struct Fault {
    kind: &'static str,
    begin: EventTime,
    end: EventTime,
}

/// All stations.
#[derive(Debug)]
pub(super) struct Detectors {
    pub(super) stations: Vec<StationDescription>,
    loops: Vec<Loop>,
    /// Number of the loop in lane 0 of each edge with a station.
    first_loop: BTreeMap<u32, usize>,
    defects: bool,
    dice: Dice,
}

impl Detectors {
    /// Places stations on larger roads, busier ones first choice (`sums`: the warm-up's last minutes), and
    /// decides which loops fail and when.
    pub(super) fn new(settings: &Settings, traffic: &mut Traffic, sums: &[Sums], mut dice: Dice) -> Self {
        let mut sites: Vec<(f64, u32)> = Vec::new();
        for (e, edge) in (0..).zip(&traffic.streets.edges) {
            let large = ["trunk", "primary", "secondary", "tertiary"].contains(&edge.highway.as_str());
            // Weighted sampling without replacement (Efraimidis and Spirakis 2006): the greatest u^(1/weight).
            let key = libm::pow(dice.unit(), 1.0 / (1.0 + f64::from(sums[e as usize].left)));
            if large && edge.length_m >= 60.0 && sums[e as usize].left > 0 {
                sites.push((key, e));
            }
        }
        sites.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut edges: Vec<u32> = sites
            .iter()
            .take(settings.sensor_stations as usize)
            .map(|s| s.1)
            .collect();
        edges.sort_unstable();

        let (mut stations, mut loops, mut first_loop) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (k, &e) in edges.iter().enumerate() {
            let edge = &traffic.streets.edges[e as usize];
            let pos_m = round(edge.length_m * dice.between(0.35, 0.6), 1);
            let middle = f64::from(edge.lanes - 1) / 2.0;
            let ((lat, lon), heading) = traffic.streets.locate(e, middle, pos_m);
            let ids: Vec<LoopDescription> = (0..edge.lanes)
                .map(|lane_index| LoopDescription {
                    sensor_id: format!("S{k:03}-L{lane_index}"),
                    lane_index,
                })
                .collect();
            first_loop.insert(e, loops.len());
            loops.extend(ids.iter().map(|l| Loop {
                id: l.sensor_id.clone(),
                pos_m,
                count: 0,
                covered_s: 0.0,
                speeds: 0.0,
                fault: None,
                held: None,
            }));
            stations.push(StationDescription {
                station: format!("S{k:03}"),
                edge: edge.id.clone(),
                way: edge.way,
                way_dir: way_direction(edge.forward),
                highway: edge.highway.clone(),
                name: edge.name.clone(),
                pos_m,
                lon: round(lon, 7),
                lat: round(lat, 7),
                heading_deg: round(heading, 1),
                limit_mps: round(edge.limit_mps, 2),
                lanes: ids,
            });
            traffic.watched[e as usize] = true;
        }
        let mut detectors = Self {
            stations,
            loops,
            first_loop,
            defects: settings.defects,
            dice,
        };
        if settings.defects {
            detectors.choose_faults(settings);
        }
        detectors
    }

    fn choose_faults(&mut self, settings: &Settings) {
        let span = f64::from(settings.duration_s) * 1000.0;
        let wanted = (self.loops.len() / 40).max(4).min(self.loops.len());
        let mut chosen = 0;
        while chosen < wanted {
            let at = self.dice.below(self.loops.len());
            if self.loops[at].fault.is_none() {
                let begin = settings
                    .begin
                    .plus_ms((span * self.dice.between(0.1, 0.5)) as i64);
                let end = begin.plus_ms((span * self.dice.between(0.2, 0.45)) as i64);
                self.loops[at].fault = Some(Fault {
                    kind: FAULTS[chosen % 4],
                    begin,
                    end,
                });
                chosen += 1;
            }
        }
    }

    /// The faults, for truth.
    pub(super) fn faults(&self) -> impl Iterator<Item = EventTruth> {
        self.loops.iter().filter_map(|l| {
            let Fault { kind, begin, end } = l.fault.clone()?;
            Some(EventTruth::SensorFault {
                sensor_id: l.id.clone(),
                kind,
                begin: begin.ms(),
                end: end.ms(),
            })
        })
    }

    /// Counts what passed in the last step.
    pub(super) fn observe(&mut self, traffic: &Traffic) {
        for p in &traffic.passages {
            let Some(&first) = self.first_loop.get(&p.edge) else {
                continue;
            };
            let sensor = &mut self.loops[first + usize::from(p.lane)];
            let (moved, ahead) = (p.to_m - p.from_m, sensor.pos_m - p.from_m);
            if ahead > 0.0 && ahead <= moved {
                sensor.count += 1;
                sensor.speeds += moved / STEP_S;
            }
            // The vehicle covers the loop from its front bumper's arrival to its rear bumper's leaving.
            sensor.covered_s += if moved > 0.0 {
                let share = ((ahead + VEHICLE_M) / moved).min(1.0) - (ahead / moved).max(0.0);
                share.max(0.0) * STEP_S
            } else if ahead <= 0.0 && ahead > -VEHICLE_M {
                STEP_S
            } else {
                0.0
            };
        }
    }

    /// Sends the interval that ends at `now`.
    pub(super) fn report(&mut self, now: EventTime, out: &mut Outbox) {
        for sensor in &mut self.loops {
            let speed = (sensor.count > 0).then(|| round(sensor.speeds / f64::from(sensor.count), 2));
            let occupancy = round((100.0 * sensor.covered_s / f64::from(PERIOD_S)).min(100.0), 2);
            let mut now_measured = (sensor.count, occupancy, speed);
            (sensor.count, sensor.covered_s, sensor.speeds) = (0, 0.0, 0.0);
            match sensor
                .fault
                .as_ref()
                .filter(|f| (f.begin..f.end).contains(&now))
                .map(|f| f.kind)
            {
                Some("silent") => continue,
                Some("dead_zero") => now_measured = (0, 0.0, None),
                Some("kmh_unit") => now_measured.2 = speed.map(|v| round(v * 3.6, 2)),
                Some("stuck") => now_measured = *sensor.held.get_or_insert(now_measured),
                _ => {}
            }
            let dice = &mut self.dice;
            let happens = |dice: &mut Dice, p: f64| dice.chance(p) && self.defects;
            let mut arrival = now.plus_ms((500.0 + dice.exponential(1500.0)).round() as i64);
            if happens(dice, P_LOST) {
                continue;
            }
            if happens(dice, P_DELAYED) {
                arrival = arrival.plus_ms(dice.between(60_000.0, 300_000.0) as i64);
            }
            let (count, occupancy, speed_mps) = now_measured;
            let measurement = Measurement {
                sensor_id: &sensor.id,
                ts: now.ms(),
                period_s: PERIOD_S,
                count,
                occupancy,
                speed_mps,
            };
            let mut line = serde_json::to_vec(&measurement).expect("numbers and text become JSON");
            if happens(dice, P_TRUNCATED) {
                line.truncate(3 + dice.below(line.len() - 5));
            }
            if happens(dice, P_DUPLICATE) {
                let again = arrival.plus_ms(dice.below(9_000) as i64);
                out.sensor(again, sensor.id.clone(), line.clone());
            }
            out.sensor(arrival, sensor.id.clone(), line);
        }
    }
}
