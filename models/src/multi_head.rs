//! Attention of sequences to themselves or to others, without a cache (Vaswani et al. 2017, 3.2).

use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::MatRef;
use kvern::attention::{self, AttentionOptions, Bias, Outputs, Plain, Ragged};

/// The maps of multi-head attention: `W_o concat(softmax(q_h K_h^T / sqrt(d)) V_h)`.
#[derive(Debug, Clone)]
pub struct MultiHead {
    /// (n, n)
    pub q: Linear,
    /// (n, n)
    pub k: Linear,
    /// (n, n)
    pub v: Linear,
    /// (n, n)
    pub output: Linear,
    /// Heads, and whether a row sees only itself and what lies before it.
    pub options: AttentionOptions,
}

impl MultiHead {
    /// Loads `q_proj`, `k_proj`, `v_proj` and `out_proj` of rows of `n`, all with biases but, where
    /// `k_bias` is not set, the keys: a bias of keys adds the same to all scores of a query.
    ///
    /// **Errors**: as [`Loader::linear`] and [`heads`].
    pub fn load(at: &Loader<'_>, n: usize, count: usize, causal: bool, k_bias: bool) -> Result<MultiHead> {
        Ok(MultiHead {
            q: at.linear("q_proj", (n, n), true)?,
            k: at.linear("k_proj", (n, n), k_bias)?,
            v: at.linear("v_proj", (n, n), true)?,
            output: at.linear("out_proj", (n, n), true)?,
            options: heads(n, count)?.causal(causal),
        })
    }

    /// `stream = stream + attention(h)`, where the rows `starts[s]..starts[s + 1]` are sequence s and see
    /// only each other.
    ///
    /// **Shapes**: `h`, `stream`: (tokens, n). **Errors**: those of the calls.
    pub fn add_to(&self, rt: &mut Runtime, h: MatRef<'_>, starts: &[usize], stream: &mut Rows) -> Result<()> {
        let [q, k, v] = Linear::apply_each(rt, h, [&self.q, &self.k, &self.v])?;
        let attended = attend(rt, &self.options, (&q, starts), (&k, &v, starts))?;
        self.output.add_to(rt, attended.view()?, 1.0, stream)
    }

    /// Attention of the rows `h` to the rows `to`, of which each has starts of its own: one sequence of `h`
    /// for each of `to`.
    ///
    /// **Shapes**: `h`: (queries, n), `to`: (tokens, n); the result (queries, n). **Errors**: those of the
    /// calls.
    pub fn across(
        &self,
        rt: &mut Runtime,
        (h, query_starts): (&Rows, &[usize]),
        (to, key_starts): (&Rows, &[usize]),
    ) -> Result<Rows> {
        let q = self.q.apply(rt, h.view()?)?;
        let [k, v] = Linear::apply_each(rt, to.view()?, [&self.k, &self.v])?;
        let attended = attend(rt, &self.options, (&q, query_starts), (&k, &v, key_starts))?;
        self.output.apply(rt, attended.view()?)
    }
}

/// Options for `count` heads of equal size in rows of `n`.
///
/// **Errors**: `Config` for heads that do not divide the row.
pub fn heads(n: usize, count: usize) -> Result<AttentionOptions> {
    if n == 0 || count == 0 || !n.is_multiple_of(count) {
        let reason = format!("{count} heads must divide the hidden size = {n}");
        return Err(Error::Config { reason });
    }
    Ok(AttentionOptions::new(count))
}

/// `softmax(scale * q K^T) V` for each sequence alone.
fn attend(
    rt: &mut Runtime,
    options: &AttentionOptions,
    (q, query_starts): (&Rows, &[usize]),
    (k, v, key_starts): (&Rows, &Rows, &[usize]),
) -> Result<Rows> {
    let plain = Plain::new(k.view()?, v.view()?, options.heads)?;
    let ragged = Ragged::new(plain, key_starts, query_starts)?;
    let (queries, _) = ragged.longest();
    rt.reserve(attention::plain_workspace_bytes(&rt.ctx, options, &plain, queries)?)?;
    let mut out = Rows::zeros(q.rows(), v.cols());
    let (ws, outputs) = (&mut rt.ws, Outputs::new(out.view_mut()?));
    attention::attend_ragged(&rt.ctx, ws, options, &Bias::default(), q.view()?, &ragged, outputs)?;
    Ok(out)
}
