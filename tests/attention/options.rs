//! Every option of attention: the f64 oracle, equal bits at every tier and thread count, through the cache
//! and over plain rows, in a batch and alone.

use crate::call::{Call, calls};
use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::attention::*;
use kvern::{Context, Isa, MatMut, MatRef, Workspace};

#[test]
fn all_options_follow_the_f64_oracle() {
    for call in calls() {
        let (out, lse) = call.run(&Context::serial(), None);
        let scale = call.options.scale.map_or(1.0 / (call.key_dim as f64).sqrt(), f64::from);
        // |q|, |k| <= 2, so each product of a score is off by 4 * 2^-24 at most; the rest is for the exp2,
        // the masks (up to 1) and the distances of ALiBi that still have weight.
        let score = call.key_dim as f64 * 4.0 * scale * 2f64.powi(-22) + 3e-6;
        for i in 0..call.q_len {
            for h in 0..call.heads {
                let row = i * call.heads + h;
                let (want, log) = call.oracle(i, h);
                for (got, want) in out[row * call.value_dim..].iter().zip(&want) {
                    let near = (f64::from(*got) - want).abs() <= 2.0 * 2.0 * score;
                    assert!(near, "{} query {i} head {h}: {got} {want}", call.name);
                }
                let got = f64::from(lse[row]);
                let near = got == log || (got - log).abs() <= 2.0 * score + log.abs() * 1.2e-7;
                assert!(near, "{} query {i} head {h}: lse {got} {log}", call.name);
            }
        }
    }
}

#[test]
fn tiers_threads_caches_and_plain_rows_give_the_same_bits() {
    for call in calls() {
        let (out, lse) = call.run(&context(Isa::Scalar, 1), None);
        for_each_isa(|ctx| {
            for threads in [1, 2, 3, 8] {
                let ctx = context(ctx.isa(), threads);
                let what = format!("{} at {} by {threads}", call.name, ctx.isa());
                let (o, l) = call.run(&ctx, None);
                assert_same_bits(&o, &out, &what);
                assert_same_bits(&l, &lse, &what);
                if let Some((o, l)) = call.run_cached(&ctx) {
                    assert_same_bits(&o, &out, &format!("{what}, cached"));
                    assert_same_bits(&l, &lse, &format!("{what}, cached"));
                }
            }
        });
    }
}

#[test]
fn a_query_alone_has_the_bits_that_it_has_in_a_batch() {
    let ctx = Context::serial();
    for call in calls() {
        // Without causality positions count from the end, so what depends on them differs for one query.
        let placed = call.alibi.is_some() || call.options.window.is_some();
        if !call.options.causal && placed {
            continue;
        }
        let (out, lse) = call.run(&ctx, None);
        let width = call.heads * call.value_dim;
        for i in 0..call.q_len {
            let (o, l) = call.alone(i).run(&ctx, None);
            let what = format!("{} query {i}", call.name);
            assert_same_bits(&o, &out[i * width..(i + 1) * width], &what);
            assert_same_bits(&l, &lse[i * call.heads..(i + 1) * call.heads], &what);
        }
    }
}

#[test]
fn a_workspace_without_room_for_a_split_gives_the_same_bits() {
    let call = Call::new("split", [4, 1, 16, 16, 3, 3000]);
    let want = call.run(&Context::serial(), None);
    for threads in [2, 3, 8] {
        let ctx = context(Isa::detect(), threads);
        let k = MatRef::dense(&call.k[..16], 1, 16).unwrap();
        let short = plain_workspace_bytes(&ctx, &call.options, &Plain::new(k, k, 1).unwrap(), 3).unwrap();
        let full = plain_workspace_bytes(&ctx, &call.options, &call.plain(), 3).unwrap();
        assert!(short < full);
        assert_eq!(call.run(&ctx, Some(short)), want);
        assert_eq!(call.run(&ctx, Some(full)), want);
    }
}

