//! Which segments lie within r metres of here.

use std::ops::ControlFlow;

use rstar::{AABB, RTree, RTreeObject};

/// One shape piece (two neighbouring shape points) of one or both directions of a road.
///
/// Coordinates are 1e-7 degrees as integers, so that the tree finds exactly what it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    /// `[lon, lat]` of the first point.
    pub(super) a: [i32; 2],
    /// `[lon, lat]` of the second point.
    pub(super) b: [i32; 2],
    /// Shape that the piece belongs to.
    pub(super) shape: u32,
    /// Position of the first point in the array of all shape points.
    pub(super) point: u32,
}

impl RTreeObject for Leaf {
    // i64, since rstar adds coordinates and twice a longitude does not fit i32.
    type Envelope = AABB<[i64; 2]>;

    fn envelope(&self) -> Self::Envelope {
        AABB::from_corners(self.a.map(i64::from), self.b.map(i64::from))
    }
}

/// The spatial index over the shape pieces of all segments.
#[derive(Debug)]
pub struct SpatialIndex {
    tree: RTree<Leaf>,
}

impl SpatialIndex {
    pub(super) fn new(leaves: Vec<Leaf>) -> Self {
        Self {
            tree: RTree::bulk_load(leaves),
        }
    }

    /// Number of shape pieces.
    pub fn pieces(&self) -> usize {
        self.tree.size()
    }

