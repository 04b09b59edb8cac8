//! The headers of the packed formats: how the scales of 16 rows lie, and how a tile loads them.

use super::LANES;
use super::quant_codes::{Codes, E2m1, Lookup, Two};
use super::quant_format::{Factors, Fields, Format, ScaleKind};
use crate::kernels::simd_bytes::SimdBytes;
use std::marker::PhantomData;

/// Bytes of 16 f16, and of 16 f32 or i32.
pub(super) const F16S: usize = 32;
pub(super) const F32S: usize = 64;

/// `w = d * (code - OFFSET)`, d in f16 for each block; superblocks of 2 blocks.
pub(crate) struct Plain<C, const OFFSET: u32>(PhantomData<C>);

impl<C: Codes, const OFFSET: u32> Format for Plain<C, OFFSET> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, false, false, false, false>;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 2;
    const HEADER: usize = 2 * F16S; // d[2][16]
    const FIELDS: Fields = Fields::scale(ScaleKind::F16);

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, i: usize) -> S::F32s {
        // SAFETY: 16 of the 32 f16.
        unsafe { s.load_f16_le(header.add(Self::FIELDS.d + i * F16S)) }
    }
}

/// `w = d * code + m`, d and m in f16 for each block; superblocks of 2 blocks.
pub(crate) struct Affine<C>(PhantomData<C>);

impl<C: Codes> Format for Affine<C> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, 0, true, false, false, false>;
    const OFFSET: u32 = 0;
    const BLOCKS: usize = 2;
    const HEADER: usize = 4 * F16S; // d[2][16], m[2][16]
    const FIELDS: Fields = Fields { min: Some(2 * F16S), ..Fields::scale(ScaleKind::F16) };
    const MIN: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, i: usize) -> S::F32s {
        // SAFETY: 16 of the first 32 f16.
        unsafe { s.load_f16_le(header.add(Self::FIELDS.d + i * F16S)) }
    }

    #[inline(always)]
    unsafe fn min<S: SimdBytes>(s: S, header: *const u8, i: usize, _half: usize) -> S::F32s {
        // SAFETY: 16 of the last 32 f16.
        unsafe { s.load_f16_le(header.add(const { Self::FIELDS.min() } + i * F16S)) }
    }
}

/// `w = 2^(e - 128) * value(code)`, e in 8 bits for each block, NaN where e = 255; superblocks of 4 blocks.
pub(crate) struct Mx;

impl Format for Mx {
    type Codes = Lookup<E2m1>;
    type Unpacked = UnpackedFormat<<Lookup<E2m1> as Codes>::Wide, 16, false, false, false, false>;
    const OFFSET: u32 = 16;
    const BLOCKS: usize = 4;
    const HEADER: usize = 64; // e[4][16]
    const FIELDS: Fields = Fields::scale(ScaleKind::E8m0);
    const WIDE_SCALE: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, i: usize) -> S::F32s {
        // SAFETY: 16 of the 64 bytes.
        unsafe { s.load_e8m0(header.add(Self::FIELDS.d + i * LANES)) }
    }
}

/// `w = d[half] * value(code)`, d in 8 bits (E4M3 without a sign, halved) for each 16 k; superblocks of 2
/// blocks (NVFP4).
pub(crate) struct Nv;

impl Format for Nv {
    type Codes = Lookup<E2m1>;
    type Unpacked = UnpackedFormat<<Lookup<E2m1> as Codes>::Wide, 16, false, true, false, true>;
    const OFFSET: u32 = 16;
    const BLOCKS: usize = 2;
    const HEADER: usize = 64; // d[4][16]
    const FIELDS: Fields = Fields { factors: Factors::Bytes, ..Fields::scale(ScaleKind::Factors) };
    const HALVES: bool = true;
    const HALF_SCALES: bool = true;
    const EXACT_TILES: bool = false;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, _header: *const u8, _i: usize) -> S::F32s {
        s.splat(1.0)
    }

    /// The 4 bits of the exponent and 3 of the mantissa as those of an f32, times `2^119`; 0 for the code of
    /// NaN.
    #[inline(always)]
    unsafe fn half_scale<S: SimdBytes>(s: S, header: *const u8, i: usize, half: usize) -> S::F32s {
        // SAFETY: 16 of the 64 bytes.
        let code = unsafe { s.load_u8(header.add((2 * i + half) * LANES)) };
        let bits = s.of_bits(s.i_shl(s.i_and(code, 127), 20));
        let d = s.mul(bits, s.splat(f32::from_bits((127 + 119) << 23)));
        let apart = s.abs(s.sub(s.i_to_f32(code), s.splat(127.0)));
        s.select_lt(apart, s.splat(0.5), s.splat(0.0), d)
    }
}

/// `w = d * (code - OFFSET)`, d in f16 for all the blocks of a superblock (TQ1_0, TQ2_0, Q1_0, Q2_0).
pub(crate) struct Whole<C, const OFFSET: u32>(PhantomData<C>);

