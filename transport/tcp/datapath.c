/*
 * The poller: which link has work, how links join and leave.
 *
 * Design notes
 * - Sockets are in the epoll set once and for all, edge-triggered, for both directions. What
 *   epoll told stands in receive.is_readable and send.is_blocked until a short receive or a full
 *   socket takes it back; no epoll_ctl follows, and a link whose socket is full does not spin.
 * - One epoll_wait per pass, however many links. A thread that spins with one link skips even
 *   that and reads the socket directly: one system call less before a message is seen. It is one
 *   more for a thread that sleeps, so the first poller_arm ends it.
 * - The socket options for silent peers are not enough. TCP_USER_TIMEOUT also ends a connection
 *   whose peer answers, but keeps its window shut: a stopped process, which is not dead.
 *   Keepalive sleeps while bytes are on their way. So every RSI_TCP_ALIVE_INTERVAL_NS the owner
 *   thread looks into TCP_INFO for bytes on their way that nobody has answered for
 *   RSI_TCP_SILENCE_MS.
 * - Leaving: what the outbox holds and an end record go out, completions come in, or time is up;
 *   then the link is out of the list and crossing.released gives it back. Nothing touches it
 *   after.
 */
#include "transport/tcp/tcp_internal.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    EVENT_COUNT_MAX = 64, /* per pass; what is left over stays in the epoll set */
    SPIN_PASS_COUNT = 64, /* passes without a sleep after which a thread counts as spinning */
};

/* ---- joining and leaving --------------------------------------------------------------------- */

/* Wakes a sleeping owner thread from time to time, as long as there are links to look after. */
static void set_timer(struct rsi_tcp_poller *poller)
{
    bool want_timer = poller->link_count != 0;
    if (want_timer == poller->timer_is_set) {
        return;
    }
    poller->timer_is_set = want_timer;
    struct itimerspec interval = {0};
    if (want_timer) {
        interval.it_interval.tv_sec = RSI_TCP_ALIVE_INTERVAL_NS / 1000000000u;
        interval.it_value = interval.it_interval;
    }
    timerfd_settime(poller->timer_fd, 0, &interval, NULL);
}

static void add_link(struct rsi_tcp_poller *poller, struct rsi_tcp_link *tcp)
{
    rsi_assert(poller->link_count < poller->base.link_count_max);
    tcp->index = poller->link_count;
    poller->links[poller->link_count++] = tcp;
    set_timer(poller);
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.ptr = tcp,
    };
    if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, tcp->fd, &event) != 0) {
        int errno_value = errno;
        tcp->receive.has_ended = true;
        rsi_link_fail(&tcp->base, RSI_E_SYSTEM,
                      "%s: cannot watch the socket (%s); look at "
                      "/proc/sys/fs/epoll/max_user_watches",
                      tcp->base.peer_text, strerrordesc_np(errno_value));
    }
}

/* The rings are there: from now on they may be written and read. */
static void begin_attach(struct rsi_tcp_poller *poller, struct rsi_tcp_link *tcp)
{
    struct rsi_link *link = &tcp->base;
    rsi_link_set_start(link, &tcp->rings); /* here: this thread alone looks at positions */
    tcp->has_rings = true;
    tcp->owed.attach = true;
    tcp->told_consumed_pos = link->peer_consumed_pos;
    tcp->send.ring_pos = link->placed_pos;
    tcp->send.ring_end_pos = link->placed_pos;
    tcp->receive.received_pos = link->arrived_pos;
    tcp->receive.batch_end_pos = link->arrived_pos;
    tcp->reported_arrived_pos = link->arrived_pos;
    tcp->reported_consumed_pos = link->consumed_pos;
    tcp->reported_ns = poller->now_ns;
}

