/*
 * What holds for a pair of links on any devices: real ones joined by a wire (machine_test.c) and
 * the double's (double_test.c).
 *
 * Design notes
 * - The tests of memory windows post by hand on a link's queue pair, because the transport itself
 *   never writes where it may not. Each uses a fresh link: a refused write breaks it.
 * - Nothing here depends on speed; time-outs are for hangs only.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <inttypes.h>
#include <poll.h>

#include "core/clock.h"
#include "transport/rdma/pair_cases.h"

#define RING_BYTES (UINT64_C(1) << 20)

static const struct rsi_transport *const rdma = &rsi_rdma_transport;

static uint64_t stat_of(_Atomic uint64_t *counter)
{
    return rsi_load_relaxed(counter);
}

/* ---- data ----------------------------------------------------------------------------------- */

static void test_messages_cross_the_ring_end_both_ways(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    pair_send_and_take(&pair, pair.client.link, pair.server.link, 300, pair_mixed_size);
    pair_send_and_take(&pair, pair.server.link, pair.client.link, 300, pair_mixed_size);
    assert_true(pair.client.link->placed_pos > 4 * RING_BYTES);
    pair_close(&pair);
}

/* Counts for one burst in one direction, after everything before it is settled. */
static void burst(struct pair *pair, struct rsi_link *from, struct rsi_link *to, uint64_t count)
{
    uint64_t sends = stat_of(&from->stats.sends) + stat_of(&to->stats.sends);
    uint64_t doorbells = stat_of(&from->stats.doorbells);
    uint64_t taken = 0;
    for (uint64_t i = 0; i < count; i++) {
        assert_true(pair_put(from, i, 64));
        assert_int_equal(rsi_link_flush_clocked(from), RSI_OK);
    }
    PAIR_WAIT(pair, (pair_take(to, &taken), taken == count));
    PAIR_WAIT(pair, from->peer_arrived_pos == from->placed_pos);
    uint64_t both = stat_of(&from->stats.sends) + stat_of(&to->stats.sends) - sends;
    print_message("burst of %" PRIu64 " messages: %" PRIu64 " work requests of both sides, %" PRIu64
                  " doorbells of the sender\n",
                  count, both, stat_of(&from->stats.doorbells) - doorbells);
    assert_true(both <= 40);
}

static void test_burst_costs_few_work_requests(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    burst(&pair, pair.client.link, pair.server.link, 1000);
    burst(&pair, pair.server.link, pair.client.link, 1000);
    pair_close(&pair);
}

static void test_single_message_leaves_at_once(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    struct rsi_link *link = pair.client.link;
    uint64_t batches = stat_of(&link->stats.batches_sent);
    assert_true(pair_put(link, 0, 64));
    assert_int_equal(rsi_link_flush_clocked(link), RSI_OK);
    assert_int_equal(stat_of(&link->stats.batches_sent), batches + 1);
    assert_int_equal(link->flushed_pos, link->placed_pos);
    assert_true(link->under_way);
    uint64_t taken = 0;
    PAIR_WAIT(&pair, (pair_take(pair.server.link, &taken), taken == 1));
    PAIR_WAIT(&pair, !link->under_way);
    pair_close(&pair);
}

/* The reader does not poll: the writer stalls at its batch credit, then goes on. */
static void test_batch_credit_bounds_what_is_outstanding(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    struct rsi_link *link = pair.client.link;
    rsi_status_t status = RSI_OK;
    uint64_t sent = 0;
    while (status == RSI_OK && sent < 1000) {
        assert_true(pair_put(link, sent++, 64));
        status = rsi_link_flush(link);
        (void)rsi_poller_poll(pair.client.poller, rsi_clock_now_ns());
    }
    assert_int_equal(status, RSI_WOULD_BLOCK);
    assert_true(sent <= RSI_RDMA_BATCH_CREDIT + 1);
    assert_int_equal(stat_of(&link->stats.credit_stalls), 1);
    uint64_t taken = 0;
    PAIR_WAIT(&pair, (pair_take(pair.server.link, &taken), taken == sent));
    PAIR_WAIT(&pair, link->flushed_pos == link->placed_pos);
    pair_close(&pair);
}

