/*
 * What a client may ask for once it is welcome, and what the data plane then does with it. argv[1]:
 * the transport, tcp by default.
 */
#include "broker/broker_testing.h"

#include <stdio.h>
#include <string.h>

struct state {
    struct rsi_testing_broker broker;
    struct rsi_testing_client client;
    struct rsi_testing_client other;
};

static int set_up(void **state)
{
    struct state *made = test_calloc(1, sizeof(*made));
    rsi_testing_broker_init(&made->broker);
    *state = made;
    return 0;
}

static int tear_down(void **state)
{
    struct state *made = *state;
    rsi_testing_broker_stop(&made->broker);
    assert_int_equal(rsi_testing_broker_join(&made->broker), RSI_OK);
    rsi_testing_broker_fini(&made->broker);
    test_free(made);
    return 0;
}

static void start_and_join(struct state *state)
{
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_join(&state->client, &state->broker, "asker");
}

static void send_close_publisher(struct rsi_testing_client *client, uint64_t request,
                                 uint32_t alias, uint64_t end_pos)
{
    Ringside__Control__ClosePublisher close = RINGSIDE__CONTROL__CLOSE_PUBLISHER__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    close.request = request;
    close.alias = alias;
    close.end_pos = end_pos;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_CLOSE_PUBLISHER;
    message.close_publisher = &close;
    rsi_testing_client_send(client, &message);
}

static void send_unsubscribe(struct rsi_testing_client *client, uint64_t request,
                             uint64_t subscription)
{
    Ringside__Control__Unsubscribe unsubscribe = RINGSIDE__CONTROL__UNSUBSCRIBE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    unsubscribe.request = request;
    unsubscribe.subscription = subscription;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_UNSUBSCRIBE;
    message.unsubscribe = &unsubscribe;
    rsi_testing_client_send(client, &message);
}

static void test_publisher_life(void **arg)
{
    struct state *state = *arg;
    start_and_join(state);
    struct rsi_testing_client *client = &state->client;
    /* Far more than there are slots: each is retired and its place used again. */
    for (uint32_t round = 0; round < 200; round++) {
        char subject[32];
        snprintf(subject, sizeof(subject), "life.%u", round);
        uint64_t request = rsi_testing_client_open_publisher(client, 1, subject);
        rsi_testing_client_expect_opened(client, request);
        rsi_testing_client_publish(client, 1, round);
        request = ++client->last_request;
        send_close_publisher(client, request, 1, client->link->placed_pos);
        rsi_testing_client_expect_done(client, request);
    }
    rsi_testing_client_close(client);
}

static void test_refused_publishers(void **arg)
{
    struct state *state = *arg;
    static const struct {
        uint32_t alias;
        const char *subject;
        const char *part;
    } cases[] = {
        {1, "", "subject"},     {1, "a..b", "subject"}, {1, "a.*", "subject"},
        {1, "a.>", "subject"},  {1, "a b", "subject"},  {0, "a", "alias 0"},
        {7, "again", "in use"},
    };
    start_and_join(state);
    struct rsi_testing_client *client = &state->client;
    rsi_testing_client_expect_opened(client, rsi_testing_client_open_publisher(client, 7, "seven"));
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        rsi_testing_client_open_publisher(client, cases[i].alias, cases[i].subject);
        rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                                          cases[i].part);
    }
    send_close_publisher(client, 99, 3, 0);
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                                      "alias 3 is not open");
    rsi_testing_client_expect_opened(client, rsi_testing_client_open_publisher(client, 8, "eight"));
    rsi_testing_client_close(client);
}

static void test_limits(void **arg)
{
    struct state *state = *arg;
    state->broker.settings.subscription_count_max = 2;
    state->broker.settings.publisher_count_max = 2;
    start_and_join(state);
    struct rsi_testing_client *client = &state->client;
    const Ringside__Control__Policy drop = RINGSIDE__CONTROL__POLICY__POLICY_DROP;
    rsi_testing_client_expect_subscribed(client,
                                         rsi_testing_client_subscribe(client, 1, "a", drop));
    rsi_testing_client_expect_subscribed(client,
                                         rsi_testing_client_subscribe(client, 2, "b", drop));
    rsi_testing_client_subscribe(client, 3, "c", drop);
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
                                      "subscription_count_max");
    rsi_testing_client_expect_opened(client, rsi_testing_client_open_publisher(client, 1, "a"));
    /* So does a client of which one publisher is open and many are being closed. */
    rsi_testing_client_open_publisher(client, 4000000, "b");
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
                                      "being closed");
    rsi_testing_client_expect_opened(client, rsi_testing_client_open_publisher(client, 2, "b"));
    rsi_testing_client_open_publisher(client, 3, "c");
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
                                      "publisher_count_max");
    rsi_testing_client_close(client);
}

