/*
 * Design notes: who holds whom back under policy block, with two agents moved by hand in seeded
 * order. What must hold: only publishers of what a full session needs wait; nothing is lost and
 * order is kept; those who wait are let go in turn, evenly; a session that leaves, fails, gives up
 * or asks for less lets go at once; one that takes nothing is ended in time, by name; spills stay
 * within their bound whatever happens (hand_testing.c looks after every pass).
 */
#include "broker/hand_testing.h"

#include "core/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING_BYTES (64u << 10)
#define LOG_BYTES  (1u << 20)

enum { TOPIC_A = 1, TOPIC_B = 2, PAYLOAD_BYTES = 400, SEEDS = 5 };

struct sleeper {
    struct rsi_agent *agent;
    uint64_t wake_count;
};

/* The agent says that it will sleep, and finds nothing that keeps it from it. */
static struct sleeper fall_asleep(struct hand *hand, uint32_t index)
{
    struct rsi_agent *agent = hand->plane->agents[index];
    rsi_waker_prepare(&agent->waker);
    assert_false(rsi_blocking_lets_go(agent));
    return (struct sleeper){agent, rsi_load_relaxed(&agent->waker.wakes)};
}

static bool was_woken(struct sleeper *sleeper)
{
    bool was_woken = rsi_load_relaxed(&sleeper->agent->waker.wakes) != sleeper->wake_count;
    rsi_waker_finish(&sleeper->agent->waker);
    return was_woken;
}

static bool is_waiting(const struct hand_client *client)
{
    return client->session.data.stall.is_waiting;
}

/* Fills what there is until the publisher waits for a full session. */
static void publish_until_waiting(struct hand_client *publisher, uint32_t alias)
{
    hand_wait(publisher->hand,
              ((void)hand_publish_all(publisher, alias, PAYLOAD_BYTES), is_waiting(publisher)));
    hand_rest(publisher->hand);
}

/* Publishes `bytes` more and sees all of it admitted. */
static void expect_flow(struct hand_client *publisher, uint32_t alias, uint64_t bytes)
{
    struct hand *hand = publisher->hand;
    uint64_t count = bytes / rsi_frame_bytes(0, PAYLOAD_BYTES);
    uint64_t goal = hand_admitted(publisher) + count;
    for (uint64_t i = 0; i < count; i++) {
        hand_wait(hand, hand_publish(publisher, alias, PAYLOAD_BYTES));
    }
    hand_wait(hand, hand_admitted(publisher) >= goal);
}

/* ---- who waits ---------------------------------------------------------------------------------
 */

static void check_needed(uint64_t seed)
{
    struct hand *hand = hand_create(2, seed, LOG_BYTES);
    struct hand_client *slow = hand_join(hand, 0, RING_BYTES);
    struct hand_client *needed_here = hand_join(hand, 0, RING_BYTES);
    struct hand_client *needed_there = hand_join(hand, 1, RING_BYTES);
    struct hand_client *other_here = hand_join(hand, 0, RING_BYTES);
    struct hand_client *other_there = hand_join(hand, 1, RING_BYTES);
    hand_open(needed_here, 1, TOPIC_A, "md.a");
    hand_open(needed_there, 1, TOPIC_A, "md.a");
    hand_subscribe(slow, "md.a", RSI_POLICY_BLOCK);
    hand_open(other_here, 1, TOPIC_B, "md.b");
    hand_open(other_there, 1, TOPIC_B, "md.b");
    publish_until_waiting(needed_here, 1);
    publish_until_waiting(needed_there, 1);
    uint64_t admitted[2] = {hand_admitted(needed_here), hand_admitted(needed_there)};
    /* Several windows of the logs: nobody holds them. */
    expect_flow(other_here, 1, 4 * LOG_BYTES);
    expect_flow(other_there, 1, 4 * LOG_BYTES);
    assert_false(is_waiting(other_here) || is_waiting(other_there));
    assert_int_equal(hand_admitted(needed_here), admitted[0]);
    assert_int_equal(hand_admitted(needed_there), admitted[1]);
    assert_int_equal(rsi_load_relaxed(&needed_there->session.counts.stalled_by), slow->session.id);
    assert_int_equal(rsi_load_relaxed(&other_there->session.counts.stalled_by), 0);
    assert_int_equal(rsi_load_relaxed(&slow->session.counts.blocked_count), 1);
    hand_read_all(slow);
    assert_true(hand_has_all(slow, needed_here, 1) && hand_has_all(slow, needed_there, 1));
    assert_int_equal(slow->gap_count, 0);
    assert_int_equal(rsi_load_relaxed(&hand->plane->contended_count), 0);
    hand_destroy(hand);
}

static void only_publishers_that_are_needed_wait(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        check_needed(seed);
    }
}

