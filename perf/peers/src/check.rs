//! What both sides are given, and whether both computed the same: a fast wrong product is no product.

use anyhow::{Result, ensure};

/// Both libraries round the activations (or queries) to 8 bits, in blocks of different lengths: the root mean
/// square of the difference is 0.5 % to 1 % of that of the result. A wrong layout gives 140 %.
pub const TOLERANCE: f64 = 0.02;

/// Fails unless the root mean square of the difference is at most `tolerance` of that of ggml's result.
pub fn agree(case: &str, tolerance: f64, ours: &[f32], theirs: &[f32]) -> Result<()> {
    ensure!(ours.len() == theirs.len(), "{case}: {} elements and {}", ours.len(), theirs.len());
    let square = |x: f64| x * x;
    let size: f64 = theirs.iter().map(|&y| square(y.into())).sum();
    let gap: f64 = ours.iter().zip(theirs).map(|(&x, &y)| square(f64::from(x) - f64::from(y))).sum();
    let relative = (gap / size).sqrt();
    ensure!(relative <= tolerance, "{case}: ggml's result differs by {:.2} %", 100.0 * relative);
    Ok(())
}

/// Copies of weights and caches take turns and fill at least this, three times the largest cache that a core
/// of the machines at hand reads from: each call then reads memory, as the many layers of a model do.
pub const ROTATION_BYTES: usize = 96 << 20;

/// Reproducible values in -1..1 without a pattern that the block lengths could hide.
pub fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / 2f32.powi(31) - 1.0
        })
        .collect()
}

/// `values` as bytes of the machine's order.
pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_ne_bytes()).collect()
}
