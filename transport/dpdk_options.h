/*
 * What a user says about the device of dpdk://, and how its texts are read.
 *
 * Beside the transport, not inside it: the broker's settings and the client's options hold these
 * texts and refuse a wrong one when they read it, long before a device is touched.
 */
#ifndef RSI_TRANSPORT_DPDK_OPTIONS_H
#define RSI_TRANSPORT_DPDK_OPTIONS_H

#include "core/error.h"

#include <stdbool.h>
#include <stdint.h>

#define RSI_DPDK_MTU_MIN 576u   /* what every IPv4 host can take */
#define RSI_DPDK_MTU_MAX 16000u /* beyond it no driver is known to work */

/* Strings are borrowed; NULL or empty, and 0: not said. */
struct rsi_dpdk_options {
    const char *port;    /* a PCI address, or a vdev as DPDK writes it: "net_af_packet0,iface=e0" */
    const char *address; /* this end's IPv4 address and prefix: "10.7.0.1/24" */
    const char *gateway; /* for what the prefix does not hold; NULL: nothing beyond the prefix */
    const char *mac;     /* "02:00:00:00:00:01"; NULL: the device's own */
    uint32_t mtu;        /* bytes of IPv4 header and what follows it; 0: the device's */
    const char *cores;   /* "0-3,8": where DPDK's own threads run; NULL: as this thread */
    uint64_t memory_bytes;     /* that EAL sets aside when it starts; 0: enough for one port */
    bool no_huge;              /* do without huge pages */
    const char *file_prefix;   /* of the files that EAL makes; NULL: one of this process */
    const char *eal_arguments; /* further ones, separated by spaces */
    uint64_t idle_ns; /* longest sleep between two looks at a port that wakes nobody; 0: 1 ms */
};

/* Host byte order. */
struct rsi_dpdk_address {
    uint32_t address;
    uint32_t prefix_bits; /* 1 to 31 */
};

/* How a port text names its device. A fault layer around it ("fault:drop=1000;PORT", for tests)
 * changes nothing of it. */
enum rsi_dpdk_port_kind {
    RSI_DPDK_PORT_PCI,
    RSI_DPDK_PORT_VDEV,
    RSI_DPDK_PORT_VIRTUAL, /* for tests: "virtual:NAME", no device; see transport/dpdk/README.md */
};

/* Any thread, no system call. RSI_E_INVALID with a text that quotes what is wrong and shows what is
 * right; the option is not named: the caller knows how the user calls it. */
RSI_MUST_CHECK rsi_status_t rsi_dpdk_parse_port(enum rsi_dpdk_port_kind *kind, const char *text,
                                                struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_dpdk_parse_address(struct rsi_dpdk_address *address,
                                                   const char *text, struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_dpdk_parse_gateway(uint32_t *gateway, const char *text,
                                                   struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_dpdk_parse_mac(uint8_t mac[6], const char *text,
                                               struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_dpdk_parse_cores(const char *text, struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_dpdk_parse_file_prefix(const char *text, struct rsi_error *error);
RSI_MUST_CHECK rsi_status_t rsi_dpdk_parse_eal_arguments(const char *text, struct rsi_error *error);

/* Each of them as above, and what must fit together: a port wants an address, a gateway lies inside
 * the prefix. Errors name the option: "dpdk_address: ...". */
RSI_MUST_CHECK rsi_status_t rsi_dpdk_options_check(const struct rsi_dpdk_options *options,
                                                   struct rsi_error *error);

#endif
