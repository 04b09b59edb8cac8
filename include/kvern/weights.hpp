/* Quantised weights. */
#ifndef KVERN_WEIGHTS_HPP
#define KVERN_WEIGHTS_HPP

#include "products.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

/** The tensors of a GPTQ layer, with scales of S: float, f16 or bf16. See kvern_weights_from_gptq. */
template <class S>
struct gptq {
    std::size_t n, k;
    std::uint32_t bits;
    std::size_t group;
    span<const std::int32_t> qweight;    // (k * bits / 32, n)
    span<const std::int32_t> qzeros;     // (ceil(k / group), n * bits / 32)
    span<const S> scales;                // (ceil(k / group), n)
    span<const std::int32_t> g_idx = {}; // (k), or empty
    kvern_gptq_zeros zeros = KVERN_GPTQ_ZEROS_MINUS_ONE;
};

/** The tensors of an AWQ layer, with scales of S: float, f16 or bf16. See kvern_weights_from_awq. */
template <class S>
struct awq {
    std::size_t n, k;
    std::size_t group;
    span<const std::int32_t> qweight; // (k, n / 8)
    span<const std::int32_t> qzeros;  // (ceil(k / group), n / 8)
    span<const S> scales;             // (ceil(k / group), n)
};

/** Floats of 8 bits with scales of S: float, f16 or bf16. See kvern_weights_from_float8. */
template <class S>
struct float8 {
    std::size_t n, k;
    kvern_float8 kind;
    std::size_t tile_rows, tile_cols;
    span<const std::uint8_t> codes; // (n, k)
    span<const S> scales;           // (ceil(n / tile_rows), ceil(k / tile_cols))
};

/** A quantised weight matrix W (n output features, k input features). */
class weights : public detail::handle<kvern_weights, kvern_weights_destroy> {
  public:
    using handle::handle;

