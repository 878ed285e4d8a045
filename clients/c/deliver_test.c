/*
 * Delivery from an in ring that the test fills: gaps to the message, and everything a broker could
 * write wrongly.
 */
#include "clients/c/link_testing.h"

#define SEEN_MAX 4096u

/* What the callbacks saw, in order: a message as its sequence, a gap as its negative count. */
struct seen {
    struct link_testing testing;
    uint32_t count;
    int64_t what[SEEN_MAX];
    uint64_t last_publication;
    const char *last_data;
    uint64_t consumed_pos_in_callback;
    char gap_subject[32];
    char gap_publisher[32];
    ringside_event_t end;
};

static void on_message(void *arg, const ringside_message_t *message)
{
    struct seen *seen = arg;
    assert_true(seen->count < SEEN_MAX);
    assert_true(seen->testing.client.is_in_callback);
    assert_int_equal(message->publish_time_ns, message->sequence * 10);
    assert_string_equal(message->publisher, "writer");
    seen->what[seen->count++] = (int64_t)message->sequence;
    seen->last_publication = message->publication;
    seen->consumed_pos_in_callback = seen->testing.link.consumed_pos;
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct seen *seen = arg;
    assert_non_null(event->text);
    if (event->type != RINGSIDE_EVENT_GAP) {
        seen->end = *event;
        return;
    }
    seen->what[seen->count++] = event->count == UINT64_MAX ? INT64_MIN : -(int64_t)event->count;
    snprintf(seen->gap_subject, sizeof(seen->gap_subject), "%s", event->subject);
    snprintf(seen->gap_publisher, sizeof(seen->gap_publisher), "%s", event->publisher);
}

static int setup(void **state)
{
    struct seen *seen = calloc(1, sizeof(*seen));
    assert_non_null(seen);
    link_testing_init(&seen->testing);
    seen->testing.client.options.on_event = on_event;
    seen->testing.client.options.event_arg = seen;
    *state = seen;
    return 0;
}

static int teardown(void **state)
{
    struct seen *seen = *state;
    link_testing_fini(&seen->testing);
    free(seen);
    return 0;
}

static size_t deliver(struct seen *seen, size_t limit)
{
    link_testing_arrive(&seen->testing);
    return rsi_client_deliver(&seen->testing.client, limit);
}

static void put_message(struct seen *seen, uint32_t publication, uint64_t sequence)
{
    link_testing_put(&seen->testing, RSI_FRAME_MESSAGE, publication, sequence, "data", 4);
}

static void expect(const struct seen *seen, uint32_t count, const int64_t *what)
{
    assert_int_equal(seen->count, count);
    for (uint32_t index = 0; index < count; index++) {
        assert_int_equal(seen->what[index], what[index]);
    }
}

static void test_messages(void **state)
{
    struct seen *seen = *state;
    link_testing_subscribe(&seen->testing, "a.*", on_message, seen);
    link_testing_put_announce(&seen->testing, 5, "a.b", 1, 1);
    put_message(seen, 5, 1);
    put_message(seen, 5, 2);
    assert_int_equal(deliver(seen, 0), 2);
    expect(seen, 2, (const int64_t[]){1, 2});
    assert_int_equal(seen->last_publication, 5);
    assert_int_equal(seen->testing.link.consumed_pos, seen->testing.link.arrived_pos);
    assert_int_equal(deliver(seen, 0), 0);
    assert_int_equal(seen->testing.client.totals.delivered_messages, 2);
    assert_int_equal(seen->testing.client.totals.delivered_bytes, 8);
}

