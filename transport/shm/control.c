/*
 * Domain, poller, and the life of a link on the control thread.
 *
 * Design notes
 * - Steps of a link. CONNECTING: the dialler connects and sends its greeting; the accepter answers
 *   with its own, also when it will not go on, so that both can name both versions. OPEN: the link
 * is put into a slot of its poller, whose owner thread reads the socket from here on. ATTACHING:
 * the dialler sends its sizes; the accepter, which made the memory in link_attach(), compares them
 *   and sends the descriptors; the dialler maps. An ATTACH that comes before link_attach() waits.
 *   CLOSING: the owner thread takes the link out of its slot; then the socket is closed: CLOSED.
 *   Rings stay mapped until link_destroy(), because the layer above may be reading them: the peer
 *   can still write there, but nobody here looks for what it writes.
 * - A socket's end does not say whether the process ended, closed the link, or is about to resume
 *   it over another. The process's pidfd does, a moment after the socket's end or at any time
 *   later; it is looked at from LOST on until link_destroy().
 * - The socket is watched by the domain's epoll set until OPEN and by the poller's after it. Both
 * are level-triggered: what is not read is told again.
 * - Nothing here waits, so every send can say WOULD_BLOCK; the step is then tried again.
 */
#include "transport/shm/shm_internal.h"

#include "core/clock.h"
#include "transport/registry.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_DEFAULT_NS UINT64_C(5000000000)

/* ---- domain --------------------------------------------------------------------------------- */

static rsi_status_t epoll_open(int *epoll_fd, struct rsi_error *error)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot make an epoll set (too few descriptors? raise ulimit -n)");
    }
    *epoll_fd = fd;
    return RSI_OK;
}

static rsi_status_t allowed_uids_copy(struct rsi_shm_domain *domain,
                                      const struct rsi_domain_options *options,
                                      struct rsi_error *error)
{
    if (options->allowed_uid_count == 0) {
        return RSI_OK;
    }
    size_t bytes = options->allowed_uid_count * sizeof(domain->allowed_uids[0]);
    domain->allowed_uids = malloc(bytes);
    if (domain->allowed_uids == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for %u allowed user ids",
                        options->allowed_uid_count);
    }
    memcpy(domain->allowed_uids, options->allowed_uids, bytes);
    domain->allowed_uid_count = options->allowed_uid_count;
    return RSI_OK;
}

static rsi_status_t shm_domain_create(struct rsi_domain **domain,
                                      const struct rsi_domain_options *options,
                                      struct rsi_error *error)
{
    struct rsi_shm_domain *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the shm domain");
    }
    made->base.transport = &rsi_shm_transport;
    made->base.options = *options;
    made->connect_timeout_ns =
        options->connect_timeout_ns != 0 ? options->connect_timeout_ns : CONNECT_TIMEOUT_DEFAULT_NS;
    rsi_status_t status = allowed_uids_copy(made, options, error);
    if (status != RSI_OK) {
        goto free_domain;
    }
    made->base.options.allowed_uids = made->allowed_uids;
    status = epoll_open(&made->epoll_fd, error);
    if (status != RSI_OK) {
        goto free_uids;
    }
    *domain = &made->base;
    return RSI_OK;

free_uids:
    free(made->allowed_uids);
free_domain:
    free(made);
    return status;
}

static void shm_domain_destroy(struct rsi_domain *base)
{
    if (base == NULL) {
        return;
    }
    struct rsi_shm_domain *domain = rsi_shm_domain(base);
    close(domain->epoll_fd);
    free(domain->allowed_uids);
    free(domain);
}

static int shm_domain_fd(struct rsi_domain *base)
{
    return rsi_shm_domain(base)->epoll_fd;
}

/* What is ready is handled by link_accept() and link_poll_control(); until then it stays ready. */
static uint32_t shm_domain_poll_control(struct rsi_domain *base, uint64_t now_ns)
{
    (void)now_ns;
    struct epoll_event events[16];
    int count = epoll_wait(rsi_shm_domain(base)->epoll_fd, events, rsi_array_count(events), 0);
    return count > 0 ? (uint32_t)count : 0;
}