    static returns<weights> quantize(kvern_weight_format format, input w) {
        return made([&](kvern_weights **out) {
            return kvern_weights_quantize(nullptr, format, w.rows(), w.cols(), w.data(), w.row_stride(), out);
        });
    }
    /** On the threads of the context, into its memory. */
    static returns<weights> quantize(const context &ctx, kvern_weight_format format, input w) {
        return made([&](kvern_weights **out) {
            return kvern_weights_quantize(ctx.get(), format, w.rows(), w.cols(), w.data(), w.row_stride(),
                                          out);
        });
    }
    /** From the data of a GGUF tensor. */
    static returns<weights> from_blocks(kvern_weight_format format, std::size_t n, std::size_t k,
                                        span<const std::uint8_t> blocks) {
        return made([&](kvern_weights **out) {
            return kvern_weights_from_blocks(nullptr, format, n, k, blocks.data(), blocks.size(), out);
        });
    }
    /** On the threads of the context, into its memory. */
    static returns<weights> from_blocks(const context &ctx, kvern_weight_format format, std::size_t n,
                                        std::size_t k, span<const std::uint8_t> blocks) {
        return made([&](kvern_weights **out) {
            return kvern_weights_from_blocks(ctx.get(), format, n, k, blocks.data(), blocks.size(), out);
        });
    }
    /** From rows of blocks that lie `row_bytes` bytes apart. */
    static returns<weights> from_block_rows(const context &ctx, kvern_weight_format format, std::size_t n,
                                            std::size_t k, span<const std::uint8_t> blocks,
                                            std::size_t row_bytes) {
        return made([&](kvern_weights **out) {
            return kvern_weights_from_block_rows(ctx.get(), format, n, k, blocks.data(), blocks.size(),
                                                 row_bytes, out);
        });
    }
    /** Codes around zero in groups: (n, k) codes, (n, ceil(k / group)) scales. */
    static returns<weights> from_groups(const context &ctx, std::uint32_t bits, std::size_t group,
                                        std::size_t n, std::size_t k, span<const std::int8_t> codes,
                                        span<const float> scales) {
        const auto *bytes = reinterpret_cast<const std::uint8_t *>(codes.data());
        return sized({{"codes.size", codes.size(), "n * k", n * k},
                      {"scales.size", scales.size(), "n * ceil(k / group)", n * groups(k, group)}},
                     [&](kvern_weights **out) {
                         return kvern_weights_from_groups(ctx.get(), bits, group, n, k, bytes, scales.data(),
                                                          nullptr, out);
                     });
    }
    /** Codes with a zero for each group. */
    static returns<weights> from_groups(const context &ctx, std::uint32_t bits, std::size_t group,
                                        std::size_t n, std::size_t k, span<const std::uint8_t> codes,
                                        span<const float> scales, span<const std::uint8_t> zeros) {
        return sized({{"codes.size", codes.size(), "n * k", n * k},
                      {"scales.size", scales.size(), "n * ceil(k / group)", n * groups(k, group)},
                      {"zeros.size", zeros.size(), "scales.size", scales.size()}},
                     [&](kvern_weights **out) {
                         return kvern_weights_from_groups(ctx.get(), bits, group, n, k, codes.data(),
                                                          scales.data(), zeros.data(), out);
                     });
    }
    template <class S>
    static returns<weights> from_gptq(const context &ctx, const gptq<S> &t) {
        return sized({{"qweight.size", t.qweight.size(), "k * bits / 32 * n", t.k * t.bits / 32 * t.n},
                      {"qzeros.size", t.qzeros.size(), "ceil(k / group) * (n * bits / 32)",
                       groups(t.k, t.group) * (t.n * t.bits / 32)},
                      {"scales.size", t.scales.size(), "ceil(k / group) * n", groups(t.k, t.group) * t.n},
                      {"g_idx.size", t.g_idx.size(), "k", t.g_idx.size() == 0 ? 0 : t.k}},
                     [&](kvern_weights **out) {
                         return kvern_weights_from_gptq(
                             ctx.get(), t.bits, t.group, t.n, t.k, t.qweight.data(), t.qzeros.data(), t.zeros,
                             detail::dtype_of<S>(), t.scales.data(), t.g_idx.data(), out);
                     });
    }
    template <class S>
    static returns<weights> from_awq(const context &ctx, const awq<S> &t) {
        return sized(
            {{"qweight.size", t.qweight.size(), "k * (n / 8)", t.k * (t.n / 8)},
             {"qzeros.size", t.qzeros.size(), "ceil(k / group) * (n / 8)", groups(t.k, t.group) * (t.n / 8)},
             {"scales.size", t.scales.size(), "ceil(k / group) * n", groups(t.k, t.group) * t.n}},
            [&](kvern_weights **out) {
                return kvern_weights_from_awq(ctx.get(), t.group, t.n, t.k, t.qweight.data(), t.qzeros.data(),
                                              detail::dtype_of<S>(), t.scales.data(), out);
            });
    }
    /** Codes with a minimum for each group: (n, k) codes, (n, ceil(k / group)) scales and minimums. */
    template <class S>
    static returns<weights> from_affine(const context &ctx, std::uint32_t bits, std::size_t group,
                                        std::size_t n, std::size_t k, span<const std::uint8_t> codes,
                                        span<const S> scales, span<const S> minimums) {
        return sized({{"codes.size", codes.size(), "n * k", n * k},
                      {"scales.size", scales.size(), "n * ceil(k / group)", n * groups(k, group)},
                      {"minimums.size", minimums.size(), "scales.size", scales.size()}},
                     [&](kvern_weights **out) {
                         return kvern_weights_from_affine(ctx.get(), bits, group, n, k, codes.data(),
                                                          detail::dtype_of<S>(), scales.data(),
                                                          minimums.data(), out);
                     });
    }
    template <class S>
    static returns<weights> from_float8(const context &ctx, const float8<S> &t) {
        return sized({{"codes.size", t.codes.size(), "n * k", t.n * t.k},
                      {"scales.size", t.scales.size(), "ceil(n / tile_rows) * ceil(k / tile_cols)",
                       groups(t.n, t.tile_rows) * groups(t.k, t.tile_cols)}},
                     [&](kvern_weights **out) {
                         return kvern_weights_from_float8(ctx.get(), t.kind, t.tile_rows, t.tile_cols, t.n,
                                                          t.k, t.codes.data(), detail::dtype_of<S>(),
                                                          t.scales.data(), out);
                     });
    }
    /** Floats of 8 bits with an exponent for each 32: (n, k) codes, (n, k / 32) scales. */
    static returns<weights> from_mxfp8(const context &ctx, kvern_float8 kind, std::size_t n, std::size_t k,
                                       span<const std::uint8_t> codes, span<const std::uint8_t> scales) {
        return sized({{"codes.size", codes.size(), "n * k", n * k},
                      {"scales.size", scales.size(), "n * (k / 32)", n * (k / 32)}},
                     [&](kvern_weights **out) {
                         return kvern_weights_from_mxfp8(ctx.get(), kind, n, k, codes.data(), scales.data(),
                                                         out);
                     });
    }
    static returns<weights> load(const char *path) {
        return made([&](kvern_weights **out) { return kvern_weights_load(nullptr, path, out); });
    }
    /** Into the memory of the context. */
    static returns<weights> load(const context &ctx, const char *path) {
        return made([&](kvern_weights **out) { return kvern_weights_load(ctx.get(), path, out); });
    }
    /** The file stays as it is while the object lives. */
    static returns<weights> map(const char *path) {
        return made([&](kvern_weights **out) { return kvern_weights_map(path, out); });
    }
    done save(const char *path) const { return detail::finish(kvern_weights_save(get(), path)); }
    done to_blocks(span<std::uint8_t> blocks) const {
        return detail::finish(kvern_weights_to_blocks(get(), blocks.data(), blocks.size()));
    }
    done dequantize_row(std::size_t row, span<float> out) const {
        return detail::finish(kvern_weights_dequantize_row(get(), row, out.size(), out.data()));
    }
    returns<std::size_t> bytes() const { return number(kvern_weights_bytes); }
    returns<std::size_t> n() const { return number(kvern_weights_n); }
    returns<std::size_t> k() const { return number(kvern_weights_k); }
    returns<kvern_weight_format> format() const {
        return detail::ask<kvern_weight_format>(
            [&](kvern_weight_format *out) { return kvern_weights_get_format(get(), out); });
    }
    /** `C = beta * C + act(alpha * A * W^T + bias)`. Grows `ws`. */
    done multiply(const context &ctx, workspace &ws, input a, output c,
                  kvern_compute compute = KVERN_COMPUTE_INT8,
                  const kvern_epilogue *epilogue = nullptr) const {
        return detail::checked({{"c.rows", c.rows(), "a.rows", a.rows()}}, [&] {
            const auto query = [&](std::size_t *out) {
                return kvern_weights_workspace_bytes(ctx.get(), get(), compute, a.rows(), out);
            };
            return detail::grown(ws, query, [&] {
                return kvern_weights_multiply(ctx.get(), ws.get(), get(), compute, c.rows(), c.cols(),
                                              a.cols(), a.data(), a.row_stride(), c.data(), c.row_stride(),
                                              epilogue);
            });
        });
    }
    /** `C = act(alpha * A * W^T + bias) * (A * UP^T)`. Grows `ws`. */
    done multiply_gated(const context &ctx, workspace &ws, const weights &up, input a, output c,
                        const kvern_epilogue *epilogue, kvern_compute compute = KVERN_COMPUTE_INT8) const {
        return detail::checked({{"c.rows", c.rows(), "a.rows", a.rows()}}, [&] {
            const kvern_weights *both[] = {get(), up.get()};
            const auto query = [&](std::size_t *out) {
                return kvern_weights_many_workspace_bytes(ctx.get(), compute, a.rows(), 2, both, out);
            };
            return detail::grown(ws, query, [&] {
                return kvern_weights_multiply_gated(ctx.get(), ws.get(), get(), up.get(), compute, c.rows(),
                                                    c.cols(), a.cols(), a.data(), a.row_stride(), c.data(),
                                                    c.row_stride(), epilogue);
            });
        });
    }
    /** `out[i] = W[ids[i]]`, dequantised exactly. */
    done embedding(const context &ctx, span<const std::uint32_t> ids, output out) const {
        return detail::checked({{"out.rows", out.rows(), "ids.size", ids.size()}}, [&] {
            return kvern_embedding_quantized(ctx.get(), get(), out.cols(), ids.size(), ids.data(), out.data(),
                                             out.row_stride());
        });
    }

