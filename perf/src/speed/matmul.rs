//! `speed matmul`: kvern, unpacked and packed, beside every peer.

use super::{Limits, Options, Row, Table, start};
use crate::peers;
use crate::timing::{Candidate, interleave};
use anyhow::{Result, ensure};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::{Context, Epilogue, MatMut, MatRef, PackedB, Precision, Workspace, bf16, f16};
use std::cell::RefCell;

/// m x n x k: the squares, the wide layers of a 4096 model at several batch sizes, and small nets.
const SHAPES: [(usize, usize, usize); 16] = [
    (64, 64, 64),
    (128, 128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (512, 4096, 4096),
    (128, 4096, 4096),
    (64, 4096, 4096),
    (16, 4096, 4096),
    (8, 4096, 4096),
    (4, 4096, 4096),
    (1, 4096, 4096),
    (1, 14336, 4096),
    (50, 128, 512),
    (1, 128, 512),
];

/// Weights at least this large do not stay in any cache of the machines that this is run on.
const MEMORY_BYTES: usize = 48 << 20;

/// Runs every case that the options want.
pub fn run(options: &Options) -> Result<()> {
    let peers = peers::all(usize::from(options.threads));
    let (ctx, limits, table) = start(options)?;
    for (m, n, k) in SHAPES {
        let name = format!("f32 {m}x{n}x{k}");
        if !options.wants(&name) {
            continue;
        }
        // Enough copies of the weights that each call reads them from memory, as decoding does.
        let copies = if m <= 64 && n * k * 4 < MEMORY_BYTES && n * k >= 1 << 20 { 8 } else { 1 };
        let (a, b) = (values(m * k, 1), values(n * k, 2));
        let am = MatRef::dense(&a, m, k)?;
        let bm = MatRef::dense(&b, k, n)?;
        let plain: Vec<Vec<f32>> = (0..copies).map(|_| b.clone()).collect();
        let packed: Vec<PackedB> = (0..copies).map(|_| PackedB::pack(&ctx, bm)).collect::<Result<_, _>>()?;
        let bytes = matmul_workspace_bytes(&ctx, m, n, k)?.max(packed[0].workspace_bytes(&ctx, m)?);
        let state = RefCell::new((Workspace::new(bytes)?, vec![0f32; m * n]));
        let e = Epilogue::default();

        // Results first: a fast wrong product is no product.
        let (mut want, mut got) = (vec![0f32; m * n], vec![0f32; m * n]);
        packed[0].multiply(&ctx, &mut state.borrow_mut().0, am, MatMut::dense(&mut want, m, n)?, &e)?;
        for peer in &peers {
            peer.sgemm((m, n, k), &a, &b, &mut got);
            let worst = want.iter().zip(&got).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            ensure!(worst <= 1e-4 * k as f32, "{} differs by {worst} at {name}", peer.name());
        }

        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        let mut turn = 0;
        candidates.push(Box::new(|| {
            turn += 1;
            let (ws, c) = &mut *state.borrow_mut();
            let b = MatRef::dense(&plain[turn % copies], k, n).expect("shape");
            let c = MatMut::dense(c, m, n).expect("shape");
            matmul(&ctx, ws, am, b, c, &e).expect("valid call");
        }));
        let mut turn = 0;
        candidates.push(Box::new(|| {
            turn += 1;
            let (ws, c) = &mut *state.borrow_mut();
            let c = MatMut::dense(c, m, n).expect("shape");
            packed[turn % copies].multiply(&ctx, ws, am, c, &e).expect("valid call");
        }));
        for peer in &peers {
            let (state, plain, a) = (&state, &plain, &a);
            let mut turn = 0;
            candidates.push(Box::new(move || {
                turn += 1;
                peer.sgemm((m, n, k), a, &plain[turn % copies], &mut state.borrow_mut().1);
            }));
        }
        let times = interleave(&mut candidates, options.budget());
        drop(candidates);
        let best = (0..peers.len())
            .map(|i| (peers[i].name().to_owned(), times[i + 2].median()))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let operations = 2.0 * (m * n * k) as f64;
        let bytes = if copies > 1 || n * k * 4 >= MEMORY_BYTES { (4 * n * k) as f64 } else { 0.0 };
        let floor = limits.floor(operations, bytes, limits.peaks.f32);
        let kernel = ctx.kernel_names()[0].1;
        for (i, path) in ["", " packed"].iter().enumerate() {
            let seconds = times[i].median();
            let best_peer = best.as_ref().map(|(name, t)| (name.clone(), t / seconds));
            let case = format!("{name}{path}");
            table.row(&Row { case, kernel: kernel.into(), seconds, operations, bytes, best_peer }, floor);
        }
        half_rows(options, &ctx, &limits, &table, (m, n, k), copies)?;
        for (peer, times) in peers.iter().zip(&times[2..]) {
            let (case, kernel) = (name.clone(), peer.name().to_owned());
            let row = Row { case, kernel, seconds: times.median(), operations, bytes, best_peer: None };
            table.row(&row, floor);
        }
    }
    Ok(())
}

/// f16 and bf16 weights, exact and `Fast`, beside packed f32 ones; only where weights are large.
fn half_rows(
    options: &Options,
    ctx: &Context,
    limits: &Limits,
    table: &Table,
    (m, n, k): (usize, usize, usize),
    copies: usize,
) -> Result<()> {
    if n * k < 1 << 20 {
        return Ok(());
    }
    let (a, b) = (values(m * k, 1), values(n * k, 2));
    let h: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
    let g: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
    let (h, g) = (MatRef::dense(&h, k, n)?, MatRef::dense(&g, k, n)?);
    let half: Vec<PackedB> = (0..copies).map(|_| PackedB::pack(ctx, h)).collect::<Result<_, _>>()?;
    let brain: Vec<PackedB> = (0..copies).map(|_| PackedB::pack(ctx, g)).collect::<Result<_, _>>()?;
    let state = RefCell::new((Workspace::new(half[0].workspace_bytes(ctx, m)?)?, vec![0f32; m * n]));
    let am = MatRef::dense(&a, m, k)?;
    let paths = [
        ("f16", &half, Precision::Exact),
        ("bf16", &brain, Precision::Exact),
        ("bf16 fast", &brain, Precision::Fast),
    ];
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for (_, weights, precision) in paths {
        let state = &state;
        let mut turn = 0;
        candidates.push(Box::new(move || {
            turn += 1;
            let (ws, c) = &mut *state.borrow_mut();
            let c = MatMut::dense(c, m, n).expect("shape");
            let e = Epilogue::default();
            weights[turn % copies].multiply_with(ctx, ws, precision, am, c, &e).expect("valid call");
        }));
    }
    let times = interleave(&mut candidates, options.budget());
    let operations = 2.0 * (m * n * k) as f64;
    let bytes = if copies > 1 || n * k * 4 >= MEMORY_BYTES { (2 * n * k) as f64 } else { 0.0 };
    for ((name, _, precision), times) in paths.iter().zip(&times) {
        let fast = *precision == Precision::Fast && limits.peaks.bf16 > 0.0;
        let floor = limits.floor(operations, bytes, if fast { limits.peaks.bf16 } else { limits.peaks.f32 });
        let case = format!("{name} {m}x{n}x{k} packed");
        let kernel = ctx.kernel_names()[0].1.to_owned();
        table.row(&Row { case, kernel, seconds: times.median(), operations, bytes, best_peer: None }, floor);
    }
    Ok(())
}

/// Small whole numbers: sums stay exact, so that peers can be compared closely.
fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7 + seed * 5) % 13) as f32 / 8.0 - 0.75).collect()
}
