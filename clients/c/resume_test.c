/*
 * A session that loses its link: against a broker made by hand, over the simulated wire.
 *
 * Design notes
 * - The broker sends back what it takes, so one client sees both directions: each message once, in
 *   order, whatever happened between.
 * - Events and messages go into one list, because their order is promised too.
 * - Calls that wait are tested with a second thread that does to the broker what is to happen
 *   meanwhile.
 */
#include "clients/c/client.h"
#include "clients/c/hand_testing.h"

#include <poll.h>

#define SECOND_NS UINT64_C(1000000000)

enum { EVENT_COUNT_MAX = 2048 };

struct fixture {
    struct hand_broker broker;
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    ringside_subscription_t *subscription;
    uint64_t sent_count; /* messages published, numbered from 1 */
    uint64_t got_number; /* of the last one that came back */
    uint64_t got_count;
    bool may_miss;   /* numbers may be left out */
    bool may_repeat; /* the next message may be one that came already: a broker died */
    uint32_t event_count;
    ringside_event_type_t events[EVENT_COUNT_MAX];
    uint64_t event_got[EVENT_COUNT_MAX]; /* got_number when it came */
    uint64_t event_counts[EVENT_COUNT_MAX];
    ringside_status_t statuses[EVENT_COUNT_MAX];
    char text[1024]; /* of the last event */
    bool publishes_in_events;
};

static ringside_status_t publish_next(struct fixture *fixture, size_t extra_bytes)
{
    static uint8_t data[20000];
    uint64_t number = fixture->sent_count + 1;
    memcpy(data, &number, sizeof(number));
    memset(data + sizeof(number), (int)number, extra_bytes);
    ringside_status_t status =
        ringside_publish(fixture->publisher, data, sizeof(number) + extra_bytes);
    fixture->sent_count += status == RINGSIDE_OK;
    return status;
}

static void on_message(void *arg, const ringside_message_t *message)
{
    struct fixture *fixture = arg;
    uint64_t number;
    assert_true(message->bytes >= sizeof(number));
    memcpy(&number, message->data, sizeof(number));
    for (size_t at = sizeof(number); at < message->bytes; at++) {
        assert_int_equal(((const uint8_t *)message->data)[at], (uint8_t)number);
    }
    if (fixture->may_repeat) {
        fixture->may_repeat = false;
    } else if (fixture->may_miss) {
        assert_true(number > fixture->got_number);
    } else {
        assert_int_equal(number, fixture->got_number + 1);
    }
    fixture->got_number = number;
    fixture->got_count++;
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct fixture *fixture = arg;
    assert_true(fixture->event_count < EVENT_COUNT_MAX);
    fixture->events[fixture->event_count] = event->type;
    fixture->event_got[fixture->event_count] = fixture->got_number;
    fixture->statuses[fixture->event_count] = event->status;
    fixture->event_counts[fixture->event_count++] = event->count;
    snprintf(fixture->text, sizeof(fixture->text), "%s", event->text);
    fixture->may_repeat |= event->type == RINGSIDE_EVENT_RENEWED;
    if (fixture->publishes_in_events && event->type != RINGSIDE_EVENT_LOST) {
        assert_int_equal(publish_next(fixture, 0), RINGSIDE_OK);
    }
}

