/*
 * Headers through a whole broker, over every transport that needs no device: what is published with
 * them comes with the same ones, and what is wrong with them is told by name.
 */
#include "clients/c/broker_testing.h"
#include "clients/c/client.h"

#define SECOND_NS  UINT64_C(1000000000)
#define HEADER_MAX 16u

struct fixture {
    struct broker_testing testing;
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    /* The last message. */
    uint32_t count;
    size_t header_count;
    char names[HEADER_MAX][RINGSIDE_HEADER_NAME_BYTES_MAX + 1];
    uint8_t *values[HEADER_MAX];
    size_t value_bytes[HEADER_MAX];
    char data[64];
    size_t bytes;
    bool is_found;
};

static const char *transport;

static void on_message(void *arg, const ringside_message_t *message)
{
    struct fixture *fixture = arg;
    size_t cursor = 0;
    ringside_header_t header;
    size_t count = 0;
    assert_int_equal((uintptr_t)message->data % 8, 0);
    while (ringside_header_next(message, &cursor, &header)) {
        assert_true(count < HEADER_MAX);
        snprintf(fixture->names[count], sizeof(fixture->names[0]), "%s", header.name);
        free(fixture->values[count]);
        fixture->values[count] = malloc(header.value_bytes + 1);
        assert_non_null(fixture->values[count]);
        memcpy(fixture->values[count], header.value, header.value_bytes);
        fixture->value_bytes[count++] = header.value_bytes;
    }
    assert_int_equal(count, message->header_count);
    fixture->header_count = count;
    fixture->bytes = message->bytes;
    memcpy(fixture->data, message->data,
           message->bytes < sizeof(fixture->data) ? message->bytes : sizeof(fixture->data));
    size_t value_bytes = 99;
    const void *value = ringside_header_find(message, "TRACE-ID", &value_bytes);
    fixture->is_found = value != NULL && value_bytes == 4 && memcmp(value, "\0:\xff\n", 4) == 0;
    assert_null(ringside_header_find(message, "trace-i", NULL));
    assert_null(ringside_header_find(message, "", NULL));
    assert_null(ringside_header_find(message, NULL, NULL));
    fixture->count++;
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    broker_testing_init(&fixture->testing);
    broker_testing_start(&fixture->testing);
    const char *url = strcmp(transport, "tcp") == 0   ? fixture->testing.tcp_url
                      : strcmp(transport, "shm") == 0 ? fixture->testing.shm_url
                                                      : fixture->testing.sim_url;
    if (ringside_connect(&fixture->client, url, NULL) != RINGSIDE_OK) {
        fail_msg("%s", ringside_last_error());
    }
    const ringside_subscribe_options_t options = {.struct_bytes = sizeof(options),
                                                  .policy = RINGSIDE_POLICY_BLOCK};
    ringside_subscription_t *subscription = NULL;
    assert_ok(fixture->client, ringside_subscribe(&subscription, fixture->client, "a.>", &options,
                                                  on_message, fixture));
    assert_ok(fixture->client,
              ringside_publisher_create(&fixture->publisher, fixture->client, "a.b", 0));
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(ringside_close(fixture->client, 5 * SECOND_NS), RINGSIDE_OK);
    broker_testing_fini(&fixture->testing);
    for (size_t at = 0; at < HEADER_MAX; at++) {
        free(fixture->values[at]);
    }
    free(fixture);
    return 0;
}

static const ringside_header_t some[] = {
    {"Content-Type", "text/plain", 10},
    {"trace-id", "\0:\xff\n", 4},
    {"Empty", NULL, 0},
    {"trace-id", "again", 5},
};

static void expect_some(const struct fixture *fixture)
{
    assert_int_equal(fixture->header_count, rsi_array_count(some));
    for (size_t at = 0; at < rsi_array_count(some); at++) {
        assert_string_equal(fixture->names[at], some[at].name);
        assert_int_equal(fixture->value_bytes[at], some[at].value_bytes);
        assert_true(some[at].value_bytes == 0 ||
                    memcmp(fixture->values[at], some[at].value, some[at].value_bytes) == 0);
    }
    assert_true(fixture->is_found); /* the first of two */
}

