//! The formats of signed entries of codebooks: IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
//!
//! The bytes of 32 elements in [`Decoded::codes`]: the low bytes of the indices of 4 or 8 entries, a word of
//! signs, and in IQ2_S and IQ3_S a byte with the rest of the indices, as many bits for each.

use super::bits::{get16, put16};
use super::block::{Codec, Decoded, ScaleKind, Values};
use super::entries_search;
use crate::kernels::codebooks::{Codebook, ThreeS, ThreeXxs, TwoS, TwoXs, TwoXxs};
use crate::quant::format::WeightFormat;

/// ```text
/// byte 0  1 | 2 ............ 65
///      d16  | 8 bytes for each 32: 4 indices, then a word: 4 times 7 signs, t in bits 28 to 31
/// ```
/// The sign of the eighth element of an entry is set where an odd number of the seven is.
pub(super) static IQ2_XXS: Codec = Codec {
    read: |block, out| in_words::<8>(&block[2..66], get16(block, 0), out),
    write: |decoded, block| put_words::<8>(decoded, block),
    ..of::<TwoXxs, 0>(WeightFormat::Iq2Xxs, 32, ScaleKind::F16Over8)
};

/// ```text
/// byte 0  1 | 2 ............ 65                                     | 66 ... 73
///      d16  | 4 words of 16 bits for each 32: index of 9 bits, 7 signs | t of each 16, low nibble first
/// ```
/// Bits 28 to 31 of the word of signs in [`Decoded`] are bit 8 of the indices.
pub(super) static IQ2_XS: Codec = Codec {
    read: |block, out| {
        out.d = get16(block, 0);
        for b in 0..8 {
            let (codes, mut word) = (&mut out.codes[32 * b..32 * (b + 1)], 0);
            codes.fill(0);
            for (n, code) in codes[..4].iter_mut().enumerate() {
                let both = get16(block, 2 + 2 * (4 * b + n));
                *code = both as u8;
                word |= u32::from(both >> 9) << (7 * n) | u32::from(both >> 8 & 1) << (28 + n);
            }
            codes[4..8].copy_from_slice(&word.to_le_bytes());
        }
        odd_scales(&block[66..74], 16, out);
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        for b in 0..8 {
            let codes = &decoded.codes[32 * b..32 * (b + 1)];
            let word = word_at(codes, 4);
            for (n, &code) in codes[..4].iter().enumerate() {
                let high = word >> (28 + n) & 1 | (word >> (7 * n) & 127) << 1;
                put16(block, 2 + 2 * (4 * b + n), u16::from(code) | (high as u16) << 8);
            }
        }
        put_odd_scales(decoded, &mut block[66..74]);
    },
    ..of::<TwoXs, 1>(WeightFormat::Iq2Xs, 16, ScaleKind::F16Over8)
};

/// ```text
/// byte 0  1 | 2 ... 33 | 34 ... 65 | 66 .. 73 | 74 .. 81
///      d16  | indices  | signs     | high     | t as in IQ2_XS
/// ```
/// Bits `2 n` of byte b of `high` are bits 8 and 9 of index n of the 32.
pub(super) static IQ2_S: Codec = Codec {
    read: |block, out| {
        out.d = get16(block, 0);
        in_parts::<4>(&block[2..34], &block[34..66], &block[66..74], out);
        odd_scales(&block[74..82], 16, out);
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        let (indices, rest) = block[2..82].split_at_mut(32);
        let (signs, rest) = rest.split_at_mut(32);
        let (high, t) = rest.split_at_mut(8);
        put_parts::<4>(decoded, indices, signs, high);
        put_odd_scales(decoded, t);
    },
    ..of::<TwoS, 2>(WeightFormat::Iq2S, 16, ScaleKind::F16Over8)
};

/// ```text
/// byte 0  1 | 2 ... 65 | 66 ... 97
///      d16  | indices  | a word for each 32, as in IQ2_XXS
/// ```
pub(super) static IQ3_XXS: Codec = Codec {
    read: |block, out| {
        let mut bytes = [0; 96];
        for b in 0..8 {
            bytes[12 * b..12 * b + 8].copy_from_slice(&block[2 + 8 * b..10 + 8 * b]);
            bytes[12 * b + 8..12 * b + 12].copy_from_slice(&block[66 + 4 * b..70 + 4 * b]);
        }
        in_words::<12>(&bytes, get16(block, 0), out);
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        for b in 0..8 {
            block[2 + 8 * b..10 + 8 * b].copy_from_slice(&decoded.codes[32 * b..32 * b + 8]);
            block[66 + 4 * b..70 + 4 * b].copy_from_slice(&decoded.codes[32 * b + 8..32 * b + 12]);
        }
    },
    ..of::<ThreeXxs, 0>(WeightFormat::Iq3Xxs, 32, ScaleKind::F16Over4)
};

