/*
 * A virtual Ethernet inside one process: switches with names, and ports on them. For tests, and for
 * trying things out without a device or rights.
 *
 *     virtual:NAME[,mtu=1500][,receive=512][,latency=NS][,wakes=0][,tails=0]
 *
 * `receive` is how many frames a port holds before it loses the newest in silence, as af_packet
 * does. `latency` counts on a clock that the test sets; without it frames are there at once. With
 * `wakes` a frame wakes who armed the port. With `tails` it takes tails of any length.
 */
#ifndef RSI_TRANSPORT_DPDK_VIRTUAL_H
#define RSI_TRANSPORT_DPDK_VIRTUAL_H

#include "transport/dpdk/port.h"

/* Whether `text` names such a port. */
bool rsi_virtual_port_is_named(const char *text);
/* Control thread. Errors: INVALID (arguments), NO_MEMORY. */
rsi_status_t rsi_virtual_port_open(struct rsi_port **port, const char *text, const uint8_t *mac,
                                   struct rsi_error *error);

/* Test hooks. Any thread. The switch exists as long as a port is on it. */
void rsi_virtual_set_now(const char *name, uint64_t now_ns);
/* Frames that its ports lost because they held `receive` already. */
uint64_t rsi_virtual_overflow_count(const char *name);

#endif
