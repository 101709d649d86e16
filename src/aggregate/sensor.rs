use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ingest::{Measurement, SubjectKey};
use crate::locate::{PaneIndex, Reading};
use crate::network::SegmentIndex;
use crate::units::{EventTime, MmPerS};

/// What the sensors of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorFlow {
    /// Space-mean speed over their lanes, weighted by flow; `None` if nothing passed.
    pub speed: Option<MmPerS>,
    /// Flow over their lanes in vehicles per hour.
    pub flow_vph: u32,
    /// Mean occupancy of their lanes in permille, where it is measured.
    pub occupancy_permille: Option<u32>,
    /// Sensors that stand.
    pub sensors: u32,
    /// End of the newest interval.
    pub latest: EventTime,
}

/// The measurements that stand for their sites: each until the next one, at most two intervals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Measurements of panes that are still open.
    pending: BTreeMap<PaneIndex, Vec<Reading>>,
    current: BTreeMap<SegmentIndex, BTreeMap<SubjectKey, Measurement>>,
}

impl Standing {
    pub(super) fn push(&mut self, reading: Reading) {
        self.pending.entry(reading.pane).or_default().push(reading);
    }

    pub(super) fn first_pane(&self) -> Option<PaneIndex> {
        self.pending.first_key_value().map(|(p, _)| *p)
    }

    /// Takes over the measurements of all panes up to `pane` and gives them on; drops those that stand no longer
    /// and those of `disbelieved` sensors.
    pub(super) fn close(
        &mut self,
        pane: PaneIndex,
        end: EventTime,
        disbelieved: &BTreeSet<SubjectKey>,
    ) -> Vec<Reading> {
        let mut taken = Vec::new();
        while let Some(entry) = self.pending.first_entry() {
            if *entry.key() > pane {
                break;
            }
            let mut readings = entry.remove();
            readings.sort_unstable();
            for r in &readings {
                self.current
                    .entry(r.segment)
                    .or_default()
                    .insert(r.measurement.sensor, r.measurement.clone());
            }
            taken.append(&mut readings);
        }
        self.current.retain(|_, sensors| {
            sensors.retain(|key, m| {
                end.since(m.time) < 2 * i64::from(m.interval_ms) && !disbelieved.contains(key)
            });
            !sensors.is_empty()
        });
        taken
    }

    /// Segments with a standing measurement.
    pub(super) fn segments(&self) -> impl Iterator<Item = SegmentIndex> + '_ {
        self.current.keys().copied()
    }

    pub(super) fn flow(&self, segment: SegmentIndex) -> Option<SensorFlow> {
        let sensors = self.current.get(&segment)?;
        let (mut vph, mut passing, mut pace) = (0_u64, 0_u64, 0_u64);
        let (mut occupancy, mut measured) = (0_u32, 0_u32);
        for m in sensors.values() {
            let flow = m
                .count_milli
                .map(|c| u64::from(c) * 3600 / u64::from(m.interval_ms.max(1)));
            vph += flow.unwrap_or(0);
            let speed = m.speed.or_else(|| single_loop(m));
            if let Some(speed) = speed.filter(|v| *v > 0 && flow != Some(0)) {
                // Time-mean to space-mean speed of a loop: v − σ²/v with σ = 0.12 v (algorithms §3.7).
                let speed = u64::from(speed) * 9_856 / 10_000;
                let weight = flow.unwrap_or(1);
                passing += weight;
                // Over lanes the space mean is harmonic: Σ flow / Σ (flow / speed); in µs/m.
                pace += weight * 1_000_000_000 / speed.max(1);
            }
            if let Some(o) = m.occupancy_permille {
                occupancy += o;
                measured += 1;
            }
        }
        Some(SensorFlow {
            speed: (passing * 1_000_000_000).checked_div(pace).map(|v| v as MmPerS),
            flow_vph: u32::try_from(vph).unwrap_or(u32::MAX),
            occupancy_permille: occupancy.checked_div(measured),
            sensors: sensors.len() as u32,
            latest: sensors.values().map(|m| m.time).max()?,
        })
    }
}

/// Length of a vehicle and the loop together, in mm: MnDOT's 22 ft.
const EFFECTIVE_MM: u64 = 6_700;
/// Least density at which occupancy says something of speed, in vehicles per 1,000 km: 1.2 per mile.
const DENSITY_MIN: u64 = 746;

/// Speed that a loop without one tells by flow and occupancy, v = q · g / occupancy (algorithms §3.7).
fn single_loop(m: &Measurement) -> Option<MmPerS> {
    let occupancy = u64::from(m.occupancy_permille?);
    // Density = occupancy / g.
    if occupancy * 1_000_000 < DENSITY_MIN * EFFECTIVE_MM {
        return None;
    }
    let speed = u64::from(m.count_milli?) * EFFECTIVE_MM * 1000 / (u64::from(m.interval_ms) * occupancy);
    MmPerS::try_from(speed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(count: u32, occupancy_permille: u32, disbelieved: bool) -> Option<SensorFlow> {
        let sensor = SubjectKey(1);
        let measurement = Measurement {
            time: EventTime::from_ms(60_000),
            sensor,
            interval_ms: 60_000,
            count_milli: Some(count * 1000),
            occupancy_permille: Some(occupancy_permille),
            speed: None,
            position: None,
            heading: None,
            offset: 0,
        };
        let mut standing = Standing::default();
        let reading = Reading {
            pane: 1,
            segment: 5,
            measurement,
        };
        standing.push(reading.clone());
        let not: BTreeSet<SubjectKey> = disbelieved.then_some(sensor).into_iter().collect();
        let taken = standing.close(1, EventTime::from_ms(60_000), &not);
        assert_eq!(taken, [reading], "what is not believed is given on all the same");
        standing.flow(5)
    }

    #[test]
    fn a_loop_without_a_speed_tells_it_by_its_occupancy() {
        // 10 vehicles of 6.7 m in a minute that is covered for 6 s: 11.17 m/s, of which 98.56 % in the mean of space.
        let speed = flow(10, 100, false).unwrap().speed.unwrap();
        assert!((11_000..=11_010).contains(&speed), "{speed}");
        assert_eq!(flow(1, 4, false).unwrap().speed, None, "too thin");
        assert_eq!(flow(0, 0, false).unwrap().speed, None);
    }

    #[test]
    fn a_sensor_that_is_not_believed_stands_for_nothing() {
        assert_eq!(flow(10, 100, true), None);
    }
}
