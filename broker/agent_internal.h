/*
 * What data_agent.c, admission.c and fanout.c share: one agent and the plane of all agents.
 *
 * Design notes: data_agent.h. Fields are grouped by the thread that writes them.
 */
#ifndef RSI_BROKER_AGENT_INTERNAL_H
#define RSI_BROKER_AGENT_INTERNAL_H

#include "broker/blocking.h"
#include "broker/calls.h"
#include "broker/conflating.h"
#include "broker/data_agent.h"
#include "broker/groups.h"
#include "broker/last_values.h"
#include "broker/topic_index.h"
#include "core/assert.h"
#include "proto/subject.h"
#include "transport/frame.h"

#define RSI_EDIT_COUNT 1024u /* power of two: edits posted and not yet applied by all */

/* Work of one pass is bounded, so that no session and no log waits long for its turn. */
#define RSI_ADMIT_BYTES_PER_PASS (128u << 10) /* per session */
#define RSI_WALK_BYTES_PER_PASS  (512u << 10) /* per log or lagging cursor */
#define RSI_SEND_BYTES_PER_PASS  (128u << 10) /* last values, snapshot or conflated; per session */
/* An idle poller whose look costs a system call is polled once in so many passes, beside others. */
#define RSI_PASSES_PER_COSTLY_POLL 8u
#define RSI_SKIP_BYTES_PER_PASS    (2u << 20) /* per dropping cursor */
/* Polls at a stop or a leave, until nothing more has arrived: a bound for peers that never fall
 * silent. */
#define RSI_ARRIVAL_ROUNDS_MAX 65536u

struct rsi_agent {
    /* Constant after start. */
    struct rsi_data_plane *plane;
    uint32_t index;
    int cpu;
    pthread_t thread;
    bool is_started;
    struct rsi_poller *pollers[RSI_TRANSPORT_COUNT_MAX];
    uint32_t poller_count;
    int epoll_fd;
    struct rsi_waker waker;

    /* Agent. */
    struct rsi_message_log log;
    struct rsi_topic_index topics;
    struct rsi_groups groups;
    struct rsi_last_values last_values;
    struct rsi_session **by_id;    /* hash of the sessions by id (calls.c) */
    uint32_t by_id_count;          /* of its slots, a power of two */
    uint32_t lost_count;           /* requests whose requesters are to be told that they are lost */
    struct rsi_session **sessions; /* dense */
    uint32_t session_count;
    struct rsi_session **dirty; /* staged frames wait for place and flush */
    uint32_t dirty_count;
    uint32_t emitted_count;     /* of dirty[]: placed by the pass before, until it is counted */
    uint32_t admit_from;        /* rotates, so that every session is first in turn */
    uint32_t lagging_count;     /* cursors of sessions that lag, over all logs */
    uint32_t gap_session_count; /* sessions with gaps to be told */
    uint32_t care_count;        /* sessions that need care (spill) */
    uint32_t snapshot_session_count; /* sessions that are owed last values */
    uint32_t contended_count;        /* own sessions that hold publishers back */
    uint32_t waiting_count;          /* publishers that wait for such a session of any agent */
    uint32_t block_session_count;    /* sessions that ever asked for policy block, of all agents */
    uint64_t last_place_ns;          /* in a queue, given to a publisher of this agent */
    uint32_t leaving_count;
    uint32_t closing_count;                   /* publications that wait for their close_pos */
    uint64_t common_pos[RSI_AGENT_COUNT_MAX]; /* the common walk of each log */
    uint64_t random;                          /* order of logs; 0: by number */
    bool is_stopping;
    uint64_t admit_limit_pos;               /* where admission had to stop, when wants_room */
    uint64_t now_ns;                        /* of this pass */
    bool has_worked;                        /* the pass before */
    bool was_busy[RSI_TRANSPORT_COUNT_MAX]; /* pollers that found something when last polled */
    struct rsi_idle idle;
    struct rsi_agent_counts counts;

    RSI_SEPARATOR(before_shared);
    /* Agent; read by others. */
    _Atomic uint64_t needed_pos[RSI_AGENT_COUNT_MAX]; /* lowest still needed, per log */
    _Atomic uint64_t walked_pos[RSI_AGENT_COUNT_MAX]; /* the common walk, per log */
    _Atomic uint64_t applied_count;                   /* edits applied */
    _Atomic uint32_t wants_room;   /* admission stopped: wake it when one of these moves */
    _Atomic uint32_t has_admitted; /* stopping: will append nothing more */
    _Atomic uint32_t is_drained;   /* stopping: and everything was delivered */
    /* Own sessions that hold publishers back; NULL: a free slot. */
    _Atomic(struct rsi_session *) *contended;
    _Atomic uint32_t contended_slot_count; /* none is used from here on */
    RSI_SEPARATOR(after_shared);
};

