/* Percentiles of what was counted between two looks, within the promised sixteenth. */
#include "core/testing.h"

#include "broker/latency.h"

#include <string.h>

static struct rsi_latency latency;
static struct rsi_latency_seen seen;

static int set_up(void **state)
{
    (void)state;
    memset(&latency, 0, sizeof(latency));
    memset(&seen, 0, sizeof(seen));
    return 0;
}

/* Never too low, at most a sixteenth too high. */
static void assert_near(uint64_t shown, uint64_t value)
{
    if (shown < value || shown > value + value / 16 + 1) {
        fail_msg("%llu is shown for %llu", (unsigned long long)shown, (unsigned long long)value);
    }
}

static void every_value_has_a_bucket_that_is_near(void **state)
{
    (void)state;
    struct rsi_latency_points points;
    for (uint64_t value = 1; value < UINT64_C(1) << 37; value += value / 3 + 1) {
        rsi_latency_record(&latency, value, 1);
        rsi_latency_look(&latency, &seen, &points);
        for (uint32_t i = 0; i < RSI_LATENCY_POINT_COUNT; i++) {
            assert_near(points.values_ns[i], value);
        }
    }
    rsi_latency_record(&latency, UINT64_MAX, 1);
    rsi_latency_look(&latency, &seen, &points);
    assert_int_equal(points.values_ns[0], (UINT64_C(1) << RSI_LATENCY_VALUE_BITS) - 1);
    rsi_latency_record(&latency, 0, 1);
    rsi_latency_look(&latency, &seen, &points);
    assert_int_equal(points.values_ns[RSI_LATENCY_POINT_COUNT - 1], 1);
}

static void points_are_those_of_the_ranks(void **state)
{
    (void)state;
    static const uint64_t expected[RSI_LATENCY_POINT_COUNT] = {500000, 900000, 950000,
                                                               990000, 999000, 1000000};
    struct rsi_latency_points points;
    for (uint64_t i = 1; i <= 1000; i++) {
        rsi_latency_record(&latency, i * 1000, 1);
    }
    rsi_latency_look(&latency, &seen, &points);
    for (uint32_t i = 0; i < RSI_LATENCY_POINT_COUNT; i++) {
        assert_near(points.values_ns[i], expected[i]);
    }
}

static void a_look_sees_only_what_is_new(void **state)
{
    (void)state;
    struct rsi_latency_points points;
    rsi_latency_record(&latency, 1000000, 1000);
    rsi_latency_look(&latency, &seen, &points);
    assert_near(points.values_ns[0], 1000000);
    rsi_latency_look(&latency, &seen, &points);
    assert_int_equal(points.values_ns[0], 0);
    assert_int_equal(points.values_ns[RSI_LATENCY_POINT_COUNT - 1], 0);
    rsi_latency_record(&latency, 20, 99);
    rsi_latency_record(&latency, 5000, 1);
    rsi_latency_look(&latency, &seen, &points);
    assert_int_equal(points.values_ns[0], 20);
    assert_int_equal(points.values_ns[3], 20);
    assert_near(points.values_ns[4], 5000);
    assert_near(points.values_ns[5], 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_value_has_a_bucket_that_is_near, set_up),
        cmocka_unit_test_setup(points_are_those_of_the_ranks, set_up),
        cmocka_unit_test_setup(a_look_sees_only_what_is_new, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
