/* Attention. */
#ifndef KVERN_ATTENTION_HPP
#define KVERN_ATTENTION_HPP

#include "cache.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

/** The default attention options, to be changed. What they point to has the shapes of
 * kvern_attention_options. */
inline kvern_attention_options attention_options() {
    kvern_attention_options options = KVERN_ATTENTION_OPTIONS_INIT;
    return options;
}

/** Attention of the last tokens of each sequence over the cache: q.rows() of sequence 0, or as many rows for
 * each of options.sequences. Grows `ws`. */
inline done attention(const context &ctx, workspace &ws, const kvern_attention_options &options,
                      const kv_cache &cache, input q, output out) {
    const std::size_t heads = options.heads == 0 ? cache.kv_heads() : options.heads;
    const std::size_t sequences = options.sequences_len == 0 ? 1 : options.sequences_len;
    const std::size_t q_len = q.rows() / sequences;
    return detail::checked(
        {{"q.cols", q.cols(), "heads * head_dim", heads * cache.head_dim()},
         {"q.rows", q.rows(), "q_len * sequences_len", q_len * sequences},
         {"out.cols", out.cols(), "heads * value_dim", heads * cache.value_dim()},
         {"out.rows", out.rows(), "q.rows", q.rows()}},
        [&] {
            const auto query = [&](std::size_t *bytes) {
                return kvern_attention_workspace_bytes(ctx.get(), &options, cache.get(), q_len, bytes);
            };
            return detail::grown(ws, query, [&] {
                return kvern_attention(ctx.get(), ws.get(), &options, cache.get(), q_len, q.data(),
                                       q.row_stride(), out.data(), out.row_stride());
            });
        });
}

/** Attention over keys and values in rows of the caller's: k: (kv_len, kv_heads * key_dim), v: (kv_len,
 * kv_heads * value_dim). Grows `ws`. */
inline done attention_plain(const context &ctx, workspace &ws, const kvern_attention_options &options,
                            std::size_t kv_heads, input k, input v, input q, output out) {
    const std::size_t heads = options.heads == 0 ? kv_heads : options.heads;
    const std::size_t key_dim = kv_heads == 0 ? 0 : k.cols() / kv_heads;
    const std::size_t value_dim = kv_heads == 0 ? 0 : v.cols() / kv_heads;
    return detail::checked({{"k.cols", k.cols(), "kv_heads * key_dim", kv_heads * key_dim},
                            {"v.cols", v.cols(), "kv_heads * value_dim", kv_heads * value_dim},
                            {"v.rows", v.rows(), "k.rows", k.rows()},
                            {"q.cols", q.cols(), "heads * key_dim", heads * key_dim},
                            {"out.cols", out.cols(), "heads * value_dim", heads * value_dim},
                            {"out.rows", out.rows(), "q.rows", q.rows()}},
                           [&] {
                               const auto query = [&](std::size_t *bytes) {
                                   return kvern_attention_plain_workspace_bytes(ctx.get(), &options, kv_heads,
                                                                                key_dim, value_dim, k.rows(),
                                                                                q.rows(), bytes);
                               };
                               return detail::grown(ws, query, [&] {
                                   return kvern_attention_plain(
                                       ctx.get(), ws.get(), &options, kv_heads, key_dim, value_dim, k.rows(),
                                       k.data(), k.row_stride(), v.data(), v.row_stride(), q.rows(), q.data(),
                                       q.row_stride(), out.data(), out.row_stride());
                               });
                           });
}

/** attention_plain for sequences of different lengths, one after the other in the rows: see
 * kvern_attention_ragged. `k_starts`, `q_starts`: 0, then the end of each sequence. Grows `ws`. */
inline done attention_ragged(const context &ctx, workspace &ws, const kvern_attention_options &options,
                             span<const std::size_t> k_starts, span<const std::size_t> q_starts,
                             std::size_t kv_heads, input k, input v, input q, output out) {
    const std::size_t heads = options.heads == 0 ? kv_heads : options.heads;
    const std::size_t key_dim = kv_heads == 0 ? 0 : k.cols() / kv_heads;
    const std::size_t value_dim = kv_heads == 0 ? 0 : v.cols() / kv_heads;
    const std::size_t starts = k_starts.size() == 0 ? 1 : k_starts.size();
    return detail::checked(
        {{"k_starts.size", k_starts.size(), "at least 1, here", starts},
         {"q_starts.size", q_starts.size(), "k_starts.size", starts},
         {"k.cols", k.cols(), "kv_heads * key_dim", kv_heads * key_dim},
         {"v.cols", v.cols(), "kv_heads * value_dim", kv_heads * value_dim},
         {"v.rows", v.rows(), "k.rows", k.rows()},
         {"q.cols", q.cols(), "heads * key_dim", heads * key_dim},
         {"out.cols", out.cols(), "heads * value_dim", heads * value_dim},
         {"out.rows", out.rows(), "q.rows", q.rows()}},
        [&] {
            const auto query = [&](std::size_t *bytes) {
                return kvern_attention_plain_workspace_bytes(ctx.get(), &options, kv_heads, key_dim,
                                                             value_dim, k.rows(), q.rows(), bytes);
            };
            return detail::grown(ws, query, [&] {
                return kvern_attention_ragged(ctx.get(), ws.get(), &options, starts - 1, k_starts.data(),
                                              q_starts.data(), kv_heads, key_dim, value_dim, k.rows(),
                                              k.data(), k.row_stride(), v.data(), v.row_stride(), q.rows(),
                                              q.data(), q.row_stride(), out.data(), out.row_stride());
            });
        });
}

/** The usual ALiBi slopes, one for each head. */
inline done alibi_slopes(span<float> slopes) {
    return detail::finish(kvern_alibi_slopes(slopes.size(), slopes.data()));
}

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_ATTENTION_HPP */
