/*
 * Sessions whose links are cut under them, against the whole broker in this process: over shm, tcp
 * and the simulated wire, and from one transport to another.
 *
 * Design notes
 * - Two clients write to each other under policy block, so each message has to come once and in
 *   order, both ways, whatever is cut when.
 * - A cut is a shutdown(2) of the client's end of a socket, found among the descriptors of this
 *   process by whom it leads to: nothing in the library knows of it. On shm the data goes on in
 *   shared memory until the end of the socket is seen, which is the harder case.
 * - A resume may be cut too, but not each of them for ever: where a poll costs little beside a
 *   handshake (under a sanitizer), cuts by the poll alone would let no session carry anything.
 * - `client_change_test ROUNDS` does it all so many times over.
 */
#include "clients/c/broker_testing.h"
#include "clients/c/client.h"
#include "transport/sim/sim.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SECOND_NS UINT64_C(1000000000)

enum { MESSAGE_BYTES_MAX = 3000, ROUND_MESSAGE_COUNT = 6000, DESCRIPTOR_COUNT = 512 };
enum { CUT_STREAK_MAX = 4 };

struct party {
    ringside_client_t *client;
    ringside_publisher_t *publisher;
    uint64_t sent_count;
    uint64_t got_count;
    uint32_t suspended_count;
    uint32_t resumed_count;
    char text[512];
};

struct fixture {
    struct broker_testing testing;
    struct party parties[2];
    uint64_t random;
    /* Cuts since both parties last got something, and what each had got by then. */
    uint32_t cut_streak;
    uint64_t got_counts[2];
};

/* The transport of the pass under way. */
static const char *transport;
/* Of traffic and of changes; more of them are asked for on the command line. */
static uint32_t round_count = 1;

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
    fixture->random = rsi_test_seed();
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

static uint32_t draw(struct fixture *fixture, uint32_t below)
{
    fixture->random = fixture->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(fixture->random >> 33) % below;
}

/* ---- the two parties ---------------------------------------------------------------------------
 */

static void on_message(void *arg, const ringside_message_t *message)
{
    struct party *party = arg;
    uint64_t number;
    assert_true(message->bytes >= sizeof(number));
    memcpy(&number, message->data, sizeof(number));
    assert_int_equal(number, party->got_count + 1);
    assert_int_equal(message->sequence, number);
    for (size_t at = sizeof(number); at < message->bytes; at++) {
        assert_int_equal(((const uint8_t *)message->data)[at], (uint8_t)(number + at));
    }
    party->got_count++;
}

static void on_event(void *arg, const ringside_event_t *event)
{
    struct party *party = arg;
    switch (event->type) {
    case RINGSIDE_EVENT_SUSPENDED:
        assert_int_equal(party->suspended_count, party->resumed_count);
        party->suspended_count++;
        break;
    case RINGSIDE_EVENT_RESUMED:
        party->resumed_count++;
        assert_int_equal(party->suspended_count, party->resumed_count);
        snprintf(party->text, sizeof(party->text), "%s", event->text);
        break;
    case RINGSIDE_EVENT_CONNECTED:
    case RINGSIDE_EVENT_CURRENT:
    case RINGSIDE_EVENT_CONFLATED:
        break;
    case RINGSIDE_EVENT_RENEWED:
    case RINGSIDE_EVENT_GAP:
    case RINGSIDE_EVENT_LOST:
    case RINGSIDE_EVENT_SLOW:
    case RINGSIDE_EVENT_CLOSED:
    case RINGSIDE_EVENT_DRAINED:
    case RINGSIDE_EVENT_SUBSCRIBED:
    case RINGSIDE_EVENT_OPENED:
        fail_msg("event %d: %s", (int)event->type, event->text);
    }
}

static void open_party(struct party *party, const char *url, const char *name, const char *writes,
                       const char *reads)
{
    const ringside_options_t options = {.struct_bytes = sizeof(options),
                                        .client_name = name,
                                        .publish_ring_bytes = 65536,
                                        .on_event = on_event,
                                        .event_arg = party};
    const ringside_subscribe_options_t block = {.struct_bytes = sizeof(block),
                                                .policy = RINGSIDE_POLICY_BLOCK};
    ringside_subscription_t *subscription = NULL;
    if (ringside_connect(&party->client, url, &options) != RINGSIDE_OK) {
        fail_msg("connect: %s", ringside_last_error());
    }
    assert_ok(party->client,
              ringside_publisher_create(&party->publisher, party->client, writes, 0));
    assert_ok(party->client,
              ringside_subscribe(&subscription, party->client, reads, &block, on_message, party));
}

static void close_both(struct fixture *fixture)
{
    for (uint32_t side = 0; side < 2; side++) {
        assert_int_equal(ringside_close(fixture->parties[side].client, 5 * SECOND_NS), RINGSIDE_OK);
    }
}

static void open_both(struct fixture *fixture, const char *url)
{
    open_party(&fixture->parties[0], url, "left", "to.right", "to.left");
    open_party(&fixture->parties[1], url, "right", "to.left", "to.right");
}

