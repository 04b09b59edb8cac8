//! The caller's own memory through the C ABI, and packing on a context's threads.

use crate::capi::*;
use crate::support::assert_same_bits;
use kvern::capi::cache::*;
use kvern::capi::context::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::status::*;
use kvern::capi::weights::*;
use kvern::capi::workspace::*;
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Memory with a budget, which counts what is out.
struct Budget {
    /// Bytes that may be out.
    bytes: usize,
    /// Bytes by which blocks lie beside the alignment.
    shift: usize,
    out: AtomicUsize,
    calls: AtomicUsize,
}

impl Budget {
    fn new(bytes: usize, shift: usize) -> Budget {
        Budget { bytes, shift, out: AtomicUsize::new(0), calls: AtomicUsize::new(0) }
    }

    fn out(&self) -> usize {
        self.out.load(Relaxed)
    }

    /// A context on two threads with this memory.
    fn context(&self) -> *mut kvern_context {
        let mut ctx = null_mut();
        let options = kvern_context_options {
            threads: 2,
            allocate: Some(allocate),
            release: Some(release),
            memory: std::ptr::from_ref(self).cast_mut().cast(),
            ..context_options()
        };
        // SAFETY: both are live.
        unsafe { ok(kvern_context_create(&options, &mut ctx)) };
        ctx
    }
}

/// A block with room for the shift.
fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + 64, 64).unwrap()
}

unsafe extern "C" fn allocate(user: *mut c_void, bytes: usize, alignment: usize) -> *mut c_void {
    assert!(bytes > 0 && alignment == 64);
    // SAFETY: `user` is the budget, which outlives the objects of each test.
    let budget = unsafe { &*user.cast::<Budget>() };
    budget.calls.fetch_add(1, Relaxed);
    if bytes > budget.bytes || budget.out.fetch_add(bytes, Relaxed) > budget.bytes - bytes {
        if bytes <= budget.bytes {
            budget.out.fetch_sub(bytes, Relaxed);
        }
        return null_mut();
    }
    // SAFETY: not of size 0.
    let start = unsafe { alloc(layout(bytes)) };
    // SAFETY: within the block; garbage, which the library has to clear.
    unsafe {
        start.write_bytes(0xA5, bytes + 64);
        start.add(budget.shift).cast()
    }
}

unsafe extern "C" fn release(user: *mut c_void, start: *mut c_void, bytes: usize) {
    // SAFETY: as above.
    let budget = unsafe { &*user.cast::<Budget>() };
    budget.out.fetch_sub(bytes, Relaxed);
    // SAFETY: what `allocate` gave for as many bytes.
    unsafe { dealloc(start.byte_sub(budget.shift).cast(), layout(bytes)) };
}

