//! How the codes (unsigned quants) of 16 rows by 32 k lie in memory, in layout r16k4.
//!
//! The 32 k of a block are 8 groups of 4; a vector of 64 bytes holds one group of 16 rows, row by row. A
//! plane of 4-bit codes has 4 vectors: vector v holds group v in its low nibbles and group v + 4 in its high
//! nibbles. Wider codes add planes of 1 or 2 bits, of which bit (or pair of bits) g of byte j of a row
//! belongs to k = 4g + j. All of them unpack to unsigned bytes with shifts and masks, which run on ports
//! that a product leaves idle.

use crate::kernels::simd_bytes::SimdBytes;

/// Bits of a code that lie together: `bits` from bit `at` of the code, from byte `start` of a block's codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plane {
    pub start: usize,
    pub bits: u32,
    pub at: u32,
}

const fn plane(start: usize, bits: u32, at: u32) -> Plane {
    Plane { start, bits, at }
}

impl Plane {
    /// The vector of group `g` of a plane of `BITS`, and the shift of its bits.
    #[inline(always)]
    pub(crate) fn place<const BITS: u32>(g: usize) -> (usize, u32) {
        let (vector, shift) = match BITS {
            8 => (g, 0),
            4 => (g % 4, 4 * (g / 4)),
            2 => (g / 4, 2 * (g % 4)),
            _ => (0, g),
        };
        (vector, shift as u32)
    }

    /// The `j`th group of four k that vector `v` of this plane holds, and the shift of its bits.
    #[inline(always)]
    pub(crate) fn group(&self, v: usize, j: usize) -> (usize, u32) {
        let g = match self.bits {
            8 => v,
            4 => v + 4 * j,
            2 => 4 * v + j,
            _ => j,
        };
        (g, self.bits * j as u32)
    }

    /// The bits of four codes that lie together, at their lowest place.
    #[inline(always)]
    pub(crate) const fn mask<const BITS: u32>() -> u32 {
        (0xff >> (8 - BITS)) * 0x0101_0101
    }

    /// Bytes of a block's vectors.
    pub(crate) fn bytes(&self) -> usize {
        64 * self.bits as usize
    }
}

/// Bytes that belong together: `bytes` of each row, row after row, from byte `start` of a block's codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strand {
    pub start: usize,
    pub bytes: usize,
}

/// The bits of a float of 8 bits: a sign, an exponent, a mantissa.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Float8Shape {
    /// Bits of the mantissa.
    pub mantissa: u32,
    /// What the exponent is stored with.
    pub bias: u32,
    /// The least magnitude (7 bits) that is no finite number, and so no weight.
    pub not_finite: u8,
}

impl Float8Shape {
    /// The number of a code that is finite.
    pub(crate) fn value(self, code: u8) -> f32 {
        let bits = u32::from(code & 0x7f) << (23 - self.mantissa) | u32::from(code & 0x80) << 24;
        // Subnormal numbers of 8 bits are subnormal here, and the product, which is exact, sets all right.
        f32::from_bits(bits) * f32::from_bits((254 - self.bias) << 23)
    }
}

/// A packing of codes.
pub(crate) trait Codes {
    /// Where the bits of a code lie.
    const PLANES: &'static [Plane];

    /// Where the bytes of a row lie, for codes that are entries of codebooks; these have no planes.
    const STRANDS: &'static [Strand] = &[];

    /// Bytes of 16 rows x 32 k.
    const BYTES: usize;

    /// Bits of an unpacked code. Up to 6, dot products of several groups fit 16 bits (see
    /// [`SimdBytes::narrow_dot`]).
    const BITS: u32;

    /// The same codes as bytes.
    type Wide: Codes;

    /// The bits of a code, where codes are floats.
    const FLOAT8: Option<Float8Shape> = None;

    /// Group `g` (k = 4g..4g+4) as unsigned bytes in r16k4 order.
    ///
    /// # Safety
    /// - `q` is valid for `BYTES` bytes; `g < 8`.
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes;

