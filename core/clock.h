#ifndef RSI_CORE_CLOCK_H
#define RSI_CORE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/compiler.h"

/*
 * Nanoseconds at the price of reading the time-stamp counter.
 *
 * rsi_clock_now_ns() follows CLOCK_MONOTONIC: each thread has an anchor (a counter value and the
 * monotonic time at it), reckons on from it, and takes a new one every RSI_CLOCK_ANCHOR_NS. So all
 * threads and processes of one host show the same time.
 *
 *   Within a thread     never goes back.
 *   Against CLOCK_MONOTONIC, and so between threads and processes of one host: typically within
 *                       0.2 us; within 10 us while the host's time is slewed at its fastest.
 *   Cost                one TSC read, one multiplication; a clock_gettime once per anchor.
 *
 * Where the counter is not invariant, or RINGSIDE_CLOCK=monotonic is in the environment, every call
 * is a clock_gettime(CLOCK_MONOTONIC).
 */

#define RSI_CLOCK_ANCHOR_NS UINT64_C(20000000)
#define RSI_CLOCK_SHIFT     32

/* A thread's own anchor. Zero: not anchored yet, so that the first call takes the slow way. */
struct rsi_clock_thread {
    uint64_t anchor_ticks;
    uint64_t anchor_ns;
    uint64_t anchor_limit_ticks;  /* ticks after which a new anchor is due; 0: no counter in use */
    uint64_t ns_per_tick_shifted; /* ns per tick, times 2^RSI_CLOCK_SHIFT */
    uint64_t last_ns;             /* the last time shown by this thread */
    int64_t realtime_offset_ns;   /* system time minus monotonic time, at the anchor */
};

/* One load away also from a shared library, whose default would be a call per access. */
extern _Thread_local struct rsi_clock_thread rsi_clock_thread
    __attribute__((tls_model("initial-exec")));

/* Takes a new anchor; the first call of a process also measures the counter, for about 5 ms. */
uint64_t rsi_clock_now_slow_ns(void) RSI_COLD;

static inline uint64_t rsi_clock_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return 0;
#endif
}

/* Monotonic time. Any thread; no system call of its own (the vDSO answers clock_gettime). */
static inline uint64_t rsi_clock_now_ns(void)
{
    struct rsi_clock_thread *clock = &rsi_clock_thread;
    uint64_t elapsed_ticks = rsi_clock_ticks() - clock->anchor_ticks;
    if (rsi_unlikely(elapsed_ticks >= clock->anchor_limit_ticks)) {
        return rsi_clock_now_slow_ns();
    }
    uint64_t elapsed_ns = (elapsed_ticks * clock->ns_per_tick_shifted) >> RSI_CLOCK_SHIFT;
    clock->last_ns = clock->anchor_ns + elapsed_ns;
    return clock->last_ns;
}

/* System time (since 1970, UTC), from the monotonic time and an offset of the last anchor: a step
 * of the system clock shows after at most RSI_CLOCK_ANCHOR_NS. Any thread. */
static inline uint64_t rsi_clock_realtime_ns(void)
{
    uint64_t now_ns = rsi_clock_now_ns();
    return now_ns + (uint64_t)rsi_clock_thread.realtime_offset_ns;
}

/* Measures the counter now, so that no later call has to: call it at start. Any thread. */
void rsi_clock_prepare(void);

/* Whether this process reads the time-stamp counter; if not, why not, in `reason` (a literal). */
bool rsi_clock_uses_tsc(const char **reason);

#endif
