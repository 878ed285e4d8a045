/*
 * Making a connection, and taking it down.
 *
 * Design notes
 * - One candidate after the other (choose.c) goes the whole way (dial.c): domain, poller, link,
 *   handshake, rings. A failure takes down what was made and the next one starts afresh. If the
 *   broker itself said no, the others are not tried: they lead to the same broker.
 * - Each candidate but the last gets half of the time that is left, so that a way that neither
 *   works nor fails leaves time for the next.
 * - Connecting and closing are the only things that wait without an open session; what happens in
 *   between goes through the passes of session.c. Who does not want to wait for connecting has a
 *   client without a link until it is done: ringside_poll makes the same steps then (poll.c), and
 *   all else is refused.
 */
#include "clients/c/client.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/text.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define DISCONNECT_TIMEOUT_NS UINT64_C(5000000000)
#define DISCONNECT_SLEEP_MS   2

/* ---- taking down -------------------------------------------------------------------------------
 */

/* Whether nothing of the client's is on its way any more. */
static bool is_quiet(const struct ringside_client *client, const struct rsi_client_path *path)
{
    return rsi_path_is_closed(path) && !rsi_dial_is_active(&client->dial);
}

void rsi_client_disconnect(struct ringside_client *client)
{
    struct rsi_client_path path = rsi_client_path(client);
    uint64_t deadline_ns = rsi_clock_now_ns() + DISCONNECT_TIMEOUT_NS;
    rsi_client_take_back_fd(client); /* else the sleeps below would end at once */
    rsi_dial_cancel(&client->dial, "the client closes");
    rsi_path_close(&path);
    while (!is_quiet(client, &path)) {
        uint64_t now_ns = rsi_clock_now_ns();
        if (now_ns >= deadline_ns && !rsi_dial_is_active(&client->dial)) {
            break; /* a dial that does not end gives up by itself */
        }
        if (path.link != NULL) {
            (void)rsi_path_poll(&path, now_ns);
        }
        (void)rsi_dial_poll(&client->dial, now_ns);
        if (!is_quiet(client, &path)) {
            struct pollfd entry = {.fd = client->epoll_fd, .events = POLLIN};
            (void)poll(&entry, 1, DISCONNECT_SLEEP_MS);
        }
    }
    if (rsi_path_is_closed(&path)) {
        rsi_path_destroy(&path, client->epoll_fd);
    } else {
        rsi_path_abandon(&path, client->epoll_fd);
    }
    rsi_client_set_path(client, &path);
    rsi_path_destroy(&client->retired, client->epoll_fd);
    rsi_client_drop_holds(client);
    client->is_claim_left_behind = false;
    rsi_client_sweep_held(client);
}

/* ---- candidates
 * ------------------------------------------------------------------------------- */

/* The dial's path carries the client's new session from here on. */
static void adopt(struct ringside_client *client)
{
    client->session = client->dial.agreed;
    client->receiver = client->dial.receiver;
    struct rsi_client_path path = rsi_dial_take(&client->dial);
    rsi_client_set_path(client, &path);
    client->message_bytes_max = client->session.message_bytes_max;
    client->deliver_pos = client->link->consumed_pos;
}

void rsi_client_note_chosen(struct ringside_client *client, const struct rsi_client_round *round)
{
    struct rsi_text text;
    rsi_text_init(&text, client->transport_why, sizeof(client->transport_why));
    rsi_text_append(&text, "%s%s%s: %s (%s)", round->candidates.why_not, round->failures,
                    client->transport->name,
                    round->candidates.is_choice ? "chosen" : "asked for by the URL",
                    client->link->local_text);
}

void rsi_client_note_failure(struct ringside_client *client, struct rsi_client_round *round)
{
    size_t used_bytes = strlen(round->failures);
    struct rsi_text text;
    rsi_text_init(&text, round->failures + used_bytes, sizeof(round->failures) - used_bytes);
    rsi_text_append(&text, "%s: %.260s; ", client->dial.path.transport->name,
                    client->dial.error.text);
}

/* The next candidate; each but the last gets half of the time that is left. */
static void begin_candidate(struct ringside_client *client, uint64_t now_ns)
{
    struct rsi_client_connecting *connecting = &client->connecting;
    struct rsi_client_round *round = &client->resume.round;
    const struct rsi_client_candidate *candidate = &round->candidates.list[round->next_index++];
    uint64_t deadline_ns = connecting->deadline_ns;
    bool is_last = round->next_index == round->candidates.count;
    connecting->is_dialling = true;
    connecting->own_deadline_ns =
        is_last || now_ns >= deadline_ns ? deadline_ns : now_ns + (deadline_ns - now_ns) / 2;
    rsi_dial_begin(&client->dial, client, candidate, now_ns, connecting->own_deadline_ns);
}

