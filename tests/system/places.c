/*
 * Design notes
 * - A place is where a process has a port of its own: a network namespace, with af_packet
 *   (tests/dpdk/netns: its name is in $NETNS_n), or a socket of a switch, with virtio_user
 *   (tests/dpdk/switched: its path is in $SWITCH_n). They are made before the test and outlive it.
 *   Each has an address and a MAC of its own, as a host has: who comes after another one there has
 *   the same. Broker n is at n + 1, so that a second run is found again; clients take the free ones
 *   from the end.
 * - Who is at a place holds a lock on its file until it ends, however that happens. So what is
 *   free needs no table, and a killed process's place is taken by the next one, as hosts do it.
 *   The lock goes just before the connection to the switch does: the next process is still
 *   starting DPDK then.
 * - Only the calling thread moves, so it happens before there is a second one.
 * - $RINGSIDE_DPDK_FAULTS puts a bad network around every device, each with a seed of its own and
 *   with counters in the test's folder.
 */
#include "tests/system/harness_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

enum { ADDRESS_OFFSET = 100 }; /* from the number that the kernel has to that of dpdk:// */

static const char *numbered(const char *name, unsigned number)
{
    char variable[32];
    snprintf(variable, sizeof(variable), "%s_%u", name, number);
    return getenv(variable);
}

/* NULL: it is no namespace, or not there. */
static const char *namespace_of(unsigned number)
{
    return numbered("NETNS", number);
}

static const char *socket_of(unsigned number)
{
    return numbered("SWITCH", number);
}

static bool is_made(unsigned number)
{
    return namespace_of(number) != NULL || socket_of(number) != NULL;
}

static void name_device(char *device, size_t device_bytes, unsigned number)
{
    if (namespace_of(number) != NULL) {
        snprintf(device, device_bytes, "net_af_packet0,iface=dpdk0");
    } else {
        snprintf(device, device_bytes, "net_virtio_user0,path=%.200s,mac=02:00:0a:4d:00:%02x",
                 socket_of(number), number);
    }
}

/* With the faults around it that are asked for. Static memory. */
static const char *port_of(unsigned number)
{
    static char port[3 * PATH_BYTES];
    char device[PATH_BYTES];
    char file[32];
    char path[PATH_BYTES];
    const char *faults = getenv("RINGSIDE_DPDK_FAULTS");
    name_device(device, sizeof(device), number);
    snprintf(file, sizeof(file), "%u" FAULT_COUNTERS, number);
    if (faults == NULL) {
        snprintf(port, sizeof(port), "%s", device);
    } else {
        snprintf(port, sizeof(port), "fault:%s,seed=%" PRIu64 ",counters=%s;%s", faults,
                 options.seed + number, test_path(path, file), device);
    }
    return port;
}

bool rsi_places_are_made(void)
{
    return is_made(1);
}

const char *rsi_places_broker_host(size_t broker_index)
{
    static char host[32];
    snprintf(host, sizeof(host), "10.77.0.%zu", ADDRESS_OFFSET + broker_index + 1);
    return host;
}

/* False when somebody is there. */
static bool enter(unsigned number)
{
    char path[PATH_BYTES];
    bool is_namespace = namespace_of(number) != NULL;
    if (is_namespace) {
        snprintf(path, sizeof(path), "/run/netns/%.200s", namespace_of(number));
    } else {
        snprintf(path, sizeof(path), "%.200s.lock", socket_of(number));
    }
    /* A program that is executed keeps it, and the lock with it. */
    int fd = open(path, is_namespace ? O_RDONLY : O_RDONLY | O_CREAT, 0600);
    check(fd >= 0, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return false;
    }
    check(!is_namespace || setns(fd, CLONE_NEWNET) == 0, "entering %s: %s", path, strerror(errno));
    return true;
}

size_t rsi_places_broker_flags(const char **list, size_t broker_index)
{
    static char port[3 * PATH_BYTES + 16];
    static char address[64];
    snprintf(port, sizeof(port), "--dpdk-port=%s", port_of((unsigned)broker_index + 1));
    snprintf(address, sizeof(address), "--dpdk-address=%s/24",
             rsi_places_broker_host(broker_index));
    list[0] = port;
    list[1] = address;
    return 2;
}

void rsi_places_enter_broker(size_t broker_index)
{
    unsigned number = (unsigned)broker_index + 1;
    check(is_made(number), "there is no place %u", number);
    /* The last test's broker may just be dying. */
    await(enter(number), "somebody stays at place %u", number);
}

void rsi_places_enter_client(void)
{
    unsigned count = 0;
    char address[32];
    while (is_made(count + 1)) {
        count++;
    }
    while (count > 0 && !enter(count)) {
        count--;
    }
    check(count > 0, "more processes than places: tests/dpdk/run says how many");
    snprintf(address, sizeof(address), "10.77.0.%u/24", ADDRESS_OFFSET + count);
    setenv("RINGSIDE_DPDK_PORT", port_of(count), 1);
    setenv("RINGSIDE_DPDK_ADDRESS", address, 1);
}
