//! When a silent log gets an idle mark (design §4).
//!
//! A partition without records would hold every pane open. So whoever reads it writes a control record into
//! it that raises its watermark: to the watermark at its last record, plus the wall time since, minus
//! `idle_timeout`. The mark acts where it stands in the log, so that a replay closes the same panes.

use crate::engine::LogIndex;
use crate::ingest::Control;
use crate::units::EventTime;

/// Milliseconds of silence before the first mark.
pub const IDLE_TIMEOUT_MS: i64 = 30_000;
/// Milliseconds between two marks of one log.
pub const MARK_EVERY_MS: i64 = 5_000;

#[derive(Clone, Debug, Default)]
struct Log {
    /// Wall time of the last record, or of the moment when watching began.
    last_record: i64,
    /// Watermark after the last record; `None` if there never was one.
    watermark: Option<EventTime>,
    /// Everything up to the end of the log has been read.
    caught_up: bool,
    last_mark: Option<i64>,
}

/// Watches logs for silence. Wall time comes in as milliseconds, so that a scaled clock serves as well.
#[derive(Clone, Debug)]
pub struct IdleWatch {
    logs: Vec<Log>,
    timeout_ms: i64,
}

impl IdleWatch {
    /// Watches `logs` logs from `now` on.
    pub fn new(logs: usize, timeout_ms: i64, now: i64) -> Self {
        Self {
            logs: vec![
                Log {
                    last_record: now,
                    ..Log::default()
                };
                logs
            ],
            timeout_ms,
        }
    }

    /// Records of `log` were read (control records do not count) and left it at `watermark`.
    pub fn records(&mut self, log: LogIndex, watermark: Option<EventTime>, now: i64) {
        let log = &mut self.logs[usize::from(log)];
        log.last_record = now;
        log.watermark = watermark;
        log.caught_up = false;
    }

    /// From `now` on `log` is read here, after another process read it or none did: its silence begins anew,
    /// for what lies in it unread is not known yet. `watermark` is what was known of it before.
    pub fn taken_over(&mut self, log: LogIndex, watermark: Option<EventTime>, now: i64) {
        self.records(log, watermark, now);
    }

    /// The end of `log` was reached: only from here on silence means that nothing came.
    pub fn caught_up(&mut self, log: LogIndex) {
        self.logs[usize::from(log)].caught_up = true;
    }

    /// The marks that are due at `now`. `watermarks` are those of all logs, marks included.
    pub fn due(&mut self, watermarks: &[Option<EventTime>], now: i64) -> Vec<(LogIndex, Control)> {
        let others = |i: usize| {
            let others = watermarks.iter().enumerate().filter(|(k, _)| *k != i);
            others.filter_map(|(_, w)| *w).min()
        };
        let mut marks = Vec::new();
        for (i, log) in self.logs.iter_mut().enumerate() {
            let silent = now - log.last_record;
            let marked = log.last_mark.is_some_and(|m| now - m < MARK_EVERY_MS);
            if !log.caught_up || silent < self.timeout_ms || marked {
                continue;
            }
            // A log that never had a record has no time of its own: it follows the others.
            let to = log
                .watermark
                .map(|w| w.plus_ms(silent - self.timeout_ms))
                .or_else(|| others(i));
            let Some(watermark_ms) = to.filter(|to| watermarks[i].is_none_or(|w| *to > w)) else {
                continue;
            };
            log.last_mark = Some(now);
            marks.push((i as LogIndex, Control::Idle { watermark_ms }));
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Option<EventTime> {
        Some(EventTime::from_ms(ms))
    }

    #[test]
    fn a_silent_log_is_marked_after_the_timeout_and_again() {
        let mut watch = IdleWatch::new(1, 30_000, 0);
        watch.records(0, at(1_000_000), 10_000);
        assert!(
            watch.due(&[at(1_000_000)], 90_000).is_empty(),
            "not caught up: it lags, it is not silent"
        );
        watch.caught_up(0);
        assert!(watch.due(&[at(1_000_000)], 39_999).is_empty());
        let mark = |ms| {
            vec![(
                0,
                Control::Idle {
                    watermark_ms: EventTime::from_ms(ms),
                },
            )]
        };
        assert_eq!(watch.due(&[at(1_000_000)], 41_000), mark(1_001_000));
        assert!(
            watch.due(&[at(1_001_000)], 45_000).is_empty(),
            "marked a moment ago"
        );
        assert_eq!(watch.due(&[at(1_001_000)], 46_000), mark(1_006_000));
        watch.records(0, at(1_006_000), 47_000);
        watch.caught_up(0);
        assert!(watch.due(&[at(1_006_000)], 60_000).is_empty(), "it speaks again");
    }

    #[test]
    fn a_log_taken_over_is_silent_only_from_then_on() {
        let mut watch = IdleWatch::new(1, 30_000, 0);
        watch.caught_up(0);
        watch.taken_over(0, at(1_000_000), 500_000);
        assert!(
            watch.due(&[at(1_000_000)], 540_000).is_empty(),
            "what lies in it is not read yet"
        );
        watch.caught_up(0);
        assert_eq!(
            watch.due(&[at(1_000_000)], 540_000),
            [(
                0,
                Control::Idle {
                    watermark_ms: EventTime::from_ms(1_010_000)
                }
            )]
        );
    }

    #[test]
    fn a_log_that_never_spoke_follows_the_slowest_other() {
        let mut watch = IdleWatch::new(3, 30_000, 0);
        watch.caught_up(0);
        let marks = watch.due(&[None, at(7_000), at(5_000)], 30_000);
        assert_eq!(
            marks,
            [(
                0,
                Control::Idle {
                    watermark_ms: EventTime::from_ms(5_000)
                }
            )]
        );
        let mut alone = IdleWatch::new(1, 30_000, 0);
        alone.caught_up(0);
        assert!(alone.due(&[None], 60_000).is_empty(), "nothing to follow");
    }
}
