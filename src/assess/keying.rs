//! Keying: whether the records of a vehicle keep to one partition (design §4).
//!
//! Two partitions are two machines: a vehicle whose records are dealt to both is tracked twice from half of its
//! fixes, and its speeds are wrong. So a sample of the vehicles is watched over windows of event time, and too
//! many in two partitions raise an alert. What is kept of a window does not depend on the order of the
//! sightings: the vehicles with the least keys, and of each the two least partitions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::evidence::{Condition, Measure};
use super::{About, Alert, AlertId, AlertType, Severity, Transition};
use crate::ingest::SubjectKey;
use crate::locate::{KEYING_WINDOW_MS, Sighting};
use crate::units::EventTime;

/// Name and version of the rule; both enter the alert's identity.
pub const KEYING_RULE: (&str, u32) = ("split-identity", 1);

/// Share of the sampled vehicles in two partitions above which an alert opens: 1 % (design §4).
const OPEN_PERMILLE: u64 = 10;
/// Share at or below which it is over.
const CLOSE_PERMILLE: u64 = 5;
/// Change of the share that is told.
const TOLD_PERMILLE: u32 = 100;
/// Vehicles kept of one window of a source.
const VEHICLES_MAX: usize = 65_536;
/// Partitions named in the evidence.
const PARTITIONS_MAX: usize = 64;

/// What a window showed of the keying of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keying {
    /// The source: a topic.
    pub source: String,
    /// Vehicles sampled.
    pub vehicles: u32,
    /// Of these, vehicles seen in more than one partition.
    pub split: u32,
    /// Partitions that share vehicles, ascending: of each vehicle the two least, and of these the least 64.
    pub partitions: Vec<u16>,
    /// The window looked at.
    pub window: (EventTime, EventTime),
}

impl Keying {
    /// Share of the sampled vehicles that were seen in more than one partition, in permille.
    pub fn split_permille(&self) -> u32 {
        let share = u64::from(self.split) * 1000 / u64::from(self.vehicles.max(1));
        u32::try_from(share).unwrap_or(1000)
    }

    /// Whether the share of split vehicles is above so many permille, exactly.
    fn exceeds(&self, permille: u64) -> bool {
        u64::from(self.split) * 1000 > u64::from(self.vehicles) * permille
    }

    fn severity(&self) -> Severity {
        match self.split_permille() {
            0..50 => Severity::Minor,
            50..200 => Severity::Moderate,
            _ => Severity::Major,
        }
    }
}

/// Where a vehicle was seen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    least: u16,
    second: Option<u16>,
}

impl Seen {
    fn add(&mut self, partition: u16) {
        if partition < self.least {
            self.second = Some(self.least);
            self.least = partition;
        } else if partition > self.least && self.second.is_none_or(|s| partition < s) {
            self.second = Some(partition);
        }
    }
}

/// What is remembered of a source.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SourceMemory {
    /// Vehicles seen, by window; each at most [`VEHICLES_MAX`].
    windows: BTreeMap<i64, BTreeMap<SubjectKey, Seen>>,
    /// The open alert.
    alert: Option<Alert>,
}

impl SourceMemory {
    /// The open alert.
    pub(super) fn open(&self) -> Option<&Alert> {
        self.alert.as_ref()
    }

    /// When the next window is complete or the open alert stale.
    pub(super) fn due(&self, stale_ms: i64) -> Option<EventTime> {
        let window = self.windows.keys().next().map(|window| window_end(*window));
        let stale = self.alert.as_ref().and_then(|open| match &open.about {
            About::Keying(last) if !open.stale => Some(last.window.1.plus_ms(stale_ms)),
            _ => None,
        });
        window.into_iter().chain(stale).min()
    }

    pub(super) fn see(&mut self, sighting: Sighting, partition: u16) {
        let vehicles = self.windows.entry(sighting.window).or_default();
        vehicles
            .entry(sighting.vehicle)
            .and_modify(|seen| seen.add(partition))
            .or_insert(Seen {
                least: partition,
                second: None,
            });
        if vehicles.len() > VEHICLES_MAX {
            vehicles.pop_last();
        }
    }

