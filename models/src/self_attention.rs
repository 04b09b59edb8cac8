//! Self-attention whose query heads share key-value heads (Ainslie et al. 2023), as a part of layers of
//! several kinds.

use crate::attention::{attend, cache};
use crate::engine::Runtime;
use crate::error::Result;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::MatRef;
use kvern::attention::{AttentionOptions, Bias, KvCache, Preparation};
use kvern::ops::{RopePairs, RopeTable};
use std::sync::Arc;

/// The sizes of [`SelfAttention`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Elements of a row of the stream.
    pub n: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Elements of all query heads. A product beyond the address space is no tensor's shape, and refused as
    /// such.
    pub fn q(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }

    /// Elements of all key heads.
    pub fn kv(&self) -> usize {
        self.kv_heads.saturating_mul(self.head_dim)
    }
}

/// `W_o attention(rope(norm(W_q h)), K, V)`, norm and rotation where there are such.
#[derive(Debug)]
pub struct SelfAttention {
    /// (n, heads * head_dim)
    pub q: Linear,
    /// (n, kv_heads * head_dim)
    pub k: Linear,
    /// (n, kv_heads * head_dim)
    pub v: Linear,
    /// (heads * head_dim, n)
    pub output: Linear,
    /// Gains (head_dim) of the RMS norms of each head of queries and of keys, and their epsilon.
    pub head_norms: Option<([Vec<f32>; 2], f32)>,
    /// A learnt score of each head, (heads), that takes part in its softmax without a value.
    pub sinks: Option<Vec<f32>>,
    /// The rotation, of halves of a head.
    pub rope: Option<Arc<RopeTable>>,
    /// How it attends.
    pub options: AttentionOptions,
    /// Keys and values.
    pub cache: KvCache,
}

impl SelfAttention {
    /// Loads `q_proj`, `k_proj`, `v_proj`, and the output under its name, without norms and rotation.
    ///
    /// **Errors**: as [`Loader::linear`] and [`cache`].
    pub fn load(at: &Loader<'_>, shape: AttentionShape, output: &str, bias: bool) -> Result<SelfAttention> {
        let q = at.linear("q_proj", (shape.q(), shape.n), bias)?;
        SelfAttention::load_with(q, at, shape, output, bias)
    }

    /// [`SelfAttention::load`] with a map for queries that the caller has.
    ///
    /// **Errors**: as [`SelfAttention::load`].
    pub fn load_with(
        q: Linear,
        at: &Loader<'_>,
        shape: AttentionShape,
        output: &str,
        bias: bool,
    ) -> Result<SelfAttention> {
        let k = at.linear("k_proj", (shape.kv(), shape.n), bias)?;
        let v = at.linear("v_proj", (shape.kv(), shape.n), bias)?;
        let output = at.linear(output, (shape.n, shape.q()), bias)?;
        SelfAttention::of_maps(at, shape, [q, k, v], output)
    }

    /// Attention with maps for queries, keys and values that the caller has.
    ///
    /// **Errors**: as [`cache`].
    pub fn of_maps(
        at: &Loader<'_>,
        shape: AttentionShape,
        [q, k, v]: [Linear; 3],
        output: Linear,
    ) -> Result<SelfAttention> {
        Ok(SelfAttention {
            q,
            k,
            v,
            output,
            head_norms: None,
            sinks: None,
            rope: None,
            options: AttentionOptions::new(shape.heads),
            cache: cache(at.ctx(), shape.kv_heads, shape.head_dim, at.options().tokens)?,
        })
    }

    /// `attention(q, K, V)` of the rows `h`, whose keys and values it appends first.
    ///
    /// **Shapes**: `h`: (tokens, n); the result (tokens, heads * head_dim). **Errors**: those of products,
    /// cache and attention.
    pub fn attend(&mut self, rt: &mut Runtime, h: MatRef<'_>) -> Result<Rows> {
        let [mut q, mut k, v] = Linear::apply_each(rt, h, [&self.q, &self.k, &self.v])?;
        let mut preparation = Preparation::default();
        if let Some(([q_gain, k_gain], eps)) = &self.head_norms {
            preparation = preparation.norms(q_gain, k_gain, *eps);
        }
        if let Some(rope) = &self.rope {
            preparation = preparation.rope(rope, RopePairs::Halves);
        }
        self.cache.append_prepared(&rt.ctx, 0, &preparation, q.view_mut()?, k.view_mut()?, v.view()?)?;
        let bias =
            self.sinks.as_deref().map_or_else(Bias::default, |sinks| Bias::default().sink_logits(sinks));
        attend(rt, &self.options, &bias, q.view()?, &self.cache)
    }

    /// `x = x + by * W_o attention(q, K, V)` of the rows `h`.
    ///
    /// **Errors**: as [`SelfAttention::attend`].
    pub fn add_to(&mut self, rt: &mut Runtime, h: MatRef<'_>, by: f32, x: &mut Rows) -> Result<()> {
        let attended = self.attend(rt, h)?;
        self.output.add_to(rt, attended.view()?, by, x)
    }
}
