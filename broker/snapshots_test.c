/*
 * Design notes: last values beside what is live, with agents moved by hand. What must hold: a
 * subscription gets of each topic the last value or something newer first and everything after
 * that, however full its ring is, whatever its policy, and whatever else the session subscribed to;
 * hand_testing.c checks sequences and marks frame by frame.
 */
#include "broker/hand_testing.h"

#include "core/clock.h"

#include <stdio.h>
#include <string.h>

#define RING_BYTES (64u << 10)
#define LOG_BYTES  (1u << 20)

enum { SEEDS = 20, STEP_COUNT = 600 };

static const char *const subjects[] = {"", "s.a", "s.b", "s.c", "s.d", "s.e", "s.f", "s.g", "s.h"};

/* A publisher on `count` topics, one message on each. */
static struct hand_client *make_publisher(struct hand *hand, uint32_t agent, uint32_t count,
                                          uint32_t payload_bytes)
{
    hand->keeps_last = true;
    struct hand_client *publisher = hand_join(hand, agent, RING_BYTES);
    for (uint32_t alias = 1; alias <= count; alias++) {
        hand_open(publisher, alias, alias, subjects[alias]);
        assert_true(hand_publish(publisher, alias, payload_bytes));
    }
    hand_rest(hand);
    return publisher;
}

static void values_come_before_what_is_live(void **state)
{
    (void)state;
    for (uint32_t agent_count = 1; agent_count <= 2; agent_count++) {
        struct hand *hand = hand_create(agent_count, 1, LOG_BYTES);
        struct hand_client *publisher = make_publisher(hand, 0, 3, 100);
        assert_true(hand_publish(publisher, 1, 1000)); /* longer, then shorter again */
        assert_true(hand_publish(publisher, 1, 8));
        assert_true(hand_publish(publisher, 2, 0));
        hand_rest(hand);
        struct hand_client *reader = hand_join(hand, agent_count - 1, RING_BYTES);
        uint64_t subscription = hand_subscribe_last(reader, "s.*", RSI_POLICY_DROP);
        assert_true(hand_publish(publisher, 3, 10));
        hand_read_all(reader);
        assert_int_equal(reader->ended, subscription);
        const uint32_t *ids = publisher->publication_of;
        assert_int_equal(reader->last_of[ids[1]], 3);
        assert_int_equal(reader->last_of[ids[2]], 2);
        assert_int_equal(reader->live_of[ids[1]], 0);
        assert_int_equal(reader->expected[ids[3]], 3);
        assert_true(hand_publish(publisher, 1, 20));
        hand_read_all(reader);
        assert_int_equal(reader->live_of[ids[1]], 4);
        hand_destroy(hand);
    }
}

static void only_what_matches_is_sent(void **state)
{
    (void)state;
    struct hand *hand = hand_create(1, 1, LOG_BYTES);
    struct hand_client *publisher = make_publisher(hand, 0, 3, 100);
    hand->keeps_last = false;
    hand_open(publisher, 4, 4, "s.plain");
    assert_true(hand_publish(publisher, 4, 100));
    hand_rest(hand);
    struct hand_client *reader = hand_join(hand, 0, RING_BYTES);
    (void)hand_subscribe_last(reader, "s.b", RSI_POLICY_DROP);
    hand_read_all(reader);
    assert_int_equal(reader->last_count, 1);
    (void)hand_subscribe_last(reader, "s.plain", RSI_POLICY_DROP);
    hand_read_all(reader);
    assert_int_equal(reader->last_count, 1);
    assert_int_equal(reader->ended, 2);
    hand_destroy(hand);
}

/* Seven values of 4000 bytes into a ring of 16 KiB; some change before they are sent. */
static void a_small_ring_gets_all_the_same(void **state)
{
    (void)state;
    struct hand *hand = hand_create(1, 1, LOG_BYTES);
    struct hand_client *publisher = make_publisher(hand, 0, 7, 4000);
    struct hand_client *reader = hand_join(hand, 0, 16u << 10);
    (void)hand_subscribe_last(reader, ">", RSI_POLICY_BLOCK);
    hand_rest(hand);
    assert_int_equal(reader->ended, 0);
    assert_true(hand_publish(publisher, 7, 4000));
    assert_true(hand_publish(publisher, 6, 4000));
    hand_rest(hand);
    hand_read_all(reader);
    assert_int_equal(reader->ended, 1);
    assert_int_equal(reader->last_count, 5);
    for (uint32_t alias = 1; alias <= 7; alias++) {
        assert_true(hand_has_all(reader, publisher, alias));
    }
    hand_destroy(hand);
}

