//! Experts in C: the bits of the safe API, and what is refused.

use crate::capi::*;
use crate::statuses::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::experts::*;
use kvern::capi::matmul::*;
use kvern::capi::quant::*;
use kvern::capi::workspace::*;
use kvern::quant::*;
use kvern::{Activation, Context, MatMut, MatRef, Workspace};
use std::ptr::{null, null_mut};

const TOKENS: usize = 3;
const CHOSEN: usize = 2;

/// Square weights of both interfaces.
fn square(r: &mut Random, format: WeightFormat) -> (*mut kvern_weights, PackedWeights) {
    let w: Vec<f32> = r.vec(K * K).iter().map(|w| w / 8.0).collect();
    let mut weights = null_mut();
    // SAFETY: every pointer is live and of the stated size.
    ok(unsafe { kvern_weights_quantize(null(), format as i32, K, K, w.as_ptr(), K, &mut weights) });
    (weights, PackedWeights::quantize(format, MatRef::dense(&w, K, K).unwrap()).unwrap())
}

fn expert(gate: *const kvern_weights, up: *const kvern_weights, down: *const kvern_weights) -> kvern_expert {
    kvern_expert { gate, up, down, gate_bias: null(), up_bias: null(), down_bias: null() }
}

#[test]
fn experts_have_the_bits_of_the_safe_api() {
    let (o, ctx, mut r) = (Objects::new(), Context::serial(), Random::new(80));
    let formats = [WeightFormat::Q4_0, WeightFormat::Q8_0, WeightFormat::Bf16];
    let all: Vec<_> = formats.map(|format| square(&mut r, format)).into();
    let (x, bias) = (r.vec(TOKENS * K), r.vec(K));
    let (indices, weights) = ([0u32, 1, 1, 0, 2, 2], r.vec(TOKENS * CHOSEN));
    for (gated, biased) in [(true, false), (false, true), (true, true)] {
        let raw: Vec<kvern_expert> = (0..3)
            .map(|i| {
                let up = if gated { all[(i + 1) % 3].0.cast_const() } else { null() };
                let part = |there: bool| if there { bias.as_ptr() } else { null() };
                kvern_expert {
                    gate_bias: part(biased),
                    up_bias: part(biased && gated),
                    down_bias: part(biased),
                    ..expert(all[i].0, up, all[(i + 2) % 3].0)
                }
            })
            .collect();
        let safe: Vec<Expert<'_>> = (0..3)
            .map(|i| {
                let up = gated.then(|| &all[(i + 1) % 3].1);
                let part = |there: bool| there.then_some(&bias[..]);
                Expert {
                    gate_bias: part(biased),
                    up_bias: part(biased && gated),
                    down_bias: part(biased),
                    ..Expert::new(&all[i].1, up, &all[(i + 2) % 3].1)
                }
            })
            .collect();
        let silu = expert_options(KVERN_ACTIVATION_SILU);
        let exact = kvern_expert_options { compute: KVERN_COMPUTE_F32, weigh_input: 1, ..silu };
        let oai = kvern_expert_options { oai_alpha: 1.702, oai_limit: 7.0, ..expert_options(0) };
        let mut pairs = vec![
            (silu, ExpertOptions::new(Compute::Int8, Activation::Silu)),
            (exact, ExpertOptions::new(Compute::F32, Activation::Silu).weigh_input()),
        ];
        if gated {
            pairs.push((oai, ExpertOptions::swiglu_oai(Compute::Int8, 1.702, 7.0)));
        }
        for (options, safe_options) in pairs {
            let (mut got, mut want, mut bytes) = (vec![0.5; TOKENS * K], vec![0.5; TOKENS * K], 0);
            let (list, i, w) = (raw.as_ptr(), indices.as_ptr(), weights.as_ptr());
            let (from, to) = (x.as_ptr(), got.as_mut_ptr());
            // SAFETY: every pointer is live and of the stated size.
            unsafe {
                ok(kvern_experts_workspace_bytes(o.ctx, &options, 3, list, TOKENS, CHOSEN, &mut bytes));
                ok(kvern_workspace_reserve(o.ws, bytes));
                ok(kvern_experts_multiply(
                    o.ctx, o.ws, &options, 3, list, TOKENS, K, from, K, CHOSEN, i, w, K, to, K,
                ));
            }
            let need = experts_workspace_bytes(&ctx, &safe_options, &safe, TOKENS, CHOSEN).unwrap();
            let mut ws = Workspace::new(need).unwrap();
            let (x, out) = (MatRef::dense(&x, TOKENS, K), MatMut::dense(&mut want, TOKENS, K));
            let (x, out) = (x.unwrap(), out.unwrap());
            multiply_experts(&ctx, &mut ws, &safe_options, &safe, x, &indices, &weights, out).unwrap();
            assert_same_bits(&got, &want, "kvern_experts_multiply");
        }
    }
    // SAFETY: live, and used no more.
    all.iter().for_each(|(weights, _)| unsafe { kvern_weights_destroy(*weights) });
}

