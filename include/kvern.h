/*
 * kvern: the arithmetic of transformers on CPUs. Matrix products with weights in the GGUF formats of
 * KVERN_WEIGHT_FORMAT_* and with codes in groups; fused attention over key-value caches; and the row-wise
 * operators of a decoder layer (norms, RoPE, softmax, activations).
 *
 * This file is generated from src/capi. C99 and C++.
 *
 * What
 *   The same input gives the same output bits on every machine, for any number of threads, and for a token
 *   alone or in a batch, unless KVERN_PRECISION_FAST is asked for. A program makes a context (which
 *   instruction set, which threads, whose memory), a workspace (scratch memory), its weights, and then calls:
 *
 *       kvern_context *ctx = NULL;
 *       if (kvern_context_create(NULL, &ctx) != KVERN_STATUS_OK)
 *           die(kvern_last_error_message());
 *
 *   One decoder layer is kvern_rms_norm, kvern_weights_multiply_many (q, k, v of one input),
 *   kvern_kv_cache_append_prepared (rotation and append), kvern_attention, kvern_weights_multiply with
 *   beta = 1 (projection and residual), kvern_rms_norm, kvern_weights_multiply_gated, and once more
 *   kvern_weights_multiply.
 *
 *   Weights come from f32, from blocks and codes of other tools, or from a GGUF file: kvern_gguf_open,
 *   kvern_weights_from_gguf.
 *
 * Memory
 *   Objects are opaque. A create function writes the object to its last argument, NULL on failure; the
 *   destroy function of its type frees it and takes NULL as well. Arrays belong to the caller, and kvern
 *   keeps no pointer to them. Matrices are row-major: element (i, j) of x is x[i * x_row_stride + j]. Sizes
 *   and strides are in elements unless a name says bytes. A pointer may be NULL where there are no elements.
 *   An output must not overlap an input, counted from the first element to the last one, gaps included.
 *   Compute calls allocate nothing: ask the function *_workspace_bytes once for the largest sizes that will
 *   come, and make a workspace of the largest answer. One workspace serves calls of all kinds.
 *   Functions that make an object take a context first, which may be NULL. They work on its threads, and put
 *   what the object holds into the memory that kvern_context_options name; with NULL on the calling thread,
 *   and into memory of the process's allocator.
 *
 * Options
 *   Options are passed by pointer and start with struct_size. Initialise them with the macro that is named
 *   beside the struct; then zero means default in every field. Fields are only ever appended, so programs
 *   and libraries of different age work together: a field that a library does not know must be zero.
 *
 * Threads
 *   What a call gets as a pointer to const may be used by other threads at the same time; what it gets as a
 *   pointer to non-const belongs to the call alone. So contexts and weights are shared, and each thread has
 *   a workspace. kvern starts no thread unless kvern_context_options ask for it. A call waits for threads
 *   that compute, never for one that has not come yet, and no more compute at a time than the CPUs that the
 *   thread which made the context was allowed (on Windows, its process); a thread that has found nothing to
 *   do for 50 us sleeps.
 *   A child process after fork goes on with the objects of its parent, on the calling thread alone; it may
 *   make and destroy contexts in any order, its parent's too.
 *
 * Floating-point mode
 *   Every call computes in the default mode (round to nearest even, subnormal numbers kept, exceptions
 *   masked), on every thread, whatever mode the thread is in (fesetround, -ffast-math), and sets the mode
 *   back. So it is with x86-64 and arm64; on other CPUs threads have to be in the default mode.
 *
 * Errors
 *   A call returns KVERN_STATUS_OK or a negative status, and kvern_last_error_message then names the
 *   argument and the numbers that disagree. A refused call has changed nothing but its `out` pointer. NULL
 *   pointers, unknown enum numbers, sizes beyond the address space, misaligned and overlapping arrays are
 *   refused. No call aborts the program or throws. KVERN_STATUS_PANIC reports a fault of kvern itself; an
 *   object that was being changed then answers KVERN_STATUS_POISONED.
 *   Where there is no memory, a call that needs some answers KVERN_STATUS_RESOURCE. The exceptions, in which
 *   Rust's standard library ends the program, are file names (on unix, those of 384 bytes and more, and
 *   symbolic links that a save follows), and the text of a KVERN_STATUS_PANIC.
 *   What C cannot check stays the caller's part: that pointers point to live memory of the stated size and
 *   type, and that nothing is used after it was destroyed. Callbacks must not throw.
 *
 * Systems
 *   Huge pages are asked for on Linux alone; elsewhere, and where they are refused, pages stay small.
 *   On Windows, contexts with threads are neither made nor destroyed in DllMain, where the system starts and
 *   ends no thread; and a save onto a file that is mapped may be refused with IO. In WebAssembly
 *   (wasm32-unknown-unknown) a context with threads and a file that is to be mapped are refused with
 *   UNSUPPORTED, other files with IO, and a fault of kvern ends the program instead of being reported as
 *   KVERN_STATUS_PANIC.
 *
 * ABI
 *   Within one KVERN_ABI_VERSION there are only additions: no function, field, constant or meaning goes
 *   away. The shared library is named after it (libkvern.so.0 for version 0, libkvern.0.dylib on macOS;
 *   kvern.dll on Windows). `Since` names the first release of a function.
 */
#ifndef KVERN_H
#define KVERN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ----------------------------------------------------------------------------------- */

/** The version of this header. */
#define KVERN_VERSION_MAJOR 0
#define KVERN_VERSION_MINOR 1
#define KVERN_VERSION_PATCH 0
#define KVERN_VERSION_STRING "0.1.0"
/** Grows with every change that breaks a compiled caller. */
#define KVERN_ABI_VERSION 0

/**
 * The ABI version of the library that runs. A program that was compiled against another
 * `KVERN_ABI_VERSION` must not go on.
 *
 * Threads: any.
 * Since: 0.1
 */
uint32_t kvern_abi_version(void);

/**
 * The version of the library that runs, such as `0.1.0`. Static, never NULL.
 *
 * Threads: any.
 * Since: 0.1
 */
const char *kvern_version_string(void);

/* ---- Status ------------------------------------------------------------------------------------ */

/**
 * What a call returns: 0 or a negative code. A number never changes its meaning; new ones may be added.
 */
typedef int32_t kvern_status;

/**
 * The call did what it says.
 */
#define KVERN_STATUS_OK 0

/**
 * A pointer is NULL that must not be.
 */
#define KVERN_STATUS_NULL_POINTER (-1)

/**
 * A dimension, a stride or an index disagrees with another one.
 */
#define KVERN_STATUS_SHAPE (-2)

/**
 * This CPU, this build or this version lacks what was asked for.
 */
#define KVERN_STATUS_UNSUPPORTED (-3)

/**
 * An output overlaps an input.
 */
#define KVERN_STATUS_ALIASED (-4)

/**
 * The workspace is smaller than the query said.
 */
#define KVERN_STATUS_WORKSPACE (-5)

/**
 * A size does not fit the address space.
 */
#define KVERN_STATUS_OVERFLOW (-6)

/**
 * A value is outside of its range: an enum number, a flag, an option.
 */
#define KVERN_STATUS_OPTION (-7)

/**
 * The key-value cache has no window that would let it forget, and no room; or its pool has too few free
 * pages.
 */
#define KVERN_STATUS_CACHE_FULL (-8)

/**
 * The system gave no memory or no thread.
 */
#define KVERN_STATUS_RESOURCE (-9)

/**
 * A pointer is not aligned to its type.
 */
#define KVERN_STATUS_MISALIGNED (-10)

/**
 * A fault of the library, caught. Report it with the message.
 */
#define KVERN_STATUS_PANIC (-11)

/**
 * An earlier call on this object ended with PANIC: only destroy it.
 */
#define KVERN_STATUS_POISONED (-12)

/**
 * A buffer is too short.
 */
#define KVERN_STATUS_LENGTH (-13)

/**
 * A stored object is truncated, foreign or damaged.
 */
#define KVERN_STATUS_BLOB (-14)

/**
 * Reading or writing a file failed.
 */
#define KVERN_STATUS_IO (-15)

/**
 * Why the calling thread's last call failed: one sentence that names the argument and the numbers, such as
 * `b_row_stride = 64 must be at least 128`. UTF-8, at most 1023 bytes, never NULL, "" after a call that
 * succeeded.
 *
 * The text belongs to the library and is valid until the next kvern call on this thread; this function,
 * `kvern_status_name` and the version functions are not such calls.
 * Threads: any; each thread has a message of its own.
 * Since: 0.1
 */
const char *kvern_last_error_message(void);

/**
 * The name of a status, such as `KVERN_STATUS_SHAPE`; `KVERN_STATUS_?` for a number that is none.
 *
 * The text is static and never NULL. Threads: any.
 * Since: 0.1
 */
const char *kvern_status_name(kvern_status status);

/* ---- Context ----------------------------------------------------------------------------------- */

/**
 * A tier and the threads that compute. Immutable: any number of threads may call through one context at a
 * time, each with its own workspace.
 */
typedef struct kvern_context kvern_context;

/**
 * An instruction-set tier: a `KVERN_ISA_*` number. All tiers give the same bits.
 */
typedef int32_t kvern_isa;

/**
 * One worker of a parallel region, to be called as `body(arg, worker)`.
 */
typedef void (*kvern_worker_body)(void *arg, size_t worker);

/**
 * The caller's own threads: calls `body(arg, worker)` for each worker in 0..workers, on any threads in any
 * order, and returns when all of these calls have returned. Must not throw; may be called from several
 * threads at once when the context is. The calling thread is in the default floating-point mode meanwhile.
 *
 * What it does wrong costs time, never memory or a result. A worker that is called late finds less work, and
 * none when the call of kvern is over, or its context destroyed: `arg` is a number that stands for the
 * region, no memory. A second call of a worker does nothing, nor does a number that is no worker. The
 * calling thread does the work of workers that are not called, and all work where 64 such regions of the
 * process are being computed already. The call of kvern returns when no thread is inside of `body` any more.
 * `body` itself is there as long as the library is loaded.
 */
typedef void (*kvern_parallel_for)(void *user, size_t workers, kvern_worker_body body, void *arg);

/**
 * The caller's own memory: returns `bytes` bytes (never 0) from a multiple of `alignment` (64) on, or NULL
 * when there are none: the call that needs them is refused with RESOURCE then, and with OPTION for another
 * alignment. Must not throw and not call kvern; may be called from several threads at once.
 */
typedef void *(*kvern_allocate)(void *user, size_t bytes, size_t alignment);

/**
 * Takes back what `kvern_allocate` returned for as many bytes; the same rules.
 */
typedef void (*kvern_release)(void *user, void *start, size_t bytes);

/**
 * What a context is made from. Start from KVERN_CONTEXT_OPTIONS_INIT.
 */
typedef struct {
    /**
     * sizeof(kvern_context_options).
     */
    size_t struct_size;
    /**
     * Threads that compute, the calling one included: 1..=256; 0 means 1. Others are started at once and
     * belong to the context. More than there are CPUs gain nothing.
     */
    uint32_t threads;
    /**
     * The tier to use; KVERN_ISA_DEFAULT for the one that the machine prefers.
     */
    kvern_isa isa_cap;
    /**
     * With `parallel_for`: the most threads that it computes on, 1..=256. Else 0.
     */
    size_t max_threads;
    /**
     * The caller's own threads, instead of `threads`; NULL for none.
     */
    kvern_parallel_for parallel_for;
    /**
     * Passed to `parallel_for`. Must stay valid until the context is destroyed.
     */
    void *user;
    /**
     * Where packed matrices, packed weights, caches and workspaces lie that are made with this context; NULL
     * for the process's allocator. It is used until the last of these objects is destroyed, even after the
     * context.
     */
    kvern_allocate allocate;
    /**
     * Takes memory back; NULL where `allocate` is.
     */
    kvern_release release;
    /**
     * Passed to `allocate` and `release`.
     */
    void *memory;
} kvern_context_options;

/**
 * As an option: the tier that the machine prefers.
 */
#define KVERN_ISA_DEFAULT 0

/**
 * Portable code.
 */
#define KVERN_ISA_SCALAR 1

/**
 * x86-64 with AVX2, FMA, F16C, BMI1, BMI2, LZCNT and POPCNT.
 */
#define KVERN_ISA_AVX2 2

/**
 * What KVERN_ISA_AVX2 needs, and AVX-512 F, BW, VL and DQ. VNNI and BF16 are used where the CPU has them.
 */
#define KVERN_ISA_AVX512 3

/**
 * What KVERN_ISA_AVX2 needs, and AVX-VNNI, which quantised products use.
 */
#define KVERN_ISA_AVX_VNNI 4

/**
 * AArch64 with NEON.
 */
#define KVERN_ISA_NEON 8

/**
 * What KVERN_ISA_NEON needs, and the dot products of ARMv8.2.
 */
#define KVERN_ISA_NEON_DOTPROD 9

/**
 * What KVERN_ISA_NEON_DOTPROD needs, and the matrix products of bytes of ARMv8.6.
 */
#define KVERN_ISA_NEON_I8MM 10

/**
 * Makes a context.
 *
 * `options`: NULL for all defaults: the calling thread alone, the machine's best tier.
 * `out`: receives the context, NULL on failure.
 * Errors: NULL_POINTER, MISALIGNED, OPTION, UNSUPPORTED (a tier that the machine lacks, or a field of a
 * newer header), RESOURCE. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_context_create(const kvern_context_options *options,
                                  kvern_context **out);

/**
 * Ends the context's threads and frees it. NULL is a no-op.
 *
 * Threads: `ctx` exclusive.
 * Since: 0.1
 */
void kvern_context_destroy(kvern_context *ctx);

/**
 * `*out` = the tier that the context computes with, a `KVERN_ISA_*` number.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_context_isa(const kvern_context *ctx, kvern_isa *out);

/**
 * `*out` = the most threads that compute at once: 1 for a context without threads.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_context_max_threads(const kvern_context *ctx, size_t *out);

/**
 * `*out` = the id of the kernel that the context runs for an operation, such as `avx512-f32-6x64`.
 *
 * `operation`: its name, NUL-terminated; the message of a failure lists the names.
 * `out`: receives a text that lives as long as the context.
 * Errors: NULL_POINTER, OPTION (no such operation). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_context_kernel_name(const kvern_context *ctx,
                                       const char *operation,
                                       const char **out);

/**
 * `*out` = how many operations have a kernel of their own: the indices of `kvern_context_kernel`.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_context_kernel_count(const kvern_context *ctx, size_t *out);

/**
 * `*operation`, `*id` = the name of an operation, and the id of the kernel that the context runs for it.
 *
 * `index`: below `kvern_context_kernel_count`. `operation`, `id`: receive texts that live as long as the
 * context, NULL on failure.
 * Errors: NULL_POINTER, SHAPE. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_context_kernel(const kvern_context *ctx,
                                  size_t index,
                                  const char **operation,
                                  const char **id);

/**
 * Whether this machine has a tier: 1 or 0; 0 for a number that is none.
 *
 * Threads: any.
 * Since: 0.1
 */
int32_t kvern_isa_is_available(kvern_isa isa);

/**
 * The tier that this machine prefers, a `KVERN_ISA_*` number.
 *
 * Threads: any.
 * Since: 0.1
 */
kvern_isa kvern_isa_detect(void);

/**
 * How many tiers kvern knows, of every architecture: the indices of `kvern_isa_at`.
 *
 * Threads: any.
 * Since: 0.1
 */
size_t kvern_isa_count(void);

/**
 * One of the tiers that kvern knows, a `KVERN_ISA_*` number; KVERN_ISA_DEFAULT for an index of
 * `kvern_isa_count` and above. Of those that the machine has, the last one is preferred.
 *
 * Threads: any.
 * Since: 0.1
 */
kvern_isa kvern_isa_at(size_t index);

/**
 * `*out` = the tier of a name, such as `avx2`, also one of another architecture.
 *
 * `name`: NUL-terminated; the message of a failure lists the names.
 * Errors: NULL_POINTER, OPTION (no such tier). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_isa_from_name(const char *name, kvern_isa *out);

/**
 * The name of a tier, such as `avx2`; `?` for a number that is none. Static, never NULL.
 *
 * Threads: any.
 * Since: 0.1
 */
const char *kvern_isa_name(kvern_isa isa);

/**
 * Whether this machine can run a tier, and why not: `available`, `the CPU or its operating system lacks
 * avx512f`, `a tier of aarch64, and kvern was built for x86_64`. `?` for a number that is none. Static,
 * never NULL.
 *
 * Threads: any.
 * Since: 0.1
 */
const char *kvern_isa_status(kvern_isa isa);

/* ---- Workspace --------------------------------------------------------------------------------- */

/**
 * Scratch memory for compute calls, which allocate nothing. One workspace serves any number of calls, one
 * at a time: give each thread its own.
 */
typedef struct kvern_workspace kvern_workspace;

/**
 * Makes a workspace of `bytes` bytes, 64-byte aligned. 0 is allowed: `kvern_workspace_reserve` grows it.
 *
 * `ctx`: whose memory it lies and grows in; NULL for the process's allocator. `out`: receives the workspace,
 * NULL on failure.
 * Errors: NULL_POINTER, OVERFLOW, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_workspace_create(const kvern_context *ctx,
                                    size_t bytes,
                                    kvern_workspace **out);

/**
 * Grows the workspace to at least `bytes` bytes; it never shrinks. What it held is lost.
 *
 * Errors: NULL_POINTER, OVERFLOW, RESOURCE (the old memory is still there), POISONED.
 * Threads: `ws` exclusive.
 * Since: 0.1
 */
