//! `Precision::Fast` over every type of cache: within its bound, whatever the batch and the threads.

use crate::cases::{Case, cases, oracle, run};
use crate::support::{assert_same_bits, context, for_each_isa};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, KvType};
use kvern::{Context, Isa, MatRef, Precision};

#[test]
fn fast_keeps_its_bound_and_does_not_depend_on_batch_or_threads() {
    for (i, case) in cases().iter().enumerate() {
        let inputs = case.inputs(70 + i as u64);
        let [qc, kc, vc] = case.widths();
        for types in [(KvType::F32, KvType::F32), (KvType::Bf16, KvType::F16), (KvType::Int8, KvType::Int4)] {
            let wide = case.widened(types, &inputs);
            let chunks = |ctx: &Context, step| case.in_chunks(ctx, Precision::Fast, types, step, &inputs);
            for_each_isa(|ctx| {
                if ctx.isa() == Isa::Scalar {
                    return;
                }
                let got = chunks(ctx, case.most());
                for step in [1, 7] {
                    assert_same_bits(&chunks(ctx, step), &got, &format!("fast {i} {types:?} by {step}"));
                }
                assert_same_bits(&chunks(&context(ctx.isa(), 2), case.most()), &got, "fast, threads");
                let width = case.heads * case.options.value_dim;
                for at in (0..case.tokens).step_by(73) {
                    // The bound of the documentation, for this query's largest key and value.
                    let norm = |x: &[f32], y: &[f32]| -> f64 {
                        x.iter().zip(y).map(|(x, y)| f64::from((x * y).abs())).sum()
                    };
                    let (dim, scale) = (case.options.head_dim, 1.0 / (case.options.head_dim as f64).sqrt());
                    let most = inputs[0][at * qc..(at + 1) * qc]
                        .chunks(dim)
                        .flat_map(|q| wide[1][..(at + 1) * kc].chunks(dim).map(move |k| norm(q, k)))
                        .fold(0.0, f64::max);
                    let top = wide[2][..(at + 1) * vc].iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let e = most * scale * 2f64.powi(-7);
                    let bound = ((2.0 * e).exp() - 1.0 + 2f64.powi(-7)) * f64::from(top);
                    let want = oracle(case, &wide, at);
                    for (got, want) in got[at * width..(at + 1) * width].iter().zip(want) {
                        let off = (f64::from(*got) - want).abs();
                        assert!(off <= bound, "case {i} {types:?} at {at}: {off} > {bound}");
                    }
                }
            });
        }
    }
}

#[test]
fn fast_keeps_hidden_keys_out() {
    let case = Case { heads: 2, options: KvCacheOptions::new(1, 16, 64).window(10), tokens: 40 };
    let [q, mut k, mut v] = case.inputs(6);
    let options = AttentionOptions::new(case.heads).precision(Precision::Fast);
    let fill = |k: &[f32], v: &[f32]| {
        let mut cache = KvCache::new(case.options).unwrap();
        cache.append(MatRef::dense(k, 40, 16).unwrap(), MatRef::dense(v, 40, 16).unwrap()).unwrap();
        cache
    };
    let clean = run(&Context::serial(), &options, &q, &fill(&k, &v), &[0]);
    k[21 * 16..22 * 16].fill(f32::NAN);
    v[21 * 16..22 * 16].fill(f32::INFINITY);
    let got = run(&Context::serial(), &options, &q, &fill(&k, &v), &[0]);
    assert_same_bits(&got[..21 * 32], &clean[..21 * 32], "before the NaN");
    assert!(got[21 * 32..31 * 32].iter().all(|x| x.is_nan()), "rows that see it");
    assert_same_bits(&got[31 * 32..], &clean[31 * 32..], "after the window");
}