/* ---- poller --------------------------------------------------------------------------------- */

static rsi_status_t shm_poller_create(struct rsi_poller **poller, struct rsi_domain *domain,
                                      const struct rsi_poller_options *options,
                                      struct rsi_error *error)
{
    uint32_t slot_count = options->link_count_max > 0 ? options->link_count_max : 1;
    struct rsi_shm_poller *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a shm poller");
    }
    made->base.transport = domain->transport;
    made->base.domain = domain;
    made->base.control_waker = options->control_waker;
    made->base.owner_waker = options->owner_waker;
    made->base.link_count_max = slot_count;
    made->look_now = true;
    rsi_status_t status;
    made->slots = calloc(slot_count, sizeof(made->slots[0]));
    if (made->slots == NULL) {
        status = rsi_fail(error, RSI_E_NO_MEMORY, "no memory for %u shm links", slot_count);
        goto free_poller;
    }
    status = epoll_open(&made->epoll_fd, error);
    if (status != RSI_OK) {
        goto free_slots;
    }
    *poller = &made->base;
    return RSI_OK;

free_slots:
    free(made->slots);
free_poller:
    free(made);
    return status;
}

static void shm_poller_destroy(struct rsi_poller *base)
{
    if (base == NULL) {
        return;
    }
    struct rsi_shm_poller *poller = rsi_shm_poller(base);
    rsi_assert(poller->link_count == 0);
    close(poller->epoll_fd);
    free(poller->slots);
    free(poller);
}

static int shm_poller_fd(struct rsi_poller *base)
{
    return rsi_shm_poller(base)->epoll_fd;
}

/* Shows an OPEN link to the owner thread, which empties slots; there are as many as links. */
static void slot_fill(struct rsi_shm_poller *poller, struct rsi_shm_link *link)
{
    uint32_t slot = 0;
    while (rsi_load_acquire(&poller->slots[slot]) != NULL) {
        slot++;
        rsi_assert(slot < poller->base.link_count_max);
    }
    link->slot = slot;
    link->is_in_slots = true;
    rsi_store_release(&poller->slots[slot], link); /* pairs with the acquire of the owner's pass */
    if (rsi_load_relaxed(&poller->slot_end) <= slot) {
        rsi_store_release(&poller->slot_end, slot + 1);
    }
}

/* ---- connecting ----------------------------------------------------------------------------- */

static rsi_status_t link_watch(struct rsi_shm_link *link, struct rsi_error *error)
{
    struct rsi_shm_domain *domain = rsi_shm_domain(link->base.poller->domain);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = link};
    if (epoll_ctl(domain->epoll_fd, EPOLL_CTL_ADD, link->socket_fd, &event) != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot watch the socket to %s",
                              link->base.peer_text);
    }
    link->is_watched = true;
    return RSI_OK;
}

static void link_unwatch(struct rsi_shm_link *link)
{
    if (link->is_watched) {
        struct rsi_shm_domain *domain = rsi_shm_domain(link->base.poller->domain);
        (void)epoll_ctl(domain->epoll_fd, EPOLL_CTL_DEL, link->socket_fd, NULL);
        link->is_watched = false;
    }
}

/* A link in CONNECTING with its socket; the socket is the caller's until this says OK. */
static rsi_status_t link_create(struct rsi_shm_link **link, struct rsi_poller *poller,
                                int socket_fd, struct rsi_error *error)
{
    struct rsi_shm_link *made = rsi_link_alloc(sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a shm link");
    }
    rsi_status_t status = rsi_link_init(&made->base, poller->transport, poller, error);
    if (status != RSI_OK) {
        rsi_link_free(made);
        return status;
    }
    made->socket_fd = socket_fd;
    made->peer_pidfd = -1;
    made->wanted_consumed_pos = UINT64_MAX;
    made->connect_deadline_ns =
        rsi_clock_now_ns() + rsi_shm_domain(poller->domain)->connect_timeout_ns;
    made->is_counted = true;
    rsi_shm_poller(poller)->link_count++;
    *link = made;
    return RSI_OK;
}

