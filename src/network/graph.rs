//! The road network in memory: flat arrays, their derived neighbours, and the questions asked of them.

use super::grid::Grid;
use super::index::{Leaf, SpatialIndex};
use super::*;

/// Mean of mm per 1e-7 degree of longitude and of latitude on the WGS-84 ellipsoid, by latitude.
///
/// The radii of curvature (N·cos φ and M) are tabulated every 0.1 degree and interpolated linearly: the error is
/// below 1e-6 of a distance, and no trigonometry is left on the hot path.
#[derive(Debug)]
pub(super) struct Scale {
    table: Vec<[f64; 2]>,
}

impl Scale {
    const STEP_E7: i32 = 1_000_000;

    fn new() -> Self {
        // Semi-major axis in mm and squared eccentricity of WGS-84.
        const A: f64 = 6_378_137_000.0;
        const E2: f64 = 0.006_694_379_990_141_316;
        let per_unit = std::f64::consts::PI / 180.0 / 1e7;
        let table = (-900..=900)
            .map(|tenth: i32| {
                let phi = f64::from(tenth) / 10.0 * (std::f64::consts::PI / 180.0);
                let s = libm::sin(phi);
                let w2 = 1.0 - E2 * s * s;
                let w = libm::sqrt(w2);
                [
                    A / w * libm::cos(phi).max(1e-9) * per_unit,
                    A * (1.0 - E2) / (w * w2) * per_unit,
                ]
            })
            .collect();
        Self { table }
    }

    /// (east, north) mm per 1e-7 degree at a latitude in 1e-7 degrees.
    fn at(&self, lat_e7: i32) -> (f64, f64) {
        let from_pole = lat_e7 + 900_000_000;
        let i = (from_pole / Self::STEP_E7).clamp(0, 1799);
        let f = f64::from(from_pole - i * Self::STEP_E7) / f64::from(Self::STEP_E7);
        let (low, high) = (self.table[i as usize], self.table[i as usize + 1]);
        (low[0] + (high[0] - low[0]) * f, low[1] + (high[1] - low[1]) * f)
    }

    /// East and north of `b` as seen from `a`, in mm, in the plane that touches half way.
    fn offset(&self, a: Position, b: Position) -> (f64, f64) {
        let mid = ((i64::from(a.lat_e7()) + i64::from(b.lat_e7())) / 2) as i32;
        let (kx, ky) = self.at(mid);
        (
            (f64::from(b.lon_e7()) - f64::from(a.lon_e7())) * kx,
            (f64::from(b.lat_e7()) - f64::from(a.lat_e7())) * ky,
        )
    }

    /// Length of a short piece in mm.
    pub(super) fn length(&self, a: Position, b: Position) -> f64 {
        let (x, y) = self.offset(a, b);
        libm::sqrt(x * x + y * y)
    }

    fn bearing(&self, a: Position, b: Position) -> Bearing {
        let (x, y) = self.offset(a, b);
        Bearing::from_degrees(libm::atan2(x, y).to_degrees()).unwrap_or_else(north)
    }
}

fn north() -> Bearing {
    Bearing::from_degrees(0.0).expect("0 is finite")
}

impl Default for Scale {
    fn default() -> Self {
        Self::new()
    }
}

/// What the map file holds; everything else is derived from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parts {
    /// Segments by index, in order of their first node, then key.
    pub(super) segments: Vec<Segment>,
    /// Node positions by index.
    pub(super) nodes: Vec<Position>,
    /// Shape of each segment; a segment with the flag `BACKWARD` runs through it from its end.
    pub(super) segment_shape: Vec<u32>,
    /// First point of each shape in the arrays below, and their end.
    pub(super) shape_offsets: Vec<u32>,
    /// Points of all shapes.
    pub(super) positions: Vec<Position>,
    /// OSM nodes of all shapes.
    pub(super) osm_nodes: Vec<i64>,
    /// Name of each segment, `u32::MAX` for none.
    pub(super) segment_name: Vec<u32>,
    /// Names, sorted.
    pub(super) names: Vec<String>,
    /// Links by index.
    pub(super) links: Vec<Link>,
    /// Banned turns, sorted.
    pub(super) bans: Vec<(SegmentIndex, SegmentIndex)>,
    /// Banned sequences of three and more segments, sorted.
    pub(super) via_bans: Vec<Vec<SegmentIndex>>,
}

