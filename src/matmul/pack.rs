//! Packing: blocks of A and B copied into the order in which the register tile reads them.

use crate::kernels::{BPanels, Elements, KernelSet, LANES};
use crate::view::MatRef;
use bytemuck::Pod;

/// Steps of k that a transposing copy handles at once: 64 lines of 64 bytes of the target stay in L1.
const K_STEP: usize = 64;

/// A range of rows, columns or steps of k.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub start: usize,
    pub len: usize,
}

/// B of a product.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Matrix(MatRef<'a>),
    Packed(Panels<'a>),
}

/// A block of B as panels of `width` columns: panel, then group of `step` k, then column, then k within the
/// group. The last panel is as wide as its columns need (a multiple of 16); what does not exist is zeros.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub data: Elements<'a>, // (ceil(cols / width), groups, width, step)
    /// Steps of k, padded to whole groups.
    pub k: usize,
    pub cols: usize,
    pub width: usize,
}

impl<'a> Panels<'a> {
    /// Elements of all panels, for `k` a multiple of the group.
    pub(super) fn elements(k: usize, cols: usize) -> Option<usize> {
        cols.checked_next_multiple_of(LANES)?.checked_mul(k)
    }

    /// The longest evenly strided run of `nr`-wide panels from step `p` of k (the first of a group) and
    /// column `col` (a multiple of 16) on, and how many of `cols` columns it covers.
    pub(super) fn run(&self, p: usize, col: usize, cols: usize, nr: usize) -> (BPanels<'a>, usize) {
        let step = self.data.step();
        let start = col & !(self.width - 1); // widths are powers of two
        let padded = (self.cols - start).next_multiple_of(LANES);
        let width = self.width.min(padded);
        let data = self.data.from(start * self.k + p * width + (col - start) * step);
        let k_stride = width * step;
        if self.width == LANES {
            // Vectors are panels of their own.
            let (vec_stride, vectors) = (self.k * LANES, nr / LANES);
            return (BPanels { data, vectors, k_stride, vec_stride, stride: vectors * vec_stride }, cols);
        }
        let (vec_stride, vectors) = (LANES * step, nr.min(width) / LANES);
        if col == start && width <= nr {
            let covered = (padded / width * width).min(cols);
            (BPanels { data, vectors, k_stride, vec_stride, stride: width * self.k }, covered)
        } else {
            let covered = (start + width - col).min(cols);
            (BPanels { data, vectors, k_stride, vec_stride, stride: vectors * vec_stride }, covered)
        }
    }
}

/// Where in B a packed block comes from.
#[derive(Clone, Copy)]
pub(super) struct BlockOfB {
    pub k: Span,
    pub cols: Span,
}

/// Packs a block of `b` into panels (see [`Panels`]) of `width` columns and groups of `step` k. U holds the
/// bits of T. For k that is no multiple of `step`, `out` must hold zeros before.
pub(super) fn pack_b<T: Pod, U: Pod>(
    kernels: &KernelSet,
    b: MatRef<'_, T>,
    block: BlockOfB,
    (width, step): (usize, usize),
    out: &mut [U],
) {
    let (k, Span { start: col0, len: cols }) = (block.k.len, block.cols);
    if k == 0 {
        return; // however many columns an empty matrix claims to have
    }
    let padded_k = k.next_multiple_of(step);
    let mut start = 0;
    while start < cols {
        let real = width.min(cols - start);
        let padded = real.next_multiple_of(LANES);
        let panel = &mut out[start * padded_k..(start + padded) * padded_k];
        let block = BlockOfB { k: block.k, cols: Span { start: col0 + start, len: real } };
        pack_panel(kernels, b, block, (padded, step), panel);
        start += width;
    }
}

/// One panel: element `(p, j)` goes to `(p / step * padded + j) * step + p % step`.
pub(super) fn pack_panel<T: Pod, U: Pod>(
    kernels: &KernelSet,
    b: MatRef<'_, T>,
    block: BlockOfB,
    (padded, step): (usize, usize),
    out: &mut [U],
) {
    let (Span { start: p0, len: k }, Span { start: col0, len: real }) = (block.k, block.cols);
    let group = padded * step;
    if b.is_transposed() {
        // Blocks of 16 x 16 f32 through registers; what is left, and 2-byte elements, one by one.
        let (mut whole_k, mut whole_cols) = (0, 0);
        if step == 1 && size_of::<T>() == 4 {
            (whole_k, whole_cols) = (k / LANES * LANES, real / LANES * LANES);
            let from = (bytemuck::cast_slice(b.from(p0, col0)), b.strides().1);
            kernels.copy_columns(from, (whole_cols, whole_k), (bytemuck::cast_slice_mut(out), group));
        }
        for p in (0..k).step_by(K_STEP) {
            let end = k.min(p + K_STEP);
            for j in 0..real {
                let first = if j < whole_cols { p.max(whole_k) } else { p };
                if first < end {
                    let column: &[U] = bytemuck::cast_slice(&b.from(p0 + first, col0 + j)[..end - first]);
                    for (p, &x) in (first..).zip(column) {
                        out[p / step * group + j * step + p % step] = x;
                    }
                }
            }
        }
    } else if step == 1 && real == padded && size_of::<T>() == 4 {
        let (row_stride, _) = b.strides();
        let from = bytemuck::cast_slice(b.from(p0, col0));
        kernels.copy_rows(from, row_stride, k, padded / LANES, bytemuck::cast_slice_mut(out));
    } else {
        for p in 0..k {
            let row: &[U] = bytemuck::cast_slice(&b.from(p0 + p, col0)[..real]);
            let out = &mut out[p / step * group + p % step..];
            out.iter_mut().step_by(step).zip(row).for_each(|(out, &x)| *out = x);
        }
    }
    if real < padded {
        for group in out.chunks_exact_mut(group) {
            group[real * step..].fill(U::zeroed());
        }
    }
}

