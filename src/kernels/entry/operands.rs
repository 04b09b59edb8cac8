//! The operands of a product as drivers hand them to the checked entries.

use crate::dtype::Element;
use crate::epilogue::Epilogue;
use crate::kernels::LANES;
use crate::kernels::set::ElementType;
use crate::view::MatMut;

/// An f32 operand with any strides: element `(i, p)` is `data[i * row_stride + p * k_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub k_stride: usize,
}

/// Elements of B. bf16 lies in pairs of k (see [`crate::kernels::generic::gemm::Bf16`]).
#[derive(Clone, Copy)]
pub(crate) enum Elements<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
    /// bf16 one after the other.
    Bf16Rows(&'a [u16]),
}

impl Elements<'_> {
    pub(super) fn element_type(&self) -> ElementType {
        match self {
            Elements::F32(_) => ElementType::F32,
            Elements::F16(_) => ElementType::F16,
            Elements::Bf16(_) => ElementType::Bf16,
            Elements::Bf16Rows(_) => ElementType::Bf16Rows,
        }
    }

    /// Steps of k that are stored together.
    pub(crate) fn step(&self) -> usize {
        match self {
            Elements::F32(_) | Elements::F16(_) | Elements::Bf16Rows(_) => 1,
            Elements::Bf16(_) => 2,
        }
    }

    /// The elements from `start` on.
    pub(crate) fn from(&self, start: usize) -> Self {
        match *self {
            Elements::F32(x) => Elements::F32(&x[start..]),
            Elements::F16(x) => Elements::F16(&x[start..]),
            Elements::Bf16(x) => Elements::Bf16(&x[start..]),
            Elements::Bf16Rows(x) => Elements::Bf16Rows(&x[start..]),
        }
    }

    /// The elements of a range.
    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> Self {
        match *self {
            Elements::F32(x) => Elements::F32(&x[range]),
            Elements::F16(x) => Elements::F16(&x[range]),
            Elements::Bf16(x) => Elements::Bf16(&x[range]),
            Elements::Bf16Rows(x) => Elements::Bf16Rows(&x[range]),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Elements::F32(x) => x.len(),
            Elements::F16(x) | Elements::Bf16(x) | Elements::Bf16Rows(x) => x.len(),
        }
    }

    pub(super) fn element_bytes(&self) -> usize {
        match self {
            Elements::F32(_) => 4,
            Elements::F16(_) | Elements::Bf16(_) | Elements::Bf16Rows(_) => 2,
        }
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        match self {
            Elements::F32(x) => x.as_ptr().cast(),
            Elements::F16(x) | Elements::Bf16(x) | Elements::Bf16Rows(x) => x.as_ptr().cast(),
        }
    }
}

/// Columns of B in vectors of 16 by `step` k: vector `(g, v)` starts at `g * k_stride + v * vec_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub data: Elements<'a>,
    pub k_stride: usize,
    pub vec_stride: usize,
}

/// Elements of A: f32, or bf16 in pairs of k for the bf16 dot instructions. Strides count elements, or pairs.
#[derive(Clone, Copy)]
pub(crate) enum AData<'a> {
    F32(&'a [f32]),
    Bf16(&'a [[u16; 2]]),
}

impl AData<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            AData::F32(x) => x.len(),
            AData::Bf16(x) => x.len(),
        }
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        match self {
            AData::F32(x) => x.as_ptr(),
            AData::Bf16(x) => x.as_ptr().cast(),
        }
    }
}

/// A in micropanels: element `(i, p)` of micropanel `s` is
/// `data[s * stride + i * row_stride + p * k_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct APanels<'a> {
    pub data: AData<'a>,
    /// Rows of a micropanel: 1..=mr.
    pub rows: usize,
    pub row_stride: usize,
    pub k_stride: usize,
    pub stride: usize,
}

/// B in micropanels of `vectors` vectors of 16 columns, no more than the tile has; the last one may have
/// fewer. Vector `(g, v)` of micropanel `s` starts at `s * stride + g * k_stride + v * vec_stride`.
#[derive(Clone, Copy)]
pub(crate) struct BPanels<'a> {
    pub data: Elements<'a>,
    pub vectors: usize,
    pub k_stride: usize,
    pub vec_stride: usize,
    pub stride: usize,
}

impl<'a> BPanels<'a> {
    /// Columns that lie evenly, in micropanels of at most `vectors` vectors for `cols` columns.
    pub(super) fn even(panel: Panel<'a>, cols: usize, vectors: usize) -> BPanels<'a> {
        let Panel { data, k_stride, vec_stride } = panel;
        let vectors = cols.div_ceil(LANES).clamp(1, vectors);
        BPanels { data, vectors, k_stride, vec_stride, stride: vectors * vec_stride }
    }
}

/// C: where results go.
pub(crate) struct COut<'a, T> {
    pub out: MatMut<'a, T>,
    /// The accumulators between parts of k; `None` keeps them in `out`, which then holds f32.
    pub accumulators: Option<MatMut<'a>>,
}

impl<T: Element> COut<'_, T> {
    /// Rows `row0..row0 + rows` of columns `col0..col0 + cols`.
    pub(crate) fn tile(&mut self, row0: usize, col0: usize, rows: usize, cols: usize) -> COut<'_, T> {
        COut {
            out: self.out.tile(row0, col0, rows, cols),
            accumulators: self.accumulators.as_mut().map(|c| c.tile(row0, col0, rows, cols)),
        }
    }
}

/// What one call computes beside its operands.
#[derive(Clone, Copy)]
pub(crate) struct TileCall<'a> {
    /// Steps of k, or pairs of them where A is bf16.
    pub k: usize,
    /// Whether the accumulators start from what C holds, or from +0.0.
    pub accumulate: bool,
    /// Applied to the accumulators before they are stored.
    pub epilogue: Option<FusedEpilogue<'a>>,
}

/// The epilogue of a tile, and where the tile lies in the operands of the epilogue.
#[derive(Clone, Copy)]
pub(crate) struct FusedEpilogue<'a> {
    pub epilogue: &'a Epilogue<'a>,
    /// Factors, `(rows, cols)`, and the elements from row to row.
    pub gate: Option<(&'a [f32], usize)>,
    /// Where the output of the call starts in the bias and in the gate.
    pub row: usize,
    pub col: usize,
    pub gate_col: usize,
}
