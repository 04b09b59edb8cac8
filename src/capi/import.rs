//! Weights that other tools quantised in groups along k.

use super::args::{Array, choose, optional};
use super::context::{kvern_context, with_context};
use super::dtype::{dtype, kvern_dtype};
use super::quant::kvern_weights;
use super::status::{Checked, kvern_status};
use super::{create, guard};
use crate::Dtype;
use crate::buffer::vector;
use crate::error::product;
use crate::fp_mode;
use crate::quant::PackedWeights;
use crate::quant::import::{Awq, Gptq, GroupWise, StoredZeros, gptq_words};
use bytemuck::Pod;
use half::{bf16, f16};
use std::ffi::c_void;

/// How a GPTQ checkpoint stores zeros: a `KVERN_GPTQ_*` number.
pub type kvern_gptq_zeros = i32;

/// `zero - 1`, modulo 2^bits: checkpoint format `gptq`, which is what most files are.
pub const KVERN_GPTQ_ZEROS_MINUS_ONE: kvern_gptq_zeros = 0;
/// `zero`: checkpoint format `gptq_v2`.
pub const KVERN_GPTQ_ZEROS_AS_IS: kvern_gptq_zeros = 1;

/// Scales of any type, widened exactly. `names`: those of the array and of its type.
///
/// # Safety
/// - `scales` is NULL or points to `len` live elements of the type.
pub(super) unsafe fn widened(
    [name, dtype_name]: [&'static str; 2],
    number: kvern_dtype,
    scales: *const c_void,
    len: usize,
) -> Checked<Vec<f32>> {
    /// # Safety
    /// - as above.
    unsafe fn widen<T: Pod + Into<f32>>(
        name: &'static str,
        scales: *const c_void,
        len: usize,
    ) -> Checked<Vec<f32>> {
        let scales = Array::<T>::new(name, scales.cast(), len)?;
        let mut wide = vector(len)?;
        // SAFETY: handed on to the caller.
        wide.extend(unsafe { scales.get() }.iter().map(|&scale| scale.into()));
        Ok(wide)
    }
    let _mode = fp_mode::default_mode();
    // SAFETY: handed on to the caller.
    unsafe {
        match dtype(dtype_name, number)? {
            Dtype::F32 => widen::<f32>(name, scales, len),
            Dtype::F16 => widen::<f16>(name, scales, len),
            Dtype::Bf16 => widen::<bf16>(name, scales, len),
        }
    }
}

/// Packs weights that were quantised in groups along k: `w = scale * (code - zero)`.
///
/// `bits`: 2, 3, 4 or 8. `group`: 16 or a multiple of 32; k for one scale for each output feature. k must be
/// a multiple of 32; the last group may be shorter. `codes`: (n, k), one code a byte, below 2^bits. `scales`:
/// (n, ceil(k / group)), f32. `zeros`: (n, ceil(k / group)), bytes like codes; NULL for codes around zero,
/// which are int8_t then: from -2^(bits - 1) to 2^(bits - 1) - 1. Arrays without gaps. `ctx`: whose threads
/// it runs on and whose memory the object lies in; NULL for the calling thread and the process's allocator
/// (the same for the other functions of this section). `out`: receives the object, NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (a code out of range), RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_groups(
    ctx: *const kvern_context,
    bits: u32,
    group: usize,
    n: usize,
    k: usize,
    codes: *const u8,
    scales: *const f32,
    zeros: *const u8,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let (elements, groups) = GroupWise::sizes((n, k), bits, group)?;
            let codes = Array::new("codes", codes, elements)?.get();
            let scales = Array::new("scales", scales, groups)?.get();
            let w = match optional(zeros, |zeros| Array::new("zeros", zeros, groups))? {
                Some(zeros) => GroupWise::with_zeros((n, k), bits, group, codes, scales, zeros.get())?,
                None => GroupWise::symmetric((n, k), bits, group, bytemuck::cast_slice(codes), scales)?,
            };
            with_context(ctx, |ctx| Ok(kvern_weights(PackedWeights::from_groups_on(ctx, &w)?)))
        })
    })
}

/// Packs weights that were quantised in groups along k with a minimum for each: `w = scale * code + minimum`,
/// the affine quantisation of MLX.
///
/// `bits`: 2, 3, 4, 5, 6 or 8. `group`, `codes`: as `kvern_weights_from_groups`. `scales`, `minimums`: (n,
/// ceil(k / group)) of `dtype`, a `KVERN_DTYPE_*` number. Arrays without gaps. `out`: receives the object,
/// NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (a code out of range), RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_affine(
    ctx: *const kvern_context,
    bits: u32,
    group: usize,
    n: usize,
    k: usize,
    codes: *const u8,
    dtype: kvern_dtype,
    scales: *const c_void,
    minimums: *const c_void,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let (elements, groups) = GroupWise::affine_sizes((n, k), bits, group)?;
            let codes = Array::new("codes", codes, elements)?.get();
            let scales = widened(["scales", "dtype"], dtype, scales, groups)?;
            let minimums = widened(["minimums", "dtype"], dtype, minimums, groups)?;
            let w = GroupWise::affine((n, k), bits, group, codes, &scales, &minimums)?;
            with_context(ctx, |ctx| Ok(kvern_weights(PackedWeights::from_groups_on(ctx, &w)?)))
        })
    })
}

