//! Quantised weights and blocks.

use super::args::{Array, choose, put, shared};
use super::context::{kvern_context, with_context};
use super::matmul::{Operands, kvern_epilogue};
use super::status::{Checked, kvern_status};
use super::workspace::kvern_workspace;
use super::{create, destroy, guard};
use crate::Context;
use crate::quant::{Compute, PackedWeights, WeightFormat, dequantize, quantize};

/// How weights are stored: a `KVERN_WEIGHT_FORMAT_*` number, the type id of GGUF. Every format that has a
/// number here is converted, packed and multiplied; GGUF's other types are refused with OPTION.
pub type kvern_weight_format = i32;

/// 32 bits a weight: the weight itself.
pub const KVERN_WEIGHT_FORMAT_F32: kvern_weight_format = 0;
/// 16 bits a weight: IEEE binary16.
pub const KVERN_WEIGHT_FORMAT_F16: kvern_weight_format = 1;
/// 4.5 bits a weight, blocks of 32: w = d * (q - 8), d in f16, q in 0..=15.
pub const KVERN_WEIGHT_FORMAT_Q4_0: kvern_weight_format = 2;
/// 5 bits a weight, blocks of 32: w = d * q + m, d and m in f16, q in 0..=15.
pub const KVERN_WEIGHT_FORMAT_Q4_1: kvern_weight_format = 3;
/// 5.5 bits a weight, blocks of 32: w = d * (q - 16), d in f16, q in 0..=31.
pub const KVERN_WEIGHT_FORMAT_Q5_0: kvern_weight_format = 6;
/// 6 bits a weight, blocks of 32: w = d * q + m, d and m in f16, q in 0..=31.
pub const KVERN_WEIGHT_FORMAT_Q5_1: kvern_weight_format = 7;
/// 8.5 bits a weight, blocks of 32: w = d * q, d in f16, q in -128..=127.
pub const KVERN_WEIGHT_FORMAT_Q8_0: kvern_weight_format = 8;
/// 2.625 bits a weight, blocks of 256: w = d * s * q - dmin * t, q in 0..=3, s and t of 4 bits for each 16.
pub const KVERN_WEIGHT_FORMAT_Q2_K: kvern_weight_format = 10;
/// 3.4375 bits a weight, blocks of 256: w = d * s * (q - 4), q in 0..=7, s of 6 bits for each 16.
pub const KVERN_WEIGHT_FORMAT_Q3_K: kvern_weight_format = 11;
/// 4.5 bits a weight, blocks of 256: w = d * s * q - dmin * t, q in 0..=15, s and t of 6 bits for each 32.
pub const KVERN_WEIGHT_FORMAT_Q4_K: kvern_weight_format = 12;
/// 5.5 bits a weight, blocks of 256: w = d * s * q - dmin * t, q in 0..=31, s and t of 6 bits for each 32.
pub const KVERN_WEIGHT_FORMAT_Q5_K: kvern_weight_format = 13;
/// 6.5625 bits a weight, blocks of 256: w = d * s * (q - 32), q in 0..=63, s of 8 bits for each 16.
pub const KVERN_WEIGHT_FORMAT_Q6_K: kvern_weight_format = 14;
/// 2.0625 bits a weight, blocks of 256: w = d * (2 t + 1) / 8 * v, v of a codebook, t of 4 bits for each 32.
pub const KVERN_WEIGHT_FORMAT_IQ2_XXS: kvern_weight_format = 16;
/// 2.3125 bits a weight, blocks of 256: as IQ2_XXS, t of 4 bits for each 16.
pub const KVERN_WEIGHT_FORMAT_IQ2_XS: kvern_weight_format = 17;
/// 3.0625 bits a weight, blocks of 256: w = d * (2 t + 1) / 4 * v, v of a codebook, t of 4 bits for each 32.
pub const KVERN_WEIGHT_FORMAT_IQ3_XXS: kvern_weight_format = 18;
/// 1.5625 bits a weight, blocks of 256: w = d * (2 t + 1) * (v + s / 8), v of a codebook of -1, 0, 1.
pub const KVERN_WEIGHT_FORMAT_IQ1_S: kvern_weight_format = 19;
/// 4.5 bits a weight, blocks of 32: w = d * table[code], 16 values spaced as weights are spread.
pub const KVERN_WEIGHT_FORMAT_IQ4_NL: kvern_weight_format = 20;
/// 3.4375 bits a weight, blocks of 256: w = d * (2 t + 1) * v, v of a codebook, t of 4 bits for each 32.
pub const KVERN_WEIGHT_FORMAT_IQ3_S: kvern_weight_format = 21;
/// 2.5625 bits a weight, blocks of 256: as IQ2_XS, with a sign for each weight.
pub const KVERN_WEIGHT_FORMAT_IQ2_S: kvern_weight_format = 22;
/// 4.25 bits a weight, blocks of 256: w = d * s * table[code], s of 6 bits for each 32.
pub const KVERN_WEIGHT_FORMAT_IQ4_XS: kvern_weight_format = 23;
/// 1.75 bits a weight, blocks of 256: as IQ1_S, t of 3 bits for each 16.
pub const KVERN_WEIGHT_FORMAT_IQ1_M: kvern_weight_format = 29;
/// 16 bits a weight: the upper half of an f32.
pub const KVERN_WEIGHT_FORMAT_BF16: kvern_weight_format = 30;
/// 1.6875 bits a weight, blocks of 256: w = d * (q - 1), q in 0..=2. Packed in 2.0625 bits.
pub const KVERN_WEIGHT_FORMAT_TQ1_0: kvern_weight_format = 34;
/// 2.0625 bits a weight, blocks of 256: w = d * (q - 1), q in 0..=3.
pub const KVERN_WEIGHT_FORMAT_TQ2_0: kvern_weight_format = 35;
/// 4.25 bits a weight, blocks of 32: w = 2^(e - 127) * E2M1[code], NaN for e = 255.
pub const KVERN_WEIGHT_FORMAT_MXFP4: kvern_weight_format = 39;
/// 4.5 bits a weight, blocks of 64: w = d * E2M1[code], d in E4M3 for each 16.
pub const KVERN_WEIGHT_FORMAT_NVFP4: kvern_weight_format = 40;
/// 1.125 bits a weight, blocks of 128: w = d or -d, d in f16.
pub const KVERN_WEIGHT_FORMAT_Q1_0: kvern_weight_format = 41;
/// 2.25 bits a weight, blocks of 64: w = d * (q - 1), d in f16, q in 0..=3.
pub const KVERN_WEIGHT_FORMAT_Q2_0: kvern_weight_format = 42;

