/*
 * The fault layer: a port around a port that does to received frames what a bad network does, as a
 * seed says. For tests, over a virtual port or a device.
 *
 *     fault:[seed=N][,drop=PPM][,duplicate=PPM][,reorder=PPM][,delay=PPM][,truncate=PPM]
 *           [,corrupt=PPM][,counters=PATH];PORT
 *
 * PPM: frames in a million. Reordered frames come up to eight frames later; delayed ones up to 64
 * looks at the port later.
 *
 * What it did is counted, in a file of counters (core/counters.h) where a PATH is given: frames in
 * fault.drop, fault.duplicate, ..., and in fault.lost_bytes the ring bytes of data that were
 * dropped, truncated or corrupted.
 */
#ifndef RSI_TRANSPORT_DPDK_FAULT_H
#define RSI_TRANSPORT_DPDK_FAULT_H

#include "transport/dpdk/port.h"

enum rsi_fault_kind {
    RSI_FAULT_DROP,
    RSI_FAULT_DUPLICATE,
    RSI_FAULT_REORDER,
    RSI_FAULT_DELAY,
    RSI_FAULT_TRUNCATE,
    RSI_FAULT_CORRUPT,
    RSI_FAULT_KIND_COUNT,
};

/* Whether `text` names one; then *inner is where the text of the port inside begins. */
bool rsi_fault_port_is_named(const char *text, const char **inner);
/* Takes over `inner`: closes it when it is closed. Errors: INVALID, NO_MEMORY, those of
 * rsi_counters_create; `inner` is then the caller's still. */
rsi_status_t rsi_fault_port_open(struct rsi_port **port, const char *text, struct rsi_port *inner,
                                 struct rsi_error *error);

/* Test hooks. `port`: the result of rsi_fault_port_open. */
uint64_t rsi_fault_port_count(const struct rsi_port *port, enum rsi_fault_kind kind);
uint64_t rsi_fault_port_lost_bytes(const struct rsi_port *port);
/* `drops` is asked for every received frame; true: it is lost. NULL: no more. Set it while nobody
 * receives. */
void rsi_fault_port_set_filter(struct rsi_port *port,
                               bool (*drops)(void *context, const struct rsi_port_frame *frame),
                               void *context);

#endif
