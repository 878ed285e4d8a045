/*
 * A session that outlives its link: from the loss of one link to the first request over the next.
 *
 * Design notes
 * - The way. SUSPENDED: the old link is driven to CLOSED, which is the fence; then SESSION_SUSPEND
 *   has the home agent say what it has consumed: from there on nothing that the client is told can
 *   be too much. A client proves the session on a connection of its own; that link is handed over
 *   (RESUMING). When the fence is passed, too, its positions are checked, Welcome tells ours, and
 * both sides make rings. SESSION_RESUME has the home agent carry what is owed and move. Only then
 * the old link is destroyed, and the session SERVES again.
 * - In the data plane nothing else changes: the session stays in the index, matched frames go on
 *   into the old out ring until it is full, and then it is a slow subscriber like any other, whose
 *   policy acts. What had arrived from it is admitted.
 * - The client knows better. If the session looks healthy when its client asks to resume it, the
 *   old link is given up at once. But links are not ordered: a try that the client gave up may be
 *   read after the one that succeeded, so tries are numbered, and an old one touches nothing.
 * - Whoever cannot prove the session learns nothing, not even whether it exists, and loses its own
 *   link only. The right client with positions that cannot be true has lost the session: one side
 *   does not know what it sent.
 * - A client that went to this broker from one that died, and lost the link before it took its new
 *   session over, begins another one and names the one that it left: that one ends at once, so that
 *   it holds nobody back, and nobody has to guess which of the two is meant.
 * - A next link that fails on the way is dropped, and the session waits on. The two sides may then
 *   be on different links; each tells the positions of the one it is on.
 * - A client whose link was torn when its session ended did not hear why. So the reason, and how
 * far its messages were taken, are kept for a while (ended.h), and told to whoever proves the
 * session.
 * - The grace begins anew with each loss. It ends at once when the client's process is known to be
 *   dead, when the peer broke the protocol, and when the broker stops.
 */
#include "broker/connection.h"

#include "broker/control_agent.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text.h"
#include "transport/frame.h"

#include <string.h>

#define SECOND_NS         UINT64_C(1000000000)
#define ATTACH_TIMEOUT_NS (30 * SECOND_NS) /* registering memory takes as long as it takes */
#define KEPT_NS_MIN       (60 * SECOND_NS) /* why a session ended, for a client that was away */

static double seconds_since(uint64_t then_ns, uint64_t now_ns)
{
    return (double)(now_ns - then_ns) / (double)SECOND_NS;
}

/* ---- losing a link ------------------------------------------------------------------------------
 */

bool rsi_resume_is_possible(const struct rsi_connection *connection)
{
    const struct rsi_control_agent *control = connection->control;
    const struct rsi_session *session = connection->session;
    const struct rsi_link *link = connection->link;
    /* Rings that were never made hold nothing to go on from. */
    bool has_rings = link->in.capacity_bytes == session->publish_ring_bytes &&
                     link->out.capacity_bytes == session->deliver_ring_bytes;
    return control->settings->session_grace_ns > 0 && control->phase == RSI_CONTROL_RUNNING &&
           has_rings && !link->peer_has_ended && link->error.status != RSI_E_PROTOCOL;
}

void rsi_resume_suspend(struct rsi_connection *connection, const char *why)
{
    struct rsi_resume *resume = &connection->resume;
    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t grace_ns = connection->control->settings->session_grace_ns;
    char who[192];
    rsi_log_info("broker", "%s: suspended, its session %llu waits for %.1f s: %s",
                 rsi_connection_describe(connection, who, sizeof(who)),
                 (unsigned long long)connection->session->id, (double)grace_ns / (double)SECOND_NS,
                 why);
    rsi_requests_suspend(connection);
    connection->link->transport->link_close(connection->link);
    resume->step = RSI_RESUME_FENCING;
    resume->since_ns = now_ns;
    rsi_metrics_tell_link(&connection->metrics, NULL, connection->agent);
    rsi_connection_set_state(connection, RSI_CONNECTION_SUSPENDED, now_ns + grace_ns);
}

/* ---- asking for a session -----------------------------------------------------------------------
 */

/* The session's connection while its end is not known; NULL: none of this id. */
static struct rsi_connection *find_session(const struct rsi_control_agent *control, uint64_t id)
{
    struct rsi_connection *at = control->connections;
    while (at != NULL &&
           (at->session == NULL || at->session->id != id || at->state < RSI_CONNECTION_ATTACHING ||
            at->state > RSI_CONNECTION_LEAVING)) {
        at = at->next;
    }
    return at;
}

