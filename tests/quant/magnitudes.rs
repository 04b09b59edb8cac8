//! Blocks of any magnitude, where f16 scales are coarse and where they end: against the best that trying
//! every scale finds, and against zeros.

use crate::support::Random;
use kvern::quant::{WeightFormat, dequantize, quantize};

/// A format as a formula: `w = d * s * value - dmin * t`.
struct Formula {
    format: WeightFormat,
    /// Elements of a sub-block.
    sub: usize,
    /// The integers s; t is in `0..=scales.1` where there is a minimum.
    scales: (i32, i32),
    /// Ascending.
    values: Vec<f64>,
    minimum: Minimum,
}

#[derive(PartialEq)]
enum Minimum {
    None,
    /// `t` in `0..=scales.1`.
    Scaled,
    /// `-dmin` is an f16 of either sign, and t is 1.
    Free,
}

fn formulas() -> Vec<Formula> {
    use Minimum::*;
    use WeightFormat::*;
    let integers = |lo: i32, hi: i32| (lo..=hi).map(f64::from).collect::<Vec<_>>();
    let iq4 = || {
        let table = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
        table.map(f64::from).to_vec()
    };
    let e2m1 = [-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12].map(f64::from).to_vec();
    let of = |format, sub, scales, values, minimum| Formula { format, sub, scales, values, minimum };
    vec![
        of(Q4_0, 32, (1, 1), integers(-8, 7), None),
        of(Q5_0, 32, (1, 1), integers(-16, 15), None),
        of(Q8_0, 32, (1, 1), integers(-128, 127), None),
        of(Q4_1, 32, (1, 1), integers(0, 15), Free),
        of(Q5_1, 32, (1, 1), integers(0, 31), Free),
        of(Iq4Nl, 32, (1, 1), iq4(), None),
        of(Mxfp4, 32, (1, 1), e2m1, None),
        of(Iq4Xs, 32, (-32, 31), iq4(), None),
        of(Q3K, 16, (-32, 31), integers(-4, 3), None),
        of(Q6K, 16, (-128, 127), integers(-32, 31), None),
        of(Q2K, 16, (0, 15), integers(0, 3), Scaled),
        of(Q4K, 32, (0, 63), integers(0, 15), Scaled),
        of(Q5K, 32, (0, 63), integers(0, 31), Scaled),
        of(Q2_0, 64, (1, 1), integers(-1, 2), None),
    ]
}

/// Finite positive f16, ascending: all from `low` to `high`, or `count` of them, spread evenly.
fn f16s(low: f64, high: f64, count: u16) -> Vec<f64> {
    let of = |bits: u16| half::f16::from_bits(bits).to_f64();
    let first = (1..0x7bff).find(|&b| of(b) >= low).unwrap_or(0x7bff);
    let last = (first..0x7c00).take_while(|&b| of(b) <= high).last().unwrap_or(first);
    let n = last - first;
    let count = count.min(n + 1);
    (0..count)
        .map(|i| of(first + (u32::from(i) * u32::from(n) / u32::from(count.max(2) - 1)) as u16))
        .collect()
}

fn squared(x: &[f32], values: &[f64], step: f64, shift: f64, limit: f64) -> f64 {
    let uniform = values[1] - values[0] == 1.0 && values[2] - values[1] == 1.0;
    let (lo, hi) = (values[0], values[values.len() - 1]);
    let mut sum = 0.0;
    for &x in x {
        let t = (f64::from(x) + shift) / step;
        let v = if uniform {
            t.round().clamp(lo, hi)
        } else {
            let at = values.partition_point(|v| *v < t).clamp(1, values.len() - 1);
            if t - values[at - 1] < values[at] - t { values[at - 1] } else { values[at] }
        };
        let miss = f64::from(x) + shift - step * v;
        sum += miss * miss;
        if sum >= limit {
            break;
        }
    }
    sum
}

impl Formula {
    /// The least squared error of any sub-block integers for d (and dmin).
    fn error(&self, x: &[f32], d: f64, dmin: f64, limit: f64) -> f64 {
        let mut total = 0.0;
        for x in x.chunks_exact(self.sub) {
            let low = x.iter().fold(0.0f64, |m, x| m.min(f64::from(*x)));
            let high = x.iter().fold(0.0f64, |m, x| m.max(f64::from(*x)));
            let mut best: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
            let top = self.values[self.values.len() - 1];
            for s in self.scales.0..=self.scales.1 {
                let step = d * f64::from(s);
                if self.minimum != Minimum::Scaled {
                    // Scales of which not even half of the largest element is in reach.
                    let reach = step.abs() * top.max(-self.values[0]);
                    if s != 0 && reach > 0.5 * high.max(-low) {
                        best = squared(x, &self.values, step, 0.0, best).min(best);
                    }
                    continue;
                }
                let (from, to) = (-low - 2.0 * step, (-low).max(top * step - high) + 2.0 * step);
                let (from, to) =
                    ((from / dmin).floor().max(0.0), (to / dmin).ceil().min(f64::from(self.scales.1)));
                if s == 0 {
                    for t in 0..=self.scales.1 {
                        let e: f64 = x.iter().map(|x| (f64::from(*x) + dmin * f64::from(t)).powi(2)).sum();
                        best = best.min(e);
                    }
                } else if step * top > 0.5 * (high - low) {
                    let mut t = from;
                    while t <= to {
                        best = squared(x, &self.values, step, dmin * t, best).min(best);
                        t += 1.0;
                    }
                }
            }
            total += best;
            if total >= limit {
                break;
            }
        }
        total
    }

