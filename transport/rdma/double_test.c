/*
 * The rdma transport on the double: what holds on any devices, in all paces of the double; the end
 * of a link in every state and for every reason; whether a silent peer is noticed; the depth of
 * queues.
 *
 * Every test has a world of its own, so each is checked for what it leaves behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>

#include "core/clock.h"
#include "core/log.h"
#include "transport/rdma/pair_cases.h"
#include "transport/rdma/verbs_double.h"

#define RING_BYTES (UINT64_C(1) << 18)

static const struct rsi_transport *const rdma = &rsi_rdma_transport;

/* Of the worlds that begin from here on. */
static struct verbs_double_options world_options;

static int begin_world(void **state)
{
    (void)state;
    verbs_double_begin(&world_options);
    return 0;
}

/* Keeps the faults of the end: after a test that failed half-way everything is left, and what is to
 * be read then is why it failed. */
static int end_world(void **state)
{
    (void)state;
    verbs_double_keep_faults(true);
    verbs_double_end();
    if (verbs_double_fault_count() > 0) {
        print_error("verbs double: %s\n", verbs_double_first_fault());
    }
    int result = verbs_double_fault_count() > 0 ? -1 : 0;
    verbs_double_keep_faults(false);
    return result;
}

static struct ibv_qp *queue_pair_of(struct rsi_link *link)
{
    return rsi_rdma_link_of(link)->id->qp;
}

/* ---- silence -------------------------------------------------------------------------------- */

/* Lets nobody post anything of their own accord. */
static void fall_silent(struct pair *pair)
{
    PAIR_WAIT(pair, verbs_double_is_settled());
    uint64_t end_ns = rsi_clock_now_ns() + 20 * RSI_RDMA_WORDS_NS;
    PAIR_WAIT(pair, rsi_clock_now_ns() > end_ns);
}

static void expect_silent_peer(const struct rsi_link *link)
{
    assert_int_equal(link->error.status, RSI_E_LINK_LOST);
    assert_non_null(strstr(link->error.text, "does not answer"));
    assert_false(link->peer_has_ended);
}

static void test_cut_of_an_idle_link_is_noticed_by_both(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    pair_send_and_take(&pair, pair.client.link, pair.server.link, 10, pair_small_size);
    fall_silent(&pair);
    uint64_t begin_ns = rsi_clock_now_ns();
    verbs_double_cut(true);
    pair_wait_state(&pair, RSI_LINK_LOST);
    print_message("noticed by both after %" PRIu64 " ms\n",
                  (rsi_clock_now_ns() - begin_ns) / 1000000);
    expect_silent_peer(pair.client.link);
    expect_silent_peer(pair.server.link);
    pair_close(&pair);
}

/* Arms, waits, disarms, as an agent does that has nothing to do. */
static void sleep_once(struct pair_end *end)
{
    if (rdma->poller_arm(end->poller)) {
        struct pollfd entry = {.fd = rdma->poller_fd(end->poller), .events = POLLIN};
        assert_int_equal(poll(&entry, 1, (int)(PAIR_DEADLINE_NS / 1000000)), 1);
    }
    rdma->poller_disarm(end->poller);
}

static void test_sleeper_notices_the_cut(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    fall_silent(&pair);
    verbs_double_cut(true);
    uint64_t sleep_count = 0;
    while (rsi_link_state(pair.server.link) != RSI_LINK_LOST) {
        sleep_once(&pair.server);
        uint64_t now_ns = rsi_clock_now_ns();
        (void)rsi_poller_poll(pair.server.poller, now_ns);
        rdma->link_poll_control(pair.server.link, now_ns);
        sleep_count++;
    }
    expect_silent_peer(pair.server.link);
    /* While it slept it was woken for probes and their completions only. */
    print_message("slept %" PRIu64 " times\n", sleep_count);
    assert_true(sleep_count < 50);
    pair_close(&pair);
}

