//! The formats whose codes index a table of values: IQ4_NL, IQ4_XS, MXFP4.

use super::bits::{get16, nibbles, put_nibbles, put16};
use super::block::{Codec, ScaleKind, Values};
use super::{search, small};
use crate::kernels::{E2m1, NonLinear, Table};
use crate::quant::format::WeightFormat;

static IQ4_VALUES: [i8; 16] = NonLinear::VALUES;
static E2M1_DOUBLED: [i8; 16] = E2m1::VALUES;

/// What is added to a scale of IQ4_XS to make it unsigned.
const XS_BIAS: i8 = 32;

/// The bytes of Q4_0.
pub(super) static IQ4_NL: Codec = Codec {
    format: WeightFormat::Iq4Nl,
    sub_len: 32,
    scales: (1, 1),
    bits: 4,
    values: Values::Table(&IQ4_VALUES),
    scale: ScaleKind::F16,
    has_min: false,
    quantize: search::scaled,
    read: small::read_halves::<4, false>,
    write: small::write_halves::<4, false>,
};

/// ```text
/// byte 0  1 | 2  3     | 4 ... 7    | 8 ............ 135
///      d16  | scales_h | scales_l   | qs: 16 bytes for each sub-block of 32, nibbles as in IQ4_NL
/// ```
/// `scale[s] + 32`: 4 bits of nibble s of scales_l, then bits 2s and 2s + 1 of scales_h.
pub(super) static IQ4_XS: Codec = Codec {
    format: WeightFormat::Iq4Xs,
    sub_len: 32,
    scales: (-32, 31),
    bits: 4,
    values: Values::Table(&IQ4_VALUES),
    scale: ScaleKind::F16,
    has_min: false,
    quantize: search::scaled,
    read: |block, out| {
        (out.d, out.dmin) = (get16(block, 0), 0);
        let high = get16(block, 2);
        for s in 0..8 {
            let low = block[4 + s / 2] >> (4 * (s % 2)) & 15;
            let scale = low | ((high >> (2 * s) & 3) as u8) << 4;
            (out.scales[s], out.mins[s]) = (scale as i8 - XS_BIAS, 0);
        }
        nibbles::<16>(&block[8..136], &mut out.codes);
    },
    write: |decoded, block| {
        put16(block, 0, decoded.d);
        let mut high = 0;
        block[4..8].fill(0);
        for s in 0..8 {
            let scale = decoded.scales[s].wrapping_add(XS_BIAS) as u8;
            block[4 + s / 2] |= (scale & 15) << (4 * (s % 2));
            high |= u16::from(scale >> 4 & 3) << (2 * s);
        }
        put16(block, 2, high);
        put_nibbles::<16>(&decoded.codes, &mut block[8..136]);
    },
};

/// ```text
/// byte 0 | 1 ............ 16
///      e | qs: low nibble of qs[j] is element j, high nibble element j + 16
/// ```
pub(super) static MXFP4: Codec = Codec {
    format: WeightFormat::Mxfp4,
    sub_len: 32,
    scales: (1, 1),
    bits: 4,
    values: Values::Table(&E2M1_DOUBLED),
    scale: ScaleKind::HalfE8m0,
    has_min: false,
    quantize: search::power_of_two,
    read: |block, out| {
        small::one_scale(out, u16::from(block[0]));
        nibbles::<16>(&block[1..17], &mut out.codes[..32]);
    },
    write: |decoded, block| {
        block[0] = decoded.d as u8;
        put_nibbles::<16>(&decoded.codes[..32], &mut block[1..17]);
    },
};

/// ```text
/// byte 0 .. 3     | 4 ............ 35
///      d of 16 each | qs: 8 bytes for each 16, low nibbles are the first 8
/// ```
/// d is an E4M3 without a sign.
pub(super) static NVFP4: Codec = Codec {
    format: WeightFormat::Nvfp4,
    sub_len: 16,
    scales: (-128, 127),
    bits: 4,
    values: Values::Table(&E2M1_DOUBLED),
    scale: ScaleKind::HalfE4m3,
    has_min: false,
    quantize: search::e4m3,
    read: |block, out| {
        (out.d, out.dmin) = (0, 0);
        out.scales[..4].copy_from_slice(&[block[0], block[1], block[2], block[3]].map(|d| d as i8));
        nibbles::<8>(&block[4..36], &mut out.codes[..64]);
    },
    write: |decoded, block| {
        block[..4].copy_from_slice(&[0, 1, 2, 3].map(|s| decoded.scales[s] as u8));
        put_nibbles::<8>(&decoded.codes[..64], &mut block[4..36]);
    },
};
