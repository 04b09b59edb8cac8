//! Mixtures of experts (Shazeer et al. 2017): a router, and experts of which each token takes a few.
//!
//! A shared expert, which every token takes, is a part of the mixture where it is a gated layer without a
//! weight of its own.

use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::feed_forward::GatedFeedForward;
use crate::linear::{COMPUTE, Linear};
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::MatRef;
use kvern::ops::{self, GroupScore, RouterOptions, RouterScore};
use kvern::quant::{self, ExpertOptions};

/// Added to the sum that weights of DeepSeek's experts are divided by.
const SUM_EPS: f32 = 1e-20;

/// The numbers of a router that chooses by groups: see [`Router::load_grouped`].
#[derive(Debug, Clone, Copy)]
pub struct Grouped {
    /// Experts.
    pub experts: usize,
    /// Experts of a token.
    pub chosen: usize,
    /// Groups of experts.
    pub groups: usize,
    /// Groups that a token may choose from.
    pub kept_groups: usize,
    /// Whether weights are divided by their sum.
    pub renormalizes: bool,
    /// Factor of the weights.
    pub scale: f32,
}

/// Which experts a token goes to, and with which weights: see [`ops::route`].
#[derive(Debug, Clone)]
pub struct Router {
    logits: Linear, // (experts, n)
    chosen: usize,
    score: RouterScore,
    /// Added to what the choice looks at, and not to the weights: (experts).
    pub selection_bias: Option<Vec<f32>>,
    /// Groups of experts, how many of them are kept, and what they are compared by.
    pub groups: Option<(usize, usize, GroupScore)>,
    /// Divides the weights by their sum plus this number.
    pub renormalize: Option<f32>,
    /// Factor of all weights.
    pub scale: f32,
    /// Factor of the weights of each expert: (experts).
    pub expert_scale: Option<Vec<f32>>,
}

/// The choice of each token, the heaviest expert first.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// (tokens, chosen)
    pub indices: Vec<u32>,
    /// (tokens, chosen)
    pub weights: Vec<f32>,
}

impl Router {
    /// Loads the product of the logits, `name.weight`, (experts, n), and with `bias` also `name.bias`,
    /// (experts). What else a router may have is set in its fields.
    ///
    /// It stays in f32 whatever the format of the maps, as in published files of quantised models: a rounding
    /// here sends a token to another expert.
    ///
    /// **Errors**: `Config` for a choice of none, or of more than there are; as [`Loader::linear`].
    pub fn load(
        at: &Loader<'_>,
        name: &str,
        (experts, n): (usize, usize),
        bias: bool,
        chosen: usize,
        score: RouterScore,
    ) -> Result<Router> {
        if chosen == 0 || chosen > experts {
            let allowed = format!("at least 1 and at most the experts = {experts}");
            return Err(Error::field("experts of a token", chosen, &allowed));
        }
        Ok(Router {
            logits: at.linear_f32(name, (experts, n), bias)?,
            chosen,
            score,
            selection_bias: None,
            groups: None,
            renormalize: None,
            scale: 1.0,
            expert_scale: None,
        })
    }

    /// Loads the router of DeepSeek-V3 (DeepSeek-AI 2024), `gate` with `e_score_correction_bias`: the
    /// logistic function of each logit; the best groups by the sum of their two best with the bias, and the
    /// best experts in them; weights without the bias.
    ///
    /// **Errors**: as [`Router::load`].
    pub fn load_grouped(at: &Loader<'_>, n: usize, numbers: Grouped) -> Result<Router> {
        let Grouped { experts, chosen, .. } = numbers;
        let mut router = Router::load(at, "gate", (experts, n), false, chosen, RouterScore::Sigmoid)?;
        router.selection_bias = Some(at.tensor("gate.e_score_correction_bias", &[experts])?);
        router.groups = Some((numbers.groups, numbers.kept_groups, GroupScore::BestTwo));
        router.renormalize = numbers.renormalizes.then_some(SUM_EPS);
        router.scale = numbers.scale;
        Ok(router)
    }

    /// The choice of each row of `x`, (tokens, n).
    ///
    /// **Errors**: as [`Linear::apply`] and [`ops::route`].
    pub fn route(&self, rt: &mut Runtime, x: MatRef<'_>) -> Result<Choice> {
        let mut options = RouterOptions::new(self.chosen, self.score).scale(self.scale);
        if let Some(bias) = &self.selection_bias {
            options = options.bias(bias);
        }
        if let Some((groups, kept, by)) = self.groups {
            options = options.groups(groups, kept, by);
        }
        if let Some(eps) = self.renormalize {
            options = options.renormalize(eps);
        }
        if let Some(scales) = &self.expert_scale {
            options = options.expert_scale(scales);
        }
        let mut logits = self.logits.apply(rt, x)?;
        let pairs = x.rows().saturating_mul(self.chosen);
        let mut choice = Choice { indices: vec![0; pairs], weights: vec![0.0; pairs] };
        let (experts, all) = (self.logits.outputs(), logits.as_mut_slice());
        ops::route(&rt.ctx, &options, experts, all, &mut choice.indices, &mut choice.weights)?;
        Ok(choice)
    }
}

