//! Rotary position embedding (Su et al. 2021).

use super::for_each_row;
use crate::buffer::AlignedBuf;
use crate::context::Context;
use crate::error::{Error, Result, product};
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

/// Cosines and sines of `position * base^(-2i / rotary_dim)`.
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: AlignedBuf<f32>, // (positions, rotary_dim / 2)
    sin: AlignedBuf<f32>, // (positions, rotary_dim / 2)
    positions: usize,
    rotary_dim: usize,
}

impl RopeTable {
    /// Tables for positions `0..positions`; `rotary_dim` is the rotated part of a head (even), usually all of
    /// it, and `base` usually 10000.
    ///
    /// **Numerics**: computed in f64 by `libm` (the same on every platform) and rounded once. **Errors**:
    /// `Option` for an odd or zero `rotary_dim` or a base that is not positive and finite; `Overflow`;
    /// `Resource`. **Cost**: allocates `4 * positions * rotary_dim` bytes.
    pub fn new(rotary_dim: usize, positions: usize, base: f64) -> Result<RopeTable> {
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
            let (got, allowed) = (rotary_dim.to_string(), "even and at least 2");
            return Err(Error::Option { what: "rotary_dim", got, allowed });
        }
        if !(base > 0.0 && base.is_finite()) {
            let (got, allowed) = (base.to_string(), "positive and finite");
            return Err(Error::Option { what: "base", got, allowed });
        }
        let pairs = rotary_dim / 2;
        let len = product("rope table", &[positions, pairs])?;
        let (mut cos, mut sin) = (AlignedBuf::zeroed(len)?, AlignedBuf::zeroed(len)?);
        for i in 0..pairs {
            let frequency = libm::pow(base, -2.0 * i as f64 / rotary_dim as f64);
            for position in 0..positions {
                let angle = position as f64 * frequency;
                cos.as_mut_slice()[position * pairs + i] = libm::cos(angle) as f32;
                sin.as_mut_slice()[position * pairs + i] = libm::sin(angle) as f32;
            }
        }
        Ok(RopeTable { cos, sin, positions, rotary_dim })
    }

    /// Positions that the table covers.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Elements of a head that are rotated.
    pub fn rotary_dim(&self) -> usize {
        self.rotary_dim
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.cos.bytes() + self.sin.bytes()
    }

    /// Cosines and sines of a position below `positions`, one for each pair.
    pub(crate) fn angles(&self, position: usize) -> (&[f32], &[f32]) {
        let pairs = self.rotary_dim / 2;
        (RopeTable::row(&self.cos, position, pairs), RopeTable::row(&self.sin, position, pairs))
    }

    fn row(table: &AlignedBuf<f32>, position: usize, pairs: usize) -> &[f32] {
        &table.as_slice()[position * pairs..(position + 1) * pairs]
    }
}

/// Rotates each head of each token, in place; token `i` stands at position `first + i`.
///
/// **Formula**: `(x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos)` for each pair; elements of a head beyond
/// `rotary_dim` stay. **Shapes**: `x`: (tokens, heads * head_dim). **Numerics**: one product and one FMA an
/// element. **Errors**: `Shape` when the table is too short or wider than a head, or x.cols is no multiple of
/// head_dim; nothing is changed then. **Cost**: one pass, allocates nothing.
pub fn rope(
    ctx: &Context,
    table: &RopeTable,
    pairs: RopePairs,
    head_dim: usize,
    first: usize,
    x: MatMut<'_>,
) -> Result<()> {
    let cols = x.cols();
    if head_dim == 0 || !cols.is_multiple_of(head_dim) {
        let relation = "must be a multiple of head_dim =";
        return Err(Error::Shape { what: "x.cols", got: cols, relation, want: head_dim });
    }
    if table.rotary_dim > head_dim {
        let relation = "must be at most head_dim =";
        return Err(Error::Shape { what: "rotary_dim", got: table.rotary_dim, relation, want: head_dim });
    }
    let end = first.checked_add(x.rows()).ok_or(Error::Overflow { what: "first + x.rows" })?;
    if end > table.positions {
        let relation = "must be at most the table's positions =";
        return Err(Error::Shape { what: "first + x.rows", got: end, relation, want: table.positions });
    }
    let (kernels, half) = (ctx.kernels(), table.rotary_dim / 2);
    let kind = match pairs {
        RopePairs::Halves => Pairs::Halves,
        RopePairs::Interleaved => Pairs::Interleaved,
    };
    for_each_row(ctx, x, &|i, row| {
        let cos = RopeTable::row(&table.cos, first + i, half);
        let sin = RopeTable::row(&table.sin, first + i, half);
        for head in row.chunks_exact_mut(head_dim) {
            kernels.rope(kind, &mut head[..table.rotary_dim], cos, sin);
        }
    });
    Ok(())
}
