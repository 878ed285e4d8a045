/*
 * A port over a device of DPDK: probe, configure, share, close.
 *
 * Design notes
 * - All who open one configuration in a process get one port, counted: a device has one receive
 *   queue and one owner. Another configuration of the same device is refused.
 * - A vdev is made for the port and goes with it. A device that is there already was made by the
 *   application: it is used when nobody has started or owns it, and left as it was found.
 * - The device's own MAC is used when there is one, without promiscuous mode. One that the user
 *   gives is set where the driver can; af_packet would change the interface, which is the kernel's,
 *   so there, and where a driver cannot, the device becomes promiscuous instead.
 * - Offloads: freeing sent frames without a look at each, where the driver has it: all frames come
 *   from one pool and have one user. Sums are the engine's business.
 * - A thread is told to DPDK once and until it ends (a key's destructor), whatever ports it uses.
 *   That gives it caches of the pools. When DPDK knows as many threads as it can, the thread does
 *   without.
 * - Drivers write to sockets of peers that may be gone (virtio_user): SIGPIPE is kept from the
 *   application while a device is opened or closed. Threads of EAL have it blocked anyway.
 * - One lock for all that is control. The data path does not know it.
 */
#include "transport/dpdk/eal/eal_internal.h"

#include "core/clock.h"
#include "core/text.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    DESCRIPTOR_COUNT = 1024,
    CACHE_COUNT = 256, /* frames that one thread keeps */
    MTU_USUAL = 1500,
    TAIL_BYTES_MIN = 4096, /* below it a second segment costs what the copy does */
};

/* Drivers that read a tail in transmit and keep none, shown by veth_test. The others
 * may read it later, when other bytes stand there. */
static const bool reads_tails[] = {
    [RSI_EAL_PCI] = false,   [RSI_EAL_AF_PACKET] = true,    [RSI_EAL_MEMIF] = false,
    [RSI_EAL_VHOST] = false, [RSI_EAL_VIRTIO_USER] = false, [RSI_EAL_OTHER_VDEV] = false,
};

#define LINK_WAIT_NS UINT64_C(3000000000) /* a cable's two ends agree in that time */
#define LINK_LOOK_NS UINT64_C(10000000)
#define OWNER_NAME   "ringside"

static pthread_mutex_t ports_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rsi_eal_port *ports;

/* ---- threads -----------------------------------------------------------------------------------
 */

static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;
static bool has_thread_key;

static void forget_thread(void *registered)
{
    (void)registered;
    rte_thread_unregister();
}

static void make_thread_key(void)
{
    has_thread_key = pthread_key_create(&thread_key, forget_thread) == 0;
}

static void eal_thread_begin(struct rsi_port *port)
{
    (void)port;
    pthread_once(&thread_once, make_thread_key);
    if (has_thread_key && rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() == 0) {
        (void)pthread_setspecific(thread_key, OWNER_NAME); /* any pointer but NULL */
    }
}

/* The thread stays registered: other ports of it may be open. */
static void eal_thread_end(struct rsi_port *port)
{
    (void)port;
}

/* ---- device ------------------------------------------------------------------------------------
 */

static void list_devices(struct rsi_text *text)
{
    for (uint16_t id = rte_eth_find_next(0); id < RTE_MAX_ETHPORTS;
         id = rte_eth_find_next((uint16_t)(id + 1))) {
        char name[RTE_ETH_NAME_MAX_LEN];
        if (rte_eth_dev_get_name_by_port(id, name) == 0) {
            rsi_text_append(text, "%s%s", text->length_bytes > 0 ? ", " : "", name);
        }
    }
}

static rsi_status_t refuse_missing(const struct rsi_eal_environment *environment, const char *name,
                                   struct rsi_error *error)
{
    char names[160];
    struct rsi_text text;
    rsi_text_init(&text, names, sizeof(names));
    list_devices(&text);
    const char *there = text.length_bytes > 0 ? names : "none";
    rsi_status_t status =
        environment->is_ours
            ? rsi_fail(error, RSI_E_NO_DEVICE, "DPDK has no port %s; it has: %s", name, there)
            : rsi_fail(error, RSI_E_NO_DEVICE,
                       "this program started DPDK itself, and there DPDK has no port %s; it has: "
                       "%s. Let the program allow that device (--allow, --vdev), or name one "
                       "that it has",
                       name, there);
    rsi_eal_capture_explain(error);
    return status;
}