    /// The scales of a block, `d` being the fitted one.
    fn scales_around(&self, d: f64, count: u16) -> Vec<f64> {
        match self.format {
            WeightFormat::Mxfp4 => (0..=252).map(|e| 2f64.powi(e - 128)).collect(),
            _ => f16s(0.6 * d, 2.0 * d, count),
        }
    }

    /// The least squared error that trying scales reaches.
    fn best(&self, x: &[f32]) -> f64 {
        let low = x.iter().fold(f64::INFINITY, |m, x| m.min(f64::from(*x)));
        let high = x.iter().fold(f64::NEG_INFINITY, |m, x| m.max(f64::from(*x)));
        let (lowest, top) = (self.values[0], self.values[self.values.len() - 1]);
        let hi = f64::from(self.scales.1);
        let mut best = square_sum(x.iter().map(|x| f64::from(*x)));
        match self.minimum {
            Minimum::Scaled => {
                let (d, dmin) = ((high - low.min(0.0)) / top / hi, -low.min(0.0) / hi);
                for d in self.scales_around(d, 6) {
                    for dmin in f16s(0.7 * dmin, 1.5 * dmin, 4) {
                        best = self.error(x, d, dmin, best).min(best);
                    }
                }
            }
            Minimum::Free => {
                let d = (high - low) / top;
                for d in self.scales_around(d, 40) {
                    for m in f16s(low.abs() - 2.0 * d, low.abs() + 2.0 * d, 40) {
                        for m in [m, -m] {
                            best = squared(x, &self.values, d, -m, best).min(best);
                        }
                    }
                }
            }
            Minimum::None => {
                let d = high.abs().max(low.abs()) / top.max(-lowest) / hi;
                for d in self.scales_around(d, if self.scales.1 == 1 { 300 } else { 8 }) {
                    best = self.error(x, d, 0.0, best).min(best);
                    if self.scales.0 == 1 {
                        best = self.error(x, -d, 0.0, best).min(best);
                    }
                }
            }
        }
        best
    }

    /// Whether the block is that of the reference implementation, which searches for no scale: Q4_0 .. Q8_0,
    /// whose d is large enough.
    fn is_defined(&self, x: &[f32]) -> bool {
        use WeightFormat::*;
        let low = x.iter().fold(f32::INFINITY, |m, x| m.min(*x));
        let high = x.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
        let absmax = high.max(-low);
        let (d, bits) = match self.format {
            Q4_0 => (absmax / 8.0, 4),
            Q5_0 => (absmax / 16.0, 5),
            Q8_0 => (absmax / 127.0, 8),
            Q4_1 => ((high - low) / 15.0, 4),
            Q5_1 => ((high - low) / 31.0, 5),
            _ => return false,
        };
        d >= 2f32.powi(bits - 24)
    }
}

fn there_and_back(format: WeightFormat, x: &[f32]) -> Vec<f32> {
    let mut blocks = vec![0x5A; format.bytes(1, x.len()).unwrap()];
    quantize(format, x, &mut blocks).unwrap();
    let mut out = vec![f32::NAN; x.len()];
    dequantize(format, &blocks, &mut out).unwrap();
    out
}

fn square_sum(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum()
}

/// Number of distributions, and the one of elements of one magnitude.
const DISTRIBUTIONS: usize = 8;
const ONE_MAGNITUDE: usize = 7;

/// 256 elements around 1.
fn distribution(number: usize, r: &mut Random) -> Vec<f32> {
    let mut normal = |_| (0..12).map(|_| r.f32()).sum::<f32>() / 2.0;
    match number {
        0 => (0..256).map(normal).collect(),
        1 => (0..256).map(|_| r.f32()).collect(),
        2 => (0..256).map(|i| normal(i).powi(3)).collect(),
        3 => (0..256).map(|i| if i % 29 == 3 { 6.0 * normal(i) } else { normal(i) }).collect(),
        4 => (0..256).map(|i| normal(i) * (1 + i / 32) as f32 / 8.0).collect(),
        5 => (0..256).map(|i| normal(i).abs()).collect(),
        6 => (0..256).map(|i| 0.25 * normal(i) - 1.0).collect(),
        _ => (0..256).map(|i| if r.below(2) == i % 2 { 1.0 } else { -1.0 }).collect(),
    }
}

