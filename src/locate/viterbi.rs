//! The lattice of one vehicle: columns of states, the best way to each, and decisions (Viterbi's algorithm over
//! a window; algorithms §2.2, steps 7).

use serde::{Deserialize, Serialize};

use super::drift::believed;
use super::track::Spot;
use crate::units::{EventTime, Position};

/// Most states of a column.
pub(super) const STATES_MAX: usize = 64;

/// A candidate of a kept fix that can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) spot: Spot,
    /// Natural logarithm of the likelihood of the best way there, relative to the best state of the column.
    pub(super) score: f32,
    /// How far the receiver's error puts the spot ahead of the vehicle, in cm, as far as was known then.
    pub(super) ahead_cm: i16,
    /// Standard deviation of that in cm.
    pub(super) unsure_cm: u16,
    /// By how much the way from the state before is longer than the odometer says, in cm.
    pub(super) excess_cm: i16,
    /// The state of the column before on the best way.
    pub(super) back: u8,
}

/// The states of one kept fix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) time: EventTime,
    pub(super) position: Position,
    /// Variance of the odometer's way from the column before in m²; infinite without one.
    pub(super) odometer: f32,
    /// Its states are those before this index, from the end of the column before.
    end: u32,
}

/// Columns that still matter: the first is the last decided one (one state) once anything was decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Lattice {
    columns: Vec<Column>,
    states: Vec<State>,
    /// The first column is decided.
    decided: bool,
}

impl Lattice {
    /// Number of columns that are not decided.
    fn undecided(&self) -> usize {
        self.columns.len() - usize::from(self.decided)
    }

    pub(super) fn last(&self) -> Option<&Column> {
        self.columns.last()
    }

    fn range(&self, column: usize) -> std::ops::Range<usize> {
        let begin = column.checked_sub(1).map_or(0, |before| self.columns[before].end);
        begin as usize..self.columns[column].end as usize
    }

    /// States of the last column.
    pub(super) fn front(&self) -> &[State] {
        match self.columns.len() {
            0 => &[],
            n => &self.states[self.range(n - 1)],
        }
    }

    /// Whether all ways agree on the column to be decided next, and more columns follow.
    pub(super) fn certain(&self) -> bool {
        let next = usize::from(self.decided);
        next + 1 < self.columns.len() && self.range(next).len() == 1
    }

    /// Whether all ways agree on the column decided last.
    pub(super) fn certain_behind(&self) -> bool {
        self.decided && self.range(0).len() == 1
    }

    /// Adds a column and forgets what no way of the new one comes from.
    pub(super) fn push(&mut self, time: EventTime, position: Position, odometer: f32, states: &[State]) {
        self.states.extend_from_slice(states);
        self.columns.push(Column {
            time,
            position,
            odometer,
            end: self.states.len() as u32,
        });
        self.prune();
    }

    /// Forgets states that no state of the column after them comes from, last column first.
    fn prune(&mut self) {
        for column in (1..self.columns.len()).rev() {
            let (before, here) = (self.range(column - 1), self.range(column));
            // New index of each state of the column before; MAX if nobody comes from it.
            let mut index = [u8::MAX; STATES_MAX];
            for s in &self.states[here.clone()] {
                index[usize::from(s.back)] = 0;
            }
            if index[..before.len()].iter().all(|&i| i == 0) {
                break; // and so it is in the columns before
            }
            let mut kept = 0;
            for (k, i) in index[..before.len()].iter_mut().enumerate() {
                if *i == 0 {
                    *i = kept as u8;
                    self.states[before.start + kept] = self.states[before.start + k];
                    kept += 1;
                }
            }
            for s in &mut self.states[here] {
                s.back = index[usize::from(s.back)];
            }
            self.cut(column - 1, before.start + kept..before.end);
        }
    }

    /// Takes states out of a column.
    fn cut(&mut self, column: usize, gone: std::ops::Range<usize>) {
        let n = gone.len() as u32;
        self.states.drain(gone);
        for c in &mut self.columns[column..] {
            c.end -= n;
        }
    }

