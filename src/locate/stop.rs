//! What a vehicle that stands is doing, as far as it alone can tell (algorithms §3.2). What needs other vehicles
//! is decided in aggregate, when the pane closes.

use serde::{Deserialize, Serialize};

use super::{Kind, Settings};
use crate::ingest::{Probe, VehicleClass};
use crate::units::EventTime;

/// How long before or after a stop a passenger may get in or out for the stop to have been for that, in ms.
const FLIP_MS: i64 = 10_000;

/// What a vehicle last said of itself beside its position. Taken from fixes as they are accepted, so that it runs
/// ahead of the places decided: a sign that comes a little after a stop is still known in time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Signs {
    occupied: Option<bool>,
    /// When `occupied` last changed.
    flipped: Option<EventTime>,
    /// Since when the ignition has been off.
    ignition_off: Option<EventTime>,
}

impl Signs {
    /// Takes the next fix of the vehicle. What it does not tell stays as it was.
    pub(super) fn take(&mut self, fix: &Probe) {
        if let Some(occupied) = fix.occupied {
            if self.occupied.is_some_and(|o| o != occupied) {
                self.flipped = Some(fix.time);
            }
            self.occupied = Some(occupied);
        }
        match fix.ignition {
            Some(false) => self.ignition_off = self.ignition_off.or(Some(fix.time)),
            Some(true) => self.ignition_off = None,
            None => {}
        }
    }
}

/// A vehicle that stands: since when, and whether it is known to be no traffic.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Stop {
    pub(super) since: EventTime,
    /// Distance that it was placed onward since, in mm.
    drift_mm: u64,
    /// Once known, it holds until the vehicle moves.
    excluded: bool,
    parked: bool,
}

impl Stop {
    pub(super) fn new(since: EventTime) -> Self {
        Self {
            since,
            drift_mm: 0,
            excluded: false,
            parked: false,
        }
    }

    /// Whether a step of `driven_mm` without speed is still this stop: one that creeps away ends.
    pub(super) fn holds(&mut self, driven_mm: u64, settings: &Settings) -> bool {
        self.drift_mm += driven_mm;
        self.drift_mm <= u64::from(settings.park_m) * 1000
    }

    /// Whether the vehicle took no part in traffic, so that its way begins anew when it moves.
    pub(super) fn parked(&self) -> bool {
        self.parked
    }

    /// What the time up to `now` was. `at_line`: it stands where vehicles wait for a signal.
    pub(super) fn judge(
        &mut self,
        now: EventTime,
        class: VehicleClass,
        signs: &Signs,
        at_line: bool,
        settings: &Settings,
    ) -> Kind {
        let stood_ms = now.since(self.since);
        let over = |ms: i64, s: u32| ms > i64::from(s) * 1000;
        let taxi = class == VehicleClass::Taxi;
        let off = signs.ignition_off.map_or(i64::MIN, |t| now.since(t));
        // A feed that does not tell who is vacant would lose every jam if all of its taxis might be at a rank.
        let idle = taxi && signs.occupied == Some(false) && !at_line;
        self.parked |= over(off, settings.ignition_off_s) || (idle && over(stood_ms, settings.park_s));
        let flip = |t: EventTime| t.since(self.since) >= -FLIP_MS && now.since(t) >= -FLIP_MS;
        self.excluded |= self.parked || (taxi && signs.flipped.is_some_and(flip));
        let bus = matches!(class, VehicleClass::Bus | VehicleClass::Coach);
        let boards = bus && !at_line && !over(stood_ms, settings.bus_stop_s);
        if self.excluded {
            Kind::Excluded
        } else if idle || boards {
            Kind::Unsure
        } else {
            Kind::Queue
        }
    }
}
