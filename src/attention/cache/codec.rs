//! Keys and values into pages and out of them, one token of one head at a time.

use super::layout::{Field, Layout};
use super::options::KvType;
use crate::kernels::{BLOCK, LANES};
use crate::view::MatRef;
use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::ops::Range;

/// The units of a slot from unit `first` on, writable.
fn units_from<'a>(
    head: &'a mut [u8],
    field: &Field,
    slot: usize,
    first: usize,
) -> impl Iterator<Item = &'a mut [u8]> {
    let (unit, start) = (field.unit, field.at(slot) + first * field.stride);
    // A field without units may lie beyond the end.
    let from = head.get_mut(start..).unwrap_or_default();
    from.chunks_mut(field.stride).take(field.count - first).map(move |at| &mut at[..unit])
}

/// The units of a slot, writable.
fn units<'a>(head: &'a mut [u8], field: &Field, slot: usize) -> impl Iterator<Item = &'a mut [u8]> {
    units_from(head, field, slot, 0)
}

/// The units of a slot.
fn read<'a>(head: &'a [u8], field: &Field, slot: usize) -> impl Iterator<Item = &'a [u8]> {
    let unit = field.unit;
    let from = head.get(field.at(slot)..).unwrap_or_default();
    from.chunks(field.stride).take(field.count).map(move |at| &at[..unit])
}

/// Rows of keys or values for all heads, and the slot that the first of them is written to.
pub(super) struct Rows<'a> {
    pub x: MatRef<'a>, // (tokens, heads * dim)
    pub rows: Range<usize>,
    pub dim: usize,
    pub slot: usize,
}

impl Rows<'_> {
    /// Calls `write(part of the head, slot, numbers)` for each row of each head of a page. Heads outer: the
    /// tile that is scattered into stays in L1.
    // One function for each type: beside the loops of the others, this one's state was spilled.
    #[inline(never)]
    fn each(self, layout: &Layout, page: &mut [u8], write: impl Fn(&mut [u8], usize, &[f32])) {
        let Rows { x, rows, dim, slot } = self;
        let (x, (stride, _)) = (x.from(rows.start, 0), x.strides());
        for (head, part) in page.chunks_exact_mut(layout.head_bytes).enumerate() {
            for i in 0..rows.len() {
                write(part, slot + i, &x[i * stride + head * dim..][..dim]);
            }
        }
    }
}

/// Writes the units of a key, a multiple of `STEP`, from unit `first` on: one column of a tile of 16 keys.
/// Two instructions a unit, a load and a store; the general way over [`units`] takes ten, and a wider store
/// would touch other keys.
#[inline(always)]
fn scatter<U: Pod, const STEP: usize>(
    head: &mut [u8],
    field: &Field,
    slot: usize,
    first: usize,
    units: &[U],
) {
    let row = size_of::<[U; LANES]>();
    let start = field.start + slot / LANES * field.tile_bytes + first * row;
    let to: &mut [[U; LANES]] = bytemuck::cast_slice_mut(&mut head[start..start + units.len() * row]);
    let ((to, to_rest), (from, from_rest)) = (to.as_chunks_mut(), units.as_chunks());
    column::<U, 16>(to, slot % LANES, from);
    column::<U, STEP>(to_rest.as_chunks_mut().0, slot % LANES, from_rest.as_chunks().0);
}

/// Groups of `N` units into a column; the loop over a group is written out.
#[inline(always)]
fn column<U: Pod, const N: usize>(to: &mut [[[U; LANES]; N]], lane: usize, from: &[[U; N]]) {
    for (to, from) in to.iter_mut().zip(from) {
        for i in 0..N {
            to[i][lane % LANES] = from[i];
        }
    }
}

/// Writes keys into slots of a page.
pub(super) fn write_keys(layout: &Layout, kind: KvType, page: &mut [u8], rows: Rows<'_>) {
    let field = &layout.keys;
    match kind {
        KvType::F32 => rows.each(layout, page, |head, slot, k| scatter::<_, 8>(head, field, slot, 0, k)),
        KvType::F16 => rows.each(layout, page, |head, slot, k| {
            for (b, k) in k.chunks(BLOCK).enumerate() {
                let mut rounded = [f16::ZERO; BLOCK];
                rounded[..k.len()].convert_from_f32_slice(k);
                scatter::<_, 8>(head, field, slot, b * BLOCK, &rounded[..k.len()]);
            }
        }),
        KvType::Bf16 => rows.each(layout, page, |head, slot, k| {
            for (b, k) in k.chunks(BLOCK).enumerate() {
                let mut rounded = [bf16::ZERO; BLOCK];
                rounded[..k.len()].convert_from_f32_slice(k);
                let pairs: &[[bf16; 2]] = bytemuck::cast_slice(&rounded[..k.len()]);
                scatter::<_, 4>(head, field, slot, b * BLOCK / 2, pairs);
            }
        }),
        KvType::Int8 | KvType::Int4 => rows.each(layout, page, |head, slot, k| {
            for (b, k) in k.chunks(BLOCK).enumerate() {
                let (d, q) = quantize(k, top(kind));
                scatter::<_, 1>(head, &layout.key_scales, slot, b, &[d]);
                if kind == KvType::Int8 {
                    scatter::<_, 8>(head, field, slot, b * BLOCK, &q[..k.len()]);
                } else {
                    let pairs: [u8; BLOCK / 2] = std::array::from_fn(|i| nibbles(q[2 * i], q[2 * i + 1]));
                    scatter::<_, 4>(head, field, slot, b * BLOCK / 2, &pairs[..k.len() / 2]);
                }
            }
        }),
    }
}

