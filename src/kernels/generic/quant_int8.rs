//! Quantised weights times int8 activations (NUMERICS rule 2).
//!
//! `acc[row] = chain over blocks ascending of fma(f32(dot), d_w * d_x, acc)`, where the dot product of a
//! block of 32 is an exact integer. Weights come in stripes of 16 rows, interleaved by groups of four k
//! (layout r16k4): one 64-byte load feeds 16 rows, activations are broadcast from memory, and each
//! broadcast serves W stripes. Offsets of unsigned weights are corrected in the start value of the sum.
//!
//! W x C = 2x6 on AVX-512 VNNI: 12 integer and 12 f32 accumulators; per block of 32, 96 `vpdpbusd`
//! against 24 scale operations on the same ports: 80 % of the peak of `vpdpbusd` at best.

use super::LANES;
use super::quantize::BLOCK;
use crate::kernels::simd::Simd;

/// A block format: how 16 rows of one block of 32 are stored and multiplied.
pub(crate) trait Format {
    /// Bytes of the 16 x 32 quants.
    const QUANT_BYTES: usize;

    /// `dots[j][c]` = exact dot product of 16 rows of stripe `j` with activation row `c` in one block.
    ///
    /// # Safety
    /// - each `w` is valid for `QUANT_BYTES` bytes, each `a` for 32.
    unsafe fn dots<S: Simd, const W: usize, const C: usize>(
        s: S,
        w: [*const u8; W],
        a: [*const i8; C],
        neg_sum: [S::I; C],
    ) -> [[S::I; C]; W];

    /// Group `g` (k = 4g..4g+4) of the block, as unsigned bytes in r16k4 order.
    ///
    /// # Safety
    /// - `w` is valid for `QUANT_BYTES` bytes; `g < 8`.
    unsafe fn group<S: Simd>(s: S, w: *const u8, g: usize) -> S::Q;

    /// What an unsigned quant of zero stands for.
    const OFFSET: f32;
}

/// 4-bit quants with an offset of 8 (GGUF Q4_0). Vector v holds group v in its low nibbles and group
/// v + 4 in its high nibbles.
pub(crate) struct Q4;

impl Format for Q4 {
    const QUANT_BYTES: usize = 256;
    const OFFSET: f32 = 8.0;

    #[inline(always)]
    unsafe fn dots<S: Simd, const W: usize, const C: usize>(
        s: S,
        w: [*const u8; W],
        a: [*const i8; C],
        neg_sum: [S::I; C],
    ) -> [[S::I; C]; W] {
        let zero = s.i_splat(0);
        let mut init = [zero; C];
        let mut low = [[s.nib_start(zero); C]; W];
        let mut high = [[s.nib_start(zero); C]; W];
        // Few accumulators: the high nibbles get chains of their own, or the latency of the dot
        // instruction (4 cycles) would bound a 2x1 tile to half of the load rate.
        let two_chains = S::SPARE_REGISTERS && W * C <= 4;
        for c in 0..C {
            init[c] = s.i_shl::<3>(neg_sum[c]);
            for j in 0..W {
                low[j][c] = s.nib_start(init[c]);
            }
        }
        for v in 0..4 {
            let mut lo = [s.q_zero(); W];
            let mut hi = [s.q_zero(); W];
            for j in 0..W {
                // SAFETY: vector v < 4 of 64 bytes inside the 256 of the block.
                let q = unsafe { s.load_q(w[j].add(64 * v)) };
                lo[j] = s.nib_lo(q);
                hi[j] = s.nib_hi(q);
            }
            for c in 0..C {
                // SAFETY: groups v and v + 4 < 8 of the 32 activations.
                let (a_lo, a_hi) = unsafe { (s.load_a(a[c].add(4 * v)), s.load_a(a[c].add(16 + 4 * v))) };
                for j in 0..W {
                    low[j][c] = s.nib_dot(low[j][c], lo[j], a_lo);
                }
                for j in 0..W {
                    if two_chains {
                        high[j][c] = s.nib_dot(high[j][c], hi[j], a_hi);
                    } else {
                        low[j][c] = s.nib_dot(low[j][c], hi[j], a_hi);
                    }
                }
            }
        }
        let mut dots = [[zero; C]; W];
        for j in 0..W {
            for c in 0..C {
                dots[j][c] = s.nib_end(low[j][c], init[c]);
                if two_chains {
                    dots[j][c] = s.i_add(dots[j][c], s.nib_end(high[j][c], zero));
                }
            }
        }
        dots
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, w: *const u8, g: usize) -> S::Q {
        // SAFETY: vector g mod 4 of 64 bytes inside the 256 of the block.
        let q = unsafe { s.load_q(w.add(64 * (g % 4))) };
        if g < 4 { s.nib_lo(q) } else { s.nib_hi(q) }
    }
}

/// 8-bit quants, stored with an offset of 128 (GGUF Q8_0). Vector v holds group v.
pub(crate) struct Q8;