static void link_uncount(struct rsi_shm_link *link)
{
    if (link->is_counted) {
        rsi_shm_poller(link->base.poller)->link_count--;
        link->is_counted = false;
    }
}

static void link_forget_peer(struct rsi_shm_link *link)
{
    if (link->peer_pidfd >= 0) {
        close(link->peer_pidfd); /* also leaves the epoll set */
        link->peer_pidfd = -1;
    }
}

static rsi_status_t link_create_undo(struct rsi_shm_link *link, rsi_status_t status)
{
    link_forget_peer(link);
    link_uncount(link);
    rsi_link_fini(&link->base);
    rsi_link_free(link);
    return status;
}

static bool poller_is_full(struct rsi_poller *poller)
{
    return rsi_shm_poller(poller)->link_count >= poller->link_count_max;
}

static rsi_status_t shm_link_accept(struct rsi_link **link, struct rsi_listener *base,
                                    const struct rsi_poller_choice *choice, struct rsi_error *error)
{
    struct rsi_shm_listener *listener = rsi_shm_listener(base);
    int socket_fd;
    char peer_text[sizeof(((struct rsi_link *)NULL)->peer_text)];
    rsi_status_t status =
        rsi_shm_listener_take(listener, &socket_fd, peer_text, sizeof(peer_text), error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_poller *poller = rsi_poller_choose(choice, 0);
    if (poller_is_full(poller)) {
        rsi_shm_turn_away(socket_fd, "the broker has as many links as it is configured for");
        return rsi_fail(error, RSI_E_LIMIT, "%s was turned away: all %u links are taken", peer_text,
                        poller->link_count_max);
    }
    struct rsi_shm_link *made;
    status = link_create(&made, poller, socket_fd, error);
    if (status != RSI_OK) {
        goto turn_away;
    }
    made->is_accepter = true;
    made->choice = *choice;
    made->is_connected = true;
    made->peer_pidfd = rsi_shm_peer_pidfd(socket_fd);
    snprintf(made->base.local_text, sizeof(made->base.local_text), "%.*s",
             (int)sizeof(made->base.local_text) - 1, listener->url);
    memcpy(made->base.peer_text, peer_text, sizeof(peer_text));
    status = link_watch(made, error);
    if (status != RSI_OK) {
        status = link_create_undo(made, status);
        goto turn_away;
    }
    *link = &made->base;
    return RSI_OK;

turn_away:
    rsi_shm_turn_away(socket_fd, "the broker lacks memory or descriptors for another link");
    return status;
}

/* OK also when the backlog is full: then the link is not connected yet. */
static rsi_status_t link_connect(struct rsi_shm_link *link, struct rsi_error *error)
{
    const char *path = link->address.sun_path;
    if (connect(link->socket_fd, (const struct sockaddr *)&link->address, sizeof(link->address)) ==
        0) {
        link->is_connected = true;
        link->peer_pidfd = rsi_shm_peer_pidfd(link->socket_fd);
        char who[48];
        rsi_shm_peer_describe(link->socket_fd, who, sizeof(who));
        snprintf(link->base.peer_text, sizeof(link->base.peer_text), "%.40s, %s", path, who);
        return RSI_OK;
    }
    switch (errno) {
    case EAGAIN:
    case EINTR:
        return RSI_OK;
    case ENOENT:
    case ENOTDIR:
        return rsi_fail(error, RSI_E_NOT_FOUND,
                        "no broker at %s: there is no such socket; is ringsided running, with this "
                        "listen address?",
                        path);
    case ECONNREFUSED:
        return rsi_fail(error, RSI_E_REFUSED,
                        "no broker at %s: it is no socket, or the broker that made it ended; start "
                        "ringsided with this listen address",
                        path);
    case EACCES:
    case EPERM:
        return rsi_fail_errno(
            error, RSI_E_PERMISSION, errno,
            "cannot reach %s; a directory on the way may not be open to this user", path);
    case EPROTOTYPE:
        return rsi_fail(error, RSI_E_ADDRESS,
                        "%s is the socket of another program, not of a broker", path);
    default:
        return rsi_fail_errno(error, RSI_E_ADDRESS, errno, "cannot connect to %s", path);
    }
}

static rsi_status_t shm_link_dial(struct rsi_link **link, struct rsi_poller *poller,
                                  const struct rsi_url *url, struct rsi_error *error)
{
    if (url->path[0] != '/') {
        return rsi_fail(error, RSI_E_INVALID,
                        "shm needs the absolute path of a broker's socket, such as "
                        "shm:///run/ringside/broker.sock; '%s' is none",
                        url->path);
    }
    if (poller_is_full(poller)) {
        return rsi_fail(error, RSI_E_LIMIT, "all %u links of this poller are taken",
                        poller->link_count_max);
    }
    int socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (socket_fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot make a socket (too few descriptors? raise ulimit -n)");
    }
    struct rsi_shm_link *made;
    rsi_status_t status = link_create(&made, poller, socket_fd, error);
    if (status != RSI_OK) {
        goto close_socket;
    }
    rsi_shm_address_set(&made->address, url->path);
    snprintf(made->base.local_text, sizeof(made->base.local_text), "pid %d", (int)getpid());
    snprintf(made->base.peer_text, sizeof(made->base.peer_text), "%.95s", url->path);
    status = link_connect(made, error);
    if (status != RSI_OK) {
        goto destroy_link;
    }
    if (made->is_connected) {
        status = link_watch(made, error);
        if (status != RSI_OK) {
            goto destroy_link;
        }
    }
    *link = &made->base;
    return RSI_OK;

destroy_link:
    status = link_create_undo(made, status);
close_socket:
    close(socket_fd);
    return status;
}

/* OK: sent, or nobody is there to read it; why that is so, what waits in the socket tells. */
static rsi_status_t link_greet(struct rsi_shm_link *link)
{
    if (link->is_greeted) {
        return RSI_OK;
    }
    struct rsi_greeting greeting;
    rsi_greeting_init(&greeting, &link->base.poller->domain->options);
    struct rsi_shm_body body = {.data = &greeting, .bytes = sizeof(greeting)};
    rsi_status_t status = rsi_shm_packet_send(link->socket_fd, RSI_RECORD_GREETING, 0, body);
    if (status == RSI_OK || status == RSI_E_LINK_LOST) {
        link->is_greeted = true;
        return RSI_OK;
    }
    return RSI_WOULD_BLOCK;
}

/* CONNECTING -> OPEN. */
static rsi_status_t link_open(struct rsi_shm_link *link, struct rsi_error *error)
{
    struct rsi_shm_poller *poller = rsi_shm_poller(link->base.poller);
    link_unwatch(link);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = link};
    if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, link->socket_fd, &event) != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot watch the socket to %s",
                              link->base.peer_text);
    }
    slot_fill(poller, link);
    rsi_link_set_state(&link->base, RSI_LINK_OPEN);
    return RSI_OK;
}

