//! Codes that are entries of codebooks (ggml's IQ1, IQ2, IQ3): how the bytes of a row lie, and how a group is
//! gathered.
//!
//! ```text
//! 32 k of 16 rows: [byte 0 of the index of entry 0, 16 rows][of entry 1] ..   32 / WIDTH entries
//!                  [signs, or the rest of the indices: a word or bytes of each row]
//! ```
//! A group of 4 k takes one gather of 16 words from L1 and up to 8 operations on 16 lanes. That is the bound:
//! 8 gathers for 512 weights, of 16 loads each. Rejected: entries of 64 bits, half as many loads, whose words
//! then have to be sorted into rows and k: as many shuffles as loads saved. Products gather once, into
//! unpacked codes, from one row of activations on: that costs 8 stores and loads more, and saves three
//! kernels a format.

use super::codebooks::Codebook;
use super::quant_codes::{Codes, Plane, Strand};
use crate::kernels::simd_bytes::SimdBytes;
use std::marker::PhantomData;

const fn strand(start: usize, bytes: usize) -> Strand {
    Strand { start, bytes }
}

/// The first bytes of the indices of 4 or 8 entries.
const fn indices<const N: usize, const ALL: usize>(rest: [Strand; N]) -> [Strand; ALL] {
    let (mut all, mut i) = ([strand(0, 1); ALL], 0);
    while i < ALL {
        all[i] = if i < ALL - N { strand(16 * i, 1) } else { rest[i - (ALL - N)] };
        i += 1;
    }
    all
}

/// The words of group `g`, from the low byte of the index and what `high` holds of it (its bit 8 and up).
///
/// # Safety
/// - `q` is valid for the codes of a block; `g < 8`; the index is below the entries of the codebook.
#[inline(always)]
unsafe fn entry<S: SimdBytes, B: Codebook>(s: S, q: *const u8, g: usize, high: S::I32s) -> S::I32s {
    let (n, word) = (4 * g / B::WIDTH, 4 * g % B::WIDTH / 4);
    // SAFETY: byte vector n of the codes; the index is inside of the table.
    unsafe {
        let at = s.i_add(s.load_u8(q.add(16 * n)), s.i_shl(high, 8));
        s.gather(B::words().as_ptr().add(word), B::WIDTH / 4, at)
    }
}

/// `OFFSET + v` becomes `OFFSET - v` where the sign (bits 0 to 3, a bit a byte) is set.
///
/// Bits `b - 1` and below of `OFFSET - 1 + v`, inverted, are `2 OFFSET - 1 - (OFFSET - 1 + v)`.
#[inline(always)]
fn signed<S: SimdBytes, B: Codebook>(s: S, words: S::I32s, signs: S::I32s) -> S::I32s {
    // A bit to each byte: copies 7 bits apart do not meet.
    let ones = s.i_and(s.i_mul(signs, s.i_splat(0x0020_4081)), 0x0101_0101);
    let mask = s.i_sub(s.i_shl(ones, B::OFFSET.trailing_zeros() + 1), ones);
    s.i_xor(s.i_sub(words, ones), mask)
}

/// Bits 0, 7, 14 and 21: whether an odd number of the 7 bits from there on is set.
#[inline(always)]
fn parities<S: SimdBytes>(s: S, signs: S::I32s) -> S::I32s {
    let two = s.i_xor(signs, s.i_shr(signs, 1));
    let four = s.i_xor(two, s.i_shr(two, 2));
    s.i_xor(four, s.i_xor(s.i_shr(two, 4), s.i_shr(signs, 6)))
}

/// Magnitudes with 7 signs for 8 of them, the last so that an even number is set; the word of a row has the
/// signs in bits 0 to 27. Bits 28 to 31 are bit 8 of each index where `HIGH`, else no part of the codes.
pub(crate) struct SevenSigns<B, const HIGH: bool>(PhantomData<B>);

const SEVEN_8: [Strand; 5] = indices([strand(64, 4)]);
const SEVEN_4: [Strand; 9] = indices([strand(128, 4)]);

impl<B: Codebook, const HIGH: bool> SevenSigns<B, HIGH> {
    /// The byte where the words start.
    pub(super) const WORDS: usize = 16 * (32 / B::WIDTH);
}

