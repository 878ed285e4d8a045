/*
 * Publishing into an out ring that the test looks at: what the frames hold, when they are emitted,
 * and that nothing is left behind by what did not happen.
 */
#include "clients/c/link_testing.h"

#include "core/clock.h"
#include "transport/frame.h"

struct fixture {
    struct link_testing testing;
    struct ringside_publisher publisher;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    link_testing_init(&fixture->testing);
    fixture->publisher.client = &fixture->testing.client;
    fixture->publisher.object.state = RSI_OBJECT_OPEN;
    fixture->publisher.alias = 3;
    snprintf(fixture->publisher.subject, sizeof(fixture->publisher.subject), "a.b");
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    link_testing_fini(&fixture->testing);
    free(fixture);
    return 0;
}

/* The frame at `position` of the out ring, read as a broker reads it. */
static struct rsi_frame frame_at(struct fixture *fixture, uint64_t position)
{
    struct rsi_frame frame;
    const char *why = NULL;
    if (rsi_frame_read(&fixture->testing.link.out, position, fixture->testing.link.placed_pos,
                       &frame, &why) != RSI_OK) {
        fail_msg("frame at %llu: %s", (unsigned long long)position, why);
    }
    return frame;
}

static void test_frame(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_link *link = &fixture->testing.link;
    /* An older lap: nothing of it may go out again. */
    memset(link->out.base, 0xee, LINK_TESTING_RING_BYTES);
    uint64_t before_ns = rsi_clock_realtime_ns();
    assert_int_equal(ringside_publish(&fixture->publisher, "hello", 5), RINGSIDE_OK);
    uint64_t after_ns = rsi_clock_realtime_ns();
    struct rsi_frame frame = frame_at(fixture, 0);
    assert_int_equal(frame.frame_bytes, 48);
    assert_int_equal(frame.header.type, RSI_FRAME_MESSAGE);
    assert_int_equal(frame.header.flags, 0);
    assert_int_equal(frame.header.headers_bytes, 0);
    assert_int_equal(frame.header.payload_bytes, 5);
    assert_int_equal(frame.header.publication, 3);
    assert_int_equal(frame.header.generation, 0);
    assert_int_equal(frame.header.entry_count, 0);
    assert_int_equal(frame.header.sequence, 0);
    assert_true(frame.header.publish_time_ns >= before_ns);
    assert_true(frame.header.publish_time_ns <= after_ns);
    assert_memory_equal(frame.payload, "hello\0\0\0", 8);
    assert_int_equal(fixture->testing.flush_count, 1);
}

static void test_claim_is_in_place(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_link *link = &fixture->testing.link;
    void *buffer = NULL;
    assert_int_equal(ringside_claim(&fixture->publisher, 100, &buffer), RINGSIDE_OK);
    assert_ptr_equal(buffer, link->out.base + RSI_FRAME_HEADER_BYTES);
    memset(buffer, 'q', 100);
    ringside_abort(&fixture->publisher);
    assert_int_equal(link->staged_pos, 0);
    assert_int_equal(link->placed_pos, 0);

    assert_int_equal(ringside_claim(&fixture->publisher, 100, &buffer), RINGSIDE_OK);
    memset(buffer, 'r', 100);
    assert_int_equal(ringside_commit(&fixture->publisher, 3), RINGSIDE_OK);
    struct rsi_frame frame = frame_at(fixture, 0);
    assert_int_equal(frame.header.payload_bytes, 3);
    assert_memory_equal(frame.payload, "rrr\0\0\0\0\0", 8);
    assert_int_equal(link->placed_pos, 48);
}

/* The layout of LAYOUT.md, byte by byte, over what an older lap left. */
static void test_headers(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_link *link = &fixture->testing.link;
    const ringside_header_t headers[] = {{"Ab", "xyz", 3}, {"c", NULL, 0}};
    static const uint8_t expected[24] = {2,   0, 3, 0, 'A', 'b', 0, 'x', 'y',
                                         'z', 1, 0, 0, 0,   'c', 0, 0,   0};
    memset(link->out.base, 0xee, LINK_TESTING_RING_BYTES);
    assert_int_equal(ringside_publish_with(&fixture->publisher, headers, 2, "hello", 5),
                     RINGSIDE_OK);
    struct rsi_frame frame = frame_at(fixture, 0);
    assert_int_equal(frame.frame_bytes, 40 + 16 + 8);
    assert_int_equal(frame.header.headers_bytes, 16);
    assert_int_equal(frame.header.payload_bytes, 5);
    assert_memory_equal(frame.headers, expected, 16);
    assert_memory_equal(frame.payload, "hello\0\0\0", 8);

    void *buffer = NULL;
    assert_int_equal(ringside_claim_with(&fixture->publisher, headers, 1, 64, &buffer),
                     RINGSIDE_OK);
    assert_ptr_equal(buffer, link->out.base + 64 + RSI_FRAME_HEADER_BYTES + 16);
    memcpy(buffer, "hi", 2);
    assert_int_equal(ringside_commit(&fixture->publisher, 2), RINGSIDE_OK);
    frame = frame_at(fixture, 64);
    assert_int_equal(frame.frame_bytes, 40 + 16 + 8);
    assert_memory_equal(frame.headers, "\2\0\3\0Ab\0xyz\0\0\0\0\0\0", 16);
    assert_memory_equal(frame.payload, "hi\0\0\0\0\0\0", 8);
}