/* To the poller that the peer asks for, if that one has room. Nobody but this thread knows the link
 * yet. */
static void link_move_home(struct rsi_shm_link *link, uint32_t agent_hint)
{
    struct rsi_poller *home = rsi_poller_choose(&link->choice, agent_hint);
    if (home != link->base.poller && !poller_is_full(home)) {
        rsi_shm_poller(link->base.poller)->link_count--;
        rsi_shm_poller(home)->link_count++;
        link->base.poller = home;
    }
}

/* The first packet of the peer: its greeting, or why it does not want us. */
static rsi_status_t link_take_greeting(struct rsi_shm_link *link,
                                       const struct rsi_shm_packet *packet, struct rsi_error *error)
{
    if (packet->header.kind == RSI_RECORD_CLOSE) {
        char text[RSI_SHM_CLOSE_TEXT_BYTES_MAX + 1];
        rsi_shm_packet_close_text(packet, text, sizeof(text));
        return rsi_fail(error, RSI_E_REFUSED, "refused: %s",
                        text[0] != '\0' ? text : "the peer closed without a reason");
    }
    if (packet->header.kind != RSI_RECORD_GREETING) {
        return rsi_fail(error, RSI_E_PROTOCOL,
                        "the peer began with a packet of kind %u, not a greeting",
                        packet->header.kind);
    }
    rsi_status_t status = rsi_greeting_check(&packet->body.greeting, packet->header.bytes,
                                             &link->base.poller->domain->options, error);
    if (status != RSI_OK) {
        return status;
    }
    link->base.peer_greeting = packet->body.greeting;
    if (link->is_accepter) {
        link_move_home(link, packet->body.greeting.agent_hint);
    }
    return link_open(link, error);
}

