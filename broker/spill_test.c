/*
 * Design notes: a spill against a list that knows what it should hold, over many laps: frames come
 * out as they went in, without those that were struck out, and bytes are given back as soon as they
 * can be.
 */
#include "broker/spill.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { FRAME_MAX = 64, PAYLOAD_MAX = 900 };

struct kept {
    uint64_t sequence;
    uint64_t position;
    uint64_t frame_bytes;
    bool is_struck;
};

static uint64_t next_random(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random >> 32;
}

static void append(struct rsi_spill *spill, struct kept *kept, uint64_t sequence, uint64_t draw)
{
    uint8_t frame[RSI_FRAME_HEADER_BYTES + PAYLOAD_MAX + 8] = {0};
    struct rsi_frame_header *header = (struct rsi_frame_header *)(void *)frame;
    uint32_t payload_bytes = (uint32_t)(draw % PAYLOAD_MAX);
    header->payload_bytes = payload_bytes;
    header->type = RSI_FRAME_MESSAGE;
    header->sequence = sequence;
    memset(header + 1, (int)(sequence & 0xff), payload_bytes);
    *kept = (struct kept){.sequence = sequence,
                          .position = spill->tail_pos,
                          .frame_bytes = rsi_frame_bytes(0, payload_bytes)};
    rsi_spill_append(spill, header, kept->frame_bytes);
}

static void check_oldest(const struct rsi_spill *spill, const struct kept *kept)
{
    uint64_t next_pos = 0;
    const struct rsi_frame_header *header = rsi_spill_at(spill, spill->head_pos, &next_pos);
    assert_int_equal(spill->head_pos, kept->position);
    assert_int_equal(next_pos, kept->position + kept->frame_bytes);
    assert_int_equal(header->sequence, kept->sequence);
    assert_false(rsi_spill_is_struck(header));
    const uint8_t *payload = (const uint8_t *)(header + 1);
    for (uint32_t i = 0; i < header->payload_bytes; i++) {
        assert_int_equal(payload[i], kept->sequence & 0xff);
    }
}

static void it_holds_what_was_put_in_and_not_struck_out(void **state)
{
    (void)state;
    struct rsi_spill spill;
    struct kept kept[FRAME_MAX]; /* ring of what is in it, oldest at first % FRAME_MAX */
    uint64_t random = 88172645463325252u;
    uint64_t first = 0;
    uint64_t last = 0;
    assert_int_equal(rsi_spill_init(&spill, 5000, NULL), RSI_OK);
    assert_true(spill.ring.capacity_bytes >= 5000);
    while (spill.tail_pos < 100 * spill.ring.capacity_bytes) {
        uint64_t draw = next_random(&random);
        uint64_t room_bytes = spill.ring.capacity_bytes - rsi_spill_bytes(&spill);
        if (draw % 4 < 2 && last - first < FRAME_MAX &&
            room_bytes >= rsi_frame_bytes(0, PAYLOAD_MAX)) {
            append(&spill, &kept[last % FRAME_MAX], last + 1, draw >> 4);
            last++;
        } else if (draw % 4 == 2 && last > first) {
            struct kept *struck = &kept[(first + (draw >> 4) % (last - first)) % FRAME_MAX];
            if (!struck->is_struck) {
                struck->is_struck = true;
                rsi_spill_strike(&spill, struck->position);
            }
        } else if (last > first) {
            rsi_spill_pop(&spill);
            first++;
        }
        while (first < last && kept[first % FRAME_MAX].is_struck) {
            first++;
        }
        assert_int_equal(rsi_spill_is_empty(&spill), first == last);
        if (first < last) {
            check_oldest(&spill, &kept[first % FRAME_MAX]);
        }
    }
    rsi_spill_fini(&spill);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_holds_what_was_put_in_and_not_struck_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
