/*
 * The tcp transport's control plane: domain, pollers, listeners, attach, closing, and the table.
 *
 * Design notes
 * - Closing a link that the owner thread has: it is asked to leave (REMOVE), and gives the
 *   socket back when the outbox and an end record are sent, or RSI_TCP_CLOSE_NS have passed.
 *   close() with unread bytes makes the kernel reset the connection, which destroys what the
 *   peer's kernel has not taken yet; so the socket is closed when all is acknowledged
 *   (SIOCOUTQ), or time is up.
 * - Bytes that the kernel still reads (zero copy): the connection is aborted, so that nothing is
 *   sent again, but by connect(AF_UNSPEC), which keeps the socket, so that its error queue can
 *   be read to its end before the rings are unmapped.
 * - If a device keeps bytes for longer than RSI_TCP_DRAIN_NS, the rings go all the same: the
 *   kernel holds references to their pages, so these serve nothing else before it lets go. The
 *   record headers lie on the heap, where the same is not true: that small memory is given up
 *   for good, with a warning.
 */
#include "core/clock.h"
#include "core/log.h"
#include "core/position.h"
#include "transport/tcp/tcp_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENT_COUNT_MAX = 32 };

/* ---- domain ---------------------------------------------------------------------------------- */

static rsi_status_t tcp_domain_create(struct rsi_domain **domain,
                                      const struct rsi_domain_options *options,
                                      struct rsi_error *error)
{
    struct rsi_tcp_domain *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for the tcp domain");
    }
    made->base.transport = &rsi_tcp_transport;
    made->base.options = *options;
    made->connect_timeout_ns =
        options->connect_timeout_ns != 0 ? options->connect_timeout_ns : RSI_TCP_CONNECT_TIMEOUT_NS;
    made->zerocopy_bytes_min =
        options->zerocopy_bytes_min != 0 ? options->zerocopy_bytes_min : RSI_TCP_ZEROCOPY_BYTES_MIN;
    if (options->bind_host != NULL) {
        snprintf(made->bind_host, sizeof(made->bind_host), "%s", options->bind_host);
    }
    made->base.options.bind_host = made->bind_host;
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (made->epoll_fd < 0) {
        int errno_value = errno;
        free(made);
        return rsi_fail_errno(error, rsi_status_from_errno(errno_value), errno_value,
                              "cannot make the tcp domain's epoll descriptor; raise the limit "
                              "(ulimit -n)");
    }
    *domain = &made->base;
    return RSI_OK;
}

static void tcp_domain_destroy(struct rsi_domain *domain)
{
    if (domain == NULL) {
        return;
    }
    close(rsi_tcp_domain(domain)->epoll_fd);
    free(domain);
}

static int tcp_domain_fd(struct rsi_domain *domain)
{
    return rsi_tcp_domain(domain)->epoll_fd;
}

static uint32_t tcp_domain_poll_control(struct rsi_domain *domain, uint64_t now_ns)
{
    (void)now_ns; /* deadlines are looked at link by link */
    struct epoll_event events[EVENT_COUNT_MAX];
    int count = epoll_wait(rsi_tcp_domain(domain)->epoll_fd, events, EVENT_COUNT_MAX, 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr != NULL) { /* NULL: a listener; link_accept does the work */
            rsi_tcp_connect_step(events[i].data.ptr);
        }
    }
    return count > 0 ? (uint32_t)count : 0;
}

/* ---- poller ---------------------------------------------------------------------------------- */

static void poller_free(struct rsi_tcp_poller *poller)
{
    if (poller->timer_fd >= 0) {
        close(poller->timer_fd);
    }
    if (poller->epoll_fd >= 0) {
        close(poller->epoll_fd);
    }
    rsi_mailbox_fini(&poller->commands);
    free(poller->links);
    free(poller);
}

