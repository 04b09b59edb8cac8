//! Attention over every type of cache: the bits of an f32 cache that holds the widened numbers, in any batch,
//! wrapped, forked, saved; sinks, several sequences in a call, rotated keys.

use crate::cases::{Case, cases, oracle, run};
use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, KvType, attend_batch};
use kvern::ops::{RopePairs, RopeTable, rope};
use kvern::{Context, Isa, MatMut, MatRef, Precision, Workspace};

fn pairs() -> Vec<(KvType, KvType)> {
    let mut all: Vec<_> = KvType::ALL.map(|t| (t, t)).into();
    all.extend([(KvType::Int8, KvType::Int4), (KvType::F32, KvType::Int8), (KvType::Bf16, KvType::F16)]);
    all
}

#[test]
fn every_type_has_the_bits_of_its_widened_numbers_in_any_batch() {
    for (i, case) in cases().iter().enumerate() {
        let inputs = case.inputs(i as u64);
        for types in pairs() {
            let wide = case.widened(types, &inputs);
            let f32s = (KvType::F32, KvType::F32);
            let want = case.in_chunks(&context(Isa::detect(), 1), Precision::Exact, f32s, case.most(), &wide);
            for_each_isa(|ctx| {
                // The scalar tier, which is slow, takes turns with the cases.
                let steps: &[usize] = match ctx.isa() {
                    Isa::Scalar if !(i + types.0 as usize).is_multiple_of(3) => &[],
                    Isa::Scalar => &[64],
                    _ => &[1, 7, usize::MAX],
                };
                for step in steps {
                    let step = (*step).min(case.most());
                    let got = case.in_chunks(ctx, Precision::Exact, types, step, &inputs);
                    assert_same_bits(&got, &want, &format!("case {i} {types:?} by {step} at {}", ctx.isa()));
                }
            });
            for threads in [2, 8] {
                let got = case.in_chunks(
                    &context(Isa::detect(), threads),
                    Precision::Exact,
                    types,
                    case.most(),
                    &inputs,
                );
                assert_same_bits(&got, &want, &format!("case {i} {types:?} {threads} threads"));
            }
        }
    }
}

#[test]
fn every_type_stays_close_to_the_f64_oracle() {
    for (i, case) in cases().iter().enumerate() {
        let inputs = case.inputs(50 + i as u64);
        for kind in KvType::ALL {
            let types = (kind, kind);
            let got = case.in_chunks(&Context::serial(), Precision::Exact, types, case.most(), &inputs);
            let wide = case.widened(types, &inputs);
            let width = case.heads * case.options.value_dim;
            let (mut exact, mut lossy) = (0.0f64, 0.0f64);
            for at in (0..case.tokens).step_by(61) {
                let got = &got[at * width..(at + 1) * width];
                let near = |want: Vec<f64>| {
                    got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max)
                };
                exact = exact.max(near(oracle(case, &wide, at)));
                lossy = lossy.max(near(oracle(case, &inputs, at)));
            }
            // |q|, |k|, |v| <= 2 (a little more after rounding). Against the widened numbers only f32
            // arithmetic is lost; against the given ones the scores move by |q| . |dk| * scale and the result
            // by |dv|.
            let dim = case.options.head_dim as f64;
            let arithmetic = 2.1 * 2.0 * (dim.sqrt() * 4.0 * 2f64.powi(-22) + 4e-7);
            assert!(exact <= arithmetic, "case {i} {kind:?}: {exact} > {arithmetic}");
            let step = match kind {
                KvType::F32 => 0.0,
                KvType::F16 => 2f64.powi(-11),
                KvType::Bf16 => 2f64.powi(-8),
                KvType::Int8 => 0.5 / 127.0,
                _ => 0.5 / 7.0,
            };
            // A score moves by at most `d`, a weight by a factor within exp(+-2 d).
            let d = dim.sqrt() * 2.0 * 2.0 * step * 1.01;
            let bound = arithmetic + 2.0 * step * 1.01 + 2.1 * 2.0 * ((2.0 * d).exp() - 1.0).min(1.0);
            assert!(lossy <= bound, "case {i} {kind:?}: {lossy} > {bound}");
        }
    }
}

