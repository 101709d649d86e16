//! How fast recorded events pass.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::units::EventTime;

/// Longest sleep at a time, so that a stop is seen soon.
const NAP: Duration = Duration::from_millis(100);

/// As fast as possible, or so many times as fast as the events happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as possible.
    Max,
    /// So many times as fast as the events happened.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.trim_end_matches('x').parse::<f64>() {
            Ok(n) if n > 0.0 && n.is_finite() => Ok(Self::Times(n)),
            _ => Err(format!(
                "`{text}` is no speed; write max, or a number above 0 such as 10"
            )),
        }
    }
}

/// Sleeps so that event time passes at a given multiple of wall time.
#[derive(Debug)]
pub struct Pace {
    speed: Speed,
    begin: Option<(EventTime, Instant)>,
}

impl Pace {
    /// A pace that begins with the first moment it is told.
    pub fn new(speed: Speed) -> Self {
        Self { speed, begin: None }
    }

    /// Waits until `now` is due, or until `stop`.
    pub fn wait(&mut self, now: Option<EventTime>, stop: &AtomicBool) {
        let (Speed::Times(times), Some(now)) = (self.speed, now) else {
            return;
        };
        let (first, since) = *self.begin.get_or_insert((now, Instant::now()));
        let due = Duration::from_secs_f64(now.since(first).max(0) as f64 / 1000.0 / times);
        while let Some(rest) = due.checked_sub(since.elapsed())
            && !rest.is_zero()
            && !stop.load(Ordering::Relaxed)
        {
            std::thread::sleep(rest.min(NAP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("10".parse(), Ok(Speed::Times(10.0)));
        assert_eq!("2.5x".parse(), Ok(Speed::Times(2.5)));
        for bad in ["0", "-1", "fast", "inf", ""] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pace_keeps_event_time_behind_wall_time() {
        let stop = AtomicBool::new(false);
        let mut pace = Pace::new(Speed::Times(100.0));
        let begin = Instant::now();
        pace.wait(Some(EventTime::from_ms(0)), &stop);
        pace.wait(Some(EventTime::from_ms(5_000)), &stop);
        assert!(begin.elapsed() >= Duration::from_millis(50));
    }
}