/// How many experts there are, and their sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertShape {
    /// Experts.
    pub experts: usize,
    /// Elements of a row, before and after.
    pub n: usize,
    /// Elements between the products.
    pub hidden: usize,
}

/// Names of an expert's tensors, where each has tensors of its own: `experts.<e>.<name>.weight`.
#[derive(Debug, Clone, Copy)]
pub struct ExpertNames {
    /// (hidden, n): what the activation is of.
    pub gate: &'static str,
    /// (hidden, n): what the activation is multiplied by, where there is such a part.
    pub up: Option<&'static str>,
    /// (n, hidden)
    pub down: &'static str,
}

impl ExpertNames {
    /// `gate_proj`, `up_proj`, `down_proj`.
    pub const PROJECTIONS: ExpertNames =
        ExpertNames { gate: "gate_proj", up: Some("up_proj"), down: "down_proj" };
    /// `w1`, `w3`, `w2`.
    pub const NUMBERS: ExpertNames = ExpertNames { gate: "w1", up: Some("w3"), down: "w2" };
    /// `down_proj(act(up_proj(x)))`: experts without a gate.
    pub const UNGATED: ExpertNames = ExpertNames { gate: "up_proj", up: None, down: "down_proj" };
}

/// Tensors of all experts together: gate and up in one, (experts, 2 hidden, n), and down, (experts, n,
/// hidden).
#[derive(Debug, Clone, Copy)]
pub struct FusedExperts {
    /// The whole name of the tensor of gate and up.
    pub gate_up: &'static str,
    /// The whole name of the tensor of down.
    pub down: &'static str,
    /// Whether gate and up alternate: outputs 0, 2, 4 are the gate. Otherwise the first half is.
    pub alternating: bool,
    /// Whether matrices are stored as (inputs, outputs).
    pub transposed: bool,
    /// Whether there are biases, `<gate_up>_bias`, (experts, 2 hidden), and `<down>_bias`, (experts, n).
    pub bias: bool,
}

/// The experts of a layer.
#[derive(Debug, Clone)]
pub struct Experts {
    experts: Vec<Expert>,
    options: ExpertOptions,
}

#[derive(Debug, Clone)]
struct Expert {
    gate: Linear,       // (hidden, n)
    up: Option<Linear>, // (hidden, n)
    down: Linear,       // (n, hidden)
}

impl Experts {
    /// Loads experts with tensors of their own, without biases. `options` say what lies between the products;
    /// their arithmetic should be [`COMPUTE`].
    ///
    /// **Errors**: as [`Loader::linear`].
    pub fn load(
        at: &Loader<'_>,
        names: ExpertNames,
        shape: ExpertShape,
        options: ExpertOptions,
    ) -> Result<Experts> {
        let ExpertShape { experts, n, hidden } = shape;
        let one = |e| {
            let at = at.at(&format!("experts.{e}"));
            Ok(Expert {
                gate: at.linear(names.gate, (hidden, n), false)?,
                up: names.up.map(|up| at.linear(up, (hidden, n), false)).transpose()?,
                down: at.linear(names.down, (n, hidden), false)?,
            })
        };
        Ok(Experts { experts: (0..experts).map(one).collect::<Result<_>>()?, options })
    }

    /// Loads experts whose tensors are together.
    ///
    /// **Errors**: as [`Loader::tensor`] and [`Loader::pack`].
    pub fn load_fused(
        at: &Loader<'_>,
        names: FusedExperts,
        shape: ExpertShape,
        options: ExpertOptions,
    ) -> Result<Experts> {
        let ExpertShape { experts, n, hidden } = shape;
        let both = hidden.saturating_mul(2);
        let tensor = |name, outputs, inputs| {
            let (rows, cols) = if names.transposed { (inputs, outputs) } else { (outputs, inputs) };
            at.tensor(name, &[experts, rows, cols])
        };
        let bias = |name: &str, outputs| {
            let name = format!("{name}_bias");
            names.bias.then(|| at.tensor(&name, &[experts, outputs])).transpose()
        };
        let gate_up = tensor(names.gate_up, both, n)?;
        let down = tensor(names.down, n, hidden)?;
        let (gate_up_bias, down_bias) = (bias(names.gate_up, both)?, bias(names.down, n)?);
        // From here on sizes are those of tensors in memory.
        let part = |half, e| {
            let rows = matrix(slice(&gate_up, e, both * n), (both, n), names.transposed);
            let take = |all: &[f32], width| outputs_of(all, width, half, names.alternating);
            let bias = gate_up_bias.as_ref().map(|all| take(slice(all, e, both), 1));
            at.pack(&take(&rows, n), (hidden, n), bias)
        };
        let one = |e| {
            let rows = matrix(slice(&down, e, n * hidden), (n, hidden), names.transposed);
            let bias = down_bias.as_ref().map(|all| slice(all, e, n).to_vec());
            let (gate, up) = (part(0, e)?, Some(part(1, e)?));
            Ok(Expert { gate, up, down: at.pack(&rows, (n, hidden), bias)? })
        };
        Ok(Experts { experts: (0..experts).map(one).collect::<Result<_>>()?, options })
    }

