//! A call of every kind, as tests run it in any floating-point mode: on inputs whose products and sums meet
//! subnormal numbers.

use crate::support::Random;
use kvern::attention::*;
use kvern::buffer::ALIGN;
use kvern::ops::*;
use kvern::quant::import::GroupWise;
use kvern::quant::*;
use kvern::*;

/// The bits of an output.
pub fn words(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// What a call wrote.
pub type Run = Box<dyn Fn(&Context) -> Vec<u32>>;

/// Numbers of magnitudes 2^-`lowest` to 1, so that products and sums meet subnormal numbers.
fn wide(random: &mut Random, n: usize, lowest: usize) -> Vec<f32> {
    (0..n).map(|_| random.f32() * f32::powi(0.5, random.below(lowest + 1) as i32)).collect()
}

pub fn dense(x: &[f32], rows: usize) -> MatRef<'_> {
    MatRef::dense(x, rows, x.len() / rows).unwrap()
}

pub fn out(x: &mut [f32], rows: usize) -> MatMut<'_> {
    let cols = x.len() / rows;
    MatMut::dense(x, rows, cols).unwrap()
}

fn workspace() -> Workspace {
    Workspace::new(ALIGN << 17).unwrap()
}

fn bytes(x: &[u8]) -> Vec<u32> {
    x.iter().map(|&x| x.into()).collect()
}

/// Products of floats.
fn matmuls(random: &mut Random, list: &mut Vec<(String, Run)>) {
    for (m, n, k) in [(1, 40, 70), (7, 33, 65), (40, 70, 257), (64, 512, 256)] {
        let (a, b) = (wide(random, m * k, 70), wide(random, k * n, 70));
        let (c, bias) = (wide(random, m * n, 140), wide(random, n, 140));
        let halves: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
        let shorts: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
        for activation in [Activation::Identity, Activation::Relu, Activation::Gelu, Activation::Silu] {
            let (a, b, mut c0, bias) = (a.clone(), b.clone(), c.clone(), bias.clone());
            c0.iter_mut().for_each(|x| *x *= 1e-30);
            let run: Run = Box::new(move |ctx| {
                let (mut c, mut ws) = (c0.clone(), workspace());
                let e = Epilogue::default().scaled(0.7, 1e-7).bias(&bias).activation(activation);
                matmul::matmul(ctx, &mut ws, dense(&a, m), dense(&b, k), out(&mut c, m), &e).unwrap();
                words(&c)
            });
            list.push((format!("matmul {m} x {n} x {k} {activation:?}"), run));
        }
        let run: Run = Box::new(move |ctx| {
            let e = Epilogue::default().bias(&bias).activation(Activation::Silu);
            let packed = [
                PackedB::pack(ctx, dense(&b, k)).unwrap(),
                PackedB::pack(ctx, MatRef::dense(&halves, k, n).unwrap()).unwrap(),
                PackedB::pack(ctx, MatRef::dense(&shorts, k, n).unwrap()).unwrap(),
            ];
            let (mut all, mut ws) = (Vec::new(), workspace());
            for b in &packed {
                let (mut c, mut half) = (vec![0.0; m * n], vec![f16::ZERO; m * n]);
                let mut short = vec![bf16::ZERO; m * n];
                for precision in [Precision::Exact, Precision::Fast] {
                    let (a, c) = (dense(&a, m), out(&mut c, m));
                    b.multiply_with(ctx, &mut ws, precision, a, c, &e).unwrap();
                    let c = MatMut::dense(&mut half, m, n).unwrap();
                    b.multiply_with(ctx, &mut ws, precision, a, c, &e).unwrap();
                    let c = MatMut::dense(&mut short, m, n).unwrap();
                    b.multiply_gated(ctx, &mut ws, precision, a, &packed[0], c, &e).unwrap();
                }
                all.extend(words(&c));
                all.extend(half.iter().map(|x| u32::from(x.to_bits())));
                all.extend(short.iter().map(|x| u32::from(x.to_bits())));
            }
            all
        });
        list.push((format!("packed {m} x {n} x {k}"), run));
    }
}

