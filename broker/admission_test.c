/*
 * Design notes: a session whose delivery is at fault is still a publisher. Two agents are moved by
 * hand; what must hold: what had arrived when it was told to leave is taken, whoever holds it back,
 * until that is given up; and only what breaks the protocol is not read on.
 */
#include "broker/hand_testing.h"

#include "core/clock.h"

#define RING_BYTES (64u << 10)
#define LOG_BYTES  (1u << 20)

enum { TOPIC_A = 1, PAYLOAD_BYTES = 400 };

static bool is_waiting(const struct hand_client *client)
{
    return client->session.data.stall.is_waiting;
}

/* One that ends as slow: what it published waits for a subscriber that reads nothing for now. */
struct slow_publisher {
    struct hand *hand;
    struct hand_client *slow;
    struct hand_client *reader;
};

static struct slow_publisher end_slow_publisher(uint32_t slow_agent, uint32_t reader_agent)
{
    struct slow_publisher scene = {.hand = hand_create(2, 9, LOG_BYTES)};
    scene.slow = hand_join(scene.hand, slow_agent, RING_BYTES);
    scene.reader = hand_join(scene.hand, reader_agent, RING_BYTES);
    hand_open(scene.slow, 1, TOPIC_A, "md.a");
    hand_subscribe(scene.reader, "md.a", RSI_POLICY_BLOCK);
    hand_wait(scene.hand,
              ((void)hand_publish_all(scene.slow, 1, PAYLOAD_BYTES), is_waiting(scene.slow)));
    hand_rest(scene.hand);
    rsi_agent_fault(scene.hand->plane->agents[slow_agent], &scene.slow->session, RSI_E_SLOW,
                    "as the test wants");
    hand_rest(scene.hand);
    assert_true(is_waiting(scene.slow));
    return scene;
}

static void post_leave(struct slow_publisher *scene)
{
    (void)hand_publish_all(scene->slow, 1, 8);
    hand_apply(scene->hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_LEAVE,
                                               .session = &scene->slow->session});
    hand_rest(scene->hand);
    assert_false(rsi_load_acquire(&scene->slow->session.left));
}

static void forget(struct slow_publisher *scene)
{
    hand_apply(scene->hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_FORGET,
                                               .session = &scene->slow->session});
    hand_destroy(scene->hand);
}

/* All that had arrived when it was told to leave is taken, and nothing that came later. */
static void what_a_slow_session_published_is_taken(void **state)
{
    (void)state;
    for (uint32_t there = 0; there < 2; there++) {
        struct slow_publisher scene = end_slow_publisher(0, there);
        post_leave(&scene);
        uint64_t end_pos = scene.slow->link->arrived_pos;
        uint64_t count = scene.slow->published_of[1];
        hand_read(scene.reader, RING_BYTES);
        hand_rest(scene.hand);
        while (!hand_publish(scene.slow, 1, 8)) {
            assert_false(rsi_load_acquire(&scene.slow->session.left));
            hand_read(scene.reader, UINT64_MAX / 2);
            hand_step(scene.hand);
        }
        hand_read_all(scene.reader);
        assert_true(rsi_load_acquire(&scene.slow->session.left));
        assert_int_equal(scene.slow->link->consumed_pos, end_pos);
        assert_int_equal(scene.reader->received_count, count);
        forget(&scene);
    }
}

/* Nobody makes room in time: it leaves all the same, and its positions tell what was not taken. */
static void a_halt_ends_the_waiting(void **state)
{
    (void)state;
    struct slow_publisher scene = end_slow_publisher(1, 0);
    post_leave(&scene);
    uint64_t admitted_count = hand_admitted(scene.slow);
    hand_apply(scene.hand,
               &(struct rsi_edit){.kind = RSI_EDIT_SESSION_HALT, .session = &scene.slow->session});
    hand_rest(scene.hand);
    assert_true(rsi_load_acquire(&scene.slow->session.left));
    assert_true(scene.slow->link->consumed_pos < scene.slow->link->arrived_pos);
    assert_int_equal(hand_admitted(scene.slow), admitted_count);
    hand_read_all(scene.reader);
    assert_int_equal(scene.reader->received_count, admitted_count);
    forget(&scene);
}

/* It is slow, and then it breaks the protocol: that ends the reading, and the first reason stands.
 */
static void a_slow_session_may_yet_break_the_protocol(void **state)
{
    (void)state;
    struct slow_publisher scene = end_slow_publisher(0, 1);
    hand_read_all(scene.reader);
    uint64_t admitted_count = hand_admitted(scene.slow);
    uint64_t good_pos = scene.slow->link->arrived_pos;
    assert_int_equal(admitted_count, scene.slow->published_of[1]);
    assert_true(hand_publish(scene.slow, 5, 10)); /* an alias that is not open */
    assert_true(hand_publish(scene.slow, 1, 10));
    hand_rest(scene.hand);
    assert_int_equal(hand_admitted(scene.slow), admitted_count);
    assert_int_equal(scene.slow->session.fault.status, RSI_E_SLOW);
    hand_apply(scene.hand,
               &(struct rsi_edit){.kind = RSI_EDIT_SESSION_LEAVE, .session = &scene.slow->session});
    hand_wait(scene.hand, rsi_load_acquire(&scene.slow->session.left));
    assert_int_equal(scene.slow->link->consumed_pos, good_pos);
    forget(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_slow_session_published_is_taken),
        cmocka_unit_test(a_halt_ends_the_waiting),
        cmocka_unit_test(a_slow_session_may_yet_break_the_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