/// How a product with quantised weights treats its activations: a `KVERN_COMPUTE_*` number.
pub type kvern_compute = i32;

/// Activations are rounded to int8 in blocks of 32: fast, the default.
pub const KVERN_COMPUTE_INT8: kvern_compute = 0;
/// Activations stay f32: the bits of dequantising first.
pub const KVERN_COMPUTE_F32: kvern_compute = 1;

/// A weight matrix W (n output features, k input features), quantised and packed. Immutable.
#[derive(Debug)]
pub struct kvern_weights(pub(super) PackedWeights);

#[inline(never)]
fn format(number: kvern_weight_format) -> Checked<WeightFormat> {
    let values = WeightFormat::ALL.map(|format| (format as i32, format));
    choose("format", number, "a KVERN_WEIGHT_FORMAT number", &values)
}

/// The way of computing of a number.
#[inline(never)]
pub(super) fn compute(number: kvern_compute) -> Checked<Compute> {
    let values = [Compute::Int8, Compute::F32].map(|compute| (compute as i32, compute));
    choose("compute", number, "a KVERN_COMPUTE number", &values)
}

/// Quantises and packs f32 weights. `w` is not needed afterwards.
///
/// `ctx`: whose threads it runs on and whose memory the object lies in; NULL for the calling thread and the
/// process's allocator. `w`: (n, k), f32, row-major, stride in elements; rows are output features, k a
/// multiple of the block of the format.
/// `out`: receives the object, NULL on failure. A NaN or infinity makes its block NaN.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_quantize(
    ctx: *const kvern_context,
    format: kvern_weight_format,
    n: usize,
    k: usize,
    w: *const f32,
    w_row_stride: usize,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || with_context(ctx, |ctx| quantized(ctx, format, (n, k), w, w_row_stride)))
    })
}

/// # Safety
/// - `w` is NULL or points to memory of the stated shape.
unsafe fn quantized(
    ctx: &Context,
    format: kvern_weight_format,
    (n, k): (usize, usize),
    w: *const f32,
    w_row_stride: usize,
) -> Checked<kvern_weights> {
    let format = self::format(format)?;
    // SAFETY: handed on to the caller.
    let w = unsafe { Array::matrix("w", w, n, k, w_row_stride)?.view()? };
    Ok(kvern_weights(PackedWeights::quantize_on(ctx, format, w)?))
}

/// Packs weights that are quantised already: the data of a GGUF tensor. `blocks` is not needed afterwards.
///
/// `ctx`: whose threads it runs on and whose memory the object lies in; NULL for the calling thread and the
/// process's allocator. `blocks`: n rows of blocks, exactly `kvern_blocks_bytes(format, n, k)` bytes, any
/// alignment.
/// `out`: receives the object, NULL on failure.
/// Errors: NULL_POINTER, OVERFLOW, SHAPE (a wrong `blocks_bytes`), OPTION, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_blocks(
    ctx: *const kvern_context,
    format: kvern_weight_format,
    n: usize,
    k: usize,
    blocks: *const u8,
    blocks_bytes: usize,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || with_context(ctx, |ctx| from_blocks(ctx, format, (n, k), blocks, blocks_bytes)))
    })
}

