/*
 * The bare device, to hold dpdk:// against: frames of Ethernet by DPDK's own calls, without
 * Ringside.
 *
 *     dpdk_raw serve --port PORT            answers until it is told to end
 *     dpdk_raw measure --port PORT [...]    round trips of 64 bytes, then one way of some sizes
 *
 * The two find each other by a broadcast. Both open their device through the plugin, so that it is
 * configured as dpdk:// has it; what is measured is rte_eth_rx_burst and rte_eth_tx_burst.
 *
 * Frames are of a type of their own, which the kernel below af_packet passes on without a look
 * inside; with --udp they are UDP over IPv4, as those of dpdk:// are, and cost what such cost
 * there. The length is the same.
 *
 * One line per measurement on standard output; --json: one object per line. Nothing fails on a
 * rate: only silence of 20 s does.
 */
#include "core/clock.h"
#include "core/compiler.h"
#include "core/histogram.h"
#include "transport/dpdk/plugin.h"

#include <argp.h>
#include <err.h>
#include <inttypes.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HANG_NS    UINT64_C(20000000000)
#define RESEND_NS  UINT64_C(20000000) /* an answer that takes longer was lost */
#define ETHERTYPE  0x88b5             /* for local experiments */
#define UDP_PORT   7499
#define NAME_BYTES 64

enum { BURST_COUNT = 32, PING_BYTES = 60, WARM_UP_COUNT = 1000 };
enum kind { KIND_PING = 1, KIND_DATA, KIND_REPORT, KIND_END };

struct message {
    uint8_t to[6];
    uint8_t from[6];
    uint16_t ethertype; /* big-endian */
    struct rte_ipv4_hdr ipv4;
    struct rte_udp_hdr udp;
    uint8_t kind;
    uint8_t pad;
    uint64_t number;     /* of a question and its answer; of DATA: which run it belongs to */
    uint32_t count;      /* in an answer to REPORT: frames of the newest run that came */
    uint32_t elapsed_us; /* from the first of them to the last */
} __attribute__((packed));
static_assert(sizeof(struct message) == PING_BYTES, "a question is a frame of the least length");

struct options {
    struct rsi_dpdk_options device;
    const char *command;
    uint64_t round_count;
    uint64_t milliseconds;
    bool as_json;
    bool is_udp;
};

