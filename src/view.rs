//! Matrix views: the only place where shapes meet memory, and the only place where an output is split
//! between threads.

use crate::buffer::Arena;
use crate::error::{Error, Result, at_least, product};
use crate::parallel::Executor;
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

/// Checks shape and stride of a row-major matrix against the slice that holds it, and gives the stride to use.
///
/// A matrix without a second row, or without elements, may have been given any stride. Its columns are as good, and no
/// row then starts beyond the address space.
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

    /// A shape without memory: a view that has no row and no element, for queries that look at shapes alone.
    #[cfg(feature = "capi")]
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
    unsafe fn tile_unchecked<'b>(&self, row0: usize, col0: usize, rows: usize, cols: usize) -> MatMut<'b, T> {
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

/// How an output is cut into work items: column blocks outer, row blocks inner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Rows of a tile (the last one may have fewer).
    pub tile_rows: usize,
    /// Columns of a tile (the last one may have fewer).
    pub tile_cols: usize,
}

/// One work item: where its tile starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub row: usize,
    pub col: usize,
}

/// Runs `body` once for each tile of `out`, on the executor's lanes.
///
/// `scratch` is cut into one part of `lane_bytes` for each lane; the parts are reused from item to item.
/// The tiles depend on shapes alone, so the work (and the result) is the same for any number of lanes.
pub(crate) fn for_each_tile<T: Pod + Send>(
    executor: &Executor,
    mut out: MatMut<'_, T>,
    grid: Grid,
    scratch: &mut [u8],
    lane_bytes: usize,
    body: &(dyn Fn(Arena<'_>, Origin, MatMut<'_, T>) + Sync),
) {
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    if out.rows <= grid.tile_rows && out.cols <= grid.tile_cols {
        // One item: no divisions, no cursor. They are a third of the cost of the smallest products.
        return body(Arena::over(&mut scratch[..lane_bytes]), Origin { row: 0, col: 0 }, out);
    }
    let row_blocks = out.rows.div_ceil(grid.tile_rows);
    let items = row_blocks * out.cols.div_ceil(grid.tile_cols);
    let lanes = executor.lanes().min(items);
    assert!(scratch.len() >= lanes * lane_bytes, "a workspace query forgot the lanes");
    let shared = Shared { out: out.reborrow(), scratch: scratch.as_mut_ptr() };
    let shared = &shared; // closures must capture the Sync wrapper, not its pointers
    executor.for_each(items, &|lane, item| {
        let origin =
            Origin { row: item % row_blocks * grid.tile_rows, col: item / row_blocks * grid.tile_cols };
        // SAFETY: the executor hands out each item once, and tiles of distinct items are disjoint.
        let tile =
            unsafe { shared.out.tile_unchecked(origin.row, origin.col, grid.tile_rows, grid.tile_cols) };
        // SAFETY: lane < lanes, no two bodies run on one lane at a time, and the parts of distinct lanes
        // are disjoint parts of `scratch`, which is borrowed for the whole call.
        let part =
            unsafe { std::slice::from_raw_parts_mut(shared.scratch.add(lane * lane_bytes), lane_bytes) };
        body(Arena::over(part), origin, tile);
    });
}

