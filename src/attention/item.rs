//! The fused loops: for each block of queries, chunks of keys in ascending order; for each chunk, strips
//! of query rows through scores, softmax, values and merge.
//!
//! The query heads of a kv head are rows of the same tiles, so keys and values are read once for the whole
//! group. A strip of scores is 6 x 256 and never leaves L1.

use super::bias::Bias;
use super::chunk::Chunk;
use super::shape::Shape;
use super::source::{Source, Streams};
use super::visible::{Chunks, Seen, Visible};
use super::{AttentionOptions, CHUNK};
use crate::buffer::Arena;
use crate::kernels::{KernelSet, MOST_ROWS, Operand};
use crate::tiles::Origin;
use crate::view::{MatMut, MatRef};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// The most rows of a strip on any tier.
const STRIP: usize = MOST_ROWS;

/// Maximum (exp2 domain) and sum of a row of probabilities.
pub(super) type Part = (f32, f32);

/// The part of a row that sees nothing.
pub(super) const NOTHING: Part = (f32::NEG_INFINITY, 0.0);

/// What takes a strip: the lane with its sums, its rows, and their parts.
pub(super) type StripDone<'a> = dyn FnMut(&mut Lane<'_>, Range<usize>, &[Part]) + 'a;

/// What all work items of a call share.
pub(super) struct Item<'a> {
    pub kernels: &'static KernelSet,
    pub shape: Shape,
    options: &'a AttentionOptions,
    pub bias: &'a Bias<'a>,
    pub q: MatRef<'a>,
    streams: Streams<'a>,
    /// Factor of the queries.
    factor: f32,
    /// Factor after the tanh of a soft cap; 0 without.
    pub cap: f32,
    /// Whether a pass over the scores changes them.
    adjusts: bool,
}

/// Queries of one sequence that a lane works on, and the kv head whose group they are of.
pub(super) struct Block<'a> {
    source: Source<'a>,
    pub visible: Visible,
    /// The first query as a row of `q`.
    row: usize,
    /// The first query, counted from the first one of the sequence.
    token: usize,
    pub tokens: usize,
    kv_head: usize,
}

impl Block<'_> {
    fn queries(&self) -> Range<usize> {
        self.token..self.token + self.tokens
    }

    /// The chunks that some query sees.
    pub fn chunks(&self) -> Chunks {
        self.visible.chunks(&self.queries())
    }
}

/// One row of a strip: a query and a head of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Query {
    /// Counted from the first query of the sequence.
    pub token: usize,
    /// Row of `q` and of masks.
    pub row: usize,
    pub head: usize,
}

/// Scratch of a lane, named. Rows are (token, head of the group).
pub(super) struct Lane<'a> {
    q: &'a mut [f32], // (rows, key_dim), scaled up to row `loaded`
    loaded: usize,
    pub o: &'a mut [f32],     // (rows, value_dim)
    pub state: &'a mut [f32], // (rows, 2): m, l
    scores: &'a mut [f32],    // (mr, CHUNK)
    pub sums: &'a mut [f32],  // (mr, value_dim)
}

