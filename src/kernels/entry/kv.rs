//! The entries of the tiles over quantised keys and values.

use super::bounds::reach;
use super::operands::{Elements, Operand, Panel};
use crate::kernels::generic::gemm::GemmTile;
use crate::kernels::generic::kv::{KeyTile, PrefetchAt, ValueTile, Widen};
use crate::kernels::set::PrefetchTile;
use crate::kernels::{BLOCK, KernelSet, LANES};
use crate::view::MatMut;

/// The width of a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CodeBits {
    Eight,
    Four,
}

impl CodeBits {
    /// Numbers in a byte.
    pub(crate) fn step(self) -> usize {
        match self {
            CodeBits::Eight => 1,
            CodeBits::Four => 2,
        }
    }

    fn index(self) -> usize {
        match self {
            CodeBits::Eight => 0,
            CodeBits::Four => 1,
        }
    }
}

/// Bytes that the next tile reads, prefetched while this one computes: `stride` bytes further for each step.
#[derive(Clone, Copy)]
pub(crate) struct Prefetch<'a> {
    pub data: &'a [u8],
    pub stride: usize,
}

impl Prefetch<'_> {
    fn args(&self) -> PrefetchAt {
        PrefetchAt { at: self.data.as_ptr(), stride: self.stride }
    }
}

/// Quantised keys in tiles of 16.
#[derive(Clone, Copy)]
pub(crate) struct KeyCodes<'a> {
    pub bits: CodeBits,
    pub dim: usize,
    pub codes: &'a [u8],   // (tiles, dim / step, 16)
    pub scales: &'a [u16], // (tiles, ceil(dim / 32), 16)
}

impl KeyCodes<'_> {
    /// Bytes of codes and elements of scales of a tile.
    fn tile(&self) -> (usize, usize) {
        (self.dim / self.bits.step() * LANES, self.dim.div_ceil(BLOCK) * LANES)
    }
}

/// Quantised values in rows.
#[derive(Clone, Copy)]
pub(crate) struct ValueCodes<'a> {
    pub bits: CodeBits,
    pub codes: &'a [u8], // (keys, blocks, 32 / step)
    pub blocks: usize,
    pub scales: &'a [f32], // (blocks, scales_stride), one for each key
    pub scales_stride: usize,
}

impl KernelSet {
    /// The most rows of a tile of quantised keys, and of values.
    pub(crate) fn code_rows(&self) -> (usize, usize) {
        (self.key_tiles[0].len(), self.value_tiles[0].len())
    }

    /// The most tiles of 16 keys of a tile of `rows` queries.
    pub(crate) fn key_tiles(&self, rows: usize) -> usize {
        self.key_tiles[0][rows - 1].len()
    }

    /// The most blocks of 32 elements of a tile of `rows` rows of probabilities.
    pub(crate) fn value_blocks(&self, rows: usize) -> usize {
        self.value_tiles[0][rows - 1].len()
    }