    /// Index of the best state of the last column; the first of equals.
    fn best(&self) -> usize {
        let mut best = 0;
        let front = self.front();
        for (i, s) in front.iter().enumerate() {
            if s.score > front[best].score {
                best = i;
            }
        }
        best
    }

    /// On the best way: the place decided last, and the one to be decided next, as the evidence is now.
    pub(super) fn ahead(&self) -> (Option<Spot>, Option<Spot>) {
        let best = self.best();
        let spot = |column: usize| self.states[self.range(column).start + self.ancestor(best, column)].spot;
        match (self.decided, self.columns.len()) {
            (_, 0) => (None, None),
            (false, _) => (None, Some(spot(0))),
            (true, 1) => (Some(spot(0)), None),
            (true, _) => (Some(spot(0)), Some(spot(1))),
        }
    }

    /// When the column decided last was taken.
    pub(super) fn decided_at(&self) -> Option<EventTime> {
        self.columns.first().filter(|_| self.decided).map(|c| c.time)
    }

    /// How far the receiver's error puts the spot of the column to be decided next ahead of the vehicle, in metres,
    /// as all later columns on the best way tell it (Rauch, Tung and Striebel's smoother; the vehicle's place is
    /// carried by the odometer, the error need not be).
    pub(super) fn ahead_m(&self) -> f64 {
        let Some(last) = self.columns.len().checked_sub(1) else {
            return 0.0;
        };
        let metres = |cm: i16| f64::from(cm) / 100.0;
        let mut at = self.best();
        let mut ahead = metres(self.front()[at].ahead_cm);
        for column in (usize::from(self.decided)..last).rev() {
            let after = self.states[self.range(column + 1).start + at];
            at = usize::from(after.back);
            let state = self.states[self.range(column).start + at];
            let known = metres(state.ahead_cm);
            let unsure = f64::from(state.unsure_cm) / 100.0;
            let variance = unsure * unsure;
            let all = variance + f64::from(self.columns[column + 1].odometer);
            let miss = known + metres(after.excess_cm) - ahead;
            let gain = if believed(miss, all) { variance / all } else { 0.0 };
            ahead = known - gain * miss;
        }
        ahead
    }

    /// Where the way to a state of the last column passes `column`.
    fn ancestor(&self, state: usize, column: usize) -> usize {
        let mut at = state;
        for c in (column + 1..self.columns.len()).rev() {
            at = usize::from(self.states[self.range(c).start + at].back);
        }
        at
    }

    /// Adds evidence about the last column.
    pub(super) fn rescore(&mut self, more: impl Fn(Spot) -> f32) {
        let Some(last) = self.columns.len().checked_sub(1) else {
            return;
        };
        let range = self.range(last);
        let states = &mut self.states[range];
        for s in states.iter_mut() {
            s.score += more(s.spot);
        }
        let top = states.iter().map(|s| s.score).fold(f32::NEG_INFINITY, f32::max);
        for s in states.iter_mut() {
            s.score -= top;
        }
    }

    /// Decides the first column that is not: the state that the best way passes, and its share of the
    /// likelihood of all ways, `same` telling which states mean the same answer.
    pub(super) fn decide(&mut self, same: impl Fn(Spot, Spot) -> bool) -> Option<(Spot, f64)> {
        if self.undecided() == 0 {
            return None;
        }
        let column = usize::from(self.decided);
        let range = self.range(column);
        let n = self.columns.len();
        let best = self.best();
        let front = self.range(n - 1);
        let top = self.states[front.start + best].score;
        let chosen = self.ancestor(best, column);
        let spot = self.states[range.start + chosen].spot;
        let (mut sum, mut agreeing) = (0.0, 0.0);
        for (i, s) in front.enumerate() {
            let p = f64::from(libm::expf(self.states[s].score - top));
            sum += p;
            let a = self.ancestor(i, column);
            if a == chosen || same(spot, self.states[range.start + a].spot) {
                agreeing += p;
            }
        }
        // The column decided before is not needed any more.
        if self.decided {
            self.cut(0, self.range(0));
            self.columns.remove(0);
            for s in self.range(0) {
                self.states[s].back = 0;
            }
        }
        self.decided = true;
        Some((spot, agreeing / sum))
    }
}