kvern_status kvern_workspace_reserve(kvern_workspace *ws, size_t bytes);

/**
 * `*out` = the bytes that the workspace holds.
 *
 * Errors: NULL_POINTER, POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_workspace_bytes(const kvern_workspace *ws, size_t *out);

/**
 * Frees the workspace. NULL is a no-op.
 *
 * Threads: `ws` exclusive.
 * Since: 0.1
 */
void kvern_workspace_destroy(kvern_workspace *ws);

/* ---- Matrix products --------------------------------------------------------------------------- */

/**
 * A function of one element: a `KVERN_ACTIVATION_*` number.
 */
typedef int32_t kvern_activation;

/**
 * What happens to a finished product AB: `C = beta * C + act(alpha * AB + bias)`. Start from
 * KVERN_EPILOGUE_INIT; NULL instead of a pointer to it means `C = AB`.
 */
typedef struct {
    /**
     * sizeof(kvern_epilogue).
     */
    size_t struct_size;
    /**
     * Factor of the product; 0 means 1.
     */
    float alpha;
    /**
     * Factor of what C holds already. With 0, C is not read; with 1, it is a residual.
     */
    float beta;
    /**
     * Added to each row, n elements; NULL for none. Must not overlap C.
     */
    const float *bias;
    /**
     * Applied after the bias.
     */
    kvern_activation activation;
    /**
     * 0: no flag is defined.
     */
    uint32_t flags;
} kvern_epilogue;

/**
 * x
 */
#define KVERN_ACTIVATION_IDENTITY 0

/**
 * max(x, 0)
 */
#define KVERN_ACTIVATION_RELU 1

/**
 * 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the tanh form (Gemma, GPT-2, SigLIP)
 */
#define KVERN_ACTIVATION_GELU 2

/**
 * x / (1 + e^-x)
 */
#define KVERN_ACTIVATION_SILU 3

/**
 * 0.5 x (1 + erf(x / sqrt(2))): the exact form of GELU (BERT, Whisper)
 */
#define KVERN_ACTIVATION_GELU_ERF 4

/**
 * x / (1 + e^(-1.702 x)): quick GELU (CLIP)
 */
#define KVERN_ACTIVATION_GELU_QUICK 5

/**
 * max(x, 0)^2 (Nemotron)
 */
#define KVERN_ACTIVATION_RELU_SQUARED 6

/**
 * 1 / (1 + e^-x)
 */
#define KVERN_ACTIVATION_SIGMOID 7

/**
 * tanh(x)
 */
#define KVERN_ACTIVATION_TANH 8

/**
 * ln(1 + e^x)
 */
#define KVERN_ACTIVATION_SOFTPLUS 9

/**
 * e^x
 */
#define KVERN_ACTIVATION_EXP 10

/**
 * `*out` = the bytes of workspace that `kvern_matmul` needs for these sizes, whatever the strides.
 *
 * Errors: NULL_POINTER, OVERFLOW. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_matmul_workspace_bytes(const kvern_context *ctx,
                                          size_t m,
                                          size_t n,
                                          size_t k,
                                          size_t *out);

/**
 * `C = beta * C + act(alpha * A * B + bias)`, f32, row-major, strides in elements.
 *
 * `a`: (m, k), stored (k, m) when `transpose_a` is 1. `b`: (k, n), stored (n, k) when `transpose_b` is 1.
 * `c`: (m, n), must not overlap the inputs. `epilogue`: NULL for `C = A * B`.
 * Each element of A * B is one chain of fused multiply-adds over k ascending. Allocates nothing.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (a stride below its row), OPTION, UNSUPPORTED, ALIASED,
 * WORKSPACE, POISONED; C is unchanged then. Threads: `ctx` shared, `ws` and C exclusive.
 * Since: 0.1
 */
kvern_status kvern_matmul(const kvern_context *ctx,
                          kvern_workspace *ws,
                          size_t m,
                          size_t n,
                          size_t k,
                          const float *a,
                          size_t a_row_stride,
                          int32_t transpose_a,
                          const float *b,
                          size_t b_row_stride,
                          int32_t transpose_b,
                          float *c,
                          size_t c_row_stride,
                          const kvern_epilogue *epilogue);

/* ---- Packed matrices --------------------------------------------------------------------------- */

/**
 * A matrix B of f32, f16 or bf16, packed once and multiplied many times. Immutable.
 */
typedef struct kvern_packed_b kvern_packed_b;

/**
 * An element type: a `KVERN_DTYPE_*` number.
 */
typedef int32_t kvern_dtype;

/**
 * How closely a product follows the definition: a `KVERN_PRECISION_*` number.
 */
typedef int32_t kvern_precision;

/**
 * Images and how patches are cut from them; a sequence is an image of one line. Start from
 * KVERN_PATCHES_INIT. Strides of 0 mean 1.
 */
typedef struct {
    /**
     * sizeof(kvern_patches).
     */
    size_t struct_size;
    /**
     * Images, which follow each other in memory.
     */
    size_t images;
    /**
     * Lines of an image.
     */
    size_t height;
    /**
     * Pixels of a line.
     */
    size_t width;
    /**
     * Numbers of a pixel.
     */
    size_t channels;
    /**
     * Lines of a patch.
     */
    size_t kernel_height;
    /**
     * Pixels of a line of a patch.
     */
    size_t kernel_width;
    /**
     * Lines from one patch to the next.
     */
    size_t stride_y;
    /**
     * Pixels from one patch to the next.
     */
    size_t stride_x;
    /**
     * Lines of zeros above and below an image.
     */
    size_t padding_y;
    /**
     * Pixels of zeros left and right of an image.
     */
    size_t padding_x;
} kvern_patches;

/**
 * IEEE binary32, `float`.
 */
#define KVERN_DTYPE_F32 0

/**
 * IEEE binary16, 2 bytes.
 */
#define KVERN_DTYPE_F16 1

/**
 * The upper half of a binary32, 2 bytes.
 */
#define KVERN_DTYPE_BF16 30

/**
 * One chain of f32 FMA for each element: the same bits on every machine.
 */
#define KVERN_PRECISION_EXACT 0

/**
 * With bf16 weights on CPUs with bf16 dot instructions, activations are rounded to bf16 and summed in f32,
 * at twice the rate: error at most (2^-8 + k 2^-22) sum |a||b| while every activation lies below
 * 3.3961775e38, from where it rounds to infinity; activations, weights and sums below 2^-126 may count as 0.
 * Bits depend on the instruction set, but not on threads or batch. Everywhere else as EXACT.
 */
#define KVERN_PRECISION_FAST 1

/**
 * Packs an f32 B for many products: `kvern_packed_b_pack_dtype` of KVERN_DTYPE_F32.
 *
 * `b`: (k, n), f32, row-major, stride in elements; stored (n, k) when `transpose_b` is 1, as weights
 * (out_features, in_features) are. `ctx`: NULL for the machine's best tier and the process's allocator.
 * `out`: receives the object, NULL on failure. Any context may use it.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_packed_b_pack(const kvern_context *ctx,
                                 size_t k,
                                 size_t n,
                                 const float *b,
                                 size_t b_row_stride,
                                 int32_t transpose_b,
                                 kvern_packed_b **out);

/**
 * Packs B for many products, in its own element type: 2 bytes stay 2 bytes. `b` is not needed afterwards.
 *
 * `dtype`: a `KVERN_DTYPE_*` number. `b`: (k, n) of that type, row-major, stride in elements; stored (n, k)
 * when `transpose_b` is 1, as weights (out_features, in_features) are. `ctx`: whose tiles the panels are as
 * wide as and whose memory they lie in; NULL for the machine's best tier and the process's allocator. `out`:
 * receives the object, NULL on failure. Any context may use it.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_packed_b_pack_dtype(const kvern_context *ctx,
                                       kvern_dtype dtype,
                                       size_t k,
                                       size_t n,
                                       const void *b,
                                       size_t b_row_stride,
                                       int32_t transpose_b,
                                       kvern_packed_b **out);

/**
 * Writes the packed matrix to a file: a header of 128 bytes with a checksum, and the packed bytes. The file
 * is replaced as a whole: an error leaves the old one, and a matrix that is mapped from it keeps it.
 *
 * `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows).
 * Errors: NULL_POINTER, IO, RESOURCE, UNSUPPORTED (a big-endian machine). Threads: `b` shared.
 * Since: 0.1
 */
kvern_status kvern_packed_b_save(const kvern_packed_b *b,
                                 const char *path);

/**
 * Reads a matrix that `kvern_packed_b_save` wrote, on any machine, into memory of its own.
 *
 * `ctx`: whose memory the object lies in; NULL for the process's allocator. `path`: as for
 * `kvern_packed_b_save`. `out`: receives the object, NULL on failure.
 * Errors: NULL_POINTER, IO (no regular file, for one), BLOB (truncated, too long, foreign, of another
 * version, damaged), RESOURCE, UNSUPPORTED (a big-endian machine). Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_packed_b_load(const kvern_context *ctx,
                                 const char *path,
                                 kvern_packed_b **out);

/**
 * As `kvern_packed_b_load`, with the file mapped into memory instead of read: nothing is copied, and
 * programs that map one file share its memory. Nobody may write into the file or shorten it while the object
 * lives: a page that is gone ends the process when it is touched. A save to the same path does neither.
 *
 * Errors: as `kvern_packed_b_load`; UNSUPPORTED on systems without mmap. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_packed_b_map(const char *path,
                                kvern_packed_b **out);

/**
 * `*out` = the bytes that the packed matrix holds.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_packed_b_bytes(const kvern_packed_b *b, size_t *out);

/**
 * `*out` = k, the rows of B.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_packed_b_k(const kvern_packed_b *b, size_t *out);

/**
 * `*out` = n, the columns of B.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_packed_b_n(const kvern_packed_b *b, size_t *out);

/**
 * `*out` = the element type of B, a `KVERN_DTYPE_*` number.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_packed_b_dtype(const kvern_packed_b *b, kvern_dtype *out);

/**
 * `*out` = the id of the kernel that the layout was made for, such as `avx512-f32-6x64`: a text that lives
 * as long as the object.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_packed_b_kernel_id(const kvern_packed_b *b,
                                      const char **out);

/**
 * `*out` = the bytes of workspace that every product of up to m rows with this B needs, gated ones included.
 *
 * Errors: NULL_POINTER, OVERFLOW. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_packed_b_workspace_bytes(const kvern_context *ctx,
                                            const kvern_packed_b *b,
                                            size_t m,
                                            size_t *out);

/**
 * `C = beta * C + act(alpha * A * B + bias)` in f32: `kvern_packed_b_multiply_with` of KVERN_PRECISION_EXACT
 * and KVERN_DTYPE_F32. With a B of f32 the bits of `kvern_matmul`, sooner.
 *
 * `a`: (m, k), `c`: (m, n), f32, row-major, strides in elements; n and k must be those of B. `c` must not
 * overlap the inputs. `epilogue`: NULL for `C = A * B`. Allocates nothing.
 * Errors: as `kvern_matmul`. Threads: `ctx` and `b` shared, `ws` and C exclusive.
 * Since: 0.1
 */
kvern_status kvern_packed_b_multiply(const kvern_context *ctx,
                                     kvern_workspace *ws,
                                     const kvern_packed_b *b,
                                     size_t m,
                                     size_t n,
                                     size_t k,
                                     const float *a,
                                     size_t a_row_stride,
                                     float *c,
                                     size_t c_row_stride,
                                     const kvern_epilogue *epilogue);

/**
 * `C = beta * C + act(alpha * A * B + bias)` with a choice of precision and of the type of C.
 *
 * `precision`: a `KVERN_PRECISION_*` number. `a`: (m, k), f32; `c`: (m, n) of `c_dtype`, a `KVERN_DTYPE_*`
 * number: f16 and bf16 are the f32 result rounded once, ties to even. Row-major, strides in elements; n and
 * k must be those of B. `c` must not overlap the inputs. `epilogue`: NULL for `C = A * B`; a beta needs a C
 * of f32. B of f16 or bf16 gives the bits of B widened to f32. Allocates nothing.
 * Errors: as `kvern_matmul`; OPTION for a beta with a C that is not f32. Threads: `ctx` and `b` shared,
 * `ws` and C exclusive.
 * Since: 0.1
 */
kvern_status kvern_packed_b_multiply_with(const kvern_context *ctx,
                                          kvern_workspace *ws,
                                          const kvern_packed_b *b,
                                          kvern_precision precision,
                                          size_t m,
                                          size_t n,
                                          size_t k,
                                          const float *a,
                                          size_t a_row_stride,
                                          kvern_dtype c_dtype,
                                          void *c,
                                          size_t c_row_stride,
                                          const kvern_epilogue *epilogue);

/**
 * `C = act(alpha * A * B + bias) * (A * UP)`, the gate of a feed-forward layer in one pass: neither product
 * is written to memory.
 *
 * `up`: packed, (k, n) as B. Everything else as for `kvern_packed_b_multiply_with`; the epilogue's
 * activation is usually KVERN_ACTIVATION_SILU, and its beta must be 0.
 * Errors: as `kvern_packed_b_multiply_with`; OPTION for a beta. Threads: `ctx`, `b` and `up` shared, `ws`
 * and C exclusive.
 * Since: 0.1
 */
kvern_status kvern_packed_b_multiply_gated(const kvern_context *ctx,
                                           kvern_workspace *ws,
                                           const kvern_packed_b *b,
                                           const kvern_packed_b *up,
                                           kvern_precision precision,
                                           size_t m,
                                           size_t n,
                                           size_t k,
                                           const float *a,
                                           size_t a_row_stride,
                                           kvern_dtype c_dtype,
                                           void *c,
                                           size_t c_row_stride,
                                           const kvern_epilogue *epilogue);

/**
 * Frees the packed matrix. NULL is a no-op.
 *
 * Threads: `b` exclusive.
 * Since: 0.1
 */
void kvern_packed_b_destroy(kvern_packed_b *b);

/**
 * `*out` = the patches of all images: the rows of C, and of the workspace that
 * `kvern_packed_b_workspace_bytes` is asked for.
 *
 * Errors: NULL_POINTER, MISALIGNED, OPTION, SHAPE (a kernel beyond the padded image), UNSUPPORTED, OVERFLOW.
 * Threads: any.
 * Since: 0.1
 */
kvern_status kvern_patches_count(const kvern_patches *patches,
                                 size_t *out);

/**
 * A convolution: `C = beta * C + act(alpha * A * B + bias)` with a row of A for each patch, in the order of
 * images, then lines, then columns, and in it the places of the kernel line by line, all channels of a place
 * together. The bits of `kvern_packed_b_multiply` with those rows; they are nowhere whole in memory.
 *
 * `b`: (kernel_height * kernel_width * channels, n): weights stored (n, kernel_height, kernel_width,
 * channels) are packed as a transposed matrix. `x`: (images * height * width, channels), f32, one pixel a
 * row. `c`: (patches, n), f32. Strides in elements. `c` must not overlap the inputs. `epilogue`: NULL for `C
 * = A * B`. Allocates nothing. Errors: as `kvern_patches_count`; ALIASED, WORKSPACE, POISONED; C is
 * unchanged then. Threads: `ctx` and `b` shared, `ws` and C exclusive. Since: 0.1
 */
kvern_status kvern_packed_b_convolve(const kvern_context *ctx,
                                     kvern_workspace *ws,
                                     const kvern_packed_b *b,
                                     const kvern_patches *patches,
                                     const float *x,
                                     size_t x_row_stride,
                                     size_t n,
                                     float *c,
                                     size_t c_row_stride,
                                     const kvern_epilogue *epilogue);

/* ---- Quantised weights ------------------------------------------------------------------------- */

/**
 * A weight matrix W (n output features, k input features), quantised and packed. Immutable.
 */
typedef struct kvern_weights kvern_weights;

/**
 * How weights are stored: a `KVERN_WEIGHT_FORMAT_*` number, the type id of GGUF. Every format that has a
 * number here is converted, packed and multiplied; GGUF's other types are refused with OPTION.
 */
typedef int32_t kvern_weight_format;

/**
 * How a product with quantised weights treats its activations: a `KVERN_COMPUTE_*` number.
 */
typedef int32_t kvern_compute;

/**
 * 32 bits a weight: the weight itself.
 */
#define KVERN_WEIGHT_FORMAT_F32 0

/**
 * 16 bits a weight: IEEE binary16.
 */
#define KVERN_WEIGHT_FORMAT_F16 1

/**
 * 4.5 bits a weight, blocks of 32: w = d * (q - 8), d in f16, q in 0..=15.
 */
#define KVERN_WEIGHT_FORMAT_Q4_0 2

/**
 * 5 bits a weight, blocks of 32: w = d * q + m, d and m in f16, q in 0..=15.
 */
#define KVERN_WEIGHT_FORMAT_Q4_1 3

/**
 * 5.5 bits a weight, blocks of 32: w = d * (q - 16), d in f16, q in 0..=31.
 */
#define KVERN_WEIGHT_FORMAT_Q5_0 6

/**
 * 6 bits a weight, blocks of 32: w = d * q + m, d and m in f16, q in 0..=31.
 */
#define KVERN_WEIGHT_FORMAT_Q5_1 7