/// Writes values into slots of a page.
pub(super) fn write_values(layout: &Layout, kind: KvType, page: &mut [u8], rows: Rows<'_>) {
    let Field { start, unit, .. } = layout.values;
    let row = |slot: usize| start + slot * unit..start + (slot + 1) * unit;
    match kind {
        KvType::F32 => rows.each(layout, page, |head, slot, v| {
            head[start + slot * unit..][..size_of_val(v)].copy_from_slice(bytemuck::cast_slice(v));
        }),
        KvType::F16 => rows.each(layout, page, |head, slot, v| {
            bytemuck::cast_slice_mut::<u8, f16>(&mut head[row(slot)])[..v.len()].convert_from_f32_slice(v);
        }),
        KvType::Bf16 => rows.each(layout, page, |head, slot, v| {
            bytemuck::cast_slice_mut::<u8, bf16>(&mut head[row(slot)])[..v.len()].convert_from_f32_slice(v);
        }),
        KvType::Int8 | KvType::Int4 => rows.each(layout, page, |head, slot, v| {
            for (b, v) in v.chunks(BLOCK).enumerate() {
                let (d, q) = quantize(v, top(kind));
                if let Some(to) = units_from(head, &layout.value_scales, slot, b).next() {
                    to.copy_from_slice(&d.to_ne_bytes());
                }
                if kind == KvType::Int8 {
                    let codes: &[u8] = bytemuck::cast_slice(&q);
                    head[row(slot)][b * BLOCK..][..BLOCK].copy_from_slice(codes);
                } else {
                    let bytes = &mut head[row(slot)][b * LANES..][..LANES];
                    for (i, byte) in bytes.iter_mut().enumerate() {
                        *byte = nibbles(q[i], q[i + LANES]);
                    }
                }
            }
        }),
    }
}

/// The key of a slot, widened.
pub(super) fn read_key(layout: &Layout, kind: KvType, head: &[u8], slot: usize, k: &mut [f32]) {
    let units = read(head, &layout.keys, slot);
    match kind {
        KvType::F32 => k.iter_mut().zip(units).for_each(|(x, at)| *x = f32_of(at)),
        KvType::F16 => k.iter_mut().zip(units).for_each(|(x, at)| *x = f16_of(at).to_f32()),
        KvType::Bf16 => {
            for (pair, at) in k.chunks_mut(2).zip(units) {
                pair.iter_mut().zip(at.chunks_exact(2)).for_each(|(x, at)| *x = bf16_of(at).to_f32());
            }
        }
        KvType::Int8 => k.iter_mut().zip(units).for_each(|(x, at)| *x = f32::from(at[0] as i8)),
        KvType::Int4 => {
            for (pair, at) in k.chunks_mut(2).zip(units) {
                pair.iter_mut().zip(codes(at[0])).for_each(|(x, code)| *x = code);
            }
        }
    }
    if kind.is_quantized() {
        for (k, at) in k.chunks_mut(BLOCK).zip(read(head, &layout.key_scales, slot)) {
            k.iter_mut().for_each(|x| *x *= f16_of(at).to_f32());
        }
    }
}

/// The value of a slot, widened.
pub(super) fn read_value(layout: &Layout, kind: KvType, head: &[u8], slot: usize, v: &mut [f32]) {
    let at = layout.values.at(slot);
    let row = &head[at..at + layout.values.unit];
    match kind {
        KvType::F32 => v.iter_mut().zip(row.chunks_exact(4)).for_each(|(x, at)| *x = f32_of(at)),
        KvType::F16 => v.iter_mut().zip(row.chunks_exact(2)).for_each(|(x, at)| *x = f16_of(at).to_f32()),
        KvType::Bf16 => v.iter_mut().zip(row.chunks_exact(2)).for_each(|(x, at)| *x = bf16_of(at).to_f32()),
        KvType::Int8 => v.iter_mut().zip(row).for_each(|(x, at)| *x = f32::from(*at as i8)),
        KvType::Int4 => {
            for (v, row) in v.chunks_mut(BLOCK).zip(row.chunks_exact(LANES)) {
                for (i, x) in v.iter_mut().enumerate() {
                    *x = codes(row[i % LANES])[i / LANES];
                }
            }
        }
    }
    if kind.is_quantized() {
        for (v, at) in v.chunks_mut(BLOCK).zip(read(head, &layout.value_scales, slot)) {
            v.iter_mut().for_each(|x| *x *= f16_of(at).to_f32());
        }
    }
}

