/* A GGUF file: its metadata, its tensors, and one of them as packed weights.
 *
 *     cc -std=c99 05_gguf.c $(pkg-config --cflags --libs kvern) -lm && ./a.out [FILE.gguf]
 *
 * Without a file it reads a small one that it writes itself, and checks what it reads.
 */
#include "example.h"

#include <string.h>

enum { OUT = 3, IN = 32 };
static const char SMALL[] = "05_gguf.small.gguf";

static void put(FILE *file, const void *bytes, size_t len) {
    if (fwrite(bytes, 1, len, file) != len)
        exit(1);
}

/* A number in as many bytes, the low ones first. */
static void put_number(FILE *file, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++) {
        const uint8_t byte = (uint8_t)(number >> (8 * i));
        put(file, &byte, 1);
    }
}

static void put_text(FILE *file, const char *text) {
    put_number(file, strlen(text), 8);
    put(file, text, strlen(text));
}

/* One key of each kind that main reads, and a matrix of (IN, OUT) in f32 whose row o holds o + 1. */
static void write_small(void) {
    FILE *file = fopen(SMALL, "wb");
    if (file == NULL)
        exit(1);
    put(file, "GGUF", 4);
    put_number(file, 3, 4); /* version */
    put_number(file, 1, 8); /* tensors */
    put_number(file, 3, 8); /* keys */
    put_text(file, "general.architecture");
    put_number(file, KVERN_GGUF_STR, 4);
    put_text(file, "llama");
    put_text(file, "llama.block_count");
    put_number(file, KVERN_GGUF_U32, 4);
    put_number(file, 2, 4);
    put_text(file, "tokenizer.ggml.tokens");
    put_number(file, KVERN_GGUF_ARRAY, 4);
    put_number(file, KVERN_GGUF_STR, 4);
    put_number(file, 2, 8);
    put_text(file, "<s>");
    put_text(file, "hello");
    put_text(file, "blk.0.attn_q.weight");
    put_number(file, 2, 4);
    put_number(file, IN, 8);
    put_number(file, OUT, 8);
    put_number(file, KVERN_WEIGHT_FORMAT_F32, 4);
    put_number(file, 0, 8); /* offset */
    while (ftell(file) % 32 != 0)
        put_number(file, 0, 1);
    for (int o = 0; o < OUT; o++) {
        for (int i = 0; i < IN; i++) {
            const float w = (float)(o + 1);
            uint32_t bits;
            memcpy(&bits, &w, sizeof bits);
            put_number(file, bits, 4);
        }
    }
    if (fclose(file) != 0)
        exit(1);
}

static void list(const kvern_gguf *file) {
    size_t keys = 0, tensors = 0;
    CHECK(kvern_gguf_key_count(file, &keys));
    for (size_t i = 0; i < keys; i++) {
        kvern_gguf_key key;
        CHECK(kvern_gguf_key_at(file, i, &key));
        printf("%.*s: type %d, %zu of type %d\n", (int)key.key_bytes, key.key, (int)key.kind, key.len,
               (int)key.element);
    }
    CHECK(kvern_gguf_tensor_count(file, &tensors));
    for (size_t i = 0; i < tensors; i++) {
        kvern_gguf_tensor t;
        CHECK(kvern_gguf_tensor_at(file, i, &t));
        printf("%.*s: type %u, (%zu, %zu, %zu, %zu), %zu bytes\n", (int)t.name_bytes, t.name,
               (unsigned)t.kind, t.shape[0], t.shape[1], t.shape[2], t.shape[3], t.data_bytes);
    }
}

/* What the small file holds. */
static void check(const kvern_gguf *file) {
    const char *name = NULL, *tokens[2];
    size_t name_bytes = 0, tokens_bytes[2], bytes = 0;
    uint64_t blocks = 0;
    float x[IN], y[OUT];
    double worst = 0.0;
    kvern_context *ctx = NULL;
    kvern_workspace *ws = NULL;
    kvern_weights *w = NULL;
    CHECK(kvern_gguf_get_str(file, "general.architecture", &name, &name_bytes));
    CHECK(kvern_gguf_get_u64(file, "llama.block_count", &blocks));
    CHECK(kvern_gguf_get_strs(file, "tokenizer.ggml.tokens", 0, 2, tokens, tokens_bytes));
    if (name_bytes != 5 || memcmp(name, "llama", 5) != 0 || blocks != 2 || tokens_bytes[1] != 5 ||
        memcmp(tokens[1], "hello", 5) != 0) {
        fprintf(stderr, "the metadata are not those of the file\n");
        exit(1);
    }

    CHECK(kvern_context_create(NULL, &ctx));
    CHECK(kvern_weights_from_gguf(ctx, file, "blk.0.attn_q.weight", 0, &w));
    CHECK(kvern_weights_workspace_bytes(ctx, w, KVERN_COMPUTE_F32, 1, &bytes));
    CHECK(kvern_workspace_create(ctx, bytes, &ws));
    for (int i = 0; i < IN; i++)
        x[i] = 0.25f;
    CHECK(kvern_weights_multiply(ctx, ws, w, KVERN_COMPUTE_F32, 1, OUT, IN, x, IN, y, OUT, NULL));
    for (int o = 0; o < OUT; o++)
        worst = fmax(worst, fabs((double)y[o] - 0.25 * IN * (o + 1)));
    expect_below("product with a tensor of the file", worst, 1e-6);
    kvern_weights_destroy(w);
    kvern_workspace_destroy(ws);
    kvern_context_destroy(ctx);
}

int main(int argc, char **argv) {
    kvern_gguf *file = NULL;
    if (argc < 2)
        write_small();
    CHECK(kvern_gguf_open(argc < 2 ? SMALL : argv[1], &file));
    list(file);
    if (argc < 2)
        check(file);
    kvern_gguf_destroy(file);
    if (argc < 2)
        remove(SMALL);
    return 0;
}
