//! Attention: prefill, decode, windows, grouped heads, rings that have wrapped.

use super::{Cases, numbers};
use kvern::attention::{
    AttentionOptions, Bias, KvCache, KvCacheOptions, KvType, Outputs, attend, attend_with, workspace_bytes,
};
use kvern::{MatMut, MatRef, Workspace};

/// Name, query heads, kv heads, head_dim, capacity, window, tokens appended, queries.
type Case = (&'static str, usize, usize, usize, usize, Option<usize>, usize, usize);

const CASES: [Case; 7] = [
    ("prefill", 4, 4, 64, 300, None, 300, 300),
    ("prefill grouped", 6, 2, 40, 70, None, 70, 70),
    ("prefill window", 4, 2, 32, 450, Some(50), 400, 400),
    ("decode", 4, 4, 64, 600, None, 530, 1),
    ("decode grouped", 32, 8, 64, 300, None, 300, 1),
    ("decode window", 4, 2, 32, 300, Some(256), 300, 1),
    ("decode wrapped", 4, 2, 32, 300, Some(200), 777, 3),
];

pub fn cases(cases: &mut Cases<'_>) {
    for case in CASES {
        attention(cases, case, true);
    }
    attention(cases, ("everything seen", 4, 2, 32, 100, None, 100, 100), false);
    for kind in KvType::ALL {
        for (name, queries) in [("decode", 1), ("prefill", 290)] {
            stored(cases, kind, name, queries);
        }
    }
}

/// A cache of each type, with every option that changes scores.
fn stored(cases: &mut Cases<'_>, kind: KvType, name: &str, queries: usize) {
    let (heads, kv_heads, dim, tokens) = (8, 2, 64, 290);
    let ctx = cases.ctx;
    let options = KvCacheOptions::new(kv_heads, dim, 300).types(kind, kind);
    let mut cache = KvCache::new(options).unwrap();
    let (k, v) = (numbers(tokens * kv_heads * dim, 4), numbers(tokens * kv_heads * dim, 5));
    let [k, v] = [&k, &v].map(|x| MatRef::dense(x, tokens, kv_heads * dim).unwrap());
    cache.append(k, v).unwrap();
    let options = AttentionOptions::new(heads).softcap(20.0).window(200).sinks(3);
    let slopes: Vec<f32> = (0..heads).map(|h| 0.5 / (h + 1) as f32).collect();
    let bias = Bias::default().alibi(&slopes).sink_logits(&slopes);
    let mut ws = Workspace::new(workspace_bytes(ctx, &options, &cache, queries).unwrap()).unwrap();
    let q = numbers(queries * heads * dim, 6);
    let q = MatRef::dense(&q, queries, heads * dim).unwrap();
    let (mut out, mut lse) = (vec![0.0; queries * heads * dim], vec![0.0; queries * heads]);
    let outputs = Outputs::new(MatMut::dense(&mut out, queries, heads * dim).unwrap());
    let outputs = outputs.lse(MatMut::dense(&mut lse, queries, heads).unwrap());
    attend_with(ctx, &mut ws, &options, &bias, q, &cache, outputs).unwrap();
    cases.take(format!("attention {name} with options, {} cache", kind.name()), &out);
    cases.take(format!("attention {name} log-sum-exp, {} cache", kind.name()), &lse);
}

fn attention(cases: &mut Cases<'_>, case: Case, causal: bool) {
    let (name, heads, kv_heads, dim, capacity, window, tokens, queries) = case;
    let ctx = cases.ctx;
    let mut options = KvCacheOptions::new(kv_heads, dim, capacity);
    options.window = window;
    let mut cache = KvCache::new(options).unwrap();
    let width = kv_heads * dim;
    let (k, v) = (numbers(tokens * width, 1), numbers(tokens * width, 2));
    for (k, v) in k.chunks(100 * width).zip(v.chunks(100 * width)) {
        let rows = k.len() / width;
        let [k, v] = [k, v].map(|x| MatRef::dense(x, rows, width).unwrap());
        cache.append(k, v).unwrap();
    }
    let options = AttentionOptions::new(heads).causal(causal);
    let mut ws = Workspace::new(workspace_bytes(ctx, &options, &cache, queries).unwrap()).unwrap();
    let q: Vec<f32> = numbers(queries * heads * dim, 3).iter().map(|x| x / 4.0).collect();
    let q = MatRef::dense(&q, queries, heads * dim).unwrap();
    let mut out = vec![0.0; queries * heads * dim];
    let view = MatMut::dense(&mut out, queries, heads * dim).unwrap();
    attend(ctx, &mut ws, &options, q, &cache, view).unwrap();
    cases.take(format!("attention {name}"), &out);
}
