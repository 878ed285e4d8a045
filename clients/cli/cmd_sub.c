/*
 * ringside sub: prints what is published.
 *
 * Design notes
 * - Standard output is flushed when a poll handled nothing or a second has passed, not per message:
 * live on a quiet subject, cheap on a busy one.
 * - Latency is the publisher's real-time clock against ours: exact within one host, and only as
 * good as the clocks are set between two.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"
#include "core/clock.h"
#include "core/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_RAW = 0x4000,
    KEY_JSON,
    KEY_QUIET,
    KEY_STATS,
    KEY_POLICY,
    KEY_READY_FD,
    KEY_HEADERS,
    KEY_SEPARATOR,
    KEY_LAST,
    PATTERN_COUNT_MAX = 64,
};

typedef enum sub_format {
    SUB_FORMAT_TEXT,
    SUB_FORMAT_RAW,
    SUB_FORMAT_JSON,
} sub_format_t;

struct sub_options {
    struct rsi_connection_options connection;
    const char *patterns[PATTERN_COUNT_MAX];
    size_t pattern_count;
    sub_format_t format;
    bool is_quiet;
    bool has_stats;
    bool has_headers;
    bool has_separator;
    rsi_framing_t separator; /* after each payload of --raw */
    bool wants_last;
    uint64_t count_limit; /* UINT64_MAX: none */
    ringside_policy_t policy;
    int ready_fd;
};

struct sub {
    const struct sub_options *options;
    ringside_client_t *client;
    uint64_t message_count;
    uint64_t payload_bytes;
    uint64_t gap_count;       /* messages that were left out */
    uint64_t conflated_count; /* messages whose place newer ones took */
    uint64_t first_ns;
    uint64_t latest_ns;
    uint64_t stats_due_ns;
    uint64_t stats_message_count; /* at the last line of figures */
    uint64_t stats_payload_bytes;
    struct rsi_histogram latency;
    struct rsi_histogram interval_latency;
};

static const struct argp_option flags[] = {
    {"raw", KEY_RAW, NULL, 0, "Print the payload alone, as it is, and a separator", 0},
    {"separator", KEY_SEPARATOR, "HOW", 0,
     "With --raw: newline (default), nul, none, or length: before each payload its length in 4 "
     "bytes, most significant first",
     0},
    {"json", KEY_JSON, NULL, 0, "Print a JSON object per message, and figures as JSON", 0},
    {"quiet", 'q', NULL, 0, "Print no messages, only the totals", 0},
    {"count", 'n', "N", 0, "End after N messages. Default: no limit", 0},
    {"stats", KEY_STATS, NULL, 0, "Print rates and latency each second on standard error", 0},
    {"policy", KEY_POLICY, "POLICY", 0,
     "What happens when this subscriber is slow: drop (a counted gap), disconnect, block "
     "(publishers wait), conflate (only the newest of each topic, of those whose last values the "
     "broker keeps). Default: the broker's",
     0},
    {"headers", KEY_HEADERS, NULL, 0,
     "Print each header of a message in a line of its own below it, as \"  NAME: VALUE\"; --json "
     "has them always",
     0},
    {"last", KEY_LAST, NULL, 0,
     "Begin with the last message of each topic of which the broker keeps it (its last_value)", 0},
    {"ready-fd", KEY_READY_FD, "N", 0, "Write \"ready\" to file descriptor N when subscribed", 0},
    {0},
};

