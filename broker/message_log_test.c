/*
 * Design notes: the log alone, one writer and one reader in turn. What must hold: frames come out
 * as they went in, across the ring's end, and the writer never passes the position still needed.
 */
#include "broker/message_log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LOG_BYTES 65536u

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static void frames_come_out_as_they_went_in(void **state)
{
    (void)state;
    struct rsi_message_log log;
    assert_int_equal(rsi_message_log_init(&log, "test", LOG_BYTES, -1, NULL), RSI_OK);
    uint64_t read_pos = 0;
    uint64_t written = 0;
    uint64_t read = 0;
    uint64_t write_random = 7;
    uint64_t read_random = 7;
    while (read < 20000) {
        uint64_t saved = write_random;
        uint32_t payload_bytes = next_random(&write_random) % 3000;
        uint64_t frame_bytes = rsi_frame_bytes(0, payload_bytes);
        struct rsi_frame_header *header =
            rsi_message_log_reserve(&log, frame_bytes, read_pos + LOG_BYTES);
        if (header) {
            header->payload_bytes = payload_bytes;
            header->sequence = written++;
            memset(header + 1, (int)(header->sequence & 0xff), payload_bytes);
            rsi_message_log_append(&log, frame_bytes);
            rsi_message_log_publish(&log);
            continue;
        }
        write_random = saved;
        assert_true(log.append_pos + frame_bytes - read_pos > LOG_BYTES);
        uint64_t end_pos = rsi_message_log_end_pos(&log);
        assert_true(read_pos < end_pos);
        const struct rsi_frame_header *found = rsi_message_log_at(&log, read_pos);
        assert_int_equal(rsi_commit_frame_bytes(found->commit, read_pos),
                         rsi_frame_bytes(0, found->payload_bytes));
        assert_int_equal(found->payload_bytes, next_random(&read_random) % 3000);
        assert_int_equal(found->sequence, read);
        const uint8_t *payload = (const uint8_t *)(found + 1);
        for (uint32_t i = 0; i < found->payload_bytes; i++) {
            assert_int_equal(payload[i], read & 0xff);
        }
        read_pos += rsi_commit_frame_bytes(found->commit, read_pos);
        read++;
    }
    rsi_message_log_fini(&log);
}

static void nothing_is_readable_before_publish(void **state)
{
    (void)state;
    struct rsi_message_log log;
    assert_int_equal(rsi_message_log_init(&log, "test", LOG_BYTES, -1, NULL), RSI_OK);
    struct rsi_frame_header *header =
        rsi_message_log_reserve(&log, rsi_frame_bytes(0, 1), LOG_BYTES);
    assert_non_null(header);
    header->payload_bytes = 1;
    rsi_message_log_append(&log, rsi_frame_bytes(0, 1));
    assert_int_equal(rsi_message_log_end_pos(&log), 0);
    rsi_message_log_publish(&log);
    assert_int_equal(rsi_message_log_end_pos(&log), rsi_frame_bytes(0, 1));
    rsi_message_log_fini(&log);
}

static void a_wrong_size_is_refused_with_the_next_valid_one(void **state)
{
    (void)state;
    struct rsi_message_log log;
    struct rsi_error error = {0};
    assert_int_equal(rsi_message_log_init(&log, "test", 70000, -1, &error), RSI_E_INVALID);
    assert_non_null(strstr(error.text, "131072"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_out_as_they_went_in),
        cmocka_unit_test(nothing_is_readable_before_publish),
        cmocka_unit_test(a_wrong_size_is_refused_with_the_next_valid_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
