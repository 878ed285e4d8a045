/*
 * How a poller sleeps: until a frame comes, its time is up, or somebody wakes it.
 *
 * Design notes
 * - Three descriptors in an epoll set of its own: the waker's, a timer for what is due, and the
 *   port's, where the device has one. So no other thread has to run for a frame to wake this one: a
 *   blocking round trip over af_packet takes a third of what it took through the watch thread.
 * - One sleeper at a time has the port's descriptor in its set: the guard. It takes the frames of
 *   the others too and wakes them, as whoever looks does. The others sleep on their wakers; when it
 *   is awake the guard looks, and if it does not, the watch thread notices (watch.c).
 * - Out of the set while it is awake: else the kernel would tell the set of every frame.
 * - A timer that is set already and not later than what is due stays as it is: the thread then
 *   wakes once for nothing, instead of setting it before each sleep.
 * - Before it sleeps it tells what it would otherwise gather.
 */
#include "core/clock.h"
#include "core/position.h"
#include "transport/dpdk/dpdk_internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Between our clock and the timer's. */
#define TIMER_ERROR_NS UINT64_C(100000)

/* ---- descriptors ----------------------------------------------------------------------------- */

static rsi_status_t add(struct rsi_dpdk_poller *poller, int fd, struct rsi_error *error)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(poller->sleep.fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "a dpdk poller cannot wait for descriptor %d", fd);
    }
    return RSI_OK;
}

rsi_status_t rsi_dpdk_sleep_init(struct rsi_dpdk_poller *poller, struct rsi_error *error)
{
    struct rsi_dpdk_sleep *sleep = &poller->sleep;
    sleep->fd = epoll_create1(EPOLL_CLOEXEC);
    sleep->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (sleep->fd < 0 || sleep->timer_fd < 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "a dpdk poller cannot make its descriptors; raise the limit with "
                              "'ulimit -n'");
    }
    rsi_status_t status = add(poller, poller->queue.waker.fd, error);
    return status != RSI_OK ? status : add(poller, sleep->timer_fd, error);
}

/* ---- the guard ------------------------------------------------------------------------------- */

static void give_guard(struct rsi_dpdk_poller *poller)
{
    struct rsi_dpdk_sleep *sleep = &poller->sleep;
    if (!sleep->is_guard) {
        return;
    }
    struct rsi_port *port = poller->station->port;
    /* Fails when the driver closed it meanwhile: then it is out of the set already. */
    (void)epoll_ctl(sleep->fd, EPOLL_CTL_DEL, sleep->port_fd, NULL);
    port->operations->disarm(port, sleep->port_fd);
    sleep->is_guard = false;
    rsi_station_guard_give(poller->station, &poller->queue);
}

static void take_guard(struct rsi_dpdk_poller *poller)
{
    struct rsi_dpdk_sleep *sleep = &poller->sleep;
    struct rsi_port *port = poller->station->port;
    if (port->operations->arm == NULL || !rsi_station_guard_take(poller->station, &poller->queue)) {
        return;
    }
    sleep->port_fd = port->operations->arm(port);
    if (sleep->port_fd < 0) {
        rsi_station_guard_give(poller->station, &poller->queue);
        return;
    }
    sleep->is_guard = true;
    if (add(poller, sleep->port_fd, NULL) != RSI_OK) {
        give_guard(poller);
    }
}

void rsi_dpdk_sleep_fini(struct rsi_dpdk_poller *poller)
{
    struct rsi_dpdk_sleep *sleep = &poller->sleep;
    give_guard(poller);
    if (sleep->timer_fd >= 0) {
        close(sleep->timer_fd);
    }
    if (sleep->fd >= 0) {
        close(sleep->fd);
    }
    sleep->fd = -1;
    sleep->timer_fd = -1;
}

/* ---- the timer ------------------------------------------------------------------------------- */

static void set_timer(struct rsi_dpdk_sleep *sleep, uint64_t due_ns, uint64_t now_ns)
{
    if (due_ns == UINT64_MAX || (sleep->timer_ns != 0 && sleep->timer_ns <= due_ns)) {
        return;
    }
    uint64_t left_ns = due_ns > now_ns ? due_ns - now_ns : 1; /* 0 would turn it off */
    struct itimerspec timer = {.it_value = {.tv_sec = (time_t)(left_ns / 1000000000),
                                            .tv_nsec = (long)(left_ns % 1000000000)}};
    if (timerfd_settime(sleep->timer_fd, 0, &timer, NULL) == 0) {
        sleep->timer_ns = due_ns;
    }
}

