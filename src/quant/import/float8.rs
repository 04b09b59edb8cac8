//! Weights that are floats of 8 bits: E4M3 and E5M2 (OCP 8-bit floating point specification, revision 1.0),
//! with scales of tiles, or microscaled (OCP microscaling formats, version 1.0).

use crate::buffer::vector_of;
use crate::error::{Error, Result, equal, option, product, text};
use crate::fp_mode;
use crate::kernels::{BLOCK, E4m3, E5m2, Float8 as Bits, Float8Shape};
use crate::view::MatRef;

/// The kinds of floats of 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Float8Kind {
    /// 4 bits of exponent, 3 of mantissa: 448 at most, no infinity (`float8_e4m3fn`).
    #[default]
    E4m3,
    /// 5 bits of exponent, 2 of mantissa: 57344 at most (`float8_e5m2`).
    E5m2,
}

/// A weight matrix W (n output features, k input features) of floats of 8 bits, with a scale for each tile:
/// `W[i][j] = value(codes[i][j]) * scales[i / tile.0][j / tile.1]`. Packed by
/// [`PackedWeights::from_float8_on`](crate::quant::PackedWeights::from_float8_on).
///
/// **Errors** of what takes it: `Option` for a k that is no multiple of 32, tiles of no rows, tiles of
/// columns that are no multiple of 32 and less than k, and a code that is NaN or infinite; `Shape` for a
/// wrong length.
#[derive(Debug, Clone, Copy)]
pub struct Float8<'a, S> {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// What codes are.
    pub kind: Float8Kind,
    /// Rows and columns that share a scale: (n, k) for one scale in all, (1, k) for one for each output
    /// feature, (128, 128) for what checkpoints call block-wise. The last ones may be smaller.
    pub tile: (usize, usize),
    /// Codes. // (n, k)
    pub codes: &'a [u8],
    /// Scales in f32, f16 or bf16: what a code is multiplied by (`weight_scale_inv` in some checkpoints).
    /// // (ceil(n / tile.0), ceil(k / tile.1))
    pub scales: &'a [S],
}

/// A weight matrix W (n output features, k input features) of floats of 8 bits, with a power of two for each
/// 32 input features (MXFP8): `W[i][j] = value(codes[i][j]) * 2^(scales[i][j / 32] - 127)`. Packed by
/// [`PackedWeights::from_mxfp8_on`](crate::quant::PackedWeights::from_mxfp8_on).
///
/// **Errors** of what takes it: as [`Float8`].
#[derive(Debug, Clone, Copy)]
pub struct Mxfp8<'a> {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// What codes are.
    pub kind: Float8Kind,
    /// Codes. // (n, k)
    pub codes: &'a [u8],
    /// Exponents (E8M0), 255 for NaN. // (n, k / 32)
    pub scales: &'a [u8],
}

impl Float8Kind {
    pub(in crate::quant) fn is_e4m3(self) -> bool {
        self == Float8Kind::E4m3
    }

    fn shape(self) -> Float8Shape {
        match self {
            Float8Kind::E4m3 => E4m3::SHAPE,
            Float8Kind::E5m2 => E5m2::SHAPE,
        }
    }

    /// The largest number: 448 or 57344.
    pub fn largest(self) -> f32 {
        match self {
            Float8Kind::E4m3 => 448.0,
            Float8Kind::E5m2 => 57344.0,
        }
    }

    /// The number that a code stands for. NaN and, with E5M2, infinity are what IEEE says of the same bits.
    pub fn value(self, code: u8) -> f32 {
        let (shape, magnitude) = (self.shape(), code & 0x7f);
        if magnitude < shape.not_finite {
            return shape.value(code);
        }
        let infinite = self == Float8Kind::E5m2 && magnitude == shape.not_finite;
        let number = if infinite { f32::INFINITY } else { f32::NAN };
        number.copysign(if code & 0x80 == 0 { 1.0 } else { -1.0 })
    }

    /// The code nearest to a finite number, ties to even; numbers beyond the largest become the largest.
    pub fn code(self, x: f32) -> u8 {
        let Float8Shape { mantissa, bias, .. } = self.shape();
        let magnitude = x.abs().min(self.largest());
        // 1 / the least number, a power of two.
        let subnormals = f32::from_bits((127 + bias - 1 + mantissa) << 23);
        let least_normal = f32::from_bits((128 - bias) << 23);
        let code = if magnitude < least_normal {
            (magnitude * subnormals).round_ties_even() as u32
        } else {
            let (bits, shift) = (magnitude.to_bits(), 23 - mantissa);
            let even = bits >> shift & 1;
            ((bits + (1 << (shift - 1)) - 1 + even) >> shift) - ((127 - bias) << mantissa)
        };
        code as u8 | (x.to_bits() >> 24) as u8 & 0x80
    }
}

impl<S> Float8<'_, S> {
    /// Checks all but the codes; the number of scales of a row of tiles.
    pub(in crate::quant) fn check(&self) -> Result<usize> {
        let (down, across) = tiles((self.n, self.k), self.tile)?;
        equal("codes.len", self.codes.len(), "must equal n * k =", product("codes", &[self.n, self.k])?)?;
        let len = product("scales", &[down, across])?;
        equal("scales.len", self.scales.len(), "must equal ceil(n / tile.0) * ceil(k / tile.1) =", len)?;
        Ok(across)
    }
}

