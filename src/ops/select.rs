//! The greatest elements of rows.

use super::rows::{Grid, ITEM_ELEMENTS, executor};
use crate::context::Context;
use crate::error::{Error, Result, equal, product};
use crate::fp_mode;
use crate::tiles::for_each_tile_pair;
use crate::view::{MatMut, MatRef};

/// Elements that are looked at together, without an exit in between, which the compiler vectorises.
const CHUNK: usize = 64;

/// The `k` greatest elements of each row, the greatest first, with their places.
///
/// - **Shapes**: `x`: (rows, n); `indices`, `values`: (rows, k) without gaps; k is at most n.
/// - **Order**: of equal elements the one with the lower index comes first; 0 and -0 are equal. NaN comes
///   after all numbers, -inf included, so that it is only chosen where numbers are short.
/// - **Errors**: `Shape`; `Option` for a transposed `x`; nothing is changed then.
/// - **Cost**: one comparison an element, and `log2 k` for each that is among the greatest so far; allocates
///   nothing.
pub fn top_k(ctx: &Context, x: MatRef<'_>, k: usize, indices: &mut [u32], values: &mut [f32]) -> Result<()> {
    let _mode = fp_mode::default_mode();
    if k > x.cols() {
        return Err(Error::Shape { what: "k", got: k, relation: "must be at most x.cols =", want: x.cols() });
    }
    x.require_plain("x", "plain: operations go row by row")?;
    let shape = (x.rows(), x.cols(), k);
    check_choice(shape, "must equal x.rows * k =", indices.len(), values.len())?;
    for_each_choice(ctx, shape, indices, values, &|i, best| {
        let Some(x) = x.row(i) else { return };
        for (chunk, start) in x.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
            let least = best.least();
            if least.is_nan() || chunk.iter().fold(false, |any, &x| any | (x > least)) {
                for (index, &x) in (start..).zip(chunk) {
                    best.offer(index, x);
                }
            }
        }
        best.sort();
    })
}

/// Checks the lengths of the outputs for the choice of `k` of `n` in each of some rows.
pub(super) fn check_choice(
    (rows, n, k): (usize, usize, usize),
    relation: &'static str,
    indices: usize,
    values: usize,
) -> Result<()> {
    let len = product("rows * k", &[rows, k])?;
    equal("indices.len", indices, relation, len)?;
    equal("values.len", values, relation, len)?;
    let most = u32::MAX as usize;
    if n > most {
        return Err(Error::Shape { what: "x.cols", got: n, relation: "must be at most", want: most });
    }
    Ok(())
}

/// Has `f` make the choice in each row, once [`check_choice`] was asked.
pub(super) fn for_each_choice(
    ctx: &Context,
    (rows, n, k): (usize, usize, usize),
    indices: &mut [u32],
    values: &mut [f32],
    f: &(dyn Fn(usize, &mut Best<'_>) + Sync),
) -> Result<()> {
    let indices = MatMut::dense(indices, rows, k)?;
    // The loop over tiles takes outputs of one type: the bits of f32 are u32.
    let values = MatMut::dense(bytemuck::cast_slice_mut(values), rows, k)?;
    let grid = Grid { tile_rows: (ITEM_ELEMENTS / n.max(1)).max(1), tile_cols: k.max(1) };
    let executor = executor(ctx, rows.saturating_mul(n));
    for_each_tile_pair(executor, indices, values, grid, k, &mut [], 0, &|_, at, mut indices, mut values| {
        for i in 0..indices.rows() {
            f(at.row + i, &mut Best::new(indices.row(i), bytemuck::cast_slice_mut(values.row(i))));
        }
    });
    Ok(())
}

/// The best elements so far: a heap in the two rows of the output, whose root is the worst of them.
pub(super) struct Best<'a> {
    pub indices: &'a mut [u32],
    pub values: &'a mut [f32],
    len: usize,
}

/// Greater for a better element: by value, NaN being less than everything, then by the lower index.
fn rank(index: u32, value: f32) -> u64 {
    let bits = (value + 0.0).to_bits(); // -0 becomes 0
    let key = match bits >> 31 {
        _ if value.is_nan() => 0,
        0 => bits | 1 << 31,
        _ => !bits,
    };
    u64::from(key) << 32 | u64::from(!index)
}

impl<'a> Best<'a> {
    /// None yet, of at most as many as there are places.
    pub fn new(indices: &'a mut [u32], values: &'a mut [f32]) -> Best<'a> {
        Best { indices, values, len: 0 }
    }

    fn rank(&self, i: usize) -> u64 {
        rank(self.indices[i], self.values[i])
    }

    /// A value that an element has to exceed to be among the best; NaN, which all exceed, while there is
    /// room.
    fn least(&self) -> f32 {
        if self.len < self.values.len() { f32::NAN } else { self.values[0] }
    }

    /// Takes an element in if it is among the best so far. At least one place is there.
    pub fn offer(&mut self, index: u32, value: f32) {
        if self.len < self.values.len() {
            (self.indices[self.len], self.values[self.len]) = (index, value);
            self.len += 1;
            if self.len == self.values.len() {
                (0..self.len / 2).rev().for_each(|i| self.sift_down(i, self.len));
            }
        } else if rank(index, value) > self.rank(0) {
            (self.indices[0], self.values[0]) = (index, value);
            self.sift_down(0, self.len);
        }
    }

    /// Sorts them, the best first. All places have to be taken.
    pub fn sort(&mut self) {
        (0..self.len / 2).rev().for_each(|i| self.sift_down(i, self.len));
        for end in (1..self.len).rev() {
            self.swap(0, end); // the worst of the rest
            self.sift_down(0, end);
        }
    }

    fn swap(&mut self, i: usize, j: usize) {
        self.indices.swap(i, j);
        self.values.swap(i, j);
    }

    /// Moves element `i` of the first `len` down until both below it are better.
    fn sift_down(&mut self, mut i: usize, len: usize) {
        while 2 * i + 1 < len {
            let left = 2 * i + 1;
            let right_is_worse = left + 1 < len && self.rank(left + 1) < self.rank(left);
            let worse = left + usize::from(right_is_worse);
            if self.rank(worse) >= self.rank(i) {
                return;
            }
            self.swap(i, worse);
            i = worse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_values_and_then_places() {
        let better = [
            (7, f32::INFINITY),
            (7, 1.0),
            (3, f32::from_bits(1)),
            (1, -0.0),
            (2, 0.0),
            (0, -1.0),
            (9, f32::NEG_INFINITY),
            (0, f32::NAN),
            (1, -f32::NAN),
        ];
        for pair in better.windows(2) {
            assert!(rank(pair[0].0, pair[0].1) > rank(pair[1].0, pair[1].1), "{pair:?}");
        }
    }
}
