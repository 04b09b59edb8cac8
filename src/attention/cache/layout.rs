//! Where a token lies: which page, and where inside of it.
//!
//! A page holds 256 tokens, a chunk of attention, of all kv heads. The part of a head:
//! ```text
//! [key codes: 16 tiles of 16 keys, (dim, 16)] [key scales: (tile, block, 16) f16]
//! [value codes: 256 rows, padded]             [value scales: (block, 256) f16]
//! ```
//! bf16 keys lie in pairs of elements, `(dim / 2, 16, 2)`, as `vdpbf16ps` wants them, and 4-bit keys with two
//! elements in a byte. Value rows are padded to 16 elements, and to whole blocks of 32 where they are codes;
//! a byte of 4-bit codes holds elements d and d + 16 of a block. Codes have scales, other types have none. A
//! latent cache has keys alone.

use super::options::{KvCacheOptions, KvType};
use crate::attention::options::CHUNK;
use crate::error::{Error, Result, product};
use crate::kernels::{BLOCK, LANES};
use std::ops::Range;

/// Positions to entries of a sequence's page table: pages of the sinks first, then the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub sink_pages: usize,
    pub ring_pages: usize,
}

impl Geometry {
    pub fn new(options: &KvCacheOptions) -> Geometry {
        Geometry {
            sink_pages: options.sinks.div_ceil(CHUNK),
            ring_pages: options.sliding().div_ceil(CHUNK).max(1),
        }
    }

    pub fn entries(&self) -> usize {
        self.sink_pages + self.ring_pages
    }

    /// The entry of a chunk of positions.
    pub fn entry(&self, chunk: usize) -> usize {
        if chunk < self.sink_pages {
            chunk
        } else {
            self.sink_pages + (chunk - self.sink_pages) % self.ring_pages
        }
    }

    /// The chunks of some positions that have this entry, ascending.
    pub fn chunks_of(&self, entry: usize, positions: &Range<usize>) -> impl Iterator<Item = usize> {
        let end = positions.end.div_ceil(CHUNK);
        let (first, step) = if positions.is_empty() {
            (end, 1)
        } else if entry < self.sink_pages {
            let first = if positions.start / CHUNK <= entry { entry } else { end };
            (first, usize::MAX)
        } else {
            let first = (positions.start / CHUNK).max(self.sink_pages);
            let steps =
                entry - self.sink_pages + self.ring_pages - (first - self.sink_pages) % self.ring_pages;
            (first.saturating_add(steps % self.ring_pages), self.ring_pages)
        };
        (first..end).step_by(step)
    }
}

/// One array of a head's part of a page, seen from a token: `count` units of `unit` bytes, `stride` apart,
/// the first one at `start + slot / tile * tile_bytes + slot % tile * step`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Field {
    pub start: usize,
    pub bytes: usize,
    tile: usize,
    pub tile_bytes: usize,
    step: usize,
    pub unit: usize,
    pub count: usize,
    pub stride: usize,
}

impl Field {
    /// Where the token of a slot begins.
    pub fn at(&self, slot: usize) -> usize {
        self.start + slot / self.tile * self.tile_bytes + slot % self.tile * self.step
    }
}

/// The fields of a head's part, and sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub keys: Field,
    pub key_scales: Field,
    pub values: Field,
    pub value_scales: Field,
    /// Elements of a value row, as stored or as copied from the keys.
    pub value_stride: usize,
    pub head_bytes: usize,
    pub page_bytes: usize,
}

impl Layout {
    pub fn new(options: &KvCacheOptions) -> Result<Layout> {
        let (key_dim, value_dim) = (options.head_dim, options.value_dim);
        // Bounds every product below: a number has at most 4 bytes, scales less than codes.
        for (what, dim) in [("keys", key_dim), ("values", value_dim)] {
            let padded = dim.checked_next_multiple_of(BLOCK).ok_or(Error::Overflow { what })?;
            product(what, &[options.kv_heads, CHUNK, padded, 16])?;
        }
        // Unit: bytes of one number, or of the numbers that lie together.
        let (unit, together) = match options.keys {
            KvType::F32 => (4, 1),
            KvType::F16 => (2, 1),
            KvType::Bf16 => (4, 2),
            KvType::Int8 => (1, 1),
            KvType::Int4 => (1, 2),
        };
        let tiled = |unit: usize, count: usize| Field {
            start: 0,
            bytes: CHUNK * unit * count,
            tile: LANES,
            tile_bytes: LANES * unit * count,
            step: unit,
            unit,
            count,
            stride: LANES * unit,
        };
        let key_blocks = if options.keys.is_quantized() { key_dim.div_ceil(BLOCK) } else { 0 };
        let (mut keys, mut key_scales) = (tiled(unit, key_dim / together), tiled(2, key_blocks));

        // Values of a latent cache are copied out of the keys when they are read, as f32.
        let coded = options.values.is_quantized() && !options.latent;
        let value_stride = value_dim.next_multiple_of(if coded { BLOCK } else { LANES });
        let row = match options.values {
            _ if options.latent => 0,
            KvType::F32 => 4 * value_stride,
            KvType::F16 | KvType::Bf16 => 2 * value_stride,
            KvType::Int8 => value_stride,
            KvType::Int4 => value_stride / 2,
        };
        // A field without units is never walked, but its stride is a divisor.
        let (count, stride) = (usize::from(row > 0), row.max(1));
        let one = Field { tile: 1, unit: row, count, stride, ..Field::default() };
        let mut values = Field { bytes: CHUNK * row, tile_bytes: row, ..one };
        let blocks = if coded { value_stride / BLOCK } else { 0 };
        let scale = Field { tile: CHUNK, step: 2, unit: 2, count: blocks, ..Field::default() };
        let mut value_scales = Field { bytes: CHUNK * 2 * blocks, stride: 2 * CHUNK, ..scale };

        let mut head_bytes = 0;
        for field in [&mut keys, &mut key_scales, &mut values, &mut value_scales] {
            field.start = head_bytes;
            head_bytes += field.bytes;
        }
        let page_bytes = product("page bytes", &[options.kv_heads, head_bytes])?;
        Ok(Layout { keys, key_scales, values, value_scales, value_stride, head_bytes, page_bytes })
    }

    pub fn fields(&self) -> [Field; 4] {
        [self.keys, self.key_scales, self.values, self.value_scales]
    }
}
