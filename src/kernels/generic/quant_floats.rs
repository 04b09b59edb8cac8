//! Weights that are floats of 8 bits with a scale. They have products with f32 activations only: their codes
//! are no integers that a dot product could take.

use super::LANES;
use super::quant_codes::{Codes, Float8Shape, Plane, Wide};
use super::quant_format::{Fields, Format, ScaleKind};
use super::quant_headers::{F32S, UnpackedFormat};
use crate::kernels::simd_bytes::SimdBytes;
use std::marker::PhantomData;

/// A float of 8 bits.
pub(crate) trait Float8 {
    const SHAPE: Float8Shape;
}

/// OCP E4M3: 4 bits of exponent, 448 at most, no infinity.
pub(crate) struct E4m3;

impl Float8 for E4m3 {
    const SHAPE: Float8Shape = Float8Shape { mantissa: 3, bias: 7, not_finite: 0x7f };
}

/// OCP E5M2: the upper half of an f16.
pub(crate) struct E5m2;

impl Float8 for E5m2 {
    const SHAPE: Float8Shape = Float8Shape { mantissa: 2, bias: 15, not_finite: 0x7c };
}

/// Codes that are finite floats of 8 bits, and stand for `2^SHIFT` times their values.
pub(crate) struct Floats<K, const SHIFT: u32>(PhantomData<K>);

impl<K: Float8, const SHIFT: u32> Codes for Floats<K, SHIFT> {
    const PLANES: &'static [Plane] = Wide::<8>::PLANES;
    const BYTES: usize = Wide::<8>::BYTES;
    const BITS: u32 = 8;
    const FLOAT8: Option<Float8Shape> = Some(K::SHAPE);
    type Wide = Wide<8>;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: handed on to the caller.
        unsafe { Wide::<8>::group(s, q, g) }
    }

    /// The bits of the code as those of an f32, whose exponent has another bias: subnormal numbers of 8 bits
    /// are subnormal in f32 too, so that one exact product sets all of them right. Rejected: f16 in between,
    /// whose conversion takes one instruction more in every tier.
    #[inline(always)]
    fn value<S: SimdBytes>(s: S, codes: S::Bytes, j: u32) -> S::F32s {
        let Float8Shape { mantissa, bias, .. } = K::SHAPE;
        let top = s.i_shl(s.lanes_of_bytes(codes), 24 - 8 * j);
        let moved = s.i_shr_signed(top, 1 + mantissa);
        let bits = s.i_and(moved, (1u32 << 31 | 0x7f << (23 - mantissa)) as i32);
        s.mul(s.of_bits(bits), s.splat(f32::from_bits((254 - bias + SHIFT) << 23)))
    }
}

/// `w = d * value(code)`, d in f32 for the superblock.
pub(crate) struct FloatGroup<K>(PhantomData<K>);

impl<K: Float8> Format for FloatGroup<K> {
    type Codes = Floats<K, 0>;
    type Unpacked = UnpackedFormat<Wide<8>, 0, false, false, false, false>;
    const INT8: bool = false;
    const OFFSET: u32 = 0;
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

/// `w = 2^(e - 127) * value(code)`, e in 8 bits for each block, NaN where e = 255; superblocks of 4 blocks
/// (MXFP8).
pub(crate) struct FloatMx<K>(PhantomData<K>);

impl<K: Float8> Format for FloatMx<K> {
    // The scales that are loaded are half of it.
    type Codes = Floats<K, 1>;
    type Unpacked = UnpackedFormat<Wide<8>, 0, false, false, false, false>;
    const INT8: bool = false;
    const OFFSET: u32 = 0;
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
