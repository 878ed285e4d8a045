/*
 * ringside feed: writes a generated market-data feed.
 *
 * Design notes
 * - Needs no broker: what it writes is replayed later, so two runs can carry the same messages.
 */
#include "clients/cli/cli.h"
#include "clients/cli/feed.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { KEY_SYMBOLS = 0x4000, KEY_MESSAGES, KEY_SEED, KEY_RATE, KEY_BURSTS };

/* 2024-01-02 09:30 New York: a time that looks like one, and is always the same. */
#define START_NS UINT64_C(1704205800000000000)

struct feed_options {
    struct rsi_feed_options feed;
    uint64_t message_count;
    const char *output; /* NULL: standard output */
};

static const struct argp_option flags[] = {
    {"symbols", KEY_SYMBOLS, "N", 0, "Symbols, 1 to 100000. Default: 100", 0},
    {"messages", KEY_MESSAGES, "N", 0, "Messages. Default: 100000", 0},
    {"seed", KEY_SEED, "N", 0, "The same seed gives the same feed. Default: 1", 0},
    {"rate", KEY_RATE, "N/s", 0, "Mean messages per second of feed time, such as 20k. Default: 10k",
     0},
    {"bursts", KEY_BURSTS, NULL, 0, "Messages come in clusters of 20 to 200 within microseconds",
     0},
    {"output", 'o', "FILE", 0, "Write to FILE. Default: standard output", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct feed_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->feed = (struct rsi_feed_options){
            .symbol_count = 100, .seed = 1, .rate_per_second = 10000, .start_ns = START_NS};
        options->message_count = 100000;
        return 0;
    case KEY_SYMBOLS:
        options->feed.symbol_count =
            rsi_flag_number(state, "--symbols", arg, 1, RSI_FEED_SYMBOL_COUNT_MAX);
        return 0;
    case KEY_MESSAGES:
        options->message_count = rsi_flag_number(state, "--messages", arg, 1, UINT64_MAX);
        return 0;
    case KEY_SEED:
        options->feed.seed = rsi_flag_number(state, "--seed", arg, 0, UINT64_MAX);
        return 0;
    case KEY_RATE:
        options->feed.rate_per_second = rsi_flag_rate(state, "--rate", arg);
        return 0;
    case KEY_BURSTS:
        options->feed.has_bursts = true;
        return 0;
    case 'o':
        options->output = strcmp(arg, "-") == 0 ? NULL : arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s': feed takes no arguments; use --output FILE to write to a file",
                   arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .doc =
        "Writes a generated order-book feed: lines '<nanoseconds> {\"stream\":\"AAAA@trade\",...}' "
        "with streams trade, bookTicker and depth of many symbols.\v"
        "Example:\n"
        "  ringside feed --symbols 500 --messages 200000 --bursts --output feed.jsonl\n"
        "  ringside replay feed.jsonl --template 'md.{/stream}' --flat-out",
};

static int write_feed(struct rsi_feed *feed, const struct feed_options *options, FILE *stream)
{
    const char *name = options->output == NULL ? "standard output" : options->output;
    char line[RSI_FEED_LINE_BYTES_MAX];
    for (uint64_t i = 0; i < options->message_count && !rsi_stop_requested(); i++) {
        size_t bytes = rsi_feed_next(feed, line);
        if (fwrite(line, 1, bytes, stream) != bytes) {
            return rsi_cli_fail("cannot write to %s: %s", name, strerror(errno));
        }
    }
    if (fflush(stream) != 0) {
        return rsi_cli_fail("cannot write to %s: %s", name, strerror(errno));
    }
    return RSI_EXIT_OK;
}

int rsi_command_feed(int argc, char **argv)
{
    struct feed_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    FILE *stream = stdout;
    if (options.output != NULL) {
        stream = fopen(options.output, "we");
        if (stream == NULL) {
            return rsi_cli_fail("cannot write %s: %s", options.output, strerror(errno));
        }
    }
    struct rsi_feed feed;
    struct rsi_error error = {0};
    int code = RSI_EXIT_FAILURE;
    if (rsi_feed_init(&feed, &options.feed, &error) != RSI_OK) {
        rsi_cli_fail("%s", error.text);
    } else {
        code = write_feed(&feed, &options, stream);
    }
    rsi_feed_fini(&feed);
    if (stream != stdout && fclose(stream) != 0 && code == RSI_EXIT_OK) {
        code = rsi_cli_fail("cannot write %s: %s", options.output, strerror(errno));
    }
    return code;
}
