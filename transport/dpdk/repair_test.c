/*
 * Losses and what they cost, in virtual time: a round trip is RIG_ROUND_TRIP_NS.
 */
#include "transport/dpdk/dpdk_testing.h"

#define LATENCY ",latency=500000"

/* ---- what is dropped ------------------------------------------------------------------------- */

/* Loses one frame: the one that comes when `left` others have. */
struct single_loss {
    bool is_of_data; /* count only data */
    int64_t left;    /* below 0: it is done */
};

static uint32_t ring_bytes_of(const struct rsi_port_frame *frame)
{
    struct rsi_packet packet;
    return rsi_packet_parse(&packet, frame) ? rsi_packet_ring_bytes(&packet) : 0;
}

static bool drop_one(void *context, const struct rsi_port_frame *frame)
{
    struct single_loss *loss = context;
    if (loss->left < 0 || (loss->is_of_data && ring_bytes_of(frame) == 0)) {
        return false;
    }
    return loss->left-- == 0;
}

static bool drop_all(void *context, const struct rsi_port_frame *frame)
{
    (void)context;
    (void)frame;
    return true;
}

static bool drop_jumbo(void *context, const struct rsi_port_frame *frame)
{
    (void)context;
    return frame->bytes > RSI_ETHERNET_BYTES + RSI_DPDK_MTU_SURE;
}

/* Loses data at random, and counts what it loses. */
struct rate_loss {
    uint64_t random;
    uint32_t ppm;
    uint64_t lost_bytes;
};

static bool drop_some_data(void *context, const struct rsi_port_frame *frame)
{
    struct rate_loss *loss = context;
    uint32_t ring_bytes = ring_bytes_of(frame);
    loss->random = loss->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    if (ring_bytes == 0 || (loss->random >> 33) % 1000000 >= loss->ppm) {
        return false;
    }
    loss->lost_bytes += ring_bytes;
    return true;
}

static void set_filter(const struct rig_side *side,
                       bool (*drops)(void *context, const struct rsi_port_frame *frame),
                       void *context)
{
    rsi_fault_port_set_filter(rig_station(side)->port, drops, context);
}

static uint64_t resent_bytes_of(const struct rig_side *side)
{
    return rsi_load_relaxed(&side->link->stats.resent_bytes);
}

/* ---- single losses --------------------------------------------------------------------------- */

/* So that both know the round trip. */
static void warm_up(struct rig *rig)
{
    for (int i = 0; i < 30; i++) {
        assert_true(rig_write(&rig->client, 200));
        rig_flush(&rig->client);
        rig_run_until(rig, rig->server.link->arrived_pos == rig->client.link->placed_pos);
        rig_read(&rig->server);
        assert_true(rig_write(&rig->server, 200));
        rig_flush(&rig->server);
        rig_run_until(rig, rig->client.link->arrived_pos == rig->server.link->placed_pos);
        rig_read(&rig->client);
    }
    uint64_t quiet_ns = rig->now_ns + 20 * RIG_ROUND_TRIP_NS;
    rig_run_until(rig, rig->now_ns > quiet_ns);
    assert_in_range(rig_link(&rig->client)->path.round_trip_ns, RIG_ROUND_TRIP_NS * 9 / 10,
                    RIG_ROUND_TRIP_NS * 13 / 10);
}

/* How long a burst of `bytes` takes to arrive when `loss` strikes the server. */
static uint64_t time_burst(struct rig *rig, struct single_loss *loss, uint32_t frame_count,
                           uint32_t payload_bytes)
{
    set_filter(&rig->server, drop_one, loss);
    uint64_t start_ns = rig->now_ns;
    for (uint32_t i = 0; i < frame_count; i++) {
        assert_true(rig_write(&rig->client, payload_bytes));
    }
    rig_flush(&rig->client);
    rig_run_until(rig, rig->server.link->arrived_pos == rig->client.link->placed_pos);
    uint64_t taken_ns = rig->now_ns - start_ns;
    rig_read(&rig->server);
    uint64_t quiet_ns = rig->now_ns + 20 * RIG_ROUND_TRIP_NS;
    rig_run_until(rig, rig->now_ns > quiet_ns);
    return taken_ns;
}

