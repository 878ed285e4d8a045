#include "core/testing.h"

#include "core/assert.h"

rsi_static_assert(sizeof(char) == 1);

static unsigned evaluated_count;

static bool count_evaluation(bool result)
{
    evaluated_count++;
    return result;
}

static void fail_an_assertion(void *arg)
{
    const int *value = arg;
    rsi_assert(*value == 2);
}

static void true_conditions_pass_and_are_evaluated_once(void **state)
{
    (void)state;
    evaluated_count = 0;
    rsi_assert(count_evaluation(true));
    assert_int_equal(evaluated_count, 1);
}

static void false_conditions_abort_and_say_where(void **state)
{
    (void)state;
    char output[512];
    int value = 1;
    rsi_test_expect_abort(fail_an_assertion, &value, output, sizeof output);
    assert_non_null(strstr(output, "core/assert_test.c:"));
    assert_non_null(strstr(output, "fail_an_assertion: assertion failed: *value == 2\n"));
}

static void reach_the_unreachable(void *arg)
{
    (void)arg;
    rsi_unreachable("no such way");
}

static void the_unreachable_aborts(void **state)
{
    (void)state;
    char output[512];
    rsi_test_expect_abort(reach_the_unreachable, NULL, output, sizeof output);
    assert_non_null(strstr(output, "reach_the_unreachable: assertion failed: no such way\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(true_conditions_pass_and_are_evaluated_once),
        cmocka_unit_test(false_conditions_abort_and_say_where),
        cmocka_unit_test(the_unreachable_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
