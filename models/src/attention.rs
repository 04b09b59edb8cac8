//! Keys and values of a layer, and the call that attends to them.

use crate::engine::Runtime;
use crate::error::Result;
use crate::rows::Rows;
use kvern::attention::{self, AttentionOptions, Bias, KvCache, KvCacheOptions, Outputs};
use kvern::{Context, MatRef};
use serde::Deserialize;

/// Which layers of a configuration have a window.
#[derive(Debug, Clone, Deserialize)]
pub struct Windows {
    /// Tokens that a query sees, itself included.
    sliding_window: Option<usize>,
    /// `sliding_attention` for each layer with a window.
    layer_types: Option<Vec<String>>,
}

impl Windows {
    /// Whether a layer has the window. In configurations without `layer_types` all have it but the last one
    /// of each `period`.
    pub fn slides(&self, layer: usize, period: usize) -> bool {
        match &self.layer_types {
            Some(types) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
            None => !(layer + 1).is_multiple_of(period),
        }
    }

    /// The window of a layer, in tokens.
    pub fn of(&self, layer: usize, period: usize) -> Option<usize> {
        self.sliding_window.filter(|_| self.slides(layer, period))
    }
}

/// A cache of `tokens` tokens in f32, one sequence. Windows are [`AttentionOptions::window`]: a cache that
/// forgot what lies before its window would bound how many tokens a call may take.
///
/// **Errors**: as [`KvCache::new_on`].
pub fn cache(ctx: &Context, kv_heads: usize, head_dim: usize, tokens: usize) -> Result<KvCache> {
    Ok(KvCache::new_on(ctx, KvCacheOptions::new(kv_heads, head_dim, tokens))?)
}

/// `softmax(scale * q K^T) V` over the tokens of `cache`, of which the last ones are those of `q`.
///
/// **Shapes**: `q`: (tokens, heads * head_dim); the result (tokens, heads * value_dim). **Errors**: as
/// [`attention::attend_with`].
pub fn attend(
    rt: &mut Runtime,
    options: &AttentionOptions,
    bias: &Bias<'_>,
    q: MatRef<'_>,
    cache: &KvCache,
) -> Result<Rows> {
    rt.reserve(attention::workspace_bytes(&rt.ctx, options, cache, q.rows())?)?;
    let mut out = Rows::zeros(q.rows(), options.heads.saturating_mul(cache.options().value_dim));
    attention::attend_with(&rt.ctx, &mut rt.ws, options, bias, q, cache, Outputs::new(out.view_mut()?))?;
    Ok(out)
}
