/* Contexts and workspaces. */
#ifndef KVERN_CONTEXT_HPP
#define KVERN_CONTEXT_HPP

#include "core.hpp"

namespace kvern {
inline namespace KVERN_ERRORS {

/** An operation, and the id of the kernel that a context runs for it. Both live as long as the context. */
struct kernel {
    const char *operation;
    const char *id;
};

/** A tier that kvern knows, of any architecture. */
struct tier {
    /** Its KVERN_ISA_* number. */
    kvern_isa isa;
    /** Such as `avx2`. */
    const char *name;
    /** `available`, or why this machine cannot run it. */
    const char *status;
    bool is_available;
};

/** How many tiers there are. */
inline std::size_t tier_count() noexcept { return kvern_isa_count(); }

/** Tier `index` of tier_count(). Of those that the machine has, the last one is preferred. */
inline tier tier_at(std::size_t index) noexcept {
    const kvern_isa isa = kvern_isa_at(index);
    return {isa, kvern_isa_name(isa), kvern_isa_status(isa), kvern_isa_is_available(isa) != 0};
}

/** The number of the tier of a name, also of one that the machine lacks. */
inline returns<kvern_isa> tier_named(const char *name) {
    return detail::ask<kvern_isa>([&](kvern_isa *out) { return kvern_isa_from_name(name, out); });
}

/** A tier and the threads that compute, and the memory for what is made with it. */
class context : public detail::handle<kvern_context, kvern_context_destroy> {
  public:
    using handle::handle;

    /** By default: the calling thread alone, the machine's best tier. */
    static returns<context> create(const kvern_context_options *options = nullptr) {
        return detail::make<context>([&](kvern_context **out) { return kvern_context_create(options, out); });
    }
    static returns<context> with_threads(std::uint32_t threads) {
        kvern_context_options options = KVERN_CONTEXT_OPTIONS_INIT;
        options.threads = threads;
        return create(&options);
    }
    /** At a tier, a KVERN_ISA_* number: see tier_named(). */
    static returns<context> with_isa(kvern_isa isa) {
        kvern_context_options options = KVERN_CONTEXT_OPTIONS_INIT;
        options.isa_cap = isa;
        return create(&options);
    }
    returns<kvern_isa> isa() const {
        return detail::ask<kvern_isa>([&](kvern_isa *out) { return kvern_context_isa(get(), out); });
    }
    /** The most threads that compute at once. */
    returns<std::size_t> max_threads() const {
        return detail::ask<std::size_t>(
            [&](std::size_t *out) { return kvern_context_max_threads(get(), out); });
    }
    /** The id of the kernel for an operation; lives as long as the context. */
    returns<const char *> kernel_name(const char *operation) const {
        return detail::ask<const char *>(
            [&](const char **out) { return kvern_context_kernel_name(get(), operation, out); });
    }
    returns<std::size_t> kernel_count() const {
        return detail::ask<std::size_t>(
            [&](std::size_t *out) { return kvern_context_kernel_count(get(), out); });
    }
    /** Operation `index` of kernel_count(). */
    returns<kvern::kernel> kernel(std::size_t index) const {
        return detail::ask<kvern::kernel>([&](kvern::kernel *out) {
            return kvern_context_kernel(get(), index, &out->operation, &out->id);
        });
    }
};

/** Scratch memory, one for each thread. The compute functions grow it to what they need. */
class workspace : public detail::handle<kvern_workspace, kvern_workspace_destroy> {
  public:
    using handle::handle;

    static returns<workspace> create(std::size_t bytes = 0) {
        return detail::make<workspace>(
            [&](kvern_workspace **out) { return kvern_workspace_create(nullptr, bytes, out); });
    }
    /** In the memory of the context. */
    static returns<workspace> create(const context &ctx, std::size_t bytes = 0) {
        return detail::make<workspace>(
            [&](kvern_workspace **out) { return kvern_workspace_create(ctx.get(), bytes, out); });
    }
    done reserve(std::size_t bytes) { return detail::finish(kvern_workspace_reserve(get(), bytes)); }
    returns<std::size_t> bytes() const {
        return detail::ask<std::size_t>([&](std::size_t *out) { return kvern_workspace_bytes(get(), out); });
    }
};

namespace detail {

/** The status of `call`, once `ws` has the bytes that `query` writes. */
template <class Query, class Call>
kvern_status grown(workspace &ws, Query query, Call call) {
    std::size_t bytes = 0;
    kvern_status status = query(&bytes);
    if (status == KVERN_STATUS_OK)
        status = kvern_workspace_reserve(ws.get(), bytes);
    return status == KVERN_STATUS_OK ? call() : status;
}

} // namespace detail

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_CONTEXT_HPP */
