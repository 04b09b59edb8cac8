//! The floating-point mode of the calling thread, for tests that change it.

#[cfg(target_arch = "x86_64")]
mod register {
    use std::arch::asm;

    pub const DEFAULT: u64 = 0x1f80;

    /// Every exception traps, the inexact one, too: a computation that leaves this mode on ends the process.
    pub const TRAPS: u64 = 0;

    /// What is a mode and no record of exceptions that have happened.
    pub const MODE: u64 = !0x3f;

    /// Flush to zero, denormals are zero, both; the three other directions, plain and with both; exceptions
    /// that trap: all but the inexact one.
    pub const OTHERS: [u64; 10] =
        [0x9f80, 0x1fc0, 0x9fc0, 0x3f80, 0x5f80, 0x7f80, 0xbfc0, 0xdfc0, 0xffc0, 0x1000];

    #[inline(never)]
    pub fn set(mode: u64) {
        let mode = mode as u32;
        // SAFETY: no reserved bit is set; callers compute nothing in the mode but what they test.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const mode) }
    }

    #[inline(never)]
    pub fn get() -> u64 {
        let mut mode = 0u32;
        // SAFETY: stores 32 bits.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mode) }
        mode.into()
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    use std::arch::asm;

    pub const DEFAULT: u64 = 0;
    pub const MODE: u64 = !0;

    /// Every exception traps, on CPUs that have traps.
    pub const TRAPS: u64 = 0x9f00;

    /// Flush to zero; the three other directions, plain and flushing; default NaN.
    pub const OTHERS: [u64; 6] = [1 << 24, 1 << 22, 2 << 22, 3 << 22, 1 << 24 | 3 << 22, 1 << 25];

    #[inline(never)]
    pub fn set(mode: u64) {
        // SAFETY: callers compute nothing in the mode but what they test.
        unsafe { asm!("msr fpcr, {}", in(reg) mode) }
    }

    #[inline(never)]
    pub fn get() -> u64 {
        let mode: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, fpcr", out(reg) mode) }
        mode
    }
}

pub use register::*;
