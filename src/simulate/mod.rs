//! A built-in city with traffic, probe vehicles, loop detectors, incidents, defects and exact truth.
//!
//! Everything follows from [`Settings`]: equal settings give equal bytes on every platform. The simulation
//! has its own clock, which begins at [`Settings::begin`]; [`Simulation::step_to`] moves it on and hands out
//! what reaches the collecting system meanwhile. Memory stays bounded, so that it can run for ever.
//!
//! The traffic is microscopic (Krauss's car following at one second), with lanes, fixed-time signals,
//! priorities, and queues that spill back over junctions. Speeds of truth are Σ distance / Σ time of all
//! vehicles (Edie).

mod city;
mod demand;
mod detectors;
mod dice;
mod incidents;
mod probes;
mod streets;
mod traces;
mod traffic;
mod truth;

use std::collections::BTreeMap;

use serde::Serialize;

pub use city::CENTRE;
pub use traces::{Second, TraceSettings, Traces, Trip};
pub use traffic::Trips;
pub use truth::{
    Between, CONGESTED, EdgeDescription, EdgeTruth, Effect, EventTruth, LoopDescription, PointTruth,
    StationDescription, Truth,
};

use crate::network::osm::OsmData;
use crate::units::EventTime;
use demand::Demand;
use detectors::Detectors;
use dice::{Dice, Purpose};
use incidents::Incidents;
use probes::Probes;
use streets::Streets;
use traffic::{Sums, Traffic, VEHICLE_M};
use truth::{round, way_direction};

/// Seconds of traffic before [`Settings::begin`]: the streets are full and congested when the records begin.
const WARM_UP_S: i64 = 900;
/// Local time of the city is UTC+8 (the hour decides on demand only).
const LOCAL_MS: i64 = 8 * 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// What to simulate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Seed of every random choice.
    pub seed: u64,
    /// First moment of the records; whole seconds.
    pub begin: EventTime,
    /// Length of the planned run in seconds. Incidents are spread over it and go on at the same pace if the
    /// run does; detector faults lie within it.
    pub duration_s: u32,
    /// Width of the city in metres, 2,000 to 20,000.
    pub size_m: f64,
    /// Vehicles on the road at the peak of the rush hour.
    pub vehicles: u32,
    /// Share of the vehicles that report positions, 0 to 1.
    pub probe_share: f64,
    /// Seconds between two reports of a vehicle, at least 1.
    pub interval_s: u32,
    /// Detector stations (with one loop in each lane).
    pub sensor_stations: u32,
    /// Incidents within `duration_s`; the first begins after three minutes.
    pub incidents: u32,
    /// Whether records are lost, late, doubled, broken, and detectors fail. Without them there is still
    /// receiver noise and network delay.
    pub defects: bool,
    /// Whether truth is kept for [`Simulation::take_truth`], which must then be called now and then.
    pub truth: bool,
}

impl Default for Settings {
    /// An evening rush hour on Monday, 2026-11-23, from 17:00 local time.
    fn default() -> Self {
        Self {
            seed: 1,
            begin: EventTime::from_ms(1_795_424_400_000),
            duration_s: 3600,
            size_m: 6_000.0,
            vehicles: 3_000,
            probe_share: 0.25,
            interval_s: 5,
            sensor_stations: 120,
            incidents: 4,
            defects: true,
            truth: false,
        }
    }
}

/// Which feed a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    /// Positions of vehicles.
    Probe,
    /// Measurements of detectors.
    Sensor,
}

/// One record of a feed, in the shape of the preset `simulated-city`.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedRecord {
    /// When it reaches the collecting system.
    pub arrival: EventTime,
    /// Its feed.
    pub feed: Feed,
    /// JSON, or what defects made of it; without line end.
    pub line: Vec<u8>,
    /// Id of the vehicle or sensor that sent it (also where the line does not tell).
    pub key: String,
}

/// Records under way to the collecting system, in order of arrival, then of sending.
#[derive(Debug, Default)]
struct Outbox {
    pending: BTreeMap<(EventTime, u64), (SimulatedRecord, Option<PointTruth>)>,
    sent: u64,
    truth: bool,
}

impl Outbox {
    fn wants_truth(&self) -> bool {
        self.truth
    }

