//! Row operations: norms, softmax, activations, gates, sums, embeddings, rotations, argmax.

use crate::machines::{Machines, Out, one_in, size};
use crate::oracle::{U, act, act_bound, activation};
use crate::support::Random;
use kvern::ops::*;
use kvern::quant::{PackedWeights, WeightFormat};
use kvern::{Context, MatRef};

/// What an operation does to an output on a context.
type Run<'a> = Box<dyn Fn(&Context, &mut Out) + 'a>;

/// The exact value of an element, and how far the result may be from it.
type Exact<'a> = Box<dyn Fn(usize, usize) -> (f64, f64) + 'a>;

/// An operation over rows.
struct Operation<'a> {
    name: String,
    rows: usize,
    cols: usize,
    /// What the output holds before, where it is updated in place.
    before: Option<&'a [f32]>,
    run: Run<'a>,
    exact: Exact<'a>,
}

impl Operation<'_> {
    fn out(&self, definition: bool, gap: usize) -> Out {
        let new = if definition { Out::of_definition } else { Out::of_others };
        let out = new(self.rows, self.cols, gap);
        match self.before {
            Some(rows) => out.fill(rows),
            None => out,
        }
    }

    fn compare(&self, machines: &Machines, random: &mut Random) {
        let gap = random.below(4);
        let what = format!("{} of {} x {}", self.name, self.rows, self.cols);
        let mut want = self.out(true, gap);
        (self.run)(&machines.definition, &mut want);
        for _ in 0..if self.rows * self.cols > 0 { 20 } else { 0 } {
            let (i, j) = (random.below(self.rows), random.below(self.cols));
            let (exact, bound) = (self.exact)(i, j);
            want.assert_near((i, j), exact, bound, &what);
        }
        for (name, ctx) in machines.some(random) {
            let mut got = self.out(false, gap);
            (self.run)(ctx, &mut got);
            got.assert_same(&want, &format!("{name}: {what}"));
        }
    }
}

