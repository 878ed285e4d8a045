/*
 * Policy block: what a session that may hold publishers back keeps beside its data, and who waits
 * for whom.
 *
 * Design notes
 * - A frame that a session under block is owed and that its out ring has no room for goes to its
 *   spill, on its home agent. So it never lags in a log and never holds one.
 * - It is FULL when the spill holds more than one out ring, until it holds at most half of one.
 *   While it is FULL no agent admits a frame that it needs; publishers of anything else go on.
 * - The spill is bounded because what is admitted and not yet walked is: while there are sessions
 *   under block, an agent appends no further than plane->ahead_bytes beyond the lowest position
 *   that all agents have walked. An agent looks at walked_pos first and at the table of
 *   contended sessions after that; a home agent enters a session there before it publishes how far
 *   it walked. So what is appended without a look at the session lies within ahead_bytes of where
 *   its home agent stood when it became FULL, in each log:
 *       spill <= ring + one frame + agents * ahead_bytes
 * - A publisher waits for one session at a time, the first that it finds, in a queue by time.
 *   A session that is no longer FULL lets the waiting ones go in TURNS, one admission batch each;
 * who had its turn goes to the end. Each agent tells the place of its first publisher in
 *   `sides[agent]`; the lowest has the turn. A publisher that moves on to wait for another session
 *   keeps its place.
 * - The promise begins when an agent applies the subscription: `sides[agent].start` is where its
 * log stood then. Frames before it may be more than the spill holds, and are not owed.
 * - The table is per home agent, so that each word has one writer. Other agents follow its pointers
 *   without a lock: a session is freed only after SESSION_FORGET was applied by all, which is
 *   posted after its home agent took it out of the table.
 */
#ifndef RSI_BROKER_BLOCKING_H
#define RSI_BROKER_BLOCKING_H

#include "broker/data_agent.h"
#include "broker/spill.h"

/* What an agent admits at least beyond the lowest walked position; more if a frame is larger. */
#define RSI_ADMIT_AHEAD_BYTES (256u << 10)

enum rsi_blocking_state {
    RSI_BLOCKING_OPEN,  /* holds nobody back */
    RSI_BLOCKING_TURNS, /* has room again; those who waited are let go in turn */
    RSI_BLOCKING_FULL,  /* nothing that it needs is admitted */
};

/* What one agent says to all about a session under block. */
struct rsi_blocking_side {
    _Atomic uint64_t start;    /* 1 + end of its log when it applied the subscription; 0: not yet */
    _Atomic uint64_t place_ns; /* of its publisher that waits first; 0: none waits */
    _Atomic uint32_t publication; /* that this one waits to publish on; written before place_ns */
    RSI_SEPARATOR(after_side);
};

struct rsi_blocking {
    /* Constant once posted. */
    uint64_t ring_bytes;  /* of the out ring */
    uint64_t limit_bytes; /* the spill's bound */

    /* Home agent. */
    struct rsi_spill spill;
    bool is_settling;              /* the common walk has not reached `start` in every log */
    enum rsi_policy policy_before; /* what frames before `start` were published under */
    uint32_t table_slot;
    uint64_t filled_ns;
    uint64_t relieved_ns;
    uint64_t progress_ns; /* when the peer last consumed something, while it is FULL */
    uint64_t progress_pos;
    uint64_t waited_since_ns; /* since when somebody waits for it without a pause; 0: nobody */

    RSI_SEPARATOR(before_shared);
    /* Home agent; read by all. */
    _Atomic uint32_t state;          /* enum rsi_blocking_state */
    _Atomic uint64_t *wanted_topics; /* bit per topic slot: some subscription matches it */
    RSI_SEPARATOR(before_sides);
    struct rsi_blocking_side sides[RSI_AGENT_COUNT_MAX]; /* each agent its own */
};

/* ---- home agent: the session that may hold others back -----------------------------------------
 */

struct rsi_agent;

/* Its spill holds more than a ring. */
void rsi_blocking_fill(struct rsi_agent *agent, struct rsi_session *session);
/* Its spill holds at most half a ring. */
void rsi_blocking_relieve(struct rsi_agent *agent, struct rsi_session *session);
/* It holds nobody back any more: has caught up, gave up policy block, leaves, or is at fault. */
void rsi_blocking_release(struct rsi_agent *agent, struct rsi_session *session);
/* It needs less than before: those who wait for it look again. */
void rsi_blocking_needs_less(struct rsi_agent *agent, const struct rsi_session *session);
/* Once per pass: progress, time-outs, counters, and sessions whose queue has come to its end. */
void rsi_blocking_watch(struct rsi_agent *agent);
/* When the next session is to be ended as slow, if nothing changes; UINT64_MAX: none. */
uint64_t rsi_blocking_deadline_ns(const struct rsi_agent *agent);

/* Whether some subscription of the session matches the topic at this slot. */
static inline void rsi_blocking_set_wanted(struct rsi_blocking *blocking, uint32_t topic_slot,
                                           bool is_wanted)
{
    _Atomic uint64_t *word = &blocking->wanted_topics[topic_slot / 64];
    uint64_t bit = 1ull << (topic_slot % 64);
    uint64_t bits = rsi_load_relaxed(word);
    rsi_store_relaxed(word, is_wanted ? bits | bit : bits & ~bit);
}

static inline bool rsi_blocking_is_full(const struct rsi_blocking *blocking)
{
    return rsi_load_relaxed(&blocking->state) == RSI_BLOCKING_FULL;
}

/* ---- any agent: its publishers ------------------------------------------------------------------
 */

/* A SUBSCRIBE with policy block was applied / a SESSION_FORGET was applied. */
void rsi_blocking_subscribed(struct rsi_agent *agent, struct rsi_session *session);
void rsi_blocking_forget(struct rsi_agent *agent, struct rsi_session *session);
/* Some session is contended. Whether `publisher` may publish its next frame, which is of
 * `publication`; false: it waits from now on. */
bool rsi_blocking_admits(struct rsi_agent *agent, struct rsi_session *publisher,
                         const struct rsi_publication *publication);
/* The frame was admitted. True: the publisher's turn is over. */
bool rsi_blocking_ends_turn(struct rsi_agent *agent, struct rsi_session *publisher,
                            uint64_t frame_bytes);
/* Whether a contended session takes what a publisher with this place (0: it has none yet) sends. */
bool rsi_blocking_takes(const struct rsi_agent *agent, const struct rsi_session *session,
                        uint64_t place_ns);
/* The publisher's place in a queue, or the one that it would get. */
uint64_t rsi_blocking_place_ns(const struct rsi_agent *agent, const struct rsi_session *publisher);
/* The publisher has nothing to admit, or is at fault: others go first. */
void rsi_blocking_step_aside(struct rsi_agent *agent, struct rsi_session *publisher);
/* Whether some publisher of this agent that waits need not wait any more. */
bool rsi_blocking_lets_go(struct rsi_agent *agent);

#endif