static rsi_status_t link_step_connecting(struct rsi_shm_link *link, struct rsi_error *error)
{
    if (!link->is_connected) {
        rsi_status_t status = link_connect(link, error);
        if (status == RSI_OK && link->is_connected) {
            status = link_watch(link, error);
        }
        if (status != RSI_OK || !link->is_connected) {
            return status;
        }
    }
    if (link_greet(link) != RSI_OK) {
        return RSI_OK;
    }
    struct rsi_shm_packet packet;
    const char *why;
    rsi_status_t status = rsi_shm_packet_receive(link->socket_fd, false, &packet, &why);
    if (status == RSI_OK) {
        return link_take_greeting(link, &packet, error);
    }
    if (status == RSI_WOULD_BLOCK) {
        return RSI_OK;
    }
    if (status == RSI_E_LINK_LOST) {
        return rsi_fail(error, status, "the peer ended before it sent a greeting");
    }
    return rsi_fail(error, status, "the peer sent %s", why);
}

static void link_poll_connecting(struct rsi_shm_link *link, uint64_t now_ns)
{
    struct rsi_error error = {0};
    rsi_status_t status = link_step_connecting(link, &error);
    if (status == RSI_OK && rsi_link_state(&link->base) == RSI_LINK_CONNECTING &&
        now_ns >= link->connect_deadline_ns) {
        status = rsi_fail(&error, RSI_E_TIMED_OUT,
                          link->is_connected ? "no greeting came in time"
                                             : "too many others wait to be accepted");
    }
    if (status != RSI_OK) {
        link_unwatch(link);
        rsi_error_context(&error, "link with %s", link->base.peer_text);
        rsi_link_lose_error(&link->base, &error);
    }
}

/* ---- attaching ------------------------------------------------------------------------------ */

static rsi_status_t shm_link_attach(struct rsi_link *base, const struct rsi_link_rings *rings,
                                    struct rsi_error *error)
{
    struct rsi_shm_link *link = rsi_shm_link(base);
    if (rsi_link_state(base) != RSI_LINK_OPEN) {
        return rsi_fail(error, RSI_E_STATE, "rings are made in state OPEN; the link with %s is %s",
                        base->peer_text, rsi_link_state_name(rsi_link_state(base)));
    }
    rsi_status_t status = rsi_link_rings_check(rings, error);
    if (status != RSI_OK) {
        return status;
    }
    link->rings = *rings;
    if (link->is_accepter) {
        status = rsi_shm_memory_create(link, error);
        if (status != RSI_OK) {
            return status;
        }
    }
    link->attach_step = link->is_accepter ? RSI_SHM_ATTACH_WAIT_SIZES : RSI_SHM_ATTACH_SEND_SIZES;
    rsi_link_set_state(base, RSI_LINK_ATTACHING);
    base->transport->link_poll_control(base, rsi_clock_now_ns());
    return RSI_OK;
}