/// Quantising, packing, decoding and multiplying.
fn weights(random: &mut Random, list: &mut Vec<(String, Run)>) {
    for format in WeightFormat::ALL {
        for (m, n, k) in [(1, 48, 256), (33, 66, 512)] {
            let (a, w) = (wide(random, m * k, 60), wide(random, n * k, 60));
            let mut blocks = vec![0; format.bytes(n, k).unwrap()];
            if quantize(format, &w, &mut blocks).is_err() {
                // No encoder: any codes, scales of 2^-14 and below in every place where a format has one.
                blocks.iter_mut().for_each(|x| *x = random.below(256) as u8 & 0x83);
            }
            let can = quantize(format, &w, &mut blocks.clone()).is_ok();
            let run: Run = Box::new(move |ctx| {
                let (mut all, mut ws) = (Vec::new(), workspace());
                if can {
                    let mut again = vec![0; blocks.len()];
                    quantize(format, &w, &mut again).unwrap();
                    all.extend(bytes(&again));
                    let packed = PackedWeights::quantize_on(ctx, format, dense(&w, n)).unwrap();
                    packed.to_blocks(&mut again).unwrap();
                    all.extend(bytes(&again));
                }
                let mut floats = vec![0.0; n * k];
                dequantize(format, &blocks, &mut floats).unwrap();
                all.extend(words(&floats));
                let packed = PackedWeights::from_blocks_on(ctx, format, n, k, &blocks).unwrap();
                let mut row = vec![0.0; k];
                packed.dequantize_row(n - 1, &mut row).unwrap();
                all.extend(words(&row));
                for compute in [Compute::Int8, Compute::F32] {
                    let (mut c, mut d) = (vec![0.0; m * n], vec![0.0; m * n]);
                    let e = Epilogue::default().scaled(1e-3, 0.0);
                    packed.multiply(ctx, &mut ws, compute, dense(&a, m), out(&mut c, m), &e).unwrap();
                    all.extend(words(&c));
                    let mut gated = Product::new(&packed, out(&mut d, m));
                    gated.up = Some(&packed);
                    gated.epilogue = e.activation(Activation::Silu);
                    let mut both = [Product::new(&packed, out(&mut c, m)), gated];
                    multiply_many(ctx, &mut ws, compute, dense(&a, m), &mut both).unwrap();
                    all.extend(words(&c));
                    all.extend(words(&d));
                }
                let mut rows = vec![0.0; 2 * k];
                embedding_quantized(ctx, &packed, &[0, n as u32 - 1], out(&mut rows, 2)).unwrap();
                all.extend(words(&rows));
                all
            });
            list.push((format!("{} {m} x {n} x {k}", format.name()), run));
        }
    }
    let (tokens, k) = (9, 64);
    let (x, w) = (wide(random, tokens * k, 60), wide(random, k * k, 60));
    let run: Run = Box::new(move |ctx| {
        let formats = [WeightFormat::Q4_0, WeightFormat::F32];
        let packed = formats.map(|f| PackedWeights::quantize_on(ctx, f, dense(&w, k)).unwrap());
        let experts = [0, 1].map(|e| Expert::new(&packed[e], Some(&packed[1 - e]), &packed[e]));
        let (mut ws, mut all) = (workspace(), Vec::new());
        let indices: Vec<u32> = (0..2 * tokens as u32).map(|i| i * i % 2).collect();
        for compute in [Compute::Int8, Compute::F32] {
            let options = ExpertOptions::new(compute, Activation::Silu);
            let mut c = vec![1e-38; tokens * k];
            let (x, weights) = (dense(&x, tokens), &x[..2 * tokens]);
            let out = out(&mut c, tokens);
            multiply_experts(ctx, &mut ws, &options, &experts, x, &indices, weights, out).unwrap();
            all.extend(words(&c));
        }
        all
    });
    list.push(("experts".into(), run));
    let (m, n, k) = (9, 40, 256);
    let (a, scales) = (wide(random, m * k, 60), wide(random, n * k / 64, 140));
    let codes: Vec<i8> = (0..n * k).map(|_| random.below(16) as i8 - 8).collect();
    let run: Run = Box::new(move |ctx| {
        let w = GroupWise::symmetric((n, k), 4, 64, &codes, &scales).unwrap();
        let packed = PackedWeights::from_groups_on(ctx, &w).unwrap();
        let (mut row, mut c, mut ws) = (vec![0.0; k], vec![0.0; m * n], workspace());
        let mut all = Vec::new();
        for i in 0..n {
            w.dequantize_row(i, &mut row).unwrap();
            all.extend(words(&row));
            packed.dequantize_row(i, &mut row).unwrap();
            all.extend(words(&row));
        }
        for compute in [Compute::Int8, Compute::F32] {
            let e = Epilogue::default();
            packed.multiply(ctx, &mut ws, compute, dense(&a, m), out(&mut c, m), &e).unwrap();
            all.extend(words(&c));
        }
        all
    });
    list.push(("group-wise".into(), run));
}

