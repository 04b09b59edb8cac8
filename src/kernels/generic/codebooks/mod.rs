//! The codebooks of ggml's smallest formats, as words that a tile gathers: one word holds 4 elements, each
//! the byte `OFFSET + value` of an unpacked code.
//!
//! Tables of words rather than of 2 or 3 bits an element: the largest has 16 KiB and stays in L1, and the
//! bits would take five operations to spread to bytes.

mod one;
mod three;
mod two;

use super::quant_codes::{Codes, Wide};

/// The words of entries of `4 * W` elements of `bits` bits; element i stands for `values[i]`.
const fn words<const N: usize, const W: usize>(
    entries: &[u16; N],
    bits: u32,
    values: [u8; 8],
) -> [[u32; W]; N] {
    let (mut words, mut e) = ([[0; W]; N], 0);
    while e < N {
        let mut i = 0;
        while i < 4 * W {
            let code = entries[e] >> (bits * i as u32) & ((1 << bits) - 1);
            words[e][i / 4] |= (values[code as usize] as u32) << (8 * (i % 4));
            i += 1;
        }
        e += 1;
    }
    words
}

/// A codebook.
pub(crate) trait Codebook {
    /// Elements of an entry: 4 or 8.
    const WIDTH: usize;
    /// What is added to values: 128, or 16 where that leaves 5 bits.
    const OFFSET: u32;
    /// The unpacked codes.
    type Wide: Codes;
    /// The words: `WIDTH / 4` an entry.
    fn words() -> &'static [u32];

    /// The value of element `i` of an entry.
    fn value(entry: usize, i: usize) -> i8 {
        let word = Self::words()[entry * (Self::WIDTH / 4) + i / 4];
        ((word >> (8 * (i % 4)) & 255) as i32 - Self::OFFSET as i32) as i8
    }
}

macro_rules! codebooks {
    ($(
        $(#[$doc:meta])*
        $name:ident: $codes:expr, $bits:literal bits, $width:literal + $offset:literal, $wide:ty,
        $values:expr;
    )+) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl Codebook for $name {
                const WIDTH: usize = $width;
                const OFFSET: u32 = $offset;
                type Wide = $wide;

                #[inline(always)]
                fn words() -> &'static [u32] {
                    static WORDS: [[u32; $width / 4]; $codes.len()] = words(&$codes, $bits, {
                        let (mut values, mut i): ([u8; 8], usize) = ($values, 0);
                        while i < 8 {
                            values[i] = values[i].wrapping_add($offset);
                            i += 1;
                        }
                        values
                    });
                    WORDS.as_flattened()
                }
            }
        )+
    };
}

codebooks! {
    /// IQ1_S and IQ1_M: 8 times the element, to which 1 is added or subtracted.
    One: one::ONE, 2 bits, 8 + 16, Wide<5>, [8u8.wrapping_neg(), 0, 8, 0, 0, 0, 0, 0];
    /// IQ2_XXS.
    TwoXxs: two::TWO_XXS, 2 bits, 8 + 128, Wide<8>, [8, 25, 43, 0, 0, 0, 0, 0];
    /// IQ2_XS.
    TwoXs: two::TWO_XS, 2 bits, 8 + 128, Wide<8>, [8, 25, 43, 0, 0, 0, 0, 0];
    /// IQ2_S.
    TwoS: two::TWO_S, 2 bits, 8 + 128, Wide<8>, [8, 25, 43, 0, 0, 0, 0, 0];
    /// IQ3_XXS.
    ThreeXxs: three::THREE_XXS, 3 bits, 4 + 128, Wide<8>, [4, 12, 20, 28, 36, 44, 52, 62];
    /// IQ3_S.
    ThreeS: three::THREE_S, 3 bits, 4 + 16, Wide<5>, [1, 3, 5, 7, 9, 11, 13, 15];
}