static void connect_with(struct fixture *fixture, uint64_t resume_timeout_ns)
{
    const ringside_options_t options = {
        .struct_bytes = sizeof(options),
        .client_name = "resumer",
        .publish_ring_bytes = 65536,
        .deliver_ring_bytes = 65536,
        .on_event = on_event,
        .event_arg = fixture,
        .resume_timeout_ns = resume_timeout_ns,
    };
    if (ringside_connect(&fixture->client, fixture->broker.url, &options) != RINGSIDE_OK) {
        fail_msg("connect: %s", ringside_last_error());
    }
    assert_int_equal(ringside_publisher_create(&fixture->publisher, fixture->client, "r.one", 0),
                     RINGSIDE_OK);
    assert_int_equal(ringside_subscribe(&fixture->subscription, fixture->client, "r.>", NULL,
                                        on_message, fixture),
                     RINGSIDE_OK);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    hand_broker_init(&fixture->broker, "resume");
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

static bool has_event(const struct fixture *fixture, ringside_event_type_t type)
{
    for (uint32_t index = 0; index < fixture->event_count; index++) {
        if (fixture->events[index] == type) {
            return true;
        }
    }
    return false;
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

/* Polls until the session has ended; its status. */
static ringside_status_t poll_to_the_end(struct fixture *fixture)
{
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    ringside_status_t status = RINGSIDE_OK;
    while (status == RINGSIDE_OK) {
        status = ringside_poll(fixture->client, 0, 10000000, NULL);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    return status;
}

static void expect_lost(struct fixture *fixture, const char *text)
{
    assert_int_equal(poll_to_the_end(fixture), RINGSIDE_E_LOST);
    assert_int_equal(fixture->events[fixture->event_count - 1], RINGSIDE_EVENT_LOST);
    if (strstr(fixture->text, text) == NULL) {
        fail_msg("not in the event's text: %s; it is: %s", text, fixture->text);
    }
    assert_int_equal(publish_next(fixture, 0), RINGSIDE_E_LOST);
}

/* Suspended and resumed in turn, beginning with connected. */
static void expect_events_in_turn(const struct fixture *fixture)
{
    assert_int_equal(fixture->events[0], RINGSIDE_EVENT_CONNECTED);
    for (uint32_t index = 1; index < fixture->event_count; index++) {
        assert_int_equal(fixture->events[index],
                         index % 2 == 1 ? RINGSIDE_EVENT_SUSPENDED : RINGSIDE_EVENT_RESUMED);
    }
}

/* ---- resume ------------------------------------------------------------------------------------
 */

static void test_cut_at_random(void **state)
{
    struct fixture *fixture = *state;
    uint64_t random = rsi_test_seed();
    connect_with(fixture, 0);
    enum { MESSAGE_COUNT = 6000 };
    uint64_t deadline_ns = rsi_test_now_ns() + 3 * RSI_TEST_HANG_NS;
    while (fixture->got_number < MESSAGE_COUNT) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint32_t choice = (uint32_t)(random >> 33) % 100;
        if (choice < 10) {
            hand_broker_cut(&fixture->broker);
        }
        for (uint32_t count = choice % 30; count > 0 && fixture->sent_count < MESSAGE_COUNT;
             count--) {
            ringside_status_t status = publish_next(fixture, (random >> 13) % 700);
            if (status == RINGSIDE_WOULD_BLOCK) {
                break;
            }
            assert_int_equal(status, RINGSIDE_OK);
        }
        assert_int_equal(ringside_poll(fixture->client, (random >> 20) % 20, choice * 1000, NULL),
                         RINGSIDE_OK);
        assert_true(rsi_test_now_ns() < deadline_ns);
    }
    poll_until(fixture, fixture->client->phase == RSI_CLIENT_OPEN &&
                            !fixture->client->is_told_suspended && !fixture->client->news.is_any);
    assert_int_equal(fixture->got_count, MESSAGE_COUNT);
    assert_true(hand_broker_get(&fixture->broker, resume_count) > 20);
    assert_int_equal(hand_broker_get(&fixture->broker, fault_count), 0);
    expect_events_in_turn(fixture);
    assert_int_equal(ringside_close(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);
    fixture->client = NULL;
}

static void test_publish_until_full(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    assert_int_equal(publish_next(fixture, 0), RINGSIDE_OK);
    poll_until(fixture, fixture->got_number == 1);
    hand_broker_set(&fixture->broker, is_silent, true);
    hand_broker_cut(&fixture->broker);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_SUSPENDED));
    assert_non_null(strstr(fixture->text, "cut"));

    while (publish_next(fixture, 1000) == RINGSIDE_OK) {
        assert_int_equal(ringside_poll(fixture->client, 0, 0, NULL), RINGSIDE_OK);
    }
    assert_true(fixture->sent_count > 50);
    /* What waits for the broker waits on, and gives up at its own time-out. */
    assert_int_equal(ringside_flush(fixture->client, 20000000), RINGSIDE_E_TIMED_OUT);
    ringside_publisher_t *other = NULL;
    assert_int_equal(ringside_publisher_create(&other, fixture->client, "r.two", 20000000),
                     RINGSIDE_E_TIMED_OUT);
    assert_int_equal(publish_next(fixture, 1000), RINGSIDE_WOULD_BLOCK);
    hand_broker_set(&fixture->broker, is_silent, false);
    assert_int_equal(ringside_flush(fixture->client, 20 * SECOND_NS), RINGSIDE_OK);
    poll_until(fixture, fixture->got_number == fixture->sent_count);
    assert_true(has_event(fixture, RINGSIDE_EVENT_RESUMED));
    assert_non_null(strstr(ringside_transport_why(fixture->client), "sim: asked for"));
    expect_events_in_turn(fixture);
}

static void test_claim_across(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    void *buffer = NULL;
    for (uint64_t number = 1; number <= 6; number++) {
        assert_int_equal(ringside_claim(fixture->publisher, 4000, &buffer), RINGSIDE_OK);
        memcpy(buffer, &number, sizeof(number));
        memset((uint8_t *)buffer + sizeof(number), (int)number, 2000 - sizeof(number));
        /* Once, twice, with the claim given back, and with something published between. */
        for (uint32_t cuts = 0; cuts < 1 + number % 2; cuts++) {
            uint64_t resumptions = fixture->client->totals.resumptions;
            hand_broker_cut(&fixture->broker);
            poll_until(fixture, fixture->client->totals.resumptions > resumptions);
        }
        memset((uint8_t *)buffer + 2000, (int)number, 1000);
        assert_true(fixture->client->is_claim_left_behind);
        if (number == 3) {
            ringside_abort(fixture->publisher);
            fixture->sent_count++;
            fixture->got_number++;
            continue;
        }
        assert_int_equal(ringside_commit(fixture->publisher, 3000), RINGSIDE_OK);
        fixture->sent_count++;
        poll_until(fixture, fixture->got_number == number);
        poll_until(fixture, !rsi_path_exists(&fixture->client->retired));
    }
}

static void test_in_callbacks(void **state)
{
    struct fixture *fixture = *state;
    fixture->publishes_in_events = true;
    connect_with(fixture, 0);
    for (uint32_t round = 1; round <= 5; round++) {
        hand_broker_cut(&fixture->broker);
        poll_until(fixture, fixture->event_count == 1 + 2 * round);
    }
    poll_until(fixture, fixture->got_number == 11);
    expect_events_in_turn(fixture);
}

/* An application that waits on the descriptor alone. */
static void test_descriptor(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    int fd = ringside_fd(fixture->client);
    for (uint32_t round = 1; round <= 6; round++) {
        uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
        hand_broker_cut(&fixture->broker);
        if (round % 3 == 0) {
            hand_broker_set(&fixture->broker, refuses_once,
                            RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE);
        }
        while (fixture->event_count < 1 + 2 * round) {
            struct pollfd entry = {.fd = fd, .events = POLLIN};
            assert_int_equal(poll(&entry, 1, 20000), 1);
            size_t handled = 1;
            while (handled > 0) {
                assert_int_equal(ringside_poll(fixture->client, 0, 0, &handled), RINGSIDE_OK);
            }
            assert_true(rsi_test_now_ns() < deadline_ns);
        }
        assert_int_equal(ringside_fd(fixture->client), fd);
    }
    expect_events_in_turn(fixture);
}

static void test_elsewhere(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    assert_int_equal(hand_broker_get(&fixture->broker, hint_seen), 0);
    hand_broker_set(&fixture->broker, refuses_once, RINGSIDE__CONTROL__REASON__REASON_ELSEWHERE);
    /* The next try falls silent after the Challenge, and is given up for another one. */
    hand_broker_set(&fixture->broker, forgets_resumes, 1);
    hand_broker_cut(&fixture->broker);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_RESUMED));
    assert_int_equal(hand_broker_get(&fixture->broker, last_attempt), 3);
    assert_int_equal(hand_broker_get(&fixture->broker, hint_seen), 3); /* home agent 2 */
    assert_true(hand_broker_get(&fixture->broker, hello_count) >= 3);
}