    fn probe(&mut self, arrival: EventTime, key: String, line: Vec<u8>, truth: Option<PointTruth>) {
        self.push(
            SimulatedRecord {
                arrival,
                feed: Feed::Probe,
                line,
                key,
            },
            truth,
        );
    }

    fn sensor(&mut self, arrival: EventTime, key: String, line: Vec<u8>) {
        self.push(
            SimulatedRecord {
                arrival,
                feed: Feed::Sensor,
                line,
                key,
            },
            None,
        );
    }

    fn push(&mut self, record: SimulatedRecord, truth: Option<PointTruth>) {
        self.pending.insert((record.arrival, self.sent), (record, truth));
        self.sent += 1;
    }
}

/// The running city.
#[derive(Debug)]
pub struct Simulation {
    settings: Settings,
    osm: OsmData,
    traffic: Traffic,
    probes: Probes,
    detectors: Detectors,
    incidents: Incidents,
    outbox: Outbox,
    now: EventTime,
    truth: Truth,
    /// Probe records handed out.
    lines: u64,
}

impl Simulation {
    /// Builds the city and lets its streets fill (a quarter of an hour of silent traffic, well under a
    /// second in an optimised build).
    pub fn new(settings: Settings) -> Self {
        let osm = city::draw(&mut Dice::new(settings.seed, Purpose::City), settings.size_m);
        let streets = Streets::new(&osm);
        let demand = Demand::new(&streets);
        let mut traffic = Traffic::new(streets, demand, Dice::new(settings.seed, Purpose::Traffic));
        let mut incidents = Incidents::new(&settings, Dice::new(settings.seed, Purpose::Incidents));
        let mut now = settings.begin.plus_ms(-WARM_UP_S * 1000);
        let mut flows = vec![Sums::default(); traffic.streets.edges.len()];
        while now < settings.begin {
            now = now.plus_ms(1000);
            advance(&mut traffic, &settings, now);
            if settings.begin.since(now) % MINUTE_MS == 0 {
                let sums = traffic.take_sums();
                // The last minutes tell where detectors are worth their place.
                if settings.begin.since(now) < 10 * MINUTE_MS {
                    flows
                        .iter_mut()
                        .zip(&sums)
                        .for_each(|(flow, minute)| flow.left += minute.left);
                }
                incidents.minute(now, &mut traffic, &sums);
            }
        }
        let detectors = Detectors::new(
            &settings,
            &mut traffic,
            &flows,
            Dice::new(settings.seed, Purpose::Sensors),
        );
        let mut truth = Truth::default();
        if settings.truth {
            truth.events.extend(detectors.faults());
        }
        Self {
            probes: Probes::new(&settings, Dice::new(settings.seed, Purpose::Probes)),
            outbox: Outbox {
                truth: settings.truth,
                ..Outbox::default()
            },
            lines: 0,
            osm,
            traffic,
            detectors,
            incidents,
            now,
            truth,
            settings,
        }
    }

    /// The settings of this run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The map of the city.
    pub fn osm(&self) -> &OsmData {
        &self.osm
    }

    /// How far the simulation has come.
    pub fn now(&self) -> EventTime {
        self.now
    }

    /// Trips so far, the warm-up's included.
    pub fn trips(&self) -> Trips {
        self.traffic.trips
    }

    /// Vehicles that were under way as probes so far.
    pub fn probe_vehicles(&self) -> u64 {
        self.probes.vehicles
    }

    /// The edges that truth speaks of.
    pub fn edges(&self) -> impl Iterator<Item = EdgeDescription> {
        self.traffic.streets.edges.iter().map(|e| EdgeDescription {
            edge: e.id.clone(),
            way: e.way,
            way_dir: way_direction(e.forward),
            from_node: e.from_node.to_string(),
            to_node: e.to_node.to_string(),
            highway: e.highway.clone(),
            name: e.name.clone(),
            length_m: round(e.length_m, 2),
            lanes: e.lanes,
            limit_mps: round(e.limit_mps, 2),
            geometry: e
                .corners()
                .map(|(lat, lon)| [round(lon, 7), round(lat, 7)])
                .collect(),
            free_mps: round(e.free_mps, 2),
        })
    }

    /// The detector stations (`sensors.json`).
    pub fn stations(&self) -> &[StationDescription] {
        &self.detectors.stations
    }