static ringside_policy_t read_policy(struct argp_state *state, const char *text)
{
    static const struct {
        const char *name;
        ringside_policy_t policy;
    } policies[] = {{"drop", RINGSIDE_POLICY_DROP},
                    {"disconnect", RINGSIDE_POLICY_DISCONNECT},
                    {"block", RINGSIDE_POLICY_BLOCK},
                    {"conflate", RINGSIDE_POLICY_CONFLATE}};
    for (size_t i = 0; i < rsi_array_count(policies); i++) {
        if (strcmp(policies[i].name, text) == 0) {
            return policies[i].policy;
        }
    }
    argp_error(state, "--policy: '%s' is not known; use drop, disconnect, block or conflate", text);
    return RINGSIDE_POLICY_DEFAULT;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sub_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->count_limit = UINT64_MAX;
        options->ready_fd = -1;
        state->child_inputs[0] = &options->connection;
        return 0;
    case KEY_RAW:
        if (options->format == SUB_FORMAT_JSON) {
            argp_error(state, "--raw and --json exclude each other");
        }
        options->format = SUB_FORMAT_RAW;
        return 0;
    case KEY_JSON:
        if (options->format == SUB_FORMAT_RAW) {
            argp_error(state, "--raw and --json exclude each other");
        }
        options->format = SUB_FORMAT_JSON;
        return 0;
    case 'q':
        options->is_quiet = true;
        return 0;
    case 'n':
        options->count_limit = rsi_flag_number(state, "--count", arg, 1, UINT64_MAX);
        return 0;
    case KEY_STATS:
        options->has_stats = true;
        return 0;
    case KEY_POLICY:
        options->policy = read_policy(state, arg);
        return 0;
    case KEY_READY_FD:
        options->ready_fd = (int)rsi_flag_number(state, "--ready-fd", arg, 0, 1 << 20);
        return 0;
    case KEY_LAST:
        options->wants_last = true;
        return 0;
    case KEY_HEADERS:
        options->has_headers = true;
        return 0;
    case KEY_SEPARATOR:
        options->separator = rsi_flag_framing(state, arg, true);
        options->has_separator = true;
        return 0;
    case ARGP_KEY_ARG:
        rsi_flag_subject(state, "PATTERN", arg, true);
        if (options->pattern_count == PATTERN_COUNT_MAX) {
            argp_error(state, "more than %d patterns", PATTERN_COUNT_MAX);
        }
        options->patterns[options->pattern_count++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->pattern_count == 0) {
            argp_error(state, "PATTERN is missing, such as 'md.>' or md.*.AAPL");
        }
        if (options->has_headers && options->format == SUB_FORMAT_RAW) {
            argp_error(state, "--raw and --headers exclude each other");
        }
        if (options->has_separator && options->format != SUB_FORMAT_RAW) {
            argp_error(state, "--separator is for --raw");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .children = rsi_connection_children,
    .args_doc = "PATTERN...",
    .doc = "Prints what is published on subjects that match a PATTERN: * stands for one token, a "
           "last > "
           "for one or more. A line is the subject and the payload, other than printable bytes as "
           "\\xHH. A message that several patterns match is printed once for each.\v"
           "Examples:\n"
           "  ringside sub 'md.>'\n"
           "  ringside sub 'md.*.AAPL' --json --count 10\n"
           "  ringside sub orders.new --raw --separator nul | xargs -0 -n1 echo\n"
           "  ringside sub 'md.>' --quiet --stats --policy block\n"

           "  ringside sub 'state.>' --last",
};

static void print_bytes(const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if ((data[i] >= 0x20 && data[i] != 0x7f) || data[i] == '\t') {
            putchar(data[i]);
        } else {
            printf("\\x%02x", data[i]);
        }
    }
    putchar('\n');
}

static void print_text(const ringside_message_t *message, bool has_headers)
{
    fwrite(message->subject, 1, message->subject_bytes, stdout);
    putchar(' ');
    print_bytes(message->data, message->bytes);
    ringside_header_t header;
    size_t cursor = 0;
    while (has_headers && ringside_header_next(message, &cursor, &header)) {
        printf("  %s: ", header.name);
        print_bytes(header.value, header.value_bytes);
    }
}

static void base64_write(const uint8_t *data, size_t bytes, char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes; i += 3) {
        size_t held = bytes - i < 3 ? bytes - i : 3;
        uint32_t group = (uint32_t)data[i] << 16;
        group |= held > 1 ? (uint32_t)data[i + 1] << 8 : 0;
        group |= held > 2 ? data[i + 2] : 0;
        *text++ = digits[group >> 18];
        *text++ = digits[group >> 12 & 63];
        *text++ = held > 1 ? digits[group >> 6 & 63] : '=';
        *text++ = held > 2 ? digits[group & 63] : '=';
    }
    *text = '\0';
}

/* Text stays text; bytes that are not UTF-8 become "NAME_base64". */
static void set_bytes(json_t *object, const char *name, const void *data, size_t bytes)
{
    json_t *text = json_stringn(data, bytes);
    if (text != NULL) {
        json_object_set_new(object, name, text);
        return;
    }
    char *encoded = malloc(bytes / 3 * 4 + 5);
    if (encoded != NULL) {
        char encoded_name[32];
        snprintf(encoded_name, sizeof(encoded_name), "%s_base64", name);
        base64_write(data, bytes, encoded);
        json_object_set_new(object, encoded_name, json_string(encoded));
    }
    free(encoded);
}

