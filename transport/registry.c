/*
 * Design notes
 * - The order is the order of auto://: what is cheapest for a message comes first. sim is no
 * transport between processes, so auto:// never tries it.
 * - CMake says which folders are in this build (RSI_WITH_...); rdma depends on rdma-core.
 */
#include "transport/registry.h"

#include <string.h>

const struct rsi_transport *const rsi_transports[] = {
#ifdef RSI_WITH_SHM
    &rsi_shm_transport,
#endif
#ifdef RSI_WITH_RDMA
    &rsi_rdma_transport,
#endif
#ifdef RSI_WITH_TCP
    &rsi_tcp_transport,
#endif
    NULL,
};

const struct rsi_transport *rsi_transport_find(const char *name)
{
    for (uint32_t i = 0; rsi_transports[i] != NULL; i++) {
        if (strcmp(rsi_transports[i]->name, name) == 0) {
            return rsi_transports[i];
        }
    }
#ifdef RSI_WITH_SIM
    if (strcmp(rsi_sim_transport.name, name) == 0) {
        return &rsi_sim_transport;
    }
#endif
    return NULL;
}