pub fn case(machines: &Machines, random: &mut Random) {
    let (rows, n) = (size(random, 40), size(random, 600));
    let magnitude = [1.0, 1.0, 30.0, 1e-4][random.below(4)];
    let x: Vec<f32> = random.vec(rows * n).iter().map(|x| x * magnitude).collect();
    let (gain, bias, z) = (random.vec(n), random.vec(n), random.vec(rows * n));
    let view = || MatRef::dense(&x, rows, n).unwrap();
    let row = |i: usize| x[i * n..(i + 1) * n].iter().map(|&x| f64::from(x));
    let operation = |name: &str, before, run, exact| Operation {
        name: name.to_owned(),
        rows,
        cols: n,
        before,
        run,
        exact,
    };
    let in_place = Some(&x[..]);
    match random.below(8) {
        0 => norms(machines, random, &x, (rows, n), (&gain, &bias)),
        1 => {
            let factor = [1.0, 0.125, -2.0][random.below(3)];
            let cap = one_in(random, 2).then_some(3.0f32);
            let periods: Vec<usize> = (1..=rows).filter(|p| rows.is_multiple_of(*p)).collect();
            let period = if periods.is_empty() { 0 } else { periods[random.below(periods.len())] };
            let mut mask: Vec<f32> = random.vec(period * n);
            for x in &mut mask {
                if one_in(random, 4) {
                    *x = f32::NEG_INFINITY;
                }
            }
            let masked = period > 0 && one_in(random, 2);
            let score = |i: usize, j: usize| {
                let s = f64::from(factor) * f64::from(x[i * n + j]);
                let s = cap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh());
                if masked { s + f64::from(mask[i % period * n + j]) } else { s }
            };
            let softmax = move |i: usize, j: usize| {
                let scores: Vec<f64> = (0..n).map(|j| score(i, j)).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
                let p = if most == f64::NEG_INFINITY { 0.0 } else { (scores[j] - most).exp() / sum };
                // The argument of exp is off by some roundings of itself; results below f32's normals count
                // less.
                let size = scores.iter().filter(|s| s.is_finite()).fold(0.0f64, |size, s| size.max(s.abs()));
                (p, p * (16.0 * U * (size + 3.0) + n as f64 * U) + 1e-36)
            };
            let mut options = SoftmaxOptions::default().scale(factor);
            options.softcap = cap;
            if masked {
                options = options.mask(MatRef::dense(&mask, period, n).unwrap());
            }
            let run = Box::new(move |ctx: &Context, out: &mut Out| {
                softmax_with(ctx, &options, view(), out.view()).unwrap();
            });
            operation("softmax with options", None, run, Box::new(softmax)).compare(machines, random);
        }
        2 => {
            let exact = |i: usize, j: usize| {
                let most = row(i).fold(f64::NEG_INFINITY, f64::max);
                let p =
                    (f64::from(x[i * n + j]) - most).exp() / row(i).map(|x| (x - most).exp()).sum::<f64>();
                (p, p * (16.0 * U * 64.0 + n as f64 * U) + 1e-36)
            };
            let run = Box::new(|ctx: &Context, out: &mut Out| softmax(ctx, out.view()));
            operation("softmax", in_place, run, Box::new(exact)).compare(machines, random);
        }
        3 => {
            let activation = activation(random);
            let exact = |i: usize, j: usize| {
                let x = f64::from(x[i * n + j]);
                (act(activation, x), act_bound(activation, x, 0.0))
            };
            let run = Box::new(move |ctx: &Context, out: &mut Out| activate(ctx, activation, out.view()));
            operation(&format!("{activation:?}"), in_place, run, Box::new(exact)).compare(machines, random);
        }
        4 => {
            let of_z = || MatRef::dense(&z, rows, n).unwrap();
            let activation = activation(random);
            let gate = |i: usize, j: usize| {
                let (x, z) = (f64::from(x[i * n + j]), f64::from(z[i * n + j]));
                let y = act(activation, x);
                (y * z, act_bound(activation, x, 0.0) * (z.abs() + U) + U * (y * z).abs())
            };
            let run = Box::new(move |ctx: &Context, out: &mut Out| {
                activate_mul(ctx, activation, out.view(), of_z()).unwrap()
            });
            operation(&format!("{activation:?} gate"), in_place, run, Box::new(gate))
                .compare(machines, random);
            let sum = |i: usize, j: usize| {
                let sum = f64::from(x[i * n + j]) + f64::from(z[i * n + j]);
                (sum, U * sum.abs())
            };
            let run = Box::new(|ctx: &Context, out: &mut Out| add(ctx, out.view(), of_z()).unwrap());
            operation("add", in_place, run, Box::new(sum)).compare(machines, random);
        }
        5 => rotation(machines, random),
        6 => {
            let ids: Vec<u32> = (0..if rows == 0 { 0 } else { size(random, 60) })
                .map(|_| random.below(rows) as u32)
                .collect();
            let exact = |i: usize, j: usize| (f64::from(x[ids[i] as usize * n + j]), 0.0);
            let run =
                Box::new(|ctx: &Context, out: &mut Out| embedding(ctx, view(), &ids, out.view()).unwrap());
            let operation =
                Operation { rows: ids.len(), ..operation("embedding", None, run, Box::new(exact)) };
            operation.compare(machines, random);
            quantized_embedding(machines, random);
        }
        _ => {
            let mut x: Vec<f32> = (0..n).map(|_| random.below(9) as f32 - 4.0).collect();
            x.iter_mut().for_each(|x| {
                if random.below(5) == 0 {
                    *x = f32::NAN
                }
            });
            let greatest = x.iter().copied().filter(|x| !x.is_nan()).max_by(f32::total_cmp);
            let want = greatest.and_then(|greatest| x.iter().position(|&x| x == greatest));
            for (name, ctx) in machines.some(random) {
                assert_eq!(argmax(ctx, &x), want, "{name}: argmax of {n}");
            }
        }
    }
}

