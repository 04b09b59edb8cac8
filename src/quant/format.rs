//! The block formats as GGUF files hold them (ggml-common.h; little-endian, no padding).

use crate::error::{Error, Result, product};
use bytemuck::{Pod, Zeroable};

/// Elements of a block.
pub(super) const BLOCK: usize = crate::kernels::BLOCK;

/// How weights are stored. The numbers are the type ids of GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 4.5 bits a weight: `w = d * (q - 8)`, d in f16, q in 0..=15.
    Q4_0 = 2,
    /// 8.5 bits a weight: `w = d * q`, d in f16, q in -128..=127.
    Q8_0 = 8,
}

impl WeightFormat {
    /// Every format, smallest first.
    pub const ALL: [WeightFormat; 2] = [WeightFormat::Q4_0, WeightFormat::Q8_0];

    /// The name used in GGUF tools.
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::Q4_0 => "q4_0",
            WeightFormat::Q8_0 => "q8_0",
        }
    }

    /// Elements of a block: k must be a multiple of it.
    pub fn block_len(self) -> usize {
        BLOCK
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            WeightFormat::Q4_0 => size_of::<BlockQ4_0>(),
            WeightFormat::Q8_0 => size_of::<BlockQ8_0>(),
        }
    }

    /// Bits of a quant.
    pub(super) fn bits(self) -> u32 {
        match self {
            WeightFormat::Q4_0 => 4,
            WeightFormat::Q8_0 => 8,
        }
    }

    /// Bytes of `rows * k` weights in blocks.
    ///
    /// **Errors**: `Option` when k is no multiple of the block, `Overflow`.
    pub fn bytes(self, rows: usize, k: usize) -> Result<usize> {
        if !k.is_multiple_of(BLOCK) {
            return Err(Error::Option {
                what: "k",
                got: k.to_string(),
                allowed: "a multiple of the block of 32",
            });
        }
        product("blocks", &[rows, k / BLOCK, self.block_bytes()])
    }
}

/// ```text
/// byte 0  1 | 2 ............ 17
///      d16  | qs: low nibble of qs[j] is element j, high nibble element j + 16
/// ```
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BlockQ4_0 {
    pub d: [u8; 2],
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ4_0>() == 18);

/// ```text
/// byte 0  1 | 2 ............ 33
///      d16  | qs: element j is qs[j]
/// ```
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BlockQ8_0 {
    pub d: [u8; 2],
    pub qs: [i8; 32],
}
const _: () = assert!(size_of::<BlockQ8_0>() == 34);
