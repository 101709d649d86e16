//! From what was seen of a link to a whole week: smoothing and the chain of fallbacks (algorithms §5).

use super::calendar::{DAYS, HOLIDAY, QUARTERS, SLOTS};
use super::learned::{DAY_QUARTERS, FreeFlow, MEAN_PASSAGES, Week, from_half_kph, to_half_kph};
use crate::network::RoadClass;
use crate::units::MmPerS;

/// Days that are like a day, from the nearest: itself, its group, all.
const LIKE: [[&[usize]; 3]; DAYS] = {
    const ALL: &[usize] = &[0, 1, 2, 3, 4, 5, 6, HOLIDAY];
    const WORK: &[usize] = &[0, 1, 2, 3];
    [
        [&[0], WORK, ALL],
        [&[1], WORK, ALL],
        [&[2], WORK, ALL],
        [&[3], WORK, ALL],
        [&[4], &[4], ALL],
        [&[5], &[5], ALL],
        [&[6], &[6], ALL],
        [&[HOLIDAY], &[6], ALL],
    ]
};

/// A quarter hour and its neighbours, with the weights of the smoothing.
fn around(quarter: usize) -> impl Iterator<Item = (usize, u64)> {
    let before = quarter.checked_sub(1).map(|q| (q, 1));
    let after = Some((quarter + 1, 1)).filter(|(q, _)| *q < QUARTERS);
    before.into_iter().chain([(quarter, 2)]).chain(after)
}

/// Weighted mean of the values of the nearest days that have any, smoothed over the quarter hours that have, and
/// the days behind it.
fn nearest(week: &Week, values: &[u8], slot: usize) -> Option<(u8, u64)> {
    let (day, quarter) = (slot / QUARTERS, slot % QUARTERS);
    LIKE[day].iter().find_map(|days| {
        let (mut sum, mut weight, mut behind) = (0, 0, 0);
        for (q, share) in around(quarter) {
            let (mut sum_q, mut n_q) = (0, 0);
            for at in days.iter().map(|d| d * QUARTERS + q).filter(|at| values[*at] > 0) {
                let n = u64::from(week.days[at]);
                sum_q += n * u64::from(values[at]);
                n_q += n;
            }
            // Each quarter hour counts by the smoothing alone, however many days it was seen on.
            if let Some(mean) = (sum_q * 256).checked_div(n_q) {
                sum += share * mean;
                weight += share;
                behind += n_q;
            }
        }
        let mean = (sum + weight * 128).checked_div(weight * 256)?;
        Some((mean.min(255) as u8, behind))
    })
}

/// A link's week without gaps: half km/h, and the variation in hundredths (0 where nothing is known).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    speed: Vec<u8>,
    variation: Vec<u8>,
}

impl Whole {
    /// What the link itself knows; 0 where it must be filled from its class.
    ///
    /// A slot in which few vehicles passed is drawn to the link's mean, and that to its free flow: one vehicle at
    /// a red light is no usual speed. Of a slot only its days are known; its passages are taken to be its share.
    pub(super) fn own(week: &Week, free_flow: &FreeFlow) -> Self {
        let speed = |slot: usize| u64::from(from_half_kph(week.speed[slot]));
        let days = |slot: usize| u64::from(week.days[slot]);
        let all: u64 = (0..SLOTS).map(days).sum();
        let by_day: u64 = (0..SLOTS)
            .filter(|slot| DAY_QUARTERS.contains(&(slot % QUARTERS)))
            .map(days)
            .sum();
        let mean = (0..SLOTS).map(|slot| speed(slot) * days(slot)).sum::<u64>() / all.max(1);
        let passages = u64::from(free_flow.day_passages);
        let centre =
            (mean * passages + u64::from(free_flow.used) * MEAN_PASSAGES) / (passages + MEAN_PASSAGES);
        let drawn = |(half, behind): (u8, u64)| {
            let (n, pseudo) = (passages * behind, MEAN_PASSAGES * by_day.max(1));
            let speed = (u64::from(from_half_kph(half)) * n + centre * pseudo) / (n + pseudo);
            to_half_kph(speed as MmPerS)
        };
        let speed = |slot| nearest(week, &week.speed, slot).map_or(0, drawn);
        let variation = |slot| nearest(week, &week.variation, slot).map_or(0, |(cv, _)| cv);
        Self {
            speed: (0..SLOTS).map(speed).collect(),
            variation: (0..SLOTS).map(variation).collect(),
        }
    }

    pub(super) fn fill(&mut self, free_flow: MmPerS, class: &ClassWeek) {
        for (slot, speed) in self.speed.iter_mut().enumerate().filter(|(_, v)| **v == 0) {
            let typical = u64::from(free_flow) * u64::from(class.ratio_permille[slot]) / 1000;
            *speed = to_half_kph(typical as MmPerS);
        }
    }

    pub(super) fn speed(&self, slot: usize) -> MmPerS {
        from_half_kph(self.speed[slot])
    }

    /// In hundredths.
    pub(super) fn variation(&self, slot: usize) -> Option<u8> {
        Some(self.variation[slot]).filter(|v| *v > 0)
    }
}

