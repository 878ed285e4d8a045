/*
 * Design notes
 * - Integers only, of a generator of our own (splitmix64): floating-point functions of the C
 * library differ in their last bit between machines, and then so would the feed.
 * - Zipf's law: symbol i has the share 1/(i+1). Running sums are searched by halving.
 * - A burst is a count of messages that follow each other within microseconds; between bursts the
 * gaps are longer by what the bursts saved, so that the mean rate is kept.
 */
#include "clients/cli/feed.h"

#include "core/assert.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    PRICE_TICKS_MIN = 100,
    PRICE_TICKS_MAX = 100000000,
    DEPTH_LEVELS_MAX = 40, /* per side */
    BURST_COUNT_MIN = 20,
    BURST_COUNT_SPREAD = 180,
    BURST_GAP_NS_MAX = 2000,
    BURST_ONE_IN = 100, /* messages outside bursts begin one */
};

#define ACTIVITY_SCALE (UINT64_C(1) << 32)

static uint64_t next_random(struct rsi_feed *feed)
{
    feed->random_state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t mixed = feed->random_state;
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

/* 0 to limit - 1. */
static uint64_t random_below(struct rsi_feed *feed, uint64_t limit)
{
    return (uint64_t)(((unsigned __int128)next_random(feed) * limit) >> 64);
}

/* Four or more capital letters, as base 26 digits. */
static void name_symbol(char *name, size_t name_bytes, uint64_t index)
{
    size_t length = 4;
    rsi_assert(name_bytes > length);
    for (size_t i = length; i > 0; i--) {
        name[i - 1] = (char)('A' + index % 26);
        index /= 26;
    }
    name[length] = '\0';
}

rsi_status_t rsi_feed_init(struct rsi_feed *feed, const struct rsi_feed_options *options,
                           struct rsi_error *error)
{
    memset(feed, 0, sizeof(*feed));
    rsi_assert(options->symbol_count >= 1);
    rsi_assert(options->symbol_count <= RSI_FEED_SYMBOL_COUNT_MAX);
    feed->options = *options;
    feed->random_state = options->seed;
    feed->time_ns = options->start_ns;
    feed->symbols = calloc(options->symbol_count, sizeof(*feed->symbols));
    feed->activity_sums = calloc(options->symbol_count, sizeof(*feed->activity_sums));
    if (feed->symbols == NULL || feed->activity_sums == NULL) {
        rsi_feed_fini(feed);
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for %" PRIu64 " symbols",
                        options->symbol_count);
    }
    uint64_t sum = 0;
    for (uint64_t i = 0; i < options->symbol_count; i++) {
        name_symbol(feed->symbols[i].name, sizeof(feed->symbols[i].name), i);
        feed->symbols[i].price_ticks = 1000 + random_below(feed, 100000);
        sum += ACTIVITY_SCALE / (i + 1);
        feed->activity_sums[i] = sum;
    }
    return RSI_OK;
}

void rsi_feed_fini(struct rsi_feed *feed)
{
    free(feed->symbols);
    free(feed->activity_sums);
    feed->symbols = NULL;
    feed->activity_sums = NULL;
}

static struct rsi_feed_symbol *choose_symbol(struct rsi_feed *feed)
{
    uint64_t low = 0;
    uint64_t high = feed->options.symbol_count - 1;
    uint64_t point = random_below(feed, feed->activity_sums[high]);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (feed->activity_sums[middle] > point) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return &feed->symbols[low];
}

static void advance_time(struct rsi_feed *feed)
{
    uint64_t mean_gap_ns = (uint64_t)(1e9 / feed->options.rate_per_second);
    if (feed->burst_left_count > 0) {
        feed->burst_left_count--;
        feed->time_ns += random_below(feed, BURST_GAP_NS_MAX);
        return;
    }
    if (!feed->options.has_bursts) {
        feed->time_ns += random_below(feed, 2 * mean_gap_ns + 1);
        return;
    }
    /* One message in BURST_ONE_IN brings about this many more: so much longer is an ordinary gap.
     */
    const uint64_t stretch = 1 + (BURST_COUNT_MIN + BURST_COUNT_SPREAD / 2) / BURST_ONE_IN;
    feed->time_ns += random_below(feed, 2 * stretch * mean_gap_ns + 1);
    if (random_below(feed, BURST_ONE_IN) == 0) {
        feed->burst_left_count = BURST_COUNT_MIN + random_below(feed, BURST_COUNT_SPREAD);
    }
}

