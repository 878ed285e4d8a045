/*
 * Design notes
 * - A connection moves through the states of connection.h in one direction, but for a session that
 *   goes from link to link; the table below
 * has every legal step and rsi_connection_set_state checks it. Its poll does what the present state
 *   can do and never waits: what is not done is done at the next poll.
 * - There is one way out for all reasons: rsi_connection_end. A connection with a session leaves
 * the data plane first (LEAVING), so that its last word can name the position up to which its
 * client got data, and so that no owner thread touches the rings when the link is closed.
 * - What the peer sends is checked here or in the file that takes it; a peer that breaks the
 * protocol loses its connection and is told why.
 * - Each pass takes a bounded number of messages of each connection: a client that floods the
 * control lane takes turns with the others.
 */
#include "broker/connection.h"

#include "broker/control_agent.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MESSAGES_PER_PASS = 16,
    LEAVE_TIMEOUT_S = 5, /* for what a client sent before its goodbye to arrive, and to be taken */
    FAREWELL_TIMEOUT_S = 1,
};
#define SECOND_NS UINT64_C(1000000000)

/* ---- state -------------------------------------------------------------------------------------
 */

#define STEP(state) (1u << RSI_CONNECTION_##state)

static const uint32_t legal_steps[] = {
    [RSI_CONNECTION_ACCEPTED] = STEP(GREETED) | STEP(CLOSING),
    [RSI_CONNECTION_GREETED] = STEP(CHALLENGED) | STEP(PARTING),
    /* CLOSING, ENDED: its link went over to the session that it proved. */
    [RSI_CONNECTION_CHALLENGED] = STEP(ATTACHING) | STEP(PARTING) | STEP(CLOSING) | STEP(ENDED),
    [RSI_CONNECTION_ATTACHING] = STEP(JOINING) | STEP(PARTING),
    [RSI_CONNECTION_JOINING] = STEP(SERVING) | STEP(PARTING),
    [RSI_CONNECTION_SERVING] = STEP(SUSPENDED) | STEP(LEAVING),
    [RSI_CONNECTION_SUSPENDED] = STEP(RESUMING) | STEP(LEAVING),
    [RSI_CONNECTION_RESUMING] = STEP(SERVING) | STEP(SUSPENDED) | STEP(RESUMING) | STEP(LEAVING),
    [RSI_CONNECTION_LEAVING] = STEP(PARTING) | STEP(CLOSING), /* CLOSING: abandoned */
    [RSI_CONNECTION_PARTING] = STEP(CLOSING),
    [RSI_CONNECTION_CLOSING] = STEP(ENDED),
    [RSI_CONNECTION_ENDED] = 0,
};

static const char *const state_names[] = {
    [RSI_CONNECTION_ACCEPTED] = "ACCEPTED",     [RSI_CONNECTION_GREETED] = "GREETED",
    [RSI_CONNECTION_CHALLENGED] = "CHALLENGED", [RSI_CONNECTION_ATTACHING] = "ATTACHING",
    [RSI_CONNECTION_JOINING] = "JOINING",       [RSI_CONNECTION_SERVING] = "SERVING",
    [RSI_CONNECTION_SUSPENDED] = "SUSPENDED",   [RSI_CONNECTION_RESUMING] = "RESUMING",
    [RSI_CONNECTION_LEAVING] = "LEAVING",       [RSI_CONNECTION_PARTING] = "PARTING",
    [RSI_CONNECTION_CLOSING] = "CLOSING",       [RSI_CONNECTION_ENDED] = "ENDED",
};

const char *rsi_connection_state_name(enum rsi_connection_state state)
{
    return state_names[state];
}

/* A session without a link. */
static bool is_away(enum rsi_connection_state state)
{
    return state == RSI_CONNECTION_SUSPENDED || state == RSI_CONNECTION_RESUMING;
}

