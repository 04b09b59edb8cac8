//! Quantised weights times f32 activations (NUMERICS rule 3): each weight is widened in a register, exactly
//! as dequantising gives it, and joins the rule-1 chain over k ascending.
//!
//! Few rows: nothing is written to memory, and W row panels give W chains for each row, so that the latency
//! of the FMA (4 cycles) is hidden even for one row. The widening costs 4 operations a vector, two of them on
//! the ports of the FMA: one row runs at half of the FMA peak at best. Many rows: [`expand_f32`] widens a
//! block of k once, in the order of a B micropanel, which then runs at its own speed.

use super::LANES;
use super::accumulators::{load_row, store_columns, store_row};
use super::quant_codes::Codes;
use super::quant_format::{Format, place, superblock_bytes};
use super::quant_headers::unpacked_part;
use super::quant_int8::{MAX_PANELS, scale_of_dot};
use super::quantize::BLOCK;
use crate::kernels::simd_bytes::SimdBytes;

/// Operands of one tile of `16 W` weight rows by `C` activation rows.
pub(crate) struct ExactTile {
    pub blocks: usize,
    /// The row panels; those that do not exist repeat another one. // (W)
    pub w: [*const u8; MAX_PANELS],
    pub superblock_shift: u32,
    pub x: *const f32, // (C, 32 * blocks), row c at x + c * x_row_stride
    pub x_row_stride: usize,
    pub c: *mut f32, // (C, cols), row c at c + c * c_row_stride
    pub c_row_stride: usize,
    /// Weight rows that exist, 1..=16 W.
    pub cols: usize,
}

/// The scale and the constant of half `half` of a block, with which a weight is `fma(code, scale, constant)`:
/// exact but for formats with a minimum, where that is the one rounding of `d * code + min`. An infinite
/// scale gives NaN.
///
/// # Safety
/// - `header` is that of block `i` of a superblock.
#[inline(always)]
unsafe fn line<S: SimdBytes, F: Format>(s: S, header: *const u8, i: usize, half: usize) -> [S::F32s; 2] {
    // SAFETY: handed on to the caller.
    unsafe {
        let scale = F::half_scale(s, header, i, half);
        let constant = if F::MIN {
            F::min(s, header, i, half)
        } else if F::ZERO {
            // What is subtracted from the code: see `weight`.
            s.i_to_f32(s.i_add(s.i_splat(F::OFFSET as i32), F::zero(s, header, i)))
        } else if F::WIDE_SCALE {
            s.splat(F::OFFSET as f32)
        } else {
            s.mul(s.splat(-(F::OFFSET as f32)), scale)
        };
        [scale, constant]
    }
}

/// One vector of weights. Where scales are f32, their product with a code is not exact, and where they reach
/// to 2^127, the constant would be infinite although the weight is not: there the difference comes first.
#[inline(always)]
fn weight<S: SimdBytes, F: Format>(s: S, code: S::F32s, [scale, constant]: [S::F32s; 2]) -> S::F32s {
    match F::WIDE_SCALE {
        true if F::OFFSET == 0 && !F::ZERO => s.mul(code, scale),
        true => s.mul(s.sub(code, constant), scale),
        false => s.fma(code, scale, constant),
    }
}

