//! The trainer: weights, Adam's moments, and the training step.

use anyhow::{Result, ensure};
use kvern::ops::RopeTable;
use kvern::{Context, Workspace};

use super::adam::{Adam, clip};
use super::backward::{Scratch, backward, loss};
use super::forward::{Tape, forward};
use super::products::Products;
use super::schedule::Schedule;
use crate::model::{ROPE_BASE, Shape, Weights};

/// Loss, gradient norm and learning rate of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Mean cross-entropy of the batch before the update, in nats.
    pub loss: f64,
    /// Norm of all gradients, before clipping.
    pub norm: f64,
    /// Learning rate of the update.
    pub rate: f64,
}

/// A training in progress.
pub struct Trainer<'a> {
    products: Products<'a>,
    rope: RopeTable,
    shape: Shape,
    weights: Weights,
    gradients: Weights,
    adam: Adam,
    tape: Tape,
    scratch: Scratch,
}

impl<'a> Trainer<'a> {
    /// Continues from `weights` and `adam`, in batches of `sequences` sequences of `tokens` tokens.
    ///
    /// # Errors
    /// When the sequences are longer than the context, or memory cannot be allocated.
    pub fn new(
        ctx: &'a Context,
        shape: Shape,
        weights: Weights,
        adam: Adam,
        (sequences, tokens): (usize, usize),
    ) -> Result<Self> {
        ensure!(tokens <= shape.context, "--seq {tokens} is more than --context {}", shape.context);
        Ok(Self {
            products: Products { ctx, ws: Workspace::new(0)? },
            rope: RopeTable::new(shape.dim / shape.heads, tokens, ROPE_BASE)?,
            gradients: Weights::zeros(&shape),
            tape: Tape::new(&shape, sequences, tokens),
            scratch: Scratch::new(&shape, sequences, tokens),
            shape,
            weights,
            adam,
        })
    }

    /// A training from the weights that [`Weights::to_train`] draws from `seed`.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn initial(ctx: &'a Context, shape: Shape, seed: u64, batch: (usize, usize)) -> Result<Self> {
        Self::new(ctx, shape, Weights::to_train(&shape, seed), Adam::new(&shape), batch)
    }

    /// Computes the mean cross-entropy of a batch, and its gradients into [`Trainer::gradients`].
    ///
    /// # Errors
    /// When the batch has another size or an id beyond the vocabulary, or the logits are NaN.
    pub fn gradients_of(&mut self, inputs: &[u32], targets: &[u32]) -> Result<f64> {
        let rows = self.tape.output.len() / self.shape.dim.max(1);
        ensure!(
            inputs.len() == rows && targets.len() == rows,
            "{} inputs and {} targets for a batch of {rows}",
            inputs.len(),
            targets.len()
        );
        let Self { products, rope, weights, gradients, tape, scratch, .. } = self;
        forward(products, rope, weights, inputs, tape)?;
        let loss = loss(products.ctx, &mut tape.logits, targets)?;
        backward(products, rope, weights, inputs, tape, gradients, scratch)?;
        Ok(loss)
    }

    /// One step: gradients, clipping to a norm of `limit`, update.
    ///
    /// # Errors
    /// As [`Trainer::gradients_of`], and when the gradients are not finite; then the weights are unchanged.
    pub fn step(
        &mut self,
        (inputs, targets): (&[u32], &[u32]),
        schedule: &Schedule,
        limit: f64,
    ) -> Result<StepReport> {
        let loss = self.gradients_of(inputs, targets)?;
        let (norm, factor) = clip(&self.gradients, limit);
        let rate = schedule.at(self.adam.step);
        ensure!(
            loss.is_finite() && norm.is_finite(),
            "step {}: loss {loss} and gradients of norm {norm}: the training diverged; \
             a smaller --lr may help",
            self.adam.step + 1
        );
        self.adam.update(&mut self.weights, &self.gradients, factor, rate);
        Ok(StepReport { loss, norm, rate })
    }

    /// Ends the training and returns its state.
    pub fn into_parts(self) -> (Weights, Adam) {
        (self.weights, self.adam)
    }

    /// The weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The moments.
    pub fn adam(&self) -> &Adam {
        &self.adam
    }

    /// The gradients of the last batch.
    pub fn gradients(&self) -> &Weights {
        &self.gradients
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
}