static void walk_price(struct rsi_feed *feed, struct rsi_feed_symbol *symbol)
{
    uint64_t reach = 1 + symbol->price_ticks / 2000;
    uint64_t moved = symbol->price_ticks + random_below(feed, 2 * reach + 1);
    symbol->price_ticks = moved < reach + PRICE_TICKS_MIN ? PRICE_TICKS_MIN : moved - reach;
    if (symbol->price_ticks > PRICE_TICKS_MAX) {
        symbol->price_ticks = PRICE_TICKS_MAX;
    }
}

static void append_price(struct rsi_text *line, uint64_t ticks)
{
    rsi_text_append(line, "\"%" PRIu64 ".%02" PRIu64 "\"", ticks / 100, ticks % 100);
}

static void append_head(struct rsi_feed *feed, struct rsi_text *line,
                        const struct rsi_feed_symbol *symbol, const char *stream)
{
    rsi_text_append(line, "%" PRIu64 " {\"stream\":\"%s@%s\",\"s\":\"%s\",\"seq\":%" PRIu64,
                    feed->time_ns, symbol->name, stream, symbol->name, symbol->sequence);
}

static void append_trade(struct rsi_feed *feed, struct rsi_text *line,
                         const struct rsi_feed_symbol *symbol)
{
    append_head(feed, line, symbol, "trade");
    rsi_text_append(line, ",\"t\":%" PRIu64 ",\"p\":", ++feed->trade_count);
    append_price(line, symbol->price_ticks);
    /* One after the other: compilers differ in the order of a call's arguments. */
    bool is_maker = random_below(feed, 2) == 0;
    uint64_t quantity = 1 + random_below(feed, 500);
    rsi_text_append(line, ",\"q\":%" PRIu64 ",\"m\":%s}", quantity, is_maker ? "true" : "false");
}

static void append_ticker(struct rsi_feed *feed, struct rsi_text *line,
                          const struct rsi_feed_symbol *symbol)
{
    append_head(feed, line, symbol, "bookTicker");
    rsi_text_append(line, ",\"b\":");
    append_price(line, symbol->price_ticks);
    rsi_text_append(line, ",\"B\":%" PRIu64 ",\"a\":", 1 + random_below(feed, 5000));
    append_price(line, symbol->price_ticks + 1 + random_below(feed, 3));
    rsi_text_append(line, ",\"A\":%" PRIu64 "}", 1 + random_below(feed, 5000));
}

static void append_levels(struct rsi_feed *feed, struct rsi_text *line, uint64_t price_ticks,
                          bool is_bid)
{
    uint64_t count = random_below(feed, DEPTH_LEVELS_MAX + 1);
    rsi_text_append(line, ",\"%s\":[", is_bid ? "b" : "a");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t away = 1 + i + random_below(feed, 2);
        uint64_t level = is_bid ? price_ticks - (away < price_ticks ? away : price_ticks - 1)
                                : price_ticks + away;
        rsi_text_append(line, "%s[", i == 0 ? "" : ",");
        append_price(line, level);
        rsi_text_append(line, ",%" PRIu64 "]", random_below(feed, 10000));
    }
    rsi_text_append(line, "]");
}

static void append_depth(struct rsi_feed *feed, struct rsi_text *line,
                         const struct rsi_feed_symbol *symbol)
{
    append_head(feed, line, symbol, "depth");
    append_levels(feed, line, symbol->price_ticks, true);
    append_levels(feed, line, symbol->price_ticks, false);
    rsi_text_append(line, "}");
}

size_t rsi_feed_next(struct rsi_feed *feed, char *line)
{
    struct rsi_text text;
    rsi_text_init(&text, line, RSI_FEED_LINE_BYTES_MAX);
    struct rsi_feed_symbol *symbol = choose_symbol(feed);
    walk_price(feed, symbol);
    symbol->sequence++;
    uint64_t kind = random_below(feed, 10);
    if (kind < 3) {
        append_trade(feed, &text, symbol);
    } else if (kind < 8) {
        append_ticker(feed, &text, symbol);
    } else {
        append_depth(feed, &text, symbol);
    }
    rsi_text_append(&text, "\n");
    rsi_assert(!text.is_cut);
    advance_time(feed);
    return text.length_bytes;
}
