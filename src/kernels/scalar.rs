//! The portable tier: arrays instead of registers. Its results are the definition.

use super::lanes::{self, LANES, fold};
use super::simd::Simd;
use super::simd_bytes::SimdBytes;
use crate::fma::fma;
use crate::isa::Isa;

/// Every machine has it.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn map2(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

// Called, not inlined: without the instruction a fused multiply-add is 20 others, and the tiles that unroll
// it were a quarter of the shared library (0.9 of 3.6 MB); one call is negligible next to 16 lanes.

/// `a * b + c` in each lane, rounded once.
#[inline(never)]
fn multiply_add(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|i| fma(a[i], b[i], c[i]))
}

/// `acc + sum of w's 4 bytes * a` in each lane.
#[inline(never)]
fn dot(acc: &[i32; LANES], w: &[u32; LANES], a: [i8; 4]) -> [i32; LANES] {
    // One byte of all lanes after the other: each loop becomes a vector multiplication.
    let mut sum = *acc;
    for j in 0..4 {
        let (shift, a) = (8 * j, i32::from(a[j]));
        for i in 0..LANES {
            sum[i] += (w[i] >> shift & 255) as i32 * a;
        }
    }
    sum
}

/// The first `n` of 16 f32; the other lanes are +0.0.
///
/// # Safety
/// - `p` is valid for reads of `n <= 16` f32.
#[inline(never)]
unsafe fn load_some(p: *const f32, n: usize) -> [f32; LANES] {
    // SAFETY: handed on to the caller.
    unsafe { lanes::read_n(p, n) }
}

/// Writes the first `n` of 16 f32.
///
/// # Safety
/// - `p` is valid for writes of `n <= 16` f32.
#[inline(never)]
unsafe fn store_some(p: *mut f32, v: &[f32; LANES], n: usize) {
    // SAFETY: handed on to the caller.
    unsafe { lanes::write_n(p, v, n, |x| x) }
}

/// The 16 f16 of `bits`, widened exactly.
#[inline(never)]
fn widened_f16(bits: &[u16; LANES]) -> [f32; LANES] {
    bits.map(|b| half::f16::from_bits(b).to_f32_const())
}

/// `1.5 * 2^23`: adding and subtracting it rounds to an integer, ties to even, for `|x| < 2^22`.
const MAGIC: f32 = 12_582_912.0;

