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
    /// What [`Isa::Avx2`] needs, and AVX-VNNI (Alder Lake 2021, Zen 5 2024 and later): its quantised products
    /// use one dot product instruction in place of three; everything else is the code of AVX2.
    AvxVnni = 4,
    /// AArch64 with NEON, which every CPU of the architecture that runs an operating system has.
    Neon = 8,
    /// AArch64 with the dot products of ARMv8.2 (Neoverse N1 and Graviton 2 2019, Apple M1 2020, Cortex-A76
    /// and later).
    NeonDotprod = 9,
    /// The same with the matrix products of bytes of ARMv8.6 (Neoverse V1 and Graviton 3 2021, Apple M2 2022,
    /// Neoverse N2, and later).
    NeonI8mm = 10,
}

/// Hands the features of a set to a macro: `with_features!(avx2, path::to::a_macro { arguments })` becomes
/// `path::to::a_macro! { features: ["avx2" "fma" ..], arguments }`.
#[allow(unused_macros, reason = "architectures without a tier of their own")]
macro_rules! with_features {
    (avx2, $($call:tt)*) => { $crate::isa::with_features! { @avx2 [] $($call)* } };
    (avx_vnni, $($call:tt)*) => { $crate::isa::with_features! { @avx2 ["avxvnni"] $($call)* } };
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
    (neon, $($call:tt)*) => { $crate::isa::with_features! { @neon [] $($call)* } };
    (neon_dotprod, $($call:tt)*) => { $crate::isa::with_features! { @neon ["dotprod"] $($call)* } };
    (neon_i8mm, $($call:tt)*) => { $crate::isa::with_features! { @neon ["dotprod" "i8mm"] $($call)* } };
    (neon_bf16, $($call:tt)*) => { $crate::isa::with_features! { @neon ["bf16"] $($call)* } };
    (@neon [$($more:tt)*] $($call:tt)*) => {
        $crate::isa::with_features! { @to ["neon" $($more)*] $($call)* }
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

/// The first feature of a set that the machine lacks, where this is a build for the architecture.
macro_rules! missing {
    ($arch:tt, $set:ident) => {{
        #[cfg(target_arch = $arch)]
        let missing = $crate::isa::with_features!($set, first_missing {});
        #[cfg(not(target_arch = $arch))]
        let missing = None;
        missing
    }};
}

#[allow(unused_macros, reason = "architectures without a tier of their own")]
macro_rules! first_missing {
    (features: [$($feature:tt)*],) => {
        [$(($feature, feature_detected!($feature))),*]
            .into_iter()
            .find_map(|(feature, found)| (!found).then_some(feature))
    };
}

/// What is known of a tier.
struct Tier {
    isa: Isa,
    name: &'static str,
    /// The architecture of its kernels.
    arch: &'static str,
    /// Whether this build holds its kernels.
    built: bool,
    /// Asks the machine for a feature that it lacks; of a tier that is built.
    missing: fn() -> Option<&'static str>,
}

impl Tier {
    fn status(&self) -> IsaStatus {
        match (self.built, (self.missing)()) {
            (false, _) => IsaStatus::OtherArchitecture { arch: self.arch },
            (true, Some(feature)) => IsaStatus::Missing { feature },
            (true, None) => IsaStatus::Available,
        }
    }
}

/// Whether a machine can run a tier, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaStatus {
    /// It can.
    Available,
    /// The tier is of another architecture than this build.
    OtherArchitecture {
        /// The architecture of the tier.
        arch: &'static str,
    },
    /// The machine lacks a feature: the CPU does not have it, or the operating system forbids its use.
    Missing {
        /// The first one of the tier that is missing.
        feature: &'static str,
    },
}

impl fmt::Display for IsaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IsaStatus::Available => f.write_str("available"),
            IsaStatus::OtherArchitecture { arch } => {
                write!(f, "a tier of {arch}, and kvern was built for {}", std::env::consts::ARCH)
            }
            IsaStatus::Missing { feature } => write!(f, "the CPU or its operating system lacks {feature}"),
        }
    }
}

