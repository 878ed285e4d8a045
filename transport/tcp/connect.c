/*
 * From an address or a waiting peer to an open link.
 *
 * Design notes
 * - Until the greetings are exchanged the socket sits in the domain's epoll set and only the
 *   control thread knows the link. Then the owner thread gets it, for good.
 * - Exactly the greeting is read here, never a byte more: what follows is the owner thread's.
 * - Who dials greets first; who accepts answers a greeting that makes sense, and nothing else.
 *   So a stray web browser learns nothing, and a peer of another version learns which versions
 *   this side speaks.
 * - An accepted link gets the poller that is next in turn, so that it has one; its greeting may
 * name another. Nobody but this thread knows the link yet, so it just moves.
 * - Nothing here waits; the deadline is looked at in link_poll_control.
 */
#include "core/clock.h"
#include "transport/tcp/tcp_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS_PER_MS UINT64_C(1000000)

/* ---- sockets --------------------------------------------------------------------------------- */

static rsi_status_t fail_descriptor(struct rsi_error *error, int errno_value, const char *what)
{
    if (errno_value == EMFILE || errno_value == ENFILE) {
        return rsi_fail(error, RSI_E_NO_DESCRIPTORS,
                        "no descriptor left for %s; raise the limit (ulimit -n, or LimitNOFILE of "
                        "the service)",
                        what);
    }
    return rsi_fail_errno(error, rsi_status_from_errno(errno_value), errno_value,
                          "cannot make a socket for %s", what);
}

/* Best effort: a socket without these works, only slower or later to notice. */
static void set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

static void set_options(int fd)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, RSI_TCP_KEEPALIVE_IDLE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, RSI_TCP_KEEPALIVE_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, RSI_TCP_KEEPALIVE_COUNT);
}

static void describe_ends(struct rsi_tcp_link *tcp)
{
    struct sockaddr_storage address = {0};
    socklen_t address_bytes = sizeof(address);
    if (getsockname(tcp->fd, (struct sockaddr *)&address, &address_bytes) == 0) {
        rsi_address_format((struct sockaddr *)&address, tcp->base.local_text,
                           sizeof(tcp->base.local_text));
    }
    address_bytes = sizeof(address);
    if (getpeername(tcp->fd, (struct sockaddr *)&address, &address_bytes) == 0) {
        rsi_address_format((struct sockaddr *)&address, tcp->base.peer_text,
                           sizeof(tcp->base.peer_text));
    }
}

static void watch(struct rsi_tcp_link *tcp, int operation, uint32_t events)
{
    struct rsi_tcp_domain *domain = rsi_tcp_domain(tcp->base.poller->domain);
    struct epoll_event event = {.events = events, .data.ptr = tcp};
    if (epoll_ctl(domain->epoll_fd, operation, tcp->fd, &event) != 0) {
        tcp->connect_errno = errno;
    }
}

/* ---- making and freeing ---------------------------------------------------------------------- */

static rsi_status_t make_link(struct rsi_tcp_link **link, struct rsi_poller *poller,
                              struct rsi_error *error)
{
    struct rsi_tcp_poller *tcp_poller = rsi_tcp_poller(poller);
    if (tcp_poller->claimed_count == poller->link_count_max) {
        return rsi_fail(error, RSI_E_LIMIT, "this poller has its %u links already",
                        poller->link_count_max);
    }
    struct rsi_tcp_link *made = rsi_link_alloc(sizeof(*made));
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a tcp link");
    }
    rsi_status_t status = rsi_link_init(&made->base, poller->domain->transport, poller, error);
    if (status != RSI_OK) {
        rsi_link_free(made);
        return status;
    }
    made->fd = -1;
    made->connect_deadline_ns =
        rsi_clock_now_ns() + rsi_tcp_domain(poller->domain)->connect_timeout_ns;
    tcp_poller->claimed_count++;
    made->is_claimed = true;
    *link = made;
    return RSI_OK;
}

