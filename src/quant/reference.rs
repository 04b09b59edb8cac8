//! The definition of the int8 product in the plainest words, and its error bound.

use super::codec::{Codec, Decoded};
use super::packed::PackedWeights;
use crate::error::{Error, Result};
use crate::fma::fma;

/// One row of activations as rule 2 of the numerics quantises it: `(q, d)` for each block of 32.
pub fn quantize_activations(x: &[f32]) -> Vec<([i32; 32], f32)> {
    let block = |x: &[f32; 32]| {
        let absmax = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let d = absmax / 127.0;
        if x.iter().any(|x| !x.is_finite()) {
            ([0; 32], f32::NAN)
        } else if d < f32::MIN_POSITIVE {
            ([0; 32], 0.0)
        } else {
            (x.map(|x| (x * (1.0 / d)).round_ties_even() as i32), d)
        }
    };
    x.as_chunks::<32>().0.iter().map(block).collect()
}

/// `(definition, exact product of the same weights in f64, bound of their difference)` of one activation
/// row with weight row `n`.
///
/// The definition, for each block of 32 in turn: `acc = fma(f32(dot), d * d_x, acc)`, with the scale of a
/// sub-block of 32 in d, and those of sub-blocks of 16 in the integer dot, or where these are floats, one
/// step for each 16; then, where the format has minimums, `acc = fma(-(dmin * min), d_x * f32(sum q),
/// acc)` for each sub-block.
pub fn int8_dot(weights: &PackedWeights, n: usize, x: &[f32]) -> Result<(f32, f64, f64)> {
    let refused = || Error::Unsupported { what: "an int8 product with this format" };
    let (format, k) = (weights.format().ok_or_else(refused)?, weights.k());
    let codec = Codec::of(format).ok_or_else(refused)?;
    let mut decoded = Decoded::ZERO;
    let mut blocks = vec![0u8; format.bytes(weights.n(), k)?];
    weights.to_blocks(&mut blocks)?;
    let row_bytes = format.bytes(1, k)?;
    let row = &blocks[n * row_bytes..(n + 1) * row_bytes];
    let mut w = vec![0.0; k];
    weights.dequantize_row(n, &mut w)?;
    let (mut chain, mut exact, mut bound) = (0.0f32, 0.0f64, 0.0f64);
    for (b, (q, d)) in quantize_activations(x).into_iter().enumerate() {
        let (at, first) = (32 * b / format.block_len(), 32 * b % format.block_len());
        codec.decode(&row[at * format.block_bytes()..(at + 1) * format.block_bytes()], &mut decoded);
        let of = |j: usize| (first + j) / codec.sub_len;
        let values = codec.values.of(&decoded.codes.as_chunks().0[first / 32]);
        let of_block = codec.d(&decoded);
        // Integer scales of 16 weights are factors in the dot product; floats make each 16 a step of the
        // chain.
        let factors = codec.sub_len == 16 && codec.has_d();
        let factor = |j: usize| if factors { i32::from(decoded.scales[of(j)]) } else { 1 };
        let per_step = if codec.has_d() { 32 } else { codec.sub_len };
        // What the terms of the chain weigh: each of its roundings is relative to them.
        let mut terms = 0.0;
        for start in (0..32).step_by(per_step) {
            let dot: i32 = (start..start + per_step).map(|j| factor(j) * i32::from(values[j]) * q[j]).sum();
            let dw = if factors { of_block } else { codec.scale_of(of_block, &decoded, of(start)) };
            chain = fma(dot as f32, dw * d, chain);
            terms += (f64::from(dot) * f64::from(dw) * f64::from(d)).abs();
        }
        if codec.has_min {
            for s in 0..32 / codec.sub_len {
                let sum: i32 = q[s * codec.sub_len..(s + 1) * codec.sub_len].iter().sum();
                let min = -(codec.dmin(&decoded) * f32::from(decoded.mins[of(s * codec.sub_len)]));
                chain = fma(min, d * sum as f32, chain);
                terms += (f64::from(min) * f64::from(d) * f64::from(sum)).abs();
            }
        }
        let mut magnitude = 0.0;
        for j in 0..32 {
            exact += f64::from(w[32 * b + j]) * f64::from(x[32 * b + j]);
            magnitude += f64::from(w[32 * b + j]).abs();
            bound += 2f64.powi(-20) * f64::from(w[32 * b + j] * x[32 * b + j]).abs();
        }
        bound += 0.5001 * f64::from(d) * magnitude + 2f64.powi(-20) * terms;
    }
    Ok((chain, exact, bound + 1e-30))
}
