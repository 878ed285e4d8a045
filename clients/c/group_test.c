/*
 * Queue groups by the public interface, against a whole broker in this process, over every
 * transport that needs no device. That each message goes to one member whatever interleaves is
 * shown beside the agents (broker/groups_test.c); here: what the application sees of it.
 */
#include "clients/c/broker_testing.h"

#define SECOND_NS UINT64_C(1000000000)

static const char *transport;

/* One client that is a member, or looks on. */
struct party {
    ringside_client_t *client;
    ringside_subscription_t *subscription;
    uint64_t count[2]; /* messages per subscription */
    uint64_t sum;      /* of the numbers in them */
    uint64_t gap_count;
    uint32_t drained_count;
    bool drains_at_next; /* from inside the callback */
};

struct fixture {
    struct broker_testing testing;
    struct party parties[4];
    ringside_publisher_t *publisher;
    uint64_t published_count;
};

static const char *url_of(const struct broker_testing *testing)
{
    if (strcmp(transport, "tcp") == 0) {
        return testing->tcp_url;
    }
    return strcmp(transport, "shm") == 0 ? testing->shm_url : testing->sim_url;
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct party *party = arg;
    if (event->type == RINGSIDE_EVENT_GAP) {
        party->gap_count += event->count;
    }
    if (event->type == RINGSIDE_EVENT_DRAINED) {
        assert_ptr_equal(event->subscription, party->subscription);
        assert_string_equal(event->subject, "jobs.*");
        party->subscription = NULL;
        party->drained_count++;
    }
}

static void note(struct party *party, uint32_t which, const ringside_message_t *message)
{
    uint64_t number = 0;
    assert_int_equal(message->bytes, sizeof(number));
    memcpy(&number, message->data, sizeof(number));
    party->count[which]++;
    party->sum += number;
}

static void on_first(void *arg, const ringside_message_t *message)
{
    struct party *party = arg;
    note(party, 0, message);
    if (party->drains_at_next) {
        party->drains_at_next = false;
        assert_int_equal(ringside_drain(party->subscription), RINGSIDE_OK);
        assert_int_equal(ringside_drain(party->subscription), RINGSIDE_E_STATE);
    }
}

static void on_second(void *arg, const ringside_message_t *message)
{
    note(arg, 1, message);
}

static void party_open(struct fixture *fixture, uint32_t index)
{
    struct party *party = &fixture->parties[index];
    const ringside_options_t options = {
        .struct_bytes = sizeof(options), .on_event = on_event, .event_arg = party};
    assert_int_equal(ringside_connect(&party->client, url_of(&fixture->testing), &options),
                     RINGSIDE_OK);
}

static ringside_subscription_t *join(struct party *party, const char *subject, const char *group,
                                     ringside_on_message_t on_message)
{
    const ringside_subscribe_options_t options = {
        .struct_bytes = sizeof(options), .policy = RINGSIDE_POLICY_BLOCK, .group = group};
    ringside_subscription_t *subscription = NULL;
    assert_ok(party->client, ringside_subscribe(&subscription, party->client, subject, &options,
                                                on_message, party));
    return subscription;
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    broker_testing_init(&fixture->testing);
    fixture->testing.settings.agent_count = 2;
    broker_testing_start(&fixture->testing);
    for (uint32_t i = 0; i < rsi_array_count(fixture->parties); i++) {
        party_open(fixture, i);
    }
    ringside_client_t *client = fixture->parties[0].client;
    assert_ok(client, ringside_publisher_create(&fixture->publisher, client, "jobs.a", 0));
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 0; i < rsi_array_count(fixture->parties); i++) {
        ringside_close(fixture->parties[i].client, 5 * SECOND_NS);
    }
    broker_testing_fini(&fixture->testing);
    free(fixture);
    return 0;
}

