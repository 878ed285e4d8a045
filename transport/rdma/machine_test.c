/*
 * What only a real device can show about the rdma transport. Run it where two devices are joined
 * by a wire: tests/vm/run -- BUILD/bin/rdma_machine_test
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

#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/histogram.h"
#include "core/log.h"
#include "transport/rdma/pair_testing.h"

#define RING_BYTES    (UINT64_C(1) << 20)
#define NOBODY        65534
#define STOCK_MEMLOCK (UINT64_C(8) << 20)

static const struct rsi_transport *const rdma = &rsi_rdma_transport;

static uint64_t stat_of(_Atomic uint64_t *counter)
{
    return rsi_load_relaxed(counter);
}

/* ---- data ----------------------------------------------------------------------------------- */

static void send_and_take(struct pair *pair, struct rsi_link *from, struct rsi_link *to,
                          uint64_t count, uint32_t (*size_of)(uint64_t sequence))
{
    uint64_t sent = 0;
    uint64_t taken = 0;
    uint64_t deadline_ns = rsi_clock_now_ns() + 6 * PAIR_DEADLINE_NS;
    while (taken < count) {
        while (sent < count && pair_put(from, sent, size_of(sent))) {
            sent++;
        }
        assert_false(rsi_failed(rsi_link_flush_clocked(from)));
        pair_drive(pair);
        (void)pair_take(to, &taken);
        if (rsi_link_state(from) != RSI_LINK_ATTACHED) {
            fail_msg("lost: %s", from->error.text);
        }
        assert_true(rsi_clock_now_ns() < deadline_ns);
    }
}

static uint32_t mixed_size(uint64_t sequence)
{
    static const uint32_t sizes[] = {0,   1,   7,   8,    63,   64,    65,
                                     215, 216, 217, 1000, 4096, 70000, 200000};
    return sizes[sequence % rsi_array_count(sizes)];
}

static uint32_t small_size(uint64_t sequence)
{
    (void)sequence;
    return 64;
}