impl<'a> Item<'a> {
    pub fn new(
        kernels: &'static KernelSet,
        options: &'a AttentionOptions,
        shape: Shape,
        bias: &'a Bias<'a>,
        q: MatRef<'a>,
        streams: Streams<'a>,
    ) -> Item<'a> {
        let scale = options.scale.unwrap_or(1.0 / (shape.key_dim as f32).sqrt());
        // Scores live in the exp2 domain.
        let (factor, cap) = match options.softcap {
            None => (scale * LOG2_E, 0.0),
            Some(cap) => (scale / cap, cap * LOG2_E),
        };
        let adjusts = cap != 0.0 || bias.changes_scores();
        Item { kernels, shape, options, bias, q, streams, factor, cap, adjusts }
    }

    /// The queries from row `row` of `q` on that are of one sequence, at most `tokens` of them.
    pub fn block(&self, row: usize, tokens: usize, kv_head: usize) -> Option<Block<'a>> {
        let (slot, token) = (row / self.shape.q_len, row % self.shape.q_len);
        let source = self.streams.source(slot);
        let visible = Visible::new(self.options, &source, self.shape.q_len, self.bias.tree.is_some());
        debug_assert!(visible.is_ok(), "every sequence was checked");
        let tokens = tokens.min(self.shape.q_len - token);
        Some(Block { source, visible: visible.ok()?, row, token, tokens, kv_head })
    }

    /// One work item: some tokens, the heads of one kv head. A tile that reaches over the end of a sequence is as
    /// many blocks as sequences that it touches, one after the other.
    pub fn run(&self, arena: Arena<'_>, at: Origin, mut out: MatMut<'_>, mut lse: MatMut<'_>) {
        let (dim, group) = (self.shape.value_dim, self.shape.group);
        let (rows, kv_head) = (out.rows(), at.col / (group * dim));
        let (mut lane, panel) = self.lane(arena);
        let mut done = 0;
        while done < rows {
            let Some(block) = self.block(at.row + done, rows - done, kv_head) else { return };
            let (lse_rows, lse_cols) = (lse.rows().min(block.tokens), lse.cols());
            let block_out = out.tile(done, 0, block.tokens, group * dim);
            let block_lse = lse.tile(done, 0, lse_rows, lse_cols);
            self.run_block(&mut lane, panel, &block, block_out, block_lse);
            done += block.tokens;
        }
    }

    /// The chunks of a block in ascending order, merged into its rows.
    fn run_block(
        &self,
        lane: &mut Lane<'_>,
        panel: &mut [f32],
        block: &Block<'_>,
        mut out: MatMut<'_>,
        mut lse: MatMut<'_>,
    ) {
        let (dim, group) = (self.shape.value_dim, self.shape.group);
        self.start(lane, block);
        let chunks = block.chunks();
        let mut finished = 0;
        for n in 0..chunks.len() {
            self.chunk(lane, panel, block, chunks.index(n), &mut |lane, rows, parts| {
                let end = rows.end;
                for (i, (row, part)) in rows.zip(parts).enumerate() {
                    let Lane { o, state, sums, .. } = lane;
                    let (state, sum) = (&mut state[2 * row..2 * row + 2], &sums[i * dim..(i + 1) * dim]);
                    self.merge(state, &mut o[row * dim..(row + 1) * dim], *part, sum);
                }
                // Right after its last chunk: the row is in L1, and the next strip computes while it is stored.
                if n + 1 == chunks.len() {
                    self.finish(lane, finished..end, &mut out, &mut lse);
                    finished = end;
                }
            });
        }
        self.finish(lane, finished..block.tokens * group, &mut out, &mut lse);
    }

    /// Scales the queries of a block up to row `end` where that is still to do, and asks for the next ones:
    /// strip by strip, because a whole block of queries at once is a wait for memory, 5 % of a prefill.
    fn load(&self, lane: &mut Lane<'_>, block: &Block<'_>, end: usize) {
        let (dim, group) = (self.shape.key_dim, self.shape.group);
        let query = |row: usize| {
            &self.q.from(block.row + row / group, (block.kv_head * group + row % group) * dim)[..dim]
        };
        let strip = end.saturating_sub(lane.loaded);
        for row in lane.loaded..end {
            self.kernels.scale(query(row), self.factor, &mut lane.q[row * dim..(row + 1) * dim]);
            let ahead = row + strip;
            if ahead < block.tokens * group {
                self.kernels.prefetch(bytemuck::cast_slice(query(ahead)));
            }
        }
        lane.loaded = lane.loaded.max(end);
    }

    /// Starts the running state of a block's rows: nothing seen, or the learned sink.
    pub fn start(&self, lane: &mut Lane<'_>, block: &Block<'_>) {
        lane.loaded = 0;
        let (group, rows) = (self.shape.group, block.tokens * self.shape.group);
        lane.o[..rows * self.shape.value_dim].fill(0.0);
        for (row, state) in lane.state.chunks_exact_mut(2).take(rows).enumerate() {
            let (m, l) = match self.bias.sink_logits {
                Some(logits) => (in_exp2_domain(logits[block.kv_head * group + row % group]), 1.0),
                None => NOTHING,
            };
            state.copy_from_slice(&[m, l]);
        }
    }

    /// Merges one chunk's part and sum into the running state of a row.
    pub fn merge(&self, state: &mut [f32], o: &mut [f32], part: Part, sum: &[f32]) {
        let (m, l) = self.kernels.chunk_merge((state[0], state[1]), o, part, sum);
        state.copy_from_slice(&[m, l]);
    }

    /// Divides rows of a block, and writes them out.
    pub fn finish(
        &self,
        lane: &mut Lane<'_>,
        rows: Range<usize>,
        out: &mut MatMut<'_>,
        lse: &mut MatMut<'_>,
    ) {
        let (dim, group, strip) = (self.shape.value_dim, self.shape.group, rows.len());
        for row in rows {
            let ahead = row + strip;
            if ahead / group < out.rows() {
                let next = &out.row(ahead / group)[ahead % group * dim..][..dim];
                self.kernels.prefetch(bytemuck::cast_slice(next));
            }
            let (t, h) = (row / group, row % group);
            let (o, state) = (&mut lane.o[row * dim..(row + 1) * dim], &lane.state[2 * row..2 * row + 2]);
            self.kernels.divide(o, state[1]);
            out.row(t)[h * dim..(h + 1) * dim].copy_from_slice(o);
            if let Some(lse) = lse.row(t).get_mut(h) {
                let log2 = f64::from(state[0]) + libm::log2(f64::from(state[1]));
                *lse = (log2 * std::f64::consts::LN_2) as f32;
            }
        }
    }

    /// One chunk against the strips of a block; `done` gets the lane with the sums of a strip, its rows
    /// and their parts.
    pub fn chunk(
        &self,
        lane: &mut Lane<'_>,
        panel: &mut [f32],
        block: &Block<'_>,
        index: usize,
        done: &mut StripDone<'_>,
    ) {
        let keys = block.visible.hull(&block.queries(), index);
        if keys.is_empty() {
            return;
        }
        let rows = block.tokens * self.shape.group;
        let strip = rows.div_ceil(rows.div_ceil(self.kernels.mr()));
        let chunk = block.source.chunk(
            self.kernels,
            (block.kv_head, index),
            keys,
            rows,
            self.options.precision,
            panel,
        );
        for row in (0..rows).step_by(strip) {
            let strip = row..rows.min(row + strip);
            self.load(lane, block, strip.end);
            if let Some(parts) = self.strip(lane, &chunk, index, block, strip.clone()) {
                done(lane, strip.clone(), &parts[..strip.len()]);
            }
        }
    }

    /// One strip of at most mr rows against one chunk, the `index`th: leaves `sums`, and returns the parts.
    fn strip(
        &self,
        lane: &mut Lane<'_>,
        chunk: &Chunk<'_>,
        index: usize,
        block: &Block<'_>,
        rows: Range<usize>,
    ) -> Option<[Part; STRIP]> {
        let (mr, dim, key_dim) = (rows.len(), self.shape.value_dim, self.shape.key_dim);
        let query = |i: usize| {
            let (t, h) = ((rows.start + i) / self.shape.group, (rows.start + i) % self.shape.group);
            Query { token: block.token + t, row: block.row + t, head: block.kv_head * self.shape.group + h }
        };
        let mut seen: [Seen; STRIP] = std::array::from_fn(|_| Seen::default());
        let (mut union, mut common) = (0..0, 0..CHUNK);
        for (i, seen) in seen[..mr].iter_mut().enumerate() {
            *seen = block.visible.in_chunk(query(i).token, index);
            if self.bias.masks() && !self.sees_any(block, query(i), index, &seen.keys) {
                *seen = Seen::default();
            }
            let keys = &seen.keys;
            common = common.start.max(keys.start)..common.end.min(keys.end);
            if !seen.hole.is_empty() {
                common = 0..0; // each row on its own
            }
            if union.is_empty() {
                union = keys.clone();
            } else if !keys.is_empty() {
                union = union.start.min(keys.start)..union.end.max(keys.end);
            }
        }
        if union.is_empty() {
            return None;
        }
        let common = chunk.split(common);
        let Lane { q, scores, sums, .. } = lane;
        let q = Operand { data: &q[rows.start * key_dim..], row_stride: key_dim, k_stride: 1 };
        chunk.scores(self.kernels, q, union, MatMut::dense(scores, mr, CHUNK).ok()?);

        let mut parts = [NOTHING; STRIP];
        for (i, Seen { keys, hole }) in
            seen[..mr].iter().enumerate().filter(|(_, seen)| !seen.keys.is_empty())
        {
            let scores = &mut scores[i * CHUNK..(i + 1) * CHUNK];
            if self.adjusts {
                self.adjust(block, query(i), index, keys, scores);
            }
            scores[hole.clone()].fill(f32::NEG_INFINITY);
        }
        self.kernels.chunk_softmax(scores, CHUNK, seen[..mr].iter().map(|seen| &seen.keys), &mut parts);

        // Where all rows see the first keys, the first product starts the sums.
        let mut fresh = !common.is_empty() && seen[..mr].iter().all(|seen| seen.keys.start == common.start);
        if !fresh {
            sums[..mr * dim].fill(0.0);
        }
        // `sums[i] += p[i][keys] V[keys]` for the rows `of` of the strip.
        let mut values = |keys: Range<usize>, of: Range<usize>| {
            if keys.is_empty() {
                return;
            }
            let p =
                Operand { data: &scores[of.start * CHUNK + keys.start..], row_stride: CHUNK, k_stride: 1 };
            let Ok(sums) = MatMut::dense(&mut sums[of.start * dim..], of.len(), dim) else { return };
            chunk.values(self.kernels, p, keys, sums, fresh);
            fresh = false;
        };
        // Keys in ascending order for each row: those before the common range, the common range as one
        // tile, those after it. A key that a row does not see is not touched for it, so that nothing
        // stored there, not even NaN, can reach the row.
        if common.is_empty() {
            for (i, Seen { keys, hole }) in seen[..mr].iter().enumerate() {
                if hole.is_empty() {
                    values(keys.clone(), i..i + 1);
                } else {
                    values(keys.start..hole.start, i..i + 1);
                    values(hole.end..keys.end, i..i + 1);
                }
            }
        } else {
            // The heads of a token see the same keys: one tile for them.
            for rows in runs(&seen[..mr], |keys| keys.start) {
                values(seen[rows.start].keys.start..common.start, rows);
            }
            values(common.clone(), 0..mr);
            for rows in runs(&seen[..mr], |keys| keys.end) {
                values(common.end..seen[rows.start].keys.end, rows);
            }
        }
        // Keys that a mask hides took part with p = 0, which adds nothing unless a value is infinite or NaN.
        // That shows in the sum, so looking there costs 1/256 of looking at the values.
        if self.bias.masks() {
            for i in 0..mr {
                let sum = &mut sums[i * dim..(i + 1) * dim];
                if !sum.iter().all(|x| x.is_finite()) {
                    let scores = &scores[i * CHUNK..(i + 1) * CHUNK];
                    self.repair(block, chunk, query(i), index, &seen[i], scores, sum);
                }
            }
        }
        Some(parts)
    }

    /// The lane's scratch, and the panel of the source.
    pub fn lane<'s>(&self, mut arena: Arena<'s>) -> (Lane<'s>, &'s mut [f32]) {
        let sizes = self.shape.scratch(self.kernels.mr()).unwrap_or_default();
        let [q, o, state, scores, sums, panel] = sizes.map(|len| {
            let part = arena.take::<f32>(len);
            debug_assert!(part.is_ok(), "the lane was sized by the same numbers");
            part.unwrap_or_default()
        });
        (Lane { q, loaded: 0, o, state, scores, sums }, panel)
    }
}

/// A score by `log2 e`; a finite one stays finite, as the sum of a score and a mask does.
fn in_exp2_domain(score: f32) -> f32 {
    let scaled = score * LOG2_E;
    if score.is_finite() { scaled.clamp(f32::MIN, f32::MAX) } else { scaled }
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
