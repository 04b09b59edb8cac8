//! The cases.

use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, KvType, attend};
use kvern::buffer::AlignedBuf;
use kvern::matmul::matmul;
use kvern::ops::{self, RopePairs, RopeTable};
use kvern::quant::{Compute, PackedWeights, WeightFormat, quantize};
use kvern::{
    Activation, Context, ContextOptions, Epilogue, Isa, MatMut, MatRef, PackedB, Precision, Workspace, bf16,
    f16,
};

/// What each case hands over: its name, and its call.
type Count<'a> = &'a mut dyn FnMut(&str, &mut dyn FnMut());

/// Elements of a head.
const DIM: usize = 64;
/// Elements of a row of the row operations.
const COLS: usize = 512;

/// Runs the cases at `isa`: all of them at its first tier, and where others differ from that in int8 products
/// and `Fast` only, those.
pub fn all(isa: Isa, count: Count<'_>) {
    let ctx = Context::new(&ContextOptions::default().isa_cap(isa)).expect("an available tier");
    let mut ws = Workspace::new(8 << 20).expect("memory");
    // So that no first use is left for a measured call.
    ops::softmax(&ctx, MatMut::dense(&mut [0.0; 4], 1, 4).expect("shape"));
    let int8_alone = matches!(isa, Isa::NeonDotprod | Isa::NeonI8mm);
    quantised(&ctx, &mut ws, int8_alone, count);
    if isa == Isa::NeonI8mm {
        fast(&ctx, &mut ws, count);
    }
    if int8_alone {
        return;
    }
    products(&ctx, &mut ws, count);
    attention(&ctx, &mut ws, count);
    rows(&ctx, count);
}

/// Seeded numbers in -1..1, aligned to cache lines.
fn numbers(n: usize, seed: u32) -> AlignedBuf<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut all = AlignedBuf::zeroed(n).expect("memory");
    for x in all.as_mut_slice() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
    }
    all
}

fn view(x: &AlignedBuf<f32>, rows: usize, cols: usize) -> MatRef<'_> {
    MatRef::dense(x.as_slice(), rows, cols).expect("shape")
}

fn view_mut(x: &mut AlignedBuf<f32>, rows: usize, cols: usize) -> MatMut<'_> {
    MatMut::dense(x.as_mut_slice(), rows, cols).expect("shape")
}

/// f32, f16 and bf16 products.
fn products(ctx: &Context, ws: &mut Workspace, count: Count<'_>) {
    let e = Epilogue::default();
    for n in [64, 128] {
        let (a, b, mut c) = (numbers(n * n, 1), numbers(n * n, 2), numbers(n * n, 3));
        count(&format!("products::f32_square::{n}"), &mut || {
            matmul(ctx, ws, view(&a, n, n), view(&b, n, n), view_mut(&mut c, n, n), &e).expect("call");
        });
    }
    for (m, n) in [(1, 1024), (128, 128)] {
        let (a, b, mut c) = (numbers(m * n, 1), numbers(n * n, 2), numbers(m * n, 3));
        let f16s: Vec<f16> = b.as_slice().iter().map(|&x| f16::from_f32(x)).collect();
        let bf16s: Vec<bf16> = b.as_slice().iter().map(|&x| bf16::from_f32(x)).collect();
        let packed = [
            ("f32", PackedB::pack(ctx, view(&b, n, n))),
            ("f16", PackedB::pack(ctx, MatRef::dense(&f16s, n, n).expect("shape"))),
            ("bf16", PackedB::pack(ctx, MatRef::dense(&bf16s, n, n).expect("shape"))),
        ];
        for (name, b) in packed {
            let b = b.expect("memory");
            count(&format!("products::{name}_packed::{m}x{n}"), &mut || {
                b.multiply(ctx, ws, view(&a, m, n), view_mut(&mut c, m, n), &e).expect("call");
            });
        }
    }
}

/// Products of bf16 by its dot products.
fn fast(ctx: &Context, ws: &mut Workspace, count: Count<'_>) {
    for (m, n) in [(1, 1024), (128, 128)] {
        let (a, b, mut c) = (numbers(m * n, 1), numbers(n * n, 2), numbers(m * n, 3));
        let b: Vec<bf16> = b.as_slice().iter().map(|&x| bf16::from_f32(x)).collect();
        let b = PackedB::pack(ctx, MatRef::dense(&b, n, n).expect("shape")).expect("memory");
        let e = Epilogue::default();
        count(&format!("products::bf16_fast::{m}x{n}"), &mut || {
            let c = view_mut(&mut c, m, n);
            b.multiply_with(ctx, ws, Precision::Fast, view(&a, m, n), c, &e).expect("call");
        });
    }
}

