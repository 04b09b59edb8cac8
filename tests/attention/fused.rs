//! Attention over the ring cache: the same bits however tokens arrive, the f64 oracle, and bad input.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, attend, reference, workspace_bytes};
use kvern::{Context, Isa, MatMut, MatRef, Workspace};

fn run(ctx: &Context, o: &AttentionOptions, q: &[f32], cols: usize, cache: &KvCache) -> Vec<f32> {
    let rows = q.len() / cols;
    let mut ws = Workspace::new(workspace_bytes(ctx, o, cache, rows).unwrap()).unwrap();
    let mut out = vec![f32::NAN; q.len()];
    let q = MatRef::dense(q, rows, cols).unwrap();
    attend(ctx, &mut ws, o, q, cache, MatMut::dense(&mut out, rows, cols).unwrap()).unwrap();
    out
}

struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    tokens: usize,
    capacity: usize,
    window: Option<usize>,
}

impl Case {
    fn cache(&self) -> KvCache {
        let options = KvCacheOptions::new(self.kv_heads, self.dim, self.capacity);
        KvCache::new(self.window.map_or(options, |w| options.window(w))).unwrap()
    }

    /// Q, K, V of all tokens.
    fn inputs(&self, seed: u64) -> [Vec<f32>; 3] {
        let mut r = Random::new(seed);
        let mut rows = |heads: usize| -> Vec<f32> {
            r.vec(self.tokens * heads * self.dim).iter().map(|x| 2.0 * x).collect()
        };
        [rows(self.heads), rows(self.kv_heads), rows(self.kv_heads)]
    }

    /// Appends and attends in chunks of `step` tokens.
    fn in_chunks(&self, ctx: &Context, step: usize, [q, k, v]: &[Vec<f32>; 3]) -> Vec<f32> {
        let (qc, kc) = (self.heads * self.dim, self.kv_heads * self.dim);
        let mut cache = self.cache();
        let mut out = Vec::new();
        for start in (0..self.tokens).step_by(step) {
            let end = self.tokens.min(start + step);
            let part = |x: &[f32], c: usize| x[start * c..end * c].to_vec();
            let (pk, pv) = (part(k, kc), part(v, kc));
            let dense = |x| MatRef::dense(x, end - start, kc).unwrap();
            cache.append(dense(&pk), dense(&pv)).unwrap();
            out.extend(run(ctx, &AttentionOptions::new(self.heads), &part(q, qc), qc, &cache));
        }
        out
    }
}

const CASES: [Case; 6] = [
    Case { heads: 4, kv_heads: 4, dim: 32, tokens: 70, capacity: 70, window: None },
    Case { heads: 8, kv_heads: 2, dim: 64, tokens: 300, capacity: 512, window: None },
    Case { heads: 3, kv_heads: 1, dim: 8, tokens: 530, capacity: 530, window: None },
    Case { heads: 4, kv_heads: 2, dim: 40, tokens: 700, capacity: 200, window: Some(100) },
    Case { heads: 2, kv_heads: 2, dim: 24, tokens: 600, capacity: 300, window: Some(270) },
    Case { heads: 7, kv_heads: 1, dim: 128, tokens: 40, capacity: 64, window: Some(5) },
];

#[test]
fn prefill_decode_chunks_threads_and_tiers_give_the_same_bits() {
    for (i, case) in CASES.iter().enumerate() {
        let inputs = case.inputs(i as u64);
        let want = case.in_chunks(&context(Isa::Scalar, 1), 1, &inputs);
        for_each_isa(|ctx| {
            let most = case.window.map_or(case.tokens, |w| case.capacity - w + 1);
            for step in [1, 7, 64, case.tokens] {
                let step = step.min(most);
                let got = case.in_chunks(ctx, step, &inputs);
                assert_same_bits(&got, &want, &format!("case {i} by {step} at {}", ctx.isa()));
            }
            for threads in [2, 3, 8] {
                let ctx = context(ctx.isa(), threads);
                assert_same_bits(&case.in_chunks(&ctx, most, &inputs), &want, &format!("{threads} threads"));
            }
        });
    }
}

#[test]
fn results_stay_close_to_the_f64_oracle() {
    for (i, case) in CASES.iter().enumerate() {
        let inputs = case.inputs(100 + i as u64);
        let got = case.in_chunks(&Context::serial(), 1, &inputs);
        let [q, k, v] = &inputs;
        let kc = case.kv_heads * case.dim;
        let dense = |x| MatRef::dense(x, case.tokens, kc).unwrap();
        let scale = 1.0 / (case.dim as f64).sqrt();
        for (row, (q, got)) in q.chunks_exact(case.dim).zip(got.chunks_exact(case.dim)).enumerate() {
            let (token, head) = (row / case.heads, row % case.heads);
            let first = case.window.map_or(0, |w| (token + 1).saturating_sub(w));
            let kv_head = head / (case.heads / case.kv_heads);
            let want = reference::attend(q, dense(k), dense(v), kv_head, first..token + 1, scale);
            for (got, want) in got.iter().zip(want) {
                // |v| <= 2: scores are off by at most dim * 2^-24 * |q||k|, and p by as much relatively.
                let bound = 2.0 * 2.0 * (case.dim as f64 * 4.0 * scale * 2f64.powi(-22) + 4e-7);
                assert!((f64::from(*got) - want).abs() <= bound, "{got} {want} {bound}");
            }
        }
    }
}

