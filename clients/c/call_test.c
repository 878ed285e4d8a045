/*
 * Requests and replies by the public interface, against a whole broker with two agents in this
 * process, over every transport that needs no device. What must hold: each on_reply is called
 * exactly once; an answer reaches the request that it answers and no other; only who was given a
 * request can answer it.
 */
#include "clients/c/broker_testing.h"

#define SECOND_NS      UINT64_C(1000000000)
#define MILLISECOND_NS UINT64_C(1000000)

enum { PARTY_COUNT = 4, CALLS_MAX = 4096 };

static const char *transport;

enum habit { ANSWERS, KEEPS, IS_SILENT };

struct party {
    ringside_client_t *client;
    enum habit habit;
    uint64_t request_count;
    uint64_t refused_count; /* replies that found no room */
    ringside_request_id_t kept;
};

struct call {
    uint32_t index;
    uint32_t answer_count;
    ringside_status_t status;
    uint64_t answer;
};

struct fixture {
    struct broker_testing testing;
    struct party parties[PARTY_COUNT];
    ringside_publisher_t *publisher; /* of the first */
    struct call calls[CALLS_MAX];
    uint32_t call_count;
    uint32_t answered_count;
};

static const char *url_of(const struct broker_testing *testing)
{
    if (strcmp(transport, "tcp") == 0) {
        return testing->tcp_url;
    }
    return strcmp(transport, "shm") == 0 ? testing->shm_url : testing->sim_url;
}

static void party_open(struct fixture *fixture, uint32_t index)
{
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .requests_max = CALLS_MAX / 2};
    assert_int_equal(
        ringside_connect(&fixture->parties[index].client, url_of(&fixture->testing), &options),
        RINGSIDE_OK);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    broker_testing_init(&fixture->testing);
    fixture->testing.settings.agent_count = 2;
    broker_testing_start(&fixture->testing);
    for (uint32_t i = 0; i < PARTY_COUNT; i++) {
        party_open(fixture, i);
    }
    ringside_client_t *client = fixture->parties[0].client;
    assert_ok(client, ringside_publisher_create(&fixture->publisher, client, "svc.double", 0));
    *state = fixture;
    return 0;
}

static void party_close(struct party *party)
{
    ringside_close(party->client, 5 * SECOND_NS);
    party->client = NULL;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 0; i < PARTY_COUNT; i++) {
        party_close(&fixture->parties[i]);
    }
    broker_testing_fini(&fixture->testing);
    free(fixture);
    return 0;
}

static uint64_t number_in(const void *data, size_t bytes)
{
    uint64_t number = 0;
    assert_int_equal(bytes, sizeof(number));
    memcpy(&number, data, sizeof(number));
    return number;
}

static void on_request(void *arg, const ringside_message_t *message)
{
    struct party *party = arg;
    assert_ptr_equal(message->client, party->client);
    assert_true(message->is_request);
    assert_string_equal(message->subject, "svc.double");
    party->request_count++;
    party->kept = message->request;
    uint64_t answer = 2 * number_in(message->data, message->bytes);
    if (party->habit == ANSWERS) {
        party->refused_count += ringside_reply(message, &answer, sizeof(answer)) != RINGSIDE_OK;
    }
}

static void on_reply(void *arg, const ringside_reply_t *reply)
{
    struct call *call = arg;
    call->answer_count++;
    call->status = reply->status;
    if (reply->status == RINGSIDE_OK) {
        call->answer = number_in(reply->data, reply->bytes);
    } else {
        assert_int_equal(reply->bytes, 0);
    }
}

static ringside_subscription_t *serve(struct party *party, enum habit habit, const char *group)
{
    const ringside_subscribe_options_t options = {.struct_bytes = sizeof(options), .group = group};
    ringside_subscription_t *subscription = NULL;
    party->habit = habit;
    assert_ok(party->client, ringside_subscribe(&subscription, party->client, "svc.*", &options,
                                                on_request, party));
    return subscription;
}

static struct call *ask(struct fixture *fixture, uint64_t timeout_ns)
{
    struct call *call = &fixture->calls[fixture->call_count];
    uint64_t number = call->index = fixture->call_count++;
    assert_true(fixture->call_count <= CALLS_MAX);
    assert_ok(
        fixture->parties[0].client,
        ringside_request(fixture->publisher, &number, sizeof(number), timeout_ns, on_reply, call));
    return call;
}

