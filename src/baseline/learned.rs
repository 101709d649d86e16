//! What a baseline file holds: of each link with data its free flow and its week.

use super::calendar::{DAYS, QUARTERS, SLOTS};
use crate::network::{LinkIndex, Network, SegmentFlags, SegmentIndex, SegmentKey};
use crate::units::{MmPerS, travel_time_ms};
use serde::{Deserialize, Serialize};

/// Least free-flow speed: 10 km/h (algorithms §5).
pub(super) const FLOOR: MmPerS = 2_778;
/// Passages that the prior counts as (algorithms §5).
const PRIOR_PASSAGES: u64 = 20;
/// Passages that a link's mean counts as in each of its quarter hours, so that the best of 72 thin ones are not
/// merely the luckiest.
pub(super) const MEAN_PASSAGES: u64 = 5;
/// GB/T 33171-2016, 7.2.1.2: the quarter hours from 6:00 to 24:00, of which the best ninth counts.
pub(super) const DAY_QUARTERS: std::ops::Range<usize> = 24..96;
const BEST_SHARE: usize = 9;

/// All that was learned; what a baseline file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// Version of the map on which it was learned.
    pub map_version: String,
    /// IANA name of the time zone of its slots.
    pub zone: String,
    /// Local days with data that went into it.
    pub days: u32,
    /// Last of them, such as `2026-11-23`.
    pub last_day: String,
    /// Links with data, in order of key.
    pub links: Vec<LinkHistory>,
}

/// What was learned of one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHistory {
    /// Stable key of its first segment.
    pub key: SegmentKey,
    /// Its length in metres, by which it is known again on another map.
    pub length_m: u32,
    /// Speed without hindrance.
    pub free_flow: FreeFlow,
    /// Its week.
    pub week: Week,
}

/// Free-flow speeds of a link in mm/s, by method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeFlow {
    /// The one in use.
    pub used: MmPerS,
    /// From its best quarter hours between 6:00 and 24:00 (GB/T 33171-2016, 7.2.1.2); 0 without any.
    pub day: MmPerS,
    /// 85th percentile of the five-minute speeds between 22:00 and 6:00; 0 without any.
    pub night: MmPerS,
    /// From class and limit.
    pub prior: MmPerS,
    /// Passages between 6:00 and 24:00: distance driven by its length.
    pub day_passages: u32,
    /// Five minutes with traffic at night.
    pub night_samples: u32,
}

/// Usual speed and its spread by slot, as in the file: each list has [`SLOTS`] items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Week {
    /// Half km/h, 1 to 255; 0 without data.
    pub speed: Vec<u8>,
    /// Coefficient of variation of the five-minute speed in hundredths; 0 if not known.
    pub variation: Vec<u8>,
    /// Days seen, at most 255.
    pub days: Vec<u8>,
}

impl Default for Week {
    fn default() -> Self {
        let none = || vec![0; SLOTS];
        Self {
            speed: none(),
            variation: none(),
            days: none(),
        }
    }
}

/// mm/s of a speed in half km/h.
pub(super) fn from_half_kph(half: u8) -> MmPerS {
    (u32::from(half) * 1250 + 4) / 9
}

/// The nearest half km/h, at least one.
pub(super) fn to_half_kph(speed: MmPerS) -> u8 {
    ((u64::from(speed) * 9 + 625) / 1250).clamp(1, 255) as u8
}

/// What the map says of a link: harmonic means over its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Prior of the free-flow speed.
    pub(super) prior: MmPerS,
    /// Limit, tagged or assumed.
    pub(super) limit: MmPerS,
}

/// Speed limit of a segment in mm/s.
pub(super) fn limit(network: &Network, i: SegmentIndex) -> MmPerS {
    // 1 km/h = 2500/9 mm/s.
    u32::from(network.segment(i).limit_kph) * 2_500 / 9
}

impl Mapped {
    pub(super) fn of(network: &Network, link: LinkIndex) -> Self {
        let link = &network.links()[link as usize];
        let mean = |speed: &dyn Fn(SegmentIndex) -> MmPerS| {
            let time = |i: &SegmentIndex| {
                // In µs: a segment may be a metre long.
                let length = u64::from(network.segment(*i).length_mm) * 1000;
                travel_time_ms(length, speed(*i).max(1)).unwrap_or(0)
            };
            let sum: u64 = link.segments.iter().map(time).sum();
            crate::units::speed_mm_s(link.length_mm * 1000, sum.max(1))
                .unwrap_or(1)
                .max(1)
        };
        Self {
            prior: mean(&|i| network.segment(i).free_flow),
            limit: mean(&|i| limit(network, i).max(network.segment(i).free_flow)),
        }
    }
}

/// Whether a link's speeds are worth learning: open to all and not a service road.
pub(super) fn worth(network: &Network, i: SegmentIndex) -> bool {
    let flags = network.segment(i).flags;
    !flags.has(SegmentFlags::RESTRICTED) && !flags.has(SegmentFlags::BUS_ONLY)
}

impl Week {
    /// (speed, days) of a quarter hour over the seven weekdays.
    fn over_days(&self, quarter: usize) -> Option<(MmPerS, u64)> {
        let (mut sum, mut days) = (0, 0);
        for slot in (0..DAYS - 1).map(|day| day * QUARTERS + quarter) {
            let n = u64::from(self.days[slot]);
            sum += n * u64::from(from_half_kph(self.speed[slot]));
            days += n;
        }
        Some((sum.checked_div(days)? as MmPerS, days))
    }
}

