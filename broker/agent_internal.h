/*
 * What data_agent.c, admission.c and fanout.c share: one agent and the plane of all agents.
 *
 * Design notes: data_agent.h. Fields are grouped by the thread that writes them.
 */
#ifndef RSI_BROKER_AGENT_INTERNAL_H
#define RSI_BROKER_AGENT_INTERNAL_H

#include "broker/data_agent.h"
#include "broker/topic_index.h"
#include "core/assert.h"
#include "transport/frame.h"

#define RSI_EDIT_COUNT 1024u /* power of two: edits posted and not yet applied by all */

/* Work of one pass is bounded, so that no session and no log waits long for its turn. */
#define RSI_ADMIT_BYTES_PER_PASS (128u << 10) /* per session */
#define RSI_WALK_BYTES_PER_PASS  (512u << 10) /* per log or lagging cursor */
/* An idle poller whose look costs a system call is polled once in so many passes, beside others. */
#define RSI_PASSES_PER_COSTLY_POLL 8u
#define RSI_SKIP_BYTES_PER_PASS    (2u << 20) /* per dropping cursor */
/* Polls at a stop, until nothing more has arrived: a bound for peers that never fall silent. */
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
    struct rsi_session **sessions; /* dense */
    uint32_t session_count;
    struct rsi_session **dirty; /* staged frames wait for place and flush */
    uint32_t dirty_count;
    uint32_t admit_from;        /* rotates, so that every session is first in turn */
    uint32_t lagging_count;     /* cursors of sessions that lag, over all logs */
    uint32_t gap_session_count; /* sessions with gaps to be told */
    uint32_t leaving_count;
    uint32_t closing_count;                   /* publications that wait for their close_pos */
    uint64_t common_pos[RSI_AGENT_COUNT_MAX]; /* the common walk of each log */
    uint64_t random;                          /* order of logs; 0: by number */
    bool is_stopping;
    bool has_stalled_input;                 /* admission stood still with frames waiting */
    uint64_t admit_needed_pos;              /* what the log's window ended at when it was full */
    uint64_t now_ns;                        /* of this pass */
    bool has_worked;                        /* the pass before */
    bool was_busy[RSI_TRANSPORT_COUNT_MAX]; /* pollers that found something when last polled */
    struct rsi_idle idle;
    struct rsi_agent_counts counts;

    RSI_SEPARATOR(before_shared);
    /* Agent; read by others. */
    _Atomic uint64_t needed_pos[RSI_AGENT_COUNT_MAX]; /* lowest still needed, per log */
    _Atomic uint64_t applied_count;                   /* edits applied */
    _Atomic uint32_t wants_room;   /* its log is full: wake it when needed_pos moves */
    _Atomic uint32_t has_admitted; /* stopping: will append nothing more */
    _Atomic uint32_t is_drained;   /* stopping: and everything was delivered */
    RSI_SEPARATOR(after_shared);
};

struct rsi_data_plane {
    struct rsi_data_options options;
    struct rsi_agent *agents[RSI_AGENT_COUNT_MAX];
    /* By slot; the control agent stores before it posts the edit. */
    _Atomic(struct rsi_publication *) *publications;
    _Atomic uint32_t must_end;

    RSI_SEPARATOR(before_edits);
    /* Control agent. */
    struct rsi_edit edits[RSI_EDIT_COUNT];
    _Atomic uint64_t edit_count;

    RSI_SEPARATOR(before_blocked);
    /* Any agent: cursors that are half a window behind under policy block. Not 0: nobody admits. */
    _Atomic uint32_t blocked_count;
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

static inline void rsi_agent_mark_dirty(struct rsi_agent *agent, struct rsi_session *session)
{
    if (session->data.is_dirty) {
        return;
    }
    session->data.is_dirty = true;
    agent->dirty[agent->dirty_count++] = session;
}

/* The session is at fault: it is served no more, and the control agent ends it. First one counts.
 */
void rsi_agent_fault(struct rsi_agent *agent, struct rsi_session *session, rsi_status_t status,
                     const char *format, ...) RSI_PRINTF(4, 5) RSI_COLD;

/* Tells the other agents that something moved for which they may sleep. */
void rsi_agent_wake_others(struct rsi_agent *agent);

/* data_agent.c: applies what was posted since. Returns how many edits. */
uint64_t rsi_agent_apply_edits(struct rsi_agent *agent);

/* admission.c: takes frames from ingress rings into the log. Returns how many. */
uint64_t rsi_agent_admit(struct rsi_agent *agent);
/* Lowest position of its own log that any agent still needs. */
uint64_t rsi_agent_lowest_needed_pos(const struct rsi_agent *agent);
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

#endif
