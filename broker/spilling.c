/*
 * Sessions under policy block: what happens to a frame that has no room.
 *
 * Design notes
 * - In the common walk a frame goes to the out ring if the spill is empty and there is room, else
 * to the spill, which is drained before the next walk. So order holds, and such a session never
 * lags.
 * - What a session is promised goes by what a frame was published under. Under block it is kept in
 *   any case: the spill has room (blocking.h). Otherwise it is kept while the spill has room, and
 *   when it has none the policy acts: under drop all of the spill becomes gaps, in order, and then
 *   the frame itself; under disconnect the session is at fault.
 *   Not under block are: frames before `start` of their log, where a first subscription with block
 * is still settling; frames that a lagging session had not caught up with when it asked for block;
 *   and everything after it gave up block, as long as the spill is not empty.
 * - A session is never lagging with a spill that is not empty. So gaps are noted only when what was
 *   spilled before them has become gaps too, and telling them before the spill's first frame is
 *   telling them in order.
 * - A frame in a spill holds its publication (hold_count), which must be there to announce it.
 */
#include "broker/agent_internal.h"

void rsi_agent_set_care(struct rsi_agent *agent, struct rsi_session *session)
{
    const struct rsi_blocking *blocking = session->data.blocking;
    const struct rsi_conflating *conflating = session->data.conflating;
    uint64_t spill_bytes = blocking ? rsi_spill_bytes(&blocking->spill) : 0;
    bool needs_care = spill_bytes > 0 || (blocking && blocking->is_settling) ||
                      (conflating && !rsi_conflating_is_empty(conflating));
    if (needs_care != session->data.needs_care) {
        session->data.needs_care = needs_care;
        agent->care_count += needs_care ? 1 : UINT32_MAX;
    }
    rsi_store_relaxed(&session->counts.spill_bytes, spill_bytes);
    if (blocking) {
        rsi_store_relaxed(&session->spill_tail_pos, blocking->spill.tail_pos);
        rsi_store_release(&session->spill_head_pos, blocking->spill.head_pos);
    }
    rsi_agent_note_behind(session);
    if (spill_bytes > rsi_load_relaxed(&session->counts.spill_bytes_max)) {
        rsi_store_relaxed(&session->counts.spill_bytes_max, spill_bytes);
    }
}

static void relieve_if_low(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking *blocking = session->data.blocking;
    if (rsi_blocking_is_full(blocking) &&
        rsi_spill_bytes(&blocking->spill) <= blocking->ring_bytes / 2) {
        rsi_blocking_relieve(agent, session);
    }
}

/* NULL: of none, it is a reply. */
static struct rsi_publication *publication_of(const struct rsi_agent *agent,
                                              const struct rsi_frame_header *header)
{
    return header->publication ? rsi_plane_publication(agent->plane, header->publication) : NULL;
}

static void let_go_of(struct rsi_publication *publication)
{
    if (publication) {
        rsi_fetch_add_acq_rel(&publication->hold_count, UINT32_MAX);
    }
}

/* Whether the frame was published after the session's promise to block began in that log. */
static bool is_after_start(const struct rsi_blocking *blocking, uint32_t log_index,
                           uint64_t position)
{
    /* Pairs with the release in rsi_blocking_subscribed: a frame after it shows it. */
    uint64_t start = rsi_load_acquire(&blocking->sides[log_index].start);
    return start != 0 && position >= start - 1;
}

bool rsi_agent_is_before_start(const struct rsi_session *session, const uint64_t *start_pos,
                               uint32_t log_index, uint64_t position)
{
    if (start_pos[log_index] == RSI_START_WITH_BLOCK) {
        return !is_after_start(session->data.blocking, log_index, position);
    }
    return position < start_pos[log_index];
}

bool rsi_match_is_too_early(const struct rsi_match *match, uint32_t log_index, uint64_t position)
{
    return rsi_agent_is_before_start(match->session, match->start_pos, log_index, position);
}

/* ---- spilling ----------------------------------------------------------------------------------
 */

