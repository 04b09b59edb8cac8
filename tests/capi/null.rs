//! NULL where an object, an array or options have to be: a status and a message that names the argument.

use crate::capi::*;
use crate::statuses::*;
use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::cache_edit::*;
use kvern::capi::context::*;
use kvern::capi::elementwise::*;
use kvern::capi::isa::*;
use kvern::capi::matmul::*;
use kvern::capi::ops::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::rope::*;
use kvern::capi::status::*;
use kvern::capi::workspace::*;
use std::ptr::{null, null_mut};

#[test]
fn null_objects_and_options_are_refused() {
    let a = Arrays::new();
    let o = Objects::new();
    let (cache, attention) = (cache_options(4, 0), attention_options(0));
    refuse! {
        NULL_POINTER "out is NULL": kvern_context_create(null(), null_mut());
        NULL_POINTER "name is NULL": kvern_isa_from_name(null(), &mut 0);
        NULL_POINTER "out is NULL": kvern_isa_from_name(c"scalar".as_ptr(), null_mut());
        NULL_POINTER "ctx is NULL": kvern_context_isa(null(), &mut 0);
        NULL_POINTER "out is NULL": kvern_context_isa(o.ctx, null_mut());
        NULL_POINTER "ctx is NULL": kvern_context_max_threads(null(), a.n);
        NULL_POINTER "out is NULL": kvern_context_max_threads(o.ctx, null_mut());
        NULL_POINTER "ctx is NULL": kvern_context_kernel_name(null(), c"x".as_ptr(), &mut null());
        NULL_POINTER "operation is NULL": kvern_context_kernel_name(o.ctx, null(), &mut null());
        NULL_POINTER "out is NULL": kvern_context_kernel_name(o.ctx, c"x".as_ptr(), null_mut());
        NULL_POINTER "out is NULL": kvern_workspace_create(null(), 8, null_mut());
        NULL_POINTER "ws is NULL": kvern_workspace_reserve(null_mut(), 8);
        NULL_POINTER "ws is NULL": kvern_workspace_bytes(null(), a.n);
        NULL_POINTER "out is NULL": kvern_workspace_bytes(o.ws, null_mut());
        NULL_POINTER "out is NULL": kvern_kv_cache_create(null(), &cache, null_mut());
        NULL_POINTER "options is NULL": kvern_kv_cache_create(null(), null(), &mut null_mut());
        NULL_POINTER "cache is NULL": kvern_kv_cache_append(null_mut(), 1, a.x, WIDTH, a.x, WIDTH);
        NULL_POINTER "k is NULL": kvern_kv_cache_append(o.cache, 1, null(), WIDTH, a.x, WIDTH);
        NULL_POINTER "v is NULL": kvern_kv_cache_append(o.cache, 1, a.x, WIDTH, null(), WIDTH);
        NULL_POINTER "cache is NULL": kvern_kv_cache_truncate(null_mut(), 0);
        NULL_POINTER "cache is NULL": kvern_kv_cache_clear(null_mut());
        NULL_POINTER "cache is NULL": kvern_kv_cache_len(null(), a.n);
        NULL_POINTER "out is NULL": kvern_kv_cache_len(o.cache, null_mut());
        NULL_POINTER "cache is NULL": kvern_kv_cache_start(null(), a.n);
        NULL_POINTER "out is NULL": kvern_kv_cache_start(o.cache, null_mut());
        NULL_POINTER "cache is NULL": kvern_kv_cache_bytes(null(), a.n);
        NULL_POINTER "out is NULL": kvern_kv_cache_bytes(o.cache, null_mut());
        NULL_POINTER "ctx is NULL": kvern_attention_workspace_bytes(null(), &attention, o.cache, 1, a.n);
        NULL_POINTER "options is NULL": kvern_attention_workspace_bytes(o.ctx, null(), o.cache, 1, a.n);
        NULL_POINTER "cache is NULL": kvern_attention_workspace_bytes(o.ctx, &attention, null(), 1, a.n);
        NULL_POINTER "out is NULL":
            kvern_attention_workspace_bytes(o.ctx, &attention, o.cache, 1, null_mut());
    }
    let run = |ctx, ws, options, cache, q, out| {
        // SAFETY: what is not NULL is live.
        unsafe { kvern_attention(ctx, ws, options, cache, 1, q, WIDTH, out, WIDTH) }
    };
    let (null_ctx, null_ws) = (null::<kvern_context>(), null_mut::<kvern_workspace>());
    let (ctx, cache) = (o.ctx.cast_const(), o.cache.cast_const());
    let options: *const kvern_attention_options = &attention;
    refused(run(null_ctx, o.ws, options, cache, a.x, a.y), KVERN_STATUS_NULL_POINTER, "ctx is NULL");
    refused(run(ctx, null_ws, options, cache, a.x, a.y), KVERN_STATUS_NULL_POINTER, "ws is NULL");
    refused(run(ctx, o.ws, null(), cache, a.x, a.y), KVERN_STATUS_NULL_POINTER, "options is NULL");
    refused(run(ctx, o.ws, options, null(), a.x, a.y), KVERN_STATUS_NULL_POINTER, "cache is NULL");
    refused(run(ctx, o.ws, options, cache, null_mut(), a.y), KVERN_STATUS_NULL_POINTER, "q is NULL");
    refused(run(ctx, o.ws, options, cache, a.x, null_mut()), KVERN_STATUS_NULL_POINTER, "out is NULL");
    refused(run(ctx, o.ws, options, cache, a.x, a.y), KVERN_STATUS_SHAPE, "cache's len = 0");
    assert!(a.unchanged());
}

