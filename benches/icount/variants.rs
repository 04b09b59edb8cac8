//! Attention with everything that an option adds: types of caches, masks and biases, several sequences, the
//! caller's own keys and values.

use crate::attention::{DIM, filled};
use crate::inputs::{Mat, context, workspace};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::attention::{
    AttentionOptions, Bias, KvCache, KvCacheOptions, KvType, Outputs, Plain, Sequences, attend_batch,
    attend_plain, attend_with,
};
use kvern::{Context, Isa, MatRef, Workspace};
use std::hint::black_box;

/// Modifiers of the attention scores.
#[derive(Clone, Copy, PartialEq)]
pub enum Extra {
    None,
    Alibi,
    Mask,
    Seen,
    Tree,
    SinkLogits,
}

/// One call, ready to run.
pub struct Call {
    ctx: Context,
    ws: Workspace,
    options: AttentionOptions,
    extra: Extra,
    cache: KvCache,
    q: Mat,
    out: Mat,
    lse: Mat,
    numbers: Vec<f32>, // (heads)
    mask: Mat,         // (queries, keys)
    seen: Vec<bool>,   // (queries, keys)
}

impl Call {
    fn new(isa: Isa, options: AttentionOptions, cache: KvCacheOptions, queries: usize, extra: Extra) -> Call {
        let (heads, keys) = (options.heads, cache.capacity);
        Call {
            ctx: context(isa),
            ws: workspace(),
            options,
            extra,
            cache: filled(cache, keys),
            q: Mat::new(queries, heads * DIM, 13),
            out: Mat::zeros(queries, heads * DIM),
            lse: Mat::zeros(queries, heads),
            numbers: (0..heads).map(|h| 0.5 / (h + 1) as f32).collect(),
            mask: Mat::new(queries, keys, 14),
            seen: (0..queries * keys).map(|i| i % 3 > 0).collect(),
        }
    }

    fn run(mut self) -> Call {
        let (queries, keys) = (self.q.view().rows(), self.mask.view().cols());
        let bias = match self.extra {
            Extra::None => Bias::default(),
            Extra::Alibi => Bias::default().alibi(&self.numbers),
            Extra::Mask => Bias::default().mask(self.mask.view()),
            Extra::Seen => Bias::default().seen(MatRef::new(&self.seen, queries, keys, keys).expect("shape")),
            Extra::Tree => {
                Bias::default().tree(MatRef::new(&self.seen, queries, queries, keys).expect("shape"))
            }
            Extra::SinkLogits => Bias::default().sink_logits(&self.numbers),
        };
        let outputs = Outputs::new(self.out.view_mut()).lse(self.lse.view_mut());
        let q = self.q.view();
        attend_with(&self.ctx, &mut self.ws, &self.options, &bias, q, &self.cache, outputs).expect("call");
        self
    }
}

fn of_type(isa: Isa, kind: KvType, (heads, kv_heads): (usize, usize), queries: usize, keys: usize) -> Call {
    let cache = KvCacheOptions::new(kv_heads, DIM, keys).types(kind, kind);
    Call::new(isa, AttentionOptions::new(heads), cache, queries, Extra::None)
}

#[library_benchmark(setup = of_type)]
#[bench::scalar_f16_2x256(Isa::Scalar, KvType::F16, (2, 2), 1, 256)]
#[bench::scalar_bf16_2x256(Isa::Scalar, KvType::Bf16, (2, 2), 1, 256)]
#[bench::scalar_int8_2x256(Isa::Scalar, KvType::Int8, (2, 2), 1, 256)]
#[bench::scalar_int4_2x256(Isa::Scalar, KvType::Int4, (2, 2), 1, 256)]
#[bench::avx2_f16_8x512(Isa::Avx2, KvType::F16, (8, 8), 1, 512)]
#[bench::avx2_bf16_8x512(Isa::Avx2, KvType::Bf16, (8, 8), 1, 512)]
#[bench::avx2_int8_8x512(Isa::Avx2, KvType::Int8, (8, 8), 1, 512)]
#[bench::avx2_int4_8x512(Isa::Avx2, KvType::Int4, (8, 8), 1, 512)]
#[bench::avx2_f16_32_of_8x512(Isa::Avx2, KvType::F16, (32, 8), 1, 512)]
#[bench::avx2_bf16_32_of_8x512(Isa::Avx2, KvType::Bf16, (32, 8), 1, 512)]
#[bench::avx2_int8_32_of_8x512(Isa::Avx2, KvType::Int8, (32, 8), 1, 512)]
#[bench::avx2_int4_32_of_8x512(Isa::Avx2, KvType::Int4, (32, 8), 1, 512)]
fn decode_type(c: Call) -> Call {
    black_box(c.run())
}

