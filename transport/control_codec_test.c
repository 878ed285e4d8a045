/*
 * Design notes
 * - Two bare links with mailboxes and no transport: the test itself carries messages from one's
 *   outbox to the other's inbox, as an owner thread would.
 */
#include "transport/control_codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SLOT_COUNT 4u

struct fixture {
    struct rsi_link near;
    struct rsi_link far;
    struct rsi_control_receiver receiver;
    struct rsi_poller poller;
};

static int fixture_make(void **state)
{
    static struct fixture fixture;
    memset(&fixture, 0, sizeof(fixture));
    struct rsi_link *links[] = {&fixture.near, &fixture.far};
    for (size_t index = 0; index < rsi_array_count(links); index++) {
        links[index]->poller = &fixture.poller;
        rsi_store_relaxed(&links[index]->state, RSI_LINK_OPEN);
        if (rsi_mailbox_init(&links[index]->inbox, RSI_CONTROL_BYTES_MAX, SLOT_COUNT, NULL) ||
            rsi_mailbox_init(&links[index]->outbox, RSI_CONTROL_BYTES_MAX, SLOT_COUNT, NULL)) {
            return -1;
        }
    }
    *state = &fixture;
    return 0;
}

static int fixture_drop(void **state)
{
    struct fixture *fixture = *state;
    rsi_mailbox_fini(&fixture->near.inbox);
    rsi_mailbox_fini(&fixture->near.outbox);
    rsi_mailbox_fini(&fixture->far.inbox);
    rsi_mailbox_fini(&fixture->far.outbox);
    return 0;
}

static uint32_t carry(struct fixture *fixture)
{
    uint32_t bytes = 0;
    uint32_t count = 0;
    const void *piece;
    while ((piece = rsi_mailbox_front(&fixture->near.outbox, &bytes)) != NULL) {
        assert_true(bytes <= RSI_CONTROL_BYTES_MAX);
        assert_int_equal(rsi_mailbox_push(&fixture->far.inbox, piece, bytes), RSI_OK);
        rsi_mailbox_pop(&fixture->near.outbox);
        count++;
    }
    return count;
}

static rsi_status_t send_bye(struct rsi_link *link, char *text)
{
    Ringside__Control__Bye bye = RINGSIDE__CONTROL__BYE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    bye.text = text;
    bye.end_pos = 4711;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_BYE;
    message.bye = &bye;
    return rsi_control_send(link, &message);
}

static void expect_bye(struct fixture *fixture, const char *text)
{
    Ringside__Control__Control *message = NULL;
    struct rsi_error error = {0};
    assert_int_equal(rsi_control_receive(&fixture->receiver, &fixture->far, &message, &error),
                     RSI_OK);
    assert_int_equal(message->body_case, RINGSIDE__CONTROL__CONTROL__BODY_BYE);
    assert_string_equal(message->bye->text, text);
    assert_int_equal(message->bye->end_pos, 4711);
    rsi_control_free(message);
}

static void test_short_message_is_one_piece(void **state)
{
    struct fixture *fixture = *state;
    Ringside__Control__Control *message = NULL;
    assert_int_equal(rsi_control_receive(&fixture->receiver, &fixture->far, &message, NULL),
                     RSI_WOULD_BLOCK);
    assert_int_equal(send_bye(&fixture->near, "so long"), RSI_OK);
    assert_int_equal(carry(fixture), 1);
    expect_bye(fixture, "so long");
}

/* Texts of all lengths around the borders of one and two pieces, two messages at a time. */
static void test_pieces(void **state)
{
    struct fixture *fixture = *state;
    for (size_t length = 470; length < 1030; length += length < 515 ? 1 : 37) {
        char text[1100] = "";
        memset(text, 'x', length);
        assert_int_equal(send_bye(&fixture->near, text), RSI_OK);
        assert_int_equal(send_bye(&fixture->near, "next"), RSI_OK);
        carry(fixture);
        expect_bye(fixture, text);
        expect_bye(fixture, "next");
    }
}

