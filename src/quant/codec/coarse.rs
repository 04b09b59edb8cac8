//! Scales where f16 is coarse. Below 2^-14 its numbers are [`STEP`] apart: a scale of few steps has no close
//! neighbour, and rounding it moves every weight of the block. So each number around the fitted scale is
//! tried, with the integers that suit that number, and the least squared error wins.
//!
//! A scale of `FEW` steps and more loses less to rounding than the search leaves anyway (its integers are
//! chosen after the rounding); to try its neighbours as well would change no block by more than 5 %.

use super::block::{Codec, Decoded, MAX_SUBS};
use super::fit::{Grid, inverse, round, sums};
use half::f16;

/// The distance of f16 numbers below 2^-14, and the least of them: 2^-24.
pub(super) const STEP: f32 = f32::from_bits(103 << 23);

/// The largest f16.
pub(super) const MOST: f32 = 65504.0;

/// Scales of sub-blocks are tried one by one below this.
const FEW: f32 = 16.0;

/// Whether d, the scale of a block of `codec`, is so small that its neighbours have to be tried. With one
/// scale a block that is while its rounding moves a weight by more than a quarter of d.
pub(super) fn is_coarse(codec: &Codec, d: f32) -> bool {
    let steps = if has_subs(codec) { FEW } else { FEW.max(f32::from(1u16 << codec.bits)) };
    d != 0.0 && d.abs() < steps * STEP
}

fn has_subs(codec: &Codec) -> bool {
    codec.scales != (1, 1)
}

/// What the file keeps of a scale: an f16, finite.
pub(super) fn stored(d: f32) -> f32 {
    f16::from_f32(d.clamp(-MOST, MOST)).to_f32()
}

/// The integers to try in place of `c`, which is at least 0. The coarser the integers, the further from the
/// fitted number the best one may be: where 1.7 is wanted, 5 may fit by chance.
fn around(c: f32) -> impl Iterator<Item = f32> {
    let c = round(c.min(1e4)) as u16;
    let (from, to) = if c <= 8 { (0, 4 * c + 4) } else { (c - 8, c + 8) };
    (from..=to).map(f32::from)
}

/// The stored scales to try in place of `d`, which is at least 0: a smaller one makes the integers finer and
/// cuts off the largest sub-block.
pub(super) fn multiples(d: f32, more: u16) -> impl Iterator<Item = f32> {
    let c = d / STEP;
    let (first, more) = match c {
        ..1.0 => (STEP, 0),
        ..FEW => (c.floor() * STEP, more),
        _ => (stored(d), 0),
    };
    (0..=more).map(move |i| first + f32::from(i) * STEP)
}

/// A block as chosen: the squared error, d, and the scales of the sub-blocks.
pub(super) type Scaled = (f32, f32, [f32; MAX_SUBS]);

/// The best of the scales around `d` and of the integers of the sub-blocks around the fitted scales.
pub(super) fn scaled(grid: impl Grid, codec: &Codec, x: &[f32], d: f32, fitted: &[f32; MAX_SUBS]) -> Scaled {
    let mut best = (f32::INFINITY, 0.0, [0.0; MAX_SUBS]);
    let error = |x: &[f32], step: f32| {
        let per_step = inverse(step);
        let [error] = sums(x, |x| {
            let miss = x - step * grid.nearest(x * per_step);
            [miss * miss]
        });
        error
    };
    if !has_subs(codec) {
        for steps in around(d.abs() / STEP) {
            for d in [steps * STEP, -steps * STEP] {
                let error = error(x, d);
                if error < best.0 {
                    best = (error, d, [1.0; MAX_SUBS]);
                }
            }
        }
        return best;
    }
    let (lo, hi) = (f32::from(codec.scales.0), f32::from(codec.scales.1));
    for size in multiples(d.abs(), 2) {
        let d = size.copysign(d);
        let (mut total, mut scales) = (0.0, [0.0; MAX_SUBS]);
        for (i, x) in x.chunks_exact(codec.sub_len).enumerate() {
            let wanted = fitted[i] / d;
            let mut chosen = (f32::INFINITY, 0.0);
            for size in around(wanted.abs()) {
                // The longer side of the grid counts for less than the integers do.
                for scale in [size.copysign(wanted), -size.copysign(wanted)] {
                    let scale = scale.clamp(lo, hi);
                    let error = error(x, d * scale);
                    if error < chosen.0 {
                        chosen = (error, scale);
                    }
                }
            }
            total += chosen.0;
            scales[i] = chosen.1;
        }
        if total < best.0 {
            best = (total, d, scales);
        }
    }
    best
}

