//! The gradients against finite differences of an independent forward pass in f64, which shares no line with
//! the one that is trained.

use kvern::Context;
use mini::model::{LinearWeights, NormWeights, Shape, Weights};
use mini::train::Trainer;

const SHAPE: Shape = Shape { vocabulary: 13, dim: 16, heads: 2, ffn: 24, layers: 2, context: 16 };
const SEQUENCES: usize = 2;
const TOKENS: usize = 6;

/// Rows of f64.
type Rows = Vec<Vec<f64>>;

fn linear(w: &LinearWeights, x: &Rows) -> Rows {
    let row = |x: &Vec<f64>| {
        let output = |(o, bias): (usize, &f32)| {
            let weights = &w.weight[o * w.inputs..][..w.inputs];
            f64::from(*bias) + weights.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>()
        };
        w.bias.iter().enumerate().map(output).collect()
    };
    x.iter().map(row).collect()
}

fn norm(w: &NormWeights, x: &Rows) -> Rows {
    let row = |x: &Vec<f64>| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scaled = |(i, x): (usize, &f64)| {
            (x - mean) / (variance + 1e-5).sqrt() * f64::from(w.gain[i]) + f64::from(w.bias[i])
        };
        x.iter().enumerate().map(scaled).collect()
    };
    x.iter().map(row).collect()
}

fn add(x: &mut Rows, y: Rows) {
    for (x, y) in x.iter_mut().zip(y) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::MIN, f64::max);
    let exps: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|x| x / sum).collect()
}

/// Turns the halves of a head at `position`.
fn rotate(head: &[f64], position: usize) -> Vec<f64> {
    let half = head.len() / 2;
    let mut turned = head.to_vec();
    for i in 0..half {
        let angle = position as f64 * 10_000f64.powf(-2.0 * i as f64 / head.len() as f64);
        turned[i] = head[i] * angle.cos() - head[i + half] * angle.sin();
        turned[i + half] = head[i] * angle.sin() + head[i + half] * angle.cos();
    }
    turned
}

fn attention(qkv: &Rows) -> Rows {
    let (dim, size) = (SHAPE.dim, SHAPE.dim / SHAPE.heads);
    let mut out = vec![vec![0.0; dim]; qkv.len()];
    for head in 0..SHAPE.heads {
        let part = |i: usize, part: usize| &qkv[i][part * dim + head * size..][..size];
        for (i, out) in out.iter_mut().enumerate() {
            let q = rotate(part(i, 0), i);
            let score = |j: usize| {
                let k = rotate(part(j, 1), j);
                q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (size as f64).sqrt()
            };
            let scores: Vec<f64> = (0..=i).map(score).collect();
            for (j, p) in softmax(&scores).into_iter().enumerate() {
                for (d, v) in part(j, 2).iter().enumerate() {
                    out[head * size + d] += p * v;
                }
            }
        }
    }
    out
}

/// The mean cross-entropy of the batch.
fn loss(weights: &Weights, inputs: &[u32], targets: &[u32]) -> f64 {
    let mut sum = 0.0;
    for (inputs, targets) in inputs.chunks(TOKENS).zip(targets.chunks(TOKENS)) {
        let row = |id: &u32| {
            let row = &weights.embedding[*id as usize * SHAPE.dim..][..SHAPE.dim];
            row.iter().map(|&x| f64::from(x)).collect()
        };
        let mut x: Rows = inputs.iter().map(row).collect();
        for block in &weights.blocks {
            let attended = attention(&linear(&block.qkv, &norm(&block.norm1, &x)));
            add(&mut x, linear(&block.output, &attended));
            let mut hidden = linear(&block.up, &norm(&block.norm2, &x));
            hidden.iter_mut().flatten().for_each(|x| *x = x.max(0.0));
            add(&mut x, linear(&block.down, &hidden));
        }
        for (logits, &target) in linear(&weights.head, &x).iter().zip(targets) {
            sum -= softmax(logits)[target as usize].ln();
        }
    }
    sum / inputs.len() as f64
}

#[test]
fn gradients_are_finite_differences() {
    let ctx = Context::serial();
    let ids = |step: u32| (0..12).map(|i: u32| (i * i * step + 3 * i) % 13).collect::<Vec<u32>>();
    let (inputs, targets) = (ids(5), ids(7));
    let mut weights = Weights::initial(&SHAPE, 3);
    // Gains and biases that are not 1 and 0, so that their part shows.
    for (t, tensor) in weights.tensors_mut().into_iter().enumerate() {
        let len = tensor.len();
        for (i, x) in tensor.iter_mut().enumerate().take(len.min(64)) {
            *x += ((i * 7 + t * 3) % 11) as f32 * 0.02 - 0.1;
        }
    }
    let adam = mini::train::Adam::new(&SHAPE);
    let mut trainer = Trainer::new(&ctx, SHAPE, weights.clone(), adam, (SEQUENCES, TOKENS)).unwrap();
    let found = trainer.gradients_of(&inputs, &targets).unwrap();
    assert!((found - loss(&weights, &inputs, &targets)).abs() < 1e-5);

    let gradients: Vec<Vec<f32>> = trainer.gradients().tensors().iter().map(|t| t.to_vec()).collect();
    let names = weights.names();
    let mut compared = 0;
    for (t, gradient) in gradients.iter().enumerate() {
        // The tensor's error against its own size: single entries may be near zero.
        let (mut error, mut size) = (0f64, 0f64);
        let stride = (gradient.len() / 40).max(1);
        for i in (0..gradient.len()).step_by(stride) {
            let mut at = |delta: f32| {
                let tensor = &mut weights.tensors_mut()[t][i];
                let kept = *tensor;
                *tensor = kept + delta;
                let moved = f64::from(*tensor);
                let loss = loss(&weights, &inputs, &targets);
                weights.tensors_mut()[t][i] = kept;
                (moved, loss)
            };
            let ((high, above), (low, below)) = (at(1e-3), at(-1e-3));
            let difference = (above - below) / (high - low);
            error = error.max((difference - f64::from(gradient[i])).abs());
            size = size.max(difference.abs());
            compared += 1;
        }
        assert!(error < 1e-3 * size + 1e-6, "{}: error {error} of {size}", names[t]);
    }
    assert!(compared > 700, "{compared}");
}
