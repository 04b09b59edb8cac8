//! Where attention reads keys and values: one chunk of one kv head at a time, as operands of the tiles.

use super::cache::Stored;
use super::fast::Fast;
use super::plain::Plain;
use super::{CHUNK, KvCache, KvType};
use crate::error::{Result, product};
use crate::kernels::{BLOCK, Elements, Following, KernelSet, KeyCodes, LANES, Operand, Panel, ValueCodes};
use crate::matmul::Precision;
use crate::view::MatMut;
use std::cell::Cell;
use std::ops::Range;

/// Query rows of a work item from which on a chunk that is not f32 is widened once for all of them: 128 KiB
/// of keys and as much of values for a head of 128, in L2. Widening costs as much as one row of products.
const PANEL_ROWS: usize = 16;

/// Where the keys and values of a call come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The library's own cache, in the order of the tiles, and a sequence of it.
    Cache(&'a KvCache, usize),
    /// The caller's own rows.
    Plain(Plain<'a>),
}

/// The sequences of a call.
#[derive(Clone, Copy)]
pub(super) enum Streams<'a> {
    Cache(&'a KvCache, &'a [usize]),
    Plain(Plain<'a>),
}

impl<'a> Streams<'a> {
    pub fn count(&self) -> usize {
        match self {
            Streams::Cache(_, sequences) => sequences.len(),
            Streams::Plain(_) => 1,
        }
    }

    /// The `slot`th sequence.
    pub fn source(&self, slot: usize) -> Source<'a> {
        match self {
            Streams::Cache(cache, sequences) => {
                Source::Cache(cache, sequences.get(slot).copied().unwrap_or(usize::MAX))
            }
            Streams::Plain(plain) => Source::Plain(*plain),
        }
    }

    /// Keys of the longest sequence.
    pub fn longest(&self) -> usize {
        (0..self.count()).map(|slot| self.source(slot).len()).max().unwrap_or(0)
    }
}

