//! The quantisers that search: a block's d (and dmin), its sub-blocks' scales (and minima) and its codes for
//! the least squared error, every weight counting the same.
//!
//! Each sub-block is fitted alone in f32 ([`fit`]). Then its scale has to become a small integer times d. So
//! integers next to the fitted scale are tried with the error they truly leave, and d is fitted to the
//! integers and codes chosen; these two steps alternate, and the best of all rounds is kept.

use super::block::{Codec, Decoded, MAX_BLOCK, MAX_SUBS, Values, half_e4m3};
use super::coarse::{self, Scaled, stored};
use super::fit::{self, Grid, Integers, Listed, inverse, round, sums};
use half::f16;

/// Rounds of choosing integers and fitting d. A fourth changes the error by less than 0.05 %.
const ROUNDS: usize = 3;

/// The squared error that a block may have, of what is within reach: 1.2 of it before squaring.
const WORTH: f32 = 1.44;

/// Magnitudes beyond this saturate: more than any format reaches (65504 * 128 * 32), and its square is
/// finite.
const LIMIT: f32 = 1e9;

/// Q3_K, Q6_K, IQ4_NL, IQ4_XS, and Q4_0, Q5_0, Q8_0 where f16 is coarse: `w = d * scale * value`.
pub(super) fn scaled(codec: &Codec, x: &[f32], out: &mut Decoded) {
    match codec.values {
        Values::Linear { zero } => {
            let lo = -f32::from(zero);
            let hi = lo + f32::from((1u16 << codec.bits) - 1);
            scaled_on(Integers { lo, hi }, codec, x, out);
        }
        Values::Table(table) => scaled_on(Listed { values: &table.map(f32::from) }, codec, x, out),
        Values::Entries(_) => {} // have a search of their own
    }
}

/// TQ1_0 and TQ2_0 where f16 is coarse or ends: `w = d * value`, -1, 0 or 1.
pub(super) fn ternary(codec: &Codec, x: &[f32], out: &mut Decoded) {
    scaled_on(Integers { lo: -1.0, hi: 1.0 }, codec, x, out);
}

fn scaled_on(grid: impl Grid, codec: &Codec, x: &[f32], out: &mut Decoded) {
    let (lo, hi) = (f32::from(codec.scales.0), f32::from(codec.scales.1));
    let x = &limited(x)[..x.len()];
    let subs = || x.chunks_exact(codec.sub_len).enumerate();
    let mut fitted = [0.0f32; MAX_SUBS];
    if codec.scales == (1, 1) {
        fitted[..codec.subs()].fill(fit::scale(grid, x));
    } else {
        subs().for_each(|(i, x)| fitted[i] = fit::scale(grid, x));
    }
    let extreme = fitted.iter().fold(0.0f32, |e, &s| if s.abs() > e.abs() { s } else { e });
    let ideal = extreme / lo;
    // Zeros at worst.
    let [zeros] = sums(x, |x| [x * x]);
    let mut best = (zeros, 0.0, [0.0; MAX_SUBS]);
    let mut consider = |found: Scaled| best = if found.0 < best.0 { found } else { best };
    if coarse::is_coarse(codec, ideal) {
        consider(coarse::scaled(grid, codec, x, ideal, &fitted));
    }
    consider(alternated(grid, codec, x, stored(ideal), fitted));
    // The scale of largest magnitude has the longer side of the integers; one of the other sign that is as
    // large is cut off. That matters where all magnitudes are alike; elsewhere the blocks stay what they are.
    let other = fitted.iter().fold(0.0f32, |e, &s| if s * extreme < e * extreme { s } else { e });
    if other * inverse(ideal) > hi + 0.5 {
        let found = alternated(grid, codec, x, stored(other / hi), fitted);
        best = if WORTH * found.0 < best.0 { found } else { best };
    }
    let (_, d, scales) = best;
    out.d = f16::from_f32(d).to_bits();
    for ((i, x), codes) in subs().zip(out.codes.chunks_exact_mut(codec.sub_len)) {
        let per_step = inverse(d * scales[i]);
        out.scales[i] = scales[i] as i8;
        x.iter().zip(codes).for_each(|(x, code)| *code = codec.values.code(grid.nearest(x * per_step)));
    }
}

