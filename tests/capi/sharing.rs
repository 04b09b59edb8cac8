//! Objects that threads share, and processes that a fork makes.

use crate::capi::*;
use crate::support::{Random, bits};
use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::context::*;
#[cfg(unix)]
use kvern::capi::matmul::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::rope::*;
use kvern::capi::workspace::*;
use std::ptr::{null, null_mut};

/// Body of a caller's thread: it only reads the shared objects, and has a workspace of its own.
fn work(o: &Objects, ctx: *const kvern_context, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    let (a, q) = (random.vec(M * K), random.vec(2 * WIDTH));
    let (mut ws, mut c, mut w) = (null_mut(), vec![0.0; M * N], vec![0.0; M * N]);
    let (mut x, mut out) = (q.clone(), vec![0.0; 2 * WIDTH]);
    let (a, none, raw) = (a.as_ptr(), null(), attention_options(0));
    // SAFETY: every pointer is live and of the stated size; shared objects are not changed.
    unsafe {
        ok(kvern_workspace_create(null(), 1 << 20, &mut ws));
        ok(kvern_packed_b_multiply(ctx, ws, o.packed, M, N, K, a, K, c.as_mut_ptr(), N, none));
        ok(kvern_weights_multiply(ctx, ws, o.weights, 0, M, N, K, a, K, w.as_mut_ptr(), N, none));
        ok(kvern_rope(ctx, o.table, 0, 3, 2, KV_HEADS, HEAD_DIM, x.as_mut_ptr(), WIDTH));
        ok(kvern_attention(ctx, ws, &raw, o.cache, 2, q.as_ptr(), WIDTH, out.as_mut_ptr(), WIDTH));
        kvern_workspace_destroy(ws);
    }
    [c, w, x, out].iter().flat_map(|x| bits(x)).collect()
}

/// Pointers that threads may share, as the header says.
struct Shared(Objects, *mut kvern_context);
// SAFETY: the objects are only read while they are shared.
unsafe impl Sync for Shared {}

fn with_threads(threads: u32) -> Shared {
    let (o, mut ctx, k) = (Objects::new(), null_mut(), Random::new(7).vec(6 * WIDTH));
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_context_create(&kvern_context_options { threads, ..context_options() }, &mut ctx));
        ok(kvern_kv_cache_append(o.cache, 6, k.as_ptr(), WIDTH, k.as_ptr(), WIDTH));
    }
    Shared(o, ctx)
}

#[test]
fn eight_threads_share_one_object_of_each_kind() {
    let shared = with_threads(3);
    let want: Vec<_> = (0..8).map(|seed| work(&shared.0, shared.0.ctx, seed)).collect();
    std::thread::scope(|s| {
        for (seed, want) in want.iter().enumerate() {
            let shared = &shared;
            s.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(&work(&shared.0, shared.1, seed as u64), want);
                }
            });
        }
    });
    // SAFETY: nothing uses it any more.
    unsafe { kvern_context_destroy(shared.1) };
}

/// A child process has none of the context's threads: it computes on its own one, with the same bits, and
/// ends without waiting for anybody.
#[cfg(unix)]
#[test]
fn a_forked_child_computes_on() {
    const S: usize = 320; // beyond what stays on the calling thread
    let shared = with_threads(3);
    let (a, mut c, mut bytes, mut ws) = (Random::new(5).vec(S * S), vec![0.0; S * S], 0, null_mut());
    let mut again = c.clone();
    let (ctx, a) = (shared.1, a.as_ptr());
    // SAFETY: every pointer is live and of the stated size; the child calls nothing but kvern, comparisons
    // and `_exit`.
    let status = unsafe {
        ok(kvern_matmul_workspace_bytes(ctx, S, S, S, &mut bytes));
        ok(kvern_workspace_create(null(), bytes, &mut ws));
        ok(kvern_matmul(ctx, ws, S, S, S, a, S, 0, a, S, 0, c.as_mut_ptr(), S, null()));
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            libc::alarm(60);
            let status = kvern_matmul(ctx, ws, S, S, S, a, S, 0, a, S, 0, again.as_mut_ptr(), S, null());
            let same = again.iter().zip(&c).all(|(x, y)| x.to_bits() == y.to_bits());
            kvern_context_destroy(ctx);
            libc::_exit(if status == 0 && same { 0 } else { 1 });
        }
        let mut status = -1;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        // The parent has its threads still.
        ok(kvern_matmul(ctx, ws, S, S, S, a, S, 0, a, S, 0, again.as_mut_ptr(), S, null()));
        kvern_workspace_destroy(ws);
        kvern_context_destroy(ctx);
        status
    };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "child ended with {status}");
    assert_eq!(bits(&again), bits(&c));
}
