//! Products of a matrix and a vector.

use super::arguments::{Checked, Refusal, Trans, extent, legal};
use super::engine::{with_scratch, zeroed};
use super::gemm::operand;
use crate::{MatMut, MatRef};
use std::ffi::c_int;

/// A call of `sgemv`, column-major: argument i of the Fortran interface is the i-th field, from 1.
#[derive(Clone, Copy)]
pub(super) struct Gemv {
    pub trans: Trans,
    pub m: c_int,
    pub n: c_int,
    pub alpha: f32,
    pub a: *const f32, // (m, n), columns lda apart
    pub lda: c_int,
    pub x: *const f32, // n elements, m when transposed
    pub incx: c_int,
    pub beta: f32,
    pub y: *mut f32, // m elements, n when transposed
    pub incy: c_int,
}

/// Where the elements of a vector lie.
#[derive(Clone, Copy)]
struct Steps {
    len: usize,
    by: isize,
}

impl Steps {
    /// The offset of element i: a vector with a negative increment starts at the end of its array.
    fn at(self, i: usize) -> isize {
        let i = if self.by < 0 { i as isize - (self.len as isize - 1) } else { i as isize };
        i * self.by
    }
}

/// The `len` elements of argument `array`, `by` apart, fit the address space.
fn steps((ptr, array): (*const f32, c_int), len: usize, (by, number): (c_int, c_int)) -> Checked<Steps> {
    extent((ptr, array), (len, 1), (by.unsigned_abs() as usize, number))?;
    Ok(Steps { len, by: by as isize })
}

impl Gemv {
    /// The same memory in the other layout: the transposed matrix.
    pub fn swapped(self) -> Gemv {
        Gemv { trans: self.trans.other(), m: self.n, n: self.m, ..self }
    }

    /// Checks in the order of the reference, whose first finding is the one that it reports.
    fn validate(&self) -> Checked<()> {
        legal(2, self.m >= 0)?;
        legal(3, self.n >= 0)?;
        legal(6, self.lda >= self.m.max(1))?;
        legal(8, self.incx != 0)?;
        legal(11, self.incy != 0)
    }

    /// Computes the product; an error has changed nothing.
    ///
    /// # Safety
    /// - A, x and y have the shapes above; y is writable and shares no element with A or x.
    pub unsafe fn run(self) -> Checked<()> {
        self.validate()?;
        let Gemv { alpha, beta, .. } = self;
        let (m, n) = (self.m as usize, self.n as usize);
        if m == 0 || n == 0 || (alpha == 0.0 && beta == 1.0) {
            return Ok(());
        }
        let (rows, cols) = if self.trans.is_transposed() { (n, m) } else { (m, n) };
        let read = if alpha == 0.0 { 0 } else { cols };
        let y_steps = steps((self.y.cast_const(), 10), rows, (self.incy, 11))?;
        let x_steps = steps((self.x, 7), read, (self.incx, 8))?;
        // y^T = x^T op(A)^T: a product of one row, (1, read) x (read, rows). Columns of A are rows of A^T.
        // SAFETY: handed on to the caller.
        let a = unsafe { operand((self.a, 5), (read, rows), (self.lda, 6), self.trans)? };
        with_scratch(|scratch| {
            let mut x_buffer = std::mem::take(&mut scratch.x);
            let mut y_buffer = std::mem::take(&mut scratch.y);
            // SAFETY: the steps were checked against the address space; the rest is the caller's promise.
            let result = unsafe {
                let x = gathered(self.x, x_steps, &mut x_buffer);
                x.and_then(|x| {
                    let x = MatRef::dense(x, 1, read).map_err(Refusal::Failure)?;
                    if y_steps.by == 1 {
                        let y = MatMut::from_raw(self.y, 1, rows, rows);
                        return scratch.multiply(x, a, y, (alpha, beta));
                    }
                    let y = zeroed(&mut y_buffer, rows)?;
                    if beta != 0.0 {
                        gather(self.y, y_steps, y);
                    }
                    let out = MatMut::dense(y, 1, rows).map_err(Refusal::Failure)?;
                    scratch.multiply(x, a, out, (alpha, beta))?;
                    for (i, &value) in y_buffer.iter().enumerate() {
                        self.y.offset(y_steps.at(i)).write(value);
                    }
                    Ok(())
                })
            };
            (scratch.x, scratch.y) = (x_buffer, y_buffer);
            result
        })
    }
}

/// Copies the elements of a vector side by side.
///
/// # Safety
/// - the elements that `steps` names are readable.
unsafe fn gather(from: *const f32, steps: Steps, to: &mut [f32]) {
    for (i, value) in to.iter_mut().enumerate() {
        // SAFETY: element i < len of the vector, by the caller's promise.
        *value = unsafe { *from.offset(steps.at(i)) };
    }
}

/// The elements of a vector side by side: itself, or a copy in `buffer`.
///
/// # Safety
/// - the elements that `steps` names are readable and do not change for `'a`.
unsafe fn gathered(from: *const f32, steps: Steps, buffer: &mut Vec<f32>) -> Checked<&[f32]> {
    match steps {
        Steps { len: 0, .. } => Ok(&[]),
        // SAFETY: `len` elements in a row, by the caller's promise.
        Steps { len, by: 1 } => Ok(unsafe { std::slice::from_raw_parts(from, len) }),
        _ => {
            let copy = zeroed(buffer, steps.len)?;
            // SAFETY: handed on to the caller.
            unsafe { gather(from, steps, copy) };
            Ok(copy)
        }
    }
}
