//! The experts of one part of the tokens.

use super::super::driver::quantize_rows;
use super::super::item::{Item, Shared};
use super::super::packed::{Body, PackedWeights};
use super::super::plan::{Dims, Plan, SERIAL_MACS};
use super::plan::{Shape, Sizes};
use super::types::{Between, Expert, ExpertOptions};
use crate::buffer::Arena;
use crate::context::Context;
use crate::epilogue::Epilogue;
use crate::error::Result;
use crate::kernels::Binary;
use crate::parallel::Executor;
use crate::tiles::{Band, Grid, for_each_band_tile, for_each_tile, for_each_tile_pair};
use crate::view::{MatMut, MatRef};
use std::ops::Range;

/// Rows of an item of the passes over rows.
const ROWS: usize = 8;

/// Columns of an item of the last sum: 2 KiB a row.
const COLUMNS: usize = 512;

/// What a part of a call works on.
pub(super) struct Part<'a, 'e> {
    pub ctx: &'a Context,
    pub options: &'a ExpertOptions,
    pub shape: &'a Shape,
    pub sizes: &'a Sizes,
    pub expert: &'a (dyn Fn(usize) -> Expert<'e> + Sync),
    pub x: MatRef<'a>,      // (tokens, hidden)
    pub indices: &'a [u32], // (tokens, chosen)
    pub weights: &'a [f32], // (tokens, chosen)
    pub chosen: usize,
}

/// Rows of pairs, as the products of one side read them.
#[derive(Clone, Copy)]
struct Rows<'a> {
    quantized: &'a [u8], // (pairs, row_bytes), or nothing
    row_bytes: usize,
    floats: MatRef<'a>, // (pairs, k), or (pairs, k) without memory
}

/// Scratch of the workers.
struct Workers<'a> {
    bytes: &'a mut [u8], // (workers, each)
    each: usize,
}

/// The pairs by expert.
struct Pairs<'a> {
    ends: &'a [u32],   // (experts)
    order: &'a [u32],  // (pairs): the pair at each row
    places: &'a [u32], // (pairs): the row of each pair
}

impl Pairs<'_> {
    /// Sorts by expert, and by token within one.
    fn sort<'a>(indices: &[u32], [ends, order, places]: [&'a mut [u32]; 3]) -> Pairs<'a> {
        ends.fill(0);
        indices.iter().for_each(|&expert| ends[expert as usize] += 1);
        let mut sum = 0;
        for end in ends.iter_mut() {
            (*end, sum) = (sum, sum + *end); // where the expert starts, until its pairs are there
        }
        for (pair, &expert) in indices.iter().enumerate() {
            let row = &mut ends[expert as usize];
            places[pair] = *row;
            order[*row as usize] = pair as u32;
            *row += 1;
        }
        Pairs { ends, order, places }
    }

    /// The rows of an expert.
    fn rows(&self, expert: usize) -> Range<usize> {
        let start = if expert == 0 { 0 } else { self.ends[expert - 1] };
        start as usize..self.ends[expert] as usize
    }
}

impl Part<'_, '_> {
    pub fn run(&self, mut arena: Arena<'_>, out: MatMut<'_>) -> Result<()> {
        let (sizes, pairs, tokens) = (self.sizes, self.indices.len(), self.x.rows());
        let quantized_tokens = if sizes.tokens == 0 { 0 } else { tokens };
        let products = pairs * (1 + usize::from(self.shape.gated));
        let sort = [arena.take(sizes.ends)?, arena.take(pairs)?, arena.take(pairs)?];
        let bands = arena.take::<Band>(sizes.bands)?;
        let x_tokens = arena.take::<u8>(quantized_tokens * sizes.x_bytes)?;
        let x_pairs = arena.take::<u8>(pairs * sizes.x_bytes)?;
        let x_floats = arena.take::<f32>(pairs * sizes.x_cols)?;
        let between = arena.take::<f32>(products * sizes.ffn)?;
        let between_q8 = arena.take::<u8>(pairs * sizes.between_bytes)?;
        let results = arena.take::<f32>(pairs * sizes.out)?;
        let bytes = arena.take::<u8>(sizes.worker_bytes * sizes.workers)?;
        let mut workers = Workers { bytes, each: sizes.worker_bytes };
        let macs = products.saturating_mul(self.shape.hidden).saturating_mul(self.shape.ffn);
        let executor = if macs < SERIAL_MACS { Executor::serial() } else { self.ctx.executor() };

        let list = Pairs::sort(self.indices, sort);
        self.gather(executor, &list, &mut workers, x_tokens, x_pairs, x_floats)?;
        let rows = Rows::of(x_pairs, sizes.x_bytes, x_floats, (pairs, self.shape.hidden))?;
        let first = if self.shape.gated { 0..2 } else { 0..1 };
        self.products(executor, &list, bands, &mut workers, rows, first, between)?;
        self.join(executor, pairs, between, between_q8)?;
        let floats = &between[..pairs * sizes.ffn];
        let rows = Rows::of(between_q8, sizes.between_bytes, floats, (pairs, self.shape.ffn))?;
        self.products(executor, &list, bands, &mut workers, rows, 2..3, results)?;
        self.add(executor, &list, results, out);
        Ok(())
    }

