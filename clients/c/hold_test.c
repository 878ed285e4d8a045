/*
 * Messages that are kept: what is held holds the ring and nothing else, whatever becomes of the
 * link; a copy is one.
 */
#include "clients/c/hand_testing.h"
#include "clients/c/link_testing.h"

#define SECOND_NS UINT64_C(1000000000)

/* ---- with a link that leads to the test --------------------------------------------------------
 */

enum { HELD_MAX = 8, FRAME_BYTES = 48 };

struct bench {
    struct link_testing testing;
    uint64_t hold_mask; /* sequences to hold, modulo 64, as in: */
    ringside_hold_t *holds[64];
    uint32_t count;
    ringside_status_t last_status;
    ringside_hold_t *to_release; /* in the callback */
};

static void on_message(void *arg, const ringside_message_t *message)
{
    struct bench *bench = arg;
    bench->count++;
    if ((bench->hold_mask >> message->sequence % 64 & 1) != 0) {
        bench->last_status =
            ringside_hold(&bench->testing.client, message, &bench->holds[message->sequence % 64]);
    }
    if (bench->to_release != NULL) {
        assert_int_equal(ringside_release(bench->to_release), RINGSIDE_OK);
        bench->to_release = NULL;
    }
}

static int setup_bench(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    assert_non_null(bench);
    link_testing_init(&bench->testing);
    link_testing_subscribe(&bench->testing, "a.b", on_message, bench);
    link_testing_put_announce(&bench->testing, 5, "a.b", 1, 1);
    link_testing_arrive(&bench->testing);
    assert_int_equal(rsi_client_deliver(&bench->testing.client, 0), 0);
    *state = bench;
    return 0;
}

static int teardown_bench(void **state)
{
    struct bench *bench = *state;
    link_testing_fini(&bench->testing);
    free(bench);
    return 0;
}

/* Messages first to last, each of one word: its sequence. */
static void deliver(struct bench *bench, uint64_t first, uint64_t last)
{
    for (uint64_t sequence = first; sequence <= last; sequence++) {
        link_testing_put(&bench->testing, RSI_FRAME_MESSAGE, 5, sequence, &sequence,
                         sizeof(sequence));
    }
    link_testing_arrive(&bench->testing);
    assert_int_equal(rsi_client_deliver(&bench->testing.client, 0), last - first + 1);
}

static void expect_held(const ringside_hold_t *hold, uint64_t sequence)
{
    const ringside_message_t *message = ringside_hold_message(hold);
    assert_non_null(message);
    assert_int_equal(message->sequence, sequence);
    assert_int_equal(message->bytes, sizeof(sequence));
    assert_memory_equal(message->data, &sequence, sizeof(sequence));
    assert_string_equal(message->subject, "a.b");
    assert_string_equal(message->publisher, "writer");
}

static void test_holds_the_ring(void **state)
{
    struct bench *bench = *state;
    const struct rsi_link *link = &bench->testing.link;
    uint64_t start_pos = link->consumed_pos;
    bench->hold_mask = 1 << 2 | 1 << 4 | 1 << 5;
    deliver(bench, 1, 6);
    assert_int_equal(bench->last_status, RINGSIDE_OK);
    assert_int_equal(link->consumed_pos, start_pos + FRAME_BYTES);
    expect_held(bench->holds[2], 2);
    expect_held(bench->holds[4], 4);
    expect_held(bench->holds[5], 5);

    /* In any order: the ring follows the oldest that is left. */
    assert_int_equal(ringside_release(bench->holds[4]), RINGSIDE_OK);
    assert_int_equal(link->consumed_pos, start_pos + FRAME_BYTES);
    assert_int_equal(ringside_release(bench->holds[2]), RINGSIDE_OK);
    assert_int_equal(link->consumed_pos, start_pos + 4 * FRAME_BYTES);
    deliver(bench, 7, 9);
    assert_int_equal(link->consumed_pos, start_pos + 4 * FRAME_BYTES);
    assert_int_equal(bench->count, 9);
    expect_held(bench->holds[5], 5);
    assert_int_equal(ringside_release(bench->holds[5]), RINGSIDE_OK);
    assert_int_equal(link->consumed_pos, link->arrived_pos);
}