impl Format for Q8 {
    const QUANT_BYTES: usize = 512;
    const OFFSET: f32 = 128.0;

    #[inline(always)]
    unsafe fn dots<S: Simd, const W: usize, const C: usize>(
        s: S,
        w: [*const u8; W],
        a: [*const i8; C],
        neg_sum: [S::I; C],
    ) -> [[S::I; C]; W] {
        let mut dots = [[s.i_splat(0); C]; W];
        for c in 0..C {
            for j in 0..W {
                dots[j][c] = s.byte_start(neg_sum[c]);
            }
        }
        for v in 0..8 {
            let mut q = [s.q_zero(); W];
            for j in 0..W {
                // SAFETY: vector v < 8 of 64 bytes inside the 512 of the block.
                q[j] = unsafe { s.load_q(w[j].add(64 * v)) };
            }
            for c in 0..C {
                // SAFETY: group v < 8 of the 32 activations.
                let a = unsafe { s.load_a(a[c].add(4 * v)) };
                for j in 0..W {
                    dots[j][c] = s.byte_dot(dots[j][c], q[j], a);
                }
            }
        }
        dots
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(s: S, w: *const u8, g: usize) -> S::Q {
        // SAFETY: vector g < 8 of 64 bytes inside the 512 of the block.
        unsafe { s.load_q(w.add(64 * g)) }
    }
}

/// Bytes of 16 rows x 64 k: 2 x 16 f16 scales (one cache line), then the quants of both blocks.
pub(crate) const fn pair_bytes<F: Format>() -> usize {
    64 + 2 * F::QUANT_BYTES
}

/// Where block `b` of a stripe keeps its 16 scales and its quants.
///
/// # Safety
/// - `stripe` is valid for the pair that holds block `b`.
#[inline(always)]
pub(crate) unsafe fn block<F: Format>(stripe: *const u8, b: usize) -> (*const u16, *const u8) {
    // SAFETY: both offsets lie inside the pair.
    unsafe {
        let pair = stripe.add(b / 2 * pair_bytes::<F>());
        (pair.add(b % 2 * 32).cast(), pair.add(64 + b % 2 * F::QUANT_BYTES))
    }
}

/// Operands of one tile of `16 W` weight rows by `C` activation rows.
pub(crate) struct Int8Tile {
    pub blocks: usize,
    pub w: *const u8, // (W stripes): stripe j at w + j * stripe_bytes
    pub stripe_bytes: usize,
    pub q: *const i8,        // (C, 32 * blocks), row c at q + c * record_bytes
    pub d: *const f32,       // (C, blocks), row c record_bytes further
    pub neg_sum: *const i32, // (C, blocks), row c record_bytes further
    pub record_bytes: usize,
    pub c: *mut f32, // (C, 16 * (W - 1) + tail), row c at c + c * c_row_stride
    pub c_row_stride: usize,
    /// Weight rows of the last stripe that exist: 1..=16.
    pub tail: usize,
}

/// # Safety
/// - every operand is valid as the comments of [`Int8Tile`] say; stripes are whole pairs of blocks.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, F: Format, const W: usize, const C: usize>(s: S, t: &Int8Tile) {
    let mut acc = [[s.splat(0.0); C]; W];
    for b in 0..t.blocks {
        let mut scales = [std::ptr::null::<u16>(); W];
        let mut quants = [std::ptr::null::<u8>(); W];
        for j in 0..W {
            // SAFETY: stripe j < W holds block b < blocks.
            (scales[j], quants[j]) = unsafe { block::<F>(t.w.add(j * t.stripe_bytes), b) };
        }
        let mut a = [std::ptr::null::<i8>(); C];
        let mut neg_sum = [s.i_splat(0); C];
        for c in 0..C {
            // SAFETY: block b < blocks of activation row c < C.
            unsafe {
                a[c] = t.q.byte_add(c * t.record_bytes).add(b * BLOCK);
                neg_sum[c] = s.i_splat(*t.neg_sum.byte_add(c * t.record_bytes).add(b));
            }
        }
        // SAFETY: the pointers were formed for block b just above.
        let dots = unsafe { F::dots::<S, W, C>(s, quants, a, neg_sum) };
        for j in 0..W {
            // SAFETY: 16 scales of block b of stripe j.
            let dw = unsafe { s.load_f16(scales[j]) };
            for c in 0..C {
                // SAFETY: block b < blocks of activation row c < C.
                let dx = s.splat(unsafe { *t.d.byte_add(c * t.record_bytes).add(b) });
                acc[j][c] = s.fma(s.i_to_f32(dots[j][c]), s.mul(dw, dx), acc[j][c]);
            }
        }
    }
    for c in 0..C {
        for j in 0..W {
            let lanes = if j + 1 == W { t.tail } else { LANES };
            // SAFETY: columns 16 j.. of row c < C; the last stripe is written up to `tail`.
            unsafe { s.store_n(t.c.add(c * t.c_row_stride + j * LANES), acc[j][c], lanes) };
        }
    }
}