static rsi_status_t make_vdev(const struct rsi_eal_plan *plan, struct rsi_error *error)
{
    struct rte_devargs known = {0};
    if (rte_devargs_parse(&known, plan->name) != 0) {
        rsi_status_t status = rsi_fail(
            error, RSI_E_NO_DEVICE,
            "dpdk_port: DPDK knows no driver for '%s'; the name is one of a driver and a number, "
            "such as net_af_packet0, and Debian has each in a package of its own: "
            "librte-net-af-packet23",
            plan->name);
        rsi_eal_capture_explain(error);
        return status;
    }
    free(known.data);
    int result = rte_vdev_init(plan->name, plan->arguments);
    if (result == 0) {
        return RSI_OK;
    }
    rsi_status_t status =
        result == -ENOMEM
            ? rsi_fail(error, RSI_E_NO_MEMORY, "%s: DPDK has no memory for it; raise dpdk_memory",
                       plan->name)
            : rsi_fail(error, RSI_E_NO_DEVICE, "%s,%s: the driver refused (%s)", plan->name,
                       plan->arguments, rte_strerror(result < 0 ? -result : result));
    rsi_eal_capture_explain(error);
    /* af_packet makes its number from the process and the interface, 16 bits of them. */
    if (strstr(error->text, "set PACKET_FANOUT") != NULL) {
        status = rsi_fail(error, RSI_E_ADDRESS,
                          "%s,%s: the driver numbers its socket by process and interface, and "
                          "another process of this network namespace has the same number by "
                          "chance: start this process again",
                          plan->name, plan->arguments);
    }
    return status;
}

static rsi_status_t probe(struct rsi_eal_port *port, const struct rsi_eal_environment *environment,
                          struct rsi_error *error)
{
    const struct rsi_eal_plan *plan = &port->plan;
    rsi_status_t status = RSI_OK;
    if (rte_eth_dev_get_port_by_name(plan->name, &port->port_id) == 0) {
        return RSI_OK; /* the application's, or PCI's from the start */
    }
    if (plan->driver != RSI_EAL_PCI) {
        status = make_vdev(plan, error);
        port->is_made_here = status == RSI_OK;
    } else if (!environment->has_pci) {
        return rsi_fail(error, RSI_E_STATE,
                        "dpdk_port: DPDK was started for a virtual device in this process, without "
                        "PCI, so it cannot have %s; use it in a process of its own",
                        plan->name);
    } else {
        (void)rte_dev_probe(plan->name);
    }
    if (status == RSI_OK && rte_eth_dev_get_port_by_name(plan->name, &port->port_id) != 0) {
        status = refuse_missing(environment, plan->name, error);
    }
    return status;
}

static rsi_status_t take_ownership(struct rsi_eal_port *port, struct rsi_error *error)
{
    struct rte_eth_dev_owner owner = {0};
    if (rte_eth_dev_owner_new(&owner.id) != 0) {
        return rsi_fail(error, RSI_E_LIMIT, "%s: DPDK has no more ids for owners", port->plan.name);
    }
    snprintf(owner.name, sizeof(owner.name), OWNER_NAME);
    if (rte_eth_dev_owner_set(port->port_id, &owner) != 0) {
        struct rte_eth_dev_owner other = {0};
        (void)rte_eth_dev_owner_get(port->port_id, &other);
        return rsi_fail(error, RSI_E_STATE,
                        "dpdk_port: %s is in use in this process already, by '%.32s'; name another "
                        "device",
                        port->plan.name, other.name);
    }
    port->owner = owner.id;
    return RSI_OK;
}

/* ---- configuration -----------------------------------------------------------------------------
 */

static rsi_status_t fail_device(const struct rsi_eal_port *port, const char *step, int result,
                                struct rsi_error *error)
{
    rsi_status_t status = rsi_fail(error, RSI_E_NO_DEVICE, "%s: %s: %s", port->plan.name, step,
                                   rte_strerror(result < 0 ? -result : result));
    rsi_eal_capture_explain(error);
    return status;
}