impl<C: Codes, const OFFSET: u32> Format for Whole<C, OFFSET> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, false, false, false, false>;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 0;
    const HEADER: usize = F16S; // d[16]
    const FIELDS: Fields = Fields::scale(ScaleKind::F16);
    const EXACT_TILES: bool = false;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::F32s {
        // SAFETY: the 16 f16.
        unsafe { s.load_f16_le(header) }
    }
}

/// `w = d * sc * value(code)`, d in f16 for 256 k, sc in i8 for each block (IQ4_XS).
pub(crate) struct Signed<C>(PhantomData<C>);

impl<C: Codes> Format for Signed<C> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, 128, false, false, false, false>;
    const OFFSET: u32 = 128;
    const BLOCKS: usize = 8;
    const HEADER: usize = 192; // d[16], sc[8][16], 32 zeros
    const FIELDS: Fields =
        Fields { factors: Factors::Bytes, factors_at: F16S, ..Fields::scale(ScaleKind::F16) };

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, i: usize) -> S::F32s {
        // SAFETY: the 16 f16, then 16 of the 128 bytes.
        unsafe {
            let d = s.load_f16_le(header.add(Self::FIELDS.d));
            s.mul(d, s.i_to_f32(s.i_load_i8(header.add(Self::FIELDS.factors_at + i * LANES).cast())))
        }
    }
}

/// `w = d * sc * code - dmin * m`, d and dmin in f16 for 256 k, sc and m in 6 bits for each block
/// (Q4_K, Q5_K). The low 4 bits of both share a byte; the high 2 bits of two blocks share another.
pub(crate) struct Super<C>(PhantomData<C>);

impl<C: Codes> Format for Super<C> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, 0, true, false, false, false>;
    const OFFSET: u32 = 0;
    const BLOCKS: usize = 8;
    const HEADER: usize = 256; // d[16], dmin[16], low[8][16], high[4][16]
    const FIELDS: Fields = Fields {
        min: Some(F16S),
        factors: Factors::SixBits,
        factors_at: 2 * F16S,
        high: 2 * F16S + 8 * LANES,
        ..Fields::scale(ScaleKind::F16)
    };
    const MIN: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, i: usize) -> S::F32s {
        // SAFETY: the first 16 f16; 16 of the 128 low and of the 64 high bytes.
        unsafe {
            let low = s.i_and(s.load_u8(header.add(Self::FIELDS.factors_at + i * LANES)), 15);
            let high = s.load_u8(header.add(Self::FIELDS.high + i / 2 * LANES));
            let high = s.i_and(s.i_shr(s.i_shl(high, 4), 4 * (i % 2) as u32), 0x30);
            s.mul(s.load_f16_le(header.add(Self::FIELDS.d)), s.i_to_f32(s.i_add(low, high)))
        }
    }

    #[inline(always)]
    unsafe fn min<S: SimdBytes>(s: S, header: *const u8, i: usize, _half: usize) -> S::F32s {
        // SAFETY: the second 16 f16; 16 of the 128 low and of the 64 high bytes.
        unsafe {
            let low = s.i_shr(s.load_u8(header.add(Self::FIELDS.factors_at + i * LANES)), 4);
            let high = s.load_u8(header.add(Self::FIELDS.high + i / 2 * LANES));
            let high = s.i_and(s.i_shr(s.i_shl(high, 2), 4 * (i % 2) as u32), 0x30);
            let m = s.i_to_f32(s.i_add(low, high));
            s.mul(s.neg(s.load_f16_le(header.add(const { Self::FIELDS.min() }))), m)
        }
    }
}

/// `w = d * sc * (code - OFFSET)`, d in f16 for 256 k, sc in i8 for each 16 k (Q6_K, Q3_K).
pub(crate) struct Halves<C, const OFFSET: u32>(PhantomData<C>);

impl<C: Codes, const OFFSET: u32> Format for Halves<C, OFFSET> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, false, true, false, false>;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 8;
    const HEADER: usize = 320; // sc[16][16], d[16], 32 zeros
    const FIELDS: Fields = Fields { d: 16 * LANES, factors: Factors::Bytes, ..Fields::scale(ScaleKind::F16) };
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::F32s {
        // SAFETY: the 16 f16.
        unsafe { s.load_f16_le(header.add(Self::FIELDS.d)) }
    }

    #[inline(always)]
    unsafe fn factor<S: SimdBytes>(s: S, header: *const u8, i: usize, half: usize) -> S::I32s {
        // SAFETY: 16 of the 256 bytes.
        unsafe { s.i_load_i8(header.add(Self::FIELDS.factors_at + (2 * i + half) * LANES).cast()) }
    }
}