static void test_messages_cross_the_ring_end_both_ways(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    send_and_take(&pair, pair.client.link, pair.server.link, 300, mixed_size);
    send_and_take(&pair, pair.server.link, pair.client.link, 300, mixed_size);
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
    assert_int_equal(pair->client.link->error.status, RSI_E_PROTOCOL);
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
    send_and_take(&pair, first_client, first_server, 10, small_size);
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

/* Lines of "rdma resource show", which counts what the devices hold. */
static void read_resources(char *text, size_t text_bytes)
{
    FILE *pipe = popen("rdma resource show", "r");
    assert_non_null(pipe);
    size_t bytes = fread(text, 1, text_bytes - 1, pipe);
    text[bytes] = 0;
    assert_int_equal(pclose(pipe), 0);
}

static void test_connections_leave_nothing_behind(void **state)
{
    (void)state;
    char before[1024];
    char after[1024];
    struct pair pair;
    pair_open(&pair, RING_BYTES); /* devices and queues are made by the first */
    pair_hang_up(&pair);
    read_resources(before, sizeof(before));
    for (int i = 0; i < 100; i++) {
        pair_dial(&pair);
        pair_attach(&pair, RSI_RING_BYTES_MIN);
        send_and_take(&pair, pair.client.link, pair.server.link, 3, small_size);
        pair_hang_up(&pair);
    }
    read_resources(after, sizeof(after));
    print_message("%s", after);
    assert_string_equal(before, after);
    assert_int_equal(rsi_rdma_poller_of(pair.client.poller)->stale_count, 0);
    assert_int_equal(rsi_rdma_poller_of(pair.server.poller)->stale_count, 0);
    pair_close(&pair);
}

/* ---- memory limits -------------------------------------------------------------------------- */

static void become_nobody_with_the_stock_limit(void)
{
    struct rlimit limit = {.rlim_cur = STOCK_MEMLOCK, .rlim_max = STOCK_MEMLOCK};
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    assert_int_equal(setgroups(0, NULL), 0);
    assert_int_equal(setgid(NOBODY), 0);
    assert_int_equal(setuid(NOBODY), 0);
}

/* Both ends live in this process here, so each has rings of half the default: together they pin
 * what one client with the defaults pins. */
static void test_stock_limit_is_enough_for_the_defaults(void **state)
{
    (void)state;
    become_nobody_with_the_stock_limit();
    struct pair pair;
    pair_open(&pair, RSI_RING_BYTES_DEFAULT / 2);
    uint64_t registered_bytes = rsi_rdma_domain_of(pair.client.domain)->registered_bytes +
                                rsi_rdma_domain_of(pair.server.domain)->registered_bytes;
    print_message("registered: %" PRIu64 " KiB\n", registered_bytes / 1024);
    assert_true(registered_bytes >= 2 * RSI_RING_BYTES_DEFAULT);
    send_and_take(&pair, pair.client.link, pair.server.link, 100, small_size);
    pair_close(&pair);
}

static void test_too_large_rings_name_need_limit_and_mend(void **state)
{
    (void)state;
    struct pair pair;
    pair_listen(&pair);
    pair_dial(&pair);
    struct rsi_link_rings rings = {.out_bytes = 64 << 20, .in_bytes = 64 << 20};
    struct rsi_error error = {0};
    assert_int_equal(rdma->link_attach(pair.client.link, &rings, &error), RSI_E_NO_MEMORY_LOCK);
    print_message("too large: %s\n", error.text);
    assert_non_null(strstr(error.text, "65540 KiB"));
    assert_non_null(strstr(error.text, "8192 KiB"));
    assert_non_null(strstr(error.text, "LimitMEMLOCK="));
    /* The link lives, and takes rings that fit. */
    assert_int_equal(rsi_link_state(pair.client.link), RSI_LINK_OPEN);
    pair_attach(&pair, RSI_RING_BYTES_MIN);
    pair_close(&pair);
}

/* ---- a bad wire ----------------------------------------------------------------------------- */

/* Changes what the wire does; "" mends it. Only in the machine: this would disturb a real
 * network. */
static int set_wire(const char *what)
{
    char command[128];
    if (what[0] == 0) {
        snprintf(command, sizeof(command), "tc qdisc del dev va root");
    } else {
        snprintf(command, sizeof(command), "tc qdisc add dev va root netem %s", what);
    }
    return system(command);
}

static int mend_wire(void **state)
{
    (void)state;
    return set_wire("");
}

static void test_lossy_wire_delivers_intact(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    assert_int_equal(set_wire("loss 1%"), 0);
    send_and_take(&pair, pair.client.link, pair.server.link, 2000, small_size);
    send_and_take(&pair, pair.server.link, pair.client.link, 100, mixed_size);
    pair_close(&pair);
}

static void test_cut_wire_is_noticed(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    assert_int_equal(set_wire("loss 100%"), 0);
    assert_true(pair_put(pair.server.link, 0, 64));
    assert_int_equal(rsi_link_flush(pair.server.link), RSI_OK);
    PAIR_WAIT(&pair, rsi_link_state(pair.server.link) == RSI_LINK_LOST);
    print_message("cut wire: %s\n", pair.server.link->error.text);
    assert_int_equal(pair.server.link->error.status, RSI_E_LINK_LOST);
    assert_non_null(strstr(pair.server.link->error.text, "does not answer"));
    pair_close(&pair);
}

#define VICTIM_MESSAGES 10

/* Connects to the URL that comes through `urls`, sends, and goes on until it is killed. */
static void be_the_victim(int urls)
{
    struct pair pair = {0};
    char text[320] = {0};
    if (read(urls, text, sizeof(text) - 1) <= 0) {
        _exit(1);
    }
    pair_client_create(&pair);
    struct rsi_url url;
    if (rsi_url_parse(&url, text, NULL) != RSI_OK ||
        rdma->link_dial(&pair.client.link, pair.client.poller, &url, NULL) != RSI_OK) {
        _exit(1);
    }
    uint64_t sequence = 0;
    for (;;) {
        pair_drive(&pair);
        enum rsi_link_state state = rsi_link_state(pair.client.link);
        struct rsi_link_rings rings = {.out_bytes = RSI_RING_BYTES_MIN};
        if (state == RSI_LINK_OPEN && rdma->link_attach(pair.client.link, &rings, NULL) != RSI_OK) {
            _exit(1);
        }
        if (state == RSI_LINK_ATTACHED && sequence < VICTIM_MESSAGES) {
            (void)pair_put(pair.client.link, sequence++, 64);
            (void)rsi_link_flush(pair.client.link);
        }
        if (getppid() == 1) {
            _exit(1);
        }
    }
}

static void test_peer_process_dies(void **state)
{
    (void)state;
    int urls[2];
    assert_int_equal(pipe(urls), 0);
    pid_t victim = fork(); /* nothing of verbs was used in this process yet */
    assert_true(victim >= 0);
    if (victim == 0) {
        be_the_victim(urls[0]);
    }
    struct pair pair;
    pair_listen(&pair);
    const char *url = rdma->listener_url(pair.listener);
    assert_int_equal(write(urls[1], url, strlen(url)), strlen(url));
    PAIR_WAIT(&pair, pair.server.link != NULL && rsi_link_state(pair.server.link) == RSI_LINK_OPEN);
    struct rsi_link_rings rings = {.in_bytes = RSI_RING_BYTES_MIN};
    assert_int_equal(rdma->link_attach(pair.server.link, &rings, NULL), RSI_OK);
    uint64_t bytes = VICTIM_MESSAGES * rsi_frame_bytes(0, 64);
    PAIR_WAIT(&pair, pair.server.link->arrived_pos == bytes);
    assert_int_equal(kill(victim, SIGKILL), 0);
    assert_int_equal(waitpid(victim, NULL, 0), victim);
    PAIR_WAIT(&pair, rsi_link_state(pair.server.link) == RSI_LINK_LOST);
    print_message("peer killed: %s\n", pair.server.link->error.text);
    assert_int_equal(pair.server.link->error.status, RSI_E_LINK_LOST);
    uint64_t taken = 0;
    assert_int_equal(pair_take(pair.server.link, &taken), VICTIM_MESSAGES);
    close(urls[0]);
    close(urls[1]);
    pair_close(&pair);
}

/* ---- latency -------------------------------------------------------------------------------- */

#define PING_COUNT 3000

struct ponger {
    struct pair_end *end;
    _Atomic bool should_stop;
};

static void *pong(void *arg)
{
    struct ponger *ponger = arg;
    struct rsi_link *link = ponger->end->link;
    uint64_t next = 0;
    while (!rsi_load_relaxed(&ponger->should_stop)) {
        (void)rsi_poller_poll(ponger->end->poller, rsi_clock_now_ns());
        while (next < UINT64_MAX && link->consumed_pos < link->arrived_pos) {
            uint32_t count = pair_take(link, &next);
            for (uint32_t i = 0; i < count; i++) {
                (void)pair_put(link, next - count + i, 64);
            }
            (void)rsi_link_flush_clocked(link);
        }
    }
    return NULL;
}

/* Prints; asserts nothing about speed. */
static void test_ping_pong(void **state)
{
    (void)state;
    struct pair pair;
    pair_open(&pair, RING_BYTES);
    struct ponger ponger = {.end = &pair.server};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, pong, &ponger), 0);
    struct rsi_histogram *histogram = calloc(1, sizeof(*histogram));
    assert_non_null(histogram);
    struct rsi_link *link = pair.client.link;
    uint64_t next = 0;
    uint64_t deadline_ns = rsi_clock_now_ns() + 3 * PAIR_DEADLINE_NS;
    for (uint64_t i = 0; i < PING_COUNT; i++) {
        uint64_t start_ns = rsi_clock_now_ns();
        assert_true(pair_put(link, i, 64));
        assert_false(rsi_failed(rsi_link_flush(link)));
        while (next == i) {
            (void)rsi_poller_poll(pair.client.poller, rsi_clock_now_ns());
            (void)pair_take(link, &next);
            assert_true(rsi_clock_now_ns() < deadline_ns);
        }
        rsi_histogram_record(histogram, (rsi_clock_now_ns() - start_ns) / 2);
    }
    print_message("64 bytes one way, polled: p50 %" PRIu64 " ns, p99 %" PRIu64
                  " ns; %.2f work requests per message\n",
                  rsi_histogram_percentile(histogram, 50), rsi_histogram_percentile(histogram, 99),
                  (double)stat_of(&link->stats.sends) / PING_COUNT);
    rsi_store_relaxed(&ponger.should_stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    free(histogram);
    pair_close(&pair);
}

