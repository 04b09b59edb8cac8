//! A packed format: which codes it uses, and which scales of 16 rows its headers hold.
//!
//! A row panel (NR = 16 weight rows) is a sequence of superblocks: a header, then the codes of
//! [`Format::BLOCKS`] blocks of 32 k that share it. A weight is `scale * (code - OFFSET)`, plus the minimum
//! where the format has one.

use super::quant_codes::Codes;
use crate::kernels::simd_bytes::SimdBytes;

/// How the scale d of a row is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScaleKind {
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
    /// 8 bits e, which stand for `2^(e - 128)`.
    E8m0,
    /// None: the factors are scales.
    Factors,
}

/// How the integer factors of d and dmin are stored: for each block, or for each half of a block, in vectors
/// of 16 bytes, one byte a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Factors {
    /// d (and the minimum) are those of each block.
    None,
    /// i8, of d; or scales of 8 bits.
    Bytes,
    /// `2 t + 1`, of d: t of two of them in a byte, of the first in the low nibble.
    Odd,
    /// Of d in the low nibble, of dmin in the high one.
    Nibbles,
    /// The low 4 bits of both as `Nibbles`; the high 2 bits of both of two blocks share a byte of
    /// `Fields::high`.
    SixBits,
}

/// The numbers of a superblock's header: of each the byte where that of row 0 (and block 0) starts; those of
/// the other rows follow, then those of the next block. What reads and what writes headers both go by it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    pub scale: ScaleKind,
    pub d: usize,
    /// f16: `m`, which is added, where there are no factors, and `dmin`, whose products are subtracted.
    pub min: Option<usize>,
    pub factors: Factors,
    pub factors_at: usize,
    pub high: usize,
    /// i8: the zero point minus the offset.
    pub zero: Option<usize>,
}

impl Fields {
    /// A scale d at the start, and nothing else.
    pub(super) const fn scale(scale: ScaleKind) -> Fields {
        Fields { scale, d: 0, min: None, factors: Factors::None, factors_at: 0, high: 0, zero: None }
    }

    /// Where the minimums start.
    pub(super) const fn min(&self) -> usize {
        self.min.expect("a format with a minimum")
    }

    /// Where the zero points start.
    pub(super) const fn zero(&self) -> usize {
        self.zero.expect("a format with zero points")
    }
}

/// A packed format.
pub(crate) trait Format {
    type Codes: Codes;
    /// The same format, unpacked.
    type Unpacked: Format;
    /// Whether there are products with int8 activations.
    const INT8: bool = true;
    /// Whether these have kernels on packed weights; else weights are unpacked before any of them, from one
    /// row on. Kernels of a format are 50 KB in a tier of x86-64.
    const DIRECT: bool = Self::Codes::STRANDS.is_empty();
    /// Whether products of few rows with f32 activations have tiles of their own; else weights are widened
    /// first, which takes a pass over L1 more. A tile for each number of rows is 15 KB in a tier of x86-64.
    const EXACT_TILES: bool = true;
    /// The code that stands for zero: a power of two, or 0. 128 for codes of 8 bits, with a minimum too.
    const OFFSET: u32;
    /// Blocks of 32 k in a superblock: a power of two, or 0 where each matrix has its own number.
    const BLOCKS: usize;
    /// Bytes of a superblock's header.
    const HEADER: usize;
    /// What the header holds.
    const FIELDS: Fields;
    /// Whether [`Format::min`] is added to each weight.
    const MIN: bool = false;
    /// Whether the two halves of a block (16 k each) have integer factors of their own.
    const HALVES: bool = false;
    /// Whether the factors of the halves are f32 scales ([`Format::half_scale`]), each with its own step of
    /// the chain; else they are integers, and join the halves before the scale.
    const HALF_SCALES: bool = false;
    /// Whether each row has a zero point of its own ([`Format::zero`]) beside the offset.
    const ZERO: bool = false;
    /// Whether `OFFSET * scale` can exceed f32, or the product of a scale and a code has more bits than an
    /// f32.
    const WIDE_SCALE: bool = false;

    /// The scales of block `i` of a superblock; the half factors are not in it.
    ///
    /// # Safety
    /// - `header` is valid for a superblock; `i < BLOCKS`.
    unsafe fn scale<S: SimdBytes>(s: S, header: *const u8, i: usize) -> S::F32s;

    /// What is added to each weight of half `half` of block `i` (a negative number, mostly).
    ///
    /// # Safety
    /// - as [`Format::scale`]; `half < 2`.
    #[inline(always)]
    unsafe fn min<S: SimdBytes>(s: S, _header: *const u8, _i: usize, _half: usize) -> S::F32s {
        s.splat(0.0)
    }

    /// The factors of half `half` of block `i`, within +-128.
    ///
    /// # Safety
    /// - as [`Format::min`].
    #[inline(always)]
    unsafe fn factor<S: SimdBytes>(s: S, _header: *const u8, _i: usize, _half: usize) -> S::I32s {
        s.i_splat(1)
    }

    /// The scales of half `half` of block `i`, its factors included.
    ///
    /// # Safety
    /// - as [`Format::min`].
    #[inline(always)]
    unsafe fn half_scale<S: SimdBytes>(s: S, header: *const u8, i: usize, half: usize) -> S::F32s {
        // SAFETY: handed on to the caller.
        unsafe {
            let scale = Self::scale(s, header, i);
            if Self::HALVES { s.mul(scale, s.i_to_f32(Self::factor(s, header, i, half))) } else { scale }
        }
    }

    /// The zero points of block `i` minus the offset: a weight is `scale * (code - OFFSET - zero)`.
    ///
    /// # Safety
    /// - as [`Format::scale`].
    #[inline(always)]
    unsafe fn zero<S: SimdBytes>(s: S, _header: *const u8, _i: usize) -> S::I32s {
        s.i_splat(0)
    }
}

/// The superblock of block `b` and its place in it.
#[inline(always)]
pub(crate) fn place<F: Format>(b: usize, superblock_shift: u32) -> (usize, usize) {
    match F::BLOCKS {
        0 => (b >> superblock_shift, b & ((1 << superblock_shift) - 1)),
        blocks => (b / blocks, b % blocks),
    }
}

/// Bytes of a superblock.
#[inline(always)]
pub(crate) fn superblock_bytes<F: Format>(superblock_shift: u32) -> usize {
    match F::BLOCKS {
        0 => F::HEADER + (F::Codes::BYTES << superblock_shift),
        blocks => F::HEADER + blocks * F::Codes::BYTES,
    }
}