/// `(squared error, squares)` of each block as quantised.
fn errors(format: WeightFormat, x: &[f32]) -> impl Iterator<Item = (&[f32], f64, f64)> {
    let back = there_and_back(format, x);
    x.chunks(format.block_len()).enumerate().map(move |(b, x)| {
        let back = &back[b * x.len()..];
        let error = square_sum(x.iter().zip(back).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        (x, error, square_sum(x.iter().map(|x| f64::from(*x))))
    })
}

fn scaled(x: Vec<f32>, magnitude: f64) -> Vec<f32> {
    x.into_iter().map(|x| (f64::from(x) * magnitude) as f32).collect()
}

#[test]
fn blocks_of_any_magnitude_are_near_the_best_that_scales_reach() {
    let (mut r, mut worse) = (Random::new(20), Vec::new());
    for f in formulas() {
        for number in 0..DISTRIBUTIONS {
            // Most of them where f16 is coarse, and the rest up to 1e4.
            for (from, to) in
                [(-8.0, -6.5), (-6.5, -5.5), (-5.5, -4.5), (-4.5, -3.5), (-3.5, -2.0), (-2.0, 4.0)]
            {
                let magnitude = 10f64.powf(from + (to - from) * (f64::from(r.f32()) + 1.0) / 2.0);
                let x = scaled(distribution(number, &mut r), magnitude);
                for (x, error, squares) in errors(f.format, &x).filter(|(x, ..)| !f.is_defined(x)).take(3) {
                    let best = f.best(x);
                    // Elements of one magnitude fit some scales exactly: what those leave is no measure.
                    let chance = if number == ONE_MAGNITUDE { 4e-3 * squares.sqrt() } else { 0.0 };
                    let bound = 1.2 * best.sqrt() + chance;
                    if error.sqrt() > bound {
                        worse.push(format!(
                            "{:?} of distribution {number} times {magnitude:e}: {} of the best, \
                             {} of the block",
                            f.format,
                            (error / best).sqrt(),
                            (error / squares).sqrt(),
                        ));
                    }
                }
            }
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}

#[test]
fn no_block_is_worse_than_zeros() {
    let mut r = Random::new(21);
    use WeightFormat::{Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Nvfp4, Q1_0};
    let codebooks = [Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs];
    let others = formulas().into_iter().map(|f| f.format).chain([Nvfp4, Q1_0]);
    // Each element meets each entry of a codebook: fewer blocks.
    let formats = others.map(|format| (format, 2000)).chain(codebooks.map(|format| (format, 100)));
    for (format, count) in formats {
        for i in 0..count {
            let magnitude = 10f64.powf(6.0 * f64::from(r.f32()) - 2.0);
            let x = scaled(distribution(i % DISTRIBUTIONS, &mut r), magnitude);
            for (x, error, squares) in errors(format, &x).take(2) {
                assert!(error <= squares * (1.0 + 1e-6), "{format:?}: {error} of {squares} for {x:?}");
            }
        }
    }
}

#[test]
fn weights_of_one_magnitude_come_back() {
    // 4 % of 1e-5 is reached by any scale of Q5_K and Q6_K that f16 holds, when the integers suit it.
    let x: Vec<f32> = (0..256).map(|i| if i * i % 7 < 3 { 1e-5 } else { -1e-5 }).collect();
    for (format, percent) in [(WeightFormat::Q5K, 4.0), (WeightFormat::Q6K, 4.0), (WeightFormat::Q4K, 4.0)] {
        for (_, error, squares) in errors(format, &x) {
            assert!(100.0 * (error / squares).sqrt() <= percent, "{format:?}: {error} of {squares}");
        }
    }
}

#[test]
fn magnitudes_beyond_f16_saturate() {
    for f in formulas() {
        for huge in [1e5f32, 3e6, 1e9, 1e20, f32::MAX] {
            for offset in [0.0f32, 1.0, -1.0] {
                let of = |i: usize| {
                    [-0.9f32, 0.3, 1.0][i % 3] * (if offset == 0.0 { 1.0 } else { 0.5 }) + 0.5 * offset
                };
                let x: Vec<f32> = (0..256).map(|i| of(i) * huge).collect();
                let back = there_and_back(f.format, &x);
                for (i, (x, back)) in x.iter().zip(&back).enumerate() {
                    // No infinity, no NaN, and nothing on the far side of zero or far beyond the weight.
                    assert!(back.is_finite(), "{:?}: {i} of {huge:e}: {back:e}", f.format);
                    let miss = f64::from(*x) - f64::from(*back);
                    let most = 0.5 * f64::from(huge) + 0.5 * f64::from(x.abs());
                    assert!(miss.abs() <= most, "{:?}: {i} of {huge:e}: {back:e} for {x:e}", f.format);
                }
                // The largest of f16 scales is in use where it has to be.
                let reach = back.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let wanted = x.iter().fold(0.0f32, |m, x| m.max(x.abs())).min(65504.0);
                assert!(reach >= 0.75 * wanted, "{:?}: {reach:e} for {huge:e}", f.format);
            }
        }
    }
}
