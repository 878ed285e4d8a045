/*
 * Peers that are not Ringside, or that break the protocol: each ends its link, with a text that
 * says what was wrong, and nothing else.
 *
 * Design notes: the peer is a plain blocking socket of the same thread. What it sends fits into the
 * socket's buffers, so it never blocks.
 */
#include "core/clock.h"
#include "transport/tcp/tcp_fixture.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RING_BYTES = 65536 };

static int set_up(void **state)
{
    static struct fixture fixture;
    struct rsi_domain_options options = {.node = -1, .connect_timeout_ns = 300000000};
    fixture_init(&fixture, NULL, &options);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    fixture_fini(*state);
    return 0;
}

static void greet(struct fixture *fixture, struct rsi_greeting *greeting)
{
    struct rsi_domain_options options = {0};
    rsi_greeting_init(greeting, &options);
    fixture_connect_stranger(fixture);
}

static void send_greeting(struct fixture *fixture, const struct rsi_greeting *greeting)
{
    fixture_stranger_record(fixture, RSI_RECORD_GREETING, sizeof(*greeting), 0, greeting,
                            sizeof(*greeting));
}

/* Reads until the other side closes; returns how many bytes came. */
static size_t drain_stranger(struct fixture *fixture)
{
    uint8_t bytes[256];
    size_t total_bytes = 0;
    ssize_t received_bytes;
    while ((received_bytes = recv(fixture->stranger_fd, bytes, sizeof(bytes), 0)) > 0) {
        total_bytes += (size_t)received_bytes;
    }
    return total_bytes;
}

/* ---- before the greeting --------------------------------------------------------------------- */

static void a_web_browser_is_named_and_learns_nothing(void **state)
{
    struct fixture *fixture = *state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    fixture_connect_stranger(fixture);
    fixture_stranger_send(fixture, request, strlen(request));
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "'GET / HTTP/1.1..");
    assert_int_equal(drain_stranger(fixture), 0);
}

static void one_wrong_byte_is_enough(void **state)
{
    struct fixture *fixture = *state;
    fixture_connect_stranger(fixture);
    fixture_stranger_send(fixture, "\x16", 1); /* a TLS client hello begins with it */
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "does not speak Ringside");
}

static void a_wrong_magic_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_greeting greeting;
    greet(fixture, &greeting);
    greeting.magic ^= UINT64_C(1) << 63;
    send_greeting(fixture, &greeting);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "does not speak Ringside");
}

static void an_oversize_greeting_is_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_connect_stranger(fixture);
    fixture_stranger_record(fixture, RSI_RECORD_GREETING, 1u << 30, 0, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "does not speak Ringside");
}

static void another_version_gets_our_greeting_and_both_versions_are_named(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_greeting greeting;
    greet(fixture, &greeting);
    greeting.version_min = 7;
    greeting.version_max = 9;
    send_greeting(fixture, &greeting);
    fixture_expect_lost(fixture, RSI_E_VERSION, "7 to 9");
    assert_int_equal(drain_stranger(fixture), RSI_TCP_GREETING_BYTES);
}

static void silence_after_a_part_of_the_greeting_times_out(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_greeting greeting;
    greet(fixture, &greeting);
    struct rsi_record_header header = {.kind = RSI_RECORD_GREETING, .bytes = sizeof(greeting)};
    fixture_stranger_send(fixture, &header, sizeof(header));
    fixture_expect_lost(fixture, RSI_E_TIMED_OUT, "sent 16 of the 72 bytes");
    assert_int_equal(drain_stranger(fixture), 0);
}

static void an_end_before_the_greeting_is_told(void **state)
{
    struct fixture *fixture = *state;
    fixture_connect_stranger(fixture);
    shutdown(fixture->stranger_fd, SHUT_WR);
    fixture_expect_lost(fixture, RSI_E_LINK_LOST, "before it had greeted");
}

static void a_greeting_in_single_bytes_is_fine(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_greeting greeting;
    greet(fixture, &greeting);
    struct rsi_record_header header = {.kind = RSI_RECORD_GREETING, .bytes = sizeof(greeting)};
    uint8_t record[RSI_TCP_GREETING_BYTES];
    memcpy(record, &header, sizeof(header));
    memcpy(record + sizeof(header), &greeting, sizeof(greeting));
    for (size_t i = 0; i < sizeof(record); i++) {
        assert_int_equal(rsi_link_state(fixture->server), RSI_LINK_CONNECTING);
        fixture_stranger_send(fixture, record + i, 1);
        fixture_pump(fixture);
    }
    fixture_pump_until(fixture, rsi_link_state(fixture->server) == RSI_LINK_OPEN);
    assert_int_equal(fixture->server->peer_greeting.nonce, greeting.nonce);
}

