/*
 * From publish to placement: how old the messages are that an agent places in one session's ring.
 * One thread counts, any other reads.
 *
 * Design notes
 * - A batch is counted with one addition and the time at which the agent's pass ended, which is
 *   read anyway: the age of its oldest message, once for each message in it. So what is shown is
 *   never better than what was.
 * - Buckets as in core/histogram.h, but eight times as coarse: 4 KiB a session, and a value read
 *   back is at most 1/16 (6.25 %) too high and never too low.
 */
#ifndef RSI_BROKER_LATENCY_H
#define RSI_BROKER_LATENCY_H

#include "core/atomics.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    RSI_LATENCY_SUB_BITS = 4,
    RSI_LATENCY_SUB_COUNT = 1 << RSI_LATENCY_SUB_BITS,
    RSI_LATENCY_VALUE_BITS = 38, /* 275 s and more share the last bucket */
    RSI_LATENCY_BUCKET_COUNT =
        (RSI_LATENCY_VALUE_BITS - RSI_LATENCY_SUB_BITS + 1) * RSI_LATENCY_SUB_COUNT,
};

/* Zeroed it is empty. */
struct rsi_latency {
    _Atomic uint64_t message_count;
    _Atomic uint64_t bucket_counts[RSI_LATENCY_BUCKET_COUNT];
};

static inline uint32_t rsi_latency_index(uint64_t age_ns)
{
    const uint64_t largest = (UINT64_C(1) << RSI_LATENCY_VALUE_BITS) - 1;
    age_ns = age_ns > largest ? largest : age_ns;
    if (age_ns < UINT64_C(2) * RSI_LATENCY_SUB_COUNT) {
        return (uint32_t)age_ns;
    }
    uint32_t shift = (uint32_t)(63 - __builtin_clzll(age_ns)) - RSI_LATENCY_SUB_BITS;
    return shift * RSI_LATENCY_SUB_COUNT + (uint32_t)(age_ns >> shift);
}

/* `message_count` messages, none older than `age_ns`. Hot path. */
static inline void rsi_latency_record(struct rsi_latency *latency, uint64_t age_ns,
                                      uint64_t message_count)
{
    rsi_bump_relaxed(&latency->bucket_counts[rsi_latency_index(age_ns)], message_count);
    rsi_bump_relaxed(&latency->message_count, message_count);
}

/* What a reader saw when it looked last. Zeroed: nothing. */
struct rsi_latency_seen {
    uint64_t message_count;
    uint64_t bucket_counts[RSI_LATENCY_BUCKET_COUNT];
};

enum { RSI_LATENCY_POINT_COUNT = 6 };

/* p50, p90, p95, p99, p99.9 and the largest. */
struct rsi_latency_points {
    uint64_t values_ns[RSI_LATENCY_POINT_COUNT]; /* 0: nothing was counted */
};

/* The points of what was counted since the last look. Reader's thread. */
void rsi_latency_look(const struct rsi_latency *latency, struct rsi_latency_seen *seen,
                      struct rsi_latency_points *points);

#endif
