/*
 * Design notes
 * - One thread, one loop: do all that can be done, then wait in epoll for a domain (somebody
 * connects), the waker (a data agent or an owner thread has something) or the stop descriptor.
 * While something moves by itself the wait is short; an idle broker wakes once a second, for its
 * counters.
 * - The waker is prepared before the last look, so that nothing that comes between the look and the
 *   wait is missed.
 * - Connections that are not authenticated are few. One too many is taken and closed at once: left
 * in the backlog it would keep the listener readable and the loop turning.
 * - Stopping: listeners first, so that nobody comes; then the data plane delivers what has arrived;
 * then every connection is ended in order. Time bounds each part. If a link cannot be closed while
 * its owner thread runs, the data plane is ended first and this thread takes the owner's part.
 */
#include "broker/control_agent.h"

#include "core/assert.h"
#include "core/clock.h"
#include "core/cpu.h"
#include "core/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MILLISECOND_NS UINT64_C(1000000)
#define SECOND_NS      UINT64_C(1000000000)

#define HOUSEKEEPING_NS    SECOND_NS
#define MOVING_WAIT_NS     (20 * MILLISECOND_NS) /* something moves without an event */
#define RETIRE_WAIT_NS     (200 * MILLISECOND_NS)
#define ACCEPT_RETRY_NS    (100 * MILLISECOND_NS)
#define FULL_RETRY_NS      (2 * MILLISECOND_NS)
#define PARTING_NS         (5 * SECOND_NS)
#define PARTING_AT_ONCE_NS (1500 * MILLISECOND_NS)
#define ORPHANED_NS        (2 * SECOND_NS)

enum { ACCEPTS_PER_PASS = 32, PASSES_BEFORE_WAIT = 64 };

static rsi_status_t watch(struct rsi_control_agent *control, int fd, struct rsi_error *error)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(control->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot watch a descriptor");
    }
    return RSI_OK;
}

rsi_status_t rsi_control_agent_init(struct rsi_control_agent *control,
                                    const struct rsi_control_options *options,
                                    struct rsi_error *error)
{
    memset(control, 0, sizeof(*control));
    control->settings = options->settings;
    control->plane = options->plane;
    control->data_options = *options->data_options;
    control->endpoints = options->endpoints;
    control->metrics = options->metrics;
    control->waker = options->waker;
    control->stop_fd = options->stop_fd;
    control->incarnation = options->incarnation;
    rsi_status_t status =
        rsi_catalogue_init(&control->catalogue, control->plane, &control->data_options, error);
    if (rsi_failed(status)) {
        return status;
    }
    control->catalogue.metrics = control->metrics;
    control->catalogue.settings = control->settings;
    status = rsi_ended_init(&control->ended, error);
    if (rsi_failed(status)) {
        goto fini_catalogue;
    }
    control->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (control->epoll_fd < 0) {
        status = rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                                "cannot make an epoll descriptor; raise the limit with ulimit -n");
        goto fini_ended;
    }
    status = watch(control, control->waker->fd, error);
    if (!rsi_failed(status)) {
        status = watch(control, control->stop_fd, error);
    }
    for (uint32_t i = 0; i < control->endpoints->domain_count && !rsi_failed(status); i++) {
        const struct rsi_endpoint_domain *domain = &control->endpoints->domains[i];
        status = watch(control, domain->transport->domain_fd(domain->domain), error);
    }
    if (!rsi_failed(status)) {
        return RSI_OK;
    }

    close(control->epoll_fd);
fini_ended:
    rsi_ended_fini(&control->ended);
fini_catalogue:
    rsi_catalogue_fini(&control->catalogue);
    memset(control, 0, sizeof(*control));
    return status;
}

void rsi_control_agent_fini(struct rsi_control_agent *control)
{
    if (control->plane == NULL) {
        return;
    }
    close(control->epoll_fd);
    free(control->spare);
    rsi_ended_fini(&control->ended);
    rsi_catalogue_fini(&control->catalogue);
    memset(control, 0, sizeof(*control));
}

/* ---- accepting ---------------------------------------------------------------------------------
 */

/* Nothing is accepted there for a while. Who knocks waits in the transport's queue, which makes the
 * domain readable: so it is not watched meanwhile. */
