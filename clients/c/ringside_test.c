/*
 * The public interface against a whole broker in this process, the same tests over every transport
 * that needs no device: shm, tcp, and the simulated one, whose wire delays and cuts.
 *
 * Design notes
 * - Everything is awaited by its effect, with a deadline that only a hang reaches.
 * - Clients are polled by the test's one thread, several of them where a test needs several:
 * nothing in the library may rely on the other client being polled meanwhile, but for messages to
 * arrive.
 */
#include "clients/c/broker_testing.h"
#include "clients/c/client.h"
#include "core/counters.h"
#include "transport/sim/sim.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define SECOND_NS UINT64_C(1000000000)

struct fixture {
    struct broker_testing testing;
    const char *url;
    struct recorder recorder;
    struct recorder other;
};

/* The transport of the pass under way: the tests run once over each. */
static const char *transport;

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
    broker_testing_start(&fixture->testing);
    fixture->url = url_of(&fixture->testing);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    broker_testing_fini(&fixture->testing);
    free(fixture);
    return 0;
}

static ringside_client_t *connect_as(struct fixture *fixture, const char *name,
                                     struct recorder *events)
{
    ringside_options_t options = {.struct_bytes = sizeof(options), .client_name = name};
    if (events != NULL) {
        options.on_event = recorder_on_event;
        options.event_arg = events;
    }
    ringside_client_t *client = NULL;
    if (ringside_connect(&client, fixture->url, &options) != RINGSIDE_OK) {
        fail_msg("connect: %s", ringside_last_error());
    }
    assert_non_null(client);
    return client;
}

static ringside_publisher_t *publisher_on(ringside_client_t *client, const char *subject)
{
    ringside_publisher_t *publisher = NULL;
    assert_ok(client, ringside_publisher_create(&publisher, client, subject, 0));
    assert_string_equal(ringside_publisher_subject(publisher), subject);
    return publisher;
}

static ringside_subscription_t *subscribe_to(ringside_client_t *client, const char *subject,
                                             bool no_echo, struct recorder *recorder)
{
    const ringside_subscribe_options_t options = {
        .struct_bytes = sizeof(options), .no_echo = no_echo, .policy = RINGSIDE_POLICY_BLOCK};
    ringside_subscription_t *subscription = NULL;
    assert_ok(client, ringside_subscribe(&subscription, client, subject, &options,
                                         recorder_on_message, recorder));
    return subscription;
}

static void publish_text(ringside_client_t *client, ringside_publisher_t *publisher,
                         const char *text)
{
    assert_ok(client, ringside_publish(publisher, text, strlen(text)));
}

static void test_roundtrip(void **state)
{
    struct fixture *fixture = *state;
    struct recorder *recorder = &fixture->recorder;
    ringside_client_t *subscriber = connect_as(fixture, "reader", &fixture->other);
    ringside_client_t *client = connect_as(fixture, "writer", NULL);
    subscribe_to(subscriber, "md.XNAS.AAPL", false, recorder);
    ringside_publisher_t *publisher = publisher_on(client, "md.XNAS.AAPL");
    assert_string_equal(ringside_transport(client), transport);
    assert_non_null(strstr(ringside_transport_why(client), "asked for by the URL"));
    assert_true(ringside_message_bytes_max(client) >= 65536);

    publish_text(client, publisher, "first");
    publish_text(client, publisher, "second");
    assert_ok(client, ringside_flush(client, 5 * SECOND_NS));
    poll_until(subscriber, recorder->count == 2);
    assert_string_equal(recorder->records[0].subject, "md.XNAS.AAPL");
    assert_string_equal(recorder->records[0].publisher, "writer");
    assert_memory_equal(recorder->records[0].first_bytes, "first", 5);
    assert_memory_equal(recorder->records[1].first_bytes, "second", 6);
    assert_int_equal(recorder->records[0].sequence, 1);
    assert_int_equal(recorder->records[1].sequence, 2);

    /* The connected event came with the first poll and says how. */
    assert_int_equal(fixture->other.event_count, 1);
    assert_int_equal(fixture->other.last_event, RINGSIDE_EVENT_CONNECTED);

    ringside_link_stats_t stats = {.struct_bytes = sizeof(stats)};
    assert_int_equal(ringside_stats(client, &stats), RINGSIDE_OK);
    assert_int_equal(stats.placed_bytes, 48 + 48);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
    assert_int_equal(ringside_close(subscriber, 5 * SECOND_NS), RINGSIDE_OK);
}

