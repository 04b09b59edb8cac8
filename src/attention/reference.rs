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

/// One query head with everything that may enter its scores, for [`attend_row`].
pub struct Row<'a> {
    /// The query, (key_dim).
    pub q: &'a [f32],
    /// Whose keys and values it sees.
    pub kv_head: usize,
    /// Head size of the values.
    pub value_dim: usize,
    /// Factor of the scores.
    pub scale: f64,
    /// Soft cap of the scores.
    pub softcap: Option<f64>,
    /// What is added to the score of a key; `None` for a key that is not seen.
    pub bias: &'a dyn Fn(usize) -> Option<f64>,
    /// Score of the learned sink.
    pub sink: Option<f64>,
}

/// Attention of one query head in f64, `k`: (tokens, kv_heads * key_dim), `v`: (tokens, kv_heads *
/// value_dim): the output and the natural logarithm of the softmax's denominator. Two passes, key by key.
pub fn attend_row(row: &Row<'_>, k: MatRef<'_>, v: MatRef<'_>) -> (Vec<f64>, f64) {
    let dim = row.q.len();
    let scores: Vec<(usize, f64)> = (0..k.rows())
        .filter_map(|key| {
            let k = &k.from(key, row.kv_head * dim)[..dim];
            let bias = (row.bias)(key)?;
            let s = row.scale * row.q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
            Some((key, row.softcap.map_or(s, |cap| cap * (s / cap).tanh()) + bias))
        })
        .collect();
    let start = row.sink.unwrap_or(f64::NEG_INFINITY);
    let max = scores.iter().map(|x| x.1).fold(start, f64::max);
    let mut out = vec![0.0; row.value_dim];
    if max == f64::NEG_INFINITY {
        return (out, max);
    }
    let sum = scores.iter().map(|x| (x.1 - max).exp()).sum::<f64>() + (start - max).exp();
    for (key, s) in scores {
        let p = (s - max).exp() / sum;
        for (out, &v) in out.iter_mut().zip(&v.from(key, row.kv_head * row.value_dim)[..row.value_dim]) {
            *out += p * f64::from(v);
        }
    }
    (out, max + sum.ln())
}
