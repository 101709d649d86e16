use serde::{Deserialize, Serialize};

/// Congestion level by the share of free-flow speed, with the names and bounds of DATEX II 3.5
/// (`TrafficStatusEnum`, `AbnormalTrafficTypeEnum`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// At least 90 %.
    FreeFlow,
    /// 75 to 90 %.
    Heavy,
    /// 25 to 75 %.
    Slow,
    /// 10 to 25 %.
    Queuing,
    /// Below 10 %.
    Stationary,
    /// Closed to traffic, as reported.
    Closed,
    /// Nobody knows.
    Unknown,
}

impl Level {
    /// All levels.
    pub const ALL: [Level; 7] = [
        Level::FreeFlow,
        Level::Heavy,
        Level::Slow,
        Level::Queuing,
        Level::Stationary,
        Level::Closed,
        Level::Unknown,
    ];

    /// The level of a speed ratio in permille.
    pub const fn of(ratio_permille: u32) -> Self {
        match ratio_permille {
            0..100 => Self::Stationary,
            100..250 => Self::Queuing,
            250..750 => Self::Slow,
            750..900 => Self::Heavy,
            _ => Self::FreeFlow,
        }
    }

    /// The name in messages and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::FreeFlow => "free_flow",
            Self::Heavy => "heavy",
            Self::Slow => "slow",
            Self::Queuing => "queuing",
            Self::Stationary => "stationary",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }
}

/// What a state rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Enough own and fresh observations.
    Live,
    /// Few own observations, those of its link, or old ones.
    Blended,
    /// History alone.
    Typical,
    /// Nothing.
    None,
}

impl Basis {
    /// All of them.
    pub const ALL: [Basis; 4] = [Basis::Live, Basis::Blended, Basis::Typical, Basis::None];

    /// The name in messages and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Blended => "blended",
            Self::Typical => "typical",
            Self::None => "none",
        }
    }
}

/// Where travel time goes (DATEX II `TravelTimeTrendTypeEnum`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    /// Travel time falls.
    Decreasing,
    /// It stays within 10 %.
    Stable,
    /// It rises.
    Increasing,
}

impl Trend {
    /// The name in messages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Decreasing => "decreasing",
            Self::Stable => "stable",
            Self::Increasing => "increasing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_the_better_level() {
        let at = [
            (0, "stationary"),
            (99, "stationary"),
            (100, "queuing"),
            (249, "queuing"),
            (250, "slow"),
        ];
        let above = [
            (749, "slow"),
            (750, "heavy"),
            (899, "heavy"),
            (900, "free_flow"),
            (1400, "free_flow"),
        ];
        for (permille, label) in at.into_iter().chain(above) {
            assert_eq!(Level::of(permille).label(), label, "{permille}");
        }
    }
}
