/*
 * An Ethernet switch whose ports are sockets of vhost: what joins processes that use virtio_user.
 *
 *     dpdk_switch FOLDER COUNT        serves FOLDER/1 to FOLDER/COUNT until SIGTERM or SIGINT
 *
 * Says "ready" on standard output when all are there; removes them at its end. SIGUSR1 cuts
 * the first port off, in silence, SIGUSR2 mends that.
 *
 * Design notes
 * - Behind each socket is one process, so each port has one address: that of the newest frame that
 *   came in. A frame for it goes there, all others go to every port but their own.
 * - A port whose process is full, stopped or gone takes no frame: that frame is lost, and nobody
 *   else waits for it.
 * - A process may be killed at any moment and the next one may connect to the same socket. The
 *   driver looks after that: its own thread says when a port's queues may be touched and waits
 *   until they are not.
 * - One thread polls all ports, and sleeps a little when nothing came, for it shares few cores with
 *   those whom it joins.
 * - Frames lie here only while they are passed on: the driver copies both ways. So a small pool
 *   does, and ordinary memory.
 */
#include "core/compiler.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/text.h"

#include <err.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    PORT_COUNT_MAX = 24,
    ARGUMENT_BYTES = 160,
    DESCRIPTOR_COUNT = 1024,
    FRAME_COUNT = 4095,
    CACHE_COUNT = 64,
    BURST_COUNT = 32,
    IDLE_PASSES_BEFORE_NAP = 20,
    NAP_NS = 50000,
};

struct switch_port {
    uint16_t id;
    struct rte_ether_addr address; /* zero: nothing has come yet, and nobody sends to it */
};

static struct switch_port ports[PORT_COUNT_MAX];
static uint16_t port_count;
static volatile sig_atomic_t must_end;
static volatile sig_atomic_t is_cut; /* the first port */

static void on_signal(int number)
{
    if (number == SIGUSR1 || number == SIGUSR2) {
        is_cut = number == SIGUSR1;
    } else {
        must_end = 1;
    }
}

/* ---- passing on --------------------------------------------------------------------------------
 */

static bool passes(const struct switch_port *port)
{
    return port != &ports[0] || !is_cut;
}

static void send_one(const struct switch_port *to, struct rte_mbuf *frame)
{
    if (!passes(to) || rte_eth_tx_burst(to->id, 0, &frame, 1) == 0) {
        rte_pktmbuf_free(frame);
    }
}

/* NULL: nobody is known to have it. */
static const struct switch_port *find(const struct rte_ether_addr *address)
{
    for (uint16_t i = 0; i < port_count; i++) {
        if (rte_is_same_ether_addr(&ports[i].address, address)) {
            return &ports[i];
        }
    }
    return NULL;
}

/* All of them read the same bytes; the last one frees them. */
static void send_to_others(const struct switch_port *from, struct rte_mbuf *frame)
{
    rte_mbuf_refcnt_update(frame, (int16_t)(port_count - 1));
    for (uint16_t i = 0; i < port_count; i++) {
        if (&ports[i] != from) {
            send_one(&ports[i], frame);
        }
    }
    rte_pktmbuf_free(frame);
}

static void pass_on(struct switch_port *from, struct rte_mbuf *frame)
{
    if (!passes(from) || rte_pktmbuf_data_len(frame) < sizeof(struct rte_ether_hdr)) {
        rte_pktmbuf_free(frame);
        return;
    }
    const struct rte_ether_hdr *header = rte_pktmbuf_mtod(frame, const struct rte_ether_hdr *);
    from->address = header->src_addr;
    const struct switch_port *to = find(&header->dst_addr);
    if (to == NULL) {
        send_to_others(from, frame);
    } else if (to == from) {
        rte_pktmbuf_free(frame);
    } else {
        send_one(to, frame);
    }
}

/* How many frames came. */
static uint32_t pass(void)
{
    struct rte_mbuf *frames[BURST_COUNT];
    uint32_t total = 0;
    for (uint16_t i = 0; i < port_count; i++) {
        uint16_t count = rte_eth_rx_burst(ports[i].id, 0, frames, BURST_COUNT);
        for (uint16_t j = 0; j < count; j++) {
            pass_on(&ports[i], frames[j]);
        }
        total += count;
    }
    return total;
}