// As many query heads, each with keys and values of its own: what grouped queries share.
#[library_benchmark(setup = of_type)]
#[bench::avx2_f16_32x512(Isa::Avx2, KvType::F16, (32, 32), 1, 512)]
#[bench::avx2_bf16_32x512(Isa::Avx2, KvType::Bf16, (32, 32), 1, 512)]
#[bench::avx2_int8_32x512(Isa::Avx2, KvType::Int8, (32, 32), 1, 512)]
#[bench::avx2_int4_32x512(Isa::Avx2, KvType::Int4, (32, 32), 1, 512)]
fn decode_ungrouped(c: Call) -> Call {
    black_box(c.run())
}

#[library_benchmark(setup = of_type)]
#[bench::scalar_f16_1x48(Isa::Scalar, KvType::F16, (1, 1), 48, 48)]
#[bench::scalar_bf16_1x48(Isa::Scalar, KvType::Bf16, (1, 1), 48, 48)]
#[bench::scalar_int8_1x48(Isa::Scalar, KvType::Int8, (1, 1), 48, 48)]
#[bench::scalar_int4_1x48(Isa::Scalar, KvType::Int4, (1, 1), 48, 48)]
#[bench::avx2_f16_4x128(Isa::Avx2, KvType::F16, (4, 4), 128, 128)]
#[bench::avx2_bf16_4x128(Isa::Avx2, KvType::Bf16, (4, 4), 128, 128)]
#[bench::avx2_int8_4x128(Isa::Avx2, KvType::Int8, (4, 4), 128, 128)]
#[bench::avx2_int4_4x128(Isa::Avx2, KvType::Int4, (4, 4), 128, 128)]
fn prefill_type(c: Call) -> Call {
    black_box(c.run())
}

fn extra(isa: Isa, extra: Extra, heads: usize, queries: usize, keys: usize) -> Call {
    Call::new(isa, AttentionOptions::new(heads), KvCacheOptions::new(heads, DIM, keys), queries, extra)
}

#[library_benchmark(setup = extra)]
#[bench::scalar_lse_1x48(Isa::Scalar, Extra::None, 1, 48, 48)]
#[bench::scalar_alibi_1x48(Isa::Scalar, Extra::Alibi, 1, 48, 48)]
#[bench::scalar_mask_1x48(Isa::Scalar, Extra::Mask, 1, 48, 48)]
#[bench::scalar_seen_1x48(Isa::Scalar, Extra::Seen, 1, 48, 48)]
#[bench::scalar_tree_1x48(Isa::Scalar, Extra::Tree, 1, 48, 48)]
#[bench::scalar_sink_logits_1x48(Isa::Scalar, Extra::SinkLogits, 1, 48, 48)]
#[bench::avx2_lse_4x128(Isa::Avx2, Extra::None, 4, 128, 128)]
#[bench::avx2_alibi_4x128(Isa::Avx2, Extra::Alibi, 4, 128, 128)]
#[bench::avx2_mask_4x128(Isa::Avx2, Extra::Mask, 4, 128, 128)]
#[bench::avx2_seen_4x128(Isa::Avx2, Extra::Seen, 4, 128, 128)]
#[bench::avx2_tree_4x16_of_512(Isa::Avx2, Extra::Tree, 4, 16, 512)]
#[bench::avx2_sink_logits_4x128(Isa::Avx2, Extra::SinkLogits, 4, 128, 128)]
fn bias(c: Call) -> Call {
    black_box(c.run())
}

/// An option of the call.
#[derive(Clone, Copy)]
pub enum With {
    Softcap,
    Bidirectional,
    WindowAndSinks,
}

fn with(isa: Isa, with: With, heads: usize, keys: usize) -> Call {
    let options = AttentionOptions::new(heads);
    let options = match with {
        With::Softcap => options.softcap(30.0),
        With::Bidirectional => options.causal(false),
        With::WindowAndSinks => options.window(keys / 4).sinks(4),
    };
    Call::new(isa, options, KvCacheOptions::new(heads, DIM, keys), keys, Extra::None)
}

