//! Vehicles on the streets: car following by the rule of Krauss (1998), one-second steps, lanes, signals,
//! priorities, spillback over junctions, detours and, as the last resort, teleports.

use std::collections::VecDeque;

use super::demand::Demand;
use super::dice::Dice;
use super::streets::{ACCELERATION, BRAKING, Light, Router, Rule, Streets};

/// Length of every vehicle in metres.
pub(super) const VEHICLE_M: f64 = 4.6;
/// Seconds of one step, equal to the drivers' reaction time: the rule of Krauss is free of collisions so.
pub(super) const STEP_S: f64 = 1.0;
/// Distance between stopped vehicles in metres.
const GAP_M: f64 = 2.4;
/// Bumpers never come closer than this, in metres.
const CONTACT_M: f64 = 0.5;
/// Greatest part of an acceleration that a driver wastes at random.
const DAWDLE: f64 = 0.3;
/// Speed below which a vehicle counts as waiting, in m/s.
const WAITING_MPS: f64 = 0.1;
/// Speed past an accident, in m/s.
const PASSING_MPS: f64 = 2.5;
/// A blocked road is seen from this far, in metres.
const SEEN_M: f64 = 200.0;
/// Seconds between two looks of a stuck driver for another way, and until the driver is lifted over the jam.
const DETOUR_S: u32 = 60;
const TELEPORT_S: u32 = 300;

/// One vehicle on its trip.
#[derive(Debug)]
pub(super) struct Vehicle {
    /// Counts up from 0 over the simulation; never used again.
    pub(super) number: u64,
    pub(super) edge: u32,
    /// The edge before, once one was left.
    pub(super) came_from: Option<u32>,
    pub(super) lane: u8,
    /// Front bumper, in metres from the edge's beginning.
    pub(super) along_m: f64,
    pub(super) speed: f64,
    pub(super) on_road: bool,
    planned: f64,
    /// Wished speed as a part of the limit.
    wish: f64,
    /// Plans by current travel times, not by those of light traffic.
    informed: bool,
    /// Edges to come.
    route: VecDeque<u32>,
    /// Where on the last edge the trip ends.
    end_m: f64,
    /// Seconds since it last moved.
    waited: u32,
    moved_at: u32,
    routed_at: u32,
}

/// What all vehicles did on one edge since the last [`Traffic::take_sums`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) distance_m: f64,
    pub(super) time_s: f64,
    pub(super) waiting_s: f64,
    pub(super) entered: u32,
    pub(super) left: u32,
}

/// Lanes that are closed at one place of an edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) at_m: f64,
    /// Bit k: lane k.
    pub(super) lanes: u8,
}

/// Travel on a watched edge within one step: front bumper from and to (beyond the edge's ends if it came or
/// went within the step).
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    pub(super) edge: u32,
    pub(super) lane: u8,
    pub(super) from_m: f64,
    pub(super) to_m: f64,
}

/// A vehicle lifted over a jam; `to` is `None` if it had to leave the city.
#[derive(Clone, Copy, Debug)]
pub(super) struct Teleport {
    pub(super) vehicle: u64,
    pub(super) to: Option<u32>,
}

/// Trips since the simulation's beginning, warm-up included: `entered` = `left` + `removed` + `on_road`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Trips {
    /// Vehicles that began a trip.
    pub entered: u64,
    /// Vehicles that came to their trip's end.
    pub left: u64,
    /// Vehicles under way.
    pub on_road: u64,
    /// Jumps over a jam (after five minutes without moving).
    pub teleports: u64,
    /// Vehicles taken out because no later edge of their route had room.
    pub removed: u64,
}

