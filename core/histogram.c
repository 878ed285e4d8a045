/*
 * Design notes
 *
 * - Bucket of a value: its leading RSI_HISTOGRAM_SUB_BITS + 1 bits, and how far they were shifted.
 * The first 2 * SUB_COUNT values have buckets of width one; after that every SUB_COUNT buckets
 * double the width. rsi_histogram_index() in the header is the only place that knows; bucket_low()
 * is its inverse, and a test holds the two against each other for every bucket.
 * - A percentile is the top of the bucket that holds the value of that rank: never too low, which
 * is the side on which a latency must not err.
 */
#include "core/histogram.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/assert.h"

rsi_static_assert(sizeof(((struct rsi_histogram *)0)->bucket_counts) == 36864);

static uint32_t bucket_shift(uint32_t index)
{
    return index < 2 * RSI_HISTOGRAM_SUB_COUNT ? 0 : index / RSI_HISTOGRAM_SUB_COUNT - 1;
}

static uint64_t bucket_low(uint32_t index)
{
    uint32_t shift = bucket_shift(index);
    return (uint64_t)(index - shift * RSI_HISTOGRAM_SUB_COUNT) << shift;
}

static uint64_t bucket_high(uint32_t index)
{
    return bucket_low(index) + ((UINT64_C(1) << bucket_shift(index)) - 1);
}

/* What to show for a bucket: its top, but no more than there was. The last has no top of its own.
 */
static uint64_t shown_value(const struct rsi_histogram *histogram, uint32_t index)
{
    uint64_t high = bucket_high(index);
    if (index == RSI_HISTOGRAM_BUCKET_COUNT - 1 || high > histogram->max_value) {
        return histogram->max_value;
    }
    return high;
}

void rsi_histogram_reset(struct rsi_histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

void rsi_histogram_merge(struct rsi_histogram *into, const struct rsi_histogram *from)
{
    if (from->total_count == 0) {
        return;
    }
    if (into->total_count == 0 || from->min_value < into->min_value) {
        into->min_value = from->min_value;
    }
    if (from->max_value > into->max_value) {
        into->max_value = from->max_value;
    }
    into->total_count += from->total_count;
    into->sum += from->sum;
    for (uint32_t i = 0; i < RSI_HISTOGRAM_BUCKET_COUNT; i++) {
        into->bucket_counts[i] += from->bucket_counts[i];
    }
}

/* How many values must lie at or below the answer. At least one, at most all. */
static uint64_t rank_of(const struct rsi_histogram *histogram, double percentile)
{
    double clamped = percentile < 0 ? 0 : (percentile > 100 ? 100 : percentile);
    /* 99.9 % of 1000 must be rank 999 although 99.9 / 100 is a little more in binary. */
    long double exact = (long double)clamped / 100 * (long double)histogram->total_count;
    uint64_t rank = (uint64_t)ceill(exact - 1e-9L * (long double)histogram->total_count);
    rank = rank < 1 ? 1 : rank;
    return rank > histogram->total_count ? histogram->total_count : rank;
}

uint64_t rsi_histogram_percentile(const struct rsi_histogram *histogram, double percentile)
{
    if (histogram->total_count == 0) {
        return 0;
    }
    uint64_t rank = rank_of(histogram, percentile);
    uint64_t seen_count = 0;
    for (uint32_t i = 0; i < RSI_HISTOGRAM_BUCKET_COUNT; i++) {
        seen_count += histogram->bucket_counts[i];
        if (seen_count >= rank) {
            return shown_value(histogram, i);
        }
    }
    return histogram->max_value;
}

double rsi_histogram_mean(const struct rsi_histogram *histogram)
{
    if (histogram->total_count == 0) {
        return 0;
    }
    return (double)(histogram->sum / (long double)histogram->total_count);
}

double rsi_histogram_standard_deviation(const struct rsi_histogram *histogram)
{
    if (histogram->total_count == 0) {
        return 0;
    }
    double mean = rsi_histogram_mean(histogram);
    double squares = 0;
    for (uint32_t i = 0; i < RSI_HISTOGRAM_BUCKET_COUNT; i++) {
        if (histogram->bucket_counts[i] == 0) {
            continue;
        }
        double middle = ((double)bucket_low(i) + (double)shown_value(histogram, i)) / 2;
        squares += (middle - mean) * (middle - mean) * (double)histogram->bucket_counts[i];
    }
    return sqrt(squares / (double)histogram->total_count);
}

/* The next percentile of the table: `ticks_per_half` steps for each halving of what is left to 100.
 */
static double next_percentile(double percentile, uint32_t ticks_per_half)
{
    double halvings = floor(log2(100.0 / (100.0 - percentile))) + 1;
    return percentile + 100.0 / (ticks_per_half * pow(2, halvings));
}

static void write_line(FILE *stream, double value, double fraction, uint64_t count)
{
    if (fraction < 1) {
        fprintf(stream, "%12.3f %2.12f %10" PRIu64 " %14.2f\n", value, fraction, count,
                1 / (1 - fraction));
    } else {
        fprintf(stream, "%12.3f %2.12f %10" PRIu64 "\n", value, fraction, count);
    }
}

static void write_lines(const struct rsi_histogram *histogram, FILE *stream,
                        uint32_t ticks_per_half, double unit)
{
    double percentile = 0;
    uint64_t seen_count = 0;
    for (uint32_t i = 0; i < RSI_HISTOGRAM_BUCKET_COUNT; i++) {
        if (histogram->bucket_counts[i] == 0) {
            continue;
        }
        seen_count += histogram->bucket_counts[i];
        double value = (double)shown_value(histogram, i) / unit;
        if (seen_count == histogram->total_count) {
            write_line(stream, value, 1, seen_count);
            return;
        }
        double reached = 100.0 * (double)seen_count / (double)histogram->total_count;
        while (percentile <= reached && percentile < 100) {
            write_line(stream, value, percentile / 100, seen_count);
            percentile = next_percentile(percentile, ticks_per_half);
        }
    }
}

void rsi_histogram_write(const struct rsi_histogram *histogram, FILE *stream,
                         uint32_t ticks_per_half, double unit)
{
    rsi_assert(ticks_per_half > 0);
    rsi_assert(unit > 0);
    fprintf(stream, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount",
            "1/(1-Percentile)");
    write_lines(histogram, stream, ticks_per_half, unit);
    fprintf(stream, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n",
            rsi_histogram_mean(histogram) / unit,
            rsi_histogram_standard_deviation(histogram) / unit);
    fprintf(stream, "#[Max     = %12.3f, Total count    = %12" PRIu64 "]\n",
            (double)histogram->max_value / unit, histogram->total_count);
    fprintf(stream, "#[Buckets = %12d, SubBuckets     = %12d]\n",
            RSI_HISTOGRAM_VALUE_BITS - RSI_HISTOGRAM_SUB_BITS, 2 * RSI_HISTOGRAM_SUB_COUNT);
}