#[test]
fn forks_files_and_neighbours_change_no_bit() {
    for kind in KvType::ALL {
        let options = KvCacheOptions::new(2, 32, 600).sequences(4).types(kind, kind);
        let case = Case { heads: 4, options, tokens: 500 };
        let attention = AttentionOptions::new(4);
        let [a, b] = [case.inputs(1), case.inputs(2)];
        let ctx = Context::serial();
        let alone = |inputs: &[Vec<f32>; 3], last: usize| {
            let mut cache = KvCache::new(options).unwrap();
            case.append(&mut cache, 0, inputs, 0..case.tokens);
            run(&ctx, &attention, &inputs[0][(case.tokens - last) * 128..], &cache, &[0])
        };
        // A prompt of 300 tokens of `a` in sequence 3, forked to 1; 3 goes on as `a`, 1 as `b` from 300 on.
        let mixed: [Vec<f32>; 3] = std::array::from_fn(|i| {
            let w = case.widths()[i];
            [&a[i][..300 * w], &b[i][300 * w..]].concat()
        });
        let mut cache = KvCache::new(options).unwrap();
        case.append(&mut cache, 3, &a, 0..300);
        cache.fork(3, 1).unwrap();
        case.append(&mut cache, 1, &b, 300..500);
        case.append(&mut cache, 3, &a, 300..500);
        case.append(&mut cache, 0, &b, 0..500);
        let file = std::env::temp_dir().join(format!("kvern-fork-{}-{}", std::process::id(), kind.name()));
        cache.save(&file).unwrap();
        let loaded = KvCache::load(options, &file).unwrap();
        std::fs::remove_file(file).unwrap();
        for cache in [&cache, &loaded, &cache.clone()] {
            for last in [1, 3, 40] {
                let q = |inputs: &[Vec<f32>; 3]| inputs[0][(500 - last) * 128..].to_vec();
                let batch = [q(&a), q(&b), q(&mixed)].concat();
                let want = [alone(&a, last), alone(&b, last), alone(&mixed, last)].concat();
                for_each_isa(|ctx| {
                    let got = run(ctx, &attention, &batch, cache, &[3, 0, 1]);
                    assert_same_bits(&got, &want, &format!("{kind:?} {last} at {}", ctx.isa()));
                    let got = run(&context(ctx.isa(), 3), &attention, &batch, cache, &[3, 0, 1]);
                    assert_same_bits(&got, &want, "threads");
                });
            }
        }
    }
}

#[test]
fn removed_tokens_leave_the_cache_of_the_others() {
    for kind in KvType::ALL {
        let options = KvCacheOptions::new(1, 16, 700).types(kind, kind);
        let case = Case { heads: 2, options, tokens: 600 };
        let attention = AttentionOptions::new(2);
        let inputs = case.inputs(4);
        let mut cache = KvCache::new(options).unwrap();
        case.append(&mut cache, 0, &inputs, 0..600);
        cache.remove(100..390).unwrap();
        cache.remove(0..1).unwrap();
        let mut want = KvCache::new(options).unwrap();
        case.append(&mut want, 0, &inputs, 1..100);
        case.append(&mut want, 0, &inputs, 390..600);
        let q = &inputs[0][590 * 32..];
        let ctx = Context::serial();
        assert_eq!(cache.len(), 309);
        assert_same_bits(
            &run(&ctx, &attention, q, &cache, &[0]),
            &run(&ctx, &attention, q, &want, &[0]),
            kind.name(),
        );
    }
}

