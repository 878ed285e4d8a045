/*
 * Where the broker meets the transports: a domain per transport in use, a poller per data agent and
 * transport, a listener per URL. The rest of the broker names no transport.
 *
 * Control thread only.
 */
#ifndef RSI_BROKER_ENDPOINTS_H
#define RSI_BROKER_ENDPOINTS_H

#include "broker/settings.h"
#include "transport/transport.h"

struct rsi_endpoint_domain {
    const struct rsi_transport *transport;
    struct rsi_domain *domain;
    struct rsi_poller *pollers[RSI_AGENT_COUNT_MAX];
    bool is_paused; /* nothing is accepted and the domain not watched until retry_ns */
    uint64_t retry_ns;
};

struct rsi_endpoint_listener {
    struct rsi_listener *listener;
    struct rsi_endpoint_domain *domain;
};

struct rsi_endpoints {
    struct rsi_dpdk_options dpdk; /* borrows texts of the settings; domains borrow it */
    struct rsi_endpoint_domain domains[RSI_TRANSPORT_COUNT_MAX];
    uint32_t domain_count;
    struct rsi_endpoint_listener listeners[RSI_LISTEN_COUNT_MAX];
    uint32_t listener_count;
    uint32_t agent_count;
};

/*
 * Opens every URL of the settings and gives the pollers to the data plane. A default URL of shm
 * that cannot be opened is a warning; every other failure ends it and leaves nothing to free.
 */
RSI_MUST_CHECK rsi_status_t rsi_endpoints_init(struct rsi_endpoints *endpoints,
                                               const struct rsi_settings *settings,
                                               struct rsi_data_plane *plane,
                                               struct rsi_waker *control_waker,
                                               uint64_t incarnation, struct rsi_error *error);
/* Nobody can connect any more. Idempotent. */
void rsi_endpoints_close_listeners(struct rsi_endpoints *endpoints);
/* No link is left and the data plane has stopped. Takes a zeroed or half-made struct. */
void rsi_endpoints_fini(struct rsi_endpoints *endpoints);

#endif
