//! Calls through the C ABI give the bits of the safe API.

use crate::capi::*;
use crate::support::{Random, assert_same_bits};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, attend};
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
use kvern::capi::threads::*;
use kvern::capi::workspace::*;
use kvern::ops::{self, RopePairs, RopeTable};
use kvern::quant::{Compute, PackedWeights, WeightFormat, dequantize, quantize};
use kvern::{Activation, Context, Epilogue, Isa, MatMut, MatRef, Workspace};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn workspace() -> Workspace {
    Workspace::new(1 << 20).unwrap()
}

#[test]
fn products_have_the_bits_of_the_safe_api() {
    let (o, ctx, mut ws, mut random) = (Objects::new(), Context::serial(), workspace(), Random::new(1));
    let (a, bias) = (random.vec(M * K), random.vec(N));
    let start = random.vec(M * N);
    let finish = kvern_epilogue {
        alpha: 0.5,
        beta: 2.0,
        bias: bias.as_ptr(),
        activation: KVERN_ACTIVATION_GELU,
        ..epilogue()
    };
    let e = Epilogue::default().scaled(0.5, 2.0).bias(&bias).activation(Activation::Gelu);
    let (av, wv) = (MatRef::dense(&a, M, K).unwrap(), MatRef::dense(&o.w, N, K).unwrap());
    let mut want = start.clone();
    kvern::matmul::matmul(&ctx, &mut ws, av, wv.t(), MatMut::dense(&mut want, M, N).unwrap(), &e).unwrap();
    let (mut got, mut packed, mut bytes) = (start.clone(), start.clone(), 0);
    let (a, w) = (a.as_ptr(), o.w.as_ptr());
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_matmul_workspace_bytes(o.ctx, M, N, K, &mut bytes));
        ok(kvern_workspace_reserve(o.ws, bytes));
        ok(kvern_matmul(o.ctx, o.ws, M, N, K, a, K, 0, w, K, 1, got.as_mut_ptr(), N, &finish));
        ok(kvern_packed_b_workspace_bytes(o.ctx, o.packed, M, &mut bytes));
        ok(kvern_packed_b_multiply(o.ctx, o.ws, o.packed, M, N, K, a, K, packed.as_mut_ptr(), N, &finish));
        ok(kvern_packed_b_bytes(o.packed, &mut bytes));
    }
    assert_same_bits(&got, &want, "matmul");
    assert_same_bits(&packed, &want, "packed");
    assert!(bytes >= 4 * N * K);
    // C^T = W A^T, so transposing both ways must give the transposed bits.
    let (mut plain, mut flipped) = (vec![0.0; M * N], vec![0.0; N * M]);
    // SAFETY: as above.
    unsafe {
        ok(kvern_matmul(o.ctx, o.ws, M, N, K, a, K, 0, w, K, 1, plain.as_mut_ptr(), N, null()));
        ok(kvern_matmul(o.ctx, o.ws, N, M, K, w, K, 0, a, K, 1, flipped.as_mut_ptr(), M, &epilogue()));
    }
    let back: Vec<f32> = (0..M * N).map(|i| flipped[i % N * M + i / N]).collect();
    assert_same_bits(&plain, &back, "transposed");
    let mut unpacked: *mut kvern_packed_b = null_mut();
    // SAFETY: as above.
    unsafe {
        ok(kvern_packed_b_pack(o.ctx, N, K, w, K, 0, &mut unpacked));
        kvern_packed_b_destroy(unpacked);
        ok(kvern_matmul(o.ctx, o.ws, M, M, M, a, K, 1, a, K, 0, plain.as_mut_ptr(), M, null()));
    }
}

#[test]
fn blocks_of_every_format_have_the_bits_of_the_safe_api() {
    let x = Random::new(9).vec(512);
    for format in WeightFormat::ALL {
        let (number, mut bytes) = (format as i32, 0);
        let mut want = vec![0u8; format.bytes(1, 512).unwrap()];
        let mut want_floats = vec![0.0; 512];
        quantize(format, &x, &mut want).unwrap();
        dequantize(format, &want, &mut want_floats).unwrap();
        let mut blocks = vec![0u8; want.len()];
        let mut floats = vec![0.0; 512];
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            ok(kvern_blocks_bytes(number, 1, 512, &mut bytes));
            ok(kvern_blocks_quantize(number, x.as_ptr(), 512, blocks.as_mut_ptr(), bytes));
            ok(kvern_blocks_dequantize(number, blocks.as_ptr(), bytes, floats.as_mut_ptr(), 512));
        }
        assert_eq!((bytes, &blocks), (want.len(), &want), "{format:?}");
        assert_same_bits(&floats, &want_floats, format.name());
    }
}

