//! The quantisers that are defined to the bit: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 as the Python package `gguf`
//! rounds. Codes are computed with the scale in f32, which is then rounded to f16 for storage. Where that
//! moves weights by more than a quarter of the scale, or to infinity, a search is asked as well.

use super::block::{Codec, Decoded, MAX_BLOCK};
use super::coarse::{self, MOST};
use super::search;
use half::f16;

/// `1 / d`, or 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Replaces the block by what `search` finds, where the stored scale is too unlike `d`, with which the codes
/// were computed, and the search leaves less than nine tenths of the error: blocks that are good enough stay
/// what other tools write.
fn unless_better(codec: &Codec, x: &[f32], d: f32, out: &mut Decoded, search: impl Fn(&mut Decoded)) {
    let exceeds = d.abs() > MOST || codec.d(out).is_infinite() || codec.dmin(out).is_infinite();
    if !coarse::is_coarse(codec, d) && !exceeds {
        return;
    }
    let error = |block: &Decoded| {
        let mut back = [0.0; MAX_BLOCK];
        codec.floats(block, &mut back[..x.len()]);
        let misses = x.iter().zip(back).map(|(x, back)| f64::from(*x) - f64::from(back));
        misses.map(|miss| miss * miss).sum::<f64>()
    };
    let mut found = *out;
    search(&mut found);
    // Infinite weights leave an error of NaN.
    if exceeds || error(&found) < 0.81 * error(out) {
        *out = found;
    }
}

/// Q4_0 and Q5_0: the element of largest magnitude (the first of equals) becomes code 0.
pub(super) fn by_extreme(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let half = f32::from(1u16 << (codec.bits - 1));
    let extreme = x.iter().copied().reduce(|e, x| if x.abs() > e.abs() { x } else { e }).unwrap_or(0.0);
    let d = extreme / -half;
    let inverse = f64::from(inverse(d));
    let (zero, top) = (f64::from(half) + 0.5, half * 2.0 - 1.0);
    for (code, &x) in out.codes.iter_mut().zip(x) {
        // The reference multiplies in f64 and rounds the sum to f32 before it truncates.
        *code = ((f64::from(x) * inverse + zero) as f32).clamp(0.0, top) as u8;
    }
    out.d = f16::from_f32(d).to_bits();
    unless_better(codec, x, d, out, |out| search::scaled(codec, x, out));
}

/// Q4_1 and Q5_1: the least element becomes code 0, the greatest the last code.
pub(super) fn by_spread(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let top = f32::from((1u16 << codec.bits) - 1);
    let low = x.iter().fold(f32::INFINITY, |low, &x| low.min(x));
    let high = x.iter().fold(f32::NEG_INFINITY, |high, &x| high.max(x));
    let d = (high - low) / top;
    let inverse = inverse(d);
    for (code, &x) in out.codes.iter_mut().zip(x) {
        *code = ((x - low) * inverse + 0.5).clamp(0.0, top) as u8;
    }
    out.d = f16::from_f32(d).to_bits();
    // The common formula subtracts what these formats add.
    (out.dmin, out.mins[0]) = (f16::from_f32(-low).to_bits(), 1);
    unless_better(codec, x, d, out, |out| coarse::affine(codec, x, (low, high), out));
}

/// Q8_0: half away from zero.
pub(super) fn by_absmax(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let absmax = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let d = absmax / 127.0;
    let inverse = inverse(d);
    for (code, &x) in out.codes.iter_mut().zip(x) {
        let x = x * inverse;
        // The float below 1/2: 1/2 itself would carry the float below it up to 1. A library call that rounds
        // takes ten times as long.
        *code = (x + 0.5f32.next_down().copysign(x)) as i32 as u8 ^ 0x80;
    }
    out.d = f16::from_f32(d).to_bits();
    unless_better(codec, x, d, out, |out| search::scaled(codec, x, out));
}

/// TQ1_0 and TQ2_0: `x / absmax` half away from zero.
pub(super) fn ternary(codec: &Codec, x: &[f32], out: &mut Decoded) {
    let d = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let inverse = inverse(d);
    for (code, &x) in out.codes.iter_mut().zip(x) {
        // An infinite inverse, of what has no f16 scale either, stays in range.
        let x = (x * inverse).clamp(-1.0, 1.0);
        *code = (1 + (x + 0.5f32.next_down().copysign(x)) as i32) as u8;
    }
    out.d = f16::from_f32(d).to_bits();
    unless_better(codec, x, d, out, |out| search::ternary(codec, x, out));
}

/// Q1_0: the mean magnitude, which leaves the least squared error, and the signs.
pub(super) fn by_mean(_: &Codec, x: &[f32], out: &mut Decoded) {
    let mean = x.iter().map(|x| f64::from(x.abs())).sum::<f64>() / x.len() as f64;
    for (code, &x) in out.codes.iter_mut().zip(x) {
        *code = u8::from(x >= 0.0);
    }
    out.d = f16::from_f32(coarse::stored(mean as f32)).to_bits();
}