/// All vehicles and the state of the streets.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) streets: Streets,
    pub(super) vehicles: Vec<Vehicle>,
    pub(super) trips: Trips,
    /// Steps since the beginning of the warm-up.
    pub(super) second: u32,
    pub(super) blocks: Vec<Option<Block>>,
    /// Edges whose [`Passage`]s are kept, and those of the last step.
    pub(super) watched: Vec<bool>,
    pub(super) passages: Vec<Passage>,
    pub(super) teleports: Vec<Teleport>,
    demand: Demand,
    dice: Dice,
    router: Router,
    free_slots: Vec<u32>,
    /// Vehicles of each lane, foremost first; the lanes of edge e begin at `first_lane[e]`.
    lanes: Vec<VecDeque<u32>>,
    first_lane: Vec<u32>,
    sums: Vec<Sums>,
    /// Travel time in ms in light traffic and at present.
    light_ms: Vec<u64>,
    present_ms: Vec<u64>,
    /// Who passed a junction without signal last, and until when others wait.
    held: Vec<(u32, u32)>,
    stuck: Vec<u32>,
}

/// Greatest speed that lets a driver stop behind a leader who brakes: Krauss's rule.
fn safe_speed(gap: f64, speed: f64, leader: f64) -> f64 {
    if gap <= 0.0 {
        return 0.0;
    }
    (leader + (gap - leader * STEP_S) / ((speed + leader) / (2.0 * BRAKING) + STEP_S)).max(0.0)
}

impl Vehicle {
    /// The next edge of its route.
    pub(super) fn next_edge(&self) -> Option<u32> {
        self.route.front().copied()
    }
}

impl Traffic {
    pub(super) fn new(streets: Streets, demand: Demand, dice: Dice) -> Self {
        let mut first_lane = Vec::with_capacity(streets.edges.len());
        let mut lanes = 0;
        for edge in &streets.edges {
            first_lane.push(lanes);
            lanes += u32::from(edge.lanes);
        }
        let light_ms: Vec<u64> = streets
            .edges
            .iter()
            .map(|e| (e.length_m / e.free_mps * 1000.0) as u64)
            .collect();
        let n = streets.edges.len();
        Self {
            router: Router::new(&streets),
            held: vec![(u32::MAX, 0); streets.junctions],
            lanes: vec![VecDeque::new(); lanes as usize],
            sums: vec![Sums::default(); n],
            blocks: vec![None; n],
            watched: vec![false; n],
            present_ms: light_ms.clone(),
            vehicles: Vec::new(),
            free_slots: Vec::new(),
            trips: Trips::default(),
            passages: Vec::new(),
            teleports: Vec::new(),
            stuck: Vec::new(),
            second: 0,
            streets,
            demand,
            dice,
            first_lane,
            light_ms,
        }
    }

    /// One second of traffic, with `target` vehicles wanted on the road.
    pub(super) fn step(&mut self, target: u64, evening: bool) {
        self.second += 1;
        self.passages.clear();
        self.teleports.clear();
        self.begin_trips(target, evening);
        for edge in 0..self.streets.edges.len() as u32 {
            if self.streets.edges[edge as usize].lanes > 1 {
                self.change_lanes(edge);
            }
        }
        self.plan();
        for edge in 0..self.streets.edges.len() as u32 {
            for lane in 0..self.streets.edges[edge as usize].lanes {
                self.drive(edge, lane);
            }
        }
        for slot in std::mem::take(&mut self.stuck) {
            self.help(slot);
        }
    }

    /// The sums per edge since the last call; drivers who plan by present travel times learn from them.
    pub(super) fn take_sums(&mut self) -> Vec<Sums> {
        let sums = std::mem::replace(&mut self.sums, vec![Sums::default(); self.light_ms.len()]);
        for (e, sum) in sums.iter().enumerate() {
            let measured = if sum.time_s >= 5.0 {
                let speed = (sum.distance_m / sum.time_s).max(0.4);
                (self.streets.edges[e].length_m / speed * 1000.0) as u64
            } else {
                self.light_ms[e]
            };
            self.present_ms[e] = (self.present_ms[e] + measured.max(self.light_ms[e])) / 2;
        }
        sums
    }

    fn lane(&self, edge: u32, lane: u8) -> usize {
        self.first_lane[edge as usize] as usize + usize::from(lane)
    }

    // ---- trips

