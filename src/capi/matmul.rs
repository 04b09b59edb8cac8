//! f32 products, plain and with a packed B.

use super::args::{Array, Options, Span, choose, exclusive, flag, put, read_or_default, shared, stored};
use super::context::kvern_context;
use super::status::{Failure, KVERN_STATUS_UNSUPPORTED, kvern_status};
use super::workspace::kvern_workspace;
use super::{Checked, create, destroy, guard};
use crate::matmul::{matmul, matmul_workspace_bytes};
use crate::{Activation, Epilogue, PackedB};

/// A function of one element: a `KVERN_ACTIVATION_*` number.
pub type kvern_activation = i32;

/// x
pub const KVERN_ACTIVATION_IDENTITY: kvern_activation = 0;
/// max(x, 0)
pub const KVERN_ACTIVATION_RELU: kvern_activation = 1;
/// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
pub const KVERN_ACTIVATION_GELU: kvern_activation = 2;
/// x / (1 + e^-x)
pub const KVERN_ACTIVATION_SILU: kvern_activation = 3;

/// What happens to a finished product AB: `C = beta * C + act(alpha * AB + bias)`. Start from
/// KVERN_EPILOGUE_INIT; NULL instead of a pointer to it means `C = AB`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_epilogue {
    /// sizeof(kvern_epilogue).
    pub struct_size: usize,
    /// Factor of the product; 0 means 1.
    pub alpha: f32,
    /// Factor of what C holds already. With 0, C is not read; with 1, it is a residual.
    pub beta: f32,
    /// Added to each row, n elements; NULL for none. Must not overlap C.
    pub bias: *const f32,
    /// Applied after the bias.
    pub activation: kvern_activation,
    /// 0: no flag is defined.
    pub flags: u32,
}

const _: () = assert!(size_of::<kvern_epilogue>() == 32, "no padding, or garbage becomes an option");
// SAFETY: numbers and a raw pointer: every pattern is a value.
unsafe impl Options for kvern_epilogue {}

/// An f32 matrix B, packed once and multiplied many times. Immutable.
#[derive(Debug)]
pub struct kvern_packed_b(PackedB);

/// The activation of a number.
#[inline(always)]
pub(super) fn activation(what: &'static str, number: kvern_activation) -> Checked<Activation> {
    use Activation::{Gelu, Identity, Relu, Silu};
    let values = [Identity, Relu, Gelu, Silu].map(|act| (act as i32, act));
    choose(what, number, "a KVERN_ACTIVATION number", &values)
}

/// A checked epilogue.
pub(super) struct Finish {
    raw: kvern_epilogue,
    activation: Activation,
    bias: Option<Array<f32>>, // (n)
}

impl Finish {
    /// # Safety
    /// - `epilogue` is NULL or points to `struct_size` readable bytes.
    #[inline(always)]
    pub unsafe fn read(epilogue: *const kvern_epilogue, n: usize) -> Checked<Finish> {
        // SAFETY: handed on to the caller.
        let raw = unsafe { read_or_default("epilogue", epilogue)? };
        if raw.flags != 0 {
            let message = format!("epilogue->flags = {} must be 0", raw.flags);
            return Err(Failure::new(KVERN_STATUS_UNSUPPORTED, message));
        }
        let bias = if raw.bias.is_null() { None } else { Some(Array::new("epilogue->bias", raw.bias, n)?) };
        Ok(Finish { raw, activation: activation("epilogue->activation", raw.activation)?, bias })
    }

    /// The memory that it reads.
    #[inline(always)]
    pub fn span(&self) -> Span {
        self.bias.map_or(("epilogue->bias", 0..0), |bias| bias.span())
    }

    /// # Safety
    /// - the bias is readable for `'a`.
    #[inline(always)]
    pub unsafe fn get<'a>(&self) -> Epilogue<'a> {
        let alpha = if self.raw.alpha == 0.0 { 1.0 } else { self.raw.alpha };
        let epilogue = Epilogue::default().scaled(alpha, self.raw.beta).activation(self.activation);
        match self.bias {
            // SAFETY: handed on to the caller.
            Some(bias) => epilogue.bias(unsafe { bias.get() }),
            None => epilogue,
        }
    }
}

/// `*out` = the bytes of workspace that `kvern_matmul_run` needs for these sizes, whatever the strides.
///
/// Errors: NULL_POINTER, OVERFLOW. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_matmul_workspace_bytes(
    ctx: *const kvern_context,
    m: usize,
    n: usize,
    k: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: both pointers are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, matmul_workspace_bytes(&shared("ctx", ctx)?.context, m, n, k)?) })
}