/// [`for_each_tile`] for an output and a smaller one beside it, `also`, of the same rows (or empty), whose tile
/// for each column block has `also_cols` columns. The last row blocks come first: in causal attention they are
/// the longest items, and a long item that starts last leaves the other lanes idle.
#[allow(clippy::too_many_arguments, clippy::type_complexity)] // for_each_tile's, and a second output
pub(crate) fn for_each_tile_pair<T: Pod + Send>(
    executor: &Executor,
    mut out: MatMut<'_, T>,
    mut also: MatMut<'_, T>,
    grid: Grid,
    also_cols: usize,
    scratch: &mut [u8],
    lane_bytes: usize,
    body: &(dyn Fn(Arena<'_>, Origin, MatMut<'_, T>, MatMut<'_, T>) + Sync),
) {
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    let row_blocks = out.rows.div_ceil(grid.tile_rows);
    let col_blocks = out.cols.div_ceil(grid.tile_cols);
    let items = row_blocks * col_blocks;
    let lanes = executor.lanes().min(items);
    assert!(scratch.len() >= lanes * lane_bytes, "a workspace query forgot the lanes");
    assert!(also.rows == 0 || also_cols > 0 && also.cols.div_ceil(also_cols) == col_blocks);
    let shared = Shared { out: out.reborrow(), scratch: scratch.as_mut_ptr() };
    let beside = Shared { out: also.reborrow(), scratch: std::ptr::null_mut() };
    let (shared, beside) = (&shared, &beside); // closures must capture the Sync wrappers
    executor.for_each(items, &|lane, item| {
        let (row_block, col_block) = (row_blocks - 1 - item / col_blocks, item % col_blocks);
        let origin = Origin { row: row_block * grid.tile_rows, col: col_block * grid.tile_cols };
        // SAFETY: the executor hands out each item once, and tiles of distinct items are disjoint.
        let tile =
            unsafe { shared.out.tile_unchecked(origin.row, origin.col, grid.tile_rows, grid.tile_cols) };
        let col = col_block * also_cols;
        // SAFETY: as above, in the other output.
        let second = unsafe { beside.out.tile_unchecked(origin.row, col, grid.tile_rows, also_cols) };
        // SAFETY: lane < lanes, no two bodies run on one lane at a time, and the parts of distinct lanes
        // are disjoint parts of `scratch`, which is borrowed for the whole call.
        let part =
            unsafe { std::slice::from_raw_parts_mut(shared.scratch.add(lane * lane_bytes), lane_bytes) };
        body(Arena::over(part), origin, tile, second);
    });
}

/// [`for_each_tile`] over the tiles of several outputs at once, each with its grid: `body` is told which one.
#[allow(clippy::type_complexity)] // the body of `for_each_tile`, and which output
pub(crate) fn for_each_tile_of<T: Pod + Send, const N: usize>(
    executor: &Executor,
    mut outs: [Option<(MatMut<'_, T>, Grid)>; N],
    scratch: &mut [u8],
    lane_bytes: usize,
    body: &(dyn Fn(Arena<'_>, usize, Origin, MatMut<'_, T>) + Sync),
) {
    let mut starts = [0; N]; // first item of each output
    let mut items = 0;
    for (start, out) in starts.iter_mut().zip(&outs) {
        *start = items;
        if let Some((out, grid)) = out
            && out.rows > 0
            && out.cols > 0
        {
            items += out.rows.div_ceil(grid.tile_rows) * out.cols.div_ceil(grid.tile_cols);
        }
    }
    let lanes = executor.lanes().min(items);
    assert!(scratch.len() >= lanes * lane_bytes, "a workspace query forgot the lanes");
    let shared = outs.each_mut().map(|out| {
        out.as_mut().map(|(out, grid)| (Shared { out: out.reborrow(), scratch: scratch.as_mut_ptr() }, *grid))
    });
    let shared = &shared;
    executor.for_each(items, &|lane, item| {
        // The last output that starts at or before the item; empty ones start where the next one does.
        let which = (0..N).rev().find(|&i| starts[i] <= item && shared[i].is_some()).unwrap_or(0);
        let Some((shared, grid)) = &shared[which] else { return };
        let (item, row_blocks) = (item - starts[which], shared.out.rows.div_ceil(grid.tile_rows));
        let origin =
            Origin { row: item % row_blocks * grid.tile_rows, col: item / row_blocks * grid.tile_cols };
        // SAFETY: the executor hands out each item once, tiles of distinct items are disjoint, and so are
        // outputs, which are borrowed exclusively.
        let tile =
            unsafe { shared.out.tile_unchecked(origin.row, origin.col, grid.tile_rows, grid.tile_cols) };
        // SAFETY: as in `for_each_tile`.
        let part =
            unsafe { std::slice::from_raw_parts_mut(shared.scratch.add(lane * lane_bytes), lane_bytes) };
        body(Arena::over(part), which, origin, tile);
    });
}

/// What the lanes of [`for_each_tile`] share: they only ever form disjoint parts of it.
struct Shared<'a, T> {
    out: MatMut<'a, T>,
    scratch: *mut u8,
}

// SAFETY: see `for_each_tile`: lanes form disjoint tiles and disjoint scratch parts only.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

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

    #[test]
    fn a_second_output_is_cut_along() {
        for lanes in [1, 2, 3] {
            let executor = Executor::threads(lanes).unwrap();
            let (mut d, mut e) = (vec![0.0f32; 7 * 9], vec![0.0f32; 7 * 5]);
            let mut scratch = vec![0u8; 64 * lanes];
            let grid = Grid { tile_rows: 2, tile_cols: 4 };
            let out = MatMut::dense(&mut d, 7, 9).unwrap();
            let also = MatMut::dense(&mut e, 7, 5).unwrap();
            for_each_tile_pair(
                &executor,
                out,
                also,
                grid,
                2,
                &mut scratch,
                64,
                &|_, origin, mut a, mut b| {
                    assert_eq!(a.rows(), b.rows());
                    for i in 0..a.rows() {
                        a.row(i).iter_mut().for_each(|x| *x += 1.0);
                        b.row(i).iter_mut().for_each(|x| *x += (origin.col / 4 + 1) as f32);
                    }
                },
            );
            assert!(d.iter().all(|&x| x == 1.0));
            assert!(e.chunks_exact(5).all(|row| row == [1.0, 1.0, 2.0, 2.0, 3.0]));
        }
    }

    #[test]
    fn every_tile_is_visited_once() {
        for lanes in [1, 2, 3] {
            let executor = Executor::threads(lanes).unwrap();
            let mut d = vec![0.0f32; 7 * 9];
            let out = MatMut::dense(&mut d, 7, 9).unwrap();
            let mut scratch = vec![0u8; 64 * lanes];
            let grid = Grid { tile_rows: 2, tile_cols: 4 };
            for_each_tile(&executor, out, grid, &mut scratch, 64, &|_, origin, mut tile| {
                for i in 0..tile.rows() {
                    for (j, x) in tile.row(i).iter_mut().enumerate() {
                        *x += ((origin.row + i) * 9 + origin.col + j) as f32;
                    }
                }
            });
            assert!(d.iter().enumerate().all(|(i, &x)| x == i as f32));
        }
    }
}