static void pause_domain(struct rsi_control_agent *control, struct rsi_endpoint_domain *domain,
                         uint64_t until_ns)
{
    bool is_watched = !domain->is_paused;
    domain->is_paused = until_ns != 0;
    domain->retry_ns = until_ns;
    if (is_watched == !domain->is_paused) {
        return;
    }
    int fd = domain->transport->domain_fd(domain->domain);
    struct epoll_event event = {.events = domain->is_paused ? 0 : EPOLLIN, .data.fd = fd};
    if (epoll_ctl(control->epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0) {
        rsi_log_distinct(RSI_LOG_WARNING, "broker", "cannot change what epoll watches: %s",
                         strerror(errno));
    }
}

static void add_connection(struct rsi_control_agent *control, struct rsi_endpoint_domain *domain,
                           struct rsi_link *link, uint64_t now_ns)
{
    struct rsi_connection *connection = control->spare;
    control->spare = NULL;
    rsi_connection_init(connection, control, domain, link, now_ns);
    connection->next = control->connections;
    control->connections = connection;
    control->connection_count++;
    control->counts.accepted++;
}

/* One connection: memory first, then the link. */
static rsi_status_t accept_one(struct rsi_control_agent *control,
                               struct rsi_endpoint_listener *listener, uint64_t now_ns,
                               struct rsi_error *error)
{
    struct rsi_endpoint_domain *domain = listener->domain;
    const struct rsi_poller_choice choice = {
        .pollers = domain->pollers,
        .count = control->endpoints->agent_count,
        .otherwise = control->next_agent,
    };
    if (control->spare == NULL) {
        control->spare = calloc(1, sizeof(*control->spare));
    }
    if (control->spare == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a connection");
    }
    struct rsi_link *link = NULL;
    rsi_status_t status = domain->transport->link_accept(&link, listener->listener, &choice, error);
    if (status == RSI_OK) {
        add_connection(control, domain, link, now_ns);
    }
    return status;
}

static uint32_t accept_from(struct rsi_control_agent *control,
                            struct rsi_endpoint_listener *listener, uint64_t now_ns)
{
    struct rsi_endpoint_domain *domain = listener->domain;
    uint32_t accept_count = 0;
    while (accept_count < ACCEPTS_PER_PASS) {
        if (control->counts.unauthenticated >= control->settings->unauthenticated_count_max) {
            control->counts.full++;
            pause_domain(control, domain, now_ns + FULL_RETRY_NS);
            break;
        }
        struct rsi_error error = {0};
        rsi_status_t status = accept_one(control, listener, now_ns, &error);
        if (status == RSI_WOULD_BLOCK) {
            break;
        }
        if (rsi_failed(status)) {
            rsi_log_distinct(RSI_LOG_WARNING, "broker", "cannot take a connection at %s: %s",
                             domain->transport->listener_url(listener->listener), error.text);
            pause_domain(control, domain, now_ns + ACCEPT_RETRY_NS);
            break;
        }
        accept_count++;
        control->next_agent = (control->next_agent + 1) % control->endpoints->agent_count;
    }
    return accept_count;
}

static uint32_t poll_endpoints(struct rsi_control_agent *control, uint64_t now_ns)
{
    struct rsi_endpoints *endpoints = control->endpoints;
    uint32_t work_count = 0;
    for (uint32_t i = 0; i < endpoints->domain_count; i++) {
        struct rsi_endpoint_domain *domain = &endpoints->domains[i];
        work_count += domain->transport->domain_poll_control(domain->domain, now_ns);
        if (domain->is_paused && now_ns >= domain->retry_ns) {
            pause_domain(control, domain, 0);
        }
    }
    for (uint32_t i = 0; i < endpoints->listener_count; i++) {
        if (!endpoints->listeners[i].domain->is_paused) {
            work_count += accept_from(control, &endpoints->listeners[i], now_ns);
        }
    }
    return work_count;
}

/* ---- connections
 * --------------------------------------------------------------------------------- */

static uint32_t poll_connections(struct rsi_control_agent *control, uint64_t now_ns)
{
    uint32_t work_count = 0;
    for (struct rsi_connection **at = &control->connections; *at != NULL;) {
        struct rsi_connection *connection = *at;
        work_count += rsi_connection_poll(connection, now_ns);
        if (connection->state != RSI_CONNECTION_ENDED) {
            at = &connection->next;
            continue;
        }
        *at = connection->next;
        control->connection_count--;
        rsi_connection_destroy(connection);
    }
    return work_count;
}

/* Says once who holds up whom, and once that it is over; what lasted less than a look is in the
 * counters only. */
static void tell_blocking(struct rsi_connection *connection, uint64_t now_ns)
{
    const struct rsi_session *session = connection->session;
    uint64_t since_ns = rsi_load_relaxed(&session->counts.blocked_since_ns);
    bool is_blocking = since_ns != 0 && since_ns < now_ns;
    if (is_blocking == connection->is_told_to_block) {
        return;
    }
    connection->is_told_to_block = is_blocking;
    char who[192];
    rsi_connection_describe(connection, who, sizeof(who));
    if (!is_blocking) {
        rsi_log_info("broker", "%s: publishers wait for it no longer; %.1f s in all", who,
                     (double)rsi_load_acquire(&session->counts.blocked_ns) / 1e9);
        return;
    }
    const struct rsi_publication_entry *stalled = rsi_catalogue_find(
        &connection->control->catalogue, rsi_session_stalled_publication(session));
    rsi_log_warning("broker",
                    "%s: publishers wait for it under policy block since %.1f s, first %s on %s; "
                    "%llu KiB wait in its spill",
                    who, (double)(now_ns - since_ns) / 1e9,
                    stalled != NULL ? stalled->publication.publisher_name : "one that has gone on",
                    stalled != NULL ? stalled->publication.subject : "another subject",
                    (unsigned long long)rsi_load_relaxed(&session->counts.spill_bytes) >> 10);
}

static void update_metrics(struct rsi_control_agent *control, uint64_t now_ns)
{
    if (now_ns < control->next_update_ns) {
        return;
    }
    control->next_update_ns = now_ns + HOUSEKEEPING_NS;
    rsi_catalogue_look_again(&control->catalogue);
    rsi_ended_forget_old(&control->ended, now_ns);
    control->counts.publications = control->catalogue.publication_count;
    control->counts.topics = control->catalogue.topic_count;
    control->counts.refreshed_ns = now_ns;
    control->counts.subscriptions = 0;
    for (const struct rsi_connection *connection = control->connections; connection != NULL;
         connection = connection->next) {
        control->counts.subscriptions += connection->subscription_count;
    }
    rsi_metrics_update_broker(control->metrics, &control->counts, control->plane);
    for (struct rsi_connection *connection = control->connections; connection != NULL;
         connection = connection->next) {
        if (connection->session != NULL && connection->metrics.text != NULL) {
            rsi_metrics_update_session(connection->session, connection->link, &connection->metrics,
                                       now_ns);
        }
        if (connection->session != NULL && connection->state == RSI_CONNECTION_SERVING) {
            tell_blocking(connection, now_ns);
        }
    }
}

/* ---- stopping ----------------------------------------------------------------------------------
 */

/* A session without a link has nobody to come back to: no listener is left. */
static void end_connections(struct rsi_control_agent *control, bool with_sessions)
{
    for (struct rsi_connection *connection = control->connections; connection != NULL;
         connection = connection->next) {
        bool is_away = connection->state == RSI_CONNECTION_SUSPENDED ||
                       connection->state == RSI_CONNECTION_RESUMING;
        if (with_sessions || connection->state < RSI_CONNECTION_SERVING || is_away) {
            rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_STOPPING, "%s",
                               is_away ? "the broker stops while this client is away"
                                       : "the broker stops");
        }
    }
}

