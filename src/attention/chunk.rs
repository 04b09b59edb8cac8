//! One chunk of one kv head: its two products, and what is asked for meanwhile.

use super::CHUNK;
use super::fast::Fast;
use crate::kernels::{BLOCK, Elements, KernelSet, KeyCodes, LANES, Operand, Panel, Prefetch, ValueCodes};
use crate::view::MatMut;
use std::cell::Cell;
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
    /// For few rows, whose time is that of reading: what is asked for while tiles compute.
    pub stream: Option<Stream<'a>>,
    /// The same numbers for bf16 dot products.
    pub fast: Option<Fast<'a>>,
    pub next: Next<'a>,
}

/// What the next chunk will read, asked for little by little while tiles compute: as many lines at a time as the
/// core has buffers for misses, or it would wait for them. For many rows all of it; for few the scales, which
/// [`Stream`] does not reach.
#[derive(Default)]
pub(super) struct Next<'a> {
    pub bytes: Cell<&'a [u8]>,
    /// What comes after them.
    pub then: Cell<&'a [u8]>,
    /// Bytes before each tile.
    pub share: usize,
}

impl Next<'_> {
    pub fn ask(&self, kernels: &KernelSet) {
        let mut bytes = self.bytes.get();
        if bytes.is_empty() {
            bytes = self.then.take();
        }
        if !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.share.min(bytes.len()));
            kernels.prefetch(now);
            self.bytes.set(later);
        }
    }
}

/// The bytes of a chunk in the order in which they are read.
pub(super) struct Stream<'a> {
    pub key_bytes: &'a [u8],
    pub value_bytes: &'a [u8],
    /// The keys of the chunk that is likely to be next.
    pub next: &'a [u8],
}

/// Values that are asked for ahead of those that are read: about as much time as a tile of 64 keys takes.
const AHEAD: usize = 64;