/// The best block of the rounds that start with d and the fitted scales.
fn alternated(grid: impl Grid, codec: &Codec, x: &[f32], mut d: f32, mut fitted: [f32; MAX_SUBS]) -> Scaled {
    let (lo, hi) = (f32::from(codec.scales.0), f32::from(codec.scales.1));
    let mut best = (f32::INFINITY, d, [0.0; MAX_SUBS]);
    for _ in 0..ROUNDS {
        let (mut total, mut scales) = (0.0, [0.0; MAX_SUBS]);
        let (mut xv, mut vv) = (0.0, 0.0);
        for (i, x) in x.chunks_exact(codec.sub_len).enumerate() {
            let centre = round((fitted[i] * inverse(d)).clamp(lo, hi));
            let mut chosen = (f32::INFINITY, 0.0, 0.0, 0.0);
            for scale in [centre, centre - 1.0, centre + 1.0] {
                let scale = scale.clamp(lo, hi);
                let (step, per_step) = (d * scale, inverse(d * scale));
                let [error, xv, vv] = sums(x, |x| {
                    let v = grid.nearest(x * per_step);
                    let miss = x - step * v;
                    [miss * miss, x * v, v * v]
                });
                if error < chosen.0 {
                    chosen = (error, scale, xv, vv);
                }
            }
            let (error, scale, sub_xv, sub_vv) = chosen;
            scales[i] = scale;
            total += error;
            xv += sub_xv * scale;
            vv += sub_vv * scale * scale;
            if sub_vv > 0.0 {
                fitted[i] = sub_xv / sub_vv;
            }
        }
        if total < best.0 {
            best = (total, d, scales);
        }
        let next = stored(xv * inverse(vv));
        if next == d || next == 0.0 {
            break;
        }
        d = next;
    }
    best
}

/// Q2_K, Q4_K, Q5_K: `w = d * scale * code - dmin * min`.
pub(super) fn with_minima(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let (top, hi) = (f32::from((1u16 << codec.bits) - 1), f32::from(codec.scales.1));
    let x = &limited(x)[..x.len()];
    let subs = || x.chunks_exact(codec.sub_len).enumerate();
    let mut fitted = [(0.0f32, 0.0f32); MAX_SUBS];
    subs().for_each(|(i, x)| fitted[i] = fit::scale_and_min(top, x));
    let most = fitted.iter().fold((0.0f32, 0.0f32), |most, f| (most.0.max(f.0), most.1.max(f.1)));
    let ideal = (most.0 / hi, most.1 / hi);
    let (mut d, mut dmin) = (stored(ideal.0), stored(ideal.1));
    // Zeros at worst.
    let [zeros] = sums(x, |x| [x * x]);
    let mut best = (zeros, 0.0, 0.0, [(0.0f32, 0.0f32); MAX_SUBS]);
    if coarse::is_coarse(codec, ideal.0) {
        let found = coarse::with_minima(codec, x, ideal, &fitted);
        best = if found.0 < best.0 { found } else { best };
    }
    for _ in 0..ROUNDS {
        let (mut total, mut chosen) = (0.0, [(0.0, 0.0); MAX_SUBS]);
        let mut joint = Joint::default();
        for (i, x) in subs() {
            let found = nearby(x, top, hi, (d, dmin), fitted[i]);
            joint.add(x, &found);
            chosen[i] = (found.scale, found.min);
            total += found.error;
        }
        if total < best.0 {
            best = (total, d, dmin, chosen);
        }
        let next = joint.solve(dmin);
        if next == (d, dmin) || next.0 == 0.0 {
            break;
        }
        (d, dmin) = next;
    }
    let (_, d, dmin, chosen) = best;
    (out.d, out.dmin) = (f16::from_f32(d).to_bits(), f16::from_f32(dmin).to_bits());
    for ((i, x), codes) in subs().zip(out.codes.chunks_exact_mut(codec.sub_len)) {
        let (scale, min) = chosen[i];
        let (per_step, shift) = (inverse(d * scale), dmin * min);
        (out.scales[i], out.mins[i]) = (scale as i8, min as u8);
        x.iter()
            .zip(codes)
            .for_each(|(x, code)| *code = round(((x + shift) * per_step).clamp(0.0, top)) as u8);
    }
}

/// Integers of a sub-block, and the sums of its codes.
#[derive(Debug, Clone, Copy)]
struct Found {
    error: f32,
    scale: f32,
    min: f32,
    /// Sums of code, code^2 and x * code.
    codes: [f32; 3],
}

/// The best of the integers around the fitted scale and minimum.
fn nearby(x: &[f32], top: f32, hi: f32, (d, dmin): (f32, f32), (s, m): (f32, f32)) -> Found {
    let scale = round((s * inverse(d)).clamp(0.0, hi));
    let min = round((m * inverse(dmin)).clamp(0.0, hi));
    let mut best = Found { error: f32::INFINITY, scale, min, codes: [0.0; 3] };
    for scale in [scale, scale - 1.0, scale + 1.0] {
        for min in [min, min - 1.0, min + 1.0] {
            let (scale, min) = (scale.clamp(0.0, hi), min.clamp(0.0, hi));
            let (step, per_step, shift) = (d * scale, inverse(d * scale), dmin * min);
            let [error, q, qq, xq] = sums(x, |x| {
                let q = round(((x + shift) * per_step).clamp(0.0, top));
                let miss = x - (step * q - shift);
                [miss * miss, q, q * q, x * q]
            });
            if error < best.error {
                best = Found { error, scale, min, codes: [q, qq, xq] };
            }
        }
    }
    best
}