/* Its device answers for it. */
static void test_stopped_peer_is_not_dead(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    fall_silent(&pair);
    uint64_t sends = rsi_load_relaxed(&pair.server.link->stats.sends);
    uint64_t end_ns = rsi_clock_now_ns() + 3 * RSI_RDMA_PROBE_NS;
    while (rsi_clock_now_ns() < end_ns) {
        sleep_once(&pair.server);
        (void)rsi_poller_poll(pair.server.poller, rsi_clock_now_ns());
        rdma->link_poll_control(pair.server.link, rsi_clock_now_ns());
    }
    assert_int_equal(rsi_link_state(pair.server.link), RSI_LINK_ATTACHED);
    uint64_t probe_count = rsi_load_relaxed(&pair.server.link->stats.sends) - sends;
    assert_true(probe_count >= 1 && probe_count <= 4);
    pair_send_and_take(&pair, pair.client.link, pair.server.link, 10, pair_small_size);
    pair_close(&pair);
}

/* ---- whose end it was ----------------------------------------------------------------------- */

static void test_killed_peer_has_ended(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    assert_true(pair_put(pair.client.link, 0, 64));
    assert_int_equal(rsi_link_flush(pair.client.link), RSI_OK);
    PAIR_WAIT(&pair, pair.client.link->peer_arrived_pos == pair.client.link->placed_pos);
    verbs_double_kill(queue_pair_of(pair.client.link));
    PAIR_WAIT(&pair, rsi_link_state(pair.server.link) == RSI_LINK_LOST);
    assert_true(pair.server.link->peer_has_ended);
    uint64_t taken = 0;
    assert_int_equal(pair_take(pair.server.link, &taken), 1);
    pair_close(&pair);
}

static void test_closed_link_is_no_ended_peer(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    rdma->link_close(pair.client.link);
    PAIR_WAIT(&pair, rsi_link_state(pair.server.link) == RSI_LINK_LOST);
    assert_int_equal(pair.server.link->error.status, RSI_E_LINK_CLOSED);
    assert_false(pair.server.link->peer_has_ended);
    pair_close(&pair);
}

/* One side notices the cut, the wire is mended before the other one does: it must not take the
 * first one's end of the link for the end of its process. */
static void test_loss_of_one_side_is_no_ended_peer(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    fall_silent(&pair);
    verbs_double_cut(true);
    assert_true(pair_put(pair.client.link, 0, 64));
    assert_int_equal(rsi_link_flush(pair.client.link), RSI_OK);
    PAIR_WAIT(&pair, rsi_link_state(pair.client.link) == RSI_LINK_LOST);
    rdma->link_close(pair.client.link);
    PAIR_WAIT(&pair, rsi_link_state(pair.client.link) == RSI_LINK_CLOSED);
    verbs_double_cut(false);
    PAIR_WAIT(&pair, rsi_link_state(pair.server.link) == RSI_LINK_LOST);
    expect_silent_peer(pair.server.link);
    pair_close(&pair);
}

/* At least once, until the client's link is in `state`. The server's queue pair is not looked
 * after, so it posts nothing: what the server learns meanwhile it was told. */
static void wait_with_a_mute_server(struct pair *pair, enum rsi_link_state state)
{
    uint64_t deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS;
    do {
        uint64_t now_ns = rsi_clock_now_ns();
        assert_true(now_ns < deadline_ns);
        (void)rsi_poller_poll(pair->client.poller, now_ns);
        (void)rdma->domain_poll_control(pair->client.domain, now_ns);
        rdma->link_poll_control(pair->client.link, now_ns);
        (void)rdma->domain_poll_control(pair->server.domain, now_ns);
        rdma->link_poll_control(pair->server.link, now_ns);
    } while (rsi_link_state(pair->client.link) != state);
}

/* The wire is mended before the link that found it silent is closed: what its id says when it goes
 * would arrive, and be taken for the end of the process. So it goes with the link, not before. */
