//! What passes a segment and what stands on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::locate::{Doing, Occurrence, PaneIndex};
use crate::network::SegmentIndex;
use crate::units::EventTime;

/// A vehicle that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Standing {
    /// Distance from the segment's beginning in mm.
    pub offset_mm: u32,
    /// For how long, in ms, at least 30,000.
    pub for_ms: u32,
}

/// What passed a segment's end in a pane, and what stood on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Which segment.
    pub segment: SegmentIndex,
    /// Vehicles that drove over its end.
    pub passed: u32,
    /// When the first and the last of them did.
    pub span: Option<(EventTime, EventTime)>,
    /// Vehicles that stood when they were last seen in the pane, in order of place.
    pub standing: Vec<Standing>,
}

/// Passages and standstills of open panes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Passages {
    open: BTreeMap<PaneIndex, BTreeMap<SegmentIndex, Cell>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Cell {
    passed: u32,
    /// Least and greatest ms since the pane's beginning.
    span: Option<(u32, u32)>,
    /// The latest of each standstill: when it was seen, and how (`None`: it ended).
    halts: BTreeMap<u64, (u32, Option<Standing>)>,
}

impl Passages {
    pub(super) fn first_pane(&self) -> Option<PaneIndex> {
        self.open.first_key_value().map(|(p, _)| *p)
    }

    /// Takes an occurrence; their order does not matter.
    pub(super) fn add(&mut self, o: &Occurrence) {
        let cell = self.open.entry(o.pane).or_default().entry(o.segment).or_default();
        let (halt, standing) = match o.what {
            Doing::Passing => {
                let (first, last) = cell.span.unwrap_or((o.at_ms, o.at_ms));
                cell.span = Some((first.min(o.at_ms), last.max(o.at_ms)));
                cell.passed += 1;
                return;
            }
            Doing::Standing {
                halt,
                offset_mm,
                for_ms,
            } => (halt, Some(Standing { offset_mm, for_ms })),
            Doing::Leaving { halt } => (halt, None),
        };
        let latest = cell.halts.entry(halt).or_insert((o.at_ms, standing));
        *latest = (*latest).max((o.at_ms, standing));
    }

    /// Closes a pane that begins at `begin`.
    pub(super) fn close(&mut self, pane: PaneIndex, begin: EventTime) -> Vec<Passage> {
        let cells = self.open.remove(&pane).unwrap_or_default();
        let shown = |(segment, cell): (SegmentIndex, Cell)| {
            let mut standing: Vec<Standing> = cell.halts.into_values().filter_map(|(_, s)| s).collect();
            standing.sort_unstable();
            let at = |ms: u32| begin.plus_ms(i64::from(ms));
            Passage {
                segment,
                passed: cell.passed,
                span: cell.span.map(|(first, last)| (at(first), at(last))),
                standing,
            }
        };
        cells.into_iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_a_standstill_counts_whatever_the_order() {
        let stands = |at_ms, halt, for_ms| Occurrence {
            pane: 3,
            segment: 9,
            at_ms,
            what: Doing::Standing {
                halt,
                offset_mm: 1000 * halt as u32,
                for_ms,
            },
        };
        let of = |at_ms, what| Occurrence {
            pane: 3,
            segment: 9,
            at_ms,
            what,
        };
        let all = [
            stands(1000, 2, 40_000),
            stands(6000, 2, 45_000),
            stands(1000, 1, 30_000),
            of(9000, Doing::Leaving { halt: 1 }),
            of(9500, Doing::Passing),
            of(4000, Doing::Passing),
        ];
        let closed = |order: &mut dyn Iterator<Item = &Occurrence>| {
            let mut passages = Passages::default();
            order.for_each(|o| passages.add(o));
            assert_eq!(passages.first_pane(), Some(3));
            passages.close(3, EventTime::from_ms(90_000))
        };
        let forth = closed(&mut all.iter());
        assert_eq!(forth, closed(&mut all.iter().rev()));
        let [p] = &forth[..] else { panic!("{forth:?}") };
        assert_eq!(
            p.standing,
            [Standing {
                offset_mm: 2000,
                for_ms: 45_000
            }]
        );
        let (first, last) = p.span.unwrap();
        assert_eq!((p.passed, first.ms(), last.ms()), (2, 94_000, 99_500));
    }
}
