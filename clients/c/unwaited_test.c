/*
 * Connecting, subscribing and opening publishers without waiting, over every transport that needs
 * no device: by the descriptor and by events alone, also from inside callbacks.
 */
#include "clients/c/broker_testing.h"
#include "clients/c/client.h"
#include "clients/c/hand_testing.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)

enum { EVENT_MAX = 64 };

struct fixture {
    struct broker_testing testing;
    struct hand_broker hand;
    ringside_client_t *client;
    ringside_subscription_t *subscription;
    ringside_publisher_t *publisher;
    bool begins_in_events; /* subscribes, opens and publishes in callbacks */
    bool ends_in_callback; /* unsubscribes in the callback of a message */
    uint32_t message_count;
    uint32_t event_count;
    ringside_event_type_t events[EVENT_MAX];
    ringside_status_t statuses[EVENT_MAX];
    const void *objects[EVENT_MAX];
    char text[512]; /* of the last one */
};

static const char *transport;

static const ringside_subscribe_options_t unwaited = {.struct_bytes = sizeof(unwaited),
                                                      .timeout_ns = RINGSIDE_NO_WAIT};

static void on_message(void *arg, const ringside_message_t *message)
{
    struct fixture *fixture = arg;
    assert_int_equal(message->bytes, 5);
    fixture->message_count++;
    if (fixture->ends_in_callback) {
        assert_int_equal(ringside_unsubscribe(fixture->subscription, RINGSIDE_NO_WAIT),
                         RINGSIDE_OK);
        ringside_publisher_destroy(fixture->publisher);
    }
}

static void begin_in_event(struct fixture *fixture, const ringside_event_t *event)
{
    ringside_client_t *client = fixture->client;
    if (event->type == RINGSIDE_EVENT_CONNECTED) {
        assert_int_equal(
            ringside_subscribe(&fixture->subscription, client, "a.>", NULL, on_message, fixture),
            RINGSIDE_E_STATE); /* it would wait */
        assert_non_null(strstr(ringside_error_text(client), "RINGSIDE_NO_WAIT"));
        assert_int_equal(ringside_subscribe(&fixture->subscription, client, "a.>", &unwaited,
                                            on_message, fixture),
                         RINGSIDE_IN_PROGRESS);
    } else if (event->type == RINGSIDE_EVENT_SUBSCRIBED) {
        assert_ptr_equal(event->subscription, fixture->subscription);
        assert_int_equal(
            ringside_publisher_create(&fixture->publisher, client, "a.b", RINGSIDE_NO_WAIT),
            RINGSIDE_IN_PROGRESS);
        assert_string_equal(ringside_publisher_subject(fixture->publisher), "a.b");
        assert_int_equal(ringside_publish(fixture->publisher, "early", 5), RINGSIDE_WOULD_BLOCK);
        assert_non_null(strstr(ringside_error_text(client), "OPENED"));
    } else if (event->type == RINGSIDE_EVENT_OPENED) {
        assert_ptr_equal(event->opened, fixture->publisher);
        assert_int_equal(ringside_publish(fixture->publisher, "hello", 5), RINGSIDE_OK);
    }
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct fixture *fixture = arg;
    uint32_t at = fixture->event_count++;
    assert_true(at < EVENT_MAX);
    fixture->events[at] = event->type;
    fixture->statuses[at] = event->status;
    fixture->objects[at] = event->type == RINGSIDE_EVENT_SUBSCRIBED
                               ? (const void *)event->subscription
                               : (const void *)event->opened;
    snprintf(fixture->text, sizeof(fixture->text), "%s", event->text);
    if (fixture->begins_in_events) {
        begin_in_event(fixture, event);
    }
}

static const char *url_of(const struct broker_testing *testing)
{
    if (strcmp(transport, "tcp") == 0) {
        return testing->tcp_url;
    }
    return strcmp(transport, "shm") == 0 ? testing->shm_url : testing->sim_url;
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    broker_testing_init(&fixture->testing);
    fixture->testing.settings.publication_count_max = 4;
    fixture->testing.settings.client_count_max = 64;
    broker_testing_start(&fixture->testing);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    if (fixture->client != NULL) {
        assert_int_equal(ringside_close(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);
    }
    broker_testing_fini(&fixture->testing);
    free(fixture);
    return 0;
}

static void begin(struct fixture *fixture, const char *url, uint64_t timeout_ns)
{
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .client_name = "unwaited",
                                        .connect_timeout_ns = timeout_ns,
                                        .no_wait = 1,
                                        .on_event = on_event,
                                        .event_arg = fixture};
    assert_int_equal(ringside_connect(&fixture->client, url, &options), RINGSIDE_IN_PROGRESS);
    assert_non_null(fixture->client);
}