/// # Safety
/// - every operand is valid as the comments of [`ExactTile`] say; row panels are whole superblocks.
#[inline(always)]
pub(crate) unsafe fn tile<S: SimdBytes, F: Format, const W: usize, const C: usize>(s: S, t: &ExactTile) {
    let mut acc = [[s.splat(0.0); C]; W];
    for b in 0..t.blocks {
        let (superblock, i) = place::<F>(b, t.superblock_shift);
        let mut headers = [std::ptr::null::<u8>(); W];
        for j in 0..W {
            // SAFETY: row panel j < W holds block b < blocks.
            headers[j] = unsafe { t.w[j].add(superblock * superblock_bytes::<F>(t.superblock_shift)) };
        }
        // The halves are a loop that runs: unrolled, all vectors of codes would be kept from the first to
        // the second.
        for half in 0..s.rolled(2) {
            let mut lines = [[s.splat(0.0); 2]; W];
            for j in 0..W {
                // SAFETY: the header of the block.
                lines[j] = unsafe { line::<S, F>(s, headers[j], i, half) };
            }
            for v in 0..4 {
                let mut codes = [s.bytes_zero(); W];
                for j in 0..W {
                    // SAFETY: group v + 4 half < 8 of block i of the superblock.
                    unsafe {
                        let q = headers[j].add(F::HEADER + i * F::Codes::BYTES);
                        codes[j] = F::Codes::group(s, q, v + 4 * half);
                    }
                }
                if S::FMA_BY_LANE {
                    let mut x = [s.splat(0.0); C];
                    for c in 0..C {
                        // SAFETY: four k < 32 * blocks of activation row c < C.
                        x[c] = unsafe {
                            s.load_four(t.x.add(c * t.x_row_stride + b * BLOCK + 16 * half + 4 * v))
                        };
                    }
                    macro_rules! lane {
                        ($n:literal) => {
                            for j in 0..W {
                                let w = weight::<S, F>(s, F::Codes::value(s, codes[j], $n), lines[j]);
                                for c in 0..C {
                                    acc[j][c] = s.fma_lane::<$n>(x[c], w, acc[j][c]);
                                }
                            }
                        };
                    }
                    lane!(0);
                    lane!(1);
                    lane!(2);
                    lane!(3);
                    continue;
                }
                for n in 0..4 {
                    let mut w = [s.splat(0.0); W];
                    for j in 0..W {
                        w[j] = weight::<S, F>(s, F::Codes::value(s, codes[j], n as u32), lines[j]);
                    }
                    for c in 0..C {
                        let k = b * BLOCK + 16 * half + 4 * v + n;
                        // SAFETY: k < 32 * blocks of activation row c < C.
                        let x = s.splat(unsafe { *t.x.add(c * t.x_row_stride + k) });
                        for j in 0..W {
                            acc[j][c] = s.fma(x, w[j], acc[j][c]);
                        }
                    }
                }
            }
        }
    }
    // SAFETY: `cols` columns of the C rows exist.
    unsafe { store_columns(s, t.c, t.c_row_stride, t.cols, &acc) };
}

/// Operands of one tile of `16 W` widened weight rows by `C` activation rows.
pub(crate) struct WideTile {
    pub k: usize,
    pub w: *const f32, // (k, 16 W)
    pub x: *const f32, // (C, k), row c at x + c * x_row_stride
    pub x_row_stride: usize,
    pub c: *mut f32, // (C, cols), row c at c + c * c_row_stride
    pub c_row_stride: usize,
    /// Weight rows that exist, 1..=16 W.
    pub cols: usize,
    /// Whether the chains go on from what C holds.
    pub accumulate: bool,
}

/// The chains of widened weights: the tile of the f32 product, on one block of k.
///
/// # Safety
/// - every operand is valid as the comments of [`WideTile`] say.
#[inline(always)]
pub(crate) unsafe fn wide<S: SimdBytes, const W: usize, const C: usize>(s: S, t: &WideTile) {
    let mut acc = [[s.splat(0.0); W]; C];
    if t.accumulate {
        for c in 0..C {
            // SAFETY: `cols` columns of row c < C exist.
            acc[c] = unsafe { load_row(s, t.c.wrapping_add(c * t.c_row_stride), t.cols) };
        }
    }
    let mut done = 0;
    while S::FMA_BY_LANE && t.k - done >= 4 {
        let mut x = [s.splat(0.0); C];
        for c in 0..C {
            // SAFETY: four elements below k of activation row c < C.
            x[c] = unsafe { s.load_four(t.x.add(c * t.x_row_stride + done)) };
        }
        macro_rules! lane {
            ($k:literal) => {
                for j in 0..W {
                    // SAFETY: vector j < W of k.
                    let w = unsafe { s.load(t.w.add(((done + $k) * W + j) * LANES)) };
                    for c in 0..C {
                        acc[c][j] = s.fma_lane::<$k>(x[c], w, acc[c][j]);
                    }
                }
            };
        }
        lane!(0);
        lane!(1);
        lane!(2);
        lane!(3);
        done += 4;
    }
    for k in done..t.k {
        let mut w = [s.splat(0.0); W];
        for j in 0..W {
            // SAFETY: vector j < W of k.
            w[j] = unsafe { s.load(t.w.add((k * W + j) * LANES)) };
        }
        for c in 0..C {
            // SAFETY: element k of activation row c < C.
            let x = s.splat(unsafe { *t.x.add(c * t.x_row_stride + k) });
            for j in 0..W {
                acc[c][j] = s.fma(x, w[j], acc[c][j]);
            }
        }
    }
    for c in 0..C {
        // SAFETY: `cols` columns of row c < C exist.
        unsafe { store_row(s, t.c.wrapping_add(c * t.c_row_stride), t.cols, acc[c]) };
    }
}

