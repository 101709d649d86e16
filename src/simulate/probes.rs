//! Position reports of a share of the vehicles: receiver noise that drifts, a device clock, network delay and
//! the defects of real feeds.

use std::f64::consts::TAU;

use serde::Serialize;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::city::{CENTRE, M_PER_DEGREE};
use super::dice::Dice;
use super::traffic::{Traffic, Vehicle};
use super::truth::{Between, PointTruth, round};
use super::{Outbox, Settings};
use crate::units::EventTime;

/// Seconds over which the error of a receiver forgets (first-order autoregressive).
const DRIFT_S: f64 = 20.0;
const P_OUTLIER: f64 = 0.002;
const P_DROPPED: f64 = 0.01;
/// A tunnel or a lost link, 30 to 180 s.
const P_OUTAGE: f64 = 0.001;
const P_LATE: f64 = 0.02;
const P_DUPLICATE: f64 = 0.01;
const P_CORRUPT: f64 = 0.0005;
/// Share of the devices that once hold their reports back for 1 to 5 minutes and then send all of them.
const P_HOLDS_BACK: f64 = 0.01;

/// The ways in which a line is broken (the same as in the truth of other simulated cities).
const CORRUPTIONS: [&str; 13] = [
    "truncated_json",
    "not_json",
    "missing_field",
    "wrong_type",
    "null_island",
    "swapped_lonlat",
    "seconds_timestamp",
    "future_timestamp",
    "negative_speed",
    "absurd_speed",
    "out_of_range",
    "nan_literal",
    "empty_line",
];

/// The report as the preset `simulated-city` reads it.
#[derive(Clone, Debug, Serialize)]
struct Report<'a> {
    vehicle_id: &'a str,
    ts: i64,
    lon: f64,
    lat: f64,
    speed_mps: f64,
    heading_deg: Option<f64>,
    accuracy_m: f64,
}

/// The receiver and sender in one vehicle.
#[derive(Debug)]
struct Device {
    vehicle: u64,
    id: String,
    /// Standard deviation of each coordinate in metres.
    sigma: f64,
    /// Offset of the device's clock.
    clock_ms: i64,
    phase: i64,
    /// Error in units of sigma, and when it was drawn.
    error: (f64, f64),
    drawn_at: EventTime,
    silent_until: EventTime,
    holds_back: Option<(EventTime, EventTime)>,
}

/// All devices under way, by the vehicle's slot.
#[derive(Debug)]
pub(super) struct Probes {
    seed: u64,
    share: f64,
    interval_s: i64,
    defects: bool,
    devices: Vec<Option<Device>>,
    dice: Dice,
    pub(super) vehicles: u64,
}

impl Probes {
    pub(super) fn new(settings: &Settings, dice: Dice) -> Self {
        Self {
            seed: settings.seed,
            share: settings.probe_share,
            interval_s: i64::from(settings.interval_s.max(1)),
            defects: settings.defects,
            devices: Vec::new(),
            dice,
            vehicles: 0,
        }
    }

    /// The public id of a vehicle, if it is a probe.
    pub(super) fn id(&self, vehicle: u64) -> Option<String> {
        let hash = xxh3_64_with_seed(&vehicle.to_le_bytes(), self.seed);
        let is_probe = ((hash & 0xFFFF_FFFF) as f64) < self.share * 4_294_967_296.0;
        // 40 bits, of which the lower ones are not those that chose the probes.
        is_probe.then(|| format!("v{:010x}", (hash >> 24) ^ (hash & 0xFF)))
    }

    /// Reports of all devices whose turn it is at `now`.
    pub(super) fn report(&mut self, now: EventTime, traffic: &Traffic, out: &mut Outbox) {
        self.devices.resize_with(traffic.vehicles.len(), || None);
        for (slot, vehicle) in traffic.vehicles.iter().enumerate().filter(|(_, v)| v.on_road) {
            if self.devices[slot]
                .as_ref()
                .is_none_or(|d| d.vehicle != vehicle.number)
            {
                self.devices[slot] = self
                    .id(vehicle.number)
                    .map(|id| self.fit(vehicle.number, id, now));
                self.vehicles += u64::from(self.devices[slot].is_some());
                // A vehicle that is no probe is asked again each second, which costs one hash.
            }
            if let Some(mut device) = self.devices[slot].take() {
                if (now.ms() / 1000 - device.phase) % self.interval_s == 0 {
                    self.report_one(&mut device, now, traffic, vehicle, out);
                }
                self.devices[slot] = Some(device);
            }
        }
    }