/**
 * 8.5 bits a weight, blocks of 32: w = d * q, d in f16, q in -128..=127.
 */
#define KVERN_WEIGHT_FORMAT_Q8_0 8

/**
 * 2.625 bits a weight, blocks of 256: w = d * s * q - dmin * t, q in 0..=3, s and t of 4 bits for each 16.
 */
#define KVERN_WEIGHT_FORMAT_Q2_K 10

/**
 * 3.4375 bits a weight, blocks of 256: w = d * s * (q - 4), q in 0..=7, s of 6 bits for each 16.
 */
#define KVERN_WEIGHT_FORMAT_Q3_K 11

/**
 * 4.5 bits a weight, blocks of 256: w = d * s * q - dmin * t, q in 0..=15, s and t of 6 bits for each 32.
 */
#define KVERN_WEIGHT_FORMAT_Q4_K 12

/**
 * 5.5 bits a weight, blocks of 256: w = d * s * q - dmin * t, q in 0..=31, s and t of 6 bits for each 32.
 */
#define KVERN_WEIGHT_FORMAT_Q5_K 13

/**
 * 6.5625 bits a weight, blocks of 256: w = d * s * (q - 32), q in 0..=63, s of 8 bits for each 16.
 */
#define KVERN_WEIGHT_FORMAT_Q6_K 14

/**
 * 2.0625 bits a weight, blocks of 256: w = d * (2 t + 1) / 8 * v, v of a codebook, t of 4 bits for each 32.
 */
#define KVERN_WEIGHT_FORMAT_IQ2_XXS 16

/**
 * 2.3125 bits a weight, blocks of 256: as IQ2_XXS, t of 4 bits for each 16.
 */
#define KVERN_WEIGHT_FORMAT_IQ2_XS 17

/**
 * 3.0625 bits a weight, blocks of 256: w = d * (2 t + 1) / 4 * v, v of a codebook, t of 4 bits for each 32.
 */
#define KVERN_WEIGHT_FORMAT_IQ3_XXS 18

/**
 * 1.5625 bits a weight, blocks of 256: w = d * (2 t + 1) * (v + s / 8), v of a codebook of -1, 0, 1.
 */
#define KVERN_WEIGHT_FORMAT_IQ1_S 19

/**
 * 4.5 bits a weight, blocks of 32: w = d * table[code], 16 values spaced as weights are spread.
 */
#define KVERN_WEIGHT_FORMAT_IQ4_NL 20

/**
 * 3.4375 bits a weight, blocks of 256: w = d * (2 t + 1) * v, v of a codebook, t of 4 bits for each 32.
 */
#define KVERN_WEIGHT_FORMAT_IQ3_S 21

/**
 * 2.5625 bits a weight, blocks of 256: as IQ2_XS, with a sign for each weight.
 */
#define KVERN_WEIGHT_FORMAT_IQ2_S 22

/**
 * 4.25 bits a weight, blocks of 256: w = d * s * table[code], s of 6 bits for each 32.
 */
#define KVERN_WEIGHT_FORMAT_IQ4_XS 23

/**
 * 1.75 bits a weight, blocks of 256: as IQ1_S, t of 3 bits for each 16.
 */
#define KVERN_WEIGHT_FORMAT_IQ1_M 29

/**
 * 16 bits a weight: the upper half of an f32.
 */
#define KVERN_WEIGHT_FORMAT_BF16 30

/**
 * 1.6875 bits a weight, blocks of 256: w = d * (q - 1), q in 0..=2. Packed in 2.0625 bits.
 */
#define KVERN_WEIGHT_FORMAT_TQ1_0 34

/**
 * 2.0625 bits a weight, blocks of 256: w = d * (q - 1), q in 0..=3.
 */
#define KVERN_WEIGHT_FORMAT_TQ2_0 35

/**
 * 4.25 bits a weight, blocks of 32: w = 2^(e - 127) * E2M1[code], NaN for e = 255.
 */
#define KVERN_WEIGHT_FORMAT_MXFP4 39

/**
 * 4.5 bits a weight, blocks of 64: w = d * E2M1[code], d in E4M3 for each 16.
 */
#define KVERN_WEIGHT_FORMAT_NVFP4 40

/**
 * 1.125 bits a weight, blocks of 128: w = d or -d, d in f16.
 */
#define KVERN_WEIGHT_FORMAT_Q1_0 41

/**
 * 2.25 bits a weight, blocks of 64: w = d * (q - 1), d in f16, q in 0..=3.
 */
#define KVERN_WEIGHT_FORMAT_Q2_0 42

/**
 * Activations are rounded to int8 in blocks of 32: fast, the default.
 */
#define KVERN_COMPUTE_INT8 0

/**
 * Activations stay f32: the bits of dequantising first.
 */
#define KVERN_COMPUTE_F32 1

/**
 * Quantises and packs f32 weights. `w` is not needed afterwards.
 *
 * `ctx`: whose threads it runs on and whose memory the object lies in; NULL for the calling thread and the
 * process's allocator. `w`: (n, k), f32, row-major, stride in elements; rows are output features, k a
 * multiple of the block of the format.
 * `out`: receives the object, NULL on failure. A NaN or infinity makes its block NaN.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_quantize(const kvern_context *ctx,
                                    kvern_weight_format format,
                                    size_t n,
                                    size_t k,
                                    const float *w,
                                    size_t w_row_stride,
                                    kvern_weights **out);

/**
 * Packs weights that are quantised already: the data of a GGUF tensor. `blocks` is not needed afterwards.
 *
 * `ctx`: whose threads it runs on and whose memory the object lies in; NULL for the calling thread and the
 * process's allocator. `blocks`: n rows of blocks, exactly `kvern_blocks_bytes(format, n, k)` bytes, any
 * alignment.
 * `out`: receives the object, NULL on failure.
 * Errors: NULL_POINTER, OVERFLOW, SHAPE (a wrong `blocks_bytes`), OPTION, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_blocks(const kvern_context *ctx,
                                       kvern_weight_format format,
                                       size_t n,
                                       size_t k,
                                       const uint8_t *blocks,
                                       size_t blocks_bytes,
                                       kvern_weights **out);

/**
 * `kvern_weights_from_blocks` of rows that lie `row_bytes` bytes apart: a part of a larger tensor, along n
 * or along k, where it is.
 *
 * `blocks`: from the first block of the first row on, at least (n - 1) * `row_bytes` and the bytes of a row;
 * `row_bytes`: at least those. `ctx`, `out`: as there.
 * Errors: NULL_POINTER, OVERFLOW, SHAPE (a `row_bytes` below the bytes of a row), LENGTH (too few
 * `blocks_bytes`), OPTION, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_block_rows(const kvern_context *ctx,
                                           kvern_weight_format format,
                                           size_t n,
                                           size_t k,
                                           const uint8_t *blocks,
                                           size_t blocks_bytes,
                                           size_t row_bytes,
                                           kvern_weights **out);

/**
 * Writes the weights as GGUF blocks, bit for bit what was packed.
 *
 * `blocks`: receives exactly `kvern_blocks_bytes(format, n, k)` bytes.
 * Errors: NULL_POINTER, OVERFLOW, SHAPE (a wrong `blocks_bytes`), UNSUPPORTED (codes in groups, which have
 * no blocks). Threads: `weights` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_to_blocks(const kvern_weights *weights,
                                     uint8_t *blocks,
                                     size_t blocks_bytes);

/**
 * Writes row `row` of W (one output feature) in f32, exactly.
 *
 * `out`: receives k elements; k must be that of the weights.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE. Threads: `weights` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_dequantize_row(const kvern_weights *weights,
                                          size_t row,
                                          size_t k,
                                          float *out);

/**
 * `*out` = the bytes that the packed weights hold: those of the blocks, n rounded up to 16 and k to the
 * unit of the layout (64 or 128 for small blocks).
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_weights_bytes(const kvern_weights *weights,
                                 size_t *out);

/**
 * `*out` = the bytes of workspace that `kvern_weights_multiply` needs for up to m rows, gated or not.
 *
 * Errors: NULL_POINTER, OPTION, OVERFLOW. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_weights_workspace_bytes(const kvern_context *ctx,
                                           const kvern_weights *weights,
                                           kvern_compute compute,
                                           size_t m,
                                           size_t *out);

/**
 * `C = beta * C + act(alpha * A * W^T + bias)`.
 *
 * `a`: (m, k), `c`: (m, n), f32, row-major, strides in elements; n and k must be those of the weights. `c`
 * must not overlap the inputs. `epilogue`: NULL for `C = A * W^T`. Row i of a batch has the bits of the same
 * row alone. Weights of single floats are multiplied exactly whatever `compute` says. With
 * KVERN_COMPUTE_INT8, a NaN or infinity in a row of A makes its row of C NaN. Allocates nothing.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, UNSUPPORTED, ALIASED, WORKSPACE, POISONED; C is
 * unchanged then. Threads: `ctx` and `weights` shared, `ws` and C exclusive.
 * Since: 0.1
 */
kvern_status kvern_weights_multiply(const kvern_context *ctx,
                                    kvern_workspace *ws,
                                    const kvern_weights *weights,
                                    kvern_compute compute,
                                    size_t m,
                                    size_t n,
                                    size_t k,
                                    const float *a,
                                    size_t a_row_stride,
                                    float *c,
                                    size_t c_row_stride,
                                    const kvern_epilogue *epilogue);

/**
 * Frees the weights. NULL is a no-op.
 *
 * Threads: `weights` exclusive.
 * Since: 0.1
 */
void kvern_weights_destroy(kvern_weights *weights);

/**
 * `*out` = the bytes of `rows` rows of k weights as GGUF blocks; k a multiple of the block of the format.
 *
 * Errors: NULL_POINTER, OPTION, OVERFLOW. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_blocks_bytes(kvern_weight_format format,
                                size_t rows,
                                size_t k,
                                size_t *out);

/**
 * Quantises f32 values into GGUF blocks: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 byte for byte as the reference
 * implementation of the formats, the others by a search for the least squared error.
 *
 * `x`: len elements, a multiple of the block of the format. A NaN or infinity makes its block NaN; MXFP4,
 * which has neither, refuses it with OPTION. `blocks`: receives exactly `kvern_blocks_bytes(format, 1, len)`
 * bytes, any alignment; must not overlap `x`.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_blocks_quantize(kvern_weight_format format,
                                   const float *x,
                                   size_t len,
                                   uint8_t *blocks,
                                   size_t blocks_bytes);

/**
 * Dequantises GGUF blocks, exactly but for one rounding where a format has minima.
 *
 * `blocks`: exactly `kvern_blocks_bytes(format, 1, len)` bytes, any alignment. `out`: receives len elements,
 * a multiple of the block of the format; must not overlap `blocks`.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_blocks_dequantize(kvern_weight_format format,
                                     const uint8_t *blocks,
                                     size_t blocks_bytes,
                                     float *out,
                                     size_t len);

/* ---- Quantised weights: files, shared activations ---------------------------------------------- */

/**
 * The most products of one `kvern_weights_multiply_many`.
 */
#define KVERN_WEIGHTS_MAX_PRODUCTS 16

/**
 * One of the products that share their activations. Its layout is final.
 */
typedef struct {
    /**
     * W (n output features, k input features).
     */
    const kvern_weights *weights;
    /**
     * U of a gated product, C = act(alpha * A * W^T + bias) * (A * U^T), of W's shape; NULL for none.
     */
    const kvern_weights *up;
    /**
     * C, (m, n), f32. Must overlap neither an input nor the C of another product.
     */
    float *c;
    /**
     * Elements from one row of C to the next one.
     */
    size_t c_row_stride;
    /**
     * Columns of C: output features of the weights.
     */
    size_t n;
    /**
     * NULL for `C = A * W^T`.
     */
    const kvern_epilogue *epilogue;
} kvern_weights_product;

/**
 * What `kvern_weights_get_format` says of weights that are no blocks of a format: codes in groups.
 */
#define KVERN_WEIGHT_FORMAT_GROUPS (-1)

/**
 * The same of floats of 8 bits.
 */
#define KVERN_WEIGHT_FORMAT_FLOAT8 (-2)

/**
 * Writes the weights to a file: a header of 128 bytes with a checksum, and the packed bytes. The file is
 * replaced as a whole: an error leaves the old one, and weights that are mapped from it keep it.
 *
 * `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows).
 * Errors: NULL_POINTER, IO, RESOURCE, UNSUPPORTED (single floats on a big-endian machine). Threads:
 * `weights` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_save(const kvern_weights *weights,
                                const char *path);

/**
 * Reads weights that `kvern_weights_save` wrote, on any machine, into memory of their own.
 *
 * `ctx`: whose memory the object lies in; NULL for the process's allocator. `out`: receives the object, NULL
 * on failure.
 * Errors: NULL_POINTER, IO (no regular file, for one), BLOB (truncated, too long, foreign, of another
 * version, damaged), RESOURCE, UNSUPPORTED (single floats on a big-endian machine). Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_load(const kvern_context *ctx,
                                const char *path,
                                kvern_weights **out);

/**
 * As `kvern_weights_load`, with the file mapped into memory instead of read: nothing is copied, and programs
 * that map one file share its memory. Nobody may write into the file or shorten it while the object lives: a
 * page that is gone ends the process when it is touched. A save to the same path does neither.
 *
 * Errors: as `kvern_weights_load`; UNSUPPORTED on systems without mmap. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_weights_map(const char *path,
                               kvern_weights **out);

/**
 * `*out` = n, the output features (rows of W).
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_weights_n(const kvern_weights *weights, size_t *out);

/**
 * `*out` = k, the input features (columns of W).
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_weights_k(const kvern_weights *weights, size_t *out);

/**
 * `*out` = the format, a `KVERN_WEIGHT_FORMAT_*` number; KVERN_WEIGHT_FORMAT_GROUPS for codes in groups,
 * KVERN_WEIGHT_FORMAT_FLOAT8 for floats of 8 bits.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_weights_get_format(const kvern_weights *weights,
                                      kvern_weight_format *out);

/**
 * `C = act(alpha * A * W^T + bias) * (A * UP^T)`, the gate of a feed-forward layer in one pass: activations
 * are quantised once, and neither product is written to memory.
 *
 * `up`: of the shape of `weights`, of any format of blocks (or of floats, like these). Everything else as
 * for
 * `kvern_weights_multiply`; the epilogue's activation is usually KVERN_ACTIVATION_SILU, and its beta must be
 * 0. For weights of two formats ask `kvern_weights_many_workspace_bytes`.
 * Errors: as `kvern_weights_multiply`; OPTION for a beta. Threads: `ctx`, `weights` and `up` shared, `ws`
 * and C exclusive.
 * Since: 0.1
 */
kvern_status kvern_weights_multiply_gated(const kvern_context *ctx,
                                          kvern_workspace *ws,
                                          const kvern_weights *weights,
                                          const kvern_weights *up,
                                          kvern_compute compute,
                                          size_t m,
                                          size_t n,
                                          size_t k,
                                          const float *a,
                                          size_t a_row_stride,
                                          float *c,
                                          size_t c_row_stride,
                                          const kvern_epilogue *epilogue);

/**
 * `*out` = the bytes of workspace that `kvern_weights_multiply_many` of up to m rows needs with these
 * weights, gated or not.
 *
 * `weights`: count pointers, those of every `up` among them.
 * Errors: NULL_POINTER, MISALIGNED, OPTION, OVERFLOW. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_weights_many_workspace_bytes(const kvern_context *ctx,
                                                kvern_compute compute,
                                                size_t m,
                                                size_t count,
                                                const kvern_weights *const *weights,
                                                size_t *out);

/**
 * Several products with the same activations, such as q, k, v or gate and up: the bits of separate calls,
 * with the activations quantised once, and threads that meet once.
 *
 * `a`: (m, k), f32, row-major, stride in elements. `products`: count of them, at most
 * KVERN_WEIGHTS_MAX_PRODUCTS, all with the same k; formats may differ. Allocates nothing.
 * Errors: as `kvern_weights_multiply` and `kvern_weights_multiply_gated`; nothing is changed then.
 * Threads: `ctx` and weights shared, `ws` and each C exclusive.
 * Since: 0.1
 */
kvern_status kvern_weights_multiply_many(const kvern_context *ctx,
                                         kvern_workspace *ws,
                                         kvern_compute compute,
                                         size_t m,
                                         size_t k,
                                         const float *a,
                                         size_t a_row_stride,
                                         size_t count,
                                         const kvern_weights_product *products);

/* ---- Quantised weights: activations quantised once --------------------------------------------- */

/**
 * Rows of activations as products with int8 activations read them, quantised once for products that do not
 * come in one call.
 */
typedef struct kvern_quantized_rows kvern_quantized_rows;

/**
 * Makes room for up to most_rows rows of k elements, a multiple of 32.
 *
 * `ctx`: whose memory the object lies in; NULL for the process's allocator. `out`: receives the object, NULL
 * on failure.
 * Errors: NULL_POINTER, OPTION, OVERFLOW, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_quantized_rows_create(const kvern_context *ctx,
                                         size_t most_rows,
                                         size_t k,
                                         kvern_quantized_rows **out);

/**
 * Quantises m rows, which take the place of those that were held.
 *
 * `a_dtype`: a `KVERN_DTYPE_*` number; f16 and bf16 are widened exactly. `a`: (m, k), row-major, stride in
 * elements; k must be that of the object. Allocates nothing.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more rows than there is room for), OPTION, POISONED;
 * the rows are unchanged then. Threads: `ctx` shared, `rows` exclusive.
 * Since: 0.1
 */
