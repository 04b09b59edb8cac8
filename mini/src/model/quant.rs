//! The weight formats of a model.

use clap::ValueEnum;
use kvern::quant::WeightFormat;

/// A weight format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quant {
    /// 32-bit floating point
    Fp32,
    /// 8-bit integers with a scale per block
    Int8,
    /// 4-bit integers with a scale per block
    Int4,
}

impl Quant {
    /// Every format, the reference first.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Int8, Self::Int4];

    /// The name in tables: `FP32`, `Int8`, `Int4`.
    pub fn config(self) -> &'static str {
        match self {
            Self::Fp32 => "FP32",
            Self::Int8 => "Int8",
            Self::Int4 => "Int4",
        }
    }

    /// The format of the packed weights in the library; `None` for plain f32.
    pub fn format(self) -> Option<WeightFormat> {
        match self {
            Self::Fp32 => None,
            Self::Int8 => Some(WeightFormat::Q8_0),
            Self::Int4 => Some(WeightFormat::Q4_0),
        }
    }
}