    fn begin_trips(&mut self, target: u64, evening: bool) {
        // A bounded rate: an emptied city fills over some minutes, not at once.
        let most = (target / 200).max(2);
        for _ in 0..target.saturating_sub(self.trips.on_road).min(most) {
            let trip = self.demand.draw(&mut self.dice, evening);
            let informed = self.dice.chance(0.3);
            let wish = (0.95 + 0.08 * self.dice.normal()).clamp(0.75, 1.15);
            let part = self.dice.between(0.5, 0.95);
            let (lane, rear, _) = self.entry(trip.from, None);
            let room = if trip.rolling {
                30.0
            } else {
                2.0 * VEHICLE_M + GAP_M
            };
            if rear < room {
                continue;
            }
            let number = self.trips.entered;
            let Some(route) = self.find_route(number, informed, (trip.from, trip.to), None) else {
                continue;
            };
            self.trips.entered += 1;
            self.trips.on_road += 1;
            let vehicle = Vehicle {
                number,
                edge: trip.from,
                came_from: None,
                lane,
                along_m: VEHICLE_M,
                speed: if trip.rolling { 8.0 } else { 0.0 },
                on_road: true,
                planned: 0.0,
                wish,
                informed,
                route: route.into(),
                end_m: part * self.streets.edges[trip.to as usize].length_m,
                waited: 0,
                moved_at: 0,
                routed_at: self.second,
            };
            let slot = match self.free_slots.pop() {
                Some(slot) => {
                    self.vehicles[slot as usize] = vehicle;
                    slot
                }
                None => {
                    self.vehicles.push(vehicle);
                    self.vehicles.len() as u32 - 1
                }
            };
            let at = self.lane(trip.from, lane);
            self.lanes[at].push_back(slot);
            self.sums[trip.from as usize].entered += 1;
        }
    }

