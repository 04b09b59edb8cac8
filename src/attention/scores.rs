//! Score modifiers (soft cap, ALiBi, masks) between `Q K^T` and softmax, and which keys masks leave to a row.

use super::call::{Block, Call, Query};
use super::options::CHUNK;
use super::visible::Seen;
use crate::kernels::Adjust;
use std::f32::consts::LOG2_E;
use std::ops::Range;

impl Call<'_> {
    /// Modifies the scores `keys` (counted from the chunk's start) of one row.
    pub(super) fn modify(
        &self,
        block: &Block,
        query: Query,
        index: usize,
        keys: &Range<usize>,
        scores: &mut [f32],
    ) {
        let scores = &mut scores[keys.clone()];
        let first = block.visible.first;
        let keys = positions(index, keys);
        let (mask, seen) = self.bias.rows(self.q.rows(), query.row, query.head, keys.clone());
        let slope = self.bias.alibi.map_or(0.0, |slopes| slopes[query.head] * LOG2_E);
        if self.cap != 0.0 || slope != 0.0 || mask.is_some() {
            let offset = (keys.start as i64 - (first + query.token) as i64) as f32;
            let by = Adjust { cap: self.cap, slope, offset, mask, mask_factor: LOG2_E };
            self.kernels.adjust(scores, &by);
        }
        if let Some(seen) = seen {
            self.kernels.hide(scores, seen);
        }
        let tree = self.bias.tree_row(query.row, first, &keys);
        let prefix = scores.len() - tree.len();
        self.kernels.hide(&mut scores[prefix..], tree);
    }

    /// Whether the masks leave any of `keys` (counted from the chunk's start) to a row.
    pub(super) fn sees_any(&self, block: &Block, query: Query, index: usize, keys: &Range<usize>) -> bool {
        let keys = positions(index, keys);
        let (mask, seen) = self.bias.rows(self.q.rows(), query.row, query.head, keys.clone());
        let tree = self.bias.tree_row(query.row, block.visible.first, &keys);
        mask.is_none_or(|mask| mask.iter().any(|&x| x != f32::NEG_INFINITY))
            && seen.is_none_or(|seen| seen.contains(&true))
            && (tree.len() < keys.len() || tree.contains(&true))
    }

    /// Whether a row sees a key of `seen` (counted from the chunk's start), masks and hole included.
    pub(super) fn sees(
        &self,
        block: &Block,
        query: Query,
        index: usize,
        seen: &Seen,
    ) -> impl Fn(usize) -> bool {
        let keys = positions(index, &seen.keys);
        let (mask, allowed) = self.bias.rows(self.q.rows(), query.row, query.head, keys.clone());
        let tree = self.bias.tree_row(query.row, block.visible.first, &keys);
        let prefix = keys.len() - tree.len();
        move |key: usize| {
            let n = key - seen.keys.start;
            !seen.hole.contains(&key)
                && mask.is_none_or(|mask| mask[n] != f32::NEG_INFINITY)
                && allowed.is_none_or(|allowed| allowed[n])
                && (n < prefix || tree[n - prefix])
        }
    }
}

/// Keys counted from the start of the chunk `index`, as positions.
fn positions(index: usize, keys: &Range<usize>) -> Range<usize> {
    index * CHUNK + keys.start..index * CHUNK + keys.end
}