/* Sessions that still lag when the time is up; at least one, or all would have been drained. */
static uint32_t count_cut_off(const struct rsi_control_agent *control)
{
    uint32_t cut_off_count = 0;
    for (const struct rsi_connection *connection = control->connections; connection != NULL;
         connection = connection->next) {
        if (connection->state == RSI_CONNECTION_SERVING &&
            (rsi_load_relaxed(&connection->session->counts.lag_bytes) > 0 ||
             rsi_load_relaxed(&connection->session->counts.spill_bytes) > 0)) {
            cut_off_count++;
        }
    }
    return cut_off_count > 0 ? cut_off_count : 1;
}

static void begin_draining(struct rsi_control_agent *control, uint64_t now_ns)
{
    rsi_log_info("broker", "stopping: %llu sessions", (unsigned long long)control->counts.sessions);
    control->phase = RSI_CONTROL_DRAINING;
    control->phase_deadline_ns = now_ns + control->settings->drain_timeout_ns;
    rsi_endpoints_close_listeners(control->endpoints);
    end_connections(control, false);
}

static void begin_parting(struct rsi_control_agent *control, uint64_t now_ns)
{
    control->phase = RSI_CONTROL_PARTING;
    control->phase_deadline_ns =
        now_ns + (control->stop_request_count > 1 ? PARTING_AT_ONCE_NS : PARTING_NS);
    end_connections(control, true);
}