static rsi_status_t configure_mtu(struct rsi_eal_port *port, struct rte_eth_conf *configuration,
                                  const struct rte_eth_dev_info *info, struct rsi_error *error)
{
    const struct rsi_eal_plan *plan = &port->plan;
    uint16_t device_mtu = MTU_USUAL;
    if (plan->mtu == 0) {
        (void)rte_eth_dev_get_mtu(port->port_id, &device_mtu);
        port->mtu = device_mtu;
        return RSI_OK;
    }
    port->mtu = plan->mtu;
    /* Virtual wires without a length of their own say nothing useful about it. */
    if (plan->driver != RSI_EAL_PCI && plan->driver != RSI_EAL_VIRTIO_USER) {
        return RSI_OK;
    }
    if (info->max_mtu != 0 && plan->mtu > info->max_mtu) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_mtu: %" PRIu32 " is more than %s can do (%u); lower it", plan->mtu,
                        plan->name, info->max_mtu);
    }
    configuration->rxmode.mtu = plan->mtu;
    return RSI_OK;
}

static rsi_status_t make_pool(struct rsi_eal_port *port,
                              const struct rsi_eal_environment *environment, uint16_t receive_count,
                              uint16_t transmit_count, struct rsi_error *error)
{
    char name[RTE_MEMPOOL_NAMESIZE];
    uint32_t room_bytes = rsi_eal_frame_room(&port->plan, port->mtu);
    uint64_t count =
        rsi_eal_frame_count(receive_count, transmit_count, port->base.transmit_queue_count);
    /* That of a device that was left to the application is still there, for whoever comes back. */
    snprintf(name, sizeof(name), "rs%u_%u_%" PRIu64, port->port_id, room_bytes, count);
    port->pool = rte_mempool_lookup(name);
    if (port->pool == NULL) {
        port->pool = rte_pktmbuf_pool_create(name, (unsigned)count, CACHE_COUNT, 0,
                                             (uint16_t)room_bytes, SOCKET_ID_ANY);
    }
    if (port->pool != NULL) {
        return RSI_OK;
    }
    rsi_status_t status = rsi_fail(
        error, RSI_E_NO_MEMORY,
        "%s: no memory for %" PRIu64 " frames of %" PRIu32 " bytes (%s); %s", port->plan.name,
        count, room_bytes, rte_strerror(rte_errno),
        environment->has_huge ? "reserve more huge pages (sysctl vm.nr_hugepages=512) or set "
                                "dpdk_huge to no"
                              : "without huge pages memory is fixed when DPDK starts: raise "
                                "dpdk_memory");
    rsi_eal_capture_explain(error);
    return status;
}

/* Transmit queues have the offloads that the device was configured with. */
static rsi_status_t set_up_queues(struct rsi_eal_port *port, uint16_t receive_count,
                                  uint16_t transmit_count, struct rsi_error *error)
{
    int result =
        rte_eth_rx_queue_setup(port->port_id, 0, receive_count,
                               (unsigned)rte_eth_dev_socket_id(port->port_id), NULL, port->pool);
    if (result != 0) {
        return fail_device(port, "its receive queue cannot be set up", result, error);
    }
    for (uint32_t i = 0; i < port->base.transmit_queue_count; i++) {
        result = rte_eth_tx_queue_setup(port->port_id, (uint16_t)i, transmit_count,
                                        (unsigned)rte_eth_dev_socket_id(port->port_id), NULL);
        if (result != 0) {
            return fail_device(port, "a transmit queue cannot be set up", result, error);
        }
    }
    return RSI_OK;
}