#[test]
fn bidirectional_attention_sees_the_whole_cache() {
    let case = Case { heads: 4, kv_heads: 2, dim: 16, tokens: 270, capacity: 300, window: None };
    let [q, k, v] = case.inputs(5);
    let dense = |x| MatRef::dense(x, 270, 32).unwrap();
    let mut want = Vec::new();
    for_each_isa(|ctx| {
        let mut cache = case.cache();
        cache.append(dense(&k), dense(&v)).unwrap();
        let options = AttentionOptions::new(4).causal(false).scale(0.3);
        let got = run(ctx, &options, &q, 64, &cache);
        let oracle = reference::attend(&q[..16], dense(&k), dense(&v), 0, 0..270, f64::from(0.3f32));
        assert!(got.iter().zip(oracle).all(|(g, w)| (f64::from(*g) - w).abs() < 1e-5));
        if want.is_empty() {
            want = got.clone();
        }
        assert_same_bits(&got, &want, "bidirectional");
    });
}

#[test]
fn masked_keys_contribute_nothing_not_even_nan() {
    let case = Case { heads: 2, kv_heads: 1, dim: 16, tokens: 40, capacity: 64, window: Some(10) };
    let [q, mut k, mut v] = case.inputs(6);
    let clean = case.in_chunks(&Context::serial(), 40, &[q.clone(), k.clone(), v.clone()]);
    k[20 * 16..21 * 16].fill(f32::NAN);
    v[20 * 16..21 * 16].fill(f32::INFINITY);
    for_each_isa(|ctx| {
        let got = case.in_chunks(ctx, 40, &[q.clone(), k.clone(), v.clone()]);
        assert_same_bits(&got[..20 * 32], &clean[..20 * 32], "before the NaN");
        assert!(got[20 * 32..30 * 32].iter().all(|x| x.is_nan()), "rows that see it");
        assert_same_bits(&got[30 * 32..], &clean[30 * 32..], "after the window");
    });
}

#[test]
fn scores_of_minus_infinity_give_zeros() {
    for_each_isa(|ctx| {
        let mut cache = KvCache::new(KvCacheOptions::new(1, 8, 4)).unwrap();
        let k = [f32::NEG_INFINITY, 0., 0., 0., 0., 0., 0., 0.];
        cache.append(MatRef::dense(&k, 1, 8).unwrap(), MatRef::dense(&[1.0; 8], 1, 8).unwrap()).unwrap();
        let q = [1.0, 0., 0., 0., 0., 0., 0., 0.];
        assert_eq!(run(ctx, &AttentionOptions::new(1), &q, 8, &cache), [0.0; 8]);
        let nan = run(ctx, &AttentionOptions::new(1), &[f32::NAN; 8], 8, &cache);
        assert!(nan.iter().all(|x| x.is_nan()), "a query of NaN gives NaN");
    });
}

#[test]
fn truncation_takes_tokens_back() {
    let case = Case { heads: 2, kv_heads: 2, dim: 8, tokens: 30, capacity: 40, window: None };
    let inputs = case.inputs(7);
    let [q, k, v] = &inputs;
    let ctx = Context::serial();
    let want = case.in_chunks(&ctx, 30, &inputs);
    let mut cache = case.cache();
    let part = |x: &'_ [f32], r: std::ops::Range<usize>| x[r.start * 16..r.end * 16].to_vec();
    let append = |cache: &mut KvCache, r: std::ops::Range<usize>| {
        let (k, v) = (part(k, r.clone()), part(v, r.clone()));
        let dense = |x| MatRef::dense(x, r.len(), 16).unwrap();
        cache.append(dense(&k), dense(&v)).unwrap();
    };
    append(&mut cache, 0..20);
    append(&mut cache, 5..15); // a draft that is thrown away
    cache.truncate(20).unwrap();
    append(&mut cache, 20..30);
    let got = run(&ctx, &AttentionOptions::new(2), &part(q, 20..30), 16, &cache);
    assert_same_bits(&got, &want[20 * 16..], "after truncation");
    assert_eq!(cache.truncate(31).unwrap_err().to_string(), "len = 31 must be at most the cache's len = 30");
    cache.clear();
    assert!(cache.is_empty());
}

