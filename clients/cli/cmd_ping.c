/*
 * ringside ping: one client publishes to itself through the broker.
 *
 * Design notes
 * - The next message is published when the one before came back, so nothing queues: this is the
 * time of an idle way, twice over the client's link and once through the broker.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"
#include "core/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_COUNT = 'n', KEY_SIZE = 0x4000, KEY_INTERVAL, KEY_WARMUP, KEY_SUBJECT, KEY_JSON };

#define MESSAGE_SIZE_MAX (UINT64_C(128) << 20)
#define LOST_AFTER_NS    (5 * RSI_NS_PER_SECOND)

struct ping_options {
    struct rsi_connection_options connection;
    uint64_t message_count;
    uint64_t warmup_count;
    uint64_t size_bytes;
    uint64_t interval_ns;
    const char *subject; /* NULL: one of its own */
    bool is_json;
};

struct ping {
    const struct ping_options *options;
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    uint8_t *payload;
    uint64_t awaited;     /* sequence in the payload; 0: none under way */
    uint64_t returned_ns; /* when it came back */
    uint64_t strange_count;
    struct rsi_histogram round_trip;
};

static const struct argp_option flags[] = {
    {"count", KEY_COUNT, "N", 0, "Round trips that are measured. Default: 1000", 0},
    {"warmup", KEY_WARMUP, "N", 0, "Round trips before those. Default: 100", 0},
    {"size", KEY_SIZE, "SIZE", 0, "Payload, 8 bytes and more, such as 64 or 4KiB. Default: 64", 0},
    {"interval", KEY_INTERVAL, "TIME", 0, "Pause between two, such as 100ms. Default: 0", 0},
    {"subject", KEY_SUBJECT, "SUBJECT", 0,
     "Subject to use. Default: one that is this process's own", 0},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ping_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        options->message_count = 1000;
        options->warmup_count = 100;
        options->size_bytes = 64;
        state->child_inputs[0] = &options->connection;
        return 0;
    case KEY_COUNT:
        options->message_count = rsi_flag_number(state, "--count", arg, 1, UINT32_MAX);
        return 0;
    case KEY_WARMUP:
        options->warmup_count = rsi_flag_number(state, "--warmup", arg, 0, UINT32_MAX);
        return 0;
    case KEY_SIZE:
        options->size_bytes =
            rsi_flag_size(state, "--size", arg, sizeof(uint64_t), MESSAGE_SIZE_MAX);
        return 0;
    case KEY_INTERVAL:
        options->interval_ns = rsi_flag_duration(state, "--interval", arg);
        return 0;
    case KEY_SUBJECT:
        rsi_flag_subject(state, "--subject", arg, false);
        options->subject = arg;
        return 0;
    case KEY_JSON:
        options->is_json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s': ping takes no arguments; --subject and --url say where to", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = flags,
    .parser = parse,
    .children = rsi_connection_children,
    .doc = "Measures the round trip: one client publishes a message, the broker delivers it back "
           "to that "
           "client, then comes the next.\v"
           "Examples:\n"
           "  ringside ping\n"
           "  ringside ping --url tcp://10.0.0.2:7400 --size 1KiB --count 10000 --wait busy",
};

static void on_message(void *arg, const ringside_message_t *message)
{
    struct ping *ping = arg;
    uint64_t sequence = 0;
    if (message->bytes == ping->options->size_bytes) {
        memcpy(&sequence, message->data, sizeof(sequence));
    }
    if (ping->awaited == 0 || sequence != ping->awaited) {
        ping->strange_count++;
        return;
    }
    ping->returned_ns = rsi_clock_now_ns();
    ping->awaited = 0;
}