static uint32_t poll_draining(struct rsi_control_agent *control, uint64_t now_ns)
{
    if (!control->is_stop_posted) {
        const struct rsi_edit edit = {.kind = RSI_EDIT_STOP};
        control->is_stop_posted =
            rsi_data_plane_post(control->plane, &edit, &control->stop_ticket) == RSI_OK;
    }
    bool is_drained = control->is_stop_posted &&
                      rsi_data_plane_is_applied(control->plane, control->stop_ticket) &&
                      rsi_data_plane_is_drained(control->plane);
    bool is_late = now_ns >= control->phase_deadline_ns || control->stop_request_count > 1;
    if (!is_drained && !is_late) {
        return 0;
    }
    if (!is_drained) {
        control->cut_off_count += count_cut_off(control);
    }
    begin_parting(control, now_ns);
    return 1;
}

/* The time is up and links are still open: ends the data plane, whose part is then done here. */
static void take_over_links(struct rsi_control_agent *control, uint64_t now_ns)
{
    rsi_log_warning("broker", "%u connections are not closed in time; ending the data agents first",
                    control->connection_count);
    rsi_data_plane_stop(control->plane);
    control->is_plane_ended = true;
    control->phase_deadline_ns = now_ns + ORPHANED_NS;
    for (struct rsi_connection *connection = control->connections; connection != NULL;
         connection = connection->next) {
        rsi_connection_abandon(connection);
    }
}

static void poll_as_owner(struct rsi_control_agent *control, uint64_t now_ns)
{
    for (uint32_t i = 0; i < control->endpoints->domain_count; i++) {
        for (uint32_t agent = 0; agent < control->endpoints->agent_count; agent++) {
            (void)rsi_poller_poll(control->endpoints->domains[i].pollers[agent], now_ns);
        }
    }
}

static uint32_t poll_parting(struct rsi_control_agent *control, uint64_t now_ns)
{
    if (control->is_plane_ended) {
        poll_as_owner(control, now_ns);
    }
    if (control->connections == NULL) {
        control->phase = RSI_CONTROL_ENDED;
        return 1;
    }
    if (control->stop_request_count > 1 &&
        control->phase_deadline_ns > now_ns + PARTING_AT_ONCE_NS) {
        control->phase_deadline_ns = now_ns + PARTING_AT_ONCE_NS;
    }
    if (now_ns < control->phase_deadline_ns) {
        return 0;
    }
    if (!control->is_plane_ended) {
        take_over_links(control, now_ns);
        return 1;
    }
    rsi_log_error("broker",
                  "%u connections could not be closed; their memory is left to the kernel",
                  control->connection_count);
    control->phase = RSI_CONTROL_ENDED;
    return 1;
}

