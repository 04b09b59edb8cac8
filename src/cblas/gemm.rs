//! Matrix products.

use super::arguments::{Checked, Trans, extent, legal};
use super::engine::with_scratch;
use crate::{MatMut, MatRef};
use std::ffi::c_int;

/// A call of `sgemm`, column-major: argument i of the Fortran interface is the i-th field, from 1.
#[derive(Clone, Copy)]
pub(super) struct Gemm {
    pub trans_a: Trans,
    pub trans_b: Trans,
    pub m: c_int,
    pub n: c_int,
    pub k: c_int,
    pub alpha: f32,
    pub a: *const f32, // op(A): (m, k), columns lda apart
    pub lda: c_int,
    pub b: *const f32, // op(B): (k, n), columns ldb apart
    pub ldb: c_int,
    pub beta: f32,
    pub c: *mut f32, // (m, n), columns ldc apart
    pub ldc: c_int,
}

impl Gemm {
    /// The transposed product, `C^T = op(B)^T op(A)^T`: what the same memory means in the other layout.
    pub fn swapped(self) -> Gemm {
        Gemm {
            trans_a: self.trans_b,
            trans_b: self.trans_a,
            m: self.n,
            n: self.m,
            a: self.b,
            lda: self.ldb,
            b: self.a,
            ldb: self.lda,
            ..self
        }
    }

    /// Checks in the order of the reference, whose first finding is the one that it reports.
    fn validate(&self) -> Checked<()> {
        legal(3, self.m >= 0)?;
        legal(4, self.n >= 0)?;
        legal(5, self.k >= 0)?;
        let stored_rows = |trans: Trans, rows, cols| if trans.is_transposed() { cols } else { rows };
        legal(8, self.lda >= stored_rows(self.trans_a, self.m, self.k).max(1))?;
        legal(10, self.ldb >= stored_rows(self.trans_b, self.k, self.n).max(1))?;
        legal(13, self.ldc >= self.m.max(1))
    }

    /// Computes the product; an error has changed nothing.
    ///
    /// # Safety
    /// - A, B and C have the shapes above; C is writable and shares no element with A or B.
    pub unsafe fn run(self) -> Checked<()> {
        self.validate()?;
        let Gemm { alpha, beta, .. } = self;
        let (m, n, k) = (self.m as usize, self.n as usize, self.k as usize);
        let no_product = alpha == 0.0 || k == 0;
        if m == 0 || n == 0 || (no_product && beta == 1.0) {
            return Ok(());
        }
        // Columns of C are rows of C^T = op(B)^T op(A)^T, which is what kvern computes: (n, k) x (k, m).
        let (k, alpha) = if no_product { (0, 0.0) } else { (k, alpha) };
        // SAFETY: handed on to the caller.
        let (a, b) = unsafe {
            (
                operand((self.a, 7), (k, m), (self.lda, 8), self.trans_a)?,
                operand((self.b, 9), (n, k), (self.ldb, 10), self.trans_b)?,
            )
        };
        let ldc = self.ldc as usize;
        extent((self.c.cast_const(), 12), (n, m), (ldc, 13))?;
        // SAFETY: the extent fits the address space, and C is the caller's to write.
        let c = unsafe { MatMut::from_raw(self.c, n, m, ldc) };
        with_scratch(|scratch| scratch.multiply(b, a, c, (alpha, beta)))
    }
}

/// A matrix in row-major terms: (rows, cols), or stored (cols, rows) and seen transposed.
///
/// # Safety
/// - the elements of the matrix are readable and do not change for `'a`.
pub(super) unsafe fn operand<'a>(
    (ptr, array): (*const f32, c_int),
    (rows, cols): (usize, usize),
    (ld, leading): (c_int, c_int),
    trans: Trans,
) -> Checked<MatRef<'a>> {
    let (rows, cols) = if trans.is_transposed() { (cols, rows) } else { (rows, cols) };
    let len = extent((ptr, array), (rows, cols), (ld as usize, leading))?;
    // SAFETY: `extent` saw a pointer that is aligned, not NULL, and a length that fits. Gaps between rows,
    // which may be another matrix, are part of the slice, but nothing reads them.
    let data = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(ptr, len) } };
    let view = MatRef::new(data, rows, cols, ld as usize).map_err(super::arguments::Refusal::Failure)?;
    Ok(if trans.is_transposed() { view.t() } else { view })
}
