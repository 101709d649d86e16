//! Which segments lie within r metres of here.

/// The spatial index over the shape pieces of all segments.
#[derive(Debug)]
pub struct SpatialIndex;
