//! Every dimension 0 in every operation: no panic, everything written that there is to write, nothing else.

use crate::support::{ABSURD, context, for_each_isa};
use kvern::attention::*;
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::ops::*;
use kvern::quant::import::{Gptq, GroupWise, StoredZeros};
use kvern::quant::*;
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, PackedB, Precision, Workspace, bf16, f16};
use std::sync::OnceLock;

const SIZES: [usize; 4] = [0, 1, 17, 70];

/// What outputs hold before a call; finite, because a beta reads it.
const SENTINEL: f32 = -3.5e20;

/// Runs `test` at each tier, on one thread and on three.
fn everywhere(test: impl Fn(&Context)) {
    static CONTEXTS: OnceLock<Vec<Context>> = OnceLock::new();
    let contexts = CONTEXTS.get_or_init(|| {
        let mut contexts = Vec::new();
        for_each_isa(|ctx| contexts.extend([1, 3].map(|threads| context(ctx.isa(), threads))));
        contexts
    });
    contexts.iter().for_each(test);
}

/// Elements that are never 0, as many as asked for.
fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| 0.25 + (i % 7) as f32).collect()
}

/// Workspace of just `bytes`.
fn workspace(bytes: usize) -> Workspace {
    Workspace::new(bytes).unwrap()
}

/// A product into rows of `n + 3`, by each epilogue; checks what was written where, and the values where k is
/// 0.
fn product(
    what: &str,
    (m, n, k): (usize, usize, usize),
    run: impl Fn(MatMut<'_>, &Epilogue<'_>) -> kvern::Result<()>,
) {
    let bias: Vec<f32> = (0..n).map(|j| j as f32 - 3.0).collect();
    let plain = Epilogue::default();
    let all = Epilogue::default().scaled(2.0, 0.0).bias(&bias).activation(Activation::Relu);
    for (epilogue, beta) in [(plain, 0.0), (all, 0.0), (all.scaled(2.0, 0.5), 0.5)] {
        let stride = n + 3;
        let mut c = vec![SENTINEL; m * stride];
        let result = run(MatMut::new(&mut c, m, n, stride).unwrap(), &epilogue);
        let what = format!("{what}, {m} x {n} x {k}, beta {beta}");
        result.unwrap_or_else(|e| panic!("{what}: {e}"));
        for (i, &x) in c.iter().enumerate() {
            let j = i % stride;
            if j >= n {
                assert_eq!(x, SENTINEL, "{what}: beyond row {}", i / stride);
            } else if k == 0 {
                let bias = epilogue.bias.map_or(0.0, |bias| bias[j].max(0.0));
                assert_eq!(x, beta * if beta == 0.0 { 0.0 } else { SENTINEL } + bias, "{what}: element {i}");
            } else {
                assert!(x.is_finite() && (beta != 0.0 || x.abs() < 1e9), "{what}: element {i}: {x}");
            }
        }
    }
}

#[test]
fn products_of_floats() {
    everywhere(|ctx| {
        for (m, n, k) in all_shapes(&SIZES) {
            let (a, b) = (numbers(m * k), numbers(k * n));
            let (a, a_t) = (MatRef::dense(&a, m, k).unwrap(), MatRef::dense(&a, k, m).unwrap().t());
            let (b, b_t) = (MatRef::dense(&b, k, n).unwrap(), MatRef::dense(&b, n, k).unwrap().t());
            let bytes = matmul_workspace_bytes(ctx, m, n, k).unwrap();
            for (a, b) in [(a, b), (a_t, b), (a, b_t), (a_t, b_t)] {
                product("matmul", (m, n, k), |c, e| matmul(ctx, &mut workspace(bytes), a, b, c, e));
            }
            packed(ctx, (m, n, k), a, &PackedB::pack(ctx, b).unwrap());
            packed(ctx, (m, n, k), a, &PackedB::pack(ctx, b_t).unwrap());
            let halves: Vec<f16> = numbers(k * n).into_iter().map(f16::from_f32).collect();
            packed(ctx, (m, n, k), a, &PackedB::pack(ctx, MatRef::dense(&halves, k, n).unwrap()).unwrap());
            let halves: Vec<bf16> = numbers(k * n).into_iter().map(bf16::from_f32).collect();
            packed(ctx, (m, n, k), a_t, &PackedB::pack(ctx, MatRef::dense(&halves, k, n).unwrap()).unwrap());
        }
    });
}