/* The broker's own slots: 64 publications, then no more until some are closed. */
static void test_publications_run_out(void **arg)
{
    struct state *state = *arg;
    start_and_join(state);
    struct rsi_testing_client *client = &state->client;
    rsi_testing_client_join(&state->other, &state->broker, "other");
    for (uint32_t alias = 1; alias <= 64; alias++) {
        struct rsi_testing_client *who = alias % 2 == 0 ? client : &state->other;
        uint64_t request = rsi_testing_client_open_publisher(who, alias, "same.subject");
        rsi_testing_client_expect_opened(who, request);
    }
    rsi_testing_client_open_publisher(client, 1, "one.more");
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
                                      "publication_count_max");
    /* The end of a client frees its publications; how soon is the broker's business. */
    rsi_testing_client_close(&state->other);
    bool is_opened = false;
    for (uint64_t until_ns = rsi_clock_now_ns() + RSI_TESTING_DEADLINE_NS; !is_opened;) {
        assert_true(rsi_clock_now_ns() < until_ns);
        rsi_testing_client_open_publisher(client, 1, "one.more");
        Ringside__Control__Control *answer = rsi_testing_client_receive(client);
        assert_non_null(answer);
        is_opened = answer->body_case == RINGSIDE__CONTROL__CONTROL__BODY_PUBLISHER_OPENED;
        rsi_control_free(answer);
    }
    rsi_testing_client_close(client);
}

static void test_subscriptions(void **arg)
{
    struct state *state = *arg;
    state->broker.settings.allow_block = false;
    start_and_join(state);
    struct rsi_testing_client *client = &state->client;
    const Ringside__Control__Policy drop = RINGSIDE__CONTROL__POLICY__POLICY_DROP;
    rsi_testing_client_expect_subscribed(client,
                                         rsi_testing_client_subscribe(client, 5, "a.>", drop));
    rsi_testing_client_subscribe(client, 5, "b", drop);
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                                      "subscription 5 is there already");
    rsi_testing_client_subscribe(client, 6, "a.>.b", drop);
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_INVALID, "subject");
    rsi_testing_client_subscribe(client, 6, "a", RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_DENIED,
                                      "allow_block");
    rsi_testing_client_subscribe(client, 6, "a", (Ringside__Control__Policy)77);
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                                      "policy 77");
    send_unsubscribe(client, 50, 6);
    rsi_testing_client_expect_refused(client, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                                      "no subscription 6");
    send_unsubscribe(client, 51, 5);
    rsi_testing_client_expect_done(client, 51);
    rsi_testing_client_expect_subscribed(client,
                                         rsi_testing_client_subscribe(client, 5, "a.>", drop));
    rsi_testing_client_close(client);
}

/* The answer names the strictest policy of the session. */
static void test_policy_is_resolved(void **arg)
{
    struct state *state = *arg;
    start_and_join(state);
    struct rsi_testing_client *client = &state->client;
    static const Ringside__Control__Policy asked[] = {
        RINGSIDE__CONTROL__POLICY__POLICY_DEFAULT, RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT,
        RINGSIDE__CONTROL__POLICY__POLICY_DROP, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK,
        RINGSIDE__CONTROL__POLICY__POLICY_DROP};
    static const Ringside__Control__Policy told[] = {
        RINGSIDE__CONTROL__POLICY__POLICY_DROP, RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT,
        RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT, RINGSIDE__CONTROL__POLICY__POLICY_BLOCK,
        RINGSIDE__CONTROL__POLICY__POLICY_BLOCK};
    for (size_t i = 0; i < rsi_array_count(asked); i++) {
        rsi_testing_client_subscribe(client, i + 1, "a", asked[i]);
        Ringside__Control__Control *answer = rsi_testing_client_receive(client);
        assert_non_null(answer);
        assert_int_equal(answer->body_case, RINGSIDE__CONTROL__CONTROL__BODY_SUBSCRIBED);
        assert_int_equal(answer->subscribed->policy, told[i]);
        rsi_control_free(answer);
    }
    rsi_testing_client_close(client);
}

