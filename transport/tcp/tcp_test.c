/*
 * What the suite for all transports cannot see: how many system calls a batch costs, sends that the
 * socket takes in parts, when positions are told, zero copy and closing.
 */
#include "core/clock.h"
#include "transport/tcp/tcp_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RING_BYTES = 1 << 20 };

static struct fixture shared_fixture;

static int set_up_with(void **state, uint64_t zerocopy_bytes_min)
{
    struct rsi_domain_options options = {.node = -1, .zerocopy_bytes_min = zerocopy_bytes_min};
    fixture_init(&shared_fixture, NULL, &options);
    fixture_open(&shared_fixture);
    *state = &shared_fixture;
    return 0;
}

static int set_up(void **state)
{
    return set_up_with(state, UINT64_MAX);
}

static int set_up_zerocopy(void **state)
{
    return set_up_with(state, 0);
}

static int tear_down(void **state)
{
    fixture_fini(*state);
    return 0;
}

static uint64_t count_of(const _Atomic uint64_t *counter)
{
    return rsi_load_relaxed(counter);
}

/* ---- system calls per batch ------------------------------------------------------------------ */

static void count_calls(struct fixture *fixture, uint32_t payload_bytes, uint32_t batch_count)
{
    struct rsi_link *writer = fixture->client;
    struct rsi_link *reader = fixture->server;
    uint64_t sends = count_of(&writer->stats.sends);
    uint64_t receives = count_of(&reader->stats.receives);
    uint64_t reports = count_of(&reader->stats.sends);
    for (uint32_t i = 0; i < batch_count; i++) {
        assert_true(fixture_place(writer, payload_bytes, i));
        assert_int_equal(rsi_link_flush(writer), RSI_OK);
        fixture_pump_until(fixture, fixture_take(reader, payload_bytes, i));
    }
    sends = count_of(&writer->stats.sends) - sends;
    receives = count_of(&reader->stats.receives) - receives;
    reports = count_of(&reader->stats.sends) - reports;
    print_message("%u batches of %u bytes: %llu sends, %llu receives, %llu reports\n", batch_count,
                  payload_bytes, (unsigned long long)sends, (unsigned long long)receives,
                  (unsigned long long)reports);
    assert_int_equal(sends, batch_count);
    assert_true(receives >= batch_count);
    assert_true(receives <= batch_count + batch_count / 4 + 8);
    /* Eight per ring of consumed bytes, and one per RSI_TCP_REPORT_INTERVAL_NS. */
    uint64_t laps = (uint64_t)batch_count * payload_bytes / RING_BYTES + 1;
    assert_true(reports <= 10 * laps + batch_count / 4 + 8);
}

static void small_batches_cost_one_send_and_one_receive(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    count_calls(fixture, 64, 2000);
}

static void larger_batches_cost_one_send_and_one_receive(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    count_calls(fixture, 12000, 500);
}

static void many_messages_in_one_batch_cost_one_send(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    uint64_t sends = count_of(&fixture->client->stats.sends);
    for (uint32_t i = 0; i < 100; i++) {
        assert_true(fixture_place(fixture->client, 40, i));
    }
    assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
    assert_int_equal(count_of(&fixture->client->stats.sends), sends + 1);
    for (uint32_t i = 0; i < 100; i++) {
        fixture_pump_until(fixture, fixture_take(fixture->server, 40, i));
    }
}

/* A reader that fell behind gets many batches with one receive: the bytes that stood in the wrong
 * place were moved to the right one. */
static void batches_that_piled_up_are_received_together(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    for (uint32_t i = 0; i < 300; i++) {
        assert_true(fixture_place(fixture->client, i * 7, i));
        assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
    }
    uint64_t receives = count_of(&fixture->server->stats.receives);
    for (uint32_t i = 0; i < 300; i++) {
        fixture_pump_until(fixture, fixture_take(fixture->server, i * 7, i));
    }
    receives = count_of(&fixture->server->stats.receives) - receives;
    print_message("300 batches that piled up: %llu receives\n", (unsigned long long)receives);
    assert_true(receives < 100);
}

