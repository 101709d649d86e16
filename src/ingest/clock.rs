//! The guard against clocks that run ahead (design §4): a wrong clock must not move the watermark.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Event, Rejection, Settings, SubjectKey};
use crate::units::EventTime;

/// For a log of one id alone the tolerance between its successive records is wider by this factor: there
/// is no other clock to compare with, and one vehicle reports seldom.
const ALONE_FACTOR: i64 = 10;

/// The guard of one log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Clock {
    greatest: Option<EventTime>,
    /// Successive records that were all ahead, in order of arrival.
    held: VecDeque<Event>,
    /// The id of the last record and how many records in a row were its own.
    alone: Option<(SubjectKey, u32)>,
}

/// What became of a record and of those that were held before it.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// To be taken, in this order.
    pub(super) accepted: Vec<Event>,
    /// Refused.
    pub(super) refused: Vec<Event>,
}

impl Clock {
    /// The greatest event time accepted so far.
    pub(super) fn greatest(&self) -> Option<EventTime> {
        self.greatest
    }

    /// Records that wait for others to agree.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Judges one record. Nothing stays in `verdict` from earlier calls: the caller drains it.
    pub(super) fn judge(
        &mut self,
        event: Event,
        append_time: Option<EventTime>,
        settings: &Settings,
        verdict: &mut Verdict,
    ) {
        let max_future = i64::from(settings.max_future_s) * 1000;
        self.alone = match self.alone {
            Some((id, n)) if id == event.subject() => Some((id, n.saturating_add(1))),
            _ => Some((event.subject(), 1)),
        };
        if let Some(append) = append_time {
            if event.time().since(append) > max_future {
                verdict.refused.push(event);
            } else {
                self.accept(event, verdict);
            }
            return;
        }
        let ahead = self.greatest.is_none_or(|g| event.begin().since(g) > max_future);
        if !ahead {
            verdict.refused.extend(self.held.drain(..));
            self.accept(event, verdict);
            return;
        }
        self.held.push_back(event);
        if self.agreed(settings, max_future) {
            self.believe(max_future, settings.future_agree as usize, verdict);
        } else if self.held.len() > settings.future_alone as usize {
            verdict.refused.extend(self.held.pop_front());
        }
    }

    /// The log ends: held records are refused, except in a log that never had another id to compare with.
    pub(super) fn end(&mut self, verdict: &mut Verdict) {
        let first = self.held.front().map(Event::subject);
        let one_id = self.held.iter().all(|e| Some(e.subject()) == first);
        if self.greatest.is_none() && one_id {
            for event in std::mem::take(&mut self.held) {
                self.accept(event, verdict);
            }
        } else {
            verdict.refused.extend(self.held.drain(..));
        }
    }

    fn accept(&mut self, event: Event, verdict: &mut Verdict) {
        self.greatest = Some(self.greatest.map_or(event.time(), |g| g.max(event.time())));
        verdict.accepted.push(event);
    }

    fn agreed(&self, settings: &Settings, max_future: i64) -> bool {
        let n = settings.future_agree as usize;
        if self.held.len() < n {
            return false;
        }
        let last: Vec<&Event> = self.held.iter().skip(self.held.len() - n).collect();
        let two_ids = last.iter().any(|e| e.subject() != last[0].subject());
        let alone = self.alone.is_some_and(|(_, n)| n >= settings.future_alone);
        let tolerance = match (two_ids, alone) {
            (true, _) => max_future,
            (false, true) => max_future * ALONE_FACTOR,
            (false, false) => return false,
        };
        // Intervals agree if they touch when widened by the tolerance; a probe's is a point.
        let earliest_end = last.iter().map(|e| e.time()).min();
        let latest_begin = last.iter().map(|e| e.begin()).max();
        matches!((latest_begin, earliest_end), (Some(b), Some(e)) if b.since(e) <= tolerance)
    }

    /// Takes over the clock of the last `n` held records and judges all held ones by it.
    fn believe(&mut self, max_future: i64, n: usize, verdict: &mut Verdict) {
        let held = std::mem::take(&mut self.held);
        let greatest = held.iter().skip(held.len() - n).map(Event::time).max();
        for event in held {
            if greatest.is_some_and(|g| event.begin().since(g) > max_future) {
                verdict.refused.push(event);
            } else {
                self.accept(event, verdict);
            }
        }
    }
}

impl Verdict {
    /// The refused records with their reason.
    pub(super) fn drain_refused(&mut self) -> impl Iterator<Item = (u64, Rejection)> + '_ {
        self.refused
            .drain(..)
            .map(|e| (e.offset(), Rejection::ClockFuture))
    }
}