/* A client that asks without waiting for answers is answered in full, however little fits at once.
 */
static void test_many_requests_at_once(void **arg)
{
    struct state *state = *arg;
    start_and_join(state);
    struct rsi_testing_client *client = &state->client;
    enum { ROUND_COUNT = 300 };
    uint64_t answer_count = 0;
    uint64_t sent_count = 0;
    uint64_t until_ns = rsi_clock_now_ns() + RSI_TESTING_DEADLINE_NS;
    while (answer_count < 2 * ROUND_COUNT) {
        assert_true(rsi_clock_now_ns() < until_ns);
        if (sent_count < ROUND_COUNT) {
            rsi_testing_client_subscribe(client, 1, "flood.*",
                                         RINGSIDE__CONTROL__POLICY__POLICY_DROP);
            send_unsubscribe(client, ++client->last_request, 1);
            sent_count++;
        }
        Ringside__Control__Control *answer = NULL;
        struct rsi_error error = {0};
        rsi_testing_client_drive(client);
        while (rsi_control_receive(&client->receiver, client->link, &answer, &error) == RSI_OK) {
            answer_count++;
            rsi_control_free(answer);
        }
    }
    assert_int_equal(answer_count, 2 * ROUND_COUNT);
    rsi_testing_client_close(client);
}

static void test_wrong_requests_end_the_session(void **arg)
{
    struct state *state = *arg;
    start_and_join(state);
    struct rsi_testing_client *client = &state->client;
    send_unsubscribe(client, 0, 1);
    rsi_testing_client_expect_bye(client, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL);
    rsi_testing_client_expect_end(client);
    rsi_testing_client_close(client);

    rsi_testing_client_join(client, &state->broker, "asker");
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    Ringside__Control__Done done = RINGSIDE__CONTROL__DONE__INIT;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_DONE;
    message.done = &done;
    rsi_testing_client_send(client, &message);
    rsi_testing_client_expect_bye(client, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL);
    rsi_testing_client_expect_end(client);
    rsi_testing_client_close(client);
}

/* A frame that no publisher stands behind costs the client its session, and nobody else anything.
 */
static void test_wrong_frame_ends_the_session(void **arg)
{
    struct state *state = *arg;
    start_and_join(state);
    rsi_testing_client_join(&state->other, &state->broker, "other");
    rsi_testing_client_publish(&state->client, 3, 0);
    rsi_testing_client_expect_bye(&state->client, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL);
    rsi_testing_client_expect_end(&state->client);
    rsi_testing_client_expect_opened(&state->other,
                                     rsi_testing_client_open_publisher(&state->other, 3, "fine"));
    rsi_testing_client_close(&state->client);
    rsi_testing_client_close(&state->other);
}

/* What was published before a goodbye is delivered, and the goodbye is answered. */
static void test_messages_then_goodbye(void **arg)
{
    struct state *state = *arg;
    enum { MESSAGE_COUNT = 20000 };
    uint64_t next = 0;
    state->broker.settings.agent_count = 2;
    start_and_join(state);
    struct rsi_testing_client *publisher = &state->client;
    struct rsi_testing_client *subscriber = &state->other;
    rsi_testing_client_join(subscriber, &state->broker, "reader");
    rsi_testing_client_expect_subscribed(
        subscriber, rsi_testing_client_subscribe(subscriber, 1, "md.*",
                                                 RINGSIDE__CONTROL__POLICY__POLICY_BLOCK));
    rsi_testing_client_expect_opened(publisher,
                                     rsi_testing_client_open_publisher(publisher, 1, "md.x"));
    for (uint64_t i = 0; i < MESSAGE_COUNT; i++) {
        rsi_testing_client_publish(publisher, 1, i);
        if (i % 64 == 0) {
            rsi_testing_client_drive(subscriber);
            rsi_testing_client_read(subscriber, &next);
        }
    }
    /* The lane may be faster than the ring: a real client waits too before it says goodbye. */
    rsi_testing_wait(publisher, subscriber,
                     (rsi_testing_client_read(subscriber, &next),
                      publisher->link->peer_arrived_pos == publisher->link->placed_pos));
    rsi_testing_client_say_bye(publisher);
    rsi_testing_wait(publisher, subscriber,
                     (rsi_testing_client_read(subscriber, &next), next == MESSAGE_COUNT));
    rsi_testing_client_expect_bye(publisher, RINGSIDE__CONTROL__REASON__REASON_GOODBYE);
    rsi_testing_client_expect_end(publisher);
    rsi_testing_client_close(publisher);
    rsi_testing_client_close(subscriber);
}

