//! What the quantised products need beside [`Simd`]: 64 bytes of codes, 4 to a lane, and their dot products
//! with activations. The rules for implementations are those of [`Simd`].

use super::lanes::{self, LANES, each};
use super::simd::Simd;

/// The operations on codes.
pub(crate) trait SimdBytes: Simd {
    /// 64 bytes: 16 lanes of 4 consecutive k of one weight row (layout r16k4).
    type Bytes: Copy;
    /// 4 activation bytes, broadcast.
    type Act: Copy;
    /// Accumulator of dot products with weights of up to 6 bits.
    type NarrowAcc: Copy;
    /// Row panels that meet a single row of activations at once, where a format leaves the registers: 1 or 2.
    const ROW_PANELS: usize = 1;
    /// Whether [`SimdBytes::narrow_dot`] takes any number of dots of any unsigned bytes.
    const WIDE_DOTS: bool = false;

    /// 16 little-endian f16, as packed weights and files hold them, widened exactly.
    /// # Safety
    /// - `p` is valid for reads of 32 bytes.
    #[inline(always)]
    unsafe fn load_f16_le(self, p: *const u8) -> Self::F32s {
        const { assert!(cfg!(target_endian = "little"), "a big-endian tier reverses bytes here") }
        // SAFETY: handed on to the caller.
        unsafe { self.load_f16(p.cast()) }
    }
    /// 16 little-endian f32, as packed weights and files hold them.
    /// # Safety
    /// - `p` is valid for reads of 64 bytes.
    #[inline(always)]
    unsafe fn load_le(self, p: *const u8) -> Self::F32s {
        const { assert!(cfg!(target_endian = "little"), "a big-endian tier reverses bytes here") }
        // SAFETY: handed on to the caller.
        unsafe { self.load(p.cast()) }
    }
    /// `2^(e - 128)` of 16 bytes e, subnormal for e < 2 and NaN for e = 255.
    /// # Safety
    /// - `p` is valid for reads of 16 bytes.
    #[inline(always)]
    unsafe fn load_e8m0(self, p: *const u8) -> Self::F32s {
        // SAFETY: handed on to the caller.
        self.of_lanes(&unsafe { lanes::read(p, lanes::of_e8m0) })
    }
    /// What dot products start from where [`SimdBytes::biased_to_f32`] is faster than [`Simd::i_to_f32`].
    const DOT_BIAS: i32 = 0;
    /// `a - DOT_BIAS` as f32, for a difference below 2^22.
    #[inline(always)]
    fn biased_to_f32(self, a: Self::I32s) -> Self::F32s {
        self.i_to_f32(a)
    }