/* One publisher of what two need waits until both have room. */
static void who_is_needed_by_two_waits_for_both(void **state)
{
    (void)state;
    struct hand *hand = hand_create(2, 1, LOG_BYTES);
    struct hand_client *slow[2] = {hand_join(hand, 0, RING_BYTES), hand_join(hand, 1, RING_BYTES)};
    struct hand_client *publisher = hand_join(hand, 0, RING_BYTES);
    hand_open(publisher, 1, TOPIC_A, "md.a");
    hand_subscribe(slow[0], "md.>", RSI_POLICY_BLOCK);
    hand_subscribe(slow[1], "md.a", RSI_POLICY_BLOCK);
    publish_until_waiting(publisher, 1);
    assert_int_equal(rsi_load_relaxed(&hand->plane->contended_count), 2);
    const struct rsi_session *first = publisher->session.data.stall.by;
    uint64_t place_ns = publisher->session.data.stall.place_ns;
    uint32_t at = first == &slow[0]->session ? 0 : 1;
    uint64_t admitted_count = hand_admitted(publisher);
    hand_read_all(slow[at]);
    assert_ptr_equal(publisher->session.data.stall.by, &slow[1 - at]->session);
    assert_int_equal(publisher->session.data.stall.place_ns, place_ns); /* it kept its place */
    assert_int_equal(hand_admitted(publisher), admitted_count);
    hand_read_all(slow[1 - at]);
    hand_read_all(slow[at]);
    assert_true(hand_has_all(slow[0], publisher, 1) && hand_has_all(slow[1], publisher, 1));
    assert_int_equal(slow[0]->gap_count + slow[1]->gap_count, 0);
    hand_destroy(hand);
}

/* It publishes what others need and does not want itself; what it wants holds it back, too. */
static void own_messages_hold_back_only_who_wants_them(void **state)
{
    (void)state;
    struct hand *hand = hand_create(2, 2, LOG_BYTES);
    struct hand_client *both = hand_join(hand, 0, RING_BYTES);
    struct hand_client *publisher = hand_join(hand, 1, RING_BYTES);
    hand_open(both, 1, TOPIC_A, "md.a");
    hand_open(publisher, 1, TOPIC_A, "md.a");
    hand_subscribe_quiet(both, "md.a", RSI_POLICY_BLOCK, true);
    publish_until_waiting(publisher, 1);
    expect_flow(both, 1, 2 * LOG_BYTES);
    uint64_t echo = hand_subscribe_quiet(both, "md.>", RSI_POLICY_DROP, false);
    (void)hand_publish_all(both, 1, PAYLOAD_BYTES);
    hand_rest(hand);
    assert_true(is_waiting(both));
    hand_unsubscribe(both, echo);
    hand_rest(hand);
    assert_false(is_waiting(both));
    assert_true(is_waiting(publisher));
    hand_destroy(hand);
}

/* ---- turns -------------------------------------------------------------------------------------
 */

/* `count` publishers on both agents always have something; the reader takes a little at a time. */
static void check_turns(uint64_t seed, uint32_t count)
{
    enum { PUBLISHER_MAX = 7, ROUNDS = 6 };
    const uint64_t publish_ring_bytes = 256u << 10; /* holds more than a batch */
    struct hand *hand = hand_create(2, seed, LOG_BYTES);
    struct hand_client *slow = hand_join(hand, 0, RING_BYTES);
    struct hand_client *publishers[PUBLISHER_MAX];
    uint64_t before[PUBLISHER_MAX];
    for (uint32_t i = 0; i < count; i++) {
        publishers[i] = hand_join(hand, i % 3 == 0 ? 1 : 0, publish_ring_bytes);
        hand_open(publishers[i], 1, TOPIC_A, "md.a");
    }
    hand_subscribe(slow, "md.a", RSI_POLICY_BLOCK);
    for (uint32_t i = 0; i < count; i++) {
        hand_wait(hand, ((void)hand_publish_all(publishers[i], 1, 200 + 150 * i),
                         is_waiting(publishers[i])));
    }
    for (uint32_t i = 0; i < count; i++) {
        before[i] = publishers[i]->link->consumed_pos;
    }
    uint64_t goal = slow->received_bytes + (uint64_t)ROUNDS * count * RSI_ADMIT_BYTES_PER_PASS;
    while (slow->received_bytes < goal) {
        hand_read(slow, hand_random(hand) % 20000);
        for (uint32_t i = 0; i < count; i++) {
            (void)hand_publish_all(publishers[i], 1, 200 + 150 * i);
        }
        hand_step(hand);
    }
    uint64_t lowest = UINT64_MAX;
    uint64_t highest = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t bytes = publishers[i]->link->consumed_pos - before[i];
        lowest = bytes < lowest ? bytes : lowest;
        highest = bytes > highest ? bytes : highest;
    }
    if (highest - lowest > RSI_ADMIT_BYTES_PER_PASS + HAND_MESSAGE_BYTES_MAX) {
        fail_msg("seed %llu, %u publishers: %llu to %llu bytes", (unsigned long long)seed, count,
                 (unsigned long long)lowest, (unsigned long long)highest);
    }
    hand_read_all(slow);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(hand_has_all(slow, publishers[i], 1));
    }
    assert_int_equal(slow->gap_count, 0);
    hand_destroy(hand);
}

static void those_who_wait_are_let_go_in_turn(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        for (uint32_t count = 2; count <= 7; count++) {
            check_turns(seed, count);
        }
    }
}

