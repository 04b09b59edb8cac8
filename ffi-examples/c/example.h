/* What the examples share: failing calls end the program, numbers come from one generator, errors
 * are judged. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include "kvern.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static inline void example_check(kvern_status status, const char *call) {
    if (status != KVERN_STATUS_OK) {
        fprintf(stderr, "%s: %s: %s\n", call, kvern_status_name(status), kvern_last_error_message());
        exit(1);
    }
}
#define CHECK(call) example_check(call, #call)

/* Uniform in [-1, 1): a linear congruential generator, the same everywhere. */
static inline float next_random(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 8388608.0f - 1.0f;
}

static inline void fill_random(size_t len, float *x) {
    for (size_t i = 0; i < len; i++)
        x[i] = next_random();
}

/* Ends the program when an error is beyond its bound, or NaN. */
static inline void expect_below(const char *what, double error, double bound) {
    if (!(error < bound)) {
        fprintf(stderr, "%s: the error is %g, its bound %g\n", what, error, bound);
        exit(1);
    }
    printf("%s: error %.1e, bound %.1e\n", what, error, bound);
}

#endif