/* The first, any in the middle, the last, and one that is alone. */
static void test_single_loss_stalls_less_than_four_round_trips(void **state)
{
    (void)state;
    static const struct {
        uint32_t frame_count;
        uint32_t datagram_count;
    } bursts[] = {{1, 1}, {14, 10}}; /* frames of 1,000 bytes */
    uint64_t worst_ns = 0;
    for (size_t b = 0; b < rsi_array_count(bursts); b++) {
        for (uint32_t lost = 0; lost < bursts[b].datagram_count; lost++) {
            struct rig rig;
            rig_open(&rig, LATENCY, "");
            rig_connect(&rig, 262144);
            warm_up(&rig);
            struct single_loss none = {.left = -1};
            uint64_t clean_ns = time_burst(&rig, &none, bursts[b].frame_count, 1000);
            struct single_loss one = {.is_of_data = true, .left = lost};
            uint64_t taken_ns = time_burst(&rig, &one, bursts[b].frame_count, 1000);
            assert_true(one.left < 0); /* it was lost */
            assert_true(taken_ns > clean_ns);
            worst_ns = taken_ns - clean_ns > worst_ns ? taken_ns - clean_ns : worst_ns;
            assert_true(taken_ns - clean_ns <= 4 * RIG_ROUND_TRIP_NS);
            rig_close(&rig);
        }
    }
    printf("worst stall: %.2f round trips\n", (double)worst_ns / (double)RIG_ROUND_TRIP_NS);
}

/* Any frame of either direction: states, the lane, the handshake. */
static void test_any_frame_may_be_lost(void **state)
{
    (void)state;
    for (int64_t lost = 0; lost < 40; lost++) {
        struct rig rig;
        rig_open(&rig, LATENCY, "");
        struct single_loss one = {.left = lost};
        set_filter(lost % 2 == 0 ? &rig.server : &rig.client, drop_one, &one);
        rig_connect(&rig, 65536);
        assert_int_equal(rsi_link_send_control(rig.client.link, "ping", 4), RSI_OK);
        for (int i = 0; i < 20; i++) {
            assert_true(rig_write(&rig.client, 2000));
            rig_flush(&rig.client);
        }
        uint32_t bytes;
        rig_run_until(&rig, rig.client.link->peer_arrived_pos == rig.client.link->placed_pos &&
                                rsi_link_front_control(rig.server.link, &bytes) != NULL);
        rig_read(&rig.server);
        rsi_link_request_wake(rig.client.link, UINT64_MAX, UINT64_MAX, rig.client.link->placed_pos);
        rig_run_until(&rig, rig.client.link->peer_consumed_pos == rig.client.link->placed_pos);
        rig_close(&rig);
    }
}

/* ---- rates ----------------------------------------------------------------------------------- */

static void stream(struct rig *rig, uint64_t frame_count)
{
    while (rig->server.read < frame_count) {
        while (rig->client.written < frame_count && rig_write(&rig->client, 960)) {
        }
        (void)rsi_link_flush_clocked(rig->client.link);
        rig_step(rig, RIG_STEP_NS);
        rig_read(&rig->server);
    }
}

static void test_bytes_sent_again_stay_below_three_times_those_lost(void **state)
{
    (void)state;
    static const uint32_t rates[] = {1000, 10000, 50000};
    for (size_t i = 0; i < rsi_array_count(rates); i++) {
        struct rig rig;
        struct rate_loss loss = {.random = 7 + i, .ppm = rates[i]};
        rig_open(&rig, LATENCY, "");
        rig_connect(&rig, 1048576);
        set_filter(&rig.server, drop_some_data, &loss);
        uint64_t start_ns = rig.now_ns;
        stream(&rig, 20000);
        uint64_t resent_bytes = resent_bytes_of(&rig.client);
        printf("loss %u ppm: lost %llu bytes, sent again %llu, %.1f MB/s\n", rates[i],
               (unsigned long long)loss.lost_bytes, (unsigned long long)resent_bytes,
               20000.0 * 1000 * 1000 / (double)(rig.now_ns - start_ns));
        assert_true(loss.lost_bytes > 0);
        assert_true(resent_bytes >= loss.lost_bytes);
        assert_true(resent_bytes < 3 * loss.lost_bytes);
        set_filter(&rig.server, NULL, NULL);
        rig_close(&rig);
    }
}

/* Nothing is lost but order and singleness: little is sent again, all of it arrives once. */
static void test_disorder_and_duplicates(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, LATENCY, "seed=5,reorder=20000,duplicate=20000,delay=5000");
    rig_connect(&rig, 1048576);
    stream(&rig, 20000);
    const struct rsi_port *port = rig_station(&rig.server)->port;
    assert_true(rsi_fault_port_count(port, RSI_FAULT_REORDER) > 100);
    assert_true(rsi_fault_port_count(port, RSI_FAULT_DUPLICATE) > 100);
    assert_true(rig_link(&rig.server)->counts.duplicates > 50);
    rig_close(&rig);
}