static void test_limit_and_faults(void **state)
{
    struct bench *bench = *state;
    struct ringside_client *client = &bench->testing.client;
    ringside_hold_t *hold = NULL;
    bench->hold_mask = 0x1e; /* as many as link_testing allows */
    deliver(bench, 1, 4);
    assert_int_equal(bench->last_status, RINGSIDE_OK);
    bench->hold_mask = 1 << 5;
    deliver(bench, 5, 5);
    assert_int_equal(bench->last_status, RINGSIDE_E_LIMIT);
    assert_non_null(strstr(ringside_error_text(client), "4 messages are held"));
    assert_non_null(strstr(ringside_error_text(client), "hold_count_max"));
    assert_null(bench->holds[5]);

    /* A release in the callback makes room for the same message. */
    bench->to_release = bench->holds[3];
    deliver(bench, 6, 6);
    bench->hold_mask = 1 << 7;
    deliver(bench, 7, 7);
    assert_int_equal(bench->last_status, RINGSIDE_OK);
    expect_held(bench->holds[7], 7);
    assert_ptr_equal(bench->holds[7], bench->holds[3]); /* no memory but that of the first hold */

    assert_int_equal(ringside_release(bench->holds[1]), RINGSIDE_OK);
    assert_int_equal(ringside_release(bench->holds[1]), RINGSIDE_E_INVALID);
    assert_non_null(strstr(ringside_error_text(client), "released already"));
    assert_null(ringside_hold_message(bench->holds[1]));
    assert_int_equal(ringside_release(NULL), RINGSIDE_OK);

    /* Outside of a callback there is nothing to hold, also no copy of what was there. */
    ringside_message_t message = *ringside_hold_message(bench->holds[2]);
    assert_int_equal(ringside_hold(client, &message, &hold), RINGSIDE_E_STATE);
    assert_int_equal(ringside_hold(client, NULL, &hold), RINGSIDE_E_STATE);
    assert_null(hold);
}

static void copy_in_callback(void *arg, const ringside_message_t *message)
{
    ringside_message_t **copy = arg;
    *copy = ringside_message_copy(message);
}

static void test_copy(void **state)
{
    struct bench *bench = *state;
    static const uint8_t headers[16] = {2, 0, 3, 0, 'A', 'b', 0, 'x', 'y', 'z'};
    ringside_message_t *copy = NULL;
    link_testing_subscribe(&bench->testing, "a.*", copy_in_callback, &copy);
    link_testing_put_with(&bench->testing, 5, 1, headers, sizeof(headers), "hello", 5);
    link_testing_arrive(&bench->testing);
    assert_int_equal(rsi_client_deliver(&bench->testing.client, 0), 1);
    memset(bench->testing.link.in.base, 0xee, LINK_TESTING_RING_BYTES);
    assert_non_null(copy);
    assert_string_equal(copy->subject, "a.b");
    assert_int_equal(copy->subject_bytes, 3);
    assert_string_equal(copy->publisher, "writer");
    assert_int_equal(copy->bytes, 5);
    assert_memory_equal(copy->data, "hello", 5);
    assert_int_equal((uintptr_t)copy->data % 8, 0);
    size_t value_bytes = 0;
    assert_int_equal(copy->header_count, 1);
    assert_memory_equal(ringside_header_find(copy, "ab", &value_bytes), "xyz", 3);
    assert_int_equal(value_bytes, 3);

    /* A copy of a copy, and of a message without anything. */
    ringside_message_t *again = ringside_message_copy(copy);
    ringside_message_free(copy);
    assert_memory_equal(again->data, "hello", 5);
    ringside_message_free(again);
    link_testing_put_with(&bench->testing, 5, 2, NULL, 0, NULL, 0);
    link_testing_arrive(&bench->testing);
    assert_int_equal(rsi_client_deliver(&bench->testing.client, 0), 1);
    assert_int_equal(copy->bytes, 0);
    ringside_message_free(copy);
    ringside_message_free(NULL);
}

/* Random holds and releases against a list of what is held: the ring is given back up to the oldest
 * of them, and every held byte stays. */
