//! The instruction-set tiers: names, numbers, preference, features, and which of them the machine has.
//!
//! Nothing in kvern is compiled for the build machine: every kernel beyond the baseline stands behind
//! `#[target_feature]` and is entered only when the CPU *and* the operating system have its features. Each
//! list of features exists once, in `with_features!`: detection and `#[target_feature]` are both made from
//! it, so that they cannot disagree.
//!
//! A new tier is a variant of [`Isa`], a row of [`TIERS`] and an arm of `with_features!`.

use crate::error::{Error, Result, text};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// An instruction-set tier. A context runs all of its kernels at one tier; the tiers give equal bits.
///
/// Tiers are not ordered: those of two architectures never meet, and a CPU may have one extension of two
/// without the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust: the definition of every result.
    Scalar = 1,
    /// x86-64 with AVX2, FMA and F16C (Haswell 2013, Zen 2017 and later).
    Avx2 = 2,
    /// x86-64 with AVX-512 F, BW, VL and DQ (Skylake-SP 2017, Zen 4 2022 and later); its quantised products
    /// use VNNI where the CPU has it (Ice Lake 2019, Zen 4).
    Avx512 = 3,
}

/// Hands the features of a set to a macro: `with_features!(avx2, path::to::a_macro { arguments })` becomes
/// `path::to::a_macro! { features: ["avx2" "fma" ..], arguments }`.
#[allow(unused_macros, reason = "architectures without a tier of their own")]
macro_rules! with_features {
    (avx2, $($call:tt)*) => { $crate::isa::with_features! { @avx2 [] $($call)* } };
    (avx512, $($call:tt)*) => { $crate::isa::with_features! { @avx512 [] $($call)* } };
    (avx512_vnni, $($call:tt)*) => { $crate::isa::with_features! { @avx512 ["avx512vnni"] $($call)* } };
    (avx512_bf16, $($call:tt)*) => { $crate::isa::with_features! { @avx512 ["avx512bf16"] $($call)* } };
    (@avx512 [$($more:tt)*] $($call:tt)*) => {
        $crate::isa::with_features! { @avx2 ["avx512f" "avx512bw" "avx512vl" "avx512dq" $($more)*] $($call)* }
    };
    (@avx2 [$($more:tt)*] $($call:tt)*) => {
        $crate::isa::with_features! {
            @to ["avx2" "fma" "f16c" "bmi1" "bmi2" "popcnt" "lzcnt" $($more)*] $($call)*
        }
    };
    (@to [$($feature:tt)*] $($then:ident)::+ { $($arguments:tt)* }) => {
        $($then)::+! { features: [$($feature)*], $($arguments)* }
    };
}
#[allow(unused_imports, reason = "architectures without a tier of their own")]
pub(crate) use with_features;

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected as feature_detected;
#[cfg(target_arch = "x86_64")]
use std::arch::is_x86_feature_detected as feature_detected;

/// Whether the machine is of an architecture and has every feature of a set.
macro_rules! detected {
    ($arch:tt, $set:ident) => {{
        #[cfg(target_arch = $arch)]
        let found = $crate::isa::with_features!($set, all_detected {});
        #[cfg(not(target_arch = $arch))]
        let found = false;
        found
    }};
}

#[allow(unused_macros, reason = "architectures without a tier of their own")]
macro_rules! all_detected {
    (features: [$($feature:tt)*],) => { true $(&& feature_detected!($feature))* };
}

/// What is known of a tier.
struct Tier {
    isa: Isa,
    name: &'static str,
    /// Whether this build holds its kernels.
    built: bool,
    /// Asks the machine; `false` where the tier is not built.
    detect: fn() -> bool,
}

/// A row of [`TIERS`]: tier, name, architecture, set of features.
macro_rules! tier {
    ($isa:ident, $name:literal, $arch:tt, $set:ident) => {
        Tier {
            isa: Isa::$isa,
            name: $name,
            built: cfg!(target_arch = $arch),
            detect: || detected!($arch, $set),
        }
    };
}

/// Every tier of every architecture. Of the tiers that a machine has, the last one is preferred.
const TIERS: &[Tier] = &[
    Tier { isa: Isa::Scalar, name: "scalar", built: true, detect: || true },
    tier!(Avx2, "avx2", "x86_64", avx2),
    tier!(Avx512, "avx512", "x86_64", avx512),
];