/* The dial has failed and is down. IN_PROGRESS: there is another candidate. */
static rsi_status_t end_candidate(struct ringside_client *client, struct rsi_error *error)
{
    struct rsi_client_round *round = &client->resume.round;
    const struct rsi_client_candidates *candidates = &round->candidates;
    client->connecting.is_dialling = false;
    if (round->next_index < candidates->count && !client->dial.is_answered) {
        rsi_client_note_failure(client, round);
        return RSI_IN_PROGRESS;
    }
    struct rsi_url tried = candidates->list[round->next_index - 1].url;
    if (tried.path[0] == 0) { /* the host as the application gave it */
        (void)rsi_text_copy(tried.host, sizeof(tried.host), client->connecting.named.host);
    }
    char where[RSI_HOST_BYTES_MAX + 32];
    rsi_url_format(&tried, where, sizeof(where));
    return rsi_fail(error, client->dial.error.status, "%s%s%s: %s", candidates->why_not,
                    round->failures, where, client->dial.error.text);
}

static rsi_status_t open_session(struct ringside_client *client, struct rsi_error *error)
{
    struct rsi_client_round *round = &client->resume.round;
    adopt(client);
    rsi_client_note_chosen(client, round);
    rsi_client_better_begin(client, &round->candidates, rsi_clock_now_ns());
    return client->options.counters_path == NULL
               ? RSI_OK
               : rsi_client_counters_create(&client->counters, client, error);
}

/* What can be done now on the way to a session. IN_PROGRESS: not there yet. */
static rsi_status_t connect_step(struct ringside_client *client, uint64_t now_ns, uint32_t *work,
                                 struct rsi_error *error)
{
    struct rsi_dial *dial = &client->dial;
    if (!client->connecting.is_dialling) {
        begin_candidate(client, now_ns);
        *work += 1;
    }
    *work += rsi_dial_poll(dial, now_ns);
    if (dial->state == RSI_DIAL_CHALLENGED) {
        rsi_dial_go_on(dial, RSI_DIAL_NEW, client->connecting.own_deadline_ns);
        *work += 1;
    } else if (dial->state == RSI_DIAL_READY) {
        return open_session(client, error);
    } else if (rsi_dial_is_down(dial)) {
        *work += 1;
        return end_candidate(client, error);
    }
    return RSI_IN_PROGRESS;
}

static void begin_session(struct ringside_client *client)
{
    client->phase = RSI_CLIENT_OPEN;
    client->news = (struct rsi_client_news){.is_any = true, .is_connected = true};
}

static rsi_status_t connect_waiting(struct ringside_client *client, struct rsi_error *error)
{
    for (;;) {
        uint32_t work = 0;
        uint64_t now_ns = rsi_clock_now_ns();
        rsi_status_t status = connect_step(client, now_ns, &work, error);
        if (status == RSI_OK) {
            begin_session(client);
            return RSI_OK;
        }
        if (status != RSI_IN_PROGRESS) {
            rsi_client_disconnect(client);
            return status;
        }
        if (rsi_idle_step(&client->idle, work) == RSI_IDLE_SLEEP) {
            (void)rsi_client_sleep(client, &RSI_CLIENT_WISH_NONE, now_ns, UINT64_MAX);
        } else {
            rsi_cpu_pause();
        }
    }
}

uint32_t rsi_client_connect_poll(struct ringside_client *client, uint64_t now_ns)
{
    uint32_t work = 0;
    struct rsi_error error = {0};
    rsi_status_t status = connect_step(client, now_ns, &work, &error);
    if (status == RSI_OK) {
        begin_session(client);
    } else if (status != RSI_IN_PROGRESS) {
        rsi_client_end(client, RSI_E_LINK_LOST, &error);
    }
    return work;
}

/* ---- the client --------------------------------------------------------------------------------
 */