void rsi_connection_set_state(struct rsi_connection *connection, enum rsi_connection_state to,
                              uint64_t deadline_ns)
{
    enum rsi_connection_state from = connection->state;
    struct rsi_broker_counts *counts = &connection->control->counts;
    rsi_assert((legal_steps[from] & 1u << to) != 0);
    if (from < RSI_CONNECTION_ATTACHING && to >= RSI_CONNECTION_ATTACHING) {
        counts->unauthenticated--;
    }
    if (to >= RSI_CONNECTION_PARTING && connection->is_counted) {
        connection->is_counted = false;
        counts->sessions--;
    }
    counts->sessions_suspended += is_away(to);
    counts->sessions_suspended -= is_away(from);
    connection->state = to;
    connection->deadline_ns = deadline_ns;
}

bool rsi_connection_is_moving(const struct rsi_connection *connection)
{
    switch (connection->state) {
    case RSI_CONNECTION_ACCEPTED:
    case RSI_CONNECTION_ATTACHING:
    case RSI_CONNECTION_JOINING:
    case RSI_CONNECTION_RESUMING:
    case RSI_CONNECTION_LEAVING:
    case RSI_CONNECTION_PARTING:
    case RSI_CONNECTION_CLOSING:
        return true;
    case RSI_CONNECTION_SUSPENDED:
        return connection->resume.step != RSI_RESUME_HELD || connection->resume.link != NULL;
    case RSI_CONNECTION_GREETED:
    case RSI_CONNECTION_CHALLENGED:
    case RSI_CONNECTION_SERVING:
    case RSI_CONNECTION_ENDED:
        return connection->has_work || connection->draining != NULL;
    }
    return true;
}

uint64_t rsi_connection_step_deadline_ns(const struct rsi_connection *connection)
{
    return rsi_clock_now_ns() + connection->control->settings->authenticate_timeout_ns;
}

const char *rsi_connection_describe(const struct rsi_connection *connection, char *text,
                                    size_t text_bytes)
{
    snprintf(text, text_bytes, "client %s (%s, %s)",
             connection->name[0] != '\0' ? connection->name : "that gave no name yet",
             connection->link->transport->name, connection->link->peer_text);
    return text;
}

/* ---- life --------------------------------------------------------------------------------------
 */

void rsi_connection_init(struct rsi_connection *connection, struct rsi_control_agent *control,
                         struct rsi_endpoint_domain *domain, struct rsi_link *link, uint64_t now_ns)
{
    connection->control = control;
    connection->domain = domain;
    connection->link = link;
    connection->state = RSI_CONNECTION_ACCEPTED;
    connection->deadline_ns = now_ns + control->settings->authenticate_timeout_ns;
    control->counts.unauthenticated++;
}

void rsi_connection_destroy(struct rsi_connection *connection)
{
    rsi_assert(connection->state == RSI_CONNECTION_ENDED);
    rsi_assert(connection->session == NULL);
    explicit_bzero(connection->session_secret, sizeof(connection->session_secret));
    free(connection);
}

/* Says it once to the operator, as loudly as it deserves. */
static void log_end(const struct rsi_connection *connection)
{
    char who[192];
    rsi_connection_describe(connection, who, sizeof(who));
    if (connection->end_reason == RINGSIDE__CONTROL__REASON__REASON_GOODBYE ||
        connection->end_reason == RINGSIDE__CONTROL__REASON__REASON_STOPPING) {
        rsi_log_info("broker", "%s: %s", who, connection->end_text);
    } else if (connection->is_authenticated) {
        rsi_log_warning("broker", "%s: %s", who, connection->end_text);
    } else {
        rsi_log_distinct(RSI_LOG_WARNING, "broker", "%s: %s", who, connection->end_text);
    }
}

static void count_end(struct rsi_connection *connection)
{
    struct rsi_broker_counts *counts = &connection->control->counts;
    if (!connection->is_authenticated) {
        counts->refused += connection->end_reason != RINGSIDE__CONTROL__REASON__REASON_NONE;
    } else if (connection->end_reason == RINGSIDE__CONTROL__REASON__REASON_SLOW) {
        counts->sessions_slow++;
    } else if (connection->end_reason == RINGSIDE__CONTROL__REASON__REASON_NONE) {
        counts->sessions_lost++;
    }
}

