/*
 * Everything that can happen to a client before it is welcome. argv[1]: the transport, tcp by
 * default.
 */
#include "broker/broker_testing.h"

#include <stdio.h>
#include <string.h>

static const char secret[] = "correct horse battery staple";

struct state {
    struct rsi_testing_broker broker;
    struct rsi_testing_client client;
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

static void start_with_token(struct state *state)
{
    assert_int_equal(rsi_settings_add_token(&state->broker.settings, "feed", secret, NULL), RSI_OK);
    rsi_testing_broker_start(&state->broker);
}

static void send_hello(struct rsi_testing_client *client, uint32_t version_min,
                       uint32_t version_max, const char *name, size_t nonce_bytes)
{
    Ringside__Control__Hello hello = RINGSIDE__CONTROL__HELLO__INIT;
    Ringside__Control__Control message = RINGSIDE__CONTROL__CONTROL__INIT;
    uint8_t nonce[64] = {1};
    hello.version_min = version_min;
    hello.version_max = version_max;
    hello.client_name = (char *)name;
    hello.nonce.data = nonce;
    hello.nonce.len = nonce_bytes;
    hello.software = (char *)"one\ntwo"; /* no line of its own in the log */
    message.body_case = RINGSIDE__CONTROL__CONTROL__BODY_HELLO;
    message.hello = &hello;
    rsi_testing_client_send(client, &message);
}

static void test_welcome_without_token(void **arg)
{
    struct state *state = *arg;
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_join(&state->client, &state->broker, "plain");
    assert_int_not_equal(state->client.session, 0);
    assert_int_equal(state->client.message_bytes_max, 16 << 10);
    rsi_testing_client_close(&state->client);
}

static void test_welcome_with_token(void **arg)
{
    struct state *state = *arg;
    start_with_token(state);
    rsi_testing_client_open(&state->client, &state->broker, "proven");
    rsi_testing_client_hello(&state->client, "feed");
    rsi_testing_client_authenticate(&state->client, secret, 0, 65536, 0);
    rsi_testing_client_attach(&state->client);
    rsi_testing_client_close(&state->client);
}

static void expect_denied(struct state *state, const char *token_name, const char *given)
{
    rsi_testing_client_open(&state->client, &state->broker, "mallory");
    rsi_testing_client_hello(&state->client, token_name);
    rsi_testing_client_authenticate(&state->client, given, 65536, 65536, 0);
    rsi_testing_client_expect_refused(&state->client,
                                      RINGSIDE__CONTROL__REASON__REASON_AUTHENTICATION,
                                      "not right in name or secret");
    rsi_testing_client_expect_end(&state->client);
    assert_int_equal(state->client.link->in.capacity_bytes, 0);
    rsi_testing_client_close(&state->client);
}

/* The same words for a wrong name and a wrong secret. */
static void test_wrong_proof(void **arg)
{
    struct state *state = *arg;
    start_with_token(state);
    expect_denied(state, "feed", "wrong wrong wrong");
    expect_denied(state, "nobody", secret);
    expect_denied(state, "feed", NULL);
    expect_denied(state, "", NULL);
}

static void test_wrong_version(void **arg)
{
    struct state *state = *arg;
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_open(&state->client, &state->broker, "future");
    send_hello(&state->client, 7, 9, "future", 32);
    Ringside__Control__Control *message = rsi_testing_client_receive(&state->client);
    assert_non_null(message);
    assert_int_equal(message->body_case, RINGSIDE__CONTROL__CONTROL__BODY_REFUSED);
    assert_int_equal(message->refused->reason, RINGSIDE__CONTROL__REASON__REASON_VERSION);
    assert_non_null(strstr(message->refused->text, "one?two"));
    assert_int_equal(message->refused->version_min, RSI_WIRE_VERSION_MIN);
    assert_int_equal(message->refused->version_max, RSI_WIRE_VERSION_MAX);
    assert_non_null(strstr(message->refused->text, "7 to 9"));
    assert_non_null(strstr(message->refused->text, "1 to 1"));
    rsi_control_free(message);
    rsi_testing_client_expect_end(&state->client);
    rsi_testing_client_close(&state->client);
}

static void test_bad_hello(void **arg)
{
    struct state *state = *arg;
    static const struct {
        const char *name;
        size_t nonce_bytes;
        const char *part;
    } cases[] = {
        {"", 32, "is empty"},
        {"0123456789012345678901234567890123456789012345678901234567890123", 32, "63 bytes"},
        {"tab\tname", 32, "control character"},
        {"short nonce", 15, "15 bytes"},
        {"long nonce", 33, "33 bytes"},
        {"no nonce", 0, "0 bytes"},
    };
    rsi_testing_broker_start(&state->broker);
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        rsi_testing_client_open(&state->client, &state->broker, "bad");
        send_hello(&state->client, 1, 1, cases[i].name, cases[i].nonce_bytes);
        rsi_testing_client_expect_refused(&state->client,
                                          cases[i].nonce_bytes == 32
                                              ? RINGSIDE__CONTROL__REASON__REASON_INVALID
                                              : RINGSIDE__CONTROL__REASON__REASON_PROTOCOL,
                                          cases[i].part);
        rsi_testing_client_expect_end(&state->client);
        rsi_testing_client_close(&state->client);
    }
}