kvern_status kvern_quantized_rows_quantize(const kvern_context *ctx,
                                           kvern_quantized_rows *rows,
                                           size_t m,
                                           size_t k,
                                           kvern_dtype a_dtype,
                                           const void *a,
                                           size_t a_row_stride);

/**
 * Holds m rows that were quantised before, with one scale for each: `a[i][j] = scales[i] * codes[i][j]`.
 * They take the place of those that were held. With weights of 8 bits and one scale for each output feature
 * (`kvern_weights_from_groups`, group k) a product is what is called W8A8.
 *
 * `codes`: (m, k) without gaps, -127..=127; k must be that of the object. `scales`: (m). Allocates nothing.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more rows than there is room for), OPTION (a code of
 * -128), POISONED; the rows are unchanged then. Threads: `ctx` shared, `rows` exclusive.
 * Since: 0.1
 */
kvern_status kvern_quantized_rows_set(const kvern_context *ctx,
                                      kvern_quantized_rows *rows,
                                      size_t m,
                                      size_t k,
                                      const int8_t *codes,
                                      const float *scales);

/**
 * Products with the rows that are held as A: the bits of `kvern_weights_multiply_many` with
 * KVERN_COMPUTE_INT8.
 *
 * `m`: must equal the rows held. `products`: count of them, at most KVERN_WEIGHTS_MAX_PRODUCTS. The
 * workspace of `kvern_weights_many_workspace_bytes` is enough. Allocates nothing.
 * Errors: as `kvern_weights_multiply_many`; SHAPE for another m; OPTION for weights of floats (of 8 bits
 * too) and for those with an order of k; nothing is changed then. Threads: `ctx`, `rows` and weights shared,
 * `ws` and each C exclusive.
 * Since: 0.1
 */
kvern_status kvern_quantized_rows_multiply(const kvern_context *ctx,
                                           kvern_workspace *ws,
                                           const kvern_quantized_rows *rows,
                                           size_t m,
                                           size_t count,
                                           const kvern_weights_product *products);

/**
 * Frees the rows. NULL is a no-op.
 *
 * Threads: `rows` exclusive.
 * Since: 0.1
 */
void kvern_quantized_rows_destroy(kvern_quantized_rows *rows);

/* ---- Quantised weights: codes in groups, GPTQ, AWQ; floats of 8 bits --------------------------- */

/**
 * How a GPTQ checkpoint stores zeros: a `KVERN_GPTQ_*` number.
 */
typedef int32_t kvern_gptq_zeros;

/**
 * A kind of floats of 8 bits: a `KVERN_FLOAT8_*` number.
 */
typedef int32_t kvern_float8;

/**
 * `zero - 1`, modulo 2^bits: checkpoint format `gptq`, which is what most files are.
 */
#define KVERN_GPTQ_ZEROS_MINUS_ONE 0

/**
 * `zero`: checkpoint format `gptq_v2`.
 */
#define KVERN_GPTQ_ZEROS_AS_IS 1

/**
 * 4 bits of exponent, 3 of mantissa: 448 at most, no infinity (float8_e4m3fn).
 */
#define KVERN_FLOAT8_E4M3 0

/**
 * 5 bits of exponent, 2 of mantissa: 57344 at most (float8_e5m2).
 */
#define KVERN_FLOAT8_E5M2 1

/**
 * Packs weights that were quantised in groups along k: `w = scale * (code - zero)`.
 *
 * `bits`: 2, 3, 4 or 8. `group`: 16 or a multiple of 32; k for one scale for each output feature. k must be
 * a multiple of 32; the last group may be shorter. `codes`: (n, k), one code a byte, below 2^bits. `scales`:
 * (n, ceil(k / group)), f32. `zeros`: (n, ceil(k / group)), bytes like codes; NULL for codes around zero,
 * which are int8_t then: from -2^(bits - 1) to 2^(bits - 1) - 1. Arrays without gaps. `ctx`: whose threads
 * it runs on and whose memory the object lies in; NULL for the calling thread and the process's allocator
 * (the same for the other functions of this section). `out`: receives the object, NULL on failure.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (a code out of range), RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_groups(const kvern_context *ctx,
                                       uint32_t bits,
                                       size_t group,
                                       size_t n,
                                       size_t k,
                                       const uint8_t *codes,
                                       const float *scales,
                                       const uint8_t *zeros,
                                       kvern_weights **out);

/**
 * Packs weights that were quantised in groups along k with a minimum for each: `w = scale * code + minimum`,
 * the affine quantisation of MLX.
 *
 * `bits`: 2, 3, 4, 5, 6 or 8. `group`, `codes`: as `kvern_weights_from_groups`. `scales`, `minimums`: (n,
 * ceil(k / group)) of `dtype`, a `KVERN_DTYPE_*` number. Arrays without gaps. `out`: receives the object,
 * NULL on failure.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (a code out of range), RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_affine(const kvern_context *ctx,
                                       uint32_t bits,
                                       size_t group,
                                       size_t n,
                                       size_t k,
                                       const uint8_t *codes,
                                       kvern_dtype dtype,
                                       const void *scales,
                                       const void *minimums,
                                       kvern_weights **out);

/**
 * Packs the tensors of a GPTQ layer: `w[i][j] = scales[g][i] * (qweight[j][i] - zero[g][i])`, g = g_idx[j].
 * Words hold 32 / bits integers, the first in the lowest bits (of 3 bits, three words hold 32); n and k must
 * fill them.
 *
 * `bits`: 2, 3, 4 or 8. `group`: 16 or a multiple of 32, k for what checkpoints call -1; k must be a
 * multiple of 32, the last group may be shorter. `qweight`: (k * bits / 32, n), a word holds consecutive k.
 * `qzeros`: (ceil(k / group), n * bits / 32), a word holds consecutive n; `zeros`, a `KVERN_GPTQ_*` number,
 * says how.
 * `scales`: (ceil(k / group), n) of `scales_dtype`, a `KVERN_DTYPE_*` number. `g_idx`: (k), the group of
 * each input feature (act-order), each group named as often as it has features; NULL: j is in group j /
 * group. Arrays without gaps.
 * `out`: receives the object, NULL on failure.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_gptq(const kvern_context *ctx,
                                     uint32_t bits,
                                     size_t group,
                                     size_t n,
                                     size_t k,
                                     const int32_t *qweight,
                                     const int32_t *qzeros,
                                     kvern_gptq_zeros zeros,
                                     kvern_dtype scales_dtype,
                                     const void *scales,
                                     const int32_t *g_idx,
                                     kvern_weights **out);

/**
 * Packs the tensors of an AWQ layer of 4 bits (layout GEMM): `w[i][j] = scales[g][i] * (qweight[j][i] -
 * qzeros[g][i])`, g = j / group. Words hold 8 consecutive n in the order 0, 2, 4, 6, 1, 3, 5, 7 from the
 * lowest bits up; n must be a multiple of 8.
 *
 * `group`: as `kvern_weights_from_gptq`. `qweight`: (k, n / 8). `qzeros`: (ceil(k / group), n / 8).
 * `scales`: (ceil(k / group), n) of `scales_dtype`, a `KVERN_DTYPE_*` number. Arrays without gaps. `out`:
 * receives the object, NULL on failure.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_awq(const kvern_context *ctx,
                                    size_t group,
                                    size_t n,
                                    size_t k,
                                    const int32_t *qweight,
                                    const int32_t *qzeros,
                                    kvern_dtype scales_dtype,
                                    const void *scales,
                                    kvern_weights **out);

/**
 * Packs weights that are floats of 8 bits with a scale for each tile: `w[i][j] = value(codes[i][j]) *
 * scales[i / tile_rows][j / tile_cols]`. Their products take f32 activations, whatever KVERN_COMPUTE number
 * is asked for.
 *
 * `kind`: a `KVERN_FLOAT8_*` number. `tile_rows`, `tile_cols`: rows and columns that share a scale; n and k
 * for one in all, 1 and k for one for each output feature. `tile_cols` is a multiple of 32, or k at least; k
 * a multiple of 32; the last tiles may be smaller. `codes`: (n, k). `scales`: (ceil(n / tile_rows),
 * ceil(k / tile_cols)) of `scales_dtype`, a `KVERN_DTYPE_*` number. Arrays without gaps. `out`: receives the
 * object, NULL on failure.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (a code that is NaN or infinite), RESOURCE. Threads:
 * `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_float8(const kvern_context *ctx,
                                       kvern_float8 kind,
                                       size_t tile_rows,
                                       size_t tile_cols,
                                       size_t n,
                                       size_t k,
                                       const uint8_t *codes,
                                       kvern_dtype scales_dtype,
                                       const void *scales,
                                       kvern_weights **out);

/**
 * Packs weights that are floats of 8 bits with a power of two for each 32 input features (MXFP8): `w[i][j] =
 * value(codes[i][j]) * 2^(scales[i][j / 32] - 127)`. Products as with `kvern_weights_from_float8`.
 *
 * `kind`: a `KVERN_FLOAT8_*` number. k must be a multiple of 32. `codes`: (n, k). `scales`: (n, k / 32),
 * exponents, 255 for NaN. Arrays without gaps. `out`: receives the object, NULL on failure.
 * Errors: NULL_POINTER, OVERFLOW, OPTION (a code that is NaN or infinite), RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_mxfp8(const kvern_context *ctx,
                                      kvern_float8 kind,
                                      size_t n,
                                      size_t k,
                                      const uint8_t *codes,
                                      const uint8_t *scales,
                                      kvern_weights **out);

/* ---- GGUF files -------------------------------------------------------------------------------- */

/**
 * A GGUF file, or all parts of a split one. Immutable.
 */
typedef struct kvern_gguf kvern_gguf;

/**
 * A tensor of a file. Its layout is final. What it points to belongs to the file, and lives as long as it.
 */
typedef struct {
    /**
     * The name, UTF-8, not NUL-terminated.
     */
    const char *name;
    /**
     * Bytes of the name.
     */
    size_t name_bytes;
    /**
     * The type id of GGUF; of those that kvern computes with, a KVERN_WEIGHT_FORMAT_* number.
     */
    uint32_t kind;
    /**
     * Dimensions, 0 to 4.
     */
    uint32_t dims;
    /**
     * The dimensions, k first: (k), (k, n) or (k, n, experts). 1 behind the last one.
     */
    size_t shape[4];
    /**
     * The data as they lie in the file; NULL for a type whose size kvern does not know.
     */
    const uint8_t *data;
    /**
     * Bytes of the data; 0 for a type whose size kvern does not know.
     */
    size_t data_bytes;
} kvern_gguf_tensor;

/**
 * The type of a value: a `KVERN_GGUF_*` number, that of the GGUF specification.
 */
typedef int32_t kvern_gguf_type;

/**
 * A key of the metadata, and the type of its value. Its layout is final. The text belongs to the file, and
 * lives as long as it.
 */
typedef struct {
    /**
     * The key, UTF-8, not NUL-terminated.
     */
    const char *key;
    /**
     * Bytes of the key.
     */
    size_t key_bytes;
    /**
     * The type of the value.
     */
    kvern_gguf_type kind;
    /**
     * Of an array the type of its elements, else `kind`.
     */
    kvern_gguf_type element;
    /**
     * Of an array its elements, else 1.
     */
    size_t len;
} kvern_gguf_key;

/**
 * 8 bits without sign.
 */
#define KVERN_GGUF_U8 0

/**
 * 8 bits with sign.
 */
#define KVERN_GGUF_I8 1

/**
 * 16 bits without sign.
 */
#define KVERN_GGUF_U16 2

/**
 * 16 bits with sign.
 */
#define KVERN_GGUF_I16 3

/**
 * 32 bits without sign.
 */
#define KVERN_GGUF_U32 4

/**
 * 32 bits with sign.
 */
#define KVERN_GGUF_I32 5

/**
 * A float.
 */
#define KVERN_GGUF_F32 6

/**
 * A flag.
 */
#define KVERN_GGUF_BOOL 7

/**
 * A text.
 */
#define KVERN_GGUF_STR 8

/**
 * Values of one type.
 */
#define KVERN_GGUF_ARRAY 9

/**
 * 64 bits without sign.
 */
#define KVERN_GGUF_U64 10

/**
 * 64 bits with sign.
 */
#define KVERN_GGUF_I64 11

/**
 * A double.
 */
#define KVERN_GGUF_F64 12

/**
 * Maps a GGUF file (version 2 or 3, little-endian) and reads its header; where it is the first part of
 * several (`NAME-00001-of-00003.gguf`), all of them, which lie beside it. Data are neither read nor copied.
 * Nobody may write into the files or shorten them while the object lives: a page that is gone ends the
 * process when it is touched.
 *
 * `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows). `out`:
 * receives the object, NULL on failure.
 * Errors: NULL_POINTER, IO (no regular file, for one), BLOB (cut off, foreign, big-endian, of another
 * version, a header that does not hold together, parts that do not belong together), OPTION (a first part
 * of another name), OVERFLOW, RESOURCE, UNSUPPORTED on systems without mmap. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_open(const char *path,
                             kvern_gguf **out);

/**
 * As `kvern_gguf_open`, with the files read into memory, data included: for files that others may change.
 *
 * Errors: as `kvern_gguf_open`. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_load(const char *path,
                             kvern_gguf **out);

/**
 * Destroys a file; NULL is ignored. Weights that were packed from it stay.
 *
 * Threads: `file` exclusive.
 * Since: 0.1
 */
void kvern_gguf_destroy(kvern_gguf *file);

/**
 * `*out` = the tensors of all parts.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_tensor_count(const kvern_gguf *file, size_t *out);

/**
 * `*out` = tensor `index` of `kvern_gguf_tensor_count`, in the order of the file, part after part.
 *
 * Errors: NULL_POINTER, SHAPE (no such index). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_tensor_at(const kvern_gguf *file, size_t index, kvern_gguf_tensor *out);

/**
 * `*out` = the tensor of a name, such as `blk.0.attn_q.weight`.
 *
 * `name`: NUL-terminated, UTF-8.
 * Errors: NULL_POINTER, OPTION (no such tensor, no UTF-8). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_tensor_find(const kvern_gguf *file,
                                    const char *name,
                                    kvern_gguf_tensor *out);

/**
 * Writes all elements of a tensor in f32, dequantised: norms, biases.
 *
 * `name`: NUL-terminated, UTF-8. `out`: receives len elements, the product of the shape, k together.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (no such tensor), BLOB (a type that kvern does not
 * compute with), SHAPE (a wrong `len`). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_read_f32(const kvern_gguf *file,
                                 const char *name,
                                 float *out,
                                 size_t len);

/**
 * Packs a tensor of a file: W (n output features, k input features) of shape (k, n), or one matrix of
 * (k, n, experts). The file is not needed afterwards.
 *
 * `ctx`: whose threads it runs on and whose memory the object lies in; NULL for the calling thread and the
 * process's allocator. `name`: NUL-terminated, UTF-8. `expert`: which matrix, 0 where there is one. `out`:
 * receives the object, NULL on failure.
 * Errors: NULL_POINTER, OPTION (no such tensor), BLOB (a type that kvern does not compute with), SHAPE (no
 * such expert), OVERFLOW, RESOURCE. Threads: `ctx` and `file` shared.
 * Since: 0.1
 */
kvern_status kvern_weights_from_gguf(const kvern_context *ctx,
                                     const kvern_gguf *file,
                                     const char *name,
                                     size_t expert,
                                     kvern_weights **out);

/**
 * `*out` = the keys of the metadata (of the first part).
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_key_count(const kvern_gguf *file, size_t *out);

/**
 * `*out` = key `index` of `kvern_gguf_key_count`, in the order of the file.
 *
 * Errors: NULL_POINTER, SHAPE (no such index). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_key_at(const kvern_gguf *file, size_t index, kvern_gguf_key *out);

/**
 * `*out` = a key by name, with the type of its value; `out->key` is that of the file.
 *
 * `key`: NUL-terminated, UTF-8 (the same for all that follow).
 * Errors: NULL_POINTER, OPTION (no such key, no UTF-8). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_key_find(const kvern_gguf *file, const char *key, kvern_gguf_key *out);

/**
 * `*out` = the value of a key whose type is any integer.
 *
 * Errors: NULL_POINTER, OPTION (no such key), BLOB (another type, a negative value). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_u64(const kvern_gguf *file, const char *key, uint64_t *out);

/**
 * `*out` = the value of a key whose type is any integer.
 *
 * Errors: NULL_POINTER, OPTION (no such key), BLOB (another type, a value beyond int64_t). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_i64(const kvern_gguf *file,
                                const char *key,
                                int64_t *out);

/**
 * `*out` = the value of a key of type f32 or f64.
 *
 * Errors: NULL_POINTER, OPTION (no such key), BLOB (another type). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_f64(const kvern_gguf *file, const char *key, double *out);

/**
 * `*out` = the value of a key of type bool, 0 or 1.
 *
 * Errors: NULL_POINTER, OPTION (no such key), BLOB (another type). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_bool(const kvern_gguf *file, const char *key, int32_t *out);

/**
 * `*out` and `*bytes` = the value of a key of type str: UTF-8, not NUL-terminated, of the file, as long as
 * it lives.
 *
 * Errors: NULL_POINTER, OPTION (no such key), BLOB (another type). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_str(const kvern_gguf *file,
                                const char *key,
                                const char **out,
                                size_t *bytes);

/**
 * Writes count elements from number first on of an array of any integers.
 *
 * `out`: (count).
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (no such key), SHAPE (elements that are not there),
 * BLOB (another type, a value beyond int64_t). Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_i64s(const kvern_gguf *file,
                                 const char *key,
                                 size_t first,
                                 size_t count,
                                 int64_t *out);

/**
 * Writes count elements from number first on of an array of f32 or f64.
 *
 * `out`: (count).
 * Errors: as `kvern_gguf_get_i64s`. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_f64s(const kvern_gguf *file,
                                 const char *key,
                                 size_t first,
                                 size_t count,
                                 double *out);

/**
 * Writes count elements from number first on of an array of flags, each 0 or 1.
 *
 * `out`: (count).
 * Errors: as `kvern_gguf_get_i64s`. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_bools(const kvern_gguf *file,
                                  const char *key,
                                  size_t first,
                                  size_t count,
                                  uint8_t *out);

/**
 * Writes count elements from number first on of an array of texts: UTF-8, not NUL-terminated, of the file,
 * as long as it lives. Texts are counted from the first one on: all of them in one call are read once.
 *
 * `out`: (count), the texts. `bytes`: (count), their lengths; must not overlap `out`.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (no such key), SHAPE (elements that are not there),
 * BLOB (another type), ALIASED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_gguf_get_strs(const kvern_gguf *file,
                                 const char *key,
                                 size_t first,
                                 size_t count,
                                 const char **out,
                                 size_t *bytes);

/* ---- Rotary position embedding ----------------------------------------------------------------- */