/* Texts quote what a client sent, also before it proved who it is: it writes no lines of its own
 * into the log. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = '?';
        }
    }
}

void rsi_connection_end(struct rsi_connection *connection, Ringside__Control__Reason reason,
                        const char *format, ...)
{
    if (connection->state >= RSI_CONNECTION_LEAVING) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(connection->end_text, sizeof(connection->end_text), format, arguments);
    va_end(arguments);
    make_printable(connection->end_text);
    connection->end_reason = reason;
    log_end(connection);
    count_end(connection);

    if (connection->state == RSI_CONNECTION_ACCEPTED) {
        connection->link->transport->link_close(connection->link);
        rsi_connection_set_state(connection, RSI_CONNECTION_CLOSING, UINT64_MAX);
    } else if (connection->state >= RSI_CONNECTION_SERVING) {
        rsi_connection_set_state(connection, RSI_CONNECTION_LEAVING, UINT64_MAX);
    } else {
        rsi_resume_remember_end(connection);
        /* The deadline is set by the first poll in this state, which knows the time. */
        rsi_connection_set_state(connection, RSI_CONNECTION_PARTING, 0);
    }
}

/* ---- messages ----------------------------------------------------------------------------------
 */

static bool takes_messages(const struct rsi_connection *connection)
{
    return connection->state == RSI_CONNECTION_GREETED ||
           connection->state == RSI_CONNECTION_CHALLENGED ||
           (connection->state == RSI_CONNECTION_SERVING &&
            connection->request_count < RSI_REQUEST_COUNT_MAX);
}

static void take_message(struct rsi_connection *connection,
                         const Ringside__Control__Control *message)
{
    if (message->body_case == RINGSIDE__CONTROL__CONTROL__BODY_BYE) {
        const char *text = message->bye->text;
        connection->end_pos = message->bye->end_pos;
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_GOODBYE,
                           "said goodbye%s%.100s", text[0] != '\0' ? ": " : "", text);
        return;
    }
    if (connection->state == RSI_CONNECTION_SERVING) {
        rsi_requests_take(connection, message);
    } else {
        rsi_handshake_take(connection, message);
    }
}

static uint32_t take_messages(struct rsi_connection *connection)
{
    uint32_t message_count = 0;
    while (takes_messages(connection)) {
        if (message_count == MESSAGES_PER_PASS) {
            connection->has_work = true;
            break;
        }
        Ringside__Control__Control *message = NULL;
        struct rsi_error error = {0};
        rsi_status_t status =
            rsi_control_receive(&connection->receiver, connection->link, &message, &error);
        if (status == RSI_WOULD_BLOCK) {
            break;
        }
        message_count++;
        if (rsi_failed(status)) {
            rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL, "%s",
                               error.text);
            break;
        }
        take_message(connection, message);
        rsi_control_free(message);
    }
    return message_count;
}

/* ---- what each state does
 * ------------------------------------------------------------------------ */

/* The session's memory, made when its rings are there. False: the connection is being ended. */
static bool make_session(struct rsi_connection *connection)
{
    struct rsi_control_agent *control = connection->control;
    struct rsi_error error = {0};
    rsi_status_t status = rsi_session_init(connection->session, &control->data_options, &error);
    if (rsi_failed(status)) {
        free(connection->session);
        connection->session = NULL;
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_INTERNAL, "%s",
                           error.text);
        return false;
    }
    rsi_metrics_add_session(control->metrics, connection->session, &connection->metrics);
    rsi_metrics_tell_link(&connection->metrics, connection->link, connection->agent);
    return true;
}

static uint32_t poll_attaching(struct rsi_connection *connection)
{
    /* Lost as soon as this: the client may have been ready first, and begun. */
    bool is_begun = rsi_link_state(connection->link) == RSI_LINK_ATTACHED ||
                    (rsi_link_state(connection->link) > RSI_LINK_ATTACHED &&
                     rsi_resume_is_possible(connection));
    if (!is_begun) {
        return 0;
    }
    if (make_session(connection)) {
        rsi_connection_set_state(connection, RSI_CONNECTION_JOINING, UINT64_MAX);
    }
    return 1;
}

