//! Row reductions (NUMERICS rule 4): element i belongs to lane i mod 16, lanes accumulate in ascending i
//! and are folded by halves.

use super::elementwise::{self, ElementRow, Scale};
use super::math::exp;
use super::{IOTA, LANES};
use crate::kernels::simd::Simd;

/// One row in, one row out.
#[derive(Clone, Copy)]
pub(crate) struct NormRow {
    pub x: *const f32,    // (n)
    pub y: *mut f32,      // (n), may be `x`
    pub gain: *const f32, // (n), or null
    pub bias: *const f32, // (n), or null
    pub n: usize,
    /// What [`rms_norm`] divides the sum of squares by.
    pub divisor: f32,
    pub eps: f32,
    /// The least root that [`rms_norm`] divides by.
    pub floor: f32,
}

/// `x * gain + bias`, each part where the row has it, loaded by `$load`.
macro_rules! affine {
    ($s:expr, $r:expr, $x:expr, |$p:ident| $load:expr) => {{
        macro_rules! from {
            ($start:expr) => {{
                let $p = $start;
                $load
            }};
        }
        match ($r.gain.is_null(), $r.bias.is_null()) {
            (true, true) => $x,
            (true, false) => $s.add($x, from!($r.bias)),
            (false, true) => $s.mul($x, from!($r.gain)),
            (false, false) => $s.fma($x, from!($r.gain), from!($r.bias)),
        }
    }};
}

/// Accumulates `body(acc, x[i])` lane by lane; lanes beyond `n` see `fill`.
macro_rules! reduce {
    ($s:expr, $x:expr, $n:expr, $start:expr, $fill:expr, |$acc:ident, $v:ident| $body:expr) => {{
        let mut $acc = $start;
        let mut j = 0;
        while j + LANES <= $n {
            // SAFETY: lanes j..j + 16 lie inside a row of n that the caller vouches for.
            let $v = unsafe { $s.load($x.add(j)) };
            $acc = $body;
            j += LANES;
        }
        if j < $n {
            // SAFETY: lanes j..n of the same row.
            let $v = fill_tail($s, unsafe { $s.load_n($x.add(j), $n - j) }, $n - j, $fill);
            $acc = $body;
        }
        $acc
    }};
}

/// Runs `body` for each vector of a row and `flush` after each run of [`RUN`] elements, `first` after the
/// first; lanes beyond `n` see `fill`.
macro_rules! in_runs {
    ($s:expr, $x:expr, $n:expr, $fill:expr, |$v:ident| $body:block, |$first:ident| $flush:block) => {{
        let mut j = 0;
        while j < $n {
            let $first = j == 0;
            let end = $n.min(j + RUN);
            while j + LANES <= end {
                // SAFETY: lanes j..j + 16 lie inside a row of n that the caller vouches for.
                let $v = unsafe { $s.load($x.add(j)) };
                $body
                j += LANES;
            }
            if j < end {
                // SAFETY: lanes j..n of the same row.
                let $v = fill_tail($s, unsafe { $s.load_n($x.add(j), end - j) }, end - j, $fill);
                $body
                j = end;
            }
            $flush
        }
    }};
}

/// Elements of a run of a compensated sum: 8 plain additions a lane, then one [`Sum::add`]. Compensation
/// after every addition would be 7 instructions a vector instead of 7 in 8 vectors, and a plain sum loses a
/// bit for each doubling of the row.
const RUN: usize = 8 * LANES;

/// Sums of 16 lanes and, apart, of what their roundings lost.
#[derive(Clone, Copy)]
struct Sum<F> {
    high: F,
    low: F,
}

impl<F: Copy> Sum<F> {
    #[inline(always)]
    fn new(zero: F) -> Sum<F> {
        Sum { high: zero, low: zero }
    }

    /// Adds `x` by Knuth's two-sum: `error` is exactly what the rounding of `high` loses. To nothing, as the
    /// `first`, without it: short rows do not wait for an error of 0.
    #[inline(always)]
    fn add<S: Simd<F32s = F>>(&mut self, s: S, x: F, first: bool) {
        if first {
            self.high = x;
            return;
        }
        let high = s.add(self.high, x);
        let added = s.sub(high, self.high);
        let error = s.add(s.sub(self.high, s.sub(high, added)), s.sub(x, added));
        *self = Sum { high, low: s.add(self.low, error) };
    }

    /// Both parts, folded by halves.
    #[inline(always)]
    fn total<S: Simd<F32s = F>>(self, s: S) -> f64 {
        f64::from(s.fold_add(self.high)) + f64::from(s.fold_add(self.low))
    }
}

