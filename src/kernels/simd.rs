//! The virtual machine that every algorithm is written for: 16 lanes of 32 bits.
//!
//! NUMERICS.md fixes results for 16 virtual lanes, so the vector type of the algorithms has 16 lanes
//! everywhere: one zmm register, two ymm, four NEON registers, or an array. An algorithm in
//! [`generic`](super::generic) is written once against [`Simd`]; an ISA adds one file that implements the
//! trait and instantiates the algorithms behind `#[target_feature]`. Equal bits follow by construction:
//! every method here is either exact or one IEEE operation.
//!
//! Rules for implementations: every method is `#[inline(always)]` and *not* `#[target_feature]` (the two
//! cannot be combined); the features come from the kernel entry that everything is inlined into. Rejected:
//! hand-written kernels for each ISA, three times the code for the same instructions.

/// Proof that the CPU has an instruction set, with the operations on 16 lanes that it offers.
///
/// A value can only be made where the CPU was checked, so register-only methods are safe. Methods that
/// touch memory are `unsafe`: pointers need no alignment, but must be valid for the bytes named.
pub(crate) trait Simd: Copy {
    /// 16 x f32.
    type F32s: Copy;
    /// 16 x i32.
    type I32s: Copy;
    /// 64 bytes: 16 lanes of 4 consecutive k of one weight row (layout r16k4).
    type Bytes: Copy;
    /// 4 activation bytes, broadcast.
    type Act: Copy;
    /// Accumulator of dot products with weights of up to 6 bits.
    type NarrowAcc: Copy;
    /// Tiles of 16 x 1 up to which a second accumulator for each is worth its registers.
    const DOUBLE_ACCUMULATOR_TILES: usize;

    /// The token without the check.
    ///
    /// # Safety
    /// - the CPU has the instruction set.
    unsafe fn assume() -> Self;

