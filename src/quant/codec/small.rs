//! The formats of 32 elements with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

use super::{Codec, Decoded, ScaleKind, Values, bits16, nibbles, put_nibbles, put16, round};
use crate::quant::WeightFormat;

const LEN: usize = 32;

/// The sign of an f16: Q4_1 and Q5_1 add what the common formula subtracts.
const SIGN: u16 = 0x8000;

/// ```text
/// byte 0  1 | 2 ............ 17
///      d16  | qs: low nibble of qs[j] is element j, high nibble element j + 16
/// ```
pub(super) static Q4_0: Codec = Codec {
    format: WeightFormat::Q4_0,
    sub_len: LEN,
    scales: (1, 1),
    bits: 4,
    values: Values::Linear { zero: 8 },
    scale: ScaleKind::F16,
    has_min: false,
    quantise: round::by_extreme,
    read: |block, out| {
        one_scale(out, bits16(block, 0));
        nibbles(&block[2..18], &mut out.codes[..LEN]);
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        put_nibbles(&decoded.codes[..LEN], &mut block[2..18]);
    },
};

/// ```text
/// byte 0  1 | 2  3 | 4 ............ 19
///      d16  | m16  | qs as in Q4_0
/// ```
pub(super) static Q4_1: Codec = Codec {
    format: WeightFormat::Q4_1,
    sub_len: LEN,
    scales: (1, 1),
    bits: 4,
    values: Values::Linear { zero: 0 },
    scale: ScaleKind::F16,
    has_min: true,
    quantise: round::by_spread,
    read: |block, out| {
        scale_and_min(out, block);
        nibbles(&block[4..20], &mut out.codes[..LEN]);
    },
    write: |decoded, block| {
        put_scale_and_min(decoded, block);
        put_nibbles(&decoded.codes[..LEN], &mut block[4..20]);
    },
};

/// ```text
/// byte 0  1 | 2 ... 5 | 6 ............ 21
///      d16  | qh32    | qs as in Q4_0; bit i of qh is bit 4 of element i
/// ```
pub(super) static Q5_0: Codec = Codec {
    format: WeightFormat::Q5_0,
    sub_len: LEN,
    scales: (1, 1),
    bits: 5,
    values: Values::Linear { zero: 16 },
    scale: ScaleKind::F16,
    has_min: false,
    quantise: round::by_extreme,
    read: |block, out| {
        one_scale(out, bits16(block, 0));
        nibbles(&block[6..22], &mut out.codes[..LEN]);
        fifth_bits(&block[2..6], &mut out.codes[..LEN]);
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        put_fifth_bits(&decoded.codes[..LEN], &mut block[2..6]);
        put_nibbles(&decoded.codes[..LEN], &mut block[6..22]);
    },
};

/// ```text
/// byte 0  1 | 2  3 | 4 ... 7 | 8 ............ 23
///      d16  | m16  | qh32    | qs, qh as in Q5_0
/// ```
pub(super) static Q5_1: Codec = Codec {
    format: WeightFormat::Q5_1,
    sub_len: LEN,
    scales: (1, 1),
    bits: 5,
    values: Values::Linear { zero: 0 },
    scale: ScaleKind::F16,
    has_min: true,
    quantise: round::by_spread,
    read: |block, out| {
        scale_and_min(out, block);
        nibbles(&block[8..24], &mut out.codes[..LEN]);
        fifth_bits(&block[4..8], &mut out.codes[..LEN]);
    },
    write: |decoded, block| {
        put_scale_and_min(decoded, block);
        put_fifth_bits(&decoded.codes[..LEN], &mut block[4..8]);
        put_nibbles(&decoded.codes[..LEN], &mut block[8..24]);
    },
};

/// ```text
/// byte 0  1 | 2 ............ 33
///      d16  | qs: element j is the signed qs[j], code = qs[j] + 128
/// ```
pub(super) static Q8_0: Codec = Codec {
    format: WeightFormat::Q8_0,
    sub_len: LEN,
    scales: (1, 1),
    bits: 8,
    values: Values::Linear { zero: 128 },
    scale: ScaleKind::F16,
    has_min: false,
    quantise: round::by_absmax,
    read: |block, out| {
        one_scale(out, bits16(block, 0));
        for (code, byte) in out.codes.iter_mut().zip(&block[2..34]) {
            *code = byte ^ 0x80;
        }
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        for (byte, code) in block[2..34].iter_mut().zip(&decoded.codes) {
            *byte = code ^ 0x80;
        }
    },
};

fn one_scale(out: &mut Decoded, d: u16) {
    (out.d, out.dmin) = (d, 0);
    (out.scales[0], out.mins[0]) = (1, 0);
}

fn scale_and_min(out: &mut Decoded, block: &[u8]) {
    (out.d, out.dmin) = (bits16(block, 0), bits16(block, 2) ^ SIGN);
    (out.scales[0], out.mins[0]) = (1, 1);
}

fn put_scale_and_min(decoded: &Decoded, block: &mut [u8]) {
    put16(block, 0, decoded.d);
    put16(block, 2, decoded.dmin ^ SIGN);
}

fn fifth_bits(qh: &[u8], codes: &mut [u8]) {
    for (codes, byte) in codes.chunks_exact_mut(8).zip(qh) {
        for (bit, code) in codes.iter_mut().enumerate() {
            *code |= (byte >> bit & 1) << 4;
        }
    }
}

fn put_fifth_bits(codes: &[u8], qh: &mut [u8]) {
    for (codes, byte) in codes.chunks_exact(8).zip(qh) {
        *byte = codes.iter().rev().fold(0, |bits, code| bits << 1 | code >> 4 & 1);
    }
}
