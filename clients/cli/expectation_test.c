/*
 * Design notes
 * - Payloads are texts here; the code under test compares bytes and lengths alone.
 */
#include "core/testing.h"

#include "clients/cli/expectation.h"

static void expect(struct rsi_expectation *expectation, const char *subject, const char *payload)
{
    assert_int_equal(
        rsi_expectation_add(expectation, subject, strlen(subject), payload, strlen(payload), NULL),
        RSI_OK);
}

static rsi_verdict_t come(struct rsi_expectation *expectation, const char *subject,
                          const char *payload)
{
    return rsi_expectation_check(expectation, subject, strlen(subject), payload, strlen(payload));
}

static struct rsi_expectation expect_some(void)
{
    struct rsi_expectation expectation = {0};
    expect(&expectation, "a", "1");
    expect(&expectation, "b", "x");
    expect(&expectation, "a", "2");
    expect(&expectation, "a", "3");
    expect(&expectation, "a", "");
    return expectation;
}

static void all_in_order_is_met(void **state)
{
    (void)state;
    struct rsi_expectation expectation = expect_some();
    assert_int_equal(come(&expectation, "a", "1"), RSI_VERDICT_AS_EXPECTED);
    assert_int_equal(come(&expectation, "a", "2"), RSI_VERDICT_AS_EXPECTED);
    assert_int_equal(come(&expectation, "a", "3"), RSI_VERDICT_AS_EXPECTED);
    assert_int_equal(come(&expectation, "b", "x"), RSI_VERDICT_AS_EXPECTED);
    assert_false(rsi_expectation_is_met(&expectation));
    assert_int_equal(come(&expectation, "a", ""), RSI_VERDICT_AS_EXPECTED);
    assert_true(rsi_expectation_is_met(&expectation));
    assert_int_equal(rsi_expectation_subject_count(&expectation), 2);
    rsi_expectation_fini(&expectation);
}

static void count_missing(void *arg, const char *subject, uint64_t missing_count,
                          uint64_t expected_count, uint64_t first_index)
{
    uint64_t *total_count = arg;
    if (strcmp(subject, "a") == 0) {
        assert_int_equal(expected_count, 4);
        assert_int_equal(first_index, 0);
    }
    *total_count += missing_count;
}

static void each_fault_is_told_apart(void **state)
{
    (void)state;
    struct rsi_expectation expectation = expect_some();
    assert_int_equal(come(&expectation, "a", "2"), RSI_VERDICT_AHEAD);
    assert_int_equal(come(&expectation, "a", "2"), RSI_VERDICT_DOUBLED);
    uint64_t missing_count = 0;
    rsi_expectation_each_missing(&expectation, count_missing, &missing_count);
    assert_int_equal(missing_count, 4);
    assert_int_equal(come(&expectation, "a", "1"), RSI_VERDICT_OUT_OF_ORDER);
    assert_int_equal(come(&expectation, "a", "other"), RSI_VERDICT_DIFFERENT);
    assert_int_equal(come(&expectation, "c", "1"), RSI_VERDICT_STRANGE);
    assert_int_equal(come(&expectation, "a", "3"), RSI_VERDICT_AS_EXPECTED);
    assert_int_equal(come(&expectation, "a", ""), RSI_VERDICT_AS_EXPECTED);
    assert_int_equal(come(&expectation, "b", "x"), RSI_VERDICT_AS_EXPECTED);
    assert_int_equal(come(&expectation, "b", "x"), RSI_VERDICT_DOUBLED);
    assert_int_equal(expectation.matched_count, expectation.expected_count);
    assert_false(rsi_expectation_is_met(&expectation));
    rsi_expectation_fini(&expectation);
}

static void equal_payloads_count_each(void **state)
{
    (void)state;
    struct rsi_expectation expectation = {0};
    for (int i = 0; i < 100; i++) {
        expect(&expectation, "a", "same");
    }
    for (int i = 0; i < 100; i++) {
        assert_int_equal(come(&expectation, "a", "same"), RSI_VERDICT_AS_EXPECTED);
    }
    assert_true(rsi_expectation_is_met(&expectation));
    assert_int_equal(come(&expectation, "a", "same"), RSI_VERDICT_DOUBLED);
    assert_false(rsi_expectation_is_met(&expectation));
    rsi_expectation_fini(&expectation);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_in_order_is_met),
        cmocka_unit_test(each_fault_is_told_apart),
        cmocka_unit_test(equal_payloads_count_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