static void test_random(void **state)
{
    struct bench *bench = *state;
    struct rsi_link *link = &bench->testing.link;
    uint64_t random = rsi_test_seed();
    uint64_t positions[64] = {0};
    bool is_held[64] = {false};
    uint32_t held_count = 0;
    for (uint64_t sequence = 1; sequence < 20000; sequence++) {
        uint32_t at = (uint32_t)(sequence % 64);
        uint32_t choice = (uint32_t)(rsi_test_random(&random) % 64);
        bool is_room =
            bench->testing.in_end_pos + FRAME_BYTES - link->consumed_pos <= LINK_TESTING_RING_BYTES;
        if (!is_room || is_held[at]) {
            choice = at;
            sequence--;
            for (uint32_t index = 0; index < 64 && !is_held[choice]; index++) {
                choice = (choice + 1) % 64;
            }
        } else {
            bool wants = rsi_test_random(&random) % 3 == 0 && held_count < 4;
            positions[at] = bench->testing.in_end_pos;
            link_testing_put(&bench->testing, RSI_FRAME_MESSAGE, 5, sequence, &sequence,
                             sizeof(sequence));
            link_testing_arrive(&bench->testing);
            bench->hold_mask = wants ? UINT64_MAX : 0;
            assert_int_equal(rsi_client_deliver(&bench->testing.client, 0), 1);
            assert_int_equal(bench->last_status, RINGSIDE_OK);
            is_held[at] = wants;
            held_count += wants;
        }
        if (is_held[choice]) {
            assert_int_equal(ringside_release(bench->holds[choice]), RINGSIDE_OK);
            is_held[choice] = false;
            held_count--;
        }
        uint64_t oldest_pos = link->arrived_pos;
        for (uint32_t index = 0; index < 64; index++) {
            if (is_held[index]) {
                oldest_pos = positions[index] < oldest_pos ? positions[index] : oldest_pos;
                const ringside_message_t *message = ringside_hold_message(bench->holds[index]);
                assert_memory_equal(message->data, &message->sequence, sizeof(uint64_t));
                assert_int_equal(message->sequence % 64, index);
            }
        }
        assert_int_equal(link->consumed_pos, oldest_pos);
    }
}

/* ---- across links ------------------------------------------------------------------------------
 */

struct fixture {
    struct hand_broker broker;
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    uint64_t sent_count;
    uint64_t got_count;
    ringside_hold_t *holds[HELD_MAX];
    uint32_t hold_count; /* next to be held into; HELD_MAX: none */
    bool is_resumed;     /* or renewed */
};

static void keep(void *arg, const ringside_message_t *message)
{
    struct fixture *fixture = arg;
    fixture->got_count++;
    if (fixture->hold_count < HELD_MAX) {
        assert_int_equal(
            ringside_hold(fixture->client, message, &fixture->holds[fixture->hold_count]),
            RINGSIDE_OK);
        fixture->hold_count++;
    }
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct fixture *fixture = arg;
    fixture->is_resumed |=
        event->type == RINGSIDE_EVENT_RESUMED || event->type == RINGSIDE_EVENT_RENEWED;
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    hand_broker_init(&fixture->broker, "hold");
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .client_name = "holder",
                                        .publish_ring_bytes = 65536,
                                        .deliver_ring_bytes = 65536,
                                        .on_event = on_event,
                                        .event_arg = fixture,
                                        .hold_count_max = HELD_MAX};
    if (ringside_connect(&fixture->client, fixture->broker.url, &options) != RINGSIDE_OK) {
        fail_msg("connect: %s", ringside_last_error());
    }
    ringside_subscription_t *subscription = NULL;
    assert_int_equal(ringside_publisher_create(&fixture->publisher, fixture->client, "r.one", 0),
                     RINGSIDE_OK);
    assert_int_equal(ringside_subscribe(&subscription, fixture->client, "r.>", NULL, keep, fixture),
                     RINGSIDE_OK);
    fixture->hold_count = HELD_MAX;
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    if (fixture->client != NULL) {
        (void)ringside_close(fixture->client, 0);
    }
    hand_broker_fini(&fixture->broker);
    free(fixture);
    return 0;
}

