//! Caches whose values are the first part of their keys: the bits of a cache that stores both, in any batch
//! and at every tier; its whole life; files; and memory.

use crate::cases::{Case, run};
use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, KvType, Preparation, attend_batch};
use kvern::ops::{RopePairs, RopeTable, rms_norm, rope};
use kvern::{Context, Error, Isa, MatMut, MatRef, Precision, Workspace};

/// (heads, kv heads, key, value), tokens, window and sinks.
type Sizes = ((usize, usize, usize, usize), usize, Option<(usize, usize)>);

/// DeepSeek's own sizes with few heads; tails of 8; as many heads as rows of several strips; two kv heads; a
/// value that is the whole key; rings.
const SIZES: [Sizes; 6] = [
    ((4, 1, 576, 512), 300, None),
    ((20, 1, 40, 24), 270, None),
    ((6, 2, 56, 40), 290, None),
    ((3, 1, 24, 24), 70, None),
    ((16, 1, 48, 40), 600, Some((100, 0))),
    ((2, 1, 40, 32), 900, Some((60, 7))),
];

/// A latent cache, and one of the same sizes that stores keys and values.
fn options(((_, kv_heads, key, value), tokens, window): Sizes) -> [KvCacheOptions; 2] {
    let capacity = window.map_or(tokens, |(window, sinks)| sinks + 3 * window + 40);
    let mut options = KvCacheOptions::new(kv_heads, key, capacity);
    if let Some((window, sinks)) = window {
        options = options.window(window).sinks(sinks);
    }
    [options.latent(value), options.value_dim(value)]
}

/// The values of some rows of keys.
fn values(k: &[f32], kv_heads: usize, key: usize, value: usize) -> Vec<f32> {
    assert!(k.len().is_multiple_of(kv_heads * key));
    k.chunks_exact(key).flat_map(|k| k[..value].to_vec()).collect()
}

/// Appends keys `range` to a latent cache.
fn append(cache: &mut KvCache, sequence: usize, k: &[f32], range: std::ops::Range<usize>) {
    let width = cache.options().kv_heads * cache.options().head_dim;
    let k = MatRef::dense(&k[range.start * width..range.end * width], range.len(), width).unwrap();
    cache.append_to(sequence, k, MatRef::dense(&[], k.rows(), 0).unwrap()).unwrap();
}

/// Appends to a latent cache and attends, `step` tokens at a time.
fn in_chunks(
    ctx: &Context,
    made: KvCacheOptions,
    attention: &AttentionOptions,
    [q, k]: [&[f32]; 2],
    step: usize,
) -> Vec<f32> {
    let mut cache = KvCache::new(made).unwrap();
    let width = attention.heads * made.head_dim;
    let tokens = q.len() / width;
    let mut out = Vec::new();
    for start in (0..tokens).step_by(step) {
        let end = tokens.min(start + step);
        append(&mut cache, 0, k, start..end);
        out.extend(run(ctx, attention, &q[start * width..end * width], &cache, &[0]));
    }
    out
}

