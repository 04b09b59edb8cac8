//! Where attention reads keys and values: one chunk of one kv head at a time, as operands of the tiles.

use super::cache::Stored;
use super::plain::Plain;
use super::{CHUNK, KvCache};
use crate::error::{Result, product};
use crate::kernels::{BLOCK, Elements, KernelSet, KeyCodes, LANES, Operand, Panel, ValueCodes};
use crate::view::MatMut;
use std::ops::Range;

/// Query rows of a work item from which on a chunk that is not f32 is widened once for all of them: 128 KiB
/// of keys and as much of values for a head of 128, in L2. Widening costs as much as one row of products.
const PANEL_ROWS: usize = 16;

/// Where the keys and values of a call come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The library's own cache, in the order of the tiles, and a sequence of it.
    Cache(&'a KvCache, usize),
    /// The caller's own rows.
    Plain(Plain<'a>),
}

/// The sequences of a call.
#[derive(Clone, Copy)]
pub(super) enum Streams<'a> {
    Cache(&'a KvCache, &'a [usize]),
    Plain(Plain<'a>),
}

impl<'a> Streams<'a> {
    pub fn count(&self) -> usize {
        match self {
            Streams::Cache(_, sequences) => sequences.len(),
            Streams::Plain(_) => 1,
        }
    }

    /// The `slot`th sequence.
    pub fn source(&self, slot: usize) -> Source<'a> {
        match self {
            Streams::Cache(cache, sequences) => {
                Source::Cache(cache, sequences.get(slot).copied().unwrap_or(usize::MAX))
            }
            Streams::Plain(plain) => Source::Plain(*plain),
        }
    }

    /// Keys of the longest sequence.
    pub fn longest(&self) -> usize {
        (0..self.count()).map(|slot| self.source(slot).len()).max().unwrap_or(0)
    }
}

impl Source<'_> {
    pub fn kv_heads(&self) -> usize {
        match self {
            Source::Cache(cache, _) => cache.options().kv_heads,
            Source::Plain(plain) => plain.kv_heads(),
        }
    }

    /// Head sizes of keys and of values.
    pub fn dims(&self) -> (usize, usize) {
        match self {
            Source::Cache(cache, _) => (cache.options().head_dim, cache.options().value_dim),
            Source::Plain(plain) => (plain.key_dim(), plain.value_dim()),
        }
    }

    /// The position after the last key.
    pub fn len(&self) -> usize {
        match self {
            Source::Cache(cache, sequence) => cache.len_of(*sequence),
            Source::Plain(plain) => plain.len(),
        }
    }

    /// The most keys that a call may see.
    pub fn most_keys(&self) -> usize {
        match self {
            Source::Cache(cache, _) => cache.options().capacity,
            Source::Plain(plain) => plain.len(),
        }
    }

    /// The most sequences that a call may be about.
    pub fn most_sequences(&self) -> usize {
        match self {
            Source::Cache(cache, _) => cache.options().sequences,
            Source::Plain(_) => 1,
        }
    }

    /// Elements of scratch that a lane needs besides its rows, for work items of `rows` query rows.
    pub fn panel_len(&self, rows: usize) -> Result<usize> {
        match self {
            Source::Cache(cache, _) => {
                let o = cache.options();
                let keys = if o.keys.bits() < 32 && rows >= PANEL_ROWS { o.head_dim } else { 0 };
                let values =
                    if o.values.bits() < 32 && rows >= PANEL_ROWS { cache.value_stride() } else { 0 };
                let scales = if o.values.is_quantized() { cache.value_blocks() } else { 0 };
                product("panel", &[CHUNK, keys + values + scales])
            }
            Source::Plain(plain) => plain.panel_len(),
        }
    }

    /// The keys `keys` (counted from the chunk's start) and their values, ready for strips of a work item of
    /// `rows` query rows. `panel` is scratch of [`Source::panel_len`] elements.
    pub fn chunk<'s>(
        &'s self,
        kernels: &KernelSet,
        head: usize,
        chunk: usize,
        keys: Range<usize>,
        rows: usize,
        panel: &'s mut [f32],
    ) -> Chunk<'s> {
        match self {
            Source::Cache(cache, sequence) => {
                let (stored_keys, stored_values) = cache.chunk(*sequence, chunk, head);
                let (key_dim, value_stride) = (cache.options().head_dim, cache.value_stride());
                let at = Place { kernels, keys, widen: rows >= PANEL_ROWS };
                let (keys, panel) = at.keys(stored_keys, key_dim, panel);
                let values = at.values(stored_values, value_stride, panel);
                Chunk { key_dim, keys, values, value_stride }
            }
            Source::Plain(plain) => plain.chunk(head, chunk, keys, panel),
        }
    }
}

