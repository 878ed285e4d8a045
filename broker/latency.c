/*
 * Design notes: latency.h. A message may be counted in its bucket and not yet in the total, or the
 * other way round on another processor; so the total only says whether a look is worth while, and
 * the points are taken from the buckets alone.
 */
#include "broker/latency.h"

#include <string.h>

/* The largest value that the bucket stands for, and at least 1: 0 says that there is none. */
static uint64_t bucket_top(uint32_t index)
{
    uint32_t shift = index < 2 * RSI_LATENCY_SUB_COUNT ? 0 : index / RSI_LATENCY_SUB_COUNT - 1;
    uint64_t low = (uint64_t)(index - shift * RSI_LATENCY_SUB_COUNT) << shift;
    uint64_t top = low + ((UINT64_C(1) << shift) - 1);
    return top > 0 ? top : 1;
}

void rsi_latency_look(const struct rsi_latency *latency, struct rsi_latency_seen *seen,
                      struct rsi_latency_points *points)
{
    /* Of 100,000; the last is the largest. */
    static const uint64_t shares[RSI_LATENCY_POINT_COUNT] = {50000, 90000, 95000,
                                                             99000, 99900, 100000};
    memset(points, 0, sizeof(*points));
    uint64_t message_count = rsi_load_relaxed(&latency->message_count);
    if (message_count == seen->message_count) {
        return;
    }
    seen->message_count = message_count;
    uint64_t fresh[RSI_LATENCY_BUCKET_COUNT];
    uint64_t total = 0;
    for (uint32_t i = 0; i < RSI_LATENCY_BUCKET_COUNT; i++) {
        uint64_t count = rsi_load_relaxed(&latency->bucket_counts[i]);
        fresh[i] = count - seen->bucket_counts[i];
        seen->bucket_counts[i] = count;
        total += fresh[i];
    }
    uint64_t below = 0;
    uint32_t point = 0;
    for (uint32_t i = 0; i < RSI_LATENCY_BUCKET_COUNT && point < RSI_LATENCY_POINT_COUNT; i++) {
        below += fresh[i];
        /* The rank of a point is at least 1, so that an empty bucket is none's. */
        while (fresh[i] > 0 && point < RSI_LATENCY_POINT_COUNT &&
               (double)below * 100000 >= (double)total * (double)shares[point]) {
            points->values_ns[point++] = bucket_top(i);
        }
    }
}
