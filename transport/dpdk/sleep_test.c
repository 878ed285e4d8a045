/*
 * How pollers of one station sleep, on a virtual switch, on the system's time: who is woken by a
 * frame, and what happens when the one who should look does not.
 */
#include "core/testing.h"
#include "transport/dpdk/dpdk_internal.h"
#include "transport/dpdk/virtual.h"

#include <poll.h>
#include <stdio.h>

#define HANG_MS     20000
#define OWN_TEXT    "10.7.0.1/24"
#define OWN         0x0a070001u
#define SENDER      0x0a070002u
#define SLEEPERS    2
#define GUARD_INDEX 0
#define OTHER_INDEX 1

struct bed {
    char port[64];
    struct rsi_dpdk_options options;
    struct rsi_domain *domain;
    struct rsi_station *station;
    struct rsi_poller *pollers[SLEEPERS];
    uint32_t connections[SLEEPERS];
    struct rsi_port *sender;
};

static struct rsi_station_queue *queue_of(const struct bed *bed, int index)
{
    return &rsi_dpdk_poller(bed->pollers[index])->queue;
}

static void bed_open(struct bed *bed, const char *arguments, bool has_watch)
{
    static uint32_t count;
    static const uint8_t mac[RSI_MAC_BYTES] = {2, 9, 9, 9, 9, 9};
    struct rsi_error error = {0};
    memset(bed, 0, sizeof(*bed));
    snprintf(bed->port, sizeof(bed->port), "virtual:sleep%u%s", ++count, arguments);
    bed->options = (struct rsi_dpdk_options){.port = bed->port, .address = OWN_TEXT};
    struct rsi_domain_options domain_options = {.dpdk = &bed->options, .node = -1};
    struct rsi_poller_options poller_options = {.link_count_max = 4};
    if (rsi_dpdk_transport.domain_create(&bed->domain, &domain_options, &error) != RSI_OK) {
        fail_msg("%s", error.text);
    }
    bed->station = rsi_dpdk_domain(bed->domain)->station;
    for (int i = 0; i < SLEEPERS; i++) {
        assert_int_equal(rsi_dpdk_transport.poller_create(&bed->pollers[i], bed->domain,
                                                          &poller_options, &error),
                         RSI_OK);
        bed->connections[i] = rsi_station_connect(bed->station, queue_of(bed, i));
        assert_int_not_equal(bed->connections[i], 0);
        (void)rsi_poller_poll(bed->pollers[i], rsi_test_now_ns());
    }
    if (!has_watch) {
        rsi_station_watch_stop(bed->station);
    }
    assert_int_equal(rsi_virtual_port_open(&bed->sender, bed->port, mac, &error), RSI_OK);
}

static void bed_close(struct bed *bed)
{
    for (int i = 0; i < SLEEPERS; i++) {
        rsi_station_disconnect(bed->station, bed->connections[i]);
        rsi_dpdk_transport.poller_destroy(bed->pollers[i]);
    }
    rsi_dpdk_transport.domain_destroy(bed->domain);
    bed->sender->operations->close(bed->sender);
}

static bool lie_down(const struct bed *bed, int index)
{
    return rsi_dpdk_transport.poller_arm(bed->pollers[index]);
}

static void get_up(const struct bed *bed, int index)
{
    rsi_dpdk_transport.poller_disarm(bed->pollers[index]);
}

/* Gets up and looks. */
static void rise(const struct bed *bed, int index)
{
    get_up(bed, index);
    (void)rsi_poller_poll(bed->pollers[index], rsi_test_now_ns());
}

/* Lies down as soon as there is nothing to do. */
static void settle(const struct bed *bed, int index)
{
    while (!lie_down(bed, index)) {
        (void)rsi_poller_poll(bed->pollers[index], rsi_test_now_ns());
    }
}

static bool is_woken(const struct bed *bed, int index, int within_ms)
{
    struct pollfd waiting = {.fd = rsi_dpdk_transport.poller_fd(bed->pollers[index]),
                             .events = POLLIN};
    return poll(&waiting, 1, within_ms) == 1;
}

/* A datagram for a connection of this poller; there is no link, so it takes and forgets it. */
static void send_to(struct bed *bed, int index)
{
    struct rsi_port *port = bed->sender;
    struct rsi_port_frame frame;
    assert_int_equal(port->operations->acquire(port, &frame, 1), 1);
    struct rsi_packet_end from = {.address = SENDER, .port = 1};
    struct rsi_packet_end to = {.address = OWN, .port = 2};
    memcpy(from.mac, port->mac, RSI_MAC_BYTES);
    memcpy(to.mac, bed->station->port->mac, RSI_MAC_BYTES);
    struct rsi_datagram_header header = {
        .type = RSI_DATAGRAM_STATE, .connection = bed->connections[index], .from = 1, .number = 1};
    rsi_packet_write(&frame, &from, &to, &header);
    assert_int_equal(port->operations->transmit(port, 0, &frame, 1), 1);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_frame_wakes_the_guard(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, ",wakes=1", false);
    for (int round = 0; round < 3; round++) {
        assert_true(lie_down(&bed, GUARD_INDEX));
        assert_ptr_equal(rsi_load_relaxed(&bed.station->guard), queue_of(&bed, GUARD_INDEX));
        assert_false(is_woken(&bed, GUARD_INDEX, 0));
        send_to(&bed, GUARD_INDEX);
        assert_true(is_woken(&bed, GUARD_INDEX, HANG_MS));
        get_up(&bed, GUARD_INDEX);
        assert_null(rsi_load_relaxed(&bed.station->guard));
        (void)rsi_poller_poll(bed.pollers[GUARD_INDEX], rsi_test_now_ns());
        assert_true(rsi_mailbox_is_empty(&queue_of(&bed, GUARD_INDEX)->frames));
    }
    bed_close(&bed);
}