/// Copies a token between slots of two parts.
pub(super) fn copy(layout: &Layout, from: &[u8], from_slot: usize, to: &mut [u8], to_slot: usize) {
    for field in layout.fields() {
        for (to, from) in units(to, &field, to_slot).zip(read(from, &field, from_slot)) {
            to.copy_from_slice(from);
        }
    }
}

/// Copies a token between slots of one part.
pub(super) fn copy_within(layout: &Layout, head: &mut [u8], from_slot: usize, to_slot: usize) {
    for field in layout.fields() {
        for i in 0..field.count {
            let from = field.at(from_slot) + i * field.stride;
            head.copy_within(from..from + field.unit, field.at(to_slot) + i * field.stride);
        }
    }
}

fn f32_of(at: &[u8]) -> f32 {
    f32::from_ne_bytes([at[0], at[1], at[2], at[3]])
}

fn f16_of(at: &[u8]) -> f16 {
    f16::from_ne_bytes([at[0], at[1]])
}

fn bf16_of(at: &[u8]) -> bf16 {
    bf16::from_ne_bytes([at[0], at[1]])
}

/// The greatest code.
fn top(kind: KvType) -> f32 {
    if kind == KvType::Int8 { 127.0 } else { 7.0 }
}

/// Two codes in a byte, with an offset of 8.
fn nibbles(low: i8, high: i8) -> u8 {
    (low + 8) as u8 | ((high + 8) as u8) << 4
}

/// The two codes of a byte.
fn codes(byte: u8) -> [f32; 2] {
    [f32::from(byte & 15) - 8.0, f32::from(byte >> 4) - 8.0]
}

/// Scale and codes of a block of at most 32 numbers: see [`KvType`]. Codes beyond the numbers are zeros.
fn quantize(x: &[f32], top: f32) -> (f16, [i8; BLOCK]) {
    /// Adding it rounds to an integer, ties to even, which the low bits of the sum hold in two's complement.
    const MAGIC: f32 = 12_582_912.0;
    let mut padded = [0.0; BLOCK];
    padded[..x.len()].copy_from_slice(x);
    // Magnitudes of floats are ordered as their bits, NaN above all: a maximum of floats could lose it.
    let absmax = padded.iter().fold(0, |m, x| x.abs().to_bits().max(m));
    let d = f16_above(f32::from_bits(absmax) / top);
    let mut q = [0; BLOCK];
    let wide = d.to_f32();
    if wide > 0.0 && wide.is_finite() {
        for (q, x) in q.iter_mut().zip(padded) {
            // At most `top` in magnitude, because d is at least absmax / top.
            *q = (x / wide + MAGIC).to_bits() as i8;
        }
    }
    (if wide.is_infinite() { f16::NAN } else { d }, q)
}

/// The least f16 that is not below `x >= 0`.
fn f16_above(x: f32) -> f16 {
    let nearest = f16::from_f32(x);
    if nearest.to_f32() < x { f16::from_bits(nearest.to_bits() + 1) } else { nearest }
}

/// Byte where element `i` of a key that is no code lies.
fn offset(layout: &Layout, kind: KvType, slot: usize, i: usize) -> usize {
    let at = layout.keys.at(slot);
    match kind {
        KvType::Bf16 => at + i / 2 * layout.keys.stride + i % 2 * 2,
        _ => at + i * layout.keys.stride,
    }
}

/// One element of a key that is no code.
pub(super) fn element(layout: &Layout, kind: KvType, head: &[u8], slot: usize, i: usize) -> f32 {
    let at = &head[offset(layout, kind, slot, i)..];
    match kind {
        KvType::F16 => f16_of(at).to_f32(),
        KvType::Bf16 => bf16_of(at).to_f32(),
        _ => f32_of(at),
    }
}

/// Replaces one element of a key that is no code.
pub(super) fn set_element(layout: &Layout, kind: KvType, head: &mut [u8], slot: usize, (i, x): (usize, f32)) {
    let at = &mut head[offset(layout, kind, slot, i)..];
    match kind {
        KvType::F16 => at[..2].copy_from_slice(&f16::from_f32(x).to_ne_bytes()),
        KvType::Bf16 => at[..2].copy_from_slice(&bf16::from_f32(x).to_ne_bytes()),
        _ => at[..4].copy_from_slice(&x.to_ne_bytes()),
    }
}