/* What the client of a session has, to be compared with what another connection shows. */
struct claimed {
    const char *name;
    const char *token_name;
    uint64_t incarnation;
    const uint8_t *secret;
};

static struct claimed claimed_of(const struct rsi_connection *owner)
{
    return (struct claimed){owner->name, owner->token_name, owner->incarnation,
                            owner->session_secret};
}

/* Why `connection` may not have the session, for the log; NULL: it is its client. `claimed` NULL:
 * there is no such session. */
static const char *proof_fault(const struct rsi_connection *connection,
                               const struct claimed *claimed,
                               const ProtobufCBinaryData *session_proof)
{
    /* For a session that is not there, so that it takes as long as one that is. */
    static const uint8_t nobody[RSI_AUTH_NONCE_BYTES];
    const uint8_t *secret = claimed != NULL ? claimed->secret : nobody;
    uint8_t expected[RSI_AUTH_PROOF_BYTES];
    bool is_made = rsi_handshake_proof(connection, RSI_AUTH_RESUME, secret, RSI_AUTH_NONCE_BYTES,
                                       expected) == RSI_OK;
    bool is_equal = rsi_auth_equal(session_proof->data, session_proof->len, expected);
    if (claimed == NULL) {
        return "there is no such session";
    }
    if (!is_made || !is_equal) {
        return "the proof is wrong";
    }
    if (strcmp(claimed->name, connection->name) != 0 ||
        strcmp(claimed->token_name, connection->token_name) != 0) {
        return "it is another client's";
    }
    if (claimed->incarnation != connection->incarnation) {
        return "it is of another run of the client's process";
    }
    return NULL;
}

/* Gives the link over; `connection` ends, or closes the link that this one takes the place of. */
static void hand_over(struct rsi_connection *connection, struct rsi_connection *owner)
{
    struct rsi_resume *resume = &owner->resume;
    struct rsi_link *replaced = resume->link;
    struct rsi_endpoint_domain *replaced_domain = resume->domain;
    resume->link = connection->link;
    resume->domain = connection->domain;
    if (resume->step > RSI_RESUME_HELD) {
        resume->step = RSI_RESUME_HELD;
    }
    rsi_connection_set_state(owner, RSI_CONNECTION_RESUMING,
                             rsi_clock_now_ns() + ATTACH_TIMEOUT_NS);
    connection->link = replaced;
    connection->domain = replaced_domain;
    if (replaced == NULL) {
        rsi_connection_set_state(connection, RSI_CONNECTION_ENDED, UINT64_MAX);
    } else {
        replaced->transport->link_close(replaced);
        rsi_connection_set_state(connection, RSI_CONNECTION_CLOSING, UINT64_MAX);
    }
}

/* Whether the session can take a next link now; else the client is asked to dial again. */
static bool make_ready(struct rsi_connection *owner)
{
    if (owner->state == RSI_CONNECTION_SERVING) {
        rsi_resume_suspend(owner, "its client asks to go on over another link");
    } else if (owner->state < RSI_CONNECTION_SERVING) {
        /* Its client was ready first, and lost the link again before this side had seen that. */
        owner->link->transport->link_close(owner->link);
        return false;
    }
    return owner->resume.step != RSI_RESUME_SWAPPING;
}

/* Its client learns of an end what the goodbye would have told it over its link. */
static void tell_ended(struct rsi_connection *connection, const struct rsi_ended_session *ended)
{
    connection->is_of_ended = true;
    connection->ended_taken_pos = ended->taken_pos;
    rsi_connection_end(connection, ended->reason, "%s", ended->text);
}

/* It has proved that the session is its own. */
static void take_proved(struct rsi_connection *connection, struct rsi_connection *owner,
                        const Ringside__Control__Authenticate *authenticate)
{
    unsigned long long id = authenticate->session;
    if (owner->state == RSI_CONNECTION_LEAVING) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE,
                           "session %llu is just ending: dial again to hear why", id);
        return;
    }
    if (authenticate->attempt <= owner->resume.attempt) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_TIMED_OUT,
                           "try %u to resume session %llu came after try %u", authenticate->attempt,
                           id, owner->resume.attempt);
        return;
    }
    owner->resume.attempt = authenticate->attempt;
    if (connection->agent != owner->agent) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE,
                           "session %llu lives on agent %u, this link came to agent %u: dial again",
                           id, owner->agent, connection->agent);
        return;
    }
    if (!make_ready(owner)) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE,
                           "session %llu is just moving to another link: dial again", id);
        return;
    }
    owner->resume.arrived_pos = authenticate->arrived_pos;
    owner->resume.consumed_pos = authenticate->consumed_pos;
    hand_over(connection, owner);
}

