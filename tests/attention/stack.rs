//! The stack that attention takes: the 16 KiB that its documentation states, on every path and at every tier.

use crate::call::Call;
use crate::support::context;
use kvern::attention::*;
use kvern::{Context, Isa, MatMut, Precision, Workspace};

/// What the documentation states, and what a thread itself takes of its stack: thread-local storage, its
/// descriptor, and the frames of its start.
const STACK: usize = (16 << 10) + (4 << 10);

/// Runs `body` on a thread of little stack; the process dies where it is too little.
fn on_a_small_stack(body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, body).unwrap();
        thread.join().unwrap();
    });
}

fn plain(ctx: &Context, call: &Call) {
    let (plain, bias, width) = (call.plain(), call.bias(), call.heads * call.value_dim);
    let mut ws =
        Workspace::new(plain_workspace_bytes(ctx, &call.options, &plain, call.q_len).unwrap()).unwrap();
    let (mut out, mut lse) = (vec![f32::NAN; call.q_len * width], vec![f32::NAN; call.q_len * call.heads]);
    let outputs = Outputs::new(MatMut::dense(&mut out, call.q_len, width).unwrap())
        .lse(MatMut::dense(&mut lse, call.q_len, call.heads).unwrap());
    let mut result = None;
    let (ws, to) = (&mut ws, &mut result);
    on_a_small_stack(|| {
        *to = Some(attend_plain(ctx, ws, &call.options, &bias, call.queries(), &plain, outputs));
    });
    result.unwrap().unwrap();
    assert!(out.iter().all(|x| x.is_finite()));
}

fn cached(ctx: &Context, call: &Call, kind: KvType) {
    let (bias, width) = (call.bias(), call.heads * call.value_dim);
    let cache = call.cache(kind);
    let mut ws = Workspace::new(workspace_bytes(ctx, &call.options, &cache, call.q_len).unwrap()).unwrap();
    let mut out = vec![f32::NAN; call.q_len * width];
    let outputs = Outputs::new(MatMut::dense(&mut out, call.q_len, width).unwrap());
    let mut result = None;
    let (ws, to, kv) = (&mut ws, &mut result, &cache);
    on_a_small_stack(|| {
        *to = Some(attend_with(ctx, ws, &call.options, &bias, call.queries(), kv, outputs));
    });
    result.unwrap().unwrap();
    assert!(out.iter().all(|x| x.is_finite()));
}

#[test]
fn attention_needs_no_more_stack_than_it_says() {
    let calls = [
        Call::new("prompt", [8, 2, 128, 128, 60, 300]),
        Call::new("fast", [8, 2, 128, 128, 60, 300]).options(|o| o.precision(Precision::Fast)),
        Call::new("decode", [8, 2, 64, 64, 1, 1100]).sink_logits(),
        Call::new("all", [6, 2, 40, 40, 31, 600]).everything(),
    ];
    for isa in Isa::ALL {
        if !isa.is_available() {
            eprintln!("skipped: this machine has no {isa}");
            continue;
        }
        for threads in [1, 2] {
            let ctx = context(isa, threads);
            for call in &calls {
                plain(&ctx, call);
                KvType::ALL.into_iter().for_each(|kind| cached(&ctx, call, kind));
            }
        }
    }
}
