//! Where attention reads keys and values: one chunk of one kv head at a time, as operands of the tiles.

use super::cache::Stored;
use super::chunk::{Chunk, Keys, Next, Stream, Values};
use super::fast::Fast;
use super::plain::Plain;
use super::{CHUNK, KvCache, KvType};
use crate::error::{Result, product};
use crate::kernels::{BLOCK, Elements, KernelSet, KeyCodes, LANES, ValueCodes};
use crate::matmul::Precision;
use std::cell::Cell;
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
    pub fn panel_len(&self, rows: usize, precision: Precision) -> Result<usize> {
        match self {
            Source::Cache(cache, _) => {
                let o = cache.options();
                let fast = precision == Precision::Fast;
                let widens = |kind: KvType| kind.bits() < 32 && (fast || rows >= PANEL_ROWS);
                let keys = if widens(o.keys) { o.head_dim + 1 } else { 0 };
                let values = if widens(o.values) { cache.value_stride() } else { 0 };
                let scales = if o.values.is_quantized() { cache.value_blocks() } else { 0 };
                let wide = product("panel", &[CHUNK, keys + values + scales])?;
                Ok(wide + if fast { Fast::len(o.head_dim, cache.value_stride()) } else { 0 })
            }
            Source::Plain(plain) => plain.panel_len(),
        }
    }

    /// The keys `keys` (counted from the chunk's start) and their values, ready for strips of a work item of
    /// `rows` query rows. `panel` is scratch of [`Source::panel_len`] elements.
    pub fn chunk<'s>(
        &'s self,
        kernels: &KernelSet,
        (head, chunk): (usize, usize),
        keys: Range<usize>,
        rows: usize,
        precision: Precision,
        panel: &'s mut [f32],
    ) -> Chunk<'s> {
        match self {
            Source::Cache(cache, sequence) => {
                let (stored_keys, stored_values) = cache.chunk(*sequence, chunk, head);
                let (key_dim, value_stride) = (cache.options().head_dim, cache.value_stride());
                let fast = precision == Precision::Fast && kernels.has_bf16_fast();
                let pairs = if fast { Fast::len(key_dim, value_stride) } else { 0 };
                let (panel, pairs) = panel.split_at_mut(panel.len() - pairs);
                let seen = keys.clone();
                let at = Place { kernels, keys, widen: fast || rows >= PANEL_ROWS };
                let (keys, panel) = at.keys(stored_keys, key_dim, panel);
                let values = at.values(stored_values, value_stride, panel);
                let [following, key_scales, value_scales] =
                    if at.widen { [&[][..]; 3] } else { cache.following(*sequence, chunk, head) };
                let (key_bytes, value_bytes) = (stored_keys.bytes(), stored_values.bytes());
                let stream = (!at.widen).then_some(Stream { value_bytes, key_bytes, next: following });
                let in_place = cache.options().keys == KvType::F32 || !at.widen;
                let key_stride = if in_place { key_dim * LANES } else { padded(key_dim) };
                let fast = match (&keys, &values) {
                    (Keys::Plain(Elements::F32(k)), Values::Plain(Elements::F32(v))) if fast => {
                        Some(Fast::new(kernels, (k, key_dim, key_stride), (v, value_stride), &seen, pairs))
                    }
                    _ => None,
                };
                // Each strip has about 4 tiles of scores and 2 of values.
                let tiles = rows.div_ceil(kernels.mr()) * 6;
                let (bytes, then) = match at.widen {
                    true => (cache.next_part(*sequence, chunk, head), &[][..]),
                    false => (key_scales, value_scales),
                };
                let share = ((bytes.len() + then.len()) / tiles).next_multiple_of(64);
                let next = Next { bytes: Cell::new(bytes), then: Cell::new(then), share };
                Chunk { key_dim, keys, key_stride, values, value_stride, stream, fast, next }
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

/// Elements from one widened tile of keys to the next: one vector more than the keys take, or the streams of a
/// product tile would lie a power of two apart and share the sets of the first-level cache.
fn padded(dim: usize) -> usize {
    (dim + 1) * LANES
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
