//! AArch64: NEON, and its dot products.
//!
//! What the tiles are chosen for, in instructions a cycle, of registers of 128 bits, by LLVM's scheduling
//! models of Neoverse V1 and V2 (and N2, where it differs), which follow Arm's software optimisation guides:
//!
//! | instruction | V1, V2 (N2) | consequence |
//! |---|---|---|
//! | all vector arithmetic together | 4 (2) | a product is bound by what it computes, not by its loads |
//! | `fmla`, also by element | 4 (2), latency 4 | 16 sums hide the latency |
//! | `sdot`, `usmmla` | 4 (2) | |
//! | `ldr q` | 3 | 4 loads of B for 20 `fmla` are no bound |
//! | `ld1r` | 3 (2), and a slot of the arithmetic | factors by element, four k a load |
//! | `scvtf`, `fcvtl` | 1 (1/2) | sums of integers become f32 by a subtraction: see `DOT_BIAS` |
//! | `smlal`, `ushr` | 2 (1) | |
//!
//! The f32 tile is 5 x 16: 20 registers of sums, 5 of A (four k each), 4 of B.

mod bytes;
mod dots;
mod halves;
mod lanes;
mod neon;
mod neon_bf16;
mod pairs;
mod parts;
mod simd;
mod tails;
mod token;
mod transpose;

use crate::isa::Isa;
use crate::kernels::set::KernelSet;

/// The kernels of a tier that this machine has.
pub(super) fn kernels(isa: Isa) -> Option<&'static KernelSet> {
    match isa {
        Isa::Neon => Some(&neon::KERNELS),
        Isa::NeonDotprod => Some(&neon::DOTPROD_KERNELS),
        Isa::NeonI8mm => Some(&neon::I8MM_KERNELS),
        _ => None,
    }
}

/// The kernels of a tier that this machine has, without dot product instructions.
pub(super) fn kernels_without_dots(isa: Isa) -> Option<&'static KernelSet> {
    match isa {
        Isa::NeonDotprod => Some(&neon::DOTPROD_WITHOUT_DOTS),
        Isa::NeonI8mm => Some(&neon::I8MM_WITHOUT_DOTS),
        _ => kernels(isa),
    }
}