static void a_second_flush_clocked_waits_for_the_next_pass(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    uint64_t sends = count_of(&fixture->client->stats.sends);
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(fixture_place(fixture->client, 40, i));
        assert_int_equal(rsi_link_flush_clocked(fixture->client), RSI_OK);
    }
    assert_int_equal(count_of(&fixture->client->stats.sends), sends + 1);
    assert_false(rsi_tcp_transport.poller_arm(fixture->client_poller));
    rsi_poller_poll(fixture->client_poller, rsi_clock_now_ns());
    assert_int_equal(count_of(&fixture->client->stats.sends), sends + 2);
    for (uint32_t i = 0; i < 10; i++) {
        fixture_pump_until(fixture, fixture_take(fixture->server, 40, i));
    }
}

/* ---- parts ----------------------------------------------------------------------------------- */

static void shrink_buffers(struct fixture *fixture)
{
    int bytes = 16384; /* a fraction of a ring; with less the kernel's timers set the pace */
    int sender_fd = rsi_tcp_link(fixture->client)->fd;
    int receiver_fd = rsi_tcp_link(fixture->server)->fd;
    assert_int_equal(setsockopt(sender_fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
    assert_int_equal(setsockopt(receiver_fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
}

static void sends_taken_in_parts_go_on_where_they_stopped(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    shrink_buffers(fixture);
    enum { MESSAGE_COUNT = 200 };
    uint32_t placed = 0;
    uint32_t taken = 0;
    uint32_t controls = 0;
    uint32_t controls_seen = 0;
    uint64_t end_ns = rsi_clock_now_ns() + FIXTURE_DEADLINE_NS;
    while (taken < MESSAGE_COUNT || controls_seen < controls) {
        assert_true(rsi_clock_now_ns() < end_ns);
        while (placed < MESSAGE_COUNT && fixture_place(fixture->client, 1 + placed * 311, placed)) {
            placed++;
            rsi_status_t status = rsi_link_flush(fixture->client);
            assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
            uint8_t message[RSI_CONTROL_BYTES_MAX];
            memset(message, (int)controls, sizeof(message));
            if (rsi_link_send_control(fixture->client, message, 1 + placed % 512) == RSI_OK) {
                controls++;
            }
        }
        fixture_pump(fixture);
        while (fixture_take(fixture->server, 1 + taken * 311, taken)) {
            taken++;
        }
        uint32_t bytes;
        const uint8_t *message = rsi_link_front_control(fixture->server, &bytes);
        if (message != NULL) {
            assert_int_equal(message[bytes - 1], (uint8_t)controls_seen++);
            rsi_link_pop_control(fixture->server);
        }
    }
    print_message("%u messages in parts: %llu sends, %llu times a full socket\n", MESSAGE_COUNT,
                  (unsigned long long)count_of(&fixture->client->stats.sends),
                  (unsigned long long)count_of(&fixture->client->stats.credit_stalls));
    assert_true(count_of(&fixture->client->stats.credit_stalls) > 0);
    assert_true(controls > 0);
}

/* A link that waits for a full socket must not keep its thread awake. */
static void a_full_socket_does_not_spin(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    shrink_buffers(fixture);
    assert_true(fixture_place(fixture->client, RING_BYTES / 2, 0));
    assert_int_equal(rsi_link_flush(fixture->client), RSI_WOULD_BLOCK);
    for (uint32_t i = 0; i < 10; i++) { /* only the writer's side runs */
        rsi_poller_poll(fixture->client_poller, rsi_clock_now_ns());
    }
    assert_true(fixture->client->under_way);
    assert_true(rsi_tcp_transport.poller_arm(fixture->client_poller));
    fixture_pump_until(fixture, fixture_take(fixture->server, RING_BYTES / 2, 0));
    fixture_pump_until(fixture, !fixture->client->under_way);
}

/* Control messages beyond the reader's credit wait in the writer's outbox; data overtakes them. */
static void control_without_credit_holds_up_no_data(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    uint32_t sent = 0;
    for (uint32_t pass = 0; pass < 2000; pass++) {
        uint8_t byte = (uint8_t)sent;
        if (rsi_link_send_control(fixture->client, &byte, 1) == RSI_OK) {
            sent++;
        }
        fixture_pump(fixture);
    }
    assert_int_equal(sent, 2 * RSI_CONTROL_SLOT_COUNT); /* one mailbox on each side is full */
    assert_int_equal(count_of(&fixture->client->stats.control_sent), RSI_CONTROL_SLOT_COUNT);
    assert_true(rsi_tcp_transport.poller_arm(fixture->client_poller));
    assert_true(rsi_tcp_transport.poller_arm(fixture->server_poller));
    assert_true(fixture_place(fixture->client, 1000, 7));
    assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
    fixture_pump_until(fixture, fixture_take(fixture->server, 1000, 7));

    /* A reader that sleeps is woken by the control thread's pop, to give credit back. */
    rsi_waker_prepare(&fixture->owner_waker);
    assert_true(rsi_tcp_transport.poller_arm(fixture->server_poller));
    uint64_t wakes = count_of(&fixture->owner_waker.wakes);
    for (uint32_t seen = 0; seen < sent; seen++) {
        uint32_t bytes;
        const uint8_t *message;
        fixture_pump_until(fixture, (message = rsi_link_front_control(fixture->server, &bytes)));
        assert_int_equal(*message, (uint8_t)seen);
        rsi_link_pop_control(fixture->server);
        if (seen == 0) {
            assert_int_equal(count_of(&fixture->owner_waker.wakes), wakes + 1);
            rsi_waker_finish(&fixture->owner_waker);
        }
    }
}

/* ---- positions ------------------------------------------------------------------------------- */

static void a_request_is_sent_once_and_answered_when_true(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    assert_true(fixture_place(fixture->client, 100, 1));
    assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
    uint64_t end_pos = fixture->client->placed_pos;
    for (uint32_t i = 0; i < 5; i++) {
        rsi_link_request_wake(fixture->client, UINT64_MAX, UINT64_MAX, end_pos);
    }
    assert_int_equal(count_of(&fixture->client->stats.wake_requests), 1);
    fixture_pump_until(fixture, fixture->server->arrived_pos == end_pos);
    assert_int_equal(count_of(&fixture->server->stats.wakes_sent), 0);
    assert_true(fixture_take(fixture->server, 100, 1));
    fixture_pump_until(fixture, fixture->client->peer_consumed_pos == end_pos);
    assert_int_equal(count_of(&fixture->server->stats.wakes_sent), 1);
}

static void a_request_that_is_true_already_is_answered_at_once(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    assert_true(fixture_place(fixture->client, 100, 1));
    assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
    fixture_pump_until(fixture, fixture_take(fixture->server, 100, 1));
    rsi_link_request_wake(fixture->client, UINT64_MAX, fixture->client->placed_pos, UINT64_MAX);
    fixture_pump_until(fixture, fixture->client->peer_arrived_pos == fixture->client->placed_pos);
    assert_int_equal(count_of(&fixture->server->stats.wakes_sent), 1);
    /* What is known to be true is not asked for. */
    rsi_link_request_wake(fixture->client, UINT64_MAX, fixture->client->placed_pos, UINT64_MAX);
    assert_int_equal(count_of(&fixture->client->stats.wake_requests), 1);
}

static void positions_go_along_with_an_answer(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    for (uint32_t i = 0; i < 50; i++) {
        assert_true(fixture_place(fixture->client, 100, i));
        assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
        fixture_pump_until(fixture, fixture_take(fixture->server, 100, i));
        assert_true(fixture_place(fixture->server, 100, i));
        assert_int_equal(rsi_link_flush(fixture->server), RSI_OK);
        fixture_pump_until(fixture, fixture_take(fixture->client, 100, i));
        assert_int_equal(fixture->client->peer_consumed_pos, fixture->client->placed_pos);
    }
}

/* ---- a thread that spins --------------------------------------------------------------------- */

static void a_spinning_reader_sees_messages_and_sleeps_again(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    for (uint32_t i = 0; i < 1000; i++) {
        rsi_poller_poll(fixture->server_poller, rsi_clock_now_ns());
    }
    assert_true(rsi_tcp_poller(fixture->server_poller)->has_skipped_epoll);
    uint64_t end_ns = rsi_clock_now_ns() + FIXTURE_DEADLINE_NS;
    for (uint32_t i = 0; i < 100; i++) {
        assert_true(fixture_place(fixture->client, 100, i));
        assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
        while (!fixture_take(fixture->server, 100, i)) {
            assert_true(rsi_clock_now_ns() < end_ns);
            rsi_poller_poll(fixture->server_poller, rsi_clock_now_ns());
            rsi_poller_poll(fixture->client_poller, rsi_clock_now_ns());
        }
    }
    /* Before a sleep nothing stale is left that would make the descriptor readable. */
    fixture_pump_until(fixture, rsi_tcp_transport.poller_arm(fixture->server_poller));
    struct epoll_event event = {.events = EPOLLIN};
    int outer_fd = epoll_create1(EPOLL_CLOEXEC);
    int inner_fd = rsi_tcp_transport.poller_fd(fixture->server_poller);
    assert_int_equal(epoll_ctl(outer_fd, EPOLL_CTL_ADD, inner_fd, &event), 0);
    assert_int_equal(epoll_wait(outer_fd, &event, 1, 0), 0);
    assert_true(fixture_place(fixture->client, 100, 5));
    assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
    assert_int_equal(epoll_wait(outer_fd, &event, 1, 20000), 1);
    close(outer_fd);
    fixture_pump_until(fixture, fixture_take(fixture->server, 100, 5));
}

/* ---- zero copy on loopback ------------------------------------------------------------------- */

static void loopback_copies_and_is_asked_only_at_first(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    struct rsi_tcp_link *tcp = rsi_tcp_link(fixture->client);
    if (tcp->zerocopy == NULL) {
        skip(); /* a kernel without SO_ZEROCOPY */
    }
    for (uint32_t i = 0; i < 200; i++) {
        assert_true(fixture_place(fixture->client, 40000, i));
        rsi_status_t status = rsi_link_flush(fixture->client);
        assert_true(status == RSI_OK || status == RSI_WOULD_BLOCK);
        fixture_pump_until(fixture, fixture_take(fixture->server, 40000, i));
    }
    assert_true(count_of(&fixture->client->stats.zerocopy_sends) > 0);
    fixture_pump_until(fixture, rsi_tcp_zerocopy_count(tcp->zerocopy) == 0);
    assert_true(tcp->zerocopy->is_useless);
    assert_int_equal(count_of(&fixture->client->stats.zerocopy_copied),
                     count_of(&fixture->client->stats.zerocopy_sends));
    assert_true(count_of(&fixture->client->stats.zerocopy_sends) < 100);
}

/* Bytes that the kernel may still read are not given back, whatever the peer says of them. */
static void consumed_bytes_are_held_until_the_kernel_lets_go(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    struct rsi_tcp_link *tcp = rsi_tcp_link(fixture->client);
    if (tcp->zerocopy == NULL) {
        skip();
    }
    /* A send that never completes, as far as this link can know. */
    rsi_tcp_zerocopy_add(tcp->zerocopy, 0);
    tcp->zerocopy->is_useless = true;
    assert_true(fixture_place(fixture->client, 1000, 1));
    assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
    uint64_t end_pos = fixture->client->placed_pos;
    fixture_pump_until(fixture, fixture_take(fixture->server, 1000, 1));
    rsi_link_request_wake(fixture->client, UINT64_MAX, end_pos, UINT64_MAX);
    fixture_pump_until(fixture, fixture->client->peer_arrived_pos == end_pos);
    assert_int_equal(tcp->told_consumed_pos, end_pos);
    assert_int_equal(fixture->client->peer_consumed_pos, 0);
    assert_true(rsi_tcp_zerocopy_complete(tcp->zerocopy, 0, 0));
    rsi_tcp_show_consumed(tcp);
    assert_int_equal(fixture->client->peer_consumed_pos, end_pos);
}

static void closing_with_references_aborts_and_waits_for_them(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    struct rsi_tcp_link *tcp = rsi_tcp_link(fixture->client);
    if (tcp->zerocopy == NULL) {
        skip();
    }
    shrink_buffers(fixture);
    assert_true(fixture_place(fixture->client, RING_BYTES / 2, 1));
    assert_int_equal(rsi_link_flush(fixture->client), RSI_WOULD_BLOCK);
    assert_true(rsi_tcp_zerocopy_count(tcp->zerocopy) > 0);
    /* The reader does not read: the bytes stay in the kernel until the connection is aborted. */
    rsi_tcp_transport.link_close(fixture->client);
    uint64_t end_ns = rsi_clock_now_ns() + FIXTURE_DEADLINE_NS;
    while (rsi_link_state(fixture->client) != RSI_LINK_CLOSED) {
        assert_true(rsi_clock_now_ns() < end_ns);
        rsi_poller_poll(fixture->client_poller, rsi_clock_now_ns());
        rsi_tcp_transport.link_poll_control(fixture->client, rsi_clock_now_ns());
    }
    assert_non_null(tcp->zerocopy); /* completed, not given up */
    assert_int_equal(rsi_tcp_zerocopy_count(tcp->zerocopy), 0);
    fixture_pump_until(fixture, rsi_link_state(fixture->server) == RSI_LINK_LOST);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void what_was_sent_before_closing_arrives(void **state)
{
    struct fixture *fixture = *state;
    fixture_attach(fixture, RING_BYTES);
    assert_true(fixture_place(fixture->client, 1000, 3));
    assert_int_equal(rsi_link_flush(fixture->client), RSI_OK);
    for (uint32_t i = 0; i < 20; i++) {
        uint8_t byte = (uint8_t)i;
        assert_int_equal(rsi_link_send_control(fixture->client, &byte, 1), RSI_OK);
    }
    /* Unread bytes on the closing side would make a plain close() reset the connection. */
    assert_true(fixture_place(fixture->server, 1000, 4));
    assert_int_equal(rsi_link_flush(fixture->server), RSI_OK);
    rsi_tcp_transport.link_close(fixture->client);
    fixture_pump_until(fixture, rsi_link_state(fixture->server) == RSI_LINK_LOST);
    assert_non_null(strstr(fixture->server->error.text, "the peer closed the connection"));
    assert_true(fixture_take(fixture->server, 1000, 3));
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t bytes;
        const uint8_t *message = rsi_link_front_control(fixture->server, &bytes);
        assert_non_null(message);
        assert_int_equal(*message, i);
        rsi_link_pop_control(fixture->server);
    }
}

static void refused_and_unusable_addresses_are_named(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_error error = {0};
    struct rsi_listener *second = NULL;
    struct rsi_url url;
    const char *text = rsi_tcp_transport.listener_url(fixture->listener);
    assert_int_equal(rsi_url_parse(&url, text, &error), RSI_OK);
    assert_int_equal(rsi_tcp_transport.listener_create(&second, fixture->domain, &url, &error),
                     RSI_E_ADDRESS);
    char port[16];
    snprintf(port, sizeof(port), "port %u", url.port);
    assert_non_null(strstr(error.text, port));
    assert_null(second);

    struct rsi_url foreign = {.scheme = "tcp", .host = "192.0.2.1"};
    assert_int_equal(rsi_tcp_transport.listener_create(&second, fixture->domain, &foreign, &error),
                     RSI_E_ADDRESS);
    assert_non_null(strstr(error.text, "192.0.2.1"));

    rsi_tcp_transport.listener_destroy(fixture->listener);
    fixture->listener = NULL;
    struct rsi_link *link = NULL;
    assert_int_equal(rsi_tcp_transport.link_dial(&link, fixture->client_poller, &url, &error),
                     RSI_OK);
    fixture_pump_until(fixture, (rsi_tcp_transport.link_poll_control(link, rsi_clock_now_ns()),
                                 rsi_link_state(link) == RSI_LINK_LOST));
    assert_int_equal(link->error.status, RSI_E_REFUSED);
    assert_non_null(strstr(link->error.text, "start ringsided"));
    rsi_tcp_transport.link_close(link);
    rsi_tcp_transport.link_poll_control(link, rsi_clock_now_ns());
    assert_int_equal(rsi_link_state(link), RSI_LINK_CLOSED);
    rsi_tcp_transport.link_destroy(link);
}

static void a_poller_takes_no_more_links_than_it_was_made_for(void **state)
{
    struct fixture *fixture = *state;
    struct rsi_url url;
    struct rsi_link *links[4] = {0};
    assert_int_equal(rsi_url_parse(&url, rsi_tcp_transport.listener_url(fixture->listener), NULL),
                     RSI_OK);
    for (uint32_t i = 0; i < 3; i++) { /* the fixture's own is the fourth */
        assert_int_equal(rsi_tcp_transport.link_dial(&links[i], fixture->client_poller, &url, NULL),
                         RSI_OK);
    }
    struct rsi_error error = {0};
    assert_int_equal(rsi_tcp_transport.link_dial(&links[3], fixture->client_poller, &url, &error),
                     RSI_E_LIMIT);
    assert_null(links[3]);
    for (uint32_t i = 0; i < 3; i++) {
        rsi_tcp_transport.link_close(links[i]);
        rsi_tcp_transport.link_close(links[i]);
        rsi_tcp_transport.link_poll_control(links[i], rsi_clock_now_ns());
        assert_int_equal(rsi_link_state(links[i]), RSI_LINK_CLOSED);
        rsi_tcp_transport.link_destroy(links[i]);
    }
}

#define TCP_TEST(test)          cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define TCP_ZEROCOPY_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_zerocopy, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TCP_TEST(small_batches_cost_one_send_and_one_receive),
        TCP_TEST(larger_batches_cost_one_send_and_one_receive),
        TCP_TEST(many_messages_in_one_batch_cost_one_send),
        TCP_TEST(batches_that_piled_up_are_received_together),
        TCP_TEST(a_second_flush_clocked_waits_for_the_next_pass),
        TCP_TEST(sends_taken_in_parts_go_on_where_they_stopped),
        TCP_TEST(a_full_socket_does_not_spin),
        TCP_TEST(control_without_credit_holds_up_no_data),
        TCP_TEST(a_request_is_sent_once_and_answered_when_true),
        TCP_TEST(a_request_that_is_true_already_is_answered_at_once),
        TCP_TEST(positions_go_along_with_an_answer),
        TCP_TEST(a_spinning_reader_sees_messages_and_sleeps_again),
        TCP_ZEROCOPY_TEST(loopback_copies_and_is_asked_only_at_first),
        TCP_ZEROCOPY_TEST(consumed_bytes_are_held_until_the_kernel_lets_go),
        TCP_ZEROCOPY_TEST(closing_with_references_aborts_and_waits_for_them),
        TCP_TEST(what_was_sent_before_closing_arrives),
        TCP_TEST(refused_and_unusable_addresses_are_named),
        TCP_TEST(a_poller_takes_no_more_links_than_it_was_made_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