#[test]
fn masked_keys_contribute_nothing_whatever_they_hold() {
    let masked = [
        Call::new("seen", [4, 2, 16, 16, 9, 300]).seen(false, |_, key| key != 77 && key != 295),
        Call::new("mask", [4, 2, 16, 16, 9, 300]).mask(false, 0),
        Call::new("hole", [4, 2, 16, 16, 9, 300]).options(|o| o.window(30).sinks(4)),
        Call::new("softcap", [4, 2, 16, 16, 9, 300])
            .seen(false, |_, key| key != 77 && key != 295)
            .options(|o| o.softcap(3.0))
            .alibi(),
    ];
    for mut call in masked {
        if let Some((_, mask)) = &mut call.mask {
            for row in mask.chunks_exact_mut(300) {
                (row[77], row[295]) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
            }
        }
        let keys: &[usize] = if call.options.sinks > 0 { &[77] } else { &[77, 295] };
        let want = call.run(&context(Isa::Scalar, 1), None);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut dirty = call.clone();
            for &key in keys {
                dirty.k[key * 32..(key + 1) * 32].fill(bad);
                dirty.v[key * 32..(key + 1) * 32].fill(-bad);
            }
            for_each_isa(|ctx| {
                let got = dirty.run(ctx, None);
                assert_same_bits(&got.0, &want.0, call.name);
                assert_same_bits(&got.1, &want.1, call.name);
                assert_eq!(dirty.run_cached(ctx), Some(got));
            });
        }
        // A key that is seen spreads its NaN, to the rows that see it.
        let mut dirty = call.clone();
        dirty.v[298 * 32..299 * 32].fill(f32::NAN);
        let (out, lse) = dirty.run(&Context::serial(), None);
        assert_same_bits(&out[..7 * 64], &want.0[..7 * 64], "rows before it");
        assert!(out[7 * 64..].iter().all(|x| x.is_nan()));
        assert_same_bits(&lse, &want.1, "values do not enter the log-sum-exp");
    }
}

#[test]
fn rows_that_see_nothing_are_zeros() {
    let call = Call::new("nothing", [2, 1, 8, 8, 3, 300]).seen(false, |_, _| false);
    let (out, lse) = call.run(&Context::serial(), None);
    assert_eq!((out, lse), (vec![0.0; 48], vec![f32::NEG_INFINITY; 6]));
    let call = call.sink_logits();
    let (out, lse) = call.run(&Context::serial(), None);
    assert_eq!(out, vec![0.0; 48]);
    let logits = call.sinks.unwrap();
    assert!(lse.iter().enumerate().all(|(i, l)| (l - logits[i % 2]).abs() < 4e-7), "{lse:?} {logits:?}");
    let none = Call::new("no keys", [2, 1, 8, 8, 3, 0]).options(|o| o.causal(false));
    assert_eq!(none.run(&Context::serial(), None), (vec![0.0; 48], vec![f32::NEG_INFINITY; 6]));
}

#[test]
fn log_sum_exps_merge_results_over_disjoint_keys() {
    let both = Call::new("merge", [2, 1, 16, 16, 4, 600]).options(|o| o.causal(false));
    let (want, lse) = both.run(&Context::serial(), None);
    let part = |keys: std::ops::Range<usize>| {
        let mut part = both.clone();
        part.kv_len = keys.len();
        part.k = both.k[keys.start * 16..keys.end * 16].to_vec();
        part.v = both.v[keys.start * 16..keys.end * 16].to_vec();
        part.run(&Context::serial(), None)
    };
    let (first, second) = (part(0..200), part(200..600));
    for (row, &whole) in lse.iter().enumerate() {
        let (a, b) = (f64::from(first.1[row]), f64::from(second.1[row]));
        let both = a.max(b) + ((a - a.max(b)).exp() + (b - a.max(b)).exp()).ln();
        assert!((both - f64::from(whole)).abs() < 2e-6);
        let of = |x: &[f32]| x[row * 16..(row + 1) * 16].to_vec();
        for ((x, y), want) in of(&first.0).iter().zip(of(&second.0)).zip(of(&want)) {
            let merged = f64::from(*x) * (a - both).exp() + f64::from(y) * (b - both).exp();
            assert!((merged - f64::from(want)).abs() < 4e-6);
        }
    }
}