static uint32_t poll_joining(struct rsi_connection *connection)
{
    uint64_t ticket = 0;
    const struct rsi_edit edit = {.kind = RSI_EDIT_SESSION_JOIN, .session = connection->session};
    if (rsi_data_plane_post(connection->control->plane, &edit, &ticket) != RSI_OK) {
        return 0;
    }
    char who[192];
    rsi_connection_set_state(connection, RSI_CONNECTION_SERVING, UINT64_MAX);
    connection->control->counts.sessions_begun++;
    rsi_log_info("broker", "%s: session %llu on agent %u at %s, rings in %llu KiB, out %llu KiB",
                 rsi_connection_describe(connection, who, sizeof(who)),
                 (unsigned long long)connection->session->id, connection->agent,
                 connection->link->local_text,
                 (unsigned long long)connection->session->publish_ring_bytes >> 10,
                 (unsigned long long)connection->session->deliver_ring_bytes >> 10);
    return 1;
}

/* The home agent found the session at fault. */
static void end_faulted(struct rsi_connection *connection)
{
    const struct rsi_error *fault = &connection->session->fault;
    if (fault->status == RSI_E_SLOW) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_SLOW, "%.400s",
                           fault->text);
    } else if (fault->status == RSI_E_PROTOCOL) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL, "%.400s",
                           fault->text);
    } else {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_INTERNAL, "%.400s",
                           fault->text);
    }
}

static uint32_t poll_serving(struct rsi_connection *connection)
{
    /* Pairs with the release in rsi_agent_fault. */
    if (rsi_load_acquire(&connection->session->faulted)) {
        end_faulted(connection);
        return 1;
    }
    return rsi_requests_poll(connection);
}

/* A client that said goodbye named the end of what it sent; else what has arrived is the end. */
static bool names_its_end(const struct rsi_connection *connection)
{
    return connection->end_reason == RINGSIDE__CONTROL__REASON__REASON_GOODBYE;
}

/* For how long the session may take to leave before something is done about it. What arrived may
 * wait for a subscriber that blocks, and that one for block_timeout. */
static uint64_t leave_timeout_ns(const struct rsi_connection *connection)
{
    uint64_t timeout_ns = LEAVE_TIMEOUT_S * SECOND_NS;
    return names_its_end(connection) ? timeout_ns
                                     : timeout_ns + connection->control->settings->block_timeout_ns;
}

static void hurry_leaving(struct rsi_connection *connection)
{
    if (names_its_end(connection)) {
        /* Waits for bytes that do not come: it named a wrong end, or its link hangs. */
        connection->link->transport->link_close(connection->link);
    } else if (!connection->is_halt_posted) {
        /* Subscribers that block go on, but slowly. The goodbye tells what was not taken. */
        uint64_t ticket = 0;
        const struct rsi_edit edit = {.kind = RSI_EDIT_SESSION_HALT,
                                      .session = connection->session};
        connection->is_halt_posted =
            rsi_data_plane_post(connection->control->plane, &edit, &ticket) == RSI_OK;
    }
}

static uint32_t poll_leaving(struct rsi_connection *connection, uint64_t now_ns)
{
    struct rsi_control_agent *control = connection->control;
    struct rsi_session *session = connection->session;
    if (!connection->is_leave_posted) {
        /* Its positions are final when it is CLOSED, and not before. */
        bool is_fencing =
            connection->resume.since_ns != 0 && connection->resume.step == RSI_RESUME_FENCING;
        if (is_fencing && rsi_link_state(connection->link) != RSI_LINK_CLOSED) {
            return 0;
        }
        const struct rsi_edit edit = {
            .kind = RSI_EDIT_SESSION_LEAVE, .session = session, .position = connection->end_pos};
        connection->is_leave_posted =
            rsi_data_plane_post(control->plane, &edit, &connection->leave_ticket) == RSI_OK;
        return connection->is_leave_posted;
    }
    if (connection->deadline_ns == UINT64_MAX) {
        connection->deadline_ns = now_ns + leave_timeout_ns(connection);
    }
    if (now_ns >= connection->deadline_ns) {
        hurry_leaving(connection);
        /* A deadline that has passed would keep the loop turning. */
        connection->deadline_ns = now_ns + LEAVE_TIMEOUT_S * SECOND_NS;
    }
    /* Pairs with the release in let_go(): the home agent is done with session and rings. */
    if (!rsi_load_acquire(&session->left) ||
        !rsi_data_plane_is_applied(control->plane, connection->leave_ticket)) {
        return 0;
    }
    /* Other agents may still follow a pointer to a session that held publishers back. */
    if (!connection->is_forget_posted) {
        const struct rsi_edit edit = {.kind = RSI_EDIT_SESSION_FORGET, .session = session};
        connection->is_forget_posted =
            rsi_data_plane_post(control->plane, &edit, &connection->forget_ticket) == RSI_OK;
        return connection->is_forget_posted;
    }
    if (!rsi_data_plane_is_applied(control->plane, connection->forget_ticket)) {
        return 0;
    }
    rsi_metrics_update_session(session, connection->link, &connection->metrics, now_ns);
    rsi_resume_log_undelivered(connection);
    rsi_requests_release(connection);
    rsi_resume_remember_end(connection);
    rsi_connection_set_state(connection, RSI_CONNECTION_PARTING, 0);
    return 1;
}

