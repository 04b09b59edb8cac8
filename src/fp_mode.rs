//! The floating-point mode of a thread: kvern computes in the default one, whatever mode it is called in.
//!
//! The mode is a register of the thread: rounding direction, flushing of subnormal numbers, which exceptions
//! trap. A library that was built with `-ffast-math` changes it as soon as it is loaded, `fesetround` does,
//! and a thread inherits it from the thread that started it. Each of these would change bits, and with two
//! threads at random.
//!
//! [`default_mode`] stands at the head of each public function that computes and around each body that
//! another thread runs. In the default mode it costs eleven instructions: a read and a comparison, a
//! comparison at the end. In another one the mode is set, and set back when the guard is dropped, by a return
//! or by a panic.
//!
//! # What the compiler may do
//! It takes a floating-point operation for a pure function of its operands, so it may move one past the
//! instruction that sets the mode. Kernels cannot move: they are called through function pointers of a table.
//! What a driver computes beside them stands behind a branch whose other side does nothing but call [`set`],
//! a function that is not inlined. What the guard found is hidden from the optimiser before it is asked
//! again: otherwise the two branches would become one, with two copies of the code between them, and what the
//! copies have in common could be hoisted to before it. Results go to memory, which [`set`] may write for all
//! that the compiler knows. A public function that returned a float would need more than this.

/// Exceptions masked, round to nearest even, subnormal numbers kept: the value of the register at a program's
/// start.
#[cfg(all(any(target_arch = "x86_64", all(target_arch = "x86", target_feature = "sse")), not(miri)))]
mod register {
    use std::arch::asm;

    /// What the register holds; only the low half has a meaning.
    pub type Mode = u32;

    pub const DEFAULT: Mode = 0x1f80;

    /// The six flags of exceptions that have happened: results, no mode.
    const FLAGS: Mode = 0x3f;

    #[inline(always)]
    pub fn get() -> Mode {
        let mut mode = std::mem::MaybeUninit::<Mode>::uninit();
        // SAFETY: stores MXCSR, 32 bits, in the variable.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) mode.as_mut_ptr(), options(nostack, preserves_flags));
            mode.assume_init()
        }
    }

    /// The same mode, which the optimiser knows nothing about.
    #[inline(always)]
    pub fn hidden(mut mode: Mode) -> Mode {
        // SAFETY: no instruction.
        unsafe { asm!("/* {:e} */", inout(reg) mode, options(nomem, nostack, preserves_flags)) };
        mode
    }

    #[inline(always)]
    pub fn set(mode: Mode) {
        // SAFETY: each value comes from `get` or is the default, so no reserved bit is set. The mode of Rust
        // code is the default one, and the guard is what makes that true for the code behind it.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub fn is_default(mode: Mode) -> bool {
        mode & !FLAGS == DEFAULT
    }
}

/// Round to nearest even, nothing flushed, no trap, no alternative behaviour: FPCR is zero.
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod register {
    use std::arch::asm;

    pub type Mode = u64;

    pub const DEFAULT: Mode = 0;

    #[inline(always)]
    pub fn get() -> Mode {
        let mode: Mode;
        // SAFETY: reads FPCR.
        unsafe { asm!("mrs {}, fpcr", out(reg) mode, options(nostack, preserves_flags)) };
        mode
    }

    /// The same mode, which the optimiser knows nothing about.
    #[inline(always)]
    pub fn hidden(mut mode: Mode) -> Mode {
        // SAFETY: no instruction.
        unsafe { asm!("/* {} */", inout(reg) mode, options(nomem, nostack, preserves_flags)) };
        mode
    }

    #[inline(always)]
    pub fn set(mode: Mode) {
        // SAFETY: each value comes from `get` or is the default. The mode of Rust code is the default one,
        // and the guard is what makes that true for the code behind it.
        unsafe { asm!("msr fpcr, {}", in(reg) mode, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    pub fn is_default(mode: Mode) -> bool {
        mode == DEFAULT
    }
}

/// Where no register is known, the mode is left alone.
#[cfg(any(
    not(any(
        target_arch = "x86_64",
        all(target_arch = "x86", target_feature = "sse"),
        target_arch = "aarch64"
    )),
    miri
))]
mod register {
    #[derive(Clone, Copy)]
    pub struct Mode;

    pub const DEFAULT: Mode = Mode;

    pub fn get() -> Mode {
        Mode
    }

    pub fn hidden(mode: Mode) -> Mode {
        mode
    }

    pub fn set(_: Mode) {}

    pub fn is_default(_: Mode) -> bool {
        true
    }
}

use register::{DEFAULT, Mode, get, hidden, is_default};

/// Out of line and unlikely: the caller's code has one untaken branch.
#[cold]
#[inline(never)]
fn set(mode: Mode) {
    register::set(mode);
}

/// While this lives, the thread computes in the default mode; the mode that it found comes back when it is
/// dropped.
#[must_use]
pub(crate) struct DefaultMode {
    found: Mode,
}

/// The default mode for the calling thread.
#[inline(always)]
pub(crate) fn default_mode() -> DefaultMode {
    let found = get();
    if !is_default(found) {
        set(DEFAULT);
    }
    DefaultMode { found }
}

/// The default mode again, after code of the caller ran on this thread under a [`DefaultMode`].
pub(crate) fn restore_default() {
    if !is_default(get()) {
        set(DEFAULT);
    }
}

impl Drop for DefaultMode {
    #[inline(always)]
    fn drop(&mut self) {
        let found = hidden(self.found);
        if !is_default(found) {
            set(found);
        }
    }
}