#[test]
fn experts_refuse_bad_arguments() {
    let (o, mut r) = (Objects::new(), Random::new(81));
    let (weights, _) = square(&mut r, WeightFormat::Q8_0);
    let w = weights.cast_const();
    let (mut outputs, inputs) = (vec![2.0f32; 512], vec![1.0f32; 512]);
    let (y, x, ids, far) = (outputs.as_mut_ptr(), inputs.as_ptr(), [0u32; 6], [0u32, 0, 0, 1, 0, 0]);
    let (i, far, odd) = (ids.as_ptr(), far.as_ptr(), x.wrapping_byte_add(1));
    let good = expert(w, w, w);
    let list = |expert: kvern_expert| [expert];
    let (one, no_gate, no_down) = (list(good), list(expert(null(), w, w)), list(expert(w, w, null())));
    let other = list(expert(w, w, o.weights));
    let bias = list(kvern_expert { down_bias: odd, ..good });
    let over = list(kvern_expert { up_bias: y, ..good });
    let mixed = [good, expert(w, null(), w)];
    let silu = expert_options(KVERN_ACTIVATION_SILU);
    let act = expert_options(11);
    let compute = kvern_expert_options { compute: 2, ..silu };
    let oai = kvern_expert_options { oai_limit: -7.0, oai_alpha: 1.702, ..silu };
    let weigh = kvern_expert_options { weigh_input: 2, ..silu };
    let flags = kvern_expert_options { flags: 1, ..silu };
    let mut bytes = 0;
    macro_rules! query {
        ($options:expr, $count:expr, $list:expr, $out:expr) => {
            kvern_experts_workspace_bytes(o.ctx, $options, $count, $list, 3, 2, $out)
        };
    }
    macro_rules! run {
        ($options:expr, $count:expr, $list:expr, $x:expr, $i:expr, $w:expr, $out:expr) => {
            kvern_experts_multiply(o.ctx, o.ws, $options, $count, $list, 3, K, $x, K, 2, $i, $w, K, $out, K)
        };
    }
    // SAFETY: every pointer is live, and there is one expert.
    unsafe {
        ok(query!(&silu, 1, one.as_ptr(), &mut bytes));
        ok(kvern_workspace_reserve(o.ws, bytes));
    }
    let p = one.as_ptr();
    refuse! {
        NULL_POINTER "out is NULL": query!(&silu, 1, p, null_mut());
        NULL_POINTER "options is NULL": query!(null(), 1, p, &mut bytes);
        NULL_POINTER "experts is NULL": query!(&silu, 1, null(), &mut bytes);
        OPTION "expert_count = 0": query!(&silu, 0, null(), &mut bytes);
        NULL_POINTER "ctx is NULL":
            kvern_experts_multiply(null(), o.ws, &silu, 1, p, 3, K, x, K, 2, i, x, K, y, K);
        NULL_POINTER "ctx is NULL": kvern_experts_workspace_bytes(null(), &silu, 1, p, 3, 2, &mut bytes);
        NULL_POINTER "ws is NULL":
            kvern_experts_multiply(o.ctx, null_mut(), &silu, 1, p, 3, K, x, K, 2, i, x, K, y, K);
        NULL_POINTER "options is NULL": run!(null(), 1, p, x, i, x, y);
        NULL_POINTER "experts is NULL": run!(&silu, 1, null(), x, i, x, y);
        OPTION "expert_count = 0": run!(&silu, 0, p, x, i, x, y);
        NULL_POINTER "gate is NULL": run!(&silu, 1, no_gate.as_ptr(), x, i, x, y);
        NULL_POINTER "down is NULL": run!(&silu, 1, no_down.as_ptr(), x, i, x, y);
        NULL_POINTER "x is NULL": run!(&silu, 1, p, null(), i, x, y);
        NULL_POINTER "indices is NULL": run!(&silu, 1, p, x, null(), x, y);
        NULL_POINTER "weights is NULL": run!(&silu, 1, p, x, i, null(), y);
        NULL_POINTER "out is NULL": run!(&silu, 1, p, x, i, x, null_mut());
        MISALIGNED "down_bias": run!(&silu, 1, bias.as_ptr(), x, i, x, y);
        SHAPE "indices = 1 must be below the experts = 1": run!(&silu, 1, p, x, far, x, y);
        SHAPE "out.cols = 64 must equal the experts' output size = 5":
            run!(&silu, 1, other.as_ptr(), x, i, x, y);
        OPTION "up = one of some experts": run!(&silu, 2, mixed.as_ptr(), x, i, x, y);
        OPTION "options->activation = 11": run!(&act, 1, p, x, i, x, y);
        OPTION "compute = 2": run!(&compute, 1, p, x, i, x, y);
        OPTION "limit = -7": run!(&oai, 1, p, x, i, x, y);
        OPTION "options->weigh_input = 2": run!(&weigh, 1, p, x, i, x, y);
        UNSUPPORTED "options->flags = 1": run!(&flags, 1, p, x, i, x, y);
        ALIASED "out overlaps x": run!(&silu, 1, p, y, i, x, y);
        ALIASED "out overlaps weights": run!(&silu, 1, p, x, i, y, y);
        ALIASED "out overlaps up_bias": run!(&silu, 1, over.as_ptr(), x, i, x, y);
        OVERFLOW "tokens * chosen":
            kvern_experts_multiply(o.ctx, o.ws, &silu, 1, p, 3, K, x, K, usize::MAX, i, x, K, y, K);
    }
    let mut small = null_mut();
    // SAFETY: every pointer is live; objects are destroyed once.
    unsafe {
        ok(kvern_workspace_create(null(), 64, &mut small));
        let status = kvern_experts_multiply(o.ctx, small, &silu, 1, p, 3, K, x, K, 2, i, x, K, y, K);
        refused(status, WORKSPACE, "workspace = 64 bytes must be at least");
        kvern_workspace_destroy(small);
        kvern_weights_destroy(weights);
    }
    assert!(outputs.iter().all(|&y| y == 2.0));
}
