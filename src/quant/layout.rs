//! The packed layouts r16k4: the integers of blocks, in the order in which kernels read them.
//!
//! Weight rows (output features) are grouped into stripes of 16, a stripe is a sequence of units:
//! ```text
//! unit (16 rows x 32 k x blocks):  [header: scales of the 16 rows][codes of block 0][codes of block 1] ..
//! codes of a block, by planes:     vectors of 64 bytes; byte 4 r + j of vector v belongs to row r
//!   8 bits: vector g  holds k = 4g + j                      (g of 8 groups of 4 k)
//!   4 bits: vector g % 4, low nibbles g < 4, high nibbles g >= 4
//!   2 bits: vector g / 4, bits 2 (g % 4)
//!   1 bit:  one vector, bit g
//! ```
//! One 64-byte load feeds 16 lanes. Every layout keeps all integers of its format, so packing is reversible,
//! and has the bits a weight of the format's own blocks, to within 3 % (Q3_K: 5 %, its 6-bit scales take
//! bytes). Rows that fill up the last stripe, and blocks that fill up the last unit, are zeros. Headers are
//! described at the formats of the kernels.

use super::codec::Decoded;
use super::format::{BLOCK, WeightFormat};
use crate::blob::wrong;
use crate::error::{Result, product};
use crate::kernels::{LANES, Packing};

/// How the integers of a format lie in a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub packing: Packing,
    /// log2 of the blocks of 32 k in a unit.
    pub unit_shift: u32,
}

/// Bits of a code that lie together: `bits` from bit `at` of the code, from byte `start` of a block's codes.
struct Plane {
    start: usize,
    bits: u32,
    at: u32,
}

const fn plane(start: usize, bits: u32, at: u32) -> Plane {
    Plane { start, bits, at }
}

impl Plane {
    /// The byte of row `lane`'s k = 4 g (the next three follow), and the shift of its bits.
    fn place(&self, lane: usize, g: usize) -> (usize, u32) {
        let (vector, shift) = match self.bits {
            8 => (g, 0),
            4 => (g % 4, 4 * (g / 4)),
            2 => (g / 4, 2 * (g % 4)),
            _ => (0, g),
        };
        (self.start + 64 * vector + 4 * lane, shift as u32)
    }
}

impl Layout {
    /// The layout of a format of blocks; `None` for single floats.
    pub fn of(format: WeightFormat) -> Option<Layout> {
        let packing = match format {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => return None,
            WeightFormat::Q4_0 => Packing::Q4_0,
            WeightFormat::Q4_1 => Packing::Q4_1,
            WeightFormat::Q5_0 => Packing::Q5_0,
            WeightFormat::Q5_1 => Packing::Q5_1,
            WeightFormat::Q8_0 => Packing::Q8_0,
            WeightFormat::Q2K => Packing::Q2K,
            WeightFormat::Q3K => Packing::Q3K,
            WeightFormat::Q4K => Packing::Q4K,
            WeightFormat::Q5K => Packing::Q5K,
            WeightFormat::Q6K => Packing::Q6K,
            WeightFormat::Iq4Nl => Packing::Iq4Nl,
            WeightFormat::Iq4Xs => Packing::Iq4Xs,
            WeightFormat::Mxfp4 => Packing::Mxfp4,
        };
        Some(Layout { packing, unit_shift: packing.shape().blocks.trailing_zeros() })
    }

    /// The layout of group-wise weights: groups of 32, 64 or 128 are the units.
    pub fn of_groups(bits: u32, group: usize, symmetric: bool) -> Layout {
        let packing = match (bits, symmetric) {
            (4, true) => Packing::Group4,
            (4, false) => Packing::Group4Zero,
            (_, true) => Packing::Group8,
            (_, false) => Packing::Group8Zero,
        };
        Layout { packing, unit_shift: (group / BLOCK).trailing_zeros() }
    }

    /// Stores the scale and the zero of group `g` of row `lane`.
    pub fn put_group(&self, stripe: &mut [u8], lane: usize, g: usize, scale: f32, zero: u8) {
        let header = &mut stripe[g * self.unit_bytes()..][..self.packing.shape().header];
        header[4 * lane..4 * lane + 4].copy_from_slice(&scale.to_le_bytes());
        match self.packing {
            Packing::Group4Zero => header[64 + lane] = zero.wrapping_sub(8),
            Packing::Group8Zero => header[64 + lane] = zero.wrapping_sub(128),
            _ => {}
        }
    }

