/*
 * Data agents: the threads that move messages. Everything a message passes between two links is
 * here and in the files it names: message_log, topic_index, fanout, admission.
 *
 * Design notes
 * - A session's home agent owns its link's data plane for life: it admits what the client publishes
 *   into its own log and copies what the client subscribed to into the link's out ring.
 * - Every agent walks every agent's log with cursors of its own. No locks, no message passing per
 *   message: a log's end and the lowest position an agent still needs are the only shared words.
 * - The control agent tells the agents what exists by one ordered list of edits. An agent applies
 *   all edits it sees before it admits and before it walks a newly acquired end of a log; an edit
 * is done when every agent has applied it. So what is published after an acknowledged subscription
 * is seen, and a publication is known to every agent before its first frame can be in any log.
 * - Memory is allocated by the control agent before the edit is posted and freed by it after the
 *   edit that ends its use was applied by all. The one exception: topic_index grows its match lists
 *   while it applies an edit, never per message.
 *
 * Who writes what
 *     edits, publications (but for next_sequence), sessions (but for `data`)   control agent
 *     session->data, publication->next_sequence                               home agent
 *     agent->applied_count, agent->log end, agent->needed_pos[]               that agent
 */
#ifndef RSI_BROKER_DATA_AGENT_H
#define RSI_BROKER_DATA_AGENT_H

#include "broker/latency.h"
#include "broker/message_log.h"
#include "core/atomics.h"
#include "core/counters.h"
#include "core/idle.h"
#include "core/waker.h"
#include "transport/transport.h"

#include <pthread.h>
#include <stdint.h>

#define RSI_AGENT_COUNT_MAX     8u
#define RSI_TRANSPORT_COUNT_MAX 4u
#define RSI_MEMBER_COUNT_MAX    1024u /* of queue groups, in all */
#define RSI_OUTSTANDING_MAX     1024u /* requests that one session has and did not answer */

enum rsi_policy {
    RSI_POLICY_DROP = 1,
    RSI_POLICY_DISCONNECT = 2,
    RSI_POLICY_BLOCK = 3,
    RSI_POLICY_CONFLATE = 4
};

#define RSI_POLICY_COUNT 5u /* 0 is none */

/* One publisher object: one client on one topic. Lives from OPEN until the log no longer holds it.
 */
struct rsi_publication {
    /* Constant once posted. */
    uint32_t id;    /* never reused in this broker's life; id % publication_count_max is its slot */
    uint32_t topic; /* topic id; topic % topic_count_max is its slot */
    uint32_t alias; /* the client's number for it */
    uint64_t publisher_session;
    char subject[RSI_SUBJECT_BYTES_MAX + 1];
    uint16_t subject_bytes;
    char publisher_name[RSI_NAME_BYTES_MAX + 1];
    uint16_t publisher_name_bytes;
    /* Memory for its topic, one for each agent, which takes it when it applies the edit: agents
     * are not to lack it. Made by rsi_data_plane_post. */
    struct rsi_topic *topic_memory[RSI_AGENT_COUNT_MAX];
    /* Home agent. */
    uint64_t next_sequence; /* of the next frame admitted; begins at 1 */
    uint64_t close_pos;     /* of the ingress ring: admit up to here, then it is closed */
    bool is_closing;
    uint64_t closed_log_pos; /* end of the home log when it was closed */
    _Atomic uint32_t closed; /* released after closed_log_pos */
    uint32_t home_agent;
    bool is_last_value; /* constant: its topic has a last value (setting last_value) */
    /* Any agent: stores whose value is of this publication. It is not retired before there is none.
     */
    _Atomic uint32_t kept_count;
    /* Any agent: gaps in it of which sessions were not told yet, and its frames in their spills. It
     * is not retired before all of that is gone. */
    _Atomic uint32_t hold_count;
};

/* Where a session reads one log when it lags behind its agent's common walk. */
struct rsi_lag {
    uint64_t cursor_pos;
    bool is_lagging;
    bool is_dropping; /* policy drop acts: the cursor skips up to the common walk */
};

/* Last values that a subscription is still owed (snapshots.c). Made by the control agent, which
 * keeps its memory until UNSUBSCRIBE or FORGET was applied; the home agent's from SUBSCRIBE to
 * there. */