/* ---- sleeping ------------------------------------------------------------------------------- */

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd wish = {.fd = fd, .events = POLLIN};
    return poll(&wish, 1, timeout_ms) == 1;
}

/* Arms until nothing is left to do. */
static void go_to_sleep(struct pair_end *end)
{
    uint64_t deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS;
    while (!rdma->poller_arm(end->poller)) {
        assert_true(rsi_clock_now_ns() < deadline_ns);
        (void)rsi_poller_poll(end->poller, rsi_clock_now_ns());
    }
}

static void test_arrival_wakes_a_sleeper(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    uint64_t taken = 0;
    for (uint64_t i = 0; i < 100; i++) {
        go_to_sleep(&pair.server);
        assert_true(pair_put(pair.client.link, i, 64));
        assert_int_equal(rsi_link_flush(pair.client.link), RSI_OK);
        assert_true(is_readable(rdma->poller_fd(pair.server.poller), 20000));
        rdma->poller_disarm(pair.server.poller);
        PAIR_WAIT(&pair, (pair_take(pair.server.link, &taken), taken == i + 1));
        PAIR_WAIT(&pair, !pair.client.link->under_way);
    }
    pair_close(&pair);
}

static void test_consumption_wakes_a_sleeping_writer(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    struct rsi_link *writer = pair.client.link;
    struct rsi_link *reader = pair.server.link;
    uint64_t sequence = 0;
    while (pair_put(writer, sequence, 8000)) {
        sequence++;
    }
    PAIR_WAIT(&pair,
              rsi_link_flush(writer) == RSI_OK && writer->peer_arrived_pos == writer->placed_pos);
    PAIR_WAIT(&pair, reader->arrived_pos == writer->placed_pos);
    uint64_t wanted_pos = writer->placed_pos;
    rsi_link_request_wake(writer, UINT64_MAX, UINT64_MAX, wanted_pos);
    rsi_link_request_wake(writer, UINT64_MAX, UINT64_MAX, wanted_pos);
    assert_int_equal(stat_of(&writer->stats.wake_requests), 1);
    PAIR_WAIT(&pair, rsi_rdma_link_of(reader)->data.asked_by_peer.is_open);
    go_to_sleep(&pair.client);
    uint64_t taken = 0;
    while (taken < sequence) {
        (void)rsi_poller_poll(pair.server.poller, rsi_clock_now_ns());
        (void)pair_take(reader, &taken);
    }
    uint64_t answer_deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS;
    while (stat_of(&reader->stats.wakes_sent) == 0) {
        (void)rsi_poller_poll(pair.server.poller, rsi_clock_now_ns());
        assert_true(rsi_clock_now_ns() < answer_deadline_ns);
    }
    assert_true(is_readable(rdma->poller_fd(pair.client.poller), 20000));
    rdma->poller_disarm(pair.client.poller);
    PAIR_WAIT(&pair, writer->peer_consumed_pos == wanted_pos);
    assert_int_equal(stat_of(&reader->stats.wakes_sent), 1);
    pair_close(&pair);
}

