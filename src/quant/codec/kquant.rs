//! The formats of 256 elements with scales of sub-blocks: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
//!
//! Planes of bits share an order: element `128h + 32j + l` (h of 2, j of 4, l of 32) is found in row `h` of
//! a plane at column `l`, at a place in the byte that j picks.

use super::bits::{get16, nibbles, put_nibbles, put16};
use super::block::{Codec, ScaleKind, Values};
use super::search;
use crate::quant::format::WeightFormat;

const LEN: usize = 256;

/// What is added to a scale of Q3_K to make it unsigned.
const Q3_BIAS: i8 = 32;

/// ```text
/// byte 0 .. 15 | 16 ..... 79 | 80 81 | 82 83
///      scales  | qs          | d16   | dmin16
/// ```
/// Low nibble of `scales[s]`: scale of the s-th 16 elements, high nibble: its min. `qs` is a plane of 2 bits.
pub(super) static Q2K: Codec = Codec {
    format: WeightFormat::Q2K,
    sub_len: 16,
    scales: (0, 15),
    bits: 2,
    values: Values::Linear { zero: 0 },
    scale: ScaleKind::F16,
    has_min: true,
    quantize: search::with_minima,
    read: |block, out| {
        for (s, byte) in block[..16].iter().enumerate() {
            (out.scales[s], out.mins[s]) = ((byte & 15) as i8, byte >> 4);
        }
        two_bits(&block[16..80], &mut out.codes);
        (out.d, out.dmin) = (get16(block, 80), get16(block, 82));
    },
    write: |decoded, block| {
        for (s, byte) in block[..16].iter_mut().enumerate() {
            *byte = decoded.scales[s] as u8 & 15 | decoded.mins[s] << 4;
        }
        put_two_bits(&decoded.codes, 0, &mut block[16..80]);
        put16(block, 80, decoded.d);
        put16(block, 82, decoded.dmin);
    },
};

/// ```text
/// byte 0 .. 31 | 32 ..... 95 | 96 .. 107 | 108 109
///      hmask   | qs          | scales    | d16
/// ```
/// `qs` is a plane of 2 bits; bit `4h + j` of `hmask[l]` is bit 2 of the element. `scale[s] + 32`: 4 bits of
/// nibble s of the first 8 bytes (low nibbles first), then bits `2 * (s / 4)` of `scales[8 + s % 4]`.
pub(super) static Q3K: Codec = Codec {
    format: WeightFormat::Q3K,
    sub_len: 16,
    scales: (-32, 31),
    bits: 3,
    values: Values::Linear { zero: 4 },
    scale: ScaleKind::F16,
    has_min: false,
    quantize: search::scaled,
    read: |block, out| {
        two_bits(&block[32..96], &mut out.codes);
        top_bits::<2>(&block[..32], &mut out.codes);
        let scales = &block[96..108];
        for s in 0..16 {
            let low = scales[s % 8] >> (4 * (s / 8)) & 15;
            let high = scales[8 + s % 4] >> (2 * (s / 4)) & 3;
            (out.scales[s], out.mins[s]) = ((low | high << 4) as i8 - Q3_BIAS, 0);
        }
        (out.d, out.dmin) = (get16(block, 108), 0);
    },
    write: |decoded, block| {
        put_top_bits::<2>(&decoded.codes, &mut block[..32]);
        put_two_bits(&decoded.codes, 0, &mut block[32..96]);
        let scales = &mut block[96..108];
        scales.fill(0);
        for s in 0..16 {
            let scale = decoded.scales[s].wrapping_add(Q3_BIAS) as u8;
            scales[s % 8] |= (scale & 15) << (4 * (s / 8));
            scales[8 + s % 4] |= (scale >> 4 & 3) << (2 * (s / 4));
        }
        put16(block, 108, decoded.d);
    },
};

/// ```text
/// byte 0  1 | 2   3  | 4 .. 15 | 16 ..... 143
///      d16  | dmin16 | scales  | qs: 32 bytes for each 64 elements, low nibbles are the first 32
/// ```
/// `scales`: 6-bit scales and minima, see [`scales_and_mins`].
pub(super) static Q4K: Codec = six_bit_scales::<4>(WeightFormat::Q4K);

/// ```text
/// byte 0  1 | 2   3  | 4 .. 15 | 16 .. 47 | 48 ..... 175
///      d16  | dmin16 | scales  | qh       | qs as in Q4_K
/// ```
/// Bit s of `qh[l]` is bit 4 of element `32s + l`.
pub(super) static Q5K: Codec = six_bit_scales::<5>(WeightFormat::Q5K);

