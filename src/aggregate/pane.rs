use serde::{Deserialize, Serialize};

use super::{Settings, StandingTimes};
use crate::locate::{Contribution, Kind};
use crate::units::EventTime;

/// What one vehicle left in one segment and pane under way, summed over its steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    traversal: u64,
    time_ms: u64,
    weighted_ms: u64,
    positions: u32,
    until_ms: u32,
    entered: bool,
}

/// One stop of one vehicle in one segment and pane: what it comes to is known as the pane closes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stand {
    traversal: u64,
    since: EventTime,
    /// When it was last seen, ms since the pane's beginning.
    until_ms: u32,
    /// It may be for passengers.
    unsure: bool,
    time_ms: u64,
    weighted_ms: u64,
    weighted_mm: u64,
}

/// What a stop comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Queue,
    Unsure,
    /// No traffic.
    Excluded,
    /// Nobody can tell.
    Censored,
}

/// The latest vehicles that passed a segment freely, by when they came in, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Passed(Vec<EventTime>);

impl Passed {
    /// Adds one and forgets all but `most`.
    pub(super) fn add(&mut self, entered: EventTime, most: usize) {
        let at = self.0.partition_point(|t| *t >= entered);
        self.0.insert(at, entered);
        self.0.truncate(most);
    }

    /// Adds others and forgets all but `most`.
    pub(super) fn join(&mut self, others: &Passed, most: usize) {
        others.0.iter().for_each(|t| self.add(*t, most));
    }

    /// Whether `most` vehicles came in after `since`.
    fn since(&self, since: EventTime, most: usize) -> bool {
        self.0.get(most.saturating_sub(1)).is_some_and(|t| *t >= since)
    }
}

/// An open (segment, pane).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cell {
    entries: Vec<Entry>,
    stands: Vec<Stand>,
    /// Vehicles that left in this pane, having passed freely.
    pub(super) passed: Passed,
    weighted_mm: u64,
    weighted_ms: u64,
    excluded_ms: u64,
}

impl Cell {
    pub(super) fn add(&mut self, c: &Contribution) {
        if c.kind == Kind::Excluded {
            self.excluded_ms += u64::from(c.time_ms);
            return;
        }
        let weight = u64::from(c.weight_permille);
        let (mm, ms) = (weight * u64::from(c.distance_mm), weight * u64::from(c.time_ms));
        let entry = self.entry(c);
        entry.positions += u32::from(c.positions);
        entry.entered &= c.entered;
        entry.until_ms = entry.until_ms.max(c.until_ms);
        if c.kind == Kind::Moving {
            entry.time_ms += u64::from(c.time_ms);
            entry.weighted_ms += ms;
            self.weighted_mm += mm;
            self.weighted_ms += ms;
        } else {
            let stand = self.stand(c);
            stand.until_ms = stand.until_ms.max(c.until_ms);
            stand.unsure &= c.kind == Kind::Unsure;
            stand.time_ms += u64::from(c.time_ms);
            stand.weighted_ms += ms;
            stand.weighted_mm += mm;
        }
    }

    fn entry(&mut self, c: &Contribution) -> &mut Entry {
        // The vehicle that was booked last is the likeliest to be booked next.
        let i = match self.entries.iter().rposition(|e| e.traversal == c.traversal) {
            Some(i) => i,
            None => {
                self.entries.push(Entry {
                    traversal: c.traversal,
                    time_ms: 0,
                    weighted_ms: 0,
                    positions: 0,
                    until_ms: 0,
                    entered: c.entered,
                });
                self.entries.len() - 1
            }
        };
        &mut self.entries[i]
    }

    fn stand(&mut self, c: &Contribution) -> &mut Stand {
        let since = c.stood_since;
        let same = |s: &Stand| s.traversal == c.traversal && s.since == since;
        let i = match self.stands.iter().rposition(same) {
            Some(i) => i,
            None => {
                self.stands.push(Stand {
                    traversal: c.traversal,
                    since,
                    until_ms: 0,
                    unsure: true,
                    time_ms: 0,
                    weighted_ms: 0,
                    weighted_mm: 0,
                });
                self.stands.len() - 1
            }
        };
        &mut self.stands[i]
    }

