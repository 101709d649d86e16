//! Who drives from where to where, and how many at which time of day.

use super::dice::Dice;
use super::streets::Streets;

/// A trip from the beginning of one edge to another edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trip {
    pub(super) from: u32,
    pub(super) to: u32,
    /// Comes into the city at speed, not out of a parking place.
    pub(super) rolling: bool,
}

/// Places of the city by their use.
#[derive(Debug)]
pub(super) struct Demand {
    homes: Vec<u32>,
    /// Work places with the running sum of their attraction, greatest near the centre.
    works: Vec<(f64, u32)>,
    /// Arterials at the edge of the city: towards it and out of it.
    gates_in: Vec<u32>,
    gates_out: Vec<u32>,
}

/// Share of the peak's vehicles that are on the road at a local hour of the day (0 to 24): rush hours around
/// 08:00 and 18:00 over a day's plateau.
pub(super) fn share_of_peak(hour: f64) -> f64 {
    let bell = |centre: f64, width: f64| {
        let off = (hour - centre + 12.0).rem_euclid(24.0) - 12.0;
        libm::exp(-0.5 * (off / width) * (off / width))
    };
    (0.12 + 0.38 * bell(13.0, 4.5) + 0.75 * bell(8.0, 1.0) + 0.65 * bell(18.0, 1.2)).min(1.0)
}

impl Demand {
    pub(super) fn new(streets: &Streets) -> Self {
        let size = |e: &u32| {
            let ((x, y), _) = streets.edges[*e as usize].point(0.0);
            libm::hypot(x, y)
        };
        let all: Vec<u32> = (0..streets.edges.len() as u32)
            .filter(|e| streets.connected[*e as usize])
            .collect();
        let city = all.iter().map(size).fold(0.0, f64::max);
        let is = |e: &u32, kinds: &[&str]| kinds.contains(&streets.edges[*e as usize].highway.as_str());
        let long = |e: &u32| streets.edges[*e as usize].length_m >= 40.0;
        let homes: Vec<u32> = all
            .iter()
            .copied()
            .filter(|e| is(e, &["residential", "tertiary"]) && long(e))
            .collect();
        let mut works = Vec::new();
        let mut sum = 0.0;
        for &e in all
            .iter()
            .filter(|e| is(e, &["residential", "tertiary", "secondary"]) && long(e))
        {
            let far = size(&e) / (0.2 * city);
            sum += 0.03 + libm::exp(-far * far);
            works.push((sum, e));
        }
        let dead_end = |node: i64| streets.edges.iter().filter(|e| e.from_node == node).count() == 1;
        let (mut gates_in, mut gates_out) = (Vec::new(), Vec::new());
        for &e in all.iter().filter(|e| is(e, &["primary"])) {
            let edge = &streets.edges[e as usize];
            if dead_end(edge.from_node) {
                gates_in.push(e);
            } else if dead_end(edge.to_node) {
                gates_out.push(e);
            }
        }
        Self {
            homes,
            works,
            gates_in,
            gates_out,
        }
    }

    /// One trip: mostly from homes to work places, in the evening the other way; a third begins or ends
    /// outside of the city.
    pub(super) fn draw(&self, dice: &mut Dice, evening: bool) -> Trip {
        loop {
            let (p, inbound) = (dice.unit(), dice.chance(0.7) != evening);
            let home = self.homes[dice.below(self.homes.len())];
            let work = self.work(dice);
            let gate_in = self.gates_in[dice.below(self.gates_in.len())];
            let gate_out = self.gates_out[dice.below(self.gates_out.len())];
            let trip = match (inbound, p) {
                (_, p) if p < 0.08 => Trip {
                    from: gate_in,
                    to: gate_out,
                    rolling: true,
                },
                (true, p) if p < 0.33 => Trip {
                    from: gate_in,
                    to: work,
                    rolling: true,
                },
                (false, p) if p < 0.33 => Trip {
                    from: work,
                    to: gate_out,
                    rolling: false,
                },
                (true, _) => Trip {
                    from: home,
                    to: work,
                    rolling: false,
                },
                (false, _) => Trip {
                    from: work,
                    to: home,
                    rolling: false,
                },
            };
            if trip.from != trip.to {
                return trip;
            }
        }
    }

    fn work(&self, dice: &mut Dice) -> u32 {
        let total = self.works.last().map_or(0.0, |w| w.0);
        let wanted = dice.unit() * total;
        self.works[self
            .works
            .partition_point(|w| w.0 <= wanted)
            .min(self.works.len() - 1)]
        .1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rush_hours_stand_out() {
        assert!(share_of_peak(8.0) > 0.9 && share_of_peak(18.0) > 0.9);
        assert!(share_of_peak(13.0) < 0.6 && share_of_peak(3.0) < 0.2);
        assert!((share_of_peak(0.0) - share_of_peak(24.0)).abs() < 1e-9);
    }
}