static void publish_some(struct fixture *fixture, struct party *party, uint64_t end)
{
    static uint8_t data[MESSAGE_BYTES_MAX];
    for (uint32_t count = draw(fixture, 20); count > 0 && party->sent_count < end; count--) {
        uint64_t number = party->sent_count + 1;
        size_t bytes = sizeof(number) + draw(fixture, MESSAGE_BYTES_MAX - sizeof(number));
        memcpy(data, &number, sizeof(number));
        for (size_t at = sizeof(number); at < bytes; at++) {
            data[at] = (uint8_t)(number + at);
        }
        ringside_status_t status = ringside_publish(party->publisher, data, bytes);
        if (status == RINGSIDE_WOULD_BLOCK) {
            return;
        }
        assert_ok(party->client, status);
        party->sent_count++;
    }
}

static void poll_both(struct fixture *fixture)
{
    for (uint32_t side = 0; side < 2; side++) {
        assert_ok(fixture->parties[side].client,
                  ringside_poll(fixture->parties[side].client, draw(fixture, 30),
                                draw(fixture, 200000), NULL));
    }
}

#define poll_both_until(fixture, condition)                               \
    do {                                                                  \
        uint64_t poll_deadline_ns = rsi_test_now_ns() + RSI_TEST_HANG_NS; \
        while (!(condition)) {                                            \
            poll_both(fixture);                                           \
            if (rsi_test_now_ns() > poll_deadline_ns)                     \
                fail_msg("still not true after 20 s: %s", #condition);    \
        }                                                                 \
    } while (0)

/* Some traffic both ways, and all of it has come. */
static void exchange(struct fixture *fixture, uint32_t message_count)
{
    struct party *left = &fixture->parties[0];
    struct party *right = &fixture->parties[1];
    uint64_t left_end = left->sent_count + message_count;
    uint64_t right_end = right->sent_count + message_count;
    poll_both_until(fixture,
                    (publish_some(fixture, left, left_end), publish_some(fixture, right, right_end),
                     left->got_count == right_end && right->got_count == left_end));
}

/* ---- cuts --------------------------------------------------------------------------------------
 */

/* Whether `fd` is a client's end of a connection to the broker by the transport `name`. */
static bool leads_to_broker(const struct broker_testing *testing, int fd, const char *name)
{
    bool is_shm = strcmp(name, "shm") == 0;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } peer = {.any.sa_family = AF_UNSPEC};
    socklen_t peer_bytes = sizeof(peer);
    if (getpeername(fd, &peer.any, &peer_bytes) != 0) {
        return false;
    }
    if (peer.any.sa_family == AF_INET && !is_shm) {
        return ntohs(peer.in.sin_port) == atoi(strrchr(testing->tcp_url, ':') + 1);
    }
    return peer.any.sa_family == AF_UNIX && is_shm &&
           peer_bytes > offsetof(struct sockaddr_un, sun_path) &&
           strstr(testing->shm_url, peer.un.sun_path) != NULL && peer.un.sun_path[0] != 0;
}

/* Cuts one of the clients' connections, whichever chance says. */
static void cut_socket(struct fixture *fixture, const char *name)
{
    int found[16];
    uint32_t found_count = 0;
    for (int fd = 3; fd < DESCRIPTOR_COUNT && found_count < rsi_array_count(found); fd++) {
        if (leads_to_broker(&fixture->testing, fd, name)) {
            found[found_count++] = fd;
        }
    }
    if (found_count > 0) {
        (void)shutdown(found[draw(fixture, found_count)], SHUT_RDWR);
    }
}

static void cut(struct fixture *fixture)
{
    if (strcmp(transport, "sim") != 0) {
        cut_socket(fixture, transport);
        return;
    }
    ringside_client_t *client = fixture->parties[draw(fixture, 2)].client;
    rsi_sim_cut(client->link, draw(fixture, 40));
}

/* Cuts, by chance, but no more than so often before both parties got on to `end`. */
static uint32_t cut_by_chance(struct fixture *fixture, uint64_t end)
{
    const struct party *parties = fixture->parties;
    bool all_got = true;
    for (uint32_t side = 0; side < 2; side++) {
        all_got = all_got && (parties[side].got_count > fixture->got_counts[side] ||
                              parties[side].got_count == end);
    }
    if (all_got) {
        fixture->cut_streak = 0;
        fixture->got_counts[0] = parties[0].got_count;
        fixture->got_counts[1] = parties[1].got_count;
    }
    if (fixture->cut_streak == CUT_STREAK_MAX || draw(fixture, 12) != 0) {
        return 0;
    }
    fixture->cut_streak++;
    cut(fixture);
    return 1;
}

