use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment of event time (or append time): milliseconds since 1970-01-01T00:00:00Z.
///
/// Displayed as RFC 3339 UTC with milliseconds and `Z`.
///
/// ```
/// use viaflux::units::EventTime;
/// assert_eq!(EventTime::from_ms(1_773_037_799_785).to_string(), "2026-03-09T06:29:59.785Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTime(i64);

impl EventTime {
    /// The smallest moment that a record may carry: 1990-01-01. Below lie seconds taken for milliseconds.
    pub const MIN_PLAUSIBLE: EventTime = EventTime(631_152_000_000);
    /// The greatest moment that a record may carry: 2200-01-01. Above lie microseconds.
    pub const MAX_PLAUSIBLE: EventTime = EventTime(7_258_118_400_000);

    /// The moment `ms` milliseconds after the epoch.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// The moment of an RFC 3339 text such as `2026-11-23T05:30:58.000Z`, `None` if it is none.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let time: jiff::Timestamp = text.parse().ok()?;
        Some(Self(time.as_millisecond()))
    }

    /// This moment moved by `ms` milliseconds (saturating).
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; negative if `earlier` is later.
    pub const fn since(self, earlier: EventTime) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_and_parses_known_moments() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (7_258_118_400_000, "2200-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(EventTime::from_ms(ms).to_string(), text);
            assert_eq!(EventTime::parse_rfc3339(text), Some(EventTime::from_ms(ms)));
        }
        assert_eq!(
            EventTime::parse_rfc3339("2026-03-09T14:30:00+08:00"),
            EventTime::parse_rfc3339("2026-03-09T06:30:00Z")
        );
        assert_eq!(EventTime::parse_rfc3339("yesterday"), None);
    }
}