fn packed(ctx: &Context, (m, n, k): (usize, usize, usize), a: MatRef<'_>, b: &PackedB) {
    let bytes = b.workspace_bytes(ctx, m).unwrap();
    for precision in [Precision::Exact, Precision::Fast] {
        let what = format!("packed {:?} {precision:?}", b.dtype());
        product(&what, (m, n, k), |c, e| b.multiply_with(ctx, &mut workspace(bytes), precision, a, c, e));
        let mut c = vec![f16::from_f32(9.0); m * n];
        let out = MatMut::dense(&mut c, m, n).unwrap();
        b.multiply_with(ctx, &mut workspace(bytes), precision, a, out, &Epilogue::default()).unwrap();
        assert!(k > 0 || c.iter().all(|&x| x == f16::ZERO), "{what} into f16");
        let mut c = vec![SENTINEL; m * n];
        let out = MatMut::dense(&mut c, m, n).unwrap();
        let e = Epilogue::default().activation(Activation::Silu);
        b.multiply_gated(ctx, &mut workspace(bytes), precision, a, b, out, &e).unwrap();
        assert!(k > 0 || c.iter().all(|&x| x == 0.0), "{what} gated");
    }
}

/// All of them in each of three places.
fn all_shapes(sizes: &[usize]) -> Vec<(usize, usize, usize)> {
    let two = |m| sizes.iter().map(move |&n| (m, n));
    sizes.iter().copied().flat_map(two).flat_map(|(m, n)| sizes.iter().map(move |&k| (m, n, k))).collect()
}

#[test]
fn products_of_quantized_weights_of_every_format() {
    for format in WeightFormat::ALL {
        for k in [0, format.block_len()] {
            for n in SIZES {
                let w = numbers(n * k);
                let w = PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap();
                quantized(format.name(), &w, n, k);
            }
        }
        for k in [1, 17, 70] {
            let refused = format.block_len() > 1;
            let w = vec![1.0; 2 * k];
            assert_eq!(PackedWeights::quantize(format, MatRef::dense(&w, 2, k).unwrap()).is_err(), refused);
            assert_eq!(PackedWeights::from_blocks(format, 0, k, &[]).is_err(), refused, "{format:?} {k}");
        }
    }
}

#[test]
fn products_of_group_wise_weights() {
    for (bits, group) in [(4, 32), (4, 128), (8, 64)] {
        for k in [0, group] {
            for n in SIZES {
                let (codes, groups) = (vec![1u8; n * k], n * (k / group));
                let (scales, zeros) = (vec![0.5f32; groups], vec![3u8; groups]);
                let w = GroupWise::with_zeros((n, k), bits, group, &codes, &scales, &zeros).unwrap();
                let w = PackedWeights::from_groups_on(&Context::serial(), &w).unwrap();
                quantized(&format!("{bits} bits in groups of {group}"), &w, n, k);
                let codes: Vec<i8> = vec![-1; n * k];
                let w = GroupWise::symmetric((n, k), bits, group, &codes, &scales).unwrap();
                for i in 0..n {
                    w.dequantize_row(i, &mut vec![0.0; k]).unwrap();
                }
                let w = PackedWeights::from_groups_on(&Context::serial(), &w).unwrap();
                quantized(&format!("{bits} signed bits in groups of {group}"), &w, n, k);
            }
        }
        let words = vec![0i32; 64];
        for (n, k) in [(0, 0), (8, 0), (0, group)] {
            let t = Gptq {
                n,
                k,
                bits,
                group,
                qweight: &words[..0],
                qzeros: &words[..0],
                scales: &[0f32; 0],
                g_idx: if k == 0 { Some(&[]) } else { None },
                stored_zeros: StoredZeros::MinusOne,
            };
            let w = GroupWise::from_gptq(&t).unwrap();
            let w = PackedWeights::from_groups_on(&Context::serial(), &w).unwrap();
            quantized("gptq", &w, n, k);
        }
    }
}