static void test_wildcards(void **state)
{
    struct fixture *fixture = *state;
    static struct recorder star, rest, all;
    memset(&star, 0, sizeof(star));
    memset(&rest, 0, sizeof(rest));
    memset(&all, 0, sizeof(all));
    ringside_client_t *client = connect_as(fixture, "both", NULL);
    subscribe_to(client, "md.*.AAPL", false, &star);
    subscribe_to(client, "md.>", false, &rest);
    subscribe_to(client, ">", false, &all);
    static const char *const subjects[] = {"md.XNAS.AAPL", "md.XNAS.MSFT", "md.XLON.AAPL", "news"};
    for (size_t index = 0; index < rsi_array_count(subjects); index++) {
        publish_text(client, publisher_on(client, subjects[index]), subjects[index]);
    }
    poll_until(client, all.count == 4);
    assert_int_equal(star.count, 2);
    assert_int_equal(rest.count, 3);
    for (uint32_t index = 0; index < all.count; index++) {
        assert_memory_equal(all.records[index].subject, all.records[index].first_bytes,
                            all.records[index].bytes);
    }
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

static void test_claim_commit_abort(void **state)
{
    struct fixture *fixture = *state;
    struct recorder *recorder = &fixture->recorder;
    ringside_client_t *client = connect_as(fixture, "claimer", NULL);
    subscribe_to(client, "c", false, recorder);
    ringside_publisher_t *publisher = publisher_on(client, "c");
    ringside_publisher_t *other = publisher_on(client, "d");
    void *buffer = NULL;

    assert_ok(client, ringside_claim(publisher, 100, &buffer));
    memset(buffer, 'x', 100);
    /* One claim per client, and nothing may be published beside it. */
    void *second = NULL;
    assert_int_equal(ringside_claim(other, 1, &second), RINGSIDE_E_STATE);
    assert_non_null(strstr(ringside_error_text(client), "claim"));
    assert_int_equal(ringside_publish(other, "y", 1), RINGSIDE_E_STATE);
    assert_int_equal(ringside_commit(other, 1), RINGSIDE_E_STATE);
    assert_int_equal(ringside_commit(publisher, 101), RINGSIDE_E_INVALID);
    assert_ok(client, ringside_commit(publisher, 60)); /* fewer than claimed */

    ringside_link_stats_t before = {.struct_bytes = sizeof(before)};
    ringside_link_stats_t after = {.struct_bytes = sizeof(after)};
    assert_int_equal(ringside_stats(client, &before), RINGSIDE_OK);
    assert_ok(client, ringside_claim(publisher, 100, &buffer));
    memset(buffer, 'z', 100);
    ringside_abort(publisher);
    assert_int_equal(ringside_stats(client, &after), RINGSIDE_OK);
    assert_int_equal(before.placed_bytes, after.placed_bytes);
    assert_int_equal(ringside_commit(publisher, 10), RINGSIDE_E_STATE);

    publish_text(client, publisher, "end");
    poll_until(client, recorder->count == 2);
    assert_int_equal(recorder->records[0].bytes, 60);
    assert_int_equal(recorder->records[0].sum, 60 * 'x');
    assert_memory_equal(recorder->records[1].first_bytes, "end", 3);
    assert_int_equal(recorder->records[1].sequence, 2);
    ringside_abort(NULL);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

static void test_sizes(void **state)
{
    struct fixture *fixture = *state;
    struct recorder *recorder = &fixture->recorder;
    ringside_client_t *client = connect_as(fixture, "sizes", NULL);
    subscribe_to(client, "s", false, recorder);
    ringside_publisher_t *publisher = publisher_on(client, "s");
    size_t max = ringside_message_bytes_max(client);
    size_t sizes[] = {0, 1, 7, 8, 9, 39, 40, 41, 63, 64, 65, 4095, 65537, max - 1, max};
    uint8_t *data = malloc(max + 1);
    assert_non_null(data);
    for (size_t at = 0; at <= max; at++) {
        data[at] = (uint8_t)(at * 7 + 1);
    }

    for (size_t index = 0; index < rsi_array_count(sizes); index++) {
        ringside_status_t status;
        while ((status = ringside_publish(publisher, data, sizes[index])) == RINGSIDE_WOULD_BLOCK) {
            assert_ok(client, ringside_poll(client, 0, SECOND_NS, NULL));
        }
        assert_ok(client, status);
        poll_until(client, recorder->count == index + 1);
        uint64_t sum = 0;
        for (size_t at = 0; at < sizes[index]; at++) {
            sum += data[at];
        }
        assert_int_equal(recorder->records[index].bytes, sizes[index]);
        assert_int_equal(recorder->records[index].sum, sum);
    }

    /* One byte too many is refused with the way out, and the link lives. */
    assert_int_equal(ringside_publish(publisher, data, max + 1), RINGSIDE_E_TOO_LARGE);
    assert_non_null(strstr(ringside_error_text(client), "message_bytes_max"));
    assert_non_null(strstr(ringside_error_text(client), "publish_ring_bytes"));
    void *buffer = NULL;
    assert_int_equal(ringside_claim(publisher, max + 1, &buffer), RINGSIDE_E_TOO_LARGE);
    assert_ok(client, ringside_publish(publisher, "ok", 2));
    poll_until(client, recorder->count == rsi_array_count(sizes) + 1);
    free(data);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

static void test_echo(void **state)
{
    struct fixture *fixture = *state;
    static struct recorder quiet;
    memset(&quiet, 0, sizeof(quiet));
    ringside_client_t *client = connect_as(fixture, "self", NULL);
    ringside_client_t *stranger = connect_as(fixture, "stranger", NULL);
    subscribe_to(client, "e", false, &fixture->recorder);
    subscribe_to(client, "e", true, &quiet);
    publish_text(client, publisher_on(client, "e"), "own");
    poll_until(client, fixture->recorder.count == 1);
    publish_text(stranger, publisher_on(stranger, "e"), "foreign");
    poll_until(client, fixture->recorder.count == 2);
    assert_int_equal(quiet.count, 1);
    assert_string_equal(quiet.records[0].publisher, "stranger");
    assert_int_equal(ringside_close(stranger, 5 * SECOND_NS), RINGSIDE_OK);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

static void test_unsubscribe(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = connect_as(fixture, "leaver", NULL);
    ringside_subscription_t *leaving = subscribe_to(client, "u", false, &fixture->recorder);
    subscribe_to(client, "u", false, &fixture->other);
    ringside_publisher_t *publisher = publisher_on(client, "u");
    publish_text(client, publisher, "for both");
    poll_until(client, fixture->other.count == 1);
    assert_int_equal(fixture->recorder.count, 1);

    /* What is in the ring already is not handed over any more either. */
    publish_text(client, publisher, "on its way");
    assert_ok(client, ringside_unsubscribe(leaving, 0));
    publish_text(client, publisher, "for one");
    poll_until(client, fixture->other.count == 3);
    assert_int_equal(fixture->recorder.count, 1);

    /* And back again: no gap is told for what was not asked for. */
    subscribe_to(client, "u", false, &fixture->recorder);
    publish_text(client, publisher, "for both again");
    poll_until(client, fixture->other.count == 4);
    assert_int_equal(fixture->recorder.count, 2);
    assert_int_equal(ringside_unsubscribe(NULL, 0), RINGSIDE_OK);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* The only subscription goes and comes back: the broker announces anew, which is no gap. */
static void test_subscribe_again(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = connect_as(fixture, "back", &fixture->other);
    ringside_subscription_t *subscription = subscribe_to(client, "a", false, &fixture->recorder);
    ringside_publisher_t *publisher = publisher_on(client, "a");
    publish_text(client, publisher, "one");
    poll_until(client, fixture->recorder.count == 1);
    assert_ok(client, ringside_unsubscribe(subscription, 0));
    publish_text(client, publisher, "nobody listens");
    assert_ok(client, ringside_flush(client, 5 * SECOND_NS));
    subscribe_to(client, "a", false, &fixture->recorder);
    publish_text(client, publisher, "three");
    poll_until(client, fixture->recorder.count >= 2 &&
                           fixture->recorder.records[fixture->recorder.count - 1].sequence == 3);
    assert_int_equal(fixture->other.event_count, 1); /* connected */
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

static void test_publishers_come_and_go(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = connect_as(fixture, "churn", NULL);
    subscribe_to(client, "p", false, &fixture->recorder);
    for (uint32_t round = 0; round < 40; round++) {
        ringside_publisher_t *publisher = publisher_on(client, "p");
        publish_text(client, publisher, "last words");
        ringside_publisher_destroy(publisher);
    }
    poll_until(client, fixture->recorder.count == 40);
    for (uint32_t round = 0; round < 40; round++) {
        assert_int_equal(fixture->recorder.records[round].sequence, 1);
    }
    ringside_publisher_destroy(NULL);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* ---- callbacks -------------------------------------------------------------- */

struct echo {
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    uint32_t count;
    ringside_status_t refusals[6];
};

static void on_ping(void *arg, const ringside_message_t *message)
{
    struct echo *echo = arg;
    echo->count++;
    if (message->bytes < 20) {
        assert_int_equal(
            ringside_publish(echo->publisher, "xxxxxxxxxxxxxxxxxxxx", message->bytes + 1),
            RINGSIDE_OK);
    }
    ringside_subscription_t *subscription = NULL;
    ringside_publisher_t *publisher = NULL;
    echo->refusals[0] = ringside_poll(echo->client, 0, 0, NULL);
    echo->refusals[1] =
        ringside_subscribe(&subscription, echo->client, "q", NULL, recorder_on_message, NULL);
    echo->refusals[2] = ringside_publisher_create(&publisher, echo->client, "q", 0);
    echo->refusals[3] = ringside_flush(echo->client, 0);
    echo->refusals[4] = ringside_close(echo->client, 0);
    echo->refusals[5] =
        ringside_connect(NULL, "", NULL) == RINGSIDE_E_INVALID ? RINGSIDE_E_STATE : RINGSIDE_OK;
}

static void test_publish_inside_callback(void **state)
{
    struct fixture *fixture = *state;
    struct echo echo = {.client = connect_as(fixture, "echo", NULL)};
    ringside_subscription_t *subscription = NULL;
    assert_ok(echo.client,
              ringside_subscribe(&subscription, echo.client, "ping", NULL, on_ping, &echo));
    echo.publisher = publisher_on(echo.client, "ping");
    assert_ok(echo.client, ringside_publish(echo.publisher, NULL, 0));
    poll_until(echo.client, echo.count == 21);
    for (size_t index = 0; index < rsi_array_count(echo.refusals); index++) {
        assert_int_equal(echo.refusals[index], RINGSIDE_E_STATE);
    }
    assert_int_equal(ringside_close(echo.client, 5 * SECOND_NS), RINGSIDE_OK);
}

static void test_poll_limit(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = connect_as(fixture, "limited", NULL);
    subscribe_to(client, "l", false, &fixture->recorder);
    ringside_publisher_t *publisher = publisher_on(client, "l");
    for (uint32_t index = 0; index < 10; index++) {
        publish_text(client, publisher, "m");
    }
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    while (fixture->recorder.count < 10) {
        size_t handled = 0;
        uint32_t before = fixture->recorder.count;
        assert_ok(client, ringside_poll(client, 3, SECOND_NS, &handled));
        assert_int_equal(handled, fixture->recorder.count - before);
        assert_true(handled <= 3);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* ---- waiting ---------------------------------------------------------------- */

/* As an application's loop does it: poll until nothing is handled, then wait for the descriptor. */
static void test_descriptor(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = connect_as(fixture, "loop", NULL);
    ringside_client_t *writer = connect_as(fixture, "writer", NULL);
    subscribe_to(client, "f", false, &fixture->recorder);
    ringside_publisher_t *publisher = publisher_on(writer, "f");
    int fd = ringside_fd(client);
    assert_true(fd >= 0);

    for (uint32_t round = 1; round <= 20; round++) {
        size_t handled = 1;
        while (handled > 0) {
            assert_ok(client, ringside_poll(client, 0, 0, &handled));
        }
        publish_text(writer, publisher, "wake up");
        assert_ok(writer, ringside_flush(writer, 5 * SECOND_NS));
        uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
        while (fixture->recorder.count < round) {
            struct pollfd entry = {.fd = fd, .events = POLLIN};
            assert_true(rsi_test_now_ns() < deadline_ns);
            assert_int_equal(poll(&entry, 1, 20000), 1);
            assert_ok(client, ringside_poll(client, 0, 0, NULL));
        }
    }
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
    assert_int_equal(ringside_close(writer, 5 * SECOND_NS), RINGSIDE_OK);
}

/* A poll that hands nothing over because room came must not leave the descriptor deaf. */
static void test_descriptor_after_room(void **state)
{
    struct fixture *fixture = *state;
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .publish_ring_bytes = 65536};
    static const uint8_t data[16000];
    ringside_client_t *client = NULL;
    assert_int_equal(ringside_connect(&client, fixture->url, &options), RINGSIDE_OK);
    ringside_client_t *writer = connect_as(fixture, "writer", NULL);
    subscribe_to(client, "r", false, &fixture->recorder);
    ringside_publisher_t *publisher = publisher_on(writer, "r");
    ringside_publisher_t *filler = publisher_on(client, "nobody");
    struct pollfd entry = {.fd = ringside_fd(client), .events = POLLIN};

    for (uint32_t round = 1; round <= 5; round++) {
        while (ringside_publish(filler, data, sizeof(data)) == RINGSIDE_OK) {
        }
        assert_ok(client, ringside_poll(client, 0, 0, NULL));
        while (client->room_wanted_bytes != 0) {
            assert_int_equal(poll(&entry, 1, 20000), 1);
            assert_ok(client, ringside_poll(client, 0, 0, NULL));
        }
        publish_text(writer, publisher, "wake up");
        assert_ok(writer, ringside_flush(writer, 5 * SECOND_NS));
        while (fixture->recorder.count < round) {
            assert_int_equal(poll(&entry, 1, 20000), 1);
            assert_ok(client, ringside_poll(client, 0, 0, NULL));
        }
    }
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
    assert_int_equal(ringside_close(writer, 5 * SECOND_NS), RINGSIDE_OK);
}

/* A ring much smaller than what goes through it, with a subscriber that is polled seldom. */
static void test_full_ring(void **state)
{
    struct fixture *fixture = *state;
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .client_name = "small",
                                        .publish_ring_bytes = 65536,
                                        .wait = RINGSIDE_WAIT_BLOCKING};
    ringside_client_t *client = NULL;
    if (ringside_connect(&client, fixture->url, &options) != RINGSIDE_OK) {
        fail_msg("connect: %s", ringside_last_error());
    }
    assert_int_equal(ringside_message_bytes_max(client), 16384);
    ringside_publisher_t *publisher = publisher_on(client, "full");
    subscribe_to(client, "full", false, &fixture->recorder);
    static uint8_t data[16000];
    uint32_t blocked_count = 0;
    for (uint32_t index = 0; index < 300; index++) {
        memset(data, (int)index, sizeof(data));
        ringside_status_t status;
        while ((status = ringside_publish(publisher, data, sizeof(data))) == RINGSIDE_WOULD_BLOCK) {
            blocked_count++;
            assert_true(blocked_count < 1000000);
            assert_ok(client, ringside_poll(client, 0, SECOND_NS, NULL));
        }
        assert_ok(client, status);
    }
    poll_until(client, fixture->recorder.count == 300);
    for (uint32_t index = 0; index < 300; index++) {
        assert_int_equal(fixture->recorder.records[index].sequence, index + 1);
        assert_int_equal(fixture->recorder.records[index].sum,
                         sizeof(data) * (uint64_t)(uint8_t)index);
    }
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* A publisher that never polls still gets everything out. */
static void test_publish_only(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *reader = connect_as(fixture, "reader", NULL);
    ringside_client_t *writer = connect_as(fixture, "writer", NULL);
    subscribe_to(reader, "o", false, &fixture->recorder);
    ringside_publisher_t *publisher = publisher_on(writer, "o");
    for (uint32_t index = 0; index < 100; index++) {
        publish_text(writer, publisher, "tick");
        assert_ok(reader, ringside_poll(reader, 0, 0, NULL));
    }
    assert_int_equal(ringside_close(writer, 5 * SECOND_NS), RINGSIDE_OK);
    poll_until(reader, fixture->recorder.count == 100);
    assert_int_equal(ringside_close(reader, 5 * SECOND_NS), RINGSIDE_OK);
}

struct tally {
    uint64_t received_count;
    uint64_t lost_count;
    uint64_t last_sequence;
};

static void on_tally_message(void *arg, const ringside_message_t *message)
{
    struct tally *tally = arg;
    assert_true(message->sequence > tally->last_sequence);
    /* A gap was told before the message that follows it, with the exact number. */
    assert_int_equal(message->sequence, tally->received_count + tally->lost_count + 1);
    tally->received_count++;
    tally->last_sequence = message->sequence;
}

static void on_tally_event(void *arg, const ringside_event_t *event)
{
    struct tally *tally = arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        tally->lost_count += event->count;
    }
}

/* A subscriber under policy drop that does not read: what it gets and what it is told add up. */
static void test_drop_adds_up(void **state)
{
    struct fixture *fixture = *state;
    struct tally tally = {0};
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .client_name = "sleeper",
                                        .on_event = on_tally_event,
                                        .event_arg = &tally};
    const ringside_subscribe_options_t drop = {.struct_bytes = sizeof(drop),
                                               .policy = RINGSIDE_POLICY_DROP};
    ringside_client_t *sleeper = NULL;
    if (ringside_connect(&sleeper, fixture->url, &options) != RINGSIDE_OK) {
        fail_msg("connect: %s", ringside_last_error());
    }
    ringside_subscription_t *subscription = NULL;
    assert_ok(sleeper,
              ringside_subscribe(&subscription, sleeper, "d", &drop, on_tally_message, &tally));
    ringside_client_t *writer = connect_as(fixture, "writer", NULL);
    ringside_publisher_t *publisher = publisher_on(writer, "d");
    static uint8_t data[8000];
    enum { MESSAGE_COUNT = 4000 }; /* 32 MB through a log of 8 MiB */
    for (uint32_t index = 0; index < MESSAGE_COUNT; index++) {
        ringside_status_t status;
        while ((status = ringside_publish(publisher, data, sizeof(data))) == RINGSIDE_WOULD_BLOCK) {
            assert_ok(writer, ringside_poll(writer, 0, SECOND_NS, NULL));
        }
        assert_ok(writer, status);
    }
    assert_ok(writer, ringside_flush(writer, 5 * SECOND_NS));
    poll_until(sleeper, tally.received_count + tally.lost_count == MESSAGE_COUNT);
    assert_true(tally.lost_count > 0);
    assert_true(tally.received_count > 0);
    assert_int_equal(ringside_close(writer, 5 * SECOND_NS), RINGSIDE_OK);
    assert_int_equal(ringside_close(sleeper, 5 * SECOND_NS), RINGSIDE_OK);
}

/* ---- refusals and ends ------------------------------------------------------ */

static void test_wrong_subjects(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = connect_as(fixture, "typo", NULL);
    ringside_publisher_t *publisher = NULL;
    ringside_subscription_t *subscription = NULL;
    assert_int_equal(ringside_publisher_create(&publisher, client, "md.*", 0), RINGSIDE_E_INVALID);
    assert_non_null(strstr(ringside_error_text(client), "only a subscription may"));
    assert_int_equal(ringside_publisher_create(&publisher, client, NULL, 0), RINGSIDE_E_INVALID);
    assert_int_equal(
        ringside_subscribe(&subscription, client, "md..x", NULL, recorder_on_message, NULL),
        RINGSIDE_E_INVALID);
    assert_non_null(strstr(ringside_error_text(client), "empty token"));
    assert_int_equal(ringside_subscribe(&subscription, client, "md", NULL, NULL, NULL),
                     RINGSIDE_E_INVALID);
    assert_null(publisher);
    assert_null(subscription);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

static void test_broker_goes(void **state)
{
    struct fixture *fixture = *state;
    struct recorder *events = &fixture->other;
    ringside_client_t *client = connect_as(fixture, "bereft", events);
    subscribe_to(client, "b", false, &fixture->recorder);
    ringside_publisher_t *publisher = publisher_on(client, "b");
    publish_text(client, publisher, "before the end");
    poll_until(client, fixture->recorder.count == 1);

    rsi_broker_stop(fixture->testing.broker);
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    ringside_status_t status = RINGSIDE_OK;
    while (status == RINGSIDE_OK) {
        status = ringside_poll(client, 0, 10000000, NULL);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    assert_int_equal(status, RINGSIDE_E_CLOSED);
    assert_int_equal(events->last_event, RINGSIDE_EVENT_CLOSED);
    assert_int_equal(events->last_status, RINGSIDE_E_CLOSED);
    assert_true(strlen(events->last_text) > 0);
    assert_int_equal(ringside_publish(publisher, "x", 1), RINGSIDE_E_CLOSED);
    assert_non_null(strstr(ringside_error_text(client), "session is over"));
    assert_int_equal(ringside_poll(client, 0, 0, NULL), RINGSIDE_E_CLOSED);
    assert_int_equal(ringside_flush(client, 0), RINGSIDE_E_CLOSED);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* A cable is pulled under a client that does not want to go on: said as such, and what had arrived
 * is still handed over. */
static void test_link_lost(void **state)
{
    struct fixture *fixture = *state;
    struct recorder *events = &fixture->other;
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .client_name = "cut",
                                        .on_event = recorder_on_event,
                                        .event_arg = events,
                                        .resume_timeout_ns = UINT64_MAX};
    ringside_client_t *client = NULL;
    assert_int_equal(ringside_connect(&client, fixture->url, &options), RINGSIDE_OK);
    subscribe_to(client, "w", false, &fixture->recorder);
    ringside_publisher_t *publisher = publisher_on(client, "w");
    publish_text(client, publisher, "before the cut");
    poll_until(client, fixture->recorder.count == 1);

    rsi_sim_cut(client->link, 0);
    publish_text(client, publisher, "into the void");
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    ringside_status_t status = RINGSIDE_OK;
    while (status == RINGSIDE_OK) {
        status = ringside_poll(client, 0, 10000000, NULL);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    assert_int_equal(status, RINGSIDE_E_LOST);
    assert_int_equal(events->last_event, RINGSIDE_EVENT_LOST);
    ringside_subscription_t *subscription = NULL;
    assert_int_equal(
        ringside_subscribe(&subscription, client, "w", NULL, recorder_on_message, NULL),
        RINGSIDE_E_LOST);
    assert_int_equal(ringside_publish(publisher, "x", 1), RINGSIDE_E_LOST);
    /* Something was published that never arrived: closing says so. */
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_E_LOST);
    assert_non_null(strstr(ringside_last_error(), "had not arrived"));
}

static void test_fork(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = connect_as(fixture, "parent", NULL);
    ringside_publisher_t *publisher = publisher_on(client, "k");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool is_refused = ringside_publish(publisher, "x", 1) == RINGSIDE_E_STATE &&
                          ringside_poll(client, 0, 0, NULL) == RINGSIDE_E_STATE &&
                          ringside_flush(client, 0) == RINGSIDE_E_STATE &&
                          ringside_close(client, 0) == RINGSIDE_E_STATE &&
                          strstr(ringside_error_text(client), "forked") != NULL;
        _exit(is_refused ? 0 : 1);
    }
    int exit_status = -1;
    assert_int_equal(waitpid(child, &exit_status, 0), child);
    assert_int_equal(exit_status, 0);
    publish_text(client, publisher, "the parent goes on");
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* ---- tokens ----------------------------------------------------------------- */

static int setup_with_token(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    broker_testing_init(&fixture->testing);
    assert_int_equal(
        rsi_settings_add_token(&fixture->testing.settings, "desk", "a long secret", NULL), RSI_OK);
    broker_testing_start(&fixture->testing);
    fixture->url = url_of(&fixture->testing);
    *state = fixture;
    return 0;
}

static ringside_status_t connect_with(struct fixture *fixture, const char *token_name,
                                      const char *token, ringside_client_t **client)
{
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .client_name = "holder",
                                        .token_name = token_name,
                                        .token = token};
    return ringside_connect(client, fixture->url, &options);
}

static void test_tokens(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = NULL;
    assert_int_equal(connect_with(fixture, NULL, NULL, &client), RINGSIDE_E_AUTH);
    assert_non_null(strstr(ringside_last_error(), "RINGSIDE_TOKEN"));
    assert_null(client);
    assert_int_equal(connect_with(fixture, "desk", "a wrong secret", &client), RINGSIDE_E_AUTH);
    assert_null(strstr(ringside_last_error(), "a wrong secret"));
    assert_int_equal(connect_with(fixture, "nobody", "a long secret", &client), RINGSIDE_E_AUTH);
    assert_int_equal(connect_with(fixture, "desk", NULL, &client), RINGSIDE_E_INVALID);
    assert_int_equal(connect_with(fixture, "desk", "short", &client), RINGSIDE_E_INVALID);

    assert_int_equal(connect_with(fixture, "desk", "a long secret", &client), RINGSIDE_OK);
    publisher_on(client, "t");
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);

    setenv("RINGSIDE_TOKEN_NAME", "desk", 1);
    setenv("RINGSIDE_TOKEN", "a long secret", 1);
    ringside_status_t status = connect_with(fixture, NULL, NULL, &client);
    unsetenv("RINGSIDE_TOKEN_NAME");
    unsetenv("RINGSIDE_TOKEN");
    assert_int_equal(status, RINGSIDE_OK);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

/* A broker that asks for no proof cannot give one: a client with a token does not go on. */
static void test_token_unasked(void **state)
{
    struct fixture *fixture = *state;
    ringside_client_t *client = NULL;
    assert_int_equal(connect_with(fixture, "desk", "a long secret", &client), RINGSIDE_E_AUTH);
    assert_non_null(strstr(ringside_last_error(), "does not know tokens"));
}

/* The client's counters in a file that anybody may read while it runs, and that goes with it. */
static void test_counters(void **state)
{
    struct fixture *fixture = *state;
    char path[128];
    snprintf(path, sizeof(path), "%s/counters", fixture->testing.directory);
    const ringside_options_t options = {
        .struct_bytes = sizeof(options), .client_name = "counted", .counters_path = path};
    ringside_client_t *client = NULL;
    if (ringside_connect(&client, fixture->url, &options) != RINGSIDE_OK) {
        fail_msg("connect: %s", ringside_last_error());
    }
    ringside_publisher_t *publisher = publisher_on(client, "n");
    publish_text(client, publisher, "one");
    publish_text(client, publisher, "two");

    struct rsi_counters_reader *reader = NULL;
    struct rsi_counter_view view = {0};
    assert_int_equal(rsi_counters_open(&reader, path, NULL), RSI_OK);
    poll_until(client, rsi_counters_find(reader, "published_messages", "counted", &view) &&
                           view.value == 2);
    assert_true(rsi_counters_find(reader, "published_bytes", "counted", &view));
    assert_int_equal(view.value, 6);
    assert_true(rsi_counters_find(reader, "transport", "counted", &view));
    assert_non_null(strstr(view.text, transport));
    rsi_counters_close(reader);
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* ---- connecting ------------------------------------------------------------- */

static void expect_connect_failure(const char *url, ringside_status_t wanted, const char *text)
{
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .connect_timeout_ns = 3 * SECOND_NS};
    ringside_client_t *client = NULL;
    ringside_status_t status = ringside_connect(&client, url, &options);
    assert_null(client);
    if (status != wanted || strstr(ringside_last_error(), text) == NULL) {
        fail_msg("%s: %s: %s", url != NULL ? url : "NULL", ringside_status_name(status),
                 ringside_last_error());
    }
}

static void test_wrong_urls(void **state)
{
    struct fixture *fixture = *state;
    char url[RSI_SETTING_TEXT_BYTES + 16];
    expect_connect_failure(NULL, RINGSIDE_E_INVALID, "NULL");
    expect_connect_failure("nonsense", RINGSIDE_E_INVALID, "nonsense");
    expect_connect_failure("carrier-pigeon://host", RINGSIDE_E_INVALID, "carrier-pigeon");
    snprintf(url, sizeof(url), "%s.not", fixture->testing.shm_url);
    ringside_client_t *client = NULL;
    ringside_status_t status = ringside_connect(&client, url, NULL);
    assert_true(status < 0);
    assert_non_null(strstr(ringside_last_error(), "broker.sock.not"));
}

/* Somebody listens and never says a word: the time-out holds, and the text says what was done. */
static void test_silent_listener(void **state)
{
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t address_bytes = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &address_bytes), 0);
    char url[64];
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", ntohs(address.sin_port));
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .connect_timeout_ns = SECOND_NS / 5};
    ringside_client_t *client = NULL;
    assert_int_equal(ringside_connect(&client, url, &options), RINGSIDE_E_TIMED_OUT);
    assert_null(client);
    assert_non_null(strstr(ringside_last_error(), url));
    close(fd);
}

/* auto:// takes shm when the broker's socket is there, and says why when it does not. */
static void test_auto(void **state)
{
    struct fixture *fixture = *state;
    char url[64];
    const char *port = strrchr(fixture->testing.tcp_url, ':') + 1;
    snprintf(url, sizeof(url), "auto://127.0.0.1:%s", port);
    setenv("RINGSIDE_RUN_DIR", fixture->testing.directory, 1);
    ringside_client_t *client = NULL;
    if (ringside_connect(&client, url, NULL) != RINGSIDE_OK) {
        fail_msg("%s", ringside_last_error());
    }
    assert_string_equal(ringside_transport(client), "tcp");
    assert_non_null(strstr(ringside_transport_why(client), "shm: no socket "));
    assert_non_null(strstr(ringside_transport_why(client), "rdma: "));
    assert_non_null(strstr(ringside_transport_why(client), "tcp: chosen"));
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);

    char link_path[160];
    snprintf(link_path, sizeof(link_path), "%s/broker-%s.sock", fixture->testing.directory, port);
    assert_int_equal(symlink("broker.sock", link_path), 0);
    ringside_status_t status = ringside_connect(&client, url, NULL);
    unlink(link_path);
    unsetenv("RINGSIDE_RUN_DIR");
    if (status != RINGSIDE_OK) {
        fail_msg("%s", ringside_last_error());
    }
    assert_string_equal(ringside_transport(client), "shm");
    assert_non_null(strstr(ringside_transport_why(client), "shm: chosen"));
    assert_int_equal(ringside_close(client, 5 * SECOND_NS), RINGSIDE_OK);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_roundtrip),
        TEST(test_wildcards),
        TEST(test_claim_commit_abort),
        TEST(test_sizes),
        TEST(test_echo),
        TEST(test_unsubscribe),
        TEST(test_subscribe_again),
        TEST(test_publishers_come_and_go),
        TEST(test_publish_inside_callback),
        TEST(test_poll_limit),
        TEST(test_descriptor),
        TEST(test_descriptor_after_room),
        TEST(test_full_ring),
        TEST(test_publish_only),
        TEST(test_drop_adds_up),
        TEST(test_wrong_subjects),
        TEST(test_broker_goes),
        TEST(test_fork),
        cmocka_unit_test_setup_teardown(test_tokens, setup_with_token, teardown),
        TEST(test_token_unasked),
        TEST(test_counters),
        TEST(test_wrong_urls),
        TEST(test_silent_listener),
        TEST(test_auto),
    };
    static const char *const transports[] = {"shm", "tcp", "sim"};
    int failed_count = 0;
    for (size_t index = 0; index < rsi_array_count(transports); index++) {
        transport = transports[index];
        failed_count += cmocka_run_group_tests_name(transport, tests, NULL, NULL);
    }
    /* Only the simulated wire can be cut from here. */
    const struct CMUnitTest cut_tests[] = {TEST(test_link_lost)};
    failed_count += cmocka_run_group_tests_name("sim, cut", cut_tests, NULL, NULL);
    return failed_count;
}
