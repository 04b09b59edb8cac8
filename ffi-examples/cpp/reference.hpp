// What generate.cpp is checked against: its model, and the same arithmetic in plain C++, in double.
#ifndef EXAMPLE_REFERENCE_HPP
#define EXAMPLE_REFERENCE_HPP

#include "kvern.hpp"

#include <cmath>
#include <vector>

namespace example {

constexpr std::size_t vocabulary = 61, dim = 64, heads = 4, kv_heads = 2, head_dim = dim / heads,
                      kv_dim = kv_heads * head_dim, hidden = 128, length = 24;
constexpr float eps = 1e-5f;
using floats = std::vector<float>;
using doubles = std::vector<double>;

inline float next_random() { // in [-1, 1)
    static std::uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}

inline kvern::weights random_weights(std::size_t n, std::size_t k) {
    floats w(n * k);
    for (float &x : w)
        x = next_random() / 4.0f;
    return kvern::weights::quantize(KVERN_WEIGHT_FORMAT_Q8_0, {w.data(), n, k});
}

struct model {
    kvern::weights embedding = random_weights(vocabulary, dim);
    kvern::weights head = random_weights(vocabulary, dim);
    kvern::weights q = random_weights(dim, dim), k = random_weights(kv_dim, dim),
                   v = random_weights(kv_dim, dim);
    kvern::weights o = random_weights(dim, dim), gate = random_weights(hidden, dim);
    kvern::weights up = random_weights(hidden, dim), down = random_weights(dim, hidden);
    floats gain = floats(dim, 1.5f);
};

/* One token after the other. */
struct plain {
    std::vector<doubles> keys, values;

    static doubles times(const kvern::weights &w, std::size_t n, const doubles &x) {
        doubles y(n);
        floats row(x.size());
        for (std::size_t i = 0; i < n; i++) {
            w.dequantize_row(i, row);
            for (std::size_t j = 0; j < x.size(); j++)
                y[i] += static_cast<double>(row[j]) * x[j];
        }
        return y;
    }
    static doubles norm(const doubles &x) {
        double squares = 0.0;
        for (double value : x)
            squares += value * value;
        doubles y(x);
        for (double &value : y)
            value *= 1.5 / std::sqrt(squares / static_cast<double>(dim) + static_cast<double>(eps));
        return y;
    }
    static doubles rotated(doubles x, std::size_t position) {
        for (std::size_t h = 0; h < x.size(); h += head_dim)
            for (std::size_t i = 0; i < head_dim / 2; i++) {
                double angle = static_cast<double>(position) * std::pow(10000.0, -2.0 * double(i) / head_dim);
                double &a = x[h + i], &b = x[h + i + head_dim / 2], a0 = a;
                a = a0 * std::cos(angle) - b * std::sin(angle);
                b = a0 * std::sin(angle) + b * std::cos(angle);
            }
        return x;
    }
    doubles logits(const model &m, std::uint32_t id) {
        floats row(dim);
        m.embedding.dequantize_row(id, row);
        doubles x(row.begin(), row.end()), y = norm(x), out(dim);
        const doubles q = rotated(times(m.q, dim, y), keys.size());
        keys.push_back(rotated(times(m.k, kv_dim, y), keys.size()));
        values.push_back(times(m.v, kv_dim, y));
        for (std::size_t h = 0; h < heads; h++) {
            const std::size_t kv = h / (heads / kv_heads) * head_dim;
            doubles p(keys.size());
            double sum = 0.0;
            for (std::size_t s = 0; s < p.size(); sum += p[s++]) {
                for (std::size_t i = 0; i < head_dim; i++)
                    p[s] += q[h * head_dim + i] * keys[s][kv + i];
                p[s] = std::exp(p[s] / std::sqrt(static_cast<double>(head_dim)));
            }
            for (std::size_t s = 0; s < p.size(); s++)
                for (std::size_t i = 0; i < head_dim; i++)
                    out[h * head_dim + i] += p[s] / sum * values[s][kv + i];
        }
        const auto add = [&x](const doubles &z) {
            for (std::size_t i = 0; i < dim; i++)
                x[i] += z[i];
        };
        add(times(m.o, dim, out));
        y = norm(x);
        doubles gate = times(m.gate, hidden, y), up = times(m.up, hidden, y);
        for (std::size_t i = 0; i < hidden; i++)
            gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
        add(times(m.down, dim, gate));
        return times(m.head, vocabulary, x);
    }
};

} // namespace example

#endif
