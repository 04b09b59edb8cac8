//! Weights of other tools through the C ABI: the bits of the safe API, and what is refused.

use crate::capi::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::dtype::*;
use kvern::capi::float8::*;
use kvern::capi::import::*;
use kvern::capi::quant::*;
use kvern::capi::status::*;
use kvern::capi::weights::{
    KVERN_WEIGHT_FORMAT_FLOAT8, KVERN_WEIGHT_FORMAT_GROUPS, kvern_weights_get_format,
};
use kvern::quant::PackedWeights;
use kvern::quant::import::{Awq, Float8, Float8Kind, Gptq, GroupWise, Mxfp8, StoredZeros};
use kvern::{Context, bf16, f16};
use std::ffi::c_void;
use std::ptr::{null, null_mut};

const ROWS: usize = 16;
const GROUP: usize = 32;

/// Tensors of a layer of (ROWS, K).
struct Tensors {
    qweight: Vec<i32>,
    qzeros: Vec<i32>,
    scales: Vec<f16>,
    g_idx: Vec<i32>,
}

fn tensors() -> Tensors {
    let mut r = Random::new(71);
    let mut words = |len: usize| (0..len).map(|_| r.next() as i32).collect();
    let (qweight, qzeros) = (words(K * ROWS / 8), words(K / GROUP * ROWS / 8));
    let scales = r.vec(K / GROUP * ROWS).into_iter().map(f16::from_f32).collect();
    Tensors { qweight, qzeros, scales, g_idx: (0..K as i32).map(|j| j % 2).collect() }
}

/// Checks weights of the C ABI against those of the safe one, and frees them.
fn check(w: *mut kvern_weights, groups: &GroupWise) {
    let safe = PackedWeights::from_groups_on(&Context::serial(), groups).unwrap();
    // SAFETY: the weights are live, and nobody uses them any more.
    unsafe { same_rows(w, &safe, KVERN_WEIGHT_FORMAT_GROUPS) };
}

/// Checks the rows of weights and what they are said to be, and frees them.
unsafe fn same_rows(w: *mut kvern_weights, safe: &PackedWeights, said: kvern_weight_format) {
    let (mut got, mut want, mut format) = ([0f32; K], [0f32; K], 0);
    for i in 0..ROWS {
        safe.dequantize_row(i, &mut want).unwrap();
        // SAFETY: the weights are live, and the row has K elements.
        unsafe { ok(kvern_weights_dequantize_row(w, i, K, got.as_mut_ptr())) };
        assert_same_bits(&got, &want, &format!("row {i}"));
    }
    // SAFETY: as above, and nobody uses them any more.
    unsafe {
        ok(kvern_weights_get_format(w, &mut format));
        kvern_weights_destroy(w);
    }
    assert_eq!(format, said);
}