#[test]
fn a_latent_cache_has_the_bits_of_one_that_stores_its_values_apart() {
    for (i, sizes) in SIZES.into_iter().enumerate() {
        let ((heads, kv_heads, key, value), tokens, _) = sizes;
        let [latent, apart] = options(sizes);
        let case = Case { heads, options: apart, tokens };
        let [q, k, _] = case.inputs(70 + i as u64);
        let v = values(&k, kv_heads, key, value);
        for kind in KvType::ALL {
            // The numbers that the cache holds, which keys of codes share with their values.
            let mut one = latent.types(kind, kind);
            (one.capacity, one.window, one.sinks) = (tokens, None, 0);
            let mut held = KvCache::new(one).unwrap();
            append(&mut held, 0, &k, 0..tokens);
            let (mut wide_k, mut wide_v) = (k.clone(), v.clone());
            let rows = wide_k.chunks_exact_mut(kv_heads * key).zip(wide_v.chunks_exact_mut(kv_heads * value));
            for (position, (k, v)) in rows.enumerate() {
                held.token(0, position, k, v).unwrap();
            }
            assert_same_bits(&wide_v, &values(&wide_k, kv_heads, key, value), "values are parts of keys");
            let f32s = (KvType::F32, KvType::F32);
            let all = [q.clone(), wide_k, wide_v];
            let step = case.most();
            let want = case.in_chunks(&context(Isa::detect(), 1), Precision::Exact, f32s, step, &all);
            let attention = AttentionOptions::new(heads);
            for_each_isa(|ctx| {
                let steps: &[usize] = match ctx.isa() {
                    Isa::Scalar if (i + kind as usize).is_multiple_of(3) => &[64],
                    Isa::Scalar => &[],
                    _ => &[1, 7, 64, usize::MAX],
                };
                for &step in steps {
                    let step = step.min(case.most());
                    let got = in_chunks(ctx, latent.types(kind, kind), &attention, [&q, &k], step);
                    assert_same_bits(&got, &want, &format!("{sizes:?} {kind:?} by {step}, {}", ctx.isa()));
                }
            });
            for threads in [2, 3, 8] {
                let ctx = context(Isa::detect(), threads);
                for step in [1, usize::MAX] {
                    let step = step.min(case.most());
                    let got = in_chunks(&ctx, latent.types(kind, kind), &attention, [&q, &k], step);
                    assert_same_bits(
                        &got,
                        &want,
                        &format!("{sizes:?} {kind:?} by {step}, {threads} threads"),
                    );
                }
            }
        }
    }
}

/// Where the CPU has bf16 dot products, their bits are those of a cache that stores both; elsewhere `Fast` is
/// exact.
#[test]
fn fast_products_are_those_of_values_apart() {
    let sizes = SIZES[1];
    let ((heads, kv_heads, key, value), tokens, _) = sizes;
    let [latent, apart] = options(sizes);
    let case = Case { heads, options: apart, tokens };
    let [q, k, _] = case.inputs(3);
    let v = values(&k, kv_heads, key, value);
    let attention = AttentionOptions::new(heads).precision(Precision::Fast);
    for_each_isa(|ctx| {
        let all = [q.clone(), k.clone(), v.clone()];
        let want = case.in_chunks(ctx, Precision::Fast, (KvType::F32, KvType::F32), tokens, &all);
        let got = in_chunks(ctx, latent, &attention, [&q, &k], tokens);
        assert_same_bits(&got, &want, &format!("Fast at {}", ctx.isa()));
    });
}

/// Random edits of a latent cache and of one that stores both, side by side: the same answers, the same bits.
#[test]
fn edits_keep_both_alike() {
    let mut r = Random::new(9);
    let (heads, key, value) = (4, 40, 32);
    let table = RopeTable::new(8, 700, 1e4).unwrap();
    for kind in [KvType::F32, KvType::F16, KvType::Bf16] {
        let made = KvCacheOptions::new(1, key, 640).sequences(3).types(kind, kind);
        let mut latent = KvCache::new(made.latent(value)).unwrap();
        let mut apart = KvCache::new(made.value_dim(value)).unwrap();
        for step in 0..60 {
            let (s, t) = (r.below(3), r.below(3));
            let len = latent.len_of(s);
            assert_eq!(len, apart.len_of(s));
            match r.below(5) {
                0 => {
                    latent.fork(s, t).unwrap();
                    apart.fork(s, t).unwrap();
                }
                1 if len > 0 => {
                    let to = r.below(len);
                    latent.truncate_in(s, to).unwrap();
                    apart.truncate_in(s, to).unwrap();
                }
                2 if len > 1 => {
                    let start = r.below(len - 1);
                    let end = start + 1 + r.below((len - start - 1).min(20));
                    latent.remove_in(s, start..end).unwrap();
                    apart.remove_in(s, start..end).unwrap();
                    // The rotated part alone moves: the other cache is given what this one then holds.
                    let by = -((end - start) as isize);
                    let before = len - (end - start);
                    latent.rotate(s, start..before, by, &table, RopePairs::Interleaved).unwrap();
                    let mut k = vec![0.0; key];
                    let (mut v, mut old) = (vec![0.0; value], vec![0.0; value]);
                    apart.truncate_in(s, start).unwrap();
                    for position in start..before {
                        latent.token(s, position, &mut k, &mut v).unwrap();
                        old.copy_from_slice(&k[..value]);
                        assert_same_bits(&v, &old, "a rotation leaves the latent alone");
                        let k = MatRef::dense(&k, 1, key).unwrap();
                        apart.append_to(s, k, MatRef::dense(&v, 1, value).unwrap()).unwrap();
                    }
                }
                _ => {
                    let n = (1 + r.below(150)).min(640 - len);
                    let k = r.vec(n * key);
                    append(&mut latent, s, &k, 0..n);
                    let v = values(&k, 1, key, value);
                    let k = MatRef::dense(&k, n, key).unwrap();
                    apart.append_to(s, k, MatRef::dense(&v, n, value).unwrap()).unwrap();
                }
            }
            if latent.len_of(s) > 0 {
                let q = r.vec(heads * key);
                let ctx = context(Isa::detect(), 1 + step % 3);
                let options = AttentionOptions::new(heads);
                let want = run(&ctx, &options, &q, &apart, &[s]);
                assert_same_bits(&run(&ctx, &options, &q, &latent, &[s]), &want, &format!("{kind:?} {step}"));
            }
        }
    }
}