static rsi_status_t configure(struct rsi_eal_port *port,
                              const struct rsi_eal_environment *environment,
                              struct rsi_error *error)
{
    struct rte_eth_dev_info info = {0};
    struct rte_eth_conf configuration = {0};
    uint16_t receive_count = DESCRIPTOR_COUNT;
    uint16_t transmit_count = DESCRIPTOR_COUNT;
    int result = rte_eth_dev_info_get(port->port_id, &info);
    if (result != 0) {
        return fail_device(port, "it does not tell what it can", result, error);
    }
    configuration.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
    port->base.tail_bytes_min = UINT32_MAX;
    if (reads_tails[port->plan.driver] &&
        (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0) {
        /* With tails frames are no longer all alike. */
        configuration.txmode.offloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
        port->base.tail_bytes_min = TAIL_BYTES_MIN;
    }
    rsi_status_t status = configure_mtu(port, &configuration, &info, error);
    if (status != RSI_OK) {
        return status;
    }
    port->can_interrupt =
        port->plan.driver == RSI_EAL_VIRTIO_USER || port->plan.driver == RSI_EAL_VHOST;
    configuration.intr_conf.rxq = port->can_interrupt;
    uint32_t queue_count = port->plan.driver == RSI_EAL_PCI ? RSI_EAL_QUEUE_COUNT_MAX : 1;
    queue_count = queue_count < info.max_tx_queues ? queue_count : info.max_tx_queues;
    port->base.transmit_queue_count = queue_count;
    result = rte_eth_dev_configure(port->port_id, 1, (uint16_t)queue_count, &configuration);
    if (result == -EBUSY) {
        return rsi_fail(error, RSI_E_STATE,
                        "dpdk_port: %s is running in this process already; stop it, or name "
                        "another device",
                        port->plan.name);
    }
    if (result == 0) {
        result = rte_eth_dev_adjust_nb_rx_tx_desc(port->port_id, &receive_count, &transmit_count);
    }
    if (result != 0) {
        return fail_device(port, "it cannot be configured", result, error);
    }
    status = make_pool(port, environment, receive_count, transmit_count, error);
    if (status == RSI_OK) {
        status = set_up_queues(port, receive_count, transmit_count, error);
    }
    port->base.receive_frames =
        port->plan.receive_frames != 0 ? port->plan.receive_frames : receive_count;
    port->base.frame_bytes_max = port->mtu + RSI_EAL_ETHERNET_BYTES;
    return status;
}

static bool is_zero_mac(const uint8_t mac[6])
{
    static const uint8_t zero[6];
    return memcmp(mac, zero, sizeof(zero)) == 0;
}

/* Before the start: many drivers take a MAC only then. */
static rsi_status_t choose_mac(struct rsi_eal_port *port, const struct rsi_dpdk_options *options,
                               struct rsi_error *error)
{
    struct rte_ether_addr device = {0};
    uint8_t *mac = port->base.mac;
    (void)rte_eth_macaddr_get(port->port_id, &device);
    memcpy(mac, device.addr_bytes, sizeof(device.addr_bytes));
    if (!rsi_text_is_empty(options->mac)) {
        rsi_status_t status = rsi_dpdk_parse_mac(mac, options->mac, error);
        if (status != RSI_OK) {
            return status;
        }
    } else if (is_zero_mac(mac)) {
        if (getrandom(mac, sizeof(device.addr_bytes), 0) != (ssize_t)sizeof(device.addr_bytes)) {
            return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "no random MAC");
        }
        mac[0] = (uint8_t)((mac[0] & 0xfc) | 0x02); /* local, of one host */
    }
    if (memcmp(mac, device.addr_bytes, sizeof(device.addr_bytes)) != 0) {
        struct rte_ether_addr wanted;
        memcpy(wanted.addr_bytes, mac, sizeof(wanted.addr_bytes));
        port->is_promiscuous = port->plan.driver == RSI_EAL_AF_PACKET ||
                               rte_eth_dev_default_mac_addr_set(port->port_id, &wanted) != 0;
    }
    return RSI_OK;
}

/* af_packet's own answer is always yes. */
static bool is_interface_running(const char *name)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return true; /* not known */
    }
    (void)rsi_text_copy(request.ifr_name, sizeof(request.ifr_name), name);
    bool is_running = ioctl(fd, SIOCGIFFLAGS, &request) == 0 &&
                      (request.ifr_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
    close(fd);
    return is_running;
}