/// `kvern_weights_from_blocks` of rows that lie `row_bytes` bytes apart: a part of a larger tensor, along n
/// or along k, where it is.
///
/// `blocks`: from the first block of the first row on, at least (n - 1) * `row_bytes` and the bytes of a row;
/// `row_bytes`: at least those. `ctx`, `out`: as there.
/// Errors: NULL_POINTER, OVERFLOW, SHAPE (a `row_bytes` below the bytes of a row), LENGTH (too few
/// `blocks_bytes`), OPTION, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_block_rows(
    ctx: *const kvern_context,
    format: kvern_weight_format,
    n: usize,
    k: usize,
    blocks: *const u8,
    blocks_bytes: usize,
    row_bytes: usize,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            with_context(ctx, |ctx| {
                let format = self::format(format)?;
                let blocks = Array::new("blocks", blocks, blocks_bytes)?.get();
                let w = PackedWeights::from_block_rows_on(ctx, format, (n, k), blocks, row_bytes)?;
                Ok(kvern_weights(w))
            })
        })
    })
}

/// # Safety
/// - `blocks` is NULL or points to as many bytes.
unsafe fn from_blocks(
    ctx: &Context,
    format: kvern_weight_format,
    (n, k): (usize, usize),
    blocks: *const u8,
    blocks_bytes: usize,
) -> Checked<kvern_weights> {
    let format = self::format(format)?;
    // SAFETY: handed on to the caller.
    let blocks = unsafe { Array::new("blocks", blocks, blocks_bytes)?.get() };
    Ok(kvern_weights(PackedWeights::from_blocks_on(ctx, format, n, k, blocks)?))
}

/// Writes the weights as GGUF blocks, bit for bit what was packed.
///
/// `blocks`: receives exactly `kvern_blocks_bytes(format, n, k)` bytes.
/// Errors: NULL_POINTER, OVERFLOW, SHAPE (a wrong `blocks_bytes`), UNSUPPORTED (codes in groups, which have
/// no blocks). Threads: `weights` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_to_blocks(
    weights: *const kvern_weights,
    blocks: *mut u8,
    blocks_bytes: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let weights = shared("weights", weights)?;
        Ok(weights.0.to_blocks(Array::new("blocks", blocks, blocks_bytes)?.get_mut())?)
    })
}

/// Writes row `row` of W (one output feature) in f32, exactly.
///
/// `out`: receives k elements; k must be that of the weights.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE. Threads: `weights` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_dequantize_row(
    weights: *const kvern_weights,
    row: usize,
    k: usize,
    out: *mut f32,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let weights = shared("weights", weights)?;
        Ok(weights.0.dequantize_row(row, Array::new("out", out, k)?.get_mut())?)
    })
}

/// `*out` = the bytes that the packed weights hold: those of the blocks, n rounded up to 16 and k to the
/// unit of the layout (64 or 128 for small blocks).
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_bytes(weights: *const kvern_weights, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("weights", weights)?.0.bytes()) })
}

/// `*out` = the bytes of workspace that `kvern_weights_multiply` needs for up to m rows, gated or not.
///
/// Errors: NULL_POINTER, OPTION, OVERFLOW. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_workspace_bytes(
    ctx: *const kvern_context,
    weights: *const kvern_weights,
    compute: kvern_compute,
    m: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: all are NULL or live, by the header's contract.
    guard(|| unsafe {
        let (ctx, weights) = (shared("ctx", ctx)?, shared("weights", weights)?);
        put("out", out, weights.0.workspace_bytes(&ctx.context, m, self::compute(compute)?)?)
    })
}

/// `C = beta * C + act(alpha * A * W^T + bias)`.
///
/// `a`: (m, k), `c`: (m, n), f32, row-major, strides in elements; n and k must be those of the weights. `c`
/// must not overlap the inputs. `epilogue`: NULL for `C = A * W^T`. Row i of a batch has the bits of the same
/// row alone. Weights of single floats are multiplied exactly whatever `compute` says. With
/// KVERN_COMPUTE_INT8, a NaN or infinity in a row of A makes its row of C NaN. Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, UNSUPPORTED, ALIASED, WORKSPACE, POISONED; C is
/// unchanged then. Threads: `ctx` and `weights` shared, `ws` and C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_multiply(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    weights: *const kvern_weights,
    compute: kvern_compute,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    c: *mut f32,
    c_row_stride: usize,
    epilogue: *const kvern_epilogue,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, weights) = (shared("ctx", ctx)?, shared("weights", weights)?);
        let compute = self::compute(compute)?;
        let operands = Operands::<f32> { m, n, k, a, a_row_stride, c, c_row_stride, epilogue };
        operands.run(ws, |ws, a, c, e| weights.0.multiply(&ctx.context, ws, compute, a, c, e))
    })
}

