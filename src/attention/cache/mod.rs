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

mod codec;
mod edit;
mod file;
mod layout;
mod options;
mod pool;
mod restore;
mod sequence;

pub use options::{KvCacheOptions, KvType};

use super::CHUNK;
use crate::buffer::vector_of;
use crate::context::Context;
use crate::error::{Error, Result, equal, product, text};
use crate::fp_mode;
use crate::kernels::{BLOCK, Bits, Elements};
use crate::view::MatRef;
use layout::{Field, Geometry, Layout};
use options::at_most;
use pool::{NONE, Pool};
use sequence::Sequence;
use std::ops::Range;

/// Keys and values of one layer, usable without any model. Appending writes the new tokens only and
/// allocates nothing. Methods without a sequence mean sequence 0.
#[derive(Debug, Clone)]
pub struct KvCache {
    options: KvCacheOptions,
    geometry: Geometry,
    layout: Layout,
    pool: Pool,
    /// Pages of each sequence.
    tables: Vec<u32>, // (sequences, entries)
    sequences: Vec<Sequence>,
}

/// An append that was checked.
pub(super) struct Append {
    pub sequence: usize,
    /// Of the new tokens.
    pub positions: Range<usize>,
    /// Pages to take from the pool.
    missing: usize,
}

/// Positions of an append that the sequence holds afterwards, and that are written.
struct Kept {
    /// Sinks, where tokens between them and `recent` are forgotten at once.
    pinned: Range<usize>,
    recent: Range<usize>,
}

impl KvCache {
    /// An empty cache.
    ///
    /// **Errors**: `Option` for a zero size, a head size that is no multiple of 8, sinks without a window, a
    /// number of sequences or pages out of range; `Shape` for a window beyond the capacity, or sinks and a
    /// window beyond it; `Overflow`; `Resource`. **Cost**: allocates everything at once: capacities rounded up
    /// to 256 tokens and value rows to 16 elements; large caches in huge pages.
    pub fn new(options: KvCacheOptions) -> Result<KvCache> {
        KvCache::new_with(&Context::serial(), options)
    }