static void test_roundtrip(void **state)
{
    struct fixture *fixture = *state;
    assert_ok(fixture->client,
              ringside_publish_with(fixture->publisher, some, rsi_array_count(some), "hello", 5));
    poll_until(fixture->client, fixture->count == 1);
    expect_some(fixture);
    assert_int_equal(fixture->bytes, 5);
    assert_memory_equal(fixture->data, "hello", 5);

    /* Neither the data nor the headers need to be there. */
    assert_ok(fixture->client, ringside_publish_with(fixture->publisher, some, 1, NULL, 0));
    poll_until(fixture->client, fixture->count == 2);
    assert_int_equal(fixture->header_count, 1);
    assert_int_equal(fixture->bytes, 0);
    assert_ok(fixture->client, ringside_publish_with(fixture->publisher, NULL, 0, "x", 1));
    poll_until(fixture->client, fixture->count == 3);
    assert_int_equal(fixture->header_count, 0);
    assert_false(fixture->is_found);
    assert_ok(fixture->client, ringside_publish(fixture->publisher, "y", 1));
    poll_until(fixture->client, fixture->count == 4);
    assert_int_equal(fixture->header_count, 0);
}

static void test_claim(void **state)
{
    struct fixture *fixture = *state;
    void *buffer = NULL;
    assert_ok(fixture->client,
              ringside_claim_with(fixture->publisher, some, rsi_array_count(some), 50, &buffer));
    assert_int_equal(ringside_publish_with(fixture->publisher, some, 1, "x", 1), RINGSIDE_E_STATE);
    memcpy(buffer, "claimed", 7);
    ringside_abort(fixture->publisher);
    assert_ok(fixture->client,
              ringside_claim_with(fixture->publisher, some, rsi_array_count(some), 50, &buffer));
    memcpy(buffer, "claimed", 7);
    assert_ok(fixture->client, ringside_commit(fixture->publisher, 7));
    poll_until(fixture->client, fixture->count == 1);
    expect_some(fixture);
    assert_int_equal(fixture->bytes, 7);
    assert_memory_equal(fixture->data, "claimed", 7);

    /* The next claim has none of these. */
    assert_ok(fixture->client, ringside_claim(fixture->publisher, 3, &buffer));
    memcpy(buffer, "abc", 3);
    assert_ok(fixture->client, ringside_commit(fixture->publisher, 3));
    poll_until(fixture->client, fixture->count == 2);
    assert_int_equal(fixture->header_count, 0);
    assert_memory_equal(fixture->data, "abc", 3);
}

/* Headers of all sizes, random in number and bytes, many laps round the rings. */
static void test_many(void **state)
{
    struct fixture *fixture = *state;
    uint64_t random = rsi_test_seed();
    static uint8_t bytes[2048];
    for (size_t at = 0; at < sizeof(bytes); at++) {
        bytes[at] = (uint8_t)rsi_test_random(&random);
    }
    for (uint32_t round = 1; round <= 2000; round++) {
        ringside_header_t headers[HEADER_MAX];
        char names[HEADER_MAX][8];
        size_t count = rsi_test_random(&random) % (HEADER_MAX + 1);
        for (size_t at = 0; at < count; at++) {
            snprintf(names[at], sizeof(names[at]), "h%u", (unsigned)(rsi_test_random(&random) & 7));
            headers[at] = (ringside_header_t){names[at], bytes + rsi_test_random(&random) % 1024,
                                              round % 16 == 0 ? rsi_test_random(&random) % 1024
                                                              : rsi_test_random(&random) % 16};
        }
        size_t data_bytes = rsi_test_random(&random) % sizeof(fixture->data);
        assert_ok(fixture->client,
                  ringside_publish_with(fixture->publisher, headers, count, bytes, data_bytes));
        poll_until(fixture->client, fixture->count == round);
        assert_int_equal(fixture->header_count, count);
        assert_int_equal(fixture->bytes, data_bytes);
        assert_memory_equal(fixture->data, bytes, data_bytes);
        for (size_t at = 0; at < count; at++) {
            assert_string_equal(fixture->names[at], headers[at].name);
            assert_int_equal(fixture->value_bytes[at], headers[at].value_bytes);
            assert_memory_equal(fixture->values[at], headers[at].value, headers[at].value_bytes);
        }
    }
}

