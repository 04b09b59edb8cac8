//! The virtual machine that every algorithm is written for: 16 lanes of 32 bits.
//!
//! docs/NUMERICS.md fixes results for 16 virtual lanes, so the vector type of the algorithms has 16 lanes
//! everywhere: one zmm register, two ymm, four NEON registers, or an array. An algorithm in
//! [`generic`](super::generic) is written once against [`Simd`]; a tier implements the trait and instantiates
//! the algorithms behind `#[target_feature]`. Equal bits follow by construction: every method here is either
//! exact or one IEEE operation.
//!
//! Codes and their dot products, which only quantised products need, are in
//! [`SimdBytes`](super::simd_bytes::SimdBytes).
//!
//! A port starts with the methods that have no default, 32 in both traits: the defaults compose them, some of
//! them through arrays in memory, and have the same bits. A tuned tier overrides what its instructions do
//! better.
//!
//! Rules for implementations: every method is `#[inline(always)]` and *not* `#[target_feature]` (the two
//! cannot be combined); the features come from the kernel entry that everything is inlined into. Rejected:
//! hand-written kernels for each ISA, three times the code for the same instructions.

use super::lanes::{self, each, fold};
pub(crate) use super::lanes::{IOTA, LANES};

/// Proof that the CPU has an instruction set, with the operations on 16 lanes that it offers.
///
/// A value can only be made where the CPU was checked, so register-only methods are safe. Methods that
/// touch memory are `unsafe`: pointers need no alignment, but must be valid for the bytes named.
pub(crate) trait Simd: Copy {
    /// 16 x f32.
    type F32s: Copy;
    /// 16 x i32.
    type I32s: Copy;
    /// Tiles of 16 x 1 up to which a second accumulator for each is worth its registers.
    const DOUBLE_ACCUMULATOR_TILES: usize;
    /// Panels of a recurrent state whose sums fit the registers: 1 or 4.
    const STATE_PANELS: usize = 1;

    /// The token without the check.
    /// # Safety
    /// - the CPU has the instruction set.
    unsafe fn assume() -> Self;