#[test]
fn files_hold_the_latent_once_and_name_it() {
    let dir = std::env::temp_dir().join(format!("kvern-latent-{}", std::process::id()));
    let made = KvCacheOptions::new(1, 40, 300).types(KvType::Bf16, KvType::Bf16);
    let mut cache = KvCache::new(made.latent(32)).unwrap();
    let k = Random::new(5).vec(290 * 40);
    append(&mut cache, 0, &k, 0..290);
    cache.save(&dir).unwrap();
    let back = KvCache::load(made.latent(32), &dir).unwrap();
    let q = Random::new(6).vec(8 * 40);
    let options = AttentionOptions::new(8);
    let ctx = Context::serial();
    assert_same_bits(&run(&ctx, &options, &q, &back, &[0]), &run(&ctx, &options, &q, &cache, &[0]), "file");
    let e = KvCache::load(made.value_dim(32), &dir).unwrap_err().to_string();
    assert!(e.contains("type of values") && e.contains("256") && e.contains("30"), "{e}");
    std::fs::remove_file(&dir).unwrap();
}

/// 576 elements a token, as many as DeepSeek's cache needs.
#[test]
fn a_token_takes_its_key_alone() {
    let made = KvCacheOptions::new(1, 576, 8192).types(KvType::F16, KvType::F16).latent(512);
    let cache = KvCache::new(made).unwrap();
    assert_eq!(cache.bytes(), 8192 * 576 * 2);
}

#[test]
fn a_prepared_append_norms_the_latent_and_rotates_the_rest() {
    let mut r = Random::new(12);
    let (heads, key, value, tokens) = (5, 40, 32, 9);
    let (q, k, gain) = (r.vec(tokens * heads * key), r.vec(tokens * key), r.vec(value));
    let table = RopeTable::new(8, 64, 1e4).unwrap();
    let made = KvCacheOptions::new(1, key, 64).latent(value);
    for_each_isa(|ctx| {
        let (mut want_q, mut want_k) = (q.clone(), k.clone());
        for (token, row) in want_k.chunks_exact_mut(key).enumerate() {
            let latent = row[..value].to_vec();
            let out = MatMut::dense(&mut row[..value], 1, value).unwrap();
            rms_norm(ctx, MatRef::dense(&latent, 1, value).unwrap(), &gain, 1e-6, out).unwrap();
            let rest = MatMut::dense(&mut row[value..], 1, 8).unwrap();
            rope(ctx, &table, RopePairs::Interleaved, 8, token, rest).unwrap();
        }
        for (i, head) in want_q.chunks_exact_mut(key).enumerate() {
            let rest = MatMut::dense(&mut head[value..], 1, 8).unwrap();
            rope(ctx, &table, RopePairs::Interleaved, 8, i / heads, rest).unwrap();
        }
        let (mut got_q, mut got_k) = (q.clone(), k.clone());
        let mut cache = KvCache::new(made).unwrap();
        let mut preparation = Preparation::default().rope(&table, RopePairs::Interleaved);
        preparation.k_norm = Some((&gain, 1e-6));
        let no_values = MatRef::dense(&[], tokens, 0).unwrap();
        let q = MatMut::dense(&mut got_q, tokens, heads * key).unwrap();
        let k = MatMut::dense(&mut got_k, tokens, key).unwrap();
        cache.append_prepared(ctx, 0, &preparation, q, k, no_values).unwrap();
        assert_same_bits(&got_q, &want_q, "queries");
        assert_same_bits(&got_k, &want_k, "keys");
        let (mut k, mut v) = (vec![0.0; key], vec![0.0; value]);
        cache.token(0, 4, &mut k, &mut v).unwrap();
        assert_same_bits(&k, &want_k[4 * key..5 * key], "the cache holds the prepared key");

        // A table wider than what lies behind the latent, gains of the whole key, values: refused, and
        // nothing changes.
        let wide = RopeTable::new(16, 64, 1e4).unwrap();
        let gains = vec![1.0; key];
        let mut bad = Preparation::default();
        bad.k_norm = Some((&gains, 1e-6));
        for (preparation, columns, words) in [
            (Preparation::default().rope(&wide, RopePairs::Halves), 0, ["16", "head_dim - value_dim = 8"]),
            (bad, 0, ["40", "value_dim = 32"]),
            (Preparation::default(), value, ["32", "= 0"]),
        ] {
            let v = vec![0.0; tokens * columns];
            let q = MatMut::dense(&mut got_q, tokens, heads * key).unwrap();
            let k = MatMut::dense(&mut got_k, tokens, key).unwrap();
            let v = MatRef::dense(&v, tokens, columns).unwrap();
            let e = cache.append_prepared(ctx, 0, &preparation, q, k, v).unwrap_err().to_string();
            assert!(words.iter().all(|word| e.contains(word)), "{e}");
            assert_same_bits(&got_k, &want_k, "an error changes nothing");
            assert_eq!(cache.len(), tokens);
        }
    });
}