    /// The inverse of [`Layout::put_group`].
    pub fn get_group(&self, stripe: &[u8], lane: usize, g: usize) -> (f32, u8) {
        let header = &stripe[g * self.unit_bytes()..][..self.packing.shape().header];
        let scale = &header[4 * lane..4 * lane + 4];
        let zero = match self.packing {
            Packing::Group4 => 8,
            Packing::Group8 => 128,
            Packing::Group4Zero => header[64 + lane].wrapping_add(8),
            _ => header[64 + lane].wrapping_add(128),
        };
        (f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]), zero)
    }

    /// Bytes of a unit.
    fn unit_bytes(&self) -> usize {
        let shape = self.packing.shape();
        shape.header + (shape.codes << self.unit_shift)
    }

    /// Bytes of 16 rows of `k`.
    pub fn stripe_bytes(&self, k: usize) -> Result<usize> {
        let units = (k / BLOCK).div_ceil(1 << self.unit_shift);
        product("packed stripe", &[units, self.unit_bytes()])
    }

    /// Bytes of `n` rows of `k`.
    pub fn bytes(&self, n: usize, k: usize) -> Result<usize> {
        product("packed weights", &[n.div_ceil(LANES), self.stripe_bytes(k)?])
    }

    fn planes(&self) -> &'static [Plane] {
        match self.packing {
            Packing::Q2K => const { &[plane(0, 2, 0)] },
            Packing::Q3K => const { &[plane(0, 2, 0), plane(128, 1, 2)] },
            Packing::Q5_0 | Packing::Q5_1 | Packing::Q5K => const { &[plane(0, 4, 0), plane(256, 1, 4)] },
            Packing::Q6K => const { &[plane(0, 4, 0), plane(256, 2, 4)] },
            Packing::Q8_0 | Packing::Group8 | Packing::Group8Zero => const { &[plane(0, 8, 0)] },
            _ => const { &[plane(0, 4, 0)] },
        }
    }

    /// Where block `b` of 32 k lies: its unit's header, its number in the unit, and its codes.
    fn block(&self, b: usize) -> (usize, usize, usize) {
        let shape = self.packing.shape();
        let (unit, i) = (b >> self.unit_shift, b % (1 << self.unit_shift));
        let header = unit * self.unit_bytes();
        (header, i, header + shape.header + i * shape.codes)
    }

    /// Stores the codes of block `b` of 32 k, whose bytes are zeros, of row `lane` of a stripe.
    pub fn put_codes(&self, stripe: &mut [u8], lane: usize, b: usize, codes: &[u8]) {
        let (_, _, start) = self.block(b);
        for plane in self.planes() {
            let mask = 0xffu8 >> (8 - plane.bits);
            for (g, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
                let (at, shift) = plane.place(lane, g);
                let out = &mut stripe[start + at..start + at + 4];
                for (out, code) in out.iter_mut().zip(codes) {
                    *out |= (code >> plane.at & mask) << shift;
                }
            }
        }
    }

    /// The inverse of [`Layout::put_codes`].
    pub fn get_codes(&self, stripe: &[u8], lane: usize, b: usize, codes: &mut [u8]) {
        let (_, _, start) = self.block(b);
        codes.fill(0);
        for plane in self.planes() {
            let mask = 0xffu8 >> (8 - plane.bits);
            for (g, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let (at, shift) = plane.place(lane, g);
                let bytes = &stripe[start + at..start + at + 4];
                for (code, byte) in codes.iter_mut().zip(bytes) {
                    *code |= (byte >> shift & mask) << plane.at;
                }
            }
        }
    }

    /// Stores block `b` of the format (32 or 256 k) of row `lane`.
    pub fn put(&self, stripe: &mut [u8], lane: usize, b: usize, decoded: &Decoded) {
        let per_block = self.blocks_of_codec();
        for i in 0..per_block {
            self.put_codes(stripe, lane, b * per_block + i, &decoded.codes[i * BLOCK..][..BLOCK]);
        }
        let (start, i, _) = self.block(b * per_block);
        let header = &mut stripe[start..start + self.packing.shape().header];
        let Decoded { scales, mins, d, dmin, .. } = decoded;
        match self.packing {
            Packing::Q4_1 | Packing::Q5_1 => {
                put16(header, 32 * i + 2 * lane, *d);
                put16(header, 64 + 32 * i + 2 * lane, dmin ^ SIGN);
            }
            Packing::Mxfp4 => header[16 * i + lane] = *d as u8,
            Packing::Iq4Xs => {
                put16(header, 2 * lane, *d);
                for s in 0..8 {
                    header[32 + 16 * s + lane] = scales[s] as u8;
                }
            }
            Packing::Q4K | Packing::Q5K => {
                put16(header, 2 * lane, *d);
                put16(header, 32 + 2 * lane, *dmin);
                for s in 0..8 {
                    let (scale, min) = (scales[s] as u8, mins[s]);
                    header[64 + 16 * s + lane] = scale & 15 | min << 4;
                    header[192 + 16 * (s / 2) + lane] |=
                        (scale >> 4 & 3 | (min >> 4 & 3) << 2) << (4 * (s % 2));
                }
            }
            Packing::Q3K | Packing::Q6K => {
                for s in 0..16 {
                    header[16 * s + lane] = scales[s] as u8;
                }
                put16(header, 256 + 2 * lane, *d);
            }
            Packing::Q2K => {
                for s in 0..16 {
                    header[16 * s + lane] = scales[s] as u8 & 15 | mins[s] << 4;
                }
                put16(header, 256 + 2 * lane, *d);
                put16(header, 288 + 2 * lane, *dmin);
            }
            _ => put16(header, 32 * i + 2 * lane, *d),
        }
    }

    /// The inverse of [`Layout::put`]. Numbers that the format lacks are as its codec gives them.
    pub fn get(&self, stripe: &[u8], lane: usize, b: usize, decoded: &mut Decoded) {
        let per_block = self.blocks_of_codec();
        *decoded = Decoded::ZERO;
        for i in 0..per_block {
            self.get_codes(stripe, lane, b * per_block + i, &mut decoded.codes[i * BLOCK..][..BLOCK]);
        }
        let (start, i, _) = self.block(b * per_block);
        let header = &stripe[start..start + self.packing.shape().header];
        let Decoded { scales, mins, d, dmin, .. } = decoded;
        scales[0] = 1;
        match self.packing {
            Packing::Q4_1 | Packing::Q5_1 => {
                *d = get16(header, 32 * i + 2 * lane);
                *dmin = get16(header, 64 + 32 * i + 2 * lane) ^ SIGN;
                mins[0] = 1;
            }
            Packing::Mxfp4 => *d = u16::from(header[16 * i + lane]),
            Packing::Iq4Xs => {
                *d = get16(header, 2 * lane);
                for s in 0..8 {
                    scales[s] = header[32 + 16 * s + lane] as i8;
                }
            }
            Packing::Q4K | Packing::Q5K => {
                *d = get16(header, 2 * lane);
                *dmin = get16(header, 32 + 2 * lane);
                for s in 0..8 {
                    let low = header[64 + 16 * s + lane];
                    let high = header[192 + 16 * (s / 2) + lane] >> (4 * (s % 2));
                    scales[s] = (low & 15 | (high & 3) << 4) as i8;
                    mins[s] = low >> 4 | (high >> 2 & 3) << 4;
                }
            }
            Packing::Q3K | Packing::Q6K => {
                for s in 0..16 {
                    scales[s] = header[16 * s + lane] as i8;
                }
                *d = get16(header, 256 + 2 * lane);
            }
            Packing::Q2K => {
                for s in 0..16 {
                    let byte = header[16 * s + lane];
                    (scales[s], mins[s]) = ((byte & 15) as i8, byte >> 4);
                }
                *d = get16(header, 256 + 2 * lane);
                *dmin = get16(header, 288 + 2 * lane);
            }
            _ => *d = get16(header, 32 * i + 2 * lane),
        }
    }

    /// Checks what was read from a file: scales and zeros of fewer bits than their bytes have.
    ///
    /// **Errors**: `Blob`. **Cost**: one pass over those bytes of the headers; every other bit means something.
    pub fn check(&self, stripes: &[u8]) -> Result<()> {
        let (bytes, range) = match self.packing {
            Packing::Iq4Xs => (32..160, -32..=31i8),
            Packing::Q3K => (0..256, -32..=31),
            Packing::Group4Zero => (64..80, -8..=7),
            _ => return Ok(()),
        };
        for unit in stripes.chunks_exact(self.unit_bytes()) {
            if let Some(far) = unit[bytes.clone()].iter().map(|&b| b as i8).find(|x| !range.contains(x)) {
                return wrong("scale or zero", far, format!("in {range:?}"));
            }
        }
        Ok(())
    }

    /// Blocks of 32 k in a block of the format.
    fn blocks_of_codec(&self) -> usize {
        if self.packing.shape().blocks == 8 { 8 } else { 1 }
    }
}

/// The sign of an f16: the codec of Q4_1 and Q5_1 subtracts what the format, and the kernel, add.
const SIGN: u16 = 0x8000;

fn put16(bytes: &mut [u8], at: usize, x: u16) {
    bytes[at..at + 2].copy_from_slice(&x.to_le_bytes());
}

fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