/* ---- after it -------------------------------------------------------------------------------- */

static void a_batch_at_a_wrong_position_is_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, 64, 8, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "a batch at position 8 where 0 was due");
}

static void a_batch_beyond_its_credit_is_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, RING_BYTES + 8, 0, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "beyond its credit, bytes 65544");
}

static void credit_counts_what_is_not_consumed(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t zeros[RING_BYTES / 2];
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, sizeof(zeros), 0, zeros, sizeof(zeros));
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, sizeof(zeros) + 8, sizeof(zeros), NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "beyond its credit, bytes 32776");
    assert_int_equal(fixture->server->arrived_pos, sizeof(zeros));
}

static void odd_and_empty_batches_are_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, 12, 0, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "no multiple of 8: 12");
}

static void an_empty_batch_is_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, 0, 0, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "no multiple of 8: 0");
}

static void a_batch_before_the_rings_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_greeting greeting;
    greet(fixture, &greeting);
    send_greeting(fixture, &greeting);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, 64, 0, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "at most 0 is allowed");
}

static void an_oversize_control_message_is_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_CONTROL, RSI_CONTROL_BYTES_MAX + 1, 0, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "a control message of bytes 513");
}

static void unknown_and_misplaced_records_are_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, 99, 0, 0, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "a record of unknown kind 99");
}

static void a_second_greeting_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_greeting greeting = {0};
    fixture_stranger_attach(fixture, RING_BYTES);
    send_greeting(fixture, &greeting);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "a record of unknown kind 1 ");
}

static void a_second_attach_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_attach attach = {0};
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_ATTACH, sizeof(attach), 0, &attach, sizeof(attach));
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "attach records");
}

static void a_record_of_a_wrong_length_is_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_POSITIONS, 24, 0, NULL, 0);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "a record with bytes 24 where 16 was due");
}

static void positions_of_bytes_never_sent_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_positions positions = {.arrived_pos = 8};
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_POSITIONS, sizeof(positions), 0, &positions,
                            sizeof(positions));
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "an arrived position 8");
}

static void control_messages_beyond_the_credit_are_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_stranger_attach(fixture, RING_BYTES);
    for (uint32_t i = 0; i <= RSI_CONTROL_SLOT_COUNT; i++) {
        fixture_stranger_record(fixture, RSI_RECORD_CONTROL, 1, 0, "x", 1);
    }
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "has credit for: 65, at most 64");
}

static void control_messages_never_sent_cannot_have_been_taken(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_positions positions = {0};
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_POSITIONS, sizeof(positions), 1, &positions,
                            sizeof(positions));
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "a count of control messages taken of 1");
}

static void a_greeting_without_control_credit_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_greeting greeting;
    greet(fixture, &greeting);
    greeting.control_credit = 0;
    send_greeting(fixture, &greeting);
    fixture_expect_lost(fixture, RSI_E_PROTOCOL, "takes no control messages");
}

static void an_end_in_the_middle_of_a_batch_shows_nothing_of_it(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t zeros[256];
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, 64, 0, zeros, 64);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, 1024, 64, zeros, sizeof(zeros));
    shutdown(fixture->stranger_fd, SHUT_WR);
    fixture_expect_lost(fixture, RSI_E_LINK_LOST, "in the middle of a record");
    assert_int_equal(fixture->server->arrived_pos, 64);
}

