/*
 * Design notes: conflating.h.
 */
#include "broker/conflating.h"

#include "broker/agent_internal.h"
#include "core/position.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory, control agent ----------------------------------------------------------------------
 */

static void destroy(struct rsi_conflating *conflating)
{
    free(conflating->queue);
    free(conflating->is_queued);
    free(conflating->first_missed);
    free(conflating->missed);
    free(conflating);
}

rsi_status_t rsi_session_allow_conflate(struct rsi_session *session,
                                        const struct rsi_data_options *options,
                                        struct rsi_error *error)
{
    rsi_assert(session->conflating == NULL);
    uint32_t slot_count = options->last_value_count_max;
    uint32_t queue_count = (uint32_t)rsi_round_up_power_of_two(slot_count);
    struct rsi_conflating *conflating = calloc(1, sizeof(*conflating));
    if (conflating) {
        conflating->slot_count = slot_count;
        conflating->queue_mask = queue_count - 1;
        conflating->queue = calloc(queue_count, sizeof(*conflating->queue));
        conflating->is_queued = calloc((slot_count + 63) / 64, sizeof(*conflating->is_queued));
        conflating->first_missed = calloc(slot_count, sizeof(*conflating->first_missed));
        conflating->missed = calloc(options->publication_count_max, sizeof(*conflating->missed));
        if (conflating->queue && conflating->is_queued && conflating->first_missed &&
            conflating->missed) {
            session->conflating = conflating;
            return RSI_OK;
        }
        destroy(conflating);
    }
    return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for policy conflate on %u topics",
                    slot_count);
}

void rsi_session_free_conflating(struct rsi_session *session)
{
    if (session->conflating) {
        destroy(session->conflating);
        session->conflating = NULL;
    }
}

/* ---- what is missed -----------------------------------------------------------------------------
 */

static uint32_t publication_slot(const struct rsi_agent *agent,
                                 const struct rsi_publication *publication)
{
    return publication->id & (agent->plane->options.publication_count_max - 1);
}

/* The frame is left out: of its topic's value only the newest will be sent, or none. */
static void miss_frame(struct rsi_agent *agent, struct rsi_session *session,
                       struct rsi_publication *publication, const struct rsi_frame_header *header)
{
    uint64_t sequence = header->sequence;
    struct rsi_conflating *conflating = session->data.conflating;
    const struct rsi_topic *topic = rsi_topic_index_find(&agent->topics, publication->topic);
    rsi_assert(topic != NULL);
    if (topic->last_value == 0) {
        rsi_agent_note_dropped(agent, session, publication, header);
        return;
    }
    if (header->type == RSI_FRAME_REQUEST) {
        rsi_agent_lose_call(agent, session, header);
    }
    uint32_t slot = topic->last_value - 1;
    uint32_t at = publication_slot(agent, publication);
    struct rsi_missed *missed = &conflating->missed[at];
    if (missed->next_sequence == 0) {
        missed->first_sequence = sequence;
        missed->link = conflating->first_missed[slot];
        conflating->first_missed[slot] = at + 1;
        rsi_fetch_add_acq_rel(&publication->hold_count, 1u);
    }
    missed->next_sequence = sequence + 1;
    if (!rsi_bit_get(conflating->is_queued, slot)) {
        rsi_bit_set(conflating->is_queued, slot);
        conflating->queue[conflating->tail++ & conflating->queue_mask] = slot;
        rsi_agent_set_care(agent, session);
    }
}

/* Takes what *link names out of its topic's list. */
static void forget_missed(struct rsi_agent *agent, struct rsi_conflating *conflating,
                          uint32_t *link)
{
    uint32_t at = *link - 1;
    struct rsi_missed *missed = &conflating->missed[at];
    struct rsi_publication *publication = rsi_load_relaxed(&agent->plane->publications[at]);
    *link = missed->link;
    memset(missed, 0, sizeof(*missed));
    rsi_fetch_add_acq_rel(&publication->hold_count, UINT32_MAX);
}

bool rsi_agent_is_conflated(const struct rsi_session *session, const struct rsi_topic *topic)
{
    const struct rsi_conflating *conflating = session->data.conflating;
    return conflating && topic->last_value != 0 &&
           conflating->first_missed[topic->last_value - 1] != 0;
}

bool rsi_agent_deliver_conflating(struct rsi_agent *agent, const struct rsi_delivery *delivery)
{
    struct rsi_session *session = delivery->match->session;
    const struct rsi_topic *topic =
        rsi_topic_index_find(&agent->topics, delivery->publication->topic);
    /* What has no value does not stand in the queue, and need not wait for those who do. */
    if (topic->last_value == 0 && rsi_agent_put_frame(agent, session, delivery->publication,
                                                      delivery->header, delivery->frame_bytes)) {
        return true;
    }
    miss_frame(agent, session, delivery->publication, delivery->header);
    return false;
}

bool rsi_agent_conflates(const struct rsi_session *session)
{
    const struct rsi_conflating *conflating = session->data.conflating;
    return conflating &&
           (session->data.policy == RSI_POLICY_CONFLATE || !rsi_conflating_is_empty(conflating));
}

void rsi_agent_miss(struct rsi_agent *agent, const struct rsi_delivery *delivery)
{
    miss_frame(agent, delivery->match->session, delivery->publication, delivery->header);
}

