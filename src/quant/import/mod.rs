//! Weights quantised in groups along k by other tools, in one neutral form.
//!
//! ```text
//! GPTQ tensors --from_gptq-->  GroupWise: codes, a scale and a zero for each group of a row,
//! AWQ tensors  --from_awq--->             and the order in which k is stored
//! own codes    --symmetric / with_zeros-->
//! ```

mod awq;
mod gptq;
mod group_wise;

pub use awq::Awq;
pub use gptq::{Gptq, StoredZeros};
pub use group_wise::{GroupRow, GroupWise};
