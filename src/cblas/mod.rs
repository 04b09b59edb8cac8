//! Drop-in BLAS, with the feature `cblas`: `cblas_sgemm`, `cblas_sgemv`, `sgemm_` and `sgemv_` with the
//! semantics of the reference implementation, so that a program that links or preloads BLAS runs on kvern.
//!
//! ```text
//! cblas_sgemm (either layout) -+-> arguments (numbers of the reference) -> gemm -> engine -> matmul
//! sgemm_ (columns, pointers) --+
//! ```
//! **Semantics**: with `beta = 0`, C and y are not read; with `alpha = 0`, A, B and x are not; an empty
//! output (and for a matrix times a vector an empty input, too) is left alone. A conjugate transpose of f32
//! is a transpose. Integers are 32 bits wide (LP64), lengths of Fortran strings are not looked at.
//!
//! **Numerics**: each element of the product is one chain of fused multiply-adds over k ascending, then
//! `fma(beta, c, alpha * ab)`: the bits of [`matmul`](crate::matmul::matmul), for any number of threads.
//!
//! **Errors**: an illegal argument writes `xerbla`'s sentence with the number of the argument to stderr and
//! changes nothing; it does not end the program. NULL or misaligned arrays, where the reference would crash,
//! are illegal arguments. No call panics or unwinds.
//!
//! **Threads**: one context for the process, made by the first call: `KVERN_NUM_THREADS`, else
//! `OMP_NUM_THREADS`, else 1 thread. Scratch memory belongs to the calling thread and grows to the largest
//! call. A forked child computes on the calling thread alone, for its parent's threads are not there.
#![allow(clippy::too_many_arguments, reason = "the interface is older than we are")]
#![allow(clippy::missing_safety_doc, reason = "the contract of every function is that of BLAS")]

mod arguments;
mod engine;
mod gemm;
mod gemv;

use arguments::{Caller, Layout, Trans};
use gemm::Gemm;
use gemv::Gemv;
use std::ffi::{c_char, c_int};

/// `C = alpha * op(A) * op(B) + beta * C`: op(A) is (m, k), op(B) is (k, n), C is (m, n).
///
/// **Units**: leading dimensions in elements. **Errors**: numbered as by the reference, on stderr.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cblas_sgemm(
    layout: c_int,
    trans_a: c_int,
    trans_b: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: f32,
    a: *const f32,
    lda: c_int,
    b: *const f32,
    ldb: c_int,
    beta: f32,
    c: *mut f32,
    ldc: c_int,
) {
    let caller = Caller::c("cblas_sgemm");
    arguments::frame(caller, || {
        let row_major = Layout::from_c(layout, 1)?.is_row_major();
        let (trans_a, trans_b) = (Trans::from_c(trans_a, 2)?, Trans::from_c(trans_b, 3)?);
        let call = Gemm { trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc };
        // SAFETY: the arrays have the shapes that the arguments say, by the contract of BLAS.
        unsafe {
            if row_major {
                // Rows of C are columns of C^T = op(B)^T op(A)^T.
                call.swapped().run().map_err(|at| at.renumbered(&[(3, 4), (7, 9), (8, 10)]).in_c())
            } else {
                call.run().map_err(|at| at.in_c())
            }
        }
    });
}

/// `y = alpha * op(A) * x + beta * y`, A being (m, n) before op.
///
/// **Units**: leading dimension and increments in elements; a negative increment walks from the end of the
/// array. **Errors**: numbered as by the reference, on stderr.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cblas_sgemv(
    layout: c_int,
    trans: c_int,
    m: c_int,
    n: c_int,
    alpha: f32,
    a: *const f32,
    lda: c_int,
    x: *const f32,
    incx: c_int,
    beta: f32,
    y: *mut f32,
    incy: c_int,
) {
    arguments::frame(Caller::c("cblas_sgemv"), || {
        let row_major = Layout::from_c(layout, 1)?.is_row_major();
        let trans = Trans::from_c(trans, 2)?;
        let call = Gemv { trans, m, n, alpha, a, lda, x, incx, beta, y, incy };
        // SAFETY: the arrays have the shapes that the arguments say, by the contract of BLAS.
        unsafe {
            if row_major {
                call.swapped().run().map_err(|at| at.renumbered(&[(2, 3)]).in_c())
            } else {
                call.run().map_err(|at| at.in_c())
            }
        }
    });
}

/// `C = alpha * op(A) * op(B) + beta * C` as Fortran calls it: column-major, all by reference.
///
/// **Errors**: numbered as by the reference, on stderr.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sgemm_(
    trans_a: *const c_char,
    trans_b: *const c_char,
    m: *const c_int,
    n: *const c_int,
    k: *const c_int,
    alpha: *const f32,
    a: *const f32,
    lda: *const c_int,
    b: *const f32,
    ldb: *const c_int,
    beta: *const f32,
    c: *mut f32,
    ldc: *const c_int,
) {
    arguments::frame(Caller::fortran("SGEMM "), || {
        // SAFETY: scalars are passed by reference, and arrays have the shapes that they say.
        unsafe {
            let (trans_a, trans_b) = (Trans::from_fortran(trans_a, 1)?, Trans::from_fortran(trans_b, 2)?);
            let (m, n, k) = (arguments::scalar(m, 3)?, arguments::scalar(n, 4)?, arguments::scalar(k, 5)?);
            let (alpha, beta) = (arguments::scalar(alpha, 6)?, arguments::scalar(beta, 11)?);
            let (lda, ldb) = (arguments::scalar(lda, 8)?, arguments::scalar(ldb, 10)?);
            let ldc = arguments::scalar(ldc, 13)?;
            Gemm { trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc }.run()
        }
    });
}

/// `y = alpha * op(A) * x + beta * y` as Fortran calls it: column-major, all by reference.
///
/// **Errors**: numbered as by the reference, on stderr.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sgemv_(
    trans: *const c_char,
    m: *const c_int,
    n: *const c_int,
    alpha: *const f32,
    a: *const f32,
    lda: *const c_int,
    x: *const f32,
    incx: *const c_int,
    beta: *const f32,
    y: *mut f32,
    incy: *const c_int,
) {
    arguments::frame(Caller::fortran("SGEMV "), || {
        // SAFETY: scalars are passed by reference, and arrays have the shapes that they say.
        unsafe {
            let trans = Trans::from_fortran(trans, 1)?;
            let (m, n) = (arguments::scalar(m, 2)?, arguments::scalar(n, 3)?);
            let (alpha, beta) = (arguments::scalar(alpha, 4)?, arguments::scalar(beta, 9)?);
            let (lda, incx) = (arguments::scalar(lda, 6)?, arguments::scalar(incx, 8)?);
            let incy = arguments::scalar(incy, 11)?;
            Gemv { trans, m, n, alpha, a, lda, x, incx, beta, y, incy }.run()
        }
    });
}
