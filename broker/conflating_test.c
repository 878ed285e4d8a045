/*
 * Design notes: policy conflate, with agents moved by hand. What must hold: what is told to be left
 * out and what is delivered is all that was published, per publication; the last one delivered of a
 * topic is the newest; topics are served in the order in which they began to wait; nothing is held
 * when the session leaves. hand_testing.c checks sequences frame by frame.
 */
#include "broker/hand_testing.h"

#include "core/clock.h"

#include <stdio.h>
#include <string.h>

#define RING_BYTES (64u << 10)
#define LOG_BYTES  (1u << 20)

enum { SEEDS = 20, STEP_COUNT = 600 };

static const char *const subjects[] = {"", "s.a", "s.b", "s.c", "s.d", "s.e", "s.f", "s.g", "s.h"};

static struct hand_client *make_publisher(struct hand *hand, uint32_t agent)
{
    hand->keeps_last = true;
    struct hand_client *publisher = hand_join(hand, agent, RING_BYTES);
    for (uint32_t alias = 1; alias <= HAND_ALIAS_MAX; alias++) {
        hand_open(publisher, alias, alias, subjects[alias]);
    }
    return publisher;
}

static void publish(struct hand_client *publisher, uint32_t alias, uint32_t payload_bytes)
{
    while (!hand_publish(publisher, alias, payload_bytes)) {
        hand_rest(publisher->hand);
    }
}

static void check_all(const struct hand_client *reader, const struct hand_client *publisher)
{
    for (uint32_t alias = 1; alias <= HAND_ALIAS_MAX; alias++) {
        uint32_t id = publisher->publication_of[alias];
        uint64_t published_count = publisher->published_of[alias];
        assert_int_equal(reader->received_of[id] + reader->gap_of[id], published_count);
        assert_int_equal(reader->live_of[id], published_count);
    }
}

static void the_newest_of_each_topic_comes(void **state)
{
    (void)state;
    struct hand *hand = hand_create(1, 1, LOG_BYTES);
    struct hand_client *publisher = make_publisher(hand, 0);
    struct hand_client *reader = hand_join(hand, 0, 16u << 10);
    (void)hand_subscribe(reader, "s.*", RSI_POLICY_CONFLATE);
    for (uint32_t round = 0; round < 200; round++) {
        for (uint32_t alias = HAND_ALIAS_MAX; alias >= 1; alias--) {
            publish(publisher, alias, 1000);
        }
    }
    hand_rest(hand);
    assert_int_equal(hand->plane->agents[0]->lagging_count, 0);
    hand_read_all(reader);
    check_all(reader, publisher);
    /* What fitted the ring, and one more of each. */
    assert_true(reader->received_count <= 16 + HAND_ALIAS_MAX);
    assert_int_equal(rsi_load_relaxed(&reader->session.counts.conflated_messages),
                     reader->gap_count);
    assert_int_equal(rsi_load_relaxed(&reader->session.counts.dropped_messages), 0);
    publish(publisher, 1, 100);
    hand_read_all(reader);
    check_all(reader, publisher);
    hand_destroy(hand);
}

/* Two publishers of one topic: what either loses is told, and the newest of both comes. */
static void publishers_of_one_topic_are_counted_apart(void **state)
{
    (void)state;
    struct hand *hand = hand_create(2, 1, LOG_BYTES);
    hand->keeps_last = true;
    struct hand_client *first = hand_join(hand, 0, RING_BYTES);
    struct hand_client *second = hand_join(hand, 1, RING_BYTES);
    hand_open(first, 1, 1, subjects[1]);
    hand_open(second, 1, 1, subjects[1]);
    struct hand_client *reader = hand_join(hand, 1, 16u << 10);
    (void)hand_subscribe(reader, "s.a", RSI_POLICY_CONFLATE);
    for (uint32_t i = 0; i < 100; i++) {
        publish(first, 1, 1000);
        publish(second, 1, 1000);
    }
    publish(first, 1, 10);
    hand_rest(hand);
    hand_read_all(reader);
    assert_int_equal(reader->received_of[1] + reader->gap_of[1], 101);
    assert_int_equal(reader->received_of[2] + reader->gap_of[2], 100);
    assert_true(reader->gap_of[2] > 0);
    hand_destroy(hand);
}

