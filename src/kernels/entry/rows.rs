//! The entries of the row kernels.

use crate::epilogue::Activation;
use crate::kernels::generic::attention::{AdjustRow, ChunkRow, HideRow, MergeRow};
use crate::kernels::generic::convolve::{ConvolveRow, MAX_TAPS};
use crate::kernels::generic::elementwise::ElementRow;
use crate::kernels::generic::norm::NormRow;
use crate::kernels::generic::rope::RopeHead;
use crate::kernels::{KernelSet, LANES};
use std::ops::Range;

/// An operation on two rows.
#[derive(Clone, Copy)]
pub(crate) enum Binary {
    /// `act(x) * z`.
    Gate(Activation),
    /// `x + z`.
    Add,
    /// `x + by * z`.
    AddScaled(f32),
    /// The clamped gate of gpt-oss.
    SwigluOai { alpha: f32, limit: f32 },
}

/// What a row is divided by.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum NormKind {
    /// The root of the mean square.
    Rms,
    /// The root of the variance, the mean taken off before.
    Layer,
    /// The root of the sum of squares.
    L2,
    /// The length, or eps where that is more.
    Unit,
}

/// A norm of rows of one length.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub kind: NormKind,
    pub eps: f32,
    pub gain: Option<&'a [f32]>,
    /// Of layer norms.
    pub bias: Option<&'a [f32]>,
}

/// Which elements form a RoPE pair.
#[derive(Clone, Copy)]
pub(crate) enum Pairs {
    Halves,
    Interleaved,
}

/// What enters a row of scores besides `q . k`: see [`crate::kernels::generic::attention::AdjustRow`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Adjust<'a> {
    /// 0 for none.
    pub cap: f32,
    /// 0 for none.
    pub slope: f32,
    /// Key 0 of the row minus the query, in tokens.
    pub offset: f32,
    pub mask: Option<&'a [f32]>,
    pub mask_factor: f32,
}

/// The most rows of scores of one call of the softmax of a chunk.
pub(crate) const MAX_SCORE_ROWS: usize = 16;

/// `x = f(x)` by a kernel of a table, which is given out only where the CPU was checked.
fn in_place(kernel: unsafe fn(&ElementRow), by: f32, x: &mut [f32]) {
    let p = x.as_mut_ptr();
    // SAFETY: CPU checked; all three are the one row.
    unsafe { kernel(&ElementRow { x: p, z: p, y: p, n: x.len(), by: [by, 0.0] }) }
}

impl KernelSet {
    /// `x = act(x)`.
    pub(crate) fn activate(&self, activation: Activation, x: &mut [f32]) {
        in_place(self.activate[activation as usize], 0.0, x);
    }

    /// `x = x * by`.
    pub(crate) fn scale_in_place(&self, by: f32, x: &mut [f32]) {
        in_place(self.scale, by, x);
    }

    /// `x = cap * tanh(x / cap)`.
    pub(crate) fn softcap(&self, cap: f32, x: &mut [f32]) {
        in_place(self.softcap, cap, x);
    }

    /// `x = f(x, z)`.
    pub(crate) fn binary(&self, f: Binary, x: &mut [f32], z: &[f32]) {
        assert!(x.len() == z.len());
        let p = x.as_mut_ptr();
        let (kernel, by) = match f {
            Binary::Gate(activation) => (self.gate[activation as usize], [0.0; 2]),
            Binary::Add => (self.add, [0.0; 2]),
            Binary::AddScaled(by) => (self.add_scaled, [by, 0.0]),
            Binary::SwigluOai { alpha, limit } => (self.swiglu_oai, [alpha, limit]),
        };
        let row = ElementRow { x: p, z: z.as_ptr(), y: p, n: x.len(), by };
        // SAFETY: CPU checked; equal lengths.
        unsafe { kernel(&row) }
    }

