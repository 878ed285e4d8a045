/*
 * ringside pub: publishes messages given as arguments, as lines, or generated.
 *
 * Design notes
 * - One source of messages (next_message) whatever they come from; the loop paces and publishes.
 * - Standard input may be a terminal or a slow pipe. While it waits for a line the client is not
 * polled, so everything is flushed first when no further line is at hand.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"
#include "core/clock.h"
#include "proto/headers.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_RATE = 0x4000, KEY_SIZE, KEY_HEADER, HEADER_COUNT_MAX = 64 };

#define AWAKE_NS         UINT64_C(100000)
#define MESSAGE_SIZE_MAX (UINT64_C(128) << 20)

struct pub_options {
    struct rsi_connection_options connection;
    const char *subject;
    char **messages;
    size_t message_count;
    const char *input; /* lines of this file; NULL: none */
    uint64_t repeat_count;
    bool has_repeat_count;
    double rate_per_second; /* 0: as fast as it goes */
    uint64_t size_bytes;
    bool is_generated;
    ringside_header_t headers[HEADER_COUNT_MAX]; /* of every message */
    size_t header_count;
};

struct pub {
    const struct pub_options *options;
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    FILE *lines;
    char *line;
    size_t line_room_bytes;
    uint8_t *generated;
    struct rsi_progress progress;
    uint64_t start_ns;
    uint64_t published_count;
    uint64_t published_bytes;
};

static const struct argp_option flags[] = {
    {"input", 'i', "FILE", 0,
     "Publish each line of FILE; - is standard input. Default without "
     "MESSAGE: -",
     0},
    {"count", 'n', "N", 0, "Publish the messages, or the generated one, N times. Default: 1", 0},
    {"rate", KEY_RATE, "N/s", 0, "Messages per second, such as 10, 5k or 1M. Default: no limit", 0},
    {"size", KEY_SIZE, "SIZE", 0, "Publish generated messages of this size, such as 64 or 4KiB", 0},
    {"header", KEY_HEADER, "NAME:VALUE", 0,
     "Publish each message with this header; may be given several times", 0},
    {0},
};

/* "NAME:VALUE", taken as it stands in argv. */
static void read_header(struct argp_state *state, struct pub_options *options, char *text)
{
    char *colon = strchr(text, ':');
    size_t at = 0;
    if (colon == NULL) {
        argp_error(state, "--header: '%s' has no ':'; use NAME:VALUE, such as trace-id:4711", text);
        return;
    }
    const char *wrong = rsi_header_name_check(text, (size_t)(colon - text), &at);
    if (wrong != NULL) {
        argp_error(state,
                   "--header: the name in '%s' %s (at byte %zu); use NAME:VALUE, such as "
                   "trace-id:4711",
                   text, wrong, at);
        return;
    }
    if (options->header_count == HEADER_COUNT_MAX) {
        argp_error(state, "more than %d times --header", HEADER_COUNT_MAX);
        return;
    }
    *colon = '\0';
    options->headers[options->header_count++] =
        (ringside_header_t){.name = text, .value = colon + 1, .value_bytes = strlen(colon + 1)};
}

