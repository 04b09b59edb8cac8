/* GGUF files. */
#ifndef KVERN_GGUF_HPP
#define KVERN_GGUF_HPP

#include "weights.hpp"

#include <string_view>
#include <vector>

namespace kvern {
inline namespace KVERN_ERRORS {

/** A GGUF file, or all parts of a split one. Texts and data that it gives live as long as it. */
class gguf : public detail::handle<kvern_gguf, kvern_gguf_destroy> {
  public:
    using handle::handle;

    /** Mapped: the files stay as they are while the object lives. */
    static returns<gguf> open(const char *path) {
        return detail::make<gguf>([&](kvern_gguf **out) { return kvern_gguf_open(path, out); });
    }
    /** Read into memory, data included. */
    static returns<gguf> load(const char *path) {
        return detail::make<gguf>([&](kvern_gguf **out) { return kvern_gguf_load(path, out); });
    }

    returns<std::size_t> tensor_count() const {
        return detail::ask<std::size_t>(
            [&](std::size_t *out) { return kvern_gguf_tensor_count(get(), out); });
    }
    /** Tensor `index` of tensor_count(). */
    returns<kvern_gguf_tensor> tensor(std::size_t index) const {
        return detail::ask<kvern_gguf_tensor>(
            [&](kvern_gguf_tensor *out) { return kvern_gguf_tensor_at(get(), index, out); });
    }
    returns<kvern_gguf_tensor> tensor(const char *name) const {
        return detail::ask<kvern_gguf_tensor>(
            [&](kvern_gguf_tensor *out) { return kvern_gguf_tensor_find(get(), name, out); });
    }
    /** All elements of a tensor in f32, k together. */
    done read_f32(const char *name, span<float> out) const {
        return detail::finish(kvern_gguf_read_f32(get(), name, out.data(), out.size()));
    }
    /** A tensor, or one of its matrices, as packed weights. */
    returns<kvern::weights> weights(const char *name, std::size_t expert = 0) const {
        return detail::make<kvern::weights>([&](kvern_weights **out) {
            return kvern_weights_from_gguf(nullptr, get(), name, expert, out);
        });
    }
    /** On the threads of the context, into its memory. */
    returns<kvern::weights> weights(const context &ctx, const char *name, std::size_t expert = 0) const {
        return detail::make<kvern::weights>([&](kvern_weights **out) {
            return kvern_weights_from_gguf(ctx.get(), get(), name, expert, out);
        });
    }

    returns<std::size_t> key_count() const {
        return detail::ask<std::size_t>([&](std::size_t *out) { return kvern_gguf_key_count(get(), out); });
    }
    /** Key `index` of key_count(). */
    returns<kvern_gguf_key> key(std::size_t index) const {
        return detail::ask<kvern_gguf_key>(
            [&](kvern_gguf_key *out) { return kvern_gguf_key_at(get(), index, out); });
    }
    returns<kvern_gguf_key> key(const char *name) const {
        return detail::ask<kvern_gguf_key>(
            [&](kvern_gguf_key *out) { return kvern_gguf_key_find(get(), name, out); });
    }
    returns<std::uint64_t> get_u64(const char *key) const {
        return detail::ask<std::uint64_t>(
            [&](std::uint64_t *out) { return kvern_gguf_get_u64(get(), key, out); });
    }
    returns<std::int64_t> get_i64(const char *key) const {
        return detail::ask<std::int64_t>(
            [&](std::int64_t *out) { return kvern_gguf_get_i64(get(), key, out); });
    }
    returns<double> get_f64(const char *key) const {
        return detail::ask<double>([&](double *out) { return kvern_gguf_get_f64(get(), key, out); });
    }
    returns<bool> get_bool(const char *key) const {
        std::int32_t flag = 0;
        const kvern_status status = kvern_gguf_get_bool(get(), key, &flag);
        return detail::finish(status, flag != 0);
    }
    returns<std::string_view> get_str(const char *key) const {
        const char *text = nullptr;
        std::size_t bytes = 0;
        const kvern_status status = kvern_gguf_get_str(get(), key, &text, &bytes);
        return detail::finish(status, std::string_view(text, bytes));
    }
    /** The elements of an array from number `first` on, as many as `out` holds. */
    done get_i64s(const char *key, std::size_t first, span<std::int64_t> out) const {
        return detail::finish(kvern_gguf_get_i64s(get(), key, first, out.size(), out.data()));
    }
    done get_f64s(const char *key, std::size_t first, span<double> out) const {
        return detail::finish(kvern_gguf_get_f64s(get(), key, first, out.size(), out.data()));
    }
    /** Flags, each 0 or 1. */
    done get_bools(const char *key, std::size_t first, span<std::uint8_t> out) const {
        return detail::finish(kvern_gguf_get_bools(get(), key, first, out.size(), out.data()));
    }
    done get_strs(const char *key, std::size_t first, span<std::string_view> out) const {
        std::vector<const char *> texts(out.size());
        std::vector<std::size_t> bytes(out.size());
        const kvern_status status =
            kvern_gguf_get_strs(get(), key, first, out.size(), texts.data(), bytes.data());
        if (status == KVERN_STATUS_OK) {
            for (std::size_t i = 0; i < out.size(); ++i)
                out[i] = std::string_view(texts[i], bytes[i]);
        }
        return detail::finish(status);
    }
};

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_GGUF_HPP */
