//! The tables of kernels of NEON, with and without dot product instructions.

mod quant;

use super::neon_bf16;
use super::token::tier;
use crate::isa::Isa;
use crate::kernels::simd::Simd;

// 5 x 16: 20 registers of sums, 5 of A, 4 of B. Rejected: 6 rows, with which the compiler spills (24 sums, 6
// of A and 2 of B are all 32 registers), and which gain nothing where the FMA is the bound. Fewer rows take
// more columns, so that 12 sums or more hide most of the latency.
tier! {
    neon => crate::kernels::set::instantiate,
    isa: Isa::Neon,
    bf16_fast: || None,
    gemm: { 1: [1 2 3 4] 2: [1 2] 3: [1] 4: [1] 5: [1] },
    keys: { 1: [1 2] 2: [1] 3: [1] 4: [1] },
    values: { 1: [1 2] 2: [1] 3: [1] },
    quant: &quant::QUANT,
}

macro_rules! tiers {
    ($($tier:ident: $isa:expr, $quant:ident, $dots:expr, $fast:expr;)+) => {
        $(
            pub(super) static $tier: KernelSet = KernelSet {
                isa: $isa,
                quant: &quant::$quant,
                fast_bf16: $fast,
                ids: &KernelIds::new($isa, $dots.name(), KERNELS.gemm[0], &quant::$quant),
                ..KERNELS
            };
        )+
    };
}

// The tiers that differ in int8 products only; and the same without their instructions. bf16 dot products
// came with the matrix instructions of int8 (ARMv8.6): a CPU capped at an earlier tier has neither.
tiers! {
    DOTPROD_KERNELS: Isa::NeonDotprod, DOTPROD, Isa::NeonDotprod, || None;
    DOTPROD_WITHOUT_DOTS: Isa::NeonDotprod, QUANT, Isa::Neon, || None;
    I8MM_KERNELS: Isa::NeonI8mm, I8MM, Isa::NeonI8mm, neon_bf16::kernels;
    I8MM_WITHOUT_DOTS: Isa::NeonI8mm, QUANT, Isa::Neon, neon_bf16::kernels;
}