#[test]
fn large_objects_lie_in_the_callers_memory_and_have_the_same_bits() {
    let (o, budget) = (Objects::new(), Budget::new(1 << 20, 0));
    let (mut ctx, w) = (budget.context(), o.w.as_ptr());
    let (weights_path, weights_file) = temporary("memory_weights");
    let (b_path, b_file) = temporary("memory_b");
    let mut blocks = vec![0u8; N * 68];
    let (mut ws, mut cache, mut packed, mut loaded_b) = (null_mut(), null_mut(), null_mut(), null_mut());
    let mut weights = [null_mut::<kvern_weights>(); 3];
    let (a, mut want, mut bytes) = (vec![0.5f32; M * K], vec![0f32; M * N], 0usize);
    // SAFETY: every pointer is live and of the stated size; objects are destroyed once.
    unsafe {
        let a = a.as_ptr();
        ok(kvern_weights_to_blocks(o.weights, blocks.as_mut_ptr(), blocks.len()));
        ok(kvern_weights_multiply(o.ctx, o.ws, o.weights, 0, M, N, K, a, K, want.as_mut_ptr(), N, null()));
        ok(kvern_weights_save(o.weights, weights_file.as_ptr()));
        ok(kvern_packed_b_save(o.packed, b_file.as_ptr()));
        assert_eq!(budget.out(), 0, "a context holds none");

        ok(kvern_workspace_create(ctx, 1 << 16, &mut ws));
        assert_eq!(budget.out(), 1 << 16);
        ok(kvern_workspace_reserve(ws, 1 << 17));
        assert_eq!(budget.out(), 1 << 17, "it grows where it lies");
        ok(kvern_kv_cache_create(ctx, &cache_options(8, 0), &mut cache));
        ok(kvern_kv_cache_bytes(cache, &mut bytes));
        assert_eq!(budget.out(), (1 << 17) + bytes);
        let before = budget.out();
        ok(kvern_packed_b_pack(ctx, K, N, w, K, 1, &mut packed));
        ok(kvern_packed_b_load(ctx, b_file.as_ptr(), &mut loaded_b));
        ok(kvern_packed_b_bytes(packed, &mut bytes));
        assert_eq!(budget.out(), before + 2 * bytes);
        let before = budget.out();
        let [quantized, from_blocks, loaded] = &mut weights;
        ok(kvern_weights_quantize(ctx, KVERN_WEIGHT_FORMAT_Q8_0, N, K, w, K, quantized));
        let (data, len) = (blocks.as_ptr(), blocks.len());
        ok(kvern_weights_from_blocks(ctx, KVERN_WEIGHT_FORMAT_Q8_0, N, K, data, len, from_blocks));
        ok(kvern_weights_load(ctx, weights_file.as_ptr(), loaded));
        ok(kvern_weights_bytes(o.weights, &mut bytes));
        assert_eq!(budget.out(), before + 3 * bytes);
        for weights in weights {
            let mut got = vec![f32::NAN; M * N];
            ok(kvern_weights_multiply(ctx, ws, weights, 0, M, N, K, a, K, got.as_mut_ptr(), N, null()));
            assert_same_bits(&got, &want, "weights in the caller's memory");
        }
        let calls = budget.calls.load(Relaxed);
        for b in [packed, loaded_b] {
            let (mut got, mut want) = (vec![f32::NAN; M * N], vec![0f32; M * N]);
            ok(kvern_packed_b_multiply(o.ctx, o.ws, o.packed, M, N, K, a, K, want.as_mut_ptr(), N, null()));
            ok(kvern_packed_b_multiply(ctx, ws, b, M, N, K, a, K, got.as_mut_ptr(), N, null()));
            assert_same_bits(&got, &want, "a matrix in the caller's memory");
        }
        // A cache starts as zeros, whatever the memory held.
        let (one, mut k, mut v) = ([1f32; WIDTH], [0f32; WIDTH], [0f32; WIDTH]);
        ok(kvern_kv_cache_append(cache, 1, one.as_ptr(), WIDTH, one.as_ptr(), WIDTH));
        ok(kvern_kv_cache_token(cache, 0, 0, WIDTH, k.as_mut_ptr(), WIDTH, v.as_mut_ptr()));
        assert_eq!((k, v), (one, one));
        assert_eq!(budget.calls.load(Relaxed), calls, "compute calls allocate nothing");

        kvern_context_destroy(ctx);
        ctx = null_mut();
        weights.into_iter().for_each(|w| kvern_weights_destroy(w));
        kvern_packed_b_destroy(packed);
        kvern_packed_b_destroy(loaded_b);
        kvern_kv_cache_destroy(cache);
        kvern_workspace_destroy(ws);
    }
    assert!(ctx.is_null());
    assert_eq!(budget.out(), 0, "everything was given back");
    std::fs::remove_file(weights_path).unwrap();
    std::fs::remove_file(b_path).unwrap();
}

