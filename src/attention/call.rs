//! What all work items of a call share, and the blocks of queries that they are made of.

use super::bias::Bias;
use super::key_values::KeyValues;
use super::options::AttentionOptions;
use super::queries::Queries;
use super::scratch::WorkerScratch;
use super::shape::Shape;
use super::visible::{Chunks, Visible};
use crate::buffer::Arena;
use crate::kernels::KernelSet;
use crate::view::MatRef;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// One call.
pub(super) struct Call<'a> {
    pub kernels: &'static KernelSet,
    pub shape: Shape,
    pub options: &'a AttentionOptions,
    pub bias: &'a Bias<'a>,
    pub q: MatRef<'a>, // (queries of all sequences, heads * key_dim)
    pub queries: Queries<'a>,
    pub kv: &'a dyn KeyValues,
    /// Factor of the queries.
    pub factor: f32,
    /// Factor after the tanh of a soft cap; 0 without.
    pub cap: f32,
    /// Whether scores change between product and softmax.
    pub modifies: bool,
}

/// Queries of one sequence that a worker computes, and the kv head whose group they are of.
pub(super) struct Block {
    pub slot: usize,
    pub visible: Visible,
    /// The first query as a row of `q`.
    pub row: usize,
    /// The first query, counted from the first one of the sequence.
    pub token: usize,
    pub tokens: usize,
    pub kv_head: usize,
}

impl Block {
    pub fn queries(&self) -> Range<usize> {
        self.token..self.token + self.tokens
    }

    /// The chunks that some query sees.
    pub fn chunks(&self) -> Chunks {
        self.visible.chunks(&self.queries())
    }
}

/// One row of a block: a query and a head of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Query {
    /// Counted from the first query of the sequence.
    pub token: usize,
    /// Row of `q` and of masks.
    pub row: usize,
    pub head: usize,
}

impl<'a> Call<'a> {
    pub fn new(
        kernels: &'static KernelSet,
        options: &'a AttentionOptions,
        shape: Shape,
        bias: &'a Bias<'a>,
        (q, queries): (MatRef<'a>, Queries<'a>),
        kv: &'a dyn KeyValues,
    ) -> Call<'a> {
        let scale = options.scale_of(shape.key_dim);
        // Scores live in the exp2 domain.
        let (factor, cap) = match options.softcap {
            None => (scale * LOG2_E, 0.0),
            Some(cap) => (scale / cap, cap * LOG2_E),
        };
        let modifies = cap != 0.0 || bias.changes_scores();
        Call { kernels, shape, options, bias, q, queries, kv, factor, cap, modifies }
    }

    /// The queries from row `row` of `q` on that are of one sequence, at most `tokens` of them.
    pub fn block(&self, row: usize, tokens: usize, kv_head: usize) -> Option<Block> {
        let slot = self.queries.slot(row);
        let queries = self.queries.of(slot);
        let token = row - queries.start;
        let tree = self.bias.tree.is_some();
        let extent = self.kv.extent(slot);
        let visible = extent.and_then(|e| Visible::new(self.options, &e, queries.len(), tree));
        debug_assert!(visible.is_ok(), "every sequence was checked");
        let tokens = tokens.min(queries.end - row);
        Some(Block { slot, visible: visible.ok()?, row, token, tokens, kv_head })
    }

    /// Row `row` of a block.
    pub fn query(&self, block: &Block, row: usize) -> Query {
        let (token, head) = (row / self.shape.group, row % self.shape.group);
        let head = block.kv_head * self.shape.group + head;
        Query { token: block.token + token, row: block.row + token, head }
    }

    /// The scratch of a worker, and the panel of the keys and values.
    pub fn scratch<'s>(&self, arena: Arena<'s>) -> (WorkerScratch<'s>, &'s mut [f32]) {
        WorkerScratch::cut(self.shape.scratch(self.kernels.mr()).unwrap_or_default(), arena)
    }
}
