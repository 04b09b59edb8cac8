//! Codes that are entries of codebooks (ggml's IQ1, IQ2, IQ3): how the bytes of a row lie, and how a group is
//! gathered.
//!
//! ```text
//! 32 k of 16 rows: [byte 0 of the index of entry 0, 16 rows][of entry 1] ..   32 / WIDTH entries
//!                  [signs, or the rest of the indices: a word or bytes of each row]
//! ```
//! A group of 4 k takes 16 words from L1 and up to 6 operations on 16 lanes. The loads are the bound: of
//! entries of 8 elements 64 of 64 bits for 512 weights, whose words are sorted by shuffles; of entries of 4
//! elements 128 of 32 bits. Rejected: gathers of 32 bits for both, 1.5 times the time on Zen;
//! signs spread by multiplications, 1.3 times. Products gather once, into unpacked codes, from one row of
//! activations on: that costs 8 stores and loads more, and saves three kernels a format.

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

/// The words of groups `2 p` and `2 p + 1`: an entry of 8 elements, or two of 4, whose indices have `high` in
/// their bits from 8 on.
///
/// # Safety
/// - `q` is valid for the codes of a block; `p < 4`; each index is below the entries of the codebook.
#[inline(always)]
unsafe fn entries<S: SimdBytes, B: Codebook>(
    s: S,
    q: *const u8,
    p: usize,
    high: [S::I32s; 2],
) -> [S::I32s; 2] {
    let table = B::words().as_ptr();
    // SAFETY: byte vectors of the codes; the indices are inside of the table.
    unsafe {
        if B::WIDTH == 8 {
            return s.gather_two(table, s.i_add(s.load_u8(q.add(16 * p)), s.i_shl(high[0], 8)));
        }
        let first = s.i_add(s.load_u8(q.add(32 * p)), s.i_shl(high[0], 8));
        let second = s.i_add(s.load_u8(q.add(32 * p + 16)), s.i_shl(high[1], 8));
        [s.gather(table, first), s.gather(table, second)]
    }
}

/// `OFFSET + v` becomes `OFFSET - v` where the sign is set: bit `4 g + j` of `signs` for byte j.
#[inline(always)]
fn signed<S: SimdBytes, B: Codebook>(s: S, words: S::I32s, signs: S::I32s, g: usize) -> S::Bytes {
    let words = s.bytes_signed(words, signs, g);
    // 256 - (OFFSET + v) is OFFSET - v beside a multiple of 2 OFFSET.
    s.bytes_of(if B::OFFSET == 128 {
        words
    } else {
        s.i_and(words, 0x0101_0101 * (2 * B::OFFSET as i32 - 1))
    })
}

/// Both groups of pair `p`.
#[inline(always)]
fn both_signed<S: SimdBytes, B: Codebook>(
    s: S,
    words: [S::I32s; 2],
    signs: S::I32s,
    p: usize,
) -> [S::Bytes; 2] {
    [signed::<S, B>(s, words[0], signs, 2 * p), signed::<S, B>(s, words[1], signs, 2 * p + 1)]
}

/// 0x80 where an odd number of the 4 bits is set.
const ODD: [u8; 16] = {
    let (mut odd, mut i) = ([0; 16], 0);
    while i < 16 {
        odd[i] = 128 * ((i as u32).count_ones() % 2) as u8;
        i += 1;
    }
    odd
};