    /// What all groups of a block are made from, once: a number for each row. Codes of planes have none.
    ///
    /// # Safety
    /// - as [`Codes::group`].
    #[inline(always)]
    unsafe fn shared<S: SimdBytes>(s: S, _q: *const u8) -> S::I32s {
        s.i_splat(0)
    }

    /// Groups `2 p` and `2 p + 1`; `shared`: what [`Codes::shared`] gave for the block.
    ///
    /// # Safety
    /// - as [`Codes::group`]; `p < 4`.
    #[inline(always)]
    unsafe fn two_groups<S: SimdBytes>(s: S, q: *const u8, _shared: S::I32s, p: usize) -> [S::Bytes; 2] {
        // SAFETY: handed on to the caller.
        unsafe { [Self::group(s, q, 2 * p), Self::group(s, q, 2 * p + 1)] }
    }

    /// What byte `j < 4` of each lane of a group stands for.
    #[inline(always)]
    fn value<S: SimdBytes>(s: S, codes: S::Bytes, j: u32) -> S::F32s {
        s.byte_to_f32(codes, j)
    }

    /// By how many bits [`Codes::in_place`] leaves codes shifted up; 0 where it would gain nothing.
    const IN_PLACE: u32 = 0;

    /// [`Codes::group`] of a group from the fourth on, times `2^IN_PLACE`: masked where they are.
    ///
    /// # Safety
    /// - as [`Codes::group`]; `g >= 4`.
    #[inline(always)]
    unsafe fn in_place<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: handed on to the caller.
        unsafe { Self::group(s, q, g) }
    }
}

/// The nibble of group `g`.
///
/// # Safety
/// - `q` is valid for 256 bytes; `g < 8`.
#[inline(always)]
unsafe fn nibble<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
    // SAFETY: vector g mod 4 of 64 bytes inside the 256 of the plane.
    let q = unsafe { s.load_bytes(q.add(64 * (g % 4))) };
    if g < 4 { s.bytes_low_nibbles(q) } else { s.bytes_high_nibbles(q) }
}

/// Signs: one vector, bit g for group g. A code q stands for 2 q.
pub(crate) struct Sign;

impl Codes for Sign {
    const PLANES: &'static [Plane] = &[plane(0, 1, 0)];
    const BYTES: usize = 64;
    const BITS: u32 = 4;
    type Wide = Wide<4>;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the vector of 64 bytes.
        s.bytes_bits(unsafe { s.load_bytes(q) }, g as u32, 1, 1)
    }
}

/// 2-bit codes: two vectors, four groups each.
pub(crate) struct Two;

impl Codes for Two {
    const PLANES: &'static [Plane] = &[plane(0, 2, 0)];
    const BYTES: usize = 128;
    const BITS: u32 = 4;
    type Wide = Wide<4>;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: vector g / 4 < 2 of 64 bytes.
        s.bytes_bits(unsafe { s.load_bytes(q.add(64 * (g / 4))) }, 2 * (g % 4) as u32, 0, 3)
    }
}

/// 3-bit codes: a plane of two bits, and one of bit 2.
pub(crate) struct Three;

impl Codes for Three {
    const PLANES: &'static [Plane] = &[plane(0, 2, 0), plane(128, 1, 2)];
    const BYTES: usize = 192;
    const BITS: u32 = 4;
    type Wide = Wide<4>;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: vectors g / 4 < 2, and 2, of 64 bytes.
        let (two, one) = unsafe { (s.load_bytes(q.add(64 * (g / 4))), s.load_bytes(q.add(128))) };
        s.bytes_or(s.bytes_bits(two, 2 * (g % 4) as u32, 0, 3), s.bytes_bits(one, g as u32, 2, 1))
    }
}

/// 4-bit codes.
pub(crate) struct Four;