/**
 * A flag for KVERN_ROPE_SCALING_YARN: the ends of the ramp are not rounded to whole pairs (`truncate: false`
 * of model configurations; gpt-oss).
 */
#define KVERN_ROPE_SCALING_FLAG_UNROUNDED 1

/**
 * Cosines and sines for `kvern_rope`. Immutable.
 */
typedef struct kvern_rope_table kvern_rope_table;

/**
 * How frequencies are changed for a longer context: a `KVERN_ROPE_SCALING_*` number.
 */
typedef int32_t kvern_rope_scaling_kind;

/**
 * Frequencies for a longer context than the model was trained on. Start from KVERN_ROPE_SCALING_INIT.
 */
typedef struct {
    /**
     * sizeof(kvern_rope_scaling).
     */
    size_t struct_size;
    /**
     * Positions of the trained context, at least 1.
     */
    size_t original_positions;
    /**
     * A `KVERN_ROPE_SCALING_*` number; each uses the fields that its description names.
     */
    kvern_rope_scaling_kind kind;
    /**
     * 0, or with KVERN_ROPE_SCALING_YARN KVERN_ROPE_SCALING_FLAG_UNROUNDED.
     */
    uint32_t flags;
    /**
     * The ratio of the new context to the trained one, positive.
     */
    double factor;
    /**
     * 0 means 32.
     */
    double beta_fast;
    /**
     * 0 means 1.
     */
    double beta_slow;
    /**
     * 0 means 0.1 ln(factor) + 1 (1 for a factor up to 1).
     */
    double attention_factor;
    /**
     * 0 means 1.
     */
    double low_frequency;
    /**
     * 0 means 4. At least low_frequency.
     */
    double high_frequency;
} kvern_rope_scaling;

/**
 * Which elements of a head are rotated together: a `KVERN_ROPE_*` number.
 */
typedef int32_t kvern_rope_pairs;

/**
 * (i, i + n/2): GPT-NeoX, and Llama as converted by Hugging Face.
 */
#define KVERN_ROPE_HALVES 0

/**
 * (2i, 2i + 1): the paper, GPT-J, and Llama as published.
 */
#define KVERN_ROPE_INTERLEAVED 1

/**
 * base^(-2i / rotary_dim), as it is.
 */
#define KVERN_ROPE_SCALING_NONE 0

/**
 * Frequencies divided by factor: position interpolation.
 */
#define KVERN_ROPE_SCALING_LINEAR 1

/**
 * base * factor^(d / (d - 2)) instead of base, d = rotary_dim.
 */
#define KVERN_ROPE_SCALING_NTK 2

/**
 * High frequencies stay, low ones are divided by factor, with a ramp between (beta_fast to beta_slow turns
 * over original_positions); cosines and sines times attention_factor. The ends of the ramp are rounded
 * outwards to whole pairs, or not: KVERN_ROPE_SCALING_FLAG_UNROUNDED.
 */
#define KVERN_ROPE_SCALING_YARN 3

/**
 * Wavelengths below original_positions / high_frequency stay, those above original_positions / low_frequency
 * are divided by factor, with a ramp between: Llama 3.1. Equal frequencies make a step: Llama 4 Scout.
 */
#define KVERN_ROPE_SCALING_LLAMA3 4

/**
 * Makes the table of `position * base^(-2i / rotary_dim)` for positions 0..positions.
 *
 * `rotary_dim`: the rotated part of a head, even, usually all of it. `base`: usually 10000.
 * `out`: receives the table, NULL on failure.
 * Errors: NULL_POINTER, OPTION, OVERFLOW, RESOURCE. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_table_create(size_t rotary_dim,
                                     size_t positions,
                                     double base,
                                     kvern_rope_table **out);

/**
 * `kvern_rope_table_create` with frequencies for a longer context.
 *
 * `scaling`: NULL for none.
 * Errors: as `kvern_rope_table_create`; OPTION for a number of `scaling` out of its range; UNSUPPORTED.
 * Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_table_create_scaled(size_t rotary_dim,
                                            size_t positions,
                                            double base,
                                            const kvern_rope_scaling *scaling,
                                            kvern_rope_table **out);

/**
 * Makes the table of given frequencies, in radians a position, with cosines and sines times `amplitude`: for
 * models that store theirs.
 *
 * `frequencies`: pairs elements, f64; rotary_dim is 2 * pairs. `amplitude`: usually 1.
 * `out`: receives the table, NULL on failure.
 * Errors: NULL_POINTER, MISALIGNED, OPTION (no frequency, or a number that is not finite), OVERFLOW,
 * RESOURCE.
 * Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_table_from_frequencies(size_t pairs,
                                               const double *frequencies,
                                               size_t positions,
                                               double amplitude,
                                               kvern_rope_table **out);

/**
 * `*out` = the positions that the table covers.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_table_positions(const kvern_rope_table *table, size_t *out);

/**
 * `*out` = the elements of a head that the table rotates.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_table_rotary_dim(const kvern_rope_table *table, size_t *out);

/**
 * `*out` = the bytes that the table holds.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_table_bytes(const kvern_rope_table *table, size_t *out);

/**
 * Moves the table to as many positions from `first` on, so that positions have no bound: a table as long as
 * the longest call is enough for a stream of any length. Allocates nothing.
 *
 * Errors: NULL_POINTER, OVERFLOW (an end beyond 2^53); the table is unchanged then.
 * Threads: `table` exclusive. Since: 0.1
 */
kvern_status kvern_rope_table_move_to(kvern_rope_table *table,
                                      size_t first);

/**
 * `*out` = the first position that the table covers.
 *
 * Errors: NULL_POINTER. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_table_first(const kvern_rope_table *table, size_t *out);

/**
 * Copies the cosines and sines of a position.
 *
 * `pairs`: rotary_dim / 2. `cos`, `sin`: receive `pairs` elements each, f32; they must not overlap.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (a position beyond the table, a wrong `pairs`), ALIASED.
 * Threads: `table` shared.
 * Since: 0.1
 */
kvern_status kvern_rope_table_row(const kvern_rope_table *table,
                                  size_t position,
                                  size_t pairs,
                                  float *cos,
                                  float *sin);

/**
 * Frees the table. NULL is a no-op.
 *
 * Threads: `table` exclusive.
 * Since: 0.1
 */
void kvern_rope_table_destroy(kvern_rope_table *table);

/**
 * Rotates each head of each token in place: `(x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos)` for each pair.
 * Token i stands at position first + i.
 *
 * `pairs`: a `KVERN_ROPE_*` number. `x`: (tokens, heads * head_dim), f32, stride in elements; elements of a
 * head beyond the table's rotary_dim stay.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION, SHAPE (a table too short or wider than a head); `x` is
 * unchanged then. Threads: `ctx` and `table` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_rope(const kvern_context *ctx,
                        const kvern_rope_table *table,
                        kvern_rope_pairs pairs,
                        size_t first,
                        size_t tokens,
                        size_t heads,
                        size_t head_dim,
                        float *x,
                        size_t x_row_stride);

/**
 * `kvern_rope` with a position for each token: branches of a tree of drafts, tokens of several sequences.
 *
 * `positions`: tokens elements; must not overlap `x`.
 * Errors: as `kvern_rope`; ALIASED. Threads: as `kvern_rope`.
 * Since: 0.1
 */
kvern_status kvern_rope_at(const kvern_context *ctx,
                           const kvern_rope_table *table,
                           kvern_rope_pairs pairs,
                           const size_t *positions,
                           size_t tokens,
                           size_t heads,
                           size_t head_dim,
                           float *x,
                           size_t x_row_stride);

/**
 * A table of base^(-2i / rotary_dim) / factors[i], with cosines and sines multiplied by `amplitude`:
 * LongRoPE, whose short or long factors a model stores. An infinite factor leaves a pair as it is.
 *
 * `factors`: one for each of `pairs` pairs, positive; rotary_dim is 2 * pairs. `out`: receives the object,
 * NULL on failure.
 * Errors: NULL_POINTER, MISALIGNED, OPTION, OVERFLOW, RESOURCE. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_table_with_factors(size_t pairs,
                                           const double *factors,
                                           size_t positions,
                                           double base,
                                           double amplitude,
                                           kvern_rope_table **out);

/**
 * `axes[p]` = the axis of pair p of a head that is cut into sections, one for each axis: the first
 * sections[0] pairs belong to axis 0, the next ones to axis 1 (Qwen2-VL; rows and columns of vision towers);
 * with `interleaved` pair p belongs to axis a = p mod count while p < count * sections[a], and else to axis
 * 0 (Qwen3-VL).
 *
 * `sections`: count elements, at most 255, with a sum of `pairs`. `axes`: pairs bytes, must not overlap
 * them.
 * Errors: NULL_POINTER, MISALIGNED, SHAPE (another sum), OPTION, OVERFLOW, ALIASED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_rope_sections(size_t count,
                                 const size_t *sections,
                                 int32_t interleaved,
                                 size_t pairs,
                                 uint8_t *axes);

/**
 * `kvern_rope_at` with a position of each token along each of several axes: time, height and width of
 * Qwen-VL (M-RoPE), rows and columns of a vision tower. Pair p of token t turns by the angle of position
 * positions[axes[p]][t].
 *
 * `axes`: rotary_dim / 2 bytes, as `kvern_rope_sections` makes them. `positions`: (axis_count, tokens)
 * without gaps. Neither may overlap `x`.
 * Errors: as `kvern_rope_at`; SHAPE for an axis without positions. Threads: as `kvern_rope_at`.
 * Since: 0.1
 */
kvern_status kvern_rope_axes(const kvern_context *ctx,
                             const kvern_rope_table *table,
                             kvern_rope_pairs pairs,
                             size_t axis_count,
                             const uint8_t *axes,
                             const size_t *positions,
                             size_t tokens,
                             size_t heads,
                             size_t head_dim,
                             float *x,
                             size_t x_row_stride);

/* ---- Key-value cache --------------------------------------------------------------------------- */

/**
 * Keys and values of one layer: sequences in pages that are written in place.
 */
typedef struct kvern_kv_cache kvern_kv_cache;

/**
 * How keys or values are stored: a `KVERN_KV_*` number. Attention widens every type exactly to f32.
 */
typedef int32_t kvern_kv_type;

/**
 * What a key-value cache is made from. Start from KVERN_KV_CACHE_OPTIONS_INIT.
 */
typedef struct {
    /**
     * sizeof(kvern_kv_cache_options).
     */
    size_t struct_size;
    /**
     * Key-value heads, at least 1.
     */
    size_t kv_heads;
    /**
     * Elements of a key (and of a value, unless value_dim says otherwise), a multiple of 8.
     */
    size_t head_dim;
    /**
     * Tokens that a sequence holds, at least 1.
     */
    size_t capacity;
    /**
     * Tokens that a query sees, itself included; 0 for all. With a window, at most capacity - sinks, a full
     * cache forgets its oldest token; without one, it refuses more. To attend with the last n tokens at
     * once, capacity must be at least sinks + window + n - 1: see `kvern_attention`.
     */
    size_t window;
    /**
     * Elements of a value, a multiple of 8; 0 for head_dim.
     */
    size_t value_dim;
    /**
     * First tokens of a sequence that every query sees besides its window, and that are never forgotten.
     * They count towards the capacity; 0 without a window.
     */
    size_t sinks;
    /**
     * How keys are stored, a `KVERN_KV_*` number.
     */
    kvern_kv_type keys;
    /**
     * How values are stored, a `KVERN_KV_*` number; KVERN_KV_LATENT for those that are part of their keys.
     */
    kvern_kv_type values;
    /**
     * Sequences that the cache holds side by side; 0 for 1.
     */
    size_t sequences;
    /**
     * Pages of 256 tokens in the pool that all sequences share; 0 for as many as they could all need at
     * once.
     */
    size_t pages;
} kvern_kv_cache_options;

/**
 * 32 bits a number, exact.
 */
#define KVERN_KV_F32 0

/**
 * 16 bits a number, rounded once, relative error 2^-11; ends at 65504.
 */
#define KVERN_KV_F16 1

/**
 * 4.5 bits a number: blocks of 32 elements of a head, d = absmax / 7 in f16, round(x / d).
 */
#define KVERN_KV_INT4 4

/**
 * 8.5 bits a number: blocks of 32 elements of a head, d = absmax / 127 in f16, round(x / d).
 */
#define KVERN_KV_INT8 8

/**
 * 16 bits a number, rounded once, relative error 2^-8.
 */
#define KVERN_KV_BF16 30

/**
 * As the type of values: they are the first value_dim elements of their keys, stored once (latent attention,
 * DeepSeek). An append then takes no values.
 */
#define KVERN_KV_LATENT 256

/**
 * Makes an empty cache. All its memory is taken at once: for each token, rounded up to 256, and each
 * key-value head head_dim keys and value_dim values (rounded up to 16) of their types.
 *
 * `ctx`: whose memory the cache lies in; NULL for the process's allocator. `out`: receives the cache, NULL
 * on failure.
 * Errors: NULL_POINTER, MISALIGNED, OPTION, SHAPE (a window, or sinks and a window, beyond the capacity),
 * UNSUPPORTED, OVERFLOW, RESOURCE. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_create(const kvern_context *ctx,
                                   const kvern_kv_cache_options *options,
                                   kvern_kv_cache **out);

/**
 * Appends tokens to sequence 0: `kvern_kv_cache_append_to`.
 *
 * Errors: as `kvern_kv_cache_append_to`. Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_append(kvern_kv_cache *cache,
                                   size_t tokens,
                                   const float *k,
                                   size_t k_row_stride,
                                   const float *v,
                                   size_t v_row_stride);

/**
 * Appends tokens at positions len..len + tokens of a sequence. Keys are stored as given: rotate them first.
 * With a window any number of tokens is taken: beyond the capacity a sequence keeps its sinks and its last
 * capacity - sinks tokens.
 *
 * `k`: (tokens, kv_heads * head_dim), `v`: (tokens, kv_heads * value_dim), f32, heads side by side, strides
 * in elements. A latent cache takes no values: `v` is NULL. Allocates nothing.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence), CACHE_FULL (no window and
 * more tokens than capacity; or, with a window too, too few free pages), POISONED; nothing is changed then.
 * Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_append_to(kvern_kv_cache *cache,
                                      size_t sequence,
                                      size_t tokens,
                                      const float *k,
                                      size_t k_row_stride,
                                      const float *v,
                                      size_t v_row_stride);

/**
 * Copies the key and the value of a position, widened to f32.
 *
 * `key_width`, `value_width`: kv_heads * head_dim and kv_heads * value_dim. `k`, `v`: receive as many
 * elements; they must not overlap. Not the fast path: attention reads the cache in place.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (a position that is not held, a wrong width), OPTION (no
 * such sequence), ALIASED, POISONED. Threads: `cache` shared.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_token(const kvern_kv_cache *cache,
                                  size_t sequence,
                                  size_t position,
                                  size_t key_width,
                                  float *k,
                                  size_t value_width,
                                  float *v);

/**
 * `*out` = the next position of sequence 0: tokens appended since the start.
 *
 * Errors: NULL_POINTER, POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_len(const kvern_kv_cache *cache, size_t *out);

/**
 * `*out` = the next position of a sequence.
 *
 * Errors: NULL_POINTER, OPTION (no such sequence), POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_len_of(const kvern_kv_cache *cache, size_t sequence, size_t *out);

/**
 * `*out` = the oldest position that sequence 0 still holds, besides the sinks.
 *
 * Errors: NULL_POINTER, POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_start(const kvern_kv_cache *cache, size_t *out);

/**
 * `*out` = the oldest position that a sequence still holds, besides the sinks.
 *
 * Errors: NULL_POINTER, OPTION (no such sequence), POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_start_of(const kvern_kv_cache *cache, size_t sequence, size_t *out);

/**
 * `*out` = the bytes that the cache holds.
 *
 * Errors: NULL_POINTER, POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_bytes(const kvern_kv_cache *cache, size_t *out);

/**
 * `*out` = the bytes of the pages that sequences use; a page that forks share counts once.
 *
 * Errors: NULL_POINTER, POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_bytes_used(const kvern_kv_cache *cache, size_t *out);

/**
 * `*out` = the pages of the pool, of 256 tokens each.
 *
 * Errors: NULL_POINTER, POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_pages(const kvern_kv_cache *cache, size_t *out);

/**
 * `*out` = the pages that no sequence uses.
 *
 * Errors: NULL_POINTER, POISONED. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_free_pages(const kvern_kv_cache *cache, size_t *out);

/**
 * Writes all sequences to a file with a checksum: the pages in use, as they are. The file is replaced as a
 * whole: an error leaves the old one.
 *
 * `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows).
 * Errors: NULL_POINTER, IO, UNSUPPORTED (a big-endian machine), POISONED. Threads: `cache` shared.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_save(const kvern_kv_cache *cache,
                                 const char *path);

/**
 * Replaces all sequences by those of a file that `kvern_kv_cache_save` wrote from a cache of the same heads,
 * sizes, types, window and sinks. capacity, sequences and pages may differ where everything fits: a sequence
 * without a window in the capacity, sequences beyond this cache's number empty, the pages in the pool. With
 * a window a sequence keeps the last tokens that the capacity has room for.
 *
 * Errors: NULL_POINTER, IO, BLOB (truncated, too long, foreign, of another version or other options,
 * damaged, or it does not fit), OVERFLOW, RESOURCE, UNSUPPORTED, POISONED; nothing is changed then, but
 * where reading fails after the checksum was found right, the cache is empty. Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_restore(kvern_kv_cache *cache,
                                    const char *path);

/**
 * Makes a cache with what a file holds: `kvern_kv_cache_create`, then `kvern_kv_cache_restore`.
 *
 * `ctx`: as for `kvern_kv_cache_create`. `out`: receives the cache, NULL on failure.
 * Errors: as those two. Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_load(const kvern_context *ctx,
                                 const kvern_kv_cache_options *options,
                                 const char *path,
                                 kvern_kv_cache **out);

/**
 * Frees the cache. NULL is a no-op.
 *
 * Threads: `cache` exclusive.
 * Since: 0.1
 */
