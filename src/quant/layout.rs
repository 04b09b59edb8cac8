//! The packed layouts r16k4: the integers of blocks, in the order in which kernels read them.
//!
//! Weight rows (output features) are grouped into row panels (NR = 16), a row panel is a sequence of
//! superblocks:
//! ```text
//! superblock (16 rows x 32 k x blocks): [header: scales of 16 rows][codes of block 0][codes of block 1] ..
//! codes of a block, by planes:     vectors of 64 bytes; byte 4 r + j of vector v belongs to row r
//!   8 bits: vector g  holds k = 4g + j                      (g of 8 groups of 4 k)
//!   4 bits: vector g % 4, low nibbles g < 4, high nibbles g >= 4
//!   2 bits: vector g / 4, bits 2 (g % 4)
//!   1 bit:  one vector, bit g
//! ```
//! One 64-byte load feeds 16 lanes. Every layout keeps all integers of its format, so packing is reversible,
//! and has the bits a weight of the format's own blocks, to within 3 % (Q3_K: 5 %, its 6-bit scales take
//! bytes). Rows that fill up the last row panel, and blocks that fill up the last superblock, are zeros.
//! Headers are described at the formats of the kernels.

use super::codec::{Codec, Decoded, SIGN, get16, put16};
use super::format::{BLOCK, WeightFormat};
use crate::blob::wrong;
use crate::error::{Result, product};
use crate::kernels::formats::for_each_packing;
use crate::kernels::{Factors, Fields, LANES, Packing, ScaleKind, Shape};

/// How the integers of a format lie in a row panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub packing: Packing,
    /// log2 of the blocks of 32 k in a superblock.
    pub superblock_shift: u32,
    /// Blocks of 32 k in a block of the format; 1 for groups.
    per_block: usize,
}

/// Where a block of 32 k lies in a row panel.
struct Place {
    /// The byte where the header of its superblock starts.
    header: usize,
    /// Its number in the superblock.
    i: usize,
    /// The byte where its codes start.
    codes: usize,
}

impl Layout {
    /// The layout of a format of blocks; `None` for single floats.
    pub fn of(format: WeightFormat) -> Option<Layout> {
        let packing = packing_of(format)?;
        let per_block = format.block_len() / BLOCK;
        let superblock = match packing.shape().blocks {
            0 => per_block,
            blocks => blocks,
        };
        Some(Layout { packing, superblock_shift: superblock.trailing_zeros(), per_block })
    }

    /// The layout of group-wise weights: groups of 32, 64 or 128 are the superblocks.
    pub fn of_groups(bits: u32, group: usize, symmetric: bool) -> Layout {
        let packing = match (bits, symmetric) {
            (4, true) => Packing::Group4,
            (4, false) => Packing::Group4Zero,
            (_, true) => Packing::Group8,
            (_, false) => Packing::Group8Zero,
        };
        Layout { packing, superblock_shift: (group / BLOCK).trailing_zeros(), per_block: 1 }
    }

    /// Stores the scale and the zero of group `g` of row `row`.
    pub fn put_group(&self, panel: &mut [u8], row: usize, g: usize, scale: f32, zero: u8) {
        let Shape { header, fields, offset, .. } = *self.packing.shape();
        let header = &mut panel[g * self.superblock_bytes()..][..header];
        header[fields.d + 4 * row..][..4].copy_from_slice(&scale.to_le_bytes());
        if let Some(at) = fields.zero {
            header[at + row] = zero.wrapping_sub(offset as u8);
        }
    }

