//! Fused attention over a ring-buffer key-value cache.
//!
//! `out = softmax(scale * Q K^T, masked) V` for each head, without ever holding more scores than one strip
//! of query rows against one chunk of keys. Prefill and decode are the same computation with other numbers:
//! query `i` of a batch of 512 has the bits of the same query decoded alone.

mod cache;
mod driver;
#[doc(hidden)]
pub mod reference;
mod source;

pub use cache::{KvCache, KvCacheOptions, KvType};
pub use driver::{attend, attend_batch, workspace_bytes};

/// Keys of a chunk. Softmax partials are formed for chunks at fixed multiples of this in absolute position
/// and merged in ascending order, which is why results do not depend on how queries are batched. 256 keys:
/// merging costs 3 vector operations where the products of the chunk take 512 (below 1 %), a strip of
/// scores (6 x 256 x 4 = 6 KiB) stays in L1, and keys and values of a head of 128 (256 KiB) in L2.
pub const CHUNK: usize = 256;

/// Options of one attention call.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// Query heads: a multiple of the cache's kv_heads. Query head h uses kv head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Factor of the scores; `None` for `1 / sqrt(head_dim)`.
    pub scale: Option<f32>,
    /// Whether a query sees only keys at its own position and before. Without it, each query sees the
    /// whole cache, which must then have no window.
    pub causal: bool,
}

impl AttentionOptions {
    /// Causal attention with `heads` query heads and the usual scale.
    pub fn new(heads: usize) -> AttentionOptions {
        AttentionOptions { heads, scale: None, causal: true }
    }

    /// Sets the factor of the scores.
    pub fn scale(mut self, scale: f32) -> AttentionOptions {
        self.scale = Some(scale);
        self
    }

    /// Sets whether queries see only the past.
    pub fn causal(mut self, causal: bool) -> AttentionOptions {
        self.causal = causal;
        self
    }
}
