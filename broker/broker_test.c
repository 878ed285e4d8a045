/*
 * The broker as a whole: start, stop in every state of its clients, counters. argv[1]: the
 * transport, tcp by default.
 */
#include "broker/broker_testing.h"
#include "core/counters.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    rsi_testing_broker_fini(&made->broker);
    test_free(made);
    return 0;
}

static void test_never_run(void **arg)
{
    struct state *state = *arg;
    struct rsi_error error = {0};
    if (rsi_failed(rsi_broker_create(&state->broker.broker, &state->broker.settings, &error))) {
        fail_msg("%s", error.text);
    }
    assert_non_null(strstr(rsi_broker_urls(state->broker.broker), "://"));
}

static void test_stop_before_run(void **arg)
{
    struct state *state = *arg;
    struct rsi_error error = {0};
    if (rsi_failed(rsi_broker_create(&state->broker.broker, &state->broker.settings, &error))) {
        fail_msg("%s", error.text);
    }
    rsi_broker_stop(state->broker.broker);
    assert_int_equal(rsi_broker_run(state->broker.broker, &error), RSI_OK);
}

static void test_address_in_use(void **arg)
{
    struct state *state = *arg;
    struct rsi_settings settings;
    struct rsi_broker *second = NULL;
    struct rsi_error error = {0};
    rsi_testing_broker_start(&state->broker);
    rsi_settings_init(&settings);
    char url[RSI_SETTING_TEXT_BYTES];
    snprintf(url, sizeof(url), "%s", rsi_broker_urls(state->broker.broker));
    url[strcspn(url, "\n")] = '\0';
    rsi_setting_clear(&settings, rsi_setting_find("listen"));
    assert_int_equal(rsi_setting_assign(&settings, rsi_setting_find("listen"), url, NULL), RSI_OK);
    settings.counters_path[0] = '\0';
    settings.log_bytes = 4 << 20;
    assert_true(rsi_failed(rsi_broker_create(&second, &settings, &error)));
    assert_null(second);
    assert_non_null(strstr(error.text, url));
    rsi_settings_fini(&settings);
    rsi_testing_broker_stop(&state->broker);
    assert_int_equal(rsi_testing_broker_join(&state->broker), RSI_OK);
}

/* A stop finds one client unauthenticated, one idle: the first is refused, the second told goodbye.
 */
static void test_stop_tells_everybody(void **arg)
{
    struct state *state = *arg;
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_open(&state->client, &state->broker, "early");
    rsi_testing_client_hello(&state->client, "");
    rsi_testing_client_join(&state->other, &state->broker, "idle");
    rsi_testing_broker_stop(&state->broker);
    rsi_testing_client_expect_refused(&state->client, RINGSIDE__CONTROL__REASON__REASON_STOPPING,
                                      "stops");
    rsi_testing_client_expect_bye(&state->other, RINGSIDE__CONTROL__REASON__REASON_STOPPING);
    rsi_testing_client_expect_end(&state->client);
    rsi_testing_client_expect_end(&state->other);
    assert_int_equal(rsi_testing_broker_join(&state->broker), RSI_OK);
    rsi_testing_client_close(&state->client);
    rsi_testing_client_close(&state->other);
}

static void make_pair(struct state *state, const char *subject, Ringside__Control__Policy policy)
{
    rsi_testing_broker_start(&state->broker);
    rsi_testing_client_join(&state->client, &state->broker, "writer");
    rsi_testing_client_join(&state->other, &state->broker, "reader");
    rsi_testing_client_expect_subscribed(
        &state->other, rsi_testing_client_subscribe(&state->other, 1, subject, policy));
    rsi_testing_client_expect_opened(&state->client,
                                     rsi_testing_client_open_publisher(&state->client, 1, subject));
}