#[test]
fn gptq_and_awq_layers_have_the_bits_of_the_safe_api() {
    let (o, t, mut w) = (Objects::new(), tensors(), null_mut());
    let (qweight, qzeros) = (t.qweight.as_ptr(), t.qzeros.as_ptr());
    let single: Vec<f32> = t.scales.iter().map(|s| s.to_f32()).collect();
    let brain: Vec<bf16> = single.iter().map(|&s| bf16::from_f32(s)).collect();
    let safe = |zeros, g_idx| {
        let (qweight, qzeros, scales) = (&t.qweight[..], &t.qzeros[..], &t.scales[..]);
        let (n, k, bits, group, stored_zeros) = (ROWS, K, 4, GROUP, zeros);
        GroupWise::from_gptq(&Gptq { n, k, bits, group, qweight, qzeros, scales, g_idx, stored_zeros })
            .unwrap()
    };
    for (number, zeros) in
        [(KVERN_GPTQ_ZEROS_MINUS_ONE, StoredZeros::MinusOne), (KVERN_GPTQ_ZEROS_AS_IS, StoredZeros::AsIs)]
    {
        for g_idx in [None, Some(&t.g_idx[..])] {
            let order = g_idx.map_or(null(), <[i32]>::as_ptr);
            for (dtype, scales) in [
                (KVERN_DTYPE_F16, t.scales.as_ptr().cast::<c_void>()),
                (KVERN_DTYPE_F32, single.as_ptr().cast()),
            ] {
                // SAFETY: every pointer is live and of the stated size.
                unsafe {
                    ok(kvern_weights_from_gptq(
                        o.ctx, 4, GROUP, ROWS, K, qweight, qzeros, number, dtype, scales, order, &mut w,
                    ));
                }
                check(w, &safe(zeros, g_idx));
            }
        }
    }
    let (n, k, group) = (ROWS, K, GROUP);
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        let scales = t.scales.as_ptr().cast();
        let words = (t.qweight.as_ptr(), t.qzeros.as_ptr());
        ok(kvern_weights_from_awq(o.ctx, group, n, k, words.0, words.1, KVERN_DTYPE_F16, scales, &mut w));
        let (qweight, qzeros, scales) = (&t.qweight[..], &t.qzeros[..], &t.scales[..]);
        check(w, &GroupWise::from_awq(&Awq { n, k, group, qweight, qzeros, scales }).unwrap());
        let scales = brain.as_ptr().cast();
        ok(kvern_weights_from_awq(o.ctx, group, n, k, words.0, words.1, KVERN_DTYPE_BF16, scales, &mut w));
        let scales = &brain[..];
        check(w, &GroupWise::from_awq(&Awq { n, k, group, qweight, qzeros, scales }).unwrap());
    }
}

