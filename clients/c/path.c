/*
 * Design notes
 * - Taking down never frees what a device or the kernel may still use: a link is driven to CLOSED
 *   first. Should that not come, the path is abandoned with its memory.
 * - Descriptors are taken out of the epoll set by hand. Closing them is not enough: a child that
 *   was forked meanwhile holds them open, and the set would go on telling of them.
 */
#include "clients/c/path.h"

#include "core/log.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

static rsi_status_t watch(const struct rsi_client_path *path, int fd, int epoll_fd,
                          struct rsi_error *error)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "adding a descriptor of transport %s to the client's epoll set",
                              path->transport->name);
    }
    return RSI_OK;
}

static rsi_status_t open_parts(struct rsi_client_path *path, const struct rsi_url *url,
                               const struct rsi_domain_options *options, int epoll_fd,
                               struct rsi_error *error)
{
    const struct rsi_transport *transport = path->transport;
    const struct rsi_poller_options poller_options = {.link_count_max = 1};
    rsi_status_t status = transport->domain_create(&path->domain, options, error);
    if (status != RSI_OK) {
        return status;
    }
    status = transport->poller_create(&path->poller, path->domain, &poller_options, error);
    if (status != RSI_OK) {
        return status;
    }
    status = watch(path, transport->poller_fd(path->poller), epoll_fd, error);
    if (status != RSI_OK) {
        return status;
    }
    status = watch(path, transport->domain_fd(path->domain), epoll_fd, error);
    if (status != RSI_OK) {
        return status;
    }
    return transport->link_dial(&path->link, path->poller, url, error);
}

rsi_status_t rsi_path_open(struct rsi_client_path *path, const struct rsi_transport *transport,
                           const struct rsi_url *url, const struct rsi_domain_options *options,
                           int epoll_fd, struct rsi_error *error)
{
    *path = (struct rsi_client_path){.transport = transport};
    rsi_status_t status = open_parts(path, url, options, epoll_fd, error);
    if (status != RSI_OK) {
        rsi_path_destroy(path, epoll_fd);
    }
    return status;
}

uint32_t rsi_path_poll(const struct rsi_client_path *path, uint64_t now_ns)
{
    uint32_t work = rsi_poller_poll(path->poller, now_ns);
    work += path->transport->domain_poll_control(path->domain, now_ns);
    enum rsi_link_state before = rsi_link_state(path->link);
    path->transport->link_poll_control(path->link, now_ns);
    return work + (rsi_link_state(path->link) != before);
}

void rsi_path_close(const struct rsi_client_path *path)
{
    if (path->link != NULL && rsi_link_state(path->link) != RSI_LINK_CLOSED) {
        path->transport->link_close(path->link);
    }
}

bool rsi_path_is_closed(const struct rsi_client_path *path)
{
    return path->link == NULL || rsi_link_state(path->link) == RSI_LINK_CLOSED;
}

void rsi_path_unwatch(const struct rsi_client_path *path, int epoll_fd)
{
    /* What is not in the set is not there to be taken out: fine. */
    if (path->poller != NULL) {
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, path->transport->poller_fd(path->poller), NULL);
    }
    if (path->domain != NULL) {
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, path->transport->domain_fd(path->domain), NULL);
    }
}

static void forget(struct rsi_client_path *path)
{
    path->domain = NULL;
    path->poller = NULL;
    path->link = NULL;
}

void rsi_path_destroy(struct rsi_client_path *path, int epoll_fd)
{
    rsi_path_unwatch(path, epoll_fd);
    if (path->link != NULL) {
        path->transport->link_destroy(path->link);
    }
    if (path->poller != NULL) {
        path->transport->poller_destroy(path->poller);
    }
    if (path->domain != NULL) {
        path->transport->domain_destroy(path->domain);
    }
    forget(path);
}

void rsi_path_abandon(struct rsi_client_path *path, int epoll_fd)
{
    rsi_log_error("client", "the %s link to %s did not close in time: its memory stays in use",
                  path->transport->name, path->link->peer_text);
    rsi_path_unwatch(path, epoll_fd);
    forget(path);
}
