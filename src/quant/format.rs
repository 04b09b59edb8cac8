//! The formats of weights as GGUF files hold them: names, numbers and sizes.

use crate::error::{Error, Result, product, text};
use crate::kernels::formats::for_each_format;

/// Elements of a block of the small formats, and of a block of quantised activations.
pub(super) const BLOCK: usize = crate::kernels::BLOCK;

macro_rules! formats {
    ($(
        $(#[$doc:meta])* $name:ident = $id:literal, $text:literal, $len:literal in $bytes:expr;
    )+) => {
        /// How weights are stored. The numbers are the type ids of GGUF.
        ///
        /// In the formulas `d`, `dmin` and `m` are f16 numbers of the block, `s` and `t` integers of the
        /// sub-block, `q` an integer of the element. All numbers are little-endian.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum WeightFormat {
            $($(#[$doc])* $name = $id,)+
        }

        /// Number of formats.
        const COUNT: usize = [$($id),+].len();

        /// The numbers of all formats, for messages.
        const NUMBERS: &str = concat!("one of the type ids of GGUF" $(, " ", $id)+);

        impl WeightFormat {
            /// Every format, in the order of its number.
            pub const ALL: [WeightFormat; COUNT] = [$(WeightFormat::$name),+];

            /// The name used in GGUF tools.
            pub fn name(self) -> &'static str {
                match self {
                    $(WeightFormat::$name => $text,)+
                }
            }

            /// Elements of a block: k must be a multiple of it. 1 for the formats of single floats.
            pub const fn block_len(self) -> usize {
                match self {
                    $(WeightFormat::$name => $len,)+
                }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(WeightFormat::$name => $bytes,)+
                }
            }
        }
    };
}
for_each_format!(formats);

impl WeightFormat {
    /// Bytes of `rows * k` weights in blocks.
    ///
    /// **Errors**: `Option` when k is no multiple of the block, `Overflow`.
    pub fn bytes(self, rows: usize, k: usize) -> Result<usize> {
        let len = self.block_len();
        if !k.is_multiple_of(len) {
            let allowed = match len {
                32 => "a multiple of the block of 32",
                64 => "a multiple of the block of 64",
                128 => "a multiple of the block of 128",
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
            allowed: NUMBERS,
        })
    }
}