impl Stream<'_> {
    /// What follows a tile of `width` keys that ends before key `end` of `last`: keys, then values from `value` on.
    fn after_keys(&self, end: usize, last: usize, value: usize, width: usize, steps: usize) -> Prefetch<'_> {
        let (unit, row) = (self.key_bytes.len() / CHUNK, self.value_bytes.len() / CHUNK);
        let data = if end < last { &self.key_bytes[end * unit..] } else { &self.value_bytes[value * row..] };
        Prefetch { data, stride: width * unit / steps }
    }

    /// What follows values from `key` on, of which a tile takes those from byte `at` of a row on.
    fn after_values(&self, key: usize, at: usize) -> Prefetch<'_> {
        let row = self.value_bytes.len() / CHUNK;
        let data = if key + AHEAD < CHUNK {
            &self.value_bytes[(key + AHEAD) * row + at..]
        } else {
            self.next.get(at..).unwrap_or_default()
        };
        Prefetch { data, stride: row }
    }
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
            next: Next::default(),
        }
    }

    /// `scores[i][key] = q[i] . k[key]` for the tiles of 16 keys that cover `keys`; `scores`: (rows, CHUNK).
    pub fn scores(&self, kernels: &KernelSet, q: Operand<'_>, keys: Range<usize>, mut scores: MatMut<'_>) {
        let (dim, rows) = (self.key_dim, scores.rows());
        if let Some(fast) = &self.fast {
            return fast.scores(kernels, dim, q, keys, scores, &self.next);
        }
        let (first, end) = (keys.start / LANES * LANES, keys.end.next_multiple_of(LANES).min(CHUNK));
        let Some(stream) = &self.stream else {
            let Keys::Plain(elements) = &self.keys else { return };
            self.ask(kernels, rows, end - first);
            let k = key_panel(elements, self.key_stride, first);
            kernels.gemm(dim, q, k, scores.tile(0, first, rows, end - first), false);
            return;
        };
        // One tile of 16 keys after the other is one stream, which the hardware asks for by itself: 31 GB/s, where
        // four tiles at a time with software prefetch, a miss buffer for each line, stay below 20. Codes and 16-bit
        // numbers take too few bytes a step for the hardware to run ahead: they keep the software's.
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
                self.next.ask(kernels);
                let follow = |steps| stream.after_keys(key + width, end, keys.start, width, steps);
                match &self.keys {
                    Keys::Plain(elements) => {
                        let follow = follow(dim / elements.step());
                        kernels.gemm_prefetch(
                            dim,
                            q,
                            key_panel(elements, self.key_stride, key),
                            tile,
                            false,
                            follow,
                        );
                    }
                    Keys::Codes(codes) => {
                        kernels.key_codes(q, *codes, key / LANES, tile, follow(dim / codes.bits.step()));
                    }
                }
            }
        }
    }

    /// `sums[i] += p[i] . V[keys]` for keys ascending, or from zero where `fresh`; element (i, 0) of `p` belongs to
    /// key `keys.start`; `sums`: (rows, value_dim).
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
            self.next.ask(kernels);
            fast.values(kernels, behind(first), first..end, self.value_stride, sums.reborrow(), fresh);
            fresh = false;
        }
        if first.max(end) < keys.end {
            self.exact_values(kernels, behind(first.max(end)), first.max(end)..keys.end, sums, fresh);
        }
    }

    /// Asks for as much of the next chunk as the tiles of a product of `cols` columns have time for.
    fn ask(&self, kernels: &KernelSet, rows: usize, cols: usize) {
        for _ in 0..cols.div_ceil(kernels.nv(rows) * LANES) {
            self.next.ask(kernels);
        }
    }

    /// Where keys that all rows of a strip see may be taken apart from the others.
    pub fn split(&self, common: Range<usize>) -> Range<usize> {
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
            let Values::Plain(elements) = &self.values else { return };
            self.ask(kernels, rows, dim);
            kernels.gemm(keys.len(), p, value_panel(elements, stride, keys.start, 0), sums, !fresh);
            return;
        };
        if fresh {
            (0..rows).for_each(|i| sums.row(i).fill(0.0));
        }
        // Only where a tile takes whole values: 256-bit tiles of 2 rows take 128 bytes, and on a quarter of each
        // row the hardware asks for too little (13 GB/s; 16 with what the tile asks for).
        if let Values::Plain(elements @ Elements::F32(_)) = &self.values
            && kernels.nv(2) * LANES >= dim
        {
            return self.read_values(kernels, elements, p, keys, sums);
        }
        let bytes = stream.value_bytes.len() / CHUNK;
        let (key_rows, value_rows) = kernels.code_rows();
        let plain = matches!(self.values, Values::Plain(_));
        for (row, rows) in parts(rows, if plain { key_rows } else { value_rows }) {
            let width =
                if plain { kernels.key_tiles(rows) * LANES } else { kernels.value_blocks(rows) * BLOCK };
            for d in (0..dim).step_by(width) {
                // The last values ask for what comes after them.
                let turn = (CHUNK - AHEAD).clamp(keys.start, keys.end);
                for part in [keys.start..turn, turn..keys.end] {
                    if part.is_empty() {
                        continue;
                    }
                    self.next.ask(kernels);
                    let tile = sums.tile(row, d, rows, width);
                    let p = Operand { data: &p.data[row * p.row_stride + part.start - keys.start..], ..p };
                    let follow = stream.after_values(part.start, d * bytes / stride);
                    match &self.values {
                        Values::Plain(elements) => {
                            let v = value_panel(elements, stride, part.start, d);
                            kernels.gemm_prefetch(part.len(), p, v, tile, true, follow);
                        }
                        Values::Codes(codes) => {
                            kernels.value_codes(part.len(), p, *codes, part.start, d / BLOCK, tile, follow);
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
    /// Values of f32 for few rows, as one stream: two rows of probabilities at a time take whole values, and the
    /// next two find a short run of them in L1. 28 GB/s by itself, where four rows that take half of each value in
    /// two passes got 13 without and 19 with what they ask for ahead; runs of 4 KiB and of 16 KiB are slower, and
    /// so is a row of three and a row of one. Asking for the first 8 KiB of the next keys meanwhile gained nothing.
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
