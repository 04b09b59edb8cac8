//! The key-value cache of one layer: a ring that is written in place.
//!
//! Keys are stored as the B operand of the score product (tiles of 16 keys, `(head_dim, 16)`), values in
//! key order, so attention transposes and gathers nothing. The token at absolute position p lives in slot
//! `p mod slots`; slots are a multiple of the attention chunk, so each chunk is contiguous in memory.

use super::CHUNK;
use crate::buffer::AlignedBuf;
use crate::error::{Error, Result, equal, product};
use crate::kernels::LANES;
use crate::view::MatRef;

/// What a cache is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvCacheOptions {
    /// Key-value heads.
    pub kv_heads: usize,
    /// Elements of a key and of a value: a multiple of 8.
    pub head_dim: usize,
    /// Tokens that the cache holds.
    pub capacity: usize,
    /// Tokens that a query sees, itself included; `None` for all. With a window a full cache forgets its
    /// oldest token; without one it refuses more.
    pub window: Option<usize>,
}

impl KvCacheOptions {
    /// A cache without a window.
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize) -> KvCacheOptions {
        KvCacheOptions { kv_heads, head_dim, capacity, window: None }
    }

    /// Sets the sliding window, in tokens.
    pub fn window(mut self, window: usize) -> KvCacheOptions {
        self.window = Some(window);
        self
    }
}

/// Keys and values of one layer, usable without any model. Appending copies the new tokens only and
/// allocates nothing.
#[derive(Debug, Clone)]
pub struct KvCache {
    keys: AlignedBuf<f32>,   // (kv_heads, slots / 16, head_dim, 16)
    values: AlignedBuf<f32>, // (kv_heads, slots, value_stride)
    options: KvCacheOptions,
    slots: usize,
    /// The next absolute position.
    len: usize,
    /// The oldest position that no later token has overwritten. Truncation does not bring one back.
    oldest: usize,
}

/// `what` must lie in 1..=limit.
fn bounded(what: &'static str, got: usize, limit: usize, allowed: &'static str) -> Result<()> {
    if (1..=limit).contains(&got) {
        Ok(())
    } else {
        Err(Error::Option { what, got: got.to_string(), allowed })
    }
}

impl KvCache {
    /// An empty cache.
    ///
    /// **Errors**: `Option` for a zero size, a head size that is no multiple of 8, or a window beyond the
    /// capacity; `Overflow`; `Resource`. **Cost**: allocates `8 * kv_heads * head_dim` bytes a token, tokens
    /// rounded up to 256 and value rows to 16 elements; large caches in huge pages.
    pub fn new(options: KvCacheOptions) -> Result<KvCache> {
        let KvCacheOptions { kv_heads, head_dim, capacity, window } = options;
        bounded("kv_heads", kv_heads, usize::MAX, "at least 1")?;
        bounded("capacity", capacity, isize::MAX as usize, "at least 1 token")?;
        if head_dim == 0 || !head_dim.is_multiple_of(8) {
            let (got, allowed) = (head_dim.to_string(), "a multiple of 8, at least 8");
            return Err(Error::Option { what: "head_dim", got, allowed });
        }
        if let Some(window) = window {
            bounded("window", window, usize::MAX, "at least 1 token")?;
            if window > capacity {
                let relation = "must be at most capacity =";
                return Err(Error::Shape { what: "window", got: window, relation, want: capacity });
            }
        }
        let slots = capacity.next_multiple_of(CHUNK);
        let stride = head_dim.checked_next_multiple_of(LANES).ok_or(Error::Overflow { what: "head_dim" })?;
        Ok(KvCache {
            keys: AlignedBuf::zeroed(product("keys", &[kv_heads, slots, head_dim])?)?,
            values: AlignedBuf::zeroed(product("values", &[kv_heads, slots, stride])?)?,
            options,
            slots,
            len: 0,
            oldest: 0,
        })
    }

    /// What the cache was made from.
    pub fn options(&self) -> &KvCacheOptions {
        &self.options
    }

