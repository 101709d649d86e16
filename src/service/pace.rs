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
    /// Wall and event time of the last moment that was due.
    last: Option<(Instant, EventTime)>,
}

impl Pace {
    /// A pace that begins with the first moment it is told.
    pub fn new(speed: Speed) -> Self {
        Self { speed, last: None }
    }

    /// Waits until `now` is due, or until `stop`. A moment before the last one is due at once.
    pub fn wait(&mut self, now: Option<EventTime>, stop: &AtomicBool) {
        let (Speed::Times(times), Some(now)) = (self.speed, now) else {
            return;
        };
        let (wall, before) = *self.last.get_or_insert((Instant::now(), now));
        if now <= before {
            return;
        }
        // From due time to due time, so that no error adds up.
        let due = wall + Duration::from_secs_f64(now.since(before) as f64 / 1000.0 / times);
        self.last = Some((due, now));
        while !stop.load(Ordering::Relaxed) {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(NAP));
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
        for bad in ["0", "-1", "fast", "inf", "nan", ""] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_pace_is_that_of_the_events() {
        let mut pace = Pace::new(Speed::Times(10.0));
        let (stop, begun) = (AtomicBool::new(false), Instant::now());
        for time in [0, 1000, 500, 2000, 3000] {
            pace.wait(Some(EventTime::from_ms(time)), &stop);
        }
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(300) && took < Duration::from_millis(900),
            "{took:?}"
        );
        let (mut unpaced, begun) = (Pace::new(Speed::Max), Instant::now());
        for time in [0, 3_600_000] {
            unpaced.wait(Some(EventTime::from_ms(time)), &stop);
        }
        assert!(begun.elapsed() < Duration::from_millis(100));
    }
}
