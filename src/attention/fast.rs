//! A chunk as operands of bf16 dot products, for `Precision::Fast`.

use super::options::CHUNK;
use super::prefetch::Queue;
use crate::kernels::{Elements, KernelSet, LANES, Operand, Panel};
use crate::view::MatMut;
use std::cell::Cell;
use std::ops::Range;

/// Rows of a strip, at most.
const ROWS: usize = 16;

/// Elements from one tile of keys to the next: one vector of pairs more than they take, for the reason of the
/// widened keys.
fn padded(key_dim: usize) -> usize {
    (key_dim + 2) * LANES
}

/// Keys and values of a chunk, rounded to bf16 and joined in pairs of what is summed over.
pub(super) struct Fast<'a> {
    keys: &'a [u16],                // (CHUNK / 16, key_dim / 2, 16, 2)
    values: &'a [u16],              // (CHUNK / 2, value_stride, 2)
    rows: Cell<&'a mut [[u16; 2]]>, // (ROWS, max(key_dim, CHUNK) / 2): queries or probabilities of a strip
}

/// Keys and values of a chunk in f32.
#[derive(Clone, Copy)]
pub(super) struct F32Chunk<'a> {
    pub keys: &'a [f32], // (CHUNK / 16, key_dim, 16), tiles `key_stride` apart
    pub key_dim: usize,
    pub key_stride: usize,
    pub values: &'a [f32], // (CHUNK, value_stride)
    pub value_stride: usize,
}

impl<'a> Fast<'a> {
    /// Elements of f32 that the pairs and the rounded rows take.
    pub fn len(key_dim: usize, value_stride: usize) -> usize {
        (CHUNK * (key_dim + 2 + value_stride) + ROWS * key_dim.max(CHUNK)) / 2
    }

    /// Rounds the keys `seen` of a chunk and their values.
    pub fn new(kernels: &KernelSet, of: F32Chunk<'_>, seen: &Range<usize>, panel: &'a mut [f32]) -> Fast<'a> {
        let F32Chunk { keys: k, key_dim, key_stride, values: v, value_stride } = of;
        let (keys, rest) = panel.split_at_mut(CHUNK / LANES * padded(key_dim) / 2);
        let (values, rows) = rest.split_at_mut(CHUNK * value_stride / 2);
        let keys: &mut [u16] = bytemuck::cast_slice_mut(keys);
        let values: &mut [u16] = bytemuck::cast_slice_mut(values);
        let (first, end) = (seen.start / LANES, seen.end.div_ceil(LANES));
        let tiles = k.chunks(key_stride).zip(keys.chunks_exact_mut(padded(key_dim)));
        for (k, keys) in tiles.take(end).skip(first) {
            kernels.pack_bf16_pairs(&k[..key_dim * LANES], LANES, &mut keys[..key_dim * LANES]);
        }
        let pairs = seen.start / 2 * 2 * value_stride..seen.end.next_multiple_of(2) * value_stride;
        kernels.pack_bf16_pairs(&v[pairs.clone()], value_stride, &mut values[pairs]);
        Fast { keys, values, rows: Cell::new(bytemuck::cast_slice_mut(rows)) }
    }

    /// Rounds `n` elements of each of `rows` rows, and hands the pairs to `product`.
    fn rounded(
        &self,
        kernels: &KernelSet,
        x: Operand<'_>,
        (rows, n): (usize, usize),
        product: impl FnOnce((&[[u16; 2]], usize)),
    ) {
        let buffer = self.rows.take();
        let stride = n / 2;
        for i in 0..rows {
            let row = &x.data[i * x.row_stride..i * x.row_stride + n];
            kernels.round_to_bf16(row, &mut buffer[i * stride..(i + 1) * stride]);
        }
        product((buffer, stride));
        self.rows.set(buffer);
    }

    /// As [`Chunk::scores`](super::chunk::Chunk::scores).
    pub fn scores(
        &self,
        kernels: &KernelSet,
        dim: usize,
        q: Operand<'_>,
        keys: Range<usize>,
        mut scores: MatMut<'_>,
        queue: &Queue<'_>,
    ) {
        let rows = scores.rows();
        let (first, end) = (keys.start / LANES * LANES, keys.end.next_multiple_of(LANES).min(CHUNK));
        let vectors = kernels.nv(kernels.mr());
        for _ in (first..end).step_by(vectors * LANES) {
            queue.prefetch_share(kernels);
        }
        self.rounded(kernels, q, (rows, dim), |q| {
            let data = Elements::Bf16(&self.keys[first / LANES * padded(dim)..]);
            let k = Panel { data, k_stride: 2 * LANES, vec_stride: padded(dim) };
            kernels.gemm_fast_rows(dim / 2, q, k, scores.tile(0, first, rows, end - first), false);
        });
    }

    /// As [`Chunk::values`](super::chunk::Chunk::values), for whole pairs of keys.
    pub fn values(
        &self,
        kernels: &KernelSet,
        p: Operand<'_>,
        keys: Range<usize>,
        stride: usize,
        mut sums: MatMut<'_>,
        fresh: bool,
    ) {
        let (rows, dim) = (sums.rows(), sums.cols());
        self.rounded(kernels, p, (rows, keys.len()), |p| {
            let data = Elements::Bf16(&self.values[keys.start * stride..]);
            let v = Panel { data, k_stride: 2 * stride, vec_stride: 2 * LANES };
            kernels.gemm_fast_rows(keys.len() / 2, p, v, sums.tile(0, 0, rows, dim), !fresh);
        });
    }
}
