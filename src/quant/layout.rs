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
use crate::kernels::{Factors, Fields, Float8Shape, LANES, Packing, Plane, ScaleKind, Shape};

/// How the integers of a format lie in a row panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub packing: Packing,
    /// log2 of the blocks of 32 k in a superblock.
    pub superblock_shift: u32,
    /// Blocks of 32 k in a block of the format; 1 for groups.
    pub(super) per_block: usize,
}

/// log2 of the most blocks of a superblock of groups: 1024 k share a scale of 4 bytes.
const SUPERBLOCK_SHIFT: u32 = 5;

/// Where a block of 32 k lies in a row panel.
pub(super) struct Place {
    /// The byte where the header of its superblock starts.
    pub header: usize,
    /// Its number in the superblock.
    pub i: usize,
    /// The byte where its codes start.
    pub codes: usize,
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

    /// A layout of weights in groups of `group` of k input features; a whole number of blocks, all of k, or
    /// half a block where the packing has halves. A superblock is a part of a group: as long as takes the
    /// fewest bytes, the longest of those that take as many.
    pub fn of_groups(packing: Packing, group: usize, k: usize) -> Layout {
        let shape = packing.shape();
        let most = match shape.blocks {
            0 if group >= k.max(1) => SUPERBLOCK_SHIFT,
            0 => (group / BLOCK).trailing_zeros().min(SUPERBLOCK_SHIFT),
            blocks => blocks.trailing_zeros(),
        };
        let least = if shape.blocks == 0 { 0 } else { most };
        let of = |superblock_shift| Layout { packing, superblock_shift, per_block: 1 };
        let bytes = |shift: &u32| of(*shift).panel_bytes(k).unwrap_or(usize::MAX);
        of((least..=most).rev().min_by_key(bytes).unwrap_or(most))
    }

    /// Every layout of weights in groups.
    pub fn all_of_groups() -> impl Iterator<Item = Layout> {
        Packing::GROUPS.iter().flat_map(|&packing| {
            let shifts = match packing.shape().blocks {
                0 => 0..=SUPERBLOCK_SHIFT,
                blocks => blocks.trailing_zeros()..=blocks.trailing_zeros(),
            };
            shifts.map(move |superblock_shift| Layout { packing, superblock_shift, per_block: 1 })
        })
    }

