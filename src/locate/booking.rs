//! Spreads the distance and the time of a step over the segments of its path and over panes.
//!
//! Positions and cut times are rounded once, to mm and ms along the path; pieces are differences of these,
//! so that they add up exactly (algorithms §0.1, rule 1).

use super::{Contribution, Kind, PaneIndex};
use crate::network::{Network, SegmentFlags, SegmentIndex};
use crate::units::EventTime;

/// A part of a step on one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) segment: SegmentIndex,
    pub(super) begin: EventTime,
    pub(super) end: EventTime,
    pub(super) distance_mm: u64,
}

/// Share of its free-flow speed that a vehicle under way keeps, in percent: slower than that it waited somewhere.
const MOVING_PERCENT: i128 = 85;

/// How much of a step's delay is due to the end of a segment, relative to others (algorithms §3.1, step 3).
fn delay_weight(network: &Network, segment: SegmentIndex) -> i128 {
    let s = network.segment(segment);
    if s.flags.has(SegmentFlags::SIGNAL_END) {
        return 30;
    }
    if s.flags.has(SegmentFlags::YIELD_END) {
        return 10;
    }
    let junction = network
        .successors(segment)
        .iter()
        .filter(|n| Some(**n) != s.twin)
        .count()
        > 1
        || network
            .predecessors(*network.successors(segment).first().unwrap_or(&segment))
            .len()
            > 2;
    if junction { 3 } else { 0 }
}

/// Cuts a step from `(time, offset on the first segment)` to `(time, offset on the last)` along `path` into
/// pieces. What the step took beyond free flow was waited at the ends of the segments that it left, unless the
/// vehicle was `moving` all the time; the rest is shared in proportion to the free-flow time of each piece of road
/// (algorithms §3.1, steps 2 and 3).
pub(super) fn pieces(
    network: &Network,
    path: &[SegmentIndex],
    from: (EventTime, u32),
    to: (EventTime, u32),
    moving: bool,
    out: &mut Vec<Piece>,
) {
    out.clear();
    let time = to.0.since(from.0);
    if let [only] = *path {
        out.push(Piece {
            segment: only,
            begin: from.0,
            end: to.0,
            distance_mm: u64::from(to.1.saturating_sub(from.1)),
        });
        return;
    }
    let last = path.len().saturating_sub(1);
    let span = |k: usize| {
        let length = u64::from(network.segment(path[k]).length_mm);
        let begin = if k == 0 { u64::from(from.1) } else { 0 };
        let end = if k == last { u64::from(to.1) } else { length };
        end.saturating_sub(begin)
    };
    // Free-flow time of a piece in µs.
    let cost =
        |k: usize| i128::from(span(k)) * 1_000_000 / i128::from(network.segment(path[k]).free_flow.max(1));
    let total: i128 = (0..path.len()).map(cost).sum();
    let weights: i128 = if moving {
        0
    } else {
        path[..last].iter().map(|s| delay_weight(network, *s)).sum()
    };
    let delay = if weights > 0 {
        (i128::from(time) * 1000 - total * 100 / MOVING_PERCENT).max(0)
    } else {
        0
    };
    let under_way = i128::from(time) * 1000 - delay;
    let (mut passed, mut waited, mut begin) = (0, 0, from.0);
    for (k, &segment) in path.iter().enumerate() {
        passed += cost(k);
        let end = if k == last {
            to.0
        } else {
            let rest = if weights > 0 {
                waited += delay_weight(network, segment);
                delay * waited / weights
            } else {
                0
            };
            let driven = if total > 0 { under_way * passed / total } else { 0 };
            from.0.plus_ms(((driven + rest) / 1000) as i64)
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

/// Whether a vehicle can have driven these pieces: not faster than half again the highest limit on them and 5 m/s
/// (algorithms §2.2, step 5), give or take `slack_mm` for the noise of two positions.
pub(super) fn plausible(network: &Network, pieces: &[Piece], slack_mm: u64) -> bool {
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
        return true;
    };
    let time_ms = last.end.since(first.begin).unsigned_abs();
    let driven: u64 = pieces.iter().map(|p| p.distance_mm).sum();
    let limits = pieces
        .iter()
        .map(|p| u64::from(network.segment(p.segment).limit_kph));
    // km/h · ms / 3.6 = mm
    let limit_mm = limits.max().unwrap_or(0) * time_ms * 10 / 36;
    driven <= limit_mm * 3 / 2 + 5 * time_ms + slack_mm
}

/// Cuts a piece at pane borders. `visit` is the name of the visit of this segment and when it began, `stood` what
/// the time was spent with and, of a vehicle that stood, since when it did.
///
/// Panes before `open` were promised to be complete: the time that falls there is returned instead of booked.
pub(super) fn book(
    piece: &Piece,
    pane_ms: i64,
    open: PaneIndex,
    visit: (u64, EventTime),
    stood: (Kind, EventTime),
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
            kind: stood.0,
            stood_since: stood.1,
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