    /// Prefetches the cache line at `p`, which need not be valid, into L1. Nothing where the ISA has no such hint.
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}
    /// Prefetches the cache line at `p`, which need not be valid, into L2.
    #[inline(always)]
    fn prefetch_l2(self, _p: *const u8) {}

    /// Returns `p` with its provenance hidden from the optimiser. Otherwise LLVM derives rows 4 and 5 of a tile by
    /// running additions (x86 addressing reaches four rows): 29 instructions for each k step of the 6 x 16 AVX2 tile
    /// instead of 25; the minimum is 20.
    #[inline(always)]
    fn opaque(self, p: *const f32) -> *const f32 {
        p
    }

    fn splat(self, x: f32) -> Self::F32s;
    /// # Safety
    /// - `p` is valid for reads of 16 f32.
    unsafe fn load(self, p: *const f32) -> Self::F32s;
    /// The first `n <= 16` lanes; the others are +0.0.
    /// # Safety
    /// - `p` is valid for reads of `n` f32; nothing beyond is touched.
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F32s;
    /// # Safety
    /// - `p` is valid for writes of 16 f32.
    unsafe fn store(self, p: *mut f32, v: Self::F32s);
    /// # Safety
    /// - `p` is valid for writes of `n <= 16` f32; nothing beyond is touched.
    unsafe fn store_n(self, p: *mut f32, v: Self::F32s, n: usize);

    /// 16 x 16 f32: element `(i, j)` of `from` becomes element `(j, i)` of `to`; strides are from row to row.
    /// # Safety
    /// - `from` is valid for reads and `to` for writes of 16 rows of 16 f32.
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);

    fn add(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    fn sub(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    fn mul(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    fn div(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s;
    /// `a > b ? a : b` (so `b` when either is NaN).
    fn max(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    /// `a < b ? a : b` (so `b` when either is NaN).
    fn min(self, a: Self::F32s, b: Self::F32s) -> Self::F32s;
    fn abs(self, a: Self::F32s) -> Self::F32s;
    /// The sign flipped.
    fn neg(self, a: Self::F32s) -> Self::F32s;
    /// `a < b ? x : y`, lane by lane (`y` when either is NaN).
    fn select_lt(self, a: Self::F32s, b: Self::F32s, x: Self::F32s, y: Self::F32s) -> Self::F32s;
    /// To the nearest integer, ties to even. For `|a| < 2^22`; larger values give any number, NaN gives NaN.
    fn round(self, a: Self::F32s) -> Self::F32s;
    /// `p * 2^n` for `p` in `[0.5, 2)` and integral `n` with a normal result or an overflow to infinity at
    /// `n = 128`; NaN in `p` stays NaN. Other inputs give any number.
    fn scale2(self, p: Self::F32s, n: Self::F32s) -> Self::F32s;
    /// Lanes added by halves: 8, 4, 2, 1.
    fn fold_add(self, a: Self::F32s) -> f32;
    /// The maximum of the lanes, by halves.
    fn fold_max(self, a: Self::F32s) -> f32;
    /// 16 f16 values widened exactly.
    /// # Safety
    /// - `p` is valid for reads of 16 u16.
    unsafe fn load_f16(self, p: *const u16) -> Self::F32s;
    /// 16 little-endian f16, as packed weights and files hold them, widened exactly.
    /// # Safety
    /// - `p` is valid for reads of 32 bytes.
    #[inline(always)]
    unsafe fn load_f16_le(self, p: *const u8) -> Self::F32s {
        const { assert!(cfg!(target_endian = "little"), "a tier of a big-endian machine reverses bytes here") }
        // SAFETY: handed on to the caller.
        unsafe { self.load_f16(p.cast()) }
    }
    /// 16 little-endian f32, as packed weights and files hold them.
    /// # Safety
    /// - `p` is valid for reads of 64 bytes.
    #[inline(always)]
    unsafe fn load_le(self, p: *const u8) -> Self::F32s {
        const { assert!(cfg!(target_endian = "little"), "a tier of a big-endian machine reverses bytes here") }
        // SAFETY: handed on to the caller.
        unsafe { self.load(p.cast()) }
    }

    /// The first `n <= 16` lanes rounded to f16, ties to even.
    /// # Safety
    /// - `p` is valid for writes of `n` u16; nothing beyond is touched.
    unsafe fn store_f16_n(self, p: *mut u16, v: Self::F32s, n: usize);
    /// The first `n <= 16` lanes rounded to bf16, ties to even.
    /// # Safety
    /// - `p` is valid for writes of `n` u16; nothing beyond is touched.
    unsafe fn store_bf16_n(self, p: *mut u16, v: Self::F32s, n: usize);
    /// 16 bf16 values widened exactly.
    /// # Safety
    /// - `p` is valid for reads of 16 u16.
    unsafe fn load_bf16(self, p: *const u16) -> Self::F32s;
    /// The low nibble of each lane of bytes, less 8, as f32.
    fn low_nibble(self, bytes: Self::I32s) -> Self::F32s;
    /// The high nibble of each lane of bytes, less 8, as f32.
    fn high_nibble(self, bytes: Self::I32s) -> Self::F32s;
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
    ///
    /// # Safety
    /// - `p` is valid for reads of 32 u16.
    unsafe fn load_bf16_pairs(self, p: *const u16) -> Self::I32s;
    /// [`Simd::load_bf16_pairs`], for the second time: an access of its own. Beside 24 accumulators there are
    /// no registers that could hold four vectors of pairs from one step to the next; the compiler, which
    /// merges equal loads, spilled six accumulators.
    ///
    /// # Safety
    /// - as for [`Simd::load_bf16_pairs`].
    #[inline(always)]
    unsafe fn reload_bf16_pairs(self, p: *const u16) -> Self::I32s {
        // SAFETY: handed on to the caller.
        unsafe { self.load_bf16_pairs(p) }
    }
    /// The first of each pair of bf16, widened exactly.
    fn bf16_first(self, pairs: Self::I32s) -> Self::F32s;
    /// The second of each pair of bf16, widened exactly.
    fn bf16_second(self, pairs: Self::I32s) -> Self::F32s;

    fn i_splat(self, x: i32) -> Self::I32s;
    fn i_add(self, a: Self::I32s, b: Self::I32s) -> Self::I32s;
    fn i_sub(self, a: Self::I32s, b: Self::I32s) -> Self::I32s;
    /// The low 32 bits of the product.
    fn i_mul(self, a: Self::I32s, b: Self::I32s) -> Self::I32s;
    fn i_and(self, a: Self::I32s, b: i32) -> Self::I32s;
    /// `a << n`, the same n for all lanes.
    fn i_shl(self, a: Self::I32s, n: u32) -> Self::I32s;
    /// `a >> n`, zeros shifted in.
    fn i_shr(self, a: Self::I32s, n: u32) -> Self::I32s;
    /// # Safety
    /// - `p` is valid for reads of 16 i32.
    unsafe fn i_load(self, p: *const i32) -> Self::I32s;
    /// # Safety
    /// - `p` is valid for writes of 16 i32.
    unsafe fn i_store(self, p: *mut i32, a: Self::I32s);
    /// 16 bytes, zero-extended.
    /// # Safety
    /// - `p` is valid for reads of 16 bytes.
    unsafe fn load_u8(self, p: *const u8) -> Self::I32s;
    /// 16 bytes, sign-extended.
    /// # Safety
    /// - `p` is valid for reads of 16 bytes.
    unsafe fn i_load_i8(self, p: *const i8) -> Self::I32s;
    /// `2^(e - 128)` of 16 bytes e, subnormal for e < 2 and NaN for e = 255.
    /// # Safety
    /// - `p` is valid for reads of 16 bytes.
    unsafe fn load_e8m0(self, p: *const u8) -> Self::F32s;
    /// Nearest f32.
    fn i_to_f32(self, a: Self::I32s) -> Self::F32s;
    fn i_fold_add(self, a: Self::I32s) -> i32;
    /// Nearest integer, ties to even, for `|a| < 2^22`.
    fn f_to_i32(self, a: Self::F32s) -> Self::I32s;
    /// The lanes, which fit i8, as 16 bytes.
    /// # Safety
    /// - `p` is valid for writes of 16 bytes.
    unsafe fn i_store_i8(self, p: *mut i8, a: Self::I32s);

    /// # Safety
    /// - `p` is valid for reads of 64 bytes.
    unsafe fn load_bytes(self, p: *const u8) -> Self::Bytes;
    /// 64 zero bytes.
    fn bytes_zero(self) -> Self::Bytes;
    /// # Safety
    /// - `p` is valid for writes of 64 bytes.
    unsafe fn store_bytes(self, p: *mut u8, q: Self::Bytes);
    fn bytes_or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// The bits `mask << from` of all bytes, moved to `mask << to`.
    fn bytes_bits(self, q: Self::Bytes, from: u32, to: u32, mask: u8) -> Self::Bytes;
    /// `table[byte]` of all bytes, which are below 16.
    fn bytes_lookup(self, q: Self::Bytes, table: &[u8; 16]) -> Self::Bytes;
    /// Low nibbles of all bytes.
    fn bytes_low_nibbles(self, q: Self::Bytes) -> Self::Bytes;
    /// High nibbles of all bytes, shifted down.
    fn bytes_high_nibbles(self, q: Self::Bytes) -> Self::Bytes;
    /// Byte `j < 4` of each lane as an unsigned number.
    fn byte_to_f32(self, q: Self::Bytes, j: u32) -> Self::F32s;
    /// Four activation bytes, for all lanes.
    /// # Safety
    /// - `p` is valid for reads of 4 bytes.
    unsafe fn load_act(self, p: *const i8) -> Self::Act;

    /// Starts a sum for weights of up to 6 bits. `narrow_end(dots(narrow_start(i)), i)` is `i + sum of w * a`, w as
    /// unsigned numbers; at most 8 dots of bytes below 16, 4 of bytes below 32 or 2 of bytes below 64 lie
    /// between.
    fn narrow_start(self, init: Self::I32s) -> Self::NarrowAcc;
    /// Adds `w[4l..4l+4] . a[0..4]` to lane `l`; bytes of `a` are within +-127.
    fn narrow_dot(self, acc: Self::NarrowAcc, w: Self::Bytes, a: Self::Act) -> Self::NarrowAcc;
    fn narrow_end(self, acc: Self::NarrowAcc, init: Self::I32s) -> Self::I32s;

    /// Starts a sum for 8-bit weights that are stored with an offset of 128, where `neg_sum` is minus the
    /// sum of the block's activations: ISAs whose dot instruction takes unsigned weights correct for the
    /// offset here, for nothing, instead of in the loop.
    fn byte_start(self, neg_sum: Self::I32s) -> Self::I32s;
    /// Adds `(w - 128) . a`; together with [`Simd::byte_start`] the sum is exact. `a` within +-127.
    fn byte_dot(self, acc: Self::I32s, w: Self::Bytes, a: Self::Act) -> Self::I32s;
}