/* ---- letting go --------------------------------------------------------------------------------
 */

struct scene {
    struct hand *hand;
    struct hand_client *slow;
    struct hand_client *publisher; /* waits for slow on md.a */
    uint64_t subscription;
};

static struct scene scene_create(uint32_t slow_agent, uint32_t publisher_agent)
{
    struct scene scene = {.hand = hand_create(2, 3, LOG_BYTES)};
    scene.slow = hand_join(scene.hand, slow_agent, RING_BYTES);
    scene.publisher = hand_join(scene.hand, publisher_agent, RING_BYTES);
    hand_open(scene.publisher, 1, TOPIC_A, "md.a");
    scene.subscription = hand_subscribe(scene.slow, "md.a", RSI_POLICY_BLOCK);
    publish_until_waiting(scene.publisher, 1);
    return scene;
}

static void expect_let_go(const struct scene *scene)
{
    expect_flow(scene->publisher, 1, 2 * LOG_BYTES);
    assert_false(is_waiting(scene->publisher));
    assert_int_equal(rsi_load_relaxed(&scene->hand->plane->contended_count), 0);
    assert_true(rsi_load_relaxed(&scene->publisher->session.counts.stalled_ns) > 0);
    assert_int_equal(rsi_load_relaxed(&scene->publisher->session.counts.stalled_since_ns), 0);
    assert_true(rsi_load_relaxed(&scene->slow->session.counts.blocked_ns) > 0);
    assert_int_equal(rsi_load_relaxed(&scene->slow->session.counts.blocked_since_ns), 0);
}

static void who_leaves_lets_go(void **state)
{
    (void)state;
    for (uint32_t agent = 0; agent < 2; agent++) {
        struct scene scene = scene_create(0, agent);
        hand_leave(scene.slow);
        expect_let_go(&scene);
        hand_destroy(scene.hand);
    }
}

static void who_is_at_fault_lets_go(void **state)
{
    (void)state;
    struct scene scene = scene_create(0, 1);
    assert_true(hand_publish(scene.slow, 5, 10)); /* an alias that is not open */
    hand_wait(scene.hand, rsi_load_acquire(&scene.slow->session.faulted));
    expect_let_go(&scene);
    hand_destroy(scene.hand);
}

static void who_unsubscribes_lets_go(void **state)
{
    (void)state;
    for (uint32_t agent = 0; agent < 2; agent++) {
        struct scene scene = scene_create(1, agent);
        hand_unsubscribe(scene.slow, scene.subscription);
        expect_let_go(&scene);
        /* What was spilled is not delivered; what comes after a new subscription is. */
        uint64_t published_count = scene.publisher->published_of[1];
        hand_subscribe(scene.slow, "md.>", RSI_POLICY_BLOCK);
        assert_true(hand_publish(scene.publisher, 1, PAYLOAD_BYTES));
        hand_read_all(scene.slow);
        assert_int_equal(scene.slow->gap_count, 0);
        assert_int_equal(scene.slow->expected[1], published_count + 2);
        hand_destroy(scene.hand);
    }
}

/* Only the part of its spill that nothing asks for any more goes. */
static void who_asks_for_less_keeps_the_rest_in_order(void **state)
{
    (void)state;
    struct hand *hand = hand_create(2, 4, LOG_BYTES);
    struct hand_client *slow = hand_join(hand, 0, RING_BYTES);
    struct hand_client *publisher = hand_join(hand, 1, RING_BYTES);
    hand_open(publisher, 1, TOPIC_A, "md.a");
    hand_open(publisher, 2, TOPIC_B, "md.b");
    uint64_t only_a = hand_subscribe(slow, "md.a", RSI_POLICY_BLOCK);
    hand_subscribe(slow, "md.b", RSI_POLICY_BLOCK);
    hand_wait(hand, ((void)hand_publish(publisher, 2, PAYLOAD_BYTES),
                     (void)hand_publish(publisher, 1, PAYLOAD_BYTES), is_waiting(publisher)));
    struct hand_client *publisher_of_a = hand_join(hand, 1, RING_BYTES);
    hand_open(publisher_of_a, 1, TOPIC_A, "md.a");
    publish_until_waiting(publisher_of_a, 1);
    (void)hand_post(hand, &(struct rsi_edit){.kind = RSI_EDIT_UNSUBSCRIBE,
                                             .session = &slow->session,
                                             .subscription = only_a});
    (void)rsi_agent_pass(hand->plane->agents[1]);
    struct sleeper sleeper = fall_asleep(hand, 1);
    (void)rsi_agent_apply_edits(hand->plane->agents[0]);
    assert_true(rsi_blocking_is_full(slow->session.data.blocking)); /* still, but not of md.a */
    assert_true(rsi_blocking_lets_go(sleeper.agent));
    assert_true(was_woken(&sleeper));
    hand_rest(hand);
    assert_false(is_waiting(publisher_of_a));
    hand_read_all(slow);
    assert_int_equal(slow->gap_count, 0);
    assert_true(hand_has_all(slow, publisher, 2));
    assert_int_equal(slow->received_of[2], publisher->published_of[2]);
    assert_true(slow->received_of[1] < publisher->published_of[1]);
    hand_destroy(hand);
}

