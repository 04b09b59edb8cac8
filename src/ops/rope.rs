//! Rotary position embedding (Su et al. 2021).

use super::RopeTable;
use super::for_each_row;
use crate::context::Context;
use crate::error::{Error, Result, at_least, equal};
use crate::fp_mode;
use crate::kernels::Pairs;
use crate::view::MatMut;

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[non_exhaustive]
pub enum RopePairs {
    /// `(i, i + n/2)`: GPT-NeoX, and Llama as converted by Hugging Face.
    Halves = 0,
    /// `(2i, 2i + 1)`: the paper, GPT-J, and Llama as published.
    Interleaved = 1,
}

impl RopePairs {
    pub(crate) fn kernel(self) -> Pairs {
        match self {
            RopePairs::Halves => Pairs::Halves,
            RopePairs::Interleaved => Pairs::Interleaved,
        }
    }
}

/// Rotates each head of each token, in place; token `i` stands at position `first + i`.
///
/// - **Formula**: `(x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos)` for each pair; elements of a head beyond
///   `rotary_dim` stay.
/// - **Shapes**: `x`: (tokens, heads * head_dim).
/// - **Numerics**: one product and one FMA an element.
/// - **Errors**: `Shape` when the table is too short or wider than a head, or x.cols is no multiple of
///   head_dim; nothing is changed then.
/// - **Cost**: one pass, allocates nothing.
pub fn rope(
    ctx: &Context,
    table: &RopeTable,
    pairs: RopePairs,
    head_dim: usize,
    first: usize,
    x: MatMut<'_>,
) -> Result<()> {
    let end = first.checked_add(x.rows()).ok_or(Error::Overflow { what: "first + x.rows" })?;
    check(table, head_dim, x.cols())?;
    if end > table.first() + table.positions() {
        let (relation, want) = ("must be at most the table's positions =", table.first() + table.positions());
        return Err(Error::Shape { what: "first + x.rows", got: end, relation, want });
    }
    if x.rows() > 0 {
        at_least("first", first, table.first())?;
    }
    rotate(ctx, table, pairs, head_dim, &|i| first + i, x);
    Ok(())
}

/// [`rope`] with a position for each token: branches of a tree of drafts, or tokens of several sequences.
///
/// - **Shapes**: `positions`: (tokens).
/// - **Errors**: as [`rope`]; `Shape` when a position is not in the table or their number is not x.rows.
pub fn rope_at(
    ctx: &Context,
    table: &RopeTable,
    pairs: RopePairs,
    head_dim: usize,
    positions: &[usize],
    x: MatMut<'_>,
) -> Result<()> {
    equal("positions.len", positions.len(), "must equal x.rows =", x.rows())?;
    check(table, head_dim, x.cols())?;
    positions.iter().try_for_each(|&p| table.check("positions", p))?;
    rotate(ctx, table, pairs, head_dim, &|i| positions[i], x);
    Ok(())
}

/// Checks the width of a matrix of heads and the table's width.
pub(crate) fn check(table: &RopeTable, head_dim: usize, cols: usize) -> Result<()> {
    if head_dim == 0 || !cols.is_multiple_of(head_dim) {
        let relation = "must be a multiple of head_dim =";
        return Err(Error::Shape { what: "x.cols", got: cols, relation, want: head_dim });
    }
    if table.rotary_dim() > head_dim {
        let relation = "must be at most head_dim =";
        return Err(Error::Shape { what: "rotary_dim", got: table.rotary_dim(), relation, want: head_dim });
    }
    Ok(())
}

fn rotate(
    ctx: &Context,
    table: &RopeTable,
    pairs: RopePairs,
    head_dim: usize,
    position: &(dyn Fn(usize) -> usize + Sync),
    x: MatMut<'_>,
) {
    let _mode = fp_mode::default_mode();
    let (kernels, kind) = (ctx.kernels(), pairs.kernel());
    for_each_row(ctx, x, &|i, row| {
        let Some((cos, sin)) = table.row(position(i)) else { return };
        for head in row.chunks_exact_mut(head_dim) {
            kernels.rope(kind, &mut head[..table.rotary_dim()], cos, sin);
        }
    });
}