struct rsi_snapshot {
    /* Constant once posted. */
    uint64_t subscription;
    bool no_echo;
    uint16_t pattern_bytes;
    char pattern[RSI_SUBJECT_BYTES_MAX + 1];
    /* Home agent. */
    struct rsi_snapshot *next;
    uint64_t start_pos[RSI_AGENT_COUNT_MAX]; /* values from before these are owed */
    uint64_t spill_pos;                      /* what the spill holds up to here comes first */
    uint32_t slot;                           /* of the store: the next to look at */
    enum rsi_snapshot_step step;             /* the mark that was sent last; 0: none */
};

/* As a publisher: where it stands in the queue of a session under policy block (blocking.h). */
struct rsi_stall {
    struct rsi_session *by; /* whose queue; NULL: in none */
    uint64_t place_ns;      /* its place; 0: it has none */
    uint64_t turn_used_bytes;
    uint32_t publication; /* on which it waits, and its topic */
    uint32_t topic;
    bool is_waiting; /* its next frame may not be admitted now */
};

/* The home agent's part of a session. Made zeroed by the control agent, sized by rsi_session_init.
 */
struct rsi_session_data {
    struct rsi_lag lags[RSI_AGENT_COUNT_MAX];
    uint32_t lagging_count;
    bool needs_care;       /* frames go to its spill, or its promise to block is not settled */
    bool is_dirty;         /* staged frames wait for place and flush */
    bool is_leaving;       /* LEAVE was applied: admit what has arrived, then let go */
    bool is_failed;        /* a fault was reported: nothing more is delivered to it */
    bool is_distrusted;    /* it broke the protocol: nothing more is admitted from it either */
    uint32_t slot;         /* in the agent's session table */
    uint32_t staged_count; /* messages staged since its last batch was placed */
    uint64_t oldest_publish_time_ns; /* of these; valid when there are any */
    enum rsi_policy
        policy; /* resolved over its subscriptions: block > disconnect > conflate > drop */
    uint32_t policy_counts[RSI_POLICY_COUNT]; /* subscriptions that ask for each */
    uint64_t *announced;                      /* bit per publication slot */
    uint64_t *gap_pending; /* bit per publication slot: gap_next[] waits to be told */
    uint64_t *gap_first;   /* per publication slot: first sequence left out */
    uint64_t *gap_next;    /* per publication slot: first sequence after the gap */
    uint64_t *gap_count;   /* per publication slot: messages left out that were for this session */
    uint64_t *sparse;      /* bit per publication slot: the last frame was chosen, not followed */
    uint32_t sparse_count;
    uint32_t *match_index; /* per topic slot: where its match stands; RSI_NO_MATCH: none */
    /* Gaps to be told and snapshots to be started: they precede the next frame of anything. */
    uint32_t gap_pending_count;
    struct rsi_snapshot *snapshots;   /* in the order in which they are sent; NULL: none is owed */
    struct rsi_publication **aliases; /* this client's publications by alias; control agent sizes */
    uint32_t alias_count_max;
    uint32_t closing_count;        /* of its publications that wait for their close_pos */
    uint64_t stop_pos;             /* nothing beyond is admitted; UINT64_MAX: no such end */
    uint64_t leave_pos;            /* leaving: more may arrive up to here */
    struct rsi_blocking *blocking; /* the session's; NULL before its first SUBSCRIBE with block */
    struct rsi_conflating *conflating; /* likewise, with conflate */
    struct rsi_stall stall;
};

/* What the home agent counts for a session; read by the control agent (relaxed). */
struct rsi_session_counts {
    _Atomic uint64_t admitted_messages;
    _Atomic uint64_t admitted_bytes; /* payload */
    _Atomic uint64_t delivered_messages;
    _Atomic uint64_t delivered_bytes; /* payload */
    _Atomic uint64_t dropped_messages;
    _Atomic uint64_t conflated_messages; /* left out because a newer one took their place */
    _Atomic uint64_t gaps;               /* times that messages were left out */
    _Atomic uint64_t lag_bytes; /* behind the furthest log end, at the last pass that looked */
    /* As a subscriber under policy block. Spans: rsi_count_span. */
    _Atomic uint64_t blocked_ns;       /* time for which publishers waited for it */
    _Atomic uint64_t blocked_since_ns; /* and since when they do; 0: they do not */
    _Atomic uint64_t blocked_count;    /* times that this began */
    _Atomic uint64_t spill_bytes;      /* that wait for room in its out ring */
    _Atomic uint64_t spill_bytes_max;
    /* As a publisher. */
    _Atomic uint64_t stalled_ns; /* time for which it waited for subscribers under policy block */
    _Atomic uint64_t stalled_since_ns;
    _Atomic uint64_t stalled_by; /* id of the session that it waited for last */
};