    /// Judges the windows that are complete at `now`, the end of a closed pane. Without data an alert is held,
    /// and stale after `stale_ms`.
    pub(super) fn step(&mut self, source: &str, now: EventTime, stale_ms: i64, out: &mut Vec<Alert>) {
        while let Some(first) = self.windows.first_entry() {
            let end = window_end(*first.key());
            if end > now {
                break;
            }
            let keying = judge(source, end, first.remove());
            self.take(keying, now, out);
        }
        if let Some(open) = &mut self.alert
            && let About::Keying(last) = &open.about
            && !open.stale
            && now.since(last.window.1) >= stale_ms
        {
            open.revision += 1;
            open.transition = Transition::Updated;
            open.updated_at = now;
            open.stale = true;
            out.push(open.clone());
        }
    }

    fn take(&mut self, keying: Keying, now: EventTime, out: &mut Vec<Alert>) {
        let Some(old) = self.alert.take() else {
            if keying.exceeds(OPEN_PERMILLE) {
                let opened = opened(keying, now);
                out.push(opened.clone());
                self.alert = Some(opened);
            }
            return;
        };
        let over = !keying.exceeds(CLOSE_PERMILLE);
        let moved = match &old.about {
            About::Keying(before) => {
                before.split_permille().abs_diff(keying.split_permille()) >= TOLD_PERMILLE
            }
            About::Link { .. } | About::Obstruction(_) | About::Sensor(_) => true,
        };
        let severity = keying.severity();
        if !over && !moved && !old.stale && severity == old.severity {
            self.alert = Some(old);
            return;
        }
        let next = Alert {
            revision: old.revision + 1,
            transition: if over {
                Transition::Resolved
            } else {
                Transition::Updated
            },
            severity,
            updated_at: now,
            ends_at: over.then_some(now),
            conditions: conditions(&keying, over),
            about: About::Keying(keying),
            stale: false,
            ..old
        };
        out.push(next.clone());
        self.alert = (!over).then_some(next);
    }
}

fn window_end(window: i64) -> EventTime {
    EventTime::from_ms(window * KEYING_WINDOW_MS).plus_ms(KEYING_WINDOW_MS)
}

fn judge(source: &str, end: EventTime, vehicles: BTreeMap<SubjectKey, Seen>) -> Keying {
    let mut partitions = BTreeSet::new();
    let mut split = 0;
    for (least, second) in vehicles.values().filter_map(|s| Some((s.least, s.second?))) {
        split += 1;
        partitions.extend([least, second]);
    }
    Keying {
        source: source.to_owned(),
        vehicles: vehicles.len() as u32,
        split,
        partitions: partitions.into_iter().take(PARTITIONS_MAX).collect(),
        window: (end.plus_ms(-KEYING_WINDOW_MS), end),
    }
}

fn conditions(keying: &Keying, over: bool) -> Vec<Condition> {
    let value = i64::from(keying.split_permille());
    vec![if over {
        Condition::at_most(Measure::SplitPermille, value, CLOSE_PERMILLE as i64)
    } else {
        Condition::at_least(Measure::SplitPermille, value, OPEN_PERMILLE as i64)
    }]
}

