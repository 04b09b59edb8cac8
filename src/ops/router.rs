//! The router of a mixture of experts: which experts a token goes to, and with which weights.

use super::select::{Best, check_choice, for_each_choice};
use super::{activate, softmax};
use crate::context::Context;
use crate::epilogue::Activation;
use crate::error::{Error, Result, equal, option};
use crate::fp_mode;
use crate::view::MatMut;

/// The most groups of experts.
const MAX_GROUPS: usize = 64;

/// How logits become the scores that weights are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum RouterScore {
    /// Softmax over all experts, before the choice: Mixtral, Qwen3-MoE, OLMoE, DeepSeek V2, Gemma 4.
    #[default]
    Softmax = 0,
    /// Choice by logits, then softmax over the chosen ones: gpt-oss, Granite.
    SoftmaxOfChosen = 1,
    /// The logistic function, before the choice: DeepSeek V3, Kimi K2, GLM-4.5, LFM2-MoE, Nemotron-H.
    Sigmoid = 2,
    /// Choice by logits, then the logistic function: Llama 4.
    SigmoidOfChosen = 3,
}

/// What groups of experts are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum GroupScore {
    /// The sum of the two best experts: DeepSeek V3.
    #[default]
    BestTwo = 0,
    /// The best expert: DeepSeek V2.
    Best = 1,
}

/// Options of [`route`].
#[derive(Debug, Clone, Copy)]
pub struct RouterOptions<'a> {
    chosen: usize,
    score: RouterScore,
    bias: Option<&'a [f32]>,
    groups: usize,
    kept: usize,
    group_score: GroupScore,
    renormalize: Option<f32>,
    scale: f32,
    expert_scale: Option<&'a [f32]>,
}

impl<'a> RouterOptions<'a> {
    /// Chooses so many experts for each token; the scores are the weights.
    pub fn new(chosen: usize, score: RouterScore) -> RouterOptions<'a> {
        RouterOptions {
            chosen,
            score,
            bias: None,
            groups: 1,
            kept: 1,
            group_score: GroupScore::BestTwo,
            renormalize: None,
            scale: 1.0,
            expert_scale: None,
        }
    }

    /// Adds to what the choice looks at, and not to the weights: (experts).
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Cuts the experts into so many groups, at most 64, and chooses from the best `kept` of them.
    pub fn groups(mut self, groups: usize, kept: usize, by: GroupScore) -> Self {
        (self.groups, self.kept, self.group_score) = (groups, kept, by);
        self
    }

    /// Divides the weights by their sum plus `eps` (DeepSeek V3: 1e-20, LFM2-MoE: 1e-6, others: 0).
    pub fn renormalize(mut self, eps: f32) -> Self {
        self.renormalize = Some(eps);
        self
    }

    /// Multiplies the weights, after all else but the scales of experts.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// Multiplies each weight by the number of its expert: (experts).
    pub fn expert_scale(mut self, scales: &'a [f32]) -> Self {
        self.expert_scale = Some(scales);
        self
    }

    fn check(&self, experts: usize) -> Result<()> {
        let fits = (1..=MAX_GROUPS).contains(&self.groups) && experts.is_multiple_of(self.groups);
        option(fits, "groups", self.groups, "1..=64 and a divisor of the experts")?;
        option((1..=self.groups).contains(&self.kept), "kept groups", self.kept, "1 and up to all groups")?;
        let want = experts / self.groups * self.kept;
        if self.chosen > want || self.chosen == 0 {
            let relation = "must be at least 1 and at most the experts of the kept groups =";
            return Err(Error::Shape { what: "chosen experts", got: self.chosen, relation, want });
        }
        for (what, part) in [("bias.len", self.bias), ("expert_scale.len", self.expert_scale)] {
            equal(what, part.map_or(experts, <[f32]>::len), "must equal the experts =", experts)?;
        }
        let eps = self.renormalize.unwrap_or(0.0);
        option(eps.is_finite() && eps >= 0.0, "renormalize", eps, "finite and not negative")?;
        option(self.scale.is_finite(), "scale", self.scale, "finite")
    }

    /// The groups that are kept, as bits; all without groups.
    fn kept_groups(&self, experts: usize, choice: &dyn Fn(usize) -> f32) -> u64 {
        if self.kept == self.groups {
            return u64::MAX;
        }
        let size = experts / self.groups;
        let (mut indices, mut scores) = ([0; MAX_GROUPS], [0.0; MAX_GROUPS]);
        let mut best = Best::new(&mut indices[..self.kept], &mut scores[..self.kept]);
        for group in 0..self.groups {
            let (mut two, mut places) = ([0.0; 2], [0; 2]);
            let count = if self.group_score == GroupScore::BestTwo { size.min(2) } else { 1 };
            let mut own = Best::new(&mut places[..count], &mut two[..count]);
            for expert in group * size..(group + 1) * size {
                own.offer(expert as u32, choice(expert));
            }
            best.offer(group as u32, two[0] + two[1]);
        }
        best.indices.iter().fold(0, |kept, &group| kept | 1 << group)
    }
}

