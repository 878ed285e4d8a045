#ifndef RSI_CORE_HISTOGRAM_H
#define RSI_CORE_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

/*
 * Counts of values (nanoseconds as a rule) in buckets whose width grows with the value.
 *
 * Values below 256 have a bucket each; above, every power of two is cut into 128 buckets, so that a
 * value read back is at most 1/128 (0.79 %) too high and never too low. Values of 2^42 (73 minutes
 * in ns) and more share the last bucket; the largest value is kept exactly all the same. About
 * 36 KiB, a plain struct: zeroed it is an empty histogram. One thread at a time.
 */
enum {
    RSI_HISTOGRAM_SUB_BITS = 7,
    RSI_HISTOGRAM_SUB_COUNT = 1 << RSI_HISTOGRAM_SUB_BITS,
    RSI_HISTOGRAM_VALUE_BITS = 42,
    RSI_HISTOGRAM_BUCKET_COUNT =
        (RSI_HISTOGRAM_VALUE_BITS - RSI_HISTOGRAM_SUB_BITS + 1) * RSI_HISTOGRAM_SUB_COUNT,
};

struct rsi_histogram {
    uint64_t total_count;
    uint64_t min_value; /* valid when total_count > 0 */
    uint64_t max_value;
    long double sum;
    uint64_t bucket_counts[RSI_HISTOGRAM_BUCKET_COUNT];
};

static inline uint32_t rsi_histogram_index(uint64_t value)
{
    const uint64_t largest = (UINT64_C(1) << RSI_HISTOGRAM_VALUE_BITS) - 1;
    value = value > largest ? largest : value;
    if (value < 2 * RSI_HISTOGRAM_SUB_COUNT) {
        return (uint32_t)value;
    }
    uint32_t shift = (uint32_t)(63 - __builtin_clzll(value)) - RSI_HISTOGRAM_SUB_BITS;
    return shift * RSI_HISTOGRAM_SUB_COUNT + (uint32_t)(value >> shift);
}

/* Adds `count` times `value`. Hot path. */
static inline void rsi_histogram_record_many(struct rsi_histogram *histogram, uint64_t value,
                                             uint64_t count)
{
    if (histogram->total_count == 0 || value < histogram->min_value) {
        histogram->min_value = value;
    }
    if (value > histogram->max_value) {
        histogram->max_value = value;
    }
    histogram->total_count += count;
    histogram->sum += (long double)value * (long double)count;
    histogram->bucket_counts[rsi_histogram_index(value)] += count;
}

static inline void rsi_histogram_record(struct rsi_histogram *histogram, uint64_t value)
{
    rsi_histogram_record_many(histogram, value, 1);
}

void rsi_histogram_reset(struct rsi_histogram *histogram);

/* Adds all of `from` to `into`. */
void rsi_histogram_merge(struct rsi_histogram *into, const struct rsi_histogram *from);

/*
 * The value that `percentile` (0 .. 100) percent of the values do not exceed: the top of its
 * bucket, never above the largest value. 0 when empty.
 */
uint64_t rsi_histogram_percentile(const struct rsi_histogram *histogram, double percentile);

/* Exact; 0 when empty. */
double rsi_histogram_mean(const struct rsi_histogram *histogram);

/* From the middles of the buckets; 0 when empty. */
double rsi_histogram_standard_deviation(const struct rsi_histogram *histogram);

/*
 * Writes HdrHistogram's percentile table, which its plotter reads. Values are divided by
 * `unit` (1000.0 shows microseconds); `ticks_per_half` (5 is usual) lines per halved distance to
 * 100 %. The stream's error indicator tells of failures.
 */
void rsi_histogram_write(const struct rsi_histogram *histogram, FILE *stream,
                         uint32_t ticks_per_half, double unit);

#endif