  private:
    template <class Call>
    static returns<weights> made(Call call) {
        return detail::make<weights>(call);
    }
    /** made(), once the sizes agree. */
    template <class Call>
    static returns<weights> sized(std::initializer_list<detail::pair> pairs, Call call) {
        kvern_weights *raw = nullptr;
#ifdef KVERN_NO_EXCEPTIONS
        const done status = detail::checked(pairs, [&] { return call(&raw); });
        if (!status)
            return failure{status.status(), status.message()};
#else
        detail::checked(pairs, [&] { return call(&raw); });
#endif
        return weights(raw);
    }
    /** ceil(k / group); the library refuses a group of 0. */
    static constexpr std::size_t groups(std::size_t k, std::size_t group) {
        return group == 0 ? 0 : k / group + (k % group != 0);
    }
    returns<std::size_t> number(kvern_status (*query)(const kvern_weights *, std::size_t *)) const {
        return detail::ask<std::size_t>([&](std::size_t *out) { return query(get(), out); });
    }
};

/** One of the products that share their activations: C = act(alpha * A * W^T + bias), times A * UP^T with an
 * up. */
struct product {
    const weights &w;
    output c;
    const kvern_epilogue *epilogue = nullptr;
    const weights *up = nullptr;
};

namespace detail {
/** The products as C takes them, and the weights among them. */
struct product_list {
    kvern_weights_product list[KVERN_WEIGHTS_MAX_PRODUCTS] = {};
    const kvern_weights *all[2 * KVERN_WEIGHTS_MAX_PRODUCTS] = {};
    std::size_t count = 0, rows;