/* It lags under drop when it asks: the cursor becomes what is missed. */
static void a_lagging_session_may_begin(void **state)
{
    (void)state;
    struct hand *hand = hand_create(1, 1, LOG_BYTES);
    struct hand_client *publisher = make_publisher(hand, 0);
    struct hand_client *reader = hand_join(hand, 0, 16u << 10);
    (void)hand_subscribe(reader, "s.*", RSI_POLICY_DROP);
    for (uint32_t i = 0; i < 100; i++) {
        publish(publisher, 1 + i % HAND_ALIAS_MAX, 1000);
    }
    hand_rest(hand);
    assert_int_equal(hand->plane->agents[0]->lagging_count, 1);
    uint64_t subscription = hand_subscribe(reader, "s.>", RSI_POLICY_CONFLATE);
    assert_int_equal(hand->plane->agents[0]->lagging_count, 0);
    hand_unsubscribe(reader, subscription); /* what waits goes on to be conflated */
    for (uint32_t i = 0; i < 100; i++) {
        publish(publisher, 1 + i % HAND_ALIAS_MAX, 1000);
    }
    hand_read_all(reader);
    check_all(reader, publisher);
    hand_destroy(hand);
}

static void who_leaves_holds_nothing(void **state)
{
    (void)state;
    for (uint32_t way = 0; way < 2; way++) {
        struct hand *hand = hand_create(1, 1, LOG_BYTES);
        struct hand_client *publisher = make_publisher(hand, 0);
        struct hand_client *reader = hand_join(hand, 0, 16u << 10);
        uint64_t subscription = hand_subscribe(reader, "s.*", RSI_POLICY_CONFLATE);
        for (uint32_t i = 0; i < 100; i++) {
            publish(publisher, 1 + i % HAND_ALIAS_MAX, 1000);
        }
        hand_rest(hand);
        if (way == 0) {
            hand_leave(reader);
        } else {
            hand_unsubscribe(reader, subscription);
            hand_read_all(reader);
        }
        assert_int_equal(hand->plane->agents[0]->care_count, 0);
        for (uint32_t id = 1; id <= hand->publication_count; id++) {
            assert_int_equal(rsi_load_relaxed(&hand->publications[id].hold_count), 0);
        }
        hand_destroy(hand);
    }
}

static void whatever_happens_the_end_is_right(void **state)
{
    (void)state;
    uint64_t conflated_count = 0;
    for (uint32_t seed = 1; seed <= SEEDS; seed++) {
        struct hand *hand = hand_create(1 + seed % 2, seed, LOG_BYTES);
        struct hand_client *publisher = make_publisher(hand, 0);
        struct hand_client *reader = hand_join(hand, seed / 2 % (1 + seed % 2), 16u << 10);
        uint64_t second = 0;
        (void)hand_subscribe(reader, "s.*", RSI_POLICY_CONFLATE);
        for (uint32_t i = 0; i < STEP_COUNT; i++) {
            uint32_t draw = (uint32_t)(hand_random(hand) >> 40);
            if (draw % 64 == 0 && second != 0) {
                hand_unsubscribe(reader, second);
                second = 0;
            } else if (draw % 64 < 2 && second == 0 && reader->snapshot_count < HAND_SNAPSHOT_MAX) {
                second = hand_subscribe_last(reader, subjects[1 + draw / 512 % 8],
                                             draw % 2 == 0 ? RSI_POLICY_CONFLATE : RSI_POLICY_DROP);
            } else if (draw % 64 < 40) {
                (void)hand_publish(publisher, 1 + draw / 512 % 8, draw / 4096 % 2000);
            } else if (draw % 64 < 44) {
                hand_read(reader, draw / 512 % 4000);
            } else {
                hand_step(hand);
            }
        }
        hand_read_all(reader);
        hand_rest(hand);
        for (uint32_t alias = 1; alias <= HAND_ALIAS_MAX; alias++) {
            uint32_t id = publisher->publication_of[alias];
            assert_int_equal(reader->received_of[id] + reader->gap_of[id],
                             publisher->published_of[alias]);
        }
        conflated_count += rsi_load_relaxed(&reader->session.counts.conflated_messages);
        hand_destroy(hand);
    }
    assert_true(conflated_count > SEEDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_of_each_topic_comes),
        cmocka_unit_test(publishers_of_one_topic_are_counted_apart),
        cmocka_unit_test(a_lagging_session_may_begin),
        cmocka_unit_test(who_leaves_holds_nothing),
        cmocka_unit_test(whatever_happens_the_end_is_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