/// The normal equations of d and dmin for given integers: `x = d * a - dmin * b`, a = scale * code, b = min.
#[derive(Debug, Default)]
struct Joint {
    aa: f64,
    ab: f64,
    bb: f64,
    xa: f64,
    xb: f64,
}

impl Joint {
    fn add(&mut self, x: &[f32], found: &Found) {
        let [sum_x] = sums(x, |x| [x]);
        let (scale, min) = (f64::from(found.scale), f64::from(found.min));
        let [q, qq, xq] = found.codes.map(f64::from);
        self.aa += scale * scale * qq;
        self.ab += scale * min * q;
        self.bb += min * min * x.len() as f64;
        self.xa += scale * xq;
        self.xb += min * f64::from(sum_x);
    }

    /// (d, dmin) as stored; where one of them has no part in the weights, it stays `dmin` or becomes 0.
    fn solve(&self, dmin: f32) -> (f32, f32) {
        let determinant = self.aa * self.bb - self.ab * self.ab;
        if determinant > 1e-9 * self.aa * self.bb {
            let d = (self.xa * self.bb - self.xb * self.ab) / determinant;
            let dmin = (self.xa * self.ab - self.xb * self.aa) / determinant;
            (stored(d as f32), stored(dmin as f32).max(0.0))
        } else if self.aa > 0.0 {
            let d = (self.xa + f64::from(dmin) * self.ab) / self.aa;
            (stored(d as f32), dmin)
        } else {
            (0.0, dmin)
        }
    }
}

/// `2^e` for -1022 <= e <= 1023, exactly; `powi` leaves its precision to the platform.
fn power(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// MXFP4: the power of two, of three, that leaves the least squared error.
pub(super) fn power_of_two(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let Values::Table(table) = codec.values else { return };
    let mut values = table.map(f32::from);
    values.sort_by(f32::total_cmp);
    let grid = Listed { values: &values };
    let absmax = f64::from(x.iter().fold(0.0f32, |m, x| m.max(x.abs())));
    // The exponent with which the largest element lies in 4..8 (of at most 6): exact, in f64 nothing is
    // subnormal.
    let exponent = (absmax.to_bits() >> 52) as i32 - 1023;
    let natural = (exponent - 2 + 127).clamp(0, 254);
    let mut best = (f64::INFINITY, natural);
    for e in [natural, natural + 1, natural - 1] {
        let half = power(e - 128);
        let error = x.iter().fold(0.0f64, |sum, &x| {
            let miss = f64::from(x) - half * f64::from(grid.nearest((f64::from(x) / half) as f32));
            sum + miss * miss
        });
        // Above 252 the largest value exceeds f32.
        if (0..=252).contains(&e) && error < best.0 {
            best = (error, e);
        }
    }
    let half = power(best.1 - 128);
    out.d = best.1 as u16;
    for (code, &x) in out.codes.iter_mut().zip(x) {
        *code = codec.values.code(grid.nearest((f64::from(x) / half) as f32));
    }
}

/// NVFP4: for each 16 the scale, of those around the one that holds the largest element, of least squared
/// error.
pub(super) fn e4m3(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let Values::Table(table) = codec.values else { return };
    let mut values = table.map(f32::from);
    values.sort_by(f32::total_cmp);
    let grid = Listed { values: &values };
    let x = &limited(x)[..x.len()];
    for (s, (x, codes)) in
        x.chunks_exact(codec.sub_len).zip(out.codes.chunks_exact_mut(codec.sub_len)).enumerate()
    {
        let absmax = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let natural =
            (0..126u8).take_while(|&code| half_e4m3(code) * grid.reach().0.abs() < absmax).count() as u8;
        let mut best = (f32::INFINITY, 0);
        for code in natural.saturating_sub(6)..=(natural + 4).min(126) {
            let (step, per_step) = (half_e4m3(code), inverse(half_e4m3(code)));
            let [error] = sums(x, |x| {
                let miss = x - step * grid.nearest(x * per_step);
                [miss * miss]
            });
            best = if error < best.0 { (error, code) } else { best };
        }
        out.scales[s] = best.1 as i8;
        let per_step = inverse(half_e4m3(best.1));
        x.iter().zip(codes).for_each(|(x, code)| *code = codec.values.code(grid.nearest(x * per_step)));
    }
}

/// The elements, saturated where squares would be infinite.
pub(super) fn limited(x: &[f32]) -> [f32; MAX_BLOCK] {
    let mut limited = [0.0; MAX_BLOCK];
    limited.iter_mut().zip(x).for_each(|(out, x)| *out = x.clamp(-LIMIT, LIMIT));
    limited
}
