/*
 * What a session keeps when its link changes: every byte that is owed, once, at its position.
 */
#include "transport/testing.h"

enum { FRAME_BYTES = 48, RING_BYTES = 65536 };

struct change {
    struct rsi_test_link *from;
    struct rsi_test_link *to;
};

/* `from` has staged and placed as asked; `to` starts where the peer says it is. */
static struct change begin(uint64_t start_pos, uint32_t placed_count, uint32_t unplaced_count,
                           uint64_t peer_arrived_pos, uint64_t peer_consumed_pos)
{
    struct change change = {.from = rsi_test_link_create_attached(start_pos)};
    struct rsi_link *from = &change.from->link;
    for (uint32_t i = 0; i < placed_count; i++) {
        assert_true(rsi_test_stage(from, FRAME_BYTES));
        memset(rsi_ring_at(&from->out, from->staged_pos) - 8, (int)i + 1, 8);
    }
    rsi_link_place(from);
    for (uint32_t i = 0; i < unplaced_count; i++) {
        assert_true(rsi_test_stage(from, FRAME_BYTES));
        memset(rsi_ring_at(&from->out, from->staged_pos) - 8, (int)(placed_count + i) + 1, 8);
    }
    change.to = rsi_test_link_create_attached(peer_arrived_pos);
    const struct rsi_link_rings rings = {
        .out_bytes = RING_BYTES,
        .in_bytes = RING_BYTES,
        .out_start_pos = peer_arrived_pos,
        .out_consumed_pos = peer_consumed_pos,
        .in_start_pos = from->arrived_pos,
        .in_consumed_pos = from->consumed_pos,
    };
    assert_int_equal(rsi_link_rings_check(&rings, NULL), RSI_OK);
    rsi_link_set_start(&change.to->link, &rings);
    return change;
}

static void end(struct change *change)
{
    rsi_test_link_destroy(change->from);
    rsi_test_link_destroy(change->to);
}

/* Frames of FRAME_BYTES from `position` to `end_pos`, numbered in their last 8 bytes. */
static void check_frames(const struct rsi_ring *ring, uint64_t position, uint64_t end_pos,
                         uint64_t start_pos)
{
    while (position < end_pos) {
        struct rsi_frame frame;
        const char *why = NULL;
        assert_int_equal(rsi_frame_read(ring, position, end_pos, &frame, &why), RSI_OK);
        assert_int_equal(frame.frame_bytes, FRAME_BYTES);
        uint8_t number = (uint8_t)((position - start_pos) / FRAME_BYTES + 1);
        assert_int_equal(rsi_ring_at(ring, position + FRAME_BYTES)[-1], number);
        position += FRAME_BYTES;
    }
}

/* 40 frames placed, 9 more staged while the link was dead; the peer got `arrived` of them. */
static void check_out(uint32_t arrived_count, uint32_t consumed_count)
{
    const uint64_t start_pos = RING_BYTES * 7 - 8; /* the first frame crosses the ring's end */
    uint64_t arrived_pos = start_pos + arrived_count * FRAME_BYTES;
    uint64_t consumed_pos = start_pos + consumed_count * FRAME_BYTES;
    struct change change = begin(start_pos, 40, 9, arrived_pos, consumed_pos);
    struct rsi_link *to = &change.to->link;
    assert_int_equal(rsi_link_resume_check(&change.from->link, arrived_pos, consumed_pos, NULL),
                     RSI_OK);
    rsi_link_carry(to, &change.from->link);
    assert_int_equal(to->staged_pos, start_pos + 49 * FRAME_BYTES);
    assert_int_equal(to->placed_pos, arrived_pos);
    uint64_t word = 0;
    memcpy(&word, rsi_ring_at(&to->out, arrived_pos), sizeof(word));
    assert_int_equal(rsi_commit_frame_bytes(word, arrived_pos), 0); /* waits for place */
    rsi_link_place(to);
    assert_int_equal(rsi_link_flush(to), RSI_OK);
    check_frames(&to->out, consumed_pos, to->staged_pos, start_pos);
    end(&change);
}

static void test_what_the_peer_did_not_get_is_staged_again(void **state)
{
    (void)state;
    check_out(0, 0);
    check_out(1, 0);
    check_out(39, 20);
    check_out(40, 40);
}

