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