static void test_gap_by_sequence(void **state)
{
    struct seen *seen = *state;
    link_testing_subscribe(&seen->testing, ">", on_message, seen);
    link_testing_put_announce(&seen->testing, 5, "a.b", 1, 100);
    link_testing_put_announce(&seen->testing, 6, "c", 1, 7);
    put_message(seen, 5, 100);
    put_message(seen, 5, 104); /* three before it are missing */
    put_message(seen, 6, 8);   /* one, counted from the announce */
    put_message(seen, 5, 105);
    assert_int_equal(deliver(seen, 0), 6);
    expect(seen, 6, (const int64_t[]){100, -3, 104, -1, 8, 105});
    assert_string_equal(seen->gap_subject, "c");
    assert_string_equal(seen->gap_publisher, "writer");
    assert_int_equal(seen->testing.client.totals.gap_messages, 4);
    assert_int_equal(seen->testing.client.totals.gap_events, 2);
}

static void test_gap_records(void **state)
{
    struct seen *seen = *state;
    link_testing_subscribe(&seen->testing, ">", on_message, seen);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 1);
    put_message(seen, 5, 1);
    link_testing_put_gap(&seen->testing, RSI_GAP_DROPPED, 5, 10); /* 2 to 9 */
    link_testing_put_gap(&seen->testing, RSI_GAP_DROPPED, 5, 10); /* nothing new */
    link_testing_put_gap(&seen->testing, RSI_GAP_DROPPED, 5, 11); /* 10 */
    put_message(seen, 5, 11);
    link_testing_put_gap(&seen->testing, RSI_GAP_UNKNOWN, 5, 12);
    put_message(seen, 5, 12);
    deliver(seen, 0);
    expect(seen, 6, (const int64_t[]){1, -8, -1, 11, INT64_MIN, 12});
    assert_int_equal(seen->testing.client.totals.gap_messages, 9);
}

/* Random losses told in random ways: received plus told lost is everything, always in order. */
static void test_every_message_is_accounted_for(void **state)
{
    struct seen *seen = *state;
    uint64_t seed = rsi_test_seed();
    uint64_t random = seed;
    uint64_t next[3] = {1, 1, 1};
    uint64_t told[3] = {1, 1, 1};
    link_testing_subscribe(&seen->testing, ">", on_message, seen);
    for (uint32_t publication = 0; publication < 3; publication++) {
        link_testing_put_announce(&seen->testing, publication, "a", 1, 1);
    }
    uint64_t received_count = 0;
    uint64_t lost_count = 0;
    for (uint32_t round = 0; round < 3000; round++) {
        uint32_t publication = (uint32_t)(rsi_test_random(&random) % 3);
        switch (rsi_test_random(&random) % 4) {
        case 0: /* lost, not told yet */
            next[publication] += rsi_test_random(&random) % 5;
            break;
        case 1: /* told by a record */
            link_testing_put_gap(&seen->testing, RSI_GAP_DROPPED, publication, next[publication]);
            told[publication] = next[publication];
            break;
        default: /* a message, which tells what is missing before it */
            put_message(seen, publication, next[publication]++);
            told[publication] = next[publication];
            break;
        }
        deliver(seen, 0);
        for (uint32_t index = 0; index < seen->count; index++) {
            if (seen->what[index] < 0) {
                lost_count += (uint64_t)-seen->what[index];
            } else {
                received_count++;
            }
        }
        seen->count = 0;
        uint64_t all_told = told[0] + told[1] + told[2] - 3;
        if (received_count + lost_count != all_told) {
            fail_msg("round %u: %llu received, %llu lost, %llu told; seed %llu", round,
                     (unsigned long long)received_count, (unsigned long long)lost_count,
                     (unsigned long long)all_told, (unsigned long long)seed);
        }
    }
    assert_true(lost_count > 100);
    assert_false(seen->testing.client.is_deliver_stopped);
}

static void test_announce_again_is_no_gap(void **state)
{
    struct seen *seen = *state;
    link_testing_subscribe(&seen->testing, "a", on_message, seen);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 1);
    put_message(seen, 5, 1);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 50);
    put_message(seen, 5, 50);
    deliver(seen, 0);
    expect(seen, 2, (const int64_t[]){1, 50});
}

