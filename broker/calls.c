/*
 * Design notes: calls.h. The notes of a session are a ring, in the order in which requests came,
 * and a hash of open addressing beside it, at most half full; what is taken out closes up the run
 * behind it, so a search ends at the first free slot.
 */
#include "broker/calls.h"

#include "broker/agent_internal.h"
#include "proto/headers.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_COUNT (2 * RSI_OUTSTANDING_MAX)
rsi_static_assert((SLOT_COUNT & (SLOT_COUNT - 1)) == 0);

/* ---- notes --------------------------------------------------------------------------------------
 */

static uint32_t home_slot(const struct rsi_frame_entry *requester)
{
    uint64_t mixed = (requester->session ^ requester->number << 20) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(mixed >> 40) & (SLOT_COUNT - 1);
}

/* Where the note of this request is entered, or the free slot that ends the search. */
static uint32_t find_slot(const struct rsi_outstanding *outstanding,
                          const struct rsi_frame_entry *requester)
{
    uint32_t slot = home_slot(requester);
    for (; outstanding->slots[slot] != 0; slot = (slot + 1) & (SLOT_COUNT - 1)) {
        const struct rsi_call *call = &outstanding->calls[outstanding->slots[slot] - 1];
        if (call->requester.session == requester->session &&
            call->requester.number == requester->number) {
            break;
        }
    }
    return slot;
}

static void close_up(struct rsi_outstanding *outstanding, uint32_t hole)
{
    uint32_t slot = (hole + 1) & (SLOT_COUNT - 1);
    for (; outstanding->slots[slot] != 0; slot = (slot + 1) & (SLOT_COUNT - 1)) {
        uint32_t home = home_slot(&outstanding->calls[outstanding->slots[slot] - 1].requester);
        bool may_move = ((slot - home) & (SLOT_COUNT - 1)) >= ((slot - hole) & (SLOT_COUNT - 1));
        if (may_move) {
            outstanding->slots[hole] = outstanding->slots[slot];
            hole = slot;
        }
    }
    outstanding->slots[hole] = 0;
}

struct rsi_call *rsi_outstanding_find(struct rsi_outstanding *outstanding,
                                      const struct rsi_frame_entry *requester)
{
    uint32_t entry = outstanding->slots[find_slot(outstanding, requester)];
    return entry == 0 ? NULL : &outstanding->calls[entry - 1];
}

void rsi_outstanding_remove(struct rsi_outstanding *outstanding, struct rsi_call *call)
{
    close_up(outstanding, find_slot(outstanding, &call->requester));
    outstanding->lost_count -= call->is_lost;
    outstanding->count--;
    call->is_used = false;
    call->is_lost = false;
}

bool rsi_outstanding_add(struct rsi_outstanding *outstanding, const struct rsi_call *call,
                         struct rsi_call *evicted)
{
    if (rsi_outstanding_find(outstanding, &call->requester)) {
        return false;
    }
    struct rsi_call *note = &outstanding->calls[outstanding->next];
    bool is_evicted = note->is_used;
    if (is_evicted) {
        *evicted = *note;
        rsi_outstanding_remove(outstanding, note);
    }
    *note = *call;
    note->is_used = true;
    outstanding->slots[find_slot(outstanding, &call->requester)] = outstanding->next + 1;
    outstanding->next = (outstanding->next + 1) & (RSI_OUTSTANDING_MAX - 1);
    outstanding->count++;
    return is_evicted;
}

rsi_status_t rsi_session_allow_replies(struct rsi_session *session, struct rsi_error *error)
{
    if (session->outstanding) {
        return RSI_OK;
    }
    session->outstanding = calloc(1, sizeof(*session->outstanding));
    if (!session->outstanding) {
        return rsi_fail(error, RSI_E_NO_MEMORY,
                        "the broker has no memory for the requests of a subscriber");
    }
    return RSI_OK;
}

/* ---- sessions by id -----------------------------------------------------------------------------
 */

static uint32_t id_slot(const struct rsi_agent *agent, uint64_t id)
{
    return (uint32_t)(id * 0x9e3779b97f4a7c15u >> 40) & (agent->by_id_count - 1);
}

rsi_status_t rsi_sessions_by_id_init(struct rsi_agent *agent, struct rsi_error *error)
{
    agent->by_id_count = 2;
    while (agent->by_id_count < 2 * agent->plane->options.session_count_max) {
        agent->by_id_count *= 2;
    }
    agent->by_id = calloc(agent->by_id_count, sizeof(struct rsi_session *));
    if (!agent->by_id) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for %u sessions; lower client_count_max",
                        agent->plane->options.session_count_max);
    }
    return RSI_OK;
}