static void finish_options(struct argp_state *state, struct pub_options *options)
{
    if (options->subject == NULL) {
        argp_error(state, "SUBJECT is missing, such as md.XNAS.AAPL");
    }
    int source_count =
        (options->message_count > 0) + (options->input != NULL) + options->is_generated;
    if (source_count > 1) {
        argp_error(state, "MESSAGE, --input and --size exclude each other");
    }
    if (source_count == 0) {
        options->input = "-";
    }
    if (options->input != NULL && options->has_repeat_count) {
        argp_error(state, "--count repeats MESSAGE or --size; lines of --input are published once");
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct pub_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->repeat_count = 1;
        state->child_inputs[0] = &options->connection;
        return 0;
    case 'i':
        options->input = arg;
        return 0;
    case 'n':
        options->repeat_count = rsi_flag_number(state, "--count", arg, 1, UINT64_MAX);
        options->has_repeat_count = true;
        return 0;
    case KEY_RATE:
        options->rate_per_second = rsi_flag_rate(state, "--rate", arg);
        return 0;
    case KEY_SIZE:
        options->size_bytes = rsi_flag_size(state, "--size", arg, 0, MESSAGE_SIZE_MAX);
        options->is_generated = true;
        return 0;
    case KEY_HEADER:
        read_header(state, options, arg);
        return 0;
    case ARGP_KEY_ARG:
        if (options->subject == NULL) {
            rsi_flag_subject(state, "SUBJECT", arg, false);
            options->subject = arg;
            return 0;
        }
        /* The rest are messages: taken as they stand in argv. */
        options->messages = &state->argv[state->next - 1];
        options->message_count = (size_t)state->argc - (size_t)state->next + 1;
        state->next = state->argc;
        return 0;
    case ARGP_KEY_END:
        finish_options(state, options);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .children = rsi_connection_children,
    .args_doc = "SUBJECT [MESSAGE...]",
    .doc = "Publishes on SUBJECT: each MESSAGE, or the lines of standard input.\v"
           "Examples:\n"
           "  ringside pub md.XNAS.AAPL '{\"price\": 187.2}'\n"
           "  ringside pub orders.new --header trace-id:4711 'buy 100'\n"
           "  tail -f prices.txt | ringside pub md.prices\n"
           "  ringside pub load.test --size 64 --count 1000000 --rate 100k",
};

/* Before waiting for a line that is not there yet, what was published is sent. A failure shows at
 * the next publish. */
static void flush_before_waiting(struct pub *pub)
{
    struct pollfd waiting = {.fd = fileno(pub->lines), .events = POLLIN};
    if (poll(&waiting, 1, 0) != 0) {
        return;
    }
    ringside_status_t status = ringside_flush(pub->client, pub->options->connection.timeout_ns);
    if (status != RINGSIDE_OK) {
        rsi_cli_note("flushing: %s", ringside_error_text(pub->client));
    }
}

/* False at the end. */
static bool next_message(struct pub *pub, const void **data, size_t *bytes)
{
    const struct pub_options *options = pub->options;
    if (options->is_generated) {
        *data = pub->generated;
        *bytes = options->size_bytes;
        return pub->published_count < options->repeat_count;
    }
    if (options->message_count > 0) {
        const char *message = options->messages[pub->published_count % options->message_count];
        *data = message;
        *bytes = strlen(message);
        return pub->published_count / options->message_count < options->repeat_count;
    }
    flush_before_waiting(pub);
    ssize_t line_bytes = getline(&pub->line, &pub->line_room_bytes, pub->lines);
    if (line_bytes < 0) {
        return false;
    }
    if (line_bytes > 0 && pub->line[line_bytes - 1] == '\n') {
        line_bytes--;
    }
    *data = pub->line;
    *bytes = (size_t)line_bytes;
    return true;
}

/* Waits until it is time for the next message. False: the connection is gone. */
static bool keep_pace(struct pub *pub)
{
    double offset_ns = (double)pub->published_count * 1e9 / pub->options->rate_per_second;
    uint64_t intended_ns = pub->start_ns + (uint64_t)offset_ns;
    for (;;) {
        uint64_t now_ns = rsi_clock_now_ns();
        if (now_ns >= intended_ns || rsi_stop_requested()) {
            return true;
        }
        uint64_t left_ns = intended_ns - now_ns;
        uint64_t sleep_ns = left_ns > AWAKE_NS ? left_ns - AWAKE_NS : 0;
        if (sleep_ns > RSI_NS_PER_SECOND) {
            sleep_ns = RSI_NS_PER_SECOND;
        }
        if (ringside_poll(pub->client, 0, sleep_ns, NULL) < 0) {
            rsi_cli_fail("%s", ringside_error_text(pub->client));
            return false;
        }
    }
}

static int publish_all(struct pub *pub)
{
    const void *data = NULL;
    size_t bytes = 0;
    pub->start_ns = rsi_clock_now_ns();
    rsi_progress_init(&pub->progress, pub->start_ns);
    while (!rsi_stop_requested() && next_message(pub, &data, &bytes)) {
        if (pub->options->rate_per_second > 0 && !keep_pace(pub)) {
            return RSI_EXIT_FAILURE;
        }
        if (rsi_stop_requested()) {
            break;
        }
        if (!rsi_connection_publish_with(pub->client, pub->publisher, pub->options->headers,
                                         pub->options->header_count, data, bytes)) {
            return rsi_stop_requested() ? RSI_EXIT_OK : RSI_EXIT_FAILURE;
        }
        pub->published_count++;
        pub->published_bytes += bytes;
        if ((pub->published_count & 255) == 0 &&
            rsi_progress_is_due(&pub->progress, rsi_clock_now_ns())) {
            rsi_progress_show(&pub->progress, "%s messages",
                              rsi_figure_count((double)pub->published_count).text);
        }
    }
    if (pub->lines != NULL && ferror(pub->lines) != 0 && !rsi_stop_requested()) {
        return rsi_cli_fail("cannot read %s: %s", pub->options->input, strerror(errno));
    }
    return RSI_EXIT_OK;
}

static void print_totals(struct pub *pub)
{
    uint64_t elapsed_ns = rsi_clock_now_ns() - pub->start_ns;
    fprintf(stderr,
            "published %" PRIu64 " messages, %" PRIu64 " bytes, in %.3f s: %s msg/s, %s/s\n",
            pub->published_count, pub->published_bytes, (double)elapsed_ns / 1e9,
            rsi_figure_count(rsi_per_second(pub->published_count, elapsed_ns)).text,
            rsi_figure_bytes(rsi_per_second(pub->published_bytes, elapsed_ns)).text);
    rsi_print_link_stats(stderr, pub->client, pub->published_count);
}

static int publish_over_client(struct pub *pub)
{
    const struct pub_options *options = pub->options;
    ringside_status_t status = ringside_publisher_create(
        &pub->publisher, pub->client, options->subject, options->connection.timeout_ns);
    if (status != RINGSIDE_OK) {
        return rsi_cli_fail("publisher on %s: %s (%s)", options->subject,
                            ringside_error_text(pub->client), ringside_status_name(status));
    }
    int code = publish_all(pub);
    status = ringside_flush(pub->client, options->connection.timeout_ns);
    rsi_progress_end(&pub->progress);
    if (status != RINGSIDE_OK && code == RSI_EXIT_OK) {
        code = rsi_cli_fail("the last messages did not arrive at the broker: %s (%s)",
                            ringside_error_text(pub->client), ringside_status_name(status));
    }
    print_totals(pub);
    return code;
}

static int open_source(struct pub *pub)
{
    const struct pub_options *options = pub->options;
    if (options->input != NULL) {
        pub->lines = strcmp(options->input, "-") == 0 ? stdin : fopen(options->input, "re");
        if (pub->lines == NULL) {
            return rsi_cli_fail("--input: cannot open %s: %s", options->input, strerror(errno));
        }
    }
    if (options->is_generated) {
        pub->generated = malloc(options->size_bytes + 1);
        if (pub->generated == NULL) {
            return rsi_cli_fail("--size: no memory for %" PRIu64 " bytes", options->size_bytes);
        }
        for (uint64_t i = 0; i < options->size_bytes; i++) {
            pub->generated[i] = (uint8_t)('a' + i % 26);
        }
    }
    return RSI_EXIT_OK;
}

int rsi_command_pub(int argc, char **argv)
{
    struct pub_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    struct pub pub = {.options = &options};
    int code = open_source(&pub);
    if (code == RSI_EXIT_OK) {
        pub.client = rsi_connection_open(&options.connection, RSI_CONNECTION_PUBLISHES, NULL, NULL);
        code = pub.client == NULL ? RSI_EXIT_FAILURE : publish_over_client(&pub);
    }
    if (pub.client != NULL) {
        int close_code = rsi_connection_close(&options.connection, pub.client);
        code = code != RSI_EXIT_OK ? code : close_code;
    }
    if (pub.lines != NULL && pub.lines != stdin) {
        fclose(pub.lines);
    }
    free(pub.line);
    free(pub.generated);
    return code;
}