void kvern_kv_cache_destroy(kvern_kv_cache *cache);

/* ---- Key-value cache: preparation and append --------------------------------------------------- */

/**
 * What happens to each head of queries and keys before the append: x = rope(rms_norm(x)), each part where it
 * is asked for. Start from KVERN_PREPARATION_INIT.
 */
typedef struct {
    /**
     * sizeof(kvern_preparation).
     */
    size_t struct_size;
    /**
     * Gains of the RMS norm of each query head, head_dim elements, or of its latent, value_dim elements;
     * NULL for no norm.
     */
    const float *q_gain;
    /**
     * Gains of the RMS norm of each key head, or of its latent, as of a query head; NULL for no norm.
     */
    const float *k_gain;
    /**
     * Epsilon of the norm of queries.
     */
    float q_eps;
    /**
     * Epsilon of the norm of keys.
     */
    float k_eps;
    /**
     * The rotation; NULL for none.
     */
    const kvern_rope_table *rope;
    /**
     * Which elements are rotated together, a `KVERN_ROPE_*` number.
     */
    kvern_rope_pairs pairs;
    /**
     * 0: no flag is defined.
     */
    uint32_t flags;
    /**
     * Positions of the rotation, one for each token; NULL: where the cache puts the token.
     */
    const size_t *positions;
} kvern_preparation;

/**
 * Prepares queries and keys in place, then appends keys and values to a sequence: for each head
 * `x = rope(rms_norm(x))` as `preparation` says (in a latent cache, whose heads are a latent and a rotated
 * part, the norm is of the first and the rotation of the second), then `kvern_kv_cache_append_to`, with the
 * bits of those calls.
 *
 * `preparation`: NULL for nothing. `q`: (tokens, heads * head_dim); `heads` 0 for none. `k`, `v`: as for
 * `kvern_kv_cache_append_to`. `q` and `k` are overwritten and must overlap neither each other nor an input.
 * Allocates nothing.
 * Errors: as `kvern_kv_cache_append_to`; SHAPE for a table or positions that do not fit, OPTION,
 * UNSUPPORTED, ALIASED; nothing is changed then. Threads: `ctx` and the table shared, `cache`, `q` and `k`
 * exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_append_prepared(const kvern_context *ctx,
                                            kvern_kv_cache *cache,
                                            size_t sequence,
                                            const kvern_preparation *preparation,
                                            size_t tokens,
                                            size_t heads,
                                            float *q,
                                            size_t q_row_stride,
                                            float *k,
                                            size_t k_row_stride,
                                            const float *v,
                                            size_t v_row_stride);

/* ---- Key-value cache: editing ------------------------------------------------------------------ */

/**
 * Forgets all tokens of all sequences; keeps the memory.
 *
 * Errors: NULL_POINTER, POISONED. Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_clear(kvern_kv_cache *cache);

/**
 * Forgets all tokens of one sequence; its pages are free for others.
 *
 * Errors: NULL_POINTER, OPTION (no such sequence), POISONED. Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_clear_in(kvern_kv_cache *cache, size_t sequence);

/**
 * Forgets all tokens of sequence 0 from position `len` on: `kvern_kv_cache_truncate_in`.
 *
 * Errors: as `kvern_kv_cache_truncate_in`. Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_truncate(kvern_kv_cache *cache, size_t len);

/**
 * Forgets all tokens of a sequence from position `len` on; the next append continues there.
 *
 * Errors: NULL_POINTER, SHAPE (beyond the end, or so far back that a wrapped ring no longer holds what a
 * query there would see), OPTION (no such sequence), POISONED; nothing is changed then.
 * Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_truncate_in(kvern_kv_cache *cache,
                                        size_t sequence,
                                        size_t len);

/**
 * Removes the tokens at positions start..end of a sequence; later ones move down, and have lower positions
 * from then on. Keys keep the rotation of their old position: see `kvern_kv_cache_rotate`.
 *
 * Errors: NULL_POINTER, SHAPE (a range that is reversed, not held, or before forgotten tokens, or a ring
 * that would no longer hold what the next query sees), OPTION (no such sequence), CACHE_FULL (too few free
 * pages to copy shared ones), POISONED; nothing is changed then. Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_remove(kvern_kv_cache *cache,
                                   size_t sequence,
                                   size_t start,
                                   size_t end);

/**
 * Rotates the stored keys at positions start..end of a sequence by `by` positions: after
 * `kvern_kv_cache_remove` of n tokens, the keys behind them by -n. Positions themselves do not change.
 * `(x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos)` in f32, rounded once to the type of the keys.
 *
 * `pairs`: a `KVERN_ROPE_*` number.
 * Errors: NULL_POINTER, SHAPE (a range that is not held, a table too short or wider than a head), OPTION
 * (quantised keys, no such sequence), CACHE_FULL, POISONED; nothing is changed then.
 * Threads: `table` shared, `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_rotate(kvern_kv_cache *cache,
                                   size_t sequence,
                                   size_t start,
                                   size_t end,
                                   ptrdiff_t by,
                                   const kvern_rope_table *table,
                                   kvern_rope_pairs pairs);

/**
 * Makes sequence `to` a copy of sequence `from` that shares its pages until one of them writes to them:
 * copies a page table, no token. What `to` held is forgotten.
 *
 * Errors: NULL_POINTER, OPTION (no such sequence), POISONED; nothing is changed then.
 * Threads: `cache` exclusive.
 * Since: 0.1
 */
kvern_status kvern_kv_cache_fork(kvern_kv_cache *cache,
                                 size_t from,
                                 size_t to);

/* ---- Attention --------------------------------------------------------------------------------- */

/**
 * What one attention call does. Start from KVERN_ATTENTION_OPTIONS_INIT.
 *
 * For query i, query head h and key j, with s = scale * q . k, then softcap * tanh(s / softcap):
 * s - alibi[h] * |position of i - j| + mask[i][j], and -inf where `seen` or `tree` says 0. A key whose mask
 * is -inf or 0 contributes nothing, whatever is stored there. Masks narrow what causality and window leave.
 * Their rows are rows of the queries; their columns are positions: as many as the longest sequence of the
 * call has keys.
 */
typedef struct {
    /**
     * sizeof(kvern_attention_options).
     */
    size_t struct_size;
    /**
     * Query heads, a multiple of kv_heads; 0 for as many. Query head h uses key-value head
     * h / (heads / kv_heads).
     */
    size_t heads;
    /**
     * Factor of the scores; 0 for 1 / sqrt(head_dim).
     */
    float scale;
    /**
     * 0: a query sees keys at its own position and before. 1: all keys; a cache must have no window then.
     */
    int32_t non_causal;
    /**
     * Soft cap of the scores, positive, at most FLT_MAX / log2 e, with a finite scale / softcap; 0 for none.
     */
    float softcap;
    /**
     * KVERN_PRECISION_FAST: bf16 dot products on CPUs that have them and over caches. Queries, keys,
     * probabilities and values are rounded to bf16: a score is off by at most e = 2^-7 * scale * sum |q||k|,
     * an output by (exp(2 e) - 1 + 2^-7) * max |v|; the bits depend on the instruction set. Meant for
     * prompts.
     */
    kvern_precision precision;
    /**
     * Keys that a query sees back from its own position, itself included (non_causal: and as many ahead); 0
     * for all. Of this and the cache's window the smaller one holds.
     */
    size_t window;
    /**
     * First tokens of a sequence that every query sees whatever the window: causal queries those of them at
     * their own position and before, non-causal queries all of them.
     */
    size_t sinks;
    /**
     * ALiBi slopes, heads elements: see `kvern_alibi_slopes`; NULL for none.
     */
    const float *alibi;
    /**
     * A score for each query head, heads elements, that takes part in its softmax without a value; NULL for
     * none.
     */
    const float *sink_logits;
    /**
     * Additive mask, f32; NULL for none. Only -inf hides a key: finite numbers weigh. Sums beyond 2.358e38
     * in magnitude (FLT_MAX / log2 e) count as that, so a row whose keys all have -FLT_MAX is the mean of
     * their values.
     */
    const float *mask;
    /**
     * Elements from one row of the mask to the next one.
     */
    size_t mask_row_stride;
    /**
     * Boolean mask: bytes 1 for keys that are seen and 0 for others, the gaps between rows included; NULL
     * for none.
     */
    const uint8_t *seen;
    /**
     * Bytes from one row of `seen` to the next one.
     */
    size_t seen_row_stride;
    /**
     * Boolean mask, as `seen`, among the last q_len keys of each sequence, those of the queries themselves:
     * branches of a tree of drafts. (rows of the queries, q_len); NULL for none.
     */
    const uint8_t *tree;
    /**
     * Bytes from one row of `tree` to the next one.
     */
    size_t tree_row_stride;
    /**
     * 0: `mask` has a row for each row of the queries. 1: row h * rows + i is that of head h.
     */
    int32_t mask_per_head;
    /**
     * As `mask_per_head`, of `seen`.
     */
    int32_t seen_per_head;
    /**
     * Receives the natural logarithm of each softmax's denominator, (rows of the queries, heads), f32: what
     * merges results over disjoint keys. -inf for a row that sees no key. NULL: not asked for.
     */
    float *lse;
    /**
     * Elements from one row of `lse` to the next one.
     */
    size_t lse_row_stride;
    /**
     * Sequences of the cache to attend over in one call, in any order; NULL for sequence 0.
     */
    const size_t *sequences;
    /**
     * How many there are; 0 for sequence 0.
     */
    size_t sequences_len;
} kvern_attention_options;

/**
 * `*out` = the bytes of workspace that `kvern_attention` needs for up to q_len queries of each sequence,
 * whatever the cache holds by then. Arrays of the options are not looked at.
 *
 * Errors: NULL_POINTER, OPTION, SHAPE (heads no multiple of kv_heads), UNSUPPORTED, OVERFLOW, POISONED.
 * Threads: any.
 * Since: 0.1
 */
kvern_status kvern_attention_workspace_bytes(const kvern_context *ctx,
                                             const kvern_attention_options *options,
                                             const kvern_kv_cache *cache,
                                             size_t q_len,
                                             size_t *out);

/**
 * Attention of the last q_len tokens of each sequence over all of it: append their keys and values first.
 * `out[i][h] = softmax(scale * q[i][h] . K^T, masked) V` over the keys that query i sees.
 *
 * `q`: (rows, heads * head_dim), `out`: (rows, heads * value_dim), f32, heads side by side, strides in
 * elements, with rows = q_len, or q_len * sequences_len: row s * q_len + i is query i of sequences[s].
 * Outputs must overlap neither each other nor an input. A row has the bits that it has alone. Allocates
 * nothing. Takes at most 16 KiB of stack, of the calling thread and of each worker: threads of 32 KiB are
 * enough. With a window, once a sequence has forgotten tokens: q_len <= len - start - window + 1, or the
 * window of the first query is gone. A cache whose capacity is at least sinks + window + q_len - 1 always
 * meets this after an append of q_len tokens; append in shorter pieces, with a call after each of them,
 * where it is less.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more queries than tokens or than windows that are held,
 * sinks that were forgotten), OPTION, UNSUPPORTED, ALIASED, WORKSPACE, POISONED; outputs are unchanged then.
 * Threads: `ctx` and `cache` shared, `ws` and outputs exclusive.
 * Since: 0.1
 */
kvern_status kvern_attention(const kvern_context *ctx,
                             kvern_workspace *ws,
                             const kvern_attention_options *options,
                             const kvern_kv_cache *cache,
                             size_t q_len,
                             const float *q,
                             size_t q_row_stride,
                             float *out,
                             size_t out_row_stride);

/**
 * `*out` = the bytes of workspace that `kvern_attention_plain` needs for up to q_len queries over up to
 * kv_len keys. Arrays of the options are not looked at.
 *
 * Errors: as `kvern_attention_workspace_bytes`. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_attention_plain_workspace_bytes(const kvern_context *ctx,
                                                   const kvern_attention_options *options,
                                                   size_t kv_heads,
                                                   size_t key_dim,
                                                   size_t value_dim,
                                                   size_t kv_len,
                                                   size_t q_len,
                                                   size_t *out);

/**
 * `kvern_attention` over keys and values in the caller's own rows, one token a row: the bits of a cache of
 * f32 that holds the same tokens. Query i stands at position kv_len - q_len + i; non-causal without window
 * and tree, there may be more queries than keys.
 *
 * `k`: (kv_len, kv_heads * key_dim), `v`: (kv_len, kv_heads * value_dim), `q`: (q_len, heads * key_dim),
 * `out`: (q_len, heads * value_dim), f32, heads side by side, strides in elements; key_dim and value_dim may
 * be any number from 1 on. `options`: without sequences. Outputs must overlap neither each other nor an
 * input.
 * Errors: as `kvern_attention`. Threads: `ctx` shared, `ws` and outputs exclusive.
 * Since: 0.1
 */
kvern_status kvern_attention_plain(const kvern_context *ctx,
                                   kvern_workspace *ws,
                                   const kvern_attention_options *options,
                                   size_t kv_heads,
                                   size_t key_dim,
                                   size_t value_dim,
                                   size_t kv_len,
                                   const float *k,
                                   size_t k_row_stride,
                                   const float *v,
                                   size_t v_row_stride,
                                   size_t q_len,
                                   const float *q,
                                   size_t q_row_stride,
                                   float *out,
                                   size_t out_row_stride);

/**
 * Writes the usual ALiBi slopes: `2^(-8 (h + 1) / n)` for the first n heads, n the greatest power of two in
 * `heads`, and for the others every second slope of 2n heads.
 *
 * `slopes`: receives heads elements, f32.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_alibi_slopes(size_t heads,
                                float *slopes);

/**
 * `kvern_attention_plain` for sequences of different lengths, one after the other in the rows of queries,
 * keys and values: what an encoder computes in batches, without rows of padding. Each row has the bits that
 * it has where its sequence is alone.
 *
 * `k_starts`, `q_starts`: sequences + 1 elements, 0 at first: sequence s has the rows
 * k_starts[s]..k_starts[s + 1] of `k` and `v`, and q_starts[s]..q_starts[s + 1] of `q` and `out`; the last
 * ones are kv_len and q_len. A sequence may be empty. `options`: without sequences and tree; masks have a
 * row for each row of `q`, their columns are positions, as many as the longest sequence has keys. The
 * workspace is that of `kvern_attention_plain_workspace_bytes` for the most queries and the most keys of a
 * sequence. Errors: as `kvern_attention_plain`; SHAPE for starts that descend or do not end with the rows,
 * OPTION for those that do not begin with 0 and for a tree. Threads: `ctx` shared, `ws` and outputs
 * exclusive. Since: 0.1
 */
kvern_status kvern_attention_ragged(const kvern_context *ctx,
                                    kvern_workspace *ws,
                                    const kvern_attention_options *options,
                                    size_t sequences,
                                    const size_t *k_starts,
                                    const size_t *q_starts,
                                    size_t kv_heads,
                                    size_t key_dim,
                                    size_t value_dim,
                                    size_t kv_len,
                                    const float *k,
                                    size_t k_row_stride,
                                    const float *v,
                                    size_t v_row_stride,
                                    size_t q_len,
                                    const float *q,
                                    size_t q_row_stride,
                                    float *out,
                                    size_t out_row_stride);