/// A row of [`TIERS`]: tier, name, architecture, set of features.
macro_rules! tier {
    ($isa:ident, $name:literal, $arch:tt, $set:ident) => {
        Tier {
            isa: Isa::$isa,
            name: $name,
            arch: $arch,
            built: cfg!(target_arch = $arch),
            missing: || missing!($arch, $set),
        }
    };
}

/// Every tier of every architecture. Of the tiers that a machine has, the last one is preferred.
const TIERS: &[Tier] = &[
    Tier { isa: Isa::Scalar, name: "scalar", arch: std::env::consts::ARCH, built: true, missing: || None },
    tier!(Avx2, "avx2", "x86_64", avx2),
    tier!(AvxVnni, "avx-vnni", "x86_64", avx_vnni),
    tier!(Avx512, "avx512", "x86_64", avx512),
    tier!(Neon, "neon", "aarch64", neon),
    tier!(NeonDotprod, "neon-dotprod", "aarch64", neon_dotprod),
    tier!(NeonI8mm, "neon-i8mm", "aarch64", neon_i8mm),
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
    missing!("x86_64", avx512_vnni).is_none()
}

/// Whether the machine has AVX-512 BF16.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512_bf16() -> bool {
    missing!("x86_64", avx512_bf16).is_none()
}

/// Whether the machine has the bf16 products of AArch64.
#[cfg(target_arch = "aarch64")]
pub(crate) fn has_neon_bf16() -> bool {
    missing!("aarch64", neon_bf16).is_none()
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
            LazyLock::new(|| those(|tier| tier.status() == IsaStatus::Available));
        &AVAILABLE.0[..AVAILABLE.1]
    }

    /// Whether this machine can run the tier.
    pub fn is_available(self) -> bool {
        Isa::available().contains(&self)
    }

    /// Every tier of every architecture, also those that this build does not hold.
    pub const KNOWN: [Isa; TIERS.len()] = {
        let mut known = [Isa::Scalar; TIERS.len()];
        let mut i = 0;
        while i < TIERS.len() {
            known[i] = TIERS[i].isa;
            i += 1;
        }
        known
    };

    /// Whether this machine can run the tier, and why not.
    pub fn status(self) -> IsaStatus {
        self.tier().status()
    }

    const fn tier(self) -> &'static Tier {
        let mut i = 0;
        while TIERS[i].isa as i32 != self as i32 {
            i += 1;
        }
        &TIERS[i]
    }

    /// The name used in kernel ids, logs and options, such as `scalar`, `avx2`, `neon-dotprod`.
    pub const fn name(self) -> &'static str {
        self.tier().name
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    /// A tier by its name, also one of another architecture, which a context refuses and says why.
    fn from_str(s: &str) -> Result<Isa> {
        static ALLOWED: LazyLock<String> =
            LazyLock::new(|| format!("one of {}", Isa::KNOWN.map(Isa::name).join(", ")));
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
            format!("isa = sse9 must be one of {}", Isa::KNOWN.map(Isa::name).join(", "))
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
    fn a_tier_says_why_the_machine_does_not_have_it() {
        for tier in TIERS {
            let (status, text) = (tier.isa.status(), tier.isa.status().to_string());
            assert_eq!(status == IsaStatus::Available, tier.isa.is_available(), "{}", tier.name);
            assert_eq!(matches!(status, IsaStatus::OtherArchitecture { .. }), !tier.built, "{}", tier.name);
            match status {
                IsaStatus::Available => assert_eq!(text, "available"),
                IsaStatus::OtherArchitecture { arch } => {
                    let own = std::env::consts::ARCH;
                    assert_eq!(text, format!("a tier of {arch}, and kvern was built for {own}"));
                    assert_ne!(arch, own);
                }
                IsaStatus::Missing { feature } => assert!(text.ends_with(feature), "{text}"),
            }
        }
        let lacking = Tier { missing: || Some("avx512vl"), ..TIERS[0] };
        assert_eq!(lacking.status().to_string(), "the CPU or its operating system lacks avx512vl");
        let foreign = Tier { arch: "vax", built: false, ..lacking };
        assert_eq!(foreign.status(), IsaStatus::OtherArchitecture { arch: "vax" });
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
