//! A block as integers, and what a codec is: the constants, the decoder and the encoder of a format.

use crate::quant::format::WeightFormat;
use half::f16;

/// Elements of the largest block.
pub(in crate::quant) const MAX_BLOCK: usize = 256;

/// Sub-blocks of a block at most.
pub(in crate::quant) const MAX_SUBS: usize = 16;

/// A block as integers. What lies beyond the block's length is not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::quant) struct Decoded {
    /// Unsigned, in the order of elements; where they are entries of codebooks, the bytes of each 32 elements
    /// ([`Values::Entries`]) from `codes[32 b]` on. // (block_len)
    pub codes: [u8; MAX_BLOCK],
    /// Factors of d; 1 in a format without sub-blocks. // (block_len / sub_len)
    pub scales: [i8; MAX_SUBS],
    /// Factors of dmin; 1 in Q4_1 and Q5_1, 0 in a format without minima. // (block_len / sub_len)
    pub mins: [u8; MAX_SUBS],
    /// The scale: an f16 as bits, in MXFP4 the exponent byte, in NVFP4 0.
    pub d: u16,
    /// The scale of the minima, an f16 as bits; of Q4_1 and Q5_1, which add theirs, the negative.
    pub dmin: u16,
}

impl Decoded {
    /// All zeros.
    pub const ZERO: Decoded =
        Decoded { codes: [0; MAX_BLOCK], scales: [0; MAX_SUBS], mins: [0; MAX_SUBS], d: 0, dmin: 0 };
}

/// What a code stands for.
#[derive(Debug, Clone, Copy)]
pub(in crate::quant) enum Values {
    /// `code - zero`.
    Linear {
        /// The code of the value 0.
        zero: u8,
    },
    /// `table[code]`.
    Table(&'static [i8; 16]),
    /// Entries of codebooks: the integers of 32 elements, from their bytes.
    Entries(fn(&[u8; 32]) -> [i8; 32]),
}

impl Values {
    /// The integers that the codes of 32 elements stand for.
    pub fn of(self, codes: &[u8; 32]) -> [i16; 32] {
        match self {
            Values::Linear { zero } => codes.map(|code| i16::from(code) - i16::from(zero)),
            Values::Table(table) => codes.map(|code| i16::from(table[usize::from(code & 15)])),
            Values::Entries(integers) => integers(codes).map(i16::from),
        }
    }

    /// The first code that stands for `value`, an integer of the format.
    pub(super) fn code(self, value: f32) -> u8 {
        match self {
            Values::Linear { zero } => (value + f32::from(zero)) as u8,
            Values::Table(table) => table.iter().position(|&t| f32::from(t) == value).unwrap_or(0) as u8,
            Values::Entries(_) => 0,
        }
    }
}

/// How the scale d of a block is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::quant) enum ScaleKind {
    /// IEEE binary16.
    F16,
    /// A quarter or an eighth of it.
    F16Over4,
    F16Over8,
    /// There is none: the scale of each sub-block is half of an E4M3 without a sign.
    HalfE4m3,
    /// A power of two: half of `2^(e - 127)`, because the table of MXFP4 holds doubled values; NaN for e =
    /// 255.
    HalfE8m0,
}

/// A format of blocks: its constants, its decoder and its encoder.
#[derive(Debug)]
pub(in crate::quant) struct Codec {
    /// The format.
    pub format: WeightFormat,
    /// Elements of a sub-block: 16 or 32.
    pub sub_len: usize,
    /// The least and the greatest scale of a sub-block; minima reach as far. (1, 1) without sub-blocks.
    pub scales: (i8, i8),
    /// Bits of a code.
    pub bits: u32,
    /// What a code stands for.
    pub values: Values,
    /// How d is stored.
    pub scale: ScaleKind,
    /// Whether minima are subtracted; the zero is code 0 then.
    pub has_min: bool,
    /// From finite floats.
    pub(super) quantize: fn(&Codec, &[f32], &mut Decoded),
    pub(super) read: fn(&[u8], &mut Decoded),
    pub(super) write: fn(&Decoded, &mut [u8]),
}

impl Codec {
    /// Sub-blocks of a block.
    pub fn subs(&self) -> usize {
        self.format.block_len() / self.sub_len
    }

    /// Takes a block apart. **Shapes**: `block`: at least `block_bytes` bytes. Any bytes are a valid block.
    pub fn decode(&self, block: &[u8], out: &mut Decoded) {
        debug_assert!(block.len() >= self.format.block_bytes());
        (self.read)(block, out);
    }

    /// Puts a block together: the inverse of [`decode`](Codec::decode), byte for byte. Bits that do not fit
    /// the format are cut off. **Shapes**: `block`: at least `block_bytes` bytes.
    pub fn encode(&self, decoded: &Decoded, block: &mut [u8]) {
        debug_assert!(block.len() >= self.format.block_bytes());
        (self.write)(decoded, block);
    }

    /// Whether blocks of NaN are written: d is an f16. MXFP4 has a NaN as well (e = 255), which other readers
    /// take for 2^128; and that of NVFP4 is read as 0.
    pub fn writes_nan(&self) -> bool {
        !matches!(self.scale, ScaleKind::HalfE8m0 | ScaleKind::HalfE4m3)
    }

