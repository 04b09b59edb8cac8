//! Instruction sets: their numbers, and what the machine has.

use super::status::Checked;
use crate::Isa;
use crate::error::{Error, text};
use std::ffi::{CStr, c_char};
use std::panic::catch_unwind;
use std::sync::LazyLock;

/// An instruction-set tier: a `KVERN_ISA_*` number. All tiers give the same bits.
pub type kvern_isa = i32;

/// As an option: the tier that the machine prefers.
pub const KVERN_ISA_DEFAULT: kvern_isa = 0;
/// Portable code.
pub const KVERN_ISA_SCALAR: kvern_isa = 1;
/// x86-64 with AVX2, FMA, F16C, BMI1, BMI2, LZCNT and POPCNT.
pub const KVERN_ISA_AVX2: kvern_isa = 2;
/// What KVERN_ISA_AVX2 needs, and AVX-512 F, BW, VL and DQ. VNNI and BF16 are used where the CPU has them.
pub const KVERN_ISA_AVX512: kvern_isa = 3;

/// The tier of an option, `None` for the default.
pub(super) fn chosen(what: &'static str, number: kvern_isa) -> Checked<Option<Isa>> {
    if number == KVERN_ISA_DEFAULT {
        return Ok(None);
    }
    let known = Isa::known().find(|isa| *isa as i32 == number);
    known
        .map(Some)
        .ok_or_else(|| Error::Option { what, got: text(number), allowed: "a KVERN_ISA number" }.into())
}

/// Whether this machine has a tier: 1 or 0; 0 for a number that is none.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_is_available(isa: kvern_isa) -> i32 {
    let available = || Isa::available().iter().any(|tier| *tier as kvern_isa == isa);
    catch_unwind(available).unwrap_or(false).into()
}

/// The tier that this machine prefers, a `KVERN_ISA_*` number.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_detect() -> kvern_isa {
    catch_unwind(|| Isa::detect() as kvern_isa).unwrap_or(KVERN_ISA_SCALAR)
}

/// The name of a tier, such as `avx2`; `?` for a number that is none. Static, never NULL.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_name(isa: kvern_isa) -> *const c_char {
    /// Names with their NULs, in the order of the tiers.
    static NAMES: LazyLock<[[u8; 16]; 16]> = LazyLock::new(|| {
        let mut names = [[0; 16]; 16];
        for (to, isa) in names.iter_mut().zip(Isa::known()) {
            to[..15].iter_mut().zip(isa.name().bytes()).for_each(|(to, byte)| *to = byte);
        }
        names
    });
    let known = || match isa {
        KVERN_ISA_DEFAULT => Some(c"default"),
        _ => {
            let i = Isa::known().position(|tier| tier as kvern_isa == isa)?;
            CStr::from_bytes_until_nul(NAMES.get(i)?).ok()
        }
    };
    catch_unwind(known).ok().flatten().unwrap_or(c"?").as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_have_the_numbers_and_names_of_the_safe_api() {
        let numbers = [Isa::Scalar, Isa::Avx2, Isa::Avx512].map(|isa| isa as i32);
        assert_eq!(numbers, [KVERN_ISA_SCALAR, KVERN_ISA_AVX2, KVERN_ISA_AVX512]);
        for isa in Isa::known() {
            // SAFETY: the name is static.
            assert_eq!(unsafe { CStr::from_ptr(kvern_isa_name(isa as i32)) }.to_str(), Ok(isa.name()));
        }
    }
}
