/*
 * Design notes
 * - Memory that a peer can write is never a source of fan-out: rsi_frame_read copies the header
 * once and checks it, the payload is copied into the log, and only the log is read from there on. A
 * peer that rewrites its frame meanwhile changes what it publishes, nothing else.
 * - A publication is found by the session's alias table, which only the control agent's edits fill:
 *   the right to publish on a topic was checked once, at open.
 * - The log's window ends at the lowest position that any agent still needs. When it is used up
 *   nothing is taken: the ingress ring fills, and the publisher is pushed back by its own ring's
 *   credit. So is one whose next frame a subscriber under policy block needs and has no room for;
 *   the others go on (blocking.h).
 * - A session whose delivery is at fault, a slow one above all, is still a publisher: what had
 *   arrived when it was told to leave is admitted. Only one that broke the protocol is not read on.
 * - Each session gets a bounded share of a pass, and the first turn rotates.
 */
#include "broker/agent_internal.h"

#include "proto/headers.h"

#include <string.h>

static uint64_t lower(uint64_t a_pos, uint64_t b_pos)
{
    return a_pos < b_pos ? a_pos : b_pos;
}

/* Where the ingress bytes end that may be admitted. */
static uint64_t admit_end_pos(const struct rsi_session *session)
{
    return lower(session->link->arrived_pos, session->data.stop_pos);
}

uint64_t rsi_agent_admit_limit_pos(const struct rsi_agent *agent)
{
    uint64_t needed_pos = UINT64_MAX;
    uint64_t walked_pos = UINT64_MAX;
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        const struct rsi_agent *other = agent->plane->agents[i];
        needed_pos = lower(needed_pos, rsi_load_acquire(&other->needed_pos[agent->index]));
        walked_pos = lower(walked_pos, rsi_load_acquire(&other->walked_pos[agent->index]));
    }
    uint64_t limit_pos = needed_pos + agent->log.ring.capacity_bytes;
    if (agent->block_session_count > 0) {
        limit_pos = lower(limit_pos, walked_pos + agent->plane->ahead_bytes);
    }
    return limit_pos;
}