/* In their order; a name may come twice. */
static void set_headers(json_t *object, const ringside_message_t *message)
{
    json_t *list = json_array();
    ringside_header_t header;
    size_t cursor = 0;
    while (ringside_header_next(message, &cursor, &header)) {
        json_t *one = json_pack("{s:s}", "name", header.name);
        if (one != NULL) {
            set_bytes(one, "value", header.value, header.value_bytes);
            json_array_append_new(list, one);
        }
    }
    json_object_set_new(object, "headers", list);
}

static void print_json(const ringside_message_t *message)
{
    json_t *object =
        json_pack("{s:s, s:I, s:I, s:s, s:I, s:I}", "subject", message->subject, "sequence",
                  (json_int_t)message->sequence, "time_ns", (json_int_t)message->publish_time_ns,
                  "publisher", message->publisher, "publication", (json_int_t)message->publication,
                  "bytes", (json_int_t)message->bytes);
    if (object == NULL) {
        rsi_cli_fail("a message of %s cannot be written as JSON: its subject or publisher is not "
                     "UTF-8",
                     message->subject);
        return;
    }
    if (message->header_count > 0) {
        set_headers(object, message);
    }
    if (message->is_last) {
        json_object_set_new(object, "last", json_true());
    }
    set_bytes(object, "data", message->data, message->bytes);
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

static void print_raw(const ringside_message_t *message, rsi_framing_t separator)
{
    if (separator == RSI_FRAMING_LENGTH) {
        uint32_t length = htonl((uint32_t)message->bytes);
        fwrite(&length, sizeof(length), 1, stdout);
    }
    fwrite(message->data, 1, message->bytes, stdout);
    if (separator == RSI_FRAMING_NEWLINE) {
        putchar('\n');
    } else if (separator == RSI_FRAMING_NUL) {
        putchar('\0');
    }
}

static void on_message(void *arg, const ringside_message_t *message)
{
    struct sub *sub = arg;
    if (sub->message_count >= sub->options->count_limit) {
        return;
    }
    uint64_t now_ns = rsi_clock_realtime_ns();
    uint64_t latency_ns = now_ns > message->publish_time_ns ? now_ns - message->publish_time_ns : 0;
    rsi_histogram_record(&sub->latency, latency_ns);
    rsi_histogram_record(&sub->interval_latency, latency_ns);
    sub->first_ns = sub->message_count == 0 ? now_ns : sub->first_ns;
    sub->latest_ns = now_ns;
    sub->message_count++;
    sub->payload_bytes += message->bytes;
    if (sub->options->is_quiet) {
        return;
    }
    switch (sub->options->format) {
    case SUB_FORMAT_TEXT:
        print_text(message, sub->options->has_headers);
        return;
    case SUB_FORMAT_RAW:
        print_raw(message, sub->options->separator);
        return;
    case SUB_FORMAT_JSON:
        print_json(message);
        return;
    }
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct sub *sub = arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        sub->gap_count += event->count == UINT64_MAX ? 1 : event->count;
    }
    if (event->type == RINGSIDE_EVENT_CONFLATED) {
        sub->conflated_count += event->count;
    }
    rsi_connection_tell_event(NULL, event);
}

static void print_figures_json(FILE *stream, const struct sub *sub, uint64_t message_count,
                               uint64_t payload_bytes, uint64_t elapsed_ns,
                               const struct rsi_histogram *latency)
{
    fprintf(stream,
            "{\"messages\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"gap_messages\":%" PRIu64
            ",\"conflated_messages\":%" PRIu64 ",\"elapsed_ns\":%" PRIu64
            ",\"messages_per_second\":%.1f,\"transport\":\"%s\"",
            message_count, payload_bytes, sub->gap_count, sub->conflated_count, elapsed_ns,
            rsi_per_second(message_count, elapsed_ns), ringside_transport(sub->client));
    fprintf(stream, ",\"latency_ns\":{");
    rsi_print_percentiles_json(stream, latency);
    fprintf(stream, "}}\n");
    fflush(stream);
}

