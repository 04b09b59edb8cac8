//! Loops over the heads of sequences that keep a state: an output and the states beside it.

use super::items::run_items;
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
    fn a_sequence_that_comes_twice_is_found() {
        let mut seen = [false; 4];
        assert_eq!(Distinct::new(&[3, 1, 3, 1], &mut seen).err(), Some(2));
        assert_eq!(seen, [false; 4]);
        assert!(Distinct::new(&[], &mut seen).is_ok());
    }
}
