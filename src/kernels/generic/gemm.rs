//! The register tile: MR rows by NV vectors of 16 columns, broadcast-FMA, B in f32, f16 or bf16; and the two
//! loops around it.
//!
//! LOOP 2 (A micropanels of MR rows) and LOOP 1 (B micropanels of NV vectors) run inside the kernel: between
//! two tiles lie 24 stores and one mispredicted branch, which the FMAs still in flight hide. Rejected: one
//! call for each tile, with its checks and its indirect branch (docs/TUNING.md).
//!
//! `c[i][j] = chain over k ascending of fma(a[i][k], b[k][j], acc)` (NUMERICS rule 1). A is broadcast from
//! memory, B loaded in full vectors; nothing is shuffled, nothing summed across lanes. 6x64 on AVX-512:
//! 24 accumulators, and for each k 24 FMA against 10 loads (42 % of the load port on Zen 4). This is the
//! shape of the BLIS "sup" kernels (Van Zee, Parikh, van de Geijn 2020).
//!
//! f16 and bf16 weights are widened exactly in registers, 1 or 2 operations a vector on ports that FMA does
//! not use, and join the same chain: the result has the bits of the product with the widened weights.

use super::LANES;
use super::accumulators::{load_tile, store_tile};
use super::epilogue::{self, EpilogueArgs};
use crate::kernels::simd::Simd;

/// An element type of B: how 16 columns of `STEP` consecutive k are stored and widened.
pub(crate) trait Element {
    /// What memory holds.
    type Raw: Copy;
    /// Steps of k that are stored together: element `(k, j)` of a vector lies at `j * STEP + k % STEP`.
    const STEP: usize;

    /// The 16 columns of step `step < STEP`.
    ///
    /// # Safety
    /// - `p` is valid for reads of `16 * STEP` elements.
    unsafe fn widen<S: Simd>(s: S, p: *const Self::Raw, step: usize) -> S::F32s;
}

/// f32: as it is.
pub(crate) struct F32;

impl Element for F32 {
    type Raw = f32;
    const STEP: usize = 1;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const f32, _step: usize) -> S::F32s {
        // SAFETY: 16 elements, as the caller says.
        unsafe { s.load(p) }
    }
}

/// f16: one conversion a vector.
pub(crate) struct F16;

impl Element for F16 {
    type Raw = u16;
    const STEP: usize = 1;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u16, _step: usize) -> S::F32s {
        // SAFETY: 16 elements, as the caller says.
        unsafe { s.load_f16(p) }
    }
}

/// bf16 in pairs of k, the operand of `vdpbf16ps`: a shift or a mask widens one of the pair, where single
/// elements would need a shuffle on the port of the FMA.
pub(crate) struct Bf16;

impl Element for Bf16 {
    type Raw = u16;
    const STEP: usize = 2;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u16, step: usize) -> S::F32s {
        // SAFETY: 32 elements, as the caller says.
        unsafe {
            if step == 0 { s.bf16_first(s.load_bf16_pairs(p)) } else { s.bf16_second(s.reload_bf16_pairs(p)) }
        }
    }
}

/// bf16 one after the other, for contractions whose ends are not even (values by keys).
pub(crate) struct Bf16Row;

impl Element for Bf16Row {
    type Raw = u16;
    const STEP: usize = 1;

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, p: *const u16, _step: usize) -> S::F32s {
        // SAFETY: 16 elements, as the caller says.
        unsafe { s.load_bf16(p) }
    }
}

/// Operands of `a_panels x b_panels` register tiles. Strides of B are in its elements and for whole groups of
/// `STEP` k.
pub(crate) struct GemmTile {
    pub k: usize,
    pub a: *const f32, // (a_panels, MR, k): element (i, p) at i * a_row_stride + p * a_k_stride
    pub a_row_stride: usize,
    pub a_k_stride: usize,
    pub a_panel_stride: usize,
    pub b: *const u8, // (b_panels, k / STEP, NV, 16, STEP): (g, v) at g * b_k_stride + v * b_vec_stride
    pub b_k_stride: usize,
    pub b_vec_stride: usize,
    pub b_panel_stride: usize,
    /// The C tile: loaded if `accumulate`, stored unless `epilogue` is set; null if neither.
    pub c: *mut f32, // (a_panels * MR, 16 * (b_panels * NV - 1) + tail), row i at c + i * c_row_stride
    pub c_row_stride: usize,
    pub a_panels: usize,
    pub b_panels: usize,
    /// Columns of the very last vector that exist in C: 1..=16.
    pub tail: usize,
    /// Whether the accumulators start from what C holds (a later block of k) or from +0.0.
    pub accumulate: bool,
    /// Applied to the accumulators after the last k; null: they are stored in C.
    pub epilogue: *const EpilogueArgs,
}

