/* Recurrent states: the gated delta rule, the selective scan, and the convolution before them. */
#ifndef KVERN_STATE_HPP
#define KVERN_STATE_HPP

#include "context.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

/** The default options of states, to be changed. */
inline kvern_state_options state_options() {
    kvern_state_options options = KVERN_STATE_OPTIONS_INIT;
    return options;
}

/** The matrices of one layer with recurrence, and the last inputs of its convolution, for some sequences. */
class state : public detail::handle<kvern_state, kvern_state_destroy> {
  public:
    /** Takes over states of these options. */
    state(kvern_state *raw, const kvern_state_options &options) noexcept : handle(raw), options_(options) {}

    static returns<state> create(const kvern_state_options &options) {
        return made(options, [&](kvern_state **out) { return kvern_state_create(nullptr, &options, out); });
    }
    /** In the memory of the context. */
    static returns<state> create(const context &ctx, const kvern_state_options &options) {
        return made(options, [&](kvern_state **out) { return kvern_state_create(ctx.get(), &options, out); });
    }
    done clear() { return detail::finish(kvern_state_clear(get())); }
    done clear_in(std::size_t sequence) { return detail::finish(kvern_state_clear_in(get(), sequence)); }
    done fork(std::size_t from, std::size_t to) { return detail::finish(kvern_state_fork(get(), from, to)); }
    /** Tokens that a sequence took. */
    returns<std::size_t> len(std::size_t sequence = 0) const {
        return detail::ask<std::size_t>(
            [&](std::size_t *out) { return kvern_state_len(get(), sequence, out); });
    }
    returns<std::size_t> bytes() const {
        return detail::ask<std::size_t>([&](std::size_t *out) { return kvern_state_bytes(get(), out); });
    }
    /** The matrix of a head: (key_dim, value_dim), without gaps. */
    done read(std::size_t sequence, std::size_t head, span<float> matrix) const {
        return detail::finish(kvern_state_read(get(), sequence, head, matrix.size(), matrix.data()));
    }
    done write(std::size_t sequence, std::size_t head, span<const float> matrix) {
        return detail::finish(kvern_state_write(get(), sequence, head, matrix.size(), matrix.data()));
    }
    done save(const char *path) const { return detail::finish(kvern_state_save(get(), path)); }
    done restore(const char *path) { return detail::finish(kvern_state_restore(get(), path)); }
    /** Convolves x: (tokens, channels) with the inputs that the sequence keeps; `bias` may be empty. */
    done conv(const context &ctx, std::size_t sequence, input weights, span<const float> bias,
              kvern_activation activation, input x, output y) {
        return detail::checked(
            {{"weights.rows", weights.rows(), "taps", options_.taps},
             {"weights.cols", weights.cols(), "channels", options_.channels},
             {"bias.size", bias.size() == 0 ? options_.channels : bias.size(), "channels",
              options_.channels},
             {"x.cols", x.cols(), "channels", options_.channels},
             {"y.cols", y.cols(), "channels", options_.channels},
             {"y.rows", y.rows(), "x.rows", x.rows()}},
            [&] {
                return kvern_state_conv(ctx.get(), get(), sequence, weights.data(), weights.row_stride(),
                                        bias.size() == 0 ? nullptr : bias.data(), activation, x.rows(),
                                        x.data(), x.row_stride(), y.data(), y.row_stride());
            });
    }
    /** The gated delta rule: see kvern_delta_rule. */
    done delta_rule(const context &ctx, span<const std::size_t> sequences, input q, input k, input v,
                    input decay, input beta, float scale, output y) {
        const std::size_t key_heads = options_.key_dim == 0 ? 0 : q.cols() / options_.key_dim;
        const std::size_t values = options_.heads * options_.value_dim;
        return detail::checked(
            {{"q.cols", q.cols(), "key_heads * key_dim", key_heads * options_.key_dim},
             {"q.rows", q.rows(), "y.rows", y.rows()},
             {"k.cols", k.cols(), "q.cols", q.cols()},
             {"k.rows", k.rows(), "y.rows", y.rows()},
             {"v.cols", v.cols(), "heads * value_dim", values},
             {"v.rows", v.rows(), "y.rows", y.rows()},
             {"decay.rows", decay.rows(), "y.rows", y.rows()},
             {"beta.cols", beta.cols(), "heads", options_.heads},
             {"beta.rows", beta.rows(), "y.rows", y.rows()},
             {"y.cols", y.cols(), "heads * value_dim", values}},
            [&] {
                return kvern_delta_rule(ctx.get(), get(), sequences.size(), sequences.data(), y.rows(),
                                        key_heads, q.data(), q.row_stride(), k.data(), k.row_stride(),
                                        v.data(), v.row_stride(), decay.cols(), decay.data(),
                                        decay.row_stride(), beta.data(), beta.row_stride(), scale, y.data(),
                                        y.row_stride());
            });
    }
    /** The selective scan of Mamba-2: see kvern_selective_scan. */
    done selective_scan(const context &ctx, span<const std::size_t> sequences, input x, input dt, input b,
                        input c, span<const float> a, span<const float> d, output y) {
        const std::size_t groups = options_.key_dim == 0 ? 0 : b.cols() / options_.key_dim;
        const std::size_t values = options_.heads * options_.value_dim;
        return detail::checked(
            {{"x.cols", x.cols(), "heads * value_dim", values},
             {"x.rows", x.rows(), "y.rows", y.rows()},
             {"dt.cols", dt.cols(), "heads", options_.heads},
             {"dt.rows", dt.rows(), "y.rows", y.rows()},
             {"b.cols", b.cols(), "groups * key_dim", groups * options_.key_dim},
             {"b.rows", b.rows(), "y.rows", y.rows()},
             {"c.cols", c.cols(), "b.cols", b.cols()},
             {"c.rows", c.rows(), "y.rows", y.rows()},
             {"a.size", a.size(), "heads", options_.heads},
             {"d.size", d.size(), "heads", options_.heads},
             {"y.cols", y.cols(), "heads * value_dim", values}},
            [&] {
                return kvern_selective_scan(ctx.get(), get(), sequences.size(), sequences.data(), y.rows(),
                                            groups, x.data(), x.row_stride(), dt.data(), dt.row_stride(),
                                            b.data(), b.row_stride(), c.data(), c.row_stride(), a.data(),
                                            d.data(), y.data(), y.row_stride());
            });
    }

  private:
    template <class Call> static returns<state> made(const kvern_state_options &options, Call call) {
        kvern_state *raw = nullptr;
        const kvern_status status = call(&raw);
        return detail::finish(status, state(raw, options));
    }

    kvern_state_options options_;
};

/** Steps and decays of recurrent states: see kvern_time_step. `bias` and `factor` may be empty. */
inline done time_step(const context &ctx, span<const float> bias, span<const float> factor, float least,
                      float most, input x, output y) {
    return detail::checked({{"bias.size", bias.size() == 0 ? x.cols() : bias.size(), "x.cols", x.cols()},
                            {"factor.size", factor.size() == 0 ? x.cols() : factor.size(), "x.cols",
                             x.cols()},
                            {"y.rows", y.rows(), "x.rows", x.rows()},
                            {"y.cols", y.cols(), "x.cols", x.cols()}},
                           [&] {
                               return kvern_time_step(ctx.get(), bias.size() == 0 ? nullptr : bias.data(),
                                                      factor.size() == 0 ? nullptr : factor.data(), least,
                                                      most, x.rows(), x.cols(), x.data(), x.row_stride(),
                                                      y.data(), y.row_stride());
                           });
}

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_STATE_HPP */
