//! Loops over the tiles of an output: the only place where an output is split between threads.
//!
//! An output is cut into tiles by shapes alone, so the tiles, and the result, are the same for any number of
//! workers. Each tile is one work item, each worker has scratch memory of its own.

mod cut;
mod heads;
mod items;

use crate::buffer::Arena;
use crate::parallel::Executor;
use crate::view::MatMut;
use bytemuck::{Pod, Zeroable};
use cut::Shared;
pub(crate) use cut::{Grid, Origin};
pub(crate) use heads::{Distinct, HeadColumns, States, for_each_head_tile, for_each_state};
use items::run_items;

/// Runs `body` once for each tile of `out`, blocks of columns outer and blocks of rows inner, with scratch
/// memory of `worker_bytes`.
pub(crate) fn for_each_tile<T: Pod + Send>(
    executor: &Executor,
    out: MatMut<'_, T>,
    grid: Grid,
    scratch: &mut [u8],
    worker_bytes: usize,
    body: &(dyn Fn(Arena<'_>, Origin, MatMut<'_, T>) + Sync),
) {
    let (rows, cols) = (out.rows(), out.cols());
    if rows == 0 || cols == 0 {
        return;
    }
    if rows <= grid.tile_rows && cols <= grid.tile_cols {
        // One item: no divisions, no cursor. They are a third of the cost of the smallest products.
        return body(Arena::over(&mut scratch[..worker_bytes]), Origin { row: 0, col: 0 }, out);
    }
    let shared = Shared::new(out, grid);
    run_items(executor, shared.blocks.count(), scratch, worker_bytes, |arena, item| {
        let at = shared.by_columns(item);
        // SAFETY: each item runs once, and each has an origin of its own.
        body(arena, at, unsafe { shared.tile(at) });
    });
}