/* A reader that asked for it loses its session when it lags half a window, and is told why. */
static void test_slow_reader_is_disconnected(void **arg)
{
    struct state *state = *arg;
    start_and_join(state);
    struct rsi_testing_client *publisher = &state->client;
    struct rsi_testing_client *subscriber = &state->other;
    uint64_t number = 0;
    rsi_testing_client_join(subscriber, &state->broker, "sleepy");
    rsi_testing_client_expect_subscribed(
        subscriber, rsi_testing_client_subscribe(subscriber, 1, ">",
                                                 RINGSIDE__CONTROL__POLICY__POLICY_DISCONNECT));
    rsi_testing_client_expect_opened(publisher,
                                     rsi_testing_client_open_publisher(publisher, 1, "much"));
    /* Its ring, half of the log, and some more. */
    while (number < 30000) {
        rsi_testing_client_publish(publisher, 1, number++);
    }
    Ringside__Control__Control *message = rsi_testing_client_receive(subscriber);
    assert_non_null(message);
    assert_int_equal(message->body_case, RINGSIDE__CONTROL__CONTROL__BODY_BYE);
    assert_int_equal(message->bye->reason, RINGSIDE__CONTROL__REASON__REASON_SLOW);
    assert_non_null(strstr(message->bye->text, "sleepy"));
    assert_non_null(strstr(message->bye->text, "log_bytes"));
    rsi_control_free(message);
    rsi_testing_client_expect_end(subscriber);
    rsi_testing_client_close(subscriber);
    rsi_testing_client_close(publisher);
}

/* A goodbye names the end of what was published; it may come before the bytes do. */
static void test_goodbye_overtakes_nothing(void **arg)
{
    struct state *state = *arg;
    enum { MESSAGE_COUNT = 5000 };
    uint64_t next = 0;
    start_and_join(state);
    struct rsi_testing_client *publisher = &state->client;
    struct rsi_testing_client *subscriber = &state->other;
    rsi_testing_client_join(subscriber, &state->broker, "reader");
    for (uint32_t round = 0; round < 5; round++) {
        uint64_t subscription = round + 1;
        rsi_testing_client_expect_subscribed(
            subscriber, rsi_testing_client_subscribe(subscriber, subscription, "burst",
                                                     RINGSIDE__CONTROL__POLICY__POLICY_BLOCK));
        rsi_testing_client_expect_opened(publisher,
                                         rsi_testing_client_open_publisher(publisher, 1, "burst"));
        for (uint64_t i = 0; i < MESSAGE_COUNT; i++) {
            rsi_testing_client_publish(publisher, 1, i);
        }
        rsi_testing_client_say_bye(publisher);
        next = 0;
        rsi_testing_wait(publisher, subscriber,
                         (rsi_testing_client_read(subscriber, &next), next == MESSAGE_COUNT));
        rsi_testing_client_expect_bye(publisher, RINGSIDE__CONTROL__REASON__REASON_GOODBYE);
        rsi_testing_client_close(publisher);
        rsi_testing_client_join(publisher, &state->broker, "asker");
    }
    rsi_testing_client_close(publisher);
    rsi_testing_client_close(subscriber);
}

/* One that names an end that never comes does not hold its session for ever. */
static void test_goodbye_with_wrong_end(void **arg)
{
    struct state *state = *arg;
    start_and_join(state);
    Ringside__Control__Bye bye = RINGSIDE__CONTROL__BYE__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    bye.end_pos = UINT64_MAX;
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_BYE;
    message.bye = &bye;
    rsi_testing_client_send(&state->client, &message);
    rsi_testing_client_expect_end(&state->client);
    rsi_testing_client_close(&state->client);
}

int main(int argc, char **argv)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_publisher_life),
        CASE(test_refused_publishers),
        CASE(test_limits),
        CASE(test_publications_run_out),
        CASE(test_subscriptions),
        CASE(test_policy_is_resolved),
        CASE(test_many_requests_at_once),
        CASE(test_wrong_requests_end_the_session),
        CASE(test_wrong_frame_ends_the_session),
        CASE(test_messages_then_goodbye),
        CASE(test_slow_reader_is_disconnected),
        CASE(test_goodbye_overtakes_nothing),
        CASE(test_goodbye_with_wrong_end),
    };
    if (argc > 1) {
        rsi_testing_use(argv[1]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
