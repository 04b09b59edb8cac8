//! Experts and what a call does with them.

use super::super::compute::Compute;
use super::super::packed::PackedWeights;
use crate::epilogue::Activation;

/// One expert: `down(act(gate(x)) * up(x))`, or `down(act(gate(x)))` without an up.
#[derive(Debug, Clone, Copy)]
pub struct Expert<'a> {
    /// (ffn, hidden).
    pub gate: &'a PackedWeights,
    /// (ffn, hidden): in all experts or in none.
    pub up: Option<&'a PackedWeights>,
    /// (out, ffn).
    pub down: &'a PackedWeights,
    /// Added to the gate before its activation: (ffn).
    pub gate_bias: Option<&'a [f32]>,
    /// Added to the up: (ffn).
    pub up_bias: Option<&'a [f32]>,
    /// Added to the result before its weight: (out).
    pub down_bias: Option<&'a [f32]>,
}

/// A matrix of an expert with its bias.
pub(super) type Biased<'a> = (&'a PackedWeights, Option<&'a [f32]>);

impl<'a> Expert<'a> {
    /// An expert without biases.
    pub fn new(
        gate: &'a PackedWeights,
        up: Option<&'a PackedWeights>,
        down: &'a PackedWeights,
    ) -> Expert<'a> {
        Expert { gate, up, down, gate_bias: None, up_bias: None, down_bias: None }
    }

    /// Its matrices with their biases.
    pub(super) fn parts(&self) -> [Option<Biased<'a>>; 3] {
        [
            Some((self.gate, self.gate_bias)),
            self.up.map(|up| (up, self.up_bias)),
            Some((self.down, self.down_bias)),
        ]
    }
}

/// What experts do between their two products.
#[derive(Debug, Clone, Copy)]
pub(super) enum Between {
    /// `act(gate) * up`, or `act(gate)` without an up.
    Activation(Activation),
    /// The clamped gate of gpt-oss: [`swiglu_oai`](crate::ops::swiglu_oai).
    SwigluOai { alpha: f32, limit: f32 },
}

/// Options of [`multiply_experts`](super::multiply_experts).
#[derive(Debug, Clone, Copy)]
pub struct ExpertOptions {
    pub(super) compute: Compute,
    pub(super) between: Between,
    pub(super) weigh_input: bool,
}

impl ExpertOptions {
    /// Gates with an activation, usually [`Activation::Silu`].
    pub fn new(compute: Compute, activation: Activation) -> ExpertOptions {
        ExpertOptions { compute, between: Between::Activation(activation), weigh_input: false }
    }

    /// Gates as gpt-oss does: see [`swiglu_oai`](crate::ops::swiglu_oai).
    pub fn swiglu_oai(compute: Compute, alpha: f32, limit: f32) -> ExpertOptions {
        ExpertOptions { compute, between: Between::SwigluOai { alpha, limit }, weigh_input: false }
    }

    /// Multiplies the input of an expert by the weight, and not its result: Llama 4.
    pub fn weigh_input(mut self) -> Self {
        self.weigh_input = true;
        self
    }
}