#[test]
fn latents_that_cannot_be_are_refused() {
    let made = KvCacheOptions::new(1, 40, 64);
    let e = KvCache::new(made.latent(48)).unwrap_err();
    assert!(matches!(e, Error::Shape { what: "value_dim", got: 48, want: 40, .. }), "{e}");
    let e = KvCache::new(made.latent(32).types(KvType::F16, KvType::F32)).unwrap_err();
    assert!(matches!(e, Error::Option { what: "values", .. }), "{e}");
    let cache = KvCache::new(made.latent(32)).unwrap();
    let mut cache = cache;
    let table = RopeTable::new(16, 64, 1e4).unwrap();
    append(&mut cache, 0, &[0.5; 40 * 3], 0..3);
    let e = cache.rotate(0, 0..3, 1, &table, RopePairs::Halves).unwrap_err();
    assert!(matches!(e, Error::Shape { what: "rotary_dim", got: 16, want: 8, .. }), "{e}");
}

/// Sequences of one cache in one call, as a server decodes them.
#[test]
fn sequences_of_a_latent_cache_have_the_bits_that_they_have_alone() {
    let mut r = Random::new(14);
    let (heads, key, value) = (8, 40, 32);
    let mut cache = KvCache::new(KvCacheOptions::new(1, key, 600).sequences(4).latent(value)).unwrap();
    for (s, n) in [(0, 3), (1, 256), (2, 599), (3, 1)] {
        let k = r.vec(n * key);
        append(&mut cache, s, &k, 0..n);
    }
    let order = [2, 0, 3, 1];
    let q = r.vec(order.len() * heads * key);
    for threads in [1, 2, 8] {
        let ctx = context(Isa::detect(), threads);
        let options = AttentionOptions::new(heads);
        let bytes = kvern::attention::workspace_bytes(&ctx, &options, &cache, 1).unwrap();
        let mut ws = Workspace::new(bytes).unwrap();
        let mut out = vec![f32::NAN; order.len() * heads * value];
        let rows = MatRef::dense(&q, order.len(), heads * key).unwrap();
        let to = MatMut::dense(&mut out, order.len(), heads * value).unwrap();
        attend_batch(&ctx, &mut ws, &options, rows, &cache, &order, to).unwrap();
        for (i, s) in order.into_iter().enumerate() {
            let alone = run(&Context::serial(), &options, &q[i * heads * key..][..heads * key], &cache, &[s]);
            assert_same_bits(&out[i * heads * value..][..heads * value], &alone, &format!("sequence {s}"));
        }
    }
}