fn quantized(what: &str, w: &PackedWeights, n: usize, k: usize) {
    assert_eq!((w.n(), w.k()), (n, k));
    for i in 0..n {
        let mut row = vec![SENTINEL; k];
        w.dequantize_row(i, &mut row).unwrap();
        assert!(row.iter().all(|x| x.is_finite() && *x != SENTINEL), "{what}: row {i}");
    }
    assert!(w.dequantize_row(n, &mut vec![0.0; k]).is_err());
    if let Some(format) = w.format() {
        let mut blocks = vec![0; format.bytes(n, k).unwrap()];
        w.to_blocks(&mut blocks).unwrap();
        let again = PackedWeights::from_blocks(format, n, k, &blocks).unwrap();
        assert_eq!((again.n(), again.k()), (n, k));
    }
    everywhere(|ctx| {
        for m in SIZES {
            let a = numbers(m * k);
            let a = MatRef::dense(&a, m, k).unwrap();
            for compute in [Compute::Int8, Compute::F32] {
                let what = format!("{what} {compute:?}");
                let bytes = w.workspace_bytes(ctx, m, compute).unwrap();
                product(&what, (m, n, k), |c, e| w.multiply(ctx, &mut workspace(bytes), compute, a, c, e));
                let mut c = vec![SENTINEL; m * n];
                let out = MatMut::dense(&mut c, m, n).unwrap();
                let e = Epilogue::default().activation(Activation::Silu);
                w.multiply_gated(ctx, &mut workspace(bytes), compute, a, w, out, &e).unwrap();
                assert!(k > 0 || c.iter().all(|&x| x == 0.0), "{what} gated");

                let bytes = workspace_bytes_many(ctx, m, compute, &[w, w]).unwrap();
                let (mut c, mut d) = (vec![SENTINEL; m * n], vec![SENTINEL; m * n]);
                let mut products = [
                    Product::new(w, MatMut::dense(&mut c, m, n).unwrap()),
                    Product::new(w, MatMut::dense(&mut d, m, n).unwrap()),
                ];
                multiply_many(ctx, &mut workspace(bytes), compute, a, &mut products).unwrap();
                assert!(c == d && c.iter().all(|x| *x != SENTINEL), "{what}, two");
                multiply_many(ctx, &mut workspace(0), compute, a, &mut []).unwrap();
            }
        }
    });
}

#[test]
fn blocks_on_their_own() {
    for format in WeightFormat::ALL {
        quantize(format, &[], &mut []).unwrap();
        dequantize(format, &[], &mut []).unwrap();
        assert_eq!(format.bytes(0, format.block_len()).unwrap() + format.bytes(5, 0).unwrap(), 0);
    }
}