    /// The inverse of [`Layout::put_group`].
    pub fn get_group(&self, panel: &[u8], row: usize, g: usize) -> (f32, u8) {
        let Shape { header, fields, offset, .. } = *self.packing.shape();
        let header = &panel[g * self.superblock_bytes()..][..header];
        let scale = &header[fields.d + 4 * row..][..4];
        let zero = fields.zero.map_or(0, |at| header[at + row]).wrapping_add(offset as u8);
        (f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]), zero)
    }

    /// Bytes of a superblock.
    fn superblock_bytes(&self) -> usize {
        let shape = self.packing.shape();
        shape.header + (shape.codes << self.superblock_shift)
    }

    /// Bytes of 16 rows of `k`.
    pub fn panel_bytes(&self, k: usize) -> Result<usize> {
        let superblocks = (k / BLOCK).div_ceil(1 << self.superblock_shift);
        product("packed row panel", &[superblocks, self.superblock_bytes()])
    }

    /// Bytes of `n` rows of `k`.
    pub fn bytes(&self, n: usize, k: usize) -> Result<usize> {
        product("packed weights", &[n.div_ceil(LANES), self.panel_bytes(k)?])
    }

    /// Where block `b` of 32 k lies in a row panel.
    fn place(&self, b: usize) -> Place {
        let shape = self.packing.shape();
        let i = b % (1 << self.superblock_shift);
        let header = (b >> self.superblock_shift) * self.superblock_bytes();
        Place { header, i, codes: header + shape.header + i * shape.codes }
    }

    /// Stores the codes of block `b` of 32 k, whose bytes are zeros, of row `row` of a row panel.
    pub fn put_codes(&self, panel: &mut [u8], row: usize, b: usize, codes: &[u8]) {
        let start = self.place(b).codes;
        if self.has_strands() {
            return self.put_strands(&mut panel[start..], row, codes);
        }
        for plane in self.packing.shape().planes {
            let mask = 0xffu8 >> (8 - plane.bits);
            for (g, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
                let (at, shift) = plane.place(row, g);
                let out = &mut panel[start + at..start + at + 4];
                for (out, code) in out.iter_mut().zip(codes) {
                    *out |= (code >> plane.at & mask) << shift;
                }
            }
        }
    }

    /// Whether codes are entries of codebooks, whose bytes are stored as they are.
    fn has_strands(&self) -> bool {
        !self.packing.shape().strands.is_empty()
    }

    /// [`Layout::put_codes`] of entries of codebooks; `block`: from the codes of the block on.
    fn put_strands(&self, block: &mut [u8], row: usize, mut bytes: &[u8]) {
        for strand in self.packing.shape().strands {
            let (these, rest) = bytes.split_at(strand.bytes);
            block[strand.start + strand.bytes * row..][..strand.bytes].copy_from_slice(these);
            bytes = rest;
        }
    }

    /// The inverse of [`Layout::put_strands`].
    fn get_strands(&self, block: &[u8], row: usize, bytes: &mut [u8]) {
        let mut at = 0;
        for strand in self.packing.shape().strands {
            let these = &block[strand.start + strand.bytes * row..][..strand.bytes];
            bytes[at..at + strand.bytes].copy_from_slice(these);
            at += strand.bytes;
        }
    }

    /// The inverse of [`Layout::put_codes`].
    pub fn get_codes(&self, panel: &[u8], row: usize, b: usize, codes: &mut [u8]) {
        let start = self.place(b).codes;
        codes.fill(0);
        if self.has_strands() {
            return self.get_strands(&panel[start..], row, codes);
        }
        for plane in self.packing.shape().planes {
            let mask = 0xffu8 >> (8 - plane.bits);
            for (g, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let (at, shift) = plane.place(row, g);
                let bytes = &panel[start + at..start + at + 4];
                for (code, byte) in codes.iter_mut().zip(bytes) {
                    *code |= (byte >> shift & mask) << plane.at;
                }
            }
        }
    }

    /// Stores block `b` of the format (32 or 256 k) of row `row`.
    pub fn put(&self, panel: &mut [u8], row: usize, b: usize, decoded: &Decoded) {
        let per_block = self.per_block;
        for i in 0..per_block {
            self.put_codes(panel, row, b * per_block + i, &decoded.codes[i * BLOCK..][..BLOCK]);
        }
        let Place { header: start, i, .. } = self.place(b * per_block);
        let header = &mut panel[start..start + self.packing.shape().header];
        let Shape { fields, factors, .. } = *self.packing.shape();
        let Decoded { scales, mins, d, dmin, .. } = decoded;
        match fields.scale {
            ScaleKind::E8m0 => header[fields.d + LANES * i + row] = *d as u8,
            ScaleKind::Factors => {}
            _ => put16(header, fields.d + 2 * (LANES * i + row), *d),
        }
        if let Some(at) = fields.min {
            put16(header, at + 2 * (LANES * i + row), dmin ^ sign_of_min(&fields));
        }
        for (s, (scale, min)) in scales[..factors].iter().map(|&s| s as u8).zip(mins).enumerate() {
            let at = fields.factors_at + LANES * s + row;
            match fields.factors {
                Factors::None => {}
                Factors::Bytes => header[at] = scale,
                Factors::Odd => {
                    header[fields.factors_at + LANES * (s / 2) + row] |= (scale >> 1 & 15) << (4 * (s % 2));
                }
                Factors::Nibbles => header[at] = scale & 15 | min << 4,
                Factors::SixBits => {
                    header[at] = scale & 15 | min << 4;
                    let high = scale >> 4 & 3 | (min >> 4 & 3) << 2;
                    header[fields.high + LANES * (s / 2) + row] |= high << (4 * (s % 2));
                }
            }
        }
    }

    /// The inverse of [`Layout::put`]. Numbers that the format lacks are as its codec gives them.
    pub fn get(&self, panel: &[u8], row: usize, b: usize, decoded: &mut Decoded) {
        let per_block = self.per_block;
        *decoded = Decoded::ZERO;
        for i in 0..per_block {
            self.get_codes(panel, row, b * per_block + i, &mut decoded.codes[i * BLOCK..][..BLOCK]);
        }
        let Place { header: start, i, .. } = self.place(b * per_block);
        let header = &panel[start..start + self.packing.shape().header];
        let Shape { fields, factors, .. } = *self.packing.shape();
        let Decoded { scales, mins, d, dmin, .. } = decoded;
        *d = match fields.scale {
            ScaleKind::E8m0 => u16::from(header[fields.d + LANES * i + row]),
            ScaleKind::Factors => 0,
            _ => get16(header, fields.d + 2 * (LANES * i + row)),
        };
        if let Some(at) = fields.min {
            *dmin = get16(header, at + 2 * (LANES * i + row)) ^ sign_of_min(&fields);
        }
        if fields.factors == Factors::None {
            scales[..self.per_block].fill(1);
            mins[..self.per_block].fill(u8::from(fields.min.is_some()));
            return;
        }
        for s in 0..factors {
            let byte = match fields.factors {
                Factors::Odd => header[fields.factors_at + LANES * (s / 2) + row] >> (4 * (s % 2)) & 15,
                _ => header[fields.factors_at + LANES * s + row],
            };
            (scales[s], mins[s]) = match fields.factors {
                Factors::SixBits => {
                    let high = header[fields.high + LANES * (s / 2) + row] >> (4 * (s % 2));
                    ((byte & 15 | (high & 3) << 4) as i8, byte >> 4 | (high >> 2 & 3) << 4)
                }
                Factors::Nibbles => ((byte & 15) as i8, byte >> 4),
                Factors::Odd => ((2 * byte + 1) as i8, 0),
                Factors::Bytes | Factors::None => (byte as i8, 0),
            };
        }
    }

    /// Checks what was read from a file: factors and zeros of fewer bits than their bytes have. `format` is
    /// that of the weights, `None` for group-wise ones.
    ///
    /// **Errors**: `Blob`. **Cost**: one pass over those bytes of the headers; every other bit means
    /// something.
    pub fn check(&self, format: Option<WeightFormat>, panels: &[u8]) -> Result<()> {
        let Shape { fields, factors, offset, .. } = *self.packing.shape();
        let codec = format.and_then(Codec::of);
        if let Some(codec) = codec.filter(|codec| fields.factors == Factors::Odd && codec.scales.1 < 31) {
            let (at, most) = (fields.factors_at, codec.scales.1 as u8 / 2);
            for superblock in panels.chunks_exact(self.superblock_bytes()) {
                let mut t = superblock[at..at + factors / 2 * LANES].iter().flat_map(|b| [b & 15, b >> 4]);
                if let Some(far) = t.find(|&t| t > most) {
                    return wrong("scale", far, format!("in 0..={most}"));
                }
            }
            return Ok(());
        }
        let (at, vectors, (low, high)) = match (fields.zero, codec) {
            (Some(at), _) => (at, 1, (-(offset as i32) as i8, (offset - 1) as i8)),
            (None, Some(codec)) if fields.factors == Factors::Bytes => {
                (fields.factors_at, factors, codec.scales)
            }
            _ => return Ok(()),
        };
        if (low, high) == (i8::MIN, i8::MAX) {
            return Ok(());
        }
        for superblock in panels.chunks_exact(self.superblock_bytes()) {
            let mut numbers = superblock[at..at + vectors * LANES].iter().map(|&b| b as i8);
            if let Some(far) = numbers.find(|x| !(low..=high).contains(x)) {
                return wrong("scale or zero", far, format!("in {low}..={high}"));
            }
        }
        Ok(())
    }
}

/// The packing of a format; `None` for single floats.
fn packing_of(format: WeightFormat) -> Option<Packing> {
    macro_rules! packing {
        (blocks { $($name:ident: $format:ty, $codec:path;)+ } groups { $($groups:tt)+ }) => {
            match format {
                $(WeightFormat::$name => Some(Packing::$name),)+
                _ => None,
            }
        };
    }
    for_each_packing!(packing)
}

/// The minimum of a block is added by the format and its kernels, and subtracted by the formula of the
/// codecs.
fn sign_of_min(fields: &Fields) -> u16 {
    if fields.factors == Factors::None { SIGN } else { 0 }
}