    fn fit(&mut self, vehicle: u64, id: String, now: EventTime) -> Device {
        let dice = &mut self.dice;
        let mut device = Device {
            vehicle,
            id,
            sigma: dice.between(5.0, 8.0),
            clock_ms: (150.0 * dice.normal()).round() as i64,
            phase: dice.below(self.interval_s as usize) as i64,
            error: (dice.normal(), dice.normal()),
            drawn_at: now,
            silent_until: now,
            holds_back: None,
        };
        if self.defects && dice.chance(P_HOLDS_BACK) {
            let begin = now.plus_ms(dice.below(300_000) as i64);
            device.holds_back = Some((begin, begin.plus_ms(dice.between(60_000.0, 300_000.0) as i64)));
        }
        device
    }

    fn report_one(
        &mut self,
        device: &mut Device,
        now: EventTime,
        traffic: &Traffic,
        vehicle: &Vehicle,
        out: &mut Outbox,
    ) {
        let dice = &mut self.dice;
        let happens = |dice: &mut Dice, p: f64| dice.chance(p) && self.defects;
        let keep = libm::exp(-(now.since(device.drawn_at) as f64) / 1000.0 / DRIFT_S);
        let fresh = libm::sqrt(1.0 - keep * keep);
        device.error.0 = keep * device.error.0 + fresh * dice.normal();
        device.error.1 = keep * device.error.1 + fresh * dice.normal();
        device.drawn_at = now;
        let (mut east, mut north) = (device.sigma * device.error.0, device.sigma * device.error.1);
        let mut kind = "ok".to_owned();
        if happens(dice, P_OUTLIER) {
            kind = "outlier".into();
            let (angle, distance) = (dice.between(0.0, TAU), dice.between(60.0, 400.0));
            east += distance * libm::cos(angle);
            north += distance * libm::sin(angle);
        }
        if now < device.silent_until || happens(dice, P_DROPPED) {
            return;
        }
        if happens(dice, P_OUTAGE) {
            device.silent_until = now.plus_ms(dice.between(30_000.0, 180_000.0) as i64);
        }
        let ((lat, lon), heading) =
            traffic
                .streets
                .locate(vehicle.edge, f64::from(vehicle.lane), vehicle.along_m);
        let speed = vehicle.speed;
        let spread = 3.0 + 12.0 / speed.max(1.0);
        let noisy_heading = round((heading + spread * dice.normal()).rem_euclid(360.0), 1) % 360.0;
        let ts = now.plus_ms(device.clock_ms).ms();
        let report = Report {
            vehicle_id: &device.id,
            ts,
            lon: round(lon + east / (M_PER_DEGREE * libm::cos(CENTRE.0.to_radians())), 7),
            lat: round(lat + north / M_PER_DEGREE, 7),
            speed_mps: round((speed + 0.3 * dice.normal()).max(0.0), 2),
            // A standing receiver knows no heading.
            heading_deg: (speed >= 0.5).then_some(noisy_heading),
            accuracy_m: round((device.sigma * dice.between(0.8, 1.3)).max(2.0), 1),
        };
        let mut delay = 300.0 + dice.exponential(700.0);
        if happens(dice, P_LATE) {
            delay += dice.exponential(25_000.0).min(240_000.0);
            if kind == "ok" {
                kind = "late".into();
            }
        }
        let mut line = serde_json::to_vec(&report).expect("numbers and text become JSON");
        if happens(dice, P_CORRUPT) {
            let how = CORRUPTIONS[dice.below(CORRUPTIONS.len())];
            line = corrupt(how, &report, dice);
            kind = format!("corrupt:{how}");
        }
        let truth = out.wants_truth().then(|| {
            let edge = &traffic.streets.edges[vehicle.edge as usize];
            let inside = between(traffic, vehicle);
            let outside = inside.is_none();
            PointTruth {
                line: 0,
                arrival_ms: 0,
                kind: String::new(),
                vehicle_id: device.id.clone(),
                ts,
                edge: outside.then(|| edge.id.clone()),
                way: outside.then_some(edge.way),
                lane_index: outside.then_some(vehicle.lane),
                pos_m: outside.then(|| round(vehicle.along_m, 1)),
                lon: round(lon, 7),
                lat: round(lat, 7),
                speed_mps: round(speed, 2),
                inside,
            }
        });
        let copy = happens(dice, P_DUPLICATE).then(|| delay + dice.between(0.0, 8_000.0));
        let corrupt = kind.starts_with("corrupt");
        for (delay, again) in [(Some(delay), false), (copy, true)] {
            let Some(delay) = delay else { continue };
            let mut arrival = now.plus_ms(delay.round() as i64);
            let mut kind = if again && !corrupt {
                "duplicate".to_owned()
            } else {
                kind.clone()
            };
            if let Some((from, to)) = device.holds_back
                && (from..to).contains(&arrival)
            {
                arrival = to.plus_ms(arrival.since(from) / 1000);
                if kind == "ok" {
                    kind = "late".into();
                }
            }
            let truth = truth.clone().map(|t| PointTruth { kind, ..t });
            out.probe(arrival, device.id.clone(), line.clone(), truth);
        }
    }
}

