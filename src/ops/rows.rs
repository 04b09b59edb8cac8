//! Row operations as parallel loops, and the check that their operands share.

use crate::context::Context;
use crate::error::{Result, equal};
use crate::parallel::Executor;
pub(super) use crate::tiles::Grid;
use crate::tiles::{Origin, for_each_tile};
use crate::view::{MatMut, MatRef};

/// Elements below which a row operation stays on the calling thread: they take a few times what entering a
/// parallel region takes (docs/TUNING.md, `SERIAL_MACS`).
const SERIAL_ELEMENTS: usize = 64 * 1024;

/// Elements of a work item, about: 16 KiB of f32, half of an L1.
pub(super) const ITEM_ELEMENTS: usize = 4096;

/// Runs `f(row index, row)` for each row of `x`.
pub(crate) fn for_each_row(ctx: &Context, x: MatMut<'_>, f: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let (rows, cols) = (x.rows(), x.cols());
    let elements = rows.saturating_mul(cols);
    let tile_rows = if is_serial(elements) { rows.max(1) } else { (ITEM_ELEMENTS / cols.max(1)).max(1) };
    let grid = Grid { tile_rows, tile_cols: cols.max(1) };
    for_each_block(ctx, elements, x, grid, &|origin, mut tile| {
        for i in 0..tile.rows() {
            f(origin.row + i, tile.row(i));
        }
    });
}

/// Runs `f(origin, block)` for each block of `x`, in an operation that touches so many elements.
pub(super) fn for_each_block(
    ctx: &Context,
    elements: usize,
    x: MatMut<'_>,
    grid: Grid,
    f: &(dyn Fn(Origin, MatMut<'_>) + Sync),
) {
    let executor = executor(ctx, elements);
    for_each_tile(executor, x, grid, &mut [], 0, &|_, origin, tile| f(origin, tile));
}

/// Whether an operation that touches so many elements stays on the calling thread.
fn is_serial(elements: usize) -> bool {
    elements < SERIAL_ELEMENTS
}

/// Where an operation that touches so many elements runs.
pub(crate) fn executor(ctx: &Context, elements: usize) -> &Executor {
    if is_serial(elements) { Executor::serial() } else { ctx.executor() }
}

/// Checks that `z` is a plain matrix of the shape of `x`.
pub(super) fn same_shape(what: [&'static str; 3], z: MatRef<'_>, x: &MatMut<'_>) -> Result<()> {
    equal(what[0], z.rows(), "must equal the output's rows =", x.rows())?;
    equal(what[1], z.cols(), "must equal the output's cols =", x.cols())?;
    z.require_plain(what[2], "plain: operations go row by row")?;
    Ok(())
}