/// Depth from which rows of A and C are far apart and likely not in L1: a tile prefetches its part of C, and
/// with the last B micropanel the next A micropanel. Rejected: software prefetch of B, which slows
/// one row down at every distance (docs/TUNING.md, `FAR_K`).
const FAR_K: usize = 256;

/// Rows of a tile from which prefetching pays: fewer wait for B.
const FAR_ROWS: usize = 4;

/// Rows of A that one pointer reaches with the address modes of x86, and the row from which on a second one
/// is used where there are more: see [`Simd::opaque`].
const NEAR_ROWS: usize = 4;
const SPLIT: usize = 3;

/// How the accumulators of a tile take up its products.
pub(crate) trait Accumulate<S: Simd> {
    /// Bytes of an element of B.
    const B_BYTES: usize;

    /// Adds the products of all k of the tile at `a` and `b` to `acc`; `prefetch_a` is where the next tile
    /// reads its A, if that is another micropanel and far away.
    ///
    /// # Safety
    /// - every element of A and B (full vectors of whole groups) that the comments of [`GemmTile`] name is
    ///   valid, and B is aligned to its elements.
    unsafe fn add<const MR: usize, const NV: usize>(
        s: S,
        t: &GemmTile,
        a: *const f32,
        b: *const u8,
        prefetch_a: Option<*const f32>,
        acc: &mut [[S::F32s; NV]; MR],
    );
}

/// FMA chains with the weights widened exactly.
pub(crate) struct Exact<E>(std::marker::PhantomData<E>);

impl<S: Simd, E: Element> Accumulate<S> for Exact<E> {
    const B_BYTES: usize = size_of::<E::Raw>();

    #[inline(always)]
    unsafe fn add<const MR: usize, const NV: usize>(
        s: S,
        t: &GemmTile,
        mut a: *const f32,
        b: *const u8,
        mut prefetch_a: Option<*const f32>,
        acc: &mut [[S::F32s; NV]; MR],
    ) {
        if S::FMA_BY_LANE && t.a_k_stride == 1 {
            // SAFETY: handed on to the caller.
            return unsafe { add_by_lane::<S, E, MR, NV>(s, t, a, b, prefetch_a, acc) };
        }
        let mut b = b.cast::<E::Raw>();
        let mut below = if MR > NEAR_ROWS { s.opaque(a.wrapping_add(SPLIT * t.a_row_stride)) } else { a };
        /// One step of k.
        macro_rules! step {
            ($step:expr) => {
                let mut bv = [s.splat(0.0); NV];
                for j in 0..NV {
                    // SAFETY: vector j < NV of a group below k of B.
                    bv[j] = unsafe { E::widen(s, b.add(j * t.b_vec_stride), $step) };
                }
                for i in 0..MR {
                    let (first, i_of) =
                        if MR > NEAR_ROWS && i >= SPLIT { (below, i - SPLIT) } else { (a, i) };
                    // SAFETY: element p < k of row i < MR of A.
                    let av = s.splat(unsafe { *first.add(i_of * t.a_row_stride) });
                    for j in 0..NV {
                        acc[i][j] = s.fma(av, bv[j], acc[i][j]);
                    }
                }
            };
        }
        /// To the next k. Wrapping: after the last one both point past their operand and are not followed.
        macro_rules! advance {
            () => {
                a = a.wrapping_add(t.a_k_stride);
                below = below.wrapping_add(t.a_k_stride);
            };
        }
        let mut groups = t.k / E::STEP;
        while groups > 0 {
            let mut some = groups;
            if let Some(next) = &mut prefetch_a {
                some = groups.min(LANES / E::STEP);
                prefetch_line::<S, MR>(s, next, t.a_row_stride);
            }
            groups -= some;
            for _ in 0..some {
                step!(0);
                advance!();
                if E::STEP == 2 {
                    step!(1);
                    advance!();
                }
                b = b.wrapping_add(t.b_k_stride);
            }
        }
        if t.k % E::STEP == 1 {
            step!(0);
        }
    }
}

/// Prefetches a line of each row of the next A micropanel: once for each line of this one.
#[inline(always)]
fn prefetch_line<S: Simd, const MR: usize>(s: S, next: &mut *const f32, row_stride: usize) {
    for i in 0..MR {
        s.prefetch(next.wrapping_add(i * row_stride));
    }
    *next = next.wrapping_add(LANES);
}