#[test]
fn row_operations() {
    everywhere(|ctx| {
        for rows in SIZES {
            for n in SIZES {
                let x = numbers(rows * n);
                let view = MatRef::dense(&x, rows, n).unwrap();
                let (gain, bias) = (numbers(n), numbers(n));
                let run = |op: &dyn Fn(MatMut<'_>)| {
                    let mut y = vec![SENTINEL; rows * (n + 3)];
                    op(MatMut::new(&mut y, rows, n, n + 3).unwrap());
                    for (i, &y) in y.iter().enumerate() {
                        assert_eq!(y == SENTINEL, i % (n + 3) >= n, "{rows} x {n}: element {i}: {y}");
                    }
                };
                run(&|y| layer_norm(ctx, view, &gain, &bias, 1e-5, y).unwrap());
                run(&|y| layer_norm(ctx, view, &gain, &bias, 0.0, y).unwrap());
                run(&|y| rms_norm(ctx, view, &gain, 0.0, y).unwrap());
                run(&|y| rms_norm(ctx, view, &gain, 1e-5, y).unwrap());
                run(&|y| softmax_with(ctx, &SoftmaxOptions::default().softcap(3.0), view, y).unwrap());
                let mask = MatRef::dense(&x[..if rows > 0 { n } else { 0 }], rows.min(1), n).unwrap();
                if rows > 0 {
                    run(&|y| softmax_with(ctx, &SoftmaxOptions::default().mask(mask), view, y).unwrap());
                }
                let mut y = x.clone();
                softmax(ctx, MatMut::dense(&mut y, rows, n).unwrap());
                for activation in Activation::ALL {
                    activate(ctx, activation, MatMut::dense(&mut y, rows, n).unwrap());
                    activate_mul(ctx, activation, MatMut::dense(&mut y, rows, n).unwrap(), view).unwrap();
                }
                swiglu_oai(ctx, 1.702, 7.0, MatMut::dense(&mut y, rows, n).unwrap(), view).unwrap();
                add_scaled(ctx, MatMut::dense(&mut y, rows, n).unwrap(), 0.5, view).unwrap();
                scale(ctx, MatMut::dense(&mut y, rows, n).unwrap(), 0.5);
                softcap(ctx, 3.0, MatMut::dense(&mut y, rows, n).unwrap()).unwrap();
                silu_mul(ctx, MatMut::dense(&mut y, rows, n).unwrap(), view).unwrap();
                add(ctx, MatMut::dense(&mut y, rows, n).unwrap(), view).unwrap();
                assert_eq!(argmax(ctx, &x).is_none(), x.is_empty());
                for kind in [NormKind::Rms, NormKind::Layer, NormKind::L2, NormKind::Unit] {
                    let plain = NormOptions::new(kind, 1e-5);
                    run(&|y| norm(ctx, &plain, view, y).unwrap());
                    run(&|y| norm(ctx, &plain.gain(&gain).gate(Activation::Silu, view), view, y).unwrap());
                    run(&|y| norm(ctx, &plain.groups(n.max(1)), view, y).unwrap());
                }
                let starts: Vec<usize> = (0..=rows).map(|i| i / 2).collect();
                run(&|y| mean_pool(ctx, view, &starts, None, y).unwrap());
                run(&|y| {
                    mean_pool(ctx, MatRef::dense(&[], 0, n).unwrap(), &vec![0; rows + 1], None, y).unwrap()
                });
                for along in [Along::Row, Along::Column] {
                    cumulative_sum(ctx, along, MatMut::dense(&mut y, rows, n).unwrap());
                }
                let (taps, mut state) = (numbers(3 * n), numbers(2 * n));
                let taps = ConvOptions::new(MatRef::dense(&taps, 3, n).unwrap());
                run(&|y| causal_conv(ctx, &taps, view, &mut numbers(2 * n), y).unwrap());
                causal_conv(ctx, &taps, view, &mut state, MatMut::dense(&mut y, rows, n).unwrap()).unwrap();
                assert!(state.iter().all(|x| x.is_finite()));
                for k in [0, n.min(1), n] {
                    let (mut indices, mut values) = (vec![u32::MAX; rows * k], vec![SENTINEL; rows * k]);
                    top_k(ctx, view, k, &mut indices, &mut values).unwrap();
                    assert!(values.iter().all(|&x| x != SENTINEL));
                    let options = RouterOptions::new(k, RouterScore::Softmax);
                    let routed = route(ctx, &options, n, &mut x.clone(), &mut indices, &mut values);
                    assert_eq!(routed.is_ok(), k > 0, "{routed:?}");
                }

                let ids = vec![0u32; rows];
                let table = numbers(n);
                run(&|y| embedding(ctx, MatRef::dense(&table, 1, n).unwrap(), &ids, y).unwrap());
                let empty = MatRef::dense(&[], 0, n).unwrap();
                let mut y = vec![SENTINEL; rows * n];
                let refused = embedding(ctx, empty, &ids, MatMut::dense(&mut y, rows, n).unwrap()).is_err();
                assert_eq!(refused, rows > 0);
                let table =
                    PackedWeights::quantize(WeightFormat::F32, MatRef::dense(&table, 1, n).unwrap()).unwrap();
                run(&|y| embedding_quantized(ctx, &table, &ids, y).unwrap());
            }
        }
    });
}

#[test]
fn rotary_embedding() {
    let refused = [RopeTable::new(0, 4, 1e4).is_err(), RopeTable::from_frequencies(&[], 4, 1.0).is_err()];
    assert_eq!(refused, [true; 2]);
    let (none, some) = (RopeTable::new(4, 0, 1e4).unwrap(), RopeTable::new(4, 90, 1e4).unwrap());
    assert!(none.row(0).is_none() && none.bytes() == 0);
    // At once, however many pairs the positions that are not there would have had.
    for rotary_dim in [ABSURD, usize::MAX - 1] {
        assert_eq!(RopeTable::new(rotary_dim, 0, 1e4).map_or(0, |table| table.bytes()), 0);
    }
    everywhere(|ctx| {
        for tokens in SIZES {
            for heads in SIZES {
                for pairs in [RopePairs::Halves, RopePairs::Interleaved] {
                    let mut x = numbers(tokens * heads * 4);
                    let before = x.clone();
                    let n = heads * 4;
                    let mut run = |op: &dyn Fn(MatMut<'_>) -> kvern::Result<()>| {
                        op(MatMut::dense(&mut x, tokens, n).unwrap())
                    };
                    run(&|x| rope(ctx, &some, pairs, 4, 5, x)).unwrap();
                    run(&|x| rope_at(ctx, &some, pairs, 4, &vec![3; tokens], x)).unwrap();
                    assert_eq!(run(&|x| rope(ctx, &none, pairs, 4, 0, x)).is_err(), tokens > 0);
                    assert!(run(&|x| rope(ctx, &some, pairs, 0, 0, x)).is_err());
                    assert!(x.is_empty() || x != before);
                }
            }
        }
    });
}

