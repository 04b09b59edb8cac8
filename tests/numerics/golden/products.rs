//! Products with f32, f16, bf16 and quantised weights; conversions of blocks.

use super::{Cases, numbers};
use kvern::matmul::{Weight, matmul, matmul_workspace_bytes};
use kvern::quant::{
    Compute, Expert, ExpertOptions, PackedWeights, WeightFormat, dequantize, experts_workspace_bytes,
    multiply_experts, quantize,
};
use kvern::{Activation, Epilogue, MatMut, MatRef, PackedB, Workspace, bf16, f16};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Large enough for several threads, a single row, and sizes that divide by nothing.
const SHAPES: [(usize, usize, usize); 3] = [(67, 133, 71), (1, 515, 1026), (130, 96, 160)];

pub fn cases(cases: &mut Cases<'_>) {
    for shape in SHAPES {
        floats(cases, shape);
    }
    for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
        conversions(cases, format, (37, 160));
        for (m, n, k) in [(1, 1030, 1024), (67, 133, 96), (40, 96, 256)] {
            quantized(cases, format, (m, n, k), &epilogues(&numbers(n, 8)));
        }
    }
    // One row, a direct tile with a tail, and panels.
    let done = |format: &WeightFormat| matches!(format, WeightFormat::Q4_0 | WeightFormat::Q8_0);
    for format in WeightFormat::ALL.into_iter().filter(|format| !done(format)) {
        conversions(cases, format, (5, 512));
        for (m, n, k) in [(1, 70, 512), (7, 33, 256), (45, 50, 512)] {
            quantized(cases, format, (m, n, k), &[("plain", Epilogue::default())]);
        }
    }
    for format in [WeightFormat::Q4_0, WeightFormat::Q8_0, WeightFormat::Iq4Nl] {
        quantized(cases, format, (131, 37, 256), &[("plain", Epilogue::default())]);
    }
    for tokens in [1, 70] {
        experts(cases, tokens);
    }
}

/// Experts of several formats, of which each token takes three.
fn experts(cases: &mut Cases<'_>, tokens: usize) {
    let (ctx, hidden, ffn, chosen) = (cases.ctx, 256, 288, 3);
    let formats = [WeightFormat::Q4_0, WeightFormat::Q8_0, WeightFormat::Mxfp4, WeightFormat::F32];
    let matrices: Vec<[PackedWeights; 3]> = (0..7)
        .map(|e| {
            [(ffn, hidden), (ffn, hidden), (hidden, ffn)].map(|(n, k)| {
                let w = numbers(n * k, 20 + e as u64);
                PackedWeights::quantize(formats[e % 4], MatRef::dense(&w, n, k).unwrap()).unwrap()
            })
        })
        .collect();
    let experts: Vec<Expert<'_>> =
        matrices.iter().map(|[gate, up, down]| Expert::new(gate, Some(up), down)).collect();
    let indices: Vec<u32> = (0..tokens * chosen).map(|i| (i * i % 7) as u32).collect();
    let (x, weights) = (numbers(tokens * hidden, 17), numbers(tokens * chosen, 18));
    for compute in [Compute::Int8, Compute::F32] {
        let options = ExpertOptions::new(compute, Activation::Silu);
        let bytes = experts_workspace_bytes(ctx, &options, &experts, tokens, chosen).unwrap();
        let (mut ws, mut c) = (Workspace::new(bytes).unwrap(), numbers(tokens * hidden, 19));
        let (a, out) = (MatRef::dense(&x, tokens, hidden), MatMut::dense(&mut c, tokens, hidden));
        let (a, out) = (a.unwrap(), out.unwrap());
        multiply_experts(ctx, &mut ws, &options, &experts, a, &indices, &weights, out).unwrap();
        cases.take(format!("experts {compute:?} {tokens}"), &c);
    }
}

fn epilogues(bias: &[f32]) -> [(&'static str, Epilogue<'_>); 6] {
    let e = Epilogue::default();
    [
        ("plain", e),
        ("scaled", e.scaled(0.5, 0.0)),
        ("residual", e.scaled(1.0, 1.0)),
        ("bias+relu", e.bias(bias).activation(Activation::Relu)),
        ("bias+gelu", e.bias(bias).activation(Activation::Gelu)),
        ("all+silu", e.scaled(0.25, -0.5).bias(bias).activation(Activation::Silu)),
    ]
}