static void spill_frame(struct rsi_agent *agent, struct rsi_session *session,
                        struct rsi_publication *publication, const struct rsi_frame_header *header,
                        uint64_t frame_bytes)
{
    struct rsi_blocking *blocking = session->data.blocking;
    uint64_t at = blocking->spill.tail_pos;
    rsi_spill_append(&blocking->spill, header, frame_bytes);
    if (publication && header->entry_count > 0 &&
        rsi_agent_is_sparse(agent, session, publication)) {
        uint64_t next_pos = 0; /* noted now: by the time it is put the session may follow it */
        rsi_spill_at(&blocking->spill, at, &next_pos)->flags |= RSI_FRAME_FLAG_SPARSE;
    }
    if (publication) {
        rsi_fetch_add_acq_rel(&publication->hold_count, 1u);
    }
    rsi_bump_relaxed(&agent->counts.spilled_messages, 1);
    rsi_agent_set_care(agent, session);
    if (session->data.policy == RSI_POLICY_BLOCK &&
        rsi_spill_bytes(&blocking->spill) > blocking->ring_bytes) {
        rsi_blocking_fill(agent, session);
    }
}

static bool fits(const struct rsi_blocking *blocking, uint64_t frame_bytes, uint64_t limit_bytes)
{
    return rsi_spill_bytes(&blocking->spill) + frame_bytes <= limit_bytes;
}

/* What is in the spill is left out, in order. */
static void spill_to_gaps(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_spill *spill = &session->data.blocking->spill;
    rsi_bump_relaxed(&session->counts.gaps, 1);
    while (!rsi_spill_is_empty(spill)) {
        uint64_t next_pos = 0;
        const struct rsi_frame_header *header = rsi_spill_at(spill, spill->head_pos, &next_pos);
        struct rsi_publication *publication = publication_of(agent, header);
        rsi_agent_note_dropped(agent, session, publication, header);
        let_go_of(publication);
        rsi_spill_pop(spill);
    }
    rsi_agent_set_care(agent, session);
}

/* The spill has no room for frames that were published under this policy, which is not block. */
static RSI_NOINLINE void overflow(struct rsi_agent *agent, struct rsi_session *session,
                                  enum rsi_policy policy)
{
    rsi_assert(policy != RSI_POLICY_BLOCK);
    if (policy == RSI_POLICY_DISCONNECT) {
        rsi_agent_fault(agent, session, RSI_E_SLOW,
                        "subscriber %s is %llu bytes behind, and its policy is or was disconnect "
                        "for them; read faster, or ask for policy block or drop from the start",
                        session->name,
                        (unsigned long long)rsi_spill_bytes(&session->data.blocking->spill));
        return;
    }
    spill_to_gaps(agent, session);
}

RSI_NOINLINE void rsi_agent_hold_back(struct rsi_agent *agent, const struct rsi_delivery *delivery)
{
    struct rsi_session *session = delivery->match->session;
    struct rsi_blocking *blocking = session->data.blocking;
    enum rsi_policy policy = session->data.policy;
    if (rsi_agent_conflates(session)) {
        rsi_agent_miss(agent, delivery);
        return;
    }
    if (!blocking || (policy != RSI_POLICY_BLOCK && rsi_spill_is_empty(&blocking->spill))) {
        rsi_agent_begin_lag(agent, session, delivery->log_index, delivery->position);
        return;
    }
    uint64_t limit_bytes = blocking->limit_bytes;
    if (policy == RSI_POLICY_BLOCK && blocking->is_settling &&
        !is_after_start(blocking, delivery->log_index, delivery->position)) {
        policy = blocking->policy_before;
        limit_bytes = blocking->ring_bytes;
    }
    if (fits(blocking, delivery->frame_bytes, limit_bytes)) {
        spill_frame(agent, session, delivery->publication, delivery->header, delivery->frame_bytes);
        return;
    }
    overflow(agent, session, policy);
    if (session->data.is_failed) {
        return;
    }
    if (session->data.policy == RSI_POLICY_BLOCK) {
        rsi_agent_note_dropped(agent, session, delivery->publication, delivery->header);
    } else {
        rsi_agent_begin_lag(agent, session, delivery->log_index, delivery->position);
    }
}