static void test_who_gets_what(void **state)
{
    struct seen *seen = *state;
    struct seen *others = calloc(2, sizeof(*others));
    assert_non_null(others);
    for (uint32_t index = 0; index < 2; index++) {
        others[index].testing.client.is_in_callback = true; /* looked at by on_message */
    }
    link_testing_subscribe(&seen->testing, "a.>", on_message, seen);
    struct ringside_subscription *second =
        link_testing_subscribe(&seen->testing, "a.*", on_message, &others[0]);
    struct ringside_subscription *quiet =
        link_testing_subscribe(&seen->testing, "a.b", on_message, &others[1]);
    quiet->no_echo = true;
    link_testing_put_announce(&seen->testing, 1, "a.b", 77, 1); /* our own session */
    link_testing_put_announce(&seen->testing, 2, "a.b", 1, 1);
    link_testing_put_announce(&seen->testing, 3, "a.b.c", 1, 1);
    put_message(seen, 1, 1);
    put_message(seen, 2, 1);
    put_message(seen, 3, 1);
    assert_int_equal(deliver(seen, 0), 3); /* messages, not callbacks */
    assert_int_equal(seen->count, 3);
    assert_int_equal(others[0].count, 2);
    assert_int_equal(others[1].count, 1);
    assert_int_equal(others[1].last_publication, 2);

    /* One leaves: the lists are made anew. A gap that concerns nobody is not told. */
    rsi_subscription_free(second);
    put_message(seen, 2, 2);
    deliver(seen, 0);
    assert_int_equal(others[0].count, 2);
    assert_int_equal(others[1].count, 2);
    while (seen->testing.client.subscription_count > 0) {
        rsi_subscription_free(seen->testing.client.subscriptions[0]);
    }
    put_message(seen, 2, 9);
    assert_int_equal(deliver(seen, 0), 0);
    assert_int_equal(seen->testing.client.totals.unwanted_messages, 1);
    assert_int_equal(seen->testing.client.totals.gap_events, 0);
    free(others);
}

static void test_limit_and_consume(void **state)
{
    struct seen *seen = *state;
    uint8_t payload[1000] = {0};
    link_testing_subscribe(&seen->testing, "a", on_message, seen);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 1);
    for (uint64_t sequence = 1; sequence <= 50; sequence++) {
        link_testing_put(&seen->testing, RSI_FRAME_MESSAGE, 5, sequence, payload, sizeof(payload));
    }
    assert_int_equal(deliver(seen, 3), 3);
    assert_int_equal(seen->count, 3);
    assert_true(rsi_client_has_frames(&seen->testing.client));
    assert_int_equal(seen->testing.client.deliver_pos, seen->testing.link.consumed_pos);

    /* Given back in steps, and never what a callback is still looking at. */
    seen->testing.consume_count = 0;
    assert_int_equal(deliver(seen, 0), 47);
    assert_int_equal(seen->testing.consume_count, 47 * 1040 / RSI_CLIENT_CONSUME_BYTES + 1);
    assert_true(seen->consumed_pos_in_callback < seen->testing.link.consumed_pos);
    assert_false(rsi_client_has_frames(&seen->testing.client));
}

/* ---- what a broker could do wrong ---------------------------------------------------------------
 */

static void expect_stop(struct seen *seen, const char *text)
{
    deliver(seen, 0);
    assert_true(seen->testing.client.is_deliver_stopped);
    assert_true(rsi_load_relaxed(&seen->testing.link.failed));
    assert_int_equal(seen->testing.link.failure.status, RSI_E_PROTOCOL);
    if (strstr(seen->testing.link.failure.text, text) == NULL) {
        fail_msg("\"%s\" says nothing of \"%s\"", seen->testing.link.failure.text, text);
    }
    /* Nothing after it is handed over. */
    uint32_t count = seen->count;
    assert_int_equal(rsi_client_deliver(&seen->testing.client, 0), 0);
    assert_int_equal(seen->count, count);
}

static void test_unannounced(void **state)
{
    struct seen *seen = *state;
    put_message(seen, 5, 1);
    put_message(seen, 5, 2);
    expect_stop(seen, "not announced");
}