static void poll_all(struct fixture *fixture)
{
    for (uint32_t i = 0; i < PARTY_COUNT; i++) {
        if (fixture->parties[i].client != NULL) {
            assert_int_equal(ringside_poll(fixture->parties[i].client, 0, 0, NULL), RINGSIDE_OK);
        }
    }
}

#define all_until(fixture, condition)                             \
    do {                                                          \
        uint64_t until_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS; \
        while (!(condition)) {                                    \
            poll_all(fixture);                                    \
            assert_true(rsi_test_now_ns() < until_ns);            \
        }                                                         \
    } while (0)

static void expect(struct fixture *fixture, struct call *call, ringside_status_t status)
{
    all_until(fixture, call->answer_count > 0);
    assert_int_equal(call->status, status);
    if (status == RINGSIDE_OK) {
        assert_int_equal(call->answer, 2 * (uint64_t)call->index);
    }
    for (uint32_t i = 0; i < 20; i++) {
        poll_all(fixture);
    }
    assert_int_equal(call->answer_count, 1);
}

static void test_workers_share(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 1; i < PARTY_COUNT; i++) {
        serve(&fixture->parties[i], ANSWERS, "workers");
    }
    for (uint32_t i = 0; i < 900; i++) {
        ask(fixture, 20 * SECOND_NS);
        if (i % 50 == 0) {
            poll_all(fixture);
        }
    }
    for (uint32_t i = 0; i < fixture->call_count; i++) {
        struct call *call = &fixture->calls[i];
        all_until(fixture, call->answer_count > 0);
        assert_int_equal(call->status, RINGSIDE_OK);
        assert_int_equal(call->answer, 2 * (uint64_t)i);
    }
    for (uint32_t i = 0; i < fixture->call_count; i++) {
        assert_int_equal(fixture->calls[i].answer_count, 1);
    }
    for (uint32_t i = 1; i < PARTY_COUNT; i++) {
        assert_int_equal(fixture->parties[i].request_count, 300);
        assert_int_equal(fixture->parties[i].refused_count, 0);
    }
}

/* Several that are no group: the first answer counts, the others are passed over. */
static void test_first_answer_counts(void **state)
{
    struct fixture *fixture = *state;
    serve(&fixture->parties[1], ANSWERS, NULL);
    serve(&fixture->parties[2], ANSWERS, NULL);
    serve(&fixture->parties[3], IS_SILENT, NULL);
    for (uint32_t i = 0; i < 20; i++) {
        expect(fixture, ask(fixture, 20 * SECOND_NS), RINGSIDE_OK);
    }
    all_until(fixture, fixture->parties[2].request_count == 20);
}

static void test_nobody_there(void **state)
{
    struct fixture *fixture = *state;
    expect(fixture, ask(fixture, 20 * SECOND_NS), RINGSIDE_E_NO_RESPONDERS);
    ringside_subscription_t *subscription = serve(&fixture->parties[1], ANSWERS, "workers");
    expect(fixture, ask(fixture, 20 * SECOND_NS), RINGSIDE_OK);
    assert_ok(fixture->parties[1].client, ringside_unsubscribe(subscription, 0));
    expect(fixture, ask(fixture, 20 * SECOND_NS), RINGSIDE_E_NO_RESPONDERS);
    subscription = serve(&fixture->parties[2], ANSWERS, NULL);
    expect(fixture, ask(fixture, 20 * SECOND_NS), RINGSIDE_OK);
    assert_ok(fixture->parties[2].client, ringside_unsubscribe(subscription, 0));
    expect(fixture, ask(fixture, 20 * SECOND_NS), RINGSIDE_E_NO_RESPONDERS);
}

