//! The packed layout r16k4: the same bytes as the blocks, in the order in which kernels read them.
//!
//! Weight rows (output features) are grouped into stripes of 16. A stripe is a sequence of pairs of blocks:
//! ```text
//! pair (16 rows x 64 k): [scales of block 0: 16 x f16][scales of block 1: 16 x f16]   64 bytes
//!                        [quants of block 0][quants of block 1]
//! quants of a block:     vectors of 64 bytes; vector v = dword v of each row's quants, row by row
//! ```
//! Dword v of a Q4_0 row holds k = 4v..4v+4 in its low nibbles and k = 16+4v.. in its high nibbles, as in
//! GGUF; a Q8_0 quant is stored with its top bit flipped (q + 128), because `vpdpbusd` takes unsigned
//! weights. One 64-byte load feeds 16 lanes; the reordering is reversible. Rows that fill up the last
//! stripe, and the second block of a last odd pair, are zeros; the size grows by nothing else.

use super::format::{BLOCK, WeightFormat};
use super::quantize::{dequantize, quantize};
use crate::buffer::AlignedBuf;
use crate::error::{Error, Result, equal, product};
use crate::kernels::{LANES, Q4_PAIR_BYTES, Q8_PAIR_BYTES, Stripes};
use crate::view::MatRef;

/// A weight matrix W (n output features, k input features) in a quantised format, packed once for all
/// tiers, in huge pages when it is large. Multiplied as `C = A * W^T`.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    data: AlignedBuf<u8>, // (ceil(n / 16), stripe_bytes)
    format: WeightFormat,
    n: usize,
    k: usize,
    stripe_bytes: usize,
}

impl PackedWeights {
    /// Quantises and packs f32 weights.
    ///
    /// **Shapes**: `w`: (n, k), plain; k a multiple of 32. **Numerics**: as [`quantize`]. **Errors**: `Option`
    /// for a ragged k or a transposed view, `Overflow`, `Resource`. **Cost**: one pass; allocates the packed
    /// bytes and one row.
    pub fn quantize(format: WeightFormat, w: MatRef<'_>) -> Result<PackedWeights> {
        let (n, k) = (w.rows(), w.cols());
        let mut packed = PackedWeights::zeroed(format, n, k)?;
        // Unlike a Vec, this refuses an absurd k instead of aborting.
        let mut row_blocks = AlignedBuf::<u8>::zeroed(format.bytes(1, k)?)?;
        // Rows without elements need no work, and there may be absurdly many.
        let rows = if k == 0 { 0 } else { n };
        for i in 0..rows {
            let row = w.row(i).ok_or(Error::Option {
                what: "w",
                got: "a transposed view".into(),
                allowed: "plain: rows are output features",
            })?;
            quantize(format, row, row_blocks.as_mut_slice())?;
            packed.put_row(i, row_blocks.as_slice());
        }
        Ok(packed)
    }

    /// Packs GGUF blocks.
    ///
    /// **Shapes**: `blocks`: n rows of `k / 32` blocks, as in a GGUF tensor. **Errors**: `Option` for a ragged
    /// k, `Shape` for a wrong length, `Overflow`, `Resource`. **Cost**: one pass.
    pub fn from_blocks(format: WeightFormat, n: usize, k: usize, blocks: &[u8]) -> Result<PackedWeights> {
        let bytes = format.bytes(n, k)?;
        equal("blocks.len", blocks.len(), "must equal the bytes of n * k weights =", bytes)?;
        let mut packed = PackedWeights::zeroed(format, n, k)?;
        let row_bytes = format.bytes(1, k)?;
        if row_bytes > 0 {
            for (i, row) in blocks.chunks_exact(row_bytes).enumerate() {
                packed.put_row(i, row);
            }
        }
        Ok(packed)
    }

    fn zeroed(format: WeightFormat, n: usize, k: usize) -> Result<PackedWeights> {
        format.bytes(n, k)?;
        if !format.is_packable() {
            let (what, got) = ("format", format.name().into());
            return Err(Error::Option { what, got, allowed: "one of q4_0, q8_0" });
        }
        let pairs = (k / BLOCK).div_ceil(2);
        let stripe_bytes = product("packed stripe", &[pairs, pair_bytes(format)])?;
        let bytes = product("packed weights", &[n.div_ceil(LANES), stripe_bytes])?;
        Ok(PackedWeights { data: AlignedBuf::zeroed(bytes)?, format, n, k, stripe_bytes })
    }

