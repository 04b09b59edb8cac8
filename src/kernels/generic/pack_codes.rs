//! Codes of 16 rows into the vectors of packed blocks: 64 codes of each row are transposed as 16 words of
//! four, which is how four k of a row stay together, and the words of a plane are shifted into place. A row
//! at a time, with words 64 bytes apart, took ten times as many instructions.

use super::LANES;
use super::quant_codes::Plane;
use crate::kernels::simd::Simd;

/// Codes of two blocks of 32 k at most, and where they go.
pub(crate) struct PackCodes {
    pub codes: *const u8, // (16, 64)
    pub planes: &'static [Plane],
    /// The codes of each block, or null for one that is not there. // (2, bytes of a block's codes)
    pub to: [*mut u8; 2],
}

/// # Safety
/// - every operand is valid as the comments of [`PackCodes`] say.
#[inline(always)]
pub(crate) unsafe fn pack_codes<S: Simd>(s: S, p: &PackCodes) {
    // Row w: the words of all rows for k = 4 w. Only moved, so that bits that are no f32 stay what they are.
    let mut words = [0f32; LANES * LANES];
    // SAFETY: 16 rows of 16 words on both sides.
    unsafe { s.transpose(p.codes.cast(), LANES, words.as_mut_ptr(), LANES) };
    for b in 0..2 {
        if p.to[b].is_null() {
            continue;
        }
        for i in 0..p.planes.len() {
            let plane = p.planes[i];
            let mask = (0x0101_0101 * ((1u32 << plane.bits) - 1)) as i32;
            for v in 0..plane.bits as usize {
                let mut vector = s.i_splat(0);
                for j in 0..(8 / plane.bits) as usize {
                    let (g, shift) = plane.group(v, j);
                    // SAFETY: word 8 b + g < 16 of all rows.
                    let word = unsafe { s.i_load(words.as_ptr().add((8 * b + g) * LANES).cast()) };
                    let bits = s.i_and(s.i_shr(word, plane.at), mask);
                    vector = s.i_xor(vector, s.i_shl(bits, shift));
                }
                // SAFETY: vector v of the plane, of 64 bytes.
                unsafe { s.i_store(p.to[b].add(plane.start + 64 * v).cast(), vector) };
            }
        }
    }
}