/* What the publisher got wrong in a frame that is well formed, or NULL. */
static const char *frame_fault(const struct rsi_session *session, const struct rsi_frame *frame)
{
    uint8_t type = frame->header.type;
    if (type != RSI_FRAME_MESSAGE && type != RSI_FRAME_REQUEST && type != RSI_FRAME_REPLY) {
        return "a frame of a type that only the broker sends";
    }
    if (frame->header.entry_count != (type != RSI_FRAME_MESSAGE)) {
        return "a message that says itself who is to get it, or a request or reply without its "
               "entry";
    }
    /* Both parts: what is larger might fit no deliver ring, nor the log. */
    if ((uint64_t)frame->header.headers_bytes + frame->header.payload_bytes >
        session->message_bytes_max) {
        return "a message larger than was agreed";
    }
    if (rsi_unlikely(type == RSI_FRAME_REPLY)) {
        return frame->header.publication == 0 ? NULL : "a reply on a publication";
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

/* The members that get the frame; they are not chosen before there is room for all of it. */
static RSI_NOINLINE uint32_t choose(struct rsi_agent *agent, const struct rsi_session *session,
                                    const struct rsi_publication *publication, uint64_t frame_bytes,
                                    uint64_t limit_pos)
{
    const struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, publication->topic);
    if (topic->member_count == 0) {
        return 0;
    }
    uint64_t most_bytes = frame_bytes + topic->member_count * (uint64_t)RSI_FRAME_ENTRY_BYTES;
    if (agent->log.append_pos + most_bytes > limit_pos) {
        return topic->member_count;
    }
    return rsi_agent_choose(agent, topic, session, rsi_blocking_place_ns(agent, session));
}

/*
 * Copies one checked frame into the log. False: nothing was taken; it would end beyond the limit,
 * or, with *why set, its headers are malformed. They are looked at in the log alone: the ring's may
 * change, and a subscriber must get none that was not checked.
 */
static bool admit_frame(struct rsi_agent *agent, struct rsi_session *session,
                        const struct rsi_frame *frame, uint64_t limit_pos, const char **why)
{
    struct rsi_publication *publication = session->data.aliases[frame->header.publication];
    uint64_t body_bytes = (uint64_t)frame->header.headers_bytes + frame->header.payload_bytes;
    uint64_t frame_bytes =
        rsi_frame_bytes(frame->header.headers_bytes, frame->header.payload_bytes);
    uint32_t entry_count = 0;
    bool is_request = frame->header.type == RSI_FRAME_REQUEST;
    if (rsi_unlikely(agent->groups.member_count > 0)) {
        entry_count = choose(agent, session, publication, frame_bytes, limit_pos);
    }
    uint64_t body_end = frame_bytes;
    frame_bytes += is_request ? RSI_FRAME_ENTRY_BYTES : 0;
    frame_bytes += entry_count * (uint64_t)RSI_FRAME_ENTRY_BYTES;
    struct rsi_frame_header *header = rsi_message_log_reserve(&agent->log, frame_bytes, limit_pos);
    if (!header) {
        return false;
    }
    memcpy(header + 1, frame->headers, body_bytes);
    if (rsi_unlikely(frame->header.headers_bytes > 0)) {
        *why = rsi_headers_check((const uint8_t *)(header + 1), frame->header.headers_bytes, NULL);
        if (*why != NULL) {
            return false;
        }
    }
    header->payload_bytes = frame->header.payload_bytes;
    header->type = frame->header.type;
    header->flags = 0;
    header->headers_bytes = frame->header.headers_bytes;
    header->publication = publication->id;
    header->generation = 0;
    header->entry_count = (uint16_t)entry_count;
    if (rsi_unlikely(is_request)) {
        const struct rsi_frame_entry requester = {.session = session->id,
                                                  .number = rsi_frame_entry_at(frame, 0).number};
        uint32_t responder_count =
            entry_count + rsi_agent_count_followers(agent, session, publication);
        if (responder_count == 0) { /* there was room for more than that */
            return rsi_agent_answer(agent, &requester, RSI_REPLY_NO_RESPONDERS, limit_pos);
        }
        header->flags = responder_count == 1 ? RSI_FRAME_FLAG_SOLE : 0;
        header->entry_count++;
        memcpy((uint8_t *)header + body_end, &requester, sizeof(requester));
        body_end += sizeof(requester);
        rsi_bump_relaxed(&agent->counts.requests, 1);
    }
    header->sequence = publication->next_sequence++;
    header->publish_time_ns = frame->header.publish_time_ns;
    if (rsi_unlikely(entry_count > 0)) {
        memcpy((uint8_t *)header + body_end, agent->groups.entries,
               entry_count * (size_t)RSI_FRAME_ENTRY_BYTES);
    }
    rsi_message_log_append(&agent->log, frame_bytes);
    return true;
}

static RSI_COLD void end_publisher(struct rsi_agent *agent, struct rsi_session *session,
                                   const char *why, uint64_t position)
{
    rsi_agent_fault(agent, session, RSI_E_PROTOCOL,
                    "client %s published %s at position %llu of its ring", session->name, why,
                    (unsigned long long)position);
}

/* What the agent found when it began to admit. */
struct round {
    uint64_t limit_pos;
    bool is_contended; /* some session under policy block holds publishers back */
    bool is_full;      /* the limit was reached */
};

static uint64_t admit_session(struct rsi_agent *agent, struct rsi_session *session,
                              struct round *round)
{
    struct rsi_link *link = session->link;
    uint64_t end_pos = admit_end_pos(session);
    uint64_t position = link->consumed_pos;
    uint64_t limit_pos = position + RSI_ADMIT_BYTES_PER_PASS;
    uint64_t message_count = 0;
    uint64_t payload_bytes = 0;
    while (position < end_pos && position < limit_pos) {
        struct rsi_frame frame;
        const char *why = NULL;
        if (rsi_frame_read(&link->in, position, end_pos, &frame, &why) != RSI_OK ||
            (why = frame_fault(session, &frame)) != NULL) {
            end_publisher(agent, session, why, position);
            break;
        }
        if (rsi_unlikely(round->is_contended) && frame.header.type != RSI_FRAME_REPLY &&
            !rsi_blocking_admits(agent, session, session->data.aliases[frame.header.publication])) {
            break;
        }
        if (rsi_unlikely(frame.header.type == RSI_FRAME_REPLY)
                ? !rsi_agent_admit_reply(agent, session, &frame, round->limit_pos, &why)
                : !admit_frame(agent, session, &frame, round->limit_pos, &why)) {
            round->is_full = why == NULL;
            if (rsi_unlikely(why != NULL)) {
                end_publisher(agent, session, why, position);
            }
            break;
        }
        position += frame.frame_bytes;
        payload_bytes += frame.header.payload_bytes;
        message_count++;
        if (rsi_unlikely(round->is_contended) &&
            rsi_blocking_ends_turn(agent, session, frame.frame_bytes)) {
            break;
        }
    }
    if (rsi_unlikely(session->data.stall.by != NULL) && position == end_pos) {
        rsi_blocking_step_aside(agent, session);
    }
    if (message_count > 0) {
        rsi_link_consume(link, position - link->consumed_pos);
        rsi_bump_relaxed(&session->counts.admitted_messages, message_count);
        rsi_bump_relaxed(&session->counts.admitted_bytes, payload_bytes);
    }
    return message_count;
}

/* What the publisher waited for is over, or it has nothing to publish any more. */
static RSI_NOINLINE void check_stall(struct rsi_agent *agent, struct rsi_session *session)
{
    const struct rsi_session *by = session->data.stall.by;
    if (rsi_load_acquire(&by->blocking->state) == RSI_BLOCKING_OPEN ||
        admit_end_pos(session) == session->link->consumed_pos) {
        rsi_blocking_step_aside(agent, session);
    }
}

uint64_t rsi_agent_admit(struct rsi_agent *agent)
{
    rsi_store_relaxed(&agent->wants_room, 0u);
    /* The limit first: what the table does not show yet is bounded by it (blocking.h). */
    struct round round = {.limit_pos = rsi_agent_admit_limit_pos(agent)};
    round.is_contended = rsi_load_acquire(&agent->plane->contended_count) != 0;
    uint64_t message_count = 0;
    uint64_t answer_count = 0;
    if (rsi_unlikely(agent->lost_count > 0)) {
        round.is_full = !rsi_agent_answer_lost(agent, round.limit_pos, &answer_count);
    }
    for (uint32_t i = 0; i < agent->session_count && !round.is_full; i++) {
        uint32_t at = (agent->admit_from + i) % agent->session_count;
        struct rsi_session *session = agent->sessions[at];
        if (rsi_unlikely(session->data.stall.by != NULL)) {
            check_stall(agent, session);
        }
        if (session->data.is_distrusted ||
            session->link->arrived_pos == session->link->consumed_pos) {
            continue;
        }
        message_count += admit_session(agent, session, &round);
    }
    agent->admit_from++;
    /* Also what the walk answered since. */
    if (agent->log.append_pos != rsi_load_relaxed(&agent->log.end_pos)) {
        rsi_message_log_publish(&agent->log);
        rsi_store_relaxed(&agent->counts.log_pos, agent->log.append_pos);
        rsi_bump_relaxed(&agent->counts.admitted_messages, message_count);
        rsi_agent_wake_others(agent);
    }
    if (agent->waiting_count > 0) {
        rsi_bump_relaxed(&agent->counts.blocked_passes, 1);
    }
    if (round.is_full) {
        agent->admit_limit_pos = round.limit_pos;
        rsi_store_relaxed(&agent->wants_room, 1u);
    }
    return message_count + answer_count;
}

static void close_publication(struct rsi_agent *agent, struct rsi_session *session,
                              struct rsi_publication *publication)
{
    session->data.aliases[publication->alias] = NULL;
    if (session->data.stall.by && session->data.stall.publication == publication->id) {
        rsi_blocking_step_aside(agent, session); /* named to others as what waits: no more */
    }
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
                 session->data.is_distrusted)) {
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
    rsi_blocking_step_aside(agent, session);
    for (uint32_t alias = 1; alias <= session->data.alias_count_max; alias++) {
        if (session->data.aliases[alias]) {
            close_publication(agent, session, session->data.aliases[alias]);
        }
    }
    struct rsi_session *last = agent->sessions[--agent->session_count];
    agent->sessions[session->data.slot] = last;
    last->data.slot = session->data.slot;
    agent->leaving_count--;
    agent->lost_count -= session->outstanding ? session->outstanding->lost_count : 0;
    rsi_sessions_by_id_remove(agent, session);
    rsi_store_release(&session->left, 1u);
    rsi_waker_wake(agent->plane->options.control_waker);
}

/* All that arrived was admitted, and no more is to arrive. */
static bool has_left(const struct rsi_agent *agent, const struct rsi_session *session)
{
    const struct rsi_link *link = session->link;
    if (session->outstanding && session->outstanding->lost_count > 0 && !agent->is_stopping) {
        return false; /* those who asked it are to be told first */
    }
    if (session->data.is_distrusted) {
        return true;
    }
    if (link->consumed_pos != admit_end_pos(session)) {
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
