/*
 * ringside_poll and its relatives: where the application lends its thread to the client.
 *
 * Design notes
 * - A poll ends as soon as something was handed over, when room came for which a publish had found
 *   none, when a signal interrupted the sleep (so that a program's own handler is heard), at the
 *   time-out, and at the end of the session.
 * - The descriptor is armed only for applications that asked for it: arming costs a request to the
 *   peer on some transports. If arming finds work again and again that hands nothing over, the
 *   nudge makes the descriptor readable instead, so a poll with time-out 0 stays bounded.
 * - The descriptor is the client's own epoll set and stays the same when links come and go in it. A
 *   timer in it is set only while there is something to do that no descriptor of a link tells of.
 */
#include "clients/c/client.h"

#include "core/clock.h"
#include "core/position.h"
#include "transport/frame.h"

#include <inttypes.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define ARM_ROUNDS_MAX 32u
#define NS_PER_S       UINT64_C(1000000000)

/* Room came for which a publish waits; told once. */
static bool take_room(struct ringside_client *client)
{
    if (rsi_likely(client->room_wanted_bytes == 0) ||
        rsi_link_room_bytes(client->link) < client->room_wanted_bytes) {
        return false;
    }
    client->room_wanted_bytes = 0;
    return true;
}

/* What a sleeping poll waits for: the next frame, and room if a publish found none. */
static struct rsi_client_wish poll_wish(const struct ringside_client *client)
{
    const struct rsi_link *link = client->link;
    struct rsi_client_wish wish = RSI_CLIENT_WISH_NONE;
    if (link->in.capacity_bytes != 0) {
        wish.in_arrived_at_least = link->arrived_pos + RSI_FRAME_HEADER_BYTES;
    }
    if (client->room_wanted_bytes != 0) {
        wish.peer_consumed_at_least = link->staged_pos + RSI_RING_GUARD_BYTES +
                                      client->room_wanted_bytes - link->out.capacity_bytes;
    }
    return wish;
}

/* ---- the descriptor ----------------------------------------------------------------------------
 */

void rsi_client_nudge(struct ringside_client *client)
{
    uint64_t one = 1;
    client->is_nudged = write(client->nudge_fd, &one, sizeof(one)) == (ssize_t)sizeof(one);
}

void rsi_client_nudge_waiting(struct ringside_client *client)
{
    if (client->is_armed && !client->is_nudged) {
        rsi_client_nudge(client);
    }
}

/* What no descriptor tells of, the next try to reach a broker above all, is told by a timer. False:
 * it is due already. */
static bool set_timer(struct ringside_client *client, uint64_t now_ns)
{
    uint64_t due_ns =
        rsi_pos_min(rsi_client_due_ns(client, now_ns), rsi_client_calls_due_ns(client->calls));
    if (rsi_likely(due_ns == UINT64_MAX && !client->is_timer_set)) {
        return true;
    }
    if (due_ns <= now_ns) {
        return false;
    }
    uint64_t delay_ns = due_ns == UINT64_MAX ? 0 : due_ns - now_ns;
    const struct itimerspec timer = {.it_value = {.tv_sec = (time_t)(delay_ns / NS_PER_S),
                                                  .tv_nsec = (long)(delay_ns % NS_PER_S)}};
    client->is_timer_set = timerfd_settime(client->timer_fd, 0, &timer, NULL) == 0 && delay_ns != 0;
    return client->is_timer_set || due_ns == UINT64_MAX;
}

void rsi_client_take_back_fd(struct ringside_client *client)
{
    if (client->is_armed) {
        client->is_armed = false;
        rsi_client_disarm(client);
    }
    if (client->is_nudged) {
        uint64_t count;
        client->is_nudged = read(client->nudge_fd, &count, sizeof(count)) < 0;
    }
    if (client->is_timer_set) {
        const struct itimerspec never = {0};
        client->is_timer_set = timerfd_settime(client->timer_fd, 0, &never, NULL) != 0;
    }
}

/* True: the descriptor becomes readable with the next thing to do. False: there is something now.
 */
static bool arm(struct ringside_client *client, uint64_t now_ns)
{
    if (rsi_client_pass_control(client, now_ns) + rsi_client_take_control(client) > 0) {
        return false;
    }
    struct rsi_client_wish wish = poll_wish(client);
    client->is_armed = rsi_client_arm(client, &wish) && set_timer(client, now_ns);
    if (!client->is_armed) {
        rsi_client_disarm(client);
    }
    return client->is_armed;
}

