/*
 * Requests and replies: who was given which request and may answer it, and what becomes of those
 * that nobody answers.
 *
 * Design notes
 * - A request is a message of its publication, with the requester in its first entry. Its home
 * agent enters the session, so none can ask in another's name; when nobody subscribes, it answers
 * at once in the request's place.
 * - When the walk meets a request, the home agent of each session that gets it notes {requester,
 *   number} with that session: its right to answer, once. A reply without that note is passed over
 *   and counted. So no answer reaches a caller who did not ask this session for it.
 * - A reply is a frame of no publication. It goes through the log of its sender's home agent as all
 *   frames do, and the requester's home agent finds the session by its id.
 * - The notes are bounded: the oldest one gives way to a new one, for there are subscribers who
 * never answer anything.
 * - A request that only one session got, as its home agent saw when it admitted it, is answered as
 *   lost when that session ends, lets it go or leaves it out. The answers wait with the notes while
 *   the log has no room, and the session is not let go of before.
 */
#ifndef RSI_BROKER_CALLS_H
#define RSI_BROKER_CALLS_H

#include "broker/data_agent.h"
#include "transport/frame.h"

struct rsi_agent;

/* One note. */
struct rsi_call {
    struct rsi_frame_entry requester;
    bool is_used;
    bool is_sole; /* no other session got it */
    bool is_lost; /* to be answered so */
};

struct rsi_outstanding {
    uint32_t next;  /* note to be written next: the oldest one */
    uint32_t count; /* notes in use */
    uint32_t lost_count;
    struct rsi_call calls[RSI_OUTSTANDING_MAX];
    uint32_t slots[2 * RSI_OUTSTANDING_MAX]; /* hash: 1 + index of a note; 0: free */
};

/* Notes a request. True: an older note had to give way and is in *evicted. The same request twice
 * is one note. */
bool rsi_outstanding_add(struct rsi_outstanding *outstanding, const struct rsi_call *call,
                         struct rsi_call *evicted);
/* The note of a request, or NULL. */
struct rsi_call *rsi_outstanding_find(struct rsi_outstanding *outstanding,
                                      const struct rsi_frame_entry *requester);
void rsi_outstanding_remove(struct rsi_outstanding *outstanding, struct rsi_call *call);

/* ---- an agent's sessions by id ------------------------------------------------------------------
 */

RSI_MUST_CHECK rsi_status_t rsi_sessions_by_id_init(struct rsi_agent *agent,
                                                    struct rsi_error *error);
void rsi_sessions_by_id_add(struct rsi_agent *agent, struct rsi_session *session);
void rsi_sessions_by_id_remove(struct rsi_agent *agent, const struct rsi_session *session);
/* NULL: it has none of that id. */
struct rsi_session *rsi_sessions_by_id_find(const struct rsi_agent *agent, uint64_t id);

/* ---- frames -------------------------------------------------------------------------------------
 */

/* The first entry of a frame of a log or spill. */
static inline struct rsi_frame_entry rsi_call_requester(const struct rsi_frame_header *header)
{
    struct rsi_frame_entry entry;
    __builtin_memcpy(&entry, (const uint8_t *)header + rsi_frame_entries_at(header), sizeof(entry));
    return entry;
}

/* Admission: a reply of `session`. False: there is no room, or *why says what is wrong. */
bool rsi_agent_admit_reply(struct rsi_agent *agent, struct rsi_session *session,
                           const struct rsi_frame *frame, uint64_t limit_pos, const char **why);
/* How many sessions get a request of this publication, beside those chosen of groups. */
uint32_t rsi_agent_count_followers(const struct rsi_agent *agent,
                                   const struct rsi_session *publisher,
                                   const struct rsi_publication *publication);
/* Appends an answer that the broker gives itself. False: there is no room. */
bool rsi_agent_answer(struct rsi_agent *agent, const struct rsi_frame_entry *requester,
                      enum rsi_reply_status status, uint64_t limit_pos);
/* Admission: answers what is lost. False: there is no room for all. */
bool rsi_agent_answer_lost(struct rsi_agent *agent, uint64_t limit_pos, uint64_t *answer_count);
/* The common walk meets a request or a reply. Returns how many sessions it was put to. */
uint64_t rsi_agent_walk_call(struct rsi_agent *agent, const struct rsi_frame_header *header,
                             uint64_t frame_bytes, uint32_t log_index, uint64_t position);
/* A request that was noted with the session is not delivered to it after all. */
void rsi_agent_lose_call(struct rsi_agent *agent, struct rsi_session *session,
                         const struct rsi_frame_header *header);
/* The session leaves: what it has and did not answer is lost. */
void rsi_agent_lose_calls(struct rsi_agent *agent, struct rsi_session *session);

#endif
