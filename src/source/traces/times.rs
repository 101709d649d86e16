//! Times of a trace: brought into order, and made up where they are missing.

use std::time::Duration;

use super::{Point, Trace};
use crate::units::EventTime;

/// Speed in m/s at which the way between two points without times is assumed to be driven: that of town traffic.
pub const ASSUMED_MPS: f64 = 10.0;
/// Least time in ms between two points of which one has no time.
const ASSUMED_MIN_MS: f64 = 1000.0;

/// What had to be done to the times of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Points earlier than a point before them in the file.
    pub sorted: u64,
    /// Points with an assumed time.
    pub assumed: u64,
}

/// A trace of points as they stand in the file.
pub(super) fn trace(id: String, mut points: Vec<Point>, silence: Duration) -> Trace {
    let mut timing = Timing::default();
    let mut known = points.iter().filter_map(|p| p.time);
    let first = known.next();
    // Times of which none differs from another are none.
    if points.len() > 1 && known.all(|t| Some(t) == first) {
        points.iter_mut().for_each(|p| p.time = None);
    }
    let (mut latest, mut behind) = (EventTime::from_ms(i64::MIN), EventTime::from_ms(i64::MIN));
    let mut keyed: Vec<(EventTime, Point)> = Vec::with_capacity(points.len());
    for point in points {
        if let Some(time) = point.time {
            timing.sorted += u64::from(time < latest);
            latest = latest.max(time);
            behind = time;
        }
        keyed.push((behind, point));
    }
    if timing.sorted > 0 {
        // Stable: points of one moment, and those without one, keep their order.
        keyed.sort_by_key(|(time, _)| *time);
    }
    let points: Vec<Point> = keyed.into_iter().map(|(_, p)| p).collect();
    timing.assumed = points.iter().filter(|p| p.time.is_none()).count() as u64;
    let times = times(&points, silence);
    Trace {
        id,
        points,
        times,
        timing,
    }
}

/// A time for each point. Between two known ones, time passes as the distance between the points tells; before the
/// first and after the last of them, and where there are none, at [`ASSUMED_MPS`].
fn times(points: &[Point], silence: Duration) -> Vec<EventTime> {
    // Assumed time since the first point, in ms.
    let (mut clock, mut at) = (0.0, vec![0.0]);
    for pair in points.windows(2) {
        let ms = pair[0].position.distance_m(pair[1].position) / ASSUMED_MPS * 1000.0;
        // A silence would end the way, and nothing tells of one.
        clock += ms.min(silence.as_millis() as f64).max(ASSUMED_MIN_MS);
        at.push(clock);
    }
    let known: Vec<(usize, EventTime)> = points
        .iter()
        .enumerate()
        .filter_map(|(i, p)| Some((i, p.time?)))
        .collect();
    let beside = |(k, time): (usize, EventTime), i: usize| time.plus_ms((at[i] - at[k]).round() as i64);
    let start = (0, EventTime::from_ms(0));
    (0..points.len())
        .map(|i| {
            let next = known.partition_point(|(k, _)| *k < i);
            match (next.checked_sub(1).map(|k| known[k]), known.get(next)) {
                (_, Some((k, time))) if *k == i => *time,
                (Some(a), Some(b)) => {
                    let share = (at[i] - at[a.0]) / (at[b.0] - at[a.0]);
                    a.1.plus_ms((b.1.since(a.1) as f64 * share).round() as i64)
                }
                (Some(a), None) => beside(a, i),
                (None, Some(b)) => beside(*b, i),
                (None, None) => beside(start, i),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Position;

    /// Points on a meridian, at metres north of the first and at seconds.
    fn made(points: &[(f64, Option<i64>)]) -> Trace {
        let point = |(i, (m, s)): (usize, &(f64, Option<i64>))| Point {
            time: s.map(|s| EventTime::from_ms(s * 1000)),
            ..Point::at(
                i as u64 + 1,
                Position::from_degrees(50.0 + m / 111_195.0, 8.0).unwrap(),
            )
        };
        let points = points.iter().enumerate().map(point).collect();
        trace("t".to_owned(), points, Duration::from_secs(120))
    }

    fn seconds(trace: &Trace) -> Vec<i64> {
        trace
            .times
            .iter()
            .map(|t| (t.ms() as f64 / 1000.0).round() as i64)
            .collect()
    }

    #[test]
    fn known_times_are_kept() {
        let t = made(&[(0.0, Some(5)), (10.0, Some(7)), (20.0, Some(7))]);
        assert_eq!(
            (seconds(&t), t.timing),
            (
                vec![5, 7, 7],
                Timing {
                    sorted: 0,
                    assumed: 0
                }
            )
        );
    }

    #[test]
    fn without_times_the_distance_tells_them() {
        let t = made(&[(0.0, None), (100.0, None), (100.0, None), (90_000.0, None)]);
        assert_eq!(
            seconds(&t),
            [0, 10, 11, 131],
            "10 m/s, at least 1 s, no longer silence than 120 s"
        );
        assert_eq!(t.timing.assumed, 4);
    }

    #[test]
    fn times_that_are_all_the_same_are_none() {
        let t = made(&[(0.0, Some(9)), (50.0, Some(9)), (100.0, None)]);
        assert_eq!((seconds(&t), t.timing.assumed), (vec![0, 5, 10], 3));
        assert!(t.points.iter().all(|p| p.time.is_none()));
        let alone = made(&[(0.0, Some(9))]);
        assert_eq!((seconds(&alone), alone.timing.assumed), (vec![9], 0));
    }

    #[test]
    fn gaps_in_times_are_filled_by_distance() {
        let t = made(&[
            (0.0, None),
            (50.0, Some(100)),
            (150.0, None),
            (200.0, Some(130)),
            (220.0, None),
        ]);
        assert_eq!(seconds(&t), [95, 100, 120, 130, 132]);
        assert_eq!(
            t.timing,
            Timing {
                sorted: 0,
                assumed: 3
            }
        );
    }

    #[test]
    fn points_out_of_order_are_sorted() {
        let t = made(&[
            (0.0, Some(10)),
            (20.0, Some(30)),
            (30.0, None),
            (10.0, Some(20)),
            (40.0, Some(40)),
        ]);
        let lines: Vec<u64> = t.points.iter().map(|p| p.line).collect();
        assert_eq!(
            lines,
            [1, 4, 2, 3, 5],
            "one without time stays behind its neighbour"
        );
        assert_eq!(seconds(&t), [10, 20, 30, 35, 40]);
        assert_eq!(
            t.timing,
            Timing {
                sorted: 1,
                assumed: 1
            }
        );
    }
}
