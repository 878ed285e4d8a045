/*
 * One link, without a broker: what the seam itself costs, to hold against the bare device.
 *
 *     link_alone serve --url URL [...]      listens there; answers until the peer is gone
 *     link_alone measure --url URL [...]    round trips of 64 bytes, then one way of some sizes
 *
 * Both ends are busy: they poll and never sleep. One line per measurement on standard output;
 * --json: one object per line. Nothing fails on a rate: only silence of 20 s does.
 *
 * Design notes
 * - One thread is control thread and owner thread. While it measures it looks at the control plane
 *   now and then only, as a client does.
 * - A message is a frame of proto/layout.h whose publication says what is wanted, so that its bytes
 *   are those of a message from a client. The receiver checks each frame, as a client does.
 */
#include "core/clock.h"
#include "core/histogram.h"
#include "transport/dpdk_options.h"
#include "transport/frame.h"

#include <argp.h>
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANG_NS UINT64_C(20000000000)

enum {
    RING_BYTES = 2 << 20,
    WARM_UP_COUNT = 1000,
    PING_BYTES = 64,
    PASSES_PER_CONTROL = 4096,
};
enum kind { KIND_PING = 1, KIND_DATA, KIND_REPORT };

/* The beginning of each payload. */
struct message {
    uint64_t number;     /* of a question and its answer; of DATA: which run it belongs to */
    uint64_t count;      /* in an answer to REPORT: messages of the newest run */
    uint64_t elapsed_ns; /* from the first of them to the last */
};

struct options {
    struct rsi_dpdk_options device;
    const char *command;
    const char *url;
    uint64_t round_count;
    uint64_t milliseconds;
    bool as_json;
};

static const struct rsi_transport *transport;
static struct rsi_domain *domain;
static struct rsi_poller *poller;
static struct rsi_listener *listener;
static struct rsi_link *link;

/* ---- the link ----------------------------------------------------------------------------------
 */

static void control(void)
{
    uint64_t now_ns = rsi_clock_now_ns();
    struct rsi_error error = {0};
    (void)transport->domain_poll_control(domain, now_ns);
    if (link == NULL && listener != NULL) {
        rsi_status_t status =
            transport->link_accept(&link, listener, RSI_POLLER_ONLY(poller), &error);
        if (status != RSI_OK && status != RSI_WOULD_BLOCK) {
            errx(1, "%s", error.text);
        }
    }
    if (link != NULL) {
        transport->link_poll_control(link, now_ns);
    }
}

/* Polls; false: the link is over. */
static bool pass(void)
{
    static uint32_t count;
    (void)rsi_poller_poll(poller, rsi_clock_now_ns());
    if (++count % PASSES_PER_CONTROL == 0) {
        control();
    }
    return rsi_link_state(link) == RSI_LINK_ATTACHED;
}

static void await_state(enum rsi_link_state wanted)
{
    uint64_t end_ns = rsi_clock_now_ns() + HANG_NS;
    while (link == NULL || rsi_link_state(link) != wanted) {
        (void)rsi_poller_poll(poller, rsi_clock_now_ns());
        control();
        if (link != NULL && rsi_link_state(link) == RSI_LINK_LOST) {
            errx(1, "%s", link->error.text);
        }
        if (rsi_clock_now_ns() > end_ns) {
            errx(1, "the link is not %s after 20 s", rsi_link_state_name(wanted));
        }
    }
}

static void open_link(const struct options *options, bool serves)
{
    struct rsi_error error = {0};
    struct rsi_url url;
    if (rsi_url_parse(&url, options->url, &error) != RSI_OK) {
        errx(2, "--url: %s", error.text);
    }
    transport = rsi_transport_find(url.scheme);
    if (transport == NULL) {
        errx(2, "--url: no transport is called %s", url.scheme);
    }
    const struct rsi_domain_options domain_options = {
        .node = RSI_NODE_ANY,
        .incarnation = serves ? 2 : 1,
        .dpdk = options->device.port != NULL ? &options->device : NULL,
    };
    const struct rsi_poller_options poller_options = {.link_count_max = 1};
    const struct rsi_link_rings rings = {.out_bytes = RING_BYTES, .in_bytes = RING_BYTES};
    if (transport->domain_create(&domain, &domain_options, &error) != RSI_OK ||
        transport->poller_create(&poller, domain, &poller_options, &error) != RSI_OK ||
        (serves ? transport->listener_create(&listener, domain, &url, &error)
                : transport->link_dial(&link, poller, &url, &error)) != RSI_OK) {
        errx(1, "%s", error.text);
    }
    if (serves) {
        puts("ready");
        fflush(stdout);
    }
    await_state(RSI_LINK_OPEN);
    if (transport->link_attach(link, &rings, &error) != RSI_OK) {
        errx(1, "%s", error.text);
    }
    await_state(RSI_LINK_ATTACHED);
}

