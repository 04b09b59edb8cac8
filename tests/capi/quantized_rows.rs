//! Activations that are quantised once, in C: the bits of products that quantise them, and what is refused.

use crate::capi::*;
use crate::statuses::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::dtype::*;
use kvern::capi::quantized_rows::*;
use kvern::capi::weights::*;
use kvern::{bf16, f16};
use std::ptr::{null, null_mut};

#[test]
fn held_rows_have_the_bits_of_products_that_quantise_and_refuse_bad_arguments() {
    let (o, mut r) = (Objects::new(), Random::new(88));
    let x: Vec<f32> = r.vec(M * K).iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
    let brains: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    let halves: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
    let product = |c: *mut f32| kvern_weights_product {
        weights: o.weights,
        up: null(),
        c,
        c_row_stride: N,
        n: N,
        epilogue: null(),
    };
    let (mut want, mut rows) = (vec![0.0; M * N], null_mut());
    let one = product(want.as_mut_ptr());
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_weights_multiply_many(o.ctx, o.ws, 0, M, K, x.as_ptr(), K, 1, &one));
        ok(kvern_quantized_rows_create(o.ctx, M, K, &mut rows));
    }
    let mut got = vec![f32::NAN; M * N];
    let two = product(got.as_mut_ptr());
    for (dtype, a) in [
        (KVERN_DTYPE_F32, x.as_ptr().cast()),
        (KVERN_DTYPE_BF16, brains.as_ptr().cast()),
        (KVERN_DTYPE_F16, halves.as_ptr().cast()),
    ] {
        // SAFETY: as above.
        unsafe {
            ok(kvern_quantized_rows_quantize(o.ctx, rows, M, K, dtype, a, K));
            ok(kvern_quantized_rows_multiply(o.ctx, o.ws, rows, M, 1, &two));
        }
        if dtype != KVERN_DTYPE_F16 {
            assert_same_bits(&got, &want, "kvern_quantized_rows_multiply");
        }
    }
    let (a, mut none, far) = (x.as_ptr().cast(), null_mut(), product(got.as_mut_ptr().wrapping_byte_add(1)));
    let before = got.clone();
    let (codes, scale) = ([-128i8; K], [1f32; 2]);
    let (codes, scale) = (codes.as_ptr(), scale.as_ptr());
    refuse! {
        NULL_POINTER "out is NULL": kvern_quantized_rows_create(o.ctx, M, K, null_mut());
        OPTION "k = 33": kvern_quantized_rows_create(null(), M, 33, &mut none);
        OVERFLOW "quantised activations": kvern_quantized_rows_create(null(), usize::MAX, K, &mut none);
        NULL_POINTER "ctx is NULL": kvern_quantized_rows_quantize(null(), rows, M, K, 0, a, K);
        NULL_POINTER "rows is NULL": kvern_quantized_rows_quantize(o.ctx, null_mut(), M, K, 0, a, K);
        NULL_POINTER "a is NULL": kvern_quantized_rows_quantize(o.ctx, rows, M, K, 0, null(), K);
        OPTION "a_dtype = 7": kvern_quantized_rows_quantize(o.ctx, rows, M, K, 7, a, K);
        SHAPE "a.cols = 32 must equal k = 64": kvern_quantized_rows_quantize(o.ctx, rows, M, 32, 0, a, K);
        NULL_POINTER "ctx is NULL": kvern_quantized_rows_set(null(), rows, 1, K, codes, scale);
        NULL_POINTER "rows is NULL": kvern_quantized_rows_set(o.ctx, null_mut(), 1, K, codes, scale);
        NULL_POINTER "codes is NULL": kvern_quantized_rows_set(o.ctx, rows, 1, K, null(), scale);
        NULL_POINTER "scales is NULL": kvern_quantized_rows_set(o.ctx, rows, 1, K, codes, null());
        SHAPE "k = 32 must equal the k of the rows = 64":
            kvern_quantized_rows_set(o.ctx, rows, 2, 32, codes, scale);
        OPTION "code = -128": kvern_quantized_rows_set(o.ctx, rows, 1, K, codes, scale);
        NULL_POINTER "ctx is NULL": kvern_quantized_rows_multiply(null(), o.ws, rows, M, 1, &two);
        NULL_POINTER "ws is NULL": kvern_quantized_rows_multiply(o.ctx, null_mut(), rows, M, 1, &two);
        NULL_POINTER "rows is NULL": kvern_quantized_rows_multiply(o.ctx, o.ws, null(), M, 1, &two);
        NULL_POINTER "products is NULL": kvern_quantized_rows_multiply(o.ctx, o.ws, rows, M, 1, null());
        OPTION "count = 17": kvern_quantized_rows_multiply(o.ctx, o.ws, rows, M, 17, &two);
        SHAPE "m = 2 must equal the rows held = 3":
            kvern_quantized_rows_multiply(o.ctx, o.ws, rows, 2, 1, &two);
        MISALIGNED "c": kvern_quantized_rows_multiply(o.ctx, o.ws, rows, M, 1, &far);
    }
    assert_same_bits(&got, &before, "a refusal changes nothing");
    // SAFETY: live, and used no more.
    unsafe { kvern_quantized_rows_destroy(rows) };
}
