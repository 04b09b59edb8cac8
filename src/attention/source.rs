//! Where attention reads keys and values: one chunk of one kv head at a time, as operands of the tiles.

use super::{CHUNK, KvCache};
use super::plain::Plain;
use crate::error::Result;
use crate::kernels::{Elements, KernelSet, LANES, Operand, Panel};
use crate::view::MatMut;
use std::ops::Range;

/// Where the keys and values of a call come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The library's own cache, in the order of the tiles.
    Cache(&'a KvCache),
    /// The caller's own rows.
    Plain(Plain<'a>),
}

impl Source<'_> {
    pub fn kv_heads(&self) -> usize {
        match self {
            Source::Cache(cache) => cache.options().kv_heads,
            Source::Plain(plain) => plain.kv_heads(),
        }
    }

    pub fn key_dim(&self) -> usize {
        match self {
            Source::Cache(cache) => cache.options().head_dim,
            Source::Plain(plain) => plain.key_dim(),
        }
    }

    pub fn value_dim(&self) -> usize {
        match self {
            Source::Cache(cache) => cache.options().head_dim,
            Source::Plain(plain) => plain.value_dim(),
        }
    }

    /// The position after the last key.
    pub fn len(&self) -> usize {
        match self {
            Source::Cache(cache) => cache.len(),
            Source::Plain(plain) => plain.len(),
        }
    }

    /// The most keys that a call may see.
    pub fn most_keys(&self) -> usize {
        match self {
            Source::Cache(cache) => cache.options().capacity,
            Source::Plain(plain) => plain.len(),
        }
    }

    /// Elements of scratch that a lane needs besides its rows, for work items of `rows` query rows.
    pub fn panel_len(&self, _rows: usize) -> Result<usize> {
        match self {
            Source::Cache(_) => Ok(0),
            Source::Plain(plain) => plain.panel_len(),
        }
    }

    /// The keys `keys` (counted from the chunk's start) and their values, ready for strips of a work item of
    /// `rows` query rows. `panel` is scratch of [`Source::panel_len`] elements.
    pub fn chunk<'s>(
        &'s self,
        _kernels: &KernelSet,
        head: usize,
        chunk: usize,
        keys: Range<usize>,
        _rows: usize,
        panel: &'s mut [f32],
    ) -> Chunk<'s> {
        match self {
            Source::Cache(cache) => {
                let keys = Elements::F32(cache.key_chunk(head, chunk));
                let values = Elements::F32(cache.value_chunk(head, chunk));
                Chunk { key_dim: cache.options().head_dim, keys, values, value_stride: cache.value_stride() }
            }
            Source::Plain(plain) => plain.chunk(head, chunk, keys, panel),
        }
    }
}

/// Keys and values of one chunk of one kv head.
pub(super) struct Chunk<'a> {
    pub key_dim: usize,
    pub keys: Elements<'a>,   // (CHUNK / 16, key_dim, 16)
    pub values: Elements<'a>, // (CHUNK, value_stride)
    pub value_stride: usize,
}

impl Chunk<'_> {
    /// `scores[i][key] = q[i] . k[key]` for the tiles of 16 keys that cover `keys`; `scores`: (rows, CHUNK).
    pub fn scores(&self, kernels: &KernelSet, q: Operand<'_>, keys: Range<usize>, mut scores: MatMut<'_>) {
        let (dim, rows) = (self.key_dim, scores.rows());
        let width = kernels.nv(rows) * LANES;
        let (first, end) = (keys.start / LANES * LANES, keys.end.next_multiple_of(LANES).min(CHUNK));
        for key in (first..end).step_by(width) {
            let data = self.keys.from(key * dim);
            let k = Panel { data, k_stride: LANES, vec_stride: dim * LANES };
            kernels.gemm(dim, q, k, scores.tile(0, key, rows, width.min(end - key)), false);
        }
    }

    /// `sums[i] += p[i] . V[keys]` for keys ascending; element (i, 0) of `p` belongs to key `keys.start`;
    /// `sums`: (rows, value_dim).
    pub fn values(&self, kernels: &KernelSet, p: Operand<'_>, keys: Range<usize>, mut sums: MatMut<'_>) {
        let (rows, dim, stride) = (sums.rows(), sums.cols(), self.value_stride);
        let width = kernels.nv(rows) * LANES;
        for d in (0..dim).step_by(width) {
            let data = self.values.from(keys.start * stride + d);
            let v = Panel { data, k_stride: stride, vec_stride: LANES };
            kernels.gemm(keys.len(), p, v, sums.tile(0, d, rows, width), true);
        }
    }
}