static uint32_t find_id(const struct rsi_agent *agent, uint64_t id)
{
    uint32_t slot = id_slot(agent, id);
    while (agent->by_id[slot] && agent->by_id[slot]->id != id) {
        slot = (slot + 1) & (agent->by_id_count - 1);
    }
    return slot;
}

void rsi_sessions_by_id_add(struct rsi_agent *agent, struct rsi_session *session)
{
    agent->by_id[find_id(agent, session->id)] = session;
}

void rsi_sessions_by_id_remove(struct rsi_agent *agent, const struct rsi_session *session)
{
    uint32_t mask = agent->by_id_count - 1;
    uint32_t hole = find_id(agent, session->id);
    for (uint32_t slot = (hole + 1) & mask; agent->by_id[slot]; slot = (slot + 1) & mask) {
        uint32_t home = id_slot(agent, agent->by_id[slot]->id);
        if (((slot - home) & mask) >= ((slot - hole) & mask)) {
            agent->by_id[hole] = agent->by_id[slot];
            hole = slot;
        }
    }
    agent->by_id[hole] = NULL;
}

struct rsi_session *rsi_sessions_by_id_find(const struct rsi_agent *agent, uint64_t id)
{
    return agent->by_id[find_id(agent, id)];
}

/* ---- admission ----------------------------------------------------------------------------------
 */

static void fill_reply(struct rsi_frame_header *header, const struct rsi_frame_entry *requester,
                       enum rsi_reply_status status)
{
    header->type = RSI_FRAME_REPLY;
    header->flags = 0;
    header->publication = 0;
    header->generation = 0;
    header->entry_count = 1;
    header->sequence = status;
    memcpy((uint8_t *)header + rsi_frame_entries_at(header), requester, sizeof(*requester));
}

bool rsi_agent_answer(struct rsi_agent *agent, const struct rsi_frame_entry *requester,
                      enum rsi_reply_status status, uint64_t limit_pos)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, 0) + RSI_FRAME_ENTRY_BYTES;
    struct rsi_frame_header *header = rsi_message_log_reserve(&agent->log, frame_bytes, limit_pos);
    if (!header) {
        return false;
    }
    header->payload_bytes = 0;
    header->headers_bytes = 0;
    header->publish_time_ns = 0;
    fill_reply(header, requester, status);
    rsi_message_log_append(&agent->log, frame_bytes);
    rsi_bump_relaxed(
        status == RSI_REPLY_LOST ? &agent->counts.lost_requests : &agent->counts.no_responders, 1);
    return true;
}

uint32_t rsi_agent_count_followers(const struct rsi_agent *agent,
                                   const struct rsi_session *publisher,
                                   const struct rsi_publication *publication)
{
    uint32_t slot = publication->topic & (agent->topics.topic_count_max - 1);
    uint32_t count = rsi_load_acquire(&agent->plane->follower_counts[slot]);
    const struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, publication->topic);
    const struct rsi_match *own = rsi_topic_match_of(topic, publisher, slot);
    bool is_deaf = own && own->subscription_count > own->member_count &&
                   !rsi_match_follows(own, publication); /* it follows, but not itself */
    return count - (is_deaf && count > 0);
}

bool rsi_agent_admit_reply(struct rsi_agent *agent, struct rsi_session *session,
                           const struct rsi_frame *frame, uint64_t limit_pos, const char **why)
{
    const struct rsi_frame_entry requester = rsi_frame_entry_at(frame, 0);
    struct rsi_call *call =
        session->outstanding ? rsi_outstanding_find(session->outstanding, &requester) : NULL;
    if (!call || call->is_lost) {
        rsi_bump_relaxed(&agent->counts.refused_replies, 1);
        return true;
    }
    uint64_t body_bytes = (uint64_t)frame->header.headers_bytes + frame->header.payload_bytes;
    struct rsi_frame_header *header =
        rsi_message_log_reserve(&agent->log, frame->frame_bytes, limit_pos);
    if (!header) {
        return false;
    }
    memcpy(header + 1, frame->headers, body_bytes);
    if (frame->header.headers_bytes > 0) {
        *why = rsi_headers_check((const uint8_t *)(header + 1), frame->header.headers_bytes, NULL);
        if (*why) {
            return false;
        }
    }
    header->payload_bytes = frame->header.payload_bytes;
    header->headers_bytes = frame->header.headers_bytes;
    header->publish_time_ns = frame->header.publish_time_ns;
    fill_reply(header, &requester, RSI_REPLY_OK);
    rsi_message_log_append(&agent->log, frame->frame_bytes);
    rsi_outstanding_remove(session->outstanding, call);
    rsi_bump_relaxed(&agent->counts.replies, 1);
    return true;
}

/* ---- what is lost -------------------------------------------------------------------------------
 */

