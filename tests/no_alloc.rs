//! Compute calls allocate nothing: counted by the global allocator, for a serial context and for a team.

use kvern::attention::{
    self, AttentionOptions, Bias, KvCache, KvCacheOptions, KvType, Outputs, Plain, Preparation, Ragged,
    attend, attend_batch, attend_plain, attend_ragged, attend_with,
};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::ops::{self, RopePairs, RopeTable};
use kvern::quant::{
    Compute, Expert, ExpertOptions, HeadStrides, PackedWeights, WeightFormat, experts_workspace_bytes,
    heads_workspace_bytes, multiply_experts, multiply_heads,
};
use kvern::recurrent::{DeltaTokens, RecurrentState, ScanTokens, StateOptions, delta_rule, selective_scan};
use kvern::{Activation, Context, ContextOptions, Epilogue, Isa, MatMut, MatRef, PackedB, Workspace};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's obligations are handed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are handed on.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn compute_calls_allocate_nothing() {
    let (m, n, k) = (50, 256, 320);
    let a: Vec<f32> = (0..m * k).map(|i| (i % 11) as f32 - 5.0).collect();
    let w: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
    let bias = vec![0.5; n];
    let (am, wm) = (MatRef::dense(&a, m, k).unwrap(), MatRef::dense(&w, n, k).unwrap());
    let mut c = vec![0.0f32; m * n];
    let mut x = vec![0.5f32; 300 * 512];
    let (gain, truths) = ([1.5f32; 32], vec![true; 8 * 300]);
    let seen = MatRef::dense(&truths, 8, 300).unwrap();
    let kv = MatRef::dense(&w[..300 * 128], 300, 128).unwrap();
    let plain = Plain::new(kv, kv, 4).unwrap();
    let table = RopeTable::new(32, 400, 1e4).unwrap();
    // All alive to the end: a thread that ends allocates, at a time of its own.
    let contexts = Isa::available().iter().flat_map(|isa| {
        [1, 2].map(|n| Context::new(&ContextOptions::default().isa_cap(*isa).threads(n)).unwrap())
    });
    let contexts: Vec<Context> = contexts.collect();
    for ctx in &contexts {
        let packed = PackedB::pack(ctx, wm.t()).unwrap();
        let quantized = [WeightFormat::Q4_0, WeightFormat::Q8_0]
            .map(|format| PackedWeights::quantize(format, wm).unwrap());
        let square = MatRef::dense(&w[..256 * 256], 256, 256).unwrap();
        let square = PackedWeights::quantize(WeightFormat::Q8_0, square).unwrap();
        let experts = [Expert::new(&square, Some(&square), &square); 5];
        let indices: Vec<u32> = (0..80).map(|i| i % 5).collect();
        let mut cache = KvCache::new(KvCacheOptions::new(4, 32, 400)).unwrap();
        let attention = AttentionOptions::new(16);
        let mut paged = KvType::ALL.map(|kind| {
            let o = KvCacheOptions::new(4, 32, 400).window(300).sinks(4).sequences(3).types(kind, kind);
            KvCache::new(o).unwrap()
        });
        let latent = KvCacheOptions::new(1, 128, 400).types(KvType::F16, KvType::F16).latent(96);
        let mut latent = KvCache::new(latent).unwrap();
        let (heads, strides) = ([&square; 2], HeadStrides { a: 256, c: 256 });
        let ragged = [0, 100, 100, 300];
        let ragged = Ragged::new(plain, &ragged, &ragged).unwrap();
        let mut ws = Workspace::new(0).unwrap();
        let [silu, silu_f32] =
            [Compute::Int8, Compute::F32].map(|compute| ExpertOptions::new(compute, Activation::Silu));
        for bytes in [
            matmul_workspace_bytes(ctx, m, n, k).unwrap(),
            quantized[0].workspace_bytes(ctx, m, Compute::Int8).unwrap(),
            experts_workspace_bytes(ctx, &silu, &experts, 40, 2).unwrap(),
            experts_workspace_bytes(ctx, &silu_f32, &experts, 40, 2).unwrap(),
            attention::workspace_bytes(ctx, &attention, &cache, 300).unwrap(),
            attention::workspace_bytes(ctx, &attention, &paged[3], 90).unwrap(),
            attention::plain_workspace_bytes(ctx, &attention, &plain, 300).unwrap(),
            attention::workspace_bytes(ctx, &AttentionOptions::new(2), &latent, 300).unwrap(),
            heads_workspace_bytes(ctx, &heads, 50, Compute::Int8).unwrap(),
        ] {
            ws.reserve(bytes).unwrap();
        }
        let e = Epilogue::default().scaled(1.0, 1.0).bias(&bias).activation(Activation::Gelu);
        let starts: Vec<usize> = (0..=300).collect();
        let (mut state, mut chosen, mut weights) = (vec![0.0; 3 * 256], vec![0; 2400], vec![0.0; 2400]);
        let mut states = RecurrentState::new(StateOptions::new(4, 32, 64).sequences(3)).unwrap();
        let mut everything = || {
            let ws = &mut ws;
            for (a, b) in [(am, wm.t()), (MatRef::dense(&a, k, m).unwrap().t(), wm.t())] {
                matmul(ctx, ws, a, b, MatMut::dense(&mut c, m, n).unwrap(), &e).unwrap();
            }
            packed.multiply(ctx, ws, am, MatMut::dense(&mut c, m, n).unwrap(), &e).unwrap();
            for weights in &quantized {
                for compute in [Compute::Int8, Compute::F32] {
                    let c = MatMut::dense(&mut c, m, n).unwrap();
                    weights.multiply(ctx, ws, compute, am, c, &e).unwrap();
                }
            }
            cache.clear();
            let kv = MatRef::dense(&w[..300 * 128], 300, 128).unwrap();
            cache.append(kv, kv).unwrap();
            let q = MatRef::dense(&w[..300 * 256], 300, 256).unwrap();
            let q = MatRef::new(&a[..8 * 512], 8, 512, 512).unwrap_or(q);
            let out = MatMut::dense(&mut x[..8 * 512], 8, 512).unwrap();
            attend(ctx, ws, &attention, q, &cache, out).unwrap();
            let options = attention.softcap(30.0).window(200).sinks(4);
            let terms = Bias::default().alibi(&bias[..16]).seen(seen).sink_logits(&bias[..16]);
            let (out, rest) = x.split_at_mut(8 * 512);
            let out = MatMut::dense(out, 8, 512).unwrap();
            let lse = MatMut::dense(&mut rest[..8 * 16], 8, 16).unwrap();
            attend_with(ctx, ws, &options, &terms, q, &cache, Outputs::new(out).lse(lse)).unwrap();
            let out = Outputs::new(MatMut::dense(&mut x[..8 * 512], 8, 512).unwrap());
            attend_plain(ctx, ws, &options, &terms, q, &plain, out).unwrap();
            let out = Outputs::new(MatMut::dense(&mut x[..300 * 128], 300, 128).unwrap());
            let encoder = AttentionOptions::new(4).causal(false);
            attend_ragged(ctx, ws, &encoder, &Bias::default(), kv, &ragged, out).unwrap();
            latent.clear();
            latent.append(kv, MatRef::dense(&[], 300, 0).unwrap()).unwrap();
            let q = MatRef::dense(&w[..40 * 256], 40, 256).unwrap();
            let out = MatMut::dense(&mut x[..40 * 192], 40, 192).unwrap();
            attend(ctx, ws, &AttentionOptions::new(2), q, &latent, out).unwrap();
            let (q, out) = (MatRef::dense(&w[..50 * 512], 50, 512).unwrap(), &mut x[..50 * 512]);
            let out = MatMut::dense(out, 50, 512).unwrap();
            multiply_heads(ctx, ws, Compute::Int8, &heads, strides, q, out).unwrap();
            let (q, k) = x.split_at_mut(20 * 512);
            let q = MatMut::dense(q, 20, 512).unwrap();
            let k = MatMut::dense(&mut k[..20 * 128], 20, 128).unwrap();
            let prepared = Preparation::default().norms(&gain, &gain, 1e-6).rope(&table, RopePairs::Halves);
            let v = MatRef::dense(&w[..20 * 128], 20, 128).unwrap();
            cache.append_prepared(ctx, 0, &prepared, q, k, v).unwrap();
            for cache in &mut paged {
                cache.clear();
                cache.append(kv, kv).unwrap();
                cache.append(kv, kv).unwrap();
                cache.fork(0, 2).unwrap();
                cache.append_to(2, kv, kv).unwrap();
                cache.truncate_in(2, 850).unwrap();
                cache.remove(590..600).unwrap();
                for sequences in [&[0, 2][..], &[0]] {
                    for rows in [2, 80] {
                        let q = MatRef::dense(&w[..rows * 512], rows, 512).unwrap();
                        let out = MatMut::dense(&mut x[..rows * 512], rows, 512).unwrap();
                        attend_batch(ctx, ws, &attention, q, cache, sequences, out).unwrap();
                    }
                }
            }
            let first = |cols| MatRef::dense(&w[..300 * cols], 300, cols).unwrap();
            let rows = || first(256);
            let mut y = MatMut::dense(&mut x[..300 * 256], 300, 256).unwrap();
            ops::layer_norm(ctx, rows(), &bias, &bias, 1e-5, y.reborrow()).unwrap();
            ops::rms_norm(ctx, rows(), &bias, 1e-5, y.reborrow()).unwrap();
            ops::rope(ctx, &table, RopePairs::Halves, 32, 0, y.reborrow()).unwrap();
            let (axes, at) = ([0; 16], [0; 600]);
            ops::rope_axes(ctx, &table, RopePairs::Halves, 32, &axes, &at, y.reborrow()).unwrap();
            ops::activate(ctx, Activation::Silu, y.reborrow());
            ops::silu_mul(ctx, y.reborrow(), rows()).unwrap();
            ops::add(ctx, y.reborrow(), rows()).unwrap();
            for activation in Activation::ALL {
                ops::activate(ctx, activation, y.reborrow());
                ops::activate_mul(ctx, activation, y.reborrow(), rows()).unwrap();
            }
            ops::swiglu_oai(ctx, 1.702, 7.0, y.reborrow(), rows()).unwrap();
            ops::add_scaled(ctx, y.reborrow(), 0.5, rows()).unwrap();
            ops::scale(ctx, y.reborrow(), 0.5);
            ops::softcap(ctx, 30.0, y.reborrow()).unwrap();
            ops::softmax(ctx, y.reborrow());
            ops::argmax(ctx, y.row(0)).unwrap();
            let norm = ops::NormOptions::new(ops::NormKind::Rms, 1e-5).gate(Activation::Silu, rows());
            ops::norm(ctx, &norm.groups(2), rows(), y.reborrow()).unwrap();
            ops::mean_pool(ctx, rows(), &starts, None, y.reborrow()).unwrap();
            ops::cumulative_sum(ctx, ops::Along::Column, y.reborrow());
            let taps = ops::ConvOptions::new(MatRef::dense(&w[..4 * 256], 4, 256).unwrap());
            ops::causal_conv(ctx, &taps.bias(&bias), rows(), &mut state, y.reborrow()).unwrap();
            let delta = DeltaTokens {
                q: first(64),
                k: first(64),
                v: rows(),
                decay: first(4),
                beta: first(4),
                scale: 0.1,
            };
            delta_rule(ctx, &mut states, &[2, 0, 1], &delta, y.reborrow()).unwrap();
            let scan = ScanTokens {
                x: rows(),
                dt: first(4),
                b: first(64),
                c: first(64),
                a: &bias[..4],
                d: &bias[..4],
            };
            selective_scan(ctx, &mut states, &[1], &scan, y.reborrow()).unwrap();
            let step = ops::TimeStepOptions::default().bias(&bias);
            ops::time_step(ctx, &step, rows(), y.reborrow()).unwrap();
            ops::top_k(ctx, rows(), 8, &mut chosen, &mut weights).unwrap();
            let router = ops::RouterOptions::new(8, ops::RouterScore::Sigmoid).renormalize(1e-20);
            let router = router.bias(&bias).groups(8, 4, ops::GroupScore::BestTwo);
            ops::route(ctx, &router, 256, &mut x[..300 * 256], &mut chosen, &mut weights).unwrap();
            let y = MatMut::dense(&mut x[..2 * 320], 2, 320).unwrap();
            ops::embedding_quantized(ctx, &quantized[0], &[3, 5], y).unwrap();
            for options in [silu, silu_f32] {
                let (a, y) = (MatRef::dense(&a[..40 * 256], 40, 256).unwrap(), &mut x[..40 * 256]);
                let y = MatMut::dense(y, 40, 256).unwrap();
                multiply_experts(ctx, ws, &options, &experts, a, &indices, &bias[..80], y).unwrap();
            }
        };
        everything(); // the first region of a team may initialise thread-local state
        // A call that allocates does so each time. The harness has a thread of its own, which allocates when
        // it says that a test takes long.
        let counts = [(); 3].map(|()| {
            let before = ALLOCATIONS.load(SeqCst);
            everything();
            ALLOCATIONS.load(SeqCst) - before
        });
        assert!(counts.contains(&0), "{ctx:?}: {counts:?} allocations");
    }
}