static void test_full_ring(void **state)
{
    struct fixture *fixture = *state;
    struct link_testing *testing = &fixture->testing;
    uint8_t data[16000] = {0};
    uint32_t count = 0;
    ringside_status_t status;
    while ((status = ringside_publish(&fixture->publisher, data, sizeof(data))) == RINGSIDE_OK) {
        assert_true(++count < 100);
    }
    assert_int_equal(status, RINGSIDE_WOULD_BLOCK);
    assert_int_equal(count, (LINK_TESTING_RING_BYTES - RSI_RING_GUARD_BYTES) / 16040);
    assert_int_equal(testing->client.room_wanted_bytes, 16040);
    uint64_t full_pos = testing->link.staged_pos;

    /* Nothing was taken; and room is seen inside publish, without a poll by the application. */
    assert_int_equal(ringside_publish(&fixture->publisher, data, sizeof(data)),
                     RINGSIDE_WOULD_BLOCK);
    assert_int_equal(testing->link.staged_pos, full_pos);
    testing->polled_consumed_pos = 16040;
    assert_int_equal(ringside_publish(&fixture->publisher, data, sizeof(data)), RINGSIDE_OK);
    assert_int_equal(testing->client.room_wanted_bytes, 0);
    assert_int_equal(testing->client.totals.full_events, 2);
}

/* Behind a batch under way messages wait, but not for ever. */
static void test_overdue_emission(void **state)
{
    struct fixture *fixture = *state;
    struct link_testing *testing = &fixture->testing;
    testing->stays_under_way = true;
    assert_int_equal(ringside_publish(&fixture->publisher, "1", 1), RINGSIDE_OK);
    assert_int_equal(testing->flush_count, 1);
    assert_true(testing->link.under_way);

    /* As if the last emission were long ago: the publish polls the link and emits. */
    testing->client.emit_due_ns = rsi_clock_now_ns() - 1;
    assert_int_equal(ringside_publish(&fixture->publisher, "2", 1), RINGSIDE_OK);
    assert_int_equal(testing->poll_count, 1);
    assert_int_equal(testing->flush_count, 2);
    assert_int_equal(testing->link.flushed_pos, testing->link.placed_pos);
    uint64_t now_ns = rsi_clock_now_ns();
    assert_true(testing->client.emit_due_ns > now_ns - RSI_CLIENT_EMIT_INTERVAL_MAX_NS);
    assert_true(testing->client.emit_due_ns <= now_ns + RSI_CLIENT_EMIT_INTERVAL_MAX_NS);
}

static void test_refusals(void **state)
{
    struct fixture *fixture = *state;
    struct ringside_client *client = &fixture->testing.client;
    void *buffer = NULL;
    assert_int_equal(ringside_publish(&fixture->publisher, NULL, client->message_bytes_max + 1),
                     RINGSIDE_E_TOO_LARGE);
    assert_non_null(strstr(ringside_error_text(client), "16385"));
    assert_non_null(strstr(ringside_error_text(client), "at most 16384"));
    assert_int_equal(ringside_commit(&fixture->publisher, 0), RINGSIDE_E_STATE);

    struct rsi_error error = {0};
    (void)rsi_fail(&error, RSI_E_IO, "cable");
    assert_int_equal(ringside_claim(&fixture->publisher, 8, &buffer), RINGSIDE_OK);
    rsi_client_end(client, RSI_E_LINK_LOST, &error);
    assert_int_equal(ringside_commit(&fixture->publisher, 8), RINGSIDE_E_LOST);
    assert_int_equal(ringside_publish(&fixture->publisher, "x", 1), RINGSIDE_E_LOST);
    assert_non_null(strstr(ringside_error_text(client), "cable"));
    assert_int_equal(fixture->testing.link.staged_pos, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_frame),     TEST(test_claim_is_in_place), TEST(test_headers),
        TEST(test_full_ring), TEST(test_overdue_emission),  TEST(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