/// Options through caches of every type, several sequences at once: each row as it is alone.
#[test]
fn sequences_of_every_type_of_cache_take_all_options() {
    let lens = [300usize, 7, 1030];
    let (heads, kv_heads, dim, n) = (4, 2, 16, 3);
    let mut r = Random::new(77);
    let (rows, most) = (lens.len() * n, 1030);
    let q = r.vec(rows * heads * dim);
    let kv: Vec<_> = lens.iter().map(|len| r.vec(len * kv_heads * dim)).collect();
    let slopes = r.vec(heads).iter().map(|x| x.abs() / 8.0).collect::<Vec<f32>>();
    let logits = r.vec(heads);
    let mask: Vec<f32> = r.vec(heads * rows * most);
    let seen: Vec<bool> = (0..rows * most).map(|i| i % 5 != 1).collect();
    let tree: Vec<bool> = (0..rows * n).map(|i| i % n == 0 || i % n == i / n % n).collect();
    for kind in KvType::ALL {
        let options = AttentionOptions::new(heads).softcap(9.0).window(600).sinks(2);
        let shape = KvCacheOptions::new(kv_heads, dim, most).types(kind, kind).sequences(3);
        let mut cache = KvCache::new(shape).unwrap();
        for (s, x) in kv.iter().enumerate() {
            let x = MatRef::dense(x, lens[s], kv_heads * dim).unwrap();
            cache.append_to(s, x, x).unwrap();
        }
        let run = |ctx: &Context, order: &[usize]| {
            let rows = order.len() * n;
            let take = |x: &[f32], width: usize| -> Vec<f32> {
                order.iter().flat_map(|s| x[s * n * width..(s + 1) * n * width].to_vec()).collect()
            };
            let longest = order.iter().map(|&s| lens[s]).max().unwrap();
            let all: Vec<usize> = order.iter().flat_map(|s| s * n..(s + 1) * n).collect();
            let q = take(&q, heads * dim);
            let mask: Vec<f32> = (0..heads)
                .flat_map(|h| all.iter().map(move |row| h * lens.len() * n + row))
                .flat_map(|row| mask[row * most..row * most + longest].to_vec())
                .collect();
            let seen: Vec<bool> =
                all.iter().flat_map(|row| seen[row * most..row * most + longest].to_vec()).collect();
            let tree: Vec<bool> = all.iter().flat_map(|row| tree[row * n..(row + 1) * n].to_vec()).collect();
            let bias = Bias::default()
                .alibi(&slopes)
                .sink_logits(&logits)
                .mask(MatRef::dense(&mask, heads * rows, longest).unwrap())
                .seen(MatRef::dense(&seen, rows, longest).unwrap())
                .tree(MatRef::dense(&tree, rows, n).unwrap());
            let mut ws = Workspace::new(workspace_bytes(ctx, &options, &cache, n).unwrap()).unwrap();
            let (mut out, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; rows * heads]);
            let outputs = Outputs::new(MatMut::dense(&mut out, rows, heads * dim).unwrap())
                .lse(MatMut::dense(&mut lse, rows, heads).unwrap());
            let q = MatRef::dense(&q, rows, heads * dim).unwrap();
            attend_with(ctx, &mut ws, &options, &bias, q, Sequences::new(&cache, order), outputs).unwrap();
            (out, lse)
        };
        let scalar = context(Isa::Scalar, 1);
        let alone: Vec<_> = (0..3).map(|s| run(&scalar, &[s])).collect();
        for_each_isa(|ctx| {
            for threads in [1, 2, 3, 8] {
                let ctx = context(ctx.isa(), threads);
                for order in [&[0usize, 1, 2][..], &[2, 0], &[1], &[2]] {
                    let (out, lse) = run(&ctx, order);
                    for (i, &s) in order.iter().enumerate() {
                        let what = format!("{} sequence {s} at {} by {threads}", kind.name(), ctx.isa());
                        let (o, l) = (n * heads * dim, n * heads);
                        assert_same_bits(&out[i * o..(i + 1) * o], &alone[s].0, &what);
                        assert_same_bits(&lse[i * l..(i + 1) * l], &alone[s].1, &what);
                    }
                }
            }
        });
    }
}

