//! Keys and values of a cache, as operands of the tiles: read in place, or widened once for many query rows.
//! The values of a latent cache are copied out of its keys, chunk by chunk: a copy is one transposition of
//! 16 x 16 elements in registers where a query row takes 2 x 16 x 16 multiply-adds with them, about 2 % for
//! the 128 query heads that such a cache serves.

use super::cache::{KvCache, KvType, Stored};
use super::chunk::{Chunk, Keys, Values};
use super::fast::{F32Chunk, Fast};
use super::key_values::{ChunkAt, Dims, Extent, KeyValues};
use super::options::CHUNK;
use super::prefetch::{ChunkBytes, Queue};
use crate::error::{Result, product};
use crate::kernels::{BLOCK, Elements, KernelSet, KeyCodes, LANES, ValueCodes};
use crate::matmul::Precision;
use std::ops::Range;

/// Query rows of a work item from which on a chunk that is not f32 is widened once for all of them: 128 KiB
/// of keys and as much of values for a head of 128, in L2. Widening costs as much as one row of products.
const PANEL_ROWS: usize = 16;

/// Sequences of a cache: what a call reads keys and values from. Row `s * n + i` of queries and outputs is
/// query i of sequence `sequences[s]`, where n is q.rows divided by their number (1 when decoding).
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    cache: &'a KvCache,
    sequences: &'a [usize],
}

impl<'a> Sequences<'a> {
    /// Some sequences of a cache, in any order.
    pub fn new(cache: &'a KvCache, sequences: &'a [usize]) -> Sequences<'a> {
        Sequences { cache, sequences }
    }
}

/// Sequence 0.
impl<'a> From<&'a KvCache> for Sequences<'a> {
    fn from(cache: &'a KvCache) -> Sequences<'a> {
        Sequences { cache, sequences: &[0] }
    }
}

impl KeyValues for Sequences<'_> {
    fn dims(&self) -> Dims {
        let options = self.cache.options();
        Dims { kv_heads: options.kv_heads, key_dim: options.head_dim, value_dim: options.value_dim }
    }

    fn sequences(&self) -> usize {
        self.sequences.len()
    }

    fn extent(&self, slot: usize) -> Result<Extent> {
        let (options, sequence) = (self.cache.options(), self.sequences[slot]);
        self.cache.check_sequence(sequence)?;
        Ok(Extent {
            len: self.cache.len_of(sequence),
            start: self.cache.start_of(sequence),
            window: options.window,
            sinks: options.sinks,
            cached: true,
        })
    }

    fn panel_len(&self, rows: usize, precision: Precision) -> Result<usize> {
        let (o, cache) = (self.cache.options(), self.cache);
        let fast = precision == Precision::Fast;
        let widens = |kind: KvType| kind.bits() < 32 && (fast || o.latent || rows >= PANEL_ROWS);
        let keys = if widens(o.keys) { o.head_dim + 1 } else { 0 };
        let values = if widens(o.values) || o.latent { cache.value_stride() } else { 0 };
        let scales = if o.values.is_quantized() && !o.latent { cache.value_blocks() } else { 0 };
        let wide = product("panel", &[CHUNK, keys + values + scales])?;
        Ok(wide + if fast { Fast::len(o.head_dim, cache.value_stride()) } else { 0 })
    }

    fn chunk<'s>(
        &'s self,
        kernels: &KernelSet,
        at: ChunkAt,
        keys: Range<usize>,
        rows: usize,
        precision: Precision,
        panel: &'s mut [f32],
    ) -> Chunk<'s> {
        let (cache, sequence) = (self.cache, self.sequences[at.slot]);
        let (stored_keys, stored_values) = cache.chunk(sequence, at.chunk, at.kv_head);
        let (key_dim, value_stride) = (cache.options().head_dim, cache.value_stride());
        let fast = precision == Precision::Fast && kernels.has_bf16_fast();
        let pairs = if fast { Fast::len(key_dim, value_stride) } else { 0 };
        let (panel, pairs) = panel.split_at_mut(panel.len() - pairs);
        let seen = keys.clone();
        let all = fast || cache.options().latent || rows >= PANEL_ROWS;
        let widening = Widening { kernels, keys, all };
        let (keys, panel) = widening.keys(stored_keys, key_dim, panel);
        let in_place = cache.options().keys == KvType::F32 || !widening.all;
        let key_stride = if in_place { key_dim * LANES } else { padded(key_dim) };
        let values = match (stored_values, &keys) {
            (Some(stored), _) => widening.values(stored, value_stride, panel),
            (None, Keys::Plain(Elements::F32(keys))) => {
                let dims = (key_dim, cache.options().value_dim);
                Values::Plain(Elements::F32(widening.part_of_keys(
                    (keys, key_stride),
                    dims,
                    value_stride,
                    panel,
                )))
            }
            (None, _) => Values::Plain(Elements::F32(&[])), // all keys were widened
        };

        let fast = match (&keys, &values) {
            (Keys::Plain(Elements::F32(k)), Values::Plain(Elements::F32(v))) if fast => {
                let wide = F32Chunk { keys: k, key_dim, key_stride, values: v, value_stride };
                Some(Fast::new(kernels, wide, &seen, pairs))
            }
            _ => None,
        };

        // Each strip has about 4 tiles of scores and 2 of values.
        let tiles = rows.div_ceil(kernels.mr()) * 6;
        let (stream, queue) = match stored_values {
            Some(stored_values) if !widening.all => {
                let [next_keys, key_scales, value_scales] = cache.following(sequence, at.chunk, at.kv_head);
                let stream =
                    ChunkBytes { keys: stored_keys.bytes(), values: stored_values.bytes(), next_keys };
                (Some(stream), Queue::new(key_scales, value_scales, tiles))
            }
            _ => (None, Queue::new(cache.next_part(sequence, at.chunk, at.kv_head), &[], tiles)),
        };
        Chunk { key_dim, keys, key_stride, values, value_stride, stream, fast, queue }
    }
}

