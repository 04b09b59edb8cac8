//! Softmax as an operation of its own, and argmax.

use super::for_each_row;
use crate::context::Context;
use crate::view::MatMut;

/// `x = exp(x - max(x)) / sum`, in place, row by row. A row of -inf becomes zeros.
///
/// **Shapes**: `x`: (rows, n). **Numerics**: the sum by 16 lanes; one exact division an element; NaN spreads
/// over its row. **Cost**: three passes over each row, allocates nothing.
pub fn softmax(ctx: &Context, x: MatMut<'_>) {
    let kernels = ctx.kernels();
    for_each_row(ctx, x, &|_, x| kernels.softmax(x));
}

/// The index of the greatest element, the first of equals; NaN is left out, so `None` for an empty slice or
/// one of NaN only.
///
/// **Cost**: one vector pass for the maximum and one scan up to it.
pub fn argmax(ctx: &Context, x: &[f32]) -> Option<usize> {
    let max = ctx.kernels().max(x);
    x.iter().position(|&x| x == max)
}
