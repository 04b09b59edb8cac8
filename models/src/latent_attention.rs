//! Multi-head latent attention (DeepSeek-AI 2024) in its absorbed form, whose cache holds one latent and one
//! rotated part for each token:
//!
//! ```text
//! latent, r = W_kv h;  latent = rms_norm(latent);  key = [latent, rope(r)];  value = latent
//! each head:  q, s = W_q h;  query = [W_k^T q, rope(s)]
//!             y = W_v attention(query, keys, values)
//! result = W_o y
//! ```
//!
//! `W_k` and `W_v` are a head's rows of `kv_b_proj`, which would make keys and values of latents. Every token
//! goes this way, in prompts too, so that chunks do not change a bit.

use crate::attention::attend;
use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::linear::{COMPUTE, Linear};
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::MatRef;
use kvern::attention::{AttentionOptions, Bias, KvCache, KvCacheOptions, Preparation};
use kvern::ops::{RopePairs, RopeTable};
use kvern::quant::{self, HeadStrides};
use serde::Deserialize;
use std::sync::Arc;

/// The fields of `config.json` about latent attention.
#[derive(Debug, Clone, Deserialize)]
pub struct LatentConfig {
    hidden_size: usize,
    num_attention_heads: usize,
    q_lora_rank: Option<usize>,
    kv_lora_rank: usize,
    qk_nope_head_dim: usize,
    /// Elements of a head that are rotated where there is a rotation.
    pub qk_rope_head_dim: usize,
    v_head_dim: usize,
}

impl LatentConfig {
    /// The sizes that they state.
    pub fn shape(&self) -> LatentShape {
        LatentShape {
            n: self.hidden_size,
            heads: self.num_attention_heads,
            latent: self.kv_lora_rank,
            q_latent: self.q_lora_rank,
            plain_dim: self.qk_nope_head_dim,
            rotated_dim: self.qk_rope_head_dim,
            value_dim: self.v_head_dim,
        }
    }
}

/// The sizes of [`LatentAttention`].
#[derive(Debug, Clone, Copy)]
pub struct LatentShape {
    /// Elements of a row of the stream.
    pub n: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a latent of keys and values.
    pub latent: usize,
    /// Elements of a latent of queries; `None` for queries without one.
    pub q_latent: Option<usize>,
    /// Elements of a head's query that meet the latent.
    pub plain_dim: usize,
    /// Elements of a head's query, and of the key, that are rotated where there is a rotation.
    pub rotated_dim: usize,
    /// Elements of a head's value.
    pub value_dim: usize,
}

impl LatentShape {
    /// Elements of a head's query. Sums and products beyond the address space are no tensor's shape, and
    /// refused as such.
    fn q(&self) -> usize {
        self.plain_dim.saturating_add(self.rotated_dim)
    }

    /// Elements of a key in the cache.
    fn key(&self) -> usize {
        self.latent.saturating_add(self.rotated_dim)
    }
}

/// What makes queries of the stream's rows.
#[derive(Debug, Clone)]
enum Queries {
    /// One product.
    Direct(Linear), // (n, heads * q)
    /// A product, an RMS norm, a product.
    Latent { down: Linear, gain: Vec<f32>, up: Linear },
}

/// Latent attention with the cache of one sequence.
#[derive(Debug)]
pub struct LatentAttention {
    shape: LatentShape,
    queries: Queries,
    kv: Linear,          // (n, latent + rotated part)
    gain: Vec<f32>,      // (latent)
    absorb: Vec<Linear>, // of each head (plain_dim, latent): W_k transposed
    values: Vec<Linear>, // of each head (latent, value_dim): W_v
    output: Linear,      // (heads * value_dim, n)
    /// Epsilon of the norms of latents.
    eps: f32,
    /// The rotation.
    pub rope: Option<(Arc<RopeTable>, RopePairs)>,
    /// How it attends; the scale is `(plain_dim + rotated_dim)^-0.5`.
    pub options: AttentionOptions,
    cache: KvCache,
}