    /// Simulates up to `until` (whole seconds count) and appends the records that arrive by then, in order
    /// of arrival.
    pub fn step_to(&mut self, until: EventTime, out: &mut Vec<SimulatedRecord>) {
        while self.now.plus_ms(1000) <= until {
            self.step();
        }
        // What is sent after `now` arrives at least 0.3 s after the next full second: nothing overtakes.
        self.release(until, out);
    }

    /// Ends the run: open incidents are closed for truth, and all records under way arrive.
    pub fn finish(&mut self, out: &mut Vec<SimulatedRecord>) {
        let events = self.incidents.finish(self.now, &mut self.traffic);
        if self.settings.truth {
            self.truth.events.extend(events);
        }
        self.release(EventTime::from_ms(i64::MAX), out);
    }

    /// Truth since the last call; its points are those of the records handed out since then. Empty unless
    /// [`Settings::truth`].
    pub fn take_truth(&mut self) -> Truth {
        std::mem::take(&mut self.truth)
    }

    fn release(&mut self, until: EventTime, out: &mut Vec<SimulatedRecord>) {
        while let Some(first) = self.outbox.pending.first_entry()
            && first.key().0 <= until
        {
            let (record, truth) = first.remove();
            self.lines += u64::from(record.feed == Feed::Probe);
            if let Some(truth) = truth {
                let arrival_ms = record.arrival.ms();
                self.truth.points.push(PointTruth {
                    line: self.lines,
                    arrival_ms,
                    ..truth
                });
            }
            out.push(record);
        }
    }

    fn step(&mut self) {
        self.now = self.now.plus_ms(1000);
        advance(&mut self.traffic, &self.settings, self.now);
        self.note_teleports();
        self.detectors.observe(&self.traffic);
        self.probes.report(self.now, &self.traffic, &mut self.outbox);
        if self.now.since(self.settings.begin) % MINUTE_MS == 0 {
            self.detectors.report(self.now, &mut self.outbox);
            let sums = self.traffic.take_sums();
            if self.settings.truth {
                self.note_minute(self.now.plus_ms(-MINUTE_MS), &sums);
            }
            let events = self.incidents.minute(self.now, &mut self.traffic, &sums);
            if self.settings.truth {
                self.truth.events.extend(events);
            }
        }
    }

    fn note_teleports(&mut self) {
        if !self.settings.truth {
            return;
        }
        for jump in &self.traffic.teleports {
            if let Some(vehicle_id) = self.probes.id(jump.vehicle) {
                let to_edge = jump.to.map(|e| self.traffic.streets.edges[e as usize].id.clone());
                let ts = self.now.ms();
                self.truth.events.push(EventTruth::Teleport {
                    vehicle_id,
                    begin: ts,
                    end: ts,
                    to_edge,
                });
            }
        }
    }

    fn note_minute(&mut self, begin: EventTime, sums: &[Sums]) {
        let minute_s = MINUTE_MS as f64 / 1000.0;
        for (edge, sum) in self
            .traffic
            .streets
            .edges
            .iter()
            .zip(sums)
            .filter(|(_, s)| s.time_s > 0.0)
        {
            let (speed, mean) = (sum.distance_m / sum.time_s, sum.time_s / minute_s);
            let ratio = speed / edge.free_mps;
            let per_lane = VEHICLE_M / (edge.length_m * f64::from(edge.lanes));
            self.truth.edges.push(EdgeTruth {
                edge: edge.id.clone(),
                way: edge.way,
                ts: begin.ms(),
                vehicle_seconds: round(sum.time_s, 2),
                mean_vehicles: round(mean, 3),
                entered: sum.entered,
                left: sum.left,
                speed_mps: round(speed, 3),
                density_vpkm: round(mean / edge.length_m * 1000.0, 2),
                occupancy: round(100.0 * mean * per_lane, 2),
                waiting_s: round(sum.waiting_s, 2),
                speed_ratio: round(ratio, 3),
                congested: ratio < 0.5 && mean >= 1.0 && edge.length_m >= 30.0,
            });
        }
    }
}

/// One second of traffic with the demand of the local time.
fn advance(traffic: &mut Traffic, settings: &Settings, now: EventTime) {
    let hour = (now.ms() + LOCAL_MS).rem_euclid(86_400_000) as f64 / 3_600_000.0;
    let target = f64::from(settings.vehicles) * demand::share_of_peak(hour);
    traffic.step(target.round() as u64, hour >= 13.0);
}

#[cfg(test)]
mod tests;