/* ---- ends --------------------------------------------------------------------------------------
 */

static void test_session_gone(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    hand_broker_set(&fixture->broker, session, 0);
    hand_broker_cut(&fixture->broker);
    expect_lost(fixture, "never heard of it");
    assert_true(has_event(fixture, RINGSIDE_EVENT_SUSPENDED));
    assert_false(has_event(fixture, RINGSIDE_EVENT_RESUMED));
}

/* The broker says why, as its goodbye would have: the same status, and the same events. */
static void test_session_ended(void **state)
{
    static const struct {
        Ringside__Control__Reason reason;
        ringside_status_t status;
        ringside_event_type_t event; /* the last one */
    } cases[] = {
        {RINGSIDE__CONTROL__REASON__REASON_SLOW, RINGSIDE_E_SLOW, RINGSIDE_EVENT_CLOSED},
        {RINGSIDE__CONTROL__REASON__REASON_LIMIT, RINGSIDE_E_LIMIT, RINGSIDE_EVENT_CLOSED},
        {RINGSIDE__CONTROL__REASON__REASON_PROTOCOL, RINGSIDE_E_PROTOCOL, RINGSIDE_EVENT_CLOSED},
        {RINGSIDE__CONTROL__REASON__REASON_NONE, RINGSIDE_E_LOST, RINGSIDE_EVENT_LOST},
    };
    for (size_t index = 0; index < sizeof(cases) / sizeof(cases[0]); index++) {
        struct fixture *fixture = *state;
        bool is_slow = cases[index].reason == RINGSIDE__CONTROL__REASON__REASON_SLOW;
        connect_with(fixture, 0);
        for (uint32_t count = 0; count < 5; count++) {
            assert_int_equal(publish_next(fixture, 0), RINGSIDE_OK);
        }
        poll_until(fixture, fixture->got_count == 5);
        hand_broker_set(&fixture->broker, ended_reason, cases[index].reason);
        hand_broker_set(&fixture->broker, has_ended, true);
        /* The last one arrived there, and was not taken. */
        hand_broker_set(&fixture->broker, ended_untaken_bytes, rsi_frame_bytes(0, 8));
        hand_broker_cut(&fixture->broker);
        (void)poll_to_the_end(fixture);
        uint32_t last = fixture->event_count - 1;
        assert_int_equal(fixture->events[last], cases[index].event);
        assert_int_equal(fixture->events[last - 1],
                         is_slow ? RINGSIDE_EVENT_SLOW : RINGSIDE_EVENT_SUSPENDED);
        assert_int_equal(fixture->statuses[last], cases[index].status);
        assert_non_null(strstr(fixture->text, "it ended while you were away"));
        assert_int_equal(fixture->event_counts[last], 1);
        assert_int_equal(ringside_close(fixture->client, 0), RINGSIDE_E_LOST);
        fixture->client = NULL;
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

static void test_impossible_positions(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    hand_broker_set(&fixture->broker, lies_about_positions, true);
    hand_broker_cut(&fixture->broker);
    expect_lost(fixture, "the session cannot go on");
}

static void test_no_grace(void **state)
{
    struct fixture *fixture = *state;
    hand_broker_set(&fixture->broker, grace_ns, 0);
    connect_with(fixture, 0);
    hand_broker_cut(&fixture->broker);
    expect_lost(fixture, "session_grace");
}

static void test_never_resume(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, UINT64_MAX);
    hand_broker_cut(&fixture->broker);
    expect_lost(fixture, "cut");
    assert_false(has_event(fixture, RINGSIDE_EVENT_SUSPENDED));
}

static void test_time_out(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, SECOND_NS / 5);
    hand_broker_kill(&fixture->broker);
    expect_lost(fixture, "no other link within ");
    assert_non_null(strstr(fixture->text, "sim://"));
}

