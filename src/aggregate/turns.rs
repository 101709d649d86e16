use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::locate::Passage;
use crate::network::SegmentIndex;
use crate::units::EventTime;

/// Vehicles that went from one segment on to another in a block of time. Only segments that end where there is a
/// choice have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnFlow {
    /// Beginning of the block; a vehicle belongs to the one in which it left the first segment.
    pub begin: EventTime,
    /// End of the block.
    pub end: EventTime,
    /// The segment that they left.
    pub from: SegmentIndex,
    /// The segment that they went on to.
    pub to: SegmentIndex,
    /// Sums over them.
    pub sums: TurnSums,
}

/// Sums over vehicles that passed the first segment whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnSums {
    /// Their number.
    pub traversals: u32,
    /// Σ time on the first segment in ms.
    pub time_ms: u64,
    /// Σ time beyond free flow in ms; who was faster counts 0.
    pub delay_ms: u64,
    /// Σ time stood in ms.
    pub stop_ms: u64,
    /// Number of stops.
    pub stops: u32,
}

/// Blocks that have not ended. They take in only what open panes hold, so there are at most a few.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Turns {
    blocks: BTreeMap<EventTime, BTreeMap<(SegmentIndex, SegmentIndex), TurnSums>>,
}

impl Turns {
    /// Adds a passage to the block that begins at `begin`. `free_ms` is the free-flow time of its segment.
    pub(super) fn add(&mut self, begin: EventTime, passage: &Passage, free_ms: u64) {
        let turns = self.blocks.entry(begin).or_default();
        let sums = turns.entry((passage.segment, passage.next)).or_default();
        let time_ms = u64::from(passage.time_ms);
        sums.traversals += 1;
        sums.time_ms += time_ms;
        sums.delay_ms += time_ms.saturating_sub(free_ms);
        sums.stop_ms += u64::from(passage.stop_ms);
        sums.stops += u32::from(passage.stops);
    }

    /// Takes out the blocks of `length_ms` that end at `end` or before, in order of time, then segments.
    pub(super) fn close(&mut self, end: EventTime, length_ms: i64) -> Vec<TurnFlow> {
        let rest = self.blocks.split_off(&end.plus_ms(1 - length_ms));
        let closed = std::mem::replace(&mut self.blocks, rest);
        let flows = closed.into_iter().flat_map(|(begin, turns)| {
            turns.into_iter().map(move |((from, to), sums)| TurnFlow {
                begin,
                end: begin.plus_ms(length_ms),
                from,
                to,
                sums,
            })
        });
        flows.collect()
    }
}