#define poll_until(fixture, condition)                                                          \
    do {                                                                                        \
        uint64_t poll_deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;                       \
        while (!(condition)) {                                                                  \
            assert_int_equal(ringside_poll((fixture)->client, 0, 10000000, NULL), RINGSIDE_OK); \
            if (rsi_test_now_ns() > poll_deadline_ns)                                           \
                fail_msg("still not true after 20 s: %s", #condition);                          \
        }                                                                                       \
    } while (0)

/* One message of its number and 1,000 bytes, held at `at` if that is below HELD_MAX. */
static void send_one(struct fixture *fixture, uint32_t at)
{
    uint8_t data[1008];
    uint64_t number = ++fixture->sent_count;
    uint64_t got_count = fixture->got_count;
    memcpy(data, &number, sizeof(number));
    memset(data + sizeof(number), (int)number, sizeof(data) - sizeof(number));
    assert_int_equal(ringside_publish(fixture->publisher, data, sizeof(data)), RINGSIDE_OK);
    fixture->hold_count = at;
    poll_until(fixture, fixture->got_count > got_count);
    fixture->hold_count = HELD_MAX;
}

static void expect_number(const struct fixture *fixture, uint32_t at, uint64_t number)
{
    const ringside_message_t *message = ringside_hold_message(fixture->holds[at]);
    assert_non_null(message);
    assert_int_equal(message->bytes, 1008);
    assert_memory_equal(message->data, &number, sizeof(number));
    for (size_t byte = sizeof(number); byte < message->bytes; byte++) {
        assert_int_equal(((const uint8_t *)message->data)[byte], (uint8_t)number);
    }
    assert_string_equal(message->subject, "r.one");
}

static void cut_and_resume(struct fixture *fixture)
{
    fixture->is_resumed = false;
    hand_broker_cut(&fixture->broker);
    poll_until(fixture, fixture->is_resumed);
}

/* Several laps round a ring that nothing held may keep back any more. */
static void go_round(struct fixture *fixture)
{
    for (uint32_t count = 0; count < 150; count++) {
        send_one(fixture, HELD_MAX);
    }
}

static void test_across_resumes(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t at = 0; at < 6; at++) {
        send_one(fixture, at);
        send_one(fixture, HELD_MAX);
        if (at % 2 == 1) {
            cut_and_resume(fixture);
            assert_int_equal(fixture->client->holds.path_count, (at + 1) / 2);
            assert_null(fixture->client->holds.oldest);
            assert_int_equal(fixture->client->link->consumed_pos, fixture->client->deliver_pos);
        }
    }
    go_round(fixture);
    send_one(fixture, 6); /* and one in the ring in use, last */
    for (uint32_t at = 0; at < 6; at++) {
        expect_number(fixture, at, 1 + 2 * at);
    }
    /* A path goes with the last hold in it, in whatever order. */
    static const uint32_t order[] = {3, 0, 6, 5, 4, 2, 1};
    static const uint32_t left[] = {3, 3, 3, 3, 2, 1, 0};
    for (uint32_t index = 0; index < rsi_array_count(order); index++) {
        assert_int_equal(ringside_release(fixture->holds[order[index]]), RINGSIDE_OK);
        poll_until(fixture, fixture->client->holds.path_count == left[index]);
    }
    cut_and_resume(fixture);
    assert_int_equal(fixture->client->holds.path_count, 0);
    go_round(fixture);
}

/* The open claim and a held message are in the two rings of one old link. */
static void test_with_a_claim(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t round = 0; round < 4; round++) {
        void *buffer = NULL;
        uint64_t number = fixture->sent_count + 2;
        send_one(fixture, 0);
        assert_int_equal(ringside_claim(fixture->publisher, 1008, &buffer), RINGSIDE_OK);
        memset(buffer, (int)number, 1008);
        memcpy(buffer, &number, sizeof(number));
        cut_and_resume(fixture);
        assert_true(fixture->client->is_claim_left_behind);
        if (round >= 2) { /* twice */
            cut_and_resume(fixture);
        }
        expect_number(fixture, 0, number - 1);
        if (round % 2 == 0) { /* either may be the last that needs it */
            assert_int_equal(ringside_release(fixture->holds[0]), RINGSIDE_OK);
            assert_int_equal(ringside_poll(fixture->client, 0, 0, NULL), RINGSIDE_OK);
            assert_int_equal(fixture->client->holds.path_count, 1);
        }
        fixture->sent_count++;
        fixture->hold_count = 1;
        assert_int_equal(ringside_commit(fixture->publisher, 1008), RINGSIDE_OK);
        poll_until(fixture, fixture->got_count == fixture->sent_count);
        fixture->hold_count = HELD_MAX;
        expect_number(fixture, 1, number);
        if (round % 2 == 1) {
            expect_number(fixture, 0, number - 1);
            assert_int_equal(ringside_release(fixture->holds[0]), RINGSIDE_OK);
        }
        assert_int_equal(ringside_release(fixture->holds[1]), RINGSIDE_OK);
        poll_until(fixture, fixture->client->holds.path_count == 0);
        assert_false(rsi_path_exists(&fixture->client->retired));
    }
}