int ringside_fd(ringside_client_t *client)
{
    if (client == NULL) {
        return -1;
    }
    client->is_fd_exposed = true;
    if (!client->is_armed && !client->is_nudged) {
        rsi_client_nudge(
            client); /* not armed yet: the first wait ends at once, and the poll after it arms */
    }
    return client->epoll_fd;
}

/* ---- poll --------------------------------------------------------------------------------------
 */

/* Passes until there is a reason to return. */
static size_t poll_until(struct ringside_client *client, size_t limit, uint64_t deadline_ns,
                         uint64_t now_ns)
{
    uint32_t arm_rounds = 0;
    for (;; now_ns = rsi_clock_now_ns()) {
        uint32_t work = rsi_client_pass(client, now_ns);
        size_t handled = rsi_client_deliver(client, limit);
        if (handled > 0) {
            (void)rsi_idle_step(&client->idle, handled);
            return handled;
        }
        if (take_room(client)) {
            if (client->is_fd_exposed) {
                rsi_client_nudge(client); /* handled nothing, but is not armed either */
            }
            return 0;
        }
        if (client->phase == RSI_CLIENT_ENDED) {
            return 0;
        }
        if (now_ns >= deadline_ns) {
            if (!client->is_fd_exposed || arm(client, now_ns)) {
                return 0;
            }
            if (++arm_rounds == ARM_ROUNDS_MAX) {
                rsi_client_nudge(client);
                return 0;
            }
            continue;
        }
        if (rsi_idle_step(&client->idle, work) == RSI_IDLE_SLEEP) {
            struct rsi_client_wish wish = poll_wish(client);
            uint64_t until_ns = rsi_pos_min(deadline_ns, rsi_client_calls_due_ns(client->calls));
            if (!rsi_client_sleep(client, &wish, now_ns, until_ns)) {
                deadline_ns = 0; /* a signal: one last pass */
            }
        } else {
            rsi_cpu_pause();
        }
    }
}

/* Connecting without waiting. It could not be done: the only event of such a client. */
static size_t tell_not_connected(struct ringside_client *client)
{
    const ringside_event_t event = {.type = RINGSIDE_EVENT_LOST,
                                    .status = (ringside_status_t)client->end_error.status,
                                    .text = client->end_error.text};
    client->phase = RSI_CLIENT_ENDED;
    rsi_client_tell_event(client, &event);
    return 1;
}

/* False: something is to be done now. */
static bool arm_connecting(struct ringside_client *client, uint64_t now_ns)
{
    client->is_armed = rsi_client_arm(client, &RSI_CLIENT_WISH_NONE) && set_timer(client, now_ns);
    if (!client->is_armed) {
        rsi_client_disarm(client);
    }
    return client->is_armed;
}

/* Until it is connected or cannot be, or the deadline has come. */
static RSI_COLD void connect_until(struct ringside_client *client, uint64_t deadline_ns,
                                   uint64_t now_ns)
{
    uint32_t arm_rounds = 0;
    for (;; now_ns = rsi_clock_now_ns()) {
        uint32_t work = rsi_client_connect_poll(client, now_ns);
        if (client->phase != RSI_CLIENT_CONNECTING) {
            return;
        }
        if (now_ns >= deadline_ns) {
            if (!client->is_fd_exposed || (work == 0 && arm_connecting(client, now_ns))) {
                return;
            }
            if (++arm_rounds == ARM_ROUNDS_MAX) {
                rsi_client_nudge(client);
                return;
            }
            continue;
        }
        if (rsi_idle_step(&client->idle, work) != RSI_IDLE_SLEEP) {
            rsi_cpu_pause();
        } else if (!rsi_client_sleep(client, &RSI_CLIENT_WISH_NONE, now_ns, deadline_ns)) {
            deadline_ns = 0; /* a signal: one last step */
        }
    }
}

static size_t poll_once(struct ringside_client *client, size_t limit, uint64_t timeout_ns)
{
    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t deadline_ns = rsi_client_deadline_ns(now_ns, timeout_ns);
    if (rsi_unlikely(client->phase == RSI_CLIENT_CONNECTING)) {
        connect_until(client, deadline_ns, now_ns);
        if (client->phase == RSI_CLIENT_CONNECTING) {
            return 0;
        }
        if (client->link == NULL) {
            return tell_not_connected(client);
        }
        now_ns = rsi_clock_now_ns();
    }
    return poll_until(client, limit, deadline_ns, now_ns);
}

