//! What a cache is made from.

use crate::error::{Error, Result};

/// How keys or values are stored.
///
/// - **Numerics**: `F32` is exact. `F16` and `Bf16` round once, ties to even (relative error 2^-11 and 2^-8
///   of normal numbers; f16 ends at 65504). `Int8` and `Int4` store, for each key or value and each block of
///   32 elements of the head, `d = absmax / 127` (`/ 7`), rounded up to f16, and `q = round(x / d)`; the
///   number is `q * d`, at most `d / 2` off, with `d <= absmax / 127 * (1 + 2^-10) + 2^-24` (`/ 7`). A block
///   with a NaN, an infinity, or an absmax that makes `d` exceed 65504 is NaN. Attention widens every type
///   exactly to f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum KvType {
    /// 32 bits a number.
    F32 = 0,
    /// 16 bits a number, 11 of precision.
    F16 = 1,
    /// 8.5 bits a number: a code of 8 bits and a share of the block's scale.
    Int8 = 8,
    /// 4.5 bits a number: a code of 4 bits and a share of the block's scale.
    Int4 = 4,
    /// 16 bits a number, 8 of precision.
    Bf16 = 30,
}

impl KvType {
    /// Every type, widest first.
    pub const ALL: [KvType; 5] = [KvType::F32, KvType::F16, KvType::Bf16, KvType::Int8, KvType::Int4];

    /// The name, for example `int8`.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Bf16 => "bf16",
            KvType::Int8 => "int8",
            KvType::Int4 => "int4",
        }
    }

    /// Bits of a number or code, without scales.
    pub fn bits(self) -> usize {
        match self {
            KvType::F32 => 32,
            KvType::F16 | KvType::Bf16 => 16,
            KvType::Int8 => 8,
            KvType::Int4 => 4,
        }
    }

    /// Whether numbers are codes with a scale for each block.
    pub fn is_quantized(self) -> bool {
        matches!(self, KvType::Int8 | KvType::Int4)
    }
}

/// What a cache is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvCacheOptions {
    /// Key-value heads.
    pub kv_heads: usize,
    /// Elements of a key: a multiple of 8.
    pub head_dim: usize,
    /// Elements of a value: a multiple of 8.
    pub value_dim: usize,
    /// Tokens that a sequence holds.
    pub capacity: usize,
    /// Tokens that a query sees, itself included; `None` for all. With a window, at most `capacity - sinks`,
    /// a full cache forgets its oldest token; without one it refuses more. Attention of `n` queries at once,
    /// the last tokens of a sequence that has forgotten some, needs `capacity >= sinks + window + n - 1`.
    pub window: Option<usize>,
    /// First tokens of a sequence that every query sees besides its window, and that are never forgotten
    /// (attention sinks, Xiao et al. 2023). They count towards the capacity. 0 without a window.
    pub sinks: usize,
    /// How keys are stored.
    pub keys: KvType,
    /// How values are stored.
    pub values: KvType,
    /// Sequences that the cache holds side by side.
    pub sequences: usize,
    /// Pages of the pool that all sequences share; `None` for as many as they could all need at once. Fewer
    /// suit sequences that share prompts or seldom fill their capacity.
    pub pages: Option<usize>,
    /// Whether a value is the first `value_dim` elements of its key, stored once: multi-head latent attention
    /// (DeepSeek-AI 2024), whose keys are a latent and a rotated part. Values to append then have no columns.
    pub latent: bool,
}

impl KvCacheOptions {
    /// One sequence in f32 without a window.
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize) -> KvCacheOptions {
        KvCacheOptions {
            kv_heads,
            head_dim,
            value_dim: head_dim,
            capacity,
            window: None,
            sinks: 0,
            keys: KvType::F32,
            values: KvType::F32,
            sequences: 1,
            pages: None,
            latent: false,
        }
    }

    /// Sets the sliding window, in tokens.
    pub fn window(mut self, window: usize) -> KvCacheOptions {
        self.window = Some(window);
        self
    }

    /// Sets the number of pinned first tokens.
    pub fn sinks(mut self, sinks: usize) -> KvCacheOptions {
        self.sinks = sinks;
        self
    }

    /// Sets the size of a value, where it differs from that of a key.
    pub fn value_dim(mut self, value_dim: usize) -> KvCacheOptions {
        self.value_dim = value_dim;
        self
    }

    /// Makes values the first `value_dim` elements of their keys.
    pub fn latent(mut self, value_dim: usize) -> KvCacheOptions {
        self.value_dim = value_dim;
        self.latent = true;
        self
    }

    /// Sets how keys and values are stored. In a latent cache both types are the same.
    pub fn types(mut self, keys: KvType, values: KvType) -> KvCacheOptions {
        self.keys = keys;
        self.values = values;
        self
    }

    /// Sets the number of sequences.
    pub fn sequences(mut self, sequences: usize) -> KvCacheOptions {
        self.sequences = sequences;
        self
    }

    /// Sets the number of pages.
    pub fn pages(mut self, pages: usize) -> KvCacheOptions {
        self.pages = Some(pages);
        self
    }

    /// The element of a key from which on it is rotated: behind the latent.
    pub(in crate::attention) fn rotated_from(&self) -> usize {
        if self.latent { self.value_dim } else { 0 }
    }

    /// Elements of a value that an append brings for each kv head.
    pub(crate) fn appended_value_dim(&self) -> usize {
        if self.latent { 0 } else { self.value_dim }
    }

    /// Tokens that a wrapped sequence holds besides its sinks.
    pub(in crate::attention) fn sliding(&self) -> usize {
        self.capacity - self.sinks
    }
}

/// `what` must be at most `want`.
pub(in crate::attention) fn at_most(
    what: &'static str,
    got: usize,
    relation: &'static str,
    want: usize,
) -> Result<()> {
    if got <= want { Ok(()) } else { Err(Error::Shape { what, got, relation, want }) }
}
