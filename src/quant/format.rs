//! The formats of weights as GGUF files hold them: names, numbers and sizes.

use crate::error::{Error, Result, product, text};

/// Elements of a block of the small formats, and of a block of quantised activations.
pub(super) const BLOCK: usize = crate::kernels::BLOCK;

/// How weights are stored. The numbers are the type ids of GGUF.
///
/// In the formulas `d`, `dmin` and `m` are f16 numbers of the block, `s` and `t` integers of the sub-block,
/// `q` and `code` integers of the element. All numbers are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 32 bits a weight: the weight itself.
    F32 = 0,
    /// 16 bits a weight: IEEE binary16.
    F16 = 1,
    /// 4.5 bits a weight: `w = d * (q - 8)`, q in 0..=15.
    Q4_0 = 2,
    /// 5 bits a weight: `w = d * q + m`, q in 0..=15.
    Q4_1 = 3,
    /// 5.5 bits a weight: `w = d * (q - 16)`, q in 0..=31.
    Q5_0 = 6,
    /// 6 bits a weight: `w = d * q + m`, q in 0..=31.
    Q5_1 = 7,
    /// 8.5 bits a weight: `w = d * q`, q in -128..=127.
    Q8_0 = 8,
    /// 2.625 bits a weight: `w = d * s * q - dmin * t`, q in 0..=3, s and t in 0..=15 for each 16.
    Q2K = 10,
    /// 3.4375 bits a weight: `w = d * s * (q - 4)`, q in 0..=7, s in -32..=31 for each 16.
    Q3K = 11,
    /// 4.5 bits a weight: `w = d * s * q - dmin * t`, q in 0..=15, s and t in 0..=63 for each 32.
    Q4K = 12,
    /// 5.5 bits a weight: `w = d * s * q - dmin * t`, q in 0..=31, s and t in 0..=63 for each 32.
    Q5K = 13,
    /// 6.5625 bits a weight: `w = d * s * (q - 32)`, q in 0..=63, s in -128..=127 for each 16.
    Q6K = 14,
    /// 4.5 bits a weight: `w = d * table[code]`, 16 values spaced as weights are spread.
    Iq4Nl = 20,
    /// 4.25 bits a weight: `w = d * s * table[code]`, the table of `Iq4Nl`, s in -32..=31 for each 32.
    Iq4Xs = 23,
    /// 16 bits a weight: the upper half of an f32.
    Bf16 = 30,
    /// 4.25 bits a weight: `w = 2^(e - 127) * E2M1[code]`, e of 8 bits, NaN for e = 255; the OCP microscaling
    /// format.
    Mxfp4 = 39,
}

impl WeightFormat {
    /// Every format, in the order of its number.
    pub const ALL: [WeightFormat; 16] = [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
        WeightFormat::Q5_0,
        WeightFormat::Q5_1,
        WeightFormat::Q8_0,
        WeightFormat::Q2K,
        WeightFormat::Q3K,
        WeightFormat::Q4K,
        WeightFormat::Q5K,
        WeightFormat::Q6K,
        WeightFormat::Iq4Nl,
        WeightFormat::Iq4Xs,
        WeightFormat::Bf16,
        WeightFormat::Mxfp4,
    ];

    /// The name used in GGUF tools.
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
            WeightFormat::Q4_0 => "q4_0",
            WeightFormat::Q4_1 => "q4_1",
            WeightFormat::Q5_0 => "q5_0",
            WeightFormat::Q5_1 => "q5_1",
            WeightFormat::Q8_0 => "q8_0",
            WeightFormat::Q2K => "q2_k",
            WeightFormat::Q3K => "q3_k",
            WeightFormat::Q4K => "q4_k",
            WeightFormat::Q5K => "q5_k",
            WeightFormat::Q6K => "q6_k",
            WeightFormat::Iq4Nl => "iq4_nl",
            WeightFormat::Iq4Xs => "iq4_xs",
            WeightFormat::Bf16 => "bf16",
            WeightFormat::Mxfp4 => "mxfp4",
        }
    }

    /// Elements of a block: k must be a multiple of it. 1 for the formats of single floats.
    pub const fn block_len(self) -> usize {
        match self {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => 1,
            WeightFormat::Q4_0
            | WeightFormat::Q4_1
            | WeightFormat::Q5_0
            | WeightFormat::Q5_1
            | WeightFormat::Q8_0
            | WeightFormat::Iq4Nl
            | WeightFormat::Mxfp4 => 32,
            WeightFormat::Q2K
            | WeightFormat::Q3K
            | WeightFormat::Q4K
            | WeightFormat::Q5K
            | WeightFormat::Q6K
            | WeightFormat::Iq4Xs => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            WeightFormat::F32 => 4,
            WeightFormat::F16 | WeightFormat::Bf16 => 2,
            WeightFormat::Q4_0 | WeightFormat::Iq4Nl => 2 + 16,
            WeightFormat::Q4_1 => 2 + 2 + 16,
            WeightFormat::Q5_0 => 2 + 4 + 16,
            WeightFormat::Q5_1 => 2 + 2 + 4 + 16,
            WeightFormat::Q8_0 => 2 + 32,
            WeightFormat::Q2K => 16 + 64 + 2 + 2,
            WeightFormat::Q3K => 32 + 64 + 12 + 2,
            WeightFormat::Q4K => 2 + 2 + 12 + 128,
            WeightFormat::Q5K => 2 + 2 + 12 + 32 + 128,
            WeightFormat::Q6K => 128 + 64 + 16 + 2,
            WeightFormat::Iq4Xs => 2 + 2 + 4 + 128,
            WeightFormat::Mxfp4 => 1 + 16,
        }
    }

    /// Bytes of `rows * k` weights in blocks.
    ///
    /// **Errors**: `Option` when k is no multiple of the block, `Overflow`.
    pub fn bytes(self, rows: usize, k: usize) -> Result<usize> {
        let len = self.block_len();
        if !k.is_multiple_of(len) {
            let allowed = match len {
                32 => "a multiple of the block of 32",
                _ => "a multiple of the block of 256",
            };
            return Err(Error::Option { what: "k", got: text(k), allowed });
        }
        product("blocks", &[rows, k / len, self.block_bytes()])
    }
}

impl TryFrom<i32> for WeightFormat {
    type Error = Error;

    /// The format with this type id of GGUF.
    ///
    /// **Errors**: `Option` for a number that is none of [`WeightFormat::ALL`].
    fn try_from(number: i32) -> Result<WeightFormat> {
        WeightFormat::ALL.into_iter().find(|f| *f as i32 == number).ok_or_else(|| Error::Option {
            what: "format",
            got: text(number),
            allowed: "one of the type ids 0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 30, 39",
        })
    }
}