/// What of a chunk is needed, and in which form.
struct Place<'a> {
    kernels: &'a KernelSet,
    /// Keys that some row sees.
    keys: Range<usize>,
    /// Whether numbers are widened to f32 once.
    widen: bool,
}

impl Place<'_> {
    /// The keys, in part of the panel or where they are, and the rest of the panel.
    fn keys<'s>(&self, stored: Stored<'s>, dim: usize, panel: &'s mut [f32]) -> (Keys<'s>, &'s mut [f32]) {
        match stored {
            Stored::Plain(Elements::F32(x)) => return (Keys::Plain(Elements::F32(x)), panel),
            Stored::Plain(elements) if !self.widen => return (Keys::Plain(elements), panel),
            Stored::Codes(bits, codes, scales) if !self.widen => {
                return (Keys::Codes(KeyCodes { bits, dim, codes, scales }), panel);
            }
            _ => {}
        }
        let (wide, rest) = panel.split_at_mut(CHUNK * dim);
        let (first, end) = (self.keys.start / LANES, self.keys.end.div_ceil(LANES));
        let tiles = first * LANES * dim..end * LANES * dim;
        match stored {
            Stored::Plain(elements) => self.kernels.widen(elements.slice(tiles.clone()), &mut wide[tiles]),
            Stored::Codes(bits, codes, scales) => {
                self.kernels.widen_keys(KeyCodes { bits, dim, codes, scales }, first, &mut wide[tiles]);
            }
        }
        (Keys::Plain(Elements::F32(wide)), rest)
    }

    /// The values, in part of the panel or where they are.
    fn values<'s>(&self, stored: Stored<'s>, stride: usize, panel: &'s mut [f32]) -> Values<'s> {
        let rows = self.keys.start * stride..self.keys.end * stride;
        match stored {
            Stored::Plain(Elements::F32(x)) => Values::Plain(Elements::F32(x)),
            Stored::Plain(elements) if !self.widen => Values::Plain(elements),
            Stored::Plain(elements) => {
                let wide = &mut panel[..CHUNK * stride];
                self.kernels.widen(elements.slice(rows.clone()), &mut wide[rows]);
                Values::Plain(Elements::F32(wide))
            }
            Stored::Codes(bits, codes, scales) => {
                let blocks = stride / BLOCK;
                let (wide_scales, panel) = panel.split_at_mut(CHUNK * blocks);
                self.kernels.widen(Elements::F16(scales), wide_scales);
                let codes = ValueCodes { bits, codes, blocks, scales: wide_scales, scales_stride: CHUNK };
                if !self.widen {
                    return Values::Codes(codes);
                }
                let wide = &mut panel[..CHUNK * stride];
                self.kernels.widen_values(codes, self.keys.start, &mut wide[rows]);
                Values::Plain(Elements::F32(wide))
            }
        }
    }
}