void rsi_client_free(struct ringside_client *client)
{
    rsi_client_counters_destroy(client->counters);
    rsi_announced_table_fini(&client->announced);
    rsi_client_calls_destroy(client->calls);
    rsi_client_remnants_discard(client);
    rsi_client_free_holds(client);
    for (uint32_t slot = 0; slot < client->publisher_slot_count; slot++) {
        if (client->publishers[slot] != NULL) {
            rsi_publisher_free(client->publishers[slot]);
        }
    }
    free(client->publishers);
    while (client->subscription_count > 0) {
        rsi_subscription_free(client->subscriptions[client->subscription_count - 1]);
    }
    free(client->subscriptions);
    if (client->nudge_fd >= 0) {
        close(client->nudge_fd);
    }
    if (client->timer_fd >= 0) {
        close(client->timer_fd);
    }
    if (client->epoll_fd >= 0) {
        close(client->epoll_fd);
    }
    free(client->options.counters_path);
    explicit_bzero(&client->options, sizeof(client->options)); /* the token */
    explicit_bzero(&client->session, sizeof(client->session));
    explicit_bzero(&client->resume.half_made, sizeof(client->resume.half_made));
    free(client);
}

static rsi_status_t make_descriptors(struct ringside_client *client, struct rsi_error *error)
{
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->nudge_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN};
    if (client->epoll_fd < 0 || client->nudge_fd < 0 || client->timer_fd < 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->nudge_fd, &event) != 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->timer_fd, &event) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "making the client's descriptors; a client needs about ten, raise "
                              "the limit with ulimit -n");
    }
    return RSI_OK;
}

static rsi_status_t client_connect(struct ringside_client *client, const char *url,
                                   const ringside_options_t *options, struct rsi_error *error)
{
    rsi_status_t status = rsi_client_options_read(&client->options, options, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_client_connecting *connecting = &client->connecting;
    status = rsi_client_read_url(&connecting->named, url, error);
    if (status != RSI_OK) {
        return status;
    }
    client->url = connecting->named;
    rsi_client_settle_url(&client->url);
    status = rsi_client_choose(&client->resume.round.candidates, &client->url,
                               rsi_client_has_dpdk_port(client), error);
    if (status != RSI_OK) {
        return status;
    }
    status = make_descriptors(client, error);
    if (status != RSI_OK) {
        return status;
    }
    rsi_idle_init(&client->idle, client->options.idle_strategy, client->options.spin_ns);
    connecting->deadline_ns =
        rsi_client_deadline_ns(rsi_clock_now_ns(), client->options.connect_timeout_ns);
    return client->options.no_wait ? RSI_IN_PROGRESS : connect_waiting(client, error);
}

/*
 * A library writes to standard error what its user asked for: errors alone, unless RINGSIDE_LOG
 * says otherwise. Once per process, so that it does not undo what a program sets later.
 */
static rsi_status_t set_log_level(struct rsi_error *error)
{
    static _Atomic uint32_t is_set;
    const char *text = getenv("RINGSIDE_LOG");
    rsi_log_level_t level = RSI_LOG_ERROR;
    if (text != NULL) {
        rsi_status_t status = rsi_log_level_parse(&level, text, error);
        if (status != RSI_OK) {
            rsi_error_context(error, "RINGSIDE_LOG in the environment");
            return status;
        }
    }
    if (rsi_exchange_acq_rel(&is_set, 1u) == 0) {
        rsi_log_set_level(level);
    }
    return RSI_OK;
}

ringside_status_t ringside_connect(ringside_client_t **client, const char *url,
                                   const ringside_options_t *options)
{
    struct rsi_error error = {0};
    if (client == NULL) {
        (void)rsi_fail(&error, RSI_E_INVALID,
                       "ringside_connect: the pointer to the client is NULL");
        return rsi_client_fail_globally(&error);
    }
    *client = NULL;
    if (set_log_level(&error) != RSI_OK) {
        return rsi_client_fail_globally(&error);
    }
    rsi_client_watch_forks();
    rsi_clock_prepare();
    struct ringside_client *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        (void)rsi_fail(&error, RSI_E_NO_MEMORY, "no memory for a client");
        return rsi_client_fail_globally(&error);
    }
    made->epoll_fd = -1;
    made->nudge_fd = -1;
    made->timer_fd = -1;
    made->phase = RSI_CLIENT_CONNECTING;
    made->fork_count = rsi_client_fork_count;
    made->subscriptions_version = 1;
    rsi_status_t status = client_connect(made, url, options, &error);
    if (status < 0) {
        rsi_client_free(made);
        error.status = status;
        return rsi_client_fail_globally(&error);
    }
    *client = made;
    return (ringside_status_t)status;
}
