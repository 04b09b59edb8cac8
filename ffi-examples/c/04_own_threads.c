/* kvern on the caller's threads, a pool of pthreads behind kvern_parallel_for, and in the caller's memory.
 * The bits depend on neither.
 *
 *     cc -std=c99 04_own_threads.c $(pkg-config --cflags --libs kvern) -lpthread -lm && ./a.out
 */
#define _POSIX_C_SOURCE 200809L
#include "example.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <malloc.h>
#define aligned_memory(bytes, alignment) _aligned_malloc(bytes, alignment)
#define aligned_free _aligned_free
#else
static void *aligned_memory(size_t bytes, size_t alignment) {
    void *start = NULL;
    return posix_memalign(&start, alignment, bytes) == 0 ? start : NULL;
}
#define aligned_free free
#endif

enum { THREADS = 3, M = 200, N = 300, K = 100 };

/* One region at a time: the calls `next..calls` of its body wait for a thread, `running` are being made. */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    pthread_t threads[THREADS];
    kvern_worker_body body; /* NULL: no region */
    void *arg;
    size_t next, calls, running, regions, by_threads;
    int stop;
} pool;

/* Makes calls until none is left. The mutex is held on entry and on return. */
static size_t make_calls(pool *p) {
    size_t made = 0;
    while (p->next < p->calls) {
        size_t worker = p->next++;
        kvern_worker_body body = p->body;
        void *arg = p->arg;
        p->running++, made++;
        pthread_mutex_unlock(&p->mutex);
        body(arg, worker);
        pthread_mutex_lock(&p->mutex);
        if (--p->running == 0 && p->next == p->calls)
            pthread_cond_broadcast(&p->done);
    }
    return made;
}

static void *worker(void *user) {
    pool *p = user;
    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        p->by_threads += make_calls(p);
        if (!p->stop)
            pthread_cond_wait(&p->work, &p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* The kvern_parallel_for: lends the pool to one region, helps, and returns when all of its calls have. */
static void run_on_pool(void *user, size_t workers, kvern_worker_body body, void *arg) {
    pool *p = user;
    pthread_mutex_lock(&p->mutex);
    while (p->body != NULL) /* another thread's region */
        pthread_cond_wait(&p->done, &p->mutex);
    p->body = body, p->arg = arg, p->next = 0, p->calls = workers, p->regions++;
    pthread_cond_broadcast(&p->work);
    make_calls(p);
    while (p->running > 0)
        pthread_cond_wait(&p->done, &p->mutex);
    p->body = NULL, p->next = p->calls = 0;
    pthread_cond_broadcast(&p->done);
    pthread_mutex_unlock(&p->mutex);
}

/* Memory that is counted; another program has an arena here, or a NUMA node. Only main() makes objects, or
 * the count would need a lock. */
typedef struct {
    size_t held, most;
} memory;

static void *allocate(void *user, size_t bytes, size_t alignment) {
    memory *m = user;
    void *start = aligned_memory(bytes, alignment);
    if (start == NULL)
        return NULL; /* the call is refused with KVERN_STATUS_RESOURCE */
    m->held += bytes;
    m->most = m->held > m->most ? m->held : m->most;
    return start;
}

static void release(void *user, void *start, size_t bytes) {
    ((memory *)user)->held -= bytes;
    aligned_free(start);
}

static void multiply(const kvern_context_options *options, const float *a, const float *b, float *c) {
    kvern_context *ctx = NULL;
    kvern_workspace *ws = NULL;
    size_t bytes = 0;
    CHECK(kvern_context_create(options, &ctx));
    CHECK(kvern_matmul_workspace_bytes(ctx, M, N, K, &bytes));
    CHECK(kvern_workspace_create(ctx, bytes, &ws));
    CHECK(kvern_matmul(ctx, ws, M, N, K, a, K, 0, b, N, 0, c, N, NULL));
    kvern_workspace_destroy(ws);
    kvern_context_destroy(ctx);
}

int main(void) {
    static float a[M * K], b[K * N], alone[M * N], pooled[M * N];
    static pool p = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                     .work = PTHREAD_COND_INITIALIZER,
                     .done = PTHREAD_COND_INITIALIZER};
    kvern_context_options options = KVERN_CONTEXT_OPTIONS_INIT;
    memory own = {0, 0};
    double worst = 0.0;
    fill_random(M * K, a);
    fill_random(K * N, b);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&p.threads[i], NULL, worker, &p) != 0)
            return 1;

    options.max_threads = THREADS + 1;
    options.parallel_for = run_on_pool;
    options.user = &p;
    options.allocate = allocate;
    options.release = release;
    options.memory = &own;
    multiply(&options, a, b, pooled);
    multiply(NULL, a, b, alone);

    pthread_mutex_lock(&p.mutex);
    p.stop = 1;
    pthread_cond_broadcast(&p.work);
    pthread_mutex_unlock(&p.mutex);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(p.threads[i], NULL);

    printf("%zu regions, %zu calls on the pool's own threads, %zu bytes of its own memory\n", p.regions,
           p.by_threads, own.most);
    if (own.most == 0 || own.held != 0) {
        fprintf(stderr, "the memory was not used, or not given back\n");
        return 1;
    }
    if (p.regions == 0 || memcmp(alone, pooled, sizeof alone) != 0) {
        fprintf(stderr, "the pool was not used, or the bits depend on it\n");
        return 1;
    }
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0.0;
            for (size_t k = 0; k < K; k++)
                sum += (double)a[i * K + k] * (double)b[k * N + j];
            worst = fmax(worst, fabs(sum - (double)pooled[i * N + j]));
        }
    expect_below("A * B", worst, K * K * ldexp(1.0, -24));
    return 0;
}