static void take_stop_requests(struct rsi_control_agent *control)
{
    uint64_t count = 0;
    if (read(control->stop_fd, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        control->stop_request_count += count;
    }
}

static uint32_t poll_phase(struct rsi_control_agent *control, uint64_t now_ns)
{
    switch (control->phase) {
    case RSI_CONTROL_RUNNING:
        if (control->stop_request_count == 0) {
            return 0;
        }
        begin_draining(control, now_ns);
        return 1;
    case RSI_CONTROL_DRAINING:
        return poll_draining(control, now_ns);
    case RSI_CONTROL_PARTING:
        return poll_parting(control, now_ns);
    case RSI_CONTROL_ENDED:
        break;
    }
    return 0;
}

/* ---- the loop ----------------------------------------------------------------------------------
 */

static uint32_t run_pass(struct rsi_control_agent *control, uint64_t now_ns)
{
    uint32_t work_count = 0;
    take_stop_requests(control);
    work_count += poll_endpoints(control, now_ns);
    work_count += poll_connections(control, now_ns);
    if (!control->is_plane_ended) {
        work_count += rsi_catalogue_poll(&control->catalogue);
    }
    work_count += poll_phase(control, now_ns);
    return work_count;
}

static uint64_t lower(uint64_t a_ns, uint64_t b_ns)
{
    return a_ns < b_ns ? a_ns : b_ns;
}

/* How long nothing can happen without an event. */
static uint64_t wait_ns(const struct rsi_control_agent *control, uint64_t now_ns)
{
    uint64_t until_ns = lower(control->next_update_ns, now_ns + HOUSEKEEPING_NS);
    if (control->phase != RSI_CONTROL_RUNNING) {
        until_ns = lower(until_ns, now_ns + MOVING_WAIT_NS);
    }
    if (rsi_catalogue_is_busy(&control->catalogue)) {
        until_ns = lower(until_ns, now_ns + RETIRE_WAIT_NS);
    }
    for (uint32_t i = 0; i < control->endpoints->domain_count; i++) {
        if (control->endpoints->domains[i].is_paused) {
            until_ns = lower(until_ns, control->endpoints->domains[i].retry_ns);
        }
    }
    for (const struct rsi_connection *connection = control->connections; connection != NULL;
         connection = connection->next) {
        if (connection->has_work) {
            return 0;
        }
        if (rsi_connection_is_moving(connection)) {
            until_ns = lower(until_ns, now_ns + MOVING_WAIT_NS);
        }
        until_ns = lower(until_ns, connection->deadline_ns);
    }
    return until_ns > now_ns ? until_ns - now_ns : 0;
}

static rsi_status_t wait_for_events(struct rsi_control_agent *control, struct rsi_error *error)
{
    struct epoll_event events[8];
    rsi_waker_prepare(control->waker);
    uint32_t work_count = run_pass(control, rsi_clock_now_ns());
    rsi_status_t status = RSI_OK;
    if (work_count == 0) {
        uint64_t timeout_ns = wait_ns(control, rsi_clock_now_ns());
        int timeout_ms = (int)((timeout_ns + MILLISECOND_NS - 1) / MILLISECOND_NS);
        if (epoll_wait(control->epoll_fd, events, (int)rsi_array_count(events), timeout_ms) < 0 &&
            errno != EINTR) {
            status = rsi_fail_errno(error, RSI_E_SYSTEM, errno, "waiting for events");
        }
    }
    rsi_waker_finish(control->waker);
    return status;
}

rsi_status_t rsi_control_agent_run(struct rsi_control_agent *control, struct rsi_error *error)
{
    rsi_thread_name("control-agent");
    if (control->settings->control_cpu >= 0) {
        rsi_status_t status = rsi_cpu_pin_thread((unsigned)control->settings->control_cpu, error);
        if (rsi_failed(status)) {
            rsi_error_context(error, "control_cpu");
            return status;
        }
    }
    while (control->phase != RSI_CONTROL_ENDED) {
        uint32_t pass_count = 0;
        uint32_t work_count = 0;
        do {
            uint64_t now_ns = rsi_clock_now_ns();
            work_count = run_pass(control, now_ns);
            update_metrics(control, now_ns);
        } while (work_count > 0 && ++pass_count < PASSES_BEFORE_WAIT &&
                 control->phase != RSI_CONTROL_ENDED);
        if (work_count > 0) {
            continue; /* other events are looked at by every pass */
        }
        rsi_status_t status = wait_for_events(control, error);
        if (rsi_failed(status)) {
            return status;
        }
    }
    if (control->cut_off_count > 0) {
        return rsi_fail(error, RSI_E_TIMED_OUT,
                        "%u sessions were cut off before they got everything (drain_timeout)",
                        control->cut_off_count);
    }
    return RSI_OK;
}
