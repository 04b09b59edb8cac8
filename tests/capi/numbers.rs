//! Numbers and arrays that no call can take: unknown enums, other sizes of options, overlaps, shapes that do
//! not fit, sizes beyond the address space. A status and a message with the numbers, never a crash.

use crate::capi::*;
use crate::statuses::*;
use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::cache_edit::*;
use kvern::capi::context::*;
use kvern::capi::elementwise::*;
use kvern::capi::matmul::*;
use kvern::capi::ops::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::rope::*;
use kvern::capi::status::*;
use kvern::capi::threads::*;
use kvern::capi::workspace::*;
use std::ptr::{null, null_mut};

#[test]
fn unknown_numbers_are_refused() {
    let (a, o) = (Arrays::new(), Objects::new());
    let mut none: *mut kvern_weights = o.weights;
    let e = kvern_epilogue { activation: 77, ..epilogue() };
    let flags = kvern_epilogue { flags: 1, ..epilogue() };
    let non_causal = kvern_attention_options { non_causal: 2, ..attention_options(0) };
    let isa = kvern_context_options { isa_cap: -1, ..context_options() };
    let threads = kvern_context_options { threads: 257, ..context_options() };
    let workers = kvern_context_options { max_threads: 2, ..context_options() };
    unsafe extern "C" fn idle(
        _: *mut std::ffi::c_void,
        _: usize,
        _: kvern_worker_body,
        _: *mut std::ffi::c_void,
    ) {
    }
    let caller = kvern_context_options { parallel_for: Some(idle), ..context_options() };
    let both = kvern_context_options { threads: 2, max_threads: 2, ..caller };
    refuse! {
        OPTION "format = 4": kvern_weights_quantize(null(), 4, N, K, a.x, K, &mut none);
        OPTION "format = -1": kvern_weights_from_blocks(null(), -1, N, K, a.bytes, 18, &mut null_mut());
        OPTION "format = 4": kvern_blocks_bytes(4, 1, 32, a.n);
        OPTION "format = 4": kvern_blocks_quantize(4, a.x, 32, a.bytes, 18);
        OPTION "format = 4": kvern_blocks_dequantize(4, a.bytes, 18, a.y, 32);
        OPTION "k = 33 must be a multiple": kvern_blocks_bytes(2, 1, 33, a.n);
        OPTION "compute = 2": kvern_weights_workspace_bytes(o.ctx, o.weights, 2, M, a.n);
        OPTION "compute = 9":
            kvern_weights_multiply(o.ctx, o.ws, o.weights, 9, M, N, K, a.x, K, a.y, N, null());
        OPTION "activation = 11": kvern_activate(o.ctx, 11, 2, WIDTH, a.y, WIDTH);
        OPTION "epilogue->activation = 77":
            kvern_packed_b_multiply(o.ctx, o.ws, o.packed, M, N, K, a.x, K, a.y, N, &e);
        UNSUPPORTED "epilogue->flags = 1":
            kvern_packed_b_multiply(o.ctx, o.ws, o.packed, M, N, K, a.x, K, a.y, N, &flags);
        OPTION "transpose_a = 2":
            kvern_matmul(o.ctx, o.ws, M, N, K, a.x, K, 2, a.x, N, 0, a.y, N, null());
        OPTION "transpose_b = -1":
            kvern_matmul(o.ctx, o.ws, M, N, K, a.x, K, 0, a.x, N, -1, a.y, N, null());
        OPTION "transpose_b = 3": kvern_packed_b_pack(o.ctx, K, N, a.x, N, 3, &mut null_mut());
        OPTION "pairs = 2": kvern_rope(o.ctx, o.table, 2, 0, 2, KV_HEADS, HEAD_DIM, a.y, WIDTH);
        OPTION "non_causal = 2":
            kvern_attention(o.ctx, o.ws, &non_causal, o.cache, 0, a.x, WIDTH, a.y, WIDTH);
        OPTION "isa_cap = -1": kvern_context_create(&isa, &mut null_mut());
        OPTION "threads = 257": kvern_context_create(&threads, &mut null_mut());
        OPTION "max_threads = 2": kvern_context_create(&workers, &mut null_mut());
        OPTION "max_threads = 0": kvern_context_create(&caller, &mut null_mut());
        OPTION "threads = 2": kvern_context_create(&both, &mut null_mut());
        OPTION "rotary_dim = 7": kvern_rope_table_create(7, 8, 1e4, &mut null_mut());
        OPTION "base": kvern_rope_table_create(8, 8, f64::NAN, &mut null_mut());
    }
    assert!(none.is_null(), "a failed create leaves NULL");
    assert!(a.unchanged());
}

