//! Weights that are floats of 8 bits.

use super::args::{Array, choose};
use super::context::{kvern_context, with_context};
use super::dtype::kvern_dtype;
use super::import::widened;
use super::quant::kvern_weights;
use super::status::{Checked, kvern_status};
use super::{create, guard};
use crate::error::product;
use crate::quant::PackedWeights;
use crate::quant::import::{Float8, Float8Kind, Mxfp8, float8_tiles};
use std::ffi::c_void;

/// A kind of floats of 8 bits: a `KVERN_FLOAT8_*` number.
pub type kvern_float8 = i32;

/// 4 bits of exponent, 3 of mantissa: 448 at most, no infinity (float8_e4m3fn).
pub const KVERN_FLOAT8_E4M3: kvern_float8 = 0;
/// 5 bits of exponent, 2 of mantissa: 57344 at most (float8_e5m2).
pub const KVERN_FLOAT8_E5M2: kvern_float8 = 1;

fn kind_of(number: kvern_float8) -> Checked<Float8Kind> {
    let values = [(KVERN_FLOAT8_E4M3, Float8Kind::E4m3), (KVERN_FLOAT8_E5M2, Float8Kind::E5m2)];
    choose("kind", number, "a KVERN_FLOAT8 number", &values)
}

/// Packs weights that are floats of 8 bits with a scale for each tile: `w[i][j] = value(codes[i][j]) *
/// scales[i / tile_rows][j / tile_cols]`. Their products take f32 activations, whatever KVERN_COMPUTE number
/// is asked for.
///
/// `kind`: a `KVERN_FLOAT8_*` number. `tile_rows`, `tile_cols`: rows and columns that share a scale; n and k
/// for one in all, 1 and k for one for each output feature. `tile_cols` is a multiple of 32, or k at least; k
/// a multiple of 32; the last tiles may be smaller. `codes`: (n, k). `scales`: (ceil(n / tile_rows),
/// ceil(k / tile_cols)) of `scales_dtype`, a `KVERN_DTYPE_*` number. Arrays without gaps. `out`: receives the
/// object, NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (a code that is NaN or infinite), RESOURCE. Threads:
/// `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_float8(
    ctx: *const kvern_context,
    kind: kvern_float8,
    tile_rows: usize,
    tile_cols: usize,
    n: usize,
    k: usize,
    codes: *const u8,
    scales_dtype: kvern_dtype,
    scales: *const c_void,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let (kind, tile) = (kind_of(kind)?, (tile_rows, tile_cols));
            let (down, across) = float8_tiles((n, k), tile)?;
            let codes = Array::new("codes", codes, product("codes", &[n, k])?)?.get();
            let len = product("scales", &[down, across])?;
            let scales = &widened(["scales", "scales_dtype"], scales_dtype, scales, len)?[..];
            let w = Float8 { n, k, kind, tile, codes, scales };
            with_context(ctx, |ctx| Ok(kvern_weights(PackedWeights::from_float8_on(ctx, &w)?)))
        })
    })
}

/// Packs weights that are floats of 8 bits with a power of two for each 32 input features (MXFP8): `w[i][j] =
/// value(codes[i][j]) * 2^(scales[i][j / 32] - 127)`. Products as with `kvern_weights_from_float8`.
///
/// `kind`: a `KVERN_FLOAT8_*` number. k must be a multiple of 32. `codes`: (n, k). `scales`: (n, k / 32),
/// exponents, 255 for NaN. Arrays without gaps. `out`: receives the object, NULL on failure.
/// Errors: NULL_POINTER, OVERFLOW, OPTION (a code that is NaN or infinite), RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_mxfp8(
    ctx: *const kvern_context,
    kind: kvern_float8,
    n: usize,
    k: usize,
    codes: *const u8,
    scales: *const u8,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let kind = kind_of(kind)?;
            let (down, across) = float8_tiles((n, k), (1, 32))?;
            let codes = Array::new("codes", codes, product("codes", &[n, k])?)?.get();
            let scales = Array::new("scales", scales, product("scales", &[down, across])?)?.get();
            let w = Mxfp8 { n, k, kind, codes, scales };
            with_context(ctx, |ctx| Ok(kvern_weights(PackedWeights::from_mxfp8_on(ctx, &w)?)))
        })
    })
}
