//! Cases of attention over a cache, and what it is in f64.

use crate::support::Random;
use kvern::attention::{
    AttentionOptions, KvCache, KvCacheOptions, KvType, attend, attend_batch, workspace_bytes,
};
use kvern::{Context, MatMut, MatRef, Precision, Workspace};

/// Attention of `q` over the cache; sequence 0 alone by the call that takes no sequences.
pub fn run(
    ctx: &Context,
    options: &AttentionOptions,
    q: &[f32],
    cache: &KvCache,
    sequences: &[usize],
) -> Vec<f32> {
    let o = cache.options();
    let (qc, oc) = (options.heads * o.head_dim, options.heads * o.value_dim);
    let rows = q.len() / qc;
    let bytes = workspace_bytes(ctx, options, cache, rows / sequences.len()).unwrap();
    let mut ws = Workspace::new(bytes).unwrap();
    let mut out = vec![f32::NAN; rows * oc];
    let q = MatRef::dense(q, rows, qc).unwrap();
    let mat = MatMut::dense(&mut out, rows, oc).unwrap();
    match sequences {
        [0] => attend(ctx, &mut ws, options, q, cache, mat).unwrap(),
        _ => attend_batch(ctx, &mut ws, options, q, cache, sequences, mat).unwrap(),
    }
    out
}

/// Tokens and queries of a case.
pub struct Case {
    pub heads: usize,
    pub options: KvCacheOptions,
    pub tokens: usize,
}

impl Case {
    pub fn widths(&self) -> [usize; 3] {
        let o = &self.options;
        [self.heads * o.head_dim, o.kv_heads * o.head_dim, o.kv_heads * o.value_dim]
    }

    pub fn inputs(&self, seed: u64) -> [Vec<f32>; 3] {
        let mut r = Random::new(seed);
        self.widths().map(|w| r.vec(self.tokens * w).iter().map(|x| 2.0 * x).collect())
    }

    /// The most queries of a call on a wrapped cache.
    pub fn most(&self) -> usize {
        let o = &self.options;
        o.window.map_or(self.tokens, |w| o.capacity - o.sinks - w + 1)
    }

    pub fn append(
        &self,
        cache: &mut KvCache,
        s: usize,
        [_, k, v]: &[Vec<f32>; 3],
        range: std::ops::Range<usize>,
    ) {
        let [_, kc, vc] = self.widths();
        let n = range.len();
        let k = MatRef::dense(&k[range.start * kc..range.end * kc], n, kc).unwrap();
        let v = MatRef::dense(&v[range.start * vc..range.end * vc], n, vc).unwrap();
        cache.append_to(s, k, v).unwrap();
    }

    /// Appends and attends in chunks of `step` tokens.
    pub fn in_chunks(
        &self,
        ctx: &Context,
        precision: Precision,
        types: (KvType, KvType),
        step: usize,
        inputs: &[Vec<f32>; 3],
    ) -> Vec<f32> {
        let mut cache = KvCache::new(self.options.types(types.0, types.1)).unwrap();
        let options = AttentionOptions::new(self.heads).precision(precision);
        let mut out = Vec::new();
        for start in (0..self.tokens).step_by(step) {
            let end = self.tokens.min(start + step);
            self.append(&mut cache, 0, inputs, start..end);
            let qc = self.widths()[0];
            out.extend(run(ctx, &options, &inputs[0][start * qc..end * qc], &cache, &[0]));
        }
        out
    }

    /// The inputs as a cache of these types gives them back.
    pub fn widened(&self, types: (KvType, KvType), [q, k, v]: &[Vec<f32>; 3]) -> [Vec<f32>; 3] {
        let [_, kc, vc] = self.widths();
        let mut o = self.options.types(types.0, types.1);
        (o.capacity, o.window, o.sinks) = (self.tokens, None, 0);
        let mut cache = KvCache::new(o).unwrap();
        self.append(&mut cache, 0, &[q.clone(), k.clone(), v.clone()], 0..self.tokens);
        let (mut wk, mut wv) = (k.clone(), v.clone());
        for (i, (k, v)) in wk.chunks_exact_mut(kc).zip(wv.chunks_exact_mut(vc)).enumerate() {
            cache.token(0, i, k, v).unwrap();
        }
        [q.clone(), wk, wv]
    }
}

/// Heads that share keys or do not, dimensions with tails, windows and sinks that wrap.
pub fn cases() -> Vec<Case> {
    let o = KvCacheOptions::new;
    vec![
        Case { heads: 4, options: o(1, 128, 300), tokens: 290 },
        Case { heads: 3, options: o(3, 40, 200).window(100), tokens: 650 },
        Case { heads: 10, options: o(2, 24, 280).value_dim(72), tokens: 270 },
        Case { heads: 2, options: o(1, 8, 400).window(60).sinks(7), tokens: 900 },
        Case { heads: 6, options: o(1, 64, 700).window(270).sinks(300).value_dim(32), tokens: 1100 },
    ]
}

/// Attention in f64 over the positions that a query at `at` sees.
pub fn oracle(case: &Case, [q, k, v]: &[Vec<f32>; 3], at: usize) -> Vec<f64> {
    let o = &case.options;
    let [qc, kc, vc] = case.widths();
    let scale = 1.0 / (o.head_dim as f64).sqrt();
    let seen = |p: usize| p + o.window.unwrap_or(usize::MAX / 2) > at || p < o.sinks;
    let mut out = Vec::new();
    for head in 0..case.heads {
        let kv = head / (case.heads / o.kv_heads);
        let q = &q[at * qc + head * o.head_dim..][..o.head_dim];
        let keys: Vec<usize> = (0..=at).filter(|p| seen(*p)).collect();
        let scores: Vec<f64> = keys
            .iter()
            .map(|p| {
                let k = &k[p * kc + kv * o.head_dim..][..o.head_dim];
                scale * q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = p.iter().sum();
        let mut row = vec![0.0; o.value_dim];
        for (key, p) in keys.iter().zip(&p) {
            let v = &v[key * vc + kv * o.value_dim..][..o.value_dim];
            row.iter_mut().zip(v).for_each(|(x, v)| *x += p / sum * f64::from(*v));
        }
        out.extend(row);
    }
    out
}