#[test]
fn null_and_garbage_are_refused() {
    let (o, t, mut out) = (Objects::new(), tensors(), null_mut());
    let (codes, x) = (vec![200u8; 512], vec![1f32; 512]);
    let (ctx, codes, a) = (o.ctx.cast_const(), codes.as_ptr(), x.as_ptr());
    let (null_status, option) = (KVERN_STATUS_NULL_POINTER, KVERN_STATUS_OPTION);
    // SAFETY: what is not NULL is live; what is wrong about the rest is refused before it is read.
    unsafe {
        refused(
            kvern_weights_from_groups(ctx, 4, 32, N, K, null(), a, null(), &mut out),
            null_status,
            "codes is",
        );
        refused(
            kvern_weights_from_groups(ctx, 4, 32, N, K, codes, null(), null(), &mut out),
            null_status,
            "scales is",
        );
        refused(
            kvern_weights_from_groups(ctx, 4, 32, N, K, codes, a, null(), null_mut()),
            null_status,
            "out is",
        );
        refused(kvern_weights_from_groups(ctx, 5, 32, N, K, codes, a, null(), &mut out), option, "bits = 5");
        refused(kvern_weights_from_groups(ctx, 4, 0, 1, 1, codes, a, null(), &mut out), option, "group = 0");
        refused(kvern_weights_from_groups(ctx, 4, 32, N, K, codes, a, codes, &mut out), option, "200");
        let huge = kvern_weights_from_groups(ctx, 4, 32, usize::MAX, K, codes, a, codes, &mut out);
        refused(huge, KVERN_STATUS_OVERFLOW, "codes does not fit");

        let (words, zeros, order) = (t.qweight.as_ptr(), t.qzeros.as_ptr(), t.g_idx.as_ptr());
        let scales = t.scales.as_ptr().cast::<c_void>();
        let gptq = |ctx, bits, group, n, qweight, qzeros, kind, dtype, scales, order, out| {
            kvern_weights_from_gptq(ctx, bits, group, n, K, qweight, qzeros, kind, dtype, scales, order, out)
        };
        let out = &raw mut out;
        refused(gptq(ctx, 4, 32, 16, null(), zeros, 0, 1, scales, order, out), null_status, "qweight is");
        refused(gptq(ctx, 4, 32, 16, words, null(), 0, 1, scales, order, out), null_status, "qzeros is");
        refused(gptq(ctx, 4, 32, 16, words, zeros, 0, 1, null(), order, out), null_status, "scales is");
        refused(gptq(ctx, 4, 32, 16, words, zeros, 0, 1, scales, order, null_mut()), null_status, "out is");
        for bits in [0, 1, 5, 32, 33, u32::MAX] {
            refused(gptq(ctx, bits, 32, 16, words, zeros, 0, 1, scales, order, out), option, "bits = ");
        }
        for group in [0, 1, 24, 48, usize::MAX] {
            refused(gptq(ctx, 4, group, 16, words, zeros, 0, 1, scales, order, out), option, "group = ");
        }
        for n in [7, 15] {
            refused(gptq(ctx, 4, 32, n, words, zeros, 0, 1, scales, order, out), option, "n = ");
        }
        for kind in [-1, 2] {
            refused(gptq(ctx, 4, 32, 16, words, zeros, kind, 1, scales, order, out), option, "zeros = ");
        }
        for dtype in [-1, 2] {
            refused(gptq(ctx, 4, 32, 16, words, zeros, 0, dtype, scales, order, out), option, "scales_dtype");
        }
        let far = words.byte_add(1);
        refused(
            gptq(ctx, 4, 32, 16, far, zeros, 0, 1, scales, order, out),
            KVERN_STATUS_MISALIGNED,
            "qweight",
        );
        let far = scales.byte_add(1);
        refused(gptq(ctx, 4, 32, 16, words, zeros, 0, 1, far, order, out), KVERN_STATUS_MISALIGNED, "scales");
        let n = usize::MAX / 8 * 8;
        refused(
            gptq(ctx, 4, 32, n, words, zeros, 0, 1, scales, order, out),
            KVERN_STATUS_OVERFLOW,
            "codes does not fit",
        );
        // The first words are no groups of features.
        refused(gptq(ctx, 4, 32, 16, words, zeros, 0, 1, scales, words, out), option, "g_idx = ");
        let awq = |ctx, group, n, qweight, qzeros, dtype, scales, out| {
            kvern_weights_from_awq(ctx, group, n, K, qweight, qzeros, dtype, scales, out)
        };
        refused(awq(ctx, 32, 16, null(), zeros, 1, scales, out), null_status, "qweight is");
        refused(awq(ctx, 32, 16, words, null(), 1, scales, out), null_status, "qzeros is");
        refused(awq(ctx, 32, 16, words, zeros, 1, null(), out), null_status, "scales is");
        refused(awq(ctx, 32, 16, words, zeros, 1, scales, null_mut()), null_status, "out is");
        refused(awq(ctx, 48, 16, words, zeros, 1, scales, out), option, "group = 48");
        refused(awq(ctx, 32, 15, words, zeros, 1, scales, out), option, "n = 15");
        refused(awq(ctx, 32, 16, words, zeros, 7, scales, out), option, "scales_dtype = 7");
        refused(
            awq(ctx, 32, usize::MAX, words, zeros, 1, scales, out),
            KVERN_STATUS_OVERFLOW,
            "codes does not fit",
        );
        assert!((*out).is_null());
    }
}