void rsi_resume_take(struct rsi_connection *connection,
                     const Ringside__Control__Authenticate *authenticate)
{
    unsigned long long id = authenticate->session;
    struct rsi_control_agent *control = connection->control;
    struct rsi_connection *owner = find_session(control, id);
    const struct rsi_ended_session *ended = rsi_ended_find(&control->ended, id, rsi_clock_now_ns());
    struct claimed claimed = {0};
    if (owner != NULL) {
        claimed = claimed_of(owner);
    } else if (ended != NULL) {
        claimed =
            (struct claimed){ended->name, ended->token_name, ended->incarnation, ended->secret};
    }
    const char *fault = proof_fault(connection, claimed.secret != NULL ? &claimed : NULL,
                                    &authenticate->session_proof);
    if (fault != NULL) {
        rsi_log_distinct(RSI_LOG_WARNING, "broker", "client %s asks for a session in vain: %s",
                         connection->name, fault);
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_SESSION,
                           "session %llu is not known here: it ended a while ago, or it never was "
                           "this client's; connect anew",
                           id);
    } else if (owner != NULL) {
        take_proved(connection, owner, authenticate);
    } else {
        tell_ended(connection, ended);
    }
}

void rsi_resume_remember_end(struct rsi_connection *connection)
{
    const struct rsi_control_agent *control = connection->control;
    uint64_t kept_ns = control->settings->session_grace_ns;
    if (connection->session == NULL || !connection->is_authenticated) {
        return;
    }
    struct rsi_ended_session ended = {
        .id = connection->session->id,
        .until_ns = rsi_clock_now_ns() + (kept_ns > KEPT_NS_MIN ? kept_ns : KEPT_NS_MIN),
        .incarnation = connection->incarnation,
        .reason = connection->end_reason,
        .taken_pos = connection->session->link->consumed_pos,
    };
    rsi_text_copy(ended.name, sizeof(ended.name), connection->name);
    rsi_text_copy(ended.token_name, sizeof(ended.token_name), connection->token_name);
    rsi_text_copy(ended.text, sizeof(ended.text), connection->end_text);
    memcpy(ended.secret, connection->session_secret, sizeof(ended.secret));
    rsi_ended_add(&connection->control->ended, &ended);
    explicit_bzero(&ended, sizeof(ended));
}

void rsi_resume_supersede(struct rsi_connection *connection,
                          const Ringside__Control__Authenticate *authenticate)
{
    struct rsi_connection *owner = find_session(connection->control, authenticate->session);
    struct claimed claimed = {0};
    if (owner != NULL) {
        claimed = claimed_of(owner);
    }
    const char *fault =
        proof_fault(connection, owner != NULL ? &claimed : NULL, &authenticate->session_proof);
    if (fault != NULL) {
        rsi_log_debug("broker", "client %s begins anew, not in place of session %llu: %s",
                      connection->name, (unsigned long long)authenticate->session, fault);
        return;
    }
    rsi_connection_end(
        owner, RINGSIDE__CONTROL__REASON__REASON_GOODBYE,
        "its client begins anew: the link was lost before it took this session over");
}

/* ---- from link to link --------------------------------------------------------------------------
 */

static uint32_t post(struct rsi_connection *connection, const struct rsi_edit *edit,
                     enum rsi_resume_step step)
{
    struct rsi_resume *resume = &connection->resume;
    if (rsi_data_plane_post(connection->control->plane, edit, &resume->ticket) != RSI_OK) {
        return 0;
    }
    resume->step = step;
    return 1;
}

static uint32_t poll_fencing(struct rsi_connection *connection)
{
    const struct rsi_edit edit = {.kind = RSI_EDIT_SESSION_SUSPEND, .session = connection->session};
    bool is_closed = rsi_link_state(connection->link) == RSI_LINK_CLOSED;
    return is_closed ? post(connection, &edit, RSI_RESUME_HOLDING) : 0;
}