    /// Prefetches the cache line at `p`, which need not be valid, into L1, where the ISA has such a hint.
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}
    /// Prefetches the cache line at `p`, which need not be valid, into L2.
    #[inline(always)]
    fn prefetch_l2(self, _p: *const u8) {}
    /// Returns `n`, of which the compiler knows nothing where that keeps a loop of n from being unrolled.
    #[inline(always)]
    fn rolled(self, n: usize) -> usize {
        n
    }

    /// Returns `p` with its provenance hidden from the optimiser. Otherwise LLVM derives rows 4 and 5 of a
    /// tile by running additions (x86 addressing reaches four rows): 29 instructions for each k step of the 6
    /// x 16 AVX2 tile instead of 25; the minimum is 20.
    #[inline(always)]
    fn opaque(self, p: *const f32) -> *const f32 {
        p
    }

    /// Whether a multiply-add takes its factor from any lane of a register ([`Simd::fma_lane`]) as cheaply as
    /// from all lanes, so that four factors need one load and no broadcast.
    const FMA_BY_LANE: bool = false;
    /// Four f32; the other lanes are any numbers.
    /// # Safety
    /// - `p` is valid for reads of 4 f32.
    #[inline(always)]
    unsafe fn load_four(self, p: *const f32) -> Self::F32s {
        // SAFETY: handed on to the caller.
        unsafe { self.load_n(p, 4) }
    }
    /// `a[L] * b + c` in each lane, rounded once; `L < 4`.
    #[inline(always)]
    fn fma_lane<const L: i32>(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s {
        self.fma(self.splat(self.lanes(a)[L as usize]), b, c)
    }

    fn splat(self, x: f32) -> Self::F32s;
    /// # Safety
    /// - `p` is valid for reads of 16 f32.
    unsafe fn load(self, p: *const f32) -> Self::F32s;
    /// The first `n <= 16` lanes; the others are +0.0.
    /// # Safety
    /// - `p` is valid for reads of `n` f32; nothing beyond is touched.
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F32s {
        // SAFETY: handed on to the caller.
        self.of_lanes(&unsafe { lanes::read_n(p, n) })
    }
    /// # Safety
    /// - `p` is valid for writes of 16 f32.
    unsafe fn store(self, p: *mut f32, v: Self::F32s);
    /// # Safety
    /// - `p` is valid for writes of `n <= 16` f32; nothing beyond is touched.
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { lanes::write_n(p, &self.lanes(v), n, |x| x) }
    }

    /// 16 x 16 f32: element `(i, j)` of `from` becomes element `(j, i)` of `to`; strides are from row to row.
    /// # Safety
    /// - `from` is valid for reads and `to` for writes of 16 rows of 16 f32.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: handed on to the caller.
        unsafe { lanes::transpose(from, from_stride, to, to_stride) }
    }

    /// The lanes as an array: what default methods compute with.
    #[inline(always)]
    fn lanes(self, v: Self::F32s) -> [f32; LANES] {
        // SAFETY: the array holds 16 f32.
        lanes::written(|p| unsafe { self.store(p, v) })
    }
    #[inline(always)]
    fn of_lanes(self, lanes: &[f32; LANES]) -> Self::F32s {
        // SAFETY: the array holds 16 f32.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// The bits of each lane.
    fn bits(self, a: Self::F32s) -> Self::I32s;
    /// The f32 of these bits.
    fn of_bits(self, a: Self::I32s) -> Self::F32s;

    fn add(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    fn sub(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    fn mul(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    fn div(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s;
    /// [`Simd::fma`] of single numbers. The default is for tiers with the instruction: without it the
    /// compiler would call the system's C library.
    #[inline(always)]
    fn fma_one(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    /// `a > b ? a : b` (so `b` when either is NaN).
    fn max(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a < b ? a : b` (so `b` when either is NaN).
    fn min(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    #[inline(always)]
    fn abs(self, a: Self::F32s) -> Self::F32s {
        self.of_bits(self.i_and(self.bits(a), i32::MAX))
    }
    /// The sign flipped.
    #[inline(always)]
    fn neg(self, a: Self::F32s) -> Self::F32s {
        self.of_bits(self.i_add(self.bits(a), self.i_splat(i32::MIN)))
    }
    /// `a < b ? x : y`, lane by lane (`y` when either is NaN).
    fn select_lt(self, a: Self::F32s, b: Self::F32s, x: Self::F32s, y: Self::F32s) -> Self::F32s;
    /// To the nearest integer, ties to even. For `|a| < 2^22`; larger values give any number, NaN gives NaN.
    #[inline(always)]
    fn round(self, a: Self::F32s) -> Self::F32s {
        // 1.5 * 2^23: the sum has no bits below 1.
        let magic = self.splat(12_582_912.0);
        self.sub(self.add(a, magic), magic)
    }
    /// `p * 2^n` for `p` in `[0.5, 2)` and integral `n` with a normal result or an overflow to infinity at
    /// `n = 128`; NaN in `p` stays NaN. Other inputs give any number.
    #[inline(always)]
    fn scale2(self, p: Self::F32s, n: Self::F32s) -> Self::F32s {
        let scaled = self.of_bits(self.i_add(self.bits(p), self.i_shl(self.f_to_i32(n), 23)));
        self.select_lt(p, self.splat(f32::INFINITY), scaled, p)
    }
    /// Lanes added by halves: 8, 4, 2, 1.
    #[inline(always)]
    fn fold_add(self, a: Self::F32s) -> f32 {
        fold(self.lanes(a), |x, y| x + y)
    }
    /// The maximum of the lanes, by halves.
    #[inline(always)]
    fn fold_max(self, a: Self::F32s) -> f32 {
        fold(self.lanes(a), |x, y| if x > y { x } else { y })
    }
    /// 16 f16 values widened exactly.
    /// # Safety
    /// - `p` is valid for reads of 16 u16.
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F32s {
        // SAFETY: handed on to the caller.
        self.of_lanes(&unsafe { lanes::read(p, lanes::of_f16) })
    }

    /// The first `n <= 16` lanes rounded to f16, ties to even.
    /// # Safety
    /// - `p` is valid for writes of `n` u16; nothing beyond is touched.
    #[inline(always)]
    unsafe fn store_f16_n(self, p: *mut u16, v: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { lanes::write_n(p, &self.lanes(v), n, lanes::to_f16) }
    }
    /// The first `n <= 16` lanes rounded to bf16, ties to even.
    /// # Safety
    /// - `p` is valid for writes of `n` u16; nothing beyond is touched.
    #[inline(always)]
    unsafe fn store_bf16_n(self, p: *mut u16, v: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { lanes::write_n(p, &self.lanes(v), n, lanes::to_bf16) }
    }
    /// 16 bf16 values widened exactly.
    /// # Safety
    /// - `p` is valid for reads of 16 u16.
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::F32s {
        // SAFETY: handed on to the caller.
        self.of_lanes(&unsafe { lanes::read(p, lanes::of_bf16) })
    }
    /// The low nibble of each lane of bytes, less 8, as f32.
    #[inline(always)]
    fn low_nibble(self, bytes: Self::I32s) -> Self::F32s {
        self.i_to_f32(self.i_sub(self.i_and(bytes, 15), self.i_splat(8)))
    }
    /// The high nibble of each lane of bytes, less 8, as f32.
    #[inline(always)]
    fn high_nibble(self, bytes: Self::I32s) -> Self::F32s {
        self.i_to_f32(self.i_sub(self.i_shr(bytes, 4), self.i_splat(8)))
    }
    /// What [`Simd::nibbles`] needs for a scale that all lanes share.
    #[inline(always)]
    fn nibble_scale(self, scale: f32) -> Self::F32s {
        self.splat(scale)
    }
    /// The low (0) or high (1) nibbles, less 8, times the scale, which is one rounding.
    #[inline(always)]
    fn nibbles(self, bytes: Self::I32s, which: usize, scale: Self::F32s) -> Self::F32s {
        self.mul(if which == 0 { self.low_nibble(bytes) } else { self.high_nibble(bytes) }, scale)
    }

    /// 16 pairs of bf16.
    /// # Safety
    /// - `p` is valid for reads of 32 u16.
    #[inline(always)]
    unsafe fn load_bf16_pairs(self, p: *const u16) -> Self::I32s {
        // SAFETY: handed on to the caller: 32 u16 are 16 pairs.
        self.i_of_lanes(&unsafe { lanes::read(p.cast(), lanes::pair) })
    }
    /// [`Simd::load_bf16_pairs`] as an access of its own: beside 24 accumulators no registers are left for
    /// four vectors of pairs, and the compiler, which merges equal loads, spilled six accumulators.
    /// # Safety
    /// - as for [`Simd::load_bf16_pairs`].
    #[inline(always)]
    unsafe fn reload_bf16_pairs(self, p: *const u16) -> Self::I32s {
        // SAFETY: handed on to the caller.
        unsafe { self.load_bf16_pairs(p) }
    }
    /// The first of each pair of bf16, widened exactly.
    #[inline(always)]
    fn bf16_first(self, pairs: Self::I32s) -> Self::F32s {
        self.of_bits(self.i_shl(pairs, 16))
    }
    /// The second of each pair of bf16, widened exactly.
    #[inline(always)]
    fn bf16_second(self, pairs: Self::I32s) -> Self::F32s {
        self.of_bits(self.i_and(pairs, !0xffff))
    }

    fn i_splat(self, x: i32) -> Self::I32s;
    fn i_add(self, a: Self::I32s, b: Self::I32s) -> Self::I32s;
    fn i_sub(self, a: Self::I32s, b: Self::I32s) -> Self::I32s;
    /// The low 32 bits of the product.
    fn i_mul(self, a: Self::I32s, b: Self::I32s) -> Self::I32s;
    fn i_and(self, a: Self::I32s, b: i32) -> Self::I32s;
    /// The bits in which `a` and `b` differ.
    #[inline(always)]
    fn i_xor(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        let (a, b) = (self.i_lanes(a), self.i_lanes(b));
        self.i_of_lanes(&each(|i| a[i] ^ b[i]))
    }
    /// `a << n`, the same n for all lanes.
    fn i_shl(self, a: Self::I32s, n: u32) -> Self::I32s;
    /// `a >> n`, zeros shifted in.
    fn i_shr(self, a: Self::I32s, n: u32) -> Self::I32s;
    /// `a >> n`, the sign shifted in.
    #[inline(always)]
    fn i_shr_signed(self, a: Self::I32s, n: u32) -> Self::I32s {
        let lanes = self.i_lanes(a);
        self.i_of_lanes(&each(|i| lanes[i] >> n))
    }
    /// # Safety
    /// - `p` is valid for reads of 16 i32.
    unsafe fn i_load(self, p: *const i32) -> Self::I32s;
    /// # Safety
    /// - `p` is valid for writes of 16 i32.
    unsafe fn i_store(self, p: *mut i32, a: Self::I32s);
    #[inline(always)]
    fn i_lanes(self, v: Self::I32s) -> [i32; LANES] {
        // SAFETY: the array holds 16 i32.
        lanes::written(|p| unsafe { self.i_store(p, v) })
    }
    #[inline(always)]
    fn i_of_lanes(self, lanes: &[i32; LANES]) -> Self::I32s {
        // SAFETY: the array holds 16 i32.
        unsafe { self.i_load(lanes.as_ptr()) }
    }
    /// 16 bytes, zero-extended.
    /// # Safety
    /// - `p` is valid for reads of 16 bytes.
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> Self::I32s {
        // SAFETY: handed on to the caller.
        self.i_of_lanes(&unsafe { lanes::read(p, i32::from) })
    }
    /// 16 bytes, sign-extended.
    /// # Safety
    /// - `p` is valid for reads of 16 bytes.
    #[inline(always)]
    unsafe fn i_load_i8(self, p: *const i8) -> Self::I32s {
        // SAFETY: handed on to the caller.
        self.i_of_lanes(&unsafe { lanes::read(p, i32::from) })
    }
    /// Nearest f32.
    fn i_to_f32(self, a: Self::I32s) -> Self::F32s;
    #[inline(always)]
    fn i_fold_add(self, a: Self::I32s) -> i32 {
        fold(self.i_lanes(a), i32::wrapping_add)
    }
    /// Nearest integer, ties to even, for `|a| < 2^22`.
    #[inline(always)]
    fn f_to_i32(self, a: Self::F32s) -> Self::I32s {
        self.i_of_lanes(&lanes::map(&self.lanes(self.round(a)), |x| x as i32))
    }
    /// The lanes, which fit i8, as 16 bytes.
    /// # Safety
    /// - `p` is valid for writes of 16 bytes.
    #[inline(always)]
    unsafe fn i_store_i8(self, p: *mut i8, a: Self::I32s) {
        // SAFETY: handed on to the caller.
        unsafe { lanes::write_n(p, &self.i_lanes(a), LANES, |x| x as i8) }
    }
}
