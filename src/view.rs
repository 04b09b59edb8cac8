//! Matrix views: the only place where shapes meet memory.

use crate::error::{Error, Result, at_least, product, text};
use bytemuck::Pod;
use std::marker::PhantomData;

/// Elements that a row-major matrix of this shape touches: `(rows - 1) * row_stride + cols`.
fn extent(rows: usize, cols: usize, row_stride: usize) -> Result<usize> {
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    let body = product("rows * row_stride", &[rows - 1, row_stride])?;
    body.checked_add(cols).ok_or(Error::Overflow { what: "rows * row_stride" })
}

/// Checks shape and stride of a row-major matrix against the slice that holds it, and gives the stride to
/// use.
///
/// A matrix without a second row, or without elements, may have been given any stride. Its columns are as
/// good, and no row then starts beyond the address space.
fn validate(what: &'static str, len: usize, rows: usize, cols: usize, row_stride: usize) -> Result<usize> {
    if rows > 1 {
        at_least("row_stride", row_stride, cols)?;
    }
    at_least(what, len, extent(rows, cols, row_stride)?)?;
    Ok(if rows > 1 && cols > 0 { row_stride } else { cols })
}

/// A read-only matrix (of f32 where no type is named), stored row-major, seen plain or transposed.
///
/// Element `(i, j)` is `data[i * row_stride + j]`, or `data[j * row_stride + i]` of a transposed view.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a, T = f32> {
    data: &'a [T], // (stored rows - 1) * row_stride + stored cols
    rows: usize,
    cols: usize,
    row_stride: usize,
    transposed: bool,
}

impl<'a, T: Copy> MatRef<'a, T> {
    /// A view of `rows * cols` elements; row `i` starts at element `i * row_stride`.
    ///
    /// **Errors**: `row_stride < cols` (with more than one row), or `data` shorter than
    /// `(rows - 1) * row_stride + cols`.
    pub fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Result<MatRef<'a, T>> {
        let row_stride = validate("data.len", data.len(), rows, cols, row_stride)?;
        Ok(MatRef { data, rows, cols, row_stride, transposed: false })
    }

    /// A view whose rows follow each other without a gap.
    ///
    /// **Errors**: as [`MatRef::new`].
    pub fn dense(data: &'a [T], rows: usize, cols: usize) -> Result<MatRef<'a, T>> {
        MatRef::new(data, rows, cols, cols)
    }

    /// A shape without memory: a view that has no row and no element, for what looks at shapes alone.
    pub(crate) fn of_shape(rows: usize, cols: usize) -> MatRef<'a, T> {
        MatRef { data: &[], rows, cols, row_stride: cols, transposed: false }
    }

    /// The same memory seen as the transposed matrix. Copies nothing.
    pub fn t(self) -> MatRef<'a, T> {
        MatRef { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// Rows of the view (after transposition).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the view (after transposition).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether the view is transposed.
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// Checks that the view is plain: `allowed` says why the argument `what` has to be.
    pub(crate) fn require_plain(&self, what: &'static str, allowed: &'static str) -> Result<()> {
        if self.transposed {
            return Err(Error::Option { what, got: text("a transposed view"), allowed });
        }
        Ok(())
    }

    /// Row `i` of a plain view, `None` for a transposed view or a row that is not there.
    pub fn row(&self, i: usize) -> Option<&'a [T]> {
        if self.transposed || i >= self.rows {
            return None;
        }
        let start = i * self.row_stride;
        self.data.get(start..start + self.cols)
    }

    /// `(row stride, column stride)` in elements.
    pub(crate) fn strides(&self) -> (usize, usize) {
        if self.transposed { (1, self.row_stride) } else { (self.row_stride, 1) }
    }

    /// The elements from `(i, j)` on; an empty slice beyond the matrix.
    pub(crate) fn from(&self, i: usize, j: usize) -> &'a [T] {
        let (rs, cs) = self.strides();
        self.data.get(i * rs + j * cs..).unwrap_or_default()
    }
}

/// A writable row-major matrix. Tiles of it may be written by different threads at once.
#[derive(Debug)]
pub struct MatMut<'a, T = f32> {
    ptr: *mut T, // (rows, cols), row i at ptr + i * row_stride
    rows: usize,
    cols: usize,
    row_stride: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a `MatMut` is an exclusive borrow of its elements, as `&mut [T]` is.
unsafe impl<T: Send> Send for MatMut<'_, T> {}

