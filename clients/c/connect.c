/*
 * Making a connection, and taking it down.
 *
 * Design notes
 * - One candidate after the other (choose.c) goes the whole way: domain, poller, dial, handshake,
 *   rings. A failure takes down what was made and the next one starts afresh. If the broker itself
 *   said no, the others are not tried: they lead to the same broker.
 * - Each candidate but the last gets half of the time that is left, so that a way that neither
 * works nor fails leaves time for the next.
 * - Taking down never frees what a device or the kernel may still use: the link is driven until
 *   CLOSED. Should that not come, its memory is left alone and the log says so; a leak is the
 *   lesser harm.
 */
#include "clients/c/client.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/text.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DISCONNECT_TIMEOUT_NS UINT64_C(5000000000)
#define DISCONNECT_SLEEP_MS   2

/* ---- parts -------------------------------------------------------------------------------------
 */

static rsi_status_t add_to_epoll(struct ringside_client *client, int fd, struct rsi_error *error)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "adding a descriptor of transport %s to the client's epoll set",
                              client->transport->name);
    }
    return RSI_OK;
}

static rsi_status_t make_endpoint(struct ringside_client *client,
                                  const struct rsi_transport *transport, uint64_t timeout_ns,
                                  struct rsi_error *error)
{
    const struct rsi_domain_options domain_options = {
        .bind_host = client->options.bind_host,
        .device = client->options.device,
        .node = -1,
        .connect_timeout_ns = timeout_ns,
    };
    const struct rsi_poller_options poller_options = {.link_count_max = 1};
    client->transport = transport;
    rsi_status_t status = transport->domain_create(&client->domain, &domain_options, error);
    if (status != RSI_OK) {
        return status;
    }
    status = transport->poller_create(&client->poller, client->domain, &poller_options, error);
    if (status != RSI_OK) {
        return status;
    }
    status = add_to_epoll(client, transport->poller_fd(client->poller), error);
    if (status != RSI_OK) {
        return status;
    }
    return add_to_epoll(client, transport->domain_fd(client->domain), error);
}

static bool drive_to_closed(struct ringside_client *client)
{
    const struct rsi_transport *transport = client->transport;
    struct rsi_link *link = client->link;
    uint64_t deadline_ns = rsi_clock_now_ns() + DISCONNECT_TIMEOUT_NS;
    transport->link_close(link);
    for (;;) {
        uint64_t now_ns = rsi_clock_now_ns();
        (void)rsi_poller_poll(client->poller, now_ns);
        (void)transport->domain_poll_control(client->domain, now_ns);
        transport->link_poll_control(link, now_ns);
        if (rsi_link_state(link) == RSI_LINK_CLOSED) {
            return true;
        }
        if (now_ns >= deadline_ns) {
            return false;
        }
        struct pollfd entry = {.fd = client->epoll_fd, .events = POLLIN};
        (void)poll(&entry, 1, DISCONNECT_SLEEP_MS);
    }
}

void rsi_client_disconnect(struct ringside_client *client)
{
    const struct rsi_transport *transport = client->transport;
    if (client->link != NULL && !drive_to_closed(client)) {
        rsi_log_error("client",
                      "the %s link to %s did not close within %" PRIu64
                      " s: its memory stays in use",
                      transport->name, client->link->peer_text, DISCONNECT_TIMEOUT_NS / 1000000000);
        client->link = NULL;
        client->poller = NULL;
        client->domain = NULL;
        return;
    }
    if (client->link != NULL) {
        transport->link_destroy(client->link);
    }
    if (client->poller != NULL) {
        transport->poller_destroy(client->poller);
    }
    if (client->domain != NULL) {
        transport->domain_destroy(client->domain);
    }
    client->link = NULL;
    client->poller = NULL;
    client->domain = NULL;
}

/* A failed candidate leaves no trace in the client. */
static void forget_candidate(struct ringside_client *client)
{
    rsi_client_disconnect(client);
    rsi_control_free(client->handshake_answer);
    client->handshake_answer = NULL;
    client->receiver.byte_count = 0;
    client->end_status = RSI_OK;
    client->refuses_publish = false;
    client->transport = NULL;
}

/* ---- one candidate -----------------------------------------------------------------------------
 */

static bool is_beyond(struct ringside_client *client, void *arg)
{
    const enum rsi_link_state *state = arg;
    enum rsi_link_state now = rsi_link_state(client->link);
    return now != *state && now != RSI_LINK_LOST;
}

/* Waits until the link has left `state` the good way. */
static rsi_status_t wait_beyond(struct ringside_client *client, enum rsi_link_state state,
                                const char *what, uint64_t deadline_ns, struct rsi_error *error)
{
    rsi_status_t status =
        rsi_client_wait(client, is_beyond, &state, &RSI_CLIENT_WISH_NONE, deadline_ns, error);
    if (status == RSI_E_TIMED_OUT) {
        return rsi_fail(error, status, "%s was not done within the connect time-out", what);
    }
    return status;
}

static rsi_status_t attach(struct ringside_client *client,
                           const struct rsi_client_agreement *agreement, uint64_t deadline_ns,
                           struct rsi_error *error)
{
    const struct rsi_link_rings rings = {
        .out_bytes = agreement->publish_ring_bytes,
        .in_bytes = agreement->deliver_ring_bytes,
    };
    rsi_status_t status = client->transport->link_attach(client->link, &rings, error);
    if (status != RSI_OK) {
        return status;
    }
    /* A transport may be done at once; ATTACHING is then behind us already. */
    return wait_beyond(client, RSI_LINK_ATTACHING, "setting up the rings", deadline_ns, error);
}

