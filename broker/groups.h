/*
 * Queue groups, as one agent knows them: who is a member of which group, and which of them gets the
 * next message of a topic.
 *
 * Design notes
 * - Every agent knows every member, because the home agent of a publisher chooses for all agents:
 *   once, at admission, and the choice goes with the frame (struct rsi_frame_entry). All walks see
 *   the same one.
 * - A group is a name. Its members on a topic are those whose patterns match it, whatever the
 *   patterns are.
 * - Tables are sized at start and a topic carries a bit per member, so applying an edit allocates
 *   nothing and cannot fail. The control agent keeps the count of members below the limit.
 * - Turns are round robin per group and agent. A member that is behind, without a link, at fault or
 *   holding publishers back is passed over while another one is ready.
 */
#ifndef RSI_BROKER_GROUPS_H
#define RSI_BROKER_GROUPS_H

#include "broker/topic_index.h"

struct rsi_agent;

struct rsi_member {
    struct rsi_session *session; /* NULL: a free slot */
    uint64_t subscription;
    uint32_t group;
    bool no_echo;
    uint16_t pattern_bytes;
    char pattern[RSI_SUBJECT_BYTES_MAX + 1];
};

struct rsi_group {
    char name[RSI_NAME_BYTES_MAX + 1];
    uint32_t member_count; /* 0: a free slot */
    uint32_t last_member;  /* chosen last */
    /* While a choice is made. */
    uint64_t choice_number; /* of the last choice that looked at it */
    uint32_t best;
};

struct rsi_groups {
    struct rsi_member *members;
    struct rsi_group *groups;
    uint32_t member_count;
    uint32_t member_slot_count; /* none is used from here on */
    uint32_t group_slot_count;
    uint64_t choice_number;
    /* The last choice: one entry per group, in the order in which their first members stand. */
    uint32_t touched[RSI_MEMBER_COUNT_MAX]; /* groups */
    struct rsi_frame_entry entries[RSI_MEMBER_COUNT_MAX];
};

RSI_MUST_CHECK rsi_status_t rsi_groups_init(struct rsi_groups *groups, struct rsi_error *error);
void rsi_groups_fini(struct rsi_groups *groups);

/* A subscription with a group was made; there is room. */
void rsi_groups_add(struct rsi_groups *groups, struct rsi_topic_index *index,
                    struct rsi_session *session, const struct rsi_edit *edit);
/* Nothing more is chosen for it. Nothing happens if it is no member. */
void rsi_groups_remove(struct rsi_groups *groups, struct rsi_topic_index *index,
                       const struct rsi_session *session, uint64_t subscription);
void rsi_groups_remove_session(struct rsi_groups *groups, struct rsi_topic_index *index,
                               const struct rsi_session *session);
/* The topic was added to the index. */
void rsi_groups_add_topic(const struct rsi_groups *groups, struct rsi_topic *topic);

/*
 * The topic has members: chooses one of each group for a message of `publisher`, into
 * groups->entries, and returns how many that are. `place_ns` is the publisher's place where
 * publishers wait (blocking.h).
 */
uint32_t rsi_agent_choose(struct rsi_agent *agent, const struct rsi_topic *topic,
                          const struct rsi_session *publisher, uint64_t place_ns);
/*
 * A member of some group none of whose members on the topic can take more, as all of them hold
 * publishers back; NULL: there is no such group.
 */
struct rsi_session *rsi_agent_group_held_by(struct rsi_agent *agent, const struct rsi_topic *topic,
                                            const struct rsi_session *publisher, uint64_t place_ns);

#endif