static void test_stalled_sleeper_is_woken_by_credit(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    struct rsi_link *writer = pair.client.link;
    uint64_t sent = 0;
    rsi_status_t status = RSI_OK;
    while (status == RSI_OK) {
        assert_true(pair_put(writer, sent++, 64));
        status = rsi_link_flush(writer);
        (void)rsi_poller_poll(pair.client.poller, rsi_clock_now_ns());
    }
    assert_int_equal(status, RSI_WOULD_BLOCK);
    /* The reader takes all; only a wake-up can tell the writer, which sleeps meanwhile. */
    uint64_t taken = 0;
    uint64_t deadline_ns = rsi_clock_now_ns() + PAIR_DEADLINE_NS;
    while (taken < sent) {
        go_to_sleep(&pair.client);
        (void)rsi_poller_poll(pair.server.poller, rsi_clock_now_ns());
        (void)pair_take(pair.server.link, &taken);
        if (is_readable(rdma->poller_fd(pair.client.poller), 100)) {
            rdma->poller_disarm(pair.client.poller);
            (void)rsi_poller_poll(pair.client.poller, rsi_clock_now_ns());
        }
        assert_true(rsi_clock_now_ns() < deadline_ns);
    }
    pair_close(&pair);
}

/* ---- control lane --------------------------------------------------------------------------- */

static bool take_control(struct rsi_link *link, uint32_t expected)
{
    uint32_t bytes = 0;
    const uint32_t *message = rsi_link_front_control(link, &bytes);
    if (message == NULL) {
        return false;
    }
    assert_int_equal(bytes, sizeof(expected));
    assert_int_equal(*message, expected);
    rsi_link_pop_control(link);
    return true;
}

/* Far more than the credit, in both directions at once. */
static void test_control_lane_returns_credit(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    struct pair pair;
    pair_listen(&pair);
    pair_dial(&pair);
    struct rsi_link *ends[2] = {pair.client.link, pair.server.link};
    uint32_t sent[2] = {0};
    uint32_t taken[2] = {0};
    uint64_t deadline_ns = rsi_clock_now_ns() + 3 * PAIR_DEADLINE_NS;
    while (taken[0] < COUNT || taken[1] < COUNT) {
        for (int i = 0; i < 2; i++) {
            while (sent[i] < COUNT &&
                   rsi_link_send_control(ends[i], &sent[i], sizeof(sent[i])) == RSI_OK) {
                sent[i]++;
            }
            while (take_control(ends[i], taken[i])) {
                taken[i]++;
            }
        }
        pair_drive(&pair);
        assert_true(rsi_clock_now_ns() < deadline_ns);
    }
    pair_close(&pair);
}

static void test_outbox_is_sent_before_the_close(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(rsi_link_send_control(pair.client.link, &i, sizeof(i)), RSI_OK);
    }
    assert_true(pair_put(pair.client.link, 0, 64));
    assert_int_equal(rsi_link_flush(pair.client.link), RSI_OK);
    rdma->link_close(pair.client.link);
    PAIR_WAIT(&pair, rsi_link_state(pair.server.link) == RSI_LINK_LOST);
    assert_int_equal(pair.server.link->error.status, RSI_E_LINK_CLOSED);
    for (uint32_t i = 0; i < 40; i++) {
        assert_true(take_control(pair.server.link, i));
    }
    uint64_t taken = 0;
    assert_int_equal(pair_take(pair.server.link, &taken), 1);
    pair_close(&pair);
}

/* ---- what the device refuses ---------------------------------------------------------------- */

/* Writes 64 bytes by hand from the client's out ring, on the queue pair of `link`. */
static void write_by_hand(struct rsi_link *link, uint64_t remote_address, uint32_t key)
{
    struct rsi_rdma_link *own = rsi_rdma_link_of(link);
    struct ibv_sge span = {
        .addr = (uintptr_t)link->out.base,
        .length = 64,
        .lkey = own->out_region.mr->lkey,
    };
    struct ibv_send_wr request = {
        .sg_list = &span,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE,
        .send_flags = IBV_SEND_SIGNALED,
        .wr.rdma = {.remote_addr = remote_address, .rkey = key},
    };
    assert_true(rsi_rdma_post(own, RSI_RDMA_WORK_WORDS, &request, 1));
}

