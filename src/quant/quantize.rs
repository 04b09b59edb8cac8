//! f32 to blocks and back. Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 are quantised byte for byte as by the reference
//! implementation of the GGUF formats (the Python package `gguf`), including its roundings.

use super::codec::{Codec, Decoded};
use super::format::{BLOCK, WeightFormat};
use crate::error::{Error, Result, equal};
use half::{bf16, f16};

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
    let codec = Codec::of(format);
    let Some(codec) = codec else {
        write_floats(format, x, out);
        return Ok(());
    };
    let quantize_block = match format {
        WeightFormat::Q4_0 => quantize_q4_0,
        WeightFormat::Q8_0 => quantize_q8_0,
        _ => {
            return Err(Error::Option {
                what: "format",
                got: format.name().into(),
                allowed: "one of q4_0, q8_0, f16, bf16, f32",
            });
        }
    };
    let mut decoded = Decoded::ZERO;
    let blocks = out.chunks_exact_mut(format.block_bytes());
    for (block, x) in blocks.zip(x.as_chunks::<BLOCK>().0) {
        quantize_block(x, &mut decoded);
        codec.encode(&decoded, block);
    }
    Ok(())
}

/// Dequantises GGUF blocks: exact in f32, but for the one rounding where a minimum is added or subtracted.
///
/// **Formula**: that of [`WeightFormat`], products first. **Shapes**: `blocks`: `format.bytes(1, out.len())`
/// bytes, any bytes. **Numerics**: the bits of the reference implementation; an infinite or NaN scale gives
/// what IEEE says (`0 * inf` is NaN), MXFP4 overflows to infinity where `e >= 253` and the product exceeds f32.
/// **Errors**: `Option` for a ragged length, `Shape`; nothing is written then.
pub fn dequantize(format: WeightFormat, blocks: &[u8], out: &mut [f32]) -> Result<()> {
    equal("blocks.len", blocks.len(), "must equal the bytes of the blocks =", format.bytes(1, out.len())?)?;
    let Some(codec) = Codec::of(format) else {
        read_floats(format, blocks, out);
        return Ok(());
    };
    let mut decoded = Decoded::ZERO;
    let blocks = blocks.chunks_exact(format.block_bytes());
    for (x, block) in out.chunks_exact_mut(format.block_len()).zip(blocks) {
        codec.decode(block, &mut decoded);
        codec.floats(&decoded, x);
    }
    Ok(())
}

/// Formats of single floats: rounded half to even.
fn write_floats(format: WeightFormat, x: &[f32], out: &mut [u8]) {
    match format {
        WeightFormat::F16 => {
            let out = out.as_chunks_mut::<2>().0;
            out.iter_mut().zip(x).for_each(|(out, &x)| *out = f16::from_f32(x).to_le_bytes());
        }
        WeightFormat::Bf16 => {
            let out = out.as_chunks_mut::<2>().0;
            out.iter_mut().zip(x).for_each(|(out, &x)| *out = bf16::from_f32(x).to_le_bytes());
        }
        _ => {
            let out = out.as_chunks_mut::<4>().0;
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_le_bytes());
        }
    }
}

fn read_floats(format: WeightFormat, blocks: &[u8], out: &mut [f32]) {
    match format {
        WeightFormat::F16 => {
            let blocks = blocks.as_chunks::<2>().0;
            out.iter_mut().zip(blocks).for_each(|(x, b)| *x = f16::from_le_bytes(*b).to_f32());
        }
        WeightFormat::Bf16 => {
            let blocks = blocks.as_chunks::<2>().0;
            out.iter_mut().zip(blocks).for_each(|(x, b)| *x = bf16::from_le_bytes(*b).to_f32());
        }
        _ => {
            let blocks = blocks.as_chunks::<4>().0;
            out.iter_mut().zip(blocks).for_each(|(x, b)| *x = f32::from_le_bytes(*b));
        }
    }
}

/// `1 / d`, or 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn is_finite(x: &[f32; BLOCK]) -> bool {
    x.iter().all(|x| x.is_finite())
}

fn quantize_q4_0(x: &[f32; BLOCK], out: &mut Decoded) {
    if !is_finite(x) {
        out.d = f16::NAN.to_bits();
        out.codes[..BLOCK].fill(8);
        return;
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
    out.d = f16::from_f32(d).to_bits();
    out.codes.iter_mut().zip(x).for_each(|(code, &x)| *code = quant(x));
}

fn quantize_q8_0(x: &[f32; BLOCK], out: &mut Decoded) {
    if !is_finite(x) {
        out.d = f16::NAN.to_bits();
        out.codes[..BLOCK].fill(128);
        return;
    }
    let absmax = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let d = absmax / 127.0;
    let inv = inverse(d);
    out.d = f16::from_f32(d).to_bits();
    out.codes.iter_mut().zip(x).for_each(|(code, x)| *code = (x * inv).round() as i8 as u8 ^ 0x80);
}