/* False: lost or the connection is gone; said on standard error. */
static bool go_once(struct ping *ping, uint64_t sequence, bool is_measured)
{
    memcpy(ping->payload, &sequence, sizeof(sequence));
    ping->awaited = sequence;
    uint64_t sent_ns = rsi_clock_now_ns();
    if (!rsi_connection_publish(ping->client, ping->publisher, ping->payload,
                                ping->options->size_bytes)) {
        return false;
    }
    while (ping->awaited != 0) {
        if (ringside_poll(ping->client, 0, RSI_NS_PER_SECOND, NULL) < 0) {
            rsi_cli_fail("%s", ringside_error_text(ping->client));
            return false;
        }
        if (rsi_stop_requested()) {
            return false;
        }
        if (ping->awaited != 0 && rsi_clock_now_ns() - sent_ns > LOST_AFTER_NS) {
            rsi_cli_fail("message %" PRIu64 " did not come back within 5 s", sequence);
            return false;
        }
    }
    if (is_measured) {
        rsi_histogram_record(&ping->round_trip, ping->returned_ns - sent_ns);
    }
    return true;
}

static bool pause_until(struct ping *ping, uint64_t due_ns)
{
    for (;;) {
        uint64_t now_ns = rsi_clock_now_ns();
        if (now_ns >= due_ns || rsi_stop_requested()) {
            return true;
        }
        if (ringside_poll(ping->client, 0, due_ns - now_ns, NULL) < 0) {
            rsi_cli_fail("%s", ringside_error_text(ping->client));
            return false;
        }
    }
}

static int go_all(struct ping *ping)
{
    const struct ping_options *options = ping->options;
    uint64_t total_count = options->warmup_count + options->message_count;
    for (uint64_t i = 0; i < total_count && !rsi_stop_requested(); i++) {
        uint64_t begin_ns = rsi_clock_now_ns();
        if (!go_once(ping, i + 1, i >= options->warmup_count)) {
            return rsi_stop_requested() ? RSI_EXIT_OK : RSI_EXIT_FAILURE;
        }
        if (options->interval_ns > 0 && !pause_until(ping, begin_ns + options->interval_ns)) {
            return RSI_EXIT_FAILURE;
        }
    }
    return RSI_EXIT_OK;
}

static void print_round_trips(const struct ping *ping)
{
    const struct ping_options *options = ping->options;
    const char *transport = ringside_transport(ping->client);
    uint64_t count = ping->round_trip.total_count;
    if (options->is_json) {
        printf("{\"transport\":\"%s\",\"size_bytes\":%" PRIu64
               ",\"round_trip_ns\":{\"count\":%" PRIu64 ",",
               transport, options->size_bytes, count);
        rsi_print_percentiles_json(stdout, &ping->round_trip);
        printf("}}\n");
        return;
    }
    printf("%" PRIu64 " round trips of %" PRIu64 " bytes over %s: ", count, options->size_bytes,
           transport);
    rsi_print_percentiles(stdout, &ping->round_trip);
    printf("\n");
}

static int ping_over_client(struct ping *ping)
{
    const struct ping_options *options = ping->options;
    char own_subject[64];
    snprintf(own_subject, sizeof(own_subject), "ringside.ping.%d", (int)getpid());
    const char *subject = options->subject != NULL ? options->subject : own_subject;
    if (rsi_connection_subscribe(&options->connection, ping->client, subject,
                                 RINGSIDE_POLICY_DEFAULT, on_message, ping) == NULL) {
        return RSI_EXIT_FAILURE;
    }
    ping->publisher =
        rsi_connection_make_publisher(ping->client, subject, options->connection.timeout_ns);
    if (ping->publisher == NULL) {
        return RSI_EXIT_FAILURE;
    }
    int code = go_all(ping);
    print_round_trips(ping);
    if (ping->strange_count > 0) {
        rsi_cli_note("%" PRIu64 " messages of others on %s were passed over", ping->strange_count,
                     subject);
    }
    return code;
}

int rsi_command_ping(int argc, char **argv)
{
    struct ping_options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    rsi_stop_on_signals();
    static struct ping ping;
    ping.options = &options;
    ping.payload = calloc(1, options.size_bytes);
    if (ping.payload == NULL) {
        return rsi_cli_fail("--size: no memory for %" PRIu64 " bytes", options.size_bytes);
    }
    int code = RSI_EXIT_FAILURE;
    ping.client = rsi_connection_open(&options.connection, RSI_CONNECTION_BOTH, NULL, NULL);
    if (ping.client != NULL) {
        code = ping_over_client(&ping);
        int close_code = rsi_connection_close(&options.connection, ping.client);
        code = code != RSI_EXIT_OK ? code : close_code;
    }
    free(ping.payload);
    return code;
}
