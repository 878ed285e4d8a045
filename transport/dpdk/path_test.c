/*
 * Round trip and window.
 */
#include "transport/dpdk/path.h"

#include "core/testing.h"

#define FRAME 1000u

static void test_round_trip_follows_its_samples(void **state)
{
    (void)state;
    struct rsi_path path;
    rsi_path_init(&path, FRAME);
    rsi_path_sample(&path, 1000000);
    assert_int_equal(path.round_trip_ns, 1000000);
    assert_int_equal(path.deviation_ns, 500000);
    for (int i = 0; i < 100; i++) {
        rsi_path_sample(&path, 2000000);
    }
    assert_in_range(path.round_trip_ns, 1990000, 2000000);
    assert_true(path.deviation_ns < 20000);
    uint64_t timeout_ns = rsi_path_timeout_ns(&path);
    assert_in_range(timeout_ns, 2500000, 2700000);
    assert_int_equal(rsi_path_patience_ns(&path), path.round_trip_ns / 4);
    rsi_path_timed_out(&path, 0);
    assert_int_equal(rsi_path_timeout_ns(&path), 2 * timeout_ns);
    for (int i = 0; i < 100; i++) {
        rsi_path_timed_out(&path, 0);
    }
    assert_int_equal(rsi_path_timeout_ns(&path), RSI_PATH_TIMEOUT_MAX_NS);
    rsi_path_heard(&path);
    assert_int_equal(rsi_path_timeout_ns(&path), timeout_ns);
}

static void test_window_doubles_then_creeps_and_yields_once_per_round_trip(void **state)
{
    (void)state;
    struct rsi_path path;
    rsi_path_init(&path, FRAME);
    rsi_path_set_ring(&path, 0, 1000 * FRAME);
    uint64_t window = path.window_bytes;
    rsi_path_arrived(&path, window, false); /* not used: says nothing */
    assert_int_equal(path.window_bytes, window);
    rsi_path_arrived(&path, window, true);
    assert_int_equal(path.window_bytes, 2 * window);

    rsi_path_lost(&path, 5000, 32000);
    assert_int_equal(path.window_bytes, window);
    rsi_path_lost(&path, 6000, 33000); /* of the same round trip */
    assert_int_equal(path.window_bytes, window);
    rsi_path_arrived(&path, window, true); /* a window's worth: one frame more */
    assert_int_equal(path.window_bytes, window + FRAME);
    rsi_path_lost(&path, 32000, 48000); /* of the next one */
    assert_int_equal(path.window_bytes, (window + FRAME) / 2);
    for (uint64_t pos = 48000; pos < 48000 + 100; pos++) {
        rsi_path_lost(&path, pos, pos + 1);
    }
    assert_int_equal(path.window_bytes, RSI_PATH_WINDOW_FRAMES_MIN * FRAME);
}

static void test_window_stays_within_the_ring(void **state)
{
    (void)state;
    struct rsi_path path;
    rsi_path_init(&path, FRAME);
    rsi_path_set_ring(&path, 0, 65536);
    for (int i = 0; i < 20; i++) {
        rsi_path_arrived(&path, path.window_bytes, true);
    }
    assert_int_equal(path.window_bytes, 65536);
    /* Time-outs alone are no loss; a long silence is, once. */
    rsi_path_timed_out(&path, RSI_PATH_SILENCE_NS - 1);
    assert_int_equal(path.window_bytes, 65536);
    rsi_path_timed_out(&path, RSI_PATH_SILENCE_NS);
    assert_int_equal(path.window_bytes, RSI_PATH_WINDOW_FRAMES_MIN * FRAME);
    assert_int_equal(path.threshold_bytes, 32768);
    rsi_path_timed_out(&path, 2 * RSI_PATH_SILENCE_NS);
    assert_int_equal(path.threshold_bytes, 32768);
}

/* Takes all that may be sent again. */
static uint64_t take_again(struct rsi_path *path, uint64_t confirmed_pos, uint64_t sent_pos,
                           uint64_t now_ns)
{
    uint64_t bytes = rsi_path_again_bytes(path, confirmed_pos, sent_pos, now_ns);
    rsi_path_sent_again(path, bytes);
    return bytes;
}

static void test_what_is_sent_again_is_rationed(void **state)
{
    (void)state;
    struct rsi_path path;
    rsi_path_init(&path, FRAME);
    rsi_path_set_ring(&path, 1000, 1000 * FRAME);
    rsi_path_sample(&path, 100000);
    uint64_t timeout_ns = rsi_path_timeout_ns(&path);
    uint64_t now_ns = 1;
    assert_int_equal(take_again(&path, 1000, 21000, now_ns), 40000);
    assert_int_equal(take_again(&path, 20000, 24000, now_ns), 6000);
    /* More than that was lost: an extra, and the next ones after a time-out, two, four. */
    assert_int_equal(take_again(&path, 20000, 24000, now_ns), 4000);
    for (int i = 0; i < 4; i++) {
        now_ns += timeout_ns << i;
        assert_int_equal(take_again(&path, 20000, 24000, now_ns - 1), 0);
        assert_int_equal(take_again(&path, 20000, 24000, now_ns), 4000);
    }
    /* It arrived: the waiting begins anew. */
    now_ns += timeout_ns << 4;
    assert_int_equal(take_again(&path, 24000, 25000, now_ns), 2000);
    assert_int_equal(take_again(&path, 24000, 25000, now_ns), 1000);
    now_ns += timeout_ns;
    assert_int_equal(take_again(&path, 24000, 25000, now_ns), 1000);
    /* What was not needed is not kept for later. */
    assert_int_equal(rsi_path_again_bytes(&path, 900000, 901000, now_ns), 2000);
    /* At most an extra a second, however long it goes on. */
    uint64_t total_bytes = 0;
    for (int i = 0; i < 60000; i++) {
        now_ns += 1000000;
        total_bytes += take_again(&path, 900000, 901000, now_ns);
    }
    assert_in_range(total_bytes, 60 * 1000, 75 * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_follows_its_samples),
        cmocka_unit_test(test_window_doubles_then_creeps_and_yields_once_per_round_trip),
        cmocka_unit_test(test_window_stays_within_the_ring),
        cmocka_unit_test(test_what_is_sent_again_is_rationed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
