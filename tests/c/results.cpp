/* kvern.hpp without exceptions: results that hold a value or a failure. */
#include <kvern.hpp>

#include "expect.hpp"

#include <cstring>

int main() {
    kvern::result<kvern::context> ctx = kvern::context::create();
    kvern::result<kvern::workspace> ws = kvern::workspace::create();
    EXPECT(ctx && ws.has_value() && ctx.status() == KVERN_STATUS_OK && ctx.message()[0] == '\0');
    const float a[6] = {1, 2, 3, 4, 5, 6};
    float c[4] = {};
    const kvern::input left{a, 2, 3};
    EXPECT(kvern::matmul(*ctx, *ws, left, left, {c, 2, 2}, true));
    EXPECT(c[0] == 14 && c[1] == 32 && c[3] == 77);
    EXPECT(kvern::argmax(*ctx, c).value_or(9) == 3);
    EXPECT(ctx->max_threads().value_or(0) == 1);

    const kvern::done shape = kvern::matmul(*ctx, *ws, left, left, {c, 2, 2});
    EXPECT(!shape && shape.status() == KVERN_STATUS_SHAPE);
    EXPECT(std::strcmp(shape.message(), "b.rows = 2 must equal a.cols = 3") == 0);
    const auto threads = kvern::context::with_threads(1000);
    EXPECT(!threads && threads.status() == KVERN_STATUS_OPTION);
    EXPECT(std::strstr(threads.message(), "threads") != nullptr);

    kvern::context owned = *std::move(ctx);
    EXPECT(owned.isa().value_or(0) == kvern_isa_detect());

    std::size_t available = 0;
    for (std::size_t i = 0; i < kvern::tier_count(); ++i) {
        const kvern::tier tier = kvern::tier_at(i);
        EXPECT(kvern::tier_named(tier.name).value_or(0) == tier.isa);
        EXPECT((std::strcmp(tier.status, "available") == 0) == tier.is_available);
        const auto at = kvern::context::with_isa(tier.isa);
        EXPECT(at.has_value() == tier.is_available);
        if (tier.is_available)
            EXPECT(at->isa().value_or(0) == tier.isa);
        else
            EXPECT(std::strstr(at.message(), tier.status) != nullptr);
        available += tier.is_available;
    }
    EXPECT(available > 0 && kvern::tier_at(kvern::tier_count()).isa == KVERN_ISA_DEFAULT);
    EXPECT(kvern::tier_named("sse9").status() == KVERN_STATUS_OPTION);
    return 0;
}