    /// Bytes of a superblock.
    pub(super) fn superblock_bytes(&self) -> usize {
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
    pub(super) fn place(&self, b: usize) -> Place {
        let shape = self.packing.shape();
        let i = b % (1 << self.superblock_shift);
        let header = (b >> self.superblock_shift) * self.superblock_bytes();
        Place { header, i, codes: header + shape.header + i * shape.codes }
    }

    /// Stores the codes of block `b` of 32 k of row `row` of a row panel.
    fn put_codes(&self, panel: &mut [u8], row: usize, b: usize, codes: &[u8]) {
        let start = self.place(b).codes;
        if self.has_strands() {
            return self.put_strands(&mut panel[start..], row, codes);
        }
        let Some(codes) = codes.first_chunk::<BLOCK>() else { return debug_assert!(false, "a block") };
        for plane in self.packing.shape().planes {
            let vectors = &mut panel[start + plane.start..][..plane.bytes()];
            match plane.bits {
                8 => put_plane::<8>(vectors, row, plane.at, codes),
                4 => put_plane::<4>(vectors, row, plane.at, codes),
                2 => put_plane::<2>(vectors, row, plane.at, codes),
                _ => put_plane::<1>(vectors, row, plane.at, codes),
            }
        }
    }

    /// Whether codes are entries of codebooks, whose bytes are stored as they are.
    pub(super) fn has_strands(&self) -> bool {
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
        let Some(codes) = codes.first_chunk_mut::<BLOCK>() else { return debug_assert!(false, "a block") };
        for plane in self.packing.shape().planes {
            let vectors = &panel[start + plane.start..][..plane.bytes()];
            match plane.bits {
                8 => get_plane::<8>(vectors, row, plane.at, codes),
                4 => get_plane::<4>(vectors, row, plane.at, codes),
                2 => get_plane::<2>(vectors, row, plane.at, codes),
                _ => get_plane::<1>(vectors, row, plane.at, codes),
            }
        }
    }

    /// Stores blocks of row `row`, from its first on.
    pub fn put_blocks(&self, codec: &Codec, panel: &mut [u8], row: usize, blocks: &[u8]) {
        let (per_block, mut decoded) = (self.per_block, Decoded::ZERO);
        for (b, block) in blocks.chunks_exact(codec.format.block_bytes()).enumerate() {
            codec.decode(block, &mut decoded);
            self.put_headers(panel, row, b, std::slice::from_ref(&decoded));
            for i in 0..per_block {
                self.put_codes(panel, row, b * per_block + i, &decoded.codes[i * BLOCK..][..BLOCK]);
            }
        }
    }

    /// Stores all numbers of block `b` of the format but its codes, of rows from `row` on.
    pub fn put_headers(&self, panel: &mut [u8], row: usize, b: usize, rows: &[Decoded]) {
        let Place { header: start, i, .. } = self.place(b * self.per_block);
        let Shape { fields, factors, header, .. } = self.packing.shape();
        let header = &mut panel[start..start + header];
        for (row, decoded) in (row..LANES).zip(rows) {
            match fields.scale {
                ScaleKind::E8m0 => header[fields.d + LANES * i + row] = decoded.d as u8,
                ScaleKind::Factors => {}
                _ => put16(header, fields.d + 2 * (LANES * i + row), decoded.d),
            }
            if let Some(at) = fields.min {
                put16(header, at + 2 * (LANES * i + row), decoded.dmin ^ sign_of_min(fields));
            }
            if fields.factors != Factors::None {
                put_factors(header, fields, *factors, row, decoded);
            }
        }
    }

    /// The inverse of [`Layout::put_blocks`] for one block. Numbers that the format lacks are as its codec
    /// gives them.
    pub fn get(&self, panel: &[u8], row: usize, b: usize, decoded: &mut Decoded) {
        let per_block = self.per_block;
        *decoded = Decoded::ZERO;
        for i in 0..per_block {
            self.get_codes(panel, row, b * per_block + i, &mut decoded.codes[i * BLOCK..][..BLOCK]);
        }
        let Place { header: start, i, .. } = self.place(b * per_block);
        let &Shape { ref fields, factors, header, .. } = self.packing.shape();
        let header = &panel[start..start + header];
        let Decoded { scales, mins, d, dmin, .. } = decoded;
        *d = match fields.scale {
            ScaleKind::E8m0 => u16::from(header[fields.d + LANES * i + row]),
            ScaleKind::Factors => 0,
            _ => get16(header, fields.d + 2 * (LANES * i + row)),
        };
        if let Some(at) = fields.min {
            *dmin = get16(header, at + 2 * (LANES * i + row)) ^ sign_of_min(fields);
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

    /// Checks what was read from a file: factors and zeros of fewer bits than their bytes have, floats.
    /// `format` is that of the weights, `None` for group-wise ones.
    ///
    /// **Errors**: `Blob`. **Cost**: one pass over those bytes of the headers; every other bit means
    /// something.
    pub fn check(&self, format: Option<WeightFormat>, panels: &[u8]) -> Result<()> {
        let &Shape { ref fields, factors, offset, float8, header, .. } = self.packing.shape();
        let codec = format.and_then(Codec::of);
        if let Some(Float8Shape { not_finite, .. }) = float8 {
            for superblock in panels.chunks_exact(self.superblock_bytes()) {
                if let Some(far) = superblock[header..].iter().find(|&code| code & 0x7f >= not_finite) {
                    return wrong("code", far, format_args!("below {not_finite} without its sign"));
                }
            }
        }
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

/// The bits of `BITS` from bit `at` of the codes of row `row`, into the vectors of a plane. `BITS` is a
/// constant so that the places of all groups are.
fn put_plane<const BITS: u32>(vectors: &mut [u8], row: usize, at: u32, codes: &[u8; BLOCK]) {
    let mut words = [0u32; BLOCK / 4];
    for (g, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
        let (vector, shift) = Plane::place::<BITS>(g);
        words[vector] |= (u32::from_le_bytes(*codes) >> at & Plane::mask::<BITS>()) << shift;
    }
    for (out, word) in vectors.as_chunks_mut::<64>().0.iter_mut().zip(words) {
        out.as_chunks_mut::<4>().0[row % LANES] = word.to_le_bytes();
    }
}

/// The inverse of [`put_plane`]; the bits of `codes` are zeros there.
fn get_plane<const BITS: u32>(vectors: &[u8], row: usize, at: u32, codes: &mut [u8; BLOCK]) {
    for (g, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let (vector, shift) = Plane::place::<BITS>(g);
        let word = vectors.as_chunks::<64>().0[vector].as_chunks::<4>().0[row % LANES];
        let bits = u32::from_le_bytes(word) >> shift & Plane::mask::<BITS>();
        *codes = (u32::from_le_bytes(*codes) | bits << at).to_le_bytes();
    }
}

/// Stores the factors of a row in the header of a superblock.
fn put_factors(header: &mut [u8], fields: &Fields, factors: usize, row: usize, decoded: &Decoded) {
    let Decoded { scales, mins, .. } = decoded;
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
