//! The formats of shifted entries of a codebook of -1, 0, 1: IQ1_S and IQ1_M.
//!
//! The bytes of 32 elements in [`Decoded::codes`]: the low bytes of 4 indices, then two bytes with their bits
//! 8 to 10 and the shifts, as the formats have them. Integers are `8 v + 1` or `8 v - 1`.

use super::bits::{get16, put16};
use super::block::{Codec, Decoded, ScaleKind, Values};
use super::entries_search;
use crate::kernels::codebooks::{Codebook, One};
use crate::quant::format::WeightFormat;

/// ```text
/// byte 0  1 | 2 ... 33 | 34 ... 49
///      d16  | indices  | 16 bits for each 32: 3 bits of each index, 3 bits of t, 1 bit: shifted down
/// ```
pub(super) static IQ1_S: Codec = Codec {
    sub_len: 32,
    values: Values::Entries(integers::<false>),
    quantize: entries_search::shifted::<false>,
    read: |block, out| {
        out.d = get16(block, 0);
        read_bytes(&block[2..50], out);
        for b in 0..8 {
            out.scales[b] = 2 * (block[35 + 2 * b] >> 4 & 7) as i8 + 1;
        }
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        write_bytes(decoded, &mut block[2..50]);
    },
    ..of(WeightFormat::Iq1S)
};

/// ```text
/// byte 0 ... 31 | 32 ... 47                                       | 48 ... 55
///      indices  | nibbles: 3 bits of an index, 1 bit: shifted down | 4 words of 16 bits
/// ```
/// Of a word, 12 bits are t of 4 times 16 elements and 4 bits (12 to 15) a part of d, the lowest in the
/// first.
pub(super) static IQ1_M: Codec = Codec {
    sub_len: 16,
    values: Values::Entries(integers::<true>),
    quantize: entries_search::shifted::<true>,
    read: |block, out| {
        read_bytes(&block[..48], out);
        out.d = 0;
        for s in 0..16 {
            let word = get16(block, 48 + 2 * (s / 4));
            out.scales[s] = 2 * (word >> (3 * (s % 4)) & 7) as i8 + 1;
            if s % 4 == 0 {
                out.d |= (word >> 12) << s;
            }
        }
    },
    write: |decoded, block| {
        write_bytes(decoded, &mut block[..48]);
        for w in 0..4 {
            let mut word = (decoded.d >> (4 * w) & 15) << 12;
            for s in 0..4 {
                word |= u16::from((decoded.scales[4 * w + s] as u8 >> 1) & 7) << (3 * s);
            }
            put16(block, 48 + 2 * w, word);
        }
    },
    ..of(WeightFormat::Iq1M)
};

const fn of(format: WeightFormat) -> Codec {
    Codec {
        format,
        sub_len: 32,
        scales: (1, 15),
        bits: 8,
        values: Values::Entries(integers::<false>),
        scale: ScaleKind::F16Over8,
        has_min: false,
        quantize: entries_search::shifted::<false>,
        read: |_, _| {},
        write: |_, _| {},
    }
}

/// The integers of 32 elements.
fn integers<const NIBBLES: bool>(bytes: &[u8; 32]) -> [i8; 32] {
    let rest = usize::from(get16(bytes, 4));
    let mut values = [0; 32];
    for (i, value) in values.iter_mut().enumerate() {
        let n = i / 8;
        let (high, sign) = if NIBBLES { (4 * n, 4 * n + 3) } else { (3 * n, 15) };
        let index = usize::from(bytes[n]) | (rest >> high & 7) << 8;
        *value = One::value(index, i % 8) + if rest >> sign & 1 == 1 { -1 } else { 1 };
    }
    values
}

/// 32 bytes of indices, then 2 bytes for each 32 elements.
fn read_bytes(bytes: &[u8], out: &mut Decoded) {
    for (b, codes) in out.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        codes.fill(0);
        codes[..4].copy_from_slice(&bytes[4 * b..4 * b + 4]);
        codes[4..6].copy_from_slice(&bytes[32 + 2 * b..34 + 2 * b]);
    }
}

fn write_bytes(decoded: &Decoded, bytes: &mut [u8]) {
    for (b, codes) in decoded.codes.as_chunks::<32>().0.iter().enumerate() {
        bytes[4 * b..4 * b + 4].copy_from_slice(&codes[..4]);
        bytes[32 + 2 * b..34 + 2 * b].copy_from_slice(&codes[4..6]);
    }
}
