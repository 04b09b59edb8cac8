//! The headers of the formats with codebooks: a scale d in f16 for 256 k, and odd integers `2 t + 1` for each
//! 16 or 32 of them, t of 3 or 4 bits. A weight is `d / 2^SHIFT * (2 t + 1) * value`.

use super::LANES;
use super::codebooks::Codebook;
use super::quant_codes::Codes;
use super::quant_entries::{SevenSigns, Shifted};
use super::quant_format::{Factors, Fields, Format, ScaleKind};
use super::quant_headers::UnpackedFormat;
use crate::kernels::simd_bytes::SimdBytes;
use std::marker::PhantomData;

/// Bytes of 16 f16.
const F16S: usize = 32;

/// `d / 2^SHIFT`.
///
/// # Safety
/// - `header` is valid for 32 bytes.
#[inline(always)]
unsafe fn scale<S: SimdBytes, const SHIFT: u32>(s: S, header: *const u8) -> S::F32s {
    // SAFETY: the 16 f16.
    s.mul(unsafe { s.load_f16_le(header) }, s.splat(1.0 / (1u32 << SHIFT) as f32))
}

/// `2 t + 1`.
#[inline(always)]
fn odd<S: SimdBytes>(s: S, t: S::I32s) -> S::I32s {
    s.i_add(s.i_shl(t, 1), s.i_splat(1))
}

/// Codes that hold the t of their 32 k.
pub(crate) trait WithScale: Codes {
    /// t of a block.
    /// # Safety
    /// - `q` is valid for the codes of a block.
    unsafe fn t<S: SimdBytes>(s: S, q: *const u8) -> S::I32s;
}

impl<B: Codebook> WithScale for SevenSigns<B, false> {
    #[inline(always)]
    unsafe fn t<S: SimdBytes>(s: S, q: *const u8) -> S::I32s {
        // SAFETY: the words of the codes.
        s.i_shr(unsafe { s.i_load(q.add(Self::WORDS).cast()) }, 28)
    }
}

impl WithScale for Shifted<false> {
    #[inline(always)]
    unsafe fn t<S: SimdBytes>(s: S, q: *const u8) -> S::I32s {
        // SAFETY: handed on to the caller.
        s.i_and(s.i_shr(unsafe { Self::bytes(s, q) }, 12), 7)
    }
}

/// t is part of the codes (IQ1_S, IQ2_XXS, IQ3_XXS).
pub(crate) struct InCodes<C, const OFFSET: u32, const SHIFT: u32>(PhantomData<C>);

impl<C: WithScale, const OFFSET: u32, const SHIFT: u32> Format for InCodes<C, OFFSET, SHIFT> {
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, false, false, false, false>;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 8;
    const HEADER: usize = F16S; // d[16]
    const EXACT_TILES: bool = false;
    const FIELDS: Fields = Fields::scale(ScaleKind::F16);

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, i: usize) -> S::F32s {
        // SAFETY: the 16 f16, and the codes of block i behind the header.
        unsafe {
            let t = C::t(s, header.add(Self::HEADER + i * C::BYTES));
            s.mul(scale::<S, SHIFT>(s, header), s.i_to_f32(odd(s, t)))
        }
    }
}

/// t of two blocks, or of the two halves of a block, share a byte; of the first the low nibble. `HALVES`:
/// whether t is that of 16 k (IQ1_M, IQ2_XS, IQ2_S) or of 32 (IQ3_S).
pub(crate) struct Odd<C, const OFFSET: u32, const SHIFT: u32, const HALVES: bool>(PhantomData<C>);

impl<C: Codes, const OFFSET: u32, const SHIFT: u32, const HALVES: bool> Format
    for Odd<C, OFFSET, SHIFT, HALVES>
{
    type Codes = C;
    type Unpacked = UnpackedFormat<C::Wide, OFFSET, false, HALVES, false, false>;
    const OFFSET: u32 = OFFSET;
    const BLOCKS: usize = 8;
    const HEADER: usize = F16S + LANES * if HALVES { 8 } else { 4 }; // d[16], t[8 or 4][16]
    const EXACT_TILES: bool = false;
    const FIELDS: Fields =
        Fields { factors: Factors::Odd, factors_at: F16S, ..Fields::scale(ScaleKind::F16) };
    const HALVES: bool = HALVES;

    #[inline(always)]
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, i: usize) -> S::F32s {
        // SAFETY: the 16 f16, and 16 of the 64 bytes behind them.
        unsafe {
            let d = scale::<S, SHIFT>(s, header);
            if HALVES {
                return d;
            }
            let t = s.i_shr(s.load_u8(header.add(F16S + i / 2 * LANES)), 4 * (i % 2) as u32);
            s.mul(d, s.i_to_f32(odd(s, s.i_and(t, 15))))
        }
    }

    #[inline(always)]
    unsafe fn factor<S: SimdBytes>(s: S, header: *const u8, i: usize, half: usize) -> S::I32s {
        // SAFETY: 16 of the 128 bytes.
        let t = s.i_shr(unsafe { s.load_u8(header.add(F16S + i * LANES)) }, 4 * half as u32);
        odd(s, s.i_and(t, 15))
    }
}