/* Time-outs come in the order of their times, and a poll that sleeps wakes for them. */
static void test_times_out(void **state)
{
    struct fixture *fixture = *state;
    struct party *silent = &fixture->parties[1];
    serve(silent, KEEPS, "workers");
    struct call *late = ask(fixture, 300 * MILLISECOND_NS);
    struct call *early = ask(fixture, 20 * MILLISECOND_NS);
    struct call *never = ask(fixture, UINT64_MAX);
    all_until(fixture, silent->request_count == 3);
    while (early->answer_count == 0) {
        assert_int_equal(ringside_poll(fixture->parties[0].client, 0, UINT64_MAX, NULL),
                         RINGSIDE_OK);
    }
    assert_int_equal(late->answer_count, 0);
    while (late->answer_count == 0) {
        assert_int_equal(ringside_poll(fixture->parties[0].client, 0, UINT64_MAX, NULL),
                         RINGSIDE_OK);
    }
    assert_int_equal(early->status, RINGSIDE_E_TIMED_OUT);
    assert_int_equal(late->status, RINGSIDE_E_TIMED_OUT);
    /* By the copy of what the callback was given: the last one was `never`. */
    uint64_t answer = 2 * (uint64_t)never->index;
    assert_ok(silent->client,
              ringside_reply_to(silent->client, silent->kept, &answer, sizeof(answer)));
    expect(fixture, never, RINGSIDE_OK);
}

/* Nobody answers in another's place, twice, or something that was not asked. */
static void test_only_who_was_asked(void **state)
{
    struct fixture *fixture = *state;
    struct party *asked = &fixture->parties[1];
    struct party *other = &fixture->parties[2];
    serve(asked, KEEPS, "workers");
    struct call *call = ask(fixture, 20 * SECOND_NS);
    all_until(fixture, asked->request_count == 1);
    ringside_request_id_t id = asked->kept;
    uint64_t wrong = 1;
    assert_ok(other->client, ringside_reply_to(other->client, id, &wrong, sizeof(wrong)));
    ringside_request_id_t forged = id;
    forged.words[1]++;
    assert_ok(asked->client, ringside_reply_to(asked->client, forged, &wrong, sizeof(wrong)));
    forged.words[0] = UINT64_MAX;
    assert_ok(asked->client, ringside_reply_to(asked->client, forged, &wrong, sizeof(wrong)));
    assert_ok(other->client, ringside_flush(other->client, SECOND_NS));
    assert_ok(asked->client, ringside_flush(asked->client, SECOND_NS));
    for (uint32_t i = 0; i < 100; i++) {
        poll_all(fixture);
    }
    assert_int_equal(call->answer_count, 0);
    uint64_t answer = 2 * (uint64_t)call->index;
    assert_ok(asked->client, ringside_reply_to(asked->client, id, &answer, sizeof(answer)));
    assert_ok(asked->client, ringside_reply_to(asked->client, id, &wrong, sizeof(wrong)));
    expect(fixture, call, RINGSIDE_OK);
    const ringside_message_t message = {.subject = "x", .client = asked->client};
    assert_int_equal(ringside_reply(&message, NULL, 0), RINGSIDE_E_STATE);
}

/* The only one that had it is gone, and said nothing; of two, the other may still answer. */
static void test_lost(void **state)
{
    struct fixture *fixture = *state;
    serve(&fixture->parties[1], KEEPS, "workers");
    struct call *first = ask(fixture, 20 * SECOND_NS);
    all_until(fixture, fixture->parties[1].request_count == 1);
    serve(&fixture->parties[2], KEEPS, NULL);
    struct call *second = ask(fixture, 20 * SECOND_NS);
    all_until(fixture,
              fixture->parties[1].request_count == 2 && fixture->parties[2].request_count == 1);
    party_close(&fixture->parties[1]);
    expect(fixture, first, RINGSIDE_E_LOST);
    assert_int_equal(second->answer_count, 0);
    uint64_t answer = 2 * (uint64_t)second->index;
    assert_ok(fixture->parties[2].client,
              ringside_reply_to(fixture->parties[2].client, fixture->parties[2].kept, &answer,
                                sizeof(answer)));
    expect(fixture, second, RINGSIDE_OK);
}

