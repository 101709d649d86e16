//! The bounded ring of live events, from which every stream reads at its own pace.
//!
//! Nothing is queued per client: a client is a number (the last event it was sent). One that falls behind the
//! ring is told to load the state anew and is let go, so memory is the ring's, however slow its readers are.

use std::collections::VecDeque;

use axum::body::Bytes;

/// What a client may ask to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Segment states (events `states` and `pane`).
    State,
    /// Alerts (event `alert`).
    Alert,
    /// Region indices (event `index`).
    Index,
    /// Corridor travel times (event `corridor`).
    Corridor,
}

impl Subject {
    pub(super) const ALL: [Subject; 4] = [Subject::State, Subject::Alert, Subject::Index, Subject::Corridor];

    /// The word in `?topics=`.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Subject::State => "state",
            Subject::Alert => "alert",
            Subject::Index => "index",
            Subject::Corridor => "corridor",
        }
    }
}

#[derive(Clone, Debug)]
struct Event {
    subject: Subject,
    text: Bytes,
}

/// What comes after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next event that the client wants, and its number.
    Event(u64, Bytes),
    /// Nothing yet; everything up to this number has been seen.
    Nothing(u64),
    /// What came next is no longer there, or never was.
    Gone,
}

/// The newest events, bounded in number and bytes.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Event>,
    // Number of the newest event; the oldest kept has `last + 1 - events.len()`.
    last: u64,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

impl Ring {
    /// `before_first` is the number before that of the first event.
    pub(super) fn new(before_first: u64, events_max: usize, bytes_max: usize) -> Self {
        Self {
            events: VecDeque::new(),
            last: before_first,
            bytes: 0,
            events_max,
            bytes_max,
        }
    }

    /// Number of the newest event.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Appends an event; `data` is JSON on one line.
    pub(super) fn push(&mut self, subject: Subject, name: &str, data: &str) {
        self.last += 1;
        let text = Bytes::from(format!("id: {}\nevent: {name}\ndata: {data}\n\n", self.last));
        self.bytes += text.len();
        self.events.push_back(Event { subject, text });
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.text.len();
        }
    }

    /// The first event after `seen` that is about one of `subjects`.
    pub(super) fn after(&self, seen: u64, subjects: &[Subject]) -> Next {
        let before_oldest = self.last - self.events.len() as u64;
        if seen < before_oldest || seen > self.last {
            return Next::Gone;
        }
        // In range: at most as many as there are events.
        let skip = (seen - before_oldest) as usize;
        match self
            .events
            .iter()
            .skip(skip)
            .zip(seen + 1..)
            .find(|(e, _)| subjects.contains(&e.subject))
        {
            Some((event, number)) => Next::Event(number, event.text.clone()),
            None => Next::Nothing(self.last),
        }
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_in_order_what_is_wanted() {
        let mut ring = Ring::new(100, 10, 10_000);
        ring.push(Subject::State, "states", "[]");
        ring.push(Subject::Alert, "alert", "{}");
        ring.push(Subject::State, "states", "[1]");
        let states = [Subject::State];
        assert_eq!(
            ring.after(100, &states),
            Next::Event(101, Bytes::from("id: 101\nevent: states\ndata: []\n\n"))
        );
        let Next::Event(103, _) = ring.after(101, &states) else {
            panic!("the alert is skipped")
        };
        assert_eq!(ring.after(103, &states), Next::Nothing(103));
        assert_eq!(ring.after(102, &[Subject::Alert]), Next::Nothing(103));
    }

    #[test]
    fn is_bounded_and_says_what_is_gone() {
        let mut ring = Ring::new(0, 3, 10_000);
        for _ in 0..10 {
            ring.push(Subject::State, "states", "[]");
        }
        assert_eq!(ring.last(), 10);
        assert_eq!(ring.after(6, &Subject::ALL), Next::Gone);
        let Next::Event(8, _) = ring.after(7, &Subject::ALL) else {
            panic!("the three newest are kept")
        };
        assert_eq!(
            ring.after(11, &Subject::ALL),
            Next::Gone,
            "a number that was never given out"
        );

        let mut ring = Ring::new(0, 1000, 200);
        for _ in 0..100 {
            ring.push(Subject::State, "states", "[1,2,3,4,5,6,7,8,9]");
        }
        assert!(ring.bytes() <= 200, "{}", ring.bytes());
        ring.push(Subject::State, "states", &"9".repeat(300));
        assert_eq!(ring.bytes(), 0, "an event larger than the ring is not kept");
        assert_eq!(
            ring.after(100, &Subject::ALL),
            Next::Gone,
            "and whoever missed it is told so"
        );
    }
}
