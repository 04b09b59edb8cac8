/* The check of these programs: prints the line and the condition that does not hold, and ends `main`. */
#ifndef KVERN_TESTS_EXPECT_HPP
#define KVERN_TESTS_EXPECT_HPP

#include <cstdio>

#define EXPECT(condition)                                                \
    do {                                                                 \
        if (!(condition)) {                                              \
            std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            return 1;                                                    \
        }                                                                \
    } while (0)

#endif
