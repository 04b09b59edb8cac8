//! The split over keys: a few queries over many keys, as in decoding, give too few work items to fill the
//! lanes, so items are ranges of chunks.
//!
//! Each chunk is computed against its own maximum (NUMERICS rule 6), so its part does not depend on what was
//! merged before it. Items write the parts of their chunks; then each row merges all of them in ascending
//! order, which are the operations of the unsplit loop: the same bits. One part for each range of chunks would
//! be less to write, 16 KiB in 2 MiB of keys and values, but a range merged on its own rounds differently.

use super::item::{Block, Item, NOTHING, Part};
use super::shape::ITEMS_PER_LANE;
use crate::buffer::Arena;
use crate::error::Result;
use crate::parallel::Executor;
use crate::view::{Grid, MatMut, MatRef, for_each_tile, for_each_tile_pair};

/// Runs a call whose tokens fit one block. `arena` holds the lanes' scratch and the partial results.
pub(super) fn run(
    executor: &Executor,
    item: &Item<'_>,
    mut arena: Arena<'_>,
    lane_bytes: usize,
    out: MatMut<'_>,
    lse: MatMut<'_>,
) -> Result<()> {
    let shape = &item.shape;
    let (lanes, queries) = (executor.lanes(), 0..shape.q_len);
    let chunks = item.visible.chunks(&queries);
    // A row of partial results for each chunk, kv heads side by side.
    let width = shape.partial_len(shape.q_len)?;
    let partials: &mut [f32] = arena.take(chunks.len() * shape.kv_heads * width)?; // (chunks, kv_heads, width)
    let scratch = arena.rest();

    let ranges = (ITEMS_PER_LANE * lanes).div_ceil(shape.kv_heads).min(chunks.len());
    let grid = Grid { tile_rows: chunks.len().div_ceil(ranges), tile_cols: width };
    let view = MatMut::dense(partials, chunks.len(), shape.kv_heads * width)?;
    for_each_tile(executor, view, grid, scratch, lane_bytes, &|arena, at, mut tile| {
        let block = Block { token: 0, tokens: shape.q_len, kv_head: at.col / width };
        let (mut lane, panel) = item.lane(arena);
        item.load(&mut lane, block);
        for n in 0..tile.rows() {
            let record = tile.row(n);
            let (sums, parts) = record.split_at_mut(shape.q_len * shape.group * shape.value_dim);
            parts.chunks_exact_mut(2).for_each(|part| store(part, 0, &[NOTHING]));
            item.chunk(&mut lane, panel, block, chunks.index(at.row + n), &mut |lane, rows, new| {
                let len = rows.len() * shape.value_dim;
                sums[rows.start * shape.value_dim..][..len].copy_from_slice(&lane.sums[..len]);
                store(parts, rows.start, new);
            });
        }
    });

    let partials = MatRef::dense(partials, chunks.len(), shape.kv_heads * width)?;
    let grid = Grid { tile_rows: shape.q_len, tile_cols: shape.group * shape.value_dim };
    for_each_tile_pair(executor, out, lse, grid, shape.group, scratch, lane_bytes, &|arena, at, out, lse| {
        let kv_head = at.col / grid.tile_cols;
        let block = Block { token: 0, tokens: out.rows(), kv_head };
        let (mut lane, _) = item.lane(arena);
        item.start(&mut lane, block);
        let (rows, dim) = (block.tokens * shape.group, shape.value_dim);
        for n in 0..chunks.len() {
            let record = &partials.from(n, kv_head * width)[..width];
            let (sums, parts) = record.split_at(rows * dim);
            for row in 0..rows {
                let (state, o) = (&mut lane.state[2 * row..2 * row + 2], &mut lane.o[row * dim..(row + 1) * dim]);
                item.merge(state, o, (parts[2 * row], parts[2 * row + 1]), &sums[row * dim..(row + 1) * dim]);
            }
        }
        item.finish(&lane, block, out, lse);
    });
    Ok(())
}

/// Writes the parts of rows `row..`.
fn store(to: &mut [f32], row: usize, parts: &[Part]) {
    for (to, (m, l)) in to[2 * row..].chunks_exact_mut(2).zip(parts) {
        to.copy_from_slice(&[*m, *l]);
    }
}