static rsi_status_t send_farewell(struct rsi_connection *connection)
{
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Bye bye = RINGSIDE__CONTROL__BYE__INIT;
    Ringside__Control__Refused refused = RINGSIDE__CONTROL__REFUSED__INIT;
    /* A next link that was not welcomed waits for an answer to its Authenticate. */
    struct rsi_link *next = connection->resume.link;
    bool is_welcomed = next == NULL || connection->resume.step >= RSI_RESUME_ATTACHING;
    if (connection->is_authenticated && is_welcomed) {
        bye.reason = connection->end_reason;
        bye.text = connection->end_text;
        if (connection->session != NULL) { /* its home agent has let go: the positions are final */
            bye.end_pos = connection->session->link->placed_pos;
            bye.taken_pos = connection->session->link->consumed_pos;
        }
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_BYE;
        message.bye = &bye;
    } else {
        refused.reason = connection->end_reason;
        refused.text = connection->end_text;
        refused.version_min = RSI_WIRE_VERSION_MIN;
        refused.version_max = RSI_WIRE_VERSION_MAX;
        refused.session_ended = connection->is_of_ended;
        refused.taken_pos = connection->ended_taken_pos;
        /* Of a broker that stops the client may become another one's, with all that it had. */
        if (next != NULL && connection->end_reason != RINGSIDE__CONTROL__REASON__REASON_STOPPING) {
            refused.session_ended = true;
            refused.taken_pos = connection->session->link->consumed_pos;
        }
        message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_REFUSED;
        message.refused = &refused;
    }
    return rsi_control_send(next != NULL ? next : connection->link, &message);
}

/* Nobody touches link or session any more but the transport, which is asked to let go of the link.
 */
static void close_link(struct rsi_connection *connection)
{
    rsi_metrics_remove_session(connection->control->metrics, &connection->metrics);
    if (connection->session != NULL) {
        rsi_session_fini(connection->session);
        free(connection->session);
        connection->session = NULL;
    }
    connection->link->transport->link_close(connection->link);
    if (connection->resume.link != NULL) {
        connection->resume.link->transport->link_close(connection->resume.link);
    }
    rsi_connection_set_state(connection, RSI_CONNECTION_CLOSING, UINT64_MAX);
}

void rsi_connection_abandon(struct rsi_connection *connection)
{
    rsi_assert(connection->state >= RSI_CONNECTION_LEAVING);
    if (connection->state >= RSI_CONNECTION_CLOSING) {
        return;
    }
    rsi_requests_abandon(connection);
    close_link(connection);
}

static uint32_t poll_parting(struct rsi_connection *connection, uint64_t now_ns)
{
    if (connection->deadline_ns == 0) {
        connection->deadline_ns = now_ns + FAREWELL_TIMEOUT_S * SECOND_NS;
    }
    /* A link that is lost takes nothing, and the client that said why knows it already. */
    if (send_farewell(connection) == RSI_WOULD_BLOCK && now_ns < connection->deadline_ns) {
        return 0;
    }
    close_link(connection);
    return 1;
}