static void test_closed_silent_link_keeps_its_id(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    fall_silent(&pair);
    verbs_double_cut(true);
    assert_true(pair_put(pair.client.link, 0, 64));
    assert_int_equal(rsi_link_flush(pair.client.link), RSI_OK);
    wait_with_a_mute_server(&pair, RSI_LINK_LOST);
    expect_silent_peer(pair.client.link);
    verbs_double_cut(false);
    rdma->link_close(pair.client.link);
    wait_with_a_mute_server(&pair, RSI_LINK_CLOSED);
    assert_int_equal(rsi_link_state(pair.server.link), RSI_LINK_ATTACHED);
    assert_false(rsi_rdma_link_of(pair.server.link)->is_disconnected);
    /* It would have heard it. */
    rdma->link_destroy(pair.client.link);
    pair.client.link = NULL;
    PAIR_WAIT(&pair, rsi_link_state(pair.server.link) == RSI_LINK_LOST);
    assert_true(pair.server.link->peer_has_ended);
    pair_close(&pair);
}

/* ---- the fence ------------------------------------------------------------------------------ */

/* What came over a link that then broke is not lost; in CLOSED rings and positions stand. */
static void test_what_arrived_counts_and_stays(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    struct rsi_link *writer = pair.client.link;
    struct rsi_link *reader = pair.server.link;
    for (uint64_t i = 0; i < COUNT; i++) {
        assert_true(pair_put(writer, i, 100));
        assert_int_equal(rsi_link_flush(writer), RSI_OK);
        (void)rsi_poller_poll(pair.client.poller, rsi_clock_now_ns());
    }
    /* The reader did not look yet; now its own sending breaks the link. */
    PAIR_WAIT(&pair, verbs_double_is_settled());
    verbs_double_cut(true);
    verbs_double_fail_named("ibv_post_send", 1, ENOMEM);
    assert_true(pair_put(reader, 0, 64));
    assert_true(rsi_failed(rsi_link_flush(reader)));
    PAIR_WAIT(&pair, rsi_link_state(reader) == RSI_LINK_LOST);
    rdma->link_close(reader);
    PAIR_WAIT(&pair, rsi_link_state(reader) == RSI_LINK_CLOSED);
    assert_int_equal(reader->arrived_pos, writer->placed_pos);
    uint64_t taken = 0;
    assert_int_equal(pair_take(reader, &taken), COUNT);
    /* The out ring goes on taking what the session publishes. */
    assert_true(pair_put(reader, 1, 64));
    pair_close(&pair);
}

/* Closes after `step_count` passes, from one side or with the wire cut or the peer killed. */
enum ending { CLIENT_CLOSES, SERVER_CLOSES, BOTH_CLOSE, WIRE_IS_CUT, PEER_IS_KILLED, ENDING_COUNT };

static void end_after(uint32_t step_count, enum ending ending)
{
    struct pair pair;
    pair_listen(&pair);
    struct rsi_url url;
    struct rsi_error error = {0};
    assert_int_equal(rsi_url_parse(&url, rdma->listener_url(pair.listener), &error), RSI_OK);
    assert_int_equal(rdma->link_dial(&pair.client.link, pair.client.poller, &url, &error), RSI_OK);
    pair.expects_refusal = true;
    struct rsi_link_rings rings = {.out_bytes = 65536, .in_bytes = 65536};
    for (uint32_t i = 0; i < step_count; i++) {
        struct rsi_link *ends[2] = {pair.client.link, pair.server.link};
        for (int k = 0; k < 2; k++) {
            enum rsi_link_state state = ends[k] == NULL ? RSI_LINK_LOST : rsi_link_state(ends[k]);
            if (state == RSI_LINK_OPEN) {
                assert_int_equal(rdma->link_attach(ends[k], &rings, &error), RSI_OK);
            } else if (state == RSI_LINK_ATTACHED && pair_put(ends[k], i, 500)) {
                (void)rsi_link_flush_clocked(ends[k]);
            }
        }
        pair_drive(&pair);
    }
    if (ending == WIRE_IS_CUT) {
        verbs_double_cut(true);
    } else if (ending == PEER_IS_KILLED && rsi_rdma_link_of(pair.client.link)->id->qp != NULL) {
        verbs_double_kill(queue_pair_of(pair.client.link));
    }
    if (ending == CLIENT_CLOSES || ending == BOTH_CLOSE) {
        rdma->link_close(pair.client.link);
    }
    if ((ending == SERVER_CLOSES || ending == BOTH_CLOSE) && pair.server.link != NULL) {
        rdma->link_close(pair.server.link);
    }
    pair_drive(&pair);
    pair_close(&pair);
}