static void serve(void)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    uint32_t idle_count = 0;
    while (!must_end) {
        idle_count = pass() > 0 ? 0 : idle_count + 1;
        if (idle_count > IDLE_PASSES_BEFORE_NAP) {
            nanosleep(&nap, NULL);
        }
    }
}

/* ---- ports -------------------------------------------------------------------------------------
 */

static void check(int result, const char *what, unsigned number)
{
    if (result < 0) {
        errx(2, "port %u: %s: %s", number, what, rte_strerror(-result));
    }
}

static void port_open(struct switch_port *port, unsigned number, struct rte_mempool *pool)
{
    const struct rte_eth_conf usual = {0};
    char name[RTE_ETH_NAME_MAX_LEN];
    snprintf(name, sizeof(name), "net_vhost%u", number);
    check(rte_eth_dev_get_port_by_name(name, &port->id), "it is not there", number);
    check(rte_eth_dev_configure(port->id, 1, 1, &usual), "it cannot be configured", number);
    check(rte_eth_rx_queue_setup(port->id, 0, DESCRIPTOR_COUNT, SOCKET_ID_ANY, NULL, pool),
          "its receive queue cannot be set up", number);
    check(rte_eth_tx_queue_setup(port->id, 0, DESCRIPTOR_COUNT, SOCKET_ID_ANY, NULL),
          "its transmit queue cannot be set up", number);
    check(rte_eth_dev_start(port->id), "it cannot be started", number);
}

/* DPDK would pin this thread to one. */
static void allow_all_cores(char *argument, size_t argument_bytes)
{
    char text[128];
    struct rsi_cpu_set allowed;
    struct rsi_error error = {0};
    if (rsi_failed(rsi_cpu_allowed(&allowed, &error))) {
        errx(2, "%s", error.text);
    }
    snprintf(argument, argument_bytes, "--lcores=0@(%s)",
             rsi_cpu_set_format(&allowed, text, sizeof(text)));
}

static void start(const char *folder, uint16_t count)
{
    static char devices[PORT_COUNT_MAX][ARGUMENT_BYTES];
    static char prefix[ARGUMENT_BYTES];
    static char cores[ARGUMENT_BYTES];
    char *arguments[PORT_COUNT_MAX + 16] = {
        "dpdk_switch",    "--no-huge",      "--no-shconf",   "-m",   "64", "--no-pci",
        "--no-telemetry", "--iova-mode=va", "--log-level=4", prefix, cores};
    int argument_count = 0;
    while (arguments[argument_count] != NULL) {
        argument_count++;
    }
    allow_all_cores(cores, sizeof(cores));
    snprintf(prefix, sizeof(prefix), "--file-prefix=ringside-switch-%d", (int)getpid());
    for (unsigned i = 0; i < count; i++) {
        snprintf(devices[i], sizeof(devices[i]), "--vdev=net_vhost%u,iface=%s/%u", i + 1, folder,
                 i + 1);
        arguments[argument_count++] = devices[i];
    }
    if (rte_eal_init(argument_count, arguments) < 0) {
        errx(2, "DPDK cannot be started: %s", rte_strerror(rte_errno));
    }
    (void)rmdir(rte_eal_get_runtime_dir()); /* empty, for nothing is shared */
    struct rte_mempool *pool = rte_pktmbuf_pool_create("frames", FRAME_COUNT, CACHE_COUNT, 0,
                                                       RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    if (pool == NULL) {
        errx(2, "no memory for frames: %s", rte_strerror(rte_errno));
    }
    for (unsigned i = 0; i < count; i++) {
        port_open(&ports[i], i + 1, pool);
    }
    port_count = count;
}

/* With it goes the socket. */
static void stop(void)
{
    for (uint16_t i = 0; i < port_count; i++) {
        (void)rte_eth_dev_stop(ports[i].id);
        (void)rte_eth_dev_close(ports[i].id);
    }
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    struct sigaction action = {.sa_handler = on_signal};
    uint64_t count = 0;
    struct rsi_error error = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: dpdk_switch FOLDER COUNT\n");
        return 2;
    }
    if (rsi_failed(rsi_parse_number(&count, argv[2], 2, PORT_COUNT_MAX, &error))) {
        errx(2, "COUNT: %s", error.text);
    }
    for (size_t i = 0; i < rsi_array_count(signals); i++) {
        sigaction(signals[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN); /* of a process that was killed while it was answered */
    start(argv[1], (uint16_t)count);
    puts("ready");
    fflush(stdout);
    serve();
    stop();
    return 0;
}