static void set_lost(struct rsi_agent *agent, struct rsi_session *session, struct rsi_call *call)
{
    if (!call->is_sole) {
        rsi_outstanding_remove(session->outstanding, call);
    } else if (!call->is_lost) {
        call->is_lost = true;
        session->outstanding->lost_count++;
        agent->lost_count++;
    }
}

void rsi_agent_lose_call(struct rsi_agent *agent, struct rsi_session *session,
                         const struct rsi_frame_header *header)
{
    const struct rsi_frame_entry requester = rsi_call_requester(header);
    struct rsi_call *call = rsi_outstanding_find(session->outstanding, &requester);
    if (call) {
        set_lost(agent, session, call);
    }
}

void rsi_agent_lose_calls(struct rsi_agent *agent, struct rsi_session *session)
{
    for (uint32_t i = 0; session->outstanding && i < RSI_OUTSTANDING_MAX; i++) {
        struct rsi_call *call = &session->outstanding->calls[i];
        if (call->is_used) {
            set_lost(agent, session, call);
        }
    }
}

bool rsi_agent_answer_lost(struct rsi_agent *agent, uint64_t limit_pos, uint64_t *answer_count)
{
    for (uint32_t at = 0; at < agent->session_count && agent->lost_count > 0; at++) {
        struct rsi_outstanding *outstanding = agent->sessions[at]->outstanding;
        for (uint32_t i = 0; outstanding && i < RSI_OUTSTANDING_MAX && outstanding->lost_count > 0;
             i++) {
            struct rsi_call *call = &outstanding->calls[i];
            if (!call->is_lost) {
                continue;
            }
            if (!rsi_agent_answer(agent, &call->requester, RSI_REPLY_LOST, limit_pos)) {
                return false;
            }
            rsi_outstanding_remove(outstanding, call);
            agent->lost_count--;
            (*answer_count)++;
        }
    }
    return true;
}

/* ---- the walk -----------------------------------------------------------------------------------
 */

static uint64_t walk_reply(struct rsi_agent *agent, const struct rsi_frame_header *header,
                           uint64_t frame_bytes, uint32_t log_index, uint64_t position)
{
    struct rsi_session *session =
        rsi_sessions_by_id_find(agent, rsi_call_requester(header).session);
    if (!session || session->data.is_failed || session->data.is_leaving ||
        session->data.lags[log_index].is_lagging) {
        return 0; /* not of this agent, gone, or behind: its own cursor will meet it */
    }
    if (rsi_agent_put_reply(agent, session, header, frame_bytes)) {
        return 1;
    }
    rsi_agent_hold_back_reply(agent, session, header, frame_bytes, log_index, position);
    return 0;
}

/* The session is to get the request: it may answer it from here on. */
static void note_call(struct rsi_agent *agent, struct rsi_session *session,
                      const struct rsi_frame_header *header)
{
    const struct rsi_call call = {.requester = rsi_call_requester(header),
                                  .is_sole = (header->flags & RSI_FRAME_FLAG_SOLE) != 0};
    struct rsi_call evicted;
    if (!rsi_outstanding_add(session->outstanding, &call, &evicted)) {
        return;
    }
    agent->lost_count -= evicted.is_lost;
    if (evicted.is_sole) { /* if there is no room for it, its requester finds out by its time-out */
        (void)rsi_agent_answer(agent, &evicted.requester, RSI_REPLY_LOST,
                               rsi_agent_admit_limit_pos(agent));
    }
}

static uint64_t walk_request(struct rsi_agent *agent, const struct rsi_frame_header *header,
                             uint64_t frame_bytes, uint32_t log_index, uint64_t position)
{
    struct rsi_publication *publication = rsi_plane_publication(agent->plane, header->publication);
    const struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, publication->topic);
    rsi_assert(topic != NULL);
    uint64_t delivered_count = 0;
    if (topic->last_value != 0) {
        rsi_agent_keep_last(agent, topic, publication, header, frame_bytes, log_index, position);
    }
    for (uint32_t i = 0; i < topic->match_count; i++) {
        const struct rsi_match *match = &topic->matches[i];
        struct rsi_session *session = match->session;
        if (session->data.is_failed || !rsi_match_wants(match, publication, header)) {
            continue;
        }
        note_call(agent, session, header);
        if (session->data.lags[log_index].is_lagging) {
            continue;
        }
        delivered_count +=
            rsi_agent_deliver(agent, &(struct rsi_delivery){match, publication, header, frame_bytes,
                                                            log_index, position});
    }
    return delivered_count;
}

uint64_t rsi_agent_walk_call(struct rsi_agent *agent, const struct rsi_frame_header *header,
                             uint64_t frame_bytes, uint32_t log_index, uint64_t position)
{
    return header->type == RSI_FRAME_REPLY
               ? walk_reply(agent, header, frame_bytes, log_index, position)
               : walk_request(agent, header, frame_bytes, log_index, position);
}
