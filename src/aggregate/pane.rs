use serde::{Deserialize, Serialize};

use crate::locate::Contribution;

/// What one vehicle left in one segment and pane, summed over its steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    traversal: u64,
    distance_mm: u64,
    time_ms: u64,
    weighted_ms: u64,
    positions: u32,
    entered: bool,
}

/// An open (segment, pane).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cell {
    entries: Vec<Entry>,
    weighted_mm: u64,
    weighted_ms: u64,
    until_ms: u32,
}

impl Cell {
    pub(super) fn add(&mut self, c: &Contribution) {
        let weight = u64::from(c.weight_permille);
        let (mm, ms) = (u64::from(c.distance_mm), u64::from(c.time_ms));
        self.weighted_mm += weight * mm;
        self.weighted_ms += weight * ms;
        self.until_ms = self.until_ms.max(c.until_ms);
        // The vehicle that was booked last is the likeliest to be booked next.
        let i = match self.entries.iter().rposition(|e| e.traversal == c.traversal) {
            Some(i) => i,
            None => {
                self.entries.push(Entry {
                    traversal: c.traversal,
                    distance_mm: 0,
                    time_ms: 0,
                    weighted_ms: 0,
                    positions: 0,
                    entered: c.entered,
                });
                self.entries.len() - 1
            }
        };
        let entry = &mut self.entries[i];
        entry.distance_mm += mm;
        entry.time_ms += ms;
        entry.weighted_ms += weight * ms;
        entry.positions += u32::from(c.positions);
        entry.entered &= c.entered;
    }

    pub(super) fn close(self) -> PaneSums {
        let mut sums = PaneSums {
            weighted_mm: self.weighted_mm,
            weighted_ms: self.weighted_ms,
            until_ms: self.until_ms,
            ..PaneSums::default()
        };
        for entry in &self.entries {
            if let Some(weight) = entry.weighted_ms.checked_div(entry.time_ms) {
                sums.weight += weight;
                sums.weight_squares += weight * weight;
            }
            sums.positions += entry.positions;
            if entry.entered {
                sums.entered += 1;
            } else {
                sums.present += 1;
            }
        }
        sums
    }
}

/// A closed (segment, pane): sums over its contributions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PaneSums {
    /// Σ weight · distance, ‰·mm.
    pub(super) weighted_mm: u64,
    /// Σ weight · time, ‰·ms.
    pub(super) weighted_ms: u64,
    /// Σ weight over contributions, ‰.
    pub(super) weight: u64,
    /// Σ weight², ‰².
    pub(super) weight_squares: u64,
    /// Positions reported.
    pub(super) positions: u32,
    /// Vehicles that were there when the pane began.
    pub(super) present: u32,
    /// Vehicles that came in while it lasted.
    pub(super) entered: u32,
    /// Last observation, ms since the pane's beginning.
    pub(super) until_ms: u32,
}
