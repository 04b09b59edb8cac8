//! Products with weights that are in no GGUF file: codes in groups, floats of 8 bits, rows of codes.

use super::products::multiplied;
use super::{Cases, numbers};
use crate::support::Random;
use kvern::quant::import::{Float8, Float8Kind, GroupWise, Mxfp8, quantize_float8, quantize_mxfp8};
use kvern::quant::{Compute, PackedWeights, QuantizedRows};
use kvern::{Epilogue, MatMut, MatRef, Workspace};

/// One row, a direct tile with a tail, and panels.
const ROWS: [usize; 3] = [1, 7, 45];

fn plain() -> [(&'static str, Epilogue<'static>); 1] {
    [("plain", Epilogue::default())]
}

pub fn cases(cases: &mut Cases<'_>) {
    for (bits, group) in [(2, 64), (3, 96), (4, 16), (4, 320), (8, 32), (8, 1 << 20)] {
        zeros(cases, bits, group);
    }
    for (bits, group) in [(2, 32), (3, 64), (4, 64), (5, 128), (6, 16), (8, 64)] {
        for wide in [false, true] {
            affine(cases, bits, group, wide);
        }
    }
    for kind in [Float8Kind::E4m3, Float8Kind::E5m2] {
        floats(cases, kind);
    }
    codes_of_rows(cases);
}

fn codes(len: usize, bits: u32) -> Vec<u8> {
    let mut r = Random::new(u64::from(bits));
    (0..len).map(|_| r.below(1 << bits) as u8).collect()
}

fn zeros(cases: &mut Cases<'_>, bits: u32, group: usize) {
    let (n, k) = (50usize, 352usize);
    let groups = n * k.div_ceil(group);
    let w = GroupWise::with_zeros(
        (n, k),
        bits,
        group,
        &codes(n * k, bits),
        &numbers(groups, 21),
        &codes(groups, bits),
    );
    let w = PackedWeights::from_groups_on(cases.ctx, &w.unwrap()).unwrap();
    for m in ROWS {
        multiplied(cases, &format!("{bits} bits in {group} with zeros"), &w, m, &plain());
    }
}

fn affine(cases: &mut Cases<'_>, bits: u32, group: usize, wide: bool) {
    let (n, k) = (50usize, 352usize);
    let groups = n * k.div_ceil(group);
    // f16 holds the numbers, or hardly any of their thirds.
    let by = if wide { 1.0 / 3.0 } else { 1.0 };
    let scaled = |seed| numbers(groups, seed).into_iter().map(|x| x * by).collect::<Vec<_>>();
    let w = GroupWise::affine((n, k), bits, group, &codes(n * k, bits), &scaled(22), &scaled(23)).unwrap();
    let w = PackedWeights::from_groups_on(cases.ctx, &w).unwrap();
    let width = if wide { " in f32" } else { "" };
    for m in ROWS {
        multiplied(cases, &format!("{bits} bits in {group} with minimums{width}"), &w, m, &plain());
    }
}

fn floats(cases: &mut Cases<'_>, kind: Float8Kind) {
    let (n, k) = (50usize, 352usize);
    let x = numbers(n * k, 24);
    let view = MatRef::dense(&x, n, k).unwrap();
    for tile in [(1, k), (16, 128)] {
        let (codes, scales) = quantize_float8(kind, tile, view).unwrap();
        cases.take_bytes(format!("quantize_float8 {kind:?} {tile:?}"), &codes);
        cases.take(format!("scales of {kind:?} {tile:?}"), &scales);
        let w = Float8 { n, k, kind, tile, codes: &codes, scales: &scales };
        let w = PackedWeights::from_float8_on(cases.ctx, &w).unwrap();
        for m in ROWS {
            multiplied(cases, &format!("{kind:?} {tile:?}"), &w, m, &plain());
        }
    }
    let (codes, scales) = quantize_mxfp8(kind, view).unwrap();
    cases.take_bytes(format!("quantize_mxfp8 {kind:?}"), &codes);
    cases.take_bytes(format!("scales of mxfp8 {kind:?}"), &scales);
    let w = Mxfp8 { n, k, kind, codes: &codes, scales: &scales };
    let w = PackedWeights::from_mxfp8_on(cases.ctx, &w).unwrap();
    for m in ROWS {
        multiplied(cases, &format!("mxfp8 {kind:?}"), &w, m, &plain());
    }
}

/// Weights and activations of 8 bits with a scale for each row.
fn codes_of_rows(cases: &mut Cases<'_>) {
    let (m, n, k) = (9, 50, 352);
    let signed = |len: usize| codes(len, 7).into_iter().map(|code| code as i8 - 64).collect::<Vec<_>>();
    let w = GroupWise::symmetric((n, k), 8, k, &signed(n * k), &numbers(n, 25)).unwrap();
    let w = PackedWeights::from_groups_on(cases.ctx, &w).unwrap();
    let mut rows = QuantizedRows::new(cases.ctx, m, k).unwrap();
    rows.set(cases.ctx, &signed(m * k), &numbers(m, 26)).unwrap();
    let mut ws = Workspace::new(w.workspace_bytes(cases.ctx, m, Compute::Int8).unwrap()).unwrap();
    let mut c = vec![f32::NAN; m * n];
    let out = MatMut::dense(&mut c, m, n).unwrap();
    rows.multiply(cases.ctx, &mut ws, &w, out, &Epilogue::default()).unwrap();
    cases.take(format!("rows of codes {m}x{n}x{k}"), &c);
}
