//! Weights packed once and multiplied many times.

use super::blocking::panel_width;
use super::driver::{run, scratch_bytes, workspace_bytes};
use super::pack::{BlockOfB, Panels, Source, Span, pack_b};
use super::patches::Patches;
use super::request::{Request, Size};
use crate::buffer::{AlignedBuf, Arena, Workspace};
use crate::context::Context;
use crate::dtype::{Dtype, Element};
use crate::epilogue::{Epilogue, Precision};
use crate::error::{Error, Result, equal};
use crate::fp_mode;
use crate::kernels::{Elements, KernelId};
use crate::view::{MatMut, MatRef};
use bytemuck::Pod;
use half::{bf16, f16};

/// An element type of weights: f32, [`f16`](struct@f16) or [`bf16`].
pub trait Weight: Element {
    #[doc(hidden)]
    fn pack(ctx: &Context, b: MatRef<'_, Self>, elements: usize) -> Result<Storage>;
}

impl Weight for f32 {
    fn pack(ctx: &Context, b: MatRef<'_, f32>, elements: usize) -> Result<Storage> {
        Ok(Storage::F32(filled(ctx, b, 1, elements)?))
    }
}

impl Weight for f16 {
    fn pack(ctx: &Context, b: MatRef<'_, f16>, elements: usize) -> Result<Storage> {
        Ok(Storage::F16(filled(ctx, b, 1, elements)?))
    }
}

impl Weight for bf16 {
    fn pack(ctx: &Context, b: MatRef<'_, bf16>, elements: usize) -> Result<Storage> {
        Ok(Storage::Bf16(filled(ctx, b, 2, elements)?))
    }
}

/// A buffer with `b` packed in it.
fn filled<T: Pod, U: Pod>(
    ctx: &Context,
    b: MatRef<'_, T>,
    step: usize,
    elements: usize,
) -> Result<AlignedBuf<U>> {
    let mut data = AlignedBuf::zeroed_in(ctx.memory(), elements)?;
    let block = BlockOfB { k: Span { start: 0, len: b.rows() }, cols: Span { start: 0, len: b.cols() } };
    pack_b(ctx.kernels(), b, block, (panel_width(ctx.kernels()), step), data.as_mut_slice());
    Ok(data)
}

/// The packed elements.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub enum Storage {
    F32(AlignedBuf<f32>),
    F16(AlignedBuf<u16>),
    Bf16(AlignedBuf<u16>),
}

/// A matrix B in the order in which the register tiles read it, in its own element type, 64-byte aligned, in
/// huge pages when it is large. f16 and bf16 stay 2 bytes and are widened exactly in registers.
///
/// The panels are as wide as the tile of the context that packed it; any other context multiplies with it
/// too, with the same bits, at most a little slower.
#[derive(Debug, Clone)]
pub struct PackedB {
    pub(super) data: Storage, // (ceil(n / width), groups of k, width, k in group)
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) width: usize,
    pub(super) kernel: KernelId,
}

impl PackedB {
    /// Packs `b`, plain or transposed, of f32, [`f16`](struct@f16) or [`bf16`].
    ///
    /// **Shapes**: `b`: (k, n); weights stored (out_features, in_features) are packed as `w.t()`. **Errors**:
    /// `Overflow`, `Resource` when memory is short. **Cost**: one pass over `b`; one allocation of k * n
    /// elements, n rounded up to 16 (and k to 2 for bf16).
    pub fn pack<T: Weight>(ctx: &Context, b: MatRef<'_, T>) -> Result<PackedB> {
        let _mode = fp_mode::default_mode();
        let (k, n) = (b.rows(), b.cols());
        let data = T::pack(ctx, b, PackedB::elements(T::DTYPE, k, n)?)?;
        let width = panel_width(ctx.kernels());
        Ok(PackedB { data, k, n, width, kernel: ctx.kernels().gemm_id() })
    }

    /// Elements held for a (k, n) matrix of `dtype`.
    pub(super) fn elements(dtype: Dtype, k: usize, n: usize) -> Result<usize> {
        let padded_k = if dtype == Dtype::Bf16 { k.checked_next_multiple_of(2) } else { Some(k) };
        padded_k.and_then(|k| Panels::elements(k, n)).ok_or(Error::Overflow { what: "packed b" })
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        match self.data {
            Storage::F32(_) => Dtype::F32,
            Storage::F16(_) => Dtype::F16,
            Storage::Bf16(_) => Dtype::Bf16,
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Storage::F32(data) => data.bytes(),
            Storage::F16(data) | Storage::Bf16(data) => data.bytes(),
        }
    }

    /// The id of the kernel that the layout was made for, such as `avx512-f32-6x64`.
    pub fn kernel_id(&self) -> &str {
        self.kernel.as_str()
    }

