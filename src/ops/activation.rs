//! Activations, the gated product and the residual addition.

use super::{for_each_row, same_shape};
use crate::context::Context;
use crate::error::Result;
use crate::fp_mode;
use crate::kernels::{Binary, Unary};
use crate::matmul::Activation;
use crate::view::{MatMut, MatRef};

/// `x = act(x)`, in place.
///
/// - **Numerics**: see [`Activation`]; exponentials by the library's polynomial (relative error below 2e-7),
///   divisions exact.
/// - **Cost**: one pass, allocates nothing.
pub fn activate(ctx: &Context, activation: Activation, x: MatMut<'_>) {
    let _mode = fp_mode::default_mode();
    let f = match activation {
        Activation::Identity => return,
        Activation::Relu => Unary::Relu,
        Activation::Gelu => Unary::Gelu,
        Activation::Silu => Unary::Silu,
    };
    let kernels = ctx.kernels();
    for_each_row(ctx, x, &|_, x| kernels.unary(f, x));
}

/// `x = silu(x) * z`, in place: the gate of SwiGLU (Shazeer 2020).
///
/// - **Shapes**: `x`, `z`: (rows, n).
/// - **Errors**: `Shape`, `Option` for a transposed `z`.
/// - **Cost**: one pass.
pub fn silu_mul(ctx: &Context, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    binary(ctx, Binary::SiluMul, x, z)
}

/// `x = x + z`, in place: the residual addition.
///
/// - **Shapes**: `x`, `z`: (rows, n).
/// - **Errors**: `Shape`, `Option` for a transposed `z`.
/// - **Cost**: one pass.
pub fn add(ctx: &Context, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    binary(ctx, Binary::Add, x, z)
}

fn binary(ctx: &Context, f: Binary, x: MatMut<'_>, z: MatRef<'_>) -> Result<()> {
    let _mode = fp_mode::default_mode();
    same_shape(["z.rows", "z.cols", "z"], z, &x)?;
    let kernels = ctx.kernels();
    for_each_row(ctx, x, &|i, x| {
        if let Some(z) = z.row(i) {
            kernels.binary(f, x, z);
        }
    });
    Ok(())
}