/// The usual share of free flow on roads of a class, by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassWeek {
    pub(super) ratio_permille: Vec<u16>,
}

/// The weeks of all classes: means over the links that know a slot, free flow where none does.
pub(super) fn class_weeks<'w>(links: impl Iterator<Item = (RoadClass, MmPerS, &'w Whole)>) -> Vec<ClassWeek> {
    let mut sums = vec![(0_u64, 0_u64); RoadClass::ALL.len() * SLOTS];
    for (class, free_flow, whole) in links {
        let of_class = &mut sums[class as usize * SLOTS..][..SLOTS];
        for (slot, (sum, n)) in of_class.iter_mut().enumerate() {
            if whole.speed[slot] > 0 {
                *sum += u64::from(whole.speed(slot)) * 1000 / u64::from(free_flow.max(1));
                *n += 1;
            }
        }
    }
    let ratio = |(sum, n): &(u64, u64)| sum.checked_div(*n).unwrap_or(1000).min(2000) as u16;
    sums.chunks(SLOTS)
        .map(|class| ClassWeek {
            ratio_permille: class.iter().map(ratio).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A week of (day, quarter, half km/h, days seen).
    fn week(seen: &[(usize, usize, u8, u8)]) -> Week {
        let mut week = Week::default();
        for &(day, quarter, speed, days) in seen {
            let slot = day * QUARTERS + quarter;
            (week.speed[slot], week.days[slot]) = (speed, days);
        }
        week
    }

    /// So many passages that nothing is drawn.
    fn much(used: MmPerS) -> FreeFlow {
        FreeFlow {
            used,
            day_passages: 1_000_000,
            ..FreeFlow::default()
        }
    }

    #[test]
    fn a_slot_that_few_passed_is_drawn_to_free_flow() {
        // One passage at 10 of 60 km/h: mean (1 · 10 + 5 · 60) / 6 = 51.7, the slot (1 · 10 + 5 · 51.7) / 6 = 44.7.
        let few = FreeFlow {
            used: 16_667,
            day_passages: 1,
            ..FreeFlow::default()
        };
        let whole = Whole::own(&week(&[(0, 32, 20, 1)]), &few);
        assert_eq!(whole.speed(32), from_half_kph(89));
    }

    fn at(week: &Week, day: usize, quarter: usize) -> Option<u8> {
        nearest(week, &week.speed, day * QUARTERS + quarter).map(|(speed, _)| speed)
    }

    #[test]
    fn neighbours_smooth_a_quarter_hour() {
        let week = week(&[(0, 31, 40, 1), (0, 32, 60, 9), (0, 33, 100, 2), (0, 95, 50, 1)]);
        assert_eq!(at(&week, 0, 32), Some(65), "(40 + 2 · 60 + 100) / 4");
        assert_eq!(at(&week, 0, 31), Some(47), "(2 · 40 + 60) / 3, nothing before");
        assert_eq!(at(&week, 0, 94), Some(50), "from its neighbour alone");
        assert_eq!(
            at(&week, 1, 0),
            None,
            "midnight is no neighbour of another day's end"
        );
    }

    #[test]
    fn the_nearest_days_fill_a_gap() {
        // Monday 8:00 unknown: Tuesday (30, three days) and Thursday (50, one day) give 35; Friday is another group.
        let known = week(&[(1, 32, 30, 3), (3, 32, 50, 1), (4, 32, 90, 4)]);
        assert_eq!(at(&known, 0, 32), Some(35));
        assert_eq!(at(&known, 4, 32), Some(90), "Friday for itself");
        assert_eq!(
            at(&known, 5, 32),
            Some(63),
            "Saturday from all: (90 + 50 + 360) / 8 = 62.5"
        );
        assert_eq!(at(&known, HOLIDAY, 32), Some(63), "so a holiday without a Sunday");
        let sunday = week(&[(1, 32, 30, 3), (6, 32, 100, 1)]);
        assert_eq!(at(&sunday, HOLIDAY, 32), Some(100), "a holiday is like a Sunday");
        assert_eq!(at(&sunday, 0, 40), None, "and 10:00 nobody knows");
    }

    #[test]
    fn what_no_day_knows_comes_from_the_class() {
        // One link knows Monday 8:00 at 20 km/h of 40 km/h free flow, the other nothing.
        let (free_flow, class) = (11_111, RoadClass::Primary);
        let one = Whole::own(&week(&[(0, 32, 40, 1)]), &much(free_flow));
        let classes = class_weeks([(class, free_flow, &one)].into_iter());
        assert_eq!(classes[class as usize].ratio_permille[32], 500);
        assert_eq!(classes[class as usize].ratio_permille[60], 1000);
        assert_eq!(classes[RoadClass::Service as usize].ratio_permille[32], 1000);
        let mut other = Whole::own(&Week::default(), &much(16_667));
        other.fill(16_667, &classes[class as usize]);
        assert_eq!(other.speed(32), from_half_kph(60), "half of 60 km/h");
        assert_eq!(other.speed(60), from_half_kph(120), "15:00: free flow");
        assert_eq!(other.variation(32), None);
    }
}