static void poll_all(struct fixture *fixture)
{
    for (uint32_t i = 0; i < rsi_array_count(fixture->parties); i++) {
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

static void publish(struct fixture *fixture, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = ++fixture->published_count;
        ringside_status_t status;
        while ((status = ringside_publish(fixture->publisher, &number, sizeof(number))) ==
               RINGSIDE_WOULD_BLOCK) {
            poll_all(fixture);
        }
        assert_int_equal(status, RINGSIDE_OK);
    }
}

static uint64_t sum_to(uint64_t count)
{
    return count * (count + 1) / 2;
}

static void test_one_member_each(void **state)
{
    struct fixture *fixture = *state;
    struct party *a = &fixture->parties[1];
    struct party *b = &fixture->parties[2];
    struct party *plain = &fixture->parties[3];
    join(a, "jobs.*", "workers", on_first);
    join(b, "jobs.a", "workers", on_first);
    join(b, "jobs.>", "audit", on_second);
    join(plain, "jobs.>", NULL, on_first);
    publish(fixture, 1000);
    all_until(fixture,
              plain->count[0] == 1000 && b->count[1] == 1000 && a->count[0] + b->count[0] == 1000);
    assert_int_equal(a->count[0], 500);
    assert_int_equal(a->sum + b->sum, 2 * sum_to(1000)); /* workers once, audit once */
    assert_int_equal(a->gap_count + b->gap_count + plain->gap_count, 0);
}

static void test_drain(void **state)
{
    struct fixture *fixture = *state;
    struct party *a = &fixture->parties[1];
    struct party *b = &fixture->parties[2];
    a->subscription = join(a, "jobs.*", "workers", on_first);
    b->subscription = join(b, "jobs.*", "workers", on_first);
    for (uint32_t round = 0; round < 10; round++) {
        struct party *leaver = round % 2 == 0 ? a : b;
        publish(fixture, 200);
        leaver->drains_at_next = true;
        uint32_t drained_count = leaver->drained_count;
        for (uint32_t i = 0; leaver->drained_count == drained_count; i++) {
            publish(fixture, 1);
            poll_all(fixture);
        }
        uint64_t count = leaver->count[0];
        publish(fixture, 100);
        poll_all(fixture);
        assert_int_equal(leaver->count[0], count);
        leaver->subscription = join(leaver, "jobs.*", "workers", on_first);
    }
    all_until(fixture, a->count[0] + b->count[0] == fixture->published_count);
    assert_int_equal(a->sum + b->sum, sum_to(fixture->published_count));
    assert_int_equal(a->gap_count + b->gap_count, 0);
}

/* A plain subscription drains as well; and unsubscribing cuts a drain short. */
static void test_drain_plain_and_cut_short(void **state)
{
    struct fixture *fixture = *state;
    struct party *plain = &fixture->parties[3];
    plain->subscription = join(plain, "jobs.*", NULL, on_first);
    publish(fixture, 50);
    assert_ok(fixture->parties[0].client, ringside_flush(fixture->parties[0].client, SECOND_NS));
    assert_ok(plain->client, ringside_drain(plain->subscription));
    all_until(fixture, plain->drained_count == 1);
    /* What had arrived may not have been looked at yet when the broker knew of it: a beginning. */
    uint64_t count = plain->count[0];
    assert_true(count <= 50);
    assert_int_equal(plain->sum, sum_to(count));

    plain->subscription = join(plain, "jobs.*", "workers", on_first);
    publish(fixture, 50);
    assert_ok(plain->client, ringside_drain(plain->subscription));
    assert_ok(plain->client, ringside_unsubscribe(plain->subscription, 0));
    publish(fixture, 50);
    for (uint32_t i = 0; i < 100; i++) {
        poll_all(fixture);
    }
    assert_int_equal(plain->count[0], count);
    assert_int_equal(plain->drained_count, 1);
}

static void test_wrong_groups(void **state)
{
    struct fixture *fixture = *state;
    struct party *party = &fixture->parties[1];
    static const struct {
        const char *group;
        const char *part;
    } cases[] = {
        {"", "is empty"},
        {"two.tokens", "holds a '.'"},
        {"a b", "a space"},
        {">", "'*' or '>'"},
        {"0123456789012345678901234567890123456789012345678901234567890123", "longer than 63"},
    };
    for (size_t index = 0; index < rsi_array_count(cases); index++) {
        const ringside_subscribe_options_t options = {.struct_bytes = sizeof(options),
                                                      .group = cases[index].group};
        ringside_subscription_t *subscription = NULL;
        assert_int_equal(
            ringside_subscribe(&subscription, party->client, "jobs.*", &options, on_first, party),
            RINGSIDE_E_INVALID);
        assert_non_null(strstr(ringside_error_text(party->client), cases[index].part));
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_member_each),
        TEST(test_drain),
        TEST(test_drain_plain_and_cut_short),
        TEST(test_wrong_groups),
    };
    static const char *const transports[] = {"shm", "tcp", "sim"};
    int failed_count = 0;
    for (size_t index = 0; index < rsi_array_count(transports); index++) {
        transport = transports[index];
        failed_count += cmocka_run_group_tests_name(transport, tests, NULL, NULL);
    }
    return failed_count;
}
