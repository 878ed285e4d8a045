/*
 * What only sim promises: a seed repeats a run, another one does not, and a wire can be cut. All
 * that every transport promises is in the conformance suite.
 */
#include "transport/sim/sim.h"

#include "core/clock.h"
#include "core/testing.h"
#include "transport/frame.h"
#include "transport/registry.h"

enum { TRACE_STEPS = 3000 };

/* Two sides in one thread. */
struct pair {
    struct rsi_domain *domain;
    struct rsi_poller *pollers[2];
    struct rsi_listener *listener;
    struct rsi_link *links[2]; /* 0 dialled, 1 accepted */
};

static const struct rsi_transport *const sim = &rsi_sim_transport;

static void step(struct pair *pair, uint32_t side)
{
    uint64_t now_ns = rsi_clock_now_ns();
    (void)rsi_poller_poll(pair->pollers[side], now_ns);
    (void)sim->domain_poll_control(pair->domain, now_ns);
    sim->link_poll_control(pair->links[side], now_ns);
}

static bool both_are(struct pair *pair, enum rsi_link_state state)
{
    return rsi_link_state(pair->links[0]) == state && rsi_link_state(pair->links[1]) == state;
}

static void step_until(struct pair *pair, enum rsi_link_state state)
{
    for (uint32_t i = 0; i < 1000 && !both_are(pair, state); i++) {
        step(pair, i % 2);
    }
    assert_true(both_are(pair, state));
}

static void setup_pair(struct pair *pair, uint64_t seed)
{
    struct rsi_domain_options domain = {.seed = seed, .node = RSI_NODE_ANY};
    struct rsi_poller_options poller = {.link_count_max = 2};
    struct rsi_link_rings rings = {.out_bytes = 65536, .in_bytes = 65536};
    struct rsi_url url;
    memset(pair, 0, sizeof(*pair));
    assert_int_equal(rsi_url_parse(&url, "sim://pair", NULL), RSI_OK);
    assert_int_equal(sim->domain_create(&pair->domain, &domain, NULL), RSI_OK);
    rsi_sim_set_process(1);
    assert_int_equal(sim->listener_create(&pair->listener, pair->domain, &url, NULL), RSI_OK);
    for (uint32_t i = 0; i < 2; i++) {
        rsi_sim_set_process(i);
        assert_int_equal(sim->poller_create(&pair->pollers[i], pair->domain, &poller, NULL),
                         RSI_OK);
    }
    assert_int_equal(sim->link_dial(&pair->links[0], pair->pollers[0], &url, NULL), RSI_OK);
    assert_int_equal(
        sim->link_accept(&pair->links[1], pair->listener, RSI_POLLER_ONLY(pair->pollers[1]), NULL),
        RSI_OK);
    step_until(pair, RSI_LINK_OPEN);
    assert_int_equal(sim->link_attach(pair->links[0], &rings, NULL), RSI_OK);
    assert_int_equal(sim->link_attach(pair->links[1], &rings, NULL), RSI_OK);
    step_until(pair, RSI_LINK_ATTACHED);
}

static void teardown_pair(struct pair *pair)
{
    sim->listener_destroy(pair->listener);
    sim->link_close(pair->links[0]);
    sim->link_close(pair->links[1]);
    step_until(pair, RSI_LINK_CLOSED);
    for (uint32_t i = 0; i < 2; i++) {
        sim->link_destroy(pair->links[i]);
        sim->poller_destroy(pair->pollers[i]);
    }
    sim->domain_destroy(pair->domain);
}

static void stage(struct rsi_link *link, uint64_t payload_bytes)
{
    uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
    struct rsi_frame_header *header = rsi_frame_claim(link, frame_bytes);
    if (header == NULL) {
        return;
    }
    *header = (struct rsi_frame_header){
        .payload_bytes = (uint32_t)payload_bytes,
        .type = RSI_FRAME_MESSAGE,
    };
    memset(header + 1, 0x5a, payload_bytes);
    rsi_frame_commit(link, frame_bytes);
    rsi_link_place(link);
}

/* A hash of every position that the two sides see, after every step. */
static uint64_t trace(uint64_t seed)
{
    struct pair pair;
    setup_pair(&pair, seed);
    uint64_t hash = 0;
    for (uint32_t i = 0; i < TRACE_STEPS; i++) {
        uint32_t side = i / 3 % 2;
        struct rsi_link *link = pair.links[side];
        stage(link, i % 200);
        assert_false(rsi_failed(rsi_link_flush_clocked(link)));
        step(&pair, side);
        rsi_link_consume(link, link->arrived_pos - link->consumed_pos);
        const uint64_t seen[] = {link->arrived_pos, link->peer_arrived_pos, link->peer_consumed_pos,
                                 link->flushed_pos};
        for (size_t j = 0; j < rsi_array_count(seen); j++) {
            hash = (hash ^ seen[j]) * UINT64_C(0x100000001b3);
            hash ^= hash >> 29;
        }
    }
    assert_true(pair.links[0]->arrived_pos > 0);
    teardown_pair(&pair);
    return hash;
}

static void test_seed_repeats_a_run(void **state)
{
    (void)state;
    uint64_t seed = rsi_test_seed();
    uint64_t first = trace(seed);
    assert_int_equal(trace(seed), first);
    uint32_t other_count = 0;
    for (uint64_t i = 1; i <= 8; i++) {
        other_count += trace(seed + i) != first;
    }
    assert_int_equal(other_count, 8);
}

