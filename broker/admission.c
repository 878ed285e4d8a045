/*
 * Design notes
 * - Memory that a peer can write is never a source of fan-out: rsi_frame_read copies the header
 * once and checks it, the payload is copied into the log, and only the log is read from there on. A
 * peer that rewrites its frame meanwhile changes what it publishes, nothing else.
 * - A publication is found by the session's alias table, which only the control agent's edits fill:
 *   the right to publish on a topic was checked once, at open.
 * - The log's window ends at the lowest position that any agent still needs. When it is used up, or
 *   when a subscriber blocks, nothing is taken: the ingress ring fills, and the publisher is pushed
 *   back by its own ring's credit.
 * - Each session gets a bounded share of a pass, and the first turn rotates.
 */
#include "broker/agent_internal.h"

#include <string.h>

/* Where the ingress bytes end that may be admitted. */
static uint64_t admit_end_pos(const struct rsi_agent *agent, const struct rsi_session *session)
{
    uint64_t end_pos = session->link->arrived_pos;
    if (agent->is_stopping && session->data.stop_pos < end_pos) {
        end_pos = session->data.stop_pos;
    }
    return end_pos;
}

uint64_t rsi_agent_lowest_needed_pos(const struct rsi_agent *agent)
{
    uint64_t lowest_pos = UINT64_MAX;
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        uint64_t needed_pos = rsi_load_acquire(&agent->plane->agents[i]->needed_pos[agent->index]);
        if (needed_pos < lowest_pos) {
            lowest_pos = needed_pos;
        }
    }
    return lowest_pos;
}

/* What the publisher got wrong in a frame that is well formed, or NULL. */
static const char *frame_fault(const struct rsi_session *session, const struct rsi_frame *frame)
{
    if (frame->header.type != RSI_FRAME_MESSAGE) {
        return "a frame of a type that only the broker sends";
    }
    /* Both parts: what is larger might fit no deliver ring, nor the log. */
    if ((uint64_t)frame->header.headers_bytes + frame->header.payload_bytes >
        session->message_bytes_max) {
        return "a message larger than was agreed";
    }
    if (frame->header.publication == 0 ||
        frame->header.publication > session->data.alias_count_max) {
        return "an alias out of bounds";
    }
    if (!session->data.aliases[frame->header.publication]) {
        return "an alias that is not open";
    }
    return NULL;
}

/* Copies one checked frame into the log. False: the window is used up, nothing was taken. */
static bool admit_frame(struct rsi_agent *agent, struct rsi_session *session,
                        const struct rsi_frame *frame, uint64_t needed_pos)
{
    struct rsi_publication *publication = session->data.aliases[frame->header.publication];
    uint64_t body_bytes = (uint64_t)frame->header.headers_bytes + frame->header.payload_bytes;
    uint64_t frame_bytes =
        rsi_frame_bytes(frame->header.headers_bytes, frame->header.payload_bytes);
    struct rsi_frame_header *header = rsi_message_log_reserve(&agent->log, frame_bytes, needed_pos);
    if (!header) {
        return false;
    }
    header->payload_bytes = frame->header.payload_bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->flags = 0;
    header->headers_bytes = frame->header.headers_bytes;
    header->publication = publication->id;
    header->generation = 0;
    header->member = 0;
    header->sequence = publication->next_sequence++;
    header->publish_time_ns = frame->header.publish_time_ns;
    memcpy(header + 1, frame->headers, body_bytes);
    rsi_message_log_append(&agent->log, frame_bytes);
    return true;
}

static uint64_t admit_session(struct rsi_agent *agent, struct rsi_session *session,
                              uint64_t needed_pos, bool *is_full)
{
    struct rsi_link *link = session->link;
    uint64_t end_pos = admit_end_pos(agent, session);
    uint64_t position = link->consumed_pos;
    uint64_t limit_pos = position + RSI_ADMIT_BYTES_PER_PASS;
    uint64_t message_count = 0;
    uint64_t payload_bytes = 0;
    while (position < end_pos && position < limit_pos) {
        struct rsi_frame frame;
        const char *why = NULL;
        if (rsi_frame_read(&link->in, position, end_pos, &frame, &why) != RSI_OK ||
            (why = frame_fault(session, &frame)) != NULL) {
            rsi_agent_fault(agent, session, RSI_E_PROTOCOL,
                            "client %s published %s at position %llu of its ring", session->name,
                            why, (unsigned long long)position);
            break;
        }
        if (!admit_frame(agent, session, &frame, needed_pos)) {
            *is_full = true;
            break;
        }
        position += frame.frame_bytes;
        payload_bytes += frame.header.payload_bytes;
        message_count++;
    }
    if (message_count > 0) {
        rsi_link_consume(link, position - link->consumed_pos);
        rsi_bump_relaxed(&session->counts.admitted_messages, message_count);
        rsi_bump_relaxed(&session->counts.admitted_bytes, payload_bytes);
    }
    return message_count;
}

