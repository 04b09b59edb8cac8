//! Packed weights that are in no GGUF file: group-wise ones and floats of 8 bits.

use super::format::BLOCK;
use super::import::{Float8, GroupWise, HALF, Mxfp8};
use super::layout::Layout;
use super::layout_groups::{GroupNumbers, power};
use super::packed::{Body, Packed, PackedWeights};
use crate::buffer::copied;
use crate::context::Context;
use crate::error::{Error, Result, text};
use crate::fp_mode;
use crate::kernels::{LANES, Packing};
use std::ops::Range;

impl PackedWeights {
    /// [`PackedWeights::from_groups_on`] on the calling thread.
    pub fn from_groups(w: &GroupWise) -> Result<PackedWeights> {
        PackedWeights::from_groups_on(&Context::serial(), w)
    }

    /// Packs group-wise weights.
    ///
    /// The order of k (GPTQ's act-order) is kept: a product gathers its activations in that order.
    /// **Errors**: `Overflow`, `Resource`. **Cost**: one pass, on the context's threads; allocates the packed
    /// bytes: the codes, and for each group 4 (symmetric, 4 and 8 bits), 6 (other zeros), 4 (minimums where
    /// f16 holds all numbers of the matrix) or 8 bytes (other minimums, groups of 16). A group beyond 1024,
    /// and one of an odd number of blocks, stores them several times.
    pub fn from_groups_on(ctx: &Context, w: &GroupWise) -> Result<PackedWeights> {
        let _mode = fp_mode::default_mode();
        let layout = Layout::of_groups(packing_of_groups(w), w.group(), w.k());
        let put = |rows: Range<usize>, panel: &mut [u8], layout: &Layout, _: &mut [u8]| {
            layout.put_groups(
                ctx.kernels(),
                panel,
                rows,
                |i| w.codes_of(i),
                |i, position| {
                    let (row, g) = (w.row_of(i), position / w.group());
                    let zero = row.zeros.get(g).copied().unwrap_or_default();
                    GroupNumbers { scale: row.scales[g], zero, min: row.minimum(g) }
                },
            );
            Ok(())
        };
        let mut packed = PackedWeights::fill(ctx, (None, layout), w.n(), w.k(), 0, &put)?;
        if let Body::Blocks(blocks) = &mut packed.body {
            blocks.order = w.order().map(copied).transpose()?;
        }
        Ok(packed)
    }

    /// Packs floats of 8 bits with a scale for each tile of the matrix.
    ///
    /// Their products take f32 activations whatever [`Compute`](super::Compute) says. **Numerics**: a weight
    /// is `value(code) * scale`, rounded to f32 once; then as [`Compute::F32`](super::Compute::F32).
    /// **Errors**: as [`Float8`] says; `Overflow`, `Resource`. **Cost**: one pass, on the context's threads;
    /// allocates the packed bytes: the codes, and for each output feature 4 bytes for each scale along k.
    pub fn from_float8_on<S: Copy + Into<f32> + Sync>(
        ctx: &Context,
        w: &Float8<'_, S>,
    ) -> Result<PackedWeights> {
        let _mode = fp_mode::default_mode();
        let across = w.check()?;
        let packing = if w.kind.is_e4m3() { Packing::FloatE4m3 } else { Packing::FloatE5m2 };
        let scale = |i: usize, position: usize| -> f32 {
            w.scales[i / w.tile.0 * across + position / w.tile.1].into()
        };
        PackedWeights::from_floats_of_8_bits(ctx, (packing, w.tile.1), (w.n, w.k), w.codes, &scale)
    }

    /// Packs floats of 8 bits with a power of two for each 32 input features (MXFP8).
    ///
    /// Products, **Numerics**, **Errors** and **Cost** as [`PackedWeights::from_float8_on`]; a scale of 255
    /// is NaN; it takes a byte for each 32.
    pub fn from_mxfp8_on(ctx: &Context, w: &Mxfp8<'_>) -> Result<PackedWeights> {
        let _mode = fp_mode::default_mode();
        w.check()?;
        let packing = if w.kind.is_e4m3() { Packing::MxE4m3 } else { Packing::MxE5m2 };
        let scale = |i: usize, position: usize| power(w.scales[(i * w.k + position) / BLOCK]);
        PackedWeights::from_floats_of_8_bits(ctx, (packing, BLOCK), (w.n, w.k), w.codes, &scale)
    }

