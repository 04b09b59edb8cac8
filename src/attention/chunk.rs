//! One chunk of one kv head: `Q K^T`, `P V`, and the prefetch that overlaps them.

use super::fast::Fast;
use super::options::CHUNK;
use super::prefetch::{ChunkBytes, DISTANCE, KeyTile, Queue};
use crate::kernels::{BLOCK, Elements, KernelSet, KeyCodes, LANES, Operand, Panel, ValueCodes};
use crate::view::MatMut;
use std::ops::Range;

/// Keys of a chunk: `(CHUNK / 16, dim, 16)`.
pub(super) enum Keys<'a> {
    Plain(Elements<'a>),
    Codes(KeyCodes<'a>),
}

/// Values of a chunk: `(CHUNK, value_stride)`.
pub(super) enum Values<'a> {
    Plain(Elements<'a>),
    Codes(ValueCodes<'a>),
}

/// Keys and values of one chunk of one kv head.
pub(super) struct Chunk<'a> {
    pub key_dim: usize,
    pub keys: Keys<'a>,
    /// Elements from one tile of 16 keys to the next.
    pub key_stride: usize,
    pub values: Values<'a>,
    pub value_stride: usize,
    /// For few query rows, whose time is that of reading: what each tile prefetches. Without it keys and
    /// values are f32.
    pub stream: Option<ChunkBytes<'a>>,
    /// The same numbers for bf16 dot products.
    pub fast: Option<Fast<'a>>,
    /// What is prefetched between tiles.
    pub queue: Queue<'a>,
}

/// Parts of `rows` rows, as even as possible, none longer than `most`.
fn parts(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = rows.div_ceil(rows.div_ceil(most));
    (0..rows).step_by(step).map(move |row| (row, step.min(rows - row)))
}

/// The rows of an operand from `row` on.
fn below(x: Operand<'_>, row: usize) -> Operand<'_> {
    Operand { data: &x.data[row * x.row_stride..], ..x }
}

impl<'a> Chunk<'a> {
    /// A chunk of f32: `keys` in tiles, `values` in rows.
    pub fn plain(key_dim: usize, keys: &'a [f32], values: &'a [f32], value_stride: usize) -> Chunk<'a> {
        let (keys, values) = (Keys::Plain(Elements::F32(keys)), Values::Plain(Elements::F32(values)));
        Chunk {
            key_dim,
            keys,
            key_stride: key_dim * LANES,
            values,
            value_stride,
            stream: None,
            fast: None,
            queue: Queue::default(),
        }
    }

    /// `scores[i][key] = q[i] . k[key]` for the tiles of 16 keys that cover `keys`; `scores`: (rows, CHUNK).
    pub fn scores(&self, kernels: &KernelSet, q: Operand<'_>, keys: Range<usize>, mut scores: MatMut<'_>) {
        let (dim, rows) = (self.key_dim, scores.rows());
        if let Some(fast) = &self.fast {
            return fast.scores(kernels, dim, q, keys, scores, &self.queue);
        }
        let (first, end) = (keys.start / LANES * LANES, keys.end.next_multiple_of(LANES).min(CHUNK));
        let Some(stream) = &self.stream else {
            let Keys::Plain(elements @ Elements::F32(_)) = &self.keys else { return };
            self.prefetch_shares(kernels, rows, end - first);
            let k = key_panel(elements, self.key_stride, first);
            kernels.gemm(dim, q, k, scores.tile(0, first, rows, end - first), false);
            return;
        };
        // One tile of 16 keys after the next is one stream, which the hardware prefetches by itself: 31 GB/s,
        // where four tiles at a time with software prefetch, a miss buffer for each line, stay below 20.
        // Codes and 16-bit numbers take too few bytes a step for the hardware to run ahead: their tiles
        // prefetch by software.
        if let Keys::Plain(elements @ Elements::F32(_)) = &self.keys {
            let k = key_panel(elements, self.key_stride, first);
            return kernels.gemm_panels(dim, q, k, scores.tile(0, first, rows, end - first), false, 1);
        }
        for (row, rows) in parts(rows, kernels.code_rows().0) {
            let most = kernels.key_tiles(rows) * LANES;
            let q = below(q, row);
            for key in (first..end).step_by(most) {
                let width = most.min(end - key);
                let tile = scores.tile(row, key, rows, width);
                self.queue.prefetch_share(kernels);
                let behind =
                    |steps| stream.behind_keys(KeyTile { end: key + width, width, steps }, end, keys.start);
                match &self.keys {
                    Keys::Plain(elements) => {
                        let k = key_panel(elements, self.key_stride, key);
                        kernels.gemm_prefetch(dim, q, k, tile, false, behind(dim / elements.step()));
                    }
                    Keys::Codes(codes) => {
                        kernels.key_codes(q, *codes, key / LANES, tile, behind(dim / codes.bits.step()));
                    }
                }
            }
        }
    }

    /// `sums[i] += p[i] . V[keys]` for keys ascending, or from zero where `fresh`; element (i, 0) of `p`
    /// belongs to key `keys.start`; `sums`: (rows, value_dim).
    pub fn values(
        &self,
        kernels: &KernelSet,
        p: Operand<'_>,
        keys: Range<usize>,
        mut sums: MatMut<'_>,
        fresh: bool,
    ) {
        let mut fresh = fresh;
        let Some(fast) = &self.fast else { return self.exact_values(kernels, p, keys, sums, fresh) };
        // Pairs of keys that a row sees as a whole; single ones, whose neighbour it does not see, exactly.
        let (first, end) = (keys.start.next_multiple_of(2).min(keys.end), keys.end / 2 * 2);
        let behind = |key: usize| Operand { data: &p.data[key - keys.start..], ..p };
        if first > keys.start {
            self.exact_values(kernels, p, keys.start..first, sums.reborrow(), fresh);
            fresh = false;
        }
        if first < end {
            self.queue.prefetch_share(kernels);
            fast.values(kernels, behind(first), first..end, self.value_stride, sums.reborrow(), fresh);
            fresh = false;
        }
        if first.max(end) < keys.end {
            self.exact_values(kernels, behind(first.max(end)), first.max(end)..keys.end, sums, fresh);
        }
    }

    /// Prefetches a share of the queue for each tile of a product of `cols` columns.
    fn prefetch_shares(&self, kernels: &KernelSet, rows: usize, cols: usize) {
        for _ in 0..cols.div_ceil(kernels.nv(rows) * LANES) {
            self.queue.prefetch_share(kernels);
        }
    }

    /// The part of `common`, keys that all rows of a strip see, that one product may take for all of the
    /// rows.
    pub fn whole_steps(&self, common: Range<usize>) -> Range<usize> {
        match self.fast {
            Some(_) => common.start.next_multiple_of(2)..common.end / 2 * 2,
            None => common,
        }
    }

    fn exact_values(
        &self,
        kernels: &KernelSet,
        p: Operand<'_>,
        keys: Range<usize>,
        mut sums: MatMut<'_>,
        fresh: bool,
    ) {
        let (dim, stride, rows) = (sums.cols(), self.value_stride, sums.rows());
        let Some(stream) = &self.stream else {
            let Values::Plain(elements @ Elements::F32(_)) = &self.values else { return };
            self.prefetch_shares(kernels, rows, dim);
            kernels.gemm(keys.len(), p, value_panel(elements, stride, keys.start, 0), sums, !fresh);
            return;
        };
        if fresh {
            (0..rows).for_each(|i| sums.row(i).fill(0.0));
        }
        // Only where a tile takes whole values: 256-bit tiles of 2 rows take 128 bytes, and on a quarter of
        // each row the hardware prefetches too little (13 GB/s; 16 with software prefetch).
        if let Values::Plain(elements @ Elements::F32(_)) = &self.values
            && kernels.nv(2) * LANES >= dim
        {
            return self.read_values(kernels, elements, p, keys, sums);
        }
        let bytes = stream.values.len() / CHUNK;
        let (key_rows, value_rows) = kernels.code_rows();
        let plain = matches!(self.values, Values::Plain(_));
        for (row, rows) in parts(rows, if plain { key_rows } else { value_rows }) {
            let width =
                if plain { kernels.key_tiles(rows) * LANES } else { kernels.value_blocks(rows) * BLOCK };
            for d in (0..dim).step_by(width) {
                // The last values prefetch the next keys.
                let turn = (CHUNK - DISTANCE).clamp(keys.start, keys.end);
                for part in [keys.start..turn, turn..keys.end] {
                    if part.is_empty() {
                        continue;
                    }
                    self.queue.prefetch_share(kernels);
                    let tile = sums.tile(row, d, rows, width);
                    let p = Operand { data: &p.data[row * p.row_stride + part.start - keys.start..], ..p };
                    let behind = stream.behind_values(part.start, d * bytes / stride);
                    match &self.values {
                        Values::Plain(elements) => {
                            let v = value_panel(elements, stride, part.start, d);
                            kernels.gemm_prefetch(part.len(), p, v, tile, true, behind);
                        }
                        Values::Codes(codes) => {
                            kernels.value_codes(part.len(), p, *codes, part.start, d / BLOCK, tile, behind);
                        }
                    }
                }
            }
        }
    }
}

/// Bytes of f32 values that a few rows read again while they are in L1.
const NEAR: usize = 8 << 10;

impl Chunk<'_> {
    /// Values of f32 for few rows, as one stream: two rows of probabilities at a time take whole values, and
    /// the next two rows find a short run of the values in L1. 28 GB/s by hardware prefetch alone, where four
    /// rows that take half of each value in two passes got 13 without software prefetch and 19 with it; runs
    /// of 4 KiB and of 16 KiB are slower, and so are three rows and one row at a time. Prefetching the first
    /// 8 KiB of the next keys gained nothing.
    fn read_values(
        &self,
        kernels: &KernelSet,
        elements: &Elements<'_>,
        p: Operand<'_>,
        keys: Range<usize>,
        mut sums: MatMut<'_>,
    ) {
        let (dim, rows) = (sums.cols(), sums.rows());
        let run = if rows > 2 { (NEAR / (4 * self.value_stride)).max(4) } else { CHUNK };
        let even = rows / 2 * 2;
        for key in keys.clone().step_by(run) {
            let v = value_panel(elements, self.value_stride, key, 0);
            for (row, rows, strip) in [(0, even, 2), (even, rows - even, 1)] {
                if rows > 0 {
                    let p = Operand { data: &p.data[row * p.row_stride + key - keys.start..], ..p };
                    let sums = sums.tile(row, 0, rows, dim);
                    kernels.gemm_rows(run.min(keys.end - key), (p, strip), v, sums, true);
                }
            }
        }
    }
}

/// The keys from `key` on.
fn key_panel<'a>(elements: &Elements<'a>, stride: usize, key: usize) -> Panel<'a> {
    let data = elements.from(key / LANES * stride);
    Panel { data, k_stride: LANES * data.step(), vec_stride: stride }
}

/// Elements `d..` of the values from `key` on.
fn value_panel<'a>(elements: &Elements<'a>, stride: usize, key: usize, d: usize) -> Panel<'a> {
    Panel { data: elements.from(key * stride + d), k_stride: stride, vec_stride: LANES }
}