void rsi_tcp_link_unclaim(struct rsi_tcp_link *tcp)
{
    if (tcp->is_claimed) {
        rsi_tcp_poller(tcp->base.poller)->claimed_count--;
        tcp->is_claimed = false;
    }
}

void rsi_tcp_link_destroy(struct rsi_link *link)
{
    if (link == NULL) {
        return;
    }
    struct rsi_tcp_link *tcp = rsi_tcp_link(link);
    rsi_assert(tcp->fd < 0);
    rsi_tcp_link_unclaim(tcp);
    rsi_ring_fini(&link->out);
    rsi_ring_fini(&link->in);
    rsi_tcp_zerocopy_destroy(tcp->zerocopy);
    rsi_link_fini(link);
    rsi_link_free(link);
}

void rsi_tcp_connect_stop(struct rsi_tcp_link *tcp)
{
    tcp->step = RSI_TCP_GREETED;
    if (tcp->fd >= 0) {
        close(tcp->fd); /* also leaves the epoll set */
        tcp->fd = -1;
    }
}

/* ---- how connecting fails -------------------------------------------------------------------- */

static void connect_failed(struct rsi_tcp_link *tcp, int errno_value)
{
    struct rsi_error error = {0};
    const char *url = tcp->url_text;
    switch (errno_value) {
    case ECONNREFUSED:
        (void)rsi_fail(&error, RSI_E_REFUSED,
                       "no broker listens on %s; start ringsided there or check the port", url);
        break;
    case ENETUNREACH:
    case EHOSTUNREACH:
        (void)rsi_fail(&error, RSI_E_LINK_LOST,
                       "%s cannot be reached (%s); check the address and the routes (ip route get)",
                       url, strerrordesc_np(errno_value));
        break;
    case ETIMEDOUT:
        (void)rsi_fail(&error, RSI_E_TIMED_OUT,
                       "%s does not answer; check the address and the firewalls between", url);
        break;
    default:
        (void)rsi_fail_errno(&error, RSI_E_LINK_LOST, errno_value, "cannot connect to %s", url);
        break;
    }
    rsi_tcp_connect_stop(tcp);
    rsi_link_lose_error(&tcp->base, &error);
}

void rsi_tcp_connect_check(struct rsi_tcp_link *tcp, uint64_t now_ns)
{
    if (tcp->connect_errno != 0) {
        connect_failed(tcp, tcp->connect_errno);
        return;
    }
    if (now_ns < tcp->connect_deadline_ns) {
        return;
    }
    uint64_t timeout_ms = rsi_tcp_domain(tcp->base.poller->domain)->connect_timeout_ns / NS_PER_MS;
    bool is_connected = tcp->step == RSI_TCP_AWAIT_GREETING;
    uint32_t greeting_bytes = tcp->greeting_bytes;
    rsi_tcp_connect_stop(tcp);
    if (is_connected) {
        rsi_link_lose(&tcp->base, RSI_E_TIMED_OUT,
                      "%s is connected, but sent %u of the %u bytes of a Ringside greeting within "
                      "%" PRIu64 " ms; is it another service's port?",
                      tcp->base.peer_text, greeting_bytes, RSI_TCP_GREETING_BYTES, timeout_ms);
    } else {
        rsi_link_lose(&tcp->base, RSI_E_TIMED_OUT,
                      "%s did not answer within %" PRIu64
                      " ms; check the address and the firewalls between",
                      tcp->url_text, timeout_ms);
    }
}

/* What the peer sent is no greeting: shows its first bytes, because people recognise "GET /". */
static void refuse_stranger(struct rsi_tcp_link *tcp)
{
    char shown[25];
    uint32_t count = 0;
    for (uint32_t i = 0; i < tcp->greeting_bytes && count + 1 < sizeof(shown); i++) {
        uint8_t byte = tcp->greeting[i];
        bool is_plain = byte >= ' ' && byte <= '~';
        shown[count++] = (char)(is_plain ? byte : '.');
    }
    shown[count] = '\0';
    rsi_tcp_connect_stop(tcp);
    rsi_link_lose(&tcp->base, RSI_E_PROTOCOL,
                  "%s does not speak Ringside: its first bytes are '%s' instead of a greeting; "
                  "check the port",
                  tcp->base.peer_text, shown);
}

