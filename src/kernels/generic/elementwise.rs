//! Element-wise rows: activations, gated products, sums, scaled copies.

use super::LANES;
use super::math;
use crate::epilogue::Activation;
use crate::kernels::simd::Simd;

/// `y = f(x, z)` over `n` elements.
pub(crate) struct ElementRow {
    pub x: *const f32, // (n)
    pub z: *const f32, // (n); not read by operations of one operand
    pub y: *mut f32,   // (n), may be `x` or `z`
    pub n: usize,
    /// Numbers that are the same for all elements: see each operation.
    pub by: [f32; 2],
}

/// An operation on single elements.
pub(crate) trait Operation {
    /// Whether there is a second operand.
    const BINARY: bool;
    fn of<S: Simd>(s: S, x: S::F32s, z: S::F32s, by: [S::F32s; 2]) -> S::F32s;
}

/// Applies an operation to a row.
///
/// # Safety
/// - `x` and `y`, and `z` for operations of two operands, are valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn row<S: Simd, O: Operation>(s: S, r: &ElementRow) {
    let by = [s.splat(r.by[0]), s.splat(r.by[1])];
    let mut j = 0;
    while j < r.n {
        let n = LANES.min(r.n - j);
        // SAFETY: lanes j..j + n lie inside the rows.
        unsafe {
            let x = s.load_n(r.x.add(j), n);
            let z = if O::BINARY { s.load_n(r.z.add(j), n) } else { x };
            s.store_n(r.y.add(j), O::of(s, x, z, by), n);
        }
        j += LANES;
    }
}

/// `act(x)`, A being the number of the activation.
pub(crate) struct Activate<const A: usize>;

impl<const A: usize> Operation for Activate<A> {
    const BINARY: bool = false;
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F32s, _: S::F32s, _: [S::F32s; 2]) -> S::F32s {
        math::activate(s, Activation::ALL[A], x)
    }
}

/// `act(x) * z`, A being the number of the activation.
pub(crate) struct Gate<const A: usize>;

impl<const A: usize> Operation for Gate<A> {
    const BINARY: bool = true;
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F32s, z: S::F32s, _: [S::F32s; 2]) -> S::F32s {
        s.mul(math::activate(s, Activation::ALL[A], x), z)
    }
}

/// Instances of a function, one for each activation, by its number.
macro_rules! for_each_activation {
    ($f:ident, $operation:ident) => {
        [
            $f::<$operation<0>>,
            $f::<$operation<1>>,
            $f::<$operation<2>>,
            $f::<$operation<3>>,
            $f::<$operation<4>>,
            $f::<$operation<5>>,
            $f::<$operation<6>>,
            $f::<$operation<7>>,
            $f::<$operation<8>>,
            $f::<$operation<9>>,
            $f::<$operation<10>>,
        ]
    };
}
pub(crate) use for_each_activation;

/// `x + z`.
pub(crate) struct Add;

impl Operation for Add {
    const BINARY: bool = true;
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F32s, z: S::F32s, _: [S::F32s; 2]) -> S::F32s {
        s.add(x, z)
    }
}

/// `x + by[0] * z`, rounded once.
pub(crate) struct AddScaled;

impl Operation for AddScaled {
    const BINARY: bool = true;
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F32s, z: S::F32s, by: [S::F32s; 2]) -> S::F32s {
        s.fma(by[0], z, x)
    }
}

/// `x * by[0]`.
pub(crate) struct Scale;

impl Operation for Scale {
    const BINARY: bool = false;
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F32s, _: S::F32s, by: [S::F32s; 2]) -> S::F32s {
        s.mul(x, by[0])
    }
}

/// `by[0] * tanh(x / by[0])`.
pub(crate) struct Softcap;

impl Operation for Softcap {
    const BINARY: bool = false;
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F32s, _: S::F32s, by: [S::F32s; 2]) -> S::F32s {
        s.mul(by[0], math::tanh(s, s.div(x, by[0])))
    }
}

/// `g sigmoid(by[0] g) (u + 1)` with `g = min(x, by[1])` and `u = z` between `-by[1]` and `by[1]`.
pub(crate) struct SwigluOai;

impl Operation for SwigluOai {
    const BINARY: bool = true;
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F32s, z: S::F32s, by: [S::F32s; 2]) -> S::F32s {
        let [alpha, limit] = by;
        let g = s.min(limit, x);
        let u = s.max(s.neg(limit), s.min(limit, z));
        s.mul(math::scaled_silu(s, g, alpha, 0.0), s.add(u, s.splat(1.0)))
    }
}