static void a_publisher_that_waits_can_leave(void **state)
{
    (void)state;
    struct scene scene = scene_create(0, 1);
    uint64_t ticket =
        hand_post(scene.hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_LEAVE,
                                                 .session = &scene.publisher->session});
    hand_wait(scene.hand, rsi_data_plane_is_applied(scene.hand->plane, ticket));
    hand_rest(scene.hand);
    assert_false(rsi_load_acquire(&scene.publisher->session.left)); /* its last frames wait */
    hand_read_all(scene.slow);
    hand_wait(scene.hand, rsi_load_acquire(&scene.publisher->session.left));
    hand_read_all(scene.slow);
    assert_true(hand_has_all(scene.slow, scene.publisher, 1));
    hand_apply(scene.hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_FORGET,
                                              .session = &scene.publisher->session});
    hand_destroy(scene.hand);
}

/* Two that publish to each other, with all rings full, and neither reads. */
static void a_mutual_pair_with_full_rings_can_leave(void **state)
{
    (void)state;
    for (uint32_t there = 0; there < 2; there++) {
        struct hand *hand = hand_create(2, 5, LOG_BYTES);
        struct hand_client *pair[2] = {hand_join(hand, 0, RING_BYTES),
                                       hand_join(hand, there, RING_BYTES)};
        uint64_t subscriptions[2];
        hand_open(pair[0], 1, TOPIC_A, "md.a");
        hand_open(pair[1], 1, TOPIC_B, "md.b");
        subscriptions[0] = hand_subscribe(pair[0], "md.b", RSI_POLICY_BLOCK);
        subscriptions[1] = hand_subscribe(pair[1], "md.a", RSI_POLICY_BLOCK);
        hand_wait(hand, ((void)hand_publish_all(pair[0], 1, PAYLOAD_BYTES),
                         (void)hand_publish_all(pair[1], 1, PAYLOAD_BYTES),
                         is_waiting(pair[0]) && is_waiting(pair[1])));
        assert_false(hand_publish(pair[0], 1, PAYLOAD_BYTES) ||
                     hand_publish(pair[1], 1, PAYLOAD_BYTES));
        hand_unsubscribe(pair[0], subscriptions[0]);
        hand_unsubscribe(pair[1], subscriptions[1]);
        hand_leave(pair[0]);
        hand_leave(pair[1]);
        hand_destroy(hand);
    }
}

/* ---- waking -------------------------------------------------------------------------------------
 */

static void read_most(struct scene *scene)
{
    while (rsi_blocking_is_full(scene->slow->session.data.blocking)) {
        hand_read(scene->slow, UINT64_MAX / 2);
        (void)rsi_agent_pass(scene->hand->plane->agents[0]);
    }
}

static void fail_slow(struct scene *scene)
{
    rsi_agent_fault(scene->hand->plane->agents[0], &scene->slow->session, RSI_E_PROTOCOL,
                    "as the test wants");
}

static void apply_here(struct scene *scene)
{
    (void)rsi_agent_pass(scene->hand->plane->agents[0]);
}

/* An edit that the other agent applied before it fell asleep, and the home agent applies now. */
static void check_woken_by(const struct rsi_edit *edit, void (*let_go)(struct scene *scene))
{
    struct scene scene = scene_create(0, 1);
    struct rsi_edit own = *edit;
    own.session = &scene.slow->session;
    own.subscription = scene.subscription;
    if (own.kind != 0) {
        (void)hand_post(scene.hand, &own);
        (void)rsi_agent_pass(scene.hand->plane->agents[1]);
        assert_true(is_waiting(scene.publisher));
    }
    struct sleeper sleeper = fall_asleep(scene.hand, 1);
    let_go(&scene);
    assert_true(rsi_blocking_lets_go(sleeper.agent));
    assert_true(was_woken(&sleeper));
    if (own.kind == RSI_EDIT_SESSION_LEAVE) {
        assert_true(rsi_load_acquire(&scene.slow->session.left));
        hand_apply(scene.hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_FORGET,
                                                  .session = &scene.slow->session});
    }
    hand_destroy(scene.hand);
}

static void who_lets_go_wakes_who_waits(void **state)
{
    (void)state;
    check_woken_by(&(struct rsi_edit){0}, read_most);
    check_woken_by(&(struct rsi_edit){0}, fail_slow);
    check_woken_by(&(struct rsi_edit){.kind = RSI_EDIT_SESSION_LEAVE}, apply_here);
    check_woken_by(&(struct rsi_edit){.kind = RSI_EDIT_UNSUBSCRIBE}, apply_here);
}

