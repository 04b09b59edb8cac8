/* kvern.hpp with exceptions: what is thrown, and that objects move and free themselves. */
#include <kvern.hpp>

#include "expect.hpp"

#include <cstring>
#include <vector>

template <class Call>
bool refused(kvern_status status, const char *words, Call call) {
    try {
        call();
    } catch (const kvern::error &e) {
        return e.status() == status && std::strstr(e.what(), words) != nullptr;
    }
    return false;
}

int main() {
    kvern::context ctx = kvern::context::create();
    kvern::workspace ws = kvern::workspace::create();
    std::vector<float> a{1, 2, 3, 4, 5, 6}, c(4);
    const kvern::input left{a.data(), 2, 3};
    kvern::matmul(ctx, ws, left, left, {c.data(), 2, 2}, true);
    EXPECT((c == std::vector<float>{14, 32, 32, 77}));
    EXPECT(ctx.max_threads() == 1 && kvern::argmax(ctx, c) == 3);

    EXPECT(refused(KVERN_STATUS_SHAPE, "b.rows = 2 must equal a.cols = 3",
                   [&] { kvern::matmul(ctx, ws, left, left, {c.data(), 2, 2}); }));
    EXPECT(refused(KVERN_STATUS_SHAPE, "c.rows = 1 must equal a.rows = 2",
                   [&] { kvern::matmul(ctx, ws, left, left, {c.data(), 1, 2}, true); }));
    EXPECT(refused(KVERN_STATUS_OPTION, "threads", [] { (void)kvern::context::with_threads(1000); }));
    EXPECT(refused(KVERN_STATUS_OPTION, "33", [&] {
        std::vector<float> w(33);
        (void)kvern::weights::quantize(KVERN_WEIGHT_FORMAT_Q4_0, {w.data(), 1, 33});
    }));

    kvern::kv_cache cache = kvern::kv_cache::create(1, 8, 4);
    EXPECT(refused(KVERN_STATUS_SHAPE, "v.cols = 2 must equal kv_heads * value_dim = 8",
                   [&] { cache.append({c.data(), 1, 8}, {c.data(), 1, 2}); }));
    EXPECT(cache.len() == 0);

    kvern::context moved = std::move(ctx);
    EXPECT(ctx.get() == nullptr && moved.get() != nullptr);
    EXPECT(refused(KVERN_STATUS_NULL_POINTER, "ctx is NULL", [&] { (void)ctx.max_threads(); }));
    ctx = std::move(moved);
    EXPECT(ctx.max_threads() == 1);
    kvern_context_destroy(ctx.release());
    return 0;
}