static void test_close_without_a_broker(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    hand_broker_kill(&fixture->broker);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_SUSPENDED));
    assert_int_equal(publish_next(fixture, 0), RINGSIDE_OK);
    assert_int_equal(ringside_close(fixture->client, 20000000), RINGSIDE_E_TIMED_OUT);
    assert_non_null(strstr(ringside_last_error(), "had not arrived"));
    fixture->client = NULL;
}

/* ---- calls that wait, and what happens meanwhile -----------------------------------------------
 */

struct meanwhile {
    struct hand_broker *broker;
    pthread_t thread;
};

#define wait_for(condition)                                               \
    do {                                                                  \
        uint64_t wait_deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS; \
        while (!(condition) && rsi_test_now_ns() < wait_deadline_ns) {    \
            (void)poll(NULL, 0, 1);                                       \
        }                                                                 \
    } while (0)

static void begin_meanwhile(struct meanwhile *meanwhile, struct fixture *fixture,
                            void *(*act)(void *arg))
{
    meanwhile->broker = &fixture->broker;
    assert_int_equal(pthread_create(&meanwhile->thread, NULL, act, meanwhile), 0);
}

static void end_meanwhile(struct meanwhile *meanwhile)
{
    assert_int_equal(pthread_join(meanwhile->thread, NULL), 0);
}

static void *cut_after_request(void *arg)
{
    struct hand_broker *broker = ((struct meanwhile *)arg)->broker;
    wait_for(hand_broker_get(broker, request_count) == 3);
    hand_broker_cut(broker);
    hand_broker_set(broker, forgets_requests, false);
    return NULL;
}

static void test_request_across(void **state)
{
    struct fixture *fixture = *state;
    struct meanwhile meanwhile;
    connect_with(fixture, 0);
    hand_broker_set(&fixture->broker, forgets_requests, true);
    hand_broker_set(&fixture->broker, answers_twice, true);
    begin_meanwhile(&meanwhile, fixture, cut_after_request);
    ringside_publisher_t *other = NULL;
    assert_int_equal(ringside_publisher_create(&other, fixture->client, "r.two", 20 * SECOND_NS),
                     RINGSIDE_OK);
    end_meanwhile(&meanwhile);
    assert_int_equal(hand_broker_get(&fixture->broker, request_count), 3);
    assert_int_equal(hand_broker_get(&fixture->broker, repeated_count), 1);
    hand_broker_set(&fixture->broker, answers_twice, false);
    assert_int_equal(publish_next(fixture, 0), RINGSIDE_OK);
    poll_until(fixture, fixture->got_number == 1);
    expect_events_in_turn(fixture);
}