impl Source<'_> {
    pub fn kv_heads(&self) -> usize {
        match self {
            Source::Cache(cache, _) => cache.options().kv_heads,
            Source::Plain(plain) => plain.kv_heads(),
        }
    }

    /// Head sizes of keys and of values.
    pub fn dims(&self) -> (usize, usize) {
        match self {
            Source::Cache(cache, _) => (cache.options().head_dim, cache.options().value_dim),
            Source::Plain(plain) => (plain.key_dim(), plain.value_dim()),
        }
    }

    /// The position after the last key.
    pub fn len(&self) -> usize {
        match self {
            Source::Cache(cache, sequence) => cache.len_of(*sequence),
            Source::Plain(plain) => plain.len(),
        }
    }

    /// The most keys that a call may see.
    pub fn most_keys(&self) -> usize {
        match self {
            Source::Cache(cache, _) => cache.options().capacity,
            Source::Plain(plain) => plain.len(),
        }
    }

    /// The most sequences that a call may be about.
    pub fn most_sequences(&self) -> usize {
        match self {
            Source::Cache(cache, _) => cache.options().sequences,
            Source::Plain(_) => 1,
        }
    }

    /// Elements of scratch that a lane needs besides its rows, for work items of `rows` query rows.
    pub fn panel_len(&self, rows: usize, precision: Precision) -> Result<usize> {
        match self {
            Source::Cache(cache, _) => {
                let o = cache.options();
                let fast = precision == Precision::Fast;
                let widens = |kind: KvType| kind.bits() < 32 && (fast || rows >= PANEL_ROWS);
                let keys = if widens(o.keys) { o.head_dim + 1 } else { 0 };
                let values = if widens(o.values) { cache.value_stride() } else { 0 };
                let scales = if o.values.is_quantized() { cache.value_blocks() } else { 0 };
                let wide = product("panel", &[CHUNK, keys + values + scales])?;
                Ok(wide + if fast { Fast::len(o.head_dim, cache.value_stride()) } else { 0 })
            }
            Source::Plain(plain) => plain.panel_len(),
        }
    }

    /// The keys `keys` (counted from the chunk's start) and their values, ready for strips of a work item of
    /// `rows` query rows. `panel` is scratch of [`Source::panel_len`] elements.
    pub fn chunk<'s>(
        &'s self,
        kernels: &KernelSet,
        (head, chunk): (usize, usize),
        keys: Range<usize>,
        rows: usize,
        precision: Precision,
        panel: &'s mut [f32],
    ) -> Chunk<'s> {
        match self {
            Source::Cache(cache, sequence) => {
                let (stored_keys, stored_values) = cache.chunk(*sequence, chunk, head);
                let (key_dim, value_stride) = (cache.options().head_dim, cache.value_stride());
                let fast = precision == Precision::Fast && kernels.has_bf16_fast();
                let pairs = if fast { Fast::len(key_dim, value_stride) } else { 0 };
                let (panel, pairs) = panel.split_at_mut(panel.len() - pairs);
                let seen = keys.clone();
                let at = Place { kernels, keys, widen: fast || rows >= PANEL_ROWS };
                let (keys, panel) = at.keys(stored_keys, key_dim, panel);
                let values = at.values(stored_values, value_stride, panel);
                let stream = (!at.widen).then(|| {
                    let [next, key_scales, value_scales] = cache.following(*sequence, chunk, head);
                    kernels.prefetch(key_scales);
                    kernels.prefetch(value_scales);
                    Stream { value_bytes: stored_values.bytes(), key_bytes: stored_keys.bytes(), next }
                });
                let in_place = cache.options().keys == KvType::F32 || !at.widen;
                let key_stride = if in_place { key_dim * LANES } else { padded(key_dim) };
                let fast = match (&keys, &values) {
                    (Keys::Plain(Elements::F32(k)), Values::Plain(Elements::F32(v))) if fast => {
                        Some(Fast::new(kernels, (k, key_dim, key_stride), (v, value_stride), &seen, pairs))
                    }
                    _ => None,
                };
                let next = if at.widen { cache.next_part(*sequence, chunk, head) } else { &[] };
                // Each strip has about 4 tiles of scores and 2 of values.
                let share = (next.len() / (rows.div_ceil(kernels.mr()) * 6)).next_multiple_of(64);
                let next = Next { bytes: Cell::new(next), share };
                Chunk { key_dim, keys, key_stride, values, value_stride, stream, fast, next }
            }
            Source::Plain(plain) => plain.chunk(head, chunk, keys, panel),
        }
    }
}

/// What of a chunk is needed, and in which form.
struct Place<'a> {
    kernels: &'a KernelSet,
    /// Keys that some row sees.
    keys: Range<usize>,
    /// Whether numbers are widened to f32 once.
    widen: bool,
}

/// Elements from one widened tile of keys to the next: one vector more than the keys take, or the streams of a
/// product tile would lie a power of two apart and share the sets of the first-level cache.
fn padded(dim: usize) -> usize {
    (dim + 1) * LANES
}