    /// The rows of pairs: quantised, and as floats where a matrix needs them.
    fn gather(
        &self,
        executor: &Executor,
        list: &Pairs<'_>,
        workers: &mut Workers<'_>,
        x_tokens: &mut [u8],
        x_pairs: &mut [u8],
        x_floats: &mut [f32],
    ) -> Result<()> {
        let (kernels, pairs) = (self.ctx.kernels(), self.indices.len());
        let (row_bytes, x_cols) = (self.sizes.x_bytes, self.sizes.x_cols);
        let weigh = self.options.weigh_input;
        if !weigh && row_bytes > 0 {
            quantize_rows(kernels, executor, self.x, row_bytes, x_tokens)?;
        }
        let x_tokens: &[u8] = x_tokens;
        let grid = Grid { tile_rows: ROWS, tile_cols: row_bytes.max(1) };
        let to = MatMut::dense(x_pairs, pairs, row_bytes)?;
        for_each_tile(executor, to, grid, workers.bytes, workers.each, &|mut arena, at, mut to| {
            let Ok(scaled) = arena.take(if weigh { self.x.cols() } else { 0 }) else { return };
            for i in 0..to.rows() {
                let pair = list.order[at.row + i] as usize;
                let token = pair / self.chosen;
                match self.x.row(token) {
                    Some(x) if weigh => {
                        kernels.scale(x, self.weights[pair], scaled);
                        kernels.quantize(scaled, to.row(i));
                    }
                    _ => to.row(i).copy_from_slice(&x_tokens[token * row_bytes..][..row_bytes]),
                }
            }
        });
        let grid = Grid { tile_rows: ROWS, tile_cols: x_cols.max(1) };
        let to = MatMut::dense(x_floats, pairs, x_cols)?;
        for_each_tile(executor, to, grid, &mut [], 0, &|_, at, mut to| {
            for i in 0..to.rows() {
                let pair = list.order[at.row + i] as usize;
                if let Some(x) = self.x.row(pair / self.chosen) {
                    match weigh {
                        true => kernels.scale(x, self.weights[pair], to.row(i)),
                        false => to.row(i).copy_from_slice(x),
                    }
                }
            }
        });
        Ok(())
    }

    /// The products of the rows of pairs with matrices `which` of their experts, those of one matrix after
    /// those of the other.
    #[allow(clippy::too_many_arguments)] // a product, and how it is cut
    fn products(
        &self,
        executor: &Executor,
        list: &Pairs<'_>,
        bands: &mut [Band],
        workers: &mut Workers<'_>,
        rows: Rows<'_>,
        which: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let (kernels, compute, pairs) = (self.ctx.kernels(), self.options.compute, self.indices.len());
        let (n, k) = (out.len() / (pairs * which.len()), rows.floats.cols());
        let part = |matrix: usize, expert: usize| (self.expert)(expert).parts()[matrix];
        let mut count = 0;
        for (at, matrix) in which.clone().enumerate() {
            for expert in 0..self.shape.experts {
                let range = list.rows(expert);
                let Some((w, bias)) = part(matrix, expert).filter(|_| !range.is_empty()) else { continue };
                let Range { start, end } = range;
                let band = at * pairs + start..at * pairs + end;
                match &w.body {
                    Body::Blocks(packed) => {
                        let dims = Dims { m: end - start, n, k };
                        let grid = Plan::new(kernels, packed, dims, compute, false).grid;
                        bands[count] = Band::new(band, grid, 3 * expert + matrix);
                        count += 1;
                    }
                    Body::Floats(b) => {
                        let c = MatMut::dense(&mut out[band.start * n..band.end * n], end - start, n)?;
                        let arena = Arena::over(&mut *workers.bytes);
                        b.multiply_in(self.ctx, arena, rows.floats(start..end)?, c, &epilogue(bias))?;
                    }
                }
            }
        }
        let out = MatMut::dense(out, pairs * which.len(), n)?;
        let (bands, bytes, each) = (&mut bands[..count], &mut *workers.bytes, workers.each);
        for_each_band_tile(executor, out, bands, bytes, each, &|arena, tag, at, c| {
            let range = list.rows(tag / 3);
            let Some((PackedWeights { body: Body::Blocks(w), .. }, bias)) = part(tag % 3, tag / 3) else {
                return;
            };
            let m = range.len();
            let Ok(a) = rows.floats(range.clone()) else { return };
            let rows_q8 = &rows.quantized[range.start * rows.row_bytes..];
            let shared = Shared { kernels, a, rows_q8, row_bytes: rows.row_bytes, compute };
            let plan = Plan::new(kernels, w, Dims { m, n, k }, compute, false);
            Item { shared: &shared, w, up: None, plan, epilogue: epilogue(bias) }.run(arena, at, c);
        });
        Ok(())
    }