const WORD: usize = size_of::<usize>();
/// Bytes of the options of this header.
const WHOLE: usize = size_of::<kvern_kv_cache_options>();

/// Options as another header would have them: `size` bytes of which the rest beyond ours is `excess`.
fn cache_with(size: usize, excess: u8) -> kvern_status {
    let mut memory = vec![0usize; 1024];
    let ours = kvern_kv_cache_options { struct_size: size, ..cache_options(4, 9) };
    memory[..5].copy_from_slice(&[size, ours.kv_heads, ours.head_dim, ours.capacity, 0]);
    if (4 * WORD..5 * WORD).contains(&size) {
        memory[4] = 9; // a window beyond the struct: it must not be read
    }
    memory[WHOLE / WORD] = usize::from(excess); // behind our struct
    let mut cache = null_mut();
    // SAFETY: the memory holds 1024 words, at least 4096 bytes, and no size above 4096 is read.
    unsafe {
        let status = kvern_kv_cache_create(null(), memory.as_ptr().cast(), &mut cache);
        assert_eq!(status == KVERN_STATUS_OK, !cache.is_null());
        kvern_kv_cache_clear(cache);
        if status == KVERN_STATUS_OK {
            kvern_kv_cache_destroy(cache);
        } else {
            // The message again: clearing NULL replaced it.
            kvern_kv_cache_create(null(), memory.as_ptr().cast(), &mut cache);
        }
        status
    }
}

#[test]
fn struct_sizes_of_other_headers_are_understood() {
    assert_eq!(cache_with(WHOLE, 0), KVERN_STATUS_OK);
    assert_eq!(cache_with(5 * WORD, 0), KVERN_STATUS_OK);
    assert_eq!(cache_with(4 * WORD, 1), KVERN_STATUS_OK);
    assert_eq!(cache_with(WHOLE + 16, 0), KVERN_STATUS_OK);
    refused(cache_with(WHOLE + 16, 1), KVERN_STATUS_UNSUPPORTED, "options uses a field of a newer kvern");
    refused(cache_with(3 * WORD, 0), KVERN_STATUS_OPTION, "capacity = 0");
    let no_sizes = [0, WORD / 2, WORD - 1, WORD + WORD / 2, 5 * WORD - 1];
    for size in no_sizes.into_iter().chain([4096 + WORD, usize::MAX, usize::MAX - 7]) {
        refused(cache_with(size, 0), KVERN_STATUS_OPTION, "options->struct_size");
    }
}

#[test]
fn overlapping_and_misaligned_arrays_are_refused() {
    let (a, o, w) = (Arrays::new(), Objects::new(), WIDTH);
    let later = a.y.wrapping_add(3);
    let odd = a.x.wrapping_byte_add(1);
    let bias = kvern_epilogue { bias: later, ..epilogue() };
    let attention = attention_options(0);
    refuse! {
        ALIASED "c overlaps a":
            kvern_matmul(o.ctx, o.ws, M, N, K, later, K, 0, a.x, N, 0, a.y, N, null());
        ALIASED "c overlaps b":
            kvern_matmul(o.ctx, o.ws, M, N, K, a.x, K, 0, later, N, 0, a.y, N, null());
        ALIASED "c overlaps epilogue->bias":
            kvern_matmul(o.ctx, o.ws, M, N, K, a.x, K, 0, a.x, N, 0, a.y, N, &bias);
        ALIASED "c overlaps a":
            kvern_packed_b_multiply(o.ctx, o.ws, o.packed, M, N, K, later, K, a.y, N, null());
        ALIASED "c overlaps a":
            kvern_weights_multiply(o.ctx, o.ws, o.weights, 0, M, N, K, later, K, a.y, N, null());
        ALIASED "out overlaps q": kvern_attention(o.ctx, o.ws, &attention, o.cache, 1, later, w, a.y, w);
        ALIASED "y overlaps x": kvern_layer_norm(o.ctx, 2, w, a.y, w, a.gain, a.gain, 0.0, a.y, w);
        ALIASED "y overlaps gain": kvern_rms_norm(o.ctx, 2, w, a.x, w, later, 0.0, a.y, w);
        ALIASED "x overlaps z": kvern_silu_mul(o.ctx, 2, w, a.y, w, later, w);
        ALIASED "x overlaps z": kvern_add(o.ctx, 2, w, a.y, w, later, w);
        ALIASED "out overlaps table": kvern_embedding(o.ctx, 4, w, later, w, 2, a.ids, a.y, w);
        ALIASED "out overlaps ids": kvern_embedding_quantized(o.ctx, o.weights, K, 2, a.y.cast(), a.y, K);
        ALIASED "blocks overlaps x": kvern_blocks_quantize(2, a.y, 32, a.y.cast(), 18);
        ALIASED "out overlaps blocks": kvern_blocks_dequantize(2, a.y.cast(), 18, a.y, 32);
        MISALIGNED "x = ": kvern_softmax(o.ctx, 1, 4, odd, 4);
        MISALIGNED "a = ": kvern_matmul(o.ctx, o.ws, 1, 1, 1, odd, 1, 0, a.x, 1, 0, a.y, 1, null());
        MISALIGNED "ids = ": kvern_embedding(o.ctx, 4, w, a.x, w, 2, odd.cast(), a.y, w);
        MISALIGNED "ctx = ": kvern_context_max_threads(odd.cast(), a.n);
        MISALIGNED "options = ": kvern_kv_cache_create(null(), odd.cast(), &mut null_mut());
    }
    assert!(a.unchanged());
}