struct rsi_data_plane {
    struct rsi_data_options options;
    struct rsi_agent *agents[RSI_AGENT_COUNT_MAX];
    /* By slot; the control agent stores before it posts the edit. */
    _Atomic(struct rsi_publication *) *publications;
    _Atomic uint32_t must_end;
    _Atomic uint32_t *follower_counts; /* topic_index.h */
    uint64_t ahead_bytes; /* how far admission may be ahead of the walks, if anybody may block */

    RSI_SEPARATOR(before_edits);
    /* Control agent. */
    struct rsi_edit edits[RSI_EDIT_COUNT];
    _Atomic uint64_t edit_count;

    RSI_SEPARATOR(before_contended);
    /* Any agent: sessions in all tables `contended`. Not 0: admission looks at them. */
    _Atomic uint32_t contended_count;
    /* Any agent: times that a closed publication lost its place in a store. */
    _Atomic uint64_t unkept_count;
};

static inline struct rsi_publication *rsi_plane_publication(const struct rsi_data_plane *plane,
                                                            uint32_t id)
{
    return rsi_load_relaxed(&plane->publications[id & (plane->options.publication_count_max - 1)]);
}

static inline bool rsi_bit_get(const uint64_t *bits, uint32_t at)
{
    return bits[at / 64] >> (at % 64) & 1;
}

static inline void rsi_bit_set(uint64_t *bits, uint32_t at)
{
    bits[at / 64] |= 1ull << (at % 64);
}

static inline void rsi_bit_clear(uint64_t *bits, uint32_t at)
{
    bits[at / 64] &= ~(1ull << (at % 64));
}

/* Whether the last frame of the publication at this slot was chosen for the session. */
static inline void rsi_session_set_sparse(struct rsi_session *session, uint32_t slot,
                                          bool is_sparse)
{
    if (rsi_bit_get(session->data.sparse, slot) == is_sparse) {
        return;
    }
    session->data.sparse[slot / 64] ^= 1ull << (slot % 64);
    session->data.sparse_count += is_sparse ? 1 : UINT32_MAX;
}

static inline void rsi_agent_mark_dirty(struct rsi_agent *agent, struct rsi_session *session)
{
    if (session->data.is_dirty) {
        return;
    }
    session->data.is_dirty = true;
    agent->dirty[agent->dirty_count++] = session;
}

/* Something waits for room in the out ring of a session of this agent. */
static inline bool rsi_agent_owes(const struct rsi_agent *agent)
{
    return agent->lagging_count > 0 || agent->gap_session_count > 0 || agent->care_count > 0 ||
           agent->snapshot_session_count > 0;
}

static inline bool rsi_session_is_owed(const struct rsi_session *session)
{
    const struct rsi_session_data *data = &session->data;
    return data->lagging_count > 0 || data->gap_pending_count > 0 || data->needs_care ||
           data->snapshots != NULL;
}

/* One more or one less that precedes the next frame. */
static inline void rsi_agent_count_pending(struct rsi_agent *agent, struct rsi_session *session,
                                           int change)
{
    bool was_any = session->data.gap_pending_count > 0;
    session->data.gap_pending_count += (uint32_t)change;
    bool is_any = session->data.gap_pending_count > 0;
    agent->gap_session_count += (uint32_t)is_any - (uint32_t)was_any;
}

/* The session is at fault: it is served no more, and the control agent ends it. First one counts.
 */
void rsi_agent_fault(struct rsi_agent *agent, struct rsi_session *session, rsi_status_t status,
                     const char *format, ...) RSI_PRINTF(4, 5) RSI_COLD;

/* Tells the other agents that something moved for which they may sleep. */
void rsi_agent_wake_others(struct rsi_agent *agent);

/* data_agent.c: one round of the duty cycle. Returns how much there was to do. */
uint64_t rsi_agent_pass(struct rsi_agent *agent);
/* session.c: how far admission may be ahead of the walks. */
uint64_t rsi_data_ahead_bytes(const struct rsi_data_options *options);

/* data_agent.c: applies what was posted since. Returns how many edits. */
uint64_t rsi_agent_apply_edits(struct rsi_agent *agent);

/* admission.c: takes frames from ingress rings into the log. Returns how many. */
uint64_t rsi_agent_admit(struct rsi_agent *agent);
/* Where appending to its own log has to stop: its window is used up, or it is too far ahead. */
uint64_t rsi_agent_admit_limit_pos(const struct rsi_agent *agent);
/* Publications and sessions whose last frame was admitted. */
void rsi_agent_finish_closing(struct rsi_agent *agent);
void rsi_agent_finish_leaving(struct rsi_agent *agent);

