//! Products with quantised weights: kvern's packed ones beside ggml's.

use crate::check::{ROTATION_BYTES, TOLERANCE, agree, bytes_of, values};
use crate::ggml::{Layout, Rotation, Session, Threads, Type, quantize};
use anyhow::Result;
use kvern::quant::{Compute, PackedWeights, WeightFormat};
use kvern::{Context, Epilogue, MatMut, MatRef, Workspace};
use kvern_perf::speed::{Limits, Options, Row, Table, start};
use kvern_perf::timing::{Candidate, interleave_resting};
use std::cell::RefCell;

/// (k, n) of the weights: layers of a 7B, of a 270M, and of a toy model.
const WEIGHTS: [(usize, usize); 4] = [(4096, 4096), (4096, 14336), (640, 2048), (128, 512)];

/// Rows of activations: one token, a few, a prompt.
const TOKENS: [usize; 7] = [1, 2, 4, 8, 16, 64, 512];

/// Weights with fewer elements than this belong to a model that fits in a cache: they are not rotated.
const LARGE: usize = 1 << 20;

/// Rows that are really rounded; the others repeat them, for rounding takes far longer than multiplying.
const DISTINCT_ROWS: usize = 64;

/// Runs every case that the options want.
pub fn run(options: &Options) -> Result<()> {
    let threads = Threads::new(options.threads)?;
    let (ctx, limits, table) = start(options)?;
    for format in WeightFormat::ALL {
        for (k, n) in WEIGHTS {
            let names = TOKENS.map(|m| format!("{} {k}x{n} N={m}", format.name()));
            if !k.is_multiple_of(format.block_len()) || !names.iter().any(|name| options.wants(name)) {
                continue;
            }
            let weights = Weights::new(&threads, format, n, k)?;
            for (name, m) in names.iter().zip(TOKENS) {
                if options.wants(name) {
                    weights.measure(options, &ctx, &limits, &table, name, m)?;
                }
            }
        }
    }
    Ok(())
}

/// One layer's weights, in as many copies as it takes to outgrow the caches.
struct Weights<'t> {
    threads: &'t Threads,
    n: usize,
    k: usize,
    ours: Vec<PackedWeights>,
    /// The same blocks in ggml's type; `None` where it has none.
    blocks: Option<(Type, Vec<u8>)>,
}

impl<'t> Weights<'t> {
    fn new(threads: &'t Threads, format: WeightFormat, n: usize, k: usize) -> Result<Weights<'t>> {
        let distinct = DISTINCT_ROWS.min(n);
        let rows = values(distinct * k, 1);
        let blocks = match Type::of(format) {
            Some(of) if of.needs_importance() => {
                let mut blocks = vec![0; format.bytes(distinct, k)?];
                kvern::quant::quantize(format, &rows, &mut blocks)?;
                Some((of, blocks.repeat(n / distinct)))
            }
            Some(of) => Some((of, quantize(of, &rows, k)?.repeat(n / distinct))),
            None => None,
        };
        let first = match &blocks {
            Some((_, blocks)) => PackedWeights::from_blocks(format, n, k, blocks)?,
            None => PackedWeights::quantize(format, MatRef::dense(&rows.repeat(n / distinct), n, k)?)?,
        };
        let copies = if n * k < LARGE { 1 } else { ROTATION_BYTES.div_ceil(first.bytes()) };
        Ok(Weights { threads, n, k, ours: vec![first; copies], blocks })
    }

    /// Times `m` rows of activations; prints a row for kvern and one for each layout of ggml's.
    fn measure(
        &self,
        options: &Options,
        ctx: &Context,
        limits: &Limits,
        table: &Table,
        name: &str,
        m: usize,
    ) -> Result<()> {
        let (n, k, copies) = (self.n, self.k, self.ours.len());
        let x = values(m * k, 2);
        let a = MatRef::dense(&x, m, k)?;
        let ws = Workspace::new(self.ours[0].workspace_bytes(ctx, m, Compute::Int8)?)?;
        let state = RefCell::new((ws, vec![0f32; m * n]));
        let multiply = |turn: usize| {
            let (ws, c) = &mut *state.borrow_mut();
            let c = MatMut::dense(c, m, n).expect("shape");
            let e = Epilogue::default();
            self.ours[turn % copies].multiply(ctx, ws, Compute::Int8, a, c, &e).expect("valid call");
        };
        multiply(0);
        let mut theirs = Vec::new();
        if let Some((of, blocks)) = &self.blocks {
            for layout in Layout::available(*of, n, k) {
                let mut rotation = peer(self.threads, (*of, blocks), layout, (n, k, copies), &x)?;
                agree(
                    &format!("{name} {}", layout.name()),
                    TOLERANCE,
                    &state.borrow().1,
                    &rotation.result(m * n)?,
                )?;
                theirs.push((layout.name(), rotation));
            }
        }
        let (names, mut theirs): (Vec<_>, Vec<_>) = theirs.into_iter().unzip();
        let mut turn = 0;
        let mut candidates: Vec<Candidate<'_>> = vec![Box::new(|| {
            turn += 1;
            multiply(turn);
        })];
        for rotation in &mut theirs {
            candidates.push(Box::new(|| rotation.turn()));
        }
        let times = interleave_resting(&mut candidates, options.budget(), || self.threads.sleep());
        let operations = 2.0 * (m * n * k) as f64;
        let bytes = if copies > 1 { self.ours[0].bytes() as f64 } else { 0.0 };
        let floor = limits.floor(operations, bytes, limits.peaks.int8);
        let seconds = times[0].median();
        let best_peer = names
            .iter()
            .zip(&times[1..])
            .map(|(name, times)| (name.to_string(), times.median() / seconds))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let kernel = ctx.kernel_names().into_iter().find(|(what, _)| *what == "quant int8");
        let kernel = kernel.map_or("kvern", |(_, kernel)| kernel).to_owned();
        table.row(&Row { case: name.into(), kernel, seconds, operations, bytes, best_peer }, floor);
        for (peer, times) in names.iter().zip(&times[1..]) {
            let (case, kernel, seconds) = (name.into(), peer.to_string(), times.median());
            table.row(&Row { case, kernel, seconds, operations, bytes, best_peer: None }, floor);
        }
        Ok(())
    }
}

/// ggml's side: (n, k) weights `copies` times, and the activations once.
fn peer<'t>(
    threads: &'t Threads,
    (of, blocks): (Type, &[u8]),
    layout: Layout,
    (n, k, copies): (usize, usize, usize),
    x: &[f32],
) -> Result<Rotation<'t>> {
    let m = x.len() / k;
    let mut session = Session::new(threads, copies)?;
    let inputs = session.filled(Type::F32, [k, m, 1], &bytes_of(x))?;
    let result = session.tensor(Type::F32, [n, m, 1], Layout::Plain)?;
    let mut graphs = Vec::new();
    for _ in 0..copies {
        let weights = session.tensor(of, [k, n, 1], layout)?;
        session.write(weights, blocks)?;
        graphs.push(session.product(weights, inputs, result)?);
    }
    Ok(Rotation::new(session, graphs, result))
}