#[library_benchmark(setup = with)]
#[bench::scalar_softcap_1x48(Isa::Scalar, With::Softcap, 1, 48)]
#[bench::scalar_bidirectional_1x48(Isa::Scalar, With::Bidirectional, 1, 48)]
#[bench::scalar_window_and_sinks_1x64(Isa::Scalar, With::WindowAndSinks, 1, 64)]
#[bench::avx2_softcap_4x128(Isa::Avx2, With::Softcap, 4, 128)]
#[bench::avx2_bidirectional_4x128(Isa::Avx2, With::Bidirectional, 4, 128)]
#[bench::avx2_window_and_sinks_4x128(Isa::Avx2, With::WindowAndSinks, 4, 128)]
fn option(c: Call) -> Call {
    black_box(c.run())
}

/// Keys and values in rows of the caller's.
pub struct OwnRows {
    call: Call,
    k: Mat,
    v: Mat,
    kv_heads: usize,
}

fn own_rows(isa: Isa, (heads, kv_heads): (usize, usize), queries: usize, keys: usize) -> OwnRows {
    let call = of_type(isa, KvType::F32, (heads, kv_heads), queries, keys);
    let width = kv_heads * DIM;
    OwnRows { call, k: Mat::new(keys, width, 11), v: Mat::new(keys, width, 12), kv_heads }
}

#[library_benchmark(setup = own_rows)]
#[bench::scalar_1x48(Isa::Scalar, (1, 1), 48, 48)]
#[bench::scalar_decode_2x256(Isa::Scalar, (2, 2), 1, 256)]
#[bench::avx2_4x128(Isa::Avx2, (4, 4), 128, 128)]
#[bench::avx2_decode_8x512(Isa::Avx2, (8, 8), 1, 512)]
#[bench::avx2_decode_32_of_8x512(Isa::Avx2, (32, 8), 1, 512)]
fn plain(mut o: OwnRows) -> OwnRows {
    let kv = Plain::new(o.k.view(), o.v.view(), o.kv_heads).expect("shape");
    let Call { ctx, ws, options, q, out, .. } = &mut o.call;
    let outputs = Outputs::new(out.view_mut());
    attend_plain(ctx, ws, options, &Bias::default(), q.view(), &kv, outputs).expect("call");
    o
}

/// Sequences of a cache.
pub struct Batch {
    call: Call,
    sequences: Vec<usize>,
}

fn batch(isa: Isa, heads: usize, count: usize, keys: usize) -> Batch {
    let options = KvCacheOptions::new(heads, DIM, keys).sequences(count);
    let mut call = of_type(isa, KvType::F32, (heads, heads), count, keys);
    call.cache = filled(options, keys);
    let (k, v) = (Mat::new(keys, heads * DIM, 15), Mat::new(keys, heads * DIM, 16));
    (1..count).for_each(|s| call.cache.append_to(s, k.view(), v.view()).expect("room"));
    Batch { call, sequences: (0..count).rev().collect() }
}

#[library_benchmark(setup = batch)]
#[bench::scalar_1x4x128(Isa::Scalar, 1, 4, 128)]
#[bench::avx2_4x8x256(Isa::Avx2, 4, 8, 256)]
fn batched_decode(mut b: Batch) -> Batch {
    let Call { ctx, ws, options, cache, q, out, .. } = &mut b.call;
    attend_batch(ctx, ws, options, q.view(), cache, &b.sequences, out.view_mut()).expect("call");
    b
}

#[library_benchmark(setup = batch)]
#[bench::scalar_1x4x128(Isa::Scalar, 1, 4, 128)]
#[bench::avx2_4x8x256(Isa::Avx2, 4, 8, 256)]
fn batched_decode_alibi(mut b: Batch) -> Batch {
    let Call { ctx, ws, options, cache, q, out, numbers, .. } = &mut b.call;
    let (kv, outputs) = (Sequences::new(cache, &b.sequences), Outputs::new(out.view_mut()));
    attend_with(ctx, ws, options, &Bias::default().alibi(numbers), q.view(), kv, outputs).expect("call");
    b
}

library_benchmark_group!(
    name = variants_group;
    benchmarks =
        decode_type, decode_ungrouped, prefill_type, bias, option, plain, batched_decode,
        batched_decode_alibi
);
