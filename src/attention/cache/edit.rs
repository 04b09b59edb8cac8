//! Changing what a cache holds: forgetting, removing, forking, and keys at other positions.

use super::codec;
use super::kv_cache::KvCache;
use super::options::{KvCacheOptions, at_most};
use super::pool::NONE;
use super::sequence::Sequence;
use crate::attention::options::CHUNK;
use crate::error::{Error, Result, text};
use crate::fma::fma;
use crate::fp_mode;
use crate::ops::{RopePairs, RopeTable};
use std::ops::Range;

impl KvCache {
    /// Forgets every sequence; keeps the memory.
    pub fn clear(&mut self) {
        self.tables.fill(NONE);
        self.sequences.fill(Sequence::default());
        self.pool.reset();
    }

    /// Forgets one sequence; its pages are free for others.
    ///
    /// - **Errors**: `Option` for a sequence that is not there.
    pub fn clear_in(&mut self, sequence: usize) -> Result<()> {
        self.sequence(sequence)?;
        self.sequences[sequence] = Sequence::default();
        self.release_unused(sequence);
        Ok(())
    }

    /// Forgets all tokens from position `len` on: the next append continues there.
    ///
    /// - **Errors**: `Shape` when `len` is beyond the end, or when a wrapped ring no longer holds every token
    ///   that a query at `len` would see; nothing is changed then.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        self.truncate_in(0, len)
    }

    /// [`KvCache::truncate`] of a sequence.
    ///
    /// - **Errors**: also `Option` for a sequence that is not there.
    pub fn truncate_in(&mut self, sequence: usize, len: usize) -> Result<()> {
        let state = self.sequence(sequence)?;
        at_most("len", len, "must be at most the cache's len =", state.len)?;
        if len == 0 {
            return self.clear_in(sequence);
        }
        self.check_seen(&state, len)?;
        // Among the sinks nothing was forgotten.
        let oldest = if len <= self.options.sinks { 0 } else { state.oldest };
        self.sequences[sequence] = Sequence { len, oldest };
        self.release_unused(sequence);
        Ok(())
    }

    /// Removes the tokens of some positions; later ones move down and have lower positions from then on.
    /// Keys keep the rotation of their old position: see [`KvCache::rotate`].
    ///
    /// - **Errors**: `Shape` for a range that is not held or is reversed, for one before tokens that the
    ///   sequence has forgotten, or when a wrapped ring would no longer hold every token that the next query
    ///   sees; `PoolFull` when pages are shared and too few are free to copy them; nothing is changed then.
    /// - **Cost**: one copy of the later tokens; allocates nothing.
    pub fn remove(&mut self, positions: Range<usize>) -> Result<()> {
        self.remove_in(0, positions)
    }

    /// [`KvCache::remove`] from a sequence.
    ///
    /// - **Errors**: also `Option` for a sequence that is not there.
    pub fn remove_in(&mut self, sequence: usize, positions: Range<usize>) -> Result<()> {
        let state = self.check_range(sequence, &positions)?;
        let (to, from) = (positions.start, positions.end);
        if to == from {
            return Ok(());
        }
        let len = state.len - (from - to);
        if len == 0 {
            return self.clear_in(sequence);
        }
        self.check_seen(&state, len)?;
        self.make_unique(sequence, to..len)?;
        for (to, from) in (to..len).zip(from..state.len) {
            self.copy_token(sequence, from, to);
        }
        self.sequences[sequence].len = len;
        self.release_unused(sequence);
        Ok(())
    }

    /// Rotates the stored keys of some positions by `by` positions of a RoPE table, which moves their
    /// rotation from position p to `p + by`: after [`KvCache::remove`] of n tokens, the keys behind them by
    /// `-n`. Positions themselves do not change. In a latent cache the elements behind the latent are
    /// rotated.
    ///
    /// - **Numerics**: `(x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos)`, one product and one FMA an element
    ///   in f32, rounded to the type of the keys: each call adds an error of one rounding to theirs. A table
    ///   whose cosines are scaled (attention factors) is used with the factor taken out.
    /// - **Errors**: `Shape` for a range that is not held, a table that is too short or wider than a head;
    ///   `Option` for quantised keys, whose codes a rotation would quantise a second time, and for a sequence
    ///   that is not there; `PoolFull`; nothing is changed then.
    /// - **Cost**: one pass over the keys; allocates nothing.
    pub fn rotate(
        &mut self,
        sequence: usize,
        positions: Range<usize>,
        by: isize,
        table: &RopeTable,
        pairs: RopePairs,
    ) -> Result<()> {
        let _mode = fp_mode::default_mode();
        self.check_range(sequence, &positions)?;
        let KvCacheOptions { head_dim, keys, .. } = self.options;
        if keys.is_quantized() {
            let (got, allowed) = (text(keys.name()), "f32, f16 or bf16 to be rotated");
            return Err(Error::Option { what: "keys", got, allowed });
        }
        let (relation, most) = match self.options.latent {
            true => ("must be at most head_dim - value_dim =", head_dim - self.options.value_dim),
            false => ("must be at most head_dim =", head_dim),
        };
        at_most("rotary_dim", table.rotary_dim(), relation, most)?;
        if table.first() > 0 {
            let (got, allowed) = (text(table.first()), "0 for a rotation by a difference of positions");
            return Err(Error::Option { what: "the table's first position", got, allowed });
        }
        let angle = by.unsigned_abs();
        at_most(
            "|by| + 1",
            angle.saturating_add(1),
            "must be at most the table's positions =",
            table.positions(),
        )?;
        self.make_unique(sequence, positions.clone())?;
        let ((cos, sin), (unit, _)) = (table.angles(angle), table.angles(0));
        for position in positions {
            self.rotate_token(
                sequence,
                position,
                |i| {
                    let (cos, sin) = (cos[i] / unit[i], sin[i] / unit[i]);
                    (cos, if by < 0 { -sin } else { sin })
                },
                table.rotary_dim() / 2,
                pairs,
            );
        }
        Ok(())
    }

    /// Makes `to` a copy of `from` that shares its pages until one of them writes to them.
    ///
    /// - **Errors**: `Option` for a sequence that is not there.
    /// - **Cost**: copies the page table, no token.
    pub fn fork(&mut self, from: usize, to: usize) -> Result<()> {
        let state = self.sequence(from)?;
        if from == to {
            return Ok(());
        }
        self.clear_in(to)?;
        let entries = self.geometry.entries();
        for entry in 0..entries {
            let page = self.tables[from * entries + entry];
            self.pool.share(page);
            self.tables[to * entries + entry] = page;
        }
        self.sequences[to] = state;
        Ok(())
    }

    /// Checks that a sequence shortened to `len` holds what a query at `len` sees.
    fn check_seen(&self, state: &Sequence, len: usize) -> Result<()> {
        let seen = self.options.window.map_or(len, |window| (window - 1).min(len));
        // The sinks are never forgotten; a window that reaches into them needs no more than them.
        if len - seen < state.oldest && len > self.options.sinks {
            let relation = "must be at least the oldest position held plus the window less 1 =";
            return Err(Error::Shape { what: "len", got: len, relation, want: state.oldest + seen });
        }
        Ok(())
    }

    /// Checks that every position from the start of a range on is held.
    fn check_range(&self, sequence: usize, positions: &Range<usize>) -> Result<Sequence> {
        let state = self.sequence(sequence)?;
        at_most("positions.start", positions.start, "must be at most positions.end =", positions.end)?;
        at_most("positions.end", positions.end, "must be at most the cache's len =", state.len)?;
        if positions.start < state.oldest && state.oldest > self.options.sinks {
            let (got, relation) = (positions.start, "must be at least the oldest position held =");
            return Err(Error::Shape { what: "positions.start", got, relation, want: state.oldest });
        }
        Ok(state)
    }

    /// Gives back the pages that hold no token of the sequence.
    fn release_unused(&mut self, sequence: usize) {
        let (state, entries) = (self.sequences[sequence], self.geometry.entries());
        for entry in 0..entries {
            if !state.holds(&self.geometry, self.options.sinks, entry) {
                self.pool.release(&mut self.tables[sequence * entries + entry]);
            }
        }
    }

    /// Copies a token to another position, whose page is exclusive to the sequence.
    fn copy_token(&mut self, sequence: usize, from: usize, to: usize) {
        let entries = self.geometry.entries();
        let page = |p: usize| self.tables[sequence * entries + self.geometry.entry(p / CHUNK)];
        let (source, target) = (page(from), page(to));
        let (layout, bytes) = (self.layout, self.layout.head_bytes);
        for head in 0..self.options.kv_heads {
            if source == target {
                let part = &mut self.pool.page_mut(target)[head * bytes..(head + 1) * bytes];
                codec::copy_within(&layout, part, from % CHUNK, to % CHUNK);
            } else {
                let (source, target) = self.pool.two(source, target);
                let range = head * bytes..(head + 1) * bytes;
                codec::copy(&layout, &source[range.clone()], from % CHUNK, &mut target[range], to % CHUNK);
            }
        }
    }

    /// Rotates the keys of a position, whose page is exclusive to the sequence.
    fn rotate_token(
        &mut self,
        sequence: usize,
        position: usize,
        angle: impl Fn(usize) -> (f32, f32),
        half: usize,
        pairs: RopePairs,
    ) {
        let entry = self.geometry.entry(position / CHUNK);
        let page = self.table(sequence)[entry];
        let (keys, slot) = (self.options.keys, position % CHUNK);
        let rotated_from = self.options.rotated_from();
        for part in self.pool.page_mut(page).chunks_exact_mut(self.layout.head_bytes) {
            for i in 0..half {
                let (a, b) = match pairs {
                    RopePairs::Halves => (i, i + half),
                    RopePairs::Interleaved => (2 * i, 2 * i + 1),
                };
                let (cos, sin) = angle(i);
                let (a, b) = (rotated_from + a, rotated_from + b);
                let x0 = codec::element(&self.layout, keys, part, slot, a);
                let x1 = codec::element(&self.layout, keys, part, slot, b);
                let y0 = fma(x0, cos, -x1 * sin);
                let y1 = fma(x0, sin, x1 * cos);
                codec::set_element(&self.layout, keys, part, slot, (a, y0));
                codec::set_element(&self.layout, keys, part, slot, (b, y1));
            }
        }
    }
}