/// Number of tiers in this build.
const BUILT: usize = {
    let (mut built, mut i) = (0, 0);
    while i < TIERS.len() {
        built += TIERS[i].built as usize;
        i += 1;
    }
    built
};

/// Whether the machine has AVX-512 VNNI.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512_vnni() -> bool {
    detected!("x86_64", avx512_vnni)
}

/// Whether the machine has AVX-512 BF16.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512_bf16() -> bool {
    detected!("x86_64", avx512_bf16)
}

/// The tiers that `has` accepts, each by itself (a missing one hides none after it), and how many these are.
fn those(has: impl Fn(&Tier) -> bool) -> ([Isa; TIERS.len()], usize) {
    let (mut list, mut len) = ([Isa::Scalar; TIERS.len()], 0);
    for tier in TIERS.iter().filter(|tier| has(tier)) {
        list[len] = tier.isa;
        len += 1;
    }
    (list, len)
}

impl Isa {
    /// The tiers whose kernels this build holds, the preferred one last.
    pub const ALL: [Isa; BUILT] = {
        let mut all = [Isa::Scalar; BUILT];
        let (mut n, mut i) = (0, 0);
        while i < TIERS.len() {
            if TIERS[i].built {
                all[n] = TIERS[i].isa;
                n += 1;
            }
            i += 1;
        }
        all
    };

    /// The preferred tier of this machine. Detection runs once; later calls cost a load.
    pub fn detect() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Scalar)
    }

    /// The tiers of this machine, the preferred one last; never empty.
    pub fn available() -> &'static [Isa] {
        // An array, so that a first call where there is no memory does not end the process.
        static AVAILABLE: LazyLock<([Isa; TIERS.len()], usize)> =
            LazyLock::new(|| those(|tier| (tier.detect)()));
        &AVAILABLE.0[..AVAILABLE.1]
    }

    /// Whether this machine can run the tier.
    pub fn is_available(self) -> bool {
        Isa::available().contains(&self)
    }

    /// Every tier of every architecture.
    #[cfg(feature = "capi")]
    pub(crate) fn known() -> impl Iterator<Item = Isa> {
        TIERS.iter().map(|tier| tier.isa)
    }

    /// The name used in kernel ids, logs and options: `scalar`, `avx2`, `avx512`.
    pub const fn name(self) -> &'static str {
        let mut i = 0;
        while TIERS[i].isa as i32 != self as i32 {
            i += 1;
        }
        TIERS[i].name
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    /// A tier by its name, also one of another architecture.
    fn from_str(s: &str) -> Result<Isa> {
        static ALLOWED: LazyLock<String> =
            LazyLock::new(|| format!("one of {}", Isa::ALL.map(Isa::name).join(", ")));
        let known = TIERS.iter().find(|tier| tier.name == s).map(|tier| tier.isa);
        known.ok_or_else(|| Error::Option { what: "isa", got: text(s), allowed: &ALLOWED })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_one_to_one() {
        for (i, tier) in TIERS.iter().enumerate() {
            assert_eq!(tier.isa.to_string().parse::<Isa>(), Ok(tier.isa));
            assert_eq!(tier.isa.name(), tier.name);
            let same = |t: &Tier| t.isa == tier.isa || t.name == tier.name || t.isa as i32 == tier.isa as i32;
            assert!(TIERS.iter().skip(i + 1).all(|t| !same(t)), "{}", tier.name);
        }
        let e = "sse9".parse::<Isa>().unwrap_err();
        assert_eq!(
            e.to_string(),
            format!("isa = sse9 must be one of {}", Isa::ALL.map(Isa::name).join(", "))
        );
    }

    #[test]
    fn the_available_tiers_are_built_start_at_scalar_and_end_at_the_preferred_one() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::Scalar);
        assert_eq!(*available.last().unwrap(), Isa::detect());
        assert!(available.iter().all(|isa| isa.is_available() && Isa::ALL.contains(isa)));
    }

    #[test]
    fn a_missing_tier_hides_no_other_one() {
        for missing in TIERS.iter().filter(|tier| tier.isa != Isa::Scalar) {
            let (found, len) = those(|tier| tier.isa != missing.isa);
            let expected: Vec<Isa> =
                TIERS.iter().map(|tier| tier.isa).filter(|isa| *isa != missing.isa).collect();
            assert_eq!(found[..len], expected, "without {}", missing.name);
        }
    }
}
