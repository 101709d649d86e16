//! Accidents: a road or all but one of its lanes closed for a quarter of an hour and more.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::Settings;
use super::dice::Dice;
use super::streets::Edge;
use super::traffic::{Block, Sums, Traffic};
use super::truth::{Effect, EventTruth, round, way_direction};
use crate::units::EventTime;

/// Minutes of every edge's past that are kept, to tell what an incident changed.
const MINUTES_BEFORE: usize = 10;
/// An incident strikes one of so many busiest edges.
const POOL: usize = 20;
/// Least distance between two incidents at the same time, in metres.
const APART_M: f64 = 1200.0;
/// The first incident comes early, so that a demonstration soon has something to show.
const FIRST_AFTER_MS: i64 = 180_000;

#[derive(Debug)]
struct Active {
    number: u32,
    edge: u32,
    block: Block,
    begin: EventTime,
    end: EventTime,
    before: Sums,
    minutes_before: usize,
    during: Sums,
    minutes_during: u32,
}

/// The plan of incidents and those under way.
#[derive(Debug)]
pub(super) struct Incidents {
    begin: EventTime,
    /// Time from one to the next, `None` if there are none at all.
    spacing_ms: Option<i64>,
    next: u32,
    active: Vec<Active>,
    past: VecDeque<Vec<Sums>>,
    dice: Dice,
}

impl Incidents {
    pub(super) fn new(settings: &Settings, dice: Dice) -> Self {
        let spacing_ms = i64::from(settings.duration_s) * 1000 / i64::from(settings.incidents.max(1));
        Self {
            begin: settings.begin,
            spacing_ms: (settings.incidents > 0).then_some(spacing_ms.max(60_000)),
            next: 0,
            active: Vec::new(),
            past: VecDeque::new(),
            dice,
        }
    }

    /// To be called at each full minute with the sums of the minute before `now`.
    pub(super) fn minute(&mut self, now: EventTime, traffic: &mut Traffic, sums: &[Sums]) -> Vec<EventTruth> {
        for active in &mut self.active {
            // From its second minute on: the first still shows the traffic of before.
            if now.since(active.begin) >= 120_000 {
                add(&mut active.during, &sums[active.edge as usize]);
                active.minutes_during += 1;
            }
        }
        self.past.push_back(sums.to_vec());
        if self.past.len() > MINUTES_BEFORE {
            self.past.pop_front();
        }
        let over = self.close(|active| active.end <= now, now, traffic);
        if let Some(spacing) = self.spacing_ms {
            let due = self
                .begin
                .plus_ms(FIRST_AFTER_MS + spacing * i64::from(self.next));
            if now >= due {
                self.open(now, traffic);
            }
        }
        over
    }

    /// Ends all incidents: the simulation is over.
    pub(super) fn finish(&mut self, now: EventTime, traffic: &mut Traffic) -> Vec<EventTruth> {
        self.close(|_| true, now, traffic)
    }

