//! The oracle: two passes in f64 over plain keys and values.

use crate::view::MatRef;

/// Attention of one query head over the keys `seen` of one kv head, in f64.
///
/// `q`: (head_dim), `k`, `v`: (tokens, kv_heads * head_dim).
pub fn attend(
    q: &[f32],
    k: MatRef<'_>,
    v: MatRef<'_>,
    kv_head: usize,
    seen: std::ops::Range<usize>,
    scale: f64,
) -> Vec<f64> {
    let dim = q.len();
    let scores: Vec<f64> = seen
        .clone()
        .map(|key| {
            let k = &k.from(key, kv_head * dim)[..dim];
            scale * q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>()
        })
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = p.iter().sum();
    let mut out = vec![0.0; dim];
    for (key, p) in seen.zip(p) {
        for (out, &v) in out.iter_mut().zip(&v.from(key, kv_head * dim)[..dim]) {
            *out += p / sum * f64::from(v);
        }
    }
    out
}
