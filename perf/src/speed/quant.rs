//! `speed quant`: packed weights of every format, with int8 and with f32 activations.

use super::inputs::values;
use super::{Limits, Options, Row, Table, start};
use crate::timing::{Candidate, interleave};
use anyhow::Result;
use kvern::quant::{Compute, PackedWeights, WeightFormat, quantize};
use kvern::{Context, Epilogue, MatMut, MatRef, Workspace};
use std::cell::RefCell;

/// k x m of the weights: a square layer, a wide one, and two of small models.
const LAYERS: [(usize, usize); 4] = [(4096, 4096), (4096, 14336), (640, 2048), (128, 512)];

/// Columns of activations: decoding, speculation, small and large prompts.
const COLUMNS: [usize; 7] = [1, 2, 4, 8, 16, 64, 512];

/// Weights at least this large do not stay in any cache of the machines that this is run on.
const MEMORY_BYTES: usize = 128 << 20;

/// Times every case that the options ask for.
pub fn run(options: &Options) -> Result<()> {
    let (ctx, limits, table) = start(options)?;
    for (k, m) in LAYERS {
        for format in WeightFormat::ALL {
            if k % format.block_len() == 0 {
                layer(options, &ctx, &limits, &table, format, (k, m))?;
            }
        }
    }
    Ok(())
}

/// All columns and both ways to compute with weights of one layer and format.
fn layer(
    options: &Options,
    ctx: &Context,
    limits: &Limits,
    table: &Table,
    format: WeightFormat,
    (k, m): (usize, usize),
) -> Result<()> {
    let computes = [("", Compute::Int8), (" f32-act", Compute::F32)];
    let of_floats = format.block_len() == 1;
    let cases: Vec<(String, usize, Compute)> = COLUMNS
        .iter()
        .flat_map(|&n| computes.map(|(suffix, compute)| (n, suffix, compute)))
        .filter(|&(_, _, compute)| !of_floats || compute == Compute::F32)
        .map(|(n, suffix, compute)| (format!("{} {k}x{m} N={n}{suffix}", format.name()), n, compute))
        .filter(|(name, ..)| options.wants(name))
        .collect();
    if cases.is_empty() {
        return Ok(());
    }
    let blocks = blocks(format, m, k)?;
    let first = PackedWeights::from_blocks_on(ctx, format, m, k, &blocks)?;
    // Enough copies that each call reads the weights from memory, as decoding does.
    let rotated = first.bytes() >= 1 << 20;
    let copies = if rotated { MEMORY_BYTES.div_ceil(first.bytes()) + 1 } else { 1 };
    let pack = |_| PackedWeights::from_blocks_on(ctx, format, m, k, &blocks);
    let mut weights: Vec<PackedWeights> = (1..copies).map(pack).collect::<Result<_, _>>()?;
    weights.push(first);
    for (name, n, compute) in cases {
        let a: Vec<f32> = (0..n * k).map(|i| ((i * 7) % 13) as f32 / 8.0 - 0.75).collect();
        let a = MatRef::dense(&a, n, k)?;
        let bytes = weights[0].workspace_bytes(ctx, n, compute)?;
        let state = RefCell::new((Workspace::new(bytes)?, vec![0f32; m * n]));
        let mut turn = 0;
        let candidate: Candidate<'_> = Box::new(|| {
            turn += 1;
            let (ws, c) = &mut *state.borrow_mut();
            let c = MatMut::dense(c, n, m).expect("shape");
            weights[turn % copies].multiply(ctx, ws, compute, a, c, &Epilogue::default()).expect("valid");
        });
        let times = interleave(&mut [candidate], options.budget());
        let operations = 2.0 * (m * n * k) as f64;
        let bytes = if rotated { weights[0].bytes() as f64 } else { 0.0 };
        let (peak, kernel) = match compute {
            Compute::Int8 => (limits.peaks.int8, ctx.kernel_names()[1].1),
            _ => (limits.peaks.f32, ctx.kernel_names()[2].1),
        };
        let floor = limits.floor(operations, bytes, peak);
        let seconds = times[0].median();
        let row = Row { case: name, kernel: kernel.into(), seconds, operations, bytes, best_peer: None };
        table.row(&row, floor);
    }
    Ok(())
}

/// Rows that are quantised; all rows repeat them, because the search for the scales takes longer than the
/// product.
const DISTINCT_ROWS: usize = 64;

/// Blocks of random numbers in [-1, 1).
fn blocks(format: WeightFormat, m: usize, k: usize) -> Result<Vec<u8>> {
    let rows = m.min(DISTINCT_ROWS);
    let mut distinct = vec![0u8; format.bytes(rows, k)?];
    quantize(format, &values(rows * k, 1), &mut distinct)?;
    Ok(distinct.iter().copied().cycle().take(format.bytes(m, k)?).collect())
}