/* fanout.c: applies edits, then copies frames from the logs into out rings. Returns how many frames
 * and edits that were. */
uint64_t rsi_agent_walk(struct rsi_agent *agent);
/* Lagging cursors: catches up, acts on policy, tells gaps. Returns how many frames moved or
 * skipped. */
uint64_t rsi_agent_catch_up(struct rsi_agent *agent);
/* Places and flushes what was staged. */
void rsi_agent_emit(struct rsi_agent *agent);
/* Publishes the lowest position still needed of each log. */
void rsi_agent_publish_needed(struct rsi_agent *agent);
/* Ends the lagging of all of a session's cursors: it leaves or is at fault. */
void rsi_agent_end_lags(struct rsi_agent *agent, struct rsi_session *session);
/* After an unsubscribe: what nothing of the session asks for any more is announced anew when it is
 * asked for again, and its gaps are not told. */
void rsi_agent_forget_unwanted(struct rsi_agent *agent, struct rsi_session *session);
/* The session's gaps will not be told any more. */
void rsi_agent_forget_gaps(struct rsi_agent *agent, struct rsi_session *session);
/* Stages one frame, and before it what has to precede it. False: no room for all. */
bool rsi_agent_put_frame(struct rsi_agent *agent, struct rsi_session *session,
                         const struct rsi_publication *publication,
                         const struct rsi_frame_header *source, uint64_t frame_bytes);
/* Stages a last value, and before it what has to precede it. False: no room for all. */
bool rsi_agent_put_last(struct rsi_agent *agent, struct rsi_session *session,
                        const struct rsi_last_value *value);
/* The same, as a message that comes live. */
bool rsi_agent_put_value(struct rsi_agent *agent, struct rsi_session *session,
                         const struct rsi_last_value *value);
/* Tells that what is from first_sequence on and below next_sequence is left out. False: no room. */
bool rsi_agent_put_gap(struct rsi_agent *agent, struct rsi_session *session,
                       const struct rsi_publication *publication, uint64_t first_sequence,
                       uint64_t next_sequence, enum rsi_gap_reason reason);
/* Stages a mark of a snapshot. False: no room. */
bool rsi_agent_put_mark(struct rsi_agent *agent, struct rsi_session *session, uint64_t subscription,
                        enum rsi_snapshot_step step);
/* The same for a reply, which nothing has to precede. */
bool rsi_agent_put_reply(struct rsi_agent *agent, struct rsi_session *session,
                         const struct rsi_frame_header *source, uint64_t frame_bytes);
/* Notes that the session does not get a frame. */
void rsi_agent_note_dropped(struct rsi_agent *agent, struct rsi_session *session,
                            struct rsi_publication *publication,
                            const struct rsi_frame_header *header);
/* Whether any subscription of the session asks for the publication: for this frame of it, or, NULL,
 * for any. */
bool rsi_agent_is_wanted(const struct rsi_agent *agent, const struct rsi_session *session,
                         const struct rsi_publication *publication,
                         const struct rsi_frame_header *header);
/* Whether the session gets the frame only because one of its subscriptions was chosen for it. */
bool rsi_agent_is_sparse(const struct rsi_agent *agent, const struct rsi_session *session,
                         const struct rsi_publication *publication);
/* The session's entry for a frame behind the common walk, or NULL: it is not owed the frame. */
const struct rsi_match *rsi_agent_match_behind(const struct rsi_agent *agent,
                                               const struct rsi_session *session,
                                               const struct rsi_publication *publication,
                                               uint32_t log_index, uint64_t position);
/* What is_behind says may have changed. */
void rsi_agent_note_behind(struct rsi_session *session);
/* Whether the session is owed a frame behind the common walk; of a reply `publication` is NULL. */
bool rsi_agent_is_owed_behind(const struct rsi_agent *agent, const struct rsi_session *session,
                              const struct rsi_publication *publication, uint32_t log_index,
                              uint64_t position);
void rsi_agent_begin_lag(struct rsi_agent *agent, struct rsi_session *session, uint32_t log_index,
                         uint64_t position);
void rsi_agent_end_lag(struct rsi_agent *agent, struct rsi_session *session, uint32_t log_index);

/* A frame of a log on its way to one session that matches it. */
struct rsi_delivery {
    const struct rsi_match *match;
    struct rsi_publication *publication;
    const struct rsi_frame_header *header;
    uint64_t frame_bytes;
    uint32_t log_index;
    uint64_t position;
};

/* snapshots.c: last values for subscriptions that asked for them. */

/* SUBSCRIBE was applied. */
void rsi_agent_begin_snapshot(struct rsi_agent *agent, struct rsi_session *session,
                              struct rsi_snapshot *snapshot,
                              const struct rsi_subscription *subscription);
