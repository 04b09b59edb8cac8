//! The shape of one call: rows of a work item, scratch of a worker, partial results of a split over keys.

use super::key_values::{Dims, KeyValues};
use super::options::AttentionOptions;
use super::scratch::{HeadDims, ScratchLens};
use crate::buffer::Arena;
use crate::error::{Error, Result, product};

/// Query rows (tokens x heads of a group) of a work item: 64 strips of 6 share each chunk while it is in L2.
/// Converting an f16 chunk then costs 1.5 % of its FLOPs; rounding for `Fast` another 1.5 % at twice the rate
/// (192 rows: 3 % slower, `Fast` 7 %). Queries and outputs of a head of 128 take 384 KiB, and are streamed
/// strip by strip.
const ROWS: usize = 384;

/// Work items for each worker below which a call is cut finer: with 4, the last item to finish costs 1/8 of
/// the time of a worker on average.
pub(super) const ITEMS_PER_WORKER: usize = 4;

/// The least query rows of an item that is cut finer for the workers: 4 strips still share a chunk.
const FEW_ROWS: usize = 24;

/// Most bytes of partial results of a split over keys. A decoding step of 32 heads of 128 writes 16 KiB for
/// each chunk of 256 keys, so this is enough for 256 Ki keys.
const SPLIT_BYTES: usize = 16 << 20;

/// What a call is cut into items for.
#[derive(Clone, Copy)]
pub(super) struct Work {
    /// Queries of each sequence.
    pub q_len: usize,
    pub sequences: usize,
    pub workers: usize,
}

/// Shape of one call, validated.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub q_len: usize,
    pub kv_heads: usize,
    pub group: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    /// Tokens of a work item.
    pub tile_tokens: usize,
    /// Tokens that the scratch of a worker is sized for: at least `tile_tokens`, and growing with q_len.
    worker_tokens: usize,
    /// Elements of scratch of a worker that keys and values need.
    panel: usize,
}

impl Shape {
    pub fn new(
        options: &AttentionOptions,
        kv: &dyn KeyValues,
        Work { q_len, sequences, workers }: Work,
    ) -> Result<Shape> {
        let (heads, Dims { kv_heads, key_dim, value_dim }) = (options.heads, kv.dims());
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let relation = "must be a multiple of kv_heads =";
            return Err(Error::Shape { what: "heads", got: heads, relation, want: kv_heads });
        }
        let group = heads / kv_heads;
        let worker_tokens = (ROWS / group).clamp(1, q_len.max(1));
        // More tokens than one item takes are dealt out evenly, and to enough items for the workers.
        let blocks = if q_len <= worker_tokens {
            1
        } else {
            let wanted = (ITEMS_PER_WORKER * workers).div_ceil(kv_heads).div_ceil(sequences.max(1));
            let most = q_len.div_ceil(FEW_ROWS.div_ceil(group).min(worker_tokens));
            q_len.div_ceil(worker_tokens).max(wanted.min(most))
        };
        let tile_tokens = q_len.div_ceil(blocks).max(1);
        let panel = kv.panel_len(product("query rows", &[worker_tokens, group])?, options.precision)?;
        Ok(Shape { q_len, kv_heads, group, key_dim, value_dim, tile_tokens, worker_tokens, panel })
    }

    /// Scratch of a worker for strips of `mr` rows.
    pub fn scratch(&self, mr: usize) -> Result<ScratchLens> {
        let rows = product("query rows", &[self.worker_tokens, self.group])?;
        ScratchLens::new(rows, mr, HeadDims { key: self.key_dim, value: self.value_dim }, self.panel)
    }

    /// Elements of the partial results of one kv head and one chunk, `tokens` tokens:
    /// `[sums: rows * value_dim][(m, l): rows * 2]`.
    pub fn partial_len(&self, tokens: usize) -> Result<usize> {
        let record = self.value_dim.checked_add(2).ok_or(Error::Overflow { what: "value_dim" })?;
        product("partial results", &[tokens, self.group, record])
    }

    /// Bytes of partial results for a split of one call over `chunks` chunks of each of some sequences;
    /// `None` where it is not worth it or not possible. Splitting changes no bit, so it may depend on the
    /// workers.
    pub fn split_bytes(&self, chunks: usize, sequences: usize, workers: usize) -> Option<usize> {
        let one_block = self.q_len <= self.tile_tokens;
        let few = sequences.saturating_mul(self.kv_heads) < ITEMS_PER_WORKER * workers;
        if workers < 2 || chunks < 2 || !one_block || !few {
            return None;
        }
        let factors = [self.partial_len(self.q_len).ok()?, self.kv_heads, sequences, chunks];
        let len = product("partial results", &factors).ok()?;
        Arena::bytes_for::<f32>(len).ok().filter(|&bytes| bytes <= SPLIT_BYTES)
    }

    /// Bytes that calls of up to q_len queries, for some of up to `sequences` sequences of up to `chunks`
    /// chunks, use for partial results at most.
    pub fn most_split_bytes(&self, chunks: usize, sequences: usize, workers: usize) -> Result<usize> {
        let few = (ITEMS_PER_WORKER * workers - 1) / self.kv_heads; // sequences that are split
        if workers < 2 || chunks < 2 || few == 0 {
            return Ok(0);
        }
        let factors = [self.partial_len(self.worker_tokens)?, self.kv_heads, sequences.clamp(1, few), chunks];
        Ok(Arena::bytes_for::<f32>(product("partial results", &factors)?)?.min(SPLIT_BYTES))
    }
}