/* A timer that went off is not set any more, and its descriptor must not stay readable. */
static void hear_timer(struct rsi_dpdk_sleep *sleep)
{
    uint64_t count;
    if (sleep->timer_ns != 0 && rsi_clock_now_ns() + TIMER_ERROR_NS >= sleep->timer_ns &&
        read(sleep->timer_fd, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        sleep->timer_ns = 0;
    }
}

/* ---- is there work? -------------------------------------------------------------------------- */

/* The peer is short of credit for control messages: the control thread's next pop wakes this thread
 * (link.c), which then tells of the room. */
static void ask_for_pop(struct rsi_dpdk_link *link)
{
    uint64_t waiting_count = link->lane.received_control_count + RSI_CONTROL_SLOT_COUNT -
                             link->lane.reported_control_limit;
    if (waiting_count > RSI_CONTROL_SLOT_COUNT / 2) {
        rsi_store_relaxed(&link->base.inbox_full, 1);
        rsi_fence_seq_cst(); /* before the look at what was popped; pairs with pop_and_wake() */
    }
}

static bool has_work(struct rsi_dpdk_link *link, uint64_t now_ns)
{
    if (link->receive.has_ended) {
        return link->is_leaving;
    }
    ask_for_pop(link);
    bool wants_flush = link->base.under_way && !rsi_dpdk_has_data(link) &&
                       link->base.placed_pos != link->base.flushed_pos;
    return wants_flush || rsi_dpdk_lane_wants_to_send(link) ||
           rsi_dpdk_state_is_due(link, now_ns) || rsi_dpdk_due_ns(link) <= now_ns ||
           (link->is_leaving && rsi_dpdk_has_left(link));
}

/* What is gathered goes out now: nothing will be added to it. */
static void tell_all(struct rsi_dpdk_poller *poller)
{
    for (uint32_t i = 0; i < poller->link_count; i++) {
        struct rsi_dpdk_link *link = poller->links[i];
        if (link->receive.data_count != 0 && !link->receive.has_ended) {
            link->send.state_is_owed = true;
            (void)rsi_dpdk_send_all(link);
        }
    }
    (void)rsi_dpdk_burst_flush(poller);
}

static uint64_t next_due_ns(const struct rsi_dpdk_poller *poller)
{
    uint64_t due_ns = UINT64_MAX;
    for (uint32_t i = 0; i < poller->link_count; i++) {
        const struct rsi_dpdk_link *link = poller->links[i];
        if (!link->receive.has_ended) {
            due_ns = rsi_pos_min(due_ns, rsi_dpdk_due_ns(link));
        }
        if (link->is_leaving) {
            due_ns = rsi_pos_min(due_ns, link->close_deadline_ns);
        }
    }
    if (rsi_unlikely(poller->burst.is_stuck)) {
        due_ns = rsi_pos_min(due_ns, rsi_clock_now_ns() + RSI_DPDK_STUCK_NS);
    }
    return due_ns;
}

static bool is_idle(struct rsi_dpdk_poller *poller)
{
    if (!rsi_mailbox_is_empty(&poller->queue.frames) || !rsi_mailbox_is_empty(&poller->commands)) {
        return false;
    }
    if (rsi_unlikely(poller->burst.is_stuck)) {
        return true; /* whatever the links want: the port takes nothing now */
    }
    uint64_t now_ns = rsi_clock_now_ns();
    for (uint32_t i = 0; i < poller->link_count; i++) {
        if (has_work(poller->links[i], now_ns)) {
            return false;
        }
    }
    return true;
}

/* ---- sleeping -------------------------------------------------------------------------------- */

bool rsi_dpdk_poller_arm(struct rsi_poller *base)
{
    struct rsi_dpdk_poller *poller = rsi_dpdk_poller(base);
    if (!poller->has_begun) {
        return false; /* the port does not know this thread yet */
    }
    tell_all(poller);
    rsi_waker_prepare(&poller->queue.waker); /* then look once more; see waker.h */
    take_guard(poller);
    if (poller->sleep.is_guard) {
        (void)rsi_station_look(poller->station, &poller->queue); /* see port.h */
    }
    if (is_idle(poller)) {
        set_timer(&poller->sleep, next_due_ns(poller), rsi_clock_now_ns());
        if (!poller->sleep.is_guard) {
            rsi_station_sleep(poller->station, &poller->queue);
        }
        return true;
    }
    rsi_dpdk_poller_disarm(base);
    return false;
}

void rsi_dpdk_poller_disarm(struct rsi_poller *base)
{
    struct rsi_dpdk_poller *poller = rsi_dpdk_poller(base);
    rsi_waker_finish(&poller->queue.waker);
    give_guard(poller);
    hear_timer(&poller->sleep);
}

int rsi_dpdk_poller_fd(struct rsi_poller *poller)
{
    return rsi_dpdk_poller(poller)->sleep.fd;
}
