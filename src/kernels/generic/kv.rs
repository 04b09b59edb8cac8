//! Tiles over quantised keys and values, and the widening of a chunk's keys or values to f32.
//!
//! A stored number is `code * scale`, one f16 scale for each block of 32 elements of the head of each key.
//! Codes have at most 8 bits and scales 11: the product is exact in f32, so a quantised number is widened
//! exactly in a register and joins the rule-1 chain, and a tile has the bits of the f32 tile over widened
//! numbers. Few rows (decode) use the tiles here: one widening (2 or 3 operations on ports that FMA does not
//! use, and one multiplication) serves all rows. Many rows (prefill) widen a chunk once and use the f32 tile.
//! Rejected: scaling the sum of a block instead of each number, 3 % faster with 4 rows, but a second set of
//! accumulators and another chain than prefill's.

use super::LANES;
use super::accumulators::{load_tile, store_tile};
use super::gemm::{Element, GemmTile};
use super::quantize::BLOCK;
use crate::kernels::simd::Simd;

/// Vectors of 16 of a block.
const HALVES: usize = BLOCK / LANES;

/// Address that the next tile reads; prefetched while this one computes. A decoding step reads each key and
/// value once, in several streams that the hardware's own prefetch does not follow (docs/TUNING.md, prefetch
/// of KV tiles).
#[derive(Clone, Copy)]
pub(crate) struct PrefetchAt {
    pub at: *const u8, // never followed: any address will do
    /// Bytes from one step of the tile to the next.
    pub stride: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// [`prefetch_lines`] as a kernel, for bytes that may begin and end anywhere in a line: a row of queries that
/// is 16 bytes off lies in one line more than it fills, and waiting for that one cost as much as for all of
/// them.
///
/// # Safety
/// - none: nothing is read.
#[inline(always)]
pub(crate) unsafe fn prefetch<S: Simd>(s: S, at: *const u8, bytes: usize) {
    let before = at.addr() % LINE;
    prefetch_lines(s, at.wrapping_sub(before), before + bytes);
}

/// Prefetches `bytes` bytes from `at` on into L2.
#[inline(always)]
fn prefetch_lines<S: Simd>(s: S, at: *const u8, bytes: usize) {
    let mut line = 0;
    while line < bytes {
        s.prefetch_l2(at.wrapping_add(line));
        line += LINE;
    }
}

/// One tile of [`gemm::tiles`](super::gemm::tiles) that prefetches what the next tile reads.
///
/// # Safety
/// - as for the tile without.
#[inline(always)]
pub(crate) unsafe fn prefetching_tile<S: Simd, E: Element, const MR: usize, const NV: usize>(
    s: S,
    t: &GemmTile,
    prefetch: PrefetchAt,
) {
    let mut acc = [[s.splat(0.0); NV]; MR];
    if t.accumulate {
        // SAFETY: C is valid, as the caller says.
        unsafe { load_tile::<S, MR, NV>(s, t.c, t.c_row_stride, t.tail, &mut acc) };
    }
    let (mut a, mut b, mut at) = (t.a, t.b.cast::<E::Raw>(), prefetch.at);
    for _ in 0..t.k.div_ceil(E::STEP) {
        prefetch_lines(s, at, NV * LANES * E::STEP * size_of::<E::Raw>());
        for step in 0..E::STEP {
            let mut bv = [s.splat(0.0); NV];
            for j in 0..NV {
                // SAFETY: vector j < NV of a group below k of B.
                bv[j] = unsafe { E::widen(s, b.add(j * t.b_vec_stride), step) };
            }
            for i in 0..MR {
                // SAFETY: element p < k of row i < MR of A; k is a multiple of STEP.
                let av = s.splat(unsafe { *a.add(i * t.a_row_stride) });
                for j in 0..NV {
                    acc[i][j] = s.fma(av, bv[j], acc[i][j]);
                }
            }
            // Wrapping: after the last k these point past their operand and are not followed.
            a = a.wrapping_add(t.a_k_stride);
        }
        b = b.wrapping_add(t.b_k_stride);
        at = at.wrapping_add(prefetch.stride);
    }
    // SAFETY: C is valid, as the caller says.
    unsafe { store_tile::<S, MR, NV>(s, t.c, t.c_row_stride, t.tail, &acc) }
}

/// How codes are stored.
pub(crate) trait Code {
    /// Numbers in a byte.
    const STEP: usize;