#[test]
fn wrong_shapes_are_refused_with_both_numbers() {
    let (a, o, w) = (Arrays::new(), Objects::new(), WIDTH);
    let three = attention_options(3);
    let mut small = null_mut();
    // SAFETY: `small` is live.
    ok(unsafe { kvern_workspace_create(null(), 0, &mut small) });
    refuse! {
        SHAPE "a_row_stride = 63 must be at least 64":
            kvern_matmul(o.ctx, o.ws, M, N, K, a.x, K - 1, 0, a.x, N, 0, a.y, N, null());
        SHAPE "c_row_stride = 4":
            kvern_matmul(o.ctx, o.ws, M, N, K, a.x, K, 0, a.x, N, 0, a.y, N - 1, null());
        SHAPE "a.cols = 32":
            kvern_packed_b_multiply(o.ctx, o.ws, o.packed, M, N, 32, a.x, 32, a.y, N, null());
        SHAPE "c.cols = 4":
            kvern_weights_multiply(o.ctx, o.ws, o.weights, 0, M, 4, K, a.x, K, a.y, 4, null());
        WORKSPACE "workspace = 0 bytes":
            kvern_weights_multiply(o.ctx, small, o.weights, 0, M, N, K, a.x, K, a.y, N, null());
        SHAPE "row = 5": kvern_weights_dequantize_row(o.weights, N, K, a.y);
        SHAPE "blocks.len = 17": kvern_weights_from_blocks(null(), 2, 1, 32, a.bytes, 17, &mut null_mut());
        SHAPE "out.len = 3": kvern_weights_to_blocks(o.weights, a.bytes, 3);
        SHAPE "out.len = 3": kvern_blocks_quantize(2, a.x, 32, a.bytes, 3);
        SHAPE "heads = 3": kvern_attention_workspace_bytes(o.ctx, &three, o.cache, 1, a.n);
        SHAPE "first + x.rows = 18": kvern_rope(o.ctx, o.table, 0, 16, 2, KV_HEADS, HEAD_DIM, a.y, w);
        SHAPE "ids = 0": kvern_embedding(o.ctx, 0, w, a.x, w, 2, a.ids, a.y, w);
        SHAPE "out.cols = 8": kvern_embedding_quantized(o.ctx, o.weights, 8, 2, a.ids, a.y, 8);
        SHAPE "len = 1": kvern_kv_cache_truncate(o.cache, 1);
        CACHE_FULL "capacity = 8": kvern_kv_cache_append(o.cache, 9, a.x, WIDTH, a.x, WIDTH);
    }
    // SAFETY: `small` is not used any more.
    unsafe { kvern_workspace_destroy(small) };
    assert!(a.unchanged());
}

