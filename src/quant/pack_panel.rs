//! Row panels from blocks and from codes, 16 rows at a time: what decoding leaves is transposed in registers.

use super::codec::{Codec, Decoded};
use super::format::BLOCK;
use super::layout::Layout;
use super::layout_groups::GroupNumbers;
use crate::kernels::{KernelSet, LANES};
use std::ops::Range;

/// Codes of 16 rows: two blocks of each.
type Codes = [[u8; 2 * BLOCK]; LANES];

/// Pairs of blocks of 32 in the longest block of a format.
const PAIRS: usize = 4;

impl Layout {
    /// Stores the codes of 16 rows in `count` blocks of 32 k, one or two, from block `b` on.
    fn put_codes_of_rows(
        &self,
        kernels: &KernelSet,
        panel: &mut [u8],
        (b, count): (usize, usize),
        codes: &Codes,
    ) {
        let starts = [0, 1].map(|i| (i < count).then(|| self.place(b + i).codes));
        kernels.pack_codes(self.packing, codes, panel, starts);
    }

    /// Fills a row panel of a format, whose bytes are zeros, with `rows`, the first of which is its first;
    /// `row` gives the blocks of one.
    pub fn put_panel<'b>(
        &self,
        kernels: &KernelSet,
        codec: &Codec,
        panel: &mut [u8],
        rows: Range<usize>,
        row: impl Fn(usize) -> &'b [u8],
    ) {
        let block_bytes = codec.format.block_bytes();
        let blocks = rows.clone().next().map_or(0, |i| row(i).len() / block_bytes);
        if self.has_strands() {
            for i in rows {
                self.put_blocks(codec, panel, i % LANES, row(i));
            }
            return;
        }
        // Two blocks of 32 at least.
        let together = (2 / self.per_block).max(1);
        let mut codes: [Codes; PAIRS] = [[[0; 2 * BLOCK]; LANES]; PAIRS];
        let mut decoded = [Decoded::ZERO; LANES];
        for first in (0..blocks).step_by(together) {
            let count = together.min(blocks - first);
            for b in 0..count {
                for (i, decoded) in rows.clone().zip(&mut decoded) {
                    codec.decode(&row(i)[(first + b) * block_bytes..][..block_bytes], decoded);
                    let of_block = decoded.codes.as_chunks::<BLOCK>().0.iter().take(self.per_block);
                    for (at, of_block) in (b * self.per_block..).zip(of_block) {
                        codes[at / 2][i % LANES].as_chunks_mut::<BLOCK>().0[at % 2] = *of_block;
                    }
                }
                self.put_headers(panel, 0, first + b, &decoded[..rows.len()]);
            }
            let (start, left) = (first * self.per_block, count * self.per_block);
            for (pair, codes) in codes.iter().take(left.div_ceil(2)).enumerate() {
                self.put_codes_of_rows(kernels, panel, (start + 2 * pair, left - 2 * pair), codes);
            }
        }
    }

    /// Fills a row panel of group-wise weights, whose bytes are zeros: `codes` gives those of a row, one a
    /// byte, `numbers` those of the group of a row and position.
    pub fn put_groups<'b>(
        &self,
        kernels: &KernelSet,
        panel: &mut [u8],
        rows: Range<usize>,
        codes: impl Fn(usize) -> &'b [u8],
        numbers: impl Fn(usize, usize) -> GroupNumbers,
    ) {
        let mut both: Codes = [[0; 2 * BLOCK]; LANES];
        let blocks = rows.clone().next().map_or(0, |i| codes(i).len() / BLOCK);
        for b in (0..blocks).step_by(2) {
            let count = 2.min(blocks - b);
            for i in rows.clone() {
                let row = &codes(i)[b * BLOCK..(b + count) * BLOCK];
                both[i % LANES][..row.len()].copy_from_slice(row);
                for b in b..b + count {
                    self.put_row_numbers(panel, i % LANES, b, |position| numbers(i, position));
                }
            }
            self.put_codes_of_rows(kernels, panel, (b, count), &both);
        }
    }
}
