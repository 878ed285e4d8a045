/*
 * The wrappers and the movers: what reaches a transport, and what a peer's lie does.
 */
#include "transport/testing.h"

static void test_place_hands_over_whole_batches(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(4096);
    struct rsi_link *link = &test->link;
    rsi_link_place(link);
    assert_int_equal(test->place_count, 0); /* nothing is staged */

    assert_true(rsi_test_stage(link, 48));
    assert_true(rsi_test_stage(link, 80));
    uint64_t first_word = 0;
    memcpy(&first_word, rsi_ring_at(&link->out, 4096), sizeof(first_word));
    assert_int_equal(rsi_commit_frame_bytes(first_word, 4096), 0); /* waits for place */
    uint64_t second_word = 0;
    memcpy(&second_word, rsi_ring_at(&link->out, 4096 + 48), sizeof(second_word));
    assert_int_equal(rsi_commit_frame_bytes(second_word, 4096 + 48), 80);

    rsi_link_place(link);
    assert_int_equal(test->place_count, 1);
    assert_int_equal(test->placed_bytes, 128);
    assert_int_equal(link->placed_pos, 4096 + 128);
    assert_int_equal(rsi_load_relaxed(&link->stats.placed_bytes), 128);
    memcpy(&first_word, rsi_ring_at(&link->out, 4096), sizeof(first_word));
    assert_int_equal(rsi_commit_frame_bytes(first_word, 4096), 48);
    rsi_test_link_destroy(test);
}

static void test_flush_is_asked_for_only_when_bytes_wait(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    struct rsi_link *link = &test->link;
    assert_int_equal(rsi_link_flush(link), RSI_OK);
    assert_int_equal(test->flush_count, 0);
    assert_true(rsi_test_stage(link, 48));
    rsi_link_place(link);
    test->flush_status = RSI_WOULD_BLOCK;
    assert_int_equal(rsi_link_flush(link), RSI_WOULD_BLOCK);
    assert_int_equal(test->flush_count, 1);
    test->flush_status = RSI_OK;
    assert_int_equal(rsi_link_flush(link), RSI_OK);
    assert_int_equal(link->flushed_pos, 48);
    rsi_test_link_destroy(test);
}

static void test_clocked_flush_waits_while_a_batch_is_under_way(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    struct rsi_link *link = &test->link;
    uint64_t frame_bytes = 1024;
    assert_true(rsi_test_stage(link, frame_bytes));
    rsi_link_place(link);
    assert_int_equal(rsi_link_flush_clocked(link), RSI_OK);
    assert_int_equal(test->flush_count, 1); /* idle: at once */

    while (link->staged_pos - link->flushed_pos < RSI_FLUSH_BYTES - frame_bytes) {
        assert_true(rsi_test_stage(link, frame_bytes));
        rsi_link_place(link);
        assert_int_equal(rsi_link_flush_clocked(link), RSI_OK);
    }
    assert_int_equal(test->flush_count, 1); /* under way: these wait */
    assert_true(rsi_test_stage(link, frame_bytes));
    rsi_link_place(link);
    assert_int_equal(rsi_link_flush_clocked(link), RSI_OK);
    assert_int_equal(test->flush_count, 2); /* enough of them do not */

    link->under_way = false;
    assert_true(rsi_test_stage(link, frame_bytes));
    rsi_link_place(link);
    assert_int_equal(rsi_link_flush_clocked(link), RSI_OK);
    assert_int_equal(test->flush_count, 3);
    rsi_test_link_destroy(test);
}