static void test_sequence_goes_back(void **state)
{
    struct seen *seen = *state;
    link_testing_put_announce(&seen->testing, 5, "a", 1, 3);
    put_message(seen, 5, 3);
    put_message(seen, 5, 3);
    expect_stop(seen, "passed already");
}

static void test_announce_goes_back(void **state)
{
    struct seen *seen = *state;
    link_testing_put_announce(&seen->testing, 5, "a", 1, 3);
    put_message(seen, 5, 3);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 3);
    expect_stop(seen, "goes back");
}

static void test_gap_goes_back(void **state)
{
    struct seen *seen = *state;
    link_testing_put_announce(&seen->testing, 5, "a", 1, 3);
    put_message(seen, 5, 3);
    link_testing_put_gap(&seen->testing, RSI_GAP_DROPPED, 5, 3);
    expect_stop(seen, "before what was delivered");
}

static void test_gap_unannounced(void **state)
{
    struct seen *seen = *state;
    link_testing_put_gap(&seen->testing, RSI_GAP_DROPPED, 9, 3);
    expect_stop(seen, "not announced");
}

static void test_gap_too_short(void **state)
{
    struct seen *seen = *state;
    const struct rsi_gap gap = {.reason = RSI_GAP_DROPPED, .entry_count = 0x10000001};
    link_testing_put(&seen->testing, RSI_FRAME_GAP, 0, 0, &gap, sizeof(gap));
    expect_stop(seen, "not as long as its entries");
}

static void put_mark(struct seen *seen, uint64_t subscription, uint32_t step)
{
    const struct rsi_snapshot_mark mark = {.subscription = subscription, .step = step};
    link_testing_put(&seen->testing, RSI_FRAME_SNAPSHOT, 0, 0, &mark, sizeof(mark));
}

static void put_last(struct seen *seen, uint32_t publication, uint64_t sequence)
{
    link_testing_put(&seen->testing, RSI_FRAME_LAST, publication, sequence, &sequence,
                     sizeof(sequence));
}

/* What a subscription with last values gets. */
struct late {
    uint64_t sequences[16];
    bool are_last[16];
    uint32_t count;
};

static void take_late(void *arg, const ringside_message_t *message)
{
    struct late *late = arg;
    assert_true(late->count < 16);
    late->are_last[late->count] = message->is_last != 0;
    late->sequences[late->count++] = message->sequence;
}

static struct ringside_subscription *subscribe_late(struct seen *seen, const char *subject,
                                                    struct late *late)
{
    struct ringside_subscription *made =
        link_testing_subscribe(&seen->testing, subject, take_late, late);
    made->id = 77;
    made->is_last = true;
    rsi_subscription_await_last(made);
    return made;
}

/* Of a: what lies before the mark is not its own; then a value, then live. Of b: live first, so the
 * value that it had is passed over. */
static void test_last_values(void **state)
{
    struct seen *seen = *state;
    struct late late = {0};
    static const uint64_t sequences[] = {9, 4, 10};
    struct ringside_subscription *made = subscribe_late(seen, ">", &late);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 3);
    link_testing_put_announce(&seen->testing, 6, "b", 1, 4);
    put_message(seen, 5, 3);
    put_mark(seen, 77, RSI_SNAPSHOT_START);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 10);
    put_mark(seen, 77, RSI_SNAPSHOT_VALUES);
    put_last(seen, 5, 9);
    put_message(seen, 6, 4);
    put_last(seen, 6, 4);
    assert_int_equal(seen->testing.client.last_due_count, 1);
    put_mark(seen, 77, RSI_SNAPSHOT_END);
    put_message(seen, 5, 10);
    link_testing_arrive(&seen->testing);
    (void)rsi_client_deliver(&seen->testing.client, 0);
    assert_false(seen->testing.client.is_deliver_stopped);
    assert_int_equal(late.count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(late.sequences[i], sequences[i]);
        assert_int_equal(late.are_last[i], i == 0);
    }
    assert_true(made->is_current);
    assert_int_equal(seen->testing.client.last_due_count, 0);
    assert_int_equal(seen->testing.client.totals.gap_events, 0);
}