fn opened(keying: Keying, now: EventTime) -> Alert {
    let onset = keying.window.0;
    Alert {
        id: AlertId::of(KEYING_RULE, AlertType::SplitIdentity, &keying.source, onset),
        revision: 1,
        kind: AlertType::SplitIdentity,
        transition: Transition::Opened,
        severity: keying.severity(),
        starts_at: onset,
        updated_at: now,
        ends_at: None,
        conditions: conditions(&keying, false),
        about: About::Keying(keying),
        stale: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE_MS: i64 = 600_000;

    /// Shows `vehicles` in partition 3 of window `window`, the first `split` of them in partition 1 too.
    fn show(memory: &mut SourceMemory, window: i64, vehicles: u64, split: u64) {
        for v in 0..vehicles {
            let sighting = Sighting {
                window,
                vehicle: SubjectKey(v),
            };
            memory.see(sighting, 3);
            if v < split {
                memory.see(sighting, 1);
            }
        }
    }

    fn step(memory: &mut SourceMemory, windows: i64) -> Vec<Alert> {
        let mut out = Vec::new();
        let now = EventTime::from_ms(windows * KEYING_WINDOW_MS);
        memory.step("gps", now, STALE_MS, &mut out);
        out
    }

    #[test]
    fn one_percent_is_tolerated_and_more_is_not() {
        let mut memory = SourceMemory::default();
        show(&mut memory, 0, 200, 2);
        assert_eq!(step(&mut memory, 1), []);
        show(&mut memory, 1, 200, 3);
        let mut early = Vec::new();
        memory.step(
            "gps",
            EventTime::from_ms(2 * KEYING_WINDOW_MS - 1),
            STALE_MS,
            &mut early,
        );
        assert_eq!(early, [], "the window is not complete");
        let told = step(&mut memory, 2);
        let [alert] = &told[..] else { panic!("{told:?}") };
        assert_eq!(
            (alert.kind, alert.transition, alert.revision),
            (AlertType::SplitIdentity, Transition::Opened, 1)
        );
        assert_eq!(alert.starts_at.ms(), KEYING_WINDOW_MS);
        let About::Keying(k) = &alert.about else {
            panic!("{alert:?}")
        };
        assert_eq!(
            (k.vehicles, k.split, &k.partitions[..], k.split_permille()),
            (200, 3, &[1, 3][..], 15)
        );
    }

    #[test]
    fn an_alert_is_held_without_data_and_ends_when_keys_are_right() {
        let mut memory = SourceMemory::default();
        show(&mut memory, 0, 100, 50);
        assert_eq!(step(&mut memory, 1).len(), 1);
        show(&mut memory, 1, 100, 45);
        assert_eq!(step(&mut memory, 2), [], "much the same");
        let stale = step(&mut memory, 4);
        assert!(stale.len() == 1 && stale[0].stale && stale[0].transition == Transition::Updated);
        assert!(step(&mut memory, 9).is_empty() && memory.open().is_some());
        show(&mut memory, 9, 100, 1);
        let back = step(&mut memory, 10);
        assert!(
            !back[0].stale && back[0].transition == Transition::Updated && back[0].revision == 3,
            "1 % is not yet good: {back:?}"
        );
        show(&mut memory, 10, 100, 0);
        let over = step(&mut memory, 11);
        assert_eq!((over[0].transition, over[0].revision), (Transition::Resolved, 4));
        assert!(memory.open().is_none());
        show(&mut memory, 11, 100, 50);
        let again = step(&mut memory, 12);
        assert!(again[0].id != over[0].id && again[0].revision == 1);
    }

    #[test]
    fn what_is_kept_at_the_limit_does_not_depend_on_the_order() {
        let all: Vec<(u64, u16)> = (0..VEHICLES_MAX as u64 + 500)
            .map(|v| (v.wrapping_mul(0x9e37_79b9_7f4a_7c15), (v % 5) as u16))
            .flat_map(|(v, p)| [(v, p), (v, (p * 2) % 5), (v, 4 - p)])
            .collect();
        let judged = |order: &mut dyn Iterator<Item = &(u64, u16)>| {
            let mut memory = SourceMemory::default();
            for &(v, p) in order {
                memory.see(
                    Sighting {
                        window: 7,
                        vehicle: SubjectKey(v),
                    },
                    p,
                );
            }
            let (_, vehicles) = memory.windows.pop_first().unwrap();
            assert_eq!(vehicles.len(), VEHICLES_MAX);
            judge("gps", EventTime::from_ms(8 * KEYING_WINDOW_MS), vehicles)
        };
        let forth = judged(&mut all.iter());
        assert_eq!(forth, judged(&mut all.iter().rev()));
        let odd = all.iter().skip(1).step_by(2).chain(all.iter().step_by(2));
        assert_eq!(forth, judged(&mut odd.into_iter()));
        assert_eq!(forth.partitions, [0, 1, 2, 3, 4]);
    }
}
