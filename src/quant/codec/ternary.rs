//! The formats of one scale and codes of up to 2 bits: TQ1_0, TQ2_0, Q1_0, Q2_0.

use super::bits::{get16, put16};
use super::block::{Codec, Decoded, ScaleKind, Values};
use super::{round, search, small};
use crate::quant::format::WeightFormat;

/// -1 and 1 by their codes; the others are not in use.
static SIGNS: [i8; 16] = [-1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The runs of bytes of TQ1_0: (first byte, bytes, elements a byte).
const RUNS: [(usize, usize, usize); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];

/// ```text
/// byte 0 ... 31 | 32 ... 47 | 48 .. 51 | 52 53
///      run of 5 | run of 5  | run of 4 | d16
/// ```
/// Byte j of a run of L bytes holds elements j, `j + L`, `j + 2 L`, .. of the run as the digits of a fraction
/// to the base 3, the first digit highest: `byte / 256` cut after it, times 3, is the digit. Of the bytes
/// that mean the same digits the least is written.
pub(super) static TQ1_0: Codec = Codec {
    read: |block, out| {
        whole(out, get16(block, 52));
        let mut codes = out.codes.as_mut_slice();
        for (first, len, digits) in RUNS {
            let (run, rest) = codes.split_at_mut(len * digits);
            for (n, codes) in run.chunks_exact_mut(len).enumerate() {
                for (code, &byte) in codes.iter_mut().zip(&block[first..first + len]) {
                    let fraction = byte.wrapping_mul([1, 3, 9, 27, 81][n]);
                    *code = ((u16::from(fraction) * 3) >> 8) as u8;
                }
            }
            codes = rest;
        }
    },
    write: |decoded, block| {
        put16(block, 52, decoded.d);
        let mut codes = decoded.codes.as_slice();
        for (first, len, digits) in RUNS {
            let (run, rest) = codes.split_at(len * digits);
            for j in 0..len {
                let digit = |n: usize| if n < digits { u16::from(run[n * len + j].min(2)) } else { 0 };
                let number = (0..5).fold(0, |number, n| 3 * number + digit(n));
                block[first + j] = (number * 256).div_ceil(243) as u8;
            }
            codes = rest;
        }
    },
    ..with_scale(WeightFormat::Tq1_0, 2, Values::Linear { zero: 1 }, round::ternary)
};

/// ```text
/// byte 0 ... 63 | 64 65
///      qs       | d16
/// ```
/// Bits `2 j` of byte `32 h + l` belong to element `128 h + 32 j + l`.
pub(super) static TQ2_0: Codec = Codec {
    read: |block, out| {
        whole(out, get16(block, 64));
        for (bytes, codes) in block[..64].chunks_exact(32).zip(out.codes.chunks_exact_mut(128)) {
            for (i, code) in codes.iter_mut().enumerate() {
                *code = bytes[i % 32] >> (2 * (i / 32)) & 3;
            }
        }
    },
    write: |decoded, block| {
        block[..64].fill(0);
        for (bytes, codes) in block[..64].chunks_exact_mut(32).zip(decoded.codes.chunks_exact(128)) {
            for (i, code) in codes.iter().enumerate() {
                bytes[i % 32] |= (code & 3) << (2 * (i / 32));
            }
        }
        put16(block, 64, decoded.d);
    },
    ..with_scale(WeightFormat::Tq2_0, 2, Values::Linear { zero: 1 }, round::ternary)
};

/// ```text
/// byte 0  1 | 2 ... 17
///      d16  | qs: bit i of byte j is element 8 j + i, d where it is set and -d where it is not
/// ```
pub(super) static Q1_0: Codec = Codec {
    read: read_run::<1, 128>,
    write: write_run::<1, 128>,
    ..with_scale(WeightFormat::Q1_0, 1, Values::Table(&SIGNS), round::by_mean)
};

/// ```text
/// byte 0  1 | 2 ... 17
///      d16  | qs: bits 2 i of byte j are element 4 j + i
/// ```
pub(super) static Q2_0: Codec = Codec {
    read: read_run::<2, 64>,
    write: write_run::<2, 64>,
    ..with_scale(WeightFormat::Q2_0, 2, Values::Linear { zero: 1 }, search::scaled)
};

/// A codec without its reader and writer.
const fn with_scale(
    format: WeightFormat,
    bits: u32,
    values: Values,
    quantize: fn(&Codec, &[f32], &mut Decoded),
) -> Codec {
    Codec {
        format,
        // The scale is that of the block; a sub-block is what one loop of a reader takes.
        sub_len: 32,
        scales: (1, 1),
        bits,
        values,
        scale: ScaleKind::F16,
        has_min: false,
        quantize,
        read: |_, _| {},
        write: |_, _| {},
    }
}

/// One scale for all sub-blocks of a block.
fn whole(out: &mut Decoded, d: u16) {
    small::one_scale(out, d);
    out.scales[..8].fill(1);
    out.mins[..8].fill(0);
}

fn read_run<const BITS: usize, const LEN: usize>(block: &[u8], out: &mut Decoded) {
    small::one_scale(out, get16(block, 0));
    out.scales[..LEN / 32].fill(1);
    for (i, code) in out.codes[..LEN].iter_mut().enumerate() {
        *code = block[2 + i * BITS / 8] >> (i * BITS % 8) & ((1 << BITS) - 1);
    }
}

fn write_run<const BITS: usize, const LEN: usize>(decoded: &Decoded, block: &mut [u8]) {
    put16(block, 0, decoded.d);
    block[2..2 + LEN * BITS / 8].fill(0);
    for (i, code) in decoded.codes[..LEN].iter().enumerate() {
        block[2 + i * BITS / 8] |= (code & ((1 << BITS) - 1)) << (i * BITS % 8);
    }
}
