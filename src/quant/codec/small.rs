//! The formats of 32 elements with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

use super::bits::{SIGN, get16, nibbles, put_nibbles, put16};
use super::block::{Codec, Decoded, ScaleKind, Values};
use super::round;
use crate::quant::format::WeightFormat;

const LEN: usize = 32;

/// ```text
/// byte 0  1 | 2 ............ 17
///      d16  | qs: low nibble of qs[j] is element j, high nibble element j + 16
/// ```
pub(super) static Q4_0: Codec = halves::<4, false>(WeightFormat::Q4_0, round::by_extreme);

/// ```text
/// byte 0  1 | 2  3 | 4 ............ 19
///      d16  | m16  | qs as in Q4_0
/// ```
pub(super) static Q4_1: Codec = halves::<4, true>(WeightFormat::Q4_1, round::by_spread);

/// ```text
/// byte 0  1 | 2 ... 5 | 6 ............ 21
///      d16  | qh32    | qs as in Q4_0; bit i of qh is bit 4 of element i
/// ```
pub(super) static Q5_0: Codec = halves::<5, false>(WeightFormat::Q5_0, round::by_extreme);

/// ```text
/// byte 0  1 | 2  3 | 4 ... 7 | 8 ............ 23
///      d16  | m16  | qh32    | qs, qh as in Q5_0
/// ```
pub(super) static Q5_1: Codec = halves::<5, true>(WeightFormat::Q5_1, round::by_spread);

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
    quantize: round::by_absmax,
    read: |block, out| {
        one_scale(out, get16(block, 0));
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

/// The codec of a format of nibbles in halves, with a fifth bit where `BITS` is 5, and with a minimum where
/// `MIN`.
const fn halves<const BITS: u32, const MIN: bool>(
    format: WeightFormat,
    quantize: fn(&Codec, &[f32], &mut Decoded),
) -> Codec {
    Codec {
        format,
        sub_len: LEN,
        scales: (1, 1),
        bits: BITS,
        values: Values::Linear { zero: if MIN { 0 } else { 1 << (BITS - 1) } },
        scale: ScaleKind::F16,
        has_min: MIN,
        quantize,
        read: read_halves::<BITS, MIN>,
        write: write_halves::<BITS, MIN>,
    }
}

/// The first byte of the fifth bits (where there are any), and that of the nibbles.
const fn places(bits: u32, min: bool) -> (usize, usize) {
    let scales = if min { 4 } else { 2 };
    (scales, if bits == 5 { scales + 4 } else { scales })
}

pub(super) fn read_halves<const BITS: u32, const MIN: bool>(block: &[u8], out: &mut Decoded) {
    let (qh, qs) = const { places(BITS, MIN) };
    one_scale(out, get16(block, 0));
    if MIN {
        (out.dmin, out.mins[0]) = (get16(block, 2) ^ SIGN, 1);
    }
    let codes = &mut out.codes[..LEN];
    nibbles::<16>(&block[qs..qs + 16], codes);
    if BITS == 5 {
        fifth_bits(&block[qh..qs], codes);
    }
}

pub(super) fn write_halves<const BITS: u32, const MIN: bool>(decoded: &Decoded, block: &mut [u8]) {
    let (qh, qs) = const { places(BITS, MIN) };
    put16(block, 0, decoded.d);
    if MIN {
        put16(block, 2, decoded.dmin ^ SIGN);
    }
    let codes = &decoded.codes[..LEN];
    put_nibbles::<16>(codes, &mut block[qs..qs + 16]);
    if BITS == 5 {
        put_fifth_bits(codes, &mut block[qh..qs]);
    }
}

pub(super) fn one_scale(out: &mut Decoded, d: u16) {
    (out.d, out.dmin) = (d, 0);
    (out.scales[0], out.mins[0]) = (1, 0);
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
