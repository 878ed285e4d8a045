#ifndef RSI_CORE_TESTING_H
#define RSI_CORE_TESTING_H

/*
 * What unit tests of every folder share: cmocka with the headers that it needs first, seeded
 * randomness, deadlines, and calls that must abort. Included by tests only.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A wait that takes this long is a hang: the machine may be slow, but not that slow. */
#define RSI_TEST_HANG_NS UINT64_C(20000000000)

static inline uint64_t rsi_test_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Fails the test unless `condition` becomes true in time; for the test's main thread. */
#define rsi_test_wait_until(condition)                                        \
    do {                                                                      \
        uint64_t rsi_test_deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS; \
        while (!(condition)) {                                                \
            if (rsi_test_now_ns() > rsi_test_deadline_ns) {                   \
                fail_msg("still not true after 20 s: %s", #condition);        \
            }                                                                 \
            sched_yield();                                                    \
        }                                                                     \
    } while (0)

/* splitmix64: a whole generator in one word. */
static inline uint64_t rsi_test_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The seed of this run, printed: a new one each time, or RINGSIDE_TEST_SEED to repeat a run. */
static inline uint64_t rsi_test_seed(void)
{
    const char *wish = getenv("RINGSIDE_TEST_SEED");
    uint64_t seed = wish != NULL ? strtoull(wish, NULL, 0) : rsi_test_now_ns();
    print_message("repeat with RINGSIDE_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/*
 * Runs `function` in a child process, which must end by abort(). What the child wrote to standard
 * error is left in `output`, terminated.
 */
static inline void rsi_test_expect_abort(void (*function)(void *arg), void *arg, char *output,
                                         size_t output_bytes)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        function(arg);
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (;;) {
        char rest[256];
        bool has_room = length + 1 < output_bytes;
        ssize_t got = has_room ? read(ends[0], output + length, output_bytes - 1 - length)
                               : read(ends[0], rest, sizeof rest);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        length += has_room ? (size_t)got : 0;
    }
    output[length] = '\0';
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

#endif