static uint32_t poll_holding(struct rsi_connection *connection)
{
    if (!rsi_data_plane_is_applied(connection->control->plane, connection->resume.ticket)) {
        return 0;
    }
    connection->resume.step = RSI_RESUME_HELD;
    return 1;
}

/* Both sides have told where they are: checks it, and makes this side's rings of the next link. */
static uint32_t poll_held(struct rsi_connection *connection)
{
    struct rsi_resume *resume = &connection->resume;
    struct rsi_session *session = connection->session;
    if (connection->state != RSI_CONNECTION_RESUMING ||
        rsi_link_state(resume->link) != RSI_LINK_OPEN) {
        return 0;
    }
    struct rsi_error error = {0};
    if (rsi_failed(rsi_link_resume_check(connection->link, resume->arrived_pos,
                                         resume->consumed_pos, &error))) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_SESSION, "%.400s",
                           error.text);
        return 1;
    }
    const struct rsi_link_rings rings = {
        .out_bytes = session->deliver_ring_bytes,
        .in_bytes = session->publish_ring_bytes,
        .out_start_pos = resume->arrived_pos,
        .out_consumed_pos = resume->consumed_pos,
        .in_start_pos = connection->link->arrived_pos,
        .in_consumed_pos = session->held_consumed_pos,
    };
    if (rsi_failed(resume->link->transport->link_attach(resume->link, &rings, &error))) {
        rsi_log_distinct(RSI_LOG_WARNING, "broker", "client %s cannot resume: %s", connection->name,
                         error.text);
        resume->link->transport->link_close(resume->link); /* the client tries again */
        return 1;
    }
    rsi_handshake_welcome(connection, resume->link, true);
    resume->step = RSI_RESUME_ATTACHING;
    return 1;
}

static uint32_t poll_attaching(struct rsi_connection *connection)
{
    const struct rsi_edit edit = {
        .kind = RSI_EDIT_SESSION_RESUME,
        .session = connection->session,
        .link = connection->resume.link,
    };
    bool is_attached = rsi_link_state(connection->resume.link) == RSI_LINK_ATTACHED;
    return is_attached ? post(connection, &edit, RSI_RESUME_SWAPPING) : 0;
}

/* The home agent has moved: nothing refers to the old link any more. */
static uint32_t poll_swapping(struct rsi_connection *connection, uint64_t now_ns)
{
    struct rsi_resume *resume = &connection->resume;
    if (!rsi_data_plane_is_applied(connection->control->plane, resume->ticket)) {
        return 0;
    }
    char who[192];
    connection->link->transport->link_destroy(connection->link);
    connection->link = resume->link;
    connection->domain = resume->domain;
    connection->receiver.byte_count = 0; /* what came of a message over the old link */
    connection->control->counts.sessions_resumed++;
    rsi_log_info("broker", "%s: resumed session %llu after %.3f s, at %s",
                 rsi_connection_describe(connection, who, sizeof(who)),
                 (unsigned long long)connection->session->id,
                 seconds_since(resume->since_ns, now_ns), connection->link->local_text);
    resume->link = NULL;
    resume->since_ns = 0;
    rsi_metrics_tell_link(&connection->metrics, connection->link, connection->agent);
    rsi_connection_set_state(connection, RSI_CONNECTION_SERVING, UINT64_MAX);
    return 1;
}

static uint32_t poll_step(struct rsi_connection *connection, uint64_t now_ns)
{
    switch (connection->resume.step) {
    case RSI_RESUME_FENCING:
        return poll_fencing(connection);
    case RSI_RESUME_HOLDING:
        return poll_holding(connection);
    case RSI_RESUME_HELD:
        return poll_held(connection);
    case RSI_RESUME_ATTACHING:
        return poll_attaching(connection);
    case RSI_RESUME_SWAPPING:
        return poll_swapping(connection, now_ns);
    }
    return 0;
}