static void test_cuts_in_traffic(void **state)
{
    struct fixture *fixture = *state;
    struct party *left = &fixture->parties[0];
    struct party *right = &fixture->parties[1];
    open_both(fixture, url_of(&fixture->testing));
    uint32_t cut_count = 0;
    for (uint32_t round = 1; round <= round_count; round++) {
        uint64_t end = round * (uint64_t)ROUND_MESSAGE_COUNT;
        poll_both_until(fixture,
                        (cut_count += cut_by_chance(fixture, end), publish_some(fixture, left, end),
                         publish_some(fixture, right, end),
                         left->got_count == end && right->got_count == end));
    }
    exchange(fixture, 10); /* nothing came twice */
    poll_both_until(fixture, left->suspended_count == left->resumed_count &&
                                 right->suspended_count == right->resumed_count);
    assert_true(left->resumed_count + right->resumed_count >= 20);
    assert_string_equal(ringside_transport(left->client), transport);
    printf("%s: %u cuts, %u and %u resumes\n", transport, cut_count, left->resumed_count,
           right->resumed_count);
    close_both(fixture);
}

/* Cut while calls wait: making and closing things goes on over the next link. */
static void test_cuts_in_requests(void **state)
{
    struct fixture *fixture = *state;
    struct party *left = &fixture->parties[0];
    open_both(fixture, url_of(&fixture->testing));
    for (uint32_t round = 0; round < 60; round++) {
        ringside_publisher_t *publisher = NULL;
        ringside_subscription_t *subscription = NULL;
        if (round % 2 == 0) {
            cut(fixture);
        }
        assert_ok(left->client, ringside_publisher_create(&publisher, left->client, "x.y", 0));
        assert_ok(left->client, ringside_publish(publisher, "x", 1));
        if (round % 3 == 0) {
            cut(fixture);
        }
        assert_ok(left->client,
                  ringside_subscribe(&subscription, left->client, "z.>", NULL, on_message, left));
        ringside_publisher_destroy(publisher);
        if (round % 5 == 0) {
            cut(fixture);
        }
        assert_ok(left->client, ringside_unsubscribe(subscription, 0));
        assert_ok(left->client, ringside_flush(left->client, 5 * SECOND_NS));
    }
    exchange(fixture, 50);
    cut(fixture);
    close_both(fixture);
}

/* ---- from one transport to another -------------------------------------------------------------
 */

static bool is_on(const struct fixture *fixture, const char *name)
{
    return strcmp(ringside_transport(fixture->parties[0].client), name) == 0 &&
           strcmp(ringside_transport(fixture->parties[1].client), name) == 0;
}

/* A little traffic, which is not waited for. */
static void chat(struct fixture *fixture)
{
    publish_some(fixture, &fixture->parties[0], UINT64_MAX);
    publish_some(fixture, &fixture->parties[1], UINT64_MAX);
}

/* shm is cut and its socket gone: tcp carries on. It is back: so are the sessions. */
static void test_change_of_transport(void **state)
{
    struct fixture *fixture = *state;
    struct party *left = &fixture->parties[0];
    struct party *right = &fixture->parties[1];
    char url[64];
    char link_path[160];
    const char *port = strrchr(fixture->testing.tcp_url, ':') + 1;
    snprintf(url, sizeof(url), "auto://127.0.0.1:%s", port);
    snprintf(link_path, sizeof(link_path), "%s/broker-%s.sock", fixture->testing.directory, port);
    assert_int_equal(symlink("broker.sock", link_path), 0);
    setenv("RINGSIDE_RUN_DIR", fixture->testing.directory, 1);
    open_both(fixture, url);
    assert_true(is_on(fixture, "shm"));

    for (uint32_t round = 0; round < 10 * round_count; round++) {
        unlink(link_path);
        poll_both_until(fixture,
                        (chat(fixture), cut_socket(fixture, "shm"), is_on(fixture, "tcp")));
        assert_int_equal(symlink("broker.sock", link_path), 0);
        /* Nobody wants to wait for the look's turn here. */
        left->client->better.due_ns = 0;
        right->client->better.due_ns = 0;
        poll_both_until(fixture, (chat(fixture), is_on(fixture, "shm")));
        assert_non_null(strstr(ringside_transport_why(left->client), "shm: chosen"));
        poll_both_until(fixture, left->got_count == right->sent_count &&
                                     right->got_count == left->sent_count);
        assert_non_null(strstr(left->text, "tcp was left for shm"));
    }
    unlink(link_path);
    unsetenv("RINGSIDE_RUN_DIR");
    close_both(fixture);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(int argument_count, char **arguments)
{
    if (argument_count > 1) {
        round_count = (uint32_t)strtoul(arguments[1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        TEST(test_cuts_in_traffic),
        TEST(test_cuts_in_requests),
    };
    const struct CMUnitTest change_tests[] = {TEST(test_change_of_transport)};
    static const char *const transports[] = {"shm", "tcp", "sim"};
    int failed_count = 0;
    for (size_t index = 0; index < rsi_array_count(transports); index++) {
        transport = transports[index];
        failed_count += cmocka_run_group_tests_name(transport, tests, NULL, NULL);
    }
    failed_count += cmocka_run_group_tests_name("change", change_tests, NULL, NULL);
    return failed_count;
}