static void *cut_after_bye(void *arg)
{
    struct hand_broker *broker = ((struct meanwhile *)arg)->broker;
    wait_for(hand_broker_get(broker, bye_count) == 1);
    hand_broker_cut(broker);
    hand_broker_set(broker, forgets_requests, false);
    return NULL;
}

static void test_bye_across(void **state)
{
    struct fixture *fixture = *state;
    struct meanwhile meanwhile;
    connect_with(fixture, 0);
    hand_broker_set(&fixture->broker, forgets_requests, true);
    begin_meanwhile(&meanwhile, fixture, cut_after_bye);
    assert_int_equal(publish_next(fixture, 0), RINGSIDE_OK);
    assert_int_equal(ringside_close(fixture->client, 20 * SECOND_NS), RINGSIDE_OK);
    fixture->client = NULL;
    end_meanwhile(&meanwhile);
    assert_int_equal(hand_broker_get(&fixture->broker, bye_count), 2);
}

static void *speak_again(void *arg)
{
    struct hand_broker *broker = ((struct meanwhile *)arg)->broker;
    (void)poll(NULL, 0,
               50); /* the close is at work by then, or the session resumes before: both fine */
    hand_broker_set(broker, is_silent, false);
    return NULL;
}

/* Everything published while there was no link arrives within the close's time-out. */
static void test_close_while_suspended(void **state)
{
    struct fixture *fixture = *state;
    struct meanwhile meanwhile;
    connect_with(fixture, 0);
    hand_broker_set(&fixture->broker, is_silent, true);
    hand_broker_cut(&fixture->broker);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_SUSPENDED));
    for (uint32_t count = 0; count < 20; count++) {
        assert_int_equal(publish_next(fixture, 100), RINGSIDE_OK);
    }
    begin_meanwhile(&meanwhile, fixture, speak_again);
    assert_int_equal(ringside_close(fixture->client, 20 * SECOND_NS), RINGSIDE_OK);
    fixture->client = NULL;
    end_meanwhile(&meanwhile);
    assert_int_equal(hand_broker_get(&fixture->broker, taken_count), 20);
    assert_int_equal(hand_broker_get(&fixture->broker, bye_count), 1);
}

static void test_objects_closed_while_suspended(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    ringside_publisher_t *other = NULL;
    assert_int_equal(ringside_publisher_create(&other, fixture->client, "s.two", 0), RINGSIDE_OK);
    hand_broker_set(&fixture->broker, is_silent, true);
    hand_broker_cut(&fixture->broker);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_SUSPENDED));
    assert_int_equal(ringside_publish(other, "last words", 10), RINGSIDE_OK);
    ringside_publisher_destroy(other);
    assert_int_equal(ringside_unsubscribe(fixture->subscription, 20000000), RINGSIDE_E_TIMED_OUT);
    hand_broker_set(&fixture->broker, is_silent, false);
    poll_until(fixture, hand_broker_get(&fixture->broker, subscription_count) == 0);
    poll_until(fixture, fixture->client->publishers[1] == NULL);
    poll_until(fixture, fixture->client->subscription_count == 0);
    assert_int_equal(hand_broker_get(&fixture->broker, taken_count), 1);
}

/* ---- another run of the broker -----------------------------------------------------------------
 */

static void test_renew(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    ringside_publisher_t *closing = NULL;
    ringside_publisher_t *later = NULL;
    assert_int_equal(ringside_publisher_create(&closing, fixture->client, "s.two", 0), RINGSIDE_OK);
    assert_int_equal(ringside_publisher_create(&later, fixture->client, "s.three", 0), RINGSIDE_OK);
    for (uint32_t count = 0; count < 10; count++) {
        assert_int_equal(publish_next(fixture, 300), RINGSIDE_OK);
    }
    poll_until(fixture, fixture->got_number == 10);

    for (uint32_t round = 0; round < 3; round++) {
        uint32_t event_count = fixture->event_count;
        hand_broker_kill(&fixture->broker);
        poll_until(fixture, fixture->event_count > event_count);
        assert_int_equal(fixture->events[event_count], RINGSIDE_EVENT_SUSPENDED);
        for (uint32_t count = 0; count < 10; count++) {
            assert_int_equal(publish_next(fixture, 300), RINGSIDE_OK);
        }
        if (round == 1) {
            assert_int_equal(ringside_publish(closing, "last words", 10), RINGSIDE_OK);
            ringside_publisher_destroy(closing);
        }
        hand_broker_restart(&fixture->broker);
        poll_until(fixture, fixture->got_number == fixture->sent_count);
        /* Between the last message of the old broker and the first of the new one. */
        assert_int_equal(fixture->events[event_count + 1], RINGSIDE_EVENT_RENEWED);
        assert_int_equal(fixture->events[event_count + 2], RINGSIDE_EVENT_GAP);
        assert_int_equal(fixture->event_counts[event_count + 2], UINT64_MAX);
        assert_int_equal(fixture->event_got[event_count + 2], fixture->sent_count - 10);
        assert_int_equal(fixture->event_count, event_count + 3);
        assert_int_equal(hand_broker_get(&fixture->broker, fault_count), 0);
    }
    poll_until(fixture, fixture->client->publishers[1] == NULL);
    assert_int_equal(ringside_publish(later, "x", 1), RINGSIDE_OK);
    assert_int_equal(ringside_flush(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);

    /* And a cut after it is a resume, from the new session. */
    hand_broker_cut(&fixture->broker);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_RESUMED));
    assert_int_equal(publish_next(fixture, 0), RINGSIDE_OK);
    poll_until(fixture, fixture->got_number == fixture->sent_count);
    assert_int_equal(ringside_close(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);
    fixture->client = NULL;
}