/// Sets lanes `n..` of `x` to `fill`.
#[inline(always)]
fn fill_tail<S: Simd>(s: S, x: S::F32s, n: usize, fill: S::F32s) -> S::F32s {
    // SAFETY: IOTA holds 16 f32.
    let iota = unsafe { s.load(IOTA.as_ptr()) };
    s.select_lt(iota, s.splat(n as f32), x, fill)
}

/// The maximum of a row, NaN left out; -inf for an empty one.
///
/// # Safety
/// - `x` is valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn max<S: Simd>(s: S, x: *const f32, n: usize) -> f32 {
    let low = s.splat(f32::NEG_INFINITY);
    let max = reduce!(s, x, n, low, low, |acc, v| s.max(v, acc));
    s.fold_max(max)
}

/// The least mean square that is taken as it is, 2^-100. A square that underflows, by at most 2^-149, is less
/// than 2^-49 of it.
const LEAST_SQUARE: f32 = 1.0 / (1u128 << 100) as f32;

/// Whether neither the sum behind a mean square (with eps) overflowed nor underflows count in it.
#[inline(always)]
fn in_range(square: f32) -> bool {
    (LEAST_SQUARE..=f32::MAX).contains(&square)
}

/// Moves a row whose squares left the range of f32 into `y`, times the power of two that takes its largest
/// element (or the square root of `eps`, or `floor`, if that is more) to about 2^40, and those with it: the
/// result is the same number, and the same bits where nothing was lost. False if there is nothing to gain.
///
/// # Safety
/// - as for the callers.
#[inline(always)]
unsafe fn rescale<S: Simd>(s: S, r: &mut NormRow) -> bool {
    let zero = s.splat(0.0);
    let largest = s.fold_max(reduce!(s, r.x, r.n, zero, zero, |acc, v| s.max(s.abs(v), acc)));
    let size = f64::from(largest.max(r.eps.sqrt()).max(r.floor));
    // As f64 no f32 is subnormal: the exponent is where it always is.
    let exponent = (size.to_bits() >> 52) as i32 - 1023;
    let power = (40 - exponent).min(127);
    if size == 0.0 || size.is_infinite() || power == 0 {
        return false;
    }
    let by = f32::from_bits(((power + 127) as u32) << 23);
    r.eps = (f64::from(r.eps) * f64::from(by) * f64::from(by)) as f32;
    r.floor *= by;
    // SAFETY: the row; x may be y.
    unsafe {
        let row = ElementRow { x: r.x, z: std::ptr::null(), y: r.y, n: r.n, by: [by, 0.0] };
        elementwise::row::<S, Scale>(s, &row)
    };
    r.x = r.y;
    true
}

/// `1 / sqrt(square)`; 0 for 0, so that a row without deviation gives zeros whatever eps is.
#[inline(always)]
fn inverse_root(square: f32) -> f32 {
    if square == 0.0 { 0.0 } else { 1.0 / square.sqrt() }
}

/// `y = (x - mean) / sqrt(var + eps) * gain + bias`.
///
/// The mean is `shift + rest`: `shift` an f32 close to it, `rest` the mean of the differences `d = x -
/// shift`, which is as exact as they are small. `shift` itself is `x[0]` plus the mean of `x - x[0]`, so that
/// a large mean costs no digits, and a row of equal elements gives differences of exactly 0. Then `var =
/// mean(d^2) - rest^2`, where `rest^2` is at most about half of the first term.
///
/// # Safety
/// - the pointers are valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn layer_norm<S: Simd>(s: S, r: &NormRow) {
    if r.n == 0 {
        return;
    }
    let zero = s.splat(0.0);
    // Multiplied by, where a division would keep the next pass waiting.
    let by_n = 1.0 / r.n as f64;
    let mut r = *r;
    let (shift, inv, offset) = loop {
        // SAFETY: n > 0.
        let first = unsafe { *r.x };
        let minus_first = s.splat(-first);
        let (mut sum, mut run) = (zero, zero);
        in_runs!(
            s,
            r.x,
            r.n,
            s.splat(first),
            |x| {
                run = s.add(run, s.add(x, minus_first));
            },
            |_first| {
                sum = s.add(sum, run);
                run = zero;
            }
        );
        let shift = first + s.fold_add(sum) * by_n as f32;
        let minus_shift = s.splat(-shift);
        let (mut sum, mut squares, mut run_of_squares) = (Sum::new(zero), Sum::new(zero), zero);
        in_runs!(
            s,
            r.x,
            r.n,
            s.splat(shift),
            |x| {
                let d = s.add(x, minus_shift);
                run = s.add(run, d);
                run_of_squares = s.fma(d, d, run_of_squares);
            },
            |first| {
                sum.add(s, run, first);
                squares.add(s, run_of_squares, first);
                (run, run_of_squares) = (zero, zero);
            }
        );
        let rest = sum.total(s) * by_n;
        let square = (squares.total(s) * by_n - rest * rest + f64::from(r.eps)) as f32;
        // SAFETY: as the caller says.
        if in_range(square) || !unsafe { rescale(s, &mut r) } {
            let inv = inverse_root(square);
            break (minus_shift, inv, -rest as f32 * inv);
        }
    };
    let constants = [shift, s.splat(inv), s.splat(offset)];
    let mut j = 0;
    while j + LANES <= r.n {
        // SAFETY: lanes j..j + 16 lie inside the row.
        unsafe {
            let x = deviation(s, s.load(r.x.add(j)), constants);
            s.store(r.y.add(j), affine!(s, r, x, |p| s.load(p.add(j))));
        }
        j += LANES;
    }
    if j < r.n {
        let n = r.n - j;
        // SAFETY: lanes j..n.
        unsafe {
            let x = deviation(s, s.load_n(r.x.add(j), n), constants);
            s.store_n(r.y.add(j), affine!(s, r, x, |p| s.load_n(p.add(j), n)), n);
        }
    }
}

