//! Finite masks, however low, hide nothing: they add to scores, as in the f64 oracle.

use crate::call::Call;
use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::{Context, Isa};

/// Beyond this a sum counts as this.
const LOWEST: f64 = f32::MAX as f64 / std::f64::consts::LOG2_E;

/// What frameworks write for "not seen", and neighbours of where f32 / log2 e ends.
const LOW: [f32; 7] = [f32::MIN, -3e38, -2.5e38, -2.36e38, -2.35e38, -1e38, -1e30];

fn close(got: &[f32], want: &[f64], bound: f64, what: &str) {
    for (got, want) in got.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() <= bound, "{what}: {got} {want}");
    }
}

/// A row of which every key has the lowest mask is the mean of the values that it may see.
#[test]
fn a_row_of_the_lowest_masks_is_the_mean_of_its_values() {
    for low in LOW {
        for causal in [true, false] {
            let mut call = Call::new("mean", [4, 2, 16, 24, 70, 600]).options(|o| o.causal(causal));
            call.mask = Some((70, vec![low; 70 * 600]));
            let mut want_bits = None;
            for_each_isa(|ctx| {
                let (out, lse) = call.run(ctx, None);
                for i in [0, 1, 40, 69] {
                    let seen = if causal { 531 + i } else { 600 };
                    for h in 0..4 {
                        let value = |key: usize| &call.v[(key * 2 + h / 2) * 24..][..24];
                        let mean: Vec<f64> = (0..24)
                            .map(|d| (0..seen).map(|key| f64::from(value(key)[d])).sum::<f64>() / seen as f64)
                            .collect();
                        close(&out[(i * 4 + h) * 24..][..24], &mean, 1e-6, "mean");
                        let log = f64::from(low).max(-LOWEST);
                        assert!((f64::from(lse[i * 4 + h]) / log - 1.0).abs() < 1e-6, "{}", lse[i * 4 + h]);
                    }
                }
                let want = want_bits.get_or_insert((out.clone(), lse.clone()));
                assert_same_bits(&out, &want.0, "every tier as the first");
                assert_same_bits(&lse, &want.1, "every tier as the first");
            });
        }
    }
}

/// One key that is seen, among keys of the lowest mask, has all the weight; a mask of -inf hides a key from
/// the mean.
#[test]
fn infinite_masks_hide_and_finite_ones_only_weigh() {
    let mut call = Call::new("weigh", [2, 1, 16, 16, 3, 300]).options(|o| o.causal(false));
    let mut mask = vec![f32::MIN; 3 * 300];
    mask[7] = 0.0; // query 0: key 7 has all the weight
    mask[300..600].fill(f32::NEG_INFINITY); // query 1: keys 3 and 5 alone, equal
    (mask[303], mask[305]) = (f32::MIN, f32::MIN);
    mask[600..900].fill(f32::NEG_INFINITY); // query 2: nothing
    call.mask = Some((3, mask));
    for_each_isa(|ctx| {
        let (out, lse) = call.run(ctx, None);
        let v = |key: usize| &call.v[key * 16..(key + 1) * 16];
        for h in 0..2 {
            let row = |i: usize| &out[(i * 2 + h) * 16..][..16];
            assert_eq!(row(0), v(7));
            let half: Vec<f64> =
                v(3).iter().zip(v(5)).map(|(a, b)| (f64::from(*a) + f64::from(*b)) / 2.0).collect();
            close(row(1), &half, 1e-6, "two keys");
            assert_eq!(row(2), [0.0; 16]);
            assert_eq!(lse[4 + h], f32::NEG_INFINITY);
        }
    });
    // The highest mask takes all the weight, and makes no NaN.
    let mut mask = vec![0.0; 3 * 300];
    mask[..2].copy_from_slice(&[1e38, f32::MAX]);
    mask[310] = f32::MAX;
    mask[600] = f32::INFINITY; // a score of +inf, which has no softmax
    call.mask = Some((3, mask));
    for_each_isa(|ctx| {
        let (out, _) = call.run(ctx, None);
        assert_eq!(out[..16], call.v[16..32]);
        assert_eq!(out[32..48], call.v[160..176]);
        assert!(out[64..].iter().all(|x| x.is_nan()));
    });
}

/// A learned sink of the lowest score is one more equal score; one of -inf is none.
#[test]
fn sinks_of_the_lowest_score_weigh_as_much_as_the_lowest_masks() {
    let mut call = Call::new("sink", [2, 1, 16, 16, 1, 3]).options(|o| o.causal(false));
    call.mask = Some((1, vec![f32::MIN; 3]));
    call.sinks = Some(vec![f32::MIN, f32::NEG_INFINITY]);
    for_each_isa(|ctx| {
        let (out, lse) = call.run(ctx, None);
        let sums: Vec<f64> =
            (0..16).map(|d| (0..3).map(|key| f64::from(call.v[key * 16 + d])).sum()).collect();
        close(&out[..16], &sums.iter().map(|x| x / 4.0).collect::<Vec<_>>(), 1e-6, "with the sink");
        close(&out[16..], &sums.iter().map(|x| x / 3.0).collect::<Vec<_>>(), 1e-6, "without");
        assert!(lse.iter().all(|x| (f64::from(*x) / -LOWEST - 1.0).abs() < 1e-6));
    });
}

/// Masks drawn from ordinary numbers, the lowest ones and -inf, against f64, where sums count as at least
/// -FLT_MAX / log2 e; the same bits at every tier and number of threads.
#[test]
fn random_masks_follow_the_f64_oracle() {
    let mut r = Random::new(7);
    for case in 0..40 {
        let (group, q_len) = (1 + r.below(5), 1 + r.below(20));
        let kv_len = q_len + r.below(560);
        let mut call = Call::new("random", [2 * group, 2, 8, 16, q_len, kv_len]);
        if r.below(3) == 0 {
            call = call.options(|o| o.causal(false));
        }
        if r.below(3) == 0 {
            call = call.options(|o| o.softcap(4.0));
        }
        if r.below(4) == 0 {
            call = call.sink_logits();
        }
        let mut mask = Vec::new();
        for _ in 0..q_len {
            // A row of one kind, or of several.
            let (kinds, low) = (1 + r.below(4), LOW[r.below(7)]);
            let first = r.below(4);
            mask.extend((0..kv_len).map(|_| match (first + r.below(kinds)) % 4 {
                0 => f32::MIN,
                1 => low,
                2 => f32::NEG_INFINITY,
                _ => r.f32(),
            }));
        }
        call.mask = Some((q_len, mask));
        let (out, lse) = call.run(&context(Isa::Scalar, 1), None);
        for i in 0..q_len {
            for h in 0..2 * group {
                let (want, log) = call.oracle_limited(i, h, -LOWEST);
                let (row, what) = (i * 2 * group + h, format!("case {case} query {i} head {h}"));
                close(&out[row * 16..][..16], &want, 4e-5, &what);
                let got = f64::from(lse[row]);
                assert!(got == log || (got - log).abs() <= 1e-5 + log.abs() * 1e-6, "{what}: {got} {log}");
            }
        }
        for_each_isa(|ctx| {
            for ctx in [ctx, &context(ctx.isa(), 3)] as [&Context; 2] {
                let (o, l) = call.run(ctx, None);
                assert_same_bits(&o, &out, "tiers and threads");
                assert_same_bits(&l, &lse, "tiers and threads");
                if let Some((o, l)) = call.run_cached(ctx) {
                    assert_same_bits(&o, &out, "cached");
                    assert_same_bits(&l, &lse, "cached");
                }
            }
        });
    }
}
