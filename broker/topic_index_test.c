/*
 * Design notes: the index against a plain model that asks the subject matcher for every pair, over
 * seeded sequences of edits. What must hold: a topic's list names exactly the sessions with a
 * matching subscription, each once, with the right counts, and each session finds its own entry.
 */
#include "broker/topic_index.h"
#include "proto/subject.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SESSION_COUNT = 6, TOPIC_COUNT = 64, SUBSCRIPTION_COUNT = 40, STEP_COUNT = 4000 };

static const char *const patterns[] = {"md.*.a", "md.x.>", ">",     "md.y.b",
                                       "*.x.*",  "news.>", "md.x.c"};
static const char *const subjects[] = {"md.x.a",     "md.y.a", "md.y.b",
                                       "news.today", "md.x.c", "other"};

struct fixture {
    struct rsi_topic_index index;
    struct rsi_session *sessions[SESSION_COUNT];
    struct rsi_subscription live[SUBSCRIPTION_COUNT];
    bool is_live[SUBSCRIPTION_COUNT];
    uint32_t topic_ids[TOPIC_COUNT]; /* 0: none in that slot */
    const char *topic_subjects[TOPIC_COUNT];
};

static uint32_t next_random(uint64_t *state, uint32_t bound)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % bound;
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct rsi_data_options options = {
        .publication_count_max = 64, .topic_count_max = TOPIC_COUNT, .alias_count_max = 4};
    assert_non_null(fixture);
    assert_int_equal(rsi_topic_index_init(&fixture->index, TOPIC_COUNT, NULL), RSI_OK);
    for (int i = 0; i < SESSION_COUNT; i++) {
        fixture->sessions[i] = calloc(1, sizeof(struct rsi_session));
        assert_non_null(fixture->sessions[i]);
        assert_int_equal(rsi_session_init(fixture->sessions[i], &options, NULL), RSI_OK);
    }
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < SESSION_COUNT; i++) {
        rsi_session_fini(fixture->sessions[i]);
        free(fixture->sessions[i]);
    }
    rsi_topic_index_fini(&fixture->index);
    free(fixture);
    return 0;
}

static void check_topic(const struct fixture *fixture, uint32_t slot)
{
    const struct rsi_topic *topic = rsi_topic_index_find(&fixture->index, fixture->topic_ids[slot]);
    assert_non_null(topic);
    uint32_t match_count = 0;
    for (int s = 0; s < SESSION_COUNT; s++) {
        uint32_t subscription_count = 0;
        uint32_t echo_count = 0;
        for (int i = 0; i < SUBSCRIPTION_COUNT; i++) {
            const struct rsi_subscription *subscription = &fixture->live[i];
            if (!fixture->is_live[i] || subscription->session != fixture->sessions[s] ||
                !rsi_subject_matches(subscription->pattern, subscription->pattern_bytes,
                                     topic->subject, topic->subject_bytes)) {
                continue;
            }
            subscription_count++;
            echo_count += !subscription->no_echo;
        }
        const struct rsi_match *match = rsi_topic_match_of(topic, fixture->sessions[s], slot);
        assert_int_equal(match != NULL, subscription_count > 0);
        if (match) {
            assert_ptr_equal(match->session, fixture->sessions[s]);
            assert_int_equal(match->subscription_count, subscription_count);
            assert_int_equal(match->echo_count, echo_count);
            match_count++;
        }
    }
    assert_int_equal(topic->match_count, match_count);
}

static void subscribe(struct fixture *fixture, int at, uint64_t *random)
{
    struct rsi_subscription *subscription = &fixture->live[at];
    const char *pattern = patterns[next_random(random, sizeof(patterns) / sizeof(*patterns))];
    memset(subscription, 0, sizeof(*subscription));
    subscription->session = fixture->sessions[next_random(random, SESSION_COUNT)];
    subscription->id = (uint64_t)at + 1;
    subscription->no_echo = next_random(random, 2);
    subscription->pattern_bytes = (uint16_t)strlen(pattern);
    memcpy(subscription->pattern, pattern, strlen(pattern) + 1);
    assert_int_equal(rsi_topic_index_subscribe(&fixture->index, subscription, NULL), RSI_OK);
    fixture->is_live[at] = true;
}

static void step(struct fixture *fixture, uint64_t *random, uint32_t *next_topic)
{
    int at = (int)next_random(random, SUBSCRIPTION_COUNT);
    uint32_t slot = next_random(random, TOPIC_COUNT);
    struct rsi_subscription removed;
    switch (next_random(random, 8)) {
    case 0: /* a topic comes or goes; its slot returns under another id */
        if (fixture->topic_ids[slot]) {
            rsi_topic_index_remove_topic(&fixture->index, fixture->topic_ids[slot]);
            fixture->topic_ids[slot] = 0;
        } else {
            const char *subject = subjects[next_random(random, 6)];
            fixture->topic_ids[slot] = slot + TOPIC_COUNT * ++*next_topic;
            fixture->topic_subjects[slot] = subject;
            struct rsi_topic *memory = calloc(1, sizeof(*memory));
            assert_non_null(memory);
            rsi_topic_index_add_topic(&fixture->index, memory, fixture->topic_ids[slot], subject,
                                      (uint16_t)strlen(subject));
            uint32_t cursor = 0;
            assert_null(
                rsi_topic_index_next_unmatched(&fixture->index, fixture->topic_ids[slot], &cursor));
        }
        break;
    case 1: /* a session leaves with all it has */
        if (next_random(random, 10) == 0) {
            struct rsi_session *session = fixture->sessions[next_random(random, SESSION_COUNT)];
            rsi_topic_index_remove_session(&fixture->index, session);
            for (int i = 0; i < SUBSCRIPTION_COUNT; i++) {
                if (fixture->live[i].session == session) {
                    fixture->is_live[i] = false;
                }
            }
        }
        break;
    default:
        if (fixture->is_live[at]) {
            assert_true(rsi_topic_index_unsubscribe(&fixture->index, fixture->live[at].session,
                                                    fixture->live[at].id, &removed));
            assert_string_equal(removed.pattern, fixture->live[at].pattern);
            fixture->is_live[at] = false;
        } else {
            subscribe(fixture, at, random);
        }
    }
}

static void lists_name_exactly_the_matching_sessions(void **state)
{
    struct fixture *fixture = *state;
    uint64_t random = 20241108;
    uint32_t next_topic = 0;
    for (int i = 0; i < STEP_COUNT; i++) {
        step(fixture, &random, &next_topic);
        for (uint32_t slot = 0; slot < TOPIC_COUNT; slot++) {
            if (fixture->topic_ids[slot]) {
                check_topic(fixture, slot);
            }
        }
    }
}

static void an_unknown_subscription_is_not_removed(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_subscription removed;
    assert_false(rsi_topic_index_unsubscribe(&fixture->index, fixture->sessions[0], 99, &removed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lists_name_exactly_the_matching_sessions, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_unknown_subscription_is_not_removed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