    /// `y = x * by`.
    pub(crate) fn scale(&self, x: &[f32], by: f32, y: &mut [f32]) {
        assert!(x.len() == y.len());
        let row = ElementRow { x: x.as_ptr(), z: x.as_ptr(), y: y.as_mut_ptr(), n: x.len(), by: [by, 0.0] };
        // SAFETY: CPU checked; equal lengths.
        unsafe { (self.scale)(&row) }
    }

    /// `y = act(x) * z`, `z` being what `y` holds where it is not given.
    pub(crate) fn gate(&self, activation: Activation, x: &[f32], z: Option<&[f32]>, y: &mut [f32]) {
        let n = x.len();
        assert!(y.len() == n && z.is_none_or(|z| z.len() == n));
        let p = y.as_mut_ptr();
        let z = z.map_or(p.cast_const(), <[f32]>::as_ptr);
        let row = ElementRow { x: x.as_ptr(), z, y: p, n, by: [0.0; 2] };
        // SAFETY: CPU checked; equal lengths; the kernel reads each vector before it writes it.
        unsafe { (self.gate[activation as usize])(&row) }
    }

    /// A norm of one row, `x` being what `y` holds where it is not given.
    pub(crate) fn norm(&self, norm: &Norm<'_>, x: Option<&[f32]>, y: &mut [f32]) {
        let (n, start) = (y.len(), std::ptr::null());
        let all = [x, norm.gain, norm.bias].iter().all(|part| part.is_none_or(|part| part.len() == n));
        assert!(all && (norm.bias.is_none() || norm.kind == NormKind::Layer));
        let unit = norm.kind == NormKind::Unit;
        let p = y.as_mut_ptr();
        let row = NormRow {
            x: x.map_or(p.cast_const(), <[f32]>::as_ptr),
            y: p,
            gain: norm.gain.map_or(start, <[f32]>::as_ptr),
            bias: norm.bias.map_or(start, <[f32]>::as_ptr),
            n,
            divisor: if norm.kind == NormKind::Rms { n as f32 } else { 1.0 },
            eps: if unit { 0.0 } else { norm.eps },
            floor: if unit { norm.eps } else { 0.0 },
        };
        let kernel = if norm.kind == NormKind::Layer { self.layer_norm } else { self.rms_norm };
        // SAFETY: CPU checked; equal lengths; the kernel reads each vector before it writes it.
        unsafe { kernel(&row) }
    }

