/*
 * A path: one use of one transport, from domain to link. A client has one that carries its session,
 * and while it looks for another way a second one that is being tried.
 */
#ifndef RSI_CLIENT_PATH_H
#define RSI_CLIENT_PATH_H

#include "transport/transport.h"

#include <stdbool.h>
#include <stdint.h>

/* All pointers but transport are NULL: there is no path. */
struct rsi_client_path {
    const struct rsi_transport *transport;
    struct rsi_domain *domain;
    struct rsi_poller *poller;
    struct rsi_link *link;
};

static inline bool rsi_path_exists(const struct rsi_client_path *path)
{
    return path->domain != NULL;
}

/* Makes domain and poller, puts their descriptors into `epoll_fd`, and dials. After a failure there
 * is no path. */
RSI_MUST_CHECK rsi_status_t rsi_path_open(struct rsi_client_path *path,
                                          const struct rsi_transport *transport,
                                          const struct rsi_url *url,
                                          const struct rsi_domain_options *options, int epoll_fd,
                                          struct rsi_error *error);
/* Moves what there is to move: data, connection events, the link's state. Returns how much. */
uint32_t rsi_path_poll(const struct rsi_client_path *path, uint64_t now_ns);
/* Begins to close the link, in any state. */
void rsi_path_close(const struct rsi_client_path *path);
/* Whether nothing refers to the link any more. */
bool rsi_path_is_closed(const struct rsi_client_path *path);
/* Its descriptors leave the epoll set; what a closed link still has to say wakes nobody. */
void rsi_path_unwatch(const struct rsi_client_path *path, int epoll_fd);
/* Frees it; its link must be closed. Nothing happens where there is no path. */
void rsi_path_destroy(struct rsi_client_path *path, int epoll_fd);
/* The link would not close: a device or the kernel may still use its memory, which is left alone.
 * A leak is the lesser harm; the log says so. */
void rsi_path_abandon(struct rsi_client_path *path, int epoll_fd) RSI_COLD;

#endif