/// Sizes at the ends of the address space: every status but OK and PANIC, and no crash.
#[test]
fn absurd_sizes_are_refused() {
    let (a, o) = (Arrays::new(), Objects::new());
    let half = isize::MAX as usize;
    let e = null();
    for n in [half / 4 + 1, half, half + 1, usize::MAX - 31, usize::MAX & !31, usize::MAX] {
        let cache = kvern_kv_cache_options { capacity: n, ..cache_options(4, 0) };
        let heads = kvern_kv_cache_options { kv_heads: n & !7, head_dim: n & !7, ..cache };
        let attention = attention_options(n & !1);
        // With pointers of 32 bits an eighth of the address space is memory that there may be.
        let bytes = if usize::BITS == 64 { n } else { n.max(half + 1) };
        // SAFETY: sizes that no memory has are refused before anything is read.
        let statuses = unsafe {
            [
                kvern_workspace_create(null(), bytes & !1, &mut null_mut()),
                kvern_workspace_reserve(o.ws, bytes),
                kvern_matmul(o.ctx, o.ws, n, n, n, a.x, n, 0, a.x, n, 0, a.y, n, e),
                kvern_matmul(o.ctx, o.ws, 1, 1, n, a.x, n, 0, a.x, 1, 0, a.y, 1, e),
                kvern_packed_b_pack(o.ctx, n, n, a.x, n, 0, &mut null_mut()),
                kvern_packed_b_multiply(o.ctx, o.ws, o.packed, n, N, K, a.x, K, a.y, N, e),
                kvern_weights_quantize(null(), 2, n, 32, a.x, 32, &mut null_mut()),
                kvern_weights_quantize(null(), 2, 0, n & !31, null(), n, &mut null_mut()),
                kvern_weights_from_blocks(null(), 8, n, n & !31, a.bytes, 34, &mut null_mut()),
                kvern_weights_to_blocks(o.weights, a.bytes, n),
                kvern_weights_dequantize_row(o.weights, n, K, a.y),
                kvern_weights_multiply(o.ctx, o.ws, o.weights, 0, n, N, K, a.x, K, a.y, N, e),
                kvern_blocks_bytes(8, n, n & !31, a.n),
                kvern_blocks_quantize(2, a.x, n & !31, a.bytes, 18),
                kvern_kv_cache_create(null(), &cache, &mut null_mut()),
                kvern_kv_cache_create(null(), &heads, &mut null_mut()),
                kvern_kv_cache_append(o.cache, n, a.x, WIDTH, a.x, WIDTH),
                kvern_kv_cache_truncate(o.cache, n),
                kvern_attention(o.ctx, o.ws, &attention, o.cache, n, a.x, n, a.y, n),
                kvern_layer_norm(o.ctx, n, 2, a.x, 2, a.gain, a.gain, 0.0, a.y, 2),
                kvern_rms_norm(o.ctx, 1, n, a.x, n, a.gain, 0.0, a.y, n),
                kvern_softmax(o.ctx, n, n, a.y, n),
                kvern_activate(o.ctx, 1, 2, n, a.y, n),
                kvern_add(o.ctx, n, 1, a.y, 1, a.x, 1),
                kvern_rope_table_create(n & !1, n, 1e4, &mut null_mut()),
                kvern_rope(o.ctx, o.table, 0, n, 1, n, n, a.y, n),
                kvern_rope(o.ctx, o.table, 0, n, 1, 1, HEAD_DIM, a.y, HEAD_DIM),
                kvern_embedding(o.ctx, n, n, a.x, n, n, a.ids, a.y, n),
                kvern_embedding_quantized(o.ctx, o.weights, K, n, a.ids, a.y, K),
                kvern_argmax(o.ctx, n, a.x, a.n),
            ]
        };
        for (i, status) in statuses.into_iter().enumerate() {
            assert!(status < 0 && status != KVERN_STATUS_PANIC, "call {i} with {n}: {status}");
        }
        // What holds no memory may succeed: products of any size need bounded scratch.
        // SAFETY: as above.
        let queries = unsafe {
            [
                kvern_matmul_workspace_bytes(o.ctx, n, n, n, a.n),
                kvern_packed_b_pack(o.ctx, 0, n, null(), n, 1, &mut null_mut()),
                kvern_packed_b_workspace_bytes(o.ctx, o.packed, n, a.n),
                kvern_weights_workspace_bytes(o.ctx, o.weights, 0, n, a.n),
                kvern_attention_workspace_bytes(o.ctx, &attention, o.cache, n, a.n),
            ]
        };
        assert!(!queries.contains(&KVERN_STATUS_PANIC), "a query with {n}: {queries:?}");
        // Rows without elements: nothing to do, and no loop over all of them.
        let mut weights = null_mut();
        // SAFETY: nothing is read.
        unsafe {
            ok(kvern_weights_quantize(null(), 2, n, 0, null(), 0, &mut weights));
            kvern_weights_destroy(weights);
            ok(kvern_softmax(o.ctx, n, 0, null_mut(), 0));
            ok(kvern_rms_norm(o.ctx, n, 0, null(), 0, null(), 0.0, null_mut(), 0));
        }
    }
    assert!(a.unchanged());
}
