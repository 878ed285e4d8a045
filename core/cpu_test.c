#include "core/testing.h"

#include <pthread.h>
#include <sys/prctl.h>

#include "core/cpu.h"

static void lists_are_read_and_written(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *formatted;
        unsigned count;
    } cases[] = {
        {"", "none", 0},     {"0", "0", 1},         {"0-3,8", "0-3,8", 5},
        {"5,4,3", "3-5", 3}, {"63-64", "63-64", 2}, {"0,2,4", "0,2,4", 3},
        {"1,1-2", "1-2", 2}, {"1023", "1023", 1},   {"0-1023", "0-1023", 1024},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_cpu_set set;
        char buffer[64];
        assert_int_equal(rsi_cpu_set_parse(&set, cases[i].text, NULL), RSI_OK);
        assert_int_equal(rsi_cpu_set_count(&set), cases[i].count);
        assert_string_equal(rsi_cpu_set_format(&set, buffer, sizeof buffer), cases[i].formatted);
    }
}

static void wrong_lists_are_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "x", "1-", "-1", "3-1", "1,,2", "1,", ",1", "1 2", "1024", "99999999999999999999", "1-2-3"};
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_error error = {0};
        struct rsi_cpu_set set = {{42}};
        char expected[128];
        snprintf(expected, sizeof expected,
                 "'%s' is not a list of CPUs; write it like 0-3,8, with numbers below 1024",
                 cases[i]);
        assert_int_equal(rsi_cpu_set_parse(&set, cases[i], &error), RSI_E_INVALID);
        assert_string_equal(error.text, expected);
        assert_int_equal(set.words[0], 42);
    }
}

static void sets_know_their_members(void **state)
{
    (void)state;
    struct rsi_cpu_set set = {{0}};
    assert_int_equal(rsi_cpu_set_next(&set, 0), -1);
    rsi_cpu_set_add(&set, 3);
    rsi_cpu_set_add(&set, 1000);
    assert_true(rsi_cpu_set_has(&set, 3));
    assert_false(rsi_cpu_set_has(&set, 4));
    assert_false(rsi_cpu_set_has(&set, 100000));
    assert_int_equal(rsi_cpu_set_next(&set, 0), 3);
    assert_int_equal(rsi_cpu_set_next(&set, 3), 3);
    assert_int_equal(rsi_cpu_set_next(&set, 4), 1000);
    assert_int_equal(rsi_cpu_set_next(&set, 1001), -1);
}

static void the_allowed_set_is_the_kernels(void **state)
{
    (void)state;
    struct rsi_cpu_set set;
    assert_int_equal(rsi_cpu_allowed(&set, NULL), RSI_OK);
    cpu_set_t allowed;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    assert_int_equal(rsi_cpu_set_count(&set), CPU_COUNT(&allowed));
    assert_true(rsi_cpu_set_count(&set) >= 1);
    assert_int_equal(rsi_cpu_isolated(&set, NULL), RSI_OK);
}

static void *pin_and_report(void *arg)
{
    unsigned *cpu = arg;
    struct rsi_cpu_set allowed;
    struct rsi_error error = {0};
    if (rsi_cpu_allowed(&allowed, NULL) != RSI_OK) {
        return "cannot ask";
    }
    *cpu = (unsigned)rsi_cpu_set_next(&allowed, 0);
    if (rsi_cpu_pin_thread(*cpu, &error) != RSI_OK) {
        return "cannot pin";
    }
    if (sched_getcpu() != (int)*cpu) {
        return "runs elsewhere";
    }
    /* Now the allowed set is this one CPU, and any other lies outside it. */
    char expected[64];
    snprintf(expected, sizeof expected, "cpu %u is outside the allowed set %u", *cpu + 1, *cpu);
    if (rsi_cpu_pin_thread(*cpu + 1, &error) != RSI_E_CPU || strcmp(error.text, expected) != 0) {
        return "the error does not name the allowed set";
    }
    return NULL;
}

static void a_thread_is_pinned_and_told_its_bounds(void **state)
{
    (void)state;
    pthread_t thread;
    unsigned cpu = 0;
    void *complaint = NULL;
    assert_int_equal(pthread_create(&thread, NULL, pin_and_report, &cpu), 0);
    assert_int_equal(pthread_join(thread, &complaint), 0);
    if (complaint != NULL) {
        fail_msg("%s", (const char *)complaint);
    }
}

static void cpus_that_cannot_exist_are_outside(void **state)
{
    (void)state;
    struct rsi_error error = {0};
    assert_int_equal(rsi_cpu_pin_thread(70000, &error), RSI_E_CPU);
    assert_int_equal(strncmp(error.text, "cpu 70000 is outside the allowed set ", 37), 0);
}

static void nodes_are_known_or_unknown(void **state)
{
    (void)state;
    struct rsi_cpu_set allowed;
    assert_int_equal(rsi_cpu_allowed(&allowed, NULL), RSI_OK);
    assert_true(rsi_cpu_node((unsigned)rsi_cpu_set_next(&allowed, 0)) >= -1);
    assert_int_equal(rsi_cpu_node(RSI_CPU_COUNT_MAX), -1);
    assert_int_equal(rsi_cpu_node_of_interface("lo"), -1); /* no device behind it */
    assert_int_equal(rsi_cpu_node_of_interface("../net/lo"), -1);
    assert_int_equal(rsi_cpu_node_of_interface(""), -1);
    assert_int_equal(rsi_cpu_node_of_rdma_device("no-such-device"), -1);
}

static void *name_a_thread(void *arg)
{
    rsi_thread_name("ringside-data-0123");
    prctl(PR_GET_NAME, arg);
    return NULL;
}

static void thread_names_are_cut_to_what_fits(void **state)
{
    (void)state;
    pthread_t thread;
    char name[17] = "";
    assert_int_equal(pthread_create(&thread, NULL, name_a_thread, name), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(name, "ringside-data-0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read_and_written),
        cmocka_unit_test(wrong_lists_are_refused),
        cmocka_unit_test(sets_know_their_members),
        cmocka_unit_test(the_allowed_set_is_the_kernels),
        cmocka_unit_test(a_thread_is_pinned_and_told_its_bounds),
        cmocka_unit_test(cpus_that_cannot_exist_are_outside),
        cmocka_unit_test(nodes_are_known_or_unknown),
        cmocka_unit_test(thread_names_are_cut_to_what_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
