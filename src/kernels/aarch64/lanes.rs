//! Helpers of 16 lanes, which are four registers.

/// Evaluates an expression of register-only instructions. They are `unsafe` to call here only because the
/// methods of [`Simd`](crate::kernels::simd::Simd) cannot carry `#[target_feature]` themselves.
macro_rules! v {
    ($e:expr) => {{
        // SAFETY: a token proves that the CPU has the features (its constructor checked them), and no
        // operand is a pointer.
        unsafe { $e }
    }};
}
pub(super) use v;

/// The same expression for the four registers of 16 lanes, `$r` being 0 to 3. No closures: one that is
/// compiled inside a function of std would be compiled without the features.
macro_rules! each {
    ($r:ident => $e:expr) => {
        v!([
            {
                let $r = 0usize;
                $e
            },
            {
                let $r = 1usize;
                $e
            },
            {
                let $r = 2usize;
                $e
            },
            {
                let $r = 3usize;
                $e
            },
        ])
    };
}
pub(super) use each;
