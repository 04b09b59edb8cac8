/*
 * kvern for C++17: the functions of kvern.h as methods of objects that free themselves. Header only.
 *
 * Objects are created by static functions, can be moved, and free their memory at the end of their scope; get()
 * gives the C handle for what is not wrapped here. Matrices are passed as kvern::matrix<const float> (inputs) and
 * kvern::matrix<float> (outputs): a pointer, rows, columns, and the stride of a row in elements; vectors as
 * kvern::span. Both only view memory of the caller. Everything else (formulas, shapes, threads) is as kvern.h says:
 * const methods may be called from several threads at a time, each with a workspace of its own. Shapes that C has
 * one number for, and views have two, are compared here (KVERN_STATUS_SHAPE).
 *
 * A refused call throws kvern::error with the status and the message. Where KVERN_NO_EXCEPTIONS is defined before
 * this header is included, or exceptions are disabled, nothing throws: what would return T (or nothing) returns a
 * kvern::result<T>, to be asked before it is used:
 *
 *     kvern::context ctx = kvern::context::create();              // throws
 *
 *     kvern::result<kvern::context> ctx = kvern::context::create(); // KVERN_NO_EXCEPTIONS
 *     if (!ctx)
 *         die(ctx.message());
 *     ctx->isa();
 *
 * All sources of one program must agree on KVERN_NO_EXCEPTIONS, or not exchange kvern objects: the two kinds live
 * in different inline namespaces.
 */
#ifndef KVERN_HPP
#define KVERN_HPP

#include "kvern.h"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#if !defined(KVERN_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define KVERN_NO_EXCEPTIONS
#endif
#ifndef KVERN_NO_EXCEPTIONS
#include <stdexcept>
#endif

