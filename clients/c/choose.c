/*
 * From a URL to the transports that are tried for it.
 *
 * Design notes
 * - auto:// tries what is cheapest per message first: shared memory, when the broker is on this
 * host and its socket is there; rdma; dpdk, when a port is configured; tcp. What cannot be tried
 *   is left out with its reason, and the reasons are kept: "why is this slow" is answered by
 * ringside_transport_why.
 * - "On this host" is decided by address, not by name: a loopback address or one of this host's
 *   interfaces. A container with an address of its own is another host, unless it shares the
 *   socket's directory and is given a shm:// URL.
 * - A name is resolved once, when the client connects: asking the resolver can take seconds, and a
 *   session that looks for its broker again does so inside calls that must not wait.
 */
#include "clients/c/client.h"

#include "core/text.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RUN_DIRECTORY_DEFAULT "/run/ringside"

static void leave_out(struct rsi_client_candidates *candidates, const char *name, const char *why)
{
    size_t used_bytes = strlen(candidates->why_not);
    snprintf(candidates->why_not + used_bytes, sizeof(candidates->why_not) - used_bytes, "%s: %s; ",
             name, why);
}

static void add(struct rsi_client_candidates *candidates, const struct rsi_transport *transport,
                const struct rsi_url *url)
{
    rsi_assert(candidates->count < RSI_CLIENT_CANDIDATES_MAX);
    candidates->list[candidates->count].transport = transport;
    candidates->list[candidates->count].url = *url;
    (void)rsi_text_copy(candidates->list[candidates->count].url.scheme, sizeof(url->scheme),
                        transport->name);
    candidates->count++;
}

/* ---- is the broker on this host? ---------------------------------------------------------------
 */

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->ss_family == AF_INET6) {
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    }
    return false;
}

static bool is_same_host(const struct sockaddr_storage *address, const struct sockaddr *own)
{
    if (own == NULL || own->sa_family != address->ss_family) {
        return false;
    }
    if (address->ss_family == AF_INET) {
        return ((const struct sockaddr_in *)address)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)own)->sin_addr.s_addr;
    }
    if (address->ss_family == AF_INET6) {
        return memcmp(&((const struct sockaddr_in6 *)address)->sin6_addr,
                      &((const struct sockaddr_in6 *)(const void *)own)->sin6_addr,
                      sizeof(struct in6_addr)) == 0;
    }
    return false;
}

static bool is_own_address(const struct sockaddr_storage *address)
{
    if (is_loopback(address)) {
        return true;
    }
    struct ifaddrs *interfaces = NULL;
    if (getifaddrs(&interfaces) != 0) {
        return false;
    }
    bool is_own = false;
    for (const struct ifaddrs *one = interfaces; one != NULL && !is_own; one = one->ifa_next) {
        is_own = is_same_host(address, one->ifa_addr);
    }
    freeifaddrs(interfaces);
    return is_own;
}

/* ---- candidates --------------------------------------------------------------------------------
 */

static rsi_status_t add_local(struct rsi_client_candidates *candidates,
                              const struct rsi_transport *transport, const struct rsi_url *url,
                              struct rsi_error *error)
{
    struct sockaddr_storage address;
    socklen_t address_bytes;
    rsi_status_t status = rsi_url_resolve(url, false, &address, &address_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    char why[RSI_PATH_BYTES_MAX + 64];
    if (!is_own_address(&address)) {
        snprintf(why, sizeof(why), "%.64s is not this host", url->host);
        leave_out(candidates, transport->name, why);
        return RSI_OK;
    }

    struct rsi_url local = {.port = 0};
    const char *directory = getenv("RINGSIDE_RUN_DIR");
    if (directory == NULL || directory[0] == 0) {
        directory = RUN_DIRECTORY_DEFAULT;
    }
    int path_bytes = snprintf(local.path, sizeof(local.path), "%s/broker-%u.sock", directory,
                              (unsigned)url->port);
    if (path_bytes >= (int)sizeof(local.path)) {
        leave_out(candidates, transport->name, "the path in RINGSIDE_RUN_DIR is too long");
        return RSI_OK;
    }
    struct stat file;
    if (stat(local.path, &file) != 0 || !S_ISSOCK(file.st_mode)) {
        snprintf(why, sizeof(why), "no socket %s", local.path);
        leave_out(candidates, transport->name, why);
        candidates->is_local_absent = true;
        return RSI_OK;
    }
    add(candidates, transport, &local);
    return RSI_OK;
}

static rsi_status_t choose_all(struct rsi_client_candidates *candidates, const struct rsi_url *url,
                               bool has_dpdk_port, struct rsi_error *error)
{
    static const char *const names[] = {"shm", "rdma", "dpdk", "tcp"};
    candidates->is_choice = true;
    for (size_t index = 0; index < rsi_array_count(names); index++) {
        const struct rsi_transport *transport = rsi_transport_find(names[index]);
        if (transport == NULL) {
            leave_out(candidates, names[index], "not in this build");
            continue;
        }
        if (strcmp(names[index], "dpdk") == 0 && !has_dpdk_port) {
            leave_out(candidates, names[index], "no port is configured");
            continue;
        }
        if (!transport->peer_is_local) {
            add(candidates, transport, url);
            continue;
        }
        rsi_status_t status = add_local(candidates, transport, url, error);
        if (status != RSI_OK) {
            return status;
        }
    }
    if (candidates->count == 0) {
        return rsi_fail(error, RSI_E_UNSUPPORTED, "no transport is left: %s", candidates->why_not);
    }
    return RSI_OK;
}

rsi_status_t rsi_client_read_url(struct rsi_url *url, const char *text, struct rsi_error *error)
{
    if (text == NULL) {
        return rsi_fail(error, RSI_E_INVALID,
                        "the URL is NULL: say where the broker is, \"auto://host:port\"");
    }
    rsi_status_t status = rsi_url_parse(url, text, error);
    if (status != RSI_OK) {
        return status;
    }
    /* Without a host it is a listener's URL: any address. */
    if (url->path[0] == 0 && (url->host[0] == 0 || strcmp(url->host, "*") == 0)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "\"%s\" names no host to connect to: \"%s://host:port\"", text,
                        url->scheme);
    }
    return RSI_OK;
}

void rsi_client_settle_url(struct rsi_url *url)
{
    struct sockaddr_storage address;
    socklen_t address_bytes;
    char host[RSI_HOST_BYTES_MAX + 1];
    bool is_known = url->path[0] == 0 &&
                    rsi_url_resolve(url, false, &address, &address_bytes, NULL) == RSI_OK &&
                    getnameinfo((const struct sockaddr *)&address, address_bytes, host,
                                sizeof(host), NULL, 0, NI_NUMERICHOST) == 0;
    if (is_known) {
        (void)rsi_text_copy(url->host, sizeof(url->host), host);
    }
}

rsi_status_t rsi_client_choose(struct rsi_client_candidates *candidates, const struct rsi_url *url,
                               bool has_dpdk_port, struct rsi_error *error)
{
    memset(candidates, 0, sizeof(*candidates));
    if (strcmp(url->scheme, "auto") == 0) {
        return choose_all(candidates, url, has_dpdk_port, error);
    }
    const struct rsi_transport *transport = rsi_transport_find(url->scheme);
    if (transport == NULL) {
        return rsi_fail(error, RSI_E_UNSUPPORTED,
                        "this build has no %s transport; build with it, or use another scheme",
                        url->scheme);
    }
    add(candidates, transport, url);
    return RSI_OK;
}
