//! Qwen3-Next (Qwen Team 2025): Qwen3.5 whose delta nets have fused products, and whose feed-forward layers
//! are experts beside a shared one with a gate of its own, all of them or every so many:
//! `x = x + experts(h) + sigmoid(w h) * shared(h)`.

use super::qwen3_5::{Config, DeltaProducts, Design, FeedForwardPart, dense, load_design};
use super::qwen3_moe::Sizes;
use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::experts::{Choice, Experts, Mixture};
use crate::feed_forward::{GatedFeedForward, activation};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::{Activation, MatRef};
use serde::Deserialize;

#[derive(Deserialize)]
struct Shared {
    shared_expert_intermediate_size: usize,
}

/// Loads `model_type` qwen3_next.
pub(super) fn load(root: &Loader<'_>) -> Result<Box<dyn Decoder>> {
    let config: Config = root.checkpoint().config_as()?;
    let sizes: Sizes = root.checkpoint().config_as()?;
    let Shared { shared_expert_intermediate_size: hidden } = root.checkpoint().config_as()?;
    let act = activation(&config.hidden_act)?;
    let design = Design {
        products: &|at| fused_products(at, &config),
        feed_forward: &|at, i| {
            if !sizes.has_experts(i) {
                return Ok(Box::new(dense(at, &config)?));
            }
            let n = config.hidden_size;
            Ok(Box::new(SharedExperts {
                mixture: sizes.mixture(at, n, act)?,
                shared: Experts::one(GatedFeedForward::load(&at.at("shared_expert"), n, hidden, false, act)?),
                gate: at.linear_f32("shared_expert_gate", (1, n), false)?,
            }))
        },
    };
    load_design(root, &config, &design)
}

/// Cuts `in_proj_qkvz` and `in_proj_ba`. For each key head the first has the rows of q, k, v and z, the
/// second those of b and a; v, z, b and a of the value heads that share the key.
fn fused_products(at: &Loader<'_>, config: &Config) -> Result<DeltaProducts> {
    let (shape, n) = (config.delta(), config.hidden_size);
    let shares = shape.heads.checked_div(shape.key_heads).unwrap_or(0);
    if shape.key_heads == 0 || shares * shape.key_heads != shape.heads {
        let allowed = format!("a divisor of linear_num_value_heads = {}", shape.heads);
        return Err(Error::field("linear_num_key_heads", shape.key_heads, &allowed));
    }
    let outputs = shape.channels().saturating_add(shape.values());
    let qkvz = at.at("in_proj_qkvz").tensor("weight", &[outputs, n])?;
    let ba = at.at("in_proj_ba").tensor("weight", &[shape.heads.saturating_mul(2), n])?;
    let values = shares * shape.value_dim;
    let [q, k, v, z] = cut(&qkvz, n, [shape.key_dim, shape.key_dim, values, values]);
    let [b, a] = cut(&ba, n, [shares, shares]);
    let pack = |rows: &[f32], outputs| at.pack(rows, (outputs, n), None);
    Ok(DeltaProducts {
        qkv: pack(&[q, k, v].concat(), shape.channels())?,
        z: pack(&z, shape.values())?,
        b: pack(&b, shape.heads)?,
        a: pack(&a, shape.heads)?,
    })
}

/// The parts of every head together: part i has so many rows of n elements in each head.
fn cut<const N: usize>(rows: &[f32], n: usize, parts: [usize; N]) -> [Vec<f32>; N] {
    let mut start = 0;
    let all = parts.iter().sum::<usize>() * n;
    parts.map(|part| {
        let range = start..start + part * n;
        start = range.end;
        rows.chunks_exact(all.max(1)).flat_map(|head| &head[range.clone()]).copied().collect()
    })
}

struct SharedExperts {
    mixture: Mixture,
    shared: Experts,
    gate: Linear, // (n, 1)
}

impl FeedForwardPart for SharedExperts {
    fn add_to(&self, rt: &mut Runtime, h: MatRef<'_>, x: &mut Rows) -> Result<()> {
        self.mixture.add_to(rt, h, 1.0, x)?;
        // The shared layer is an expert that each token takes with a weight of its own.
        let weights = self.gate.activate(rt, h, Activation::Sigmoid)?.into_vec();
        let choice = Choice { indices: vec![0; weights.len()], weights };
        self.shared.add_to(rt, h, &choice, 1.0, x)
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn parts_of_heads_come_together() {
        let rows = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(cut(&rows, 1, [1, 2]), [vec![1.0, 4.0], vec![2.0, 3.0, 5.0, 6.0]]);
    }
}