    /// Calls `visit` with every piece whose bounding box touches the box `low..=high` (`[lon, lat]`),
    /// in no defined order. Allocates nothing.
    pub(super) fn visit(&self, low: [i64; 2], high: [i64; 2], mut visit: impl FnMut(&Leaf)) {
        let _: ControlFlow<()> =
            self.tree
                .locate_in_envelope_intersecting_int(AABB::from_corners(low, high), |leaf| {
                    visit(leaf);
                    ControlFlow::Continue(())
                });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::drawn;
    use super::super::graph::{NONE, Parts, cumulative_mm, e7};
    use super::super::*;

    /// A map of random straight and bent roads around a place, both directions each.
    fn roads(lat: i32, lon: i32, shapes: &[Vec<(i32, i32)>]) -> Network {
        let mut parts = Parts {
            shape_offsets: vec![0],
            ..Parts::default()
        };
        let scale = Default::default();
        for (i, shape) in shapes.iter().enumerate() {
            let points: Vec<Position> = shape.iter().map(|&(x, y)| e7(lat + y, lon + x)).collect();
            let length_mm = *cumulative_mm(&scale, &points).last().unwrap();
            let (a, b) = (parts.nodes.len() as u32, parts.nodes.len() as u32 + 1);
            parts.nodes.extend([points[0], points[points.len() - 1]]);
            for (side, (from, to)) in [(a, b), (b, a)].into_iter().enumerate() {
                let index = 2 * i as u32 + side as u32;
                parts.segments.push(Segment {
                    key: SegmentKey {
                        way: i as i64,
                        from_node: from.into(),
                        to_node: to.into(),
                    },
                    from,
                    to,
                    length_mm,
                    class: RoadClass::Primary,
                    flags: SegmentFlags(if side == 1 { SegmentFlags::BACKWARD } else { 0 }),
                    limit_kph: 50,
                    free_flow: 10_000,
                    lanes: 1,
                    twin: Some(index ^ 1),
                    link: 0,
                });
                parts.segment_shape.push(i as u32);
                parts.segment_name.push(NONE);
            }
            parts.osm_nodes.extend(0..points.len() as i64);
            parts.positions.extend(points);
            parts.shape_offsets.push(parts.positions.len() as u32);
        }
        Network::from_parts(parts, String::new())
    }

    /// Nearest place on every segment by looking at all of them, as the documentation of `candidates` says.
    fn brute_force(n: &Network, at: Position, radius_mm: u32) -> Vec<(u32, u32, u16)> {
        // mm per unit at the position, measured over a short way instead of taken from the code under test
        let (kx, ky) = (
            n.distance_mm(at, e7(at.lat_e7(), at.lon_e7() + 1000)) / 1000.0,
            n.distance_mm(
                e7(at.lat_e7() - 500, at.lon_e7()),
                e7(at.lat_e7() + 500, at.lon_e7()),
            ) / 1000.0,
        );
        let xy = |p: Position| {
            (
                f64::from(p.lon_e7() - at.lon_e7()) * kx,
                f64::from(p.lat_e7() - at.lat_e7()) * ky,
            )
        };
        let mut all = Vec::new();
        for i in 0..n.segments().len() as u32 {
            let points: Vec<_> = n.geometry(i).into_iter().map(xy).collect();
            let nearest = points
                .windows(2)
                .map(|w| {
                    let ((ax, ay), (bx, by)) = (w[0], w[1]);
                    let (vx, vy) = (bx - ax, by - ay);
                    let f = (-(ax * vx + ay * vy) / (vx * vx + vy * vy).max(1e-9)).clamp(0.0, 1.0);
                    f64::hypot(ax + f * vx, ay + f * vy)
                })
                .min_by(f64::total_cmp)
                .unwrap();
            if nearest.round() <= f64::from(radius_mm) {
                all.push((nearest.round() as u32, i, 0));
            }
        }
        all
    }

    fn shape() -> impl Strategy<Value = Vec<(i32, i32)>> {
        prop::collection::vec((-50_000..50_000, -50_000..50_000), 2..6)
    }

    proptest! {
        #[test]
        fn finds_what_looking_at_all_finds(
            lat in -700_000_000..700_000_000,
            lon in -1_790_000_000..1_790_000_000,
            shapes in prop::collection::vec(shape(), 1..30),
            (x, y) in (-60_000..60_000, -60_000..60_000),
            radius_mm in 0u32..400_000,
        ) {
            let n = roads(lat, lon, &shapes);
            let at = e7(lat + y, lon + x);
            let mut found = vec![Candidate { segment: 9, offset_mm: 9, distance_mm: 9, bearing: Bearing::from_degrees(1.0).unwrap(), off_mm: (0, 0) }];
            n.candidates(at, radius_mm, &mut found);

            let keys: Vec<_> = found.iter().map(|c| (c.distance_mm, c.bearing, c.segment)).collect();
            prop_assert!(keys.is_sorted());
            // Roundings of the scale may move a distance by a mm: segments at the very edge may differ.
            let expected = brute_force(&n, at, radius_mm);
            for &(distance, segment, _) in &expected {
                let c = found.iter().find(|c| c.segment == segment);
                prop_assert!(c.map_or(distance + 1 >= radius_mm, |c| c.distance_mm.abs_diff(distance) <= 1),
                    "segment {segment} at {distance}: {c:?}");
            }
            for c in &found {
                prop_assert!(c.distance_mm <= radius_mm);
                prop_assert!(c.distance_mm + 1 >= radius_mm || expected.iter().any(|e| e.1 == c.segment));
                // The place that the offset names is the place that was measured.
                prop_assert!(c.offset_mm <= n.segment(c.segment).length_mm);
                let there = n.position_at(c.segment, c.offset_mm);
                prop_assert!((n.distance_mm(at, there) - f64::from(c.distance_mm)).abs() < 25.0);
                // At a shape point the nearest place has two bearings: that of either piece.
                let near = [c.offset_mm, c.offset_mm.saturating_sub(2), c.offset_mm + 2]
                    .iter().any(|&o| n.bearing_at(c.segment, o) == c.bearing);
                prop_assert!(near, "{c:?}");
            }
            let segments: std::collections::BTreeSet<_> = found.iter().map(|c| c.segment).collect();
            prop_assert_eq!(segments.len(), found.len());
        }
    }

    proptest! {
        #[test]
        fn the_grid_answers_as_the_tree(
            lat in -700_000_000..700_000_000,
            shapes in prop::collection::vec(shape(), 1..30),
            (x, y) in (-90_000i64..90_000, -90_000i64..90_000),
            (w, h) in (0i64..20_000, 0i64..20_000),
        ) {
            let n = roads(lat, 0, &shapes);
            let (low, high) = ([x, i64::from(lat) + y], [x + w, i64::from(lat) + y + h]);
            let (mut by_tree, mut by_grid) = (Vec::new(), Vec::new());
            n.index.visit(low, high, |l| by_tree.push(l.point));
            n.grid.visit(low, high, |l| by_grid.push(l.point));
            for point in &by_tree {
                // The tree goes by bounding boxes; a piece may pass by the box all the same.
                let (a, b) = (n.parts().positions[*point as usize], n.parts().positions[*point as usize + 1]);
                let inside = (0..=200).any(|k| {
                    let f = f64::from(k) / 200.0;
                    let at = |a: i32, b: i32| (f64::from(a) + f64::from(b - a) * f) as i64;
                    let p = [at(a.lon_e7(), b.lon_e7()), at(a.lat_e7(), b.lat_e7())];
                    (0..2).all(|d| low[d] <= p[d] && p[d] <= high[d])
                });
                prop_assert!(!inside || by_grid.contains(point), "{point}");
            }
        }
    }

    #[test]
    fn both_directions_of_a_road_come_by_bearing() {
        let (n, _) = drawn::build(&drawn::draw("A...B", &["AB"]));
        let at = Position::from_degrees(0.0001, 0.0005).unwrap();
        let mut out = Vec::new();
        n.candidates(at, 20_000, &mut out);
        let (ab, ba) = (drawn::seg(&n, 1, 'A', 'B'), drawn::seg(&n, 1, 'B', 'A'));
        assert_eq!(out.iter().map(|c| c.segment).collect::<Vec<_>>(), [ab, ba]);
        assert_eq!(out[0].distance_mm, out[1].distance_mm);
        assert!(out[0].distance_mm.abs_diff(11_057) <= 1, "{out:?}");
        assert_eq!(out[0].bearing.degrees(), 90.0);
        assert_eq!(out[0].offset_mm + out[1].offset_mm, n.segment(ab).length_mm);
        n.candidates(at, 11_000, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn of_a_hairpin_the_leg_that_leads_where_one_goes() {
        // East, ten metres north, and back to the west.
        let n = roads(0, 0, &[vec![(0, 0), (20_000, 0), (20_000, 900), (0, 900)]]);
        // Nearer to the second leg.
        let at = e7(600, 10_000);
        let (east, west) = (Bearing::from_degrees(80.0), Bearing::from_degrees(280.0));
        let mut out = Vec::new();
        let mut place = |heading| {
            n.candidates_towards(at, heading, 30_000, &mut out);
            let c = out.iter().find(|c| c.segment == 0).unwrap();
            (c.bearing.degrees(), c.offset_mm < 200_000)
        };
        assert_eq!(place(None), (270.0, false));
        assert_eq!(place(west), (270.0, false));
        assert_eq!(place(east), (90.0, true));
    }

    #[test]
    fn lengths_are_those_of_the_ellipsoid() {
        let (n, _) = drawn::build(&drawn::draw("A.B", &["AB"]));
        // 0.01 degrees at 49.4° N, 8.7° E; Vincenty's formulae: 1112.176 m north, 725.841 m east.
        let p = |lat, lon| Position::from_degrees(lat, lon).unwrap();
        assert!((n.distance_mm(p(49.4, 8.7), p(49.41, 8.7)) - 1112176.0).abs() < 5.0);
        assert!((n.distance_mm(p(49.4, 8.7), p(49.4, 8.71)) - 725841.0).abs() < 5.0);
    }
}