static rsi_status_t try_candidate(struct ringside_client *client,
                                  const struct rsi_transport *transport, const struct rsi_url *url,
                                  uint64_t deadline_ns, bool *is_answered, struct rsi_error *error)
{
    uint64_t now_ns = rsi_clock_now_ns();
    if (now_ns >= deadline_ns) {
        return rsi_fail(error, RSI_E_TIMED_OUT, "no time was left to try it");
    }
    rsi_status_t status = make_endpoint(client, transport, deadline_ns - now_ns, error);
    if (status != RSI_OK) {
        return status;
    }
    status = transport->link_dial(&client->link, client->poller, url, error);
    if (status != RSI_OK) {
        return status;
    }
    status = wait_beyond(client, RSI_LINK_CONNECTING, "connecting", deadline_ns, error);
    if (status != RSI_OK) {
        return status;
    }
    struct rsi_client_agreement agreement;
    status = rsi_client_shake_hands(client, &agreement, deadline_ns, is_answered, error);
    if (status != RSI_OK) {
        return status;
    }
    status = attach(client, &agreement, deadline_ns, error);
    if (status != RSI_OK) {
        return status;
    }
    client->session = agreement.session;
    client->message_bytes_max = agreement.message_bytes_max;
    client->deliver_pos = client->link->consumed_pos;
    return RSI_OK;
}

/* ---- all candidates ----------------------------------------------------------------------------
 */

static void note_chosen(struct ringside_client *client,
                        const struct rsi_client_candidates *candidates, const char *failures)
{
    struct rsi_text text;
    rsi_text_init(&text, client->transport_why, sizeof(client->transport_why));
    rsi_text_append(
        &text, "%s%s%s: %s (%s)", candidates->why_not, failures, client->transport->name,
        candidates->is_choice ? "chosen" : "asked for by the URL", client->link->local_text);
}

static rsi_status_t try_candidates(struct ringside_client *client,
                                   const struct rsi_client_candidates *candidates,
                                   struct rsi_error *error)
{
    uint64_t deadline_ns =
        rsi_client_deadline_ns(rsi_clock_now_ns(), client->options.connect_timeout_ns);
    char failures[RSI_CLIENT_TRANSPORT_WHY_MAX] = "";
    struct rsi_text text;
    rsi_text_init(&text, failures, sizeof(failures));

    for (uint32_t index = 0; index < candidates->count; index++) {
        const struct rsi_transport *transport = candidates->list[index].transport;
        const struct rsi_url *url = &candidates->list[index].url;
        uint64_t now_ns = rsi_clock_now_ns();
        bool is_last = index + 1 == candidates->count;
        uint64_t own_deadline_ns =
            is_last || now_ns >= deadline_ns ? deadline_ns : now_ns + (deadline_ns - now_ns) / 2;
        bool is_answered = false;
        struct rsi_error failure = {0};
        rsi_status_t status =
            try_candidate(client, transport, url, own_deadline_ns, &is_answered, &failure);
        if (status == RSI_OK) {
            note_chosen(client, candidates, failures);
            return RSI_OK;
        }
        forget_candidate(client);
        if (is_last || is_answered) {
            char where[RSI_HOST_BYTES_MAX + 32];
            rsi_url_format(url, where, sizeof(where));
            /* What the link says of its end is more than that it ended. */
            return rsi_fail(error, rsi_failed(failure.status) ? failure.status : status,
                            "%s%s%s: %s", candidates->why_not, failures, where, failure.text);
        }
        rsi_text_append(&text, "%s: %.260s; ", transport->name, failure.text);
    }
    return rsi_fail(error, RSI_E_BUG, "no candidate to connect to");
}

/* ---- the client --------------------------------------------------------------------------------
 */

void rsi_client_free(struct ringside_client *client)
{
    rsi_client_counters_destroy(client->counters);
    rsi_announced_table_fini(&client->announced);
    for (uint32_t slot = 0; slot < client->publisher_slot_count; slot++) {
        free(client->publishers[slot]);
    }
    free(client->publishers);
    for (uint32_t index = 0; index < client->subscription_count; index++) {
        free(client->subscriptions[index]);
    }
    free(client->subscriptions);
    rsi_control_free(client->handshake_answer);
    if (client->nudge_fd >= 0) {
        close(client->nudge_fd);
    }
    if (client->epoll_fd >= 0) {
        close(client->epoll_fd);
    }
    free(client);
}

static rsi_status_t make_descriptors(struct ringside_client *client, struct rsi_error *error)
{
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->nudge_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN};
    if (client->epoll_fd < 0 || client->nudge_fd < 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->nudge_fd, &event) != 0) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "making the client's descriptors");
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
    struct rsi_client_candidates candidates;
    status = rsi_client_choose(&candidates, url, error);
    if (status != RSI_OK) {
        return status;
    }
    status = make_descriptors(client, error);
    if (status != RSI_OK) {
        return status;
    }
    rsi_idle_init(&client->idle, client->options.idle_strategy, client->options.spin_ns);
    status = try_candidates(client, &candidates, error);
    if (status != RSI_OK) {
        return status;
    }
    if (client->options.counters_path == NULL) {
        return RSI_OK;
    }
    status = rsi_client_counters_create(&client->counters, client, error);
    if (status != RSI_OK) {
        rsi_client_disconnect(client);
    }
    return status;
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
    made->phase = RSI_CLIENT_CONNECTING;
    made->fork_count = rsi_client_fork_count;
    made->subscriptions_version = 1;
    rsi_status_t status = client_connect(made, url, options, &error);
    if (status != RSI_OK) {
        rsi_client_free(made);
        error.status = status;
        return rsi_client_fail_globally(&error);
    }
    made->phase = RSI_CLIENT_OPEN;
    made->is_connected_event_due = true;
    *client = made;
    return RINGSIDE_OK;
}
