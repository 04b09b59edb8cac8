//! The rows of the CSV tables.

use serde::{Deserialize, Serialize};

/// `config` of the measurements with a KV cache in [`BenchRow`].
pub const WITH_CACHE: &str = "with_cache";
/// `config` of the measurements without a KV cache in [`BenchRow`].
pub const NO_CACHE: &str = "no_cache";

/// A row of `bench.csv`: latency of generating a fixed number of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// [`WITH_CACHE`] or [`NO_CACHE`].
    pub config: String,
    /// Mean latency in milliseconds.
    pub mean_ms: f64,
    /// Sample standard deviation of the latency in milliseconds.
    pub std_ms: f64,
}

/// A row of `bench_context.csv`: latency of one token at one context length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextRow {
    /// Tokens up to the measured one, which is the last of them.
    pub context: u64,
    /// Latency per token with a KV cache, in milliseconds.
    pub with_cache_ms: f64,
    /// Latency per token without a KV cache, in milliseconds.
    pub no_cache_ms: f64,
}

/// A row of `bench_quant.csv`: one weight format, with FP32 as the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantRow {
    /// Weight format: `FP32`, `Int8` or `Int4`.
    pub config: String,
    /// Size of the weights as packed, in MiB (2^20 bytes).
    pub size_mb: f64,
    /// Perplexity: the exponential of `loss`.
    pub perplexity: f64,
    /// Mean cross-entropy per token, in nats.
    pub loss: f64,
    /// Median latency of generating a fixed number of tokens with the cache, in milliseconds.
    pub latency_ms: f64,
    /// Sample standard deviation of the latency in milliseconds.
    pub latency_std: f64,
    /// Bytes of weights read from memory for one token.
    pub bytes_streamed: u64,
    /// Largest absolute difference of a logit from the one of FP32.
    pub max_abs_logit_err: f64,
    /// Share of positions (0 to 1) whose largest logit is that of FP32.
    pub top1_agreement: f64,
    /// Peak resident memory of a process that generates, in MiB; 0 where the system does not tell.
    pub peak_memory_mb: f64,
}

/// A row of `loss_*.csv`: one step of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossRow {
    /// Number of the step, from 1.
    pub step: u64,
    /// Mean cross-entropy of the batch, in nats.
    pub loss: f64,
    /// Norm of all gradients before clipping.
    pub norm: f64,
    /// Learning rate.
    pub rate: f64,
}

/// The row of `timings/train_*.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingRow {
    /// Name of the text.
    pub text: String,
    /// Steps that were timed.
    pub steps: u64,
    /// Their time.
    pub seconds: f64,
    /// Mean time of a step in milliseconds.
    pub ms_per_step: f64,
}

/// A row of `memory_usage.csv`: memory of one weight format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryRow {
    /// Weight format: `FP32`, `Int8` or `Int4`.
    pub config: String,
    /// Bytes held by weights, caches, workspace and activations, in MiB.
    pub memory_mb: f64,
}
