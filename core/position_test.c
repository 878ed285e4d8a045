#include "core/testing.h"

#include "core/position.h"

static void aligning(void **state)
{
    (void)state;
    assert_int_equal(rsi_align_up_8(0), 0);
    assert_int_equal(rsi_align_up_8(1), 8);
    assert_int_equal(rsi_align_up_8(8), 8);
    assert_int_equal(rsi_align_up_64(65), 128);
    assert_int_equal(rsi_align_up(4097, 4096), 8192);
    assert_true(rsi_align_up_8(UINT64_MAX - 7) == UINT64_MAX - 7);
    assert_true(rsi_is_aligned(16, 8));
    assert_false(rsi_is_aligned(20, 8));
}

static void powers_of_two(void **state)
{
    (void)state;
    assert_false(rsi_is_power_of_two(0));
    assert_true(rsi_is_power_of_two(1));
    assert_false(rsi_is_power_of_two(6));
    assert_true(rsi_is_power_of_two(UINT64_C(1) << 63));
    assert_int_equal(rsi_round_up_power_of_two(0), 1);
    assert_int_equal(rsi_round_up_power_of_two(1), 1);
    assert_int_equal(rsi_round_up_power_of_two(3), 4);
    assert_int_equal(rsi_round_up_power_of_two(4096), 4096);
    assert_int_equal(rsi_round_up_power_of_two(4097), 8192);
    assert_true(rsi_round_up_power_of_two((UINT64_C(1) << 62) + 1) == UINT64_C(1) << 63);
}

static void moving_and_measuring(void **state)
{
    (void)state;
    assert_int_equal(rsi_pos_advance(40, 2), 42);
    assert_true(rsi_pos_advance(UINT64_MAX - 1, 1) == UINT64_MAX);
    assert_int_equal(rsi_pos_distance(40, 42), 2);
    assert_int_equal(rsi_pos_distance(42, 42), 0);
    assert_true(rsi_pos_is_within(5, 5, 5));
    assert_false(rsi_pos_is_within(4, 5, 6));
    assert_false(rsi_pos_is_within(7, 5, 6));
    assert_int_equal(rsi_pos_min(3, 4), 3);
    assert_int_equal(rsi_pos_max(3, 4), 4);
}

static void advance_beyond_the_end(void *arg)
{
    (void)rsi_pos_advance(UINT64_MAX, *(const uint64_t *)arg);
}

static void measure_backwards(void *arg)
{
    (void)rsi_pos_distance(*(const uint64_t *)arg, 0);
}

static void align_to_three(void *arg)
{
    (void)rsi_align_up(*(const uint64_t *)arg, 3);
}

static void align_beyond_the_end(void *arg)
{
    (void)rsi_align_up(UINT64_MAX - *(const uint64_t *)arg, 8);
}

static void broken_relations_abort(void **state)
{
    (void)state;
    char output[256];
    uint64_t one = 1;
    rsi_test_expect_abort(advance_beyond_the_end, &one, output, sizeof output);
    rsi_test_expect_abort(measure_backwards, &one, output, sizeof output);
    rsi_test_expect_abort(align_to_three, &one, output, sizeof output);
    rsi_test_expect_abort(align_beyond_the_end, &one, output, sizeof output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligning),
        cmocka_unit_test(powers_of_two),
        cmocka_unit_test(moving_and_measuring),
        cmocka_unit_test(broken_relations_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
