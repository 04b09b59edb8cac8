//! Objects that are made without a context: on the calling thread, in memory of the process's allocator, with
//! the bits that any context gives.

use crate::capi::*;
use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::import::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::weights::*;
use kvern::capi::workspace::*;
use std::ptr::{null, null_mut};

/// The product of 3 rows with weights, which are destroyed.
unsafe fn product(o: &Objects, weights: *mut kvern_weights) -> Vec<f32> {
    let (a, mut c) = (vec![0.25f32; M * K], vec![f32::NAN; M * N]);
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        let (a, c) = (a.as_ptr(), c.as_mut_ptr());
        ok(kvern_weights_multiply(o.ctx, o.ws, weights, 0, M, N, K, a, K, c, N, null()));
        kvern_weights_destroy(weights);
    }
    c
}

#[test]
fn every_object_can_be_made_without_a_context() {
    let (o, mut weights) = (Objects::new(), null_mut());
    let (path, text) = temporary("no_context");
    let w = o.w.as_ptr();
    let mut products = Vec::new();
    // SAFETY: every pointer is live and of the stated size; objects are destroyed once.
    unsafe {
        ok(kvern_weights_save(o.weights, text.as_ptr()));
        let mut blocks = vec![0u8; N * K / 32 * 34];
        ok(kvern_weights_to_blocks(o.weights, blocks.as_mut_ptr(), blocks.len()));
        for ctx in [null(), o.ctx.cast_const()] {
            ok(kvern_weights_quantize(ctx, KVERN_WEIGHT_FORMAT_Q8_0, N, K, w, K, &mut weights));
            products.push(product(&o, weights));
            let (data, len) = (blocks.as_ptr(), blocks.len());
            ok(kvern_weights_from_blocks(ctx, KVERN_WEIGHT_FORMAT_Q8_0, N, K, data, len, &mut weights));
            products.push(product(&o, weights));
            ok(kvern_weights_load(ctx, text.as_ptr(), &mut weights));
            products.push(product(&o, weights));
        }
        assert!(products.iter().all(|c| c == &products[0] && c.iter().all(|x| x.is_finite())));

        products.clear();
        let (codes, scales) = ([3u8; N * K], [0.5f32; N * K / 32]);
        for ctx in [null(), o.ctx.cast_const()] {
            let (codes, scales) = (codes.as_ptr(), scales.as_ptr());
            ok(kvern_weights_from_groups(ctx, 4, 32, N, K, codes, scales, null(), &mut weights));
            products.push(product(&o, weights));
        }
        assert_eq!(products[0], products[1]);

        let (mut b, mut ws, mut cache, mut bytes) = (null_mut(), null_mut(), null_mut(), 0);
        ok(kvern_packed_b_pack(null(), K, N, w, K, 1, &mut b));
        ok(kvern_packed_b_save(b, text.as_ptr()));
        kvern_packed_b_destroy(b);
        ok(kvern_packed_b_load(null(), text.as_ptr(), &mut b));
        kvern_packed_b_destroy(b);
        ok(kvern_workspace_create(null(), 100, &mut ws));
        ok(kvern_workspace_bytes(ws, &mut bytes));
        assert!(bytes >= 100);
        kvern_workspace_destroy(ws);
        ok(kvern_kv_cache_create(null(), &cache_options(8, 0), &mut cache));
        ok(kvern_attention_workspace_bytes(o.ctx, &attention_options(0), cache, 1, &mut bytes));
        ok(kvern_kv_cache_save(cache, text.as_ptr()));
        kvern_kv_cache_destroy(cache);
        ok(kvern_kv_cache_load(null(), &cache_options(8, 0), text.as_ptr(), &mut cache));
        kvern_kv_cache_destroy(cache);
    }
    std::fs::remove_file(path).unwrap();
}
