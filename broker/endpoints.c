/*
 * Design notes
 * - Agents get their links in turn (control_agent.c), so every agent has a poller of every
 * transport in use from the start, although it may never get a link of it.
 * - A failure names the URL. Defaults are made for a daemon run by root; a person who tries the
 * broker from a shell may lack the right to make /run/ringside, and then goes on without shm.
 */
#include "broker/endpoints.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { SPARE_LINK_COUNT = 64 }; /* links that are being closed beside those counted */

static struct rsi_endpoint_domain *find_domain(struct rsi_endpoints *endpoints,
                                               const struct rsi_transport *transport)
{
    for (uint32_t i = 0; i < endpoints->domain_count; i++) {
        if (endpoints->domains[i].transport == transport) {
            return &endpoints->domains[i];
        }
    }
    return NULL;
}

static void close_domain(struct rsi_endpoint_domain *domain)
{
    for (uint32_t i = 0; i < RSI_AGENT_COUNT_MAX; i++) {
        if (domain->pollers[i] != NULL) {
            domain->transport->poller_destroy(domain->pollers[i]);
        }
    }
    domain->transport->domain_destroy(domain->domain);
    memset(domain, 0, sizeof(*domain));
}

static rsi_status_t open_domain(struct rsi_endpoints *endpoints,
                                const struct rsi_settings *settings,
                                const struct rsi_transport *transport, struct rsi_data_plane *plane,
                                struct rsi_waker *control_waker, uint64_t incarnation,
                                struct rsi_error *error)
{
    uint64_t ring_bytes_max = settings->publish_ring_bytes_max > settings->deliver_ring_bytes_max
                                  ? settings->publish_ring_bytes_max
                                  : settings->deliver_ring_bytes_max;
    const struct rsi_domain_options options = {
        .bind_host = settings->bind_host[0] != '\0' ? settings->bind_host : NULL,
        .device = settings->device[0] != '\0' ? settings->device : NULL,
        .allowed_uids = settings->allowed_uids,
        .allowed_uid_count = settings->allowed_uid_count,
        .trusted_fabric = settings->trusted_fabric,
        .ring_bytes_max = ring_bytes_max,
        .node = -1,
        .incarnation = incarnation,
        .lock_memory = settings->lock_memory,
        .connect_timeout_ns = settings->authenticate_timeout_ns,
        .dpdk = settings->dpdk_port[0] != '\0' ? &endpoints->dpdk : NULL,
    };
    rsi_assert(endpoints->domain_count < RSI_TRANSPORT_COUNT_MAX);
    struct rsi_endpoint_domain *domain = &endpoints->domains[endpoints->domain_count];
    memset(domain, 0, sizeof(*domain));
    rsi_status_t status = transport->domain_create(&domain->domain, &options, error);
    if (rsi_failed(status)) {
        return status;
    }
    domain->transport = transport;
    for (uint32_t i = 0; i < endpoints->agent_count; i++) {
        const struct rsi_poller_options poller_options = {
            .link_count_max =
                (uint32_t)(settings->client_count_max + settings->unauthenticated_count_max) +
                SPARE_LINK_COUNT,
            .control_waker = control_waker,
            .owner_waker = rsi_data_plane_waker(plane, i),
        };
        status =
            transport->poller_create(&domain->pollers[i], domain->domain, &poller_options, error);
        if (rsi_failed(status)) {
            goto close_domain;
        }
    }
    /* Only now: the plane keeps what it is given, so nothing may fail between two of them. */
    for (uint32_t i = 0; i < endpoints->agent_count; i++) {
        status = rsi_data_plane_add_poller(plane, i, domain->pollers[i], error);
        if (rsi_failed(status)) {
            goto close_domain;
        }
    }
    endpoints->domain_count++;
    return RSI_OK;

close_domain:
    close_domain(domain);
    return status;
}