static rsi_status_t poller_init(struct rsi_tcp_poller *poller, struct rsi_error *error)
{
    uint32_t link_count_max = poller->base.link_count_max;
    poller->links = calloc(link_count_max, sizeof(struct rsi_tcp_link *));
    if (poller->links == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a table of %u links",
                        link_count_max);
    }
    uint32_t slot_count =
        (uint32_t)rsi_round_up_power_of_two((uint64_t)link_count_max * RSI_TCP_COMMANDS_PER_LINK);
    rsi_status_t status =
        rsi_mailbox_init(&poller->commands, sizeof(struct rsi_tcp_command), slot_count, error);
    if (status != RSI_OK) {
        return status;
    }
    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    poller->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    if (poller->epoll_fd < 0 || poller->timer_fd < 0 ||
        epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, poller->timer_fd, &event) != 0) {
        return rsi_fail_errno(
            error, rsi_status_from_errno(errno), errno,
            "cannot make a tcp poller's descriptors; raise the limit (ulimit -n)");
    }
    return RSI_OK;
}

static rsi_status_t tcp_poller_create(struct rsi_poller **poller, struct rsi_domain *domain,
                                      const struct rsi_poller_options *options,
                                      struct rsi_error *error)
{
    struct rsi_tcp_poller *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a tcp poller");
    }
    made->base.transport = domain->transport;
    made->base.domain = domain;
    made->base.control_waker = options->control_waker;
    made->base.owner_waker = options->owner_waker;
    made->base.link_count_max =
        options->link_count_max != 0 ? options->link_count_max : RSI_TCP_LINK_COUNT_DEFAULT;
    made->epoll_fd = -1;
    made->timer_fd = -1;
    rsi_status_t status = poller_init(made, error);
    if (status != RSI_OK) {
        poller_free(made);
        return status;
    }
    *poller = &made->base;
    return RSI_OK;
}

static void tcp_poller_destroy(struct rsi_poller *poller)
{
    if (poller == NULL) {
        return;
    }
    rsi_assert(rsi_tcp_poller(poller)->claimed_count == 0);
    poller_free(rsi_tcp_poller(poller));
}

void rsi_tcp_poller_push(struct rsi_tcp_link *link, enum rsi_tcp_command_kind kind)
{
    struct rsi_tcp_poller *poller = rsi_tcp_poller(link->base.poller);
    struct rsi_tcp_command command = {.kind = kind, .link = link};
    rsi_status_t status = rsi_mailbox_push(&poller->commands, &command, sizeof(command));
    rsi_assert(status == RSI_OK);
    rsi_waker_wake(poller->base.owner_waker);
}

/* ---- listener -------------------------------------------------------------------------------- */

static rsi_status_t fail_bind(const struct rsi_url *url, int errno_value, struct rsi_error *error)
{
    char text[RSI_HOST_BYTES_MAX + 32];
    rsi_url_format(url, text, sizeof(text));
    switch (errno_value) {
    case EADDRINUSE:
        return rsi_fail(
            error, RSI_E_ADDRESS,
            "cannot listen on %s: port %u is in use; stop what listens there (ss -ltnp) "
            "or choose another port",
            text, url->port);
    case EADDRNOTAVAIL:
        return rsi_fail(error, RSI_E_ADDRESS,
                        "cannot listen on %s: '%s' is no address of this machine (ip address)",
                        text, url->host);
    case EACCES:
        return rsi_fail(error, RSI_E_PERMISSION,
                        "cannot listen on %s: this user may not take port %u; choose one from 1024 "
                        "on",
                        text, url->port);
    default:
        return rsi_fail_errno(error, rsi_status_from_errno(errno_value), errno_value,
                              "cannot listen on %s", text);
    }
}

/* The URL with the port that the kernel chose, and with an address where the host says "any". */
static void write_url(struct rsi_tcp_listener *listener, const struct rsi_url *url)
{
    struct sockaddr_storage address = {0};
    socklen_t address_bytes = sizeof(address);
    (void)getsockname(listener->fd, (struct sockaddr *)&address, &address_bytes);
    bool is_any = url->host[0] == '\0' || strcmp(url->host, "*") == 0;
    if (is_any) {
        char text[64];
        rsi_address_format((const struct sockaddr *)&address, text, sizeof(text));
        snprintf(listener->url, sizeof(listener->url), "tcp://%s", text);
        return;
    }
    struct rsi_url real = *url;
    /* Both families keep the port at the same place. */
    real.port = ntohs(((const struct sockaddr_in *)(const void *)&address)->sin_port);
    rsi_url_format(&real, listener->url, sizeof(listener->url));
}