/// Keys of a chunk: `(CHUNK / 16, dim, 16)`.
enum Keys<'a> {
    Plain(Elements<'a>),
    Codes(KeyCodes<'a>),
}

/// Values of a chunk: `(CHUNK, value_stride)`.
enum Values<'a> {
    Plain(Elements<'a>),
    Codes(ValueCodes<'a>),
}

/// Keys and values of one chunk of one kv head.
pub(super) struct Chunk<'a> {
    key_dim: usize,
    keys: Keys<'a>,
    values: Values<'a>,
    value_stride: usize,
}

/// Parts of `rows` rows, as even as possible, none longer than `most`.
fn parts(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = rows.div_ceil(rows.div_ceil(most));
    (0..rows).step_by(step).map(move |row| (row, step.min(rows - row)))
}

/// The rows of an operand from `row` on.
fn below(x: Operand<'_>, row: usize) -> Operand<'_> {
    Operand { data: &x.data[row * x.row_stride..], ..x }
}

impl<'a> Chunk<'a> {
    /// A chunk of f32: `keys` in tiles, `values` in rows.
    pub fn plain(key_dim: usize, keys: &'a [f32], values: &'a [f32], value_stride: usize) -> Chunk<'a> {
        let (keys, values) = (Keys::Plain(Elements::F32(keys)), Values::Plain(Elements::F32(values)));
        Chunk { key_dim, keys, values, value_stride }
    }

    /// `scores[i][key] = q[i] . k[key]` for the tiles of 16 keys that cover `keys`; `scores`: (rows, CHUNK).
    pub fn scores(&self, kernels: &KernelSet, q: Operand<'_>, keys: Range<usize>, mut scores: MatMut<'_>) {
        let dim = self.key_dim;
        let (first, end) = (keys.start / LANES * LANES, keys.end.next_multiple_of(LANES).min(CHUNK));
        match &self.keys {
            Keys::Plain(elements) => {
                let rows = scores.rows();
                let width = kernels.nv(rows) * LANES;
                for key in (first..end).step_by(width) {
                    let data = elements.from(key * dim);
                    let k_stride = LANES * data.step();
                    let k = Panel { data, k_stride, vec_stride: dim * LANES };
                    kernels.gemm(dim, q, k, scores.tile(0, key, rows, width.min(end - key)), false);
                }
            }
            Keys::Codes(codes) => {
                for (row, rows) in parts(scores.rows(), kernels.code_rows().0) {
                    let width = kernels.key_tiles(rows) * LANES;
                    for key in (first..end).step_by(width) {
                        let tile = scores.tile(row, key, rows, width.min(end - key));
                        kernels.key_codes(below(q, row), *codes, key / LANES, tile);
                    }
                }
            }
        }
    }

    /// `sums[i] += p[i] . V[keys]` for keys ascending; element (i, 0) of `p` belongs to key `keys.start`;
    /// `sums`: (rows, value_dim).
    pub fn values(&self, kernels: &KernelSet, p: Operand<'_>, keys: Range<usize>, mut sums: MatMut<'_>) {
        let (dim, stride) = (sums.cols(), self.value_stride);
        match &self.values {
            Values::Plain(elements) => {
                let rows = sums.rows();
                let width = kernels.nv(rows) * LANES;
                for d in (0..dim).step_by(width) {
                    let data = elements.from(keys.start * stride + d);
                    let v = Panel { data, k_stride: stride, vec_stride: LANES };
                    kernels.gemm(keys.len(), p, v, sums.tile(0, d, rows, width), true);
                }
            }
            Values::Codes(codes) => {
                for (row, rows) in parts(sums.rows(), kernels.code_rows().1) {
                    let blocks = kernels.value_blocks(rows);
                    for block in (0..dim.div_ceil(BLOCK)).step_by(blocks) {
                        let tile = sums.tile(row, block * BLOCK, rows, blocks * BLOCK);
                        kernels.value_codes(keys.len(), below(p, row), *codes, keys.start, block, tile);
                    }
                }
            }
        }
    }
}