/// Minimums, and floats of 8 bits: the bits of the safe API, and what is refused.
#[test]
fn minimums_and_floats_have_the_bits_of_the_safe_api() {
    let (o, mut r, mut w) = (Objects::new(), Random::new(72), null_mut());
    let codes: Vec<u8> = (0..ROWS * K).map(|_| r.below(32) as u8).collect();
    let (scales, minimums) = (r.vec(ROWS * K / GROUP), r.vec(ROWS * K / GROUP));
    let groups = GroupWise::affine((ROWS, K), 5, GROUP, &codes, &scales, &minimums).unwrap();
    let (a, s, m) = (codes.as_ptr(), scales.as_ptr().cast::<c_void>(), minimums.as_ptr().cast::<c_void>());
    let (f32s, null_status, option) = (KVERN_DTYPE_F32, KVERN_STATUS_NULL_POINTER, KVERN_STATUS_OPTION);
    let exponents: Vec<u8> = (0..ROWS * K / 32).map(|_| 100 + r.below(60) as u8).collect();
    // SAFETY: every pointer is NULL or live and of the stated size.
    unsafe {
        ok(kvern_weights_from_affine(o.ctx, 5, GROUP, ROWS, K, a, f32s, s, m, &mut w));
        check(w, &groups);
        let affine = |bits, codes, dtype, scales, minimums, out| {
            kvern_weights_from_affine(o.ctx, bits, GROUP, ROWS, K, codes, dtype, scales, minimums, out)
        };
        w = null_mut();
        refused(affine(5, null(), f32s, s, m, &mut w), null_status, "codes is");
        refused(affine(5, a, f32s, null(), m, &mut w), null_status, "scales is");
        refused(affine(5, a, f32s, s, null(), &mut w), null_status, "minimums is");
        refused(affine(5, a, f32s, s, m, null_mut()), null_status, "out is");
        refused(affine(7, a, f32s, s, m, &mut w), option, "bits = 7 must be 2, 3, 4, 5, 6 or 8");
        refused(affine(3, a, f32s, s, m, &mut w), option, "must be 0..=7");
        refused(affine(5, a, 9, s, m, &mut w), option, "dtype = 9");
        refused(affine(5, a, f32s, s.byte_add(1), m, &mut w), KVERN_STATUS_MISALIGNED, "scales");

        for (number, kind) in [(KVERN_FLOAT8_E4M3, Float8Kind::E4m3), (KVERN_FLOAT8_E5M2, Float8Kind::E5m2)] {
            let tiled = &scales[..ROWS / 4 * (K / 32)];
            let t = Float8 { n: ROWS, k: K, kind, tile: (4, 32), codes: &codes, scales: tiled };
            let safe = PackedWeights::from_float8_on(&Context::serial(), &t).unwrap();
            ok(kvern_weights_from_float8(o.ctx, number, 4, 32, ROWS, K, a, f32s, s, &mut w));
            same_rows(w, &safe, KVERN_WEIGHT_FORMAT_FLOAT8);
            let t = Mxfp8 { n: ROWS, k: K, kind, codes: &codes, scales: &exponents };
            let safe = PackedWeights::from_mxfp8_on(&Context::serial(), &t).unwrap();
            ok(kvern_weights_from_mxfp8(o.ctx, number, ROWS, K, a, exponents.as_ptr(), &mut w));
            same_rows(w, &safe, KVERN_WEIGHT_FORMAT_FLOAT8);
        }
        let float = |kind, tile: (usize, usize), codes, dtype, scales, out| {
            kvern_weights_from_float8(o.ctx, kind, tile.0, tile.1, ROWS, K, codes, dtype, scales, out)
        };
        w = null_mut();
        refused(float(0, (1, 32), null(), f32s, s, &mut w), null_status, "codes is");
        refused(float(0, (1, 32), a, f32s, null(), &mut w), null_status, "scales is");
        refused(float(0, (1, 32), a, f32s, s, null_mut()), null_status, "out is");
        refused(float(2, (1, 32), a, f32s, s, &mut w), option, "kind = 2 must be a KVERN_FLOAT8 number");
        refused(float(0, (0, 32), a, f32s, s, &mut w), option, "tile.0 = 0");
        refused(float(0, (1, 31), a, f32s, s, &mut w), option, "tile.1 = 31");
        refused(float(0, (1, 32), a, -1, s, &mut w), option, "scales_dtype = -1");
        let nan = vec![0x7fu8; ROWS * K];
        refused(float(0, (1, 32), nan.as_ptr(), f32s, s, &mut w), option, "code = 0x7f at (0, 0)");
        let mx =
            |kind, k, codes, scales, out| kvern_weights_from_mxfp8(o.ctx, kind, ROWS, k, codes, scales, out);
        refused(mx(0, K, null(), exponents.as_ptr(), &mut w), null_status, "codes is");
        refused(mx(0, K, a, null(), &mut w), null_status, "scales is");
        refused(mx(0, 31, a, exponents.as_ptr(), &mut w), option, "k = 31 must be a multiple of 32");
        refused(mx(-1, K, a, exponents.as_ptr(), &mut w), option, "kind = -1");
        assert!(w.is_null());
    }
}
