//! Causal attention of whole sequences, with the probabilities kept for the backward pass:
//! (heads, tokens, tokens) for each sequence.

use anyhow::Result;
use kvern::ops::{self, RopePairs, RopeTable};
use kvern::{Epilogue, MatMut, MatRef};

use super::products::Products;
use super::rows::dot;

/// The sizes of the attention of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub tokens: usize,
    pub heads: usize,
    pub dim: usize,
}

impl Heads {
    pub fn size(&self) -> usize {
        self.dim / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.size() as f32).sqrt()
    }

    /// Values of all probabilities.
    pub fn probabilities(&self) -> usize {
        self.heads * self.tokens * self.tokens
    }

    /// Queries (0), keys (1) or values (2) of one head: a strided view.
    fn part<'a>(&self, qkv: &'a [f32], part: usize, head: usize) -> Result<MatRef<'a>> {
        let from = part * self.dim + head * self.size();
        Ok(MatRef::new(&qkv[from..], self.tokens, self.size(), 3 * self.dim)?)
    }

    fn part_mut<'a>(&self, qkv: &'a mut [f32], part: usize, head: usize) -> Result<MatMut<'a>> {
        let from = part * self.dim + head * self.size();
        Ok(MatMut::new(&mut qkv[from..], self.tokens, self.size(), 3 * self.dim)?)
    }

    /// The output, or its gradient, of one head.
    fn output<'a>(&self, out: &'a [f32], head: usize) -> Result<MatRef<'a>> {
        Ok(MatRef::new(&out[head * self.size()..], self.tokens, self.size(), self.dim)?)
    }
}

/// `out = softmax(scale Q K^T) V` of one sequence, masked to the past; `qkv` is rotated already:
/// (tokens, 3 dim); `out`: (tokens, dim).
pub(super) fn forward(
    products: &mut Products<'_>,
    heads: Heads,
    qkv: &[f32],
    probabilities: &mut [f32],
    out: &mut [f32],
) -> Result<()> {
    let t = heads.tokens;
    for (head, p) in probabilities.chunks_exact_mut(t * t).enumerate() {
        let [q, k, v] = [0, 1, 2].map(|part| heads.part(qkv, part, head));
        let scaled = Epilogue::default().scaled(heads.scale(), 0.0);
        products.multiply(q?, k?.t(), MatMut::dense(p, t, t)?, &scaled)?;
        for (i, row) in p.chunks_exact_mut(t).enumerate() {
            row[i + 1..].fill(f32::NEG_INFINITY);
        }
        ops::softmax(products.ctx, MatMut::dense(p, t, t)?);
        let o = MatMut::new(&mut out[head * heads.size()..], t, heads.size(), heads.dim)?;
        products.multiply(MatRef::dense(p, t, t)?, v?, o, &Epilogue::default())?;
    }
    Ok(())
}

/// The gradient of `qkv` (before `d_qkv` is turned back by [`unrotate`]) from that of `out`; `scratch`:
/// (tokens, tokens).
pub(super) fn backward(
    products: &mut Products<'_>,
    heads: Heads,
    qkv: &[f32],
    probabilities: &[f32],
    d_out: &[f32],
    d_qkv: &mut [f32],
    scratch: &mut [f32],
) -> Result<()> {
    let t = heads.tokens;
    let scaled = Epilogue::default().scaled(heads.scale(), 0.0);
    for (head, p) in probabilities.chunks_exact(t * t).enumerate() {
        let [q, k, v] = [0, 1, 2].map(|part| heads.part(qkv, part, head));
        let d_o = heads.output(d_out, head)?;
        let p_view = MatRef::dense(p, t, t)?;
        products.multiply(p_view.t(), d_o, heads.part_mut(d_qkv, 2, head)?, &Epilogue::default())?;
        products.multiply(d_o, v?.t(), MatMut::dense(scratch, t, t)?, &Epilogue::default())?;
        for (d, p) in scratch.chunks_exact_mut(t).zip(p.chunks_exact(t)) {
            let mean = dot(d, p);
            for (d, &p) in d.iter_mut().zip(p) {
                *d = p * (*d - mean);
            }
        }
        let d_s = MatRef::dense(scratch, t, t)?;
        products.multiply(d_s, k?, heads.part_mut(d_qkv, 0, head)?, &scaled)?;
        products.multiply(d_s.t(), q?, heads.part_mut(d_qkv, 1, head)?, &scaled)?;
    }
    Ok(())
}

/// Turns queries and keys of one sequence by their positions.
pub(super) fn rotate(
    products: &Products<'_>,
    table: &RopeTable,
    heads: Heads,
    qkv: &mut [f32],
) -> Result<()> {
    let rotated = MatMut::new(qkv, heads.tokens, 2 * heads.dim, 3 * heads.dim)?;
    Ok(ops::rope(products.ctx, table, RopePairs::Halves, heads.size(), 0, rotated)?)
}

/// The inverse of [`rotate`], which is its gradient. With the halves of a head swapped, a turn by an angle is
/// a turn by its negative.
pub(super) fn unrotate(
    products: &Products<'_>,
    table: &RopeTable,
    heads: Heads,
    d_qkv: &mut [f32],
) -> Result<()> {
    swap_halves(heads, d_qkv);
    rotate(products, table, heads, d_qkv)?;
    swap_halves(heads, d_qkv);
    Ok(())
}

fn swap_halves(heads: Heads, qkv: &mut [f32]) {
    let size = heads.size();
    for row in qkv.chunks_exact_mut(3 * heads.dim) {
        for head in row[..2 * heads.dim].chunks_exact_mut(size) {
            let (low, high) = head.split_at_mut(size / 2);
            low.swap_with_slice(high);
        }
    }
}