static void giving_up_ends_a_snapshot(void **state)
{
    (void)state;
    struct hand *hand = hand_create(1, 1, LOG_BYTES);
    struct hand_client *publisher = make_publisher(hand, 0, 7, 4000);
    struct hand_client *reader = hand_join(hand, 0, 16u << 10);
    uint64_t first = hand_subscribe_last(reader, ">", RSI_POLICY_DROP);
    uint64_t second = hand_subscribe_last(reader, "s.a", RSI_POLICY_DROP);
    hand_rest(hand);
    hand_unsubscribe(reader, first);
    hand_read_all(reader);
    assert_int_equal(reader->ended, second);
    assert_int_equal(reader->last_of[publisher->publication_of[1]], 1);
    hand_unsubscribe(reader, second);
    assert_int_equal(hand->plane->agents[0]->snapshot_session_count, 0);
    (void)hand_subscribe_last(reader, ">", RSI_POLICY_DROP);
    hand_rest(hand);
    hand_leave(reader);
    assert_int_equal(hand->plane->agents[0]->snapshot_session_count, 0);
    hand_destroy(hand);
}

static void a_value_holds_its_publication(void **state)
{
    (void)state;
    struct hand *hand = hand_create(2, 1, LOG_BYTES);
    struct hand_client *publisher = make_publisher(hand, 0, 1, 100);
    struct hand_client *next = hand_join(hand, 1, RING_BYTES);
    const struct rsi_publication *first = &hand->publications[1];
    hand_open(next, 1, 1, subjects[1]);
    hand_leave(publisher);
    assert_true(rsi_publication_is_closed(hand->plane, first));
    assert_true(rsi_publication_is_kept(first));
    assert_false(rsi_publication_is_unused(hand->plane, first));
    struct hand_client *reader = hand_join(hand, 1, RING_BYTES);
    (void)hand_subscribe_last(reader, ">", RSI_POLICY_DROP);
    hand_read_all(reader);
    assert_int_equal(reader->last_of[1], 1);
    uint64_t unkept_count = rsi_data_plane_unkept_count(hand->plane);
    assert_true(hand_publish(next, 1, 100));
    hand_rest(hand);
    assert_false(rsi_publication_is_kept(first));
    assert_true(rsi_publication_is_unused(hand->plane, first));
    assert_int_not_equal(rsi_data_plane_unkept_count(hand->plane), unkept_count);
    hand_destroy(hand);
}

/* Two publishers, a reader that subscribes and gives up in all ways, in random order. */
static void whatever_happens_the_end_is_right(void **state)
{
    (void)state;
    static const enum rsi_policy policies[] = {RSI_POLICY_DROP, RSI_POLICY_BLOCK};
    uint64_t last_count = 0;
    for (uint32_t seed = 1; seed <= SEEDS; seed++) {
        struct hand *hand = hand_create(1 + seed % 2, seed, LOG_BYTES);
        struct hand_client *publisher = make_publisher(hand, 0, 8, 500);
        struct hand_client *reader = hand_join(hand, (seed / 2) % (1 + seed % 2), RING_BYTES);
        uint64_t subscriptions[3] = {0};
        for (uint32_t i = 0; i < STEP_COUNT; i++) {
            uint32_t draw = (uint32_t)(hand_random(hand) >> 40);
            uint64_t *one = &subscriptions[draw / 64 % 3];
            enum rsi_policy policy = policies[draw / 256 % 2];
            if (draw % 64 == 0 && *one != 0) {
                hand_unsubscribe(reader, *one);
                *one = 0;
            } else if (draw % 64 < 3 && *one == 0 &&
                       reader->snapshot_count < HAND_SNAPSHOT_MAX - 1) {
                *one = draw % 2 == 0 ? hand_subscribe_last(reader, "s.*", policy)
                                     : hand_subscribe(reader, subjects[1 + draw / 512 % 8], policy);
            } else if (draw % 64 < 40) {
                (void)hand_publish(publisher, 1 + draw / 512 % 8, draw / 4096 % 2000);
            } else if (draw % 64 < 44) {
                hand_read(reader, draw / 512 % 20000);
            } else {
                hand_step(hand);
            }
        }
        uint64_t final = hand_subscribe_last(reader, ">", RSI_POLICY_BLOCK);
        hand_read_all(reader);
        hand_rest(hand);
        assert_int_equal(reader->ended, final);
        for (uint32_t alias = 1; alias <= 8; alias++) {
            assert_true(hand_has_all(reader, publisher, alias));
        }
        last_count += reader->last_count;
        hand_destroy(hand);
    }
    assert_true(last_count > SEEDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_before_what_is_live),
        cmocka_unit_test(only_what_matches_is_sent),
        cmocka_unit_test(a_small_ring_gets_all_the_same),
        cmocka_unit_test(giving_up_ends_a_snapshot),
        cmocka_unit_test(a_value_holds_its_publication),
        cmocka_unit_test(whatever_happens_the_end_is_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
