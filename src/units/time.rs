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
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        )
    }
}

/// Year, month and day of a day counted from 1970-01-01 in the proleptic Gregorian calendar
/// (H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_known_moments() {
        assert_eq!(EventTime::from_ms(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(EventTime::from_ms(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(
            EventTime::from_ms(951_782_400_000).to_string(),
            "2000-02-29T00:00:00.000Z"
        );
        assert_eq!(EventTime::MAX_PLAUSIBLE.to_string(), "2200-01-01T00:00:00.000Z");
        assert_eq!(EventTime::MIN_PLAUSIBLE.to_string(), "1990-01-01T00:00:00.000Z");
    }
}