impl Place<'_> {
    /// The keys, in part of the panel or where they are, and the rest of the panel.
    fn keys<'s>(&self, stored: Stored<'s>, dim: usize, panel: &'s mut [f32]) -> (Keys<'s>, &'s mut [f32]) {
        match stored {
            Stored::Plain(Elements::F32(x)) => return (Keys::Plain(Elements::F32(x)), panel),
            Stored::Plain(elements) if !self.widen => return (Keys::Plain(elements), panel),
            Stored::Codes(bits, codes, scales) if !self.widen => {
                return (Keys::Codes(KeyCodes { bits, dim, codes, scales }), panel);
            }
            _ => {}
        }
        let (wide, rest) = panel.split_at_mut(CHUNK / LANES * padded(dim));
        let tiles = self.keys.start / LANES..self.keys.end.div_ceil(LANES);
        for (tile, wide) in wide.chunks_exact_mut(padded(dim)).enumerate().take(tiles.end).skip(tiles.start) {
            let wide = &mut wide[..dim * LANES];
            match stored {
                Stored::Plain(elements) => {
                    self.kernels.widen(elements.slice(tile * wide.len()..(tile + 1) * wide.len()), wide);
                }
                Stored::Codes(bits, codes, scales) => {
                    self.kernels.widen_keys(KeyCodes { bits, dim, codes, scales }, tile, wide);
                }
            }
        }
        (Keys::Plain(Elements::F32(wide)), rest)
    }

    /// The values, in part of the panel or where they are.
    fn values<'s>(&self, stored: Stored<'s>, stride: usize, panel: &'s mut [f32]) -> Values<'s> {
        let rows = self.keys.start * stride..self.keys.end * stride;
        match stored {
            Stored::Plain(Elements::F32(x)) => Values::Plain(Elements::F32(x)),
            Stored::Plain(elements) if !self.widen => Values::Plain(elements),
            Stored::Plain(elements) => {
                let wide = &mut panel[..CHUNK * stride];
                self.kernels.widen(elements.slice(rows.clone()), &mut wide[rows]);
                Values::Plain(Elements::F32(wide))
            }
            Stored::Codes(bits, codes, scales) => {
                let blocks = stride / BLOCK;
                let (wide_scales, panel) = panel.split_at_mut(CHUNK * blocks);
                self.kernels.widen(Elements::F16(scales), wide_scales);
                let codes = ValueCodes { bits, codes, blocks, scales: wide_scales, scales_stride: CHUNK };
                if !self.widen {
                    return Values::Codes(codes);
                }
                let wide = &mut panel[..CHUNK * stride];
                self.kernels.widen_values(codes, self.keys.start, &mut wide[rows]);
                Values::Plain(Elements::F32(wide))
            }
        }
    }
}

/// Keys of a chunk: `(CHUNK / 16, dim, 16)`.
enum Keys<'a> {
    Plain(Elements<'a>),
    Codes(KeyCodes<'a>),
}

/// Values of a chunk: `(CHUNK, value_stride)`.
enum Values<'a> {
    Plain(Elements<'a>),
    Codes(ValueCodes<'a>),
}

/// Keys and values of one chunk of one kv head.
pub(super) struct Chunk<'a> {
    key_dim: usize,
    keys: Keys<'a>,
    /// Elements from one tile of 16 keys to the next.
    key_stride: usize,
    values: Values<'a>,
    value_stride: usize,
    /// For few rows, whose time is that of reading: what is asked for while tiles compute.
    stream: Option<Stream<'a>>,
    /// The same numbers for bf16 dot products.
    fast: Option<Fast<'a>>,
    next: Next<'a>,
}

/// For many rows: the bytes of the next chunk, asked for little by little while tiles compute: as many lines at a
/// time as the core has buffers for misses, or it would wait for them.
#[derive(Default)]
pub(super) struct Next<'a> {
    bytes: Cell<&'a [u8]>,
    /// Bytes before each tile.
    share: usize,
}

impl Next<'_> {
    pub fn ask(&self, kernels: &KernelSet) {
        let bytes = self.bytes.get();
        if !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.share.min(bytes.len()));
            kernels.prefetch(now);
            self.bytes.set(later);
        }
    }
}

/// The bytes of a chunk in the order in which they are read.
struct Stream<'a> {
    key_bytes: &'a [u8],
    value_bytes: &'a [u8],
    /// The keys of the chunk that is likely to be next.
    next: &'a [u8],
}

/// Values that are asked for ahead of those that are read: about as much time as a tile of 64 keys takes.
const AHEAD: usize = 64;

