/* Rotary position embedding. */
#ifndef KVERN_ROPE_HPP
#define KVERN_ROPE_HPP

#include "context.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

/** The default scaling, none, to be changed. */
inline kvern_rope_scaling rope_scaling() {
    kvern_rope_scaling scaling = KVERN_ROPE_SCALING_INIT;
    return scaling;
}

/** Cosines and sines for rope(). */
class rope_table : public detail::handle<kvern_rope_table, kvern_rope_table_destroy> {
  public:
    using handle::handle;

    static returns<rope_table> create(std::size_t rotary_dim, std::size_t positions, double base = 10000.0) {
        return detail::make<rope_table>([&](kvern_rope_table **out) {
            return kvern_rope_table_create(rotary_dim, positions, base, out);
        });
    }
    static returns<rope_table> create(std::size_t rotary_dim, std::size_t positions, double base,
                                      const kvern_rope_scaling &scaling) {
        return detail::make<rope_table>([&](kvern_rope_table **out) {
            return kvern_rope_table_create_scaled(rotary_dim, positions, base, &scaling, out);
        });
    }
    /** One frequency, in radians a position, for each pair of elements. */
    static returns<rope_table> from_frequencies(span<const double> frequencies, std::size_t positions,
                                                double amplitude = 1.0) {
        return detail::make<rope_table>([&](kvern_rope_table **out) {
            return kvern_rope_table_from_frequencies(frequencies.size(), frequencies.data(), positions,
                                                     amplitude, out);
        });
    }
    /** LongRoPE: one factor, by which the frequency is divided, for each pair of elements. */
    static returns<rope_table> with_factors(span<const double> factors, std::size_t positions,
                                            double base = 10000.0, double amplitude = 1.0) {
        return detail::make<rope_table>([&](kvern_rope_table **out) {
            return kvern_rope_table_with_factors(factors.size(), factors.data(), positions, base, amplitude,
                                                 out);
        });
    }
    returns<std::size_t> positions() const { return number(kvern_rope_table_positions); }
    /** The first position that the table covers. */
    returns<std::size_t> first() const { return number(kvern_rope_table_first); }
    /** Moves the table to as many positions from `first` on. */
    done move_to(std::size_t first) { return detail::finish(kvern_rope_table_move_to(get(), first)); }
    returns<std::size_t> rotary_dim() const { return number(kvern_rope_table_rotary_dim); }
    returns<std::size_t> bytes() const { return number(kvern_rope_table_bytes); }
    /** The cosines and sines of a position, one of each for a pair. */
    done row(std::size_t position, span<float> cos, span<float> sin) const {
        return detail::checked({{"sin.size", sin.size(), "cos.size", cos.size()}}, [&] {
            return kvern_rope_table_row(get(), position, cos.size(), cos.data(), sin.data());
        });
    }

  private:
    returns<std::size_t> number(kvern_status (*query)(const kvern_rope_table *, std::size_t *)) const {
        return detail::ask<std::size_t>([&](std::size_t *out) { return query(get(), out); });
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

/** Rotates x: (tokens, heads * head_dim), token i at positions[i]. */
inline done rope_at(const context &ctx, const rope_table &table, kvern_rope_pairs pairs,
                    span<const std::size_t> positions, std::size_t heads, output x) {
    const std::size_t head_dim = heads == 0 ? 0 : x.cols() / heads;
    return detail::checked({{"x.cols", x.cols(), "heads * head_dim", heads * head_dim},
                            {"positions.size", positions.size(), "x.rows", x.rows()}},
                           [&] {
                               return kvern_rope_at(ctx.get(), table.get(), pairs, positions.data(), x.rows(),
                                                    heads, head_dim, x.data(), x.row_stride());
                           });
}

/** The axis of each pair of a head that is cut into sections: see kvern_rope_sections. */
inline done rope_sections(span<const std::size_t> sections, bool interleaved, span<std::uint8_t> axes) {
    return detail::finish(
        kvern_rope_sections(sections.size(), sections.data(), interleaved, axes.size(), axes.data()));
}

/** Rotates x: (tokens, heads * head_dim), pair p of token t at positions[axes[p] * tokens + t]. */
inline done rope_axes(const context &ctx, const rope_table &table, kvern_rope_pairs pairs,
                      span<const std::uint8_t> axes, std::size_t axis_count,
                      span<const std::size_t> positions, std::size_t heads, output x) {
    const std::size_t head_dim = heads == 0 ? 0 : x.cols() / heads;
    std::size_t rotary_dim = 0;
    (void)kvern_rope_table_rotary_dim(table.get(), &rotary_dim);
    return detail::checked({{"x.cols", x.cols(), "heads * head_dim", heads * head_dim},
                            {"axes.size", axes.size(), "rotary_dim / 2", rotary_dim / 2},
                            {"positions.size", positions.size(), "axis_count * x.rows",
                             axis_count * x.rows()}},
                           [&] {
                               return kvern_rope_axes(ctx.get(), table.get(), pairs, axis_count, axes.data(),
                                                      positions.data(), x.rows(), heads, head_dim, x.data(),
                                                      x.row_stride());
                           });
}

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_ROPE_HPP */
