/* C = A * B in f32, once with B as it is, then with B packed, a bias and an activation: a layer of a network.
 *
 *     cc -std=c99 01_matmul.c $(pkg-config --cflags --libs kvern) -lm && ./a.out
 */
#include "example.h"

#include <string.h>

enum { M = 37, N = 70, K = 129 };

int main(void) {
    static float a[M * K], b[K * N], bias[N], c[M * N], layer[M * N];
    kvern_context *ctx = NULL;
    kvern_workspace *ws = NULL;
    kvern_packed_b *packed = NULL;
    kvern_epilogue epilogue = KVERN_EPILOGUE_INIT;
    size_t bytes = 0, packed_bytes = 0;
    const char *kernel = NULL;
    double worst = 0.0, worst_layer = 0.0;
    if (kvern_abi_version() != KVERN_ABI_VERSION) {
        fprintf(stderr, "kvern.h is not the header of this library\n");
        return 1;
    }
    fill_random(M * K, a);
    fill_random(K * N, b);
    fill_random(N, bias);

    /* Once: a context, the packed matrix, and a workspace for the largest call. */
    CHECK(kvern_context_create(NULL, &ctx));
    CHECK(kvern_context_kernel_name(ctx, "matmul", &kernel));
    CHECK(kvern_packed_b_pack(ctx, K, N, b, N, 0, &packed));
    CHECK(kvern_matmul_workspace_bytes(ctx, M, N, K, &bytes));
    CHECK(kvern_packed_b_workspace_bytes(ctx, packed, M, &packed_bytes));
    CHECK(kvern_workspace_create(NULL, bytes > packed_bytes ? bytes : packed_bytes, &ws));

    /* C = A * B. Row strides are in elements; those of dense matrices are their columns. */
    CHECK(kvern_matmul(ctx, ws, M, N, K, a, K, 0, b, N, 0, c, N, NULL));

    /* The packed matrix gives the same bits, sooner. */
    CHECK(kvern_packed_b_multiply(ctx, ws, packed, M, N, K, a, K, layer, N, NULL));
    if (memcmp(c, layer, sizeof c) != 0) {
        fprintf(stderr, "the packed product has other bits\n");
        return 1;
    }
    /* silu(A * B + bias), in the same pass over C. */
    epilogue.bias = bias;
    epilogue.activation = KVERN_ACTIVATION_SILU;
    CHECK(kvern_packed_b_multiply(ctx, ws, packed, M, N, K, a, K, layer, N, &epilogue));

    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0.0, t;
            for (size_t p = 0; p < K; p++)
                sum += (double)a[i * K + p] * (double)b[p * N + j];
            t = sum + (double)bias[j];
            worst = fmax(worst, fabs(sum - (double)c[i * N + j]));
            worst_layer = fmax(worst_layer, fabs(t / (1.0 + exp(-t)) - (double)layer[i * N + j]));
        }
    printf("kernel %s\n", kernel);
    expect_below("A * B", worst, K * K * ldexp(1.0, -24)); /* k roundings of 2^-24 of a sum of at most k */
    expect_below("silu(A * B + bias)", worst_layer, 2.0 * K * K * ldexp(1.0, -24));

    kvern_packed_b_destroy(packed);
    kvern_workspace_destroy(ws);
    kvern_context_destroy(ctx);
    return 0;
}
