//! The methods of pairs of activation rows, for `usmmla`.

use super::dots::{self, Acts, Bytes, Sdot, Sums};
use super::lanes::{each, v};
use super::token::Neon;
use crate::kernels::generic::quant_pairs::Pairs;
use crate::kernels::generic::quant_parts::Parts;
use std::arch::aarch64::*;

/// Two registers of f32 or i32 in turn, lane by lane: of registers `2 h` and `2 h + 1`, which become four.
macro_rules! zipped {
    ($zip1:ident, $zip2:ident, $a:ident, $b:ident, $h:expr) => {
        [
            $zip1($a[2 * $h], $b[2 * $h]),
            $zip2($a[2 * $h], $b[2 * $h]),
            $zip1($a[2 * $h + 1], $b[2 * $h + 1]),
            $zip2($a[2 * $h + 1], $b[2 * $h + 1]),
        ]
    };
}

impl Pairs for Neon<Sdot<true>> {
    type Acts = Acts;

    #[inline(always)]
    fn two_groups(self, first: Bytes, second: Bytes) -> [Bytes; 2] {
        let a: [uint32x4_t; 4] = each!(r => vreinterpretq_u32_u8(first[r]));
        let b: [uint32x4_t; 4] = each!(r => vreinterpretq_u32_u8(second[r]));
        let both = v!([zipped!(vzip1q_u32, vzip2q_u32, a, b, 0), zipped!(vzip1q_u32, vzip2q_u32, a, b, 1)]);
        [each!(r => vreinterpretq_u8_u32(both[0][r])), each!(r => vreinterpretq_u8_u32(both[1][r]))]
    }
    #[inline(always)]
    unsafe fn load_acts(self, first: *const i8, second: *const i8, v: usize) -> Acts {
        // SAFETY: handed on to the caller.
        unsafe { dots::load_acts(first, second, v) }
    }
    #[inline(always)]
    fn dot_pair(self, acc: Sums, w: Bytes, a: Acts) -> Sums {
        each!(r => dots::usmmla(acc[r], w[r], a))
    }
    #[inline(always)]
    fn settled(self, v: Self::F32s) -> Self::F32s {
        let rest = v;
        self.join_parts(1, v, self.join_parts(0, v, rest))
    }
    #[inline(always)]
    fn twice(self, v: Self::F32s) -> [Self::F32s; 2] {
        self.join(v, v)
    }
    #[inline(always)]
    fn i_twice(self, a: Sums) -> [Sums; 2] {
        v!([zipped!(vzip1q_s32, vzip2q_s32, a, a, 0), zipped!(vzip1q_s32, vzip2q_s32, a, a, 1)])
    }
    #[inline(always)]
    fn splat_two(self, first: f32, second: f32) -> Self::F32s {
        v!([vzip1q_f32(vdupq_n_f32(first), vdupq_n_f32(second)); 4])
    }
    #[inline(always)]
    fn i_splat_two(self, first: i32, second: i32) -> Sums {
        v!([vzip1q_s32(vdupq_n_s32(first), vdupq_n_s32(second)); 4])
    }
    #[inline(always)]
    fn join(self, first: Self::F32s, second: Self::F32s) -> [Self::F32s; 2] {
        v!([
            zipped!(vzip1q_f32, vzip2q_f32, first, second, 0),
            zipped!(vzip1q_f32, vzip2q_f32, first, second, 1)
        ])
    }
    #[inline(always)]
    fn part(self, [low, high]: [Self::F32s; 2]) -> [Self::F32s; 2] {
        v!([
            [
                vuzp1q_f32(low[0], low[1]),
                vuzp1q_f32(low[2], low[3]),
                vuzp1q_f32(high[0], high[1]),
                vuzp1q_f32(high[2], high[3]),
            ],
            [
                vuzp2q_f32(low[0], low[1]),
                vuzp2q_f32(low[2], low[3]),
                vuzp2q_f32(high[0], high[1]),
                vuzp2q_f32(high[2], high[3]),
            ],
        ])
    }
}