static void test_limits(void **state)
{
    struct fixture *fixture = *state;
    char *value = calloc(1, RINGSIDE_HEADERS_BYTES_MAX + 1);
    char name[RINGSIDE_HEADER_NAME_BYTES_MAX + 2];
    assert_non_null(value);
    memset(name, 'n', sizeof(name));
    name[RINGSIDE_HEADER_NAME_BYTES_MAX] = 0;

    /* The longest name with the longest value beside it, and one byte more. */
    ringside_header_t header = {name, value,
                                RINGSIDE_HEADERS_BYTES_MAX - 5 - RINGSIDE_HEADER_NAME_BYTES_MAX};
    assert_ok(fixture->client, ringside_publish_with(fixture->publisher, &header, 1, "x", 1));
    poll_until(fixture->client, fixture->count == 1);
    assert_int_equal(fixture->value_bytes[0], header.value_bytes);
    assert_string_equal(fixture->names[0], name);
    header.value_bytes++;
    assert_int_equal(ringside_publish_with(fixture->publisher, &header, 1, "x", 1),
                     RINGSIDE_E_TOO_LARGE);
    assert_non_null(strstr(ringside_error_text(fixture->client), "header 0, \"nnn"));
    assert_non_null(strstr(ringside_error_text(fixture->client), "65528"));
    header.value_bytes = SIZE_MAX;
    assert_int_equal(ringside_publish_with(fixture->publisher, &header, 1, "x", 1),
                     RINGSIDE_E_TOO_LARGE);

    /* Headers and data together are the message. */
    size_t bytes_max = ringside_message_bytes_max(fixture->client);
    uint8_t *data = calloc(1, bytes_max);
    assert_non_null(data);
    const ringside_header_t small = {"a", "b", 1}; /* 7 bytes, rounded up */
    assert_int_equal(ringside_publish_with(fixture->publisher, &small, 1, data, bytes_max - 7),
                     RINGSIDE_E_TOO_LARGE);
    assert_non_null(strstr(ringside_error_text(fixture->client), "headers of 8 bytes"));
    assert_int_equal(ringside_publish_with(fixture->publisher, &small, 1, data, SIZE_MAX),
                     RINGSIDE_E_TOO_LARGE);
    assert_ok(fixture->client,
              ringside_publish_with(fixture->publisher, &small, 1, data, bytes_max - 8));
    poll_until(fixture->client, fixture->count == 2);
    assert_int_equal(fixture->bytes, bytes_max - 8);
    free(data);
    free(value);
}

static void test_refused(void **state)
{
    struct fixture *fixture = *state;
    char name[RINGSIDE_HEADER_NAME_BYTES_MAX + 2];
    memset(name, 'n', sizeof(name));
    name[RINGSIDE_HEADER_NAME_BYTES_MAX + 1] = 0;
    const struct {
        ringside_header_t header;
        const char *part;
    } wrongs[] = {
        {{"", "x", 1}, "is empty"},      {{"a:b", "x", 1}, "\"a:b\": its name holds a \":\""},
        {{"a b", "x", 1}, "byte 1"},     {{"a\x7f", "x", 1}, "printable"},
        {{name, "x", 1}, "longer than"}, {{NULL, "x", 1}, "its name is NULL"},
        {{"a", NULL, 1}, "its value"},
    };
    for (size_t at = 0; at < rsi_array_count(wrongs); at++) {
        ringside_header_t headers[2] = {{"fine", "x", 1}, wrongs[at].header};
        void *buffer = NULL;
        assert_int_equal(ringside_publish_with(fixture->publisher, headers, 2, "x", 1),
                         RINGSIDE_E_INVALID);
        if (strstr(ringside_error_text(fixture->client), wrongs[at].part) == NULL ||
            strstr(ringside_error_text(fixture->client), "header 1") == NULL) {
            fail_msg("%s", ringside_error_text(fixture->client));
        }
        assert_int_equal(ringside_claim_with(fixture->publisher, headers, 2, 1, &buffer),
                         RINGSIDE_E_INVALID);
    }
    assert_int_equal(ringside_publish_with(fixture->publisher, NULL, 2, "x", 1),
                     RINGSIDE_E_INVALID);
    assert_ok(fixture->client, ringside_publish(fixture->publisher, "still", 5));
    poll_until(fixture->client, fixture->count == 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_roundtrip), TEST(test_claim),   TEST(test_many),
        TEST(test_limits),    TEST(test_refused),
    };
    static const char *const transports[] = {"shm", "tcp", "sim"};
    int failed_count = 0;
    for (size_t index = 0; index < rsi_array_count(transports); index++) {
        transport = transports[index];
        failed_count += cmocka_run_group_tests_name(transport, tests, NULL, NULL);
    }
    return failed_count;
}
