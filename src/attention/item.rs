//! The fused loops: for each block of queries, chunks of keys in ascending order; for each chunk, strips
//! of query rows through scores, softmax, values and merge.
//!
//! The query heads of a kv head are rows of the same tiles, so keys and values are read once for the whole
//! group.

use super::call::{Block, Call};
use super::key_values::ChunkAt;
use super::scratch::{NOTHING, Part, WorkerScratch};
use super::strip::Strip;
use crate::buffer::Arena;
use crate::tiles::Origin;
use crate::view::MatMut;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// What takes a strip: the scratch with its sums, its rows, and their parts.
pub(super) type StripDone<'a> = dyn FnMut(&mut WorkerScratch<'_>, Range<usize>, &[Part]) + 'a;

impl Call<'_> {
    /// One work item: some tokens, the heads of one kv head. A tile that reaches over the end of a sequence
    /// is as many blocks as sequences that it touches, one after the other.
    pub fn run(&self, arena: Arena<'_>, at: Origin, mut out: MatMut<'_>, mut lse: MatMut<'_>) {
        let (dim, group) = (self.shape.value_dim, self.shape.group);
        let (rows, kv_head) = (out.rows(), at.col / (group * dim));
        let (mut scratch, panel) = self.scratch(arena);
        let mut done = 0;
        while done < rows {
            let Some(block) = self.block(at.row + done, rows - done, kv_head) else { return };
            let (lse_rows, lse_cols) = (lse.rows().min(block.tokens), lse.cols());
            let block_out = out.tile(done, 0, block.tokens, group * dim);
            let block_lse = lse.tile(done, 0, lse_rows, lse_cols);
            self.run_block(&mut scratch, panel, &block, block_out, block_lse);
            done += block.tokens;
        }
    }

    /// The chunks of a block in ascending order, merged into its rows.
    fn run_block(
        &self,
        scratch: &mut WorkerScratch<'_>,
        panel: &mut [f32],
        block: &Block,
        mut out: MatMut<'_>,
        mut lse: MatMut<'_>,
    ) {
        let (dim, group) = (self.shape.value_dim, self.shape.group);
        self.start(scratch, block);
        let chunks = block.chunks();
        let mut finished = 0;
        for n in 0..chunks.len() {
            self.chunk(scratch, panel, block, chunks.index(n), &mut |scratch, rows, parts| {
                let end = rows.end;
                for (i, (row, part)) in rows.zip(parts).enumerate() {
                    let WorkerScratch { o, state, sums, .. } = scratch;
                    let (state, sum) = (&mut state[2 * row..2 * row + 2], &sums[i * dim..(i + 1) * dim]);
                    self.merge(state, &mut o[row * dim..(row + 1) * dim], *part, sum);
                }
                // Right after its last chunk: the row is in L1, and the next strip computes while it is
                // stored.
                if n + 1 == chunks.len() {
                    self.finish(scratch, finished..end, &mut out, &mut lse);
                    finished = end;
                }
            });
        }
        self.finish(scratch, finished..block.tokens * group, &mut out, &mut lse);
    }

    /// Scales the queries of a block up to row `end` that are not scaled yet, and prefetches as many behind
    /// them: strip by strip, because a whole block of queries at once is a wait for memory, 5 % of a prefill.
    fn load_queries(&self, scratch: &mut WorkerScratch<'_>, block: &Block, end: usize) {
        let (dim, group) = (self.shape.key_dim, self.shape.group);
        let query = |row: usize| {
            &self.q.from(block.row + row / group, (block.kv_head * group + row % group) * dim)[..dim]
        };
        let strip = end.saturating_sub(scratch.loaded);
        for row in scratch.loaded..end {
            self.kernels.scale(query(row), self.factor, &mut scratch.q[row * dim..(row + 1) * dim]);
            let next = row + strip;
            if next < block.tokens * group {
                self.kernels.prefetch(bytemuck::cast_slice(query(next)));
            }
        }
        scratch.loaded = scratch.loaded.max(end);
    }

    /// Starts the running state of a block's rows: nothing seen, or the learned sink.
    pub fn start(&self, scratch: &mut WorkerScratch<'_>, block: &Block) {
        scratch.loaded = 0;
        let (group, rows) = (self.shape.group, block.tokens * self.shape.group);
        scratch.o[..rows * self.shape.value_dim].fill(0.0);
        for (row, state) in scratch.state.chunks_exact_mut(2).take(rows).enumerate() {
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

    /// Divides rows of a block by their sums, and writes outputs and log-sum-exps.
    pub fn finish(
        &self,
        scratch: &mut WorkerScratch<'_>,
        rows: Range<usize>,
        out: &mut MatMut<'_>,
        lse: &mut MatMut<'_>,
    ) {
        let (dim, group, strip) = (self.shape.value_dim, self.shape.group, rows.len());
        for row in rows {
            let next = row + strip;
            if next / group < out.rows() {
                let next = &out.row(next / group)[next % group * dim..][..dim];
                self.kernels.prefetch(bytemuck::cast_slice(next));
            }
            let (t, h) = (row / group, row % group);
            let (o, state) =
                (&mut scratch.o[row * dim..(row + 1) * dim], &scratch.state[2 * row..2 * row + 2]);
            self.kernels.divide(o, state[1]);
            out.row(t)[h * dim..(h + 1) * dim].copy_from_slice(o);
            if let Some(lse) = lse.row(t).get_mut(h) {
                let log2 = f64::from(state[0]) + libm::log2(f64::from(state[1]));
                *lse = (log2 * std::f64::consts::LN_2) as f32;
            }
        }
    }

    /// One chunk against the strips of a block; `done` gets the scratch with the sums of a strip, its rows
    /// and their parts.
    pub fn chunk(
        &self,
        scratch: &mut WorkerScratch<'_>,
        panel: &mut [f32],
        block: &Block,
        index: usize,
        done: &mut StripDone<'_>,
    ) {
        let keys = block.visible.hull(&block.queries(), index);
        if keys.is_empty() {
            return;
        }
        let rows = block.tokens * self.shape.group;
        let strip = rows.div_ceil(rows.div_ceil(self.kernels.mr()));
        let at = ChunkAt { slot: block.slot, kv_head: block.kv_head, chunk: index };
        let chunk = self.kv.chunk(self.kernels, at, keys, rows, self.options.precision, panel);
        for row in (0..rows).step_by(strip) {
            let rows = row..rows.min(row + strip);
            self.load_queries(scratch, block, rows.end);
            let strip = Strip { call: self, block, chunk: &chunk, index, rows: rows.clone() };
            if let Some(parts) = strip.run(scratch) {
                done(scratch, rows.clone(), &parts[..rows.len()]);
            }
        }
    }
}

/// A score by `log2 e`; a finite one stays finite, as the sum of a score and a mask does.
fn in_exp2_domain(score: f32) -> f32 {
    let scaled = score * LOG2_E;
    if score.is_finite() { scaled.clamp(f32::MIN, f32::MAX) } else { scaled }
}
