//! Fused attention over a ring-buffer key-value cache.
//!
//! `out = softmax(scale * Q K^T, masked) V` for each head, without ever holding more scores than one strip
//! of query rows against one chunk of keys. Prefill and decode are the same computation with other numbers:
//! query `i` of a batch of 512 has the bits of the same query decoded alone.

mod bias;
mod cache;
mod cached;
mod call;
mod chunk;
mod driver;
mod fast;
mod item;
mod key_values;
mod options;
mod plain;
mod prefetch;
mod prepare;
mod queries;
mod ragged;
#[doc(hidden)]
pub mod reference;
mod scores;
mod scratch;
mod shape;
mod split;
mod strip;
mod visible;

pub use bias::{Bias, alibi_slopes};
pub use cache::{KvCache, KvCacheOptions, KvType};
pub use cached::Sequences;
pub use driver::{
    Outputs, attend, attend_batch, attend_plain, attend_ragged, attend_with, plain_workspace_bytes,
    workspace_bytes,
};
pub use options::{AttentionOptions, CHUNK};
pub use plain::Plain;
pub use prepare::Preparation;
#[cfg(feature = "capi")]
pub(crate) use queries::longest;
pub use ragged::Ragged;
