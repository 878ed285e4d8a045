/*
 * What becomes readable when a frame comes, for who sleeps until then.
 *
 * Design notes
 * - virtio_user and vhost have receive interrupts: a descriptor of the queue, which is readable
 *   only while they are enabled. It is another one after the peer has come back, so it is asked for
 *   each time.
 * - The driver of af_packet has none, but its socket can be polled, and then is readable while the
 *   ring holds a frame. The driver does not tell its socket; it is found among this process's
 *   descriptors by what the driver gives it: the interface, and a number for its fan-out group. Who
 *   took another one for it would sleep longer than it should; frames would still be found.
 */
#include "transport/dpdk/eal/eal_internal.h"

#include <dirent.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <rte_ethdev.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_packet_socket(int fd, unsigned interface)
{
    struct sockaddr_ll bound = {0};
    socklen_t bound_bytes = sizeof(bound);
    int group = 0;
    socklen_t group_bytes = sizeof(group);
    return getsockname(fd, (struct sockaddr *)&bound, &bound_bytes) == 0 &&
           bound.sll_family == AF_PACKET && bound.sll_ifindex == (int)interface &&
           getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, &group_bytes) == 0 &&
           (group & 0xffff) == (int)(((unsigned)getpid() ^ interface) & 0xffff);
}

int rsi_eal_packet_fd(const char *interface)
{
    unsigned index = if_nametoindex(interface);
    DIR *folder = opendir("/proc/self/fd");
    int found = -1;
    if (folder == NULL) {
        return -1;
    }
    const struct dirent *entry;
    while (found < 0 && (entry = readdir(folder)) != NULL) {
        char *end = NULL;
        long fd = strtol(entry->d_name, &end, 10);
        if (end != entry->d_name && *end == '\0' && is_packet_socket((int)fd, index)) {
            found = (int)fd;
        }
    }
    closedir(folder);
    return found;
}

int rsi_eal_arm(struct rsi_port *port)
{
    const struct rsi_eal_port *eal = rsi_eal_port(port);
    if (!eal->can_interrupt) {
        return eal->packet_fd;
    }
    int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(eal->port_id, 0);
    return fd >= 0 && rte_eth_dev_rx_intr_enable(eal->port_id, 0) == 0 ? fd : -1;
}

void rsi_eal_disarm(struct rsi_port *port, int fd)
{
    const struct rsi_eal_port *eal = rsi_eal_port(port);
    struct pollfd told = {.fd = fd, .events = POLLIN};
    uint64_t count;
    if (!eal->can_interrupt) {
        return;
    }
    (void)rte_eth_dev_rx_intr_disable(eal->port_id, 0);
    if (poll(&told, 1, 0) == 1 && read(fd, &count, sizeof(count)) < 0) {
        return; /* somebody else took it */
    }
}