impl Mxfp8<'_> {
    /// Checks all but the codes.
    pub(in crate::quant) fn check(&self) -> Result<()> {
        tiles((self.n, self.k), (1, BLOCK))?;
        equal("codes.len", self.codes.len(), "must equal n * k =", product("codes", &[self.n, self.k])?)?;
        let len = product("scales", &[self.n, self.k / BLOCK])?;
        equal("scales.len", self.scales.len(), "must equal n * (k / 32) =", len)
    }
}

/// Tiles down and across a matrix.
pub(crate) fn tiles((n, k): (usize, usize), (rows, cols): (usize, usize)) -> Result<(usize, usize)> {
    option(k.is_multiple_of(BLOCK), "k", k, "a multiple of 32")?;
    option(rows > 0, "tile.0", rows, "at least 1")?;
    let whole = cols > 0 && (cols >= k || cols.is_multiple_of(BLOCK));
    option(whole, "tile.1", cols, "a multiple of 32, or k")?;
    Ok((n.div_ceil(rows), k.div_ceil(cols)))
}

/// Quantises f32 weights to floats of 8 bits with a scale for each tile.
///
/// **Shapes**: `w`: (n, k), plain; k a multiple of 32; `tile`: see [`Float8`]. Gives `(codes, scales)` as
/// there. **Numerics**: a scale is the tile's largest magnitude over that of the kind, rounded to f32, or 1
/// for a tile of zeros; a code is that nearest to `w / scale`. **Errors**: `Option` as [`Float8`], for a
/// transposed view and for NaN or infinity; `Resource`. **Cost**: two passes. **Source**: own, as torchao and
/// llm-compressor choose their scales.
pub fn quantize_float8(kind: Float8Kind, tile: (usize, usize), w: MatRef<'_>) -> Result<(Vec<u8>, Vec<f32>)> {
    let _mode = fp_mode::default_mode();
    let (n, k) = (w.rows(), w.cols());
    let (down, across) = tiles((n, k), tile)?;
    check_floats(w)?;
    let mut codes = vector_of(0u8, product("codes", &[n, k])?)?;
    let mut scales = vector_of(0f32, product("scales", &[down, across])?)?;
    let at = |i: usize, j: usize| i / tile.0 * across + j / tile.1;
    for i in 0..n {
        for (j, x) in w.row(i).unwrap_or_default().iter().enumerate() {
            let scale = &mut scales[at(i, j)];
            *scale = scale.max(x.abs());
        }
    }
    for scale in &mut scales {
        let divided = *scale / kind.largest();
        *scale = if divided > 0.0 { divided } else { 1.0 };
    }
    for i in 0..n {
        for (j, x) in w.row(i).unwrap_or_default().iter().enumerate() {
            codes[i * k + j] = kind.code(x / scales[at(i, j)]);
        }
    }
    Ok((codes, scales))
}

/// Quantises f32 weights to floats of 8 bits with a power of two for each 32 input features (MXFP8).
///
/// **Shapes**: `w`: (n, k), plain; k a multiple of 32. Gives `(codes, scales)` as [`Mxfp8`] has them.
/// **Numerics**: the exponent of a block's scale is that of its largest magnitude minus that of the kind's
/// largest number, as the OCP specification has it; a code is that nearest to `w / scale`, at most the
/// largest number. **Errors**: as [`quantize_float8`]. **Cost**: two passes.
pub fn quantize_mxfp8(kind: Float8Kind, w: MatRef<'_>) -> Result<(Vec<u8>, Vec<u8>)> {
    let _mode = fp_mode::default_mode();
    let (n, k) = (w.rows(), w.cols());
    tiles((n, k), (1, BLOCK))?;
    check_floats(w)?;
    let mut codes = vector_of(0u8, product("codes", &[n, k])?)?;
    let mut scales = vector_of(0u8, product("scales", &[n, k / BLOCK])?)?;
    let top = (kind.largest().to_bits() >> 23) as i32 - 127;
    for i in 0..n {
        for (b, x) in w.row(i).unwrap_or_default().as_chunks::<BLOCK>().0.iter().enumerate() {
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            // The biased exponent; numbers below 2^-126 have the one of 2^-127.
            let e = ((largest.to_bits() >> 23) as i32 - top).clamp(0, 254);
            scales[i * (k / BLOCK) + b] = e as u8;
            for (j, x) in x.iter().enumerate() {
                // Two factors, as 2^127 is the largest power of two.
                let (half, rest) = ((127 - e) / 2, (127 - e) - (127 - e) / 2);
                let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
                codes[i * k + b * BLOCK + j] = kind.code(x * power(half) * power(rest));
            }
        }
    }
    Ok((codes, scales))
}

/// Refuses a transposed view, NaN and infinity.
fn check_floats(w: MatRef<'_>) -> Result<()> {
    w.require_plain("w", "plain: rows are output features")?;
    for i in 0..w.rows() {
        if let Some(j) = w.row(i).unwrap_or_default().iter().position(|x| !x.is_finite()) {
            let got = text(format_args!("NaN or infinity at ({i}, {j})"));
            return Err(Error::Option { what: "w", got, allowed: "finite" });
        }
    }
    Ok(())
}