/* A span that began at *since_ns has ended. In this order no reader counts it twice. */
static inline void rsi_count_span(_Atomic uint64_t *since_ns, _Atomic uint64_t *total_ns,
                                  uint64_t span_ns)
{
    rsi_store_relaxed(since_ns, 0u);
    rsi_store_release(total_ns, rsi_load_relaxed(total_ns) + span_ns);
}

/* All spans, with the one that has not ended. May be short of one that ends just now. */
static inline uint64_t rsi_count_spans_ns(const _Atomic uint64_t *since_ns,
                                          const _Atomic uint64_t *total_ns, uint64_t now_ns)
{
    uint64_t spans_ns = rsi_load_acquire(total_ns); /* pairs with rsi_count_span */
    uint64_t began_ns = rsi_load_relaxed(since_ns);
    return began_ns != 0 && began_ns < now_ns ? spans_ns + (now_ns - began_ns) : spans_ns;
}

struct rsi_session {
    /* Constant once posted (control agent). */
    uint64_t id;
    char name[RSI_NAME_BYTES_MAX + 1];
    uint32_t agent;
    uint64_t message_bytes_max;
    uint64_t publish_ring_bytes;
    uint64_t deliver_ring_bytes;
    void *owner; /* the control agent's own record of it */
    /* Control agent, before the first SUBSCRIBE with policy block is posted. */
    struct rsi_blocking *blocking;
    /* Likewise, with policy conflate; a session has at most one of the two. */
    struct rsi_conflating *conflating;
    /* Control agent, before the first SUBSCRIBE is posted; from there on the home agent's. */
    struct rsi_outstanding *outstanding;

    /* Home agent, from JOIN to `left`; a RESUME changes it. */
    struct rsi_link *link;

    /* Home agent -> control agent. `held_consumed_pos` is told by SUSPEND. `faulted` is released
     * after `fault` is written; once. */
    _Atomic uint32_t faulted;
    struct rsi_error fault; /* RSI_E_PROTOCOL, RSI_E_SLOW: the control agent ends the session */
    _Atomic uint32_t left;  /* after LEAVE: the home agent no longer touches session or link */
    uint64_t held_consumed_pos;
    struct rsi_session_counts counts;
    struct rsi_latency latency; /* home agent; read by the control agent */
    /* Home agent; read by all agents that choose members of groups. */
    _Atomic uint32_t is_behind;    /* frames wait for room in its ring, or it has no link */
    _Atomic uint32_t is_contended; /* it stands in the table of those who hold publishers back */
    /* Home agent -> control agent, for who drains a subscription. */
    _Atomic uint64_t spill_head_pos;
    _Atomic uint64_t spill_tail_pos;
    _Atomic uint64_t unsubscribed_pos; /* of its out ring, when the last UNSUBSCRIBE was applied */

    RSI_SEPARATOR(before_data);
    struct rsi_session_data data;
};

/* Control agent: allocates what the home agent needs for it. */
struct rsi_data_options;
RSI_MUST_CHECK rsi_status_t rsi_session_init(struct rsi_session *session,
                                             const struct rsi_data_options *options,
                                             struct rsi_error *error);
void rsi_session_fini(struct rsi_session *session);
/*
 * Control agent: makes what policy block needs, a spill above all. Before the session's first
 * SUBSCRIBE with policy block is posted; once. Freed by fini.
 */
RSI_MUST_CHECK rsi_status_t rsi_session_allow_block(struct rsi_session *session,
                                                    const struct rsi_data_options *options,
                                                    struct rsi_error *error);
/* The same for policy conflate (conflating.h). The broker keeps last values. */
RSI_MUST_CHECK rsi_status_t rsi_session_allow_conflate(struct rsi_session *session,
                                                       const struct rsi_data_options *options,
                                                       struct rsi_error *error);
void rsi_session_free_conflating(struct rsi_session *session);
/* Control agent: makes what a session needs to be given requests. Before its first SUBSCRIBE is
 * posted; freed by fini. */
RSI_MUST_CHECK rsi_status_t rsi_session_allow_replies(struct rsi_session *session,
                                                      struct rsi_error *error);
/* Bytes of the spill's memory; 0: it has none. */
uint64_t rsi_session_spill_capacity_bytes(const struct rsi_session *session);
/* The id of the publication whose publisher waits for this session first; 0: nobody waits. */
uint32_t rsi_session_stalled_publication(const struct rsi_session *session);

/* ---- edits ------------------------------------------------------------------------------------
 */

