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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_follows_its_samples),
        cmocka_unit_test(test_window_doubles_then_creeps_and_yields_once_per_round_trip),
        cmocka_unit_test(test_window_stays_within_the_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