/* As a program does that waits on the descriptor alone: polls until nothing is handled. */
static ringside_status_t drain(struct fixture *fixture)
{
    size_t handled = 1;
    ringside_status_t status = RINGSIDE_OK;
    while (handled > 0 && status == RINGSIDE_OK) {
        status = ringside_poll(fixture->client, 0, 0, &handled);
    }
    return status;
}

#define wait_until(fixture, condition)                                                      \
    do {                                                                                    \
        struct pollfd entry = {.fd = ringside_fd((fixture)->client), .events = POLLIN};     \
        uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;                        \
        while (!(condition)) {                                                              \
            if (poll(&entry, 1, 20000) != 1 || rsi_test_now_ns() > deadline_ns)             \
                fail_msg("the descriptor is silent: %s (%s)", #condition, (fixture)->text); \
            (void)drain(fixture);                                                           \
        }                                                                                   \
    } while (0)

static void test_by_events(void **state)
{
    struct fixture *fixture = *state;
    fixture->begins_in_events = true;
    begin(fixture, url_of(&fixture->testing), 0);
    wait_until(fixture, fixture->message_count == 1);
    static const ringside_event_type_t expected[] = {
        RINGSIDE_EVENT_CONNECTED, RINGSIDE_EVENT_SUBSCRIBED, RINGSIDE_EVENT_OPENED};
    assert_int_equal(fixture->event_count, 3);
    assert_memory_equal(fixture->events, expected, sizeof(expected));
    assert_string_equal(ringside_transport(fixture->client), transport);

    /* Both are given up inside the callback of a message: the next one finds nobody. */
    fixture->ends_in_callback = true;
    assert_int_equal(ringside_publish(fixture->publisher, "hello", 5), RINGSIDE_OK);
    assert_int_equal(ringside_publish(fixture->publisher, "hello", 5), RINGSIDE_OK);
    wait_until(fixture, fixture->client->subscription_count == 0);
    assert_int_equal(fixture->message_count, 2);
    assert_int_equal(fixture->event_count, 3);
}

static void test_while_connecting(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture, url_of(&fixture->testing), 0);
    ringside_link_stats_t stats = {.struct_bytes = sizeof(stats)};
    assert_int_equal(ringside_subscribe(&fixture->subscription, fixture->client, "a", &unwaited,
                                        on_message, fixture),
                     RINGSIDE_E_STATE);
    assert_non_null(strstr(ringside_error_text(fixture->client), "still connecting"));
    assert_int_equal(
        ringside_publisher_create(&fixture->publisher, fixture->client, "a", RINGSIDE_NO_WAIT),
        RINGSIDE_E_STATE);
    assert_int_equal(ringside_publisher_create(&fixture->publisher, fixture->client, "a", 0),
                     RINGSIDE_E_STATE);
    assert_int_equal(ringside_flush(fixture->client, SECOND_NS), RINGSIDE_E_STATE);
    assert_int_equal(ringside_stats(fixture->client, &stats), RINGSIDE_E_STATE);
    assert_string_equal(ringside_transport(fixture->client), "");
    assert_string_equal(ringside_transport_why(fixture->client), "");
    assert_int_equal(ringside_message_bytes_max(fixture->client), 0);
    /* A poll may wait for it as well. */
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (fixture->event_count == 0) {
        assert_int_equal(ringside_poll(fixture->client, 0, SECOND_NS, NULL), RINGSIDE_OK);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    assert_int_equal(fixture->events[0], RINGSIDE_EVENT_CONNECTED);
    assert_int_equal(ringside_flush(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* At every step of the way: nothing is left behind (the sanitizers' part). */
static void test_close_while_connecting(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t polls = 0; polls < 30; polls++) {
        begin(fixture, url_of(&fixture->testing), 0);
        for (uint32_t count = 0; count < polls; count++) {
            ringside_status_t status = ringside_poll(fixture->client, 0, count * 10000, NULL);
            if (status != RINGSIDE_OK) {
                fail_msg("%s", fixture->text);
            }
        }
        assert_int_equal(ringside_close(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);
        fixture->client = NULL;
        fixture->event_count = 0;
    }
}

static void expect_not_connected(struct fixture *fixture, ringside_status_t status)
{
    wait_until(fixture, fixture->event_count > 0);
    assert_int_equal(fixture->event_count, 1);
    assert_int_equal(fixture->events[0], RINGSIDE_EVENT_LOST);
    assert_int_equal(fixture->statuses[0], status);
    assert_int_equal(ringside_poll(fixture->client, 0, 0, NULL), RINGSIDE_E_LOST);
    assert_int_equal(ringside_publisher_create(&fixture->publisher, fixture->client, "a", 0),
                     RINGSIDE_E_LOST);
    assert_non_null(strstr(ringside_error_text(fixture->client), "the session is over"));
}

static void test_nobody_there(void **state)
{
    struct fixture *fixture = *state;
    char url[RSI_SETTING_TEXT_BYTES];
    snprintf(url, sizeof(url), "%s", url_of(&fixture->testing));
    broker_testing_stop(&fixture->testing);
    rsi_broker_destroy(fixture->testing.broker);
    fixture->testing.broker = NULL;
    begin(fixture, url, 0);
    wait_until(fixture, fixture->event_count > 0);
    assert_non_null(strstr(fixture->text, url));
    expect_not_connected(fixture, fixture->statuses[0]);
    assert_true(fixture->statuses[0] < 0);
}

static void test_silent_listener(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_bytes = sizeof(address);
    char url[64];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, address_bytes), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &address_bytes), 0);
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", ntohs(address.sin_port));
    begin(fixture, url, SECOND_NS / 5);
    expect_not_connected(fixture, RINGSIDE_E_TIMED_OUT);
    close(fd);
}

static void test_wrong_at_once(void **state)
{
    (void)state;
    ringside_client_t *client = NULL;
    const ringside_options_t options = {.struct_bytes = sizeof(options), .no_wait = 1};
    assert_int_equal(ringside_connect(&client, "tcp:/x", &options), RINGSIDE_E_INVALID);
    assert_null(client);
}

/* auto:// goes from one way to the next without waiting either. */
static void test_auto(void **state)
{
    struct fixture *fixture = *state;
    char url[64];
    snprintf(url, sizeof(url), "auto://127.0.0.1:%s", strrchr(fixture->testing.tcp_url, ':') + 1);
    setenv("RINGSIDE_RUN_DIR", fixture->testing.directory, 1);
    begin(fixture, url, 0);
    wait_until(fixture, fixture->event_count > 0);
    unsetenv("RINGSIDE_RUN_DIR");
    assert_int_equal(fixture->events[0], RINGSIDE_EVENT_CONNECTED);
    assert_string_equal(ringside_transport(fixture->client), "tcp");
}

/* The broker opens four: the fifth is told as refused, with its reason, and is gone. */
static void test_refused(void **state)
{
    struct fixture *fixture = *state;
    ringside_publisher_t *publishers[7] = {NULL};
    begin(fixture, url_of(&fixture->testing), 0);
    wait_until(fixture, fixture->event_count > 0);
    for (uint32_t at = 0; at < 7; at++) {
        assert_int_equal(
            ringside_publisher_create(&publishers[at], fixture->client, "a.b", RINGSIDE_NO_WAIT),
            RINGSIDE_IN_PROGRESS);
    }
    /* Given up before the answer, one that is granted and one that is not: no event. */
    ringside_publisher_destroy(publishers[1]);
    ringside_publisher_destroy(publishers[6]);
    wait_until(fixture, fixture->event_count == 6);
    uint32_t granted_count = 0;
    for (uint32_t at = 1; at < 6; at++) {
        assert_int_equal(fixture->events[at], RINGSIDE_EVENT_OPENED);
        assert_ptr_not_equal(fixture->objects[at], publishers[1]);
        assert_ptr_not_equal(fixture->objects[at], publishers[6]);
        granted_count += fixture->statuses[at] == RINGSIDE_OK;
        assert_true(fixture->statuses[at] == RINGSIDE_OK ||
                    fixture->statuses[at] == RINGSIDE_E_LIMIT);
    }
    assert_in_range(granted_count, 3, 4);
    assert_int_equal(ringside_publish(publishers[0], "hello", 5), RINGSIDE_OK);
    assert_int_equal(ringside_flush(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* ---- against a broker made by hand -------------------------------------------------------------
 */

static int setup_hand(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    hand_broker_init(&fixture->hand, "unwaited");
    begin(fixture, fixture->hand.url, 0);
    wait_until(fixture, fixture->event_count > 0);
    *state = fixture;
    return 0;
}

static int teardown_hand(void **state)
{
    struct fixture *fixture = *state;
    (void)ringside_close(fixture->client, 0);
    hand_broker_fini(&fixture->hand);
    free(fixture);
    return 0;
}

/* What is asked for while there is no link is asked for over the next one. */
static void test_across_a_cut(void **state)
{
    struct fixture *fixture = *state;
    hand_broker_set(&fixture->hand, is_silent, true);
    assert_int_equal(ringside_subscribe(&fixture->subscription, fixture->client, "a.>", &unwaited,
                                        on_message, fixture),
                     RINGSIDE_IN_PROGRESS);
    hand_broker_cut(&fixture->hand);
    wait_until(fixture, fixture->events[fixture->event_count - 1] == RINGSIDE_EVENT_SUSPENDED);
    assert_int_equal(
        ringside_publisher_create(&fixture->publisher, fixture->client, "a.b", RINGSIDE_NO_WAIT),
        RINGSIDE_IN_PROGRESS);
    hand_broker_set(&fixture->hand, is_silent, false);
    wait_until(fixture, fixture->event_count == 5); /* resumed, and both */
    assert_int_equal(ringside_publish(fixture->publisher, "hello", 5), RINGSIDE_OK);
    wait_until(fixture, fixture->message_count == 1);
}

/* The broker never answers: given up, waited for by nobody, and closed. */
static void test_no_answer(void **state)
{
    struct fixture *fixture = *state;
    hand_broker_set(&fixture->hand, forgets_requests, true);
    for (uint32_t count = 0; count < 3; count++) {
        assert_int_equal(ringside_subscribe(&fixture->subscription, fixture->client, "a.>",
                                            &unwaited, on_message, fixture),
                         RINGSIDE_IN_PROGRESS);
        assert_int_equal(ringside_publisher_create(&fixture->publisher, fixture->client, "a.b",
                                                   RINGSIDE_NO_WAIT),
                         RINGSIDE_IN_PROGRESS);
    }
    assert_int_equal(ringside_unsubscribe(fixture->subscription, SECOND_NS), RINGSIDE_OK);
    ringside_publisher_destroy(fixture->publisher);
    assert_int_equal(ringside_poll(fixture->client, 0, 20000000, NULL), RINGSIDE_OK);
    assert_int_equal(fixture->event_count, 1);
}

static void test_refused_by_hand(void **state)
{
    struct fixture *fixture = *state;
    hand_broker_set(&fixture->hand, refuses_publishers, true);
    assert_int_equal(
        ringside_publisher_create(&fixture->publisher, fixture->client, "a.b", RINGSIDE_NO_WAIT),
        RINGSIDE_IN_PROGRESS);
    wait_until(fixture, fixture->event_count == 2);
    assert_int_equal(fixture->events[1], RINGSIDE_EVENT_OPENED);
    assert_true(fixture->statuses[1] < 0);
    assert_ptr_equal(fixture->objects[1], fixture->publisher);
    assert_null(fixture->client->publishers[0]);
}

#define TEST(function)      cmocka_unit_test_setup_teardown(function, setup, teardown)
#define HAND_TEST(function) cmocka_unit_test_setup_teardown(function, setup_hand, teardown_hand)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_by_events),    TEST(test_while_connecting), TEST(test_close_while_connecting),
        TEST(test_nobody_there), TEST(test_silent_listener),  TEST(test_wrong_at_once),
        TEST(test_auto),         TEST(test_refused),
    };
    static const char *const transports[] = {"shm", "tcp", "sim"};
    int failed_count = 0;
    for (size_t index = 0; index < rsi_array_count(transports); index++) {
        transport = transports[index];
        failed_count += cmocka_run_group_tests_name(transport, tests, NULL, NULL);
    }
    const struct CMUnitTest hand_tests[] = {HAND_TEST(test_across_a_cut), HAND_TEST(test_no_answer),
                                            HAND_TEST(test_refused_by_hand)};
    failed_count += cmocka_run_group_tests_name("by hand", hand_tests, NULL, NULL);
    return failed_count;
}