/// The four times 7 bits of `word` as bytes, of which bit 7 makes the number of bits even.
#[inline(always)]
fn even_bytes<S: SimdBytes>(s: S, word: S::I32s) -> S::I32s {
    let mut seven = s.i_and(word, 0x7f);
    for p in 1..4 {
        seven = s.i_xor(seven, s.i_shl(s.i_and(word, 0x7f << (7 * p)), p));
    }
    let bytes = s.bytes_of(seven);
    let low = s.lanes_of_bytes(s.bytes_lookup(s.bytes_low_nibbles(bytes), &ODD));
    let high = s.lanes_of_bytes(s.bytes_lookup(s.bytes_high_nibbles(bytes), &ODD));
    s.i_xor(seven, s.i_xor(low, high))
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
        // SAFETY: handed on to the caller.
        unsafe { Self::two_groups(s, q, Self::shared(s, q), g / 2)[g % 2] }
    }

    /// The signs of all 32.
    #[inline(always)]
    unsafe fn shared<S: SimdBytes>(s: S, q: *const u8) -> S::I32s {
        const { assert!(cfg!(target_endian = "little"), "a big-endian tier reverses bytes here") }
        // SAFETY: 16 words behind the indices.
        even_bytes(s, unsafe { s.i_load(q.add(Self::WORDS).cast()) })
    }

    #[inline(always)]
    unsafe fn two_groups<S: SimdBytes>(s: S, q: *const u8, signs: S::I32s, p: usize) -> [S::Bytes; 2] {
        // SAFETY: 16 words behind the indices; each index has the bits of its codebook.
        unsafe {
            let mut high = s.i_splat(0);
            if HIGH {
                high = s.i_and(s.i_shr(s.i_load(q.add(Self::WORDS).cast()), 28 + p as u32), 1);
            }
            both_signed::<S, B>(s, entries::<S, B>(s, q, p, [high; 2]), signs, p)
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
        // SAFETY: handed on to the caller.
        unsafe { Self::two_groups(s, q, Self::shared(s, q), g / 2)[g % 2] }
    }

    /// The signs of all 32.
    #[inline(always)]
    unsafe fn shared<S: SimdBytes>(s: S, q: *const u8) -> S::I32s {
        const { assert!(cfg!(target_endian = "little"), "a big-endian tier reverses bytes here") }
        // SAFETY: 16 words behind the indices.
        unsafe { s.i_load(q.add(Self::WORDS).cast()) }
    }

    #[inline(always)]
    unsafe fn two_groups<S: SimdBytes>(s: S, q: *const u8, signs: S::I32s, p: usize) -> [S::Bytes; 2] {
        // Of each index; as many for each entry of the block as a byte has room for.
        let bits = B::WIDTH as u32 / 4;
        // SAFETY: 16 bytes behind the words of signs; each index has the bits of its codebook.
        unsafe {
            let rest = s.load_u8(q.add(Self::WORDS + 64));
            let mut high = [s.i_splat(0); 2];
            for i in 0..2 {
                let n = (8 * p + 4 * i) / B::WIDTH;
                high[i] = s.i_and(s.i_shr(rest, bits * n as u32), (1 << bits) - 1);
            }
            both_signed::<S, B>(s, entries::<S, B>(s, q, p, high), signs, p)
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

    /// Adds the shift: 1, or -1 where bit 0 of `sign` is set.
    #[inline(always)]
    fn shifted<S: SimdBytes>(s: S, words: S::I32s, sign: S::I32s) -> S::I32s {
        let minus = s.i_mul(s.i_and(sign, 1), s.i_splat(0x0202_0202));
        s.i_sub(s.i_add(words, s.i_splat(0x0101_0101)), minus)
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
        // SAFETY: handed on to the caller.
        unsafe { Self::two_groups(s, q, Self::shared(s, q), g / 2)[g % 2] }
    }

    /// The two bytes.
    #[inline(always)]
    unsafe fn shared<S: SimdBytes>(s: S, q: *const u8) -> S::I32s {
        // SAFETY: handed on to the caller.
        unsafe { Self::bytes(s, q) }
    }

    #[inline(always)]
    unsafe fn two_groups<S: SimdBytes>(s: S, q: *const u8, bytes: S::I32s, p: usize) -> [S::Bytes; 2] {
        let n = p as u32;
        let (high, sign) = if NIBBLES { (4 * n, 4 * n + 3) } else { (3 * n, 15) };
        let high = s.i_and(s.i_shr(bytes, high), 7);
        // SAFETY: handed on to the caller; the index has 11 bits.
        let words = unsafe { entries::<S, super::codebooks::One>(s, q, p, [high; 2]) };
        let sign = s.i_shr(bytes, sign);
        [s.bytes_of(Self::shifted(s, words[0], sign)), s.bytes_of(Self::shifted(s, words[1], sign))]
    }
}
