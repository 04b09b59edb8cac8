//! Attention over sequences of different lengths in plain rows.

use super::args::{Array, heads_of};
use super::attention::{Arrays, Call, kvern_attention_options, plain_sequences, read_options};
use super::context::kvern_context;
use super::guard;
use super::status::kvern_status;
use super::workspace::kvern_workspace;
use crate::attention::{Plain, Ragged, attend_ragged, longest};
use crate::error::Error;

/// `kvern_attention_plain` for sequences of different lengths, one after the other in the rows of queries,
/// keys and values: what an encoder computes in batches, without rows of padding. Each row has the bits that
/// it has where its sequence is alone.
///
/// `k_starts`, `q_starts`: sequences + 1 elements, 0 at first: sequence s has the rows
/// k_starts[s]..k_starts[s + 1] of `k` and `v`, and q_starts[s]..q_starts[s + 1] of `q` and `out`; the last
/// ones are kv_len and q_len. A sequence may be empty. `options`: without sequences and tree; masks have a
/// row for each row of `q`, their columns are positions, as many as the longest sequence has keys. The
/// workspace is that of `kvern_attention_plain_workspace_bytes` for the most queries and the most keys of a
/// sequence. Errors: as `kvern_attention_plain`; SHAPE for starts that descend or do not end with the rows,
/// OPTION for those that do not begin with 0 and for a tree. Threads: `ctx` shared, `ws` and outputs
/// exclusive. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_attention_ragged(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    options: *const kvern_attention_options,
    sequences: usize,
    k_starts: *const usize,
    q_starts: *const usize,
    kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
    kv_len: usize,
    k: *const f32,
    k_row_stride: usize,
    v: *const f32,
    v_row_stride: usize,
    q_len: usize,
    q: *const f32,
    q_row_stride: usize,
    out: *mut f32,
    out_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (raw, options) = read_options(options, kv_heads)?;
        plain_sequences(&raw)?;
        let len = sequences.checked_add(1).ok_or(Error::Overflow { what: "sequences + 1" })?;
        let (k_starts, q_starts) =
            (Array::new("k_starts", k_starts, len)?, Array::new("q_starts", q_starts, len)?);
        let (key_starts, query_starts) = (k_starts.get(), q_starts.get());
        Ragged::check(key_starts, query_starts)?;
        let longest = longest(key_starts);
        let k = heads_of("k", k, kv_len, (kv_heads, key_dim), k_row_stride)?;
        let v = heads_of("v", v, kv_len, (kv_heads, value_dim), v_row_stride)?;
        let q = heads_of("q", q, q_len, (options.heads, key_dim), q_row_stride)?;
        let out = heads_of("out", out, q_len, (options.heads, value_dim), out_row_stride)?;
        let arrays = Arrays::new(&raw, options.heads, (q_len, q_len), longest)?;
        let kv = Ragged::new(Plain::new(k.view()?, v.view()?, kv_heads)?, key_starts, query_starts)?;
        let inputs = [k.span(), v.span(), k_starts.span(), q_starts.span()];
        Call { ctx, ws, arrays, q, out }
            .run(&inputs, |ctx, ws, bias, q, outputs| attend_ragged(ctx, ws, &options, bias, q, &kv, outputs))
    })
}