static struct rsi_port *port;
static uint16_t port_id;
static const char *device_name;
static bool as_json;
static bool is_udp;
static uint8_t peer[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* ---- frames ------------------------------------------------------------------------------------
 */

static struct rte_mbuf *take_empty(void)
{
    struct rsi_port_frame frame;
    return port->operations->acquire(port, &frame, 1) == 1 ? frame.handle : NULL;
}

static uint16_t ethertype(void)
{
    return rte_cpu_to_be_16(is_udp ? RTE_ETHER_TYPE_IPV4 : ETHERTYPE);
}

/* From a network for documentation (RFC 5737), which no kernel here answers for. */
static void fill_udp(struct message *message, uint32_t bytes)
{
    uint16_t ipv4_bytes = (uint16_t)(bytes - offsetof(struct message, ipv4));
    message->ipv4 = (struct rte_ipv4_hdr){
        .version_ihl = RTE_IPV4_VHL_DEF,
        .total_length = rte_cpu_to_be_16(ipv4_bytes),
        .time_to_live = 64,
        .next_proto_id = IPPROTO_UDP,
        .src_addr = rte_cpu_to_be_32(RTE_IPV4(192, 0, 2, 1)),
        .dst_addr = rte_cpu_to_be_32(RTE_IPV4(192, 0, 2, 2)),
    };
    message->udp = (struct rte_udp_hdr){
        .src_port = rte_cpu_to_be_16(UDP_PORT),
        .dst_port = rte_cpu_to_be_16(UDP_PORT),
        .dgram_len = rte_cpu_to_be_16((uint16_t)(ipv4_bytes - sizeof(message->ipv4))),
    };
    message->ipv4.hdr_checksum = rte_ipv4_cksum(&message->ipv4);
}

static void fill(struct rte_mbuf *mbuf, enum kind kind, uint32_t bytes, uint64_t number)
{
    struct message *message = rte_pktmbuf_mtod(mbuf, struct message *);
    memcpy(message->to, peer, sizeof(peer));
    memcpy(message->from, port->mac, sizeof(message->from));
    message->ethertype = ethertype();
    if (is_udp) {
        fill_udp(message, bytes);
    }
    message->kind = (uint8_t)kind;
    message->number = number;
    message->count = 0;
    message->elapsed_us = 0;
    mbuf->data_len = (uint16_t)bytes;
    mbuf->pkt_len = bytes;
    mbuf->ol_flags = 0;
}

static void send_one(struct rte_mbuf *mbuf)
{
    uint64_t end_ns = rsi_clock_now_ns() + HANG_NS;
    while (rte_eth_tx_burst(port_id, 0, &mbuf, 1) == 0) {
        if (rsi_clock_now_ns() > end_ns) {
            errx(1, "%s takes no frame", port->name);
        }
    }
}

static void send_new(enum kind kind, uint64_t number)
{
    struct rte_mbuf *mbuf = take_empty();
    if (mbuf == NULL) {
        errx(1, "%s has no empty frame", port->name);
    }
    fill(mbuf, kind, PING_BYTES, number);
    send_one(mbuf);
}

/* NULL: none of ours. */
static const struct message *read_message(const struct rte_mbuf *mbuf)
{
    const struct message *message = rte_pktmbuf_mtod(mbuf, const struct message *);
    bool is_ours = mbuf->pkt_len >= sizeof(*message) && message->ethertype == ethertype() &&
                   memcmp(message->from, port->mac, sizeof(port->mac)) != 0;
    return is_ours ? message : NULL;
}

/* ---- serve -------------------------------------------------------------------------------------
 */

struct tally {
    uint64_t run;
    uint64_t count;
    uint64_t first_ns;
    uint64_t last_ns;
};

/* Frees or sends the frame; false: the end was asked for. */
static bool answer(struct rte_mbuf *mbuf, struct tally *tally)
{
    const struct message *message = read_message(mbuf);
    if (message == NULL) {
        rte_pktmbuf_free(mbuf);
        return true;
    }
    enum kind kind = message->kind;
    uint64_t number = message->number;
    if (kind == KIND_DATA) {
        if (tally->run != number) {
            *tally = (struct tally){.run = number};
        }
        tally->count++;
        rte_pktmbuf_free(mbuf);
        return true;
    }
    memcpy(peer, message->from, sizeof(peer));
    if (kind == KIND_END) {
        rte_pktmbuf_free(mbuf);
        return false;
    }
    fill(mbuf, kind, mbuf->pkt_len, number);
    if (kind == KIND_REPORT) {
        struct message *report = rte_pktmbuf_mtod(mbuf, struct message *);
        report->count = (uint32_t)tally->count;
        report->elapsed_us = (uint32_t)((tally->last_ns - tally->first_ns) / 1000);
    }
    send_one(mbuf);
    return true;
}

static void serve(void)
{
    struct tally tally = {0};
    struct rte_mbuf *mbufs[BURST_COUNT];
    uint64_t heard_ns = rsi_clock_now_ns();
    bool goes_on = true;
    puts("ready");
    fflush(stdout);
    while (goes_on) {
        uint16_t count = rte_eth_rx_burst(port_id, 0, mbufs, BURST_COUNT);
        if (count == 0) {
            if (rsi_clock_now_ns() - heard_ns > HANG_NS) {
                errx(1, "nothing has come for 20 s");
            }
            continue;
        }
        heard_ns = rsi_clock_now_ns();
        uint64_t before = tally.count;
        uint64_t run = tally.run;
        for (uint16_t i = 0; i < count; i++) {
            goes_on &= answer(mbufs[i], &tally);
        }
        if (tally.count > before || tally.run != run) {
            tally.first_ns = tally.first_ns == 0 ? heard_ns : tally.first_ns;
            tally.last_ns = heard_ns;
        }
    }
}

/* ---- measure -----------------------------------------------------------------------------------
 */

/* Waits for the answer of that kind and number, and keeps who gave it. Asks again where it is late.
 * Returns how often it asked. */
static uint64_t ask(enum kind kind, uint64_t number, struct message *given)
{
    struct rte_mbuf *mbufs[BURST_COUNT];
    uint64_t began_ns = rsi_clock_now_ns();
    uint64_t asked_ns = began_ns;
    uint64_t asked_count = 1;
    send_new(kind, number);
    for (;;) {
        uint16_t count = rte_eth_rx_burst(port_id, 0, mbufs, BURST_COUNT);
        bool is_there = false;
        for (uint16_t i = 0; i < count; i++) {
            const struct message *message = read_message(mbufs[i]);
            if (message != NULL && message->kind == kind && message->number == number) {
                *given = *message;
                is_there = true;
            }
            rte_pktmbuf_free(mbufs[i]);
        }
        if (is_there) {
            return asked_count;
        }
        uint64_t now_ns = rsi_clock_now_ns();
        if (now_ns - began_ns > HANG_NS) {
            errx(1, "no answer for 20 s on %s", port->name);
        }
        if (now_ns - asked_ns > RESEND_NS) {
            asked_ns = now_ns;
            asked_count++;
            send_new(kind, number);
        }
    }
}

static void measure_round_trips(uint64_t round_count)
{
    static struct rsi_histogram latency;
    struct message given;
    uint64_t asked_count = 0;
    rsi_histogram_reset(&latency);
    for (uint64_t i = 0; i < WARM_UP_COUNT; i++) {
        (void)ask(KIND_PING, i, &given);
        memcpy(peer, given.from, sizeof(peer));
    }
    for (uint64_t i = 0; i < round_count; i++) {
        uint64_t began_ns = rsi_clock_now_ns();
        asked_count += ask(KIND_PING, WARM_UP_COUNT + i, &given);
        rsi_histogram_record(&latency, rsi_clock_now_ns() - began_ns);
    }
    uint64_t p50_ns = rsi_histogram_percentile(&latency, 50);
    uint64_t p99_ns = rsi_histogram_percentile(&latency, 99);
    printf(as_json ? "{\"device\": \"%s\", \"what\": \"round trip\", \"bytes\": %d, \"p50_ns\": "
                     "%" PRIu64 ", \"p99_ns\": %" PRIu64 ", \"lost\": %" PRIu64 "}\n"
                   : "%s: round trip of %d bytes: p50 %" PRIu64 " ns, p99 %" PRIu64 " ns, %" PRIu64
                     " lost\n",
           device_name, PING_BYTES + 4, p50_ns, p99_ns, asked_count - round_count);
}

static uint64_t flood(uint32_t frame_bytes, uint64_t run, uint64_t duration_ns)
{
    struct rte_mbuf *mbufs[BURST_COUNT];
    uint64_t sent = 0;
    uint64_t end_ns = rsi_clock_now_ns() + duration_ns;
    while (rsi_clock_now_ns() < end_ns) {
        uint16_t count = 0;
        while (count < BURST_COUNT && (mbufs[count] = take_empty()) != NULL) {
            fill(mbufs[count++], KIND_DATA, frame_bytes, run);
        }
        uint16_t taken = 0;
        while (taken < count && rsi_clock_now_ns() < end_ns) {
            taken = (uint16_t)(taken + rte_eth_tx_burst(port_id, 0, mbufs + taken,
                                                        (uint16_t)(count - taken)));
        }
        sent += taken;
        for (uint16_t i = taken; i < count; i++) {
            rte_pktmbuf_free(mbufs[i]);
        }
    }
    return sent;
}

static void measure_one_way(uint32_t frame_bytes, uint64_t duration_ns)
{
    static uint64_t run;
    struct message given;
    run++;
    uint64_t sent = flood(frame_bytes, run, duration_ns);
    (void)ask(KIND_REPORT, run, &given); /* behind all of them */
    double seconds = given.elapsed_us * 1e-6;
    double frames_per_second = seconds > 0 ? (double)given.count / seconds : 0;
    printf(as_json ? "{\"device\": \"%s\", \"what\": \"one way\", \"bytes\": %" PRIu32
                     ", \"frames_per_s\": %.0f, \"sent\": %" PRIu64 ", \"arrived\": %" PRIu32 "}\n"
                   : "%s: one way, %" PRIu32 " bytes: %.0f frames/s, %" PRIu64 " sent, %" PRIu32
                     " arrived\n",
           device_name, frame_bytes + 4, frames_per_second, sent, given.count);
}

/* Some may get lost, and after the first that does not there is nobody to answer. */
static void end(void)
{
    for (uint32_t i = 0; i < 10; i++) {
        struct rte_mbuf *mbuf = take_empty();
        if (mbuf != NULL) {
            fill(mbuf, KIND_END, PING_BYTES, 0);
        }
        if (mbuf != NULL && rte_eth_tx_burst(port_id, 0, &mbuf, 1) == 0) {
            rte_pktmbuf_free(mbuf);
        }
        usleep(2000);
    }
}

static void measure(const struct options *options)
{
    uint64_t duration_ns = options->milliseconds * 1000000;
    measure_round_trips(options->round_count);
    measure_one_way(PING_BYTES, duration_ns);
    if (port->frame_bytes_max >= 1514) {
        measure_one_way(1514, duration_ns);
    }
    if (port->frame_bytes_max >= 9014) {
        measure_one_way(9014, duration_ns);
    }
    end();
}

/* ---- program -----------------------------------------------------------------------------------
 */

enum { KEY_PORT = 'p', KEY_MTU = 0x100, KEY_ROUNDS, KEY_MS, KEY_JSON, KEY_NO_HUGE, KEY_UDP };

static const struct argp_option flags[] = {
    {"port", KEY_PORT, "PORT", 0, "Device, such as net_af_packet0,iface=eth1", 0},
    {"mtu", KEY_MTU, "N", 0, "Default: the device's", 0},
    {"no-huge", KEY_NO_HUGE, NULL, 0, "Do without huge pages", 0},
    {"udp", KEY_UDP, NULL, 0, "Frames of UDP over IPv4, at both ends", 0},
    {"rounds", KEY_ROUNDS, "N", 0, "Round trips. Default: 100000", 0},
    {"ms", KEY_MS, "N", 0, "Milliseconds of each size. Default: 1000", 0},
    {"json", KEY_JSON, NULL, 0, "One JSON object per line", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case KEY_PORT:
        options->device.port = arg;
        return 0;
    case KEY_MTU:
        options->device.mtu = (uint32_t)strtoul(arg, NULL, 10);
        return 0;
    case KEY_NO_HUGE:
        options->device.no_huge = true;
        return 0;
    case KEY_UDP:
        options->is_udp = true;
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
        if (options->command == NULL || options->device.port == NULL) {
            argp_error(state, "a command and --port are needed");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        flags, parse, "serve | measure", "Frames by DPDK alone, to hold dpdk:// against", NULL,
        NULL,  NULL};
    struct options options = {.round_count = 100000, .milliseconds = 1000};
    struct rsi_error error = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    as_json = options.as_json;
    is_udp = options.is_udp;
    char name[NAME_BYTES];
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(options.device.port, ","),
             options.device.port);
    device_name = name;
    if (rsi_dpdk_plugin_port_open(&port, &options.device, &error) != RSI_OK) {
        errx(2, "%s", error.text);
    }
    if (rte_eth_dev_get_port_by_name(name, &port_id) != 0) {
        errx(2, "%s is not there", name);
    }
    port->operations->thread_begin(port);
    if (strcmp(options.command, "serve") == 0) {
        serve();
    } else {
        measure(&options);
    }
    port->operations->close(port);
    return 0;
}