    /// The codes of 16 bytes, number `step < STEP` of each, as f32.
    ///
    /// # Safety
    /// - `p` is valid for reads of 16 bytes.
    unsafe fn widen<S: Simd>(s: S, p: *const u8, step: usize) -> S::F32s;

    /// What [`Code::value`] needs for the scale of a block of a value.
    #[inline(always)]
    fn scale<S: Simd>(s: S, scale: f32) -> S::F32s {
        s.splat(scale)
    }

    /// Half `h` of the block at `p`, times its scale.
    ///
    /// # Safety
    /// - `p` is valid for reads of the block.
    #[inline(always)]
    unsafe fn value<S: Simd>(s: S, p: *const u8, h: usize, scale: S::F32s) -> S::F32s {
        // SAFETY: 16 bytes of the block, as the caller says.
        s.mul(unsafe { Self::widen(s, p.add(h * LANES), 0) }, scale)
    }
}

/// 8 bits, two's complement.
pub(crate) struct Int8;

impl Code for Int8 {
    const STEP: usize = 1;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u8, _step: usize) -> S::F32s {
        // SAFETY: 16 bytes, as the caller says.
        unsafe { s.i_to_f32(s.i_load_i8(p.cast())) }
    }
}

/// 4 bits with an offset of 8, the first number in the low nibble.
pub(crate) struct Int4;

impl Code for Int4 {
    const STEP: usize = 2;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u8, step: usize) -> S::F32s {
        // SAFETY: 16 bytes, as the caller says. Both steps load; the compiler keeps one load.
        let bytes = unsafe { s.load_u8(p) };
        if step == 0 { s.low_nibble(bytes) } else { s.high_nibble(bytes) }
    }

    #[inline(always)]
    fn scale<S: Simd>(s: S, scale: f32) -> S::F32s {
        s.nibble_scale(scale)
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(s: S, p: *const u8, h: usize, scale: S::F32s) -> S::F32s {
        // SAFETY: the 16 bytes of the block, as the caller says.
        s.nibbles(unsafe { s.load_u8(p) }, h, scale)
    }
}

/// Operands of one tile of scores: `MR` queries by `NV` tiles of 16 keys.
pub(crate) struct KeyTile {
    pub dim: usize,
    pub q: *const f32, // (MR, dim), row i at q + i * q_row_stride
    pub q_row_stride: usize,
    pub codes: *const u8, // (NV, dim / STEP, 16)
    pub codes_stride: usize,
    pub scales: *const u16, // (NV, ceil(dim / 32), 16)
    pub scales_stride: usize,
    pub c: *mut f32, // (MR, 16 * NV), row i at c + i * c_row_stride
    pub c_row_stride: usize,
    pub prefetch: PrefetchAt,
}