    /// The next absolute position: tokens appended since the start.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was appended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The oldest position that the cache still holds.
    pub fn start(&self) -> usize {
        self.oldest
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }

    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
        self.oldest = 0;
    }

    /// Forgets all tokens from position `len` on: the next append continues there.
    ///
    /// **Errors**: `Shape` when `len` is beyond the end, or when a wrapped ring no longer holds every token
    /// that a query at `len` would see; nothing is changed then.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            let relation = "must be at most the cache's len =";
            return Err(Error::Shape { what: "len", got: len, relation, want: self.len });
        }
        if len == 0 {
            self.clear();
            return Ok(());
        }
        let seen = self.options.window.map_or(len, |window| (window - 1).min(len));
        if len - seen < self.start() {
            let relation = "must be at least the oldest position held plus the window less 1 =";
            return Err(Error::Shape { what: "len", got: len, relation, want: self.start() + seen });
        }
        self.len = len;
        Ok(())
    }

    /// Appends tokens at positions `len()..len() + tokens`.
    ///
    /// **Shapes**: `k`, `v`: (tokens, kv_heads * head_dim), plain, heads side by side. Keys are stored as they
    /// are given: rotate them first. **Errors**: `Shape`; `CacheFull` when there is no window and no room;
    /// nothing is changed then. **Cost**: one copy of the new tokens; allocates nothing.
    pub fn append(&mut self, k: MatRef<'_>, v: MatRef<'_>) -> Result<()> {
        let KvCacheOptions { kv_heads, head_dim, capacity, window } = self.options;
        let width = product("kv_heads * head_dim", &[kv_heads, head_dim])?;
        equal("k.cols", k.cols(), "must equal kv_heads * head_dim =", width)?;
        equal("v.cols", v.cols(), "must equal kv_heads * head_dim =", width)?;
        equal("v.rows", v.rows(), "must equal k.rows =", k.rows())?;
        if k.is_transposed() || v.is_transposed() {
            let (got, allowed) = ("a transposed view".into(), "plain: one token a row");
            return Err(Error::Option { what: "k or v", got, allowed });
        }
        let adding = k.rows();
        let full = match window {
            None => self.len.checked_add(adding).is_none_or(|len| len > capacity),
            Some(_) => adding > capacity || self.len.checked_add(adding).is_none(),
        };
        if full {
            return Err(Error::CacheFull { len: self.len, adding, capacity });
        }
        for (token, (k, v)) in (0..adding).filter_map(|i| k.row(i).zip(v.row(i))).enumerate() {
            self.put((self.len + token) % self.slots, k, v);
        }
        self.len += adding;
        self.oldest = self.oldest.max(self.len.saturating_sub(capacity));
        Ok(())
    }

    /// Writes one token into a slot.
    fn put(&mut self, slot: usize, k: &[f32], v: &[f32]) {
        let (dim, slots, stride) = (self.options.head_dim, self.slots, self.value_stride());
        for head in 0..self.options.kv_heads {
            let tile = (head * slots + slot / LANES * LANES) * dim;
            let keys = &mut self.keys.as_mut_slice()[tile..tile + LANES * dim];
            for (lanes, &x) in keys.chunks_exact_mut(LANES).zip(&k[head * dim..(head + 1) * dim]) {
                lanes[slot % LANES] = x;
            }
            let row = (head * slots + slot) * stride;
            self.values.as_mut_slice()[row..row + dim].copy_from_slice(&v[head * dim..(head + 1) * dim]);
        }
    }

    /// Elements from one value to the next one of a head.
    pub(super) fn value_stride(&self) -> usize {
        self.options.head_dim.next_multiple_of(LANES)
    }

    /// Keys `chunk * CHUNK..` of a head, `(CHUNK / 16, head_dim, 16)`.
    pub(super) fn key_chunk(&self, head: usize, chunk: usize) -> &[f32] {
        let dim = self.options.head_dim;
        let start = (head * self.slots + chunk * CHUNK % self.slots) * dim;
        &self.keys.as_slice()[start..start + CHUNK * dim]
    }

    /// Values `chunk * CHUNK..` of a head, `(CHUNK, value_stride)`.
    pub(super) fn value_chunk(&self, head: usize, chunk: usize) -> &[f32] {
        let stride = self.value_stride();
        let start = (head * self.slots + chunk * CHUNK % self.slots) * stride;
        &self.values.as_slice()[start..start + CHUNK * stride]
    }
}
