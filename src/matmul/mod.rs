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
mod patches;
#[doc(hidden)]
pub mod reference;
mod request;

pub use crate::dtype::{Dtype, Element};
pub use crate::epilogue::{Activation, Epilogue, Precision};
pub(crate) use blob::MAGIC as FLOATS_MAGIC;
pub use packed_b::{PackedB, Weight};
pub use patches::{Extent, Patches, Window};

use crate::buffer::Workspace;
use crate::context::Context;
use crate::error::{Result, equal};
use crate::view::{MatMut, MatRef};
use driver::run;
use pack::Source;
use request::{Request, Size};

/// Bytes of workspace that are enough for [`matmul`] of up to `m` rows, `(m, k) x (k, n)`, with any strides,
/// transposes and epilogue.
///
/// **Errors**: `Overflow` for sizes beyond the address space.
pub fn matmul_workspace_bytes(ctx: &Context, m: usize, n: usize, k: usize) -> Result<usize> {
    driver::workspace_bytes(ctx, Size { m, n, k }, false)
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
    run(ctx, ws.all(), &Request { precision, a, patches: None, b, up: None, epilogue: *epilogue }, c)
}