/* Traffic while brokers die: it goes on, and what one broker gives is in order. */
static void test_renew_in_traffic(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    fixture->may_miss = true;
    uint64_t deadline_ns = rsi_test_now_ns() + 3 * RSI_TEST_HANG_NS;
    for (uint32_t round = 0; round < 30; round++) {
        uint64_t target = fixture->got_count + 20 + round;
        while (fixture->got_count < target) {
            ringside_status_t status = publish_next(fixture, round * 10);
            assert_true(status == RINGSIDE_OK || status == RINGSIDE_WOULD_BLOCK);
            assert_int_equal(ringside_poll(fixture->client, 0, 10000, NULL), RINGSIDE_OK);
            assert_true(rsi_test_now_ns() < deadline_ns);
        }
        if (round % 3 == 0) {
            hand_broker_cut(&fixture->broker);
        }
        hand_broker_restart(&fixture->broker);
    }
    poll_until(fixture, fixture->client->totals.renewals == 30);
    assert_int_equal(hand_broker_get(&fixture->broker, fault_count), 0);
    assert_true(fixture->client->totals.gap_events >= 30);
}

static void *restart_meanwhile(void *arg)
{
    struct hand_broker *broker = ((struct meanwhile *)arg)->broker;
    (void)poll(NULL, 0, 20);
    hand_broker_restart(broker);
    return NULL;
}

/* Positions begin anew under a flush that waits. */
static void test_flush_across_renew(void **state)
{
    struct fixture *fixture = *state;
    struct meanwhile meanwhile;
    connect_with(fixture, 0);
    for (uint32_t count = 0; count < 10; count++) {
        assert_int_equal(publish_next(fixture, 300), RINGSIDE_OK);
    }
    poll_until(fixture, fixture->got_number == 10);
    hand_broker_kill(&fixture->broker);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_SUSPENDED));
    assert_int_equal(publish_next(fixture, 300), RINGSIDE_OK);
    begin_meanwhile(&meanwhile, fixture, restart_meanwhile);
    assert_int_equal(ringside_flush(fixture->client, 20 * SECOND_NS), RINGSIDE_OK);
    end_meanwhile(&meanwhile);
    poll_until(fixture, fixture->got_number == 11);
}

/* Publishes, and waits without a poll until all of it has come back: nothing is handed over. And
 * until the client has seen that all was taken, because what it knows nothing of goes to the next
 * broker too. */
static void publish_and_leave(struct fixture *fixture, uint32_t count)
{
    for (; count > 0; count--) {
        assert_int_equal(publish_next(fixture, 300), RINGSIDE_OK);
    }
    uint64_t got_number = fixture->got_number;
    uint64_t deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS;
    do {
        assert_int_equal(ringside_flush(fixture->client, 20 * SECOND_NS), RINGSIDE_OK);
        assert_true(rsi_test_now_ns() < deadline_ns);
    } while (hand_broker_get(&fixture->broker, taken_count) == 0 ||
             fixture->client->link->arrived_pos == 0 ||
             fixture->client->link->arrived_pos !=
                 hand_broker_get(&fixture->broker, carrier->staged_pos) ||
             hand_broker_get(&fixture->broker, carrier->in.capacity_bytes) == 0 ||
             hand_broker_get(&fixture->broker, carrier->consumed_pos) !=
                 fixture->client->link->staged_pos ||
             fixture->client->link->peer_consumed_pos != fixture->client->link->staged_pos);
    assert_int_equal(fixture->got_number, got_number);
}

/* Nobody polls while calls wait for the broker that comes after; what the dead one sent is handed
 * over later, in its turn. */