ringside_status_t ringside_poll(ringside_client_t *client, size_t limit, uint64_t timeout_ns,
                                size_t *handled)
{
    if (handled != NULL) {
        *handled = 0;
    }
    rsi_status_t status = rsi_client_enter(client, "ringside_poll");
    if (rsi_unlikely(status != RSI_OK)) {
        return (ringside_status_t)status;
    }
    rsi_client_take_back_fd(client);
    if (rsi_likely(client->phase != RSI_CLIENT_ENDED)) {
        size_t count = poll_once(client, limit, timeout_ns);
        if (handled != NULL) {
            *handled = count;
        }
    }
    if (rsi_likely(client->phase != RSI_CLIENT_ENDED)) {
        return RINGSIDE_OK;
    }
    return (ringside_status_t)rsi_fail(&client->error, client->end_status, "%s",
                                       client->end_error.text);
}

/* ---- flush -------------------------------------------------------------------------------------
 */

/* Nothing is published while a flush waits, so its target is the end of what is staged: on the link
 * of the moment, whose positions may be others than those of the link it began with. */
static bool has_arrived(struct ringside_client *client, void *arg)
{
    struct rsi_client_wish *wish = arg;
    wish->peer_arrived_at_least = client->link->staged_pos;
    return client->link->peer_arrived_pos >= wish->peer_arrived_at_least;
}

ringside_status_t ringside_flush(ringside_client_t *client, uint64_t timeout_ns)
{
    rsi_status_t status = rsi_client_enter_open(client, "ringside_flush");
    if (status != RSI_OK) {
        return (ringside_status_t)status;
    }
    rsi_link_place(client->link);
    (void)rsi_link_flush(client->link); /* what cannot go now goes with poll_data */
    struct rsi_client_wish wish = RSI_CLIENT_WISH_NONE;
    status =
        rsi_client_wait(client, has_arrived, &wish, &wish,
                        rsi_client_deadline_ns(rsi_clock_now_ns(), timeout_ns), &client->error);
    if (status == RSI_E_TIMED_OUT) {
        (void)rsi_fail(&client->error, status,
                       "%" PRIu64 " bytes have not arrived at the broker within %" PRIu64 " ms",
                       client->link->staged_pos - client->link->peer_arrived_pos,
                       timeout_ns / 1000000);
    }
    return (ringside_status_t)status;
}

/* ---- what the connection is --------------------------------------------------------------------
 */

const char *ringside_transport(const ringside_client_t *client)
{
    return client == NULL || client->transport == NULL ? "" : client->transport->name;
}

const char *ringside_transport_why(const ringside_client_t *client)
{
    return client == NULL ? "" : client->transport_why;
}

size_t ringside_message_bytes_max(const ringside_client_t *client)
{
    return client == NULL ? 0 : client->message_bytes_max;
}

ringside_status_t ringside_stats(const ringside_client_t *client, ringside_link_stats_t *stats)
{
    size_t struct_bytes = stats->struct_bytes;
    if (client == NULL || struct_bytes < sizeof(struct_bytes)) {
        return RINGSIDE_E_INVALID;
    }
    if (client->link == NULL) {
        return RINGSIDE_E_STATE; /* still connecting */
    }
    const struct rsi_link_stats *from = &client->link->stats;
    const ringside_link_stats_t known = {
        .struct_bytes = struct_bytes,
        .placed_bytes = rsi_load_relaxed(&from->placed_bytes),
        .arrived_bytes = rsi_load_relaxed(&from->arrived_bytes),
        .batches_sent = rsi_load_relaxed(&from->batches_sent),
        .batches_arrived = rsi_load_relaxed(&from->batches_arrived),
        .sends = rsi_load_relaxed(&from->sends),
        .doorbells = rsi_load_relaxed(&from->doorbells),
        .receives = rsi_load_relaxed(&from->receives),
        .control_sent = rsi_load_relaxed(&from->control_sent),
        .control_received = rsi_load_relaxed(&from->control_received),
        .wake_requests = rsi_load_relaxed(&from->wake_requests),
        .wakes_sent = rsi_load_relaxed(&from->wakes_sent),
        .sleeps = client->totals.sleeps,
        .credit_stalls = rsi_load_relaxed(&from->credit_stalls),
        .zerocopy_sends = rsi_load_relaxed(&from->zerocopy_sends),
        .zerocopy_copied = rsi_load_relaxed(&from->zerocopy_copied),
        .resent_bytes = rsi_load_relaxed(&from->resent_bytes),
    };
    memcpy(stats, &known, struct_bytes < sizeof(known) ? struct_bytes : sizeof(known));
    return RINGSIDE_OK;
}
