//! f32 to blocks and back. Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TQ1_0 and TQ2_0 are quantised byte for byte as by
//! the reference implementation of the GGUF formats (the Python package `gguf`), including its roundings.

use super::codec::{Codec, Decoded};
use super::format::WeightFormat;
use crate::error::{Error, Result, equal, text};
use crate::fp_mode;
use half::{bf16, f16};

/// Quantises `x` into GGUF blocks.
///
/// **Formula**: that of [`WeightFormat`], with codes and scales found as follows.
///
/// | format | d (and m) | codes |
/// |---|---|---|
/// | `Qn_0`, n < 8 | `v / -2^(n - 1)`, v the first of largest magnitude | `floor(x / d + 2^(n - 1) + 0.5)` |
/// | `Qn_1` | `(max - min) / (2^n - 1)`; `m = min` | `floor((x - m) / d + 0.5)` |
/// | Q8_0 | `absmax / 127` | `x / d` half away from zero |
/// | TQ1_0, TQ2_0 | `absmax` | `1 + x / d`, half away from zero |
/// | Q1_0 | the mean of the magnitudes | 1 where `x >= 0` |
/// | all others of blocks | a search for the least squared error | nearest |
/// | F16, BF16, F32 | - | nearest, half to even |
///
/// In the first four rows codes are computed with d in f32 and clamped to their range, then d and m are
/// rounded to f16: byte for byte the blocks of the reference implementation. That rounding can move weights
/// by more than a quarter of d where `d < 2^(bits - 24)`, which is a largest weight below 7.6e-6 in Q4_0,
/// 3.1e-5 in Q5_0, 1.9e-3 in Q8_0: there, where a search leaves less than 0.9 of the error, and where d or m
/// exceeds 65504, the block is that of the search.
///
/// The search weights all elements alike: a root mean square error 0.2 to 31 % below that of the reference
/// implementation on random weights; in the formats with codebooks (IQ1, IQ2, IQ3) 2 to 27 % below that with
/// an importance matrix of equal numbers. It takes d from all f16 numbers, down to 2^-24, and chooses codes,
/// scales and minimums for the d that is stored. Whatever the magnitude, the error is that of zeros at worst,
/// and within 1.2 of what trying every d reaches, plus 0.004 of the block where its elements share one
/// magnitude (which some d may fit by chance).
///
/// **Shapes**: `x`: whole blocks (rows one after the other), `out`: `format.bytes(1, x.len())`
/// bytes. **Numerics**: error at most `|d|` (Q4_0, Q5_0; half of it but for the clamped end) and `|d| / 2`
/// (Q4_1, Q5_1, Q8_0), plus the rounding of d and m (2^-11 relative, at least 2^-25). A block with NaN or
/// infinity becomes NaN altogether. What exceeds the range of a format of blocks saturates (65504 times the
/// largest code and scale); F16 and BF16 round to infinity from 65520 and from 2^128 - 2^119 on. The same
/// bits on every machine.
/// **Errors**: `Option` for a ragged k, and for NaN or infinity in MXFP4 and NVFP4, whose only NaNs other
/// readers take for 2^128 and for 0; `Shape` for a wrong `out`; nothing is written then. **Cost**: one pass;
/// the search takes some 40 more over a block in the L1 cache, and some 1000 where d is below 2^-20; with
/// codebooks every element meets every entry some ten times, 2 us an element in IQ2_S and 10 in IQ1_S.
/// **Source**: ggml's formats; the search is our own.
pub fn quantize(format: WeightFormat, x: &[f32], out: &mut [u8]) -> Result<()> {
    let _mode = fp_mode::default_mode();
    equal("out.len", out.len(), "must equal the bytes of the blocks =", format.bytes(1, x.len())?)?;
    let Some(codec) = Codec::of(format) else {
        write_floats(format, x, out);
        return Ok(());
    };
    if !codec.writes_nan() && !x.iter().all(|x| x.is_finite()) {
        let (what, got) = ("x", text("NaN or infinity"));
        return Err(Error::Option { what, got, allowed: "finite for mxfp4 and nvfp4" });
    }
    let mut decoded = Decoded::ZERO;
    let blocks = out.chunks_exact_mut(format.block_bytes());
    for (block, x) in blocks.zip(x.chunks_exact(format.block_len())) {
        codec.quantize(x, &mut decoded);
        codec.encode(&decoded, block);
    }
    Ok(())
}

/// Dequantises GGUF blocks: exact in f32, but for the one rounding where a minimum is added or subtracted.
///
/// **Formula**: that of [`WeightFormat`], products first. **Shapes**: `blocks`: `format.bytes(1, out.len())`
/// bytes, any bytes. **Numerics**: the bits of the reference implementation, but for e = 255 of MXFP4, which
/// it takes for 2^128: every weight of such a block is NaN, as the OCP microscaling specification says. An
/// infinite or NaN scale gives what IEEE says (`0 * inf` is NaN), MXFP4 overflows to infinity where `e >=
/// 253` and the product exceeds f32.
/// **Errors**: `Option` for a ragged length, `Shape`; nothing is written then.
pub fn dequantize(format: WeightFormat, blocks: &[u8], out: &mut [f32]) -> Result<()> {
    let _mode = fp_mode::default_mode();
    equal("blocks.len", blocks.len(), "must equal the bytes of the blocks =", format.bytes(1, out.len())?)?;
    let Some(codec) = Codec::of(format) else {
        read_floats(format, blocks, out);
        return Ok(());
    };
    if format == WeightFormat::Q8_0 {
        read_q8_0(blocks, out);
        return Ok(());
    }
    let mut decoded = Decoded::ZERO;
    let blocks = blocks.chunks_exact(format.block_bytes());
    for (x, block) in out.chunks_exact_mut(format.block_len()).zip(blocks) {
        codec.decode(block, &mut decoded);
        codec.floats(&decoded, x);
    }
    Ok(())
}

/// Q8_0 has nothing to unpack: without the detour through codes it takes half the instructions.
fn read_q8_0(blocks: &[u8], out: &mut [f32]) {
    for (x, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(blocks.as_chunks::<34>().0) {
        let [d0, d1, qs @ ..] = *block;
        let d = f16::from_le_bytes([d0, d1]).to_f32();
        *x = qs.map(|q| d * f32::from(q as i8));
    }
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