static bool eal_link_up(struct rsi_port *port)
{
    struct rsi_eal_port *eal = rsi_eal_port(port);
    struct rte_eth_link link = {0};
    if (eal->plan.driver == RSI_EAL_AF_PACKET) {
        return is_interface_running(eal->plan.interface);
    }
    return rte_eth_link_get_nowait(eal->port_id, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

static rsi_status_t start(struct rsi_eal_port *port, const struct rsi_dpdk_options *options,
                          struct rsi_error *error)
{
    rsi_status_t status = choose_mac(port, options, error);
    if (status != RSI_OK) {
        return status;
    }
    int result = rte_eth_dev_start(port->port_id);
    if (result != 0) {
        return fail_device(port, "it cannot be started", result, error);
    }
    result = port->is_promiscuous ? rte_eth_promiscuous_enable(port->port_id)
                                  : rte_eth_promiscuous_disable(port->port_id);
    if (result != 0 && port->is_promiscuous && result != -ENOTSUP) {
        return fail_device(port, "it can neither take dpdk_mac nor read frames of others", result,
                           error);
    }
    /* The other end of a virtual wire may come later; that of a cable should be there. */
    uint64_t end_ns = rsi_clock_now_ns() + LINK_WAIT_NS;
    while (port->plan.driver == RSI_EAL_PCI && !eal_link_up(&port->base)) {
        if (rsi_clock_now_ns() >= end_ns) {
            return rsi_fail(error, RSI_E_NO_DEVICE,
                            "%s: the link is down; is the cable in, and the other end up?",
                            port->plan.name);
        }
        usleep(LINK_LOOK_NS / 1000);
    }
    return RSI_OK;
}

/* ---- SIGPIPE ------------------------------------------------------------------------------------
 */

struct pipe_guard {
    sigset_t before;
    bool was_pending;
};

static bool is_pipe_pending(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

static void guard_begin(struct pipe_guard *guard)
{
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    guard->was_pending = is_pipe_pending();
    pthread_sigmask(SIG_BLOCK, &pipe, &guard->before);
}

static void guard_end(const struct pipe_guard *guard)
{
    if (!guard->was_pending && is_pipe_pending()) {
        const struct timespec no_time = {0};
        sigset_t pipe;
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        (void)sigtimedwait(&pipe, NULL, &no_time);
    }
    pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

/* ---- open and close ----------------------------------------------------------------------------
 */

/* Any state of opening. */
static void take_down(struct rsi_eal_port *port)
{
    if (port->owner != 0) {
        if (port->is_promiscuous) {
            (void)rte_eth_promiscuous_disable(port->port_id);
        }
        (void)rte_eth_dev_stop(port->port_id);
        (void)rte_eth_dev_owner_unset(port->port_id, port->owner);
    }
    if (port->is_made_here) {
        (void)rte_eth_dev_close(port->port_id);
        (void)rte_vdev_uninit(port->plan.name);
    }
    /* A device that stays keeps pointers to its pool in its queues, also when it is stopped. */
    if (port->pool != NULL && port->is_made_here) {
        rte_mempool_free(port->pool);
    }
    if (port->claim_fd >= 0) {
        close(port->claim_fd);
    }
    free(port->configuration);
    free(port);
}

static void eal_close(struct rsi_port *port)
{
    struct rsi_eal_port *eal = rsi_eal_port(port);
    struct pipe_guard guard;
    pthread_mutex_lock(&ports_lock);
    guard_begin(&guard);
    if (--eal->user_count == 0) {
        struct rsi_eal_port **at = &ports;
        while (*at != eal) {
            at = &(*at)->next;
        }
        *at = eal->next;
        take_down(eal);
    }
    guard_end(&guard);
    pthread_mutex_unlock(&ports_lock);
}

#define OPERATIONS                                                                                \
    .receive = rsi_eal_receive, .release = rsi_eal_release, .acquire = rsi_eal_acquire,           \
    .transmit = rsi_eal_transmit, .thread_begin = eal_thread_begin, .thread_end = eal_thread_end, \
    .link_up = eal_link_up, .close = eal_close

static const struct rsi_port_operations operations = {OPERATIONS};
/* Of devices that wake who sleeps. */
static const struct rsi_port_operations waking_operations = {OPERATIONS, .arm = rsi_eal_arm,
                                                             .disarm = rsi_eal_disarm};

/* What the device is opened with, as one text; addresses are the engine's business. */
static char *describe(const struct rsi_dpdk_options *options)
{
    char *text = NULL;
    if (asprintf(&text, "%s %s %u", options->port, rsi_text_or_empty(options->mac), options->mtu) <
        0) {
        return NULL;
    }
    return text;
}

static rsi_status_t find_open(struct rsi_eal_port **found, const struct rsi_dpdk_options *options,
                              const char *configuration, struct rsi_error *error)
{
    size_t name_bytes = strcspn(options->port, ",");
    *found = NULL;
    for (struct rsi_eal_port *at = ports; at != NULL; at = at->next) {
        if (strcmp(at->configuration, configuration) == 0) {
            *found = at;
            return RSI_OK;
        }
        if (strlen(at->plan.name) == name_bytes &&
            memcmp(at->plan.name, options->port, name_bytes) == 0) {
            return rsi_fail(error, RSI_E_STATE,
                            "dpdk_port: %s is open in this process already, with other settings; "
                            "use the same ones, or another device",
                            at->plan.name);
        }
    }
    return RSI_OK;
}

static rsi_status_t bring_up(struct rsi_eal_port *port, const struct rsi_dpdk_options *options,
                             struct rsi_error *error)
{
    struct rsi_eal_environment environment = {0};
    rsi_status_t status = rsi_eal_plan_make(&port->plan, options, error);
    if (status == RSI_OK) {
        status = rsi_eal_plan_claim(&port->claim_fd, &port->plan, options, error);
    }
    if (status == RSI_OK) {
        status = rsi_eal_start(&environment, options, &port->plan, error);
    }
    if (status != RSI_OK) {
        return status;
    }
    rsi_eal_capture_clear();
    status = probe(port, &environment, error);
    if (status == RSI_OK) {
        status = take_ownership(port, error);
    }
    if (status == RSI_OK) {
        status = configure(port, &environment, error);
    }
    if (status == RSI_OK) {
        status = start(port, options, error);
    }
    if (status == RSI_OK) {
        if (port->plan.driver == RSI_EAL_AF_PACKET) {
            port->packet_fd = rsi_eal_packet_fd(port->plan.interface);
        }
        if (port->can_interrupt || port->packet_fd >= 0) {
            port->base.operations = &waking_operations;
        }
        bool has_interface = port->plan.interface[0] != '\0';
        snprintf(port->base.name, sizeof(port->base.name), "%.40s%s%s%s", port->plan.name,
                 has_interface ? " (" : "", port->plan.interface, has_interface ? ")" : "");
        (void)rsi_text_copy(port->base.note, sizeof(port->base.note),
                            environment.note != NULL ? environment.note : "");
    }
    return status;
}

static rsi_status_t open_new(struct rsi_eal_port **opened, const struct rsi_dpdk_options *options,
                             struct rsi_error *error)
{
    struct rsi_eal_port *port = calloc(1, sizeof(*port));
    if (port == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a port of DPDK");
    }
    port->base.operations = &operations;
    port->claim_fd = -1;
    port->packet_fd = -1;
    rsi_status_t status = bring_up(port, options, error);
    if (status != RSI_OK) {
        take_down(port);
        return status;
    }
    port->next = ports;
    ports = port;
    *opened = port;
    return RSI_OK;
}

__attribute__((visibility("default"))) rsi_eal_port_open_fn rsi_eal_port_open;

rsi_status_t rsi_eal_port_open(struct rsi_port **port, const struct rsi_dpdk_options *options,
                               struct rsi_error *error)
{
    if (rsi_text_is_empty(options->port)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "dpdk_port: no device is named; give a PCI address, such as 0000:03:00.0, "
                        "or a virtual device, such as net_af_packet0,iface=eth1");
    }
    char *configuration = describe(options);
    if (configuration == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the name of a port");
    }
    struct rsi_eal_port *found = NULL;
    struct pipe_guard guard;
    pthread_mutex_lock(&ports_lock);
    guard_begin(&guard);
    rsi_status_t status = find_open(&found, options, configuration, error);
    if (status == RSI_OK && found == NULL) {
        status = open_new(&found, options, error);
        if (status == RSI_OK) {
            found->configuration = configuration;
            configuration = NULL;
        }
    }
    if (status == RSI_OK) {
        found->user_count++;
        *port = &found->base;
    }
    guard_end(&guard);
    pthread_mutex_unlock(&ports_lock);
    free(configuration);
    return status;
}