static void release_link(struct rsi_tcp_poller *poller, struct rsi_tcp_link *tcp)
{
    epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, tcp->fd, NULL);
    struct rsi_tcp_link *last = poller->links[--poller->link_count];
    poller->links[tcp->index] = last;
    last->index = tcp->index;
    set_timer(poller);
    struct rsi_waker *control_waker = poller->base.control_waker;
    /* Pairs with the acquire in link_poll_control; the link may be gone right after. */
    rsi_store_release(&tcp->crossing.released, true);
    rsi_waker_wake(control_waker);
}

static bool has_references(const struct rsi_tcp_link *tcp)
{
    return tcp->zerocopy != NULL && rsi_tcp_zerocopy_count(tcp->zerocopy) != 0;
}

/* Sends what is left; true: the link was given back. */
static bool leave(struct rsi_tcp_poller *poller, struct rsi_tcp_link *tcp)
{
    bool is_over = rsi_load_relaxed(&tcp->base.failed) || poller->now_ns >= tcp->close_deadline_ns;
    if (!is_over) {
        if (tcp->receive.is_readable) {
            (void)rsi_tcp_receive_some(tcp); /* control credit, and whether the peer is there */
        }
        (void)rsi_tcp_send_all(tcp);
        bool is_sent = rsi_tcp_send_is_empty(tcp) && tcp->owed.close_is_sent;
        is_over =
            tcp->send.failure != 0 || tcp->receive.has_ended || (is_sent && !has_references(tcp));
    }
    if (is_over) {
        release_link(poller, tcp);
    }
    return is_over;
}

static uint32_t take_commands(struct rsi_tcp_poller *poller)
{
    uint32_t count = 0;
    uint32_t bytes;
    const struct rsi_tcp_command *command;
    while ((command = rsi_mailbox_front(&poller->commands, &bytes)) != NULL) {
        struct rsi_tcp_link *tcp = command->link;
        switch (command->kind) {
        case RSI_TCP_COMMAND_ADD:
            add_link(poller, tcp);
            break;
        case RSI_TCP_COMMAND_ATTACH:
            begin_attach(poller, tcp);
            break;
        case RSI_TCP_COMMAND_REMOVE:
            tcp->is_leaving = true;
            tcp->owed.close = true;
            break;
        }
        rsi_mailbox_pop(&poller->commands);
        count++;
    }
    return count;
}

/* ---- is the peer's host there? --------------------------------------------------------------- */

static RSI_NOINLINE void check_alive(struct rsi_tcp_link *tcp)
{
    struct tcp_info info = {0};
    socklen_t info_bytes = sizeof(info);
    if (getsockopt(tcp->fd, IPPROTO_TCP, TCP_INFO, &info, &info_bytes) != 0) {
        return;
    }
    /* Sent again and not answered, or: the window is shut and nobody answers the question whether
     * it opened (a stopped process's host does). */
    bool is_unanswered =
        (info.tcpi_unacked != 0 && info.tcpi_retransmits >= RSI_TCP_SILENT_RETRANSMITS) ||
        info.tcpi_probes >= RSI_TCP_SILENT_PROBES;
    bool is_silent = info.tcpi_last_ack_recv >= RSI_TCP_SILENCE_MS &&
                     info.tcpi_last_data_recv >= RSI_TCP_SILENCE_MS;
    if (is_unanswered && is_silent) {
        tcp->receive.has_ended = true;
        rsi_link_fail(&tcp->base, RSI_E_LINK_LOST,
                      "%s: the peer's host has not answered for %u s; check the host and the "
                      "network",
                      tcp->base.peer_text, info.tcpi_last_ack_recv / 1000);
    }
}

static RSI_NOINLINE void check_all_alive(struct rsi_tcp_poller *poller)
{
    poller->alive_check_ns = poller->now_ns;
    for (uint32_t i = 0; i < poller->link_count; i++) {
        check_alive(poller->links[i]);
    }
}

/* ---- a pass ---------------------------------------------------------------------------------- */