static void close_link(void)
{
    if (listener != NULL) {
        transport->listener_destroy(listener);
        listener = NULL;
    }
    transport->link_close(link);
    await_state(RSI_LINK_CLOSED);
    transport->link_destroy(link);
    transport->poller_destroy(poller);
    transport->domain_destroy(domain);
}

/* False: no room. */
static bool stage(enum kind kind, uint32_t payload_bytes, const struct message *message)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(link, frame_bytes);
    if (header == NULL) {
        return false;
    }
    uint8_t *payload = (uint8_t *)(header + 1);
    header->payload_bytes = payload_bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->flags = 0;
    header->headers_bytes = 0;
    header->publication = kind;
    header->generation = 0;
    header->entry_count = 0;
    header->sequence = message->number;
    header->publish_time_ns = 0;
    memcpy(payload, message, sizeof(*message));
    memset(payload + sizeof(*message), (int)message->number, payload_bytes - sizeof(*message));
    rsi_frame_commit(link, frame_bytes);
    return true;
}

/* Of a question or an answer: alone, at once. */
static void send_one(enum kind kind, const struct message *message)
{
    while (!stage(kind, PING_BYTES, message)) {
        if (!pass()) {
            errx(1, "the link ended: %s", link->error.text);
        }
    }
    rsi_link_place(link);
    (void)rsi_link_flush(link); /* WOULD_BLOCK: poll goes on with it */
}

/* The frame at `pos`, which has arrived. Returns where the next begins. */
static uint64_t read_frame(uint64_t pos, struct rsi_frame *frame, struct message *message)
{
    const char *why = "";
    if (rsi_frame_read(&link->in, pos, link->arrived_pos, frame, &why) != RSI_OK ||
        frame->header.payload_bytes < sizeof(*message)) {
        errx(1, "a frame that cannot be read: %s", why);
    }
    memcpy(message, frame->payload, sizeof(*message));
    return pos + frame->frame_bytes;
}

/* ---- serve -------------------------------------------------------------------------------------
 */

struct tally {
    uint64_t run;
    uint64_t count;
    uint64_t first_ns;
    uint64_t last_ns;
};

static void answer(enum kind kind, struct message *message, struct tally *tally, uint64_t now_ns)
{
    if (kind == KIND_DATA) {
        if (tally->run != message->number) {
            *tally = (struct tally){.run = message->number, .first_ns = now_ns};
        }
        tally->count++;
        tally->last_ns = now_ns;
        return;
    }
    if (kind == KIND_REPORT) {
        message->count = tally->count;
        message->elapsed_ns = tally->last_ns - tally->first_ns;
    }
    send_one(kind, message);
}

static void serve(void)
{
    struct tally tally = {0};
    struct rsi_frame frame;
    struct message message;
    while (pass()) {
        uint64_t pos = link->consumed_pos;
        uint64_t now_ns = pos != link->arrived_pos ? rsi_clock_now_ns() : 0;
        while (pos != link->arrived_pos) {
            pos = read_frame(pos, &frame, &message);
            answer((enum kind)frame.header.publication, &message, &tally, now_ns);
        }
        if (pos != link->consumed_pos) {
            rsi_link_consume(link, pos - link->consumed_pos);
        }
    }
}

/* ---- measure -----------------------------------------------------------------------------------
 */

static void ask(enum kind kind, uint64_t number, struct message *given)
{
    struct rsi_frame frame;
    uint64_t end_ns = rsi_clock_now_ns() + HANG_NS;
    send_one(kind, &(struct message){.number = number});
    while (link->arrived_pos == link->consumed_pos) {
        if (!pass()) {
            errx(1, "the link ended: %s", link->error.text);
        }
        if (rsi_clock_now_ns() > end_ns) {
            errx(1, "no answer for 20 s");
        }
    }
    (void)read_frame(link->consumed_pos, &frame, given);
    if (given->number != number) {
        errx(1, "question %" PRIu64 " got the answer to %" PRIu64, number, given->number);
    }
    rsi_link_consume(link, frame.frame_bytes);
}

static void measure_round_trips(const struct options *options)
{
    static struct rsi_histogram latency;
    struct message given;
    rsi_histogram_reset(&latency);
    for (uint64_t i = 0; i < WARM_UP_COUNT; i++) {
        ask(KIND_PING, i, &given);
    }
    for (uint64_t i = 0; i < options->round_count; i++) {
        uint64_t began_ns = rsi_clock_now_ns();
        ask(KIND_PING, WARM_UP_COUNT + i, &given);
        rsi_histogram_record(&latency, rsi_clock_now_ns() - began_ns);
    }
    printf(options->as_json ? "{\"transport\": \"%s\", \"what\": \"round trip\", \"bytes\": %d, "
                              "\"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64 "}\n"
                            : "%s: round trip of %d bytes: p50 %" PRIu64 " ns, p99 %" PRIu64
                              " ns\n",
           transport->name, PING_BYTES, rsi_histogram_percentile(&latency, 50),
           rsi_histogram_percentile(&latency, 99));
}

