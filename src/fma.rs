//! The fused multiply-add of single numbers, without the system's C library.
//!
//! `f32::mul_add` is one instruction where the target has it and a call of the C library's `fmaf` where not,
//! and those differ: mingw's rounds twice. The portable tier is the definition of every result, so it has its
//! own.

/// `a * b + c`, rounded once.
///
/// **Numerics**: IEEE 754 fusedMultiplyAdd to nearest, ties to even, subnormals, infinities and NaN included.
/// **Source**: rounding to odd before the last rounding: Boldo & Melquiond 2008.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(any(target_feature = "fma", target_arch = "aarch64"))]
    return a.mul_add(b, c);
    #[cfg(not(any(target_feature = "fma", target_arch = "aarch64")))]
    by_f64(a, b, c)
}

/// [`fma`] by operations that every CPU with f64 has.
///
/// The product of two f32 is exact in f64, and no sum of it and an f32 over- or underflows there. `sum` and
/// `error` are the exact result (two-sum). Its rounding to odd (the even neighbour is never taken unless it
/// is exact) keeps on which side of every f32, and of every point halfway between two, the exact result lies,
/// since f64 has more than two bits beyond f32: the last rounding is that of the exact result.
#[cfg(any(test, not(any(target_feature = "fma", target_arch = "aarch64"))))]
#[inline(always)]
fn by_f64(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let added = sum - product;
    let error = (product - (sum - added)) + (c - added);
    let bits = sum.to_bits();
    // Towards the exact result: away from zero where the error has the sign of the sum. A NaN error (of
    // infinities) compares with nothing and moves nothing.
    let inexact = u64::from(error.abs() > 0.0);
    let even = !bits & 1;
    let away = (bits ^ error.to_bits()) >> 63 ^ 1; // 1 for equal signs
    let step = (away << 1).wrapping_sub(1); // 1 or -1
    f64::from_bits(bits.wrapping_add(step * (inexact & even))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `m * 2^e`, exactly.
    #[derive(Clone, Copy)]
    struct Exact {
        m: i128,
        e: i32,
    }

    fn exact(x: f32) -> Exact {
        let bits = x.to_bits();
        let (exponent, fraction) = ((bits >> 23 & 255) as i32, i128::from(bits & 0x7f_ffff));
        let m = if exponent == 0 { fraction } else { fraction | 1 << 23 };
        Exact { m: if x.is_sign_negative() { -m } else { m }, e: exponent.max(1) - 150 }
    }

    /// `a * b + c` of finite numbers by integers, rounded to nearest even by hand.
    fn by_integers(a: f32, b: f32, c: f32) -> f32 {
        let (x, y, z) = (exact(a), exact(b), exact(c));
        let p = Exact { m: x.m * y.m, e: x.e + y.e };
        if p.m == 0 && z.m == 0 {
            return a * b + c; // signs of zeros, which f32 has right
        }
        if p.m == 0 {
            return c;
        }
        // The number with the higher exponent moves down to the other; where that would leave i128, the other
        // is far below the last bit that counts and becomes one sticky unit.
        let (high, low) = if p.e >= z.e { (p, z) } else { (z, p) };
        let shift = high.e - low.e;
        let (mut m, mut e) = if shift <= 70 {
            ((high.m << shift) + low.m, low.e)
        } else if high.m == 0 {
            (low.m, low.e)
        } else {
            // low < 2^48 * 2^low.e is below one unit of 2^(high.e - 20).
            ((high.m << 20) + low.m.signum(), high.e - 20)
        };
        if m == 0 {
            return 0.0;
        }
        let negative = m < 0;
        m = m.abs();
        // 24 bits, or fewer down to the least subnormal.
        let drop = (128 - m.leading_zeros() as i32 - 24).max(-149 - e);
        if drop > 0 {
            let (kept, rest) = if drop > 126 { (0, m) } else { (m >> drop, m & ((1 << drop) - 1)) };
            let half = if drop > 126 { i128::MAX } else { 1 << (drop - 1) };
            m = kept + i128::from(rest > half || rest == half && kept & 1 == 1);
            e += drop;
        }
        // At most 24 bits and one carry: exact in f64, and a number of f32 or beyond its largest.
        let value = m as f64 * f64::from_bits(((e + 1023) as u64) << 52);
        let value = if value > f64::from(f32::MAX) { f32::INFINITY } else { value as f32 };
        if negative { -value } else { value }
    }

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// Any finite f32, or one of few mantissa bits, or one of a few exponents: where ties are likely.
        fn f32(&mut self) -> f32 {
            let bits = (self.next() >> 20) as u32;
            let sparse = bits & !(0x7f_ffff >> (self.next() % 12));
            let narrow = bits & 0x807f_ffff | (117 + (self.next() >> 30) as u32 % 20) << 23;
            let bits = match self.next() >> 32 & 3 {
                0 => bits,
                1 => sparse,
                2 => narrow,
                _ => narrow & sparse,
            };
            let x = f32::from_bits(bits);
            if x.is_finite() { x } else { f32::from_bits(bits & !(1 << 30)) }
        }
    }

    #[track_caller]
    fn check(a: f32, b: f32, c: f32) {
        if ![a, b, c].iter().all(|x| x.is_finite()) {
            return; // an overflow in the making of a case
        }
        let want = by_integers(a, b, c);
        for got in [by_f64(a, b, c), fma(a, b, c)] {
            assert_eq!(got.to_bits(), want.to_bits(), "{a:e} * {b:e} + {c:e}: {got:e} is not {want:e}");
        }
    }

    #[test]
    fn a_fused_multiply_add_rounds_the_exact_result_once() {
        let ulp = f32::EPSILON;
        check(1.0, 1.0, ulp / 2.0); // a tie, to even
        check(1.0 + ulp, 1.0, ulp / 2.0); // a tie, away
        check(1.0 + ulp, 1.0 - ulp, -1.0); // what a product rounded first loses
        check(1.0 + ulp, 1.0 + ulp, -1.0 - 2.0 * ulp);
        // Just beside a tie, by less than f64 sees: where rounding to f64 first is wrong.
        check(1.0, 1.0 + ulp, f32::from_bits(0x3380_0000 - 1));
        let mut r = Random(0x9E37_79B9_7F4A_7C15);
        for _ in 0..150_000 {
            let (a, b, c) = (r.f32(), r.f32(), r.f32());
            check(a, b, c);
            check(a, b, -a * b); // cancellation down to the error of the product
            let p = a * b;
            if p.is_finite() {
                // The product lies halfway between two sums, or beside.
                let below = f32::from_bits(p.to_bits().wrapping_sub(1 << 23));
                check(a, b, if below.is_finite() { below } else { 0.0 });
                let tiny = f32::from_bits(1 + (r.next() >> 60) as u32);
                check(p, 1.0, tiny);
                // A sum that is a tie but for a last product far below it.
                let half = f32::from_bits((p.to_bits() & 0x7f80_0000).saturating_sub(24 << 23));
                check(half, 1.0 + ulp * (a.to_bits() & 3) as f32, p);
                check(half, -1.0, p);
            }
            // Results among the subnormals and at the largest number.
            let small = f32::from_bits(c.to_bits() & 0x80ff_ffff);
            check(a, f32::from_bits(b.to_bits() & 0x807f_ffff | 0x0080_0000), small);
            let large = f32::from_bits(c.to_bits() & 0x807f_ffff | 0x7f00_0000);
            check(large, 1.0 + b.abs().min(1.0), large);
        }
    }

    #[test]
    fn infinities_zeros_and_nan_follow_ieee() {
        let special =
            [0.0, -0.0, 1.0, -1.0, f32::MAX, f32::from_bits(1), f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for a in special {
            for b in special {
                for c in special {
                    let got = by_f64(a, b, c);
                    // Of these numbers every sum is right in f64, but beside the largest f32.
                    let product = f64::from(a) * f64::from(b);
                    let want = (product + f64::from(c)) as f32;
                    let tie = a.abs() == f32::MAX || b.abs() == f32::MAX || c.abs() == f32::MAX;
                    if want.is_nan() {
                        assert!(got.is_nan() && fma(a, b, c).is_nan(), "{a} * {b} + {c}");
                    } else if !tie {
                        assert_eq!(got.to_bits(), want.to_bits(), "{a} * {b} + {c}");
                        assert_eq!(fma(a, b, c).to_bits(), want.to_bits(), "{a} * {b} + {c}");
                    } else if a.is_finite() && b.is_finite() && c.is_finite() {
                        check(a, b, c);
                    }
                }
            }
        }
    }
}
