//! The split over keys: a few queries over many keys, as in decoding, give too few work items for the
//! workers, so items are ranges of chunks.
//!
//! Each chunk is computed against its own maximum (NUMERICS rule 6), so its part does not depend on what was
//! merged before it. Items write the parts of their chunks; then each row merges all of them in ascending
//! order, which are the operations of the unsplit loop: the same bits. One part for each range of chunks
//! would be less to write, 16 KiB in 2 MiB of keys and values, but a range merged on its own rounds
//! differently.

use super::call::Call;
use super::scratch::{NOTHING, Part};
use super::shape::ITEMS_PER_WORKER;
use crate::buffer::Arena;
use crate::error::Result;
use crate::parallel::Executor;
use crate::tiles::{Grid, for_each_tile, for_each_tile_pair};
use crate::view::{MatMut, MatRef};

/// Runs a call whose queries of a sequence fit one block, the longest of which sees `chunks` chunks. `arena`
/// holds the workers' scratch and the partial results.
pub(super) fn run(
    executor: &Executor,
    call: &Call<'_>,
    chunks: usize,
    mut arena: Arena<'_>,
    worker_bytes: usize,
    out: MatMut<'_>,
    lse: MatMut<'_>,
) -> Result<()> {
    let shape = &call.shape;
    let (dim, sums_len) = (shape.value_dim, shape.q_len * shape.group * shape.value_dim);
    // A row of partial results for each chunk; in it each sequence, and each kv head of it.
    let width = shape.partial_len(shape.q_len)?;
    let groups = out.rows() / shape.q_len.max(1) * shape.kv_heads;
    let place = |group: usize| (group / shape.kv_heads * shape.q_len, group % shape.kv_heads);
    let partials: &mut [f32] = arena.take(chunks * groups * width)?; // (chunks, groups, width)
    let workers = arena.rest();

    let ranges = (ITEMS_PER_WORKER * executor.workers()).div_ceil(groups.max(1)).min(chunks);
    let grid = Grid { tile_rows: chunks.div_ceil(ranges), tile_cols: width };
    let view = MatMut::dense(partials, chunks, groups * width)?;
    for_each_tile(executor, view, grid, workers, worker_bytes, &|arena, at, mut tile| {
        let (row, kv_head) = place(at.col / width);
        let Some(block) = call.block(row, shape.q_len, kv_head) else { return };
        let (mut scratch, panel) = call.scratch(arena);
        let seen = block.chunks();
        for n in 0..tile.rows().min(seen.len().saturating_sub(at.row)) {
            let (sums, parts) = tile.row(n).split_at_mut(sums_len);
            parts.chunks_exact_mut(2).for_each(|part| store(part, &[NOTHING]));
            call.chunk(&mut scratch, panel, &block, seen.index(at.row + n), &mut |scratch, rows, new| {
                let len = rows.len() * dim;
                sums[rows.start * dim..][..len].copy_from_slice(&scratch.sums[..len]);
                store(&mut parts[2 * rows.start..], new);
            });
        }
    });

    let partials = MatRef::dense(partials, chunks, groups * width)?;
    let grid = Grid { tile_rows: shape.q_len, tile_cols: shape.group * dim };
    for_each_tile_pair(
        executor,
        out,
        lse,
        grid,
        shape.group,
        workers,
        worker_bytes,
        &|arena, at, mut out, mut lse| {
            let kv_head = at.col / grid.tile_cols;
            let Some(block) = call.block(at.row, out.rows(), kv_head) else { return };
            let (mut scratch, _) = call.scratch(arena);
            call.start(&mut scratch, &block);
            let group = at.row / shape.q_len * shape.kv_heads + kv_head;
            for n in 0..block.chunks().len() {
                let (sums, parts) = partials.from(n, group * width)[..width].split_at(sums_len);
                let states = scratch.state.chunks_exact_mut(2).zip(scratch.o.chunks_exact_mut(dim));
                for ((part, sum), (state, o)) in parts.chunks_exact(2).zip(sums.chunks_exact(dim)).zip(states)
                {
                    call.merge(state, o, (part[0], part[1]), sum);
                }
            }
            let rows = block.tokens * shape.group;
            call.finish(&mut scratch, 0..rows, &mut out, &mut lse);
        },
    );
    Ok(())
}

/// Writes the parts of some rows.
fn store(to: &mut [f32], parts: &[Part]) {
    for (to, (m, l)) in to.chunks_exact_mut(2).zip(parts) {
        to.copy_from_slice(&[*m, *l]);
    }
}