    /// Output features (rows of W).
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features (columns of W).
    pub fn k(&self) -> usize {
        self.k
    }

    /// The format.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Bytes held: those of the blocks, n rounded up to 16 and k to 64.
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// The weights as GGUF blocks again, bit for bit what was packed.
    ///
    /// **Shapes**: `out`: `format.bytes(n, k)` bytes. **Errors**: `Shape`.
    pub fn to_blocks(&self, out: &mut [u8]) -> Result<()> {
        let bytes = self.format.bytes(self.n, self.k)?;
        equal("out.len", out.len(), "must equal the bytes of n * k weights =", bytes)?;
        let row_bytes = self.format.bytes(1, self.k)?;
        if row_bytes > 0 {
            for (i, row) in out.chunks_exact_mut(row_bytes).enumerate() {
                for (b, block) in row.chunks_exact_mut(self.format.block_bytes()).enumerate() {
                    self.get_block(i, b, block);
                }
            }
        }
        Ok(())
    }

    /// Row `i` of W in f32, exactly: an embedding row, or a check.
    ///
    /// **Shapes**: `out`: (k). **Errors**: `Shape`, or `Option` for a row that is not there. Allocates nothing.
    pub fn dequantize_row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        equal("out.len", out.len(), "must equal k =", self.k)?;
        if i >= self.n {
            return Err(Error::Shape { what: "row", got: i, relation: "must be below n =", want: self.n });
        }
        let mut block = [0u8; 34]; // the larger of the formats
        let block = &mut block[..self.format.block_bytes()];
        for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            self.get_block(i, b, block);
            dequantize(self.format, block, out)?;
        }
        Ok(())
    }

    /// The stripes from output feature `first` (a multiple of 16) on.
    pub(super) fn stripes(&self, first: usize) -> Stripes<'_> {
        Stripes {
            data: &self.data.as_slice()[first / LANES * self.stripe_bytes..],
            stripe_bytes: self.stripe_bytes,
            blocks: self.k / BLOCK,
            bits: self.format.bits(),
        }
    }

    /// Byte offsets of row `i` of block `b`: its scale, and dword 0 of its quants (dwords are 64 apart).
    fn offsets(&self, i: usize, b: usize) -> (usize, usize) {
        let pair = i / LANES * self.stripe_bytes + b / 2 * pair_bytes(self.format);
        let quant_bytes = (pair_bytes(self.format) - 64) / 2;
        let lane = i % LANES;
        (pair + b % 2 * 32 + 2 * lane, pair + 64 + b % 2 * quant_bytes + 4 * lane)
    }

    /// What is flipped in each stored quant byte.
    fn flip(&self) -> u8 {
        match self.format {
            WeightFormat::Q8_0 => 0x80,
            _ => 0,
        }
    }

    fn put_row(&mut self, i: usize, row: &[u8]) {
        let flip = self.flip();
        for (b, block) in row.chunks_exact(self.format.block_bytes()).enumerate() {
            let (scale, quants) = self.offsets(i, b);
            let data = self.data.as_mut_slice();
            data[scale..scale + 2].copy_from_slice(&block[..2]);
            for (v, dword) in block[2..].chunks_exact(4).enumerate() {
                for (j, byte) in dword.iter().enumerate() {
                    data[quants + 64 * v + j] = byte ^ flip;
                }
            }
        }
    }

    fn get_block(&self, i: usize, b: usize, block: &mut [u8]) {
        let (scale, quants) = self.offsets(i, b);
        let (data, flip) = (self.data.as_slice(), self.flip());
        block[..2].copy_from_slice(&data[scale..scale + 2]);
        for (v, dword) in block[2..].chunks_exact_mut(4).enumerate() {
            for (j, byte) in dword.iter_mut().enumerate() {
                *byte = data[quants + 64 * v + j] ^ flip;
            }
        }
    }
}

/// Bytes of 16 rows by two blocks.
fn pair_bytes(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Q8_0 => Q8_PAIR_BYTES,
        _ => Q4_PAIR_BYTES,
    }
}