impl FreeFlow {
    /// Reckons the speeds that follow from the others and a week: `day` and `used`.
    pub(super) fn settle(&mut self, week: &Week, mapped: Mapped) {
        let quarters: Vec<(MmPerS, u64)> = DAY_QUARTERS
            .filter_map(|quarter| week.over_days(quarter))
            .collect();
        let (day, passages) = best_of_day(&quarters, u64::from(self.day_passages));
        self.day = day.min(mapped.limit);
        self.prior = mapped.prior;
        let (seen, n) = if passages > 0 {
            (self.day, passages)
        } else {
            (self.night.min(mapped.limit), u64::from(self.night_samples))
        };
        let sum = u64::from(seen) * n + u64::from(mapped.prior) * PRIOR_PASSAGES;
        let mean = (sum + (n + PRIOR_PASSAGES) / 2) / (n + PRIOR_PASSAGES);
        self.used = (mean as MmPerS).min(mapped.limit).max(FLOOR);
    }
}

/// Mean speed of the best ninth of the quarter hours (speed, days), and the passages behind it. `passages` is
/// the number in all of them.
fn best_of_day(quarters: &[(MmPerS, u64)], passages: u64) -> (MmPerS, u64) {
    let days: u64 = quarters.iter().map(|q| q.1).sum();
    if days == 0 || passages == 0 {
        return (0, 0);
    }
    let mean = quarters.iter().map(|(v, n)| u64::from(*v) * n).sum::<u64>() / days;
    // Of a quarter hour only its days are known; its passages are taken to be its share of them.
    let mut drawn: Vec<(u64, u64)> = quarters
        .iter()
        .map(|&(v, n)| {
            let (n, pseudo) = (n * passages, MEAN_PASSAGES * days);
            ((u64::from(v) * n + mean * pseudo) / (n + pseudo), n)
        })
        .collect();
    drawn.sort_unstable_by(|a, b| b.cmp(a));
    drawn.truncate(quarters.len().div_ceil(BEST_SHARE));
    let speed = drawn.iter().map(|d| d.0).sum::<u64>() / drawn.len() as u64;
    let behind = drawn.iter().map(|d| d.1).sum::<u64>() / days;
    (speed as MmPerS, behind.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_kilometres_per_hour_come_back() {
        for half in 1..=255 {
            assert_eq!(to_half_kph(from_half_kph(half)), half);
        }
        assert_eq!(from_half_kph(120), 16_667);
        assert_eq!(to_half_kph(0), 1);
        assert_eq!(to_half_kph(1_000_000), 255);
    }

    #[test]
    fn the_best_ninth_of_the_day_counts() {
        // GB/T 33171-2016, 7.2.1.2 by hand: 72 quarter hours at 5.00, 5.01 … 5.71 m/s; the best 8 are
        // 5.64 … 5.71, their mean 5.675. With 30 days of heavy traffic the link's mean adds nothing visible.
        let quarters: Vec<(MmPerS, u64)> = (0..72).map(|i| (5_000 + 10 * i, 30)).collect();
        assert_eq!(best_of_day(&quarters, 72_000_000), (5_674, 8_000_000));
        // 10 quarter hours: the best ninth is 2 of them, rounded up.
        let few: Vec<(MmPerS, u64)> = (1..=10).map(|i| (1_000 * i, 1)).collect();
        assert_eq!(best_of_day(&few, 10_000_000).0, 9_499);
    }

    #[test]
    fn thin_quarter_hours_are_drawn_to_the_mean() {
        // One passage each at 10 and 20 m/s: mean 15; the better one is (20 + 5 · 15) / 6 = 15.83.
        assert_eq!(best_of_day(&[(10_000, 1), (20_000, 1)], 2), (15_833, 1));
        assert_eq!(best_of_day(&[], 7), (0, 0));
    }

    #[test]
    fn free_flow_is_drawn_to_the_prior_and_kept_in_bounds() {
        let mapped = Mapped {
            prior: 10_000,
            limit: 16_667,
        };
        let mut week = Week::default();
        week.speed[24] = 108; // 54 km/h = 15 m/s
        week.days[24] = 1;
        let settled = |passages, week: &Week, mapped| {
            let mut flow = FreeFlow {
                day_passages: passages,
                ..FreeFlow::default()
            };
            flow.settle(week, mapped);
            (flow.day, flow.used)
        };
        assert_eq!(settled(20, &week, mapped), (15_000, 12_500), "20 against 20");
        assert_eq!(settled(0, &week, mapped), (0, 10_000), "nothing seen: the prior");
        let slow = Mapped {
            limit: 12_000,
            ..mapped
        };
        assert_eq!(
            settled(1_000_000, &week, slow),
            (12_000, 12_000),
            "not above the limit"
        );
        week.speed[24] = 2;
        assert_eq!(settled(1_000_000, &week, mapped).1, FLOOR);
    }

    #[test]
    fn the_night_counts_where_the_day_is_silent() {
        let mapped = Mapped {
            prior: 10_000,
            limit: 16_667,
        };
        let mut flow = FreeFlow {
            night: 14_000,
            night_samples: 60,
            ..FreeFlow::default()
        };
        flow.settle(&Week::default(), mapped);
        assert_eq!(flow.used, 13_000, "(60 · 14 + 20 · 10) / 80");
    }
}