static void test_end_in_every_state(void **state)
{
    (void)state;
    verbs_double_end();
    struct verbs_double_options options = world_options;
    options.retry_ns = 1000000; /* a cut costs two of these per round */
    for (uint32_t step_count = 0; step_count < 30; step_count++) {
        for (int ending = 0; ending < ENDING_COUNT; ending++) {
            options.seed++;
            verbs_double_begin(&options);
            end_after(step_count, (enum ending)ending);
            verbs_double_end();
        }
    }
    verbs_double_begin(&world_options);
}

/* ---- queues --------------------------------------------------------------------------------- */

/* Both directions and both lanes as full as they get, with a reader that looks seldom. */
static void test_queues_are_deep_enough(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    struct rsi_link *ends[2] = {pair.client.link, pair.server.link};
    struct pair_end *sides[2] = {&pair.client, &pair.server};
    uint64_t sent[2] = {0};
    uint64_t taken[2] = {0};
    uint64_t deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS;
    for (uint32_t round = 0; round < 600 || taken[0] < 1000 || taken[1] < 1000; round++) {
        assert_true(rsi_clock_now_ns() < deadline_ns);
        int k = (int)(round / 7 % 2); /* one side runs seven times as often as the other, in turn */
        for (uint32_t i = 0; i < 40; i++) {
            assert_false(rsi_failed(rsi_link_send_control(ends[k], &round, sizeof(round))));
            if (pair_put(ends[k], sent[k], 64)) {
                sent[k]++;
            }
            (void)rsi_link_flush(ends[k]);
            (void)rsi_poller_poll(sides[k]->poller, rsi_clock_now_ns());
        }
        uint32_t bytes = 0;
        while (rsi_link_front_control(ends[k], &bytes) != NULL) {
            rsi_link_pop_control(ends[k]);
        }
        (void)pair_take(ends[k], &taken[k]);
        assert_int_equal(rsi_link_state(ends[k]), RSI_LINK_ATTACHED);
        assert_false(rsi_load_relaxed(&ends[k]->failed));
    }
    struct verbs_double_counts counts;
    verbs_double_count(&counts);
    print_message("at most %" PRIu64 " of %u sends, %" PRIu64 " of %u receives, %" PRIu64
                  " completions; %" PRIu64 " messages\n",
                  counts.send_queue_most, RSI_RDMA_SEND_COUNT, counts.receive_queue_most,
                  RSI_RDMA_RECEIVE_COUNT, counts.completion_queue_most, sent[0] + sent[1]);
    assert_true(counts.send_queue_most <= RSI_RDMA_SEND_COUNT);
    assert_int_equal(counts.receive_queue_most, RSI_RDMA_RECEIVE_COUNT);
    assert_int_equal(counts.missing_receives, 0);
    pair_close(&pair);
}

/* A thousand messages in one flush are one doorbell, and one inline message needs no second look.
 */
static void test_batches_cost_what_they_should(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    fall_silent(&pair);
    struct verbs_double_counts before;
    struct verbs_double_counts after;
    verbs_double_count(&before);
    struct rsi_link *link = pair.client.link;
    for (uint64_t i = 0; i < 1000; i++) {
        assert_true(pair_put(link, i, 64));
    }
    assert_int_equal(rsi_link_flush(link), RSI_OK);
    verbs_double_count(&after);
    assert_int_equal(after.doorbells - before.doorbells, 1);
    assert_int_equal(after.work_requests - before.work_requests, 1);
    uint64_t taken = 0;
    PAIR_WAIT(&pair, (pair_take(pair.server.link, &taken), taken == 1000));
    fall_silent(&pair);
    verbs_double_count(&after);
    /* The answer to it: what was consumed, told once or twice, and one receive posted anew. */
    assert_true(after.work_requests - before.work_requests <= 4);
    pair_close(&pair);
}

