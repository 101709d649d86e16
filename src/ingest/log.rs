use serde::{Deserialize, Serialize};

use super::clock::{Clock, Verdict};
use super::order::{BUCKET_MS, OrderBuffer};
use super::{Control, Event, Rejection, Settings};
use crate::units::EventTime;

/// Every record of a log counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records read, control records not among them.
    pub read: u64,
    /// Records released to locate and not (yet) refused there, or still waiting for their order.
    pub used: u64,
    /// Records refused, by [`Rejection`] in the order of [`Rejection::ALL`].
    pub rejected: [u64; Rejection::ALL.len()],
    /// Control records.
    pub control: u64,
}

impl Counts {
    /// Books the change of one record from used to refused.
    pub fn refuse(&mut self, reason: Rejection) {
        assert!(self.used > 0, "a record is refused that was never taken");
        self.used -= 1;
        self.rejected[reason as usize] += 1;
    }

    /// Adds the counts of another log.
    pub fn add(&mut self, other: &Counts) {
        self.read += other.read;
        self.used += other.used;
        self.control += other.control;
        for (sum, n) in self.rejected.iter_mut().zip(other.rejected) {
            *sum += n;
        }
    }

    /// Whether every record is accounted for.
    pub fn balanced(&self) -> bool {
        self.used + self.rejected.iter().sum::<u64>() == self.read
    }
}

/// A record that ingest refused. Nothing here depends on how the log was dealt into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Place in the log.
    pub offset: u64,
    /// Why.
    pub reason: Rejection,
    /// Its place in time among the refusals of its log: the watermark when it was refused, of a duplicate its own
    /// time. `None` before the first watermark.
    pub at: Option<EventTime>,
    /// Whether it was refused when it was read, and not after it had been held or accepted.
    pub at_once: bool,
}

/// What a log gives on: events in order, up to a watermark.
#[derive(Debug, Default)]
pub struct Released {
    /// Accepted events in the order of [`Event`].
    pub events: Vec<Event>,
    /// Records refused here.
    pub refused: Vec<Refused>,
    /// Records taken although one with a later event time had been accepted before them.
    pub behind: u64,
}

/// The machine of one input log: guards clocks, decides lateness once, counts every record and brings what
/// it accepts into order. It survives in checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ingest {
    settings: Settings,
    lateness_ms: i64,
    clock: Clock,
    watermark: Option<EventTime>,
    order: OrderBuffer,
    counts: Counts,
    next_offset: u64,
    ended: bool,
}

impl Ingest {
    /// The machine of a log that has not been read yet.
    pub fn new(settings: Settings, lateness_ms: i64) -> Self {
        Self {
            settings,
            lateness_ms,
            clock: Clock::default(),
            watermark: None,
            order: OrderBuffer::default(),
            counts: Counts::default(),
            next_offset: 0,
            ended: false,
        }
    }