#[test]
fn attention_over_nothing_is_zeros() {
    const DIM: usize = 8;
    for (heads, dim, capacity) in [(0, 8, 8), (1, 0, 8), (1, 8, 0)] {
        assert!(KvCache::new(KvCacheOptions::new(heads, dim, capacity)).is_err(), "{heads} {dim} {capacity}");
    }
    assert!(KvCache::new(KvCacheOptions::new(1, 8, 8).sequences(0)).is_err());
    assert!(KvCache::new(KvCacheOptions::new(1, 8, 8).value_dim(0)).is_err());
    everywhere(|ctx| {
        for tokens in SIZES {
            for q_len in SIZES {
                let options = AttentionOptions::new(2).causal(false);
                let (k, q) = (numbers(tokens * DIM), numbers(q_len * 2 * DIM));
                let k = MatRef::dense(&k, tokens, DIM).unwrap();
                let q = MatRef::dense(&q, q_len, 2 * DIM).unwrap();
                let run = |what: &str, op: &dyn Fn(Outputs<'_>) -> kvern::Result<()>| {
                    let (mut out, mut lse) = (vec![SENTINEL; q_len * 2 * DIM], vec![SENTINEL; q_len * 2]);
                    let outputs = Outputs::new(MatMut::dense(&mut out, q_len, 2 * DIM).unwrap());
                    let result = op(outputs.lse(MatMut::dense(&mut lse, q_len, 2).unwrap()));
                    result.unwrap();
                    let written =
                        |x: &f32| if tokens == 0 { *x == 0.0 } else { x.is_finite() && *x != SENTINEL };
                    assert!(out.iter().all(written), "{what}: {tokens} keys, {q_len} queries");
                    let written = |x: &f32| if tokens == 0 { *x == f32::NEG_INFINITY } else { x.is_finite() };
                    assert!(lse.iter().all(written), "{what}: {tokens} keys, {q_len} queries: {lse:?}");
                };
                let plain = Plain::new(k, k, 1).unwrap();
                let bytes = plain_workspace_bytes(ctx, &options, &plain, q_len).unwrap();
                run("plain", &|o| {
                    attend_plain(ctx, &mut workspace(bytes), &options, &Bias::default(), q, &plain, o)
                });
                for types in [KvType::F32, KvType::Int8] {
                    let cache = KvCacheOptions::new(1, DIM, 80).types(types, types).sequences(2);
                    let mut cache = KvCache::new(cache).unwrap();
                    cache
                        .append(MatRef::dense(&[], 0, DIM).unwrap(), MatRef::dense(&[], 0, DIM).unwrap())
                        .unwrap();
                    cache.append(k, k).unwrap();
                    let bytes = workspace_bytes(ctx, &options, &cache, q_len).unwrap();
                    run("cache", &|o| {
                        attend_with(ctx, &mut workspace(bytes), &options, &Bias::default(), q, &cache, o)
                    });
                    let many = Sequences::new(&cache, &[0, 1, 0]);
                    if q_len == 0 {
                        run("three sequences", &|o| {
                            attend_with(ctx, &mut workspace(bytes), &options, &Bias::default(), q, many, o)
                        });
                        run("no sequence", &|o| {
                            let none = Sequences::new(&cache, &[]);
                            attend_with(ctx, &mut workspace(bytes), &options, &Bias::default(), q, none, o)
                        });
                    }
                    cache.truncate(0).unwrap();
                    cache.remove(0..0).unwrap();
                    let (mut q, mut k) = (vec![1.0; 0], vec![1.0; 0]);
                    let q = MatMut::dense(&mut q, 0, 2 * DIM).unwrap();
                    let k = MatMut::dense(&mut k, 0, DIM).unwrap();
                    let v = MatRef::dense(&[], 0, DIM).unwrap();
                    cache.append_prepared(ctx, 1, &Preparation::default(), q, k, v).unwrap();
                }
            }
        }
    });
}