static void a_reset_is_told_after_what_came_before_it(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t zeros[64];
    fixture_stranger_attach(fixture, RING_BYTES);
    fixture_stranger_record(fixture, RSI_RECORD_BATCH, 64, 0, zeros, 64);
    struct linger at_once = {.l_onoff = 1};
    setsockopt(fixture->stranger_fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(fixture->stranger_fd);
    fixture->stranger_fd = -1;
    fixture_expect_lost(fixture, RSI_E_LINK_LOST, "the connection broke");
    assert_int_equal(fixture->server->arrived_pos, 64);
}

/* Records cut at every byte, several per receive: the reader understands them all the same. */
static void records_in_pieces_of_any_size_are_understood(void **state)
{
    struct fixture *fixture = *state;
    enum { BATCH_BYTES = 72, BATCH_COUNT = 200 };
    fixture_stranger_attach(fixture, RING_BYTES);
    static uint8_t stream[BATCH_COUNT * (16 + BATCH_BYTES + 16 + 5)];
    size_t bytes = 0;
    for (uint32_t i = 0; i < BATCH_COUNT; i++) {
        struct rsi_record_header batch = {
            .kind = RSI_RECORD_BATCH, .bytes = BATCH_BYTES, .position = i * BATCH_BYTES};
        memcpy(stream + bytes, &batch, sizeof(batch));
        memset(stream + bytes + sizeof(batch), (int)(i + 1), BATCH_BYTES);
        bytes += sizeof(batch) + BATCH_BYTES;
        struct rsi_record_header control = {.kind = RSI_RECORD_CONTROL, .bytes = 5};
        memcpy(stream + bytes, &control, sizeof(control));
        memset(stream + bytes + sizeof(control), (int)(i + 1), 5);
        bytes += sizeof(control) + 5;
    }
    uint32_t control_count = 0;
    for (size_t sent = 0, piece = 1; sent < bytes || control_count < BATCH_COUNT; piece += 3) {
        size_t piece_bytes = piece % 331 < bytes - sent ? piece % 331 : bytes - sent;
        fixture_stranger_send(fixture, stream + sent, piece_bytes);
        sent += piece_bytes;
        fixture_pump(fixture);
        uint32_t message_bytes;
        const uint8_t *message;
        while ((message = rsi_link_front_control(fixture->server, &message_bytes)) != NULL) {
            assert_int_equal(message_bytes, 5);
            assert_int_equal(message[4], (uint8_t)(++control_count));
            rsi_link_pop_control(fixture->server);
        }
        assert_true(piece < 1000000);
    }
    fixture_pump_until(fixture, fixture->server->arrived_pos == BATCH_COUNT * BATCH_BYTES);
    for (uint32_t i = 0; i < BATCH_COUNT * BATCH_BYTES; i++) {
        assert_int_equal(*rsi_ring_at(&fixture->server->in, i), (uint8_t)(i / BATCH_BYTES + 1));
    }
}

#define STRANGER_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STRANGER_TEST(a_web_browser_is_named_and_learns_nothing),
        STRANGER_TEST(one_wrong_byte_is_enough),
        STRANGER_TEST(a_wrong_magic_is_refused),
        STRANGER_TEST(an_oversize_greeting_is_refused),
        STRANGER_TEST(another_version_gets_our_greeting_and_both_versions_are_named),
        STRANGER_TEST(silence_after_a_part_of_the_greeting_times_out),
        STRANGER_TEST(an_end_before_the_greeting_is_told),
        STRANGER_TEST(a_greeting_in_single_bytes_is_fine),
        STRANGER_TEST(a_batch_at_a_wrong_position_is_refused),
        STRANGER_TEST(a_batch_beyond_its_credit_is_refused),
        STRANGER_TEST(credit_counts_what_is_not_consumed),
        STRANGER_TEST(odd_and_empty_batches_are_refused),
        STRANGER_TEST(an_empty_batch_is_refused),
        STRANGER_TEST(a_batch_before_the_rings_is_refused),
        STRANGER_TEST(an_oversize_control_message_is_refused),
        STRANGER_TEST(unknown_and_misplaced_records_are_refused),
        STRANGER_TEST(a_second_greeting_is_refused),
        STRANGER_TEST(a_second_attach_is_refused),
        STRANGER_TEST(a_record_of_a_wrong_length_is_refused),
        STRANGER_TEST(positions_of_bytes_never_sent_are_refused),
        STRANGER_TEST(control_messages_beyond_the_credit_are_refused),
        STRANGER_TEST(control_messages_never_sent_cannot_have_been_taken),
        STRANGER_TEST(a_greeting_without_control_credit_is_refused),
        STRANGER_TEST(an_end_in_the_middle_of_a_batch_shows_nothing_of_it),
        STRANGER_TEST(a_reset_is_told_after_what_came_before_it),
        STRANGER_TEST(records_in_pieces_of_any_size_are_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