#[test]
fn quantized_weights_have_the_bits_of_the_safe_api() {
    let (o, ctx, mut ws) = (Objects::new(), Context::serial(), workspace());
    let a = Random::new(2).vec(M * K);
    for (number, format) in
        [(KVERN_WEIGHT_FORMAT_Q4_0, WeightFormat::Q4_0), (KVERN_WEIGHT_FORMAT_Q8_0, WeightFormat::Q8_0)]
    {
        let safe = PackedWeights::quantize(format, MatRef::dense(&o.w, N, K).unwrap()).unwrap();
        let (mut weights, mut again, mut bytes) = (null_mut(), null_mut(), 0);
        let (mut row, mut floats) = (vec![0.0; K], vec![0.0; N * K]);
        // SAFETY: every pointer is live and of the stated size.
        let blocks = unsafe {
            ok(kvern_weights_quantize(null(), number, N, K, o.w.as_ptr(), K, &mut weights));
            ok(kvern_blocks_bytes(number, N, K, &mut bytes));
            let (mut blocks, mut direct) = (vec![0u8; bytes], vec![0u8; bytes]);
            ok(kvern_weights_to_blocks(weights, blocks.as_mut_ptr(), bytes));
            ok(kvern_blocks_quantize(number, o.w.as_ptr(), N * K, direct.as_mut_ptr(), bytes));
            assert_eq!(blocks, direct);
            ok(kvern_blocks_dequantize(number, blocks.as_ptr(), bytes, floats.as_mut_ptr(), N * K));
            ok(kvern_weights_from_blocks(null(), number, N, K, blocks.as_ptr(), bytes, &mut again));
            ok(kvern_weights_dequantize_row(again, 2, K, row.as_mut_ptr()));
            ok(kvern_weights_bytes(again, &mut bytes));
            blocks
        };
        assert_eq!((blocks.len(), bytes), (format.bytes(N, K).unwrap(), safe.bytes()));
        assert_same_bits(&row, &floats[2 * K..3 * K], "row");
        for (number, compute) in [(KVERN_COMPUTE_INT8, Compute::Int8), (KVERN_COMPUTE_F32, Compute::F32)] {
            let (mut got, mut want) = (vec![0.0; M * N], vec![0.0; M * N]);
            let (av, cv) = (MatRef::dense(&a, M, K).unwrap(), MatMut::dense(&mut want, M, N).unwrap());
            safe.multiply(&ctx, &mut ws, compute, av, cv, &Epilogue::default()).unwrap();
            let (a, c) = (a.as_ptr(), got.as_mut_ptr());
            // SAFETY: as above.
            unsafe {
                ok(kvern_weights_workspace_bytes(o.ctx, again, number, M, &mut bytes));
                ok(kvern_workspace_reserve(o.ws, bytes));
                ok(kvern_weights_multiply(o.ctx, o.ws, again, number, M, N, K, a, K, c, N, null()));
            }
            assert_same_bits(&got, &want, "multiply");
        }
        // SAFETY: as above; nothing uses them any more.
        unsafe {
            kvern_weights_destroy(weights);
            kvern_weights_destroy(again);
        }
    }
}