/// A cache that has wrapped keeps its pinned tokens, and the call may narrow its window.
#[test]
fn wrapped_caches_give_the_bits_of_plain_rows() {
    let call =
        Call::new("wrapped", [4, 2, 16, 16, 5, 1500]).options(|o| o.window(300).sinks(4)).sink_logits();
    let want = call.run(&context(Isa::Scalar, 1), None);
    let narrow = call.clone().options(|o| o.window(90).sinks(4));
    let narrow_want = narrow.run(&context(Isa::Scalar, 1), None);
    let mut cache = KvCache::new(KvCacheOptions::new(2, 16, 700).window(300).sinks(4)).unwrap();
    for start in (0..1500).step_by(50) {
        let part = |x: &[f32]| x[start * 32..(start + 50) * 32].to_vec();
        let (k, v) = (part(&call.k), part(&call.v));
        cache.append(MatRef::dense(&k, 50, 32).unwrap(), MatRef::dense(&v, 50, 32).unwrap()).unwrap();
    }
    assert!(cache.start() > 4);
    for_each_isa(|ctx| {
        for threads in [1, 2, 3, 8] {
            let ctx = context(ctx.isa(), threads);
            // The window and the pinned tokens are the cache's own, or the call's where it sees less.
            for (options, want) in
                [(AttentionOptions::new(4), &want), (AttentionOptions::new(4).window(90), &narrow_want)]
            {
                let mut ws = Workspace::new(workspace_bytes(&ctx, &options, &cache, 5).unwrap()).unwrap();
                let (mut out, mut lse) = (vec![f32::NAN; 5 * 64], vec![f32::NAN; 20]);
                let outputs = Outputs::new(MatMut::dense(&mut out, 5, 64).unwrap())
                    .lse(MatMut::dense(&mut lse, 5, 4).unwrap());
                attend_with(&ctx, &mut ws, &options, &call.bias(), call.queries(), &cache, outputs).unwrap();
                assert_same_bits(&out, &want.0, "wrapped");
                assert_same_bits(&lse, &want.1, "wrapped");
            }
        }
    });
}

#[test]
fn the_usual_slopes_are_geometric() {
    let slopes = |n: usize| {
        let mut slopes = vec![0.0; n];
        alibi_slopes(&mut slopes);
        slopes
    };
    assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
    assert_eq!(slopes(1), [2f32.powi(-8)]);
    // Of 12 heads 8 are those of 8, and 4 are every second of 16.
    let half = 0.5f32.sqrt();
    let twelve = slopes(12);
    assert_eq!(twelve[..8], slopes(8));
    assert!(twelve[8..].iter().zip([1.0, 0.5, 0.25, 0.125]).all(|(s, w)| (s - w * half).abs() < 1e-7));
    assert!(slopes(0).is_empty());
}