/// Frees the weights. NULL is a no-op.
///
/// Threads: `weights` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_destroy(weights: *mut kvern_weights) {
    // SAFETY: `weights` is NULL or live and exclusive, by the header's contract.
    unsafe { destroy(weights) }
}

/// `*out` = the bytes of `rows` rows of k weights as GGUF blocks; k a multiple of the block of the format.
///
/// Errors: NULL_POINTER, OPTION, OVERFLOW. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_blocks_bytes(
    format: kvern_weight_format,
    rows: usize,
    k: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: `out` is NULL or writable, by the header's contract.
    guard(|| unsafe { put("out", out, self::format(format)?.bytes(rows, k)?) })
}

/// Quantises f32 values into GGUF blocks: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 byte for byte as the reference
/// implementation of the formats, the others by a search for the least squared error.
///
/// `x`: len elements, a multiple of the block of the format. A NaN or infinity makes its block NaN; MXFP4,
/// which has neither, refuses it with OPTION. `blocks`: receives exactly `kvern_blocks_bytes(format, 1, len)`
/// bytes, any alignment; must not overlap `x`.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_blocks_quantize(
    format: kvern_weight_format,
    x: *const f32,
    len: usize,
    blocks: *mut u8,
    blocks_bytes: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let format = self::format(format)?;
        let x = Array::new("x", x, len)?;
        let blocks = Array::new("blocks", blocks, blocks_bytes)?.apart_from(&[x.span()])?;
        Ok(quantize(format, x.get(), blocks.get_mut())?)
    })
}

/// Dequantises GGUF blocks, exactly but for one rounding where a format has minima.
///
/// `blocks`: exactly `kvern_blocks_bytes(format, 1, len)` bytes, any alignment. `out`: receives len elements,
/// a multiple of the block of the format; must not overlap `blocks`.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_blocks_dequantize(
    format: kvern_weight_format,
    blocks: *const u8,
    blocks_bytes: usize,
    out: *mut f32,
    len: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let format = self::format(format)?;
        let blocks = Array::new("blocks", blocks, blocks_bytes)?;
        let out = Array::new("out", out, len)?.apart_from(&[blocks.span()])?;
        Ok(dequantize(format, blocks.get(), out.get_mut())?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_have_the_numbers_of_the_safe_api() {
        let numbers = [
            KVERN_WEIGHT_FORMAT_F32,
            KVERN_WEIGHT_FORMAT_F16,
            KVERN_WEIGHT_FORMAT_Q4_0,
            KVERN_WEIGHT_FORMAT_Q4_1,
            KVERN_WEIGHT_FORMAT_Q5_0,
            KVERN_WEIGHT_FORMAT_Q5_1,
            KVERN_WEIGHT_FORMAT_Q8_0,
            KVERN_WEIGHT_FORMAT_Q2_K,
            KVERN_WEIGHT_FORMAT_Q3_K,
            KVERN_WEIGHT_FORMAT_Q4_K,
            KVERN_WEIGHT_FORMAT_Q5_K,
            KVERN_WEIGHT_FORMAT_Q6_K,
            KVERN_WEIGHT_FORMAT_IQ2_XXS,
            KVERN_WEIGHT_FORMAT_IQ2_XS,
            KVERN_WEIGHT_FORMAT_IQ3_XXS,
            KVERN_WEIGHT_FORMAT_IQ1_S,
            KVERN_WEIGHT_FORMAT_IQ4_NL,
            KVERN_WEIGHT_FORMAT_IQ3_S,
            KVERN_WEIGHT_FORMAT_IQ2_S,
            KVERN_WEIGHT_FORMAT_IQ4_XS,
            KVERN_WEIGHT_FORMAT_IQ1_M,
            KVERN_WEIGHT_FORMAT_BF16,
            KVERN_WEIGHT_FORMAT_TQ1_0,
            KVERN_WEIGHT_FORMAT_TQ2_0,
            KVERN_WEIGHT_FORMAT_MXFP4,
            KVERN_WEIGHT_FORMAT_NVFP4,
            KVERN_WEIGHT_FORMAT_Q1_0,
            KVERN_WEIGHT_FORMAT_Q2_0,
        ];
        assert_eq!(WeightFormat::ALL.map(|f| f as i32), numbers);
        assert_eq!(compute(KVERN_COMPUTE_INT8).ok(), Some(Compute::default()));
        assert_eq!(compute(KVERN_COMPUTE_F32).ok(), Some(Compute::F32));
    }
}