/* ---- Element-wise operations ------------------------------------------------------------------- */

/**
 * `x = act(x)`, in place.
 *
 * `activation`: a `KVERN_ACTIVATION_*` number. `x`: (rows, n), f32, stride in elements.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_activate(const kvern_context *ctx,
                            kvern_activation activation,
                            size_t rows,
                            size_t n,
                            float *x,
                            size_t x_row_stride);

/**
 * `x = act(x) * z`, in place: the gate of a feed-forward layer.
 *
 * `activation`: a `KVERN_ACTIVATION_*` number: SILU for SwiGLU, GELU or GELU_ERF for GeGLU, SIGMOID for an
 * output gate. `x`, `z`: (rows, n), f32, strides in elements;
 * they must not overlap.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_activate_mul(const kvern_context *ctx,
                                kvern_activation activation,
                                size_t rows,
                                size_t n,
                                float *x,
                                size_t x_row_stride,
                                const float *z,
                                size_t z_row_stride);

/**
 * `x = silu(x) * z`, in place: the gate of SwiGLU.
 *
 * `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_silu_mul(const kvern_context *ctx,
                            size_t rows,
                            size_t n,
                            float *x,
                            size_t x_row_stride,
                            const float *z,
                            size_t z_row_stride);

/**
 * `x = g * sigmoid(alpha * g) * (u + 1)`, in place, with `g = min(x, limit)` and `u` = `z` between -limit
 * and limit: the gate of gpt-oss, whose alpha is 1.702 and limit 7.
 *
 * `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
 * `alpha`: at least 1; `limit`: positive; both finite.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED.
 * Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_swiglu_oai(const kvern_context *ctx,
                              float alpha,
                              float limit,
                              size_t rows,
                              size_t n,
                              float *x,
                              size_t x_row_stride,
                              const float *z,
                              size_t z_row_stride);

/**
 * `x = x * z`, in place, element by element.
 *
 * `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_mul(const kvern_context *ctx,
                       size_t rows,
                       size_t n,
                       float *x,
                       size_t x_row_stride,
                       const float *z,
                       size_t z_row_stride);

/**
 * `x = x + z`, in place: the residual addition.
 *
 * `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_add(const kvern_context *ctx,
                       size_t rows,
                       size_t n,
                       float *x,
                       size_t x_row_stride,
                       const float *z,
                       size_t z_row_stride);

/**
 * `x = x + by * z`, in place, each element rounded once: a residual with a factor.
 *
 * `x`, `z`: (rows, n), f32, strides in elements; they must not overlap.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_add_scaled(const kvern_context *ctx,
                              float by,
                              size_t rows,
                              size_t n,
                              float *x,
                              size_t x_row_stride,
                              const float *z,
                              size_t z_row_stride);

/**
 * `x = x * by`, in place.
 *
 * `x`: (rows, n), f32, stride in elements.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_scale(const kvern_context *ctx,
                         float by,
                         size_t rows,
                         size_t n,
                         float *x,
                         size_t x_row_stride);

/**
 * `x = cap * tanh(x / cap)`, in place.
 *
 * `cap`: positive and finite. `x`: (rows, n), f32, stride in elements.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_softcap(const kvern_context *ctx,
                           float cap,
                           size_t rows,
                           size_t n,
                           float *x,
                           size_t x_row_stride);

/* ---- Row operations ---------------------------------------------------------------------------- */

/**
 * What `kvern_softmax_with` does. Start from KVERN_SOFTMAX_OPTIONS_INIT.
 */
typedef struct {
    /**
     * sizeof(kvern_softmax_options).
     */
    size_t struct_size;
    /**
     * Factor of the elements; 0 means 1.
     */
    float scale;
    /**
     * Soft cap, positive: cap * tanh(scale * x / cap) instead of scale * x, with a finite scale / cap; 0 for
     * none.
     */
    float softcap;
    /**
     * Added after scale and cap: (mask_rows, n), f32; NULL for none. Row i of x takes row i mod mask_rows.
     * -inf leaves an element out whatever x holds there. Must not overlap `y`.
     */
    const float *mask;
    /**
     * Rows of the mask, of which the rows of x are a multiple; 0 for as many as x has.
     */
    size_t mask_rows;
    /**
     * Elements from one row of the mask to the next one.
     */
    size_t mask_row_stride;
} kvern_softmax_options;

/**
 * `y = (x - mean) / sqrt(var + eps) * gain + bias`, row by row.
 *
 * `x`, `y`: (rows, n), f32, strides in elements. `gain`, `bias`: n elements. `y` must not overlap the
 * inputs.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_layer_norm(const kvern_context *ctx,
                              size_t rows,
                              size_t n,
                              const float *x,
                              size_t x_row_stride,
                              const float *gain,
                              const float *bias,
                              float eps,
                              float *y,
                              size_t y_row_stride);

/**
 * `y = x / sqrt(mean(x^2) + eps) * gain`, row by row.
 *
 * `x`, `y`: (rows, n), f32, strides in elements. `gain`: n elements. `y` must not overlap the inputs.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, ALIASED. Threads: `ctx` shared, `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_rms_norm(const kvern_context *ctx,
                            size_t rows,
                            size_t n,
                            const float *x,
                            size_t x_row_stride,
                            const float *gain,
                            float eps,
                            float *y,
                            size_t y_row_stride);

/**
 * `x = exp(x - max(x)) / sum`, in place, row by row. A row of -inf becomes zeros.
 *
 * `x`: (rows, n), f32, stride in elements.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_softmax(const kvern_context *ctx,
                           size_t rows,
                           size_t n,
                           float *x,
                           size_t x_row_stride);

/**
 * `y = softmax(cap * tanh(scale * x / cap) + mask)`, row by row, each part where the options ask for it.
 *
 * `options`: NULL for the plain softmax. `x`, `y`: (rows, n), f32, strides in elements. `y` must not overlap
 * the inputs. A row that is masked everywhere becomes zeros.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (rows no multiple of mask_rows), OPTION, UNSUPPORTED,
 * ALIASED; `y` is unchanged then. Threads: `ctx` shared, `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_softmax_with(const kvern_context *ctx,
                                const kvern_softmax_options *options,
                                size_t rows,
                                size_t n,
                                const float *x,
                                size_t x_row_stride,
                                float *y,
                                size_t y_row_stride);

/**
 * `out[i] = table[ids[i]]`.
 *
 * `table`: (vocabulary, n), f32. `ids`: tokens elements. `out`: (tokens, n), f32, must not overlap the
 * inputs. Strides in elements.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (an id beyond the table), ALIASED; `out` is unchanged
 * then. Threads: `ctx` shared, `out` exclusive.
 * Since: 0.1
 */
kvern_status kvern_embedding(const kvern_context *ctx,
                             size_t vocabulary,
                             size_t n,
                             const float *table,
                             size_t table_row_stride,
                             size_t tokens,
                             const uint32_t *ids,
                             float *out,
                             size_t out_row_stride);

/**
 * `out[i] = W[ids[i]]`, dequantised exactly: W's output features are the vocabulary.
 *
 * `ids`: tokens elements. `out`: (tokens, k), f32, stride in elements, must not overlap `ids`; k must be
 * that of the weights.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (an id beyond W, a wrong k), ALIASED; `out` is unchanged
 * then. Threads: `ctx` and `weights` shared, `out` exclusive.
 * Since: 0.1
 */
kvern_status kvern_embedding_quantized(const kvern_context *ctx,
                                       const kvern_weights *weights,
                                       size_t k,
                                       size_t tokens,
                                       const uint32_t *ids,
                                       float *out,
                                       size_t out_row_stride);

/**
 * `*out` = the index of the greatest element of `x`, the first of equals. NaN is not greater than anything.
 *
 * `x`: n elements, f32.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (no element is a number). Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_argmax(const kvern_context *ctx,
                          size_t n,
                          const float *x,
                          size_t *out);

/* ---- Row operations: norms with options -------------------------------------------------------- */

/**
 * What a row is divided by: a `KVERN_NORM_*` number.
 */
typedef int32_t kvern_norm_kind;

/**
 * What `kvern_norm` does. Start from KVERN_NORM_OPTIONS_INIT.
 */
typedef struct {
    /**
     * sizeof(kvern_norm_options).
     */
    size_t struct_size;
    /**
     * Multiplies the normalised elements: part_len elements; NULL for none. Must not overlap `y`.
     */
    const float *gain;
    /**
     * Added after the gain, with KVERN_NORM_LAYER only: part_len elements; NULL for none. Must not overlap
     * `y`.
     */
    const float *bias;
    /**
     * Elements of gain and bias: n, or n / groups, the same for each group; 0 for n.
     */
    size_t part_len;
    /**
     * Parts of equal length into which each row is cut, each with a norm of its own; 0 for one.
     */
    size_t groups;
    /**
     * Rows whose activation the row is multiplied by: (rows, n), f32; NULL for none. Must not overlap `y`.
     */
    const float *gate;
    /**
     * Elements from one row of the gate to the next one.
     */
    size_t gate_row_stride;
    /**
     * What a row is divided by.
     */
    kvern_norm_kind kind;
    /**
     * Added under the root, or the least divisor of KVERN_NORM_UNIT: finite, not negative.
     */
    float eps;
    /**
     * The activation of the gate.
     */
    kvern_activation gate_activation;
    /**
     * 1: x is multiplied by the gate before the norm (Mamba-2); 0: the result is.
     */
    int32_t gate_first;
} kvern_norm_options;

/**
 * x / sqrt(mean(x^2) + eps).
 */
#define KVERN_NORM_RMS 0

/**
 * (x - mean(x)) / sqrt(var(x) + eps).
 */
#define KVERN_NORM_LAYER 1

/**
 * x / sqrt(sum(x^2) + eps): the keys and queries of delta nets.
 */
#define KVERN_NORM_L2 2

/**
 * x / max(sqrt(sum(x^2)), eps): embeddings of length 1.
 */
#define KVERN_NORM_UNIT 3

/**
 * `y = norm(x) * gain + bias`, row by row; with a gate `norm(x) * gain * act(gate)`, or
 * `norm(x * act(gate)) * gain`, each part where the options ask for it.
 *
 * `x`, `y`: (rows, n), f32, strides in elements. `y` must not overlap the inputs.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (n no multiple of groups, part_len), OPTION,
 * UNSUPPORTED, ALIASED; `y` is unchanged then. Threads: `ctx` shared, `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_norm(const kvern_context *ctx,
                        const kvern_norm_options *options,
                        size_t rows,
                        size_t n,
                        const float *x,
                        size_t x_row_stride,
                        float *y,
                        size_t y_row_stride);

/* ---- Operations over tokens: pooling, sums, convolution ---------------------------------------- */

/**
 * The direction of a cumulative sum: a `KVERN_ALONG_*` number.
 */
typedef int32_t kvern_along;

/**
 * Along each row: from one element of a token to the next one.
 */
#define KVERN_ALONG_ROW 0

/**
 * Down each column: from token to token.
 */
#define KVERN_ALONG_COLUMN 1

/**
 * `out[i] = mean of the rows starts[i] .. starts[i + 1] - 1 of x that are seen`: one vector for each
 * sequence of a batch. A sequence of which nothing is seen gives zeros.
 *
 * `starts`: sequences + 1 row numbers, ascending, the last one at most tokens. `x`: (tokens, n), f32.
 * `seen`: tokens bytes, 1 for rows that count and 0 for padding; NULL if all count. `out`: (sequences, n),
 * f32, must not overlap the inputs. Strides in elements.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (starts that descend or go beyond x), OPTION, ALIASED;
 * `out` is unchanged then. Threads: `ctx` shared, `out` exclusive.
 * Since: 0.1
 */
kvern_status kvern_mean_pool(const kvern_context *ctx,
                             size_t sequences,
                             const size_t *starts,
                             size_t tokens,
                             size_t n,
                             const float *x,
                             size_t x_row_stride,
                             const uint8_t *seen,
                             float *out,
                             size_t out_row_stride);

/**
 * Replaces each element by the sum of it and of all before it, in place.
 *
 * `along`: a `KVERN_ALONG_*` number. `x`: (rows, n), f32, stride in elements.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION. Threads: `ctx` shared, `x` exclusive.
 * Since: 0.1
 */
kvern_status kvern_cumulative_sum(const kvern_context *ctx,
                                  kvern_along along,
                                  size_t rows,
                                  size_t n,
                                  float *x,
                                  size_t x_row_stride);

/**
 * `y[t][c] = act(sum over j of weights[j][c] * x[t - taps + 1 + j][c] + bias[c])`: the short convolution of
 * Mamba-2, of the delta nets and of LFM2. What lies before the first token is `state`, which ends as the
 * last taps - 1 inputs; a new sequence starts from zeros.
 *
 * `taps`: 2 to 8. `weights`: (taps, channels), f32, the tap of the oldest token first (checkpoints store the
 * transpose). `bias`: channels elements; NULL for none. `activation`: a `KVERN_ACTIVATION_*` number.
 * `state`: (taps - 1) * channels elements, the oldest first. `x`, `y`: (tokens, channels), f32. Strides in
 * elements. `state` and `y` must not overlap each other or the inputs.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED; `state` and `y` are unchanged then.
 * Threads: `ctx` shared, `state` and `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_causal_conv(const kvern_context *ctx,
                               size_t taps,
                               size_t channels,
                               const float *weights,
                               size_t weights_row_stride,
                               const float *bias,
                               kvern_activation activation,
                               float *state,
                               size_t tokens,
                               const float *x,
                               size_t x_row_stride,
                               float *y,
                               size_t y_row_stride);

/* ---- The greatest elements, and the router of experts ------------------------------------------ */

/**
 * How logits become scores: a `KVERN_ROUTER_*` number.
 */
typedef int32_t kvern_router_score;

/**
 * What groups of experts are compared by: a `KVERN_GROUP_*` number.
 */
typedef int32_t kvern_group_score;

/**
 * What `kvern_route` does. Start from KVERN_ROUTER_OPTIONS_INIT and set `chosen`.
 */
typedef struct {
    /**
     * sizeof(kvern_router_options).
     */
    size_t struct_size;
    /**
     * Added to the scores for the choice, and not to the weights: experts elements; NULL for none.
     */
    const float *bias;
    /**
     * Factors of the weights: experts elements; NULL for none.
     */
    const float *expert_scale;
    /**
     * Experts of a token, at least 1.
     */
    size_t chosen;
    /**
     * Groups of equal size into which the experts are cut, at most 64; 0 for one.
     */
    size_t groups;
    /**
     * Groups that are kept for the choice, the best ones; 0 for all.
     */
    size_t kept_groups;
    /**
     * How logits become scores.
     */
    kvern_router_score score;
    /**
     * What groups are compared by.
     */
    kvern_group_score group_score;
    /**
     * 1: weights are divided by their sum plus renormalize_eps.
     */
    int32_t renormalize;
    /**
     * Added to the sum of the weights (DeepSeek V3: 1e-20, LFM2-MoE: 1e-6, others: 0).
     */
    float renormalize_eps;
    /**
     * Factor of all weights; 0 means 1.
     */
    float scale;
    /**
     * 0: no flag is defined.
     */
    uint32_t flags;
} kvern_router_options;

/**
 * Softmax over all experts, before the choice: Mixtral, Qwen3-MoE, OLMoE, DeepSeek V2, Gemma 4.
 */
#define KVERN_ROUTER_SOFTMAX 0

/**
 * Choice by logits, then softmax over the chosen ones: gpt-oss, Granite.
 */
#define KVERN_ROUTER_SOFTMAX_OF_CHOSEN 1

/**
 * The logistic function, before the choice: DeepSeek V3, Kimi K2, GLM-4.5, LFM2-MoE, Nemotron-H.
 */
#define KVERN_ROUTER_SIGMOID 2

/**
 * Choice by logits, then the logistic function: Llama 4.
 */
#define KVERN_ROUTER_SIGMOID_OF_CHOSEN 3

/**
 * The sum of the two best experts: DeepSeek V3.
 */
#define KVERN_GROUP_BEST_TWO 0

/**
 * The best expert: DeepSeek V2.
 */
#define KVERN_GROUP_BEST 1

/**
 * The k greatest elements of each row, the greatest first, with their places. Of equal elements the one with
 * the lower index comes first; NaN comes after all numbers.
 *
 * `x`: (rows, n), f32, stride in elements; k is at most n. `indices`, `values`: rows * k elements each. They
 * must not overlap each other or `x`.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (k above n), ALIASED; the outputs are unchanged then.
 * Threads: `ctx` shared, `indices` and `values` exclusive.
 * Since: 0.1
 */
kvern_status kvern_top_k(const kvern_context *ctx,
                         size_t rows,
                         size_t n,
                         size_t k,
                         const float *x,
                         size_t x_row_stride,
                         uint32_t *indices,
                         float *values);

/**
 * Chooses experts for each token, with the weights of their results, the heaviest first.
 *
 * With s = score(logits): the experts with the greatest s + bias, of the best groups only; w = s of the
 * chosen, divided by their sum, times scale and expert_scale, each part where the options ask for it. Of
 * equals the one with the lower index is chosen.
 * `logits`: tokens * experts elements; with KVERN_ROUTER_SOFTMAX and KVERN_ROUTER_SIGMOID the scores replace
 * them. `indices`, `weights`: tokens * chosen elements each. None of the three may overlap another one or
 * the arrays of the options.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (more chosen than there are), OPTION, UNSUPPORTED,
 * ALIASED; nothing is changed then. Threads: `ctx` shared, `logits`, `indices` and `weights` exclusive.
 * Since: 0.1
 */