#[test]
fn null_arguments_of_products_are_refused() {
    let (a, o) = (Arrays::new(), Objects::new());
    let e = null();
    refuse! {
        NULL_POINTER "ctx is NULL": kvern_matmul_workspace_bytes(null(), 1, 1, 1, a.n);
        NULL_POINTER "out is NULL": kvern_matmul_workspace_bytes(o.ctx, 1, 1, 1, null_mut());
        NULL_POINTER "ctx is NULL": kvern_matmul(null(), o.ws, M, N, K, a.x, K, 0, a.x, N, 0, a.y, N, e);
        NULL_POINTER "ws is NULL":
            kvern_matmul(o.ctx, null_mut(), M, N, K, a.x, K, 0, a.x, N, 0, a.y, N, e);
        NULL_POINTER "a is NULL": kvern_matmul(o.ctx, o.ws, M, N, K, null(), K, 0, a.x, N, 0, a.y, N, e);
        NULL_POINTER "b is NULL": kvern_matmul(o.ctx, o.ws, M, N, K, a.x, K, 0, null(), N, 0, a.y, N, e);
        NULL_POINTER "c is NULL":
            kvern_matmul(o.ctx, o.ws, M, N, K, a.x, K, 0, a.x, N, 0, null_mut(), N, e);
        NULL_POINTER "out is NULL": kvern_packed_b_pack(o.ctx, K, N, a.x, N, 0, null_mut());
        NULL_POINTER "b is NULL": kvern_packed_b_pack(o.ctx, K, N, null(), N, 0, &mut null_mut());
        NULL_POINTER "b is NULL": kvern_packed_b_bytes(null(), a.n);
        NULL_POINTER "out is NULL": kvern_packed_b_bytes(o.packed, null_mut());
        NULL_POINTER "ctx is NULL": kvern_packed_b_workspace_bytes(null(), o.packed, M, a.n);
        NULL_POINTER "b is NULL": kvern_packed_b_workspace_bytes(o.ctx, null(), M, a.n);
        NULL_POINTER "out is NULL": kvern_packed_b_workspace_bytes(o.ctx, o.packed, M, null_mut());
        NULL_POINTER "ctx is NULL":
            kvern_packed_b_multiply(null(), o.ws, o.packed, M, N, K, a.x, K, a.y, N, e);
        NULL_POINTER "ws is NULL":
            kvern_packed_b_multiply(o.ctx, null_mut(), o.packed, M, N, K, a.x, K, a.y, N, e);
        NULL_POINTER "b is NULL": kvern_packed_b_multiply(o.ctx, o.ws, null(), M, N, K, a.x, K, a.y, N, e);
        NULL_POINTER "a is NULL":
            kvern_packed_b_multiply(o.ctx, o.ws, o.packed, M, N, K, null(), K, a.y, N, e);
        NULL_POINTER "c is NULL":
            kvern_packed_b_multiply(o.ctx, o.ws, o.packed, M, N, K, a.x, K, null_mut(), N, e);
        NULL_POINTER "out is NULL": kvern_weights_quantize(null(), 2, N, K, a.x, K, null_mut());
        NULL_POINTER "w is NULL": kvern_weights_quantize(null(), 2, N, K, null(), K, &mut null_mut());
        NULL_POINTER "out is NULL": kvern_weights_from_blocks(null(), 2, 1, 32, a.bytes, 18, null_mut());
        NULL_POINTER "blocks is NULL":
            kvern_weights_from_blocks(null(), 2, 1, 32, null(), 18, &mut null_mut());
        NULL_POINTER "out is NULL":
            kvern_weights_from_block_rows(null(), 2, 1, 32, a.bytes, 18, 18, null_mut());
        NULL_POINTER "blocks is NULL":
            kvern_weights_from_block_rows(null(), 2, 1, 32, null(), 18, 18, &mut null_mut());
        SHAPE "row_bytes = 17 must be at least the bytes of k weights = 18":
            kvern_weights_from_block_rows(null(), 2, 1, 32, a.bytes, 18, 17, &mut null_mut());
        LENGTH "blocks.len":
            kvern_weights_from_block_rows(null(), 2, 2, 32, a.bytes, 37, 20, &mut null_mut());
        NULL_POINTER "weights is NULL": kvern_weights_to_blocks(null(), a.bytes, N * 68);
        NULL_POINTER "blocks is NULL": kvern_weights_to_blocks(o.weights, null_mut(), N * 68);
        NULL_POINTER "weights is NULL": kvern_weights_dequantize_row(null(), 0, K, a.y);
        NULL_POINTER "out is NULL": kvern_weights_dequantize_row(o.weights, 0, K, null_mut());
        NULL_POINTER "weights is NULL": kvern_weights_bytes(null(), a.n);
        NULL_POINTER "out is NULL": kvern_weights_bytes(o.weights, null_mut());
        NULL_POINTER "ctx is NULL": kvern_weights_workspace_bytes(null(), o.weights, 0, M, a.n);
        NULL_POINTER "weights is NULL": kvern_weights_workspace_bytes(o.ctx, null(), 0, M, a.n);
        NULL_POINTER "out is NULL": kvern_weights_workspace_bytes(o.ctx, o.weights, 0, M, null_mut());
        NULL_POINTER "ctx is NULL":
            kvern_weights_multiply(null(), o.ws, o.weights, 0, M, N, K, a.x, K, a.y, N, e);
        NULL_POINTER "ws is NULL":
            kvern_weights_multiply(o.ctx, null_mut(), o.weights, 0, M, N, K, a.x, K, a.y, N, e);
        NULL_POINTER "weights is NULL":
            kvern_weights_multiply(o.ctx, o.ws, null(), 0, M, N, K, a.x, K, a.y, N, e);
        NULL_POINTER "a is NULL":
            kvern_weights_multiply(o.ctx, o.ws, o.weights, 0, M, N, K, null(), K, a.y, N, e);
        NULL_POINTER "c is NULL":
            kvern_weights_multiply(o.ctx, o.ws, o.weights, 0, M, N, K, a.x, K, null_mut(), N, e);
        NULL_POINTER "out is NULL": kvern_blocks_bytes(2, 1, 32, null_mut());
        NULL_POINTER "x is NULL": kvern_blocks_quantize(2, null(), 32, a.bytes, 18);
        NULL_POINTER "blocks is NULL": kvern_blocks_quantize(2, a.x, 32, null_mut(), 18);
        NULL_POINTER "blocks is NULL": kvern_blocks_dequantize(2, null(), 18, a.y, 32);
        NULL_POINTER "out is NULL": kvern_blocks_dequantize(2, a.bytes, 18, null_mut(), 32);
    }
    assert!(a.unchanged());
}

