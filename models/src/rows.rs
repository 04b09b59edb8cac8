//! An owned matrix of activations: one token a row.

use kvern::{MatMut, MatRef, Result};
use std::ops::Range;

/// Activations (rows, cols), row after row without gaps.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Rows {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Rows {
        Rows { data: vec![0.0; rows.saturating_mul(cols)], rows, cols }
    }

    /// Rows, usually tokens.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All elements.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All elements, writable.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The elements, without the shape.
    pub fn into_vec(self) -> Vec<f32> {
        self.data
    }

    /// The matrix as an operand.
    ///
    /// **Errors**: none for a matrix of this type; the library's constructor has them.
    pub fn view(&self) -> Result<MatRef<'_>> {
        MatRef::dense(&self.data, self.rows, self.cols)
    }

    /// The matrix as a result.
    ///
    /// **Errors**: as [`Rows::view`].
    pub fn view_mut(&mut self) -> Result<MatMut<'_>> {
        MatMut::dense(&mut self.data, self.rows, self.cols)
    }

    /// Some columns of all rows as an operand: one part of a fused projection.
    ///
    /// **Errors**: `Length` for columns beyond the matrix.
    pub fn columns(&self, columns: Range<usize>) -> Result<MatRef<'_>> {
        let part = self.data.get(columns.start..).unwrap_or_default();
        MatRef::new(part, self.rows, columns.len(), self.cols)
    }

    /// Some columns of all rows as a result.
    ///
    /// **Errors**: as [`Rows::columns`].
    pub fn columns_mut(&mut self, columns: Range<usize>) -> Result<MatMut<'_>> {
        let part = self.data.get_mut(columns.start..).unwrap_or_default();
        MatMut::new(part, self.rows, columns.len(), self.cols)
    }
}