impl Stream<'_> {
    /// What follows a tile of `width` keys that ends before key `end` of `last`: keys, then values from `value` on.
    fn after_keys(&self, end: usize, last: usize, value: usize, width: usize, steps: usize) -> Following<'_> {
        let (unit, row) = (self.key_bytes.len() / CHUNK, self.value_bytes.len() / CHUNK);
        let data = if end < last { &self.key_bytes[end * unit..] } else { &self.value_bytes[value * row..] };
        Following { data, stride: width * unit / steps }
    }

    /// What follows values from `key` on, of which a tile takes those from byte `at` of a row on.
    fn after_values(&self, key: usize, at: usize) -> Following<'_> {
        let row = self.value_bytes.len() / CHUNK;
        let data = if key + AHEAD < CHUNK {
            &self.value_bytes[(key + AHEAD) * row + at..]
        } else {
            self.next.get(at..).unwrap_or_default()
        };
        Following { data, stride: row }
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
            let width = kernels.nv(rows) * LANES;
            for key in (first..end).step_by(width) {
                let k = key_panel(elements, self.key_stride, key);
                self.next.ask(kernels);
                kernels.gemm(dim, q, k, scores.tile(0, key, rows, width.min(end - key)), false);
            }
            return;
        };
        for (row, rows) in parts(rows, kernels.code_rows().0) {
            let most = kernels.key_tiles(rows) * LANES;
            let q = below(q, row);
            for key in (first..end).step_by(most) {
                let width = most.min(end - key);
                let tile = scores.tile(row, key, rows, width);
                let follow = |steps| stream.after_keys(key + width, end, keys.start, width, steps);
                match &self.keys {
                    Keys::Plain(elements) => {
                        let follow = follow(dim / elements.step());
                        kernels.gemm_ahead(
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

    /// `sums[i] += p[i] . V[keys]` for keys ascending; element (i, 0) of `p` belongs to key `keys.start`;
    /// `sums`: (rows, value_dim).
    pub fn values(&self, kernels: &KernelSet, p: Operand<'_>, keys: Range<usize>, mut sums: MatMut<'_>) {
        let Some(fast) = &self.fast else { return self.exact_values(kernels, p, keys, sums) };
        // Pairs of keys that a row sees as a whole; single ones, whose neighbour it does not see, exactly.
        let (first, end) = (keys.start.next_multiple_of(2).min(keys.end), keys.end / 2 * 2);
        let behind = |key: usize| Operand { data: &p.data[key - keys.start..], ..p };
        if first > keys.start {
            self.exact_values(kernels, p, keys.start..first, sums.reborrow());
        }
        if first < end {
            self.next.ask(kernels);
            fast.values(kernels, behind(first), first..end, self.value_stride, sums.reborrow());
        }
        if first.max(end) < keys.end {
            self.exact_values(kernels, behind(first.max(end)), first.max(end)..keys.end, sums);
        }
    }

    /// Where keys that all rows of a strip see may be taken apart from the others.
    pub fn split(&self, common: Range<usize>) -> Range<usize> {
        match self.fast {
            Some(_) => common.start.next_multiple_of(2)..common.end / 2 * 2,
            None => common,
        }
    }

    fn exact_values(&self, kernels: &KernelSet, p: Operand<'_>, keys: Range<usize>, mut sums: MatMut<'_>) {
        let (dim, stride, rows) = (sums.cols(), self.value_stride, sums.rows());
        let Some(stream) = &self.stream else {
            let Values::Plain(elements) = &self.values else { return };
            let width = kernels.nv(rows) * LANES;
            for d in (0..dim).step_by(width) {
                let v = value_panel(elements, stride, keys.start, d);
                self.next.ask(kernels);
                kernels.gemm(keys.len(), p, v, sums.tile(0, d, rows, width), true);
            }
            return;
        };
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
                    let tile = sums.tile(row, d, rows, width);
                    let p = Operand { data: &p.data[row * p.row_stride + part.start - keys.start..], ..p };
                    let follow = stream.after_values(part.start, d * bytes / stride);
                    match &self.values {
                        Values::Plain(elements) => {
                            let v = value_panel(elements, stride, part.start, d);
                            kernels.gemm_ahead(part.len(), p, v, tile, true, follow);
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

/// The keys from `key` on.
fn key_panel<'a>(elements: &Elements<'a>, stride: usize, key: usize) -> Panel<'a> {
    let data = elements.from(key / LANES * stride);
    Panel { data, k_stride: LANES * data.step(), vec_stride: stride }
}

/// Elements `d..` of the values from `key` on.
fn value_panel<'a>(elements: &Elements<'a>, stride: usize, key: usize, d: usize) -> Panel<'a> {
    Panel { data: elements.from(key * stride + d), k_stride: stride, vec_stride: LANES }
}