    /// One expert: a feed-forward layer that each token takes with a weight of its own.
    pub fn one(layer: GatedFeedForward) -> Experts {
        let GatedFeedForward { gate, up, down, activation } = layer;
        Experts {
            experts: vec![Expert { gate, up: Some(up), down }],
            options: ExpertOptions::new(COMPUTE, activation),
        }
    }

    /// `out = out + by * sum of weight * expert(x)` over the choice of each token.
    ///
    /// **Shapes**: `x`, `out`: (tokens, n). **Numerics**: `by` multiplies the weights first. **Errors**: as
    /// [`quant::multiply_experts`].
    pub fn add_to(
        &self,
        rt: &mut Runtime,
        x: MatRef<'_>,
        choice: &Choice,
        by: f32,
        out: &mut Rows,
    ) -> Result<()> {
        let experts: Vec<_> = self.experts.iter().map(Expert::borrow).collect();
        let chosen = choice.indices.len() / x.rows().max(1);
        let weights: Vec<f32> = choice.weights.iter().map(|weight| weight * by).collect();
        let (options, indices, out) = (&self.options, &choice.indices, out.view_mut()?);
        rt.reserve(quant::experts_workspace_bytes(&rt.ctx, options, &experts, x.rows(), chosen)?)?;
        quant::multiply_experts(&rt.ctx, &mut rt.ws, options, &experts, x, indices, &weights, out)?;
        Ok(())
    }
}

impl Expert {
    fn borrow(&self) -> quant::Expert<'_> {
        let up = self.up.as_ref();
        let mut expert =
            quant::Expert::new(self.gate.weights(), up.map(Linear::weights), self.down.weights());
        expert.gate_bias = self.gate.bias();
        expert.up_bias = up.and_then(Linear::bias);
        expert.down_bias = self.down.bias();
        expert
    }
}

/// Part `e` of a tensor, of so many elements.
fn slice(all: &[f32], e: usize, len: usize) -> &[f32] {
    &all[e * len..][..len]
}

/// A matrix (outputs, inputs), however it is stored.
fn matrix(stored: &[f32], (outputs, inputs): (usize, usize), transposed: bool) -> Vec<f32> {
    if !transposed {
        return stored.to_vec();
    }
    (0..outputs).flat_map(|o| (0..inputs).map(move |i| stored[i * outputs + o])).collect()
}

/// Half of the rows of `width` elements: every second one from row `half` on, or half number `half`.
fn outputs_of(rows: &[f32], width: usize, half: usize, alternating: bool) -> Vec<f32> {
    if alternating {
        let rows = rows.chunks_exact(width.max(1)).skip(half).step_by(2);
        return rows.flatten().copied().collect();
    }
    slice(rows, half, rows.len() / 2).to_vec()
}

/// A router with its experts.
#[derive(Debug, Clone)]
pub struct Mixture {
    /// The router.
    pub router: Router,
    /// The experts.
    pub experts: Experts,
    /// What all tokens take besides.
    pub shared: Option<Box<GatedFeedForward>>,
}

impl Mixture {
    /// `out = out + by * (sum of weight * expert(x) + shared(x))`, the router seeing the rows that the
    /// experts see.
    ///
    /// **Errors**: as [`Router::route`] and [`Experts::add_to`].
    pub fn add_to(&self, rt: &mut Runtime, x: MatRef<'_>, by: f32, out: &mut Rows) -> Result<()> {
        let choice = self.router.route(rt, x)?;
        self.experts.add_to(rt, x, &choice, by, out)?;
        self.shared.as_ref().map_or(Ok(()), |shared| shared.add_to(rt, x, by, out))
    }
}

/// The feed-forward part of a layer in families that have both kinds.
#[derive(Debug, Clone)]
pub enum FeedForward {
    /// One layer for all tokens.
    Gated(GatedFeedForward),
    /// Experts of which each token takes a few.
    Mixture(Mixture),
}

impl FeedForward {
    /// `stream = stream + by * layer(x)`.
    ///
    /// **Errors**: those of the products.
    pub fn add_to(&self, rt: &mut Runtime, x: MatRef<'_>, by: f32, stream: &mut Rows) -> Result<()> {
        match self {
            FeedForward::Gated(layer) => layer.add_to(rt, x, by, stream),
            FeedForward::Mixture(layer) => layer.add_to(rt, x, by, stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_and_up_come_out_of_both_layouts() {
        let halves = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        assert_eq!(outputs_of(&halves, 2, 0, false), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(outputs_of(&halves, 2, 1, false), [5.0, 6.0, 7.0, 8.0]);
        assert_eq!(outputs_of(&halves, 2, 0, true), [1.0, 2.0, 5.0, 6.0]);
        assert_eq!(outputs_of(&halves, 2, 1, true), [3.0, 4.0, 7.0, 8.0]);
    }

    #[test]
    fn transposed_matrices_become_rows_of_outputs() {
        let stored = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(matrix(&stored, (3, 2), true), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(matrix(&stored, (3, 2), false), stored);
    }
}
