/*
 * Design notes
 * - Adding a topic looks at every subscription, subscribing looks at every topic: both are rare and
 *   linear, and what a frame needs is one load. A trie would make edits faster and frames no
 * faster.
 * - Room in match lists is made before anything changes, so that a failed edit leaves the index
 * whole.
 */
#include "broker/topic_index.h"

#include "broker/blocking.h"
#include "core/assert.h"
#include "proto/subject.h"

#include <stdlib.h>
#include <string.h>

rsi_status_t rsi_topic_index_init(struct rsi_topic_index *index, uint32_t topic_count_max,
                                  struct rsi_error *error)
{
    memset(index, 0, sizeof(*index));
    rsi_assert((topic_count_max & (topic_count_max - 1)) == 0);
    index->topics = calloc(topic_count_max, sizeof(*index->topics));
    if (!index->topics) {
        return rsi_fail(error, RSI_E_NO_MEMORY,
                        "no memory for an index of %u topics; lower "
                        "topic_count_max",
                        topic_count_max);
    }
    index->topic_count_max = topic_count_max;
    return RSI_OK;
}

void rsi_topic_index_fini(struct rsi_topic_index *index)
{
    for (uint32_t slot = 0; slot < index->topic_count_max; slot++) {
        if (index->topics[slot]) {
            free(index->topics[slot]->matches);
            free(index->topics[slot]);
        }
    }
    free(index->topics);
    free(index->subscriptions);
    memset(index, 0, sizeof(*index));
}

static bool topic_matches(const struct rsi_topic *topic,
                          const struct rsi_subscription *subscription)
{
    return rsi_subject_matches(subscription->pattern, subscription->pattern_bytes, topic->subject,
                               topic->subject_bytes);
}

static uint32_t topic_slot(const struct rsi_topic_index *index, const struct rsi_topic *topic)
{
    return topic->id & (index->topic_count_max - 1);
}

/* Makes room for `count` more entries. */
static bool topic_reserve(struct rsi_topic *topic, uint32_t count)
{
    uint32_t needed = topic->match_count + count;
    if (needed <= topic->match_capacity) {
        return true;
    }
    uint32_t capacity = topic->match_capacity ? topic->match_capacity * 2 : 4;
    while (capacity < needed) {
        capacity *= 2;
    }
    struct rsi_match *matches = realloc(topic->matches, capacity * sizeof(*matches));
    if (!matches) {
        return false;
    }
    topic->matches = matches;
    topic->match_capacity = capacity;
    return true;
}

static void count_follower(const struct rsi_topic_index *index, uint32_t slot, uint32_t change)
{
    if (index->follower_counts) {
        rsi_fetch_add_acq_rel(&index->follower_counts[slot], change);
    }
}

static uint32_t follow_count(const struct rsi_match *match)
{
    return match->subscription_count - match->member_count;
}

/* Room was made before. A session that matches already keeps its earlier start positions. */
static void topic_add_match(const struct rsi_topic_index *index, struct rsi_topic *topic,
                            const struct rsi_subscription *subscription, bool is_new_topic)
{
    struct rsi_session *session = subscription->session;
    uint32_t slot = topic_slot(index, topic);
    struct rsi_match *match = rsi_topic_match_of(topic, session, slot);
    if (!match) {
        rsi_assert(topic->match_count < topic->match_capacity);
        session->data.match_index[slot] = topic->match_count;
        match = &topic->matches[topic->match_count++];
        memset(match, 0, sizeof(*match));
        match->session = session;
        if (!is_new_topic) {
            memcpy(match->start_pos, subscription->start_pos, sizeof(match->start_pos));
        }
    }
    match->subscription_count++;
    if (subscription->is_member) {
        match->member_count++;
        return;
    }
    match->echo_count += !subscription->no_echo;
    if (follow_count(match) == 1) {
        count_follower(index, slot, 1u);
    }
    if (session->data.blocking) {
        rsi_blocking_set_wanted(session->data.blocking, slot, true);
    }
}

static void topic_drop_match(const struct rsi_topic_index *index, struct rsi_topic *topic,
                             uint32_t at)
{
    uint32_t slot = topic_slot(index, topic);
    struct rsi_session *session = topic->matches[at].session;
    session->data.match_index[slot] = RSI_NO_MATCH;
    if (session->data.blocking) {
        rsi_blocking_set_wanted(session->data.blocking, slot, false);
    }
    uint32_t last = --topic->match_count;
    if (at != last) {
        topic->matches[at] = topic->matches[last];
        topic->matches[at].session->data.match_index[slot] = at;
    }
}

/* The memory for a topic in its slot: what an earlier topic left there, or what was given. */
static struct rsi_topic *take_slot(struct rsi_topic_index *index, uint32_t id,
                                   struct rsi_topic *memory)
{
    struct rsi_topic **slot = &index->topics[id & (index->topic_count_max - 1)];
    if (!*slot) {
        *slot = memory;
    } else {
        free(memory);
    }
    return *slot;
}