#[test]
fn attention_has_the_bits_of_the_safe_api() {
    let (o, ctx, mut ws, mut random) = (Objects::new(), Context::serial(), workspace(), Random::new(3));
    let heads = 2 * KV_HEADS;
    let (k, v) = (random.vec(6 * WIDTH), random.vec(6 * WIDTH));
    let q = random.vec(6 * heads * HEAD_DIM);
    let mut safe = KvCache::new(KvCacheOptions::new(KV_HEADS, HEAD_DIM, 8)).unwrap();
    safe.append(MatRef::dense(&k, 6, WIDTH).unwrap(), MatRef::dense(&v, 6, WIDTH).unwrap()).unwrap();
    // SAFETY: every pointer is live and of the stated size.
    unsafe { ok(kvern_kv_cache_append(o.cache, 6, k.as_ptr(), WIDTH, v.as_ptr(), WIDTH)) };
    for (scale, non_causal) in [(0.0, 0), (0.25, 1)] {
        let mut options = AttentionOptions::new(heads).causal(non_causal == 0);
        options.scale = (scale != 0.0).then_some(scale);
        let width = heads * HEAD_DIM;
        let (mut got, mut want, mut bytes) = (vec![0.0; 6 * width], vec![0.0; 6 * width], 0);
        let qv = MatRef::dense(&q, 6, width).unwrap();
        attend(&ctx, &mut ws, &options, qv, &safe, MatMut::dense(&mut want, 6, width).unwrap()).unwrap();
        let raw = kvern_attention_options { scale, non_causal, ..attention_options(heads) };
        let (q, out) = (q.as_ptr(), got.as_mut_ptr());
        // SAFETY: as above.
        unsafe {
            ok(kvern_attention_workspace_bytes(o.ctx, &raw, o.cache, 6, &mut bytes));
            ok(kvern_workspace_reserve(o.ws, bytes));
            ok(kvern_attention(o.ctx, o.ws, &raw, o.cache, 6, q, width, out, width));
        }
        assert_same_bits(&got, &want, "attention");
    }
    let mut out = vec![0.0; WIDTH];
    let (raw, q) = (attention_options(0), q.as_ptr());
    // SAFETY: as above; 0 heads are the cache's.
    unsafe { ok(kvern_attention(o.ctx, o.ws, &raw, o.cache, 1, q, WIDTH, out.as_mut_ptr(), WIDTH)) };
    assert!(out.iter().any(|&x| x != 0.0));
}

#[test]
fn a_cache_counts_forgets_and_refuses() {
    let (k, mut cache, mut n) = (vec![1.0; 6 * WIDTH], null_mut(), 9);
    let k = k.as_ptr();
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_kv_cache_create(null(), &cache_options(4, 3), &mut cache));
        for _ in 0..6 {
            ok(kvern_kv_cache_append(cache, 1, k, WIDTH, k, WIDTH));
        }
        ok(kvern_kv_cache_len(cache, &mut n));
        assert_eq!(n, 6);
        ok(kvern_kv_cache_start(cache, &mut n));
        assert_eq!(n, 2);
        ok(kvern_kv_cache_bytes(cache, &mut n));
        assert!(n >= 8 * 4 * WIDTH);
        ok(kvern_kv_cache_truncate(cache, 5));
        refused(kvern_kv_cache_truncate(cache, 2), KVERN_STATUS_SHAPE, "len = 2");
        // A ring takes more tokens than it holds, and keeps the last ones.
        ok(kvern_kv_cache_append(cache, 6, k, WIDTH, k, WIDTH));
        ok(kvern_kv_cache_start(cache, &mut n));
        assert_eq!(n, 7);
        ok(kvern_kv_cache_clear(cache));
        ok(kvern_kv_cache_len(cache, &mut n));
        assert_eq!(n, 0);
        kvern_kv_cache_destroy(cache);
        ok(kvern_kv_cache_create(null(), &cache_options(4, 0), &mut cache));
        refused(kvern_kv_cache_append(cache, 5, k, WIDTH, k, WIDTH), KVERN_STATUS_CACHE_FULL, "capacity = 4");
        kvern_kv_cache_destroy(cache);
    }
}