#[test]
fn rotation_moves_keys_to_their_new_positions() {
    let (dim, tokens, gone) = (32, 40, 7);
    let ctx = Context::serial();
    let table = RopeTable::new(24, tokens, 1e4).unwrap();
    let mut r = Random::new(8);
    let (k, v) = (r.vec(tokens * 2 * dim), r.vec(tokens * 2 * dim));
    for pairs in [RopePairs::Halves, RopePairs::Interleaved] {
        for kind in [KvType::F32, KvType::F16, KvType::Bf16] {
            let options = KvCacheOptions::new(2, dim, tokens).types(kind, KvType::F32).sequences(2);
            let rotated = |first: usize, range: std::ops::Range<usize>| {
                let mut k = k[range.start * 2 * dim..range.end * 2 * dim].to_vec();
                let x = MatMut::dense(&mut k, range.len(), 2 * dim).unwrap();
                rope(&ctx, &table, pairs, dim, first, x).unwrap();
                k
            };
            let fill = |cache: &mut KvCache, first: usize, range: std::ops::Range<usize>| {
                let k = rotated(first, range.clone());
                let v = &v[range.start * 2 * dim..range.end * 2 * dim];
                let mat = |x| MatRef::dense(x, range.len(), 2 * dim).unwrap();
                cache.append(mat(&k), mat(v)).unwrap();
            };
            let mut cache = KvCache::new(options).unwrap();
            fill(&mut cache, 0, 0..tokens);
            cache.fork(0, 1).unwrap();
            cache.remove(5..5 + gone).unwrap();
            cache.rotate(0, 5..tokens - gone, -(gone as isize), &table, pairs).unwrap();
            let mut want = KvCache::new(options).unwrap();
            fill(&mut want, 0, 0..5);
            fill(&mut want, 5, 5 + gone..tokens);
            let bound = match kind {
                KvType::F32 => 1e-6,
                KvType::F16 => 2f32.powi(-10),
                _ => 2f32.powi(-7),
            };
            let mut x = [vec![0.0; 2 * dim], vec![0.0; 2 * dim], vec![0.0; 2 * dim], vec![0.0; 2 * dim]];
            for p in 0..tokens - gone {
                let [k0, v0, k1, v1] = &mut x;
                cache.token(0, p, k0, v0).unwrap();
                want.token(0, p, k1, v1).unwrap();
                assert_eq!(v0, v1);
                for (a, b) in k0.iter().zip(k1) {
                    assert!((*a - *b).abs() <= 3.0 * bound, "{kind:?} {pairs:?} {p}: {a} {b}");
                }
            }
            // The fork kept what it had.
            let mut fresh = KvCache::new(options).unwrap();
            fill(&mut fresh, 0, 0..tokens);
            for p in 0..tokens {
                let [k0, v0, k1, v1] = &mut x;
                cache.token(1, p, k0, v0).unwrap();
                fresh.token(0, p, k1, v1).unwrap();
                assert_eq!((k0, v0), (k1, v1));
            }
            let e = cache.rotate(0, 0..1, tokens as isize, &table, pairs).unwrap_err().to_string();
            assert_eq!(e, "|by| + 1 = 41 must be at most the table's positions = 40");
            assert!(cache.rotate(0, 0..tokens, 1, &table, pairs).is_err());
        }
        let mut quantized =
            KvCache::new(KvCacheOptions::new(1, 32, 4).types(KvType::Int8, KvType::F32)).unwrap();
        let e = quantized.rotate(0, 0..0, 1, &table, pairs).unwrap_err().to_string();
        assert_eq!(e, "keys = int8 must be f32, f16 or bf16 to be rotated");
    }
}

#[test]
fn batches_that_make_no_sense_are_refused() {
    let cache = KvCache::new(KvCacheOptions::new(1, 8, 4)).unwrap();
    let ctx = Context::serial();
    let options = AttentionOptions::new(1);
    let mut ws = Workspace::new(1 << 20).unwrap();
    let mut out = [7.0; 24];
    let q = [0.0; 24];
    let mut say = |sequences: &[usize]| {
        let (q, out) = (MatRef::dense(&q, 3, 8).unwrap(), MatMut::dense(&mut out, 3, 8).unwrap());
        attend_batch(&ctx, &mut ws, &options, q, &cache, sequences, out).unwrap_err().to_string()
    };
    assert_eq!(say(&[0, 0]), "q.rows = 3 must be a multiple of the number of sequences = 2");
    assert_eq!(say(&[]), "q.rows = 3 must be a multiple of the number of sequences = 0");
    assert_eq!(say(&[0, 1, 0]), "q.rows = 1 must be at most the cache's len = 0");
    assert_eq!(out, [7.0; 24]);
}