static uint64_t flood(uint32_t payload_bytes, uint64_t run, uint64_t duration_ns)
{
    const struct message message = {.number = run};
    uint64_t sent = 0;
    uint64_t end_ns = rsi_clock_now_ns() + duration_ns;
    while (rsi_clock_now_ns() < end_ns) {
        /* As much as a client publishes before it polls. */
        while (link->staged_pos - link->placed_pos < RSI_FLUSH_BYTES &&
               stage(KIND_DATA, payload_bytes, &message)) {
            sent++;
        }
        if (link->staged_pos != link->placed_pos) {
            rsi_link_place(link);
        }
        (void)rsi_link_flush_clocked(link);
        if (!pass()) {
            errx(1, "the link ended: %s", link->error.text);
        }
    }
    return sent;
}

static void measure_one_way(const struct options *options, uint32_t payload_bytes)
{
    static uint64_t run;
    struct message given;
    run++;
    uint64_t sends = rsi_load_relaxed(&link->stats.sends);
    uint64_t sent = flood(payload_bytes, run, options->milliseconds * 1000000);
    ask(KIND_REPORT, run, &given); /* behind all of them */
    if (given.count != sent) {
        errx(1, "%" PRIu64 " messages sent, %" PRIu64 " came", sent, given.count);
    }
    sends = rsi_load_relaxed(&link->stats.sends) - sends;
    double seconds = (double)given.elapsed_ns * 1e-9;
    double rate = seconds > 0 ? (double)given.count / seconds : 0;
    printf(options->as_json
               ? "{\"transport\": \"%s\", \"what\": \"one way\", \"bytes\": %" PRIu32
                 ", \"messages_per_s\": %.0f, \"bytes_per_s\": %.0f, \"sends\": %" PRIu64 "}\n"
               : "%s: one way, %" PRIu32 " bytes: %.0f messages/s, %.0f bytes/s, %" PRIu64
                 " sends\n",
           transport->name, payload_bytes, rate, rate * payload_bytes, sends);
}

/* ---- program -----------------------------------------------------------------------------------
 */

enum { KEY_URL = 'u', KEY_PORT = 0x100, KEY_ADDRESS, KEY_MAC, KEY_ROUNDS, KEY_MS, KEY_JSON };

static const struct argp_option flags[] = {
    {"url", KEY_URL, "URL", 0, "Where to listen, or whom to dial", 0},
    {"dpdk-port", KEY_PORT, "PORT", 0, "Device, such as net_af_packet0,iface=eth1", 0},
    {"dpdk-address", KEY_ADDRESS, "ADDRESS/BITS", 0, "Its address, such as 10.7.0.1/24", 0},
    {"dpdk-mac", KEY_MAC, "MAC", 0, "Its MAC. Default: the device's own", 0},
    {"rounds", KEY_ROUNDS, "N", 0, "Round trips. Default: 100000", 0},
    {"ms", KEY_MS, "N", 0, "Milliseconds of each size. Default: 1000", 0},
    {"json", KEY_JSON, NULL, 0, "One JSON object per line", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case KEY_URL:
        options->url = arg;
        return 0;
    case KEY_PORT:
        options->device.port = arg;
        return 0;
    case KEY_ADDRESS:
        options->device.address = arg;
        return 0;
    case KEY_MAC:
        options->device.mac = arg;
        return 0;
    case KEY_ROUNDS:
        options->round_count = strtoull(arg, NULL, 10);
        return 0;
    case KEY_MS:
        options->milliseconds = strtoull(arg, NULL, 10);
        return 0;
    case KEY_JSON:
        options->as_json = true;
        return 0;
    case ARGP_KEY_ARG:
        options->command = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->command == NULL || options->url == NULL) {
            argp_error(state, "a command and --url are needed");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        flags, parse, "serve | measure", "One link without a broker, both ends busy", NULL,
        NULL,  NULL};
    static struct options options = {.round_count = 100000, .milliseconds = 1000};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    bool serves = strcmp(options.command, "serve") == 0;
    open_link(&options, serves);
    if (serves) {
        serve();
    } else {
        measure_round_trips(&options);
        measure_one_way(&options, 64);
        measure_one_way(&options, 1000);
    }
    close_link();
    return 0;
}
