/* A linear layer with 4-bit weights: y = x * W^T, the weights quantised here or taken from a GGUF tensor.
 *
 *     cc -std=c99 02_int4_linear.c $(pkg-config --cflags --libs kvern) -lm && ./a.out
 */
#include "example.h"

#include <string.h>

enum { TOKENS = 3, OUT = 96, IN = 256 };

/* The largest |x . W^T - y|, W being what the weights stand for, and in *scale the largest sum of |x||w|. */
static double worst_error(const kvern_weights *w, const float *x, const float *y, double *scale) {
    double worst = 0.0;
    for (size_t o = 0; o < OUT; o++) {
        float row[IN];
        CHECK(kvern_weights_dequantize_row(w, o, IN, row));
        for (size_t t = 0; t < TOKENS; t++) {
            double sum = 0.0, magnitude = 0.0;
            for (size_t i = 0; i < IN; i++) {
                sum += (double)x[t * IN + i] * (double)row[i];
                magnitude += fabs((double)x[t * IN + i] * (double)row[i]);
            }
            worst = fmax(worst, fabs(sum - (double)y[t * OUT + o]));
            *scale = fmax(*scale, magnitude);
        }
    }
    return worst;
}

int main(void) {
    static float w[OUT * IN], x[TOKENS * IN], exact[TOKENS * OUT], fast[TOKENS * OUT], again[TOKENS * OUT];
    kvern_context *ctx = NULL;
    kvern_workspace *ws = NULL;
    kvern_weights *layer = NULL, *loaded = NULL;
    uint8_t *blocks = NULL;
    size_t blocks_bytes = 0, packed_bytes = 0, bytes = 0, most = 0;
    double scale = 0.0, worst;
    fill_random(OUT * IN, w);
    fill_random(TOKENS * IN, x);

    CHECK(kvern_context_create(NULL, &ctx));
    CHECK(kvern_weights_quantize(NULL, KVERN_WEIGHT_FORMAT_Q4_0, OUT, IN, w, IN, &layer));
    CHECK(kvern_weights_bytes(layer, &packed_bytes));
    printf("%d x %d weights: %zu bytes instead of %zu\n", OUT, IN, packed_bytes, sizeof w);

    /* A workspace for the larger one of both ways to compute. */
    CHECK(kvern_weights_workspace_bytes(ctx, layer, KVERN_COMPUTE_F32, TOKENS, &most));
    CHECK(kvern_weights_workspace_bytes(ctx, layer, KVERN_COMPUTE_INT8, TOKENS, &bytes));
    CHECK(kvern_workspace_create(NULL, bytes > most ? bytes : most, &ws));

    /* Activations in f32: the error is that of f32 sums. Activations in int8: faster, and each is rounded by
     * up to 1/254 of the largest one of its block of 32. */
    CHECK(
        kvern_weights_multiply(ctx, ws, layer, KVERN_COMPUTE_F32, TOKENS, OUT, IN, x, IN, exact, OUT, NULL));
    CHECK(
        kvern_weights_multiply(ctx, ws, layer, KVERN_COMPUTE_INT8, TOKENS, OUT, IN, x, IN, fast, OUT, NULL));
    worst = worst_error(layer, x, exact, &scale);
    expect_below("f32 activations", worst, IN * ldexp(1.0, -24) * scale);
    worst = worst_error(layer, x, fast, &scale);
    /* Rounding errors have changing signs: far below the sum of |w| / 254, which is the proven bound. */
    expect_below("int8 activations", worst, scale / 100.0);

    /* The blocks are the bytes of a GGUF tensor of type Q4_0: what a model file holds. */
    CHECK(kvern_blocks_bytes(KVERN_WEIGHT_FORMAT_Q4_0, OUT, IN, &blocks_bytes));
    blocks = malloc(blocks_bytes);
    if (blocks == NULL)
        return 1;
    CHECK(kvern_weights_to_blocks(layer, blocks, blocks_bytes));
    CHECK(kvern_weights_from_blocks(NULL, KVERN_WEIGHT_FORMAT_Q4_0, OUT, IN, blocks, blocks_bytes, &loaded));
    CHECK(kvern_weights_multiply(ctx, ws, loaded, KVERN_COMPUTE_INT8, TOKENS, OUT, IN, x, IN, again, OUT,
                                 NULL));
    if (memcmp(fast, again, sizeof fast) != 0) {
        fprintf(stderr, "weights from blocks multiply differently\n");
        return 1;
    }
    free(blocks);
    kvern_weights_destroy(loaded);
    kvern_weights_destroy(layer);
    kvern_workspace_destroy(ws);
    kvern_context_destroy(ctx);
    return 0;
}