static void test_guard_bytes_stay_free(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    struct rsi_link *link = &test->link;
    assert_int_equal(rsi_link_room_bytes(link), 65536 - RSI_RING_GUARD_BYTES);
    assert_false(rsi_test_stage(link, 65536 - RSI_RING_GUARD_BYTES + 8));
    assert_true(rsi_test_stage(link, 65536 - RSI_RING_GUARD_BYTES));
    assert_int_equal(rsi_link_room_bytes(link), 0);
    rsi_link_place(link);
    assert_true(rsi_link_peer_arrived(link, link->placed_pos));
    assert_int_equal(rsi_link_room_bytes(link), 0);
    assert_true(rsi_link_peer_consumed(link, 4096));
    assert_int_equal(rsi_link_room_bytes(link), 4096);
    rsi_test_link_destroy(test);
}

static void test_consume_publishes(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(64);
    struct rsi_link *link = &test->link;
    assert_true(rsi_link_arrived(link, 64 + 96));
    assert_int_equal(rsi_load_relaxed(&link->stats.arrived_bytes), 96);
    rsi_link_consume(link, 0);
    assert_int_equal(test->publish_count, 0);
    rsi_link_consume(link, 48);
    assert_int_equal(test->publish_count, 1);
    assert_int_equal(link->consumed_pos, 112);
    rsi_link_consume(link, 48);
    assert_int_equal(link->consumed_pos, link->arrived_pos);
    rsi_test_link_destroy(test);
}

static void consume_too_much(void *arg)
{
    (void)arg;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    rsi_link_consume(&test->link, 8);
}

static void test_consuming_what_did_not_arrive_is_a_bug(void **state)
{
    (void)state;
    char output[512];
    rsi_test_expect_abort(consume_too_much, NULL, output, sizeof(output));
    assert_non_null(strstr(output, "rsi_link_consume"));
}

static void test_consumed_is_held_until_arrived_is_known(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    struct rsi_link *link = &test->link;
    assert_true(rsi_test_stage(link, 800));
    rsi_link_place(link);
    assert_true(rsi_link_peer_consumed(link, 400));
    assert_int_equal(link->peer_consumed_pos, 0);
    assert_true(rsi_link_peer_arrived(link, 240));
    assert_int_equal(link->peer_consumed_pos, 240);
    assert_true(rsi_link_peer_arrived(link, 800));
    assert_int_equal(link->peer_consumed_pos, 400);
    assert_true(rsi_link_peer_consumed(link, 800));
    assert_int_equal(link->peer_consumed_pos, 800);
    assert_false(rsi_load_relaxed(&link->failed));
    rsi_test_link_destroy(test);
}

struct lie {
    bool (*mover)(struct rsi_link *link, uint64_t position);
    uint64_t true_pos; /* told first */
    uint64_t told_pos;
    const char *word; /* in the text */
};

static void test_lies_end_the_link_with_the_numbers(void **state)
{
    (void)state;
    static const struct lie lies[] = {
        {rsi_link_peer_arrived, 64, 808, "arrived"}, /* beyond what was placed */
        {rsi_link_peer_arrived, 64, 56, "arrived"},  /* back */
        {rsi_link_peer_arrived, 64, 65, "arrived"},  /* between words */
        {rsi_link_peer_consumed, 64, 808, "consumed"},
        {rsi_link_peer_consumed, 64, 56, "consumed"},
        {rsi_link_peer_consumed, 64, 70, "consumed"},
        {rsi_link_peer_consumed, 64, UINT64_MAX, "consumed"},
        {rsi_link_arrived, 64, 65544, "written"}, /* beyond the ring */
        {rsi_link_arrived, 64, 56, "written"},
        {rsi_link_arrived, 64, 68, "written"},
        {rsi_link_arrived, 64, UINT64_MAX - 7, "written"},
    };
    for (size_t i = 0; i < rsi_array_count(lies); i++) {
        struct rsi_test_link *test = rsi_test_link_create_attached(0);
        struct rsi_link *link = &test->link;
        assert_true(rsi_test_stage(link, 800));
        rsi_link_place(link);
        assert_true(lies[i].mover(link, lies[i].true_pos));
        assert_false(lies[i].mover(link, lies[i].told_pos));
        assert_true(rsi_link_take_failure(link));
        assert_int_equal(rsi_link_state(link), RSI_LINK_LOST);
        assert_int_equal(link->error.status, RSI_E_PROTOCOL);
        char number[32];
        snprintf(number, sizeof(number), "%llu", (unsigned long long)lies[i].told_pos);
        assert_non_null(strstr(link->error.text, number));
        assert_non_null(strstr(link->error.text, lies[i].word));
        rsi_test_link_destroy(test);
    }
}