    /// `act(gate) * up` in the place of the gate, and the same quantised.
    fn join(&self, executor: &Executor, pairs: usize, between: &mut [f32], q8: &mut [u8]) -> Result<()> {
        let (kernels, ffn, row_bytes) = (self.ctx.kernels(), self.sizes.ffn, self.sizes.between_bytes);
        let (gate, up) = between.split_at_mut(pairs * ffn);
        let up: &[f32] = up;
        let binary = match self.options.between {
            Between::Activation(act) => Binary::Gate(act),
            Between::SwigluOai { alpha, limit } => Binary::SwigluOai { alpha, limit },
        };
        // The loop over tiles takes outputs of one type.
        let gate = MatMut::dense(bytemuck::cast_slice_mut::<f32, u8>(gate), pairs, size_of::<f32>() * ffn)?;
        let q8 = MatMut::dense(q8, if row_bytes == 0 { 0 } else { pairs }, row_bytes)?;
        let grid = Grid { tile_rows: ROWS, tile_cols: (size_of::<f32>() * ffn).max(1) };
        let cols = row_bytes.max(1);
        for_each_tile_pair(executor, gate, q8, grid, cols, &mut [], 0, &|_, at, mut gate, mut q8| {
            for i in 0..gate.rows() {
                let x: &mut [f32] = bytemuck::cast_slice_mut(gate.row(i));
                match (up.get((at.row + i) * ffn..(at.row + i + 1) * ffn), self.options.between) {
                    (Some(up), _) => kernels.binary(binary, x, up),
                    (None, Between::Activation(act)) => kernels.activate(act, x),
                    (None, Between::SwigluOai { .. }) => {}
                }
                if row_bytes > 0 {
                    kernels.quantize(x, q8.row(i));
                }
            }
        });
        Ok(())
    }

    /// Adds the weighted results of each token to its row, in the order of its list.
    fn add(&self, executor: &Executor, list: &Pairs<'_>, results: &[f32], out: MatMut<'_>) {
        let (kernels, n, weigh) = (self.ctx.kernels(), self.sizes.out, self.options.weigh_input);
        let grid = Grid { tile_rows: 1, tile_cols: COLUMNS };
        for_each_tile(executor, out, grid, &mut [], 0, &|_, at, mut out| {
            let out = out.row(0);
            for pair in at.row * self.chosen..(at.row + 1) * self.chosen {
                let by = if weigh { 1.0 } else { self.weights[pair] };
                let start = list.places[pair] as usize * n + at.col;
                kernels.binary(Binary::AddScaled(by), out, &results[start..start + out.len()]);
            }
        });
    }
}

/// What follows a product.
fn epilogue(bias: Option<&[f32]>) -> Epilogue<'_> {
    bias.map_or_else(Epilogue::default, |bias| Epilogue::default().bias(bias))
}

impl<'a> Rows<'a> {
    fn of(
        quantized: &'a [u8],
        row_bytes: usize,
        floats: &'a [f32],
        (rows, k): (usize, usize),
    ) -> Result<Rows<'a>> {
        let floats =
            if floats.is_empty() { MatRef::of_shape(rows, k) } else { MatRef::dense(floats, rows, k)? };
        Ok(Rows { quantized, row_bytes, floats })
    }

    /// Some rows as floats; their shape alone where they are only quantised.
    fn floats(&self, rows: Range<usize>) -> Result<MatRef<'a>> {
        let (k, data) = (self.floats.cols(), self.floats.from(rows.start, 0));
        if data.is_empty() {
            return Ok(MatRef::of_shape(rows.len(), k));
        }
        MatRef::dense(data, rows.len(), k)
    }
}