/// A block as chosen: the squared error, d, dmin, and the integers of the sub-blocks.
pub(super) type WithMinima = (f32, f32, f32, [(f32, f32); MAX_SUBS]);

/// The best of the scales around `d` and `dmin`, and of the integers of the sub-blocks around the fitted
/// scales and minima.
pub(super) fn with_minima(
    codec: &Codec,
    x: &[f32],
    (d, dmin): (f32, f32),
    fitted: &[(f32, f32); MAX_SUBS],
) -> WithMinima {
    let mut best = (f32::INFINITY, 0.0, 0.0, [(0.0, 0.0); MAX_SUBS]);
    for d in multiples(d, 2) {
        for dmin in multiples(dmin, 1) {
            let (mut total, mut chosen) = (0.0, [(0.0, 0.0); MAX_SUBS]);
            for (i, x) in x.chunks_exact(codec.sub_len).enumerate() {
                let (error, scale, min) = integers(codec, x, (d, dmin), fitted[i]);
                total += error;
                chosen[i] = (scale, min);
            }
            if total < best.0 {
                best = (total, d, dmin, chosen);
            }
        }
    }
    best
}

/// The squared error, the scale and the minimum of a sub-block: for each scale, the minimum that its codes
/// ask for.
fn integers(codec: &Codec, x: &[f32], (d, dmin): (f32, f32), (s, m): (f32, f32)) -> (f32, f32, f32) {
    let (top, hi) = (f32::from((1u16 << codec.bits) - 1), f32::from(codec.scales.1));
    let [sum_x] = sums(x, |x| [x]);
    let mut best = (f32::INFINITY, 0.0, 0.0);
    for scale in around(s / d) {
        let scale = scale.min(hi);
        let (step, per_step) = (d * scale, inverse(d * scale));
        let code = |x: f32, shift: f32| round(((x + shift) * per_step).clamp(0.0, top));
        let [q] = sums(x, |x| [code(x, m)]);
        let min = round(((step * q - sum_x) / (x.len() as f32 * dmin)).clamp(0.0, hi));
        for min in [min, min - 1.0, min + 1.0] {
            let min = min.clamp(0.0, hi);
            let shift = dmin * min;
            let [error] = sums(x, |x| {
                let miss = x + shift - step * code(x, shift);
                [miss * miss]
            });
            if error < best.0 {
                best = (error, scale, min);
            }
        }
    }
    best
}

/// Q4_1 and Q5_1, where d is coarse or a scale exceeds f16: `w = d * code + m`, `low` the least element and
/// `high` the greatest.
pub(super) fn affine(codec: &Codec, x: &[f32], (low, high): (f32, f32), out: &mut Decoded) {
    let top = f32::from((1u16 << codec.bits) - 1);
    // What lies beyond any block saturates; the squares of the rest are finite.
    let limit = MOST * (top + 1.0);
    let (low, high) = (low.clamp(-limit, limit), high.clamp(-limit, limit));
    let code = |x: f32, per_step: f32, m: f32| round(((x - m) * per_step).clamp(0.0, top));
    let [zeros] = sums(x, |x| [x.clamp(-limit, limit) * x.clamp(-limit, limit)]);
    let mut best = (zeros, 0.0, 0.0);
    let mut attempt = |d: f32, m: f32| {
        let per_step = inverse(d);
        let [error, q, sum] = sums(x, |x| {
            let x = x.clamp(-limit, limit);
            let q = code(x, per_step, m);
            let miss = x - m - d * q;
            [miss * miss, q, x]
        });
        if error < best.0 {
            best = (error, d, m);
        }
        stored((sum - d * q) / x.len() as f32)
    };
    let (d, m) = (stored((high - stored(low)) / top), stored(low));
    let steps = if d < f32::from(1u16 << codec.bits) * STEP { d / STEP } else { 0.0 };
    for d in around(steps).map(|steps| steps * STEP).chain([d]) {
        let m = attempt(d, m);
        for m in [m, stored(m - STEP), stored(m + STEP)] {
            attempt(d, m);
        }
    }
    let (_, d, m) = best;
    for (out, &x) in out.codes.iter_mut().zip(x) {
        *out = code(x, inverse(d), m) as u8;
    }
    (out.d, out.dmin, out.mins[0]) = (f16::from_f32(d).to_bits(), f16::from_f32(-m).to_bits(), 1);
}
