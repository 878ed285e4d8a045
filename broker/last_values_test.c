/*
 * Design notes: the store by itself, beside an array of what it must hold. What must hold: a value
 * comes out as it went in, whatever its size was before; no block is lost; a value too many is not
 * kept, and neither is the one before it.
 */
#include "broker/last_values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOPIC_COUNT = 8, BLOCK_COUNT = 64, FRAME_BYTES_MAX = 2048, STEP_COUNT = 20000 };

struct fixture {
    struct rsi_last_values store;
    struct rsi_topic topics[TOPIC_COUNT];
    struct rsi_publication publications[TOPIC_COUNT * 2];
    uint64_t frame[FRAME_BYTES_MAX / 8];
    uint64_t random;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    assert_int_equal(
        rsi_last_values_init(&fixture->store, TOPIC_COUNT, BLOCK_COUNT * 128, RSI_NODE_ANY, NULL),
        RSI_OK);
    for (uint32_t i = 0; i < TOPIC_COUNT; i++) {
        rsi_last_values_add_topic(&fixture->store, &fixture->topics[i]);
        rsi_last_values_add_topic(&fixture->store, &fixture->topics[i]);
        assert_int_equal(fixture->topics[i].last_value, i + 1);
    }
    fixture->random = 1;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    rsi_last_values_fini(&fixture->store);
    free(fixture);
    return 0;
}

static uint64_t draw(struct fixture *fixture, uint64_t below)
{
    fixture->random ^= fixture->random << 13;
    fixture->random ^= fixture->random >> 7;
    fixture->random ^= fixture->random << 17;
    return (fixture->random >> 16) % below;
}

static void fill(struct fixture *fixture, uint64_t frame_bytes, uint8_t value)
{
    memset(fixture->frame, value, frame_bytes);
}

static struct rsi_publication *update(struct fixture *fixture, uint32_t topic, uint32_t publication,
                                      uint64_t frame_bytes, uint64_t position)
{
    struct rsi_publication *replaced = NULL;
    rsi_last_values_update(
        &fixture->store, &fixture->topics[topic], &fixture->publications[publication],
        (const struct rsi_frame_header *)fixture->frame, frame_bytes, 1, position, &replaced);
    if (replaced) {
        rsi_fetch_add_acq_rel(&replaced->kept_count, UINT32_MAX);
    }
    return replaced;
}

static void values_come_out_as_they_went_in(void **state)
{
    struct fixture *fixture = *state;
    uint64_t bytes_of[TOPIC_COUNT] = {0};
    uint8_t value_of[TOPIC_COUNT] = {0};
    uint32_t publication_of[TOPIC_COUNT] = {0};
    uint64_t overflow_count = 0;
    for (uint32_t step = 1; step <= STEP_COUNT; step++) {
        uint32_t topic = (uint32_t)draw(fixture, TOPIC_COUNT);
        uint64_t frame_bytes = 40 + 8 * draw(fixture, (FRAME_BYTES_MAX - 40) / 8);
        uint32_t publication = topic * 2 + (uint32_t)draw(fixture, 2);
        fill(fixture, frame_bytes, (uint8_t)step);
        struct rsi_publication *replaced = update(fixture, topic, publication, frame_bytes, step);
        const struct rsi_last_value *value =
            rsi_last_values_of(&fixture->store, &fixture->topics[topic]);
        bool had_value = bytes_of[topic] != 0;
        if (!value->publication) {
            assert_int_equal(fixture->store.overflow_count, ++overflow_count);
            assert_null(value->blocks);
            assert_true((replaced != NULL) == had_value);
            bytes_of[topic] = 0;
        } else {
            bool has_changed = had_value && publication != publication_of[topic];
            assert_true((replaced != NULL) == has_changed);
            assert_int_equal(value->position, step);
            bytes_of[topic] = frame_bytes;
            value_of[topic] = (uint8_t)step;
            publication_of[topic] = publication;
        }
        uint32_t block_count = 0;
        for (uint32_t i = 0; i < TOPIC_COUNT; i++) {
            uint8_t copy[FRAME_BYTES_MAX];
            value = rsi_last_values_of(&fixture->store, &fixture->topics[i]);
            block_count += value->block_count;
            assert_true((value->publication != NULL) == (bytes_of[i] != 0));
            if (!value->publication) {
                continue;
            }
            assert_int_equal(value->frame_bytes, bytes_of[i]);
            assert_ptr_equal(value->publication, &fixture->publications[publication_of[i]]);
            rsi_last_value_copy(value, (struct rsi_frame_header *)(void *)copy);
            for (uint64_t at = 8; at < bytes_of[i]; at++) {
                assert_int_equal(copy[at], value_of[i]);
            }
        }
        assert_int_equal(block_count + fixture->store.blocks.free_count, BLOCK_COUNT);
    }
    assert_true(overflow_count > 0);
    for (uint32_t i = 0; i < TOPIC_COUNT * 2; i++) {
        bool is_kept = bytes_of[i / 2] != 0 && publication_of[i / 2] == i;
        assert_int_equal(rsi_load_relaxed(&fixture->publications[i].kept_count), is_kept);
    }
}

static void slots_of_retired_topics_are_used_again(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_topic other = {0};
    rsi_last_values_remove_topic(&fixture->store, &fixture->topics[3]);
    rsi_last_values_remove_topic(&fixture->store, &fixture->topics[3]);
    assert_int_equal(fixture->topics[3].last_value, 0);
    assert_int_equal(fixture->store.topic_count, TOPIC_COUNT - 1);
    rsi_last_values_add_topic(&fixture->store, &other);
    assert_int_equal(other.last_value, 4);
    assert_int_equal(fixture->store.slot_count, TOPIC_COUNT);
}

static void no_topics_no_store(void **state)
{
    (void)state;
    struct rsi_last_values store;
    assert_int_equal(rsi_last_values_init(&store, 0, 0, RSI_NODE_ANY, NULL), RSI_OK);
    assert_null(store.values);
    rsi_last_values_fini(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values_come_out_as_they_went_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(slots_of_retired_topics_are_used_again, set_up, tear_down),
        cmocka_unit_test(no_topics_no_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
