//! Loops over heads: columns of an output that belong to each, and the states of sequences beside an output.

use super::cut::{Grid, Origin, Shared};
use super::items::run_items;
use crate::buffer::Arena;
use crate::parallel::Executor;
use crate::view::MatMut;

/// Sequences of which no two are the same, each with as many rows of the output.
#[derive(Clone, Copy)]
pub(crate) struct Distinct<'a>(&'a [usize]);

impl<'a> Distinct<'a> {
    /// The position of the first one that came before, if there is one. `seen` has room for each sequence,
    /// holds false, and does so again afterwards.
    pub fn new(sequences: &'a [usize], seen: &mut [bool]) -> std::result::Result<Distinct<'a>, usize> {
        let twice = sequences.iter().position(|&s| std::mem::replace(&mut seen[s], true));
        for &s in sequences {
            seen[s] = false;
        }
        twice.map_or(Ok(Distinct(sequences)), Err)
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.len()
    }
}

/// The states of heads: `(sequences, heads, parts, part_len)`, and what of the output a part belongs to.
#[derive(Clone, Copy)]
pub(crate) struct States<'a> {
    pub sequences: Distinct<'a>,
    pub heads: usize,
    /// Columns of the output that belong to a head.
    pub cols: usize,
    /// Columns of the output that belong to a part (to the last one, perhaps fewer).
    pub part_cols: usize,
    pub part_len: usize,
    /// Parts of a work item.
    pub item_parts: usize,
}

/// One work item.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateItem {
    /// The first row of the output.
    pub row: usize,
    pub head: usize,
    /// The first column of the output, counted from the head's.
    pub col: usize,
}

/// Heads side by side in the columns of an output.
#[derive(Clone, Copy)]
pub(crate) struct HeadColumns {
    pub heads: usize,
    /// Columns from one head to the next, at least `cols`.
    pub stride: usize,
    /// Columns of a head.
    pub cols: usize,
}

/// Runs `body` once for each tile of each head of `out`, with scratch memory of `worker_bytes`: `body` is
/// told which head, and where the tile starts in it. Columns between heads are left alone.
#[allow(clippy::type_complexity)] // the body of `for_each_tile`, and which head
pub(crate) fn for_each_head_tile(
    executor: &Executor,
    out: MatMut<'_>,
    columns: HeadColumns,
    grid: Grid,
    scratch: &mut [u8],
    worker_bytes: usize,
    body: &(dyn Fn(Arena<'_>, usize, Origin, MatMut<'_>) + Sync),
) {
    let HeadColumns { heads, stride, cols } = columns;
    if heads == 0 || cols == 0 || out.rows() == 0 {
        return;
    }
    assert!(stride >= cols && (heads - 1) * stride + cols <= out.cols(), "heads leave the output");
    let blocks = grid.blocks(out.rows(), cols);
    let shared = Shared::new(out, grid);
    run_items(executor, heads * blocks.count(), scratch, worker_bytes, |arena, item| {
        let (head, item) = (item / blocks.count(), item % blocks.count());
        let at =
            Origin { row: item % blocks.rows * grid.tile_rows, col: item / blocks.rows * grid.tile_cols };
        let (rows, width) = (grid.tile_rows, grid.tile_cols.min(cols - at.col));
        let start = Origin { row: at.row, col: head * stride + at.col };
        // SAFETY: each item runs once. Heads were seen not to overlap, and tiles of one head are disjoint.
        body(arena, head, at, unsafe { shared.part(start, rows, width) });
    });
}

struct Outputs<'a> {
    out: MatMut<'a>,
    states: *mut f32,
}

// SAFETY: both are only used to form parts, and whoever forms one promises that no other one overlaps it.
unsafe impl Sync for Outputs<'_> {}