    /// A causal convolution of one token: rows `x`, the oldest first, times the rows of `weights`, which are
    /// `stride` apart, and the bias.
    pub(crate) fn convolve<'a>(
        &self,
        x: impl ExactSizeIterator<Item = &'a [f32]>,
        (weights, stride): (&[f32], usize),
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let (n, taps) = (y.len(), x.len());
        assert!(taps <= MAX_TAPS && bias.is_none_or(|bias| bias.len() == n));
        assert!(taps == 0 || weights.len() >= (taps - 1) * stride + n);
        let mut rows = [std::ptr::null(); MAX_TAPS];
        for (row, x) in rows.iter_mut().zip(x) {
            assert!(x.len() == n);
            *row = x.as_ptr();
        }
        let row = ConvolveRow {
            x: rows,
            taps,
            weights: weights.as_ptr(),
            weights_stride: stride,
            bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            y: y.as_mut_ptr(),
            n,
        };
        // SAFETY: CPU checked; every row that the kernel reads was compared with n.
        unsafe { (self.convolve)(&row) }
    }

    /// Softmax of one row, in place.
    pub(crate) fn softmax(&self, x: &mut [f32]) {
        // SAFETY: CPU checked; the row's own length.
        unsafe { (self.softmax)(x.as_mut_ptr(), x.len()) }
    }

    /// The maximum of a row, NaN left out; -inf for an empty one.
    pub(crate) fn max(&self, x: &[f32]) -> f32 {
        // SAFETY: CPU checked; the row's own length.
        unsafe { (self.max)(x.as_ptr(), x.len()) }
    }

    /// `x = x / by`; zeros stay zeros when `by` is zero.
    pub(crate) fn divide(&self, x: &mut [f32], by: f32) {
        // SAFETY: CPU checked; the row's own length.
        unsafe { (self.divide)(x.as_mut_ptr(), x.len(), by) }
    }

    /// Rotates one head by the angles whose cosines and sines are given.
    pub(crate) fn rope(&self, pairs: Pairs, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(cos.len() == sin.len() && x.len() >= 2 * cos.len());
        let head = RopeHead { x: x.as_mut_ptr(), cos: cos.as_ptr(), sin: sin.as_ptr(), pairs: cos.len() };
        let kernel = match pairs {
            Pairs::Halves => self.rope_halves,
            Pairs::Interleaved => self.rope_interleaved,
        };
        // SAFETY: CPU checked; the head holds both elements of each pair.
        unsafe { kernel(&head) }
    }

    /// Softcap, ALiBi and the additive mask of one row of scores.
    pub(crate) fn adjust(&self, scores: &mut [f32], by: &Adjust<'_>) {
        assert!(by.mask.is_none_or(|mask| mask.len() == scores.len()));
        let row = AdjustRow {
            s: scores.as_mut_ptr(),
            n: scores.len(),
            cap: by.cap,
            slope: by.slope,
            offset: by.offset,
            mask: by.mask.map_or(std::ptr::null(), <[f32]>::as_ptr),
            mask_factor: by.mask_factor,
        };
        // SAFETY: CPU checked; scores and mask have one length.
        unsafe { (self.adjust)(&row) }
    }

    /// -inf where `seen` is false.
    pub(crate) fn hide(&self, scores: &mut [f32], seen: &[bool]) {
        assert!(scores.len() == seen.len());
        let row = HideRow { s: scores.as_mut_ptr(), seen: seen.as_ptr(), n: seen.len() };
        // SAFETY: CPU checked; equal lengths.
        unsafe { (self.hide)(&row) }
    }

    /// Scores (exp2 domain) of some rows, `stride` apart, of each the visible keys of a chunk, into
    /// probabilities, with `(m, l)` of each row that sees any.
    pub(crate) fn chunk_softmax<'a>(
        &self,
        scores: &mut [f32],
        stride: usize,
        keys: impl Iterator<Item = &'a Range<usize>>,
        parts: &mut [(f32, f32)],
    ) {
        let (len, p) = (scores.len(), scores.as_mut_ptr());
        let mut rows =
            [const { ChunkRow { s: std::ptr::null_mut(), lo: 0, hi: 0, m: 0.0, l: 0.0 } }; MAX_SCORE_ROWS];
        let mut n = 0;
        for (keys, row) in keys.zip(&mut rows) {
            assert!(keys.is_empty() || keys.end.next_multiple_of(LANES) <= stride && (n + 1) * stride <= len);
            (row.s, row.lo, row.hi) = (p.wrapping_add(n * stride), keys.start, keys.end);
            n += 1;
        }
        // SAFETY: CPU checked; the vectors that cover lo..hi lie inside their row, and rows inside the
        // scores.
        unsafe { (self.chunk_softmax)(rows.as_mut_ptr(), n) }
        for (part, row) in parts.iter_mut().zip(&rows[..n]).filter(|(_, row)| row.lo < row.hi) {
            *part = (row.m, row.l);
        }
    }

    /// Merges a chunk's `(m, l, o)` into a running one, and returns the new `(m, l)`.
    pub(crate) fn chunk_merge(
        &self,
        (m, l): (f32, f32),
        o: &mut [f32],
        (chunk_m, chunk_l): (f32, f32),
        chunk: &[f32],
    ) -> (f32, f32) {
        assert!(o.len() == chunk.len());
        let row = MergeRow { o: o.as_mut_ptr(), chunk: chunk.as_ptr(), dim: o.len(), m, l, chunk_m, chunk_l };
        // SAFETY: CPU checked; equal lengths.
        unsafe { (self.chunk_merge)(&row) }
    }
}