/* Marks and values for a subscription that was given up are nobody's. */
static void test_last_values_of_nobody(void **state)
{
    struct seen *seen = *state;
    struct late late = {0};
    struct ringside_subscription *made = subscribe_late(seen, ">", &late);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 10);
    put_mark(seen, 77, RSI_SNAPSHOT_START);
    put_mark(seen, 77, RSI_SNAPSHOT_VALUES);
    put_last(seen, 5, 9);
    put_mark(seen, 77, RSI_SNAPSHOT_END);
    put_mark(seen, 78, RSI_SNAPSHOT_START);
    made->is_active = false;
    link_testing_arrive(&seen->testing);
    (void)rsi_client_deliver(&seen->testing.client, 0);
    assert_false(seen->testing.client.is_deliver_stopped);
    assert_int_equal(late.count, 0);
    assert_int_equal(seen->testing.client.totals.unwanted_messages, 1);
}

static void test_last_value_unannounced(void **state)
{
    struct seen *seen = *state;
    put_last(seen, 5, 3);
    expect_stop(seen, "not announced");
}

static void test_marks_that_are_wrong(void **state)
{
    struct seen *seen = *state;
    put_mark(seen, 77, 4);
    expect_stop(seen, "unknown step");
}

static void test_mark_too_short(void **state)
{
    struct seen *seen = *state;
    link_testing_put(&seen->testing, RSI_FRAME_SNAPSHOT, 0, 0, "12345678", 8);
    expect_stop(seen, "not as long as it must be");
}

static void test_mark_unasked(void **state)
{
    struct seen *seen = *state;
    struct late late = {0};
    subscribe_late(seen, ">", &late)->is_last = false;
    seen->testing.client.last_due_count = 0;
    put_mark(seen, 77, RSI_SNAPSHOT_START);
    expect_stop(seen, "did not ask");
}

static void test_unknown_type(void **state)
{
    struct seen *seen = *state;
    link_testing_put(&seen->testing, 9, 5, 1, "x", 1);
    expect_stop(seen, "type");
}

static void test_wrong_commit_word(void **state)
{
    struct seen *seen = *state;
    link_testing_put_announce(&seen->testing, 5, "a", 1, 1);
    put_message(seen, 5, 1);
    uint64_t word = rsi_commit_word(8, 48);
    memcpy(rsi_ring_at(&seen->testing.link.in, 0), &word, sizeof(word));
    expect_stop(seen, "position 0");
}

/* The broker checks headers as well; a client does not rely on it. */
static void test_malformed_headers(void **state)
{
    struct seen *seen = *state;
    static const uint8_t wrong[16] = {3, 0, 200, 0, 'a', 'b', 'c', 0};
    link_testing_subscribe(&seen->testing, ">", on_message, seen);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 1);
    link_testing_put_with(&seen->testing, 5, 1, wrong, sizeof(wrong), "x", 1);
    expect_stop(seen, "beyond the headers' end");
    assert_int_equal(seen->count, 0);
}

/* Random bytes in a ring: stops or delivers, never reads outside (the sanitizers' part). */
static void test_random_bytes(void **state)
{
    struct seen *seen = *state;
    uint64_t random = rsi_test_seed();
    link_testing_subscribe(&seen->testing, ">", on_message, seen);
    for (uint32_t round = 0; round < 300; round++) {
        struct seen *one = NULL;
        assert_int_equal(setup((void **)&one), 0);
        one->testing.client.options.on_event = NULL;
        link_testing_put_announce(&one->testing, 5, "a", 1, 1);
        put_message(one, 5, 1);
        link_testing_put_gap(&one->testing, RSI_GAP_DROPPED, 5, 5);
        put_message(one, 5, 5);
        link_testing_put_with(&one->testing, 5, 6, "\1\0\1\0a\0b", 8, "x", 1);
        for (uint32_t change = 0; change < 3; change++) {
            *rsi_ring_at(&one->testing.link.in,
                         rsi_test_random(&random) % one->testing.in_end_pos) =
                (uint8_t)rsi_test_random(&random);
        }
        deliver(one, 0);
        assert_int_equal(teardown((void **)&one), 0);
    }
}

