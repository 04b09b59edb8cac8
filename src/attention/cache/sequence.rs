//! What a sequence of a cache holds.

use super::layout::Geometry;
use super::options::KvCacheOptions;
use std::ops::Range;

/// What a sequence holds: positions `0..min(sinks, len)` and `oldest..len`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    /// The next absolute position.
    pub len: usize,
    /// The oldest position besides the sinks that no later token has overwritten: 0, or one behind the sinks.
    /// Truncation does not bring one back.
    pub oldest: usize,
}

impl Sequence {
    /// The positions held: sinks that are apart from the others, and the others.
    pub fn held(&self, sinks: usize) -> [Range<usize>; 2] {
        let pinned = if self.oldest > 0 { self.len.min(sinks) } else { 0 };
        [0..pinned, self.oldest..self.len]
    }

    /// Whether a token is held in the page of a table entry.
    pub fn holds(&self, geometry: &Geometry, sinks: usize, entry: usize) -> bool {
        self.held(sinks).iter().any(|held| geometry.chunks_of(entry, held).next().is_some())
    }

    /// Whether a sequence of a cache of these options can be in this state.
    pub fn possible(&self, options: &KvCacheOptions) -> bool {
        let Sequence { len, oldest } = *self;
        match options.window {
            None => len <= options.capacity && oldest == 0,
            Some(window) => {
                let held = oldest == 0 && len <= options.capacity
                    || oldest > options.sinks && oldest <= len && len - oldest <= options.sliding();
                // A query at len sees nothing that was forgotten.
                held && len <= isize::MAX as usize && (oldest == 0 || len - (window - 1).min(len) >= oldest)
            }
        }
    }
}
