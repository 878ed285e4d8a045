/*
 * Last values on their way to a subscription that asked for them.
 *
 * Design notes
 * - The seam. A subscription is owed live what the common walk meets from where it stood when the
 *   SUBSCRIBE edit was applied (`start_pos`). It is owed the last value of a topic whose value is
 *   from before that. So values are sent one by one as there is room, each as it is in the store at
 *   that moment: one that has changed meanwhile goes, or went, its live way and is passed over.
 *   Nothing is copied or pinned for a snapshot, however long it takes, and the session stays in the
 *   common walk. What a subscription gets of a topic first is its last value or something newer,
 *   and from there on everything.
 * - Where another subscription of the session matches the topic too, frames from before the start
 *   may still be on their live way: behind a lagging cursor, where they are passed over here, or in
 *   the spill, which is waited for up to where it ended at the start. The client passes over a
 *   value that the subscription had live.
 * - A mark before the first frame that the subscription is owed tells the client where it begins:
 *   what an earlier subscription left in the ring is not taken for it. Then come the values,
 *   snapshot after snapshot, each between two marks that name its subscription. Behind a session
 * that lags only half of the room is taken, so that its cursors and its snapshot both get on; its
 * policy acts as ever.
 * - What has to survive a cut link is in the ring or here, with the session: a snapshot goes on
 * over the next link where it was.
 */
#include "broker/agent_internal.h"

#include <string.h>

/* Slots looked at in one pass, per session. */
#define SLOTS_PER_PASS 1024u

void rsi_agent_begin_snapshot(struct rsi_agent *agent, struct rsi_session *session,
                              struct rsi_snapshot *snapshot,
                              const struct rsi_subscription *subscription)
{
    snapshot->next = NULL;
    snapshot->slot = 0;
    snapshot->step = 0;
    rsi_agent_count_pending(agent, session, 1);
    snapshot->spill_pos =
        session->data.blocking != NULL ? session->data.blocking->spill.tail_pos : 0;
    memcpy(snapshot->start_pos, subscription->start_pos, sizeof(snapshot->start_pos));
    struct rsi_snapshot **link = &session->data.snapshots;
    if (!*link) {
        agent->snapshot_session_count++;
    }
    while (*link) {
        link = &(*link)->next;
    }
    *link = snapshot;
}

void rsi_agent_end_snapshot(struct rsi_agent *agent, struct rsi_session *session,
                            uint64_t subscription)
{
    for (struct rsi_snapshot **link = &session->data.snapshots; *link; link = &(*link)->next) {
        if ((*link)->subscription != subscription) {
            continue;
        }
        if ((*link)->step == 0) {
            rsi_agent_count_pending(agent, session, -1);
        }
        *link = (*link)->next;
        if (!session->data.snapshots) {
            agent->snapshot_session_count--;
        }
        return;
    }
}

void rsi_agent_end_snapshots(struct rsi_agent *agent, struct rsi_session *session)
{
    while (session->data.snapshots) {
        rsi_agent_end_snapshot(agent, session, session->data.snapshots->subscription);
    }
}

void rsi_agent_snapshots_await_spill(struct rsi_session *session)
{
    for (struct rsi_snapshot *snapshot = session->data.snapshots; snapshot;
         snapshot = snapshot->next) {
        snapshot->spill_pos = session->data.blocking->spill.tail_pos;
    }
}

bool rsi_agent_start_snapshots(struct rsi_agent *agent, struct rsi_session *session)
{
    for (struct rsi_snapshot *snapshot = session->data.snapshots; snapshot;
         snapshot = snapshot->next) {
        if (snapshot->step != 0) {
            continue;
        }
        if (!rsi_agent_put_mark(agent, session, snapshot->subscription, RSI_SNAPSHOT_START)) {
            return false;
        }
        snapshot->step = RSI_SNAPSHOT_START;
        rsi_agent_count_pending(agent, session, -1);
    }
    return true;
}

/* What is done with a slot of the store. */
enum step {
    PASS_OVER, /* no value, not asked for, or it comes live */
    SEND,
    WAIT, /* it may be left out on its live way: until that is decided */
};