    /// Packs codes that were checked but for being finite; `scale` gives that of a row and position.
    fn from_floats_of_8_bits(
        ctx: &Context,
        (packing, group): (Packing, usize),
        (n, k): (usize, usize),
        codes: &[u8],
        scale: &(dyn Fn(usize, usize) -> f32 + Sync),
    ) -> Result<PackedWeights> {
        let codes = |i: usize| &codes[i * k..(i + 1) * k];
        let put = |rows: Range<usize>, panel: &mut [u8], layout: &Layout, _: &mut [u8]| {
            finite(layout, rows.clone(), codes)?;
            layout.put_groups(ctx.kernels(), panel, rows, codes, |i, position| GroupNumbers {
                scale: scale(i, position),
                zero: 0,
                min: 0.0,
            });
            Ok(())
        };
        PackedWeights::fill(ctx, (None, Layout::of_groups(packing, group, k)), n, k, 0, &put)
    }
}

/// Refuses codes of rows that are no finite numbers.
fn finite<'a>(layout: &Layout, rows: Range<usize>, codes: impl Fn(usize) -> &'a [u8]) -> Result<()> {
    let least = layout.packing.shape().float8.map_or(u8::MAX, |shape| shape.not_finite);
    for i in rows {
        if let Some(at) = codes(i).iter().position(|code| code & 0x7f >= least) {
            let got = text(format_args!("{:#x} at ({i}, {at})", codes(i)[at]));
            return Err(Error::Option { what: "code", got, allowed: "a finite number" });
        }
    }
    Ok(())
}

impl Packed {
    /// Row `i` of weights without a format of GGUF.
    pub(super) fn dequantize_groups(&self, i: usize, out: &mut [f32]) {
        let panel = &self.data.as_slice()[i / LANES * self.panel_bytes..][..self.panel_bytes];
        let mut block = [0.0; BLOCK];
        for b in 0..out.len() / BLOCK {
            self.layout.dequantize_block(panel, i % LANES, b, &mut block);
            for (p, w) in (b * BLOCK..).zip(block) {
                let feature = self.order.as_ref().map_or(p, |order| order[p] as usize);
                out[feature] = w;
            }
        }
    }
}

/// How group-wise weights are packed.
fn packing_of_groups(w: &GroupWise) -> Packing {
    let table = match (w.group() == HALF, w.is_affine(), w.is_symmetric()) {
        (true, ..) => [
            Packing::Group2Halves,
            Packing::Group3Halves,
            Packing::Group4Halves,
            Packing::Group5Halves,
            Packing::Group6Halves,
            Packing::Group8Halves,
        ],
        (_, true, _) if w.fits_f16() => [
            Packing::Group2Min,
            Packing::Group3Min,
            Packing::Group4Min,
            Packing::Group5Min,
            Packing::Group6Min,
            Packing::Group8Min,
        ],
        (_, true, _) => [
            Packing::Group2MinWide,
            Packing::Group3MinWide,
            Packing::Group4MinWide,
            Packing::Group5MinWide,
            Packing::Group6MinWide,
            Packing::Group8MinWide,
        ],
        // There are no zeros with 5 and 6 bits.
        (_, _, false) => [
            Packing::Group2Zero,
            Packing::Group3Zero,
            Packing::Group4Zero,
            Packing::Group8Zero,
            Packing::Group8Zero,
            Packing::Group8Zero,
        ],
        (_, _, true) => [
            Packing::Group2Zero,
            Packing::Group3Zero,
            Packing::Group4,
            Packing::Group8,
            Packing::Group8,
            Packing::Group8,
        ],
    };
    table[(w.bits() as usize - 2).min(5)]
}
