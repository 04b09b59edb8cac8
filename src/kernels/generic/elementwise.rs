//! Element-wise rows: activations, gated products, sums, scaled copies.

use super::LANES;
use super::math;
use crate::kernels::simd::Simd;

/// `y = f(x, z)` over `n` elements; `z` is not read by the operations of one operand.
pub(crate) struct ElementRow {
    pub x: *const f32, // (n)
    pub z: *const f32, // (n)
    pub y: *mut f32,   // (n), may be `x` or `z`
    pub n: usize,
}

/// Defines one operation; `$z` is the second operand.
macro_rules! rowwise {
    ($(#[$doc:meta])* $name:ident, |$s:ident, $x:ident| $body:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// - `x` and `y` are valid for `n` f32.
        #[inline(always)]
        pub(crate) unsafe fn $name<S: Simd>($s: S, r: &ElementRow) {
            let mut j = 0;
            while j < r.n {
                let n = LANES.min(r.n - j);
                // SAFETY: lanes j..j + n lie inside the row.
                unsafe {
                    let $x = $s.load_n(r.x.add(j), n);
                    $s.store_n(r.y.add(j), $body, n);
                }
                j += LANES;
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, |$s:ident, $x:ident, $z:ident| $body:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// - `x`, `z` and `y` are valid for `n` f32.
        #[inline(always)]
        pub(crate) unsafe fn $name<S: Simd>($s: S, r: &ElementRow) {
            let mut j = 0;
            while j < r.n {
                let n = LANES.min(r.n - j);
                // SAFETY: lanes j..j + n lie inside the rows.
                unsafe {
                    let ($x, $z) = ($s.load_n(r.x.add(j), n), $s.load_n(r.z.add(j), n));
                    $s.store_n(r.y.add(j), $body, n);
                }
                j += LANES;
            }
        }
    };
}

rowwise!(
    /// `y = max(x, 0)`.
    relu, |s, x| math::relu(s, x)
);
rowwise!(
    /// `y = gelu(x)` (tanh form).
    gelu, |s, x| math::gelu(s, x)
);
rowwise!(
    /// `y = silu(x)`.
    silu, |s, x| math::silu(s, x)
);
rowwise!(
    /// `y = silu(x) * z`.
    silu_mul, |s, x, z| s.mul(math::silu(s, x), z)
);
rowwise!(
    /// `y = x + z`.
    add, |s, x, z| s.add(x, z)
);

/// `y = x * by`.
///
/// # Safety
/// - `x` and `y` are valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn scale<S: Simd>(s: S, r: &ElementRow, by: f32) {
    let by = s.splat(by);
    let mut j = 0;
    while j < r.n {
        let n = LANES.min(r.n - j);
        // SAFETY: lanes j..j + n lie inside the row.
        unsafe { s.store_n(r.y.add(j), s.mul(s.load_n(r.x.add(j), n), by), n) };
        j += LANES;
    }
}