    /// The offset behind the last record taken: where reading goes on after a restart.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Counts so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts, for locate's own refusals.
    pub fn counts_mut(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// The greatest event time accepted.
    pub fn greatest(&self) -> Option<EventTime> {
        self.clock.greatest()
    }

    /// Whether the log has ended.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Records held or waiting for their order.
    pub fn waiting(&self) -> usize {
        self.order.len() + self.clock.held()
    }

    /// The log's promise: nothing before this moment is to come. Whole seconds; `None` until the first
    /// record is accepted, [`EventTime`] `i64::MAX` once the log has ended.
    pub fn watermark(&self) -> Option<EventTime> {
        if self.ended {
            return Some(EventTime::from_ms(i64::MAX));
        }
        self.watermark
            .map(|w| EventTime::from_ms(w.ms().div_euclid(BUCKET_MS) * BUCKET_MS))
    }

    /// Takes the record at `offset`, decoded or refused by the decoder.
    pub fn push(
        &mut self,
        offset: u64,
        append_time: Option<EventTime>,
        decoded: Result<Event, Rejection>,
        out: &mut Released,
    ) {
        self.advance(offset);
        self.counts.read += 1;
        self.counts.used += 1;
        match decoded {
            Ok(event) => {
                let mut verdict = Verdict::default();
                let before = self.clock.greatest();
                self.clock.judge(event, append_time, &self.settings, &mut verdict);
                self.settle(Some(offset), verdict, before, out);
            }
            Err(reason) => self.refuse(offset, reason, true, out),
        }
    }

    /// Takes the control record at `offset`.
    pub fn control(&mut self, offset: u64, control: Option<Control>) {
        self.advance(offset);
        self.counts.control += 1;
        // One of a later version is counted, and harmless, since only what is known may act.
        self.journalled(control);
    }

    /// Takes a control record that stands in the journal, here between two records of the log, of which it is
    /// none. To take one again changes nothing.
    pub fn journalled(&mut self, control: Option<Control>) {
        if let Some(Control::Idle { watermark_ms }) = control {
            self.raise(watermark_ms);
        }
    }

    /// The log ends: whatever waits is decided, and the watermark passes everything.
    pub fn end(&mut self, out: &mut Released) {
        let mut verdict = Verdict::default();
        let before = self.clock.greatest();
        self.clock.end(&mut verdict);
        self.settle(None, verdict, before, out);
        self.ended = true;
    }

    /// Moves everything that the watermark has passed to `out`, duplicates refused.
    pub fn release(&mut self, out: &mut Released) {
        let Some(watermark) = self.watermark() else { return };
        let mut events = Vec::new();
        self.order.release(watermark, &mut events);
        for event in events {
            // Equal subject and time are neighbours in this order, and one second is released at once.
            let twin = out
                .events
                .last()
                .is_some_and(|last| last.time() == event.time() && last.subject() == event.subject());
            if twin {
                self.counts.refuse(Rejection::Duplicate);
                out.refused.push(Refused {
                    offset: event.offset(),
                    reason: Rejection::Duplicate,
                    at: Some(event.time()),
                    at_once: false,
                });
            } else {
                out.events.push(event);
            }
        }
    }

    /// Takes over what the guard decided while it judged the record at `read`, if it judged one. `greatest` is the
    /// greatest event time before what the verdict accepts.
    fn settle(
        &mut self,
        read: Option<u64>,
        mut verdict: Verdict,
        mut greatest: Option<EventTime>,
        out: &mut Released,
    ) {
        for (offset, reason) in verdict.drain_refused() {
            self.refuse(offset, reason, read == Some(offset), out);
        }
        for event in verdict.accepted {
            if self.watermark.is_some_and(|w| event.time() < w) {
                let at_once = read == Some(event.offset());
                self.refuse(event.offset(), Rejection::Late, at_once, out);
                continue;
            }
            self.raise(event.time().plus_ms(-self.lateness_ms));
            out.behind += u64::from(greatest.is_some_and(|g| event.time() < g));
            greatest = greatest.max(Some(event.time()));
            self.order.insert(event);
            // With each record, so that how many a batch holds does not matter.
            while self.order.len() > self.settings.order_buffer_max as usize
                && let Some(end) = self.order.oldest_end()
            {
                self.raise(end);
                self.release(out);
            }
        }
    }

    fn raise(&mut self, to: EventTime) {
        self.watermark = Some(self.watermark.map_or(to, |w| w.max(to)));
    }

    fn advance(&mut self, offset: u64) {
        assert!(
            offset >= self.next_offset,
            "offset {offset} was read again (next is {})",
            self.next_offset
        );
        assert!(!self.ended, "a record behind the end of its log");
        self.next_offset = offset + 1;
    }

    fn refuse(&mut self, offset: u64, reason: Rejection, at_once: bool, out: &mut Released) {
        self.counts.refuse(reason);
        out.refused.push(Refused {
            offset,
            reason,
            at: self.watermark(),
            at_once,
        });
    }
}
