/*
 * Design notes
 * - The order is the order of auto://: what is cheapest for a message comes first. sim is no
 * transport between processes, so auto:// never tries it.
 * - dpdk is in every build; it needs its plugin and a configured port only when it is used, and
 *   auto:// leaves it out where no port is configured.
 * - rdma is in the build when rdma-core was found (RSI_HAVE_RDMA).
 */
#include "transport/registry.h"

#include <string.h>

const struct rsi_transport *const rsi_transports[] = {
    &rsi_shm_transport,
#if RSI_HAVE_RDMA
    &rsi_rdma_transport,
#endif
    &rsi_dpdk_transport, &rsi_tcp_transport, NULL,
};

const struct rsi_transport *rsi_transport_find(const char *name)
{
    for (uint32_t i = 0; rsi_transports[i] != NULL; i++) {
        if (strcmp(rsi_transports[i]->name, name) == 0) {
            return rsi_transports[i];
        }
    }
    return strcmp(rsi_sim_transport.name, name) == 0 ? &rsi_sim_transport : NULL;
}
