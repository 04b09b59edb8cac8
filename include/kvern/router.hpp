/* The greatest elements of rows, and the router of a mixture of experts. */
#ifndef KVERN_ROUTER_HPP
#define KVERN_ROUTER_HPP

#include "context.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

/** The k greatest elements of each row and their places, the greatest first: see kvern_top_k. */
inline done top_k(const context &ctx, input x, std::size_t k, span<std::uint32_t> indices,
                  span<float> values) {
    return detail::checked({{"indices.size", indices.size(), "x.rows * k", x.rows() * k},
                            {"values.size", values.size(), "x.rows * k", x.rows() * k}},
                           [&] {
                               return kvern_top_k(ctx.get(), x.rows(), x.cols(), k, x.data(), x.row_stride(),
                                                  indices.data(), values.data());
                           });
}

/** Router options for so many experts a token, to be changed. */
inline kvern_router_options router_options(std::size_t chosen) {
    kvern_router_options options = KVERN_ROUTER_OPTIONS_INIT;
    options.chosen = chosen;
    return options;
}

/** Chooses experts for each token, with the weights of their results: see kvern_route. */
inline done route(const context &ctx, const kvern_router_options &options, std::size_t tokens,
                  std::size_t experts, span<float> logits, span<std::uint32_t> indices,
                  span<float> weights) {
    return detail::checked({{"logits.size", logits.size(), "tokens * experts", tokens * experts},
                            {"indices.size", indices.size(), "tokens * chosen", tokens * options.chosen},
                            {"weights.size", weights.size(), "tokens * chosen", tokens * options.chosen}},
                           [&] {
                               return kvern_route(ctx.get(), &options, tokens, experts, logits.data(),
                                                  indices.data(), weights.data());
                           });
}

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_ROUTER_HPP */