static void expect_refused(struct pair *pair, const uint8_t *untouched)
{
    PAIR_WAIT(pair, rsi_link_state(pair->client.link) == RSI_LINK_LOST);
    assert_int_equal(pair->client.link->error.status, RSI_E_LINK_LOST);
    assert_non_null(strstr(pair->client.link->error.text, "refused the write"));
    for (int i = 0; i < 64; i++) {
        assert_int_equal(untouched[i], 0);
    }
    pair_close(pair);
}

static void open_with_pattern(struct pair *pair)
{
    pair_open(pair, RING_BYTES);
    memset(pair->client.link->out.base, 0x5a, 64);
}

static void test_window_lets_the_own_ring_be_written(void **state)
{
    (void)state;
    struct pair pair;
    open_with_pattern(&pair);
    const struct rsi_rdma_way *way = &rsi_rdma_link_of(pair.client.link)->data.way;
    write_by_hand(pair.client.link, way->remote_address + RING_BYTES - 64, way->remote_key);
    const uint8_t *last = pair.server.link->in.base + RING_BYTES - 64;
    PAIR_WAIT(&pair, rsi_load_acquire((_Atomic uint8_t *)(last + 63)) == 0x5a);
    assert_int_equal(rsi_link_state(pair.client.link), RSI_LINK_ATTACHED);
    pair_close(&pair);
}

static void test_window_refuses_a_write_past_its_end(void **state)
{
    (void)state;
    struct pair pair;
    open_with_pattern(&pair);
    const struct rsi_rdma_way *way = &rsi_rdma_link_of(pair.client.link)->data.way;
    /* The mirror lies behind the ring: mapped, but not registered. */
    const uint8_t *beyond = pair.server.link->in.base + RING_BYTES;
    write_by_hand(pair.client.link, way->remote_address + RING_BYTES, way->remote_key);
    expect_refused(&pair, beyond);
}

static void test_window_refuses_a_write_before_its_start(void **state)
{
    (void)state;
    struct pair pair;
    open_with_pattern(&pair);
    const struct rsi_rdma_way *way = &rsi_rdma_link_of(pair.client.link)->data.way;
    static const uint8_t zeros[64];
    write_by_hand(pair.client.link, way->remote_address - RSI_WORDS_BYTES - 64, way->remote_key);
    expect_refused(&pair, zeros);
}

static void test_region_key_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    open_with_pattern(&pair);
    const struct rsi_rdma_link *server = rsi_rdma_link_of(pair.server.link);
    assert_non_null(server->in_region.mw);
    assert_int_not_equal(server->in_region.mr->rkey, server->own_attach.key);
    const struct rsi_rdma_way *way = &rsi_rdma_link_of(pair.client.link)->data.way;
    write_by_hand(pair.client.link, way->remote_address, server->in_region.mr->rkey);
    expect_refused(&pair, pair.server.link->in.base);
}

/* Two clients of one server; the second uses the first one's key. */
static void test_another_links_key_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    open_with_pattern(&pair);
    struct rsi_link *first_client = pair.client.link;
    struct rsi_link *first_server = pair.server.link;
    struct rsi_rdma_way first_way = rsi_rdma_link_of(first_client)->data.way;
    pair.client.link = NULL;
    pair.server.link = NULL;
    pair_dial(&pair);
    pair_attach(&pair, RING_BYTES);
    memset(pair.client.link->out.base, 0x5a, 64);
    write_by_hand(pair.client.link, first_way.remote_address, first_way.remote_key);
    PAIR_WAIT(&pair, rsi_link_state(pair.client.link) == RSI_LINK_LOST);
    assert_non_null(strstr(pair.client.link->error.text, "refused the write"));
    for (int i = 0; i < 64; i++) {
        assert_int_equal(first_server->in.base[i], 0);
    }
    pair_hang_up(&pair);
    /* The first link lives on. */
    pair.client.link = first_client;
    pair.server.link = first_server;
    pair_send_and_take(&pair, first_client, first_server, 10, pair_small_size);
    pair_close(&pair);
}

/* ---- connecting ----------------------------------------------------------------------------- */