    /// # Safety
    /// - `p` is valid for reads of 64 bytes.
    unsafe fn load_bytes(self, p: *const u8) -> Self::Bytes;
    /// The four bytes of each lane, the first one lowest.
    #[inline(always)]
    fn words(self, q: Self::Bytes) -> [u32; LANES] {
        // SAFETY: the array holds 64 bytes.
        lanes::written(|p: *mut [u8; 4]| unsafe { self.store_bytes(p.cast(), q) }).map(u32::from_le_bytes)
    }
    #[inline(always)]
    fn bytes_of_words(self, words: &[u32; LANES]) -> Self::Bytes {
        let bytes = words.map(u32::to_le_bytes);
        // SAFETY: the array holds 64 bytes.
        unsafe { self.load_bytes(bytes.as_ptr().cast()) }
    }
    /// `table[at]` of each lane, as the four bytes of that lane.
    /// # Safety
    /// - `table` is valid for reads of `at + 1` u32 for each lane of `at`, which is not negative.
    #[inline(always)]
    unsafe fn gather(self, table: *const u32, at: Self::I32s) -> Self::I32s {
        let at = self.i_lanes(at);
        // SAFETY: handed on to the caller.
        self.i_of_lanes(&each(|i| unsafe { *table.add(at[i] as usize) } as i32))
    }
    /// `table[2 * at]` and `table[2 * at + 1]` of each lane.
    /// # Safety
    /// - `table` is valid for reads of `2 * at + 2` u32 for each lane of `at`, which is not negative.
    #[inline(always)]
    unsafe fn gather_two(self, table: *const u32, at: Self::I32s) -> [Self::I32s; 2] {
        let at = self.i_shl(at, 1);
        // SAFETY: handed on to the caller.
        unsafe { [self.gather(table, at), self.gather(table.add(1), at)] }
    }
    /// The four bytes of each lane, the lowest first.
    #[inline(always)]
    fn bytes_of(self, a: Self::I32s) -> Self::Bytes {
        self.bytes_of_words(&lanes::map(&self.i_lanes(a), |x| x as u32))
    }
    /// The four bytes of each lane as one number, the first one lowest.
    #[inline(always)]
    fn lanes_of_bytes(self, q: Self::Bytes) -> Self::I32s {
        self.i_of_lanes(&lanes::map(&self.words(q), |x| x as i32))
    }
    /// Byte `j` of each lane of `a`, or 256 minus that byte where bit `4 g + j` of the lane of `signs` is
    /// set;
    /// `g < 8`.
    #[inline(always)]
    fn bytes_signed(self, a: Self::I32s, signs: Self::I32s, g: usize) -> Self::I32s {
        let (a, signs) = (self.i_lanes(a), self.i_lanes(signs));
        self.i_of_lanes(&each(|i| lanes::signed_bytes(a[i] as u32, signs[i] as u32 >> (4 * g)) as i32))
    }
    /// 64 zero bytes.
    #[inline(always)]
    fn bytes_zero(self) -> Self::Bytes {
        self.bytes_of_words(&[0; LANES])
    }
    /// # Safety
    /// - `p` is valid for writes of 64 bytes.
    unsafe fn store_bytes(self, p: *mut u8, q: Self::Bytes);
    #[inline(always)]
    fn bytes_or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        let (a, b) = (self.words(a), self.words(b));
        self.bytes_of_words(&each(|i| a[i] | b[i]))
    }
    /// The bits `mask << from` of all bytes, moved to `mask << to`.
    #[inline(always)]
    fn bytes_bits(self, q: Self::Bytes, from: u32, to: u32, mask: u8) -> Self::Bytes {
        self.bytes_of_words(&lanes::bits_of_bytes(&self.words(q), from, to, mask))
    }
    /// `table[byte]` of all bytes, which are below 16.
    #[inline(always)]
    fn bytes_lookup(self, q: Self::Bytes, table: &[u8; 16]) -> Self::Bytes {
        self.bytes_of_words(&lanes::lookup(&self.words(q), table))
    }
    /// Low nibbles of all bytes.
    #[inline(always)]
    fn bytes_low_nibbles(self, q: Self::Bytes) -> Self::Bytes {
        self.bytes_bits(q, 0, 0, 15)
    }
    /// High nibbles of all bytes, shifted down.
    #[inline(always)]
    fn bytes_high_nibbles(self, q: Self::Bytes) -> Self::Bytes {
        self.bytes_bits(q, 4, 0, 15)
    }
    /// Byte `j < 4` of each lane as an unsigned number.
    #[inline(always)]
    fn byte_to_f32(self, q: Self::Bytes, j: u32) -> Self::F32s {
        self.of_lanes(&lanes::map(&self.words(q), |word| (word >> (8 * j) & 255) as f32))
    }
    /// Four activation bytes, for all lanes.
    /// # Safety
    /// - `p` is valid for reads of 4 bytes.
    unsafe fn load_act(self, p: *const i8) -> Self::Act;
    /// The activation bytes of group `g < 8` of a block.
    /// # Safety
    /// - `block` is valid for reads of 32 bytes.
    #[inline(always)]
    unsafe fn load_group(self, block: *const i8, g: usize) -> Self::Act {
        // SAFETY: 4 of the caller's 32 bytes.
        unsafe { self.load_act(block.add(4 * g)) }
    }

    /// Starts a sum for weights of up to 6 bits. `narrow_end(dots(narrow_start(i)), i)` is `i + sum of w *
    /// a`, w as unsigned numbers; at most 8 dots of bytes below 16, 4 of bytes below 32 or 2 of bytes below
    /// 64 lie between.
    fn narrow_start(self, init: Self::I32s) -> Self::NarrowAcc;
    /// Adds `w[4l..4l+4] . a[0..4]` to lane `l`; bytes of `a` are within +-127.
    fn narrow_dot(self, acc: Self::NarrowAcc, w: Self::Bytes, a: Self::Act) -> Self::NarrowAcc;
    fn narrow_end(self, acc: Self::NarrowAcc, init: Self::I32s) -> Self::I32s;

    /// Starts a sum for 8-bit weights that are stored with an offset of 128, where `neg_sum` is minus the
    /// sum of the block's activations: ISAs whose dot instruction takes unsigned weights correct for the
    /// offset here, for nothing, instead of in the loop.
    fn byte_start(self, neg_sum: Self::I32s) -> Self::I32s;
    /// Adds `(w - 128) . a`; together with [`SimdBytes::byte_start`] the sum is exact. `a` within +-127.
    fn byte_dot(self, acc: Self::I32s, w: Self::Bytes, a: Self::Act) -> Self::I32s;
}
