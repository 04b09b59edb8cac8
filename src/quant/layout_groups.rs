//! The numbers of groups in the headers of the packed layouts.

use super::codec::{get16, put16};
use super::format::BLOCK;
use super::layout::{Layout, Place};
use crate::fma::fma;
use crate::kernels::{LANES, ScaleKind, Shape};
use half::f16;

/// What turns the codes of a row and a group into weights: `scale * (code - zero)`, or where the packing has
/// minimums, `scale * code + min`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GroupNumbers {
    pub scale: f32,
    pub zero: u8,
    pub min: f32,
}

impl Layout {
    /// Stores the numbers of half `half` (0 where the packing has no halves) of block `b` of row `row`, which
    /// are those of its superblock.
    pub fn put_numbers(&self, panel: &mut [u8], row: usize, (b, half): (usize, usize), x: GroupNumbers) {
        let &Shape { ref fields, offset, header, .. } = self.packing.shape();
        let Place { header: start, i, .. } = self.place(b);
        let header = &mut panel[start..start + header];
        let at = LANES * half + row;
        match fields.scale {
            ScaleKind::F32 => put32(header, fields.d + 4 * at, x.scale),
            ScaleKind::E8m0 => header[fields.d + LANES * i + row] = exponent(x.scale),
            _ => put16(header, fields.d + 2 * at, f16::from_f32(x.scale).to_bits()),
        }
        match fields.min {
            Some(start) if fields.scale == ScaleKind::F32 => put32(header, start + 4 * at, x.min),
            Some(start) => put16(header, start + 2 * at, f16::from_f32(x.min).to_bits()),
            None => {}
        }
        if let Some(at) = fields.zero {
            header[at + row] = x.zero.wrapping_sub(offset as u8);
        }
    }

    /// The inverse of [`Layout::put_numbers`].
    pub fn get_numbers(&self, panel: &[u8], row: usize, (b, half): (usize, usize)) -> GroupNumbers {
        let &Shape { ref fields, offset, header, .. } = self.packing.shape();
        let Place { header: start, i, .. } = self.place(b);
        let header = &panel[start..start + header];
        let at = LANES * half + row;
        let scale = match fields.scale {
            ScaleKind::F32 => get32(header, fields.d + 4 * at),
            ScaleKind::E8m0 => power(header[fields.d + LANES * i + row]),
            _ => f16::from_bits(get16(header, fields.d + 2 * at)).to_f32(),
        };
        let min = match fields.min {
            Some(start) if fields.scale == ScaleKind::F32 => get32(header, start + 4 * at),
            Some(start) => f16::from_bits(get16(header, start + 2 * at)).to_f32(),
            None => 0.0,
        };
        let zero = fields.zero.map_or(0, |at| header[at + row]).wrapping_add(offset as u8);
        GroupNumbers { scale, zero, min }
    }
}

/// The codes of a row and the numbers of its groups.
impl Layout {
    /// Half blocks that have numbers of their own: 2, or 1 where a block is the least.
    fn halves(&self) -> usize {
        1 + usize::from(self.packing.shape().halves)
    }

    /// Stores the numbers of row `row` that begin with block `b`: those of a superblock, of a block or of its
    /// halves. `numbers` gives those of a position.
    pub fn put_row_numbers(
        &self,
        panel: &mut [u8],
        row: usize,
        b: usize,
        numbers: impl Fn(usize) -> GroupNumbers,
    ) {
        let of_blocks = self.packing.shape().fields.scale == ScaleKind::E8m0;
        if of_blocks || b.is_multiple_of(1 << self.superblock_shift) {
            for half in 0..self.halves() {
                let x = numbers(b * BLOCK + half * (BLOCK / 2));
                self.put_numbers(panel, row, (b, half), x);
            }
        }
    }

    /// Block `b` of row `row` in f32.
    pub fn dequantize_block(&self, panel: &[u8], row: usize, b: usize, out: &mut [f32; BLOCK]) {
        let shape = self.packing.shape();
        let mut codes = [0u8; BLOCK];
        self.get_codes(panel, row, b, &mut codes);
        let halves = self.halves();
        for (half, (out, codes)) in
            out.chunks_mut(BLOCK / halves).zip(codes.chunks(BLOCK / halves)).enumerate()
        {
            let GroupNumbers { scale, zero, min } = self.get_numbers(panel, row, (b, half));
            for (w, &code) in out.iter_mut().zip(codes) {
                *w = match (shape.float8, shape.fields.min) {
                    (Some(float8), _) => float8.value(code) * scale,
                    (None, Some(_)) => fma(f32::from(code), scale, min),
                    (None, None) => scale * (f32::from(code) - f32::from(zero)),
                };
            }
        }
    }
}

fn put32(bytes: &mut [u8], at: usize, x: f32) {
    bytes[at..at + 4].copy_from_slice(&x.to_le_bytes());
}

fn get32(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// `2^(e - 127)`, NaN for e = 255 (E8M0).
pub(super) fn power(e: u8) -> f32 {
    match e {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(e) << 23),
    }
}

/// The inverse of [`power`].
fn exponent(x: f32) -> u8 {
    (x.to_bits() >> 23) as u8
}
