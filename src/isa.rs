//! Which instruction sets the machine has, found once at run time.
//!
//! Nothing in kvern is compiled for the build machine: every kernel beyond the baseline stands behind
//! `#[target_feature]` and is entered only when CPUID *and* the operating system (XGETBV) allow it.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// An instruction-set tier. A context runs all of its kernels at one tier; the tiers give equal bits.
///
/// A tier is ordered below another one when every machine that has the other has it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust: the definition of every result.
    Scalar = 1,
    /// x86-64 with AVX2, FMA and F16C (Haswell 2013, Zen 2017 and later).
    Avx2 = 2,
    /// x86-64 with AVX-512 F, BW, VL and DQ (Skylake-SP 2017, Zen 4 2022 and later); its quantised products use
    /// VNNI where the CPU has it (Ice Lake 2019, Zen 4).
    Avx512 = 3,
}

impl Isa {
    /// Every tier that this build knows, lowest first.
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// The highest tier of this machine. Detection runs once; later calls cost a load.
    pub fn detect() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Scalar)
    }

    /// The tiers of this machine, lowest first; never empty.
    pub fn available() -> &'static [Isa] {
        let n = Isa::ALL.iter().take_while(|isa| isa.is_available()).count();
        &Isa::ALL[..n]
    }

    /// Whether this machine can run the tier.
    pub fn is_available(self) -> bool {
        crate::kernels::KernelSet::for_isa(self).is_some()
    }

    /// The name used in kernel ids, logs and options: `scalar`, `avx2`, `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(s: &str) -> Result<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == s).ok_or_else(|| Error::Option {
            what: "isa",
            got: s.to_owned(),
            allowed: "one of scalar, avx2, avx512",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>(), Ok(isa));
        }
        let e = "sse9".parse::<Isa>().unwrap_err();
        assert_eq!(e.to_string(), "isa = sse9 must be one of scalar, avx2, avx512");
    }

    #[test]
    fn the_available_tiers_start_at_scalar_and_end_at_the_detected_one() {
        let all = Isa::available();
        assert_eq!(all[0], Isa::Scalar);
        assert_eq!(*all.last().unwrap(), Isa::detect());
        assert!(all.iter().all(|isa| isa.is_available()));
    }
}
