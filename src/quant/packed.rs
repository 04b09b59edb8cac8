//! Packed weights of any format: one type, made once, multiplied by every tier.

use super::codec::{Codec, Decoded};
use super::compute::Compute;
use super::format::{BLOCK, WeightFormat};
use super::layout::Layout;
use super::quantize::{dequantize, quantize};
use crate::buffer::AlignedBuf;
use crate::context::Context;
use crate::error::{Error, Result, equal};
use crate::fp_mode;
use crate::kernels::{LANES, RowPanels};
use crate::matmul::PackedB;
use crate::tiles::{Grid, for_each_tile};
use crate::view::{MatMut, MatRef};
use half::{bf16, f16};
use std::ops::Range;
use std::sync::Mutex;

/// A weight matrix W (n output features, k input features) in any [`WeightFormat`], or group-wise, packed
/// once for all tiers, in huge pages when it is large. Multiplied as `C = A * W^T`.
///
/// Formats of blocks are stored in row panels (NR = 16) whose integers are interleaved for the kernels, with
/// all of their integers and without a bit more than their own blocks need. Formats of single floats are a
/// [`PackedB`] inside.
///
/// Its methods by file of `src/quant`: `packed.rs` makes weights and reads them back, `packed_groups.rs`
/// makes those of group-wise weights and floats of 8 bits, `packed_blocks.rs` of what files hold, `blob.rs`
/// saves, loads and maps them, `driver.rs` multiplies.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    pub(super) body: Body,
    pub(super) format: Option<WeightFormat>,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// What the matrix is made of.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Blocks(Packed),
    Floats(PackedB),
}

/// Row panels of packed blocks.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub data: AlignedBuf<u8>, // (ceil(n / 16), panel_bytes), then the bytes of the order
    /// The input feature at each stored position, where that is not the position itself. // (k)
    pub order: Option<Vec<u32>>,
    pub layout: Layout,
    pub panel_bytes: usize,
}

/// Stores the rows of a row panel: `(rows, row panel, layout, scratch)`.
type PutPanel<'a> = dyn Fn(Range<usize>, &mut [u8], &Layout, &mut [u8]) -> Result<()> + Sync + 'a;

impl PackedWeights {
    /// [`PackedWeights::quantize_on`] on the calling thread.
    pub fn quantize(format: WeightFormat, w: MatRef<'_>) -> Result<PackedWeights> {
        PackedWeights::quantize_on(&Context::serial(), format, w)
    }

    /// Quantises and packs f32 weights.
    ///
    /// **Shapes**: `w`: (n, k), plain; k a multiple of the format's block. **Numerics**: as [`quantize`].
    /// **Errors**: `Option` for a ragged k, a transposed view or a format that [`quantize`] lacks,
    /// `Overflow`, `Resource`. **Cost**: one pass, on the context's threads; allocates the packed bytes and a
    /// row of blocks for each thread.
    pub fn quantize_on(ctx: &Context, format: WeightFormat, w: MatRef<'_>) -> Result<PackedWeights> {
        let _mode = fp_mode::default_mode();
        let (n, k) = (w.rows(), w.cols());
        format.bytes(n, k)?;
        w.require_plain("w", "plain: rows are output features")?;
        let Some(codec) = Codec::of(format) else {
            return PackedWeights::from_floats(ctx, format, w);
        };
        // Refuses a format that cannot be quantised to, before anything is allocated.
        quantize(format, &[], &mut [])?;
        let row_bytes = format.bytes(1, k)?;
        let layout = layout_of(format)?;
        PackedWeights::fill(ctx, (Some(format), layout), n, k, row_bytes, &|rows, panel, layout, blocks| {
            let blocks = &mut blocks[..row_bytes];
            for i in rows {
                quantize(format, w.row(i).unwrap_or_default(), blocks)?;
                layout.put_blocks(codec, panel, i % LANES, blocks);
            }
            Ok(())
        })
    }

    /// A matrix of blocks whose row panels `put` stores.
    pub(super) fn fill(
        ctx: &Context,
        (format, layout): (Option<WeightFormat>, Layout),
        n: usize,
        k: usize,
        scratch_bytes: usize,
        put: &PutPanel<'_>,
    ) -> Result<PackedWeights> {
        let panel_bytes = layout.panel_bytes(k)?;
        let mut data = AlignedBuf::<u8>::zeroed_in(ctx.memory(), layout.bytes(n, k)?)?;
        let scratch_bytes = scratch_bytes.next_multiple_of(64);
        let mut scratch = AlignedBuf::<u8>::zeroed(crate::error::product(
            "packing scratch",
            &[scratch_bytes, ctx.executor().workers()],
        )?)?;
        // Rows without elements need no work, and there may be absurdly many.
        if k > 0 {
            // Of the first rows that fail, whichever thread meets them.
            let failed = Mutex::new(None);
            let out = MatMut::dense(data.as_mut_slice(), n.div_ceil(LANES), panel_bytes)?;
            let grid = Grid { tile_rows: 1, tile_cols: panel_bytes };
            let scratch = scratch.as_mut_slice();
            for_each_tile(ctx.executor(), out, grid, scratch, scratch_bytes, &|arena, origin, mut out| {
                let rows = origin.row * LANES..n.min((origin.row + 1) * LANES);
                if let Err(e) = put(rows, out.row(0), &layout, arena.rest())
                    && let Ok(mut failed) = failed.lock()
                    && failed.as_ref().is_none_or(|(first, _)| origin.row < *first)
                {
                    *failed = Some((origin.row, e));
                }
            });
            if let Ok(Some((_, e))) = failed.into_inner() {
                return Err(e);
            }
        }
        let packed = Packed { data, order: None, layout, panel_bytes };
        Ok(PackedWeights { body: Body::Blocks(packed), format, n, k })
    }

