//! Every dimension 0 through the C ABI: OK, everything written that there is to write, nothing else.

use crate::capi::*;
use kvern::Isa;
use kvern::capi::cache::*;
use kvern::capi::context::*;
use kvern::capi::dtype::*;
use kvern::capi::elementwise::*;
use kvern::capi::isa::*;
use kvern::capi::matmul::*;
use kvern::capi::norms::*;
use kvern::capi::ops::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::rope::*;
use kvern::capi::router::*;
use kvern::capi::tokens::*;
use kvern::capi::weights::*;
use kvern::capi::workspace::*;
use std::ptr::{null, null_mut};

const SIZES: [usize; 4] = [0, 1, 17, 70];
const SENTINEL: f32 = -3.5e20;

/// A context of each tier and of one thread and three, with a workspace that grows.
fn everywhere(test: impl Fn(*mut kvern_context, &dyn Fn(usize) -> *mut kvern_workspace)) {
    for isa in Isa::ALL {
        if !isa.is_available() {
            eprintln!("skipped: this machine has no {isa}");
            continue;
        }
        for threads in [1, 3] {
            let isa_cap = isa as kvern_isa;
            let (mut ctx, mut ws) = (null_mut(), null_mut());
            let options = kvern_context_options { threads, isa_cap, ..context_options() };
            // SAFETY: every pointer is live.
            unsafe {
                ok(kvern_context_create(&options, &mut ctx));
                ok(kvern_workspace_create(std::ptr::null(), 0, &mut ws));
                test(ctx, &|bytes| {
                    ok(kvern_workspace_reserve(ws, bytes));
                    ws
                });
                kvern_workspace_destroy(ws);
                kvern_context_destroy(ctx);
            }
        }
    }
}

/// `c` of (m, n) in rows of n + 2, before and after `run`.
#[track_caller]
fn output(
    (m, n): (usize, usize),
    k: usize,
    want: impl Fn(usize) -> f32,
    run: impl FnOnce(*mut f32, usize) -> i32,
) {
    let stride = n + 2;
    let mut c = vec![SENTINEL; m * stride + 1];
    ok(run(c.as_mut_ptr(), stride));
    for (i, &x) in c.iter().enumerate() {
        let (row, j) = (i / stride, i % stride);
        if row == m || j >= n {
            assert_eq!(x, SENTINEL, "{m} x {n} x {k}: beyond row {row}");
        } else if k == 0 {
            assert_eq!(x, want(j), "{m} x {n} x {k}: element {i}");
        } else {
            assert!(x.is_finite() && x != SENTINEL, "{m} x {n} x {k}: element {i}: {x}");
        }
    }
}

#[test]
fn products() {
    let data = vec![0.5f32; 70 * 256 + 1];
    let bias: Vec<f32> = (0..70).map(|j| j as f32 - 3.0).collect();
    let a = data.as_ptr();
    let e = kvern_epilogue { bias: bias.as_ptr(), activation: KVERN_ACTIVATION_RELU, ..epilogue() };
    everywhere(|ctx, ws| {
        for (m, n) in SIZES.iter().flat_map(|&m| SIZES.map(|n| (m, n))) {
            let want = |j: usize| bias[j].max(0.0);
            for k in SIZES {
                let (mut bytes, mut packed) = (0, null_mut());
                // SAFETY: every pointer is live and of the stated size.
                unsafe {
                    ok(kvern_matmul_workspace_bytes(ctx, m, n, k, &mut bytes));
                    for [ta, tb] in [[0, 0], [0, 1], [1, 0], [1, 1]] {
                        let (sa, sb) = (if ta == 0 { k } else { m }, if tb == 0 { n } else { k });
                        output((m, n), k, want, |c, s| {
                            kvern_matmul(ctx, ws(bytes), m, n, k, a, sa, ta, a, sb, tb, c, s, &e)
                        });
                    }
                    ok(kvern_packed_b_pack(ctx, k, n, a, n, 0, &mut packed));
                    ok(kvern_packed_b_workspace_bytes(ctx, packed, m, &mut bytes));
                    output((m, n), k, want, |c, s| {
                        kvern_packed_b_multiply(ctx, ws(bytes), packed, m, n, k, a, k, c, s, &e)
                    });
                    output(
                        (m, n),
                        k,
                        |_| 0.0,
                        |c, s| {
                            let (exact, f32s) = (KVERN_PRECISION_EXACT, KVERN_DTYPE_F32);
                            let none = &epilogue();
                            kvern_packed_b_multiply_gated(
                                ctx,
                                ws(bytes),
                                packed,
                                packed,
                                exact,
                                m,
                                n,
                                k,
                                a,
                                k,
                                f32s,
                                c.cast(),
                                s,
                                none,
                            )
                        },
                    );
                    kvern_packed_b_destroy(packed);
                }
            }
            for (format, k) in [
                (KVERN_WEIGHT_FORMAT_Q8_0, 0),
                (KVERN_WEIGHT_FORMAT_Q8_0, 64),
                (KVERN_WEIGHT_FORMAT_Q4_0, 0),
                (KVERN_WEIGHT_FORMAT_Q4_K, 0),
                (KVERN_WEIGHT_FORMAT_Q6_K, 256),
                (KVERN_WEIGHT_FORMAT_Q2_K, 0),
                (KVERN_WEIGHT_FORMAT_MXFP4, 0),
                (KVERN_WEIGHT_FORMAT_F32, 0),
                (KVERN_WEIGHT_FORMAT_BF16, 0),
                (KVERN_WEIGHT_FORMAT_F16, 17),
            ] {
                let (mut w, mut bytes) = (null_mut(), 0);
                // SAFETY: every pointer is live and of the stated size.
                unsafe {
                    ok(kvern_weights_quantize(std::ptr::null(), format, n, k, a, k, &mut w));
                    for compute in [KVERN_COMPUTE_INT8, KVERN_COMPUTE_F32] {
                        ok(kvern_weights_workspace_bytes(ctx, w, compute, m, &mut bytes));
                        output((m, n), k, want, |c, s| {
                            kvern_weights_multiply(ctx, ws(bytes), w, compute, m, n, k, a, k, c, s, &e)
                        });
                        output(
                            (m, n),
                            k,
                            |_| 0.0,
                            |c, s| {
                                let none = &epilogue();
                                kvern_weights_multiply_gated(
                                    ctx,
                                    ws(bytes),
                                    w,
                                    w,
                                    compute,
                                    m,
                                    n,
                                    k,
                                    a,
                                    k,
                                    c,
                                    s,
                                    none,
                                )
                            },
                        );
                    }
                    if n > 0 {
                        let mut row = vec![SENTINEL; k + 1];
                        ok(kvern_weights_dequantize_row(w, n - 1, k, row.as_mut_ptr()));
                        assert!(row[..k].iter().all(|x| *x != SENTINEL) && row[k] == SENTINEL);
                    }
                    ok(kvern_blocks_bytes(format, n, k, &mut bytes));
                    let mut blocks = vec![7u8; bytes + 1];
                    ok(kvern_weights_to_blocks(w, blocks.as_mut_ptr(), bytes));
                    assert_eq!(blocks[bytes], 7);
                    kvern_weights_destroy(w);
                }
            }
        }
    });
}

