//! The key-value cache of one layer: several sequences in pages that are written in place.
//!
//! A page holds the 256 tokens of an attention chunk (fixed multiples of the absolute position), in the order
//! of the tiles, so attention transposes and gathers nothing, and each chunk is contiguous in memory. Pages
//! come from a pool that is allocated with the cache. The token at position p of a sequence lies in slot
//! `p mod 256` of the page that the sequence's table has for chunk `p / 256`; with a window the table is a
//! ring. Forked sequences share pages until one of them writes.
//!
//! One cache serves one layer: layers of a model differ in window, shape and type more and more, and a
//! speculative or pipelined engine edits them at different times.

mod append;
mod codec;
mod edit;
mod file;
mod kv_cache;
mod layout;
mod options;
mod plan;
mod pool;
mod read;
mod restore;
mod sequence;

pub use kv_cache::KvCache;
pub(super) use options::at_most;
pub use options::{KvCacheOptions, KvType};
pub(super) use read::Stored;
