//! The tokens: proofs that the CPU has the features of a tier.

use std::marker::PhantomData;

/// Proof of the features of the set that `D` names: [`super::dots`] has the three. Only the dot products
/// differ.
#[derive(Clone, Copy)]
pub(crate) struct Neon<D>(pub(super) PhantomData<D>);

/// Hands a token and the features that it proves to a macro. The pairs stand here and nowhere else.
macro_rules! tier {
    (neon => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            neon, $($then)::+ {
                token: $crate::kernels::aarch64::token::Neon<$crate::kernels::aarch64::dots::Widening>,
                $($arguments)*
            }
        }
    };
    (neon_dotprod => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            neon_dotprod, $($then)::+ {
                token: $crate::kernels::aarch64::token::Neon<$crate::kernels::aarch64::dots::Sdot<false>>,
                $($arguments)*
            }
        }
    };
    (neon_bf16 => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            neon_bf16, $($then)::+ {
                token: $crate::kernels::aarch64::token::Neon<$crate::kernels::aarch64::dots::Widening>,
                $($arguments)*
            }
        }
    };
    (neon_i8mm => $($then:ident)::+, $($arguments:tt)*) => {
        $crate::isa::with_features! {
            neon_i8mm, $($then)::+ {
                token: $crate::kernels::aarch64::token::Neon<$crate::kernels::aarch64::dots::Sdot<true>>,
                $($arguments)*
            }
        }
    };
}
pub(in crate::kernels) use tier;