static void test_spoilt_frames_are_counted_and_repaired(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, LATENCY, "seed=6,corrupt=20000,truncate=10000");
    rig_connect(&rig, 1048576);
    stream(&rig, 20000);
    assert_true(rig_link(&rig.server)->counts.spoilt > 50);
    rig_close(&rig);
}

/* Disorder and duplicates as often as loss: they may cost something too, but not more. */
static void test_all_faults_together_cost_less_than_three_times_the_loss(void **state)
{
    (void)state;
    static const char *const faults[] = {
        "seed=8,drop=1000,corrupt=100,duplicate=1000,reorder=1000",
        "seed=9,drop=10000,corrupt=1000,duplicate=10000,reorder=10000",
        "seed=10,drop=50000,corrupt=5000,duplicate=50000,reorder=50000",
    };
    for (size_t i = 0; i < rsi_array_count(faults); i++) {
        struct rig rig;
        rig_open(&rig, LATENCY, faults[i]);
        rig_connect(&rig, 1048576);
        stream(&rig, 20000);
        uint64_t resent_bytes = resent_bytes_of(&rig.client);
        uint64_t lost_bytes = rsi_fault_port_lost_bytes(rig_station(&rig.server)->port);
        printf("%s: lost %llu bytes, sent again %llu\n", faults[i], (unsigned long long)lost_bytes,
               (unsigned long long)resent_bytes);
        assert_true(lost_bytes > 0);
        assert_true(resent_bytes >= lost_bytes / 2);
        assert_true(resent_bytes < 3 * lost_bytes);
        rig_close(&rig);
    }
}

/* ---- credit ---------------------------------------------------------------------------------- */

/* The window is wide open and the reader's thread stops: its port's ring of 64 must do. */
static void test_burst_beyond_the_receive_ring_loses_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, ",receive=64", "");
    rig_connect(&rig, 1048576);
    stream(&rig, 5000);
    rig_link(&rig.client)->path.window_bytes = 1048576;
    uint64_t target = rig.client.written;
    while (rig_write(&rig.client, 960)) {
        target++;
    }
    rig_flush(&rig.client);
    for (int i = 0; i < 100; i++) { /* for 20 us of the rig, before any time-out */
        rig.now_ns += 200;
        rig_turn(&rig, &rig.client);
    }
    assert_true(rsi_dpdk_has_data(rig_link(&rig.client)));
    assert_true(target > 64 + 5000);
    rig_run_until(&rig, rig.server.link->arrived_pos == rig.client.link->placed_pos);
    rig_read(&rig.server);
    assert_int_equal(rig.server.read, target);
    assert_int_equal(rsi_virtual_overflow_count(rig.name), 0);
    assert_int_equal(resent_bytes_of(&rig.client), 0);
    rig_close(&rig);
}

/* ---- the end, and size ----------------------------------------------------------------------- */

static void test_silence_ends_the_link(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, LATENCY, "");
    rig_connect(&rig, 65536);
    /* Idle, but not silent: twice the limit and more. */
    for (uint64_t ns = 0; ns < 3 * RSI_DPDK_SILENCE_NS; ns += 10000000) {
        rig_step(&rig, 10000000);
    }
    assert_int_equal(rsi_link_state(rig.client.link), RSI_LINK_ATTACHED);
    set_filter(&rig.server, drop_all, NULL);
    set_filter(&rig.client, drop_all, NULL);
    uint64_t start_ns = rig.now_ns;
    while (rsi_link_state(rig.client.link) != RSI_LINK_LOST ||
           rsi_link_state(rig.server.link) != RSI_LINK_LOST) {
        rig_step(&rig, 10000000);
        assert_true(rig.now_ns - start_ns < RSI_DPDK_SILENCE_NS + 1000000000);
    }
    assert_true(rig.now_ns - start_ns > RSI_DPDK_SILENCE_NS - RSI_DPDK_KEEPALIVE_NS - 1000000000);
    assert_int_equal(rig.client.link->error.status, RSI_E_LINK_LOST);
    assert_non_null(strstr(rig.client.link->error.text, "10 s"));
    rig_close(&rig);
}

