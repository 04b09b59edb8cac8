//! f32 products, and what all products have in common.

use super::args::{
    Array, Options, Span, choose, exclusive, flag, no_flags, optional, put, read_or_default, shared, span_of,
    stored,
};
use super::context::kvern_context;
use super::guard;
use super::status::{Checked, kvern_status};
use super::workspace::kvern_workspace;
use crate::matmul::{Element, matmul, matmul_workspace_bytes};
use crate::{Activation, Epilogue, MatMut, MatRef, Workspace};

/// A function of one element: a `KVERN_ACTIVATION_*` number.
pub type kvern_activation = i32;

/// x
pub const KVERN_ACTIVATION_IDENTITY: kvern_activation = 0;
/// max(x, 0)
pub const KVERN_ACTIVATION_RELU: kvern_activation = 1;
/// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the tanh form (Gemma, GPT-2, SigLIP)
pub const KVERN_ACTIVATION_GELU: kvern_activation = 2;
/// x / (1 + e^-x)
pub const KVERN_ACTIVATION_SILU: kvern_activation = 3;
/// 0.5 x (1 + erf(x / sqrt(2))): the exact form of GELU (BERT, Whisper)
pub const KVERN_ACTIVATION_GELU_ERF: kvern_activation = 4;
/// x / (1 + e^(-1.702 x)): quick GELU (CLIP)
pub const KVERN_ACTIVATION_GELU_QUICK: kvern_activation = 5;
/// max(x, 0)^2 (Nemotron)
pub const KVERN_ACTIVATION_RELU_SQUARED: kvern_activation = 6;
/// 1 / (1 + e^-x)
pub const KVERN_ACTIVATION_SIGMOID: kvern_activation = 7;
/// tanh(x)
pub const KVERN_ACTIVATION_TANH: kvern_activation = 8;
/// ln(1 + e^x)
pub const KVERN_ACTIVATION_SOFTPLUS: kvern_activation = 9;
/// e^x
pub const KVERN_ACTIVATION_EXP: kvern_activation = 10;

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

const _: () = assert!(
    size_of::<kvern_epilogue>() == 2 * size_of::<usize>() + 16,
    "no padding, or garbage becomes an option"
);
// SAFETY: numbers and a raw pointer: every pattern is a value.
unsafe impl Options for kvern_epilogue {}

/// The activation of a number.
#[inline(never)]
pub(super) fn activation(what: &'static str, number: kvern_activation) -> Checked<Activation> {
    let values = Activation::ALL.map(|act| (act as i32, act));
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
    #[inline(never)]
    pub unsafe fn read(epilogue: *const kvern_epilogue, n: usize) -> Checked<Finish> {
        // SAFETY: handed on to the caller.
        let raw = unsafe { read_or_default("epilogue", epilogue)? };
        no_flags("epilogue->flags", raw.flags)?;
        let bias = optional(raw.bias, |bias| Array::new("epilogue->bias", bias, n))?;
        Ok(Finish { raw, activation: activation("epilogue->activation", raw.activation)?, bias })
    }

    /// The memory that it reads.
    #[inline(always)]
    pub fn span(&self) -> Span {
        span_of(&self.bias)
    }

    /// # Safety
    /// - the bias is readable for `'a`.
    #[inline(never)]
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

/// What a product with packed weights takes besides them, as C passes it.
pub(super) struct Operands<T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const f32, // (m, k)
    pub a_row_stride: usize,
    pub c: *mut T, // (m, n)
    pub c_row_stride: usize,
    pub epilogue: *const kvern_epilogue,
}

impl<T> Operands<T> {
    /// The same with a result of another type.
    pub fn cast<U>(self) -> Operands<U> {
        let Operands { m, n, k, a, a_row_stride, c, c_row_stride, epilogue } = self;
        Operands { m, n, k, a, a_row_stride, c: c.cast(), c_row_stride, epilogue }
    }
}

impl<T: Element> Operands<T> {
    /// Checks everything and runs the product.
    ///
    /// # Safety
    /// - pointers are NULL or live, and their shapes are true; `ws` and the result are used by nothing else.
    pub unsafe fn run(
        self,
        ws: *mut kvern_workspace,
        product: impl FnOnce(&mut Workspace, MatRef<'_>, MatMut<'_, T>, &Epilogue<'_>) -> crate::Result<()>,
    ) -> Checked<()> {
        let Operands { m, n, k, .. } = self;
        // SAFETY: handed on to the caller.
        unsafe {
            let ws = exclusive("ws", ws)?;
            let finish = Finish::read(self.epilogue, n)?;
            let a = Array::matrix("a", self.a, m, k, self.a_row_stride)?;
            let c = Array::matrix("c", self.c, m, n, self.c_row_stride)?;
            let c = c.apart_from(&[a.span(), finish.span()])?;
            let (a, c, epilogue) = (a.view()?, c.view_mut()?, finish.get());
            Ok(ws.0.change("ws", |ws| product(ws, a, c, &epilogue))??)
        }
    }
}

/// `*out` = the bytes of workspace that `kvern_matmul` needs for these sizes, whatever the strides.
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
pub unsafe extern "C" fn kvern_matmul(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_have_the_numbers_of_the_safe_api() {
        let numbers = [
            KVERN_ACTIVATION_IDENTITY,
            KVERN_ACTIVATION_RELU,
            KVERN_ACTIVATION_GELU,
            KVERN_ACTIVATION_SILU,
            KVERN_ACTIVATION_GELU_ERF,
            KVERN_ACTIVATION_GELU_QUICK,
            KVERN_ACTIVATION_RELU_SQUARED,
            KVERN_ACTIVATION_SIGMOID,
            KVERN_ACTIVATION_TANH,
            KVERN_ACTIVATION_SOFTPLUS,
            KVERN_ACTIVATION_EXP,
        ];
        for (number, act) in numbers.into_iter().zip(Activation::ALL) {
            assert_eq!(activation("x", number).ok(), Some(act));
        }
        assert_eq!(activation("x", KVERN_ACTIVATION_IDENTITY).ok(), Some(Activation::default()));
    }
}