impl LatentAttention {
    /// Loads `q_proj`, or `q_a_proj`, `q_a_layernorm` and `q_b_proj`; `kv_a_proj_with_mqa`,
    /// `kv_a_layernorm`, `kv_b_proj` and `o_proj`; without a rotation. `bias` is of `q_a_proj`,
    /// `kv_a_proj_with_mqa` and `o_proj`.
    ///
    /// **Errors**: `Config` for sizes of 0; as [`Loader::linear`] and [`KvCache::new_on`].
    pub fn load(at: &Loader<'_>, shape: LatentShape, bias: bool, eps: f32) -> Result<LatentAttention> {
        let LatentShape { n, heads, latent, plain_dim, value_dim, .. } = shape;
        for (what, size) in [("heads", heads), ("qk_nope_head_dim", plain_dim), ("v_head_dim", value_dim)] {
            if size == 0 {
                return Err(Error::field(what, size, "at least 1"));
            }
        }
        let q = heads.saturating_mul(shape.q());
        let queries = match shape.q_latent {
            None => Queries::Direct(at.linear("q_proj", (q, n), false)?),
            Some(rank) => Queries::Latent {
                down: at.linear("q_a_proj", (rank, n), bias)?,
                gain: at.gain("q_a_layernorm", rank)?,
                up: at.linear("q_b_proj", (q, rank), false)?,
            },
        };
        let outputs = plain_dim.saturating_add(value_dim);
        let kv_b = at.at("kv_b_proj").tensor("weight", &[heads.saturating_mul(outputs), latent])?;
        let (mut absorb, mut values) = (Vec::new(), Vec::new());
        for head in kv_b.chunks_exact(outputs.saturating_mul(latent).max(1)) {
            let (w_k, w_v) = head.split_at(plain_dim * latent);
            absorb.push(at.pack(&transposed(w_k, latent), (latent, plain_dim), None)?);
            values.push(at.pack(w_v, (value_dim, latent), None)?);
        }
        let options = KvCacheOptions::new(1, shape.key(), at.options().tokens).latent(latent);
        Ok(LatentAttention {
            queries,
            kv: at.linear("kv_a_proj_with_mqa", (shape.key(), n), bias)?,
            gain: at.gain("kv_a_layernorm", latent)?,
            absorb,
            values,
            output: at.linear("o_proj", (n, heads.saturating_mul(value_dim)), bias)?,
            eps,
            rope: None,
            options: AttentionOptions::new(heads).scale((shape.q() as f32).sqrt().recip()),
            cache: KvCache::new_on(at.ctx(), options)?,
            shape,
        })
    }

    /// `stream = stream + W_o y` of the rows `h`, whose keys it appends first.
    ///
    /// **Errors**: those of products, cache and attention.
    pub fn add_to(&mut self, rt: &mut Runtime, h: MatRef<'_>, stream: &mut Rows) -> Result<()> {
        let (shape, tokens) = (self.shape, h.rows());
        let q = self.queries.apply(rt, h, self.eps)?;
        let mut key = self.kv.apply(rt, h)?;

        let mut query = Rows::zeros(tokens, shape.heads * shape.key());
        let strides = HeadStrides { a: shape.q(), c: shape.key() };
        multiply_heads(rt, &self.absorb, strides, &q, &mut query)?;
        // The rotated part of a head goes behind its query of the latent.
        let heads = q.as_slice().chunks_exact(shape.q());
        for (to, head) in query.as_mut_slice().chunks_exact_mut(shape.key()).zip(heads) {
            to[shape.latent..].copy_from_slice(&head[shape.plain_dim..]);
        }

        let mut preparation = Preparation::default();
        preparation.k_norm = Some((&self.gain, self.eps));
        if let Some((table, pairs)) = &self.rope {
            preparation = preparation.rope(table, *pairs);
        }
        let none = Rows::zeros(tokens, 0);
        let (queries, keys) = (query.view_mut()?, key.view_mut()?);
        self.cache.append_prepared(&rt.ctx, 0, &preparation, queries, keys, none.view()?)?;
        let latents = attend(rt, &self.options, &Bias::default(), query.view()?, &self.cache)?;

        let mut y = Rows::zeros(tokens, shape.heads * shape.value_dim);
        let strides = HeadStrides { a: shape.latent, c: shape.value_dim };
        multiply_heads(rt, &self.values, strides, &latents, &mut y)?;
        self.output.add_to(rt, y.view()?, 1.0, stream)
    }

    /// Empties the cache.
    pub fn reset(&mut self) {
        self.cache.clear();
    }
}

impl Queries {
    /// (tokens, heads * q).
    fn apply(&self, rt: &mut Runtime, h: MatRef<'_>, eps: f32) -> Result<Rows> {
        match self {
            Queries::Direct(map) => map.apply(rt, h),
            Queries::Latent { down, gain, up } => {
                let latent = down.apply(rt, h)?;
                let latent = rt.rms_norm(latent.view()?, gain, eps)?;
                up.apply(rt, latent.view()?)
            }
        }
    }
}

/// Each head by its own map.
fn multiply_heads(
    rt: &mut Runtime,
    maps: &[Linear],
    strides: HeadStrides,
    a: &Rows,
    c: &mut Rows,
) -> Result<()> {
    let weights: Vec<_> = maps.iter().map(Linear::weights).collect();
    rt.reserve(quant::heads_workspace_bytes(&rt.ctx, &weights, a.rows(), COMPUTE)?)?;
    quant::multiply_heads(&rt.ctx, &mut rt.ws, COMPUTE, &weights, strides, a.view()?, c.view_mut()?)?;
    Ok(())
}

/// A matrix of rows of `cols` elements, turned.
fn transposed(rows: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|j| rows.iter().skip(j).step_by(cols).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::transposed;

    #[test]
    fn columns_become_rows() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