/* The machine stood still, or had no time for either: nobody fell silent. */
static void test_time_without_a_look_is_no_silence(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, LATENCY, "");
    rig_connect(&rig, 65536);
    for (uint64_t round = 1; round <= 5; round++) {
        rig_step(&rig, 3 * RSI_DPDK_SILENCE_NS);
        rig_step(&rig, RIG_STEP_NS);
        assert_int_equal(rsi_link_state(rig.client.link), RSI_LINK_ATTACHED);
        assert_int_equal(rsi_link_state(rig.server.link), RSI_LINK_ATTACHED);
        stream(&rig, 100 * round);
    }
    rig_close(&rig);
}

/* One side alone stops: it is silent to the other one, and hears so as soon as it goes on. */
static void test_who_was_given_up_while_it_stopped_is_told(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, LATENCY, "");
    rig_connect(&rig, 65536);
    stream(&rig, 100);
    while (rsi_link_state(rig.client.link) != RSI_LINK_LOST) {
        rig.now_ns += 10000000;
        rsi_virtual_set_now(rig.name, rig.now_ns);
        rig_turn(&rig, &rig.client);
    }
    rsi_dpdk_transport.link_close(rig.client.link);
    while (rsi_link_state(rig.client.link) != RSI_LINK_CLOSED) {
        rig_turn(&rig, &rig.client);
    }
    assert_int_equal(rsi_link_state(rig.server.link), RSI_LINK_ATTACHED);
    uint64_t start_ns = rig.now_ns;
    rig_run_until(&rig, rsi_link_state(rig.server.link) == RSI_LINK_LOST);
    assert_true(rig.now_ns - start_ns < 3 * RIG_ROUND_TRIP_NS);
    assert_non_null(strstr(rig.server.link->error.text, "knows nothing of this connection"));
    rig_close(&rig);
}

/* What one cut leaves behind: silence in one direction or in both, at any moment. */
static void cut_some(struct rig *rig, uint64_t *random, bool is_busy)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t drawn = *random >> 33;
    uint64_t end_ns = rig->now_ns + drawn % 200000000;
    set_filter(&rig->server, drawn % 3 != 0 ? drop_all : NULL, NULL);
    set_filter(&rig->client, drawn % 3 != 1 ? drop_all : NULL, NULL);
    while (rig->now_ns < end_ns) {
        while (is_busy && rig_write(&rig->client, 960)) {
        }
        (void)rsi_link_flush_clocked(rig->client.link);
        rig_step(rig, 10 * RIG_STEP_NS);
        rig_read(&rig->server);
    }
    set_filter(&rig->server, NULL, NULL);
    set_filter(&rig->client, NULL, NULL);
}

static void test_short_cuts_leave_nothing_behind(void **state)
{
    (void)state;
    uint64_t random = 11;
    for (int is_busy = 0; is_busy <= 1; is_busy++) {
        struct rig rig;
        rig_open(&rig, LATENCY, "");
        rig_connect(&rig, 262144);
        for (int i = 0; i < 100; i++) {
            cut_some(&rig, &random, is_busy);
            uint64_t start_ns = rig.now_ns;
            stream(&rig, rig.client.written + 1);
            assert_true(rig_write(&rig.server, 200));
            rig_flush(&rig.server);
            rig_run_until(&rig, rig.client.link->arrived_pos == rig.server.link->placed_pos);
            rig_read(&rig.client);
            assert_true(rig.now_ns - start_ns < RSI_DPDK_KEEPALIVE_NS);
        }
        assert_int_equal(rsi_link_state(rig.client.link), RSI_LINK_ATTACHED);
        assert_int_equal(rsi_link_state(rig.server.link), RSI_LINK_ATTACHED);
        rig_close(&rig);
    }
}

static uint32_t take_none(struct rsi_port *port, uint32_t queue, struct rsi_port_frame *frames,
                          uint32_t count)
{
    (void)port;
    (void)queue;
    (void)frames;
    (void)count;
    return 0;
}

/* The client's port takes nothing until its operations are again those that this returns. */
static const struct rsi_port_operations *cut_port(const struct rig *rig)
{
    static struct rsi_port_operations cut;
    struct rsi_port *port = rig_station(&rig->client)->port;
    const struct rsi_port_operations *whole = port->operations;
    cut = *whole;
    cut.transmit = take_none;
    port->operations = &cut;
    return whole;
}