/* Makes the directory of a default socket: "/run/ringside" for "/run/ringside/broker-7400.sock". */
static rsi_status_t make_default_directory(const char *path, struct rsi_error *error)
{
    char directory[RSI_SETTING_TEXT_BYTES];
    const char *slash = strrchr(path, '/');
    size_t bytes = slash != NULL ? (size_t)(slash - path) : 0;
    if (bytes == 0 || bytes >= sizeof(directory)) {
        return RSI_OK;
    }
    memcpy(directory, path, bytes);
    directory[bytes] = '\0';
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        return rsi_fail_errno(error, RSI_E_PERMISSION, errno, "cannot make the directory %s",
                              directory);
    }
    return RSI_OK;
}

static rsi_status_t open_listener(struct rsi_endpoints *endpoints,
                                  const struct rsi_settings *settings, const char *text,
                                  struct rsi_data_plane *plane, struct rsi_waker *control_waker,
                                  uint64_t incarnation, struct rsi_error *error)
{
    struct rsi_url url;
    rsi_status_t status = rsi_url_parse(&url, text, error);
    if (rsi_failed(status)) {
        return status;
    }
    const struct rsi_transport *transport = rsi_transport_find(url.scheme);
    if (transport == NULL) {
        return rsi_fail(error, RSI_E_UNSUPPORTED,
                        "this build has no transport '%s'; ringsided --help shows the usual ones",
                        url.scheme);
    }
    if (settings->listen_is_default && url.path[0] == '/') {
        status = make_default_directory(url.path, error);
    }
    if (rsi_failed(status)) {
        return status;
    }

    struct rsi_endpoint_domain *domain = find_domain(endpoints, transport);
    if (domain == NULL) {
        status =
            open_domain(endpoints, settings, transport, plane, control_waker, incarnation, error);
        if (rsi_failed(status)) {
            return status;
        }
        domain = &endpoints->domains[endpoints->domain_count - 1];
    }
    struct rsi_endpoint_listener *listener = &endpoints->listeners[endpoints->listener_count];
    status = transport->listener_create(&listener->listener, domain->domain, &url, error);
    if (rsi_failed(status)) {
        return status;
    }
    listener->domain = domain;
    endpoints->listener_count++;
    return RSI_OK;
}

rsi_status_t rsi_endpoints_init(struct rsi_endpoints *endpoints,
                                const struct rsi_settings *settings, struct rsi_data_plane *plane,
                                struct rsi_waker *control_waker, uint64_t incarnation,
                                struct rsi_error *error)
{
    memset(endpoints, 0, sizeof(*endpoints));
    endpoints->agent_count = (uint32_t)settings->agent_count;
    rsi_settings_dpdk(settings, &endpoints->dpdk);
    for (uint32_t i = 0; i < settings->listen_count; i++) {
        const char *text = settings->listen[i];
        struct rsi_error failure = {0};
        rsi_status_t status =
            open_listener(endpoints, settings, text, plane, control_waker, incarnation, &failure);
        if (!rsi_failed(status)) {
            continue;
        }
        bool is_optional = settings->listen_is_default && i > 0;
        if (is_optional) {
            rsi_log_warning("broker",
                            "no listener at %s, clients on this host will use another transport: "
                            "%s; run as root, or choose a path with --listen",
                            text, failure.text);
            continue;
        }
        if (strstr(failure.text, text) == NULL) {
            rsi_error_context(&failure, "cannot listen on %s", text);
        }
        if (error != NULL) {
            *error = failure;
        }
        rsi_endpoints_fini(endpoints);
        return status;
    }
    return RSI_OK;
}

void rsi_endpoints_close_listeners(struct rsi_endpoints *endpoints)
{
    for (uint32_t i = 0; i < endpoints->listener_count; i++) {
        struct rsi_endpoint_listener *listener = &endpoints->listeners[i];
        listener->domain->transport->listener_destroy(listener->listener);
    }
    endpoints->listener_count = 0;
}

void rsi_endpoints_fini(struct rsi_endpoints *endpoints)
{
    rsi_endpoints_close_listeners(endpoints);
    for (uint32_t i = 0; i < endpoints->domain_count; i++) {
        close_domain(&endpoints->domains[i]);
    }
    memset(endpoints, 0, sizeof(*endpoints));
}