#[test]
fn row_operations_have_the_bits_of_the_safe_api() {
    const R: usize = 4;
    let (o, ctx, mut random) = (Objects::new(), Context::serial(), Random::new(4));
    let (x, z) = (random.vec(R * WIDTH), random.vec(R * WIDTH));
    let (gain, bias) = (random.vec(WIDTH), random.vec(WIDTH));
    let (xv, zv) = (MatRef::dense(&x, R, WIDTH).unwrap(), MatRef::dense(&z, R, WIDTH).unwrap());
    let table = RopeTable::new(HEAD_DIM, 16, 10000.0).unwrap();
    let compare = |what: &str, got: &dyn Fn(*mut f32) -> kvern_status, want: &dyn Fn(MatMut<'_>)| {
        let (mut a, mut b) = (x.clone(), x.clone());
        ok(got(a.as_mut_ptr()));
        want(MatMut::dense(&mut b, R, WIDTH).unwrap());
        assert_same_bits(&a, &b, what);
        assert_ne!(a, x, "{what} did nothing");
    };
    let (xp, zp, gp, bp) = (x.as_ptr(), z.as_ptr(), gain.as_ptr(), bias.as_ptr());
    compare(
        "layer norm",
        // SAFETY: every pointer is live and of the stated size.
        &|y| unsafe { kvern_layer_norm(o.ctx, R, WIDTH, xp, WIDTH, gp, bp, 1e-5, y, WIDTH) },
        &|y| ops::layer_norm(&ctx, xv, &gain, &bias, 1e-5, y).unwrap(),
    );
    compare(
        "rms norm",
        // SAFETY: as above.
        &|y| unsafe { kvern_rms_norm(o.ctx, R, WIDTH, xp, WIDTH, gp, 1e-5, y, WIDTH) },
        &|y| ops::rms_norm(&ctx, xv, &gain, 1e-5, y).unwrap(),
    );
    compare(
        "softmax",
        // SAFETY: as above.
        &|x| unsafe { kvern_softmax(o.ctx, R, WIDTH, x, WIDTH) },
        &|x| ops::softmax(&ctx, x),
    );
    compare(
        "silu",
        // SAFETY: as above.
        &|x| unsafe { kvern_activate(o.ctx, KVERN_ACTIVATION_SILU, R, WIDTH, x, WIDTH) },
        &|x| ops::activate(&ctx, Activation::Silu, x),
    );
    compare(
        "silu mul",
        // SAFETY: as above.
        &|x| unsafe { kvern_silu_mul(o.ctx, R, WIDTH, x, WIDTH, zp, WIDTH) },
        &|x| ops::silu_mul(&ctx, x, zv).unwrap(),
    );
    compare(
        "add",
        // SAFETY: as above.
        &|x| unsafe { kvern_add(o.ctx, R, WIDTH, x, WIDTH, zp, WIDTH) },
        &|x| ops::add(&ctx, x, zv).unwrap(),
    );
    for (number, pairs) in
        [(KVERN_ROPE_HALVES, RopePairs::Halves), (KVERN_ROPE_INTERLEAVED, RopePairs::Interleaved)]
    {
        compare(
            "rope",
            // SAFETY: as above.
            &|x| unsafe { kvern_rope(o.ctx, o.table, number, 5, R, KV_HEADS, HEAD_DIM, x, WIDTH) },
            &|x| ops::rope(&ctx, &table, pairs, HEAD_DIM, 5, x).unwrap(),
        );
    }
}

#[test]
fn rows_are_gathered_and_the_greatest_is_found() {
    let (o, ids) = (Objects::new(), [4u32, 0, 4]);
    let (mut plain, mut quantized, mut row, mut index) =
        (vec![0.0; 3 * K], vec![0.0; 3 * K], vec![0.0; K], 9);
    let (w, ids) = (o.w.as_ptr(), ids.as_ptr());
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_embedding(o.ctx, N, K, w, K, 3, ids, plain.as_mut_ptr(), K));
        ok(kvern_embedding_quantized(o.ctx, o.weights, K, 3, ids, quantized.as_mut_ptr(), K));
        ok(kvern_weights_dequantize_row(o.weights, 4, K, row.as_mut_ptr()));
        ok(kvern_argmax(o.ctx, 4, [1.0f32, 3.0, f32::NAN, 3.0].as_ptr(), &mut index));
    }
    assert_eq!((&plain[..K], &plain[K..2 * K]), (&o.w[4 * K..], &o.w[..K]));
    assert_eq!((&quantized[..K], &quantized[2 * K..]), (&row[..], &row[..]));
    assert_eq!(index, 1);
}