/// [`Accumulate::add`] of [`Exact`] where rows of A are contiguous and a multiply-add takes its factor from a
/// lane: A is loaded four k at a time.
///
/// # Safety
/// - as for [`Accumulate::add`].
#[inline(always)]
#[allow(unused_assignments, reason = "B advances after the last step too")]
unsafe fn add_by_lane<S: Simd, E: Element, const MR: usize, const NV: usize>(
    s: S,
    t: &GemmTile,
    mut a: *const f32,
    b: *const u8,
    mut prefetch_a: Option<*const f32>,
    acc: &mut [[S::F32s; NV]; MR],
) {
    let mut b = b.cast::<E::Raw>();
    let mut left = t.k;
    /// One step of k.
    macro_rules! step {
        ($k:literal, $i:ident, $b:ident, $c:ident => $product:expr) => {
            for j in 0..NV {
                // SAFETY: vector j < NV of a group below k of B.
                let $b = unsafe { E::widen(s, b.add(j * t.b_vec_stride), $k % E::STEP) };
                for $i in 0..MR {
                    let $c = acc[$i][j];
                    acc[$i][j] = $product;
                }
            }
            if $k % E::STEP + 1 == E::STEP {
                // Wrapping: after the last k it points past its operand and is not followed.
                b = b.wrapping_add(t.b_k_stride);
            }
        };
    }
    while left >= 4 {
        if let Some(next) = &mut prefetch_a
            && (t.k - left).is_multiple_of(LANES)
        {
            prefetch_line::<S, MR>(s, next, t.a_row_stride);
        }
        let mut av = [s.splat(0.0); MR];
        for i in 0..MR {
            // SAFETY: four elements below k of row i < MR of A.
            av[i] = unsafe { s.load_four(a.add(i * t.a_row_stride)) };
        }
        step!(0, i, b, c => s.fma_lane::<0>(av[i], b, c));
        step!(1, i, b, c => s.fma_lane::<1>(av[i], b, c));
        step!(2, i, b, c => s.fma_lane::<2>(av[i], b, c));
        step!(3, i, b, c => s.fma_lane::<3>(av[i], b, c));
        a = a.wrapping_add(4);
        left -= 4;
    }
    /// One of the last three steps of k.
    macro_rules! last {
        ($k:literal) => {
            if left > $k {
                // SAFETY: element $k of those that are left, of row i < MR of A.
                step!($k, i, b, c => s.fma(s.splat(unsafe { *a.add(i * t.a_row_stride + $k) }), b, c));
            }
        };
    }
    last!(0);
    last!(1);
    last!(2);
}

/// # Safety
/// - every element of A, B (full vectors of whole groups), C and the operands of `epilogue` that the comments
///   of [`GemmTile`] and [`EpilogueArgs`] name is valid, and B is aligned to its elements.
#[inline(always)]
pub(crate) unsafe fn tiles<S: Simd, D: Accumulate<S>, const MR: usize, const NV: usize>(s: S, t: &GemmTile) {
    // LOOP 2: A micropanels of MR rows; one of them (6 x 512 x 4 = 12 KiB) stays in L1.
    for a_panel in 0..t.a_panels {
        let a = t.a.wrapping_add(a_panel * t.a_panel_stride);
        // LOOP 1: B micropanels of NV vectors stream from L2.
        for b_panel in 0..t.b_panels {
            let b = t.b.wrapping_add(b_panel * t.b_panel_stride * D::B_BYTES);
            let (row, col) = (a_panel * MR, b_panel * NV * LANES);
            let c = t.c.wrapping_add(row * t.c_row_stride + col);
            let tail = if b_panel + 1 == t.b_panels { t.tail } else { LANES };
            let far = MR >= FAR_ROWS && t.k >= FAR_K;
            if far {
                for i in 0..MR {
                    for j in 0..NV {
                        s.prefetch(c.wrapping_add(i * t.c_row_stride + j * LANES));
                    }
                }
            }
            let next_a_panel =
                far && t.a_k_stride == 1 && b_panel + 1 == t.b_panels && a_panel + 1 < t.a_panels;
            let prefetch_a = if next_a_panel { Some(a.wrapping_add(t.a_panel_stride)) } else { None };
            let mut acc = [[s.splat(0.0); NV]; MR];
            if t.accumulate {
                // SAFETY: the tile at (row, col) of C is valid, as the caller says.
                unsafe { load_tile::<S, MR, NV>(s, c, t.c_row_stride, tail, &mut acc) };
            }
            // SAFETY: a_panel and b_panel are in range: A and B are valid, as the caller says.
            unsafe { D::add::<MR, NV>(s, t, a, b, prefetch_a, &mut acc) };
            // SAFETY: a pointer that is not null is valid, and so are the operands, as the caller says.
            unsafe {
                match t.epilogue.as_ref() {
                    None => store_tile::<S, MR, NV>(s, c, t.c_row_stride, tail, &acc),
                    Some(f) => epilogue::apply::<S, MR, NV>(s, f, (row, col), tail, acc),
                }
            }
        }
    }
}