static enum step decide(const struct rsi_agent *agent, const struct rsi_session *session,
                        const struct rsi_snapshot *snapshot, const struct rsi_last_value *value)
{
    const struct rsi_publication *publication = value->publication;
    if (!publication || (snapshot->no_echo && publication->publisher_session == session->id) ||
        !rsi_agent_is_before_start(session, snapshot->start_pos, value->log_index,
                                   value->position) ||
        !rsi_subject_matches(snapshot->pattern, snapshot->pattern_bytes, value->topic->subject,
                             value->topic->subject_bytes)) {
        return PASS_OVER;
    }
    if (rsi_agent_is_conflated(session, value->topic)) {
        return PASS_OVER;
    }
    const struct rsi_lag *lag = &session->data.lags[value->log_index];
    if (lag->is_lagging && value->position >= lag->cursor_pos &&
        rsi_agent_match_behind(agent, session, publication, value->log_index, value->position)) {
        return lag->is_dropping ? WAIT : PASS_OVER;
    }
    return SEND;
}

/* Whether what may precede the snapshot in the session's own order is out. */
static bool may_send(const struct rsi_session *session, const struct rsi_snapshot *snapshot)
{
    const struct rsi_blocking *blocking = session->data.blocking;
    return !blocking || (!blocking->is_settling && blocking->spill.head_pos >= snapshot->spill_pos);
}

/* How much of the ring this pass may fill; the first value may take more. */
static uint64_t limit_bytes(const struct rsi_session *session)
{
    uint64_t room_bytes = rsi_link_room_bytes(session->link);
    if (session->data.lagging_count > 0 || session->data.needs_care) {
        room_bytes /= 2;
    }
    return room_bytes < RSI_SEND_BYTES_PER_PASS ? room_bytes : RSI_SEND_BYTES_PER_PASS;
}

/* Sends what there is room for. False: the rest waits for room, or for another pass. */
static bool send_values(struct rsi_agent *agent, struct rsi_session *session,
                        struct rsi_snapshot *snapshot, uint64_t *work_count)
{
    const struct rsi_last_values *store = &agent->last_values;
    uint64_t begin_pos = session->link->staged_pos;
    uint64_t end_bytes = limit_bytes(session);
    uint32_t end_slot = store->slot_count - snapshot->slot > SLOTS_PER_PASS
                            ? snapshot->slot + SLOTS_PER_PASS
                            : store->slot_count;
    while (snapshot->slot < end_slot) {
        const struct rsi_last_value *value = &store->values[snapshot->slot];
        enum step step = decide(agent, session, snapshot, value);
        uint64_t sent_bytes = session->link->staged_pos - begin_pos;
        if (step == WAIT || (step == SEND && ((sent_bytes > 0 && sent_bytes >= end_bytes) ||
                                              !rsi_agent_put_last(agent, session, value)))) {
            *work_count += sent_bytes >= end_bytes && sent_bytes > 0;
            return false;
        }
        snapshot->slot++;
        (*work_count)++;
    }
    return snapshot->slot == store->slot_count;
}

uint64_t rsi_agent_send_snapshot(struct rsi_agent *agent, struct rsi_session *session)
{
    struct rsi_snapshot *snapshot = session->data.snapshots;
    uint64_t work_count = 0;
    if (!may_send(session, snapshot)) {
        return 0;
    }
    if (!rsi_agent_start_snapshots(agent, session)) {
        return 0;
    }
    if (snapshot->step == RSI_SNAPSHOT_START) {
        if (!rsi_agent_put_mark(agent, session, snapshot->subscription, RSI_SNAPSHOT_VALUES)) {
            return 0;
        }
        snapshot->step = RSI_SNAPSHOT_VALUES;
        work_count++;
    }
    if (send_values(agent, session, snapshot, &work_count) &&
        rsi_agent_put_mark(agent, session, snapshot->subscription, RSI_SNAPSHOT_END)) {
        rsi_agent_end_snapshot(agent, session, snapshot->subscription);
        work_count++;
    }
    return work_count;
}
