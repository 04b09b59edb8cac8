//! What is prefetched while the tiles of a chunk compute.
//!
//! Two cases. For many query rows the products take longer than memory: the next chunk is prefetched in
//! shares between tiles ([`Queue`]). For few query rows reading is the time: each tile prefetches what the
//! tile behind it reads ([`ChunkBytes`]), and the queue holds the scales, which those addresses do not reach.

use super::options::CHUNK;
use crate::kernels::{KernelSet, Prefetch};
use std::cell::Cell;

/// Bytes to prefetch in shares, one share for each tile: as many lines at a time as the core has buffers for
/// misses, or the core would wait for the lines.
#[derive(Default)]
pub(super) struct Queue<'a> {
    first: Cell<&'a [u8]>,
    second: Cell<&'a [u8]>,
    /// Bytes for each tile.
    share: usize,
}

impl<'a> Queue<'a> {
    /// A queue of two ranges that is empty after `tiles` tiles.
    pub fn new(first: &'a [u8], second: &'a [u8], tiles: usize) -> Queue<'a> {
        let share = ((first.len() + second.len()) / tiles).next_multiple_of(64);
        Queue { first: Cell::new(first), second: Cell::new(second), share }
    }

    /// Prefetches the next share.
    pub fn prefetch_share(&self, kernels: &KernelSet) {
        let mut bytes = self.first.get();
        if bytes.is_empty() {
            bytes = self.second.take();
        }
        if !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.share.min(bytes.len()));
            kernels.prefetch(now);
            self.first.set(later);
        }
    }
}

/// The bytes of a chunk in the order in which they are read.
pub(super) struct ChunkBytes<'a> {
    pub keys: &'a [u8],   // (CHUNK / 16, key_dim, 16) as stored
    pub values: &'a [u8], // (CHUNK, value_stride) as stored
    /// The keys of the chunk that is likely to be next.
    pub next_keys: &'a [u8],
}

/// Values between the one that is read and the one that is prefetched: about as much time as a tile of 64
/// keys takes.
pub(super) const DISTANCE: usize = 64;

/// A tile of a score product.
#[derive(Clone, Copy)]
pub(super) struct KeyTile {
    /// The key behind its last one.
    pub end: usize,
    /// Its keys.
    pub width: usize,
    /// Its steps over the head dimension.
    pub steps: usize,
}

impl ChunkBytes<'_> {
    /// What a tile of keys prefetches: the keys behind it up to `last_key`, then the values from
    /// `first_value` on.
    pub fn behind_keys(&self, tile: KeyTile, last_key: usize, first_value: usize) -> Prefetch<'_> {
        let (key, value) = (self.keys.len() / CHUNK, self.values.len() / CHUNK);
        let data = if tile.end < last_key {
            &self.keys[tile.end * key..]
        } else {
            &self.values[first_value * value..]
        };
        Prefetch { data, stride: tile.width * key / tile.steps }
    }

    /// What a tile of values from `key` on prefetches that takes the bytes from `at` on of each value.
    pub fn behind_values(&self, key: usize, at: usize) -> Prefetch<'_> {
        let value = self.values.len() / CHUNK;
        let data = if key + DISTANCE < CHUNK {
            &self.values[(key + DISTANCE) * value + at..]
        } else {
            self.next_keys.get(at..).unwrap_or_default()
        };
        Prefetch { data, stride: value }
    }
}
