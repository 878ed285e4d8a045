#include "core/testing.h"

#include <pthread.h>

#include "core/clock.h"

/* On a machine that others share, this thread may lose the CPU between two readings. Of many tries
 * one is not interrupted; an error of the clock itself would be in all of them. */
enum { TRY_COUNT = 2000 };

static uint64_t smallest_distance_ns(void)
{
    uint64_t smallest = UINT64_MAX;
    for (int i = 0; i < TRY_COUNT; i++) {
        uint64_t before_ns = rsi_test_now_ns();
        uint64_t now_ns = rsi_clock_now_ns();
        uint64_t after_ns = rsi_test_now_ns();
        uint64_t distance = 0;
        if (now_ns < before_ns) {
            distance = before_ns - now_ns;
        } else if (now_ns > after_ns) {
            distance = now_ns - after_ns;
        }
        smallest = distance < smallest ? distance : smallest;
    }
    return smallest;
}

static void the_clock_is_close_to_the_systems(void **state)
{
    (void)state;
    const char *reason = NULL;
    (void)rsi_clock_uses_tsc(&reason);
    assert_non_null(reason);
    for (int i = 0; i < 10; i++) {
        assert_in_range(smallest_distance_ns(), 0, 50000);
        uint64_t until_ns = rsi_test_now_ns() + RSI_CLOCK_ANCHOR_NS / 4;
        while (rsi_test_now_ns() < until_ns) {
        }
    }
}

static void time_never_goes_back_within_a_thread(void **state)
{
    (void)state;
    uint64_t start_ns = rsi_clock_now_ns();
    uint64_t last_ns = start_ns;
    /* Over several anchors. */
    while (last_ns < start_ns + 5 * RSI_CLOCK_ANCHOR_NS) {
        uint64_t now_ns = rsi_clock_now_ns();
        assert_true(now_ns >= last_ns);
        last_ns = now_ns;
    }
}

static void a_thread_that_ran_ahead_waits_for_the_system(void **state)
{
    (void)state;
    const uint64_t lead_ns = RSI_CLOCK_ANCHOR_NS / 4;
    /* As if the last anchor's rate had been far too high. */
    uint64_t ahead_ns = rsi_clock_now_ns() + lead_ns;
    rsi_clock_thread.last_ns = ahead_ns;
    uint64_t first_ns = rsi_clock_now_slow_ns();
    assert_true(first_ns >= ahead_ns);
    uint64_t last_ns = first_ns;
    while (last_ns < first_ns + 3 * RSI_CLOCK_ANCHOR_NS) {
        uint64_t now_ns = rsi_clock_now_ns();
        assert_true(now_ns >= last_ns);
        last_ns = now_ns;
    }
    assert_in_range(smallest_distance_ns(), 0, 50000);
}

static void realtime_is_the_systems(void **state)
{
    (void)state;
    uint64_t smallest = UINT64_MAX;
    for (int i = 0; i < TRY_COUNT; i++) {
        struct timespec now;
        uint64_t ours_ns = rsi_clock_realtime_ns();
        clock_gettime(CLOCK_REALTIME, &now);
        uint64_t theirs_ns = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
        uint64_t distance = ours_ns > theirs_ns ? ours_ns - theirs_ns : theirs_ns - ours_ns;
        smallest = distance < smallest ? distance : smallest;
    }
    assert_in_range(smallest, 0, 1000000);
}

static void *read_in_a_thread(void *arg)
{
    uint64_t *smallest = arg;
    *smallest = smallest_distance_ns();
    return NULL;
}

static void every_thread_shows_the_same_time(void **state)
{
    (void)state;
    enum { THREAD_COUNT = 4 };
    pthread_t threads[THREAD_COUNT];
    uint64_t smallest[THREAD_COUNT];
    for (int i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_in_a_thread, &smallest[i]), 0);
    }
    for (int i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_in_range(smallest[i], 0, 50000);
    }
}

static void the_environment_chooses_the_systems_clock(void **state)
{
    (void)state;
    char program[512];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    assert_true(length > 0);
    program[length] = '\0';
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("RINGSIDE_CLOCK", "monotonic", 1);
        execl(program, program, "--without-tsc", (char *)NULL);
        _exit(99);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The program started anew, because the choice is made once per process. */
static int check_without_tsc(void)
{
    const char *reason = NULL;
    uint64_t before_ns = rsi_test_now_ns();
    uint64_t now_ns = rsi_clock_now_ns();
    uint64_t after_ns = rsi_test_now_ns();
    if (rsi_clock_uses_tsc(&reason)) {
        return 1;
    }
    if (strcmp(reason, "RINGSIDE_CLOCK=monotonic is in the environment") != 0) {
        return 2;
    }
    if (now_ns < before_ns || now_ns > after_ns) {
        return 3;
    }
    return rsi_clock_realtime_ns() > now_ns ? 0 : 4;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--without-tsc") == 0) {
        return check_without_tsc();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clock_is_close_to_the_systems),
        cmocka_unit_test(time_never_goes_back_within_a_thread),
        cmocka_unit_test(a_thread_that_ran_ahead_waits_for_the_system),
        cmocka_unit_test(realtime_is_the_systems),
        cmocka_unit_test(every_thread_shows_the_same_time),
        cmocka_unit_test(the_environment_chooses_the_systems_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