#[test]
fn a_full_cache_and_bad_shapes_are_refused_and_change_nothing() {
    let x = [0.5f32; 16 * 9];
    let rows = |n: usize, cols: usize| MatRef::dense(&x[..n * cols], n, cols).unwrap();
    let mut cache = KvCache::new(KvCacheOptions::new(2, 8, 4)).unwrap();
    cache.append(rows(3, 16), rows(3, 16)).unwrap();
    let e = cache.append(rows(2, 16), rows(2, 16)).unwrap_err();
    assert_eq!(e.to_string(), "cache holds 3 tokens, adding 2 exceeds capacity = 4");
    let e = cache.append(rows(1, 8), rows(1, 16)).unwrap_err();
    assert_eq!(e.to_string(), "k.cols = 8 must equal kv_heads * head_dim = 16");
    assert!(cache.append(rows(1, 16), rows(1, 8)).is_err());
    let e = cache.append(rows(1, 16), rows(2, 16)).unwrap_err();
    assert_eq!(e.to_string(), "v.rows = 2 must equal k.rows = 1");
    assert!(cache.append(rows(16, 1).t(), rows(1, 16)).is_err());
    assert_eq!((cache.len(), cache.start()), (3, 0));
    assert_eq!(cache.bytes(), 2 * 256 * (8 + 16) * 4);
    assert_eq!(cache.options().capacity, 4);

    let ctx = Context::serial();
    let mut ws = Workspace::new(1 << 16).unwrap();
    let mut out = [7.0f32; 16 * 4];
    let mut say = |o: &AttentionOptions, q: MatRef<'_>, cache: &KvCache, rows: usize, cols: usize| {
        let out = MatMut::dense(&mut out[..rows * cols], rows, cols).unwrap();
        attend(&ctx, &mut ws, o, q, cache, out).unwrap_err().to_string()
    };
    let two = AttentionOptions::new(2);
    assert_eq!(
        say(&AttentionOptions::new(3), rows(1, 16), &cache, 1, 16),
        "heads = 3 must be a multiple of kv_heads = 2"
    );
    assert_eq!(
        say(&AttentionOptions::new(0), rows(1, 16), &cache, 1, 16),
        "heads = 0 must be a multiple of kv_heads = 2"
    );
    assert_eq!(say(&two, rows(1, 8), &cache, 1, 16), "q.cols = 8 must equal heads * head_dim = 16");
    assert_eq!(say(&two, rows(1, 16), &cache, 1, 8), "out.cols = 8 must equal heads * head_dim = 16");
    assert_eq!(say(&two, rows(1, 16), &cache, 2, 16), "out.rows = 2 must equal q.rows = 1");
    assert_eq!(say(&two, rows(4, 16), &cache, 4, 16), "q.rows = 4 must be at most the cache's len = 3");
    assert!(say(&two, rows(16, 1).t(), &cache, 1, 16).contains("transposed"));

    let mut ring = KvCache::new(KvCacheOptions::new(2, 8, 6).window(4)).unwrap();
    for _ in 0..3 {
        ring.append(rows(3, 16), rows(3, 16)).unwrap();
    }
    assert_eq!((ring.len(), ring.start()), (9, 3));
    assert_eq!(
        say(&two, rows(4, 16), &ring, 4, 16),
        "q.rows = 4 must be at most the cache's len - start - window + 1 = 3"
    );
    assert!(say(&two.causal(false), rows(1, 16), &ring, 1, 16).starts_with("causal = false"));
    assert!(ring.truncate(5).unwrap_err().to_string().starts_with("len = 5 must be at least"));
    ring.truncate(7).unwrap();
    assert_eq!((ring.len(), ring.start()), (7, 3), "what was overwritten does not come back");
    assert!(ring.truncate(5).is_err());
    ring.truncate(0).unwrap();
    assert_eq!((ring.len(), ring.start()), (0, 0));
    assert_eq!(out, [7.0; 64]);

    let bad = |o: KvCacheOptions| KvCache::new(o).unwrap_err().to_string();
    assert_eq!(bad(KvCacheOptions::new(1, 12, 4)), "head_dim = 12 must be a multiple of 8, at least 8");
    assert_eq!(bad(KvCacheOptions::new(0, 8, 4)), "kv_heads = 0 must be at least 1");
    assert_eq!(bad(KvCacheOptions::new(1, 8, 0)), "capacity = 0 must be at least 1 token");
    assert_eq!(bad(KvCacheOptions::new(1, 8, 4).window(5)), "window = 5 must be at most capacity = 4");
    assert_eq!(bad(KvCacheOptions::new(1, 8, 4).window(0)), "window = 0 must be at least 1 token");
    assert!(KvCache::new(KvCacheOptions::new(1, 8, 1 << (usize::BITS - 2))).is_err());
    assert!(KvCache::new(KvCacheOptions::new(1, usize::MAX - 7, 1)).is_err());
}
