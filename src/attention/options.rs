//! Options of a call, and the chunk that numerics, caches and parallelism share.

use crate::error::{Result, option};
use crate::matmul::Precision;
use crate::ops::{FINITE, check_softcap};
use std::f32::consts::LOG2_E;

/// Keys of a chunk. Softmax partials are formed for chunks at fixed multiples of this in absolute position
/// and merged in ascending order, which is why results do not depend on how queries are batched. 256 keys:
/// merging costs 3 vector operations where the products of the chunk take 512 (below 1 %), a strip of
/// scores (6 x 256 x 4 = 6 KiB) stays in L1, and keys and values of a head of 128 (256 KiB) in L2.
pub const CHUNK: usize = 256;

/// Checks a factor of scores, which live in the exp2 domain: `x * log2 e` must be finite.
pub(super) fn check_exp2_factor(what: &'static str, x: f32) -> Result<()> {
    option((x * LOG2_E).is_finite(), what, format_args!("{x:e} * {LOG2_E}"), FINITE)
}

/// Options of one attention call.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// Query heads: a multiple of the cache's kv_heads. Query head h uses kv head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Factor of the scores, without a soft cap at most FLT_MAX / log2 e (2.358e38) in magnitude; `None` for
    /// `1 / sqrt(head_dim)`.
    pub scale: Option<f32>,
    /// Whether a query sees only keys at its own position and before. Without it, each query sees the
    /// whole cache, which must then have no window.
    pub causal: bool,
    /// Soft cap of the scores: `cap * tanh(s / cap)` instead of `s = scale * q . k`. Positive, at most
    /// FLT_MAX / log2 e (2.358e38), and not so small that `scale / cap` overflows.
    pub softcap: Option<f32>,
    /// Keys that a query sees back from its own position, itself included, and without causality as many
    /// ahead. A cache with a window has the smaller of both.
    pub window: Option<usize>,
    /// First tokens of the sequence that every query sees whatever the window: causal queries those of them
    /// at their own position and before, others all of them.
    pub sinks: usize,
    /// `Fast`: bf16 dot products of both products, on CPUs that have them and over caches; `Exact` elsewhere.
    ///
    /// - **Numerics** of `Fast`: queries, keys, probabilities and values are rounded to bf16 (2^-9 relative)
    ///   and summed in f32. A score s is off by at most `e = 2^-7 * scale * sum |q||k|`, and an element of
    ///   the output by `(exp(2 e) - 1 + 2^-7) * max |v|`. The bits depend on the instruction set, but not on
    ///   threads, batch or chunks of a prompt.
    /// - **Cost**: each chunk is rounded once for 384 query rows: meant for prompts; decoding is not faster
    ///   with it.
    pub precision: Precision,
}

impl AttentionOptions {
    /// Causal attention with `heads` query heads and the usual scale.
    pub fn new(heads: usize) -> AttentionOptions {
        AttentionOptions {
            heads,
            scale: None,
            causal: true,
            softcap: None,
            window: None,
            sinks: 0,
            precision: Precision::Exact,
        }
    }

    /// Sets the factor of the scores.
    pub fn scale(mut self, scale: f32) -> AttentionOptions {
        self.scale = Some(scale);
        self
    }

    /// The factor of scores of `key_dim` products.
    pub(super) fn scale_of(&self, key_dim: usize) -> f32 {
        self.scale.unwrap_or(1.0 / (key_dim.max(1) as f32).sqrt())
    }

    /// Checks that every factor that a call multiplies scores by is finite: 0 times an infinite one is NaN.
    pub(super) fn check_factors(&self, key_dim: usize) -> Result<()> {
        let scale = self.scale_of(key_dim);
        check_softcap(self.softcap, scale)?;
        match self.softcap {
            None => check_exp2_factor("scale * log2 e", scale),
            Some(cap) => check_exp2_factor("softcap * log2 e", cap),
        }
    }

    /// Sets the soft cap.
    pub fn softcap(mut self, cap: f32) -> AttentionOptions {
        self.softcap = Some(cap);
        self
    }

    /// Sets the sliding window, in tokens.
    pub fn window(mut self, window: usize) -> AttentionOptions {
        self.window = Some(window);
        self
    }

    /// Sets how many first tokens every query sees.
    pub fn sinks(mut self, tokens: usize) -> AttentionOptions {
        self.sinks = tokens;
        self
    }

    /// Sets the arithmetic.
    pub fn precision(mut self, precision: Precision) -> AttentionOptions {
        self.precision = precision;
        self
    }

    /// Sets whether queries see only the past.
    pub fn causal(mut self, causal: bool) -> AttentionOptions {
        self.causal = causal;
        self
    }
}
