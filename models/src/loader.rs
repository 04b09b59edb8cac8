//! Tensors of a checkpoint as layers.

use crate::checkpoint::Checkpoint;
use crate::engine::Runtime;
use crate::error::Result;
use crate::linear::Linear;
use kvern::quant::WeightFormat;
use kvern::{Context, MatRef};

/// How a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Tokens that a sequence may have: the size of caches and of rotation tables. Rotations that depend on
    /// the length of the context (LongRoPE, dynamic NTK) take this length, so that all tokens of a cache are
    /// turned alike.
    pub tokens: usize,
    /// The format of the linear maps.
    pub format: WeightFormat,
}

impl LoadOptions {
    /// Sequences of up to `tokens` tokens, weights in f32.
    pub fn new(tokens: usize) -> LoadOptions {
        LoadOptions { tokens, format: WeightFormat::F32 }
    }

    /// Sets the format of the linear maps.
    pub fn format(mut self, format: WeightFormat) -> LoadOptions {
        self.format = format;
        self
    }
}

/// A place in a checkpoint, `model.layers.3` say, from which tensors are loaded by the rest of their names.
#[derive(Debug, Clone)]
pub struct Loader<'a> {
    ctx: &'a Context,
    checkpoint: &'a Checkpoint,
    options: LoadOptions,
    prefix: String,
}

impl<'a> Loader<'a> {
    /// The root of a checkpoint.
    pub fn new(rt: &'a Runtime, checkpoint: &'a Checkpoint, options: &LoadOptions) -> Loader<'a> {
        Loader { ctx: &rt.ctx, checkpoint, options: *options, prefix: String::new() }
    }

    /// The place `name` below this one.
    pub fn at(&self, name: &str) -> Loader<'a> {
        Loader { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The context that weights are packed with.
    pub fn ctx(&self) -> &'a Context {
        self.ctx
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// How the model is loaded.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// Whether there is a tensor `name` here.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.has(&self.name(name))
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The tensor `name` in f32.
    ///
    /// **Errors**: as [`Checkpoint::tensor`], with the whole name.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.checkpoint.tensor(&self.name(name), shape)
    }

    /// The gain of a norm: `name.weight`, (n).
    ///
    /// **Errors**: as [`Checkpoint::tensor`].
    pub fn gain(&self, name: &str, n: usize) -> Result<Vec<f32>> {
        self.at(name).tensor("weight", &[n])
    }

    /// The linear map `name`: `name.weight`, (outputs, inputs), and with `bias` also `name.bias`, (outputs).
    ///
    /// **Errors**: as [`Checkpoint::tensor`] and [`Linear::pack`].
    pub fn linear(&self, name: &str, (outputs, inputs): (usize, usize), bias: bool) -> Result<Linear> {
        let at = self.at(name);
        let rows = at.tensor("weight", &[outputs, inputs])?;
        let bias = bias.then(|| at.tensor("bias", &[outputs])).transpose()?;
        self.pack(&rows, (outputs, inputs), bias)
    }

    /// [`Loader::linear`] in f32 whatever the format of the maps: for routers and other small maps whose
    /// results decide much.
    ///
    /// **Errors**: as [`Loader::linear`].
    pub fn linear_f32(&self, name: &str, shape: (usize, usize), bias: bool) -> Result<Linear> {
        let options = self.options.format(WeightFormat::F32);
        Loader { options, ..self.clone() }.linear(name, shape, bias)
    }

    /// A linear map of rows in memory: part of a fused tensor, or one expert of several.
    ///
    /// **Errors**: as [`Linear::pack`]; `Length` for fewer elements than the shape has.
    pub fn pack(
        &self,
        rows: &[f32],
        (outputs, inputs): (usize, usize),
        bias: Option<Vec<f32>>,
    ) -> Result<Linear> {
        Linear::pack(self.ctx, self.options.format, MatRef::dense(rows, outputs, inputs)?, bias)
    }
}