/* Sends our ATTACH. A peer that is gone is noticed by the owner thread, with all it sent before. */
static rsi_status_t attach_send(struct rsi_shm_link *link, struct rsi_error *error)
{
    struct rsi_attach attach;
    rsi_attach_init(&attach, &link->rings);
    struct rsi_shm_body body = {.data = &attach, .bytes = sizeof(attach)};
    rsi_status_t status;
    if (link->is_accepter) {
        int fds[RSI_SHM_PACKET_FDS_MAX];
        uint32_t fd_count = rsi_shm_memory_fds(link, fds);
        status = rsi_shm_packet_send_fds(link->socket_fd, RSI_RECORD_ATTACH, body, fds, fd_count);
    } else {
        status = rsi_shm_packet_send(link->socket_fd, RSI_RECORD_ATTACH, 0, body);
    }
    if (status == RSI_E_SYSTEM) {
        return rsi_fail_errno(error, status, errno, "cannot send %s",
                              link->is_accepter ? "the memory files" : "the sizes of the rings");
    }
    return status == RSI_OK ? RSI_OK : RSI_WOULD_BLOCK;
}

/* The one-shot report of the owner thread. */
static bool peer_attach_is_here(const struct rsi_shm_link *link)
{
    return rsi_load_acquire(&link->is_peer_attach_here);
}

static void attach_finish(struct rsi_shm_link *link)
{
    rsi_link_set_start(&link->base, &link->rings);
    link->published_consumed_pos = link->base.consumed_pos;
    link->attach_step = RSI_SHM_ATTACH_DONE;
    rsi_link_set_state(&link->base, RSI_LINK_ATTACHED); /* also wakes the owner thread */
}

/* One step; OK when another may follow at once. */
static rsi_status_t attach_step(struct rsi_shm_link *link, struct rsi_error *error)
{
    rsi_status_t status;
    switch (link->attach_step) {
    case RSI_SHM_ATTACH_SEND_SIZES:
        status = attach_send(link, error);
        if (status == RSI_OK) {
            link->attach_step = RSI_SHM_ATTACH_WAIT_MEMORY;
        }
        return status;
    case RSI_SHM_ATTACH_WAIT_SIZES:
        if (!peer_attach_is_here(link)) {
            return RSI_WOULD_BLOCK;
        }
        status = rsi_attach_check(&link->peer_attach, &link->rings, error);
        if (status == RSI_OK) {
            link->attach_step = RSI_SHM_ATTACH_SEND_MEMORY;
        }
        return status;
    case RSI_SHM_ATTACH_SEND_MEMORY:
        status = attach_send(link, error);
        if (status == RSI_OK) {
            rsi_shm_memory_close_fds(link);
            attach_finish(link);
        }
        return status;
    case RSI_SHM_ATTACH_WAIT_MEMORY:
        if (!peer_attach_is_here(link)) {
            return RSI_WOULD_BLOCK;
        }
        status = rsi_attach_check(&link->peer_attach, &link->rings, error);
        if (status == RSI_OK) {
            status = rsi_shm_memory_map(link, error);
        }
        if (status == RSI_OK) {
            attach_finish(link);
        }
        return status;
    case RSI_SHM_ATTACH_IDLE:
    case RSI_SHM_ATTACH_DONE:
        break;
    }
    return RSI_WOULD_BLOCK;
}

static void link_poll_attaching(struct rsi_shm_link *link)
{
    struct rsi_error error = {0};
    rsi_status_t status;
    do {
        status = attach_step(link, &error);
    } while (status == RSI_OK);
    if (rsi_failed(status)) {
        rsi_error_context(&error, "attaching to %s", link->base.peer_text);
        rsi_link_lose_error(&link->base, &error);
    }
}

/* ---- closing -------------------------------------------------------------------------------- */

static void shm_link_close(struct rsi_link *base)
{
    enum rsi_link_state state = rsi_link_state(base);
    if (state == RSI_LINK_CLOSING || state == RSI_LINK_CLOSED) {
        return;
    }
    struct rsi_shm_link *link = rsi_shm_link(base);
    link_unwatch(link);
    link->close_deadline_ns = rsi_clock_now_ns() + RSI_SHM_CLOSE_NS;
    rsi_link_set_state(base, RSI_LINK_CLOSING); /* also wakes the owner thread */
}

