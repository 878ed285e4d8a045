/*
 * State, failure and mailboxes of a link.
 */
#include "transport/testing.h"

#include <poll.h>
#include <pthread.h>

#define STATE_COUNT (RSI_LINK_CLOSED + 1)

/* legal[from][to], written out by hand. */
static const bool legal[STATE_COUNT][STATE_COUNT] = {
    /*                  CONN   OPEN   ATTNG  ATTED  LOST   CLSNG  CLOSED */
    /* CONNECTING */ {false, true, false, false, true, true, false},
    /* OPEN */ {false, false, true, false, true, true, false},
    /* ATTACHING */ {false, false, false, true, true, true, false},
    /* ATTACHED */ {false, false, false, false, true, true, false},
    /* LOST */ {false, false, false, false, false, true, false},
    /* CLOSING */ {false, false, false, false, false, false, true},
    /* CLOSED */ {false, false, false, false, false, false, false},
};

struct step {
    enum rsi_link_state from;
    enum rsi_link_state to;
};

static void make_step(void *arg)
{
    const struct step *step = arg;
    struct rsi_test_link *test = rsi_test_link_create();
    rsi_store_relaxed(&test->link.state, step->from);
    rsi_link_set_state(&test->link, step->to);
}

static void test_only_legal_steps_are_made(void **state)
{
    (void)state;
    for (uint32_t from = 0; from < STATE_COUNT; from++) {
        for (uint32_t to = 0; to < STATE_COUNT; to++) {
            struct step step = {(enum rsi_link_state)from, (enum rsi_link_state)to};
            if (legal[from][to]) {
                struct rsi_test_link *test = rsi_test_link_create();
                rsi_store_relaxed(&test->link.state, from);
                rsi_link_set_state(&test->link, step.to);
                assert_int_equal(rsi_link_state(&test->link), to);
                rsi_test_link_destroy(test);
            } else {
                char output[512];
                rsi_test_expect_abort(make_step, &step, output, sizeof(output));
            }
        }
    }
}

static void test_states_have_names(void **state)
{
    (void)state;
    assert_string_equal(rsi_link_state_name(RSI_LINK_CONNECTING), "CONNECTING");
    assert_string_equal(rsi_link_state_name(RSI_LINK_ATTACHED), "ATTACHED");
    assert_string_equal(rsi_link_state_name(RSI_LINK_CLOSED), "CLOSED");
    assert_string_equal(rsi_link_state_name((enum rsi_link_state)77), "unknown");
}

static void test_links_have_their_own_ids(void **state)
{
    (void)state;
    struct rsi_test_link *one = rsi_test_link_create();
    struct rsi_test_link *two = rsi_test_link_create();
    assert_int_not_equal(one->link.id, two->link.id);
    assert_int_equal((uintptr_t)one % _Alignof(struct rsi_link), 0);
    rsi_test_link_destroy(one);
    rsi_test_link_destroy(two);
}

static void test_first_failure_stands(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    struct rsi_link *link = &test->link;
    assert_false(rsi_link_take_failure(link));
    rsi_link_fail(link, RSI_E_PROTOCOL, "the peer sent %d", 17);
    rsi_link_fail(link, RSI_E_LINK_LOST, "the peer is gone");
    assert_int_equal(rsi_link_state(link), RSI_LINK_ATTACHED); /* the control thread's step */
    assert_true(rsi_link_take_failure(link));
    assert_int_equal(rsi_link_state(link), RSI_LINK_LOST);
    assert_int_equal(link->error.status, RSI_E_PROTOCOL);
    assert_string_equal(link->error.text, "the peer sent 17");
    assert_false(rsi_link_take_failure(link));
    rsi_link_lose(link, RSI_E_TIMED_OUT, "later");
    assert_int_equal(link->error.status, RSI_E_PROTOCOL);
    rsi_test_link_destroy(test);
}

static void test_control_thread_loses_a_link(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create();
    struct rsi_link *link = &test->link;
    rsi_link_lose(link, RSI_E_TIMED_OUT, "nobody answered in %d s", 5);
    assert_int_equal(rsi_link_state(link), RSI_LINK_LOST);
    assert_int_equal(link->error.status, RSI_E_TIMED_OUT);
    assert_string_equal(link->error.text, "nobody answered in 5 s");
    rsi_link_set_state(link, RSI_LINK_CLOSING);
    rsi_link_lose(link, RSI_E_PROTOCOL, "too late"); /* does nothing */
    assert_int_equal(rsi_link_state(link), RSI_LINK_CLOSING);
    rsi_test_link_destroy(test);
}

static bool is_woken(const struct rsi_waker *waker)
{
    struct pollfd waiting = {.fd = waker->fd, .events = POLLIN};
    return poll(&waiting, 1, 0) == 1;
}

static void test_failure_wakes_the_control_thread(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create_attached(0);
    rsi_waker_prepare(&test->control_waker);
    assert_false(is_woken(&test->control_waker));
    rsi_link_fail(&test->link, RSI_E_LINK_LOST, "gone");
    assert_true(is_woken(&test->control_waker));
    rsi_waker_finish(&test->control_waker);
    rsi_test_link_destroy(test);
}