    product_list(span<const product> products, std::size_t a_rows) : rows(a_rows) {
        const std::size_t most = KVERN_WEIGHTS_MAX_PRODUCTS;
        for (std::size_t i = 0; i < products.size() && i < most; ++i) {
            const product &p = products[i];
            if (p.c.rows() != a_rows)
                rows = p.c.rows();
            list[i] = {p.w.get(),  p.up == nullptr ? nullptr : p.up->get(),
                       p.c.data(), p.c.row_stride(),
                       p.c.cols(), p.epilogue};
            all[count++] = p.w.get();
            if (p.up != nullptr)
                all[count++] = p.up->get();
        }
    }
};

inline done too_many_products(std::size_t size) {
    return refuse({KVERN_STATUS_OPTION, "products.size = " + std::to_string(size) + " must be at most " +
                                            std::to_string(KVERN_WEIGHTS_MAX_PRODUCTS)});
}
} // namespace detail

/** Several products of one A, such as q, k, v: at most KVERN_WEIGHTS_MAX_PRODUCTS. Grows `ws`. */
inline done multiply_many(const context &ctx, workspace &ws, input a, span<const product> products,
                          kvern_compute compute = KVERN_COMPUTE_INT8) {
    if (products.size() > KVERN_WEIGHTS_MAX_PRODUCTS)
        return detail::too_many_products(products.size());
    const detail::product_list list(products, a.rows());
    return detail::checked({{"c.rows", list.rows, "a.rows", a.rows()}}, [&] {
        const auto query = [&](std::size_t *out) {
            return kvern_weights_many_workspace_bytes(ctx.get(), compute, a.rows(), list.count, list.all,
                                                      out);
        };
        return detail::grown(ws, query, [&] {
            return kvern_weights_multiply_many(ctx.get(), ws.get(), compute, a.rows(), a.cols(), a.data(),
                                               a.row_stride(), products.size(), list.list);
        });
    });
}

/** Activations that are quantised once, for products that do not come in one call. */
class quantized_rows : public detail::handle<kvern_quantized_rows, kvern_quantized_rows_destroy> {
  public:
    using handle::handle;

    /** Room for up to most_rows rows of k elements. */
    static returns<quantized_rows> create(const context &ctx, std::size_t most_rows, std::size_t k) {
        return detail::make<quantized_rows>([&](kvern_quantized_rows **out) {
            return kvern_quantized_rows_create(ctx.get(), most_rows, k, out);
        });
    }
    /** Quantises rows of f32, f16 or bf16, which take the place of those that were held. */
    done quantize(const context &ctx, input a) { return quantize<const float>(ctx, a); }
    template <class T> done quantize(const context &ctx, matrix<T> a) {
        return detail::finish(kvern_quantized_rows_quantize(
            ctx.get(), get(), a.rows(), a.cols(), detail::dtype_of<T>(), a.data(), a.row_stride()));
    }
    /** Holds rows that were quantised before: (m, k) codes, (m) scales. */
    done set(const context &ctx, std::size_t k, span<const std::int8_t> codes, span<const float> scales) {
        return detail::checked({{"codes.size", codes.size(), "scales.size * k", scales.size() * k}}, [&] {
            return kvern_quantized_rows_set(ctx.get(), get(), scales.size(), k, codes.data(), scales.data());
        });
    }
    /** Products with `rows` rows that are held: at most KVERN_WEIGHTS_MAX_PRODUCTS. Grows `ws`. */
    done multiply(const context &ctx, workspace &ws, std::size_t rows, span<const product> products) const {
        if (products.size() > KVERN_WEIGHTS_MAX_PRODUCTS)
            return detail::too_many_products(products.size());
        const detail::product_list list(products, rows);
        return detail::checked({{"c.rows", list.rows, "rows", rows}}, [&] {
            const auto query = [&](std::size_t *out) {
                return kvern_weights_many_workspace_bytes(ctx.get(), KVERN_COMPUTE_INT8, rows, list.count,
                                                          list.all, out);
            };
            return detail::grown(ws, query, [&] {
                return kvern_quantized_rows_multiply(ctx.get(), ws.get(), get(), rows, products.size(),
                                                     list.list);
            });
        });
    }
};