static void test_message_before_hello(void **arg)
{
    struct state *state = *arg;
    start_with_token(state);
    rsi_testing_client_open(&state->client, &state->broker, "hasty");
    rsi_testing_client_subscribe(&state->client, 1, "a", RINGSIDE__CONTROL__POLICY__POLICY_DROP);
    rsi_testing_client_expect_refused(&state->client, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL,
                                      "expected hello, but got subscribe");
    rsi_testing_client_close(&state->client);

    rsi_testing_client_open(&state->client, &state->broker, "hasty");
    rsi_testing_client_hello(&state->client, "feed");
    rsi_testing_client_open_publisher(&state->client, 1, "a");
    rsi_testing_client_expect_refused(&state->client, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL,
                                      "expected authenticate, but got open_publisher");
    rsi_testing_client_close(&state->client);
}

static void test_garbage(void **arg)
{
    struct state *state = *arg;
    static const uint8_t garbage[] = {0, 0xff, 0xff, 0xff, 0xff};
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_open(&state->client, &state->broker, "noise");
    assert_int_equal(rsi_link_send_control(state->client.link, garbage, sizeof(garbage)), RSI_OK);
    rsi_testing_client_expect_refused(&state->client, RINGSIDE__CONTROL__REASON__REASON_PROTOCOL,
                                      "control message");
    rsi_testing_client_close(&state->client);
}

static void test_sizes(void **arg)
{
    struct state *state = *arg;
    static const struct {
        uint64_t publish_bytes;
        uint64_t deliver_bytes;
        uint64_t message_bytes;
        const char *part; /* NULL: welcome, with... */
        uint64_t expected_message_bytes;
    } cases[] = {
        {100000, 0, 0, "power of two", 0},
        {4096, 0, 0, "power of two from 65536", 0},
        {0, 1ull << 40, 0, "power of two", 0},
        {65536, 0, 16 << 10, NULL, 16 << 10},
        {65536, 0, 0, NULL, 16 << 10},
        {65536, 0, 1024, NULL, 1024},
        {131072, 65536, 1 << 20, NULL, 16 << 10},
        {0, 0, 0, NULL, 16 << 10},
    };
    rsi_testing_broker_start(&state->broker);
    for (size_t i = 0; i < rsi_array_count(cases); i++) {
        rsi_testing_client_open(&state->client, &state->broker, "sized");
        rsi_testing_client_hello(&state->client, "");
        rsi_testing_client_authenticate(&state->client, NULL, cases[i].publish_bytes,
                                        cases[i].deliver_bytes, cases[i].message_bytes);
        if (cases[i].part != NULL) {
            rsi_testing_client_expect_refused(
                &state->client, RINGSIDE__CONTROL__REASON__REASON_INVALID, cases[i].part);
        } else {
            rsi_testing_client_attach(&state->client);
            assert_int_equal(state->client.message_bytes_max, cases[i].expected_message_bytes);
        }
        rsi_testing_client_close(&state->client);
    }
}