static bool has_input(const struct rsi_agent *agent)
{
    for (uint32_t i = 0; i < agent->session_count; i++) {
        const struct rsi_session *session = agent->sessions[i];
        if (!session->data.is_failed &&
            admit_end_pos(agent, session) > session->link->consumed_pos) {
            return true;
        }
    }
    return false;
}

uint64_t rsi_agent_admit(struct rsi_agent *agent)
{
    agent->has_stalled_input = false;
    rsi_store_relaxed(&agent->wants_room, 0u);
    if (rsi_load_acquire(&agent->plane->blocked_count) > 0) {
        agent->has_stalled_input = has_input(agent);
        if (agent->has_stalled_input) {
            rsi_bump_relaxed(&agent->counts.blocked_passes, 1);
        }
        return 0;
    }
    uint64_t needed_pos = rsi_agent_lowest_needed_pos(agent);
    uint64_t message_count = 0;
    bool is_full = false;
    for (uint32_t i = 0; i < agent->session_count && !is_full; i++) {
        uint32_t at = (agent->admit_from + i) % agent->session_count;
        struct rsi_session *session = agent->sessions[at];
        if (session->data.is_failed || session->link->arrived_pos == session->link->consumed_pos) {
            continue;
        }
        message_count += admit_session(agent, session, needed_pos, &is_full);
    }
    agent->admit_from++;
    if (message_count > 0) {
        rsi_message_log_publish(&agent->log);
        rsi_store_relaxed(&agent->counts.log_pos, agent->log.append_pos);
        rsi_bump_relaxed(&agent->counts.admitted_messages, message_count);
        rsi_agent_wake_others(agent);
    }
    if (is_full) {
        agent->has_stalled_input = true;
        agent->admit_needed_pos = needed_pos;
        rsi_store_relaxed(&agent->wants_room, 1u);
    }
    return message_count;
}

static void close_publication(struct rsi_agent *agent, struct rsi_session *session,
                              struct rsi_publication *publication)
{
    session->data.aliases[publication->alias] = NULL;
    if (publication->is_closing) {
        publication->is_closing = false;
        session->data.closing_count--;
        agent->closing_count--;
    }
    publication->closed_log_pos = agent->log.append_pos;
    rsi_store_release(&publication->closed, 1u);
}

void rsi_agent_finish_closing(struct rsi_agent *agent)
{
    bool has_closed = false;
    for (uint32_t i = 0; i < agent->session_count && agent->closing_count > 0; i++) {
        struct rsi_session *session = agent->sessions[i];
        for (uint32_t alias = 1;
             alias <= session->data.alias_count_max && session->data.closing_count > 0; alias++) {
            struct rsi_publication *publication = session->data.aliases[alias];
            if (publication && publication->is_closing &&
                (session->link->consumed_pos >= publication->close_pos ||
                 session->data.is_failed)) {
                close_publication(agent, session, publication);
                has_closed = true;
            }
        }
    }
    if (has_closed) {
        rsi_waker_wake(agent->plane->options.control_waker);
    }
}

/* Nothing of the session can be admitted any more: closes its publications and forgets it. */
static void let_go(struct rsi_agent *agent, struct rsi_session *session)
{
    for (uint32_t alias = 1; alias <= session->data.alias_count_max; alias++) {
        if (session->data.aliases[alias]) {
            close_publication(agent, session, session->data.aliases[alias]);
        }
    }
    struct rsi_session *last = agent->sessions[--agent->session_count];
    agent->sessions[session->data.slot] = last;
    last->data.slot = session->data.slot;
    agent->leaving_count--;
    rsi_store_release(&session->left, 1u);
    rsi_waker_wake(agent->plane->options.control_waker);
}

/* All that arrived was admitted, and no more is to arrive. */
static bool has_left(const struct rsi_agent *agent, const struct rsi_session *session)
{
    const struct rsi_link *link = session->link;
    if (session->data.is_failed) {
        return true;
    }
    if (link->consumed_pos != admit_end_pos(agent, session)) {
        return false;
    }
    return link->consumed_pos >= session->data.leave_pos || agent->is_stopping ||
           rsi_link_state(link) != RSI_LINK_ATTACHED;
}

void rsi_agent_finish_leaving(struct rsi_agent *agent)
{
    rsi_assert(agent->dirty_count == 0);
    for (uint32_t i = agent->session_count; i-- > 0 && agent->leaving_count > 0;) {
        struct rsi_session *session = agent->sessions[i];
        if (session->data.is_leaving && has_left(agent, session)) {
            let_go(agent, session);
        }
    }
}