/// The edges around the junction that a vehicle is in, if it is in one.
fn between(traffic: &Traffic, vehicle: &Vehicle) -> Option<Between> {
    let edges = &traffic.streets.edges;
    let edge = &edges[vehicle.edge as usize];
    let id = |e: u32| edges[e as usize].id.clone();
    if vehicle.along_m > edge.stop_line_m() {
        let next_edge = vehicle.next_edge().map(id);
        Some(Between {
            prev_edge: Some(edge.id.clone()),
            next_edge,
        })
    } else if vehicle.along_m < edge.junction_m() && vehicle.came_from.is_some() {
        let prev_edge = vehicle.came_from.map(id);
        Some(Between {
            prev_edge,
            next_edge: Some(edge.id.clone()),
        })
    } else {
        None
    }
}

/// A broken form of a report, as text of one line.
fn corrupt(how: &str, report: &Report<'_>, dice: &mut Dice) -> Vec<u8> {
    let good = serde_json::to_string(report).expect("numbers and text become JSON");
    let mut fields: Map<String, Value> = serde_json::from_str(&good).expect("just written as an object");
    match how {
        "truncated_json" => return good.as_bytes()[..5 + dice.below(good.len() - 7)].to_vec(),
        "not_json" => {
            let values: Vec<String> = fields.values().map(ToString::to_string).collect();
            return values.join(";").replace('"', "").into_bytes();
        }
        "empty_line" => return Vec::new(),
        "nan_literal" => {
            let speed = format!("\"speed_mps\":{}", fields["speed_mps"]);
            return good.replace(&speed, "\"speed_mps\":NaN").into_bytes();
        }
        "missing_field" => {
            fields.shift_remove(["vehicle_id", "ts", "lon", "lat"][dice.below(4)]);
        }
        "wrong_type" => fields["ts"] = json!(EventTime::from_ms(report.ts).to_string()),
        "null_island" => {
            fields["lon"] = json!(0.0);
            fields["lat"] = json!(0.0);
        }
        "swapped_lonlat" => {
            fields["lon"] = json!(report.lat);
            fields["lat"] = json!(report.lon);
        }
        "seconds_timestamp" => fields["ts"] = json!(report.ts / 1000),
        "future_timestamp" => {
            fields["ts"] = json!(report.ts + [3_600_000, 86_400_000, 31_536_000_000][dice.below(3)]);
        }
        "negative_speed" => fields["speed_mps"] = json!(round(-report.speed_mps - 1.0, 2)),
        "absurd_speed" => fields["speed_mps"] = json!(round(dice.between(120.0, 900.0), 1)),
        "out_of_range" => {
            let shift = if dice.chance(0.5) { 180.0 } else { -180.0 };
            fields["lat"] = json!(round(report.lat + shift, 7));
        }
        other => unreachable!("`{other}` is not one of the kinds of corruption"),
    }
    Value::Object(fields).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::dice::Purpose;
    use super::*;

    #[test]
    fn every_corruption_changes_the_line() {
        let report = Report {
            vehicle_id: "v0123456789",
            ts: 1_763_888_400_000,
            lon: 108.95,
            lat: 34.25,
            speed_mps: 8.5,
            heading_deg: Some(91.5),
            accuracy_m: 6.0,
        };
        let good = serde_json::to_vec(&report).unwrap();
        let mut dice = Dice::new(1, Purpose::Probes);
        let broken: Vec<Vec<u8>> = CORRUPTIONS
            .iter()
            .map(|how| corrupt(how, &report, &mut dice))
            .collect();
        for (how, line) in CORRUPTIONS.iter().zip(&broken) {
            assert_ne!(*line, good, "{how}");
            let parses = serde_json::from_slice::<Value>(line).is_ok();
            let text = ["truncated_json", "not_json", "nan_literal", "empty_line"].contains(how);
            assert_ne!(parses, text, "{how}: {}", String::from_utf8_lossy(line));
        }
    }
}
