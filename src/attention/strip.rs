//! One strip of query rows against one chunk: visible keys, scores, softmax, weighted values.
//!
//! A strip has at most mr rows, so its scores are 6 x 256 and never leave L1. A key that a row does not see
//! is not touched for that row, so that nothing stored there, not even NaN, can reach it.

use super::call::{Block, Call};
use super::chunk::Chunk;
use super::options::CHUNK;
use super::scratch::{NOTHING, Part, WorkerScratch};
use super::visible::Seen;
use crate::kernels::{MAX_SCORE_ROWS, Operand};
use crate::view::MatMut;
use std::ops::Range;

/// The most rows of a strip on any tier.
const STRIP: usize = MAX_SCORE_ROWS;

/// The parts of the rows of a strip.
pub(super) type Parts = [Part; STRIP];

/// Rows of a block and a chunk that some of them may see.
pub(super) struct Strip<'a> {
    pub call: &'a Call<'a>,
    pub block: &'a Block,
    pub chunk: &'a Chunk<'a>,
    /// Which chunk of the sequence.
    pub index: usize,
    /// Rows of the block.
    pub rows: Range<usize>,
}

/// The keys of the chunk that the rows see, counted from its start.
struct VisibleKeys<'a> {
    of_rows: &'a [Seen],
    /// From the first key that a row sees to the last.
    hull: Range<usize>,
    /// Keys that all rows see and that one product takes; empty where a row has a hole.
    common: Range<usize>,
}

