//! Types of elements, as the files name them.

use crate::blob::wrong;
use crate::error::Result;
use crate::quant::WeightFormat;
use ::safetensors::Dtype;
use std::fmt;

macro_rules! types {
    ($($(#[$doc:meta])* $name:ident = $theirs:ident, $text:literal, $bits:literal;)+) => {
        /// The type of a tensor's elements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ElementType {
            $($(#[$doc])* $name,)+
        }

        impl ElementType {
            /// The name in the file, such as `BF16`.
            pub fn name(self) -> &'static str {
                match self {
                    $(ElementType::$name => $text,)+
                }
            }

            /// Bits of an element.
            pub fn bits(self) -> usize {
                match self {
                    $(ElementType::$name => $bits,)+
                }
            }

            /// Our name of the parser's.
            pub(super) fn of(theirs: Dtype) -> Result<ElementType> {
                match theirs {
                    $(Dtype::$theirs => Ok(ElementType::$name),)+
                    other => wrong("type of a tensor", other, "one that this version of kvern knows"),
                }
            }
        }
    };
}

types! {
    /// IEEE binary32.
    F32 = F32, "F32", 32;
    /// IEEE binary16.
    F16 = F16, "F16", 16;
    /// The upper half of a binary32.
    Bf16 = BF16, "BF16", 16;
    /// IEEE binary64.
    F64 = F64, "F64", 64;
    /// 8 bits with 4 of exponent and 3 of fraction.
    F8E4M3 = F8_E4M3, "F8_E4M3", 8;
    /// 8 bits with 5 of exponent and 2 of fraction.
    F8E5M2 = F8_E5M2, "F8_E5M2", 8;
    /// 8 bits of exponent: the scale of the OCP microscaling formats.
    F8E8M0 = F8_E8M0, "F8_E8M0", 8;
    /// 6 bits with 2 of exponent and 3 of fraction.
    F6E2M3 = F6_E2M3, "F6_E2M3", 6;
    /// 6 bits with 3 of exponent and 2 of fraction.
    F6E3M2 = F6_E3M2, "F6_E3M2", 6;
    /// 4 bits with 2 of exponent and 1 of fraction.
    F4 = F4, "F4", 4;
    /// 8 bits with sign.
    I8 = I8, "I8", 8;
    /// 8 bits without sign.
    U8 = U8, "U8", 8;
    /// 16 bits with sign.
    I16 = I16, "I16", 16;
    /// 16 bits without sign.
    U16 = U16, "U16", 16;
    /// 32 bits with sign.
    I32 = I32, "I32", 32;
    /// 32 bits without sign.
    U32 = U32, "U32", 32;
    /// 64 bits with sign.
    I64 = I64, "I64", 64;
    /// 64 bits without sign.
    U64 = U64, "U64", 64;
    /// Two binary32, a complex number.
    C64 = C64, "C64", 64;
    /// One byte, 0 or 1.
    Bool = BOOL, "BOOL", 8;
}

impl ElementType {
    /// The format of weights with such elements, for the types that kvern computes with.
    pub fn format(self) -> Option<WeightFormat> {
        match self {
            ElementType::F32 => Some(WeightFormat::F32),
            ElementType::F16 => Some(WeightFormat::F16),
            ElementType::Bf16 => Some(WeightFormat::Bf16),
            _ => None,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