static void test_nobody_listens(void **state)
{
    (void)state;
    struct pair pair;
    pair_listen(&pair);
    struct rsi_url url;
    struct rsi_error error = {0};
    assert_int_equal(rsi_url_parse(&url, rdma->listener_url(pair.listener), &error), RSI_OK);
    rdma->listener_destroy(pair.listener);
    pair.listener = NULL;
    assert_int_equal(rdma->link_dial(&pair.client.link, pair.client.poller, &url, &error), RSI_OK);
    PAIR_WAIT(&pair, rsi_link_state(pair.client.link) == RSI_LINK_LOST);
    print_message("nobody there: %s\n", pair.client.link->error.text);
    assert_int_equal(pair.client.link->error.status, RSI_E_REFUSED);
    pair_close(&pair);
}

static void test_port_in_use(void **state)
{
    (void)state;
    struct pair pair;
    pair_listen(&pair);
    struct rsi_url url;
    struct rsi_error error = {0};
    assert_int_equal(rsi_url_parse(&url, rdma->listener_url(pair.listener), &error), RSI_OK);
    struct rsi_listener *second = NULL;
    assert_int_equal(rdma->listener_create(&second, pair.server.domain, &url, &error),
                     RSI_E_ADDRESS);
    print_message("port in use: %s\n", error.text);
    assert_non_null(strstr(error.text, "in use"));
    assert_null(second);
    pair_close(&pair);
}

static void test_another_version_is_named_on_both_sides(void **state)
{
    (void)state;
    struct pair pair;
    pair_listen(&pair);
    pair.expects_refusal = true;
    pair.client.domain->options.version_min = 7;
    pair.client.domain->options.version_max = 9;
    struct rsi_url url;
    struct rsi_error error = {0};
    assert_int_equal(rsi_url_parse(&url, rdma->listener_url(pair.listener), &error), RSI_OK);
    assert_int_equal(rdma->link_dial(&pair.client.link, pair.client.poller, &url, &error), RSI_OK);
    PAIR_WAIT(&pair, rsi_link_state(pair.client.link) == RSI_LINK_LOST);
    print_message("other version: %s\n", pair.client.link->error.text);
    assert_int_equal(pair.client.link->error.status, RSI_E_VERSION);
    assert_non_null(strstr(pair.client.link->error.text, "7 to 9"));
    PAIR_WAIT(&pair, pair.refusal.status != RSI_OK);
    assert_int_equal(pair.refusal.status, RSI_E_VERSION);
    assert_non_null(strstr(pair.refusal.text, "7 to 9"));
    pair_close(&pair);
}

const struct CMUnitTest pair_tests[PAIR_TEST_COUNT] = {
    cmocka_unit_test(test_messages_cross_the_ring_end_both_ways),
    cmocka_unit_test(test_burst_costs_few_work_requests),
    cmocka_unit_test(test_single_message_leaves_at_once),
    cmocka_unit_test(test_batch_credit_bounds_what_is_outstanding),
    cmocka_unit_test(test_arrival_wakes_a_sleeper),
    cmocka_unit_test(test_consumption_wakes_a_sleeping_writer),
    cmocka_unit_test(test_stalled_sleeper_is_woken_by_credit),
    cmocka_unit_test(test_control_lane_returns_credit),
    cmocka_unit_test(test_outbox_is_sent_before_the_close),
    cmocka_unit_test(test_window_lets_the_own_ring_be_written),
    cmocka_unit_test(test_window_refuses_a_write_past_its_end),
    cmocka_unit_test(test_window_refuses_a_write_before_its_start),
    cmocka_unit_test(test_region_key_is_refused),
    cmocka_unit_test(test_another_links_key_is_refused),
    cmocka_unit_test(test_nobody_listens),
    cmocka_unit_test(test_port_in_use),
    cmocka_unit_test(test_another_version_is_named_on_both_sides),
};