static void test_across_a_renewal(void **state)
{
    struct fixture *fixture = *state;
    send_one(fixture, 0);
    send_one(fixture, 1);
    hand_broker_restart(&fixture->broker);
    poll_until(fixture, fixture->is_resumed);
    go_round(fixture);
    expect_number(fixture, 0, 1);
    expect_number(fixture, 1, 2);
    assert_int_equal(ringside_release(fixture->holds[1]), RINGSIDE_OK);
    assert_int_equal(ringside_release(fixture->holds[0]), RINGSIDE_OK);
    poll_until(fixture, fixture->client->holds.path_count == 0);
}

/* Messages that a broker left behind when it died are held where they were put aside. */
static void test_in_a_remnant(void **state)
{
    struct fixture *fixture = *state;
    struct ringside_client *client = fixture->client;
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    uint8_t data[1008];
    send_one(fixture, HELD_MAX);
    for (uint32_t count = 0; count < 3; count++) {
        uint64_t number = ++fixture->sent_count;
        memset(data, (int)number, sizeof(data));
        memcpy(data, &number, sizeof(number));
        assert_int_equal(ringside_publish(fixture->publisher, data, sizeof(data)), RINGSIDE_OK);
    }
    /* Calls that hand nothing over, until all three are here and the next broker has the session.
     */
    while (client->link->arrived_pos - client->deliver_pos < 3 * rsi_frame_bytes(0, 1008)) {
        assert_int_not_equal(ringside_flush(client, 1000000), RINGSIDE_E_LOST);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    hand_broker_restart(&fixture->broker);
    while (client->remnants == NULL) {
        assert_int_equal(ringside_publish(fixture->publisher, data, sizeof(data)), RINGSIDE_OK);
        assert_int_not_equal(ringside_flush(client, 10000000), RINGSIDE_E_LOST);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    fixture->hold_count = 0;
    uint64_t got_count = fixture->got_count;
    while (fixture->got_count < got_count + 3) {
        assert_int_equal(ringside_poll(client, 1, 10000000, NULL), RINGSIDE_OK);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    fixture->hold_count = HELD_MAX;
    poll_until(fixture, fixture->is_resumed);
    assert_non_null(client->holds.remnants);
    assert_null(client->holds.oldest);
    go_round(fixture);
    static const uint32_t order[] = {1, 0, 2};
    for (uint32_t index = 0; index < 3; index++) {
        expect_number(fixture, order[index], order[index] + 2);
        assert_non_null(client->holds.remnants);
        assert_int_equal(ringside_release(fixture->holds[order[index]]), RINGSIDE_OK);
    }
    assert_null(client->holds.remnants);
}

/* After the end what is held is still there; closing takes it along. */
static void test_end_and_close(void **state)
{
    struct fixture *fixture = *state;
    send_one(fixture, 0);
    cut_and_resume(fixture);
    send_one(fixture, 1);
    send_one(fixture, 2);
    assert_int_equal(ringside_close(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);
    fixture->client = NULL;
}

static void test_held_after_the_end(void **state)
{
    struct fixture *fixture = *state;
    send_one(fixture, 0);
    hand_broker_set(&fixture->broker, refuses, RINGSIDE__CONTROL__REASON__REASON_SESSION);
    hand_broker_cut(&fixture->broker);
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (ringside_poll(fixture->client, 0, 10000000, NULL) == RINGSIDE_OK) {
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    expect_number(fixture, 0, 1);
    assert_int_equal(ringside_release(fixture->holds[0]), RINGSIDE_OK);
}

#define BENCH_TEST(function) cmocka_unit_test_setup_teardown(function, setup_bench, teardown_bench)
#define TEST(function)       cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BENCH_TEST(test_holds_the_ring), BENCH_TEST(test_limit_and_faults),
        BENCH_TEST(test_copy),           BENCH_TEST(test_random),
        TEST(test_across_resumes),       TEST(test_with_a_claim),
        TEST(test_across_a_renewal),     TEST(test_in_a_remnant),
        TEST(test_end_and_close),        TEST(test_held_after_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