namespace kvern {

#ifdef KVERN_NO_EXCEPTIONS
inline namespace results {
#else
inline namespace exceptions {
#endif

/** What a call without a value returns in a result. */
struct nothing {};

/** Why a call was refused. */
struct failure {
    kvern_status status;
    std::string message;
};

#ifdef KVERN_NO_EXCEPTIONS

/** A value, or why there is none. */
template <class T>
class [[nodiscard]] result {
  public:
    result(T value) : value_(std::move(value)) {}
    result(failure why) : status_(why.status), message_(std::move(why.message)) {}

    /** Whether there is a value. */
    explicit operator bool() const noexcept { return value_.has_value(); }
    bool has_value() const noexcept { return value_.has_value(); }
    /** KVERN_STATUS_OK, or the status of the failure. */
    kvern_status status() const noexcept { return status_; }
    /** The sentence of the failure, "" for none. */
    const char *message() const noexcept { return message_.c_str(); }
    /** The value, which must be there. */
    T &operator*() & noexcept { return *value_; }
    const T &operator*() const & noexcept { return *value_; }
    T &&operator*() && noexcept { return std::move(*value_); }
    T *operator->() noexcept { return &*value_; }
    const T *operator->() const noexcept { return &*value_; }
    /** The value, or `other`. */
    T value_or(T other) const { return value_ ? *value_ : std::move(other); }

  private:
    std::optional<T> value_;
    kvern_status status_ = KVERN_STATUS_OK;
    std::string message_;
};

/** What a method returns that has nothing to say: a result without a value. */
using done = result<nothing>;
template <class T>
using returns = result<T>;

#else

/** A refused call. what() is the sentence of the library. */
class error : public std::runtime_error {
  public:
    explicit error(const failure &why) : std::runtime_error(why.message), status_(why.status) {}
    /** A KVERN_STATUS_* number. */
    kvern_status status() const noexcept { return status_; }

  private:
    kvern_status status_;
};

using done = void;
template <class T>
using returns = T;

#endif

/** `size` elements from `data` on, of the caller. Made from whatever has data() and size(): vectors, arrays. */
template <class T>
class span {
  public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    template <class C, class = std::enable_if_t<
                           std::is_convertible_v<decltype(std::declval<C &>().data()), T *>>>
    constexpr span(C &&container) noexcept : data_(container.data()), size_(container.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** A row-major matrix of the caller: element (i, j) is data[i * row_stride + j]. */
template <class T>
class matrix {
  public:
    constexpr matrix(T *data, std::size_t rows, std::size_t cols) noexcept : matrix(data, rows, cols, cols) {}
    constexpr matrix(T *data, std::size_t rows, std::size_t cols, std::size_t row_stride) noexcept
        : data_(data), rows_(rows), cols_(cols), row_stride_(row_stride) {}
    /** A writable matrix, to read. */
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
    constexpr matrix(const matrix<U> &m) noexcept : matrix(m.data(), m.rows(), m.cols(), m.row_stride()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t rows() const noexcept { return rows_; }
    constexpr std::size_t cols() const noexcept { return cols_; }
    constexpr std::size_t row_stride() const noexcept { return row_stride_; }
    constexpr T &operator()(std::size_t i, std::size_t j) const noexcept { return data_[i * row_stride_ + j]; }
    constexpr span<T> row(std::size_t i) const noexcept { return {data_ + i * row_stride_, cols_}; }

  private:
    T *data_;
    std::size_t rows_, cols_, row_stride_;
};

using input = matrix<const float>;
using output = matrix<float>;

namespace detail {

/** The failure of the calling thread's last call. */
inline failure last(kvern_status status) { return {status, kvern_last_error_message()}; }

#ifdef KVERN_NO_EXCEPTIONS
inline done refuse(failure why) { return done(std::move(why)); }
inline done finish(kvern_status status) {
    return status == KVERN_STATUS_OK ? done(nothing{}) : done(last(status));
}
template <class T>
returns<T> finish(kvern_status status, T value) {
    return status == KVERN_STATUS_OK ? returns<T>(std::move(value)) : returns<T>(last(status));
}
#else
[[noreturn]] inline void refuse(failure why) { throw error(why); }
inline void finish(kvern_status status) {
    if (status != KVERN_STATUS_OK)
        refuse(last(status));
}
template <class T>
T finish(kvern_status status, T value) {
    finish(status);
    return value;
}
#endif

/** Two numbers that must be the same. */
struct pair {
    const char *what;
    std::size_t got;
    const char *other;
    std::size_t want;
};

/** The first pair that disagrees is the error, else the status of `call`, which is not made before. */
template <class Call>
done checked(std::initializer_list<pair> pairs, Call call) {
    for (const pair &p : pairs) {
        if (p.got != p.want) {
            const std::string message = std::string(p.what) + " = " + std::to_string(p.got) + " must equal " +
                                        p.other + " = " + std::to_string(p.want);
            return refuse({KVERN_STATUS_SHAPE, message});
        }
    }
    return finish(call());
}

constexpr std::size_t stored_rows(const input &b, bool transposed) { return transposed ? b.cols() : b.rows(); }
constexpr std::size_t stored_cols(const input &b, bool transposed) { return transposed ? b.rows() : b.cols(); }

/** Sole owner of a C object. */
template <class T, void (*Destroy)(T *)>
class handle {
  public:
    /** Takes over an object, or NULL. */
    explicit handle(T *raw) noexcept : raw_(raw) {}
    handle(handle &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    handle &operator=(handle &&other) noexcept {
        if (this != &other)
            Destroy(std::exchange(raw_, std::exchange(other.raw_, nullptr)));
        return *this;
    }
    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;
    ~handle() {
        if (raw_ != nullptr) // the call would forget the message of the last error
            Destroy(raw_);
    }

    /** The C object, which stays this one's; NULL after a move. */
    T *get() const noexcept { return raw_; }
    /** The C object, which is the caller's from now on. */
    T *release() noexcept { return std::exchange(raw_, nullptr); }

  private:
    T *raw_;
};

} // namespace detail

/** A tier and the threads that compute. */
class context : public detail::handle<kvern_context, kvern_context_destroy> {
  public:
    using handle::handle;

    /** By default: the calling thread alone, the machine's best tier. */
    static returns<context> create(const kvern_context_options *options = nullptr) {
        kvern_context *raw = nullptr;
        const kvern_status status = kvern_context_create(options, &raw);
        return detail::finish(status, context(raw));
    }
    static returns<context> with_threads(std::uint32_t threads) {
        kvern_context_options options = KVERN_CONTEXT_OPTIONS_INIT;
        options.threads = threads;
        return create(&options);
    }
    returns<kvern_isa> isa() const {
        kvern_isa isa = 0;
        const kvern_status status = kvern_context_isa(get(), &isa);
        return detail::finish(status, isa);
    }
    returns<std::size_t> lanes() const {
        std::size_t lanes = 0;
        const kvern_status status = kvern_context_lanes(get(), &lanes);
        return detail::finish(status, lanes);
    }
    /** The id of the kernel for an operation; lives as long as the context. */
    returns<const char *> kernel_name(const char *operation) const {
        const char *name = nullptr;
        const kvern_status status = kvern_context_kernel_name(get(), operation, &name);
        return detail::finish(status, name);
    }
};

/** Scratch memory, one for each thread. The compute methods below grow it to what they need. */
class workspace : public detail::handle<kvern_workspace, kvern_workspace_destroy> {
  public:
    using handle::handle;

    static returns<workspace> create(std::size_t bytes = 0) {
        kvern_workspace *raw = nullptr;
        const kvern_status status = kvern_workspace_create(bytes, &raw);
        return detail::finish(status, workspace(raw));
    }
    done reserve(std::size_t bytes) { return detail::finish(kvern_workspace_reserve(get(), bytes)); }
    returns<std::size_t> bytes() const {
        std::size_t bytes = 0;
        const kvern_status status = kvern_workspace_bytes(get(), &bytes);
        return detail::finish(status, bytes);
    }
};

/** The default epilogue, to be changed: `C = A * B`. */
inline kvern_epilogue epilogue() {
    kvern_epilogue e = KVERN_EPILOGUE_INIT;
    return e;
}

/** `C = beta * C + act(alpha * A * B + bias)`; with `transpose_b`, b is stored (n, k). Grows `ws`. */
inline done matmul(const context &ctx, workspace &ws, input a, input b, output c, bool transpose_b = false,
                   const kvern_epilogue *epilogue = nullptr) {
    const std::size_t m = a.rows(), n = c.cols(), k = a.cols();
    return detail::checked(
        {{"c.rows", c.rows(), "a.rows", m},
         {"b.rows", detail::stored_rows(b, transpose_b), "a.cols", k},
         {"b.cols", detail::stored_cols(b, transpose_b), "c.cols", n}},
        [&] {
            std::size_t bytes = 0;
            kvern_status status = kvern_matmul_workspace_bytes(ctx.get(), m, n, k, &bytes);
            if (status == KVERN_STATUS_OK)
                status = kvern_workspace_reserve(ws.get(), bytes);
            if (status == KVERN_STATUS_OK)
                status = kvern_matmul_run(ctx.get(), ws.get(), m, n, k, a.data(), a.row_stride(), 0, b.data(),
                                          b.row_stride(), transpose_b, c.data(), c.row_stride(), epilogue);
            return status;
        });
}

/** An f32 matrix B, packed once and multiplied many times. */
class packed_b : public detail::handle<kvern_packed_b, kvern_packed_b_destroy> {
  public:
    using handle::handle;

    /** With `transposed`, b is stored (n, k), as weights are. */
    static returns<packed_b> pack(const context &ctx, input b, bool transposed = false) {
        kvern_packed_b *raw = nullptr;
        const kvern_status status =
            kvern_packed_b_pack(ctx.get(), detail::stored_rows(b, transposed), detail::stored_cols(b, transposed),
                                b.data(), b.row_stride(), transposed, &raw);
        return detail::finish(status, packed_b(raw));
    }
    returns<std::size_t> bytes() const {
        std::size_t bytes = 0;
        const kvern_status status = kvern_packed_b_bytes(get(), &bytes);
        return detail::finish(status, bytes);
    }
    /** `C = beta * C + act(alpha * A * B + bias)`. Grows `ws`. */
    done multiply(const context &ctx, workspace &ws, input a, output c,
                  const kvern_epilogue *epilogue = nullptr) const {
        return detail::checked({{"c.rows", c.rows(), "a.rows", a.rows()}}, [&] {
            std::size_t bytes = 0;
            kvern_status status = kvern_packed_b_workspace_bytes(ctx.get(), get(), a.rows(), &bytes);
            if (status == KVERN_STATUS_OK)
                status = kvern_workspace_reserve(ws.get(), bytes);
            if (status == KVERN_STATUS_OK)
                status = kvern_packed_b_multiply(ctx.get(), ws.get(), get(), c.rows(), c.cols(), a.cols(), a.data(),
                                                 a.row_stride(), c.data(), c.row_stride(), epilogue);
            return status;
        });
    }
};

/** A quantised weight matrix W (n output features, k input features). */
class weights : public detail::handle<kvern_weights, kvern_weights_destroy> {
  public:
    using handle::handle;

    static returns<weights> quantize(kvern_weight_format format, input w) {
        kvern_weights *raw = nullptr;
        const kvern_status status =
            kvern_weights_quantize(format, w.rows(), w.cols(), w.data(), w.row_stride(), &raw);
        return detail::finish(status, weights(raw));
    }
    /** From the data of a GGUF tensor. */
    static returns<weights> from_blocks(kvern_weight_format format, std::size_t n, std::size_t k,
                                        span<const std::uint8_t> blocks) {
        kvern_weights *raw = nullptr;
        const kvern_status status = kvern_weights_from_blocks(format, n, k, blocks.data(), blocks.size(), &raw);
        return detail::finish(status, weights(raw));
    }
    done to_blocks(span<std::uint8_t> blocks) const {
        return detail::finish(kvern_weights_to_blocks(get(), blocks.data(), blocks.size()));
    }
    done dequantize_row(std::size_t row, span<float> out) const {
        return detail::finish(kvern_weights_dequantize_row(get(), row, out.size(), out.data()));
    }
    returns<std::size_t> bytes() const {
        std::size_t bytes = 0;
        const kvern_status status = kvern_weights_bytes(get(), &bytes);
        return detail::finish(status, bytes);
    }
    /** `C = beta * C + act(alpha * A * W^T + bias)`. Grows `ws`. */
    done multiply(const context &ctx, workspace &ws, input a, output c,
                  kvern_compute compute = KVERN_COMPUTE_INT8, const kvern_epilogue *epilogue = nullptr) const {
        return detail::checked({{"c.rows", c.rows(), "a.rows", a.rows()}}, [&] {
            std::size_t bytes = 0;
            kvern_status status = kvern_weights_workspace_bytes(ctx.get(), get(), compute, a.rows(), &bytes);
            if (status == KVERN_STATUS_OK)
                status = kvern_workspace_reserve(ws.get(), bytes);
            if (status == KVERN_STATUS_OK)
                status = kvern_weights_multiply(ctx.get(), ws.get(), get(), compute, c.rows(), c.cols(), a.cols(),
                                                a.data(), a.row_stride(), c.data(), c.row_stride(), epilogue);
            return status;
        });
    }
    /** `out[i] = W[ids[i]]`, dequantised exactly. */
    done embedding(const context &ctx, span<const std::uint32_t> ids, output out) const {
        return detail::checked({{"out.rows", out.rows(), "ids.size", ids.size()}}, [&] {
            return kvern_embedding_quantized(ctx.get(), get(), out.cols(), ids.size(), ids.data(), out.data(),
                                             out.row_stride());
        });
    }
};

/** Keys and values of one layer. */
class kv_cache : public detail::handle<kvern_kv_cache, kvern_kv_cache_destroy> {
  public:
    /** Takes over a cache; its heads are those that it was created with. */
    kv_cache(kvern_kv_cache *raw, std::size_t kv_heads, std::size_t head_dim) noexcept
        : handle(raw), kv_heads_(kv_heads), head_dim_(head_dim) {}

    static returns<kv_cache> create(const kvern_kv_cache_options &options) {
        kvern_kv_cache *raw = nullptr;
        const kvern_status status = kvern_kv_cache_create(&options, &raw);
        return detail::finish(status, kv_cache(raw, options.kv_heads, options.head_dim));
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
    /** k, v: (tokens, kv_heads * head_dim). */
    done append(input k, input v) {
        const std::size_t width = kv_heads_ * head_dim_;
        return detail::checked({{"k.cols", k.cols(), "kv_heads * head_dim", width},
                                {"v.cols", v.cols(), "kv_heads * head_dim", width},
                                {"v.rows", v.rows(), "k.rows", k.rows()}},
                               [&] {
                                   return kvern_kv_cache_append(get(), k.rows(), k.data(), k.row_stride(), v.data(),
                                                                v.row_stride());
                               });
    }
    done truncate(std::size_t len) { return detail::finish(kvern_kv_cache_truncate(get(), len)); }
    done clear() { return detail::finish(kvern_kv_cache_clear(get())); }
    std::size_t kv_heads() const noexcept { return kv_heads_; }
    std::size_t head_dim() const noexcept { return head_dim_; }
    returns<std::size_t> len() const { return number(kvern_kv_cache_len); }
    returns<std::size_t> start() const { return number(kvern_kv_cache_start); }
    returns<std::size_t> bytes() const { return number(kvern_kv_cache_bytes); }

  private:
    returns<std::size_t> number(kvern_status (*query)(const kvern_kv_cache *, std::size_t *)) const {
        std::size_t value = 0;
        const kvern_status status = query(get(), &value);
        return detail::finish(status, value);
    }

    std::size_t kv_heads_, head_dim_;
};

/** The default attention options, to be changed. */
inline kvern_attention_options attention_options() {
    kvern_attention_options options = KVERN_ATTENTION_OPTIONS_INIT;
    return options;
}

/** Attention of the cache's last q.rows() tokens over the cache. Grows `ws`. */
inline done attention(const context &ctx, workspace &ws, const kvern_attention_options &options,
                      const kv_cache &cache, input q, output out) {
    const std::size_t heads = options.heads == 0 ? cache.kv_heads() : options.heads;
    const std::size_t width = heads * cache.head_dim();
    return detail::checked(
        {{"q.cols", q.cols(), "heads * head_dim", width},
         {"out.cols", out.cols(), "heads * head_dim", width},
         {"out.rows", out.rows(), "q.rows", q.rows()}},
        [&] {
            std::size_t bytes = 0;
            kvern_status status =
                kvern_attention_workspace_bytes(ctx.get(), &options, cache.get(), q.rows(), &bytes);
            if (status == KVERN_STATUS_OK)
                status = kvern_workspace_reserve(ws.get(), bytes);
            if (status == KVERN_STATUS_OK)
                status = kvern_attention_run(ctx.get(), ws.get(), &options, cache.get(), q.rows(), q.data(),
                                             q.row_stride(), out.data(), out.row_stride());
            return status;
        });
}

/** Cosines and sines for rope(). */
class rope_table : public detail::handle<kvern_rope_table, kvern_rope_table_destroy> {
  public:
    using handle::handle;

    static returns<rope_table> create(std::size_t rotary_dim, std::size_t positions, double base = 10000.0) {
        kvern_rope_table *raw = nullptr;
        const kvern_status status = kvern_rope_table_create(rotary_dim, positions, base, &raw);
        return detail::finish(status, rope_table(raw));
    }
};

/** Rotates x: (tokens, heads * head_dim), token i at position first + i. */
inline done rope(const context &ctx, const rope_table &table, kvern_rope_pairs pairs, std::size_t first,
                 std::size_t heads, output x) {
    const std::size_t head_dim = heads == 0 ? 0 : x.cols() / heads;
    return detail::checked({{"x.cols", x.cols(), "heads * head_dim", heads * head_dim}}, [&] {
        return kvern_rope(ctx.get(), table.get(), pairs, first, x.rows(), heads, head_dim, x.data(),
                          x.row_stride());
    });
}

/** `y = (x - mean) / sqrt(var + eps) * gain + bias`, row by row. */
inline done layer_norm(const context &ctx, input x, span<const float> gain, span<const float> bias, float eps,
                       output y) {
    return detail::checked({{"gain.size", gain.size(), "x.cols", x.cols()},
                            {"bias.size", bias.size(), "x.cols", x.cols()},
                            {"y.rows", y.rows(), "x.rows", x.rows()},
                            {"y.cols", y.cols(), "x.cols", x.cols()}},
                           [&] {
                               return kvern_layer_norm(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride(),
                                                       gain.data(), bias.data(), eps, y.data(), y.row_stride());
                           });
}

/** `y = x / sqrt(mean(x^2) + eps) * gain`, row by row. */
inline done rms_norm(const context &ctx, input x, span<const float> gain, float eps, output y) {
    return detail::checked({{"gain.size", gain.size(), "x.cols", x.cols()},
                            {"y.rows", y.rows(), "x.rows", x.rows()},
                            {"y.cols", y.cols(), "x.cols", x.cols()}},
                           [&] {
                               return kvern_rms_norm(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride(),
                                                     gain.data(), eps, y.data(), y.row_stride());
                           });
}

/** Softmax of each row, in place. */
inline done softmax(const context &ctx, output x) {
    return detail::finish(kvern_softmax(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride()));
}

/** `x = act(x)`. */
inline done activate(const context &ctx, kvern_activation activation, output x) {
    return detail::finish(kvern_activate(ctx.get(), activation, x.rows(), x.cols(), x.data(), x.row_stride()));
}

/** `x = silu(x) * z`. */
inline done silu_mul(const context &ctx, output x, input z) {
    return detail::checked(
        {{"z.rows", z.rows(), "x.rows", x.rows()}, {"z.cols", z.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_silu_mul(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride(), z.data(), z.row_stride());
        });
}

/** `x = x + z`. */
inline done add(const context &ctx, output x, input z) {
    return detail::checked(
        {{"z.rows", z.rows(), "x.rows", x.rows()}, {"z.cols", z.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_add(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride(), z.data(), z.row_stride());
        });
}

/** `out[i] = table[ids[i]]`. */
inline done embedding(const context &ctx, input table, span<const std::uint32_t> ids, output out) {
    return detail::checked(
        {{"out.rows", out.rows(), "ids.size", ids.size()}, {"out.cols", out.cols(), "table.cols", table.cols()}},
        [&] {
            return kvern_embedding(ctx.get(), table.rows(), table.cols(), table.data(), table.row_stride(),
                                   ids.size(), ids.data(), out.data(), out.row_stride());
        });
}

/** The index of the greatest element, the first of equals. */
inline returns<std::size_t> argmax(const context &ctx, span<const float> x) {
    std::size_t index = 0;
    const kvern_status status = kvern_argmax(ctx.get(), x.size(), x.data(), &index);
    return detail::finish(status, index);
}

} // namespace exceptions or results
} // namespace kvern

#endif /* KVERN_HPP */