/// Layer norm and RMS norm, of rows with a mean and without.
fn norms(
    machines: &Machines,
    random: &mut Random,
    x: &[f32],
    (rows, n): (usize, usize),
    (gain, bias): (&[f32], &[f32]),
) {
    let eps = [1e-5, 1e-6, 1e-12, 0.0][random.below(4)];
    let (mean, scale) =
        [(0.0, 1.0), (3.0, 1.0), (1e4, 1.0), (0.0, 2e19), (1e5, 2e19), (0.0, 1e-25)][random.below(6)];
    let x: Vec<f32> = x.iter().map(|x| (x + mean) * scale).collect();
    let view = || MatRef::dense(&x, rows, n).unwrap();
    let row = |i: usize| x[i * n..(i + 1) * n].iter().map(|&x| f64::from(x));
    let exact = |of_layer: bool, i: usize, j: usize| {
        let mean = if of_layer { row(i).sum::<f64>() / n as f64 } else { 0.0 };
        let var = row(i).map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        let deviation = (var + f64::from(eps)).sqrt();
        let y = (f64::from(x[i * n + j]) - mean) / deviation * f64::from(gain[j]);
        let shift = if of_layer { f64::from(bias[j]) } else { 0.0 };
        let d = (f64::from(x[i * n + j]) - mean).abs() / deviation;
        let size = if of_layer { (1.0 + d) * f64::from(gain[j].abs()) + shift.abs() } else { y.abs() };
        // Layer norm compensates its sums; a lane of RMS norm adds n / 16 squares.
        let units = if of_layer { 8.0 } else { n as f64 / 16.0 + 8.0 };
        (if deviation > 0.0 { y } else { 0.0 } + shift, units * U * size + 1e-37)
    };
    let operation =
        |name: &str, run, exact| Operation { name: name.to_owned(), rows, cols: n, before: None, run, exact };
    let run = Box::new(|ctx: &Context, out: &mut Out| {
        layer_norm(ctx, view(), gain, bias, eps, out.view()).unwrap()
    });
    operation("layer_norm", run, Box::new(|i, j| exact(true, i, j))).compare(machines, random);
    let run = Box::new(|ctx: &Context, out: &mut Out| rms_norm(ctx, view(), gain, eps, out.view()).unwrap());
    operation("rms_norm", run, Box::new(|i, j| exact(false, i, j))).compare(machines, random);
}

/// RoPE with a position for each token, of all of a head or a part.
fn rotation(machines: &Machines, random: &mut Random) {
    let (tokens, heads, head_dim) = (size(random, 20), 1 + random.below(4), 2 * (1 + random.below(48)));
    let rotary = 2 * (1 + random.below(head_dim / 2));
    let table = RopeTable::new(rotary, 200, 10000.0).unwrap();
    let positions: Vec<usize> = (0..tokens).map(|_| random.below(200)).collect();
    let pairs = [RopePairs::Halves, RopePairs::Interleaved][random.below(2)];
    let x = random.vec(tokens * heads * head_dim);
    let exact = |i: usize, j: usize| {
        let (head, at) = (j / head_dim * head_dim, j % head_dim);
        let element = |at: usize| f64::from(x[i * heads * head_dim + head + at]);
        if at >= rotary {
            return (element(at), 0.0);
        }
        let half = rotary / 2;
        let (pair, first, second) = match pairs {
            RopePairs::Halves => (at % half, at % half, at % half + half),
            _ => (at / 2, at / 2 * 2, at / 2 * 2 + 1),
        };
        let angle = positions[i] as f64 * 10000f64.powf(-2.0 * pair as f64 / rotary as f64);
        let (sin, cos) = angle.sin_cos();
        let (x0, x1) = (element(first), element(second));
        let y = if at == first { x0 * cos - x1 * sin } else { x0 * sin + x1 * cos };
        (y, 4.0 * U * (x0.abs() + x1.abs()))
    };
    let run = Box::new(|ctx: &Context, out: &mut Out| {
        rope_at(ctx, &table, pairs, head_dim, &positions, out.view()).unwrap();
    });
    let name = format!("rope of {rotary} of {head_dim}, {pairs:?}");
    let cols = heads * head_dim;
    Operation { name, rows: tokens, cols, before: Some(&x), run, exact: Box::new(exact) }
        .compare(machines, random);
}

/// Rows of quantised weights.
fn quantized_embedding(machines: &Machines, random: &mut Random) {
    let format = WeightFormat::ALL[random.below(WeightFormat::ALL.len())];
    let (vocabulary, k) = (1 + random.below(40), format.block_len() * (1 + random.below(3)));
    let w = random.vec(vocabulary * k);
    let w = PackedWeights::quantize(format, MatRef::dense(&w, vocabulary, k).unwrap()).unwrap();
    let ids: Vec<u32> = (0..size(random, 30)).map(|_| random.below(vocabulary) as u32).collect();
    let exact = |i: usize, j: usize| {
        let mut row = vec![f32::NAN; k];
        w.dequantize_row(ids[i] as usize, &mut row).unwrap();
        (f64::from(row[j]), 0.0)
    };
    let run =
        Box::new(|ctx: &Context, out: &mut Out| embedding_quantized(ctx, &w, &ids, out.view()).unwrap());
    let name = format!("embedding of {}", format.name());
    Operation { name, rows: ids.len(), cols: k, before: None, run, exact: Box::new(exact) }
        .compare(machines, random);
}
