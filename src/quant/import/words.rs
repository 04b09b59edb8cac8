//! Integers of a few bits in words of 32, from the low end up and across the words' ends.

use crate::error::{Result, option};

/// The integer at position `position` of a row of words.
pub(super) fn unpack(word: impl Fn(usize) -> i32, position: usize, bits: u32) -> u8 {
    let start = position * bits as usize;
    let (at, shift) = (start / 32, (start % 32) as u32);
    let mut x = word(at) as u32 >> shift;
    if shift + bits > 32 {
        x |= (word(at + 1) as u32) << (32 - shift);
    }
    x as u8 & ((1u16 << bits) - 1) as u8
}

/// Words of `len` integers; refuses a length that does not fill whole words.
pub(super) fn words(what: &'static str, len: usize, bits: u32) -> Result<usize> {
    let (integers, words, allowed) = match bits {
        2 => (16, 1, "a multiple of the 16 codes of a word"),
        3 => (32, 3, "a multiple of the 32 codes of 3 words"),
        4 => (8, 1, "a multiple of the 8 codes of a word"),
        _ => (4, 1, "a multiple of the 4 codes of a word"),
    };
    option(len.is_multiple_of(integers), what, len, allowed)?;
    Ok(len / integers * words)
}