    /// The cheapest way for a driver; each sees the costs a little differently (up to +12 %), so that
    /// parallel streets share the load.
    fn find_route(
        &mut self,
        number: u64,
        informed: bool,
        ends: (u32, u32),
        avoid: Option<u32>,
    ) -> Option<Vec<u32>> {
        let costs = if informed {
            &self.present_ms
        } else {
            &self.light_ms
        };
        let cost = |edge: u32| {
            let base = costs[edge as usize];
            let mixed = (number ^ (u64::from(edge) << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
            base + base * mixed / 2048
        };
        self.router.route(&self.streets, &cost, ends, avoid)
    }

    fn end_trip(&mut self, slot: u32) {
        self.vehicles[slot as usize].on_road = false;
        self.free_slots.push(slot);
        self.trips.on_road -= 1;
    }

    // ---- lanes

    /// The best lane to enter an edge on, given the turn after it: (lane, free metres from the beginning,
    /// speed of the last vehicle there).
    fn entry(&self, edge: u32, after: Option<u32>) -> (u8, f64, f64) {
        let lanes = self.streets.edges[edge as usize].lanes;
        let turn = after.and_then(|next| self.streets.turn(edge, next));
        let closed = self.blocks[edge as usize].map_or(0, |b| b.lanes);
        let mut best = (0, f64::NEG_INFINITY, 0.0);
        let mut best_score = f64::NEG_INFINITY;
        for lane in 0..lanes {
            let (rear, speed) = match self.lanes[self.lane(edge, lane)].back() {
                Some(&last) => {
                    let last = &self.vehicles[last as usize];
                    (last.along_m - VEHICLE_M, last.speed)
                }
                None => (f64::INFINITY, f64::INFINITY),
            };
            let suits = turn.is_none_or(|t| t.allows(lane, lanes)) && closed >> lane & 1 == 0;
            // A full lane that suits is worse than a free one that does not: nobody blocks a junction for it.
            let score = rear.min(500.0) + if suits && rear >= GAP_M { 1_000.0 } else { 0.0 };
            if score > best_score {
                (best, best_score) = ((lane, rear, speed), score);
            }
        }
        best
    }

    /// At most one change out of each lane: off a closed lane, or past a slower leader.
    fn change_lanes(&mut self, edge: u32) {
        let lanes = self.streets.edges[edge as usize].lanes;
        for lane in 0..lanes {
            let from = self.lane(edge, lane);
            let found = (0..self.lanes[from].len()).find_map(|k| {
                let target = self.wanted_lane(edge, lane, k)?;
                Some((k, target, self.place_in_lane(edge, lane, k, target)?))
            });
            if let Some((k, target, place)) = found {
                let slot = self.lanes[from].remove(k).expect("k is below the length");
                self.vehicles[slot as usize].lane = target;
                let to = self.lane(edge, target);
                self.lanes[to].insert(place, slot);
            }
        }
    }

    /// The neighbouring lane that the k-th vehicle would like to be on.
    fn wanted_lane(&self, edge: u32, lane: u8, k: usize) -> Option<u8> {
        let queue = &self.lanes[self.lane(edge, lane)];
        let car = &self.vehicles[queue[k] as usize];
        let here = &self.streets.edges[edge as usize];
        let closed = self.blocks[edge as usize].map_or(0, |b| b.lanes);
        if self.must_merge(car) {
            let open = (0..here.lanes).filter(|l| closed >> l & 1 == 0);
            let nearest = open.min_by_key(|l| l.abs_diff(lane))?;
            return Some(if nearest > lane { lane + 1 } else { lane - 1 });
        }
        // Half of the drivers look each second; nobody changes just before the line.
        let looks = (car.number + u64::from(self.second)).is_multiple_of(2);
        let slow = car.speed < 0.7 * here.limit_mps * car.wish;
        if k == 0 || !looks || !slow || car.along_m > here.length_m - 20.0 {
            return None;
        }
        let leader = &self.vehicles[queue[k - 1] as usize];
        let gap = leader.along_m - VEHICLE_M - car.along_m;
        let turn = car.route.front().and_then(|&next| self.streets.turn(edge, next));
        [lane.wrapping_sub(1), lane + 1].into_iter().find(|&l| {
            l < here.lanes
                && closed >> l & 1 == 0
                && turn.is_none_or(|t| t.allows(l, here.lanes))
                && gap < 25.0
                && self.gap_ahead(edge, l, car.along_m) > gap + 15.0
        })
    }

    fn must_merge(&self, car: &Vehicle) -> bool {
        self.blocks[car.edge as usize]
            .is_some_and(|b| b.lanes >> car.lane & 1 == 1 && (0.0..SEEN_M).contains(&(b.at_m - car.along_m)))
    }

    /// Index in a lane before which all vehicles are further along.
    fn index_in_lane(&self, edge: u32, lane: u8, along_m: f64) -> usize {
        self.lanes[self.lane(edge, lane)].partition_point(|&o| self.vehicles[o as usize].along_m >= along_m)
    }

    fn gap_ahead(&self, edge: u32, lane: u8, along_m: f64) -> f64 {
        match self.index_in_lane(edge, lane, along_m) {
            0 => f64::INFINITY,
            p => {
                let leader = self.lanes[self.lane(edge, lane)][p - 1];
                self.vehicles[leader as usize].along_m - VEHICLE_M - along_m
            }
        }
    }

    /// Where in the other lane there is room for the k-th vehicle of this one, if there is.
    fn place_in_lane(&self, edge: u32, lane: u8, k: usize, target: u8) -> Option<usize> {
        let car = &self.vehicles[self.lanes[self.lane(edge, lane)][k] as usize];
        let place = self.index_in_lane(edge, target, car.along_m);
        let (mut behind, mut closing) = (f64::INFINITY, 0.0);
        if let Some(&follower) = self.lanes[self.lane(edge, target)].get(place) {
            let follower = &self.vehicles[follower as usize];
            behind = car.along_m - VEHICLE_M - follower.along_m;
            closing = follower.speed;
        }
        let ahead = self.gap_ahead(edge, target, car.along_m);
        // Who must merge squeezes in; who only wants to waits for room.
        let (least_ahead, least_behind) = if self.must_merge(car) {
            (1.0, 1.0 + 0.3 * closing)
        } else {
            (GAP_M, GAP_M + closing)
        };
        (ahead > least_ahead && behind > least_behind).then_some(place)
    }

    // ---- driving

    fn plan(&mut self) {
        for lane in 0..self.lanes.len() {
            for k in 0..self.lanes[lane].len() {
                let slot = self.lanes[lane][k] as usize;
                let leader = k.checked_sub(1).map(|before| self.lanes[lane][before] as usize);
                let speed = self.wanted_speed(&self.vehicles[slot], leader.map(|l| &self.vehicles[l]));
                let wasted = DAWDLE * ACCELERATION * self.dice.unit();
                self.vehicles[slot].planned = if speed > wasted {
                    speed - wasted
                } else {
                    speed.min(wasted / 2.0)
                };
            }
        }
    }

    fn wanted_speed(&self, car: &Vehicle, leader: Option<&Vehicle>) -> f64 {
        let edge = &self.streets.edges[car.edge as usize];
        let mut speed = (car.speed + ACCELERATION * STEP_S).min(edge.limit_mps * car.wish);
        // A leader beyond the line has its leave already; the rule now asks the follower.
        if leader.is_none_or(|leader| leader.along_m > edge.stop_line_m()) {
            speed = speed.min(self.speed_to_junction(car));
        }
        if let Some(leader) = leader {
            let gap = leader.along_m - VEHICLE_M - GAP_M - car.along_m;
            speed = speed.min(safe_speed(gap, car.speed, leader.speed));
        }
        if let Some(block) = self.blocks[car.edge as usize] {
            let ahead = block.at_m - car.along_m;
            if block.lanes >> car.lane & 1 == 1 {
                if ahead >= 0.0 {
                    speed = speed.min(safe_speed(ahead - 1.0, car.speed, 0.0));
                }
            } else if ahead.abs() < 25.0 {
                speed = speed.min(PASSING_MPS);
            }
        }
        speed
    }

    /// Bound for the first vehicle before the line: the turn, the rule and the room beyond the junction.
    fn speed_to_junction(&self, car: &Vehicle) -> f64 {
        let Some(&next) = car.route.front() else {
            return f64::INFINITY;
        };
        let edge = &self.streets.edges[car.edge as usize];
        let left = edge.length_m - car.along_m;
        if left > car.speed * car.speed / (2.0 * BRAKING) + 2.0 * car.speed + 5.0 {
            return f64::INFINITY;
        }
        let turn = self
            .streets
            .turn(car.edge, next)
            .map_or(f64::INFINITY, |t| t.speed());
        let careful = if matches!(edge.rule, Rule::Yield | Rule::FirstCome) {
            6.0
        } else {
            f64::INFINITY
        };
        // The next limit holds from its beginning, and on a short piece one must be able to stop at its end.
        let onto = &self.streets.edges[next as usize];
        let short = libm::sqrt(2.0 * BRAKING * onto.length_m);
        let at_line = turn.min(careful).min(short).min(onto.limit_mps * car.wish);
        // Solved for the speed over the coming step, after which the rest of the way is shorter by it.
        let braking = libm::sqrt(BRAKING * BRAKING + at_line * at_line + 2.0 * BRAKING * left) - BRAKING;
        let bound = at_line.max(braking);
        let (_, rear, tail_speed) = self.entry(next, car.route.get(1).copied());
        if rear < GAP_M || !self.may_cross(car) {
            // Who has passed the line can only wait in the junction, right before the next edge.
            let to_line = edge.stop_line_m() - car.along_m;
            let rest = if to_line >= 0.0 { to_line } else { left };
            return bound.min(safe_speed(rest, car.speed, 0.0));
        }
        if rear.is_infinite() {
            return bound;
        }
        bound.min(safe_speed(left + rear - GAP_M, car.speed, tail_speed))
    }

    /// Whether signal, priority and order of arrival let a vehicle over the line, if it is not over it yet.
    fn may_cross(&self, car: &Vehicle) -> bool {
        let left = self.streets.edges[car.edge as usize].stop_line_m() - car.along_m;
        if left < 0.0 {
            return true;
        }
        let e = car.edge as usize;
        let unheld = || {
            let (holder, until) = self.held[self.streets.end_junction[e] as usize];
            holder == car.edge || self.second >= until
        };
        match self.streets.edges[e].rule {
            Rule::Free => true,
            rule @ Rule::Signal { .. } => match rule.light(self.second) {
                Light::Green => true,
                Light::Yellow => left < car.speed * car.speed / (2.0 * BRAKING),
                Light::Red => false,
            },
            // From afar one drives up and looks then.
            _ if left > 20.0 => true,
            Rule::FirstCome => unheld(),
            // After a long wait somebody lets the driver in.
            Rule::Yield => unheld() && (car.waited > 25 || self.priority_is_clear(e)),
        }
    }

    fn priority_is_clear(&self, e: usize) -> bool {
        self.streets.priority_over[e].iter().all(|&major| {
            let edge = &self.streets.edges[major as usize];
            (0..edge.lanes).all(|lane| {
                self.lanes[self.lane(major, lane)].front().is_none_or(|&first| {
                    let first = &self.vehicles[first as usize];
                    let left = edge.length_m - first.along_m;
                    let stands = first.speed < 0.5;
                    stands || left / first.speed.max(2.0) > 3.0
                })
            })
        })
    }

    /// Moves the vehicles of one lane by their planned speeds, foremost first.
    fn drive(&mut self, edge: u32, lane: u8) {
        let at = self.lane(edge, lane);
        let length = self.streets.edges[edge as usize].length_m;
        let line = self.streets.edges[edge as usize].stop_line_m();
        let mut bound = f64::INFINITY;
        let mut k = 0;
        while k < self.lanes[at].len() {
            let slot = self.lanes[at][k];
            let car = &mut self.vehicles[slot as usize];
            if car.moved_at == self.second {
                // Came in within this step.
                bound = car.along_m - VEHICLE_M - CONTACT_M;
                k += 1;
                continue;
            }
            car.moved_at = self.second;
            let from = car.along_m;
            let mut to = (from + car.planned * STEP_S).min(bound).max(from);
            if let Some(block) = self.blocks[edge as usize]
                && block.lanes >> lane & 1 == 1
                && from <= block.at_m
            {
                to = to.min(block.at_m);
            }
            if car.route.is_empty() && to >= car.end_m {
                self.note(edge, lane, from, to, (to - from, STEP_S));
                self.sums[edge as usize].left += 1;
                self.lanes[at].remove(k);
                self.end_trip(slot);
                self.trips.left += 1;
                continue;
            }
            if from <= line && to > line && !self.may_enter(slot) {
                to = line;
            }
            if to > length {
                if k == 0 && self.cross(slot, from, to) {
                    continue;
                }
                to = length;
            }
            self.note(edge, lane, from, to, (to - from, STEP_S));
            let car = &mut self.vehicles[slot as usize];
            car.along_m = to;
            car.speed = (to - from) / STEP_S;
            if car.speed < WAITING_MPS {
                car.waited += 1;
                self.sums[edge as usize].waiting_s += STEP_S;
                if k == 0 && line - to < 10.0 && car.waited.is_multiple_of(DETOUR_S) && !car.route.is_empty()
                {
                    self.stuck.push(slot);
                }
            } else {
                car.waited = 0;
            }
            bound = to - VEHICLE_M - CONTACT_M;
            k += 1;
        }
    }

    /// Whether a vehicle may pass the line: the rule lets it, and the junction will not be blocked by it.
    fn may_enter(&self, slot: u32) -> bool {
        let car = &self.vehicles[slot as usize];
        match car.route.front() {
            Some(&next) => self.may_cross(car) && self.entry(next, car.route.get(1).copied()).1 >= GAP_M,
            // The trip ends here, between the line and the junction.
            None => true,
        }
    }

    /// Takes the first vehicle of a lane over the junction, if there is room.
    fn cross(&mut self, slot: u32, from: f64, to: f64) -> bool {
        let car = &self.vehicles[slot as usize];
        let (edge, lane) = (car.edge, car.lane);
        let Some(&next) = car.route.front() else {
            return false;
        };
        let length = self.streets.edges[edge as usize].length_m;
        let (target, rear, _) = self.entry(next, car.route.get(1).copied());
        if rear < GAP_M {
            return false;
        }
        if matches!(
            self.streets.edges[edge as usize].rule,
            Rule::Yield | Rule::FirstCome
        ) {
            self.held[self.streets.end_junction[edge as usize] as usize] = (edge, self.second + 2);
        }
        let along = (to - length)
            .min(rear - CONTACT_M)
            .min(self.streets.edges[next as usize].length_m);
        let part = (length - from) / (length - from + along);
        self.note(edge, lane, from, length + along, (length - from, part * STEP_S));
        self.note(next, target, from - length, along, (along, (1.0 - part) * STEP_S));
        self.sums[edge as usize].left += 1;
        self.sums[next as usize].entered += 1;
        let (at, into) = (self.lane(edge, lane), self.lane(next, target));
        self.lanes[at].pop_front();
        self.lanes[into].push_back(slot);
        let car = &mut self.vehicles[slot as usize];
        car.route.pop_front();
        car.speed = (length - from + along) / STEP_S;
        (car.edge, car.lane, car.along_m, car.waited) = (next, target, along, 0);
        car.came_from = Some(edge);
        if car.informed && self.second - car.routed_at > 180 {
            self.replan(slot, None);
        }
        true
    }

    /// Books travel on an edge.
    fn note(&mut self, edge: u32, lane: u8, from_m: f64, to_m: f64, (distance_m, time_s): (f64, f64)) {
        let sums = &mut self.sums[edge as usize];
        sums.distance_m += distance_m;
        sums.time_s += time_s;
        if self.watched[edge as usize] {
            self.passages.push(Passage {
                edge,
                lane,
                from_m,
                to_m,
            });
        }
    }

    fn replan(&mut self, slot: u32, avoid: Option<u32>) {
        let car = &mut self.vehicles[slot as usize];
        car.routed_at = self.second;
        let (number, from) = (car.number, car.edge);
        let Some(&to) = car.route.back() else { return };
        if let Some(route) = self.find_route(number, true, (from, to), avoid)
            && !route.is_empty()
        {
            self.vehicles[slot as usize].route = route.into();
        }
    }

    /// For the first vehicle at a line that has not moved for a while: another way, at last a jump.
    fn help(&mut self, slot: u32) {
        let car = &self.vehicles[slot as usize];
        let Some(&next) = car.route.front() else { return };
        let full = self.entry(next, None).1 < GAP_M;
        if car.waited < TELEPORT_S {
            // Who does not follow the news waits longer before leaving the usual way.
            if full && (car.informed || car.waited >= 3 * DETOUR_S) {
                self.replan(slot, Some(next));
            }
            return;
        }
        let (edge, lane, number) = (car.edge, car.lane, car.number);
        let ahead = (1..car.route.len()).find(|&k| self.entry(car.route[k], None).1 > 3.0 * VEHICLE_M);
        let at = self.lane(edge, lane);
        self.lanes[at].pop_front();
        self.sums[edge as usize].left += 1;
        self.trips.teleports += 1;
        let to = ahead.map(|k| self.vehicles[slot as usize].route[k]);
        self.teleports.push(Teleport { vehicle: number, to });
        let (Some(k), Some(to)) = (ahead, to) else {
            self.trips.removed += 1;
            self.end_trip(slot);
            return;
        };
        let target = self.entry(to, None).0;
        let into = self.lane(to, target);
        self.lanes[into].push_back(slot);
        self.sums[to as usize].entered += 1;
        let car = &mut self.vehicles[slot as usize];
        car.route.drain(..=k);
        car.came_from = None;
        (car.edge, car.lane, car.along_m, car.speed, car.waited) = (to, target, VEHICLE_M, 0.0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_drives_into_the_leader() {
        for (speed, leader_speed) in (0..25).flat_map(|v| (0..25).map(move |l| (f64::from(v), f64::from(l))))
        {
            // The least distance at which the rule lets one drive at this speed …
            let mut gap = 0.0;
            while safe_speed(gap, speed, leader_speed) < speed {
                gap += 0.5;
            }
            // … is enough if the leader brakes to a stop.
            let (mut v, mut leader) = (speed, leader_speed);
            for _ in 0..20 {
                v = safe_speed(gap, v, leader).min(v + ACCELERATION);
                leader = (leader - BRAKING * STEP_S).max(0.0);
                gap += (leader - v) * STEP_S;
                assert!(gap > -GAP_M, "from {speed} behind {leader_speed} m/s: {gap} m");
            }
            assert!(v < 0.5, "the follower stops, too");
        }
    }
}
