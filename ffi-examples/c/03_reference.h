/* What 03_decode_loop.c is checked against: the same block in plain C, in double, and the names of both
 * files. */
#include "example.h"

enum { TOKENS = 20, WINDOW = 5, CAPACITY = 8, CHUNK = CAPACITY - WINDOW + 1 };
enum { DIM = 64, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 16, KV_DIM = KV_HEADS * HEAD_DIM };
static const float EPS = 1e-5f;

/* One layer: weights packed as int4, the cache, and what the calls need. */
typedef struct {
    kvern_context *ctx;
    kvern_workspace *ws;
    kvern_weights *wq, *wk, *wv, *wo; /* (out features, DIM) */
    kvern_rope_table *rope;
    kvern_kv_cache *cache;
    float gain[DIM];
} layer;

/* out[i] = sum over j of w[i][j] * y[j] in double, for the reference. */
static void reference_multiply(const kvern_weights *w, size_t n, const double *y, double *out) {
    float row[DIM];
    for (size_t i = 0; i < n; i++) {
        CHECK(kvern_weights_dequantize_row(w, i, DIM, row));
        out[i] = 0.0;
        for (size_t j = 0; j < DIM; j++)
            out[i] += (double)row[j] * y[j];
    }
}

static void reference_rope(size_t heads, size_t position, double *x) {
    for (size_t i = 0; i < heads * HEAD_DIM; i += 2) {
        double angle = (double)position * pow(10000.0, -(double)(i % HEAD_DIM) / HEAD_DIM);
        double x0 = x[i], x1 = x[i + 1];
        x[i] = x0 * cos(angle) - x1 * sin(angle);
        x[i + 1] = x0 * sin(angle) + x1 * cos(angle);
    }
}

/* The same block in double, one token. keys, values: (TOKENS, KV_DIM). */
static void reference(const layer *l, size_t t, double (*keys)[KV_DIM], double (*values)[KV_DIM], double *x) {
    double y[DIM], q[DIM], out[DIM] = {0}, squares = 0.0;
    for (size_t i = 0; i < DIM; i++)
        squares += x[i] * x[i];
    for (size_t i = 0; i < DIM; i++)
        y[i] = x[i] / sqrt(squares / DIM + (double)EPS) * (double)l->gain[i];
    reference_multiply(l->wq, DIM, y, q);
    reference_multiply(l->wk, KV_DIM, y, keys[t]);
    reference_multiply(l->wv, KV_DIM, y, values[t]);
    reference_rope(HEADS, t, q);
    reference_rope(KV_HEADS, t, keys[t]);
    for (size_t h = 0; h < HEADS; h++) {
        size_t kv = h / (HEADS / KV_HEADS) * HEAD_DIM;
        double p[TOKENS], sum = 0.0;
        size_t first = t + 1 > WINDOW ? t + 1 - WINDOW : 0;
        for (size_t s = first; s <= t; s++) {
            p[s] = 0.0;
            for (size_t i = 0; i < HEAD_DIM; i++)
                p[s] += q[h * HEAD_DIM + i] * keys[s][kv + i];
            p[s] = exp(p[s] / sqrt((double)HEAD_DIM));
            sum += p[s];
        }
        for (size_t s = first; s <= t; s++)
            for (size_t i = 0; i < HEAD_DIM; i++)
                out[h * HEAD_DIM + i] += p[s] / sum * values[s][kv + i];
    }
    reference_multiply(l->wo, DIM, out, y);
    for (size_t i = 0; i < DIM; i++)
        x[i] += y[i];
}