/// Packs the tensors of a GPTQ layer: `w[i][j] = scales[g][i] * (qweight[j][i] - zero[g][i])`, g = g_idx[j].
/// Words hold 32 / bits integers, the first in the lowest bits (of 3 bits, three words hold 32); n and k must
/// fill them.
///
/// `bits`: 2, 3, 4 or 8. `group`: 16 or a multiple of 32, k for what checkpoints call -1; k must be a
/// multiple of 32, the last group may be shorter. `qweight`: (k * bits / 32, n), a word holds consecutive k.
/// `qzeros`: (ceil(k / group), n * bits / 32), a word holds consecutive n; `zeros`, a `KVERN_GPTQ_*` number,
/// says how.
/// `scales`: (ceil(k / group), n) of `scales_dtype`, a `KVERN_DTYPE_*` number. `g_idx`: (k), the group of
/// each input feature (act-order), each group named as often as it has features; NULL: j is in group j /
/// group. Arrays without gaps.
/// `out`: receives the object, NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_gptq(
    ctx: *const kvern_context,
    bits: u32,
    group: usize,
    n: usize,
    k: usize,
    qweight: *const i32,
    qzeros: *const i32,
    zeros: kvern_gptq_zeros,
    scales_dtype: kvern_dtype,
    scales: *const c_void,
    g_idx: *const i32,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let (_, groups) = GroupWise::sizes((n, k), bits, group)?;
            let values = [
                (KVERN_GPTQ_ZEROS_MINUS_ONE, StoredZeros::MinusOne),
                (KVERN_GPTQ_ZEROS_AS_IS, StoredZeros::AsIs),
            ];
            let stored_zeros = choose("zeros", zeros, "a KVERN_GPTQ number", &values)?;
            let [across, down] = gptq_words((n, k), bits)?;
            let qweight = Array::new("qweight", qweight, product("qweight", &[down, n])?)?.get();
            let words = product("qzeros", &[k.div_ceil(group), across])?;
            let qzeros = Array::new("qzeros", qzeros, words)?.get();
            let scales = &widened(["scales", "scales_dtype"], scales_dtype, scales, groups)?[..];
            let g_idx = optional(g_idx, |g_idx| Array::new("g_idx", g_idx, k))?.map(|array| array.get());
            let t = Gptq { n, k, bits, group, qweight, qzeros, scales, g_idx, stored_zeros };
            let w = GroupWise::from_gptq(&t)?;
            with_context(ctx, |ctx| Ok(kvern_weights(PackedWeights::from_groups_on(ctx, &w)?)))
        })
    })
}

/// Packs the tensors of an AWQ layer of 4 bits (layout GEMM): `w[i][j] = scales[g][i] * (qweight[j][i] -
/// qzeros[g][i])`, g = j / group. Words hold 8 consecutive n in the order 0, 2, 4, 6, 1, 3, 5, 7 from the
/// lowest bits up; n must be a multiple of 8.
///
/// `group`: as `kvern_weights_from_gptq`. `qweight`: (k, n / 8). `qzeros`: (ceil(k / group), n / 8).
/// `scales`: (ceil(k / group), n) of `scales_dtype`, a `KVERN_DTYPE_*` number. Arrays without gaps. `out`:
/// receives the object, NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_awq(
    ctx: *const kvern_context,
    group: usize,
    n: usize,
    k: usize,
    qweight: *const i32,
    qzeros: *const i32,
    scales_dtype: kvern_dtype,
    scales: *const c_void,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let (_, groups) = GroupWise::sizes((n, k), 4, group)?;
            let qweight = Array::new("qweight", qweight, product("qweight", &[k, n / 8])?)?.get();
            let words = product("qzeros", &[k.div_ceil(group), n / 8])?;
            let qzeros = Array::new("qzeros", qzeros, words)?.get();
            let scales = &widened(["scales", "scales_dtype"], scales_dtype, scales, groups)?[..];
            let w = GroupWise::from_awq(&Awq { n, k, group, qweight, qzeros, scales })?;
            with_context(ctx, |ctx| Ok(kvern_weights(PackedWeights::from_groups_on(ctx, &w)?)))
        })
    })
}
