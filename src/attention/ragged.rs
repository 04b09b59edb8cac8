//! Sequences of different lengths in the caller's own memory, their rows one after the other: what an encoder
//! reads in batches, without rows of padding.

use super::chunk::Chunk;
use super::key_values::{ChunkAt, Dims, Extent, KeyValues};
use super::options::CHUNK;
use super::plain::Plain;
use super::queries::longest;
use crate::error::{Error, Result, equal, text};
use crate::kernels::KernelSet;
use crate::matmul::Precision;
use std::ops::Range;

/// Keys and values of several sequences as plain rows, those of a sequence together, and which rows of the
/// queries are whose.
#[derive(Debug, Clone, Copy)]
pub struct Ragged<'a> {
    plain: Plain<'a>,
    key_starts: &'a [usize],   // (sequences + 1)
    query_starts: &'a [usize], // (sequences + 1)
}

impl<'a> Ragged<'a> {
    /// Sequence s has the keys and values `key_starts[s]..key_starts[s + 1]` of `kv` and the queries
    /// `query_starts[s]..query_starts[s + 1]`. Both are the same where sequences attend to themselves, and
    /// differ where a decoder attends to an encoder. A sequence may be empty.
    ///
    /// - **Errors**: `Shape` for lists of different lengths or whose end is not that of the rows; `Option`
    ///   for starts that descend, do not begin with 0, or are none.
    pub fn new(kv: Plain<'a>, key_starts: &'a [usize], query_starts: &'a [usize]) -> Result<Ragged<'a>> {
        Ragged::check(key_starts, query_starts)?;
        let end = key_starts.last().copied().unwrap_or_default();
        equal("key_starts.last", end, "must equal k.rows =", kv.len())?;
        Ok(Ragged { plain: kv, key_starts, query_starts })
    }

    /// Checks the starts.
    pub(crate) fn check(key_starts: &[usize], query_starts: &[usize]) -> Result<()> {
        let (got, want) = (query_starts.len(), key_starts.len());
        equal("query_starts.len", got, "must equal key_starts.len =", want)?;
        for (what, starts) in [("key_starts", key_starts), ("query_starts", query_starts)] {
            if starts.first() != Some(&0) {
                let got = starts.first().map_or(text("none"), text);
                return Err(Error::Option {
                    what,
                    got,
                    allowed: "0 at first, then the end of each sequence",
                });
            }
            if let Some(pair) = starts.windows(2).find(|pair| pair[0] > pair[1]) {
                let (got, relation) = (pair[1], "must be at least the start before it =");
                return Err(Error::Shape { what, got, relation, want: pair[0] });
            }
        }
        Ok(())
    }

    /// The most queries and the most keys of a sequence: what
    /// [`plain_workspace_bytes`](super::plain_workspace_bytes) is asked for.
    pub fn longest(&self) -> (usize, usize) {
        (longest(self.query_starts), longest(self.key_starts))
    }
}

impl KeyValues for Ragged<'_> {
    fn dims(&self) -> Dims {
        self.plain.dims()
    }

    fn sequences(&self) -> usize {
        self.key_starts.len() - 1
    }

    fn query_starts(&self) -> Option<&[usize]> {
        Some(self.query_starts)
    }

    fn extent(&self, slot: usize) -> Result<Extent> {
        let len = self.key_starts[slot + 1] - self.key_starts[slot];
        Ok(Extent { len, start: 0, window: None, sinks: 0, cached: false })
    }

    fn panel_len(&self, rows: usize, precision: Precision) -> Result<usize> {
        self.plain.panel_len(rows, precision)
    }

    fn chunk<'s>(
        &'s self,
        _kernels: &KernelSet,
        at: ChunkAt,
        keys: Range<usize>,
        _rows: usize,
        _precision: Precision,
        panel: &'s mut [f32],
    ) -> Chunk<'s> {
        self.plain.chunk_at(at.kv_head, self.key_starts[at.slot] + at.chunk * CHUNK, keys, panel)
    }
}