/** The options of experts with an activation, to be changed. */
inline kvern_expert_options expert_options(kvern_activation activation) {
    kvern_expert_options options = KVERN_EXPERT_OPTIONS_INIT;
    options.activation = activation;
    return options;
}

/** One expert without biases; `up` may be missing. */
inline kvern_expert expert(const weights &gate, const weights *up, const weights &down) {
    return {gate.get(), up == nullptr ? nullptr : up->get(), down.get(), nullptr, nullptr, nullptr};
}

/** Adds the chosen experts of each token, weighted, to its row of `out`: see kvern_experts_multiply.
 * `indices` and `chosen_weights` are (tokens, chosen) without gaps. Grows `ws`. */
inline done multiply_experts(const context &ctx, workspace &ws, const kvern_expert_options &options,
                             span<const kvern_expert> experts, input x, std::size_t chosen,
                             span<const std::uint32_t> indices, span<const float> chosen_weights,
                             output out) {
    return detail::checked(
        {{"indices.size", indices.size(), "x.rows * chosen", x.rows() * chosen},
         {"chosen_weights.size", chosen_weights.size(), "x.rows * chosen", x.rows() * chosen},
         {"out.rows", out.rows(), "x.rows", x.rows()}},
        [&] {
            const auto query = [&](std::size_t *bytes) {
                return kvern_experts_workspace_bytes(ctx.get(), &options, experts.size(), experts.data(),
                                                     x.rows(), chosen, bytes);
            };
            return detail::grown(ws, query, [&] {
                return kvern_experts_multiply(ctx.get(), ws.get(), &options, experts.size(), experts.data(),
                                              x.rows(), x.cols(), x.data(), x.row_stride(), chosen,
                                              indices.data(), chosen_weights.data(), out.cols(), out.data(),
                                              out.row_stride());
            });
        });
}

/** `C_h = A_h * W_h^T` for each head: see kvern_weights_multiply_heads. `heads`: the handles of their
 * weights; the columns of `a` and of `c` are divided among them. Grows `ws`. */
inline done multiply_heads(const context &ctx, workspace &ws, span<const kvern_weights *const> heads, input a,
                           output c, kvern_compute compute = KVERN_COMPUTE_INT8) {
    const std::size_t count = heads.size() == 0 ? 1 : heads.size();
    const std::size_t a_stride = a.cols() / count, c_stride = c.cols() / count;
    return detail::checked(
        {{"a.cols", a.cols(), "heads * (a.cols / heads)", count * a_stride},
         {"c.cols", c.cols(), "heads * (c.cols / heads)", count * c_stride},
         {"c.rows", c.rows(), "a.rows", a.rows()}},
        [&] {
            const kvern_weights *const first = heads.size() == 0 ? nullptr : heads[0];
            std::size_t k = 0, n = 0;
            const kvern_status known = kvern_weights_k(first, &k);
            if (known != KVERN_STATUS_OK)
                return known;
            kvern_weights_n(first, &n);
            const auto query = [&](std::size_t *bytes) {
                return kvern_weights_heads_workspace_bytes(ctx.get(), compute, a.rows(), heads.size(),
                                                           heads.data(), bytes);
            };
            return detail::grown(ws, query, [&] {
                return kvern_weights_multiply_heads(ctx.get(), ws.get(), compute, a.rows(), heads.size(),
                                                    heads.data(), k, a.data(), a.row_stride(), a_stride, n,
                                                    c.data(), c.row_stride(), c_stride);
            });
        });
}

/** Bytes of `rows` rows of k weights in blocks. */
inline returns<std::size_t> blocks_bytes(kvern_weight_format format, std::size_t rows, std::size_t k) {
    return detail::ask<std::size_t>(
        [&](std::size_t *out) { return kvern_blocks_bytes(format, rows, k, out); });
}

/** Blocks of x. */
inline done blocks_quantize(kvern_weight_format format, span<const float> x, span<std::uint8_t> blocks) {
    return detail::finish(kvern_blocks_quantize(format, x.data(), x.size(), blocks.data(), blocks.size()));
}

/** What the blocks stand for. */
inline done blocks_dequantize(kvern_weight_format format, span<const std::uint8_t> blocks, span<float> out) {
    return detail::finish(
        kvern_blocks_dequantize(format, blocks.data(), blocks.size(), out.data(), out.size()));
}

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_WEIGHTS_HPP */