/* The queue's first is here, and admits nothing any more: the agent of the next one is woken. */
static void a_turn_that_passes_on_wakes_the_next(void **state)
{
    (void)state;
    struct hand *hand = hand_create(2, 8, LOG_BYTES);
    struct hand_client *slow = hand_join(hand, 0, RING_BYTES);
    struct hand_client *here = hand_join(hand, 0, RING_BYTES);
    struct hand_client *there = hand_join(hand, 1, RING_BYTES);
    struct rsi_agent *home = hand->plane->agents[0];
    hand_open(here, 1, TOPIC_A, "md.a");
    hand_open(there, 1, TOPIC_A, "md.a");
    hand_subscribe(slow, "md.a", RSI_POLICY_BLOCK);
    publish_until_waiting(here, 1);
    publish_until_waiting(there, 1);
    while (rsi_blocking_is_full(slow->session.data.blocking)) {
        hand_read(slow, UINT64_MAX / 2);
        (void)rsi_agent_pass(home);
    }
    struct sleeper sleeper = fall_asleep(hand, 1); /* it looked: the turn is not its own */
    rsi_agent_fault(home, &here->session, RSI_E_PROTOCOL, "as the test wants");
    assert_true(rsi_blocking_lets_go(sleeper.agent));
    assert_true(was_woken(&sleeper));
    hand_read_all(slow);
    assert_true(hand_has_all(slow, there, 1));
    hand_destroy(hand);
}

/* The home agent has no time-out until somebody waits: then it is woken to set one. */
static void who_begins_to_wait_wakes_the_clock(void **state)
{
    (void)state;
    struct scene scene = scene_create(0, 1);
    rsi_blocking_step_aside(scene.hand->plane->agents[1], &scene.publisher->session);
    (void)rsi_agent_pass(scene.hand->plane->agents[0]);
    struct sleeper sleeper = fall_asleep(scene.hand, 0);
    assert_int_equal(rsi_blocking_deadline_ns(sleeper.agent), UINT64_MAX);
    (void)rsi_agent_pass(scene.hand->plane->agents[1]);
    assert_true(is_waiting(scene.publisher));
    assert_true(was_woken(&sleeper));
    rsi_blocking_watch(sleeper.agent);
    assert_true(rsi_blocking_deadline_ns(sleeper.agent) < UINT64_MAX);
    hand_destroy(scene.hand);
}

/* An agent may look at the table once more after it applied LEAVE, and so wait for a session that
 * is about to be freed. */
static void a_session_is_forgotten_before_it_is_freed(void **state)
{
    (void)state;
    struct scene scene = scene_create(0, 1);
    const struct rsi_session *slow = &scene.slow->session;
    struct rsi_agent *there = scene.hand->plane->agents[1];
    (void)hand_post(scene.hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_LEAVE,
                                                   .session = &scene.slow->session});
    (void)rsi_agent_pass(there);
    assert_ptr_equal(scene.publisher->session.data.stall.by, slow);
    (void)rsi_agent_pass(scene.hand->plane->agents[0]);
    assert_true(rsi_load_acquire(&slow->left));
    assert_ptr_equal(scene.publisher->session.data.stall.by, slow); /* it has not looked again */
    (void)hand_post(scene.hand, &(struct rsi_edit){.kind = RSI_EDIT_SESSION_FORGET,
                                                   .session = &scene.slow->session});
    assert_int_equal(rsi_agent_apply_edits(there), 1);
    assert_null(scene.publisher->session.data.stall.by);
    hand_rest(scene.hand);
    hand_destroy(scene.hand);
}

/* ---- changes of policy -------------------------------------------------------------------------
 */

static void giving_up_block_drops_with_exact_gaps(void **state)
{
    (void)state;
    struct scene scene = scene_create(0, 1);
    struct hand_client *slow = scene.slow;
    uint64_t in_ring_bytes = rsi_spill_bytes(&slow->session.data.blocking->spill);
    assert_true(in_ring_bytes > RING_BYTES);
    hand_subscribe(slow, "md.>", RSI_POLICY_DROP);
    hand_unsubscribe(slow, scene.subscription);
    expect_let_go(&scene);
    assert_int_equal(rsi_spill_bytes(&slow->session.data.blocking->spill), 0);
    hand_read_all(slow);
    assert_true(hand_has_all(slow, scene.publisher, 1));
    assert_true(slow->gap_count > 0);
    assert_int_equal(slow->received_count + slow->gap_count, scene.publisher->published_of[1]);
    assert_int_equal(rsi_load_relaxed(&slow->session.counts.dropped_messages), slow->gap_count);
    hand_destroy(scene.hand);
}

static void giving_up_block_lets_the_spill_drain(void **state)
{
    (void)state;
    struct scene scene = scene_create(0, 1);
    hand_subscribe(scene.slow, "md.>", RSI_POLICY_DROP);
    hand_unsubscribe(scene.slow, scene.subscription);
    hand_read_all(scene.slow); /* at once: nothing has to be left out */
    assert_true(hand_has_all(scene.slow, scene.publisher, 1));
    assert_int_equal(scene.slow->gap_count, 0);
    hand_destroy(scene.hand);
}

static void giving_up_block_for_disconnect_ends_who_is_too_far_behind(void **state)
{
    (void)state;
    struct scene scene = scene_create(0, 1);
    hand_subscribe(scene.slow, "md.>", RSI_POLICY_DISCONNECT);
    hand_unsubscribe(scene.slow, scene.subscription);
    expect_let_go(&scene);
    assert_true(rsi_load_acquire(&scene.slow->session.faulted));
    assert_int_equal(scene.slow->session.fault.status, RSI_E_SLOW);
    assert_non_null(strstr(scene.slow->session.fault.text, scene.slow->session.name));
    hand_destroy(scene.hand);
}

