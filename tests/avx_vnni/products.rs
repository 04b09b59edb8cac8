//! The tier `avx-vnni` as it is shipped, also on CPUs that lack it: their dot products are computed by
//! [`emulator`]. Everything but the int8 products is the code of AVX2.

#[path = "emulator.rs"]
mod emulator;

use crate::kernels::KernelSet;
use crate::kernels::x86_64::avx2;
use crate::quant::import::GroupWise;
use crate::quant::{Compute, PackedWeights, WeightFormat, quantize};
use crate::{Context, Epilogue, Isa, MatMut, MatRef, Workspace};

/// Whether the machine runs AVX2 code, without which nothing here can run.
fn machine_can() -> bool {
    emulator::install();
    let can = Isa::Avx2.is_available();
    if !can {
        eprintln!("skipped: the CPU lacks AVX2");
    }
    can
}

/// Numbers in [-1, 1), the same everywhere.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Weights (n, k) in every packing, by name.
fn weights(n: usize, k: usize) -> Vec<(String, PackedWeights)> {
    let w = numbers(n * k, 1);
    let mut all: Vec<(String, PackedWeights)> = Vec::new();
    for format in WeightFormat::ALL.into_iter().filter(|format| format.block_len() > 1) {
        let mut blocks = vec![0; format.bytes(n, k).unwrap()];
        quantize(format, &w, &mut blocks).unwrap();
        all.push((format.name().to_owned(), PackedWeights::from_blocks(format, n, k, &blocks).unwrap()));
    }
    for bits in [4, 8] {
        let half = f32::from(1u8 << (bits - 1));
        let signed: Vec<i8> = w.iter().map(|x| (x * half).floor() as i8).collect();
        let codes: Vec<u8> = w.iter().map(|x| ((x + 1.0) * half) as u8).collect();
        let scales = vec![0.01; n * k / 64];
        let zeros: Vec<u8> = (0..scales.len()).map(|i| (i * 5 % 16) as u8).collect();
        let ctx = Context::serial();
        let groups = GroupWise::symmetric((n, k), bits, 64, &signed, &scales).unwrap();
        all.push((format!("group{bits}"), PackedWeights::from_groups_on(&ctx, &groups).unwrap()));
        let groups = GroupWise::with_zeros((n, k), bits, 64, &codes, &scales, &zeros).unwrap();
        all.push((format!("group{bits} zero"), PackedWeights::from_groups_on(&ctx, &groups).unwrap()));
    }
    all
}

/// The int8 product of `rows` rows of activations, and the instructions that it took where they are counted.
fn product(kernels: &'static KernelSet, w: &PackedWeights, rows: usize, count: bool) -> (Vec<u32>, u64) {
    let ctx = Context::of_kernels(kernels);
    let x = numbers(rows * w.k(), 2);
    let mut y = vec![0.0; rows * w.n()];
    let mut ws = Workspace::new(w.workspace_bytes(&ctx, rows, Compute::Int8).unwrap()).unwrap();
    let mut call = || {
        let (a, c) = (MatRef::dense(&x, rows, w.k()).unwrap(), MatMut::dense(&mut y, rows, w.n()).unwrap());
        w.multiply(&ctx, &mut ws, Compute::Int8, a, c, &Epilogue::default()).unwrap();
    };
    let mut instructions = 0;
    if count {
        call(); // what is detected or linked at the first call
        instructions = emulator::instructions(call);
    } else {
        call();
    }
    (y.iter().map(|y| y.to_bits()).collect(), instructions)
}

#[test]
fn every_format_has_the_bits_of_the_scalar_tier() {
    if !machine_can() {
        return;
    }
    // Three row panels, the last one ragged; superblocks of 256.
    for (name, w) in weights(41, 512) {
        // Every number of rows that a tile has, and enough for weights to be unpacked.
        for rows in [1, 2, 3, 4, 5, 7, 41] {
            let [expected, dots, without] =
                [KernelSet::scalar(), &avx2::VNNI_KERNELS, &avx2::VNNI_WITHOUT_DOTS]
                    .map(|kernels| product(kernels, &w, rows, false).0);
            assert_eq!(dots, expected, "{name}, {rows} rows");
            assert_eq!(without, expected, "{name}, {rows} rows, without dot products");
        }
    }
    let (name, w) = weights(16, 256).swap_remove(0);
    for rows in [130, 131] {
        // Formats that unpack late.
        let [expected, dots] =
            [KernelSet::scalar(), &avx2::VNNI_KERNELS].map(|kernels| product(kernels, &w, rows, false).0);
        assert_eq!(dots, expected, "{name}, {rows} rows");
    }
    let native = is_x86_feature_detected!("avxvnni");
    assert_eq!(emulator::computed() == 0, native, "dot products are the CPU's or the emulator's");
}

/// The counts of `cargo test --release --lib avx_vnni -- --nocapture`, as in docs/TUNING.md.
#[test]
fn int8_products_take_fewer_instructions_than_those_of_avx2() {
    if !machine_can() {
        return;
    }
    if cfg!(debug_assertions) {
        return eprintln!("skipped: instruction counts, in a build with debug assertions");
    }
    println!("{:<12} {:>10} {:>10} {:>6}  rows x k x n", "format", "avx2", "avx-vnni", "ratio");
    for (n, k, rows) in [(512, 512, 1), (192, 256, 24)] {
        let mut logarithms = 0.0;
        let all = weights(n, k);
        for (name, w) in &all {
            let [before, after] =
                [&avx2::KERNELS, &avx2::VNNI_KERNELS].map(|kernels| product(kernels, w, rows, true).1);
            let ratio = before as f64 / after as f64;
            println!("{name:<12} {before:>10} {after:>10} {ratio:>6.2}  {rows} x {k} x {n}");
            assert!(ratio > 1.05, "{name}, {rows} rows: {before} and {after} instructions");
            logarithms += ratio.ln();
        }
        let mean = (logarithms / all.len() as f64).exp();
        println!("{:<12} {:>10} {:>10} {mean:>6.2}  {rows} x {k} x {n}", "mean", "", "");
        assert!(mean > 1.3, "{rows} rows: {mean}");
    }
}
