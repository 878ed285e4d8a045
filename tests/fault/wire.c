/*
 * Design notes
 * - The host's kernel has no netem. A silent cut is made by wrong link addresses of the neighbours,
 * at both ends: what is sent reaches the other end and is dropped there as somebody else's.
 * - Namespaces live as long as the test's processes; nothing is to be cleaned up.
 * - In the machine both ends are one kernel (tests/vm/setup-wire) and netem takes what is sent. To
 * cut rdma alone, its UDP port is led into a band of its own.
 * - Over dpdk the broker's port leaves the bridge, or the switch is told to pass nothing there.
 */
#include "tests/fault/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define BROKER_HOST "10.77.0.1"
#define CLIENT_HOST "10.77.0.2"
#define BROKER_MAC  "02:00:0a:4d:00:01"
#define CLIENT_MAC  "02:00:0a:4d:00:02"
#define DPDK_HOST   "10.77.0.101" /* of the first broker: tests/system/places.c */
#define NOBODYS_MAC "02:00:0a:4d:00:99"

static int broker_end_fd = -1;
static int client_end_fd = -1;

static bool is_machine(void)
{
    return getenv("RINGSIDE_VM") != NULL;
}

static void run(const char *command)
{
    check(system(command) == 0, "failed: %s", command);
}

static bool is_bridge(void)
{
    return is_transport("dpdk");
}

/* How the bridge's port is set, or what tells the switch (tests/dpdk/switch.c) the same. */
static void set_bridge_port(const char *how, int switch_signal)
{
    const char *switch_pid = getenv("SWITCH_PID");
    char command[128];
    if (switch_pid != NULL) {
        check(kill((pid_t)strtol(switch_pid, NULL, 10), switch_signal) == 0, "the switch: %s",
              strerror(errno));
        return;
    }
    snprintf(command, sizeof(command), "ip -n \"$NETNS_BRIDGE\" link set to1 %s", how);
    run(command);
}

static int new_namespace(void)
{
    return unshare(CLONE_NEWNET) == 0 ? open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC) : -1;
}

static void enter(int namespace_fd)
{
    check(setns(namespace_fd, CLONE_NEWNET) == 0, "setns: %s", strerror(errno));
}

bool wire_make(void)
{
    char command[512];
    if (is_machine()) {
        /* What a test that failed left behind. */
        (void)!system("tc qdisc del dev va root 2>/dev/null; tc qdisc del dev vb root 2>/dev/null");
        return true;
    }
    if (is_bridge()) {
        set_bridge_port("master bridge0 up", SIGUSR2); /* likewise */
        return true;
    }
    client_end_fd = new_namespace();
    broker_end_fd = new_namespace();
    if (client_end_fd < 0 || broker_end_fd < 0) {
        return false;
    }
    snprintf(command, sizeof(command),
             "ip link set lo up && "
             "ip link add va address " BROKER_MAC " type veth peer name vb address " CLIENT_MAC
             " netns /proc/%d/fd/%d && ip addr add " BROKER_HOST "/24 dev va && ip link set va up",
             (int)getpid(), client_end_fd);
    run(command);
    enter(client_end_fd);
    run("ip link set lo up && ip addr add " CLIENT_HOST "/24 dev vb && ip link set vb up");
    enter(broker_end_fd);
    wire_mend(WIRE_SILENT);
    return true;
}

const char *wire_broker_host(void)
{
    if (is_bridge()) {
        return DPDK_HOST;
    }
    return is_machine() ? getenv("RINGSIDE_VM_ADDR_A") : BROKER_HOST;
}

void wire_enter_client_end(void)
{
    if (!is_machine() && !is_bridge()) {
        enter(client_end_fd);
    }
}

static void set_neighbours(const char *broker_mac, const char *client_mac)
{
    char command[256];
    snprintf(command, sizeof(command),
             "ip neigh replace " CLIENT_HOST " lladdr %s dev va nud permanent", client_mac);
    run(command);
    enter(client_end_fd);
    snprintf(command, sizeof(command),
             "ip neigh replace " BROKER_HOST " lladdr %s dev vb nud permanent", broker_mac);
    run(command);
    enter(broker_end_fd);
}

static void cut_roce(const char *port)
{
    char command[1024];
    snprintf(command, sizeof(command),
             "tc qdisc add dev %s root handle 1: prio bands 2 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 "
             "0 0 && tc qdisc add dev %s parent 1:2 handle 20: netem loss 100%% && "
             "tc filter add dev %s parent 1: protocol ip u32 match ip protocol 17 0xff "
             "match ip dport 4791 0xffff flowid 1:2",
             port, port, port);
    run(command);
}

void wire_cut(enum wire_cut cut)
{
    if (is_machine() && cut == WIRE_BYPASS) {
        cut_roce("va");
        cut_roce("vb");
    } else if (is_machine()) {
        run("tc qdisc add dev va root netem loss 100% && tc qdisc add dev vb root netem loss 100%");
    } else if (is_bridge()) {
        set_bridge_port(cut == WIRE_DOWN ? "down" : "nomaster", SIGUSR1);
    } else if (cut == WIRE_DOWN) {
        run("ip link set va down");
    } else {
        set_neighbours(NOBODYS_MAC, NOBODYS_MAC);
    }
}

void wire_mend(enum wire_cut cut)
{
    if (is_machine()) {
        run("tc qdisc del dev va root && tc qdisc del dev vb root");
        return;
    }
    if (is_bridge()) {
        set_bridge_port(cut == WIRE_DOWN ? "up" : "master bridge0", SIGUSR2);
        return;
    }
    if (cut == WIRE_DOWN) {
        run("ip link set va up");
    }
    set_neighbours(BROKER_MAC, CLIENT_MAC);
}