/// `C = beta * C + act(alpha * A * B + bias)`, f32, row-major, strides in elements.
///
/// `a`: (m, k), stored (k, m) when `transpose_a` is 1. `b`: (k, n), stored (n, k) when `transpose_b` is 1.
/// `c`: (m, n), must not overlap the inputs. `epilogue`: NULL for `C = A * B`.
/// Each element of A * B is one chain of fused multiply-adds over k ascending. Allocates nothing.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (a stride below its row), OPTION, UNSUPPORTED, ALIASED,
/// WORKSPACE, POISONED; C is unchanged then. Threads: `ctx` shared, `ws` and C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_matmul_run(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    transpose_a: i32,
    b: *const f32,
    b_row_stride: usize,
    transpose_b: i32,
    c: *mut f32,
    c_row_stride: usize,
    epilogue: *const kvern_epilogue,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, ws) = (shared("ctx", ctx)?, exclusive("ws", ws)?);
        let (at, bt) = (flag("transpose_a", transpose_a)?, flag("transpose_b", transpose_b)?);
        let finish = Finish::read(epilogue, n)?;
        let a = stored("a", a, (m, k), a_row_stride, at)?;
        let b = stored("b", b, (k, n), b_row_stride, bt)?;
        let c =
            Array::matrix("c", c, m, n, c_row_stride)?.apart_from(&[a.span(), b.span(), finish.span()])?;
        let (a, b) = (a.view()?, b.view()?);
        let (a, b) = (if at { a.t() } else { a }, if bt { b.t() } else { b });
        let (c, epilogue) = (c.view_mut()?, finish.get());
        Ok(ws.0.change("ws", |ws| matmul(&ctx.context, ws, a, b, c, &epilogue))??)
    })
}

/// Packs B for many products. `b` is not needed afterwards.
///
/// `b`: (k, n), f32, row-major, stride in elements; stored (n, k) when `transpose_b` is 1, as weights
/// (out_features, in_features) are. `out`: receives the object, NULL on failure. Any context may use it.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_pack(
    ctx: *const kvern_context,
    k: usize,
    n: usize,
    b: *const f32,
    b_row_stride: usize,
    transpose_b: i32,
    out: *mut *mut kvern_packed_b,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let ctx = shared("ctx", ctx)?;
            let transposed = flag("transpose_b", transpose_b)?;
            let b = stored("b", b, (k, n), b_row_stride, transposed)?.view()?;
            Ok(kvern_packed_b(PackedB::pack(&ctx.context, if transposed { b.t() } else { b })?))
        })
    })
}

/// `*out` = the bytes that the packed matrix holds.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_bytes(b: *const kvern_packed_b, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("b", b)?.0.bytes()) })
}

/// `*out` = the bytes of workspace that `kvern_packed_b_multiply` needs for m rows.
///
/// Errors: NULL_POINTER, OVERFLOW. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_workspace_bytes(
    ctx: *const kvern_context,
    b: *const kvern_packed_b,
    m: usize,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: all are NULL or live, by the header's contract.
    guard(|| unsafe {
        let (ctx, b) = (shared("ctx", ctx)?, shared("b", b)?);
        put("out", out, b.0.workspace_bytes(&ctx.context, m)?)
    })
}

/// `C = beta * C + act(alpha * A * B + bias)` with a packed B: the bits of `kvern_matmul_run`, sooner.
///
/// `a`: (m, k), `c`: (m, n), f32, row-major, strides in elements; n and k must be those of B. `c` must not
/// overlap the inputs. `epilogue`: NULL for `C = A * B`. Allocates nothing.
/// Errors: as `kvern_matmul_run`. Threads: `ctx` and `b` shared, `ws` and C exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_multiply(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    b: *const kvern_packed_b,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    a_row_stride: usize,
    c: *mut f32,
    c_row_stride: usize,
    epilogue: *const kvern_epilogue,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, ws, b) = (shared("ctx", ctx)?, exclusive("ws", ws)?, shared("b", b)?);
        let finish = Finish::read(epilogue, n)?;
        let a = Array::matrix("a", a, m, k, a_row_stride)?;
        let c = Array::matrix("c", c, m, n, c_row_stride)?.apart_from(&[a.span(), finish.span()])?;
        let (a, c, epilogue) = (a.view()?, c.view_mut()?, finish.get());
        Ok(ws.0.change("ws", |ws| b.0.multiply(&ctx.context, ws, a, c, &epilogue))??)
    })
}

/// Frees the packed matrix. NULL is a no-op.
///
/// Threads: `b` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_destroy(b: *mut kvern_packed_b) {
    // SAFETY: `b` is NULL or live and exclusive, by the header's contract.
    unsafe { destroy(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_have_the_numbers_of_the_safe_api() {
        let (silu, gelu) = (KVERN_ACTIVATION_SILU, KVERN_ACTIVATION_GELU);
        assert_eq!((Activation::Silu as i32, Activation::Gelu as i32), (silu, gelu));
        assert_eq!(activation("x", KVERN_ACTIVATION_RELU).ok(), Some(Activation::Relu));
        assert_eq!(activation("x", KVERN_ACTIVATION_IDENTITY).ok(), Some(Activation::default()));
    }
}