enum rsi_edit_kind {
    RSI_EDIT_SESSION_JOIN = 1, /* session: its link is ATTACHED; serve it from here on */
    RSI_EDIT_SESSION_LEAVE, /* session; position: admit all that has arrived, and what arrives up to
                               here while the link is attached, then set `left` and forget it; 0:
                               nothing that arrives from now on */
    RSI_EDIT_SESSION_HALT,  /* session, which leaves: what is not admitted by now never is */
    RSI_EDIT_SESSION_FORGET, /* session: `left` was seen; when all have applied it nothing refers to
                                the session, and it may be freed */
    RSI_EDIT_SESSION_SUSPEND,  /* session: its link is CLOSED; say what it has consumed so far */
    RSI_EDIT_SESSION_RESUME,   /* session, link: goes on over this one, which is ATTACHED and starts
                                  where the session's CLOSED one ended; what is owed moves over */
    RSI_EDIT_PUBLICATION_OPEN, /* publication, session (its publisher) */
    RSI_EDIT_PUBLICATION_CLOSE,  /* publication, session; position: admit up to here first */
    RSI_EDIT_PUBLICATION_RETIRE, /* publication: no log holds it any more, all forget its slot */
    RSI_EDIT_SUBSCRIBE,    /* session, subscription, subject, policy, no_echo, group, snapshot */
    RSI_EDIT_DRAIN,        /* session, subscription: its group chooses it no more */
    RSI_EDIT_UNSUBSCRIBE,  /* session, subscription */
    RSI_EDIT_TOPIC_RETIRE, /* topic: no publication is left on it */
    RSI_EDIT_STOP,         /* admit what has arrived and deliver it, then take nothing more */
};

struct rsi_edit {
    enum rsi_edit_kind kind;
    enum rsi_policy policy;
    bool no_echo;
    uint32_t topic;
    struct rsi_session *session;
    struct rsi_link *link;
    struct rsi_publication *publication;
    struct rsi_snapshot *snapshot; /* NULL: it wants no last values */
    uint64_t subscription;         /* unique within the session */
    uint64_t position;
    char subject[RSI_SUBJECT_BYTES_MAX +
                 1];                    /* pattern; PUBLICATION_OPEN takes it from publication */
    char group[RSI_NAME_BYTES_MAX + 1]; /* queue group; empty: none */
};

/* ---- agents ------------------------------------------------------------------------------------
 */

struct rsi_data_options {
    uint32_t agent_count;                /* 1 to RSI_AGENT_COUNT_MAX */
    int agent_cpus[RSI_AGENT_COUNT_MAX]; /* -1: not pinned */
    rsi_idle_strategy_t idle_strategy;
    uint64_t spin_ns;
    uint64_t log_bytes;         /* each agent's log: power of two, >= 4 largest messages */
    uint64_t message_bytes_max; /* the largest message of any session; 0: at most 64 KiB */
    uint64_t block_timeout_ns;  /* a subscriber that holds publishers back and takes nothing */
    uint32_t session_count_max;
    uint32_t publication_count_max;  /* power of two */
    uint32_t topic_count_max;        /* power of two */
    uint32_t alias_count_max;        /* publications that one session may have; alias <= this */
    uint32_t last_value_count_max;   /* topics with a last value; 0: none has one */
    uint64_t last_value_bytes;       /* each agent's store of values */
    uint64_t walk_seed;              /* tests: order in which logs are walked; 0: by number */
    struct rsi_waker *control_waker; /* woken when an agent has something for the control agent */
};

struct rsi_data_plane; /* all agents, the edit list, the publication table */

/* Control agent. Allocates logs and tables, starts no thread yet. Sizes go to the log (info). */
RSI_MUST_CHECK rsi_status_t rsi_data_plane_create(struct rsi_data_plane **plane,
                                                  const struct rsi_data_options *options,
                                                  struct rsi_error *error);
/*
 * Gives agent `agent` a poller of one transport. Before start, control agent. The poller must have
 * been made with rsi_data_plane_waker(plane, agent) as owner_waker and belongs to the caller.
 */
RSI_MUST_CHECK rsi_status_t rsi_data_plane_add_poller(struct rsi_data_plane *plane, uint32_t agent,
                                                      struct rsi_poller *poller,
                                                      struct rsi_error *error);
struct rsi_waker *rsi_data_plane_waker(struct rsi_data_plane *plane, uint32_t agent);
/* Starts the threads, pinned and named. */
RSI_MUST_CHECK rsi_status_t rsi_data_plane_start(struct rsi_data_plane *plane,
                                                 struct rsi_error *error);
