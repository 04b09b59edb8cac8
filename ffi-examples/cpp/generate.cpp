// A decoder of one layer with random 8-bit weights writes a text: embedding, attention with a cache, a gated
// feed-forward, the nearest embedding as the next token. Checks that reading its text again at once gives the same
// bits, and that the logits are those of plain C++ in double.
//
//     c++ -std=c++17 generate.cpp $(pkg-config --cflags --libs kvern) && ./a.out
#include "kvern.hpp"

#include <cmath>
#include <cstdio>
#include <vector>

namespace {

constexpr std::size_t vocabulary = 61, dim = 64, heads = 4, kv_heads = 2, head_dim = dim / heads,
                      kv_dim = kv_heads * head_dim, hidden = 128, length = 24;
constexpr float eps = 1e-5f;
using floats = std::vector<float>;
using doubles = std::vector<double>;

float next_random() { // in [-1, 1)
    static std::uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}

kvern::weights random_weights(std::size_t n, std::size_t k) {
    floats w(n * k);
    for (float &x : w)
        x = next_random() / 4.0f;
    return kvern::weights::quantize(KVERN_WEIGHTS_Q8_0, {w.data(), n, k});
}

struct model {
    kvern::weights embedding = random_weights(vocabulary, dim);
    kvern::weights q = random_weights(dim, dim), k = random_weights(kv_dim, dim), v = random_weights(kv_dim, dim);
    kvern::weights o = random_weights(dim, dim), gate = random_weights(hidden, dim);
    kvern::weights up = random_weights(hidden, dim), down = random_weights(dim, hidden);
    floats gain = floats(dim, 1.5f);
};

/* Logits (tokens, vocabulary) of tokens that follow those in the cache. */
floats forward(const model &m, const kvern::context &ctx, kvern::workspace &ws, kvern::kv_cache &cache,
               const kvern::rope_table &table, kvern::span<const std::uint32_t> ids) {
    const std::size_t tokens = ids.size(), first = cache.len();
    floats x_(tokens * dim), y_(tokens * dim), q_(tokens * dim), k_(tokens * kv_dim), v_(tokens * kv_dim);
    floats gate_(tokens * hidden), up_(tokens * hidden), logits(tokens * vocabulary);
    const kvern::output x{x_.data(), tokens, dim}, y{y_.data(), tokens, dim}, q{q_.data(), tokens, dim};
    const kvern::output k{k_.data(), tokens, kv_dim}, v{v_.data(), tokens, kv_dim};
    const kvern::output gate{gate_.data(), tokens, hidden}, up{up_.data(), tokens, hidden};
    const auto multiply = [&](const kvern::weights &w, kvern::input a, kvern::output c, float beta = 0.0f) {
        kvern_epilogue epilogue = kvern::epilogue();
        epilogue.beta = beta;
        w.multiply(ctx, ws, a, c, KVERN_COMPUTE_F32, &epilogue);
    };
    m.embedding.embedding(ctx, ids, x);
    kvern::rms_norm(ctx, x, m.gain, eps, y);
    multiply(m.q, y, q), multiply(m.k, y, k), multiply(m.v, y, v);
    kvern::rope(ctx, table, KVERN_ROPE_HALVES, first, heads, q);
    kvern::rope(ctx, table, KVERN_ROPE_HALVES, first, kv_heads, k);
    cache.append(k, v);
    kvern_attention_options options = kvern::attention_options();
    options.heads = heads;
    kvern::attention(ctx, ws, options, cache, q, y);
    multiply(m.o, y, x, 1.0f);
    kvern::rms_norm(ctx, x, m.gain, eps, y);
    multiply(m.gate, y, gate), multiply(m.up, y, up);
    kvern::silu_mul(ctx, gate, up);
    multiply(m.down, gate, x, 1.0f);
    multiply(m.embedding, x, {logits.data(), tokens, vocabulary});
    return logits;
}

/* The same in double, a token at a time. */
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
        return times(m.embedding, vocabulary, x);
    }
};

int run() {
    const model m;
    const kvern::context ctx = kvern::context::with_threads(2);
    kvern::workspace ws = kvern::workspace::create();
    kvern::kv_cache cache = kvern::kv_cache::create(kv_heads, head_dim, length);
    const kvern::rope_table table = kvern::rope_table::create(head_dim, length);
    std::vector<std::uint32_t> text{7};
    floats written;
    plain reference;
    double worst = 0.0;
    while (text.size() < length) {
        const floats logits = forward(m, ctx, ws, cache, table, {&text.back(), 1});
        const doubles want = reference.logits(m, text.back());
        for (std::size_t i = 0; i < vocabulary; i++)
            worst = std::fmax(worst, std::fabs(static_cast<double>(logits[i]) - want[i]));
        written.insert(written.end(), logits.begin(), logits.end());
        text.push_back(static_cast<std::uint32_t>(kvern::argmax(ctx, logits)));
    }
    cache.clear();
    const bool same = forward(m, ctx, ws, cache, table, {text.data(), length - 1}) == written;
    for (std::uint32_t id : text)
        std::printf("%u ", id);
    std::printf("\nread again: %s bits; logits against plain C++: %.1e, bound 1e-3\n", same ? "the same" : "other",
                worst);
    return same && worst < 1e-3 ? 0 : 1;
}

} // namespace

int main() {
    try {
        return run();
    } catch (const kvern::error &e) {
        std::fprintf(stderr, "%s: %s\n", kvern_status_name(e.status()), e.what());
        return 1;
    }
}
