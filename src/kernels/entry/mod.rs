//! The checked entries: safe methods of [`KernelSet`](super::KernelSet) that check every bound a kernel
//! relies on, then enter the kernel.
//!
//! A failed check is a bug of a driver, not of a caller (whose shapes were validated before), so it is an
//! assertion; it costs a few comparisons for each tile of thousands of operations.

mod bounds;
mod epilogue;
pub(super) mod gemm;
pub(super) mod kv;
pub(super) mod operands;
mod pack;
pub(super) mod quant;
pub(super) mod recurrence;
pub(super) mod rows;