/* A frame that came before is told by nobody: the last look finds it. */
static void who_has_a_frame_does_not_sleep(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, ",wakes=1", false);
    send_to(&bed, GUARD_INDEX);
    assert_false(lie_down(&bed, GUARD_INDEX));
    assert_null(rsi_load_relaxed(&bed.station->guard));
    bed_close(&bed);
}

static void the_guard_wakes_the_others(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, ",wakes=1", false);
    assert_true(lie_down(&bed, GUARD_INDEX));
    assert_true(lie_down(&bed, OTHER_INDEX));
    send_to(&bed, OTHER_INDEX);
    assert_true(is_woken(&bed, GUARD_INDEX, HANG_MS));
    assert_false(is_woken(&bed, OTHER_INDEX, 0));
    rise(&bed, GUARD_INDEX);
    assert_true(is_woken(&bed, OTHER_INDEX, HANG_MS));
    get_up(&bed, OTHER_INDEX);
    bed_close(&bed);
}

static void what_is_due_wakes(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, ",wakes=1", false);
    for (int index = 0; index < SLEEPERS; index++) {
        rsi_dpdk_poller(bed.pollers[index])->burst.is_stuck = true; /* due in RSI_DPDK_STUCK_NS */
        assert_true(lie_down(&bed, index));
        assert_true(is_woken(&bed, index, HANG_MS));
        assert_true(rsi_test_now_ns() + RSI_DPDK_STUCK_NS / 2 >=
                    rsi_dpdk_poller(bed.pollers[index])->sleep.timer_ns);
    }
    for (int index = 0; index < SLEEPERS; index++) {
        rise(&bed, index);
        assert_true(lie_down(&bed, index));
        assert_false(is_woken(&bed, index, 0)); /* told once */
        get_up(&bed, index);
    }
    bed_close(&bed);
}

/* It was told of the frame, and its thread does something else: the watch thread hands it out. */
static void a_guard_may_not_come(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, ",wakes=1", true);
    settle(&bed, GUARD_INDEX);
    settle(&bed, OTHER_INDEX);
    for (int round = 0; round < 3; round++) {
        send_to(&bed, OTHER_INDEX);
        assert_true(is_woken(&bed, OTHER_INDEX, HANG_MS));
        rise(&bed, OTHER_INDEX);
        settle(&bed, OTHER_INDEX);
    }
    get_up(&bed, OTHER_INDEX);
    get_up(&bed, GUARD_INDEX);
    bed_close(&bed);
}

/* It is awake and does not look any more: another sleeper is called, and is the guard then. */
static void a_guard_may_stop_looking(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, ",wakes=1", true);
    settle(&bed, GUARD_INDEX);
    settle(&bed, OTHER_INDEX);
    get_up(&bed, GUARD_INDEX);
    uint64_t limit_ns = rsi_test_now_ns() + HANG_MS * UINT64_C(1000000);
    while (rsi_load_relaxed(&bed.station->guard) != queue_of(&bed, OTHER_INDEX)) {
        assert_true(is_woken(&bed, OTHER_INDEX, HANG_MS));
        rise(&bed, OTHER_INDEX);
        (void)lie_down(&bed, OTHER_INDEX);
        assert_true(rsi_test_now_ns() < limit_ns);
    }
    send_to(&bed, OTHER_INDEX);
    assert_true(is_woken(&bed, OTHER_INDEX, HANG_MS));
    get_up(&bed, OTHER_INDEX);
    bed_close(&bed);
}

static void a_device_may_wake_nobody(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "", true);
    for (int round = 0; round < 3; round++) {
        settle(&bed, GUARD_INDEX);
        assert_false(rsi_dpdk_poller(bed.pollers[GUARD_INDEX])->sleep.is_guard);
        send_to(&bed, GUARD_INDEX);
        assert_true(is_woken(&bed, GUARD_INDEX, HANG_MS));
        rise(&bed, GUARD_INDEX);
    }
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_wakes_the_guard),
        cmocka_unit_test(who_has_a_frame_does_not_sleep),
        cmocka_unit_test(the_guard_wakes_the_others),
        cmocka_unit_test(what_is_due_wakes),
        cmocka_unit_test(a_guard_may_not_come),
        cmocka_unit_test(a_guard_may_stop_looking),
        cmocka_unit_test(a_device_may_wake_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