static void test_wait_across_renew(void **state)
{
    struct fixture *fixture = *state;
    struct meanwhile meanwhile;
    connect_with(fixture, 0);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_CONNECTED));
    publish_and_leave(fixture, 10);
    hand_broker_kill(&fixture->broker);
    begin_meanwhile(&meanwhile, fixture, restart_meanwhile);
    ringside_publisher_t *other = NULL;
    ringside_subscription_t *another = NULL;
    assert_int_equal(ringside_publisher_create(&other, fixture->client, "s.two", 20 * SECOND_NS),
                     RINGSIDE_OK);
    const ringside_subscribe_options_t options = {.struct_bytes = sizeof(options),
                                                  .timeout_ns = 20 * SECOND_NS};
    struct fixture unused = {.may_miss = true};
    assert_int_equal(
        ringside_subscribe(&another, fixture->client, "nobody.here", &options, on_message, &unused),
        RINGSIDE_OK);
    end_meanwhile(&meanwhile);
    assert_int_equal(ringside_unsubscribe(another, 20 * SECOND_NS), RINGSIDE_OK);
    publish_and_leave(fixture, 5);
    assert_int_equal(fixture->event_count, 1);

    for (uint32_t got = 1; got <= 15; got++) {
        size_t handled = 0;
        assert_int_equal(ringside_poll(fixture->client, 1, SECOND_NS, &handled), RINGSIDE_OK);
        assert_true(handled >= 1);
        assert_int_equal(fixture->got_number, got);
    }
    const ringside_event_type_t expected[] = {RINGSIDE_EVENT_CONNECTED, RINGSIDE_EVENT_SUSPENDED,
                                              RINGSIDE_EVENT_RENEWED, RINGSIDE_EVENT_GAP};
    assert_int_equal(fixture->event_count, 4);
    assert_memory_equal(fixture->events, expected, sizeof(expected));
    assert_int_equal(fixture->event_got[1], 0);
    assert_int_equal(fixture->event_got[2], 10);
    assert_int_equal(fixture->event_got[3], 10);
    assert_null(fixture->client->remnants);
}

/* Brokers die one after the other, and each left something: as much is put aside as was said. */
static void test_many_remnants(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    poll_until(fixture, has_event(fixture, RINGSIDE_EVENT_CONNECTED));
    for (uint32_t round = 0; round < RSI_CLIENT_REMNANT_COUNT_MAX; round++) {
        publish_and_leave(fixture, 10);
        hand_broker_restart(&fixture->broker);
        assert_int_equal(ringside_flush(fixture->client, 20 * SECOND_NS), RINGSIDE_OK);
        ringside_publisher_t *other = NULL;
        assert_int_equal(
            ringside_publisher_create(&other, fixture->client, "s.two", 20 * SECOND_NS),
            RINGSIDE_OK);
        ringside_publisher_destroy(other);
    }
    /* One that left nothing is none. */
    hand_broker_restart(&fixture->broker);
    uint64_t sent_count = fixture->sent_count;
    publish_and_leave(fixture, 10);
    hand_broker_restart(&fixture->broker);
    ringside_publisher_t *other = NULL;
    assert_int_equal(ringside_publisher_create(&other, fixture->client, "s.two", SECOND_NS / 5),
                     RINGSIDE_E_TIMED_OUT);

    assert_int_equal(fixture->got_number, 0);
    poll_until(fixture,
               fixture->client->phase == RSI_CLIENT_OPEN && fixture->client->remnants == NULL);
    assert_int_equal(publish_next(fixture, 300), RINGSIDE_OK);
    poll_until(fixture, fixture->got_number == fixture->sent_count);
    assert_int_equal(sent_count + 11, fixture->sent_count);
    assert_int_equal(fixture->client->totals.renewals, RSI_CLIENT_REMNANT_COUNT_MAX + 2);
    uint32_t renewed_count = 0;
    for (uint32_t index = 1; index < fixture->event_count; index++) {
        bool is_renewed = fixture->events[index] == RINGSIDE_EVENT_RENEWED;
        renewed_count += is_renewed;
        if (is_renewed) {
            assert_int_equal(fixture->events[index - 1], RINGSIDE_EVENT_SUSPENDED);
            assert_int_equal(fixture->events[index + 1], RINGSIDE_EVENT_GAP);
            assert_int_equal(fixture->event_got[index], 10 * renewed_count);
            assert_int_equal(fixture->event_got[index + 1], 10 * renewed_count);
        }
    }
    assert_int_equal(renewed_count, RSI_CLIENT_REMNANT_COUNT_MAX + 1);
}