/// Products with quantised weights, (n, n): one row, and 64.
fn quantised(ctx: &Context, ws: &mut Workspace, int8_alone: bool, count: Count<'_>) {
    let e = Epilogue::default();
    for format in WeightFormat::ALL.into_iter().filter(|format| format.block_len() > 1) {
        for (m, n) in [(1, 1024), (64, 256)] {
            // Rows that are all alike: what a format costs does not depend on its weights.
            let mut blocks = vec![0; format.bytes(1, n).expect("shape")];
            quantize(format, numbers(n, 7).as_slice(), &mut blocks).expect("shape");
            let w = PackedWeights::from_blocks(format, n, n, &blocks.repeat(n)).expect("shape");
            let (a, mut c) = (numbers(m * n, 1), numbers(m * n, 3));
            let both = [("int8", Compute::Int8), ("exact", Compute::F32)];
            for &(name, compute) in &both[..if int8_alone { 1 } else { 2 }] {
                count(&format!("formats::{name}::{}_{m}x{n}", format.name()), &mut || {
                    let (a, c) = (view(&a, m, n), view_mut(&mut c, m, n));
                    w.multiply(ctx, ws, compute, a, c, &e).expect("call");
                });
            }
        }
    }
}

/// One query over a cache, and a prompt.
fn attention(ctx: &Context, ws: &mut Workspace, count: Count<'_>) {
    let mut run = |name: String, kind, (heads, kv_heads): (usize, usize), queries: usize, keys: usize| {
        let width = kv_heads * DIM;
        let mut cache =
            KvCache::new(KvCacheOptions::new(kv_heads, DIM, keys).types(kind, kind)).expect("memory");
        let (k, v) = (numbers(keys * width, 11), numbers(keys * width, 12));
        cache.append(view(&k, keys, width), view(&v, keys, width)).expect("room");
        let (q, mut out) = (numbers(queries * heads * DIM, 13), numbers(queries * heads * DIM, 14));
        let options = AttentionOptions::new(heads);
        count(&name, &mut || {
            let (q, out) = (view(&q, queries, heads * DIM), view_mut(&mut out, queries, heads * DIM));
            attend(ctx, ws, &options, q, &cache, out).expect("call");
        });
    };
    run("attention::decode::8x512".into(), KvType::F32, (8, 8), 1, 512);
    run("attention::decode_grouped::32_of_8x512".into(), KvType::F32, (32, 8), 1, 512);
    run("attention::prefill::4x256".into(), KvType::F32, (4, 4), 256, 256);
    for kind in KvType::ALL.into_iter().filter(|kind| *kind != KvType::F32) {
        run(format!("variants::decode_type::{}_8x512", kind.name()), kind, (8, 8), 1, 512);
    }
}

/// The row operations.
fn rows(ctx: &Context, count: Count<'_>) {
    let (mut x, z, mut y) = (numbers(512 * COLS, 1), numbers(512 * COLS, 2), numbers(512 * COLS, 3));
    let (gain, bias) = (vec![1.5; COLS], vec![0.5; COLS]);
    // The first rows of each, as many as the name of the case says.
    macro_rules! first {
        ($x:expr, $n:literal) => {
            MatRef::dense(&$x.as_slice()[..$n * COLS], $n, COLS).expect("shape")
        };
        (mut $x:expr, $n:literal) => {
            MatMut::dense(&mut $x.as_mut_slice()[..$n * COLS], $n, COLS).expect("shape")
        };
    }
    count("rows::layer_norm::512", &mut || {
        ops::layer_norm(ctx, first!(x, 512), &gain, &bias, 1e-5, first!(mut y, 512)).expect("call");
    });
    count("rows::rms_norm::512", &mut || {
        ops::rms_norm(ctx, first!(x, 512), &gain, 1e-5, first!(mut y, 512)).expect("call");
    });
    count("rows::softmax::128", &mut || ops::softmax(ctx, first!(mut x, 128)));
    for (name, activation) in [("gelu", Activation::Gelu), ("silu", Activation::Silu)] {
        count(&format!("rows::{name}::128"), &mut || ops::activate(ctx, activation, first!(mut x, 128)));
    }
    count("rows::relu::512", &mut || ops::activate(ctx, Activation::Relu, first!(mut x, 512)));
    count("rows::silu_mul::128", &mut || {
        ops::silu_mul(ctx, first!(mut x, 128), first!(z, 128)).expect("call");
    });
    count("rows::add::512", &mut || ops::add(ctx, first!(mut x, 512), first!(z, 512)).expect("call"));
    for (name, pairs) in [("rope_halves", RopePairs::Halves), ("rope_interleaved", RopePairs::Interleaved)] {
        let table = RopeTable::new(DIM, 512, 10_000.0).expect("memory");
        count(&format!("rows::{name}::512"), &mut || {
            ops::rope(ctx, &table, pairs, DIM, 0, first!(mut x, 512)).expect("call");
        });
    }
}