/// Runs `body` once for each part of the heads of each sequence: the part of the output `(rows, columns)`,
/// and that of the states.
pub(crate) fn for_each_state(
    executor: &Executor,
    out: MatMut<'_>,
    states: &mut [f32],
    s: States<'_>,
    body: &(dyn Fn(StateItem, MatMut<'_>, &mut [f32]) + Sync),
) {
    let parts = s.cols.div_ceil(s.part_cols);
    let blocks = parts.div_ceil(s.item_parts);
    let sequence_len = s.heads * parts * s.part_len;
    let most = s.sequences.0.iter().max().map_or(0, |s| s + 1);
    assert!(states.len() >= most * sequence_len && out.cols() == s.heads * s.cols);
    if s.sequences.len() == 0 || out.rows() == 0 {
        return;
    }
    let rows = out.rows() / s.sequences.len();
    let outputs = Outputs { out, states: states.as_mut_ptr() };
    let outputs = &outputs;
    run_items(executor, s.sequences.len() * s.heads * blocks, &mut [], 0, |_, item| {
        let (slot, head, block) = (item / blocks / s.heads, item / blocks % s.heads, item % blocks);
        let first = block * s.item_parts;
        let count = s.item_parts.min(parts - first);
        let col = first * s.part_cols;
        let cols = (count * s.part_cols).min(s.cols - col);
        let start = s.sequences.0[slot] * sequence_len + (head * parts + first) * s.part_len;
        // SAFETY: each item runs once. Items of one sequence differ in head or block, which lie apart in both
        // outputs; those of others in their rows, and in their states, as no sequence comes twice. The states
        // were seen to reach beyond the last sequence.
        let (out, state) = unsafe {
            (
                outputs.out.tile_unchecked(slot * rows, head * s.cols + col, rows, cols),
                std::slice::from_raw_parts_mut(outputs.states.add(start), count * s.part_len),
            )
        };
        body(StateItem { row: slot * rows, head, col }, out, state);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_every_head_is_visited_once() {
        for workers in [1, 2, 3] {
            let executor = Executor::threads(workers).unwrap();
            let sequences = [4, 0, 2];
            let (heads, cols, part_cols, part_len, rows) = (2, 11, 4, 5, 3);
            let mut states = vec![0.0f32; 5 * heads * 3 * part_len];
            let mut out = vec![0.0f32; 3 * rows * heads * cols];
            for item_parts in [1, 2, 3, 4] {
                states.fill(0.0);
                out.fill(0.0);
                let mut seen = [false; 5];
                let sequences = Distinct::new(&sequences, &mut seen).unwrap();
                assert_eq!(seen, [false; 5]);
                let s = States { sequences, heads, cols, part_cols, part_len, item_parts };
                let y = MatMut::dense(&mut out, 3 * rows, heads * cols).unwrap();
                for_each_state(&executor, y, &mut states, s, &|at, mut y, state| {
                    assert_eq!(y.cols().div_ceil(part_cols) * part_len, state.len());
                    state.iter_mut().for_each(|x| *x += (1 + at.row) as f32);
                    for i in 0..y.rows() {
                        y.row(i).iter_mut().enumerate().for_each(|(j, x)| {
                            *x += ((at.row + i) * 100 + at.head * cols + at.col + j) as f32;
                        });
                    }
                });
                for (i, x) in out.iter().enumerate() {
                    assert_eq!(*x, (i / (heads * cols) * 100 + i % (heads * cols)) as f32);
                }
                let per = heads * 3 * part_len;
                let want = [4.0, 0.0, 7.0, 0.0, 1.0];
                assert!(states.iter().enumerate().all(|(i, &x)| x == want[i / per]));
            }
        }
    }

    #[test]
    fn every_tile_of_every_head_is_visited_once() {
        for workers in [1, 2, 3] {
            let executor = Executor::threads(workers).unwrap();
            let (rows, heads, stride, cols) = (7, 3, 12, 9);
            let mut out = vec![0.0f32; rows * 35];
            let mut scratch = vec![0u8; 64 * workers];
            let grid = Grid { tile_rows: 3, tile_cols: 4 };
            let c = MatMut::dense(&mut out, rows, 35).unwrap();
            let columns = HeadColumns { heads, stride, cols };
            for_each_head_tile(&executor, c, columns, grid, &mut scratch, 64, &|_, head, at, mut c| {
                for i in 0..c.rows() {
                    for (j, x) in c.row(i).iter_mut().enumerate() {
                        *x += (1000 * (head + 1) + (at.row + i) * cols + at.col + j) as f32;
                    }
                }
            });
            for (i, x) in out.into_iter().enumerate() {
                let (row, head, col) = (i / 35, i % 35 / stride, i % 35 % stride);
                let inside = head < heads && col < cols;
                let want = if inside { 1000 * (head + 1) + row * cols + col } else { 0 };
                assert_eq!(x, want as f32, "{i}");
            }
        }
    }

    #[test]
    fn a_sequence_that_comes_twice_is_found() {
        let mut seen = [false; 4];
        assert_eq!(Distinct::new(&[3, 1, 3, 1], &mut seen).err(), Some(2));
        assert_eq!(seen, [false; 4]);
        assert!(Distinct::new(&[], &mut seen).is_ok());
    }
}
