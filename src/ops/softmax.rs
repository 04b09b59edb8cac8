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
/// **Cost**: one vector pass for the maximum and one up to it.
pub fn argmax(ctx: &Context, x: &[f32]) -> Option<usize> {
    const CHUNK: usize = 64;
    let max = ctx.kernels().max(x);
    // Whole chunks are compared without an exit, which the compiler vectorises; a plain `position` looks at
    // one element at a time, half of the cost of the call.
    let has = |chunk: &[f32]| chunk.iter().fold(false, |any, &x| any | (x == max));
    let chunk = x.chunks(CHUNK).position(has)? * CHUNK;
    x[chunk..].iter().position(|&x| x == max).map(|i| chunk + i)
}