/* A subscriber that lags under `before` asks for block, and gets everything from then on. */
static struct scene lagging_scene(enum rsi_policy before, uint64_t lag_bytes)
{
    struct scene scene = {.hand = hand_create(2, 6, LOG_BYTES)};
    scene.slow = hand_join(scene.hand, 0, RING_BYTES);
    scene.publisher = hand_join(scene.hand, 1, RING_BYTES);
    hand_open(scene.publisher, 1, TOPIC_A, "md.a");
    hand_subscribe(scene.slow, "md.a", before);
    expect_flow(scene.publisher, 1, lag_bytes);
    hand_rest(scene.hand);
    return scene;
}

static void asking_for_block_when_far_behind_tells_a_gap_once(void **state)
{
    (void)state;
    struct scene scene = lagging_scene(RSI_POLICY_DROP, RING_BYTES + 3 * LOG_BYTES);
    struct hand_client *slow = scene.slow;
    hand_subscribe(slow, "md.>", RSI_POLICY_BLOCK);
    uint64_t dropped_count = rsi_load_relaxed(&slow->session.counts.dropped_messages);
    assert_true(dropped_count > 0);
    publish_until_waiting(scene.publisher, 1);
    hand_read_all(slow);
    assert_true(hand_has_all(slow, scene.publisher, 1));
    assert_int_equal(slow->gap_count, dropped_count);
    assert_int_equal(slow->received_count + slow->gap_count, scene.publisher->published_of[1]);
    hand_destroy(scene.hand);
}

static void asking_for_block_when_a_little_behind_loses_nothing(void **state)
{
    (void)state;
    static const enum rsi_policy policies[] = {RSI_POLICY_DROP, RSI_POLICY_DISCONNECT};
    for (uint32_t i = 0; i < rsi_array_count(policies); i++) {
        struct scene scene = lagging_scene(policies[i], RING_BYTES + RING_BYTES / 2);
        assert_int_equal(scene.slow->session.data.lagging_count, 1);
        hand_subscribe(scene.slow, "md.>", RSI_POLICY_BLOCK);
        assert_int_equal(scene.slow->session.data.lagging_count, 0);
        publish_until_waiting(scene.publisher, 1);
        hand_read_all(scene.slow);
        assert_true(hand_has_all(scene.slow, scene.publisher, 1));
        assert_int_equal(scene.slow->gap_count, 0);
        hand_destroy(scene.hand);
    }
}

static void asking_for_block_too_late_under_disconnect_is_too_slow(void **state)
{
    (void)state;
    struct scene scene = lagging_scene(RSI_POLICY_DISCONNECT, 4 * RING_BYTES);
    assert_false(rsi_load_acquire(&scene.slow->session.faulted));
    hand_subscribe(scene.slow, "md.>", RSI_POLICY_BLOCK);
    assert_true(rsi_load_acquire(&scene.slow->session.faulted));
    assert_int_equal(scene.slow->session.fault.status, RSI_E_SLOW);
    hand_destroy(scene.hand);
}

/* The other agent has admitted much that the home agent has not walked when the edit comes. */
static void what_was_published_before_the_promise_is_no_part_of_it(void **state)
{
    (void)state;
    struct hand *hand = hand_create(2, 7, LOG_BYTES);
    struct hand_client *slow = hand_join(hand, 0, RING_BYTES);
    struct hand_client *publisher = hand_join(hand, 1, RING_BYTES);
    struct rsi_agent *there = hand->plane->agents[1];
    hand_open(publisher, 1, TOPIC_A, "md.a");
    hand_rest(hand);
    for (uint32_t i = 0; i < 12; i++) { /* 3/4 of the window, far beyond ahead_bytes */
        (void)hand_publish_all(publisher, 1, PAYLOAD_BYTES);
        (void)rsi_agent_pass(there);
    }
    uint64_t published_count = hand_admitted(publisher);
    assert_true(there->log.append_pos - hand->plane->agents[0]->common_pos[1] > LOG_BYTES / 2);
    hand_subscribe(slow, "md.a", RSI_POLICY_BLOCK);
    hand_rest(hand);
    hand_read_all(slow);
    assert_int_equal(slow->received_count, 0);
    (void)hand_publish_all(publisher, 1, PAYLOAD_BYTES);
    hand_read_all(slow);
    assert_int_equal(slow->gap_count, 0);
    assert_int_equal(slow->received_count, publisher->published_of[1] - published_count);
    hand_destroy(hand);
}

/* ---- time --------------------------------------------------------------------------------------
 */

/* As if block_timeout had passed since the last that the home agent knows of. */
static void let_time_pass(struct hand_client *slow)
{
    struct rsi_blocking *blocking = slow->session.data.blocking;
    blocking->progress_ns = rsi_clock_now_ns() - HAND_DEADLINE_NS;
    blocking->waited_since_ns = blocking->progress_ns;
}

