/*
 * One agent's index: which of its own sessions want the frames of a topic.
 *
 * Design notes
 * - Owned by one agent; changed only while it applies edits, read for every frame it walks.
 * - A topic's match list has one entry per session however many of its subscriptions match, because
 * a frame goes once per session; the client hands it to each callback.
 * - A session finds its own entry through data.match_index[topic slot], so that a lagging session
 *   is matched in constant time whatever the number of others.
 * - Lists grow with realloc while an edit is applied; nothing is allocated per message.
 */
#ifndef RSI_BROKER_TOPIC_INDEX_H
#define RSI_BROKER_TOPIC_INDEX_H

#include "broker/data_agent.h"

#define RSI_NO_MATCH UINT32_MAX
/* As a start position: where the session's promise to block begins (blocking.h). */
#define RSI_START_WITH_BLOCK UINT64_MAX

struct rsi_match {
    struct rsi_session *session;
    uint32_t subscription_count; /* of the session, that match the topic */
    uint32_t member_count;       /* of these, members of queue groups: they get what is chosen */
    uint32_t echo_count;         /* of the others, those that want the session's own frames too */
    /* Per log: frames before it were published before the subscription. Looked at by lagging walks.
     */
    uint64_t start_pos[RSI_AGENT_COUNT_MAX];
};

struct rsi_topic {
    uint32_t id;
    bool is_used;
    uint16_t subject_bytes;
    uint32_t last_value; /* 1 + its slot in the agent's store (last_values.h); 0: it has none */
    uint32_t match_count;
    uint32_t match_capacity;
    struct rsi_match *matches;
    /* Of queue groups: bit per member slot (groups.h), of all sessions. */
    uint32_t member_count;
    uint64_t members[RSI_MEMBER_COUNT_MAX / 64];
    char subject[RSI_SUBJECT_BYTES_MAX + 1];
};

struct rsi_subscription {
    struct rsi_session *session;
    uint64_t id;
    enum rsi_policy policy;
    bool no_echo;
    bool is_member; /* of a queue group */
    uint16_t pattern_bytes;
    uint64_t start_pos[RSI_AGENT_COUNT_MAX];
    char pattern[RSI_SUBJECT_BYTES_MAX + 1];
};

struct rsi_topic_index {
    struct rsi_topic **topics; /* by slot: id % topic_count_max; NULL: never used */
    uint32_t topic_count_max;  /* power of two */
    struct rsi_subscription *subscriptions;
    uint32_t subscription_count;
    uint32_t subscription_capacity;
    /* Per topic slot, over all agents: sessions that follow the topic, not as members of groups
     * only. NULL: not counted. */
    _Atomic uint32_t *follower_counts;
};

RSI_MUST_CHECK rsi_status_t rsi_topic_index_init(struct rsi_topic_index *index,
                                                 uint32_t topic_count_max, struct rsi_error *error);
void rsi_topic_index_fini(struct rsi_topic_index *index);

/*
 * Takes `memory`, zeroed and of malloc, and frees it when it needs none. Does nothing else if the
 * topic is there. Cannot fail; but sessions for whose match there is no memory are left out, and
 * rsi_topic_index_next_unmatched tells them.
 */
void rsi_topic_index_add_topic(struct rsi_topic_index *index, struct rsi_topic *memory, uint32_t id,
                               const char *subject, uint16_t subject_bytes);
/* The next session, from *cursor on (start at 0), that has a subscription which matches the topic
 * and no match; NULL at the end. A session may come more than once. */
struct rsi_session *rsi_topic_index_next_unmatched(const struct rsi_topic_index *index, uint32_t id,
                                                   uint32_t *cursor);
void rsi_topic_index_remove_topic(struct rsi_topic_index *index, uint32_t id);

/* `subscription` is copied. RSI_E_NO_MEMORY changes nothing. */
RSI_MUST_CHECK rsi_status_t rsi_topic_index_subscribe(struct rsi_topic_index *index,
                                                      const struct rsi_subscription *subscription,
                                                      struct rsi_error *error);
/* False: the session has no such subscription. `removed` gets the copy. */
bool rsi_topic_index_unsubscribe(struct rsi_topic_index *index, struct rsi_session *session,
                                 uint64_t id, struct rsi_subscription *removed);
/* Removes all that the session subscribed to. */
void rsi_topic_index_remove_session(struct rsi_topic_index *index, struct rsi_session *session);

/* NULL: the index does not know the topic. */
static inline struct rsi_topic *rsi_topic_index_find(const struct rsi_topic_index *index,
                                                     uint32_t id)
{
    struct rsi_topic *topic = index->topics[id & (index->topic_count_max - 1)];
    return topic && topic->is_used && topic->id == id ? topic : NULL;
}

/* The session's entry in the topic's list, or NULL. */
static inline struct rsi_match *rsi_topic_match_of(const struct rsi_topic *topic,
                                                   const struct rsi_session *session,
                                                   uint32_t topic_slot)
{
    uint32_t at = session->data.match_index[topic_slot];
    return at == RSI_NO_MATCH ? NULL : &topic->matches[at];
}

/* Whether the session follows this publication, gets every frame of it: not its own echo, if it
 * wants none. */
static inline bool rsi_match_follows(const struct rsi_match *match,
                                     const struct rsi_publication *publication)
{
    return match->echo_count > 0 || (match->subscription_count > match->member_count &&
                                     publication->publisher_session != match->session->id);
}

/* Whether some subscription of the session was chosen for the frame. Of a log or spill. */
static inline bool rsi_frame_is_chosen(const struct rsi_frame_header *header, uint64_t session)
{
    const struct rsi_frame_entry *entries =
        (const struct rsi_frame_entry *)(const void *)((const uint8_t *)header +
                                                       rsi_frame_entries_at(header));
    for (uint32_t i = header->type == RSI_FRAME_REQUEST; i < header->entry_count; i++) {
        if (entries[i].session == session) {
            return true;
        }
    }
    return false;
}

/* Whether the session is owed this frame. */
static inline bool rsi_match_wants(const struct rsi_match *match,
                                   const struct rsi_publication *publication,
                                   const struct rsi_frame_header *header)
{
    return rsi_match_follows(match, publication) ||
           (match->member_count > 0 && rsi_frame_is_chosen(header, match->session->id));
}

#endif