/* On shm the peer looks at that word while the carry goes on: it sees a frame there or nothing. */
static void test_the_first_word_is_left_to_place(void **state)
{
    (void)state;
    struct change change = begin(0, 9, 3, 4 * FRAME_BYTES, 2 * FRAME_BYTES);
    struct rsi_ring *ring = &change.to->link.out;
    uint64_t mark = 0x5ca1ab1e;
    memcpy(rsi_ring_at(ring, 4 * FRAME_BYTES), &mark, sizeof(mark));
    rsi_link_carry(&change.to->link, &change.from->link);
    assert_memory_equal(rsi_ring_at(ring, 4 * FRAME_BYTES), &mark, sizeof(mark));
    assert_true(rsi_commit_frame_bytes(change.to->link.head_word, 4 * FRAME_BYTES) == FRAME_BYTES);
    end(&change);
}

static void test_a_peer_that_got_all_is_sent_nothing(void **state)
{
    (void)state;
    struct change change = begin(0, 5, 0, 5 * FRAME_BYTES, 0);
    rsi_link_carry(&change.to->link, &change.from->link);
    assert_int_equal(change.to->link.staged_pos, change.to->link.placed_pos);
    rsi_link_place(&change.to->link);
    assert_int_equal(change.to->place_count, 0);
    end(&change);
}

static void test_what_arrived_is_read_on(void **state)
{
    (void)state;
    struct change change = begin(4096, 0, 0, 4096, 4096);
    struct rsi_link *from = &change.from->link;
    struct rsi_link *to = &change.to->link;
    memset(rsi_ring_at(&from->in, 4096), 7, 30000);
    assert_true(rsi_link_arrived(from, 4096 + 30000));
    const struct rsi_link_rings rings = {
        .out_bytes = RING_BYTES,
        .in_bytes = RING_BYTES,
        .out_start_pos = 4096,
        .out_consumed_pos = 4096,
        .in_start_pos = from->arrived_pos,
        .in_consumed_pos = 4096, /* as it was told */
    };
    rsi_link_set_start(to, &rings);
    rsi_link_consume(from, 8000); /* while the next link was being made */
    uint32_t publish_count = change.to->publish_count;
    rsi_link_carry(to, from);
    assert_int_equal(to->consumed_pos, 4096 + 8000);
    assert_int_equal(to->arrived_pos, 4096 + 30000);
    assert_int_equal(change.to->publish_count, publish_count + 1);
    for (uint64_t at = to->consumed_pos; at < to->arrived_pos; at++) {
        assert_int_equal(*rsi_ring_at(&to->in, at), 7);
    }
    assert_int_equal(*rsi_ring_at(&to->in, to->consumed_pos - 1), 0);
    end(&change);
}

static void test_positions_that_cannot_be_true_are_refused(void **state)
{
    (void)state;
    struct change change = begin(0, 10, 3, 0, 0);
    struct rsi_link *from = &change.from->link;
    assert_true(rsi_link_peer_arrived(from, 8 * FRAME_BYTES));
    assert_true(rsi_link_peer_consumed(from, 4 * FRAME_BYTES));
    const struct {
        uint64_t arrived_pos, consumed_pos;
        rsi_status_t status;
    } cases[] = {
        {8 * FRAME_BYTES, 4 * FRAME_BYTES, RSI_OK},
        {10 * FRAME_BYTES, 10 * FRAME_BYTES, RSI_OK},
        {5 * FRAME_BYTES, 4 * FRAME_BYTES, RSI_OK}, /* less than it told: sent again */
        {11 * FRAME_BYTES, 4 * FRAME_BYTES, RSI_E_PROTOCOL},
        {8 * FRAME_BYTES, 3 * FRAME_BYTES, RSI_E_PROTOCOL},
        {4 * FRAME_BYTES, 5 * FRAME_BYTES, RSI_E_PROTOCOL},
        {8 * FRAME_BYTES + 4, 4 * FRAME_BYTES, RSI_E_PROTOCOL},
        {UINT64_MAX & ~7ull, 4 * FRAME_BYTES, RSI_E_PROTOCOL},
    };
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        struct rsi_error error = {0};
        assert_int_equal(
            rsi_link_resume_check(from, cases[i].arrived_pos, cases[i].consumed_pos, &error),
            cases[i].status);
        assert_true((error.text[0] != '\0') == (cases[i].status != RSI_OK));
    }
    end(&change);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_peer_did_not_get_is_staged_again),
        cmocka_unit_test(test_the_first_word_is_left_to_place),
        cmocka_unit_test(test_a_peer_that_got_all_is_sent_nothing),
        cmocka_unit_test(test_what_arrived_is_read_on),
        cmocka_unit_test(test_positions_that_cannot_be_true_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
