//! Quantities as checked integers, so that sums do not depend on the order of their parts and a value
//! that exists is a value in range.

mod position;
mod time;

pub use position::{Bearing, Position, PositionError};
pub use time::EventTime;

/// Millimetres per second, the resolution of every speed inside the engine.
pub type MmPerS = u32;

/// Kilometres per hour of a speed in mm/s.
pub fn kph(speed: MmPerS) -> f64 {
    f64::from(speed) * 0.0036
}

/// Speed in mm/s of a distance in mm driven in a time in ms, `None` if no time passed.
///
/// Rounds to the nearest; saturates at `u32::MAX`.
pub fn speed_mm_s(distance_mm: u64, time_ms: u64) -> Option<MmPerS> {
    if time_ms == 0 {
        return None;
    }
    let speed = (u128::from(distance_mm) * 1000 + u128::from(time_ms) / 2) / u128::from(time_ms);
    Some(u32::try_from(speed).unwrap_or(u32::MAX))
}

/// Time in ms to drive a distance in mm at a speed in mm/s, rounded to the nearest, `None` at speed 0.
pub fn travel_time_ms(distance_mm: u64, speed: MmPerS) -> Option<u64> {
    if speed == 0 {
        return None;
    }
    Some((distance_mm * 1000 + u64::from(speed) / 2) / u64::from(speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_and_time_are_inverse() {
        assert_eq!(speed_mm_s(100_000, 10_000), Some(10_000));
        assert_eq!(travel_time_ms(100_000, 10_000), Some(10_000));
        assert_eq!(speed_mm_s(1, 0), None);
        assert_eq!(travel_time_ms(1, 0), None);
        assert!((kph(10_000) - 36.0).abs() < 1e-9);
    }
}
