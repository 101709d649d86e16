//! Spreads the distance and the time of a step over the segments of its path and over panes.
//!
//! Positions and cut times are rounded once, to mm and ms along the path; pieces are differences of these,
//! so that they add up exactly (algorithms §0.1, rule 1).

use super::{Contribution, PaneIndex};
use crate::network::{Network, SegmentIndex};
use crate::units::EventTime;

/// A part of a step on one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) segment: SegmentIndex,
    pub(super) begin: EventTime,
    pub(super) end: EventTime,
    pub(super) distance_mm: u64,
}

/// Cuts a step from `(time, offset on the first segment)` to `(time, offset on the last)` along `path` into
/// pieces: time in proportion to the free-flow time of each piece of road, all of it on the last segment if
/// nothing moved.
pub(super) fn pieces(
    network: &Network,
    path: &[SegmentIndex],
    from: (EventTime, u32),
    to: (EventTime, u32),
    out: &mut Vec<Piece>,
) {
    out.clear();
    let span = |k: usize| {
        let length = u64::from(network.segment(path[k]).length_mm);
        let begin = if k == 0 { u64::from(from.1) } else { 0 };
        let end = if k + 1 == path.len() {
            u64::from(to.1)
        } else {
            length
        };
        end.saturating_sub(begin)
    };
    // Free-flow time of a piece in µs; the ratio only is used.
    let cost = |k: usize| span(k) * 1_000_000 / u64::from(network.segment(path[k]).free_flow.max(1));
    let total: u64 = (0..path.len()).map(cost).sum();
    let time = to.0.since(from.0);
    let (mut passed, mut begin) = (0, from.0);
    for (k, &segment) in path.iter().enumerate() {
        passed += cost(k);
        let end = match (k + 1 == path.len(), total) {
            (true, _) => to.0,
            (false, 0) => from.0,
            (false, _) => from
                .0
                .plus_ms((i128::from(time) * i128::from(passed) / i128::from(total)) as i64),
        };
        out.push(Piece {
            segment,
            begin,
            end,
            distance_mm: span(k),
        });
        begin = end;
    }
    debug_assert_eq!(begin, to.0);
}

/// Cuts a piece at pane borders. `entered_at` is when the visit of this segment began.
///
/// Panes before `open` were promised to be complete: the time that falls there is returned instead of booked.
pub(super) fn book(
    piece: &Piece,
    pane_ms: i64,
    open: PaneIndex,
    visit: (u64, EventTime),
    weight_permille: u16,
    out: &mut Vec<Contribution>,
) -> u64 {
    let (begin, end) = (piece.begin.ms(), piece.end.ms());
    let duration = end - begin;
    let mut overtaken = 0;
    let (mut at, mut driven) = (begin, 0_u64);
    loop {
        let pane = at.div_euclid(pane_ms);
        let until = end.min((pane + 1) * pane_ms);
        // A piece without duration (a segment crossed within a millisecond) is booked whole.
        let reached = if until == end {
            piece.distance_mm
        } else {
            (u128::from(piece.distance_mm) * (until - begin) as u128 / duration as u128) as u64
        };
        let part = Contribution {
            pane,
            segment: piece.segment,
            traversal: visit.0,
            distance_mm: u32::try_from(reached - driven).unwrap_or(u32::MAX),
            time_ms: u32::try_from(until - at).unwrap_or(u32::MAX),
            weight_permille,
            positions: 0,
            until_ms: (until - pane * pane_ms) as u32,
            entered: visit.1.ms().div_euclid(pane_ms) == pane,
        };
        if pane < open {
            overtaken += u64::from(part.time_ms);
        } else {
            out.push(part);
        }
        driven = reached;
        at = until;
        if at >= end {
            return overtaken;
        }
    }
}