/* ---- sending ------------------------------------------------------------------------------------
 */

/* Tells what is left out of the topic's publications; what stays is the value's, if it is missed.
 * False: no room. *has_value: its sequence is the next one of its publication. */
static bool tell_missed(struct rsi_agent *agent, struct rsi_session *session, uint32_t slot,
                        bool *has_value)
{
    struct rsi_conflating *conflating = session->data.conflating;
    const struct rsi_last_value *value = &agent->last_values.values[slot];
    uint32_t *link = &conflating->first_missed[slot];
    *has_value = false;
    while (*link != 0) {
        struct rsi_missed *missed = &conflating->missed[*link - 1];
        struct rsi_publication *publication =
            rsi_load_relaxed(&agent->plane->publications[*link - 1]);
        bool is_of_value = publication == value->publication;
        uint64_t end_sequence = missed->next_sequence - is_of_value;
        if (missed->first_sequence < end_sequence) {
            if (!rsi_agent_put_gap(agent, session, publication, missed->first_sequence,
                                   end_sequence, RSI_GAP_CONFLATED)) {
                return false;
            }
            rsi_bump_relaxed(&session->counts.conflated_messages,
                             end_sequence - missed->first_sequence);
            missed->first_sequence = end_sequence;
        }
        if (is_of_value) {
            rsi_assert(rsi_last_value_header(value)->sequence == end_sequence);
            *has_value = true;
            link = &missed->link;
        } else {
            forget_missed(agent, conflating, link);
        }
    }
    return true;
}

/* The topic at the head of the queue. False: no room. */
static bool send_topic(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_conflating *conflating = session->data.conflating;
    uint32_t slot = conflating->queue[conflating->head & conflating->queue_mask];
    bool has_value = false;
    if (!tell_missed(agent, session, slot, &has_value)) {
        return false;
    }
    if (has_value) {
        if (!rsi_agent_put_value(agent, session, &agent->last_values.values[slot])) {
            return false;
        }
        forget_missed(agent, conflating, &conflating->first_missed[slot]);
    }
    rsi_assert(conflating->first_missed[slot] == 0);
    rsi_bit_clear(conflating->is_queued, slot);
    conflating->head++;
    return true;
}

uint64_t rsi_agent_send_conflated(struct rsi_agent *agent, struct rsi_session *session)
{
    const struct rsi_conflating *conflating = session->data.conflating;
    uint64_t stop_pos = session->link->staged_pos + RSI_SEND_BYTES_PER_PASS;
    uint64_t topic_count = 0;
    while (!rsi_conflating_is_empty(conflating) && session->link->staged_pos < stop_pos &&
           send_topic(agent, session)) {
        topic_count++;
    }
    rsi_agent_set_care(agent, session);
    return topic_count;
}

/* ---- changes ------------------------------------------------------------------------------------
 */

void rsi_agent_begin_conflate(struct rsi_agent *agent, struct rsi_session *session)
{
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        struct rsi_lag *lag = &session->data.lags[i];
        const struct rsi_message_log *log = &agent->plane->agents[i]->log;
        while (lag->is_lagging && lag->cursor_pos < agent->common_pos[i]) {
            const struct rsi_frame_header *header = rsi_message_log_at(log, lag->cursor_pos);
            uint64_t frame_bytes = rsi_commit_frame_bytes(header->commit, lag->cursor_pos);
            rsi_assert(frame_bytes >= RSI_FRAME_HEADER_BYTES);
            struct rsi_publication *publication =
                header->publication ? rsi_plane_publication(agent->plane, header->publication)
                                    : NULL;
            if (rsi_agent_is_owed_behind(agent, session, publication, i, lag->cursor_pos)) {
                if (publication) {
                    miss_frame(agent, session, publication, header);
                } else {
                    rsi_agent_note_dropped(agent, session, NULL, header);
                }
            }
            lag->cursor_pos += frame_bytes;
        }
        if (lag->is_lagging) {
            rsi_agent_end_lag(agent, session, i);
        }
    }
}

/* Takes out of the queue's topics what is not wanted any more, or everything. */
static void sift(struct rsi_agent *agent, struct rsi_session *session, bool keeps_wanted)
{
    struct rsi_conflating *conflating = session->data.conflating;
    if (!conflating) {
        return;
    }
    for (uint64_t at = conflating->head; at < conflating->tail; at++) {
        uint32_t *link = &conflating->first_missed[conflating->queue[at & conflating->queue_mask]];
        while (*link != 0) {
            struct rsi_publication *publication =
                rsi_load_relaxed(&agent->plane->publications[*link - 1]);
            if (keeps_wanted && rsi_agent_is_wanted(agent, session, publication, NULL)) {
                link = &conflating->missed[*link - 1].link;
            } else {
                forget_missed(agent, conflating, link);
            }
        }
    }
}

void rsi_agent_forget_unwanted_missed(struct rsi_agent *agent, struct rsi_session *session)
{
    sift(agent, session, true);
}

void rsi_agent_end_conflate(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_conflating *conflating = session->data.conflating;
    sift(agent, session, false);
    if (conflating) {
        memset(conflating->is_queued, 0, (conflating->slot_count + 63) / 64 * sizeof(uint64_t));
        conflating->head = conflating->tail;
        rsi_agent_set_care(agent, session);
    }
}
