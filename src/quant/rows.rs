//! Activations that are quantised once, for products that do not come in one call.

use super::compute::Compute;
use super::driver::{Need, Product, REGION, multiply_region, quantize_rows_by};
use super::format::BLOCK;
use super::item::Shared;
use super::packed::{Body, PackedWeights};
use super::plan::row_bytes;
use crate::buffer::{AlignedBuf, Workspace};
use crate::context::Context;
use crate::dtype::{Dtype, Element};
use crate::error::{Error, Result, equal, option, product, text};
use crate::fp_mode;
use crate::kernels::{ActivationRows, Elements, KernelSet};
use crate::matmul::Epilogue;
use crate::view::{MatMut, MatRef};

/// Elements of a row that are widened at once: 2 KiB of stack.
const PART: usize = 512;

/// Rows of activations as products with int8 activations ([`Compute::Int8`]) read them, quantised once from
/// f32, f16 or bf16. [`multiply_many`](super::multiply_many) does the same within one call; this is for
/// products that follow each other: experts and a shared expert, branches of a layer that run in parallel.
#[derive(Debug, Clone)]
pub struct QuantizedRows {
    data: AlignedBuf<u8>, // (most, row_bytes)
    most: usize,
    rows: usize,
    k: usize,
}

impl QuantizedRows {
    /// Room for up to `most` rows of `k` elements, in the context's [`Memory`](crate::buffer::Memory).
    ///
    /// **Errors**: `Option` for a k that is no multiple of 32; `Overflow`; `Resource`.
    pub fn new(ctx: &Context, most: usize, k: usize) -> Result<QuantizedRows> {
        option(k.is_multiple_of(BLOCK), "k", k, "a multiple of 32")?;
        let bytes = product("quantised activations", &[most, row_bytes(k, Compute::Int8)])?;
        Ok(QuantizedRows { data: AlignedBuf::zeroed_in(ctx.memory(), bytes)?, most, rows: 0, k })
    }

    /// Quantises some rows, which take the place of those that were held.
    ///
    /// **Shapes**: `a`: (rows, k), plain, f32, f16 or bf16. **Numerics**: [`Compute::Int8`]; halves are
    /// widened exactly. **Errors**: `Shape` for more rows than there is room for or another k; `Option` for a
    /// transposed view; nothing is changed then. **Cost**: one pass; allocates nothing.
    pub fn quantize<T: Element>(&mut self, ctx: &Context, a: MatRef<'_, T>) -> Result<()> {
        let _mode = fp_mode::default_mode();
        equal("a.cols", a.cols(), "must equal k =", self.k)?;
        a.require_plain("a", "plain: rows are quantised as they lie")?;
        self.check_room("a.rows", a.rows())?;
        self.rows = a.rows();
        let row_bytes = row_bytes(self.k, Compute::Int8);
        let rows_q8 = &mut self.data.as_mut_slice()[..a.rows() * row_bytes];
        quantize_rows_by(ctx.executor(), (a.rows(), row_bytes), rows_q8, |i, out| {
            if let Some(x) = a.row(i) {
                quantize_row(ctx.kernels(), x, out);
            }
        })
    }

    /// Holds rows that were quantised before, with one scale for each token: `a[i][j] = scales[i] *
    /// codes[i][j]`. They take the place of those that were held.
    ///
    /// With weights of 8 bits and one scale for each output feature
    /// ([`GroupWise::symmetric`](super::import::GroupWise::symmetric), group k) a product is what is called
    /// W8A8.
    ///
    /// **Shapes**: `codes`: (rows, k), one after the other; `scales`: (rows). **Numerics**: as
    /// [`Compute::Int8`] with these numbers: dot products of 32 are exact, blocks are chained by FMA.
    /// **Errors**: `Shape` for more rows than there is room for or codes of another length; `Option` for a
    /// code of -128; nothing is changed then. **Cost**: one pass; allocates nothing.
    pub fn set(&mut self, ctx: &Context, codes: &[i8], scales: &[f32]) -> Result<()> {
        let _mode = fp_mode::default_mode();
        let len = product("codes", &[scales.len(), self.k])?;
        equal("codes.len", codes.len(), "must equal scales.len * k =", len)?;
        self.check_room("scales.len", scales.len())?;
        option(!codes.contains(&i8::MIN), "code", i8::MIN, "-127..=127")?;
        self.rows = scales.len();
        let (k, row_bytes) = (self.k, row_bytes(self.k, Compute::Int8));
        let rows_q8 = &mut self.data.as_mut_slice()[..scales.len() * row_bytes];
        quantize_rows_by(ctx.executor(), (scales.len(), row_bytes), rows_q8, |i, out| {
            ActivationRows::put(&codes[i * k..(i + 1) * k], scales[i], out);
        })
    }