/* ---- greeting -------------------------------------------------------------------------------- */

static bool send_greeting(struct rsi_tcp_link *tcp)
{
    struct {
        struct rsi_record_header header;
        struct rsi_greeting greeting;
    } record = {.header = {.kind = RSI_RECORD_GREETING, .bytes = RSI_GREETING_BYTES}};
    rsi_static_assert(sizeof(record) == RSI_TCP_GREETING_BYTES);
    rsi_greeting_init(&record.greeting, &tcp->base.poller->domain->options);
    ssize_t sent_bytes = send(tcp->fd, &record, sizeof(record), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent_bytes == (ssize_t)sizeof(record)) {
        return true;
    }
    /* A new socket has room for it: the peer went away meanwhile. */
    connect_failed(tcp, sent_bytes < 0 ? errno : EIO);
    return false;
}

/* The peer is greeted and greeted back: the socket goes to the owner thread. */
static void hand_over(struct rsi_tcp_link *tcp)
{
    struct rsi_tcp_domain *domain = rsi_tcp_domain(tcp->base.poller->domain);
    epoll_ctl(domain->epoll_fd, EPOLL_CTL_DEL, tcp->fd, NULL);
    int on = 1;
    if (domain->zerocopy_bytes_min != UINT64_MAX &&
        setsockopt(tcp->fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) == 0) {
        tcp->zerocopy = rsi_tcp_zerocopy_create(); /* without: bytes are copied */
    }
    tcp->step = RSI_TCP_GREETED;
    tcp->is_handed_over = true;
    tcp->receive.is_readable = true;
    rsi_link_set_state(&tcp->base, RSI_LINK_OPEN);
    rsi_tcp_poller_push(tcp, RSI_TCP_COMMAND_ADD);
}

/* To the poller that the peer asks for, if that one has room. */
static void move_home(struct rsi_tcp_link *tcp, uint32_t agent_hint)
{
    struct rsi_poller *home = rsi_poller_choose(&tcp->choice, agent_hint);
    if (home != tcp->base.poller && rsi_tcp_poller(home)->claimed_count < home->link_count_max) {
        rsi_tcp_poller(tcp->base.poller)->claimed_count--;
        rsi_tcp_poller(home)->claimed_count++;
        tcp->base.poller = home;
    }
}

static void take_greeting(struct rsi_tcp_link *tcp)
{
    struct rsi_greeting greeting;
    memcpy(&greeting, tcp->greeting + RSI_RECORD_HEADER_BYTES, sizeof(greeting));
    struct rsi_error error = {0};
    rsi_status_t status = rsi_greeting_check(&greeting, RSI_GREETING_BYTES,
                                             &tcp->base.poller->domain->options, &error);
    bool is_answered = tcp->is_dialled || (status != RSI_OK && status != RSI_E_VERSION);
    if (!is_answered && !send_greeting(tcp)) {
        return;
    }
    if (status != RSI_OK) {
        rsi_error_context(&error, "%s", tcp->base.peer_text);
        rsi_tcp_connect_stop(tcp);
        rsi_link_lose_error(&tcp->base, &error);
        return;
    }
    if (greeting.control_credit == 0) {
        rsi_tcp_connect_stop(tcp);
        rsi_link_lose(&tcp->base, RSI_E_PROTOCOL, "%s takes no control messages at all",
                      tcp->base.peer_text);
        return;
    }
    tcp->base.peer_greeting = greeting;
    if (!tcp->is_dialled) {
        move_home(tcp, greeting.agent_hint);
    }
    hand_over(tcp);
}

