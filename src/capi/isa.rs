//! Instruction sets: their numbers, and what the machine has.

use super::args::{check, put};
use super::guard;
use super::status::{Checked, Failure, KVERN_STATUS_OPTION, kvern_status};
use crate::Isa;
use crate::error::{Error, text};
use std::ffi::{CStr, c_char};
use std::fmt;
use std::io::Write;
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
/// What KVERN_ISA_AVX2 needs, and AVX-VNNI, which quantised products use.
pub const KVERN_ISA_AVX_VNNI: kvern_isa = 4;
/// AArch64 with NEON.
pub const KVERN_ISA_NEON: kvern_isa = 8;
/// What KVERN_ISA_NEON needs, and the dot products of ARMv8.2.
pub const KVERN_ISA_NEON_DOTPROD: kvern_isa = 9;
/// What KVERN_ISA_NEON_DOTPROD needs, and the matrix products of bytes of ARMv8.6.
pub const KVERN_ISA_NEON_I8MM: kvern_isa = 10;

/// The tier of an option, `None` for the default.
pub(super) fn chosen(what: &'static str, number: kvern_isa) -> Checked<Option<Isa>> {
    if number == KVERN_ISA_DEFAULT {
        return Ok(None);
    }
    let known = Isa::KNOWN.into_iter().find(|isa| *isa as i32 == number);
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

/// How many tiers kvern knows, of every architecture: the indices of `kvern_isa_at`.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_count() -> usize {
    Isa::KNOWN.len()
}

/// One of the tiers that kvern knows, a `KVERN_ISA_*` number; KVERN_ISA_DEFAULT for an index of
/// `kvern_isa_count` and above. Of those that the machine has, the last one is preferred.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_at(index: usize) -> kvern_isa {
    Isa::KNOWN.get(index).map_or(KVERN_ISA_DEFAULT, |isa| *isa as kvern_isa)
}

/// `*out` = the tier of a name, such as `avx2`, also one of another architecture.
///
/// `name`: NUL-terminated; the message of a failure lists the names.
/// Errors: NULL_POINTER, OPTION (no such tier). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_isa_from_name(name: *const c_char, out: *mut kvern_isa) -> kvern_status {
    // SAFETY: both are NULL or live, and `name` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        check("name", name, 1)?;
        let name = CStr::from_ptr(name).to_bytes();
        match Isa::KNOWN.into_iter().find(|isa| isa.name().as_bytes() == name) {
            Some(isa) => put("out", out, isa as kvern_isa),
            None => {
                let message = format_args!("name = {} must be one of {}", name.escape_ascii(), Names);
                Err(Failure::new(KVERN_STATUS_OPTION, message))
            }
        }
    })
}

/// The names of all tiers, for a message.
struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Isa::KNOWN.into_iter().enumerate();
        names.try_for_each(|(i, isa)| write!(f, "{}{isa}", if i > 0 { ", " } else { "" }))
    }
}

/// A text for each tier, with its NUL; without memory that could be lacking.
type Texts<const BYTES: usize> = [[u8; BYTES]; Isa::KNOWN.len()];

fn texts<T: fmt::Display, const BYTES: usize>(text: impl Fn(Isa) -> T) -> Texts<BYTES> {
    Isa::KNOWN.map(|isa| {
        let mut bytes = [0; BYTES];
        let _ = write!(&mut bytes[..BYTES - 1], "{}", text(isa)); // an error says that it was cut off
        bytes
    })
}

/// The text of a tier; `?` for a number that is none.
fn text_of<const BYTES: usize>(texts: &'static LazyLock<Texts<BYTES>>, isa: kvern_isa) -> *const c_char {
    let found = || {
        let i = Isa::KNOWN.into_iter().position(|tier| tier as kvern_isa == isa)?;
        CStr::from_bytes_until_nul(texts.get(i)?).ok()
    };
    catch_unwind(found).ok().flatten().unwrap_or(c"?").as_ptr()
}

/// The name of a tier, such as `avx2`; `?` for a number that is none. Static, never NULL.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_name(isa: kvern_isa) -> *const c_char {
    static NAMES: LazyLock<Texts<24>> = LazyLock::new(|| texts(|isa| isa));
    if isa == KVERN_ISA_DEFAULT { c"default".as_ptr() } else { text_of(&NAMES, isa) }
}

/// Whether this machine can run a tier, and why not: `available`, `the CPU or its operating system lacks
/// avx512f`, `a tier of aarch64, and kvern was built for x86_64`. `?` for a number that is none. Static,
/// never NULL.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_status(isa: kvern_isa) -> *const c_char {
    static STATUSES: LazyLock<Texts<96>> = LazyLock::new(|| texts(Isa::status));
    text_of(&STATUSES, isa)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_have_the_numbers_and_names_of_the_safe_api() {
        let tiers = [
            (Isa::Scalar, KVERN_ISA_SCALAR),
            (Isa::Avx2, KVERN_ISA_AVX2),
            (Isa::Avx512, KVERN_ISA_AVX512),
            (Isa::AvxVnni, KVERN_ISA_AVX_VNNI),
            (Isa::Neon, KVERN_ISA_NEON),
            (Isa::NeonDotprod, KVERN_ISA_NEON_DOTPROD),
            (Isa::NeonI8mm, KVERN_ISA_NEON_I8MM),
        ];
        for (isa, number) in tiers {
            assert_eq!(isa as i32, number, "{isa}");
        }
        // SAFETY: the texts are static.
        let text = |text| unsafe { CStr::from_ptr(text) }.to_str().unwrap();
        for isa in Isa::KNOWN {
            assert_eq!(text(kvern_isa_name(isa as i32)), isa.name());
            assert_eq!(text(kvern_isa_status(isa as i32)), isa.status().to_string(), "a text is cut off");
        }
        assert_eq!(text(kvern_isa_name(KVERN_ISA_DEFAULT)), "default");
        for none in [-1, 999, i32::MAX] {
            assert_eq!((text(kvern_isa_name(none)), text(kvern_isa_status(none))), ("?", "?"));
        }
        assert_eq!(text(kvern_isa_status(KVERN_ISA_DEFAULT)), "?");
    }

    #[test]
    fn all_tiers_are_listed() {
        let listed: Vec<_> = (0..kvern_isa_count()).map(|i| kvern_isa_at(i)).collect();
        assert_eq!(listed, Isa::KNOWN.map(|isa| isa as i32));
        assert_eq!([kvern_isa_count(), usize::MAX].map(|i| kvern_isa_at(i)), [KVERN_ISA_DEFAULT; 2]);
    }
}