    pub(super) fn panels(&self) -> Panels<'_> {
        let data = match &self.data {
            Storage::F32(data) => Elements::F32(data.as_slice()),
            Storage::F16(data) => Elements::F16(data.as_slice()),
            Storage::Bf16(data) => Elements::Bf16(data.as_slice()),
        };
        Panels { k: self.k.next_multiple_of(data.step()), data, cols: self.n, width: self.width }
    }

    /// Bytes of workspace that are enough for [`PackedB::multiply`] of up to `m` rows.
    ///
    /// **Errors**: `Overflow`.
    pub fn workspace_bytes(&self, ctx: &Context, m: usize) -> Result<usize> {
        workspace_bytes(ctx, Size { m, n: self.n, k: self.k }, true)
    }

    /// `C = beta * C + act(alpha * A * B + bias)`: as [`matmul`](super::matmul()), without packing B.
    ///
    /// **Shapes**: `a`: (m, k), `c`: (m, n). **Numerics**: the bits of the product with B widened to f32.
    /// **Errors**: `Shape`, `Workspace`; nothing is changed then. **Panics**: never. **Cost**: `2mnk` flops;
    /// reads B once for each 192 rows from memory; allocates nothing.
    pub fn multiply(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        a: MatRef<'_>,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        self.multiply_with(ctx, ws, Precision::Exact, a, c, epilogue)
    }

    /// [`PackedB::multiply`] with a choice of precision and of the type of the result.
    ///
    /// **Numerics**: see [`Precision`]; an f16 or bf16 result is the f32 one rounded once, ties to even.
    /// **Errors**: as [`PackedB::multiply`]; `Option` for a beta with a result that is not f32.
    pub fn multiply_with<T: Element>(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        precision: Precision,
        a: MatRef<'_>,
        c: MatMut<'_, T>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        self.check(a, &c)?;
        let b = Source::Packed(self.panels());
        run(ctx, ws.all(), &Request { precision, a, patches: None, b, up: None, epilogue: *epilogue }, c)
    }

    /// The gate of a feed-forward layer in one pass: `C = act(alpha * A * B + bias) * (A * UP)`, with B this
    /// matrix and `act` usually SiLU.
    ///
    /// **Shapes**: `a`: (m, k), `up`: packed (k, n), `c`: (m, n). **Numerics**: the bits of both products,
    /// the activation, and one multiplication, each rounded once. **Errors**: `Shape`, `Workspace`; `Option`
    /// for a beta. **Cost**: `4mnk` flops; neither product is written to memory.
    #[allow(clippy::too_many_arguments)] // a product with one operand more
    pub fn multiply_gated<T: Element>(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        precision: Precision,
        a: MatRef<'_>,
        up: &PackedB,
        c: MatMut<'_, T>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        self.check(a, &c)?;
        equal("up.k", up.k, "must equal the packed b's k =", self.k)?;
        equal("up.n", up.n, "must equal the packed b's n =", self.n)?;
        let b = Source::Packed(self.panels());
        run(
            ctx,
            ws.all(),
            &Request { precision, a, patches: None, b, up: Some(up.panels()), epilogue: *epilogue },
            c,
        )
    }

    /// A convolution: `C = beta * C + act(alpha * A * B + bias)` with a row of A for each patch of some
    /// images or sequences, and B the weights, (kernel height * kernel width * channels, out).
    ///
    /// **Shapes**: `c`: (patches, n). **Workspace**: [`PackedB::workspace_bytes`] for as many rows as there
    /// are patches. **Numerics**: the bits of [`PackedB::multiply`] with the patches as rows of a matrix: a
    /// chain over the places of the kernel, line by line, padding as zeros. **Errors**: `Shape`, `Workspace`;
    /// nothing is changed then. **Panics**: never. **Cost**: that of the product and a copy of each block of
    /// patches, in cache, once for each block of columns; the matrix of patches is nowhere whole. Allocates
    /// nothing. **Source**: own; the implicit im2col of cuDNN (Chetlur et al. 2014).
    pub fn convolve(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        patches: &Patches<'_>,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        let a = MatRef::of_shape(patches.rows(), patches.cols());
        self.check(a, &c)?;
        let (precision, b) = (Precision::Exact, Source::Packed(self.panels()));
        let patches = Some(patches);
        run(ctx, ws.all(), &Request { precision, a, patches, b, up: None, epilogue: *epilogue }, c)
    }

    /// The bytes of workspace that a product (gated with `up`) takes with these arguments, for a caller that
    /// starts several products only if all of them can run.
    pub(crate) fn bytes_of_multiply(
        &self,
        ctx: &Context,
        a: MatRef<'_>,
        up: Option<&PackedB>,
        c: &MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<usize> {
        self.check(a, c)?;
        let (precision, b, up) = (Precision::Exact, Source::Packed(self.panels()), up.map(PackedB::panels));
        scratch_bytes(ctx, &Request { precision, a, patches: None, b, up, epilogue: *epilogue }, c)
    }

    /// [`PackedB::multiply`] with scratch from the start of `arena`.
    pub(crate) fn multiply_in(
        &self,
        ctx: &Context,
        arena: Arena<'_>,
        a: MatRef<'_>,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        self.check(a, &c)?;
        let (precision, b) = (Precision::Exact, Source::Packed(self.panels()));
        run(ctx, arena, &Request { precision, a, patches: None, b, up: None, epilogue: *epilogue }, c)
    }

    fn check<T: Element>(&self, a: MatRef<'_>, c: &MatMut<'_, T>) -> Result<()> {
        equal("a.cols", a.cols(), "must equal the packed b's k =", self.k)?;
        equal("c.cols", c.cols(), "must equal the packed b's n =", self.n)
    }
}
