//! The methods of parts of the 16 weight rows, for `sdot`.

use super::dots::{Bytes, Dots, Lane, Sdot, Sums, sdot_lane};
use super::lanes::{each, v};
use super::token::Neon;
use crate::kernels::generic::quant_parts::Parts;
use std::arch::aarch64::*;
use std::arch::asm;

/// Registers of a part.
const REGISTERS: usize = 2;

impl<const I8MM: bool> Parts for Neon<Sdot<I8MM>>
where
    Sdot<I8MM>: Dots<Act = Lane>,
{
    #[inline(always)]
    #[allow(clippy::pointers_in_nomem_asm_block)] // no instruction
    fn again(self, mut p: *const u8) -> *const u8 {
        // SAFETY: no instruction.
        unsafe { asm!("/* {0} */", inout(reg) p, options(nomem, nostack, preserves_flags)) }
        p
    }
    #[inline(always)]
    fn dot_part(self, part: usize, mut acc: Sums, w: Bytes, a: Lane) -> Sums {
        for r in REGISTERS * part..REGISTERS * (part + 1) {
            acc[r] = v!(sdot_lane(acc[r], w[r], a));
        }
        acc
    }
    #[inline(always)]
    fn signed(self, w: Bytes) -> Bytes {
        each!(r => veorq_u8(w[r], vdupq_n_u8(128)))
    }
    #[inline(always)]
    fn join_parts(self, part: usize, of: Self::F32s, mut rest: Self::F32s) -> Self::F32s {
        for r in REGISTERS * part..REGISTERS * (part + 1) {
            let mut register = of[r];
            // SAFETY: no instruction; dot products stay behind it, as behind each other.
            unsafe { asm!("/* {0:v} */", inout(vreg) register, options(nomem, nostack, preserves_flags)) }
            rest[r] = register;
        }
        rest
    }
}