/// Caches and attention.
fn attentions(random: &mut Random, list: &mut Vec<(String, Run)>) {
    let (heads, kv_heads, dim) = (4, 2, 32);
    let (width, kv_width) = (heads * dim, kv_heads * dim);
    for (tokens, q_len) in [(33, 33), (300, 7), (530, 1)] {
        let k = wide(random, tokens * kv_width, 40);
        let v = wide(random, tokens * kv_width, 140);
        let q = wide(random, q_len * width, 20);
        let gain = wide(random, dim, 20);
        let mask: Vec<f32> = wide(random, q_len * tokens, 100);
        for kind in [KvType::F32, KvType::F16, KvType::Bf16, KvType::Int8, KvType::Int4] {
            let (q, k, v) = (q.clone(), k.clone(), v.clone());
            let (gain, mask) = (gain.clone(), mask.clone());
            let run: Run = Box::new(move |ctx| {
                let (mut all, mut ws) = (Vec::new(), workspace());
                let made = KvCacheOptions::new(kv_heads, dim, 600).types(kind, kind).sequences(2);
                let mut cache = KvCache::new_on(ctx, made).unwrap();
                cache.append(dense(&k, tokens), dense(&v, tokens)).unwrap();
                let table = RopeTable::new(dim, 1024, 10000.0).unwrap();
                let pairs = RopePairs::Halves;
                if kind == KvType::F16 || kind == KvType::F32 {
                    cache.rotate(0, 0..tokens, -3, &table, pairs).unwrap();
                }
                let (mut row_k, mut row_v) = (vec![0.0; kv_width], vec![0.0; kv_width]);
                cache.token(0, tokens - 1, &mut row_k, &mut row_v).unwrap();
                all.extend(words(&row_k));
                all.extend(words(&row_v));
                let mut slopes = vec![0.0; heads];
                alibi_slopes(&mut slopes);
                let bias = Bias::default().alibi(&slopes).mask(dense(&mask, q_len));
                for precision in [Precision::Exact, Precision::Fast] {
                    let options = AttentionOptions::new(heads).precision(precision).softcap(20.0);
                    let (mut o, mut lse) = (vec![0.0; q_len * width], vec![0.0; q_len * heads]);
                    let o2 = Outputs::new(out(&mut o, q_len)).lse(out(&mut lse, q_len));
                    attend_with(ctx, &mut ws, &options, &bias, dense(&q, q_len), &cache, o2).unwrap();
                    all.extend(words(&o));
                    all.extend(words(&lse));
                }
                let options = AttentionOptions::new(heads);
                let mut o = vec![0.0; q_len * width];
                attend(ctx, &mut ws, &options, dense(&q, q_len), &cache, out(&mut o, q_len)).unwrap();
                all.extend(words(&o));
                let plain = Plain::new(dense(&k, tokens), dense(&v, tokens), kv_heads).unwrap();
                let (bias, outputs) = (Bias::default(), Outputs::new(out(&mut o, q_len)));
                attend_plain(ctx, &mut ws, &options, &bias, dense(&q, q_len), &plain, outputs).unwrap();
                all.extend(words(&o));
                let (mut q, mut k) = (q.clone(), k[..q_len * kv_width].to_vec());
                let preparation = Preparation::default().norms(&gain, &gain, 1e-6).rope(&table, pairs);
                let (q2, k2, v) =
                    (out(&mut q, q_len), out(&mut k, q_len), dense(&v[..q_len * kv_width], q_len));
                cache.append_prepared(ctx, 1, &preparation, q2, k2, v).unwrap();
                all.extend(words(&q));
                all.extend(words(&k));
                all
            });
            list.push((format!("{kind:?} cache of {tokens}, {q_len} queries"), run));
        }
    }
}

