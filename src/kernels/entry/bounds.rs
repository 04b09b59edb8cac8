//! Arithmetic of the checks.

/// Offset of the last of `count` steps of `stride`: the index of the furthest element that is read.
pub(super) fn reach(count: usize, stride: usize) -> usize {
    count.saturating_sub(1).saturating_mul(stride)
}
