//! Overhead of a call through the C ABI over the Rust method, at the smallest product of a network, 1 x 16 x
//! 16, and with packed weights: the minimum of many short runs, Rust and C in turn, so that both see the same
//! machine.
//!
//! `cargo bench --bench capi`

use kvern::capi::context::*;
use kvern::capi::matmul::*;
use kvern::capi::packed_b::*;
use kvern::capi::workspace::*;
use kvern::{Context, Epilogue, MatMut, MatRef, PackedB, Workspace, matmul};
use std::hint::black_box;
use std::ptr::{null, null_mut};
use std::time::Instant;

const N: usize = 16;
/// Calls of one run: a microsecond of timer for 100 of work.
const CALLS: usize = 1000;
const RUNS: usize = 2000;

/// Nanoseconds for one call, in one run.
fn run(call: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

/// The least of many runs of each, in turn.
fn best(what: &str, rust: &mut dyn FnMut(), c: &mut dyn FnMut()) {
    let mut least = [f64::INFINITY; 2];
    for _ in 0..RUNS {
        least = [least[0].min(run(rust)), least[1].min(run(c))];
    }
    let [rust, c] = least;
    println!("{what}: Rust {rust:.1} ns, C {c:.1} ns, over it {:.1} ns", c - rust);
}

fn main() {
    let (a, b) = ([0.5f32; N], [0.25f32; N * N]);
    let (mut rust_out, mut c_out) = ([0.0f32; N], [0.0f32; N]);
    let ctx = Context::serial();
    let mut ws = Workspace::new(1 << 20).unwrap();
    let packed = PackedB::pack(&ctx, MatRef::dense(&b, N, N).unwrap()).unwrap();
    let (mut c_ctx, mut c_ws, mut c_packed) = (null_mut(), null_mut(), null_mut());
    // SAFETY: all pointers point to live locals.
    unsafe {
        assert_eq!(kvern_context_create(null(), &mut c_ctx), 0);
        assert_eq!(kvern_workspace_create(null(), 1 << 20, &mut c_ws), 0);
        assert_eq!(kvern_packed_b_pack(c_ctx, N, N, b.as_ptr(), N, 0, &mut c_packed), 0);
    }
    let (run_c, multiply_c) =
        (black_box(kvern_matmul as MatmulRun), black_box(kvern_packed_b_multiply as Multiply));
    let mut rust_ws = Workspace::new(1 << 20).unwrap();
    best(
        "1 x 16 x 16",
        &mut || {
            let (a, b) = (MatRef::dense(black_box(&a), 1, N).unwrap(), MatRef::dense(&b, N, N).unwrap());
            let c = MatMut::dense(&mut rust_out, 1, N).unwrap();
            matmul::matmul(&ctx, &mut ws, a, b, c, &Epilogue::default()).unwrap();
        },
        // SAFETY: live arrays of the stated shapes.
        &mut || unsafe {
            let (a, b, c) = (black_box(a.as_ptr()), b.as_ptr(), c_out.as_mut_ptr());
            assert_eq!(run_c(c_ctx, c_ws, 1, N, N, a, N, 0, b, N, 0, c, N, null()), 0);
        },
    );
    best(
        "1 x 16 x 16, packed",
        &mut || {
            let a = MatRef::dense(black_box(&a), 1, N).unwrap();
            let c = MatMut::dense(&mut rust_out, 1, N).unwrap();
            packed.multiply(&ctx, &mut rust_ws, a, c, &Epilogue::default()).unwrap();
        },
        // SAFETY: live arrays of the stated shapes.
        &mut || unsafe {
            let (a, c) = (black_box(a.as_ptr()), c_out.as_mut_ptr());
            assert_eq!(multiply_c(c_ctx, c_ws, c_packed, 1, N, N, a, N, c, N, null()), 0);
        },
    );
    assert_eq!(rust_out, c_out);
    // SAFETY: made above, used by nobody any more.
    unsafe {
        kvern_packed_b_destroy(c_packed);
        kvern_workspace_destroy(c_ws);
        kvern_context_destroy(c_ctx);
    }
}

type MatmulRun = unsafe extern "C" fn(
    *const kvern_context,
    *mut kvern_workspace,
    usize,
    usize,
    usize,
    *const f32,
    usize,
    i32,
    *const f32,
    usize,
    i32,
    *mut f32,
    usize,
    *const kvern_epilogue,
) -> i32;

type Multiply = unsafe extern "C" fn(
    *const kvern_context,
    *mut kvern_workspace,
    *const kvern_packed_b,
    usize,
    usize,
    usize,
    *const f32,
    usize,
    *mut f32,
    usize,
    *const kvern_epilogue,
) -> i32;