kvern_status kvern_route(const kvern_context *ctx,
                         const kvern_router_options *options,
                         size_t tokens,
                         size_t experts,
                         float *logits,
                         uint32_t *indices,
                         float *weights);

/* ---- Experts ----------------------------------------------------------------------------------- */

/**
 * What experts do besides their products. Start from KVERN_EXPERT_OPTIONS_INIT and set the activation,
 * usually KVERN_ACTIVATION_SILU.
 */
typedef struct {
    /**
     * sizeof(kvern_expert_options).
     */
    size_t struct_size;
    /**
     * How the products are computed.
     */
    kvern_compute compute;
    /**
     * The activation of the gate.
     */
    kvern_activation activation;
    /**
     * Not 0: the clamped gate of `kvern_swiglu_oai` instead, with this limit (gpt-oss: 7).
     */
    float oai_limit;
    /**
     * The alpha of that gate (gpt-oss: 1.702).
     */
    float oai_alpha;
    /**
     * 1: the weight multiplies the input of an expert (Llama 4); 0: its result.
     */
    int32_t weigh_input;
    /**
     * 0: no flag is defined.
     */
    uint32_t flags;
} kvern_expert_options;

/**
 * One expert: down(act(gate(x)) * up(x)), or down(act(gate(x))) without an up. Its layout is final.
 */
typedef struct {
    /**
     * (ffn output features, hidden input features).
     */
    const kvern_weights *gate;
    /**
     * Of the gate's shape; NULL for none, in all experts or in none.
     */
    const kvern_weights *up;
    /**
     * (n output features, ffn input features).
     */
    const kvern_weights *down;
    /**
     * Added to the gate before its activation: ffn elements; NULL for none.
     */
    const float *gate_bias;
    /**
     * Added to the up: ffn elements; NULL for none.
     */
    const float *up_bias;
    /**
     * Added to the result before its weight: n elements; NULL for none.
     */
    const float *down_bias;
} kvern_expert;

/**
 * `*out` = the bytes of workspace that `kvern_experts_multiply` of up to so many tokens, each with up to
 * `chosen` experts, needs.
 *
 * Errors: as `kvern_experts_multiply` for options and experts. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_experts_workspace_bytes(const kvern_context *ctx,
                                           const kvern_expert_options *options,
                                           size_t expert_count,
                                           const kvern_expert *experts,
                                           size_t tokens,
                                           size_t chosen,
                                           size_t *out);

/**
 * `out[t] += sum over i of weights[t][i] * expert[indices[t][i]](x[t])`: the chosen experts of each token,
 * weighted and added, in the order of its list. A token has the bits that it has alone.
 *
 * `experts`: expert_count of them, of one shape; formats may differ. `x`: (tokens, hidden), f32. `indices`,
 * `weights`: tokens * chosen elements each, as `kvern_route` gives them. `out`: (tokens, n), f32, to which
 * is added. Strides in elements. `out` must not overlap the inputs. Allocates nothing.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (an index beyond the experts, experts of different
 * shapes), OPTION (weights with an order of k, an up that only some have), UNSUPPORTED, ALIASED, WORKSPACE,
 * POISONED; `out` is unchanged then. Threads: `ctx` and weights shared, `ws` and `out` exclusive.
 * Since: 0.1
 */
kvern_status kvern_experts_multiply(const kvern_context *ctx,
                                    kvern_workspace *ws,
                                    const kvern_expert_options *options,
                                    size_t expert_count,
                                    const kvern_expert *experts,
                                    size_t tokens,
                                    size_t hidden,
                                    const float *x,
                                    size_t x_row_stride,
                                    size_t chosen,
                                    const uint32_t *indices,
                                    const float *weights,
                                    size_t n,
                                    float *out,
                                    size_t out_row_stride);

/* ---- Heads with weights of their own ----------------------------------------------------------- */

/**
 * `*out` = the bytes of workspace that `kvern_weights_multiply_heads` of up to m rows needs.
 *
 * Errors: as `kvern_weights_multiply_heads` for the weights. Threads: any.
 * Since: 0.1
 */
kvern_status kvern_weights_heads_workspace_bytes(const kvern_context *ctx,
                                                 kvern_compute compute,
                                                 size_t m,
                                                 size_t heads,
                                                 const kvern_weights *const *weights,
                                                 size_t *out);

/**
 * `C_h = A_h * W_h^T` for each head h, whose columns lie side by side: with the up-projection of keys it
 * turns queries into queries of a latent, and with that of values it turns attended latents into values
 * (DeepSeek). Each head has the bits of `kvern_weights_multiply`.
 *
 * `weights`: heads pointers to matrices of one shape (n, k), of any formats of blocks or all of floats. `a`:
 * (m, k) for each head, head h from column h * a_head_stride on; `c`: (m, n) likewise; f32, strides in
 * elements, those of heads at least k and n. `c` must not overlap the inputs; what lies between two heads is
 * left as it is. Allocates nothing.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE (weights of different shapes, a head stride below the
 * columns of a head), OPTION (no head, weights with an order of k, floats beside blocks), ALIASED,
 * WORKSPACE, POISONED; C is unchanged then. Threads: `ctx` and weights shared, `ws` and C exclusive.
 * Since: 0.1
 */
kvern_status kvern_weights_multiply_heads(const kvern_context *ctx,
                                          kvern_workspace *ws,
                                          kvern_compute compute,
                                          size_t m,
                                          size_t heads,
                                          const kvern_weights *const *weights,
                                          size_t k,
                                          const float *a,
                                          size_t a_row_stride,
                                          size_t a_head_stride,
                                          size_t n,
                                          float *c,
                                          size_t c_row_stride,
                                          size_t c_head_stride);

/* ---- Recurrent states -------------------------------------------------------------------------- */

/**
 * The matrices of one layer with recurrence, and the last inputs of its convolution, for some sequences.
 */
typedef struct kvern_state kvern_state;

/**
 * What recurrent states are made from. Start from KVERN_STATE_OPTIONS_INIT.
 */
typedef struct {
    /**
     * sizeof(kvern_state_options).
     */
    size_t struct_size;
    /**
     * Value heads, at least 1: as many matrices a sequence.
     */
    size_t heads;
    /**
     * Elements of a key, at least 1: rows of a matrix. d_state of Mamba-2.
     */
    size_t key_dim;
    /**
     * Elements of a value, at least 1: columns of a matrix. The head size of Mamba-2.
     */
    size_t value_dim;
    /**
     * Channels of the short convolution before the recurrence; 0 for none.
     */
    size_t channels;
    /**
     * Taps of that convolution, 2 to 8; 0 without channels.
     */
    size_t taps;
    /**
     * Sequences side by side; 0 for 1.
     */
    size_t sequences;
} kvern_state_options;

/**
 * Makes states of zeros: those of empty sequences. All memory is taken at once: for each sequence and head
 * key_dim * value_dim numbers (value_dim rounded up to 16), and (taps - 1) * channels.
 *
 * `ctx`: whose memory the states lie in; NULL for the process's allocator. `out`: receives the states, NULL
 * on failure.
 * Errors: NULL_POINTER, MISALIGNED, OPTION, UNSUPPORTED, OVERFLOW, RESOURCE.
 * Threads: `ctx` shared.
 * Since: 0.1
 */
kvern_status kvern_state_create(const kvern_context *ctx,
                                const kvern_state_options *options,
                                kvern_state **out);

/**
 * Destroys states; NULL is ignored.
 *
 * Threads: `state` exclusive.
 * Since: 0.1
 */
void kvern_state_destroy(kvern_state *state);

/**
 * Makes every sequence empty; keeps the memory.
 *
 * Errors: NULL_POINTER, POISONED.
 * Threads: `state` exclusive.
 * Since: 0.1
 */
kvern_status kvern_state_clear(kvern_state *state);

/**
 * Makes one sequence empty.
 *
 * Errors: NULL_POINTER, OPTION (no such sequence), POISONED.
 * Threads: `state` exclusive.
 * Since: 0.1
 */
kvern_status kvern_state_clear_in(kvern_state *state, size_t sequence);

/**
 * Makes sequence `to` a copy of sequence `from`: a second continuation, or a length that can be come back
 * to.
 *
 * Errors: NULL_POINTER, OPTION (no such sequence), POISONED.
 * Threads: `state` exclusive.
 * Since: 0.1
 */
kvern_status kvern_state_fork(kvern_state *state,
                              size_t from,
                              size_t to);

/**
 * `*out` = the tokens that a sequence took.
 *
 * Errors: NULL_POINTER, OPTION (no such sequence), POISONED.
 * Threads: any.
 * Since: 0.1
 */
kvern_status kvern_state_len(const kvern_state *state, size_t sequence, size_t *out);

/**
 * `*out` = the bytes of all sequences.
 *
 * Errors: NULL_POINTER, POISONED.
 * Threads: any.
 * Since: 0.1
 */
kvern_status kvern_state_bytes(const kvern_state *state, size_t *out);

/**
 * Copies the matrix of a head out: (key_dim, value_dim), without gaps.
 *
 * `len`: key_dim * value_dim. `matrix`: receives as many elements, f32.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence or head), POISONED.
 * Threads: `state` shared.
 * Since: 0.1
 */
kvern_status kvern_state_read(const kvern_state *state,
                              size_t sequence,
                              size_t head,
                              size_t len,
                              float *matrix);

/**
 * Sets the matrix of a head: (key_dim, value_dim), without gaps.
 *
 * `len`: key_dim * value_dim. `matrix`: as many elements, f32.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence or head), POISONED; nothing is
 * changed then.
 * Threads: `state` exclusive.
 * Since: 0.1
 */
kvern_status kvern_state_write(kvern_state *state,
                               size_t sequence,
                               size_t head,
                               size_t len,
                               const float *matrix);

/**
 * Writes all sequences to a file with a checksum. The file is replaced as a whole: an error leaves the old
 * one.
 *
 * `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows).
 * Errors: NULL_POINTER, OPTION (2^32 sequences), IO, RESOURCE, UNSUPPORTED (a big-endian machine), POISONED.
 * Threads: `state` shared.
 * Since: 0.1
 */
kvern_status kvern_state_save(const kvern_state *state,
                              const char *path);

/**
 * Replaces all sequences by those of a file that `kvern_state_save` wrote from states of the same heads,
 * sizes and convolution. There may be fewer of them: the others are empty then.
 *
 * Errors: NULL_POINTER, IO, BLOB (truncated, too long, foreign, of another version or other options,
 * damaged, or of more sequences), OVERFLOW, RESOURCE, UNSUPPORTED, POISONED; nothing is changed then.
 * Threads: `state` exclusive.
 * Since: 0.1
 */
kvern_status kvern_state_restore(kvern_state *state,
                                 const char *path);

/**
 * `kvern_causal_conv` with the inputs that a sequence of the states keeps.
 *
 * `weights`: (taps, channels) of the states' options, f32, the tap of the oldest token first. `bias`:
 * channels elements; NULL for none. `activation`: a `KVERN_ACTIVATION_*` number. `x`, `y`: (tokens,
 * channels), f32. Strides in elements. `y` must not overlap the inputs.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence, states without a
 * convolution), ALIASED, POISONED; `state` and `y` are unchanged then.
 * Threads: `ctx` shared, `state` and `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_state_conv(const kvern_context *ctx,
                              kvern_state *state,
                              size_t sequence,
                              const float *weights,
                              size_t weights_row_stride,
                              const float *bias,
                              kvern_activation activation,
                              size_t tokens,
                              const float *x,
                              size_t x_row_stride,
                              float *y,
                              size_t y_row_stride);

/**
 * The gated delta rule. For each token and head, with the matrix S of (key_dim, value_dim) that the sequence
 * has: `S = S * exp(decay)`, `u = beta * (v - S^T k)`, `S = S + k u^T`, `y = scale * S^T q`. One token after
 * the other: the bits do not depend on how many come in a call.
 *
 * `sequences`: count numbers, none of them twice; row `s * rows / count + i` is token i of sequence
 * `sequences[s]`. `q`, `k`: (rows, key_heads * key_dim), after their norm; key_heads divides heads, and
 * value head h has key head `h / (heads / key_heads)`. `v`, `y`: (rows, heads * value_dim). `decay`:
 * logarithms, (rows, decay_cols), decay_cols being heads, or heads * key_dim where each key element has its
 * own. `beta`: (rows, heads). `scale`: usually 1 / sqrt(key_dim). All f32, strides in elements. `y` must not
 * overlap the inputs.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION (no such sequence, one that comes twice,
 * key_heads, scale), ALIASED, POISONED; `state` and `y` are unchanged then.
 * Threads: `ctx` shared, `state` and `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_delta_rule(const kvern_context *ctx,
                              kvern_state *state,
                              size_t count,
                              const size_t *sequences,
                              size_t rows,
                              size_t key_heads,
                              const float *q,
                              size_t q_row_stride,
                              const float *k,
                              size_t k_row_stride,
                              const float *v,
                              size_t v_row_stride,
                              size_t decay_cols,
                              const float *decay,
                              size_t decay_row_stride,
                              const float *beta,
                              size_t beta_row_stride,
                              float scale,
                              float *y,
                              size_t y_row_stride);

/**
 * The selective scan of Mamba-2. For each token and head, with the matrix S of (key_dim, value_dim) that the
 * sequence has, the transpose of the (head_dim, d_state) of checkpoints:
 * `S = S * exp(dt * a) + b (dt * x)^T`, `y = S^T c + d * x`. One token after the other, as
 * `kvern_delta_rule`.
 *
 * `count`, `sequences`, `rows`: as in `kvern_delta_rule`. `x`, `y`: (rows, heads * value_dim). `dt`: the
 * steps, after `kvern_time_step`: (rows, heads). `b`, `c`: (rows, groups * key_dim); groups divides heads,
 * and head h has group `h / (heads / groups)`. `a`: heads elements, `-exp(A_log)`. `d`: heads elements. All
 * f32, strides in elements. `y` must not overlap the inputs.
 * Errors: as `kvern_delta_rule`.
 * Threads: `ctx` shared, `state` and `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_selective_scan(const kvern_context *ctx,
                                  kvern_state *state,
                                  size_t count,
                                  const size_t *sequences,
                                  size_t rows,
                                  size_t groups,
                                  const float *x,
                                  size_t x_row_stride,
                                  const float *dt,
                                  size_t dt_row_stride,
                                  const float *b,
                                  size_t b_row_stride,
                                  const float *c,
                                  size_t c_row_stride,
                                  const float *a,
                                  const float *d,
                                  float *y,
                                  size_t y_row_stride);

/**
 * `y[i][j] = factor[j] * clamp(softplus(x[i][j] + bias[j]), least, most)`: the steps of Mamba-2, and, with
 * `factor = -exp(A_log)`, the decays of the delta nets.
 *
 * `bias`, `factor`: n elements; NULL for zeros, and for ones. `least`, `most`: infinite for no limit. `x`,
 * `y`: (rows, n), f32, strides in elements. `y` must not overlap the inputs.
 * Errors: NULL_POINTER, MISALIGNED, OVERFLOW, SHAPE, OPTION, ALIASED; `y` is unchanged then.
 * Threads: `ctx` shared, `y` exclusive.
 * Since: 0.1
 */
kvern_status kvern_time_step(const kvern_context *ctx,
                             const float *bias,
                             const float *factor,
                             float least,
                             float most,
                             size_t rows,
                             size_t n,
                             const float *x,
                             size_t x_row_stride,
                             float *y,
                             size_t y_row_stride);

/* ---- Initialisers ------------------------------------------------------------------------------ */

/** Options with all defaults: `kvern_context_options options = KVERN_CONTEXT_OPTIONS_INIT;` */
#define KVERN_CONTEXT_OPTIONS_INIT { sizeof(kvern_context_options), 0, 0, 0, NULL, NULL, NULL, NULL, NULL }
#define KVERN_EPILOGUE_INIT { sizeof(kvern_epilogue), 0, 0, NULL, 0, 0 }
#define KVERN_ROPE_SCALING_INIT { sizeof(kvern_rope_scaling), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define KVERN_KV_CACHE_OPTIONS_INIT { sizeof(kvern_kv_cache_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define KVERN_PREPARATION_INIT { sizeof(kvern_preparation), NULL, NULL, 0, 0, NULL, 0, 0, NULL }
#define KVERN_ATTENTION_OPTIONS_INIT \
    { sizeof(kvern_attention_options), 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, 0, NULL, 0, NULL, 0, 0, 0, \
      NULL, 0, NULL, 0 }
#define KVERN_SOFTMAX_OPTIONS_INIT { sizeof(kvern_softmax_options), 0, 0, NULL, 0, 0 }
#define KVERN_NORM_OPTIONS_INIT { sizeof(kvern_norm_options), NULL, NULL, 0, 0, NULL, 0, 0, 0, 0, 0 }
#define KVERN_ROUTER_OPTIONS_INIT \
    { sizeof(kvern_router_options), NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define KVERN_EXPERT_OPTIONS_INIT { sizeof(kvern_expert_options), 0, 0, 0, 0, 0, 0 }
#define KVERN_STATE_OPTIONS_INIT { sizeof(kvern_state_options), 0, 0, 0, 0, 0, 0 }
#define KVERN_PATCHES_INIT { sizeof(kvern_patches), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KVERN_H */
