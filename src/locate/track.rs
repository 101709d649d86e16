//! What is kept of one vehicle between two fixes.

use serde::{Deserialize, Serialize};

use super::drift::Drift;
use super::smoothing::{Filter, Odometer};
use super::viterbi::Lattice;
use crate::ingest::Probe;
use crate::network::SegmentIndex;
use crate::units::{Bearing, EventTime, MmPerS, Position};

/// A position as the matcher takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fix {
    /// When the position was taken.
    pub time: EventTime,
    /// Where, in WGS-84.
    pub position: Position,
    /// Reported speed.
    pub speed: Option<MmPerS>,
    /// Reported direction of travel.
    pub heading: Option<Bearing>,
    /// Reported accuracy (one standard deviation) in millimetres.
    pub accuracy_mm: Option<u32>,
    /// The vehicle may use roads that are closed to cars but open to buses and taxis.
    pub bus_roads: bool,
    /// Names the fix to the caller; the matcher only hands it back.
    pub id: u64,
}

impl From<&Probe> for Fix {
    fn from(probe: &Probe) -> Self {
        Self {
            time: probe.time,
            position: probe.position,
            speed: probe.speed,
            heading: probe.heading,
            accuracy_mm: probe.accuracy_mm,
            bus_roads: probe.class.uses_bus_roads(),
            id: probe.offset,
        }
    }
}

/// A place on the network, in the direction of travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spot {
    pub(super) segment: SegmentIndex,
    pub(super) offset_mm: u32,
}

/// Where a fix was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct At {
    pub(super) spot: Spot,
    /// The fix's filtered position.
    pub(super) position: Position,
}

/// How a fix takes part in the matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    /// It has a column in the lattice.
    Column,
    /// It is placed on the way between its neighbours that have one.
    Between,
    /// No way leads there; placed as `Between` if it is near that.
    Skipped,
    /// No road is near.
    OffRoad,
}

/// A fix that is not decided yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) fix: Fix,
    /// Its position with the receiver's noise averaged out.
    pub(super) position: Position,
    pub(super) part: Part,
}

/// One vehicle on the road. Belongs to the map and the settings of the matcher that made it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Track {
    /// Fixes not decided yet, in order of time.
    pub(super) pending: Vec<Pending>,
    /// Columns of the kept ones.
    pub(super) lattice: Lattice,
    /// What each state of the last column holds for the receiver's error, and the direction of its road.
    pub(super) drifts: Vec<(Drift, Bearing)>,
    pub(super) filter: Option<Filter>,
    /// The way driven since the last column, if all fixes since had a speed.
    pub(super) odometer: Option<Odometer>,
    /// How far the receiver's error put the last decided column's spot ahead of the vehicle, in metres.
    pub(super) ahead_m: f32,
    /// Where the last decided fix was placed; `None` if it was not.
    pub(super) at: Option<At>,
    /// The state of the lattice's decided column that `at` follows from.
    pub(super) tail: Option<Spot>,
    /// Time of the last decided fix.
    pub(super) decided: Option<EventTime>,
    /// Posterior of the last decided column.
    pub(super) posterior_permille: u16,
    /// Fixes since the last column that no way explains.
    pub(super) skipped: u8,
    /// Fixes in a row without a road near.
    pub(super) off_road: u8,
}

impl Track {
    /// When the oldest fix that waits must be decided at the latest: `settle_s` after the step begins that ends
    /// with it. `None` if none waits.
    pub fn due(&self, settle_s: u32) -> Option<EventTime> {
        let first = self.pending.first()?.fix.time;
        let begin = self.decided.unwrap_or(first);
        Some(begin.plus_ms(i64::from(settle_s) * 1000))
    }

    /// The last fix that was taken.
    pub(super) fn last(&self) -> Option<&Fix> {
        self.filter.as_ref().map(|f| &f.last)
    }
}