/// Threads of the test: each worker on a thread of its own, counted in `user`.
unsafe extern "C" fn spawn_workers(
    user: *mut c_void,
    workers: usize,
    body: kvern_worker_body,
    arg: *mut c_void,
) {
    // SAFETY: `user` is the test's counter, which outlives the context.
    unsafe { &*user.cast::<AtomicUsize>() }.fetch_add(workers, Relaxed);
    let arg = arg.expose_provenance();
    std::thread::scope(|s| {
        for worker in 0..workers {
            // SAFETY: `body` is called with its `arg` during the region.
            s.spawn(move || unsafe { body(std::ptr::with_exposed_provenance_mut(arg), worker) });
        }
    });
}

#[test]
fn any_threads_give_the_same_bits() {
    const S: usize = 320;
    let (a, counter) = (Random::new(5).vec(S * S), AtomicUsize::new(0));
    let caller = kvern_context_options {
        max_threads: 3,
        parallel_for: Some(spawn_workers),
        user: std::ptr::from_ref(&counter).cast_mut().cast(),
        ..context_options()
    };
    let options = [context_options(), kvern_context_options { threads: 2, ..context_options() }, caller];
    let mut results = Vec::new();
    for (options, want) in options.iter().zip([1, 2, 3]) {
        let (mut ctx, mut ws, mut workers, mut bytes) = (null_mut(), null_mut(), 0, 0);
        let mut c = vec![0.0; S * S];
        let a = a.as_ptr();
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            ok(kvern_context_create(options, &mut ctx));
            ok(kvern_context_max_threads(ctx, &mut workers));
            ok(kvern_matmul_workspace_bytes(ctx, S, S, S, &mut bytes));
            ok(kvern_workspace_create(null(), bytes, &mut ws));
            ok(kvern_matmul(ctx, ws, S, S, S, a, S, 0, a, S, 1, c.as_mut_ptr(), S, null()));
            kvern_workspace_destroy(ws);
            kvern_context_destroy(ctx);
        }
        assert_eq!(workers, want);
        results.push(c);
    }
    assert!(counter.load(Relaxed) >= 3, "the caller's threads were not used");
    assert_same_bits(&results[1], &results[0], "threads");
    assert_same_bits(&results[2], &results[0], "caller");
}

#[test]
fn a_context_tells_what_it_runs() {
    let (mut ctx, mut isa, mut name, mut bytes) = (null_mut(), 0, null(), 0);
    assert_eq!(kvern_isa_detect(), Isa::detect() as i32);
    assert_eq!((text(kvern_isa_name(0)), text(kvern_isa_name(77))), ("default".into(), "?".into()));
    for tier in Isa::available() {
        let options = kvern_context_options { isa_cap: *tier as i32, ..context_options() };
        // SAFETY: every pointer is live.
        unsafe {
            ok(kvern_context_create(&options, &mut ctx));
            ok(kvern_context_isa(ctx, &mut isa));
            ok(kvern_context_kernel_name(ctx, c"matmul".as_ptr(), &mut name));
            assert!(text(name).starts_with(tier.name()));
            let status = kvern_context_kernel_name(ctx, c"fft".as_ptr(), &mut name);
            refused(status, KVERN_STATUS_OPTION, "operation = \"fft\" must be one of matmul");
            assert!(name.is_null());
            kvern_context_destroy(ctx);
        }
        assert_eq!(isa, *tier as i32);
    }
    let mut ws = null_mut();
    // SAFETY: as above.
    unsafe {
        ok(kvern_context_create(null(), &mut ctx));
        kvern_context_destroy(ctx);
        ok(kvern_workspace_create(null(), 10, &mut ws));
        ok(kvern_workspace_reserve(ws, 100));
        ok(kvern_workspace_bytes(ws, &mut bytes));
        kvern_workspace_destroy(ws);
    }
    assert_eq!(bytes, 100);
}

#[test]
fn each_thread_has_a_message_of_its_own() {
    let mut n = 0;
    // SAFETY: NULL is refused.
    unsafe { refused(kvern_workspace_bytes(null(), &mut n), KVERN_STATUS_NULL_POINTER, "ws is NULL") };
    std::thread::scope(|s| s.spawn(|| assert_eq!(message(), "")).join().unwrap());
    assert_eq!(message(), "ws is NULL");
    // SAFETY: a destroyed NULL is no object, and a call that succeeds clears the message.
    unsafe { kvern_workspace_destroy(null_mut()) };
    assert_eq!(message(), "");
}
