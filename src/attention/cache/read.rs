//! Reading a cache: chunks in place for attention, what is likely to be read next, and single tokens.

use super::codec;
use super::kv_cache::KvCache;
use super::layout::{Field, Layout};
use super::options::{KvCacheOptions, KvType, at_most};
use super::pool::NONE;
use crate::attention::options::CHUNK;
use crate::error::{Error, Result, equal};
use crate::fp_mode;
use crate::kernels::{BLOCK, CodeBits, Elements};

impl KvCache {
    /// The key and the value of a position, widened to f32: `k`: (kv_heads * head_dim), `v`: (kv_heads *
    /// value_dim).
    ///
    /// - **Errors**: `Option` for a sequence that is not there, `Shape` for a position that it does not hold
    ///   or slices of another length.
    /// - **Cost**: not the fast path: attention reads pages in place.
    pub fn token(&self, sequence: usize, position: usize, k: &mut [f32], v: &mut [f32]) -> Result<()> {
        let _mode = fp_mode::default_mode();
        let state = self.sequence(sequence)?;
        at_most("position + 1", position.saturating_add(1), "must be at most the cache's len =", state.len)?;
        if position < state.oldest && position >= self.options.sinks {
            let relation = "must be at least the oldest position held =";
            return Err(Error::Shape { what: "position", got: position, relation, want: state.oldest });
        }
        let KvCacheOptions { kv_heads, head_dim, value_dim, .. } = self.options;
        equal("k.len", k.len(), "must equal kv_heads * head_dim =", kv_heads * head_dim)?;
        equal("v.len", v.len(), "must equal kv_heads * head_dim =", kv_heads * value_dim)?;
        let rows = k.chunks_exact_mut(head_dim).zip(v.chunks_exact_mut(value_dim));
        for (head, (k, v)) in rows.enumerate() {
            let part = self.part(sequence, position / CHUNK, head);
            codec::read_key(&self.layout, self.options.keys, part, position % CHUNK, k);
            if self.options.latent {
                v.copy_from_slice(&k[..value_dim]);
            } else {
                codec::read_value(&self.layout, self.options.values, part, position % CHUNK, v);
            }
        }
        Ok(())
    }

    /// The keys and the values of a chunk of a head, for attention; no values where they are part of the
    /// keys.
    pub(in crate::attention) fn chunk(
        &self,
        sequence: usize,
        chunk: usize,
        head: usize,
    ) -> (Stored<'_>, Option<Stored<'_>>) {
        let part = self.part(sequence, chunk, head);
        let Layout { keys, key_scales, values, value_scales, .. } = &self.layout;
        let of = |kind, codes: &Field, scales: &Field, pairs| {
            let bytes = |field: &Field| &part[field.start..field.start + field.bytes];
            let (codes, scales) = (bytes(codes), || bytemuck::cast_slice(bytes(scales)));
            match kind {
                KvType::F32 => Stored::Plain(Elements::F32(bytemuck::cast_slice(codes))),
                KvType::F16 => Stored::Plain(Elements::F16(bytemuck::cast_slice(codes))),
                KvType::Bf16 if pairs => Stored::Plain(Elements::Bf16(bytemuck::cast_slice(codes))),
                KvType::Bf16 => Stored::Plain(Elements::Bf16Rows(bytemuck::cast_slice(codes))),
                KvType::Int8 => Stored::Codes(CodeBits::Eight, codes, scales()),
                KvType::Int4 => Stored::Codes(CodeBits::Four, codes, scales()),
            }
        };
        let keys = of(self.options.keys, keys, key_scales, true);
        (keys, (!self.options.latent).then(|| of(self.options.values, values, value_scales, false)))
    }

    /// What is likely to be read after a chunk of a head, the head's next chunk or the next head's first one:
    /// its keys, and its scales of keys and values.
    pub(in crate::attention) fn following(&self, sequence: usize, chunk: usize, head: usize) -> [&[u8]; 3] {
        let len = self.len_of(sequence);
        let next = (chunk + 1) * CHUNK;
        let (chunk, head) = if next < len {
            (chunk + 1, head)
        } else {
            (self.options.window.map_or(0, |window| len.saturating_sub(window) / CHUNK), head + 1)
        };
        // The window may begin right behind a page that was given back.
        let table = &self.tables[sequence * self.geometry.entries()..];
        if head >= self.options.kv_heads || table[self.geometry.entry(chunk)] == NONE {
            return [&[]; 3];
        }
        let part = self.part(sequence, chunk, head);
        let Layout { keys, key_scales, value_scales, .. } = &self.layout;
        [keys, key_scales, value_scales].map(|field| &part[field.start..field.start + field.bytes])
    }

    /// The part of a head of the chunk after one; empty for the last chunk.
    pub(in crate::attention) fn next_part(&self, sequence: usize, chunk: usize, head: usize) -> &[u8] {
        let next = chunk + 1;
        let entry = sequence * self.geometry.entries() + self.geometry.entry(next);
        if next * CHUNK >= self.len_of(sequence) || self.tables[entry] == NONE {
            return &[];
        }
        self.part(sequence, next, head)
    }

    /// Elements from one value to the next one of a head, as stored or as copied from the keys.
    pub(in crate::attention) fn value_stride(&self) -> usize {
        self.layout.value_stride
    }

    /// Blocks of 32 elements of a value row.
    pub(in crate::attention) fn value_blocks(&self) -> usize {
        self.layout.value_stride.div_ceil(BLOCK)
    }
}

/// Keys `(CHUNK / 16, dim, 16)` or values `(CHUNK, value_stride)` of a chunk of a head, as they are stored.
#[derive(Clone, Copy)]
pub(in crate::attention) enum Stored<'a> {
    Plain(Elements<'a>),
    Codes(CodeBits, &'a [u8], &'a [u16]),
}

impl<'a> Stored<'a> {
    /// The bytes, without scales.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Stored::Plain(Elements::F32(x)) => bytemuck::cast_slice(x),
            Stored::Plain(Elements::F16(x) | Elements::Bf16(x) | Elements::Bf16Rows(x)) => {
                bytemuck::cast_slice(x)
            }
            Stored::Codes(_, codes, _) => codes,
        }
    }
}
