//! The scratch of a worker, named.

use super::options::CHUNK;
use crate::buffer::Arena;
use crate::error::{Error, Result, product};

/// Maximum (exp2 domain) and sum of a row of probabilities.
pub(super) type Part = (f32, f32);

/// The part of a row that sees nothing.
pub(super) const NOTHING: Part = (f32::NEG_INFINITY, 0.0);

/// Elements of each part of a worker's scratch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ScratchLens {
    q: usize,
    o: usize,
    state: usize,
    scores: usize,
    sums: usize,
    panel: usize,
}

impl ScratchLens {
    /// For `rows` query rows, strips of `mr` rows, and a panel of `panel` elements.
    pub fn new(rows: usize, mr: usize, dims: HeadDims, panel: usize) -> Result<ScratchLens> {
        let of = |rows, width| product("query rows", &[rows, width]);
        Ok(ScratchLens {
            q: of(rows, dims.key)?,
            o: of(rows, dims.value)?,
            state: of(rows, 2)?,
            scores: of(mr, CHUNK)?,
            sums: of(mr, dims.value)?,
            panel,
        })
    }

    pub fn bytes(&self) -> Result<usize> {
        let ScratchLens { q, o, state, scores, sums, panel } = *self;
        let mut bytes = 0usize;
        for len in [q, o, state, scores, sums, panel] {
            let part = Arena::bytes_for::<f32>(len)?;
            bytes = bytes.checked_add(part).ok_or(Error::Overflow { what: "query rows" })?;
        }
        Ok(bytes)
    }
}

/// Head sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadDims {
    pub key: usize,
    pub value: usize,
}

/// Scratch of a worker but for the panel, which a chunk borrows. Rows are (token, head of the group).
pub(super) struct WorkerScratch<'a> {
    pub q: &'a mut [f32], // (rows, key_dim), scaled up to row `loaded`
    pub loaded: usize,
    pub o: &'a mut [f32],      // (rows, value_dim)
    pub state: &'a mut [f32],  // (rows, 2): m, l
    pub scores: &'a mut [f32], // (mr, CHUNK)
    pub sums: &'a mut [f32],   // (mr, value_dim)
}

impl<'a> WorkerScratch<'a> {
    /// The scratch of a worker, and the panel of the keys and values.
    pub fn cut(lens: ScratchLens, mut arena: Arena<'a>) -> (WorkerScratch<'a>, &'a mut [f32]) {
        let ScratchLens { q, o, state, scores, sums, panel } = lens;
        let [q, o, state, scores, sums, panel] = [q, o, state, scores, sums, panel].map(|len| {
            let part = arena.take::<f32>(len);
            debug_assert!(part.is_ok(), "the scratch was sized by the same numbers");
            part.unwrap_or_default()
        });
        (WorkerScratch { q, loaded: 0, o, state, scores, sums }, panel)
    }
}