RSI_NOINLINE void rsi_agent_hold_back_reply(struct rsi_agent *agent, struct rsi_session *session,
                                            const struct rsi_frame_header *header,
                                            uint64_t frame_bytes, uint32_t log_index,
                                            uint64_t position)
{
    struct rsi_blocking *blocking = session->data.blocking;
    bool may_wait = !rsi_agent_conflates(session); /* one that conflates may not lag */
    bool has_empty_spill = !blocking || (session->data.policy != RSI_POLICY_BLOCK &&
                                         rsi_spill_is_empty(&blocking->spill));
    if (may_wait && has_empty_spill) {
        rsi_agent_begin_lag(agent, session, log_index, position);
    } else if (may_wait && fits(blocking, frame_bytes, blocking->ring_bytes)) {
        spill_frame(agent, session, NULL, header, frame_bytes);
    } else {
        rsi_agent_note_dropped(agent, session, NULL, header);
    }
}

RSI_NOINLINE bool rsi_agent_deliver_with_care(struct rsi_agent *agent,
                                              const struct rsi_delivery *delivery)
{
    struct rsi_session *session = delivery->match->session;
    const struct rsi_blocking *blocking = session->data.blocking;
    if (session->data.conflating) {
        return rsi_agent_deliver_conflating(agent, delivery);
    }
    if (blocking->is_settling &&
        rsi_match_is_too_early(delivery->match, delivery->log_index, delivery->position)) {
        return false;
    }
    if (rsi_spill_is_empty(&blocking->spill) &&
        rsi_agent_put_frame(agent, session, delivery->publication, delivery->header,
                            delivery->frame_bytes)) {
        return true;
    }
    rsi_agent_hold_back(agent, delivery);
    return false;
}

static void settle(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking *blocking = session->data.blocking;
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        if (!is_after_start(blocking, i, agent->common_pos[i])) {
            return;
        }
    }
    blocking->is_settling = false;
    rsi_agent_set_care(agent, session);
}

uint64_t rsi_agent_drain_spill(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking *blocking = session->data.blocking;
    struct rsi_spill *spill = &blocking->spill;
    uint64_t stop_pos = spill->head_pos + RSI_WALK_BYTES_PER_PASS;
    uint64_t frame_count = 0;
    if (blocking->is_settling) {
        settle(agent, session);
    }
    while (!rsi_spill_is_empty(spill) && spill->head_pos < stop_pos) {
        uint64_t next_pos = 0;
        const struct rsi_frame_header *header = rsi_spill_at(spill, spill->head_pos, &next_pos);
        struct rsi_publication *publication = publication_of(agent, header);
        uint64_t frame_bytes = next_pos - spill->head_pos;
        if (publication ? !rsi_agent_put_frame(agent, session, publication, header, frame_bytes)
                        : !rsi_agent_put_reply(agent, session, header, frame_bytes)) {
            break;
        }
        let_go_of(publication);
        rsi_spill_pop(spill);
        frame_count++;
    }
    rsi_bump_relaxed(&agent->counts.delivered_messages, frame_count);
    rsi_agent_set_care(agent, session);
    relieve_if_low(agent, session);
    return frame_count;
}

/* ---- changes of policy -------------------------------------------------------------------------
 */

void rsi_agent_allow_block(struct rsi_agent *agent, struct rsi_session *session)
{
    if (session->data.blocking) {
        return;
    }
    struct rsi_blocking *blocking = session->blocking;
    session->data.blocking = blocking;
    blocking->is_settling = true;
    for (uint32_t slot = 0; slot < agent->topics.topic_count_max; slot++) {
        if (session->data.match_index[slot] == RSI_NO_MATCH) {
            continue;
        }
        const struct rsi_match *match =
            rsi_topic_match_of(agent->topics.topics[slot], session, slot);
        if (match->subscription_count > match->member_count) {
            rsi_blocking_set_wanted(blocking, slot, true);
        }
    }
    rsi_agent_set_care(agent, session);
}