    /// Blocks a busy edge: a whole road (1st, 3rd …) or all lanes but one (2nd, 4th …).
    fn open(&mut self, now: EventTime, traffic: &mut Traffic) {
        let number = self.next;
        self.next += 1;
        let whole = number.is_multiple_of(2);
        let mut total = vec![Sums::default(); traffic.blocks.len()];
        for minute in &self.past {
            total
                .iter_mut()
                .zip(minute)
                .for_each(|(total, sums)| add(total, sums));
        }
        // On a road that is jammed already, an incident would change nothing that one could see.
        let flows = |e: u32| {
            let sums = &total[e as usize];
            sums.distance_m > 0.6 * traffic.streets.edges[e as usize].free_mps * sums.time_s
        };
        let middle = |e: u32| {
            let edge = &traffic.streets.edges[e as usize];
            edge.point(edge.length_m / 2.0).0
        };
        let mut pool: Vec<u32> = (0..total.len() as u32)
            .filter(|&e| {
                let edge = &traffic.streets.edges[e as usize];
                let large = ["primary", "secondary"].contains(&edge.highway.as_str());
                large && (90.0..900.0).contains(&edge.length_m) && (whole || edge.lanes > 1) && flows(e)
            })
            .filter(|&e| {
                self.active.iter().all(|a| {
                    let ((ax, ay), (bx, by)) = (middle(a.edge), middle(e));
                    libm::hypot(ax - bx, ay - by) > APART_M
                })
            })
            .collect();
        pool.sort_by_key(|&e| (Reverse(total[e as usize].left), e));
        pool.truncate(POOL);
        if pool.is_empty() {
            return;
        }
        let edge = pool[self.dice.below(pool.len())];
        let here = &traffic.streets.edges[edge as usize];
        let open_lane = u8::from(self.dice.chance(0.5)) * (here.lanes - 1);
        let all = ((1u16 << here.lanes) - 1) as u8;
        let block = Block {
            at_m: round(here.length_m * self.dice.between(0.55, 0.8), 1),
            lanes: if whole { all } else { all & !(1 << open_lane) },
        };
        let minutes = if number == 0 {
            25
        } else {
            12 + self.dice.below(9) as i64
        };
        let mut before = Sums::default();
        for minute in &self.past {
            add(&mut before, &minute[edge as usize]);
        }
        traffic.blocks[edge as usize] = Some(block);
        self.active.push(Active {
            number,
            edge,
            block,
            begin: now,
            end: now.plus_ms(minutes * 60_000),
            before,
            minutes_before: self.past.len(),
            during: Sums::default(),
            minutes_during: 0,
        });
    }

    fn close(
        &mut self,
        is_over: impl Fn(&Active) -> bool,
        now: EventTime,
        traffic: &mut Traffic,
    ) -> Vec<EventTruth> {
        let mut events = Vec::new();
        for active in std::mem::take(&mut self.active) {
            if is_over(&active) {
                traffic.blocks[active.edge as usize] = None;
                events.push(describe(&active, now, traffic));
            } else {
                self.active.push(active);
            }
        }
        events
    }
}

fn add(total: &mut Sums, minute: &Sums) {
    total.distance_m += minute.distance_m;
    total.time_s += minute.time_s;
    total.left += minute.left;
}

fn describe(active: &Active, now: EventTime, traffic: &Traffic) -> EventTruth {
    let edge = &traffic.streets.edges[active.edge as usize];
    let lane_index = active.block.lanes.trailing_zeros() as u8;
    let ((lat, lon), _) = traffic
        .streets
        .locate(active.edge, f64::from(lane_index), active.block.at_m);
    let lanes_blocked = active.block.lanes.count_ones() as u8;
    EventTruth::Incident {
        id: format!("incident_{}", active.number),
        kind: if lanes_blocked == edge.lanes {
            "road_blocked"
        } else {
            "lane_blocked"
        },
        edge: edge.id.clone(),
        way: edge.way,
        way_dir: way_direction(edge.forward),
        highway: edge.highway.clone(),
        name: edge.name.clone(),
        lane_index,
        lanes_blocked,
        lanes: edge.lanes,
        pos_m: active.block.at_m,
        length_m: round(edge.length_m, 2),
        lon: round(lon, 7),
        lat: round(lat, 7),
        begin: active.begin.ms(),
        end: active.end.min(now).ms(),
        effect: effect(active, edge),
    }
}

fn effect(active: &Active, edge: &Edge) -> Effect {
    let speed = |s: &Sums| (s.time_s > 0.0).then(|| round(s.distance_m / s.time_s, 2));
    let per_minute = |s: &Sums, minutes: usize| round(f64::from(s.left) / minutes.max(1) as f64, 1);
    let (before, during) = (speed(&active.before), speed(&active.during));
    let flow_before = per_minute(&active.before, active.minutes_before);
    let flow_during = per_minute(&active.during, active.minutes_during as usize);
    let severity = match (before, during) {
        (Some(before), _) if before < 0.5 * edge.free_mps => "masked",
        (Some(before), Some(during)) if during < 0.5 * before || flow_during < 0.5 * flow_before => "major",
        _ => "minor",
    };
    Effect {
        severity,
        speed_before_mps: before,
        speed_during_mps: during,
        left_per_min_before: flow_before,
        left_per_min_during: flow_during,
    }
}