/// `w = d * sc * code - dmin * m`, d and dmin in f16 for 256 k, sc and m in the low and high nibble of a byte
/// for each 16 k (Q2_K).
pub(crate) struct HalvesMin;

impl Format for HalvesMin {
    type Codes = Two;
    type Unpacked = UnpackedFormat<<Two as Codes>::Wide, 0, true, true, false, false>;
    const OFFSET: u32 = 0;
    const BLOCKS: usize = 8;
    const HEADER: usize = 320; // sc and m[16][16], d[16], dmin[16]
    const FIELDS: Fields = Fields {
        d: 16 * LANES,
        min: Some(16 * LANES + F16S),
        factors: Factors::Nibbles,
        ..Fields::scale(ScaleKind::F16)
    };
    const MIN: bool = true;
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::F32s {
        // SAFETY: the first 16 f16.
        unsafe { s.load_f16_le(header.add(Self::FIELDS.d)) }
    }

    #[inline(always)]
    unsafe fn min<S: SimdBytes>(s: S, header: *const u8, i: usize, half: usize) -> S::F32s {
        // SAFETY: 16 of the 256 bytes, and the second 16 f16.
        unsafe {
            let m = s.i_shr(s.load_u8(header.add(Self::FIELDS.factors_at + (2 * i + half) * LANES)), 4);
            s.mul(s.neg(s.load_f16_le(header.add(const { Self::FIELDS.min() }))), s.i_to_f32(m))
        }
    }

    #[inline(always)]
    unsafe fn factor<S: SimdBytes>(s: S, header: *const u8, i: usize, half: usize) -> S::I32s {
        // SAFETY: 16 of the 256 bytes.
        s.i_and(unsafe { s.load_u8(header.add(Self::FIELDS.factors_at + (2 * i + half) * LANES)) }, 15)
    }
}

/// Blocks of any format, unpacked: what the tile reads when many rows of activations share the unpacking.
pub(crate) struct UnpackedFormat<
    C,
    const OFFSET: u32,
    const MIN: bool,
    const HALVES: bool,
    const ZERO: bool,
    const HALF_SCALES: bool,
>(PhantomData<C>);

impl<
    C: Codes,
    const OFFSET: u32,
    const MIN: bool,
    const HALVES: bool,
    const ZERO: bool,
    const HALF_SCALES: bool,
> Format for UnpackedFormat<C, OFFSET, MIN, HALVES, ZERO, HALF_SCALES>
{
    type Codes = C;
    type Unpacked = Self;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 1;
    // f32 scale[1 or 2][16]; i32 factor[2][16]; f32 min[1 or 2][16]; i32 zero[16]: those that the format has.
    const HEADER: usize = unpacked_part::<Self>(4);
    // Unpacked in registers, never by the fields.
    const FIELDS: Fields = Fields::scale(ScaleKind::F32);
    const MIN: bool = MIN;
    const HALVES: bool = HALVES;
    const HALF_SCALES: bool = HALF_SCALES;
    const ZERO: bool = ZERO;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::F32s {
        // SAFETY: part 0 of the header.
        unsafe { s.load(header.cast()) }
    }

    #[inline(always)]
    unsafe fn half_scale<S: SimdBytes>(s: S, header: *const u8, _i: usize, half: usize) -> S::F32s {
        // SAFETY: part 0 of the header.
        unsafe { s.load(header.add(half * F32S).cast()) }
    }

    #[inline(always)]
    unsafe fn factor<S: SimdBytes>(s: S, header: *const u8, _i: usize, half: usize) -> S::I32s {
        // SAFETY: part 1 of the header.
        unsafe { s.i_load(header.add(unpacked_part::<Self>(1) + half * F32S).cast()) }
    }

    #[inline(always)]
    unsafe fn min<S: SimdBytes>(s: S, header: *const u8, _i: usize, half: usize) -> S::F32s {
        let half = if HALVES { half } else { 0 };
        // SAFETY: part 2 of the header.
        unsafe { s.load(header.add(unpacked_part::<Self>(2) + half * F32S).cast()) }
    }

    #[inline(always)]
    unsafe fn zero<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::I32s {
        // SAFETY: part 3 of the header.
        unsafe { s.i_load(header.add(unpacked_part::<Self>(3)).cast()) }
    }
}

/// Where part `part` of an unpacked block's header starts: 0 scales, 1 factors, 2 minimums, 3 zero points, 4
/// the end.
pub(crate) const fn unpacked_part<F: Format>(part: usize) -> usize {
    let factors = if F::HALVES && !F::HALF_SCALES { 2 } else { 0 };
    let minimums = if F::MIN { 1 + F::HALVES as usize } else { 0 };
    let parts = [1 + F::HALF_SCALES as usize, factors, minimums, F::ZERO as usize];
    let (mut start, mut i) = (0, 0);
    while i < part {
        start += parts[i] * F32S;
        i += 1;
    }
    start
}
