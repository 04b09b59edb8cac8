//! Inputs of the benches: small seeded numbers, aligned buffers, serial contexts.

use kvern::buffer::AlignedBuf;
use kvern::{Context, ContextOptions, Isa, MatMut, MatRef, Workspace};

/// A serial context at `isa`. It computes something once, so that no first use is left for the measured call.
pub fn context(isa: Isa) -> Context {
    let ctx = Context::new(&ContextOptions::default().isa_cap(isa)).expect("Valgrind has the tier");
    kvern::ops::softmax(&ctx, MatMut::dense(&mut [0.0; 4], 1, 4).expect("shape"));
    ctx
}

/// A matrix that owns its elements, aligned to cache lines: peeled loops must not depend on addresses.
pub struct Mat {
    data: AlignedBuf<f32>,
    rows: usize,
    cols: usize,
}

impl Mat {
    /// Seeded numbers in -1..1.
    pub fn new(rows: usize, cols: usize, seed: u32) -> Mat {
        let mut mat = Mat::zeros(rows, cols);
        let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
        for x in mat.data.as_mut_slice() {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        }
        mat
    }

    pub fn zeros(rows: usize, cols: usize) -> Mat {
        Mat { data: AlignedBuf::zeroed(rows * cols).expect("memory"), rows, cols }
    }

    pub fn as_slice(&self) -> &[f32] {
        self.data.as_slice()
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self.data.as_mut_slice()
    }

    pub fn view(&self) -> MatRef<'_> {
        self.first(self.rows)
    }

    pub fn view_mut(&mut self) -> MatMut<'_> {
        self.first_mut(self.rows)
    }

    /// The first `rows` rows.
    pub fn first(&self, rows: usize) -> MatRef<'_> {
        MatRef::dense(self.data.as_slice(), rows, self.cols).expect("shape")
    }

    /// The first `rows` rows.
    pub fn first_mut(&mut self, rows: usize) -> MatMut<'_> {
        MatMut::dense(self.data.as_mut_slice(), rows, self.cols).expect("shape")
    }

    /// Columns `from..from + cols` of all rows.
    pub fn columns(&self, from: usize, cols: usize) -> MatRef<'_> {
        MatRef::new(&self.as_slice()[from..], self.rows, cols, self.cols).expect("shape")
    }
}

/// A workspace of plenty: its size changes no count.
pub fn workspace() -> Workspace {
    Workspace::new(8 << 20).expect("memory")
}
