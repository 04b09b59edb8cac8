//! f16 and bf16. Conversions of f16 are instructions of the baseline, whose intrinsics are newer than the
//! oldest compiler that kvern supports.

use std::arch::aarch64::*;
use std::arch::asm;

/// 8 f16, widened exactly.
#[inline(always)]
pub(super) fn widen_f16(h: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: two instructions of the baseline, on registers.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) low, in(vreg) h,
            options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", out(vreg) high, in(vreg) h,
            options(pure, nomem, nostack, preserves_flags));
    }
    [low, high]
}

/// 16 f32 rounded to f16, ties to even.
#[inline(always)]
pub(super) fn round_f16(v: [float32x4_t; 4]) -> [uint16x8_t; 2] {
    let round = |low: float32x4_t, high: float32x4_t| {
        let mut h: uint16x8_t;
        // SAFETY: two instructions of the baseline, on registers.
        unsafe {
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) h, in(vreg) low,
                options(pure, nomem, nostack, preserves_flags));
            asm!("fcvtn2 {0:v}.8h, {1:v}.4s", inout(vreg) h, in(vreg) high,
                options(pure, nomem, nostack, preserves_flags));
        }
        h
    };
    [round(v[0], v[1]), round(v[2], v[3])]
}

/// 16 f32 rounded to bf16, ties to even; NaN stay NaN.
#[inline(always)]
pub(super) fn round_bf16(v: [float32x4_t; 4]) -> [uint16x8_t; 2] {
    let bits = |a: float32x4_t| {
        // SAFETY: registers only; every AArch64 CPU that runs std has NEON.
        unsafe {
            let x = vreinterpretq_u32_f32(a);
            let odd = vandq_u32(vshrq_n_u32::<16>(x), vdupq_n_u32(1));
            let up = vaddq_u32(vaddq_u32(x, vdupq_n_u32(0x7fff)), odd);
            let quiet = vorrq_u32(x, vdupq_n_u32(0x40_0000));
            vbslq_u32(vceqq_f32(a, a), up, quiet)
        }
    };
    // SAFETY: registers only; every AArch64 CPU that runs std has NEON.
    let narrow = |low, high| unsafe { vshrn_high_n_u32::<16>(vshrn_n_u32::<16>(bits(low)), bits(high)) };
    [narrow(v[0], v[1]), narrow(v[2], v[3])]
}
