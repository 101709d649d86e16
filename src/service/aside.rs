//! What is told beside the panes: refused records and placed positions.
//!
//! When they are decided depends on how records are dealt into batches, and so does their order over several
//! logs and lanes. Law 1 wants equal bytes: they wait here until everything of their pane has been told
//! ([`Engine::told`](crate::engine::Engine::told)), and leave in the order pane, log, place in the log. What waits
//! is part of a checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::{LogIndex, Placed, Refusal};
use crate::ingest::Rejection;
use crate::locate::PaneIndex;

/// Refused records that are written, for each log and reason: the first ones in the order of leaving.
pub const SAMPLE_MAX: usize = 100;

/// What waits for its turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub struct Aside {
    placed: BTreeMap<(PaneIndex, LogIndex, u64), String>,
    /// By pane and place in the log; never more than may still be written.
    refused: BTreeMap<(LogIndex, Rejection), BTreeMap<(PaneIndex, u64), String>>,
    /// How many were written.
    sampled: BTreeMap<(LogIndex, Rejection), usize>,
}

/// Lists, since keys of JSON are text.
#[derive(Serialize, Deserialize)]
struct Flat {
    placed: Vec<(PaneIndex, LogIndex, u64, String)>,
    refused: Vec<(LogIndex, Rejection, PaneIndex, u64, String)>,
    sampled: Vec<(LogIndex, Rejection, usize)>,
}

impl From<Flat> for Aside {
    fn from(flat: Flat) -> Self {
        let mut aside = Self {
            placed: flat
                .placed
                .into_iter()
                .map(|(p, l, o, line)| ((p, l, o), line))
                .collect(),
            refused: BTreeMap::new(),
            sampled: flat.sampled.into_iter().map(|(l, r, n)| ((l, r), n)).collect(),
        };
        for (log, reason, pane, offset, line) in flat.refused {
            let of = aside.refused.entry((log, reason)).or_default();
            of.insert((pane, offset), line);
        }
        aside
    }
}

impl From<Aside> for Flat {
    fn from(aside: Aside) -> Self {
        let refused = aside.refused.into_iter();
        Self {
            placed: aside
                .placed
                .into_iter()
                .map(|((p, l, o), line)| (p, l, o, line))
                .collect(),
            refused: refused
                .flat_map(|((l, r), of)| of.into_iter().map(move |((p, o), line)| (l, r, p, o, line)))
                .collect(),
            sampled: aside.sampled.into_iter().map(|((l, r), n)| (l, r, n)).collect(),
        }
    }
}

/// What leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Lines of `matches.ndjson`.
    pub placed: Vec<String>,
    /// Lines of `rejected.ndjson`, with log and reason.
    pub refused: Vec<(LogIndex, Rejection, String)>,
}

impl Aside {
    /// Takes a placed position.
    pub fn place(&mut self, placed: Placed) {
        let line = String::from_utf8_lossy(&placed.line).into_owned();
        self.placed.insert((placed.pane, placed.log, placed.offset), line);
    }

    /// Takes a refused record, if it may be among those that are written; `line` makes its line.
    pub fn refuse(&mut self, refusal: &Refusal, line: impl FnOnce() -> String) {
        let of = (refusal.log, refusal.reason);
        let room = SAMPLE_MAX.saturating_sub(self.sampled.get(&of).copied().unwrap_or(0));
        let place = (refusal.pane, refusal.offset);
        let waiting = self.refused.entry(of).or_default();
        if waiting.len() >= room && waiting.last_key_value().is_none_or(|(last, _)| *last < place) {
            return;
        }
        waiting.insert(place, line());
        if waiting.len() > room {
            waiting.pop_last();
        }
    }

    /// Gives what belongs to panes before `told`.
    pub fn leave(&mut self, told: PaneIndex) -> Leaving {
        let later = self.placed.split_off(&(told, 0, 0));
        let placed = std::mem::replace(&mut self.placed, later);
        let mut refused = Vec::new();
        for (&(log, reason), waiting) in &mut self.refused {
            let later = waiting.split_off(&(told, 0));
            let now = std::mem::replace(waiting, later);
            *self.sampled.entry((log, reason)).or_default() += now.len();
            let placed = |((pane, offset), line)| ((pane, log, offset), reason, line);
            refused.extend(now.into_iter().map(placed));
        }
        refused.sort_unstable_by_key(|(place, _, _)| *place);
        Leaving {
            placed: placed.into_values().collect(),
            refused: refused
                .into_iter()
                .map(|((_, log, _), reason, line)| (log, reason, line))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pane: PaneIndex, log: LogIndex, offset: u64) -> Refusal {
        Refusal {
            log,
            offset,
            reason: Rejection::Jump,
            pane,
            at_once: false,
        }
    }

    #[test]
    fn the_first_of_each_log_and_reason_leave_whatever_order_they_came_in() {
        let all: Vec<Refusal> = (0..300_u64)
            .map(|i| refusal((i / 7) as PaneIndex, (i % 2) as LogIndex, i * 37 % 300))
            .collect();
        let run = |order: &[usize], restart: bool| {
            let mut aside = Aside::default();
            for (n, &i) in order.iter().enumerate() {
                let r = &all[i];
                aside.refuse(r, || format!("{}/{}/{}", r.pane, r.log, r.offset));
                if restart && n % 50 == 0 {
                    let kept = serde_json::to_vec(&aside).unwrap();
                    aside = serde_json::from_slice(&kept).unwrap();
                }
            }
            let mut lines = aside.leave(5).refused;
            lines.extend(aside.leave(PaneIndex::MAX).refused);
            lines
        };
        let there: Vec<usize> = (0..300).collect();
        let back: Vec<usize> = (0..300).rev().collect();
        let lines = run(&there, false);
        assert_eq!(lines.len(), 2 * SAMPLE_MAX);
        assert!(
            lines
                .iter()
                .all(|(_, _, l)| l.split('/').next().unwrap().parse::<i64>().unwrap() < 30)
        );
        assert_eq!(run(&back, true), lines);
    }
}
