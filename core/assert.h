#ifndef RSI_CORE_ASSERT_H
#define RSI_CORE_ASSERT_H

#include "core/compiler.h"

/*
 * rsi_assert(condition): an invariant of our own, on in every build. One condition each. Writes the
 * expression and its place to standard error and aborts. Never for what a peer, a file or a user
 * wrote: that is checked and answered with an error.
 */
#define rsi_assert(condition)                                            \
    do {                                                                 \
        if (rsi_unlikely(!(condition))) {                                \
            rsi_assert_failed(#condition, __FILE__, __LINE__, __func__); \
        }                                                                \
    } while (0)

/* Where no path of ours leads, such as behind a switch over all values of an enum. */
#define rsi_unreachable(reason) rsi_assert_failed(reason, __FILE__, __LINE__, __func__)

/* Sizes, offsets and relations of constants, beside what they speak of. */
#define rsi_static_assert(condition) _Static_assert(condition, #condition)

void rsi_assert_failed(const char *expression, const char *file, int line, const char *function)
    __attribute__((noreturn, noinline, cold));

#endif
