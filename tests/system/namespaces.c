/*
 * Design notes
 * - The namespaces are made before the test and outlive it (tests/dpdk/netns): their names are in
 *   $NETNS_1, $NETNS_2, ... Broker n is in n + 1, on an address that a second run finds again;
 *   clients take the free ones from the end.
 * - Who is in a namespace holds a lock on its file until it ends, however that happens. So what is
 *   free needs no table, and a killed process's place is taken by the next one, as hosts do it.
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

#define DPDK_PORT "net_af_packet0,iface=dpdk0"

/* With the faults around it that are asked for. Static memory. */
static const char *device_in(unsigned number)
{
    static char text[2 * PATH_BYTES];
    char file[32];
    char path[PATH_BYTES];
    const char *faults = getenv("RINGSIDE_DPDK_FAULTS");
    if (faults == NULL) {
        return DPDK_PORT;
    }
    snprintf(file, sizeof(file), "%u" FAULT_COUNTERS, number);
    snprintf(text, sizeof(text), "fault:%s,seed=%" PRIu64 ",counters=%s;" DPDK_PORT, faults,
             options.seed + number, test_path(path, file));
    return text;
}

static const char *name_of(unsigned number)
{
    char variable[32];
    snprintf(variable, sizeof(variable), "NETNS_%u", number);
    return getenv(variable);
}

bool rsi_namespaces_are_made(void)
{
    return name_of(1) != NULL;
}

const char *rsi_namespaces_broker_host(size_t broker_index)
{
    static char host[32];
    snprintf(host, sizeof(host), "10.77.0.%zu", ADDRESS_OFFSET + broker_index + 1);
    return host;
}

/* False when somebody is in it. */
static bool enter(unsigned number)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "/run/netns/%.200s", name_of(number));
    int fd = open(path, O_RDONLY); /* a program that is executed keeps it, and the lock with it */
    check(fd >= 0, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return false;
    }
    check(setns(fd, CLONE_NEWNET) == 0, "entering %s: %s", path, strerror(errno));
    return true;
}

size_t rsi_namespaces_broker_flags(const char **list, size_t broker_index)
{
    static char address[64];
    static char port[2 * PATH_BYTES + 32];
    snprintf(port, sizeof(port), "--dpdk-port=%s", device_in((unsigned)broker_index + 1));
    snprintf(address, sizeof(address), "--dpdk-address=%s/24",
             rsi_namespaces_broker_host(broker_index));
    list[0] = port;
    list[1] = address;
    return 2;
}

void rsi_namespaces_enter_broker(size_t broker_index)
{
    unsigned number = (unsigned)broker_index + 1;
    check(name_of(number) != NULL, "there is no namespace %u", number);
    /* The last test's broker may just be dying. */
    await(enter(number), "somebody stays in %s", name_of(number));
}

void rsi_namespaces_enter_client(void)
{
    unsigned count = 0;
    char address[32];
    while (name_of(count + 1) != NULL) {
        count++;
    }
    while (count > 0 && !enter(count)) {
        count--;
    }
    check(count > 0, "more processes than namespaces: tests/dpdk/netns COUNT");
    snprintf(address, sizeof(address), "10.77.0.%u/24", ADDRESS_OFFSET + count);
    setenv("RINGSIDE_DPDK_PORT", device_in(count), 1);
    setenv("RINGSIDE_DPDK_ADDRESS", address, 1);
}