impl<'a, T: Pod> MatMut<'a, T> {
    /// A view of nothing.
    #[cfg(feature = "capi")]
    pub(crate) fn empty() -> MatMut<'a, T> {
        let ptr = std::ptr::NonNull::dangling().as_ptr();
        MatMut { ptr, rows: 0, cols: 0, row_stride: 0, borrow: PhantomData }
    }

    /// A view of `rows * cols` elements; row `i` starts at element `i * row_stride`.
    ///
    /// **Errors**: as [`MatRef::new`].
    pub fn new(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Result<MatMut<'a, T>> {
        let row_stride = validate("data.len", data.len(), rows, cols, row_stride)?;
        Ok(MatMut { ptr: data.as_mut_ptr(), rows, cols, row_stride, borrow: PhantomData })
    }

    /// A view whose rows follow each other without a gap.
    ///
    /// **Errors**: as [`MatRef::new`].
    pub fn dense(data: &'a mut [T], rows: usize, cols: usize) -> Result<MatMut<'a, T>> {
        MatMut::new(data, rows, cols, cols)
    }

    /// The matrix at `ptr`, made without a reference to it: its elements may be uninitialised and what lies
    /// between its rows may belong to others, as it is with the matrices of BLAS.
    ///
    /// # Safety
    /// - rows `i < rows` are `cols` elements from `ptr + i * row_stride`, aligned, inside one allocation,
    ///   `row_stride >= cols` when `rows > 1`; nothing else reaches them for `'a`.
    #[cfg(feature = "cblas")]
    pub(crate) unsafe fn from_raw(ptr: *mut T, rows: usize, cols: usize, row_stride: usize) -> MatMut<'a, T> {
        MatMut { ptr, rows, cols, row_stride, borrow: PhantomData }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the starts of two rows, in elements.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Row `i`; an empty slice for a row that is not there.
    pub fn row(&mut self, i: usize) -> &mut [T] {
        if i >= self.rows || self.cols == 0 {
            return &mut [];
        }
        // SAFETY: row i < rows lies inside the extent that `new` validated, and `&mut self` makes the
        // borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(i * self.row_stride), self.cols) }
    }

    /// The same matrix for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { ptr: self.ptr, borrow: PhantomData, ..*self }
    }

    /// Rows `row0..row0 + rows` of columns `col0..col0 + cols`, clipped to the matrix.
    pub fn tile(&mut self, row0: usize, col0: usize, rows: usize, cols: usize) -> MatMut<'_, T> {
        // SAFETY: `&mut self` is borrowed for as long as the tile lives, so no other tile exists.
        unsafe { self.tile_unchecked(row0, col0, rows, cols) }
    }

    /// [`MatMut::tile`] without the borrow.
    ///
    /// # Safety
    /// - the elements of the tile must not be reached through any other view while the tile lives.
    pub(crate) unsafe fn tile_unchecked<'b>(
        &self,
        row0: usize,
        col0: usize,
        rows: usize,
        cols: usize,
    ) -> MatMut<'b, T> {
        let (row0, col0) = (row0.min(self.rows), col0.min(self.cols));
        let (rows, cols) = (rows.min(self.rows - row0), cols.min(self.cols - col0));
        let offset = if rows == 0 || cols == 0 { 0 } else { row0 * self.row_stride + col0 };
        // SAFETY: a non-empty tile starts inside the extent; an empty one keeps the start.
        let ptr = unsafe { self.ptr.add(offset) };
        MatMut { ptr, rows, cols, row_stride: self.row_stride, borrow: PhantomData }
    }

    /// The first element, for kernels. Row `i` is valid for `cols` elements from `ptr + i * row_stride`.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.ptr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_with_both_numbers() {
        let d = [0.0; 10];
        assert!(MatRef::new(&d, 2, 4, 6).is_ok());
        let e = MatRef::new(&d, 2, 5, 6).unwrap_err();
        assert_eq!(e.to_string(), "data.len = 10 must be at least 11");
        let e = MatRef::new(&d, 2, 5, 4).unwrap_err();
        assert_eq!(e.to_string(), "row_stride = 4 must be at least 5");
        assert!(MatRef::new(&d, usize::MAX, 5, usize::MAX).is_err());
        assert!(MatRef::<f32>::new(&[], 0, 5, 5).is_ok());
        assert!(MatMut::new(&mut [0.0; 3], 2, 2, 2).is_err());
    }

    #[test]
    fn transposed_views_copy_nothing() {
        let d = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let m = MatRef::dense(&d, 2, 3).unwrap();
        assert_eq!((m.t().rows(), m.t().cols()), (3, 2));
        assert_eq!(m.t().from(2, 1)[0], m.from(1, 2)[0]);
        assert_eq!(m.row(1), Some(&d[3..]));
        assert_eq!(m.row(2), None);
        assert!(m.t().is_transposed() && m.t().row(0).is_none());
    }

    #[test]
    fn tiles_are_clipped() {
        let mut d: Vec<f32> = (0..12).map(|x| x as f32).collect();
        let mut m = MatMut::dense(&mut d, 3, 4).unwrap();
        let mut t = m.tile(1, 2, 5, 5);
        assert_eq!((t.rows(), t.cols(), t.row_stride()), (2, 2, 4));
        assert_eq!(t.row(0), [6.0, 7.0]);
        assert_eq!(t.row(1), [10.0, 11.0]);
        assert!(t.row(2).is_empty());
        assert_eq!(m.tile(9, 9, 1, 1).rows(), 0);
    }
}
