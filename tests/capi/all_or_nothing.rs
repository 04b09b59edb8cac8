//! Calls that do several things: a refused one has done none of them, whichever argument is wrong, and says
//! so at once.

use crate::capi::*;
use crate::support::ABSURD;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::rope::*;
use kvern::capi::status::*;
use kvern::capi::weights::*;
use kvern::capi::workspace::*;
use std::ptr::{null, null_mut};

/// What outputs hold before a call: a number that no product gives.
const SENTINEL: f32 = -1e30;

const ROWS: usize = 64;
const COLS: usize = 512;

/// Weights of `n` rows.
fn weights(format: kvern_weight_format, n: usize) -> *mut kvern_weights {
    let w: Vec<f32> = (0..n * COLS).map(|i| (i * 31 % 127) as f32 / 63.0 - 1.0).collect();
    let mut weights = null_mut();
    // SAFETY: both are live, and `w` has n * COLS elements.
    unsafe { ok(kvern_weights_quantize(null(), format, n, COLS, w.as_ptr(), COLS, &mut weights)) };
    weights
}

/// Every workspace from nothing to enough, in steps that shrink to a cache line at the end: each that is
/// refused leaves every output as it was, and the first that is enough is not larger than what the query
/// says.
#[test]
fn products_that_share_activations_are_all_made_or_none() {
    let (o, a) = (Objects::new(), vec![0.25f32; ROWS * COLS]);
    let formats = [
        [KVERN_WEIGHT_FORMAT_F32, KVERN_WEIGHT_FORMAT_F32],
        [KVERN_WEIGHT_FORMAT_F32, KVERN_WEIGHT_FORMAT_Q4_0],
        [KVERN_WEIGHT_FORMAT_Q8_0, KVERN_WEIGHT_FORMAT_BF16],
        [KVERN_WEIGHT_FORMAT_Q4_K, KVERN_WEIGHT_FORMAT_Q8_0],
    ];
    for formats in formats {
        let sizes = [16, 1024];
        let objects = [0, 1].map(|i| weights(formats[i], sizes[i]));
        let mut outputs = sizes.map(|n| vec![SENTINEL; ROWS * n]);
        let mut need = 0;
        let list = objects.map(<*mut _>::cast_const);
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            ok(kvern_weights_many_workspace_bytes(o.ctx, 0, ROWS, 2, list.as_ptr(), &mut need));
            let mut bytes = 0;
            loop {
                let mut ws = null_mut();
                ok(kvern_workspace_create(null(), bytes, &mut ws));
                let products = [0, 1].map(|i| kvern_weights_product {
                    weights: objects[i],
                    // A plain product of floats may need no workspace where a gated one needs some.
                    up: if i == 1 { objects[i] } else { null_mut() },
                    c: outputs[i].as_mut_ptr(),
                    c_row_stride: sizes[i],
                    n: sizes[i],
                    epilogue: null(),
                });
                let a = a.as_ptr();
                let status =
                    kvern_weights_multiply_many(o.ctx, ws, 0, ROWS, COLS, a, COLS, 2, products.as_ptr());
                if status != KVERN_STATUS_OK {
                    refused(status, KVERN_STATUS_WORKSPACE, &format!("workspace = {bytes} bytes"));
                }
                kvern_workspace_destroy(ws);
                if status == KVERN_STATUS_OK {
                    break;
                }
                assert!(outputs.iter().flatten().all(|&x| x == SENTINEL), "{formats:?}, {bytes} bytes");
                assert!(bytes < need, "{need} bytes are not enough");
                bytes += ((need - bytes) / 8).max(64);
            }
            assert!(outputs.iter().flatten().all(|&x| x != SENTINEL));
            objects.into_iter().for_each(|weights| kvern_weights_destroy(weights));
        }
    }
}