#[test]
fn bad_options_are_refused_and_change_nothing() {
    let call = Call::new("bad", [4, 2, 8, 8, 3, 20]);
    let ctx = Context::serial();
    let mut out = vec![7.0f32; 3 * 32];
    let numbers = vec![0.5f32; 400];
    let truths = vec![true; 400];
    let mut say = |options: AttentionOptions, bias: Bias<'_>, lse: Option<(usize, usize)>| {
        let (mut ws, plain) = (Workspace::new(1 << 20).unwrap(), call.plain());
        let mut logs = vec![0.0f32; 64];
        let mut outputs = Outputs::new(MatMut::dense(&mut out, 3, 32).unwrap());
        if let Some((rows, cols)) = lse {
            outputs = outputs.lse(MatMut::dense(&mut logs, rows, cols).unwrap());
        }
        attend_plain(&ctx, &mut ws, &options, &bias, call.queries(), &plain, outputs).unwrap_err().to_string()
    };
    let four = AttentionOptions::new(4);
    let mask = |rows: usize, cols: usize| MatRef::dense(&numbers[..rows * cols], rows, cols).unwrap();
    let seen = |rows: usize, cols: usize| MatRef::dense(&truths[..rows * cols], rows, cols).unwrap();
    let none = Bias::default();
    assert_eq!(say(four, none.alibi(&numbers[..3]), None), "alibi.len = 3 must equal heads = 4");
    assert_eq!(say(four, none.sink_logits(&numbers[..5]), None), "sink_logits.len = 5 must equal heads = 4");
    let rows = "must equal q.rows, or heads times as many; q.rows = 3";
    assert_eq!(say(four, none.mask(mask(2, 20)), None), format!("mask.rows = 2 {rows}"));
    assert_eq!(say(four, none.mask(mask(3, 19)), None), "mask.cols = 19 must equal the number of keys = 20");
    assert_eq!(say(four, none.seen(seen(13, 20)), None), format!("seen.rows = 13 {rows}"));
    assert_eq!(say(four, none.seen(seen(12, 21)), None), "seen.cols = 21 must equal the number of keys = 20");
    assert!(say(four, none.mask(mask(20, 3).t()), None).contains("transposed"));
    assert!(say(four, none.seen(seen(20, 3).t()), None).contains("transposed"));
    assert_eq!(say(four, none.tree(seen(2, 3)), None), "tree.rows = 2 must equal q.rows = 3");
    assert_eq!(
        say(four, none.tree(seen(3, 4)), None),
        "tree.cols = 4 must equal the queries of a sequence = 3"
    );
    assert!(say(four, none.tree(seen(3, 3).t()), None).contains("transposed"));
    assert_eq!(say(four.window(0), none, None), "window = 0 must be at least 1 token");
    assert_eq!(say(four.softcap(0.0), none, None), "softcap = 0 must be positive and finite");
    assert_eq!(say(four.softcap(f32::NAN), none, None), "softcap = NaN must be positive and finite");
    let small = f32::from_bits(1);
    assert_eq!(
        say(four.softcap(small), none, None),
        "scale / softcap = 3.5355338e-1 / 1e-45 must be finite in f32"
    );
    let large = 2.3587e38;
    let factor = "= 2.3587e38 * 1.442695 must be finite in f32";
    assert_eq!(say(four.softcap(large), none, None), format!("softcap * log2 e {factor}"));
    assert_eq!(say(four.scale(large), none, None), format!("scale * log2 e {factor}"));
    assert_eq!(
        say(four.scale(f32::NAN), none, None),
        "scale * log2 e = NaN * 1.442695 must be finite in f32"
    );
    assert_eq!(say(four, none.alibi(&[0.0, 1.0, large, 0.0]), None), format!("alibi * log2 e {factor}"));
    assert_eq!(say(four, none, Some((3, 3))), "lse.cols = 3 must equal heads = 4");
    assert_eq!(say(four, none, Some((2, 4))), "lse.rows = 2 must equal q.rows = 3");
    assert_eq!(say(AttentionOptions::new(3), none, None), "heads = 3 must be a multiple of kv_heads = 2");
    assert_eq!(out, [7.0; 96]);

    let view = |rows: usize, cols: usize| MatRef::dense(&numbers[..rows * cols], rows, cols).unwrap();
    let bad = |k, v, heads| Plain::new(k, v, heads).unwrap_err().to_string();
    assert_eq!(bad(view(2, 7), view(2, 8), 2), "k.cols = 7 must be a multiple, at least 1, of kv_heads = 2");
    assert_eq!(bad(view(2, 8), view(2, 0), 2), "v.cols = 0 must be a multiple, at least 1, of kv_heads = 2");
    assert_eq!(bad(view(2, 8), view(3, 8), 2), "v.rows = 3 must equal k.rows = 2");
    assert!(bad(view(2, 8), view(2, 8), 0).starts_with("k.cols = 8"));
    assert!(bad(view(8, 2).t(), view(2, 8), 2).contains("transposed"));

    let mut short = Call::new("short", [1, 1, 8, 8, 3, 2]);
    let mut say = |options| {
        short.options = options;
        let (mut ws, plain) = (Workspace::new(1 << 20).unwrap(), short.plain());
        let mut out = [0.0f32; 24];
        let outputs = Outputs::new(MatMut::dense(&mut out, 3, 8).unwrap());
        attend_plain(&ctx, &mut ws, &short.options, &none, short.queries(), &plain, outputs)
            .map_err(|e| e.to_string())
    };
    let one = AttentionOptions::new(1);
    assert_eq!(say(one), Err("q.rows = 3 must be at most k.rows = 2".into()));
    assert_eq!(say(one.causal(false).window(2)), Err("q.rows = 3 must be at most k.rows = 2".into()));
    assert_eq!(say(one.causal(false)), Ok(()));

    let mut ring = KvCache::new(KvCacheOptions::new(1, 8, 6).window(4)).unwrap();
    for _ in 0..3 {
        ring.append(view(3, 8), view(3, 8)).unwrap();
    }
    let mut ws = Workspace::new(1 << 20).unwrap();
    let (q, mut out) = (view(1, 8), [7.0f32; 8]);
    let outputs = Outputs::new(MatMut::dense(&mut out, 1, 8).unwrap());
    let e = attend_with(&ctx, &mut ws, &one.sinks(2), &none, q, &ring, outputs).unwrap_err().to_string();
    assert_eq!(e, "sinks = 2 must be at most the sinks that the cache was made with = 0");
}