static uint32_t poll_closing(struct rsi_connection *connection)
{
    struct rsi_link *next = connection->resume.link;
    if (rsi_link_state(connection->link) != RSI_LINK_CLOSED ||
        (next != NULL && rsi_link_state(next) != RSI_LINK_CLOSED)) {
        return 0;
    }
    if (next != NULL) {
        next->transport->link_destroy(next);
        connection->resume.link = NULL;
    }
    connection->link->transport->link_destroy(connection->link);
    connection->link = NULL;
    rsi_connection_set_state(connection, RSI_CONNECTION_ENDED, UINT64_MAX);
    return 1;
}

/* The agent whose poller the transport gave the link to. */
static uint32_t agent_of(const struct rsi_connection *connection)
{
    uint32_t agent = 0;
    while (connection->domain->pollers[agent] != connection->link->poller) {
        agent++;
        rsi_assert(agent < connection->control->endpoints->agent_count);
    }
    return agent;
}

static uint32_t poll_accepted(struct rsi_connection *connection)
{
    if (rsi_link_state(connection->link) != RSI_LINK_OPEN) {
        return 0;
    }
    connection->agent = agent_of(connection); /* the greeting may have named one */
    rsi_connection_set_state(connection, RSI_CONNECTION_GREETED,
                             rsi_connection_step_deadline_ns(connection));
    return 1;
}

static uint32_t poll_state(struct rsi_connection *connection, uint64_t now_ns)
{
    switch (connection->state) {
    case RSI_CONNECTION_ACCEPTED:
        return poll_accepted(connection);
    case RSI_CONNECTION_ATTACHING:
        return poll_attaching(connection);
    case RSI_CONNECTION_JOINING:
        return poll_joining(connection);
    case RSI_CONNECTION_SERVING:
        return poll_serving(connection);
    case RSI_CONNECTION_SUSPENDED:
    case RSI_CONNECTION_RESUMING:
        return poll_serving(connection) + rsi_resume_poll(connection, now_ns);
    case RSI_CONNECTION_LEAVING:
        return poll_leaving(connection, now_ns);
    case RSI_CONNECTION_PARTING:
        return poll_parting(connection, now_ns);
    case RSI_CONNECTION_CLOSING:
        return poll_closing(connection);
    case RSI_CONNECTION_GREETED:
    case RSI_CONNECTION_CHALLENGED:
    case RSI_CONNECTION_ENDED:
        return 0;
    }
    return 0;
}

/* The link is lost, or was closed here because its client is on its way to another. After its
 * messages: a goodbye that came before the end is a goodbye. */
static void take_loss(struct rsi_connection *connection)
{
    if (connection->state == RSI_CONNECTION_SERVING && rsi_resume_is_possible(connection)) {
        rsi_resume_suspend(connection, connection->link->error.text);
    } else if (connection->state != RSI_CONNECTION_JOINING) { /* it is lost when it has joined */
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_NONE, "lost: %.400s",
                           connection->link->error.text);
    }
}

static void end_overdue(struct rsi_connection *connection)
{
    const char *what = connection->state == RSI_CONNECTION_ACCEPTED ? "did not greet in time"
                       : connection->state == RSI_CONNECTION_ATTACHING
                           ? "did not make its rings in "
                             "time"
                           : "did not prove who it is in "
                             "time";
    rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_TIMED_OUT, "%s", what);
}

uint32_t rsi_connection_poll(struct rsi_connection *connection, uint64_t now_ns)
{
    uint32_t step_count = 0;
    connection->has_work = false;
    connection->link->transport->link_poll_control(connection->link, now_ns);
    if (connection->resume.link != NULL) {
        connection->resume.link->transport->link_poll_control(connection->resume.link, now_ns);
    }
    step_count += poll_state(connection, now_ns);
    step_count += take_messages(connection);
    if (connection->state <= RSI_CONNECTION_SERVING && !connection->has_work &&
        rsi_link_state(connection->link) >= RSI_LINK_LOST) {
        take_loss(connection);
        step_count++;
    }
    /* Registering another client's memory can hold this thread up for seconds: a client that
     * answered meanwhile is not late. */
    if (connection->state < RSI_CONNECTION_SERVING && step_count == 0 &&
        now_ns >= connection->deadline_ns) {
        end_overdue(connection);
        step_count++;
    }
    return step_count;
}