/* Ends the threads; all sessions have left. Idempotent. */
void rsi_data_plane_stop(struct rsi_data_plane *plane);
/* After stop, or when start was never called. NULL is fine. */
void rsi_data_plane_destroy(struct rsi_data_plane *plane);

/* Frees what posting made for it and no agent took. Its own memory is the caller's. */
void rsi_publication_fini(struct rsi_publication *publication);

/*
 * Control agent. Posts an edit and wakes the agents; *ticket tells it done through
 * rsi_data_plane_is_applied. WOULD_BLOCK: the list is full; try again when agents have moved on.
 * NO_MEMORY: there is none for a topic; try again later.
 * PUBLICATION_OPEN enters the publication in the table; the caller keeps the memory until RETIRE
 * was applied by all.
 */
RSI_MUST_CHECK rsi_status_t rsi_data_plane_post(struct rsi_data_plane *plane,
                                                const struct rsi_edit *edit, uint64_t *ticket);
/* Every agent has applied the edit. The control waker is woken when an agent applied edits. */
bool rsi_data_plane_is_applied(const struct rsi_data_plane *plane, uint64_t ticket);

/* A DRAIN was applied by all: where the logs end. What was chosen before it lies below. */
void rsi_data_plane_ends(const struct rsi_data_plane *plane, uint64_t ends[RSI_AGENT_COUNT_MAX]);
/* Whether the session's home agent has moved everything below these ends out of the logs: into its
 * out ring, its spill, or gaps to be told. Nobody is woken for that: ask again. */
bool rsi_data_plane_has_passed(const struct rsi_data_plane *plane,
                               const struct rsi_session *session,
                               const uint64_t ends[RSI_AGENT_COUNT_MAX]);

/*
 * PUBLICATION_CLOSE is done when the home agent has admitted up to its position: then
 * rsi_publication_is_closed is true. RETIRE may be posted when rsi_publication_is_unused: no
 * agent's cursor can meet a frame of it any more.
 */
bool rsi_publication_is_closed(const struct rsi_data_plane *plane,
                               const struct rsi_publication *publication);
bool rsi_publication_is_unused(const struct rsi_data_plane *plane,
                               const struct rsi_publication *publication);
/* The last value of its topic is of this publication, in some agent's store. */
bool rsi_publication_is_kept(const struct rsi_publication *publication);
/* Moves when a closed publication may be kept no longer; the control waker is woken then. */
uint64_t rsi_data_plane_unkept_count(const struct rsi_data_plane *plane);

/* After STOP was applied: everything that arrived was delivered into the out rings and emitted, and
 * the peers took it; or there was nothing. */
bool rsi_data_plane_is_drained(const struct rsi_data_plane *plane);

/* What an agent counts, read by the control agent (relaxed). */
struct rsi_agent_counts {
    _Atomic uint64_t passes;
    _Atomic uint64_t busy_passes; /* that found something to do */
    _Atomic uint64_t sleeps;
    _Atomic uint64_t wakes; /* sleeps that an event ended, not a time-out */
    _Atomic uint64_t admitted_messages;
    _Atomic uint64_t delivered_messages;
    _Atomic uint64_t requests;           /* admitted */
    _Atomic uint64_t no_responders;      /* requests that nobody subscribes to */
    _Atomic uint64_t lost_requests;      /* answered so, as the only session that had it was lost */
    _Atomic uint64_t replies;            /* admitted */
    _Atomic uint64_t refused_replies;    /* of sessions that do not have the request, or no more */
    _Atomic uint64_t chosen_messages;    /* given to a member of a queue group, for each group */
    _Atomic uint64_t blocked_passes;     /* in which a publisher waited for a blocked session */
    _Atomic uint64_t spilled_messages;   /* that had to wait in a spill */
    _Atomic uint64_t contended_sessions; /* that hold publishers back; a level */
    _Atomic uint64_t blocked_ns;         /* sums over its sessions, of spans that have ended */
    _Atomic uint64_t stalled_ns;
    _Atomic uint64_t last_value_topics;    /* in its store; a level */
    _Atomic uint64_t last_value_overflows; /* messages for which its store had too few bytes */
    _Atomic uint64_t log_pos;              /* end of its log */
    _Atomic uint64_t longest_pass_ns;
};
const struct rsi_agent_counts *rsi_data_plane_counts(const struct rsi_data_plane *plane,
                                                     uint32_t agent);

#endif