static void who_takes_nothing_is_ended_by_name(void **state)
{
    (void)state;
    struct scene scene = scene_create(1, 0);
    struct hand_client *idle = hand_join(scene.hand, 1, RING_BYTES);
    hand_subscribe(idle, "news.>", RSI_POLICY_BLOCK); /* full of nothing, never blamed */
    const struct rsi_agent *home = scene.hand->plane->agents[1];
    assert_true(rsi_blocking_deadline_ns(home) < UINT64_MAX);
    assert_int_equal(rsi_blocking_deadline_ns(scene.hand->plane->agents[0]), UINT64_MAX);
    /* As long as it takes a little, it is slow and no more. */
    for (uint32_t i = 0; i < 10; i++) {
        hand_read(scene.slow, 1);
        let_time_pass(scene.slow);
        hand_rest(scene.hand);
    }
    assert_false(rsi_load_acquire(&scene.slow->session.faulted));
    assert_true(rsi_blocking_is_full(scene.slow->session.data.blocking));
    let_time_pass(scene.slow);
    hand_rest(scene.hand);
    assert_true(rsi_load_acquire(&scene.slow->session.faulted));
    const struct rsi_error *fault = &scene.slow->session.fault;
    assert_int_equal(fault->status, RSI_E_SLOW);
    assert_non_null(strstr(fault->text, scene.slow->session.name));
    assert_non_null(strstr(fault->text, scene.publisher->session.name));
    assert_non_null(strstr(fault->text, "md.a"));
    assert_non_null(strstr(fault->text, "block_timeout"));
    expect_let_go(&scene);
    assert_false(rsi_load_acquire(&idle->session.faulted));
    hand_destroy(scene.hand);
}

/* Full, but nobody waits: its time does not run. */
static void time_runs_only_while_somebody_waits(void **state)
{
    (void)state;
    struct scene scene = scene_create(0, 1);
    hand_wait(scene.hand, is_waiting(scene.publisher));
    /* The publisher fails: its frames are given up, and nobody waits any more. */
    rsi_agent_fault(scene.hand->plane->agents[1], &scene.publisher->session, RSI_E_PROTOCOL,
                    "as the test wants");
    hand_rest(scene.hand);
    assert_int_equal(rsi_blocking_deadline_ns(scene.hand->plane->agents[0]), UINT64_MAX);
    assert_true(rsi_blocking_is_full(scene.slow->session.data.blocking));
    scene.slow->session.data.blocking->progress_ns = rsi_clock_now_ns() - HAND_DEADLINE_NS;
    hand_rest(scene.hand);
    assert_false(rsi_load_acquire(&scene.slow->session.faulted));
    hand_destroy(scene.hand);
}

/* ---- all at once -------------------------------------------------------------------------------
 */

enum { CROWD_READERS = 4, CROWD_PUBLISHERS = 4, CROWD_TOPICS = 3 };

struct crowd {
    struct hand *hand;
    struct hand_client *readers[CROWD_READERS];
    struct hand_client *publishers[CROWD_PUBLISHERS];
    uint64_t subscriptions[CROWD_READERS][CROWD_TOPICS + 1];
    enum rsi_policy policies[CROWD_READERS][CROWD_TOPICS + 1];
    bool was_lax[CROWD_READERS]; /* had some time a policy that may leave something out */
};

static void resolve(struct crowd *crowd, uint32_t reader)
{
    bool has_any = false;
    bool has_block = false;
    for (uint32_t topic = 1; topic <= CROWD_TOPICS; topic++) {
        has_any |= crowd->subscriptions[reader][topic] != 0;
        has_block |= crowd->subscriptions[reader][topic] != 0 &&
                     crowd->policies[reader][topic] == RSI_POLICY_BLOCK;
    }
    crowd->was_lax[reader] |= has_any && !has_block;
}

static void change_subscription(struct crowd *crowd, uint32_t reader, uint32_t topic)
{
    char subject[16];
    snprintf(subject, sizeof(subject), "md.%u", topic);
    if (crowd->subscriptions[reader][topic] != 0) {
        hand_unsubscribe(crowd->readers[reader], crowd->subscriptions[reader][topic]);
        crowd->subscriptions[reader][topic] = 0;
    } else {
        /* The first two always ask for block. */
        enum rsi_policy policy =
            reader < 2 || hand_random(crowd->hand) % 2 ? RSI_POLICY_BLOCK : RSI_POLICY_DROP;
        crowd->policies[reader][topic] = policy;
        crowd->subscriptions[reader][topic] =
            hand_subscribe(crowd->readers[reader], subject, policy);
    }
    resolve(crowd, reader);
}