static void test_control_lane_by_state(void **state)
{
    (void)state;
    static const uint8_t bytes[RSI_CONTROL_BYTES_MAX + 1];
    static const rsi_status_t expected[STATE_COUNT] = {
        RSI_E_STATE, RSI_OK, RSI_OK, RSI_OK, RSI_E_LINK_LOST, RSI_E_LINK_CLOSED, RSI_E_LINK_CLOSED,
    };
    struct rsi_test_link *test = rsi_test_link_create();
    for (uint32_t at = 0; at < STATE_COUNT; at++) {
        rsi_store_relaxed(&test->link.state, at);
        assert_int_equal(rsi_link_send_control(&test->link, bytes, 1), expected[at]);
    }
    rsi_store_relaxed(&test->link.state, RSI_LINK_OPEN);
    assert_int_equal(rsi_link_send_control(&test->link, bytes, 0), RSI_E_INVALID);
    assert_int_equal(rsi_link_send_control(&test->link, bytes, sizeof(bytes)), RSI_E_TOO_LARGE);
    rsi_test_link_destroy(test);
}

static void test_full_outbox_wakes_its_sender_once_there_is_room(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create();
    struct rsi_link *link = &test->link;
    rsi_link_set_state(link, RSI_LINK_OPEN);
    for (uint32_t i = 0; i < RSI_CONTROL_SLOT_COUNT; i++) {
        assert_int_equal(rsi_link_send_control(link, &i, sizeof(i)), RSI_OK);
    }
    uint32_t more = 99;
    rsi_waker_prepare(&test->control_waker);
    assert_int_equal(rsi_link_send_control(link, &more, sizeof(more)), RSI_WOULD_BLOCK);
    assert_false(is_woken(&test->control_waker));
    uint32_t bytes;
    const uint32_t *front = rsi_link_outbox_front(link, &bytes);
    assert_non_null(front);
    assert_int_equal(*front, 0);
    rsi_link_outbox_pop(link);
    assert_true(is_woken(&test->control_waker));
    assert_int_equal(rsi_load_relaxed(&link->stats.control_sent), 1);
    assert_int_equal(rsi_link_send_control(link, &more, sizeof(more)), RSI_OK);
    rsi_waker_finish(&test->control_waker);
    rsi_test_link_destroy(test);
}

static void test_full_inbox_wakes_the_transport_once_there_is_room(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create();
    struct rsi_link *link = &test->link;
    rsi_link_set_state(link, RSI_LINK_OPEN);
    for (uint32_t i = 0; i < RSI_CONTROL_SLOT_COUNT; i++) {
        assert_int_equal(rsi_link_inbox_push(link, &i, sizeof(i)), RSI_OK);
    }
    uint32_t more = 99;
    rsi_waker_prepare(&test->owner_waker);
    assert_int_equal(rsi_link_inbox_push(link, &more, sizeof(more)), RSI_WOULD_BLOCK);
    uint32_t bytes;
    const uint32_t *front = rsi_link_front_control(link, &bytes);
    assert_non_null(front);
    assert_int_equal(*front, 0);
    assert_int_equal(bytes, sizeof(uint32_t));
    assert_false(is_woken(&test->owner_waker));
    rsi_link_pop_control(link);
    assert_true(is_woken(&test->owner_waker));
    assert_int_equal(rsi_link_inbox_push(link, &more, sizeof(more)), RSI_OK);
    rsi_waker_finish(&test->owner_waker);
    rsi_test_link_destroy(test);
}

/* ---- the two mailbox flags against two threads
 * ---------------------------------------------------- */

enum { PASSED_COUNT = 100000 };

/* The control thread: sends numbers, sleeps on its waker when the outbox is full. */
static void *send_numbers(void *arg)
{
    struct rsi_test_link *test = arg;
    for (uint32_t i = 0; i < PASSED_COUNT; i++) {
        while (rsi_link_send_control(&test->link, &i, sizeof(i)) == RSI_WOULD_BLOCK) {
            rsi_waker_prepare(&test->control_waker);
            if (rsi_link_send_control(&test->link, &i, sizeof(i)) == RSI_OK) {
                rsi_waker_finish(&test->control_waker);
                break;
            }
            struct pollfd waiting = {.fd = test->control_waker.fd, .events = POLLIN};
            int ready = poll(&waiting, 1, (int)(RSI_TEST_HANG_NS / 1000000));
            rsi_waker_finish(&test->control_waker);
            if (ready != 1) {
                return NULL; /* slept for 20 s: the other thread notices */
            }
        }
    }
    return test;
}

static void test_no_wake_of_a_full_mailbox_is_lost(void **state)
{
    (void)state;
    struct rsi_test_link *test = rsi_test_link_create();
    rsi_link_set_state(&test->link, RSI_LINK_OPEN);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_numbers, test), 0);
    for (uint32_t i = 0; i < PASSED_COUNT; i++) {
        uint32_t bytes;
        const uint32_t *number;
        rsi_test_wait_until((number = rsi_link_outbox_front(&test->link, &bytes)) != NULL);
        assert_int_equal(*number, i);
        rsi_link_outbox_pop(&test->link);
    }
    void *result = NULL;
    pthread_join(thread, &result);
    assert_non_null(result);
    rsi_test_link_destroy(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_legal_steps_are_made),
        cmocka_unit_test(test_states_have_names),
        cmocka_unit_test(test_links_have_their_own_ids),
        cmocka_unit_test(test_first_failure_stands),
        cmocka_unit_test(test_control_thread_loses_a_link),
        cmocka_unit_test(test_failure_wakes_the_control_thread),
        cmocka_unit_test(test_control_lane_by_state),
        cmocka_unit_test(test_full_outbox_wakes_its_sender_once_there_is_room),
        cmocka_unit_test(test_full_inbox_wakes_the_transport_once_there_is_room),
        cmocka_unit_test(test_no_wake_of_a_full_mailbox_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