/* Whether what came so far can be the beginning of a greeting. */
static bool is_plausible(const struct rsi_tcp_link *tcp)
{
    struct {
        struct rsi_record_header header;
        uint64_t magic;
    } expected = {
        .header = {.kind = RSI_RECORD_GREETING, .bytes = RSI_GREETING_BYTES},
        .magic = RSI_WIRE_MAGIC,
    };
    size_t bytes = tcp->greeting_bytes < sizeof(expected) ? tcp->greeting_bytes : sizeof(expected);
    return memcmp(tcp->greeting, &expected, bytes) == 0;
}

static void receive_greeting(struct rsi_tcp_link *tcp)
{
    ssize_t bytes = recv(tcp->fd, tcp->greeting + tcp->greeting_bytes,
                         RSI_TCP_GREETING_BYTES - tcp->greeting_bytes, MSG_DONTWAIT);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (bytes < 0) {
        connect_failed(tcp, errno);
        return;
    }
    if (bytes == 0) {
        rsi_tcp_connect_stop(tcp);
        rsi_link_lose(&tcp->base, RSI_E_LINK_LOST,
                      "%s closed the connection before it had greeted; %s", tcp->base.peer_text,
                      tcp->is_dialled ? "is it a Ringside broker, and does its log say why?"
                                      : "it may have been a port scan");
        return;
    }
    tcp->greeting_bytes += (uint32_t)bytes;
    if (!is_plausible(tcp)) {
        refuse_stranger(tcp);
    } else if (tcp->greeting_bytes == RSI_TCP_GREETING_BYTES) {
        take_greeting(tcp);
    }
}

/* The kernel has connected, or has given up. */
static void finish_connect(struct rsi_tcp_link *tcp)
{
    int errno_value = 0;
    socklen_t bytes = sizeof(errno_value);
    if (getsockopt(tcp->fd, SOL_SOCKET, SO_ERROR, &errno_value, &bytes) != 0) {
        errno_value = errno;
    }
    if (errno_value != 0) {
        connect_failed(tcp, errno_value);
        return;
    }
    describe_ends(tcp);
    tcp->step = RSI_TCP_AWAIT_GREETING;
    watch(tcp, EPOLL_CTL_MOD, EPOLLIN);
    (void)send_greeting(tcp);
}

void rsi_tcp_connect_step(struct rsi_tcp_link *tcp)
{
    switch (tcp->step) {
    case RSI_TCP_CONNECT:
        finish_connect(tcp);
        break;
    case RSI_TCP_AWAIT_GREETING:
        receive_greeting(tcp);
        break;
    case RSI_TCP_GREETED:
        break;
    }
}

/* ---- dialling -------------------------------------------------------------------------------- */

static rsi_status_t bind_source(int fd, const struct rsi_tcp_domain *domain,
                                struct rsi_error *error)
{
    if (domain->bind_host[0] == '\0') {
        return RSI_OK;
    }
    struct rsi_url source = {.scheme = "tcp"};
    snprintf(source.host, sizeof(source.host), "%s", domain->bind_host);
    struct sockaddr_storage address;
    socklen_t address_bytes;
    rsi_status_t status = rsi_url_resolve(&source, true, &address, &address_bytes, error);
    if (status != RSI_OK) {
        rsi_error_context(error, "bind address");
        return status;
    }
    set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (bind(fd, (const struct sockaddr *)&address, address_bytes) != 0) {
        return rsi_fail_errno(error, RSI_E_ADDRESS, errno,
                              "cannot dial from '%s': give an address of this machine (ip address) "
                              "and of the broker's family",
                              domain->bind_host);
    }
    return RSI_OK;
}

