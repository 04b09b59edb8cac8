//! How an output is cut into tiles, and the parts of it that workers form.

use crate::view::MatMut;
use bytemuck::Pod;

/// How an output is cut into work items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Rows of a tile (the last one may have fewer).
    pub tile_rows: usize,
    /// Columns of a tile (the last one may have fewer).
    pub tile_cols: usize,
}

impl Grid {
    /// How many blocks of rows and of columns an output of this shape has; none where it has no element.
    pub(super) fn blocks(self, rows: usize, cols: usize) -> Blocks {
        if rows == 0 || cols == 0 {
            return Blocks { rows: 0, cols: 0 };
        }
        Blocks { rows: rows.div_ceil(self.tile_rows), cols: cols.div_ceil(self.tile_cols) }
    }
}

/// Blocks of rows and of columns: each pair of them is a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub rows: usize,
    pub cols: usize,
}

impl Blocks {
    pub fn count(self) -> usize {
        self.rows * self.cols
    }
}

/// One work item: where its tile starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub row: usize,
    pub col: usize,
}

/// What workers share: an output, of which each work item forms one tile.
pub(super) struct Shared<'a, T> {
    pub out: MatMut<'a, T>,
    grid: Grid,
    pub blocks: Blocks,
}

// SAFETY: the view is only used to form tiles, and whoever forms one promises that no other one overlaps it.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T: Pod> Shared<'a, T> {
    pub fn new(out: MatMut<'a, T>, grid: Grid) -> Shared<'a, T> {
        let blocks = grid.blocks(out.rows(), out.cols());
        Shared { out, grid, blocks }
    }

    /// Where the tile of a block of rows and a block of columns starts.
    pub fn origin(&self, row_block: usize, col_block: usize) -> Origin {
        Origin { row: row_block * self.grid.tile_rows, col: col_block * self.grid.tile_cols }
    }

    /// [`Shared::origin`] of the item with this number, blocks of columns outer and blocks of rows inner.
    pub fn by_columns(&self, item: usize) -> Origin {
        self.origin(item % self.blocks.rows, item / self.blocks.rows)
    }

    /// The tile that starts at `at`.
    ///
    /// # Safety
    /// - `at` is an origin of this output, and no other tile with the same one exists while this one does.
    pub unsafe fn tile(&self, at: Origin) -> MatMut<'_, T> {
        // SAFETY: tiles of distinct origins are disjoint.
        unsafe { self.out.tile_unchecked(at.row, at.col, self.grid.tile_rows, self.grid.tile_cols) }
    }
}

impl<T: Pod> Shared<'_, T> {
    /// Some rows and columns from `at` on.
    ///
    /// # Safety
    /// - no other tile has an element of them while this one exists.
    pub unsafe fn part(&self, at: Origin, rows: usize, cols: usize) -> MatMut<'_, T> {
        // SAFETY: handed on to the caller.
        unsafe { self.out.tile_unchecked(at.row, at.col, rows, cols) }
    }
}
