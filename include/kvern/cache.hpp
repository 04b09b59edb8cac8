/* The key-value cache. */
#ifndef KVERN_CACHE_HPP
#define KVERN_CACHE_HPP

#include "rope.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

/** The default cache options, to be changed. */
inline kvern_kv_cache_options kv_cache_options() {
    kvern_kv_cache_options options = KVERN_KV_CACHE_OPTIONS_INIT;
    return options;
}

/** The default preparation, none, to be changed. */
inline kvern_preparation preparation() {
    kvern_preparation p = KVERN_PREPARATION_INIT;
    return p;
}

/** Keys and values of one layer. Methods without a sequence mean sequence 0. */
class kv_cache : public detail::handle<kvern_kv_cache, kvern_kv_cache_destroy> {
  public:
    /** Takes over a cache; its heads are those that it was created with. `value_dim`: 0 for head_dim. */
    kv_cache(kvern_kv_cache *raw, std::size_t kv_heads, std::size_t head_dim,
             std::size_t value_dim = 0) noexcept
        : handle(raw), kv_heads_(kv_heads), head_dim_(head_dim),
          value_dim_(value_dim == 0 ? head_dim : value_dim) {}

    static returns<kv_cache> create(const kvern_kv_cache_options &options) {
        return made(options,
                    [&](kvern_kv_cache **out) { return kvern_kv_cache_create(nullptr, &options, out); });
    }
    /** In the memory of the context. */
    static returns<kv_cache> create(const context &ctx, const kvern_kv_cache_options &options) {
        return made(options,
                    [&](kvern_kv_cache **out) { return kvern_kv_cache_create(ctx.get(), &options, out); });
    }
    /** `window`: tokens that a query sees; 0 for all. */
    static returns<kv_cache> create(std::size_t kv_heads, std::size_t head_dim, std::size_t capacity,
                                    std::size_t window = 0) {
        kvern_kv_cache_options options = KVERN_KV_CACHE_OPTIONS_INIT;
        options.kv_heads = kv_heads;
        options.head_dim = head_dim;
        options.capacity = capacity;
        options.window = window;
        return create(options);
    }
    /** A cache of these options with what a file holds. */
    static returns<kv_cache> load(const kvern_kv_cache_options &options, const char *path) {
        return made(options,
                    [&](kvern_kv_cache **out) { return kvern_kv_cache_load(nullptr, &options, path, out); });
    }
    /** In the memory of the context. */
    static returns<kv_cache> load(const context &ctx, const kvern_kv_cache_options &options,
                                  const char *path) {
        return made(options, [&](kvern_kv_cache **out) {
            return kvern_kv_cache_load(ctx.get(), &options, path, out);
        });
    }
    done save(const char *path) const { return detail::finish(kvern_kv_cache_save(get(), path)); }
    done restore(const char *path) { return detail::finish(kvern_kv_cache_restore(get(), path)); }
    /** k: (tokens, kv_heads * head_dim), v: (tokens, kv_heads * value_dim). */
    done append(input k, input v) { return append_to(0, k, v); }
    done append_to(std::size_t sequence, input k, input v) {
        return fitting(k, v, [&] {
            return kvern_kv_cache_append_to(get(), sequence, k.rows(), k.data(), k.row_stride(), v.data(),
                                            v.row_stride());
        });
    }
    /** Norms and rotates q: (tokens, heads * head_dim), and k, in place, then appends k and v. */
    done append_prepared(const context &ctx, std::size_t sequence, const kvern_preparation &preparation,
                         output q, output k, input v) {
        const std::size_t heads = head_dim_ == 0 ? 0 : q.cols() / head_dim_;
        return detail::checked({{"q.cols", q.cols(), "heads * head_dim", heads * head_dim_},
                                {"q.rows", q.rows(), "k.rows", k.rows()},
                                {"k.cols", k.cols(), "kv_heads * head_dim", kv_heads_ * head_dim_},
                                {"v.cols", v.cols(), "kv_heads * value_dim", kv_heads_ * value_dim_},
                                {"v.rows", v.rows(), "k.rows", k.rows()}},
                               [&] {
                                   return kvern_kv_cache_append_prepared(
                                       ctx.get(), get(), sequence, &preparation, k.rows(), heads, q.data(),
                                       q.row_stride(), k.data(), k.row_stride(), v.data(), v.row_stride());
                               });
    }
    /** The key and the value of a position, widened. */
    done token(std::size_t sequence, std::size_t position, span<float> k, span<float> v) const {
        return detail::finish(
            kvern_kv_cache_token(get(), sequence, position, k.size(), k.data(), v.size(), v.data()));
    }
    done clear() { return detail::finish(kvern_kv_cache_clear(get())); }
    done clear_in(std::size_t sequence) { return detail::finish(kvern_kv_cache_clear_in(get(), sequence)); }
    done truncate(std::size_t len) { return detail::finish(kvern_kv_cache_truncate(get(), len)); }
    done truncate_in(std::size_t sequence, std::size_t len) {
        return detail::finish(kvern_kv_cache_truncate_in(get(), sequence, len));
    }
    /** Removes the tokens of positions start..end. */
    done remove(std::size_t sequence, std::size_t start, std::size_t end) {
        return detail::finish(kvern_kv_cache_remove(get(), sequence, start, end));
    }
    /** Rotates the keys of positions start..end by `by` positions. */
    done rotate(std::size_t sequence, std::size_t start, std::size_t end, std::ptrdiff_t by,
                const rope_table &table, kvern_rope_pairs pairs) {
        return detail::finish(kvern_kv_cache_rotate(get(), sequence, start, end, by, table.get(), pairs));
    }
    /** Makes sequence `to` a copy of `from` that shares its pages until one of them writes. */
    done fork(std::size_t from, std::size_t to) {
        return detail::finish(kvern_kv_cache_fork(get(), from, to));
    }
    std::size_t kv_heads() const noexcept { return kv_heads_; }
    std::size_t head_dim() const noexcept { return head_dim_; }
    std::size_t value_dim() const noexcept { return value_dim_; }
    returns<std::size_t> len(std::size_t sequence = 0) const {
        return detail::ask<std::size_t>(
            [&](std::size_t *out) { return kvern_kv_cache_len_of(get(), sequence, out); });
    }
    returns<std::size_t> start(std::size_t sequence = 0) const {
        return detail::ask<std::size_t>(
            [&](std::size_t *out) { return kvern_kv_cache_start_of(get(), sequence, out); });
    }
    returns<std::size_t> bytes() const { return number(kvern_kv_cache_bytes); }
    returns<std::size_t> bytes_used() const { return number(kvern_kv_cache_bytes_used); }
    returns<std::size_t> pages() const { return number(kvern_kv_cache_pages); }
    returns<std::size_t> free_pages() const { return number(kvern_kv_cache_free_pages); }

  private:
    template <class Call>
    static returns<kv_cache> made(const kvern_kv_cache_options &options, Call call) {
        kvern_kv_cache *raw = nullptr;
        const kvern_status status = call(&raw);
        return detail::finish(status, kv_cache(raw, options.kv_heads, options.head_dim, options.value_dim));
    }
    template <class Call>
    done fitting(input k, input v, Call call) const {
        return detail::checked({{"k.cols", k.cols(), "kv_heads * head_dim", kv_heads_ * head_dim_},
                                {"v.cols", v.cols(), "kv_heads * value_dim", kv_heads_ * value_dim_},
                                {"v.rows", v.rows(), "k.rows", k.rows()}},
                               call);
    }
    returns<std::size_t> number(kvern_status (*query)(const kvern_kv_cache *, std::size_t *)) const {
        return detail::ask<std::size_t>([&](std::size_t *out) { return query(get(), out); });
    }

    std::size_t kv_heads_, head_dim_, value_dim_;
};

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_CACHE_HPP */