impl<B: Codebook, const HIGH: bool> Codes for SevenSigns<B, HIGH> {
    const PLANES: &'static [Plane] = &[];
    const STRANDS: &'static [Strand] = if B::WIDTH == 8 { &SEVEN_8 } else { &SEVEN_4 };
    const BYTES: usize = Self::WORDS + 64;
    const BITS: u32 = <B::Wide as Codes>::BITS;
    type Wide = B::Wide;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        const { assert!(cfg!(target_endian = "little"), "a big-endian tier reverses bytes here") }
        // SAFETY: 16 words behind the indices; each index has the bits of its codebook.
        unsafe {
            let word = s.i_load(q.add(Self::WORDS).cast());
            let high = if HIGH { s.i_and(s.i_shr(word, 28 + g as u32 / 2), 1) } else { s.i_splat(0) };
            let from = 7 * (g as u32 / 2);
            let signs = if g.is_multiple_of(2) {
                s.i_and(s.i_shr(word, from), 15)
            } else {
                let last = s.i_and(s.i_shr(parities(s, word), from), 1);
                s.i_add(s.i_and(s.i_shr(word, from + 4), 7), s.i_shl(last, 3))
            };
            s.bytes_of(signed::<S, B>(s, entry::<S, B>(s, q, g, high), signs))
        }
    }
}

/// Magnitudes with a sign each: a word of signs for each row, then a byte with the bits of the indices from
/// bit 8 on, as many for each entry.
pub(crate) struct EightSigns<B>(PhantomData<B>);

const EIGHT_8: [Strand; 6] = indices([strand(64, 4), strand(128, 1)]);
const EIGHT_4: [Strand; 10] = indices([strand(128, 4), strand(192, 1)]);

impl<B: Codebook> EightSigns<B> {
    const WORDS: usize = 16 * (32 / B::WIDTH);
}

impl<B: Codebook> Codes for EightSigns<B> {
    const PLANES: &'static [Plane] = &[];
    const STRANDS: &'static [Strand] = if B::WIDTH == 8 { &EIGHT_8 } else { &EIGHT_4 };
    const BYTES: usize = Self::WORDS + 64 + 16;
    const BITS: u32 = <B::Wide as Codes>::BITS;
    type Wide = B::Wide;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        const { assert!(cfg!(target_endian = "little"), "a big-endian tier reverses bytes here") }
        let (entries, n) = (32 / B::WIDTH, 4 * g / B::WIDTH);
        let bits = 8 / entries as u32;
        // SAFETY: 16 words behind the indices and 16 bytes behind these; each index has the bits of its
        // codebook.
        unsafe {
            let high = s.i_shr(s.load_u8(q.add(Self::WORDS + 64)), bits * n as u32);
            let signs = s.i_shr(s.i_load(q.add(Self::WORDS).cast()), 4 * g as u32);
            let words = entry::<S, B>(s, q, g, s.i_and(high, (1 << bits) - 1));
            s.bytes_of(signed::<S, B>(s, words, s.i_and(signs, 15)))
        }
    }
}

/// Elements of -1, 0, 1 times 8, and a shift by 1 or -1, in two bytes of each row: bits 3n to 3n + 2 are
/// those of index n from bit 8 on, and the last bit is the sign of the shift (IQ1_S); or the same in nibbles,
/// a shift for each index, where `NIBBLES` (IQ1_M).
pub(crate) struct Shifted<const NIBBLES: bool>;

const SHIFTED: [Strand; 6] = indices([strand(64, 1), strand(80, 1)]);

impl<const NIBBLES: bool> Shifted<NIBBLES> {
    /// The two bytes of block `q`.
    ///
    /// # Safety
    /// - `q` is valid for the codes of a block.
    #[inline(always)]
    pub(super) unsafe fn bytes<S: SimdBytes>(s: S, q: *const u8) -> S::I32s {
        // SAFETY: 32 bytes behind the four indices.
        unsafe { s.i_add(s.load_u8(q.add(64)), s.i_shl(s.load_u8(q.add(80)), 8)) }
    }
}

impl<const NIBBLES: bool> Codes for Shifted<NIBBLES> {
    const PLANES: &'static [Plane] = &[];
    const STRANDS: &'static [Strand] = &SHIFTED;
    const BYTES: usize = 96;
    const BITS: u32 = 5;
    type Wide = <super::codebooks::One as Codebook>::Wide;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: handed on to the caller; the index has 11 bits.
        unsafe {
            let (bytes, n) = (Self::bytes(s, q), g as u32 / 2);
            let (high, sign) = if NIBBLES { (4 * n, 4 * n + 3) } else { (3 * n, 15) };
            let high = s.i_and(s.i_shr(bytes, high), 7);
            let words = entry::<S, super::codebooks::One>(s, q, g, high);
            let minus = s.i_mul(s.i_and(s.i_shr(bytes, sign), 1), s.i_splat(0x0202_0202));
            s.bytes_of(s.i_sub(s.i_add(words, s.i_splat(0x0101_0101)), minus))
        }
    }
}