/* ---- refusals ------------------------------------------------------------------------------- */

static void test_refusal_without_a_reason_is_none_of_a_stranger(void **state)
{
    (void)state;
    struct pair pair;
    pair_listen(&pair);
    pair.expects_refusal = true;
    verbs_double_fail_named("rdma_create_qp", 2, ENOMEM); /* the accepting side's */
    struct rsi_url url;
    assert_int_equal(rsi_url_parse(&url, rdma->listener_url(pair.listener), NULL), RSI_OK);
    assert_int_equal(rdma->link_dial(&pair.client.link, pair.client.poller, &url, NULL), RSI_OK);
    PAIR_WAIT(&pair, rsi_link_state(pair.client.link) == RSI_LINK_LOST);
    assert_int_equal(pair.client.link->error.status, RSI_E_REFUSED);
    assert_non_null(strstr(pair.client.link->error.text, "it has no room, or it stops"));
    assert_int_equal(pair.refusal.status, RSI_E_NO_MEMORY_LOCK);
    pair_close(&pair);
}

/* ---- the program ---------------------------------------------------------------------------- */

static int run_pair_cases(const char *name, enum verbs_double_pace pace, uint32_t inline_bytes_max)
{
    struct CMUnitTest tests[PAIR_TEST_COUNT];
    for (size_t i = 0; i < PAIR_TEST_COUNT; i++) {
        tests[i] = pair_tests[i];
        tests[i].setup_func = begin_world;
        tests[i].teardown_func = end_world;
    }
    world_options.pace = pace;
    world_options.inline_bytes_max = inline_bytes_max;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_world, end_world)

static int run_own_cases(const char *name, enum verbs_double_pace pace)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cut_of_an_idle_link_is_noticed_by_both),
        TEST(test_sleeper_notices_the_cut),
        TEST(test_stopped_peer_is_not_dead),
        TEST(test_killed_peer_has_ended),
        TEST(test_closed_link_is_no_ended_peer),
        TEST(test_loss_of_one_side_is_no_ended_peer),
        TEST(test_closed_silent_link_keeps_its_id),
        TEST(test_what_arrived_counts_and_stays),
        TEST(test_end_in_every_state),
        TEST(test_queues_are_deep_enough),
        TEST(test_refusal_without_a_reason_is_none_of_a_stranger),
    };
    world_options.pace = pace;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

/* What is counted here depends on when a side looks; so both are looked after in one thread. */
static int run_counting_cases(void)
{
    const struct CMUnitTest tests[] = {TEST(test_batches_cost_what_they_should)};
    world_options.pace = VERBS_DOUBLE_AT_ONCE;
    return cmocka_run_group_tests_name("counts", tests, NULL, NULL);
}

int main(void)
{
    rsi_log_set_level(RSI_LOG_WARNING);
    verbs_double_options_init(&world_options);
    int failed_count = run_pair_cases("pairs, at once", VERBS_DOUBLE_AT_ONCE, 256);
    failed_count += run_pair_cases("pairs, stepped", VERBS_DOUBLE_STEPPED, 256);
    failed_count += run_pair_cases("pairs, threaded, nothing inline", VERBS_DOUBLE_THREADED, 0);
    verbs_double_options_init(&world_options);
    failed_count += run_own_cases("on the double, stepped", VERBS_DOUBLE_STEPPED);
    failed_count += run_own_cases("on the double, threaded", VERBS_DOUBLE_THREADED);
    failed_count += run_counting_cases();
    return failed_count != 0;
}