fn floats(cases: &mut Cases<'_>, (m, n, k): (usize, usize, usize)) {
    let ctx = cases.ctx;
    let (a, b, start, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3), numbers(n, 4));
    let mut ws = Workspace::new(matmul_workspace_bytes(ctx, m, n, k).unwrap()).unwrap();
    let plain = |data, rows, cols| MatRef::dense(data, rows, cols).unwrap();
    let paths = [
        ("", plain(&a, m, k), plain(&b, k, n)),
        (" a^T", plain(&a, k, m).t(), plain(&b, k, n)),
        (" b^T", plain(&a, m, k), plain(&b, n, k).t()),
    ];
    for (path, a, b) in paths {
        for (name, e) in epilogues(&bias) {
            let mut c = start.clone();
            matmul(ctx, &mut ws, a, b, MatMut::dense(&mut c, m, n).unwrap(), &e).unwrap();
            cases.take(format!("matmul f32{path} {m}x{n}x{k} {name}"), &c);
        }
    }
    packed(cases, (m, n, k), &b);
    packed(cases, (m, n, k), &b.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>());
    packed(cases, (m, n, k), &b.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
}

fn packed<T: Weight>(cases: &mut Cases<'_>, (m, n, k): (usize, usize, usize), b: &[T]) {
    let ctx = cases.ctx;
    let (a, start, bias) = (numbers(m * k, 1), numbers(m * n, 3), numbers(n, 4));
    let b = PackedB::pack(ctx, MatRef::dense(b, k, n).unwrap()).unwrap();
    let mut ws = Workspace::new(b.workspace_bytes(ctx, m).unwrap()).unwrap();
    for (name, e) in epilogues(&bias) {
        let mut c = start.clone();
        let (a, out) = (MatRef::dense(&a, m, k).unwrap(), MatMut::dense(&mut c, m, n).unwrap());
        b.multiply(ctx, &mut ws, a, out, &e).unwrap();
        cases.take(format!("matmul packed {} {m}x{n}x{k} {name}", T::DTYPE.name()), &c);
    }
}

fn quantized(
    cases: &mut Cases<'_>,
    format: WeightFormat,
    (m, n, k): (usize, usize, usize),
    epilogues: &[(&str, Epilogue<'_>)],
) {
    multiplied(cases, format.name(), &weights(format, n, k), m, epilogues);
}

/// Products of m rows with weights, in both ways to compute.
pub fn multiplied(
    cases: &mut Cases<'_>,
    weights: &str,
    w: &PackedWeights,
    m: usize,
    epilogues: &[(&str, Epilogue<'_>)],
) {
    let (ctx, n, k) = (cases.ctx, w.n(), w.k());
    let (a, start) = (numbers(m * k, 5), numbers(m * n, 7));
    for (compute, mode) in [(Compute::Int8, "int8"), (Compute::F32, "exact")] {
        let mut ws = Workspace::new(w.workspace_bytes(ctx, m, compute).unwrap()).unwrap();
        for (name, e) in epilogues {
            let mut c = start.clone();
            let (a, out) = (MatRef::dense(&a, m, k).unwrap(), MatMut::dense(&mut c, m, n).unwrap());
            w.multiply(ctx, &mut ws, compute, a, out, e).unwrap();
            cases.take(format!("matmul {weights} {mode} {m}x{n}x{k} {name}"), &c);
        }
    }
}

/// The weights of a case. Quantising knows no tier, and takes long with codebooks: once for all tiers and
/// threads.
fn weights(format: WeightFormat, n: usize, k: usize) -> Arc<PackedWeights> {
    type Made = BTreeMap<(i32, usize, usize), Arc<PackedWeights>>;
    static MADE: Mutex<Made> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let make = || {
        let w = numbers(n * k, 6);
        Arc::new(PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap())
    };
    made.entry((format as i32, n, k)).or_insert_with(make).clone()
}

fn conversions(cases: &mut Cases<'_>, format: WeightFormat, (n, k): (usize, usize)) {
    let x = numbers(n * k, 9);
    let mut blocks = vec![0; format.bytes(n, k).unwrap()];
    quantize(format, &x, &mut blocks).unwrap();
    cases.take_bytes(format!("quantize {}", format.name()), &blocks);
    let mut back = vec![0.0; n * k];
    dequantize(format, &blocks, &mut back).unwrap();
    cases.take(format!("dequantize {}", format.name()), &back);
    let packed = PackedWeights::from_blocks(format, n, k, &blocks).unwrap();
    let mut again = vec![0; blocks.len()];
    packed.to_blocks(&mut again).unwrap();
    cases.take_bytes(format!("pack and unpack {}", format.name()), &again);
    packed.dequantize_row(n - 1, &mut back[..k]).unwrap();
    cases.take(format!("dequantize_row {}", format.name()), &back[..k]);
}