/// ```text
/// byte 0  1 | 2 ... 65 | 66 .. 73 | 74 ... 105 | 106 .. 109
///      d16  | indices  | high     | signs      | t of each 32, low nibble first
/// ```
/// Bit n of byte b of `high` is bit 8 of index n of the 32.
pub(super) static IQ3_S: Codec = Codec {
    read: |block, out| {
        out.d = get16(block, 0);
        in_parts::<8>(&block[2..66], &block[74..106], &block[66..74], out);
        odd_scales(&block[106..110], 8, out);
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        let (indices, rest) = block[2..110].split_at_mut(64);
        let (high, rest) = rest.split_at_mut(8);
        let (signs, t) = rest.split_at_mut(32);
        put_parts::<8>(decoded, indices, signs, high);
        put_odd_scales(decoded, t);
    },
    ..of::<ThreeS, 2>(WeightFormat::Iq3S, 32, ScaleKind::F16)
};

/// How the bits of an index beyond 8 lie: `HIGH` 0 there are none, 1 in the word of signs, 2 in the last
/// byte; the signs are 7 for 8 elements where it is below 2.
const fn of<B: Codebook, const HIGH: u8>(format: WeightFormat, sub_len: usize, scale: ScaleKind) -> Codec {
    Codec {
        format,
        sub_len,
        scales: (1, 31),
        bits: 8,
        values: Values::Entries(integers::<B, HIGH>),
        scale,
        has_min: false,
        quantize: entries_search::signed::<B, HIGH>,
        read: |_, _| {},
        write: |_, _| {},
    }
}

/// The word at byte `at`.
pub(super) fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The integers of 32 elements.
fn integers<B: Codebook, const HIGH: u8>(bytes: &[u8; 32]) -> [i8; 32] {
    let entries = 32 / B::WIDTH;
    let word = word_at(bytes, entries);
    let mut values = [0; 32];
    for (i, value) in values.iter_mut().enumerate() {
        let n = i / B::WIDTH;
        let bits = 8 / entries;
        let high = match HIGH {
            0 => 0,
            1 => word as usize >> (28 + n) & 1,
            _ => usize::from(bytes[entries + 4]) >> (bits * n) & ((1 << bits) - 1),
        };
        let sign = match HIGH {
            2 => word >> i & 1,
            _ if i % 8 == 7 => (word >> (7 * (i / 8)) & 127).count_ones() & 1,
            _ => word >> (7 * (i / 8) + i % 8) & 1,
        };
        let magnitude = B::value(usize::from(bytes[n]) | high << 8, i % B::WIDTH);
        *value = if sign == 1 { -magnitude } else { magnitude };
    }
    values
}

/// Reads `N` bytes for each 32 elements, the last four a word with t in its upper bits.
fn in_words<const N: usize>(bytes: &[u8], d: u16, out: &mut Decoded) {
    out.d = d;
    for (b, bytes) in bytes.as_chunks::<N>().0.iter().enumerate() {
        out.codes[32 * b..32 * (b + 1)].fill(0);
        out.codes[32 * b..32 * b + N].copy_from_slice(bytes);
        out.scales[b] = 2 * (bytes[N - 1] >> 4) as i8 + 1;
    }
}

fn put_words<const N: usize>(decoded: &Decoded, block: &mut [u8]) {
    put16(block, 0, decoded.d);
    for b in 0..8 {
        block[2 + N * b..2 + N * (b + 1)].copy_from_slice(&decoded.codes[32 * b..32 * b + N]);
    }
}

/// Reads `ENTRIES` indices, a word of signs and a byte for each 32 elements.
fn in_parts<const ENTRIES: usize>(indices: &[u8], signs: &[u8], high: &[u8], out: &mut Decoded) {
    for (b, codes) in out.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        codes.fill(0);
        codes[..ENTRIES].copy_from_slice(&indices[ENTRIES * b..ENTRIES * (b + 1)]);
        codes[ENTRIES..ENTRIES + 4].copy_from_slice(&signs[4 * b..4 * b + 4]);
        codes[ENTRIES + 4] = high[b];
    }
}

fn put_parts<const ENTRIES: usize>(decoded: &Decoded, indices: &mut [u8], signs: &mut [u8], high: &mut [u8]) {
    for (b, codes) in decoded.codes.as_chunks::<32>().0.iter().enumerate() {
        indices[ENTRIES * b..ENTRIES * (b + 1)].copy_from_slice(&codes[..ENTRIES]);
        signs[4 * b..4 * b + 4].copy_from_slice(&codes[ENTRIES..ENTRIES + 4]);
        high[b] = codes[ENTRIES + 4];
    }
}

/// Reads t of the sub-blocks, two in a byte.
pub(super) fn odd_scales(bytes: &[u8], subs: usize, out: &mut Decoded) {
    for s in 0..subs {
        out.scales[s] = 2 * (bytes[s / 2] >> (4 * (s % 2)) & 15) as i8 + 1;
    }
}

fn put_odd_scales(decoded: &Decoded, bytes: &mut [u8]) {
    for (s, byte) in bytes.iter_mut().enumerate() {
        let t = |s: usize| (decoded.scales[s] as u8 >> 1) & 15;
        *byte = t(2 * s) | t(2 * s + 1) << 4;
    }
}