/// `c[i][key] = chain over d ascending of fma(q[i][d], code * scale, acc)`.
///
/// # Safety
/// - every operand is valid as the comments of [`KeyTile`] say; `dim` is a multiple of `STEP`.
#[inline(always)]
pub(crate) unsafe fn scores<S: Simd, C: Code, const MR: usize, const NV: usize>(s: S, t: &KeyTile) {
    let mut acc = [[s.splat(0.0); NV]; MR];
    let (mut codes, mut q, mut at) = (t.codes, t.q, t.prefetch.at);
    for b in 0..t.dim.div_ceil(BLOCK) {
        let mut scale = [s.splat(0.0); NV];
        for j in 0..NV {
            // SAFETY: block b of tile j < NV.
            scale[j] = unsafe { s.load_f16(t.scales.add(j * t.scales_stride + b * LANES)) };
        }
        for _ in 0..BLOCK.min(t.dim - b * BLOCK) / C::STEP {
            prefetch_lines(s, at, NV * LANES);
            at = at.wrapping_add(t.prefetch.stride);
            for step in 0..C::STEP {
                let mut w = [s.splat(0.0); NV];
                for j in 0..NV {
                    // SAFETY: 16 bytes of group d / STEP of tile j < NV.
                    let code = unsafe { C::widen(s, codes.add(j * t.codes_stride), step) };
                    w[j] = s.mul(code, scale[j]);
                }
                for i in 0..MR {
                    // SAFETY: element d < dim of row i < MR.
                    let qv = s.splat(unsafe { *q.add(i * t.q_row_stride + step) });
                    for j in 0..NV {
                        acc[i][j] = s.fma(qv, w[j], acc[i][j]);
                    }
                }
            }
            // Wrapping: after the last group both point past their operand and are not followed.
            codes = codes.wrapping_add(LANES);
            q = q.wrapping_add(C::STEP);
        }
    }
    for i in 0..MR {
        for j in 0..NV {
            // SAFETY: row i < MR, vector j < NV of C.
            unsafe { s.store(t.c.add(i * t.c_row_stride + j * LANES), acc[i][j]) };
        }
    }
}

/// Operands of one tile of values: `MR` rows of probabilities by `NB` blocks of 32 elements of the head.
pub(crate) struct ValueTile {
    pub keys: usize,
    pub p: *const f32, // (MR, keys), row i at p + i * p_row_stride
    pub p_row_stride: usize,
    pub codes: *const u8, // (keys, NB, 32 / STEP), key k at codes + k * codes_stride
    pub codes_stride: usize,
    pub scales: *const f32, // (NB, keys), block b at scales + b * scales_stride
    pub scales_stride: usize,
    pub c: *mut f32, // (MR, 32 * (NB - 1) + tail), row i at c + i * c_row_stride
    pub c_row_stride: usize,
    /// Columns of the last block that exist in C: 1..=32.
    pub tail: usize,
    pub prefetch: PrefetchAt,
}

/// `c[i][d] = chain over keys ascending of fma(p[i][key], code * scale, acc)` from what C holds.
///
/// # Safety
/// - every operand is valid as the comments of [`ValueTile`] say.
#[inline(always)]
pub(crate) unsafe fn values<S: Simd, C: Code, const MR: usize, const NB: usize>(s: S, t: &ValueTile) {
    let mut acc = [[[s.splat(0.0); HALVES]; NB]; MR];
    let lanes = |b: usize, h: usize| {
        let tail = if b + 1 == NB { t.tail } else { BLOCK };
        tail.saturating_sub(h * LANES).min(LANES)
    };
    for i in 0..MR {
        for b in 0..NB {
            for h in 0..HALVES {
                // SAFETY: row i < MR, half h of block b < NB of C, up to `tail`.
                acc[i][b][h] = unsafe {
                    let p = t.c.wrapping_add(i * t.c_row_stride + b * BLOCK + h * LANES);
                    if lanes(b, h) == LANES { s.load(p) } else { s.load_n(p, lanes(b, h)) }
                };
            }
        }
    }
    let (mut codes, mut p, mut scales, mut at) = (t.codes, t.p, t.scales, t.prefetch.at);
    for _ in 0..t.keys {
        prefetch_lines(s, at, NB * BLOCK / C::STEP);
        at = at.wrapping_add(t.prefetch.stride);
        for b in 0..NB {
            // SAFETY: block b < NB of a key below `keys`.
            let scale = C::scale(s, unsafe { *scales.add(b * t.scales_stride) });
            let mut w = [s.splat(0.0); HALVES];
            for h in 0..HALVES {
                // SAFETY: the bytes of the block.
                w[h] = unsafe { C::value(s, codes.add(b * BLOCK / C::STEP), h, scale) };
            }
            for i in 0..MR {
                // SAFETY: a key below `keys` of row i < MR.
                let pv = s.splat(unsafe { *p.add(i * t.p_row_stride) });
                for h in 0..HALVES {
                    acc[i][b][h] = s.fma(pv, w[h], acc[i][b][h]);
                }
            }
        }
        // Wrapping: after the last key these point past their operand and are not followed.
        codes = codes.wrapping_add(t.codes_stride);
        p = p.wrapping_add(1);
        scales = scales.wrapping_add(1);
    }
    for i in 0..MR {
        for b in 0..NB {
            for h in 0..HALVES {
                // SAFETY: row i < MR, half h of block b < NB of C, up to `tail`.
                unsafe {
                    let p = t.c.wrapping_add(i * t.c_row_stride + b * BLOCK + h * LANES);
                    if lanes(b, h) == LANES {
                        s.store(p, acc[i][b][h]);
                    } else {
                        s.store_n(p, acc[i][b][h], lanes(b, h));
                    }
                }
            }
        }
    }
}

