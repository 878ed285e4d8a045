/*
 * The transports of this build. An explicit table, because a linker drops constructors of objects
 * in static libraries that nothing refers to.
 *
 * Each transport's folder defines the object of its name; registry.c lists them.
 */
#ifndef RSI_TRANSPORT_REGISTRY_H
#define RSI_TRANSPORT_REGISTRY_H

#include "transport/transport.h"

extern const struct rsi_transport rsi_shm_transport;
extern const struct rsi_transport rsi_tcp_transport;
extern const struct rsi_transport rsi_dpdk_transport;
extern const struct rsi_transport rsi_sim_transport; /* for tests: found by name, not by auto:// */
#if RSI_HAVE_RDMA
extern const struct rsi_transport rsi_rdma_transport;
#endif

#endif
