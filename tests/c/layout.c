/* Prints what the compiler sees of the header: the test compares it with what the library is. Fails when the
 * header's version is not the library's. */
#include "kvern.h"
#include "kvern.h"

#include <stdio.h>
#include <string.h>

#define SIZE(type) printf(#type " %zu\n", sizeof(type))
#define FIELD(type, field) printf(#type "." #field " %zu\n", offsetof(type, field))

int main(void) {
    kvern_context_options context = KVERN_CONTEXT_OPTIONS_INIT;
    kvern_epilogue epilogue = KVERN_EPILOGUE_INIT;
    kvern_kv_cache_options cache = KVERN_KV_CACHE_OPTIONS_INIT;
    kvern_attention_options attention = KVERN_ATTENTION_OPTIONS_INIT;
    char version[64];
    snprintf(version, sizeof version, "%d.%d.%d", KVERN_VERSION_MAJOR, KVERN_VERSION_MINOR,
             KVERN_VERSION_PATCH);
    if (strcmp(version, KVERN_VERSION_STRING) != 0 || strcmp(version, kvern_version_string()) != 0)
        return 2;
    if (KVERN_ABI_VERSION != kvern_abi_version())
        return 3;
    if (context.struct_size != sizeof context || epilogue.struct_size != sizeof epilogue ||
        cache.struct_size != sizeof cache || attention.struct_size != sizeof attention)
        return 4;
    SIZE(kvern_context_options);
    FIELD(kvern_context_options, threads);
    FIELD(kvern_context_options, isa_cap);
    FIELD(kvern_context_options, lanes);
    FIELD(kvern_context_options, parallel_for);
    FIELD(kvern_context_options, user);
    SIZE(kvern_epilogue);
    FIELD(kvern_epilogue, alpha);
    FIELD(kvern_epilogue, beta);
    FIELD(kvern_epilogue, bias);
    FIELD(kvern_epilogue, activation);
    FIELD(kvern_epilogue, flags);
    SIZE(kvern_kv_cache_options);
    FIELD(kvern_kv_cache_options, kv_heads);
    FIELD(kvern_kv_cache_options, head_dim);
    FIELD(kvern_kv_cache_options, capacity);
    FIELD(kvern_kv_cache_options, window);
    SIZE(kvern_attention_options);
    FIELD(kvern_attention_options, heads);
    FIELD(kvern_attention_options, scale);
    FIELD(kvern_attention_options, non_causal);
    return 0;
}
