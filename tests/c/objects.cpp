/* kvern.hpp: a call of every kind, so that arguments arrive where they belong. */
#include <kvern.hpp>

#include "expect.hpp"

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using floats = std::vector<float>;

/* Memory that is counted. */
std::size_t held = 0;

void *allocate(void *, std::size_t bytes, std::size_t alignment) {
    held += bytes;
    return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void release(void *, void *start, std::size_t bytes) {
    held -= bytes;
    std::free(start);
}

floats values(std::size_t len, std::size_t step) {
    floats x(len);
    for (std::size_t i = 0; i < len; ++i)
        x[i] = float(i * step % 251) / 125 - 1;
    return x;
}

constexpr std::size_t N = 16, K = 64;

int weights(const kvern::context &ctx, kvern::workspace &ws) {
    const floats w = values(N * K, 37), x = values(2 * K, 11);
    floats y(2 * N), z(2 * N), many(2 * N), gated(2 * N), row(K);
    const kvern::input rows{w.data(), N, K}, in{x.data(), 2, K};
    const auto out = [](floats &c) { return kvern::output{c.data(), 2, N}; };
    kvern_epilogue silu = kvern::epilogue();
    silu.activation = KVERN_ACTIVATION_SILU;
    kvern_context_options counted = KVERN_CONTEXT_OPTIONS_INIT;
    counted.threads = 2;
    counted.allocate = allocate;
    counted.release = release;
    {
        const kvern::context mine = kvern::context::create(&counted);
        const auto one = kvern::weights::quantize(KVERN_WEIGHT_FORMAT_Q8_0, rows);
        const auto two = kvern::weights::quantize(mine, KVERN_WEIGHT_FORMAT_Q8_0, rows);
        EXPECT(held == two.bytes() && two.n() == N && two.k() == K &&
               two.format() == KVERN_WEIGHT_FORMAT_Q8_0);
        std::vector<std::uint8_t> blocks(kvern::blocks_bytes(KVERN_WEIGHT_FORMAT_Q8_0, N, K)),
            again(blocks.size());
        kvern::blocks_quantize(KVERN_WEIGHT_FORMAT_Q8_0, w, blocks);
        two.to_blocks(again);
        EXPECT(blocks == again);
        floats back(N * K);
        kvern::blocks_dequantize(KVERN_WEIGHT_FORMAT_Q8_0, blocks, back);
        two.dequantize_row(3, row);
        EXPECT(row == floats(back.begin() + 3 * K, back.begin() + 4 * K));
        const auto three = kvern::weights::from_blocks(mine, KVERN_WEIGHT_FORMAT_Q8_0, N, K, blocks);
        EXPECT(kvern::weights::from_blocks(KVERN_WEIGHT_FORMAT_Q8_0, N, K, blocks).bytes() == three.bytes());
        const auto every = kvern::weights::from_block_rows(mine, KVERN_WEIGHT_FORMAT_Q8_0, N, K, blocks,
                                                           blocks.size() / N);
        EXPECT(every.bytes() == three.bytes());
        kvern::workspace scratch = kvern::workspace::create(mine, 64);
        one.multiply(ctx, ws, in, out(y));
        three.multiply(mine, scratch, in, out(z));
        EXPECT(y == z);
        one.multiply_gated(ctx, ws, two, in, out(y), &silu);
        const std::vector<kvern::product> products{{one, out(many)}, {one, out(gated), &silu, &two}};
        kvern::multiply_many(mine, scratch, in, products);
        EXPECT(many == z && gated == y);
        one.save("weights");
        EXPECT(kvern::weights::load("weights").bytes() == one.bytes());
        EXPECT(kvern::weights::load(mine, "weights").k() == K && kvern::weights::map("weights").n() == N);
        const std::uint32_t id = 3;
        floats embedded(K);
        kvern::weights::map("weights").embedding(ctx, {&id, 1}, {embedded.data(), 1, K});
        EXPECT(embedded == row);
    }
    EXPECT(held == 0);

    // Codes in groups: all codes and zeros of the checkpoints are 0, stored as they are, and so are the
    // weights.
    const std::size_t group = 32;
    const std::vector<std::int32_t> words(K / 8 * N), zeros(K / group * N / 8);
    const floats ones(K / group * N, 1.0f);
    const std::vector<kvern::bf16> brain(ones.size(), kvern::bf16{0x3f80});
    const std::vector<std::int8_t> codes(N * K, 3);
    const std::vector<std::uint8_t> raised(N * K, 9), points(ones.size(), 4);
    kvern::weights::from_gptq(
        ctx, kvern::gptq<float>{N, K, 4, group, words, zeros, ones, {}, KVERN_GPTQ_ZEROS_AS_IS})
        .dequantize_row(N - 1, row);
    EXPECT(row == floats(K));
    row.assign(K, 1.0f);
    kvern::weights::from_awq(ctx, kvern::awq<kvern::bf16>{N, K, group, words, zeros, brain})
        .dequantize_row(0, row);
    EXPECT(row == floats(K));
    kvern::weights::from_groups(ctx, 4, group, N, K, codes, ones).dequantize_row(0, row);
    EXPECT(row == floats(K, 3.0f));
    kvern::weights::from_groups(ctx, 4, group, N, K, raised, ones, points).dequantize_row(0, row);
    EXPECT(row == floats(K, 5.0f));
    kvern::weights::from_affine<float>(ctx, 5, group, N, K, raised, ones, ones).dequantize_row(0, row);
    EXPECT(row == floats(K, 10.0f));
    /* 0x38 is 1 in E4M3, 0x3c in E5M2; 128 stands for a factor of 2. */
    const std::vector<std::uint8_t> one(N * K, 0x38), two(N * K / 32, 128), half_one(N * K, 0x3c);
    const std::vector<kvern::bf16> tile(1, kvern::bf16{0x4040});
    const kvern::float8<kvern::bf16> one_scale{N, K, KVERN_FLOAT8_E4M3, N, K, one, tile};
    const auto float8 = kvern::weights::from_float8(ctx, one_scale);
    float8.dequantize_row(0, row);
    EXPECT(row == floats(K, 3.0f) && float8.format() == KVERN_WEIGHT_FORMAT_FLOAT8);
    kvern::weights::from_mxfp8(ctx, KVERN_FLOAT8_E5M2, N, K, half_one, two).dequantize_row(0, row);
    EXPECT(row == floats(K, 2.0f));
    try {
        (void)kvern::weights::from_groups(ctx, 4, group, N, K, codes, {ones.data(), 1});
        return 1;
    } catch (const kvern::error &e) {
        EXPECT(std::string(e.what()) == "scales.size = 1 must equal n * ceil(k / group) = 32");
    }
    return 0;
}

int products(const kvern::context &ctx, kvern::workspace &ws) {
    const std::vector<kvern::bf16> ones(N * K, kvern::bf16{0x3f80});
    const floats x(2 * K, 0.5f);
    const kvern::input in{x.data(), 2, K};
    floats y(2 * N), gated(2 * N);
    std::vector<kvern::f16> narrow(2 * N);
    const auto b = kvern::packed_b::pack(ctx, kvern::matrix<const kvern::bf16>{ones.data(), N, K}, true);
    EXPECT(b.k() == K && b.n() == N && b.dtype() == KVERN_DTYPE_BF16 && b.kernel_id()[0] != '\0');
    b.multiply(ctx, ws, in, {y.data(), 2, N});
    EXPECT(y == floats(2 * N, 32.0f));
    b.multiply(ctx, ws, in, kvern::matrix<kvern::f16>{narrow.data(), 2, N});
    EXPECT(narrow == std::vector<kvern::f16>(2 * N, kvern::f16{0x5000}));
    const kvern_epilogue none = kvern::epilogue();
    b.multiply_gated(ctx, ws, b, in, {gated.data(), 2, N}, &none);
    EXPECT(gated == floats(2 * N, 1024.0f));
    kvern_patches patches = KVERN_PATCHES_INIT;
    patches.images = 1;
    patches.height = 1;
    patches.width = 3;
    patches.channels = K / 2;
    patches.kernel_height = 1;
    patches.kernel_width = 2;
    floats pieces(2 * N);
    b.convolve(ctx, ws, patches, {x.data(), 3, K / 2}, {pieces.data(), 2, N});
    EXPECT(pieces == floats(2 * N, 32.0f));
    b.save("matrix");
    EXPECT(kvern::packed_b::load("matrix").bytes() == b.bytes() &&
           kvern::packed_b::load(ctx, "matrix").n() == N);
    EXPECT(kvern::packed_b::map("matrix").k() == K);
    const kvern::kernel first = ctx.kernel(0);
    EXPECT(ctx.kernel_count() > 0 && std::string(ctx.kernel_name(first.operation)) == first.id);
    return 0;
}

int caches(const kvern::context &ctx, kvern::workspace &ws) {
    const std::size_t heads = 2, dim = 8, value = 16, tokens = 3;
    kvern_kv_cache_options options = kvern::kv_cache_options();
    options.kv_heads = heads;
    options.head_dim = dim;
    options.value_dim = value;
    options.capacity = 8;
    options.sequences = 2;
    kvern::kv_cache cache = kvern::kv_cache::create(ctx, options);
    floats k = values(tokens * heads * dim, 7), q = values(tokens * heads * dim, 5);
    const floats v = values(tokens * heads * value, 3);
    const kvern::input keys{k.data(), tokens, heads * dim}, queries{q.data(), tokens, heads * dim};
    const kvern::input rows{v.data(), tokens, heads * value};
    floats out(tokens * heads * value), plain(out.size()), both(2 * heads * value);
    const auto result = [&](floats &x) {
        return kvern::output{x.data(), x.size() / heads / value, heads * value};
    };
    cache.append_to(1, keys, rows);
    cache.fork(1, 0);
    EXPECT(cache.len() == tokens && cache.len(1) == tokens && cache.start(1) == 0 &&
           cache.value_dim() == value);
    EXPECT(cache.free_pages() + 1 == cache.pages() && cache.bytes_used() * cache.pages() == cache.bytes());
    kvern_attention_options call = kvern::attention_options();
    kvern::attention(ctx, ws, call, cache, queries, result(out));
    kvern::attention_plain(ctx, ws, call, heads, keys, rows, queries, result(plain));
    EXPECT(out == plain);
    const std::vector<std::size_t> starts{0, tokens, tokens};
    kvern::attention_ragged(ctx, ws, call, starts, starts, heads, keys, rows, queries, result(plain));
    EXPECT(out == plain);
    const std::vector<std::size_t> sequences{1, 0};
    call.sequences = sequences.data();
    call.sequences_len = sequences.size();
    kvern::attention(ctx, ws, call, cache, {q.data() + heads * dim, 2, heads * dim}, result(both));
    EXPECT(both.size() == 2 * heads * value);

    floats key(heads * dim), values_of(heads * value);
    cache.token(1, 2, key, values_of);
    EXPECT(key == floats(k.end() - heads * dim, k.end()) &&
           values_of == floats(v.end() - heads * value, v.end()));
    const auto table = kvern::rope_table::create(dim, 16);
    kvern_preparation prepared = kvern::preparation();
    prepared.rope = table.get();
    floats rotated = k, turned = q;
    cache.append_prepared(ctx, 0, prepared, {turned.data(), tokens, heads * dim},
                          {k.data(), tokens, heads * dim}, rows);
    kvern::rope(ctx, table, prepared.pairs, tokens, heads, {rotated.data(), tokens, heads * dim});
    EXPECT(rotated == k && cache.len() == 2 * tokens);
    cache.remove(0, 0, 1);
    cache.rotate(0, 0, 2, -1, table, prepared.pairs);
    cache.truncate_in(0, 4);
    cache.save("cache");
    kvern::kv_cache again = kvern::kv_cache::load(options, "cache");
    EXPECT(again.len() == 4 && again.len(1) == tokens);
    again.clear_in(1);
    again.truncate(2);
    EXPECT(again.len() == 2 && again.len(1) == 0);
    again.clear();
    again.restore("cache");
    EXPECT(again.len() == 4);
    return 0;
}

int the_rest(const kvern::context &ctx) {
    const std::vector<double> frequencies{1.0, 0.5};
    const auto table = kvern::rope_table::from_frequencies(frequencies, 4);
    floats cos(2), sin(2);
    table.row(0, cos, sin);
    EXPECT(cos == floats(2, 1.0f) && sin == floats(2) && table.positions() == 4 && table.rotary_dim() == 4);
    const auto scaled = kvern::rope_table::create(4, 4, 10000.0, kvern::rope_scaling());
    EXPECT(scaled.bytes() == table.bytes());
    floats x = values(8, 3);
    const floats before = x;
    const std::vector<std::size_t> positions{0, 0};
    kvern::rope_at(ctx, table, KVERN_ROPE_HALVES, positions, 1, {x.data(), 2, 4});
    EXPECT(x == before);
    const std::vector<std::size_t> sections{1, 1};
    std::vector<std::uint8_t> axes(2);
    kvern::rope_sections(sections, false, axes);
    EXPECT(axes[0] == 0 && axes[1] == 1);
    const std::vector<std::size_t> both{0, 0, 0, 0};
    kvern::rope_axes(ctx, table, KVERN_ROPE_HALVES, axes, 2, both, 1, {x.data(), 2, 4});
    EXPECT(x == before);
    const std::vector<double> factors{1.0, 4.0};
    EXPECT(kvern::rope_table::with_factors(factors, 4).bytes() == table.bytes());
    auto moved = kvern::rope_table::create(4, 4);
    moved.move_to(1000);
    EXPECT(moved.first() == 1000 && moved.positions() == 4 && table.first() == 0);
    floats slopes(8), y(4);
    kvern::alibi_slopes(slopes);
    EXPECT(slopes[0] == 0.5f && slopes[7] == 1.0f / 256);
    kvern_softmax_options options = kvern::softmax_options();
    const floats mask{0, 0, -HUGE_VALF, -HUGE_VALF};
    options.mask = mask.data();
    options.mask_rows = 1;
    options.mask_row_stride = 4;
    const floats same(4, 3.0f);
    kvern::softmax_with(ctx, options, {same.data(), 1, 4}, {y.data(), 1, 4});
    EXPECT((y == floats{0.5f, 0.5f, 0, 0}));
    return 0;
}

int experts(const kvern::context &ctx, kvern::workspace &ws) {
    const floats ones(64 * 64, 0.125f), x(64, 1.0f), weights{2, 1};
    const auto w = kvern::weights::quantize(KVERN_WEIGHT_FORMAT_F32, {ones.data(), 64, 64});
    const std::vector<kvern_expert> list{kvern::expert(w, &w, w), kvern::expert(w, nullptr, w)};
    const auto options = kvern::expert_options(KVERN_ACTIVATION_RELU);
    const std::vector<std::uint32_t> chosen{0, 0};
    floats out(64, 1.0f);
    /* Each product is a sum of 64 eighths. */
    kvern::multiply_experts(ctx, ws, options, kvern::span<const kvern_expert>(list.data(), 1),
                            {x.data(), 1, 64}, 2, chosen, weights, {out.data(), 1, 64});
    EXPECT(out == floats(64, 1.0f + 3 * 64 * 8));
    return 0;
}

int quantized_rows(const kvern::context &ctx, kvern::workspace &ws) {
    const floats ones(64 * 5, 1.0f), x(2 * 64, 0.5f);
    const auto w = kvern::weights::quantize(KVERN_WEIGHT_FORMAT_Q8_0, {ones.data(), 5, 64});
    floats direct(2 * 5), again(2 * 5);
    const std::vector<kvern::product> one{{w, {direct.data(), 2, 5}}}, other{{w, {again.data(), 2, 5}}};
    kvern::multiply_many(ctx, ws, {x.data(), 2, 64}, one);
    auto rows = kvern::quantized_rows::create(ctx, 3, 64);
    rows.quantize(ctx, {x.data(), 2, 64});
    rows.multiply(ctx, ws, 2, other);
    EXPECT(direct == again);
    const std::vector<kvern::bf16> halves(2 * 64, kvern::bf16{0x3f00});
    rows.quantize(ctx, kvern::matrix<const kvern::bf16>{halves.data(), 2, 64});
    rows.multiply(ctx, ws, 2, other);
    EXPECT(direct == again);
    const std::vector<std::int8_t> codes(2 * 64, 2);
    const floats scales{0.25f, 0.25f};
    rows.set(ctx, 64, codes, scales);
    rows.multiply(ctx, ws, 2, other);
    /* Ones in Q8_0 are 127 times 1 / 127 in 16 bits. */
    EXPECT(again[0] > 31.9f && again[0] < 32.1f && again == floats(2 * 5, again[0]));
    return 0;
}

int heads(const kvern::context &ctx, kvern::workspace &ws) {
    const floats ones(64, 1.0f), twos(64, 2.0f), x{1, 2, 3, 4, 5, 6};
    const auto w = kvern::weights::quantize(KVERN_WEIGHT_FORMAT_F32, {ones.data(), 4, 2});
    const auto v = kvern::weights::quantize(KVERN_WEIGHT_FORMAT_F32, {twos.data(), 4, 2});
    const std::vector<const kvern_weights *> list{w.get(), v.get()};
    floats out(10, 9.0f);
    /* Heads of 3 and of 5 columns, of which the weights take 2 and give 4. */
    kvern::multiply_heads(ctx, ws, list, {x.data(), 1, 6}, {out.data(), 1, 10});
    EXPECT((out == floats{3, 3, 3, 3, 9, 18, 18, 18, 18, 9}));
    return 0;
}

int rows_and_tokens(const kvern::context &ctx) {
    const floats x{3, 4, 0, 0, 0, 0, 8, 6}, ones(4, 1.0f);
    floats y(8);
    kvern_norm_options norm = kvern::norm_options(KVERN_NORM_UNIT, 1e-12f);
    norm.groups = 2;
    norm.gate = x.data();
    norm.gate_row_stride = 4;
    kvern::norm(ctx, norm, {x.data(), 2, 4}, {y.data(), 2, 4});
    EXPECT(std::fabs(y[0] - 1.8f) < 1e-6f && y[2] == 0 && std::fabs(y[7] - 3.6f) < 1e-6f);
    const std::vector<std::size_t> starts{0, 2};
    const std::vector<std::uint8_t> seen{0, 1};
    floats pooled(4);
    kvern::mean_pool(ctx, {x.data(), 2, 4}, starts, {pooled.data(), 1, 4});
    EXPECT((pooled == floats{1.5f, 2, 4, 3}));
    kvern::mean_pool(ctx, {x.data(), 2, 4}, starts, seen, {pooled.data(), 1, 4});
    EXPECT((pooled == floats{0, 0, 8, 6}));
    y = x;
    kvern::cumulative_sum(ctx, KVERN_ALONG_ROW, {y.data(), 2, 4});
    EXPECT((y == floats{3, 7, 7, 7, 0, 0, 8, 14}));
    floats state(4, 1.0f);
    const floats taps{1, 2, 3, 4, 10, 20, 30, 40};
    kvern::causal_conv(ctx, {taps.data(), 2, 4}, ones, KVERN_ACTIVATION_RELU, state, {x.data(), 2, 4},
                       {y.data(), 2, 4});
    EXPECT((y == floats{32, 83, 4, 5, 4, 9, 241, 241}) && (state == floats{0, 0, 8, 6}));
    std::vector<std::uint32_t> indices(4);
    floats values(4);
    kvern::top_k(ctx, {x.data(), 2, 4}, 2, indices, values);
    EXPECT((indices == std::vector<std::uint32_t>{1, 0, 2, 3}) && (values == floats{4, 3, 8, 6}));
    kvern_router_options router = kvern::router_options(2);
    router.score = KVERN_ROUTER_SOFTMAX_OF_CHOSEN;
    router.scale = 2;
    floats logits{5, 1, 5, 2}, weights(2);
    kvern::route(ctx, router, 1, 4, logits, kvern::span<std::uint32_t>(indices.data(), 2), weights);
    EXPECT(indices[0] == 0 && indices[1] == 2 && (weights == floats{1, 1}));
    return 0;
}

int states(const kvern::context &ctx) {
    kvern_state_options options = kvern::state_options();
    options.heads = 2;
    options.key_dim = 1;
    options.value_dim = 2;
    options.channels = 2;
    options.taps = 2;
    options.sequences = 2;
    kvern::state state = kvern::state::create(options);
    const std::vector<std::size_t> both{1, 0};
    const floats key{1, 2}, value{4, 8, 12, 16, 1, 2, 3, 4}, none(4), half(4, 0.5f), d{1, 0};
    floats y(8);
    /* Empty states: y = q * k * beta * v. */
    state.delta_rule(ctx, both, {key.data(), 2, 1}, {key.data(), 2, 1}, {value.data(), 2, 4},
                     {none.data(), 2, 2}, {half.data(), 2, 2}, 1.0f, {y.data(), 2, 4});
    EXPECT((y == floats{2, 4, 6, 8, 2, 4, 6, 8}) && state.len(1) == 1 && state.len() == 1);
    floats matrix(2);
    state.read(1, 1, matrix);
    EXPECT((matrix == floats{6, 8}));
    state.fork(1, 0);
    state.clear_in(1);
    state.write(0, 0, floats{1, 1});
    state.read(0, 1, matrix);
    EXPECT((matrix == floats{6, 8}) && state.bytes() == (2 * 2 * 16 + 2 * 2) * sizeof(float));
    const std::vector<std::size_t> first{0};
    state.selective_scan(ctx, first, {value.data(), 1, 4}, {half.data(), 1, 2}, {key.data(), 1, 1},
                         {key.data(), 1, 1}, floats{0, 0}, d, {y.data(), 1, 4});
    EXPECT((floats(y.begin(), y.begin() + 4) == floats{7, 13, 12, 16}));
    const floats taps{1, 2, 10, 20}, x{3, 4, 5, 6};
    state.conv(ctx, 1, {taps.data(), 2, 2}, floats{}, KVERN_ACTIVATION_IDENTITY, {x.data(), 2, 2},
               {y.data(), 2, 2});
    EXPECT((floats(y.begin(), y.begin() + 4) == floats{30, 80, 53, 128}));
    int refused = 0;
    try {
        state.save("/nowhere/at/all");
    } catch (const kvern::error &e) {
        refused += e.status() == KVERN_STATUS_IO;
    }
    try {
        state.restore("/nowhere/at/all");
    } catch (const kvern::error &e) {
        refused += e.status() == KVERN_STATUS_IO;
    }
    EXPECT(refused == 2 && state.len(0) == 2);
    state.clear();
    EXPECT(state.len() == 0);
    kvern::time_step(ctx, floats{}, floats{2, 1}, 0.0f, 5.0f, {value.data(), 1, 2}, {y.data(), 1, 2});
    EXPECT(std::fabs(y[0] - 8.0363f) < 1e-4f && y[1] == 5);
    return 0;
}

} // namespace

int main() {
    const kvern::context ctx = kvern::context::create();
    kvern::workspace ws = kvern::workspace::create();
    EXPECT(weights(ctx, ws) == 0 && products(ctx, ws) == 0 && caches(ctx, ws) == 0 && the_rest(ctx) == 0);
    EXPECT(rows_and_tokens(ctx) == 0 && experts(ctx, ws) == 0 && states(ctx) == 0);
    EXPECT(heads(ctx, ws) == 0 && quantized_rows(ctx, ws) == 0);
    return 0;
}
