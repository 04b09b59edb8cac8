//! Keys and values as attention reads them, wherever they lie: sizes, the extent of each sequence, and one
//! chunk of one kv head at a time as operands of the tiles.

use super::chunk::Chunk;
use crate::error::Result;
use crate::kernels::KernelSet;
use crate::matmul::Precision;
use std::ops::Range;

/// Keys and values of the sequences of a call: of a cache, or the caller's own rows.
pub(super) trait KeyValues: Sync {
    fn dims(&self) -> Dims;

    /// Sequences of the call.
    fn sequences(&self) -> usize;

    /// Where the queries of each sequence start, and where the last ones end, in rows of `q`; `None` where
    /// all sequences have as many.
    fn query_starts(&self) -> Option<&[usize]> {
        None
    }

    /// What the `slot`th sequence of the call holds.
    fn extent(&self, slot: usize) -> Result<Extent>;

    /// Elements of scratch of a worker that [`KeyValues::chunk`] takes, for work items of `rows` query rows.
    fn panel_len(&self, rows: usize, precision: Precision) -> Result<usize>;

    /// The keys `keys` of a chunk (counted from its start) and their values, ready for strips of a work item
    /// of `rows` query rows. `panel`: scratch of [`KeyValues::panel_len`] elements.
    fn chunk<'s>(
        &'s self,
        kernels: &KernelSet,
        at: ChunkAt,
        keys: Range<usize>,
        rows: usize,
        precision: Precision,
        panel: &'s mut [f32],
    ) -> Chunk<'s>;
}

/// Sizes of keys and values.
#[derive(Clone, Copy)]
pub(super) struct Dims {
    pub kv_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
}

/// What a sequence holds: positions `start..len`, and sinks before them.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub len: usize,
    pub start: usize,
    /// The window that a cache was made for.
    pub window: Option<usize>,
    /// First positions that are held whatever `start`.
    pub sinks: usize,
    /// Whether a cache holds them, whose last tokens the queries are.
    pub cached: bool,
}

/// One chunk of one kv head of one sequence of a call.
#[derive(Clone, Copy)]
pub(super) struct ChunkAt {
    pub slot: usize,
    pub kv_head: usize,
    pub chunk: usize,
}
