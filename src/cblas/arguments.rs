//! Arguments as BLAS passes them, and what is said about illegal ones.

use crate::fp_mode;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a call did nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The number of the illegal argument, counted as the routine's own interface does.
    Argument(c_int),
    /// What the system did not give.
    Failure(crate::Error),
}

/// What a routine gives.
pub(super) type Checked<T> = std::result::Result<T, Refusal>;

impl Refusal {
    /// An illegal argument in the numbers of the C interface, whose first argument is the layout.
    pub fn in_c(self) -> Refusal {
        match self {
            Refusal::Argument(number) => Refusal::Argument(number + 1),
            failure => failure,
        }
    }

    /// Exchanges the numbers of each pair: the operands of a row-major call were exchanged.
    pub fn renumbered(self, pairs: &[(c_int, c_int)]) -> Refusal {
        let Refusal::Argument(number) = self else { return self };
        let exchanged = pairs.iter().find_map(|&(p, q)| match number {
            _ if number == p => Some(q),
            _ if number == q => Some(p),
            _ => None,
        });
        Refusal::Argument(exchanged.unwrap_or(number))
    }
}

/// `Err` with the number of the argument unless it is legal.
pub(super) fn legal(number: c_int, legal: bool) -> Checked<()> {
    if legal { Ok(()) } else { Err(Refusal::Argument(number)) }
}

/// Who is called: the words of its error messages.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    routine: &'static str,
    fortran: bool,
}

impl Caller {
    /// A routine of the C interface.
    pub fn c(routine: &'static str) -> Caller {
        Caller { routine, fortran: false }
    }

    /// A routine of the Fortran interface; its name is six letters wide.
    pub fn fortran(routine: &'static str) -> Caller {
        Caller { routine, fortran: true }
    }
}

/// The frame of every exported routine: nothing unwinds out of it, and refusals go to stderr in the words of
/// the reference's `xerbla`.
pub(super) fn frame(caller: Caller, body: impl FnOnce() -> Checked<()>) {
    use std::io::Write;
    let routine = caller.routine;
    let _mode = fp_mode::default_mode();
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return,
        Ok(Err(Refusal::Argument(number))) if caller.fortran => {
            format!(" ** On entry to {routine} parameter number {number:2} had an illegal value")
        }
        Ok(Err(Refusal::Argument(number))) => {
            format!("Parameter {number} to routine {routine} was incorrect")
        }
        Ok(Err(Refusal::Failure(error))) => format!("kvern: {routine} computed nothing: {error}"),
        Err(payload) => {
            // The payload of a foreign panic could panic again when it is dropped.
            std::mem::forget(payload);
            format!("kvern: {routine}: internal error")
        }
    };
    // Not `eprintln`, which panics when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// In which order a matrix is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Rows,
    Columns,
}

impl Layout {
    /// `CBLAS_LAYOUT`.
    pub fn from_c(layout: c_int, number: c_int) -> Checked<Layout> {
        match layout {
            101 => Ok(Layout::Rows),
            102 => Ok(Layout::Columns),
            _ => Err(Refusal::Argument(number)),
        }
    }

    pub fn is_row_major(self) -> bool {
        self == Layout::Rows
    }
}

/// Whether a matrix is used as it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trans {
    Plain,
    /// Transposed, and conjugated or not: f32 is its own conjugate.
    Transposed,
}

impl Trans {
    /// `CBLAS_TRANSPOSE`.
    pub fn from_c(trans: c_int, number: c_int) -> Checked<Trans> {
        match trans {
            111 => Ok(Trans::Plain),
            112 | 113 => Ok(Trans::Transposed),
            _ => Err(Refusal::Argument(number)),
        }
    }

    /// The first letter of a Fortran string, in either case.
    ///
    /// # Safety
    /// - `letter` is NULL or points to a readable byte.
    pub unsafe fn from_fortran(letter: *const c_char, number: c_int) -> Checked<Trans> {
        // SAFETY: handed on to the caller.
        match unsafe { scalar(letter, number)? } as u8 {
            b'N' | b'n' => Ok(Trans::Plain),
            b'T' | b't' | b'C' | b'c' => Ok(Trans::Transposed),
            _ => Err(Refusal::Argument(number)),
        }
    }

    pub fn is_transposed(self) -> bool {
        self == Trans::Transposed
    }

    /// The same memory in the other layout.
    pub fn other(self) -> Trans {
        if self.is_transposed() { Trans::Plain } else { Trans::Transposed }
    }
}

/// A scalar that is passed by reference.
///
/// # Safety
/// - `ptr` is NULL or points to a readable `T`.
pub(super) unsafe fn scalar<T: Copy>(ptr: *const T, number: c_int) -> Checked<T> {
    legal(number, !ptr.is_null() && ptr.is_aligned())?;
    // SAFETY: not NULL and aligned; the rest is the caller's promise.
    Ok(unsafe { *ptr })
}

/// How many elements lie between the first and the last one of a stored matrix, both included; the array is
/// argument `array`, its leading dimension argument `leading`.
pub(super) fn extent<T>(
    (ptr, array): (*const T, c_int),
    (rows, cols): (usize, usize),
    (row_stride, leading): (usize, c_int),
) -> Checked<usize> {
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    let len = (rows - 1).checked_mul(row_stride).and_then(|body| body.checked_add(cols));
    let fits =
        |len: &usize| len.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= isize::MAX as usize);
    let len = len.filter(fits).ok_or(Refusal::Argument(leading))?;
    legal(array, !ptr.is_null() && ptr.is_aligned())?;
    Ok(len)
}
