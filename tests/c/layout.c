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
    kvern_preparation preparation = KVERN_PREPARATION_INIT;
    kvern_rope_scaling scaling = KVERN_ROPE_SCALING_INIT;
    kvern_softmax_options softmax = KVERN_SOFTMAX_OPTIONS_INIT;
    kvern_norm_options norm = KVERN_NORM_OPTIONS_INIT;
    kvern_router_options router = KVERN_ROUTER_OPTIONS_INIT;
    kvern_expert_options expert = KVERN_EXPERT_OPTIONS_INIT;
    kvern_state_options state = KVERN_STATE_OPTIONS_INIT;
    kvern_patches patches = KVERN_PATCHES_INIT;
    char version[64];
    snprintf(version, sizeof version, "%d.%d.%d", KVERN_VERSION_MAJOR, KVERN_VERSION_MINOR,
             KVERN_VERSION_PATCH);
    if (strcmp(version, KVERN_VERSION_STRING) != 0 || strcmp(version, kvern_version_string()) != 0)
        return 2;
    if (KVERN_ABI_VERSION != kvern_abi_version())
        return 3;
    if (context.struct_size != sizeof context || epilogue.struct_size != sizeof epilogue ||
        cache.struct_size != sizeof cache || attention.struct_size != sizeof attention ||
        preparation.struct_size != sizeof preparation || scaling.struct_size != sizeof scaling ||
        softmax.struct_size != sizeof softmax || norm.struct_size != sizeof norm ||
        router.struct_size != sizeof router || expert.struct_size != sizeof expert ||
        state.struct_size != sizeof state || patches.struct_size != sizeof patches)
        return 4;
    SIZE(kvern_context_options);
    FIELD(kvern_context_options, threads);
    FIELD(kvern_context_options, isa_cap);
    FIELD(kvern_context_options, max_threads);
    FIELD(kvern_context_options, parallel_for);
    FIELD(kvern_context_options, user);
    FIELD(kvern_context_options, allocate);
    FIELD(kvern_context_options, release);
    FIELD(kvern_context_options, memory);
    SIZE(kvern_epilogue);
    FIELD(kvern_epilogue, alpha);
    FIELD(kvern_epilogue, beta);
    FIELD(kvern_epilogue, bias);
    FIELD(kvern_epilogue, activation);
    FIELD(kvern_epilogue, flags);
    SIZE(kvern_rope_scaling);
    FIELD(kvern_rope_scaling, original_positions);
    FIELD(kvern_rope_scaling, kind);
    FIELD(kvern_rope_scaling, flags);
    FIELD(kvern_rope_scaling, factor);
    FIELD(kvern_rope_scaling, beta_fast);
    FIELD(kvern_rope_scaling, beta_slow);
    FIELD(kvern_rope_scaling, attention_factor);
    FIELD(kvern_rope_scaling, low_frequency);
    FIELD(kvern_rope_scaling, high_frequency);
    SIZE(kvern_kv_cache_options);
    FIELD(kvern_kv_cache_options, kv_heads);
    FIELD(kvern_kv_cache_options, head_dim);
    FIELD(kvern_kv_cache_options, capacity);
    FIELD(kvern_kv_cache_options, window);
    FIELD(kvern_kv_cache_options, value_dim);
    FIELD(kvern_kv_cache_options, sinks);
    FIELD(kvern_kv_cache_options, keys);
    FIELD(kvern_kv_cache_options, values);
    FIELD(kvern_kv_cache_options, sequences);
    FIELD(kvern_kv_cache_options, pages);
    SIZE(kvern_preparation);
    FIELD(kvern_preparation, q_gain);
    FIELD(kvern_preparation, k_gain);
    FIELD(kvern_preparation, q_eps);
    FIELD(kvern_preparation, k_eps);
    FIELD(kvern_preparation, rope);
    FIELD(kvern_preparation, pairs);
    FIELD(kvern_preparation, flags);
    FIELD(kvern_preparation, positions);
    SIZE(kvern_attention_options);
    FIELD(kvern_attention_options, heads);
    FIELD(kvern_attention_options, scale);
    FIELD(kvern_attention_options, non_causal);
    FIELD(kvern_attention_options, softcap);
    FIELD(kvern_attention_options, precision);
    FIELD(kvern_attention_options, window);
    FIELD(kvern_attention_options, sinks);
    FIELD(kvern_attention_options, alibi);
    FIELD(kvern_attention_options, sink_logits);
    FIELD(kvern_attention_options, mask);
    FIELD(kvern_attention_options, mask_row_stride);
    FIELD(kvern_attention_options, seen);
    FIELD(kvern_attention_options, seen_row_stride);
    FIELD(kvern_attention_options, tree);
    FIELD(kvern_attention_options, tree_row_stride);
    FIELD(kvern_attention_options, mask_per_head);
    FIELD(kvern_attention_options, seen_per_head);
    FIELD(kvern_attention_options, lse);
    FIELD(kvern_attention_options, lse_row_stride);
    FIELD(kvern_attention_options, sequences);
    FIELD(kvern_attention_options, sequences_len);
    SIZE(kvern_weights_product);
    FIELD(kvern_weights_product, weights);
    FIELD(kvern_weights_product, up);
    FIELD(kvern_weights_product, c);
    FIELD(kvern_weights_product, c_row_stride);
    FIELD(kvern_weights_product, n);
    FIELD(kvern_weights_product, epilogue);
    SIZE(kvern_softmax_options);
    FIELD(kvern_softmax_options, scale);
    FIELD(kvern_softmax_options, softcap);
    FIELD(kvern_softmax_options, mask);
    FIELD(kvern_softmax_options, mask_rows);
    FIELD(kvern_softmax_options, mask_row_stride);
    SIZE(kvern_norm_options);
    FIELD(kvern_norm_options, gain);
    FIELD(kvern_norm_options, bias);
    FIELD(kvern_norm_options, part_len);
    FIELD(kvern_norm_options, groups);
    FIELD(kvern_norm_options, gate);
    FIELD(kvern_norm_options, gate_row_stride);
    FIELD(kvern_norm_options, kind);
    FIELD(kvern_norm_options, eps);
    FIELD(kvern_norm_options, gate_activation);
    FIELD(kvern_norm_options, gate_first);
    SIZE(kvern_router_options);
    FIELD(kvern_router_options, bias);
    FIELD(kvern_router_options, expert_scale);
    FIELD(kvern_router_options, chosen);
    FIELD(kvern_router_options, groups);
    FIELD(kvern_router_options, kept_groups);
    FIELD(kvern_router_options, score);
    FIELD(kvern_router_options, group_score);
    FIELD(kvern_router_options, renormalize);
    FIELD(kvern_router_options, renormalize_eps);
    FIELD(kvern_router_options, scale);
    FIELD(kvern_router_options, flags);
    SIZE(kvern_expert);
    FIELD(kvern_expert, gate);
    FIELD(kvern_expert, up);
    FIELD(kvern_expert, down);
    FIELD(kvern_expert, gate_bias);
    FIELD(kvern_expert, up_bias);
    FIELD(kvern_expert, down_bias);
    SIZE(kvern_expert_options);
    FIELD(kvern_expert_options, compute);
    FIELD(kvern_expert_options, activation);
    FIELD(kvern_expert_options, oai_limit);
    FIELD(kvern_expert_options, oai_alpha);
    FIELD(kvern_expert_options, weigh_input);
    FIELD(kvern_expert_options, flags);
    SIZE(kvern_state_options);
    FIELD(kvern_state_options, heads);
    FIELD(kvern_state_options, key_dim);
    FIELD(kvern_state_options, value_dim);
    FIELD(kvern_state_options, channels);
    FIELD(kvern_state_options, taps);
    FIELD(kvern_state_options, sequences);
    SIZE(kvern_patches);
    FIELD(kvern_patches, images);
    FIELD(kvern_patches, height);
    FIELD(kvern_patches, width);
    FIELD(kvern_patches, channels);
    FIELD(kvern_patches, kernel_height);
    FIELD(kvern_patches, kernel_width);
    FIELD(kvern_patches, stride_y);
    FIELD(kvern_patches, stride_x);
    FIELD(kvern_patches, padding_y);
    FIELD(kvern_patches, padding_x);
    SIZE(kvern_gguf_tensor);
    FIELD(kvern_gguf_tensor, name);
    FIELD(kvern_gguf_tensor, name_bytes);
    FIELD(kvern_gguf_tensor, kind);
    FIELD(kvern_gguf_tensor, dims);
    FIELD(kvern_gguf_tensor, shape);
    FIELD(kvern_gguf_tensor, data);
    FIELD(kvern_gguf_tensor, data_bytes);
    SIZE(kvern_gguf_key);
    FIELD(kvern_gguf_key, key);
    FIELD(kvern_gguf_key, key_bytes);
    FIELD(kvern_gguf_key, kind);
    FIELD(kvern_gguf_key, element);
    FIELD(kvern_gguf_key, len);
    return 0;
}