static void test_close_with_remnants(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    publish_and_leave(fixture, 10);
    hand_broker_restart(&fixture->broker);
    assert_int_equal(publish_next(fixture, 300), RINGSIDE_OK);
    assert_int_equal(ringside_flush(fixture->client, 20 * SECOND_NS), RINGSIDE_OK);
    assert_int_equal(ringside_close(fixture->client, 20 * SECOND_NS), RINGSIDE_OK);
    fixture->client = NULL;
    assert_int_equal(hand_broker_get(&fixture->broker, bye_count), 1);
    assert_int_equal(fixture->got_number, 0);
}

/* An open claim and frames that nobody took: each stays as long as it is needed. */
static void test_claim_and_remnant(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    publish_and_leave(fixture, 10);
    void *buffer = NULL;
    uint64_t number = ++fixture->sent_count;
    assert_int_equal(ringside_claim(fixture->publisher, sizeof(number), &buffer), RINGSIDE_OK);
    memcpy(buffer, &number, sizeof(number));
    hand_broker_restart(&fixture->broker);
    ringside_publisher_t *other = NULL;
    assert_int_equal(ringside_publisher_create(&other, fixture->client, "s.two", 20 * SECOND_NS),
                     RINGSIDE_OK);
    assert_int_equal(ringside_commit(fixture->publisher, sizeof(number)), RINGSIDE_OK);
    poll_until(fixture, fixture->got_number == number);
    assert_int_equal(fixture->got_count, 11);
}

/* Cut when the next broker had begun a session and the client had not taken it: the next try, and
 * the one after, say so. */
static void test_renew_cut_half_way(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    uint32_t superseded_count = 0;
    for (uint32_t round = 0; round < 3; round++) {
        hand_broker_set(&fixture->broker, forgets_requests, true);
        hand_broker_restart(&fixture->broker);
        for (uint32_t cut_count = 0; cut_count < 2; cut_count++) {
            poll_until(fixture, hand_broker_get(&fixture->broker, session) != 0 &&
                                    hand_broker_get(&fixture->broker, request_count) > 0);
            hand_broker_cut(&fixture->broker);
            superseded_count++;
            poll_until(fixture,
                       hand_broker_get(&fixture->broker, superseded_count) == superseded_count);
        }
        hand_broker_set(&fixture->broker, forgets_requests, false);
        hand_broker_cut(&fixture->broker); /* what it forgot to answer is asked anew */
        poll_until(fixture, fixture->client->phase == RSI_CLIENT_OPEN);
        superseded_count = (uint32_t)hand_broker_get(&fixture->broker, superseded_count);
        assert_int_equal(fixture->client->resume.half_made.id, 0);
        assert_int_equal(publish_next(fixture, 300), RINGSIDE_OK);
        poll_until(fixture, fixture->got_number == fixture->sent_count);
    }
    assert_int_equal(hand_broker_get(&fixture->broker, fault_count), 0);
}

static void test_renew_refused(void **state)
{
    struct fixture *fixture = *state;
    connect_with(fixture, 0);
    hand_broker_set(&fixture->broker, refuses_publishers, true);
    hand_broker_restart(&fixture->broker);
    expect_lost(fixture, "refuses the publisher on \"r.one\": not you");
}

static void test_renew_smaller(void **state)
{
    struct fixture *fixture = *state;
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .publish_ring_bytes = 131072,
                                        .deliver_ring_bytes = 65536,
                                        .on_event = on_event,
                                        .event_arg = fixture,
                                        .resume_timeout_ns = SECOND_NS / 2};
    assert_int_equal(ringside_connect(&fixture->client, fixture->broker.url, &options),
                     RINGSIDE_OK);
    assert_int_equal(ringside_publisher_create(&fixture->publisher, fixture->client, "r.one", 0),
                     RINGSIDE_OK);
    hand_broker_set(&fixture->broker, publish_bytes_max, 65536);
    hand_broker_restart(&fixture->broker);
    expect_lost(fixture, "connect anew");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_cut_at_random),
        TEST(test_publish_until_full),
        TEST(test_claim_across),
        TEST(test_in_callbacks),
        TEST(test_descriptor),
        TEST(test_elsewhere),
        TEST(test_session_gone),
        TEST(test_session_ended),
        TEST(test_impossible_positions),
        TEST(test_no_grace),
        TEST(test_never_resume),
        TEST(test_time_out),
        TEST(test_close_without_a_broker),
        TEST(test_request_across),
        TEST(test_bye_across),
        TEST(test_close_while_suspended),
        TEST(test_objects_closed_while_suspended),
        TEST(test_renew),
        TEST(test_renew_in_traffic),
        TEST(test_flush_across_renew),
        TEST(test_wait_across_renew),
        TEST(test_many_remnants),
        TEST(test_close_with_remnants),
        TEST(test_claim_and_remnant),
        TEST(test_renew_cut_half_way),
        TEST(test_renew_refused),
        TEST(test_renew_smaller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
