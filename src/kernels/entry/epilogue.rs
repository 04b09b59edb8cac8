//! Entry of the epilogue over accumulators in memory.

use crate::epilogue::Epilogue;
use crate::kernels::KernelSet;
use crate::kernels::generic::epilogue::EpilogueRow;
use crate::view::MatMut;

impl KernelSet {
    /// Applies `epilogue` to the accumulators in `acc` (`None`: they are in `c`). `col` is the column of the
    /// tile in the whole output, where its part of the bias starts; `gate` holds a factor for each element of
    /// the tile, row after row.
    pub(crate) fn epilogue(
        &self,
        mut acc: Option<MatMut<'_>>,
        gate: Option<&[f32]>,
        mut c: MatMut<'_>,
        col: usize,
        epilogue: &Epilogue<'_>,
    ) {
        let cols = c.cols();
        let bias = epilogue.bias.map_or(std::ptr::null(), |bias| bias[col..col + cols].as_ptr());
        for i in 0..c.rows() {
            let c = c.row(i);
            let acc = match &mut acc {
                Some(acc) => {
                    let acc = acc.row(i);
                    assert!(acc.len() == cols);
                    acc.as_ptr()
                }
                None => c.as_ptr(),
            };
            let row = EpilogueRow {
                acc,
                c: c.as_mut_ptr(),
                bias,
                gate: gate.map_or(std::ptr::null(), |gate| gate[i * cols..(i + 1) * cols].as_ptr()),
                cols,
                alpha: epilogue.alpha,
                beta: epilogue.beta,
                activation: epilogue.activation,
            };
            // SAFETY: CPU checked; acc, c, bias and gate have `cols` elements each.
            unsafe { (self.epilogue)(&row) }
        }
    }
}