/// Each argument of each product bad in turn, in the last product, behind good ones.
#[test]
fn a_bad_product_behind_good_ones_stops_them_all() {
    let o = Objects::new();
    let (w, other) = (weights(KVERN_WEIGHT_FORMAT_F32, 16), weights(KVERN_WEIGHT_FORMAT_Q8_0, 16));
    let mut outputs = [0; 3].map(|_| vec![SENTINEL; ROWS * 16]);
    let pointers = outputs.each_mut().map(|c| c.as_mut_ptr());
    let a = vec![0.25f32; ROWS * COLS];
    let bad_beta = kvern::capi::matmul::kvern_epilogue { beta: 1.0, ..epilogue() };
    let bad_size = kvern::capi::matmul::kvern_epilogue { struct_size: 3, ..epilogue() };
    let bad_act = kvern::capi::matmul::kvern_epilogue { activation: 77, ..epilogue() };
    let good = |i: usize| kvern_weights_product {
        weights: w,
        up: null(),
        c: pointers[i],
        c_row_stride: 16,
        n: 16,
        epilogue: null(),
    };
    let bad = [
        (kvern_weights_product { weights: null(), ..good(2) }, KVERN_STATUS_NULL_POINTER),
        (kvern_weights_product { weights: o.weights, ..good(2) }, KVERN_STATUS_SHAPE),
        (kvern_weights_product { up: other, ..good(2) }, KVERN_STATUS_OPTION),
        (kvern_weights_product { c: null_mut(), ..good(2) }, KVERN_STATUS_NULL_POINTER),
        (kvern_weights_product { c: pointers[0], ..good(2) }, KVERN_STATUS_ALIASED),
        (kvern_weights_product { c: pointers[2].wrapping_byte_add(1), ..good(2) }, KVERN_STATUS_MISALIGNED),
        (kvern_weights_product { c_row_stride: 15, ..good(2) }, KVERN_STATUS_SHAPE),
        (kvern_weights_product { c_row_stride: usize::MAX, ..good(2) }, KVERN_STATUS_OVERFLOW),
        (kvern_weights_product { n: 15, ..good(2) }, KVERN_STATUS_SHAPE),
        (kvern_weights_product { up: w, epilogue: &bad_beta, ..good(2) }, KVERN_STATUS_OPTION),
        (kvern_weights_product { epilogue: &bad_size, ..good(2) }, KVERN_STATUS_OPTION),
        (kvern_weights_product { epilogue: &bad_act, ..good(2) }, KVERN_STATUS_OPTION),
    ];
    for (i, (product, status)) in bad.into_iter().enumerate() {
        let products = [good(0), good(1), product];
        let (a, list) = (a.as_ptr(), products.as_ptr());
        // SAFETY: what is wrong is refused before it is touched; the rest is live and of the stated size.
        let got = unsafe { kvern_weights_multiply_many(o.ctx, o.ws, 0, ROWS, COLS, a, COLS, 3, list) };
        assert_eq!(got, status, "product {i}: {}", message());
        assert!(outputs.iter().flatten().all(|&x| x == SENTINEL), "product {i}");
    }
    // SAFETY: made above, and used by nothing.
    unsafe {
        kvern_weights_destroy(w);
        kvern_weights_destroy(other);
    }
}

#[test]
fn rows_without_elements_are_dequantized() {
    let (x, mut weights, mut out) = ([1f32; 1], null_mut(), [SENTINEL; 1]);
    for format in
        [KVERN_WEIGHT_FORMAT_F32, KVERN_WEIGHT_FORMAT_F16, KVERN_WEIGHT_FORMAT_BF16, KVERN_WEIGHT_FORMAT_Q8_0]
    {
        // SAFETY: every pointer is live; no element is read.
        unsafe {
            ok(kvern_weights_quantize(null(), format, 5, 0, x.as_ptr(), 0, &mut weights));
            ok(kvern_weights_dequantize_row(weights, 4, 0, out.as_mut_ptr()));
            refused(
                kvern_weights_dequantize_row(weights, 5, 0, out.as_mut_ptr()),
                KVERN_STATUS_SHAPE,
                "row = 5",
            );
            kvern_weights_destroy(weights);
        }
        assert_eq!(out, [SENTINEL]);
    }
}

/// Sizes beyond any memory, and the absurd ones beside nothing: all answer without looking at each element.
#[test]
fn absurd_sizes_are_answered_at_once() {
    let (o, x) = (Objects::new(), [1f32; 1]);
    let (mut table, mut b, mut weights) = (null_mut(), null_mut(), null_mut());
    // SAFETY: every pointer is live; no element is read or written.
    unsafe {
        for dim in [usize::MAX - 1, ABSURD, 1 << (usize::BITS - 2)] {
            ok(kvern_rope_table_create(dim, 0, 10000.0, &mut table));
            kvern_rope_table_destroy(table);
            let status = kvern_rope_table_create(dim, 1 << 20, 10000.0, &mut table);
            assert!([KVERN_STATUS_OVERFLOW, KVERN_STATUS_RESOURCE].contains(&status), "{}", message());
            assert!(table.is_null());
        }
        let frequencies = [1f64; 1];
        let status = kvern_rope_table_from_frequencies(1, frequencies.as_ptr(), usize::MAX, 1.0, &mut table);
        refused(status, KVERN_STATUS_OVERFLOW, "rope table");
        for n in [ABSURD, 1 << (usize::BITS - 5)] {
            ok(kvern_packed_b_pack(o.ctx, 0, n, x.as_ptr(), n, 0, &mut b));
            kvern_packed_b_destroy(b);
            ok(kvern_packed_b_pack(o.ctx, n, 0, x.as_ptr(), 0, 0, &mut b));
            kvern_packed_b_destroy(b);
            for format in [
                KVERN_WEIGHT_FORMAT_F32,
                KVERN_WEIGHT_FORMAT_BF16,
                KVERN_WEIGHT_FORMAT_Q4_0,
                KVERN_WEIGHT_FORMAT_Q6_K,
            ] {
                ok(kvern_weights_quantize(null(), format, n, 0, x.as_ptr(), 0, &mut weights));
                kvern_weights_destroy(weights);
                ok(kvern_weights_from_blocks(null(), format, n, 0, null(), 0, &mut weights));
                kvern_weights_destroy(weights);
            }
        }
    }
}
