//! Score modifiers that a call brings: ALiBi slopes, masks, learned sinks.

use super::options::check_exp2_factor;
use crate::error::{Error, Result, equal, product};
use crate::fp_mode;
use crate::view::MatRef;
use std::ops::Range;

/// Score modifiers of a call, borrowed from the caller. All are absent by default.
///
/// - **Formula**: for query i, head h and key j, with `s = scale * q . k` (soft-capped where the options say
///   so): `s - alibi[h] * |position of i - j| + mask[i][j]`, and -inf where `seen[i][j]` or the tree is
///   false. Masks narrow what causality and window leave.
/// - **Shapes**: a row of a mask belongs to a row of the queries; with several sequences in a call the rows
///   of a sequence follow those of the sequence before it. A mask has as many columns as the longest sequence
///   has keys.
/// - **Numerics**: a key whose mask is -inf or false contributes exactly nothing, whatever is stored there. A
///   finite mask only adds to the score: a sum beyond FLT_MAX / log2 e (2.358e38) in magnitude counts as that
///   number. Where every key that a row may see has the mask -FLT_MAX, as frameworks write for padding, the
///   scores are equal, the row is the mean of the values, and its log-sum-exp is about -2.358e38. Learned
///   sinks have the same limit.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Bias<'a> {
    /// ALiBi slopes (Press et al. 2022), one for each query head: see [`alibi_slopes`]. At most
    /// FLT_MAX / log2 e (2.358e38) in magnitude.
    pub alibi: Option<&'a [f32]>, // (heads)
    /// Additive mask; one for all heads, or row `h * q.rows + i` for head h.
    pub mask: Option<MatRef<'a>>, // (q.rows or heads * q.rows, kv_len)
    /// Boolean mask, true for keys that are seen; rows as in `mask`.
    pub seen: Option<MatRef<'a, bool>>, // (q.rows or heads * q.rows, kv_len)
    /// Boolean mask among the last keys of a sequence, those of its queries themselves: branches of a tree of
    /// drafts. Keys before them are not masked by it.
    pub tree: Option<MatRef<'a, bool>>, // (q.rows, queries of a sequence)
    /// Learned sinks: a score for each query head that takes part in its softmax without a value.
    pub sink_logits: Option<&'a [f32]>, // (heads)
}

/// Sizes that modifiers depend on.
#[derive(Clone, Copy)]
pub(super) struct BiasShape {
    pub heads: usize,
    /// Rows of the queries of all sequences.
    pub q_rows: usize,
    /// Queries of each sequence.
    pub q_len: usize,
    /// Keys of the longest sequence.
    pub kv_len: usize,
}

