//! The two ways to compute a product with quantised weights.

/// How a product with quantised weights treats its activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum Compute {
    /// Activations are rounded to int8 in blocks of 32 along k (`d = absmax / 127`), dot products of blocks
    /// are exact integers, and blocks are chained by FMA in ascending order; a format's minimum follows each
    /// block as a second FMA, with the block's sum of activations. Against the exact product of
    /// the quantised weights the error is at most `sum over blocks of d/2 * sum |w|` (plus f32 rounding):
    /// about 0.4 % of the block's largest activation for each weight. A NaN or infinity in a block of
    /// activations makes every output of its row NaN.
    #[default]
    Int8 = 0,
    /// Weights are widened exactly in registers and multiplied with the f32 activations: one FMA chain over
    /// k ascending, the same bits as dequantising first and multiplying with [`matmul`](crate::matmul).
    F32 = 1,
}
