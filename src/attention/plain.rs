//! Keys and values in the caller's own memory, packed into tiles chunk by chunk.

use super::chunk::Chunk;
use super::key_values::{ChunkAt, Dims, Extent, KeyValues};
use super::options::CHUNK;
use crate::error::{Error, Result, equal, product};
use crate::kernels::{KernelSet, LANES};
use crate::matmul::Precision;
use crate::view::MatRef;
use std::ops::Range;

/// Keys and values as plain rows, one token a row, heads side by side. Head sizes of keys and values may
/// differ and may be any number.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    k: MatRef<'a>, // (kv_len, kv_heads * key_dim)
    v: MatRef<'a>, // (kv_len, kv_heads * value_dim)
    kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
}

impl<'a> Plain<'a> {
    /// Keys `k`: (tokens, kv_heads * key_dim) and values `v`: (tokens, kv_heads * value_dim).
    ///
    /// - **Errors**: `Shape` when columns are no multiple of kv_heads or rows differ; `Option` for a
    ///   transposed view.
    pub fn new(k: MatRef<'a>, v: MatRef<'a>, kv_heads: usize) -> Result<Plain<'a>> {
        for (what, cols) in [("k.cols", k.cols()), ("v.cols", v.cols())] {
            if kv_heads == 0 || cols == 0 || !cols.is_multiple_of(kv_heads) {
                let relation = "must be a multiple, at least 1, of kv_heads =";
                return Err(Error::Shape { what, got: cols, relation, want: kv_heads });
            }
        }
        equal("v.rows", v.rows(), "must equal k.rows =", k.rows())?;
        k.require_plain("k or v", "plain: one token a row")?;
        v.require_plain("k or v", "plain: one token a row")?;
        Ok(Plain { k, v, kv_heads, key_dim: k.cols() / kv_heads, value_dim: v.cols() / kv_heads })
    }

    /// Shapes without memory, for a query of the workspace.
    #[cfg(feature = "capi")]
    pub(crate) fn of_shape(
        kv_heads: usize,
        key_dim: usize,
        value_dim: usize,
        tokens: usize,
    ) -> Result<Plain<'a>> {
        let width = |dim| product("kv_heads * head_dim", &[kv_heads, dim]);
        Plain::new(
            MatRef::of_shape(tokens, width(key_dim)?),
            MatRef::of_shape(tokens, width(value_dim)?),
            kv_heads,
        )
    }

    /// Tokens.
    pub(super) fn len(&self) -> usize {
        self.k.rows()
    }

    /// Whether values can be read where they are: whole vectors stay inside the row.
    fn in_place(&self) -> bool {
        self.value_dim.is_multiple_of(LANES)
    }
}

impl KeyValues for Plain<'_> {
    fn dims(&self) -> Dims {
        Dims { kv_heads: self.kv_heads, key_dim: self.key_dim, value_dim: self.value_dim }
    }

    fn sequences(&self) -> usize {
        1
    }

    fn extent(&self, _slot: usize) -> Result<Extent> {
        Ok(Extent { len: self.len(), start: 0, window: None, sinks: 0, cached: false })
    }

    /// The keys of a chunk, and its values where they are not read in place.
    fn panel_len(&self, _rows: usize, _precision: Precision) -> Result<usize> {
        let stride = self.value_dim.checked_next_multiple_of(LANES);
        let stride = stride.ok_or(Error::Overflow { what: "v.cols" })?;
        let copied = if self.in_place() { 0 } else { stride };
        let width = self.key_dim.checked_add(copied).ok_or(Error::Overflow { what: "k.cols + v.cols" })?;
        product("k.cols + v.cols", &[width, CHUNK])
    }

    fn chunk<'s>(
        &'s self,
        _kernels: &KernelSet,
        ChunkAt { kv_head, chunk, .. }: ChunkAt,
        keys: Range<usize>,
        _rows: usize,
        _precision: Precision,
        panel: &'s mut [f32],
    ) -> Chunk<'s> {
        self.chunk_at(kv_head, chunk * CHUNK, keys, panel)
    }
}

impl Plain<'_> {
    /// Packs the keys `keys` of the chunk that starts at row `first`, for the tiles that cover them.
    pub(super) fn chunk_at<'s>(
        &'s self,
        head: usize,
        first: usize,
        keys: Range<usize>,
        panel: &'s mut [f32],
    ) -> Chunk<'s> {
        let dim = self.key_dim;
        let (packed, copied) = panel.split_at_mut(CHUNK * dim);
        for tile in keys.start / LANES..keys.end.div_ceil(LANES) {
            let out = &mut packed[tile * LANES * dim..(tile + 1) * LANES * dim];
            // Tokens beyond the last one, or outside of `keys`, are zeros: their scores are never looked at.
            let rows: [&[f32]; LANES] = std::array::from_fn(|lane| {
                let key = tile * LANES + lane;
                let row = if keys.contains(&key) { self.k.row(first + key) } else { None };
                row.map_or(&[][..], |row| &row[head * dim..(head + 1) * dim])
            });
            transpose(&rows, out);
        }
        let (stride, width) = (self.value_dim.next_multiple_of(LANES), self.value_dim);
        let (values, value_stride) = if self.in_place() {
            (self.v.from(first, head * width), self.v.strides().0)
        } else {
            for key in keys {
                if let Some(row) = self.v.row(first + key) {
                    let row = &row[head * width..(head + 1) * width];
                    copied[key * stride..key * stride + width].copy_from_slice(row);
                }
            }
            (&*copied, stride)
        };
        Chunk::plain(dim, packed, values, value_stride)
    }
}

/// `out[d][lane] = rows[lane][d]`, zeros for an empty row. Blocks of 16 x 16 keep both sides in L1, and the
/// reads of a row in one cache line.
fn transpose(rows: &[&[f32]; LANES], out: &mut [f32]) {
    for (block, out) in out.chunks_mut(LANES * LANES).enumerate() {
        for (lane, row) in rows.iter().enumerate() {
            let row = row.get(block * LANES..).unwrap_or_default();
            if row.is_empty() {
                out.iter_mut().skip(lane).step_by(LANES).for_each(|x| *x = 0.0);
            }
            for (out, &x) in out[lane..].iter_mut().step_by(LANES).zip(row) {
                *out = x;
            }
        }
    }
}