static rsi_status_t open_listener(struct rsi_tcp_listener *listener, const struct rsi_url *url,
                                  struct rsi_error *error)
{
    struct sockaddr_storage address;
    socklen_t address_bytes;
    rsi_status_t status = rsi_url_resolve(url, true, &address, &address_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    listener->fd =
        socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (listener->fd < 0 || listener->reserve_fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot make a listening socket; if descriptors ran out, raise the "
                              "limit (ulimit -n)");
    }
    int on = 1; /* a broker that restarts takes its port back at once */
    (void)setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener->fd, (const struct sockaddr *)&address, address_bytes) != 0 ||
        listen(listener->fd, RSI_TCP_BACKLOG) != 0) {
        return fail_bind(url, errno, error);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    int epoll_fd = rsi_tcp_domain(listener->base.domain)->epoll_fd;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener->fd, &event) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot watch the listening socket");
    }
    write_url(listener, url);
    return RSI_OK;
}

static void tcp_listener_destroy(struct rsi_listener *base)
{
    if (base == NULL) {
        return;
    }
    struct rsi_tcp_listener *listener = (struct rsi_tcp_listener *)(void *)base;
    if (listener->reserve_fd >= 0) {
        close(listener->reserve_fd);
    }
    if (listener->fd >= 0) {
        close(listener->fd); /* resets those who wait to be accepted */
    }
    free(listener);
}

static rsi_status_t tcp_listener_create(struct rsi_listener **listener, struct rsi_domain *domain,
                                        const struct rsi_url *url, struct rsi_error *error)
{
    struct rsi_tcp_listener *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a tcp listener");
    }
    made->base.transport = &rsi_tcp_transport;
    made->base.domain = domain;
    made->fd = -1;
    made->reserve_fd = -1;
    rsi_status_t status = open_listener(made, url, error);
    if (status != RSI_OK) {
        tcp_listener_destroy(&made->base);
        return status;
    }
    *listener = &made->base;
    return RSI_OK;
}

static const char *tcp_listener_url(const struct rsi_listener *listener)
{
    return ((const struct rsi_tcp_listener *)(const void *)listener)->url;
}

/* ---- attach ---------------------------------------------------------------------------------- */

static rsi_status_t tcp_link_attach(struct rsi_link *link, const struct rsi_link_rings *rings,
                                    struct rsi_error *error)
{
    rsi_status_t status = rsi_link_rings_make(link, rings, error);
    if (status != RSI_OK) {
        return status;
    }
    rsi_tcp_link(link)->rings = *rings;
    rsi_link_set_state(link, RSI_LINK_ATTACHING);
    rsi_tcp_poller_push(rsi_tcp_link(link), RSI_TCP_COMMAND_ATTACH);
    return RSI_OK;
}

/* ---- closing --------------------------------------------------------------------------------- */

static void tcp_link_close(struct rsi_link *link)
{
    struct rsi_tcp_link *tcp = rsi_tcp_link(link);
    enum rsi_link_state state = rsi_link_state(link);
    if (state == RSI_LINK_CLOSING || state == RSI_LINK_CLOSED) {
        return;
    }
    rsi_link_set_state(link, RSI_LINK_CLOSING);
    if (tcp->is_handed_over) {
        tcp->close_deadline_ns = rsi_clock_now_ns() + RSI_TCP_CLOSE_NS;
        rsi_tcp_poller_push(tcp, RSI_TCP_COMMAND_REMOVE);
    } else {
        rsi_tcp_connect_stop(tcp);
    }
}

/* Ends the connection without its socket: nothing is sent again from here on. */
static void abort_connection(struct rsi_tcp_link *tcp)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(tcp->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    (void)connect(tcp->fd, &nowhere, sizeof(nowhere));
}