/// [`for_each_tile`] for an output and a smaller one beside it, `also`, of the same rows (or empty), whose
/// tile for each column block has `also_cols` columns. The last row blocks come first: in causal attention
/// they are the longest items, and a long item that starts last leaves the other workers idle.
#[allow(clippy::too_many_arguments, clippy::type_complexity)] // for_each_tile's, and a second output
pub(crate) fn for_each_tile_pair<T: Pod + Send>(
    executor: &Executor,
    out: MatMut<'_, T>,
    also: MatMut<'_, T>,
    grid: Grid,
    also_cols: usize,
    scratch: &mut [u8],
    worker_bytes: usize,
    body: &(dyn Fn(Arena<'_>, Origin, MatMut<'_, T>, MatMut<'_, T>) + Sync),
) {
    let first = Shared::new(out, grid);
    let blocks = first.blocks;
    let second = Shared::new(also, Grid { tile_cols: also_cols, ..grid });
    assert!(second.out.rows() == 0 || blocks.count() == 0 || second.blocks.cols == blocks.cols);
    run_items(executor, blocks.count(), scratch, worker_bytes, |arena, item| {
        let (row_block, col_block) = (blocks.rows - 1 - item / blocks.cols, item % blocks.cols);
        let at = first.origin(row_block, col_block);
        // SAFETY: each item runs once, and each has an origin of its own in each of the two outputs.
        let tiles = unsafe { (first.tile(at), second.tile(second.origin(row_block, col_block))) };
        body(arena, at, tiles.0, tiles.1);
    });
}

/// [`for_each_tile`] over the tiles of several outputs at once, each with its grid: `body` is told which one.
#[allow(clippy::type_complexity)] // the body of `for_each_tile`, and which output
pub(crate) fn for_each_tile_of<T: Pod + Send, const N: usize>(
    executor: &Executor,
    outs: [Option<(MatMut<'_, T>, Grid)>; N],
    scratch: &mut [u8],
    worker_bytes: usize,
    body: &(dyn Fn(Arena<'_>, usize, Origin, MatMut<'_, T>) + Sync),
) {
    let shared = outs.map(|out| out.map(|(out, grid)| Shared::new(out, grid)));
    let mut starts = [0; N]; // first item of each output
    let mut items = 0;
    for (start, out) in starts.iter_mut().zip(&shared) {
        *start = items;
        items += out.as_ref().map_or(0, |out| out.blocks.count());
    }
    run_items(executor, items, scratch, worker_bytes, |arena, item| {
        // The last output that starts at or before the item; empty ones start where the next one does.
        let which = (0..N).rev().find(|&i| starts[i] <= item && shared[i].is_some()).unwrap_or(0);
        let Some(out) = &shared[which] else { return };
        let at = out.by_columns(item - starts[which]);
        // SAFETY: each item runs once, and each has an output and an origin of its own; outputs are borrowed
        // exclusively.
        body(arena, which, at, unsafe { out.tile(at) });
    });
}

/// Consecutive rows of an output that are cut by a grid of their own.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Band {
    row: usize,
    rows: usize,
    tile_rows: usize,
    tile_cols: usize,
    /// The first item, once they are counted.
    item: usize,
    /// What the caller knows it by.
    tag: usize,
    /// Arenas hand out types whose size divides their alignment.
    spare: [usize; 2],
}

impl Band {
    pub fn new(rows: std::ops::Range<usize>, grid: Grid, tag: usize) -> Band {
        let Grid { tile_rows, tile_cols } = grid;
        Band { row: rows.start, rows: rows.len(), tile_rows, tile_cols, item: 0, tag, spare: [0; 2] }
    }

    fn grid(&self) -> Grid {
        Grid { tile_rows: self.tile_rows, tile_cols: self.tile_cols }
    }
}

/// [`for_each_tile`] over the tiles of bands of rows, which follow each other without overlap: `body` is told
/// the band's tag, and where the tile starts in the band.
#[allow(clippy::type_complexity)] // the body of `for_each_tile`, and which band
pub(crate) fn for_each_band_tile<T: Pod + Send>(
    executor: &Executor,
    out: MatMut<'_, T>,
    bands: &mut [Band],
    scratch: &mut [u8],
    worker_bytes: usize,
    body: &(dyn Fn(Arena<'_>, usize, Origin, MatMut<'_, T>) + Sync),
) {
    let (mut items, mut end) = (0, 0);
    for band in bands.iter_mut() {
        assert!(band.row >= end && band.rows <= out.rows() - band.row, "bands overlap or leave the output");
        (band.item, end) = (items, band.row + band.rows);
        items += band.grid().blocks(band.rows, out.cols()).count();
    }
    let (cols, bands) = (out.cols(), &*bands);
    let shared = Shared::new(out, Grid { tile_rows: 1, tile_cols: 1 });
    run_items(executor, items, scratch, worker_bytes, |arena, item| {
        // The last band that starts at or before the item; empty ones start where the next one does.
        let band = &bands[bands.partition_point(|band| band.item <= item) - 1];
        let blocks = band.grid().blocks(band.rows, cols);
        let (row, col) = ((item - band.item) % blocks.rows, (item - band.item) / blocks.rows);
        let at = Origin { row: row * band.tile_rows, col: col * band.tile_cols };
        let rows = band.tile_rows.min(band.rows - at.row);
        let start = Origin { row: band.row + at.row, col: at.col };
        // SAFETY: each item runs once; bands were seen to be disjoint, and tiles of one band are.
        let tile = unsafe { shared.part(start, rows, band.tile_cols) };
        body(arena, band.tag, at, tile);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_output_is_cut_along() {
        for workers in [1, 2, 3] {
            let executor = Executor::threads(workers).unwrap();
            let (mut d, mut e) = (vec![0.0f32; 7 * 9], vec![0.0f32; 7 * 5]);
            let mut scratch = vec![0u8; 64 * workers];
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
        for workers in [1, 2, 3] {
            let executor = Executor::threads(workers).unwrap();
            let mut d = vec![0.0f32; 7 * 9];
            let out = MatMut::dense(&mut d, 7, 9).unwrap();
            let mut scratch = vec![0u8; 64 * workers];
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

    #[test]
    fn tiles_of_several_outputs_are_visited_once() {
        for workers in [1, 2, 3] {
            let executor = Executor::threads(workers).unwrap();
            let (mut a, mut b, mut c) = (vec![0.0f32; 7 * 9], vec![0.0f32; 5], vec![0.0f32; 40]);
            let mut scratch = vec![0u8; 64 * workers];
            let small = Grid { tile_rows: 2, tile_cols: 4 };
            let outs = [
                None,
                Some((MatMut::dense(&mut [], 0, 3).unwrap(), small)),
                Some((MatMut::dense(&mut a, 7, 9).unwrap(), small)),
                Some((MatMut::dense(&mut b, 1, 5).unwrap(), Grid { tile_rows: 9, tile_cols: 9 })),
                Some((MatMut::dense(&mut [], 3, 0).unwrap(), small)),
                Some((MatMut::dense(&mut c, 40, 1).unwrap(), small)),
                None,
            ];
            for_each_tile_of(&executor, outs, &mut scratch, 64, &|_, which, origin, mut tile| {
                let cols = [0, 3, 9, 5, 0, 1, 0][which];
                for i in 0..tile.rows() {
                    for (j, x) in tile.row(i).iter_mut().enumerate() {
                        *x += (1000 * which + (origin.row + i) * cols + origin.col + j) as f32;
                    }
                }
            });
            for (which, out) in [(2, &a), (3, &b), (5, &c)] {
                assert!(out.iter().enumerate().all(|(i, &x)| x == (1000 * which + i) as f32));
            }
        }
    }

    #[test]
    fn tiles_of_bands_are_visited_once() {
        for workers in [1, 2, 3] {
            let executor = Executor::threads(workers).unwrap();
            let mut d = vec![0.0f32; 20 * 9];
            let mut scratch = vec![0u8; 64 * workers];
            let grid = |tile_rows, tile_cols| Grid { tile_rows, tile_cols };
            let mut bands = [
                Band::new(0..0, grid(2, 2), 0),
                Band::new(0..7, grid(2, 4), 1),
                Band::new(8..9, grid(512, 9), 2),
                Band::new(9..9, grid(1, 1), 3),
                Band::new(12..20, grid(3, 100), 4),
            ];
            let out = MatMut::dense(&mut d, 20, 9).unwrap();
            for_each_band_tile(&executor, out, &mut bands, &mut scratch, 64, &|_, tag, at, mut tile| {
                for i in 0..tile.rows() {
                    for (j, x) in tile.row(i).iter_mut().enumerate() {
                        *x += (1000 * tag + (at.row + i) * 9 + at.col + j) as f32;
                    }
                }
            });
            for (i, x) in d.into_iter().enumerate() {
                let band =
                    [(0..7, 1), (8..9, 2), (12..20, 4)].into_iter().find(|(r, _)| r.contains(&(i / 9)));
                let want = band.map_or(0, |(rows, tag)| 1000 * tag + i - rows.start * 9);
                assert_eq!(x, want as f32, "{i}");
            }
        }
    }
}
