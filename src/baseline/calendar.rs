//! Which quarter hour of which kind of day a moment belongs to, in the local time of the city.

use std::collections::BTreeMap;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::units::EventTime;

/// Quarter hours of a day.
pub const QUARTERS: usize = 96;
/// Kinds of day: Monday to Sunday, and public holidays.
pub const DAYS: usize = 8;
/// Quarter hours of all kinds of day.
pub const SLOTS: usize = DAYS * QUARTERS;
/// The kind of day of a public holiday.
pub(super) const HOLIDAY: usize = 7;
const FRIDAY: usize = 4;

/// A quarter hour of a kind of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// 0 Monday to 6 Sunday, 7 public holiday.
    pub day: u8,
    /// Quarter hour of the local day, 0 to 95.
    pub quarter: u8,
}

impl Slot {
    /// Place in arrays of [`SLOTS`].
    pub(super) fn index(self) -> usize {
        usize::from(self.day) * QUARTERS + usize::from(self.quarter)
    }
}

/// How a day differs from what its weekday says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DayKind {
    /// A public holiday.
    Holiday,
    /// Work on a Saturday or Sunday, to make up for a holiday.
    Workday,
}

/// Days that differ from what their weekday says: the content of a holidays file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holidays {
    /// Where the days were read.
    pub source: String,
    /// The days, each once.
    pub day: Vec<Holiday>,
}

/// A day of [`Holidays`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holiday {
    /// `2026-10-01`.
    pub date: String,
    /// How it differs.
    pub kind: DayKind,
    /// Name for people.
    #[serde(default)]
    pub name: String,
}

/// Local time and the days that differ. The zone comes from the binary's own data, never from the machine.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    name: String,
    days: BTreeMap<Date, DayKind>,
}

impl Calendar {
    /// The calendar of an IANA time zone such as `Asia/Shanghai`.
    ///
    /// # Errors
    /// A text for people: no such zone, no such day, or a day named twice.
    pub fn new(zone: &str, holidays: &Holidays) -> Result<Self, String> {
        let tz = TimeZone::get(zone)
            .map_err(|_| format!("`{zone}` is no time zone; one looks like Asia/Shanghai or Europe/Rome"))?;
        let mut days = BTreeMap::new();
        for day in &holidays.day {
            let date: Date = day
                .date
                .parse()
                .map_err(|_| format!("`{}` is no day; one looks like 2026-10-01", day.date))?;
            if days.insert(date, day.kind).is_some() {
                return Err(format!("{date} stands there twice"));
            }
        }
        Ok(Self {
            zone: tz,
            name: zone.to_owned(),
            days,
        })
    }

    /// Name of the time zone.
    pub fn zone(&self) -> &str {
        &self.name
    }

    /// The days that differ, in order of date: what can change results beside the zone.
    pub fn days(&self) -> impl Iterator<Item = (String, DayKind)> + '_ {
        self.days.iter().map(|(date, kind)| (date.to_string(), *kind))
    }

    /// The local day of a moment.
    pub(super) fn date(&self, time: EventTime) -> Date {
        self.local(time).date()
    }

    /// The slot of a moment.
    pub fn slot(&self, time: EventTime) -> Slot {
        let local = self.local(time);
        Slot {
            day: self.kind_of(local.date()) as u8,
            quarter: (local.hour() * 4 + local.minute() / 15) as u8,
        }
    }

    fn local(&self, time: EventTime) -> jiff::civil::DateTime {
        // Event times lie between 1990 and 2200, which every zone knows.
        let moment = jiff::Timestamp::from_millisecond(time.ms()).unwrap_or_default();
        self.zone.to_datetime(moment)
    }

    /// A day of work at a weekend is like a Friday if the day after is free, else like a Thursday.
    fn kind_of(&self, date: Date) -> usize {
        let weekday = |date: Date| date.weekday().to_monday_zero_offset() as usize;
        match self.days.get(&date) {
            Some(DayKind::Holiday) => HOLIDAY,
            Some(DayKind::Workday) => {
                let next = date.saturating_add(jiff::ToSpan::days(1));
                let weekend = matches!(next.weekday(), Weekday::Saturday | Weekday::Sunday);
                let free = match self.days.get(&next) {
                    Some(kind) => *kind == DayKind::Holiday,
                    None => weekend,
                };
                if free { FRIDAY } else { FRIDAY - 1 }
            }
            None => weekday(date),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(calendar: &Calendar, time: &str) -> (u8, u8) {
        let slot = calendar.slot(EventTime::parse_rfc3339(time).unwrap());
        (slot.day, slot.quarter)
    }

    fn holidays(days: &[(&str, DayKind)]) -> Holidays {
        let day = |(date, kind): &(&str, DayKind)| Holiday {
            date: (*date).to_owned(),
            kind: *kind,
            name: String::new(),
        };
        Holidays {
            source: String::new(),
            day: days.iter().map(day).collect(),
        }
    }

    #[test]
    fn slots_follow_local_time() {
        let xian = Calendar::new("Asia/Shanghai", &Holidays::default()).unwrap();
        // Monday 2026-11-23, 00:00 in China.
        assert_eq!(slot(&xian, "2026-11-22T16:00:00Z"), (0, 0));
        assert_eq!(slot(&xian, "2026-11-22T15:59:59.999Z"), (6, 95));
        assert_eq!(slot(&xian, "2026-11-23T09:29:59Z"), (0, 17 * 4 + 1));
        // Rome lives 03:00 directly after 01:59 on 2026-03-29.
        let rome = Calendar::new("Europe/Rome", &Holidays::default()).unwrap();
        assert_eq!(slot(&rome, "2026-03-29T00:59:00Z"), (6, 7));
        assert_eq!(slot(&rome, "2026-03-29T01:00:00Z"), (6, 12));
    }

    #[test]
    fn holidays_and_days_of_work_at_the_weekend_are_days_of_their_own() {
        let days = [
            ("2026-09-20", DayKind::Workday),
            ("2026-10-01", DayKind::Holiday),
            ("2026-10-10", DayKind::Workday),
            ("2026-10-11", DayKind::Workday),
            ("2026-10-12", DayKind::Holiday),
        ];
        let calendar = Calendar::new("UTC", &holidays(&days)).unwrap();
        let day = |date: &str| slot(&calendar, &format!("{date}T12:00:00Z")).0;
        assert_eq!(day("2026-10-01"), 7, "Thursday, a holiday");
        assert_eq!(day("2026-09-20"), 3, "Sunday of work before a Monday of work");
        assert_eq!(day("2026-10-10"), 3, "Saturday of work before a Sunday of work");
        assert_eq!(day("2026-10-11"), 4, "Sunday of work before a holiday");
        assert_eq!(day("2026-10-03"), 5, "a plain Saturday");
    }

    #[test]
    fn what_is_wrong_with_a_calendar_is_told() {
        let error = Calendar::new("Asia/Xian", &Holidays::default()).unwrap_err();
        assert!(error.contains("`Asia/Xian` is no time zone"), "{error}");
        let twice = [("2026-10-01", DayKind::Holiday), ("2026-10-01", DayKind::Workday)];
        let error = Calendar::new("UTC", &holidays(&twice)).unwrap_err();
        assert_eq!(error, "2026-10-01 stands there twice");
    }
}