    /// Output features (rows of W).
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features (columns of W).
    pub fn k(&self) -> usize {
        self.k
    }

    /// The format; `None` for weights that are in no GGUF file: group-wise ones and floats of 8 bits.
    pub fn format(&self) -> Option<WeightFormat> {
        self.format
    }

    /// Whether products with these weights may quantise their activations ([`Compute::Int8`]): floats, of 8
    /// bits too, take them as they are.
    pub fn takes_int8(&self) -> bool {
        match &self.body {
            Body::Blocks(packed) => packed.layout.packing.shape().int8,
            Body::Floats(_) => false,
        }
    }

    /// Bytes held: those of the blocks, n rounded up to 16 and k to the layout's superblock (64 or 128 for
    /// the small blocks).
    pub fn bytes(&self) -> usize {
        match &self.body {
            Body::Blocks(blocks) => {
                let order = blocks.order.as_ref().map_or(0, |order| size_of_val(&order[..]));
                self.n.div_ceil(LANES) * blocks.panel_bytes + order
            }
            Body::Floats(b) => b.bytes(),
        }
    }

    /// The weights as GGUF blocks again, bit for bit what was packed.
    ///
    /// **Shapes**: `out`: `format.bytes(n, k)` bytes. **Errors**: `Shape`; `Unsupported` for weights without
    /// a [`WeightFormat`], which have no blocks.
    pub fn to_blocks(&self, out: &mut [u8]) -> Result<()> {
        let _mode = fp_mode::default_mode();
        let format = self.format.ok_or(Error::Unsupported { what: "blocks of group-wise weights" })?;
        let bytes = format.bytes(self.n, self.k)?;
        equal("out.len", out.len(), "must equal the bytes of n * k weights =", bytes)?;
        let row_bytes = format.bytes(1, self.k)?;
        if row_bytes > 0 {
            for (i, row) in out.chunks_exact_mut(row_bytes).enumerate() {
                self.row_blocks(i, |b, block, format| {
                    let bytes = format.block_bytes();
                    row[b * bytes..(b + 1) * bytes].copy_from_slice(block);
                });
            }
        }
        Ok(())
    }

    /// Row `i` of W in f32, exactly as [`dequantize`] gives it: an embedding row, or a check.
    ///
    /// **Shapes**: `out`: (k). **Errors**: `Shape`, or `Option` for a row that is not there. Allocates
    /// nothing.
    pub fn dequantize_row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        let _mode = fp_mode::default_mode();
        equal("out.len", out.len(), "must equal k =", self.k)?;
        if i >= self.n {
            return Err(Error::Shape { what: "row", got: i, relation: "must be below n =", want: self.n });
        }
        if let (None, Body::Blocks(packed)) = (self.format, &self.body) {
            packed.dequantize_groups(i, out);
            return Ok(());
        }
        let mut result = Ok(());
        self.row_blocks(i, |b, block, format| {
            let len = format.block_len();
            if let Err(e) = dequantize(format, block, &mut out[b * len..(b + 1) * len]) {
                result = Err(e);
            }
        });
        result
    }

    /// Hands out the blocks of row `i` as bytes: `(number, bytes, format)`.
    fn row_blocks(&self, i: usize, mut each: impl FnMut(usize, &[u8], WeightFormat)) {
        let Some(format) = self.format else { return };
        let mut bytes = [0u8; 256];
        let bytes = &mut bytes[..format.block_bytes()];
        match (&self.body, Codec::of(format)) {
            (Body::Blocks(packed), Some(codec)) => {
                let panel = &packed.data.as_slice()[i / LANES * packed.panel_bytes..][..packed.panel_bytes];
                let mut decoded = Decoded::ZERO;
                for b in 0..self.k / format.block_len() {
                    packed.layout.get(panel, i % LANES, b, &mut decoded);
                    codec.encode(&decoded, bytes);
                    each(b, bytes, format);
                }
            }
            (Body::Floats(floats), _) => {
                floats.column(i, |k, x| {
                    match format {
                        WeightFormat::F16 => bytes.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
                        WeightFormat::Bf16 => bytes.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
                        _ => bytes.copy_from_slice(&x.to_le_bytes()),
                    }
                    each(k, bytes, format);
                });
            }
            (Body::Blocks(_), None) => {}
        }
    }
}

impl Packed {
    /// How a product treats its activations where `compute` is asked for: weights that are floats have
    /// products with f32 activations only.
    pub fn compute(&self, compute: Compute) -> Compute {
        if self.layout.packing.shape().int8 { compute } else { Compute::F32 }
    }

    /// The row panels from output feature `first` (a multiple of 16) on, of rows of `k`.
    pub fn panels(&self, first: usize, k: usize) -> RowPanels<'_> {
        RowPanels {
            data: &self.data.as_slice()[first / LANES * self.panel_bytes..],
            panel_bytes: self.panel_bytes,
            blocks: k / BLOCK,
            packing: self.layout.packing,
            superblock_shift: self.layout.superblock_shift,
        }
    }
}

/// The layout of a format of blocks.
pub(super) fn layout_of(format: WeightFormat) -> Result<Layout> {
    Layout::of(format).ok_or(Error::Unsupported { what: "a layout of blocks for this format" })
}
