//! Arrays of 16 lanes: what the default methods of [`Simd`](super::simd::Simd) compute with.
//!
//! A default stores its vectors to arrays, computes the lanes here, and loads the result. Loops and small
//! functions of our own, because closures of std would be compiled outside of the features.

/// Lanes of the virtual vector: see NUMERICS rule 4.
pub(crate) const LANES: usize = 16;

/// Lane numbers: with them a mask of elements is a comparison.
pub(crate) const IOTA: [f32; LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// An array of what `f` makes of each lane number.
#[inline(always)]
pub(super) fn each<T: Copy + Default>(f: impl Fn(usize) -> T) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    for i in 0..LANES {
        lanes[i] = f(i);
    }
    lanes
}

/// An array of what `f` makes of each lane.
#[inline(always)]
pub(super) fn map<T: Copy, U: Copy + Default>(lanes: &[T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    each(|i| f(lanes[i]))
}

/// The array that `store` writes: to memory of 16 `T`, which are defaults before.
#[inline(always)]
pub(super) fn written<T: Copy + Default>(store: impl FnOnce(*mut T)) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    store(lanes.as_mut_ptr());
    lanes
}

/// Folds by halves: 8, 4, 2, 1.
#[inline(always)]
pub(super) fn fold<T: Copy>(mut a: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            a[i] = f(a[i], a[i + half]);
        }
        half /= 2;
    }
    a[0]
}

/// `f` of each of the 16 elements at `p`.
///
/// # Safety
/// - `p` is valid for reads of 16 `T`, aligned or not.
#[inline(always)]
pub(super) unsafe fn read<T: Copy, U: Copy + Default>(p: *const T, f: impl Fn(T) -> U) -> [U; LANES] {
    // SAFETY: the caller's pointer is valid for 16 elements.
    map(&unsafe { p.cast::<[T; LANES]>().read_unaligned() }, f)
}

/// The first `n <= 16` elements at `p`; the other lanes are +0.0.
///
/// # Safety
/// - `p` is valid for reads of `n` f32, aligned or not; nothing beyond is touched.
#[inline(always)]
pub(super) unsafe fn read_n(p: *const f32, n: usize) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for i in 0..n {
        // SAFETY: i < n, and the caller's pointer is valid for n f32.
        lanes[i] = unsafe { p.add(i).read_unaligned() };
    }
    lanes
}

/// Writes `f` of each of the first `n <= 16` lanes to `p`.
///
/// # Safety
/// - `p` is valid for writes of `n` `U`, aligned or not; nothing beyond is touched.
#[inline(always)]
pub(super) unsafe fn write_n<T: Copy, U>(p: *mut U, lanes: &[T; LANES], n: usize, f: impl Fn(T) -> U) {
    for i in 0..n {
        // SAFETY: i < n, and the caller's pointer is valid for n elements.
        unsafe { p.add(i).write_unaligned(f(lanes[i])) };
    }
}

/// 16 x 16 f32: element `(i, j)` of `from` becomes element `(j, i)` of `to`; strides are from row to row.
///
/// # Safety
/// - `from` is valid for reads and `to` for writes of 16 rows of 16 f32, aligned or not.
#[inline(always)]
pub(super) unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    for i in 0..LANES {
        for j in 0..LANES {
            // SAFETY: both elements lie in the 16 rows of 16 f32 that the caller vouches for.
            unsafe {
                let x = from.add(i * from_stride + j).read_unaligned();
                to.add(j * to_stride + i).write_unaligned(x);
            }
        }
    }
}

/// The f32 of the bits of an f16.
#[inline(always)]
pub(super) fn of_f16(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32_const()
}

/// The f32 of the bits of a bf16.
#[inline(always)]
pub(super) fn of_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bits of the nearest f16, ties to even.
#[inline(always)]
pub(super) fn to_f16(x: f32) -> u16 {
    half::f16::from_f32_const(x).to_bits()
}

/// The bits of the nearest bf16, ties to even.
#[inline(always)]
pub(super) fn to_bf16(x: f32) -> u16 {
    half::bf16::from_f32_const(x).to_bits()
}

/// Two u16 in one lane, the first one lowest.
#[inline(always)]
pub(super) fn pair([first, second]: [u16; 2]) -> i32 {
    (u32::from(first) | u32::from(second) << 16) as i32
}

/// `2^(e - 128)`, subnormal for e < 2 and NaN for e = 255.
#[inline(always)]
pub(super) fn of_e8m0(e: u8) -> f32 {
    match e {
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        255 => f32::NAN,
        _ => f32::from_bits((u32::from(e) - 1) << 23),
    }
}

/// The bits `mask << from` of the four bytes of each lane, moved to `mask << to`.
#[inline(always)]
pub(super) fn bits_of_bytes(words: &[u32; LANES], from: u32, to: u32, mask: u8) -> [u32; LANES] {
    let mask = u32::from(mask) * 0x0101_0101;
    map(words, |word| (word >> from & mask) << to)
}

/// The bytes of a lane, of which byte j is taken from 256 where bit j of `signs` is set.
#[inline(always)]
pub(super) fn signed_bytes(word: u32, signs: u32) -> u32 {
    let mut bytes = word.to_le_bytes();
    for j in 0..4 {
        if signs >> j & 1 == 1 {
            bytes[j] = bytes[j].wrapping_neg();
        }
    }
    u32::from_le_bytes(bytes)
}

/// `table[byte]` of the four bytes of each lane, which are below 16.
#[inline(always)]
pub(super) fn lookup(words: &[u32; LANES], table: &[u8; 16]) -> [u32; LANES] {
    let found = |word: [u8; 4]| word.map(|byte| table[usize::from(byte & 15)]);
    map(words, |word| u32::from_le_bytes(found(word.to_le_bytes())))
}