/// Packs `rows` rows of a transposed A as micropanels of at most `panel_rows` rows: micropanel, then k, then
/// row.
pub(super) fn pack_a(a: MatRef<'_>, rows: Span, k: Span, panel_rows: usize, out: &mut [f32]) {
    let (Span { start: row0, len: rows }, Span { start: p0, len: k }) = (rows, k);
    let (row_stride, k_stride) = a.strides();
    let mut start = 0;
    while start < rows {
        let r = panel_rows.min(rows - start);
        let data = a.from(row0 + start, p0);
        for (p, to) in out[start * k..(start + r) * k].chunks_exact_mut(r).enumerate() {
            for (i, x) in to.iter_mut().enumerate() {
                *x = data[i * row_stride + p * k_stride];
            }
        }
        start += r;
    }
}

/// Rounds rows of A to bf16, in pairs of k: `(rows, ceil(k / 2))`, zero where k is odd.
pub(super) fn pack_a_bf16(kernels: &KernelSet, a: MatRef<'_>, rows: Span, k: Span, out: &mut [[u16; 2]]) {
    let (Span { start: row0, len: rows }, Span { start: p0, len: k }) = (rows, k);
    if k == 0 {
        return;
    }
    let (_, k_stride) = a.strides();
    for (i, out) in out.chunks_exact_mut(k.div_ceil(2)).take(rows).enumerate() {
        let row = a.from(row0 + i, p0);
        if k_stride == 1 {
            kernels.round_to_bf16(&row[..k], out);
            continue;
        }
        let mut gathered = [0f32; K_STEP];
        for (step, out) in out.chunks_mut(K_STEP / 2).enumerate() {
            let p = step * K_STEP;
            let gathered = &mut gathered[..K_STEP.min(k - p)];
            for (q, x) in gathered.iter_mut().enumerate() {
                *x = row[(p + q) * k_stride];
            }
            kernels.round_to_bf16(gathered, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_each_element_once_and_zeros_elsewhere() {
        let (k, n, width) = (5, 37, 32);
        let data: Vec<u16> = (1..=k * n).map(|x| x as u16).collect();
        let b = MatRef::dense(&data, k, n).unwrap();
        let mut transposed = vec![0; k * n];
        for (i, x) in data.iter().enumerate() {
            transposed[i % n * k + i / n] = *x;
        }
        let bt = MatRef::dense(&transposed, n, k).unwrap().t();
        for step in [1, 2] {
            let padded_k = k.next_multiple_of(step);
            let elements = Panels::elements(padded_k, n).unwrap();
            let (mut one, mut two) = (vec![0u16; elements], vec![0u16; elements]);
            let block = BlockOfB { k: Span { start: 0, len: k }, cols: Span { start: 0, len: n } };
            pack_b(KernelSet::scalar(), b, block, (width, step), &mut one);
            pack_b(KernelSet::scalar(), bt, block, (width, step), &mut two);
            assert_eq!(one, two);
            let elements = if step == 1 { Elements::F16(&one) } else { Elements::Bf16(&one) };
            let panels = Panels { data: elements, k: padded_k, cols: n, width };
            let element = |p: usize, j: usize| match panels
                .run(p / step * step, j / LANES * LANES, LANES, LANES)
                .0
                .data
            {
                Elements::F16(x) | Elements::Bf16(x) => x[j % LANES * step + p % step],
                Elements::F32(_) | Elements::Bf16Rows(_) => unreachable!(),
            };
            for p in 0..k {
                assert!((0..n).all(|j| element(p, j) == data[p * n + j]));
                assert!((n..48).all(|j| element(p, j) == 0));
            }
        }
    }

    #[test]
    fn micropanels_of_a_are_k_major() {
        let data: Vec<f32> = (0..20).map(|x| x as f32).collect();
        let a = MatRef::dense(&data, 4, 5).unwrap().t(); // (5, 4)
        let mut out = vec![0.0; 20];
        pack_a(a, Span { start: 0, len: 5 }, Span { start: 0, len: 4 }, 3, &mut out);
        assert_eq!(out[..3], [0.0, 1.0, 2.0]);
        assert_eq!(out[3..6], [5.0, 6.0, 7.0]);
        assert_eq!(out[12..14], [3.0, 4.0]);
    }
}
