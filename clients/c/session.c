/*
 * Passes, sleeping and the end of a session.
 *
 * Design notes
 * - A pass looks at the cheap sources always (positions, the control lane's inbox) and at the
 * domain only at intervals or after a sleep, because that is a system call on every transport.
 * - Going to sleep has an order: first the wish is laid down where the peer sees it, then the
 * poller is armed, which looks once more. Whatever happens after the wish is either seen by that
 * look or makes a descriptor readable; so no wake-up is lost and no sleep needs a time-out of its
 * own.
 * - One epoll descriptor holds the poller's and the domain's, so that a sleep is one system call
 * and an application's loop has one descriptor to watch.
 */
#include "clients/c/client.h"

#include "core/clock.h"
#include "core/position.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)

/* While a link changes its state it wants to be driven at least this often (transport.h). */
#define MOVING_SLEEP_NS UINT64_C(50000000)

/* ---- the end -----------------------------------------------------------------------------------
 */

void rsi_client_end(struct ringside_client *client, rsi_status_t end_status,
                    const struct rsi_error *error)
{
    if (client->phase == RSI_CLIENT_ENDING || client->phase == RSI_CLIENT_ENDED) {
        return;
    }
    client->end_status = end_status;
    client->end_error = *error;
    client->phase = RSI_CLIENT_ENDING;
    client->refuses_publish = true;
    rsi_dial_cancel(&client->dial, "the session is over");
}

static bool is_over(const struct ringside_client *client)
{
    return client->end_status != RSI_OK;
}

/* ---- passes ------------------------------------------------------------------------------------
 */

static void follow_link(struct ringside_client *client, uint64_t now_ns)
{
    bool is_lost = rsi_link_state(client->link) == RSI_LINK_LOST;
    if (!is_lost || client->phase != RSI_CLIENT_OPEN) {
        return;
    }
    /* The broker's last words may lie in the inbox; they say more than the loss. */
    (void)rsi_client_take_control(client);
    if (!is_over(client)) {
        rsi_client_suspend(client, now_ns);
    }
}

uint32_t rsi_client_pass_control(struct ringside_client *client, uint64_t now_ns)
{
    client->control_due_ns = now_ns + RSI_CLIENT_CONTROL_INTERVAL_NS;
    uint32_t work = client->transport->domain_poll_control(client->domain, now_ns);
    enum rsi_link_state before = rsi_link_state(client->link);
    client->transport->link_poll_control(client->link, now_ns);
    work += rsi_link_state(client->link) != before;
    follow_link(client, now_ns);
    work += rsi_client_resume_poll(client, now_ns);
    if (client->phase == RSI_CLIENT_RESUMING) {
        client->control_due_ns = 0; /* many small steps: none waits for an interval */
    }
    if (client->counters != NULL) {
        rsi_client_counters_show(client, now_ns);
    }
    return work;
}

uint32_t rsi_client_pass(struct ringside_client *client, uint64_t now_ns)
{
    uint32_t work = rsi_poller_poll(client->poller, now_ns);
    if (rsi_unlikely(now_ns >= client->control_due_ns || rsi_load_relaxed(&client->link->failed))) {
        work += rsi_client_pass_control(client, now_ns);
    }
    work += rsi_client_take_control(client);
    if (rsi_unlikely(client->send_due_count > 0)) {
        rsi_client_send_due(client);
    }
    return work;
}

/* ---- sleep -------------------------------------------------------------------------------------
 */

/* False: a signal ended it. */
static bool wait_readable(int fd, uint64_t timeout_ns)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ns / NS_PER_S),
        .tv_nsec = (long)(timeout_ns % NS_PER_S),
    };
    bool is_bounded = timeout_ns != UINT64_MAX;
    return ppoll(&entry, 1, is_bounded ? &timeout : NULL, NULL) >= 0 || errno != EINTR;
}

uint64_t rsi_client_due_ns(const struct ringside_client *client, uint64_t now_ns)
{
    enum rsi_link_state state =
        client->link == NULL ? RSI_LINK_CLOSED : rsi_link_state(client->link);
    bool is_moving = rsi_dial_is_active(&client->dial) ||
                     (state != RSI_LINK_ATTACHED && state != RSI_LINK_CLOSED);
    uint64_t moving_due_ns = is_moving ? now_ns + MOVING_SLEEP_NS : UINT64_MAX;
    return rsi_pos_min(moving_due_ns, rsi_client_resume_due_ns(client));
}

bool rsi_client_arm(struct ringside_client *client, const struct rsi_client_wish *wish)
{
    const struct rsi_client_path paths[] = {rsi_client_path(client), client->dial.path};
    bool is_armed = true;
    if (client->link != NULL) {
        rsi_link_request_wake(client->link, wish->in_arrived_at_least, wish->peer_arrived_at_least,
                              wish->peer_consumed_at_least);
    }
    for (size_t index = 0; index < rsi_array_count(paths); index++) {
        is_armed &=
            paths[index].poller == NULL || paths[index].transport->poller_arm(paths[index].poller);
    }
    return is_armed;
}

void rsi_client_disarm(struct ringside_client *client)
{
    const struct rsi_client_path paths[] = {rsi_client_path(client), client->dial.path};
    for (size_t index = 0; index < rsi_array_count(paths); index++) {
        if (paths[index].poller != NULL) {
            paths[index].transport->poller_disarm(paths[index].poller);
        }
    }
    client->control_due_ns = 0;
}

bool rsi_client_sleep(struct ringside_client *client, const struct rsi_client_wish *wish,
                      uint64_t now_ns, uint64_t deadline_ns)
{
    uint64_t until_ns = rsi_pos_min(deadline_ns, rsi_client_due_ns(client, now_ns));
    bool is_undisturbed = true;
    if (rsi_client_arm(client, wish)) {
        uint64_t timeout_ns = until_ns == UINT64_MAX ? UINT64_MAX
                              : until_ns > now_ns    ? until_ns - now_ns
                                                     : 0;
        is_undisturbed = wait_readable(client->epoll_fd, timeout_ns);
        client->totals.sleeps++;
    }
    rsi_client_disarm(client);
    return is_undisturbed;
}

/* ---- waits -------------------------------------------------------------------------------------
 */

static rsi_status_t wait_for(struct ringside_client *client, rsi_client_done_t *done, void *arg,
                             const struct rsi_client_wish *wish, uint64_t deadline_ns,
                             struct rsi_error *error)
{
    client->control_due_ns = 0;
    for (;;) {
        uint64_t now_ns = rsi_clock_now_ns();
        uint32_t work = rsi_client_pass(client, now_ns);
        if (done(client, arg)) {
            return RSI_OK;
        }
        if (is_over(client)) {
            if (error != NULL) {
                *error = client->end_error;
            }
            return client->end_status;
        }
        if (now_ns >= deadline_ns) {
            return RSI_E_TIMED_OUT;
        }
        if (rsi_idle_step(&client->idle, work) == RSI_IDLE_SLEEP) {
            (void)rsi_client_sleep(client, wish, now_ns, deadline_ns);
        } else {
            rsi_cpu_pause();
        }
    }
}

/* The descriptor that a sleep waits on is the one that the application may have armed. */
rsi_status_t rsi_client_wait(struct ringside_client *client, rsi_client_done_t *done, void *arg,
                             const struct rsi_client_wish *wish, uint64_t deadline_ns,
                             struct rsi_error *error)
{
    rsi_client_take_back_fd(client);
    rsi_status_t status = wait_for(client, done, arg, wish, deadline_ns, error);
    if (client->is_fd_exposed) {
        rsi_client_nudge(client);
    }
    return status;
}
