/*
 * The flags for the device of dpdk://.
 *
 * Design notes
 * - Texts are only passed on: libringside reads them, and says what is wrong with them by the same
 *   names.
 */
#include "clients/cli/cli.h"
#include "clients/cli/connection.h"
#include "core/text.h"

#include <string.h>

enum {
    KEY_PORT = 0x2100,
    KEY_ADDRESS,
    KEY_GATEWAY,
    KEY_MAC,
    KEY_MTU,
    KEY_CORES,
    KEY_MEMORY,
    KEY_HUGE,
    KEY_FILE_PREFIX,
    KEY_EAL_ARGUMENTS,
    KEY_IDLE,
};

#define MTU_MAX    16000
#define MEMORY_MAX (UINT64_C(1) << 36)

static const struct argp_option dpdk_flags[] = {
    {"dpdk-port", KEY_PORT, "PORT", 0,
     "PCI address, such as 0000:03:00.0, or virtual device, such as net_af_packet0,iface=eth1", 0},
    {"dpdk-address", KEY_ADDRESS, "ADDRESS/BITS", 0,
     "Its IPv4 address, which the kernel must not have, and prefix, such as 10.7.0.2/24", 0},
    {"dpdk-gateway", KEY_GATEWAY, "ADDRESS", 0, "Router for what is outside the prefix", 0},
    {"dpdk-mac", KEY_MAC, "MAC", 0, "Such as 02:00:00:00:00:01. Default: the device's own", 0},
    {"dpdk-mtu", KEY_MTU, "N", 0, "Largest IPv4 packet, 576 to 16000. Default: the device's", 0},
    {"dpdk-cores", KEY_CORES, "LIST", 0, "CPUs for DPDK's own threads, such as 0-3,8. Default: any",
     0},
    {"dpdk-memory", KEY_MEMORY, "SIZE", 0,
     "Memory that DPDK sets aside when it starts, such as 256MiB. Default: what the port needs", 0},
    {"dpdk-huge", KEY_HUGE, "yes|no", 0,
     "Whether DPDK uses huge pages where there are enough. Default: yes", 0},
    {"dpdk-file-prefix", KEY_FILE_PREFIX, "NAME", 0,
     "Name by which DPDK tells processes apart. Default: one of this process", 0},
    {"dpdk-eal-arguments", KEY_EAL_ARGUMENTS, "ARGUMENTS", 0,
     "Further arguments for DPDK's environment, such as --iova-mode=va", 0},
    {"dpdk-idle", KEY_IDLE, "TIME", 0,
     "Longest sleep between two looks at a port that wakes nobody, such as 200us. Default: 1ms", 0},
    {0},
};

static int read_huge_flag(struct argp_state *state, const char *text)
{
    if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0) {
        argp_error(state, "--dpdk-huge: '%s' is not known; use yes or no", text);
    }
    return strcmp(text, "no") == 0;
}

static error_t parse_dpdk(int key, char *arg, struct argp_state *state)
{
    ringside_dpdk_t *dpdk = state->input;
    switch (key) {
    case KEY_PORT:
        dpdk->port = arg;
        return 0;
    case KEY_ADDRESS:
        dpdk->address = arg;
        return 0;
    case KEY_GATEWAY:
        dpdk->gateway = arg;
        return 0;
    case KEY_MAC:
        dpdk->mac = arg;
        return 0;
    case KEY_MTU:
        dpdk->mtu = (uint32_t)rsi_flag_number(state, "--dpdk-mtu", arg, 1, MTU_MAX);
        return 0;
    case KEY_CORES:
        dpdk->cores = arg;
        return 0;
    case KEY_MEMORY:
        dpdk->memory_bytes = rsi_flag_size(state, "--dpdk-memory", arg, 1, MEMORY_MAX);
        return 0;
    case KEY_HUGE:
        dpdk->no_huge = read_huge_flag(state, arg);
        return 0;
    case KEY_FILE_PREFIX:
        dpdk->file_prefix = arg;
        return 0;
    case KEY_EAL_ARGUMENTS:
        dpdk->eal_arguments = arg;
        return 0;
    case KEY_IDLE:
        dpdk->idle_ns = rsi_flag_duration(state, "--dpdk-idle", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp rsi_dpdk_argp = {
    .options = dpdk_flags,
    .parser = parse_dpdk,
};
