//! f32 matrix products: `C = beta * C + act(alpha * A * B + bias)`.
//!
//! Five loops around a register tile, as in BLIS (Van Zee & van de Geijn 2015; Low et al. 2016). Each
//! element of `A * B` is one chain of fused multiply-adds over k ascending, so its bits depend on its row
//! of A and its column of B alone: not on m, n, blocking, threads or the instruction set.

mod blob;
mod blocking;
mod column;
mod driver;
mod item;
mod pack;
mod packed_b;
#[doc(hidden)]
pub mod reference;

pub(crate) use blob::MAGIC as FLOATS_MAGIC;
pub use packed_b::{Dtype, Output, PackedB, Weight};

use crate::buffer::Workspace;
use crate::context::Context;
use crate::error::{Result, at_least, equal};
use crate::view::{MatMut, MatRef};
use driver::{Request, Source, run};

/// A function that is applied to each element of a product before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum Activation {
    /// `x`
    #[default]
    Identity = 0,
    /// `max(x, 0)`
    Relu = 1,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
    Gelu = 2,
    /// `x / (1 + e^-x)`
    Silu = 3,
}

/// How closely a product follows the definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
#[non_exhaustive]
pub enum Precision {
    /// One chain of f32 FMA for each element: the same bits on every machine.
    #[default]
    Exact = 0,
    /// With bf16 weights, on CPUs with bf16 dot instructions: activations are rounded to bf16 (relative error
    /// 2^-8 each) and summed in f32, at twice the rate. The error is at most
    /// `(2^-8 + k * 2^-22) * sum |a||b|` while every activation lies below 3.3961775e38 (`2^128 - 2^119`, from
    /// where it rounds to infinity); activations, weights and sums below `2^-126` may count as 0. The bits depend on
    /// the instruction set, but not on threads or batch. Everywhere else the same as `Exact`.
    Fast = 1,
}

/// What happens to a finished product: `C = beta * C + act(alpha * AB + bias)`.
///
/// **Numerics**: in this order, each step one IEEE operation: `t = alpha * ab`, `t = t + bias[j]`,
/// `t = act(t)`, `c = fma(beta, c, t)`. With `beta = 0`, C is not read (NaN in it does not spread). With
/// `alpha = 0`, B is not read, and A is read only for the second product of a gated one. A residual addition
/// is `beta = 1`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Epilogue<'a> {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what C holds already.
    pub beta: f32,
    /// Added to each row, `(n)`.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Activation,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Epilogue { alpha: 1.0, beta: 0.0, bias: None, activation: Activation::Identity }
    }
}

impl<'a> Epilogue<'a> {
    /// Sets `alpha` and `beta`.
    pub fn scaled(mut self, alpha: f32, beta: f32) -> Self {
        (self.alpha, self.beta) = (alpha, beta);
        self
    }

    /// Sets the bias, `(n)`.
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Sets the activation.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Whether `C = AB` is all there is to do.
    pub(crate) fn is_plain(&self) -> bool {
        self.alpha == 1.0
            && self.beta == 0.0
            && self.bias.is_none()
            && self.activation == Activation::Identity
    }

    /// Checks the bias against the columns of C.
    pub(crate) fn validate(&self, n: usize) -> Result<()> {
        match self.bias {
            Some(bias) => equal("bias.len", bias.len(), "must equal c.cols =", n),
            None => Ok(()),
        }
    }
}

/// Bytes of workspace that are enough for [`matmul`] of up to `m` rows, `(m, k) x (k, n)`, with any strides,
/// transposes and epilogue.
///
/// **Errors**: `Overflow` for sizes beyond the address space.
pub fn matmul_workspace_bytes(ctx: &Context, m: usize, n: usize, k: usize) -> Result<usize> {
    driver::workspace_bytes(ctx, (m, n, k), false)
}

/// `C = beta * C + act(alpha * A * B + bias)`.
///
/// **Shapes**: `a`: (m, k), `b`: (k, n), `c`: (m, n); A and B may be transposed views. **Units**: strides in
/// elements. **Numerics**: one FMA chain over k for each element, see [`Epilogue`] for what follows; error of
/// the chain at most `k * 2^-24 * sum |a||b|`. **Errors**: `Shape` when dimensions disagree, `Workspace` when
/// `ws` is smaller than [`matmul_workspace_bytes`]; nothing is changed then. **Panics**: never.
/// **Cost**: `2mnk` flops; B is packed in blocks when more than 32 rows share it; allocates nothing.
/// **Source**: BLIS loops, own tiles.
///
/// ```
/// use kvern::{Context, Epilogue, MatMut, MatRef, Workspace, matmul};
/// let ctx = Context::serial();
/// let mut ws = Workspace::new(matmul::matmul_workspace_bytes(&ctx, 2, 2, 3)?)?;
/// let a = MatRef::dense(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3)?;
/// let mut c = [0.0; 4];
/// matmul::matmul(&ctx, &mut ws, a, a.t(), MatMut::dense(&mut c, 2, 2)?, &Epilogue::default())?;
/// assert_eq!(c, [14.0, 32.0, 32.0, 77.0]);
/// # Ok::<(), kvern::Error>(())
/// ```
pub fn matmul(
    ctx: &Context,
    ws: &mut Workspace,
    a: MatRef<'_>,
    b: MatRef<'_>,
    c: MatMut<'_>,
    epilogue: &Epilogue<'_>,
) -> Result<()> {
    equal("b.rows", b.rows(), "must equal a.cols =", a.cols())?;
    equal("c.cols", c.cols(), "must equal b.cols =", b.cols())?;
    let (precision, b) = (Precision::Exact, Source::Matrix(b));
    run(ctx, ws, &Request { precision, a, b, up: None, epilogue: *epilogue }, c)
}

/// The checks that every product of `a` into `c` shares.
fn validate<T: Output>(a: MatRef<'_>, c: &MatMut<'_, T>, epilogue: &Epilogue<'_>) -> Result<()> {
    equal("c.rows", c.rows(), "must equal a.rows =", a.rows())?;
    if c.rows() > 1 {
        at_least("c.row_stride", c.row_stride(), c.cols())?;
    }
    epilogue.validate(c.cols())
}
