//! Peers from the crate registry.

use super::Peer;

pub fn all(threads: usize) -> Vec<Box<dyn Peer>> {
    // matrixmultiply reads its thread count from the environment, once, on the first product.
    // SAFETY: called from `main` before any other thread exists.
    unsafe { std::env::set_var("MATMUL_NUM_THREADS", threads.to_string()) };
    vec![Box::new(MatrixMultiply), Box::new(Gemm { threads }), Box::new(Faer { threads })]
}

struct MatrixMultiply;

impl Peer for MatrixMultiply {
    fn name(&self) -> &str {
        "matrixmultiply"
    }

    fn sgemm(&self, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32]) {
        assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n);
        let (rsa, rsb) = (k as isize, n as isize);
        // SAFETY: the lengths were just checked; the strides are those of dense matrices.
        unsafe {
            matrixmultiply::sgemm(
                m,
                k,
                n,
                1.0,
                a.as_ptr(),
                rsa,
                1,
                b.as_ptr(),
                rsb,
                1,
                0.0,
                c.as_mut_ptr(),
                rsb,
                1,
            );
        }
    }
}

struct Gemm {
    threads: usize,
}

impl Peer for Gemm {
    fn name(&self) -> &str {
        "gemm"
    }

    fn sgemm(&self, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32]) {
        assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n);
        let parallelism =
            if self.threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(self.threads) };
        let (ka, nb) = (k as isize, n as isize);
        // SAFETY: the lengths were just checked; the strides are those of dense matrices.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                nb,
                false,
                a.as_ptr(),
                1,
                ka,
                b.as_ptr(),
                1,
                nb,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

struct Faer {
    threads: usize,
}

impl Peer for Faer {
    fn name(&self) -> &str {
        "faer"
    }

    fn sgemm(&self, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32]) {
        use faer::{Accum, MatMut, MatRef, Par};
        let par = if self.threads == 1 { Par::Seq } else { Par::rayon(self.threads) };
        faer::linalg::matmul::matmul(
            MatMut::from_row_major_slice_mut(c, m, n),
            Accum::Replace,
            MatRef::from_row_major_slice(a, m, k),
            MatRef::from_row_major_slice(b, k, n),
            1.0f32,
            par,
        );
    }
}