impl Codes for Four {
    const PLANES: &'static [Plane] = &[plane(0, 4, 0)];
    const BYTES: usize = 256;
    const BITS: u32 = 4;
    type Wide = Wide<4>;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: handed on to the caller.
        unsafe { nibble(s, q, g) }
    }

    const IN_PLACE: u32 = 4;

    #[inline(always)]
    unsafe fn in_place<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: vector g - 4 < 4 of 64 bytes.
        s.bytes_bits(unsafe { s.load_bytes(q.add(64 * (g - 4))) }, 4, 4, 15)
    }
}

/// 5-bit codes: nibbles, then a plane of bit 4.
pub(crate) struct Five;

impl Codes for Five {
    const PLANES: &'static [Plane] = &[plane(0, 4, 0), plane(256, 1, 4)];
    const BYTES: usize = 320;
    const BITS: u32 = 5;
    type Wide = Wide<5>;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the nibbles are the first 256 bytes, the plane is the last vector.
        let (low, high) = unsafe { (nibble(s, q, g), s.load_bytes(q.add(256))) };
        s.bytes_or(low, s.bytes_bits(high, g as u32, 4, 1))
    }
}

/// 6-bit codes: nibbles, then two vectors of bits 4 and 5, four groups each.
pub(crate) struct Six;

impl Codes for Six {
    const PLANES: &'static [Plane] = &[plane(0, 4, 0), plane(256, 2, 4)];
    const BYTES: usize = 384;
    const BITS: u32 = 6;
    type Wide = Wide<6>;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the nibbles are the first 256 bytes, vector g / 4 < 2 of the plane follows.
        let (low, high) = unsafe { (nibble(s, q, g), s.load_bytes(q.add(256 + 64 * (g / 4)))) };
        s.bytes_or(low, s.bytes_bits(high, 2 * (g % 4) as u32, 4, 3))
    }
}

/// Bytes, vector g for group g: the form that panels have whatever the format, so `BITS` says how many of
/// the 8 are in use.
pub(crate) struct Wide<const BITS: u32>;

impl<const BITS: u32> Codes for Wide<BITS> {
    const PLANES: &'static [Plane] = &[plane(0, 8, 0)];
    const BYTES: usize = 512;
    const BITS: u32 = BITS;
    type Wide = Self;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: vector g < 8 of 64 bytes.
        unsafe { s.load_bytes(q.add(64 * g)) }
    }
}

/// A table of 16 values.
pub(crate) trait Table {
    const VALUES: [i8; 16];
    /// What makes values unsigned: 128, or 16 where that leaves 5 bits.
    const OFFSET: u8;
    /// The unpacked codes.
    type Wide: Codes;
    /// The values plus the offset.
    const UNSIGNED: [u8; 16] = unsigned(Self::VALUES, Self::OFFSET);
}

const fn unsigned(values: [i8; 16], offset: u8) -> [u8; 16] {
    let (mut unsigned, mut i) = ([0; 16], 0);
    while i < 16 {
        unsigned[i] = (values[i] as u8).wrapping_add(offset);
        i += 1;
    }
    unsigned
}

/// The table of IQ4_NL and IQ4_XS: denser around zero, where most weights are.
pub(crate) struct NonLinear;

impl Table for NonLinear {
    const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    const OFFSET: u8 = 128;
    type Wide = Wide<8>;
}

/// Twice the values of E2M1, so that they are integers; the sign is bit 3, and -0 counts as +0.
pub(crate) struct E2m1;

impl Table for E2m1 {
    const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
    const OFFSET: u8 = 16;
    type Wide = Wide<5>;
}

/// 4-bit codes that choose from a table.
pub(crate) struct Lookup<T>(std::marker::PhantomData<T>);

impl<T: Table> Codes for Lookup<T> {
    const PLANES: &'static [Plane] = &[plane(0, 4, 0)];
    const BYTES: usize = 256;
    const BITS: u32 = <T::Wide as Codes>::BITS;
    type Wide = T::Wide;

    #[inline(always)]
    unsafe fn group<S: SimdBytes>(s: S, q: *const u8, g: usize) -> S::Bytes {
        // SAFETY: handed on to the caller.
        s.bytes_lookup(unsafe { nibble(s, q, g) }, &T::UNSIGNED)
    }
}
