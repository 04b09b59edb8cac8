//! A tier on its first day: the methods of [`Simd`] and [`SimdBytes`] that have no default, by the scalar
//! code. Everything else is the defaults, which have to give the bits of the scalar tier's own methods.
//!
//! `run.sh` beside this file makes a tier of it and runs the tests at that tier; `cargo test` compares its
//! methods with those of the scalar tier.

use super::scalar::Scalar;
use super::simd::Simd;
use super::simd_bytes::SimdBytes;

#[derive(Clone, Copy)]
pub(crate) struct Stub;

impl Simd for Stub {
    type F32s = <Scalar as Simd>::F32s;
    type I32s = <Scalar as Simd>::I32s;
    const DOUBLE_ACCUMULATOR_TILES: usize = 0;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Stub
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32s {
        Scalar.splat(x)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F32s {
        // SAFETY: handed on to the caller.
        unsafe { Scalar.load(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::F32s) {
        // SAFETY: handed on to the caller.
        unsafe { Scalar.store(p, v) }
    }
    #[inline(always)]
    fn bits(self, a: Self::F32s) -> Self::I32s {
        Scalar.bits(a)
    }
    #[inline(always)]
    fn of_bits(self, a: Self::I32s) -> Self::F32s {
        Scalar.of_bits(a)
    }
    #[inline(always)]
    fn add(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        Scalar.add(a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        Scalar.sub(a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        Scalar.mul(a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        Scalar.div(a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s {
        Scalar.fma(a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        Scalar.max(a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        Scalar.min(a, b)
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F32s, b: Self::F32s, x: Self::F32s, y: Self::F32s) -> Self::F32s {
        Scalar.select_lt(a, b, x, y)
    }
    #[inline(always)]
    fn i_splat(self, x: i32) -> Self::I32s {
        Scalar.i_splat(x)
    }
    #[inline(always)]
    fn i_add(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        Scalar.i_add(a, b)
    }
    #[inline(always)]
    fn i_sub(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        Scalar.i_sub(a, b)
    }
    #[inline(always)]
    fn i_mul(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        Scalar.i_mul(a, b)
    }
    #[inline(always)]
    fn i_and(self, a: Self::I32s, b: i32) -> Self::I32s {
        Scalar.i_and(a, b)
    }
    #[inline(always)]
    fn i_shl(self, a: Self::I32s, n: u32) -> Self::I32s {
        Scalar.i_shl(a, n)
    }
    #[inline(always)]
    fn i_shr(self, a: Self::I32s, n: u32) -> Self::I32s {
        Scalar.i_shr(a, n)
    }
    #[inline(always)]
    unsafe fn i_load(self, p: *const i32) -> Self::I32s {
        // SAFETY: handed on to the caller.
        unsafe { Scalar.i_load(p) }
    }
    #[inline(always)]
    unsafe fn i_store(self, p: *mut i32, a: Self::I32s) {
        // SAFETY: handed on to the caller.
        unsafe { Scalar.i_store(p, a) }
    }
    #[inline(always)]
    fn i_to_f32(self, a: Self::I32s) -> Self::F32s {
        Scalar.i_to_f32(a)
    }
}

impl SimdBytes for Stub {
    type Bytes = <Scalar as SimdBytes>::Bytes;
    type Act = <Scalar as SimdBytes>::Act;
    type NarrowAcc = <Scalar as SimdBytes>::NarrowAcc;
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Self::Bytes {
        // SAFETY: handed on to the caller.
        unsafe { Scalar.load_bytes(p) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, q: Self::Bytes) {
        // SAFETY: handed on to the caller.
        unsafe { Scalar.store_bytes(p, q) }
    }
    #[inline(always)]
    unsafe fn load_act(self, p: *const i8) -> Self::Act {
        // SAFETY: handed on to the caller.
        unsafe { Scalar.load_act(p) }
    }
    #[inline(always)]
    fn narrow_start(self, init: Self::I32s) -> Self::NarrowAcc {
        Scalar.narrow_start(init)
    }
    #[inline(always)]
    fn narrow_dot(self, acc: Self::NarrowAcc, w: Self::Bytes, a: Self::Act) -> Self::NarrowAcc {
        Scalar.narrow_dot(acc, w, a)
    }
    #[inline(always)]
    fn narrow_end(self, acc: Self::NarrowAcc, init: Self::I32s) -> Self::I32s {
        Scalar.narrow_end(acc, init)
    }
    #[inline(always)]
    fn byte_start(self, neg_sum: Self::I32s) -> Self::I32s {
        Scalar.byte_start(neg_sum)
    }
    #[inline(always)]
    fn byte_dot(self, acc: Self::I32s, w: Self::Bytes, a: Self::Act) -> Self::I32s {
        Scalar.byte_dot(acc, w, a)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::LANES;

    /// The numbers of `next` as lanes: of all sizes, both signs, subnormals, infinities and NaN.
    fn numbers(seed: &mut u64) -> [f32; LANES] {
        std::array::from_fn(|i| match i {
            0 => [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-42]
                [(next(seed) % 7) as usize],
            1..6 => f32::from_bits(next(seed) as u32),
            _ => (next(seed) as i32 as f32) / (1u64 << (next(seed) % 40)) as f32,
        })
    }

    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 29
    }

    fn bits(x: [f32; LANES]) -> [u32; LANES] {
        x.map(f32::to_bits)
    }

    #[test]
    fn defaults_have_the_bits_of_the_scalar_methods() {
        let mut seed = 1;
        for _ in 0..2000 {
            let x = numbers(&mut seed);
            let small: [f32; LANES] = std::array::from_fn(|i| x[i] % 4_000_000.0);
            let q: [u32; LANES] = std::array::from_fn(|_| next(&mut seed) as u32);
            let q2: [u32; LANES] = std::array::from_fn(|_| next(&mut seed) as u32);
            let i = q.map(|w| w as i32);
            assert_eq!(bits(Stub.abs(x)), bits(Scalar.abs(x)));
            assert_eq!(bits(Stub.neg(x)), bits(Scalar.neg(x)));
            assert_eq!(bits(Stub.round(small)), bits(Scalar.round(small)));
            assert_eq!(Stub.f_to_i32(small), Scalar.f_to_i32(small));
            // Which of two NaN a sum takes over is not defined.
            let (sum, expected) = (Stub.fold_add(x), Scalar.fold_add(x));
            assert!(sum.to_bits() == expected.to_bits() || sum.is_nan() && expected.is_nan());
            assert_eq!(Stub.fold_max(x).to_bits(), Scalar.fold_max(x).to_bits());
            assert_eq!(Stub.i_fold_add(i), Scalar.i_fold_add(i));
            assert_eq!(bits(Stub.bf16_first(i)), bits(Scalar.bf16_first(i)));
            assert_eq!(bits(Stub.bf16_second(i)), bits(Scalar.bf16_second(i)));
            assert_eq!(Stub.bytes_or(q, q2), Scalar.bytes_or(q, q2));
            assert_eq!(Stub.bytes_zero(), Scalar.bytes_zero());
            assert_eq!(Stub.bytes_low_nibbles(q), Scalar.bytes_low_nibbles(q));
            assert_eq!(Stub.bytes_high_nibbles(q), Scalar.bytes_high_nibbles(q));
            for (from, to, mask) in [(0, 0, 15), (4, 0, 15), (0, 4, 1), (7, 3, 1), (2, 4, 3)] {
                assert_eq!(Stub.bytes_bits(q, from, to, mask), Scalar.bytes_bits(q, from, to, mask));
            }
            let table: [u8; 16] = std::array::from_fn(|_| next(&mut seed) as u8);
            let nibbles = q.map(|w| w & 0x0f0f_0f0f);
            assert_eq!(Stub.bytes_lookup(nibbles, &table), Scalar.bytes_lookup(nibbles, &table));
            for j in 0..4 {
                assert_eq!(bits(Stub.byte_to_f32(q, j)), bits(Scalar.byte_to_f32(q, j)));
            }
            let bytes = i.map(|b| b & 255);
            assert_eq!(bits(Stub.low_nibble(bytes)), bits(Scalar.low_nibble(bytes)));
            assert_eq!(bits(Stub.high_nibble(bytes)), bits(Scalar.high_nibble(bytes)));
            let p: [f32; LANES] = std::array::from_fn(|i| match i {
                0 => f32::NAN,
                _ => f32::from_bits(0x3f00_0000 | next(&mut seed) as u32 & 0x00ff_ffff),
            });
            let n: [f32; LANES] = std::array::from_fn(|_| (next(&mut seed) % 250) as f32 - 124.0);
            assert_eq!(bits(Stub.scale2(p, n)), bits(Scalar.scale2(p, n)));
        }
    }

    #[test]
    fn default_loads_and_stores_have_the_bits_of_the_scalar_methods() {
        let mut seed = 2;
        for _ in 0..500 {
            let halves: [u16; 32] = std::array::from_fn(|_| next(&mut seed) as u16);
            let x = numbers(&mut seed);
            let bytes = halves.as_ptr().cast::<u8>();
            // SAFETY: 32 u16 are more than any of these reads.
            unsafe {
                assert_eq!(bits(Stub.load_f16(halves.as_ptr())), bits(Scalar.load_f16(halves.as_ptr())));
                assert_eq!(bits(Stub.load_f16_le(bytes)), bits(Scalar.load_f16_le(bytes)));
                assert_eq!(bits(Stub.load_le(bytes)), bits(Scalar.load_le(bytes)));
                assert_eq!(bits(Stub.load_bf16(halves.as_ptr())), bits(Scalar.load_bf16(halves.as_ptr())));
                assert_eq!(Stub.load_bf16_pairs(halves.as_ptr()), Scalar.load_bf16_pairs(halves.as_ptr()));
                assert_eq!(Stub.load_u8(bytes), Scalar.load_u8(bytes));
                assert_eq!(Stub.i_load_i8(bytes.cast()), Scalar.i_load_i8(bytes.cast()));
                assert_eq!(bits(Stub.load_e8m0(bytes)), bits(Scalar.load_e8m0(bytes)));
            }
            for n in 0..=LANES {
                let (mut a, mut b) = ([7u16; LANES], [7u16; LANES]);
                let (mut f, mut g) = ([7f32; LANES], [7f32; LANES]);
                // SAFETY: n <= 16 elements of arrays of 16.
                unsafe {
                    assert_eq!(bits(Stub.load_n(x.as_ptr(), n)), bits(Scalar.load_n(x.as_ptr(), n)));
                    Stub.store_f16_n(a.as_mut_ptr(), x, n);
                    Scalar.store_f16_n(b.as_mut_ptr(), x, n);
                    assert_eq!(a, b);
                    Stub.store_bf16_n(a.as_mut_ptr(), x, n);
                    Scalar.store_bf16_n(b.as_mut_ptr(), x, n);
                    assert_eq!(a, b);
                    Stub.store_n(f.as_mut_ptr(), x, n);
                    Scalar.store_n(g.as_mut_ptr(), x, n);
                    assert_eq!(bits(f), bits(g));
                }
            }
            let (mut a, mut b) = ([0i8; LANES], [0i8; LANES]);
            let i: [i32; LANES] = std::array::from_fn(|i| i32::from(halves[i] as i8));
            // SAFETY: arrays of 16 bytes.
            unsafe {
                Stub.i_store_i8(a.as_mut_ptr(), i);
                Scalar.i_store_i8(b.as_mut_ptr(), i);
            }
            assert_eq!(a, b);
            let from: [[f32; 17]; 16] = std::array::from_fn(|r| std::array::from_fn(|c| (r * 17 + c) as f32));
            let (mut f, mut g) = ([[0f32; 18]; 16], [[0f32; 18]; 16]);
            // SAFETY: 16 rows of 16 elements and more on each side.
            unsafe {
                Stub.transpose(from.as_ptr().cast(), 17, f.as_mut_ptr().cast(), 18);
                Scalar.transpose(from.as_ptr().cast(), 17, g.as_mut_ptr().cast(), 18);
            }
            assert_eq!(f, g);
        }
    }
}