    /// Refuses more rows than there is room for.
    fn check_room(&self, what: &'static str, rows: usize) -> Result<()> {
        let relation = "must be at most the rows that there is room for =";
        if rows > self.most {
            Err(Error::Shape { what, got: rows, relation, want: self.most })
        } else {
            Ok(())
        }
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// `C = beta * C + act(alpha * A * W^T + bias)` of each product, with these rows as A: the bits of
    /// [`multiply_many`](super::multiply_many) with [`Compute::Int8`].
    ///
    /// **Shapes**: of each product `c`: (rows, its n). **Workspace**:
    /// [`workspace_bytes_many`](super::workspace_bytes_many) is enough. **Errors**: as there; `Option` for
    /// weights of floats (of 8 bits too), which take activations as they are, and for weights with an order
    /// of k (GPTQ's act-order), whose activations are quantised in that order; nothing is changed then.
    /// **Panics**: never. Allocates nothing.
    pub fn multiply_many(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        products: &mut [Product<'_>],
    ) -> Result<()> {
        let _mode = fp_mode::default_mode();
        let a = MatRef::of_shape(self.rows, self.k);
        for p in products.iter() {
            for w in [Some(p.weights), p.up].into_iter().flatten() {
                let Body::Blocks(packed) = &w.body else {
                    let (got, allowed) = (text("floats"), "blocks or groups, which take int8");
                    return Err(Error::Option { what: "weights", got, allowed });
                };
                option(w.takes_int8(), "weights", "floats of 8 bits", "blocks or groups, which take int8")?;
                option(packed.order.is_none(), "weights", "with an order of k", "in plain order")?;
            }
        }
        let need = Need::of(ctx, Compute::Int8, a, products)?;
        let workers = product("workspace bytes", &[need.worker_bytes, need.executor.workers()])?;
        let scratch = ws.arena(workers)?.rest();
        let row_bytes = row_bytes(self.k, Compute::Int8);
        let rows_q8 = &self.data.as_slice()[..self.rows * row_bytes];
        let shared = Shared { kernels: ctx.kernels(), a, rows_q8, row_bytes, compute: Compute::Int8 };
        for region in products.chunks_mut(REGION) {
            multiply_region(need.executor, &shared, region, scratch, need.worker_bytes);
        }
        Ok(())
    }

    /// [`QuantizedRows::multiply_many`] of one product.
    pub fn multiply(
        &self,
        ctx: &Context,
        ws: &mut Workspace,
        weights: &PackedWeights,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        self.multiply_many(ctx, ws, &mut [Product { weights, up: None, c, epilogue: *epilogue }])
    }
}

/// Quantises one row; halves are widened part by part on the stack.
fn quantize_row<T: Element>(kernels: &KernelSet, x: &[T], out: &mut [u8]) {
    if T::DTYPE == Dtype::F32 {
        return kernels.quantize(bytemuck::cast_slice(x), out);
    }
    let mut wide = [0.0; PART];
    for (part, x) in x.chunks(PART).enumerate() {
        let (wide, halves) = (&mut wide[..x.len()], bytemuck::cast_slice(x));
        let from = if T::DTYPE == Dtype::F16 { Elements::F16(halves) } else { Elements::Bf16Rows(halves) };
        kernels.widen(from, wide);
        kernels.quantize(wide, &mut out[part * (PART / BLOCK) * ActivationRows::STEP..]);
    }
}
