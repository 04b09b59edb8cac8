//! Element types and precisions of products: their numbers.

use super::args::choose;
use super::status::Checked;
use crate::{Dtype, Precision};

/// An element type: a `KVERN_DTYPE_*` number.
pub type kvern_dtype = i32;

/// IEEE binary32, `float`.
pub const KVERN_DTYPE_F32: kvern_dtype = 0;
/// IEEE binary16, 2 bytes.
pub const KVERN_DTYPE_F16: kvern_dtype = 1;
/// The upper half of a binary32, 2 bytes.
pub const KVERN_DTYPE_BF16: kvern_dtype = 30;

/// How closely a product follows the definition: a `KVERN_PRECISION_*` number.
pub type kvern_precision = i32;

/// One chain of f32 FMA for each element: the same bits on every machine.
pub const KVERN_PRECISION_EXACT: kvern_precision = 0;
/// With bf16 weights on CPUs with bf16 dot instructions, activations are rounded to bf16 and summed in f32,
/// at twice the rate: error at most (2^-8 + k 2^-22) sum |a||b| while every activation lies below
/// 3.3961775e38, from where it rounds to infinity; activations, weights and sums below 2^-126 may count as 0.
/// Bits depend on the instruction set, but not on threads or batch. Everywhere else as EXACT.
pub const KVERN_PRECISION_FAST: kvern_precision = 1;

/// The element type of a number.
#[inline(never)]
pub(super) fn dtype(what: &'static str, number: kvern_dtype) -> Checked<Dtype> {
    let values = [Dtype::F32, Dtype::F16, Dtype::Bf16].map(|dtype| (dtype as i32, dtype));
    choose(what, number, "a KVERN_DTYPE number", &values)
}

/// The precision of a number.
#[inline(never)]
pub(super) fn precision(what: &'static str, number: kvern_precision) -> Checked<Precision> {
    let values = [Precision::Exact, Precision::Fast].map(|precision| (precision as i32, precision));
    choose(what, number, "a KVERN_PRECISION number", &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_have_the_numbers_of_the_safe_api() {
        assert_eq!(dtype("x", KVERN_DTYPE_F32).ok(), Some(Dtype::F32));
        assert_eq!(dtype("x", KVERN_DTYPE_F16).ok(), Some(Dtype::F16));
        assert_eq!(dtype("x", KVERN_DTYPE_BF16).ok(), Some(Dtype::Bf16));
        assert_eq!(precision("x", KVERN_PRECISION_EXACT).ok(), Some(Precision::Exact));
        assert_eq!(precision("x", KVERN_PRECISION_FAST).ok(), Some(Precision::Fast));
    }
}