/// Vectors of 16 elements and their widened form.
pub(crate) struct Widen {
    pub from: *const u8, // (groups, 16, STEP)
    pub groups: usize,
    pub to: *mut f32, // (groups, STEP, 16)
}

/// Widens vectors of f16 or bf16.
///
/// # Safety
/// - both operands are valid as the comments of [`Widen`] say, `from` aligned to its elements.
#[inline(always)]
pub(crate) unsafe fn widen<S: Simd, E: Element>(s: S, t: &Widen) {
    let (mut from, mut to) = (t.from.cast::<E::Raw>(), t.to);
    for _ in 0..t.groups {
        for step in 0..E::STEP {
            // SAFETY: one group below `groups`; its step's 16 f32.
            unsafe { s.store(to.add(step * LANES), E::widen(s, from, step)) };
        }
        // Wrapping: after the last group both point past their operand and are not followed.
        from = from.wrapping_add(E::STEP * LANES);
        to = to.wrapping_add(E::STEP * LANES);
    }
}

/// Widens one tile of 16 keys: `codes` (dim / STEP, 16), `scales` (blocks, 16), `to` (dim, 16).
///
/// # Safety
/// - the three are valid for these shapes; `dim` is a multiple of `STEP`.
#[inline(always)]
pub(crate) unsafe fn widen_keys<S: Simd, C: Code>(
    s: S,
    dim: usize,
    codes: *const u8,
    scales: *const u16,
    to: *mut f32,
) {
    let mut d = 0;
    while d < dim {
        // SAFETY: block d / 32 of the tile.
        let scale = unsafe { s.load_f16(scales.add(d / BLOCK * LANES)) };
        let end = dim.min(d + BLOCK);
        while d < end {
            for step in 0..C::STEP {
                // SAFETY: group d / STEP of the tile, element d + step of `to`.
                unsafe {
                    let code = C::widen(s, codes.add(d / C::STEP * LANES), step);
                    s.store(to.add((d + step) * LANES), s.mul(code, scale));
                }
            }
            d += C::STEP;
        }
    }
}

/// Widens one value: `codes` (blocks, 32 / STEP), scales `scales_stride` apart, `to` (32 * blocks).
///
/// # Safety
/// - the three are valid for these shapes.
#[inline(always)]
pub(crate) unsafe fn widen_value<S: Simd, C: Code>(
    s: S,
    blocks: usize,
    codes: *const u8,
    scales: (*const f32, usize),
    to: *mut f32,
) {
    let (scales, scales_stride) = scales;
    for b in 0..blocks {
        // SAFETY: block b < blocks of the value.
        unsafe {
            let scale = C::scale(s, *scales.add(b * scales_stride));
            for h in 0..HALVES {
                let value = C::value(s, codes.add(b * BLOCK / C::STEP), h, scale);
                s.store(to.add(b * BLOCK + h * LANES), value);
            }
        }
    }
}