static void take_event(struct rsi_tcp_link *tcp, uint32_t events)
{
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        tcp->receive.is_readable = true;
    }
    if ((events & (EPOLLRDHUP | EPOLLHUP)) != 0) {
        tcp->receive.must_see_end = true;
    }
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
        tcp->send.is_blocked = false;
    }
    if ((events & EPOLLERR) != 0 && tcp->zerocopy != NULL) {
        rsi_tcp_receive_completions(tcp);
        if (tcp->has_rings && !rsi_load_relaxed(&tcp->base.failed)) {
            rsi_tcp_show_consumed(tcp);
        }
    }
}

static uint32_t take_events(struct rsi_tcp_poller *poller)
{
    struct epoll_event events[EVENT_COUNT_MAX];
    int count = epoll_wait(poller->epoll_fd, events, EVENT_COUNT_MAX, 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr != NULL) {
            take_event(events[i].data.ptr, events[i].events);
        }
    }
    return count > 0 ? (uint32_t)count : 0;
}

/* Whether reading the only link's socket directly tells all that epoll would tell. */
static bool can_skip_epoll(struct rsi_tcp_poller *poller)
{
    if (poller->link_count != 1 || poller->passes_since_arm < SPIN_PASS_COUNT) {
        poller->passes_since_arm++;
        return false;
    }
    const struct rsi_tcp_link *tcp = poller->links[0];
    return !tcp->send.is_blocked && !has_references(tcp);
}

/* Reading showed no end, but sending failed: there is nothing more to be read. */
static RSI_COLD void fail_by_send(struct rsi_tcp_link *tcp)
{
    tcp->receive.has_ended = true;
    rsi_link_fail(&tcp->base, RSI_E_LINK_LOST,
                  "%s: sending failed (%s): the peer's process ended, or something between cut the "
                  "connection",
                  tcp->base.peer_text, strerrordesc_np(tcp->send.failure));
}

static uint32_t serve(struct rsi_tcp_link *tcp)
{
    struct rsi_link *link = &tcp->base;
    uint32_t count = 0;
    if (rsi_unlikely(tcp->send.failure != 0) && !tcp->receive.has_ended) {
        tcp->receive.is_readable = true;
    }
    if (tcp->receive.is_readable) {
        count += rsi_tcp_receive_some(tcp);
    }
    if (rsi_unlikely(tcp->send.failure != 0) && !tcp->receive.is_readable &&
        !tcp->receive.has_ended) {
        fail_by_send(tcp);
    }
    if (tcp->receive.has_ended) {
        return count;
    }
    bool wants_to_send = rsi_tcp_wants_to_send(tcp);
    if (link->under_way && rsi_tcp_send_is_empty(tcp)) {
        link->under_way = false; /* the kernel took all; what follows may set it again */
    }
    if (wants_to_send) {
        (void)rsi_tcp_send_all(tcp);
        count++;
    }
    return count;
}

uint32_t rsi_tcp_poll_data(struct rsi_poller *base, uint64_t now_ns)
{
    struct rsi_tcp_poller *poller = rsi_tcp_poller(base);
    poller->now_ns = now_ns;
    uint32_t count = take_commands(poller);
    if (can_skip_epoll(poller)) {
        poller->links[0]->receive.is_readable = true;
        poller->has_skipped_epoll = true;
    } else if (poller->link_count > 0) {
        count += take_events(poller);
        poller->has_skipped_epoll = false;
    }
    /* Backwards: a link that leaves changes places with one that was served already. */
    for (uint32_t i = poller->link_count; i-- > 0;) {
        struct rsi_tcp_link *tcp = poller->links[i];
        if (rsi_unlikely(tcp->is_leaving)) {
            count += leave(poller, tcp) ? 1 : 0;
        } else if (!tcp->receive.has_ended) {
            count += serve(tcp);
        }
    }
    if (rsi_unlikely(now_ns - poller->alive_check_ns >= RSI_TCP_ALIVE_INTERVAL_NS)) {
        check_all_alive(poller);
    }
    return count;
}

/* ---- sleeping -------------------------------------------------------------------------------- */