/// ```text
/// byte 0 ..... 127 | 128 ... 191 | 192 .. 207 | 208 209
///      ql          | qh          | scales, i8 | d16
/// ```
/// `ql`: 64 bytes for each 128 elements, low nibbles are the first 64. `qh` is a plane of 2 bits: 4 and 5.
pub(super) static Q6K: Codec = Codec {
    format: WeightFormat::Q6K,
    sub_len: 16,
    scales: (-128, 127),
    bits: 6,
    values: Values::Linear { zero: 32 },
    scale: ScaleKind::F16,
    has_min: false,
    quantize: search::scaled,
    read: |block, out| {
        two_bits(&block[128..192], &mut out.codes);
        let mut low = [0; LEN];
        nibbles::<64>(&block[..128], &mut low);
        for (code, low) in out.codes.iter_mut().zip(low) {
            *code = *code << 4 | low;
        }
        for (s, &byte) in block[192..208].iter().enumerate() {
            (out.scales[s], out.mins[s]) = (byte as i8, 0);
        }
        (out.d, out.dmin) = (get16(block, 208), 0);
    },
    write: |decoded, block| {
        put_nibbles::<64>(&decoded.codes, &mut block[..128]);
        put_two_bits(&decoded.codes, 4, &mut block[128..192]);
        for (byte, &scale) in block[192..208].iter_mut().zip(&decoded.scales) {
            *byte = scale as u8;
        }
        put16(block, 208, decoded.d);
    },
};

/// Q4_K, and Q5_K with one plane of bits more.
const fn six_bit_scales<const BITS: u32>(format: WeightFormat) -> Codec {
    Codec {
        format,
        sub_len: 32,
        scales: (0, 63),
        bits: BITS,
        values: Values::Linear { zero: 0 },
        scale: ScaleKind::F16,
        has_min: true,
        quantize: search::with_minima,
        read: |block, out| {
            (out.d, out.dmin) = (get16(block, 0), get16(block, 2));
            scales_and_mins(&block[4..16], &mut out.scales, &mut out.mins);
            let (qh, qs) = block[16..].split_at(if BITS == 5 { 32 } else { 0 });
            nibbles::<32>(&qs[..128], &mut out.codes);
            if BITS == 5 {
                top_bits::<4>(qh, &mut out.codes);
            }
        },
        write: |decoded, block| {
            put16(block, 0, decoded.d);
            put16(block, 2, decoded.dmin);
            put_scales_and_mins(&decoded.scales, &decoded.mins, &mut block[4..16]);
            let (qh, qs) = block[16..].split_at_mut(if BITS == 5 { 32 } else { 0 });
            put_nibbles::<32>(&decoded.codes, &mut qs[..128]);
            if BITS == 5 {
                put_top_bits::<4>(&decoded.codes, qh);
            }
        },
    }
}

/// Bit s of byte l is bit `BIT` of element `32s + l`.
fn top_bits<const BIT: u32>(plane: &[u8], codes: &mut [u8; LEN]) {
    for (s, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (code, byte) in codes.iter_mut().zip(plane) {
            *code |= (byte >> s & 1) << BIT;
        }
    }
}

fn put_top_bits<const BIT: u32>(codes: &[u8; LEN], plane: &mut [u8]) {
    plane.fill(0);
    for (s, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for (byte, code) in plane.iter_mut().zip(codes) {
            *byte |= (code >> BIT & 1) << s;
        }
    }
}

/// A plane of 2 bits: bits `2j` of byte `32h + l` belong to element `128h + 32j + l`.
fn two_bits(plane: &[u8], codes: &mut [u8; LEN]) {
    for (bytes, codes) in plane.chunks_exact(32).zip(codes.chunks_exact_mut(128)) {
        for (j, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = byte >> (2 * j) & 3;
            }
        }
    }
}

/// Writes bits `shift` and `shift + 1` of the codes.
fn put_two_bits(codes: &[u8; LEN], shift: u32, plane: &mut [u8]) {
    plane.fill(0);
    for (bytes, codes) in plane.chunks_exact_mut(32).zip(codes.chunks_exact(128)) {
        for (j, codes) in codes.chunks_exact(32).enumerate() {
            for (byte, code) in bytes.iter_mut().zip(codes) {
                *byte |= (code >> shift & 3) << (2 * j);
            }
        }
    }
}

/// Eight pairs of 6 bits in 12 bytes:
/// ```text
/// byte 0..4:  scale[s] | two upper bits of scale[s + 4] << 6
/// byte 4..8:  min[s]   | two upper bits of min[s + 4] << 6
/// byte 8..12: four lower bits of scale[s + 4] | four lower bits of min[s + 4] << 4
/// ```
fn scales_and_mins(bytes: &[u8], scales: &mut [i8; 16], mins: &mut [u8; 16]) {
    for s in 0..4 {
        let (scale, min, low) = (bytes[s], bytes[s + 4], bytes[s + 8]);
        (scales[s], mins[s]) = ((scale & 63) as i8, min & 63);
        (scales[s + 4], mins[s + 4]) = ((low & 15 | scale >> 6 << 4) as i8, low >> 4 | min >> 6 << 4);
    }
}

fn put_scales_and_mins(scales: &[i8; 16], mins: &[u8; 16], bytes: &mut [u8]) {
    for s in 0..4 {
        let (scale, min) = (scales[s + 4] as u8, mins[s + 4]);
        bytes[s] = scales[s] as u8 & 63 | (scale >> 4 & 3) << 6;
        bytes[s + 4] = mins[s] & 63 | (min >> 4 & 3) << 6;
        bytes[s + 8] = scale & 15 | min << 4;
    }
}
