//! Products with the experts of a mixture.

use super::args::{Array, Options, check, exclusive, flag, no_flags, optional, put, read, shared, span_of};
use super::context::kvern_context;
use super::guard;
use super::matmul::{activation, kvern_activation};
use super::quant::{compute, kvern_compute, kvern_weights};
use super::status::{Checked, Failure, KVERN_STATUS_OPTION, kvern_status};
use super::workspace::kvern_workspace;
use crate::error::product;
use crate::quant::{Expert, ExpertOptions, experts_bytes_of, multiply_experts_of};

/// One expert: down(act(gate(x)) * up(x)), or down(act(gate(x))) without an up. Its layout is final.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_expert {
    /// (ffn output features, hidden input features).
    pub gate: *const kvern_weights,
    /// Of the gate's shape; NULL for none, in all experts or in none.
    pub up: *const kvern_weights,
    /// (n output features, ffn input features).
    pub down: *const kvern_weights,
    /// Added to the gate before its activation: ffn elements; NULL for none.
    pub gate_bias: *const f32,
    /// Added to the up: ffn elements; NULL for none.
    pub up_bias: *const f32,
    /// Added to the result before its weight: n elements; NULL for none.
    pub down_bias: *const f32,
}

/// What experts do besides their products. Start from KVERN_EXPERT_OPTIONS_INIT and set the activation,
/// usually KVERN_ACTIVATION_SILU.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_expert_options {
    /// sizeof(kvern_expert_options).
    pub struct_size: usize,
    /// How the products are computed.
    pub compute: kvern_compute,
    /// The activation of the gate.
    pub activation: kvern_activation,
    /// Not 0: the clamped gate of `kvern_swiglu_oai` instead, with this limit (gpt-oss: 7).
    pub oai_limit: f32,
    /// The alpha of that gate (gpt-oss: 1.702).
    pub oai_alpha: f32,
    /// 1: the weight multiplies the input of an expert (Llama 4); 0: its result.
    pub weigh_input: i32,
    /// 0: no flag is defined.
    pub flags: u32,
}

const _: () = assert!(
    size_of::<kvern_expert_options>() == size_of::<usize>() + 24,
    "no padding, or garbage becomes an option"
);
// SAFETY: numbers: every pattern is a value.
unsafe impl Options for kvern_expert_options {}

impl kvern_expert_options {
    fn checked(&self) -> Checked<ExpertOptions> {
        no_flags("options->flags", self.flags)?;
        let (compute, act) = (compute(self.compute)?, activation("options->activation", self.activation)?);
        let options = match self.oai_limit {
            0.0 => ExpertOptions::new(compute, act),
            limit => ExpertOptions::swiglu_oai(compute, self.oai_alpha, limit),
        };
        Ok(if flag("options->weigh_input", self.weigh_input)? { options.weigh_input() } else { options })
    }
}

impl kvern_expert {
    /// Its matrices, and its biases as checked arrays.
    ///
    /// # Safety
    /// - pointers are NULL or live, and the biases are as long as their matrices have rows.
    unsafe fn checked<'a>(&self) -> Checked<(Expert<'a>, [Option<Array<f32>>; 3])> {
        // SAFETY: handed on to the caller.
        unsafe {
            let (gate, down) = (&shared("gate", self.gate)?.0, &shared("down", self.down)?.0);
            let up = if self.up.is_null() { None } else { Some(&shared("up", self.up)?.0) };
            let gate_bias = optional(self.gate_bias, |x| Array::new("gate_bias", x, gate.n()))?;
            let up_bias = optional(self.up_bias, |x| Array::new("up_bias", x, gate.n()))?;
            let down_bias = optional(self.down_bias, |x| Array::new("down_bias", x, down.n()))?;
            let expert = Expert {
                gate_bias: gate_bias.map(|bias| bias.get()),
                up_bias: up_bias.map(|bias| bias.get()),
                down_bias: down_bias.map(|bias| bias.get()),
                ..Expert::new(gate, up, down)
            };
            Ok((expert, [gate_bias, up_bias, down_bias]))
        }
    }
}