static void show_stats(struct sub *sub, uint64_t now_ns)
{
    if (now_ns < sub->stats_due_ns) {
        return;
    }
    uint64_t elapsed_ns = now_ns - (sub->stats_due_ns - RSI_NS_PER_SECOND);
    uint64_t message_count = sub->message_count - sub->stats_message_count;
    uint64_t payload_bytes = sub->payload_bytes - sub->stats_payload_bytes;
    if (sub->options->format == SUB_FORMAT_JSON) {
        print_figures_json(stderr, sub, message_count, payload_bytes, elapsed_ns,
                           &sub->interval_latency);
    } else {
        fprintf(stderr, "%s msg/s  %s/s  left out %" PRIu64 "  ",
                rsi_figure_count(rsi_per_second(message_count, elapsed_ns)).text,
                rsi_figure_bytes(rsi_per_second(payload_bytes, elapsed_ns)).text, sub->gap_count);
        rsi_print_percentiles(stderr, &sub->interval_latency);
        fputc('\n', stderr);
    }
    rsi_histogram_reset(&sub->interval_latency);
    sub->stats_message_count = sub->message_count;
    sub->stats_payload_bytes = sub->payload_bytes;
    sub->stats_due_ns = now_ns + RSI_NS_PER_SECOND;
}

static int receive(struct sub *sub)
{
    const struct sub_options *options = sub->options;
    uint64_t flush_due_ns = 0;
    sub->stats_due_ns = rsi_clock_now_ns() + RSI_NS_PER_SECOND;
    while (!rsi_stop_requested() && sub->message_count < options->count_limit) {
        uint64_t left_count = options->count_limit - sub->message_count;
        size_t limit = options->count_limit == UINT64_MAX ? 0 : (size_t)left_count;
        size_t handled = 0;
        ringside_status_t status = ringside_poll(sub->client, limit, RSI_NS_PER_SECOND, &handled);
        uint64_t now_ns = rsi_clock_now_ns();
        if (handled < 16 || now_ns >= flush_due_ns) {
            if (fflush(stdout) != 0) {
                return rsi_cli_fail("cannot write to standard output: %s", strerror(errno));
            }
            flush_due_ns = now_ns + RSI_NS_PER_SECOND / 10;
        }
        if (options->has_stats) {
            show_stats(sub, now_ns);
        }
        /* What ended the connection was told by its event. */
        if (status < 0) {
            return RSI_EXIT_FAILURE;
        }
    }
    return RSI_EXIT_OK;
}

static void print_totals(struct sub *sub)
{
    fflush(stdout);
    uint64_t elapsed_ns = sub->latest_ns - sub->first_ns;
    if (sub->options->format == SUB_FORMAT_JSON) {
        FILE *stream = sub->options->is_quiet ? stdout : stderr;
        print_figures_json(stream, sub, sub->message_count, sub->payload_bytes, elapsed_ns,
                           &sub->latency);
        return;
    }
    fprintf(stderr,
            "received %" PRIu64 " messages, %" PRIu64 " bytes, in %.3f s: %s msg/s, %s/s; left "
            "out %" PRIu64 "\n",
            sub->message_count, sub->payload_bytes, (double)elapsed_ns / 1e9,
            rsi_figure_count(rsi_per_second(sub->message_count, elapsed_ns)).text,
            rsi_figure_bytes(rsi_per_second(sub->payload_bytes, elapsed_ns)).text, sub->gap_count);
    if (sub->conflated_count > 0) {
        fprintf(stderr, "newer messages took the place of %" PRIu64 "\n", sub->conflated_count);
    }
    if (sub->message_count > 0) {
        fprintf(stderr, "latency: ");
        rsi_print_percentiles(stderr, &sub->latency);
        fputc('\n', stderr);
    }
    rsi_print_link_stats(stderr, sub->client, sub->message_count);
}

static int receive_over_client(struct sub *sub)
{
    const struct sub_options *options = sub->options;
    const ringside_subscribe_options_t subscribe_options = {.policy = options->policy,
                                                            .last = options->wants_last};
    for (size_t i = 0; i < options->pattern_count; i++) {
        if (rsi_connection_subscribe_with(&options->connection, sub->client, options->patterns[i],
                                          &subscribe_options, on_message, sub) == NULL) {
            return RSI_EXIT_FAILURE;
        }
    }
    rsi_tell_ready(options->ready_fd, false);
    int code = receive(sub);
    print_totals(sub);
    return code;
}

int rsi_command_sub(int argc, char **argv)
{
    struct sub_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    static struct sub sub;
    sub.options = &options;
    sub.client =
        rsi_connection_open(&options.connection, RSI_CONNECTION_SUBSCRIBES, on_event, &sub);
    if (sub.client == NULL) {
        return RSI_EXIT_FAILURE;
    }
    int code = receive_over_client(&sub);
    int close_code = rsi_connection_close(&options.connection, sub.client);
    return code != RSI_EXIT_OK ? code : close_code;
}
