//! Weights packed once and multiplied many times.

use super::Epilogue;
use super::blocking::panel_width;
use super::driver::{Source, run, workspace_bytes};
use super::pack::{Panels, pack_b};
use crate::buffer::{AlignedBuf, Workspace};
use crate::context::Context;
use crate::error::{Error, Result, equal};
use crate::view::{MatMut, MatRef};

/// An f32 matrix B in the order in which the register tiles read it, 64-byte aligned, in huge pages when it
/// is large.
///
/// The panels are as wide as the tile of the context that packed it; any other context multiplies with it
/// too, with the same bits, at most a little slower.
#[derive(Debug, Clone)]
pub struct PackedB {
    data: AlignedBuf<f32>, // (ceil(n / width), k, width)
    k: usize,
    n: usize,
    width: usize,
    kernel: &'static str,
}

impl PackedB {
    /// Packs `b`, plain or transposed.
    ///
    /// **Shapes**: `b`: (k, n); weights stored (out_features, in_features) are packed as `w.t()`.
    /// **Errors**: `Overflow`, `Resource` when memory is short. **Cost**: one pass over `b`; one allocation of
    /// `4 k n` bytes, n rounded up to 16.
    pub fn pack(ctx: &Context, b: MatRef<'_>) -> Result<PackedB> {
        let (k, n) = (b.rows(), b.cols());
        let elements = Panels::elements(k, n).ok_or(Error::Overflow { what: "packed b" })?;
        let mut data = AlignedBuf::zeroed(elements)?;
        let width = panel_width(ctx.kernels());
        if k > 0 {
            pack_b(b, (0, k), (0, n), width, data.as_mut_slice());
        }
        Ok(PackedB { data, k, n, width, kernel: ctx.kernels().names[0].1 })
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// The id of the kernel that the layout was made for, such as `avx512-f32-6x64`.
    pub fn kernel_id(&self) -> &'static str {
        self.kernel
    }

    pub(super) fn panels(&self) -> Panels<'_> {
        Panels { data: self.data.as_slice(), k: self.k, cols: self.n, width: self.width }
    }

    /// Bytes of workspace that [`PackedB::multiply`] needs for `m` rows.
    ///
    /// **Errors**: `Overflow`.
    pub fn workspace_bytes(&self, ctx: &Context, m: usize) -> Result<usize> {
        workspace_bytes(ctx, (m, self.n, self.k), true)
    }

    /// `C = beta * C + act(alpha * A * B + bias)`: as [`matmul`](super::matmul()), without packing B.
    ///
    /// **Shapes**: `a`: (m, k), `c`: (m, n). **Errors**: `Shape`, `Workspace`; nothing is changed then.
    /// **Panics**: never. **Cost**: `2mnk` flops; reads B once for each 6 rows; allocates nothing.
    pub fn multiply(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        a: MatRef<'_>,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        equal("a.cols", a.cols(), "must equal the packed b's k =", self.k)?;
        equal("c.cols", c.cols(), "must equal the packed b's n =", self.n)?;
        run(ctx, ws, a, Source::Packed(self), c, epilogue)
    }
}
