//! From projections to the cache in one call.

use super::args::{Array, Options, exclusive, no_flags, optional, read_or_default, shared, span_of};
use super::cache::kvern_kv_cache;
use super::context::kvern_context;
use super::guard;
use super::rope::{kvern_rope_pairs, kvern_rope_table, pairs};
use super::status::kvern_status;
use crate::attention::Preparation;
use crate::error::product;

/// What happens to each head of queries and keys before the append: x = rope(rms_norm(x)), each part where it
/// is asked for. Start from KVERN_PREPARATION_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_preparation {
    /// sizeof(kvern_preparation).
    pub struct_size: usize,
    /// Gains of the RMS norm of each query head, head_dim elements, or of its latent, value_dim elements;
    /// NULL for no norm.
    pub q_gain: *const f32,
    /// Gains of the RMS norm of each key head, or of its latent, as of a query head; NULL for no norm.
    pub k_gain: *const f32,
    /// Epsilon of the norm of queries.
    pub q_eps: f32,
    /// Epsilon of the norm of keys.
    pub k_eps: f32,
    /// The rotation; NULL for none.
    pub rope: *const kvern_rope_table,
    /// Which elements are rotated together, a `KVERN_ROPE_*` number.
    pub pairs: kvern_rope_pairs,
    /// 0: no flag is defined.
    pub flags: u32,
    /// Positions of the rotation, one for each token; NULL: where the cache puts the token.
    pub positions: *const usize,
}

const _: () = assert!(
    size_of::<kvern_preparation>() == 5 * size_of::<usize>() + 16,
    "no padding, or garbage becomes an option"
);
// SAFETY: numbers and raw pointers: every pattern is a value.
unsafe impl Options for kvern_preparation {}

/// Prepares queries and keys in place, then appends keys and values to a sequence: for each head
/// `x = rope(rms_norm(x))` as `preparation` says (in a latent cache, whose heads are a latent and a rotated
/// part, the norm is of the first and the rotation of the second), then `kvern_kv_cache_append_to`, with the
/// bits of those calls.
///
/// `preparation`: NULL for nothing. `q`: (tokens, heads * head_dim); `heads` 0 for none. `k`, `v`: as for
/// `kvern_kv_cache_append_to`. `q` and `k` are overwritten and must overlap neither each other nor an input.
/// Allocates nothing.
/// Errors: as `kvern_kv_cache_append_to`; SHAPE for a table or positions that do not fit, OPTION,
/// UNSUPPORTED, ALIASED; nothing is changed then. Threads: `ctx` and the table shared, `cache`, `q` and `k`
/// exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_kv_cache_append_prepared(
    ctx: *const kvern_context,
    cache: *mut kvern_kv_cache,
    sequence: usize,
    preparation: *const kvern_preparation,
    tokens: usize,
    heads: usize,
    q: *mut f32,
    q_row_stride: usize,
    k: *mut f32,
    k_row_stride: usize,
    v: *const f32,
    v_row_stride: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, cache) = (shared("ctx", ctx)?, exclusive("cache", cache)?);
        let raw = read_or_default("preparation", preparation)?;
        no_flags("preparation->flags", raw.flags)?;
        let (key_width, value_width) = cache.widths()?;
        let options = cache.0.get("cache")?.options();
        let dim = options.head_dim;
        let normed = if options.latent { options.value_dim } else { dim };
        let q_gain = optional(raw.q_gain, |gain| Array::new("preparation->q_gain", gain, normed))?;
        let k_gain = optional(raw.k_gain, |gain| Array::new("preparation->k_gain", gain, normed))?;
        let positions = optional(raw.positions, |at| Array::new("preparation->positions", at, tokens))?;
        let v = Array::matrix("v", v, tokens, value_width, v_row_stride)?;
        let inputs = [v.span(), span_of(&q_gain), span_of(&k_gain), span_of(&positions)];
        let q = Array::matrix("q", q, tokens, product("heads * head_dim", &[heads, dim])?, q_row_stride)?;
        let q = q.apart_from(&inputs)?;
        let k = Array::matrix("k", k, tokens, key_width, k_row_stride)?;
        let k = k.apart_from(&inputs)?.apart_from(&[q.span()])?;

        let pairs = pairs("preparation->pairs", raw.pairs)?;
        let rope = match raw.rope.is_null() {
            true => None,
            false => Some((&shared("preparation->rope", raw.rope)?.0, pairs)),
        };
        let preparation = Preparation {
            q_norm: q_gain.map(|gain| (gain.get(), raw.q_eps)),
            k_norm: k_gain.map(|gain| (gain.get(), raw.k_eps)),
            rope,
            positions: positions.map(|positions| positions.get()),
        };
        let (q, k, v) = (q.view_mut()?, k.view_mut()?, v.view()?);
        Ok(cache.0.change("cache", |cache| {
            cache.append_prepared(&ctx.context, sequence, &preparation, q, k, v)
        })??)
    })
}
