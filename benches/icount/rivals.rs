//! Baselines of the products: three plain loops, and the crate `matrixmultiply`.

use crate::inputs::Mat;
use iai_callgrind::{library_benchmark, library_benchmark_group};
use std::hint::black_box;

/// Operands of one square product of a rival.
pub struct Square {
    n: usize,
    a: Mat,
    b: Mat,
    c: Mat,
}

fn square(n: usize) -> Square {
    Square { n, a: Mat::new(n, n, 1), b: Mat::new(n, n, 2), c: Mat::new(n, n, 3) }
}

/// `matrixmultiply` looks at the CPU on its first call: that call is made here.
fn warm_square(n: usize) -> Square {
    sgemm(square(n))
}

#[inline(never)]
fn naive(n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    for i in 0..n {
        for j in 0..n {
            c[i * n + j] = (0..n).map(|p| a[i * n + p] * b[p * n + j]).sum();
        }
    }
}

fn sgemm(mut s: Square) -> Square {
    let (n, stride) = (s.n, s.n as isize);
    let (a, b, c) = (s.a.as_slice().as_ptr(), s.b.as_slice().as_ptr(), s.c.as_mut_slice().as_mut_ptr());
    // SAFETY: three matrices of n x n elements with rows of n; the output overlaps nothing.
    unsafe { ::matrixmultiply::sgemm(n, n, n, 1.0, a, stride, 1, b, stride, 1, 0.0, c, stride, 1) };
    s
}

#[library_benchmark(setup = square)]
#[bench::any_64(64)]
#[bench::any_128(128)]
fn naive_loop(mut s: Square) -> Square {
    naive(s.n, s.a.as_slice(), s.b.as_slice(), s.c.as_mut_slice());
    s
}

#[library_benchmark(setup = warm_square)]
#[bench::avx2_64(64)]
#[bench::avx2_128(128)]
fn matrixmultiply_sgemm(s: Square) -> Square {
    black_box(sgemm(s))
}

library_benchmark_group!(name = rivals_group; benchmarks = naive_loop, matrixmultiply_sgemm);