/// Chooses experts for each token, with the weights of their results, the heaviest first.
///
/// - **Formula**: with `s = score(logits)` the `chosen` experts with the greatest `s + bias`, of the best
///   groups only; `w = s` of the chosen, `w = w / (sum of w + eps)`, `w = w * scale * expert_scale`, each
///   part where [`RouterOptions`] have it.
/// - **Shapes**: `logits`: (tokens, experts) without gaps; `indices`, `weights`: (tokens, chosen) without
///   gaps. With [`RouterScore::Softmax`] and [`RouterScore::Sigmoid`] the scores replace the logits; else
///   those stay.
/// - **Order**: [`top_k`](super::top_k)'s, of experts and of groups: lower indices first among equals, NaN
///   last. The list of a token is in descending order of its scores.
/// - **Numerics**: [`softmax`] and [`Activation::Sigmoid`] make scores; the sum is a chain of additions from
///   +0.0 in the order of the list; one division, then one product for each factor.
/// - **Errors**: `Shape` for lengths, and for more experts than the kept groups have; `Option`; nothing is
///   changed then.
/// - **Cost**: one pass for the scores and one for the choice; allocates nothing.
/// - **Source**: Shazeer et al. 2017; DeepSeek-AI 2024 (groups, bias).
pub fn route(
    ctx: &Context,
    options: &RouterOptions<'_>,
    experts: usize,
    logits: &mut [f32],
    indices: &mut [u32],
    weights: &mut [f32],
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    options.check(experts)?;
    let (tokens, chosen) = (logits.len() / experts.max(1), options.chosen);
    equal("logits.len", logits.len(), "must equal tokens * experts =", tokens * experts)?;
    let shape = (tokens, experts, chosen);
    check_choice(shape, "must equal tokens * chosen =", indices.len(), weights.len())?;
    let all = MatMut::dense(logits, tokens, experts)?;
    match options.score {
        RouterScore::Softmax => softmax(ctx, all),
        RouterScore::Sigmoid => activate(ctx, Activation::Sigmoid, all),
        RouterScore::SoftmaxOfChosen | RouterScore::SigmoidOfChosen => {}
    }
    let (scores, kernels): (&[f32], _) = (logits, ctx.kernels());
    for_each_choice(ctx, shape, indices, weights, &|token, best| {
        let scores = &scores[token * experts..][..experts];
        let choice = |expert: usize| scores[expert] + options.bias.map_or(0.0, |bias| bias[expert]);
        let kept = options.kept_groups(experts, &choice);
        let size = experts / options.groups;
        for expert in (0..experts).filter(|expert| kept >> (expert / size) & 1 == 1) {
            best.offer(expert as u32, choice(expert));
        }
        for (value, &expert) in best.values.iter_mut().zip(&*best.indices) {
            *value = scores[expert as usize];
        }
        best.sort();
        let weights = &mut *best.values;
        match options.score {
            RouterScore::SoftmaxOfChosen => kernels.softmax(weights),
            RouterScore::SigmoidOfChosen => kernels.activate(Activation::Sigmoid, weights),
            RouterScore::Softmax | RouterScore::Sigmoid => {}
        }
        if let Some(eps) = options.renormalize {
            let sum = weights.iter().fold(0.0, |sum, w| sum + w) + eps;
            kernels.divide(weights, sum);
        }
        for (weight, &expert) in weights.iter_mut().zip(&*best.indices) {
            *weight = *weight * options.scale * options.expert_scale.map_or(1.0, |by| by[expert as usize]);
        }
    })
}
