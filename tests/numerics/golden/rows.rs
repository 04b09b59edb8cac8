//! The row operations, on a ragged width and on enough rows for several threads.

use super::{Cases, numbers};
use kvern::ops::{self, RopePairs, RopeTable};
use kvern::quant::{PackedWeights, WeightFormat};
use kvern::{Activation, MatMut, MatRef};

pub fn cases(cases: &mut Cases<'_>) {
    for (rows, cols) in [(5, 96), (700, 96), (3, 515)] {
        shapes(cases, rows, cols);
    }
    rotations(cases);
    lookups(cases);
}

fn shapes(cases: &mut Cases<'_>, rows: usize, cols: usize) {
    let ctx = cases.ctx;
    let (x, z) = (numbers(rows * cols, 1), numbers(rows * cols, 2));
    let (gain, bias) = (numbers(cols, 3), numbers(cols, 4));
    let dense = |x| MatRef::dense(x, rows, cols).unwrap();
    let mut y = vec![0.0; rows * cols];
    let out = MatMut::dense(&mut y, rows, cols).unwrap();
    ops::layer_norm(ctx, dense(&x), &gain, &bias, 1e-5, out).unwrap();
    cases.take(format!("layer_norm {rows}x{cols}"), &y);
    ops::rms_norm(ctx, dense(&x), &gain, 1e-5, MatMut::dense(&mut y, rows, cols).unwrap()).unwrap();
    cases.take(format!("rms_norm {rows}x{cols}"), &y);
    for (name, f) in [("relu", Activation::Relu), ("gelu", Activation::Gelu), ("silu", Activation::Silu)] {
        let mut y = x.clone();
        ops::activate(ctx, f, MatMut::dense(&mut y, rows, cols).unwrap());
        cases.take(format!("{name} {rows}x{cols}"), &y);
    }
    let mut y = x.clone();
    ops::silu_mul(ctx, MatMut::dense(&mut y, rows, cols).unwrap(), dense(&z)).unwrap();
    cases.take(format!("silu_mul {rows}x{cols}"), &y);
    let mut y = x.clone();
    ops::add(ctx, MatMut::dense(&mut y, rows, cols).unwrap(), dense(&z)).unwrap();
    cases.take(format!("add {rows}x{cols}"), &y);
    for activation in Activation::ALL {
        let mut y = x.clone();
        ops::activate_mul(ctx, activation, MatMut::dense(&mut y, rows, cols).unwrap(), dense(&z)).unwrap();
        cases.take(format!("activate_mul {activation:?} {rows}x{cols}"), &y);
    }
    let mut y = x.clone();
    ops::swiglu_oai(ctx, 1.702, 7.0, MatMut::dense(&mut y, rows, cols).unwrap(), dense(&z)).unwrap();
    cases.take(format!("swiglu_oai {rows}x{cols}"), &y);
    ops::add_scaled(ctx, MatMut::dense(&mut y, rows, cols).unwrap(), 0.3, dense(&z)).unwrap();
    cases.take(format!("add_scaled {rows}x{cols}"), &y);
    ops::scale(ctx, MatMut::dense(&mut y, rows, cols).unwrap(), 0.7);
    cases.take(format!("scale {rows}x{cols}"), &y);
    ops::softcap(ctx, 0.9, MatMut::dense(&mut y, rows, cols).unwrap()).unwrap();
    cases.take(format!("softcap {rows}x{cols}"), &y);
    let mut y = x.clone();
    ops::softmax(ctx, MatMut::dense(&mut y, rows, cols).unwrap());
    cases.take(format!("softmax {rows}x{cols}"), &y);
    let found = ops::argmax(ctx, &y).unwrap() as u64;
    cases.take_bytes(format!("argmax {rows}x{cols}"), &found.to_le_bytes());
}

fn rotations(cases: &mut Cases<'_>) {
    let (rows, cols, dim) = (300, 256, 64);
    for rotary in [64, 24] {
        let table = RopeTable::new(rotary, 400, 10000.0).unwrap();
        for (name, pairs) in [("halves", RopePairs::Halves), ("interleaved", RopePairs::Interleaved)] {
            let mut x = numbers(rows * cols, 5);
            let view = MatMut::dense(&mut x, rows, cols).unwrap();
            ops::rope(cases.ctx, &table, pairs, dim, 77, view).unwrap();
            cases.take(format!("rope {name} {rotary} of {dim}"), &x);
        }
    }
}

fn lookups(cases: &mut Cases<'_>) {
    let (vocabulary, cols) = (50, 160);
    let table = numbers(vocabulary * cols, 6);
    let table = MatRef::dense(&table, vocabulary, cols).unwrap();
    let ids: Vec<u32> = (0..600).map(|i| i * 7 % 50).collect();
    let mut out = vec![0.0; ids.len() * cols];
    let view = MatMut::dense(&mut out, ids.len(), cols).unwrap();
    ops::embedding(cases.ctx, table, &ids, view).unwrap();
    cases.take("embedding", &out);
    for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
        let packed = PackedWeights::quantize(format, table).unwrap();
        let view = MatMut::dense(&mut out, ids.len(), cols).unwrap();
        ops::embedding_quantized(cases.ctx, &packed, &ids, view).unwrap();
        cases.take(format!("embedding_quantized {}", format.name()), &out);
    }
}