static void link_poll_closing(struct rsi_shm_link *link, uint64_t now_ns)
{
    if (link->is_in_slots && !rsi_load_acquire(&link->is_detached)) {
        if (now_ns >= link->close_deadline_ns) {
            rsi_waker_wake(link->base.poller->owner_waker); /* it waits for a peer in vain */
        }
        return;
    }
    close(link->socket_fd);
    link->socket_fd = -1;
    link_uncount(link);
    rsi_link_set_state(&link->base, RSI_LINK_CLOSED);
}

/* LOST and later: looks whether the peer's process is dead, and has the domain's descriptor tell of
 * it as long as it is not. */
static void look_at_peer(struct rsi_shm_link *link)
{
    if (link->peer_pidfd < 0) {
        return;
    }
    struct pollfd process = {.fd = link->peer_pidfd, .events = POLLIN};
    if (poll(&process, 1, 0) == 1) {
        link->base.peer_has_ended = true;
        link_forget_peer(link);
    } else if (!link->is_peer_watched) {
        link->is_peer_watched = true;
        /* Once: nobody need take it away. */
        struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = link};
        (void)epoll_ctl(rsi_shm_domain(link->base.poller->domain)->epoll_fd, EPOLL_CTL_ADD,
                        link->peer_pidfd, &event); /* without: seen when somebody looks */
    }
}

static void shm_link_poll_control(struct rsi_link *base, uint64_t now_ns)
{
    struct rsi_shm_link *link = rsi_shm_link(base);
    (void)rsi_link_take_failure(base);
    if (rsi_link_state(base) >= RSI_LINK_LOST) {
        look_at_peer(link);
    }
    switch (rsi_link_state(base)) {
    case RSI_LINK_CONNECTING:
        link_poll_connecting(link, now_ns);
        break;
    case RSI_LINK_ATTACHING:
        link_poll_attaching(link);
        break;
    case RSI_LINK_CLOSING:
        link_poll_closing(link, now_ns);
        break;
    case RSI_LINK_OPEN:
    case RSI_LINK_ATTACHED:
    case RSI_LINK_LOST:
    case RSI_LINK_CLOSED:
        break;
    }
}

static void shm_link_destroy(struct rsi_link *base)
{
    if (base == NULL) {
        return;
    }
    rsi_assert(rsi_link_state(base) == RSI_LINK_CLOSED);
    struct rsi_shm_link *link = rsi_shm_link(base);
    for (uint32_t i = 0; i < link->attach_fd_count; i++) {
        close(link->attach_fds[i]); /* they came, and were never mapped */
    }
    link_forget_peer(link);
    rsi_shm_memory_fini(link);
    rsi_link_fini(base);
    rsi_link_free(link);
}

const struct rsi_transport rsi_shm_transport = {
    .name = "shm",
    .batch_bytes_max = RSI_RING_BYTES_MAX,
    .peer_is_local = true,
    .domain_create = shm_domain_create,
    .domain_destroy = shm_domain_destroy,
    .domain_fd = shm_domain_fd,
    .domain_poll_control = shm_domain_poll_control,
    .poller_create = shm_poller_create,
    .poller_destroy = shm_poller_destroy,
    .listener_create = rsi_shm_listener_create,
    .listener_destroy = rsi_shm_listener_destroy,
    .listener_url = rsi_shm_listener_url,
    .link_accept = shm_link_accept,
    .link_dial = shm_link_dial,
    .link_attach = shm_link_attach,
    .link_poll_control = shm_link_poll_control,
    .link_close = shm_link_close,
    .link_destroy = shm_link_destroy,
    .place = rsi_shm_place,
    .flush = rsi_shm_flush,
    .publish_consumed = rsi_shm_publish_consumed,
    .request_wake = rsi_shm_request_wake,
    .poll_data = rsi_shm_poll_data,
    .poller_arm = rsi_shm_poller_arm,
    .poller_disarm = rsi_shm_poller_disarm,
    .poller_fd = shm_poller_fd,
};
