/*
 * A made-up exchange: order-book messages of many symbols as lines that replay reads.
 *
 *     <ns> {"stream":"AAAB@trade","s":"AAAB","seq":17,...}
 *
 * Three streams per symbol: trade and bookTicker (some 100 to 200 bytes), depth (up to 2 KiB).
 * Symbols differ in activity like Zipf's law, prices walk at random, and with bursts the messages
 * come in clusters, as they do after news. The same options give the same bytes on every machine.
 */
#ifndef RSI_CLI_FEED_H
#define RSI_CLI_FEED_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RSI_FEED_SYMBOL_COUNT_MAX = 100000,
    RSI_FEED_LINE_BYTES_MAX = 2304, /* with time, newline and terminating zero */
};

struct rsi_feed_options {
    uint64_t symbol_count; /* 1 to RSI_FEED_SYMBOL_COUNT_MAX */
    uint64_t seed;
    double rate_per_second; /* mean, in feed time */
    bool has_bursts;
    uint64_t start_ns; /* time of the first message */
};

struct rsi_feed_symbol {
    char name[8];
    uint64_t price_ticks; /* hundredths */
    uint64_t sequence;
};

struct rsi_feed {
    struct rsi_feed_options options;
    uint64_t random_state;
    uint64_t time_ns;
    uint64_t burst_left_count;
    uint64_t trade_count;
    struct rsi_feed_symbol *symbols;
    uint64_t *activity_sums; /* running sums of the symbols' shares, for choosing one */
};

RSI_MUST_CHECK rsi_status_t rsi_feed_init(struct rsi_feed *feed,
                                          const struct rsi_feed_options *options,
                                          struct rsi_error *error);
/* Takes a zeroed one. */
void rsi_feed_fini(struct rsi_feed *feed);
/* Writes the next line with its newline into at least RSI_FEED_LINE_BYTES_MAX; returns its bytes.
 */
size_t rsi_feed_next(struct rsi_feed *feed, char *line);

#endif