/// `(x - shift) * inv + offset`, from minus the shift.
#[inline(always)]
fn deviation<S: Simd>(s: S, x: S::F32s, [minus_shift, inv, offset]: [S::F32s; 3]) -> S::F32s {
    s.fma(s.add(x, minus_shift), inv, offset)
}

/// `y = x / max(sqrt(sum(x^2) / divisor + eps), floor) * gain`, as `(x * inv) * gain`.
///
/// # Safety
/// - the pointers are valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn rms_norm<S: Simd>(s: S, r: &NormRow) {
    if r.n == 0 {
        return;
    }
    let zero = s.splat(0.0);
    let mut r = *r;
    let inv = loop {
        let squares = reduce!(s, r.x, r.n, zero, zero, |acc, v| s.fma(v, v, acc));
        let square = s.fold_add(squares) / r.divisor + r.eps;
        let least = r.floor * r.floor;
        // Not `max`, which would take a NaN for nothing.
        let square = if least > square { least } else { square };
        // SAFETY: as the caller says.
        if in_range(square) || !unsafe { rescale(s, &mut r) } {
            break inverse_root(square);
        }
    };
    let inv = s.splat(inv);
    let mut j = 0;
    while j + LANES <= r.n {
        // SAFETY: lanes j..j + 16 lie inside the row.
        unsafe {
            let x = s.mul(s.load(r.x.add(j)), inv);
            let y = if r.gain.is_null() { x } else { s.mul(x, s.load(r.gain.add(j))) };
            s.store(r.y.add(j), y);
        }
        j += LANES;
    }
    if j < r.n {
        let n = r.n - j;
        // SAFETY: lanes j..n.
        unsafe {
            let x = s.mul(s.load_n(r.x.add(j), n), inv);
            let y = if r.gain.is_null() { x } else { s.mul(x, s.load_n(r.gain.add(j), n)) };
            s.store_n(r.y.add(j), y, n);
        }
    }
}

/// `x = exp(x - max) / sum`, in place. A row of -inf gives zeros.
///
/// # Safety
/// - `x` is valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn softmax<S: Simd>(s: S, x: *mut f32, n: usize) {
    // SAFETY: as the caller says.
    let m = unsafe { max(s, x, n) };
    let reference = s.splat(if m == f32::NEG_INFINITY { 0.0 } else { m });
    let zero = s.splat(0.0);
    let mut sum = zero;
    let mut j = 0;
    while j < n {
        let lanes = LANES.min(n - j);
        // SAFETY: lanes j..j + lanes < n.
        unsafe {
            let p = fill_tail(s, exp(s, s.sub(s.load_n(x.add(j), lanes), reference)), lanes, zero);
            s.store_n(x.add(j), p, lanes);
            sum = s.add(sum, p);
        }
        j += LANES;
    }
    let sum = s.fold_add(sum);
    // SAFETY: as the caller says.
    unsafe { divide(s, x, n, sum) };
}

/// `x = x / by`, in place; zeros when `by` is zero.
///
/// # Safety
/// - `x` is valid for `n` f32.
#[inline(always)]
pub(crate) unsafe fn divide<S: Simd>(s: S, x: *mut f32, n: usize, by: f32) {
    let divisor = s.splat(if by == 0.0 { 1.0 } else { by });
    let mut j = 0;
    while j < n {
        let lanes = LANES.min(n - j);
        // SAFETY: lanes j..j + lanes < n.
        unsafe { s.store_n(x.add(j), s.div(s.load_n(x.add(j), lanes), divisor), lanes) };
        j += LANES;
    }
}
