//! Reading a packed matrix back.

use super::PackedB;
use crate::kernels::{Elements, LANES};
use half::{bf16, f16};

impl PackedB {
    /// Hands out column `j` of B, widened exactly: `(row, element)` for each row in turn.
    pub(crate) fn column(&self, j: usize, mut each: impl FnMut(usize, f32)) {
        if self.k == 0 {
            return; // no panel holds anything
        }
        let panels = self.panels();
        let step = panels.data.step();
        let panel = panels.run(0, j / LANES * LANES, LANES, LANES).0;
        for p in 0..self.k {
            let i = p / step * panel.k_stride + j % LANES * step + p % step;
            each(
                p,
                match panel.data {
                    Elements::F32(x) => x[i],
                    Elements::F16(x) => f16::from_bits(x[i]).to_f32(),
                    Elements::Bf16(x) | Elements::Bf16Rows(x) => bf16::from_bits(x[i]).to_f32(),
                },
            );
        }
    }
}