/* More than a session may hold: the oldest give way, and their requesters are told. */
static void test_too_many_kept(void **state)
{
    struct fixture *fixture = *state;
    serve(&fixture->parties[1], KEEPS, "workers");
    for (uint32_t i = 0; i < 1024 + 10; i++) {
        ask(fixture, 60 * SECOND_NS);
        if (i % 100 == 0) {
            poll_all(fixture);
        }
    }
    for (uint32_t i = 0; i < 10; i++) {
        expect(fixture, &fixture->calls[i], RINGSIDE_E_LOST);
    }
    for (uint32_t i = 10; i < fixture->call_count; i++) {
        assert_int_equal(fixture->calls[i].answer_count, 0);
    }
}

static void test_limit_and_close(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = fixture->parties[0].client;
    serve(&fixture->parties[1], IS_SILENT, "workers");
    for (uint32_t i = 0; i < CALLS_MAX / 2; i++) {
        ask(fixture, 60 * SECOND_NS);
    }
    uint64_t number = 0;
    assert_int_equal(ringside_request(fixture->publisher, &number, sizeof(number), 0, on_reply,
                                      &fixture->calls[0]),
                     RINGSIDE_E_LIMIT);
    assert_non_null(strstr(ringside_error_text(client), "requests_max"));
    assert_int_equal(ringside_request(fixture->publisher, &number, sizeof(number), 0, NULL, NULL),
                     RINGSIDE_E_INVALID);
    party_close(&fixture->parties[0]);
    for (uint32_t i = 0; i < fixture->call_count; i++) {
        assert_int_equal(fixture->calls[i].answer_count, 1);
        assert_true(fixture->calls[i].status == RINGSIDE_E_CANCELLED ||
                    fixture->calls[i].status == RINGSIDE_E_LOST);
    }
}

static void test_call_that_waits(void **state)
{
    struct fixture *fixture = *state;
    struct party *self = &fixture->parties[0];
    uint64_t number = 21;
    uint64_t answer = 0;
    size_t bytes = 0;
    assert_int_equal(ringside_call(fixture->publisher, &number, sizeof(number), 5 * SECOND_NS,
                                   &answer, sizeof(answer), &bytes),
                     RINGSIDE_E_NO_RESPONDERS);
    serve(self, ANSWERS, "workers");
    assert_ok(self->client, ringside_call(fixture->publisher, &number, sizeof(number),
                                          5 * SECOND_NS, &answer, sizeof(answer), &bytes));
    assert_int_equal(bytes, sizeof(answer));
    assert_int_equal(answer, 42);
    assert_int_equal(ringside_call(fixture->publisher, &number, sizeof(number), 5 * SECOND_NS,
                                   &answer, 3, &bytes),
                     RINGSIDE_E_TOO_LARGE);
    self->habit = IS_SILENT;
    assert_int_equal(ringside_call(fixture->publisher, &number, sizeof(number), 20 * MILLISECOND_NS,
                                   &answer, sizeof(answer), &bytes),
                     RINGSIDE_E_TIMED_OUT);
}

/* The broker goes: every request is answered so. */
static void test_broker_goes(void **state)
{
    struct fixture *fixture = *state;
    serve(&fixture->parties[1], IS_SILENT, "workers");
    for (uint32_t i = 0; i < 10; i++) {
        ask(fixture, UINT64_MAX);
    }
    all_until(fixture, fixture->parties[1].request_count == 10);
    broker_testing_stop(&fixture->testing);
    uint64_t until_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (fixture->calls[9].answer_count == 0) {
        (void)!ringside_poll(fixture->parties[0].client, 0, 10 * MILLISECOND_NS, NULL);
        assert_true(rsi_test_now_ns() < until_ns);
    }
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(fixture->calls[i].answer_count, 1);
        assert_int_equal(fixture->calls[i].status, RINGSIDE_E_LOST);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_workers_share), TEST(test_first_answer_counts), TEST(test_nobody_there),
        TEST(test_times_out),     TEST(test_only_who_was_asked),  TEST(test_lost),
        TEST(test_too_many_kept), TEST(test_limit_and_close),     TEST(test_call_that_waits),
        TEST(test_broker_goes),
    };
    static const char *const transports[] = {"shm", "tcp", "sim"};
    int failed_count = 0;
    for (size_t index = 0; index < rsi_array_count(transports); index++) {
        transport = transports[index];
        failed_count += cmocka_run_group_tests_name(transport, tests, NULL, NULL);
    }
    return failed_count;
}