impl Strip<'_> {
    /// Leaves `sums[i] = sum p[i][key] V[key]` for each row, and returns the parts; `None` where no row sees
    /// a key.
    pub fn run(&self, scratch: &mut WorkerScratch<'_>) -> Option<Parts> {
        let mut of_rows: [Seen; STRIP] = std::array::from_fn(|_| Seen::default());
        let visible = self.visible_keys(&mut of_rows[..self.rows.len()])?;
        self.scores(&visible, scratch.q, scratch.scores);
        let parts = self.softmax(&visible, scratch.scores);
        self.weighted_values(&visible, scratch.scores, scratch.sums);
        if self.call.bias.masks() {
            self.repair_masked(&visible, scratch.scores, scratch.sums);
        }
        Some(parts)
    }

    /// Fills `of_rows`, which the caller holds so that it is not copied.
    fn visible_keys<'s>(&self, of_rows: &'s mut [Seen]) -> Option<VisibleKeys<'s>> {
        let (mut hull, mut common) = (0..0, 0..CHUNK);
        for (row, seen) in self.rows.clone().zip(of_rows.iter_mut()) {
            let query = self.call.query(self.block, row);
            *seen = self.block.visible.in_chunk(query.token, self.index);
            if self.call.bias.masks() && !self.call.sees_any(self.block, query, self.index, &seen.keys) {
                *seen = Seen::default();
            }
            let keys = &seen.keys;
            common = common.start.max(keys.start)..common.end.min(keys.end);
            if !seen.hole.is_empty() {
                common = 0..0; // each row on its own
            }
            if hull.is_empty() {
                hull = keys.clone();
            } else if !keys.is_empty() {
                hull = hull.start.min(keys.start)..hull.end.max(keys.end);
            }
        }
        let common = self.chunk.whole_steps(common);
        (!hull.is_empty()).then_some(VisibleKeys { of_rows, hull, common })
    }

    /// `scores[i][key] = q[i] . k[key]`, capped, biased and masked.
    fn scores(&self, visible: &VisibleKeys<'_>, q: &[f32], scores: &mut [f32]) {
        let dim = self.call.shape.key_dim;
        let q = Operand { data: &q[self.rows.start * dim..], row_stride: dim, k_stride: 1 };
        let Ok(tile) = MatMut::dense(scores, self.rows.len(), CHUNK) else { return };
        self.chunk.scores(self.call.kernels, q, visible.hull.clone(), tile);
        let rows = self.rows.clone().zip(visible.of_rows).zip(scores.chunks_exact_mut(CHUNK));
        for ((row, Seen { keys, hole }), scores) in rows.filter(|((_, seen), _)| !seen.keys.is_empty()) {
            if self.call.modifies {
                self.call.modify(self.block, self.call.query(self.block, row), self.index, keys, scores);
            }
            scores[hole.clone()].fill(f32::NEG_INFINITY);
        }
    }

    /// Scores into probabilities against each row's own maximum in this chunk.
    fn softmax(&self, visible: &VisibleKeys<'_>, scores: &mut [f32]) -> Parts {
        let mut parts = [NOTHING; STRIP];
        let keys = visible.of_rows.iter().map(|seen| &seen.keys);
        self.call.kernels.chunk_softmax(scores, CHUNK, keys, &mut parts);
        parts
    }

    /// `sums[i] = sum p[i][key] V[key]`, keys in ascending order for each row: those before the common range,
    /// the common range as one product, those after it.
    fn weighted_values(&self, visible: &VisibleKeys<'_>, p: &[f32], sums: &mut [f32]) {
        let VisibleKeys { of_rows: seen, common, .. } = visible;
        let (rows, dim) = (seen.len(), self.call.shape.value_dim);
        // Where all rows see the first keys, the first product starts the sums.
        let mut fresh = !common.is_empty() && seen.iter().all(|seen| seen.keys.start == common.start);
        if !fresh {
            sums[..rows * dim].fill(0.0);
        }
        // `sums[i] += p[i][keys] V[keys]` for the rows `of` of the strip.
        let mut add = |keys: Range<usize>, of: Range<usize>| {
            if keys.is_empty() {
                return;
            }
            let p = Operand { data: &p[of.start * CHUNK + keys.start..], row_stride: CHUNK, k_stride: 1 };
            let Ok(sums) = MatMut::dense(&mut sums[of.start * dim..], of.len(), dim) else { return };
            self.chunk.values(self.call.kernels, p, keys, sums, fresh);
            fresh = false;
        };
        if common.is_empty() {
            for (i, Seen { keys, hole }) in seen.iter().enumerate() {
                if hole.is_empty() {
                    add(keys.clone(), i..i + 1);
                } else {
                    add(keys.start..hole.start, i..i + 1);
                    add(hole.end..keys.end, i..i + 1);
                }
            }
        } else {
            // The heads of a token see the same keys: one product for them.
            for rows in runs(seen, |keys| keys.start) {
                add(seen[rows.start].keys.start..common.start, rows);
            }
            add(common.clone(), 0..rows);
            for rows in runs(seen, |keys| keys.end) {
                add(common.end..seen[rows.start].keys.end, rows);
            }
        }
    }

    /// Keys that a mask hides took part with p = 0, which adds nothing unless a value is infinite or NaN.
    /// That shows in the sum, so looking at sums costs 1/256 of looking at values. Such a sum is formed anew.
    fn repair_masked(&self, visible: &VisibleKeys<'_>, p: &[f32], sums: &mut [f32]) {
        let sums = sums.chunks_exact_mut(self.call.shape.value_dim);
        for (i, (sum, seen)) in sums.zip(visible.of_rows).enumerate() {
            if !sum.iter().all(|x| x.is_finite()) {
                self.repair_row(self.rows.start + i, seen, &p[i * CHUNK..(i + 1) * CHUNK], sum);
            }
        }
    }

    /// The sum of one row over the keys that it sees, one run of keys after the other.
    #[cold]
    fn repair_row(&self, row: usize, seen: &Seen, p: &[f32], sum: &mut [f32]) {
        let sees = self.call.sees(self.block, self.call.query(self.block, row), self.index, seen);
        sum.fill(0.0);
        let mut key = seen.keys.start;
        while key < seen.keys.end {
            let run = (key..seen.keys.end).take_while(|&key| sees(key)).count();
            if run > 0
                && let Ok(sum) = MatMut::dense(sum, 1, self.call.shape.value_dim)
            {
                let p = Operand { data: &p[key..], row_stride: CHUNK, k_stride: 1 };
                self.chunk.values(self.call.kernels, p, key..key + run, sum, false);
            }
            key += run + 1;
        }
    }
}

/// Runs of rows whose keys have the same `bound`.
fn runs(seen: &[Seen], bound: impl Fn(&Range<usize>) -> usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = bound(&seen.get(start)?.keys);
        let len = seen[start..].iter().take_while(|row| bound(&row.keys) == first).count();
        start += len;
        Some(start - len..start)
    })
}