/* A ring that cannot hold four of the largest messages is refused, and the text says what can. */
static void test_small_rings(void **arg)
{
    struct state *state = *arg;
    state->broker.settings.message_bytes_max = 32 << 10;
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_open(&state->client, &state->broker, "small");
    rsi_testing_client_hello(&state->client, "");
    rsi_testing_client_authenticate(&state->client, NULL, 0, 65536, 0);
    rsi_testing_client_expect_refused(&state->client, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                                      "131072");
    rsi_testing_client_close(&state->client);

    rsi_testing_client_open(&state->client, &state->broker, "small");
    rsi_testing_client_hello(&state->client, "");
    rsi_testing_client_authenticate(&state->client, NULL, 65536, 0, 32 << 10);
    rsi_testing_client_expect_refused(&state->client, RINGSIDE__CONTROL__REASON__REASON_INVALID,
                                      "16384");
    rsi_testing_client_close(&state->client);
}

static void test_authenticate_timeout(void **arg)
{
    struct state *state = *arg;
    state->broker.settings.authenticate_timeout_ns = 300000000;
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_open(&state->client, &state->broker, "silent");
    rsi_testing_client_expect_refused(&state->client, RINGSIDE__CONTROL__REASON__REASON_TIMED_OUT,
                                      "in time");
    rsi_testing_client_expect_end(&state->client);
    rsi_testing_client_close(&state->client);
}

/* One more than may be unauthenticated waits at the door until there is a place. */
static void test_unauthenticated_limit(void **arg)
{
    struct state *state = *arg;
    struct rsi_testing_client second;
    state->broker.settings.unauthenticated_count_max = 1;
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_open(&state->client, &state->broker, "first");
    rsi_testing_client_dial(&second, &state->broker, "second");
    uint64_t until_ns = rsi_clock_now_ns() + 50000000;
    rsi_testing_wait(&second, &state->client, rsi_clock_now_ns() > until_ns);
    assert_int_equal(rsi_link_state(second.link), RSI_LINK_CONNECTING);

    rsi_testing_client_hello(&state->client, "");
    rsi_testing_client_authenticate(&state->client, NULL, 65536, 65536, 0);
    rsi_testing_client_attach(&state->client);
    rsi_testing_wait(&second, &state->client, rsi_link_state(second.link) == RSI_LINK_OPEN);
    rsi_testing_client_close(&second);
    rsi_testing_client_join(&second, &state->broker, "second");
    rsi_testing_client_close(&second);
    rsi_testing_client_close(&state->client);
}

static void test_client_limit(void **arg)
{
    struct state *state = *arg;
    struct rsi_testing_client second;
    state->broker.settings.client_count_max = 1;
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_join(&state->client, &state->broker, "first");
    rsi_testing_client_open(&second, &state->broker, "second");
    rsi_testing_client_hello(&second, "");
    rsi_testing_client_authenticate(&second, NULL, 65536, 65536, 0);
    rsi_testing_client_expect_refused(&second, RINGSIDE__CONTROL__REASON__REASON_LIMIT,
                                      "client_count_max");
    rsi_testing_client_close(&second);

    /* The place is free again once the first has left. */
    rsi_testing_client_say_bye(&state->client);
    rsi_testing_client_expect_bye(&state->client, RINGSIDE__CONTROL__REASON__REASON_GOODBYE);
    rsi_testing_client_join(&second, &state->broker, "second");
    rsi_testing_client_close(&second);
    rsi_testing_client_close(&state->client);
}

static void test_one_name_twice(void **arg)
{
    struct state *state = *arg;
    struct rsi_testing_client second;
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_join(&state->client, &state->broker, "twin");
    rsi_testing_client_join(&second, &state->broker, "twin");
    assert_int_not_equal(state->client.session, second.session);
    rsi_testing_client_close(&second);
    rsi_testing_client_close(&state->client);
}

int main(int argc, char **argv)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_welcome_without_token),
        CASE(test_welcome_with_token),
        CASE(test_wrong_proof),
        CASE(test_wrong_version),
        CASE(test_bad_hello),
        CASE(test_message_before_hello),
        CASE(test_garbage),
        CASE(test_sizes),
        CASE(test_small_rings),
        CASE(test_authenticate_timeout),
        CASE(test_unauthenticated_limit),
        CASE(test_client_limit),
        CASE(test_one_name_twice),
    };
    if (argc > 1) {
        rsi_testing_use(argv[1]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