static void test_all_pieces_or_none(void **state)
{
    struct fixture *fixture = *state;
    char text[700] = "";
    memset(text, 'y', sizeof(text) - 1);
    for (uint32_t index = 0; index + 1 < SLOT_COUNT; index++) {
        assert_int_equal(send_bye(&fixture->near, "short"), RSI_OK);
    }
    assert_int_equal(send_bye(&fixture->near, text), RSI_WOULD_BLOCK);
    assert_int_equal(rsi_load_relaxed(&fixture->near.outbox_full), 1);
    assert_int_equal(carry(fixture), SLOT_COUNT - 1);
    for (uint32_t index = 0; index + 1 < SLOT_COUNT; index++) {
        expect_bye(fixture, "short");
    }
    assert_int_equal(send_bye(&fixture->near, text), RSI_OK);
    assert_int_equal(carry(fixture), 2);
    expect_bye(fixture, text);
}

static void test_too_large_to_send(void **state)
{
    struct fixture *fixture = *state;
    char text[RSI_CONTROL_MESSAGE_BYTES_MAX + 1] = "";
    memset(text, 'z', sizeof(text) - 1);
    assert_int_equal(send_bye(&fixture->near, text), RSI_E_TOO_LARGE);
    assert_int_equal(carry(fixture), 0);
}

static rsi_status_t decode(struct fixture *fixture, const void *piece, uint32_t bytes,
                           struct rsi_error *error)
{
    Ringside__Control__Control *message = NULL;
    rsi_status_t status =
        rsi_control_decode_piece(&fixture->receiver, piece, bytes, &message, error);
    if (status != RSI_OK) {
        assert_null(message);
    }
    rsi_control_free(message);
    return status;
}

static void test_garbage_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_error error = {0};
    uint8_t piece[RSI_CONTROL_BYTES_MAX + 1] = {0};

    assert_int_equal(decode(fixture, piece, 0, &error), RSI_E_PROTOCOL);
    assert_int_equal(decode(fixture, piece, RSI_CONTROL_BYTES_MAX + 1, &error), RSI_E_PROTOCOL);

    piece[0] = 2;
    assert_int_equal(decode(fixture, piece, 10, &error), RSI_E_PROTOCOL);
    assert_non_null(strstr(error.text, "begins with byte 2"));

    piece[0] = 1;
    assert_int_equal(decode(fixture, piece, 1, &error), RSI_E_PROTOCOL);
    assert_non_null(strstr(error.text, "empty piece"));

    /* A message without a body. */
    piece[0] = 0;
    assert_int_equal(decode(fixture, piece, 1, &error), RSI_E_PROTOCOL);
    assert_non_null(strstr(error.text, "without a body"));

    /* A field whose length goes beyond the message. */
    const uint8_t cut[] = {0, 0x6a, 0x7f, 1, 2};
    assert_int_equal(decode(fixture, cut, sizeof(cut), &error), RSI_E_PROTOCOL);

    /* More than a message may have; the receiver is usable after it. */
    piece[0] = 1;
    uint32_t piece_count = 0;
    rsi_status_t status;
    while ((status = decode(fixture, piece, RSI_CONTROL_BYTES_MAX, &error)) == RSI_WOULD_BLOCK) {
        assert_true(++piece_count < 100);
    }
    assert_int_equal(status, RSI_E_PROTOCOL);
    assert_non_null(strstr(error.text, "more than 4096"));
    assert_int_equal(send_bye(&fixture->near, "still here"), RSI_OK);
    carry(fixture);
    expect_bye(fixture, "still here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_short_message_is_one_piece, fixture_make,
                                        fixture_drop),
        cmocka_unit_test_setup_teardown(test_pieces, fixture_make, fixture_drop),
        cmocka_unit_test_setup_teardown(test_all_pieces_or_none, fixture_make, fixture_drop),
        cmocka_unit_test_setup_teardown(test_too_large_to_send, fixture_make, fixture_drop),
        cmocka_unit_test_setup_teardown(test_garbage_is_refused, fixture_make, fixture_drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