/// No name, no segment.
pub(super) const NONE: u32 = u32::MAX;

/// What a search reads of a segment, close together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot {
    pub(super) length_mm: u32,
    /// Successors are the segments `first..end` (segments are ordered by their first node).
    pub(super) first: u32,
    pub(super) end: u32,
    pub(super) twin: u32,
    /// A banned turn or sequence begins or ends its last turn here.
    pub(super) has_ban: bool,
}

/// The road network.
#[derive(Debug)]
pub struct Network {
    version: String,
    parts: Parts,
    hot: Vec<Hot>,
    /// 0, 1, 2 …: the backing of the slices that `successors` returns.
    identity: Vec<SegmentIndex>,
    node_in: Vec<u32>,
    incoming: Vec<SegmentIndex>,
    /// Distance of each shape point from its shape's beginning in mm.
    cumulative: Vec<u32>,
    /// Bearing of the piece that begins at each shape point, in the shape's order and against it.
    bearings: Vec<[Bearing; 2]>,
    /// Segments that run through each shape in its order and against it.
    shape_segments: Vec<[u32; 2]>,
    by_key: Vec<SegmentIndex>,
    via_by_turn: Vec<(SegmentIndex, SegmentIndex, u32)>,
    bounds: (Position, Position),
    scale: Scale,
    pub(super) index: SpatialIndex,
    pub(super) grid: Grid,
}

/// Distances of shape points from the first, in mm: rounded sums, never falling, the last at least 1.
pub(super) fn cumulative_mm(scale: &Scale, points: &[Position]) -> Vec<u32> {
    let mut sum = 0.0;
    let mut out: Vec<u32> = Vec::with_capacity(points.len());
    out.push(0);
    for pair in points.windows(2) {
        sum += scale.length(pair[0], pair[1]);
        out.push(sum.round() as u32);
    }
    if let Some(last) = out.last_mut() {
        *last = (*last).max(1);
    }
    out
}