/* True: the kernel reads none of our memory any more, or time is up. */
static bool drain_references(struct rsi_tcp_link *tcp, uint64_t now_ns)
{
    if (tcp->zerocopy == NULL || rsi_tcp_zerocopy_count(tcp->zerocopy) == 0) {
        return true;
    }
    if (tcp->drain_deadline_ns == 0) {
        abort_connection(tcp);
        tcp->drain_deadline_ns = now_ns + RSI_TCP_DRAIN_NS;
    }
    rsi_tcp_receive_completions(tcp);
    if (rsi_tcp_zerocopy_count(tcp->zerocopy) == 0) {
        return true;
    }
    if (now_ns < tcp->drain_deadline_ns) {
        return false;
    }
    rsi_log_distinct(
        RSI_LOG_WARNING, "tcp",
        "the kernel still holds bytes of a closed connection; their record headers are "
        "never freed");
    tcp->zerocopy = NULL;
    return true;
}

/* True: the peer's kernel has all that was sent, or nobody cares. */
static bool is_acknowledged(const struct rsi_tcp_link *tcp, uint64_t now_ns)
{
    int waiting_bytes = 0;
    return now_ns >= tcp->close_deadline_ns || rsi_load_acquire(&tcp->base.failed) ||
           ioctl(tcp->fd, SIOCOUTQ, &waiting_bytes) != 0 || waiting_bytes == 0;
}

static void close_step(struct rsi_tcp_link *tcp, uint64_t now_ns)
{
    if (tcp->is_handed_over) {
        /* Pairs with the release in release_link. */
        if (!rsi_load_acquire(&tcp->crossing.released)) {
            if (now_ns >= tcp->close_deadline_ns) {
                /* nothing else tells a sleeper that time is up */
                rsi_waker_wake(tcp->base.poller->owner_waker);
            }
            return;
        }
        if (!drain_references(tcp, now_ns) || !is_acknowledged(tcp, now_ns)) {
            return;
        }
        close(tcp->fd);
        tcp->fd = -1;
    }
    rsi_tcp_link_unclaim(tcp);
    rsi_link_set_state(&tcp->base, RSI_LINK_CLOSED);
}

static void tcp_link_poll_control(struct rsi_link *link, uint64_t now_ns)
{
    struct rsi_tcp_link *tcp = rsi_tcp_link(link);
    switch (rsi_link_state(link)) {
    case RSI_LINK_CONNECTING:
        rsi_tcp_connect_check(tcp, now_ns);
        break;
    case RSI_LINK_OPEN:
    case RSI_LINK_ATTACHED:
        (void)rsi_link_take_failure(link);
        break;
    case RSI_LINK_ATTACHING:
        /* Pairs with the release in rsi_tcp_try_attached. */
        if (!rsi_link_take_failure(link) && rsi_load_acquire(&tcp->crossing.attached)) {
            rsi_link_set_state(link, RSI_LINK_ATTACHED);
        }
        break;
    case RSI_LINK_CLOSING:
        close_step(tcp, now_ns);
        break;
    case RSI_LINK_LOST:
    case RSI_LINK_CLOSED:
        break;
    }
}

/* ---- table ----------------------------------------------------------------------------------- */

const struct rsi_transport rsi_tcp_transport = {
    .name = "tcp",
    .batch_bytes_max = RSI_RING_BYTES_MAX,
    .peer_is_local = false,
    .polls_by_system_call = true,

    .domain_create = tcp_domain_create,
    .domain_destroy = tcp_domain_destroy,
    .domain_fd = tcp_domain_fd,
    .domain_poll_control = tcp_domain_poll_control,
    .poller_create = tcp_poller_create,
    .poller_destroy = tcp_poller_destroy,
    .listener_create = tcp_listener_create,
    .listener_destroy = tcp_listener_destroy,
    .listener_url = tcp_listener_url,
    .link_accept = rsi_tcp_link_accept,
    .link_dial = rsi_tcp_link_dial,
    .link_attach = tcp_link_attach,
    .link_poll_control = tcp_link_poll_control,
    .link_close = tcp_link_close,
    .link_destroy = rsi_tcp_link_destroy,

    .place = rsi_link_place_in_ring,
    .flush = rsi_tcp_flush,
    .publish_consumed = rsi_tcp_publish_consumed,
    .request_wake = rsi_tcp_request_wake,
    .poll_data = rsi_tcp_poll_data,
    .poller_arm = rsi_tcp_poller_arm,
    .poller_disarm = rsi_tcp_poller_disarm,
    .poller_fd = rsi_tcp_poller_fd,
};