static rsi_status_t begin_connect(struct rsi_tcp_link *tcp, const struct rsi_url *url,
                                  struct rsi_error *error)
{
    struct sockaddr_storage address;
    socklen_t address_bytes;
    rsi_status_t status = rsi_url_resolve(url, false, &address, &address_bytes, error);
    if (status != RSI_OK) {
        return status;
    }
    tcp->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (tcp->fd < 0) {
        return fail_descriptor(error, errno, tcp->url_text);
    }
    status = bind_source(tcp->fd, rsi_tcp_domain(tcp->base.poller->domain), error);
    if (status != RSI_OK) {
        return status;
    }
    set_options(tcp->fd);
    if (connect(tcp->fd, (const struct sockaddr *)&address, address_bytes) != 0 &&
        errno != EINPROGRESS) {
        tcp->connect_errno = errno; /* turns up in link_poll_control, as later failures do */
        return RSI_OK;
    }
    watch(tcp, EPOLL_CTL_ADD, EPOLLOUT);
    return RSI_OK;
}

rsi_status_t rsi_tcp_link_dial(struct rsi_link **link, struct rsi_poller *poller,
                               const struct rsi_url *url, struct rsi_error *error)
{
    struct rsi_tcp_link *tcp = NULL;
    rsi_status_t status = make_link(&tcp, poller, error);
    if (status != RSI_OK) {
        return status;
    }
    rsi_url_format(url, tcp->url_text, sizeof(tcp->url_text));
    snprintf(tcp->base.peer_text, sizeof(tcp->base.peer_text), "%.95s", tcp->url_text);
    tcp->is_dialled = true;
    tcp->step = RSI_TCP_CONNECT;
    status = begin_connect(tcp, url, error);
    if (status != RSI_OK) {
        rsi_tcp_connect_stop(tcp);
        rsi_tcp_link_destroy(&tcp->base);
        return status;
    }
    *link = &tcp->base;
    return RSI_OK;
}

/* ---- accepting ------------------------------------------------------------------------------- */

/* Without a descriptor the peer would wait for ever and keep the listener readable: turns it away.
 */
static void turn_away(struct rsi_tcp_listener *listener)
{
    if (listener->reserve_fd >= 0) {
        close(listener->reserve_fd);
    }
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
        close(fd);
    }
    listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static rsi_status_t accept_socket(int *fd, struct rsi_tcp_listener *listener,
                                  struct rsi_error *error)
{
    int accepted_fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted_fd >= 0) {
        *fd = accepted_fd;
        return RSI_OK;
    }
    switch (errno) {
    case EMFILE:
    case ENFILE: {
        int errno_value = errno;
        turn_away(listener);
        return fail_descriptor(error, errno_value, "a peer that connected; it was turned away");
    }
    case ENOMEM:
    case ENOBUFS:
        return rsi_fail_errno(error, RSI_E_NO_MEMORY, errno, "cannot accept on %s", listener->url);
    default:
        /* Nobody waits, or who waited went away or was cut off before being accepted. */
        return RSI_WOULD_BLOCK;
    }
}

rsi_status_t rsi_tcp_link_accept(struct rsi_link **link, struct rsi_listener *base,
                                 const struct rsi_poller_choice *choice, struct rsi_error *error)
{
    struct rsi_tcp_listener *listener = (struct rsi_tcp_listener *)(void *)base;
    int fd = -1;
    rsi_status_t status = accept_socket(&fd, listener, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_tcp_link *tcp = NULL;
    status = make_link(&tcp, rsi_poller_choose(choice, 0), error);
    if (status != RSI_OK) {
        close(fd); /* the peer sees the end; it would wait for a greeting in vain */
        return status;
    }
    tcp->fd = fd;
    tcp->choice = *choice;
    tcp->step = RSI_TCP_AWAIT_GREETING;
    snprintf(tcp->url_text, sizeof(tcp->url_text), "%s", listener->url);
    describe_ends(tcp);
    set_options(fd);
    watch(tcp, EPOLL_CTL_ADD, EPOLLIN);
    *link = &tcp->base;
    return RSI_OK;
}