impl Network {
    /// Derives everything from the stored parts, whose indices must be in range ([`file`] checks what it reads).
    pub(super) fn from_parts(parts: Parts, version: String) -> Self {
        let n = parts.segments.len();
        let scale = Scale::new();

        // Segments are sorted by first node, so the successors of a segment are a range of indices.
        let mut node_out = vec![0u32; parts.nodes.len() + 1];
        let mut node_in = vec![0u32; parts.nodes.len() + 1];
        for s in &parts.segments {
            node_out[s.from as usize + 1] += 1;
            node_in[s.to as usize + 1] += 1;
        }
        for i in 1..node_out.len() {
            node_out[i] += node_out[i - 1];
            node_in[i] += node_in[i - 1];
        }
        let mut fill = node_in.clone();
        let mut incoming = vec![0; n];
        for (i, s) in parts.segments.iter().enumerate() {
            let at = &mut fill[s.to as usize];
            incoming[*at as usize] = i as u32;
            *at += 1;
        }

        let mut cumulative = Vec::with_capacity(parts.positions.len());
        let mut bearings = Vec::with_capacity(parts.positions.len());
        let mut leaves = Vec::with_capacity(parts.positions.len());
        for (shape, range) in parts.shape_offsets.windows(2).enumerate() {
            let points = &parts.positions[range[0] as usize..range[1] as usize];
            cumulative.extend(cumulative_mm(&scale, points));
            for (i, p) in points.windows(2).enumerate() {
                bearings.push([scale.bearing(p[0], p[1]), scale.bearing(p[1], p[0])]);
                leaves.push(Leaf {
                    a: [p[0].lon_e7(), p[0].lat_e7()],
                    b: [p[1].lon_e7(), p[1].lat_e7()],
                    shape: shape as u32,
                    point: range[0] + i as u32,
                });
            }
            // The last point begins no piece; it keeps the arrays parallel.
            bearings.push(bearings.last().copied().unwrap_or([north(), north()]));
        }

        let mut shape_segments = vec![[NONE; 2]; parts.shape_offsets.len().saturating_sub(1)];
        for (i, s) in parts.segments.iter().enumerate() {
            let side = usize::from(s.flags.has(SegmentFlags::BACKWARD));
            shape_segments[parts.segment_shape[i] as usize][side] = i as u32;
        }
        let mut by_key: Vec<u32> = (0..n as u32).collect();
        by_key.sort_unstable_by_key(|&i| parts.segments[i as usize].key);

        let hot: Vec<Hot> = parts
            .segments
            .iter()
            .map(|s| Hot {
                length_mm: s.length_mm,
                first: node_out[s.to as usize],
                end: node_out[s.to as usize + 1],
                twin: s.twin.unwrap_or(NONE),
                has_ban: false,
            })
            .collect();
        let zero = Position::from_degrees(0.0, 0.0).expect("0, 0 is a position");
        let all = parts.positions.iter();
        let bounds = match (
            all.clone().map(|p| p.lat_e7()).min(),
            all.clone().map(|p| p.lon_e7()).min(),
            all.clone().map(|p| p.lat_e7()).max(),
            all.clone().map(|p| p.lon_e7()).max(),
        ) {
            (Some(south), Some(west), Some(north), Some(east)) => (e7(south, west), e7(north, east)),
            _ => (zero, zero),
        };
        let (east, north) =
            scale.at(((i64::from(bounds.0.lat_e7()) + i64::from(bounds.1.lat_e7())) / 2) as i32);
        let stretch = north / east;
        Self {
            version,
            hot,
            identity: (0..n as u32).collect(),
            node_in,
            incoming,
            cumulative,
            bearings,
            shape_segments,
            by_key,
            via_by_turn: Vec::new(),
            bounds,
            scale,
            grid: Grid::new(&leaves, stretch),
            index: SpatialIndex::new(leaves),
            parts,
        }
        .indexing_turns()
    }

    fn indexing_turns(mut self) -> Self {
        self.via_by_turn = self
            .parts
            .via_bans
            .iter()
            .enumerate()
            .filter_map(|(i, b)| match b[..] {
                [.., from, to] => Some((from, to, i as u32)),
                _ => None,
            })
            .collect();
        self.via_by_turn.sort_unstable();
        for h in &mut self.hot {
            h.has_ban = false;
        }
        for &(from, ..) in &self.parts.bans {
            self.hot[from as usize].has_ban = true;
        }
        for &(from, ..) in &self.via_by_turn {
            self.hot[from as usize].has_ban = true;
        }
        self
    }

    /// This network with other banned turns and sequences, both sorted. Its version is no longer right.
    pub(super) fn with_turns(
        mut self,
        bans: Vec<(SegmentIndex, SegmentIndex)>,
        via_bans: Vec<Vec<SegmentIndex>>,
    ) -> Self {
        (self.parts.bans, self.parts.via_bans) = (bans, via_bans);
        self.indexing_turns()
    }

