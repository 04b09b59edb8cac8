//! The loss and the backward pass.

use anyhow::{Context as _, Result};
use kvern::ops::{self, RopeTable};
use kvern::{Context, MatMut};

use super::attention;
use super::forward::Tape;
use super::products::Products;
use super::rows::{Norm, norm_backward, relu_backward};
use crate::model::{NORM_EPSILON, NormWeights, Shape, Weights};

/// Mean cross-entropy of the logits in nats; they become its gradient, `(softmax - one_hot) / rows`.
///
/// # Errors
/// When all logits of a row are NaN, or a target is beyond the vocabulary.
pub(super) fn loss(ctx: &Context, logits: &mut [f32], targets: &[u32]) -> Result<f64> {
    let rows = targets.len().max(1);
    let vocabulary = logits.len() / rows;
    let mut distances = Vec::with_capacity(rows);
    for (row, &target) in logits.chunks_exact(vocabulary).zip(targets) {
        let best = ops::argmax(ctx, row).context("the training diverged: every logit is NaN")?;
        let at_target = row.get(target as usize).context("a target is not in the vocabulary")?;
        distances.push((best, f64::from(row[best]) - f64::from(*at_target)));
    }
    ops::softmax(ctx, MatMut::dense(logits, rows, vocabulary)?);
    let share = 1.0 / rows as f32;
    let mut sum = 0.0;
    for ((row, &target), (best, distance)) in logits.chunks_exact_mut(vocabulary).zip(targets).zip(distances)
    {
        // The probability of the best is never 0, as that of the target may be.
        sum += distance - libm::log(f64::from(row[best]));
        row[target as usize] -= 1.0;
        row.iter_mut().for_each(|x| *x *= share);
    }
    Ok(sum / rows as f64)
}

/// Gradients of activations, reused from step to step.
pub(super) struct Scratch {
    dx: Vec<f32>,     // (rows, dim): of the residual stream
    dh: Vec<f32>,     // (rows, dim)
    d_qkv: Vec<f32>,  // (rows, 3 dim)
    hidden: Vec<f32>, // (rows, ffn)
    scores: Vec<f32>, // (tokens, tokens)
}

impl Scratch {
    pub fn new(shape: &Shape, sequences: usize, tokens: usize) -> Self {
        let of_width = |width: usize| vec![0f32; sequences * tokens * width];
        Self {
            dx: of_width(shape.dim),
            dh: of_width(shape.dim),
            d_qkv: of_width(3 * shape.dim),
            hidden: of_width(shape.ffn),
            scores: vec![0.0; tokens * tokens],
        }
    }
}

/// Computes the gradients `d` of all weights from the gradient of the logits in `tape.logits`; overwrites
/// `d`.
pub(super) fn backward(
    products: &mut Products<'_>,
    rope: &RopeTable,
    weights: &Weights,
    ids: &[u32],
    tape: &Tape,
    d: &mut Weights,
    scratch: &mut Scratch,
) -> Result<()> {
    let heads = tape.heads;
    let Scratch { dx, dh, d_qkv, hidden, scores } = scratch;
    products.backward(&weights.head, &tape.output, &tape.logits, &mut d.head, dx)?;
    let blocks = weights.blocks.iter().zip(&tape.blocks).zip(&mut d.blocks);
    for ((block, kept), d) in blocks.rev() {
        products.backward(&block.down, &kept.hidden, dx, &mut d.down, hidden)?;
        relu_backward(&kept.hidden, hidden);
        products.backward(&block.up, &kept.norm2, hidden, &mut d.up, dh)?;
        norm(&block.norm2, &kept.middle, dh, &mut d.norm2, dx);

        products.backward(&block.output, &kept.attended, dx, &mut d.output, dh)?;
        let sequences = kept
            .qkv
            .chunks_exact(heads.tokens * 3 * heads.dim)
            .zip(kept.probabilities.chunks_exact(heads.probabilities()))
            .zip(dh.chunks_exact(heads.tokens * heads.dim))
            .zip(d_qkv.chunks_exact_mut(heads.tokens * 3 * heads.dim));
        for (((qkv, probabilities), d_out), d_qkv) in sequences {
            attention::backward(products, heads, qkv, probabilities, d_out, d_qkv, scores)?;
            attention::unrotate(products, rope, heads, d_qkv)?;
        }
        products.backward(&block.qkv, &kept.norm1, d_qkv, &mut d.qkv, dh)?;
        norm(&block.norm1, &kept.input, dh, &mut d.norm1, dx);
    }
    d.embedding.fill(0.0);
    for (&id, dx) in ids.iter().zip(dx.chunks_exact(heads.dim)) {
        let row = &mut d.embedding[id as usize * heads.dim..][..heads.dim];
        row.iter_mut().zip(dx).for_each(|(sum, &x)| *sum += x);
    }
    Ok(())
}

fn norm(weights: &NormWeights, x: &[f32], dy: &[f32], d: &mut NormWeights, dx: &mut [f32]) {
    d.gain.fill(0.0);
    d.bias.fill(0.0);
    let norm = Norm { x, gain: &weights.gain, epsilon: NORM_EPSILON };
    norm_backward(&norm, dy, &mut d.gain, &mut d.bias, dx);
}
