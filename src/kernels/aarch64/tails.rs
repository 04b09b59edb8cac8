//! The first `n` of 16 numbers, in memory. Called, not inlined: whole vectors are the common case, which
//! [`Simd`](crate::kernels::simd::Simd)'s methods keep to themselves, and each copy would be 30 instructions.

use std::arch::aarch64::*;

/// Copies `n` numbers in pieces of 8, 4, 2 and 1.
///
/// # Safety
/// - `from` is valid for reads and `to` for writes of `n < 16` numbers, which do not overlap.
#[inline(always)]
unsafe fn copy<T: Copy>(from: *const T, to: *mut T, n: usize) {
    let mut at = 0;
    macro_rules! piece {
        ($size:literal) => {
            if n & $size != 0 {
                // SAFETY: n has the bit $size, so that as many numbers from `at` on exist.
                unsafe {
                    let piece = from.add(at).cast::<[T; $size]>().read_unaligned();
                    to.add(at).cast::<[T; $size]>().write_unaligned(piece);
                }
                at += $size;
            }
        };
    }
    piece!(8);
    piece!(4);
    piece!(2);
    if n & 1 != 0 {
        // SAFETY: the last of the n numbers.
        unsafe { to.add(at).write_unaligned(from.add(at).read_unaligned()) };
    }
}

/// The first `n` lanes; the others are +0.0.
///
/// # Safety
/// - `p` is valid for reads of `n < 16` f32.
#[inline(never)]
pub(super) unsafe fn load(p: *const f32, n: usize) -> [float32x4_t; 4] {
    let mut lanes = [0f32; 16];
    // SAFETY: the caller's n f32 go to an array of 16, which has the size of the registers.
    unsafe {
        copy(p, lanes.as_mut_ptr(), n);
        lanes.as_ptr().cast::<[float32x4_t; 4]>().read_unaligned()
    }
}

/// Stores the first `n` of 16 f32.
///
/// # Safety
/// - `p` is valid for writes of `n < 16` f32.
#[inline(never)]
pub(super) unsafe fn store(p: *mut f32, v: &[float32x4_t; 4], n: usize) {
    // SAFETY: 16 f32, of which the first n go to the caller's.
    unsafe { copy((&raw const *v).cast(), p, n) }
}

/// Stores the first `n` of 16 numbers of 2 bytes.
///
/// # Safety
/// - `p` is valid for writes of `n < 16` u16.
#[inline(never)]
pub(super) unsafe fn store_u16(p: *mut u16, v: &[uint16x8_t; 2], n: usize) {
    // SAFETY: 16 u16, of which the first n go to the caller's.
    unsafe { copy((&raw const *v).cast(), p, n) }
}