impl Simd for Scalar {
    type F32s = [f32; LANES];
    type I32s = [i32; LANES];
    const DOUBLE_ACCUMULATOR_TILES: usize = 0;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Scalar
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32s {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 f32.
        unsafe { p.cast::<Self::F32s>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for n f32, which are 16 where no n is handed on.
        unsafe { if n == LANES { self.load(p) } else { load_some(p, n) } }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::F32s) {
        // SAFETY: the caller's pointer is valid for 16 f32.
        unsafe { p.cast::<Self::F32s>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: Self::F32s, n: usize) {
        // SAFETY: the caller's pointer is valid for n f32, which are 16 where no n is handed on.
        unsafe { if n == LANES { self.store(p, v) } else { store_some(p, &v, n) } }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..LANES {
            for j in 0..LANES {
                // SAFETY: both elements lie in the 16 rows of 16 f32 that the caller vouches for.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) }
            }
        }
    }

    #[inline(always)]
    fn bits(self, a: Self::F32s) -> Self::I32s {
        a.map(|x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn of_bits(self, a: Self::I32s) -> Self::F32s {
        a.map(|x| f32::from_bits(x as u32))
    }

    #[inline(always)]
    fn add(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        map2(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        map2(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        map2(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        map2(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn fma(self, a: Self::F32s, b: Self::F32s, c: Self::F32s) -> Self::F32s {
        multiply_add(&a, &b, &c)
    }
    #[inline(always)]
    fn fma_one(self, a: f32, b: f32, c: f32) -> f32 {
        fma(a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        map2(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(self, a: Self::F32s, b: Self::F32s) -> Self::F32s {
        map2(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn abs(self, a: Self::F32s) -> Self::F32s {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn neg(self, a: Self::F32s) -> Self::F32s {
        a.map(|x| -x)
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F32s, b: Self::F32s, x: Self::F32s, y: Self::F32s) -> Self::F32s {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn round(self, a: Self::F32s) -> Self::F32s {
        a.map(|x| (x + MAGIC) - MAGIC)
    }
    #[inline(always)]
    fn scale2(self, p: Self::F32s, n: Self::F32s) -> Self::F32s {
        map2(p, n, |p, n| {
            let exponent = (n as i32) << 23;
            if p.is_nan() { p } else { f32::from_bits(p.to_bits().wrapping_add(exponent as u32)) }
        })
    }
    #[inline(always)]
    fn fold_add(self, a: Self::F32s) -> f32 {
        fold(a, |x, y| x + y)
    }
    #[inline(always)]
    fn fold_max(self, a: Self::F32s) -> f32 {
        fold(a, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 u16.
        widened_f16(&unsafe { p.cast::<[u16; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store_f16_n(self, p: *mut u16, v: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { lanes::write_n(p, &v, n, lanes::to_f16) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(self, p: *mut u16, v: Self::F32s, n: usize) {
        // SAFETY: handed on to the caller.
        unsafe { lanes::write_n(p, &v, n, lanes::to_bf16) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 u16.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|b| f32::from_bits(u32::from(b) << 16))
    }
    #[inline(always)]
    fn low_nibble(self, bytes: Self::I32s) -> Self::F32s {
        bytes.map(|b| ((b & 15) - 8) as f32)
    }
    #[inline(always)]
    fn high_nibble(self, bytes: Self::I32s) -> Self::F32s {
        bytes.map(|b| ((b >> 4) - 8) as f32)
    }

    #[inline(always)]
    unsafe fn load_bf16_pairs(self, p: *const u16) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 32 u16.
        let pairs = unsafe { p.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        pairs.map(|[first, second]| (u32::from(first) | u32::from(second) << 16) as i32)
    }
    #[inline(always)]
    fn bf16_first(self, pairs: Self::I32s) -> Self::F32s {
        pairs.map(|x| f32::from_bits((x as u32) << 16))
    }
    #[inline(always)]
    fn bf16_second(self, pairs: Self::I32s) -> Self::F32s {
        pairs.map(|x| f32::from_bits(x as u32 & 0xffff_0000))
    }

    #[inline(always)]
    fn i_splat(self, x: i32) -> Self::I32s {
        [x; LANES]
    }
    #[inline(always)]
    fn i_add(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn i_sub(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn i_mul(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        std::array::from_fn(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    fn i_and(self, a: Self::I32s, b: i32) -> Self::I32s {
        a.map(|x| x & b)
    }
    #[inline(always)]
    fn i_xor(self, a: Self::I32s, b: Self::I32s) -> Self::I32s {
        std::array::from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn i_shl(self, a: Self::I32s, n: u32) -> Self::I32s {
        a.map(|x| x << n)
    }
    #[inline(always)]
    fn i_shr(self, a: Self::I32s, n: u32) -> Self::I32s {
        a.map(|x| (x as u32 >> n) as i32)
    }
    #[inline(always)]
    unsafe fn i_load(self, p: *const i32) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 i32.
        unsafe { p.cast::<Self::I32s>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn i_store(self, p: *mut i32, a: Self::I32s) {
        // SAFETY: the caller's pointer is valid for 16 i32.
        unsafe { p.cast::<Self::I32s>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 bytes.
        unsafe { p.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn i_load_i8(self, p: *const i8) -> Self::I32s {
        // SAFETY: the caller's pointer is valid for 16 bytes.
        unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    fn i_to_f32(self, a: Self::I32s) -> Self::F32s {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn i_fold_add(self, a: Self::I32s) -> i32 {
        fold(a, i32::wrapping_add)
    }
    #[inline(always)]
    fn f_to_i32(self, a: Self::F32s) -> Self::I32s {
        self.round(a).map(|x| x as i32)
    }
    #[inline(always)]
    unsafe fn i_store_i8(self, p: *mut i8, a: Self::I32s) {
        // SAFETY: the caller's pointer is valid for 16 bytes.
        unsafe { p.cast::<[i8; LANES]>().write_unaligned(a.map(|x| x as i8)) }
    }
}

impl SimdBytes for Scalar {
    type Bytes = [u32; LANES]; // 4 bytes a lane, first byte lowest
    type Act = [i8; 4];
    type NarrowAcc = [i32; LANES];
    #[inline(always)]
    unsafe fn load_f16_le(self, p: *const u8) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 32 bytes.
        widened_f16(&unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(u16::from_le))
    }
    #[inline(always)]
    unsafe fn load_le(self, p: *const u8) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 64 bytes.
        unsafe { p.cast::<[u32; LANES]>().read_unaligned() }.map(|x| f32::from_bits(u32::from_le(x)))
    }
    #[inline(always)]
    unsafe fn load_e8m0(self, p: *const u8) -> Self::F32s {
        // SAFETY: the caller's pointer is valid for 16 bytes.
        let e = unsafe { p.cast::<[u8; LANES]>().read_unaligned() };
        e.map(|e| match e {
            0 | 1 => f32::from_bits(0x0020_0000 << e),
            255 => f32::NAN,
            _ => f32::from_bits((u32::from(e) - 1) << 23),
        })
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Self::Bytes {
        // SAFETY: the caller's pointer is valid for 64 bytes.
        let bytes = unsafe { p.cast::<[[u8; 4]; LANES]>().read_unaligned() };
        bytes.map(u32::from_le_bytes)
    }
    #[inline(always)]
    fn bytes_zero(self) -> Self::Bytes {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, q: Self::Bytes) {
        // SAFETY: the caller's pointer is valid for 64 bytes.
        unsafe { p.cast::<[[u8; 4]; LANES]>().write_unaligned(q.map(u32::to_le_bytes)) }
    }
    #[inline(always)]
    fn bytes_or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn bytes_bits(self, q: Self::Bytes, from: u32, to: u32, mask: u8) -> Self::Bytes {
        let mask = u32::from(mask) * 0x0101_0101;
        q.map(|x| (x >> from & mask) << to)
    }
    #[inline(always)]
    fn bytes_lookup(self, q: Self::Bytes, table: &[u8; 16]) -> Self::Bytes {
        q.map(|x| u32::from_le_bytes(x.to_le_bytes().map(|b| table[usize::from(b & 15)])))
    }
    #[inline(always)]
    fn bytes_low_nibbles(self, q: Self::Bytes) -> Self::Bytes {
        q.map(|x| x & 0x0f0f_0f0f)
    }
    #[inline(always)]
    fn bytes_high_nibbles(self, q: Self::Bytes) -> Self::Bytes {
        q.map(|x| x >> 4 & 0x0f0f_0f0f)
    }
    #[inline(always)]
    fn byte_to_f32(self, q: Self::Bytes, j: u32) -> Self::F32s {
        q.map(|x| (x >> (8 * j) & 255) as f32)
    }
    #[inline(always)]
    unsafe fn load_act(self, p: *const i8) -> Self::Act {
        // SAFETY: the caller's pointer is valid for 4 bytes.
        unsafe { p.cast::<Self::Act>().read_unaligned() }
    }

    #[inline(always)]
    fn narrow_start(self, init: Self::I32s) -> Self::NarrowAcc {
        init
    }
    #[inline(always)]
    fn narrow_dot(self, acc: Self::NarrowAcc, w: Self::Bytes, a: Self::Act) -> Self::NarrowAcc {
        dot(&acc, &w, a)
    }
    #[inline(always)]
    fn narrow_end(self, acc: Self::NarrowAcc, _init: Self::I32s) -> Self::I32s {
        acc
    }

    #[inline(always)]
    fn byte_start(self, neg_sum: Self::I32s) -> Self::I32s {
        self.i_shl(neg_sum, 7)
    }
    #[inline(always)]
    fn byte_dot(self, acc: Self::I32s, w: Self::Bytes, a: Self::Act) -> Self::I32s {
        self.narrow_dot(acc, w, a)
    }
}

crate::kernels::set::instantiate! {
    features: [],
    token: Scalar,
    isa: Isa::Scalar,
    bf16_fast: || None,
    gemm: { 1: [1] 2: [1] },
    keys: { 1: [1] 2: [1] },
    values: { 1: [1] 2: [1] },
    quant: &quant::QUANT,
}

/// The quantised products: one row at a time, because arrays unrolled by rows take long to compile.
mod quant {
    use super::Scalar;
    use crate::kernels::quant::QuantKernels;

    mod products {
        use super::Scalar;

        crate::kernels::quant::instantiate_int8! {
            features: [],
            token: Scalar,
            direct: 1 [],
            unpacked: 1 [1],
            halves: 1 [1],
        }
    }

    crate::kernels::quant::instantiate_widening! {
        features: [],
        token: Scalar,
        exact: 1 [1],
        wide: 1 [1 2 3 4],
    }

    pub(super) static QUANT: QuantKernels =
        QuantKernels { int8: &products::INT8, widening: &WIDENING, wide: WIDE };
}