    /// This network with its links, every segment in one, and its version.
    pub(super) fn with_links(mut self, links: Vec<Link>) -> Self {
        for (i, link) in links.iter().enumerate() {
            for &s in &link.segments {
                self.parts.segments[s as usize].link = i as LinkIndex;
            }
        }
        self.parts.links = links;
        self.version = file::version_of(&self.parts);
        self
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(super) fn hot(&self) -> &[Hot] {
        &self.hot
    }

    /// Banned sequences whose last turn is `from` → `to`, each with its segments in order of travel.
    pub(super) fn via_bans(
        &self,
        from: SegmentIndex,
        to: SegmentIndex,
    ) -> impl Iterator<Item = &[SegmentIndex]> {
        let begin = self.via_by_turn.partition_point(|&(f, t, _)| (f, t) < (from, to));
        self.via_by_turn[begin..]
            .iter()
            .take_while(move |&&(f, t, _)| (f, t) == (from, to))
            .map(|&(.., i)| self.parts.via_bans[i as usize].as_slice())
    }

    /// 16 hex digits of BLAKE3 over the content.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All segments, by index.
    pub fn segments(&self) -> &[Segment] {
        &self.parts.segments
    }

    /// One segment.
    ///
    /// # Panics
    /// If the index is not of this map; so do all questions below that take an index.
    pub fn segment(&self, i: SegmentIndex) -> &Segment {
        &self.parts.segments[i as usize]
    }

    /// The segment of a stable key.
    pub fn find(&self, key: SegmentKey) -> Option<SegmentIndex> {
        self.by_key
            .binary_search_by_key(&key, |&i| self.segment(i).key)
            .ok()
            .map(|at| self.by_key[at])
    }

    /// All segments of an OSM way, in order of their keys.
    pub fn segments_of_way(&self, way: i64) -> &[SegmentIndex] {
        let begin = self.by_key.partition_point(|&i| self.segment(i).key.way < way);
        let end = self.by_key.partition_point(|&i| self.segment(i).key.way <= way);
        &self.by_key[begin..end]
    }

    /// Segments that begin where this one ends, in order of index (its twin included).
    pub fn successors(&self, i: SegmentIndex) -> &[SegmentIndex] {
        let h = &self.hot[i as usize];
        &self.identity[h.first as usize..h.end as usize]
    }

    /// Segments that end where this one begins, in order of index (its twin included).
    pub fn predecessors(&self, i: SegmentIndex) -> &[SegmentIndex] {
        let node = self.segment(i).from as usize;
        &self.incoming[self.node_in[node] as usize..self.node_in[node + 1] as usize]
    }

    /// Whether the turn is banned by a restriction at a node (or leads through a barrier that stops cars).
    pub fn turn_banned(&self, from: SegmentIndex, to: SegmentIndex) -> bool {
        self.hot[from as usize].has_ban && self.parts.bans.binary_search(&(from, to)).is_ok()
    }

    /// Whether going on from `driven` (segments in order of travel) to `to` ends a banned sequence over via ways.
    pub fn sequence_banned(&self, driven: &[SegmentIndex], to: SegmentIndex) -> bool {
        driven.last().is_some_and(|&from| {
            self.hot[from as usize].has_ban
                && self
                    .via_bans(from, to)
                    .any(|ban| driven.ends_with(&ban[..ban.len() - 1]))
        })
    }

    /// Street name, if any (the road's number where it has no name).
    pub fn name(&self, i: SegmentIndex) -> Option<&str> {
        self.parts
            .names
            .get(self.parts.segment_name[i as usize] as usize)
            .map(String::as_str)
    }

    fn shape_range(&self, i: SegmentIndex) -> std::ops::Range<usize> {
        let shape = self.parts.segment_shape[i as usize] as usize;
        self.parts.shape_offsets[shape] as usize..self.parts.shape_offsets[shape + 1] as usize
    }

    fn backward(&self, i: SegmentIndex) -> bool {
        self.segment(i).flags.has(SegmentFlags::BACKWARD)
    }

    /// Shape in order of travel, at least two positions.
    pub fn geometry(&self, i: SegmentIndex) -> Vec<Position> {
        let mut points = self.parts.positions[self.shape_range(i)].to_vec();
        if self.backward(i) {
            points.reverse();
        }
        points
    }

    /// Position at an offset in mm from the beginning; offsets beyond the end give the end.
    pub fn position_at(&self, i: SegmentIndex, offset_mm: u32) -> Position {
        let range = self.shape_range(i);
        let cumulative = &self.cumulative[range.clone()];
        let points = &self.parts.positions[range];
        let length = self.segment(i).length_mm;
        let along = offset_mm.min(length);
        let along = if self.backward(i) { length - along } else { along };
        let k = cumulative
            .partition_point(|&c| c <= along)
            .clamp(1, points.len() - 1);
        let (c0, c1) = (cumulative[k - 1], cumulative[k]);
        let f = if c1 > c0 {
            f64::from(along - c0) / f64::from(c1 - c0)
        } else {
            0.0
        };
        let between = |a: i32, b: i32| (f64::from(a) + (f64::from(b) - f64::from(a)) * f).round() as i32;
        let (a, b) = (points[k - 1], points[k]);
        e7(between(a.lat_e7(), b.lat_e7()), between(a.lon_e7(), b.lon_e7()))
    }

    /// Shape between two offsets in mm from the beginning (`from_mm <= to_mm`), in order of travel: both ends and the
    /// shape points between them.
    pub fn stretch(&self, i: SegmentIndex, from_mm: u32, to_mm: u32) -> Vec<Position> {
        let range = self.shape_range(i);
        let (back, length) = (self.backward(i), self.segment(i).length_mm);
        let mut points: Vec<(u32, Position)> = range
            .map(|k| {
                let along = self.cumulative[k];
                (if back { length - along } else { along }, self.parts.positions[k])
            })
            .filter(|(along, _)| from_mm < *along && *along < to_mm)
            .collect();
        if back {
            points.reverse();
        }
        let mut stretch = vec![self.position_at(i, from_mm)];
        stretch.extend(points.into_iter().map(|(_, p)| p));
        stretch.push(self.position_at(i, to_mm));
        stretch
    }

    /// Direction of travel at an offset in mm from the beginning; at a shape point, of the piece after it.
    pub fn bearing_at(&self, i: SegmentIndex, offset_mm: u32) -> Bearing {
        let range = self.shape_range(i);
        let cumulative = &self.cumulative[range.clone()];
        let last_piece = cumulative.len() - 2;
        if self.backward(i) {
            let along = self.segment(i).length_mm - offset_mm.min(self.segment(i).length_mm);
            let k = cumulative
                .partition_point(|&c| c < along)
                .saturating_sub(1)
                .min(last_piece);
            self.bearings[range.start + k][1]
        } else {
            let k = cumulative
                .partition_point(|&c| c <= offset_mm)
                .saturating_sub(1)
                .min(last_piece);
            self.bearings[range.start + k][0]
        }
    }

    /// OSM node ids along the segment in order of travel.
    pub fn osm_nodes(&self, i: SegmentIndex) -> Vec<i64> {
        let mut nodes = self.parts.osm_nodes[self.shape_range(i)].to_vec();
        if self.backward(i) {
            nodes.reverse();
        }
        nodes
    }

    /// All links, by index.
    pub fn links(&self) -> &[Link] {
        &self.parts.links
    }

    /// Stable name of a link: the key of its first segment.
    pub fn link_key(&self, link: LinkIndex) -> SegmentKey {
        self.segment(self.parts.links[link as usize].segments[0]).key
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.parts.nodes.len()
    }

    /// Position of a node.
    pub fn node_position(&self, node: NodeIndex) -> Position {
        self.parts.nodes[node as usize]
    }

    /// (south-west, north-east) corners of all shapes; both 0, 0 for an empty map.
    pub fn bounds(&self) -> (Position, Position) {
        self.bounds
    }

    /// The spatial index behind [`Network::candidates`].
    pub fn index(&self) -> &SpatialIndex {
        &self.index
    }

    /// All segments within `radius_mm` of a position: one candidate each (its nearest place), ordered by
    /// distance, then bearing, then index. `out` is cleared first; nothing else is allocated.
    ///
    /// Distances are those of the plane that touches the ellipsoid at the position (error below 1e-4 up to
    /// several kilometres). A map across the 180th meridian is not joined there.
    pub fn candidates(&self, at: Position, radius_mm: u32, out: &mut Vec<Candidate>) {
        self.candidates_towards(at, None, radius_mm, out);
    }

    /// As [`Network::candidates`], but of a segment that passes twice, as in a hairpin, the place is the nearest of
    /// those that lead less than 90 degrees off `heading`, if there are any.
    pub fn candidates_towards(
        &self,
        at: Position,
        heading: Option<Bearing>,
        radius_mm: u32,
        out: &mut Vec<Candidate>,
    ) {
        out.clear();
        let (kx, ky) = self.scale.at(at.lat_e7());
        let radius = f64::from(radius_mm) + 1.0;
        let (lon, lat) = (f64::from(at.lon_e7()), f64::from(at.lat_e7()));
        let (dx, dy) = ((radius / kx) as i64 + 1, (radius / ky) as i64 + 1);
        let (x, y) = (i64::from(at.lon_e7()), i64::from(at.lat_e7()));
        let beyond = radius * radius;
        let (low, high) = ([x - dx, y - dy], [x + dx, y + dy]);
        let look_at = |leaf: &Leaf| {
            let (ax, ay) = (
                (f64::from(leaf.a[0]) - lon) * kx,
                (f64::from(leaf.a[1]) - lat) * ky,
            );
            let (bx, by) = (
                (f64::from(leaf.b[0]) - lon) * kx,
                (f64::from(leaf.b[1]) - lat) * ky,
            );
            let (vx, vy) = (bx - ax, by - ay);
            let square = vx * vx + vy * vy;
            let f = if square > 0.0 {
                (-(ax * vx + ay * vy) / square).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let (px, py) = (ax + vx * f, ay + vy * f);
            let square = px * px + py * py;
            if square > beyond {
                return;
            }
            let distance = square.sqrt().round();
            if distance > f64::from(radius_mm) {
                return;
            }
            let point = leaf.point as usize;
            let (c0, c1) = (self.cumulative[point], self.cumulative[point + 1]);
            let along = c0 + (f64::from(c1 - c0) * f).round() as u32;
            for (side, &segment) in self.shape_segments[leaf.shape as usize].iter().enumerate() {
                if segment == NONE {
                    continue;
                }
                let length = self.hot[segment as usize].length_mm;
                let new = Candidate {
                    segment,
                    offset_mm: if side == 0 { along } else { length - along },
                    distance_mm: distance as u32,
                    bearing: self.bearings[point][side],
                    off_mm: (-px as i32, -py as i32),
                };
                // One place for each segment. Pieces of a segment come one after the other, or nearly.
                match out.iter_mut().rev().find(|c| c.segment == segment) {
                    None => out.push(new),
                    Some(c) => {
                        let against =
                            |c: &Candidate| heading.is_some_and(|h| h.difference(c.bearing) >= 9_000);
                        let key = |c: &Candidate| (against(c), c.distance_mm, c.offset_mm, c.bearing);
                        if key(&new) < key(c) {
                            *c = new;
                        }
                    }
                }
            }
        };
        if self.grid.suits(low, high) {
            self.grid.visit(low, high, look_at);
        } else {
            self.index.visit(low, high, look_at);
        }
        out.sort_unstable_by_key(|c| (c.distance_mm, c.bearing, c.segment));
    }

    /// Distance in mm from a position to a segment that goes on straight at both ends.
    pub fn lateral_mm(&self, i: SegmentIndex, at: Position) -> f64 {
        let (kx, ky) = self.scale.at(at.lat_e7());
        let (lon, lat) = (f64::from(at.lon_e7()), f64::from(at.lat_e7()));
        let range = self.shape_range(i);
        let place = |p: Position| {
            (
                (f64::from(p.lon_e7()) - lon) * kx,
                (f64::from(p.lat_e7()) - lat) * ky,
            )
        };
        let mut best = f64::INFINITY;
        for k in range.start..range.end - 1 {
            let (a, b) = (place(self.parts.positions[k]), place(self.parts.positions[k + 1]));
            let v = (b.0 - a.0, b.1 - a.1);
            let square = v.0 * v.0 + v.1 * v.1;
            let mut f = if square > 0.0 {
                -(a.0 * v.0 + a.1 * v.1) / square
            } else {
                0.0
            };
            if k != range.start {
                f = f.max(0.0);
            }
            if k + 2 != range.end {
                f = f.min(1.0);
            }
            let p = (a.0 + v.0 * f, a.1 + v.1 * f);
            best = best.min(p.0 * p.0 + p.1 * p.1);
        }
        libm::sqrt(best)
    }

    /// The place of a segment between two offsets in mm (`low <= high`) that is nearest to a position: its offset,
    /// and its distance in mm.
    pub fn project_on(&self, i: SegmentIndex, at: Position, low_mm: u32, high_mm: u32) -> (u32, f64) {
        let (kx, ky) = self.scale.at(at.lat_e7());
        let (lon, lat) = (f64::from(at.lon_e7()), f64::from(at.lat_e7()));
        let range = self.shape_range(i);
        let length = self.segment(i).length_mm;
        let back = self.backward(i);
        let (low, high) = (low_mm.min(length), high_mm.min(length));
        let (low, high) = if back {
            (length - high, length - low)
        } else {
            (low, high)
        };
        let mut best = (low, f64::INFINITY);
        let place = |p: Position| {
            (
                (f64::from(p.lon_e7()) - lon) * kx,
                (f64::from(p.lat_e7()) - lat) * ky,
            )
        };
        for k in range.start..range.end - 1 {
            let (c0, c1) = (self.cumulative[k], self.cumulative[k + 1]);
            if c1 < low || c0 > high {
                continue;
            }
            let (a, b) = (place(self.parts.positions[k]), place(self.parts.positions[k + 1]));
            let v = (b.0 - a.0, b.1 - a.1);
            let square = v.0 * v.0 + v.1 * v.1;
            let span = f64::from(c1 - c0).max(1.0);
            let (f0, f1) = (
                f64::from(low.saturating_sub(c0)) / span,
                f64::from(high.min(c1) - c0) / span,
            );
            let f = if square > 0.0 {
                (-(a.0 * v.0 + a.1 * v.1) / square).clamp(f0, f1.max(f0))
            } else {
                f0
            };
            let p = (a.0 + v.0 * f, a.1 + v.1 * f);
            let d = libm::sqrt(p.0 * p.0 + p.1 * p.1);
            if d < best.1 {
                best = (c0 + (f64::from(c1 - c0) * f).round() as u32, d);
            }
        }
        (if back { length - best.0 } else { best.0 }, best.1)
    }

    /// Planar position in mm from the map's origin (east, north): local equirectangular projection.
    ///
    /// The origin is the middle of [`Network::bounds`] and the scale that of its latitude: 0.1 % is reached
    /// 6 km north or south of it at 50 degrees of latitude, so it suits drawing and short differences, not lengths
    /// over a country.
    pub fn project(&self, p: Position) -> (f64, f64) {
        let (sw, ne) = self.bounds;
        let lat0 = ((i64::from(sw.lat_e7()) + i64::from(ne.lat_e7())) / 2) as i32;
        let lon0 = (i64::from(sw.lon_e7()) + i64::from(ne.lon_e7())) / 2;
        let (kx, ky) = self.scale.at(lat0);
        (
            (i64::from(p.lon_e7()) - lon0) as f64 * kx,
            (f64::from(p.lat_e7()) - f64::from(lat0)) * ky,
        )
    }

    /// Distance of two positions in mm in the plane that touches half way between them: for short distances as
    /// good as a geodesic, and the measure of all segment lengths.
    pub fn distance_mm(&self, a: Position, b: Position) -> f64 {
        self.scale.length(a, b)
    }
}

/// A position from 1e-7 degrees that came from positions and is in range therefore.
pub(super) fn e7(lat: i32, lon: i32) -> Position {
    Position::from_degrees(f64::from(lat) / 1e7, f64::from(lon) / 1e7).expect("between positions in range")
}
