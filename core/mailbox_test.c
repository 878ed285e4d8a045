#include "core/testing.h"

#include <pthread.h>

#include "core/mailbox.h"

static void messages_come_out_as_they_went_in(void **state)
{
    (void)state;
    struct rsi_mailbox mailbox;
    uint32_t bytes = 0;
    assert_int_equal(rsi_mailbox_init(&mailbox, 16, 4, NULL), RSI_OK);
    assert_true(rsi_mailbox_is_empty(&mailbox));
    assert_null(rsi_mailbox_front(&mailbox, &bytes));
    assert_int_equal(rsi_mailbox_push(&mailbox, "one", 4), RSI_OK);
    assert_int_equal(rsi_mailbox_push(&mailbox, NULL, 0), RSI_OK);
    assert_int_equal(rsi_mailbox_push(&mailbox, "0123456789abcde", 16), RSI_OK);
    assert_int_equal(rsi_mailbox_free_count(&mailbox), 1);

    const char *front = rsi_mailbox_front(&mailbox, &bytes);
    assert_string_equal(front, "one");
    assert_int_equal(bytes, 4);
    assert_int_equal((uintptr_t)front % 8, 0);
    assert_ptr_equal(rsi_mailbox_front(&mailbox, &bytes), front);
    rsi_mailbox_pop(&mailbox);
    assert_non_null(rsi_mailbox_front(&mailbox, &bytes));
    assert_int_equal(bytes, 0);
    rsi_mailbox_pop(&mailbox);
    assert_string_equal((const char *)rsi_mailbox_front(&mailbox, &bytes), "0123456789abcde");
    assert_int_equal(bytes, 16);
    rsi_mailbox_pop(&mailbox);
    assert_true(rsi_mailbox_is_empty(&mailbox));
    rsi_mailbox_fini(&mailbox);
    rsi_mailbox_fini(&mailbox);
}

static void a_full_mailbox_takes_nothing(void **state)
{
    (void)state;
    struct rsi_mailbox mailbox;
    uint32_t bytes = 0;
    assert_int_equal(rsi_mailbox_init(&mailbox, 8, 2, NULL), RSI_OK);
    assert_int_equal(rsi_mailbox_push(&mailbox, "a", 2), RSI_OK);
    assert_int_equal(rsi_mailbox_push(&mailbox, "b", 2), RSI_OK);
    assert_int_equal(rsi_mailbox_push(&mailbox, "c", 2), RSI_WOULD_BLOCK);
    assert_int_equal(rsi_mailbox_free_count(&mailbox), 0);
    assert_string_equal((const char *)rsi_mailbox_front(&mailbox, &bytes), "a");
    rsi_mailbox_pop(&mailbox);
    assert_int_equal(rsi_mailbox_push(&mailbox, "d", 2), RSI_OK);
    assert_string_equal((const char *)rsi_mailbox_front(&mailbox, &bytes), "b");
    rsi_mailbox_pop(&mailbox);
    assert_string_equal((const char *)rsi_mailbox_front(&mailbox, &bytes), "d");
    rsi_mailbox_fini(&mailbox);
}

static void too_large_messages_and_wrong_sizes_are_refused(void **state)
{
    (void)state;
    struct rsi_mailbox mailbox = {0};
    struct rsi_error error = {0};
    assert_int_equal(rsi_mailbox_init(&mailbox, 8, 3, &error), RSI_E_INVALID);
    assert_string_equal(error.text,
                        "a mailbox of 3 messages is not possible; the count is a power of two");
    assert_int_equal(rsi_mailbox_init(&mailbox, 0, 4, &error), RSI_E_INVALID);
    assert_int_equal(rsi_mailbox_init(&mailbox, UINT32_MAX, 4, &error), RSI_E_INVALID);
    assert_null(mailbox.slots);
    assert_int_equal(rsi_mailbox_init(&mailbox, 8, 1, &error), RSI_OK);
    assert_int_equal(rsi_mailbox_push(&mailbox, "123456789", 9), RSI_E_TOO_LARGE);
    assert_true(rsi_mailbox_is_empty(&mailbox));
    rsi_mailbox_fini(&mailbox);
}

static void pop_an_empty_mailbox(void *arg)
{
    rsi_mailbox_pop(arg);
}

static void popping_what_is_not_there_aborts(void **state)
{
    (void)state;
    char output[256];
    struct rsi_mailbox mailbox;
    assert_int_equal(rsi_mailbox_init(&mailbox, 8, 4, NULL), RSI_OK);
    rsi_test_expect_abort(pop_an_empty_mailbox, &mailbox, output, sizeof output);
    rsi_mailbox_fini(&mailbox);
}

/* Two threads: message i is i repeated, of a length that i determines. */
enum { MESSAGE_COUNT = 100000, WORD_COUNT_MAX = 5 };

static uint32_t words_of(uint64_t i)
{
    return (uint32_t)(i * 7 % (WORD_COUNT_MAX + 1));
}

static void *push_all(void *arg)
{
    struct rsi_mailbox *mailbox = arg;
    for (uint64_t i = 0; i < MESSAGE_COUNT; i++) {
        uint64_t words[WORD_COUNT_MAX] = {i, i, i, i, i};
        while (rsi_mailbox_push(mailbox, words, words_of(i) * 8) == RSI_WOULD_BLOCK) {
            sched_yield();
        }
    }
    return NULL;
}

static void two_threads_lose_and_tear_nothing(void **state)
{
    (void)state;
    struct rsi_mailbox mailbox;
    pthread_t pusher;
    assert_int_equal(rsi_mailbox_init(&mailbox, WORD_COUNT_MAX * 8, 8, NULL), RSI_OK);
    assert_int_equal(pthread_create(&pusher, NULL, push_all, &mailbox), 0);
    for (uint64_t i = 0; i < MESSAGE_COUNT; i++) {
        uint32_t bytes = 0;
        rsi_test_wait_until(!rsi_mailbox_is_empty(&mailbox));
        const uint64_t *words = rsi_mailbox_front(&mailbox, &bytes);
        assert_int_equal(bytes, words_of(i) * 8);
        for (uint32_t word = 0; word < words_of(i); word++) {
            assert_int_equal(words[word], i);
        }
        rsi_mailbox_pop(&mailbox);
    }
    assert_int_equal(pthread_join(pusher, NULL), 0);
    assert_true(rsi_mailbox_is_empty(&mailbox));
    rsi_mailbox_fini(&mailbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_out_as_they_went_in),
        cmocka_unit_test(a_full_mailbox_takes_nothing),
        cmocka_unit_test(too_large_messages_and_wrong_sizes_are_refused),
        cmocka_unit_test(popping_what_is_not_there_aborts),
        cmocka_unit_test(two_threads_lose_and_tear_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