#[test]
fn memory_that_is_not_there_or_not_aligned_is_refused() {
    let o = Objects::new();
    for (budget, status) in
        [(Budget::new(0, 0), KVERN_STATUS_RESOURCE), (Budget::new(1 << 20, 8), KVERN_STATUS_OPTION)]
    {
        let (ctx, w, part) = (budget.context(), o.w.as_ptr(), "the caller's memory");
        let (mut ws, mut cache, mut packed, mut weights) = (null_mut(), null_mut(), null_mut(), null_mut());
        let blocks = [0u8; N * 68];
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            refused(kvern_workspace_create(ctx, 64, &mut ws), status, part);
            refused(kvern_kv_cache_create(ctx, &cache_options(8, 0), &mut cache), status, part);
            refused(kvern_packed_b_pack(ctx, K, N, w, K, 1, &mut packed), status, part);
            refused(kvern_weights_quantize(ctx, 8, N, K, w, K, &mut weights), status, part);
            let (data, len) = (blocks.as_ptr(), blocks.len());
            refused(kvern_weights_from_blocks(ctx, 8, N, K, data, len, &mut weights), status, part);
            assert!(ws.is_null() && cache.is_null() && packed.is_null() && weights.is_null());
            // Nothing is asked for where nothing is needed.
            ok(kvern_workspace_create(ctx, 0, &mut ws));
            refused(kvern_workspace_reserve(ws, 64), status, part);
            kvern_workspace_destroy(ws);
            kvern_context_destroy(ctx);
        }
        assert_eq!(budget.out(), 0);
    }
}

#[test]
fn null_and_half_of_a_pair_are_refused() {
    let (o, mut ctx) = (Objects::new(), null_mut());
    let half = kvern_context_options { allocate: Some(allocate), ..context_options() };
    let other = kvern_context_options { release: Some(release), ..context_options() };
    let (mut cache, mut b, mut weights) = (null_mut(), null_mut(), null_mut());
    let (null_status, blocks, path) = (KVERN_STATUS_NULL_POINTER, [0u8; 68], c"/nowhere/b".as_ptr());
    let (c, w, data) = (o.ctx.cast_const(), o.w.as_ptr(), blocks.as_ptr());
    // SAFETY: what is not NULL is live; what is wrong about the rest is refused before it is read.
    unsafe {
        refused(kvern_context_create(&half, &mut ctx), null_status, "options->release is NULL");
        refused(kvern_context_create(&other, &mut ctx), null_status, "options->allocate is NULL");
        refused(kvern_workspace_create(c, 1, null_mut()), null_status, "out is NULL");
        let options = cache_options(8, 0);
        refused(kvern_kv_cache_create(c, null(), &mut cache), null_status, "options is NULL");
        refused(kvern_kv_cache_create(c, &options, null_mut()), null_status, "out is NULL");
        refused(kvern_packed_b_load(c, null(), &mut b), null_status, "path is NULL");
        refused(kvern_packed_b_load(c, path, null_mut()), null_status, "out is NULL");
        refused(kvern_packed_b_load(c, path, &mut b), KVERN_STATUS_IO, "/nowhere/b");
        let quantize = |ctx, format, w, out| kvern_weights_quantize(ctx, format, N, K, w, K, out);
        refused(quantize(c, 8, null(), &mut weights), null_status, "w is NULL");
        refused(quantize(c, 8, w, null_mut()), null_status, "out is NULL");
        refused(quantize(c, 99, w, &mut weights), KVERN_STATUS_OPTION, "format = 99");
        let pack = |ctx, format, blocks, bytes, out| {
            kvern_weights_from_blocks(ctx, format, 1, K, blocks, bytes, out)
        };
        refused(pack(c, 8, null(), 68, &mut weights), null_status, "blocks is NULL");
        refused(pack(c, 8, data, 68, null_mut()), null_status, "out is NULL");
        refused(pack(c, 99, data, 68, &mut weights), KVERN_STATUS_OPTION, "format = 99");
        refused(pack(c, 8, data, 67, &mut weights), KVERN_STATUS_SHAPE, "blocks.len = 67");
    }
    assert!(ctx.is_null() && cache.is_null() && b.is_null() && weights.is_null());
}