/* As af_packet while the cable is out: the poller must not spin, and all goes when it is back. */
static void test_poller_sleeps_while_the_port_takes_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, LATENCY, "");
    rig_connect(&rig, 1048576);
    stream(&rig, 100);
    const struct rsi_port_operations *whole = cut_port(&rig);
    while (rig_write(&rig.client, 960)) {
    }
    rig_flush(&rig.client);
    for (int i = 0; i < 1000; i++) {
        rig_step(&rig, RIG_STEP_NS);
    }
    assert_true(rsi_dpdk_transport.poller_arm(rig.client.poller));
    uint64_t due_ns = rsi_dpdk_poller(rig.client.poller)->sleep.timer_ns;
    assert_true(due_ns < rsi_test_now_ns() + 10 * RSI_DPDK_STUCK_NS);
    rsi_dpdk_transport.poller_disarm(rig.client.poller);
    rig_station(&rig.client)->port->operations = whole;
    rig_run_until(&rig, rig.server.link->arrived_pos == rig.client.link->placed_pos);
    rig_read(&rig.server);
    rig_close(&rig);
}

/* What the port does not take may wait for long: longer than its bytes stand in the out ring. */
static void test_what_the_port_does_not_take_borrows_nothing(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, LATENCY ",tails=1", "");
    rig_connect(&rig, 65536);
    const struct rsi_port_operations *whole = cut_port(&rig);
    for (int i = 0; i < 10; i++) {
        assert_true(rig_write(&rig.client, 1000));
    }
    rig_flush(&rig.client);
    const struct rsi_dpdk_burst *burst = &rsi_dpdk_poller(rig.client.poller)->burst;
    assert_true(burst->count > 5);
    for (uint32_t i = 0; i < burst->count; i++) {
        assert_int_equal(burst->frames[i].tail_bytes, 0);
    }
    struct rsi_ring *ring = &rig.client.link->out;
    memset(rsi_ring_at(ring, 0), 0x5a, ring->capacity_bytes);
    rig_station(&rig.client)->port->operations = whole;
    rig_run_until(&rig, rig.server.link->arrived_pos == rig.client.link->placed_pos);
    rig_read(&rig.server);
    assert_int_equal(rig.server.read, 10);
    rig_close(&rig);
}

static uint32_t agreed_mtu(const char *arguments,
                           bool (*drops)(void *, const struct rsi_port_frame *))
{
    struct rig rig;
    rig_open(&rig, arguments, "");
    set_filter(&rig.server, drops, NULL);
    set_filter(&rig.client, drops, NULL);
    rig_connect(&rig, 262144);
    for (int i = 0; i < 3000; i++) {
        rig_step(&rig, RIG_STEP_NS);
    }
    stream(&rig, 1000);
    uint32_t bytes = rig_link(&rig.client)->send.body_bytes_max;
    assert_int_equal(bytes, rig_link(&rig.server)->send.body_bytes_max);
    rig_close(&rig);
    return bytes + RSI_IPV4_BYTES + RSI_UDP_BYTES + RSI_DATAGRAM_HEADER_BYTES;
}

static void test_mtu_is_what_comes_through(void **state)
{
    (void)state;
    assert_int_equal(agreed_mtu(",mtu=1500", NULL), 1500);
    assert_int_equal(agreed_mtu(",mtu=576", NULL), 576);
    assert_int_equal(agreed_mtu(",mtu=9000", NULL), 9000);
    assert_int_equal(agreed_mtu(",mtu=9000,latency=500000", drop_jumbo), 1500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_loss_stalls_less_than_four_round_trips),
        cmocka_unit_test(test_any_frame_may_be_lost),
        cmocka_unit_test(test_bytes_sent_again_stay_below_three_times_those_lost),
        cmocka_unit_test(test_disorder_and_duplicates),
        cmocka_unit_test(test_spoilt_frames_are_counted_and_repaired),
        cmocka_unit_test(test_all_faults_together_cost_less_than_three_times_the_loss),
        cmocka_unit_test(test_burst_beyond_the_receive_ring_loses_nothing),
        cmocka_unit_test(test_silence_ends_the_link),
        cmocka_unit_test(test_time_without_a_look_is_no_silence),
        cmocka_unit_test(test_who_was_given_up_while_it_stopped_is_told),
        cmocka_unit_test(test_short_cuts_leave_nothing_behind),
        cmocka_unit_test(test_poller_sleeps_while_the_port_takes_nothing),
        cmocka_unit_test(test_what_the_port_does_not_take_borrows_nothing),
        cmocka_unit_test(test_mtu_is_what_comes_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
