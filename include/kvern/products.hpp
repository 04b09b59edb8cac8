/* Matrix products. */
#ifndef KVERN_PRODUCTS_HPP
#define KVERN_PRODUCTS_HPP

#include "context.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

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
            return detail::grown(
                ws, [&](std::size_t *out) { return kvern_matmul_workspace_bytes(ctx.get(), m, n, k, out); },
                [&] {
                    return kvern_matmul(ctx.get(), ws.get(), m, n, k, a.data(), a.row_stride(), 0, b.data(),
                                        b.row_stride(), transpose_b, c.data(), c.row_stride(), epilogue);
                });
        });
}

/** A matrix B of float, f16 or bf16, packed once and multiplied many times. */
class packed_b : public detail::handle<kvern_packed_b, kvern_packed_b_destroy> {
  public:
    using handle::handle;

    /** With `transposed`, b is stored (n, k), as weights are. */
    static returns<packed_b> pack(const context &ctx, input b, bool transposed = false) {
        return pack<const float>(ctx, b, transposed);
    }
    template <class T>
    static returns<packed_b> pack(const context &ctx, matrix<T> b, bool transposed = false) {
        return detail::make<packed_b>([&](kvern_packed_b **out) {
            return kvern_packed_b_pack_dtype(
                ctx.get(), detail::dtype_of<T>(), detail::stored_rows(b, transposed),
                detail::stored_cols(b, transposed), b.data(), b.row_stride(), transposed, out);
        });
    }
    static returns<packed_b> load(const char *path) {
        return detail::make<packed_b>(
            [&](kvern_packed_b **out) { return kvern_packed_b_load(nullptr, path, out); });
    }
    /** Into the memory of the context. */
    static returns<packed_b> load(const context &ctx, const char *path) {
        return detail::make<packed_b>(
            [&](kvern_packed_b **out) { return kvern_packed_b_load(ctx.get(), path, out); });
    }
    /** The file stays as it is while the object lives. */
    static returns<packed_b> map(const char *path) {
        return detail::make<packed_b>([&](kvern_packed_b **out) { return kvern_packed_b_map(path, out); });
    }
    done save(const char *path) const { return detail::finish(kvern_packed_b_save(get(), path)); }
    returns<std::size_t> bytes() const { return number(kvern_packed_b_bytes); }
    returns<std::size_t> k() const { return number(kvern_packed_b_k); }
    returns<std::size_t> n() const { return number(kvern_packed_b_n); }
    returns<kvern_dtype> dtype() const {
        return detail::ask<kvern_dtype>([&](kvern_dtype *out) { return kvern_packed_b_dtype(get(), out); });
    }
    /** Lives as long as the object. */
    returns<const char *> kernel_id() const {
        return detail::ask<const char *>(
            [&](const char **out) { return kvern_packed_b_kernel_id(get(), out); });
    }
    /** `C = beta * C + act(alpha * A * B + bias)`. Grows `ws`. */
    done multiply(const context &ctx, workspace &ws, input a, output c,
                  const kvern_epilogue *epilogue = nullptr,
                  kvern_precision precision = KVERN_PRECISION_EXACT) const {
        return multiply<float>(ctx, ws, a, c, epilogue, precision);
    }
    /** Into a matrix of float, f16 or bf16. */
    template <class T>
    done multiply(const context &ctx, workspace &ws, input a, matrix<T> c,
                  const kvern_epilogue *epilogue = nullptr,
                  kvern_precision precision = KVERN_PRECISION_EXACT) const {
        return run(ctx, ws, a, c, [&] {
            return kvern_packed_b_multiply_with(ctx.get(), ws.get(), get(), precision, c.rows(), c.cols(),
                                                a.cols(), a.data(), a.row_stride(), detail::dtype_of<T>(),
                                                c.data(), c.row_stride(), epilogue);
        });
    }
    /** `C = act(alpha * A * B + bias) * (A * UP)`. Grows `ws`. */
    done multiply_gated(const context &ctx, workspace &ws, const packed_b &up, input a, output c,
                        const kvern_epilogue *epilogue,
                        kvern_precision precision = KVERN_PRECISION_EXACT) const {
        return multiply_gated<float>(ctx, ws, up, a, c, epilogue, precision);
    }
    template <class T>
    done multiply_gated(const context &ctx, workspace &ws, const packed_b &up, input a, matrix<T> c,
                        const kvern_epilogue *epilogue,
                        kvern_precision precision = KVERN_PRECISION_EXACT) const {
        return run(ctx, ws, a, c, [&] {
            return kvern_packed_b_multiply_gated(ctx.get(), ws.get(), get(), up.get(), precision, c.rows(),
                                                 c.cols(), a.cols(), a.data(), a.row_stride(),
                                                 detail::dtype_of<T>(), c.data(), c.row_stride(), epilogue);
        });
    }
    /** A convolution, with a row of C for each patch of the images x: see kvern_packed_b_convolve. Grows
     * `ws`. */
    done convolve(const context &ctx, workspace &ws, const kvern_patches &patches, input x, output c,
                  const kvern_epilogue *epilogue = nullptr) const {
        const std::size_t pixels = patches.images * patches.height * patches.width;
        std::size_t rows = 0;
        const kvern_status known = kvern_patches_count(&patches, &rows);
        if (known != KVERN_STATUS_OK)
            return detail::finish(known);
        return detail::checked({{"x.rows", x.rows(), "images * height * width", pixels},
                                {"x.cols", x.cols(), "channels", patches.channels},
                                {"c.rows", c.rows(), "the patches", rows}},
                               [&] {
                                   const auto query = [&](std::size_t *out) {
                                       return kvern_packed_b_workspace_bytes(ctx.get(), get(), rows, out);
                                   };
                                   return detail::grown(ws, query, [&] {
                                       return kvern_packed_b_convolve(ctx.get(), ws.get(), get(), &patches,
                                                                      x.data(), x.row_stride(), c.cols(),
                                                                      c.data(), c.row_stride(), epilogue);
                                   });
                               });
    }

  private:
    returns<std::size_t> number(kvern_status (*query)(const kvern_packed_b *, std::size_t *)) const {
        return detail::ask<std::size_t>([&](std::size_t *out) { return query(get(), out); });
    }
    template <class T, class Call>
    done run(const context &ctx, workspace &ws, input a, matrix<T> c, Call call) const {
        return detail::checked({{"c.rows", c.rows(), "a.rows", a.rows()}}, [&] {
            const auto query = [&](std::size_t *out) {
                return kvern_packed_b_workspace_bytes(ctx.get(), get(), a.rows(), out);
            };
            return detail::grown(ws, query, call);
        });
    }
};

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_PRODUCTS_HPP */