static int run_latency(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ping_pong)};
    return cmocka_run_group_tests_name("rdma latency", tests, NULL, NULL);
}

/* ---- programs ------------------------------------------------------------------------------- */

/* A process that uses verbs must not fork any more, and one that gave up root may no longer use
 * contexts opened before: so each of these runs in a child made before anything else. */
static int run_in_child(int (*run)(void))
{
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        exit(run()); /* the leak checker runs at exit */
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return 1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int run_as_nobody(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stock_limit_is_enough_for_the_defaults),
        cmocka_unit_test(test_too_large_rings_name_need_limit_and_mend),
    };
    return cmocka_run_group_tests_name("rdma as nobody", tests, NULL, NULL);
}

static int run_as_root(void)
{
    const struct CMUnitTest tests[] = {
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
        cmocka_unit_test(test_connections_leave_nothing_behind),
    };
    return cmocka_run_group_tests_name("rdma", tests, NULL, NULL);
}

static int run_on_a_bad_wire(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer_process_dies),
        cmocka_unit_test_teardown(test_lossy_wire_delivers_intact, mend_wire),
        cmocka_unit_test_teardown(test_cut_wire_is_noticed, mend_wire),
    };
    return cmocka_run_group_tests_name("rdma on a bad wire", tests, NULL, NULL);
}

int main(void)
{
    rsi_log_set_level(RSI_LOG_WARNING);
    int failed_count = run_in_child(run_as_nobody);
    failed_count += run_in_child(run_as_root);
    failed_count += run_in_child(run_on_a_bad_wire);
    failed_count += run_in_child(run_latency);
    return failed_count != 0;
}