    /// [`KvCache::new`] in the context's [`Memory`](crate::buffer::Memory).
    pub fn new_with(ctx: &Context, options: KvCacheOptions) -> Result<KvCache> {
        let (geometry, layout, pages) = options.plan()?;
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

    /// Appends tokens at positions `len()..len() + tokens`.
    ///
    /// With a window, a sequence beyond the capacity keeps its sinks and its last `capacity - sinks` tokens, whatever
    /// the number appended at once: tokens that are forgotten at once are not stored. To attend with all
    /// queries of the tokens appended, append at most `capacity - sinks - window + 1` at once: the first
    /// query's window must still be held when the last token is.
    ///
    /// **Shapes**: `k`: (tokens, kv_heads * head_dim), `v`: (tokens, kv_heads * value_dim), plain, heads side
    /// by side. Keys are stored as they are given: rotate them first. **Errors**: `Shape`; `CacheFull` when
    /// there is no window and the tokens held and added exceed the capacity; `PoolFull` when fewer pages are
    /// free than it takes; `Overflow`; nothing is changed then. **Cost**: one pass over the new tokens that
    /// stay, and a copy of the last page where a fork shares it; allocates nothing.
    pub fn append(&mut self, k: MatRef<'_>, v: MatRef<'_>) -> Result<()> {
        self.append_to(0, k, v)
    }

    /// [`KvCache::append`] to a sequence.
    ///
    /// **Errors**: also `Option` for a sequence that is not there.
    pub fn append_to(&mut self, sequence: usize, k: MatRef<'_>, v: MatRef<'_>) -> Result<()> {
        let _mode = fp_mode::default_mode();
        if k.is_transposed() {
            let (got, allowed) = (text("a transposed view"), "plain: one token a row");
            return Err(Error::Option { what: "k or v", got, allowed });
        }
        let append = self.check_append(sequence, (k.rows(), k.cols()), v)?;
        let first = append.positions.start;
        self.commit(append, |cache, run| {
            cache.put(sequence, run.start, (k, v), run.start - first..run.end - first);
        });
        Ok(())
    }

    /// Takes the pages of a checked append, has `put` write each run of positions that stay and lie in one page,
    /// and moves the sequence's end.
    pub(super) fn commit(&mut self, append: Append, mut put: impl FnMut(&mut KvCache, Range<usize>)) {
        let Append { sequence, positions, missing } = append;
        let Kept { pinned, recent } = self.kept(&positions);
        for kept in [pinned, recent] {
            if missing > 0 {
                self.own_checked(sequence, kept.clone());
            }
            let mut start = kept.start;
            while start < kept.end {
                let end = kept.end.min((start / CHUNK + 1) * CHUNK);
                put(self, start..end);
                start = end;
            }
        }
        let forgotten = self.forgotten(positions.end);
        let state = &mut self.sequences[sequence];
        *state = Sequence { len: positions.end, oldest: state.oldest.max(forgotten) };
    }

    /// The oldest position besides the sinks that a sequence of `len` appended tokens holds: up to the capacity
    /// nothing is forgotten; beyond it the sinks stay and the others slide.
    pub(super) fn forgotten(&self, len: usize) -> usize {
        if len > self.options.capacity { len - self.options.sliding() } else { 0 }
    }

    /// Those of the positions of an append that stay.
    fn kept(&self, positions: &Range<usize>) -> Kept {
        let &Range { start, end } = positions;
        let recent = self.forgotten(end).max(start)..end;
        // Where nothing is forgotten at once, the sinks are among the recent ones.
        let pinned = start..self.options.sinks.clamp(start, recent.start);
        Kept { pinned, recent }
    }

    /// Checks everything that an append of keys of this shape and of `v` relies on.
    pub(super) fn check_append(
        &self,
        sequence: usize,
        (rows, cols): (usize, usize),
        v: MatRef<'_>,
    ) -> Result<Append> {
        let Sequence { len, .. } = self.sequence(sequence)?;
        let KvCacheOptions { kv_heads, head_dim, value_dim, capacity, window, .. } = self.options;
        let width = |dim| product("kv_heads * head_dim", &[kv_heads, dim]);
        equal("k.cols", cols, "must equal kv_heads * head_dim =", width(head_dim)?)?;
        equal("v.cols", v.cols(), "must equal kv_heads * head_dim =", width(value_dim)?)?;
        equal("v.rows", v.rows(), "must equal k.rows =", rows)?;
        if v.is_transposed() {
            let (got, allowed) = (text("a transposed view"), "plain: one token a row");
            return Err(Error::Option { what: "k or v", got, allowed });
        }
        let end = len.checked_add(rows).filter(|end| *end <= isize::MAX as usize);
        if window.is_none() && end.is_none_or(|end| end > capacity) {
            return Err(Error::CacheFull { len, adding: rows, capacity });
        }
        let positions = len..end.ok_or(Error::Overflow { what: "cache len" })?;
        let Kept { pinned, recent } = self.kept(&positions);
        // A page that both are in counts once.
        let behind = if pinned.is_empty() { 0 } else { pinned.end.next_multiple_of(CHUNK) };
        let missing = self.missing_pages(sequence, pinned)
            + self.missing_pages(sequence, recent.start.max(behind)..recent.end);
        self.pool.check(missing)?;
        Ok(Append { sequence, positions, missing })
    }

    /// The key and the value of a position, widened to f32: `k`: (kv_heads * head_dim), `v`: (kv_heads *
    /// value_dim).
    ///
    /// **Errors**: `Option` for a sequence that is not there, `Shape` for a position that it does not hold or
    /// slices of another length. **Cost**: not the fast path: attention reads pages in place.
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
            codec::read_value(&self.layout, self.options.values, part, position % CHUNK, v);
        }
        Ok(())
    }

    /// Checks that there is such a sequence.
    pub(super) fn check_sequence(&self, sequence: usize) -> Result<()> {
        self.sequence(sequence).map(|_| ())
    }

    fn sequence(&self, sequence: usize) -> Result<Sequence> {
        match self.sequences.get(sequence) {
            Some(state) => Ok(*state),
            None => {
                let (got, allowed) = (text(sequence), "below the cache's number of sequences");
                Err(Error::Option { what: "sequence", got, allowed })
            }
        }
    }

    fn table(&mut self, sequence: usize) -> &mut [u32] {
        let entries = self.geometry.entries();
        &mut self.tables[sequence * entries..(sequence + 1) * entries]
    }

    /// Pages that an append at some positions takes from the pool.
    fn missing_pages(&self, sequence: usize, positions: Range<usize>) -> usize {
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

    /// Makes the pages of some positions the sequence's own, or changes nothing.
    fn own(&mut self, sequence: usize, positions: Range<usize>) -> Result<()> {
        self.pool.check(self.missing_pages(sequence, positions.clone()))?;
        self.own_checked(sequence, positions);
        Ok(())
    }

    /// [`KvCache::own`] where enough pages are known to be free.
    fn own_checked(&mut self, sequence: usize, positions: Range<usize>) {
        if positions.is_empty() {
            return;
        }
        let entries = self.geometry.entries();
        for chunk in positions.start / CHUNK..=(positions.end - 1) / CHUNK {
            let entry = sequence * entries + self.geometry.entry(chunk);
            self.pool.own(&mut self.tables[entry]);
        }
    }

    /// Writes the rows `rows` of `k` and `v` at positions from `position` on, all in one page of the
    /// sequence's own.
    pub(super) fn put(
        &mut self,
        sequence: usize,
        position: usize,
        (k, v): (MatRef<'_>, MatRef<'_>),
        rows: Range<usize>,
    ) {
        let entry = self.geometry.entry(position / CHUNK);
        let page = self.table(sequence)[entry];
        let KvCacheOptions { head_dim, value_dim, keys, values, .. } = self.options;
        let (page, slot) = (self.pool.page_mut(page), position % CHUNK);
        let of = |x, dim| codec::Rows { x, rows: rows.clone(), dim, slot };
        codec::write_keys(&self.layout, keys, page, of(k, head_dim));
        codec::write_values(&self.layout, values, page, of(v, value_dim));
    }

    /// The part of a head of the page of a chunk.
    fn part(&self, sequence: usize, chunk: usize, head: usize) -> &[u8] {
        let page = self.tables[sequence * self.geometry.entries() + self.geometry.entry(chunk)];
        &self.pool.page(page)[head * self.layout.head_bytes..][..self.layout.head_bytes]
    }

    /// A chunk of a head, for attention.
    pub(super) fn chunk(&self, sequence: usize, chunk: usize, head: usize) -> (Stored<'_>, Stored<'_>) {
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
                KvType::Int8 => Stored::Codes(Bits::Eight, codes, scales()),
                KvType::Int4 => Stored::Codes(Bits::Four, codes, scales()),
            }
        };
        let keys = of(self.options.keys, keys, key_scales, true);
        (keys, of(self.options.values, values, value_scales, false))
    }

    /// What is likely to be read after a chunk of a head, its next one or the next head's first one: the keys,
    /// and the scales of keys and values.
    pub(super) fn following(&self, sequence: usize, chunk: usize, head: usize) -> [&[u8]; 3] {
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
    pub(super) fn next_part(&self, sequence: usize, chunk: usize, head: usize) -> &[u8] {
        let next = chunk + 1;
        let entry = sequence * self.geometry.entries() + self.geometry.entry(next);
        if next * CHUNK >= self.len_of(sequence) || self.tables[entry] == NONE {
            return &[];
        }
        self.part(sequence, next, head)
    }

    /// Stored elements from one value to the next one of a head.
    pub(super) fn value_stride(&self) -> usize {
        self.layout.value_stride
    }

    /// Blocks of 32 elements of a value row.
    pub(super) fn value_blocks(&self) -> usize {
        self.layout.value_stride.div_ceil(BLOCK)
    }
}

/// Keys `(CHUNK / 16, dim, 16)` or values `(CHUNK, value_stride)` of a chunk of a head, as they are stored.
#[derive(Clone, Copy)]
pub(super) enum Stored<'a> {
    Plain(Elements<'a>),
    Codes(Bits, &'a [u8], &'a [u16]),
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
