// A decoder of one layer with random 8-bit weights writes a text: embedding, attention with a cache, a gated
// feed-forward, the likeliest token as the next one. Checks that reading its text again at once gives the
// same bits, and that the logits are those of plain C++ in double.
//
//     c++ -std=c++17 generate.cpp $(pkg-config --cflags --libs kvern) && ./a.out
#include "reference.hpp"

#include <cstdio>

using namespace example;

namespace {

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
    multiply(m.head, x, {logits.data(), tokens, vocabulary});
    return logits;
}

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
    std::printf("\nread again: %s bits; logits against plain C++: %.1e, bound 1e-3\n",
                same ? "the same" : "other", worst);
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
