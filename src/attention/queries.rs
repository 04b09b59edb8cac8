//! Which rows of the queries are of which sequence.

use super::key_values::KeyValues;
use crate::error::{Error, Result, equal};
use std::ops::Range;

/// The rows of the longest sequence, of starts that ascend.
pub(crate) fn longest(starts: &[usize]) -> usize {
    starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// The queries of the sequences of a call.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    /// Of the longest sequence.
    pub most: usize,
    starts: Option<&'a [usize]>,
}

impl<'a> Queries<'a> {
    /// Checks `rows` rows of queries.
    pub fn new(kv: &'a dyn KeyValues, rows: usize) -> Result<Queries<'a>> {
        let sequences = kv.sequences();
        if let Some(starts) = kv.query_starts() {
            let end = starts.last().copied().unwrap_or_default();
            equal("query_starts.last", end, "must equal q.rows =", rows)?;
            return Ok(Queries { most: longest(starts), starts: Some(starts) });
        }
        if !rows.is_multiple_of(sequences) {
            let relation = "must be a multiple of the number of sequences =";
            return Err(Error::Shape { what: "q.rows", got: rows, relation, want: sequences });
        }
        Ok(Queries { most: rows / sequences.max(1), starts: None })
    }

    /// Whether sequences may have different numbers of queries.
    pub fn are_ragged(&self) -> bool {
        self.starts.is_some()
    }

    /// The rows of the `slot`th sequence.
    pub fn of(&self, slot: usize) -> Range<usize> {
        match self.starts {
            Some(starts) => starts[slot]..starts[slot + 1],
            None => slot * self.most..(slot + 1) * self.most,
        }
    }

    /// The sequence that a row is of.
    pub fn slot(&self, row: usize) -> usize {
        match self.starts {
            // Of those that start at the same row all but the last one are empty.
            Some(starts) => starts.partition_point(|&start| start <= row) - 1,
            None => row / self.most,
        }
    }
}