#[test]
fn row_operations() {
    let data: Vec<f32> = (0..70 * 70).map(|i| 1.0 + (i % 5) as f32).collect();
    let (x, ids, starts) = (data.as_ptr(), vec![0u32; 70], (0..=70).collect::<Vec<usize>>());
    everywhere(|ctx, _| {
        for (m, n) in SIZES.iter().flat_map(|&m| SIZES.map(|n| (m, n))) {
            // A k of 1: any finite value.
            let check = |run: &dyn Fn(*mut f32, usize) -> i32| output((m, n), 1, |_| 0.0, run);
            // SAFETY: every pointer is live and of the stated size.
            unsafe {
                check(&|y, s| kvern_layer_norm(ctx, m, n, x, n, x, x, 1e-5, y, s));
                check(&|y, s| kvern_rms_norm(ctx, m, n, x, n, x, 0.0, y, s));
                check(&|y, s| kvern_softmax_with(ctx, &softmax_options(), m, n, x, n, y, s));
                let norm = kvern_norm_options { gain: x, ..norm_options(KVERN_NORM_LAYER, 1e-5) };
                check(&|y, s| kvern_norm(ctx, &norm, m, n, x, n, y, s));
                check(&|y, s| kvern_mean_pool(ctx, m, starts.as_ptr(), 70, n, x, n, null(), y, s));
                let mut state = data.clone();
                let state = state.as_mut_ptr();
                check(&|y, s| kvern_causal_conv(ctx, 3, n, x, n, x, 0, state, m, x, n, y, s));
                check(&|y, s| kvern_embedding(ctx, 1, n, x, n, m, ids.as_ptr(), y, s));
                let mut y = data.clone();
                let p = y.as_mut_ptr();
                ok(kvern_softmax(ctx, m, n, p, n));
                ok(kvern_activate(ctx, KVERN_ACTIVATION_SILU, m, n, p, n));
                ok(kvern_silu_mul(ctx, m, n, p, n, x, n));
                ok(kvern_add(ctx, m, n, p, n, x, n));
                ok(kvern_activate_mul(ctx, KVERN_ACTIVATION_GELU_ERF, m, n, p, n, x, n));
                ok(kvern_swiglu_oai(ctx, 1.702, 7.0, m, n, p, n, x, n));
                ok(kvern_mul(ctx, m, n, p, n, x, n));
                ok(kvern_add_scaled(ctx, 0.5, m, n, p, n, x, n));
                ok(kvern_scale(ctx, 0.5, m, n, p, n));
                ok(kvern_softcap(ctx, 30.0, m, n, p, n));
                ok(kvern_cumulative_sum(ctx, KVERN_ALONG_ROW, m, n, p, n));
                let (mut best, mut places) = (vec![0.0; m], vec![0; m]);
                let (k, best, places) = (n.min(1), best.as_mut_ptr(), places.as_mut_ptr());
                ok(kvern_top_k(ctx, m, n, k, x, n, places, best));
                if n > 0 {
                    let options = router_options(1, KVERN_ROUTER_SIGMOID);
                    ok(kvern_route(ctx, &options, m, n, p, places, best));
                }
            }
        }
        let mut table = null_mut();
        let mut x = data.clone();
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            ok(kvern_rope_table_create(8, 100, 1e4, &mut table));
            for (tokens, heads) in SIZES.iter().flat_map(|&m| [0, 1, 7].map(|n| (m, n))) {
                ok(kvern_rope(ctx, table, KVERN_ROPE_HALVES, 5, tokens, heads, 8, x.as_mut_ptr(), heads * 8));
            }
            kvern_rope_table_destroy(table);
            let mut cache = null_mut();
            ok(kvern_kv_cache_create(std::ptr::null(), &cache_options(8, 0), &mut cache));
            ok(kvern_kv_cache_append(cache, 0, x.as_ptr(), WIDTH, x.as_ptr(), WIDTH));
            kvern_kv_cache_destroy(cache);
        }
    });
}