/// Blocks of one row panel and where they go.
pub(crate) struct Expand {
    pub w: *const u8, // one row panel
    pub superblock_shift: u32,
    /// First block, and how many.
    pub first: usize,
    pub blocks: usize,
    pub out: *mut u8, // (blocks, unpacked block), or (32 * blocks, 16) f32
    /// f32 from one k to the next.
    pub out_stride: usize,
}

/// The header of block `n`, unpacked; and its codes, and where they go.
///
/// # Safety
/// - the operands are valid as the comments of [`Expand`] say; `n` is below `blocks`.
#[inline(always)]
pub(super) unsafe fn expand_header<S: SimdBytes, F: Format>(
    s: S,
    e: &Expand,
    n: usize,
) -> (*const u8, *mut u8) {
    let part = unpacked_part::<F>;
    let (superblock, i) = place::<F>(e.first + n, e.superblock_shift);
    // SAFETY: the block's superblock of the row panel, and unpacked block n with the parts that the format
    // has.
    unsafe {
        let header = e.w.add(superblock * superblock_bytes::<F>(e.superblock_shift));
        let out = e.out.add(n * superblock_bytes::<F::Unpacked>(0));
        for half in 0..1 + usize::from(F::HALF_SCALES) {
            s.store(out.add(64 * half).cast(), scale_of_dot::<S, F>(s, header, i, half));
        }
        for half in 0..2 {
            if F::HALVES && !F::HALF_SCALES {
                s.i_store(out.add(part(1) + 64 * half).cast(), F::factor(s, header, i, half));
            }
            if F::MIN && (half == 0 || F::HALVES) {
                s.store(out.add(part(2) + 64 * half).cast(), F::min(s, header, i, half));
            }
        }
        if F::ZERO {
            s.i_store(out.add(part(3)).cast(), F::zero(s, header, i));
        }
        let codes = header.add(F::HEADER + i * F::Codes::BYTES);
        (codes, out.add(<F::Unpacked as Format>::HEADER))
    }
}

/// Unpacks blocks: scales to f32, codes to bytes.
///
/// # Safety
/// - the operands are valid as the comments of [`Expand`] say.
#[inline(always)]
pub(crate) unsafe fn expand<S: SimdBytes, F: Format>(s: S, e: &Expand) {
    for n in 0..e.blocks {
        // SAFETY: the block's superblock of the row panel, and unpacked block n.
        unsafe {
            let (q, out) = expand_header::<S, F>(s, e, n);
            let shared = F::Codes::shared(s, q);
            for p in 0..4 {
                let [first, second] = F::Codes::two_groups(s, q, shared, p);
                s.store_bytes(out.add(128 * p), first);
                s.store_bytes(out.add(128 * p + 64), second);
            }
        }
    }
}

/// Widens blocks to f32, 16 weights of one k after the other.
///
/// # Safety
/// - the operands are valid as the comments of [`Expand`] say.
#[inline(always)]
pub(crate) unsafe fn expand_f32<S: SimdBytes, F: Format>(s: S, e: &Expand) {
    for n in 0..e.blocks {
        let (superblock, i) = place::<F>(e.first + n, e.superblock_shift);
        // SAFETY: the block's superblock of the row panel.
        unsafe {
            let header = e.w.add(superblock * superblock_bytes::<F>(e.superblock_shift));
            let q = header.add(F::HEADER + i * F::Codes::BYTES);
            let shared = F::Codes::shared(s, q);
            for half in 0..2 {
                let line = line::<S, F>(s, header, i, half);
                for p in 2 * half..2 * half + 2 {
                    let groups = F::Codes::two_groups(s, q, shared, p);
                    for m in 0..8 {
                        let k = n * BLOCK + 8 * p + m;
                        let value = F::Codes::value(s, groups[m / 4], (m % 4) as u32);
                        let w = weight::<S, F>(s, value, line);
                        s.store(e.out.cast::<f32>().add(k * e.out_stride), w);
                    }
                }
            }
        }
    }
}