/* The subscription is given up, or has all: its snapshot is forgotten, if it had one. */
void rsi_agent_end_snapshot(struct rsi_agent *agent, struct rsi_session *session,
                            uint64_t subscription);
/* The session leaves or is at fault. */
void rsi_agent_end_snapshots(struct rsi_agent *agent, struct rsi_session *session);
/* Stages the marks of snapshots that are not started. False: no room for all. */
bool rsi_agent_start_snapshots(struct rsi_agent *agent, struct rsi_session *session);
/* Frames from before the snapshots' starts went to the spill: they come first. */
void rsi_agent_snapshots_await_spill(struct rsi_session *session);
/* Sends what there is room for of a session that is owed last values. Returns how much was done. */
uint64_t rsi_agent_send_snapshot(struct rsi_agent *agent, struct rsi_session *session);

/* conflating.c: sessions under policy conflate. */

/* The session has the policy, or what it left in the queue is not sent yet. */
bool rsi_agent_conflates(const struct rsi_session *session);
/* It conflates and the ring has no room: the frame is missed. */
void rsi_agent_miss(struct rsi_agent *agent, const struct rsi_delivery *delivery);
/* Topics wait for room: delivers the frame or misses it. Whether it was delivered. */
bool rsi_agent_deliver_conflating(struct rsi_agent *agent, const struct rsi_delivery *delivery);
/* The topic waits for room: its value comes live. */
bool rsi_agent_is_conflated(const struct rsi_session *session, const struct rsi_topic *topic);
/* Sends what there is room for. Returns how many topics. */
uint64_t rsi_agent_send_conflated(struct rsi_agent *agent, struct rsi_session *session);
/* The session has policy conflate from here on: it lags no more. */
void rsi_agent_begin_conflate(struct rsi_agent *agent, struct rsi_session *session);
/* After an unsubscribe; and when the session leaves or is at fault. */
void rsi_agent_forget_unwanted_missed(struct rsi_agent *agent, struct rsi_session *session);
void rsi_agent_end_conflate(struct rsi_agent *agent, struct rsi_session *session);
/* fanout.c: the topic has a last value, and this frame is it from here on. */
void rsi_agent_keep_last(struct rsi_agent *agent, const struct rsi_topic *topic,
                         struct rsi_publication *publication, const struct rsi_frame_header *header,
                         uint64_t frame_bytes, uint32_t log_index, uint64_t position);
/* fanout.c: puts a frame to a session that does not lag, or holds it back. Whether it was put. */
bool rsi_agent_deliver(struct rsi_agent *agent, const struct rsi_delivery *delivery);

/* spilling.c: sessions that may block publishers, and those that have no room in their rings. */

/* What waits in the session's spill or queue has changed. */
void rsi_agent_set_care(struct rsi_agent *agent, struct rsi_session *session);

/* The session needs care: delivers the frame or holds it back. Whether it was delivered. */
bool rsi_agent_deliver_with_care(struct rsi_agent *agent, const struct rsi_delivery *delivery);
/* The out ring has no room for a reply: as below, but a reply never makes the session block, and is
 * left out where it would. */
void rsi_agent_hold_back_reply(struct rsi_agent *agent, struct rsi_session *session,
                               const struct rsi_frame_header *header, uint64_t frame_bytes,
                               uint32_t log_index, uint64_t position);
/* The out ring has no room: the frame goes to the spill, or the session leaves the walk. */
void rsi_agent_hold_back(struct rsi_agent *agent, const struct rsi_delivery *delivery);
/* Moves frames from the spill to the out ring. Returns how many. */
uint64_t rsi_agent_drain_spill(struct rsi_agent *agent, struct rsi_session *session);
/* The session has policy block from here on. */
void rsi_agent_begin_block(struct rsi_agent *agent, struct rsi_session *session,
                           enum rsi_policy policy_before);
/* Its first subscription with policy block was applied; before the index learns of it. */
void rsi_agent_allow_block(struct rsi_agent *agent, struct rsi_session *session);
/* Strikes out what nothing of the session asks for any more. */
void rsi_agent_strike_unwanted(struct rsi_agent *agent, struct rsi_session *session);
/* The session leaves or is at fault: its spill is given up, and nobody waits for it. */
void rsi_agent_end_block(struct rsi_agent *agent, struct rsi_session *session);
/* Whether a frame at `position` precedes what is owed from these start positions on. */
bool rsi_agent_is_before_start(const struct rsi_session *session, const uint64_t *start_pos,
                               uint32_t log_index, uint64_t position);
/* Whether a frame at `position` precedes what the match is owed. */
bool rsi_match_is_too_early(const struct rsi_match *match, uint32_t log_index, uint64_t position);

#endif