    /// What the pane that began at `begin` comes to; `None` if there was no traffic in it. `passed` are the vehicles
    /// that passed freely up to its end, `times` takes the time stood by what it was.
    pub(super) fn close(
        mut self,
        begin: EventTime,
        passed: &Passed,
        settings: &Settings,
        times: &mut StandingTimes,
    ) -> Option<PaneSums> {
        times.excluded_ms += self.excluded_ms;
        let mut silent: Vec<u64> = Vec::new();
        if !self.stands.is_empty() {
            silent = self.judge(begin, passed, settings, times);
        }
        let mut sums = PaneSums {
            weighted_mm: self.weighted_mm,
            weighted_ms: self.weighted_ms,
            ..PaneSums::default()
        };
        let mut any = false;
        for entry in &self.entries {
            if entry.time_ms == 0 && silent.contains(&entry.traversal) {
                continue;
            }
            any = true;
            if let Some(weight) = entry.weighted_ms.checked_div(entry.time_ms) {
                sums.weight += weight;
                sums.weight_squares += weight * weight;
            }
            sums.positions += entry.positions;
            sums.until_ms = sums.until_ms.max(entry.until_ms);
            if entry.entered {
                sums.entered += 1;
            } else {
                sums.present += 1;
            }
        }
        any.then_some(sums)
    }

    /// Judges every stop and adds those that count to the sums; gives the traversals with one that does not.
    fn judge(
        &mut self,
        begin: EventTime,
        passed: &Passed,
        settings: &Settings,
        times: &mut StandingTimes,
    ) -> Vec<u64> {
        let over = |s: &Stand, seconds: u32| {
            begin.plus_ms(i64::from(s.until_ms)).since(s.since) > i64::from(seconds) * 1000
        };
        let sure = self.stands.iter().filter(|s| !s.unsure);
        let mut waiting: Vec<u64> = sure.map(|s| s.traversal).collect();
        waiting.sort_unstable();
        waiting.dedup();
        let moves = self.entries.iter().any(|e| e.time_ms > 0);
        let mut silent = Vec::new();
        for stand in std::mem::take(&mut self.stands) {
            let witnessed = passed.since(stand.since, settings.others_pass as usize);
            let verdict = if stand.unsure {
                // Taxis at a rank say nothing of traffic by themselves, however many they are.
                let long = over(&stand, settings.pickup_unsure_s);
                match (witnessed, long, waiting.is_empty()) {
                    (true, ..) => Verdict::Excluded,
                    (false, true, false) => Verdict::Queue,
                    (false, false, false) => Verdict::Unsure,
                    (false, false, true) if moves => Verdict::Unsure,
                    (false, _, true) => Verdict::Censored,
                }
            } else if witnessed && over(&stand, settings.passed_s) {
                Verdict::Excluded
            } else if over(&stand, settings.alone_s) && waiting.len() < settings.jam_vehicles as usize {
                Verdict::Censored
            } else {
                Verdict::Queue
            };
            let share = match verdict {
                Verdict::Queue => {
                    times.queue_ms += stand.time_ms;
                    1000
                }
                Verdict::Unsure => {
                    times.unsure_ms += stand.time_ms;
                    u64::from(settings.unsure_permille)
                }
                Verdict::Excluded => {
                    times.excluded_ms += stand.time_ms;
                    0
                }
                Verdict::Censored => {
                    times.censored_ms += stand.time_ms;
                    0
                }
            };
            if share == 0 {
                silent.push(stand.traversal);
                continue;
            }
            let weighted_ms = stand.weighted_ms * share / 1000;
            self.weighted_ms += weighted_ms;
            self.weighted_mm += stand.weighted_mm * share / 1000;
            if let Some(entry) = self.entries.iter_mut().find(|e| e.traversal == stand.traversal) {
                entry.time_ms += stand.time_ms;
                entry.weighted_ms += weighted_ms;
            }
        }
        silent
    }
}

/// A closed (segment, pane): sums over its contributions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PaneSums {
    /// Σ weight · distance, ‰·mm.
    pub(super) weighted_mm: u64,
    /// Σ weight · time, ‰·ms.
    pub(super) weighted_ms: u64,
    /// Σ weight over contributions, ‰.
    pub(super) weight: u64,
    /// Σ weight², ‰².
    pub(super) weight_squares: u64,
    /// Positions reported.
    pub(super) positions: u32,
    /// Vehicles that were there when the pane began.
    pub(super) present: u32,
    /// Vehicles that came in while it lasted.
    pub(super) entered: u32,
    /// Last observation, ms since the pane's beginning.
    pub(super) until_ms: u32,
}
