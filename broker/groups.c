/*
 * Design notes: groups.h.
 *
 * A choice looks at the topic's members in the order of their slots and keeps, per group, the
 * lowest key: first how ready the member is, then whether its turn comes after that of the member
 * that was chosen last, then its slot.
 */
#include "broker/groups.h"

#include "broker/agent_internal.h"
#include "core/text.h"
#include "proto/subject.h"

#include <stdlib.h>
#include <string.h>

#define NO_GROUP UINT32_MAX
/* A key: readiness, turn, slot. */
#define KEY_SLOT_BITS 16
#define KEY_TURN      (1u << KEY_SLOT_BITS)
#define KEY_READINESS (KEY_TURN << 1)
rsi_static_assert(RSI_MEMBER_COUNT_MAX <= KEY_TURN);

enum readiness {
    MEMBER_READY,
    MEMBER_BEHIND, /* frames wait for room, or it has no link */
    MEMBER_HOLDS,  /* it holds publishers back, this one too */
    MEMBER_FAILED, /* it is being ended */
};

rsi_status_t rsi_groups_init(struct rsi_groups *groups, struct rsi_error *error)
{
    memset(groups, 0, sizeof(*groups));
    groups->members = calloc(RSI_MEMBER_COUNT_MAX, sizeof(*groups->members));
    groups->groups = calloc(RSI_MEMBER_COUNT_MAX, sizeof(*groups->groups));
    if (!groups->members || !groups->groups) {
        rsi_groups_fini(groups);
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for %u members of queue groups",
                        RSI_MEMBER_COUNT_MAX);
    }
    return RSI_OK;
}

void rsi_groups_fini(struct rsi_groups *groups)
{
    free(groups->members);
    free(groups->groups);
    groups->members = NULL;
    groups->groups = NULL;
}

/* ---- members ------------------------------------------------------------------------------------
 */

static uint32_t join_group(struct rsi_groups *groups, const char *name)
{
    uint32_t free_slot = NO_GROUP;
    for (uint32_t slot = 0; slot < groups->group_slot_count; slot++) {
        struct rsi_group *group = &groups->groups[slot];
        if (group->member_count > 0 && strcmp(group->name, name) == 0) {
            group->member_count++;
            return slot;
        }
        if (group->member_count == 0 && free_slot == NO_GROUP) {
            free_slot = slot;
        }
    }
    if (free_slot == NO_GROUP) {
        free_slot = groups->group_slot_count++;
    }
    rsi_assert(free_slot < RSI_MEMBER_COUNT_MAX);
    struct rsi_group *group = &groups->groups[free_slot];
    memset(group, 0, sizeof(*group));
    (void)rsi_text_copy(group->name, sizeof(group->name), name);
    group->member_count = 1;
    group->last_member = RSI_MEMBER_COUNT_MAX;
    return free_slot;
}

static bool member_matches(const struct rsi_member *member, const struct rsi_topic *topic)
{
    return rsi_subject_matches(member->pattern, member->pattern_bytes, topic->subject,
                               topic->subject_bytes);
}

static void enter_topic(struct rsi_topic *topic, uint32_t slot)
{
    rsi_bit_set(topic->members, slot);
    topic->member_count++;
}

static void leave_topic(struct rsi_topic *topic, uint32_t slot)
{
    if (rsi_bit_get(topic->members, slot)) {
        rsi_bit_clear(topic->members, slot);
        topic->member_count--;
    }
}

void rsi_groups_add(struct rsi_groups *groups, struct rsi_topic_index *index,
                    struct rsi_session *session, const struct rsi_edit *edit)
{
    uint32_t slot = 0;
    while (slot < groups->member_slot_count && groups->members[slot].session) {
        slot++;
    }
    rsi_assert(slot < RSI_MEMBER_COUNT_MAX);
    groups->member_slot_count += slot == groups->member_slot_count;
    groups->member_count++;
    struct rsi_member *member = &groups->members[slot];
    member->session = session;
    member->subscription = edit->subscription;
    member->group = join_group(groups, edit->group);
    member->no_echo = edit->no_echo;
    member->pattern_bytes = (uint16_t)strlen(edit->subject);
    memcpy(member->pattern, edit->subject, sizeof(member->pattern));
    for (uint32_t i = 0; i < index->topic_count_max; i++) {
        struct rsi_topic *topic = index->topics[i];
        if (topic && topic->is_used && member_matches(member, topic)) {
            enter_topic(topic, slot);
        }
    }
}

static void remove_member(struct rsi_groups *groups, struct rsi_topic_index *index, uint32_t slot)
{
    for (uint32_t i = 0; i < index->topic_count_max; i++) {
        if (index->topics[i] && index->topics[i]->is_used) {
            leave_topic(index->topics[i], slot);
        }
    }
    groups->groups[groups->members[slot].group].member_count--;
    groups->members[slot].session = NULL;
    groups->member_count--;
    while (groups->member_slot_count > 0 &&
           !groups->members[groups->member_slot_count - 1].session) {
        groups->member_slot_count--;
    }
}