/*
 * The session lags: what it still has to get from a log was not published under block, and goes to
 * the spill as far as that holds it.
 */
static void leave_log(struct rsi_agent *agent, struct rsi_session *session, uint32_t log_index)
{
    struct rsi_lag *lag = &session->data.lags[log_index];
    struct rsi_blocking *blocking = session->data.blocking;
    const struct rsi_message_log *log = &agent->plane->agents[log_index]->log;
    bool is_dropping = lag->is_dropping;
    while (lag->cursor_pos < agent->common_pos[log_index] && !session->data.is_failed) {
        const struct rsi_frame_header *header = rsi_message_log_at(log, lag->cursor_pos);
        uint64_t frame_bytes = rsi_commit_frame_bytes(header->commit, lag->cursor_pos);
        rsi_assert(frame_bytes >= RSI_FRAME_HEADER_BYTES);
        struct rsi_publication *publication = publication_of(agent, header);
        bool is_owed =
            rsi_agent_is_owed_behind(agent, session, publication, log_index, lag->cursor_pos);
        lag->cursor_pos += frame_bytes;
        if (!is_owed) {
            continue;
        }
        if (!is_dropping && fits(blocking, frame_bytes, blocking->ring_bytes)) {
            spill_frame(agent, session, publication, header, frame_bytes);
            continue;
        }
        if (!is_dropping) {
            is_dropping = true;
            overflow(agent, session, blocking->policy_before);
        }
        if (!session->data.is_failed) {
            rsi_agent_note_dropped(agent, session, publication, header);
        }
    }
    if (!session->data.is_failed) {
        rsi_agent_end_lag(agent, session, log_index);
    }
}

void rsi_agent_begin_block(struct rsi_agent *agent, struct rsi_session *session,
                           enum rsi_policy policy_before)
{
    struct rsi_blocking *blocking = session->data.blocking;
    blocking->policy_before = policy_before;
    /* From a time under block before: what is promised anew needs the room behind the ring. */
    if (rsi_spill_bytes(&blocking->spill) > blocking->ring_bytes) {
        overflow(agent, session, policy_before);
    }
    for (uint32_t i = 0; i < agent->plane->options.agent_count; i++) {
        if (session->data.lags[i].is_lagging && !session->data.is_failed) {
            leave_log(agent, session, i);
        }
    }
    rsi_agent_snapshots_await_spill(session);
}

void rsi_agent_strike_unwanted(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking *blocking = session->data.blocking;
    if (!blocking) {
        return;
    }
    struct rsi_spill *spill = &blocking->spill;
    for (uint64_t position = spill->head_pos; position < spill->tail_pos;) {
        uint64_t at = position;
        const struct rsi_frame_header *header = rsi_spill_at(spill, at, &position);
        if (rsi_spill_is_struck(header)) {
            continue;
        }
        struct rsi_publication *publication = publication_of(agent, header);
        if (publication && !rsi_agent_is_wanted(agent, session, publication, header)) {
            if (header->type == RSI_FRAME_REQUEST) {
                rsi_agent_lose_call(agent, session, header);
            }
            let_go_of(publication);
            rsi_spill_strike(spill, at);
        }
    }
    rsi_agent_set_care(agent, session);
    relieve_if_low(agent, session);
    rsi_blocking_needs_less(agent, session);
}

void rsi_agent_end_block(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_blocking *blocking = session->data.blocking;
    if (!blocking) {
        return;
    }
    struct rsi_spill *spill = &blocking->spill;
    while (!rsi_spill_is_empty(spill)) {
        uint64_t next_pos = 0;
        let_go_of(publication_of(agent, rsi_spill_at(spill, spill->head_pos, &next_pos)));
        rsi_spill_pop(spill);
    }
    blocking->is_settling = false;
    rsi_agent_set_care(agent, session);
    rsi_blocking_release(agent, session);
}
