//! The epilogue: `c = beta * c + act(alpha * acc + bias) (* gate)`.
//!
//! [`apply`] takes a register tile before anything is stored; [`row`] takes a row of accumulators in memory,
//! for the quantised products.

use super::LANES;
use super::accumulators::store_tile;
use super::math;
use crate::dtype::Dtype;
use crate::epilogue::Activation;
use crate::kernels::simd::Simd;
use std::mem::MaybeUninit;

/// The epilogue of the tiles of one kernel call, which starts at row 0 and column 0 of each operand.
#[derive(Clone, Copy)]
pub(crate) struct EpilogueArgs {
    pub out: *mut u8, // (rows, cols) of `dtype`, row i at i * out_row_stride elements
    pub out_row_stride: usize,
    pub dtype: Dtype,
    pub bias: *const f32, // (cols), or null
    pub gate: *const f32, // (rows, cols), row i at i * gate_row_stride; or null
    pub gate_row_stride: usize,
    pub alpha: f32,
    /// 0 unless `dtype` is f32.
    pub beta: f32,
    pub activation: Activation,
    /// [`rows`], compiled for the same ISA.
    pub rows: unsafe fn(&EpilogueArgs, &TileRows),
}

/// A tile on its way through memory.
pub(crate) struct TileRows {
    pub acc: *const f32, // (rows, 16 * vectors)
    pub rows: usize,
    pub vectors: usize,
    /// Columns of the last vector that exist: 1..=16.
    pub tail: usize,
    /// Where the tile starts in the operands of [`EpilogueArgs`].
    pub row: usize,
    pub col: usize,
}

/// Applies the epilogue to the tile at `(row, col)`, of which the last vector has `tail` columns.
///
/// Scaling, bias, residual and ReLU happen in the accumulators, which are then stored once. GELU, SiLU, gates
/// and 2-byte results need a dozen registers beside 24 accumulators: the tile passes through 1.5 KiB of
/// stack, hot in L1, 1 % of a tile of k = 256. Rejected: the same unrolled over the accumulators, which the
/// compiler spills all the same, in 20 times the code.
///
/// # Safety
/// - the operands are valid for the rows and columns of the tile, as the comments of [`EpilogueArgs`] say.
#[inline(always)]
pub(super) unsafe fn apply<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    f: &EpilogueArgs,
    (row, col): (usize, usize),
    tail: usize,
    mut acc: [[S::F32s; NV]; MR],
) {
    if f.alpha != 1.0 {
        for i in 0..MR {
            for j in 0..NV {
                acc[i][j] = s.mul(s.splat(f.alpha), acc[i][j]);
            }
        }
    }
    if !f.bias.is_null() {
        for j in 0..NV {
            let n = if j + 1 == NV { tail } else { LANES };
            // SAFETY: columns of the tile.
            let bias = unsafe { s.load_n(f.bias.add(col + j * LANES), n) };
            for i in 0..MR {
                acc[i][j] = s.add(acc[i][j], bias);
            }
        }
    }
    let simple = matches!(f.activation, Activation::Identity | Activation::Relu);
    if !simple || !f.gate.is_null() || f.dtype != Dtype::F32 {
        let mut lanes = MaybeUninit::<[[[f32; LANES]; NV]; MR]>::uninit();
        let lanes = lanes.as_mut_ptr().cast::<f32>();
        // SAFETY: the array is as large as the tile; the rest as the caller says.
        return unsafe {
            store_tile::<S, MR, NV>(s, lanes, NV * LANES, LANES, &acc);
            (f.rows)(f, &TileRows { acc: lanes, rows: MR, vectors: NV, tail, row, col })
        };
    }
    if f.activation == Activation::Relu {
        for i in 0..MR {
            for j in 0..NV {
                acc[i][j] = math::relu(s, acc[i][j]);
            }
        }
    }
    let c = f.out.cast::<f32>().wrapping_add(row * f.out_row_stride + col);
    if f.beta != 0.0 {
        for i in 0..MR {
            for j in 0..NV {
                let n = if j + 1 == NV { tail } else { LANES };
                // SAFETY: lanes of row i < MR of the tile.
                let old = unsafe { s.load_n(c.add(i * f.out_row_stride + j * LANES), n) };
                acc[i][j] = s.fma(s.splat(f.beta), old, acc[i][j]);
            }
        }
    }
    // SAFETY: the rows and columns of the tile.
    unsafe { store_tile::<S, MR, NV>(s, c, f.out_row_stride, tail, &acc) }
}

/// What comes after the bias, for a tile in memory.
///
/// # Safety
/// - the operands of both are valid, as their comments say.
#[inline(always)]
pub(crate) unsafe fn rows<S: Simd>(s: S, f: &EpilogueArgs, t: &TileRows) {
    for v in 0..t.rows * t.vectors {
        let (i, j) = (t.row + v / t.vectors, t.col + v % t.vectors * LANES);
        let n = if v % t.vectors + 1 == t.vectors { t.tail } else { LANES };
        // SAFETY: vector v of the tile; lanes j..j + n of row i of the gate and of the output.
        unsafe {
            let mut x = math::activate(s, f.activation, s.load(t.acc.add(v * LANES)));
            if !f.gate.is_null() {
                x = s.mul(x, s.load_n(f.gate.add(i * f.gate_row_stride + j), n));
            }
            let at = i * f.out_row_stride + j;
            match f.dtype {
                Dtype::F32 => {
                    let c = f.out.cast::<f32>().add(at);
                    if f.beta != 0.0 {
                        x = s.fma(s.splat(f.beta), s.load_n(c, n), x);
                    }
                    s.store_n(c, x, n);
                }
                Dtype::F16 => s.store_f16_n(f.out.cast::<u16>().add(at), x, n),
                Dtype::Bf16 => s.store_bf16_n(f.out.cast::<u16>().add(at), x, n),
            }
        }
    }
}

/// One row of accumulators in memory.
pub(crate) struct EpilogueRow {
    pub acc: *const f32,  // (cols): the accumulators; may be `c` itself
    pub c: *mut f32,      // (cols)
    pub bias: *const f32, // (cols), or null
    pub gate: *const f32, // (cols), or null
    pub cols: usize,
    pub alpha: f32,
    pub beta: f32,
    pub activation: Activation,
}

/// # Safety
/// - `acc`, `c`, and `bias` and `gate` where they are not null, are valid for `cols` f32.
#[inline(always)]
pub(crate) unsafe fn row<S: Simd>(s: S, e: &EpilogueRow) {
    let (alpha, beta) = (s.splat(e.alpha), s.splat(e.beta));
    let mut j = 0;
    while j < e.cols {
        let n = LANES.min(e.cols - j);
        // SAFETY: lanes j..j + n lie inside the row.
        unsafe {
            let mut x = s.mul(alpha, s.load_n(e.acc.add(j), n));
            if !e.bias.is_null() {
                x = s.add(x, s.load_n(e.bias.add(j), n));
            }
            x = math::activate(s, e.activation, x);
            if !e.gate.is_null() {
                x = s.mul(x, s.load_n(e.gate.add(j), n));
            }
            if e.beta != 0.0 {
                x = s.fma(beta, s.load_n(e.c.add(j), n), x);
            }
            s.store_n(e.c.add(j), x, n);
        }
        j += LANES;
    }
}
