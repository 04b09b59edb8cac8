//! Keys and values of a layer, and the call that attends to them.

use crate::engine::Runtime;
use crate::error::Result;
use crate::rows::Rows;
use kvern::attention::{self, AttentionOptions, Bias, KvCache, KvCacheOptions, Outputs};
use kvern::{Context, MatRef};

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
