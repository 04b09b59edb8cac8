//! f32 to blocks and back, byte for byte as the reference implementation of the GGUF formats (the Python
//! package `gguf`), including its roundings.

use super::format::{BLOCK, BlockQ4_0, BlockQ8_0, WeightFormat};
use crate::error::{Result, equal};
use half::f16;

/// Quantises `x` into GGUF blocks.
///
/// **Formula**: Q4_0: `d = v / -8` for the v of largest magnitude (the first of equals),
/// `q = clamp(floor(x / d + 8.5), 0, 15)`; Q8_0: `d = absmax / 127`, `q = x / d` rounded half away from zero;
/// in both, d is rounded to f16 for storage after q was computed with the f32 one. **Shapes**: `x`: whole
/// blocks of 32 (rows one after the other), `out`: `format.bytes(1, x.len())` bytes. **Numerics**: error at
/// most `|d|` (Q4_0; half of it but for the clamped end) and `|d| / 2` (Q8_0), plus the rounding of d (2^-11
/// relative). A block with NaN or infinity gets d = NaN. **Errors**: `Option` for a ragged k, `Shape` for a
/// wrong `out`; nothing is written then. **Source**: ggml's formats.
pub fn quantize(format: WeightFormat, x: &[f32], out: &mut [u8]) -> Result<()> {
    equal("out.len", out.len(), "must equal the bytes of the blocks =", format.bytes(1, x.len())?)?;
    let blocks = x.as_chunks::<BLOCK>().0;
    match format {
        WeightFormat::Q4_0 => {
            let out: &mut [BlockQ4_0] = bytemuck::cast_slice_mut(out);
            out.iter_mut().zip(blocks).for_each(|(block, x)| *block = quantize_q4_0(x));
        }
        WeightFormat::Q8_0 => {
            let out: &mut [BlockQ8_0] = bytemuck::cast_slice_mut(out);
            out.iter_mut().zip(blocks).for_each(|(block, x)| *block = quantize_q8_0(x));
        }
    }
    Ok(())
}

/// Dequantises GGUF blocks: exact in f32.
///
/// **Shapes**: `blocks`: `format.bytes(1, out.len())` bytes. **Errors**: as [`quantize`].
pub fn dequantize(format: WeightFormat, blocks: &[u8], out: &mut [f32]) -> Result<()> {
    equal("blocks.len", blocks.len(), "must equal the bytes of the blocks =", format.bytes(1, out.len())?)?;
    let out = out.as_chunks_mut::<BLOCK>().0;
    match format {
        WeightFormat::Q4_0 => {
            let blocks: &[BlockQ4_0] = bytemuck::cast_slice(blocks);
            out.iter_mut().zip(blocks).for_each(|(x, block)| *x = dequantize_q4_0(block));
        }
        WeightFormat::Q8_0 => {
            let blocks: &[BlockQ8_0] = bytemuck::cast_slice(blocks);
            out.iter_mut().zip(blocks).for_each(|(x, block)| *x = dequantize_q8_0(block));
        }
    }
    Ok(())
}

/// `1 / d`, or 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn is_finite(x: &[f32; BLOCK]) -> bool {
    x.iter().all(|x| x.is_finite())
}

fn quantize_q4_0(x: &[f32; BLOCK]) -> BlockQ4_0 {
    if !is_finite(x) {
        return BlockQ4_0 { d: f16::NAN.to_le_bytes(), qs: [0x88; 16] };
    }
    let mut extreme = x[0];
    for &v in &x[1..] {
        if v.abs() > extreme.abs() {
            extreme = v;
        }
    }
    let d = extreme / -8.0;
    let inv = f64::from(inverse(d));
    // The reference multiplies in f64 and rounds the sum to f32 before it truncates.
    let quant = |x: f32| ((f64::from(x) * inv + 8.5) as f32).trunc().clamp(0.0, 15.0) as u8;
    let qs = std::array::from_fn(|j| quant(x[j]) | quant(x[j + 16]) << 4);
    BlockQ4_0 { d: f16::from_f32(d).to_le_bytes(), qs }
}

fn dequantize_q4_0(block: &BlockQ4_0) -> [f32; BLOCK] {
    let d = f16::from_le_bytes(block.d).to_f32();
    std::array::from_fn(|j| {
        let q = if j < 16 { block.qs[j] & 15 } else { block.qs[j - 16] >> 4 };
        d * (f32::from(q) - 8.0)
    })
}

fn quantize_q8_0(x: &[f32; BLOCK]) -> BlockQ8_0 {
    if !is_finite(x) {
        return BlockQ8_0 { d: f16::NAN.to_le_bytes(), qs: [0; 32] };
    }
    let absmax = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let d = absmax / 127.0;
    let inv = inverse(d);
    BlockQ8_0 { d: f16::from_f32(d).to_le_bytes(), qs: x.map(|x| (x * inv).round() as i8) }
}

fn dequantize_q8_0(block: &BlockQ8_0) -> [f32; BLOCK] {
    let d = f16::from_le_bytes(block.d).to_f32();
    block.qs.map(|q| d * f32::from(q))
}
