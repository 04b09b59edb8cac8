//! Every call computes in the default floating-point mode, on every thread, and leaves the caller's mode as
//! it was.

use crate::mode;
use crate::support::{Random, context};
use crate::workload::{dense, everything, out, words};
use kvern::matmul::matmul_workspace_bytes;
use kvern::ops::rms_norm;
use kvern::*;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Runs `f` in a mode, which has to be the mode afterwards, too. `f` calls kvern and computes nothing itself.
#[inline(never)]
fn within<R>(mode: u64, mut f: impl FnMut() -> R) -> R {
    mode::set(mode);
    let result = black_box(&mut f)();
    let after = mode::get();
    mode::set(mode::DEFAULT);
    assert_eq!(after & mode::MODE, mode & mode::MODE, "the caller's mode was changed");
    result
}

/// The tiers, and for the best one three workers, made in the default mode and made in another one.
fn contexts() -> Vec<(String, Context)> {
    let mut all = Vec::new();
    for isa in Isa::ALL {
        if isa.is_available() {
            all.push((format!("{isa}"), context(isa, 1)));
        } else {
            eprintln!("skipped: this machine has no {isa}");
        }
    }
    let best = Isa::detect();
    all.push((format!("{best}, 3 workers"), context(best, 3)));
    let leaked = mode::OTHERS[2];
    all.push((format!("{best}, 3 workers made in {leaked:#x}"), within(leaked, || context(best, 3))));
    all
}

/// Outputs are compared in the default mode, calls are made in the others: each case meets another mode on
/// each context, and the modes take turns, so that all of them meet all kinds of cases.
#[test]
fn no_mode_of_the_caller_changes_a_bit() {
    let (list, contexts) = (everything(), contexts());
    let serial = context(Isa::Scalar, 1);
    for (i, (what, run)) in list.iter().enumerate() {
        let mut want = run(&serial);
        for (j, (which, ctx)) in contexts.iter().enumerate() {
            if what.contains("cache of") || what.starts_with("packed") {
                want = run(ctx); // `Fast` may depend on the tier
            }
            let mode = mode::OTHERS[(i + 3 * j) % mode::OTHERS.len()];
            assert!(within(mode, || run(ctx)) == want, "{what} on {which} in mode {mode:#x}");
        }
    }
}

/// The example: FTZ and DAZ set when the threads are there already, equal calls, products around 1e-40.
#[test]
fn equal_calls_give_equal_bits_in_any_mode() {
    let (m, n, k) = (64, 512, 256);
    let mut random = Random::new(3);
    let small = |x: Vec<f32>| x.iter().map(|x| x * 1e-20).collect::<Vec<f32>>();
    let (a, b) = (small(random.vec(m * k)), small(random.vec(k * n)));
    let ctx = context(Isa::detect(), 2);
    let mut ws = Workspace::new(matmul_workspace_bytes(&ctx, m, n, k).unwrap()).unwrap();
    let mut c = vec![0.0; m * n];
    let mut multiply = || {
        c.fill(f32::from_bits(0x7fc0_1234));
        let (a, b, c) = (dense(&a, m), dense(&b, k), out(&mut c, m));
        matmul::matmul(&ctx, &mut ws, a, b, c, &Epilogue::default()).unwrap();
    };
    multiply();
    let mut again = || {
        multiply();
    };
    for &mode in &mode::OTHERS {
        for _ in 0..20 {
            within(mode, &mut again);
        }
    }
    // One FMA chain an element, from its definition.
    for (i, j) in [(0, 0), (17, 300), (63, 511)] {
        let chain = (0..k).fold(0.0f32, |acc, l| libm::fmaf(a[i * k + l], b[l * n + j], acc));
        assert_eq!(c[i * n + j].to_bits(), chain.to_bits());
        assert!(chain != 0.0);
    }
}

/// The directions as C programs set them, which changes the x87 mode of x86-64, too: kvern uses none of it.
#[cfg(target_os = "linux")]
#[test]
fn a_direction_set_by_the_c_library_is_still_set() {
    unsafe extern "C" {
        fn fesetround(direction: i32) -> i32;
        fn fegetround() -> i32;
    }
    let directions =
        if cfg!(target_arch = "x86_64") { [0x400, 0x800, 0xc00] } else { [0x80_0000, 0x40_0000, 0xc0_0000] };
    let x: Vec<f32> = Random::new(9).vec(80 * 1024);
    let run = |ctx: &Context, y: &mut [f32]| {
        y.fill(f32::from_bits(0x7fc0_5eed));
        rms_norm(ctx, dense(&x, 80), &x[..1024], 1e-6, out(y, 80)).unwrap();
        words(y)
    };
    let mut y = vec![0.0; 80 * 1024];
    let want = run(&context(Isa::Scalar, 1), &mut y);
    // On one thread, too: of two the one that is not the caller may do all the work.
    for threads in [1, 2] {
        let ctx = context(Isa::detect(), threads);
        for direction in directions {
            // SAFETY: plain functions of the C library; nothing is computed here while another direction is
            // set.
            let (set, got, after, back) =
                unsafe { (fesetround(direction), run(&ctx, &mut y), fegetround(), fesetround(0)) };
            assert_eq!((set, after, back), (0, direction, 0));
            assert!(got == want, "direction {direction:#x}, {threads} threads");
        }
    }
}

#[test]
fn bodies_run_in_the_default_mode_and_panics_leave_the_callers() {
    let caller = Arc::new(Scoped);
    for ctx in [
        context(Isa::detect(), 1),
        context(Isa::detect(), 3),
        Context::new(&ContextOptions::default().parallelism(Parallelism::Caller(caller))).unwrap(),
    ] {
        for &mode in &mode::OTHERS {
            within(mode, || {
                let seen = || assert_eq!(mode::get() & mode::MODE, mode::DEFAULT & mode::MODE);
                ctx.parallel_for(50, &|_, _| seen());
                for item in [0, 3, 49] {
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        ctx.parallel_for(50, &|_, i| {
                            seen();
                            if i == item {
                                std::panic::resume_unwind(Box::new("this item"));
                            }
                        });
                    }));
                    assert!(result.is_err());
                    assert_eq!(mode::get() & mode::MODE, mode & mode::MODE);
                }
                // A body that leaves another mode behind harms no later region.
                ctx.parallel_for(50, &|_, _| mode::set(mode));
                ctx.parallel_for(1, &|_, _| seen());
            });
        }
    }
}

/// A caller's pool, which leaves the calling thread in another mode.
struct Scoped;

impl ParallelFor for Scoped {
    fn workers(&self) -> usize {
        3
    }

    fn run(&self, workers: usize, body: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|s| {
            (1..workers).for_each(|worker| {
                s.spawn(move || {
                    mode::set(mode::OTHERS[0]);
                    body(worker);
                    assert_eq!(mode::get() & mode::MODE, mode::OTHERS[0] & mode::MODE);
                });
            });
        });
        mode::set(mode::OTHERS[1]);
    }
}