/// The experts of a call, and how each is looked up: nothing is allocated for them.
///
/// # Safety
/// - as [`kvern_expert::checked`], for `count` experts.
unsafe fn experts<'a>(
    count: usize,
    experts: *const kvern_expert,
) -> Checked<(&'a [kvern_expert], impl Fn(usize) -> Expert<'a> + Sync)> {
    check("experts", experts, count)?;
    if count == 0 {
        return Err(Failure::new(KVERN_STATUS_OPTION, format_args!("expert_count = 0 must be at least 1")));
    }
    // SAFETY: `check` saw a pointer that is aligned, not NULL, and a length that fits.
    let raw = unsafe { std::slice::from_raw_parts(experts, count) };
    let list = List(raw);
    for expert in raw {
        // SAFETY: handed on to the caller.
        unsafe { expert.checked()? };
    }
    // SAFETY: as above.
    let (first, _) = unsafe { raw[0].checked()? };
    let of = move |i: usize| {
        let list = &list;
        // SAFETY: as above. Each was seen to be good.
        list.0.get(i).and_then(|expert| unsafe { expert.checked() }.ok()).map_or(first, |(expert, _)| expert)
    };
    Ok((raw, of))
}

/// Experts that threads look up.
struct List<'a>(&'a [kvern_expert]);

// SAFETY: the pointers are to weights and numbers that nobody changes during the call, by the header's
// contract.
unsafe impl Sync for List<'_> {}
// SAFETY: as above.
unsafe impl Send for List<'_> {}

/// `*out` = the bytes of workspace that `kvern_experts_multiply` of up to so many tokens, each with up to
/// `chosen` experts, needs.
///
/// Errors: as `kvern_experts_multiply` for options and experts. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_experts_workspace_bytes(
    ctx: *const kvern_context,
    options: *const kvern_expert_options,
    expert_count: usize,
    experts: *const kvern_expert,
    tokens: usize,
    chosen: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their sizes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, options) = (shared("ctx", ctx)?, read("options", options)?.checked()?);
        let (list, of) = self::experts(expert_count, experts)?;
        put("out", out, experts_bytes_of(&ctx.context, &options, (list.len(), &of), tokens, chosen)?)
    })
}

/// `out[t] += sum over i of weights[t][i] * expert[indices[t][i]](x[t])`: the chosen experts of each token,
/// weighted and added, in the order of its list. A token has the bits that it has alone.
///
/// `experts`: expert_count of them, of one shape; formats may differ. `x`: (tokens, hidden), f32. `indices`,
/// `weights`: tokens * chosen elements each, as `kvern_route` gives them. `out`: (tokens, n), f32, to which
/// is added. Strides in elements. `out` must not overlap the inputs. Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (an index beyond the experts, experts of different
/// shapes), OPTION (weights with an order of k, an up that only some have), UNSUPPORTED, ALIASED, WORKSPACE,
/// POISONED; `out` is unchanged then. Threads: `ctx` and weights shared, `ws` and `out` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_experts_multiply(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    options: *const kvern_expert_options,
    expert_count: usize,
    experts: *const kvern_expert,
    tokens: usize,
    hidden: usize,
    x: *const f32,
    x_row_stride: usize,
    chosen: usize,
    indices: *const u32,
    weights: *const f32,
    n: usize,
    out: *mut f32,
    out_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, ws) = (shared("ctx", ctx)?, exclusive("ws", ws)?);
        let options = read("options", options)?.checked()?;
        let (list, of) = self::experts(expert_count, experts)?;
        let x = Array::matrix("x", x, tokens, hidden, x_row_stride)?;
        let len = product("tokens * chosen", &[tokens, chosen])?;
        let (indices, weights) = (Array::new("indices", indices, len)?, Array::new("weights", weights, len)?);
        let inputs = [x.span(), indices.span(), weights.span()];
        let mut out = Array::matrix("out", out, tokens, n, out_row_stride)?.apart_from(&inputs)?;
        for expert in list {
            let (_, biases) = expert.checked()?;
            out = out.apart_from(&biases.map(|bias| span_of(&bias)))?;
        }
        let (ctx, x, out) = (&ctx.context, x.view()?, out.view_mut()?);
        let (indices, weights, experts) = (indices.get(), weights.get(), (list.len(), &of as _));
        Ok(ws
            .0
            .change("ws", |ws| multiply_experts_of(ctx, ws, &options, experts, x, indices, weights, out))??)
    })
}