static void move_crowd(struct crowd *crowd)
{
    struct hand *hand = crowd->hand;
    uint64_t draw = hand_random(hand) >> 20;
    uint32_t reader = (uint32_t)(draw >> 8) % CROWD_READERS;
    uint32_t publisher = (uint32_t)(draw >> 8) % CROWD_PUBLISHERS;
    uint32_t topic = 1 + (uint32_t)(draw >> 16) % CROWD_TOPICS;
    switch (draw % 64) {
    case 0:
        change_subscription(crowd, reader, topic);
        break;
    case 1 ... 12:
        hand_read(crowd->readers[reader], (draw >> 24) % (2 * RING_BYTES));
        break;
    case 13 ... 30:
        for (uint64_t i = 0; i < (draw >> 24) % 100; i++) {
            (void)hand_publish(crowd->publishers[publisher], topic,
                               (uint32_t)(hand_random(hand) >> 33) % 3000);
        }
        break;
    default:
        hand_step(hand);
        break;
    }
}

static void check_crowd(const struct crowd *crowd)
{
    for (uint32_t r = 0; r < CROWD_READERS; r++) {
        const struct hand_client *reader = crowd->readers[r];
        assert_true(crowd->was_lax[r] || reader->gap_count == 0);
        assert_false(rsi_load_acquire(&reader->session.faulted));
        for (uint32_t p = 0; p < CROWD_PUBLISHERS; p++) {
            for (uint32_t topic = 1; topic <= CROWD_TOPICS; topic++) {
                uint32_t id = crowd->publishers[p]->publication_of[topic];
                if (crowd->subscriptions[r][topic] != 0 &&
                    reader->session.data.announced[0] >> id & 1) {
                    assert_true(hand_has_all(reader, crowd->publishers[p], topic));
                }
            }
        }
    }
}

static void run_crowd(uint64_t seed)
{
    enum { STEPS = 4000 };
    struct crowd crowd = {.hand = hand_create(2, seed, LOG_BYTES)};
    for (uint32_t i = 0; i < CROWD_READERS; i++) {
        crowd.readers[i] = hand_join(crowd.hand, i % 2, RING_BYTES);
    }
    for (uint32_t i = 0; i < CROWD_PUBLISHERS; i++) {
        crowd.publishers[i] = hand_join(crowd.hand, i / 2, RING_BYTES);
        for (uint32_t topic = 1; topic <= CROWD_TOPICS; topic++) {
            char subject[16];
            snprintf(subject, sizeof(subject), "md.%u", topic);
            hand_open(crowd.publishers[i], topic, topic, subject);
        }
    }
    for (uint32_t i = 0; i < STEPS; i++) {
        move_crowd(&crowd);
    }
    uint64_t moved = 1;
    while (moved > 0) {
        moved = 0;
        for (uint32_t i = 0; i < CROWD_READERS; i++) {
            uint64_t before_pos = crowd.readers[i]->read_pos;
            hand_read_all(crowd.readers[i]);
            moved += crowd.readers[i]->read_pos - before_pos;
        }
    }
    for (uint32_t i = 0; i < CROWD_PUBLISHERS; i++) {
        assert_int_equal(crowd.publishers[i]->link->consumed_pos,
                         crowd.publishers[i]->link->arrived_pos);
    }
    check_crowd(&crowd);
    hand_destroy(crowd.hand);
}

static void whatever_happens_promises_and_bounds_hold(void **state)
{
    (void)state;
    enum { RUNS = 60 };
    const char *given = getenv("RINGSIDE_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : rsi_clock_now_ns() % 1000000000;
    print_message("RINGSIDE_TEST_SEED=%llu\n", (unsigned long long)seed);
    for (uint64_t i = 0; i < RUNS; i++) {
        run_crowd(seed + i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_publishers_that_are_needed_wait),
        cmocka_unit_test(who_is_needed_by_two_waits_for_both),
        cmocka_unit_test(own_messages_hold_back_only_who_wants_them),
        cmocka_unit_test(those_who_wait_are_let_go_in_turn),
        cmocka_unit_test(who_leaves_lets_go),
        cmocka_unit_test(who_is_at_fault_lets_go),
        cmocka_unit_test(who_unsubscribes_lets_go),
        cmocka_unit_test(who_asks_for_less_keeps_the_rest_in_order),
        cmocka_unit_test(a_publisher_that_waits_can_leave),
        cmocka_unit_test(a_mutual_pair_with_full_rings_can_leave),
        cmocka_unit_test(who_lets_go_wakes_who_waits),
        cmocka_unit_test(a_turn_that_passes_on_wakes_the_next),
        cmocka_unit_test(who_begins_to_wait_wakes_the_clock),
        cmocka_unit_test(a_session_is_forgotten_before_it_is_freed),
        cmocka_unit_test(giving_up_block_drops_with_exact_gaps),
        cmocka_unit_test(giving_up_block_lets_the_spill_drain),
        cmocka_unit_test(giving_up_block_for_disconnect_ends_who_is_too_far_behind),
        cmocka_unit_test(asking_for_block_when_far_behind_tells_a_gap_once),
        cmocka_unit_test(asking_for_block_when_a_little_behind_loses_nothing),
        cmocka_unit_test(asking_for_block_too_late_under_disconnect_is_too_slow),
        cmocka_unit_test(what_was_published_before_the_promise_is_no_part_of_it),
        cmocka_unit_test(who_takes_nothing_is_ended_by_name),
        cmocka_unit_test(time_runs_only_while_somebody_waits),
        cmocka_unit_test(whatever_happens_promises_and_bounds_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