impl<'a> Bias<'a> {
    /// Sets the ALiBi slopes.
    pub fn alibi(mut self, slopes: &'a [f32]) -> Bias<'a> {
        self.alibi = Some(slopes);
        self
    }

    /// Sets the additive mask.
    pub fn mask(mut self, mask: MatRef<'a>) -> Bias<'a> {
        self.mask = Some(mask);
        self
    }

    /// Sets the boolean mask.
    pub fn seen(mut self, seen: MatRef<'a, bool>) -> Bias<'a> {
        self.seen = Some(seen);
        self
    }

    /// Sets the mask among the tokens of the queries.
    pub fn tree(mut self, tree: MatRef<'a, bool>) -> Bias<'a> {
        self.tree = Some(tree);
        self
    }

    /// Sets the learned sinks.
    pub fn sink_logits(mut self, logits: &'a [f32]) -> Bias<'a> {
        self.sink_logits = Some(logits);
        self
    }

    /// Whether scores change between product and softmax.
    pub(super) fn changes_scores(&self) -> bool {
        self.alibi.is_some() || self.masks()
    }

    /// Whether keys may be masked one by one.
    pub(super) fn masks(&self) -> bool {
        self.mask.is_some() || self.seen.is_some() || self.tree.is_some()
    }

    /// Checks all shapes.
    pub(super) fn check(&self, shape: BiasShape) -> Result<()> {
        let BiasShape { heads, q_rows, q_len, kv_len } = shape;
        if let Some(slopes) = self.alibi {
            equal("alibi.len", slopes.len(), "must equal heads =", heads)?;
            slopes.iter().try_for_each(|&slope| check_exp2_factor("alibi * log2 e", slope))?;
        }
        if let Some(logits) = self.sink_logits {
            equal("sink_logits.len", logits.len(), "must equal heads =", heads)?;
        }
        if let Some(mask) = self.mask {
            check_mask(["mask", "mask.rows", "mask.cols"], mask, heads, q_rows, kv_len)?;
        }
        if let Some(seen) = self.seen {
            check_mask(["seen", "seen.rows", "seen.cols"], seen, heads, q_rows, kv_len)?;
        }
        if let Some(tree) = self.tree {
            equal("tree.rows", tree.rows(), "must equal q.rows =", q_rows)?;
            equal("tree.cols", tree.cols(), "must equal the queries of a sequence =", q_len)?;
            tree.require_plain("tree", "plain: one query a row")?;
        }
        Ok(())
    }

    /// The rows of query row `i` of `q_rows` and head `h` for the keys `keys` (absolute): additive mask,
    /// boolean mask.
    pub(super) fn rows(
        &self,
        q_rows: usize,
        i: usize,
        h: usize,
        keys: Range<usize>,
    ) -> (Option<&'a [f32]>, Option<&'a [bool]>) {
        (
            self.mask.and_then(|m| m.row(row_of(m.rows(), q_rows, i, h))).map(|row| &row[keys.clone()]),
            self.seen.and_then(|m| m.row(row_of(m.rows(), q_rows, i, h))).map(|row| &row[keys]),
        )
    }

    /// The tree's row of query row `i` for those of `keys` (absolute) that are at `first` or after; empty
    /// without.
    pub(super) fn tree_row(&self, i: usize, first: usize, keys: &Range<usize>) -> &'a [bool] {
        let row = self.tree.and_then(|tree| tree.row(i)).unwrap_or_default();
        let (start, end) = (keys.start.saturating_sub(first), keys.end.saturating_sub(first));
        row.get(start..end).unwrap_or_default()
    }
}

/// A mask of all heads has q_rows rows; one of each head has theirs one head after the other.
fn row_of(rows: usize, q_rows: usize, i: usize, h: usize) -> usize {
    if rows == q_rows { i } else { h * q_rows + i }
}

fn check_mask<T: Copy>(
    [name, rows, cols]: [&'static str; 3],
    mask: MatRef<'_, T>,
    heads: usize,
    q_rows: usize,
    kv_len: usize,
) -> Result<()> {
    if mask.rows() != q_rows && mask.rows() != product("heads * q.rows", &[heads, q_rows])? {
        let relation = "must equal q.rows, or heads times as many; q.rows =";
        return Err(Error::Shape { what: rows, got: mask.rows(), relation, want: q_rows });
    }
    equal(cols, mask.cols(), "must equal the number of keys =", kv_len)?;
    mask.require_plain(name, "plain: one query a row")
}

/// The usual ALiBi slopes of `slopes.len()` heads: `2^(-8 (h + 1) / n)` for the first n heads, n the greatest
/// power of two in it, and for the others every second slope of 2n heads.
///
/// - **Numerics**: f64 by `libm`, rounded once.
/// - **Source**: Press, Smith & Lewis 2022, with the authors' rule for other numbers of heads.
pub fn alibi_slopes(slopes: &mut [f32]) {
    let _mode = fp_mode::default_mode();
    let heads = slopes.len();
    let n = if heads == 0 { 0 } else { 1usize << heads.ilog2() };
    for (h, slope) in slopes.iter_mut().enumerate() {
        let exponent =
            if h < n { (h + 1) as f64 / n as f64 } else { (2 * (h - n) + 1) as f64 / (2 * n) as f64 };
        *slope = libm::exp2(-8.0 * exponent) as f32;
    }
}