/* ---- the end -----------------------------------------------------------------------------------
 */

static void test_bye_after_everything(void **state)
{
    struct seen *seen = *state;
    struct ringside_client *client = &seen->testing.client;
    struct rsi_error error = {0};
    (void)rsi_fail(&error, RSI_E_SLOW, "too slow");
    link_testing_subscribe(&seen->testing, ">", on_message, seen);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 1);
    put_message(seen, 5, 1);
    link_testing_arrive(&seen->testing);
    put_message(seen, 5, 2);
    client->is_bye_received = true;
    client->bye_end_pos = seen->testing.in_end_pos;
    rsi_client_end(client, RSI_E_LINK_CLOSED, &error);

    /* The last frame is still on its way: no end yet. */
    assert_int_equal(rsi_client_deliver(client, 0), 1);
    assert_int_equal(client->phase, RSI_CLIENT_ENDING);
    assert_int_equal(deliver(seen, 0), 3); /* the message, slow, closed */
    expect(seen, 2, (const int64_t[]){1, 2});
    assert_int_equal(client->phase, RSI_CLIENT_ENDED);
    assert_int_equal(seen->end.type, RINGSIDE_EVENT_CLOSED);
    assert_int_equal(seen->end.status, RINGSIDE_E_SLOW);
    assert_true(client->is_bye_sent);
    assert_false(rsi_mailbox_is_empty(&seen->testing.link.outbox));
}

static void test_lost_after_everything(void **state)
{
    struct seen *seen = *state;
    struct ringside_client *client = &seen->testing.client;
    struct rsi_error error = {0};
    (void)rsi_fail(&error, RSI_E_IO, "cable");
    link_testing_subscribe(&seen->testing, ">", on_message, seen);
    link_testing_put_announce(&seen->testing, 5, "a", 1, 1);
    put_message(seen, 5, 1);
    put_message(seen, 5, 2);
    rsi_client_end(client, RSI_E_LINK_LOST, &error);
    link_testing_arrive(&seen->testing);
    rsi_store_relaxed(&seen->testing.link.state, RSI_LINK_LOST);
    assert_int_equal(rsi_client_deliver(client, 1), 1);
    assert_int_equal(client->phase, RSI_CLIENT_ENDING);
    assert_int_equal(rsi_client_deliver(client, 0), 2);
    assert_int_equal(client->phase, RSI_CLIENT_ENDED);
    assert_int_equal(seen->end.type, RINGSIDE_EVENT_LOST);
    assert_int_equal(seen->end.status, RINGSIDE_E_IO);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_messages),
        TEST(test_gap_by_sequence),
        TEST(test_gap_records),
        TEST(test_every_message_is_accounted_for),
        TEST(test_announce_again_is_no_gap),
        TEST(test_who_gets_what),
        TEST(test_limit_and_consume),
        TEST(test_unannounced),
        TEST(test_sequence_goes_back),
        TEST(test_announce_goes_back),
        TEST(test_gap_goes_back),
        TEST(test_gap_unannounced),
        TEST(test_gap_too_short),
        TEST(test_last_values),
        TEST(test_last_values_of_nobody),
        TEST(test_last_value_unannounced),
        TEST(test_marks_that_are_wrong),
        TEST(test_mark_too_short),
        TEST(test_mark_unasked),
        TEST(test_unknown_type),
        TEST(test_wrong_commit_word),
        TEST(test_malformed_headers),
        TEST(test_random_bytes),
        TEST(test_bye_after_everything),
        TEST(test_lost_after_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
