#include "core/testing.h"

#include <pthread.h>

#include "core/atomics.h"

static void wrappers_do_what_they_say(void **state)
{
    (void)state;
    _Atomic uint64_t word = 5;
    assert_int_equal(rsi_load_relaxed(&word), 5);
    rsi_store_release(&word, 6);
    assert_int_equal(rsi_load_acquire(&word), 6);
    rsi_store_relaxed(&word, 7);
    assert_int_equal(rsi_fetch_add_relaxed(&word, 3), 7);
    assert_int_equal(rsi_fetch_add_acq_rel(&word, 1), 10);
    assert_int_equal(rsi_fetch_or_acq_rel(&word, 4), 11);
    assert_int_equal(rsi_exchange_acq_rel(&word, 1), 15);
    rsi_bump_relaxed(&word, 2);
    assert_int_equal(rsi_load_relaxed(&word), 3);

    uint64_t expected = 4;
    assert_false(rsi_compare_exchange(&word, &expected, 9));
    assert_int_equal(expected, 3);
    assert_true(rsi_compare_exchange(&word, &expected, 9));
    assert_int_equal(rsi_load_relaxed(&word), 9);
}

static void words_in_mapped_memory_must_be_aligned(void **state)
{
    (void)state;
    _Alignas(8) uint8_t bytes[16] = {0};
    rsi_store_relaxed(rsi_atomic_u64_at(bytes + 8), UINT64_MAX);
    assert_int_equal(bytes[7], 0);
    assert_int_equal(bytes[8], 0xff);
    assert_int_equal(bytes[15], 0xff);
}

static void load_a_crooked_word(void *arg)
{
    (void)rsi_load_relaxed(rsi_atomic_u64_at((uint8_t *)arg + 4));
}

static void a_crooked_word_aborts(void **state)
{
    (void)state;
    _Alignas(8) uint8_t bytes[16] = {0};
    char output[256];
    rsi_test_expect_abort(load_a_crooked_word, bytes, output, sizeof output);
    assert_non_null(strstr(output, "assertion failed"));
}

/*
 * Store, fence, load in two threads: at least one of them must see the other's store. Without the
 * fence this fails on x86 within a few thousand rounds.
 */
enum { ROUND_COUNT = 20000 };

static struct {
    _Atomic uint64_t x;
    RSI_SEPARATOR(before_y);
    _Atomic uint64_t y;
    RSI_SEPARATOR(before_round);
    _Atomic uint64_t other_at_round;
    _Atomic uint64_t main_at_round;
    uint64_t seen_by_other[ROUND_COUNT + 1];
} litmus;

static void meet(_Atomic uint64_t *mine, _Atomic uint64_t *theirs, uint64_t at)
{
    rsi_store_release(mine, at);
    for (unsigned spins = 0; rsi_load_acquire(theirs) < at; spins++) {
        rsi_cpu_pause();
        if (spins % 256 == 255) {
            sched_yield();
        }
    }
}

static void *litmus_other(void *arg)
{
    for (uint64_t round = 1; round <= ROUND_COUNT; round++) {
        meet(&litmus.other_at_round, &litmus.main_at_round, round);
        rsi_store_relaxed(&litmus.y, round);
        rsi_fence_seq_cst();
        litmus.seen_by_other[round] = rsi_load_relaxed(&litmus.x);
    }
    return arg;
}

static void the_fence_orders_a_store_before_a_load(void **state)
{
    (void)state;
    static uint64_t seen_by_main[ROUND_COUNT + 1];
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, litmus_other, NULL), 0);
    for (uint64_t round = 1; round <= ROUND_COUNT; round++) {
        meet(&litmus.main_at_round, &litmus.other_at_round, round);
        rsi_store_relaxed(&litmus.x, round);
        rsi_fence_seq_cst();
        seen_by_main[round] = rsi_load_relaxed(&litmus.y);
    }
    assert_int_equal(pthread_join(other, NULL), 0);
    for (uint64_t round = 1; round <= ROUND_COUNT; round++) {
        assert_true(seen_by_main[round] >= round || litmus.seen_by_other[round] >= round);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrappers_do_what_they_say),
        cmocka_unit_test(words_in_mapped_memory_must_be_aligned),
        cmocka_unit_test(a_crooked_word_aborts),
        cmocka_unit_test(the_fence_orders_a_store_before_a_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
