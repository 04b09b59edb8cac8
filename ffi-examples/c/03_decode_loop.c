/* A small attention block, decoded token by token, with a sliding window over a ring cache that is shorter
 * than the text; then the same in prefill, a chunk at a time. The bits must be the same, and close to plain
 * C.
 *
 *     cc -std=c99 03_decode_loop.c $(pkg-config --cflags --libs kvern) -lm && ./a.out
 */
#include "03_reference.h"

#include <string.h>

static kvern_weights *weights(size_t n) {
    static float w[DIM * DIM];
    kvern_weights *packed = NULL;
    for (size_t i = 0; i < n * DIM; i++)
        w[i] = next_random() / 8.0f;
    CHECK(kvern_weights_quantize(NULL, KVERN_WEIGHT_FORMAT_Q4_0, n, DIM, w, DIM, &packed));
    return packed;
}

static void multiply(const layer *l, const kvern_weights *w, size_t m, size_t n, const float *a, float *c,
                     const kvern_epilogue *epilogue) {
    size_t bytes = 0;
    CHECK(kvern_weights_workspace_bytes(l->ctx, w, KVERN_COMPUTE_F32, m, &bytes));
    CHECK(kvern_workspace_reserve(l->ws, bytes)); /* a real program reserves once, before the first token */
    CHECK(kvern_weights_multiply(l->ctx, l->ws, w, KVERN_COMPUTE_F32, m, n, DIM, a, DIM, c, n, epilogue));
}

/* x = x + attention(rms_norm(x)) for m tokens that follow those in the cache. x: (m, DIM). */
static void forward(layer *l, size_t m, float *x) {
    static float y[CHUNK * DIM], q[CHUNK * DIM], k[CHUNK * KV_DIM], v[CHUNK * KV_DIM];
    kvern_attention_options attention = KVERN_ATTENTION_OPTIONS_INIT;
    kvern_epilogue residual = KVERN_EPILOGUE_INIT;
    size_t first = 0, bytes = 0;
    attention.heads = HEADS;
    residual.beta = 1.0f;
    CHECK(kvern_rms_norm(l->ctx, m, DIM, x, DIM, l->gain, EPS, y, DIM));
    multiply(l, l->wq, m, DIM, y, q, NULL);
    multiply(l, l->wk, m, KV_DIM, y, k, NULL);
    multiply(l, l->wv, m, KV_DIM, y, v, NULL);
    CHECK(kvern_kv_cache_len(l->cache, &first));
    CHECK(kvern_rope(l->ctx, l->rope, KVERN_ROPE_INTERLEAVED, first, m, HEADS, HEAD_DIM, q, DIM));
    CHECK(kvern_rope(l->ctx, l->rope, KVERN_ROPE_INTERLEAVED, first, m, KV_HEADS, HEAD_DIM, k, KV_DIM));
    CHECK(kvern_kv_cache_append(l->cache, m, k, KV_DIM, v, KV_DIM));
    CHECK(kvern_attention_workspace_bytes(l->ctx, &attention, l->cache, m, &bytes));
    CHECK(kvern_workspace_reserve(l->ws, bytes));
    CHECK(kvern_attention(l->ctx, l->ws, &attention, l->cache, m, q, DIM, y, DIM));
    multiply(l, l->wo, m, DIM, y, x, &residual);
}

/* FNV-1a of the bits: the same number on every little-endian machine. */
static unsigned long long hash_of(const void *x, size_t bytes) {
    unsigned long long hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ ((const unsigned char *)x)[i]) * 0x100000001b3ULL;
    return hash;
}

int main(void) {
    static float input[TOKENS * DIM], decoded[TOKENS * DIM], prefilled[TOKENS * DIM];
    static double keys[TOKENS][KV_DIM], values[TOKENS][KV_DIM];
    kvern_kv_cache_options cache = KVERN_KV_CACHE_OPTIONS_INIT;
    layer l = {0};
    double worst = 0.0;
    /* A query sees WINDOW tokens. Of a chunk of q queries, the first one's window has to be there still when
     * the last one's key is: a capacity of WINDOW + q - 1. What is older is overwritten. */
    cache.kv_heads = KV_HEADS, cache.head_dim = HEAD_DIM, cache.capacity = CAPACITY, cache.window = WINDOW;
    CHECK(kvern_context_create(NULL, &l.ctx));
    CHECK(kvern_workspace_create(NULL, 0, &l.ws));
    CHECK(kvern_rope_table_create(HEAD_DIM, TOKENS, 10000.0, &l.rope));
    CHECK(kvern_kv_cache_create(NULL, &cache, &l.cache));
    l.wq = weights(DIM), l.wk = weights(KV_DIM), l.wv = weights(KV_DIM), l.wo = weights(DIM);
    for (size_t i = 0; i < DIM; i++)
        l.gain[i] = 1.0f + next_random() / 4.0f;
    for (size_t i = 0; i < TOKENS * DIM; i++)
        input[i] = next_random();

    memcpy(decoded, input, sizeof input);
    for (size_t t = 0; t < TOKENS; t++)
        forward(&l, 1, decoded + t * DIM);
    CHECK(kvern_kv_cache_clear(l.cache));
    memcpy(prefilled, input, sizeof input);
    for (size_t t = 0; t < TOKENS; t += CHUNK)
        forward(&l, CHUNK, prefilled + t * DIM);
    if (memcmp(decoded, prefilled, sizeof decoded) != 0) {
        fprintf(stderr, "decoding and prefill differ\n");
        return 1;
    }
    for (size_t t = 0; t < TOKENS; t++) {
        double x[DIM];
        for (size_t i = 0; i < DIM; i++)
            x[i] = (double)input[t * DIM + i];
        reference(&l, t, keys, values, x);
        for (size_t i = 0; i < DIM; i++)
            worst = fmax(worst, fabs(x[i] - (double)decoded[t * DIM + i]));
    }
    printf("%d tokens, window %d, ring of %d: decoding and prefill agree bit for bit, hash %016llx\n", TOKENS,
           WINDOW, CAPACITY, hash_of(decoded, sizeof decoded));
    expect_below("against plain C", worst, 1e-5); /* a few dozen roundings of 2^-24 on values of about 1 */
    kvern_weights_destroy(l.wq);
    kvern_weights_destroy(l.wk);
    kvern_weights_destroy(l.wv);
    kvern_weights_destroy(l.wo);
    kvern_kv_cache_destroy(l.cache);
    kvern_rope_table_destroy(l.rope);
    kvern_workspace_destroy(l.ws);
    kvern_context_destroy(l.ctx);
    return 0;
}
