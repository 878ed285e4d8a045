/*
 * The table of what a reader lacks, against a plain array of flags.
 */
#include "transport/dpdk/gaps.h"

#include "core/testing.h"

#define UNIT_COUNT 512u

/* Units that have come, as the model knows them; a unit is 8 bytes. */
struct model {
    bool has[UNIT_COUNT];
    uint32_t high;
};

static uint64_t next_random(uint64_t *state, uint64_t bound)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*state >> 33) % bound;
}

static uint32_t model_received(const struct model *model)
{
    uint32_t unit = 0;
    while (unit < model->high && model->has[unit]) {
        unit++;
    }
    return unit;
}

static void check_table(const struct rsi_gaps *gaps, const struct model *model)
{
    bool lacks[UNIT_COUNT] = {false};
    uint64_t before_pos = 0;
    for (uint32_t i = 0; i < gaps->count; i++) {
        const struct rsi_gap_range *gap = &gaps->list[i];
        assert_true(gap->start_pos < gap->end_pos && gap->end_pos <= gaps->high_pos);
        assert_true(i == 0 || gap->start_pos > before_pos); /* sorted, none touches the next */
        before_pos = gap->end_pos;
        for (uint64_t pos = gap->start_pos; pos < gap->end_pos; pos += 8) {
            lacks[pos / 8] = true;
        }
    }
    for (uint32_t unit = 0; unit < model->high; unit++) {
        assert_int_equal(lacks[unit], !model->has[unit]);
    }
    assert_int_equal(gaps->high_pos, (uint64_t)model->high * 8);
    assert_int_equal(rsi_gaps_received_pos(gaps), (uint64_t)model_received(model) * 8);
}

/* A datagram with [start, end) units comes, as receive.c would take it. */
static void arrive(struct rsi_gaps *gaps, struct model *model, uint32_t start, uint32_t end)
{
    if ((uint64_t)start * 8 > gaps->high_pos) {
        if (!rsi_gaps_raise(gaps, (uint64_t)start * 8, 1, 1)) {
            return; /* the table is full: as if it had been lost */
        }
        model->high = start;
    }
    uint64_t pos = (uint64_t)start * 8;
    struct rsi_datagram_range part;
    while (rsi_gaps_take(gaps, &pos, (uint64_t)end * 8, &part)) {
        for (uint64_t at = part.start_pos; at < part.end_pos; at += 8) {
            assert_false(model->has[at / 8]); /* nothing is taken twice */
            model->has[at / 8] = true;
        }
    }
    model->high = (uint32_t)(gaps->high_pos / 8);
}

static void test_any_order_against_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t random = seed;
        struct rsi_gaps gaps;
        struct model model = {.high = 0};
        rsi_gaps_init(&gaps, 0);
        uint32_t length_max = seed % 3 == 0 ? 2 : 30; /* short ones fill the table */
        for (uint32_t i = 0; i < 400; i++) {
            uint32_t start = (uint32_t)next_random(&random, UNIT_COUNT - length_max);
            uint32_t end = start + 1 + (uint32_t)next_random(&random, length_max);
            arrive(&gaps, &model, start, end);
            check_table(&gaps, &model);
        }
    }
}

static void test_asked_after_three_later_ones_or_in_time(void **state)
{
    (void)state;
    struct rsi_gaps gaps;
    struct rsi_datagram_range ranges[RSI_DATAGRAM_RANGE_COUNT_MAX];
    rsi_gaps_init(&gaps, 0);
    assert_true(rsi_gaps_raise(&gaps, 800, 10, 1000)); /* datagram 10 showed it; due at 1000 */
    assert_int_equal(rsi_gaps_ask(&gaps, 10, 500, 400, ranges), 0);
    assert_int_equal(rsi_gaps_ask(&gaps, 11, 500, 400, ranges), 0);
    assert_true(rsi_gaps_are_due(&gaps, 12, 500));
    assert_int_equal(rsi_gaps_ask(&gaps, 12, 500, 400, ranges), 1);
    assert_int_equal(ranges[0].start_pos, 0);
    assert_int_equal(ranges[0].end_pos, 800);
    /* Not again before its time, whatever comes. */
    assert_int_equal(rsi_gaps_ask(&gaps, 99, 899, 400, ranges), 0);
    assert_int_equal(rsi_gaps_due_ns(&gaps), 900);
    assert_int_equal(rsi_gaps_ask(&gaps, 99, 900, 400, ranges), 1);

    rsi_gaps_init(&gaps, 0);
    assert_true(rsi_gaps_raise(&gaps, 8, 10, 1000));
    assert_int_equal(rsi_gaps_ask(&gaps, 10, 1000, 400, ranges), 1);
}

static void test_full_table_gives_up_what_is_too_much(void **state)
{
    (void)state;
    struct rsi_gaps gaps;
    struct rsi_datagram_range part;
    rsi_gaps_init(&gaps, 0);
    for (uint64_t i = 0; i < RSI_GAP_COUNT_MAX; i++) {
        uint64_t pos = 32 * i + 16;
        assert_true(rsi_gaps_raise(&gaps, pos, i, 0));
        assert_true(rsi_gaps_take(&gaps, &pos, pos + 16, &part));
    }
    assert_false(rsi_gaps_raise(&gaps, gaps.high_pos + 8, 99, 0));
    uint64_t pos = 8; /* in the middle of the first gap there is no byte to spare: 0 to 16 */
    assert_true(rsi_gaps_take(&gaps, &pos, 16, &part));
    assert_int_equal(gaps.count, RSI_GAP_COUNT_MAX);
    pos = 0;
    assert_true(rsi_gaps_take(&gaps, &pos, 8, &part));
    assert_int_equal(gaps.count, RSI_GAP_COUNT_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_order_against_the_model),
        cmocka_unit_test(test_asked_after_three_later_ones_or_in_time),
        cmocka_unit_test(test_full_table_gives_up_what_is_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