#[test]
fn null_arguments_of_row_operations_are_refused() {
    let (a, o, w) = (Arrays::new(), Objects::new(), WIDTH);
    let (no, nom) = (null::<f32>(), null_mut::<f32>());
    refuse! {
        NULL_POINTER "ctx is NULL": kvern_layer_norm(null(), 2, w, a.x, w, a.gain, a.gain, 0.0, a.y, w);
        NULL_POINTER "x is NULL": kvern_layer_norm(o.ctx, 2, w, no, w, a.gain, a.gain, 0.0, a.y, w);
        NULL_POINTER "gain is NULL": kvern_layer_norm(o.ctx, 2, w, a.x, w, no, a.gain, 0.0, a.y, w);
        NULL_POINTER "bias is NULL": kvern_layer_norm(o.ctx, 2, w, a.x, w, a.gain, no, 0.0, a.y, w);
        NULL_POINTER "y is NULL": kvern_layer_norm(o.ctx, 2, w, a.x, w, a.gain, a.gain, 0.0, nom, w);
        NULL_POINTER "ctx is NULL": kvern_rms_norm(null(), 2, w, a.x, w, a.gain, 0.0, a.y, w);
        NULL_POINTER "x is NULL": kvern_rms_norm(o.ctx, 2, w, no, w, a.gain, 0.0, a.y, w);
        NULL_POINTER "gain is NULL": kvern_rms_norm(o.ctx, 2, w, a.x, w, no, 0.0, a.y, w);
        NULL_POINTER "y is NULL": kvern_rms_norm(o.ctx, 2, w, a.x, w, a.gain, 0.0, nom, w);
        NULL_POINTER "ctx is NULL": kvern_softmax(null(), 2, w, a.y, w);
        NULL_POINTER "x is NULL": kvern_softmax(o.ctx, 2, w, nom, w);
        NULL_POINTER "ctx is NULL": kvern_activate(null(), 1, 2, w, a.y, w);
        NULL_POINTER "x is NULL": kvern_activate(o.ctx, 1, 2, w, nom, w);
        NULL_POINTER "ctx is NULL": kvern_silu_mul(null(), 2, w, a.y, w, a.x, w);
        NULL_POINTER "x is NULL": kvern_silu_mul(o.ctx, 2, w, nom, w, a.x, w);
        NULL_POINTER "z is NULL": kvern_silu_mul(o.ctx, 2, w, a.y, w, no, w);
        NULL_POINTER "ctx is NULL": kvern_add(null(), 2, w, a.y, w, a.x, w);
        NULL_POINTER "x is NULL": kvern_add(o.ctx, 2, w, nom, w, a.x, w);
        NULL_POINTER "z is NULL": kvern_add(o.ctx, 2, w, a.y, w, no, w);
        NULL_POINTER "out is NULL": kvern_rope_table_create(8, 8, 1e4, null_mut());
        NULL_POINTER "ctx is NULL": kvern_rope(null(), o.table, 0, 0, 2, KV_HEADS, HEAD_DIM, a.y, w);
        NULL_POINTER "table is NULL": kvern_rope(o.ctx, null(), 0, 0, 2, KV_HEADS, HEAD_DIM, a.y, w);
        NULL_POINTER "x is NULL": kvern_rope(o.ctx, o.table, 0, 0, 2, KV_HEADS, HEAD_DIM, nom, w);
        NULL_POINTER "ctx is NULL": kvern_embedding(null(), 4, w, a.x, w, 2, a.ids, a.y, w);
        NULL_POINTER "table is NULL": kvern_embedding(o.ctx, 4, w, no, w, 2, a.ids, a.y, w);
        NULL_POINTER "ids is NULL": kvern_embedding(o.ctx, 4, w, a.x, w, 2, null(), a.y, w);
        NULL_POINTER "out is NULL": kvern_embedding(o.ctx, 4, w, a.x, w, 2, a.ids, nom, w);
        NULL_POINTER "ctx is NULL": kvern_embedding_quantized(null(), o.weights, K, 2, a.ids, a.y, K);
        NULL_POINTER "weights is NULL": kvern_embedding_quantized(o.ctx, null(), K, 2, a.ids, a.y, K);
        NULL_POINTER "ids is NULL": kvern_embedding_quantized(o.ctx, o.weights, K, 2, null(), a.y, K);
        NULL_POINTER "out is NULL": kvern_embedding_quantized(o.ctx, o.weights, K, 2, a.ids, nom, K);
        NULL_POINTER "ctx is NULL": kvern_argmax(null(), 4, a.x, a.n);
        NULL_POINTER "x is NULL": kvern_argmax(o.ctx, 4, no, a.n);
        NULL_POINTER "out is NULL": kvern_argmax(o.ctx, 4, a.x, null_mut());
        OPTION "x has no number": kvern_argmax(o.ctx, 0, no, a.n);
    }
    assert!(a.unchanged());
    // SAFETY: destroying NULL does nothing.
    unsafe {
        kvern_context_destroy(null_mut());
        kvern_workspace_destroy(null_mut());
        kvern_packed_b_destroy(null_mut());
        kvern_weights_destroy(null_mut());
        kvern_kv_cache_destroy(null_mut());
        kvern_rope_table_destroy(null_mut());
    }
}
