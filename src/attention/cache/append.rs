//! Appending tokens: what is checked, which pages are taken, what is written.

use super::codec;
use super::kv_cache::KvCache;
use super::options::KvCacheOptions;
use super::sequence::Sequence;
use crate::attention::options::CHUNK;
use crate::error::{Error, Result, equal, product};
use crate::fp_mode;
use crate::view::MatRef;
use std::ops::Range;

/// An append that was checked.
pub(in crate::attention) struct Append {
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
    /// Appends tokens at positions `len()..len() + tokens`.
    ///
    /// With a window, a sequence beyond the capacity keeps its sinks and its last `capacity - sinks` tokens,
    /// whatever the number appended at once: tokens that are forgotten at once are not stored. To attend with
    /// all queries of the tokens appended, append at most `capacity - sinks - window + 1` at once: the first
    /// query's window must still be held when the last token is.
    ///
    /// - **Shapes**: `k`: (tokens, kv_heads * head_dim), `v`: (tokens, kv_heads * value_dim), or (tokens, 0)
    ///   for a latent cache, plain, heads side by side. Keys are stored as they are given: rotate them first.
    /// - **Errors**: `Shape`; `CacheFull` when there is no window and the tokens held and added exceed the
    ///   capacity; `PoolFull` when fewer pages are free than it takes; `Overflow`; nothing is changed then.
    /// - **Cost**: one pass over the new tokens that stay, and a copy of the last page where a fork shares
    ///   it; allocates nothing.
    pub fn append(&mut self, k: MatRef<'_>, v: MatRef<'_>) -> Result<()> {
        self.append_to(0, k, v)
    }

    /// [`KvCache::append`] to a sequence.
    ///
    /// - **Errors**: also `Option` for a sequence that is not there.
    pub fn append_to(&mut self, sequence: usize, k: MatRef<'_>, v: MatRef<'_>) -> Result<()> {
        let _mode = fp_mode::default_mode();
        k.require_plain("k or v", "plain: one token a row")?;
        let append = self.check_append(sequence, (k.rows(), k.cols()), v)?;
        let first = append.positions.start;
        self.commit(append, |cache, run| {
            cache.put(sequence, run.start, (k, v), run.start - first..run.end - first);
        });
        Ok(())
    }

    /// Takes the pages of a checked append, has `put` write each run of positions that stay and lie in one
    /// page, and moves the sequence's end.
    pub(in crate::attention) fn commit(
        &mut self,
        append: Append,
        mut put: impl FnMut(&mut KvCache, Range<usize>),
    ) {
        let Append { sequence, positions, missing } = append;
        let Kept { pinned, recent } = self.kept(&positions);
        for kept in [pinned, recent] {
            if missing > 0 {
                self.make_unique_checked(sequence, kept.clone());
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

    /// The oldest position besides the sinks that a sequence of `len` appended tokens holds: up to the
    /// capacity nothing is forgotten; beyond it the sinks stay and the others slide.
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
    pub(in crate::attention) fn check_append(
        &self,
        sequence: usize,
        (rows, cols): (usize, usize),
        v: MatRef<'_>,
    ) -> Result<Append> {
        let Sequence { len, .. } = self.sequence(sequence)?;
        let KvCacheOptions { kv_heads, head_dim, capacity, window, .. } = self.options;
        let value_dim = self.options.appended_value_dim();
        let width = |dim| product("kv_heads * head_dim", &[kv_heads, dim]);
        equal("k.cols", cols, "must equal kv_heads * head_dim =", width(head_dim)?)?;
        equal("v.cols", v.cols(), "must equal kv_heads * head_dim =", width(value_dim)?)?;
        equal("v.rows", v.rows(), "must equal k.rows =", rows)?;
        v.require_plain("k or v", "plain: one token a row")?;
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

    /// Writes the rows `rows` of `k` and `v` at positions from `position` on, all in one page that is
    /// exclusive to the sequence.
    pub(in crate::attention) fn put(
        &mut self,
        sequence: usize,
        position: usize,
        (k, v): (MatRef<'_>, MatRef<'_>),
        rows: Range<usize>,
    ) {
        let entry = self.geometry.entry(position / CHUNK);
        let page = self.table(sequence)[entry];
        let KvCacheOptions { head_dim, value_dim, keys, values, latent, .. } = self.options;
        let (page, slot) = (self.pool.page_mut(page), position % CHUNK);
        let of = |x, dim| codec::Rows { x, rows: rows.clone(), dim, slot };
        codec::write_keys(&self.layout, keys, page, of(k, head_dim));
        if !latent {
            codec::write_values(&self.layout, values, page, of(v, value_dim));
        }
    }
}