/* The next link failed or is late: the session waits on, with a new grace. */
static uint32_t drop_next(struct rsi_connection *connection, uint64_t now_ns)
{
    struct rsi_resume *resume = &connection->resume;
    struct rsi_link *link = resume->link;
    enum rsi_link_state state = rsi_link_state(link);
    if (state == RSI_LINK_CLOSED) {
        link->transport->link_destroy(link);
        resume->link = NULL;
        return 1;
    }
    bool is_late =
        connection->state == RSI_CONNECTION_RESUMING && now_ns >= connection->deadline_ns;
    if (state < RSI_LINK_LOST && !is_late) {
        return 0;
    }
    if (connection->state == RSI_CONNECTION_RESUMING) {
        char who[192];
        rsi_log_info("broker", "%s: its next link (%s, %s) failed: %s",
                     rsi_connection_describe(connection, who, sizeof(who)), link->transport->name,
                     link->peer_text, is_late ? "not ready in time" : link->error.text);
        if (resume->step == RSI_RESUME_ATTACHING) {
            resume->step = RSI_RESUME_HELD;
        }
        rsi_connection_set_state(connection, RSI_CONNECTION_SUSPENDED,
                                 now_ns + connection->control->settings->session_grace_ns);
    }
    link->transport->link_close(link);
    return state == RSI_LINK_LOST;
}

static void end_when_over(struct rsi_connection *connection, uint64_t now_ns)
{
    const struct rsi_link *next = connection->resume.link;
    if (connection->link->peer_has_ended || (next != NULL && next->peer_has_ended)) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_NONE,
                           "lost: its process has ended");
    } else if (now_ns >= connection->deadline_ns) {
        rsi_connection_end(connection, RINGSIDE__CONTROL__REASON__REASON_NONE,
                           "lost: it did not come back within %.1f s (session_grace): %.300s",
                           (double)connection->control->settings->session_grace_ns /
                               (double)SECOND_NS,
                           connection->link->error.text);
    }
}

uint32_t rsi_resume_poll(struct rsi_connection *connection, uint64_t now_ns)
{
    if (connection->state > RSI_CONNECTION_RESUMING) {
        return 0; /* it was at fault */
    }
    uint32_t step_count = poll_step(connection, now_ns);
    if (connection->state > RSI_CONNECTION_RESUMING ||
        connection->state == RSI_CONNECTION_SERVING) {
        return step_count;
    }
    if (connection->resume.link != NULL && connection->resume.step != RSI_RESUME_SWAPPING) {
        step_count += drop_next(connection, now_ns);
    }
    if (connection->state == RSI_CONNECTION_SUSPENDED) {
        end_when_over(connection, now_ns);
    }
    return step_count;
}

/* ---- what was left ------------------------------------------------------------------------------
 */

/* Messages in a dead link's out ring from `position` on. The ring may be a client's to write: what
 * makes no sense ends the count. */
static uint64_t count_messages(const struct rsi_link *link, uint64_t position)
{
    uint64_t count = 0;
    while (position < link->staged_pos) {
        const struct rsi_frame_header *header = (const void *)rsi_ring_at(&link->out, position);
        uint64_t word = position == link->placed_pos ? link->head_word : header->commit;
        uint64_t frame_bytes = rsi_commit_frame_bytes(word, position);
        if (frame_bytes < RSI_FRAME_HEADER_BYTES || frame_bytes > link->staged_pos - position) {
            break;
        }
        count += header->type == RSI_FRAME_MESSAGE;
        position += frame_bytes;
    }
    return count;
}

/* What was sent may have arrived, without word of it: only what never left is lost for certain. */
void rsi_resume_log_undelivered(struct rsi_connection *connection)
{
    const struct rsi_session *session = connection->session;
    if (connection->resume.since_ns == 0) {
        return;
    }
    uint64_t doubtful_count = count_messages(session->link, session->link->peer_consumed_pos);
    uint64_t unsent_count = count_messages(session->link, session->link->placed_pos);
    uint64_t lag_bytes = rsi_load_relaxed(&session->counts.lag_bytes);
    if (doubtful_count == 0 && lag_bytes == 0) {
        return;
    }
    char who[192];
    rsi_log_warning("broker",
                    "%s: was away for %.1f s and does not get %llu messages and %llu bytes behind "
                    "them; %llu messages more were sent, and it has not said that it read them",
                    rsi_connection_describe(connection, who, sizeof(who)),
                    seconds_since(connection->resume.since_ns, rsi_clock_now_ns()),
                    (unsigned long long)unsent_count, (unsigned long long)lag_bytes,
                    (unsigned long long)(doubtful_count - unsent_count));
    bool is_cut_off = unsent_count > 0 || lag_bytes > 0;
    if (is_cut_off && connection->control->phase != RSI_CONTROL_RUNNING) {
        connection->control->cut_off_count++;
    }
}
