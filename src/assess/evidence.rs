//! Why an alert says what it says: the conditions of its rule, with the bounds and the values that met them.

use serde::{Deserialize, Serialize};

/// What a condition measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// Upper bound of the 90 % interval of speed by free-flow speed, permille.
    RatioUpperPermille,
    /// Speed by free-flow speed, permille.
    RatioPermille,
    /// Panes of those looked at in which the condition held.
    PanesHeld,
    /// Panes in a row in which the road was free.
    PanesFree,
    /// Distinct vehicles, or sensors, in the evidence.
    Witnesses,
    /// Length in mm.
    LengthMm,
    /// Vehicles that stand.
    VehiclesStanding,
    /// Time since the last vehicle passed, in ms.
    WithoutPassageMs,
    /// Passages in the quarter of an hour before the last one.
    PassagesBefore,
    /// Passages within two minutes.
    PassagesAgain,
    /// Points of a score, in tenths.
    ScoreTenths,
    /// Share of the sampled vehicles in two partitions, permille.
    SplitPermille,
}

impl Measure {
    /// The name with its unit, and what to divide the value by to have that unit.
    pub const fn label(self) -> (&'static str, f64) {
        match self {
            Self::RatioUpperPermille => ("speed_ratio_upper_bound", 1000.0),
            Self::RatioPermille => ("speed_ratio", 1000.0),
            Self::PanesHeld => ("panes_held", 1.0),
            Self::PanesFree => ("panes_free", 1.0),
            Self::Witnesses => ("vehicles_or_sensors", 1.0),
            Self::LengthMm => ("length_m", 1000.0),
            Self::VehiclesStanding => ("vehicles_standing", 1.0),
            Self::WithoutPassageMs => ("without_passage_s", 1000.0),
            Self::PassagesBefore => ("passages_before", 1.0),
            Self::PassagesAgain => ("passages_again", 1.0),
            Self::ScoreTenths => ("score", 10.0),
            Self::SplitPermille => ("split_ratio", 1000.0),
        }
    }
}

/// On which side of its bound a value must lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// The bound or more.
    AtLeast(i64),
    /// The bound or less.
    AtMost(i64),
}

/// A condition that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What was measured.
    pub measure: Measure,
    /// What was found, in the unit of the measure.
    pub value: i64,
    /// What the rule asks.
    pub bound: Bound,
}

impl Condition {
    /// A value that must reach a bound.
    pub const fn at_least(measure: Measure, value: i64, bound: i64) -> Self {
        let bound = Bound::AtLeast(bound);
        Self {
            measure,
            value,
            bound,
        }
    }

    /// A value that must not exceed a bound.
    pub const fn at_most(measure: Measure, value: i64, bound: i64) -> Self {
        let bound = Bound::AtMost(bound);
        Self {
            measure,
            value,
            bound,
        }
    }
}