/* Bytes of a batch can be there before others of it, and before arrived_pos says so. */
static void test_batches_are_seen_torn(void **state)
{
    (void)state;
    uint64_t seed = rsi_test_seed();
    uint32_t torn_count = 0;
    for (uint64_t i = 0; i < 50; i++) {
        struct pair pair;
        setup_pair(&pair, seed + i);
        struct rsi_link *link = pair.links[0];
        stage(link, 4000);
        while (link->flushed_pos < link->placed_pos) {
            (void)rsi_link_flush(link);
            step(&pair, 0);
        }
        const struct rsi_link *reader = pair.links[1];
        for (uint32_t steps = 0; steps < 100 && reader->arrived_pos == 0; steps++) {
            const uint8_t *payload = rsi_ring_at(&reader->in, RSI_FRAME_HEADER_BYTES);
            bool has_first = payload[0] == 0x5a;
            bool has_last = payload[3999] == 0x5a;
            torn_count += has_first != has_last;
            step(&pair, 1);
        }
        assert_int_equal(reader->arrived_pos, link->placed_pos);
        teardown_pair(&pair);
    }
    assert_true(torn_count > 0);
}

static void test_cut_loses_both_sides(void **state)
{
    (void)state;
    for (uint64_t delay = 0; delay < 20; delay += 5) {
        struct pair pair;
        setup_pair(&pair, 1 + delay);
        stage(pair.links[0], 100);
        (void)rsi_link_flush(pair.links[0]);
        rsi_sim_cut(pair.links[1], delay);
        assert_false(sim->poller_arm(pair.pollers[0])); /* nobody sleeps through it */
        step_until(&pair, RSI_LINK_LOST);
        for (uint32_t i = 0; i < 2; i++) {
            assert_int_equal(pair.links[i]->error.status, RSI_E_LINK_LOST);
            assert_non_null(strstr(pair.links[i]->error.text, "cut"));
        }
        teardown_pair(&pair);
    }
}

static void test_cut_stops_everything(void **state)
{
    (void)state;
    struct pair pair;
    setup_pair(&pair, 3);
    rsi_sim_cut(pair.links[0], 0);
    stage(pair.links[0], 100);
    (void)rsi_link_flush(pair.links[0]);
    assert_int_equal(rsi_link_send_control(pair.links[0], "x", 1), RSI_OK);
    step_until(&pair, RSI_LINK_LOST);
    uint32_t bytes;
    assert_int_equal(pair.links[1]->arrived_pos, 0);
    assert_null(rsi_link_front_control(pair.links[1], &bytes));
    teardown_pair(&pair);
}

static void test_death_is_told_from_a_close(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        struct pair pair;
        setup_pair(&pair, 5);
        if (round == 0) {
            rsi_sim_die(pair.links[0]);
        }
        sim->link_close(pair.links[0]);
        for (uint32_t i = 0; i < 1000 && rsi_link_state(pair.links[1]) != RSI_LINK_LOST; i++) {
            step(&pair, i % 2);
        }
        assert_int_equal(rsi_link_state(pair.links[1]), RSI_LINK_LOST);
        assert_true(pair.links[1]->peer_has_ended == (round == 0));
        teardown_pair(&pair);
    }
}

/* Two processes in one: the accepting one is killed, and the other sees what its death looks like.
 */
static void test_killed_process(void **state)
{
    (void)state;
    for (uint32_t is_noticed = 0; is_noticed < 2; is_noticed++) {
        struct pair pair;
        struct rsi_url url;
        struct rsi_link *dialled = NULL;
        setup_pair(&pair, 5 + is_noticed);
        stage(pair.links[1], 100);
        rsi_sim_kill_process(7, true); /* another one */
        step(&pair, 0);
        assert_true(both_are(&pair, RSI_LINK_ATTACHED));

        rsi_sim_kill_process(1, is_noticed != 0);
        for (uint32_t i = 0; i < 100 && rsi_link_state(pair.links[0]) != RSI_LINK_LOST; i++) {
            step(&pair, 0);
        }
        assert_int_equal(pair.links[0]->error.status,
                         is_noticed != 0 ? RSI_E_LINK_CLOSED : RSI_E_LINK_LOST);
        assert_true(pair.links[0]->peer_has_ended == (is_noticed != 0));
        assert_int_equal(pair.links[0]->arrived_pos, 0);
        assert_int_equal(rsi_url_parse(&url, "sim://pair", NULL), RSI_OK);
        assert_int_equal(sim->link_dial(&dialled, pair.pollers[0], &url, NULL), RSI_E_NOT_FOUND);
        teardown_pair(&pair);
    }
}

static void test_name_is_taken_once(void **state)
{
    (void)state;
    struct pair pair;
    setup_pair(&pair, 4);
    struct rsi_url url;
    struct rsi_listener *second = NULL;
    struct rsi_error error = {0};
    assert_int_equal(rsi_url_parse(&url, "sim://pair", NULL), RSI_OK);
    assert_int_equal(sim->listener_create(&second, pair.domain, &url, &error), RSI_E_ADDRESS);
    assert_null(second);
    assert_non_null(strstr(error.text, "sim://pair"));
    teardown_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_repeats_a_run),
        cmocka_unit_test(test_batches_are_seen_torn),
        cmocka_unit_test(test_cut_loses_both_sides),
        cmocka_unit_test(test_cut_stops_everything),
        cmocka_unit_test(test_death_is_told_from_a_close),
        cmocka_unit_test(test_killed_process),
        cmocka_unit_test(test_name_is_taken_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