void rsi_groups_remove(struct rsi_groups *groups, struct rsi_topic_index *index,
                       const struct rsi_session *session, uint64_t subscription)
{
    for (uint32_t slot = 0; slot < groups->member_slot_count; slot++) {
        const struct rsi_member *member = &groups->members[slot];
        if (member->session == session && member->subscription == subscription) {
            remove_member(groups, index, slot);
            return;
        }
    }
}

void rsi_groups_remove_session(struct rsi_groups *groups, struct rsi_topic_index *index,
                               const struct rsi_session *session)
{
    for (uint32_t slot = groups->member_slot_count; slot-- > 0;) {
        if (groups->members[slot].session == session) {
            remove_member(groups, index, slot);
        }
    }
}

void rsi_groups_add_topic(const struct rsi_groups *groups, struct rsi_topic *topic)
{
    for (uint32_t slot = 0; slot < groups->member_slot_count; slot++) {
        const struct rsi_member *member = &groups->members[slot];
        if (member->session && !rsi_bit_get(topic->members, slot) &&
            member_matches(member, topic)) {
            enter_topic(topic, slot);
        }
    }
}

/* ---- choosing -----------------------------------------------------------------------------------
 */

static enum readiness readiness_of(const struct rsi_agent *agent, const struct rsi_session *session,
                                   uint64_t place_ns)
{
    if (rsi_load_relaxed(&session->faulted)) {
        return MEMBER_FAILED;
    }
    /* Pairs with the release in enter_table. */
    if (rsi_load_acquire(&session->is_contended) && !rsi_blocking_takes(agent, session, place_ns)) {
        return MEMBER_HOLDS;
    }
    return rsi_load_relaxed(&session->is_behind) ? MEMBER_BEHIND : MEMBER_READY;
}

/* The best member of each group, as keys in `best`; the groups are in `touched`. */
static uint32_t find_best(struct rsi_agent *agent, const struct rsi_topic *topic,
                          const struct rsi_session *publisher, uint64_t place_ns)
{
    struct rsi_groups *groups = &agent->groups;
    uint64_t number = ++groups->choice_number;
    uint32_t touched_count = 0;
    uint32_t word_count = (groups->member_slot_count + 63) / 64;
    for (uint32_t word = 0; word < word_count; word++) {
        for (uint64_t bits = topic->members[word]; bits != 0; bits &= bits - 1) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);
            const struct rsi_member *member = &groups->members[slot];
            if (member->no_echo && member->session == publisher) {
                continue;
            }
            struct rsi_group *group = &groups->groups[member->group];
            uint32_t turn = slot > group->last_member ? 0 : KEY_TURN;
            uint32_t key =
                (uint32_t)readiness_of(agent, member->session, place_ns) * KEY_READINESS + turn +
                slot;
            if (group->choice_number != number) {
                group->choice_number = number;
                group->best = key;
                groups->touched[touched_count++] = member->group;
            } else if (key < group->best) {
                group->best = key;
            }
        }
    }
    return touched_count;
}

uint32_t rsi_agent_choose(struct rsi_agent *agent, const struct rsi_topic *topic,
                          const struct rsi_session *publisher, uint64_t place_ns)
{
    struct rsi_groups *groups = &agent->groups;
    uint32_t count = find_best(agent, topic, publisher, place_ns);
    for (uint32_t i = 0; i < count; i++) {
        struct rsi_group *group = &groups->groups[groups->touched[i]];
        uint32_t slot = group->best & (KEY_TURN - 1);
        const struct rsi_member *member = &groups->members[slot];
        group->last_member = slot;
        groups->entries[i] = (struct rsi_frame_entry){.session = member->session->id,
                                                      .number = member->subscription};
    }
    rsi_bump_relaxed(&agent->counts.chosen_messages, count);
    return count;
}

struct rsi_session *rsi_agent_group_held_by(struct rsi_agent *agent, const struct rsi_topic *topic,
                                            const struct rsi_session *publisher, uint64_t place_ns)
{
    const struct rsi_groups *groups = &agent->groups;
    uint32_t count = find_best(agent, topic, publisher, place_ns);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t best = groups->groups[groups->touched[i]].best;
        if (best / KEY_READINESS == MEMBER_HOLDS) {
            return groups->members[best & (KEY_TURN - 1)].session;
        }
    }
    return NULL;
}

/* ---- draining -----------------------------------------------------------------------------------
 */

void rsi_data_plane_ends(const struct rsi_data_plane *plane, uint64_t ends[RSI_AGENT_COUNT_MAX])
{
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        ends[i] = rsi_message_log_end_pos(&plane->agents[i]->log);
    }
}

bool rsi_data_plane_has_passed(const struct rsi_data_plane *plane,
                               const struct rsi_session *session,
                               const uint64_t ends[RSI_AGENT_COUNT_MAX])
{
    const struct rsi_agent *home = plane->agents[session->agent];
    for (uint32_t i = 0; i < plane->options.agent_count; i++) {
        if (rsi_load_acquire(&home->needed_pos[i]) < ends[i]) {
            return false;
        }
    }
    return true;
}
