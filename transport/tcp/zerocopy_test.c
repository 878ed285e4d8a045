/*
 * The tracker of zero-copy sends: ranges that come in any order, the wrap of the kernel's numbers.
 *
 * Design notes: the kernel's side is played by synthetic ranges, because loopback always copies and
 * completes in order.
 */
#include "transport/tcp/zerocopy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void add_many(struct rsi_tcp_zerocopy *zerocopy, uint32_t count, uint64_t start_pos)
{
    for (uint32_t i = 0; i < count; i++) {
        rsi_tcp_zerocopy_add(zerocopy, start_pos + i * 4096);
    }
}

static void everything_is_free_at_first(void **state)
{
    (void)state;
    struct rsi_tcp_zerocopy zerocopy = {0};
    assert_true(rsi_tcp_zerocopy_free_pos(&zerocopy) == UINT64_MAX);
    rsi_tcp_zerocopy_add(&zerocopy, 4096);
    assert_int_equal(rsi_tcp_zerocopy_free_pos(&zerocopy), 4096);
    assert_true(rsi_tcp_zerocopy_complete(&zerocopy, 0, 0));
    assert_true(rsi_tcp_zerocopy_free_pos(&zerocopy) == UINT64_MAX);
}

static void a_range_in_the_middle_frees_nothing_yet(void **state)
{
    (void)state;
    struct rsi_tcp_zerocopy zerocopy = {0};
    add_many(&zerocopy, 5, 8192);
    assert_true(rsi_tcp_zerocopy_complete(&zerocopy, 1, 2));
    assert_int_equal(rsi_tcp_zerocopy_free_pos(&zerocopy), 8192);
    assert_true(rsi_tcp_zerocopy_complete(&zerocopy, 0, 0));
    assert_int_equal(rsi_tcp_zerocopy_free_pos(&zerocopy), 8192 + 3 * 4096);
    assert_true(rsi_tcp_zerocopy_complete(&zerocopy, 4, 4));
    assert_int_equal(rsi_tcp_zerocopy_free_pos(&zerocopy), 8192 + 3 * 4096);
    assert_true(rsi_tcp_zerocopy_complete(&zerocopy, 3, 3));
    assert_true(rsi_tcp_zerocopy_free_pos(&zerocopy) == UINT64_MAX);
}

static void a_send_that_went_on_in_the_middle_of_a_word_is_rounded_down(void **state)
{
    (void)state;
    struct rsi_tcp_zerocopy zerocopy = {0};
    rsi_tcp_zerocopy_add(&zerocopy, 8003);
    assert_int_equal(rsi_tcp_zerocopy_free_pos(&zerocopy), 8000);
}

static void numbers_that_are_not_under_way_are_refused(void **state)
{
    (void)state;
    struct rsi_tcp_zerocopy zerocopy = {0};
    assert_false(rsi_tcp_zerocopy_complete(&zerocopy, 0, 0));
    add_many(&zerocopy, 3, 0);
    assert_false(rsi_tcp_zerocopy_complete(&zerocopy, 2, 3));
    assert_false(rsi_tcp_zerocopy_complete(&zerocopy, 2, 1));
    assert_false(rsi_tcp_zerocopy_complete(&zerocopy, UINT32_MAX, 0));
    assert_int_equal(rsi_tcp_zerocopy_count(&zerocopy), 3);
    assert_true(rsi_tcp_zerocopy_complete(&zerocopy, 0, 2));
    assert_false(rsi_tcp_zerocopy_complete(&zerocopy, 0, 2));
}

static void the_tracker_is_bounded(void **state)
{
    (void)state;
    struct rsi_tcp_zerocopy zerocopy = {0};
    add_many(&zerocopy, RSI_TCP_ZEROCOPY_COUNT_MAX, 0);
    assert_false(rsi_tcp_zerocopy_has_room(&zerocopy));
    assert_true(rsi_tcp_zerocopy_complete(&zerocopy, 0, 0));
    assert_true(rsi_tcp_zerocopy_has_room(&zerocopy));
}

static void headers_of_sends_under_way_are_not_shared(void **state)
{
    (void)state;
    struct rsi_tcp_zerocopy zerocopy = {0};
    for (uint32_t i = 0; i < RSI_TCP_ZEROCOPY_COUNT_MAX; i++) {
        struct rsi_record_header *header = rsi_tcp_zerocopy_header(&zerocopy);
        assert_int_equal(header->position, 0); /* nobody has it yet */
        header->position = i + 1;
        rsi_tcp_zerocopy_add(&zerocopy, i * 8);
    }
}

/* Against a plain model: a set of numbers, over the wrap at 2^32. */
static void any_order_gives_the_same_as_a_model(void **state)
{
    (void)state;
    enum { SEND_COUNT = 20000 };
    unsigned seed = 20260101;
    struct rsi_tcp_zerocopy zerocopy = {.first_id = UINT32_MAX - 9000,
                                        .next_id = UINT32_MAX - 9000};
    uint32_t base_id = zerocopy.first_id;
    static bool is_done[SEND_COUNT];
    uint32_t added = 0;
    uint32_t oldest = 0;
    while (oldest < SEND_COUNT) {
        bool may_add = added < SEND_COUNT && rsi_tcp_zerocopy_has_room(&zerocopy);
        if (may_add && (added == oldest || rand_r(&seed) % 2 == 0)) {
            rsi_tcp_zerocopy_add(&zerocopy, (uint64_t)added * 64);
            added++;
            continue;
        }
        uint32_t first = oldest + (uint32_t)rand_r(&seed) % (added - oldest);
        if (is_done[first]) {
            first = oldest;
        }
        uint32_t last = first;
        while (last + 1 < added && !is_done[last + 1] && rand_r(&seed) % 3 != 0) {
            last++;
        }
        assert_true(rsi_tcp_zerocopy_complete(&zerocopy, base_id + first, base_id + last));
        memset(&is_done[first], true, last - first + 1);
        while (oldest < added && is_done[oldest]) {
            oldest++;
        }
        uint64_t expected_pos = oldest == added ? UINT64_MAX : (uint64_t)oldest * 64;
        if (rsi_tcp_zerocopy_free_pos(&zerocopy) != expected_pos) {
            fail_msg("seed 20260101: free position after %u sends is wrong", added);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_free_at_first),
        cmocka_unit_test(a_range_in_the_middle_frees_nothing_yet),
        cmocka_unit_test(a_send_that_went_on_in_the_middle_of_a_word_is_rounded_down),
        cmocka_unit_test(numbers_that_are_not_under_way_are_refused),
        cmocka_unit_test(the_tracker_is_bounded),
        cmocka_unit_test(headers_of_sends_under_way_are_not_shared),
        cmocka_unit_test(any_order_gives_the_same_as_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