/// Row operations and tables; the large ones go to other threads.
fn row_operations(random: &mut Random, list: &mut Vec<(String, Run)>) {
    for (rows, n) in [(1, 33), (3, 100), (80, 1024)] {
        let (x, z) = (wide(random, rows * n, 140), wide(random, rows * n, 20));
        let (gain, bias) = (wide(random, n, 20), wide(random, n, 140));
        let run: Run = Box::new(move |ctx| {
            let mut all = Vec::new();
            let mut y = vec![0.0; rows * n];
            layer_norm(ctx, dense(&x, rows), &gain, &bias, 1e-12, out(&mut y, rows)).unwrap();
            all.extend(words(&y));
            rms_norm(ctx, dense(&x, rows), &gain, 1e-12, out(&mut y, rows)).unwrap();
            all.extend(words(&y));
            let options = SoftmaxOptions::default().scale(40.0).softcap(50.0).mask(dense(&z, rows));
            softmax_with(ctx, &options, dense(&x, rows), out(&mut y, rows)).unwrap();
            all.extend(words(&y));
            y.copy_from_slice(&x);
            softmax(ctx, out(&mut y, rows));
            all.extend(words(&y));
            for activation in Activation::ALL {
                y.copy_from_slice(&x);
                activate(ctx, activation, out(&mut y, rows));
                all.extend(words(&y));
            }
            y.copy_from_slice(&x);
            silu_mul(ctx, out(&mut y, rows), dense(&z, rows)).unwrap();
            all.extend(words(&y));
            y.copy_from_slice(&x);
            add(ctx, out(&mut y, rows), dense(&z, rows)).unwrap();
            all.extend(words(&y));
            all.push(argmax(ctx, &x).unwrap() as u32);
            for kind in [NormKind::Rms, NormKind::Layer, NormKind::L2, NormKind::Unit] {
                let options = NormOptions::new(kind, 1e-30).gate(Activation::Silu, dense(&z, rows));
                norm(ctx, &options, dense(&x, rows), out(&mut y, rows)).unwrap();
                all.extend(words(&y));
            }
            for along in [Along::Row, Along::Column] {
                y.copy_from_slice(&x);
                cumulative_sum(ctx, along, out(&mut y, rows));
                all.extend(words(&y));
            }
            mean_pool(ctx, dense(&x, rows), &[0, rows], None, out(&mut y[..n], 1)).unwrap();
            all.extend(words(&y[..n]));
            let (mut state, taps) = (vec![0.0; n], [gain.clone(), bias.clone()].concat());
            let options = ConvOptions::new(dense(&taps, 2)).bias(&bias).activation(Activation::Silu);
            causal_conv(ctx, &options, dense(&x, rows), &mut state, out(&mut y, rows)).unwrap();
            all.extend(words(&y));
            let (mut chosen, mut weights) = (vec![0; 4 * rows], vec![0.0; 4 * rows]);
            top_k(ctx, dense(&x, rows), 4, &mut chosen, &mut weights).unwrap();
            all.extend(words(&weights).into_iter().chain(chosen.iter().copied()));
            y.copy_from_slice(&x);
            let options = RouterOptions::new(4, RouterScore::Softmax).bias(&bias).scale(1e-30);
            route(ctx, &options.renormalize(0.0), n, &mut y, &mut chosen, &mut weights).unwrap();
            all.extend(words(&weights).into_iter().chain(chosen));
            all.extend(words(&y));
            embedding(ctx, dense(&x, rows), &[0], out(&mut y[..n], 1)).unwrap();
            all.extend(words(&y));
            all
        });
        list.push((format!("rows {rows} x {n}"), run));
    }
    let x = wide(random, 600 * 128, 140);
    let run: Run = Box::new(move |ctx| {
        let mut all = Vec::new();
        let scalings = [RopeScaling::None, RopeScaling::yarn(32.0, 4096), RopeScaling::llama3(8.0, 8192)];
        for scaling in scalings {
            let table = RopeTable::scaled(64, 600, 150000.0, &scaling).unwrap();
            for position in [1, 599] {
                let (cos, sin) = table.row(position).unwrap();
                all.extend(words(cos));
                all.extend(words(sin));
            }
            for pairs in [RopePairs::Halves, RopePairs::Interleaved] {
                let mut y = x.clone();
                rope(ctx, &table, pairs, 64, 0, out(&mut y, 600)).unwrap();
                all.extend(words(&y));
                rope_at(ctx, &table, pairs, 64, &[599], out(&mut y[..128], 1)).unwrap();
                all.extend(words(&y[..128]));
            }
        }
        let table = RopeTable::from_frequencies(&[1.0, 1e-30, 1e-310], 90, 0.7).unwrap();
        all.extend(words(table.row(89).unwrap().1));
        let mut slopes = [0.0; 12];
        alibi_slopes(&mut slopes);
        all.extend(words(&slopes));
        all
    });
    list.push(("rotation".into(), run));
}

/// `argmax` tells subnormal numbers from zeros.
fn small_differences(list: &mut Vec<(String, Run)>) {
    let mut x = [0.0f32; 200];
    (x[77], x[150]) = (f32::from_bits(1), f32::from_bits(2));
    list.push(("argmax".into(), Box::new(move |ctx| vec![argmax(ctx, &x).unwrap() as u32])));
}

/// Every kind of call by its name: each makes its outputs and returns their bits.
pub fn everything() -> Vec<(String, Run)> {
    let (mut random, mut list) = (Random::new(20), Vec::new());
    matmuls(&mut random, &mut list);
    weights(&mut random, &mut list);
    attentions(&mut random, &mut list);
    row_operations(&mut random, &mut list);
    small_differences(&mut list);
    list
}
