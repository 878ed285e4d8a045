#include "core/testing.h"

#include <poll.h>
#include <pthread.h>

#include "core/waker.h"

static bool is_readable(const struct rsi_waker *waker, int timeout_ms)
{
    struct pollfd item = {.fd = waker->fd, .events = POLLIN};
    return poll(&item, 1, timeout_ms) == 1;
}

static void waking_one_who_does_not_sleep_costs_nothing(void **state)
{
    (void)state;
    struct rsi_waker waker;
    assert_int_equal(rsi_waker_init(&waker, NULL), RSI_OK);
    rsi_waker_wake(&waker);
    assert_false(is_readable(&waker, 0));
    assert_int_equal(rsi_load_relaxed(&waker.wakes), 0);
    rsi_waker_fini(&waker);
    rsi_waker_fini(&waker);
}

static void a_burst_wakes_a_sleeper_once(void **state)
{
    (void)state;
    struct rsi_waker waker;
    assert_int_equal(rsi_waker_init(&waker, NULL), RSI_OK);
    for (uint64_t round = 1; round <= 3; round++) {
        rsi_waker_prepare(&waker);
        rsi_waker_wake(&waker);
        rsi_waker_wake(&waker);
        assert_true(is_readable(&waker, 0));
        assert_int_equal(rsi_load_relaxed(&waker.wakes), round);
        rsi_waker_finish(&waker);
        assert_false(is_readable(&waker, 0));
        rsi_waker_wake(&waker); /* awake again */
        assert_false(is_readable(&waker, 0));
    }
    rsi_waker_fini(&waker);
}

static void finishing_without_a_wake_leaves_nothing(void **state)
{
    (void)state;
    struct rsi_waker waker;
    assert_int_equal(rsi_waker_init(&waker, NULL), RSI_OK);
    rsi_waker_prepare(&waker);
    rsi_waker_finish(&waker);
    rsi_waker_wake(&waker);
    assert_false(is_readable(&waker, 0));
    rsi_waker_fini(&waker);
}

static void a_wake_that_comes_late_is_drained_by_the_next_sleep(void **state)
{
    (void)state;
    const uint64_t one = 1;
    struct rsi_waker waker;
    assert_int_equal(rsi_waker_init(&waker, NULL), RSI_OK);
    /* A waker that was interrupted between taking `sleeping` and its write. */
    rsi_waker_prepare(&waker);
    assert_int_equal(rsi_exchange_acq_rel(&waker.sleeping, 0u), 1);
    rsi_waker_finish(&waker);
    assert_int_equal(write(waker.fd, &one, sizeof one), sizeof one);
    rsi_waker_prepare(&waker);
    assert_true(is_readable(&waker, 0)); /* once for nothing */
    rsi_waker_finish(&waker);
    rsi_waker_prepare(&waker);
    assert_false(is_readable(&waker, 0));
    rsi_waker_finish(&waker);
    rsi_waker_fini(&waker);
}

enum { ITEM_COUNT = 20000, HANG_MS = 20000 };

static struct {
    struct rsi_waker waker;
    _Atomic uint64_t published_count;
    _Atomic uint64_t taken_count;
} shared;

static void *publish_all(void *arg)
{
    for (uint64_t i = 1; i <= ITEM_COUNT; i++) {
        rsi_store_release(&shared.published_count, i);
        rsi_waker_wake(&shared.waker);
        /* One at a time, so that the sleeper goes to sleep as often as it can. */
        while (rsi_load_acquire(&shared.taken_count) < i) {
            sched_yield();
        }
    }
    return arg;
}

static void no_wake_up_is_lost(void **state)
{
    (void)state;
    pthread_t publisher;
    assert_int_equal(rsi_waker_init(&shared.waker, NULL), RSI_OK);
    assert_int_equal(pthread_create(&publisher, NULL, publish_all, NULL), 0);
    uint64_t taken_count = 0;
    while (taken_count < ITEM_COUNT) {
        rsi_waker_prepare(&shared.waker);
        bool is_in_time = true;
        if (rsi_load_acquire(&shared.published_count) == taken_count) {
            is_in_time = is_readable(&shared.waker, HANG_MS);
        }
        rsi_waker_finish(&shared.waker);
        assert_true(is_in_time);
        taken_count = rsi_load_acquire(&shared.published_count);
        rsi_store_release(&shared.taken_count, taken_count);
    }
    assert_int_equal(pthread_join(publisher, NULL), 0);
    rsi_waker_fini(&shared.waker);
}

static void without_descriptors_there_is_no_waker(void **state)
{
    (void)state;
    struct rlimit before;
    struct rsi_error error = {0};
    struct rsi_waker waker;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    rsi_status_t status = rsi_waker_init(&waker, &error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(status, RSI_E_NO_DESCRIPTORS);
    assert_non_null(strstr(error.text, "ulimit -n"));
    rsi_waker_fini(&waker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waking_one_who_does_not_sleep_costs_nothing),
        cmocka_unit_test(a_burst_wakes_a_sleeper_once),
        cmocka_unit_test(finishing_without_a_wake_leaves_nothing),
        cmocka_unit_test(a_wake_that_comes_late_is_drained_by_the_next_sleep),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(without_descriptors_there_is_no_waker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
