//! The headers of weights in groups along k: a scale, and what a code is shifted by, of each row and group.
//! The superblocks of a matrix are as long as its groups allow; a group may be several of them.

use super::quant_codes::Codes;
use super::quant_format::{Fields, Format, ScaleKind};
use super::quant_headers::{F16S, F32S, UnpackedFormat};
use crate::kernels::simd_bytes::SimdBytes;
use std::marker::PhantomData;

/// `w = d * (code - OFFSET)`, d in f32.
pub(crate) struct Group<C, const OFFSET: u32>(PhantomData<C>);

impl<C: Codes, const OFFSET: u32> Format for Group<C, OFFSET> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, false, false, false, false>;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 0;
    const HEADER: usize = F32S; // d[16]
    const FIELDS: Fields = Fields::scale(ScaleKind::F32);
    const WIDE_SCALE: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::F32s {
        // SAFETY: the 16 f32.
        unsafe { s.load_le(header.add(Self::FIELDS.d)) }
    }
}

/// `w = d * (code - zero)`, d in f32 and zero in 8 bits. The zero points are stored minus the offset, in i8.
/// `DIRECT`: [`Format::DIRECT`].
pub(crate) struct GroupZero<C, const OFFSET: u32, const DIRECT: bool>(PhantomData<C>);

impl<C: Codes, const OFFSET: u32, const DIRECT: bool> Format for GroupZero<C, OFFSET, DIRECT> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, false, false, true, false>;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 0;
    const HEADER: usize = 96; // d[16], zero[16], 16 zeros
    const FIELDS: Fields = Fields { zero: Some(F32S), ..Fields::scale(ScaleKind::F32) };
    const DIRECT: bool = DIRECT;
    const EXACT_TILES: bool = DIRECT;
    const ZERO: bool = true;
    const WIDE_SCALE: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::F32s {
        // SAFETY: the 16 f32.
        unsafe { s.load_le(header.add(Self::FIELDS.d)) }
    }

    #[inline(always)]
    unsafe fn zero<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::I32s {
        // SAFETY: the 16 bytes behind them.
        unsafe { s.i_load_i8(header.add(const { Self::FIELDS.zero() }).cast()) }
    }
}

/// `w = d * code + m`, d and m in f16 (`F16`), or in f32 where f16 does not hold them. `OFFSET`: 128 for
/// codes of 8 bits, 0 for others; it is no part of the formula. `DIRECT`: [`Format::DIRECT`].
pub(crate) struct GroupMin<C, const OFFSET: u32, const F16: bool, const DIRECT: bool>(PhantomData<C>);

impl<C: Codes, const OFFSET: u32, const F16: bool, const DIRECT: bool> GroupMin<C, OFFSET, F16, DIRECT> {
    /// Bytes of 16 numbers.
    const NUMBERS: usize = if F16 { F16S } else { F32S };

    /// 16 numbers.
    ///
    /// # Safety
    /// - `p` is valid for `NUMBERS` bytes.
    #[inline(always)]
    unsafe fn numbers<S: SimdBytes>(s: S, p: *const u8) -> S::F32s {
        // SAFETY: handed on to the caller.
        unsafe { if F16 { s.load_f16_le(p) } else { s.load_le(p) } }
    }
}

impl<C: Codes, const OFFSET: u32, const F16: bool, const DIRECT: bool> Format
    for GroupMin<C, OFFSET, F16, DIRECT>
{
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, true, false, false, false>;
    const DIRECT: bool = DIRECT;
    const EXACT_TILES: bool = false;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 0;
    const HEADER: usize = 2 * Self::NUMBERS; // d[16], m[16]
    const FIELDS: Fields = Fields {
        min: Some(Self::NUMBERS),
        ..Fields::scale(if F16 { ScaleKind::F16 } else { ScaleKind::F32 })
    };
    const MIN: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, _i: usize) -> S::F32s {
        // SAFETY: the first 16 numbers.
        unsafe { Self::numbers(s, header.add(Self::FIELDS.d)) }
    }

    #[inline(always)]
    unsafe fn min<S: SimdBytes>(s: S, header: *const u8, _i: usize, _half: usize) -> S::F32s {
        // SAFETY: the second 16 numbers.
        unsafe { Self::numbers(s, header.add(Self::NUMBERS)) }
    }
}

/// `w = d[half] * code + m[half]`, d and m in f32: groups of 16 k, two in a block.
pub(crate) struct GroupHalves<C, const OFFSET: u32>(PhantomData<C>);

impl<C: Codes, const OFFSET: u32> Format for GroupHalves<C, OFFSET> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, true, true, false, true>;
    const DIRECT: bool = false;
    const EXACT_TILES: bool = false;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 1;
    const HEADER: usize = 4 * F32S; // d[2][16], m[2][16]
    const FIELDS: Fields = Fields { min: Some(2 * F32S), ..Fields::scale(ScaleKind::F32) };
    const MIN: bool = true;
    const HALVES: bool = true;
    const HALF_SCALES: bool = true;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, _header: *const u8, _i: usize) -> S::F32s {
        s.splat(1.0)
    }

    #[inline(always)]
    unsafe fn half_scale<S: SimdBytes>(s: S, header: *const u8, _i: usize, half: usize) -> S::F32s {
        // SAFETY: 16 of the first 32 f32.
        unsafe { s.load_le(header.add(Self::FIELDS.d + half * F32S)) }
    }

    #[inline(always)]
    unsafe fn min<S: SimdBytes>(s: S, header: *const u8, _i: usize, half: usize) -> S::F32s {
        // SAFETY: 16 of the last 32 f32.
        unsafe { s.load_le(header.add(const { Self::FIELDS.min() } + half * F32S)) }
    }
}