/* The peer is short of credit for control messages: the control thread's next pop wakes this thread
 * (link.c), which then tells how many were taken. */
static void ask_for_pop(struct rsi_tcp_link *tcp)
{
    uint64_t waiting_count = tcp->control.received_count - tcp->control.reported_taken_count;
    if (waiting_count > RSI_CONTROL_SLOT_COUNT - RSI_TCP_CONTROL_REPORT_COUNT) {
        rsi_store_relaxed(&tcp->base.inbox_full, 1);
        rsi_fence_seq_cst(); /* before the look at what was popped; pairs with pop_and_wake() */
    }
}

static bool has_work(struct rsi_tcp_link *tcp)
{
    const struct rsi_tcp_receive *receive = &tcp->receive;
    if (receive->has_ended) {
        return false;
    }
    ask_for_pop(tcp);
    return receive->is_readable || tcp->send.failure != 0 || rsi_tcp_wants_to_send(tcp);
}

bool rsi_tcp_poller_arm(struct rsi_poller *base)
{
    struct rsi_tcp_poller *poller = rsi_tcp_poller(base);
    poller->passes_since_arm = 0;
    if (poller->has_skipped_epoll) {
        (void)take_events(poller);
        poller->has_skipped_epoll = false;
    }
    rsi_fence_seq_cst(); /* the sleeper said that it will sleep; see waker.h */
    if (!rsi_mailbox_is_empty(&poller->commands)) {
        return false;
    }
    for (uint32_t i = 0; i < poller->link_count; i++) {
        if (has_work(poller->links[i])) {
            return false;
        }
    }
    return true;
}

void rsi_tcp_poller_disarm(struct rsi_poller *poller)
{
    (void)poller; /* the epoll set watches all the time */
}

int rsi_tcp_poller_fd(struct rsi_poller *poller)
{
    return rsi_tcp_poller(poller)->epoll_fd;
}

/* ---- a link ---------------------------------------------------------------------------------- */

rsi_status_t rsi_tcp_flush(struct rsi_link *link)
{
    link->under_way = true; /* also when the socket is full: poll_data goes on with it */
    return rsi_tcp_send_all(rsi_tcp_link(link));
}

void rsi_tcp_publish_consumed(struct rsi_link *link)
{
    struct rsi_tcp_link *tcp = rsi_tcp_link(link);
    if (rsi_tcp_report_is_due(tcp, rsi_tcp_poller(link->poller)->now_ns) ||
        rsi_tcp_wake_is_due(tcp)) {
        (void)rsi_tcp_send_all(tcp); /* a failure turns up in poll_data */
    }
}

void rsi_tcp_request_wake(struct rsi_link *link, uint64_t in_arrived_at_least,
                          uint64_t peer_arrived_at_least, uint64_t peer_consumed_at_least)
{
    (void)in_arrived_at_least; /* epoll wakes for arrivals */
    struct rsi_tcp_link *tcp = rsi_tcp_link(link);
    if (link->peer_arrived_pos >= peer_arrived_at_least ||
        tcp->told_consumed_pos >= peer_consumed_at_least) {
        return; /* true already, or as soon as a completion comes in, which wakes by itself */
    }
    if (peer_arrived_at_least == UINT64_MAX && peer_consumed_at_least == UINT64_MAX) {
        return;
    }
    struct rsi_wake_request *requested = &tcp->requested;
    if (requested->generation != 0 && requested->arrived_at_least == peer_arrived_at_least &&
        requested->consumed_at_least == peer_consumed_at_least) {
        return;
    }
    *requested = (struct rsi_wake_request){
        .arrived_at_least = peer_arrived_at_least,
        .consumed_at_least = peer_consumed_at_least,
        .generation = ++tcp->request_count,
    };
    tcp->owed.wake_request = true;
    rsi_bump_relaxed(&link->stats.wake_requests, 1);
    (void)rsi_tcp_send_all(tcp);
}