/// What is widened to f32, once for all strips.
struct Widening<'a> {
    kernels: &'a KernelSet,
    /// Keys that some row sees.
    keys: Range<usize>,
    /// Whether keys and values are; without it the scales of values alone.
    all: bool,
}

/// Elements from one widened tile of keys to the next: one vector more than the keys take, or the streams of
/// a product tile would lie a power of two apart and share the sets of the first-level cache.
fn padded(dim: usize) -> usize {
    (dim + 1) * LANES
}

impl Widening<'_> {
    /// The keys, in part of the panel or where they are, and the rest of the panel.
    fn keys<'s>(&self, stored: Stored<'s>, dim: usize, panel: &'s mut [f32]) -> (Keys<'s>, &'s mut [f32]) {
        match stored {
            Stored::Plain(Elements::F32(x)) => return (Keys::Plain(Elements::F32(x)), panel),
            Stored::Plain(elements) if !self.all => return (Keys::Plain(elements), panel),
            Stored::Codes(bits, codes, scales) if !self.all => {
                return (Keys::Codes(KeyCodes { bits, dim, codes, scales }), panel);
            }
            _ => {}
        }
        let (wide, rest) = panel.split_at_mut(CHUNK / LANES * padded(dim));
        let tiles = self.keys.start / LANES..self.keys.end.div_ceil(LANES);
        for (tile, wide) in wide.chunks_exact_mut(padded(dim)).enumerate().take(tiles.end).skip(tiles.start) {
            let wide = &mut wide[..dim * LANES];
            match stored {
                Stored::Plain(elements) => {
                    self.kernels.widen(elements.slice(tile * wide.len()..(tile + 1) * wide.len()), wide);
                }
                Stored::Codes(bits, codes, scales) => {
                    self.kernels.widen_keys(KeyCodes { bits, dim, codes, scales }, tile, wide);
                }
            }
        }
        (Keys::Plain(Elements::F32(wide)), rest)
    }

    /// The values of a latent cache, in part of the panel: `keys` are f32 in tiles `key_stride` apart.
    fn part_of_keys<'s>(
        &self,
        (keys, key_stride): (&[f32], usize),
        (key_dim, value_dim): (usize, usize),
        stride: usize,
        panel: &'s mut [f32],
    ) -> &'s [f32] {
        let out = &mut panel[..CHUNK * stride];
        // Whole vectors, which may take elements of the key behind the value: no product looks at them.
        let whole = if stride <= key_dim { stride } else { value_dim / LANES * LANES };
        for tile in self.keys.start / LANES..self.keys.end.div_ceil(LANES) {
            let from = &keys[tile * key_stride..][..key_dim * LANES];
            let to = &mut out[tile * LANES * stride..(tile + 1) * LANES * stride];
            self.kernels.copy_columns((from, LANES), (whole, LANES), (to, stride));
            for (lane, to) in to.chunks_exact_mut(stride).enumerate() {
                for d in whole..value_dim {
                    to[d] = from[d * LANES + lane];
                }
            }
        }
        out
    }

    /// The values, in part of the panel or where they are.
    fn values<'s>(&self, stored: Stored<'s>, stride: usize, panel: &'s mut [f32]) -> Values<'s> {
        let rows = self.keys.start * stride..self.keys.end * stride;
        match stored {
            Stored::Plain(Elements::F32(x)) => Values::Plain(Elements::F32(x)),
            Stored::Plain(elements) if !self.all => Values::Plain(elements),
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
                if !self.all {
                    return Values::Codes(codes);
                }
                let wide = &mut panel[..CHUNK * stride];
                self.kernels.widen_values(codes, self.keys.start, &mut wide[rows]);
                Values::Plain(Elements::F32(wide))
            }
        }
    }
}
