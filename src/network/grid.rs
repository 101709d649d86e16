//! Shape pieces by cells of a flat grid: what the hot path asks instead of the tree.
//!
//! A question of a few dozen metres touches few cells, whose pieces stand side by side in memory. Wider ones go to
//! the tree; both give the same answer.

use super::index::Leaf;

/// Least edge of a cell, in 1e-7 degrees of latitude: 60 m, so that most questions touch nine cells.
const CELL_E7: i64 = 5_400;
/// Most cells for each piece: what a country would need at 60 m is not worth its memory.
const CELLS_PER_PIECE: i64 = 4;
/// Cells of a question beyond which the tree is asked: it leaves out what is empty.
const CELLS_AT_ONCE: i64 = 256;

/// The pieces that touch each cell, cell by cell, row by row from the south-west.
#[derive(Debug)]
pub(super) struct Grid {
    origin: [i64; 2],
    cell: [i64; 2],
    size: [i64; 2],
    /// Where each cell's pieces begin, and their end.
    offsets: Vec<u32>,
    pieces: Vec<Leaf>,
}

impl Grid {
    /// `stretch` is how many degrees of longitude are as long as one of latitude, at least 1.
    pub(super) fn new(leaves: &[Leaf], stretch: f64) -> Self {
        let ends = || leaves.iter().flat_map(|l| [l.a, l.b]);
        let low = [0, 1].map(|d| ends().map(|p| i64::from(p[d])).min().unwrap_or(0));
        let high = [0, 1].map(|d| ends().map(|p| i64::from(p[d])).max().unwrap_or(0));
        let mut cell = [(CELL_E7 as f64 * stretch.clamp(1.0, 1_000.0)) as i64, CELL_E7];
        let size_of = |cell: [i64; 2]| [0, 1].map(|d| (high[d] - low[d]) / cell[d] + 1);
        while size_of(cell).iter().product::<i64>() > CELLS_PER_PIECE * leaves.len() as i64 + 1024 {
            cell = cell.map(|c| c * 2);
        }
        let mut grid = Self {
            origin: low,
            cell,
            size: size_of(cell),
            offsets: Vec::new(),
            pieces: Vec::new(),
        };
        // Count, sum up, fill: pieces keep their order within a cell.
        let mut counts = vec![0_u32; grid.size.iter().product::<i64>() as usize + 1];
        for leaf in leaves {
            grid.cells_of(leaf, |c| counts[c + 1] += 1);
        }
        for i in 1..counts.len() {
            counts[i] += counts[i - 1];
        }
        let mut next = counts.clone();
        if let Some(&first) = leaves.first() {
            let mut pieces = vec![first; counts[counts.len() - 1] as usize];
            for leaf in leaves {
                grid.cells_of(leaf, |c| {
                    pieces[next[c] as usize] = *leaf;
                    next[c] += 1;
                });
            }
            grid.pieces = pieces;
        }
        grid.offsets = counts;
        grid
    }

    /// Column or row of a coordinate, held within the grid.
    fn index(&self, d: usize, value: i64) -> i64 {
        ((value - self.origin[d]).div_euclid(self.cell[d])).clamp(0, self.size[d] - 1)
    }

    /// Calls `visit` with every cell that a piece touches.
    fn cells_of(&self, leaf: &Leaf, mut visit: impl FnMut(usize)) {
        let (a, b) = if leaf.a[0] <= leaf.b[0] {
            (leaf.a, leaf.b)
        } else {
            (leaf.b, leaf.a)
        };
        let (a, b) = (a.map(i64::from), b.map(i64::from));
        for column in self.index(0, a[0])..=self.index(0, b[0]) {
            // The part of the piece in this column; a unit more on either side covers the rounding.
            let west = self.origin[0] + column * self.cell[0];
            let at = |x: i64| {
                let span = (b[0] - a[0]).max(1);
                a[1] + ((i128::from(b[1] - a[1]) * i128::from(x.clamp(a[0], b[0]) - a[0])) / i128::from(span))
                    as i64
            };
            let (from, to) = if a[0] == b[0] {
                (a[1], b[1])
            } else {
                (at(west), at(west + self.cell[0]))
            };
            let rows = self.index(1, from.min(to) - 1)..=self.index(1, from.max(to) + 1);
            for row in rows {
                visit((row * self.size[0] + column) as usize);
            }
        }
    }

    /// Whether the box `low..=high` is small enough that looking into its cells is quick.
    pub(super) fn suits(&self, low: [i64; 2], high: [i64; 2]) -> bool {
        let cells = |d: usize| self.index(d, high[d]) - self.index(d, low[d]) + 1;
        cells(0) * cells(1) <= CELLS_AT_ONCE
    }

    /// Calls `visit` with every piece that touches the box `low..=high` (`[lon, lat]`), some more near it, and
    /// some of them more than once.
    pub(super) fn visit(&self, low: [i64; 2], high: [i64; 2], mut visit: impl FnMut(&Leaf)) {
        for row in self.index(1, low[1])..=self.index(1, high[1]) {
            let first = (row * self.size[0] + self.index(0, low[0])) as usize;
            let last = (row * self.size[0] + self.index(0, high[0])) as usize;
            let range = self.offsets[first] as usize..self.offsets[last + 1] as usize;
            self.pieces[range].iter().for_each(&mut visit);
        }
    }
}