    /// The codes, scales and minima nearest to `x`. **Shapes**: `x`: (block_len). **Numerics**: NaN or
    /// infinity in `x` makes d NaN, so that every weight of the block is; in a format that writes no NaN,
    /// where the caller has to refuse it, the block becomes zeros.
    pub fn quantize(&self, x: &[f32], out: &mut Decoded) {
        let subs = self.subs();
        out.scales[..subs].fill(1);
        out.mins[..subs].fill(0);
        out.dmin = 0;
        if x.iter().all(|x| x.is_finite()) {
            (self.quantize)(self, x, out);
        } else {
            out.codes[..x.len()].fill(self.values.code(0.0));
            out.d = if self.writes_nan() { f16::NAN.to_bits() } else { 0 };
        }
    }

    /// Whether blocks have a scale d, by which those of sub-blocks are multiplied.
    pub fn has_d(&self) -> bool {
        self.scale != ScaleKind::HalfE4m3
    }

    /// What the stored scale is multiplied by: a power of two.
    pub(super) fn unit(&self) -> f32 {
        match self.scale {
            ScaleKind::F16Over4 => 0.25,
            ScaleKind::F16Over8 => 0.125,
            _ => 1.0,
        }
    }

    /// The scale d in f32, exactly.
    pub fn d(&self, decoded: &Decoded) -> f32 {
        match self.scale {
            ScaleKind::F16 | ScaleKind::F16Over4 | ScaleKind::F16Over8 => {
                f16::from_bits(decoded.d).to_f32() * self.unit()
            }
            ScaleKind::HalfE8m0 => half_e8m0(decoded.d as u8),
            ScaleKind::HalfE4m3 => 1.0,
        }
    }

    /// The scale of sub-block `s` in f32, exactly; `d`: that of the block, [`Codec::d`].
    pub fn scale_of(&self, d: f32, decoded: &Decoded, s: usize) -> f32 {
        match self.scale {
            ScaleKind::HalfE4m3 => half_e4m3(decoded.scales[s] as u8),
            _ => d * f32::from(decoded.scales[s]),
        }
    }

    /// The scale of the minima in f32, exactly.
    pub fn dmin(&self, decoded: &Decoded) -> f32 {
        f16::from_bits(decoded.dmin).to_f32()
    }

    /// The weights of a block: each product is exact in f32, the subtraction of a minimum rounds once.
    ///
    /// **Shapes**: `out`: (block_len). **Numerics**: an infinite or NaN d or dmin gives what IEEE says.
    pub fn floats(&self, decoded: &Decoded, out: &mut [f32]) {
        // Lengths that the compiler knows: half the instructions of Q8_0.
        match self.sub_len {
            16 => self.floats_of_subs::<16>(decoded, out),
            _ => self.floats_of_subs::<32>(decoded, out),
        }
    }

    fn floats_of_subs<const SUB: usize>(&self, decoded: &Decoded, out: &mut [f32]) {
        let d = self.d(decoded);
        if let Values::Entries(integers) = self.values {
            let blocks = out.as_chunks_mut::<32>().0.iter_mut().zip(decoded.codes.as_chunks::<32>().0);
            for (b, (out, codes)) in blocks.enumerate() {
                let values = integers(codes);
                let subs = out.as_chunks_mut::<SUB>().0.iter_mut().zip(values.as_chunks::<SUB>().0);
                for (s, (out, values)) in subs.enumerate() {
                    let scale = self.scale_of(d, decoded, 32 / SUB * b + s);
                    *out = values.map(|value| scale * f32::from(value));
                }
            }
            return;
        }
        let dmin = if self.has_min { self.dmin(decoded) } else { 0.0 };
        let elements = out.as_chunks_mut::<SUB>().0.iter_mut().zip(decoded.codes.as_chunks::<SUB>().0);
        for (s, (out, codes)) in elements.enumerate() {
            let scale = self.scale_of(d, decoded, s);
            match self.values {
                Values::Linear { .. } if self.has_min => {
                    let min = dmin * f32::from(decoded.mins[s]);
                    *out = codes.map(|code| scale * f32::from(code) - min);
                }
                Values::Linear { zero } => {
                    let zero = i32::from(zero);
                    *out = codes.map(|code| scale * (i32::from(code) - zero) as f32);
                }
                Values::Table(table) => {
                    *out = codes.map(|code| scale * f32::from(table[usize::from(code & 15)]));
                }
                Values::Entries(_) => {}
            }
        }
    }
}

/// Half of `2^(e - 127)`: 2^-128 (subnormal) for e = 0, 2^126 for e = 254, NaN for e = 255.
pub(super) fn half_e8m0(e: u8) -> f32 {
    match e {
        0 => f32::from_bits(0x0020_0000),
        1 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        e => f32::from_bits(u32::from(e - 1) << 23),
    }
}

/// Half of an E4M3 whose sign is not looked at; 0 for 0x7f, its NaN, as other readers have it.
pub(super) fn half_e4m3(code: u8) -> f32 {
    let (e, m) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    match code {
        0x7f => 0.0,
        _ if e == 0 => m / 1024.0,
        _ => (1.0 + m / 8.0) * f32::from_bits(((e - 8 + 127) as u32) << 23),
    }
}
