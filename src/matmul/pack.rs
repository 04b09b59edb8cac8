//! Packing: blocks of A and B copied into the order in which the register tile reads them.

use crate::kernels::{LANES, Panel};
use crate::view::MatRef;

/// Steps of k that a transposing copy handles at once: 64 lines of 64 bytes of the target stay in L1.
const K_STEP: usize = 64;

/// A block of B as panels of `width` columns: panel, then k, then column. The last panel is as wide as its
/// columns need (a multiple of 16); columns that do not exist are zeros.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub data: &'a [f32], // (ceil(cols / width), k, width)
    pub k: usize,
    pub cols: usize,
    pub width: usize,
}

impl<'a> Panels<'a> {
    /// Elements of all panels.
    pub(super) fn elements(k: usize, cols: usize) -> Option<usize> {
        cols.checked_next_multiple_of(LANES)?.checked_mul(k)
    }

    /// The vectors of columns `col..` (a multiple of 16) from step `p` of k on. They may run on into the
    /// next panels only where panels are one vector wide.
    pub(super) fn at(&self, p: usize, col: usize) -> Panel<'a> {
        let panel = col / self.width;
        let start = panel * self.width;
        let width = self.width.min((self.cols - start).next_multiple_of(LANES));
        Panel {
            data: &self.data[start * self.k + p * width + (col - start)..],
            k_stride: width,
            vec_stride: if self.width == LANES { self.k * LANES } else { LANES },
        }
    }
}

/// Packs columns `col0..col0 + cols` of rows `p0..p0 + k` of `b` into panels (see [`Panels`]).
pub(super) fn pack_b(
    b: MatRef<'_>,
    (p0, k): (usize, usize),
    (col0, cols): (usize, usize),
    width: usize,
    out: &mut [f32],
) {
    let mut start = 0;
    while start < cols {
        let real = width.min(cols - start);
        let padded = real.next_multiple_of(LANES);
        let panel = &mut out[start * k..start * k + padded * k];
        pack_panel(b, (p0, k), (col0 + start, real), padded, panel);
        start += width;
    }
}

/// One panel: `out[p * padded + j] = b[p0 + p][col0 + j]`, zeros from `real` on.
pub(super) fn pack_panel(
    b: MatRef<'_>,
    (p0, k): (usize, usize),
    (col0, real): (usize, usize),
    padded: usize,
    out: &mut [f32],
) {
    if b.is_transposed() {
        let mut p = 0;
        while p < k {
            let step = K_STEP.min(k - p);
            for j in 0..real {
                let column = &b.from(p0 + p, col0 + j)[..step];
                for (i, &x) in column.iter().enumerate() {
                    out[(p + i) * padded + j] = x;
                }
            }
            p += step;
        }
        for row in out.chunks_exact_mut(padded) {
            row[real..].fill(0.0);
        }
    } else {
        for (p, row) in out.chunks_exact_mut(padded).take(k).enumerate() {
            row[..real].copy_from_slice(&b.from(p0 + p, col0)[..real]);
            row[real..].fill(0.0);
        }
    }
}

/// Packs `rows` rows of a transposed A as strips of at most `strip` rows: strip, then k, then row.
pub(super) fn pack_a(
    a: MatRef<'_>,
    (row0, rows): (usize, usize),
    (p0, k): (usize, usize),
    strip: usize,
    out: &mut [f32],
) {
    let (row_stride, k_stride) = a.strides();
    let mut start = 0;
    while start < rows {
        let r = strip.min(rows - start);
        let data = a.from(row0 + start, p0);
        for (p, to) in out[start * k..(start + r) * k].chunks_exact_mut(r).enumerate() {
            for (i, x) in to.iter_mut().enumerate() {
                *x = data[i * row_stride + p * k_stride];
            }
        }
        start += r;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_each_element_once_and_zeros_elsewhere() {
        let (k, n, width) = (5, 37, 32);
        let data: Vec<f32> = (1..=k * n).map(|x| x as f32).collect();
        let b = MatRef::dense(&data, k, n).unwrap();
        let mut transposed = vec![0.0; k * n];
        for (i, x) in data.iter().enumerate() {
            transposed[i % n * k + i / n] = *x;
        }
        let bt = MatRef::dense(&transposed, n, k).unwrap().t();
        let elements = Panels::elements(k, n).unwrap();
        let (mut one, mut two) = (vec![-1.0; elements], vec![-1.0; elements]);
        pack_b(b, (0, k), (0, n), width, &mut one);
        pack_b(bt, (0, k), (0, n), width, &mut two);
        assert_eq!(one, two);
        let panels = Panels { data: &one, k, cols: n, width };
        for p in 0..k {
            for j in 0..n {
                let v = panels.at(p, j / LANES * LANES);
                assert_eq!(v.data[j % LANES], data[p * n + j]);
            }
            assert!(panels.at(p, 32).data[5..16].iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn strips_of_a_are_k_major() {
        let data: Vec<f32> = (0..20).map(|x| x as f32).collect();
        let a = MatRef::dense(&data, 4, 5).unwrap().t(); // (5, 4)
        let mut out = vec![0.0; 20];
        pack_a(a, (0, 5), (0, 4), 3, &mut out);
        assert_eq!(out[..3], [0.0, 1.0, 2.0]);
        assert_eq!(out[3..6], [5.0, 6.0, 7.0]);
        assert_eq!(out[12..14], [3.0, 4.0]);
    }
}