static void test_dead_link_takes_calls_and_does_nothing(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    struct rsi_link *link = &test->link;
    assert_true(rsi_test_stage(link, 48));
    rsi_link_place(link);
    assert_true(rsi_link_arrived(link, 80));
    rsi_link_fail(link, RSI_E_LINK_LOST, "the wire broke");
    assert_true(rsi_test_stage(link, 48));
    rsi_link_place(link);
    assert_int_equal(test->place_count, 1);
    assert_int_equal(rsi_link_flush(link), RSI_E_LINK_LOST);
    assert_int_equal(rsi_link_flush_clocked(link), RSI_E_LINK_LOST);
    rsi_link_request_wake(link, 0, 0, 0);
    assert_int_equal(test->request_count, 0);
    rsi_link_consume(link, 80); /* what arrived before is still there */
    assert_int_equal(link->consumed_pos, 80);
    assert_int_equal(test->publish_count, 0);
    assert_true(rsi_link_take_failure(link));
    assert_int_equal(rsi_link_flush(link), RSI_E_LINK_LOST);
    rsi_link_set_state(link, RSI_LINK_CLOSING);
    assert_int_equal(rsi_link_flush(link), RSI_E_LINK_CLOSED);
    rsi_test_link_destroy(test);
}

static void test_link_that_is_not_attached_takes_no_data(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create();
    struct rsi_link *link = &test->link;
    assert_int_equal(rsi_link_room_bytes(link), 0);
    assert_null(rsi_frame_claim(link, RSI_FRAME_HEADER_BYTES));
    assert_int_equal(rsi_link_flush(link), RSI_E_STATE);
    rsi_link_set_state(link, RSI_LINK_OPEN);
    assert_int_equal(rsi_link_flush(link), RSI_E_STATE);
    rsi_link_request_wake(link, 0, 0, 0);
    assert_int_equal(test->request_count, 0);
    rsi_test_link_destroy(test);
}

static void lose_a_position(void *arg)
{
    (void)arg;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    (void)rsi_test_stage(&test->link, 48);
    test->link.peer_arrived_pos = 8; /* a transport that went past the mover */
    rsi_link_place(&test->link);
}

static void test_transport_that_breaks_an_invariant_aborts(void **state)
{
    (void)state;
    char output[512];
    rsi_test_expect_abort(lose_a_position, NULL, output, sizeof(output));
    assert_non_null(strstr(output, "peer_arrived_pos"));
}

static void test_poll_reaches_the_transport(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create();
    assert_int_equal(rsi_poller_poll(&test->poller, 17), 17);
    rsi_test_link_destroy(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_place_hands_over_whole_batches),
        cmocka_unit_test(test_flush_is_asked_for_only_when_bytes_wait),
        cmocka_unit_test(test_clocked_flush_waits_while_a_batch_is_under_way),
        cmocka_unit_test(test_guard_bytes_stay_free),
        cmocka_unit_test(test_consume_publishes),
        cmocka_unit_test(test_consuming_what_did_not_arrive_is_a_bug),
        cmocka_unit_test(test_consumed_is_held_until_arrived_is_known),
        cmocka_unit_test(test_lies_end_the_link_with_the_numbers),
        cmocka_unit_test(test_dead_link_takes_calls_and_does_nothing),
        cmocka_unit_test(test_link_that_is_not_attached_takes_no_data),
        cmocka_unit_test(test_transport_that_breaks_an_invariant_aborts),
        cmocka_unit_test(test_poll_reaches_the_transport),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