    /// [`KernelSet::gemm`] for at most [`KernelSet::code_rows`] rows, the step of whose k divides it.
    pub(crate) fn gemm_prefetch(
        &self,
        k: usize,
        a: Operand<'_>,
        b: Panel<'_>,
        mut c: MatMut<'_>,
        accumulate: bool,
        next: Prefetch<'_>,
    ) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 || k == 0 {
            return;
        }
        let (table, step) = (self.gemm_prefetch[b.data.element_type() as usize], b.data.step());
        let vectors = cols.div_ceil(LANES);
        assert!(k.is_multiple_of(step));
        assert!(reach(rows, a.row_stride) + reach(k, a.k_stride) < a.data.len());
        let last = reach(k / step, b.k_stride) + reach(vectors, b.vec_stride);
        assert!(last + LANES * step <= b.data.len());
        let tile = GemmTile {
            k,
            a: a.data.as_ptr(),
            a_row_stride: a.row_stride,
            a_k_stride: a.k_stride,
            a_panel_stride: 0,
            b: b.data.as_ptr(),
            b_k_stride: b.k_stride,
            b_vec_stride: b.vec_stride,
            b_panel_stride: 0,
            c_row_stride: c.row_stride(),
            a_panels: 1,
            b_panels: 1,
            tail: cols - (vectors - 1) * LANES,
            c: c.as_mut_ptr(),
            accumulate,
            epilogue: std::ptr::null(),
        };
        // SAFETY: CPU checked; the asserts cover A and B; C has `rows` rows of `cols` elements.
        unsafe { table[rows - 1][vectors - 1](&PrefetchTile { tile, prefetch: next.args() }) }
    }

    /// `c[i][key] = q[i] . k[key]` for whole tiles of 16 keys from tile `first` on.
    pub(crate) fn key_codes(
        &self,
        q: Operand<'_>,
        k: KeyCodes<'_>,
        first: usize,
        mut c: MatMut<'_>,
        next: Prefetch<'_>,
    ) {
        let (rows, tiles, (codes, scales)) = (c.rows(), c.cols() / LANES, k.tile());
        if rows == 0 || tiles == 0 {
            return;
        }
        assert!(c.cols() == tiles * LANES && q.k_stride == 1 && k.dim.is_multiple_of(k.bits.step()));
        assert!(reach(rows, q.row_stride) + k.dim <= q.data.len());
        assert!((first + tiles) * codes <= k.codes.len() && (first + tiles) * scales <= k.scales.len());
        let tile = KeyTile {
            dim: k.dim,
            q: q.data.as_ptr(),
            q_row_stride: q.row_stride,
            codes: k.codes[first * codes..].as_ptr(),
            codes_stride: codes,
            scales: k.scales[first * scales..].as_ptr(),
            scales_stride: scales,
            c_row_stride: c.row_stride(),
            c: c.as_mut_ptr(),
            prefetch: next.args(),
        };
        // SAFETY: CPU checked; the asserts cover queries, codes and scales; C has `rows` rows of whole tiles.
        unsafe { self.key_tiles[k.bits.index()][rows - 1][tiles - 1](&tile) }
    }

    /// `c[i][..] += p[i] . v[keys]` over `keys` keys from key `first` on, for the blocks from `block` on that
    /// the columns of `c` are.
    #[allow(clippy::too_many_arguments)] // the operands of one kernel
    pub(crate) fn value_codes(
        &self,
        keys: usize,
        p: Operand<'_>,
        v: ValueCodes<'_>,
        first: usize,
        block: usize,
        mut c: MatMut<'_>,
        next: Prefetch<'_>,
    ) {
        let (rows, cols) = (c.rows(), c.cols());
        if rows == 0 || cols == 0 || keys == 0 {
            return;
        }
        let (blocks, bytes) = (cols.div_ceil(BLOCK), BLOCK / v.bits.step());
        assert!(p.k_stride == 1 && reach(rows, p.row_stride) + keys <= p.data.len());
        assert!(block + blocks <= v.blocks && (first + keys) * v.blocks * bytes <= v.codes.len());
        assert!(reach(block + blocks, v.scales_stride) + first + keys <= v.scales.len());
        let tile = ValueTile {
            keys,
            p: p.data.as_ptr(),
            p_row_stride: p.row_stride,
            codes: v.codes[(first * v.blocks + block) * bytes..].as_ptr(),
            codes_stride: v.blocks * bytes,
            scales: v.scales[block * v.scales_stride + first..].as_ptr(),
            scales_stride: v.scales_stride,
            c_row_stride: c.row_stride(),
            tail: cols - (blocks - 1) * BLOCK,
            c: c.as_mut_ptr(),
            prefetch: next.args(),
        };
        // SAFETY: CPU checked; the asserts cover probabilities, codes and scales; C has `rows` rows of `cols`
        // elements.
        unsafe { self.value_tiles[v.bits.index()][rows - 1][blocks - 1](&tile) }
    }

    /// Rounds pairs of rows of `stride` elements to bf16 and joins them: `out`: (rows / 2, stride, 2). Does
    /// nothing on a CPU without the instructions.
    pub(crate) fn pack_bf16_pairs(&self, from: &[f32], stride: usize, out: &mut [u16]) {
        let Some(fast) = (self.fast_bf16)() else { return };
        assert!(stride > 0 && stride.is_multiple_of(LANES) && from.len().is_multiple_of(2 * stride));
        assert!(out.len() == from.len());
        // SAFETY: the CPU has the instructions; the asserts cover both sides.
        unsafe { (fast.pack)(from.as_ptr(), from.len() / (2 * stride), stride, out.as_mut_ptr()) }
    }

    /// Prefetches the cache lines of some bytes into L2.
    pub(crate) fn prefetch(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            // SAFETY: CPU checked; nothing is read.
            unsafe { (self.prefetch)(bytes.as_ptr(), bytes.len()) }
        }
    }

    /// Widens whole vectors; pairs of bf16 come apart.
    pub(crate) fn widen(&self, from: Elements<'_>, to: &mut [f32]) {
        let (kernel, step) = (self.widen[from.element_type() as usize], from.step());
        assert!(from.len() == to.len() && to.len().is_multiple_of(step * LANES));
        let groups = to.len() / (step * LANES);
        // SAFETY: CPU checked; both sides hold `groups` groups.
        unsafe { kernel(&Widen { from: from.as_ptr(), groups, to: to.as_mut_ptr() }) }
    }

    /// Widens the tiles `first..` of 16 keys that `to` has room for, `(tiles, dim, 16)`.
    pub(crate) fn widen_keys(&self, k: KeyCodes<'_>, first: usize, to: &mut [f32]) {
        let (codes, scales) = k.tile();
        assert!(k.dim.is_multiple_of(k.bits.step()));
        for (tile, to) in (first..).zip(to.chunks_exact_mut(k.dim * LANES)) {
            let codes = &k.codes[tile * codes..(tile + 1) * codes];
            let scales = &k.scales[tile * scales..(tile + 1) * scales];
            let kernel = self.widen_keys[k.bits.index()];
            // SAFETY: CPU checked; the slices are one tile each.
            unsafe { kernel(k.dim, codes.as_ptr(), scales.as_ptr(), to.as_mut_ptr()) }
        }
    }

    /// Widens the values `first..` that `to` has room for, `(keys, 32 * blocks)`.
    pub(crate) fn widen_values(&self, v: ValueCodes<'_>, first: usize, to: &mut [f32]) {
        let bytes = v.blocks * BLOCK / v.bits.step();
        for (key, to) in (first..).zip(to.chunks_exact_mut(v.blocks * BLOCK)) {
            assert!(reach(v.blocks, v.scales_stride) + key < v.scales.len());
            let codes = &v.codes[key * bytes..(key + 1) * bytes];
            let kernel = self.widen_value[v.bits.index()];
            // SAFETY: CPU checked; codes are one value, the furthest scale was just checked, `to` holds a
            // row.
            unsafe {
                let scales = (v.scales.as_ptr().add(key), v.scales_stride);
                kernel(v.blocks, codes.as_ptr(), scales, to.as_mut_ptr());
            }
        }
    }
}
