/* Row operations. */
#ifndef KVERN_ROWS_HPP
#define KVERN_ROWS_HPP

#include "context.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

/** `y = (x - mean) / sqrt(var + eps) * gain + bias`, row by row. */
inline done layer_norm(const context &ctx, input x, span<const float> gain, span<const float> bias, float eps,
                       output y) {
    return detail::checked({{"gain.size", gain.size(), "x.cols", x.cols()},
                            {"bias.size", bias.size(), "x.cols", x.cols()},
                            {"y.rows", y.rows(), "x.rows", x.rows()},
                            {"y.cols", y.cols(), "x.cols", x.cols()}},
                           [&] {
                               return kvern_layer_norm(ctx.get(), x.rows(), x.cols(), x.data(),
                                                       x.row_stride(), gain.data(), bias.data(), eps,
                                                       y.data(), y.row_stride());
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

/** The options of a norm of a kind, without gain, bias and gate, to be changed. */
inline kvern_norm_options norm_options(kvern_norm_kind kind, float eps) {
    kvern_norm_options options = KVERN_NORM_OPTIONS_INIT;
    options.kind = kind;
    options.eps = eps;
    return options;
}

/** `y = norm(x)` with gain, bias, gate and groups as the options say: see kvern_norm. */
inline done norm(const context &ctx, const kvern_norm_options &options, input x, output y) {
    return detail::checked(
        {{"y.rows", y.rows(), "x.rows", x.rows()}, {"y.cols", y.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_norm(ctx.get(), &options, x.rows(), x.cols(), x.data(), x.row_stride(), y.data(),
                              y.row_stride());
        });
}

/** Softmax of each row, in place. */
inline done softmax(const context &ctx, output x) {
    return detail::finish(kvern_softmax(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride()));
}

/** The default softmax options, to be changed. */
inline kvern_softmax_options softmax_options() {
    kvern_softmax_options options = KVERN_SOFTMAX_OPTIONS_INIT;
    return options;
}

/** `y = softmax(cap(scale * x) + mask)`, row by row; y lies apart from x. */
inline done softmax_with(const context &ctx, const kvern_softmax_options &options, input x, output y) {
    return detail::checked(
        {{"y.rows", y.rows(), "x.rows", x.rows()}, {"y.cols", y.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_softmax_with(ctx.get(), &options, x.rows(), x.cols(), x.data(), x.row_stride(),
                                      y.data(), y.row_stride());
        });
}

/** `x = act(x)`. */
inline done activate(const context &ctx, kvern_activation activation, output x) {
    return detail::finish(
        kvern_activate(ctx.get(), activation, x.rows(), x.cols(), x.data(), x.row_stride()));
}

/** `x = silu(x) * z`. */
inline done silu_mul(const context &ctx, output x, input z) {
    return detail::checked(
        {{"z.rows", z.rows(), "x.rows", x.rows()}, {"z.cols", z.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_silu_mul(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride(), z.data(),
                                  z.row_stride());
        });
}

/** `x = x + z`. */
inline done add(const context &ctx, output x, input z) {
    return detail::checked(
        {{"z.rows", z.rows(), "x.rows", x.rows()}, {"z.cols", z.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_add(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride(), z.data(),
                             z.row_stride());
        });
}

/** `x = act(x) * z`: the gate of a feed-forward layer. */
inline done activate_mul(const context &ctx, kvern_activation activation, output x, input z) {
    return detail::checked(
        {{"z.rows", z.rows(), "x.rows", x.rows()}, {"z.cols", z.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_activate_mul(ctx.get(), activation, x.rows(), x.cols(), x.data(), x.row_stride(),
                                      z.data(), z.row_stride());
        });
}

/** The clamped gate of gpt-oss: see kvern_swiglu_oai. */
inline done swiglu_oai(const context &ctx, float alpha, float limit, output x, input z) {
    return detail::checked(
        {{"z.rows", z.rows(), "x.rows", x.rows()}, {"z.cols", z.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_swiglu_oai(ctx.get(), alpha, limit, x.rows(), x.cols(), x.data(), x.row_stride(),
                                    z.data(), z.row_stride());
        });
}

/** `x = x * z`, element by element. */
inline done mul(const context &ctx, output x, input z) {
    return detail::checked(
        {{"z.rows", z.rows(), "x.rows", x.rows()}, {"z.cols", z.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_mul(ctx.get(), x.rows(), x.cols(), x.data(), x.row_stride(), z.data(),
                             z.row_stride());
        });
}

/** `x = x + by * z`. */
inline done add_scaled(const context &ctx, float by, output x, input z) {
    return detail::checked(
        {{"z.rows", z.rows(), "x.rows", x.rows()}, {"z.cols", z.cols(), "x.cols", x.cols()}}, [&] {
            return kvern_add_scaled(ctx.get(), by, x.rows(), x.cols(), x.data(), x.row_stride(), z.data(),
                                    z.row_stride());
        });
}

/** `x = x * by`. */
inline done scale(const context &ctx, float by, output x) {
    return detail::finish(kvern_scale(ctx.get(), by, x.rows(), x.cols(), x.data(), x.row_stride()));
}

/** `x = cap * tanh(x / cap)`. */
inline done softcap(const context &ctx, float cap, output x) {
    return detail::finish(kvern_softcap(ctx.get(), cap, x.rows(), x.cols(), x.data(), x.row_stride()));
}

/** `out[i] = table[ids[i]]`. */
inline done embedding(const context &ctx, input table, span<const std::uint32_t> ids, output out) {
    return detail::checked({{"out.rows", out.rows(), "ids.size", ids.size()},
                            {"out.cols", out.cols(), "table.cols", table.cols()}},
                           [&] {
                               return kvern_embedding(ctx.get(), table.rows(), table.cols(), table.data(),
                                                      table.row_stride(), ids.size(), ids.data(), out.data(),
                                                      out.row_stride());
                           });
}

/** `out[i] = mean of rows starts[i] .. starts[i + 1] - 1 of x`. */
inline done mean_pool(const context &ctx, input x, span<const std::size_t> starts, output out) {
    return detail::checked({{"starts.size", starts.size(), "out.rows + 1", out.rows() + 1},
                            {"x.cols", x.cols(), "out.cols", out.cols()}},
                           [&] {
                               return kvern_mean_pool(ctx.get(), out.rows(), starts.data(), x.rows(),
                                                      x.cols(), x.data(), x.row_stride(), nullptr, out.data(),
                                                      out.row_stride());
                           });
}

/** The same of those rows whose byte in `seen` is 1. */
inline done mean_pool(const context &ctx, input x, span<const std::size_t> starts,
                      span<const std::uint8_t> seen, output out) {
    return detail::checked({{"starts.size", starts.size(), "out.rows + 1", out.rows() + 1},
                            {"seen.size", seen.size(), "x.rows", x.rows()},
                            {"x.cols", x.cols(), "out.cols", out.cols()}},
                           [&] {
                               return kvern_mean_pool(ctx.get(), out.rows(), starts.data(), x.rows(),
                                                      x.cols(), x.data(), x.row_stride(), seen.data(),
                                                      out.data(), out.row_stride());
                           });
}

/** Each element becomes the sum of it and of all before it, along rows or down columns. */
inline done cumulative_sum(const context &ctx, kvern_along along, output x) {
    return detail::finish(
        kvern_cumulative_sum(ctx.get(), along, x.rows(), x.cols(), x.data(), x.row_stride()));
}

/** Causal convolution of each channel along the tokens, `bias` empty for none: see kvern_causal_conv. */
inline done causal_conv(const context &ctx, input weights, span<const float> bias,
                        kvern_activation activation, span<float> state, input x, output y) {
    const std::size_t kept = weights.rows() == 0 ? 0 : weights.rows() - 1;
    return detail::checked({{"weights.cols", weights.cols(), "x.cols", x.cols()},
                            {"bias.size", bias.size(), "x.cols", bias.size() == 0 ? 0 : x.cols()},
                            {"state.size", state.size(), "(taps - 1) * channels", kept * x.cols()},
                            {"y.rows", y.rows(), "x.rows", x.rows()},
                            {"y.cols", y.cols(), "x.cols", x.cols()}},
                           [&] {
                               return kvern_causal_conv(
                                   ctx.get(), weights.rows(), x.cols(), weights.data(), weights.row_stride(),
                                   bias.size() == 0 ? nullptr : bias.data(), activation, state.data(),
                                   x.rows(), x.data(), x.row_stride(), y.data(), y.row_stride());
                           });
}

/** The index of the greatest element, the first of equals. */
inline returns<std::size_t> argmax(const context &ctx, span<const float> x) {
    return detail::ask<std::size_t>(
        [&](std::size_t *out) { return kvern_argmax(ctx.get(), x.size(), x.data(), out); });
}

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_ROWS_HPP */
