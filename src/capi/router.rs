//! The greatest elements of rows, and the router of a mixture of experts.

use super::args::{Array, Options, choose, flag, no_flags, nonzero, optional, read, shared, span_of};
use super::context::kvern_context;
use super::guard;
use super::status::kvern_status;
use crate::error::product;
use crate::ops::{self, GroupScore, RouterOptions, RouterScore};

/// How logits become scores: a `KVERN_ROUTER_*` number.
pub type kvern_router_score = i32;

/// Softmax over all experts, before the choice: Mixtral, Qwen3-MoE, OLMoE, DeepSeek V2, Gemma 4.
pub const KVERN_ROUTER_SOFTMAX: kvern_router_score = 0;
/// Choice by logits, then softmax over the chosen ones: gpt-oss, Granite.
pub const KVERN_ROUTER_SOFTMAX_OF_CHOSEN: kvern_router_score = 1;
/// The logistic function, before the choice: DeepSeek V3, Kimi K2, GLM-4.5, LFM2-MoE, Nemotron-H.
pub const KVERN_ROUTER_SIGMOID: kvern_router_score = 2;
/// Choice by logits, then the logistic function: Llama 4.
pub const KVERN_ROUTER_SIGMOID_OF_CHOSEN: kvern_router_score = 3;

/// What groups of experts are compared by: a `KVERN_GROUP_*` number.
pub type kvern_group_score = i32;

/// The sum of the two best experts: DeepSeek V3.
pub const KVERN_GROUP_BEST_TWO: kvern_group_score = 0;
/// The best expert: DeepSeek V2.
pub const KVERN_GROUP_BEST: kvern_group_score = 1;

/// What `kvern_route` does. Start from KVERN_ROUTER_OPTIONS_INIT and set `chosen`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_router_options {
    /// sizeof(kvern_router_options).
    pub struct_size: usize,
    /// Added to the scores for the choice, and not to the weights: experts elements; NULL for none.
    pub bias: *const f32,
    /// Factors of the weights: experts elements; NULL for none.
    pub expert_scale: *const f32,
    /// Experts of a token, at least 1.
    pub chosen: usize,
    /// Groups of equal size into which the experts are cut, at most 64; 0 for one.
    pub groups: usize,
    /// Groups that are kept for the choice, the best ones; 0 for all.
    pub kept_groups: usize,
    /// How logits become scores.
    pub score: kvern_router_score,
    /// What groups are compared by.
    pub group_score: kvern_group_score,
    /// 1: weights are divided by their sum plus renormalize_eps.
    pub renormalize: i32,
    /// Added to the sum of the weights (DeepSeek V3: 1e-20, LFM2-MoE: 1e-6, others: 0).
    pub renormalize_eps: f32,
    /// Factor of all weights; 0 means 1.
    pub scale: f32,
    /// 0: no flag is defined.
    pub flags: u32,
}

const _: () = assert!(
    size_of::<kvern_router_options>() == 6 * size_of::<usize>() + 24,
    "no padding, or garbage becomes an option"
);
// SAFETY: numbers and raw pointers: every pattern is a value.
unsafe impl Options for kvern_router_options {}

/// The k greatest elements of each row, the greatest first, with their places. Of equal elements the one with
/// the lower index comes first; NaN comes after all numbers.
///
/// `x`: (rows, n), f32, stride in elements; k is at most n. `indices`, `values`: rows * k elements each. They
/// must not overlap each other or `x`.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (k above n), ALIASED; the outputs are unchanged then.
/// Threads: `ctx` shared, `indices` and `values` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_top_k(
    ctx: *const kvern_context,
    rows: usize,
    n: usize,
    k: usize,
    x: *const f32,
    x_row_stride: usize,
    indices: *mut u32,
    values: *mut f32,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let ctx = shared("ctx", ctx)?;
        let x = Array::matrix("x", x, rows, n, x_row_stride)?;
        let len = product("rows * k", &[rows, k])?;
        let indices = Array::new("indices", indices, len)?.apart_from(&[x.span()])?;
        let values = Array::new("values", values, len)?.apart_from(&[x.span(), indices.span()])?;
        Ok(ops::top_k(&ctx.context, x.view()?, k, indices.get_mut(), values.get_mut())?)
    })
}

/// Chooses experts for each token, with the weights of their results, the heaviest first.
///
/// With s = score(logits): the experts with the greatest s + bias, of the best groups only; w = s of the
/// chosen, divided by their sum, times scale and expert_scale, each part where the options ask for it. Of
/// equals the one with the lower index is chosen.
/// `logits`: tokens * experts elements; with KVERN_ROUTER_SOFTMAX and KVERN_ROUTER_SIGMOID the scores replace
/// them. `indices`, `weights`: tokens * chosen elements each. None of the three may overlap another one or
/// the arrays of the options.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more chosen than there are), OPTION, UNSUPPORTED,
/// ALIASED; nothing is changed then. Threads: `ctx` shared, `logits`, `indices` and `weights` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_route(
    ctx: *const kvern_context,
    options: *const kvern_router_options,
    tokens: usize,
    experts: usize,
    logits: *mut f32,
    indices: *mut u32,
    weights: *mut f32,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, raw) = (shared("ctx", ctx)?, read("options", options)?);
        no_flags("options->flags", raw.flags)?;
        let bias = optional(raw.bias, |bias| Array::new("options->bias", bias, experts))?;
        let scales = optional(raw.expert_scale, |by| Array::new("options->expert_scale", by, experts))?;
        let inputs = [span_of(&bias), span_of(&scales)];
        let all = product("tokens * experts", &[tokens, experts])?;
        let len = product("tokens * chosen", &[tokens, raw.chosen])?;
        let logits = Array::new("logits", logits, all)?.apart_from(&inputs)?;
        let indices = Array::new("indices", indices, len)?.apart_from(&inputs)?;
        let indices = indices.apart_from(&[logits.span()])?;
        let weights = Array::new("weights", weights, len)?.apart_from(&inputs)?;
        let weights = weights.apart_from(&[logits.span(), indices.span()])?;
        let scores = [
            RouterScore::Softmax,
            RouterScore::SoftmaxOfChosen,
            RouterScore::Sigmoid,
            RouterScore::SigmoidOfChosen,
        ];
        let scores = scores.map(|score| (score as i32, score));
        let score = choose("options->score", raw.score, "a KVERN_ROUTER number", &scores)?;
        let groupings = [GroupScore::BestTwo, GroupScore::Best].map(|by| (by as i32, by));
        let by = choose("options->group_score", raw.group_score, "a KVERN_GROUP number", &groupings)?;
        let groups = nonzero(raw.groups).unwrap_or(1);
        let mut options = RouterOptions::new(raw.chosen, score)
            .groups(groups, nonzero(raw.kept_groups).unwrap_or(groups), by)
            .scale(nonzero(raw.scale).unwrap_or(1.0));
        if let Some(bias) = bias {
            options = options.bias(bias.get());
        }
        if let Some(scales) = scales {
            options = options.expert_scale(scales.get());
        }
        if flag("options->renormalize", raw.renormalize)? {
            options = options.renormalize(raw.renormalize_eps);
        }
        let (logits, indices, weights) = (logits.get_mut(), indices.get_mut(), weights.get_mut());
        Ok(ops::route(&ctx.context, &options, experts, logits, indices, weights)?)
    })
}