void rsi_topic_index_add_topic(struct rsi_topic_index *index, struct rsi_topic *memory, uint32_t id,
                               const char *subject, uint16_t subject_bytes)
{
    if (rsi_topic_index_find(index, id)) {
        free(memory);
        return;
    }
    struct rsi_topic *topic = take_slot(index, id, memory);
    rsi_assert(topic != NULL);
    rsi_assert(!topic->is_used);
    rsi_assert(topic->match_count == 0);
    topic->id = id;
    topic->member_count = 0;
    memset(topic->members, 0, sizeof(topic->members));
    topic->subject_bytes = subject_bytes;
    memcpy(topic->subject, subject, subject_bytes);
    topic->subject[subject_bytes] = 0;

    /* From the first session that is left out on, no other gets a match: one with two subscriptions
     * would else have the second without the first. */
    bool has_memory = true;
    for (uint32_t i = 0; i < index->subscription_count; i++) {
        const struct rsi_subscription *subscription = &index->subscriptions[i];
        if (!topic_matches(topic, subscription)) {
            continue;
        }
        if (!rsi_topic_match_of(topic, subscription->session, topic_slot(index, topic))) {
            has_memory = has_memory && topic_reserve(topic, 1);
            if (!has_memory) {
                continue;
            }
        }
        topic_add_match(index, topic, subscription, true);
    }
    topic->is_used = true;
}

struct rsi_session *rsi_topic_index_next_unmatched(const struct rsi_topic_index *index, uint32_t id,
                                                   uint32_t *cursor)
{
    const struct rsi_topic *topic = rsi_topic_index_find(index, id);
    while (*cursor < index->subscription_count) {
        const struct rsi_subscription *subscription = &index->subscriptions[(*cursor)++];
        if (topic_matches(topic, subscription) &&
            !rsi_topic_match_of(topic, subscription->session, topic_slot(index, topic))) {
            return subscription->session;
        }
    }
    return NULL;
}

void rsi_topic_index_remove_topic(struct rsi_topic_index *index, uint32_t id)
{
    struct rsi_topic *topic = rsi_topic_index_find(index, id);
    if (!topic) {
        return;
    }
    while (topic->match_count > 0) {
        if (follow_count(&topic->matches[topic->match_count - 1]) > 0) {
            count_follower(index, topic_slot(index, topic), UINT32_MAX);
        }
        topic_drop_match(index, topic, topic->match_count - 1);
    }
    topic->is_used = false;
}

rsi_status_t rsi_topic_index_subscribe(struct rsi_topic_index *index,
                                       const struct rsi_subscription *subscription,
                                       struct rsi_error *error)
{
    if (index->subscription_count == index->subscription_capacity) {
        uint32_t capacity = index->subscription_capacity ? index->subscription_capacity * 2 : 64;
        struct rsi_subscription *grown =
            realloc(index->subscriptions, capacity * sizeof(*index->subscriptions));
        if (!grown) {
            return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for %u subscriptions", capacity);
        }
        index->subscriptions = grown;
        index->subscription_capacity = capacity;
    }
    for (uint32_t slot = 0; slot < index->topic_count_max; slot++) {
        struct rsi_topic *topic = index->topics[slot];
        if (topic && topic->is_used && topic_matches(topic, subscription) &&
            !topic_reserve(topic, 1)) {
            return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for a subscription to %s",
                            subscription->pattern);
        }
    }
    for (uint32_t slot = 0; slot < index->topic_count_max; slot++) {
        struct rsi_topic *topic = index->topics[slot];
        if (topic && topic->is_used && topic_matches(topic, subscription)) {
            topic_add_match(index, topic, subscription, false);
        }
    }
    index->subscriptions[index->subscription_count++] = *subscription;
    return RSI_OK;
}

/* Takes subscription `at` out of the list and of every match list. */
static void index_remove_subscription(struct rsi_topic_index *index, uint32_t at)
{
    struct rsi_subscription *subscription = &index->subscriptions[at];
    for (uint32_t slot = 0; slot < index->topic_count_max; slot++) {
        struct rsi_topic *topic = index->topics[slot];
        if (!topic || !topic->is_used || !topic_matches(topic, subscription)) {
            continue;
        }
        struct rsi_match *match = rsi_topic_match_of(topic, subscription->session, slot);
        if (!match) {
            continue; /* left out for lack of memory when the topic came */
        }
        match->subscription_count--;
        match->member_count -= subscription->is_member;
        match->echo_count -= !subscription->is_member && !subscription->no_echo;
        if (!subscription->is_member && follow_count(match) == 0) {
            count_follower(index, slot, UINT32_MAX);
        }
        if (match->subscription_count == 0) {
            topic_drop_match(index, topic, (uint32_t)(match - topic->matches));
        } else if (match->subscription_count == match->member_count &&
                   subscription->session->data.blocking) {
            rsi_blocking_set_wanted(subscription->session->data.blocking, slot, false);
        }
    }
    index->subscriptions[at] = index->subscriptions[--index->subscription_count];
}

bool rsi_topic_index_unsubscribe(struct rsi_topic_index *index, struct rsi_session *session,
                                 uint64_t id, struct rsi_subscription *removed)
{
    for (uint32_t i = 0; i < index->subscription_count; i++) {
        struct rsi_subscription *subscription = &index->subscriptions[i];
        if (subscription->session == session && subscription->id == id) {
            *removed = *subscription;
            index_remove_subscription(index, i);
            return true;
        }
    }
    return false;
}

void rsi_topic_index_remove_session(struct rsi_topic_index *index, struct rsi_session *session)
{
    for (uint32_t i = index->subscription_count; i-- > 0;) {
        if (index->subscriptions[i].session == session) {
            index_remove_subscription(index, i);
        }
    }
}
