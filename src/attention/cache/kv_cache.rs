//! The cache itself: what it is made of, and its pages.

use super::layout::{Geometry, Layout};
use super::options::KvCacheOptions;
use super::plan::Plan;
use super::pool::{NONE, Pool};
use super::sequence::Sequence;
use crate::attention::options::CHUNK;
use crate::buffer::vector_of;
use crate::context::Context;
use crate::error::{Error, Result, product, text};
use std::ops::Range;

/// Keys and values of one layer, usable without any model. Appending writes the new tokens only and
/// allocates nothing. Methods without a sequence mean sequence 0.
#[derive(Debug, Clone)]
pub struct KvCache {
    pub(super) options: KvCacheOptions,
    pub(super) geometry: Geometry,
    pub(super) layout: Layout,
    pub(super) pool: Pool,
    /// Pages of each sequence.
    pub(super) tables: Vec<u32>, // (sequences, entries)
    pub(super) sequences: Vec<Sequence>,
}

impl KvCache {
    /// An empty cache.
    ///
    /// - **Errors**: `Option` for a zero size, a head size that is no multiple of 8, sinks without a window,
    ///   a number of sequences or pages out of range; `Shape` for a window beyond the capacity, or sinks and
    ///   a window beyond it; `Overflow`; `Resource`.
    /// - **Cost**: allocates everything at once: capacities rounded up to 256 tokens and value rows to 16
    ///   elements; large caches in huge pages.
    pub fn new(options: KvCacheOptions) -> Result<KvCache> {
        KvCache::new_on(&Context::serial(), options)
    }

    /// [`KvCache::new`] in the context's [`Memory`](crate::buffer::Memory).
    pub fn new_on(ctx: &Context, options: KvCacheOptions) -> Result<KvCache> {
        let Plan { geometry, layout, pages } = Plan::new(&options)?;
        let entries = product("page tables", &[options.sequences, geometry.entries()])?;
        let tables = vector_of(NONE, entries)?;
        let sequences = vector_of(Sequence::default(), options.sequences)?;
        let pool = Pool::new(ctx, pages, layout.page_bytes)?;
        Ok(KvCache { options, geometry, layout, pool, tables, sequences })
    }

    /// What the cache was made from.
    pub fn options(&self) -> &KvCacheOptions {
        &self.options
    }

    /// The next absolute position: tokens appended since the start.
    pub fn len(&self) -> usize {
        self.len_of(0)
    }

    /// [`KvCache::len`] of a sequence; 0 for one that is not there.
    pub fn len_of(&self, sequence: usize) -> usize {
        self.sequences.get(sequence).map_or(0, |s| s.len)
    }

    /// Whether no token was appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The oldest position that the cache still holds, besides the sinks.
    pub fn start(&self) -> usize {
        self.start_of(0)
    }

    /// [`KvCache::start`] of a sequence; 0 for one that is not there.
    pub fn start_of(&self, sequence: usize) -> usize {
        self.sequences.get(sequence).map_or(0, |s| s.oldest)
    }

    /// Bytes of the pool.
    pub fn bytes(&self) -> usize {
        self.pool.bytes()
    }

    /// Bytes of the pages that sequences hold; a shared page counts once.
    pub fn bytes_used(&self) -> usize {
        self.pool.used_bytes()
    }

    /// Pages of the pool, of 256 tokens each.
    pub fn pages(&self) -> usize {
        self.pool.pages()
    }

    /// Pages that no sequence holds.
    pub fn free_pages(&self) -> usize {
        self.pool.free_pages()
    }

    /// Checks that there is such a sequence.
    pub(in crate::attention) fn check_sequence(&self, sequence: usize) -> Result<()> {
        self.sequence(sequence).map(|_| ())
    }

    pub(super) fn sequence(&self, sequence: usize) -> Result<Sequence> {
        match self.sequences.get(sequence) {
            Some(state) => Ok(*state),
            None => {
                let (got, allowed) = (text(sequence), "below the cache's number of sequences");
                Err(Error::Option { what: "sequence", got, allowed })
            }
        }
    }

    pub(super) fn table(&mut self, sequence: usize) -> &mut [u32] {
        let entries = self.geometry.entries();
        &mut self.tables[sequence * entries..(sequence + 1) * entries]
    }

    /// Pages that an append at some positions takes from the pool.
    pub(super) fn missing_pages(&self, sequence: usize, positions: Range<usize>) -> usize {
        if positions.is_empty() {
            return 0;
        }
        let chunks = positions.start / CHUNK..=(positions.end - 1) / CHUNK;
        let Geometry { sink_pages, ring_pages } = self.geometry;
        let entries = self.geometry.entries();
        let table = &self.tables[sequence * entries..(sequence + 1) * entries];
        // A chunk that comes round to the entry of an earlier one of the range counts once.
        let last = |chunk: usize| chunk < sink_pages || chunk + ring_pages > *chunks.end();
        let missing = |entry: u32| entry == NONE || self.pool.is_shared(entry);
        let takes = |chunk: usize| last(chunk) && missing(table[self.geometry.entry(chunk)]);
        // A token when decoding: the range of one chunk costs more than the chunk.
        if chunks.start() == chunks.end() {
            return usize::from(takes(*chunks.start()));
        }
        chunks.clone().filter(|chunk| takes(*chunk)).count()
    }

    /// Makes the pages of some positions exclusive to the sequence, or changes nothing.
    pub(super) fn make_unique(&mut self, sequence: usize, positions: Range<usize>) -> Result<()> {
        self.pool.check(self.missing_pages(sequence, positions.clone()))?;
        self.make_unique_checked(sequence, positions);
        Ok(())
    }

    /// [`KvCache::make_unique`] where enough pages are known to be free.
    pub(super) fn make_unique_checked(&mut self, sequence: usize, positions: Range<usize>) {
        if positions.is_empty() {
            return;
        }
        let entries = self.geometry.entries();
        for chunk in positions.start / CHUNK..=(positions.end - 1) / CHUNK {
            let entry = sequence * entries + self.geometry.entry(chunk);
            self.pool.make_unique(&mut self.tables[entry]);
        }
    }

    /// The part of a head of the page of a chunk.
    pub(super) fn part(&self, sequence: usize, chunk: usize, head: usize) -> &[u8] {
        let page = self.tables[sequence * self.geometry.entries() + self.geometry.entry(chunk)];
        &self.pool.page(page)[head * self.layout.head_bytes..][..self.layout.head_bytes]
    }
}
