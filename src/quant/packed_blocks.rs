//! Packed weights from blocks and floats as files hold them.

use super::codec::Codec;
use super::format::WeightFormat;
use super::packed::{Body, PackedWeights, layout_of};
use super::quantize::quantize;
use crate::buffer::AlignedBuf;
use crate::context::Context;
use crate::error::{Error, Result, at_least, equal, product};
use crate::fp_mode;
use crate::matmul::PackedB;
use crate::view::MatRef;
use half::{bf16, f16};

impl PackedWeights {
    /// [`PackedWeights::from_blocks_on`] on the calling thread.
    pub fn from_blocks(format: WeightFormat, n: usize, k: usize, blocks: &[u8]) -> Result<PackedWeights> {
        PackedWeights::from_blocks_on(&Context::serial(), format, n, k, blocks)
    }

    /// Packs the blocks of a GGUF tensor.
    ///
    /// **Shapes**: `blocks`: n rows of blocks, as in a GGUF tensor. **Errors**: `Option` for a ragged k,
    /// `Shape` for a wrong length, `Overflow`, `Resource`. **Cost**: one pass, on the context's threads;
    /// allocates the packed bytes (and, for f16, bf16 and f32 blocks that are not aligned to their elements,
    /// a copy of them).
    pub fn from_blocks_on(
        ctx: &Context,
        format: WeightFormat,
        n: usize,
        k: usize,
        blocks: &[u8],
    ) -> Result<PackedWeights> {
        let bytes = format.bytes(n, k)?;
        equal("blocks.len", blocks.len(), "must equal the bytes of n * k weights =", bytes)?;
        PackedWeights::from_block_rows_on(ctx, format, (n, k), blocks, format.bytes(1, k)?)
    }

    /// Packs rows of blocks that lie `row_bytes` bytes apart: a part of a larger tensor, along n or along k,
    /// where it is.
    ///
    /// **Shapes**: `blocks`: from the first block of the first row on; row i starts at `i * row_bytes`, and
    /// the last one is there to its last block. **Errors**: `Option` for a ragged k; `Shape` for a
    /// `row_bytes` below the bytes of a row; `Length` for too few bytes; `Overflow`, `Resource`. **Cost**: as
    /// [`PackedWeights::from_blocks_on`]; f16, bf16 and f32 with a stride are copied once.
    pub fn from_block_rows_on(
        ctx: &Context,
        format: WeightFormat,
        (n, k): (usize, usize),
        blocks: &[u8],
        row_bytes: usize,
    ) -> Result<PackedWeights> {
        let _mode = fp_mode::default_mode();
        format.bytes(n, k)?;
        let bytes = format.bytes(1, k)?;
        if row_bytes < bytes {
            let relation = "must be at least the bytes of k weights =";
            return Err(Error::Shape { what: "row_bytes", got: row_bytes, relation, want: bytes });
        }
        if n > 0 {
            let last = product("blocks", &[n - 1, row_bytes])?;
            at_least(
                "blocks.len",
                blocks.len(),
                last.checked_add(bytes).ok_or(Error::Overflow { what: "blocks" })?,
            )?;
        }
        let row = |i: usize| &blocks[i * row_bytes..][..bytes];
        let Some(codec) = Codec::of(format) else {
            if row_bytes == bytes || n == 0 {
                return floats_from_bytes(ctx, format, n, k, &blocks[..n * bytes]);
            }
            let mut together = AlignedBuf::<u8>::zeroed(product("blocks", &[n, bytes])?)?;
            for (i, out) in together.as_mut_slice().chunks_exact_mut(bytes.max(1)).enumerate() {
                out.copy_from_slice(row(i));
            }
            return floats_from_bytes(ctx, format, n, k, together.as_slice());
        };
        let layout = layout_of(format)?;
        PackedWeights::fill(ctx, (Some(format), layout), n, k, 0, &|rows, panel, layout, _| {
            layout.put_panel(ctx.kernels(), codec, panel, rows, row);
            Ok(())
        })
    }

    /// Packs floats in their own format, rounding f32 to it.
    pub(super) fn from_floats(ctx: &Context, format: WeightFormat, w: MatRef<'_>) -> Result<PackedWeights> {
        let (n, k) = (w.rows(), w.cols());
        if format == WeightFormat::F32 {
            let body = Body::Floats(PackedB::pack(ctx, w.t())?);
            return Ok(PackedWeights { body, format: Some(format), n, k });
        }
        let row_bytes = format.bytes(1, k)?;
        let mut bytes = AlignedBuf::<u8>::zeroed(format.bytes(n, k)?)?;
        if k > 0 {
            for (i, out) in bytes.as_mut_slice().chunks_exact_mut(row_bytes).enumerate() {
                quantize(format, w.row(i).unwrap_or_default(), out)?;
            }
        }
        floats_from_bytes(ctx, format, n, k, bytes.as_slice())
    }
}

/// Packs little-endian floats.
fn floats_from_bytes(
    ctx: &Context,
    format: WeightFormat,
    n: usize,
    k: usize,
    bytes: &[u8],
) -> Result<PackedWeights> {
    /// The elements where they lie, or in `copy` where they are not aligned or the machine is big-endian.
    fn elements<'a, T: bytemuck::Pod>(bytes: &'a [u8], copy: &'a mut AlignedBuf<T>) -> Result<&'a [T]> {
        if cfg!(target_endian = "little")
            && let Ok(elements) = bytemuck::try_cast_slice(bytes)
        {
            return Ok(elements);
        }
        *copy = AlignedBuf::zeroed(bytes.len() / size_of::<T>())?;
        let copied: &mut [u8] = bytemuck::cast_slice_mut(copy.as_mut_slice());
        copied.copy_from_slice(bytes);
        if cfg!(target_endian = "big") {
            copied.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
        }
        Ok(copy.as_slice())
    }
    let mut words = AlignedBuf::<u16>::zeroed(0)?;
    let floats = match format {
        WeightFormat::F16 => {
            let w = elements(bytes, &mut words)?;
            let w: &[f16] = bytemuck::cast_slice(w);
            PackedB::pack(ctx, MatRef::dense(w, n, k)?.t())?
        }
        WeightFormat::Bf16 => {
            let w = elements(bytes, &mut words)?;
            let w: &[bf16] = bytemuck::cast_slice(w);
            PackedB::pack(ctx, MatRef::dense(w, n, k)?.t())?
        }
        _ => {
            let mut copy = AlignedBuf::<f32>::zeroed(0)?;
            PackedB::pack(ctx, MatRef::dense(elements(bytes, &mut copy)?, n, k)?.t())?
        }
    };
    Ok(PackedWeights { body: Body::Floats(floats), format: Some(format), n, k })
}