/* What arrived before the stop is delivered before the goodbye. */
static void test_stop_drains(void **arg)
{
    struct state *state = *arg;
    enum { MESSAGE_COUNT = 4000 };
    uint64_t next = 0;
    make_pair(state, "drain", RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    for (uint64_t i = 0; i < MESSAGE_COUNT; i++) {
        rsi_testing_client_publish(&state->client, 1, i);
    }
    rsi_testing_wait(&state->client, NULL,
                     state->client.link->peer_arrived_pos == state->client.link->placed_pos);
    rsi_testing_broker_stop(&state->broker);
    rsi_testing_wait(&state->other, &state->client,
                     (rsi_testing_client_read(&state->other, &next), next == MESSAGE_COUNT));
    rsi_testing_client_expect_bye(&state->other, RINGSIDE__CONTROL__REASON__REASON_STOPPING);
    rsi_testing_client_expect_bye(&state->client, RINGSIDE__CONTROL__REASON__REASON_STOPPING);
    rsi_testing_client_expect_end(&state->other);
    rsi_testing_client_expect_end(&state->client);
    assert_int_equal(rsi_testing_broker_join(&state->broker), RSI_OK);
    rsi_testing_client_close(&state->client);
    rsi_testing_client_close(&state->other);
}

static void publish_many(struct state *state, uint64_t count)
{
    for (uint64_t number = 0; number < count; number++) {
        rsi_testing_client_publish(&state->client, 1, number);
    }
}

/* Fills the reader's ring, which it does not empty, until the broker's log holds the rest. */
static void fill_reader(struct state *state)
{
    struct rsi_link *link = state->other.link;
    rsi_testing_wait(
        &state->client, &state->other,
        (publish_many(state, 100), link->arrived_pos + 4096 > link->in.capacity_bytes));
    publish_many(state, 2000);
    rsi_testing_wait(&state->client, &state->other,
                     state->client.link->peer_arrived_pos == state->client.link->placed_pos);
}

/* A reader that reads nothing holds a stop up for the drain time and no longer. */
static void test_drain_time_runs_out(void **arg)
{
    struct state *state = *arg;
    state->broker.settings.drain_timeout_ns = 300000000;
    make_pair(state, "stuck", RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    fill_reader(state);
    rsi_testing_broker_stop(&state->broker);
    rsi_testing_client_expect_bye(&state->other, RINGSIDE__CONTROL__REASON__REASON_STOPPING);
    rsi_testing_client_expect_end(&state->other);
    rsi_testing_client_expect_end(&state->client);
    assert_int_equal(rsi_testing_broker_join(&state->broker), RSI_E_TIMED_OUT);
    assert_non_null(strstr(state->broker.error.text, "1 session"));
    rsi_testing_client_close(&state->client);
    rsi_testing_client_close(&state->other);
}

/* The second stop does not wait for the drain time. */
static void test_second_stop_is_at_once(void **arg)
{
    struct state *state = *arg;
    state->broker.settings.drain_timeout_ns = UINT64_C(3600000000000);
    make_pair(state, "stuck", RINGSIDE__CONTROL__POLICY__POLICY_BLOCK);
    fill_reader(state);
    rsi_testing_broker_stop(&state->broker);
    rsi_testing_broker_stop(&state->broker);
    rsi_testing_client_expect_end(&state->other);
    rsi_testing_client_expect_end(&state->client);
    assert_int_equal(rsi_testing_broker_join(&state->broker), RSI_E_TIMED_OUT);
    rsi_testing_client_close(&state->client);
    rsi_testing_client_close(&state->other);
}

/* Clients that do not read their lane nor drive their link cannot hold a stop up. */
static void test_stop_with_dead_clients(void **arg)
{
    struct state *state = *arg;
    make_pair(state, "dead", RINGSIDE__CONTROL__POLICY__POLICY_DROP);
    rsi_testing_broker_stop(&state->broker);
    assert_int_equal(rsi_testing_broker_join(&state->broker), RSI_OK);
    rsi_testing_client_close(&state->client);
    rsi_testing_client_close(&state->other);
}

static bool find(const char *path, const char *name, const char *label,
                 struct rsi_counter_view *view)
{
    struct rsi_counters_reader *reader = NULL;
    struct rsi_error error = {0};
    if (rsi_failed(rsi_counters_open(&reader, path, &error))) {
        fail_msg("%s", error.text);
    }
    bool is_found = rsi_counters_find(reader, name, label, view);
    rsi_counters_close(reader);
    return is_found;
}

static bool publish_one(struct rsi_testing_client *client, uint64_t value)
{
    rsi_testing_client_publish(client, 1, value);
    return true;
}

static void test_counters(void **arg)
{
    struct state *state = *arg;
    struct rsi_counter_view view = {0};
    char path[128];
    snprintf(path, sizeof(path), "%s/counters", state->broker.directory);
    snprintf(state->broker.settings.counters_path, RSI_SETTING_TEXT_BYTES, "%s", path);
    state->broker.settings.counters_path_is_default = false;
    make_pair(state, "counted", RINGSIDE__CONTROL__POLICY__POLICY_DROP);
    for (uint64_t i = 0; i < 100; i++) {
        rsi_testing_client_publish(&state->client, 1, i);
    }

    assert_true(find(path, "broker.version", "", &view));
    assert_non_null(strstr(view.text, "ringsided"));
    assert_true(find(path, "broker.listener", NULL, &view));
    assert_true(find(path, "session.link", "writer#1", &view));
    assert_non_null(strstr(view.text, state->client.transport->name));
    rsi_testing_wait(&state->client, &state->other,
                     find(path, "session.admitted_messages", "writer#1", &view) &&
                         view.value == 100);
    rsi_testing_wait(&state->client, &state->other,
                     find(path, "session.delivered_messages", "reader#2", &view) &&
                         view.value == 100);
    rsi_testing_wait(&state->client, &state->other,
                     find(path, "broker.sessions", "", &view) && view.value == 2);
    assert_true(find(path, "link.placed_bytes", "reader#2", &view));
    assert_true(view.value > 0);
    assert_true(find(path, "session.deliver_ring_bytes", "reader#2", &view));
    assert_true(view.value >= 65536);
    assert_true(find(path, "agent.thread", "0", &view));
    assert_non_null(strstr(view.text, "not pinned"));
    assert_true(find(path, "topic", NULL, &view));
    assert_string_equal(view.text, "1 counted");
    assert_true(find(path, "subscription", NULL, &view));
    assert_string_equal(view.text, "drop counted");
    assert_true(strncmp(view.label, "reader#2/", 9) == 0);
    assert_true(find(path, "broker.subscriptions", "", &view) && view.value == 1);
    rsi_testing_wait(&state->client, &state->other,
                     publish_one(&state->client, 1) &&
                         find(path, "session.latency_max_ns", "reader#2", &view) && view.value > 0);

    /* A session's records go with it, the file goes with the broker. */
    rsi_testing_client_close(&state->client);
    rsi_testing_wait(&state->other, NULL, !find(path, "session.link", "writer#1", &view));
    rsi_testing_wait(&state->other, NULL, !find(path, "topic", NULL, &view));
    rsi_testing_broker_stop(&state->broker);
    assert_int_equal(rsi_testing_broker_join(&state->broker), RSI_OK);
    rsi_testing_client_close(&state->other);
}

int main(int argc, char **argv)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_never_run),
        CASE(test_stop_before_run),
        CASE(test_address_in_use),
        CASE(test_stop_tells_everybody),
        CASE(test_stop_drains),
        CASE(test_drain_time_runs_out),
        CASE(test_second_stop_is_at_once),
        CASE(test_stop_with_dead_clients),
        CASE(test_counters),
    };
    if (argc > 1) {
        rsi_testing_use(argv[1]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
