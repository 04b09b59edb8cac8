//! What changes the scores of a row between the product and the softmax, and what masks mean for its values.

use super::CHUNK;
use super::chunk::Chunk;
use super::item::{Block, Item, Query};
use super::visible::Seen;
use crate::kernels::{Adjust, Operand};
use crate::view::MatMut;
use std::f32::consts::LOG2_E;
use std::ops::Range;

impl Item<'_> {
    /// Softcap, ALiBi and masks of one row; `keys` counted from the chunk's start.
    pub(super) fn adjust(
        &self,
        block: &Block<'_>,
        query: Query,
        index: usize,
        keys: &Range<usize>,
        scores: &mut [f32],
    ) {
        let scores = &mut scores[keys.clone()];
        let first = block.visible.first;
        let keys = index * CHUNK + keys.start..index * CHUNK + keys.end;
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
    pub(super) fn sees_any(
        &self,
        block: &Block<'_>,
        query: Query,
        index: usize,
        keys: &Range<usize>,
    ) -> bool {
        let keys = index * CHUNK + keys.start..index * CHUNK + keys.end;
        let (mask, seen) = self.bias.rows(self.q.rows(), query.row, query.head, keys.clone());
        let tree = self.bias.tree_row(query.row, block.visible.first, &keys);
        mask.is_none_or(|mask| mask.iter().any(|&x| x != f32::NEG_INFINITY))
            && seen.is_none_or(|seen| seen.contains(&true))
            && (tree.len() < keys.len() || tree.contains(&true))
    }

    /// The sum of one row over the keys that it sees, one run of them after the other.
    #[cold]
    #[allow(clippy::too_many_arguments)] // what `strip` knows of one row
    pub(super) fn repair(
        &self,
        block: &Block<'_>,
        chunk: &Chunk<'_>,
        query: Query,
        index: usize,
        seen: &Seen,
        p: &[f32],
        sum: &mut [f32],
    ) {
        let start = index * CHUNK + seen.keys.start;
        let keys = start..start + seen.keys.len();
        let (mask, allowed) = self.bias.rows(self.q.rows(), query.row, query.head, keys.clone());
        let tree = self.bias.tree_row(query.row, block.visible.first, &keys);
        let prefix = keys.len() - tree.len();
        let sees = |key: usize| {
            let n = key - seen.keys.start;
            !seen.hole.contains(&key)
                && mask.is_none_or(|mask| mask[n] != f32::NEG_INFINITY)
                && allowed.is_none_or(|allowed| allowed[n])
                && (n < prefix || tree[n - prefix])
        };
        sum.fill(0.0);
        let mut key = seen.keys.start;
        while key < seen.keys.end {
            let run = (key..seen.keys.end).take_while(|&key| sees(key)).count();
            if run > 0
                && let Ok(sum) = MatMut::dense(sum, 1, self.shape.value_dim)
            {
                let p = Operand { data: &p[key..], row_stride: CHUNK, k_stride: 1 };
                chunk.values(self.kernels, p, key..key + run, sum, false);
            }
            key += run + 1;
        }
    }
}
