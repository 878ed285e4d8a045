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

enum rsi_policy { RSI_POLICY_DROP = 1, RSI_POLICY_DISCONNECT = 2, RSI_POLICY_BLOCK = 3 };

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
    /* Any agent: sessions that were not told yet of a gap in it. It is not retired before that. */
    _Atomic uint32_t gap_pending_count;
};

/* Where a session reads one log when it lags behind its agent's common walk. */
struct rsi_lag {
    uint64_t cursor_pos;
    bool is_lagging;
    bool is_blocking; /* policy block and half a window behind: admission stands still */
    bool is_dropping; /* policy drop acts: the cursor skips up to the common walk */
};

/* The home agent's part of a session. Made zeroed by the control agent, sized by rsi_session_init.
 */
struct rsi_session_data {
    struct rsi_lag lags[RSI_AGENT_COUNT_MAX];
    uint32_t lagging_count;
    bool is_dirty;          /* staged frames wait for place and flush */
    bool is_leaving;        /* LEAVE was applied: admit what has arrived, then let go */
    bool is_failed;         /* a protocol fault was reported: nothing more is read or written */
    uint32_t slot;          /* in the agent's session table */
    enum rsi_policy policy; /* resolved over its subscriptions: block > disconnect > drop */
    uint32_t policy_counts[RSI_POLICY_BLOCK + 1]; /* subscriptions that ask for each */
    uint64_t *announced;                          /* bit per publication slot */
    uint64_t *gap_pending; /* bit per publication slot: gap_next[] waits to be told */
    uint64_t *gap_first;   /* per publication slot: first sequence left out */
    uint64_t *gap_next;    /* per publication slot: first sequence after the gap */
    uint32_t *match_index; /* per topic slot: where its match stands; RSI_NO_MATCH: none */
    uint32_t gap_pending_count;
    struct rsi_publication **aliases; /* this client's publications by alias; control agent sizes */
    uint32_t alias_count_max;
    uint32_t closing_count; /* of its publications that wait for their close_pos */
    uint64_t stop_pos;      /* after STOP: nothing beyond is admitted */
    uint64_t leave_pos;     /* leaving: more may arrive up to here */
    uint64_t blocked_since_ns;
};

/* What the home agent counts for a session; read by the control agent (relaxed). */
struct rsi_session_counts {
    _Atomic uint64_t admitted_messages;
    _Atomic uint64_t admitted_bytes; /* payload */
    _Atomic uint64_t delivered_messages;
    _Atomic uint64_t delivered_bytes; /* payload */
    _Atomic uint64_t dropped_messages;
    _Atomic uint64_t gaps;       /* times that messages were left out */
    _Atomic uint64_t blocked_ns; /* time for which this session held admission up */
    _Atomic uint64_t lag_bytes;  /* behind the furthest log end, at the last pass that looked */
};

struct rsi_session {
    /* Constant once posted (control agent). */
    uint64_t id;
    char name[RSI_NAME_BYTES_MAX + 1];
    struct rsi_link *link;
    uint32_t agent;
    uint64_t message_bytes_max;
    uint64_t publish_ring_bytes;
    uint64_t deliver_ring_bytes;
    void *owner; /* the control agent's own record of it */

    /* Home agent -> control agent. `faulted` is released after `fault` is written; once. */
    _Atomic uint32_t faulted;
    struct rsi_error fault; /* RSI_E_PROTOCOL, RSI_E_SLOW: the control agent ends the session */
    _Atomic uint32_t left;  /* after LEAVE: the home agent no longer touches session or link */
    struct rsi_session_counts counts;

    RSI_SEPARATOR(before_data);
    struct rsi_session_data data;
};

/* Control agent: allocates what the home agent needs for it. */
struct rsi_data_options;
RSI_MUST_CHECK rsi_status_t rsi_session_init(struct rsi_session *session,
                                             const struct rsi_data_options *options,
                                             struct rsi_error *error);
void rsi_session_fini(struct rsi_session *session);

/* ---- edits ------------------------------------------------------------------------------------
 */

enum rsi_edit_kind {
    RSI_EDIT_SESSION_JOIN = 1, /* session: its link is ATTACHED; serve it from here on */
    RSI_EDIT_SESSION_LEAVE, /* session; position: admit all that has arrived, and what arrives up to
                               here while the link is attached, then set `left` and forget it */
    RSI_EDIT_PUBLICATION_OPEN,   /* publication, session (its publisher) */
    RSI_EDIT_PUBLICATION_CLOSE,  /* publication, session; position: admit up to here first */
    RSI_EDIT_PUBLICATION_RETIRE, /* publication: no log holds it any more, all forget its slot */
    RSI_EDIT_SUBSCRIBE,          /* session, subscription, subject, policy, no_echo */
    RSI_EDIT_UNSUBSCRIBE,        /* session, subscription */
    RSI_EDIT_TOPIC_RETIRE,       /* topic: no publication is left on it */
    RSI_EDIT_STOP,               /* admit what has arrived and deliver it, then take nothing more */
};

struct rsi_edit {
    enum rsi_edit_kind kind;
    enum rsi_policy policy;
    bool no_echo;
    uint32_t topic;
    struct rsi_session *session;
    struct rsi_publication *publication;
    uint64_t subscription; /* unique within the session */
    uint64_t position;
    char subject[RSI_SUBJECT_BYTES_MAX +
                 1]; /* pattern; PUBLICATION_OPEN takes it from publication */
};

/* ---- agents ------------------------------------------------------------------------------------
 */

struct rsi_data_options {
    uint32_t agent_count;                /* 1 to RSI_AGENT_COUNT_MAX */
    int agent_cpus[RSI_AGENT_COUNT_MAX]; /* -1: not pinned */
    rsi_idle_strategy_t idle_strategy;
    uint64_t spin_ns;
    uint64_t log_bytes; /* each agent's log: power of two, >= 4 largest messages */
    uint32_t session_count_max;
    uint32_t publication_count_max;  /* power of two */
    uint32_t topic_count_max;        /* power of two */
    uint32_t alias_count_max;        /* publications that one session may have; alias <= this */
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

/*
 * PUBLICATION_CLOSE is done when the home agent has admitted up to its position: then
 * rsi_publication_is_closed is true. RETIRE may be posted when rsi_publication_is_unused: no
 * agent's cursor can meet a frame of it any more.
 */
bool rsi_publication_is_closed(const struct rsi_data_plane *plane,
                               const struct rsi_publication *publication);
bool rsi_publication_is_unused(const struct rsi_data_plane *plane,
                               const struct rsi_publication *publication);

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
    _Atomic uint64_t blocked_passes; /* in which admission stood still for a blocked session */
    _Atomic uint64_t log_pos;        /* end of its log */
    _Atomic uint64_t longest_pass_ns;
};
const struct rsi_agent_counts *rsi_data_plane_counts(const struct rsi_data_plane *plane,
                                                     uint32_t agent);

#endif
